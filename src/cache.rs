//! The page cache: up to 64 free frames of one aligned 64-frame group, as two words.
//!
//! It is Go's `pageCache` (`runtime/mpagecache.go`), with its answers: the lowest frame first,
//! the lowest run that is long enough, and beside each free frame whether its contents are known
//! to be zero (Go's `scav`). It knows no atomics and no tree; moving it moves the right to
//! its frames. Inside the allocator they travel as plain data ([`Handful`]), outside with an owner.

use crate::bits::{extract, lowest_run, mask, runs};
use crate::frame::{Frame, FrameNumber, FrameRange, NumberRange, lose};
use crate::geometry::{FRAME_LIMIT, WORD_BITS};

/// Up to 64 free frames of one aligned group; their owner.
///
/// Dropping it with frames in it loses these, as dropping a [`Frame`] does; and
/// [`lost_frames`](crate::lost_frames) counts them.
///
/// # Examples
/// ```
/// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs")); }
/// # use frametree::*;
/// let pool = example::pool(Setup::new(1));
/// let tree = pool.tree().expect("a pool in use"); // without a CPU's identity
/// let mut cache: PageCache = tree.refill()?;
/// assert_eq!(cache.free().count_ones(), 64);
/// let run = cache.alloc_n(3).expect("three in a row").frames;
/// assert_eq!((run.len(), cache.free().count_ones()), (3, 61));
/// tree.flush(&mut cache)?;
/// pool.free_run(run)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "frames in a cache that is dropped are lost; flush it"]
#[derive(PartialEq, Eq, Debug)]
pub struct PageCache(Handful);

/// What is in a page cache, on its way inside the allocator: dropping it is nothing.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Handful {
    base: FrameNumber,
    free: u64,
    known_zero: u64,
}

/// A frame, and what is known of its contents.
#[derive(Debug)]
pub(crate) struct Known {
    pub frame: Frame,
    pub contents: Contents,
}

/// What is known of a frame's contents.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Contents {
    /// They are zero.
    Zero,
    /// Nothing.
    Unknown,
}

impl Known {
    /// The frame, after its contents have been cleared if they may not be zero.
    #[inline]
    pub fn cleared(self, clear: impl FnOnce(&Frame)) -> Frame {
        if self.contents == Contents::Unknown {
            clear(&self.frame);
        }
        self.frame
    }
}

/// What a page cache gave.
///
/// # Examples
/// Only what may hold something has to be cleared:
///
/// ```
/// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/tree.rs")); }
/// # use frametree::*;
/// let tree = example::tree();
/// let mut cache = tree.refill()?;
/// let CachedRun { frames, known_zero } = cache.alloc_n(4).expect("four in a row");
/// for index in (0..4).filter(|index| known_zero >> index & 1 == 0) {
///     clear(frames.start_address() + index * FRAME_SIZE);
/// }
/// # fn clear(_: u64) {}
/// # tree.flush(&mut cache)?;
/// # tree.free_run(frames)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(PartialEq, Eq, Debug)]
pub struct CachedRun {
    /// The frames; their owner.
    pub frames: FrameRange,
    /// Which of them are known to hold zeros: bit `i` for the `i`-th frame.
    pub known_zero: u64,
}

impl PageCache {
    /// A cache that holds nothing.
    ///
    /// # Examples
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/tree.rs")); }
    /// # use frametree::*;
    /// let tree = example::tree();
    /// let mut cache = PageCache::EMPTY; // as a thread that fills page tables begins
    /// assert!(cache.alloc().is_none());
    /// cache = tree.refill()?;
    /// assert!(cache.alloc_n(64).is_some());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub const EMPTY: Self = Self(Handful::EMPTY);

    /// A cache of the frames `base + i` for each set bit `i` of `free`; those with a bit in
    /// `known_zero` too are known to hold zeros.
    ///
    /// # Safety
    /// Invents the ownership of these frames: nobody else may own them. Those with a bit in
    /// `known_zero` must hold zeros: they come back as such.
    ///
    /// # Panics
    /// If `base` is no multiple of 64 or is 2^40, or `known_zero` has a bit that `free` has not.
    ///
    /// # Examples
    /// ```
    /// use frametree::{FrameNumber, PageCache};
    ///
    /// // SAFETY: the loader has left these three frames to the kernel, and cleared the first.
    /// let mut boot = unsafe { PageCache::from_parts(FrameNumber::new(0x1c0), 0b111, 0b001) };
    /// let first = boot.alloc().expect("a frame for the first page table");
    /// assert_eq!((first.frames.start_address(), first.known_zero), (0x1c_0000, 1));
    /// # let _ = (first.frames.into_numbers(), boot.into_parts());
    /// ```
    pub const unsafe fn from_parts(base: FrameNumber, free: u64, known_zero: u64) -> Self {
        assert!(base.get().is_multiple_of(WORD_BITS), "a page cache at an unaligned frame");
        assert!(base.get() < FRAME_LIMIT, "a page cache above the last frame");
        assert!(known_zero & !free == 0, "a frame is known to be zero but not free");
        Self(Handful { base, free, known_zero })
    }

    /// Gives the ownership up and keeps the names: [`base`](Self::base), [`free`](Self::free) and
    /// [`known_zero`](Self::known_zero). [`PageCache::from_parts`] is the way back.
    ///
    /// # Examples
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/tree.rs")); }
    /// # use frametree::*;
    /// let tree = example::tree();
    /// let cache = tree.refill()?;
    /// let (base, free, known_zero) = cache.into_parts(); // for a structure of plain words
    /// // SAFETY: `into_parts` has given up just these frames.
    /// let mut cache = unsafe { PageCache::from_parts(base, free, known_zero) };
    /// tree.flush(&mut cache)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn into_parts(mut self) -> (FrameNumber, u64, u64) {
        let Handful { base, free, known_zero } = self.take();
        (base, free, known_zero)
    }

    /// The first frame of its group.
    ///
    /// # Examples
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/tree.rs")); }
    /// # use frametree::*;
    /// let tree = example::tree();
    /// let mut cache = tree.refill()?;
    /// let group = cache.base().start_address(); // 256 KiB, all of whose free frames are in here
    /// assert_eq!((group % (256 << 10), cache.free()), (0, u64::MAX));
    /// # tree.flush(&mut cache)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    #[must_use]
    pub const fn base(&self) -> FrameNumber {
        self.0.base
    }

    /// Its frames: bit `i` for frame `base + i`.
    ///
    /// # Examples
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/tree.rs")); }
    /// # use frametree::*;
    /// let tree = example::tree();
    /// let frame = tree.alloc()?; // number 0, so the group has 63 left
    /// let mut cache = tree.refill()?;
    /// assert_eq!(cache.free(), !1);
    /// # tree.flush(&mut cache)?;
    /// # tree.free(frame)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    #[must_use]
    pub const fn free(&self) -> u64 {
        self.0.free
    }

    /// Those that are known to hold zeros.
    ///
    /// # Examples
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/tree.rs")); }
    /// # use frametree::*;
    /// let tree = example::tree();
    /// let frame = tree.alloc_zeroed(|_frame| { /* a kernel clears it here */ })?;
    /// // SAFETY: nobody has written to it since.
    /// unsafe { tree.free_zeroed(frame) }?;
    /// let mut cache = tree.refill()?;
    /// let dirty = cache.free() & !cache.known_zero(); // what an idle CPU can clear ahead
    /// assert_eq!(dirty, !1);
    /// # tree.flush(&mut cache)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    #[must_use]
    pub const fn known_zero(&self) -> u64 {
        self.0.known_zero
    }

    /// Whether it holds nothing.
    ///
    /// # Examples
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/tree.rs")); }
    /// # use frametree::*;
    /// let tree = example::tree();
    /// let (mut cache, mut table) = (PageCache::EMPTY, Vec::new());
    /// while table.len() < 100 {
    ///     if cache.is_empty() {
    ///         cache = tree.refill()?;
    ///     }
    ///     table.extend(cache.alloc().map(|run| run.frames));
    /// }
    /// tree.flush(&mut cache)?; // what is left of the second group
    /// # table.into_iter().try_for_each(|run| tree.free_run(run))?;
    /// # assert_eq!(tree.free_frames(), 2048);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes the lowest frame. A handful of instructions, no atomics.
    ///
    /// # Examples
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/tree.rs")); }
    /// # use frametree::*;
    /// let tree = example::tree();
    /// let mut cache = tree.refill()?;
    /// let page = cache.alloc().expect("the first of 64").frames; // nobody else notices
    /// assert_eq!(page.start_address(), 0);
    /// # tree.flush(&mut cache)?;
    /// # tree.free_run(page)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn alloc(&mut self) -> Option<CachedRun> {
        if self.is_empty() {
            return None;
        }
        Some(self.give(self.0.free.trailing_zeros(), 1))
    }

    /// Takes the lowest run of `n` frames; `None` if there is none, or if `n` is 0 or above 64.
    /// Six steps at most, no atomics.
    ///
    /// # Examples
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/tree.rs")); }
    /// # use frametree::*;
    /// let tree = example::tree();
    /// let mut cache = tree.refill()?;
    /// let stack = cache.alloc_n(4).expect("four in a row").frames; // 16 KiB for a thread
    /// assert_eq!((stack.len(), cache.alloc_n(64)), (4, None));
    /// # tree.flush(&mut cache)?;
    /// # tree.free_run(stack)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn alloc_n(&mut self, n: u32) -> Option<CachedRun> {
        let bit = lowest_run(self.0.free, n)?;
        Some(self.give(bit, n))
    }

    /// Takes everything out, for whoever will put it into a tree.
    #[inline]
    pub(crate) fn take(&mut self) -> Handful {
        self.0.take()
    }

    /// Takes these frames out, which it has.
    #[inline]
    fn give(&mut self, bit: u32, n: u32) -> CachedRun {
        let known_zero = extract(self.0.known_zero, bit, n);
        self.0.free &= !mask(bit, n);
        self.0.known_zero &= self.0.free;
        CachedRun { frames: FrameRange::owned(self.0.numbers(bit, n)), known_zero }
    }
}

impl From<Handful> for PageCache {
    #[inline]
    fn from(handful: Handful) -> Self {
        Self(handful)
    }
}

impl Drop for PageCache {
    #[inline]
    fn drop(&mut self) {
        if !self.is_empty() {
            self.0.lose();
        }
    }
}

impl Handful {
    /// No frames.
    pub const EMPTY: Self = Self { base: FrameNumber::new(0), free: 0, known_zero: 0 };

    /// One frame.
    #[cfg(feature = "hardened")]
    pub fn of(frame: Frame) -> Self {
        let mut handful = Self::EMPTY;
        // It was empty.
        let _ = handful.put(frame);
        handful
    }

    /// What the allocator makes its answers with.
    #[inline]
    pub const fn owned(base: FrameNumber, free: u64, known_zero: u64) -> Self {
        debug_assert!(base.get().is_multiple_of(WORD_BITS) && known_zero & !free == 0);
        Self { base, free, known_zero }
    }

    /// As of the [`PageCache`].
    #[inline]
    pub const fn base(&self) -> FrameNumber {
        self.base
    }

    /// The same.
    #[inline]
    pub const fn free(&self) -> u64 {
        self.free
    }

    /// The same.
    #[inline]
    pub const fn known_zero(&self) -> u64 {
        self.known_zero
    }

    /// Whether there is none.
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.free == 0
    }

    /// Its lowest frame, of one that holds one.
    #[inline]
    pub fn into_one(self) -> Known {
        let bit = self.free.trailing_zeros();
        let is_zero = self.known_zero & self.free & self.free.wrapping_neg() != 0;
        let contents = if is_zero { Contents::Zero } else { Contents::Unknown };
        let number = FrameNumber::trusted(self.base.get() + u64::from(bit));
        Known { frame: Frame::owned(number), contents }
    }

    /// Takes the lowest frame.
    #[inline]
    fn pop(&mut self) -> Option<Frame> {
        if self.free == 0 {
            return None;
        }
        let number = self.base.get() + u64::from(self.free.trailing_zeros());
        self.free &= self.free - 1;
        Some(Frame::owned(FrameNumber::trusted(number)))
    }

    /// Takes everything out.
    #[inline]
    pub fn take(&mut self) -> Self {
        core::mem::replace(self, Self::EMPTY)
    }

    /// Takes a frame in: if there are none, or it is of their group. Another one comes back, and
    /// so does one that is there already.
    fn put(&mut self, frame: Frame) -> Result<(), Frame> {
        let number = frame.number().get();
        let bit = 1 << (number % WORD_BITS);
        let base = FrameNumber::trusted(number - number % WORD_BITS);
        if !self.is_empty() && (self.base != base || self.free & bit != 0) {
            return Err(frame);
        }
        let _ = frame.into_number();
        self.base = base;
        self.free |= bit;
        Ok(())
    }

    fn numbers(&self, bit: u32, n: u32) -> NumberRange {
        let start = self.base.get() + u64::from(bit);
        let [start, end] = [start, start + u64::from(n)].map(FrameNumber::trusted);
        NumberRange::trusted(start, end)
    }

    /// Counts its frames as lost.
    #[cold]
    #[inline(never)]
    fn lose(&self) {
        runs(self.free).for_each(|(bit, n)| lose(self.numbers(bit, n)));
    }
}

/// Fills the holes of a list, in order, with frames that `take` brings: up to as many at once as it
/// is asked for, until none come. How many were filled.
pub(crate) fn fill_holes(
    list: &mut [Option<Frame>],
    mut take: impl FnMut(u32) -> Option<Handful>,
) -> usize {
    let holes = list.iter().filter(|place| place.is_none()).count();
    let mut places = list.iter_mut().filter(|place| place.is_none());
    let mut filled = 0;
    while filled < holes {
        let most = (holes - filled).min(WORD_BITS as usize) as u32;
        let Some(mut some) = take(most) else { break };
        let frames = core::iter::from_fn(|| some.pop());
        for (frame, place) in frames.zip(&mut places) {
            *place = Some(frame);
            filled += 1;
        }
    }
    filled
}

/// Takes all frames out of a list and brings them to `give`: at once what lies in one group and
/// stands together. The first error.
pub(crate) fn empty_out<E>(
    list: &mut [Option<Frame>],
    mut give: impl FnMut(Handful) -> Result<(), E>,
) -> Result<(), E> {
    let mut result = Ok(());
    let mut some = Handful::EMPTY;
    for frame in list.iter_mut().filter_map(Option::take) {
        let Err(frame) = some.put(frame) else { continue };
        result = result.and(give(some.take()));
        // It is empty now.
        let _ = some.put(frame);
    }
    if some.is_empty() { result } else { result.and(give(some)) }
}

#[cfg(all(test, not(loom)))]
mod tests {
    extern crate std;

    use super::*;
    use std::vec::Vec;

    fn full() -> PageCache {
        Handful::owned(FrameNumber::new(640), u64::MAX, 0xff00).into()
    }

    #[test]
    fn the_lowest_frame_first_with_its_known_zero_bit() {
        let mut cache = full();
        for frame in 640..704 {
            let run = cache.alloc().expect("64 frames");
            assert_eq!(run.frames.numbers(), NumberRange::from_numbers(frame, frame + 1));
            assert_eq!(run.known_zero, u64::from((648..656).contains(&frame)));
        }
        assert_eq!(cache.alloc(), None);
        assert!(cache.is_empty());
        assert_eq!(cache.known_zero(), 0);
    }

    #[test]
    fn runs_are_lowest_first_and_exact() {
        let mut cache = full();
        assert_eq!(cache.alloc_n(0), None);
        assert_eq!(cache.alloc_n(65), None);
        let run = cache.alloc_n(10).expect("a run of 10");
        assert_eq!(
            (run.frames.numbers(), run.known_zero),
            (NumberRange::from_numbers(640, 650), 0b11 << 8)
        );
        assert_eq!(cache.alloc_n(55), None);
        assert_eq!(cache.alloc_n(54).map(|run| run.frames.len()), Some(54));
        assert!(cache.is_empty());
    }

    #[test]
    fn holes_are_filled_in_order_and_no_frame_is_left_over() {
        let mut list = [(); 70].map(|()| None);
        let kept = Frame::owned(FrameNumber::new(7));
        list[1] = Some(kept);
        let mut asked = Vec::new();
        let filled = fill_holes(&mut list, |most| {
            asked.push(most);
            let free = if most == 64 { 0b1011 } else { u64::MAX >> (64 - most) };
            Some(Handful::owned(FrameNumber::new(128), free, 0))
        });
        assert_eq!((filled, &*asked), (69, &[64, 64, 63][..]));
        let numbers: Vec<_> = list.iter().flatten().map(|frame| frame.number().get()).collect();
        assert_eq!(numbers[..7], [128, 7, 129, 131, 128, 129, 131]);
        assert!(list.iter().all(Option::is_some));
        assert_eq!(fill_holes(&mut list, |_| unreachable!("there are no holes")), 0);
    }

    #[test]
    fn a_list_is_emptied_group_by_group_as_it_stands() {
        let numbers = [130, 128, 191, 192, 5, 128, 128];
        let frame = |number| Some(Frame::owned(FrameNumber::new(number)));
        let mut list: Vec<_> = numbers.map(frame).into();
        list.insert(2, None);
        let mut given = Vec::new();
        let said = empty_out(&mut list, |cache| {
            given.push((cache.base().get(), cache.free()));
            if given.len() < 2 { Ok(()) } else { Err(cache.base().get()) }
        });
        assert_eq!(given, [(128, 0b101 | 1 << 63), (192, 1), (0, 1 << 5), (128, 1), (128, 1)]);
        assert_eq!(said, Err(192), "the first error");
        assert!(list.iter().all(Option::is_none));
    }
}
