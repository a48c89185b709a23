//! Giving frames back, and refusing what must be refused.
//!
//! A frame may be free at its leaf, in a free block, or in a free giant; a free looks at all
//! three, from the top, before it sets a bit. The read-modify-write on the leaf is the last
//! word: bits that it finds set were free already, and stay recorded once. Frames in holes and
//! reservations are told apart from allocated ones by the directory.
//!
//! At rest this finds every double free. One that races with the first free, or with a merge of
//! the same block, can be missed while that is under way: the two callers both claim to own the
//! frame at that moment.

use super::FrameTree;
use crate::cache::PageCache;
use crate::directory::{Block, Group, Place, bit_of};
use crate::error::{Found, FreeError};
use crate::frame::FrameNumber;
use crate::geometry::{BLOCK_FRAMES, FULL, GIANT_FRAMES};
use crate::journal::{Counter, Step, Writer};
use crate::node::{Edge, Fill, give};
use crate::sync::Ordering;

/// What a group of frames may be freed to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Opening {
    /// Where its bits lie.
    pub place: Place,
    /// Its managed frames.
    pub managed: u64,
}

impl FrameTree<'_> {
    /// Looks up where a group's frames go.
    ///
    /// # Errors
    /// What was found instead, if none of its frames is managed.
    #[inline]
    pub(crate) fn open(&self, group: Group) -> Result<Opening, Found> {
        let place = self.directory.locate(group).ok_or(Found::Unmanaged)?;
        let managed = self.directory.managed(group, place.block);
        if managed == 0 { Err(Found::Unmanaged) } else { Ok(Opening { place, managed }) }
    }

    /// Looks whether a block is free above its leaf. It can't become so while any of its frames
    /// is held.
    ///
    /// # Errors
    /// At which level.
    #[inline]
    pub(crate) fn check_above(&self, block: Block) -> Result<(), Found> {
        if self.is_giant_free(block.giant) {
            return Err(Found::FreeGiant);
        }
        // ORDERING: a look for bugs of the caller; exact at rest.
        if self.giants[block.giant].blocks.is_set(block.index, Ordering::Relaxed) {
            return Err(Found::FreeBlock);
        }
        Ok(())
    }

    /// [`FrameTree::free`], in this writer's journal.
    pub(crate) fn free_with(
        &self,
        writer: Writer<'_>,
        frame: FrameNumber,
    ) -> Result<(), FreeError> {
        self.give_back(writer, Group::of(frame), bit_of(frame), 0)
    }

    /// [`FrameTree::flush`], in this writer's journal.
    pub(crate) fn flush_with(&self, writer: Writer<'_>, cache: PageCache) -> Result<(), FreeError> {
        if cache.is_empty() {
            return Ok(());
        }
        writer.add(Counter::Flushes, 1);
        self.give_back(writer, Group::of(cache.base()), cache.free(), cache.known_zero())
    }

    /// Checks and gives frames of one group back.
    fn give_back(
        &self,
        writer: Writer<'_>,
        group: Group,
        frames: u64,
        known_zero: u64,
    ) -> Result<(), FreeError> {
        let opening = self.open(group).map_err(|found| refuse(group, frames, found))?;
        self.check_above(opening.place.block).map_err(|found| refuse(group, frames, found))?;
        let managed = frames & opening.managed;
        let step = writer.begin();
        let overlap = self.give(&step, opening.place, managed, known_zero & managed);
        drop(step);
        let foreign = frames & !opening.managed;
        if overlap != 0 {
            Err(refuse(group, overlap, Found::Free))
        } else if foreign != 0 {
            Err(refuse(group, foreign, Found::Unmanaged))
        } else {
            Ok(())
        }
    }

    /// Gives checked frames of one group to their leaf; returns those that were free already.
    /// One read-modify-write; one more if the word was empty; a merge if the leaf is full now.
    pub(crate) fn give(&self, step: &Step<'_>, place: Place, frames: u64, known_zero: u64) -> u64 {
        let Place { block, word } = place;
        if frames == 0 {
            return 0;
        }
        let writer = step.writer();
        if known_zero != 0 {
            self.give_zeroes(place, known_zero);
        }
        let given = give(self.leaf(block).word(word), frames);
        if given.edge == Edge::FromEmpty {
            self.announce(block);
        }
        if given.fill == Fill::Full {
            self.merge_block(writer, block);
        }
        writer.add(Counter::Returned, u64::from((frames & !given.overlap).count_ones()));
        given.overlap
    }

    /// Records frames that are about to be freed as known to be zero.
    fn give_zeroes(&self, Place { block, word }: Place, known_zero: u64) {
        // ORDERING: a frame that is free already keeps its own answer; exact at rest.
        let free = self.leaf(block).word(word).load(Ordering::Relaxed);
        // ORDERING: both published by the Release of the frames' own bits.
        self.zero_node(block).word(word).fetch_or(known_zero & !free, Ordering::Relaxed);
        let (hint, mask) = self.giants[block.giant].zero.at(block.index);
        // ORDERING: as above.
        hint.fetch_or(mask, Ordering::Relaxed);
    }

    /// [`FrameTree::free_block`], in this writer's journal.
    #[inline(always)]
    pub(crate) fn free_block_with(
        &self,
        writer: Writer<'_>,
        first: FrameNumber,
    ) -> Result<(), FreeError> {
        let block = self.check_block(first)?;
        let _step = writer.begin();
        let given = self.give_block(block);
        if given.overlap != 0 {
            return Err(FreeError { frame: first, found: Found::FreeBlock });
        }
        writer.add(Counter::Returned, BLOCK_FRAMES);
        if given.fill == Fill::Full {
            self.merge_giant(writer, block.giant);
        }
        Ok(())
    }

    /// Looks whether a whole block may be freed, as far as the tree knows.
    ///
    /// # Errors
    /// What was found instead.
    #[inline(always)]
    pub(crate) fn check_block(&self, first: FrameNumber) -> Result<Block, FreeError> {
        let block = self.locate_aligned(first, BLOCK_FRAMES)?;
        if !self.directory.giant(block.giant).is_block_full(block.index) {
            return Err(FreeError { frame: first, found: Found::Unmanaged });
        }
        self.check_above(block).map_err(|found| FreeError { frame: first, found })?;
        // ORDERING: a look for bugs of the caller; exact at rest.
        if !self.leaf(block).all(0, Ordering::Relaxed) {
            return Err(FreeError { frame: first, found: self.partly_free(block) });
        }
        Ok(block)
    }

    /// [`FrameTree::free_giant`], in this writer's journal.
    pub(crate) fn free_giant_with(
        &self,
        writer: Writer<'_>,
        first: FrameNumber,
    ) -> Result<(), FreeError> {
        let giant = self.locate_aligned(first, GIANT_FRAMES)?.giant;
        let refused = |found| FreeError { frame: first, found };
        if !self.directory.giant(giant).is_full() {
            return Err(refused(Found::Unmanaged));
        }
        if self.is_giant_free(giant) {
            return Err(refused(Found::FreeGiant));
        }
        let free: u64 = self.blocks_of(giant).map(|block| self.free_in(block)).sum();
        if free != 0 {
            return Err(refused(Found::PartlyFree { free }));
        }
        let (cluster, mask) = self.cluster(giant);
        let _step = writer.begin();
        if give(&cluster.free, mask).overlap != 0 {
            return Err(refused(Found::FreeGiant));
        }
        writer.add(Counter::Returned, GIANT_FRAMES);
        Ok(())
    }

    #[cold]
    #[inline(never)]
    fn partly_free(&self, block: Block) -> Found {
        Found::PartlyFree { free: self.leaf(block).count() }
    }

    /// The first block of something large, which may have frames that are not managed.
    #[inline]
    fn locate_aligned(&self, first: FrameNumber, frames: u64) -> Result<Block, FreeError> {
        if !first.get().is_multiple_of(frames) {
            return Err(FreeError { frame: first, found: Found::Misaligned { frames } });
        }
        match self.directory.locate(Group::of(first)) {
            Some(place) => Ok(place.block),
            None => Err(FreeError { frame: first, found: Found::Unmanaged }),
        }
    }
}

/// The error for the lowest frame of `frames`.
#[cold]
pub(crate) fn refuse(group: Group, frames: u64, found: Found) -> FreeError {
    FreeError { frame: group.frame((frames & FULL).trailing_zeros()), found }
}
