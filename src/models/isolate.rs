//! Memory that is taken away: who has taken it offline uses it, so a frame of it that anybody
//! else was given shows as a data race.

use super::{World, explore, spawn};

#[test]
fn nobody_is_given_a_frame_that_is_taken_offline() {
    explore(Some(2), || {
        let world = World::new(&[(0, 4), (16, 18)]);
        let other = spawn(&world, |world| {
            if let Ok(frame) = world.alloc(1) {
                world.free(1, frame);
            }
        });
        let isolation = world.isolate(0, 2).expect("managed memory");
        let isolation = world.offline(isolation).err();
        other.join().unwrap();
        if let Some(isolation) = isolation {
            world.offline(isolation).expect("nothing is in use");
        }
        world.check(3);
    });
}

#[test]
fn a_frame_that_is_freed_while_isolated_is_not_handed_out_again() {
    explore(Some(2), || {
        let world = World::new(&[(0, 2), (16, 18)]);
        let held = world.alloc(1).expect("frame 0");
        let isolation = world.isolate(0, 2).expect("managed memory");
        let other = spawn(&world, |world| {
            world.free(1, held);
            world.alloc(1).ok()
        });
        let isolation = world.offline(isolation).err();
        let taken = other.join().unwrap();
        let inside = taken.as_ref().is_some_and(|frame| frame.number().get() < 2);
        assert!(!inside, "handed out after it was isolated");
        taken.into_iter().for_each(|frame| world.free(1, frame));
        if let Some(isolation) = isolation {
            world.offline(isolation).expect("nothing is in use");
        }
        world.check(1);
    });
}

#[test]
fn a_whole_block_is_isolated_in_part() {
    explore(Some(2), || {
        let world = World::new(&[(0, 4), (16, 18)]);
        let held = world.alloc_block(1).expect("the only block");
        let isolation = world.isolate(1, 3).expect("managed memory");
        let other = spawn(&world, |world| {
            world.free_block(1, held);
            world.alloc_block(1).is_ok()
        });
        let isolation = world.offline(isolation).err();
        assert!(!other.join().unwrap(), "handed out after it was isolated");
        if let Some(isolation) = isolation {
            world.offline(isolation).expect("nothing is in use");
        }
        world.check(3);
    });
}

#[test]
fn what_is_readmitted_is_free_once() {
    explore(Some(2), || {
        let world = World::new(&[(0, 4), (16, 18)]);
        let isolation = world.isolate(0, 4).expect("managed memory");
        let other = spawn(&world, |world| {
            let first = world.refill(1).ok();
            let second = world.refill(1).ok();
            [first, second]
        });
        world.tree.readmit(isolation);
        for cache in other.join().unwrap().into_iter().flatten() {
            world.flush(1, cache);
        }
        assert_eq!(world.tree.count_free().blocks, 1, "merged");
        world.check(5);
    });
}
