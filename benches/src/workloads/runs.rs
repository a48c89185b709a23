//! Runs of frames in fragmented memory: a quarter is used, in runs of mean 8, the same everywhere.
//!
//! A hundred runs are held, and one after the other is replaced. A peer that finds nothing has an
//! empty place, and tries again when it is that place's turn; how often it found nothing is said
//! beside its time.

use super::{Work, give_back, take_all};
use crate::allocator::{Allocator, Refusal, Run, Shape};
use crate::harness::{Extra, Patience};
use crate::support::Dice;

const HELD: usize = 100;

/// So many frames at a time.
#[derive(Clone, Copy)]
pub struct Fragmented(pub u64);

/// What a thread keeps.
pub struct Mine {
    held: Vec<Option<u64>>,
    dice: Dice,
    asked: u64,
    missed: u64,
}

/// A number with this mean, at least 1: most are small, some are large.
fn geometric(dice: &mut Dice, mean: u64) -> u64 {
    let mut number = 1;
    while dice.below(mean) != 0 {
        number += 1;
    }
    number
}

/// Leaves a quarter of all frames used, in runs of mean 8, by what every allocator can do: all
/// frames are taken one by one, and most freed.
pub fn fragment<A: Allocator>(
    allocator: &A,
    frames: u64,
    patience: Patience,
) -> Result<(), Refusal> {
    let mut held = take_all(allocator, frames, patience)?;
    held.sort_unstable();
    let mut dice = Dice::new(7);
    let (mut at, mut freed) = (0, Vec::new());
    while at < held.len() {
        let used = geometric(&mut dice, 8) as usize;
        let free = geometric(&mut dice, 24) as usize;
        let start = (at + used).min(held.len());
        at = (start + free).min(held.len());
        freed.extend_from_slice(&held[start..at]);
    }
    give_back(allocator, freed, patience)?;
    allocator.drain();
    Ok(())
}

impl Work for Fragmented {
    type Mine = Mine;

    fn is_possible<A: Allocator>(self) -> bool {
        Run(self.0).is_possible::<A>()
    }

    fn prepare<A: Allocator>(
        self,
        allocator: &A,
        frames: u64,
        threads: usize,
        patience: Patience,
    ) -> Result<Vec<Mine>, Refusal> {
        fragment(allocator, frames, patience)?;
        let mine = |_| Mine { held: vec![None; HELD], dice: Dice::new(3), asked: 0, missed: 0 };
        Ok((0..threads).map(mine).collect())
    }

    fn run<A: Allocator>(self, allocator: &A, mine: &mut Mine, ops: u64) -> u64 {
        for _ in 0..ops {
            let place = &mut mine.held[mine.dice.below(HELD as u64) as usize];
            if let Some(first) = place.take() {
                Run(self.0).give(allocator, first);
            }
            *place = Run(self.0).take(allocator);
            mine.asked += 1;
            mine.missed += u64::from(place.is_none());
        }
        ops
    }

    fn extras(self, mine: &[Mine]) -> Vec<Extra> {
        let sum = |field: fn(&Mine) -> u64| mine.iter().map(field).sum::<u64>() as f64;
        let missed = 100.0 * sum(|mine| mine.missed) / sum(|mine| mine.asked).max(1.0);
        vec![Extra::plain("not found", missed, "%")]
    }
}

/// Frames that a run of `count` costs for each that was asked for: some runs are taken from 256 MiB
/// that are free, then all single frames that are left; what is missing went into the runs.
pub fn footprint<A: Allocator>(count: u64, patience: Patience) -> Result<f64, Refusal> {
    const FRAMES: u64 = 1 << 16;
    const RUNS: u64 = 8;
    let empty = A::new(FRAMES)?;
    let all = take_all(&empty, FRAMES, patience)?.len() as u64;
    let allocator = A::new(FRAMES)?;
    for _ in 0..RUNS {
        allocator.alloc_run(count, 1).ok_or(Refusal::FoundNothing)?;
    }
    let left = take_all(&allocator, FRAMES, patience)?.len() as u64;
    Ok((all - left) as f64 / (RUNS * count) as f64)
}
