//! Multiboot2, by which GRUB starts a kernel on BIOS and UEFI machines.
//!
//! Its quirks: the boot information and the modules lie in memory that the map calls usable, the
//! information at 0x1000c8, 0x9c000 or anywhere; GRUB on UEFI reports kind 20 beside those of the
//! standard, and calls boot services memory usable, rightly: the firmware is gone when the kernel
//! starts. A loader may give UEFI's map alone. GRUB also loads those sections of the kernel's file
//! that no program needs, symbols and debug information, and puts them into usable memory wherever
//! there is room: reclaimable here, for kernels that print names in their backtraces.

use multiboot2::{
    BootInformation, EFIMemoryDesc, ElfSectionExt, ElfSectionFlags, MemoryArea, ModuleTag,
};
use uefi_raw::table::boot::{MemoryAttribute, MemoryDescriptor, MemoryType};

use super::e820::Entry;
use super::{Placed, uefi};
use crate::map::MemoryRegion;

/// The entries of the map, as they came; none if the loader gave none or UEFI's only.
///
/// # Panics
/// If the loader's entries are not of 24 bytes, as `multiboot2` does.
///
/// # Examples
/// What a kernel prints when it starts:
///
/// ```
/// use frametree::boot;
/// use multiboot2::BootInformation;
///
/// fn print(information: &BootInformation<'_>) {
///     for entry in boot::multiboot2::entries(information) {
///         println!("{:#014x} {:#012x} {}", entry.start, entry.length, entry.meaning());
///     }
/// }
/// ```
pub fn entries<'a>(
    information: &'a BootInformation<'_>,
) -> impl Iterator<Item = Entry> + Clone + 'a {
    let entry = |area: &MemoryArea| Entry {
        start: area.start_address(),
        length: area.size(),
        code: area.typ().val(),
    };
    information
        .memory_map_tag()
        .into_iter()
        .flat_map(move |tag| tag.memory_areas().iter().map(entry))
}

/// UEFI's own map, if the loader has handed it on, in the types of the newer `uefi-raw` that the
/// `uefi` crate and [`uefi`] have.
///
/// # Examples
/// Memory that UEFI's runtime services need mapped, also when GRUB's own map is used:
///
/// ```
/// use frametree::boot;
/// use multiboot2::BootInformation;
/// use uefi_raw::table::boot::MemoryAttribute;
///
/// fn runtime_pages(information: &BootInformation<'_>) -> u64 {
///     let all = boot::multiboot2::descriptors(information);
///     let needed = all.filter(|descriptor| descriptor.att.contains(MemoryAttribute::RUNTIME));
///     needed.map(|descriptor| descriptor.page_count).sum()
/// }
/// ```
pub fn descriptors<'a>(
    information: &'a BootInformation<'_>,
) -> impl Iterator<Item = MemoryDescriptor> + Clone + 'a {
    let newer = |older: &EFIMemoryDesc| MemoryDescriptor {
        ty: MemoryType(older.ty.0),
        phys_start: older.phys_start,
        virt_start: older.virt_start,
        page_count: older.page_count,
        att: MemoryAttribute::from_bits_retain(older.att.bits()),
        ..Default::default()
    };
    information.efi_memory_map_tag().into_iter().flat_map(move |tag| tag.memory_areas().map(newer))
}

/// What the loader has put into usable memory. `address` is the physical address of the boot
/// information, as the loader has left it in `ebx`: the kernel may read it elsewhere.
///
/// # Panics
/// If the kernel's ELF sections are said to have headers of neither 40 nor 64 bytes, as
/// `multiboot2` does.
///
/// # Examples
/// What the kernel must not write over while it starts:
///
/// ```
/// use frametree::boot::{self, Placed};
/// use multiboot2::BootInformation;
///
/// fn print(information: &BootInformation<'_>, ebx: u32) {
///     for Placed { what, region } in boot::multiboot2::placed(information, ebx) {
///         println!("{what}: {} bytes at {:#x}", region.length, region.start);
///     }
/// }
/// ```
pub fn placed<'a>(
    information: &'a BootInformation<'_>,
    address: u32,
) -> impl Iterator<Item = Placed> + Clone + 'a {
    let length = information.total_size() as u64;
    let module = |module: &ModuleTag| {
        Placed::module(module.start_address().into(), module.module_size().into())
    };
    let modules = information.module_tags().map(module);
    core::iter::once(Placed::data("boot information", address.into(), length))
        .chain(modules)
        .chain(sections(information))
}

/// Sections of the kernel's file that are not part of the kernel.
fn sections<'a>(information: &'a BootInformation<'_>) -> impl Iterator<Item = Placed> + Clone + 'a {
    let tag = information.elf_sections_tag();
    let count = tag.map_or(0, |tag| tag.number_of_sections() as usize);
    let sections = (0..count).filter_map(move |index| tag?.sections().nth(index));
    let apart = sections.filter(|section| !section.flags().contains(ElfSectionFlags::ALLOCATED));
    // Address 0 is also what a section has that was not loaded; frame 0 is nobody's anyway.
    let loaded = apart.filter(|section| section.sh_addr != 0 && section.sh_size != 0);
    loaded.map(|section| Placed::data("ELF section", section.sh_addr, section.sh_size))
}

/// What the memory map needs to know: [`entries`], or what UEFI's map says if that is all there
/// is, and [`placed`] over it. The kernel's image is not in it.
///
/// # Panics
/// As [`entries`].
///
/// # Examples
/// ```
/// use frametree::{MapEntry, MapError, MemoryMap, boot};
/// use multiboot2::{BootInformation, BootInformationHeader};
///
/// /// # Safety
/// /// `ebx` is what the loader left there, mapped to itself.
/// unsafe fn map(ebx: u32, cells: &mut [MapEntry]) -> Result<MemoryMap<'_>, MapError> {
///     let header = core::ptr::with_exposed_provenance::<BootInformationHeader>(ebx as usize);
///     // SAFETY: by contract.
///     let information = unsafe { BootInformation::load(header) }.expect("sound information");
///     MemoryMap::normalise(boot::multiboot2::regions(&information, ebx), cells)
/// }
/// ```
pub fn regions<'a>(
    information: &'a BootInformation<'_>,
    address: u32,
) -> impl Iterator<Item = MemoryRegion> + 'a {
    let has_own = information.memory_map_tag().is_some();
    let firmware = descriptors(information).filter(move |_| !has_own);
    let firmware = firmware.map(|descriptor| uefi::region(&descriptor));
    let own = entries(information).map(Entry::region);
    own.chain(firmware).chain(placed(information, address).map(|placed| placed.region))
}
