//! Runs, claimed piece by piece: against those who take one of the pieces, so that the claim is
//! undone; against those who free beside it; and what is said of runs while others are at it.

use super::{World, explore, spawn};
use crate::frame::FrameRange;
use crate::request::Request;
use crate::tree::RunHints;

/// Frees what was got, if anything was.
fn back(world: &World, cpu: usize, run: Option<FrameRange>) {
    if let Some(run) = run {
        world.free_run(cpu, run);
    }
}

#[test]
fn a_claim_across_two_words_against_refills_of_both() {
    explore(Some(3), || {
        let world = World::new(&[(0, 3)]);
        let other = spawn(&world, |world| {
            // The second finds the leaf empty if the claim holds the other word: the hint goes.
            [(); 2].map(|()| world.refill(1).ok())
        });
        let run = world.claim(0, 0, 3);
        let caches = other.join().unwrap();
        let found = caches.iter().flatten().map(|cache| cache.free().count_ones()).sum::<u32>();
        assert_eq!(found, if run.is_some() { 0 } else { 3 }, "one of the two gets all");
        back(&world, 0, run);
        caches.into_iter().flatten().for_each(|cache| world.flush(1, cache));
        world.check(3);
    });
}

#[test]
fn what_an_undone_claim_gave_back_is_found() {
    explore(Some(3), || {
        let world = World::new(&[(0, 3)]);
        let held = [world.refill(0).expect("a word"), world.refill(0).expect("a word")];
        let [low, high] = held;
        world.flush(0, low);
        // The claim takes the low word, and must fail at the high one.
        let other = spawn(&world, |world| world.refill(1).expect("nobody else owns the word"));
        assert!(world.claim(0, 0, 3).is_none(), "a frame of it is held");
        let low = other.join().unwrap();
        world.flush(1, low);
        world.flush(0, high);
        world.check(3);
    });
}

#[test]
fn of_two_claims_that_overlap_one_gets_through() {
    explore(None, || {
        let world = World::new(&[(0, 3)]);
        let other = spawn(&world, |world| world.claim(1, 1, 3));
        let own = world.claim(0, 0, 3);
        let other = other.join().unwrap();
        assert!(own.is_some() != other.is_some(), "both, or neither");
        back(&world, 0, own);
        back(&world, 1, other);
        world.check(3);
    });
}

#[test]
fn two_claims_that_overlap_across_blocks() {
    explore(Some(3), || {
        // Two blocks, each short of a frame.
        let world = World::new(&[(1, 7)]);
        let other = spawn(&world, |world| world.claim(1, 3, 7));
        let own = world.claim(0, 1, 5);
        let other = other.join().unwrap();
        assert!(own.is_some() != other.is_some(), "both, or neither");
        back(&world, 0, own);
        back(&world, 1, other);
        world.check(6);
    });
}

#[test]
fn a_claim_that_is_undone_into_a_leaf_that_a_free_completes() {
    explore(Some(3), || {
        let world = World::new(&[(0, 4)]);
        let last = world.claim(0, 3, 4).expect("free");
        let other = spawn(&world, |world| world.claim(1, 0, 4));
        world.free_run(0, last);
        let run = other.join().unwrap();
        if run.is_none() {
            assert_eq!(world.tree.count_free().blocks, 1, "merged");
        }
        back(&world, 1, run);
        assert_eq!(world.tree.count_free().blocks, 1, "merged");
        world.check(4);
    });
}

#[test]
fn a_claim_of_a_block_and_a_word_against_the_merge_of_that_block() {
    explore(Some(3), || {
        let world = World::new(&[(0, 7)]);
        let held = world.claim(0, 0, 2).expect("free");
        let other = spawn(&world, |world| world.claim(1, 0, 6));
        world.free_run(0, held);
        back(&world, 1, other.join().unwrap());
        assert_eq!(world.tree.count_free().blocks, 1, "merged");
        world.check(7);
    });
}

#[test]
fn two_claims_of_a_block_and_a_word() {
    explore(Some(3), || {
        let world = World::new(&[(0, 6)]);
        let other = spawn(&world, |world| world.claim(1, 4, 6));
        let own = world.claim(0, 0, 6);
        let other = other.join().unwrap();
        assert!(own.is_some() != other.is_some(), "both, or neither");
        back(&world, 0, own);
        back(&world, 1, other);
        assert_eq!(world.tree.count_free().blocks, 1, "whole");
        world.check(6);
    });
}

#[test]
fn a_claim_from_the_middle_of_a_giant_against_a_block() {
    explore(Some(1), || {
        let world = World::new(&[(0, 16)]);
        let other = spawn(&world, |world| world.alloc_block(1).expect("one of four at least"));
        // Splits the giant and two blocks; the other takes one of them whole, or a third.
        let run = world.claim(0, 2, 6);
        let block = other.join().unwrap();
        back(&world, 0, run);
        world.free_block(1, block);
        assert_eq!(world.tree.count_free().giants, 1, "merged");
        world.check(16);
    });
}

#[test]
fn two_claims_that_split_a_giant() {
    explore(Some(2), || {
        let world = World::new(&[(0, 16)]);
        let other = spawn(&world, |world| world.claim(1, 4, 8));
        let run = world.claim(0, 2, 6);
        let other = other.join().unwrap();
        assert!(run.is_some() != other.is_some(), "both, or neither");
        back(&world, 0, run);
        back(&world, 1, other);
        assert_eq!(world.tree.count_free().giants, 1, "merged");
        world.check(16);
    });
}

#[test]
fn a_claim_of_a_giant_and_a_frame_against_that_frame() {
    explore(Some(3), || {
        let world = World::new(&[(0, 17)]);
        let other = spawn(&world, |world| world.claim(1, 16, 17));
        let own = world.claim(0, 0, 17);
        let other = other.join().unwrap();
        assert!(own.is_some() != other.is_some(), "both, or neither");
        back(&world, 0, own);
        back(&world, 1, other);
        assert_eq!(world.tree.count_free().giants, 1, "whole");
        world.check(17);
    });
}

#[test]
fn two_claims_in_a_block_that_was_never_split() {
    explore(Some(3), || {
        // A GiB that was free as a whole: nothing below it was ever written.
        let world = World::new(&[(0, 16)]);
        let rest = world.claim(0, 4, 16);
        let other = spawn(&world, |world| world.claim(1, 0, 2));
        // Fails while the other writes the leaf, which holds anything until then.
        let run = world.claim(0, 2, 4);
        let other = other.join().unwrap();
        assert!(run.is_some() || other.is_some(), "one of them splits the block");
        back(&world, 0, run);
        back(&world, 1, other);
        back(&world, 0, rest);
        assert_eq!(world.tree.count_free().giants, 1, "merged");
        world.check(16);
    });
}

#[test]
fn parts_of_a_run_freed_at_once_are_merged() {
    explore(Some(3), || {
        let world = World::new(&[(0, 8)]);
        let run = world.claim(0, 0, 8).expect("free");
        let (low, high) = run.split_at(3);
        let other = spawn(&world, |world| world.free_run(1, high));
        world.free_run(0, low);
        other.join().unwrap();
        assert_eq!(world.tree.count_free().blocks, 2, "merged");
        world.check(8);
    });
}

#[test]
fn a_run_that_is_always_free_is_found_while_a_frame_moves() {
    explore(Some(3), || {
        // The run lies across two words; CPU 1 only ever takes the frame below.
        let world = World::new(&[(0, 1), (5, 7)]);
        let other = spawn(&world, |world| {
            let frame = world.alloc(1).expect("three frames, of which two are wanted");
            let number = frame.number().get();
            world.free(1, frame);
            number
        });
        let run = world.alloc_run(0, &Request::new(2));
        // Frame 5 is the lowest only while nobody can find frame 0.
        assert_eq!(other.join().unwrap(), 0, "the lowest frame");
        world.free_run(0, run.expect("a run that is free at every moment"));
        world.check(3);
    });
}

#[test]
fn of_two_runs_one_is_always_found() {
    explore(Some(3), || {
        let world = World::new(&[(1, 3), (5, 7)]);
        let high = world.claim(0, 5, 7).expect("free");
        // Low is free; CPU 0 frees high, then takes one: one of them is free at every moment.
        let other = spawn(&world, |world| {
            let run = world.alloc_run(1, &Request::new(2)).expect("one of two is always free");
            world.free_run(1, run);
        });
        world.free_run(0, high);
        let run = world.alloc_run(0, &Request::new(2)).expect("one of two is always free");
        other.join().unwrap();
        world.free_run(0, run);
        world.check(4);
    });
}

#[test]
fn a_run_is_found_while_the_blocks_that_it_lies_in_merge() {
    explore(Some(2), || {
        let world = World::new(&[(0, 4)]);
        let held = world.claim(0, 0, 1).expect("free");
        let request = Request::new(2);
        let other = spawn(&world, move |world| world.alloc_run(1, &request).expect("2 and 3"));
        world.free_run(0, held);
        let run = other.join().unwrap();
        world.free_run(1, run);
        assert_eq!(world.tree.count_free().blocks, 1, "merged");
        world.check(4);
    });
}

/// A run near the last one, or else from anywhere, used at once.
fn near(world: &World, cpu: usize, hints: &RunHints, count: u64) -> Option<FrameRange> {
    match world.tree.alloc_run_near(world.tree.sole_writer(cpu), hints, count) {
        Some(run) => {
            world.touch_run(run);
            Some(FrameRange::owned(run))
        }
        None => world.alloc_run(cpu, &Request::new(count)).ok(),
    }
}

#[test]
fn a_run_near_the_last_one_in_a_block_that_was_never_split() {
    explore(Some(3), || {
        // A GiB that was free as a whole: nothing below it was ever written.
        let world = World::new(&[(0, 16)]);
        let rest = world.claim(0, 4, 16);
        // Who only looks is spawned, as in `crumbs`.
        let other = spawn(&world, |world| near(world, 1, &RunHints::new(), 1));
        let run = world.claim(0, 0, 2);
        back(&world, 1, other.join().unwrap());
        back(&world, 0, run);
        back(&world, 0, rest);
        world.check(16);
    });
}

#[test]
fn a_run_near_the_last_one_across_two_words_against_refills_of_both() {
    explore(Some(3), || {
        let world = World::new(&[(1, 3)]);
        let other = spawn(&world, |world| [(); 2].map(|()| world.refill(1).ok()));
        let run = near(&world, 0, &RunHints::new(), 2);
        let caches = other.join().unwrap();
        let found = caches.iter().flatten().map(|cache| cache.free().count_ones()).sum::<u32>();
        assert_eq!(found, if run.is_some() { 0 } else { 2 }, "one of the two gets all");
        back(&world, 0, run);
        caches.into_iter().flatten().for_each(|cache| world.flush(1, cache));
        world.check(2);
    });
}
