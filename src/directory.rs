//! The directory: where a frame's bits lie, and whether the frame is managed.
//!
//! From a physical frame number to its place: the cluster, the giant and the section by their
//! numbers, link by link, as the page tables do it (see [`crate::root`]). A link that is empty
//! says that nothing is managed there. Frames in holes and reservations have a place too if
//! their section exists; whether they are managed is a second question, answered by one bit for
//! a block that is managed in full, and by a search in the sorted ranges for the few blocks at
//! the edges.
//!
//! It grows by one pass over the GiBs of a range, at the start as later ([`Directory::cover`]),
//! of parts that were counted before ([`crate::stock`]).

use crate::frame::{FrameNumber, NumberRange};
use crate::geometry::{
    BLOCK_FRAMES, CLUSTER_GIANTS, FULL, GIANT_BLOCKS, GIANT_FRAMES, NODE_WORDS, SECTION_BLOCKS,
    WORD_BITS,
};
use crate::isolation::Isolations;
use crate::node::{Node, mask_between};
use crate::ranges::Ranges;
use crate::root::{Cluster, Clusters, Giant, Section, Top};
use crate::stock::{Size, Stock, pieces};
use crate::sync::{Link, Ordering, Word, full_fence};

/// An aligned group of frames that share one word: 64 of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct Group(u64);

impl Group {
    /// The group that a frame lies in.
    #[inline]
    pub const fn of(frame: FrameNumber) -> Self {
        Self(frame.get() / WORD_BITS)
    }

    /// The group with this number.
    #[inline]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Its number.
    #[inline]
    pub const fn number(self) -> u64 {
        self.0
    }

    /// Its first frame.
    #[inline]
    pub const fn first_frame(self) -> FrameNumber {
        FrameNumber::trusted(self.0 * WORD_BITS)
    }

    /// The number of the giant that it lies in.
    #[inline]
    pub const fn giant(self) -> u64 {
        self.0 / (GIANT_FRAMES / WORD_BITS)
    }

    /// The number of its block within the giant.
    #[inline]
    pub const fn block(self) -> usize {
        (self.0 / NODE_WORDS as u64 % GIANT_BLOCKS) as usize
    }

    /// The number of its word within the block's leaf.
    #[inline]
    pub const fn word(self) -> usize {
        self.0 as usize % NODE_WORDS
    }

    /// Its frame number `bit`.
    #[inline]
    pub const fn frame(self, bit: u32) -> FrameNumber {
        FrameNumber::trusted(self.0 * WORD_BITS + bit as u64)
    }
}

/// A frame's bit in its group's word.
#[inline]
pub const fn bit_of(frame: FrameNumber) -> u64 {
    1 << (frame.get() % WORD_BITS)
}

/// A block with managed frames, or next to some: its section exists.
#[derive(Clone, Copy, Debug)]
pub struct Block<'m> {
    pub giant: &'m Giant<'m>,
    /// Its number within the giant.
    pub index: usize,
}

/// Where a group's bits lie.
#[derive(Clone, Copy, Debug)]
pub struct Place<'m> {
    pub group: Group,
    pub giant: &'m Giant<'m>,
    /// The group's word of truth.
    pub leaf: &'m Word,
}

/// Which frames are managed, and where their bits lie.
#[derive(Debug)]
pub struct Directory<'m> {
    top: Top<'m>,
    /// Which are managed, also where a block is so in part.
    pub ranges: Ranges<'m>,
    /// Which of these are on their way out.
    pub isolations: Isolations,
}

/// The blocks of a giant that `frames` touches, and those that it fills; each as the first one
/// and the one behind the last.
pub fn touched_and_filled(frames: NumberRange) -> ((usize, usize), (usize, usize)) {
    let (start, end) = (frames.start().get() % GIANT_FRAMES, frames.len());
    let end = start + end;
    let touched = (start / BLOCK_FRAMES, end.div_ceil(BLOCK_FRAMES));
    let filled = (start.div_ceil(BLOCK_FRAMES), end / BLOCK_FRAMES);
    let pair = |(first, end): (u64, u64)| (first as usize, end.max(first) as usize);
    (pair(touched), pair(filled))
}

/// The sections that frames of a giant lie in, each by its first block.
fn sections(frames: NumberRange) -> impl Iterator<Item = usize> {
    let ((first, end), _) = touched_and_filled(frames);
    (first - first % SECTION_BLOCKS..end).step_by(SECTION_BLOCKS)
}

impl<'m> Block<'m> {
    /// Its frames, 1 = free.
    #[inline]
    pub fn leaf(self) -> &'m Node {
        self.section().leaf(self.index)
    }

    /// Which of its free frames are known to be zero.
    #[inline]
    pub fn zeroes(self) -> &'m Node {
        self.section().zeroes(self.index)
    }

    #[inline]
    fn section(self) -> &'m Section {
        self.giant.section(self.index).load().expect("a block whose section does not exist")
    }

    /// Its first frame.
    #[inline]
    pub fn first_frame(self) -> FrameNumber {
        FrameNumber::trusted(self.giant.number() * GIANT_FRAMES + self.index as u64 * BLOCK_FRAMES)
    }

    /// Its group number `word`.
    #[inline]
    pub fn group(self, word: usize) -> Group {
        Group::new(self.first_frame().get() / WORD_BITS + word as u64)
    }

    /// Whether all of its frames are managed.
    #[inline]
    pub fn is_full(self) -> bool {
        // ORDERING: set before its first frame was given; whoever holds one has seen that.
        self.giant.full.is_set(self.index, Ordering::Relaxed)
    }

    /// Those frames of a word that are gone.
    pub fn gone(self, word: usize) -> u64 {
        // ORDERING: Acquire pairs with the Release of who set a bit, or cleared it.
        let gone = self.giant.gone(self.index).load();
        gone.map_or(0, |gone| gone.word(self.index, word).load(Ordering::Acquire))
    }

    /// Says that its leaf is written, which it is since its section was published.
    fn declare_ready(self) {
        let (word, mask) = self.giant.nodes().ready.at(self.index);
        // ORDERING: Release pairs with the Acquire of whoever looks before it reads the leaf.
        word.fetch_or(mask, Ordering::Release);
    }

    /// Whether it is the same.
    #[inline]
    pub fn is(self, other: Self) -> bool {
        core::ptr::eq(self.giant, other.giant) && self.index == other.index
    }
}

impl<'m> Place<'m> {
    /// Where a group's bits lie in its giant; `None` if nothing near is managed.
    #[inline]
    pub fn of(group: Group, giant: &'m Giant<'m>) -> Option<Self> {
        let section = giant.section(group.block()).load()?;
        Some(Self { group, giant, leaf: section.leaf(group.block()).word(group.word()) })
    }

    /// The block.
    #[inline]
    pub fn block(&self) -> Block<'m> {
        Block { giant: self.giant, index: self.group.block() }
    }
}

impl<'m> Directory<'m> {
    /// A directory of nothing yet, that knows these to be managed.
    pub fn new(table: &'m [Link<'m, Cluster<'m>>], ranges: Ranges<'m>) -> Self {
        Self { top: Top::new(table), ranges, isolations: Isolations::new() }
    }

    /// What is missing to cover a range: O(GiBs).
    pub fn missing(&self, range: NumberRange) -> Size {
        let mut size = Size::default();
        let mut behind = 0;
        for (number, frames) in pieces(range) {
            let cluster = self.top.cluster(number / CLUSTER_GIANTS as u64);
            if cluster.is_none() && number >= behind {
                size.clusters += 1;
                behind = (number / CLUSTER_GIANTS as u64 + 1) * CLUSTER_GIANTS as u64;
            }
            let giant = cluster.and_then(|cluster| cluster.giant(number).load());
            size.giants += usize::from(giant.is_none());
            let is_missing =
                |first: &usize| giant.is_none_or(|giant| giant.section(*first).load().is_none());
            size.sections += sections(frames).filter(is_missing).count();
        }
        size
    }

    /// Makes places for the bits of a range whose frames are managed from now on, and not free
    /// yet. O(GiBs), and up to three pages to write for each end of it. The blocks at its ends are
    /// left to [`fill`](Self::fill).
    ///
    /// # Panics
    /// If the stock is smaller than what was missing.
    pub fn cover(&self, stock: &mut Stock<'m>, range: NumberRange) {
        for (number, frames) in pieces(range) {
            let cluster = self.cluster(stock, number / CLUSTER_GIANTS as u64);
            let link = cluster.giant(number);
            match link.load() {
                None if frames.len() == GIANT_FRAMES => {
                    link.settle(stock.whole_giant(cluster, number));
                }
                None => {
                    let giant = link.settle(stock.partial_giant(cluster, number));
                    self.cover_part(stock, giant, frames);
                }
                Some(giant) => self.cover_part(stock, giant, frames),
            }
        }
    }

    fn cluster(&self, stock: &mut Stock<'m>, number: u64) -> &'m Cluster<'m> {
        match self.top.cluster(number) {
            Some(cluster) => cluster,
            None => self.top.insert(stock.cluster(number)),
        }
    }

    /// The same for frames that are a part of their giant. Whoever publishes a part has written
    /// what another CPU may declare ready that adds frames beside these.
    fn cover_part(&self, stock: &mut Stock<'m>, giant: &'m Giant<'m>, frames: NumberRange) {
        giant.declare_ready();
        let (touched, filled) = touched_and_filled(frames);
        for first in sections(frames) {
            let link = giant.section(first);
            if link.load().is_none() {
                let section = stock.section();
                if first < filled.0 || filled.1 < first + SECTION_BLOCKS {
                    section.clear();
                }
                link.settle(section);
            }
        }
        for (index, word) in giant.full.words().enumerate() {
            let filled = mask_between(filled.0, filled.1, index * WORD_BITS as usize);
            if filled != 0 {
                // ORDERING: before the frames are given, whose bits carry it to their holders.
                word.fetch_or(filled, Ordering::Relaxed);
            }
        }
        let edges = (touched.0..touched.1).filter(|index| !(filled.0..filled.1).contains(index));
        edges.for_each(|index| Block { giant, index }.declare_ready());
    }

    /// Says of a block that all of its frames are managed, if they are, and none is isolated or
    /// gone. It is on record meanwhile, so that nobody finds it said who has just isolated or
    /// retired some. If it can't be on record it stays as it is, which costs time and nothing else.
    pub fn fill(&self, block: Block<'m>) {
        if block.is_full() || !self.is_filled(block) {
            return;
        }
        let say = || {
            let (word, mask) = block.giant.full.at(block.index);
            // ORDERING: whoever isolates or retires some of it finds the place vacated, and so
            // undoes this; what others do is right either way.
            word.fetch_or(mask, Ordering::Relaxed);
        };
        if block.giant.gone(block.index).load().is_none() {
            // Nothing was ever isolated near it. If somebody has just begun to, it is said for a
            // moment.
            say();
            full_fence();
            if !self.is_filled(block) {
                self.open_up(block);
            }
            return;
        }
        let first = block.first_frame().get();
        let [start, end] = [first, first + BLOCK_FRAMES].map(FrameNumber::trusted);
        let Some(place) = self.isolations.hold(NumberRange::trusted(start, end)) else { return };
        if self.is_filled(block) {
            say();
        }
        self.isolations.vacate(place);
    }

    /// Whether all frames of a block are managed, and none is isolated or gone.
    pub fn is_filled(&self, block: Block<'_>) -> bool {
        let mut groups = (0..NODE_WORDS).map(|word| block.group(word));
        groups.all(|group| self.cacheable_at_an_edge(group, block) == FULL)
    }

    /// From now on frames of this block are managed, or not, one by one.
    pub fn open_up(&self, block: Block<'_>) {
        let (word, mask) = block.giant.full.at(block.index);
        // ORDERING: what a holder of its frames does with them is right either way; who isolates
        // them makes a fence.
        word.fetch_and(!mask, Ordering::Relaxed);
    }

    /// The clusters, ascending.
    #[inline]
    pub fn clusters(&self) -> Clusters<'m> {
        self.top.clusters()
    }

    /// The giants, ascending.
    pub fn giants(&self) -> impl Iterator<Item = &'m Giant<'m>> + use<'m> {
        self.clusters().flat_map(Cluster::giants)
    }

    /// The giant with this number; `None` if it has no managed frame.
    #[inline]
    pub fn giant(&self, number: u64) -> Option<&'m Giant<'m>> {
        self.top.cluster(number / CLUSTER_GIANTS as u64)?.giant(number).load()
    }

    /// Where a group's bits lie; `None` if nothing near is managed.
    #[inline]
    pub fn locate(&self, group: Group) -> Option<Place<'m>> {
        Place::of(group, self.giant(group.giant())?)
    }

    /// The same for low memory only, where that is short.
    #[inline(always)]
    pub fn locate_low(&self, group: Group) -> Option<Place<'m>> {
        Place::of(group, self.low_giant(group.giant())?)
    }

    /// The giant with this number, as above.
    #[inline(always)]
    pub fn low_giant(&self, number: u64) -> Option<&'m Giant<'m>> {
        self.top.low_cluster(number / CLUSTER_GIANTS as u64)?.giant(number).load()
    }

    /// The managed frames of a group of this block, one bit each.
    #[inline]
    pub fn managed(&self, group: Group, block: Block<'_>) -> u64 {
        if block.is_full() { FULL } else { self.managed_at_an_edge(group, block) }
    }

    /// The same without those that are isolated.
    #[inline]
    pub fn cacheable(&self, group: Group, block: Block<'_>) -> u64 {
        if block.is_full() { FULL } else { self.cacheable_at_an_edge(group, block) }
    }

    #[cold]
    fn managed_at_an_edge(&self, group: Group, block: Block<'_>) -> u64 {
        self.ranges.mask(group.first_frame()) & !block.gone(group.word())
    }

    #[cold]
    fn cacheable_at_an_edge(&self, group: Group, block: Block<'_>) -> u64 {
        self.managed_at_an_edge(group, block) & !self.isolations.mask(group.first_frame())
    }

    /// How many frames of a block are managed.
    pub fn managed_frames(&self, block: Block<'_>) -> u64 {
        let groups = (0..NODE_WORDS).map(|word| block.group(word));
        groups.map(|group| u64::from(self.managed(group, block).count_ones())).sum()
    }

    /// Whether all frames of a giant are managed.
    pub fn manages_all_of(&self, giant: &'m Giant<'m>) -> bool {
        let frames = || giant.blocks().map(|block| self.managed_frames(block)).sum::<u64>();
        giant.is_full() || frames() == GIANT_FRAMES
    }
}

impl<'m> Giant<'m> {
    /// Its blocks, those of sections that exist.
    pub fn blocks(&'m self) -> impl Iterator<Item = Block<'m>> {
        (0..GIANT_BLOCKS as usize)
            .filter(|index| self.section(*index).load().is_some())
            .map(|index| Block { giant: self, index })
    }

    /// Whether all of its frames are managed.
    pub fn is_full(&self) -> bool {
        // ORDERING: as in `Block::is_full`.
        self.full.all(FULL, Ordering::Relaxed)
    }
}
