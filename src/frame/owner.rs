//! Owners: the right to use a frame, or a run of them. What is dropped is lost, and counted.

use core::fmt;

use super::number::{FrameNumber, NumberRange};
use crate::sync::Tally;

/// How many frames were lost so far, in all pools: their [`Frame`], [`FrameRange`] or
/// [`PageCache`](crate::PageCache) was dropped.
///
/// Not 0 means that somebody forgot a `free`, or an `into_number`. With the feature `log` each
/// loss is a line at level `warn` that names the frames.
///
/// # Examples
/// ```
/// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs")); }
/// # use frametree::*;
/// let pool = example::pool(Setup::new(1));
/// drop(pool.alloc()?); // not `pool.free`: nobody will ever get it again
/// assert_eq!(lost_frames(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub fn lost_frames() -> u64 {
    LOST.get()
}

static LOST: Tally = Tally::new();

#[cold]
#[inline(never)]
pub(crate) fn lose(frames: NumberRange) {
    LOST.add(frames.len());
    #[cfg(feature = "log")]
    log::warn!("{frames:?} are lost: their owner was dropped, and not given back");
}

/// The right to use one physical frame. It can't be copied; give it back with `free`.
///
/// Dropping it loses the frame until the next boot, since no destructor can know which allocator
/// it came from; but not silently: [`lost_frames`] counts it.
///
/// # Examples
/// ```
/// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs")); }
/// # use frametree::*;
/// let pool = example::pool(Setup::new(1));
/// let frame = pool.alloc()?;
/// let number = frame.into_number(); // for a page table, which keeps numbers
/// assert_eq!(lost_frames(), 0);
/// // SAFETY: the page table has let go of it.
/// pool.free(unsafe { Frame::from_number(number) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "a frame that is not given back is lost"]
#[derive(PartialEq, Eq)]
#[repr(transparent)]
pub struct Frame(FrameNumber);

impl Frame {
    /// Invents the ownership of a frame.
    ///
    /// # Safety
    /// Nobody else may own or use this frame, now or until it is given back. Freeing a frame
    /// that is free already, or was never handed out, is found by the allocator (see
    /// `FreeError`); freeing one that another owner still uses is not.
    ///
    /// # Examples
    /// ```
    /// # use frametree::{Frame, FrameNumber};
    /// // SAFETY: nothing frees it: an example has no pool. A kernel gave the number away before.
    /// let frame = unsafe { Frame::from_number(FrameNumber::new(7)) };
    /// assert_eq!(frame.number(), frame.into_number());
    /// ```
    #[inline]
    pub const unsafe fn from_number(number: FrameNumber) -> Self {
        Self(number)
    }

    /// What the allocators of this crate make their answers with.
    #[inline]
    pub(crate) const fn owned(number: FrameNumber) -> Self {
        Self(number)
    }

    /// Which frame it is.
    ///
    /// # Examples
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs")); }
    /// # use frametree::*;
    /// let pool = example::pool(Setup::new(1));
    /// let frame = pool.alloc()?;
    /// println!("a page table in {}", frame.number()); // a copy of the name; the owner stays
    /// pool.free(frame)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    #[must_use]
    pub const fn number(&self) -> FrameNumber {
        self.0
    }

    /// The physical address of its first byte.
    ///
    /// # Examples
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs")); }
    /// # use frametree::*;
    /// let pool = example::pool(Setup::new(1));
    /// let root = pool.alloc()?;
    /// let cr3 = root.start_address(); // what the CPU is told of the highest page table
    /// assert!(cr3.is_multiple_of(FRAME_SIZE));
    /// # pool.free(root)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    #[must_use]
    pub const fn start_address(&self) -> u64 {
        self.0.start_address()
    }

    /// Gives the ownership up and keeps the name; [`Frame::from_number`] is the way back.
    ///
    /// # Examples
    /// A page table keeps numbers. So whoever maps a frame gives up the owner:
    ///
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs")); }
    /// # use frametree::*;
    /// let pool = example::pool(Setup::new(1));
    /// let mut table = [0; 512];
    /// table[7] = pool.alloc()?.into_number().start_address() | 1;
    /// assert_eq!(lost_frames(), 0); // it is in use, not lost
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    #[must_use]
    pub const fn into_number(self) -> FrameNumber {
        let number = self.0;
        core::mem::forget(self);
        number
    }
}

impl Drop for Frame {
    #[inline]
    fn drop(&mut self) {
        lose(NumberRange::one(self.0));
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "owned {:?}", self.0)
    }
}

/// The right to use a run of contiguous frames. It can't be copied, but be split, and each part
/// be given back alone, at any time and in any order, with `free_run`.
///
/// Dropping it loses the frames until the next boot, which [`lost_frames`] counts, as with
/// [`Frame`].
///
/// # Examples
/// ```
/// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs")); }
/// # use frametree::*;
/// let pool = example::pool(Setup::new(1));
/// let run: FrameRange = pool.alloc_run(&Request::new(10))?;
/// let (head, tail) = run.split_at(4);
/// assert_eq!((head.len(), tail.len()), (4, 6));
/// pool.free_run(tail)?; // in parts, or joined again
/// pool.free_run(head)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "frames that are not given back are lost"]
#[derive(PartialEq, Eq)]
#[repr(transparent)]
pub struct FrameRange(NumberRange);

impl FrameRange {
    /// Invents the ownership of a run of frames.
    ///
    /// # Safety
    /// As for [`Frame::from_number`], for each of them.
    ///
    /// # Examples
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs")); }
    /// # use frametree::*;
    /// let pool = example::pool(Setup::new(1));
    /// let buffer = pool.alloc_run(&Request::new(16))?.into_numbers(); // a device is told where
    /// // SAFETY: the device has said that it is done, and nobody else knows these frames.
    /// pool.free_run(unsafe { FrameRange::from_numbers(buffer) })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub const unsafe fn from_numbers(numbers: NumberRange) -> Self {
        Self(numbers)
    }

    /// What the allocators of this crate make their answers with.
    #[inline]
    pub(crate) const fn owned(numbers: NumberRange) -> Self {
        Self(numbers)
    }

    /// Which frames they are.
    ///
    /// # Examples
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs")); }
    /// # use frametree::*;
    /// let pool = example::pool(Setup::new(1));
    /// let stack = pool.alloc_run(&Request::new(4))?;
    /// for number in stack.numbers().start().get()..stack.numbers().end().get() {
    ///     map(FrameNumber::new(number)); // each page of it
    /// }
    /// # fn map(_: FrameNumber) {}
    /// pool.free_run(stack)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    #[must_use]
    pub const fn numbers(&self) -> NumberRange {
        self.0
    }

    /// The physical address of the first byte.
    ///
    /// # Examples
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs")); }
    /// # use frametree::*;
    /// let pool = example::pool(Setup::new(1));
    /// let ring = pool.alloc_run(&Request::new(16).below(1 << 32))?;
    /// let register = ring.start_address() as u32; // 32 bits are all that this device has
    /// assert_eq!(u64::from(register), ring.start_address());
    /// pool.free_run(ring)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    #[must_use]
    pub const fn start_address(&self) -> u64 {
        self.0.start().start_address()
    }

    /// How many frames.
    ///
    /// # Examples
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs")); }
    /// # use frametree::*;
    /// let pool = example::pool(Setup::new(1));
    /// let buffer = pool.alloc_run(&Request::new(5))?;
    /// assert_eq!(buffer.len() * FRAME_SIZE, 20 << 10); // exactly 5 frames, not 8
    /// pool.free_run(buffer)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.0.len()
    }

    /// Whether there is no frame in it.
    ///
    /// # Examples
    /// What is given back bit by bit:
    ///
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs")); }
    /// # use frametree::*;
    /// let pool = example::pool(Setup::new(1));
    /// let mut rest = pool.alloc_run(&Request::new(10))?;
    /// while !rest.is_empty() {
    ///     let (done, left) = rest.split_at(2);
    ///     pool.free_run(done)?;
    ///     rest = left;
    /// }
    /// # assert_eq!(lost_frames(), 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first `count` frames, and the others.
    ///
    /// # Panics
    /// If there are fewer.
    ///
    /// # Examples
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs")); }
    /// # use frametree::*;
    /// let pool = example::pool(Setup::new(1));
    /// let stacks = pool.alloc_run(&Request::new(8))?;
    /// let (first, second) = stacks.split_at(4); // of two threads, which end at different times
    /// pool.free_run(second)?;
    /// pool.free_run(first)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub const fn split_at(self, count: u64) -> (Self, Self) {
        // Still an owner, which is counted as lost if this panics.
        assert!(count <= self.len(), "a split behind the end of the run");
        let numbers = self.into_numbers();
        let middle = FrameNumber::trusted(numbers.start().get() + count);
        let low = NumberRange::trusted(numbers.start(), middle);
        (Self(low), Self(NumberRange::trusted(middle, numbers.end())))
    }

    /// Gives the ownership up and keeps the names; [`FrameRange::from_numbers`] is the way back.
    ///
    /// # Examples
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs")); }
    /// # use frametree::*;
    /// let pool = example::pool(Setup::new(1));
    /// let image = pool.alloc_run(&Request::new(512))?.into_numbers(); // kept for ever
    /// assert_eq!((image.len(), lost_frames()), (512, 0));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    #[must_use]
    pub const fn into_numbers(self) -> NumberRange {
        let numbers = self.0;
        core::mem::forget(self);
        numbers
    }

    /// This run and the one that begins where it ends, as one.
    ///
    /// # Errors
    /// Both, unchanged, if there is something between them, or `other` does not lie behind.
    ///
    /// # Examples
    /// ```
    /// # use frametree::{FrameRange, NumberRange};
    /// // SAFETY: nothing frees it: an example has no pool.
    /// let run = unsafe { FrameRange::from_numbers(NumberRange::from_numbers(8, 24)) };
    /// let (low, high) = run.split_at(4);
    /// let (high, low) = high.join(low).unwrap_err(); // in this order only
    /// let run = low.join(high).expect("neighbours");
    /// assert_eq!(run.into_numbers(), NumberRange::from_numbers(8, 24));
    /// ```
    pub fn join(self, other: Self) -> Result<Self, (Self, Self)> {
        if self.0.end() != other.0.start() {
            return Err((self, other));
        }
        let (low, high) = (self.into_numbers(), other.into_numbers());
        Ok(Self(NumberRange::trusted(low.start(), high.end())))
    }
}

impl Drop for FrameRange {
    #[inline]
    fn drop(&mut self) {
        if !self.is_empty() {
            lose(self.0);
        }
    }
}

impl From<Frame> for FrameRange {
    fn from(frame: Frame) -> Self {
        Self(NumberRange::one(frame.into_number()))
    }
}

impl fmt::Debug for FrameRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "owned {:?}", self.0)
    }
}
