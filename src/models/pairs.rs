//! Every pair of ten operations, and some triples, at once on the same block.
//!
//! The stage is the block of frames 0 to 3. What gives frames has one of the upper word, or all of
//! it; what takes some gets to that word as the lower one is held: by nobody who takes part, for as
//! long as the model goes. Where a pair needs more, it gets more: a merge, a claim that is to be
//! undone, and a split need the rest of the block free, a claim a frame behind it that is held, a
//! split a block beside it if the others give frames of this one.
//!
//! What an operation may answer follows from the others: whoever finds nothing has met somebody who
//! had it; no frame is free and owned, or owned twice; none is lost; and the tree is sound before
//! and after everything has gone back.

extern crate std;

use std::vec;
use std::vec::Vec;

use loom::sync::Arc;

use super::{World, explore_long, spawn};
use crate::bits::runs;
use crate::cache::Handful;
use crate::frame::{Frame, FrameNumber, NumberRange};
use crate::request::Request;
use crate::slot::Slot;

/// One of the ten operations.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Op {
    /// All that is free of one word.
    Refill,
    /// Frames of one word, all that nobody else is about to give.
    Flush,
    /// One frame, past the caches.
    Free,
    /// One frame, of a block that is free as a whole if the others leave it so.
    Split,
    /// One frame, the last one that the block lacks.
    Merge,
    /// A run of which the last frame can't be had, so that the others go back.
    Undo,
    /// One frame by its number: if another operation gives one, that.
    Exact,
    /// One frame that was not there before.
    Grow,
    /// The upper word is taken offline if it can be had, or else readmitted.
    Isolate,
    /// A slot gives back what it caches, because it was asked to.
    Drain,
}

/// The lower and the upper word of the block, the block beside it, and what is set by for the bits
/// of frames that are gone. Here and below, sets of frames are bits by their numbers.
const LOWER: u64 = 0b0011;
const UPPER: u64 = 0b1100;
const BESIDE: u64 = 0b1111 << 4;
const SPARE: u64 = 1 << 16;
/// The last frame of the run that is never claimed.
const BEHIND: u64 = 1 << 4;

/// An operation with what it is about.
#[derive(Clone, Copy)]
struct Part {
    op: Op,
    cpu: usize,
    /// What it gives, or isolates, or wants.
    frames: u64,
    slot: Option<&'static Slot<'static>>,
}

/// A world in which the operations can begin.
struct Stage {
    world: Arc<World>,
    parts: Vec<Part>,
    /// What is free at first.
    free: u64,
    /// What is held as long as they are at it.
    held: u64,
    /// What is free in the end, when all has gone back.
    all: u64,
}

impl Op {
    /// Whether it gives frames of the upper word.
    fn gives(self) -> bool {
        matches!(self, Self::Flush | Self::Free | Self::Grow | Self::Drain)
    }

    /// Whether the lower word has to be free for it to be what it is.
    fn needs_rest(self) -> bool {
        matches!(self, Self::Merge | Self::Undo | Self::Split)
    }

    /// Whether it comes by so many words that models of it take long.
    fn is_long(self) -> bool {
        matches!(self, Self::Undo | Self::Exact | Self::Grow | Self::Isolate)
    }

    /// Whether it looks for frames until it has found some, or there are none.
    fn seeks(self) -> bool {
        matches!(self, Self::Refill | Self::Split | Self::Exact)
    }
}

impl Stage {
    fn new(ops: &[Op]) -> Self {
        let is_there = |op| ops.contains(&op);
        let is_given = ops.iter().any(|op| op.gives());
        let is_sought = ops.iter().any(|op| op.seeks());
        let is_split_beside = is_there(Op::Split) && is_given;
        let is_rest_free = ops.iter().any(|op| op.needs_rest()) && !is_split_beside;
        let mut parts = share(ops);
        let frames_of = |wanted: fn(Op) -> bool| {
            let parts = parts.iter().filter(|part| wanted(part.op));
            parts.fold(0, |frames, part| frames | part.frames)
        };
        let given = frames_of(|op| op.gives() || op == Op::Merge);
        let to_come = frames_of(|op| op == Op::Grow);
        let if_so = |is_so, frames| if is_so { frames } else { 0 };
        let behind = if_so(is_there(Op::Undo), BEHIND);
        let all = LOWER | UPPER | behind | if_so(is_split_beside, BESIDE);
        let is_last_held = is_given && is_sought && !is_there(Op::Isolate) && !is_rest_free;
        let held = behind | if_so(!is_rest_free, LOWER) | if_so(is_last_held, UPPER & !given);
        let world = world(all | if_so(is_there(Op::Isolate), SPARE), to_come);
        take(&world, held & !UPPER);
        if is_there(Op::Isolate) {
            // The spare frame becomes metadata: nothing else is free outside of the range.
            let rest = LOWER & !held;
            take(&world, rest);
            let start = if to_come == 0 { 2 } else { 3 };
            world.tree.readmit(world.isolate(start, 4).expect("managed memory"));
            give(&world, rest);
        }
        take(&world, given & !to_come | held & UPPER);
        for part in parts.iter_mut().filter(|part| part.op == Op::Drain) {
            let slot = world.slot_of(part.cpu);
            world.free_in(slot, Frame::owned(part.first()));
            part.slot = Some(slot);
        }
        Self { world, parts, free: all & !held & !given, held, all }
    }

    /// Looks at what came of it, and gives all back.
    fn end(self, owned: &[u64]) {
        let Self { world, parts, free, held, all } = self;
        world.tree.verify().expect("a sound tree when all have come to rest");
        let taken = owned.iter().fold(held, |taken, owned| {
            assert_eq!(taken & owned, 0, "owned twice");
            taken | owned
        });
        assert_eq!(world.tree.count_free().frames, u64::from((all & !taken).count_ones()));
        for at in (0..parts.len()).filter(|at| parts[*at].op.seeks() && owned[*at] == 0) {
            let others = (0..parts.len()).filter(|other| *other != at);
            let met = others.fold(0, |met, other| met | owned[other] | parts[other].hides());
            let missed = parts[at].frames & free & !met;
            assert_eq!(missed, 0, "{:?} finds nothing, and nobody had it", parts[at].op);
        }
        for (part, owned) in parts.iter().zip(owned) {
            part.give_back(&world, *owned);
        }
        give(&world, held);
        world.check(u64::from(all.count_ones()));
    }
}

/// Which frames each is about.
fn share(ops: &[Op]) -> Vec<Part> {
    let is_alone = ops.iter().filter(|op| op.gives()).count() == 1;
    let mut to_give = [0b0100, 0b1000].into_iter();
    let mut to_complete = [0b0001, 0b1000].into_iter();
    let mut to_isolate = [UPPER, 0b1000].into_iter();
    let mut part = |(cpu, op): (usize, &Op)| {
        let frames = match op {
            Op::Flush if is_alone => UPPER,
            Op::Flush | Op::Free | Op::Grow | Op::Drain => to_give.next().expect("two at most"),
            Op::Merge => to_complete.next().expect("two at most"),
            Op::Isolate => to_isolate.next().expect("two at most"),
            Op::Refill | Op::Split | Op::Undo | Op::Exact => u64::MAX,
        };
        Part { op: *op, cpu, frames, slot: None }
    };
    let mut parts: Vec<_> = ops.iter().enumerate().map(&mut part).collect();
    let given = parts.iter().find(|part| part.op.gives() || part.op == Op::Merge);
    let wanted = given.map_or(UPPER, |part| part.frames);
    for part in parts.iter_mut().filter(|part| part.op == Op::Exact) {
        part.frames = wanted & wanted.wrapping_neg();
    }
    parts
}

/// A tree of these frames, without those that are yet to come.
fn world(all: u64, to_come: u64) -> Arc<World> {
    let ranges: Vec<_> = runs(all & !to_come)
        .map(|(start, len)| (u64::from(start), u64::from(start + len)))
        .collect();
    World::with_room(&ranges, 17)
}

/// Takes frames that are free.
fn take(world: &World, frames: u64) {
    for (start, len) in runs(frames) {
        world.hold(u64::from(start), u64::from(start + len));
    }
}

/// Gives frames that nobody has used.
fn give(world: &World, frames: u64) {
    for frame in (0..u64::from(u64::BITS)).filter(|frame| frames >> frame & 1 != 0) {
        world.give(0, frame);
    }
}

impl Part {
    /// The lowest frame that it is about.
    fn first(self) -> FrameNumber {
        FrameNumber::new(u64::from(self.frames.trailing_zeros()))
    }

    /// Does it; which frames it owns then.
    fn act(self, world: &World) -> u64 {
        let Self { op, cpu, frames, slot } = self;
        match op {
            Op::Refill => world.refill(cpu).map_or(0, |cache| cache.free() << cache.base().get()),
            Op::Flush => {
                let base = FrameNumber::new(2);
                world.flush(cpu, Handful::owned(base, frames >> base.get(), 0));
                0
            }
            Op::Free => {
                world.free_past(cpu, Frame::owned(self.first()));
                0
            }
            Op::Split => world.alloc(cpu).map_or(0, |frame| 1 << frame.into_number().get()),
            Op::Merge => {
                world.free(cpu, Frame::owned(self.first()));
                0
            }
            Op::Undo => {
                assert!(world.claim(cpu, 1, 5).is_none(), "its last frame is held");
                0
            }
            Op::Exact => {
                let run = world.alloc_run(cpu, &Request::new(1).at(self.first()));
                run.map_or(0, |run| 1 << run.into_numbers().start().get())
            }
            Op::Grow => {
                let start = self.first().get();
                world.grow(start, start + 1).expect("a range that is new");
                0
            }
            Op::Isolate => self.take_offline(world),
            Op::Drain => {
                let slot = slot.expect("a slot");
                slot.request_drain();
                slot.take_turn(|_| ()).expect("at rest");
                assert_eq!(slot.cached(), 0, "drained");
                0
            }
        }
    }

    /// Isolates its range, and takes it offline if nothing is in use.
    fn take_offline(self, world: &World) -> u64 {
        let range = self.range();
        // Not if some of it has not come yet, or somebody else isolates it.
        let Ok(isolation) = world.isolate(range.start().get(), range.end().get()) else { return 0 };
        match world.offline(isolation) {
            Ok(()) => self.frames,
            Err(isolation) => {
                world.tree.readmit(isolation);
                0
            }
        }
    }

    /// What it may have out of sight for a while that it does not own.
    fn hides(self) -> u64 {
        if self.op == Op::Isolate { self.frames } else { 0 }
    }

    /// Gives back what it owns, and has used until now.
    fn give_back(self, world: &World, owned: u64) {
        world.touch(FrameNumber::new(0), owned);
        if self.op != Op::Isolate {
            give(world, owned);
        } else if owned != 0 {
            assert_eq!(world.tree.bring_back(self.range()), self.range().len());
        }
    }

    fn range(self) -> NumberRange {
        let start = self.first().get();
        NumberRange::from_numbers(start, start + u64::from(self.frames.count_ones()))
    }
}

/// These operations at once: the first on the thread of the model, each other on one of its own.
/// In `make test` with one preemption less. How many executions there were.
fn at_once(ops: &[Op]) -> u64 {
    let is_long = ops.len() > 2 || ops.iter().any(|op| op.is_long());
    let bound = if is_long { 1 } else { 2 };
    let ops = ops.to_vec();
    explore_long(bound, bound + 1, move || {
        let stage = Stage::new(&ops);
        let start = |part: &Part| {
            let part = *part;
            spawn(&stage.world, move |world| part.act(world))
        };
        let others: Vec<_> = stage.parts[1..].iter().map(start).collect();
        let mut owned = vec![stage.parts[0].act(&stage.world)];
        owned.extend(others.into_iter().map(|other| other.join().unwrap()));
        stage.end(&owned);
    })
}

/// Two operations, each once on the thread of the model: what loom explores depends on that.
fn meet(one: Op, other: Op) {
    let swapped = if one == other { 0 } else { at_once(&[other, one]) };
    let is_each = u64::from(one != other);
    assert!(at_once(&[one, other]) + swapped > 1 + is_each, "they do not meet");
}

/// A model for each operation with itself and with each that follows: `pairs::refill::flush`.
macro_rules! pairs {
    ($name:ident $op:ident, $($others:ident $other_ops:ident,)*) => {
        mod $name {
            use super::{Op, meet};

            #[test]
            fn $name() {
                meet(Op::$op, Op::$op);
            }
            $(#[test]
            fn $others() {
                meet(Op::$op, Op::$other_ops);
            })*
        }
        pairs! { $($others $other_ops,)* }
    };
    () => {};
}

pairs! {
    refill Refill,
    flush Flush,
    free Free,
    split Split,
    merge Merge,
    undo Undo,
    exact Exact,
    grow Grow,
    isolate Isolate,
    drain Drain,
}

#[test]
fn what_is_flushed_is_refilled_while_its_block_is_completed() {
    at_once(&[Op::Flush, Op::Merge, Op::Refill]);
}

#[test]
fn a_claim_is_undone_while_another_frees_and_a_third_takes() {
    at_once(&[Op::Undo, Op::Free, Op::Refill]);
}

#[test]
fn what_is_freed_while_it_is_isolated_is_not_lost() {
    at_once(&[Op::Isolate, Op::Free, Op::Refill]);
}

#[test]
fn a_refill_while_one_frees_into_a_word_and_another_adds_to_it() {
    at_once(&[Op::Grow, Op::Free, Op::Refill]);
}

#[test]
fn a_refill_while_two_give_to_a_word_that_was_empty() {
    at_once(&[Op::Drain, Op::Free, Op::Refill]);
}

/// By claims that know their frames: with searches for them it takes minutes.
#[test]
fn a_block_that_is_completed_is_split_by_one_of_two() {
    explore_long(1, 2, || {
        let world = World::new(&[(0, 4)]);
        let last = world.claim(0, 0, 1).expect("free");
        let split = spawn(&world, |world| world.claim(1, 1, 2));
        let exact = spawn(&world, |world| world.claim(2, 2, 4));
        world.free_run(0, last);
        let runs = [split.join().unwrap(), exact.join().unwrap()];
        world.tree.verify().expect("a sound tree when all have come to rest");
        runs.into_iter().flatten().for_each(|run| world.free_run(0, run));
        world.check(4);
    });
}
