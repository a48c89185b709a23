//! The directory: where a frame's bits lie, and whether the frame is managed.
//!
//! From a physical frame number to its place: the cluster, the giant and the section by their
//! numbers, link by link, as the page tables do it (see [`crate::root`]). A link that is empty
//! says that nothing is managed there. Frames in holes and reservations have a place too if
//! their section exists; whether they are managed is a second question, answered by one bit for
//! a block that is managed in full, and by a search in the sorted ranges for the few blocks at
//! the edges.
//!
//! It is built from the memory map in one pass over its GiBs, and its size is counted in one over
//! its ranges.

use core::ops::Range;
use core::slice::Iter;

use crate::arena::{Arena, Part};
use crate::bits::mask;
use crate::frame::{FrameNumber, NumberRange};
use crate::geometry::{
    BLOCK_FRAMES, CLUSTER_FRAMES, CLUSTER_GIANTS, FULL, GIANT_BLOCKS, GIANT_FRAMES, NODE_WORDS,
    SECTION_BLOCKS, SECTION_FRAMES, WORD_BITS,
};
use crate::node::Node;
use crate::root::{Cluster, Giant, Nodes, Section, Top};
use crate::sync::{Link, Ordering, Word};

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
    top: Link<'m, Top<'m>>,
    ranges: &'m [NumberRange],
}

/// What giants and sections are made of while the directory is built.
struct Builder<'m> {
    giants: Part<'m, Giant<'m>>,
    nodes: Iter<'m, Nodes>,
    sections: Iter<'m, Section>,
}

/// Cuts a range at giant boundaries: the giant's number, and the frames of it.
fn pieces(range: NumberRange) -> impl Iterator<Item = (u64, NumberRange)> {
    let (start, end) = (range.start().get(), range.end().get());
    (start / GIANT_FRAMES..end.div_ceil(GIANT_FRAMES)).map(move |giant| {
        let first = start.max(giant * GIANT_FRAMES);
        let [first, end] = [first, end.min((giant + 1) * GIANT_FRAMES)].map(FrameNumber::trusted);
        (giant, NumberRange::trusted(first, end))
    })
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

/// The bits of the word whose first bit is number `base` that lie in `start..end`.
pub const fn mask_between(start: usize, end: usize, base: usize) -> u64 {
    let from = if start > base { start } else { base };
    let behind = base + WORD_BITS as usize;
    let to = if end < behind { end } else { behind };
    if from < to { mask((from - base) as u32, (to - from) as u32) } else { 0 }
}

/// The aligned stretches of `frames` frames that the ranges (ascending, disjoint) touch, by their
/// numbers: a run for each range, and no number twice.
fn touched(
    ranges: impl Iterator<Item = NumberRange>,
    frames: u64,
) -> impl Iterator<Item = Range<u64>> {
    let mut behind = 0;
    ranges.map(move |range| {
        let first = (range.start().get() / frames).max(behind);
        behind = range.end().get().div_ceil(frames);
        first..behind
    })
}

/// How large a directory is, and how many leaves it leads to.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Size {
    pub clusters: usize,
    pub giants: usize,
    pub sections: usize,
    pub ranges: usize,
    /// Managed frames.
    pub frames: u64,
}

impl Size {
    /// The size for these ranges (ascending, disjoint): a few passes over them.
    pub fn of(ranges: impl Iterator<Item = NumberRange> + Clone) -> Self {
        let count = |frames| {
            touched(ranges.clone(), frames).map(|run| (run.end - run.start) as usize).sum()
        };
        Self {
            clusters: count(CLUSTER_FRAMES),
            giants: count(GIANT_FRAMES),
            sections: count(SECTION_FRAMES),
            ranges: ranges.clone().count(),
            frames: ranges.map(NumberRange::len).sum(),
        }
    }
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

impl<'m> Builder<'m> {
    /// Makes these frames of a giant managed, before anybody else knows it.
    fn add(&mut self, cluster: &'m Cluster<'m>, number: u64, frames: NumberRange) -> &'m Giant<'m> {
        let link = cluster.giant(number);
        let is_whole = frames.len() == GIANT_FRAMES;
        let giant = link.load().unwrap_or_else(|| {
            let (full, sections) = if is_whole {
                (FULL, core::array::from_fn(|_| Link::to(self.section())))
            } else {
                (0, core::array::from_fn(|_| Link::empty()))
            };
            let nodes = self.nodes.next().expect("nodes for each giant");
            self.giants.put(Giant::new(cluster, number, nodes, sections, Node::new(full)))
        });
        if !is_whole {
            self.cover(giant, frames);
        }
        link.publish(giant);
        giant
    }

    /// The same for frames that are a part of their giant.
    fn cover(&mut self, giant: &Giant<'m>, frames: NumberRange) {
        let (touched, filled) = touched_and_filled(frames);
        for block in (touched.0 - touched.0 % SECTION_BLOCKS..touched.1).step_by(SECTION_BLOCKS) {
            if giant.section(block).load().is_none() {
                giant.section(block).publish(self.section());
            }
        }
        for (index, word) in giant.full.words().enumerate() {
            let filled = mask_between(filled.0, filled.1, index * WORD_BITS as usize);
            // ORDERING: nobody else knows the giant; it is published with the tree.
            word.store(word.load(Ordering::Relaxed) | filled, Ordering::Relaxed);
        }
    }

    fn section(&mut self) -> &'m Section {
        self.sections.next().expect("as many sections as were counted")
    }
}

impl<'m> Directory<'m> {
    /// Writes the directory of these ranges (ascending, disjoint) into the arena, and shows each
    /// piece of them, cut at giants, to `put`.
    ///
    /// # Panics
    /// If there is more of anything than counted.
    pub fn new(
        arena: &mut Arena<'m>,
        size: Size,
        ranges: impl Iterator<Item = NumberRange> + Clone,
        put: impl Fn(&'m Giant<'m>, NumberRange),
    ) -> Self {
        let mut clusters = arena.deal_part(size.clusters);
        let numbers = touched(ranges.clone(), CLUSTER_FRAMES).flatten();
        let clusters =
            arena.deal_all(size.clusters, numbers.map(|number| clusters.put(Cluster::new(number))));
        let top = arena.deal_part(1).put(Top::new(clusters));
        let mut builder = Builder {
            giants: arena.deal_part(size.giants),
            nodes: arena.deal_unwritten(size.giants).iter(),
            sections: arena.deal_unwritten(size.sections).iter(),
        };
        for range in ranges.clone() {
            for (number, frames) in pieces(range) {
                if let Some(cluster) = top.cluster(number / CLUSTER_GIANTS as u64) {
                    put(builder.add(cluster, number, frames), frames);
                }
            }
        }
        Self { top: Link::to(top), ranges: arena.deal_all(size.ranges, ranges) }
    }

    /// The clusters, ascending.
    #[inline]
    pub fn clusters(&self) -> &'m [&'m Cluster<'m>] {
        self.top.load().map_or(&[], Top::clusters)
    }

    /// The giants, ascending.
    pub fn giants(&self) -> impl Iterator<Item = &'m Giant<'m>> + use<'m> {
        self.clusters().iter().flat_map(|cluster| cluster.giants())
    }

    /// The giant with this number; `None` if it has no managed frame.
    #[inline]
    pub fn giant(&self, number: u64) -> Option<&'m Giant<'m>> {
        self.top.load()?.cluster(number / CLUSTER_GIANTS as u64)?.giant(number).load()
    }

    /// Where a group's bits lie; `None` if nothing near is managed.
    #[inline]
    pub fn locate(&self, group: Group) -> Option<Place<'m>> {
        Place::of(group, self.giant(group.giant())?)
    }

    /// The managed frames of a group of this block, one bit each.
    #[inline]
    pub fn managed(&self, group: Group, block: Block<'_>) -> u64 {
        if block.is_full() { FULL } else { self.managed_at_an_edge(group) }
    }

    #[cold]
    fn managed_at_an_edge(&self, group: Group) -> u64 {
        let base = group.first_frame().get();
        let first = self.ranges.partition_point(|range| range.end().get() <= base);
        self.ranges[first..].iter().take_while(|range| range.start().get() < base + WORD_BITS).fold(
            0,
            |managed, range| {
                let (start, end) = (range.start().get() as usize, range.end().get() as usize);
                managed | mask_between(start, end, base as usize)
            },
        )
    }

    /// How many frames of a block are managed.
    pub fn managed_frames(&self, block: Block<'_>) -> u64 {
        (0..NODE_WORDS)
            .map(|word| u64::from(self.managed(block.group(word), block).count_ones()))
            .sum()
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
