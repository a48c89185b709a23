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
    pool_of(8 << 20, setup)
}

/// The same of so many bytes, up to a few GiB.
pub fn pool_of(bytes: u64, setup: Setup) -> FramePool<One> {
    let regions = [MemoryRegion { start: 0, length: bytes, kind: RegionKind::Usable }];
    let mut cells = [MapEntry::EMPTY; MemoryMap::entries_needed(1)];
    let map = MemoryMap::normalise(regions, &mut cells).expect("a map");
    let pool = FramePool::new(One);
    // SAFETY: the memory is not real, nobody uses it.
    unsafe { pool.init_in(&map, setup, vec![0; 1 << 15].leak()) }.expect("a pool");
    pool
}

/// Where metadata that comes later may lie: memory of this process, never freed.
pub fn mapped(_physical: u64) -> *mut u8 {
    let layout = std::alloc::Layout::from_size_align(16 * FRAME_SIZE as usize, 4096);
    // SAFETY: the size is not 0.
    unsafe { std::alloc::alloc_zeroed(layout.expect("a layout")) }
}

/// Real memory behind the pool's 8 MiB, for examples that look into frames: physical address 0 is
/// mapped at a multiple of 2 MiB.
pub fn direct_map(physical: u64) -> *mut u8 {
    static START: std::sync::OnceLock<usize> = std::sync::OnceLock::new();
    let start = START.get_or_init(|| {
        let layout = std::alloc::Layout::from_size_align(8 << 20, 2 << 20).expect("a layout");
        // SAFETY: the size is not 0.
        unsafe { std::alloc::alloc_zeroed(layout) }.expose_provenance()
    });
    std::ptr::with_exposed_provenance_mut(start + physical as usize)
}
