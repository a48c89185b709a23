//! breathe: a load that goes on for as long as somebody watches.
//!
//! Every CPU takes pieces of many lengths until memory is as full as asked for, and frees others
//! from anywhere among its own: the level rises and falls by a quarter every ten seconds. It is what
//! a busy kernel does to its memory in hours. What is held stays held from one portion of time
//! to the next, until [`release`].

use alloc::vec::Vec;
use core::time::Duration;
use frametree::{CpuId, FrameRange, Request};
use spin::Mutex;

use super::worker::Worker;
use crate::clock::Stopwatch;
use crate::cpu::MAX_CPUS;
use crate::memory::POOL;
use crate::waiting::nap;
use crate::{smp, steering};

/// How long a breath takes, and how far the level goes up and down, in percent of itself.
const BREATH: Duration = Duration::from_secs(10);
const DEPTH: u64 = 25;
/// Pieces moved between two naps of so many microseconds.
const BURST: usize = 16;
const NAP: u32 = 1500;
/// One piece in so many is moved although the level is right.
const CHURN: usize = 4;

static HELD: [Mutex<Vec<FrameRange>>; MAX_CPUS] = [const { Mutex::new(Vec::new()) }; MAX_CPUS];

/// Breathes for so long, from `phase` on in a breath.
pub fn run(time: Duration, phase: Duration) {
    smp::run(|cpu| {
        let (watch, mut worker) = (Stopwatch::start(), Worker::new(cpu));
        let mut held = HELD[cpu.get()].lock();
        let mut frames = held.iter().map(FrameRange::len).sum();
        while watch.elapsed() < time && !steering::is_ended() && !steering::is_anything_wanted() {
            let goal = goal(phase + watch.elapsed());
            (0..BURST).for_each(|_| step(&mut worker, &mut held, &mut frames, goal));
            nap(NAP);
        }
    });
}

/// Gives everything back.
pub fn release() {
    smp::run(|cpu: CpuId| {
        let mut worker = Worker::new(cpu);
        let held = core::mem::take(&mut *HELD[cpu.get()].lock());
        held.into_iter().for_each(|run| worker.give_back_run(run));
    });
}

/// How many frames each CPU shall hold at this moment.
fn goal(at: Duration) -> u64 {
    let share = super::available() / smp::online() as u64;
    let half = BREATH.as_millis() as u64 / 2;
    let at = at.as_millis() as u64 % (2 * half);
    // Up in one half, down in the other: -1000 to 1000 thousandths.
    let swing = (if at < half { at } else { 2 * half - at } * 2000 / half) as i64 - 1000;
    let level = steering::load() as i64 * (1000 + swing * DEPTH as i64 / 100) / 1000;
    share * level.clamp(0, 97) as u64 / 100
}

fn step(worker: &mut Worker, held: &mut Vec<FrameRange>, frames: &mut u64, goal: u64) {
    let churns = worker.random(CHURN) == 0;
    let takes = (*frames < goal) != churns;
    if takes {
        let length = length(worker);
        if let Ok(run) = worker.take_run(&Request::new(length)) {
            *frames += length;
            held.push(run);
        }
    } else if !held.is_empty() {
        let run = held.swap_remove(worker.random(held.len()));
        *frames -= run.len();
        worker.give_back_run(run);
    }
}

/// Mostly little, at times much; more on a machine with much.
fn length(worker: &mut Worker) -> u64 {
    let scale = (POOL.stats().managed_frames >> 18).clamp(1, 512);
    scale
        * match worker.random(16) {
            0..9 => 1 + worker.random(4) as u64,
            9..14 => 1 + worker.random(64) as u64,
            14 => 1 + worker.random(400) as u64,
            _ => 512,
        }
}
