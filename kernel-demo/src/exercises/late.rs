//! late: memory that was needed to boot joins the pool in use.
//!
//! What the loader left (its information, the command line), the page in which the other CPUs
//! started and all else of the first MiB, and what becomes usable once the ACPI tables are read:
//! nobody needs any of it when all CPUs are up. It is what was reserved at the start, without
//! frame 0 and the kernel itself. Each piece joins the pool, and the number of managed frames goes
//! up by just that; then all of it is asked for by its address, stamped and given back.

use frametree::{FRAME_SIZE, FrameNumber, GrowError, MemoryMap, NumberRange, Request};

use super::worker::Worker;
use crate::memory::POOL;
use crate::{cpu, paging, println};

/// Pieces that there is room for; more are left alone.
const PIECES: usize = 64;

/// Memory that is needed during the boot, and no longer.
pub struct BootMemory {
    pieces: [NumberRange; PIECES],
    count: usize,
}

impl BootMemory {
    /// What is usable of this map only once the ACPI tables are read.
    pub fn reclaimable(map: &MemoryMap) -> Self {
        let mut this = Self { pieces: [NumberRange::from_numbers(0, 0); PIECES], count: 0 };
        map.reclaimable().for_each(|piece| this.add(piece));
        this
    }

    /// Adds what is usable of these bytes now, and is about to be reserved. Not frame 0, which has
    /// data of the firmware.
    pub fn add_usable(&mut self, map: &MemoryMap, start: u64, length: u64) {
        let end = start.saturating_add(length).div_ceil(FRAME_SIZE);
        let range = NumberRange::from_numbers((start / FRAME_SIZE).max(1), end.max(1));
        map.usable().filter_map(|usable| usable.overlap(range)).for_each(|piece| self.add(piece));
    }

    fn add(&mut self, piece: NumberRange) {
        // The metadata of a piece may come to lie in it.
        let is_mapped = piece.end() <= FrameNumber::new(paging::EARLY_MAP_END / FRAME_SIZE);
        if let Some(place) = self.pieces.get_mut(self.count).filter(|_| is_mapped) {
            *place = piece;
            self.count += 1;
        }
    }
}

/// Runs the exercise; returns how many frames joined.
///
/// # Safety
/// Nobody uses this memory any more.
pub unsafe fn run(memory: &BootMemory) -> u64 {
    let managed = || POOL.stats().managed_frames;
    let (before, mut joined, mut pieces) = (managed(), 0, 0);
    for &piece in &memory.pieces[..memory.count] {
        // SAFETY: By contract it is nobody's, and the early map reaches it.
        match unsafe { POOL.grow(piece, paging::direct_map) } {
            Ok(added) => {
                joined += added.len();
                pieces += 1;
                stamp_all(added);
            }
            // Far from all other memory it would need more metadata than there is of it.
            Err(GrowError::TooSmall { .. }) => {}
            Err(error) => panic!("{piece:?} can't join: {error}"),
        }
    }
    let after = managed();
    assert!(after == before + joined, "{before} frames and {joined} are {after}");
    println!("late: boot memory joined the pool: {joined} frames, ranges of them: {pieces}");
    joined
}

/// Takes all of it by its address, stamps it, checks it and gives it back.
fn stamp_all(range: NumberRange) {
    let mut worker = Worker::new(cpu::current());
    let run = worker.take_run(&Request::new(range.len()).at(range.start()));
    let run = run.unwrap_or_else(|error| panic!("{range:?}, which has just joined: {error}"));
    let run = worker.stamp_run(run);
    worker.release_run(run);
}
