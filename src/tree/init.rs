//! Putting a memory map into the tree. Costs in ranges and GiBs: whole GiBs are one bit, whole
//! blocks at the edges of a range one bit each, and only the last crumbs touch leaves.

use super::FrameTree;
use crate::arena::Arena;
use crate::directory::{Block, Directory, Size, mask_between, pieces, touched_and_filled};
use crate::frame::FrameRange;
use crate::geometry::{BLOCK_FRAMES, GIANT_FRAMES, NODE_WORDS, WORD_BITS};
use crate::journal::Journal;
use crate::node::Node;
use crate::root::{Cluster, Giant, clusters};
use crate::sync::{Ordering, Word};

impl<'m> FrameTree<'m> {
    /// A tree for this many CPUs of these ranges (ascending, disjoint, not adjacent, of this
    /// size), all free.
    pub(crate) fn new(
        arena: &mut Arena<'m>,
        size: Size,
        cpus: usize,
        ranges: impl Iterator<Item = FrameRange> + Clone,
    ) -> Self {
        let leaves = arena.deal_unwritten(size.leaves);
        let tree = Self {
            directory: Directory::new(arena, size, ranges.clone()),
            clusters: arena.deal(clusters(size.giants), |_| Cluster::new()),
            giants: arena.deal(size.giants, |_| Giant::new()),
            journals: arena.deal(Journal::count_for(cpus), |_| Journal::new()),
            leaves,
            leaf_words: Node::flatten(leaves),
            zeroes: arena.deal_unwritten(size.leaves),
            managed: size.frames,
        };
        let mut giant = 0;
        for (number, frames) in pieces(ranges) {
            while tree.directory.giant(giant).number() != number {
                giant += 1;
            }
            tree.put(giant, frames);
        }
        tree
    }

    /// Records one range within one giant as free, before anybody else knows the tree.
    fn put(&self, giant: usize, frames: FrameRange) {
        let (cluster, giant_mask) = self.cluster(giant);
        if frames.len() == GIANT_FRAMES {
            set(&cluster.free, giant_mask);
            return;
        }
        let (touched, filled) = touched_and_filled(frames);
        for index in filled.0..filled.1 {
            let (word, mask) = self.giants[giant].blocks.at(index);
            set(word, mask);
            set(&cluster.whole, giant_mask);
        }
        for index in touched.0..touched.1 {
            if !(filled.0..filled.1).contains(&index) {
                self.put_crumbs(Block { giant, index }, frames);
            }
        }
    }

    /// Records those of `frames` that lie in `block`, and do not fill it, as free.
    fn put_crumbs(&self, block: Block, frames: FrameRange) {
        self.make_ready(block);
        let first = self.directory.first_frame(block).get();
        let start = frames.start().get().saturating_sub(first) as usize;
        let end = frames.end().get().saturating_sub(first).min(BLOCK_FRAMES) as usize;
        for word in 0..NODE_WORDS {
            set(self.leaf(block).word(word), mask_between(start, end, word * WORD_BITS as usize));
        }
        let (word, mask) = self.giants[block.giant].partial.at(block.index);
        set(word, mask);
        let (cluster, mask) = self.cluster(block.giant);
        set(&cluster.partial, mask);
    }
}

/// Sets bits of a word that nobody else can see yet.
fn set(word: &Word, mask: u64) {
    // ORDERING: nobody else knows the tree; it is published as a whole, by whoever shares it.
    word.store(word.load(Ordering::Relaxed) | mask, Ordering::Relaxed);
}
