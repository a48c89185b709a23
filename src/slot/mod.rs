//! A CPU's slot: its page cache with an allocation side and a free side; and room for a block of
//! 2 MiB.
//!
//! Each side holds frames of one 64-frame group. Allocations take from the one, frees go to
//! whichever side's group they fall into; a free into the group beside that of the free side
//! flushes this and opens it for its own group. When the allocation side runs dry it trades places
//! with the free side, if that holds many; else what it holds goes to the tree, and a refill comes
//! from there. So bursts and sequential frees cost one atomic read-modify-write for up to 64
//! frames, a random free one.
//!
//! **A free far from the last ones** goes to the tree alone, past the sides; or, if it is the
//! lowest that there is, to the dry allocation side (`past`).
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
//!
//! A use that is as simple as can be is here and in `past`, that of a short run in `runs`, of a
//! block in `blocks`; `turn` has the others, `side` what one side does by itself, `exchange` what
//! goes to the tree and comes from it.

mod blocks;
mod exchange;
mod packed;
mod past;
mod runs;
mod side;
mod turn;

use self::blocks::Parked;
use self::packed::Packed;
pub use self::runs::{Rest, frames_in_a_word};
use self::side::{Side, get, put};
pub use self::turn::Turn;
use crate::budget::Budget;
use crate::directory::Group;
#[cfg(feature = "hardened")]
use crate::directory::bit_of;
use crate::frame::{Frame, FrameNumber};
use crate::geometry::FULL;
use crate::journal::{Journal, Writer};
use crate::sync::{Ordering, Word, interrupt_fence};
use crate::tree::{BlockHome, Crumb, FrameTree, HomeCell, Opening, RunHints};

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
    /// What is to be done at the end of a turn: [`DRAIN`], [`TELL`]; and [`PROMISED`].
    asked: Word,
    /// `None` if there is nothing to ask and nothing to tell.
    budget: Option<&'m Budget<'m>>,
    /// The group that the last frame went past the sides to, or the last few; [`Side::CLOSED`]
    /// if there were many.
    passed: Word,
    /// Empty if there is a budget to ask.
    block_home: BlockHome<'m>,
    run_hints: RunHints,
    /// Nothing if there is a budget to ask.
    parked: Parked,
    packed: Packed,
}

/// A power of two is one shift from a CPU's number to its slot.
#[cfg(not(loom))]
const _: () = assert!(size_of::<Slot<'_>>() == 256);

/// How many freed frames are handed out again rather than given to the tree.
const MANY: u32 = 8;

/// The cache is to be given back.
const DRAIN: u64 = 1;
/// Free memory has crossed a mark.
const TELL: u64 = 2;
/// The owner has said inside a use that it will drain at the end of it, and has not done so yet.
const PROMISED: u64 = 4;

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
                parked: Parked::new(),
                packed: Packed::new(),
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
    pub fn serve(&self) -> bool {
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

    /// Takes a frame of the lowest crumbs of its home's giant, if the cache is dry and it is as
    /// simple as that. What else was found there fills the allocation side.
    #[inline(always)]
    pub fn alloc_crumb(&self, tree: &FrameTree<'m>) -> Option<FrameNumber> {
        let turn = self.enter()?;
        let Some(crumb) = self.take_crumb(tree) else {
            drop(turn);
            return None;
        };
        let (place, frames) = (crumb.place(), crumb.frames());
        if !tree.is_plain(crumb) {
            // Few enough that they stay in registers.
            return turn.alloc_crumb_rest(tree, place.giant, place.group, frames);
        }
        self.alloc_side.open(Opening { place, managed: FULL });
        put(&self.alloc_side.free, frames & (frames - 1));
        if crumb.is_lowest() {
            self.requests.packed.up_to(place.group);
        }
        crumb.settle(self.writer());
        drop(turn);
        self.serve();
        Some(place.group.frame(frames.trailing_zeros()))
    }

    #[inline(always)]
    fn take_crumb(&self, tree: &FrameTree<'m>) -> Option<Crumb<'m>> {
        let Self { alloc_side, free_side, requests, .. } = self;
        let is_dry = get(&alloc_side.free) | get(&free_side.free) == 0;
        if is_dry && !requests.parked.has_block() && requests.budget.is_none() {
            tree.take_crumb(&self.home)
        } else {
            None
        }
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

    /// What the owner says inside a use that can't be drained now: at the end of it.
    #[cold]
    pub fn promise_to_drain(&self) {
        // ORDERING: the owner says it to itself. What a request before this has published stays so.
        self.requests.asked.fetch_or(DRAIN | PROMISED, Ordering::Relaxed);
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

    /// Whether its owner has promised to drain and has not yet, or is inside a use at whose end it
    /// will. Exact as far as it has promised. Otherwise it may be just before it or in the middle,
    /// and this says no: between the end of a use and the look at what is asked it is not seen
    /// whether the owner rests.
    pub fn is_about_to_drain(&self) -> bool {
        // ORDERING: Acquire pairs with the Release in `serve_requests`: who finds the promise gone
        // finds what was given back.
        let asked = self.requests.asked.load(Ordering::Acquire);
        asked & PROMISED != 0 || asked & DRAIN != 0 && self.is_busy()
    }

    /// How many frames it holds. Anybody may ask; exact while the owner rests.
    pub fn cached(&self) -> u64 {
        self.requests.parked.count() + self.sides().map(Side::count).sum::<u64>()
    }

    /// Whether it holds frames, or its owner may have some in its hands. Who finds neither has seen
    /// the owner put down what it had when the look began: the flag is read first.
    pub fn may_hold_some(&self) -> bool {
        self.is_busy() || self.cached() > 0
    }

    /// Whether it may take frames from the tree without asking, or its owner may be about to get
    /// such a credit for frames that it gives back. To be asked after what it holds: who finds
    /// nothing there as it was just given back, and then that the owner rests, finds the credit.
    pub fn may_have_credit(&self) -> bool {
        self.is_busy() || self.credit() > 0
    }

    /// How many frames it may take from the tree without asking. Anybody may ask, as above.
    pub fn credit(&self) -> i64 {
        self.journal.credit()
    }

    /// A frame that is both here and free in the tree: a broken invariant.
    pub fn overlap(&self, tree: &FrameTree<'m>) -> Option<FrameNumber> {
        let is_free = |group: Group| tree.peek(group.first_frame()).map_or(0, |(free, _)| free);
        self.held().find_map(|(group, frames)| lowest(group, frames & is_free(group)))
    }

    /// A frame that is also in another slot, or in two places of this one: a broken invariant.
    pub fn twice(&self, others: &[Self]) -> Option<FrameNumber> {
        let elsewhere = others.iter().flat_map(Self::held);
        self.held().enumerate().find_map(|(index, (group, frames))| {
            let others = self.held().skip(index + 1).chain(elsewhere.clone());
            let mut same = others.filter(|(other, _)| *other == group);
            same.find_map(|(_, also)| lowest(group, frames & also))
        })
    }

    /// Whether a frame is here.
    #[cfg(feature = "hardened")]
    pub fn holds(&self, frame: FrameNumber) -> bool {
        let is_in = |(group, frames)| group == Group::of(frame) && frames & bit_of(frame) != 0;
        self.held().any(is_in)
    }

    /// All that it holds, by groups.
    fn held(&self) -> impl Iterator<Item = (Group, u64)> + Clone {
        let whole = self.requests.parked.groups().map(|group| (group, FULL));
        self.sides().filter_map(Side::held).chain(whole)
    }

    #[inline]
    fn writer(&self) -> Writer<'m> {
        Writer::sole(self.journal)
    }

    fn sides(&self) -> impl Iterator<Item = &Side<'m>> + Clone {
        [&self.alloc_side, &self.free_side].into_iter()
    }
}

/// The lowest of some frames of a group.
fn lowest(group: Group, frames: u64) -> Option<FrameNumber> {
    (frames != 0).then(|| group.frame(frames.trailing_zeros()))
}
