//! UEFI's memory map, for a kernel that is a UEFI application itself, or whose loader hands the
//! map on.
//!
//! Its quirks: a descriptor can be larger than its type, so take the iterator of a crate that knows
//! (`MemoryMap::entries` of `uefi`, `EFIMemoryMapTag::memory_areas` of `multiboot2`); the map must
//! be the one that leaving the boot services has returned, for allocations change it; and memory
//! that can't be cached, that the runtime services need, or that was put aside for a purpose is not
//! usable, whatever its type.
//!
//! | type | here | because |
//! |---|---|---|
//! | conventional | usable | |
//! | boot services' code and data | reclaimable | they hold stack, page tables, GDT |
//! | ACPI tables | reclaimable | |
//! | loader's code and data | reserved | the application itself, and what it has allocated |
//! | unusable | bad | |
//! | all else | reserved | |

use uefi_raw::table::boot::{MemoryAttribute, MemoryDescriptor, MemoryType, PAGE_SIZE};

use crate::map::{MemoryRegion, RegionKind};

/// What one descriptor says.
///
/// # Examples
/// A kernel that keeps what boot services have left until it has stack and page tables of its own:
///
/// ```
/// use frametree::{RegionKind, boot};
/// use uefi_raw::table::boot::{MemoryAttribute, MemoryDescriptor, MemoryType};
///
/// let descriptor = MemoryDescriptor {
///     ty: MemoryType::BOOT_SERVICES_DATA,
///     page_count: 16,
///     att: MemoryAttribute::WRITE_BACK,
///     ..Default::default()
/// };
/// let region = boot::uefi::region(&descriptor);
/// assert_eq!((region.length, region.kind), (0x1_0000, RegionKind::Reclaimable));
/// ```
#[must_use]
pub fn region(descriptor: &MemoryDescriptor) -> MemoryRegion {
    let kind = match descriptor.ty {
        MemoryType::CONVENTIONAL => RegionKind::Usable,
        MemoryType::BOOT_SERVICES_CODE
        | MemoryType::BOOT_SERVICES_DATA
        | MemoryType::ACPI_RECLAIM => RegionKind::Reclaimable,
        MemoryType::UNUSABLE => RegionKind::Bad,
        _ => RegionKind::Reserved,
    };
    let claimed =
        MemoryAttribute::RUNTIME | MemoryAttribute::NON_VOLATILE | MemoryAttribute::SPECIAL_PURPOSE;
    let is_ours =
        descriptor.att.contains(MemoryAttribute::WRITE_BACK) && !descriptor.att.intersects(claimed);
    MemoryRegion {
        start: descriptor.phys_start,
        length: descriptor.page_count.saturating_mul(PAGE_SIZE as u64),
        kind: if is_ours { kind } else { RegionKind::Reserved },
    }
}

/// What the memory map needs to know. With the `uefi` crate pass `memory.entries()`, where `memory`
/// is what `exit_boot_services` has returned. The map's own buffer is the loader's data, so it is
/// reserved, and so is the kernel if it is the application.
///
/// # Examples
/// ```
/// use frametree::{MapEntry, MapError, MemoryMap, boot};
/// use uefi_raw::table::boot::MemoryDescriptor;
///
/// fn map<'b>(
///     descriptors: &[MemoryDescriptor],
///     cells: &'b mut [MapEntry],
/// ) -> Result<MemoryMap<'b>, MapError> {
///     MemoryMap::normalise(boot::uefi::regions(descriptors), cells)
/// }
/// ```
pub fn regions<'d, I>(descriptors: I) -> impl Iterator<Item = MemoryRegion> + use<'d, I>
where
    I: IntoIterator<Item = &'d MemoryDescriptor>,
{
    descriptors.into_iter().map(region)
}
