//! Time: the CPU's time stamp counter, measured once against the ACPI power management timer.
//!
//! This file only looks at the clock; waiting.rs waits for somebody.

use core::arch::x86_64::_rdtsc;
use core::hint::spin_loop;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use x86_64::instructions::port::PortReadOnly;

/// The power management timer's frequency, the same on every PC.
const PM_TIMER_HZ: u64 = 3_579_545;
/// How long the measurement takes: 10 ms.
const SAMPLE: u64 = PM_TIMER_HZ / 100;
/// How often a timer that stands still is read before it is given up.
const SAMPLE_ATTEMPTS: usize = 10_000_000;

/// 1 GHz until measured; a wrong value makes waits longer or shorter, never endless.
static TICKS_PER_MICROSECOND: AtomicU64 = AtomicU64::new(1000);

/// Measures the time stamp counter, given the port of the power management timer. `None` if the
/// timer does not run.
pub fn calibrate(pm_timer_port: u16) -> Option<()> {
    let mut timer = PortReadOnly::<u32>::new(pm_timer_port);
    // SAFETY: The FADT says that the timer is at this port, and reading it changes nothing.
    let mut now = || u64::from(unsafe { timer.read() });
    let (first, began) = (now(), ticks());
    // The timer has 24 bits at least; within 10 ms it can wrap once.
    let elapsed = (0..SAMPLE_ATTEMPTS)
        .map(|_| now().wrapping_sub(first) & 0xff_ffff)
        .find(|&elapsed| elapsed >= SAMPLE)?;
    let per_microsecond = (ticks() - began) * PM_TIMER_HZ / elapsed / 1_000_000;
    // ORDERING: Relaxed; a number that stands for itself.
    TICKS_PER_MICROSECOND.store(per_microsecond.max(1), Ordering::Relaxed);
    Some(())
}

/// The time stamp counter.
pub fn ticks() -> u64 {
    // SAFETY: Every x86-64 CPU has the instruction, and it changes nothing.
    unsafe { _rdtsc() }
}

/// A point in time from which to count.
#[derive(Clone, Copy)]
pub struct Stopwatch(u64);

impl Stopwatch {
    /// Starts now.
    pub fn start() -> Self {
        Self(ticks())
    }

    /// The time since the start.
    pub fn elapsed(self) -> Duration {
        // Another CPU's counter may lag a little behind.
        let ticks = ticks().saturating_sub(self.0);
        // ORDERING: Relaxed; a number that stands for itself.
        Duration::from_micros(ticks / TICKS_PER_MICROSECOND.load(Ordering::Relaxed))
    }
}

/// Lets `time` pass, at full speed.
pub fn pause(time: Duration) {
    let watch = Stopwatch::start();
    while watch.elapsed() < time {
        spin_loop();
    }
}
