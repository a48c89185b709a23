//! The ACPI tables where some machines have them: above 4 GiB, and across the ends of pages.
//!
//! QEMU's firmware puts them lower. `acpi=high` on the command line copies those that this kernel
//! reads to the highest usable memory, with a root table of 64-bit addresses, and all is read from
//! there.

use frametree::boot::e820::Entry;
use frametree::{MemoryRegion, RegionKind};
use spin::Once;

use crate::firmware::Firmware;
use crate::handoff::{AcpiRoot, Handoff};
use crate::paging::{EARLY_MAP_END, map_firmware};
use crate::println;

/// Bytes for all copies.
const LENGTH: u64 = 64 << 10;
/// Where the tables begin in them: the first bytes of each are on another page than the rest.
const PLACES: [u64; 2] = [0x4000 - 20, 0x8000 - 50];
/// A table begins with a header of so many bytes, its length and checksum in it.
const HEADER: usize = 36;
const LENGTH_AT: usize = 4;
const CHECKSUM_AT: usize = 9;

static MOVED: Once<u64> = Once::new();

/// The first byte and the bytes that the copies take, if there are any.
pub fn reservation() -> Option<(u64, u64)> {
    MOVED.get().map(|&start| (start, LENGTH))
}

/// Copies the tables if the command line says so, and returns the root of the copies.
pub fn move_tables(handoff: &Handoff, firmware: &Firmware) -> Option<AcpiRoot> {
    if !handoff.command_line().split_whitespace().any(|word| word == "acpi=high") {
        return None;
    }
    let regions = handoff.memory_map().map(Entry::region);
    let usable = regions.filter(|region| region.kind == RegionKind::Usable);
    let end = usable.map(|MemoryRegion { start, length, .. }| start + length).max();
    let start = (end.expect("usable memory") & !0xfff) - LENGTH;
    assert!(start >= EARLY_MAP_END, "acpi=high needs memory above 4 GiB");
    MOVED.call_once(|| start);

    let mut root = [0; HEADER + 8 * PLACES.len()];
    root[..4].copy_from_slice(b"XSDT");
    root[LENGTH_AT] = root.len() as u8;
    let tables = firmware.places();
    for (index, ((from, length), place)) in tables.into_iter().zip(PLACES).enumerate() {
        let to = start + place;
        assert!(length <= 0x4000, "a table of {length} bytes");
        // SAFETY: The firmware's table is there, and nobody has been given this usable memory.
        unsafe { map_firmware(to, length).copy_from(map_firmware(from, length), length as usize) };
        root[HEADER + 8 * index..][..8].copy_from_slice(&to.to_le_bytes());
    }
    root[CHECKSUM_AT] = root.iter().fold(0, |sum: u8, &byte| sum.wrapping_sub(byte));
    let length = root.len();
    // SAFETY: As above.
    unsafe { map_firmware(start, length as u64).copy_from(root.as_ptr(), length) };
    println!("ACPI tables read at {start:#x}, above 4 GiB\n");
    Some(AcpiRoot::Table { revision: 2, address: start })
}
