//! All CPUs: starting them, and running one job on every one of them.
//!
//! **Protocol of a job.** CPU 0 publishes the job, raises the round and wakes the others, each of
//! which sleeps until it sees a round that it has not run. Every CPU, CPU 0 too, runs the job
//! once and then counts itself as done; CPU 0 returns when all are. A CPU that never gets there
//! ends the kernel with a panic: no wait is without a limit.

use core::mem;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use core::time::Duration;
use frametree::CpuId;
use spin::Mutex;
use x86_64::instructions::interrupts;

use crate::cpu::{self, MAX_CPUS};
use crate::firmware::Firmware;
use crate::interrupts::WAKE;
use crate::waiting::wait_for;
use crate::{apic, boot, memory, paging};

/// The page in which other CPUs start, in the reserved first MiB.
const TRAMPOLINE: u64 = 0x8000;
/// How long a CPU may take to come up.
const START_LIMIT: Duration = Duration::from_secs(5);
/// How long a job, or one CPU's part of it, may take.
const JOB_LIMIT: Duration = Duration::from_secs(120);

type Job = dyn Fn(CpuId) + Sync;

static JOB: Mutex<Option<&'static Job>> = Mutex::new(None);
static ROUND: AtomicUsize = AtomicUsize::new(0);
static DONE: AtomicUsize = AtomicUsize::new(0);
/// CPUs that run; each CPU that comes up adds itself.
static ONLINE: AtomicUsize = AtomicUsize::new(1);

/// How many CPUs run. Fixed once all are started.
pub fn online() -> usize {
    // ORDERING: Acquire pairs with the Release of a CPU that came up (`next_cpu_main`).
    ONLINE.load(Ordering::Acquire)
}

/// How many CPUs there are to start, as the firmware says, this one included.
pub fn present(firmware: &Firmware) -> usize {
    let mut count = 0;
    firmware.cpus(|_| count += 1);
    count.clamp(1, MAX_CPUS)
}

/// Starts all CPUs but this one, one after the other, and calls `up` with each.
pub fn start_others(firmware: &Firmware, mut up: impl FnMut(usize)) {
    let this = apic::id();
    firmware.cpus(|number| {
        let index = online();
        if number != this && index < MAX_CPUS {
            start(index, number);
            up(index);
        }
    });
}

fn start(index: usize, number: u32) {
    let stack_end = memory::map_stack(index);
    // SAFETY: The page is in the reserved first MiB, the stack is new and stays mapped, and the
    // CPU before this one has come up.
    unsafe { boot::prepare_next_cpu(paging::direct_map(TRAMPOLINE), stack_end, index) };
    // SAFETY: The firmware left this CPU waiting for its start, and the code is in place.
    unsafe { apic::start(number, TRAMPOLINE) };
    if wait_for(START_LIMIT, || online() > index).is_err() {
        panic!("CPU {index} (local APIC {number}) did not come up within {START_LIMIT:?}");
    }
}

/// Where every CPU but the first enters Rust, on its own stack.
// SAFETY: boot.s calls it by this name, which nothing else has.
#[unsafe(no_mangle)]
extern "C" fn next_cpu_main(index: usize) -> ! {
    // SAFETY: boot.s hands each CPU the number that `start` chose for it; this is the first call.
    unsafe { cpu::enter(index) };
    crate::interrupts::load();
    // SAFETY: Once on this CPU, and interrupts are still off.
    unsafe { apic::init() };
    // ORDERING: Release hands CPU 0 what this CPU set up, its APIC's number among it.
    ONLINE.fetch_add(1, Ordering::Release);
    let mut round = 0;
    loop {
        interrupts::disable();
        // ORDERING: Acquire pairs with the Release in `run`: the job is visible.
        while ROUND.load(Ordering::Acquire) == round {
            // Interrupts come on together with the sleep: a wake-up in between is not lost.
            interrupts::enable_and_hlt();
            interrupts::disable();
        }
        interrupts::enable();
        round += 1;
        let job = JOB.lock().expect("a round has a job");
        job(cpu::current());
        // ORDERING: Release hands CPU 0 what the job did here.
        DONE.fetch_add(1, Ordering::Release);
    }
}

/// Takes the last CPU out of those that run jobs, for good: it does `work` from now on. There are
/// two CPUs at least, and this is called once.
pub fn detach_last(work: fn() -> !) {
    static HAS_BEGUN: AtomicBool = AtomicBool::new(false);
    let last = online() - 1;
    run(|cpu| {
        if cpu.get() == last {
            let begin = work;
            // ORDERING: Release pairs with the Acquire below: the job is not needed any more.
            HAS_BEGUN.store(true, Ordering::Release);
            begin();
        } else if cpu.get() == 0 {
            let begun = wait_for(JOB_LIMIT, || HAS_BEGUN.load(Ordering::Acquire));
            begun.expect("the last CPU does not take its job");
            // `run` waits for all that are left. ORDERING: Relaxed; all of them are up.
            ONLINE.fetch_sub(1, Ordering::Relaxed);
        }
    });
}

/// Runs `job` on every CPU at once, and returns when all are through.
pub fn run(job: impl Fn(CpuId) + Sync) {
    let job: &(dyn Fn(CpuId) + Sync + '_) = &job;
    // SAFETY: Only the lifetime changes. The CPUs use the job between the new round and their
    // count below, and this function does not return before all have counted (nor unwind:
    // a panic ends the kernel).
    let job = unsafe { mem::transmute::<&(dyn Fn(CpuId) + Sync + '_), &'static Job>(job) };
    *JOB.lock() = Some(job);
    DONE.store(0, Ordering::Relaxed);
    // ORDERING: Release publishes the job and the count; the workers' Acquire pairs with it.
    ROUND.fetch_add(1, Ordering::Release);
    if online() > 1 {
        apic::interrupt_others(WAKE);
    }
    job(cpu::current());
    // ORDERING: Acquire pairs with each worker's Release.
    if wait_for(JOB_LIMIT, || DONE.load(Ordering::Acquire) == online() - 1).is_err() {
        panic!("a job did not end on every CPU within {JOB_LIMIT:?}");
    }
    *JOB.lock() = None;
}
