//! Blocks of 2 MiB that wait in a CPU's cache: what is handed out is as if they were in the tree,
//! and whatever is freed of them a second time is refused.
#![cfg(not(loom))]

mod support;

use frametree::{Found, FrameNumber, FramePool, FrameRange, FreeError, NumberRange, Request};
use support::{BLOCK, GIANT, Threads, frame, pool};

type Pool = FramePool<Threads>;

fn take(pool: &Pool) -> u64 {
    pool.alloc_block().expect("a block").into_number().get()
}

fn free(pool: &Pool, block: u64) {
    pool.free_block(frame(block)).expect("a free");
}

/// Of a pool with so many blocks: one that waits, with one held above it.
fn with_one_that_waits(blocks: u64) -> &'static Pool {
    let pool = pool(Threads, 2, &[(0, blocks * BLOCK)]);
    Threads::become_cpu(0);
    assert_eq!([take(pool), take(pool)], [0, BLOCK]);
    free(pool, 0);
    assert_eq!(pool.stats().cached_frames, BLOCK, "it waits");
    pool
}

#[test]
fn a_refill_takes_of_it() {
    let pool = with_one_that_waits(4);
    assert_eq!(pool.alloc().expect("a frame").into_number().get(), 0);
    pool.verify().expect("a sound pool");
}

#[test]
fn a_run_is_found_in_it() {
    let pool = with_one_that_waits(4);
    let run = pool.alloc_run(&Request::new(100)).expect("a run").into_numbers();
    assert_eq!(run.start().get(), 0);
    pool.verify().expect("a sound pool");
}

#[test]
fn a_gib_comes_together_with_it() {
    let pool = pool(Threads, 1, &[(0, 2 * GIANT)]);
    Threads::become_cpu(0);
    let block = take(pool);
    free(pool, block);
    assert_eq!(pool.stats().cached_frames, BLOCK, "it waits");
    assert_eq!(pool.alloc_giant().expect("a GiB").into_number().get(), 0);
}

#[test]
fn only_the_lowest_waits() {
    let pool = with_one_that_waits(8);
    assert_eq!([take(pool), take(pool)], [0, 2 * BLOCK]);
    // One below that others have freed is taken first.
    Threads::become_cpu(1);
    free(pool, BLOCK);
    Threads::become_cpu(0);
    free(pool, 2 * BLOCK);
    assert_eq!(pool.stats().cached_frames, 0);
    assert_eq!([take(pool), take(pool)], [BLOCK, 2 * BLOCK]);
    // And one that this CPU frees after it.
    free(pool, BLOCK);
    assert_eq!(pool.stats().cached_frames, BLOCK, "it waits");
    free(pool, 0);
    assert_eq!([take(pool), take(pool)], [0, BLOCK]);
    pool.verify().expect("a sound pool");
}

#[test]
fn with_a_reserve_none_waits() {
    let setup = frametree::Setup::new(1).reserve(1);
    let pool = support::pool_by(Threads, (1, setup), &[(0, 4 * BLOCK)]);
    Threads::become_cpu(0);
    let block = take(pool);
    free(pool, block);
    assert_eq!(pool.stats().cached_frames, 0);
}

fn refused(at: u64, found: Found) -> Result<(), FreeError> {
    Err(FreeError { frame: FrameNumber::new(at), found })
}

/// A frame that would go past the sides to the tree.
#[test]
fn a_frame_of_it_does_not_go_past_the_sides() {
    let pool = pool(Threads, 1, &[(0, 4 * BLOCK)]);
    Threads::become_cpu(0);
    let block = take(pool);
    let frames: Vec<_> = (0..200).map(|_| pool.alloc().expect("a frame")).collect();
    let numbers: Vec<_> = frames.into_iter().map(|frame| frame.into_number().get()).collect();
    free(pool, block);
    // The first opens the free side; the second, far from it, goes past.
    for at in [130, 5] {
        pool.free(frame(numbers[at])).expect("a free");
    }
    assert_eq!(pool.free(frame(block + 7)), refused(block + 7, Found::FreeBlock));
    pool.verify().expect("a sound pool");
}

/// A run that would be parked itself: the lowest of its length, as far as this CPU knows.
#[test]
fn a_run_of_it_is_not_parked_too() {
    let run = |first: u64, count: u64| {
        // SAFETY: deliberately wrong; the pool must refuse what is.
        unsafe { FrameRange::from_numbers(NumberRange::from_numbers(first, first + count)) }
    };
    let pool = pool(Threads, 1, &[(0, 8 * BLOCK)]);
    Threads::become_cpu(0);
    let block = take(pool);
    // Not all of them fit into the cache: some are looked for near the last.
    let runs = [(); 6].map(|()| pool.alloc_run(&Request::new(40)).expect("a run"));
    let runs = runs.map(|run| run.into_numbers().start().get());
    // The next of this length would be looked for where this one was.
    pool.free_run(run(runs[1], 40)).expect("a free");
    let again = pool.alloc_run(&Request::new(40)).expect("the same").into_numbers();
    assert_eq!(again.start().get(), runs[1]);
    free(pool, block);
    assert!(pool.stats().cached_frames >= BLOCK, "it waits");
    assert_eq!(pool.free_run(run(block + 3, 40)), refused(block + 3, Found::Cached));
    pool.verify().expect("a sound pool");
}
