//! A turn: what the owner of a slot can do with it while it has it to itself.

use super::side::{Side, get};
use super::{Requests, Slot, lowest};
use crate::budget::Budget;
use crate::cache::{Contents, Handful, Known};
use crate::directory::{Block, Group, Place};
use crate::error::{Found, FreeError, OutOfMemory, Refusal};
use crate::frame::{Frame, FrameNumber, NumberRange};
use crate::geometry::{BLOCK_FRAMES, FRAME_LIMIT, WORD_BITS};
use crate::journal::{Counter, Step, Writer};
use crate::node::{Given, mask_between};
use crate::root::Giant;
use crate::sync::{Ordering, interrupt_fence};
use crate::tree::{FrameTree, finish};

/// The right to use a slot until it is dropped. One pointer, so that it stays in a register;
/// the tree comes as an argument.
#[derive(Debug)]
pub struct Turn<'s, 'm> {
    pub(super) slot: &'s Slot<'m>,
}

impl Drop for Turn<'_, '_> {
    #[inline]
    fn drop(&mut self) {
        interrupt_fence();
        // ORDERING: Release pairs with the Acquire in `is_busy`.
        self.slot.busy.store(0, Ordering::Release);
    }
}

impl<'m> Turn<'_, 'm> {
    /// Takes a frame: from the cache without an atomic read-modify-write, else by a refill.
    #[inline(always)]
    pub fn alloc(&self, tree: &FrameTree<'m>) -> Result<Frame, Refusal> {
        match self.slot.alloc_side.alloc() {
            Some(frame) => Ok(frame),
            None => self.slot.alloc_anew(tree),
        }
    }

    /// Takes a run of at most 64 frames, if one side has it; its first frame. A dry allocation side
    /// is filled first.
    pub fn alloc_run(&self, tree: &FrameTree<'m>, count: u32) -> Option<FrameNumber> {
        let Slot { alloc_side, free_side, .. } = self.slot;
        if get(&alloc_side.free) == 0 {
            self.slot.fill(tree).ok()?;
        }
        let run = alloc_side.alloc_run(count);
        run.or_else(|| {
            // A run that is parked is not broken up while there may be a lower one.
            self.unpark();
            free_side.alloc_run(count)
        })
    }

    /// Sees to it that all runs that came free here are found in the tree.
    #[inline]
    pub fn unpark(&self) {
        self.slot.unpark();
    }

    /// Takes so many contiguous frames, from the cache or from the tree near the last ones, if
    /// there is no budget to ask. A dry cache is filled first.
    pub fn alloc_run_near(&self, tree: &FrameTree<'m>, count: u64) -> Option<NumberRange> {
        let Requests { budget, run_hints, .. } = &self.slot.requests;
        if count.wrapping_sub(1) >= FRAME_LIMIT || budget.is_some() {
            return None;
        }
        let cached = if count <= WORD_BITS { self.alloc_run(tree, count as u32) } else { None };
        match cached {
            Some(start) => {
                let end = FrameNumber::trusted(start.get() + count);
                Some(NumberRange::trusted(start, end))
            }
            None => {
                self.unpark();
                tree.alloc_run_near(self.writer(), run_hints, count)
            }
        }
    }

    /// Gives contiguous frames to the tree.
    pub fn free_run(&self, tree: &FrameTree<'m>, run: NumberRange) -> Result<(), FreeError> {
        // A run that is parked stays the lowest of its length, unless this one lies below; a block
        // too.
        if Group::of(run.start()).number() <= get(&self.slot.free_side.group)
            || self.slot.requests.parked.reaches_over(run.start())
        {
            self.unpark();
        }
        self.slot.requests.run_hints.widen(run);
        self.slot.requests.packed.ends_at(&self.slot.home, Group::of(run.start()));
        self.unasked(|writer| tree.free_run_with(writer, run))
    }

    /// Takes a frame, and says what is known of its contents: one of zeros, if the allocation
    /// side holds any.
    #[inline]
    pub fn alloc_known(&self, tree: &FrameTree<'m>) -> Result<Known, Refusal> {
        let Slot { alloc_side, .. } = self.slot;
        match alloc_side.alloc_known() {
            Some(known) => Ok(known),
            None => {
                self.slot.fill(tree)?;
                alloc_side.alloc_known().ok_or(Refusal::NotThere)
            }
        }
    }

    /// Takes the lowest frames of the allocation side; at most `most`, which is not 0.
    #[inline]
    pub fn alloc_some(&self, tree: &FrameTree<'m>, most: u32) -> Result<Handful, Refusal> {
        let Slot { alloc_side, .. } = self.slot;
        if get(&alloc_side.free) == 0 {
            self.slot.fill(tree)?;
        }
        Ok(alloc_side.alloc_some(most))
    }

    /// Takes a frame back that holds zeros, after looking whether it can be.
    #[inline]
    pub fn free_zeroed(&self, tree: &FrameTree<'m>, frame: FrameNumber) -> Result<(), FreeError> {
        let group = Group::of(frame);
        let freed = match self.slot.sides().find(|side| side.is_open_for(group)) {
            Some(side) => side.take_back(frame).map(|()| side.know_zero(frame)),
            None => self.slot.free_elsewhere(tree, frame, Contents::Zero),
        };
        freed.or_else(|error| self.slot.ask_tree(tree, error))
    }

    /// Takes a frame back, after looking whether it can be.
    #[inline]
    pub fn free(&self, tree: &FrameTree<'m>, frame: FrameNumber) -> Result<(), FreeError> {
        let group = Group::of(frame);
        let freed = match self.slot.sides().find(|side| side.is_open_for(group)) {
            Some(side) => side.take_back(frame),
            None => self.slot.free_elsewhere(tree, frame, Contents::Unknown),
        };
        match freed {
            Ok(()) => Ok(()),
            Err(error) => self.slot.ask_tree(tree, error),
        }
    }

    /// Takes a frame, of the reserve too: then just one, so that no ordinary request gets the
    /// others.
    pub fn alloc_urgent(&self, tree: &FrameTree<'m>) -> Result<Frame, Refusal> {
        let anyway = |_| self.unasked(|writer| tree.alloc_with(writer)).map_err(Refusal::from);
        self.alloc(tree).or_else(anyway)
    }

    /// Takes the lowest block, if the budget allows it. The next is taken near it if there is no
    /// budget, and it need not be used last.
    pub fn alloc_block(&self, tree: &FrameTree<'m>) -> Result<Frame, Refusal> {
        self.unpark();
        let look = |writer: Writer<'_>| tree.look_for_block(writer);
        let block = self.asking(BLOCK_FRAMES, look, |writer| tree.take_block(writer))?;
        let Requests { budget, block_home, .. } = &self.slot.requests;
        if budget.is_none() && !tree.is_low_block(block) {
            block_home.put(block);
        }
        Ok(Frame::owned(block.first_frame()))
    }

    /// Hands out one of the frames that were just taken, if any may be.
    #[cold]
    #[inline(never)]
    pub(super) fn alloc_crumb_rest(
        self,
        tree: &FrameTree<'m>,
        giant: &'m Giant<'m>,
        group: Group,
        frames: u64,
    ) -> Option<FrameNumber> {
        let slot = self.slot;
        let mut home = slot.home.get();
        let taken = (Place::of(group, giant)?, frames);
        let refill = tree.finish_crumb(self.writer(), &mut home, taken);
        slot.home.put(home);
        slot.hold(tree, &refill?);
        let frame = slot.alloc_side.alloc().map(Frame::into_number);
        drop(self);
        slot.serve();
        frame
    }

    /// Hands a block out that was claimed, if it may be.
    #[cold]
    #[inline(never)]
    pub(super) fn alloc_block_rest(
        self,
        tree: &FrameTree<'m>,
        block: Block<'m>,
    ) -> Option<FrameNumber> {
        let block = tree.present(self.writer(), block)?;
        self.writer().add(Counter::Taken, BLOCK_FRAMES);
        let slot = self.slot;
        drop(self);
        slot.serve();
        Some(block.first_frame())
    }

    /// Does what is left to do for a block that was given to the tree.
    #[cold]
    #[inline(never)]
    pub(super) fn free_block_rest(
        self,
        step: Step<'_>,
        block: Block<'m>,
        given: Given,
    ) -> Result<(), FreeError> {
        let is_back = finish(&step, block, given);
        drop(step);
        let slot = self.slot;
        drop(self);
        slot.serve();
        // What the read-modify-write has found is the last word: somebody may have the block now.
        let refused = FreeError { frame: block.first_frame(), found: Found::FreeBlock };
        if is_back { Ok(()) } else { Err(refused) }
    }

    /// Something that takes so many frames from the tree, if it is there by the `look` of it, and
    /// the budget allows it.
    #[inline]
    pub fn asking<T>(
        &self,
        frames: u64,
        look: impl FnOnce(Writer<'m>) -> Result<(), OutOfMemory>,
        work: impl FnOnce(Writer<'m>) -> Result<T, OutOfMemory>,
    ) -> Result<T, Refusal> {
        if self.is_rationed() {
            look(self.writer())?;
            self.ask(frames)?;
        }
        Ok(self.unasked(work)?)
    }

    /// Whether there is a reserve, so that who wants many frames has to ask for them; but only for
    /// what is there. While the budget has granted what can't be had, others go without, and
    /// watermarks are crossed for nothing.
    #[inline]
    pub fn is_rationed(&self) -> bool {
        self.slot.requests.budget.is_some_and(Budget::has_reserve)
    }

    /// Asks the budget for so many frames.
    pub fn ask(&self, frames: u64) -> Result<(), Refusal> {
        if self.slot.allow(frames, frames) == 0 { Err(Refusal::Reserved) } else { Ok(()) }
    }

    /// Something that gives frames to the tree, or takes some without asking, or has asked.
    #[inline]
    pub fn unasked<T>(&self, work: impl FnOnce(Writer<'m>) -> T) -> T {
        let done = work(self.writer());
        self.slot.settle();
        done
    }

    /// The right to write the CPU's journal, for as long as the turn lasts.
    #[inline]
    pub fn writer(&self) -> Writer<'m> {
        self.slot.writer()
    }

    /// How many frames it holds of the aligned stretch of `frames` frames that `first` lies in.
    #[inline]
    pub fn held_in(&self, first: FrameNumber, frames: u64) -> u64 {
        let Slot { alloc_side, free_side, .. } = self.slot;
        let groups = frames / WORD_BITS;
        let stretch = Group::of(first).number() / groups;
        if alloc_side.stretch(groups) != stretch && free_side.stretch(groups) != stretch {
            return 0;
        }
        self.count_in(stretch, groups)
    }

    #[cold]
    fn count_in(&self, stretch: u64, groups: u64) -> u64 {
        let inside = self.slot.sides().filter(|side| side.stretch(groups) == stretch);
        inside.map(Side::count).sum()
    }

    /// The lowest of these frames that it holds.
    pub fn first_held(&self, run: NumberRange) -> Option<FrameNumber> {
        let (start, end) = (run.start().get() as usize, run.end().get() as usize);
        let held = self.slot.held();
        held.filter_map(|(group, frames)| {
            let first = group.first_frame().get() as usize;
            lowest(group, frames & mask_between(start, end, first))
        })
        .min()
    }

    /// Gives all cached frames back to the tree, and the home up.
    pub fn drain(&self) -> Result<(), FreeError> {
        self.slot.give_all()
    }
}
