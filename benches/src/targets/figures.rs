//! One frame and 2 MiB at a time, two threads, initialising.
//!
//! The pool is a `static`, as in a kernel. Everything is measured in rounds; medians are printed,
//! and where the target is a ratio, the median of the rounds' ratios to a floor (one locked
//! read-modify-write on a private line) that was measured just before, on the same machine in
//! the same mood. Times are thread time of pinned threads. Figures are printed, not gated.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Instant;

use cpu_time::ThreadTime;

use super::{Row, median};
use crate::machine::{cores, distance, pin};
use crate::support::{self, Dice, GIANT, Threads};
use frametree::{CpuId, Cpus, Frame, FrameNumber, FramePool, Layout, MemoryMap};

const MEMORY: u64 = 8 * GIANT;

static POOL: FramePool<Threads> = FramePool::new(Threads);

/// All of them, medians of so many rounds.
pub fn rows(rounds: usize) -> Vec<Row> {
    support::with_map(&[(0, MEMORY)], |map| {
        let storage = vec![7; Layout::new(map, 2).expect("a layout").bytes() / 8 + 16].leak();
        // SAFETY: the memory is not real, nobody uses it.
        unsafe { POOL.init_in(map, 2, storage) }.expect("a pool");
    });
    Threads::become_cpu(0);
    let mut rows = one_thread(rounds);
    rows.extend(two_threads(rounds));
    rows.push(every_second());
    rows.push(out_of_reach());
    rows.extend(initialise());
    rows
}

/// Nanoseconds for each of `count` things that `work` does.
fn time(count: u64, work: impl FnOnce()) -> f64 {
    let start = ThreadTime::now();
    work();
    start.elapsed().as_nanos() as f64 / count as f64
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

/// The same frees as read-modify-writes of the words that the frames' bits are in, and nothing else.
fn bare(words: &[AtomicU64], frames: &[Frame]) -> f64 {
    words.iter().for_each(|word| word.store(0, Ordering::Relaxed));
    time(frames.len() as u64, || {
        for frame in frames {
            let number = frame.number().get();
            let bit = 1 << (number % 64);
            let old = words[(number / 64) as usize].fetch_or(bit, Ordering::AcqRel);
            assert!(old & bit == 0, "each frame once");
        }
    })
}

fn alloc_all(frames: &mut Vec<Frame>) {
    frames.clear();
    while let Ok(frame) = POOL.alloc() {
        frames.push(frame);
    }
}

fn free_all(frames: &mut Vec<Frame>) {
    for frame in frames.drain(..) {
        POOL.free(frame).expect("a free");
    }
}

fn pairs() -> f64 {
    time(1_000_000, || {
        for _ in 0..1_000_000 {
            let frame = POOL.alloc().expect("a frame");
            POOL.free(frame).expect("a free");
        }
    })
}

/// Pairs of 2 MiB through the pool, and on the tree.
fn block_pairs() -> [f64; 2] {
    let tree = POOL.tree().expect("a tree");
    // One block stays out, so that the GiB does not merge and split each time.
    let kept = POOL.alloc_block().expect("a block");
    let through_the_pool = time(100_000, || {
        for _ in 0..100_000 {
            let block = POOL.alloc_block().expect("a block");
            POOL.free_block(block).expect("a free");
        }
    });
    POOL.drain().expect("a drain");
    let on_the_tree = time(100_000, || {
        for _ in 0..100_000 {
            let block = tree.alloc_block().expect("a block");
            tree.free_block(block).expect("a free");
        }
    });
    POOL.free_block(kept).expect("a free");
    POOL.drain().expect("a drain");
    [through_the_pool, on_the_tree]
}

fn one_thread(rounds: usize) -> Vec<Row> {
    let mut frames = Vec::with_capacity(MEMORY as usize);
    let mut dice = Dice::new(1);
    let [mut floors, mut single, mut allocs, mut ordered, mut random] = [const { Vec::new() }; 5];
    let [mut random_ratios, mut bares, mut bare_ratios] = [const { Vec::new() }; 3];
    let [mut blocks, mut block_ratios, mut tree_blocks, mut tree_ratios] =
        [const { Vec::new() }; 4];
    let words: Vec<_> = (0..MEMORY / 64).map(|_| AtomicU64::new(0)).collect();
    for _ in 0..rounds {
        single.push(pairs());
        allocs.push(time(MEMORY, || alloc_all(&mut frames)));
        ordered.push(time(MEMORY, || free_all(&mut frames)));
        alloc_all(&mut frames);
        dice.shuffle(&mut frames);
        bares.push(bare(&words, &frames));
        floors.push(floor());
        bare_ratios.push(bares[bares.len() - 1] / floors[floors.len() - 1]);
        random.push(time(MEMORY, || free_all(&mut frames)));
        random_ratios.push(random[random.len() - 1] / floors[floors.len() - 1]);
        POOL.drain().expect("a drain");
        floors.push(floor());
        let [pool, tree] = block_pairs();
        blocks.push(pool);
        block_ratios.push(pool / floors[floors.len() - 1]);
        tree_blocks.push(tree);
        tree_ratios.push(tree / floors[floors.len() - 1]);
    }
    let absolute = |name, values: &mut Vec<f64>, target, limit: f64| {
        let figure = median(values);
        Row::new(name, format!("{figure:.2} ns"), target, figure <= limit)
    };
    let relative = |name, values: &mut Vec<f64>, ratios: &mut Vec<f64>, target, limit: f64| {
        let (figure, ratio) = (median(values), median(ratios));
        Row::new(name, format!("{figure:.1} ns, {ratio:.2} floors"), target, ratio <= limit)
    };
    let floor = format!("{:.2} ns", median(&mut floors));
    let (bare, ratio) = (median(&mut bares), median(&mut bare_ratios));
    let bare = format!("{bare:.1} ns, {ratio:.2} floors");
    vec![
        absolute("alloc + free pair", &mut single, "3.5 ns", 3.5),
        absolute("allocate all, one by one", &mut allocs, "1.5 ns", 1.5),
        absolute("free all in order", &mut ordered, "2.5 ns", 2.5),
        Row::plain("floor: a locked read-modify-write", floor),
        Row::plain("floor: an RMW of each frame's word, in order", bare),
        relative("free all in random order", &mut random, &mut random_ratios, "1.5 floors", 1.5),
        // Two read-modify-writes are a pair of them.
        relative(
            "2 MiB frame, alloc + free pair",
            &mut blocks,
            &mut block_ratios,
            "2.2 pairs",
            4.4,
        ),
        relative("the same on the tree", &mut tree_blocks, &mut tree_ratios, "2.2 floors", 2.2),
    ]
}

/// Nanoseconds for each pair, the slowest thread's, when `threads` threads do the same.
fn together(threads: usize, burst: usize) -> f64 {
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
                        frames.push(POOL.alloc().expect("a frame"));
                    }
                    free_all(&mut frames);
                }
            };
            bursts(20_000 / burst + 1);
            let count = 4_000_000 / burst;
            barrier.wait();
            let figure = time((count * burst) as u64, || bursts(count));
            barrier.wait();
            POOL.drain().expect("a drain");
            figure
        })
    };
    let workers: Vec<_> = (0..threads).map(worker).collect();
    workers.into_iter().map(|worker| worker.join().expect("a worker")).fold(0.0, f64::max)
}

fn two_threads(rounds: usize) -> Vec<Row> {
    if cores().len() < 2 {
        return vec![Row::plain("two threads against one", "there is one CPU".into())];
    }
    let row = |name, burst| {
        let (mut ratios, mut ones, mut twos) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..rounds {
            let one = together(1, burst);
            let two = together(2, burst);
            ratios.push(2.0 * one / two);
            ones.push(one);
            twos.push(two);
        }
        let (ratio, one, two) = (median(&mut ratios), median(&mut ones), median(&mut twos));
        let figure = format!("{ratio:.2} times ({one:.2}, {two:.2} ns)");
        Row::new(name, figure, "1.9 times", ratio >= 1.9)
    };
    let between = format!("{:.0} ns", distance());
    vec![
        row("two threads, in caches (bursts of 32)", 32),
        row("two threads, beyond caches (of 2048)", 2048),
        Row::plain("a cache line between the two CPUs", between),
    ]
}

fn every_second() -> Row {
    let mut frames = Vec::new();
    alloc_all(&mut frames);
    let (odd, even) = frames.drain(..).partition(|frame| frame.number().get() % 2 == 1);
    let (mut odd, mut even): (Vec<_>, Vec<_>) = (odd, even);
    let freed = odd.len();
    free_all(&mut odd);
    alloc_all(&mut odd);
    let found = odd.len();
    free_all(&mut odd);
    free_all(&mut even);
    let figure = format!("{found} of {freed}");
    Row::new("every second frame free: found", figure, "all", found == freed)
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
    Row::new("out of reach after the drain hook", figure, "0", found == GIANT)
}

/// Initialising, with metadata that has been touched before.
fn initialise() -> Vec<Row> {
    let sizes = [("1 GiB", 1), ("64 GiB", 64), ("1 TiB", 1024), ("16 TiB", 16384)];
    let row = |(size, gibs): (&str, u64)| {
        support::with_map(&[(0, 159), (256, gibs * GIANT - 1024)], |map| {
            let bytes = Layout::new(map, 2).expect("a layout").bytes();
            let storage = vec![1u64; bytes / 8 + 16].leak();
            let mut times: Vec<_> = (0..5).map(|_| init_once(map, storage)).collect();
            let micros = median(&mut times);
            let bits = bytes as f64 * 8.0 / map.usable_frames() as f64;
            // SAFETY: from `leak` above; the pools that used it are gone with `init_once`.
            drop(unsafe { Box::from_raw(storage) });
            let name = format!("initialise {size}: {bits:.2} bits a frame");
            let figure = format!("{micros:.1} us, {} KiB", bytes / 1024);
            if gibs == 1024 {
                Row::new(&name, figure, "100 us", micros <= 100.0)
            } else {
                Row::plain(&name, figure)
            }
        })
    };
    sizes.into_iter().map(row).collect()
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
