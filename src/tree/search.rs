//! Finding free frames: lowest address first, by the hints, and "out of memory" only on evidence.
//!
//! A search goes down from the lowest cluster with a hint to the lowest giant, the lowest block,
//! the lowest word, and takes what it finds by one read-modify-write on the truth. Whoever finds
//! nothing under a hint takes the hint back on the spot, so that each stale bit costs one search
//! one look. At rest, on one CPU, the answer is the lowest free frame, as Go's allocator gives.
//!
//! **Evidence.** If nothing is found, the search is repeated until no step was under way before
//! it and none has begun after it (see [`crate::journal`]): then there was nothing.

use super::FrameTree;
use super::levels::{
    Hint, forget_all_zero, lower, make_all_ready, retire, split_block, split_giant, take_zeroes,
};
use crate::cache::{Handful, Known};
use crate::directory::Block;
use crate::error::OutOfMemory;
use crate::frame::{Frame, FrameNumber, NumberRange};
use crate::geometry::{BLOCK_FRAMES, GIANT_FRAMES, NODE_WORDS, WORD_BITS};
use crate::journal::{Counter, Writer, standstill};
use crate::node::{mask_between, take_all, take_lowest, take_lowest_of, take_some};
use crate::root::{Cluster, Clusters, Giant, Nodes};
use crate::sync::{Ordering, pause};

/// How often a search that finds nothing looks again while others move frames.
const LOOKS: usize = if cfg!(loom) { 3 } else { 1000 };

/// What a refill took, and from where.
#[derive(Debug)]
pub struct Refill<'m> {
    pub cache: Handful,
    pub block: Block<'m>,
}

/// How much to take from a word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Amount {
    /// The lowest frames, at most so many.
    Frames(u32),
    /// All that is there.
    Word,
}

/// Whom a search may join, and where.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Join {
    /// Nobody: no block that is claimed, no giant that is adopted, no low memory.
    Nobody,
    /// Anybody, but not in low memory.
    AnybodyAbove,
    /// Anybody.
    Anybody,
}

/// A search on its way over the giants that hint at something, lowest first.
#[derive(Debug)]
pub(super) struct Walk<'m> {
    /// The cluster that it is in.
    cluster: Option<&'m Cluster<'m>>,
    behind: Clusters<'m>,
    /// Giants of this cluster that have been visited.
    passed: u64,
    /// Where in a cluster it begins.
    first: u32,
}

impl<'m> FrameTree<'m> {
    /// [`FrameTree::alloc`], in this writer's journal.
    pub(crate) fn alloc_with(&self, writer: Writer<'_>) -> Result<Frame, OutOfMemory> {
        self.alloc_known_with(writer).map(|known| known.frame)
    }

    /// The same, with what is known of the frame's contents.
    pub(crate) fn alloc_known_with(&self, writer: Writer<'_>) -> Result<Known, OutOfMemory> {
        self.alloc_some_with(writer, 1).map(Handful::into_one)
    }

    /// The lowest frames of the lowest word that has any; at most `most`, which is not 0. One
    /// read-modify-write from a partly used block.
    pub(crate) fn alloc_some_with(
        &self,
        writer: Writer<'_>,
        most: u32,
    ) -> Result<Handful, OutOfMemory> {
        let search = |join| self.search_admitted(writer, Amount::Frames(most), join);
        let some = match self.above_low(|_| search(Join::AnybodyAbove)) {
            Some(refill) => refill,
            None => self.prove(writer, || search(Join::Anybody))?,
        };
        let some = some.cache;
        writer.add(Counter::Taken, u64::from(some.free().count_ones()));
        Ok(some)
    }

    /// [`FrameTree::refill`], in this writer's journal.
    pub(crate) fn refill_with(&self, writer: Writer<'_>) -> Result<Handful, OutOfMemory> {
        let search = || self.search_admitted(writer, Amount::Word, Join::Anybody);
        let refill = self.prove(writer, search)?;
        count_refill(writer, &refill.cache);
        Ok(refill.cache)
    }

    /// [`FrameTree::alloc_giant`], in this writer's journal.
    pub(crate) fn alloc_giant_with(&self, writer: Writer<'_>) -> Result<Frame, OutOfMemory> {
        let giant = self.prove(writer, || self.search_giant_whole(writer))?;
        writer.add(Counter::Taken, GIANT_FRAMES);
        Ok(Frame::owned(FrameNumber::trusted(giant.number() * GIANT_FRAMES)))
    }

    /// Looks whether there is a block, by the hints.
    ///
    /// # Errors
    /// As [`FrameTree::alloc_block`], on the same evidence.
    pub(crate) fn look_for_block(&self, writer: Writer<'_>) -> Result<(), OutOfMemory> {
        let look = || self.directory.clusters().find(|cluster| hints_at_blocks(cluster) != 0);
        self.prove(writer, look).map(|_| ())
    }

    /// The same for a giant.
    pub(crate) fn look_for_giant(&self, writer: Writer<'_>) -> Result<(), OutOfMemory> {
        // ORDERING: as in `hints_at_blocks`.
        let is_there = |cluster: &&Cluster<'_>| cluster.free.load(Ordering::Acquire) != 0;
        self.prove(writer, || self.directory.clusters().find(is_there)).map(|_| ())
    }

    /// Repeats a search that finds nothing until that was true, or for a thousand looks.
    #[inline]
    pub(super) fn prove<T>(
        &self,
        writer: Writer<'_>,
        search: impl Fn() -> Option<T>,
    ) -> Result<T, OutOfMemory> {
        match search() {
            Some(found) => Ok(found),
            None => self.prove_by_looks(writer, search),
        }
    }

    #[cold]
    #[inline(never)]
    pub(super) fn prove_by_looks<T>(
        &self,
        writer: Writer<'_>,
        search: impl Fn() -> Option<T>,
    ) -> Result<T, OutOfMemory> {
        for _ in 0..LOOKS {
            let before = standstill(self.journals, writer);
            if let Some(found) = search() {
                return Ok(found);
            }
            if before.is_some() && before == standstill(self.journals, writer) {
                break;
            }
            pause();
        }
        Err(OutOfMemory)
    }

    /// The lowest frames of the whole tree that may be handed out.
    pub(super) fn search_admitted(
        &self,
        writer: Writer<'_>,
        amount: Amount,
        join: Join,
    ) -> Option<Refill<'m>> {
        loop {
            let refill = self.search(writer, amount, join)?;
            let admitted = self.admit(writer, refill);
            if admitted.is_some() {
                return admitted;
            }
        }
    }

    /// The lowest free giant that may be handed out, claimed and ready.
    fn search_giant_whole(&self, writer: Writer<'_>) -> Option<&'m Giant<'m>> {
        loop {
            let above = self.above_low(|end| self.search_giants(end));
            let giant = above.or_else(|| self.search_giants(0))?;
            make_all_ready(giant);
            forget_all_zero(giant);
            let first = giant.number() * GIANT_FRAMES;
            let frames = [first, first + GIANT_FRAMES].map(FrameNumber::trusted);
            if self.admits(writer, NumberRange::trusted(frames[0], frames[1])) {
                return Some(giant);
            }
        }
    }

    /// The lowest frames of the whole tree.
    fn search(&self, writer: Writer<'_>, amount: Amount, join: Join) -> Option<Refill<'m>> {
        let mut walk = Walk::new(self.directory.clusters());
        while let Some(giant) = walk.next(|cluster| self.hints(cluster, join)) {
            if open_giant(writer, giant).is_none() {
                continue;
            }
            let found = self.search_giant(writer, giant, amount, join);
            if found.is_some() {
                return found;
            }
            lower(writer, giant, Hint::Whole);
            lower(writer, giant, Hint::Partial);
        }
        None
    }

    /// Giants of a cluster that hint at frames where a search may go.
    #[inline]
    pub(super) fn hints(&self, cluster: &Cluster<'_>, join: Join) -> u64 {
        let low_giants = (self.low_end / GIANT_FRAMES) as usize;
        let low = mask_between(0, low_giants, cluster.first_giant() as usize);
        let avoided = match join {
            // ORDERING: a mark only.
            Join::Nobody => low | cluster.adopted.load(Ordering::Relaxed),
            Join::AnybodyAbove => low,
            Join::Anybody => 0,
        };
        // ORDERING: as in `hints_at_blocks`.
        (hints_at_blocks(cluster) | cluster.partial.load(Ordering::Acquire)) & !avoided
    }

    /// The lowest frames of one giant, whose nodes are written.
    pub(super) fn search_giant(
        &self,
        writer: Writer<'_>,
        giant: &'m Giant<'m>,
        amount: Amount,
        join: Join,
    ) -> Option<Refill<'m>> {
        let Nodes { blocks, partial, claimed, .. } = giant.nodes();
        let low_frames = self.low_end.saturating_sub(giant.number() * GIANT_FRAMES);
        let low_blocks = low_frames.min(GIANT_FRAMES) as usize / BLOCK_FRAMES as usize;
        for word in 0..NODE_WORDS {
            let low = mask_between(0, low_blocks, word * WORD_BITS as usize);
            let mut passed = 0;
            loop {
                // ORDERING: as in `hints_at_blocks`.
                let some = blocks.word(word).load(Ordering::Acquire)
                    | partial.word(word).load(Ordering::Acquire);
                let avoided = match join {
                    // ORDERING: a mark only.
                    Join::Nobody => low | claimed.word(word).load(Ordering::Relaxed),
                    Join::AnybodyAbove => low,
                    Join::Anybody => 0,
                };
                let candidates = some & !passed & !avoided;
                if candidates == 0 {
                    break;
                }
                let bit = candidates.trailing_zeros();
                let block = Block { giant, index: word * WORD_BITS as usize + bit as usize };
                let found = harvest(writer, block, amount);
                if found.is_some() {
                    return found;
                }
                passed |= 1 << bit;
            }
        }
        None
    }

    /// A search above low memory, if there is such a thing.
    #[inline]
    pub(super) fn above_low<T>(&self, search: impl FnOnce(u64) -> Option<T>) -> Option<T> {
        if self.low_end == 0 { None } else { search(self.low_end) }
    }

    /// The lowest free block of the GiBs that begin at or above this frame, claimed.
    pub(super) fn search_whole(&self, writer: Writer<'_>, from: u64) -> Option<Block<'m>> {
        let mut walk = Walk::new(self.directory.clusters());
        while let Some(giant) = walk.next(hints_at_blocks) {
            if giant.number() * GIANT_FRAMES < from {
                continue;
            }
            let Some(nodes) = open_giant(writer, giant) else { continue };
            for (index, word) in nodes.blocks.words().enumerate() {
                if let Some(bit) = take_lowest(word) {
                    let index = index * WORD_BITS as usize + bit.trailing_zeros() as usize;
                    return Some(Block { giant, index });
                }
            }
            lower(writer, giant, Hint::Whole);
        }
        None
    }

    /// The lowest free giant that begins at or above this frame, claimed.
    fn search_giants(&self, from: u64) -> Option<&'m Giant<'m>> {
        let lowest = from.div_ceil(GIANT_FRAMES);
        self.directory.clusters().find_map(|cluster| {
            let passed = lowest.saturating_sub(cluster.first_giant());
            let high = u64::MAX.checked_shl(passed.min(64) as u32).unwrap_or(0);
            let bit = take_lowest_of(&cluster.free, high)?;
            cluster.giant(u64::from(bit.trailing_zeros())).load()
        })
    }
}

/// Giants of a cluster that are free, or hint at blocks that are.
#[inline(always)]
fn hints_at_blocks(cluster: &Cluster<'_>) -> u64 {
    // ORDERING: Acquire pairs with the Release of whoever cleared a bit: that step is seen in its
    // journal before "out of memory" is said.
    cluster.free.load(Ordering::Acquire) | cluster.whole.load(Ordering::Acquire)
}

/// The nodes of a giant that a walk has come to; one that is free as a whole is split.
#[inline(always)]
pub(super) fn open_giant<'m>(writer: Writer<'_>, giant: &'m Giant<'m>) -> Option<&'m Nodes> {
    match giant.in_use() {
        Some(nodes) => Some(nodes),
        None => open_free_giant(writer, giant),
    }
}

#[cold]
#[inline(never)]
fn open_free_giant<'m>(writer: Writer<'_>, giant: &'m Giant<'m>) -> Option<&'m Nodes> {
    if giant.is_free() {
        split_giant(writer, giant);
    }
    // Whoever else claimed the giant, just now or since it was seen free by the walk, may still be
    // writing its nodes for the first time.
    giant.written()
}

/// The lowest frames of one block; it must be ready, or free, or hinted at.
pub(super) fn harvest<'m>(
    writer: Writer<'_>,
    block: Block<'m>,
    amount: Amount,
) -> Option<Refill<'m>> {
    let Nodes { blocks, ready, .. } = block.giant.nodes();
    // ORDERING: a look; `split_block` claims.
    if blocks.is_set(block.index, Ordering::Acquire) {
        let kept = match amount {
            Amount::Frames(most) => WORD_BITS.min(u64::from(most)) as usize,
            Amount::Word => WORD_BITS as usize,
        };
        if split_block(writer, block, 0..kept) {
            return Some(Refill::of(block, 0, mask_between(0, kept, 0)));
        }
    }
    // Whoever claimed the block, just now or since it was seen free by the search, may still
    // be writing its leaf for the first time.
    // ORDERING: Acquire pairs with the Release in `write_leaf`.
    if !ready.is_set(block.index, Ordering::Acquire) {
        return None;
    }
    for (index, word) in block.leaf().words().enumerate() {
        let bits = match amount {
            Amount::Word => take_all(word),
            Amount::Frames(most) => take_some(word, most),
        };
        if let Some(bits) = bits {
            return Some(Refill::of(block, index, bits));
        }
    }
    retire(writer, block);
    None
}

impl<'m> Refill<'m> {
    /// Of frames that were just taken from a word of this block.
    #[inline]
    pub(super) fn of(block: Block<'m>, word: usize, bits: u64) -> Self {
        let base = block.group(word).first_frame();
        Self { cache: Handful::owned(base, bits, take_zeroes(block, word, bits)), block }
    }
}

impl<'m> Walk<'m> {
    #[inline]
    pub(super) fn new(mut clusters: Clusters<'m>) -> Self {
        Self { cluster: clusters.next(), behind: clusters, passed: 0, first: 0 }
    }

    /// From here on it begins elsewhere in each cluster than walks with other numbers.
    pub(super) fn scatter(&mut self, number: usize) {
        self.first = number as u32 % WORD_BITS as u32;
    }

    /// The lowest giant that `hints` names now, of those that the walk has not passed.
    #[inline(always)]
    pub(super) fn next(&mut self, hints: impl Fn(&Cluster<'m>) -> u64) -> Option<&'m Giant<'m>> {
        while let Some(cluster) = self.cluster {
            let hints = hints(cluster) & !self.passed;
            if hints == 0 {
                *self = Self { first: self.first, ..Self::new(self.behind) };
                continue;
            }
            let bit = (hints.rotate_right(self.first).trailing_zeros() + self.first) % u64::BITS;
            self.passed |= 1 << bit;
            if let Some(giant) = cluster.giant(u64::from(bit)).load() {
                return Some(giant);
            }
        }
        None
    }
}

pub(super) fn count_refill(writer: Writer<'_>, cache: &Handful) {
    writer.add(Counter::Refills, 1);
    writer.add(Counter::Taken, u64::from(cache.free().count_ones()));
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::Walk;
    use crate::counts::pool;
    use crate::geometry::GIANT_FRAMES;

    #[test]
    fn walks_that_are_scattered_begin_elsewhere_and_come_by_all() {
        let tree = pool(4 * GIANT_FRAMES).tree().expect("a tree");
        for (number, expected) in [(0, [0, 1, 2, 3]), (3, [3, 0, 1, 2]), (65, [1, 2, 3, 0])] {
            let mut walk = Walk::new(tree.directory.clusters());
            walk.scatter(number);
            let found = expected.map(|_| walk.next(|_| 0b1111).expect("a giant").number());
            assert_eq!(found, expected);
            assert!(walk.next(|_| 0b1111).is_none());
        }
    }
}
