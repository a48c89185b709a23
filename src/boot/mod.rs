//! Boot protocols: from each protocol's own memory map to [`MemoryRegion`]s, a file and a feature
//! each.
//!
//! | feature, module | map of | adapted type |
//! |---|---|---|
//! | `e820` | BIOS, Linux' zero page | bytes of the table |
//! | `pvh` | Xen's PVH, `qemu -kernel` | `StartInfoReader` of `pvh` 0.1 |
//! | `multiboot2` | GRUB | `BootInformation` of `multiboot2` 0.28 |
//! | `limine` | Limine | entries of `limine` 0.5 (0.6 needs a nightly Rust) |
//! | `bootloader_api` | the `bootloader` crate | `MemoryRegions` of `bootloader_api` 0.11 |
//! | `uefi` | UEFI itself | descriptors of `uefi-raw` 0.17, which `uefi` 0.41 re-exports |
//!
//! Each has a function `regions`, whose result goes into [`MemoryMap::normalise`] as it is. It says
//! three things: what is **usable** now, on page tables and a stack of the kernel's own; what is
//! **reclaimable** once the kernel has read what lies there; and what stays **reserved**. Some
//! protocols put their data into memory that their own map calls usable. Then `regions` lists it
//! once more: the boot information as reclaimable, boot modules as reserved. Where entries overlap
//! the most restrictive kind holds, so nothing else is needed.
//!
//! No protocol names everything. Take out of the map what only the kernel knows:
//!
//! - its own image, unless the module's page says that the map has it;
//! - the first MiB, by `map.reserve(0, 1 << 20)`: frame 0, the BIOS' data, the page in which other
//!   CPUs start.
//!
//! Nothing here allocates, keeps state or decides what to do with memory: an adapter is a view of
//! what the loader wrote, and believes it.
//!
//! [`MemoryMap::normalise`]: crate::MemoryMap::normalise

use crate::map::{MemoryRegion, RegionKind};

#[cfg(feature = "bootloader_api")]
pub mod bootloader_api;
#[cfg(feature = "e820")]
pub mod e820;
#[cfg(feature = "limine")]
pub mod limine;
#[cfg(feature = "multiboot2")]
pub mod multiboot2;
#[cfg(feature = "pvh")]
pub mod pvh;
#[cfg(feature = "uefi")]
pub mod uefi;

/// Something that a boot loader has put into memory that its map calls usable.
///
/// # Examples
/// A loader of one's own has put things into memory that its map calls usable:
///
/// ```
/// use frametree::boot::Placed;
/// use frametree::{MapEntry, MemoryMap, MemoryRegion, RegionKind};
///
/// let memory = MemoryRegion { start: 0, length: 64 << 20, kind: RegionKind::Usable };
/// let placed = [Placed::data("command line", 0x1000, 200), Placed::module(0x40_0000, 1 << 20)];
/// let regions = placed.iter().map(|placed| placed.region).chain([memory]);
/// let mut cells = [MapEntry::EMPTY; MemoryMap::entries_needed(3)];
/// let map = MemoryMap::normalise(regions, &mut cells)?;
/// assert_eq!(map.usable_frames(), (64 << 8) - 1 - 256); // without both
/// # Ok::<(), frametree::MapError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Placed {
    /// What it is, in a few words.
    pub what: &'static str,
    /// Where it lies, and whether it may go once it was read.
    pub region: MemoryRegion,
}

impl Placed {
    /// What the kernel reads while it starts, and then needs no more.
    ///
    /// # Examples
    /// ```
    /// # use frametree::{RegionKind, boot::Placed};
    /// let line = Placed::data("command line", 0x11c0, 10);
    /// assert_eq!(line.region.kind, RegionKind::Reclaimable); // once the kernel has read it
    /// ```
    #[must_use]
    pub const fn data(what: &'static str, start: u64, length: u64) -> Self {
        Self { what, region: MemoryRegion { start, length, kind: RegionKind::Reclaimable } }
    }

    /// A file that the kernel was given to keep.
    ///
    /// # Examples
    /// ```
    /// # use frametree::{RegionKind, boot::Placed};
    /// let ramdisk = Placed::module(0x3fb_9000, 123_456);
    /// assert_eq!((ramdisk.what, ramdisk.region.kind), ("boot module", RegionKind::Reserved));
    /// ```
    #[must_use]
    pub const fn module(start: u64, length: u64) -> Self {
        let region = MemoryRegion { start, length, kind: RegionKind::Reserved };
        Self { what: "boot module", region }
    }
}
