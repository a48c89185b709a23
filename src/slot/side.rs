//! One side of a slot: frames of one group, and what is known of them.

use crate::bits::{lowest_ones, lowest_run};
use crate::cache::{Handful, Known};
use crate::directory::{Block, Group, Place, bit_of};
use crate::error::{Found, FreeError};
use crate::frame::{Frame, FrameNumber};
use crate::geometry::WORD_BITS;
use crate::root::Giant;
use crate::sync::{Link, Ordering, Way, Word};
use crate::tree::{Opening, check_above};

/// Frames of one group.
#[derive(Debug)]
#[repr(C)]
pub struct Side<'m> {
    /// The group's number, or [`Side::CLOSED`].
    pub group: Word,
    pub free: Word,
    /// Frames that can't simply be taken back: those that are not managed, and those that were
    /// known to be zero when they came here and have not been freed since.
    guarded: Word,
    /// Of these, those that are not managed.
    foreign: Word,
    /// The group's word of truth; of a side that was never open any word.
    leaf: Way<'m, Word>,
    giant: Link<'m, Giant<'m>>,
}

/// What a closed side held.
#[derive(Clone, Copy, Debug)]
pub struct Held<'m> {
    /// Nowhere, if it was never open.
    pub place: Option<Place<'m>>,
    pub frames: u64,
    pub known_zero: u64,
}

impl<'m> Side<'m> {
    /// The group of a side that is open for none: no frame has this group, and none the one beside
    /// it, wherever numbers wrap.
    pub const CLOSED: u64 = u64::MAX - 1;

    pub fn new(word: &'m Word) -> Self {
        let [free, guarded, foreign] = core::array::from_fn(|_| Word::new(0));
        let group = Word::new(Self::CLOSED);
        Self { group, free, guarded, foreign, leaf: Way::to(word), giant: Link::empty() }
    }

    #[inline]
    pub fn is_open_for(&self, group: Group) -> bool {
        get(&self.group) == group.number()
    }

    /// The number of the aligned stretch of so many groups that its group lies in; of a closed
    /// side a number that no stretch has.
    #[inline]
    pub fn stretch(&self, groups: u64) -> u64 {
        get(&self.group) / groups
    }

    /// How many frames it holds; for anybody.
    pub fn count(&self) -> u64 {
        // ORDERING: Acquire pairs with the Release in `close`: who finds the frames gone sees the
        // step in which they go to the tree.
        u64::from(self.free.load(Ordering::Acquire).count_ones())
    }

    /// The frames that it holds, if any, and their group.
    pub fn held(&self) -> Option<(Group, u64)> {
        let frames = get(&self.free);
        (frames != 0).then(|| (Group::new(get(&self.group)), frames))
    }

    /// Takes the lowest frame. What is known of its contents stays on record until its free.
    #[inline(always)]
    pub fn alloc(&self) -> Option<Frame> {
        let free = get(&self.free);
        if free == 0 {
            return None;
        }
        put(&self.free, free & (free - 1));
        let group = Group::new(get(&self.group));
        Some(Frame::owned(group.frame(free.trailing_zeros())))
    }

    /// Takes the lowest run of so many frames, 1 to 64; its first.
    #[inline(always)]
    pub fn alloc_run(&self, count: u32) -> Option<FrameNumber> {
        let at = lowest_run(get(&self.free), count)?;
        Some(self.take_run(u64::MAX >> (u64::BITS - count), at))
    }

    /// The same of as many frames as there are ones, if it begins with the lowest frame: most often
    /// it does, and that is told without a loop.
    #[inline(always)]
    pub fn alloc_run_below(&self, ones: u64) -> Option<FrameNumber> {
        let free = get(&self.free);
        if free == 0 {
            return None;
        }
        let lowest = free.trailing_zeros();
        (ones & !(free >> lowest) == 0).then(|| self.take_run(ones, lowest))
    }

    /// The same, if it holds these and no others.
    #[inline(always)]
    pub fn alloc_run_exactly(&self, ones: u64) -> Option<FrameNumber> {
        let free = get(&self.free);
        if free == 0 {
            return None;
        }
        let lowest = free.trailing_zeros();
        (free >> lowest == ones).then(|| self.take_run(ones, lowest))
    }

    #[inline(always)]
    fn take_run(&self, ones: u64, at: u32) -> FrameNumber {
        // The run ends within the word.
        put(&self.free, get(&self.free) & !(ones << at));
        Group::new(get(&self.group)).frame(at)
    }

    /// Takes the lowest frame that is known to be zero, or else the lowest.
    #[inline]
    pub fn alloc_known(&self) -> Option<Known> {
        let free = get(&self.free);
        let zero = self.known_zero(free);
        let candidates = if zero != 0 { zero } else { free };
        (free != 0).then(|| self.take(candidates & candidates.wrapping_neg()).into_one())
    }

    /// Takes the lowest frames, at most `most`.
    #[inline]
    pub fn alloc_some(&self, most: u32) -> Handful {
        self.take(lowest_ones(get(&self.free), most))
    }

    /// Takes some of the frames that it holds; what is known of them stays on record, as in
    /// `alloc`.
    #[inline]
    pub fn take(&self, frames: u64) -> Handful {
        put(&self.free, get(&self.free) & !frames);
        let base = Group::new(get(&self.group)).first_frame();
        Handful::owned(base, frames, self.known_zero(frames))
    }

    /// Which of the frames that it holds, or held just now, are known to be zero.
    #[inline]
    pub fn known_zero(&self, frames: u64) -> u64 {
        get(&self.guarded) & !get(&self.foreign) & frames
    }

    /// Puts on record that a frame is known to be zero, after it has been taken back.
    #[inline]
    pub fn know_zero(&self, frame: FrameNumber) {
        put(&self.guarded, get(&self.guarded) | bit_of(frame));
    }

    /// Frames of the group that can't simply be taken back: held here, free in the tree, foreign,
    /// or on record as known to be zero.
    #[inline(always)]
    pub fn obstacles(&self, held: u64) -> u64 {
        // ORDERING: exact at rest, as promised; no contents are read through it.
        let in_tree = self.leaf.load().load(Ordering::Relaxed);
        held | in_tree | get(&self.guarded)
    }

    /// Takes a frame of the side's group back, unless it is free already or foreign.
    #[inline]
    pub fn take_back(&self, frame: FrameNumber) -> Result<(), FreeError> {
        if self.take_back_at_once(frame) { Ok(()) } else { self.take_back_slowly(frame) }
    }

    /// The same, if it is as simple as that: whether it did.
    #[inline(always)]
    pub fn take_back_at_once(&self, frame: FrameNumber) -> bool {
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
    pub fn take_back_all(&self, frames: u64) -> bool {
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
    pub fn take_back_slowly(&self, frame: FrameNumber) -> Result<(), FreeError> {
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
    pub fn open(&self, Opening { place, managed }: Opening<'m>) {
        put(&self.group, place.group.number());
        put(&self.guarded, !managed);
        put(&self.foreign, !managed);
        self.leaf.publish(place.leaf);
        self.giant.publish(place.giant);
    }

    /// Empties and closes it; inside a step, since the frames are in nobody's sight then.
    #[inline]
    pub fn close(&self) -> Held<'m> {
        let frames = get(&self.free);
        let held = Held { place: self.place(), frames, known_zero: self.known_zero(frames) };
        // ORDERING: Release pairs with the Acquire in `count`.
        self.free.store(0, Ordering::Release);
        put(&self.group, Self::CLOSED);
        held
    }

    #[inline]
    pub fn place(&self) -> Option<Place<'m>> {
        let group = Group::new(get(&self.group));
        Some(Place { group, giant: self.giant.load()?, leaf: self.leaf.load() })
    }

    #[inline]
    pub fn put(&self, cache: &Handful) {
        put(&self.free, cache.free());
        put(&self.guarded, get(&self.foreign) | cache.known_zero());
    }

    /// Exchanges what the two sides hold.
    pub fn trade(&self, other: &Self) {
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

/// Reads a word of the own slot.
#[inline]
pub fn get(word: &Word) -> u64 {
    // ORDERING: only the owner writes; others count.
    word.load(Ordering::Relaxed)
}

/// Writes a word of the own slot.
#[inline]
pub fn put(word: &Word, value: u64) {
    // ORDERING: as in `get`.
    word.store(value, Ordering::Relaxed);
}
