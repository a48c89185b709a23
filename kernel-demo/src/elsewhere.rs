//! What some machines have above 4 GiB, where QEMU's firmware puts nothing: the ACPI tables, which
//! may also lie across the ends of pages, and the screen.
//!
//! Two words on the command line move them to the highest usable memory. `acpi=high` copies the
//! tables that this kernel reads, with a root table of 64-bit addresses, and all is read from there.
//! `screen-at=high` changes the address in the loader's description of the screen, and nothing else:
//! what is drawn can then be read in that memory.

use frametree::boot::e820::Entry;
use frametree::{MemoryRegion, RegionKind};
use spin::Once;

use crate::firmware::Firmware;
use crate::handoff::{AcpiRoot, Handoff};
use crate::paging::{EARLY_MAP_END, map_firmware};
use crate::println;
use crate::screen::Description;

/// Bytes for all copies.
const LENGTH: u64 = 64 << 10;
/// Where the tables begin in them: the first bytes of each are on another page than the rest.
const PLACES: [u64; 2] = [0x4000 - 20, 0x8000 - 50];
/// A table begins with a header of so many bytes, its length and checksum in it.
const HEADER: usize = 36;
const LENGTH_AT: usize = 4;
const CHECKSUM_AT: usize = 9;
/// The screen has whole pages of this size, as it is mapped: no other memory is on them.
const SCREEN_PAGE: u64 = 2 << 20;

/// What something takes up there: its name, first byte and bytes.
type Place = (&'static str, u64, u64);

static TABLES: Once<Place> = Once::new();
static SCREEN: Once<Place> = Once::new();

/// What was moved.
pub fn reservations() -> impl Iterator<Item = Place> {
    [&TABLES, &SCREEN].into_iter().filter_map(|place| place.get().copied())
}

/// Whether the command line has this word.
fn is_asked(handoff: &Handoff, word: &str) -> bool {
    handoff.command_line().split_whitespace().any(|it| it == word)
}

/// The end of the highest usable memory, in whole frames.
fn end_of_memory(handoff: &Handoff) -> u64 {
    let regions = handoff.memory_map().map(Entry::region);
    let usable = regions.filter(|region| region.kind == RegionKind::Usable);
    let end = usable.map(|MemoryRegion { start, length, .. }| start + length).max();
    end.expect("usable memory") & !0xfff
}

/// Takes these bytes, if they are above 4 GiB.
fn take(place: &Once<Place>, what: &'static str, start: u64, length: u64) {
    assert!(start >= EARLY_MAP_END, "the {what} need memory above 4 GiB");
    place.call_once(|| (what, start, length));
}

/// Copies the tables if the command line says so, and returns the root of the copies.
pub fn move_tables(handoff: &Handoff, firmware: &Firmware) -> Option<AcpiRoot> {
    if !is_asked(handoff, "acpi=high") {
        return None;
    }
    let start = end_of_memory(handoff) - LENGTH;
    take(&TABLES, "ACPI tables", start, LENGTH);

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

/// Chooses a place for the screen if the command line says so: below that of the tables.
pub fn move_screen(handoff: &Handoff) {
    let Some(screen) = handoff.framebuffer().filter(|_| is_asked(handoff, "screen-at=high")) else {
        return;
    };
    let length = screen.bytes_in_all().next_multiple_of(SCREEN_PAGE);
    let end = (end_of_memory(handoff) - LENGTH) / SCREEN_PAGE * SCREEN_PAGE;
    take(&SCREEN, "screen's pixels", end - length, length);
}

/// The screen, where it is now.
pub fn framebuffer(handoff: &Handoff) -> Option<Description> {
    let screen = handoff.framebuffer()?;
    let address = SCREEN.get().map_or(screen.address, |&(_, start, _)| start);
    Some(Description { address, ..screen })
}
