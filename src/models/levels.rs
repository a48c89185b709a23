//! Split against split, split against merge, whole blocks against frames, giants.

use super::{World, explore, explore_long, spawn};
use crate::frame::{FrameNumber, NumberRange};
use crate::node::{take_all, take_bit};
use crate::tree::HomeCell;

#[test]
fn two_first_splits_of_the_same_blocks() {
    explore(None, || {
        let world = World::new(&[(0, 8)]);
        let other = spawn(&world, |world| world.refill(1).expect("one of four words"));
        let own = world.refill(0).expect("one of four words");
        let other = other.join().unwrap();
        world.flush(1, other);
        world.flush(0, own);
        assert_eq!(world.tree.count_free().blocks, 2, "merged");
        world.check(8);
    });
}

#[test]
fn a_split_against_the_merge_of_the_same_block() {
    explore(Some(3), || {
        let world = World::new(&[(0, 4)]);
        let held = world.refill(0).expect("a word");
        let other = spawn(&world, |world| world.refill(1).expect("the other word at least"));
        world.flush(0, held);
        let other = other.join().unwrap();
        world.flush(1, other);
        assert_eq!(world.tree.count_free().blocks, 1, "merged");
        world.check(4);
    });
}

#[test]
fn a_merge_that_meets_a_taker_is_tried_again() {
    explore(Some(3), || {
        let world = World::new(&[(0, 4)]);
        let held = world.refill(0).expect("a word");
        let other = spawn(&world, |world| {
            // Taken out of the merge's hands, and back before the merge has given up.
            if let Some(run) = world.claim(1, 2, 4) {
                world.free_run(1, run);
            }
        });
        world.flush(0, held);
        other.join().unwrap();
        assert_eq!(world.tree.count_free().blocks, 1, "merged");
        world.check(4);
    });
}

#[test]
fn what_a_merge_gives_back_is_announced() {
    explore(Some(1), || {
        let world = World::new(&[(0, 4)]);
        let held = world.refill(0).expect("a word");
        let other = spawn(&world, |world| {
            let cache = world.refill(1).expect("the other word at least");
            // The merge holds all the rest, so the hint is taken back.
            (cache, world.refill(1).ok())
        });
        world.flush(0, held);
        let (cache, second) = other.join().unwrap();
        match second.or_else(|| world.refill(0).ok()) {
            Some(second) => world.flush(0, second),
            None => panic!("frames are free, but not found"),
        }
        world.flush(1, cache);
        world.check(4);
    });
}

#[test]
fn a_block_claimed_whole_against_the_free_that_completes_it() {
    explore(None, || {
        let world = World::new(&[(0, 4)]);
        let held = world.refill(0).expect("a word");
        let other = spawn(&world, |world| {
            if let Ok(first) = world.alloc_block(1) {
                world.free_block(1, first);
            }
        });
        world.flush(0, held);
        other.join().unwrap();
        world.check(4);
    });
}

#[test]
fn two_blocks_freed_at_once_become_a_giant() {
    explore(Some(3), || {
        let world = World::new(&[(0, 16)]);
        let [one, two] = [(); 2].map(|()| world.alloc_block(0).expect("a block"));
        let other = spawn(&world, |world| world.free_block(1, two));
        world.free_block(0, one);
        other.join().unwrap();
        assert_eq!(world.tree.count_free().giants, 1, "merged");
        world.check(16);
    });
}

#[test]
fn a_giant_split_against_its_merge() {
    explore(Some(3), || {
        let world = World::new(&[(0, 16)]);
        let held = world.alloc_block(0).expect("a block");
        let other = spawn(&world, |world| world.alloc_block(1).expect("another block"));
        world.free_block(0, held);
        let other = other.join().unwrap();
        world.free_block(1, other);
        assert_eq!(world.tree.count_free().giants, 1, "merged");
        world.check(16);
    });
}

#[test]
fn two_first_splits_of_the_same_giant() {
    explore(Some(1), || {
        let world = World::new(&[(0, 16)]);
        let other = spawn(&world, |world| world.refill(1).expect("one of eight words"));
        let own = world.refill(0).expect("one of eight words");
        let other = other.join().unwrap();
        world.flush(1, other);
        world.flush(0, own);
        world.check(16);
    });
}

#[test]
fn a_giant_claimed_whole_for_the_first_time_against_a_refill() {
    explore(Some(1), || {
        let world = World::new(&[(0, 16)]);
        let other = spawn(&world, |world| world.refill(1).ok());
        if let Ok(first) = world.alloc_giant(0) {
            world.free_giant(0, first);
        }
        if let Some(cache) = other.join().unwrap() {
            world.flush(1, cache);
        }
        world.check(16);
    });
}

#[test]
fn two_cpus_with_homes_lose_nothing() {
    explore_long(1, 2, || {
        let world = World::new(&[(0, 8)]);
        let visit = |world: &World, cpu: usize| {
            let mut home = HomeCell::new().get();
            let writer = world.tree.sole_writer(cpu);
            let cache = world.tree.refill_near(writer, &mut home).expect("one of four words").cache;
            world.touch(cache.base(), cache.free());
            world.flush(cpu, cache);
            home.leave();
        };
        let other = spawn(&world, move |world| visit(world, 1));
        visit(&world, 0);
        other.join().unwrap();
        world.check(8);
    });
}

/// A taker that has come by a hint of before the block was put together: it finds the frames as
/// soon as the block is split again, and has to find their contents too.
#[test]
fn contents_go_through_a_split_to_a_taker_with_an_old_hint() {
    explore(Some(2), || {
        let world = World::new(&[(0, 4)]);
        // Written once, so that it can be looked at.
        let frame = world.alloc(0).expect("a frame");
        world.free(0, frame);
        let held = world.alloc_block(0).expect("the block");
        let splitter = spawn(&world, |world| world.claim(1, 0, 2));
        let taker = spawn(&world, |world| {
            let taken = take_all(world.block(2).leaf().word(1)).is_some();
            taken.then(|| world.touch(FrameNumber::new(2), 0b11))
        });
        world.free_block(0, held);
        let low = splitter.join().unwrap();
        if taker.join().unwrap().is_some() {
            [2, 3].into_iter().for_each(|frame| world.give(0, frame));
        }
        low.into_iter().for_each(|run| world.free_run(0, run));
    });
}

/// The same of blocks in a giant.
#[test]
fn contents_go_through_a_giants_split_to_a_taker_with_an_old_hint() {
    explore(Some(2), || {
        let world = World::new(&[(0, 16)]);
        let held = world.alloc_giant(0).expect("the giant");
        let splitter = spawn(&world, |world| world.claim(1, 0, 4));
        let taker = spawn(&world, |world| {
            let taken = take_bit(world.block(8).giant.nodes().blocks.word(1), 1).is_ok();
            taken.then(|| world.touch(FrameNumber::new(8), 0b1111))
        });
        world.free_giant(0, held);
        let low = splitter.join().unwrap();
        if taker.join().unwrap().is_some() {
            let run = NumberRange::from_numbers(8, 12);
            world.tree.free_run_with(world.tree.sole_writer(0), run).expect("its block");
        }
        low.into_iter().for_each(|run| world.free_run(0, run));
    });
}
