//! The managed ranges: asked where a bit for the whole block does not tell.
//!
//! Those that the memory map gave stand in a sorted list. Those that came later hang from a
//! link, each from the one that came after it, and are never taken away. **A range is claimed by
//! being hung there**, after a look at all others: of two that overlap the later one sees the
//! earlier, so only one succeeds.
//!
//! A few records are set aside for later ranges, so that what lies beside memory that is known
//! already needs no metadata of its own.

use crate::frame::{FrameNumber, NumberRange};
use crate::geometry::WORD_BITS;
use crate::node::mask_between;
use crate::sync::{Link, Ordering, Word};

/// The ranges of frames that are managed.
#[derive(Debug)]
pub struct Ranges<'m> {
    /// From the memory map: ascending, disjoint, not adjacent.
    initial: &'m [NumberRange],
    /// Those that came later, the latest first.
    latest: Link<'m, Record<'m>>,
    spare: &'m [Record<'m>],
}

/// A range that came later, or room for one.
#[derive(Debug)]
pub struct Record<'m> {
    /// Its first frame.
    start: Word,
    /// The frame behind it; 0 for a record that is not in use.
    end: Word,
    /// The one before.
    next: Link<'m, Record<'m>>,
}

impl<'m> Record<'m> {
    /// Room for a range.
    pub fn new() -> Self {
        Self { start: Word::new(0), end: Word::new(0), next: Link::empty() }
    }

    /// The range; of a record that has been hung up, and does not change any more.
    fn range(&self) -> NumberRange {
        // ORDERING: written before the record was published by its link.
        let [start, end] = [&self.start, &self.end].map(|word| word.load(Ordering::Relaxed));
        NumberRange::trusted(FrameNumber::trusted(start), FrameNumber::trusted(end))
    }

    /// Makes this record the caller's, if nobody has it.
    fn take(&self) -> bool {
        // ORDERING: nothing is read through a record that is not in use.
        self.end.compare_exchange(0, u64::MAX, Ordering::Relaxed).is_ok()
    }
}

impl<'m> Ranges<'m> {
    /// These ranges (ascending, disjoint, not adjacent), and room for some more.
    pub fn new(initial: &'m [NumberRange], spare: &'m [Record<'m>]) -> Self {
        Self { initial, latest: Link::empty(), spare }
    }

    /// A record for a range to come, if there is one left.
    pub fn take_record(&self) -> Option<&'m Record<'m>> {
        self.spare.iter().find(|record| record.take())
    }

    /// Puts a record back that was not needed.
    pub fn put_record(&self, record: &Record<'_>) {
        // ORDERING: as in `take`.
        record.end.store(0, Ordering::Relaxed);
    }

    /// Makes the frames of `range` managed.
    ///
    /// # Errors
    /// Those that are managed already, or some of them; then nothing has changed.
    pub fn claim(&self, range: NumberRange, record: &'m Record<'m>) -> Result<(), NumberRange> {
        // ORDERING: published by the link below.
        record.start.store(range.start().get(), Ordering::Relaxed);
        // ORDERING: as above.
        record.end.store(range.end().get(), Ordering::Relaxed);
        loop {
            let latest = self.latest.load();
            if let Some(both) = self.overlap(range) {
                return Err(both);
            }
            record.next.copy(latest);
            if self.latest.replace(latest, record).is_ok() {
                return Ok(());
            }
        }
    }

    /// What is managed of a range, or a part of that: a look.
    pub fn overlap(&self, range: NumberRange) -> Option<NumberRange> {
        let first = self.initial.partition_point(|other| other.end() <= range.start());
        let initial = self.initial.get(first).copied();
        initial.into_iter().chain(self.later()).find_map(|other| range.overlap(other))
    }

    /// The managed frames of the 64 from `base` on, one bit each.
    pub fn mask(&self, base: FrameNumber) -> u64 {
        let base = base.get();
        let first = self.initial.partition_point(|range| range.end().get() <= base);
        let near = |range: &&NumberRange| range.start().get() < base + WORD_BITS;
        let initial = self.initial[first..].iter().take_while(near).copied();
        initial.chain(self.later()).fold(0, |managed, range| {
            let (start, end) = (range.start().get() as usize, range.end().get() as usize);
            managed | mask_between(start, end, base as usize)
        })
    }

    /// All of them, ascending, neighbours as one.
    pub fn joined(&self) -> impl Iterator<Item = NumberRange> {
        let mut from = FrameNumber::trusted(0);
        core::iter::from_fn(move || {
            let rest = self.all().filter(|range| range.start() >= from);
            let lowest = rest.min_by_key(|range| range.start())?;
            from = lowest.end();
            while let Some(next) = self.all().find(|range| range.start() == from) {
                from = next.end();
            }
            Some(NumberRange::trusted(lowest.start(), from))
        })
    }

    /// All of them, as they came.
    pub fn all(&self) -> impl Iterator<Item = NumberRange> {
        self.initial.iter().copied().chain(self.later())
    }

    fn later(&self) -> impl Iterator<Item = NumberRange> + use<'m> {
        let records = core::iter::successors(self.latest.load(), |record| record.next.load());
        records.map(Record::range)
    }
}
