//! Checking every invariant of the tree, at rest, and saying in words which one is broken.
//!
//! 1. Truth is stored once: a free giant has no free block, a free block no free frame.
//! 2. Only managed frames are free.
//! 3. What is whole is merged: no leaf and no giant's blocks are all free one by one.
//! 4. Hints are never clear over something.
//! 5. Only free frames are known to be zero.
//! 6. No run is longer than is said of the block and the giant that it begins in.
//! 7. What is free is what the journals say: managed, less taken, plus returned.
//! 8. A block that is said to be managed in full is, and nothing of it is isolated or gone.

use core::fmt;

use super::FrameTree;
use super::free::check_above;
use super::giants::{bound_in, is_within_its_ends, longest_in};
use super::longest::{bound, longest_from};
use crate::directory::Block;
use crate::frame::FrameNumber;
use crate::geometry::{BLOCK_FRAMES, FULL, GIANT_FRAMES, NODE_WORDS};
use crate::root::Giant;
use crate::sync::{Ordering, Word};

/// The first broken invariant that [`FrameTree::verify`] found.
///
/// # Examples
/// Somebody has given a frame to the tree that this CPU's cache holds:
///
/// ```
/// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs")); }
/// # use frametree::*;
/// let pool = example::pool(Setup::new(1));
/// let frame = pool.alloc()?; // the cache keeps its neighbours
/// let tree = pool.tree().expect("a pool in use");
/// // SAFETY: the bug that is to be found.
/// tree.free(unsafe { Frame::from_number(FrameNumber::new(1)) })?;
/// let broken = pool.verify().unwrap_err();
/// assert_eq!(broken, Broken::CachedAndFree(FrameNumber::new(1)));
/// println!("{broken}"); // a sentence
/// # pool.free(frame)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Broken {
    /// A free giant whose block level is not empty.
    FreeGiantWithBlocks(FrameNumber),
    /// A free block whose leaf is not empty.
    FreeBlockWithFrames(FrameNumber),
    /// A free giant or block that is not managed in full.
    NotManagedInFull(FrameNumber),
    /// A block that is said to be managed in full, of which a frame is not, or is isolated or gone.
    NotFilled(FrameNumber),
    /// A group with free bits of frames that are not managed.
    NotManaged(FrameNumber),
    /// A leaf that is all free, but was not merged.
    NotMerged(FrameNumber),
    /// A giant whose blocks are all free, but was not merged.
    GiantNotMerged(FrameNumber),
    /// A block with free frames that no hint tells of.
    FramesNotAnnounced(FrameNumber),
    /// A giant with partly used blocks, which its cluster does not tell of.
    PartialNotRaised(FrameNumber),
    /// A giant that is not free, but of which nothing has ever been written.
    NeverWritten(FrameNumber),
    /// A giant with free blocks, which its cluster does not tell of.
    WholeNotRaised(FrameNumber),
    /// A group with frames that are known to be zero, in a block that does not say so.
    ZeroNotHinted(FrameNumber),
    /// A group with frames that are known to be zero, but are not free.
    ZeroNotFree(FrameNumber),
    /// A frame that is in a page cache and free in the tree.
    CachedAndFree(FrameNumber),
    /// A frame that is in two page caches, or twice in one.
    CachedTwice(FrameNumber),
    /// A block or a giant where a longer run begins than its bound says.
    LongerThanSaid(FrameNumber),
    /// The free frames are not those that the journals account for.
    Count {
        /// Counted bit by bit.
        counted: u64,
        /// Managed, less taken, plus returned.
        accounted: u64,
    },
    /// The budget of ordinary requests and the CPUs' credits are not what is free less the
    /// reserve.
    Budget {
        /// Frames that are missing, or too many if negative.
        by: i64,
    },
    /// Parts of the metadata that only change with the memory are not as they were left.
    #[cfg(feature = "hardened")]
    Seal,
    /// A frame whose entry in the ledger nobody can have written.
    #[cfg(feature = "hardened")]
    Ledger(FrameNumber),
    /// A frame that is free, though the ledger says that somebody has it, or that it is set aside.
    #[cfg(feature = "hardened")]
    HeldAndFree(FrameNumber),
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, at) = match self {
            Self::FreeGiantWithBlocks(at) => ("a free GiB has free blocks inside", at),
            Self::FreeBlockWithFrames(at) => ("a free 2 MiB block has free frames inside", at),
            Self::NotManagedInFull(at) => ("free as a whole, but not managed in full", at),
            Self::NotFilled(at) => ("said to be managed in full, but is not", at),
            Self::NotManaged(at) => ("frames are free that are not managed, in the group", at),
            Self::NotMerged(at) => ("all frames of a 2 MiB block are free one by one", at),
            Self::GiantNotMerged(at) => ("all blocks of a GiB are free one by one", at),
            Self::FramesNotAnnounced(at) => ("no hint tells of the free frames in the block", at),
            Self::PartialNotRaised(at) => ("no hint tells of partly used blocks in the GiB", at),
            Self::NeverWritten(at) => ("nothing was ever written of the used GiB", at),
            Self::WholeNotRaised(at) => ("no hint tells of free blocks in the GiB", at),
            Self::ZeroNotHinted(at) => ("frames are known to be zero, unhinted, in the group", at),
            Self::ZeroNotFree(at) => ("frames are known to be zero but not free, in the group", at),
            Self::CachedAndFree(at) => ("a page cache holds a frame that is also free", at),
            Self::CachedTwice(at) => ("two page caches hold the same frame", at),
            Self::LongerThanSaid(at) => {
                ("a longer run begins than is said of the block or GiB", at)
            }
            Self::Count { counted, accounted } => {
                return write!(f, "{counted} frames are free, the journals say {accounted}");
            }
            Self::Budget { by } => {
                return write!(f, "the budget and the CPUs' credits are {by} frames short");
            }
            #[cfg(feature = "hardened")]
            Self::Seal => {
                return f.write_str("links, ranges or full blocks are not as they were left");
            }
            #[cfg(feature = "hardened")]
            Self::Ledger(at) => ("no entry of the ledger looks like that of", at),
            #[cfg(feature = "hardened")]
            Self::HeldAndFree(at) => ("a frame is free that somebody has or is set aside", at),
        };
        write!(f, "{what}: {at}")
    }
}

impl core::error::Error for Broken {}

impl<'m> FrameTree<'m> {
    /// Checks every invariant of every level. Only meaningful at rest: while no CPU is inside
    /// the allocator. Costs a look at all leaves.
    ///
    /// # Errors
    /// The first invariant that is broken, and where.
    ///
    /// # Examples
    /// In a test of the kernel, at rest:
    ///
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/tree.rs")); }
    /// # use frametree::*;
    /// let tree = example::tree();
    /// let block = tree.alloc_block()?;
    /// tree.verify()?;
    /// # tree.free_block(block)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn verify(&self) -> Result<(), Broken> {
        for giant in self.directory.giants() {
            self.verify_giant(giant)?;
            if !giant.is_free() {
                giant.blocks().try_for_each(|block| self.verify_block(block))?;
            }
        }
        let (counted, accounted) = (self.count_free().frames, self.free_frames());
        if counted == accounted { Ok(()) } else { Err(Broken::Count { counted, accounted }) }
    }

    fn verify_block(&self, block: Block<'_>) -> Result<(), Broken> {
        let at = block.first_frame();
        let is_filled = !block.is_full() || self.directory.is_filled(block);
        require(is_filled, Broken::NotFilled(at))?;
        let Some(nodes) = block.giant.written() else { return Ok(()) };
        let is_free = nodes.blocks.is_set(block.index, Ordering::Acquire);
        let is_managed = self.directory.managed_frames(block) == BLOCK_FRAMES;
        require(!is_free || is_managed, Broken::NotManagedInFull(at))?;
        require(longest_from(block, 0) <= bound(block), Broken::LongerThanSaid(at))?;
        if !nodes.ready.is_set(block.index, Ordering::Acquire) {
            return Ok(());
        }
        let leaf = block.leaf();
        let empty = leaf.all(0, Ordering::Acquire);
        require(!is_free || empty, Broken::FreeBlockWithFrames(at))?;
        require(!leaf.all(FULL, Ordering::Acquire), Broken::NotMerged(at))?;
        let hinted = nodes.partial.is_set(block.index, Ordering::Acquire);
        require(empty || hinted, Broken::FramesNotAnnounced(at))?;
        (0..NODE_WORDS).try_for_each(|word| self.verify_word(block, word))
    }

    fn verify_word(&self, block: Block<'_>, word: usize) -> Result<(), Broken> {
        let group = block.group(word);
        let at = group.first_frame();
        let free = block.leaf().word(word).load(Ordering::Acquire);
        let zero = block.zeroes().word(word).load(Ordering::Acquire);
        let managed = self.directory.managed(group, block);
        require(free & !managed == 0, Broken::NotManaged(at))?;
        let is_free_above = check_above(block).is_err();
        require(is_free_above || zero & !free == 0, Broken::ZeroNotFree(at))?;
        let hinted = block.giant.nodes().zero.is_set(block.index, Ordering::Acquire);
        require(hinted || zero == 0, Broken::ZeroNotHinted(at))
    }

    fn verify_giant(&self, giant: &'m Giant<'m>) -> Result<(), Broken> {
        let at = FrameNumber::trusted(giant.number() * GIANT_FRAMES);
        let is_managed = self.directory.manages_all_of(giant);
        require(!giant.is_free() || is_managed, Broken::NotManagedInFull(at))?;
        let Some(nodes) = giant.written() else {
            return require(giant.is_free(), Broken::NeverWritten(at));
        };
        let none = |value| nodes.blocks.all(value, Ordering::Acquire);
        if giant.is_free() {
            return require(none(0), Broken::FreeGiantWithBlocks(at));
        }
        require(!none(FULL), Broken::GiantNotMerged(at))?;
        let is_said = longest_in(giant) <= bound_in(giant) && is_within_its_ends(giant);
        require(is_said, Broken::LongerThanSaid(at))?;
        let hints = |word: &Word| word.load(Ordering::Acquire) & giant.mask != 0;
        require(none(0) || hints(&giant.cluster.whole), Broken::WholeNotRaised(at))?;
        let crumbs = !nodes.partial.all(0, Ordering::Acquire);
        require(!crumbs || hints(&giant.cluster.partial), Broken::PartialNotRaised(at))
    }
}

fn require(holds: bool, otherwise: Broken) -> Result<(), Broken> {
    if holds { Ok(()) } else { Err(otherwise) }
}
