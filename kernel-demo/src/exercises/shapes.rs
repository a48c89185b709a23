//! shapes: contiguous memory of every shape that a kernel asks for, and each promise kept.
//!
//! First all CPUs take what stays held: every 64 KiB that is free below 16 MiB and in a window
//! below 4 GiB, as buffers for devices, until the pool refuses; then whole 2 MiB frames. With all
//! of that held they ask for frames by name, free ones and taken ones, and keep a set of runs of
//! mixed lengths in motion, given back whole, in halves and frame by frame. Every frame is stamped
//! in full and checked before it goes back. At the end memory must be as it was.
//!
//! **No refusal is taken on trust.** A buffer lies in one aligned 64 KiB, so there must be as many
//! buffers as such places were free. A run can be refused only if none of the gaps between what
//! is held is long enough; the longest run is chosen so that there must be one ([`longest_run`]).

use core::sync::atomic::{AtomicU64, Ordering};
use frametree::{
    AllocError, CpuId, FRAME_SIZE, FrameNumber, FrameRange, FrameTree, InTheWay, Request,
};
use spin::Mutex;

use super::ledger::Ledger;
use super::pattern::WORDS;
use super::worker::{StampedRun, Worker};
use crate::clock::Stopwatch;
use crate::cpu::MAX_CPUS;
use crate::memory::{self, POOL};
use crate::{picture, println, smp, text};

/// A buffer for a device: up to this, and never across a multiple of it.
const BUFFER: u64 = 64 << 10;
const BUFFER_FRAMES: u64 = BUFFER / FRAME_SIZE;
/// What old devices reach, and what devices with 32 address bits do.
const OLD_LIMIT: u64 = 16 << 20;
const LIMIT: u64 = 4 << 30;
/// How much memory is taken below [`LIMIT`]: all of it would take too long.
const WINDOW: u64 = 4 << 20;

const BLOCK_FRAMES: u64 = 512;
/// Whole 2 MiB frames that each CPU takes, of a quarter of those that are free.
const BLOCKS: u64 = 4;
/// How often each CPU asks for frames by name.
const PLACES: usize = 8;
/// Runs that each CPU has in hand, and their longest.
const HAND: usize = 8;
const LONGEST: u64 = 600;
/// Frames that all CPUs together take in runs: 512 MiB.
const WORK: u64 = 1 << 17;

/// What each CPU holds throughout.
static HELD: [Mutex<Ledger>; MAX_CPUS] = [const { Mutex::new(Ledger::new()) }; MAX_CPUS];

/// What was done.
pub struct Counts {
    /// Frames that were stamped and checked.
    pub frames: u64,
    /// Runs that came and went.
    pub runs: u64,
    /// Buffers below 16 MiB; `None` if no memory was free there.
    pub old_buffers: Option<u64>,
    /// The same below 4 GiB.
    pub buffers: Option<u64>,
    /// Whole 2 MiB frames.
    pub blocks: u64,
}

/// Runs the exercise.
pub fn run() -> Counts {
    super::drain_all();
    let tree = POOL.tree().expect("the pool is initialised");
    let (before, watch) = (tree.count_free(), Stopwatch::start());
    println!("shapes: all CPUs take runs, buffers for devices, 2 MiB frames, frames by name");

    let stamps = AtomicU64::new(0);
    let old_buffers = take_buffers(&Zone::old(tree), &stamps);
    let buffers = take_buffers(&Zone::recent(tree), &stamps);
    let blocks = take_blocks(tree, &stamps);
    let asked = on_all_cpus(&stamps, take_places);
    println!("  {asked} frames asked for by name: the free ones had, the taken ones named");
    let runs = take_runs(tree, &stamps);

    on_all_cpus(&stamps, |worker| {
        let mut held = HELD[worker.cpu().get()].lock();
        core::iter::from_fn(|| held.take()).map(|entry| worker.release(entry, WORDS)).count()
    });
    picture::draw("all free");
    let after = tree.count_free();
    assert!(after == before, "not as it was\n  before: {before:?}\n  after:  {after:?}");
    if let Err(broken) = POOL.verify() {
        panic!("the pool is broken: {broken}");
    }
    let frames = stamps.into_inner();
    println!(
        "  {frames} stamps written and checked, {} each way, no byte damaged: {:.1} s",
        text::frames(frames),
        watch.elapsed().as_secs_f32(),
    );
    Counts { frames, runs, old_buffers, buffers, blocks }
}

/// Has every CPU do `work`, then give back what it has cached; returns the sum of the answers.
fn on_all_cpus(stamps: &AtomicU64, work: impl Fn(&mut Worker) -> usize + Sync) -> u64 {
    let sum = AtomicU64::new(0);
    smp::run(|cpu| {
        let mut worker = Worker::new(cpu);
        let answer = work(&mut worker) as u64;
        memory::drain();
        // ORDERING: Relaxed, both; read when the job is over.
        sum.fetch_add(answer, Ordering::Relaxed);
        stamps.fetch_add(worker.stamps(), Ordering::Relaxed);
    });
    sum.into_inner()
}

/// What is asked for. The answer is checked here, not by what the allocator thinks of it.
#[derive(Clone, Copy)]
struct Shape {
    count: u64,
    /// Bytes.
    align: u64,
    /// Physical addresses.
    above: u64,
    below: u64,
    /// Bytes.
    boundary: u64,
}

impl Shape {
    fn request(self) -> Request {
        let Self { count, align, above, below, boundary } = self;
        Request::new(count).align(align).above(above).below(below).not_crossing(boundary)
    }

    /// Takes such a run. `None` if there is none.
    fn take(self, worker: &mut Worker) -> Option<FrameRange> {
        let request = self.request();
        let run = match worker.take_run(&request) {
            Ok(run) => run,
            Err(AllocError::NoRun(_)) => return None,
            Err(error) => panic!("CPU {} was refused: {error}", worker.cpu().get()),
        };
        let Self { count, align, above, below, boundary } = self;
        let (first, bytes) = (run.start_address(), run.len() * FRAME_SIZE);
        let last = first + bytes - 1;
        let is_kept = bytes == count * FRAME_SIZE
            && first.is_multiple_of(align)
            && first >= above
            && last < below
            && first / boundary == last / boundary;
        // Not in the request's own words: it may be the one that is wrong.
        assert!(
            is_kept,
            "a broken promise on CPU {}\n  asked for {count} frames, aligned to {align:#x}, \
             not across {boundary:#x},\n            from {above:#x} to below {below:#x}\n  \
             got       {} frames, {first:#x} to {last:#x}",
            worker.cpu().get(),
            run.len(),
        );
        Some(run)
    }
}

/// Memory that a kind of device reaches, or a window of it.
struct Zone {
    what: &'static str,
    above: u64,
    below: u64,
    /// Aligned 64 KiB in it that are free as a whole.
    places: u64,
}

impl Zone {
    fn old(tree: &FrameTree) -> Self {
        Self { what: "16 MiB", above: 0, below: OLD_LIMIT, places: places(tree, 0, OLD_LIMIT) }
    }

    /// The window ends where memory below 4 GiB does.
    fn recent(tree: &FrameTree) -> Self {
        let below_limit = |block: &frametree::BlockUse| block.first.start_address() < LIMIT;
        let last = tree.blocks().take_while(below_limit).filter(|block| block.free > 0).last();
        let end = last.map_or(0, |block| block.first.start_address() + BLOCK_FRAMES * FRAME_SIZE);
        let above = end.saturating_sub(WINDOW).max(OLD_LIMIT);
        Self { what: "4 GiB", above, below: LIMIT, places: places(tree, above, end) }
    }
}

/// How many aligned 64 KiB are free as a whole, at rest.
fn places(tree: &FrameTree, start: u64, end: u64) -> u64 {
    let groups = (start..end).step_by((64 * FRAME_SIZE) as usize);
    let free = groups.filter_map(|address| tree.peek(FrameNumber::containing(address)?));
    let whole = |mask: u64| (0..4).filter(|part| (mask >> (16 * part)) & 0xffff == 0xffff).count();
    free.map(|(mask, _)| whole(mask) as u64).sum()
}

/// All CPUs take buffers until none is left, and keep them.
fn take_buffers(zone: &Zone, stamps: &AtomicU64) -> Option<u64> {
    let &Zone { what, above, below, places } = zone;
    if places == 0 {
        println!("  no buffers below {what}: no 64 KiB are free there");
        return None;
    }
    let taken = on_all_cpus(stamps, |worker| {
        let mut held = HELD[worker.cpu().get()].lock();
        let take_one = || {
            // Every second one is 64 KiB, aligned; the others are shorter and fit in between.
            let (count, align) = match worker.random(2) {
                0 => (BUFFER_FRAMES, BUFFER),
                _ => (1 + worker.random(BUFFER_FRAMES as usize - 1) as u64, FRAME_SIZE),
            };
            let shape = Shape { count, align, above, below, boundary: BUFFER };
            let run = shape.take(worker)?;
            worker.keep_run(run, &mut held);
            Some(())
        };
        core::iter::from_fn(take_one).count()
    });
    picture::draw("buffers");
    println!("  {taken} buffers below {what}, {places} aligned 64 KiB were free there");
    assert!(taken >= places, "refused with 64 KiB free: only {taken} buffers below {what}");
    Some(taken)
}

/// All CPUs take whole 2 MiB frames, and keep them.
fn take_blocks(tree: &FrameTree, stamps: &AtomicU64) -> u64 {
    let free = tree.count_free().blocks;
    let share = (free / (4 * smp::online() as u64)).min(BLOCKS);
    if share == 0 {
        println!("  no frames of 2 MiB: only {free} are free for {} CPUs", smp::online());
        return 0;
    }
    let taken = on_all_cpus(stamps, |worker| {
        let mut held = HELD[worker.cpu().get()].lock();
        for _ in 0..share {
            worker.keep_block(&mut held);
        }
        share as usize
    });
    picture::draw("2 MiB frames");
    println!("  {taken} frames of 2 MiB, stamped in full");
    taken
}

/// Asks for frames by name: one that is free, and taken ones alone and in the middle of a run.
/// All CPUs only ask for three aligned frames or for their own, so no other can be in the way.
fn take_places(worker: &mut Worker) -> usize {
    let refusal = |worker: &Worker, asked: FrameNumber, count, taken| {
        let expected = AllocError::InTheWay { frame: taken, why: InTheWay::Taken };
        match POOL.alloc_run(&Request::new(count).at(asked)) {
            Err(error) if error == expected => {}
            other => panic!(
                "CPU {} asked for {count} frames from {asked} on,\n  where the first in the way \
                 is {taken}\n  got {other:?}",
                worker.cpu().get()
            ),
        }
    };
    for _ in 0..PLACES {
        let three = worker.take_run(&Request::new(3).align(BUFFER));
        let three = three.unwrap_or_else(|error| panic!("three frames: {error}"));
        let (first, others) = three.split_at(1);
        let (middle, last) = others.split_at(1);
        let (start, name) = (first.numbers().start(), middle.numbers().start());
        worker.give_back_run(middle);
        let middle = worker.take_run(&Request::new(1).at(name));
        let middle = middle.unwrap_or_else(|error| panic!("{name}, which is free: {error}"));
        let got = middle.numbers();
        assert!(got.start() == name && got.len() == 1, "asked for {name}, got {got:?}");
        refusal(worker, name, 1, name);
        worker.give_back_run(first);
        worker.give_back_run(last);
        refusal(worker, start, 3, name);
        let middle = worker.stamp_run(middle);
        worker.release_run(middle);
    }
    // One was free and two were taken each time.
    3 * PLACES
}

/// All CPUs keep a set of runs in motion.
fn take_runs(tree: &FrameTree, stamps: &AtomicU64) -> u64 {
    let (longest, across) = (longest_run(tree), AtomicU64::new(0));
    let share = WORK / smp::online() as u64;
    let runs = on_all_cpus(stamps, |worker| {
        let (mut hand, mut runs, mut frames) = ([const { None }; HAND], 0, 0);
        let mut is_half_way = false;
        while frames < share {
            let place = worker.random(HAND);
            if let Some(run) = hand[place].take() {
                hand[place] = give_back_some(worker, run);
                continue;
            }
            let run = take_run(worker, longest);
            (runs, frames) = (runs + 1, frames + run.len());
            let end = run.numbers().start().get() % BLOCK_FRAMES + run.len();
            // ORDERING: Relaxed; read when the job is over.
            across.fetch_add(u64::from(end > BLOCK_FRAMES), Ordering::Relaxed);
            hand[place] = Some(worker.stamp_run(run));
            if worker.cpu() == CpuId::new(0) && frames > share / 2 && !is_half_way {
                is_half_way = true;
                picture::draw("runs");
            }
        }
        hand.into_iter().flatten().for_each(|run| worker.release_run(run));
        runs
    });
    let across = across.into_inner();
    println!("  {runs} runs of 1 to {longest} frames, {across} of them across 2 MiB blocks,");
    println!("  given back whole, in halves and frame by frame");
    runs
}

/// Half of the runs are short.
fn take_run(worker: &mut Worker, longest: u64) -> FrameRange {
    let limit = if worker.random(2) == 0 { longest } else { longest.min(64) };
    let count = 1 + worker.random(limit as usize) as u64;
    let run = worker.take_run(&Request::new(count));
    let run = run.unwrap_or_else(|error| panic!("there must be room for {longest}: {error}"));
    assert!(run.len() == count, "asked for {count} frames, got {:?}", run.numbers());
    run
}

/// How long a run may be so that it must be found, whatever the CPUs hold.
///
/// Free 2 MiB blocks that touch each other are a stretch. All that can be in use of them: of each
/// CPU its hand and what it is about to free, all of the longest; two cached groups; a block that
/// it is moving. So many pieces leave at most that many gaps more than there are stretches, and
/// the frames that are left over fill one of them, unless all are shorter than a run.
fn longest_run(tree: &FrameTree) -> u64 {
    let (mut frames, mut stretches, mut end) = (0, 0, 0);
    for block in tree.blocks().filter(|block| block.free == BLOCK_FRAMES) {
        stretches += u64::from(block.first.get() != end);
        end = block.first.get() + BLOCK_FRAMES;
        frames += BLOCK_FRAMES;
    }
    let (cpus, runs, others) = (smp::online() as u64, HAND as u64 + 1, 3);
    let left = u64::saturating_sub(frames, cpus * (2 * 64 + BLOCK_FRAMES));
    (left / (cpus * (runs + runs + others) + stretches)).clamp(1, LONGEST)
}

/// Gives a run back: all of it, one half, or frame by frame. Returns what stays.
fn give_back_some(worker: &mut Worker, run: StampedRun) -> Option<StampedRun> {
    match worker.random(3) {
        0 => worker.release_run(run),
        1 if run.len() > 1 => {
            let (gone, kept) = run.split_in_two();
            worker.release_run(gone);
            return Some(kept);
        }
        _ => give_back_singly(worker, run),
    }
    None
}

/// Gives back frame by frame, of each half and quarter first the one or the other.
fn give_back_singly(worker: &mut Worker, run: StampedRun) {
    if run.len() == 1 {
        return worker.release_single(run);
    }
    let (one, other) = run.split_in_two();
    let (first, second) = if worker.random(2) == 0 { (one, other) } else { (other, one) };
    give_back_singly(worker, first);
    give_back_singly(worker, second);
}
