//! The Limine boot protocol.
//!
//! Its quirks: what the map calls reclaimable by the bootloader holds all responses (the map
//! itself among them), the page tables, the GDT and the stack that the kernel starts on. So read
//! what is of interest and move to tables and a stack of your own before any of it is reclaimed,
//! or even looked at through another mapping. Kernel and modules are one kind, and stay.
//! Limine sorts its map, and usable entries are whole pages that overlap nothing.

use limine::memory_map::{Entry, EntryType};

use crate::map::{MemoryRegion, RegionKind};

/// What one entry says.
///
/// # Examples
/// To add up what can be reclaimed later:
///
/// ```
/// use frametree::{RegionKind, boot};
/// use limine::memory_map::{Entry, EntryType};
///
/// fn reclaimable(entries: &[&Entry]) -> u64 {
///     let regions = entries.iter().map(|entry| boot::limine::region(entry));
///     let later = regions.filter(|region| region.kind == RegionKind::Reclaimable);
///     later.map(|region| region.length).sum()
/// }
/// let entry_type = EntryType::BOOTLOADER_RECLAIMABLE;
/// assert_eq!(reclaimable(&[&Entry { base: 0x1000, length: 0x4000, entry_type }]), 0x4000);
/// ```
#[must_use]
pub fn region(entry: &Entry) -> MemoryRegion {
    let kind = match entry.entry_type {
        EntryType::USABLE => RegionKind::Usable,
        EntryType::ACPI_RECLAIMABLE | EntryType::BOOTLOADER_RECLAIMABLE => RegionKind::Reclaimable,
        EntryType::BAD_MEMORY => RegionKind::Bad,
        _ => RegionKind::Reserved,
    };
    MemoryRegion { start: entry.base, length: entry.length, kind }
}

/// What the memory map needs to know. The kernel's image, its modules and all that Limine itself
/// has placed are in the entries already.
///
/// # Examples
/// ```
/// use frametree::{MapEntry, MapError, MemoryMap, boot};
/// use limine::request::MemoryMapRequest;
///
/// static MEMORY: MemoryMapRequest = MemoryMapRequest::new();
///
/// fn map(cells: &mut [MapEntry]) -> Option<Result<MemoryMap<'_>, MapError>> {
///     let entries = MEMORY.get_response()?.entries();
///     Some(MemoryMap::normalise(boot::limine::regions(entries), cells))
/// }
/// # assert!(map(&mut []).is_none());
/// ```
pub fn regions<'e>(entries: &'e [&'e Entry]) -> impl Iterator<Item = MemoryRegion> + Clone + 'e {
    entries.iter().map(|entry| region(entry))
}
