//! late: boot memory joins the pool when it is needed no more.
//!
//! The first MiB was kept out: the loader's information lies there, and the page in which CPUs
//! start. Both have been used by now. What the map calls usable of it, above the BIOS' data, is
//! added to the pool in use; then all of it is asked for by its address, stamped and given back.

use frametree::{FRAME_SIZE, NumberRange, RegionKind, Request};

use super::worker::Worker;
use crate::cpu;
use crate::handoff::Handoff;
use crate::memory::POOL;
use crate::{paging, println};

/// Where frame 0, the BIOS' data and the loader's information end, and where the firmware's own
/// part of the first MiB may begin.
const START: u64 = 64 << 10;
const END: u64 = 512 << 10;

/// Runs the exercise; returns how many frames joined.
pub fn run(handoff: &Handoff) -> u64 {
    let before = POOL.stats().managed_frames;
    let mut joined = 0;
    for entry in handoff.memory_map().map(|entry| entry.region()) {
        let start = entry.start.max(START).div_ceil(FRAME_SIZE);
        let end = entry.start.saturating_add(entry.length).min(END) / FRAME_SIZE;
        if entry.kind != RegionKind::Usable || start >= end {
            continue;
        }
        let range = NumberRange::from_numbers(start, end);
        if is_in_use(handoff, range) {
            continue;
        }
        // SAFETY: The map calls it usable, what the loader put there was looked for, and all CPUs
        // are up; the direct map reaches it.
        let added = unsafe { POOL.grow(range, paging::direct_map) };
        let added = added.unwrap_or_else(|error| panic!("{range:?} can't join: {error}"));
        joined += added.len();
        stamp_all(added);
    }
    let after = POOL.stats().managed_frames;
    assert!(after == before + joined, "{before} frames and {joined} are {after}");
    println!("late: {joined} frames of the first MiB joined the pool, stamped and checked");
    joined
}

/// Whether something lies there that the loader left and the kernel may still read.
fn is_in_use(handoff: &Handoff, range: NumberRange) -> bool {
    let (start, end) = (range.start().start_address(), range.end().start_address());
    let mut is_in_use = false;
    handoff.reservations(|what, at, length| {
        is_in_use |= what != "first MiB" && at < end && at.saturating_add(length) > start;
    });
    is_in_use
}

/// Takes all of it by its address, stamps it, checks it and gives it back.
fn stamp_all(range: NumberRange) {
    let mut worker = Worker::new(cpu::current());
    let run = worker.take_run(&Request::new(range.len()).at(range.start()));
    let run = run.unwrap_or_else(|error| panic!("{range:?}, which has just joined: {error}"));
    let run = worker.stamp_run(run);
    worker.release_run(run);
}
