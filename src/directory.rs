//! The directory: which frames are managed, and where their bits lie. Written once, at
//! initialisation, and only read from then on, so every CPU may keep its lines.
//!
//! From a physical frame number to its place: the span of neighbouring GiBs that it lies in
//! (most machines have one or two), then the giant's entry, then plain arithmetic. Frames in
//! holes and reservations have a place too if their giant is managed; whether they are managed
//! is a second question, answered by one bit for a block that is managed in full, and by a
//! search in the sorted ranges for the few blocks at the edges.

use crate::arena::Arena;
use crate::bits::mask;
use crate::frame::{FrameNumber, FrameRange};
use crate::geometry::{BLOCK_FRAMES, FULL, GIANT_BLOCKS, GIANT_FRAMES, NODE_WORDS, WORD_BITS};

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

/// A block: a giant's place in the table, and the block's number within that giant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Block {
    pub giant: usize,
    pub index: usize,
}

/// Where a group's bits lie.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    pub block: Block,
    /// The word within the block's leaf.
    pub word: usize,
}

impl Place {
    /// Where a group's bits lie in the giant that holds them.
    #[inline]
    pub const fn of(group: Group, giant: usize) -> Self {
        let index = (group.number() / NODE_WORDS as u64 % GIANT_BLOCKS) as usize;
        Self { block: Block { giant, index }, word: group.number() as usize % NODE_WORDS }
    }
}

/// What never changes about a giant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GiantInfo {
    /// Which GiB of the physical address space it is.
    number: u64,
    /// Where the leaf of its block 0 is, or would be: the number may have wrapped below 0.
    first_leaf: usize,
    /// Its first block with managed frames, and the one behind its last.
    hull: (usize, usize),
    /// Blocks that are managed in full, one bit each.
    full: [u64; NODE_WORDS],
}

/// A run of neighbouring giants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Span {
    first: u64,
    count: u64,
    index: usize,
}

/// Which frames are managed, and where their bits lie.
#[derive(Debug)]
pub struct Directory<'m> {
    spans: &'m [Span],
    info: &'m [GiantInfo],
    ranges: &'m [FrameRange],
}

/// Cuts ranges at giant boundaries: the giant's number, and the frames of it.
pub fn pieces(
    ranges: impl Iterator<Item = FrameRange> + Clone,
) -> impl Iterator<Item = (u64, FrameRange)> + Clone {
    ranges.flat_map(|range| {
        let (start, end) = (range.start().get(), range.end().get());
        (start / GIANT_FRAMES..end.div_ceil(GIANT_FRAMES)).map(move |giant| {
            let first = start.max(giant * GIANT_FRAMES);
            (giant, FrameRange::from_numbers(first, end.min((giant + 1) * GIANT_FRAMES)))
        })
    })
}

/// The blocks of a giant that `frames` touches, and those that it fills; each as the first one
/// and the one behind the last.
pub fn touched_and_filled(frames: FrameRange) -> ((usize, usize), (usize, usize)) {
    let (start, end) = (frames.start().get() % GIANT_FRAMES, frames.len());
    let end = start + end;
    let touched = (start / BLOCK_FRAMES, end.div_ceil(BLOCK_FRAMES));
    let filled = (start.div_ceil(BLOCK_FRAMES), end / BLOCK_FRAMES);
    let pair = |(first, end): (u64, u64)| (first as usize, end.max(first) as usize);
    (pair(touched), pair(filled))
}

/// The giants that `ranges` (ascending, disjoint) touch, ascending.
pub fn giants(ranges: impl Iterator<Item = FrameRange> + Clone) -> impl Iterator<Item = GiantInfo> {
    let mut pieces = pieces(ranges).peekable();
    let mut leaves = 0usize;
    core::iter::from_fn(move || {
        let &(number, frames) = pieces.peek()?;
        let first = touched_and_filled(frames).0.0;
        let mut info = GiantInfo { number, first_leaf: 0, hull: (first, 0), full: [0; NODE_WORDS] };
        while let Some((_, frames)) = pieces.next_if(|(giant, _)| *giant == number) {
            let (touched, filled) = touched_and_filled(frames);
            info.hull.1 = touched.1;
            if frames.len() == GIANT_FRAMES {
                info.full = [FULL; NODE_WORDS];
            } else {
                set_bits(&mut info.full, filled);
            }
        }
        info.first_leaf = leaves.wrapping_sub(info.hull.0);
        leaves += info.leaves();
        Some(info)
    })
}

fn set_bits(words: &mut [u64; NODE_WORDS], (start, end): (usize, usize)) {
    for (index, word) in words.iter_mut().enumerate() {
        *word |= mask_between(start, end, index * WORD_BITS as usize);
    }
}

/// The bits of the word whose first bit is number `base` that lie in `start..end`.
pub fn mask_between(start: usize, end: usize, base: usize) -> u64 {
    let from = start.max(base);
    let to = end.min(base + WORD_BITS as usize);
    if from < to { mask((from - base) as u32, (to - from) as u32) } else { 0 }
}

/// The spans that giants with these numbers form.
pub fn spans(numbers: impl Iterator<Item = u64>) -> impl Iterator<Item = Span> {
    let mut numbers = numbers.enumerate().peekable();
    core::iter::from_fn(move || {
        let (index, first) = numbers.next()?;
        let mut span = Span { first, count: 1, index };
        while numbers.next_if(|(_, next)| *next == span.first + span.count).is_some() {
            span.count += 1;
        }
        Some(span)
    })
}

/// How large a directory is, and how many leaves it leads to.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Size {
    pub giants: usize,
    pub spans: usize,
    pub ranges: usize,
    pub leaves: usize,
    /// Managed frames.
    pub frames: u64,
}

impl Size {
    /// The size for these ranges (ascending, disjoint): one pass over their GiBs.
    pub fn of(ranges: impl Iterator<Item = FrameRange> + Clone) -> Self {
        let frames = ranges.clone().map(FrameRange::len).sum();
        let mut size = Self { ranges: ranges.clone().count(), frames, ..Self::default() };
        let numbers = giants(ranges).map(|giant| {
            size.giants += 1;
            size.leaves += giant.leaves();
            giant.number
        });
        let spans = spans(numbers).count();
        Self { spans, ..size }
    }
}

impl GiantInfo {
    /// How many leaves it has.
    pub const fn leaves(&self) -> usize {
        self.hull.1 - self.hull.0
    }

    /// Which GiB of the physical address space it is.
    pub const fn number(&self) -> u64 {
        self.number
    }

    /// The first of its blocks with managed frames, and the one behind the last.
    pub const fn hull(&self) -> (usize, usize) {
        self.hull
    }

    /// Whether all of its frames are managed.
    pub fn is_full(&self) -> bool {
        self.full.iter().all(|word| *word == FULL)
    }

    /// Whether all frames of a block are managed.
    #[inline]
    pub const fn is_block_full(&self, index: usize) -> bool {
        self.full[index / WORD_BITS as usize] >> (index as u64 % WORD_BITS) & 1 != 0
    }
}

impl<'m> Directory<'m> {
    /// Writes the directory of these ranges (ascending, disjoint) into the arena.
    ///
    /// # Panics
    /// If there are fewer giants or ranges than counted.
    pub fn new(
        arena: &mut Arena<'m>,
        size: Size,
        ranges: impl Iterator<Item = FrameRange> + Clone,
    ) -> Self {
        let info = arena.deal_all(size.giants, giants(ranges.clone()));
        let spans = spans(info.iter().map(GiantInfo::number));
        let spans = arena.deal_all(size.spans, spans);
        Self { spans, info, ranges: arena.deal_all(size.ranges, ranges) }
    }

    /// What never changes about the giant at `index`.
    #[inline]
    pub fn giant(&self, index: usize) -> &GiantInfo {
        &self.info[index]
    }

    /// Where a group's bits lie, or would lie; `None` if its giant has no managed frame.
    #[inline]
    pub fn locate(&self, group: Group) -> Option<Place> {
        let first = group.number() * WORD_BITS;
        let number = first / GIANT_FRAMES;
        let span = match self.spans {
            // The last span has most of the memory of most machines.
            [.., last] if last.first <= number => last,
            spans => Self::span_below(spans, number)?,
        };
        let offset = number - span.first;
        if offset >= span.count {
            return None;
        }
        Some(Place::of(group, span.index + offset as usize))
    }

    /// The last span that starts at or below giant `number`.
    #[inline(never)]
    fn span_below(spans: &[Span], number: u64) -> Option<&Span> {
        let behind = spans.partition_point(|span| span.first <= number);
        spans.get(behind.checked_sub(1)?)
    }

    /// The managed frames of a group, one bit each.
    #[inline]
    pub fn managed(&self, group: Group, block: Block) -> u64 {
        if self.info[block.giant].is_block_full(block.index) {
            FULL
        } else {
            self.managed_at_an_edge(group)
        }
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

    /// The leaf of a block that has managed frames.
    #[inline]
    pub fn leaf(&self, block: Block) -> usize {
        self.info[block.giant].first_leaf.wrapping_add(block.index)
    }

    /// A block's first frame.
    #[inline]
    pub fn first_frame(&self, block: Block) -> FrameNumber {
        let giant = self.info[block.giant].number;
        FrameNumber::trusted(giant * GIANT_FRAMES + block.index as u64 * BLOCK_FRAMES)
    }

    /// A block's group number `word`.
    #[inline]
    pub fn group(&self, block: Block, word: usize) -> Group {
        Group::new(self.first_frame(block).get() / WORD_BITS + word as u64)
    }

    /// How many frames of a block are managed.
    pub fn managed_frames(&self, block: Block) -> u64 {
        (0..NODE_WORDS)
            .map(|word| self.managed(self.group(block, word), block).count_ones() as u64)
            .sum()
    }
}
