//! What the CPUs do. A step is a number of pairs of an allocation and a free.

use crate::contestants::Contestant;
use crate::support::Dice;

/// Frames of memory for each CPU: 1 GiB, little for a machine with many.
pub const SHARE: u64 = 1 << 18;
/// Frames that a CPU holds while it replaces some at random.
const HELD: usize = 2048;

/// A workload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Workload {
    /// One frame, and back with it.
    Pair,
    /// So many, and back with them in order.
    Burst(usize),
    /// One of many that are held is replaced, at random.
    Replace,
}

/// All of them; those without sharing first.
pub const ALL: [Workload; 5] = [
    Workload::Pair,
    Workload::Burst(32),
    Workload::Burst(512),
    Workload::Burst(8192),
    Workload::Replace,
];

impl Workload {
    pub fn name(self) -> String {
        match self {
            Self::Pair => "hot pair".into(),
            Self::Burst(count) => format!("bursts of {count}"),
            Self::Replace => "replace at random".into(),
        }
    }

    /// Whether a CPU could do it alone.
    #[cfg(observed)]
    pub fn is_private(self) -> bool {
        self != Self::Replace
    }
}

/// A CPU at it.
pub struct Hand {
    workload: Workload,
    held: Vec<u64>,
    dice: Dice,
}

impl Hand {
    /// Takes what the workload has in hand before it begins.
    pub fn new<C: Contestant>(workload: Workload, contestant: &C, seed: u64) -> Self {
        let count = if workload == Workload::Replace { HELD } else { 0 };
        let held = (0..count).map(|_| contestant.alloc()).collect();
        Self { workload, held, dice: Dice::new(seed) }
    }

    /// A step, `pairs` of them at most if it can be cut; returns how many it was.
    #[inline(always)]
    pub fn step<C: Contestant>(&mut self, contestant: &C) -> u64 {
        match self.workload {
            Workload::Pair => {
                contestant.free(contestant.alloc());
                1
            }
            Workload::Burst(count) => {
                for _ in 0..count {
                    self.held.push(contestant.alloc());
                }
                self.held.drain(..).for_each(|frame| contestant.free(frame));
                count as u64
            }
            Workload::Replace => {
                let place = self.dice.below(self.held.len() as u64) as usize;
                contestant.free(self.held[place]);
                self.held[place] = contestant.alloc();
                1
            }
        }
    }
}
