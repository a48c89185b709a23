//! Blocks of 2 MiB: taken and given as a whole, one bit of truth each.
//!
//! **At once.** A CPU keeps the word of 64 blocks that it took one from last, and takes the lowest
//! of that word as long as it has any, without a way down from the top; and it gives a block back
//! if nothing is wrong with it: one read-modify-write each, and some eighty instructions. What is
//! not as simple is done out of line: a block that is used for the first time, or holds frames
//! known to be zero; isolated memory; a word that was empty, or is full now; and what will be
//! refused.

use super::FrameTree;
use super::free::check_above;
use super::levels::{forget_zero, give_block, make_ready, merge_giant, tell_of_block};
use super::longest::is_wide;
use crate::directory::{Block, Group};
use crate::error::{Found, FreeError, OutOfMemory};
use crate::frame::{Frame, FrameNumber, NumberRange};
use crate::geometry::{BLOCK_FRAMES, GIANT_FRAMES, NODE_WORDS, WORD_BITS};
use crate::journal::{Counter, Step, Writer};
use crate::node::{Edge, Fill, Given, give, take_lowest};
use crate::root::{Giant, Nodes};
use crate::sync::{Link, Ordering, Word, rmw_fence};

/// The word of blocks that a CPU took one from last, kept in its slot.
#[derive(Debug)]
pub struct BlockHome<'m> {
    /// Its nodes are written, as are those of whatever a block was taken from.
    giant: Link<'m, Giant<'m>>,
    /// The number of its word, of all such words.
    number: Word,
}

/// What a word of blocks covers, in frames.
const WORD_FRAMES: u64 = BLOCK_FRAMES * WORD_BITS;

impl<'m> BlockHome<'m> {
    /// None yet.
    pub fn new() -> Self {
        Self { giant: Link::empty(), number: Word::new(0) }
    }

    /// Claims the lowest block of the word.
    #[inline(always)]
    pub fn claim(&self) -> Option<Block<'m>> {
        let giant = self.giant.load()?;
        // ORDERING: only the slot's owner reads and writes it.
        let word = self.number.load(Ordering::Relaxed) as usize % NODE_WORDS;
        let bit = take_lowest(giant.nodes().blocks.word(word))?;
        Some(Block { giant, index: word * WORD_BITS as usize + bit.trailing_zeros() as usize })
    }

    /// Whether a block that begins here may be freed as a whole, and would be claimed next.
    #[inline(always)]
    pub fn expects(&self, first: FrameNumber) -> bool {
        // ORDERING: as in `claim`.
        let is_in = first.get() / WORD_FRAMES == self.number.load(Ordering::Relaxed);
        let Some(giant) = self.giant.load().filter(|_| is_in) else { return false };
        let block = Block { giant, index: Group::of(first).block() };
        let (word, mask) = giant.nodes().blocks.at(block.index);
        // Neither it nor one below it is free.
        // ORDERING: a look; somebody may free a lower one just now, or take it.
        let is_lowest = word.load(Ordering::Relaxed) & (mask | (mask - 1)) == 0;
        is_lowest
            && first.get().is_multiple_of(BLOCK_FRAMES)
            && block.is_full()
            && giant.in_use().is_some()
            && is_nothing_free_in(block)
    }

    /// The block that begins at a frame of the word.
    pub fn block(&self, first: FrameNumber) -> Option<Block<'m>> {
        Some(Block { giant: self.giant.load()?, index: Group::of(first).block() })
    }

    /// Keeps the word of this block from now on.
    pub fn put(&self, block: Block<'m>) {
        self.giant.publish(block.giant);
        // ORDERING: as in `claim`.
        self.number.store(block.first_frame().get() / WORD_FRAMES, Ordering::Relaxed);
    }
}

impl<'m> FrameTree<'m> {
    /// Takes the lowest 2 MiB block that is free as a whole and returns its first frame.
    ///
    /// # Errors
    /// As [`FrameTree::alloc`].
    ///
    /// # Examples
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/tree.rs")); }
    /// # use frametree::*;
    /// let tree = example::tree();
    /// let block = tree.alloc_block()?;
    /// let entry = block.start_address() | 1 << 7 | 1; // of a page directory: one page of 2 MiB
    /// # assert_eq!(entry & 0xfff, 0x81);
    /// # tree.free_block(block)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn alloc_block(&self) -> Result<Frame, OutOfMemory> {
        self.alloc_block_with(self.shared_writer())
    }

    /// Gives back a 2 MiB block, named by its first frame, that was taken as a whole.
    ///
    /// The tree knows no caches: that one of the frames sits in a CPU's cache is not noticed here
    /// (`FramePool::free_block` looks into that of its own CPU).
    ///
    /// # Errors
    /// If it is misaligned, free or partly free already, or not managed in full.
    ///
    /// # Examples
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/tree.rs")); }
    /// # use frametree::*;
    /// let tree = example::tree();
    /// let block = tree.alloc_block()?.into_number();
    /// // SAFETY: the block was ours, and its page is unmapped.
    /// tree.free_block(unsafe { Frame::from_number(block) })?;
    /// assert_eq!(tree.count_free().blocks, 4);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn free_block(&self, first: Frame) -> Result<(), FreeError> {
        self.free_block_with(self.shared_writer(), first.into_number())
    }

    /// Takes the lowest GiB that is free as a whole and returns its first frame.
    ///
    /// The first time for each GiB this writes its 64 KiB of leaves.
    ///
    /// # Errors
    /// As [`FrameTree::alloc`].
    ///
    /// # Examples
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs")); }
    /// # use frametree::*;
    /// let pool = example::pool_of(2 << 30, Setup::new(1)); // 2 GiB
    /// let tree = pool.tree().expect("a pool in use");
    /// let guest = tree.alloc_giant()?; // all memory of a virtual machine, as one page
    /// assert!(guest.start_address().is_multiple_of(1 << 30));
    /// # tree.free_giant(guest)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn alloc_giant(&self) -> Result<Frame, OutOfMemory> {
        self.alloc_giant_with(self.shared_writer())
    }

    /// Gives back a GiB, named by its first frame, that was taken as a whole.
    ///
    /// # Errors
    /// If it is misaligned, free or partly free already, or not managed in full.
    ///
    /// # Examples
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs")); }
    /// # use frametree::*;
    /// let pool = example::pool_of(2 << 30, Setup::new(1)); // 2 GiB
    /// let tree = pool.tree().expect("a pool in use");
    /// let guest = tree.alloc_giant()?;
    /// tree.free_giant(guest)?;
    /// assert_eq!(tree.count_free().giants, 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn free_giant(&self, first: Frame) -> Result<(), FreeError> {
        self.free_giant_with(self.shared_writer(), first.into_number())
    }

    /// [`FrameTree::alloc_block`], in this writer's journal.
    pub(crate) fn alloc_block_with(&self, writer: Writer<'_>) -> Result<Frame, OutOfMemory> {
        self.take_block(writer).map(|block| Frame::owned(block.first_frame()))
    }

    /// The same, and where the block lies.
    pub(crate) fn take_block(&self, writer: Writer<'_>) -> Result<Block<'m>, OutOfMemory> {
        let block = self.prove(writer, || self.search_block(writer))?;
        writer.add(Counter::Taken, BLOCK_FRAMES);
        Ok(block)
    }

    /// The block that begins at this frame, if it may be freed as a whole.
    #[inline(always)]
    pub(crate) fn block_to_free(&self, first: FrameNumber) -> Option<Block<'m>> {
        let giant = self.directory.giant(Group::of(first).giant())?;
        let block = Block { giant, index: Group::of(first).block() };
        let is_right = first.get().is_multiple_of(BLOCK_FRAMES) && block.is_full();
        (is_right && is_held_whole(block)).then_some(block)
    }

    /// Whether a block that was just claimed may be handed out as it is.
    #[inline(always)]
    pub(crate) fn is_presentable(&self, Block { giant, index }: Block<'_>) -> bool {
        rmw_fence();
        let Nodes { ready, zero, .. } = giant.nodes();
        // ORDERING: as in `make_ready` and `forget_zero`.
        ready.is_set(index, Ordering::Relaxed)
            // ORDERING: as above.
            && !zero.is_set(index, Ordering::Relaxed)
            && self.directory.isolations.is_empty()
    }

    /// Whether no memory is isolated.
    #[inline(always)]
    pub(crate) fn isolates_none(&self) -> bool {
        self.directory.isolations.is_empty()
    }

    /// Makes a block that was just claimed ready for whoever gets it, if it may be handed out.
    #[inline]
    pub(crate) fn present(&self, writer: Writer<'_>, block: Block<'m>) -> Option<Block<'m>> {
        make_ready(block);
        forget_zero(block);
        let first = block.first_frame().get();
        let [start, end] = [first, first + BLOCK_FRAMES].map(FrameNumber::trusted);
        self.admits(writer, NumberRange::trusted(start, end)).then_some(block)
    }

    /// The lowest free block that may be handed out, claimed and ready.
    fn search_block(&self, writer: Writer<'_>) -> Option<Block<'m>> {
        loop {
            let block = match self.above_low(|end| self.search_whole(writer, end)) {
                Some(block) => block,
                None => self.search_whole(writer, 0)?,
            };
            let presented = self.present(writer, block);
            if presented.is_some() {
                return presented;
            }
        }
    }

    /// Whether a block lies in a GiB with low memory, which is to be used last.
    pub(crate) fn is_low_block(&self, block: Block<'_>) -> bool {
        block.giant.number() * GIANT_FRAMES < self.low_end
    }

    /// [`FrameTree::free_block`], in this writer's journal.
    #[inline(always)]
    pub(crate) fn free_block_with(
        &self,
        writer: Writer<'_>,
        first: FrameNumber,
    ) -> Result<(), FreeError> {
        let block = self.check_block(first)?;
        let _step = writer.begin();
        let given = give_block(block);
        if given.overlap != 0 {
            return Err(FreeError { frame: first, found: Found::FreeBlock });
        }
        writer.add(Counter::Returned, BLOCK_FRAMES);
        if given.fill == Fill::Full {
            merge_giant(writer, block.giant);
        }
        Ok(())
    }

    /// Looks whether a whole block may be freed, as far as the tree knows.
    ///
    /// # Errors
    /// What was found instead.
    #[inline(always)]
    pub(crate) fn check_block(&self, first: FrameNumber) -> Result<Block<'m>, FreeError> {
        let refused = |found| FreeError { frame: first, found };
        let giant = self.locate_aligned(first, BLOCK_FRAMES)?;
        let block = Block { giant, index: Group::of(first).block() };
        if !block.is_full() && self.directory.managed_frames(block) < BLOCK_FRAMES {
            return Err(refused(Found::Unmanaged));
        }
        check_above(block).map_err(refused)?;
        // ORDERING: a look for bugs of the caller; exact at rest.
        if !block.leaf().is_empty(Ordering::Relaxed) {
            return Err(refused(partly_free(block)));
        }
        Ok(block)
    }
}

/// Gives a block back that may be freed as a whole; or says what is left to do, if anything is.
#[inline(always)]
pub(crate) fn give_at_once(Block { giant, index }: Block<'_>) -> Result<(), Given> {
    let (word, mask) = giant.nodes().blocks.at(index);
    let given = give(word, mask);
    let is_simple = given.edge == Edge::Within && given.fill == Fill::Partial;
    if is_simple && given.overlap == 0 && is_wide(Block { giant, index }) {
        Ok(())
    } else {
        Err(given)
    }
}

/// Does what is left after that; whether the block is free only now.
#[cold]
pub(crate) fn finish(step: &Step<'_>, block: Block<'_>, given: Given) -> bool {
    tell_of_block(block, given);
    if given.overlap != 0 {
        return false;
    }
    step.writer().add(Counter::Returned, BLOCK_FRAMES);
    if given.fill == Fill::Full {
        merge_giant(step.writer(), block.giant);
    }
    true
}

/// Whether all of a block that is managed in full is held by somebody.
#[inline(always)]
pub(crate) fn is_held_whole(block: Block<'_>) -> bool {
    check_above(block).is_ok() && is_nothing_free_in(block)
}

/// Whether no frame of a block is free at its leaf.
#[inline(always)]
fn is_nothing_free_in(Block { giant, index }: Block<'_>) -> bool {
    let Some(section) = giant.section(index).load() else { return false };
    // ORDERING: a look for bugs of the caller; exact at rest.
    section.leaf(index).is_empty(Ordering::Relaxed)
}

#[cold]
#[inline(never)]
fn partly_free(block: Block<'_>) -> Found {
    Found::PartlyFree { free: block.leaf().count() }
}
