//! "Out of memory" is said only if it was true: while another CPU moves frames about, but some
//! frame is free at every moment, a request must find one.

use super::{World, explore, explore_long, spawn};
use crate::request::Request;

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
    explore_long(1, 2, || {
        let world = World::new(&[(0, 16)]);
        let other = spawn(&world, |world| world.alloc(1).expect("at most one of 16 is held"));
        let frame = world.alloc(0).expect("at most one of 16 frames is held");
        world.free(1, other.join().unwrap());
        world.free(0, frame);
        world.check(16);
    });
}

/// CPU 0 frees what another CPU looks for at the same time, and then looks for it too. If it finds
/// nothing, the other must have it: what it claims by name then was free all the time.
fn who_frees_it_finds_it<T: 'static>(
    (frames, bound): (u64, usize),
    take: impl Fn(&World, usize) -> Option<T> + Copy + Send + Sync + 'static,
    give: impl Fn(&World, T) + Copy + Send + Sync + 'static,
) {
    explore(Some(bound), move || {
        let world = World::new(&[(0, frames)]);
        let held = take(&world, 0).expect("all there is");
        let other = spawn(&world, move |world| take(world, 1));
        give(&world, held);
        let own = take(&world, 0);
        let missed = if own.is_none() { world.claim(0, 0, frames) } else { None };
        assert!(missed.is_none(), "it was there, and nobody had it");
        own.into_iter().chain(other.join().unwrap()).for_each(|held| give(&world, held));
        world.check(frames);
    });
}

#[test]
fn who_frees_the_last_frame_finds_it() {
    who_frees_it_finds_it(
        (1, 2),
        |world, cpu| world.alloc(cpu).ok(),
        |world, frame| {
            world.free(0, frame);
        },
    );
}

#[test]
fn who_frees_the_last_block_finds_it() {
    who_frees_it_finds_it(
        (4, 2),
        |world, cpu| world.alloc_block(cpu).ok(),
        |world, block| {
            world.free_block(0, block);
        },
    );
}

#[test]
fn who_frees_the_last_run_finds_it() {
    let take = |world: &World, cpu| world.alloc_run(cpu, &Request::new(2)).ok();
    who_frees_it_finds_it((2, 1), take, |world, run| world.free_run(0, run));
}
