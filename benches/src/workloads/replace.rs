//! Memory is full to some degree with single frames, in random places; one of them after the other,
//! at random, is freed, and another allocated. At once, or after so much of that that allocators
//! which pack memory have done so.

use super::places::Places;
use super::{Work, give_back, take_all, take_surely};
use crate::allocator::{Allocator, Refusal};
use crate::harness::Patience;
use crate::support::Dice;

/// How full, in tenths of a percent.
#[derive(Clone, Copy)]
pub struct Replace {
    pub permille: u64,
    /// How many times over each frame has been replaced before.
    pub times_over: u64,
}

impl Work for Replace {
    type Mine = (Vec<u32>, Places);

    fn is_possible<A: Allocator>(self) -> bool {
        true
    }

    fn prepare<A: Allocator>(
        self,
        allocator: &A,
        frames: u64,
        threads: usize,
        patience: Patience,
    ) -> Result<Vec<Self::Mine>, Refusal> {
        let mut held = take_all(allocator, frames, patience)?;
        Dice::new(3).shuffle(&mut held);
        let kept = held.len() as u64 * self.permille / 1000;
        give_back(allocator, held.drain(kept as usize..).rev(), patience)?;
        let share = held.len() / threads;
        let part = |at: usize| (held[at * share..][..share].to_vec(), Places::new(at as u64 + 5));
        let mut parts: Vec<_> = (0..threads).map(part).collect();
        let before = self.times_over * held.len() as u64;
        for done in (0..before).step_by(1024) {
            patience.check()?;
            let part = (done / 1024) as usize % parts.len();
            self.run(allocator, &mut parts[part], 1024);
        }
        Ok(parts)
    }

    fn run<A: Allocator>(self, allocator: &A, mine: &mut Self::Mine, ops: u64) -> u64 {
        let (held, places) = mine;
        for _ in 0..ops {
            let place = places.next(held);
            let place = &mut held[place];
            allocator.free((*place).into());
            *place = take_surely(allocator) as u32;
        }
        ops
    }
}
