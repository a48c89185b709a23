//! nmi: a handler that nothing can hold off may allocate, whatever it interrupted.
//!
//! Every CPU takes and gives back frames as fast as it can. Timers interrupt it, and their
//! handler sends a non-maskable interrupt to the next CPU (to itself if it is the only one). The
//! handler of that takes, stamps, checks and gives back frames: inside the allocator, inside
//! other handlers, while interrupts are off. It prints nothing and waits for nobody. If none of
//! them has found its own CPU inside the allocator the exercise has shown nothing and fails.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::time::Duration;
use frametree::CpuId;
use spin::Mutex;

use super::ledger::Ledger;
use super::pattern::WORDS;
use super::worker::Worker;
use crate::clock::Stopwatch;
use crate::cpu::{self, MAX_CPUS};
use crate::memory::{self, POOL};
use crate::waiting::wait_for;
use crate::{apic, picture, println, smp};

/// Non-maskable interrupts that each CPU must have met.
const STORM: u64 = 250;
/// Operations on the pool in each: a frame is taken, or checked and given back.
const CHANGES: u64 = 2;
/// Between two timer interrupts of a CPU, in microseconds.
const PAUSE: u64 = 10;
const PAUSE_RANGE: u64 = 31;
/// How much of a frame the interrupted code stamps: little, to be inside the allocator often.
const SIGNATURE: usize = 4;
/// How many frames it takes before it gives them back.
const HOLDING: u64 = 1000;
/// How long the exercise may take.
const LIMIT: Duration = Duration::from_secs(60);

/// What a CPU's handler works with, while the exercise runs.
struct Handler {
    worker: Mutex<Option<Worker>>,
    met: AtomicU64,
    sent: AtomicU64,
    sends: AtomicBool,
}

static HANDLERS: [Handler; MAX_CPUS] = [const {
    Handler {
        worker: Mutex::new(None),
        met: AtomicU64::new(0),
        sent: AtomicU64::new(0),
        sends: AtomicBool::new(false),
    }
}; MAX_CPUS];

/// Whether the exercise runs. At any other time such an interrupt says that the machine is broken.
static EXPECTED: AtomicBool = AtomicBool::new(false);

/// What was done.
pub struct Counts {
    /// Interrupts that met a CPU at work.
    pub met: u64,
    /// Of these, how many came inside the allocator.
    pub inside: u64,
}

/// What the timer's interrupt does.
pub fn tick() {
    let this = cpu::current().get();
    let handler = &HANDLERS[this];
    // ORDERING: Relaxed, here and below: this CPU's own, or counts.
    if handler.sends.load(Ordering::Relaxed) {
        let sent = handler.sent.fetch_add(1, Ordering::Relaxed);
        apic::send_nmi(CpuId::new((this + 1) % smp::online()));
        apic::set_timer_after((PAUSE + sent * 7 % PAUSE_RANGE) as u32);
    }
}

/// What a non-maskable interrupt does. It comes at any time, but not inside another one.
pub fn storm() {
    let handler = &HANDLERS[cpu::current().get()];
    // Only this CPU uses the lock. Who has interrupted it just when it was set up goes on at once.
    let Some(mut worker) = handler.worker.try_lock() else { return };
    // ORDERING: Relaxed; set before any is sent, and cleared long after.
    assert!(EXPECTED.load(Ordering::Relaxed), "a non-maskable interrupt that nobody has sent");
    if let Some(worker) = worker.as_mut() {
        for _ in 0..CHANGES {
            worker.churn(WORDS);
        }
        handler.met.fetch_add(1, Ordering::Relaxed);
    }
}

/// Runs the exercise.
pub fn run() -> Counts {
    EXPECTED.store(true, Ordering::Relaxed);
    println!("nmi: a storm of non-maskable interrupts, and their handler allocates");
    let sum = |count: fn(&Handler) -> &AtomicU64| -> u64 {
        HANDLERS.iter().map(|handler| count(handler).load(Ordering::Relaxed)).sum()
    };
    let (nested, met) = (POOL.stats().nested, sum(|handler| &handler.met));
    let sent = sum(|handler| &handler.sent);
    let watch = Stopwatch::start();
    let through = AtomicU64::new(0);
    smp::run(|cpu| under_fire(cpu, &through));
    let elapsed = watch.elapsed();
    // Each CPU has met what was sent to it when it is through with this.
    super::drain_all();
    EXPECTED.store(false, Ordering::Relaxed);
    picture::draw("all free");
    let (sent, met) = (sum(|handler| &handler.sent) - sent, sum(|handler| &handler.met) - met);
    let inside = (POOL.stats().nested - nested).div_ceil(CHANGES);
    println!("  {sent} sent, {met} met the working CPUs, {:.2} s", elapsed.as_secs_f32());
    println!("  {inside} of them hit inside the allocator, took and gave back frames there");
    assert!(inside > 0, "no interrupt hit inside the allocator: nothing was shown");
    Counts { met, inside }
}

/// One CPU's part: works until all CPUs have met their share, and sends to the next one.
fn under_fire(cpu: CpuId, through: &AtomicU64) {
    let handler = &HANDLERS[cpu.get()];
    *handler.worker.lock() = Some(Worker::new(cpu));
    let goal = handler.met.load(Ordering::Relaxed) + STORM;
    handler.sends.store(true, Ordering::Relaxed);
    apic::set_timer_after(PAUSE as u32);
    let mut worker = Worker::new(cpu);
    let (mut ledger, mut is_through) = (Ledger::new(), false);
    let done = wait_for(LIMIT, || {
        while ledger.frames() < HOLDING
            && let Some(frame) = worker.take()
        {
            worker.keep(frame, SIGNATURE, &mut ledger);
        }
        while let Some(entry) = ledger.take() {
            worker.release(entry, SIGNATURE);
        }
        if !is_through && handler.met.load(Ordering::Relaxed) >= goal {
            is_through = true;
            through.fetch_add(1, Ordering::Relaxed);
        }
        through.load(Ordering::Relaxed) == smp::online() as u64
    });
    handler.sends.store(false, Ordering::Relaxed);
    apic::set_timer_after(0);
    // One that is still on its way finds the lock taken, or nobody behind it.
    let handlers_worker = handler.worker.lock().take();
    handlers_worker.expect("set above").empty_hand(WORDS);
    memory::drain();
    if done.is_err() {
        let missing = goal.saturating_sub(handler.met.load(Ordering::Relaxed));
        panic!("CPU {}: {missing} of {STORM} did not come within {LIMIT:?}", cpu.get());
    }
}
