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
use super::levels::Hint;
use crate::cache::PageCache;
use crate::directory::{Block, Group};
use crate::error::OutOfMemory;
use crate::frame::{Frame, FrameNumber};
use crate::geometry::{BLOCK_FRAMES, FULL, GIANT_BLOCKS, GIANT_FRAMES, NODE_WORDS, WORD_BITS};
use crate::journal::{Counter, Writer, standstill};
use crate::node::{take_all, take_bit};
use crate::root::{Cluster, Giant};
use crate::sync::{Ordering, Word, pause};

/// How often a search that finds nothing looks again while others move frames.
const LOOKS: usize = if cfg!(loom) { 3 } else { 1000 };

/// Where a CPU refills from.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Home {
    at: Option<At>,
}

/// A home's block, and which marks there are this CPU's to take away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct At {
    block: Block,
    claim: Mark,
    adoption: Mark,
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
    /// One frame, the lowest.
    Frame,
    /// All that is there.
    Word,
}

/// Whom a search may join.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Join {
    /// Nobody: no block that is claimed, no giant that is adopted.
    Nobody,
    /// Anybody.
    Anybody,
}

/// A search on its way over the giants that hint at something, lowest first.
#[derive(Debug)]
struct Walk {
    cluster: usize,
    /// Giants of this cluster that have been visited.
    passed: u64,
    join: Join,
}

impl FrameTree<'_> {
    /// [`FrameTree::alloc`], in this writer's journal.
    pub(crate) fn alloc_with(&self, writer: Writer<'_>) -> Result<Frame, OutOfMemory> {
        let one = self.prove(writer, || self.search(writer, Amount::Frame, Join::Anybody))?;
        writer.add(Counter::Taken, 1);
        let frame = one.base().get() + u64::from(one.free().trailing_zeros());
        Ok(Frame::owned(FrameNumber::new(frame)))
    }

    /// [`FrameTree::refill`], in this writer's journal.
    pub(crate) fn refill_with(&self, writer: Writer<'_>) -> Result<PageCache, OutOfMemory> {
        let cache = self.prove(writer, || self.search(writer, Amount::Word, Join::Anybody))?;
        Ok(refilled(writer, cache))
    }

    /// A refill from this CPU's home, which moves when it is used up. From a partly used block
    /// one read-modify-write; a new block costs up to eight more.
    pub(crate) fn refill_near(
        &self,
        writer: Writer<'_>,
        home: &mut Home,
    ) -> Result<PageCache, OutOfMemory> {
        if let Some(At { block, .. }) = home.at {
            if let Some(cache) = self.harvest(writer, block, Amount::Word) {
                return Ok(refilled(writer, cache));
            }
            let next = self.search_giant(writer, block.giant, Amount::Word, Join::Nobody);
            if let Some(cache) = next {
                self.settle(home, &cache);
                return Ok(refilled(writer, cache));
            }
        }
        let cache = match self.search(writer, Amount::Word, Join::Nobody) {
            Some(cache) => cache,
            None => self.prove(writer, || self.search(writer, Amount::Word, Join::Anybody))?,
        };
        self.settle(home, &cache);
        Ok(refilled(writer, cache))
    }

    /// [`FrameTree::alloc_block`], in this writer's journal.
    #[inline(always)]
    pub(crate) fn alloc_block_with(&self, writer: Writer<'_>) -> Result<Frame, OutOfMemory> {
        let block = match self.search_whole(writer) {
            Some(block) => block,
            None => self.prove_by_looks(writer, || self.search_whole(writer))?,
        };
        self.make_ready(block);
        self.forget_zero(block);
        writer.add(Counter::Taken, BLOCK_FRAMES);
        Ok(Frame::owned(self.directory.first_frame(block)))
    }

    /// [`FrameTree::alloc_giant`], in this writer's journal.
    pub(crate) fn alloc_giant_with(&self, writer: Writer<'_>) -> Result<Frame, OutOfMemory> {
        let giant = self.prove(writer, || self.search_giants())?;
        self.make_giant_ready(giant);
        for index in 0..GIANT_BLOCKS as usize {
            self.forget_zero(Block { giant, index });
        }
        writer.add(Counter::Taken, GIANT_FRAMES);
        Ok(Frame::owned(self.directory.first_frame(Block { giant, index: 0 })))
    }

    /// Gives up a home and its marks.
    pub(crate) fn leave(&self, home: &mut Home) {
        let Some(At { block, claim, adoption }) = home.at.take() else { return };
        if claim == Mark::Own {
            let (word, mask) = self.giants[block.giant].claimed.at(block.index);
            // ORDERING: a mark only; nothing is read through it.
            word.fetch_and(!mask, Ordering::Relaxed);
        }
        if adoption == Mark::Own {
            let (cluster, mask) = self.cluster(block.giant);
            // ORDERING: as above.
            cluster.adopted.fetch_and(!mask, Ordering::Relaxed);
        }
    }

    /// Makes the block that a refill came from the home.
    fn settle(&self, home: &mut Home, cache: &PageCache) {
        let group = Group::of(cache.base());
        let Some(place) = self.directory.locate(group) else { return };
        let block = place.block;
        let (cluster, giant_mask) = self.cluster(block.giant);
        let adoption = match home.at {
            Some(at) if at.block == block => return,
            Some(ref mut at) if at.block.giant == block.giant => {
                // The adoption stays; `leave` must only take the claim.
                core::mem::replace(&mut at.adoption, Mark::Foreign)
            }
            // ORDERING: a mark only.
            _ => mark(cluster.adopted.fetch_or(giant_mask, Ordering::Relaxed), giant_mask),
        };
        self.leave(home);
        let (word, mask) = self.giants[block.giant].claimed.at(block.index);
        // ORDERING: a mark only.
        let claim = mark(word.fetch_or(mask, Ordering::Relaxed), mask);
        home.at = Some(At { block, claim, adoption });
    }

    /// Repeats a search that finds nothing until that was true, or for a thousand looks.
    #[inline]
    fn prove<T>(
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

    /// The lowest frames of the whole tree.
    fn search(&self, writer: Writer<'_>, amount: Amount, join: Join) -> Option<PageCache> {
        let mut walk = Walk::new(join);
        while let Some(giant) = walk.next(self.clusters) {
            if self.is_giant_free(giant) {
                self.split_giant(writer, giant);
            }
            let found = self.search_giant(writer, giant, amount, join);
            if found.is_some() {
                return found;
            }
            self.lower(writer, giant, Hint::Whole);
            self.lower(writer, giant, Hint::Partial);
        }
        None
    }

    /// The lowest frames of one giant.
    fn search_giant(
        &self,
        writer: Writer<'_>,
        giant: usize,
        amount: Amount,
        join: Join,
    ) -> Option<PageCache> {
        let Giant { blocks, partial, claimed, .. } = &self.giants[giant];
        for word in 0..NODE_WORDS {
            let mut passed = 0;
            loop {
                // ORDERING: as in `Walk::next`.
                let some = blocks.word(word).load(Ordering::Acquire)
                    | partial.word(word).load(Ordering::Acquire);
                let avoided = match join {
                    // ORDERING: a mark only.
                    Join::Nobody => claimed.word(word).load(Ordering::Relaxed),
                    Join::Anybody => 0,
                };
                let candidates = some & !passed & !avoided;
                if candidates == 0 {
                    break;
                }
                let bit = candidates.trailing_zeros();
                let block = Block { giant, index: word * WORD_BITS as usize + bit as usize };
                let found = self.harvest(writer, block, amount);
                if found.is_some() {
                    return found;
                }
                passed |= 1 << bit;
            }
        }
        None
    }

    /// The lowest frames of one block; it must be ready, or free, or hinted at.
    fn harvest(&self, writer: Writer<'_>, block: Block, amount: Amount) -> Option<PageCache> {
        // ORDERING: a look; `split_block` claims.
        if self.giants[block.giant].blocks.is_set(block.index, Ordering::Acquire) {
            let kept = match amount {
                Amount::Frame => 1,
                Amount::Word => FULL,
            };
            if let Some(cache) = self.split_block(writer, block, kept) {
                return Some(cache);
            }
        }
        // Whoever claimed the block, just now or since it was seen free by the search, may still
        // be writing its leaf for the first time.
        // ORDERING: Acquire pairs with the Release in `write_leaf`.
        if !self.giants[block.giant].ready.is_set(block.index, Ordering::Acquire) {
            return None;
        }
        for (index, word) in self.leaf(block).words().enumerate() {
            let bits = match amount {
                Amount::Word => take_all(word),
                Amount::Frame => take_lowest(word),
            };
            if let Some(bits) = bits {
                let base = self.directory.group(block, index).first_frame();
                return Some(PageCache::owned(base, bits, self.take_zeroes(block, index, bits)));
            }
        }
        self.retire(writer, block);
        None
    }

    /// Takes the known-zero bits of frames that were just taken.
    #[inline]
    pub(super) fn take_zeroes(&self, block: Block, word: usize, bits: u64) -> u64 {
        // ORDERING: set before the frames were given; the taking acquired it.
        if !self.giants[block.giant].zero.is_set(block.index, Ordering::Relaxed) {
            return 0;
        }
        let zeroes = self.zero_node(block).word(word);
        // ORDERING: as above; these bits belong to the frames' holder.
        let known = zeroes.load(Ordering::Relaxed) & bits;
        if known != 0 {
            // ORDERING: others change other bits; carried on by the frames' next free.
            zeroes.fetch_and(!known, Ordering::Relaxed);
        }
        known
    }

    /// The lowest free block, claimed.
    #[inline(always)]
    fn search_whole(&self, writer: Writer<'_>) -> Option<Block> {
        let mut walk = Walk::new(Join::Anybody);
        while let Some(giant) = walk.next(self.clusters) {
            if self.is_giant_free(giant) {
                self.split_giant(writer, giant);
            }
            for (index, word) in self.giants[giant].blocks.words().enumerate() {
                if let Some(bit) = take_lowest(word) {
                    let index = index * WORD_BITS as usize + bit.trailing_zeros() as usize;
                    return Some(Block { giant, index });
                }
            }
            self.lower(writer, giant, Hint::Whole);
        }
        None
    }

    /// The lowest free giant, claimed.
    fn search_giants(&self) -> Option<usize> {
        self.clusters.iter().enumerate().find_map(|(index, cluster)| {
            let bit = take_lowest(&cluster.free)?;
            Some(index * WORD_BITS as usize + bit.trailing_zeros() as usize)
        })
    }
}

impl Walk {
    fn new(join: Join) -> Self {
        Self { cluster: 0, passed: 0, join }
    }

    /// The lowest giant that hints at something now, of those that the walk has not passed.
    #[inline(always)]
    fn next(&mut self, clusters: &[Cluster]) -> Option<usize> {
        while let Some(cluster) = clusters.get(self.cluster) {
            // ORDERING: Acquire pairs with the Release of whoever cleared a bit: that step is
            // seen in its journal before "out of memory" is said.
            let [free, whole, partial] = [&cluster.free, &cluster.whole, &cluster.partial]
                .map(|word| word.load(Ordering::Acquire));
            let avoided = match self.join {
                // ORDERING: a mark only.
                Join::Nobody => cluster.adopted.load(Ordering::Relaxed),
                Join::Anybody => 0,
            };
            let hints = (free | whole | partial) & !self.passed & !avoided;
            if hints != 0 {
                let bit = hints.trailing_zeros();
                self.passed |= 1 << bit;
                return Some(self.cluster * WORD_BITS as usize + bit as usize);
            }
            *self = Self { cluster: self.cluster + 1, passed: 0, join: self.join };
        }
        None
    }
}

impl Home {
    const PRESENT: usize = 63;
    const CLAIM: usize = 62;
    const ADOPTION: usize = 61;
    const INDEX: core::ops::Range<usize> = 0..16;
    const GIANT: core::ops::Range<usize> = 16..56;

    /// The home as one word, to be kept in a CPU's slot.
    pub fn to_word(self) -> u64 {
        let Some(At { block, claim, adoption }) = self.at else { return 0 };
        let mut word = 0u64;
        word.set_bits(Self::INDEX, block.index as u64)
            .set_bits(Self::GIANT, block.giant as u64)
            .set_bit(Self::CLAIM, claim == Mark::Own)
            .set_bit(Self::ADOPTION, adoption == Mark::Own)
            .set_bit(Self::PRESENT, true);
        word
    }

    /// The home that a word of `to_word` stands for.
    pub fn from_word(word: u64) -> Self {
        let whose = |bit| if word.get_bit(bit) { Mark::Own } else { Mark::Foreign };
        let at = word.get_bit(Self::PRESENT).then(|| At {
            block: Block {
                giant: word.get_bits(Self::GIANT) as usize,
                index: word.get_bits(Self::INDEX) as usize,
            },
            claim: whose(Self::CLAIM),
            adoption: whose(Self::ADOPTION),
        });
        Self { at }
    }
}

/// Whose mark a `fetch_or` that found `old` has set.
fn mark(old: u64, mask: u64) -> Mark {
    if old & mask == 0 { Mark::Own } else { Mark::Foreign }
}

/// Takes the lowest bit of a word of truth, as a mask.
#[inline]
fn take_lowest(word: &Word) -> Option<u64> {
    loop {
        // ORDERING: Acquire as in `take_all`; `take_bit` decides.
        let bits = word.load(Ordering::Acquire);
        let lowest = bits & bits.wrapping_neg();
        if lowest == 0 {
            return None;
        }
        if take_bit(word, lowest).is_ok() {
            return Some(lowest);
        }
    }
}

fn refilled(writer: Writer<'_>, cache: PageCache) -> PageCache {
    writer.add(Counter::Refills, 1);
    writer.add(Counter::Taken, u64::from(cache.free().count_ones()));
    cache
}
