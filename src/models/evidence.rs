//! "Out of memory" is said only if it was true: while another CPU moves frames about, but some
//! frame is free at every moment, a request must find one.

use super::{World, explore, spawn};

#[test]
fn a_frame_freed_before_is_found_whatever_others_do() {
    explore(None, || {
        // Two blocks with a frame each; CPU 0 holds one of them at most.
        let world = World::new(&[(0, 1), (5, 6)]);
        let low = world.refill(0).expect("the low frame");
        let other = spawn(&world, |world| {
            let frame = world.alloc(1).expect("one of two frames is always free");
            world.free(1, frame);
        });
        world.flush(0, low);
        let next = world.refill(0);
        other.join().unwrap();
        if let Ok(cache) = next {
            world.flush(0, cache);
        }
        world.check(2);
    });
}

#[test]
fn frames_that_move_behind_the_search_are_found() {
    explore(Some(3), || {
        let world = World::new(&[(0, 1), (5, 6)]);
        let low = world.refill(0).expect("the low frame");
        let high = world.refill(0).expect("the high frame");
        world.flush(0, low);
        // Low is free; CPU 0 frees high, then takes low: one of them is free at every moment.
        let other = spawn(&world, |world| {
            let frame = world.alloc(1).expect("one of two frames is always free");
            world.free(1, frame);
        });
        world.flush(0, high);
        let taken = world.refill(0);
        other.join().unwrap();
        if let Ok(cache) = taken {
            world.flush(0, cache);
        }
        world.check(2);
    });
}

#[test]
fn a_merge_hides_nothing() {
    explore(Some(3), || {
        let world = World::new(&[(0, 4)]);
        let held = world.refill(0).expect("a word");
        let other =
            spawn(&world, |world| world.alloc(1).expect("two of four frames are always free"));
        world.flush(0, held);
        world.free(1, other.join().unwrap());
        world.check(4);
    });
}

#[test]
fn a_split_hides_nothing() {
    explore(Some(2), || {
        let world = World::new(&[(0, 16)]);
        let other = spawn(&world, |world| world.alloc(1).expect("at most one of 16 is held"));
        let frame = world.alloc(0).expect("at most one of 16 frames is held");
        world.free(1, other.join().unwrap());
        world.free(0, frame);
        world.check(16);
    });
}
