//! How long a run could begin in each giant: the bounds of [`super::longest`] one level up, so
//! that a search for a run passes a GiB by a byte, and a request that nothing fits costs a few
//! words for 64 GiB.
//!
//! From no frame of a giant that is in use on are more frames in a row free than its byte says, as
//! far as the giant goes. It is **narrowed** by a search that came to its end in vain, to what the
//! bytes of its blocks say, and what is free where two of their rows meet; and **raised** by
//! whoever raises a block's byte, or finds it narrowed and the run no longer than it says.
//!
//! Again both are each other's partners: narrow, fence, look at the blocks' bytes again; raise
//! those, fence, look at this one. A free that finds nothing said of its block does not look here:
//! so a giant's byte is narrowed only while all bytes of its blocks are.

use super::longest::{bound as bound_on, longest_within, narrow_to_nothing, prefix, suffix};
use crate::bits::{bytes_at_least, ones};
use crate::bounds::{ANY, Bound};
use crate::directory::Block;
use crate::geometry::{BLOCK_FRAMES, CLUSTER_GIANTS, GIANT_BLOCKS, ROW, WORD_BITS};
use crate::journal::Writer;
use crate::root::{Cluster, Giant};
use crate::sync::{Ordering, full_fence, rmw_fence};

/// The bytes of a row that are in use, a bit for each.
const LANES: u64 = (1 << ROW) - 1;

/// The bounds of a giant: of runs that begin there, and of what is free at its begin and end.
struct Of<'m> {
    longest: Bound<'m>,
    begin: Bound<'m>,
    end: Bound<'m>,
}

impl<'m> Of<'m> {
    #[inline]
    fn giant(giant: &Giant<'m>) -> Self {
        let Cluster { longest, begins, ends, .. } = giant.cluster;
        let index = giant.number() as usize % CLUSTER_GIANTS;
        Self { longest: longest.of(index), begin: begins.of(index), end: ends.of(index) }
    }
}

/// The longest run that may begin in a giant that is in use.
#[inline]
pub fn bound_in(giant: &Giant<'_>) -> u64 {
    Of::giant(giant).longest.get()
}

/// Giants of a cluster in which a run of `least` frames could begin, or from which one could go on
/// into the next, as far as that is seen at once; those that are free as a whole are named.
#[inline]
pub fn worth_a_look(cluster: &Cluster<'_>, free: u64, least: u64) -> u64 {
    // Where a run lies in two giants, it has half of its frames in one of them.
    let half = least.div_ceil(2).min(ANY) as u8;
    let mut long = free;
    for (index, row) in cluster.longest.rows().enumerate() {
        // ORDERING: as in `Bound::get`.
        let bounds = row.load(Ordering::Acquire);
        long |= (bytes_at_least(bounds, half) & LANES) << (index * ROW);
    }
    // What the next cluster begins with is not known.
    long | long >> 1 | 1 << (WORD_BITS - 1)
}

/// Whether a run of `least` frames could go on from a giant in use into the next.
#[inline]
pub fn may_go_on(giant: &Giant<'_>, least: u64) -> bool {
    let Cluster { begins, ends, .. } = giant.cluster;
    let index = giant.number() as usize % CLUSTER_GIANTS;
    // ORDERING: a look, as in `Giant::is_free`.
    let free = giant.cluster.free.load(Ordering::Acquire);
    // What the next cluster begins with is not known.
    index + 1 == CLUSTER_GIANTS
        || free >> (index + 1) & 1 != 0
        || ends.of(index).get() + begins.of(index + 1).get() >= least.min(ANY)
}

/// Makes the byte of a giant say at least this, after a fence, or the read-modify-write of a
/// block's byte. With [`ANY`] nothing is said of its ends either.
#[inline]
pub fn raise_giant(giant: &Giant<'_>, least: u64) {
    rmw_fence();
    let Of { longest, begin, end } = Of::giant(giant);
    longest.raise(least);
    if least == ANY {
        begin.raise(ANY);
        end.raise(ANY);
    }
}

/// Makes the byte of a giant's begin say at least this; else as [`raise_giant`].
pub fn raise_begin(giant: &Giant<'_>, least: u64) {
    rmw_fence();
    Of::giant(giant).begin.raise(least);
}

/// The same for its end.
pub fn raise_end(giant: &Giant<'_>, least: u64) {
    rmw_fence();
    Of::giant(giant).end.raise(least);
}

/// Takes back what was said of a giant.
pub fn tell_nothing(giant: &Giant<'_>) {
    full_fence();
    raise_giant(giant, ANY);
}

/// Says of a giant that no run of more than `most` frames begins there, if that is so and news.
pub fn narrow_giant<'m>(writer: Writer<'_>, giant: &'m Giant<'m>, most: u64) {
    let Of { longest: bound, begin, end } = Of::giant(giant);
    let most = most.min(ANY - 1);
    let row = bound.look();
    if bound.said_by(row) <= most {
        return;
    }
    narrow_empty_blocks(writer, giant, most);
    if !is_within(giant, most) {
        return;
    }
    let _step = writer.begin();
    if !bound.exchange(row, most) {
        return;
    }
    // Orders the second look (see `raise_giant`).
    full_fence();
    if !is_within(giant, most) {
        return bound.raise(ANY);
    }
    narrow_end(begin, Block { giant, index: 0 }, at_begin);
    narrow_end(end, Block { giant, index: GIANT_BLOCKS as usize - 1 }, at_end);
}

/// How many frames are free at a block's begin; [`ANY`] if that may not be all.
fn at_begin(block: Block<'_>) -> u64 {
    let (frames, is_full) = prefix(block);
    if is_full { ANY } else { frames.min(ANY) }
}

/// The same at its end.
fn at_end(block: Block<'_>) -> u64 {
    let frames = suffix(block);
    if frames == BLOCK_FRAMES { ANY } else { frames.min(ANY) }
}

/// Says what is free at an end of a giant, in the block there, if that is news; inside a step.
fn narrow_end(bound: Bound<'_>, block: Block<'_>, look: fn(Block<'_>) -> u64) {
    let row = bound.look();
    let found = look(block);
    if found >= bound.said_by(row) || !bound.exchange(row, found) {
        return;
    }
    // As in `narrow_giant`; and a free that finds nothing said of the block does not look here.
    full_fence();
    if look(block) > found || bound_on(block) == ANY {
        bound.raise(ANY);
    }
}

/// Whether the blocks' bytes, and what is free at the ends of rows, leave no room for more than
/// `most` frames in a row.
pub fn is_within<'m>(giant: &'m Giant<'m>, most: u64) -> bool {
    let mut last = 0;
    for (index, row) in giant.nodes().longest.rows().enumerate() {
        // ORDERING: as in `Bound::get`.
        let bounds = row.load(Ordering::Acquire);
        if bytes_at_least(bounds, most as u8 + 1) & LANES != 0 {
            return false;
        }
        if last + (bounds & ANY) > most {
            let first = Block { giant, index: index * ROW };
            let (more, is_full) = prefix(first);
            if is_full || suffix(Block { index: first.index - 1, ..first }) + more > most {
                return false;
            }
        }
        last = bounds >> ((ROW - 1) * 8) & ANY;
    }
    true
}

/// Narrows the bytes of those blocks that no search looks into, as nothing in them is free.
fn narrow_empty_blocks<'m>(writer: Writer<'_>, giant: &'m Giant<'m>, most: u64) {
    let nodes = giant.nodes();
    for (index, row) in nodes.longest.rows().enumerate() {
        // ORDERING: the exchange decides.
        let bounds = row.load(Ordering::Relaxed);
        let long = bytes_at_least(bounds, most as u8 + 1) & LANES;
        let [blocks, partial] = [&nodes.blocks, &nodes.partial].map(|node| {
            let word = node.word(index * ROW / WORD_BITS as usize);
            // ORDERING: looks that only save work.
            word.load(Ordering::Relaxed) >> (index * ROW % WORD_BITS as usize)
        });
        let empty = long & !(blocks | partial);
        if empty != 0 {
            let empty = ones(empty).map(|lane| Block { giant, index: index * ROW + lane as usize });
            narrow_to_nothing(writer, bounds, empty);
        }
    }
}

/// Whether no more is free at the ends of a giant in use than is said.
pub fn is_within_its_ends<'m>(giant: &'m Giant<'m>) -> bool {
    let Of { begin, end, .. } = Of::giant(giant);
    let last = Block { giant, index: GIANT_BLOCKS as usize - 1 };
    at_begin(Block { giant, index: 0 }) <= begin.get() && at_end(last) <= end.get()
}

/// The longest run of free frames that begins in a giant that is in use, as far as it goes; no
/// more than [`ANY`].
pub fn longest_in<'m>(giant: &'m Giant<'m>) -> u64 {
    let (mut longest, mut open) = (0, 0);
    for index in 0..GIANT_BLOCKS as usize {
        let block = Block { giant, index };
        let (more, is_full) = prefix(block);
        open += more;
        if !is_full {
            let (within, behind) = longest_within(block, 0);
            longest = longest.max(open).max(within);
            open = behind;
        }
    }
    longest.max(open).min(ANY)
}
