// A pool for the examples in the documentation of `src/`, which include this file: 8 MiB that are
// not real, for one thread.

use frametree::{
    CpuId, Cpus, FRAME_SIZE, FramePool, MapEntry, MemoryMap, MemoryRegion, RegionKind, Setup,
};

pub struct One;

// SAFETY: an example is one thread.
unsafe impl Cpus for One {
    fn with_current<R>(&self, work: impl FnOnce(CpuId) -> R) -> R {
        work(CpuId::new(0))
    }
}

pub fn pool(setup: Setup) -> FramePool<One> {
    let regions = [MemoryRegion { start: 0, length: 8 << 20, kind: RegionKind::Usable }];
    let mut cells = [MapEntry::EMPTY; MemoryMap::entries_needed(1)];
    let map = MemoryMap::normalise(regions, &mut cells).expect("a map");
    let pool = FramePool::new(One);
    // SAFETY: the memory is not real, nobody uses it.
    unsafe { pool.init_in(&map, setup, vec![0; 4096].leak()) }.expect("a pool");
    pool
}

/// Where metadata that comes later may lie: memory of this process, never freed.
pub fn mapped(_physical: u64) -> *mut u8 {
    let layout = std::alloc::Layout::from_size_align(16 * FRAME_SIZE as usize, 4096);
    // SAFETY: the size is not 0.
    unsafe { std::alloc::alloc_zeroed(layout.expect("a layout")) }
}
