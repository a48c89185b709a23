//! stamp: nobody else writes into a frame that a CPU holds.
//!
//! In turn, each CPU sweeps up all free memory: it stamps every byte of every frame and keeps
//! them, until it holds all frames at once. Meanwhile the others take, stamp, check and give back
//! small sets that change all the time; for the last frames they step aside. Then the sweeper
//! checks every byte again and gives everything back, with the others in motion. That the number
//! of frames in one hand is the number of frames there are shows that all of them went through
//! it: two that were the same would damage each other's stamp.

use core::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use core::time::Duration;
use frametree::CpuId;

use super::ledger::{Entry, Ledger};
use super::pattern::{self, WORDS};
use super::worker::Worker;
use crate::clock::Stopwatch;
use crate::fault::{self, Fault};
use crate::memory;
use crate::waiting::{nap, wait_for};
use crate::{picture, print, println, smp, text};

/// Up to this, each CPU sweeps all memory: 1 GiB.
const ALL_UP_TO: u64 = 1 << 18;
/// Of more, this much: 256 MiB.
const PART: u64 = 1 << 16;
/// The sweeper changes its own small set once in so many frames.
const CHURN_EVERY: u64 = 16;
/// The others change theirs so often, and then sleep for so many microseconds.
const BURST: usize = 8;
const BURST_PAUSE: u32 = 500;
/// How long a CPU may take to step aside, and to wait for its turn.
const LIMIT: Duration = Duration::from_secs(60);

/// What the CPUs that do not sweep have to do.
#[repr(u8)]
enum Phase {
    Churn,
    StepAside,
    End,
}

struct Round {
    phase: AtomicU8,
    aside: AtomicUsize,
}

impl Round {
    fn new() -> Self {
        Self { phase: AtomicU8::new(Phase::Churn as u8), aside: AtomicUsize::new(0) }
    }

    fn enter(&self, phase: Phase) {
        // ORDERING: Relaxed, here and below: the phase is a wish and hands nothing over.
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    fn is_in(&self, phase: Phase) -> bool {
        self.phase.load(Ordering::Relaxed) == phase as u8
    }
}

/// Runs the exercise.
pub fn run() {
    let cpus = smp::online();
    let available = super::available();
    let goal = if available <= ALL_UP_TO { available } else { PART };
    println!("stamp: each CPU in turn takes, stamps and holds {goal} frames");
    let watch = Stopwatch::start();
    let stamped = AtomicU64::new(0);
    for sweeper in (0..cpus).map(CpuId::new) {
        let round = Round::new();
        smp::run(|cpu| {
            let mut worker = Worker::new(cpu);
            if cpu == sweeper {
                sweep_and_release(&mut worker, &round, goal);
            } else {
                accompany(&mut worker, &round);
            }
            worker.empty_hand(WORDS);
            memory::drain();
            // ORDERING: Relaxed; a statistic.
            stamped.fetch_add(worker.stamps(), Ordering::Relaxed);
        });
    }
    print!("  through the hands of each of {cpus} CPUs: {goal} of {available} frames");
    match goal == available {
        true => println!(", all"),
        false => println!("\n  (of more than 1 GiB, a part stands for all)"),
    }
    let stamped = stamped.into_inner();
    println!(
        "  {stamped} stamps written and checked, {} each way, no byte damaged: {:.1} s",
        text::frames(stamped),
        watch.elapsed().as_secs_f32(),
    );
}

fn sweep_and_release(worker: &mut Worker, round: &Round, goal: u64) {
    let mut ledger = Ledger::new();
    sweep(worker, round, goal, &mut ledger);
    let held = ledger.frames();
    assert!(held == goal, "CPU {} held {held} of {goal} frames", worker.cpu().get());
    picture::draw_for(worker.cpu(), "full");
    if fault::is_requested(Fault::Stamp) {
        damage_one(&mut ledger);
    }
    round.enter(Phase::Churn);
    while let Some(entry) = ledger.take() {
        worker.release(entry, WORDS);
        if ledger.frames().is_multiple_of(CHURN_EVERY) {
            worker.churn(WORDS);
        }
    }
    round.enter(Phase::End);
}

/// Changes one byte of a listed frame behind its holder's back.
fn damage_one(ledger: &mut Ledger) {
    if let Some(Entry::Listed(mut held)) = ledger.take() {
        pattern::corrupt(&mut held.first);
        ledger.add(held);
    }
}

/// Takes frames until the ledger has `goal` of them, or there are none: the reserve at the end.
fn sweep(worker: &mut Worker, round: &Round, goal: u64, ledger: &mut Ledger) {
    while ledger.frames() < goal {
        match worker.take() {
            Some(frame) => worker.keep(frame, WORDS, ledger),
            None if round.is_in(Phase::StepAside) => match worker.take_urgent() {
                Some(frame) => worker.keep(frame, WORDS, ledger),
                None => return,
            },
            None => {
                worker.empty_hand(WORDS);
                clear_the_way(round);
            }
        }
        if ledger.frames() == goal / 2 {
            picture::draw_for(worker.cpu(), "half");
        }
        if ledger.frames().is_multiple_of(CHURN_EVERY) && round.is_in(Phase::Churn) {
            worker.churn(WORDS);
        }
    }
    worker.empty_hand(WORDS);
}

/// Has all others give back what they have, and waits for it.
fn clear_the_way(round: &Round) {
    round.enter(Phase::StepAside);
    // ORDERING: Acquire pairs with the Release in `accompany`: what they gave back is visible.
    let all_aside = || round.aside.load(Ordering::Acquire) == smp::online() - 1;
    if wait_for(LIMIT, all_aside).is_err() {
        panic!("a CPU did not give its frames back within {LIMIT:?}");
    }
}

/// What the other CPUs do while one sweeps.
fn accompany(worker: &mut Worker, round: &Round) {
    while !round.is_in(Phase::End) {
        if round.is_in(Phase::StepAside) {
            worker.empty_hand(WORDS);
            memory::drain();
            // ORDERING: Release: what was given back is visible to the sweeper.
            round.aside.fetch_add(1, Ordering::Release);
            let over = wait_for(LIMIT, || !round.is_in(Phase::StepAside));
            over.unwrap_or_else(|_| panic!("a sweep did not end within {LIMIT:?}"));
        }
        (0..BURST).for_each(|_| _ = worker.churn(WORDS));
        nap(BURST_PAUSE);
    }
}
