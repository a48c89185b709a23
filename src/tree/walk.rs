//! The walk over the free frames that a search for a run makes.
//!
//! It shows every stretch of free frames in ascending order, at the coarsest level at which it is
//! free: a GiB, a block, a run of bits of a word; stretches that touch one after the other.
//!
//! What a request can't use is passed quickly: giants and blocks outside of its limits; giants and
//! blocks in which no run so long can begin ([`super::giants`], [`super::longest`]), unless a
//! stretch comes from below, and with a look at the end of every eighth block, whose runs may go
//! on; blocks in which no frame is free that is aligned as the run has to be; and, in a word,
//! stretches that are shorter than the run and touch neither of the word's ends.

use super::FrameTree;
use super::giants::{bound_in, may_go_on, narrow_giant, worth_a_look};
use super::levels::retire;
use super::longest::{narrow, prefix, suffix};
use crate::bits::{bytes_at_least, runs, starts_of_runs};
use crate::bounds::ANY;
use crate::directory::Block;
use crate::geometry::{
    BLOCK_FRAMES, FULL, GIANT_BLOCKS, GIANT_FRAMES, GIANT_ROWS, NODE_WORDS, ROW, WORD_BITS,
};
use crate::journal::Writer;
use crate::node::mask_between;
use crate::request::Rule;
use crate::root::{Giant, Nodes};
use crate::sync::Ordering;

/// Who is shown the stretches of free frames, ascending, each as its first frame and its length.
pub trait Visit {
    /// The next one; the begin of a run, if that is the end of the search.
    fn see(&mut self, start: u64, frames: u64) -> Option<u64>;
    /// Runs shorter than this are of no interest.
    fn least(&self) -> u64;
    /// Whether the stretch seen last ends before this frame, and so goes on with it.
    fn goes_on_at(&self, frame: u64) -> bool;
    /// The frames of a word at which a run of interest may begin.
    fn begins(&self) -> u64;
    /// For how many frames in a row a look into all of a block was in vain, if it ends without an
    /// answer.
    fn in_vain(&self) -> u64;
}

impl FrameTree<'_> {
    /// Shows the stretches of free frames near the rule's limits. Left out may be those that lie
    /// where no run of interest can begin or go on.
    pub(super) fn walk(
        &self,
        writer: Writer<'_>,
        rule: &Rule,
        visit: &mut impl Visit,
    ) -> Option<u64> {
        for cluster in self.directory.clusters() {
            // ORDERING: Acquire as in a search for one frame: who cleared a bit has a step in its
            // journal, which is seen before "out of memory" is said.
            let [free, whole, partial] = [&cluster.free, &cluster.whole, &cluster.partial]
                .map(|word| word.load(Ordering::Acquire));
            let below = (rule.first / GIANT_FRAMES).saturating_sub(cluster.first_giant());
            let some = (free | whole | partial) & u64::MAX.checked_shl(below as u32).unwrap_or(0);
            // Most often the first is worth a look, and the last that gets one.
            let mut left = some;
            let mut is_first = true;
            while left != 0 {
                let bit = left.trailing_zeros();
                left &= left - 1;
                let Some(giant) = cluster.giant(u64::from(bit)).load() else { continue };
                let first = giant.number() * GIANT_FRAMES;
                if first >= rule.end {
                    return None;
                }
                let found = if giant.is_free() {
                    visit.see(first, GIANT_FRAMES)
                } else if giant.written().is_some() {
                    walk_giant(writer, giant, rule, visit)
                } else {
                    None
                };
                if found.is_some() {
                    return found;
                }
                if is_first {
                    left &= worth_a_look(cluster, free, visit.least());
                    is_first = false;
                }
                if visit.goes_on_at(first + GIANT_FRAMES) {
                    left |= some & 2 << bit;
                }
            }
        }
        None
    }
}

/// The same for one giant, whose nodes are written.
fn walk_giant<'m>(
    writer: Writer<'_>,
    giant: &'m Giant<'m>,
    rule: &Rule,
    visit: &mut impl Visit,
) -> Option<u64> {
    const LANE: u64 = (1 << ROW) - 1;
    let bound = bound_in(giant);
    if bound < visit.least().min(ANY) {
        return walk_giant_ends(Block { giant, index: 0 }, visit);
    }
    let Nodes { blocks, partial, longest, .. } = giant.nodes();
    // Blocks below can't have the begin of a run.
    let start = rule.first.saturating_sub(giant.number() * GIANT_FRAMES) / BLOCK_FRAMES;
    for word in start as usize / WORD_BITS as usize..NODE_WORDS {
        // ORDERING: as in `walk`.
        let whole = blocks.word(word).load(Ordering::Acquire);
        // ORDERING: as in `walk`.
        let some = whole | partial.word(word).load(Ordering::Acquire);
        let below = mask_between(0, start as usize, word * WORD_BITS as usize);
        let some = some & !below;
        for at in (0..WORD_BITS as usize).step_by(ROW) {
            let lane = some >> at & LANE;
            let block = Block { giant, index: word * WORD_BITS as usize + at };
            let first = block.first_frame().get();
            if first >= rule.end {
                return None;
            }
            if lane == 0 {
                continue;
            }
            // ORDERING: a hint; Acquire as in `bound`.
            let bounds = longest.row(block.index / ROW).load(Ordering::Acquire);
            let least = visit.least();
            if bound < least.min(ANY) {
                // The longest of the giant was seen.
                return walk_giant_ends(block, visit);
            }
            let likely = bytes_at_least(bounds, least.min(ANY) as u8);
            let ends = ends(block, bounds, least);
            let row = Row { whole: whole >> at, some: lane, likely, ends, bounds };
            let found = walk_row(writer, block, (row, rule.first), visit);
            if found.is_some() {
                return found;
            }
        }
    }
    narrow_giant(writer, giant, visit.in_vain() - 1);
    None
}

/// The same for the rest of a giant, from `block` on, if no run of interest begins there: as far as
/// a stretch goes on, and at the giant's upper end, behind which one may go on.
fn walk_giant_ends(block: Block<'_>, visit: &mut impl Visit) -> Option<u64> {
    let first = block.first_frame().get();
    if visit.goes_on_at(first) {
        // Not all of the block, or nothing would be said of the giant. If somebody frees the rest
        // of it now, his journal says so to a search in vain.
        let (frames, _) = prefix(block);
        let found = if frames > 0 { visit.see(first, frames) } else { None };
        if found.is_some() {
            return found;
        }
    }
    if !may_go_on(block.giant, visit.least()) {
        return None;
    }
    let last = Block { index: GIANT_BLOCKS as usize - 1, ..block };
    walk_end(last, last.first_frame().get(), visit)
}

/// What is free at the end of a block.
fn walk_end(block: Block<'_>, first: u64, visit: &mut impl Visit) -> Option<u64> {
    let frames = suffix(block);
    if frames > 0 { visit.see(first + BLOCK_FRAMES - frames, frames) } else { None }
}

/// What is known of the blocks of a row, one bit for each.
#[derive(Clone, Copy, Debug)]
struct Row {
    /// Free as a whole.
    whole: u64,
    /// With free frames.
    some: u64,
    /// A run of interest may begin there.
    likely: u64,
    /// The last block, if a run of interest may begin there and go on behind the row.
    ends: u64,
    /// The bytes.
    bounds: u64,
}

/// The bit of a row's last block, if a run of `least` frames may begin there and go on behind the
/// row, which the bounds of this row do not tell of; but the next row's do.
#[inline]
fn ends(first: Block<'_>, bounds: u64, least: u64) -> u64 {
    let next = first.index / ROW + 1;
    if next < GIANT_ROWS {
        // ORDERING: a hint; Acquire as in `bound`.
        let behind = first.giant.nodes().longest.row(next).load(Ordering::Acquire) & ANY;
        let last = bounds >> ((ROW - 1) * 8) & ANY;
        if behind != ANY && last + behind < least {
            return 0;
        }
    } else if !may_go_on(first.giant, least) {
        return 0;
    }
    1 << (ROW - 1)
}

/// The same for the row of blocks that begins with `block`.
#[inline]
fn walk_row(
    writer: Writer<'_>,
    block: Block<'_>,
    (row, from): (Row, u64),
    visit: &mut impl Visit,
) -> Option<u64> {
    let first = block.first_frame().get();
    let mut left = row.some & (row.likely | row.whole | row.ends);
    if visit.goes_on_at(first) {
        left |= row.some & 1;
    }
    while left != 0 {
        let bit = left.trailing_zeros();
        left &= left - 1;
        let block = Block { index: block.index + bit as usize, ..block };
        let start = first + u64::from(bit) * BLOCK_FRAMES;
        let is_likely = row.bounds >> (bit * 8) & ANY >= visit.least().min(ANY);
        let found = if row.whole >> bit & 1 != 0 {
            visit.see(start, BLOCK_FRAMES)
        } else if !is_ready(block) {
            None
        } else if is_likely && may_begin(block, visit.begins()) {
            walk_block(writer, block, from, visit)
        } else {
            walk_ends(block, start, 1 << bit == row.ends, visit)
        };
        if found.is_some() {
            return found;
        }
        if visit.goes_on_at(start + BLOCK_FRAMES) {
            left |= row.some & 1 << (bit + 1);
        }
    }
    None
}

/// The same for a block in which no run of interest begins, at its lower end if a stretch goes on
/// there, and at its upper end if one may go on behind it.
fn walk_ends(
    block: Block<'_>,
    first: u64,
    is_upper_wanted: bool,
    visit: &mut impl Visit,
) -> Option<u64> {
    if visit.goes_on_at(first) {
        let (frames, _) = prefix(block);
        let found = if frames > 0 { visit.see(first, frames) } else { None };
        if found.is_some() || frames == BLOCK_FRAMES {
            return found;
        }
    }
    if is_upper_wanted { walk_end(block, first, visit) } else { None }
}

/// Whether any of these frames of a word is free, in any word of a block.
#[inline]
fn may_begin(block: Block<'_>, begins: u64) -> bool {
    // ORDERING: as in `walk`.
    let free = || block.leaf().words().fold(0, |all, word| all | word.load(Ordering::Acquire));
    begins == FULL || free() & begins != 0
}

fn is_ready(block: Block<'_>) -> bool {
    // ORDERING: Acquire pairs with the Release in `write_leaf`.
    block.giant.nodes().ready.is_set(block.index, Ordering::Acquire)
}

/// The same for one block, frame by frame, from one of them or its first on.
fn walk_block(
    writer: Writer<'_>,
    block: Block<'_>,
    from: u64,
    visit: &mut impl Visit,
) -> Option<u64> {
    let first = block.first_frame().get();
    // What lies below `from` is of no interest.
    let passed = from.saturating_sub(first);
    let mut unseen = u64::MAX << (passed % WORD_BITS);
    let mut some = passed;
    let mut start = first + passed - passed % WORD_BITS;
    for word in block.leaf().words().skip((passed / WORD_BITS) as usize) {
        // ORDERING: as in `walk`.
        let bits = word.load(Ordering::Acquire) & unseen;
        some |= bits;
        let least = visit.least().min(WORD_BITS) as u32;
        let found = walk_word(bits, start, least, visit);
        if found.is_some() {
            return found;
        }
        unseen = u64::MAX;
        start += WORD_BITS;
    }
    if some == 0 {
        retire(writer, block);
    }
    narrow(writer, block, visit.in_vain());
    None
}

#[inline]
fn walk_word(bits: u64, start: u64, least: u32, visit: &mut impl Visit) -> Option<u64> {
    if bits == 0 {
        return None;
    }
    if bits == FULL {
        return visit.see(start, WORD_BITS);
    }
    let begins = visit.begins();
    // As long as the word they would fill it.
    if u64::from(least) < WORD_BITS && starts_of_runs(bits, least) & begins != 0 {
        return runs(bits).find_map(|(at, len)| visit.see(start + u64::from(at), u64::from(len)));
    }
    // Only what goes on from the word below, or may go on in the next.
    let low = u64::from(bits.trailing_ones());
    if low > 0 && visit.goes_on_at(start) {
        let found = visit.see(start, low);
        if found.is_some() {
            return found;
        }
    }
    let high = u64::from((bits << (u64::from(u64::BITS) - WORD_BITS)).leading_ones());
    let may_begin = begins & FULL.checked_shl((WORD_BITS - high) as u32).unwrap_or(0) != 0;
    if may_begin { visit.see(start + WORD_BITS - high, high) } else { None }
}
