//! The two upper levels' shared words: a [`Giant`] for each GiB with managed frames, and a
//! [`Cluster`] for 64 giants. Which word is truth and which is a hint is said at each.

use crate::geometry::WORD_BITS;
use crate::node::Node;
use crate::sync::Word;

/// The top of the tree for 64 giants: one line.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Cluster {
    /// Truth: giants that are free as a whole.
    pub free: Word,
    /// Hint: giants with a block that is free as a whole.
    pub whole: Word,
    /// Hint: giants with a block of which some frames are free.
    pub partial: Word,
    /// Hint: giants that some CPU works in.
    pub adopted: Word,
}

/// The block level of one giant: five lines.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Giant {
    /// Truth: blocks that are free as a whole. All zero while the giant itself is free.
    pub blocks: Node,
    /// Hint: some of the block's free frames are known to be zero, so its zero node is worth a
    /// look. Also in free blocks and free giants: merging changes nothing about it.
    pub zero: Node,
    /// Hint: blocks of which some frames are free.
    pub partial: Node,
    /// Hint: blocks that some CPU refills from.
    pub claimed: Node,
    /// Truth: blocks whose leaf and zero node have been written. Set once, by whoever holds the
    /// whole block, and never cleared.
    pub ready: Node,
}

impl Cluster {
    /// Nothing free.
    pub fn new() -> Self {
        let [free, whole, partial, adopted] = core::array::from_fn(|_| Word::new(0));
        Self { free, whole, partial, adopted }
    }
}

impl Giant {
    /// Nothing free, no leaf written.
    pub fn new() -> Self {
        let [blocks, zero, partial, claimed, ready] = core::array::from_fn(|_| Node::new(0));
        Self { blocks, zero, partial, claimed, ready }
    }
}

/// How many clusters this many giants need.
pub const fn clusters(giants: usize) -> usize {
    giants.div_ceil(WORD_BITS as usize)
}

/// Which cluster a giant belongs to, and its bit there.
#[inline]
pub const fn cluster_and_mask(giant: usize) -> (usize, u64) {
    (giant / WORD_BITS as usize, 1 << (giant as u64 % WORD_BITS))
}
