//! What a caller asks for when one frame is not enough: so many contiguous frames, and where
//! they may lie. Pure arithmetic: it knows no tree.
//!
//! Every condition narrows the addresses at which a run may begin; for a stretch of free frames
//! there is one lowest begin that meets all of them ([`Rule::lowest_begin`]).

use core::fmt;

use crate::frame::{FrameNumber, NumberRange};
use crate::geometry::{FRAME_LIMIT, FRAME_SIZE, FULL, GIANT_FRAMES, PHYSICAL_LIMIT, WORD_BITS};

/// A request for contiguous frames: exactly `count`, aligned, within limits.
///
/// ```
/// use frametree::Request;
/// // A ring of 16 frames for a device that reaches 4 GiB and can't cross 64 KiB.
/// let ring = Request::new(16).below(4 << 30).not_crossing(64 << 10);
/// assert_eq!(ring.check(), Ok(()));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request {
    count: u64,
    /// Bytes.
    align: u64,
    /// Physical addresses: the run lies between them.
    above: u64,
    below: u64,
    /// Bytes; no multiple of it lies inside the run.
    boundary: u64,
    priority: Priority,
    /// The count, if nothing else is asked for and the run fits into a word of 64; else 0. Follows
    /// from the rest, and is kept for those who ask most often.
    short: u32,
}

/// Whose frames a request may take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Priority {
    /// Not those of the reserve.
    Ordinary,
    /// Everybody's.
    Urgent,
}

/// A request that makes no sense, and why.
///
/// # Examples
/// What a driver asks for may come from a device's registers, so it is looked at first:
///
/// ```
/// # use frametree::{Request, RequestError};
/// fn buffer(pages: u64, boundary: u64) -> Result<Request, RequestError> {
///     let request = Request::new(pages).not_crossing(boundary);
///     request.check().map(|()| request)
/// }
/// let error = buffer(32, 64 << 10).unwrap_err();
/// assert_eq!(error, RequestError::BoundaryTooClose { count: 32, boundary: 64 << 10 });
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum RequestError {
    /// For 0 frames.
    NoFrames,
    /// For more frames than there are physical addresses.
    TooMany {
        /// How many.
        count: u64,
    },
    /// The alignment is no power of two, or above 1 GiB.
    Align {
        /// Bytes.
        align: u64,
    },
    /// The boundary is no power of two.
    Boundary {
        /// Bytes.
        boundary: u64,
    },
    /// No run of so many frames fits between two boundaries.
    BoundaryTooClose {
        /// Frames.
        count: u64,
        /// Bytes.
        boundary: u64,
    },
    /// No run of so many frames fits between the limits.
    Limits {
        /// Frames.
        count: u64,
        /// The lower limit, a physical address.
        above: u64,
        /// The upper one.
        below: u64,
    },
    /// The run is to begin at an address that the alignment or the boundary rules out.
    At {
        /// That address.
        address: u64,
    },
}

impl Request {
    /// For `count` contiguous frames, wherever they lie.
    ///
    /// # Examples
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs")); }
    /// # use frametree::*;
    /// let pool = example::pool(Setup::new(1));
    /// let stack = pool.alloc_run(&Request::new(5))?; // 20 KiB, not 32
    /// # pool.free_run(stack)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub const fn new(count: u64) -> Self {
        let (priority, below) = (Priority::Ordinary, PHYSICAL_LIMIT);
        let any =
            Self { count, align: FRAME_SIZE, above: 0, below, boundary: 0, priority, short: 0 };
        any.settled()
    }

    /// The same, with what follows from the rest.
    const fn settled(self) -> Self {
        let is_short = self.count.wrapping_sub(1) < WORD_BITS;
        let short = if is_short & self.is_plain() { self.count as u32 } else { 0 };
        Self { short, ..self }
    }

    /// Its first physical address shall be a multiple of `bytes`: a power of two up to 1 GiB
    /// (below a frame it asks for nothing).
    ///
    /// # Examples
    /// ```
    /// # use frametree::Request;
    /// let request = Request::new(3).align(16 << 10);
    /// assert_eq!(request.check(), Ok(()));
    /// assert!(Request::new(3).align(48 << 10).check().is_err()); // no power of two
    /// ```
    #[must_use]
    pub const fn align(self, bytes: u64) -> Self {
        Self { align: bytes, ..self }.settled()
    }

    /// All of it shall lie below this physical address: what a device can reach.
    ///
    /// # Examples
    /// For a sound card of 1995, which reaches 16 MiB:
    ///
    /// ```
    /// # use frametree::Request;
    /// let request = Request::new(16).below(16 << 20);
    /// assert_eq!(request.check(), Ok(()));
    /// ```
    #[must_use]
    pub const fn below(self, address: u64) -> Self {
        Self { below: address, ..self }.settled()
    }

    /// All of it shall lie at or above this physical address.
    ///
    /// # Examples
    /// Memory that old devices do not reach, so that what they do reach is left to them:
    ///
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs")); }
    /// # use frametree::*;
    /// let pool = example::pool(Setup::new(1));
    /// let table = pool.alloc_run(&Request::new(64).above(4 << 20))?;
    /// assert_eq!(table.start_address(), 4 << 20);
    /// # pool.free_run(table)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub const fn above(self, address: u64) -> Self {
        Self { above: address, ..self }.settled()
    }

    /// It shall not cross a multiple of `bytes`: a power of two.
    ///
    /// # Examples
    /// A device counts addresses in 16 bits, and would wrap around at 64 KiB:
    ///
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs")); }
    /// # use frametree::*;
    /// let pool = example::pool(Setup::new(1));
    /// let before = pool.alloc_run(&Request::new(10))?;
    /// let ring = pool.alloc_run(&Request::new(8).not_crossing(64 << 10))?;
    /// let [first, last] = [ring.start_address(), ring.start_address() + 8 * FRAME_SIZE - 1];
    /// assert_eq!(first >> 16, last >> 16);
    /// # pool.free_run(before)?;
    /// # pool.free_run(ring)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub const fn not_crossing(self, bytes: u64) -> Self {
        Self { boundary: bytes, ..self }.settled()
    }

    /// It shall begin at this frame. The limits are those of as many frames as it asks for now.
    ///
    /// # Examples
    /// ```
    /// # use frametree::{FrameNumber, NumberRange, Request};
    /// let request = Request::new(16).at(FrameNumber::new(0x100)); // from 1 MiB on
    /// assert_eq!(request.exactly(), Some(NumberRange::from_numbers(0x100, 0x110)));
    /// ```
    #[must_use]
    pub const fn at(self, first: FrameNumber) -> Self {
        let above = first.start_address();
        let length = self.count.saturating_mul(FRAME_SIZE);
        Self { above, below: above.saturating_add(length), ..self }.settled()
    }

    /// It may take frames of the pool's reserve ([`Setup::reserve`](crate::Setup::reserve)).
    ///
    /// # Examples
    /// Pages are written out when memory is short, and the disk's driver needs a buffer for it:
    ///
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs")); }
    /// # use frametree::*;
    /// let pool = example::pool(Setup::new(1).reserve(16));
    /// let rest = pool.alloc_run(&Request::new(2032))?;
    /// assert!(pool.alloc_run(&Request::new(8)).is_err());
    /// let buffer = pool.alloc_run(&Request::new(8).urgent())?;
    /// # pool.free_run(buffer)?;
    /// # pool.free_run(rest)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub const fn urgent(self) -> Self {
        Self { priority: Priority::Urgent, ..self }
    }

    /// Whether it may.
    ///
    /// # Examples
    /// A driver that keeps its request can say how a failure is to be reported:
    ///
    /// ```
    /// # use frametree::Request;
    /// let request = Request::new(8).urgent();
    /// let level = if request.is_urgent() { "error" } else { "debug" };
    /// # assert_eq!(level, "error");
    /// ```
    #[must_use]
    pub const fn is_urgent(&self) -> bool {
        matches!(self.priority, Priority::Urgent)
    }

    /// The same for another number of frames.
    ///
    /// # Examples
    /// ```
    /// # use frametree::Request;
    /// let buffer = Request::new(16).below(1 << 32); // as a driver keeps it
    /// assert_eq!(buffer.with_count(4).count(), 4);
    /// ```
    #[must_use]
    pub const fn with_count(self, count: u64) -> Self {
        Self { count, ..self }.settled()
    }

    /// How many frames it asks for.
    ///
    /// # Examples
    /// ```
    /// # use frametree::{FRAME_SIZE, Request};
    /// let request = Request::new(16).below(4 << 30);
    /// println!("a buffer of {} KiB", request.count() * FRAME_SIZE / 1024);
    /// ```
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// The frames that it names, if it leaves no choice.
    ///
    /// # Examples
    /// ```
    /// # use frametree::{FrameNumber, NumberRange, Request};
    /// let fixed = Request::new(16).at(FrameNumber::new(0x100));
    /// assert_eq!(fixed.exactly(), Some(NumberRange::from_numbers(0x100, 0x110)));
    /// assert_eq!(Request::new(16).below(4 << 30).exactly(), None); // many places will do
    /// ```
    #[must_use]
    pub const fn exactly(&self) -> Option<NumberRange> {
        let limits = self.limits();
        if limits.len() == self.count { Some(limits) } else { None }
    }

    /// Whether it says no more than how many.
    ///
    /// # Examples
    /// Only such requests are answered from a CPU's cache:
    ///
    /// ```
    /// # use frametree::Request;
    /// assert!(Request::new(4).is_plain());
    /// assert!(!Request::new(4).align(16 << 10).is_plain());
    /// ```
    #[inline]
    #[must_use]
    pub const fn is_plain(&self) -> bool {
        // Without a branch for each.
        (self.above | self.boundary == 0)
            & (self.align <= FRAME_SIZE)
            & (self.below >= PHYSICAL_LIMIT)
    }

    /// The same for a run that fits into a word of 64: how many frames.
    #[inline]
    pub(crate) const fn plain_within_a_word(&self) -> Option<u32> {
        if self.short == 0 { None } else { Some(self.short) }
    }

    /// Whether it says where the run shall lie.
    pub(crate) const fn is_limited(&self) -> bool {
        self.above != 0 || self.below < PHYSICAL_LIMIT
    }

    /// Whether it makes sense.
    ///
    /// # Errors
    /// Which argument does not, and why.
    ///
    /// # Examples
    /// ```
    /// # use frametree::{Request, RequestError};
    /// let nothing = Request::new(0).check().unwrap_err();
    /// assert_eq!(nothing, RequestError::NoFrames);
    /// let wide = Request::new(32).not_crossing(64 << 10).check(); // 128 KiB
    /// assert!(wide.is_err());
    /// ```
    pub const fn check(&self) -> Result<(), RequestError> {
        let Self { count, align, above, below, boundary, .. } = *self;
        if count == 0 {
            return Err(RequestError::NoFrames);
        }
        if count > FRAME_LIMIT {
            return Err(RequestError::TooMany { count });
        }
        if !align.is_power_of_two() || align > GIANT_FRAMES * FRAME_SIZE {
            return Err(RequestError::Align { align });
        }
        if boundary != 0 && !boundary.is_power_of_two() {
            return Err(RequestError::Boundary { boundary });
        }
        if boundary != 0 && boundary / FRAME_SIZE < count {
            return Err(RequestError::BoundaryTooClose { count, boundary });
        }
        if self.limits().len() < count {
            return Err(RequestError::Limits { count, above, below });
        }
        if let Some(run) = self.exactly()
            && self.rule().lowest_begin(run.start().get()) != run.start().get()
        {
            return Err(RequestError::At { address: run.start().start_address() });
        }
        Ok(())
    }

    /// The frames that lie between the limits, in full.
    #[must_use]
    pub(crate) const fn limits(&self) -> NumberRange {
        let end =
            if self.below < PHYSICAL_LIMIT { self.below } else { PHYSICAL_LIMIT } / FRAME_SIZE;
        let start = self.above.div_ceil(FRAME_SIZE);
        let start = if start < end { start } else { end };
        NumberRange::trusted(FrameNumber::trusted(start), FrameNumber::trusted(end))
    }

    /// The same in frames, for a search.
    pub(crate) const fn rule(&self) -> Rule {
        let Self { count, align, boundary, .. } = *self;
        let align = if align > FRAME_SIZE { align / FRAME_SIZE } else { 1 };
        let limits = self.limits();
        let (first, end) = (limits.start().get(), limits.end().get());
        Rule { count, align, first, end, boundary: boundary / FRAME_SIZE }
    }
}

/// A request that makes sense, in frames.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rule {
    pub count: u64,
    align: u64,
    /// The first frame between the limits, and the one behind the last.
    pub first: u64,
    pub end: u64,
    /// 0 for none.
    boundary: u64,
}

impl Rule {
    /// So many frames between two others, and nothing else.
    pub const fn between(count: u64, first: u64, end: u64) -> Self {
        Self { count, align: 1, first, end, boundary: 0 }
    }

    /// The lowest frame at or above `start` at which a run may begin, its end not looked at.
    #[inline]
    pub const fn lowest_begin(&self, start: u64) -> u64 {
        let start = if start > self.first { start } else { self.first };
        let begin = self.aligned(start);
        if self.boundary == 0 {
            return begin;
        }
        let left = self.boundary - (begin & (self.boundary - 1));
        // Both are powers of two: the next boundary is aligned, or the next alignment is one.
        if left >= self.count { begin } else { self.aligned(begin + left) }
    }

    /// The frames of a word at which the alignment lets a run begin, a bit for each; some more if
    /// it is larger than a word.
    pub const fn begins_in_a_word(&self) -> u64 {
        match self.align {
            1 => FULL,
            align if align >= WORD_BITS => 1,
            align => FULL & (u64::MAX / ((1 << align) - 1)),
        }
    }

    /// Where a run that begins at `begin` must end, or before, at the latest: at the limit, or at
    /// the next boundary.
    pub const fn latest_end(&self, begin: u64) -> u64 {
        if self.boundary == 0 {
            return self.end;
        }
        let next = (begin | (self.boundary - 1)) + 1;
        if next < self.end { next } else { self.end }
    }

    /// Whether it says no more than how many, and from where on.
    #[inline]
    pub const fn is_loose(&self) -> bool {
        self.align == 1 && self.boundary == 0 && self.end == FRAME_LIMIT
    }

    const fn aligned(&self, frame: u64) -> u64 {
        (frame + self.align - 1) & !(self.align - 1)
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { count, align, above, below, boundary, .. } = *self;
        write!(f, "{count} contiguous frames")?;
        if align > FRAME_SIZE {
            write!(f, ", aligned to {align:#x}")?;
        }
        if above > 0 {
            write!(f, ", from {above:#x} on")?;
        }
        if below < PHYSICAL_LIMIT {
            write!(f, ", below {below:#x}")?;
        }
        if boundary > 0 {
            write!(f, ", not across a multiple of {boundary:#x}")?;
        }
        Ok(())
    }
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NoFrames => f.write_str("a request for 0 frames; ask for 1 at least"),
            Self::TooMany { count } => {
                write!(f, "a request for {count} frames; physical memory ends at {FRAME_LIMIT}")
            }
            Self::Align { align } => {
                write!(f, "aligned to {align:#x} bytes; it must be a power of two up to 1 GiB")
            }
            Self::Boundary { boundary } => {
                write!(f, "a boundary of {boundary:#x} bytes; it must be a power of two")
            }
            Self::BoundaryTooClose { count, boundary } => {
                write!(f, "{count} frames are longer than the boundary of {boundary:#x} bytes")
            }
            Self::Limits { count, above, below } => {
                write!(f, "{count} frames do not fit between {above:#x} and {below:#x}")
            }
            Self::At { address } => {
                write!(f, "a run at {address:#x} can't meet the alignment or the boundary")
            }
        }
    }
}

impl core::error::Error for RequestError {}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// By the definition, frame by frame.
    fn naive(request: &Request, start: u64, end: u64) -> Option<u64> {
        let Request { count, align, above, below, boundary, .. } = *request;
        (start..end).find(|&begin| {
            let (first, last) = (begin * FRAME_SIZE, (begin + count) * FRAME_SIZE - 1);
            let fits = begin + count <= end && first >= above && last < below;
            let crosses = boundary != 0 && first / boundary != last / boundary;
            fits && first % align == 0 && !crosses
        })
    }

    #[test]
    fn what_was_asked_for_can_be_asked_back() {
        let request = Request::new(16).align(1 << 16).not_crossing(1 << 24).urgent();
        let other = request.with_count(4);
        assert_eq!((request.count(), other.count()), (16, 4));
        assert!(other.is_urgent() && !Request::new(16).is_urgent());
        assert!(!other.is_limited(), "it may lie anywhere");
        assert!(other.above(FRAME_SIZE).is_limited() && other.below(1 << 32).is_limited());
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            // Miri interprets each of them.
            cases: if cfg!(miri) { 8 } else { 8192 },
            max_global_rejects: 1 << 20,
            ..ProptestConfig::default()
        })]

        #[test]
        fn the_lowest_place_is_the_first_that_meets_everything(
            count in 1..70u64, align in 10..19u32, above in 0..200u64, length in 0..400u64,
            boundary in prop_oneof![Just(0), (12..20u32).prop_map(|log| 1u64 << log)],
            start in 0..300u64, len in 0..300u64, odd in 0..2u64,
        ) {
            let above = above * FRAME_SIZE + odd;
            let request = Request::new(count).align(1 << align).above(above)
                .below(above + length * FRAME_SIZE).not_crossing(boundary);
            prop_assume!(request.check().is_ok());
            let (rule, end) = (request.rule(), start + len);
            let begin = rule.lowest_begin(start);
            let place = (begin + count <= end.min(rule.end)).then_some(begin);
            prop_assert_eq!(place, naive(&request, start, end), "{}", request);
            prop_assert!(place.is_none_or(|begin| begin + count <= rule.latest_end(begin)));
        }
    }

    #[test]
    fn requests_without_sense_are_refused() {
        let check = |request: Request| request.check().expect_err("no sense");
        assert_eq!(check(Request::new(0)), RequestError::NoFrames);
        let count = u64::MAX;
        assert_eq!(check(Request::new(count)), RequestError::TooMany { count });
        for align in [0, 3, 4097, 2 << 30] {
            assert_eq!(check(Request::new(1).align(align)), RequestError::Align { align });
        }
        let boundary = 0x3000;
        assert_eq!(
            check(Request::new(1).not_crossing(boundary)),
            RequestError::Boundary { boundary }
        );
        let (count, boundary) = (17, 0x10000);
        let close = RequestError::BoundaryTooClose { count, boundary };
        assert_eq!(check(Request::new(count).not_crossing(boundary)), close);
        let limits = RequestError::Limits { count, above: 0x2000, below: 0x12fff };
        assert_eq!(check(Request::new(count).above(0x2000).below(0x12fff)), limits);
        let limits = RequestError::Limits { count: 1, above: u64::MAX, below: 0 };
        assert_eq!(check(Request::new(1).above(u64::MAX).below(0)), limits);
        let at = Request::new(16).align(0x10000).at(FrameNumber::new(17));
        assert_eq!(check(at), RequestError::At { address: 0x11000 });
        let last = FrameNumber::new(FRAME_LIMIT - 1);
        assert_eq!(Request::new(1).at(last).check(), Ok(()));
        assert!(Request::new(2).at(last).check().is_err());
    }
}
