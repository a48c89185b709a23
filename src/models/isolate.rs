//! Memory that is taken away: who has taken it offline uses it, so a frame of it that anybody
//! else was given shows as a data race.

extern crate std;

use std::boxed::Box;

use loom::cell::UnsafeCell;
use loom::sync::Arc;

use super::{World, explore, spawn, start};
use crate::arena::Arena;
use crate::budget::{Budget, Rules};
use crate::directory::Group;
use crate::frame::{Frame, FrameNumber, NumberRange};
use crate::isolation::Isolations;
use crate::node::take_any;
use crate::slot::Slot;
use crate::sync::Ordering;
use crate::tree::IsolateError;
use crate::tree::looks::mark_gone;

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
            let cache = world.refill(1).expect("a frame, if it is the last one");
            world.flush(1, cache);
        });
        world.tree.readmit(isolation);
        other.join().unwrap();
        assert_eq!(world.tree.count_free().blocks, 1, "merged");
        world.check(5);
    });
}

#[test]
fn what_a_taker_sets_aside_late_comes_back() {
    explore(Some(3), || {
        let world = World::new(&[(0, 2), (16, 18)]);
        let held = world.alloc(1).expect("frame 0");
        let isolation = world.isolate(0, 2).expect("managed memory");
        world.free(1, held);
        // It finds the freed frame in its hands, and the isolation in force, or over.
        let other = spawn(&world, |world| {
            if let Ok(cache) = world.refill(1) {
                world.flush(1, cache);
            }
        });
        world.tree.readmit(isolation);
        other.join().unwrap();
        world.check(3);
        world.isolate(0, 2).map(|isolation| world.tree.readmit(isolation)).expect("a free place");
    });
}

#[test]
fn a_run_that_is_taken_meanwhile_comes_back() {
    explore(Some(2), || {
        let world = World::new(&[(0, 4), (16, 18)]);
        let held = world.alloc_block(1).expect("the only block");
        let isolation = world.isolate(1, 3).expect("managed memory");
        world.free_block(1, held);
        let other = spawn(&world, |world| {
            if let Ok(block) = world.alloc_block(1) {
                world.free_block(1, block);
            }
        });
        world.tree.readmit(isolation);
        other.join().unwrap();
        assert_eq!(world.tree.count_free().blocks, 1, "merged");
        world.check(5);
    });
}

#[test]
fn a_refused_isolation_sets_nothing_aside() {
    explore(Some(2), || {
        let world = World::new(&[(0, 2), (16, 18)]);
        world.tree.readmit(world.isolate(0, 2).expect("managed memory"));
        // So that takers look at all.
        let far = world.isolate(17, 18).expect("managed memory");
        let other = spawn(&world, |world| {
            let frame = world.alloc(1).expect("what is no metadata");
            world.free(1, frame);
        });
        assert!(matches!(world.isolate(0, 3), Err(IsolateError::Unmanaged { .. })));
        other.join().unwrap();
        world.tree.readmit(far);
        world.check(2);
    });
}

#[test]
fn of_two_isolations_that_overlap_one_at_most_begins() {
    explore(Some(2), || {
        let world = World::new(&[(0, 2), (16, 18)]);
        let isolate = |world: &World, start, end| {
            world.isolate(start, end).map(|isolation| world.offline(isolation).expect("free"))
        };
        world.tree.readmit(world.isolate(0, 2).expect("managed memory"));
        let other = spawn(&world, move |world| isolate(world, 0, 2).is_ok());
        let mine = isolate(&world, 1, 2).is_ok();
        let theirs = other.join().unwrap();
        assert!(!(mine && theirs), "a frame went twice");
        world.check(3 - u64::from(mine) - 2 * u64::from(theirs));
    });
}

#[test]
fn what_is_retired_does_not_come_back_through_a_slot() {
    explore(Some(3), || {
        let world = World::new(&[(0, 4), (16, 18)]);
        world.tree.readmit(world.isolate(0, 4).expect("managed memory"));
        let budget = Budget::new(Rules::OFF, 6, 3, world.tree.shared_journal());
        let slot = Slot::new(world.tree.journal_of(1), Box::leak(Box::new(budget)));
        let slot: &'static Slot<'static> = Box::leak(Box::new(slot));
        let alloc = || slot.take_turn(|turn| turn.alloc(&world.tree)).expect("at rest");
        let held = alloc().expect("frame 0").into_number();
        let bad = alloc().map(Frame::into_number).expect("frame 1, and the side is dry");
        let free = |world: &World, frame: FrameNumber| {
            slot.take_turn(|turn| turn.free(&world.tree, frame)).expect("no interrupt")
        };
        let other = spawn(&world, move |world| {
            free(world, held).expect("own frame");
            // Asked to drain by who has retired the other: it knows of that, then.
            if slot.cached() == 0 {
                free(world, bad).expect_err("a retired frame");
            }
        });
        world.tree.retire(bad, |_| Ok(Arena::empty())).expect("own frame");
        slot.request_drain();
        other.join().unwrap();
        // Its side may take it back, if it has not drained yet; but then it does, and drops it.
        let _ = free(&world, bad);
        assert_eq!(slot.cached(), 0);
        world.check(4);
    });
}

#[test]
fn what_is_retired_is_refused_while_its_block_is_filled() {
    explore(Some(2), || {
        let world = World::new(&[(0, 4), (16, 18)]);
        // Takes frame 16 for its bits.
        world.tree.readmit(world.isolate(0, 4).expect("managed memory"));
        let rest = world.isolate(2, 4).expect("managed memory");
        let held = world.alloc(1).expect("frame 0");
        let bad = world.alloc(1).map(Frame::into_number).expect("frame 1");
        // It says of the block that nothing of it is gone, if it looks before the mark is there.
        let other = spawn(&world, |world| world.tree.readmit(rest));
        // It may be refused, if it comes just when the other fills the block.
        let is_gone = world.tree.retire(bad, |_| Ok(Arena::empty())).is_ok();
        let writer = world.tree.sole_writer(1);
        let freed = world.tree.free_with(writer, bad);
        assert_eq!(freed.is_err(), is_gone, "{freed:?}");
        other.join().unwrap();
        if is_gone {
            world.tree.free_with(writer, bad).expect_err("a retired frame, whoever was last");
        }
        world.free(1, held);
        world.check(if is_gone { 4 } else { 5 });
    });
}

/// The same for what an isolation takes away from caches.
#[test]
fn no_cache_opens_for_what_is_isolated_while_its_block_is_filled() {
    explore(Some(2), || {
        let world = World::new(&[(0, 4), (16, 18)]);
        world.tree.readmit(world.isolate(0, 4).expect("managed memory"));
        let rest = world.isolate(2, 4).expect("managed memory");
        let held = world.alloc(1).expect("frame 0");
        let other = spawn(&world, |world| world.tree.readmit(rest));
        let isolation = world.isolate(0, 1).ok();
        let opening = world.tree.open_to_cache(Group::of(held.number())).expect("frame 1");
        assert_eq!(opening.managed & 1 == 0, isolation.is_some());
        other.join().unwrap();
        world.free(1, held);
        isolation.into_iter().for_each(|isolation| world.tree.readmit(isolation));
        world.check(5);
    });
}

/// The same, if nothing was ever isolated near it: then the block is said to be full without being
/// on record meanwhile.
#[test]
fn what_is_retired_is_refused_while_its_block_is_filled_for_the_first_time() {
    explore(Some(1), || {
        let world = World::new(&[(0, 4), (16, 18)]);
        let bad = world.alloc(1).map(Frame::into_number).expect("frame 0");
        // As after memory has come that makes it whole.
        let full = world.block(0).giant.full.word(0);
        // ORDERING: nobody else is there yet.
        full.fetch_and(!1, Ordering::Relaxed);
        let other = spawn(&world, |world| world.tree.bring_back(NumberRange::from_numbers(0, 4)));
        world.tree.retire(bad, |_| Ok(Arena::empty())).expect("own frame");
        other.join().unwrap();
        let freed = world.tree.free_with(world.tree.sole_writer(1), bad);
        freed.expect_err("a retired frame, whoever was last");
        world.tree.verify().expect("a block that is not full");
    });
}

/// Frames that were taken as a whole, and set aside from there: nothing but the bits of what is gone
/// takes their contents back to the tree.
#[test]
fn contents_go_with_what_is_set_aside() {
    explore(Some(2), || {
        let world = World::new(&[(0, 4), (16, 18)]);
        let held = world.alloc(1).expect("frame 0");
        let block = world.block(0);
        let isolation = world.isolate(0, 4).expect("managed memory");
        // A guest that has it as a part of something.
        let guest = spawn(&world, move |world| {
            world.touch(held.into_number(), 1);
            mark_gone(block, 0, 1);
        });
        let taker = spawn(&world, move |world| {
            let taken = take_any(block.leaf().word(0), 1);
            world.touch(FrameNumber::new(0), taken);
            taken != 0
        });
        let range = isolation.range();
        world.tree.readmit(isolation);
        guest.join().unwrap();
        if taker.join().unwrap() {
            world.give(1, 0);
        }
        world.tree.bring_back(range);
        assert_eq!(world.tree.count_free().frames, 5, "frames are lost");
    });
}

/// The tree makes fences of its own around these, which would hide an ordering that is too weak.
#[test]
fn a_range_whose_place_is_given_to_another_is_read_as_it_was() {
    explore(Some(2), || {
        let isolations = Arc::new(Isolations::new());
        let ranges = [(0, 2), (4, 5)].map(|(start, end)| NumberRange::from_numbers(start, end));
        let at = isolations.claim(ranges[0]).expect("a free place");
        isolations.enforce(at);
        let other = start({
            let isolations = isolations.clone();
            move || {
                if let Some((at, part)) = isolations.enter(NumberRange::from_numbers(0, 8)) {
                    assert!(ranges.contains(&part), "half of the one, half of the other");
                    if isolations.leave(at).is_some() {
                        isolations.vacate(at);
                    }
                }
            }
        });
        isolations.close(at);
        isolations.leave(at);
        let next = isolations.claim(ranges[1]).expect("a free place");
        isolations.enforce(next);
        other.join().unwrap();
    });
}

/// As above.
#[test]
fn the_last_guest_sees_what_the_others_have_done() {
    explore(None, || {
        let shared = Arc::new((Isolations::new(), [UnsafeCell::new(0), UnsafeCell::new(0)]));
        let range = NumberRange::from_numbers(0, 2);
        let at = shared.0.claim(range).expect("a free place");
        shared.0.enforce(at);
        /// Does its own, and leaves; the last one looks at all.
        fn leave((isolations, done): &(Isolations, [UnsafeCell<u32>; 2]), at: usize, own: usize) {
            // SAFETY: each guest has its own; loom says so if not.
            done[own].with_mut(|done| unsafe { *done = 1 });
            if isolations.leave(at).is_some() {
                // SAFETY: all others have left; loom says so if that is not seen.
                let all = done.iter().map(|done| done.with(|done| unsafe { *done })).sum::<u32>();
                assert!(all > 0, "one at least");
                isolations.vacate(at);
            }
        }
        let other = start({
            let shared = shared.clone();
            move || {
                if let Some((at, _)) = shared.0.enter(range) {
                    leave(&shared, at, 1);
                }
            }
        });
        shared.0.readmit(at);
        leave(&shared, at, 0);
        other.join().unwrap();
    });
}
