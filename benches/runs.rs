//! The figures for runs of frames: `make bench`, after those of [`figures`](../figures).
//!
//! The fragmented map: 8 GiB, of which 25 % are used, in runs of mean 8. A hundred runs are held,
//! and one after the other is replaced; what is printed is the time of one free and one
//! allocation. Every run is checked to be exactly as long as asked for.

#[path = "../tests/support/mod.rs"]
mod support;

use std::hint::black_box;
use std::time::Instant;

use cpu_time::ThreadTime;

use frametree::{AllocError, FrameNumber, FramePool, FrameRange, Layout, NumberRange, Request};
use support::{BLOCK, Dice, GIANT, Threads};

const ROUNDS: usize = 15;
const MEMORY: u64 = 8 * GIANT;

fn main() {
    // `cargo test --benches` only wants to know that it builds.
    if !std::env::args().any(|arg| arg == "--bench") {
        return;
    }
    fragmented();
    far_away();
    failing();
}

/// A pool of so many frames, all free.
fn pool(frames: u64) -> &'static FramePool<Threads> {
    let pool = Box::leak(Box::new(FramePool::new(Threads)));
    support::with_map(&[(0, frames)], |map| {
        let storage = vec![7; Layout::new(map, 1).expect("a layout").bytes() / 8 + 16].leak();
        // SAFETY: the memory is not real, nobody uses it.
        unsafe { pool.init_in(map, 1, storage) }.expect("a pool");
    });
    pool
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A number with this mean, at least 1: most are small, some are large.
fn geometric(dice: &mut Dice, mean: u64) -> u64 {
    let mut number = 1;
    while dice.below(mean) != 0 {
        number += 1;
    }
    number
}

/// Takes frames of all memory so that those taken are runs of mean `used`, those free of mean
/// `free`.
fn fragment(pool: &FramePool<Threads>, memory: u64, used: u64, free: u64) {
    let tree = pool.tree().expect("a tree");
    let mut dice = Dice::new(7);
    let mut at = 0;
    while at < memory {
        let count = geometric(&mut dice, used).min(memory - at);
        let request = Request::new(count).at(FrameNumber::new(at));
        let _ = tree.alloc_run(&request).expect("free").into_numbers();
        at += count + geometric(&mut dice, free);
    }
}

/// Replaces runs of `count` frames at random; nanoseconds for each.
fn replace(pool: &FramePool<Threads>, count: u64) -> f64 {
    const HELD: usize = 100;
    let request = Request::new(count);
    let alloc = || -> FrameRange {
        let run = pool.alloc_run(&request).expect("a run");
        assert_eq!(run.len(), count);
        run
    };
    let mut held: Vec<_> = (0..HELD).map(|_| Some(alloc())).collect();
    let mut dice = Dice::new(3);
    let order: Vec<_> = (0..10_000).map(|_| dice.below(HELD as u64) as usize).collect();
    let start = ThreadTime::now();
    for index in &order {
        pool.free_run(held[*index].take().expect("a run")).expect("a free");
        held[*index] = Some(alloc());
    }
    let figure = start.elapsed().as_nanos() as f64 / order.len() as f64;
    held.into_iter().flatten().for_each(|run| pool.free_run(run).expect("a free"));
    figure
}

fn fragmented() {
    let whole = pool(MEMORY);
    for count in [2, 4, 8] {
        let request = Request::new(count);
        let mut figures: Vec<_> = (0..ROUNDS)
            .map(|_| {
                let start = ThreadTime::now();
                for _ in 0..100_000 {
                    let run = whole.alloc_run(black_box(&request)).expect("a run");
                    whole.free_run(run).expect("a free");
                }
                start.elapsed().as_nanos() as f64 / 100_000.0
            })
            .collect();
        println!("{count} frames, alloc + free: {:.1} ns (target 5)", median(&mut figures));
    }
    let pool = pool(MEMORY);
    fragment(pool, MEMORY, 8, 24);
    for (count, target) in [(3, 20), (17, 60), (100, 400)] {
        let mut figures: Vec<_> = (0..ROUNDS).map(|_| replace(pool, count)).collect();
        println!("a run of {count}: {:.1} ns (target {target})", median(&mut figures));
    }
}

/// A run that exists only in the last GiB of 64.
fn far_away() {
    let memory = 64 * GIANT;
    let pool = pool(memory);
    let tree = pool.tree().expect("a tree");
    let last = FrameNumber::new(memory - 300);
    let kept = tree.alloc_run(&Request::new(200).at(last)).expect("free");
    fragment_crumbs(pool);
    tree.free_run(kept).expect("a free");
    let mut figures: Vec<_> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            let run = pool.alloc_run(&Request::new(100)).expect("a run");
            let figure = start.elapsed().as_nanos() as f64 / 1000.0;
            pool.free_run(run).expect("a free");
            figure
        })
        .collect();
    println!(
        "100 in the last GiB of 64: {:.1} us, at first {:.1} us (target 20)",
        figures.clone().iter().copied().skip(1).fold(f64::NAN, f64::min),
        figures[0]
    );
    let _ = median(&mut figures);
}

/// Leaves 7 free of each 8 frames.
fn fragment_crumbs(pool: &FramePool<Threads>) {
    let tree = pool.tree().expect("a tree");
    while let Ok(block) = tree.alloc_block() {
        let start = block.into_number().get();
        for at in (start..start + BLOCK).step_by(8) {
            // SAFETY: a part of the block that was just taken.
            let part =
                unsafe { FrameRange::from_numbers(NumberRange::from_numbers(at + 1, at + 8)) };
            tree.free_run(part).expect("a free");
        }
    }
}

fn failing() {
    for gib in [1, 64, 1024] {
        let pool = pool(gib * GIANT);
        fragment_crumbs(pool);
        let mut figures: Vec<_> = (0..5)
            .map(|_| {
                let start = Instant::now();
                let error = pool.alloc_run(&Request::new(100)).expect_err("nothing fits");
                assert!(matches!(error, AllocError::NoRun(_)));
                start.elapsed().as_nanos() as f64 / 1000.0
            })
            .collect();
        println!("nothing fits, {gib} GiB: {:.1} us", median(&mut figures));
    }
}
