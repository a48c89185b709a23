//! Runs near the last ones: what a CPU's searches have shown, the next need not show again.
//!
//! A search for a run that went upward and found one says that no run so long begins below. A CPU
//! keeps that in its slot, for four sizes of runs, and begins its next search there. Where it frees
//! a run, one may begin again: it looks there first, in a window that reaches over all that it has
//! freed. So one CPU alone gets the lowest run that there is, as without. A run that comes free
//! where nothing else has, and is as long as the last one that was looked for, is the lowest of its
//! length: it needs no search at all ([`RunHints::expects`]).
//!
//! **A short look.** For a run of at most a word the frames of a row of blocks are looked at, word
//! by word, from where the hints say on. Most often it is in the first word or the second. What is
//! not as simple is left to the general search ([`super::runs`]): a block that is free as a whole
//! or was never used, and what lies behind the row.
//!
//! What single frames that go past the cache free is not noticed, nor what other CPUs do. So after
//! [`RunHints::USES`] uses, a flush of this CPU's cache counted as one, the search begins below
//! everything, and what is kept is forgotten, but for what is seen to be so still. Until then a run
//! may not be the lowest. It is never missed: who finds nothing from there on searches everywhere.

use super::FrameTree;
use super::levels::take_zeroes;
use super::longest::{bound, high_ones};
use crate::bits::lowest_run;
use crate::directory::{Block, Group};
use crate::frame::{FrameNumber, NumberRange};
use crate::geometry::{FRAME_LIMIT, NODE_WORDS, ROW, WORD_BITS};
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
    /// How many uses are left until all is forgotten.
    left: Word,
}

/// For runs of one size.
#[derive(Debug)]
struct Hint {
    /// What is [`Known`]: the frame behind a run that would begin there, and the run's length; 0 if
    /// nothing is. No run that begins below reaches to that frame, which is asked most often.
    known: Word,
    /// But perhaps in this window: its first frame and its length. There frames came free since.
    window: Word,
}

/// No run of `count` frames begins below `from`.
#[derive(Clone, Copy, Debug)]
struct Known {
    from: u64,
    count: u64,
}

impl RunHints {
    /// How often hints are used until all is forgotten.
    const USES: u64 = 64;

    /// Nothing is known.
    pub fn new() -> Self {
        let hint = || Hint { known: Word::new(0), window: Word::new(0) };
        Self { hints: core::array::from_fn(|_| hint()), left: Word::new(0) }
    }

    /// That for runs of so many frames, 1 at least.
    #[inline(always)]
    fn of(&self, count: u64) -> &Hint {
        &self.hints[size(count)]
    }

    /// A use, if there is one left.
    #[inline(always)]
    fn is_usable(&self) -> bool {
        let left = get(&self.left);
        if left != 0 {
            put(&self.left, left - 1);
        }
        left != 0
    }

    fn forget(&self) {
        for hint in &self.hints {
            put(&hint.known, 0);
            put(&hint.window, 0);
        }
        put(&self.left, Self::USES);
    }

    /// After these frames went to the tree out of a cache: as [`RunHints::widen`], and a use.
    #[inline(always)]
    pub fn flushed(&self, frames: NumberRange) {
        self.is_usable();
        self.widen(frames);
    }

    /// Whether a run is the lowest of its length if it comes free: none lies below what was taken
    /// last, nothing came free there since, and this one lies there. A use.
    #[inline(always)]
    pub fn expects(&self, run: NumberRange) -> bool {
        let hint = self.of(run.len());
        // The length is known, and not another, if nothing of it is left.
        let (from, other) = unpack(get(&hint.known).wrapping_sub(run.len()));
        other == 0 && from > run.end().get() && get(&hint.window) == 0 && self.is_usable()
    }

    /// After these frames were freed: a run that begins below them may reach into them now.
    #[inline(always)]
    pub fn widen(&self, freed: NumberRange) {
        for hint in &self.hints {
            // Most often nothing is known of a size, or it was all behind that.
            if get(&hint.known) > freed.start().get() << LOW_BITS {
                hint.widen(freed);
            }
        }
    }
}

impl Hint {
    #[inline(always)]
    fn widen(&self, freed: NumberRange) {
        let Known { from, count } = self.known();
        let (first, behind) = (freed.start().get(), freed.end().get());
        let start = (first + 1).saturating_sub(count);
        if start < from {
            self.widen_to(start, behind.min(from));
        }
    }

    #[inline(always)]
    fn widen_to(&self, start: u64, end: u64) {
        let (first, len) = unpack(get(&self.window));
        let (start, end) =
            if len == 0 { (start, end) } else { (start.min(first), end.max(first + len)) };
        if (end - start) >> LOW_BITS == 0 {
            put(&self.window, start << LOW_BITS | (end - start));
        } else {
            self.forget_from(start);
        }
    }

    /// Too wide for a window: nothing is known from there on.
    #[cold]
    fn forget_from(&self, start: u64) {
        let Known { count, .. } = self.known();
        self.know(Known { from: start, count });
    }

    #[inline(always)]
    fn known(&self) -> Known {
        let (behind, count) = unpack(get(&self.known));
        Known { from: behind - count, count }
    }

    #[inline(always)]
    fn know(&self, Known { from, count }: Known) {
        put(&self.known, (from + count) << LOW_BITS | count);
        put(&self.window, 0);
    }

    /// Where a run of so many frames may begin: in a window (from one frame up to another), and
    /// from some frame on.
    #[inline(always)]
    fn look(&self, count: u64) -> ((u64, u64), u64) {
        let Known { from, count: known } = self.known();
        if known > count {
            return ((0, 0), 0);
        }
        let (first, len) = unpack(get(&self.window));
        // Longer runs reach further.
        ((first.saturating_sub(count - known), first + len), from)
    }

    /// After a run of so many frames was found in the window: it ends here.
    #[inline(always)]
    fn found_in_window(&self, count: u64, behind: u64) {
        let Known { count: known, .. } = self.known();
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
        let Known { from, count: known } = self.known();
        let fits =
            count >> LOW_BITS == 0 && (behind + count) << LOW_BITS >> LOW_BITS == behind + count;
        // What is known of shorter runs holds for longer ones, and is kept.
        if fits && (from == 0 || known >= count) {
            self.know(Known { from: behind, count });
        }
    }
}

/// Which of the sizes that are told apart so many frames are, 1 at least.
#[inline(always)]
fn size(count: u64) -> usize {
    (count.ilog2() as usize / 2).min(SIZES - 1)
}

/// The two numbers of a word.
#[inline(always)]
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

impl<'m> FrameTree<'m> {
    /// The lowest run of so many frames, 1 at least, from where the hints say on; one look.
    #[inline]
    pub(crate) fn alloc_run_near(
        &self,
        writer: Writer<'_>,
        hints: &RunHints,
        count: u64,
    ) -> Option<NumberRange> {
        let hint = hints.of(count);
        if !hints.is_usable() {
            return self.alloc_run_afresh(writer, hints, count);
        }
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

    /// The lowest of all, whatever the hints say. What they said of this length is kept if it is
    /// so still.
    #[inline(never)]
    fn alloc_run_afresh(
        &self,
        writer: Writer<'_>,
        hints: &RunHints,
        count: u64,
    ) -> Option<NumberRange> {
        let hint = hints.of(count);
        let Known { from, count: known } = hint.known();
        hints.forget();
        let run = self.take_between(writer, count, (0, FRAME_LIMIT))?;
        let behind = run.end().get();
        let is_so = known == count && self.is_none_between(count, (behind, from));
        hint.found(count, if is_so { from } else { behind });
        Some(run)
    }

    /// Whether no run of at most a word begins between two frames, as far as is seen at once.
    fn is_none_between(&self, count: u64, (start, end): (u64, u64)) -> bool {
        let group = Group::of(FrameNumber::trusted(start));
        let look = |block| lowest_in_row(block, (start, end + count - 1), count);
        let is_short = start < end && count <= WORD_BITS;
        is_short && self.block_in_use(group).and_then(look).is_some_and(|begin| begin >= end)
    }

    /// The lowest run of so many frames from one frame up to another.
    #[inline]
    fn take_between(
        &self,
        writer: Writer<'_>,
        count: u64,
        (start, end): (u64, u64),
    ) -> Option<NumberRange> {
        let start = start.max(self.low_end);
        if count <= WORD_BITS {
            match self.take_in_row(writer, count, (start, end)) {
                InRow::Run(run) => return Some(run),
                InRow::Nothing => return None,
                InRow::Unknown => {}
            }
        }
        self.search_between(writer, count, (start, end))
    }

    #[inline(never)]
    fn search_between(
        &self,
        writer: Writer<'_>,
        count: u64,
        (start, end): (u64, u64),
    ) -> Option<NumberRange> {
        let run = self.search_by(writer, &Rule::between(count, start, end))?;
        self.take_contents(run, |_| ());
        Some(run)
    }

    /// The same for a run of at most a word, as far as the row of blocks goes that the first frame
    /// lies in, if they are in use. One read-modify-write for each word of the run.
    #[inline]
    fn take_in_row(&self, writer: Writer<'_>, count: u64, limits: (u64, u64)) -> InRow {
        let Some(block) = self.block_in_use(Group::of(FrameNumber::trusted(limits.0))) else {
            return InRow::Unknown;
        };
        let begin = match lowest_in_row(block, limits, count) {
            Some(begin) if begin + count <= limits.1 => begin,
            Some(_) => return InRow::Nothing,
            None => return InRow::Unknown,
        };
        self.take_short(writer, begin, count).map_or(InRow::Unknown, InRow::Run)
    }

    /// Takes a run of at most a word that begins here, if it is still free. One read-modify-write
    /// for each word.
    #[inline]
    fn take_short(&self, writer: Writer<'_>, begin: u64, count: u64) -> Option<NumberRange> {
        let [start, end] = [begin, begin + count].map(FrameNumber::trusted);
        let (group, run) = (Group::of(start), NumberRange::trusted(start, end));
        if begin % WORD_BITS + count > WORD_BITS {
            self.claim(writer, run).ok()?;
            return self.present_run(writer, run);
        }
        let place = self.directory.locate_low(group)?;
        let frames = (u64::MAX >> (u64::from(u64::BITS) - count)) << (begin % WORD_BITS);
        take_bit(place.leaf, frames).ok()?;
        writer.add(Counter::Taken, count);
        if !self.admits_run(writer, run) {
            return None;
        }
        take_zeroes(place.block(), group.word(), frames);
        Some(run)
    }

    /// A run that was just taken, if it may be handed out.
    #[inline(never)]
    fn present_run(&self, writer: Writer<'_>, run: NumberRange) -> Option<NumberRange> {
        if !self.admits_run(writer, run) {
            return None;
        }
        self.take_contents(run, |_| ());
        Some(run)
    }

    /// The block of a group, if it is in use and its leaf is written.
    #[inline(always)]
    fn block_in_use(&self, group: Group) -> Option<Block<'m>> {
        let giant = self.directory.low_giant(group.giant())?;
        let block = Block { giant, index: group.block() };
        (giant.in_use().is_some() && is_in_parts(block)).then_some(block)
    }
}

/// Whether a block of a giant that is in use is not free as a whole, and its leaf is written.
#[inline(always)]
fn is_in_parts(Block { giant, index }: Block<'_>) -> bool {
    let nodes = giant.nodes();
    // ORDERING: a look, as in a walk.
    !nodes.blocks.is_set(index, Ordering::Acquire)
        // ORDERING: Acquire pairs with the Release in `write_leaf`, as in a search.
        && nodes.ready.is_set(index, Ordering::Acquire)
}

/// What a look into the rest of a row of blocks came to.
enum InRow {
    /// A run, which is taken.
    Run(NumberRange),
    /// There is none between the limits.
    Nothing,
    /// There may be one further up, or somebody was faster.
    Unknown,
}

/// Where the lowest run of so many frames, at most a word, begins in a row of blocks, from one
/// frame of this block on; some frame behind if there is none below the upper limit, and `None` if
/// the row ends before, or the blocks do that are in use.
#[inline]
fn lowest_in_row(mut block: Block<'_>, (start, end): (u64, u64), count: u64) -> Option<u64> {
    let mut first = start - start % WORD_BITS;
    let mut unseen = u64::MAX << (start % WORD_BITS);
    // How many are free at the end of the word below.
    let mut open = 0;
    loop {
        let leaf = block.giant.section(block.index).load()?.leaf(block.index);
        let mut word = Group::of(FrameNumber::trusted(first)).word();
        while word < NODE_WORDS {
            if first - open + count > end {
                return Some(end);
            }
            // ORDERING: a look; whoever claims decides.
            let bits = leaf.word(word).load(Ordering::Relaxed) & unseen;
            if open + u64::from(bits.trailing_ones()) >= count {
                return Some(first - open);
            }
            if let Some(at) = lowest_run(bits, count as u32) {
                return Some(first + u64::from(at));
            }
            let is_passed = word == 0 && bound(block) < count;
            let step = if is_passed { NODE_WORDS - 1 } else { 1 };
            // What is open there does not reach the block's last word.
            open = if is_passed { 0 } else { high_ones(bits) };
            (word, first, unseen) = (word + step, first + step as u64 * WORD_BITS, u64::MAX);
        }
        block.index += 1;
        if block.index.is_multiple_of(ROW) || !is_in_parts(block) {
            return None;
        }
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

    const FRAMES: usize = 8192;

    /// The lowest run of so many, frame by frame.
    fn lowest(free: &[bool], count: usize) -> Option<usize> {
        (0..(free.len() + 1).saturating_sub(count))
            .find(|&at| free[at..at + count].iter().all(|is_free| *is_free))
    }

    /// When all hints are forgotten, what one said is kept if it is so still: here are runs of 3
    /// frames, which all are in use, but for those that another CPU has freed.
    #[test]
    fn what_is_so_still_is_not_forgotten() {
        for (freed, kept) in [
            (&[(9, 12)][..], 120),
            (&[(9, 12), (118, 119)], 120),
            // Another run begins below, the last one reaching beyond what was said.
            (&[(9, 12), (60, 63)], 12),
            (&[(9, 12), (118, 120)], 12),
        ] {
            let tree = pool(FRAMES as u64).tree().expect("a tree");
            let (writer, hints) = (tree.sole_writer(0), RunHints::new());
            let alloc = || tree.alloc_run_near(writer, &hints, 3).expect("a run").start().get();
            assert!((0..40).all(|at| alloc() == 3 * at));
            assert_eq!(hints.of(3).known().from, 120);
            for &(start, end) in freed {
                let range = NumberRange::from_numbers(start, end);
                tree.free_run_with(writer, range).expect("a free");
            }
            put(&hints.left, 0);
            assert_eq!(alloc(), 9);
            assert_eq!(hints.of(3).known().from, kept, "{freed:?}");
        }
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
