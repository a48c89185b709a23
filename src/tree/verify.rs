//! Checking every invariant of the tree, at rest, and saying in words which one is broken.
//!
//! 1. Truth is stored once: a free giant has no free block, a free block no free frame.
//! 2. Only managed frames are free.
//! 3. What is whole is merged: no leaf and no giant's blocks are all free one by one.
//! 4. Hints are never clear over something.
//! 5. Only free frames are known to be zero.
//! 6. What is free is what the journals say: managed, less taken, plus returned.

use core::fmt;

use super::FrameTree;
use super::levels::Hint;
use crate::directory::Block;
use crate::frame::FrameNumber;
use crate::geometry::{FULL, NODE_WORDS};
use crate::sync::Ordering;

/// The first broken invariant that [`FrameTree::verify`] found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Broken {
    /// A free giant whose block level is not empty.
    FreeGiantWithBlocks(FrameNumber),
    /// A free block whose leaf is not empty.
    FreeBlockWithFrames(FrameNumber),
    /// A free giant or block that is not managed in full.
    NotManagedInFull(FrameNumber),
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
    /// The free frames are not those that the journals account for.
    Count {
        /// Counted bit by bit.
        counted: u64,
        /// Managed, less taken, plus returned.
        accounted: u64,
    },
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, at) = match self {
            Self::FreeGiantWithBlocks(at) => ("a free GiB has free blocks inside", at),
            Self::FreeBlockWithFrames(at) => ("a free 2 MiB block has free frames inside", at),
            Self::NotManagedInFull(at) => ("free as a whole, but not managed in full", at),
            Self::NotManaged(at) => ("frames are free that are not managed, in the group", at),
            Self::NotMerged(at) => ("all frames of a 2 MiB block are free one by one", at),
            Self::GiantNotMerged(at) => ("all blocks of a GiB are free one by one", at),
            Self::FramesNotAnnounced(at) => ("no hint tells of the free frames in the block", at),
            Self::PartialNotRaised(at) => ("no hint tells of partly used blocks in the GiB", at),
            Self::WholeNotRaised(at) => ("no hint tells of free blocks in the GiB", at),
            Self::ZeroNotHinted(at) => ("frames are known to be zero, unhinted, in the group", at),
            Self::ZeroNotFree(at) => ("frames are known to be zero but not free, in the group", at),
            Self::CachedAndFree(at) => ("a page cache holds a frame that is also free", at),
            Self::CachedTwice(at) => ("two page caches hold the same frame", at),
            Self::Count { counted, accounted } => {
                return write!(f, "{counted} frames are free, the journals say {accounted}");
            }
        };
        write!(f, "{what}: {at}")
    }
}

impl core::error::Error for Broken {}

impl FrameTree<'_> {
    /// Checks every invariant of every level. Only meaningful at rest: while no CPU is inside
    /// the allocator. Costs a look at all leaves.
    ///
    /// # Errors
    /// The first invariant that is broken, and where.
    pub fn verify(&self) -> Result<(), Broken> {
        for giant in 0..self.giants.len() {
            self.verify_giant(giant)?;
            if !self.is_giant_free(giant) {
                self.blocks_of(giant).try_for_each(|block| self.verify_block(block))?;
            }
        }
        let (counted, accounted) = (self.count_free().frames, self.free_frames());
        if counted == accounted { Ok(()) } else { Err(Broken::Count { counted, accounted }) }
    }

    fn verify_giant(&self, index: usize) -> Result<(), Broken> {
        let at = self.directory.first_frame(Block { giant: index, index: 0 });
        let info = self.directory.giant(index);
        let giant = &self.giants[index];
        let none = |value| giant.blocks.all(value, Ordering::Acquire);
        if self.is_giant_free(index) {
            require(none(0), Broken::FreeGiantWithBlocks(at))?;
            return require(info.is_full(), Broken::NotManagedInFull(at));
        }
        require(!none(FULL), Broken::GiantNotMerged(at))?;
        require(none(0) || self.hints(index, Hint::Whole), Broken::WholeNotRaised(at))?;
        let crumbs = !giant.partial.all(0, Ordering::Acquire);
        require(!crumbs || self.hints(index, Hint::Partial), Broken::PartialNotRaised(at))
    }

    fn verify_block(&self, block: Block) -> Result<(), Broken> {
        let at = self.directory.first_frame(block);
        let giant = &self.giants[block.giant];
        let is_free = giant.blocks.is_set(block.index, Ordering::Acquire);
        let is_full = self.directory.giant(block.giant).is_block_full(block.index);
        require(!is_free || is_full, Broken::NotManagedInFull(at))?;
        if !giant.ready.is_set(block.index, Ordering::Acquire) {
            return Ok(());
        }
        let leaf = self.leaf(block);
        let empty = leaf.all(0, Ordering::Acquire);
        require(!is_free || empty, Broken::FreeBlockWithFrames(at))?;
        require(!leaf.all(FULL, Ordering::Acquire), Broken::NotMerged(at))?;
        let hinted = giant.partial.is_set(block.index, Ordering::Acquire);
        require(empty || hinted, Broken::FramesNotAnnounced(at))?;
        (0..NODE_WORDS).try_for_each(|word| self.verify_word(block, word))
    }

    fn verify_word(&self, block: Block, word: usize) -> Result<(), Broken> {
        let group = self.directory.group(block, word);
        let at = group.first_frame();
        // ORDERING: at rest there is nothing to order.
        let free = self.leaf(block).word(word).load(Ordering::Acquire);
        let zero = self.zero_node(block).word(word).load(Ordering::Acquire);
        let managed = self.directory.managed(group, block);
        require(free & !managed == 0, Broken::NotManaged(at))?;
        let is_free_above = self.check_above(block).is_err();
        require(is_free_above || zero & !free == 0, Broken::ZeroNotFree(at))?;
        // ORDERING: as above.
        let hinted = self.giants[block.giant].zero.is_set(block.index, Ordering::Acquire);
        require(hinted || zero == 0, Broken::ZeroNotHinted(at))
    }

    fn hints(&self, giant: usize, hint: Hint) -> bool {
        let (cluster, mask) = self.cluster(giant);
        let word = match hint {
            Hint::Whole => &cluster.whole,
            Hint::Partial => &cluster.partial,
        };
        // ORDERING: at rest there is nothing to order.
        word.load(Ordering::Acquire) & mask != 0
    }
}

fn require(holds: bool, otherwise: Broken) -> Result<(), Broken> {
    if holds { Ok(()) } else { Err(otherwise) }
}
