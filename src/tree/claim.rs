//! Taking and giving runs of frames, piece by piece.
//!
//! A run is cut into the largest pieces that are there: GiBs and 2 MiB blocks that it contains as
//! a whole and that are free as a whole, and words of frames. Each piece is one read-modify-write
//! on the truth, in ascending order. If one is not to be had, what was taken goes back the way
//! that frees go, announced and merged, and nothing was claimed: **a claim that fails never owns
//! a frame afterwards, and a claim that succeeds owns every one.** All of it lies inside one step
//! of the journal, so nobody calls the frames lost meanwhile.
//!
//! Since all claims go upward, of several that overlap the one that has come furthest meets no
//! other: somebody always gets through.

use super::FrameTree;
use super::blocks::is_held_whole;
use super::count::free_in;
use super::free::{Opening, check_above, is_nothing_free, put_frames, refuse};
use super::levels::{
    give_block, make_all_ready, make_ready, merge_giant, split_block, split_giant, take_zeroes,
};
use crate::directory::{Block, Group, Place};
use crate::error::{Found, FreeError, InTheWay};
use crate::frame::{FrameNumber, NumberRange};
use crate::geometry::{BLOCK_FRAMES, GIANT_FRAMES, WORD_BITS};
use crate::journal::{Counter, Step, Writer};
use crate::node::{Fill, give, mask_between, take_bit};
use crate::root::Giant;
use crate::sync::Ordering;

/// What a run is cut into.
#[derive(Clone, Copy, Debug)]
enum Piece<'m> {
    /// A GiB as a whole.
    Giant(&'m Giant<'m>),
    /// A block as a whole.
    Block(Block<'m>),
    /// Frames of one group.
    Frames(Place<'m>, u64),
}

impl<'m> FrameTree<'m> {
    /// Takes exactly these frames, if all are free.
    ///
    /// # Errors
    /// The first frame of the piece that was not; then nothing was taken.
    pub(crate) fn claim(&self, writer: Writer<'_>, run: NumberRange) -> Result<(), FrameNumber> {
        let step = writer.begin();
        let (mut at, end) = (run.start().get(), run.end().get());
        while at < end {
            if let Some(behind) = self.claim_piece(writer, at, end) {
                at = behind;
                continue;
            }
            let at = FrameNumber::trusted(at);
            // They were all free a moment ago, and are this CPU's: nothing overlaps.
            let _ = self.put_run(&step, NumberRange::trusted(run.start(), at));
            writer.add(Counter::LostRaces, 1);
            return Err(at);
        }
        writer.add(Counter::Taken, run.len());
        Ok(())
    }

    /// Takes the largest free piece that begins at `at` and lies below `end`; returns where it
    /// ends.
    fn claim_piece(&self, writer: Writer<'_>, at: u64, end: u64) -> Option<u64> {
        let group = Group::of(FrameNumber::trusted(at));
        let giant = self.directory.giant(group.giant())?;
        if giant.is_free() {
            if is_whole(at, end, GIANT_FRAMES) {
                take_bit(&giant.cluster.free, giant.mask).ok()?;
                make_all_ready(giant);
                return Some(at + GIANT_FRAMES);
            }
            split_giant(writer, giant);
        }
        let nodes = giant.written()?;
        let place = Place::of(group, giant)?;
        let block = place.block();
        let (word, mask) = nodes.blocks.at(block.index);
        // ORDERING: a look; whoever claims decides. Nobody says "out of memory" because of it: the
        // search begins anew after a claim that fails.
        if word.load(Ordering::Relaxed) & mask != 0 {
            if is_whole(at, end, BLOCK_FRAMES) {
                take_bit(word, mask).ok()?;
                make_ready(block);
                return Some(at + BLOCK_FRAMES);
            }
            let first = block.first_frame().get();
            let behind = end.min(first + BLOCK_FRAMES);
            let kept = (at - first) as usize..(behind - first) as usize;
            return split_block(writer, block, kept).then_some(behind);
        }
        // ORDERING: Acquire pairs with the Release in `write_leaf`, as in a search.
        if !nodes.ready.is_set(block.index, Ordering::Acquire) {
            return None;
        }
        let (frames, behind) = frames_of(group, at, end);
        take_bit(place.leaf, frames).ok().map(|()| behind)
    }

    /// The first of these frames that is not free, and why; a look.
    pub(super) fn first_in_the_way(&self, run: NumberRange) -> Option<(FrameNumber, InTheWay)> {
        let (mut at, end) = (run.start().get(), run.end().get());
        while at < end {
            let group = Group::of(FrameNumber::trusted(at));
            let (frames, behind) = frames_of(group, at, end);
            let managed = self.open(group).map_or(0, |opening| opening.managed);
            let free = self.peek(group.first_frame()).map_or(0, |(free, _)| free);
            let taken = frames & !free;
            if taken != 0 {
                let bit = taken.trailing_zeros();
                let is_managed = managed >> bit & 1 != 0;
                let why = if is_managed { InTheWay::Taken } else { InTheWay::Unmanaged };
                return Some((group.frame(bit), why));
            }
            at = behind;
        }
        None
    }

    /// [`FrameTree::free_run`], in this writer's journal.
    pub(crate) fn free_run_with(
        &self,
        writer: Writer<'_>,
        run: NumberRange,
    ) -> Result<(), FreeError> {
        if let Some(block) = self.block_around(run) {
            return free_within_a_block(writer, block, run);
        }
        self.check_run(run)?;
        let step = writer.begin();
        let (overlap, first) = self.put_run(&step, run);
        writer.add(Counter::Returned, run.len() - overlap);
        first
    }

    /// The block of which a run is a part, but not all, if it is managed in full.
    fn block_around(&self, run: NumberRange) -> Option<Block<'m>> {
        let (start, end) = (run.start().get(), run.end().get());
        let first = start - start % BLOCK_FRAMES;
        if run.is_empty() || end - first > BLOCK_FRAMES || run.len() == BLOCK_FRAMES {
            return None;
        }
        let place = self.directory.locate(Group::of(run.start()))?;
        place.block().is_full().then_some(place.block())
    }

    /// Looks whether all of these frames may be freed, as far as the tree knows.
    ///
    /// # Errors
    /// The lowest that may not.
    pub(crate) fn check_run(&self, run: NumberRange) -> Result<(), FreeError> {
        let (mut at, end) = (run.start().get(), run.end().get());
        while at < end {
            let group = Group::of(FrameNumber::trusted(at));
            let behind = match self.piece(at, end) {
                Some((Piece::Giant(giant), behind)) if is_held(giant) => behind,
                Some((Piece::Block(block), behind)) if is_held_whole(block) => behind,
                _ => {
                    let (frames, behind) = frames_of(group, at, end);
                    self.check_frames(group, frames)?;
                    behind
                }
            };
            at = behind;
        }
        Ok(())
    }

    fn check_frames(&self, group: Group, frames: u64) -> Result<Opening<'m>, FreeError> {
        let opening = self.open(group).map_err(|found| refuse(group, frames, found))?;
        let managed = frames & opening.managed;
        let (free, found) = match check_above(opening.place.block()) {
            Err(found) => (managed, found),
            // ORDERING: a look for bugs of the caller; exact at rest.
            Ok(()) => (managed & opening.place.leaf.load(Ordering::Relaxed), Found::Free),
        };
        let foreign = frames & !managed;
        match free | foreign {
            0 => Ok(opening),
            wrong if foreign >> wrong.trailing_zeros() & 1 != 0 => {
                Err(refuse(group, wrong, Found::Unmanaged))
            }
            wrong => Err(refuse(group, wrong, found)),
        }
    }

    /// Gives frames that the caller holds, and has checked; says how many were free all the same,
    /// and which was the first.
    pub(super) fn put_run(
        &self,
        step: &Step<'_>,
        run: NumberRange,
    ) -> (u64, Result<(), FreeError>) {
        let (mut at, end) = (run.start().get(), run.end().get());
        let (mut overlaps, mut first) = (0, Ok(()));
        while at < end {
            let Some((piece, behind)) = self.piece(at, end) else { break };
            let (overlap, lowest, found) = match piece {
                Piece::Giant(giant) => {
                    let is_free = give(&giant.cluster.free, giant.mask).overlap != 0;
                    (if is_free { GIANT_FRAMES } else { 0 }, at, Found::FreeGiant)
                }
                Piece::Block(block) => {
                    let given = give_block(block);
                    if given.fill == Fill::Full {
                        merge_giant(step.writer(), block.giant);
                    }
                    (if given.overlap != 0 { BLOCK_FRAMES } else { 0 }, at, Found::FreeBlock)
                }
                Piece::Frames(place, frames) => {
                    let overlap = put_frames(step, place, frames);
                    let start = place.group.first_frame().get();
                    let lowest = start + u64::from(overlap.trailing_zeros());
                    (u64::from(overlap.count_ones()), lowest, Found::Free)
                }
            };
            if overlap != 0 {
                let frame = FrameNumber::trusted(lowest);
                first = first.and(Err(FreeError { frame, found }));
            }
            overlaps += overlap;
            at = behind;
        }
        (overlaps, first)
    }

    /// The largest piece that begins at `at` and lies below `end`, by what is managed in full, and
    /// where it ends; `None` if nothing near is managed.
    fn piece(&self, at: u64, end: u64) -> Option<(Piece<'m>, u64)> {
        let group = Group::of(FrameNumber::trusted(at));
        let giant = self.directory.giant(group.giant())?;
        if is_whole(at, end, GIANT_FRAMES) && giant.is_full() {
            return Some((Piece::Giant(giant), at + GIANT_FRAMES));
        }
        let place = Place::of(group, giant)?;
        if is_whole(at, end, BLOCK_FRAMES) && place.block().is_full() {
            return Some((Piece::Block(place.block()), at + BLOCK_FRAMES));
        }
        let (frames, behind) = frames_of(group, at, end);
        Some((Piece::Frames(place, frames), behind))
    }

    /// Takes what is known of the contents of frames that were just claimed, and shows those that
    /// are not known to be zero, stretch by stretch.
    pub(crate) fn take_contents(&self, run: NumberRange, mut dirty: impl FnMut(NumberRange)) {
        let (mut at, end) = (run.start().get(), run.end().get());
        let mut since = at;
        let mut show = |from: u64, to: u64| {
            if from < to {
                let [from, to] = [from, to].map(FrameNumber::trusted);
                dirty(NumberRange::trusted(from, to));
            }
        };
        while at < end {
            let group = Group::of(FrameNumber::trusted(at));
            let (frames, behind) = frames_of(group, at, end);
            let place = self.directory.locate(group);
            let known = place.map_or(0, |p| take_zeroes(p.block(), group.word(), frames));
            for (start, len) in crate::bits::runs(known) {
                let start = group.first_frame().get() + u64::from(start);
                show(since, start);
                since = start + u64::from(len);
            }
            at = behind;
        }
        show(since, end);
    }
}

/// [`FrameTree::free_run_with`] for frames of one block that is managed in full.
fn free_within_a_block(
    writer: Writer<'_>,
    block: Block<'_>,
    run: NumberRange,
) -> Result<(), FreeError> {
    let above = check_above(block);
    let leaf = block.leaf();
    for (group, frames) in groups_of(run) {
        above.map_err(|found| refuse(group, frames, found))?;
        // ORDERING: a look for bugs of the caller; exact at rest.
        match frames & leaf.word(group.word()).load(Ordering::Relaxed) {
            0 => {}
            free => return Err(refuse(group, free, Found::Free)),
        }
    }
    let step = writer.begin();
    let (mut returned, mut first) = (run.len(), Ok(()));
    for (group, frames) in groups_of(run) {
        let leaf = leaf.word(group.word());
        let overlap = put_frames(&step, Place { group, giant: block.giant, leaf }, frames);
        if overlap != 0 {
            returned -= u64::from(overlap.count_ones());
            first = first.and(Err(refuse(group, overlap, Found::Free)));
        }
    }
    writer.add(Counter::Returned, returned);
    first
}

/// The groups of a run, ascending, and its frames in each.
fn groups_of(run: NumberRange) -> impl Iterator<Item = (Group, u64)> {
    let (mut at, end) = (run.start().get(), run.end().get());
    core::iter::from_fn(move || {
        let group = Group::of(FrameNumber::trusted(at));
        let (frames, behind) = frames_of(group, at, end);
        (at < end).then(|| at = behind).map(|()| (group, frames))
    })
}

/// Whether something of this size begins at `at` and ends at or before `end`.
const fn is_whole(at: u64, end: u64, frames: u64) -> bool {
    at.is_multiple_of(frames) && end - at >= frames
}

/// The frames of a group from `at` up to `end`, and the first one behind them.
const fn frames_of(group: Group, at: u64, end: u64) -> (u64, u64) {
    let first = group.first_frame().get();
    let next = first + WORD_BITS;
    let behind = if end < next { end } else { next };
    (mask_between(at as usize, behind as usize, first as usize), behind)
}

/// Whether all of a giant that is managed in full is held by somebody.
fn is_held<'m>(giant: &'m Giant<'m>) -> bool {
    is_nothing_free(giant)
        || giant.in_use().is_some() && giant.blocks().all(|block| free_in(block) == 0)
}
