//! Moving frames between levels: ready, split, merge; and keeping the hints: announce, retire,
//! raise, lower.
//!
//! **Announce** (frames appeared in a leaf): whoever made a word of truth go from nothing to
//! something sets the block's bit in `partial`, always by a read-modify-write, and, if that made
//! *its* word go from nothing to something, raises the giant's bit in the cluster.
//! **Retire** (a leaf was found empty): clear the block's bit, look at the leaf again, and
//! announce if anything is there. The two read-modify-writes on the hint word are ordered: the
//! announcement comes later, and stays, or earlier, and then the retirer's second look sees the
//! frames (its read-modify-write read the announcement's, with Acquire).
//!
//! **Raise and lower** do the same at the cluster, whose line many CPUs share, so a raise skips
//! the read-modify-write if the bit reads set. That takes a full fence on both sides, between
//! one's own read-modify-write and the look at the other's word: at least one sees the other.
//!
//! **Ready**: a leaf, and a giant's nodes, are written by the first holder of the whole block, or
//! giant, who then sets its ready bit with Release. Who may come earlier, by a hint or a bit of
//! truth that changed under it, looks at the ready bit with Acquire first.
//!
//! **Split**: claim the block's bit; the leaf is then this CPU's alone, and is written by plain
//! stores, with Release since a search with an old hint may find them at once; announce.
//! **Merge**: when a leaf reads full, claim each word; on a conflict give back, announce, and
//! look again (each gift is followed by a look at the bounds, with a full fence before: of two CPUs
//! that complete a leaf at once, one sees it complete). With the whole leaf claimed, free the
//! block's bit and retire its hint.

use core::ops::Range;

use super::longest::{widen, widen_all};
use crate::directory::Block;
use crate::geometry::{FULL, WORD_BITS};
use crate::journal::{Counter, Writer};
use crate::node::{Edge, Fill, Given, Node, give, mask_between, take_bit};
use crate::root::Giant;
use crate::sync::{Ordering, Word, full_fence, rmw_fence};

/// A hint of a cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hint {
    /// The giant has blocks that are free as a whole.
    Whole,
    /// The giant has blocks of which some frames are free.
    Partial,
}

/// Writes a block's leaf if that has never been done. The caller holds the whole block.
#[inline(always)]
pub(super) fn make_ready(block: Block<'_>) {
    let (word, mask) = block.giant.nodes().ready.at(block.index);
    // ORDERING: set by an earlier holder of this block; the block's own bit carried it here.
    if word.load(Ordering::Relaxed) & mask == 0 {
        write_leaf(block);
    }
}

#[cold]
#[inline(never)]
fn write_leaf(block: Block<'_>) {
    block.leaf().fill(0);
    block.zeroes().fill(0);
    let (word, mask) = block.giant.nodes().ready.at(block.index);
    // ORDERING: Release pairs with the Relaxed look above through the block's own bit, and
    // with the Acquire in `verify` and `peek`.
    word.fetch_or(mask, Ordering::Release);
}

/// Forgets what is known to be zero in a block that the caller holds as a whole.
#[inline(always)]
pub(super) fn forget_zero(block: Block<'_>) {
    let (word, mask) = block.giant.nodes().zero.at(block.index);
    // ORDERING: all frames are this CPU's, and so is what is known of them.
    if word.load(Ordering::Relaxed) & mask != 0 {
        empty_zeroes(block);
    }
}

#[cold]
#[inline(never)]
fn empty_zeroes(block: Block<'_>) {
    block.zeroes().fill(0);
    let (word, mask) = block.giant.nodes().zero.at(block.index);
    // ORDERING: others change other bits; carried on by the block's own bit.
    word.fetch_and(!mask, Ordering::Relaxed);
}

/// Claims a free block and hands its frames to its leaf, all but those numbered `kept`, which
/// become the caller's. Whether it did: another CPU may have been faster.
pub(super) fn split_block(writer: Writer<'_>, block: Block<'_>, kept: Range<usize>) -> bool {
    let (word, mask) = block.giant.nodes().blocks.at(block.index);
    let _step = writer.begin();
    if take_bit(word, mask).is_err() {
        writer.add(Counter::LostRaces, 1);
        return false;
    }
    make_ready(block);
    for (index, word) in block.leaf().words().enumerate() {
        let kept = mask_between(kept.start, kept.end, index * WORD_BITS as usize);
        // ORDERING: Release pairs with the Acquire of a taker that comes by an older hint:
        // the block's last owner passed its contents to this CPU.
        word.store(FULL & !kept, Ordering::Release);
    }
    announce(block);
    widen(block);
    writer.add(Counter::Splits, 1);
    true
}

/// Claims a free giant and hands its blocks to the block level.
pub(super) fn split_giant(writer: Writer<'_>, giant: &Giant<'_>) {
    let _step = writer.begin();
    if take_bit(&giant.cluster.free, giant.mask).is_err() {
        writer.add(Counter::LostRaces, 1);
        return;
    }
    giant.make_ready();
    for word in giant.nodes().blocks.words() {
        // ORDERING: as in `split_block`.
        word.store(FULL, Ordering::Release);
    }
    // After plain stores: an announcement has a read-modify-write before.
    full_fence();
    raise(giant, Hint::Whole);
    widen_all(giant);
    writer.add(Counter::Splits, 1);
}

/// Says that a leaf holds frames. The caller has made a word go from nothing to something,
/// inside a step of its journal.
#[inline]
pub(super) fn announce(block: Block<'_>) {
    if hint_at(block) {
        raise(block.giant, Hint::Partial);
    }
}

/// The same, but for the giant: whether that has to be told.
#[inline(always)]
pub(super) fn hint_at(block: Block<'_>) -> bool {
    let (word, mask) = block.giant.nodes().partial.at(block.index);
    // ORDERING: Release pairs with the Acquire of a retirer's `fetch_and`: its second look
    // sees the frames. Acquire keeps the look in `raise` behind.
    word.fetch_or(mask, Ordering::AcqRel) == 0
}

/// Takes back the hint of a leaf that was found empty, unless it isn't any more.
pub(super) fn retire(writer: Writer<'_>, block: Block<'_>) {
    let (word, mask) = block.giant.nodes().partial.at(block.index);
    // ORDERING: nobody retires what reads as retired; a wrong look leaves a stale hint.
    if word.load(Ordering::Relaxed) & mask != 0 {
        retire_used_up(writer, block, block.leaf());
    }
}

/// The same after this CPU has taken the last frame of the leaf.
#[inline(always)]
pub(super) fn retire_used_up(writer: Writer<'_>, block: Block<'_>, leaf: &Node) {
    let (word, mask) = block.giant.nodes().partial.at(block.index);
    let _step = writer.begin();
    // ORDERING: Acquire pairs with `announce`; Release with the search that reads the hint
    // as clear: it then sees this step in the journal.
    word.fetch_and(!mask, Ordering::AcqRel);
    // ORDERING: ordered behind an earlier announcement's frames by the Acquire above.
    if !leaf.is_empty(Ordering::Relaxed) {
        announce_again(block);
    }
}

#[cold]
#[inline(never)]
fn announce_again(block: Block<'_>) {
    announce(block);
}

/// Says at the cluster that a giant has something. The caller has made a word of the giant
/// go from nothing to something by a read-modify-write, inside a step of its journal.
#[inline(never)]
pub(super) fn raise(giant: &Giant<'_>, hint: Hint) {
    let (word, mask) = (hint_word(giant, hint), giant.mask);
    rmw_fence();
    // ORDERING: the fence above and the one in `lower` order the two looks: if this reads a
    // bit that is about to be cleared, the one who clears it sees what was put there.
    if word.load(Ordering::Relaxed) & mask == 0 {
        // ORDERING: Release pairs with the search's Acquire of the hint.
        word.fetch_or(mask, Ordering::AcqRel);
    }
}

/// Takes back a giant's hint if there is nothing under it.
pub(super) fn lower(writer: Writer<'_>, giant: &Giant<'_>, hint: Hint) {
    let (word, mask) = (hint_word(giant, hint), giant.mask);
    let node = match hint {
        Hint::Whole => &giant.nodes().blocks,
        Hint::Partial => &giant.nodes().partial,
    };
    // ORDERING: looks that only save work.
    if word.load(Ordering::Relaxed) & mask == 0 || !node.all(0, Ordering::Relaxed) {
        return;
    }
    let _step = writer.begin();
    // ORDERING: Release as in `retire`; the fence orders the second look (see `raise`).
    word.fetch_and(!mask, Ordering::AcqRel);
    rmw_fence();
    // ORDERING: behind the fence.
    if !node.all(0, Ordering::Relaxed) {
        // ORDERING: as in `raise`.
        word.fetch_or(mask, Ordering::AcqRel);
    }
}

/// Whether nothing of a giant that is in use could be found from above.
pub(super) fn is_used_up(giant: &Giant<'_>) -> bool {
    // ORDERING: a look; whoever takes something decides.
    let is_said = |hint| hint_word(giant, hint).load(Ordering::Relaxed) & giant.mask != 0;
    !is_said(Hint::Whole) && !is_said(Hint::Partial)
}

/// After a leaf word became full: puts the block together if its leaf is.
pub(super) fn merge_block(writer: Writer<'_>, block: Block<'_>) {
    let tell = || {
        announce(block);
        widen(block);
    };
    if !take_whole(writer, block.leaf(), tell) {
        return;
    }
    lower_zero(block);
    let given = give_block(block);
    writer.add(Counter::Merges, 1);
    retire(writer, block);
    if given.fill == Fill::Full {
        merge_giant(writer, block.giant);
    }
}

/// After a word of blocks became full: puts the giant together if all of its blocks are.
pub(super) fn merge_giant(writer: Writer<'_>, giant: &Giant<'_>) {
    let blocks = &giant.nodes().blocks;
    let tell = || {
        raise(giant, Hint::Whole);
        widen_all(giant);
    };
    if !take_whole(writer, blocks, tell) {
        return;
    }
    give(&giant.cluster.free, giant.mask);
    writer.add(Counter::Merges, 1);
    lower(writer, giant, Hint::Whole);
}

/// Claims all of a node if all of it is free; the caller then holds it, inside a step that
/// the caller has begun. On a conflict `announce` tells of what went back. Both have looked at the
/// bounds since, behind a fence.
fn take_whole(writer: Writer<'_>, node: &Node, announce: impl Fn()) -> bool {
    loop {
        // ORDERING: behind the fence in `is_wide` or `widen_all`, which follows this CPU's own last
        // gift to the node: each gift is told of before its node is put together.
        if !node.all(FULL, Ordering::Relaxed) {
            return false;
        }
        match node.take_full() {
            Ok(()) => return true,
            Err(0) => {}
            Err(_) => announce(),
        }
        writer.add(Counter::LostRaces, 1);
    }
}

/// Takes back the hint that frames of a block are known to be zero, if none is any more. The
/// caller holds the whole block.
fn lower_zero(block: Block<'_>) {
    let (word, mask) = block.giant.nodes().zero.at(block.index);
    // ORDERING: all frames are this CPU's, and so is what is known of them.
    let is_stale =
        word.load(Ordering::Relaxed) & mask != 0 && block.zeroes().all(0, Ordering::Relaxed);
    if is_stale {
        // ORDERING: others change other bits; carried on by the block's own bit.
        word.fetch_and(!mask, Ordering::Relaxed);
    }
}

/// Frees a block that the caller holds as a whole, inside a step.
#[inline]
pub(super) fn give_block(block: Block<'_>) -> Given {
    let (word, mask) = block.giant.nodes().blocks.at(block.index);
    let given = give(word, mask);
    tell_of_block(block, given);
    given
}

/// Says what a free block changes for those who search.
#[inline]
pub(super) fn tell_of_block(block: Block<'_>, given: Given) {
    widen(block);
    if given.edge == Edge::FromEmpty {
        raise(block.giant, Hint::Whole);
    }
}

/// Makes every block of a giant that the caller holds ready to be freed in parts. Eight loads, if
/// all of them are.
pub(super) fn make_all_ready<'m>(giant: &'m Giant<'m>) {
    giant.make_ready();
    // ORDERING: as in `make_ready`.
    if !giant.nodes().ready.all(FULL, Ordering::Relaxed) {
        giant.blocks().for_each(make_ready);
    }
}

/// Forgets what is known to be zero in a giant that the caller holds as a whole.
pub(super) fn forget_all_zero<'m>(giant: &'m Giant<'m>) {
    // ORDERING: as in `forget_zero`.
    if !giant.nodes().zero.is_empty(Ordering::Relaxed) {
        giant.blocks().for_each(forget_zero);
    }
}

/// Takes the known-zero bits of frames that were just taken.
#[inline]
pub(super) fn take_zeroes(block: Block<'_>, word: usize, bits: u64) -> u64 {
    // ORDERING: set before the frames were given; the taking acquired it.
    if !block.giant.nodes().zero.is_set(block.index, Ordering::Relaxed) {
        return 0;
    }
    let zeroes = block.zeroes().word(word);
    // ORDERING: as above; these bits belong to the frames' holder.
    let known = zeroes.load(Ordering::Relaxed) & bits;
    if known != 0 {
        // ORDERING: others change other bits; carried on by the frames' next free.
        zeroes.fetch_and(!known, Ordering::Relaxed);
    }
    known
}

fn hint_word<'m>(giant: &Giant<'m>, hint: Hint) -> &'m Word {
    match hint {
        Hint::Whole => &giant.cluster.whole,
        Hint::Partial => &giant.cluster.partial,
    }
}
