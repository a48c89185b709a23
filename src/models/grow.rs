//! Memory that joins a tree in use.

use super::{World, explore, spawn};
use crate::directory::Group;
use crate::frame::FrameNumber;

#[test]
fn what_grows_into_a_block_merges_with_what_is_freed_there() {
    explore(Some(3), || {
        let world = World::with_room(&[(0, 2)], 4);
        let held = world.refill(0).expect("the only word");
        let other = spawn(&world, |world| world.flush(1, held));
        world.grow(2, 4).expect("a range that is new");
        other.join().unwrap();
        assert_eq!(world.tree.count_free().blocks, 1, "merged");
        world.check(4);
    });
}

#[test]
fn two_cpus_complete_a_block_by_growing() {
    explore(Some(3), || {
        let world = World::with_room(&[(4, 6)], 8);
        let other = spawn(&world, |world| world.grow(0, 2).expect("a range that is new"));
        world.grow(2, 4).expect("a range that is new");
        other.join().unwrap();
        assert_eq!(world.tree.count_free().blocks, 1, "merged");
        world.check(6);
    });
}

#[test]
fn two_cpus_add_the_same_cluster() {
    explore(Some(2), || {
        let world = World::with_room(&[(0, 2)], 36);
        let other = spawn(&world, |world| world.grow(32, 33).expect("a range that is new"));
        world.grow(33, 36).expect("a range that is new");
        other.join().unwrap();
        assert_eq!(world.tree.count_free().blocks, 1, "merged");
        world.check(6);
    });
}

#[test]
fn what_has_grown_is_found_and_its_contents_are_handed_over() {
    explore(Some(3), || {
        let world = World::with_room(&[(0, 2)], 20);
        let other = spawn(&world, |world| {
            let first = world.refill(1).expect("the only word");
            // A block of another giant, or nothing yet.
            let second = world.alloc_block(1).ok();
            (first, second)
        });
        world.grow(16, 20).expect("a range that is new");
        let (first, second) = other.join().unwrap();
        world.flush(1, first);
        if let Some(block) = second {
            world.free_block(1, block);
        }
        world.check(6);
    });
}

#[test]
fn a_whole_giant_comes_while_others_search() {
    explore(Some(2), || {
        let world = World::with_room(&[(0, 2)], 32);
        let other = spawn(&world, |world| {
            let first = world.refill(1).expect("the only word");
            (first, world.refill(1).ok())
        });
        world.grow(16, 32).expect("a range that is new");
        let (first, second) = other.join().unwrap();
        second.into_iter().for_each(|cache| world.flush(1, cache));
        world.flush(1, first);
        assert_eq!(world.tree.count_free().giants, 1, "merged");
        world.check(18);
    });
}

#[test]
fn of_two_overlapping_ranges_one_is_added() {
    explore(None, || {
        let world = World::with_room(&[(0, 2)], 8);
        let other = spawn(&world, |world| world.grow_untouched(4, 7).is_ok());
        let own = world.grow_untouched(6, 8).is_ok();
        let other = other.join().unwrap();
        assert!(own != other, "one of them, and only one");
        world.check(if own { 4 } else { 5 });
    });
}

/// The same while some of it is isolated: no cache keeps that afterwards.
#[test]
fn what_is_isolated_while_it_comes_stays_out_of_caches() {
    explore(Some(2), || {
        let world = World::with_room(&[(0, 2), (16, 18)], 8);
        let other = spawn(&world, |world| world.isolate(4, 5).ok());
        world.grow_untouched(4, 8).expect("a range that is new");
        let isolation = other.join().unwrap();
        let is_isolated = isolation.is_some();
        let opening = world.tree.open_to_cache(Group::of(FrameNumber::new(4))).expect("frame 5");
        assert_eq!(opening.managed & 1 == 0, is_isolated);
        isolation.into_iter().for_each(|isolation| world.tree.readmit(isolation));
        world.check(if is_isolated { 7 } else { 8 });
    });
}
