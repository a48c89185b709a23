//! Low memory last: single frames, blocks, GiBs and runs leave it alone while anything else is
//! left; who asks for it gets it; and then it is used like any other.
#![cfg(not(loom))]

mod support;

use frametree::{Frame, FramePool, NumberRange, Request, Setup};
use proptest::prelude::*;
use support::{BLOCK, GIANT, Threads, pool_by};

const CPUS: usize = 2;
/// 16 MiB and 4 GiB.
const LIMITS: [u64; 2] = [16 << 20, 4 << 30];

fn pool(below: u64, frames: &[(u64, u64)]) -> &'static FramePool<Threads> {
    Threads::become_cpu(0);
    pool_by(Threads, (CPUS, Setup::new(CPUS).low_last(below)), frames)
}

fn is_low(frame: &Frame, below: u64) -> bool {
    frame.start_address() < below
}

/// Takes everything, one by one, on all CPUs by turns (the last has no cache), and gives it back:
/// how many came before the first low one, and how many in all.
fn before_low(pool: &FramePool<Threads>, below: u64) -> (u64, u64) {
    let mut held = Vec::new();
    let mut dry = 0;
    while dry <= CPUS {
        Threads::become_cpu(held.len() / 50 % (CPUS + 1) + dry);
        match pool.alloc() {
            Ok(frame) => held.push(frame),
            Err(_) => dry += 1,
        }
    }
    for cpu in 0..CPUS {
        Threads::become_cpu(cpu);
        held.extend(std::iter::from_fn(|| pool.alloc().ok()));
    }
    let first = held.iter().position(|frame| is_low(frame, below)).unwrap_or(held.len());
    let count = (first as u64, held.len() as u64);
    for frame in held {
        pool.free(frame).expect("a free");
    }
    for cpu in 0..CPUS {
        Threads::become_cpu(cpu);
        pool.drain().expect("a drain");
    }
    pool.verify().expect("a sound pool");
    count
}

#[test]
fn single_frames_come_from_above_while_there_are_any() {
    for below in LIMITS {
        let end = below / frametree::FRAME_SIZE;
        // GiB 0 free as a whole, and not.
        for start in [0, 256] {
            let high = GIANT + 700;
            let pool = pool(below, &[(start, 4096 - start), (end.max(4096), high)]);
            let low = (4096 - start).min(end - start);
            let all = 4096 - start + high;
            // Twice: what was used once is still low.
            for _ in 0..2 {
                let (before, count) = before_low(pool, below);
                assert_eq!(count, all);
                // A CPU goes there when others have cached the rest.
                assert!(before >= all - low - 2 * 128, "{before} of {}", all - low);
            }
        }
    }
}

#[test]
fn a_whole_gib_with_low_blocks_is_used_from_its_first_high_one() {
    let pool = pool(16 << 20, &[(0, 2 * GIANT)]);
    assert_eq!(pool.alloc().expect("a frame").into_number().get(), 4096);
    pool.drain().expect("a drain");
    assert_eq!(pool.tree().expect("a tree").alloc().expect("a frame").into_number().get(), 4097);
    pool.verify().expect("a sound pool");
}

#[test]
fn blocks_gibs_and_runs_come_from_above() {
    let pool = pool(4 << 30, &[(0, 8 * GIANT)]);
    assert_eq!(pool.alloc_giant().expect("a GiB").into_number().get(), 4 * GIANT);
    let block = pool.alloc_block().expect("a block").into_number().get();
    assert_eq!(block, 5 * GIANT);
    let run = pool.alloc_run(&Request::new(1000)).expect("a run").into_numbers();
    assert_eq!(run.start().get(), 5 * GIANT + BLOCK);
    let aligned = Request::new(3).align(1 << 30);
    assert_eq!(pool.alloc_run(&aligned).expect("a run").into_numbers().start().get(), 6 * GIANT);
    // Who asks for low memory gets it, from below.
    let dma = Request::new(16).below(16 << 20);
    assert_eq!(pool.alloc_run(&dma).expect("a run").into_numbers().start().get(), 0);
    // More than there is above: from below.
    let large = pool.alloc_run(&Request::new(3 * GIANT)).expect("a run").into_numbers();
    assert_eq!(large, NumberRange::from_numbers(16, 16 + 3 * GIANT));
    // What is left above is used up, then what is low.
    let blocks: Vec<_> =
        std::iter::from_fn(|| pool.alloc_block().ok()).map(|b| b.into_number().get()).collect();
    let first_low = blocks.iter().position(|&block| block < 4 * GIANT).expect("low ones");
    assert!(blocks[first_low..].iter().all(|&block| block < 4 * GIANT));
    assert!(first_low as u64 > 2 * GIANT / BLOCK);
    pool.verify().expect("a sound pool");
}

#[test]
fn who_had_to_take_low_memory_leaves_it_when_there_is_other_again() {
    let below = 16 << 20;
    let pool = pool(below, &[(0, 4096), (GIANT, 4096)]);
    let mut held: Vec<_> = (0..4096 + 700).map(|_| pool.alloc().expect("a frame")).collect();
    assert!(is_low(&held[4096], below), "all that is above is in use");
    for frame in held.drain(..2048) {
        pool.free(frame).expect("a free");
    }
    let next: Vec<_> = (0..2048).map(|_| pool.alloc().expect("a frame")).collect();
    let low = next.iter().filter(|frame| is_low(frame, below)).count();
    // What the cache has of low memory still comes from there.
    assert!(low < 64, "{low} of 2048 are low");
    held.into_iter().chain(next).for_each(|frame| pool.free(frame).expect("a free"));
    pool.drain().expect("a drain");
    pool.verify().expect("a sound pool");
}

#[test]
fn a_home_of_blocks_does_not_lead_to_low_ones() {
    let below = 16 << 20;
    let pool = pool(below, &[(0, 2 * GIANT)]);
    let blocks = GIANT / BLOCK + 20;
    let mut held: Vec<_> = (0..blocks).map(|_| pool.alloc_block().expect("a block")).collect();
    // It keeps its GiB from merging, or its word would be empty anyway.
    let kept = held.pop().expect("the last");
    held.into_iter().for_each(|block| pool.free_block(block).expect("a free"));
    let next = pool.alloc_block().expect("a block");
    assert!(!is_low(&next, below), "there are others");
    for block in [kept, next] {
        pool.free_block(block).expect("a free");
    }
    pool.verify().expect("a sound pool");
}

#[test]
fn low_memory_that_is_added_is_used_last_too() {
    let pool = pool(4 << 30, &[(5 * GIANT, GIANT)]);
    let range = NumberRange::from_numbers(GIANT, 2 * GIANT);
    let bytes = pool.bytes_to_grow(range);
    // SAFETY: the memory is not real, nobody uses it.
    unsafe { pool.grow_in(range, vec![7; bytes / 8 + 16].leak()) }.expect("more memory");
    let frames: Vec<_> = std::iter::from_fn(|| pool.alloc().ok()).collect();
    let first = frames.iter().position(|frame| is_low(frame, 4 << 30)).expect("low ones");
    assert_eq!(first as u64, GIANT);
    frames.into_iter().for_each(|frame| pool.free(frame).expect("a free"));
    pool.drain().expect("a drain");
    pool.verify().expect("a sound pool");
}

#[test]
fn a_low_run_that_comes_free_does_not_wait_for_who_wants_any() {
    let below = 16 << 20;
    let pool = pool(below, &[(0, GIANT)]);
    // The cache has a frame, so that runs come from beyond it.
    let held: Vec<_> = (0..63).map(|_| pool.alloc().expect("a frame")).collect();
    let low = || pool.alloc_run(&Request::new(3).below(below)).expect("a run");
    let (kept, low) = (low(), low());
    let any = || pool.alloc_run(&Request::new(3)).expect("a run");
    let first = any();
    assert!(first.start_address() > below);
    pool.free_run(low).expect("a free");
    let next = any();
    assert_eq!(next.start_address(), first.start_address() + 3 * 4096);
    [kept, first, next].into_iter().for_each(|run| pool.free_run(run).expect("a free"));
    held.into_iter().for_each(|frame| pool.free(frame).expect("a free"));
    pool.verify().expect("a sound pool");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Wherever the boundary lies: nothing is lost, and what is asked for is found.
    #[test]
    fn everything_is_found_whatever_the_boundary(
        below in 0..3 * GIANT * 4096, start in 0..2 * GIANT, count in 1..GIANT,
    ) {
        let pool = pool(below, &[(start, count)]);
        let run = pool.alloc_run(&Request::new(count)).expect("all of it");
        pool.free_run(run).expect("a free");
        let frames = count.min(3000);
        let held: Vec<_> = (0..frames).map(|_| pool.alloc().expect("a frame")).collect();
        held.into_iter().for_each(|frame| pool.free(frame).expect("a free"));
        pool.drain().expect("a drain");
        pool.verify().expect("a sound pool");
        prop_assert_eq!(pool.stats().free_frames, count);
    }
}
