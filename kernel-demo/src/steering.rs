//! Between the person at the screen and the CPUs that work: what is wished, and what is going on.
//!
//! Words that one side writes and the other reads now and then; each stands for itself, and none of
//! them means anything for the pool. Without a screen nobody writes a wish, and an operation costs
//! a look.

// ORDERING: Relaxed in all of this file: wishes and statistics, which hand nothing over.
use core::hint::spin_loop;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use x86_64::instructions::interrupts;

use crate::cpu::{self, MAX_CPUS};
use crate::screen;

/// How full the load keeps memory at first, in percent.
const LOAD: u64 = 60;
/// The least and the most, and the step between two.
const LOADS: (u64, u64) = (10, 90);
const LOAD_STEP: u64 = 10;

const NOTHING: usize = usize::MAX;

static IS_WATCHED: AtomicBool = AtomicBool::new(false);
static OPERATIONS: [AtomicU64; MAX_CPUS] = [const { AtomicU64::new(0) }; MAX_CPUS];
static PAUSED: AtomicBool = AtomicBool::new(false);
static ENDED: AtomicBool = AtomicBool::new(false);
static TOUR: AtomicBool = AtomicBool::new(true);
static CURRENT_LOAD: AtomicU64 = AtomicU64::new(LOAD);
static WANTED: AtomicUsize = AtomicUsize::new(NOTHING);

/// From here on somebody watches.
pub fn watch() {
    IS_WATCHED.store(true, Relaxed);
}

/// Counts an allocation or a free of this CPU. Outside of interrupt handlers it waits here while
/// the person wants a pause.
pub fn count_operation() {
    if !IS_WATCHED.load(Relaxed) {
        return;
    }
    OPERATIONS[cpu::current().get()].fetch_add(1, Relaxed);
    if interrupts::are_enabled() && !cpu::is_in_nmi() {
        screen::glance();
        while is_paused() {
            screen::glance();
            spin_loop();
        }
    }
}

/// Allocations and frees of a CPU so far.
pub fn operations(cpu: usize) -> u64 {
    OPERATIONS[cpu].load(Relaxed)
}

/// Whether the CPUs shall stand still.
pub fn is_paused() -> bool {
    PAUSED.load(Relaxed)
}

/// Whether all shall end.
pub fn is_ended() -> bool {
    ENDED.load(Relaxed)
}

/// Whether exercises follow each other by themselves.
pub fn is_on_tour() -> bool {
    TOUR.load(Relaxed)
}

/// How full the load shall keep memory, in percent.
pub fn load() -> u64 {
    CURRENT_LOAD.load(Relaxed)
}

/// The exercise that was asked for, once.
pub fn take_wanted() -> Option<usize> {
    Some(WANTED.swap(NOTHING, Relaxed)).filter(|&wanted| wanted != NOTHING)
}

/// Whether one waits to be taken.
pub fn is_anything_wanted() -> bool {
    WANTED.load(Relaxed) != NOTHING
}

/// Stand still, or go on.
pub fn toggle_pause() {
    PAUSED.fetch_xor(true, Relaxed);
}

/// End, paused or not.
pub fn end() {
    ENDED.store(true, Relaxed);
    PAUSED.store(false, Relaxed);
}

/// Show all exercises, or only those asked for.
pub fn toggle_tour() {
    TOUR.fetch_xor(true, Relaxed);
}

/// Ask for the exercise with this number, and for no others.
pub fn want(exercise: usize) {
    TOUR.store(false, Relaxed);
    WANTED.store(exercise, Relaxed);
}

/// Use more memory.
pub fn more_load() {
    CURRENT_LOAD.store((load() + LOAD_STEP).min(LOADS.1), Relaxed);
}

/// Use less.
pub fn less_load() {
    CURRENT_LOAD.store((load() - LOAD_STEP).max(LOADS.0), Relaxed);
}
