//! The budget: how many frames of the tree ordinary requests may still take, so that a reserve is
//! left for urgent ones.
//!
//! One shared word counts what nobody has been granted yet. A CPU is granted many frames at once
//! and takes them as it needs; what it gives back is its own again, until that is too much. So the
//! word is written once for a batch of frames, and what a CPU has left (its *credit*) follows from
//! four counters of its journal, which it writes anyway:
//!
//! ```text
//! credit  =  granted + returned - repaid - taken
//! word    =  free frames of the tree - reserve - the sum of all credits
//! ```
//!
//! The second line always holds, but for frames on their way, since each step changes both sides.
//! A CPU has its credit before it takes a frame, and no credit before it has given one: so those
//! who ask first leave the reserve alone, to the frame, however many they are and whatever
//! happens at once. Urgent requests do not ask; their CPU's credit falls below 0, and the word
//! with it.
//!
//! Interrupts inside the allocator, and whoever uses the tree directly, share a journal, in which
//! nobody can tell whose credit is whose. They look at the word instead, take, and have the
//! word corrected afterwards. So the reserve can come out short by what they take at one moment.
//!
//! Credits are out of others' reach, as cached frames are, and come back the same way: when their
//! CPU drains.

use crate::error::OutOfMemory;
use crate::geometry::WORD_BITS;
use crate::journal::{Counter, Journal, Writer};
use crate::sync::{Ordering, Word};

/// The most frames that a CPU is granted ahead of its need.
const MOST: u64 = 4096;
/// Credits are at most this part of all memory, if batches of [`LEAST`] allow it.
const SHARE: u64 = 32;
/// The fewest frames that a batch has: those of a refill.
const LEAST: u64 = WORD_BITS;

/// See above.
#[derive(Debug)]
#[repr(C, align(128))]
pub struct Budget<'m> {
    count: Count,
    rules: Rules,
    cpus: u64,
    /// Frames that a CPU is granted at once, and keeps of what it has given back.
    batch: u64,
    /// The journal that all share.
    common: &'m Journal,
}

/// What all CPUs write, on lines of its own.
#[derive(Debug)]
#[repr(C, align(128))]
struct Count {
    /// Truth, signed: frames that nobody has been granted.
    word: Word,
    /// How many frames were managed when that was last looked at.
    managed: Word,
}

/// What a budget is for.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Rules {
    /// Frames that ordinary requests leave alone.
    pub reserve: u64,
}

impl Rules {
    /// Whether there is anything to keep account for.
    const fn is_off(&self) -> bool {
        self.reserve == 0
    }
}

impl<'m> Budget<'m> {
    /// For a tree with so many free frames, which so many CPUs use, and this journal too.
    pub fn new(rules: Rules, frames: u64, cpus: usize, common: &'m Journal) -> Self {
        let word = Word::new(frames.wrapping_sub(rules.reserve));
        let managed = Word::new(frames);
        let cpus = cpus as u64;
        // A credit is at most two batches.
        let batch = (frames / (2 * SHARE * cpus)).clamp(LEAST, MOST);
        Self { count: Count { word, managed }, rules, cpus, batch, common }
    }

    /// Whether there is nothing to ask it for.
    #[inline]
    pub fn is_off(&self) -> bool {
        self.rules.is_off()
    }

    /// How many frames an ordinary request that can use `least` to `most` may take: none, or as
    /// many. No read-modify-write if the credit suffices, one for a batch.
    pub fn allow(&self, writer: Writer<'_>, least: u64, most: u64) -> u64 {
        if self.is_off() {
            return most;
        }
        let [least, most] = [least, most].map(u64::cast_signed);
        let credit = writer.credit();
        if credit >= most {
            return most.cast_unsigned();
        }
        self.settle_shared();
        // Less ahead when little is left, or one CPU would have what all others need.
        let ahead =
            |left: i64| (left / (2 * self.cpus).cast_signed()).min(self.batch.cast_signed());
        let change = self.change(|left| {
            let granted = left.min(ahead(left).max(most - credit));
            if credit + granted >= least { -granted.max(0) } else { 0 }
        });
        writer.add(Counter::Granted, change.wrapping_neg().cast_unsigned());
        let credit = credit - change;
        if credit < least { 0 } else { credit.min(most).cast_unsigned() }
    }

    /// The same for those who share a journal, for all or nothing.
    pub fn ask_shared(&self, frames: u64) -> Result<(), OutOfMemory> {
        if self.allow_shared(frames, frames) == 0 { Err(OutOfMemory) } else { Ok(()) }
    }

    /// The same for those who share a journal: a look.
    pub fn allow_shared(&self, least: u64, most: u64) -> u64 {
        if self.is_off() {
            return most;
        }
        self.settle_shared();
        let left = self.left();
        if left < least.cast_signed() { 0 } else { left.cast_unsigned().min(most) }
    }

    /// After frames were given back, or taken without asking: gives up what is too much, and what
    /// is owed is counted. No read-modify-write in between.
    pub fn settle(&self, writer: Writer<'_>) {
        let (credit, batch) = (writer.credit(), self.batch.cast_signed());
        if credit < 0 {
            self.repay(writer, credit);
        } else if credit > 2 * batch {
            self.repay(writer, credit - batch);
        }
    }

    /// Gives all of the credit up.
    pub fn close(&self, writer: Writer<'_>) {
        self.repay(writer, writer.credit());
        self.settle_shared();
    }

    /// Counts what the shared journal says that was taken and given back.
    pub fn settle_shared(&self) {
        let credit = self.common.clear_credit();
        self.change(|_| credit);
    }

    /// Counts frames that have come into the tree, or are gone from it, since so many were managed.
    pub fn recount(&self, managed: u64) {
        let word = &self.count.managed;
        // ORDERING: a number only; whoever comes second changes nothing.
        let before = word.load(Ordering::Relaxed);
        if before != managed && word.compare_exchange(before, managed, Ordering::Relaxed).is_ok() {
            self.change(|_| managed.wrapping_sub(before).cast_signed());
        }
    }

    /// Whether ordinary requests get nothing, as far as anybody can tell.
    pub fn is_spent(&self) -> bool {
        !self.is_off() && self.left() <= 0
    }

    /// What it should count for so many free frames and such credits, less what it counts.
    pub fn off_by(&self, free: u64, credits: i64) -> i64 {
        free.cast_signed() - self.rules.reserve.cast_signed() - credits - self.left()
    }

    fn repay(&self, writer: Writer<'_>, frames: i64) {
        writer.add(Counter::Repaid, frames.cast_unsigned());
        self.change(|_| frames);
    }

    fn left(&self) -> i64 {
        // ORDERING: as in `change`.
        self.count.word.load(Ordering::Acquire).cast_signed()
    }

    /// Adds what `by` says of what is left, and says how much it was.
    fn change(&self, by: impl Fn(i64) -> i64) -> i64 {
        loop {
            let left = self.left();
            let by = by(left);
            if by == 0 || self.put(left, left + by) {
                return by;
            }
        }
    }

    fn put(&self, left: i64, changed: i64) -> bool {
        let [left, changed] = [left, changed].map(i64::cast_unsigned);
        // ORDERING: Release pairs with the Acquire in `left`: whoever is granted a frame finds it
        // free.
        self.count.word.compare_exchange(left, changed, Ordering::AcqRel).is_ok()
    }
}
