//! Takes some, gives them back in the order in which it took them: 1 (the hot pair), 32, 512.

use std::hint::black_box;

use super::{Work, take_all};
use crate::allocator::{Allocator, Refusal, Shape};
use crate::harness::Patience;
use crate::support::Dice;

/// In what memory the bursts take place.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// All is free, but for one piece: or each pair would split and merge all levels.
    Free,
    /// A random half of all frames is in use.
    HalfUsed,
}

/// So many of a shape at a time.
#[derive(Clone, Copy)]
pub struct Bursts<S> {
    pub shape: S,
    pub burst: usize,
    pub start: Start,
}

impl<S: Shape> Work for Bursts<S> {
    type Mine = Vec<u64>;

    fn is_possible<A: Allocator>(self) -> bool {
        self.shape.is_possible::<A>()
    }

    fn prepare<A: Allocator>(
        self,
        allocator: &A,
        frames: u64,
        threads: usize,
        patience: Patience,
    ) -> Result<Vec<Vec<u64>>, Refusal> {
        match self.start {
            Start::Free => {
                self.shape.take(allocator).ok_or(Refusal::FoundNothing)?;
            }
            Start::HalfUsed => {
                let mut held = take_all(allocator, frames, patience)?;
                Dice::new(2).shuffle(&mut held);
                let half = held.split_off(held.len() / 2);
                super::give_back(allocator, half, patience)?;
            }
        }
        let free = self.shape.take(allocator).ok_or(Refusal::FoundNothing)?;
        self.shape.give(allocator, free);
        Ok((0..threads).map(|_| Vec::with_capacity(self.burst)).collect())
    }

    fn run<A: Allocator>(self, allocator: &A, held: &mut Vec<u64>, ops: u64) -> u64 {
        let found = |first: Option<u64>| match first {
            Some(first) => first,
            None => panic!("{} found nothing", A::NAME),
        };
        if self.burst == 1 {
            for _ in 0..ops {
                let first = found(black_box(self.shape).take(allocator));
                self.shape.give(allocator, black_box(first));
            }
            return ops;
        }
        let bursts = ops.div_ceil(self.burst as u64);
        for _ in 0..bursts {
            for _ in 0..self.burst {
                held.push(found(self.shape.take(allocator)));
            }
            for first in held.drain(..) {
                self.shape.give(allocator, first);
            }
        }
        bursts * self.burst as u64
    }
}
