//! The exercises: what a kernel does with frames, on all CPUs at once, each with a check that
//! ends the boot if anything is off. Each prints what it measured.

pub mod breathe;
pub mod exhaust;
pub mod heap;
pub mod interrupt;
pub mod late;
mod ledger;
pub mod nmi;
pub mod pages;
mod pattern;
pub mod remove;
pub mod reserve;
pub mod shapes;
pub mod soak;
pub mod some;
pub mod stamp;
mod worker;
pub mod zero;

pub use worker::{stamps, totals};

use crate::memory::{self, POOL};
use crate::smp;

/// Frames that are free when nothing is under way: all but what the kernel keeps.
fn available() -> u64 {
    POOL.tree().map_or(0, |tree| tree.managed_frames()) - memory::kept_in_all()
}

/// Brings the frames in all CPUs' caches back to the tree.
pub fn drain_all() {
    smp::run(|_| memory::drain());
}
