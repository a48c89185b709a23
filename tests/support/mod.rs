//! What the host tests share: a pool over memory that does not exist, and CPUs that are threads.
//! Frames are numbers to the allocator, so a map of a TiB needs only its metadata.
#![allow(dead_code, reason = "every test binary uses a part of it")]

use std::cell::Cell;

use frametree::{CpuId, Cpus, FramePool, Layout, MapEntry, MemoryMap, MemoryRegion, RegionKind};

std::thread_local! {
    static CPU: Cell<usize> = const { Cell::new(0) };
}

/// CPUs as the tests play them: the current one is what this thread says it is.
#[derive(Debug)]
pub struct Threads;

impl Threads {
    /// From now on this thread is CPU `cpu`.
    pub fn become_cpu(cpu: usize) {
        CPU.set(cpu);
    }
}

// SAFETY: each test gives every CPU number to one thread at a time.
unsafe impl Cpus for Threads {
    #[inline(always)]
    fn with_current<R>(&self, work: impl FnOnce(CpuId) -> R) -> R {
        work(CpuId::new(CPU.get()))
    }
}

/// Usable memory: (first frame, frames).
pub fn regions(frames: &[(u64, u64)]) -> Vec<MemoryRegion> {
    let region = |&(start, count): &(u64, u64)| MemoryRegion {
        start: start * frametree::FRAME_SIZE,
        length: count * frametree::FRAME_SIZE,
        kind: RegionKind::Usable,
    };
    frames.iter().map(region).collect()
}

/// Runs `work` on the normalised map of this usable memory.
pub fn with_map<R>(frames: &[(u64, u64)], work: impl FnOnce(&mut MemoryMap<'_>) -> R) -> R {
    let regions = regions(frames);
    let mut buffer = vec![MapEntry::EMPTY; MemoryMap::entries_needed(regions.len()) + 8];
    work(&mut MemoryMap::normalise(regions, &mut buffer).expect("a map"))
}

/// A pool of this memory, with its metadata beside it and filled with garbage.
pub fn pool<C: Cpus>(with: C, cpus: usize, frames: &[(u64, u64)]) -> &'static FramePool<C> {
    let pool = Box::leak(Box::new(FramePool::new(with)));
    with_map(frames, |map| {
        let bytes = Layout::new(map, cpus).expect("a layout").bytes();
        let garbage = vec![0xdead_beef_0bad_cafe; bytes / 8 + 16].leak();
        // SAFETY: the memory is not real, nobody uses it.
        unsafe { pool.init_in(map, cpus, garbage) }.expect("a pool");
    });
    pool
}

/// 2 MiB blocks in frames.
pub const BLOCK: u64 = 512;
/// GiBs in frames.
pub const GIANT: u64 = 512 * 512;
