//! Owners: what is given back is not lost, and what is dropped is counted. One test, since the
//! count is that of the whole program.
#![cfg(not(loom))]

mod support;

use frametree::{FrameRange, Request, lost_frames};
use support::{BLOCK, GIANT, Threads};

#[test]
fn what_is_dropped_is_counted_and_nothing_else() {
    let pool = support::pool(Threads, 1, &[(0, GIANT)]);
    // All ways on which owners come and go.
    let frame = pool.alloc().expect("a frame");
    pool.free(frame).expect("a free");
    let block = pool.alloc_block().expect("a block");
    pool.free_block(block).expect("a free");
    let mut bulk: [Option<_>; 100] = std::array::from_fn(|_| None);
    assert_eq!(pool.alloc_bulk(&mut bulk), 100);
    pool.free_bulk(&mut bulk).expect("frees");
    let zeroed = pool.alloc_zeroed(|_| ()).expect("a frame");
    // SAFETY: the memory is not real.
    unsafe { pool.free_zeroed(zeroed) }.expect("a free");
    let run = pool.alloc_run(&Request::new(700)).expect("a run");
    let (low, high) = run.split_at(BLOCK);
    let (high, low) = high.join(low).expect_err("in the wrong order");
    let run = low.join(high).expect("they touch");
    assert_eq!(run.len(), 700);
    let (first, rest) = run.split_at(0);
    assert!(first.is_empty());
    // Nothing is lost with nothing.
    drop(first);
    pool.free_run(rest).expect("a free");
    let range = FrameRange::from(pool.alloc().expect("a frame"));
    pool.free_run(range).expect("a free");
    let tree = pool.tree().expect("a tree");
    let mut cache = tree.refill().expect("a refill");
    tree.flush(&mut cache).expect("a flush");
    let twice = pool.alloc().expect("a frame");
    let number = twice.number();
    pool.free(twice).expect("a free");
    // SAFETY: an error, as it should be, and no owner.
    pool.free(unsafe { frametree::Frame::from_number(number) }).expect_err("free already");
    pool.drain().expect("a drain");
    assert_eq!(lost_frames(), 0);
    assert_eq!(pool.stats().free_frames, GIANT);

    drop(pool.alloc().expect("a frame"));
    assert_eq!(lost_frames(), 1);
    drop(pool.alloc_run(&Request::new(300)).expect("a run"));
    assert_eq!(lost_frames(), 301);
    let mut bulk: [Option<_>; 10] = std::array::from_fn(|_| None);
    pool.alloc_bulk(&mut bulk);
    drop(bulk);
    assert_eq!(lost_frames(), 311);
    let run = pool.alloc_run(&Request::new(9)).expect("a run");
    std::panic::catch_unwind(|| run.split_at(10)).expect_err("there are nine");
    assert_eq!(lost_frames(), 320);
    let mut cache = tree.refill().expect("a refill");
    let count = u64::from(cache.free().count_ones());
    let run = cache.alloc_n(3).expect("three in a row");
    tree.free_run(run.frames).expect("a free");
    let (base, free, known_zero) = cache.into_parts();
    assert_eq!(lost_frames(), 320);
    // SAFETY: the same frames again.
    drop(unsafe { frametree::PageCache::from_parts(base, free, known_zero) });
    let lost = 320 + count - 3;
    assert_eq!(lost_frames(), lost);
    // The pool goes on without them, and says so.
    pool.drain().expect("a drain");
    pool.verify().expect("a sound pool");
    assert_eq!(pool.stats().free_frames, GIANT - lost);
}
