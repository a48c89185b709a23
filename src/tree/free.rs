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
use super::count::free_in;
use super::levels::{Hint, announce, hint_at, merge_block, raise};
use super::longest::{is_row_wide, tell_of_frames};
use crate::cache::{Handful, empty_out};
use crate::directory::{Block, Group, Place, bit_of};
use crate::error::{Found, FreeError};
use crate::frame::{Frame, FrameNumber};
use crate::geometry::{FULL, GIANT_FRAMES};
use crate::journal::{Counter, Step, Writer};
use crate::node::{Edge, Fill, Given, give, give_bits};
use crate::root::{Giant, Nodes};
use crate::sync::Ordering;

/// What a group of frames may be freed to.
#[derive(Clone, Copy, Debug)]
pub struct Opening<'m> {
    /// Where its bits lie.
    pub place: Place<'m>,
    /// Its managed frames.
    pub managed: u64,
}

/// A frame that is free at its leaf already, in a step that is still open; what else there is to
/// do follows from what the word held before.
#[must_use]
#[derive(Clone, Copy, Debug)]
pub struct Gift<'m> {
    giant: &'m Giant<'m>,
    before: u64,
}

impl<'m> Gift<'m> {
    /// Whether there is nothing else to do but to announce it, if at all.
    #[inline(always)]
    pub fn is_plain(self, frame: FrameNumber) -> bool {
        let Given { overlap, fill, .. } = Given::by(self.before, bit_of(frame));
        let is_common = overlap == 0 && fill == Fill::Partial;
        is_common && is_row_wide(self.block(frame))
    }

    /// Announces a plain one, if the word was empty before; whether the giant has to be told.
    #[inline(always)]
    pub fn announce(self, frame: FrameNumber) -> bool {
        let Given { edge, .. } = Given::by(self.before, bit_of(frame));
        edge == Edge::FromEmpty && hint_at(self.block(frame))
    }

    /// Tells the giant, after a plain one was announced.
    pub fn tell(self) {
        raise(self.giant, Hint::Partial);
    }

    /// Ends the step of a plain one.
    #[inline(always)]
    pub fn end_plainly(self, writer: Writer<'_>) {
        let step = writer.resume();
        step.writer().add(Counter::Returned, 1);
    }

    /// Does the rest, and ends the step.
    ///
    /// # Errors
    /// The frame was free already.
    pub fn end(self, writer: Writer<'_>, frame: FrameNumber) -> Result<(), Found> {
        let step = writer.resume();
        let bit = bit_of(frame);
        if follow(&step, self.giant, Group::of(frame), (bit, self.before)) != 0 {
            return Err(Found::Free);
        }
        writer.add(Counter::Returned, 1);
        Ok(())
    }

    #[inline(always)]
    fn block(self, frame: FrameNumber) -> Block<'m> {
        Block { giant: self.giant, index: Group::of(frame).block() }
    }
}

impl<'m> FrameTree<'m> {
    /// Gives one frame to its leaf, if its block is managed in full and is not free as a whole:
    /// one read-modify-write, in a step that stays open.
    #[inline(always)]
    pub(crate) fn begin_to_give(&self, writer: Writer<'_>, frame: FrameNumber) -> Option<Gift<'m>> {
        let Place { giant, leaf, .. } = self.place_to_give(Group::of(frame))?;
        writer.begin().suspend();
        Some(Gift { giant, before: give_bits(leaf, bit_of(frame)) })
    }

    /// Where frames of a group lie that come free as a run, if it may be parked: the frame below
    /// them is not free either.
    #[inline(always)]
    pub(crate) fn place_to_park(&self, group: Group, frames: u64) -> Option<Place<'m>> {
        let below = frames & frames.wrapping_neg();
        // The word's first one has its neighbour in another word.
        if below == 1 { None } else { self.place_to_keep(group, frames | below >> 1) }
    }

    /// Where frames of a group lie, if the block is in use and managed in full, none of them is
    /// free, and it is not low memory.
    #[inline(always)]
    pub(crate) fn place_to_keep(&self, group: Group, frames: u64) -> Option<Place<'m>> {
        let place = self.place_to_give(group)?;
        // ORDERING: a look for bugs of the caller; exact at rest.
        let free = place.leaf.load(Ordering::Relaxed) & frames;
        let is_low = group.first_frame().get() < self.low_end;
        (free == 0 && !is_low).then_some(place)
    }

    #[inline(always)]
    fn place_to_give(&self, group: Group) -> Option<Place<'m>> {
        let place = self.directory.locate_low(group)?;
        (place.block().is_full() && is_in_use_above(place.block())).then_some(place)
    }

    /// Looks up where a group's frames go.
    ///
    /// # Errors
    /// What was found instead, if none of its frames is managed.
    #[inline(always)]
    pub(crate) fn open(&self, group: Group) -> Result<Opening<'m>, Found> {
        let place = self.directory.locate(group).ok_or(Found::Unmanaged)?;
        let managed = self.directory.managed(group, place.block());
        if managed == 0 { Err(Found::Unmanaged) } else { Ok(Opening { place, managed }) }
    }

    /// The same as [`FrameTree::open_to_cache`] for a group of this block.
    #[inline]
    pub(crate) fn open_in(&self, block: Block<'m>, group: Group) -> Opening<'m> {
        let leaf = block.leaf().word(group.word());
        let managed = self.directory.cacheable(group, block);
        Opening { place: Place { group, giant: block.giant, leaf }, managed }
    }

    /// [`FrameTree::free`], in this writer's journal.
    pub(crate) fn free_with(
        &self,
        writer: Writer<'_>,
        frame: FrameNumber,
    ) -> Result<(), FreeError> {
        self.give_back(writer, Group::of(frame), bit_of(frame), 0)
    }

    /// [`FrameTree::free_zeroed`], in this writer's journal.
    pub(crate) fn free_zeroed_with(
        &self,
        writer: Writer<'_>,
        frame: FrameNumber,
    ) -> Result<(), FreeError> {
        self.give_back(writer, Group::of(frame), bit_of(frame), bit_of(frame))
    }

    /// [`FrameTree::free_bulk`], in this writer's journal.
    pub(crate) fn free_bulk_with(
        &self,
        writer: Writer<'_>,
        frames: &mut [Option<Frame>],
    ) -> Result<(), FreeError> {
        empty_out(frames, |some| self.give_back(writer, Group::of(some.base()), some.free(), 0))
    }

    /// [`FrameTree::flush`], in this writer's journal.
    pub(crate) fn flush_with(&self, writer: Writer<'_>, cache: Handful) -> Result<(), FreeError> {
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
        check_above(opening.place.block()).map_err(|found| refuse(group, frames, found))?;
        let managed = frames & opening.managed;
        let step = writer.begin();
        let overlap = give_frames(&step, opening.place, managed, known_zero & managed);
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

    /// [`FrameTree::free_giant`], in this writer's journal.
    pub(crate) fn free_giant_with(
        &self,
        writer: Writer<'_>,
        first: FrameNumber,
    ) -> Result<(), FreeError> {
        let giant = self.check_giant(first)?;
        let _step = writer.begin();
        if give(&giant.cluster.free, giant.mask).overlap != 0 {
            return Err(FreeError { frame: first, found: Found::FreeGiant });
        }
        writer.add(Counter::Returned, GIANT_FRAMES);
        Ok(())
    }

    /// Looks whether a whole GiB may be freed, as far as the tree knows.
    ///
    /// # Errors
    /// What was found instead.
    pub(crate) fn check_giant(&self, first: FrameNumber) -> Result<&'m Giant<'m>, FreeError> {
        let giant = self.locate_aligned(first, GIANT_FRAMES)?;
        let refused = |found| Err(FreeError { frame: first, found });
        if !self.directory.manages_all_of(giant) {
            return refused(Found::Unmanaged);
        }
        if giant.is_free() || giant.written().is_none() {
            return refused(Found::FreeGiant);
        }
        if is_nothing_free(giant) {
            return Ok(giant);
        }
        match giant.blocks().map(free_in).sum() {
            0 => Ok(giant),
            free => refused(Found::PartlyFree { free }),
        }
    }

    /// The giant of something large, which may have frames that are not managed.
    #[inline]
    pub(super) fn locate_aligned(
        &self,
        first: FrameNumber,
        frames: u64,
    ) -> Result<&'m Giant<'m>, FreeError> {
        if !first.get().is_multiple_of(frames) {
            return Err(FreeError { frame: first, found: Found::Misaligned { frames } });
        }
        let giant = self.directory.giant(Group::of(first).giant());
        giant.ok_or(FreeError { frame: first, found: Found::Unmanaged })
    }
}

/// Looks whether a block is free above its leaf. It can't become so while any of its frames is
/// held.
///
/// # Errors
/// At which level.
#[inline(always)]
pub(crate) fn check_above(block: Block<'_>) -> Result<(), Found> {
    if is_in_use_above(block) {
        Ok(())
    } else if block.giant.in_use().is_some() {
        Err(Found::FreeBlock)
    } else {
        Err(Found::FreeGiant)
    }
}

/// Whether nothing of a giant is free, by its blocks' bits and hints: sixteen loads, where the
/// leaves would be four thousand. A hint is set whenever a frame is free, at rest.
#[inline]
pub(super) fn is_nothing_free(giant: &Giant<'_>) -> bool {
    giant.in_use().is_some_and(|Nodes { blocks, partial, .. }| {
        // ORDERING: a look for bugs of the caller; exact at rest.
        blocks.is_empty(Ordering::Relaxed) && partial.is_empty(Ordering::Relaxed)
    })
}

/// The same as [`check_above`], for who does not ask at which level.
#[inline(always)]
fn is_in_use_above(block: Block<'_>) -> bool {
    // ORDERING: a look for bugs of the caller; exact at rest.
    let is_free = |nodes: &Nodes| nodes.blocks.is_set(block.index, Ordering::Relaxed);
    block.giant.in_use().is_some_and(|nodes| !is_free(nodes))
}

/// Gives checked frames of one group to their leaf; returns those that were free already. One
/// read-modify-write; one more if the word was empty; a merge if the leaf is full now.
#[inline(always)]
pub(crate) fn give_frames(step: &Step<'_>, place: Place<'_>, frames: u64, known_zero: u64) -> u64 {
    if frames == 0 {
        return 0;
    }
    if known_zero != 0 {
        give_zeroes(place, known_zero);
    }
    let overlap = put_frames(step, place, frames);
    step.writer().add(Counter::Returned, count(frames & !overlap));
    overlap
}

/// The same, neither counted nor known to be zero.
#[inline(always)]
pub(super) fn put_frames(step: &Step<'_>, place: Place<'_>, frames: u64) -> u64 {
    let before = give_bits(place.leaf, frames);
    follow(step, place.giant, place.group, (frames, before))
}

/// What follows from a gift of frames to the word of a group, which held `before`; returns what was
/// free already.
#[inline(always)]
fn follow<'m>(
    step: &Step<'_>,
    giant: &'m Giant<'m>,
    group: Group,
    (frames, before): (u64, u64),
) -> u64 {
    let given = Given::by(before, frames);
    let block = Block { giant, index: group.block() };
    tell_of_frames(giant, group, frames);
    if given.edge == Edge::FromEmpty {
        announce(block);
    }
    if given.fill == Fill::Full {
        merge_block(step.writer(), block);
    }
    given.overlap
}

/// How many bits are set. Most often it is one, which is told without counting.
#[inline(always)]
fn count(bits: u64) -> u64 {
    if bits.is_power_of_two() { 1 } else { count_many(bits) }
}

#[inline(never)]
fn count_many(bits: u64) -> u64 {
    u64::from(bits.count_ones())
}

/// Records frames that are about to be freed as known to be zero.
#[cold]
fn give_zeroes(place: Place<'_>, known_zero: u64) {
    let block = place.block();
    // ORDERING: a frame that is free already keeps its own answer; exact at rest.
    let free = place.leaf.load(Ordering::Relaxed);
    // ORDERING: both published by the Release of the frames' own bits.
    block.zeroes().word(place.group.word()).fetch_or(known_zero & !free, Ordering::Relaxed);
    let (hint, mask) = block.giant.nodes().zero.at(block.index);
    // ORDERING: as above.
    hint.fetch_or(mask, Ordering::Relaxed);
}

/// The error for the lowest frame of `frames`.
#[cold]
pub(crate) fn refuse(group: Group, frames: u64, found: Found) -> FreeError {
    FreeError { frame: group.frame((frames & FULL).trailing_zeros()), found }
}
