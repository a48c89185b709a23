//! The `bootloader` crate, as its kernels see it.
//!
//! Its quirks: entries end where others give lengths; what BIOS or UEFI said and `bootloader` does
//! not know comes as their own numbers, ACPI tables and bad memory among them; and what the loader
//! has used (the kernel's image, the ramdisk, the boot information, page tables, stack) is one
//! kind, which stays reserved, for the kernel runs in it. Boot services memory is called usable,
//! rightly: the kernel starts on other page tables. Early versions of 0.11 forget the ramdisk on
//! UEFI (rust-osdev/bootloader, issue 399): with these, reserve it.

use bootloader_api::info::{MemoryRegion as Region, MemoryRegionKind};

use crate::map::{MemoryRegion, RegionKind};

/// What one entry says.
///
/// # Examples
/// A kernel that has mapped no more than 4 GiB so far, and adds the rest later:
///
/// ```
/// use bootloader_api::info::MemoryRegion as Entry;
/// use frametree::{MemoryRegion, boot};
///
/// fn low(entries: &[Entry]) -> impl Iterator<Item = MemoryRegion> {
///     let low = entries.iter().filter(|entry| entry.end <= 4 << 30);
///     low.map(boot::bootloader_api::region)
/// }
/// # let kind = bootloader_api::info::MemoryRegionKind::Usable;
/// # let entries = [0, 4 << 30].map(|start| Entry { start, end: start + 0x9_f000, kind });
/// # assert_eq!(low(&entries).map(|region| region.length).collect::<Vec<_>>(), [0x9_f000]);
/// ```
#[must_use]
pub fn region(region: &Region) -> MemoryRegion {
    let kind = match region.kind {
        MemoryRegionKind::Usable => RegionKind::Usable,
        // ACPI tables, in the BIOS' numbers and in UEFI's.
        MemoryRegionKind::UnknownBios(3) | MemoryRegionKind::UnknownUefi(9) => {
            RegionKind::Reclaimable
        }
        MemoryRegionKind::UnknownBios(5) | MemoryRegionKind::UnknownUefi(8) => RegionKind::Bad,
        _ => RegionKind::Reserved,
    };
    let length = region.end.saturating_sub(region.start);
    MemoryRegion { start: region.start, length, kind }
}

/// What the memory map needs to know: pass `&boot_info.memory_regions`. The kernel's image and all
/// that the loader has placed are in the entries already.
///
/// # Examples
/// ```
/// use bootloader_api::BootInfo;
/// use frametree::{MapEntry, MapError, MemoryMap, boot};
///
/// fn map<'b>(info: &BootInfo, cells: &'b mut [MapEntry]) -> Result<MemoryMap<'b>, MapError> {
///     MemoryMap::normalise(boot::bootloader_api::regions(&info.memory_regions), cells)
/// }
/// ```
pub fn regions(entries: &[Region]) -> impl Iterator<Item = MemoryRegion> + Clone + '_ {
    entries.iter().map(region)
}
