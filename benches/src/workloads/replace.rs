//! Memory is full to some degree with single frames, in random places; one of them after the other,
//! at random, is freed, and another allocated.

use super::{Work, give_back, take_all, take_surely};
use crate::allocator::{Allocator, Refusal};
use crate::harness::Patience;
use crate::support::Dice;

/// How full, in tenths of a percent.
#[derive(Clone, Copy)]
pub struct Replace {
    pub permille: u64,
}

impl Work for Replace {
    type Mine = (Vec<u32>, Dice);

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
        let part = |at: usize| (held[at * share..][..share].to_vec(), Dice::new(at as u64 + 5));
        Ok((0..threads).map(part).collect())
    }

    fn run<A: Allocator>(self, allocator: &A, mine: &mut Self::Mine, ops: u64) -> u64 {
        let (held, dice) = mine;
        let end = held.len() as u64;
        for _ in 0..ops {
            let place = &mut held[dice.below(end) as usize];
            allocator.free((*place).into());
            *place = take_surely(allocator) as u32;
        }
        ops
    }
}
