//! Names: the number of a frame, of a run of them, of a CPU. `Copy`; they mean nothing by
//! themselves.

use core::fmt;

use crate::geometry::{FRAME_LIMIT, FRAME_SIZE};

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

    /// The range of one frame.
    #[inline]
    pub(crate) const fn one(frame: FrameNumber) -> Self {
        Self { start: frame, end: FrameNumber::trusted(frame.0 + 1) }
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
