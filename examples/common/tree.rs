// The tree of a pool for the examples in the documentation of `src/`, beside what `pool.rs` has.

include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs"));

/// Of 8 MiB, as `FramePool::tree` gives it.
pub fn tree() -> &'static frametree::FrameTree<'static> {
    Box::leak(Box::new(pool(Setup::new(1)))).tree().expect("a pool in use")
}
