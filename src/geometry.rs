//! The geometry: how frames, words, nodes, blocks and giants nest. Every other size in the
//! crate is derived from the two constants at the top.
//!
//! ```text
//! frame   = 4 KiB, one bit
//! word    = 64 frames              (a page cache's reach)
//! node    = 8 words = 512 bits     (one cache line)
//! block   = one node of frames     = 2 MiB (a page table's reach)
//! section = one word of blocks     = 128 MiB (what leaves are kept for)
//! giant   = one node of blocks     = 1 GiB (a page directory's reach)
//! cluster = one word of giants     = 64 GiB
//! ```
//!
//! Under `cfg(loom)` the same code runs on words of two bits and nodes of two words, so that a
//! model checker sees splits and merges within a handful of steps.

/// Bits of a word that are in use.
pub const WORD_BITS: u64 = if cfg!(loom) { 2 } else { 64 };
/// Words of a node: together one cache line.
pub const NODE_WORDS: usize = if cfg!(loom) { 2 } else { 8 };

/// Bytes of a frame.
///
/// # Examples
/// ```
/// assert_eq!(2 << 20, 512 * frametree::FRAME_SIZE);
/// ```
pub const FRAME_SIZE: u64 = 4096;
/// Bits of a node: children of a block, and of a giant.
pub const NODE_BITS: u64 = WORD_BITS * NODE_WORDS as u64;
/// Frames of a block (2 MiB).
pub const BLOCK_FRAMES: u64 = NODE_BITS;
/// Blocks of a giant (1 GiB).
pub const GIANT_BLOCKS: u64 = NODE_BITS;
/// Frames of a giant.
pub const GIANT_FRAMES: u64 = BLOCK_FRAMES * GIANT_BLOCKS;
/// Blocks of a section (128 MiB): one word of a giant's node.
pub const SECTION_BLOCKS: usize = WORD_BITS as usize;
/// Frames of a section.
pub const SECTION_FRAMES: u64 = BLOCK_FRAMES * WORD_BITS;
/// Giants of a cluster (64 GiB): one word.
pub const CLUSTER_GIANTS: usize = WORD_BITS as usize;
/// Frames of a cluster.
pub const CLUSTER_FRAMES: u64 = GIANT_FRAMES * WORD_BITS;
/// Bounds that share a word, a byte for each (see `tree::longest`): of blocks 16 MiB, of giants
/// 8 GiB.
pub const ROW: usize = if cfg!(loom) { 2 } else { 8 };
/// Rows of blocks in a giant.
pub const GIANT_ROWS: usize = GIANT_BLOCKS as usize / ROW;
/// Rows of giants in a cluster.
pub const CLUSTER_ROWS: usize = CLUSTER_GIANTS / ROW;
/// A word with every bit in use set: all of its children are free.
pub const FULL: u64 = u64::MAX >> (u64::BITS as u64 - WORD_BITS);
/// Physical addresses end here: 52 bits are the most that x86-64 can have.
pub const PHYSICAL_LIMIT: u64 = 1 << 52;
/// Frame numbers end here.
pub const FRAME_LIMIT: u64 = PHYSICAL_LIMIT / FRAME_SIZE;

const _: () = assert!(WORD_BITS.is_power_of_two() && NODE_WORDS.is_power_of_two());
const _: () = assert!(cfg!(loom) || BLOCK_FRAMES * FRAME_SIZE == 2 << 20);
const _: () = assert!(cfg!(loom) || GIANT_FRAMES * FRAME_SIZE == 1 << 30);
const _: () = assert!(cfg!(loom) || SECTION_FRAMES * FRAME_SIZE == 128 << 20);
const _: () = assert!(cfg!(loom) || CLUSTER_FRAMES * FRAME_SIZE == 64 << 30);
const _: () = assert!(GIANT_ROWS * ROW == GIANT_BLOCKS as usize);
const _: () = assert!(CLUSTER_ROWS * ROW == CLUSTER_GIANTS);
const _: () = assert!(FULL.count_ones() as u64 == WORD_BITS && FULL & 1 != 0);
const _: () = assert!(FRAME_LIMIT * FRAME_SIZE == PHYSICAL_LIMIT);
