//! Names and owners: [`FrameNumber`] names a frame, [`NumberRange`] names a run of them;
//! [`Frame`] is the right to use one, [`FrameRange`] the right to use a run.
//!
//! A number is not an owner. Names are `Copy` and mean nothing by themselves; a `Frame` comes
//! out of an allocator, moves, and goes back into it. Inventing one from a number is `unsafe`.

use core::fmt;

use crate::geometry::{FRAME_LIMIT, FRAME_SIZE};
use crate::sync::Tally;

/// The number of a physical frame: its physical address divided by 4 KiB.
///
/// # Examples
/// ```
/// use frametree::{FrameNumber, NumberRange};
///
/// let frame = FrameNumber::containing(0x12_3456).expect("an address below 2^52");
/// assert_eq!((frame.get(), frame.start_address()), (0x123, 0x12_3000));
/// let first_mib = NumberRange::from_numbers(0, 256);
/// assert!(!first_mib.contains(frame) && first_mib.len() == 256);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct FrameNumber(u64);

impl FrameNumber {
    /// The frame with this number. 2^40 itself names no frame, but may end a range.
    ///
    /// # Panics
    /// If `number` is above 2^40: no x86-64 machine has physical addresses over 52 bits.
    ///
    /// # Examples
    /// Firmware names a page by its address, the IPI that starts a CPU by its number:
    ///
    /// ```
    /// # use frametree::FrameNumber;
    /// let trampoline = FrameNumber::new(0x08); // where the other CPUs start
    /// assert_eq!(trampoline.start_address(), 0x8000);
    /// ```
    #[inline]
    #[must_use]
    pub const fn new(number: u64) -> Self {
        assert!(number <= FRAME_LIMIT, "a frame number above 2^40");
        Self(number)
    }

    /// A number that the tree has computed.
    #[inline]
    pub(crate) const fn trusted(number: u64) -> Self {
        debug_assert!(number <= FRAME_LIMIT);
        Self(number)
    }

    /// The frame that holds the byte at this physical address, or `None` at 2^52 or above.
    ///
    /// # Examples
    /// ```
    /// # use frametree::FrameNumber;
    /// assert_eq!(FrameNumber::containing(0x1fff), Some(FrameNumber::new(1)));
    /// ```
    #[inline]
    #[must_use]
    pub const fn containing(address: u64) -> Option<Self> {
        let number = address / FRAME_SIZE;
        if number < FRAME_LIMIT { Some(Self(number)) } else { None }
    }

    /// The number.
    ///
    /// # Examples
    /// ```
    /// # use frametree::FrameNumber;
    /// const PRESENT: u64 = 1;
    /// let frame = FrameNumber::new(0x1234);
    /// let entry = frame.get() << 12 | PRESENT; // of a page table
    /// assert_eq!(entry, 0x123_4001);
    /// ```
    #[inline]
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The physical address of the frame's first byte.
    ///
    /// # Examples
    /// ```
    /// # use frametree::FrameNumber;
    /// assert_eq!(FrameNumber::new(0x100).start_address(), 1 << 20);
    /// ```
    #[inline]
    #[must_use]
    pub const fn start_address(self) -> u64 {
        self.0 * FRAME_SIZE
    }
}

impl fmt::Debug for FrameNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "frame {:#x}", self.0)
    }
}

impl fmt::Display for FrameNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "frame {:#x} (address {:#x})", self.0, self.start_address())
    }
}

/// A run of frame numbers, half open: `start` is in it, `end` is not.
///
/// # Examples
/// ```
/// # use frametree::{FrameNumber, NumberRange};
/// let low = NumberRange::from_numbers(0, 0x100); // the first MiB
/// let all = NumberRange::new(FrameNumber::new(0x80), FrameNumber::new(0x800));
/// assert_eq!(low.overlap(all), Some(NumberRange::from_numbers(0x80, 0x100)));
/// assert!(low.contains(FrameNumber::new(0xff)) && !low.contains(low.end()));
/// assert_eq!((all.start().get(), all.len(), all.is_empty()), (0x80, 0x780, false));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct NumberRange {
    start: FrameNumber,
    end: FrameNumber,
}

impl NumberRange {
    /// The frames from `start` up to, and without, `end`.
    ///
    /// # Panics
    /// If `end` lies below `start`.
    ///
    /// # Examples
    /// ```
    /// # use frametree::{FrameNumber, NumberRange};
    /// let [start, end] = [0x10_0000, 0x18_4000].map(|address| {
    ///     FrameNumber::containing(address).expect("an address of the kernel's image")
    /// });
    /// assert_eq!(NumberRange::new(start, end).len(), 0x84);
    /// ```
    #[inline]
    #[must_use]
    pub const fn new(start: FrameNumber, end: FrameNumber) -> Self {
        assert!(start.0 <= end.0, "a frame range that ends before it starts");
        Self { start, end }
    }

    /// A range that the tree has computed.
    #[inline]
    pub(crate) const fn trusted(start: FrameNumber, end: FrameNumber) -> Self {
        debug_assert!(start.0 <= end.0);
        Self { start, end }
    }

    /// The frames `start..end`, given as numbers.
    ///
    /// # Panics
    /// If `end` lies below `start` or above 2^40.
    ///
    /// # Examples
    /// ```
    /// # use frametree::NumberRange;
    /// const FIRST_MIB: NumberRange = NumberRange::from_numbers(0, 256);
    /// assert_eq!(FIRST_MIB.end().start_address(), 1 << 20);
    /// ```
    #[inline]
    #[must_use]
    pub const fn from_numbers(start: u64, end: u64) -> Self {
        Self::new(FrameNumber::new(start), FrameNumber::new(end))
    }

    /// The first frame.
    ///
    /// # Examples
    /// ```
    /// # use frametree::NumberRange;
    /// let module = NumberRange::from_numbers(0x1c7, 0x1e6);
    /// assert_eq!(module.start().start_address(), 0x1c_7000); // where to map it from
    /// ```
    #[inline]
    #[must_use]
    pub const fn start(self) -> FrameNumber {
        self.start
    }

    /// The first frame behind the range.
    ///
    /// # Examples
    /// ```
    /// # use frametree::NumberRange;
    /// let low = NumberRange::from_numbers(0, 0x9f);
    /// let high = NumberRange::from_numbers(0x100, 0x800);
    /// assert!(low.end() < high.start()); // there is a hole between them
    /// ```
    #[inline]
    #[must_use]
    pub const fn end(self) -> FrameNumber {
        self.end
    }

    /// How many frames.
    ///
    /// # Examples
    /// ```
    /// # use frametree::{FRAME_SIZE, NumberRange};
    /// let module = NumberRange::from_numbers(0x1c7, 0x1e6);
    /// assert_eq!(module.len() * FRAME_SIZE, 124 << 10); // bytes to map
    /// ```
    #[inline]
    #[must_use]
    pub const fn len(self) -> u64 {
        self.end.0 - self.start.0
    }

    /// Whether there is no frame in it.
    ///
    /// # Examples
    /// ```
    /// # use frametree::NumberRange;
    /// let rest = NumberRange::from_numbers(0x200, 0x200); // of a range that was used up
    /// assert!(rest.is_empty());
    /// ```
    #[inline]
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.start.0 == self.end.0
    }

    /// Whether `frame` is one of them.
    ///
    /// # Examples
    /// ```
    /// # use frametree::{FrameNumber, NumberRange};
    /// let image = NumberRange::from_numbers(0x100, 0x184);
    /// let fault = FrameNumber::containing(0x18_4000).expect("an address below 2^52");
    /// assert!(!image.contains(fault)); // the first frame behind it
    /// ```
    #[inline]
    #[must_use]
    pub const fn contains(self, frame: FrameNumber) -> bool {
        self.start.0 <= frame.0 && frame.0 < self.end.0
    }

    /// The frames that are also in another range, if there are any.
    ///
    /// # Examples
    /// ```
    /// # use frametree::NumberRange;
    /// let usable = NumberRange::from_numbers(0x100, 0x800);
    /// let dma = NumberRange::from_numbers(0, 0x200);
    /// assert_eq!(usable.overlap(dma), Some(NumberRange::from_numbers(0x100, 0x200)));
    /// assert_eq!(usable.overlap(NumberRange::from_numbers(0x800, 0x900)), None); // side by side
    /// ```
    #[inline]
    #[must_use]
    pub fn overlap(self, other: Self) -> Option<Self> {
        let (start, end) = (self.start.max(other.start), self.end.min(other.end));
        (start < end).then_some(Self { start, end })
    }
}

impl fmt::Debug for NumberRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "frames {:#x}..{:#x}", self.start.0, self.end.0)
    }
}

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
        lose(NumberRange { start: self.0, end: FrameNumber(self.0.0 + 1) });
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
        self.0.start.start_address()
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
        let NumberRange { start, end } = self.into_numbers();
        let middle = FrameNumber(start.0 + count);
        (Self(NumberRange { start, end: middle }), Self(NumberRange { start: middle, end }))
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
        if self.0.end != other.0.start {
            return Err((self, other));
        }
        let start = self.into_numbers().start;
        Ok(Self(NumberRange { start, end: other.into_numbers().end }))
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
        let start = frame.into_number();
        Self(NumberRange { start, end: FrameNumber(start.0 + 1) })
    }
}

impl fmt::Debug for FrameRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "owned {:?}", self.0)
    }
}

/// The number of a CPU: the index of its slot in the pool, counted from 0.
///
/// # Examples
/// ```
/// # use frametree::CpuId;
/// let cpu = CpuId::new(3);
/// assert_eq!(cpu.get(), 3);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(transparent)]
pub struct CpuId(usize);

impl CpuId {
    /// CPU number `index`.
    ///
    /// # Examples
    /// ```
    /// # use frametree::CpuId;
    /// let ids = (0..4).map(CpuId::new); // in the order in which a kernel has started its CPUs
    /// assert_eq!(ids.last(), Some(CpuId::new(3)));
    /// ```
    #[inline]
    #[must_use]
    pub const fn new(index: usize) -> Self {
        Self(index)
    }

    /// The index.
    ///
    /// # Examples
    /// In [`Cpus::request_drain`](crate::Cpus::request_drain), to find out whom to interrupt:
    ///
    /// ```
    /// # use frametree::CpuId;
    /// let apic_ids = [0u32, 2, 4, 6]; // as the ACPI tables list them
    /// let target = |cpu: CpuId| apic_ids[cpu.get()];
    /// assert_eq!(target(CpuId::new(2)), 4);
    /// ```
    #[inline]
    #[must_use]
    pub const fn get(self) -> usize {
        self.0
    }
}
