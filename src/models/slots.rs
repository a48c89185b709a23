//! A CPU in its slot's turn, and others that look at the slot: who is to be asked for frames, what
//! is on its way back, what a request to drain brings along. That an interrupt comes in between is
//! for `tests/interrupts.rs`.

extern crate std;

use std::boxed::Box;

use super::{World, explore, spawn};
use crate::arena::Arena;
use crate::budget::{Budget, Rules};
use crate::frame::Frame;
use crate::slot::Slot;
use crate::sync::{Ordering, Word};

impl World {
    /// The slot of CPU 1, without a budget.
    pub fn slot(&self) -> &'static Slot<'static> {
        self.slot_of(1)
    }

    /// The same of any CPU.
    pub fn slot_of(&self, cpu: usize) -> &'static Slot<'static> {
        let frames = self.tree.count_free().frames;
        let budget = Budget::new(Rules::OFF, frames, 3, self.tree.shared_journal());
        Box::leak(Box::new(Slot::new(self.tree.journal_of(cpu), Box::leak(Box::new(budget)))))
    }

    /// The same with a budget that keeps one frame back, and the budget.
    fn slot_with_reserve(&self) -> (&'static Slot<'static>, &'static Budget<'static>) {
        let frames = self.tree.count_free().frames;
        let rules = Rules { reserve: 1, marks: None };
        let budget = Budget::new(rules, frames, 3, self.tree.shared_journal());
        let budget: &Budget<'_> = Box::leak(Box::new(budget));
        (Box::leak(Box::new(Slot::new(self.tree.journal_of(1), budget))), budget)
    }

    /// A frame from a slot, used at once.
    fn alloc_in(&self, slot: &Slot<'static>) -> Option<Frame> {
        let frame = slot.take_turn(|turn| turn.alloc(&self.tree)).expect("at rest").ok()?;
        self.touch(frame.number(), 1);
        Some(frame)
    }

    /// Frees a frame into a slot that was used until now.
    pub fn free_in(&self, slot: &Slot<'static>, frame: Frame) {
        self.touch(frame.number(), 1);
        let freed = slot.take_turn(|turn| turn.free(&self.tree, frame.into_number()));
        freed.expect("at rest").expect("own frame");
    }

    fn drain(&self, slot: &Slot<'static>) {
        slot.take_turn(|turn| turn.drain()).expect("at rest").expect("own frames");
    }
}

#[test]
fn who_has_the_last_frames_is_asked_for_them() {
    explore(Some(3), || {
        let world = World::new(&[(0, 2)]);
        let slot = world.slot();
        let other = spawn(&world, move |world| {
            let frame = world.alloc(0).ok();
            let is_asked = slot.may_hold_some();
            assert!(frame.is_some() || is_asked, "a cache with a frame is passed over");
            frame
        });
        let own = world.alloc_in(slot).expect("two frames");
        for frame in other.join().unwrap().into_iter().chain([own]) {
            world.free_in(slot, frame);
        }
        world.drain(slot);
        world.check(2);
    });
}

#[test]
fn what_a_cache_gives_back_is_there_or_in_the_tree() {
    explore(Some(3), || {
        let world = World::new(&[(0, 2)]);
        let slot = world.slot();
        let own = world.alloc_in(slot).expect("two frames");
        // All hints are taken back, so that a search makes no fence before it gives up.
        world.tree.alloc().expect_err("both are taken");
        let other = spawn(&world, move |world| {
            (slot.cached() == 0).then(|| {
                // A look at the word that it goes to: loom changes threads there only if both come.
                let _ = world.tree.count_free();
                world.alloc(0).expect("it was given back")
            })
        });
        world.drain(slot);
        for frame in other.join().unwrap().into_iter().chain([own]) {
            world.free(0, frame);
        }
        world.check(2);
    });
}

/// The same for a block that waits there.
#[test]
fn a_block_that_waits_is_there_or_in_the_tree() {
    explore(Some(3), || {
        let world = World::new(&[(0, 4)]);
        let slot = world.slot();
        let block = slot.take_turn(|turn| turn.alloc_block(&world.tree)).expect("at rest");
        let first = block.expect("one block").into_number();
        // As in the model before.
        world.tree.alloc().expect_err("it is taken");
        world.touch(first, 0b1111);
        assert!(slot.park_block(&world.tree, first), "the lowest");
        let other = spawn(&world, move |world| {
            (slot.cached() == 0).then(|| {
                let _ = world.tree.count_free();
                world.alloc_block(0).expect("it was given back")
            })
        });
        world.drain(slot);
        if let Some(block) = other.join().unwrap() {
            world.free_block(0, block);
        }
        world.check(4);
    });
}

/// What comes back from a cache is its CPU's credit, until that is given up too.
#[test]
fn who_has_or_gets_the_last_credit_is_asked_for_it() {
    explore(Some(3), || {
        let world = World::new(&[(0, 2)]);
        let (slot, budget) = world.slot_with_reserve();
        let own = world.alloc_in(slot).expect("two frames, one of them in reserve");
        world.free_in(slot, own);
        let other = spawn(&world, move |_| {
            let is_asked = slot.may_hold_some() || slot.may_have_credit();
            assert!(is_asked || budget.allow_shared(1, 1) == 1, "a credit is passed over");
        });
        world.drain(slot);
        other.join().unwrap();
        world.check(2);
    });
}

/// Asked inside a use, as by an interrupt: its CPU has drained before it is said not to be about to.
#[test]
fn who_was_asked_inside_a_use_is_waited_for() {
    explore(Some(3), || {
        let world = World::new(&[(0, 2)]);
        let slot = world.slot();
        let own = world.alloc_in(slot).expect("two frames");
        // All hints are taken back, so that a search makes no fence before it gives up.
        world.tree.alloc().expect_err("both are taken");
        let asked: &Word = Box::leak(Box::new(Word::new(0)));
        let other = spawn(&world, move |world| {
            // ORDERING: as whoever waits for a handler to return.
            let is_gone = asked.load(Ordering::Acquire) != 0 && !slot.is_about_to_drain();
            is_gone.then(|| world.alloc(0).expect("it was given back"))
        });
        slot.request_drain();
        let use_it = slot.take_turn(|_| {
            slot.promise_to_drain();
            // ORDERING: as above.
            asked.store(1, Ordering::Release);
        });
        use_it.expect("at rest");
        for frame in other.join().unwrap().into_iter().chain([own]) {
            world.free(0, frame);
        }
        world.check(2);
    });
}

/// A frame that is freed although it was retired gets into a side that was open before; but not out
/// of it into the tree, once its CPU was asked to drain.
#[test]
fn what_is_known_to_who_asks_is_known_to_who_drains() {
    explore(Some(2), || {
        let world = World::new(&[(0, 4), (16, 18)]);
        world.tree.readmit(world.isolate(0, 4).expect("managed memory"));
        let slot = world.slot();
        let held = world.alloc_in(slot).expect("frame 0");
        let bad = world.alloc_in(slot).expect("frame 1, and the side is dry").into_number();
        world.free_in(slot, held);
        let other = spawn(&world, move |world| {
            // Too late or not, it does not come back.
            let _ = slot.take_turn(|turn| turn.free(&world.tree, bad)).expect("at rest");
        });
        world.tree.retire(bad, |_| Ok(Arena::empty())).expect("own frame");
        slot.request_drain();
        other.join().unwrap();
        let _ = slot.take_turn(|turn| turn.drain()).expect("at rest");
        world.check(4);
    });
}
