//! Journals: what each writer has begun, finished and counted, in lines that only it writes.
//!
//! While frames move between levels (a split, a merge, a free that is not announced yet, the
//! repair of a hint) they can be in nobody's sight. Each such step is bracketed in its writer's
//! journal by two monotonic numbers, `begun` and `done`. A reader that finds
//!
//! 1. `done == begun` in every journal,
//! 2. nothing in the summaries,
//! 3. every `begun` as it was in 1
//!
//! knows that nothing moved during its look: "out of memory" is then a fact and not a glimpse.
//! This works without a fence because each effect is published by a read-modify-write with
//! Release, which carries the earlier store to `begun` along: who has seen any effect of a step
//! in 2 sees its `begun` in 3.
//!
//! A journal that belongs to one CPU is written with plain loads and stores. Those who have no
//! CPU identity, and an interrupt inside its own CPU's operation, share journal 0 and write it
//! with read-modify-writes; a handler that used its CPU's own journal could make a number go
//! back when the interrupted code resumes.

use crate::sync::{Ordering, Word};

/// One writer's numbers; two cache lines of its own.
#[derive(Debug)]
#[repr(C, align(128))]
pub struct Journal {
    begun: Word,
    done: Word,
    counters: [Word; Counter::ALL],
}

/// What is counted. Every number only grows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub enum Counter {
    /// Frames taken out of the tree.
    Taken,
    /// Frames given back to the tree.
    Returned,
    /// Refills of a page cache.
    Refills,
    /// Flushes of a page cache.
    Flushes,
    /// Giants split into blocks, and blocks into frames.
    Splits,
    /// Blocks and giants put together again.
    Merges,
    /// Claims that another CPU was faster at.
    LostRaces,
    /// Double frees, and frees of what is gone, that only the flush of a cache could find.
    LateDoubleFrees,
    /// Operations that went past a busy cache: an interrupt inside the allocator.
    Nested,
    /// Frames that this writer was granted from the budget, and those that it gave back to it.
    Granted,
    /// See `Granted`.
    Repaid,
}

impl Counter {
    const ALL: usize = Counter::Repaid as usize + 1;
}

/// How a journal may be written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Access {
    /// By one CPU, uninterrupted by another use of the same journal.
    Sole,
    /// By anybody.
    Shared,
}

/// The right to write into one journal.
#[derive(Clone, Copy, Debug)]
pub struct Writer<'j> {
    journal: &'j Journal,
    access: Access,
    /// The journal of the operation that this one interrupted: it can't finish meanwhile, so
    /// there is no point in waiting for it.
    interrupted: Option<usize>,
}

/// A step under way; dropping it ends it.
#[must_use]
#[derive(Debug)]
pub struct Step<'j> {
    writer: Writer<'j>,
}

impl Journal {
    /// The journal that everybody may write.
    pub const SHARED: usize = 0;

    /// How many journals there are for this many CPUs: one more, which all share.
    pub const fn count_for(cpus: usize) -> usize {
        Self::SHARED + 1 + cpus
    }

    /// An empty journal.
    pub fn new() -> Self {
        Self {
            begun: Word::new(0),
            done: Word::new(0),
            counters: core::array::from_fn(|_| Word::new(0)),
        }
    }

    /// A word that is there, for who needs one that he never looks at.
    pub fn any_word(&self) -> &Word {
        &self.begun
    }

    /// A counter's value.
    pub fn count(&self, counter: Counter) -> u64 {
        // ORDERING: a statistic.
        self.counters[counter as usize].load(Ordering::Relaxed)
    }

    /// How many more frames its writer may take than it has: of what it was granted and what it
    /// has returned, what it has neither taken nor repaid. Exact for a sole writer itself.
    #[inline]
    pub fn credit(&self) -> i64 {
        let [granted, returned] = [Counter::Granted, Counter::Returned].map(|c| self.count(c));
        let [repaid, taken] = [Counter::Repaid, Counter::Taken].map(|c| self.count(c));
        let credit = granted.wrapping_add(returned).wrapping_sub(repaid).wrapping_sub(taken);
        credit.cast_signed()
    }

    /// What was returned, less what was taken, beside something that is read at the same moment;
    /// or more, by what is taken just before and returned just after. Never less.
    pub fn balance_with<T>(&self, read: impl FnOnce() -> T) -> (T, u64) {
        // ORDERING: Acquire pairs with the Release in `add`: who sees that a frame was taken sees
        // what was returned before.
        let taken = self.counters[Counter::Taken as usize].load(Ordering::Acquire);
        let read = read();
        (read, self.count(Counter::Returned).wrapping_sub(taken))
    }
}

impl<'j> Writer<'j> {
    /// For the one CPU that owns this journal, while no other use of it is under way.
    #[inline]
    pub fn sole(journal: &'j Journal) -> Self {
        Self { journal, access: Access::Sole, interrupted: None }
    }

    /// For anybody.
    #[inline]
    pub fn shared(journal: &'j Journal) -> Self {
        Self { journal, access: Access::Shared, interrupted: None }
    }

    /// For an interrupt inside an operation that writes journal number `interrupted`.
    #[inline]
    pub fn nested(journal: &'j Journal, interrupted: usize) -> Self {
        Self { journal, access: Access::Shared, interrupted: Some(interrupted) }
    }

    /// Adds to a counter.
    #[inline]
    pub fn add(self, counter: Counter, by: u64) {
        let ordering = match self.access {
            // ORDERING: a statistic.
            Access::Sole => Ordering::Relaxed,
            // ORDERING: as said in `balance_with`.
            Access::Shared => Ordering::Release,
        };
        self.bump(&self.journal.counters[counter as usize], by, ordering);
    }

    /// Which of these journals it writes.
    pub fn number(self, journals: &[Journal]) -> usize {
        let offset =
            core::ptr::from_ref(self.journal).addr().wrapping_sub(journals.as_ptr().addr());
        offset / size_of::<Journal>()
    }

    /// See [`Journal::credit`].
    #[inline]
    pub fn credit(self) -> i64 {
        self.journal.credit()
    }

    /// Opens a step in which frames are out of sight. No read-modify-write for a sole writer.
    #[inline]
    pub fn begin(self) -> Step<'j> {
        // ORDERING: carried to readers by the Release of the step's own read-modify-writes.
        self.bump(&self.journal.begun, 1, Ordering::Relaxed);
        Step { writer: self }
    }

    /// Goes on with a step of this writer that was left open by [`Step::suspend`].
    #[inline]
    pub fn resume(self) -> Step<'j> {
        Step { writer: self }
    }

    #[inline]
    fn bump(self, word: &Word, by: u64, ordering: Ordering) {
        match self.access {
            // ORDERING: the owner reads what it wrote itself.
            Access::Sole => word.store(word.load(Ordering::Relaxed).wrapping_add(by), ordering),
            Access::Shared => {
                word.fetch_add(by, ordering);
            }
        }
    }
}

impl<'j> Step<'j> {
    /// Whose step it is.
    #[inline]
    pub fn writer(&self) -> Writer<'j> {
        self.writer
    }

    /// Leaves it open, for the same writer to go on with ([`Writer::resume`]).
    #[inline]
    pub fn suspend(self) {
        core::mem::forget(self);
    }
}

impl Drop for Step<'_> {
    #[inline]
    fn drop(&mut self) {
        // ORDERING: Release pairs with the Acquire in `standstill`: who reads this end sees the
        // step's effects.
        self.writer.bump(&self.writer.journal.done, 1, Ordering::Release);
    }
}

/// A number that changes whenever a step begins, or `None` while one is under way that the
/// caller could wait for.
pub fn standstill(journals: &[Journal], reader: Writer<'_>) -> Option<u64> {
    let mut begun_sum = 0u64;
    for (index, journal) in journals.iter().enumerate() {
        if reader.interrupted == Some(index) {
            continue;
        }
        // ORDERING: Acquire pairs with the Release in `Step::drop`. `done` is read first: it
        // can only trail `begun`, so equal numbers mean that no step was open at that moment.
        let done = journal.done.load(Ordering::Acquire);
        // ORDERING: as above; a begin that this misses has had no effect that was seen yet.
        let begun = journal.begun.load(Ordering::Acquire);
        if begun != done {
            return None;
        }
        begun_sum = begun_sum.wrapping_add(begun);
    }
    Some(begun_sum)
}
