//! Runs of frames.
//!
//! The fragmented map: 8 GiB, of which 25 % are used, in runs of mean 8. A hundred runs are held,
//! and one after the other is replaced; what is printed is the time of one free and one
//! allocation. Every run is checked to be exactly as long as asked for.

use std::hint::black_box;
use std::time::Instant;

use cpu_time::ThreadTime;

use super::{Row, median};
use crate::support::{self, BLOCK, Dice, GIANT, Threads};
use frametree::{FrameNumber, FramePool, FrameRange, Layout, NumberRange, Request};

const MEMORY: u64 = 8 * GIANT;

/// All of them, medians of so many rounds.
pub fn rows(rounds: usize) -> Vec<Row> {
    let mut rows = small(rounds);
    rows.extend(fragmented(rounds));
    rows.extend(far_away(rounds));
    rows.extend(failing());
    rows
}

fn nanoseconds(name: String, figure: f64, target: &'static str, limit: f64) -> Row {
    Row::new(&name, format!("{figure:.1} ns"), target, figure <= limit)
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

/// Small runs of memory that is all free, from the cache and back.
fn small(rounds: usize) -> Vec<Row> {
    const PAIRS: u32 = 100_000;
    let pool = pool(MEMORY);
    let row = |count| {
        let request = Request::new(count);
        let round = || {
            let start = ThreadTime::now();
            for _ in 0..PAIRS {
                let run = pool.alloc_run(black_box(&request)).expect("a run");
                pool.free_run(run).expect("a free");
            }
            start.elapsed().as_nanos() as f64 / f64::from(PAIRS)
        };
        let figure = median(&mut (0..rounds).map(|_| round()).collect::<Vec<_>>());
        nanoseconds(format!("{count} frames, alloc + free pair"), figure, "5 ns", 5.0)
    };
    [2, 4, 8].map(row).into()
}

fn fragmented(rounds: usize) -> Vec<Row> {
    let pool = pool(MEMORY);
    fragment(pool, MEMORY, 8, 24);
    let row = |(count, target, limit)| {
        let figure = median(&mut (0..rounds).map(|_| replace(pool, count)).collect::<Vec<_>>());
        nanoseconds(format!("a run of {count}, 25 % used, replaced"), figure, target, limit)
    };
    [(3, "20 ns", 20.0), (17, "60 ns", 60.0), (100, "400 ns", 400.0)].map(row).into()
}

/// A run that exists only in the last GiB of 64.
fn far_away(rounds: usize) -> Vec<Row> {
    let memory = 64 * GIANT;
    let pool = pool(memory);
    let tree = pool.tree().expect("a tree");
    let last = FrameNumber::new(memory - 300);
    let kept = tree.alloc_run(&Request::new(200).at(last)).expect("free");
    crumble(pool);
    tree.free_run(kept).expect("a free");
    let look = || {
        let start = Instant::now();
        let run = pool.alloc_run(&Request::new(100)).expect("a run");
        let figure = start.elapsed().as_nanos() as f64 / 1000.0;
        pool.free_run(run).expect("a free");
        figure
    };
    let first = look();
    let figure = median(&mut (0..rounds).map(|_| look()).collect::<Vec<_>>());
    let name = "100 frames, only in the last of 64 GiB";
    vec![
        Row::new(name, format!("{figure:.1} us"), "20 us", figure <= 20.0),
        Row::plain("the same, the first time", format!("{first:.0} us")),
    ]
}

/// Leaves 7 free of each 8 frames.
fn crumble(pool: &FramePool<Threads>) {
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

/// Asks for something, and says whether it was refused.
type Ask = fn(&FramePool<Threads>) -> bool;

/// Nothing fits: on memory of crumbs none of these is to be had. A row for each request and each
/// size of memory: the first time, which finds out how long the runs are, and then again.
fn failing() -> Vec<Row> {
    let asked: [(&str, Ask); 5] = [
        ("100 frames", |pool| pool.alloc_run(&Request::new(100)).is_err()),
        ("100 below 4 GiB", |pool| pool.alloc_run(&Request::new(100).below(4 << 30)).is_err()),
        ("2 MiB", |pool| pool.alloc_block().is_err()),
        ("1 GiB", |pool| pool.alloc_giant().is_err()),
        ("100 aligned", |pool| pool.alloc_run(&Request::new(100).align(64 << 10)).is_err()),
    ];
    let rows = |gib| {
        let pool = pool(gib * GIANT);
        crumble(pool);
        asked.map(|(what, ask)| {
            let look = || {
                let start = Instant::now();
                assert!(ask(pool), "nothing fits");
                start.elapsed().as_nanos() as f64 / 1000.0
            };
            let first = look();
            let figure = median(&mut (0..99).map(|_| look()).collect::<Vec<_>>());
            let name = format!("nothing fits, {gib} GiB: {what}");
            let text = format!("{figure:.2} us; {first:.0} us first");
            match gib {
                64 => Row::new(&name, text, "1 us", figure <= 1.0),
                _ => Row::plain(&name, text),
            }
        })
    };
    [1, 64, 1024].map(rows).into_iter().flatten().collect()
}
