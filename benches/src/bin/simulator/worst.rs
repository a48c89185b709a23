//! The worst that one operation can do on one CPU: accesses to shared words, counted one by one.
//!
//! A time says what an operation cost today, on this machine; a count says what it can cost. Each
//! operation runs many times at random places, in a memory that is free, full, or shredded (every
//! second frame is in use), and its read-modify-writes and all accesses are counted.

use std::cell::Cell;
use std::panic::Location;

use frametree::observed::{Access, watch};
use frametree::{Frame, FrameNumber, FramePool, Request};

use crate::support::{Dice, GIANT, Threads, pool};

const MEMORY: u64 = 8 * GIANT;
/// How often each operation runs in each memory.
const ROUNDS: usize = 40_000;
const RUN: u64 = 17;

type Pool = FramePool<Threads>;

std::thread_local! {
    /// Read-modify-writes and all accesses since the last look.
    static SEEN: Cell<(u64, u64)> = const { Cell::new((0, 0)) };
}

fn on_access(_: usize, access: Access, _: &'static Location<'static>) {
    let (changes, all) = SEEN.get();
    SEEN.set((changes + u64::from(access == Access::ReadModifyWrite), all + 1));
}

/// What one kind of operation did, each time.
#[derive(Default)]
struct Counts {
    changes: Vec<u64>,
    all: Vec<u64>,
}

impl Counts {
    fn count<R>(&mut self, work: impl FnOnce() -> R) -> R {
        SEEN.set((0, 0));
        let result = work();
        let (changes, all) = SEEN.get();
        self.changes.push(changes);
        self.all.push(all);
        result
    }

    fn print(mut self, name: &str) {
        if self.all.is_empty() {
            return;
        }
        print!("  {name:<18}");
        for list in [&mut self.changes, &mut self.all] {
            list.sort_unstable();
            let at = |permyriad: usize| list[(list.len() - 1) * permyriad / 10_000];
            print!("{:>8}{:>8}{:>8}", at(5_000), at(9_999), at(10_000));
        }
        println!();
    }
}

/// A memory, and the frames of it that are in use.
struct State {
    pool: &'static Pool,
    held: Vec<u64>,
    dice: Dice,
}

impl State {
    /// So that of each `every` frames the last ones are in use; 1 is all of them, 0 none.
    fn new(every: u64) -> Self {
        let pool = pool(Threads, 1, &[(0, MEMORY)]);
        let mut held = Vec::new();
        if every != 0 {
            while let Ok(frame) = pool.alloc() {
                held.push(frame.into_number().get());
            }
            let (go, stay) = held.iter().partition(|frame| **frame % every != every - 1);
            held = stay;
            let go: Vec<u64> = go;
            go.into_iter().for_each(|frame| give(pool, frame));
        }
        pool.drain().expect("a drain");
        Self { pool, held, dice: Dice::new(1) }
    }

    /// Takes a frame out of those in use, at random.
    fn any_held(&mut self) -> Option<u64> {
        let place = self.dice.below(self.held.len().max(1) as u64) as usize;
        (place < self.held.len()).then(|| self.held.swap_remove(place))
    }

    fn singles(&mut self) {
        let [mut allocs, mut frees] = [Counts::default(), Counts::default()];
        for _ in 0..ROUNDS {
            // A few at once, so that caches run dry and over.
            for _ in 0..self.dice.below(4) {
                if let Ok(frame) = allocs.count(|| self.pool.alloc()) {
                    self.held.push(frame.into_number().get());
                }
            }
            for _ in 0..self.dice.below(4) {
                if let Some(frame) = self.any_held() {
                    frees.count(|| give(self.pool, frame));
                }
            }
        }
        allocs.print("a frame");
        frees.print("its free");
    }

    fn blocks(&mut self) {
        let [mut allocs, mut frees] = [Counts::default(), Counts::default()];
        for _ in 0..ROUNDS {
            if let Ok(block) = allocs.count(|| self.pool.alloc_block()) {
                frees.count(|| self.pool.free_block(block).expect("a free"));
            }
        }
        allocs.print("2 MiB");
        frees.print("its free");
    }

    fn runs(&mut self) {
        let [mut allocs, mut frees] = [Counts::default(), Counts::default()];
        // Each takes a walk over all of a shredded memory.
        for _ in 0..ROUNDS / 100 {
            if let Ok(run) = allocs.count(|| self.pool.alloc_run(&Request::new(RUN))) {
                frees.count(|| self.pool.free_run(run).expect("a free"));
            }
        }
        allocs.print(&format!("a run of {RUN}"));
        frees.print("its free");
    }
}

fn give(pool: &Pool, number: u64) {
    // SAFETY: there is no memory behind it; whoever has the number has the frame.
    let frame = unsafe { Frame::from_number(FrameNumber::new(number)) };
    pool.free(frame).expect("a frame in use");
}

pub fn run() {
    println!("The worst of one operation, on one CPU with {} GiB: accesses", MEMORY / GIANT);
    println!("\n  {:<18}{:>24}{:>24}", "", "read-modify-writes", "of all kinds");
    let columns = "  median  99.99 %    most";
    println!("  {:<18}{columns:>24}{columns:>24}", "");
    for (name, every) in [("all free", 0), ("all in use", 1), ("every second frame in use", 2)] {
        println!("{name}");
        let mut state = State::new(every);
        watch(Some(on_access));
        state.singles();
        state.blocks();
        state.runs();
        watch(None);
    }
}
