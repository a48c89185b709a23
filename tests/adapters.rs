//! The boot adapters on what loaders have really left: see `fixtures/boot/README.md`.
#![cfg(all(
    not(loom),
    feature = "bootloader_api",
    feature = "limine",
    feature = "multiboot2",
    feature = "pvh"
))]
use std::alloc::Layout;
use std::fs;
use std::path::Path;

use ::limine::memory_map::{Entry, EntryType};
use ::multiboot2::{BootInformation, BootInformationHeader};
use ::pvh::start_info::reader::{MemMap, StartInfoReader};
use frametree::boot::{self, Placed, bootloader_api, e820, limine, multiboot2, pvh, uefi};
use frametree::{MapEntry, MemoryMap, MemoryRegion, RegionKind};

use RegionKind::{Bad, Reclaimable, Reserved, Usable};

/// A piece of physical memory: its address and its bytes, aligned to 8 in this process.
struct Piece {
    address: u64,
    words: Vec<u64>,
    length: usize,
}

impl Piece {
    fn bytes(&self) -> &[u8] {
        // SAFETY: the words are initialised, and any bytes are a value.
        unsafe { std::slice::from_raw_parts(self.words.as_ptr().cast(), self.length) }
    }
}

/// Guest memory as far as it was saved.
struct Saved(Vec<Piece>);

impl Saved {
    fn folder(name: &str) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/boot").join(name);
        let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
        let piece = |path: &Path| {
            let (_, address) = path.file_stem()?.to_str()?.rsplit_once('-')?;
            let bytes = fs::read(path).ok()?;
            let words = bytes.chunks(8).map(|chunk| {
                let mut word = [0; 8];
                word[..chunk.len()].copy_from_slice(chunk);
                u64::from_ne_bytes(word)
            });
            let address = u64::from_str_radix(address, 16).ok()?;
            Some(Piece { address, words: words.collect(), length: bytes.len() })
        };
        Self(files.map(|file| piece(&file.expect("a file").path()).expect("a piece")).collect())
    }

    fn one(&self) -> &Piece {
        let [piece] = &self.0[..] else { panic!("{} pieces", self.0.len()) };
        piece
    }
}

impl MemMap for &Saved {
    fn ptr(&self, paddr: usize, layout: Layout) -> *const u8 {
        let begin = paddr as u64;
        let has = |piece: &&Piece| {
            let end = piece.address + piece.length as u64;
            piece.address <= begin && begin + layout.size() as u64 <= end
        };
        let piece = self.0.iter().find(has);
        piece.map_or(std::ptr::null(), |piece| {
            piece.bytes()[(begin - piece.address) as usize..].as_ptr()
        })
    }
}

/// The ranges of the map that becomes of these regions: start and end in bytes.
fn ranges(regions: impl IntoIterator<Item = MemoryRegion>) -> Vec<(u64, u64, RegionKind)> {
    let mut cells = [MapEntry::EMPTY; 1024];
    let map = MemoryMap::normalise(regions, &mut cells).expect("a map");
    let bytes = map
        .regions()
        .map(|(range, kind)| (range.start().start_address(), range.end().start_address(), kind));
    bytes.collect()
}

fn region(start: u64, length: u64, kind: RegionKind) -> MemoryRegion {
    MemoryRegion { start, length, kind }
}

#[test]
fn pvh_of_a_small_machine_with_an_initrd() {
    let saved = Saved::folder("pvh-64M");
    // SAFETY: the saved start info names addresses at which `Saved` has everything, or nothing.
    let info = unsafe { StartInfoReader::from_paddr(0x21e0, &saved) }.expect("a start info");
    let placed: Vec<_> = pvh::placed(&info, 0x21e0).collect();
    let expected = [
        Placed::data("start info", 0x21e0, 56),
        Placed::data("start info's map", 0x5a8, 168),
        Placed::data("command line", 0x11c0, 10),
        Placed::data("module list", 0x21c0, 32),
        Placed::module(0x3fb_9000, 123_456),
    ];
    assert_eq!(placed, expected);
    assert_eq!(info.cmdline(), Some(c"fail=hang"));
    let expected =
        [(0x0, 0x3000, Reclaimable), (0x3000, 0x9f000, Usable), (0x10_0000, 0x3fb_9000, Usable)];
    assert_eq!(ranges(pvh::regions(&info, 0x21e0))[..3], expected);
}

#[test]
fn pvh_of_a_machine_with_a_hole_below_4_gib() {
    let saved = Saved::folder("pvh-6G");
    // SAFETY: as above.
    let info = unsafe { StartInfoReader::from_paddr(0x21e0, &saved) }.expect("a start info");
    assert_eq!(pvh::entries(&info).count(), 10);
    let expected = [
        (0x0, 0x3000, Reclaimable),
        (0x3000, 0x9f000, Usable),
        (0x10_0000, 0x7ffe_0000, Usable),
        (0x1_0000_0000, 0x2_0000_0000, Usable),
    ];
    assert_eq!(ranges(pvh::regions(&info, 0x21e0)), expected);
}

fn load(piece: &Piece) -> BootInformation<'_> {
    let header = piece.words.as_ptr().cast::<BootInformationHeader>();
    // SAFETY: saved boot information in full, aligned to 8.
    unsafe { BootInformation::load(header) }.expect("boot information")
}

#[test]
fn multiboot2_by_grub_on_bios() {
    let saved = Saved::folder("multiboot2-bios");
    let (information, address) = (load(saved.one()), saved.one().address as u32);
    let placed: Vec<_> = multiboot2::placed(&information, address).collect();
    let section = |start, length| Placed::data("ELF section", start, length);
    let expected = [
        Placed::data("boot information", 0x1c_63c0, saved.one().length as u64),
        Placed::module(0x1c_7000, 123_456),
        // What debuggers read, and the symbols.
        section(0x10_0000, 0xbce),
        section(0x10_0bce, 0x6_544a),
        section(0x16_6018, 0x12b0),
        section(0x16_72c8, 0x2_bbb0),
        section(0x2f_15c0, 0x11_b35e),
        section(0x19_2e78, 0x3b60),
        section(0x19_69d8, 0x2_8606),
        section(0x1b_efe0, 0x1f08),
        section(0x1c_0ee8, 0x9f),
        section(0x1c_0f87, 0x5437),
    ];
    assert_eq!(placed, expected);
    let expected = [
        (0x0, 0x9f000, Usable),
        (0x10_0000, 0x1c_7000, Reclaimable),
        (0x1e_6000, 0x2f_1000, Usable),
        (0x2f_1000, 0x40_d000, Reclaimable),
        (0x40_d000, 0x7ffd_f000, Usable),
        (0x1_0000_0000, 0x2_0000_0000, Usable),
    ];
    assert_eq!(ranges(multiboot2::regions(&information, address)), expected);
}

#[test]
fn multiboot2_by_grub_on_uefi() {
    let saved = Saved::folder("multiboot2-uefi");
    let (information, address) = (load(saved.one()), saved.one().address as u32);
    let codes: Vec<_> = multiboot2::entries(&information).map(|entry| entry.code).collect();
    assert!(codes.contains(&20), "GRUB's own kind: {codes:?}");
    let expected = [
        (0x0, 0x1000, Usable),
        (0x1000, 0x9_e000, Reclaimable),
        (0x9_e000, 0xa_0000, Usable),
        (0x10_0000, 0x12_f000, Reclaimable),
        (0x14_e000, 0x2f_2000, Usable),
        (0x2f_2000, 0x40_e000, Reclaimable),
        (0x40_e000, 0x80_6000, Usable),
        (0x80_8000, 0x81_0000, Usable),
        (0x90_0000, 0x1eaa_0000, Usable),
        (0x1eba_2000, 0x1f4e_c000, Usable),
        (0x1f76_c000, 0x1f77_e000, Reclaimable),
        (0x1f7f_e000, 0x1fef_4000, Usable),
    ];
    assert_eq!(ranges(multiboot2::regions(&information, address)), expected);
}

/// The same information without the tag of that number, which is given one that nobody knows.
fn without_tag(piece: &Piece, number: u32) -> Piece {
    let mut bytes = piece.bytes().to_vec();
    let word = |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let mut at = 8;
    while word(&bytes, at) != number {
        at += (word(&bytes, at + 4) as usize).next_multiple_of(8);
    }
    bytes[at..at + 4].copy_from_slice(&0x7777_u32.to_le_bytes());
    let words = bytes.chunks_exact(8).map(|word| u64::from_ne_bytes(word.try_into().unwrap()));
    Piece { address: piece.address, words: words.collect(), length: piece.length }
}

#[test]
fn multiboot2_falls_back_to_the_map_of_uefi() {
    let saved = Saved::folder("multiboot2-uefi");
    let stripped = without_tag(saved.one(), 6);
    let information = load(&stripped);
    assert_eq!(multiboot2::entries(&information).count(), 0);
    let address = stripped.address as u32;
    let fallback = ranges(multiboot2::regions(&information, address));
    let own = ranges(multiboot2::regions(&load(saved.one()), address));
    // What boot services have used is not usable by UEFI's own account, but reclaimable.
    let sum = |ranges: &[(u64, u64, RegionKind)], kind| {
        let of_kind = ranges.iter().filter(|range| range.2 == kind);
        of_kind.map(|(start, end, _)| end - start).sum::<u64>()
    };
    assert!(sum(&fallback, Usable) < sum(&own, Usable));
    assert!(sum(&fallback, Reclaimable) > sum(&own, Reclaimable));
    let neither = without_tag(&stripped, 17);
    let placed_only = ranges(multiboot2::regions(&load(&neither), address));
    assert!(placed_only.iter().all(|range| range.2 != Usable), "{placed_only:?}");
}

#[test]
fn an_old_bios_table_says_the_same_as_the_loader_that_copied_it() {
    let saved = Saved::folder("multiboot2-bios");
    let information = load(saved.one());
    let entries: Vec<_> = multiboot2::entries(&information).collect();
    let row = |entry: &e820::Entry| {
        let mut row = [0; 20];
        row[..8].copy_from_slice(&entry.start.to_le_bytes());
        row[8..16].copy_from_slice(&entry.length.to_le_bytes());
        row[16..].copy_from_slice(&entry.code.to_le_bytes());
        row
    };
    let table: Vec<u8> = entries.iter().flat_map(row).collect();
    assert_eq!(e820::entries(&table, 20).collect::<Vec<_>>(), entries);
}

#[test]
fn a_bios_asked_by_a_boot_sector() {
    let saved = Saved::folder("e820");
    let table = saved.one().bytes();
    assert_eq!((e820::entries(table, 24).count(), table.len()), (10, 240));
    let expected = [
        (0x0, 0x9f000, Usable),
        (0x10_0000, 0x7ffd_f000, Usable),
        (0x1_0000_0000, 0x2_0000_0000, Usable),
    ];
    assert_eq!(ranges(e820::regions(table, 24)), expected);
    // GRUB has asked the same BIOS on the same machine.
    let saved = Saved::folder("multiboot2-bios");
    let theirs = load(saved.one());
    assert!(e820::entries(table, 24).eq(multiboot2::entries(&theirs)));
}

#[test]
fn uefi_of_a_grub_that_has_left_it() {
    use uefi_raw::table::boot::MemoryType;

    let saved = Saved::folder("multiboot2-uefi");
    let information = load(saved.one());
    let descriptors: Vec<_> = multiboot2::descriptors(&information).collect();
    let pages = |ty| {
        let of_type = descriptors.iter().filter(|descriptor| descriptor.ty == ty);
        of_type.map(|descriptor| descriptor.page_count).sum::<u64>()
    };
    let bytes = |wanted| {
        let regions = uefi::regions(&descriptors);
        regions.filter(|region| region.kind == wanted).map(|region| region.length).sum::<u64>()
    };
    assert_eq!(bytes(Usable), pages(MemoryType::CONVENTIONAL) * 4096);
    let boot_services =
        pages(MemoryType::BOOT_SERVICES_CODE) + pages(MemoryType::BOOT_SERVICES_DATA);
    assert!(boot_services > 0);
    assert_eq!(bytes(Reclaimable), (boot_services + pages(MemoryType::ACPI_RECLAIM)) * 4096);
    assert!(pages(MemoryType::LOADER_DATA) > 0, "GRUB itself");
}

/// The entries that `bootloader` has left for its kernel, whose type the crate fixes as C does.
fn regions_of_bootloader(piece: &Piece) -> Vec<::bootloader_api::info::MemoryRegion> {
    use ::bootloader_api::info::{MemoryRegion as Entry, MemoryRegionKind as Kind};

    let entry = |words: &[u64]| {
        let number = (words[2] >> 32) as u32;
        let kind = match words[2] as u32 {
            0 => Kind::Usable,
            1 => Kind::Bootloader,
            2 => Kind::UnknownUefi(number),
            3 => Kind::UnknownBios(number),
            other => panic!("kind {other}"),
        };
        Entry { start: words[0], end: words[1], kind }
    };
    piece.words.chunks_exact(size_of::<Entry>() / 8).map(entry).collect()
}

#[test]
fn the_bootloader_crate_on_bios() {
    let saved = Saved::folder("bootloader-bios");
    let entries = regions_of_bootloader(saved.one());
    let expected = [
        (0x0, 0x9f000, Usable),
        (0x10_0000, 0x100_0000, Usable),
        // Between them are the kernel, its ramdisk, the page tables, the stack, this map.
        (0x145_5000, 0x7ffd_f000, Usable),
        (0x1_0000_0000, 0x2_0000_0000, Usable),
    ];
    assert_eq!(ranges(bootloader_api::regions(&entries)), expected);
}

#[test]
fn the_bootloader_crate_on_uefi() {
    let saved = Saved::folder("bootloader-uefi");
    let entries = regions_of_bootloader(saved.one());
    assert_eq!(entries.len(), 127);
    let expected = [
        (0x0, 0xa_0000, Usable),
        // Page tables, stack, this map; the firmware's.
        (0x13_5000, 0x80_6000, Usable),
        (0x80_8000, 0x81_0000, Usable),
        (0x90_0000, 0x1e28_f000, Usable),
        // The ramdisk, and right behind it the kernel.
        (0x1e2b_3000, 0x1eaa_0000, Usable),
        (0x1eba_2000, 0x1f4e_c000, Usable),
        (0x1f76_c000, 0x1f77_e000, Reclaimable),
        (0x1f7f_e000, 0x1fef_4000, Usable),
    ];
    assert_eq!(ranges(bootloader_api::regions(&entries)), expected);
}

#[test]
fn uefi_memory_with_strings_attached_is_not_usable() {
    use uefi_raw::table::boot::{MemoryAttribute, MemoryDescriptor, MemoryType};

    let kind = |ty, att| {
        let descriptor = MemoryDescriptor { ty, att, page_count: 1, ..Default::default() };
        uefi::region(&descriptor).kind
    };
    let plain = MemoryAttribute::WRITE_BACK | MemoryAttribute::WRITE_COMBINE;
    let conventional = MemoryType::CONVENTIONAL;
    assert_eq!(kind(conventional, plain), Usable);
    assert_eq!(kind(conventional, plain | MemoryAttribute::MORE_RELIABLE), Usable);
    assert_eq!(kind(conventional, MemoryAttribute::UNCACHEABLE), Reserved);
    assert_eq!(kind(conventional, plain | MemoryAttribute::SPECIAL_PURPOSE), Reserved);
    assert_eq!(kind(conventional, plain | MemoryAttribute::NON_VOLATILE), Reserved);
    assert_eq!(kind(MemoryType::BOOT_SERVICES_DATA, plain | MemoryAttribute::RUNTIME), Reserved);
    assert_eq!(kind(MemoryType::UNUSABLE, plain), Bad);
    for ty in [MemoryType::UNACCEPTED, MemoryType::PERSISTENT_MEMORY, MemoryType(0x8000_0001)] {
        assert_eq!(kind(ty, plain), Reserved, "{ty:?}");
    }
    let endless = MemoryDescriptor { page_count: u64::MAX, ..Default::default() };
    assert_eq!(uefi::region(&endless).length, u64::MAX);
}

/// Limine's types, by their numbers, and what they are here.
const OF_LIMINE: [(EntryType, RegionKind); 8] = [
    (EntryType::USABLE, Usable),
    (EntryType::RESERVED, Reserved),
    (EntryType::ACPI_RECLAIMABLE, Reclaimable),
    (EntryType::ACPI_NVS, Reserved),
    (EntryType::BAD_MEMORY, Bad),
    (EntryType::BOOTLOADER_RECLAIMABLE, Reclaimable),
    (EntryType::EXECUTABLE_AND_MODULES, Reserved),
    (EntryType::FRAMEBUFFER, Reserved),
];

#[test]
fn limine_keeps_the_kernel_and_lends_the_loader_s_memory() {
    let entry = |(index, &(entry_type, _)): (usize, &(EntryType, RegionKind))| Entry {
        base: index as u64 * 0x1000,
        length: 0x1000,
        entry_type,
    };
    let entries: Vec<_> = OF_LIMINE.iter().enumerate().map(entry).collect();
    let pointers: Vec<_> = entries.iter().collect();
    let expected =
        OF_LIMINE.iter().zip(0..).map(|((_, kind), at)| region(at * 0x1000, 0x1000, *kind));
    assert!(limine::regions(&pointers).eq(expected));
}

#[test]
fn limine_on_bios() {
    let entry = |line: &str| {
        let numbers = line.split(' ').map(|word| u64::from_str_radix(word, 16).expect("hex"));
        let numbers: Vec<_> = numbers.collect();
        let [base, end, number] = numbers[..] else { panic!("{line}") };
        Entry { base, length: end - base, entry_type: OF_LIMINE[number as usize].0 }
    };
    let map = include_str!("fixtures/boot/limine-bios/map.txt");
    let entries: Vec<_> = map.lines().map(entry).collect();
    let pointers: Vec<_> = entries.iter().collect();
    let expected = [
        (0x1000, 0x5_0000, Reclaimable),
        (0x5_0000, 0x9_f000, Usable),
        (0x10_0000, 0x1fc0_9000, Usable),
        // Between them are the kernel, and what it was given with it.
        (0x1fc0_9000, 0x1fdd_f000, Reclaimable),
        (0x1fde_c000, 0x1fdf_8000, Reclaimable),
        (0x1fe9_3000, 0x1ffd_f000, Reclaimable),
    ];
    assert_eq!(ranges(limine::regions(&pointers)), expected);
}

#[test]
fn the_bootloader_crate_s_entries_end_where_others_have_lengths() {
    use ::bootloader_api::info::{MemoryRegion as Entry, MemoryRegionKind as Kind};

    let kinds = [
        (Kind::Usable, Usable),
        (Kind::Bootloader, Reserved),
        (Kind::UnknownBios(2), Reserved),
        (Kind::UnknownBios(3), Reclaimable),
        (Kind::UnknownBios(5), Bad),
        (Kind::UnknownUefi(8), Bad),
        (Kind::UnknownUefi(9), Reclaimable),
        (Kind::UnknownUefi(3), Reserved),
    ];
    for (kind, expected) in kinds {
        let entry = Entry { start: 0x1000, end: 0x5000, kind };
        assert!(bootloader_api::regions(&[entry]).eq([region(0x1000, 0x4000, expected)]));
        let backwards = Entry { start: 0x5000, end: 0x1000, kind };
        assert_eq!(boot::bootloader_api::region(&backwards).length, 0);
    }
}
