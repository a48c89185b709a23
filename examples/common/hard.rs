// A hardened pool for the examples in the documentation of `src/`, beside what `pool.rs` has.

include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs"));

/// Of 8 MiB, for one thread; nothing is to be found wrong there.
pub fn hardened() -> FramePool<One> {
    let how = frametree::Hardening::new(|violation| panic!("{violation}"));
    pool(Setup::new(1).hardened(how))
}
