//! exhaust: all that is free can be taken, and all that was taken comes back as it was.
//!
//! All CPUs take until nothing is left, the reserve at the end; what they hold together must be every frame there is.
//! Then each gives back what its neighbour took, in another order, and the tree must be in its
//! first state again: as many free frames, whole 2 MiB blocks and whole GiBs as before.

use core::sync::atomic::{AtomicU64, Ordering};
use frametree::{CpuId, Frame, FrameTree};
use spin::Mutex;

use super::ledger::{Entry, Held, Ledger, Size};
use super::worker::Worker;
use crate::clock::Stopwatch;
use crate::cpu::MAX_CPUS;
use crate::memory::{self, POOL};
use crate::{picture, println, smp, text};

/// Memory up to this is taken frame by frame: 16 GiB. Of more, whole GiBs and blocks are taken
/// first, until this much of each smaller size is left.
const FRAME_BY_FRAME: u64 = 16 << 18;
const LEFT_FOR_BLOCKS: u64 = 4 << 18;
const LEFT_FOR_FRAMES: u64 = 2 << 18;
/// Pictures on the way out, and on the way back.
const PICTURES: u64 = 3;

static LEDGERS: [Mutex<Ledger>; MAX_CPUS] = [const { Mutex::new(Ledger::new()) }; MAX_CPUS];

/// Runs the exercise.
pub fn run() {
    super::drain_all();
    let tree = POOL.tree().expect("the pool is initialised");
    let (available, before) = (super::available(), tree.count_free());
    assert!(before.frames == available, "{} of {available} frames are free", before.frames);
    println!("exhaust: all CPUs take until nothing is left, then free what others took");

    let watch = Stopwatch::start();
    let held = AtomicU64::new(0);
    smp::run(|cpu| {
        let mut worker = Worker::new(cpu);
        let mut ledger = LEDGERS[cpu.get()].lock();
        take_all(&mut worker, tree, &mut ledger, available);
        // ORDERING: Relaxed; read when the job is over.
        held.fetch_add(ledger.frames(), Ordering::Relaxed);
    });
    let (held, taken_in) = (held.into_inner(), watch.elapsed());
    picture::draw("all taken");
    assert!(held == available, "the CPUs hold {held} frames, and {available} were free");

    let watch = Stopwatch::start();
    smp::run(|cpu| {
        let neighbour = (cpu.get() + 1) % smp::online();
        let mut worker = Worker::new(cpu);
        give_all_back(&mut worker, tree, &mut LEDGERS[neighbour].lock());
        memory::drain();
    });
    let returned_in = watch.elapsed();
    picture::draw("all free");
    let after = tree.count_free();
    assert!(after == before, "not as it was: {before:?} free before, {after:?} after");

    println!("  {held} of {available} frames taken: {:.2} s", taken_in.as_secs_f32());
    let others = if smp::online() > 1 { "other CPUs" } else { "the only CPU" };
    println!("  all freed by {others}, in another order: {:.2} s", returned_in.as_secs_f32());
    println!(
        "  free as before: {} frames, {} blocks of 2 MiB, {} of 1 GiB",
        after.frames, after.blocks, after.giants,
    );
}

/// Takes until nothing is left, in the largest pieces first if there is much.
fn take_all(worker: &mut Worker, tree: &FrameTree, ledger: &mut Ledger, available: u64) {
    if available > FRAME_BY_FRAME {
        if worker.cpu().get() == 0 {
            println!("  (above {} whole GiBs and blocks go first)", text::frames(FRAME_BY_FRAME));
        }
        take_large(worker, tree, ledger, Size::Giant, LEFT_FOR_BLOCKS);
        take_large(worker, tree, ledger, Size::Block, LEFT_FOR_FRAMES);
    }
    let share = tree.free_frames() / smp::online() as u64;
    let mut milestones = Milestones::new(share);
    // What nobody gets otherwise, at the end.
    for take in [Worker::take, Worker::take_urgent] {
        while let Some(frame) = take(worker) {
            if ledger.is_full() {
                ledger.add_page(frame);
            } else {
                ledger.add(Held { first: frame, size: Size::Frame, note: 0 });
            }
            milestones.passed(worker.cpu(), "taking");
        }
    }
}

/// Takes pieces of one size until only `left` frames are free, or no such piece is.
fn take_large(worker: &mut Worker, tree: &FrameTree, ledger: &mut Ledger, size: Size, left: u64) {
    while tree.free_frames() > left {
        if ledger.is_full() {
            let Some(frame) = worker.take() else { return };
            ledger.add_page(frame);
        }
        let piece = match size {
            Size::Giant => tree.alloc_giant(),
            _ => tree.alloc_block(),
        };
        let Ok(first) = piece else { return };
        worker.count_taken(size.frames());
        ledger.add(Held { first, size, note: 0 });
    }
}

fn give_all_back(worker: &mut Worker, tree: &FrameTree, ledger: &mut Ledger) {
    let mut milestones = Milestones::new(ledger.frames());
    while let Some(entry) = ledger.take() {
        match entry {
            Entry::Page(frame) => worker.give_back(frame),
            Entry::Listed(held) => give_back(worker, tree, held),
        }
        milestones.passed(worker.cpu(), "freeing");
    }
}

fn give_back(worker: &mut Worker, tree: &FrameTree, held: Held) {
    let free_large: fn(&FrameTree, Frame) -> _ = match held.size {
        Size::Frame => return worker.give_back(held.first),
        Size::Block => |tree, first| tree.free_block(first),
        Size::Giant => |tree, first| tree.free_giant(first),
    };
    if let Err(error) = free_large(tree, held.first) {
        panic!("CPU {} was refused: {error}", worker.cpu().get());
    }
    worker.count_given_back(held.size.frames());
}

/// Draws a few pictures along the way of CPU 0.
struct Milestones {
    step: u64,
    to_next: u64,
    pictures_left: u64,
}

impl Milestones {
    fn new(total: u64) -> Self {
        let step = total / (PICTURES + 1) + 1;
        Self { step, to_next: step, pictures_left: PICTURES }
    }

    fn passed(&mut self, cpu: CpuId, label: &str) {
        self.to_next -= 1;
        if self.to_next > 0 {
            return;
        }
        self.to_next = self.step;
        if cpu == CpuId::new(0) && self.pictures_left > 0 {
            self.pictures_left -= 1;
            picture::draw(label);
        }
    }
}
