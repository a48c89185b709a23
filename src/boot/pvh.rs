//! PVH, the way in that `qemu -kernel`, Xen, Firecracker and Cloud Hypervisor offer.
//!
//! Its quirks: a start info of version 0 has no map; and the data is scattered (start info, map,
//! command line, module list, modules), all of it in memory that the map calls usable.

use core::ffi::CStr;

use pvh::start_info::reader::{MemMap, StartInfoReader};
use pvh::start_info::{MemmapTableEntry, ModlistEntry, StartInfo};

use super::Placed;
use super::e820::Entry;
use crate::map::MemoryRegion;

/// The entries of the map, as they came; none if the loader gave none.
///
/// # Examples
/// What a kernel prints when it starts:
///
/// ```
/// use frametree::boot;
/// use pvh::start_info::reader::{MemMap, StartInfoReader};
///
/// fn print<M: MemMap>(info: &StartInfoReader<'_, M>) {
///     for entry in boot::pvh::entries(info) {
///         println!("{:#014x} {:#012x} {}", entry.start, entry.length, entry.meaning());
///     }
/// }
/// ```
pub fn entries<'a, M: MemMap>(
    info: &StartInfoReader<'a, M>,
) -> impl Iterator<Item = Entry> + Clone + 'a {
    let entry =
        |entry: &MemmapTableEntry| Entry { start: entry.addr, length: entry.size, code: entry.ty };
    info.memmap().iter().map(entry)
}

/// What the loader has put into usable memory. `address` is the physical address of the start
/// info, as the loader has left it in `ebx`. Something that is not there has no bytes.
///
/// # Examples
/// What the kernel must not write over while it starts:
///
/// ```
/// use frametree::boot::{self, Placed};
/// use pvh::start_info::reader::{MemMap, StartInfoReader};
///
/// fn print<M: MemMap>(info: &StartInfoReader<'_, M>, ebx: u32) {
///     for Placed { what, region } in boot::pvh::placed(info, ebx) {
///         println!("{what}: {} bytes at {:#x}", region.length, region.start);
///     }
/// }
/// ```
pub fn placed<'i, M: MemMap>(
    info: &'i StartInfoReader<'_, M>,
    address: u32,
) -> impl Iterator<Item = Placed> + 'i {
    let raw = info.raw();
    let line = |line: Option<&CStr>| line.map_or(0, |line| line.count_bytes() as u64 + 1);
    let map = size_of_val::<[MemmapTableEntry]>(info.memmap()) as u64;
    let list = u64::from(raw.nr_modules) * size_of::<ModlistEntry>() as u64;
    let modules = info.modlist().flat_map(move |module| {
        let raw = module.raw();
        // The reader takes address 0 for a line; the protocol says that there is none.
        let named = if raw.cmdline_paddr == 0 { 0 } else { line(module.cmdline()) };
        [
            Placed::module(raw.paddr, raw.size),
            Placed::data("module's command line", raw.cmdline_paddr, named),
        ]
    });
    [
        Placed::data("start info", address.into(), size_of::<StartInfo>() as u64),
        Placed::data("start info's map", raw.memmap_paddr, map),
        Placed::data("command line", raw.cmdline_paddr, line(info.cmdline())),
        Placed::data("module list", raw.modlist_paddr, list),
    ]
    .into_iter()
    .chain(modules)
    .filter(|placed| placed.region.length > 0)
}

/// What the memory map needs to know: [`entries`], and [`placed`] over them. The kernel's image is
/// not in it.
///
/// # Examples
/// ```
/// use frametree::{MapEntry, MapError, MemoryMap, boot};
/// use pvh::start_info::reader::StartInfoReader;
///
/// /// # Safety
/// /// `ebx` is what PVH left there; physical addresses below 4 GiB are mapped to themselves.
/// unsafe fn map(ebx: u32, cells: &mut [MapEntry]) -> Result<MemoryMap<'_>, MapError> {
///     // SAFETY: by contract.
///     let info = unsafe { StartInfoReader::from_paddr_identity(ebx) }.expect("PVH's start info");
///     MemoryMap::normalise(boot::pvh::regions(&info, ebx), cells)
/// }
/// ```
pub fn regions<'i, M: MemMap>(
    info: &'i StartInfoReader<'_, M>,
    address: u32,
) -> impl Iterator<Item = MemoryRegion> + 'i {
    entries(info).map(Entry::region).chain(placed(info, address).map(|placed| placed.region))
}
