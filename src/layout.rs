//! The layout of the metadata: what the tree keeps, how much of it a map needs, and where each
//! part lies in one piece of memory.
//!
//! ```text
//! clusters   one line for 64 giants: free giants, and two hints for each
//! giants     a few lines for each GiB that has managed frames
//! info       what never changes about each of them
//! spans      runs of neighbouring giants: from a physical GiB to its place above
//! ranges     the managed frames, as the map gave them
//! journals   two lines for each CPU, and two for all
//! slots      a few lines for each CPU: its page cache
//! leaves     one line for each 2 MiB block: its frames, 1 = free
//! zeroes     one line for each 2 MiB block: which of its free frames are known to be zero
//! ```
//!
//! Everything is in proportion to the memory that exists: a giant keeps leaves only for the
//! blocks from its first to its last managed one, and a hole of whole GiBs costs nothing. Two
//! bits a frame for full GiBs, and less than a hundredth more.
//!
//! The size is known before a byte is taken ([`Layout::bytes`]), from the map alone.

use core::fmt;

use crate::arena::part;
use crate::directory::{GiantInfo, Size, Span};
use crate::frame::FrameRange;
use crate::geometry::FRAME_SIZE;
use crate::journal::Journal;
use crate::map::MemoryMap;
use crate::node::Node;
use crate::root::{Cluster, Giant, clusters};
use crate::slot::Slot;

/// More CPUs than any machine has: keeps the sizes below from overflowing.
const MAX_CPUS: usize = 1 << 20;

/// How much metadata a memory map needs, and of what.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    pub(crate) cpus: usize,
    pub(crate) size: Size,
}

/// Why no layout can be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum LayoutError {
    /// There is not one usable frame in the map.
    NothingUsable,
    /// A pool for no CPU.
    NoCpus,
    /// A pool for more CPUs than any machine has.
    TooManyCpus {
        /// How many were asked for.
        cpus: usize,
        /// How many there may be.
        limit: usize,
    },
}

impl fmt::Display for LayoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NothingUsable => {
                f.write_str("the memory map has no usable frame left after the reservations")
            }
            Self::NoCpus => f.write_str("a pool for 0 CPUs; pass at least 1"),
            Self::TooManyCpus { cpus, limit } => {
                write!(f, "a pool for {cpus} CPUs; {limit} is the most")
            }
        }
    }
}

impl core::error::Error for LayoutError {}

impl Layout {
    /// The layout for the usable frames of `map` and this many CPUs.
    ///
    /// Costs a few passes over the map: its entries and its GiBs.
    ///
    /// # Errors
    /// If nothing is usable, or `cpus` is 0 or above 2^20.
    pub fn new(map: &MemoryMap<'_>, cpus: usize) -> Result<Self, LayoutError> {
        if cpus == 0 {
            return Err(LayoutError::NoCpus);
        }
        if cpus > MAX_CPUS {
            return Err(LayoutError::TooManyCpus { cpus, limit: MAX_CPUS });
        }
        Self::of_ranges(map.usable(), cpus)
    }

    /// The layout for these frames (ascending, disjoint, not adjacent).
    pub(crate) fn of_ranges(
        ranges: impl Iterator<Item = FrameRange> + Clone,
        cpus: usize,
    ) -> Result<Self, LayoutError> {
        let size = Size::of(ranges);
        if size.frames == 0 {
            return Err(LayoutError::NothingUsable);
        }
        Ok(Self { cpus, size })
    }

    /// Bytes of metadata, to be aligned to 128.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        part::<Cluster>(clusters(self.size.giants))
            + part::<Giant>(self.size.giants)
            + part::<GiantInfo>(self.size.giants)
            + part::<Span>(self.size.spans)
            + part::<FrameRange>(self.size.ranges)
            + part::<Journal>(Journal::count_for(self.cpus))
            + part::<Slot>(self.cpus)
            + 2 * part::<Node>(self.size.leaves)
    }

    /// Frames of metadata: the bytes, rounded up.
    #[must_use]
    pub const fn frames(&self) -> u64 {
        (self.bytes() as u64).div_ceil(FRAME_SIZE)
    }

    /// Usable frames of the map that it was made for.
    #[must_use]
    pub const fn managed_frames(&self) -> u64 {
        self.size.frames
    }
}
