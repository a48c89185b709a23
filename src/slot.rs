//! A CPU's slot: its page cache with an allocation side and a free side.
//!
//! Each side holds frames of one 64-frame group. Allocations take from the one, frees go to
//! whichever side's group they fall into; a free into the group beside that of the free side
//! flushes this and opens it for its own group. When the allocation side runs dry it trades places
//! with the free side, if that holds many; else what it holds goes to the tree, and a refill comes
//! from there. So bursts and sequential frees cost one atomic read-modify-write for up to 64
//! frames, a random free one.
//!
//! **A free far from the last ones** goes to the tree alone, past the sides, while the free side
//! holds something: at random the next one falls elsewhere again, and to flush one frame and to
//! open the side for another costs more than the frame's own way to the tree. Only when two in
//! turn fall into one group that is not open, the free side moves there.
//!
//! **Few freed frames** are not handed out again at once. A CPU that frees a frame and then
//! allocates one, over and over, would get back what it just freed for ever, wherever that lies.
//! From the tree it gets the lowest, and blocks of 2 MiB above come free as a whole: of the free
//! half of a GiB 25 % after 50 rounds of replacing a tenth, where handing out the last one left 0
//! (`make bench`, "not in whole 2 MiB").
//!
//! **Whose turn.** The slot is used under a plain busy flag. The kernel promises that no two
//! CPUs use one slot at once (see [`crate::Cpus`]), so the only other user is an interrupt on
//! the same CPU; it finds the flag set and goes to the tree. An interrupt between the look at
//! the flag and its setting does no harm: it is finished before the interrupted code goes on.
//!
//! **Double frees.** Before a frame is taken back, three things are looked at: this side's bits,
//! the frame's bit in the tree (one plain load, from a leaf that is at hand), and, only when the
//! side holds nothing of the group, the block and the giant above: while it holds a frame, they
//! can't become free as a whole.
//!
//! Both sides never hold frames of the same group: a side is opened for a group only when the
//! other is open for another one or is dry, and a refill closes the free side first.
//!
//! All words are atomic, written by the owner with plain stores, so that others can count.

use crate::bits::{lowest_ones, lowest_run};
use crate::budget::Budget;
use crate::cache::{Contents, Handful, Known};
use crate::directory::{Block, Group, Place, bit_of};
use crate::error::{Found, FreeError, OutOfMemory};
use crate::frame::{Frame, FrameNumber, NumberRange};
use crate::geometry::{BLOCK_FRAMES, FRAME_LIMIT, NODE_WORDS, WORD_BITS};
use crate::journal::{Counter, Journal, Step, Writer};
use crate::node::{Given, mask_between};
use crate::root::Giant;
use crate::sync::{Link, Ordering, Way, Word, interrupt_fence};
use crate::tree::{
    BlockHome, FrameTree, Gift, HomeCell, Opening, Refill, RunHints, check_above, finish,
    give_at_once, give_frames, refuse,
};

/// One CPU's page cache. Two pairs of lines: the owner's, and one for requests to it.
#[derive(Debug)]
#[repr(C, align(128))]
pub struct Slot<'m> {
    busy: Word,
    journal: &'m Journal,
    home: HomeCell<'m>,
    alloc_side: Side<'m>,
    free_side: Side<'m>,
    requests: Requests<'m>,
}

/// What others write, kept off the owner's lines; and what it seldom needs.
#[derive(Debug)]
#[repr(C, align(128))]
struct Requests<'m> {
    /// What is to be done at the end of a turn: [`DRAIN`], [`TELL`].
    asked: Word,
    /// `None` if there is nothing to ask and nothing to tell.
    budget: Option<&'m Budget<'m>>,
    /// The group that the last frame went past the sides to.
    passed: Word,
    /// Empty if there is a budget to ask.
    block_home: BlockHome<'m>,
    run_hints: RunHints,
}

/// How many freed frames are handed out again rather than given to the tree.
const MANY: u32 = 8;

/// The cache is to be given back.
const DRAIN: u64 = 1;
/// Free memory has crossed a mark.
const TELL: u64 = 2;

/// Frames of one group.
#[derive(Debug)]
#[repr(C)]
struct Side<'m> {
    /// The group's number, or [`Side::CLOSED`].
    group: Word,
    free: Word,
    /// Frames that can't simply be taken back: those that are not managed, and those that were
    /// known to be zero when they came here and have not been freed since.
    guarded: Word,
    /// Of these, those that are not managed.
    foreign: Word,
    /// The group's word of truth; of a side that was never open any word.
    leaf: Way<'m, Word>,
    giant: Link<'m, Giant<'m>>,
}

/// The right to use a slot until it is dropped. One pointer, so that it stays in a register;
/// the tree comes as an argument.
#[derive(Debug)]
pub struct Turn<'s, 'm> {
    slot: &'s Slot<'m>,
}

impl<'m> Slot<'m> {
    /// A slot that holds nothing, for the CPU whose journal this is.
    pub fn new(journal: &'m Journal, budget: &'m Budget<'m>) -> Self {
        Self {
            busy: Word::new(0),
            journal,
            home: HomeCell::new(),
            alloc_side: Side::new(journal.any_word()),
            free_side: Side::new(journal.any_word()),
            requests: Requests {
                asked: Word::new(0),
                budget: (!budget.is_off()).then_some(budget),
                passed: Word::new(Side::CLOSED),
                block_home: BlockHome::new(),
                run_hints: RunHints::new(),
            },
        }
    }

    /// A use by the CPU that owns this slot; `None` in an interrupt inside another use. No atomic
    /// read-modify-write. A request to drain that is there at the end is served then, also one
    /// that an interrupt inside the use has left.
    #[inline(always)]
    pub fn take_turn<R>(&self, work: impl FnOnce(Turn<'_, 'm>) -> R) -> Option<R> {
        let result = work(self.enter()?);
        self.serve();
        Some(result)
    }

    /// Serves what was asked for; true.
    #[inline(always)]
    fn serve(&self) -> bool {
        if self.is_asked() {
            self.serve_requests();
        }
        true
    }

    #[inline(always)]
    fn is_asked(&self) -> bool {
        // ORDERING: a request only; what it is about is not read through it.
        self.requests.asked.load(Ordering::Relaxed) != 0
    }

    /// Takes a frame from the cache, if it is there for the taking. Nothing of the slow paths is in
    /// here, nor their errors: what remains is a few dozen instructions, all in registers.
    #[inline(always)]
    pub fn alloc_at_once(&self) -> Option<Frame> {
        let turn = self.enter()?;
        // As a number meanwhile: an owner would have to be looked after if anything panicked.
        let number = self.alloc_side.alloc().map(Frame::into_number);
        drop(turn);
        let number = number?;
        self.serve();
        Some(Frame::owned(number))
    }

    /// Takes a frame back to the cache, if a side is open for it and nothing is to be said
    /// against it: whether it did.
    #[inline(always)]
    pub fn free_at_once(&self, frame: FrameNumber) -> bool {
        let Some(turn) = self.enter() else { return false };
        let Slot { alloc_side, free_side, .. } = self;
        let group = Group::of(frame);
        // Each side with code of its own: a load from the address form that the last store used
        // is free on recent CPUs, and several cycles otherwise.
        let is_back = if alloc_side.is_open_for(group) {
            alloc_side.take_back_at_once(frame)
        } else {
            free_side.is_open_for(group) && free_side.take_back_at_once(frame)
        };
        drop(turn);
        // Else it takes another turn, whose end serves the requests. (To go on with this one was
        // tried: it makes the common way longer by as much as it saves on the other.)
        is_back && self.serve()
    }

    /// Takes a run of so many frames from the allocation side, if it has them in a row: its first
    /// frame.
    #[inline(always)]
    pub fn alloc_run_at_once(&self, count: u32) -> Option<FrameNumber> {
        let turn = self.enter()?;
        let first = self.alloc_side.alloc_run(count);
        drop(turn);
        let first = first?;
        self.serve();
        Some(first)
    }

    /// Takes frames of one group back to the cache, if a side is open for them and nothing is to
    /// be said against any: whether it did.
    #[inline(always)]
    pub fn free_run_at_once(&self, run: NumberRange) -> bool {
        let (group, at) = (Group::of(run.start()), run.start().get() % WORD_BITS);
        let len = run.len();
        if len == 0 || at + len > WORD_BITS {
            return false;
        }
        let frames = (u64::MAX >> (u64::from(u64::BITS) - len)) << at;
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

    /// Gives a frame to the tree, past the sides. If it does not belong there, or that is not
    /// simple, nothing has happened, and `slowly` takes a turn of its own. So short that no
    /// register needs to be saved: what is called is called last.
    #[inline(always)]
    pub fn free_past(
        &self,
        tree: &FrameTree<'m>,
        frame: FrameNumber,
        slowly: impl FnOnce() -> Result<(), FreeError>,
    ) -> Result<(), FreeError> {
        let Some(turn) = self.enter() else { return slowly() };
        let group = Group::of(frame);
        if !self.passes(group) {
            drop(turn);
            return slowly();
        }
        let Some(gift) = tree.begin_to_give(self.writer(), frame) else {
            drop(turn);
            return slowly();
        };
        if !gift.is_plain(frame) || self.requests.budget.is_some() {
            core::mem::forget(turn);
            return self.finish_past(gift, frame);
        }
        gift.end_plainly(self.writer());
        put(&self.requests.passed, group.number());
        drop(turn);
        if self.is_asked() { self.serve_and_be_done() } else { Ok(()) }
    }

    /// Whether a frame goes to the tree alone, past both sides, and the free side stays where it
    /// is.
    #[inline(always)]
    fn passes(&self, group: Group) -> bool {
        let Slot { alloc_side, free_side, requests, .. } = self;
        let is_far = group.number().wrapping_sub(get(&free_side.group)).wrapping_add(1) > 2;
        is_far
            && !alloc_side.is_open_for(group)
            && get(&free_side.free) != 0
            && get(&requests.passed) != group.number()
    }

    /// Takes a block near the last one, if there is one: its first frame. One read-modify-write.
    #[inline(always)]
    pub fn alloc_block_at_once(&self, tree: &FrameTree<'m>) -> Option<FrameNumber> {
        let turn = self.enter()?;
        let Some(block) = self.requests.block_home.claim() else {
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

    /// Gives a block back, if nothing is to be said against it before and there is no budget;
    /// `None` if not. One read-modify-write.
    #[inline(always)]
    pub fn free_block_at_once(
        &self,
        tree: &FrameTree<'m>,
        first: FrameNumber,
    ) -> Option<Result<(), FreeError>> {
        let block = tree.block_to_free(first)?;
        let turn = self.enter()?;
        let number = first.get() / BLOCK_FRAMES;
        let holds_some = |side: &Side<'m>| side.stretch(NODE_WORDS as u64) == number;
        if holds_some(&self.alloc_side)
            || holds_some(&self.free_side)
            || self.requests.budget.is_some()
        {
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

    #[inline(always)]
    fn enter(&self) -> Option<Turn<'_, 'm>> {
        if self.is_busy() {
            return None;
        }
        // ORDERING: only this CPU, and interrupts on it, write the flag; the fence is all that
        // an interrupt needs.
        self.busy.store(1, Ordering::Relaxed);
        interrupt_fence();
        Some(Turn { slot: self })
    }

    /// Asks the owner to drain at the end of the use that it is in, or of its next one.
    pub fn request_drain(&self) {
        // ORDERING: Release pairs with the Acquire in `serve_requests`: who drains knows what is
        // gone. (So it would by the fence in `FrameTree::retire` alone; who asks for other reasons
        // makes none.)
        self.requests.asked.fetch_or(DRAIN, Ordering::Release);
    }

    /// Has the crossings told at the end of the turn that it is in, or of its next one.
    #[cold]
    pub fn ring(&self) {
        // ORDERING: a request only.
        self.requests.asked.fetch_or(TELL, Ordering::Relaxed);
    }

    /// Whether its owner is inside a use.
    #[inline(always)]
    pub fn is_busy(&self) -> bool {
        // ORDERING: Acquire pairs with the Release at the end of a turn: who finds that it has
        // ended sees what it put into the cache. The owner reads what it wrote.
        self.busy.load(Ordering::Acquire) != 0
    }

    /// Whether its owner is inside a use at whose end it will drain.
    pub fn is_about_to_drain(&self) -> bool {
        // ORDERING: a look.
        self.is_busy() && self.requests.asked.load(Ordering::Relaxed) & DRAIN != 0
    }

    /// How many frames it holds. Anybody may ask; exact while the owner rests.
    pub fn cached(&self) -> u64 {
        self.sides().map(Side::count).sum()
    }

    /// How many frames it may take from the tree without asking. Anybody may ask, as above.
    pub fn credit(&self) -> i64 {
        self.journal.credit()
    }

    /// A frame that is both here and free in the tree: a broken invariant.
    pub fn overlap(&self, tree: &FrameTree<'m>) -> Option<FrameNumber> {
        self.sides()
            .filter_map(Side::held)
            .find_map(|(group, frames)| lowest(group, frames & tree.peek(group.first_frame())?.0))
    }

    /// A frame that is also in another slot, or on both sides of this one: a broken invariant.
    pub fn twice(&self, others: &[Self]) -> Option<FrameNumber> {
        let elsewhere = others.iter().flat_map(Self::sides);
        self.sides().enumerate().find_map(|(index, side)| {
            let (group, frames) = side.held()?;
            let others = self.sides().skip(index + 1).chain(elsewhere.clone());
            let mut same = others.filter_map(Side::held).filter(|(other, _)| *other == group);
            same.find_map(|(_, also)| lowest(group, frames & also))
        })
    }

    /// Whether a frame is here.
    #[cfg(feature = "hardened")]
    pub fn holds(&self, frame: FrameNumber) -> bool {
        let mut sides = self.sides().filter_map(Side::held);
        sides.any(|(group, frames)| group == Group::of(frame) && frames & bit_of(frame) != 0)
    }

    fn sides(&self) -> impl Iterator<Item = &Side<'m>> + Clone {
        [&self.alloc_side, &self.free_side].into_iter()
    }
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
    pub fn alloc(&self, tree: &FrameTree<'m>) -> Result<Frame, OutOfMemory> {
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
        alloc_side.alloc_run(count).or_else(|| free_side.alloc_run(count))
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
            None => tree.alloc_run_near(self.writer(), run_hints, count),
        }
    }

    /// Gives contiguous frames to the tree.
    pub fn free_run(&self, tree: &FrameTree<'m>, run: NumberRange) -> Result<(), FreeError> {
        self.slot.requests.run_hints.widen(run);
        self.unasked(|writer| tree.free_run_with(writer, run))
    }

    /// Takes a frame, and says what is known of its contents: one of zeros, if the allocation
    /// side holds any.
    #[inline]
    pub fn alloc_known(&self, tree: &FrameTree<'m>) -> Result<Known, OutOfMemory> {
        let Slot { alloc_side, .. } = self.slot;
        match alloc_side.alloc_known() {
            Some(known) => Ok(known),
            None => {
                self.slot.fill(tree)?;
                alloc_side.alloc_known().ok_or(OutOfMemory)
            }
        }
    }

    /// Takes the lowest frames of the allocation side; at most `most`, which is not 0.
    #[inline]
    pub fn alloc_some(&self, tree: &FrameTree<'m>, most: u32) -> Result<Handful, OutOfMemory> {
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
    pub fn alloc_urgent(&self, tree: &FrameTree<'m>) -> Result<Frame, OutOfMemory> {
        self.alloc(tree).or_else(|OutOfMemory| self.unasked(|writer| tree.alloc_with(writer)))
    }

    /// Takes the lowest block, if the budget allows it. The next is taken near it if there is no
    /// budget, and it need not be used last.
    pub fn alloc_block(&self, tree: &FrameTree<'m>) -> Result<Frame, OutOfMemory> {
        let look = |writer: Writer<'_>| tree.look_for_block(writer);
        let block = self.asking(BLOCK_FRAMES, look, |writer| tree.take_block(writer))?;
        let Requests { budget, block_home, .. } = &self.slot.requests;
        if budget.is_none() && !tree.is_low_block(block) {
            block_home.put(block);
        }
        Ok(Frame::owned(block.first_frame()))
    }

    /// Hands a block out that was claimed, if it may be.
    #[cold]
    #[inline(never)]
    fn alloc_block_rest(self, tree: &FrameTree<'m>, block: Block<'m>) -> Option<FrameNumber> {
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
    fn free_block_rest(
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
    ) -> Result<T, OutOfMemory> {
        if self.is_rationed() {
            look(self.writer())?;
            self.ask(frames)?;
        }
        self.unasked(work)
    }

    /// Whether there is a reserve, so that who wants many frames has to ask for them; but only for
    /// what is there. While the budget has granted what can't be had, others go without, and
    /// watermarks are crossed for nothing.
    #[inline]
    pub fn is_rationed(&self) -> bool {
        self.slot.requests.budget.is_some_and(Budget::has_reserve)
    }

    /// Asks the budget for so many frames.
    pub fn ask(&self, frames: u64) -> Result<(), OutOfMemory> {
        if self.slot.allow(frames, frames) == 0 { Err(OutOfMemory) } else { Ok(()) }
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
        let held = self.slot.sides().filter_map(Side::held);
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

/// The slow paths, out of line: each is entered by the holder of the turn only.
impl<'m> Slot<'m> {
    #[inline(never)]
    fn alloc_anew(&self, tree: &FrameTree<'m>) -> Result<Frame, OutOfMemory> {
        self.fill(tree)?;
        self.alloc_side.alloc().ok_or(OutOfMemory)
    }

    /// Makes a dry allocation side hold some: those of the free side, if they are many, or else of
    /// a refill.
    #[inline]
    fn fill(&self, tree: &FrameTree<'m>) -> Result<(), OutOfMemory> {
        let Slot { alloc_side, free_side, .. } = self;
        let freed = get(&free_side.free).count_ones();
        if freed >= MANY {
            alloc_side.trade(free_side);
            return Ok(());
        }
        if freed != 0 {
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
    fn refill(&self, tree: &FrameTree<'m>) -> Result<(), OutOfMemory> {
        let Slot { alloc_side, home, .. } = self;
        let mut at = home.get();
        let refill = tree.refill_near(self.writer(), &mut at);
        home.put(at);
        let Refill { cache, block } = refill?;
        alloc_side.open(tree.open_in(block, Group::of(cache.base())));
        alloc_side.put(&cache);
        Ok(())
    }

    fn flush_free_side(&self) {
        // As in `free_elsewhere`; a double free that only this flush could see is counted.
        let step = self.writer().begin();
        let _ = flush(&step, self.free_side.close());
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
        let _ = flush(&step, self.alloc_side.close());
        drop(step);
        self.settle();
        false
    }

    /// A refill of so many frames at most, when the budget ends.
    #[cold]
    #[inline(never)]
    fn fill_with(&self, tree: &FrameTree<'m>, most: u64) -> Result<(), OutOfMemory> {
        if most == 0 {
            return Err(OutOfMemory);
        }
        let cache = tree.alloc_some_with(self.writer(), most as u32)?;
        let group = Group::of(cache.base());
        let block = tree.open(group).map_err(|_| OutOfMemory)?.place.block();
        self.alloc_side.open(tree.open_in(block, group));
        self.alloc_side.put(&cache);
        Ok(())
    }

    /// How many of `least` to `most` frames an ordinary request may take from the tree.
    #[inline]
    fn allow(&self, least: u64, most: u64) -> u64 {
        match self.requests.budget {
            None => most,
            Some(budget) => budget.allow(self.writer(), (least, most), || self.ring()),
        }
    }

    /// After frames went to the tree, or were taken without asking.
    #[inline]
    fn settle(&self) {
        if let Some(budget) = self.requests.budget {
            budget.settle(self.writer(), || self.ring());
        }
    }

    /// Takes a frame back that falls into neither side's group.
    #[inline(never)]
    fn free_elsewhere(
        &self,
        tree: &FrameTree<'m>,
        frame: FrameNumber,
        contents: Contents,
    ) -> Result<(), FreeError> {
        let refused = |found| FreeError { frame, found };
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
        let flushed = flush(&step, old);
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
    fn serve_and_be_done(&self) -> Result<(), FreeError> {
        self.serve_requests();
        Ok(())
    }

    /// The rest of a turn that has begun to give a frame to the tree.
    #[inline(never)]
    fn finish_past(&self, gift: Gift<'m>, frame: FrameNumber) -> Result<(), FreeError> {
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

    /// After this slot could not take a frame back: asks the tree, if it was that the frame is not
    /// managed. It may be isolated, or may have been added since a side was opened.
    #[cold]
    #[inline(never)]
    fn ask_tree(&self, tree: &FrameTree<'m>, error: FreeError) -> Result<(), FreeError> {
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
    fn give_all(&self) -> Result<(), FreeError> {
        let Slot { alloc_side, free_side, home, .. } = self;
        // As in `free_elsewhere`.
        let step = self.writer().begin();
        let given = [alloc_side, free_side].map(|side| flush(&step, side.close()));
        drop(step);
        let mut at = home.get();
        at.leave();
        home.put(at);
        if let Some(budget) = self.requests.budget {
            budget.close(self.writer(), || self.ring());
        }
        let [first, second] = given;
        first.and(second)
    }

    /// Between two uses; an interrupt that comes in between serves the request itself.
    #[cold]
    #[inline(never)]
    fn serve_requests(&self) {
        // ORDERING: a request only.
        while self.requests.asked.load(Ordering::Relaxed) != 0
            && let Some(turn) = self.enter()
        {
            // ORDERING: withdrawn before the work: one that comes just now is either withdrawn,
            // and the work is still to come, or kept. Acquire as said in `request_drain`.
            let asked = self.requests.asked.fetch_and(0, Ordering::Acquire);
            if asked & DRAIN != 0 {
                // A double free that only this flush could see is counted in the journal.
                let _ = self.give_all();
            }
            drop(turn);
            if asked & TELL != 0
                && let Some(budget) = self.requests.budget
            {
                budget.tell();
            }
        }
    }

    #[inline]
    fn writer(&self) -> Writer<'m> {
        Writer::sole(self.journal)
    }
}

/// Gives what a side held to the tree.
#[inline(always)]
fn flush(step: &Step<'_>, held: Held<'_>) -> Result<(), FreeError> {
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

/// What a closed side held.
#[derive(Clone, Copy, Debug)]
struct Held<'m> {
    /// Nowhere, if it was never open.
    place: Option<Place<'m>>,
    frames: u64,
    known_zero: u64,
}

impl<'m> Side<'m> {
    /// The group of a side that is open for none: no frame has this group.
    const CLOSED: u64 = u64::MAX;

    fn new(word: &'m Word) -> Self {
        let [free, guarded, foreign] = core::array::from_fn(|_| Word::new(0));
        let group = Word::new(Self::CLOSED);
        Self { group, free, guarded, foreign, leaf: Way::to(word), giant: Link::empty() }
    }

    #[inline]
    fn is_open_for(&self, group: Group) -> bool {
        get(&self.group) == group.number()
    }

    /// The number of the aligned stretch of so many groups that its group lies in; of a closed
    /// side a number that no stretch has.
    #[inline]
    fn stretch(&self, groups: u64) -> u64 {
        get(&self.group) / groups
    }

    /// How many frames it holds; for anybody.
    fn count(&self) -> u64 {
        // ORDERING: Acquire pairs with the Release in `close`: who finds the frames gone sees the
        // step in which they go to the tree.
        u64::from(self.free.load(Ordering::Acquire).count_ones())
    }

    /// The frames that it holds, if any, and their group.
    fn held(&self) -> Option<(Group, u64)> {
        let frames = get(&self.free);
        (frames != 0).then(|| (Group::new(get(&self.group)), frames))
    }

    /// Takes the lowest frame. What is known of its contents stays on record until its free.
    #[inline(always)]
    fn alloc(&self) -> Option<Frame> {
        let free = get(&self.free);
        if free == 0 {
            return None;
        }
        put(&self.free, free & (free - 1));
        let group = Group::new(get(&self.group));
        Some(Frame::owned(group.frame(free.trailing_zeros())))
    }

    /// Takes the lowest run of so many frames; its first.
    #[inline(always)]
    fn alloc_run(&self, count: u32) -> Option<FrameNumber> {
        let free = get(&self.free);
        let at = lowest_run(free, count)?;
        // The run ends within the word.
        let run = (u64::MAX >> (u64::BITS - count)) << at;
        put(&self.free, free & !run);
        Some(Group::new(get(&self.group)).frame(at))
    }

    /// Takes the lowest frame that is known to be zero, or else the lowest.
    #[inline]
    fn alloc_known(&self) -> Option<Known> {
        let free = get(&self.free);
        let zero = self.known_zero(free);
        let candidates = if zero != 0 { zero } else { free };
        (free != 0).then(|| self.take(candidates & candidates.wrapping_neg()).into_one())
    }

    /// Takes the lowest frames, at most `most`.
    #[inline]
    fn alloc_some(&self, most: u32) -> Handful {
        self.take(lowest_ones(get(&self.free), most))
    }

    /// Takes some of the frames that it holds; what is known of them stays on record, as in
    /// `alloc`.
    #[inline]
    fn take(&self, frames: u64) -> Handful {
        put(&self.free, get(&self.free) & !frames);
        let base = Group::new(get(&self.group)).first_frame();
        Handful::owned(base, frames, self.known_zero(frames))
    }

    /// Which of the frames that it holds, or held just now, are known to be zero.
    #[inline]
    fn known_zero(&self, frames: u64) -> u64 {
        get(&self.guarded) & !get(&self.foreign) & frames
    }

    /// Puts on record that a frame is known to be zero, after it has been taken back.
    #[inline]
    fn know_zero(&self, frame: FrameNumber) {
        put(&self.guarded, get(&self.guarded) | bit_of(frame));
    }

    /// Frames of the group that can't simply be taken back: held here, free in the tree, foreign,
    /// or on record as known to be zero.
    #[inline(always)]
    fn obstacles(&self, held: u64) -> u64 {
        // ORDERING: exact at rest, as promised; no contents are read through it.
        let in_tree = self.leaf.load().load(Ordering::Relaxed);
        held | in_tree | get(&self.guarded)
    }

    /// Takes a frame of the side's group back, unless it is free already or foreign.
    #[inline]
    fn take_back(&self, frame: FrameNumber) -> Result<(), FreeError> {
        if self.take_back_at_once(frame) { Ok(()) } else { self.take_back_slowly(frame) }
    }

    /// The same, if it is as simple as that: whether it did.
    #[inline(always)]
    fn take_back_at_once(&self, frame: FrameNumber) -> bool {
        let held = get(&self.free);
        // So written that the bit is looked at where it is, and set there: one instruction each.
        if held == 0 || (self.obstacles(held) >> (frame.get() % WORD_BITS)) & 1 != 0 {
            return false;
        }
        put(&self.free, held | bit_of(frame));
        true
    }

    /// The same for several frames.
    #[inline(always)]
    fn take_back_all(&self, frames: u64) -> bool {
        let held = get(&self.free);
        if held == 0 || self.obstacles(held) & frames != 0 {
            return false;
        }
        put(&self.free, held | frames);
        true
    }

    /// The same for the first frame of a dry side, for one that was known to be zero, and for
    /// what will be refused.
    #[inline(never)]
    fn take_back_slowly(&self, frame: FrameNumber) -> Result<(), FreeError> {
        let (held, bit) = (get(&self.free), bit_of(frame));
        let refused = |found| Err(FreeError { frame, found });
        // First: it may have been isolated after it came here.
        if held & bit != 0 {
            return refused(Found::Cached);
        }
        if get(&self.foreign) & bit != 0 {
            return refused(Found::Unmanaged);
        }
        if held == 0
            && let Some(giant) = self.giant.load()
        {
            let block = Block { giant, index: Group::of(frame).block() };
            if let Err(found) = check_above(block) {
                return refused(found);
            }
            // It may have become so since the side was opened.
            if !block.is_full() && block.gone(Group::of(frame).word()) & bit != 0 {
                return refused(Found::Unmanaged);
            }
        }
        // From here on nothing is known of its contents.
        put(&self.guarded, get(&self.guarded) & !bit);
        if self.obstacles(held) & bit != 0 {
            return refused(Found::Free);
        }
        put(&self.free, held | bit);
        Ok(())
    }

    /// Opens a dry side for a group.
    #[inline]
    fn open(&self, Opening { place, managed }: Opening<'m>) {
        put(&self.group, place.group.number());
        put(&self.guarded, !managed);
        put(&self.foreign, !managed);
        self.leaf.publish(place.leaf);
        self.giant.publish(place.giant);
    }

    /// Empties and closes it; inside a step, since the frames are in nobody's sight then.
    #[inline]
    fn close(&self) -> Held<'m> {
        let frames = get(&self.free);
        let held = Held { place: self.place(), frames, known_zero: self.known_zero(frames) };
        // ORDERING: Release pairs with the Acquire in `count`.
        self.free.store(0, Ordering::Release);
        put(&self.group, Self::CLOSED);
        held
    }

    #[inline]
    fn place(&self) -> Option<Place<'m>> {
        let group = Group::new(get(&self.group));
        Some(Place { group, giant: self.giant.load()?, leaf: self.leaf.load() })
    }

    #[inline]
    fn put(&self, cache: &Handful) {
        put(&self.free, cache.free());
        put(&self.guarded, get(&self.foreign) | cache.known_zero());
    }

    /// Exchanges what the two sides hold.
    fn trade(&self, other: &Self) {
        let pairs = [
            (&self.group, &other.group),
            (&self.free, &other.free),
            (&self.guarded, &other.guarded),
            (&self.foreign, &other.foreign),
        ];
        for (one, another) in pairs {
            let kept = get(one);
            put(one, get(another));
            put(another, kept);
        }
        self.leaf.trade(&other.leaf);
        self.giant.trade(&other.giant);
    }
}

/// The lowest of some frames of a group.
fn lowest(group: Group, frames: u64) -> Option<FrameNumber> {
    (frames != 0).then(|| group.frame(frames.trailing_zeros()))
}

/// Reads a word of the own slot.
#[inline]
fn get(word: &Word) -> u64 {
    // ORDERING: only the owner writes; others count.
    word.load(Ordering::Relaxed)
}

/// Writes a word of the own slot.
#[inline]
fn put(word: &Word, value: u64) {
    // ORDERING: as in `get`.
    word.store(value, Ordering::Relaxed);
}
