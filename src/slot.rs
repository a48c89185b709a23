//! A CPU's slot: its page cache with an allocation side and a free side.
//!
//! Each side holds frames of one 64-frame group. Allocations take from the one, frees go to
//! whichever side's group they fall into; a free elsewhere flushes the free side and opens it
//! for its own group. When the allocation side runs dry it trades places with the free side,
//! and only when both are dry is the tree asked. So bursts and sequential frees cost one atomic
//! read-modify-write for up to 64 frames, and a random free costs one.
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
//! other is open for another one or is dry, and refills happen only when both are dry.
//!
//! All words are atomic, written by the owner with plain stores, so that others can count.

use crate::cache::PageCache;
use crate::directory::{Group, Place, bit_of};
use crate::error::{Found, FreeError, OutOfMemory};
use crate::frame::{Frame, FrameNumber};
use crate::geometry::WORD_BITS;
use crate::journal::Counter;
use crate::sync::{Ordering, Word, interrupt_fence};
use crate::tree::{FrameTree, Home, LeafWord, Opening, refuse};

/// One CPU's page cache. Two pairs of lines: the owner's, and one for requests to it.
#[derive(Debug)]
#[repr(C, align(128))]
pub struct Slot {
    busy: Word,
    home: Word,
    alloc_side: Side,
    free_side: Side,
    requests: Requests,
}

/// What others write: kept off the owner's lines.
#[derive(Debug)]
#[repr(C, align(128))]
struct Requests {
    drain: Word,
}

/// Frames of one group.
#[derive(Debug)]
#[repr(C)]
struct Side {
    /// The group's number, or [`Side::CLOSED`].
    group: Word,
    free: Word,
    /// Frames that were known to be zero when they came here, and have not been freed since.
    known_zero: Word,
    /// Frames of the group that are not managed.
    foreign: Word,
    /// A [`LeafWord`].
    leaf: Word,
    /// The giant's place in the table; with the group, a [`Place`].
    giant: Word,
}

/// The right to use a slot until it is dropped. One pointer, so that it stays in a register;
/// tree and CPU number come as arguments.
#[derive(Debug)]
pub struct Turn<'s> {
    slot: &'s Slot,
}

impl Slot {
    /// A slot that holds nothing.
    pub fn new() -> Self {
        Self {
            busy: Word::new(0),
            home: Word::new(0),
            alloc_side: Side::new(),
            free_side: Side::new(),
            requests: Requests { drain: Word::new(0) },
        }
    }

    /// A use by CPU `cpu`, which owns this slot; `None` in an interrupt inside another use. No
    /// atomic read-modify-write. A request to drain that is there at the end is served then,
    /// also one that an interrupt inside the use has left.
    #[inline(always)]
    pub fn take_turn<R>(
        &self,
        tree: &FrameTree<'_>,
        cpu: usize,
        work: impl FnOnce(Turn<'_>) -> R,
    ) -> Option<R> {
        let turn = self.enter()?;
        let result = work(turn);
        // ORDERING: a request only; what it is about is not read through it.
        if self.requests.drain.load(Ordering::Relaxed) != 0 {
            self.serve_requests(tree, cpu);
        }
        Some(result)
    }

    #[inline(always)]
    fn enter(&self) -> Option<Turn<'_>> {
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
        // ORDERING: a request only.
        self.requests.drain.store(1, Ordering::Relaxed);
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
        self.is_busy() && self.requests.drain.load(Ordering::Relaxed) != 0
    }

    /// How many frames it holds. Anybody may ask; exact while the owner rests.
    pub fn cached(&self) -> u64 {
        self.sides().map(Side::count).sum()
    }

    /// A frame that is both here and free in the tree: a broken invariant.
    pub fn overlap(&self, tree: &FrameTree<'_>) -> Option<FrameNumber> {
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

    fn sides(&self) -> impl Iterator<Item = &Side> + Clone {
        [&self.alloc_side, &self.free_side].into_iter()
    }
}

impl Drop for Turn<'_> {
    #[inline]
    fn drop(&mut self) {
        interrupt_fence();
        // ORDERING: Release pairs with the Acquire in `is_busy`.
        self.slot.busy.store(0, Ordering::Release);
    }
}

impl Turn<'_> {
    /// Takes a frame: from the cache without an atomic read-modify-write, else by a refill.
    #[inline(always)]
    pub fn alloc(&self, tree: &FrameTree<'_>, cpu: usize) -> Result<Frame, OutOfMemory> {
        match self.slot.alloc_side.alloc() {
            Some(frame) => Ok(frame),
            None => self.slot.alloc_anew(tree, cpu),
        }
    }

    /// Takes a frame back, after looking whether it can be.
    #[inline(always)]
    pub fn free(
        &self,
        tree: &FrameTree<'_>,
        cpu: usize,
        frame: FrameNumber,
    ) -> Result<(), FreeError> {
        let Slot { alloc_side, free_side, .. } = self.slot;
        let group = Group::of(frame);
        // Each side with code of its own: a load from the address form that the last store used
        // is free on recent CPUs, and several cycles otherwise.
        if alloc_side.is_open_for(group) {
            alloc_side.take_back(tree, frame)
        } else if free_side.is_open_for(group) {
            free_side.take_back(tree, frame)
        } else {
            self.slot.free_elsewhere(tree, cpu, frame)
        }
    }

    /// How many frames of the `frames` from `first` on it holds; both whole groups.
    pub fn held_in(&self, first: FrameNumber, frames: u64) -> u64 {
        let start = Group::of(first).number();
        let groups = start..start + frames / WORD_BITS;
        self.slot.sides().filter(|side| groups.contains(&get(&side.group))).map(Side::count).sum()
    }

    /// Gives all cached frames back to the tree, and the home up.
    pub fn drain(&self, tree: &FrameTree<'_>, cpu: usize) -> Result<(), FreeError> {
        self.slot.give_all(tree, cpu)
    }
}

/// The slow paths, out of line: each is entered by the holder of the turn only.
impl Slot {
    #[inline(never)]
    fn alloc_anew(&self, tree: &FrameTree<'_>, cpu: usize) -> Result<Frame, OutOfMemory> {
        let Slot { alloc_side, free_side, home, .. } = self;
        if get(&free_side.free) != 0 {
            alloc_side.trade(free_side);
        } else {
            let mut at = Home::from_word(get(home));
            let refill = tree.refill_near(tree.sole_writer(cpu), &mut at);
            put(home, at.to_word());
            let cache = refill?;
            let group = Group::of(cache.base());
            // A refill comes from a managed group.
            let opening = tree.open(group).map_err(|_| OutOfMemory)?;
            alloc_side.open(tree, group, opening);
            alloc_side.put(&cache);
        }
        alloc_side.alloc().ok_or(OutOfMemory)
    }

    /// Takes a frame back that falls into neither side's group.
    #[inline(never)]
    fn free_elsewhere(
        &self,
        tree: &FrameTree<'_>,
        cpu: usize,
        frame: FrameNumber,
    ) -> Result<(), FreeError> {
        let group = Group::of(frame);
        let opening = tree.open(group).map_err(|found| FreeError { frame, found })?;
        let side = &self.free_side;
        let flushed = self.flush(tree, cpu, side);
        side.open(tree, group, opening);
        side.take_back(tree, frame).and(flushed)
    }

    /// Gives all cached frames back to the tree, and the home up.
    fn give_all(&self, tree: &FrameTree<'_>, cpu: usize) -> Result<(), FreeError> {
        let Slot { alloc_side, free_side, home, .. } = self;
        let first = self.flush(tree, cpu, alloc_side);
        let second = self.flush(tree, cpu, free_side);
        let mut at = Home::from_word(get(home));
        tree.leave(&mut at);
        put(home, at.to_word());
        first.and(second)
    }

    /// Between two uses; an interrupt that comes in between serves the request itself.
    #[cold]
    #[inline(never)]
    fn serve_requests(&self, tree: &FrameTree<'_>, cpu: usize) {
        // ORDERING: a request only.
        while self.requests.drain.load(Ordering::Relaxed) != 0
            && let Some(_turn) = self.enter()
        {
            // ORDERING: withdrawn before the work: one that comes just now is either withdrawn,
            // and the work is still to come, or kept.
            self.requests.drain.store(0, Ordering::Relaxed);
            // A double free that only this flush could see is counted in the journal.
            let _ = self.give_all(tree, cpu);
        }
    }

    /// Gives what a side holds to the tree, and closes it.
    fn flush(&self, tree: &FrameTree<'_>, cpu: usize, side: &Side) -> Result<(), FreeError> {
        let writer = tree.sole_writer(cpu);
        // Opened while the side still shows its frames, so that others always know of them.
        let step = writer.begin();
        let Held { group, place, frames, known_zero } = side.close();
        if frames == 0 {
            return Ok(());
        }
        writer.add(Counter::Flushes, 1);
        // While a frame is held its block can't be free as a whole: else all were freed twice.
        let overlap = match tree.check_above(place.block) {
            Ok(()) => tree.give(&step, place, frames, known_zero),
            Err(_) => frames,
        };
        if overlap == 0 {
            return Ok(());
        }
        writer.add(Counter::LateDoubleFrees, u64::from(overlap.count_ones()));
        Err(refuse(group, overlap, Found::FreeAtFlush))
    }
}

/// What a closed side held.
#[derive(Clone, Copy, Debug)]
struct Held {
    group: Group,
    place: Place,
    frames: u64,
    known_zero: u64,
}

impl Side {
    /// The group of a side that is open for none: no frame has this group.
    const CLOSED: u64 = u64::MAX;

    fn new() -> Self {
        let [free, known_zero, foreign, leaf, giant] = core::array::from_fn(|_| Word::new(0));
        Self { group: Word::new(Self::CLOSED), free, known_zero, foreign, leaf, giant }
    }

    #[inline]
    fn is_open_for(&self, group: Group) -> bool {
        get(&self.group) == group.number()
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

    /// Frames of the group that can't simply be taken back: held here, free in the tree, foreign,
    /// or on record as known to be zero.
    #[inline(always)]
    fn obstacles(&self, tree: &FrameTree<'_>, held: u64) -> u64 {
        // ORDERING: exact at rest, as promised; no contents are read through it.
        let in_tree = tree.leaf_word(self.leaf_word()).load(Ordering::Relaxed);
        held | in_tree | get(&self.foreign) | get(&self.known_zero)
    }

    /// Takes a frame of the side's group back, unless it is free already or foreign.
    #[inline(always)]
    fn take_back(&self, tree: &FrameTree<'_>, frame: FrameNumber) -> Result<(), FreeError> {
        let held = get(&self.free);
        if held == 0 || self.obstacles(tree, held) & bit_of(frame) != 0 {
            return self.take_back_slowly(tree, frame);
        }
        put(&self.free, held | bit_of(frame));
        Ok(())
    }

    /// The same for the first frame of a dry side, for one that was known to be zero, and for
    /// what will be refused.
    #[inline(never)]
    fn take_back_slowly(&self, tree: &FrameTree<'_>, frame: FrameNumber) -> Result<(), FreeError> {
        let (held, bit) = (get(&self.free), bit_of(frame));
        let refused = |found| Err(FreeError { frame, found });
        if get(&self.foreign) & bit != 0 {
            return refused(Found::Unmanaged);
        }
        if held & bit != 0 {
            return refused(Found::Cached);
        }
        if held == 0
            && let Err(found) = tree.check_above(self.place().block)
        {
            return refused(found);
        }
        // From here on nothing is known of its contents.
        put(&self.known_zero, get(&self.known_zero) & !bit);
        if self.obstacles(tree, held) & bit != 0 {
            return refused(Found::Free);
        }
        put(&self.free, held | bit);
        Ok(())
    }

    /// Opens a dry side for a group.
    fn open(&self, tree: &FrameTree<'_>, group: Group, Opening { place, managed }: Opening) {
        put(&self.group, group.number());
        put(&self.foreign, !managed);
        put(&self.leaf, tree.leaf_word_at(place).index() as u64);
        put(&self.giant, place.block.giant as u64);
    }

    /// Empties and closes it; inside a step, since the frames are in nobody's sight then.
    fn close(&self) -> Held {
        let held = Held {
            group: Group::new(get(&self.group)),
            place: self.place(),
            frames: get(&self.free),
            known_zero: get(&self.known_zero) & get(&self.free),
        };
        // ORDERING: Release pairs with the Acquire in `count`.
        self.free.store(0, Ordering::Release);
        put(&self.known_zero, 0);
        put(&self.group, Self::CLOSED);
        held
    }

    #[inline]
    fn place(&self) -> Place {
        Place::of(Group::new(get(&self.group)), get(&self.giant) as usize)
    }

    #[inline]
    fn leaf_word(&self) -> LeafWord {
        LeafWord::new(get(&self.leaf) as usize)
    }

    #[inline]
    fn put(&self, cache: &PageCache) {
        put(&self.free, cache.free());
        put(&self.known_zero, cache.known_zero());
    }

    /// Exchanges what the two sides hold.
    fn trade(&self, other: &Self) {
        let pairs = [
            (&self.group, &other.group),
            (&self.free, &other.free),
            (&self.known_zero, &other.known_zero),
            (&self.foreign, &other.foreign),
            (&self.leaf, &other.leaf),
            (&self.giant, &other.giant),
        ];
        for (one, another) in pairs {
            let kept = get(one);
            put(one, get(another));
            put(another, kept);
        }
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
