//! Putting a memory map into the tree. Costs in ranges and GiBs: whole GiBs are one bit, whole
//! blocks at the edges of a range one bit each, and only the last crumbs touch leaves.

use super::FrameTree;
use super::levels::make_ready;
use crate::arena::Arena;
use crate::directory::{Block, Directory, Size, mask_between, touched_and_filled};
use crate::frame::NumberRange;
use crate::geometry::{BLOCK_FRAMES, GIANT_FRAMES, NODE_WORDS, WORD_BITS};
use crate::journal::Journal;
use crate::root::Giant;
use crate::sync::{Ordering, Word};

impl<'m> FrameTree<'m> {
    /// A tree for this many CPUs of these ranges (ascending, disjoint, not adjacent, of this
    /// size), all free.
    pub(crate) fn new(
        arena: &mut Arena<'m>,
        size: Size,
        cpus: usize,
        ranges: impl Iterator<Item = NumberRange> + Clone,
    ) -> Self {
        Self {
            directory: Directory::new(arena, size, ranges, put),
            journals: arena.deal(Journal::count_for(cpus), |_| Journal::new()),
            managed: size.frames,
        }
    }
}

/// Records one range within one giant as free, before anybody else knows the tree.
fn put<'m>(giant: &'m Giant<'m>, frames: NumberRange) {
    if frames.len() == GIANT_FRAMES {
        set(&giant.cluster.free, giant.mask);
        return;
    }
    giant.make_ready();
    let (touched, filled) = touched_and_filled(frames);
    for index in filled.0..filled.1 {
        let (word, mask) = giant.nodes().blocks.at(index);
        set(word, mask);
        set(&giant.cluster.whole, giant.mask);
    }
    for index in touched.0..touched.1 {
        if !(filled.0..filled.1).contains(&index) {
            put_crumbs(Block { giant, index }, frames);
        }
    }
}

/// Records those of `frames` that lie in `block`, and do not fill it, as free.
fn put_crumbs(block: Block<'_>, frames: NumberRange) {
    make_ready(block);
    let first = block.first_frame().get();
    let start = frames.start().get().saturating_sub(first) as usize;
    let end = frames.end().get().saturating_sub(first).min(BLOCK_FRAMES) as usize;
    for word in 0..NODE_WORDS {
        set(block.leaf().word(word), mask_between(start, end, word * WORD_BITS as usize));
    }
    let (word, mask) = block.giant.nodes().partial.at(block.index);
    set(word, mask);
    set(&block.giant.cluster.partial, block.giant.mask);
}

/// Sets bits of a word that nobody else can see yet.
fn set(word: &Word, mask: u64) {
    // ORDERING: nobody else knows the tree; it is published as a whole, by whoever shares it.
    word.store(word.load(Ordering::Relaxed) | mask, Ordering::Relaxed);
}
