//! The figures of the README: `make bench`.
//!
//! Every row is measured in rounds, interleaved with the floor (one locked read-modify-write on
//! a private line), so that a row and its floor saw the same machine; medians of the rounds are
//! printed, and the ratio where the target is one. Times are thread time of pinned threads.

#[path = "../tests/support/mod.rs"]
mod support;

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Instant;

use cpu_time::ThreadTime;

use frametree::{CpuId, Cpus, Frame, FrameNumber, FramePool, Layout, MemoryMap};
use support::{BLOCK, GIANT, Threads};

const ROUNDS: usize = 15;
const MEMORY: u64 = 8 * GIANT;

/// A row of the table.
struct Row {
    name: &'static str,
    figure: String,
    target: &'static str,
    is_met: bool,
}

fn main() {
    // `cargo test --benches` only wants to know that it builds.
    if !std::env::args().any(|arg| arg == "--bench") {
        return;
    }
    pin(0);
    println!("frametree, 8 GiB unless said, medians of {ROUNDS} interleaved rounds\n");
    let mut rows = one_thread();
    rows.extend(two_threads());
    rows.push(every_second());
    rows.push(out_of_reach());
    print_rows(&rows);
    initialise();
}

fn pin(core: usize) {
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    if let Some(&id) = cores.get(core) {
        core_affinity::set_for_current(id);
    }
}

fn print_rows(rows: &[Row]) {
    println!("| row | figure | target | |\n|---|---|---|---|");
    for Row { name, figure, target, is_met } in rows {
        println!("| {name} | {figure} | {target} | {} |", if *is_met { "met" } else { "MISSED" });
    }
}

/// Nanoseconds for each of `count` things that `work` does.
fn time(count: u64, work: impl FnOnce()) -> f64 {
    let start = ThreadTime::now();
    work();
    start.elapsed().as_nanos() as f64 / count as f64
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// One locked read-modify-write on a private line.
fn floor() -> f64 {
    let word = AtomicU64::new(0);
    time(200_000, || {
        for _ in 0..200_000 {
            black_box(&word).fetch_or(1, Ordering::AcqRel);
        }
    })
}

fn alloc_all(pool: &FramePool<Threads>, frames: &mut Vec<Frame>) {
    frames.clear();
    while let Ok(frame) = pool.alloc() {
        frames.push(frame);
    }
}

fn free_all(pool: &FramePool<Threads>, frames: &mut Vec<Frame>) {
    for frame in frames.drain(..) {
        pool.free(frame).expect("a free");
    }
}

/// A fixed shuffle: xorshift, Fisher and Yates.
fn shuffle(frames: &mut [Frame]) {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    for last in (1..frames.len()).rev() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        frames.swap(last, (state % (last as u64 + 1)) as usize);
    }
}

fn one_thread() -> Vec<Row> {
    let pool = support::pool(Threads, 1, &[(0, MEMORY)]);
    let mut frames = Vec::with_capacity(MEMORY as usize);
    let [mut floors, mut pairs, mut allocs, mut ordered, mut random, mut blocks] =
        [const { Vec::new() }; 6];
    for _ in 0..ROUNDS {
        floors.push(floor());
        pairs.push(time(1_000_000, || {
            for _ in 0..1_000_000 {
                let frame = black_box(pool).alloc().expect("a frame");
                black_box(pool).free(black_box(frame)).expect("a free");
            }
        }));
        allocs.push(time(MEMORY, || alloc_all(pool, &mut frames)));
        ordered.push(time(MEMORY, || free_all(pool, &mut frames)));
        alloc_all(pool, &mut frames);
        shuffle(&mut frames);
        random.push(time(MEMORY, || free_all(pool, &mut frames)));
        pool.drain().expect("a drain");
        blocks.push(block_pairs(pool));
        floors.push(floor());
    }
    let floor = median(&mut floors);
    println!("floor: one locked read-modify-write {floor:.1} ns\n");
    let absolute = |name, values: &mut Vec<f64>, target, limit: f64| {
        let figure = median(values);
        Row { name, figure: format!("{figure:.2} ns"), target, is_met: figure <= limit }
    };
    let relative = |name, values: &mut Vec<f64>, target, limit: f64| {
        let figure = median(values);
        let ratio = figure / floor;
        let text = format!("{figure:.1} ns = {ratio:.2} floors");
        Row { name, figure: text, target, is_met: ratio <= limit }
    };
    vec![
        absolute("alloc + free pair", &mut pairs, "3.5 ns", 3.5),
        absolute("allocate all, one by one", &mut allocs, "1.5 ns each", 1.5),
        absolute("free all in order", &mut ordered, "2.5 ns each", 2.5),
        relative("free all in random order", &mut random, "1.5 floors", 1.5),
        relative("2 MiB block, claim + free pair on the tree", &mut blocks, "2.2 floors", 2.2),
    ]
}

fn block_pairs(pool: &FramePool<Threads>) -> f64 {
    // One block stays out, so that the GiB does not merge and split each time.
    let kept = pool.alloc_block().expect("a block");
    let figure = time(100_000, || {
        for _ in 0..100_000 {
            let block = black_box(pool).alloc_block().expect("a block");
            black_box(pool).free_block(block).expect("a free");
        }
    });
    pool.free_block(kept).expect("a free");
    figure
}

/// Nanoseconds for each pair, the slowest thread's, when `threads` threads do the same.
fn together(pool: &'static FramePool<Threads>, threads: usize, burst: usize) -> f64 {
    let barrier = Arc::new(Barrier::new(threads));
    let worker = |cpu: usize| {
        let barrier = barrier.clone();
        std::thread::spawn(move || {
            pin(cpu);
            Threads::become_cpu(cpu);
            let mut frames = Vec::with_capacity(burst);
            let mut bursts = |count: usize| {
                for _ in 0..count {
                    for _ in 0..burst {
                        frames.push(pool.alloc().expect("a frame"));
                    }
                    for frame in frames.drain(..) {
                        pool.free(frame).expect("a free");
                    }
                }
            };
            bursts(20_000 / burst + 1);
            let count = 4_000_000 / burst;
            barrier.wait();
            let figure = time((count * burst) as u64, || bursts(count));
            barrier.wait();
            pool.drain().expect("a drain");
            figure
        })
    };
    let workers: Vec<_> = (0..threads).map(worker).collect();
    workers.into_iter().map(|worker| worker.join().expect("a worker")).fold(0.0, f64::max)
}

fn two_threads() -> Vec<Row> {
    let pool = support::pool(Threads, 2, &[(0, MEMORY)]);
    let row = |name, burst| {
        let (mut ratios, mut ones, mut twos) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let one = together(pool, 1, burst);
            let two = together(pool, 2, burst);
            ratios.push(2.0 * one / two);
            ones.push(one);
            twos.push(two);
        }
        let (ratio, one, two) = (median(&mut ratios), median(&mut ones), median(&mut twos));
        let figure = format!("{ratio:.2} times ({one:.2} and {two:.2} ns a pair)");
        Row { name, figure, target: "at least 1.9 times", is_met: ratio >= 1.9 }
    };
    vec![
        row("two threads against one, in caches (bursts of 32)", 32),
        row("two threads against one, beyond caches (bursts of 2048)", 2048),
    ]
}

fn every_second() -> Row {
    let pool = support::pool(Threads, 1, &[(0, MEMORY)]);
    let mut frames = Vec::new();
    alloc_all(pool, &mut frames);
    let mut freed = 0;
    for frame in frames.drain(..) {
        if frame.number().get() % 2 == 1 {
            pool.free(frame).expect("a free");
            freed += 1;
        }
    }
    alloc_all(pool, &mut frames);
    let figure = format!("{} of {freed}", frames.len());
    let is_met = frames.len() == freed;
    Row { name: "every second frame free, singles found", figure, target: "all", is_met }
}

/// CPUs whose drain hook drains at once, as an interrupt that is waited for does.
struct Hooked;

static HOOKED: FramePool<Hooked> = FramePool::new(Hooked);

// SAFETY: one thread plays all CPUs.
unsafe impl Cpus for Hooked {
    fn with_current<R>(&self, work: impl FnOnce(CpuId) -> R) -> R {
        Threads.with_current(work)
    }

    fn request_drain(&self, cpu: CpuId) {
        // SAFETY: this thread plays that CPU too, and is outside of the pool's closures.
        unsafe { HOOKED.drain_offline(cpu) }.expect("a drain");
    }
}

fn out_of_reach() -> Row {
    support::with_map(&[(0, GIANT)], |map| {
        let storage = vec![0; Layout::new(map, 8).expect("a layout").bytes() / 8 + 16].leak();
        // SAFETY: the memory is not real, nobody uses it.
        unsafe { HOOKED.init_in(map, 8, storage) }.expect("a pool");
    });
    // Seven CPUs hold as much as they can: the rest of one group, and one frame of another.
    for cpu in 1..8 {
        Threads::become_cpu(cpu);
        let frames: Vec<_> = (0..65).map(|_| HOOKED.alloc().expect("a frame")).collect();
        for frame in frames {
            HOOKED.free(frame).expect("a free");
        }
    }
    Threads::become_cpu(0);
    let cached = HOOKED.stats().cached_frames;
    let found = std::iter::from_fn(|| HOOKED.alloc().ok()).count() as u64;
    let figure = format!("{} (of {cached} cached)", GIANT - found);
    let name = "frames out of reach in 7 other CPUs' caches, after the drain hook";
    Row { name, figure, target: "0", is_met: found == GIANT }
}

/// Initialising, with metadata that has been touched before.
fn initialise() {
    println!("\n| initialise | time | metadata | bits for each frame |\n|---|---|---|---|");
    for (name, gibs) in [("1 GiB", 1), ("64 GiB", 64), ("1 TiB", 1024), ("16 TiB", 16384)] {
        support::with_map(&[(0, 159), (256, gibs * GIANT - 1024)], |map| {
            let bytes = Layout::new(map, 2).expect("a layout").bytes();
            let storage = vec![1u64; bytes / 8 + 16].leak();
            let mut times: Vec<_> = (0..5).map(|_| init_once(map, storage)).collect();
            let micros = median(&mut times);
            let bits = bytes as f64 * 8.0 / map.usable_frames() as f64;
            println!("| {name} | {micros:.1} us | {} KiB | {bits:.3} |", bytes / 1024);
            // SAFETY: from `leak` above; the pools that used it are gone with `init_once`.
            drop(unsafe { Box::from_raw(storage) });
        });
    }
}

fn init_once(map: &MemoryMap<'_>, storage: &mut [u64]) -> f64 {
    let pool = FramePool::new(Threads);
    // SAFETY: the pool is dropped before this function returns, and its storage outlives it.
    let storage = unsafe { std::slice::from_raw_parts_mut(storage.as_mut_ptr(), storage.len()) };
    let start = Instant::now();
    // SAFETY: the memory is not real, nobody uses it.
    unsafe { pool.init_in(map, 2, storage) }.expect("a pool");
    let micros = start.elapsed().as_nanos() as f64 / 1000.0;
    assert_eq!(pool.tree().map(|tree| tree.managed_frames()), Some(map.usable_frames()));
    let first = pool.alloc().expect("a frame");
    assert_eq!(first.number(), FrameNumber::new(0));
    micros
}

const _: () = assert!(BLOCK == 512);
