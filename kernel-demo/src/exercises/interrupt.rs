//! interrupt: a handler may allocate, whatever it interrupted.
//!
//! Every CPU takes and gives back frames as fast as it can, while its timer interrupts it every
//! few microseconds, at changing intervals. The handler takes, stamps, checks and gives back
//! frames too. How often it found its own CPU inside the allocator is what the pool counted; if
//! that is never, the exercise has shown nothing and fails.

use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use frametree::CpuId;
use spin::Mutex;

use super::ledger::Ledger;
use super::pattern::WORDS;
use super::worker::Worker;
use crate::clock::Stopwatch;
use crate::cpu::{self, MAX_CPUS};
use crate::memory::POOL;
use crate::waiting::wait_for;
use crate::{apic, picture, println, smp};

/// Interrupts that each CPU takes.
const TICKS: u64 = 1000;
/// Changes that the handler makes to its set of frames.
const CHANGES: usize = 3;
/// Between two interrupts of a CPU: this long at least, in microseconds,
const PAUSE: usize = 10;
/// and up to so much longer.
const PAUSE_RANGE: usize = 40;
/// How much of a frame the interrupted code stamps: little, to be inside the allocator often.
const SIGNATURE: usize = 4;
/// How many frames it takes before it gives them back: blocks are split and merged.
const HOLDING: u64 = 1000;
/// How long the exercise may take.
const LIMIT: Duration = Duration::from_secs(60);

/// What a CPU's handler works with, while the exercise runs.
struct Handler {
    worker: Mutex<Option<Worker>>,
    ticks: AtomicU64,
}

static HANDLERS: [Handler; MAX_CPUS] =
    [const { Handler { worker: Mutex::new(None), ticks: AtomicU64::new(0) } }; MAX_CPUS];

/// What the timer's interrupt does, with interrupts off.
pub fn tick() {
    let handler = &HANDLERS[cpu::current().get()];
    // The lock is taken by this CPU only, and outside of the handler with interrupts off.
    let mut worker = handler.worker.lock();
    let Some(worker) = worker.as_mut() else {
        return;
    };
    for _ in 0..CHANGES {
        worker.churn(WORDS);
    }
    // ORDERING: Relaxed; a count.
    handler.ticks.fetch_add(1, Ordering::Relaxed);
    apic::set_timer_after((PAUSE + worker.random(PAUSE_RANGE)) as u32);
}

/// Runs the exercise.
pub fn run() {
    println!("interrupt: timers interrupt every CPU and allocate in the handler");
    let before = POOL.stats().nested;
    let watch = Stopwatch::start();
    smp::run(under_fire);
    let elapsed = watch.elapsed();
    super::drain_all();
    picture::draw("all free");
    let ticks: u64 = HANDLERS.iter().map(|h| h.ticks.load(Ordering::Relaxed)).sum();
    let nested = POOL.stats().nested - before;
    println!("  {ticks} interrupts, {:.2} s", elapsed.as_secs_f32());
    println!("  {nested} operations of handlers met their own CPU inside the allocator");
    assert!(nested > 0, "no interrupt hit inside the allocator: nothing was shown");
}

/// One CPU's part: works until its timer has fired often enough.
fn under_fire(cpu: CpuId) {
    let handler = &HANDLERS[cpu.get()];
    let set = |worker| {
        x86_64::instructions::interrupts::without_interrupts(|| {
            core::mem::replace(&mut *handler.worker.lock(), worker)
        })
    };
    handler.ticks.store(0, Ordering::Relaxed);
    set(Some(Worker::new(cpu)));
    apic::set_timer_after(PAUSE as u32);
    let mut worker = Worker::new(cpu);
    let mut ledger = Ledger::new();
    let done = wait_for(LIMIT, || {
        while ledger.frames() < HOLDING
            && let Some(frame) = worker.take()
        {
            worker.keep(frame, SIGNATURE, &mut ledger);
        }
        while let Some(entry) = ledger.take() {
            worker.release(entry, SIGNATURE);
        }
        handler.ticks.load(Ordering::Relaxed) >= TICKS
    });
    apic::set_timer_after(0);
    let handlers_worker = set(None);
    handlers_worker.expect("set above").empty_hand(WORDS);
    if done.is_err() {
        let ticks = handler.ticks.load(Ordering::Relaxed);
        panic!("CPU {}: {ticks} of {TICKS} timer interrupts within {LIMIT:?}", cpu.get());
    }
}
