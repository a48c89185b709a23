//! How much of the free memory is in whole 2 MiB frames while single frames come and go.
//!
//! Memory is filled with single frames; of these a half, or a tenth, is freed at random. Then rounds:
//! 10 % of the held frames, at random, are replaced, on 8 CPUs in turns of 32 frames. In a turn all
//! are freed and then as many allocated; or one after the other is ([`Turn`]), which is hard on
//! caches that hand out what was freed last.
//! What counts as free is what the workload does not hold, so frames in caches are not held against
//! anybody. Without moving frames, memory that was in use at the beginning becomes free only when
//! all of a block's first frames have been replaced: 27 % after round 50 if half is free, 99.3 %
//! after round 100.

use super::{give_back, take_all, take_surely};
use crate::allocator::{Allocator, BLOCK, Refusal};
use crate::harness::Patience;
use crate::support::{Dice, Threads};

/// The rounds after which is looked.
pub const LOOKS: [usize; 5] = [0, 10, 20, 50, 100];
/// CPUs that take turns; allocators that know CPUs are set up for as many.
pub const CPUS: usize = 8;
const TURN: usize = 32;

/// How a CPU replaces the frames of its turn.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    FreeThenAllocate,
    OneByOne,
}

/// The share of free memory, in percent, that is *not* in whole 2 MiB frames, after each look.
pub fn churn<A: Allocator>(
    frames: u64,
    held_percent: u64,
    turn: Turn,
    patience: Patience,
) -> Result<[f64; LOOKS.len()], Refusal> {
    Threads::become_cpu(0);
    let allocator = A::new(frames)?;
    let mut held = take_all(&allocator, frames, patience)?;
    let mut dice = Dice::new(13);
    dice.shuffle(&mut held);
    let kept = held.len() * held_percent as usize / 100;
    give_back(&allocator, held.drain(kept..).rev(), patience)?;
    let mut shares = [0.0; LOOKS.len()];
    let mut round = 0;
    for (look, share) in LOOKS.iter().zip(&mut shares) {
        while round < *look {
            replace_some(&allocator, &mut held, &mut dice, turn, patience)?;
            round += 1;
        }
        *share = not_whole(&held, frames);
    }
    Threads::become_cpu(0);
    Ok(shares)
}

fn replace_some<A: Allocator>(
    allocator: &A,
    held: &mut [u32],
    dice: &mut Dice,
    turn: Turn,
    patience: Patience,
) -> Result<(), Refusal> {
    let count = held.len() / 10;
    for at in 0..count {
        let other = at + dice.below((held.len() - at) as u64) as usize;
        held.swap(at, other);
    }
    for (number, frames) in held[..count].chunks_mut(TURN).enumerate() {
        patience.check()?;
        Threads::become_cpu(number % CPUS);
        match turn {
            Turn::FreeThenAllocate => {
                frames.iter().for_each(|frame| allocator.free((*frame).into()));
                frames.fill_with(|| take_surely(allocator) as u32);
            }
            Turn::OneByOne => {
                for frame in frames {
                    allocator.free((*frame).into());
                    *frame = take_surely(allocator) as u32;
                }
            }
        }
    }
    Ok(())
}

fn not_whole(held: &[u32], frames: u64) -> f64 {
    let mut used = vec![0; (frames / BLOCK) as usize];
    for frame in held {
        used[*frame as usize / BLOCK as usize] += 1;
    }
    let whole = used.iter().filter(|used| **used == 0).count() as f64 * BLOCK as f64;
    100.0 * (1.0 - whole / (frames - held.len() as u64) as f64)
}
