//! The shared tree: every free frame, recorded exactly once, at the coarsest level at which its
//! whole block is free. No lock; any number of CPUs, and it knows none of them.
//!
//! ```text
//! clusters   1 bit = 1 GiB     free as a whole?   hints: whole blocks inside, crumbs inside
//!    |  split: 1 bit becomes 512           ^  merge: 512 bits become 1
//! giants     1 bit = 2 MiB     free as a whole?   hint: crumbs inside
//!    |  split                              ^  merge
//! leaves     1 bit = 4 KiB     free?
//! ```
//!
//! **Truth and hints.** Clearing a bit of truth by an atomic read-modify-write *is* the
//! allocation, setting it *is* the free. Hints say where to look. A hint may be set over
//! nothing; while a step is under way it may also be clear over something, and the journals
//! tell (see [`crate::journal`]).
//!
//! **Leaves** are meaningful once their block is *ready*, and then hold no bit while the block
//! is free or held as a whole. So a block may be claimed whole and freed frame by frame. The nodes
//! of a giant likewise, one level up.
//!
//! The protocols, a file each: [`levels`] (split, merge, announce, retire), [`search`] (refill
//! and allocation), [`home`] and [`crumbs`] (refills near the last one, and of what is left of used
//! blocks), [`free`] (flush, free, and what is refused), [`runs`] (finding contiguous
//! frames) by a [`walk`], with [`longest`] and [`giants`] to pass crumbs quickly and [`near`] to
//! begin where the last was found, and [`claim`] (taking and giving them, piece by piece);
//! [`blocks`] (2 MiB as a whole) and [`single`] (frames without a CPU). [`init`] and [`grow`] add
//! memory, [`isolate`] takes it away. [`count`] says how much is free, [`verify`] checks every
//! invariant at rest.
//!
//! The shape is the radix tree of Go's `mpagealloc.go`, with counters and locks replaced by one
//! bit per level and the page tables' radix of 512.

mod blocks;
mod claim;
mod count;
mod crumbs;
mod free;
mod giants;
mod grow;
mod home;
mod init;
mod isolate;
mod levels;
mod longest;
#[cfg(all(test, loom))]
pub(crate) mod looks;
mod near;
mod runs;
#[cfg(feature = "hardened")]
mod seal;
mod search;
mod single;
mod verify;
mod walk;

pub use count::{BlockUse, FreeCount};
pub use grow::GrowError;
pub use isolate::{InUse, IsolateError, Isolation};
pub use verify::Broken;

pub(crate) use blocks::{BlockHome, finish, give_at_once, is_held_whole};
pub(crate) use crumbs::Crumb;
pub(crate) use free::{Gift, Opening, check_above, give_frames, refuse};
pub(crate) use home::HomeCell;
pub(crate) use init::Plan;
pub(crate) use near::RunHints;
pub(crate) use runs::{Looked, Wanted};
#[cfg(feature = "hardened")]
pub(crate) use seal::mix;
pub(crate) use search::Refill;

use crate::directory::Directory;
use crate::journal::{Journal, Writer};
use crate::sync::Word;

/// The shared tree of free frames. See the source's header for its structure.
///
/// All methods may be called by any number of CPUs at once, and in interrupts and NMIs, also
/// when those interrupt one of these methods; none ever waits for a lock.
///
/// Atomic read-modify-writes, alone on the tree:
///
/// | operation | tree | and journal |
/// |---|---|---|
/// | [`alloc`](Self::alloc) from a partly used block | 1 | 2 |
/// | [`refill`](Self::refill) from a partly used block | 1 | 3 |
/// | the same after one that used its block up: retire, claim, announce | 3 | 10 |
/// | [`free`](Self::free) | 1 | 4 |
/// | [`flush`](Self::flush) | 1 | 5 |
/// | either to a group without free frames: announce | 1 more | 1 more |
/// | either that completes a block: claim it (8), free it, retire its hint | 10 more | 13 more |
/// | [`alloc_block`](Self::alloc_block) | 1 | 2 |
/// | [`free_block`](Self::free_block) | 1 | 4 |
///
/// The second number is that of all methods here, whose callers have no CPU: they share one
/// journal, at 1 for each counter and 2 around each step that moves frames. A
/// [`FramePool`](crate::FramePool) writes each CPU's own journal without read-modify-writes.
///
/// # Examples
/// ```
/// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs")); }
/// # use frametree::*;
/// let pool = example::pool(Setup::new(1));
/// let tree: &FrameTree<'_> = pool.tree().expect("a pool in use");
/// let frame = tree.alloc()?; // past all caches: the lowest free frame
/// assert_eq!(frame.number(), FrameNumber::new(0));
/// let count = tree.count_free();
/// assert_eq!((count.frames, count.blocks), (2047, 3)); // the fourth block of 2 MiB is split
/// tree.free(frame)?;
/// assert_eq!(tree.blocks().map(|block| block.free).collect::<Vec<_>>(), [512; 4]);
/// tree.verify()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct FrameTree<'m> {
    directory: Directory<'m>,
    journals: &'m [Journal],
    /// How many frames have ever been managed: written only when some come.
    managed: Word,
    /// How many of these are gone for good: they count as taken.
    gone: Word,
    /// The first frame that is not used last; 0 if none is.
    low_end: u64,
}

impl<'m> FrameTree<'m> {
    /// For callers without a CPU.
    #[inline]
    pub(crate) fn shared_writer(&self) -> Writer<'_> {
        Writer::shared(&self.journals[Journal::SHARED])
    }

    /// The journal that all share.
    pub(crate) fn shared_journal(&self) -> &'m Journal {
        &self.journals[Journal::SHARED]
    }

    /// The journal of the CPU with slot `cpu`.
    pub(crate) fn journal_of(&self, cpu: usize) -> &'m Journal {
        &self.journals[Journal::SHARED + 1 + cpu]
    }

    /// For the one user of slot `cpu`.
    #[cfg(test)]
    pub(crate) fn sole_writer(&self, cpu: usize) -> Writer<'_> {
        Writer::sole(self.journal_of(cpu))
    }

    /// For an interrupt inside an operation of slot `cpu`.
    #[inline]
    pub(crate) fn nested_writer(&self, cpu: usize) -> Writer<'_> {
        Writer::nested(&self.journals[Journal::SHARED], Journal::SHARED + 1 + cpu)
    }
}
