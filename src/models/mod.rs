//! Loom models: the protocols on the real code, at the small geometry of `cfg(loom)` (words of
//! two frames, nodes of two words: a block is 4 frames, a giant 4 blocks).
//!
//! Every model carries the contents of frames: whoever holds a frame writes to a cell that loom
//! watches, so an ordering that is too weak to hand contents over shows as a data race, and a
//! frame with two owners as a concurrent write. Unwritten leaves and nodes read as ones, so a
//! search that looks at one gives out frames that others hold. After the threads are joined every
//! model gives back what it holds and checks `verify`: nothing lost, nothing unmerged, no hint
//! missing.
//!
//! `cargo test --lib` with `RUSTFLAGS="--cfg loom"`; `tests/planted.rs` plants bugs into the steps
//! of the protocols and shows that these models find them.

mod blocks;
mod budget;
mod crumbs;
mod evidence;
mod grow;
mod hints;
mod isolate;
mod levels;
mod longest;
mod looks;
mod pairs;
mod runs;
mod slots;
mod words;

extern crate std;

use std::boxed::Box;
use std::cell::Cell;
use std::fs::File;
use std::io::Write;
use std::string::ToString;
use std::time::{Duration, Instant};
use std::vec::Vec;

use loom::cell::UnsafeCell;
use loom::sync::Arc;

use crate::arena::Arena;
use crate::cache::Handful;
use crate::error::{AllocError, OutOfMemory};
use crate::frame::{Frame, FrameNumber, FrameRange, NumberRange};
use crate::geometry::{BLOCK_FRAMES, GIANT_FRAMES};
use crate::request::Request;
use crate::tree::{FrameTree, GrowError, IsolateError, Isolation, Plan, Wanted};

/// A tree of a few frames, and their contents.
pub struct World {
    pub tree: FrameTree<'static>,
    contents: Vec<UnsafeCell<u32>>,
}

// SAFETY: the cells are loom's: an access without order is what the models look for.
unsafe impl Sync for World {}

impl World {
    /// Memory of these ranges, for three CPUs, all free.
    pub fn new(ranges: &[(u64, u64)]) -> Arc<Self> {
        Self::with_room(ranges, 0)
    }

    /// The same, with frames up to `end` that may come later.
    pub fn with_room(ranges: &[(u64, u64)], end: u64) -> Arc<Self> {
        let ranges: Vec<_> =
            ranges.iter().map(|&(start, end)| NumberRange::from_numbers(start, end)).collect();
        let ranges: &'static [NumberRange] = Box::leak(ranges.into_boxed_slice());
        let frames = ranges.iter().map(|range| range.end().get()).max().unwrap_or(0).max(end);
        let mut arena = Arena::empty();
        let ranges = ranges.iter().copied();
        let tree = FrameTree::new(&mut arena, &Plan::new(ranges.clone(), 0, 3), ranges);
        Arc::new(Self { tree, contents: (0..frames).map(|_| UnsafeCell::new(0)).collect() })
    }

    /// Uses frames as their owner does: writes to each.
    pub fn touch(&self, base: FrameNumber, frames: u64) {
        for bit in (0..64).filter(|bit| frames >> bit & 1 != 0) {
            let cell = &self.contents[(base.get() + bit) as usize];
            // SAFETY: the caller owns the frame; loom reports it if somebody else does too.
            cell.with_mut(|contents| unsafe { *contents += 1 });
        }
    }

    /// A refill by CPU `cpu`, whose frames are used at once.
    pub fn refill(&self, cpu: usize) -> Result<Handful, OutOfMemory> {
        let cache = self.tree.refill_with(self.tree.sole_writer(cpu))?;
        self.touch(cache.base(), cache.free());
        Ok(cache)
    }

    /// A flush by CPU `cpu`, of frames that were used until now.
    pub fn flush(&self, cpu: usize, cache: Handful) {
        self.touch(cache.base(), cache.free());
        self.tree.flush_with(self.tree.sole_writer(cpu), cache).expect("own frames");
    }

    /// One frame, used at once.
    pub fn alloc(&self, cpu: usize) -> Result<Frame, OutOfMemory> {
        let frame = self.tree.alloc_with(self.tree.sole_writer(cpu))?;
        self.touch(frame.number(), 1);
        Ok(frame)
    }

    /// Frees one frame that was used until now.
    pub fn free(&self, cpu: usize, frame: Frame) {
        self.touch(frame.number(), 1);
        self.tree.free_with(self.tree.sole_writer(cpu), frame.into_number()).expect("own frame");
    }

    /// The same as a CPU's slot does it for a frame that goes past the cache.
    pub fn free_past(&self, cpu: usize, frame: Frame) {
        self.touch(frame.number(), 1);
        let (writer, number) = (self.tree.sole_writer(cpu), frame.into_number());
        let Some(gift) = self.tree.begin_to_give(writer, number) else {
            return self.tree.free_with(writer, number).expect("own frame");
        };
        if gift.is_plain(number) {
            if gift.announce(number) {
                gift.tell();
            }
            gift.end_plainly(writer);
        } else {
            gift.end(writer, number).expect("own frame");
        }
    }

    /// Frees one frame that nobody has used.
    pub fn give(&self, cpu: usize, frame: u64) {
        let writer = self.tree.sole_writer(cpu);
        self.tree.free_with(writer, FrameNumber::new(frame)).expect("own frame");
    }

    /// A whole block, used at once.
    pub fn alloc_block(&self, cpu: usize) -> Result<Frame, OutOfMemory> {
        let first = self.tree.alloc_block_with(self.tree.sole_writer(cpu))?;
        self.touch(first.number(), (1 << BLOCK_FRAMES) - 1);
        Ok(first)
    }

    /// Frees a whole block that was used until now.
    pub fn free_block(&self, cpu: usize, first: Frame) {
        self.touch(first.number(), (1 << BLOCK_FRAMES) - 1);
        let writer = self.tree.sole_writer(cpu);
        self.tree.free_block_with(writer, first.into_number()).expect("own block");
    }

    /// A whole giant, used at once.
    pub fn alloc_giant(&self, cpu: usize) -> Result<Frame, OutOfMemory> {
        let first = self.tree.alloc_giant_with(self.tree.sole_writer(cpu))?;
        self.touch(first.number(), (1 << GIANT_FRAMES) - 1);
        Ok(first)
    }

    /// Frees a whole giant that was used until now.
    pub fn free_giant(&self, cpu: usize, first: Frame) {
        self.touch(first.number(), (1 << GIANT_FRAMES) - 1);
        let writer = self.tree.sole_writer(cpu);
        self.tree.free_giant_with(writer, first.into_number()).expect("own giant");
    }

    /// The same for contiguous frames.
    pub fn touch_run(&self, run: NumberRange) {
        self.touch(run.start(), (1 << run.len()) - 1);
    }

    /// Exactly the frames from `start` to `end`, without a search, used at once.
    pub fn claim(&self, cpu: usize, start: u64, end: u64) -> Option<FrameRange> {
        let run = NumberRange::from_numbers(start, end);
        self.tree.claim(self.tree.sole_writer(cpu), run).ok()?;
        self.touch_run(run);
        Some(FrameRange::owned(run))
    }

    /// The lowest run that meets the request, used at once.
    pub fn alloc_run(&self, cpu: usize, request: &Request) -> Result<FrameRange, AllocError> {
        let writer = self.tree.sole_writer(cpu);
        let run = self.tree.alloc_run_with(writer, request, Wanted::Any)?;
        self.touch_run(run.numbers());
        Ok(run)
    }

    /// Frees contiguous frames that were used until now.
    pub fn free_run(&self, cpu: usize, run: FrameRange) {
        self.touch_run(run.numbers());
        let writer = self.tree.sole_writer(cpu);
        self.tree.free_run_with(writer, run.into_numbers()).expect("own frames");
    }

    /// Adds frames that were in use for something else until now.
    pub fn grow(&self, start: u64, end: u64) -> Result<(), GrowError> {
        let range = NumberRange::from_numbers(start, end);
        let place = |_| {
            self.touch_run(range);
            Ok((Arena::empty(), range))
        };
        self.tree.grow(range, place, || ()).map(|_| ())
    }

    /// The same without using them first: for frames that are not the caller's alone.
    pub fn grow_untouched(&self, start: u64, end: u64) -> Result<(), GrowError> {
        let range = NumberRange::from_numbers(start, end);
        self.tree.grow(range, |_| Ok((Arena::empty(), range)), || ()).map(|_| ())
    }

    /// Isolates a range; one frame outside of it becomes metadata.
    pub fn isolate(&self, start: u64, end: u64) -> Result<Isolation, IsolateError> {
        self.tree.isolate(NumberRange::from_numbers(start, end), |_| Ok(Arena::empty()))
    }

    /// Ends an isolation if nothing is in use; then the frames are the caller's, who uses them.
    pub fn offline(&self, isolation: Isolation) -> Result<(), Isolation> {
        let range = self.tree.offline(isolation)?;
        self.touch_run(range);
        Ok(())
    }

    /// At rest: everything that is free can be had, once, and every invariant holds.
    pub fn check(&self, free: u64) {
        self.tree.verify().expect("a sound tree at rest");
        assert_eq!(self.tree.count_free().frames, free, "frames are lost");
        let mut caches = Vec::new();
        while let Ok(cache) = self.refill(0) {
            caches.push(cache);
        }
        let found: u32 = caches.iter().map(|cache| cache.free().count_ones()).sum();
        assert_eq!(u64::from(found), free, "frames are free, but not found");
    }
}

std::thread_local! {
    /// Executions of the model on this thread so far, and threads of the present one: loom runs a
    /// model with all its threads on the thread of its test.
    static SEEN: Cell<(u64, u64)> = const { Cell::new((0, 1)) };
}

/// Runs a model: every interleaving, or those with so many preemptions at most; as many more as
/// the variable `LOOM_DEEPER` says, and no more than `LOOM_AT_MOST`. It ends early when it has taken
/// as many seconds as `LOOM_MAX_DURATION` says, at the next of every `LOOM_CHECKPOINT_INTERVAL`
/// executions. Returns how many there were.
pub fn explore(preemptions: Option<usize>, model: impl Fn() + Sync + Send + 'static) -> u64 {
    let number = |name| std::env::var(name).ok().map(|text| text.parse().expect("a number"));
    let mut builder = loom::model::Builder::new();
    let bound = preemptions.map(|bound: usize| bound + number("LOOM_DEEPER").unwrap_or(0));
    let bounds = [bound, number("LOOM_AT_MOST")];
    builder.preemption_bound = bounds.into_iter().flatten().min();
    builder.max_branches = 20_000;
    let start = Instant::now();
    builder.check(move || {
        SEEN.set((SEEN.get().0 + 1, 1));
        model();
    });
    let took = start.elapsed();
    let stopped = builder.max_duration.is_some_and(|limit| took >= limit);
    record(builder.preemption_bound, took, if stopped { "stopped" } else { "ended" })
}

/// The same for a model that takes minutes: with `quick` preemptions if the variable `LOOM_QUICK`
/// is there, as it is in `make test` and for planted bugs, and with `full` otherwise.
pub fn explore_long(quick: usize, full: usize, model: impl Fn() + Sync + Send + 'static) -> u64 {
    let is_quick = std::env::var_os("LOOM_QUICK").is_some();
    explore(Some(if is_quick { quick } else { full }), model)
}

/// Adds a line to the file that the variable `LOOM_TABLE` names, if it does: the model, its
/// threads, its bound on preemptions, how many executions loom has made of it, in how many
/// seconds, and whether these were all.
fn record(bound: Option<usize>, took: Duration, end: &str) -> u64 {
    let (executions, threads) = SEEN.replace((0, 1));
    let Ok(table) = std::env::var("LOOM_TABLE") else { return executions };
    let bound = bound.map_or_else(|| "none".to_string(), |bound| bound.to_string());
    let thread = std::thread::current();
    let name = thread.name().unwrap_or_default().trim_start_matches("models::");
    let seconds = took.as_secs_f32();
    let line = std::format!("{name} {threads} {bound} {executions} {seconds:.1} {end}\n");
    let table = File::options().append(true).create(true).open(table);
    // In one piece: other models write there too.
    table.and_then(|mut table| table.write_all(line.as_bytes())).expect("a table to write to");
    executions
}

/// Starts a thread of a model.
pub fn spawn<R: 'static>(
    world: &Arc<World>,
    work: impl FnOnce(&World) -> R + 'static,
) -> loom::thread::JoinHandle<R> {
    let world = world.clone();
    start(move || work(&world))
}

/// The same for models of something else.
pub fn start<R: 'static>(work: impl FnOnce() -> R + 'static) -> loom::thread::JoinHandle<R> {
    let (executions, threads) = SEEN.get();
    SEEN.set((executions, threads + 1));
    loom::thread::spawn(work)
}
