//! 2 MiB frames: what is left of them after churn, and all of them.
//!
//! Memory is filled with single frames and freed at random down to a half; then frames at random
//! are replaced, ten times as many as are held. The same sequence goes to a bitmap that always
//! takes the lowest free frame (`bitmap-allocator`).

use super::{Row, median};
use crate::allocator::{Allocator, BLOCK, Block, GIANT, Shape};
use crate::machine::timed;
use crate::peers::{Bitmap, Pool};
use crate::support::{Dice, Threads};

const MEMORY: u64 = GIANT;

pub fn rows() -> Vec<Row> {
    Threads::become_cpu(0);
    let (ours, back) = left::<Pool>();
    let (first_fit, _) = left::<Bitmap>();
    let all = MEMORY / BLOCK;
    let figure = format!("{ours}; first fit {first_fit}");
    let each = all_blocks();
    vec![
        Row::new("2 MiB frames left after churn, 1 GiB", figure, "first fit's", ours >= first_fit),
        Row::new("the same, once all is freed", format!("{back} of {all}"), "all", back == all),
        Row::new("allocate all in 2 MiB frames", format!("{each:.2} ns"), "8 ns", each <= 8.0),
    ]
}

/// How many there are after the churn, and after everything was freed.
fn left<A: Allocator>() -> (u64, u64) {
    let allocator = A::new(MEMORY).expect("an allocator");
    let mut held: Vec<_> = std::iter::from_fn(|| allocator.alloc()).collect();
    let mut dice = Dice::new(31);
    dice.shuffle(&mut held);
    let kept = held.len() / 2;
    held.drain(kept..).for_each(|frame| allocator.free(frame));
    for _ in 0..10 * held.len() {
        let place = dice.below(held.len() as u64) as usize;
        allocator.free(held[place]);
        held[place] = allocator.alloc().expect("the frame that was freed, at least");
    }
    let left = count_blocks(&allocator);
    held.into_iter().for_each(|frame| allocator.free(frame));
    (left, count_blocks(&allocator))
}

fn count_blocks<A: Allocator>(allocator: &A) -> u64 {
    allocator.drain();
    let blocks: Vec<_> = std::iter::from_fn(|| allocator.alloc_block()).collect();
    blocks.iter().for_each(|&block| allocator.free_block(block));
    blocks.len() as u64
}

/// Nanoseconds for each, of 8 GiB.
fn all_blocks() -> f64 {
    let pool = Pool::new(8 * GIANT).expect("a pool");
    let mut blocks = Vec::with_capacity(4096);
    let mut round = || {
        let sample = timed(|| {
            while let Some(block) = Block.take(&pool) {
                blocks.push(block);
            }
            blocks.len() as u64
        });
        blocks.drain(..).for_each(|block| Block.give(&pool, block));
        sample.cpu / sample.ops as f64
    };
    median(&mut (0..31).map(|_| round()).collect::<Vec<_>>())
}
