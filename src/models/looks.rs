//! "Out of memory" rests on looks at many words: whatever a look misses because somebody has it out
//! of sight for a moment, he has it so in a step, and who has missed it sees the step. Here CPU 0
//! hides one thing after the other, each at its level, and CPU 1 comes by; or, where a search makes
//! a fence of its own behind the look, makes the look alone, and says what it knows of the step.

use loom::sync::Arc;

use super::{World, explore, spawn};
use crate::bounds::Bound;
use crate::directory::{Block, Group};
use crate::frame::{FrameNumber, NumberRange};
use crate::geometry::FRAME_SIZE;
use crate::journal::standstill;
use crate::node::{give, take_all, take_bit};
use crate::request::Request;
use crate::root::{Cluster, Giant};
use crate::sync::{Ordering, Word};
use crate::tree::looks::{
    bound, is_within, longest_within, may_go_on, narrow_to_nothing, prefix, suffix, worth_a_look,
};

impl World {
    /// The block of a frame.
    pub fn block(&self, frame: u64) -> Block<'static> {
        let opening = self.tree.open(Group::of(FrameNumber::new(frame)));
        opening.expect("a managed frame").place.block()
    }

    /// Takes these frames for as long as the model goes.
    pub fn hold(&self, start: u64, end: u64) {
        let _ = self.claim(0, start, end).expect("free frames").into_numbers();
    }

    fn giant(&self) -> &'static Giant<'static> {
        self.block(0).giant
    }

    /// What was begun on CPU 0, as far as CPU 1 sees; nothing if it is not done.
    fn begun(&self) -> Option<u64> {
        let journal = core::slice::from_ref(self.tree.journal_of(0));
        standstill(journal, self.tree.sole_writer(1))
    }

    /// Takes a hint back in a step, and looks again, and there is something.
    fn blink(&self, word: &Word, mask: u64, above: Option<&Word>) {
        let _step = self.tree.sole_writer(0).begin();
        // ORDERING: as in `retire` and `lower`.
        word.fetch_and(!mask, Ordering::AcqRel);
        // ORDERING: as in `announce`.
        word.fetch_or(mask, Ordering::AcqRel);
        if let Some(above) = above {
            // ORDERING: as in `raise`.
            above.fetch_or(self.giant().mask, Ordering::AcqRel);
        }
    }

    /// The same of a bound.
    fn blink_bound(&self, bound: Bound<'_>) {
        let _step = self.tree.sole_writer(0).begin();
        let row = bound.look();
        bound.exchange(row, 0);
        bound.raise(bound.said_by(row));
    }

    /// A claim that fails at its last piece.
    fn claims_in_vain(&self, end: u64) {
        let run = NumberRange::from_numbers(0, end);
        self.tree.claim(self.tree.sole_writer(0), run).expect_err("the last frame is held");
    }

    /// Searches in vain narrow what is said, and take back hints of nothing.
    fn search_in_vain(&self, frames: u64) {
        self.alloc_run(0, &Request::new(frames)).expect_err("not so many");
    }
}

/// CPU 1 takes what is free all the time, and CPU 0 has out of sight for a moment.
fn is_found(
    (start, end): (u64, u64),
    prepare: fn(&World),
    hide: fn(&World),
    takes: fn(&World) -> bool,
) {
    explore(Some(2), move || {
        let world = World::new(&[(start, end)]);
        prepare(&world);
        // In this order: whoever hides something reads it first, and loom forgets by that who else
        // has read it before.
        let other = spawn(&world, takes);
        hide(&world);
        assert!(other.join().unwrap(), "it was free all the time");
    });
}

fn one(world: &World) -> bool {
    world.tree.take_one_by_looks(world.tree.sole_writer(1)).is_some()
}

fn run(world: &World, request: &Request) -> bool {
    world.tree.take_run_by_looks(world.tree.sole_writer(1), request).is_some()
}

fn two_in_a_row(world: &World) -> bool {
    run(world, &Request::new(2))
}

/// Which does not end with bounds on what was not found: such a one may be where it does not suit.
fn an_aligned_one(world: &World) -> bool {
    run(world, &an_aligned())
}

/// The same as in use: after a look without evidence, which may have changed hints.
fn an_aligned_one_at_last(world: &World) -> bool {
    world.alloc_run(1, &an_aligned()).is_ok()
}

fn an_aligned() -> Request {
    Request::new(1).align(2 * FRAME_SIZE)
}

/// A giant that is free as a whole, which was never written.
fn hide_a_giant(world: &World) {
    let _step = world.tree.sole_writer(0).begin();
    let giant = world.giant();
    if take_bit(&giant.cluster.free, giant.mask).is_ok() {
        give(&giant.cluster.free, giant.mask);
    }
}

#[test]
fn a_giant_is_found() {
    let written = |world: &World| {
        let giant = world.alloc_giant(0).expect("all of it");
        world.free_giant(0, giant);
    };
    is_found((0, 16), |_| (), hide_a_giant, one);
    is_found((0, 16), written, hide_a_giant, one);
    is_found((0, 16), |_| (), hide_a_giant, two_in_a_row);
    let is_there = |world: &World| world.tree.look_for_giant(world.tree.sole_writer(1)).is_ok();
    is_found((0, 16), |_| (), hide_a_giant, is_there);
}

#[test]
fn a_block_is_found() {
    // Two frames of the next block are in use, and nothing is said or hinted of that.
    let prepare = |world: &World| {
        let block = world.alloc_block(0).expect("a block");
        world.hold(4, 6);
        world.search_in_vain(1);
        world.tree.alloc().expect_err("all are taken");
        world.free_block(0, block);
    };
    for takes in [one, two_in_a_row] {
        is_found((0, 6), prepare, |world| world.claims_in_vain(5), takes);
        let hide = |world: &World| {
            let giant = world.giant();
            world.blink(&giant.cluster.whole, giant.mask, None);
        };
        is_found((0, 6), prepare, hide, takes);
    }
}

#[test]
fn frames_are_found() {
    let prepare = |world: &World| world.search_in_vain(3);
    for takes in [one, two_in_a_row] {
        let hide = |world: &World| {
            let giant = world.giant();
            world.blink(&giant.cluster.partial, giant.mask, None);
        };
        is_found((0, 2), prepare, hide, takes);
        let hide = |world: &World| {
            let giant = world.giant();
            world.blink(giant.nodes().partial.word(0), 1, Some(&giant.cluster.partial));
        };
        is_found((0, 2), prepare, hide, takes);
    }
    let hold_the_last = |world: &World| {
        world.hold(2, 3);
        world.search_in_vain(3);
    };
    for takes in [an_aligned_one, an_aligned_one_at_last] {
        is_found((0, 3), hold_the_last, |world| world.claims_in_vain(3), takes);
    }
}

#[test]
fn frames_are_found_whatever_their_bounds_say() {
    let prepare = |world: &World| world.search_in_vain(3);
    let hide = |world: &World| world.blink_bound(world.giant().nodes().longest.of(0));
    is_found((0, 2), prepare, hide, an_aligned_one);
    let hide = |world: &World| world.blink_bound(world.giant().cluster.longest.of(0));
    is_found((0, 2), prepare, hide, an_aligned_one);
}

/// CPU 0 hides something in a step that has no end; or that has one, if CPU 1 sees it.
fn who_misses_it_sees_the_step(
    ranges: &'static [(u64, u64)],
    prepare: fn(&World),
    hide: fn(&World),
    sees: fn(&World) -> bool,
) {
    explore(None, move || {
        let world: Arc<World> = World::new(ranges);
        prepare(&world);
        assert!(sees(&world), "it is there at first");
        let before = world.begun();
        let other = spawn(&world, move |world| sees(world) || world.begun() != before);
        world.tree.sole_writer(0).begin().suspend();
        hide(&world);
        assert!(other.join().unwrap(), "nothing there, and nothing under way");
    });
}

/// Nothing begins there any more.
fn narrow(bound: Bound<'_>) {
    assert!(bound.exchange(bound.look(), 0), "nobody else writes it");
}

#[test]
fn who_finds_no_frames_sees_the_step_that_took_them() {
    let sees: [fn(&World) -> bool; 3] = [
        |world| longest_within(world.block(0), 0).0 > 0,
        |world| prefix(world.block(0)).0 > 0,
        |world| suffix(world.block(0)) > 0,
    ];
    for sees in sees {
        let hide = |world: &World| {
            world.block(0).leaf().words().for_each(|word| _ = take_all(word));
        };
        // All but the middle, so that none of it is a block.
        who_misses_it_sees_the_step(&[(0, 1), (3, 4)], |_| (), hide, sees);
        let hide = |world: &World| _ = take_bit(world.giant().nodes().blocks.word(0), 1);
        who_misses_it_sees_the_step(&[(0, 4)], |_| (), hide, sees);
    }
}

#[test]
fn who_finds_a_bound_sees_the_step_that_narrowed_it() {
    let hide = |world: &World| narrow(world.giant().nodes().longest.of(0));
    let sees = |world: &World| bound(world.block(0)) > 0;
    who_misses_it_sees_the_step(&[(0, 2)], |_| (), hide, sees);
    let hide_all = |world: &World| {
        let row = world.giant().nodes().longest.of(0).look();
        narrow_to_nothing(world.tree.sole_writer(0), row, [world.block(0)].into_iter());
    };
    let take_all = |world: &World| world.hold(0, 2);
    who_misses_it_sees_the_step(&[(0, 2)], take_all, hide_all, sees);
    let of_the_others = |world: &World| {
        [1, 2, 3].into_iter().for_each(|at| narrow(world.giant().nodes().longest.of(at)));
    };
    let sees = |world: &World| !is_within(world.giant(), 1);
    who_misses_it_sees_the_step(&[(0, 2)], of_the_others, hide, sees);
}

#[test]
fn who_passes_a_giant_sees_the_step_that_says_so() {
    let above = |world: &World| narrow(world.giant().cluster.longest.of(1));
    let hide = |world: &World| narrow(world.giant().cluster.longest.of(0));
    let sees = |world: &World| worth_a_look(world.giant().cluster, 0, 2) & 1 != 0;
    who_misses_it_sees_the_step(&[(0, 2), (16, 18)], above, hide, sees);
    let both_ends = |world: &World| {
        let Cluster { begins, ends, .. } = world.giant().cluster;
        [ends.of(0), begins.of(1)].into_iter().for_each(narrow);
    };
    let hide = |world: &World| {
        let giant = world.giant();
        take_bit(&giant.cluster.free, giant.mask << 1).expect("the giant above");
    };
    let sees = |world: &World| may_go_on(world.giant(), 1);
    who_misses_it_sees_the_step(&[(0, 2), (16, 32)], both_ends, hide, sees);
}
