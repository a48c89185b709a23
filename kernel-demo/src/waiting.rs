//! Waiting for another CPU, never without a limit.
//!
//! A wait that takes longer sleeps in small portions, on this CPU's timer: in an emulator the
//! CPUs that work may need the host's cores.

use core::hint::spin_loop;
use core::time::Duration;
use x86_64::instructions::interrupts;

use crate::clock::Stopwatch;
use crate::{apic, steering};

/// How long a wait stays awake.
const AWAKE: Duration = Duration::from_micros(100);
/// How long it sleeps at a time, in microseconds.
const NAP: u32 = 300;

/// What a wait says when its time is up.
#[derive(Debug)]
pub struct TimedOut;

/// Waits until `condition` holds, at most for `limit`.
pub fn wait_for(limit: Duration, mut condition: impl FnMut() -> bool) -> Result<(), TimedOut> {
    let mut watch = Stopwatch::start();
    while !condition() {
        if steering::is_paused() {
            // Somebody wants to look: that is nobody's delay.
            watch = Stopwatch::start();
        }
        match watch.elapsed() {
            elapsed if elapsed > limit => return Err(TimedOut),
            elapsed if elapsed > AWAKE && interrupts::are_enabled() => nap(NAP),
            _ => spin_loop(),
        }
    }
    Ok(())
}

/// Sleeps until the next interrupt, which comes after that many microseconds at the latest.
/// Interrupts are on.
pub fn nap(microseconds: u32) {
    interrupts::disable();
    apic::set_timer_after(microseconds);
    // They come on together with the sleep: the timer can't fire in between.
    interrupts::enable_and_hlt();
}
