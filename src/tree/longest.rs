//! How long a run could begin in each block: a bound that lets searches for runs pass blocks
//! that hold only crumbs.
//!
//! One byte for each block, eight in a word (a *row*, 16 MiB): from no frame of the block on are
//! more frames in a row free than this, as far as the row goes; 255 for "who knows". It is a
//! hint that errs only upward: a search that looked into a block in vain **narrows** its byte to
//! what is there, and whoever gives frames to a block **widens** it, and that of the
//! block below, whose runs may go on here.
//!
//! The two are each other's partners: narrow, fence, look at the frames again; give, fence, look
//! at the byte. One of them sees the other. So a free pays one load, and an atomic
//! read-modify-write only after a search for a run has narrowed the byte.

use crate::bits::longest_run;
use crate::directory::Block;
use crate::geometry::{BLOCK_FRAMES, FULL, GIANT_BLOCKS, ROW_BLOCKS, WORD_BITS};
use crate::journal::Writer;
use crate::root::{Giant, Nodes};
use crate::sync::{Ordering, Word, full_fence, rmw_fence};

/// The byte of a block of which nothing is known.
pub const ANY: u64 = 0xff;
const BYTE: usize = 8;

/// Where a block's byte lies: its row, and by how many bits it is shifted there.
#[inline(always)]
fn byte_of<'m>(block: Block<'m>) -> (&'m Word, usize) {
    let row = block.giant.nodes().longest.row(block.index / ROW_BLOCKS);
    (row, block.index % ROW_BLOCKS * BYTE)
}

/// What a row says of a block, and of the one below in the same row, when nothing is known of them.
#[inline(always)]
const fn any_of_two(shift: usize) -> u64 {
    ANY << shift | ANY << shift >> BYTE
}

/// After frames were given to a block by a read-modify-write: takes back what was said of it and
/// of the block below. One load, if nothing was said.
#[inline(always)]
pub fn widen(block: Block<'_>) {
    if !is_wide(block) {
        let (row, shift) = byte_of(block);
        // ORDERING: Release carries the step's begin to a search that reads this.
        row.fetch_or(any_of_two(shift), Ordering::Release);
    }
}

/// After frames were given to a block by a read-modify-write: whether nothing is said of it and of
/// the block below.
#[inline(always)]
pub fn is_wide(block: Block<'_>) -> bool {
    rmw_fence();
    let (row, shift) = byte_of(block);
    // ORDERING: behind the fence; it and the one in `narrow` order the two looks.
    !row.load(Ordering::Relaxed) & any_of_two(shift) == 0
}

/// After frames were given to a block, before [`widen`]: whether that has surely nothing to do, as
/// nothing was said of any block in the row.
#[inline(always)]
pub fn is_row_wide(block: Block<'_>) -> bool {
    rmw_fence();
    // ORDERING: as in `widen`.
    byte_of(block).0.load(Ordering::Relaxed) == u64::MAX
}

/// The same for all blocks of a giant, after a fence.
pub fn widen_all(giant: &Giant<'_>) {
    for row in giant.nodes().longest.rows() {
        // ORDERING: as in `widen`.
        if row.load(Ordering::Relaxed) != u64::MAX {
            // ORDERING: as in `widen`.
            row.fetch_or(u64::MAX, Ordering::Release);
        }
    }
}

/// The longest run that may begin in a block.
#[inline]
pub fn bound(block: Block<'_>) -> u64 {
    let (row, shift) = byte_of(block);
    // ORDERING: a hint; Acquire pairs with the Release in `narrow`, so that its step is seen
    // before "out of memory" is said.
    row.load(Ordering::Acquire) >> shift & ANY
}

/// Says of a block how long a run begins there at most, if that is less than `count`, for which
/// somebody has looked in vain, and news.
pub fn narrow(writer: Writer<'_>, block: Block<'_>, count: u64) {
    let (row, shift) = byte_of(block);
    // ORDERING: a hint; the exchange decides.
    let said = row.load(Ordering::Relaxed);
    let known = said >> shift & ANY;
    if known < count && known != ANY {
        return;
    }
    let found = longest_from(block);
    if found >= known {
        return;
    }
    let _step = writer.begin();
    let narrowed = said & !(ANY << shift) | found << shift;
    // ORDERING: Release as in `retire`: who reads this sees the step. The fence orders the
    // second look (see `widen`).
    if row.compare_exchange(said, narrowed, Ordering::AcqRel).is_err() {
        return;
    }
    full_fence();
    if longest_from(block) > found {
        // ORDERING: as in `widen`.
        row.fetch_or(ANY << shift, Ordering::Release);
    }
}

/// The longest run of free frames that begins in this block, as far as its row goes; no more than
/// [`ANY`].
pub fn longest_from(block: Block<'_>) -> u64 {
    let (longest, mut open) = match frames(block) {
        Frames::Whole => (BLOCK_FRAMES, BLOCK_FRAMES),
        Frames::None => (0, 0),
        Frames::Some => longest_within(block),
    };
    // What is open at the block's end may go on in the blocks behind.
    let mut next = block.index;
    while open > 0 && open < ANY {
        next += 1;
        if next.is_multiple_of(ROW_BLOCKS) || next >= GIANT_BLOCKS as usize {
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

/// The longest run of a leaf, and how many frames at its end are free.
fn longest_within(block: Block<'_>) -> (u64, u64) {
    let (mut longest, mut open) = (0, 0);
    for word in block.leaf().words() {
        // ORDERING: as in `frames`.
        let bits = word.load(Ordering::Acquire);
        if bits == FULL {
            open += WORD_BITS;
            continue;
        }
        longest = longest.max(open + u64::from(bits.trailing_ones()));
        longest = longest.max(u64::from(longest_run(bits)));
        open = u64::from((bits << (u64::from(u64::BITS) - WORD_BITS)).leading_ones());
    }
    (longest, open)
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
    let mut free = 0;
    for index in (0..crate::geometry::NODE_WORDS).rev() {
        // ORDERING: as in `frames`.
        let bits = block.leaf().word(index).load(Ordering::Acquire);
        let high = (bits << (u64::from(u64::BITS) - WORD_BITS)).leading_ones();
        free += u64::from(high);
        if bits != FULL {
            break;
        }
    }
    free
}
