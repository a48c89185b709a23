//! reserve: who must not fail gets memory when nobody else does, and low memory goes last.
//!
//! CPU 0 takes all memory that ordinary requests can have: first what lies above 16 MiB, then
//! single frames without a limit. The first of these that lies below comes only when nothing above
//! is left, and when they are refused exactly the reserve is free. Now timers interrupt all CPUs,
//! and the handler takes urgent frames and runs, each of which must be had, while the interrupted
//! code goes on asking in vain. Then all of it is given back. On the way down and up again, free
//! memory crosses each watermark once.

use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use frametree::{AllocError, CpuId, FRAME_SIZE, Frame, FrameTree, Level, Request};
use spin::Mutex;
use x86_64::instructions::interrupts::without_interrupts;

use super::ledger::{Entry, Held, Ledger, Size};
use super::pattern::{self, WORDS};
use super::worker::Worker;
use crate::clock::Stopwatch;
use crate::cpu::{self, MAX_CPUS};
use crate::memory::{self, LOW_END, POOL, RESERVE};
use crate::waiting::wait_for;
use crate::{apic, picture, println, smp};

/// Interrupts of each CPU; every second one takes a run.
const TICKS: u64 = 16;
const RUN: u64 = 2;
/// Between two of them, in microseconds.
const PAUSE: u32 = 50;
/// How long it may take.
const LIMIT: Duration = Duration::from_secs(60);

const _: () = assert!(TICKS / 2 * (1 + RUN) < RESERVE, "some of the reserve is always left");

/// What a CPU's handler works with, while it is in use.
struct Handler {
    tools: Mutex<Option<(Worker, Ledger)>>,
    ticks: AtomicU64,
}

static HANDLERS: [Handler; MAX_CPUS] =
    [const { Handler { tools: Mutex::new(None), ticks: AtomicU64::new(0) } }; MAX_CPUS];

/// What was done.
pub struct Counts {
    /// Frames that handlers had of the reserve.
    pub urgent: u64,
    /// Ordinary requests that were refused meanwhile.
    pub refused: u64,
    /// Single frames from above before the first one from below.
    pub above: u64,
}

/// What the timer's interrupt does, with interrupts off.
pub fn tick() {
    let handler = &HANDLERS[cpu::current().get()];
    // The lock is taken by this CPU only, and outside of the handler with interrupts off.
    let mut tools = handler.tools.lock();
    let Some((worker, ledger)) = tools.as_mut() else { return };
    // ORDERING: Relaxed, here and below: this CPU's own.
    let ticks = handler.ticks.load(Ordering::Relaxed);
    if ticks == TICKS {
        return;
    }
    if ticks.is_multiple_of(2) {
        let run = worker.take_run(&Request::new(RUN).urgent());
        let run = run.unwrap_or_else(|error| panic!("{RUN} urgent frames: {error}"));
        worker.keep_run(run, ledger);
    } else {
        let frame = worker.take_urgent().expect("an urgent frame");
        worker.keep(frame, WORDS, ledger);
    }
    handler.ticks.store(ticks + 1, Ordering::Relaxed);
    apic::set_timer_after(PAUSE);
}

/// Runs the exercise.
pub fn run() -> Counts {
    super::drain_all();
    let watch = Stopwatch::start();
    let tree = POOL.tree().expect("the pool is initialised");
    let (before, crossings) = (tree.count_free(), memory::crossings());
    println!("reserve: nothing is left but for interrupts, and low memory was last");
    assert!(POOL.level() == Level::High, "memory is low before anything was taken");

    let (mut worker, mut ledger) = (Worker::new(cpu::current()), Ledger::new());
    take_above(&mut worker, &mut ledger);
    let (above, below) = take_singly(&mut worker, tree, &mut ledger);
    picture::draw("all taken");
    println!("  {above} single frames above 16 MiB, then {below} below it");
    assert!(POOL.level() == Level::Low, "nothing is left, and memory is not low");

    let (urgent, refused) = (AtomicU64::new(0), AtomicU64::new(0));
    smp::run(|cpu| ask_in_vain(cpu, &urgent, &refused));
    let (urgent, refused) = (urgent.into_inner(), refused.into_inner());
    println!("  {urgent} urgent frames for interrupts, {refused} other requests refused");

    while let Some(entry) = ledger.take() {
        give_back(&mut worker, entry);
    }
    super::drain_all();
    picture::draw("all free");
    let (after, crossed) = (tree.count_free(), memory::crossings() - crossings);
    assert!(after == before, "not as it was: {before:?} free before, {after:?} after");
    assert!(POOL.level() == Level::High && crossed == 2, "the watermarks: {crossed} crossings");
    println!("  each watermark crossed once: {:.2} s", watch.elapsed().as_secs_f32());
    Counts { urgent, refused, above }
}

/// Takes what is whole above 16 MiB, in the largest pieces, but for one block.
fn take_above(worker: &mut Worker, ledger: &mut Ledger) {
    let block = Request::new(Size::Block.frames()).align(2 << 20).above(LOW_END);
    let giant = Request::new(Size::Giant.frames()).align(1 << 30).above(LOW_END);
    for (request, size) in [(giant, Size::Giant), (block, Size::Block)] {
        loop {
            if ledger.is_full() {
                ledger.add_page(worker.take().expect("a frame for a page of the ledger"));
            }
            let Ok(run) = worker.take_run(&request) else { break };
            let first = pattern::frames(run).next().expect("it has frames");
            ledger.add(Held { first, size, note: 0 });
        }
    }
    let Some(entry @ Entry::Listed(_)) = ledger.take() else { panic!("no memory above 16 MiB") };
    give_back(worker, entry);
}

/// Takes single frames until they are refused. How many came before the first one from below, and
/// how many after that.
fn take_singly(worker: &mut Worker, tree: &FrameTree, ledger: &mut Ledger) -> (u64, u64) {
    let (mut above, mut below) = (0, 0);
    let is_low = |frame: &Frame| frame.start_address() < LOW_END;
    while let Some(frame) = worker.take() {
        match (is_low(&frame), below) {
            (true, 0) => {
                let left = left_above(tree);
                assert!(left == 0, "{:?} with {left} frames free above", frame.number());
                below = 1;
            }
            (true, _) => below += 1,
            (false, 0) => above += 1,
            (false, _) => panic!("{:?} after {below} low ones", frame.number()),
        }
        if ledger.is_full() {
            ledger.add_page(frame);
        } else {
            ledger.add(Held { first: frame, size: Size::Frame, note: 0 });
        }
    }
    let (free, reserve) = (POOL.stats().free_frames, RESERVE * smp::online() as u64);
    assert!(free == reserve, "refused with {free} frames free, and {reserve} are reserved");
    assert!(below > 0, "no low memory was left");
    (above, below)
}

/// Free frames above 16 MiB.
fn left_above(tree: &FrameTree) -> u64 {
    let above = tree.blocks().filter(|block| block.first.get() >= LOW_END / FRAME_SIZE);
    above.map(|block| block.free).sum()
}

/// One CPU's part: asks until its timer has fired often enough.
fn ask_in_vain(cpu: CpuId, urgent: &AtomicU64, refused: &AtomicU64) {
    let handler = &HANDLERS[cpu.get()];
    let set = |tools| without_interrupts(|| core::mem::replace(&mut *handler.tools.lock(), tools));
    handler.ticks.store(0, Ordering::Relaxed);
    set(Some((Worker::new(cpu), Ledger::new())));
    apic::set_timer_after(PAUSE);
    let done = wait_for(LIMIT, || {
        let asked = [POOL.alloc().map(|_| ()), POOL.alloc_run(&Request::new(RUN)).map(|_| ())];
        for answer in asked {
            let is_reserved = matches!(answer, Err(AllocError::Reserved { free }) if free > 0);
            assert!(is_reserved, "CPU {} asked in vain, and was told {answer:?}", cpu.get());
            // ORDERING: Relaxed, here and below; read when the job is over.
            refused.fetch_add(1, Ordering::Relaxed);
        }
        handler.ticks.load(Ordering::Relaxed) >= TICKS
    });
    apic::set_timer_after(0);
    let (mut worker, mut ledger) = set(None).expect("set above");
    urgent.fetch_add(ledger.frames(), Ordering::Relaxed);
    if done.is_err() {
        panic!("CPU {}: the timer did not fire {TICKS} times within {LIMIT:?}", cpu.get());
    }
    while let Some(entry) = ledger.take() {
        worker.release(entry, WORDS);
    }
    memory::drain();
}

fn give_back(worker: &mut Worker, entry: Entry) {
    let held = match entry {
        Entry::Page(frame) => return worker.give_back(frame),
        Entry::Listed(held) => held,
    };
    let free = match held.size {
        Size::Frame => return worker.give_back(held.first),
        Size::Block => POOL.free_block(held.first),
        Size::Giant => POOL.free_giant(held.first),
    };
    if let Err(error) = free {
        panic!("CPU {} was refused: {error}", worker.cpu().get());
    }
    worker.count_given_back(held.size.frames());
}
