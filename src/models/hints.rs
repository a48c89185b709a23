//! Announce against retire, raise against lower: at every level, a hint is never left clear
//! over something. A search that finds nothing takes the hints back while another CPU gives.

extern crate std;

use super::{World, explore, spawn};

/// Takes everything, so that all hints are stale.
fn exhaust(world: &World) -> std::vec::Vec<crate::cache::Handful> {
    let mut held = std::vec::Vec::new();
    while let Ok(cache) = world.tree.refill_with(world.tree.sole_writer(0)) {
        held.push(cache);
    }
    held
}

#[test]
fn frames_announced_while_their_blocks_hint_is_retired() {
    explore(None, || {
        let world = World::new(&[(0, 3)]);
        let mut held = exhaust(&world);
        let last = held.pop().expect("a word");
        let other = spawn(&world, |world| world.refill(1).ok());
        world.flush(0, last);
        if let Some(cache) = other.join().unwrap() {
            world.flush(1, cache);
        }
        for cache in held {
            world.flush(0, cache);
        }
        world.check(3);
    });
}

#[test]
fn two_frees_announce_two_blocks_while_the_giants_hint_is_lowered() {
    explore(Some(3), || {
        let world = World::new(&[(0, 1), (5, 6)]);
        let mut held = exhaust(&world);
        let [two, one] = [held.pop().expect("a word"), held.pop().expect("a word")];
        let other = spawn(&world, |world| world.flush(1, two));
        let third = spawn(&world, |world| world.tree.refill().ok());
        world.flush(0, one);
        other.join().unwrap();
        if let Some(mut cache) = third.join().unwrap() {
            world.tree.flush(&mut cache).expect("own frames");
        }
        world.check(2);
    });
}

#[test]
fn a_block_freed_while_the_giants_whole_hint_is_lowered() {
    explore(None, || {
        let world = World::new(&[(0, 4)]);
        let held = world.alloc_block(0).expect("the block");
        let other = spawn(&world, |world| world.alloc_block(1).ok());
        world.free_block(0, held);
        if let Some(first) = other.join().unwrap() {
            world.free_block(1, first);
        }
        world.check(4);
    });
}

#[test]
fn a_stale_hint_of_one_giant_does_not_hide_the_other() {
    explore(Some(3), || {
        let world = World::new(&[(0, 2), (16, 18)]);
        let low = world.refill(0).expect("the low word");
        let other = spawn(&world, |world| world.refill(1).expect("the high word at least"));
        world.flush(0, low);
        let other = other.join().unwrap();
        world.flush(1, other);
        world.check(4);
    });
}
