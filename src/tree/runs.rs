//! Finding contiguous frames: the lowest run that meets a request, across words, blocks and GiBs.
//!
//! A walk shows every stretch of free frames in ascending order, at the coarsest level at which
//! it is free: a GiB, a block, a run of bits of a word. Stretches that touch are one to the
//! seeker, which knows for the stretch at hand where a run could begin at the lowest, and is done
//! when the stretch reaches far enough. Then the run is claimed, exactly as it was found
//! ([`super::claim`]); if another CPU was faster at some part of it, the search begins anew.
//!
//! What a request can't use is passed quickly: giants and blocks outside of its limits, and, in a
//! word, stretches that are shorter than the run and touch neither of the word's ends.

use super::FrameTree;
use super::levels::retire;
use crate::bits::{lowest_run, ones, runs};
use crate::directory::Block;
use crate::error::{AllocError, NoRun, OutOfMemory};
use crate::frame::{FrameNumber, FrameRange, NumberRange};
use crate::geometry::{BLOCK_FRAMES, FULL, GIANT_FRAMES, NODE_WORDS, WORD_BITS};
use crate::journal::Writer;
use crate::request::{Request, Rule};
use crate::root::{Giant, Nodes};
use crate::sync::Ordering;

/// What the contents of a run should be.
pub(crate) enum Contents<'c> {
    /// Whatever they are.
    Any,
    /// Zero: those that are not known to be are shown to this.
    Zero(&'c mut dyn FnMut(NumberRange)),
}

/// A search on its way over the free stretches, ascending.
#[derive(Debug)]
struct Seeker {
    rule: Rule,
    /// Where a run could begin in the stretch at hand.
    begin: u64,
    /// The frame behind that stretch.
    end: u64,
}

impl Seeker {
    fn new(request: &Request) -> Self {
        Self { rule: request.rule(), begin: 0, end: u64::MAX }
    }

    /// The next free frames; a run if there is one now.
    #[inline(always)]
    fn add(&mut self, start: u64, frames: u64) -> Option<u64> {
        self.extend(start, frames);
        let behind = self.begin + self.rule.count;
        (behind <= self.end && behind <= self.rule.end).then_some(self.begin)
    }

    #[inline(always)]
    fn extend(&mut self, start: u64, frames: u64) {
        if start != self.end {
            self.begin = self.rule.lowest_begin(start);
        }
        self.end = start + frames;
    }

    /// The length of the longest run in the stretch at hand that keeps the rule apart from its
    /// count.
    fn longest(&self) -> u64 {
        let mut begin = self.begin;
        let mut longest = 0;
        // At most the rest of one boundary, a whole one, and what follows.
        for _ in 0..3 {
            let end = self.rule.latest_end(begin).min(self.end);
            longest = longest.max(end.saturating_sub(begin));
            begin = self.rule.lowest_begin(end);
        }
        longest
    }
}

impl<'m> FrameTree<'m> {
    /// [`FrameTree::alloc_run`], in this writer's journal.
    pub(crate) fn alloc_run_with(
        &self,
        writer: Writer<'_>,
        request: &Request,
        contents: Contents<'_>,
    ) -> Result<FrameRange, AllocError> {
        request.check().map_err(AllocError::Request)?;
        let run = match self.prove(writer, || self.search_run(writer, request)) {
            Ok(run) => run,
            Err(OutOfMemory) => return Err(self.why_no_run(writer, request)),
        };
        match contents {
            Contents::Any => self.take_contents(run, |_| ()),
            Contents::Zero(clear) => self.take_contents(run, clear),
        }
        Ok(FrameRange::owned(run))
    }

    /// The lowest run, claimed.
    fn search_run(&self, writer: Writer<'_>, request: &Request) -> Option<NumberRange> {
        let shortest = request.count().min(WORD_BITS) as u32;
        loop {
            let mut seeker = Seeker::new(request);
            let rule = seeker.rule;
            let begin =
                self.walk(writer, &rule, shortest, |start, frames| seeker.add(start, frames))?;
            let [start, end] = [begin, begin + rule.count].map(FrameNumber::trusted);
            let run = NumberRange::trusted(start, end);
            if self.claim(writer, run).is_ok() {
                return Some(run);
            }
        }
    }

    /// What to say of a request for which nothing was found.
    #[cold]
    #[inline(never)]
    fn why_no_run(&self, writer: Writer<'_>, request: &Request) -> AllocError {
        if let Some(run) = request.exactly()
            && let Some((frame, why)) = self.first_in_the_way(run)
        {
            return AllocError::InTheWay { frame, why };
        }
        let mut seeker = Seeker::new(&request.with_count(1));
        let mut longest = 0;
        let rule = seeker.rule;
        let _: Option<()> = self.walk(writer, &rule, 1, |start, frames| {
            seeker.extend(start, frames);
            longest = longest.max(seeker.longest());
            None
        });
        let free = self.free_frames();
        AllocError::NoRun(NoRun { request: *request, free, longest, cached: 0 })
    }

    /// Shows every stretch of free frames near the rule's limits, ascending, as (first frame, how
    /// many), until `visit` has an answer. Stretches within one word that are shorter than
    /// `shortest` and touch neither of its ends may be left out.
    fn walk<T>(
        &self,
        writer: Writer<'_>,
        rule: &Rule,
        shortest: u32,
        mut visit: impl FnMut(u64, u64) -> Option<T>,
    ) -> Option<T> {
        for cluster in self.directory.clusters() {
            // ORDERING: Acquire as in a search for one frame: who cleared a bit has a step in its
            // journal, which is seen before "out of memory" is said.
            let [free, whole, partial] = [&cluster.free, &cluster.whole, &cluster.partial]
                .map(|word| word.load(Ordering::Acquire));
            for bit in ones(free | whole | partial) {
                let Some(giant) = cluster.giant(u64::from(bit)).load() else { continue };
                let first = giant.number() * GIANT_FRAMES;
                if first >= rule.end || first + GIANT_FRAMES <= rule.first {
                    continue;
                }
                let found = if giant.is_free() {
                    visit(first, GIANT_FRAMES)
                } else if giant.written().is_some() {
                    walk_giant(writer, giant, rule, shortest, &mut visit)
                } else {
                    None
                };
                if found.is_some() {
                    return found;
                }
            }
        }
        None
    }
}

/// The same for one giant, whose nodes are written.
fn walk_giant<'m, T>(
    writer: Writer<'_>,
    giant: &'m Giant<'m>,
    rule: &Rule,
    shortest: u32,
    visit: &mut impl FnMut(u64, u64) -> Option<T>,
) -> Option<T> {
    let Nodes { blocks, partial, ready, .. } = giant.nodes();
    for word in 0..NODE_WORDS {
        // ORDERING: as in `walk`.
        let whole = blocks.word(word).load(Ordering::Acquire);
        // ORDERING: as in `walk`.
        let some = whole | partial.word(word).load(Ordering::Acquire);
        for bit in ones(some) {
            let index = word * WORD_BITS as usize + bit as usize;
            let block = Block { giant, index };
            let first = block.first_frame().get();
            if first >= rule.end || first + BLOCK_FRAMES <= rule.first {
                continue;
            }
            // ORDERING: Acquire pairs with the Release in `write_leaf`.
            let is_ready = ready.is_set(index, Ordering::Acquire);
            let found = if whole >> bit & 1 != 0 {
                visit(first, BLOCK_FRAMES)
            } else if is_ready {
                walk_block(writer, block, first, shortest, visit)
            } else {
                None
            };
            if found.is_some() {
                return found;
            }
        }
    }
    None
}

/// The same for one block, frame by frame.
fn walk_block<T>(
    writer: Writer<'_>,
    block: Block<'_>,
    first: u64,
    shortest: u32,
    visit: &mut impl FnMut(u64, u64) -> Option<T>,
) -> Option<T> {
    let mut some = 0;
    let mut start = first;
    for word in block.leaf().words() {
        // ORDERING: as in `walk`.
        let bits = word.load(Ordering::Acquire);
        some |= bits;
        let found = walk_word(bits, start, shortest, visit);
        if found.is_some() {
            return found;
        }
        start += WORD_BITS;
    }
    if some == 0 {
        retire(writer, block);
    }
    None
}

#[inline]
fn walk_word<T>(
    bits: u64,
    start: u64,
    shortest: u32,
    visit: &mut impl FnMut(u64, u64) -> Option<T>,
) -> Option<T> {
    if bits == 0 {
        return None;
    }
    if bits == FULL {
        return visit(start, WORD_BITS);
    }
    if lowest_run(bits, shortest).is_some() {
        return runs(bits).find_map(|(at, len)| visit(start + u64::from(at), u64::from(len)));
    }
    // Only what may go on in the words beside.
    let low = u64::from(bits.trailing_ones());
    let high = u64::from((bits << (u64::from(u64::BITS) - WORD_BITS)).leading_ones());
    let found = if low > 0 { visit(start, low) } else { None };
    if found.is_some() || high == 0 {
        return found;
    }
    visit(start + WORD_BITS - high, high)
}
