//! At the end of memory: the last free frame, a request that nothing fits, and the question how
//! much is free.

use std::hint::black_box;

use super::places::Places;
use super::{Work, give_back, take_all, take_surely};
use crate::allocator::{Allocator, Refusal};
use crate::harness::Patience;
use crate::support::Dice;

/// Which of them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// All is in use: a frame at random is freed, what the CPU has cached is given back, and the
    /// frame is found again.
    LastFree,
    /// All is in use, and a frame is asked for.
    Failing,
    /// Half is in use, at random: how much is free?
    Statistics,
}

impl Work for Limit {
    type Mine = (Vec<u32>, Places);

    fn is_possible<A: Allocator>(self) -> bool {
        true
    }

    fn prepare<A: Allocator>(
        self,
        allocator: &A,
        frames: u64,
        _: usize,
        patience: Patience,
    ) -> Result<Vec<Self::Mine>, Refusal> {
        if self == Self::Statistics && allocator.free_frames().is_none() {
            return Err(Refusal::NoSuchRequest);
        }
        let mut held = take_all(allocator, frames, patience)?;
        if self == Self::Failing && allocator.alloc().is_some() {
            // The floor that never runs out.
            return Err(Refusal::NoSuchRequest);
        }
        if self == Self::Statistics {
            Dice::new(9).shuffle(&mut held);
            let half = held.split_off(held.len() / 2);
            give_back(allocator, half, patience)?;
            allocator.drain();
        }
        Ok(vec![(held, Places::new(1))])
    }

    fn run<A: Allocator>(self, allocator: &A, mine: &mut Self::Mine, ops: u64) -> u64 {
        let (held, places) = mine;
        for _ in 0..ops {
            match self {
                Self::LastFree => {
                    let place = places.next(held);
                    let place = &mut held[place];
                    allocator.free((*place).into());
                    allocator.drain();
                    *place = take_surely(allocator) as u32;
                }
                Self::Failing => assert_eq!(allocator.alloc(), None),
                Self::Statistics => {
                    black_box(allocator.free_frames());
                }
            }
        }
        ops
    }
}
