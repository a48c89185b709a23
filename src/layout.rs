//! The layout of the metadata: what the tree keeps, how much of it a map needs, and where each
//! part lies in one piece of memory.
//!
//! ```text
//! table      links to clusters, by their number
//! clusters   for 64 GiB: free giants, hints, and links to giants
//! giants     for each GiB that has managed frames: links to sections, blocks managed in full
//! nodes      for each of them: thirteen lines, its blocks
//! sections   for 128 MiB with managed frames, for each 2 MiB block two lines:
//!            its frames, 1 = free, and which of its free frames are known to be zero
//! ranges     the managed frames, as the map gave them
//! records    room for ranges to come: what the map calls reclaimable, and a few more
//! journals   two lines for each CPU, and two for all
//! budget     four lines: what ordinary requests may take
//! slots      a few lines for each CPU: its page cache
//! ledger     only of a hardened pool, 32 bits a frame: who has it
//! ```
//!
//! Everything is in proportion to the memory that exists: an aligned 128 MiB without managed
//! frames has no section, a hole of whole GiBs costs nothing, and one of 64 GiB not even links.
//! One managed frame costs a whole section, 8 KiB. Two bits a frame for full GiBs, and less than
//! a fiftieth more.
//!
//! The size is known before a byte is taken ([`Layout::bytes`]), from the map alone.

use core::fmt;

use crate::arena::part;
use crate::budget::Budget;
use crate::geometry::FRAME_SIZE;
#[cfg(feature = "hardened")]
use crate::hardened::Hardened;
use crate::map::MemoryMap;
use crate::slot::Slot;
use crate::tree::Plan;

/// More CPUs than any machine has: keeps the sizes below from overflowing.
const MAX_CPUS: usize = 1 << 20;

/// How much metadata a memory map needs, and of what.
///
/// # Examples
/// ```
/// use frametree::{Layout, MapEntry, MemoryMap, MemoryRegion, RegionKind};
///
/// let memory = [MemoryRegion { start: 0, length: 64 << 30, kind: RegionKind::Usable }];
/// let mut cells = [MapEntry::EMPTY; MemoryMap::entries_needed(1)];
/// let map = MemoryMap::normalise(memory, &mut cells)?;
/// let layout = Layout::new(&map, 8)?;
/// assert_eq!(layout.bytes() >> 20, 4); // MiB, for 64 GiB and 8 CPUs
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    pub(crate) plan: Plan,
    #[cfg(feature = "hardened")]
    is_hardened: bool,
}

/// Why no layout can be made.
///
/// # Examples
/// A map that reservations have emptied:
///
/// ```
/// # use frametree::{Layout, LayoutError, MapEntry, MemoryMap, MemoryRegion, RegionKind};
/// let memory = [MemoryRegion { start: 0, length: 1 << 20, kind: RegionKind::Usable }];
/// let mut cells = [MapEntry::EMPTY; MemoryMap::entries_needed(2)];
/// let mut map = MemoryMap::normalise(memory, &mut cells)?;
/// map.reserve(0, 1 << 20)?;
/// let error = Layout::new(&map, 4).unwrap_err();
/// assert_eq!(error, LayoutError::NothingUsable);
/// println!("no pool: {error}");
/// # Ok::<(), frametree::MapError>(())
/// ```
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
    /// Costs a few passes over the map's entries.
    ///
    /// # Errors
    /// If nothing is usable, or `cpus` is 0 or above 2^20.
    ///
    /// # Examples
    /// ```
    /// # use frametree::{Layout, MapEntry, MemoryMap, MemoryRegion, RegionKind};
    /// let regions = [MemoryRegion { start: 0, length: 1 << 30, kind: RegionKind::Usable }];
    /// let mut cells = [MapEntry::EMPTY; MemoryMap::entries_needed(1)];
    /// let map = MemoryMap::normalise(regions, &mut cells)?;
    /// let layout = Layout::new(&map, 4)?; // for 4 CPUs
    /// assert!(layout.bytes() < 100 << 10);
    /// assert_eq!(layout.frames(), layout.bytes().div_ceil(4096) as u64);
    /// assert_eq!(layout.managed_frames(), 1 << 18);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn new(map: &MemoryMap<'_>, cpus: usize) -> Result<Self, LayoutError> {
        if cpus == 0 {
            return Err(LayoutError::NoCpus);
        }
        if cpus > MAX_CPUS {
            return Err(LayoutError::TooManyCpus { cpus, limit: MAX_CPUS });
        }
        let plan = Plan::new(map.usable(), map.reclaimable().count(), cpus);
        let layout = Self {
            plan,
            #[cfg(feature = "hardened")]
            is_hardened: false,
        };
        if plan.frames == 0 { Err(LayoutError::NothingUsable) } else { Ok(layout) }
    }

    /// The layout for a hardened pool: with the ledger, 32 bits a frame more.
    ///
    /// # Examples
    /// ```
    /// # use frametree::{Layout, MapEntry, MemoryMap, MemoryRegion, RegionKind};
    /// # let memory = [MemoryRegion { start: 0, length: 1 << 30, kind: RegionKind::Usable }];
    /// # let mut cells = [MapEntry::EMPTY; MemoryMap::entries_needed(1)];
    /// # let map = MemoryMap::normalise(memory, &mut cells)?;
    /// let plain = Layout::new(&map, 8)?; // of a map of 1 GiB
    /// let hardened = plain.hardened();
    /// assert_eq!((hardened.bytes() - plain.bytes()) >> 10, 1024 + 1); // 4 bytes a frame, and some
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[cfg(feature = "hardened")]
    #[must_use]
    pub const fn hardened(self) -> Self {
        Self { is_hardened: true, ..self }
    }

    #[cfg(feature = "hardened")]
    const fn ledger_bytes(&self) -> usize {
        let Plan { frames, ranges, cpus, .. } = self.plan;
        if self.is_hardened { Hardened::bytes(frames, ranges, cpus) } else { 0 }
    }

    #[cfg(not(feature = "hardened"))]
    const fn ledger_bytes(&self) -> usize {
        0
    }

    /// Bytes of metadata, to be aligned to 128.
    ///
    /// # Examples
    /// Where the memory for [`FramePool::init_in`](crate::FramePool::init_in) is to be found before
    /// there is a pool:
    ///
    /// ```
    /// # use frametree::{Layout, MapEntry, MemoryMap, MemoryRegion, RegionKind};
    /// # let memory = [MemoryRegion { start: 0, length: 8 << 20, kind: RegionKind::Usable }];
    /// # let mut cells = [MapEntry::EMPTY; MemoryMap::entries_needed(2)];
    /// # let mut map = MemoryMap::normalise(memory, &mut cells)?;
    /// let bytes = Layout::new(&map, 4)?.bytes() as u64 + 128;
    /// let place = map.carve(bytes.div_ceil(4096), 1 << 32)?; // it must lie below 4 GiB
    /// assert_eq!(place.len(), 4);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.plan.bytes()
            + part::<Budget<'_>>(1)
            + part::<Slot<'_>>(self.plan.cpus)
            + self.ledger_bytes()
    }

    /// Frames of metadata: the bytes, rounded up.
    ///
    /// # Examples
    /// ```
    /// # use frametree::{Layout, MapEntry, MemoryMap, MemoryRegion, RegionKind};
    /// # let memory = [MemoryRegion { start: 0, length: 1 << 30, kind: RegionKind::Usable }];
    /// # let mut cells = [MapEntry::EMPTY; MemoryMap::entries_needed(1)];
    /// # let map = MemoryMap::normalise(memory, &mut cells)?;
    /// let layout = Layout::new(&map, 8)?; // of a map of 1 GiB
    /// println!("{} of {} frames", layout.frames(), layout.managed_frames());
    /// assert_eq!(layout.frames(), 18);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub const fn frames(&self) -> u64 {
        (self.bytes() as u64).div_ceil(FRAME_SIZE)
    }

    /// Usable frames of the map that it was made for.
    ///
    /// # Examples
    /// ```
    /// # use frametree::{Layout, MapEntry, MemoryMap, MemoryRegion, RegionKind};
    /// let memory = [MemoryRegion { start: 0x800, length: 8 << 20, kind: RegionKind::Usable }];
    /// let mut cells = [MapEntry::EMPTY; MemoryMap::entries_needed(1)];
    /// let map = MemoryMap::normalise(memory, &mut cells)?;
    /// assert_eq!(Layout::new(&map, 1)?.managed_frames(), 2047); // the whole ones
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub const fn managed_frames(&self) -> u64 {
        self.plan.frames
    }
}
