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

use super::longest::{longest_within, narrow_to_nothing, prefix, suffix};
use crate::bits::{bytes_at_least, ones};
use crate::bounds::{ANY, Bound};
use crate::directory::Block;
use crate::geometry::{CLUSTER_GIANTS, GIANT_BLOCKS, ROW, WORD_BITS};
use crate::journal::Writer;
use crate::root::{Cluster, Giant};
use crate::sync::{Ordering, full_fence, rmw_fence};

/// The bytes of a row that are in use, a bit for each.
const LANES: u64 = (1 << ROW) - 1;

#[inline]
fn bound_of<'m>(giant: &Giant<'m>) -> Bound<'m> {
    giant.cluster.longest.of(giant.number() as usize % CLUSTER_GIANTS)
}

/// The longest run that may begin in a giant that is in use.
#[inline]
pub fn bound_in(giant: &Giant<'_>) -> u64 {
    bound_of(giant).get()
}

/// Giants of a cluster in which a run of `least` frames could begin, or from which one could go on
/// into the next; those that are free as a whole are named.
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

/// Makes the byte of a giant say at least this, after a fence, or the read-modify-write of a
/// block's byte.
#[inline]
pub fn raise_giant(giant: &Giant<'_>, least: u64) {
    rmw_fence();
    bound_of(giant).raise(least);
}

/// Takes back what was said of a giant.
pub fn tell_nothing(giant: &Giant<'_>) {
    full_fence();
    bound_of(giant).raise(ANY);
}

/// Says of a giant that no run of more than `most` frames begins there, if that is so and news.
pub fn narrow_giant<'m>(writer: Writer<'_>, giant: &'m Giant<'m>, most: u64) {
    let (bound, most) = (bound_of(giant), most.min(ANY - 1));
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
        bound.raise(ANY);
    }
}

/// Whether the blocks' bytes, and what is free at the ends of rows, leave no room for more than
/// `most` frames in a row.
fn is_within<'m>(giant: &'m Giant<'m>, most: u64) -> bool {
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

/// The longest run of free frames that begins in a giant that is in use, as far as it goes; no
/// more than [`ANY`].
pub fn longest_in<'m>(giant: &'m Giant<'m>) -> u64 {
    let (mut longest, mut open) = (0, 0);
    for index in 0..GIANT_BLOCKS as usize {
        let block = Block { giant, index };
        let (more, is_full) = prefix(block);
        open += more;
        if !is_full {
            let (within, behind) = longest_within(block);
            longest = longest.max(open).max(within);
            open = behind;
        }
    }
    longest.max(open).min(ANY)
}
