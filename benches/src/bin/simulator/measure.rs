//! This machine, measured: the same workloads on one thread and on two, and what the model is told.

use std::hint::{black_box, spin_loop};
use std::path::Path;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::contestants::{Bitmap, Contestant, Stack};
use crate::support::Threads;
use crate::workloads::{ALL, Hand, SHARE, Workload};

const ROUNDS: usize = 15;
/// Nanoseconds of a round.
const ROUND: u128 = 4_000_000;

pub fn run(file: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let mut rows = Vec::new();
    for workload in ALL {
        for threads in [1, 2] {
            rows.push(row::<frametree::FramePool<Threads>>(workload, threads));
            rows.push(row::<Stack>(workload, threads));
            rows.push(row::<Bitmap>(workload, threads));
        }
    }
    let measured = serde_json::json!({
        "read_modify_write": read_modify_write(),
        "distance": distance(),
        "rows": rows,
    });
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(file, measured.to_string())?;
    println!("measured this machine: {}", file.display());
    Ok(())
}

fn row<C: Contestant>(workload: Workload, threads: usize) -> serde_json::Value {
    serde_json::json!({
        "contestant": C::NAME,
        "workload": workload.name(),
        "threads": threads,
        "nanoseconds": pair::<C>(workload, threads),
    })
}

/// Nanoseconds of a pair, the median of the rounds, the slowest thread's mean of each.
fn pair<C: Contestant>(workload: Workload, threads: usize) -> f64 {
    let contestant = C::new(threads as u64 * SHARE, threads);
    let barrier = Barrier::new(threads);
    let work = |cpu: usize| {
        pin(cpu);
        Threads::become_cpu(cpu);
        let mut hand = Hand::new(workload, contestant, 7 + cpu as u64);
        let round = || {
            barrier.wait();
            let (start, mut pairs) = (Instant::now(), 0);
            loop {
                for _ in 0..64 {
                    pairs += black_box(&mut hand).step(contestant);
                }
                let time = start.elapsed().as_nanos();
                if time > ROUND {
                    return time as f64 / pairs as f64;
                }
            }
        };
        std::iter::repeat_with(round).take(ROUNDS).collect::<Vec<_>>()
    };
    let times: Vec<Vec<f64>> = std::thread::scope(|scope| {
        let crew: Vec<_> = (0..threads).map(|cpu| scope.spawn(move || work(cpu))).collect();
        crew.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    let slowest = |round: usize| times.iter().map(|times| times[round]).fold(0.0, f64::max);
    median((0..ROUNDS).map(slowest).collect())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn pin(cpu: usize) {
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    if let Some(&core) = cores.get(cpu) {
        core_affinity::set_for_current(core);
    }
}

fn read_modify_write() -> f64 {
    const TIMES: u64 = 1 << 20;
    let word = AtomicU64::new(0);
    let once = || {
        let start = Instant::now();
        for _ in 0..TIMES {
            black_box(&word).fetch_or(1, Ordering::AcqRel);
        }
        start.elapsed().as_nanos() as f64 / TIMES as f64
    };
    median((0..ROUNDS).map(|_| once()).collect())
}

/// Nanoseconds that a line takes from the one CPU to the other.
fn distance() -> f64 {
    const TURNS: u64 = 2000;
    let ball = AtomicU64::new(0);
    let play = |side: u64| {
        pin(side as usize);
        let start = Instant::now();
        for turn in (side..2 * TURNS).step_by(2) {
            while ball.load(Ordering::Acquire) != turn {
                spin_loop();
            }
            ball.store(turn + 1, Ordering::Release);
        }
        start.elapsed().as_nanos() as f64 / (2 * TURNS) as f64
    };
    median(
        (0..ROUNDS)
            .map(|_| {
                ball.store(0, Ordering::Release);
                std::thread::scope(|scope| {
                    let first = scope.spawn(|| play(0));
                    scope.spawn(|| play(1));
                    first.join().expect("no panic")
                })
            })
            .collect(),
    )
}
