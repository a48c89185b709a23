//! How long a run could begin in each block: a bound that lets searches for runs pass blocks
//! that hold only crumbs.
//!
//! One byte for each block, eight in a *row* of 16 MiB: from no frame of the block on are more
//! frames in a row free than this, as far as its row goes; 255 for "who knows". It is a hint that
//! errs only upward: a search that looked into a block in vain **narrows** its byte to what is
//! there, and whoever gives frames **raises** the bytes of the block and of the one below, whose
//! runs may go on here, to the run that they are part of now.
//!
//! The two are each other's partners: narrow, fence, look at the frames again; give, fence, look
//! at the byte. One of them sees the other. Of several who give frames of one run, the last one
//! behind his fence sees the frames of all others, and so the run as it is. A free pays one load,
//! and looks at what is free beside its frames only where a search has narrowed the byte.
//!
//! What is said of a whole giant ([`super::giants`]) is said again by whoever finds a byte
//! narrowed: so while one is 255, nothing is said of the giant.

use super::giants::{raise_begin, raise_end, raise_giant, tell_nothing};
use crate::bits::{longest_run, mask};
use crate::bounds::{ANY, Bound};
use crate::directory::{Block, Group};
use crate::geometry::{BLOCK_FRAMES, FULL, GIANT_BLOCKS, NODE_WORDS, ROW, WORD_BITS};
use crate::journal::Writer;
use crate::root::{Giant, Nodes};
use crate::sync::{Ordering, full_fence, rmw_fence};

/// Where a block's byte lies.
#[inline(always)]
fn bound_of<'m>(block: Block<'m>) -> Bound<'m> {
    block.giant.nodes().longest.of(block.index)
}

/// After frames of one word were given to a block by a read-modify-write: sees to it that they are
/// part of no run that is longer than is said. One load, if nothing was said.
#[inline(always)]
pub fn tell_of_frames<'m>(giant: &'m Giant<'m>, group: Group, frames: u64) {
    if !is_wide(Block { giant, index: group.block() }) {
        raise_around(giant, group, frames);
    }
}

/// After a block was given by a read-modify-write, or many of its frames: takes back what was said
/// of it and of the block below. One load, if nothing was said.
#[inline(always)]
pub fn widen(block: Block<'_>) {
    if !is_wide(block) {
        widen_both(block);
    }
}

fn widen_both(block: Block<'_>) {
    bound_of(block).raise(ANY);
    if let Some(below) = below_in_row(block) {
        bound_of(below).raise(ANY);
    }
    raise_giant(block.giant, ANY);
}

/// After frames were given to a block by a read-modify-write: whether nothing is said of it and of
/// the block below.
#[inline(always)]
pub fn is_wide(block: Block<'_>) -> bool {
    rmw_fence();
    let bound = bound_of(block);
    // Behind the fence; it and the one in `narrow` order the two looks.
    bound.is_wide_with_below(bound.look())
}

/// After frames were given to a block, before [`tell_of_frames`]: whether that has surely nothing
/// to do, as nothing was said of any block in the row.
#[inline(always)]
pub fn is_row_wide(block: Block<'_>) -> bool {
    rmw_fence();
    bound_of(block).look() == u64::MAX
}

/// Takes back what was said of all blocks of a giant, after a fence.
pub fn widen_all(giant: &Giant<'_>) {
    for row in giant.nodes().longest.rows() {
        // ORDERING: behind the fence, as in `is_wide`.
        if row.load(Ordering::Relaxed) != u64::MAX {
            // ORDERING: nothing is passed because of this; what was published before stays so.
            row.fetch_or(u64::MAX, Ordering::Relaxed);
        }
    }
    tell_nothing(giant);
}

/// The longest run that may begin in a block.
#[inline]
pub fn bound(block: Block<'_>) -> u64 {
    bound_of(block).get()
}

/// Says of a block how long a run begins there at most, if that is less than `count`, for which
/// somebody has looked in vain, and news.
pub fn narrow(writer: Writer<'_>, block: Block<'_>, count: u64) {
    let bound = bound_of(block);
    let row = bound.look();
    let known = bound.said_by(row);
    if known < count && known != ANY {
        return;
    }
    let found = longest_from(block, 0);
    if found >= known {
        return;
    }
    let _step = writer.begin();
    if !bound.exchange(row, found) {
        return;
    }
    // Orders the second look (see `is_wide`).
    full_fence();
    if longest_from(block, found) > found {
        bound.raise(ANY);
        raise_giant(block.giant, ANY);
    }
}

/// Says of blocks of one row, which said `bounds`, that no run begins there.
pub fn narrow_to_nothing<'m>(
    writer: Writer<'_>,
    bounds: u64,
    blocks: impl Iterator<Item = Block<'m>> + Clone,
) {
    let Some(first) = blocks.clone().next() else { return };
    let row = first.giant.nodes().longest.row(first.index / ROW);
    let nothing = blocks.clone().fold(bounds, |bounds, block| bound_of(block).at_nothing(bounds));
    let _step = writer.begin();
    // ORDERING: as in `Bound::exchange`.
    if row.compare_exchange(bounds, nothing, Ordering::AcqRel).is_err() {
        return;
    }
    // As in `narrow`.
    full_fence();
    for block in blocks.filter(|block| longest_from(*block, 0) > 0) {
        bound_of(block).raise(ANY);
        raise_giant(block.giant, ANY);
    }
}

/// The block below, if it lies in the same row.
fn below_in_row(block: Block<'_>) -> Option<Block<'_>> {
    let is_first = block.index.is_multiple_of(ROW);
    (!is_first).then(|| Block { index: block.index - 1, ..block })
}

/// The block above, if it lies in the same row.
fn above_in_row(block: Block<'_>) -> Option<Block<'_>> {
    let next = block.index + 1;
    (!next.is_multiple_of(ROW)).then_some(Block { index: next, ..block })
}

/// What is free beside frames that were given, at one of their ends.
enum Beside {
    /// So many frames, and then one that is not.
    Frames(u64),
    /// More than is worth a look.
    Many,
    /// So many up to the end of the block.
    ToTheEnd(u64),
}

/// Raises what is said of a block, of the one below, and of their giant, to the run that these
/// frames are part of.
#[inline(never)]
fn raise_around<'m>(giant: &'m Giant<'m>, group: Group, frames: u64) {
    let (block, word) = (Block { giant, index: group.block() }, group.word());
    // ORDERING: behind the fence in `is_wide`, as all looks here: see above.
    let bits = block.leaf().word(word).load(Ordering::Relaxed) | frames;
    let (lowest, highest) = (frames.trailing_zeros(), u64::BITS - 1 - frames.leading_zeros());
    let start = u64::BITS - (!bits & !(u64::MAX << lowest)).leading_zeros();
    let end = (!bits & u64::MAX << highest).trailing_zeros();
    let within = u64::from(end - start);
    if start > 0 && u64::from(end) < WORD_BITS {
        // If they do not hang together, none of their runs touches the word's ends.
        let is_one = mask(start, end - start) & !bits == 0;
        let length = if is_one { within } else { u64::from(longest_run(bits)) };
        bound_of(block).raise(length);
        return raise_giant(block.giant, length);
    }
    let below = if start > 0 { Beside::Frames(0) } else { below_of(block, word) };
    let above = if u64::from(end) < WORD_BITS { Beside::Frames(0) } else { above_of(block, word) };
    match (below, above) {
        (Beside::Many, _) | (_, Beside::Many) => widen_both(block),
        (Beside::Frames(below), Beside::Frames(above)) => {
            let length = (below + within + above).min(ANY);
            bound_of(block).raise(length);
            raise_giant(block.giant, length);
        }
        (below, above) => raise_across(block, below, within, above),
    }
}

/// The same if they touch an end of the block.
fn raise_across(block: Block<'_>, below: Beside, within: u64, above: Beside) {
    let (mut length, mut crosses_a_row, mut goes_up) = (within, false, false);
    match above {
        Beside::Frames(more) => length += more,
        Beside::ToTheEnd(more) => match above_in_row(block).map(prefix) {
            Some((further, false)) => length += more + further,
            Some((_, true)) => return widen_both(block),
            None => {
                length += more;
                crosses_a_row = block.index + 1 < GIANT_BLOCKS as usize;
                goes_up = !crosses_a_row;
            }
        },
        Beside::Many => return widen_both(block),
    }
    match below {
        Beside::Frames(more) => {
            length += more;
            bound_of(block).raise(length.min(ANY));
        }
        Beside::ToTheEnd(more) => {
            length += more;
            bound_of(block).raise(length.min(ANY));
            match below_in_row(block).map(|below| (below, suffix(below))) {
                Some((_, BLOCK_FRAMES)) => return widen_both(block),
                Some((below, further)) if further > 0 => {
                    length += further;
                    bound_of(below).raise(length.min(ANY));
                }
                Some(_) => {}
                None if block.index == 0 => raise_begin(block.giant, length.min(ANY)),
                None => crosses_a_row = true,
            }
        }
        Beside::Many => return widen_both(block),
    }
    if goes_up {
        raise_end(block.giant, length.min(ANY));
    }
    // What lies behind the end of a row is not looked at.
    raise_giant(block.giant, if crosses_a_row { ANY } else { length.min(ANY) });
}

/// What is free below a word of a block.
fn below_of(block: Block<'_>, word: usize) -> Beside {
    let Some(below) = word.checked_sub(1) else { return Beside::ToTheEnd(0) };
    // ORDERING: as in `raise_around`.
    let bits = block.leaf().word(below).load(Ordering::Relaxed);
    match high_ones(bits) {
        WORD_BITS if below == 0 => Beside::ToTheEnd(WORD_BITS),
        WORD_BITS => Beside::Many,
        more => Beside::Frames(more),
    }
}

/// What is free above a word of a block.
fn above_of(block: Block<'_>, word: usize) -> Beside {
    if word + 1 == NODE_WORDS {
        return Beside::ToTheEnd(0);
    }
    // ORDERING: as in `raise_around`.
    let bits = block.leaf().word(word + 1).load(Ordering::Relaxed);
    match u64::from(bits.trailing_ones()) {
        WORD_BITS if word + 2 == NODE_WORDS => Beside::ToTheEnd(WORD_BITS),
        WORD_BITS => Beside::Many,
        more => Beside::Frames(more),
    }
}

/// The longest run of free frames that begins in this block, as far as its row goes; no more than
/// [`ANY`], and no less than `least`.
pub fn longest_from(block: Block<'_>, least: u64) -> u64 {
    let (longest, mut open) = longest_within(block, least);
    // What is open at the block's end may go on in the blocks behind.
    let mut next = block.index;
    while open > 0 && open < ANY {
        next += 1;
        if next.is_multiple_of(ROW) || next >= GIANT_BLOCKS as usize {
            break;
        }
        let (more, is_full) = prefix(Block { index: next, ..block });
        open += more;
        if !is_full {
            break;
        }
    }
    longest.max(open).min(ANY)
}

enum Frames {
    Whole,
    Some,
    None,
}

/// In which form a block's free frames are recorded, if there are any.
fn frames(block: Block<'_>) -> Frames {
    let Nodes { blocks, ready, .. } = block.giant.nodes();
    if block.giant.section(block.index).load().is_none() {
        return Frames::None;
    }
    // ORDERING: a look, behind the fence of `narrow` where that matters.
    if blocks.is_set(block.index, Ordering::Acquire) {
        Frames::Whole
    // ORDERING: Acquire pairs with the Release in `write_leaf`.
    } else if ready.is_set(block.index, Ordering::Acquire) {
        Frames::Some
    } else {
        Frames::None
    }
}

/// The longest run within a block, or `least` if none is longer; and how many frames at the
/// block's end are free.
pub fn longest_within(block: Block<'_>, least: u64) -> (u64, u64) {
    match frames(block) {
        Frames::Whole => return (BLOCK_FRAMES, BLOCK_FRAMES),
        Frames::None => return (least, 0),
        Frames::Some => {}
    }
    let (mut longest, mut open) = (least, 0);
    for word in block.leaf().words() {
        // ORDERING: as in `frames`.
        let bits = word.load(Ordering::Acquire);
        if bits == FULL {
            open += WORD_BITS;
            continue;
        }
        let (low, high) = (u64::from(bits.trailing_ones()), high_ones(bits));
        longest = longest.max(open + low);
        // Between them there is most often no room for a longer one, nor as many free frames.
        if WORD_BITS - low - high > longest && u64::from(bits.count_ones()) - low - high > longest {
            longest = longest.max(u64::from(longest_run(bits)));
        }
        open = high;
        longest = longest.max(open);
    }
    (longest.max(open), open)
}

/// How many frames at a block's begin are free, and whether that is all of it.
pub fn prefix(block: Block<'_>) -> (u64, bool) {
    match frames(block) {
        Frames::Whole => return (BLOCK_FRAMES, true),
        Frames::None => return (0, false),
        Frames::Some => {}
    }
    let mut free = 0;
    for word in block.leaf().words() {
        // ORDERING: as in `frames`.
        let bits = word.load(Ordering::Acquire);
        free += u64::from(bits.trailing_ones());
        if bits != FULL {
            return (free, false);
        }
    }
    (free, true)
}

/// How many frames at a block's end are free.
pub fn suffix(block: Block<'_>) -> u64 {
    match frames(block) {
        Frames::Whole => return BLOCK_FRAMES,
        Frames::None => return 0,
        Frames::Some => {}
    }
    let mut free = 0;
    for index in (0..NODE_WORDS).rev() {
        // ORDERING: as in `frames`.
        let bits = block.leaf().word(index).load(Ordering::Acquire);
        free += high_ones(bits);
        if bits != FULL {
            break;
        }
    }
    free
}

/// How many bits at a word's upper end are set.
#[inline]
pub fn high_ones(bits: u64) -> u64 {
    u64::from((bits << (u64::from(u64::BITS) - WORD_BITS)).leading_ones())
}
