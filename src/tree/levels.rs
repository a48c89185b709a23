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
//! **Split**: claim the block's bit; the leaf is then this CPU's alone, and is written by plain
//! stores, with Release since a search with an old hint may find them at once; announce.
//! **Merge**: when a leaf reads full, claim each word; on a conflict give back, announce, and
//! look again (a full fence before each look: of two CPUs that complete a leaf at once, one sees
//! it complete). With the whole leaf claimed, free the block's bit and retire its hint.

use super::FrameTree;
use crate::cache::PageCache;
use crate::directory::Block;
use crate::geometry::{FULL, GIANT_BLOCKS};
use crate::journal::{Counter, Writer};
use crate::node::{Edge, Fill, Given, Node, give, take_bit};
use crate::sync::{Ordering, Word, full_fence};

/// A hint of a cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hint {
    /// The giant has blocks that are free as a whole.
    Whole,
    /// The giant has blocks of which some frames are free.
    Partial,
}

impl FrameTree<'_> {
    /// Writes a block's leaf if that has never been done. The caller holds the whole block.
    #[inline]
    pub(super) fn make_ready(&self, block: Block) {
        let (word, mask) = self.giants[block.giant].ready.at(block.index);
        // ORDERING: set by an earlier holder of this block; the block's own bit carried it here.
        if word.load(Ordering::Relaxed) & mask == 0 {
            self.write_leaf(block);
        }
    }

    #[cold]
    fn write_leaf(&self, block: Block) {
        self.leaf(block).fill(0);
        self.zero_node(block).fill(0);
        let (word, mask) = self.giants[block.giant].ready.at(block.index);
        // ORDERING: Release pairs with the Relaxed look above through the block's own bit, and
        // with the Acquire in `verify` and `peek`.
        word.fetch_or(mask, Ordering::Release);
    }

    /// Forgets what is known to be zero in a block that the caller holds as a whole.
    #[inline]
    pub(super) fn forget_zero(&self, block: Block) {
        let (word, mask) = self.giants[block.giant].zero.at(block.index);
        // ORDERING: all frames are this CPU's, and so is what is known of them.
        if word.load(Ordering::Relaxed) & mask != 0 {
            self.zero_node(block).fill(0);
            // ORDERING: others change other bits; carried on by the block's own bit.
            word.fetch_and(!mask, Ordering::Relaxed);
        }
    }

    /// Claims a free block and hands its frames to its leaf, all but `kept` of word 0, which
    /// become the caller's. `None` if another CPU was faster.
    pub(super) fn split_block(
        &self,
        writer: Writer<'_>,
        block: Block,
        kept: u64,
    ) -> Option<PageCache> {
        let (word, mask) = self.giants[block.giant].blocks.at(block.index);
        let _step = writer.begin();
        if take_bit(word, mask).is_err() {
            writer.add(Counter::LostRaces, 1);
            return None;
        }
        self.make_ready(block);
        let known_zero = self.take_zeroes(block, 0, kept);
        for (index, word) in self.leaf(block).words().enumerate() {
            let rest = if index == 0 { FULL & !kept } else { FULL };
            // ORDERING: Release pairs with the Acquire of a taker that comes by an older hint:
            // the block's last owner passed its contents to this CPU.
            word.store(rest, Ordering::Release);
        }
        self.announce(block);
        writer.add(Counter::Splits, 1);
        Some(PageCache::owned(self.directory.first_frame(block), kept, known_zero))
    }

    /// Claims a free giant and hands its blocks to the block level.
    pub(super) fn split_giant(&self, writer: Writer<'_>, giant: usize) {
        let (cluster, mask) = self.cluster(giant);
        let _step = writer.begin();
        if take_bit(&cluster.free, mask).is_err() {
            writer.add(Counter::LostRaces, 1);
            return;
        }
        for word in self.giants[giant].blocks.words() {
            // ORDERING: as in `split_block`.
            word.store(FULL, Ordering::Release);
        }
        self.raise(giant, Hint::Whole);
        writer.add(Counter::Splits, 1);
    }

    /// Says that a leaf holds frames. The caller has made a word go from nothing to something,
    /// inside a step of its journal.
    #[inline]
    pub(super) fn announce(&self, block: Block) {
        let (word, mask) = self.giants[block.giant].partial.at(block.index);
        // ORDERING: Release pairs with the Acquire of a retirer's `fetch_and`: its second look
        // sees the frames. Acquire keeps the look in `raise` behind.
        if word.fetch_or(mask, Ordering::AcqRel) == 0 {
            self.raise(block.giant, Hint::Partial);
        }
    }

    /// Takes back the hint of a leaf that was found empty, unless it isn't any more.
    pub(super) fn retire(&self, writer: Writer<'_>, block: Block) {
        let (word, mask) = self.giants[block.giant].partial.at(block.index);
        // ORDERING: nobody retires what reads as retired; a wrong look leaves a stale hint.
        if word.load(Ordering::Relaxed) & mask == 0 {
            return;
        }
        let _step = writer.begin();
        // ORDERING: Acquire pairs with `announce`; Release with the search that reads the hint
        // as clear: it then sees this step in the journal.
        word.fetch_and(!mask, Ordering::AcqRel);
        // ORDERING: ordered behind an earlier announcement's frames by the Acquire above.
        if !self.leaf(block).all(0, Ordering::Relaxed) {
            self.announce(block);
        }
    }

    /// Says at the cluster that a giant has something. The caller has made a word of the giant
    /// go from nothing to something, inside a step of its journal.
    pub(super) fn raise(&self, giant: usize, hint: Hint) {
        let (word, mask) = self.hint_word(giant, hint);
        full_fence();
        // ORDERING: the fence above and the one in `lower` order the two looks: if this reads a
        // bit that is about to be cleared, the one who clears it sees what was put there.
        if word.load(Ordering::Relaxed) & mask == 0 {
            // ORDERING: Release pairs with the search's Acquire of the hint.
            word.fetch_or(mask, Ordering::AcqRel);
        }
    }

    /// Takes back a giant's hint if there is nothing under it.
    pub(super) fn lower(&self, writer: Writer<'_>, giant: usize, hint: Hint) {
        let (word, mask) = self.hint_word(giant, hint);
        let node = match hint {
            Hint::Whole => &self.giants[giant].blocks,
            Hint::Partial => &self.giants[giant].partial,
        };
        // ORDERING: looks that only save work.
        if word.load(Ordering::Relaxed) & mask == 0 || !node.all(0, Ordering::Relaxed) {
            return;
        }
        let _step = writer.begin();
        // ORDERING: Release as in `retire`; the fence orders the second look (see `raise`).
        word.fetch_and(!mask, Ordering::AcqRel);
        full_fence();
        // ORDERING: behind the fence.
        if !node.all(0, Ordering::Relaxed) {
            // ORDERING: as in `raise`.
            word.fetch_or(mask, Ordering::AcqRel);
        }
    }

    /// After a leaf word became full: puts the block together if its leaf is.
    pub(super) fn merge_block(&self, writer: Writer<'_>, block: Block) {
        if !self.take_whole(writer, self.leaf(block), || self.announce(block)) {
            return;
        }
        self.lower_zero(block);
        let given = self.give_block(block);
        writer.add(Counter::Merges, 1);
        self.retire(writer, block);
        if given.fill == Fill::Full {
            self.merge_giant(writer, block.giant);
        }
    }

    /// After a word of blocks became full: puts the giant together if all of its blocks are.
    pub(super) fn merge_giant(&self, writer: Writer<'_>, giant: usize) {
        let blocks = &self.giants[giant].blocks;
        if !self.take_whole(writer, blocks, || self.raise(giant, Hint::Whole)) {
            return;
        }
        let (cluster, mask) = self.cluster(giant);
        give(&cluster.free, mask);
        writer.add(Counter::Merges, 1);
        self.lower(writer, giant, Hint::Whole);
    }

    /// Claims all of a node if all of it is free; the caller then holds it, inside a step that
    /// the caller has begun. On a conflict `announce` tells of what went back.
    fn take_whole(&self, writer: Writer<'_>, node: &Node, announce: impl Fn()) -> bool {
        loop {
            full_fence();
            // ORDERING: behind the fence, which follows this CPU's own last gift to the node.
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
    fn lower_zero(&self, block: Block) {
        let (word, mask) = self.giants[block.giant].zero.at(block.index);
        // ORDERING: all frames are this CPU's, and so is what is known of them.
        let is_stale = word.load(Ordering::Relaxed) & mask != 0
            && self.zero_node(block).all(0, Ordering::Relaxed);
        if is_stale {
            // ORDERING: others change other bits; carried on by the block's own bit.
            word.fetch_and(!mask, Ordering::Relaxed);
        }
    }

    /// Frees a block that the caller holds as a whole, inside a step.
    pub(super) fn give_block(&self, block: Block) -> Given {
        let (word, mask) = self.giants[block.giant].blocks.at(block.index);
        let given = give(word, mask);
        if given.edge == Edge::FromEmpty {
            self.raise(block.giant, Hint::Whole);
        }
        given
    }

    /// Makes every block of a giant that the caller holds ready to be freed in parts.
    pub(super) fn make_giant_ready(&self, giant: usize) {
        for index in 0..GIANT_BLOCKS as usize {
            self.make_ready(Block { giant, index });
        }
    }

    fn hint_word(&self, giant: usize, hint: Hint) -> (&Word, u64) {
        let (cluster, mask) = self.cluster(giant);
        match hint {
            Hint::Whole => (&cluster.whole, mask),
            Hint::Partial => (&cluster.partial, mask),
        }
    }
}
