//! The machine: its CPUs, its clocks, and what one thing costs on it.

use std::hint::{black_box, spin_loop};
use std::ops::AddAssign;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use core_affinity::CoreId;
use cpu_time::ThreadTime;

use crate::stats::median;

/// The CPUs that the process may use, asked before any thread was pinned: later it is one.
pub fn cores() -> &'static [CoreId] {
    static CORES: OnceLock<Vec<CoreId>> = OnceLock::new();
    CORES.get_or_init(|| core_affinity::get_core_ids().unwrap_or_default())
}

/// Keeps this thread on one CPU.
pub fn pin(core: usize) {
    if let Some(&id) = cores().get(core) {
        core_affinity::set_for_current(id);
    }
}

/// So many operations, and how long they took this thread.
#[derive(Clone, Copy, Default)]
pub struct Sample {
    pub ops: u64,
    /// Nanoseconds on the CPU.
    pub cpu: f64,
    /// Nanoseconds on the wall.
    pub wall: f64,
    /// The thread was kept off its CPU, or did not run beside the others.
    pub is_disturbed: bool,
}

impl AddAssign for Sample {
    fn add_assign(&mut self, other: Self) {
        self.ops += other.ops;
        self.cpu += other.cpu;
        self.wall += other.wall;
        self.is_disturbed |= other.is_disturbed;
    }
}

/// A thread that was off its CPU for longer than this, and for more than 3 %, was disturbed.
const DISTURBED: f64 = 20_000.0;

/// Times `work`, which says how many operations it did.
pub fn timed(work: impl FnOnce() -> u64) -> Sample {
    let wall = Instant::now();
    let cpu = ThreadTime::now();
    let ops = work();
    let cpu = cpu.elapsed().as_nanos() as f64;
    let wall = wall.elapsed().as_nanos() as f64;
    let away = wall - cpu;
    let cost = clock_cost();
    Sample {
        ops,
        cpu: (cpu - cost).max(0.0),
        wall: (wall - cost).max(0.0),
        is_disturbed: away > DISTURBED && away > 0.03 * wall,
    }
}

/// What reading the clock of the thread adds to a sample.
fn clock_cost() -> f64 {
    static COST: OnceLock<f64> = OnceLock::new();
    *COST.get_or_init(|| {
        let once = || {
            let start = ThreadTime::now();
            start.elapsed().as_nanos() as f64
        };
        median(&mut (0..1001).map(|_| once()).collect::<Vec<_>>())
    })
}

/// So many locked read-modify-writes of a word.
pub fn read_modify_writes(word: &AtomicU64, count: u64) -> Sample {
    timed(|| {
        for _ in 0..count {
            black_box(word).fetch_or(1, Ordering::AcqRel);
        }
        count
    })
}

/// Nanoseconds that a cache line takes from one of the two CPUs to the other, the median.
pub fn distance() -> f64 {
    median(&mut (0..21).map(|_| distance_once()).collect::<Vec<_>>())
}

fn distance_once() -> f64 {
    const TURNS: u64 = 300;
    let ball = AtomicU64::new(0);
    let play = |side: u64| {
        pin(side as usize);
        let mut start = Instant::now();
        for turn in (side..2 * TURNS).step_by(2) {
            while ball.load(Ordering::Acquire) != turn {
                spin_loop();
            }
            if turn == 2 {
                // Both are at it.
                start = Instant::now();
            }
            ball.store(turn + 1, Ordering::Release);
        }
        start.elapsed().as_nanos() as f64 / (2 * TURNS - 4) as f64
    };
    std::thread::scope(|scope| {
        let first = scope.spawn(|| play(0));
        scope.spawn(|| play(1));
        first.join().expect("a player")
    })
}

/// Bytes that are allocated on the heap.
pub fn heap_bytes() -> u64 {
    // SAFETY: it only reads the heap's own counts.
    let heap = unsafe { libc::mallinfo2() };
    (heap.uordblks + heap.hblkhd) as u64
}
