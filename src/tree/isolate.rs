//! Shrinking: frames that are not to be handed out any more, and then are gone.
//!
//! 1. The range is put on record, and then in force ([`crate::isolation`]). From then on its
//!    blocks are no longer known as managed in full, so that caches do not keep its frames
//!    ([`FrameTree::open_to_cache`]).
//! 2. Whoever takes frames looks at the record after the read-modify-write that took them, and
//!    sets those aside that are isolated, as a guest. Frees go on as always: they cost nothing
//!    more.
//! 3. Whoever isolates takes what is free of the range out of the tree, now and again, until
//!    nothing of it is in use.
//! 4. Who goes that way sets aside frames that are in its hands, and nothing else. So when nothing
//!    is in use, no guest is about to set anything aside, and the range can go off line; if it is
//!    readmitted, the last guest brings back what the others have set aside since.
//!
//! A frame that was set aside is *gone*: one bit says so, in a frame of metadata for each 128 MiB
//! that anything was ever isolated in ([`crate::root::Gone`]). A free of one is refused, as of one
//! that was never managed. In the journals it counts as taken, by who has set it aside: so the
//! budget ([`crate::budget`]) knows at once that a frame which came free is not to be had.
//!
//! (To record it without metadata, as "known to be zero, but not free",
//! was tried and given up: for a moment a frame looks so that is just being taken or freed, and
//! would be taken for gone while it has an owner.)
//!
//! The words are those of Linux's memory hotplug: isolate, offline.

use core::fmt;

use super::FrameTree;
use super::free::put_frames;
use super::levels::{split_block, split_giant, take_zeroes};
use super::search::Refill;
use crate::arena::Arena;
use crate::cache::Handful;
use crate::directory::{Block, Group, Place};
use crate::error::Found;
use crate::frame::{FrameNumber, FrameRange, NumberRange};
use crate::geometry::{BLOCK_FRAMES, FRAME_LIMIT, FRAME_SIZE, FULL, NODE_WORDS, WORD_BITS};
use crate::isolation::{ISOLATIONS, Refused};
use crate::journal::{Counter, Writer};
use crate::node::{mask_between, take_any};
use crate::request::Request;
use crate::root::Gone;
use crate::sync::{Ordering, full_fence, rmw_fence};

/// A range of frames on their way out; see [`FramePool::isolate`](crate::FramePool::isolate).
///
/// Not to be dropped: then the range stays isolated, and its place taken.
///
/// # Examples
/// ```
/// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs")); }
/// # use frametree::*;
/// let pool = example::pool(Setup::new(1));
/// let range = NumberRange::from_numbers(512, 1024);
/// // SAFETY: metadata has memory of its own.
/// let isolation: Isolation = unsafe { pool.isolate(range, example::mapped) }?;
/// assert_eq!(isolation.range(), range);
/// println!("{:?}", pool.in_use(&isolation));
/// pool.readmit(isolation); // it stays after all
/// let stats = pool.stats();
/// assert_eq!(stats.free_frames, stats.managed_frames - 1); // one has become metadata
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "end it with `offline` or `readmit`"]
#[derive(Debug)]
pub struct Isolation {
    range: NumberRange,
    place: usize,
}

impl Isolation {
    /// The frames.
    ///
    /// # Examples
    /// A kernel that takes several modules of memory away at a time, and says how far it is:
    ///
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs")); }
    /// # use frametree::*;
    /// let pool = example::pool(Setup::new(1));
    /// let mut leaving = Vec::new();
    /// for (start, end) in [(512, 1024), (1536, 2048)] {
    ///     let module = NumberRange::from_numbers(start, end);
    ///     // SAFETY: metadata has memory of its own.
    ///     leaving.push(unsafe { pool.isolate(module, example::mapped) }?);
    /// }
    /// for isolation in &leaving {
    ///     println!("{:?}: {} left", isolation.range(), pool.in_use(isolation).frames);
    /// }
    /// # assert_eq!(leaving[1].range().len(), 512);
    /// # leaving.into_iter().for_each(|isolation| pool.readmit(isolation));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn range(&self) -> NumberRange {
        self.range
    }
}

/// What of an isolated range is still in use.
///
/// # Examples
/// How far a module of memory is from being pulled out:
///
/// ```
/// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs")); }
/// # use frametree::*;
/// let pool = example::pool(Setup::new(1));
/// let page = pool.alloc_run(&Request::new(1).at(FrameNumber::new(600)))?;
/// let module = NumberRange::from_numbers(512, 1024);
/// // SAFETY: metadata has memory of its own.
/// let isolation = unsafe { pool.isolate(module, example::mapped) }?;
/// let InUse { frames, first } = pool.in_use(&isolation);
/// assert_eq!((frames, first), (1, Some(FrameNumber::new(600)))); // whose owner has to move
/// # pool.free_run(page)?;
/// # pool.readmit(isolation);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InUse {
    /// How many frames; those in page caches are among them.
    pub frames: u64,
    /// The lowest of them.
    pub first: Option<FrameNumber>,
}

/// Why a range could not be isolated, or a frame not be retired; nothing has changed then.
///
/// # Examples
/// ```
/// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs")); }
/// # use frametree::*;
/// let pool = example::pool(Setup::new(1));
/// let module = NumberRange::from_numbers(1024, 4096); // it is said to begin there
/// // SAFETY: metadata has memory of its own.
/// match unsafe { pool.isolate(module, example::mapped) } {
///     Err(IsolateError::Unmanaged { frame }) => assert_eq!(frame.get(), 2048), // but ends before
///     other => panic!("{other:?}"),
/// }
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum IsolateError {
    /// The pool is not initialised yet.
    NotInitialised,
    /// A range of no frames.
    Empty,
    /// A frame of it is not managed, or gone already.
    Unmanaged {
        /// The lowest such frame.
        frame: FrameNumber,
    },
    /// A frame that is free can't be somebody's to retire.
    Free {
        /// The frame.
        frame: FrameNumber,
    },
    /// Some of the frames are isolated already.
    Overlap {
        /// A stretch of them.
        isolated: NumberRange,
    },
    /// As many ranges are isolated as can be at a time.
    TooMany {
        /// How many that is.
        limit: usize,
    },
    /// There is no free frame outside the range for the metadata: one is needed for each 128 MiB
    /// in which nothing was isolated before.
    NoMetadata,
    /// The kernel's mapping gave a pointer that is not aligned to 128.
    Misaligned {
        /// The address.
        address: usize,
    },
}

impl fmt::Display for IsolateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotInitialised => f.write_str("the pool is not initialised; call `init` first"),
            Self::Empty => f.write_str("a range of 0 frames can't be isolated"),
            Self::Unmanaged { frame } => write!(f, "{frame} is not managed here, or gone already"),
            Self::Free { frame } => write!(f, "{frame} is free: isolate it instead"),
            Self::Overlap { isolated } => write!(f, "{isolated:?} is isolated already"),
            Self::TooMany { limit } => {
                write!(f, "{limit} ranges are isolated, and no more can be: end one first")
            }
            Self::NoMetadata => f.write_str("no frame is free outside the range for the metadata"),
            Self::Misaligned { address } => {
                write!(f, "the metadata is mapped at {address:#x}, not at a multiple of 128")
            }
        }
    }
}

impl core::error::Error for IsolateError {}

impl<'m> FrameTree<'m> {
    /// Isolates a range, and sets aside what is free of it. `arena` makes metadata of a frame.
    pub(crate) fn isolate(
        &self,
        range: NumberRange,
        arena: impl Fn(FrameNumber) -> Result<Arena<'m>, IsolateError>,
    ) -> Result<Isolation, IsolateError> {
        let isolations = &self.directory.isolations;
        if range.is_empty() {
            return Err(IsolateError::Empty);
        }
        let place = self.record(range, arena)?;
        isolations.enforce(place);
        self.blocks_of(range).for_each(|block| self.directory.open_up(block));
        full_fence();
        self.set_aside(range);
        Ok(Isolation { range, place })
    }

    /// Puts a range on record, and makes places for the bits of what will be gone.
    fn record(
        &self,
        range: NumberRange,
        arena: impl Fn(FrameNumber) -> Result<Arena<'m>, IsolateError>,
    ) -> Result<usize, IsolateError> {
        let isolations = &self.directory.isolations;
        let place = isolations.claim(range).map_err(|refused| match refused {
            Refused::Overlap(isolated) => IsolateError::Overlap { isolated },
            Refused::TooMany => IsolateError::TooMany { limit: ISOLATIONS },
        })?;
        // Looked for afterwards: nobody else makes frames of the range gone from here on.
        let prepared = match self.first_unmanaged(range) {
            Some(frame) => Err(IsolateError::Unmanaged { frame }),
            None => self.prepare(range, arena),
        };
        prepared.inspect_err(|_| isolations.vacate(place)).map(|()| place)
    }

    /// Sets aside what has become free of an isolated range, and says what is left.
    pub(crate) fn in_use(&self, isolation: &Isolation) -> InUse {
        self.set_aside(isolation.range);
        let mut in_use = InUse { frames: 0, first: None };
        for (block, word, mask) in self.words_of(isolation.range) {
            let left = mask & !block.gone(word);
            if left != 0 && in_use.first.is_none() {
                in_use.first = Some(block.group(word).frame(left.trailing_zeros()));
            }
            in_use.frames += u64::from(left.count_ones());
        }
        in_use
    }

    /// Ends an isolation of which nothing is in use: the frames are gone for good.
    pub(crate) fn offline(&self, isolation: Isolation) -> Result<NumberRange, Isolation> {
        if self.in_use(&isolation).frames > 0 {
            return Err(isolation);
        }
        // ORDERING: a statistic.
        self.gone.fetch_add(isolation.range.len(), Ordering::Relaxed);
        self.directory.isolations.close(isolation.place);
        self.leave(isolation.place);
        Ok(isolation.range)
    }

    /// Ends an isolation, and frees what it has set aside.
    pub(crate) fn readmit(&self, isolation: Isolation) {
        let is_alone = self.directory.isolations.readmit(isolation.place);
        // The last guest does so too, but it may be long in coming.
        if !is_alone {
            self.put_back(isolation.range, |_| FULL);
        }
        self.leave(isolation.place);
    }

    /// Leaves an isolation as a guest; the last one frees what is still set aside.
    fn leave(&self, place: usize) {
        let isolations = &self.directory.isolations;
        if let Some(range) = isolations.leave(place) {
            self.put_back(range, |_| FULL);
            isolations.vacate(place);
            self.fill(range);
        }
    }

    /// Frees those frames of a range that are gone, but not those of isolations; returns how many
    /// there were.
    pub(crate) fn bring_back(&self, range: NumberRange) -> u64 {
        let back = self.put_back(range, |base| !self.directory.isolations.recorded(base));
        // ORDERING: a statistic.
        self.gone.fetch_sub(back, Ordering::Relaxed);
        self.fill(range);
        back
    }

    /// Says of the blocks of a range that they are managed in full, where they are by now.
    fn fill(&self, range: NumberRange) {
        self.blocks_of(range).for_each(|block| self.directory.fill(block));
    }

    /// The same of the two blocks at the ends of a range that has just been added.
    pub(super) fn fill_ends(&self, range: NumberRange) {
        let (start, end) = (range.start().get(), range.end().get());
        self.fill(between(start, start + 1));
        self.fill(between(end - 1, end));
    }

    /// After the blocks of a range that is being added were said to be managed in full, and before
    /// any of it is free: somebody may have begun to isolate some.
    pub(super) fn open_up_isolated(&self, range: NumberRange) {
        full_fence();
        if !self.directory.isolations.is_empty() {
            let open = self.blocks_of(range).filter(|block| !self.directory.is_filled(*block));
            open.for_each(|block| self.directory.open_up(block));
        }
    }

    /// Frees those frames of a range that are gone or set aside, and of these what `which` names of
    /// the 64 from a frame on.
    fn put_back(&self, range: NumberRange, which: impl Fn(FrameNumber) -> u64) -> u64 {
        let writer = self.shared_writer();
        let mut frames = 0;
        for (block, word, mask) in self.words_of(range) {
            let step = writer.begin();
            let mask = mask & which(block.group(word).first_frame());
            let Some(gone) = block.giant.gone(block.index).load() else { continue };
            // ORDERING: whoever clears a bit has the frame; Acquire pairs with the setting.
            let back = gone.word(block.index, word).fetch_and(!mask, Ordering::AcqRel) & mask;
            if back != 0 {
                put_frames(&step, self.place_of(block, word), back);
            }
            frames += u64::from(back.count_ones());
        }
        writer.add(Counter::Returned, frames);
        frames
    }

    /// Sets a frame aside that the caller has.
    pub(crate) fn retire(
        &self,
        frame: FrameNumber,
        arena: impl Fn(FrameNumber) -> Result<Arena<'m>, IsolateError>,
    ) -> Result<(), IsolateError> {
        // The number behind the last frame may stand for one; there is none behind that.
        let end = FrameNumber::trusted((frame.get() + 1).min(FRAME_LIMIT));
        let range = NumberRange::trusted(frame, end);
        if range.is_empty() || self.first_unmanaged(range).is_some() {
            return Err(IsolateError::Unmanaged { frame });
        }
        if self.check_run(range).is_err() {
            return Err(IsolateError::Free { frame });
        }
        let place = self.record(range, arena)?;
        for (block, word, bit) in self.words_of(range) {
            self.directory.open_up(block);
            mark_gone(block, word, bit);
            // Somebody who has found nothing isolated near it may have said so just now. He looks
            // again behind a fence, and sees the mark, or is seen here.
            full_fence();
            self.directory.open_up(block);
        }
        // ORDERING: a statistic.
        self.gone.fetch_add(1, Ordering::Relaxed);
        self.directory.isolations.vacate(place);
        Ok(())
    }

    /// What a cache may keep of a group: its managed frames, without those that are isolated.
    ///
    /// # Errors
    /// What was found instead, if there are none.
    #[inline(always)]
    pub(crate) fn open_to_cache(&self, group: Group) -> Result<super::Opening<'m>, Found> {
        let place = self.directory.locate(group).ok_or(Found::Unmanaged)?;
        let managed = self.directory.cacheable(group, place.block());
        if managed == 0 { Err(Found::Unmanaged) } else { Ok(super::Opening { place, managed }) }
    }

    /// Keeps what was just taken from one word to what may be handed out; `None` if that is
    /// nothing. One load while nothing is isolated.
    #[inline(always)]
    pub(super) fn admit(&self, writer: Writer<'_>, refill: Refill<'m>) -> Option<Refill<'m>> {
        rmw_fence();
        if self.directory.isolations.is_empty() { Some(refill) } else { self.sift(writer, refill) }
    }

    #[cold]
    #[inline(never)]
    fn sift(&self, writer: Writer<'_>, Refill { cache, block }: Refill<'m>) -> Option<Refill<'m>> {
        let base = cache.base();
        let group = Group::of(base);
        let mut free = cache.free();
        self.as_guest(between(base.get(), base.get() + WORD_BITS), |part| {
            let isolated = free & mask_in(group, part);
            let_go(writer, block, group.word(), isolated);
            free &= !isolated;
        });
        let cache = Handful::owned(base, free, cache.known_zero() & free);
        (free != 0).then_some(Refill { cache, block })
    }

    /// Whether frames that were just taken as a whole may be handed out; if not, what is isolated
    /// of them has been set aside, and the others are back.
    #[inline(always)]
    pub(super) fn admits(&self, writer: Writer<'_>, taken: NumberRange) -> bool {
        rmw_fence();
        self.directory.isolations.is_empty() || self.admits_all(writer, taken)
    }

    #[cold]
    #[inline(never)]
    fn admits_all(&self, writer: Writer<'_>, taken: NumberRange) -> bool {
        let step = writer.begin();
        let (start, end) = (taken.start().get(), taken.end().get());
        let mut at = start;
        self.as_guest(taken, |part| {
            // They are this CPU's: nothing overlaps.
            let _ = self.put_run(&step, between(at, part.start().get()));
            self.words_of(part).for_each(|(block, word, mask)| let_go(writer, block, word, mask));
            at = part.end().get();
        });
        if at == start {
            return true;
        }
        let _ = self.put_run(&step, between(at, end));
        false
    }

    /// Shows the isolated parts of frames that the caller has taken, ascending, each to be set
    /// aside while it is a guest there.
    fn as_guest(&self, taken: NumberRange, mut set_aside: impl FnMut(NumberRange)) {
        let mut rest = taken;
        while let Some((place, part)) = self.directory.isolations.enter(rest) {
            set_aside(part);
            self.leave(place);
            rest = between(part.end().get(), rest.end().get());
        }
    }

    /// Takes what is free of an isolated range out of the tree. The caller has isolated it.
    #[cold]
    fn set_aside(&self, range: NumberRange) {
        let writer = self.shared_writer();
        for block in self.blocks_of(range) {
            let first = block.first_frame().get();
            let inside =
                |frame: FrameNumber| frame.get().clamp(first, first + BLOCK_FRAMES) - first;
            let kept = inside(range.start()) as usize..inside(range.end()) as usize;
            let _step = writer.begin();
            if block.giant.is_free() {
                split_giant(writer, block.giant);
            }
            let Some(nodes) = block.giant.in_use() else { continue };
            let masks = (0..NODE_WORDS)
                .map(|word| (word, mask_between(kept.start, kept.end, word * WORD_BITS as usize)));
            // ORDERING: a look; `split_block` claims. What is missed is set aside the next time.
            if nodes.blocks.is_set(block.index, Ordering::Relaxed)
                && split_block(writer, block, kept.clone())
            {
                masks.for_each(|(word, mask)| let_go(writer, block, word, mask));
                continue;
            }
            // ORDERING: Acquire pairs with the Release in `write_leaf`, as in a search.
            if nodes.ready.is_set(block.index, Ordering::Acquire) {
                for (word, mask) in masks {
                    let_go(writer, block, word, take_any(block.leaf().word(word), mask));
                }
            }
        }
    }

    /// Makes places for the bits of what will be gone, in frames outside the range.
    fn prepare(
        &self,
        range: NumberRange,
        arena: impl Fn(FrameNumber) -> Result<Arena<'m>, IsolateError>,
    ) -> Result<(), IsolateError> {
        for block in self.blocks_of(range) {
            let link = block.giant.gone(block.index);
            if link.load().is_some() {
                continue;
            }
            let frame = self.frame_outside(range).ok_or(IsolateError::NoMetadata)?;
            let gone =
                arena(frame.numbers().start()).map(|mut arena| arena.deal_part(1).put(Gone::new()));
            match gone {
                Ok(gone) if core::ptr::eq(link.settle(gone), gone) => {
                    // It is metadata from now on.
                    let _ = frame.into_numbers();
                }
                unused => {
                    // Taken just now, and nobody else knows it: it can go back.
                    let _ = self.free_run(frame);
                    unused?;
                }
            }
        }
        Ok(())
    }

    /// A frame outside of a range, low memory last: the lowest, so that those that become metadata
    /// lie together. They stay in use for ever.
    fn frame_outside(&self, range: NumberRange) -> Option<FrameRange> {
        let [start, end] = [range.start(), range.end()].map(FrameNumber::start_address);
        let low_end = self.low_end * FRAME_SIZE;
        let one = Request::new(1);
        let wanted = [
            one.above(low_end).below(start),
            one.above(end.max(low_end)),
            one.below(start),
            one.above(end),
        ];
        wanted.iter().find_map(|request| self.alloc_run(request).ok())
    }

    /// The lowest frame of a range that is not managed, or gone.
    fn first_unmanaged(&self, range: NumberRange) -> Option<FrameNumber> {
        let mut at = range.start().get();
        let end = range.end().get();
        while at < end {
            let group = Group::of(FrameNumber::trusted(at));
            let first = group.first_frame().get();
            let wanted = mask_between(at as usize, end as usize, first as usize);
            let managed = self.open(group).map_or(0, |opening| opening.managed);
            if wanted & !managed != 0 {
                return Some(group.frame((wanted & !managed).trailing_zeros()));
            }
            at = first + WORD_BITS;
        }
        None
    }

    /// The blocks that a managed range touches.
    fn blocks_of(&self, range: NumberRange) -> impl Iterator<Item = Block<'m>> + '_ {
        let (first, end) = (range.start().get() / BLOCK_FRAMES, range.end().get());
        (first..end.div_ceil(BLOCK_FRAMES)).filter_map(|block| {
            let group = Group::of(FrameNumber::trusted(block * BLOCK_FRAMES));
            let giant = self.directory.giant(group.giant())?;
            Some(Block { giant, index: group.block() })
        })
    }

    /// The words that a managed range touches, each with the frames of it.
    fn words_of(&self, range: NumberRange) -> impl Iterator<Item = (Block<'m>, usize, u64)> + '_ {
        let words = |block: Block<'m>| (0..NODE_WORDS).map(move |word| (block, word));
        self.blocks_of(range).flat_map(words).filter_map(move |(block, word)| {
            let mask = mask_in(block.group(word), range);
            (mask != 0).then_some((block, word, mask))
        })
    }

    fn place_of(&self, block: Block<'m>, word: usize) -> Place<'m> {
        Place { group: block.group(word), giant: block.giant, leaf: block.leaf().word(word) }
    }
}

/// Sets frames aside that this writer has taken, which has not counted them as such.
fn let_go(writer: Writer<'_>, block: Block<'_>, word: usize, frames: u64) {
    if frames != 0 {
        mark_gone(block, word, frames);
        writer.add(Counter::Taken, u64::from(frames.count_ones()));
    }
}

/// Makes frames gone that the caller has taken.
pub fn mark_gone(block: Block<'_>, word: usize, frames: u64) {
    if let Some(gone) = block.giant.gone(block.index).load() {
        take_zeroes(block, word, frames);
        // ORDERING: Release carries the block's opening up, and what was done to the frames,
        // to whoever finds them gone.
        gone.word(block.index, word).fetch_or(frames, Ordering::Release);
    }
}

/// Frames from one number up to another.
fn between(start: u64, end: u64) -> NumberRange {
    let [start, end] = [start, end].map(FrameNumber::trusted);
    NumberRange::trusted(start, end)
}

/// Which frames of a group lie in a range.
fn mask_in(group: Group, range: NumberRange) -> u64 {
    let (start, end) = (range.start().get() as usize, range.end().get() as usize);
    mask_between(start, end, group.first_frame().get() as usize)
}

#[cfg(all(test, not(loom)))]
#[allow(unsafe_code, reason = "memory that is not real")]
mod tests {
    extern crate std;

    use std::vec;

    use super::*;
    use crate::counts::Cpu;
    use crate::pool::FramePool;

    #[cfg(feature = "hardened")]
    impl FrameTree<'_> {
        /// As somebody who has written over the metadata.
        pub(crate) fn forget_full(&self, frame: FrameNumber) {
            let mut blocks = self.blocks_of(between(frame.get(), frame.get() + 1));
            self.directory.open_up(blocks.next().expect("a block"));
        }
    }

    fn isolate(pool: &FramePool<Cpu>, start: u64, end: u64) -> Isolation {
        let memory = vec![[7_u8; 128]; 64].leak().as_mut_ptr().cast::<u8>();
        let memory = memory.wrapping_add(memory.align_offset(128));
        // SAFETY: memory of its own, for one frame.
        unsafe { pool.isolate(between(start, end), |_| memory) }.expect("managed memory")
    }

    /// A guest of the first isolation marks a frame when that is over, and brings it back when the
    /// second, of the same block, is over too: only then is the block as it was at first.
    fn the_last_guest_comes_late(pool: &FramePool<Cpu>) {
        let tree = pool.tree().expect("a tree");
        let (start, writer) = (2 * BLOCK_FRAMES, tree.shared_writer());
        let number = FrameNumber::trusted(start);
        tree.claim(writer, between(start, start + 1)).expect("a free frame");
        let first = isolate(pool, start, start + 1);
        let second = isolate(pool, start + 2, start + 3);
        // It comes free, and a taker gets it, which looks now at what is isolated.
        tree.free_with(writer, number).expect("the frame's owner");
        let (block, word, bit) = tree.words_of(between(start, start + 1)).next().expect("one");
        take_any(block.leaf().word(word), bit);
        let isolations = &tree.directory.isolations;
        let (place, _) = isolations.enter(between(start, start + 1)).expect("a guest");
        pool.readmit(first);
        let_go(writer, block, word, bit);
        pool.readmit(second);
        assert!(!block.is_full(), "a frame of it is gone");
        assert_eq!(pool.verify(), Ok(()));
        tree.leave(place);
        assert!(block.is_full(), "all of it is back");
        assert_eq!(pool.verify(), Ok(()));
        // Said of a block of which some is gone, it is noticed.
        let _gone = pool.offline(isolate(pool, start, start + 1)).expect("nothing is in use");
        let (word, mask) = block.giant.full.at(block.index);
        word.fetch_or(mask, Ordering::Relaxed);
        assert_eq!(pool.verify(), Err(crate::tree::Broken::NotFilled(number)));
    }

    #[test]
    fn the_last_guest_says_that_a_block_is_full_again() {
        the_last_guest_comes_late(crate::counts::pool(8 * BLOCK_FRAMES));
    }

    #[test]
    #[cfg(feature = "hardened")]
    fn and_the_seal_of_a_hardened_pool_fits() {
        the_last_guest_comes_late(crate::hardened::tests::pool());
    }
}
