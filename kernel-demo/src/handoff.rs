//! What the boot loader hands over: the memory map, the places in usable memory that are taken
//! already, the command line and the way to the ACPI tables.
//!
//! The only file that knows PVH from multiboot2. It reads what the loader wrote and believes it;
//! nothing here allocates or changes anything. What is handed over lies in memory that the map
//! calls usable: it stays intact only because [`Handoff::reservations`] names it.

use core::ffi::CStr;
use frametree::{MemoryRegion, RegionKind};
use multiboot2::{BootInformation, BootInformationHeader};
use pvh::start_info::reader::{IdentityMap, StartInfoReader};
use pvh::start_info::{MemmapTableEntry, ModlistEntry, StartInfo};

use crate::boot;

/// Both protocols give addresses below 4 GiB, where boot.s maps physical addresses to themselves.
enum Protocol {
    Pvh(StartInfoReader<'static, IdentityMap>),
    Multiboot2(BootInformation<'static>),
}

/// What the boot loader left for us.
pub struct Handoff(Protocol);

/// One entry of the map, as it came.
#[derive(Clone, Copy)]
pub struct RawEntry {
    /// Its first byte.
    pub start: u64,
    /// Its bytes.
    pub length: u64,
    /// What it is, in the numbers that BIOS, PVH and multiboot2 share.
    pub code: u32,
}

/// Memory that the map calls usable and that is not ours to give away.
#[derive(Clone, Copy)]
pub struct Reservation {
    /// What lies there.
    pub what: &'static str,
    /// Its first byte.
    pub start: u64,
    /// Its bytes.
    pub length: u64,
}

/// How to get to the ACPI tables.
pub enum AcpiRoot {
    /// The physical address of the root pointer.
    Pointer(u64),
    /// The physical address of the root table itself, and the ACPI revision.
    Table { revision: u8, address: u64 },
}

impl RawEntry {
    /// The entry in the terms of the allocator.
    pub fn region(self) -> MemoryRegion {
        let kind = match self.code {
            1 => RegionKind::Usable,
            3 => RegionKind::Reclaimable,
            5 => RegionKind::Bad,
            _ => RegionKind::Reserved,
        };
        MemoryRegion { start: self.start, length: self.length, kind }
    }

    /// What the code means, in words.
    pub fn meaning(self) -> &'static str {
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
}

impl Handoff {
    /// Finds out who booted us, from the values that were in the registers at the entry. `None`
    /// if it is nobody we know.
    ///
    /// # Safety
    /// The values are what the boot loader left in `eax` and `ebx`, and its data is untouched.
    pub unsafe fn receive(magic: u32, information: u32) -> Option<Self> {
        if magic == multiboot2::MAGIC {
            let header = information as usize as *const BootInformationHeader;
            // SAFETY: By the magic number this is multiboot2's information, and by contract
            // nobody has changed it. It stays: `reservations` names it.
            let information = unsafe { BootInformation::load(header) }.ok()?;
            Some(Self(Protocol::Multiboot2(information)))
        } else {
            // SAFETY: By contract this is what the loader left; the reader checks PVH's magic
            // number in memory, and all addresses are below 4 GiB, mapped to themselves.
            let reader = unsafe { StartInfoReader::from_paddr_identity(information) }?;
            Some(Self(Protocol::Pvh(reader)))
        }
    }

    /// The boot protocol's name.
    pub fn protocol(&self) -> &'static str {
        match self.0 {
            Protocol::Pvh(_) => "PVH",
            Protocol::Multiboot2(_) => "multiboot2",
        }
    }

    /// The memory map, as it came.
    pub fn memory_map(&self) -> impl Iterator<Item = RawEntry> + Clone + '_ {
        let (pvh, multiboot2) = match &self.0 {
            Protocol::Pvh(reader) => (Some(reader.memmap()), None),
            Protocol::Multiboot2(information) => {
                (None, information.memory_map_tag().map(|tag| tag.memory_areas()))
            }
        };
        let pvh = pvh.into_iter().flatten().map(|entry| RawEntry {
            start: entry.addr,
            length: entry.size,
            code: entry.ty,
        });
        let multiboot2 = multiboot2.into_iter().flatten().map(|area| RawEntry {
            start: area.start_address(),
            length: area.size(),
            code: area.typ().val(),
        });
        pvh.chain(multiboot2)
    }

    /// Calls `each` for everything that lies in usable memory and has to stay.
    pub fn reservations(&self, mut each: impl FnMut(Reservation)) {
        let mut reserve = |what, start, length| each(Reservation { what, start, length });
        // Frame 0, firmware data, and the page in which other CPUs start.
        reserve("first MiB", 0, 1 << 20);
        let (start, length) = boot::kernel_image();
        reserve("kernel image", start, length);
        match &self.0 {
            Protocol::Pvh(reader) => reserve_pvh(reader, reserve),
            Protocol::Multiboot2(information) => {
                let start = information.start_address() as u64;
                reserve("boot information", start, information.total_size() as u64);
                for module in information.module_tags() {
                    let length = u64::from(module.module_size());
                    reserve("boot module", u64::from(module.start_address()), length);
                }
            }
        }
    }

    /// The command line, empty if there is none.
    pub fn command_line(&self) -> &str {
        match &self.0 {
            Protocol::Pvh(reader) => reader.cmdline().and_then(|line| line.to_str().ok()),
            Protocol::Multiboot2(information) => {
                information.command_line_tag().and_then(|tag| tag.cmdline().ok())
            }
        }
        .unwrap_or("")
    }

    /// Where the ACPI tables begin.
    pub fn acpi_root(&self) -> Option<AcpiRoot> {
        match &self.0 {
            Protocol::Pvh(reader) => {
                Some(reader.raw().rsdp_paddr).filter(|&a| a != 0).map(AcpiRoot::Pointer)
            }
            Protocol::Multiboot2(information) => {
                let new = information.rsdp_v2_tag().map(|tag| AcpiRoot::Table {
                    revision: tag.revision(),
                    address: tag.xsdt_address() as u64,
                });
                let old = information
                    .rsdp_v1_tag()
                    .map(|tag| AcpiRoot::Table { revision: 0, address: tag.rsdt_address() as u64 });
                new.or(old)
            }
        }
    }
}

/// PVH scatters its data: the start info, the map, the module list, modules, command lines.
fn reserve_pvh(
    reader: &StartInfoReader<IdentityMap>,
    mut reserve: impl FnMut(&'static str, u64, u64),
) {
    let info = reader.raw();
    reserve("start info", (&raw const *info).addr() as u64, size_of::<StartInfo>() as u64);
    reserve(
        "start info's map",
        info.memmap_paddr,
        size_of_val::<[MemmapTableEntry]>(reader.memmap()) as u64,
    );
    let line = |line: Option<&CStr>| line.map_or(0, |line| line.count_bytes() as u64 + 1);
    reserve("command line", info.cmdline_paddr, line(reader.cmdline()));
    let list = u64::from(info.nr_modules) * size_of::<ModlistEntry>() as u64;
    reserve("module list", info.modlist_paddr, list);
    for module in reader.modlist() {
        let raw = module.raw();
        reserve("boot module", raw.paddr, raw.size);
        if raw.cmdline_paddr != 0 {
            reserve("module's command line", raw.cmdline_paddr, line(module.cmdline()));
        }
    }
}
