//! Finding free frames: lowest address first, by the hints, and "out of memory" only on evidence.
//!
//! A search goes down from the lowest cluster with a hint to the lowest giant, the lowest block,
//! the lowest word, and takes what it finds by one read-modify-write on the truth. Whoever finds
//! nothing under a hint takes the hint back on the spot, so that each stale bit costs one search
//! one look. At rest, on one CPU, the answer is the lowest free frame, as Go's allocator gives.
//!
//! **Homes.** A CPU that refills again and again keeps a home: the block that it took from last.
//! It marks that block as claimed and its giant as adopted (hints both: nothing is reserved),
//! and others go elsewhere while there is an elsewhere. So CPUs write different leaves, and, as
//! long as there are as many GiBs as CPUs, different giants' lines. A home's giant is used up,
//! lowest block first, before another is adopted.
//!
//! **Evidence.** If nothing is found, the search is repeated until no step was under way before
//! it and none has begun after it (see [`crate::journal`]): then there was nothing.

use bit_field::BitField;

use super::FrameTree;
use super::levels::{
    Hint, forget_zero, lower, make_all_ready, retire, split_block, split_giant, take_zeroes,
};
use crate::cache::{Known, PageCache};
use crate::directory::Block;
use crate::error::OutOfMemory;
use crate::frame::{Frame, FrameNumber, NumberRange};
use crate::geometry::{BLOCK_FRAMES, GIANT_FRAMES, NODE_WORDS, WORD_BITS};
use crate::journal::{Counter, Writer, standstill};
use crate::node::{give, mask_between, take_all, take_lowest, take_lowest_of, take_some};
use crate::root::{Cluster, Clusters, Giant, Nodes};
use crate::sync::{Link, Ordering, Word, pause};

/// How often a search that finds nothing looks again while others move frames.
const LOOKS: usize = if cfg!(loom) { 3 } else { 1000 };

/// Where a CPU refills from.
#[derive(Clone, Copy, Default, Debug)]
pub struct Home<'m> {
    at: Option<At<'m>>,
}

/// A home's block, and which marks there are this CPU's to take away.
#[derive(Clone, Copy, Debug)]
struct At<'m> {
    block: Block<'m>,
    claim: Mark,
    adoption: Mark,
}

/// A home, kept in a CPU's slot.
#[derive(Debug)]
pub struct HomeCell<'m> {
    giant: Link<'m, Giant<'m>>,
    /// The rest, or 0 for no home.
    rest: Word,
}

/// What a refill took, and from where.
#[derive(Debug)]
pub struct Refill<'m> {
    pub cache: PageCache,
    pub block: Block<'m>,
}

/// Whose mark it is that this CPU found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mark {
    /// This CPU set it.
    Own,
    /// Another CPU had set it before.
    Foreign,
}

/// How much to take from a word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Amount {
    /// The lowest frames, at most so many.
    Frames(u32),
    /// All that is there.
    Word,
}

/// Whom a search may join, and where.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Join {
    /// Nobody: no block that is claimed, no giant that is adopted, no low memory.
    Nobody,
    /// Anybody, but not in low memory.
    AnybodyAbove,
    /// Anybody.
    Anybody,
}

/// A search on its way over the giants that hint at something, lowest first.
#[derive(Debug)]
struct Walk<'m> {
    /// The cluster that it is in.
    cluster: Option<&'m Cluster<'m>>,
    behind: Clusters<'m>,
    /// Giants of this cluster that have been visited.
    passed: u64,
}

impl<'m> FrameTree<'m> {
    /// [`FrameTree::alloc`], in this writer's journal.
    pub(crate) fn alloc_with(&self, writer: Writer<'_>) -> Result<Frame, OutOfMemory> {
        self.alloc_known_with(writer).map(|known| known.frame)
    }

    /// The same, with what is known of the frame's contents.
    pub(crate) fn alloc_known_with(&self, writer: Writer<'_>) -> Result<Known, OutOfMemory> {
        self.alloc_some_with(writer, 1).map(PageCache::into_one)
    }

    /// The lowest frames of the lowest word that has any; at most `most`, which is not 0. One
    /// read-modify-write from a partly used block.
    pub(crate) fn alloc_some_with(
        &self,
        writer: Writer<'_>,
        most: u32,
    ) -> Result<PageCache, OutOfMemory> {
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
    pub(crate) fn refill_with(&self, writer: Writer<'_>) -> Result<PageCache, OutOfMemory> {
        let search = || self.search_admitted(writer, Amount::Word, Join::Anybody);
        let refill = self.prove(writer, search)?;
        count_refill(writer, &refill.cache);
        Ok(refill.cache)
    }

    /// A refill from this CPU's home, which moves when it is used up. From a partly used block
    /// one read-modify-write; a new block costs up to eight more.
    pub(crate) fn refill_near(
        &self,
        writer: Writer<'_>,
        home: &mut Home<'m>,
    ) -> Result<Refill<'m>, OutOfMemory> {
        let refill = match home.at {
            Some(At { block, .. }) => harvest(writer, block, Amount::Word)
                .or_else(|| self.search_giant(writer, block.giant, Amount::Word, Join::Nobody)),
            None => None,
        };
        let search = |join| self.search_admitted(writer, Amount::Word, join);
        let refill = refill.and_then(|refill| self.admit(refill));
        let refill = refill.or_else(|| search(Join::Nobody));
        let refill = match refill.or_else(|| self.above_low(|_| search(Join::AnybodyAbove))) {
            Some(refill) => refill,
            None => self.prove(writer, || search(Join::Anybody))?,
        };
        home.settle(refill.block);
        count_refill(writer, &refill.cache);
        Ok(refill)
    }

    /// [`FrameTree::alloc_giant`], in this writer's journal.
    pub(crate) fn alloc_giant_with(&self, writer: Writer<'_>) -> Result<Frame, OutOfMemory> {
        let giant = self.prove(writer, || self.search_giant_whole(writer))?;
        writer.add(Counter::Taken, GIANT_FRAMES);
        Ok(Frame::owned(FrameNumber::trusted(giant.number() * GIANT_FRAMES)))
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
    fn prove_by_looks<T>(
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
    fn search_admitted(
        &self,
        writer: Writer<'_>,
        amount: Amount,
        join: Join,
    ) -> Option<Refill<'m>> {
        loop {
            let refill = self.search(writer, amount, join)?;
            let admitted = self.admit(refill);
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
            giant.blocks().for_each(forget_zero);
            let first = giant.number() * GIANT_FRAMES;
            let frames = [first, first + GIANT_FRAMES].map(FrameNumber::trusted);
            let give_back = || {
                let _step = writer.begin();
                give(&giant.cluster.free, giant.mask);
            };
            if self.admits(NumberRange::trusted(frames[0], frames[1]), give_back) {
                return Some(giant);
            }
        }
    }

    /// The lowest frames of the whole tree.
    fn search(&self, writer: Writer<'_>, amount: Amount, join: Join) -> Option<Refill<'m>> {
        let mut walk = Walk::new(self.directory.clusters());
        let low_giants = self.low_end / GIANT_FRAMES;
        let hints = |cluster: &Cluster<'_>| {
            let low = mask_between(0, low_giants as usize, cluster.first_giant() as usize);
            let avoided = match join {
                // ORDERING: a mark only.
                Join::Nobody => low | cluster.adopted.load(Ordering::Relaxed),
                Join::AnybodyAbove => low,
                Join::Anybody => 0,
            };
            // ORDERING: as in `hints_at_blocks`.
            (hints_at_blocks(cluster) | cluster.partial.load(Ordering::Acquire)) & !avoided
        };
        while let Some(giant) = walk.next(hints) {
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

    /// The lowest frames of one giant, whose nodes are written.
    fn search_giant(
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
fn open_giant<'m>(writer: Writer<'_>, giant: &'m Giant<'m>) -> Option<&'m Nodes> {
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
fn harvest<'m>(writer: Writer<'_>, block: Block<'m>, amount: Amount) -> Option<Refill<'m>> {
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
    fn of(block: Block<'m>, word: usize, bits: u64) -> Self {
        let base = block.group(word).first_frame();
        Self { cache: PageCache::owned(base, bits, take_zeroes(block, word, bits)), block }
    }
}

impl<'m> Walk<'m> {
    #[inline]
    fn new(mut clusters: Clusters<'m>) -> Self {
        Self { cluster: clusters.next(), behind: clusters, passed: 0 }
    }

    /// The lowest giant that `hints` names now, of those that the walk has not passed.
    #[inline(always)]
    fn next(&mut self, hints: impl Fn(&Cluster<'m>) -> u64) -> Option<&'m Giant<'m>> {
        while let Some(cluster) = self.cluster {
            let hints = hints(cluster) & !self.passed;
            if hints == 0 {
                *self = Self::new(self.behind);
                continue;
            }
            let bit = hints.trailing_zeros();
            self.passed |= 1 << bit;
            if let Some(giant) = cluster.giant(u64::from(bit)).load() {
                return Some(giant);
            }
        }
        None
    }
}

impl<'m> Home<'m> {
    /// Gives it and its marks up.
    pub fn leave(&mut self) {
        let Some(At { block, claim, adoption }) = self.at.take() else { return };
        if claim == Mark::Own {
            let (word, mask) = block.giant.nodes().claimed.at(block.index);
            // ORDERING: a mark only; nothing is read through it.
            word.fetch_and(!mask, Ordering::Relaxed);
        }
        if adoption == Mark::Own {
            // ORDERING: as above.
            block.giant.cluster.adopted.fetch_and(!block.giant.mask, Ordering::Relaxed);
        }
    }

    /// Moves it to the block that a refill came from.
    #[inline]
    fn settle(&mut self, block: Block<'m>) {
        if !self.at.is_some_and(|at| at.block.is(block)) {
            self.move_to(block);
        }
    }

    #[inline(never)]
    fn move_to(&mut self, block: Block<'m>) {
        let giant = block.giant;
        let adoption = match self.at {
            Some(ref mut at) if core::ptr::eq(at.block.giant, giant) => {
                // The adoption stays; `leave` must only take the claim.
                core::mem::replace(&mut at.adoption, Mark::Foreign)
            }
            // ORDERING: a mark only.
            _ => mark(giant.cluster.adopted.fetch_or(giant.mask, Ordering::Relaxed), giant.mask),
        };
        self.leave();
        let (word, mask) = giant.nodes().claimed.at(block.index);
        // ORDERING: a mark only.
        let claim = mark(word.fetch_or(mask, Ordering::Relaxed), mask);
        self.at = Some(At { block, claim, adoption });
    }
}

impl<'m> HomeCell<'m> {
    const PRESENT: usize = 63;
    const CLAIM: usize = 62;
    const ADOPTION: usize = 61;
    const INDEX: core::ops::Range<usize> = 0..16;

    /// No home.
    pub fn new() -> Self {
        Self { giant: Link::empty(), rest: Word::new(0) }
    }

    /// The home that it keeps.
    pub fn get(&self) -> Home<'m> {
        // ORDERING: only the slot's owner reads and writes it.
        let rest = self.rest.load(Ordering::Relaxed);
        let whose = |bit| if rest.get_bit(bit) { Mark::Own } else { Mark::Foreign };
        let giant = self.giant.load().filter(|_| rest.get_bit(Self::PRESENT));
        let at = giant.map(|giant| At {
            block: Block { giant, index: rest.get_bits(Self::INDEX) as usize },
            claim: whose(Self::CLAIM),
            adoption: whose(Self::ADOPTION),
        });
        Home { at }
    }

    /// Keeps this one from now on.
    pub fn put(&self, home: Home<'m>) {
        let mut rest = 0u64;
        if let Some(At { block, claim, adoption }) = home.at {
            self.giant.publish(block.giant);
            rest.set_bits(Self::INDEX, block.index as u64)
                .set_bit(Self::CLAIM, claim == Mark::Own)
                .set_bit(Self::ADOPTION, adoption == Mark::Own)
                .set_bit(Self::PRESENT, true);
        }
        // ORDERING: as in `get`.
        self.rest.store(rest, Ordering::Relaxed);
    }
}

/// Whose mark a `fetch_or` that found `old` has set.
fn mark(old: u64, mask: u64) -> Mark {
    if old & mask == 0 { Mark::Own } else { Mark::Foreign }
}

fn count_refill(writer: Writer<'_>, cache: &PageCache) {
    writer.add(Counter::Refills, 1);
    writer.add(Counter::Taken, u64::from(cache.free().count_ones()));
}
