//! What callers do wrong, of which most published allocators hand a frame out twice afterwards:
//! each case is an error with its numbers, and changes nothing. Through the pool, and so through
//! a CPU's cache.
#![cfg(not(loom))]

mod support;

use std::collections::BTreeSet;

use frametree::{
    AllocError, Found, FrameNumber, FramePool, FrameRange, FreeError, InTheWay, NoRun, NumberRange,
    Request,
};
use support::{BLOCK, GIANT, Threads, frame, pool};

const FRAMES: u64 = 3 * BLOCK + 100;

fn run(start: u64, count: u64) -> FrameRange {
    // SAFETY: deliberately wrong; the pool must refuse what is.
    unsafe { FrameRange::from_numbers(NumberRange::from_numbers(start, start + count)) }
}

fn refused(at: u64, found: Found) -> Result<(), FreeError> {
    Err(FreeError { frame: FrameNumber::new(at), found })
}

/// After a mistake: every frame that is not held comes out exactly once, none of those that are.
fn nothing_comes_out_twice(pool: &FramePool<Threads>, held: &[u64]) {
    pool.verify().unwrap_or_else(|broken| panic!("{broken}"));
    let mut seen: BTreeSet<u64> = held.iter().copied().collect();
    while let Ok(frame) = pool.alloc() {
        let number = frame.into_number().get();
        assert!(seen.insert(number), "frame {number} came out twice");
    }
    assert_eq!(seen.len() as u64, FRAMES, "a frame is lost");
}

#[test]
fn a_single_frame_is_freed_twice() {
    let pool = pool(Threads, 1, &[(64, FRAMES)]);
    let one = pool.alloc().expect("a frame").into_number().get();
    pool.free(frame(one)).expect("a free");
    assert_eq!(pool.free(frame(one)), refused(one, Found::Cached));
    assert_eq!(pool.free_run(run(one, 1)), refused(one, Found::Cached));
    pool.drain().expect("a drain");
    assert!(pool.free(frame(one)).is_err());
    nothing_comes_out_twice(pool, &[]);
}

#[test]
fn the_first_frame_of_a_run_is_freed_twice() {
    let pool = pool(Threads, 1, &[(64, FRAMES)]);
    for count in [8, 100, 700] {
        let taken = pool.alloc_run(&Request::new(count)).expect("a run").into_numbers();
        let first = taken.start().get();
        pool.free_run(run(first, count)).expect("a free");
        pool.drain().expect("a drain");
        assert_eq!(pool.free(frame(first)).expect_err("a double free").frame.get(), first);
        assert_eq!(pool.free_run(run(first, count)).expect_err("again").frame.get(), first);
    }
    nothing_comes_out_twice(pool, &[]);
}

#[test]
fn a_block_that_waits_in_the_cache_is_freed_again() {
    let pool = pool(Threads, 1, &[(64, FRAMES)]);
    let wait = || {
        let block = pool.alloc_block().expect("a block").into_number().get();
        pool.free_block(frame(block)).expect("a free");
        assert!(pool.stats().cached_frames >= BLOCK, "it waits");
        block
    };
    let again = |free: &dyn Fn(u64) -> Result<(), FreeError>, offset: u64, found: Found| {
        let block = wait();
        assert_eq!(free(block), refused(block + offset, found));
        pool.verify().unwrap_or_else(|broken| panic!("{broken}"));
    };
    again(&|block| pool.free_block(frame(block)), 0, Found::FreeBlock);
    again(&|block| pool.free(frame(block + 70)), 70, Found::FreeBlock);
    // SAFETY: deliberately wrong; the pool must refuse it.
    again(&|block| unsafe { pool.free_zeroed(frame(block)) }, 0, Found::FreeBlock);
    again(&|block| pool.free_run(run(block + 3, 5)), 3, Found::Cached);
    again(&|block| pool.free_run(run(block + 60, 200)), 60, Found::Cached);
    again(&|block| pool.free_run(run(block, BLOCK)), 0, Found::Cached);
    // Out of a side that is far from it, and of one that is dry.
    let far = pool.alloc_run(&Request::new(3)).expect("a run").into_numbers().start().get();
    again(
        &|block| pool.free(frame(far)).and_then(|()| pool.free(frame(block))),
        0,
        Found::FreeBlock,
    );
    pool.drain().expect("a drain");
    pool.free_run(run(far + 1, 2)).expect("a free");
    nothing_comes_out_twice(pool, &[]);
}

/// It passes unseen at first, as with any frame that another CPU has cached; but nothing is lost
/// when the block goes to the tree, and nothing is there twice then.
#[test]
fn another_cpu_frees_what_waits_in_the_cache() {
    for (offset, count) in [(5, 1), (60, 10), (0, BLOCK)] {
        let pool = pool(Threads, 2, &[(64, FRAMES)]);
        Threads::become_cpu(0);
        let block = pool.alloc_block().expect("a block").into_number().get();
        pool.free_block(frame(block)).expect("a free");
        Threads::become_cpu(1);
        pool.free_run(run(block + offset, count)).expect("not seen");
        pool.drain().expect("a drain");
        Threads::become_cpu(0);
        let late = pool.drain().expect_err("free there already");
        let first = if count == BLOCK { block } else { block + offset };
        assert_eq!((late.frame.get(), late.found), (first, Found::FreeAtFlush));
        assert_eq!(pool.stats().late_double_frees, count);
        nothing_comes_out_twice(pool, &[]);
    }
}

#[test]
fn what_is_out_of_range_is_freed() {
    let pool = pool(Threads, 1, &[(64, FRAMES)]);
    let end = 64 + FRAMES;
    for at in [0, 63, end, end + 5 * BLOCK, 7 * GIANT] {
        assert_eq!(pool.free(frame(at)), refused(at, Found::Unmanaged));
        assert_eq!(pool.free_run(run(at, 3)).expect_err("foreign").found, Found::Unmanaged);
    }
    nothing_comes_out_twice(pool, &[]);
}

#[test]
fn what_was_never_allocated_is_freed() {
    let pool = pool(Threads, 1, &[(64, FRAMES)]);
    assert!(pool.free(frame(700)).is_err());
    assert_eq!(pool.free_run(run(600, 200)).expect_err("never allocated").frame.get(), 600);
    assert_eq!(pool.free_block(frame(BLOCK)), refused(BLOCK, Found::FreeBlock));
    nothing_comes_out_twice(pool, &[]);
}

#[test]
fn the_tail_of_a_run_is_freed_and_then_the_run() {
    let pool = pool(Threads, 1, &[(64, FRAMES)]);
    let taken = pool.alloc_run(&Request::new(200)).expect("a run").into_numbers();
    let first = taken.start().get();
    pool.free_run(run(first + 150, 50)).expect("its tail");
    let error = pool.free_run(run(first, 200)).expect_err("the tail once more");
    assert_eq!(error.frame.get(), first + 150);
    let error = pool.free_run(run(first + 149, 2)).expect_err("one of them once more");
    assert_eq!(error.frame.get(), first + 150);
    let held: Vec<_> = (first..first + 150).collect();
    nothing_comes_out_twice(pool, &held);
}

#[test]
fn a_run_that_this_cpu_has_cached_in_part_is_refused() {
    let pool = pool(Threads, 1, &[(64, FRAMES)]);
    let taken = pool.alloc_run(&Request::new(10)).expect("a run").into_numbers();
    let first = taken.start().get();
    pool.free(frame(first + 3)).expect("a part of it");
    assert_eq!(pool.free_run(run(first, 10)), refused(first + 3, Found::Cached));
    let held: Vec<_> = (first..first + 10).filter(|at| *at != first + 3).collect();
    nothing_comes_out_twice(pool, &held);
}

#[test]
fn the_lowest_frame_that_is_wrong_is_named() {
    let pool = pool(Threads, 1, &[(64, FRAMES)]);
    let one = pool.alloc().expect("a frame").into_number().get();
    // The next frames are cached, those from 128 on free in the tree.
    assert_eq!(pool.free_run(run(one, 128)), refused(one + 1, Found::Cached));
    assert_eq!(pool.free_run(run(0, 128)), refused(0, Found::Unmanaged));
    nothing_comes_out_twice(pool, &[one]);
}

#[test]
fn a_refill_does_not_break_up_the_only_run() {
    // It lies across two words; each refill of the cache takes one of them.
    let small = pool(Threads, 1, &[(60, 10)]);
    let all = small.alloc_run(&Request::new(10)).expect("all of it");
    assert_eq!(all.numbers(), NumberRange::from_numbers(60, 70));
    small.free_run(all).expect("a free");
    let pool = pool(Threads, 1, &[(0, 16 * BLOCK)]);
    let all = pool.alloc_run(&Request::new(16 * BLOCK)).expect("all of it");
    let (_below, rest) = all.split_at(1000);
    let (free, _above) = rest.split_at(64);
    pool.free_run(free).expect("a part");
    assert_eq!(pool.alloc_run(&Request::new(64)).expect("the only run").len(), 64);
}

#[test]
fn what_caches_hold_is_found_by_requests_for_runs() {
    let pool = pool(Threads, 2, &[(64, 64)]);
    let one = pool.alloc().expect("a frame").into_number();
    // The other 63 sit in this CPU's cache; with the first one back, all are free.
    let way = AllocError::InTheWay { frame: one, why: InTheWay::Taken };
    assert_eq!(pool.alloc_run(&Request::new(64).at(one)), Err(way));
    pool.free(frame(one.get())).expect("a free");
    let all = pool.alloc_run(&Request::new(64).align(64 * 4096)).expect("all of it");
    assert_eq!(all.numbers(), NumberRange::from_numbers(64, 128));
    pool.free_run(all).expect("a free");
    // On another CPU they come on request only.
    let one = pool.alloc().expect("a frame");
    Threads::become_cpu(1);
    let request = Request::new(20);
    let no_run = NoRun { request, free: 0, longest: 0, cached: 63 };
    assert_eq!(pool.alloc_run(&request), Err(AllocError::NoRun(no_run)));
    Threads::become_cpu(0);
    pool.free(one).expect("a free, and a drain");
    Threads::become_cpu(1);
    let run = pool.alloc_run(&request).expect("after the drain");
    assert_eq!(run.len(), 20);
    pool.free_run(run).expect("a free");
}

#[test]
fn a_gib_of_which_a_part_is_free_is_refused_as_a_run_and_as_a_whole() {
    let pool = pool(Threads, 1, &[(0, 2 * GIANT)]);
    let giant = pool.alloc_giant().expect("a GiB").into_number().get();
    let all = || run(giant, GIANT);
    for (first, count, found) in [
        (3 * BLOCK + 77, 1, Found::Free),
        (5 * BLOCK, BLOCK, Found::FreeBlock),
        (511 * BLOCK + 511, 1, Found::Free),
    ] {
        let part = giant + first;
        pool.free_run(run(part, count)).expect("a part of it");
        pool.drain().expect("a drain");
        assert_eq!(pool.free_run(all()), refused(part, found));
        let found = Found::PartlyFree { free: count };
        assert_eq!(pool.free_giant(frame(giant)), refused(giant, found));
        let _ = pool.alloc_run(&Request::new(count).at(FrameNumber::new(part))).expect("it again");
    }
    pool.free_run(all()).expect("all of it");
    assert_eq!(pool.free_run(all()), refused(giant, Found::FreeGiant));
    pool.verify().expect("a sound pool");
}
