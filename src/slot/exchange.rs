//! What a slot takes from the tree and gives to it: refills, flushes, single frames that go past
//! the sides, and all of it when the owner was asked to drain.

use super::side::{Held, Side, get, put};
use super::{DRAIN, MANY, PROMISED, Slot, TELL, Turn};
use crate::cache::Contents;
use crate::directory::{Group, Place, bit_of};
use crate::error::{Found, FreeError, Refusal};
use crate::frame::{Frame, FrameNumber, NumberRange};
use crate::geometry::WORD_BITS;
use crate::journal::{Counter, Step, Writer};
use crate::sync::Ordering;
use crate::tree::{FrameTree, Gift, Opening, Refill, check_above, give_frames, refuse};

/// The slow paths, out of line: each is entered by the holder of the turn only.
impl<'m> Slot<'m> {
    #[inline(never)]
    pub(super) fn alloc_anew(&self, tree: &FrameTree<'m>) -> Result<Frame, Refusal> {
        self.fill(tree)?;
        self.alloc_side.alloc().ok_or(Refusal::NotThere)
    }

    /// Makes a dry allocation side hold some: those of the free side, if they are many, or else of
    /// a refill.
    #[inline]
    pub(super) fn fill(&self, tree: &FrameTree<'m>) -> Result<(), Refusal> {
        let Slot { alloc_side, free_side, .. } = self;
        self.unpark();
        let freed = get(&free_side.free).count_ones();
        if freed >= MANY {
            put(&self.requests.passed, Side::CLOSED);
            alloc_side.trade(free_side);
            return Ok(());
        }
        if freed != 0 {
            put(&self.requests.passed, get(&free_side.group));
            self.flush_free_side();
        }
        loop {
            match self.allow(1, WORD_BITS) {
                WORD_BITS => self.refill(tree)?,
                most => self.fill_with(tree, most)?,
            }
            if self.requests.budget.is_none() || self.is_within_budget() {
                return Ok(());
            }
        }
    }

    #[inline(always)]
    fn refill(&self, tree: &FrameTree<'m>) -> Result<(), Refusal> {
        let Slot { home, .. } = self;
        let mut at = home.get();
        let refill = tree.refill_near(self.writer(), &mut at);
        let stays = refill.as_ref().is_ok_and(|refill| home.is_in(refill.block.giant));
        home.put(at);
        let refill = refill?;
        if home.is_own() && refill.cache.free().count_ones() <= 2 {
            self.requests.packed.ask();
        } else if !stays {
            // What is known was of another giant.
            self.requests.packed.forget();
        }
        self.hold(tree, &refill);
        Ok(())
    }

    /// Puts a refill into the dry allocation side.
    #[inline]
    pub(super) fn hold(&self, tree: &FrameTree<'m>, Refill { cache, block }: &Refill<'m>) {
        self.alloc_side.open(tree.open_in(*block, Group::of(cache.base())));
        self.alloc_side.put(cache);
    }

    pub(super) fn flush_free_side(&self) {
        // As in `free_elsewhere`; a double free that only this flush could see is counted.
        let step = self.writer().begin();
        let _ = self.flush(&step, self.free_side.close());
        drop(step);
        self.settle();
    }

    /// Whether a refill was allowed. What was set aside on the way was taken too: if the credit is
    /// spent by that, the refill goes back.
    #[inline(never)]
    fn is_within_budget(&self) -> bool {
        if self.writer().credit() >= 0 {
            return true;
        }
        let step = self.writer().begin();
        // They were free just now: nothing overlaps.
        let _ = self.flush(&step, self.alloc_side.close());
        drop(step);
        self.settle();
        false
    }

    /// A refill of so many frames at most, when the budget ends.
    #[cold]
    #[inline(never)]
    fn fill_with(&self, tree: &FrameTree<'m>, most: u64) -> Result<(), Refusal> {
        if most == 0 {
            return Err(Refusal::Reserved);
        }
        let cache = tree.alloc_some_with(self.writer(), most as u32)?;
        let group = Group::of(cache.base());
        let block = tree.open(group).map_err(|_| Refusal::NotThere)?.place.block();
        self.alloc_side.open(tree.open_in(block, group));
        self.alloc_side.put(&cache);
        Ok(())
    }

    /// How many of `least` to `most` frames an ordinary request may take from the tree.
    #[inline]
    pub(super) fn allow(&self, least: u64, most: u64) -> u64 {
        match self.requests.budget {
            None => most,
            Some(budget) => budget.allow(self.writer(), (least, most), || self.ring()),
        }
    }

    /// After frames went to the tree, or were taken without asking.
    #[inline]
    pub(super) fn settle(&self) {
        if let Some(budget) = self.requests.budget {
            budget.settle(self.writer(), || self.ring());
        }
    }

    /// Takes a frame back that falls into neither side's group.
    #[inline(never)]
    pub(super) fn free_elsewhere(
        &self,
        tree: &FrameTree<'m>,
        frame: FrameNumber,
        contents: Contents,
    ) -> Result<(), FreeError> {
        let refused = |found| FreeError { frame, found };
        if self.requests.parked.has(frame) {
            // What is found there is what is wrong.
            self.unpark();
        }
        let opening = tree.open_to_cache(Group::of(frame)).map_err(refused)?;
        check(&opening, frame).map_err(refused)?;
        if self.passes(Group::of(frame)) {
            return self.give_past(opening.place, frame, contents);
        }
        let side = &self.free_side;
        // Begun while the side still shows its frames, so that others always know of them.
        let step = self.writer().begin();
        let old = side.close();
        side.open(opening);
        put(&side.free, bit_of(frame));
        if contents == Contents::Zero {
            side.know_zero(frame);
        }
        let flushed = self.flush(&step, old);
        self.requests.parked.forget_run();
        self.settle();
        flushed
    }

    /// Gives a frame that was looked at to the tree, past the sides.
    fn give_past(
        &self,
        place: Place<'m>,
        frame: FrameNumber,
        contents: Contents,
    ) -> Result<(), FreeError> {
        let bit = bit_of(frame);
        self.requests.packed.ends_at(&self.home, place.group);
        let known_zero = if contents == Contents::Zero { bit } else { 0 };
        let step = self.writer().begin();
        let overlap = give_frames(&step, place, bit, known_zero);
        drop(step);
        self.settle();
        if overlap != 0 {
            return Err(FreeError { frame, found: Found::Free });
        }
        put(&self.requests.passed, place.group.number());
        Ok(())
    }

    #[cold]
    #[inline(never)]
    pub(super) fn serve_and_be_done(&self) -> Result<(), FreeError> {
        self.serve_requests();
        Ok(())
    }

    /// The rest of a turn that has begun to give a frame to the tree.
    #[inline(never)]
    pub(super) fn finish_past(&self, gift: Gift<'m>, frame: FrameNumber) -> Result<(), FreeError> {
        let turn = Turn { slot: self };
        let given = gift.end(self.writer(), frame);
        if given.is_ok() {
            put(&self.requests.passed, Group::of(frame).number());
        }
        self.settle();
        drop(turn);
        self.serve();
        given.map_err(|found| FreeError { frame, found })
    }

    /// The same, if the frame is announced in its giant's nodes, and was the first there.
    #[inline(never)]
    pub(super) fn tell_past(&self, gift: Gift<'m>, group: Group) -> Result<(), FreeError> {
        let turn = Turn { slot: self };
        gift.tell();
        gift.end_plainly(self.writer());
        put(&self.requests.passed, group.number());
        drop(turn);
        self.serve();
        Ok(())
    }

    /// After this slot could not take a frame back: asks the tree, if it was that the frame is not
    /// managed. It may be isolated, or may have been added since a side was opened.
    #[cold]
    #[inline(never)]
    pub(super) fn ask_tree(&self, tree: &FrameTree<'m>, error: FreeError) -> Result<(), FreeError> {
        match error.found {
            Found::Unmanaged => {
                let freed = tree.free_with(self.writer(), error.frame);
                self.settle();
                freed
            }
            _ => Err(error),
        }
    }

    /// Gives all cached frames back to the tree, and the home up.
    pub(super) fn give_all(&self) -> Result<(), FreeError> {
        let Slot { alloc_side, free_side, home, .. } = self;
        if (1..MANY).contains(&get(&free_side.free).count_ones()) {
            put(&self.requests.passed, get(&free_side.group));
        }
        // As in `free_elsewhere`.
        let step = self.writer().begin();
        let given = [alloc_side, free_side].map(|side| self.flush(&step, side.close()));
        drop(step);
        let block = self.unpark_block();
        home.give_up();
        self.requests.packed.forget();
        if let Some(budget) = self.requests.budget {
            budget.close(self.writer(), || self.ring());
        }
        let [first, second] = given;
        first.and(second).and(block)
    }

    /// Gives what a side held to the tree, and tells those who look for runs.
    #[inline(always)]
    fn flush(&self, step: &Step<'_>, held: Held<'_>) -> Result<(), FreeError> {
        if let Held { place: Some(place), frames, .. } = held
            && frames != 0
        {
            let group = place.group;
            self.requests.packed.ends_at(&self.home, group);
            let [first, last] = [frames.trailing_zeros(), u64::BITS - 1 - frames.leading_zeros()];
            let behind = FrameNumber::trusted(group.frame(last).get() + 1);
            self.requests.run_hints.flushed(NumberRange::trusted(group.frame(first), behind));
        }
        give_held(step, held)
    }

    /// Between two uses; an interrupt that comes in between serves the request itself.
    #[cold]
    #[inline(never)]
    pub(super) fn serve_requests(&self) {
        // ORDERING: a request only.
        while self.requests.asked.load(Ordering::Relaxed) != 0
            && let Some(turn) = self.enter()
        {
            // ORDERING: withdrawn before the work: one that comes just now is either withdrawn,
            // and the work is still to come, or kept. Acquire as said in `request_drain`.
            let asked = self.requests.asked.fetch_and(PROMISED, Ordering::Acquire);
            if asked & DRAIN != 0 {
                // A double free that only this flush could see is counted in the journal.
                let _ = self.give_all();
            }
            if asked & PROMISED != 0 {
                // One that an interrupt has made meanwhile is kept by this too: it was made inside
                // this turn, whose frames have gone.
                // ORDERING: Release pairs with the Acquire in `is_about_to_drain`.
                self.requests.asked.fetch_and(!PROMISED, Ordering::Release);
            }
            drop(turn);
            if asked & TELL != 0
                && let Some(budget) = self.requests.budget
            {
                budget.tell();
            }
        }
    }
}

/// Gives what a side held to the tree.
#[inline(always)]
pub(super) fn give_held(step: &Step<'_>, held: Held<'_>) -> Result<(), FreeError> {
    let Held { place: Some(place), frames, known_zero } = held else { return Ok(()) };
    if frames == 0 {
        return Ok(());
    }
    let writer = step.writer();
    writer.add(Counter::Flushes, 1);
    let gone = if place.block().is_full() { 0 } else { gone_of(&place, frames) };
    // While a frame is held its block can't be free as a whole: else all were freed twice.
    let overlap = match check_above(place.block()) {
        Ok(()) => give_frames(step, place, frames & !gone, known_zero & !gone),
        Err(_) => frames,
    };
    match overlap | gone {
        0 => Ok(()),
        _ => Err(late_free(writer, place.group, overlap, gone)),
    }
}

/// Which of these frames are gone, perhaps since the side was opened, and are not to come back.
#[cold]
#[inline(never)]
fn gone_of(place: &Place<'_>, frames: u64) -> u64 {
    frames & place.block().gone(place.group.word())
}

/// Looks whether a frame can be taken back to its group, of which nothing is held here.
#[inline(always)]
fn check(opening: &Opening<'_>, frame: FrameNumber) -> Result<(), Found> {
    let Opening { place, managed } = opening;
    if managed & bit_of(frame) == 0 {
        return Err(Found::Unmanaged);
    }
    check_above(place.block())?;
    // ORDERING: exact at rest, as promised; no contents are read through it.
    if place.leaf.load(Ordering::Relaxed) & bit_of(frame) != 0 {
        return Err(Found::Free);
    }
    Ok(())
}

/// The error for frames that were free already, or gone, when a side was flushed.
#[cold]
#[inline(never)]
fn late_free(writer: Writer<'_>, group: Group, overlap: u64, gone: u64) -> FreeError {
    writer.add(Counter::LateDoubleFrees, u64::from((overlap | gone).count_ones()));
    match overlap {
        0 => refuse(group, gone, Found::Unmanaged),
        _ => refuse(group, overlap, Found::FreeAtFlush),
    }
}
