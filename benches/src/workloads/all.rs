//! Workloads with a beginning and an end: allocate all, free all, every second frame.
//!
//! A pass over all memory is cut into segments; all contestants are in the same segment at the same
//! time, so that they are compared at the same fill. Of a segment at most 2 ms are timed, the rest
//! is done untimed. Where a whole pass is short, a block is several passes.

use std::time::{Duration, Instant};

use super::give_back;
use crate::allocator::{Allocator, Refusal, Shape};
use crate::harness::{BLOCK, Contestant, Entry, Extra, Patience};
use crate::machine::{Sample, timed};
use crate::support::{Dice, Threads};

/// Operations between two looks at the clock.
const CHUNK: usize = 8192;
/// Passes are cut into segments of this many operations, at least; and into at most 8.
const SEGMENT: usize = 1 << 17;

/// What is done to all of memory.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    Allocate,
    /// By address.
    FreeInOrder,
    FreeReversed,
    FreeAtRandom,
    /// Of memory in which every second frame is free.
    AllocateEverySecond,
}

/// How a pass is set up for each allocator.
pub struct PassOf<S> {
    pub pass: Pass,
    pub shape: S,
    pub frames: u64,
    pub patience: Duration,
}

struct Passing<A, S> {
    pass: Pass,
    shape: S,
    /// What is held; while frames are freed, those from `at` on.
    held: Vec<u32>,
    /// For every second frame: those that stay.
    kept: usize,
    /// What a pass handles.
    total: usize,
    at: usize,
    missing: usize,
    dice: Dice,
    allocator: A,
}

impl<S: Shape> PassOf<S> {
    pub fn visit<A: Allocator>(&self) -> Entry {
        Entry { name: A::NAME, contestant: self.prepare::<A>() }
    }

    fn prepare<A: Allocator>(&self) -> Result<Box<dyn Contestant>, Refusal> {
        if !self.shape.is_possible::<A>() {
            return Err(Refusal::NoSuchRequest);
        }
        Threads::become_cpu(0);
        let patience = Patience::new(self.patience);
        let allocator = A::new(self.frames)?;
        let (pass, shape) = (self.pass, self.shape);
        let (held, dice) = (Vec::new(), Dice::new(11));
        let (kept, total, at, missing) = (0, 0, 0, 0);
        let mut passing = Passing { pass, shape, held, kept, total, at, missing, dice, allocator };
        passing.fill(self.frames / self.shape.frames(), patience)?;
        if passing.held.is_empty() {
            return Err(Refusal::FoundNothing);
        }
        passing.total = passing.held.len();
        match pass {
            Pass::Allocate => passing.begin(patience)?,
            Pass::AllocateEverySecond => passing.make_holes(patience)?,
            _ => passing.arrange(),
        }
        Ok(Box::new(passing))
    }
}

impl<A: Allocator, S: Shape> Passing<A, S> {
    fn fill(&mut self, most: u64, patience: Patience) -> Result<(), Refusal> {
        while (self.held.len() as u64) < most {
            if self.held.len().is_multiple_of(256) {
                patience.check()?;
            }
            match self.shape.take(&self.allocator) {
                Some(first) => self.held.push(first as u32),
                None => break,
            }
        }
        Ok(())
    }

    /// Keeps every second frame by address, at the front of the list, and frees the others.
    fn make_holes(&mut self, patience: Patience) -> Result<(), Refusal> {
        self.held.sort_unstable();
        let (kept, freed) = self.held.iter().partition::<Vec<_>, _>(|first| **first % 2 == 0);
        give_back(&self.allocator, freed.iter().copied(), patience)?;
        self.allocator.drain();
        (self.kept, self.total, self.at) = (kept.len(), freed.len(), 0);
        self.held = kept;
        Ok(())
    }

    /// Brings memory from the end of a pass into the state that one begins with.
    fn begin(&mut self, patience: Patience) -> Result<(), Refusal> {
        match self.pass {
            Pass::Allocate | Pass::AllocateEverySecond => {
                // The last one first, which leaves a stack as it was.
                let taken = self.held.split_off(self.kept);
                for (done, first) in taken.into_iter().rev().enumerate() {
                    if done.is_multiple_of(256) {
                        patience.check()?;
                    }
                    self.shape.give(&self.allocator, first.into());
                }
                self.allocator.drain();
            }
            _ => {
                self.held.clear();
                self.fill(self.total as u64, patience)?;
                self.arrange();
            }
        }
        self.at = 0;
        Ok(())
    }

    /// Puts what will be freed into its order.
    fn arrange(&mut self) {
        self.held.sort_unstable();
        match self.pass {
            Pass::FreeReversed => self.held.reverse(),
            Pass::FreeAtRandom => self.dice.shuffle(&mut self.held),
            _ => {}
        }
    }

    /// Up to `count` operations from where the pass stands.
    fn go(&mut self, count: usize) -> u64 {
        let end = (self.at + count).min(self.total);
        let done = end - self.at;
        match self.pass {
            Pass::Allocate | Pass::AllocateEverySecond => {
                for _ in 0..done {
                    match self.shape.take(&self.allocator) {
                        Some(first) => self.held.push(first as u32),
                        None => self.missing += 1,
                    }
                }
            }
            _ => {
                for &first in &self.held[self.at..end] {
                    self.shape.give(&self.allocator, first.into());
                }
            }
        }
        self.at = end;
        done as u64
    }

    fn segment(&mut self, patience: Patience) -> Result<Sample, Refusal> {
        if self.at == self.total {
            self.begin(patience)?;
        }
        let parts = (self.total / SEGMENT).clamp(1, 8);
        let end = (self.at + self.total.div_ceil(parts)).min(self.total);
        let sample = timed(|| {
            let start = Instant::now();
            let mut done = 0;
            while self.at < end && start.elapsed() < BLOCK {
                done += self.go(CHUNK.min(end - self.at));
            }
            done
        });
        while self.at < end {
            self.go(256.min(end - self.at));
            patience.check()?;
        }
        Ok(sample)
    }
}

impl<A: Allocator, S: Shape> Contestant for Passing<A, S> {
    fn block(&mut self, _: u64, patience: Patience) -> Result<Sample, Refusal> {
        let mut sum = self.segment(patience)?;
        for _ in 0..20 {
            if self.at < self.total || sum.cpu >= BLOCK.as_nanos() as f64 / 2.0 {
                break;
            }
            sum += self.segment(patience)?;
        }
        Ok(sum)
    }

    fn has_own_blocks(&self) -> bool {
        true
    }

    fn extras(&mut self) -> Vec<Extra> {
        if self.pass != Pass::AllocateEverySecond {
            return Vec::new();
        }
        // One more pass, and what it does not find.
        let long = Patience::new(Duration::from_secs(60));
        if self.begin(long).is_err() {
            return Vec::new();
        }
        self.missing = 0;
        self.go(self.total);
        let missing = 100.0 * self.missing as f64 / self.total as f64;
        vec![Extra::plain("not found", missing, "%")]
    }
}
