//! Blocks of 2 MiB, as simply as can be.
//!
//! To the tree and from it a block goes with one read-modify-write: it is the lowest of the word of
//! 64 that this CPU took one from last, while there is one.
//!
//! **Parked.** A block that comes free, and that the next request would get from that word, waits
//! in the slot: none. Nobody else gets it meanwhile, so it goes to the tree before anything else is
//! looked for there, before a refill, and before one that lies below comes free; as a run does that
//! is parked (`runs`). Which blocks are handed out is as if it had been there all the time.
//!
//! What is not as simple (a budget to ask, isolated memory, a word that has none, and what will be
//! refused) takes another turn.

use super::exchange::give_held;
use super::side::{Held, Side, get, put};
use super::{Requests, Slot};
use crate::directory::{Block, Group, Place};
use crate::error::FreeError;
use crate::frame::FrameNumber;
use crate::geometry::{BLOCK_FRAMES, FULL, NODE_WORDS};
use crate::journal::{Counter, Step};
use crate::sync::{Ordering, Word};
use crate::tree::{FrameTree, finish, give_at_once, is_held_whole};

/// What waits in a slot: a block, a run in the free side, or both; in one word.
#[derive(Debug)]
pub struct Parked {
    /// The number behind the block's own, in blocks, or 0 if there is none; times two, and 1 more
    /// if the free side may hold a run that was parked there.
    word: Word,
}

impl Parked {
    /// Nothing.
    pub fn new() -> Self {
        Self { word: Word::new(0) }
    }

    /// Whether the free side may hold a run that was parked there.
    #[inline(always)]
    pub fn has_run(&self) -> bool {
        get(&self.word) & 1 != 0
    }

    /// Says that it does.
    #[inline(always)]
    pub fn put_run(&self) {
        put(&self.word, get(&self.word) | 1);
    }

    /// Says that it does not.
    #[inline(always)]
    pub fn forget_run(&self) {
        put(&self.word, get(&self.word) & !1);
    }

    #[inline(always)]
    pub fn has_block(&self) -> bool {
        get(&self.word) > 1
    }

    /// Whether a frame is one of the block.
    #[inline(always)]
    pub fn has(&self, frame: FrameNumber) -> bool {
        get(&self.word) >> 1 == frame.get() / BLOCK_FRAMES + 1
    }

    /// Whether the block does not lie below a frame.
    #[inline(always)]
    pub fn reaches_over(&self, frame: FrameNumber) -> bool {
        frame.get() / BLOCK_FRAMES < get(&self.word) >> 1
    }

    /// How many frames the block has; for anybody.
    pub fn count(&self) -> u64 {
        // ORDERING: Acquire pairs with the Release in `take`, as in `Side::count`.
        if self.word.load(Ordering::Acquire) > 1 { BLOCK_FRAMES } else { 0 }
    }

    /// The block's groups.
    pub fn groups(&self) -> impl Iterator<Item = Group> + Clone + use<> {
        let behind = (get(&self.word) >> 1) * NODE_WORDS as u64;
        (behind.saturating_sub(NODE_WORDS as u64)..behind).map(Group::new)
    }

    #[inline(always)]
    fn put(&self, first: FrameNumber) {
        put(&self.word, (first.get() / BLOCK_FRAMES + 1) << 1 | get(&self.word) & 1);
    }

    /// The block's first frame; from now on it is not here.
    #[inline(always)]
    fn take(&self) -> Option<FrameNumber> {
        let word = get(&self.word);
        let number = (word >> 1).checked_sub(1)?;
        // ORDERING: Release pairs with the Acquire in `count`: who finds it gone sees the step in
        // which it goes to the tree, if it does.
        self.word.store(word & 1, Ordering::Release);
        Some(FrameNumber::trusted(number * BLOCK_FRAMES))
    }
}

impl<'m> Slot<'m> {
    /// Takes the block that is parked, if there is one: its first frame. No read-modify-write.
    #[inline(always)]
    pub fn alloc_parked_block(&self, tree: &FrameTree<'m>) -> Option<FrameNumber> {
        let turn = self.enter()?;
        let first = if tree.isolates_none() { self.requests.parked.take() } else { None };
        drop(turn);
        let first = first?;
        self.serve();
        Some(first)
    }

    /// Parks a block, if the next request would get it from the tree and nothing is to be said
    /// against it: whether it did. No read-modify-write.
    #[inline(always)]
    pub fn park_block(&self, tree: &FrameTree<'m>, first: FrameNumber) -> bool {
        let Some(turn) = self.enter() else { return false };
        let Requests { parked, block_home, .. } = &self.requests;
        let is_next = !parked.has_block()
            && !self.has_side_in(first)
            && block_home.expects(first)
            && tree.isolates_none();
        if is_next {
            parked.put(first);
        }
        drop(turn);
        is_next && self.serve()
    }

    /// Takes a block near the last one, if there is one and none is parked: its first frame. One
    /// read-modify-write.
    #[inline(always)]
    pub fn alloc_block_at_once(&self, tree: &FrameTree<'m>) -> Option<FrameNumber> {
        let turn = self.enter()?;
        let Requests { parked, block_home, .. } = &self.requests;
        let near = if parked.has_block() { None } else { block_home.claim() };
        let Some(block) = near else {
            drop(turn);
            return None;
        };
        if !tree.is_presentable(block) {
            return turn.alloc_block_rest(tree, block);
        }
        self.writer().add(Counter::Taken, BLOCK_FRAMES);
        drop(turn);
        self.serve();
        Some(block.first_frame())
    }

    /// Gives a block back, if nothing is to be said against it before, none above it is parked and
    /// there is no budget; `None` if not. One read-modify-write.
    #[inline(always)]
    pub fn free_block_at_once(
        &self,
        tree: &FrameTree<'m>,
        first: FrameNumber,
    ) -> Option<Result<(), FreeError>> {
        let block = tree.block_to_free(first)?;
        let turn = self.enter()?;
        let Requests { parked, budget, .. } = &self.requests;
        if self.has_side_in(first) || parked.reaches_over(first) || budget.is_some() {
            drop(turn);
            return None;
        }
        let step = self.writer().begin();
        if let Err(given) = give_at_once(block) {
            return Some(turn.free_block_rest(step, block, given));
        }
        self.writer().add(Counter::Returned, BLOCK_FRAMES);
        drop(step);
        drop(turn);
        self.serve();
        Some(Ok(()))
    }

    /// Whether a side is open in the block that begins here.
    #[inline(always)]
    fn has_side_in(&self, first: FrameNumber) -> bool {
        let Self { alloc_side, free_side, .. } = self;
        let number = first.get() / BLOCK_FRAMES;
        let is_in = |side: &Side<'m>| side.stretch(NODE_WORDS as u64) == number;
        is_in(alloc_side) || is_in(free_side)
    }

    /// Gives the block that is parked to the tree, if there is one; inside a step of its own, begun
    /// while it still shows.
    ///
    /// # Errors
    /// Another CPU has freed some of it meanwhile, which only this could see.
    #[inline]
    pub(super) fn unpark_block(&self) -> Result<(), FreeError> {
        if self.requests.parked.has_block() { self.flush_block() } else { Ok(()) }
    }

    #[cold]
    #[inline(never)]
    fn flush_block(&self) -> Result<(), FreeError> {
        let step = self.writer().begin();
        let Requests { parked, block_home, .. } = &self.requests;
        // It lies in the home's word, which changes only while none is parked.
        let Some(block) = parked.take().and_then(|first| block_home.block(first)) else {
            return Ok(());
        };
        let is_back = block.is_full()
            && is_held_whole(block)
            && match give_at_once(block) {
                Ok(()) => {
                    self.writer().add(Counter::Returned, BLOCK_FRAMES);
                    true
                }
                Err(given) => finish(&step, block, given),
            };
        if is_back { Ok(()) } else { give_in_parts(&step, block) }
    }
}

/// Gives a block to the tree of which some is free there already, or gone: what is not.
#[cold]
fn give_in_parts(step: &Step<'_>, block: Block<'_>) -> Result<(), FreeError> {
    let given = (0..NODE_WORDS).map(|word| {
        let place = Place::of(block.group(word), block.giant);
        give_held(step, Held { place, frames: FULL, known_zero: 0 })
    });
    given.fold(Ok(()), Result::and)
}
