//! Short runs: at most a word of frames, as simply as can be.
//!
//! From the allocation side and back to it, without a read-modify-write: what is taken is where the
//! side's lowest frame is, most often.
//!
//! **Parked.** A run that falls into neither side's group would go to the tree, and the next
//! request for as many frames would take the lowest from there. If that will be this one, by what
//! the CPU knows ([`crate::tree`], `near`), it waits in the free side, if that is dry: a run that
//! is replaced costs no read-modify-write. Nobody else gets a frame of it meanwhile: before
//! anything else is looked for in the tree, or comes free below, and before a refill, it goes to
//! the tree. So which frames are handed out is as if it had been there all the time.
//!
//! What is not as simple (a budget to ask, a dry allocation side, a run across words, and what will
//! be refused) takes another turn.

use super::Slot;
use super::side::{get, put};
use crate::directory::Group;
use crate::error::FreeError;
use crate::frame::{FrameNumber, NumberRange};
use crate::geometry::{FULL, WORD_BITS};
use crate::tree::{FrameTree, Opening};

/// What is left to do when a turn has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rest {
    /// Nothing.
    Nothing,
    /// What others have asked for: [`Slot::serve`].
    Requests,
}

/// The frames of a run in their group, a bit for each, if it lies in one and is not empty.
#[inline(always)]
pub fn frames_in_a_word(run: NumberRange) -> Option<u64> {
    let (first, last) = (run.start().get(), run.end().get().wrapping_sub(1));
    if (first ^ last) >= WORD_BITS {
        return None;
    }
    // Those from the first one on, without those above the last.
    let from = u64::MAX << (first % WORD_BITS);
    let frames = from & !(u64::MAX << 1 << (last % WORD_BITS));
    (frames != 0).then_some(frames)
}

impl<'m> Slot<'m> {
    /// Takes a run of so many frames, 1 to 64, from the allocation side, if it has them in a row,
    /// or the one that is parked, if it is as long: the first one. What is left to do is left to
    /// the caller, who has something to keep meanwhile.
    #[inline(always)]
    pub fn alloc_run_at_once(&self, count: u32) -> Option<(FrameNumber, Rest)> {
        let turn = self.enter()?;
        let Self { alloc_side, free_side, requests, .. } = self;
        let ones = u64::MAX >> (u64::BITS - count);
        let first = alloc_side.alloc_run_below(ones);
        let first = first.or_else(|| {
            let parked = free_side.alloc_run_exactly(ones)?;
            requests.parked.forget_run();
            Some(parked)
        });
        let first = first.or_else(|| alloc_side.alloc_run(count));
        drop(turn);
        Some((first?, if self.is_asked() { Rest::Requests } else { Rest::Nothing }))
    }

    /// Takes frames of one group back to the cache, if a side is open for them and nothing is to
    /// be said against any: whether it did.
    #[inline(always)]
    pub fn free_run_at_once(&self, run: NumberRange, frames: u64) -> bool {
        let group = Group::of(run.start());
        let Some(turn) = self.enter() else { return false };
        let Self { alloc_side, free_side, .. } = self;
        let is_back = if alloc_side.is_open_for(group) {
            alloc_side.take_back_all(frames)
        } else {
            free_side.is_open_for(group) && free_side.take_back_all(frames)
        };
        drop(turn);
        is_back && self.serve()
    }

    /// Parks a run of one group in the dry free side, if it is the lowest of its length from now
    /// on and nothing is to be said against it; else nothing has happened, and `slowly` takes a
    /// turn of its own. What is called is called last, as in [`Slot::free_past`].
    #[inline(always)]
    pub fn free_run_past(
        &self,
        tree: &FrameTree<'m>,
        (run, frames): (NumberRange, u64),
        slowly: impl FnOnce() -> Result<(), FreeError>,
    ) -> Result<(), FreeError> {
        let Some(turn) = self.enter() else { return slowly() };
        let Self { alloc_side, free_side, requests, .. } = self;
        let group = Group::of(run.start());
        let is_busy = get(&free_side.free) != 0 || alloc_side.is_open_for(group);
        let is_twice = requests.parked.has(run.start());
        if is_busy || is_twice || !requests.run_hints.expects(run) || requests.budget.is_some() {
            drop(turn);
            return slowly();
        }
        let Some(place) = tree.place_to_park(group, frames) else {
            drop(turn);
            return slowly();
        };
        free_side.open(Opening { place, managed: FULL });
        put(&free_side.free, frames);
        requests.parked.put_run();
        drop(turn);
        if self.is_asked() { self.serve_and_be_done() } else { Ok(()) }
    }

    /// Gives a run or a block that is parked to the tree, so that who searches there finds it.
    #[inline(always)]
    pub(super) fn unpark(&self) {
        if self.requests.parked.has_run() {
            self.flush_parked();
        }
        // A double free that only this flush could see is counted in the journal.
        let _ = self.unpark_block();
    }

    #[inline(never)]
    fn flush_parked(&self) {
        self.requests.parked.forget_run();
        if get(&self.free_side.free) != 0 {
            self.flush_free_side();
        }
    }
}
