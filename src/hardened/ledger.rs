//! The ledger: four bytes for each frame, in one slice for all ranges of the memory map, and in one
//! for each range that came later, found by a search.
//!
//! An entry is changed by a compare-exchange, which decides; nothing else is read through it.

use crate::arena::{Arena, part};
use crate::frame::{FrameNumber, NumberRange};
use crate::sync::{Link, Ordering, Word};

/// The owner's number.
pub const OWNER: u32 = 0xffff;
/// It is handed out.
pub const HELD: u32 = 1 << 16;
/// It is free and filled.
pub const POISONED: u32 = 1 << 17;
/// It is free and was freed as zeroed.
pub const ZEROED: u32 = 1 << 18;
/// It is nobody's for ever.
pub const ASIDE: u32 = 1 << 19;
/// What there is but the owner.
pub const STATE: u32 = HELD | POISONED | ZEROED | ASIDE;
const _: () = assert!(STATE.count_ones() == 4 && STATE & OWNER == 0);

/// The entries of all frames.
#[derive(Debug)]
pub struct Ledgers<'m> {
    /// Those of the memory map, ascending.
    initial: &'m [Ledger<'m>],
    /// Those that came later, the latest first.
    latest: Link<'m, Ledger<'m>>,
}

/// The entries of one range.
#[derive(Debug)]
pub struct Ledger<'m> {
    range: NumberRange,
    /// Two entries a word, those of other ranges too.
    entries: &'m [Word],
    /// Which of them is the range's first.
    first: u64,
    /// The range that came before, of one that came later.
    next: Link<'m, Self>,
}

/// One frame's entry.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'m> {
    pub frame: FrameNumber,
    word: &'m Word,
    shift: u32,
}

impl Entry<'_> {
    pub fn get(self) -> u32 {
        // ORDERING: a look; who changes it decides.
        (self.word.load(Ordering::Relaxed) >> self.shift) as u32
    }

    /// Changes it, if `change` does not object to what it is: what it was, either way.
    pub fn change(self, change: impl Fn(u32) -> Option<u32>) -> Result<u32, u32> {
        // ORDERING: the exchange decides.
        let mut word = self.word.load(Ordering::Relaxed);
        loop {
            let old = (word >> self.shift) as u32;
            let new = change(old).ok_or(old)?;
            let others = word & !(u64::from(u32::MAX) << self.shift);
            let with_new = others | u64::from(new) << self.shift;
            // ORDERING: the frame's own way carries its contents; this only has to be one.
            match self.word.compare_exchange(word, with_new, Ordering::Relaxed) {
                Ok(_) => return Ok(old),
                Err(now) => word = now,
            }
        }
    }
}

impl<'m> Ledgers<'m> {
    /// Bytes that they take for so many frames and ranges of a map.
    pub const fn bytes(frames: u64, ranges: usize) -> usize {
        part::<Ledger<'m>>(ranges) + part::<Word>(words(frames))
    }

    /// For the ranges of a map, in which nobody has anything. Costs in frames.
    pub fn new(
        arena: &mut Arena<'m>,
        (frames, ranges): (u64, usize),
        map: impl Iterator<Item = NumberRange>,
    ) -> Self {
        let entries = arena.deal(words(frames), |_| Word::new(0));
        let mut behind = 0;
        let ledgers = map.map(|range| {
            let first = behind;
            behind += range.len();
            Ledger { range, entries, first, next: Link::empty() }
        });
        Self { initial: arena.deal_all(ranges, ledgers), latest: Link::empty() }
    }

    /// Opens one more for memory that is claimed by now, and not free yet.
    pub fn open(&self, ledger: &'m Ledger<'m>) {
        loop {
            let latest = self.latest.load();
            ledger.next.copy(latest);
            if self.latest.replace(latest, ledger).is_ok() {
                return;
            }
        }
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &'m Ledger<'m>> + use<'m> {
        self.initial.iter().chain(self.later())
    }

    fn later(&self) -> impl Iterator<Item = &'m Ledger<'m>> + use<'m> {
        core::iter::successors(self.latest.load(), |ledger| ledger.next.load())
    }

    fn of(&self, frame: FrameNumber) -> Option<&'m Ledger<'m>> {
        let at = self.initial.partition_point(|ledger| ledger.range.end() <= frame);
        let initial = self.initial.get(at).into_iter();
        initial.chain(self.later()).find(|ledger| ledger.range.contains(frame))
    }

    /// The entries of some frames; `None` for one that has none.
    pub fn entries(&self, frames: NumberRange) -> impl Iterator<Item = Option<Entry<'m>>> {
        let mut ledger: Option<&Ledger<'m>> = None;
        (frames.start().get()..frames.end().get()).map(FrameNumber::trusted).map(move |frame| {
            if !ledger.is_some_and(|ledger| ledger.range.contains(frame)) {
                ledger = self.of(frame);
            }
            ledger.map(|ledger| ledger.entry(frame))
        })
    }

    /// The frame of the memory map that has so many others of it below, counted modulo all.
    pub fn nth(&self, index: u64) -> Option<FrameNumber> {
        let last = self.initial.last()?;
        let at = index % (last.first + last.range.len());
        let ledger = &self.initial[self.initial.partition_point(|next| next.first <= at) - 1];
        Some(FrameNumber::trusted(ledger.range.start().get() + at - ledger.first))
    }
}

impl<'m> Ledger<'m> {
    /// Bytes that it takes for so many frames.
    pub const fn bytes(frames: u64) -> usize {
        part::<Self>(1) + part::<Word>(words(frames))
    }

    /// For memory that is about to come.
    pub fn new(arena: &mut Arena<'m>, range: NumberRange) -> &'m Self {
        let mut room = arena.deal_part(1);
        let entries = arena.deal(words(range.len()), |_| Word::new(0));
        room.put(Self { range, entries, first: 0, next: Link::empty() })
    }

    /// Its entries, ascending.
    pub fn entries(&self) -> impl Iterator<Item = Entry<'m>> {
        let frames = self.range.start().get()..self.range.end().get();
        frames.map(FrameNumber::trusted).map(|frame| self.entry(frame))
    }

    fn entry(&self, frame: FrameNumber) -> Entry<'m> {
        let at = self.first + frame.get() - self.range.start().get();
        Entry { frame, word: &self.entries[at as usize / 2], shift: at as u32 % 2 * 32 }
    }
}

/// Whether a frame with such an entry may be handed out.
pub const fn is_free(entry: u32) -> bool {
    entry & (HELD | ASIDE) == 0
}

const fn words(frames: u64) -> usize {
    frames.div_ceil(2) as usize
}
