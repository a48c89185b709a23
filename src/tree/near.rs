//! Runs near the last ones: what a CPU's searches have shown, the next need not show again.
//!
//! A search for a run that went upward and found one says that no run so long begins below. A CPU
//! keeps that in its slot, for four sizes of runs, and begins its next search there. Where it frees
//! a run, one may begin again: it looks there first, in a window that reaches over all that it has
//! freed. So one CPU alone gets the lowest run that there is, as without, and a run that is
//! replaced costs a look at a word or two.
//!
//! What single frames and other CPUs free is not noticed: what is kept is forgotten after
//! [`RunHints::USES`] uses, a flush of this CPU's cache counted as one. Until then a run may not be
//! the lowest. It is never missed: who finds nothing from there on searches everywhere.

use super::FrameTree;
use super::levels::take_zeroes;
use crate::bits::starts_of_runs;
use crate::directory::Group;
use crate::frame::{FrameNumber, NumberRange};
use crate::geometry::{FRAME_LIMIT, WORD_BITS};
use crate::journal::{Counter, Writer};
use crate::node::take_bit;
use crate::request::Rule;
use crate::sync::{Ordering, Word};

/// Sizes of runs that are told apart: below 4, 16 and 64 frames, and above.
const SIZES: usize = 4;
/// Bits of a word for the lesser of its two numbers.
const LOW_BITS: u32 = 24;

/// See above. Plain loads and stores of the slot's owner.
#[derive(Debug)]
pub struct RunHints {
    hints: [Hint; SIZES],
    /// The number of flushes at which all is forgotten.
    until: Word,
}

/// For runs of one size.
#[derive(Debug)]
struct Hint {
    /// No run of so many frames begins below this frame (0 if nothing is known).
    known: Word,
    /// But perhaps in this window: its first frame and its length. There frames came free since.
    window: Word,
}

impl RunHints {
    /// How often a hint is used.
    const USES: u64 = 64;

    /// Nothing is known.
    pub fn new() -> Self {
        let hint = || Hint { known: Word::new(0), window: Word::new(0) };
        Self { hints: core::array::from_fn(|_| hint()), until: Word::new(0) }
    }

    /// That for runs of so many frames, 1 at least.
    #[inline]
    fn of(&self, writer: Writer<'_>, count: u64) -> &Hint {
        let flushes = writer.count(Counter::Flushes);
        let until = get(&self.until);
        if flushes >= until || until - flushes > Self::USES {
            self.forget(flushes);
        } else {
            put(&self.until, until - 1);
        }
        &self.hints[(count.ilog2() as usize / 2).min(SIZES - 1)]
    }

    #[cold]
    fn forget(&self, flushes: u64) {
        for hint in &self.hints {
            put(&hint.known, 0);
            put(&hint.window, 0);
        }
        put(&self.until, flushes + Self::USES);
    }

    /// After these frames were freed: a run that begins below them may reach into them now.
    #[inline]
    pub fn widen(&self, freed: NumberRange) {
        for hint in &self.hints {
            let (from, count) = unpack(get(&hint.known));
            let start = (freed.start().get() + 1).saturating_sub(count);
            if start < from {
                hint.widen(start, freed.end().get().min(from));
            }
        }
    }
}

impl Hint {
    fn widen(&self, start: u64, end: u64) {
        let (first, len) = unpack(get(&self.window));
        let (start, end) =
            if len == 0 { (start, end) } else { (start.min(first), end.max(first + len)) };
        if (end - start) >> LOW_BITS == 0 {
            put(&self.window, start << LOW_BITS | (end - start));
        } else {
            // Too wide for a window: nothing is known from there on.
            let (_, count) = unpack(get(&self.known));
            put(&self.known, start << LOW_BITS | count);
            put(&self.window, 0);
        }
    }

    /// Where a run of so many frames may begin: in a window (from one frame up to another), and
    /// from some frame on.
    #[inline]
    fn look(&self, count: u64) -> ((u64, u64), u64) {
        let (from, known) = unpack(get(&self.known));
        if known > count {
            return ((0, 0), 0);
        }
        let (first, len) = unpack(get(&self.window));
        // Longer runs reach further.
        ((first.saturating_sub(count - known), first + len), from)
    }

    /// After a run of so many frames was found in the window: it ends here.
    #[inline]
    fn found_in_window(&self, count: u64, behind: u64) {
        let (_, known) = unpack(get(&self.known));
        if known < count {
            // Below it shorter ones may begin.
            return;
        }
        let (first, len) = unpack(get(&self.window));
        let end = first + len;
        let window = if behind < end { behind << LOW_BITS | (end - behind) } else { 0 };
        put(&self.window, window);
    }

    /// After one was found elsewhere.
    #[inline]
    fn found(&self, count: u64, behind: u64) {
        let (from, known) = unpack(get(&self.known));
        // What is known of shorter runs holds for longer ones, and is kept.
        if (from == 0 || known >= count) && count >> LOW_BITS == 0 {
            put(&self.known, behind << LOW_BITS | count);
            put(&self.window, 0);
        }
    }
}

/// The two numbers of a word.
const fn unpack(word: u64) -> (u64, u64) {
    (word >> LOW_BITS, word % (1 << LOW_BITS))
}

fn get(word: &Word) -> u64 {
    // ORDERING: only the slot's owner reads and writes it.
    word.load(Ordering::Relaxed)
}

fn put(word: &Word, value: u64) {
    // ORDERING: as in `get`.
    word.store(value, Ordering::Relaxed);
}

impl FrameTree<'_> {
    /// The lowest run of so many frames, 1 at least, from where the hints say on; one look.
    pub(crate) fn alloc_run_near(
        &self,
        writer: Writer<'_>,
        hints: &RunHints,
        count: u64,
    ) -> Option<NumberRange> {
        let hint = hints.of(writer, count);
        let ((start, end), from) = hint.look(count);
        if start < end
            && let Some(run) = self.take_between(writer, count, (start, end + count - 1))
        {
            hint.found_in_window(count, run.end().get());
            return Some(run);
        }
        let run = self.take_between(writer, count, (from, FRAME_LIMIT))?;
        hint.found(count, run.end().get());
        Some(run)
    }

    /// The lowest run of so many frames from one frame up to another.
    fn take_between(
        &self,
        writer: Writer<'_>,
        count: u64,
        (start, end): (u64, u64),
    ) -> Option<NumberRange> {
        let start = start.max(self.low_end);
        let run = self.take_within_a_word(writer, start, count);
        run.or_else(|| {
            let run = self.search_by(writer, &Rule::between(count, start, end))?;
            self.take_contents(run, |_| ());
            Some(run)
        })
    }

    /// The same from the rest of one word of a block that is in use; one read-modify-write.
    #[inline]
    fn take_within_a_word(&self, writer: Writer<'_>, from: u64, count: u64) -> Option<NumberRange> {
        if count > WORD_BITS {
            return None;
        }
        let group = Group::of(FrameNumber::trusted(from));
        let place = self.directory.locate(group)?;
        let block = place.block();
        let nodes = block.giant.written()?;
        // ORDERING: Acquire pairs with the Release in `write_leaf`, as in a search.
        if !nodes.ready.is_set(block.index, Ordering::Acquire) {
            return None;
        }
        let behind = u64::MAX << (from % WORD_BITS);
        // ORDERING: a look; whoever claims decides.
        let free = place.leaf.load(Ordering::Relaxed) & behind;
        let starts = starts_of_runs(free, count as u32);
        let lowest = starts & starts.wrapping_neg();
        if lowest == 0 {
            return None;
        }
        // A run of ones, moved up to where it begins.
        let frames = (u64::MAX >> (u64::from(u64::BITS) - count)).wrapping_mul(lowest);
        take_bit(place.leaf, frames).ok()?;
        let start = group.frame(lowest.trailing_zeros());
        let run = NumberRange::trusted(start, FrameNumber::trusted(start.get() + count));
        writer.add(Counter::Taken, count);
        if !self.admits(writer, run) {
            // None of it is taken any more.
            writer.add(Counter::Returned, count);
            return None;
        }
        take_zeroes(block, group.word(), frames);
        Some(run)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    extern crate std;

    use super::*;
    use crate::counts::pool;
    use proptest::prelude::*;
    use std::vec;
    use std::vec::Vec;

    const FRAMES: usize = 1 << 13;

    /// The lowest run of so many, frame by frame.
    fn lowest(free: &[bool], count: usize) -> Option<usize> {
        (0..(free.len() + 1).saturating_sub(count))
            .find(|&at| free[at..at + count].iter().all(|is_free| *is_free))
    }

    proptest! {
        // Miri interprets each of them.
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 1 } else { 64 }))]

        /// Takes and frees runs, and parts of them, by the hints alone.
        #[test]
        fn one_cpu_alone_gets_the_lowest_run(
            steps in prop::collection::vec((any::<bool>(), 1..300usize, any::<usize>()), 1..400),
        ) {
            let tree = pool(FRAMES as u64).tree().expect("a tree");
            let writer = tree.sole_writer(0);
            let hints = RunHints::new();
            let mut free = vec![true; FRAMES];
            let mut held: Vec<NumberRange> = Vec::new();
            for (is_free, count, pick) in steps {
                if is_free && !held.is_empty() {
                    let run = held.swap_remove(pick % held.len());
                    let (start, end) = (run.start().get(), run.end().get());
                    let middle = start + pick as u64 % run.len();
                    let part = NumberRange::from_numbers(middle, end);
                    hints.widen(part);
                    tree.free_run_with(writer, part).expect("held frames");
                    free[middle as usize..end as usize].fill(true);
                    if start < middle {
                        held.push(NumberRange::from_numbers(start, middle));
                    }
                    continue;
                }
                let count = if pick % 3 == 0 { count } else { count % 24 + 1 };
                let expected = lowest(&free, count);
                let run = tree.alloc_run_near(writer, &hints, count as u64);
                prop_assert_eq!(run.map(|run| run.start().get() as usize), expected);
                if let (Some(run), Some(start)) = (run, expected) {
                    prop_assert_eq!(run.len(), count as u64);
                    free[start..start + count].fill(false);
                    held.push(run);
                }
            }
        }
    }
}
