// A heap for the examples in the documentation of `src/heap.rs`, beside what `pool.rs` has.

include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs"));

use frametree::cpus::NotPreempted;
use frametree::heap::PoolHeap;

/// On a pool of 8 MiB, for one thread.
pub fn heap() -> (PoolHeap<One, NotPreempted>, &'static FramePool<One>) {
    let pool: &'static _ = Box::leak(Box::new(pool(Setup::new(1))));
    // SAFETY: all memory of the pool is mapped there; an example is one thread.
    let heap =
        unsafe { PoolHeap::new(pool, NotPreempted::promised(), direct_map(0).expose_provenance()) };
    (heap, pool)
}
