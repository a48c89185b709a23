//! What a kernel asks for, all mixed: its own distribution of sizes, in memory that is 60 % full.
//!
//! The sizes follow what Linux asks its page allocator for (nearly all requests are for one frame),
//! with the larger ones drawn often enough to be seen: see [`MIX`]. Each operation frees one piece
//! at random and asks for one. Beside the time of an operation there is how long each request took:
//! the percentiles up to 99.99 are what an unlucky caller meets.

use std::time::Duration;

use hdrhistogram::Histogram;
use quanta::Clock;

use super::{Work, side_by_side};
use crate::allocator::{Allocator, Refusal, Run, Shape};
use crate::harness::{Contestant, Entry, Extra, Patience};
use crate::machine::Sample;
use crate::stats::{median, spread};
use crate::support::{Dice, Threads};

/// (of 1000 requests, frames, what asks for them).
pub const MIX: [(u64, u64, &str); 8] = [
    (900, 1, "page faults, and a page table for each 512 of them"),
    (40, 4, "kernel stacks of 16 KiB"),
    (25, 2, "slabs"),
    (15, 8, "slabs, network buffers"),
    (10, 16, "pipes, large folios"),
    (5, 64, "DMA rings"),
    (3, 256, "DMA buffers"),
    (2, 512, "huge pages"),
];

/// A piece: its first frame and its index in [`MIX`].
type Piece = (u32, u8);

#[derive(Clone, Copy)]
pub struct Mixed;

/// What a thread keeps.
pub struct Mine {
    held: Vec<Option<Piece>>,
    dice: Dice,
    asked: u64,
    missed: u64,
}

fn draw(dice: &mut Dice) -> u8 {
    let mut number = dice.below(1000);
    for (kind, (weight, ..)) in MIX.iter().enumerate() {
        if number < *weight {
            return kind as u8;
        }
        number -= weight;
    }
    unreachable!("the weights are 1000 in all")
}

#[inline(always)]
fn take<A: Allocator>(allocator: &A, kind: u8) -> Option<Piece> {
    let first = match MIX[kind as usize].1 {
        1 => allocator.alloc(),
        512 => allocator.alloc_block(),
        count => Run(count).take(allocator),
    };
    first.map(|first| (first as u32, kind))
}

#[inline(always)]
fn give<A: Allocator>(allocator: &A, (first, kind): Piece) {
    match MIX[kind as usize].1 {
        1 => allocator.free(first.into()),
        512 => allocator.free_block(first.into()),
        count => Run(count).give(allocator, first.into()),
    }
}

impl Work for Mixed {
    type Mine = Mine;

    fn is_possible<A: Allocator>(self) -> bool {
        A::HAS_RUNS
    }

    fn prepare<A: Allocator>(
        self,
        allocator: &A,
        frames: u64,
        threads: usize,
        patience: Patience,
    ) -> Result<Vec<Mine>, Refusal> {
        let mean = MIX.iter().map(|(weight, count, _)| weight * count).sum::<u64>();
        let pieces = frames * 600 / mean / threads as u64;
        let mut mine = Vec::new();
        for thread in 0..threads {
            let mut dice = Dice::new(thread as u64 + 21);
            let mut held = Vec::new();
            for done in 0..pieces {
                if done.is_multiple_of(4096) {
                    patience.check()?;
                }
                held.push(take(allocator, draw(&mut dice)));
            }
            mine.push(Mine { held, dice, asked: 0, missed: 0 });
        }
        Ok(mine)
    }

    fn run<A: Allocator>(self, allocator: &A, mine: &mut Mine, ops: u64) -> u64 {
        for _ in 0..ops {
            let (place, kind) = mine.next();
            if let Some(piece) = place.take() {
                give(allocator, piece);
            }
            *place = take(allocator, kind);
            let is_missed = place.is_none();
            mine.missed += u64::from(is_missed);
        }
        ops
    }

    fn extras(self, mine: &[Mine]) -> Vec<Extra> {
        let sum = |field: fn(&Mine) -> u64| mine.iter().map(field).sum::<u64>() as f64;
        let missed = 100.0 * sum(|mine| mine.missed) / sum(|mine| mine.asked).max(1.0);
        vec![Extra::plain("not found", missed, "%")]
    }
}

impl Mine {
    /// Whose turn it is, and what is asked for in its place.
    #[inline(always)]
    fn next(&mut self) -> (&mut Option<Piece>, u8) {
        self.asked += 1;
        let kind = draw(&mut self.dice);
        let place = self.dice.below(self.held.len() as u64) as usize;
        (&mut self.held[place], kind)
    }
}

/// Operations of a block: enough that one in ten thousand is not a single one.
const TIMED: u64 = 100_000;
const PERCENTILES: [f64; 4] = [50.0, 99.0, 99.9, 99.99];

/// How it is set up for each allocator.
pub struct LatencyOf {
    pub frames: u64,
    pub threads: usize,
    pub patience: Duration,
}

impl LatencyOf {
    pub fn visit<A: Allocator>(&self) -> Entry {
        Entry { name: A::NAME, contestant: self.prepare::<A>() }
    }

    fn prepare<A: Allocator>(&self) -> Result<Box<dyn Contestant>, Refusal> {
        if !A::HAS_RUNS {
            return Err(Refusal::NoSuchRequest);
        }
        Threads::become_cpu(0);
        let allocator = A::new(self.frames)?;
        let patience = Patience::new(self.patience);
        let mine = Mixed.prepare(&allocator, self.frames, self.threads, patience)?;
        let (clock, blocks) = (Clock::new(), [Vec::new(), Vec::new()]);
        let mut threads = mine.into_iter().map(|mine| Party { mine, times: None });
        let first = threads.next().expect("a thread");
        let watched = Party { times: Some([(); 2].map(|()| histogram())), ..first };
        let parties = std::iter::once(watched).chain(threads).collect();
        Ok(Box::new(Latency { allocator, parties, clock, blocks }))
    }
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 1_000_000_000, 3).expect("bounds")
}

/// The first thread is watched; the others are load.
struct Latency<A> {
    allocator: A,
    parties: Vec<Party>,
    clock: Clock,
    /// The percentiles of each block: of allocations, and of frees.
    blocks: [Vec<[f64; 4]>; 2],
}

struct Party {
    mine: Mine,
    /// Of allocations, and of frees.
    times: Option<[Histogram<u64>; 2]>,
}

impl Party {
    fn run<A: Allocator>(&mut self, allocator: &A, clock: &Clock) -> u64 {
        let Some([allocs, frees]) = &mut self.times else {
            return Mixed.run(allocator, &mut self.mine, TIMED);
        };
        for _ in 0..TIMED {
            let (place, kind) = self.mine.next();
            let start = clock.raw();
            let was_held = place.take().map(|piece| give(allocator, piece));
            let freed = clock.raw();
            *place = take(allocator, kind);
            let taken = clock.raw();
            if was_held.is_some() {
                frees.saturating_record(clock.delta_as_nanos(start, freed));
            }
            allocs.saturating_record(clock.delta_as_nanos(freed, taken));
        }
        TIMED
    }
}

impl<A: Allocator> Contestant for Latency<A> {
    fn block(&mut self, _: u64, _: Patience) -> Result<Sample, Refusal> {
        let (allocator, clock) = (&self.allocator, &self.clock);
        let sample = side_by_side(&mut self.parties, |party| party.run(allocator, clock));
        let times = self.parties[0].times.as_mut().expect("the one that is watched");
        for (histogram, blocks) in times.iter_mut().zip(&mut self.blocks) {
            blocks.push(PERCENTILES.map(|at| histogram.value_at_percentile(at) as f64));
            histogram.reset();
        }
        Ok(sample)
    }

    fn has_own_blocks(&self) -> bool {
        true
    }

    fn extras(&mut self) -> Vec<Extra> {
        let mut extras = Vec::new();
        for (what, blocks) in ["alloc", "free"].iter().zip(&self.blocks) {
            for (at, percentile) in PERCENTILES.iter().enumerate() {
                let mut values: Vec<_> = blocks.iter().map(|block| block[at]).collect();
                extras.push(Extra {
                    what: format!("{what}, {percentile} %"),
                    median: median(&mut values),
                    spread: spread(&mut values),
                    unit: "ns",
                });
            }
        }
        extras
    }
}
