//! What it costs to be there at all: initialising, and metadata.

use std::time::Instant;

use super::{give_back, take_all};
use crate::allocator::{Allocator, Refusal};
use crate::harness::Patience;
use crate::machine::heap_bytes;
use crate::support::Threads;

/// Microseconds until an allocator of so many frames is ready, on fresh memory: page faults of its
/// metadata are in it.
pub fn initialise<A: Allocator>(frames: u64) -> Result<f64, Refusal> {
    Threads::become_cpu(0);
    let start = Instant::now();
    let allocator = A::new(frames)?;
    let micros = start.elapsed().as_nanos() as f64 / 1000.0;
    drop(allocator);
    Ok(micros)
}

/// Bits of metadata for each frame.
pub struct Metadata {
    pub all_free: f64,
    /// With every second frame free.
    pub every_second: f64,
}

/// Counts what is on the heap, what the allocator says, and the frames that it kept for itself.
pub fn metadata<A: Allocator>(frames: u64, patience: Patience) -> Result<Metadata, Refusal> {
    Threads::become_cpu(0);
    let before = heap_bytes();
    let allocator = A::new(frames)?;
    let new = heap_bytes() - before + allocator.metadata();
    let held = take_all(&allocator, frames, patience)?;
    let own = (frames - held.len() as u64) * 4096;
    let (kept, freed) = held.into_iter().partition::<Vec<_>, _>(|frame| frame % 2 == 0);
    let lists = heap_bytes();
    give_back(&allocator, freed.iter().copied(), patience)?;
    // Freed lists of the workload don't count; what the frees have added does.
    let grown = heap_bytes() as i64 - lists as i64;
    let taken = lists as i64 - before as i64 - (kept.capacity() + freed.capacity()) as i64 * 4;
    let bits = |bytes: i64| bytes.max(0) as f64 * 8.0 / frames as f64;
    let then = (taken.max(0) + grown) + own as i64 + allocator.metadata() as i64;
    Ok(Metadata { all_free: bits((new + own) as i64), every_second: bits(then) })
}
