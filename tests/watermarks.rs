//! The watermarks: each crossing is told once, by turns, outside of the allocator; high never
//! before it is true, low never after.
#![cfg(not(loom))]

mod support;

use std::cell::{Cell, RefCell};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use frametree::{Crossing, Frame, FramePool, Level, Setup};
use support::{Crew, Dice, GIANT, Threads, pool_by};

const CPUS: usize = 2;
const FRAMES: u64 = 20_000;
/// What CPUs can have as credit: two batches each.
const AHEAD: u64 = 2 * CPUS as u64 * 128;

std::thread_local! {
    static POOL: Cell<Option<&'static FramePool<Threads>>> = const { Cell::new(None) };
    static TOLD: RefCell<Vec<Crossing>> = const { RefCell::new(Vec::new()) };
    static KEPT: RefCell<Vec<Frame>> = const { RefCell::new(Vec::new()) };
}

fn note(crossing: Crossing) {
    TOLD.with_borrow_mut(|told| told.push(crossing));
}

fn told() -> Vec<Crossing> {
    TOLD.take()
}

fn pool(setup: Setup) -> &'static FramePool<Threads> {
    let pool = pool_by(Threads, (CPUS, setup), &[(0, FRAMES)]);
    POOL.set(Some(pool));
    told();
    pool
}

/// Allocates until so many frames are held.
fn hold(pool: &FramePool<Threads>, held: &mut Vec<Frame>, count: u64) {
    while (held.len() as u64) < count {
        held.push(pool.alloc().expect("a frame"));
    }
}

fn release(pool: &FramePool<Threads>, held: &mut Vec<Frame>, kept: u64) {
    held.drain(kept as usize..).for_each(|frame| pool.free(frame).expect("a free"));
}

#[test]
fn each_crossing_is_told_once_and_by_turns() {
    let pool = pool(Setup::new(CPUS).watermarks(1000, 3000, note));
    let mut held = Vec::new();
    for round in 0..3 {
        assert_eq!(pool.level(), Level::High);
        hold(pool, &mut held, FRAMES - 1000 - AHEAD - 64);
        assert_eq!(told(), [], "early by more than what is granted ahead");
        hold(pool, &mut held, FRAMES - 999);
        assert_eq!(told(), [Crossing { number: 2 * round + 1, level: Level::Low }]);
        assert_eq!(pool.level(), Level::Low);
        // Between the marks, up and down: nothing.
        for _ in 0..3 {
            release(pool, &mut held, FRAMES - 2999);
            hold(pool, &mut held, FRAMES - 100);
        }
        assert_eq!(told(), []);
        release(pool, &mut held, FRAMES - 2999);
        assert_eq!(told(), [], "high is told when it is true");
        release(pool, &mut held, FRAMES - 3000 - AHEAD - 64);
        assert_eq!(told(), [Crossing { number: 2 * round + 2, level: Level::High }]);
    }
    release(pool, &mut held, 0);
    pool.drain().expect("a drain");
    pool.verify().expect("a sound pool");
}

#[test]
fn all_kinds_of_requests_cross_them() {
    let pool = pool(Setup::new(CPUS).watermarks(1000, 3000, note));
    let run = pool.alloc_run(&frametree::Request::new(FRAMES - 900)).expect("a run");
    assert_eq!(told(), [Crossing { number: 1, level: Level::Low }]);
    pool.free_run(run).expect("a free");
    assert_eq!(told(), [Crossing { number: 2, level: Level::High }]);
    let blocks: Vec<_> = std::iter::from_fn(|| pool.alloc_block().ok()).collect();
    assert_eq!(told(), [Crossing { number: 3, level: Level::Low }]);
    blocks.into_iter().for_each(|block| pool.free_block(block).expect("a free"));
    pool.drain().expect("a drain");
    assert_eq!(told(), [Crossing { number: 4, level: Level::High }]);
}

#[test]
fn what_can_not_be_had_crosses_none() {
    for reserve in [0, 10] {
        let setup = Setup::new(1).reserve(reserve).watermarks(1000, 2000, note);
        let pool = pool_by(Threads, (1, setup), &[(0, 200_000), (300_000, 200_000)]);
        told();
        let one = pool.alloc().expect("a frame");
        pool.alloc_run(&frametree::Request::new(399_900)).expect_err("they are not in a row");
        pool.alloc_giant().expect_err("there is none");
        assert_eq!(told(), [], "400,000 frames are free");
        let blocks: Vec<_> = std::iter::from_fn(|| pool.alloc_block().ok()).collect();
        assert!(told().iter().all(|crossing| crossing.number == 1), "once, when it was true");
        for block in blocks {
            pool.free_block(block).expect("a free");
        }
        pool.free(one).expect("a free");
        pool.drain().expect("a drain");
        pool.verify().expect("a sound pool");
    }
}

#[test]
fn who_is_told_may_use_the_pool() {
    /// Gives back what was kept for this when memory is low.
    fn relieve(crossing: Crossing) {
        note(crossing);
        let pool = POOL.get().expect("a pool");
        if crossing.level == Level::Low {
            KEPT.take().into_iter().for_each(|frame| pool.free(frame).expect("a free"));
            pool.drain().expect("a drain");
        }
    }
    let pool = pool(Setup::new(CPUS).watermarks(1000, 3000, relieve));
    let mut kept = Vec::new();
    hold(pool, &mut kept, 5000);
    KEPT.set(kept);
    let mut held = Vec::new();
    hold(pool, &mut held, FRAMES - 5000 - 500);
    let levels: Vec<_> = told().iter().map(|crossing| (crossing.number, crossing.level)).collect();
    // The second one is told from inside the first.
    assert_eq!(levels, [(1, Level::Low), (2, Level::High)]);
    release(pool, &mut held, 0);
    pool.drain().expect("a drain");
    pool.verify().expect("a sound pool");
}

#[test]
fn they_count_the_reserve_and_memory_that_comes() {
    let pool = pool(Setup::new(CPUS).reserve(500).watermarks(1000, 3000, note));
    let mut held = Vec::new();
    hold(pool, &mut held, FRAMES - 1000 + 1);
    assert_eq!(told(), [Crossing { number: 1, level: Level::Low }]);
    let range = frametree::NumberRange::from_numbers(FRAMES, FRAMES + 4000);
    let bytes = pool.bytes_to_grow(range);
    // SAFETY: the memory is not real, nobody uses it.
    unsafe { pool.grow_in(range, vec![7; bytes / 8 + 16].leak()) }.expect("more memory");
    // Told by the next who asks.
    hold(pool, &mut held, FRAMES + 100);
    assert_eq!(pool.level(), Level::High);
    assert_eq!(told(), [Crossing { number: 2, level: Level::High }]);
}

#[test]
fn however_many_cross_them_at_once() {
    static LAST: AtomicU64 = AtomicU64::new(0);
    static NUMBERS: Mutex<Vec<u64>> = Mutex::new(Vec::new());
    fn number(crossing: Crossing) {
        let is_low = crossing.level == Level::Low;
        assert_eq!(is_low, !crossing.number.is_multiple_of(2), "by turns");
        LAST.fetch_max(crossing.number, Ordering::SeqCst);
        NUMBERS.lock().expect("no panic").push(crossing.number);
    }
    const THREADS: usize = 3;
    let setup = Setup::new(THREADS).watermarks(GIANT / 2, GIANT / 2 + 2000, number);
    let pool = pool_by(Threads, (THREADS, setup), &[(0, GIANT)]);
    let crew = Crew::new(THREADS);
    crew.run(|cpu| {
        let mut dice = Dice::new(cpu as u64 + 70);
        let mut mine: Vec<Frame> = Vec::new();
        // 800, or more if the machine has let them run one after the other.
        for round in 0..20_000 {
            if round >= 800 && LAST.load(Ordering::SeqCst) >= 4 {
                break;
            }
            let wanted = GIANT / 6 + dice.below(8000) - 4000;
            while (mine.len() as u64) < wanted {
                mine.push(pool.alloc().expect("a frame"));
            }
            mine.drain(wanted as usize..).for_each(|frame| pool.free(frame).expect("a free"));
        }
        mine.into_iter().for_each(|frame| pool.free(frame).expect("a free"));
        pool.drain().expect("a drain");
    });
    let mut numbers = NUMBERS.lock().expect("no panic").clone();
    numbers.sort_unstable();
    let last = LAST.load(Ordering::SeqCst);
    assert!(numbers.iter().copied().eq(1..=last), "each once: {numbers:?}");
    assert!(last >= 4, "only {last} crossings");
    assert_eq!(pool.level(), Level::High);
    assert_eq!(last % 2, 0, "high at the end");
    pool.verify().expect("a sound pool");
}
