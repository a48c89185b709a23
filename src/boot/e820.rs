//! The BIOS' memory map, by the interrupt call with `eax = 0xe820`, whose codes and layout PVH,
//! multiboot2 and Linux' boot protocol have taken over.
//!
//! Its quirks: entries are packed, of 20 bytes, or of 24 with attributes whose lowest bit says that
//! the entry counts at all; codes that no standard lists are reserved; non-volatile memory can be
//! listed as usable. A BIOS that knows 20 bytes leaves the attributes as they were: set them to
//! 1 before each call, or zeroed room reads as entries that do not count.

use crate::map::{MemoryRegion, RegionKind};

/// One entry of such a map, as it came.
///
/// # Examples
/// What a kernel prints of the BIOS' map when it starts:
///
/// ```
/// use frametree::boot::e820::Entry;
///
/// fn print(entries: impl Iterator<Item = Entry>) {
///     for entry in entries {
///         println!("{:#014x} {:#012x} {}", entry.start, entry.length, entry.meaning());
///     }
/// }
/// # print([Entry { start: 0x10_0000, length: 0x7fe_0000, code: 1 }].into_iter());
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The physical address of its first byte.
    pub start: u64,
    /// How many bytes.
    pub length: u64,
    /// What they are, in the BIOS' numbers.
    pub code: u32,
}

impl Entry {
    /// The entry in the terms of the memory map.
    ///
    /// # Examples
    /// Entries from elsewhere than a table, such as real-mode code that has asked one by one:
    ///
    /// ```
    /// use frametree::{MapEntry, MemoryMap, boot::e820::Entry};
    ///
    /// let asked = [(0, 0x9_fc00, 1), (0x10_0000, 0x7f0_0000, 1), (0xfffc_0000, 0x4_0000, 2)];
    /// let entries = asked.map(|(start, length, code)| Entry { start, length, code });
    /// let mut cells = [MapEntry::EMPTY; MemoryMap::entries_needed(3)];
    /// let map = MemoryMap::normalise(entries.map(Entry::region), &mut cells)?;
    /// assert_eq!(map.usable().count(), 2);
    /// # Ok::<(), frametree::MapError>(())
    /// ```
    #[must_use]
    pub const fn region(self) -> MemoryRegion {
        let kind = match self.code {
            1 => RegionKind::Usable,
            3 => RegionKind::Reclaimable,
            5 => RegionKind::Bad,
            _ => RegionKind::Reserved,
        };
        MemoryRegion { start: self.start, length: self.length, kind }
    }

    /// What the code means, in words.
    ///
    /// # Examples
    /// ```
    /// # use frametree::boot::e820::Entry;
    /// let entry = Entry { start: 0x7fe_0000, length: 0x2_0000, code: 3 };
    /// assert_eq!(entry.meaning(), "ACPI tables");
    /// ```
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self.code {
            1 => "usable",
            2 => "reserved",
            3 => "ACPI tables",
            4 => "ACPI NVS",
            5 => "bad memory",
            6 => "disabled",
            7 => "persistent memory",
            _ => "unknown, so reserved",
        }
    }

    /// The entry in the bytes of a table; `None` if they are too few or if it says of itself that
    /// it does not count.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let (start, rest) = bytes.split_first_chunk()?;
        let (length, rest) = rest.split_first_chunk()?;
        let (code, rest) = rest.split_first_chunk()?;
        let attributes = rest.first_chunk().map_or(COUNTS, |bytes| u32::from_le_bytes(*bytes));
        let code = match u32::from_le_bytes(*code) {
            1 if attributes & NON_VOLATILE != 0 => PERSISTENT,
            code => code,
        };
        let (start, length) = (u64::from_le_bytes(*start), u64::from_le_bytes(*length));
        (attributes & COUNTS != 0).then_some(Self { start, length, code })
    }
}

/// Attributes of an entry of 24 bytes.
const COUNTS: u32 = 1 << 0;
const NON_VOLATILE: u32 = 1 << 1;
/// The code of persistent memory.
const PERSISTENT: u32 = 7;

/// The entries of a table in memory, `entry_bytes` apart: 20, or 24 with attributes. A rest that is
/// no whole entry is left out. O(1) for each entry.
///
/// # Panics
/// If `entry_bytes` is 0.
///
/// # Examples
/// How many bytes of persistent memory a machine has, which no pool should get:
///
/// ```
/// # use frametree::boot::e820;
/// fn persistent(table: &[u8]) -> u64 {
///     let all = e820::entries(table, 24);
///     all.filter(|entry| entry.meaning() == "persistent memory").map(|entry| entry.length).sum()
/// }
/// # let mut table = [0; 24];
/// # (table[10], table[16], table[20]) = (16, 7, 1);
/// # assert_eq!(persistent(&table), 1 << 20);
/// ```
pub fn entries(table: &[u8], entry_bytes: usize) -> impl Iterator<Item = Entry> + Clone + '_ {
    table.chunks_exact(entry_bytes).filter_map(Entry::parse)
}

/// What the entries of a table say: [`entries`], for the memory map.
///
/// The table itself lies where the kernel's real-mode code has put it; keep that out of the map.
///
/// # Panics
/// As [`entries`].
///
/// # Examples
/// Linux' boot protocol hands over a page with up to 128 entries:
///
/// ```
/// use frametree::{MapEntry, MemoryMap, boot::e820};
///
/// fn map<'b>(zero_page: &[u8; 4096], cells: &'b mut [MapEntry]) -> MemoryMap<'b> {
///     let count = usize::from(zero_page[0x1e8]).min(128);
///     let table = &zero_page[0x2d0..][..count * 20];
///     MemoryMap::normalise(e820::regions(table, 20), cells).expect("256 cells")
/// }
/// # let mut page = [0; 4096];
/// # page[0x1e8] = 1;
/// # (page[0x2d2], page[0x2da], page[0x2e0]) = (16, 16, 1); // 1 MiB at 1 MiB, usable
/// # assert_eq!(map(&page, &mut [MapEntry::EMPTY; 256]).usable_frames(), 256);
/// ```
pub fn regions(
    table: &[u8],
    entry_bytes: usize,
) -> impl Iterator<Item = MemoryRegion> + Clone + '_ {
    entries(table, entry_bytes).map(Entry::region)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An entry of 1 MiB at 1 MiB.
    fn bytes(code: u32, attributes: u32) -> [u8; 24] {
        let mut bytes = [0; 24];
        for at in [0, 8] {
            bytes[at..][..8].copy_from_slice(&(1u64 << 20).to_le_bytes());
        }
        bytes[16..20].copy_from_slice(&code.to_le_bytes());
        bytes[20..].copy_from_slice(&attributes.to_le_bytes());
        bytes
    }

    fn kind(bytes: &[u8]) -> Option<RegionKind> {
        regions(bytes, bytes.len()).next().map(|region| region.kind)
    }

    #[test]
    fn each_code_has_its_words() {
        let meanings = [
            "unknown, so reserved",
            "usable",
            "reserved",
            "ACPI tables",
            "ACPI NVS",
            "bad memory",
            "disabled",
            "persistent memory",
            "unknown, so reserved",
        ];
        for (code, meaning) in (0..).zip(meanings) {
            assert_eq!(Entry { start: 0, length: 1, code }.meaning(), meaning);
        }
    }

    #[test]
    fn codes_that_no_standard_lists_are_reserved() {
        use RegionKind::{Bad, Reclaimable, Reserved, Usable};
        let kinds = [Reserved, Usable, Reserved, Reclaimable, Reserved, Bad, Reserved, Reserved];
        for (code, expected) in (0..).zip(kinds).chain([(12, Reserved), (20, Reserved)]) {
            assert_eq!(kind(&bytes(code, 0)[..20]), Some(expected), "code {code}");
            assert_eq!(kind(&bytes(code, COUNTS)), Some(expected), "code {code}");
        }
    }

    #[test]
    fn attributes_can_take_an_entry_back() {
        assert_eq!(kind(&bytes(1, 0)), None);
        assert_eq!(kind(&bytes(1, NON_VOLATILE)), None);
        assert_eq!(kind(&bytes(1, COUNTS | NON_VOLATILE)), Some(RegionKind::Reserved));
        assert_eq!(kind(&bytes(3, COUNTS | NON_VOLATILE)), Some(RegionKind::Reclaimable));
    }

    #[test]
    fn a_rest_that_is_no_entry_is_left_out() {
        let table = [bytes(1, COUNTS); 2];
        assert_eq!(entries(table.as_flattened(), 24).count(), 2);
        assert_eq!(entries(&table.as_flattened()[..47], 24).count(), 1);
        assert_eq!(entries(&[], 20).count(), 0);
        assert_eq!(entries(&[1; 19], 19).count(), 0);
    }
}
