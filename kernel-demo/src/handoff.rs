//! What the boot loader hands over: the memory map, the places in usable memory that are taken
//! already, the command line and the way to the ACPI tables.
//!
//! The only file that knows PVH from multiboot2. It reads what the loader wrote and believes it;
//! nothing here allocates or changes anything. What is handed over lies in memory that the map
//! calls usable: it stays intact only because [`Handoff::reservations`] names it.

use ::multiboot2::{BootInformation, BootInformationHeader, FramebufferType, MAGIC};
use ::pvh::start_info::reader::{IdentityMap, StartInfoReader};
use frametree::boot::e820::Entry;
use frametree::boot::{Placed, multiboot2, pvh};

use crate::boot;
use crate::screen::Description;

/// Both protocols give addresses below 4 GiB, where boot.s maps physical addresses to themselves;
/// first of all that of what is read here.
enum Protocol {
    Pvh(StartInfoReader<'static, IdentityMap>, u32),
    Multiboot2(BootInformation<'static>, u32),
}

/// What the boot loader left for us.
pub struct Handoff(Protocol);

/// How to get to the ACPI tables.
pub enum AcpiRoot {
    /// The physical address of the root pointer.
    Pointer(u64),
    /// The root table itself.
    Table {
        /// The revision, 0 for ACPI 1.0.
        revision: u8,
        /// The physical address of the RSDT or, from revision 2 on, the XSDT.
        address: u64,
    },
}

impl Handoff {
    /// Finds out who booted us, from the values that were in the registers at the entry. `None`
    /// if it is nobody we know.
    ///
    /// # Safety
    /// The values are what the boot loader left in `eax` and `ebx`, and its data is untouched.
    pub unsafe fn receive(magic: u32, information: u32) -> Option<Self> {
        if magic == MAGIC {
            let header = information as usize as *const BootInformationHeader;
            // SAFETY: By the magic number this is multiboot2's information, and by contract
            // nobody has changed it. It stays: `reservations` names it.
            let loaded = unsafe { BootInformation::load(header) }.ok()?;
            Some(Self(Protocol::Multiboot2(loaded, information)))
        } else {
            // SAFETY: By contract this is what the loader left; the reader checks PVH's magic
            // number in memory, and all addresses are below 4 GiB, mapped to themselves.
            let reader = unsafe { StartInfoReader::from_paddr_identity(information) }?;
            Some(Self(Protocol::Pvh(reader, information)))
        }
    }

    /// The boot protocol's name.
    pub fn protocol(&self) -> &'static str {
        match self.0 {
            Protocol::Pvh(..) => "PVH",
            Protocol::Multiboot2(..) => "multiboot2",
        }
    }

    /// The memory map, as it came.
    pub fn memory_map(&self) -> impl Iterator<Item = Entry> + Clone + '_ {
        let (pvh, multiboot2) = match &self.0 {
            Protocol::Pvh(reader, _) => (Some(pvh::entries(reader)), None),
            Protocol::Multiboot2(information, _) => (None, Some(multiboot2::entries(information))),
        };
        pvh.into_iter().flatten().chain(multiboot2.into_iter().flatten())
    }

    /// Calls `each` for everything that lies in usable memory and has to stay: its name, first
    /// byte and bytes.
    pub fn reservations(&self, mut each: impl FnMut(&'static str, u64, u64)) {
        // Frame 0, firmware data, and the page in which other CPUs start.
        each("first MiB", 0, 1 << 20);
        let (start, length) = boot::kernel_image();
        each("kernel image", start, length);
        let placed = |Placed { what, region }| each(what, region.start, region.length);
        match &self.0 {
            Protocol::Pvh(reader, address) => pvh::placed(reader, *address).for_each(placed),
            Protocol::Multiboot2(information, address) => {
                multiboot2::placed(information, *address).for_each(placed);
            }
        }
    }

    /// The command line, empty if there is none.
    pub fn command_line(&self) -> &str {
        match &self.0 {
            Protocol::Pvh(reader, _) => reader.cmdline().and_then(|line| line.to_str().ok()),
            Protocol::Multiboot2(information, _) => {
                information.command_line_tag().and_then(|tag| tag.cmdline().ok())
            }
        }
        .unwrap_or("")
    }

    /// The screen, if the loader has set one up that shows pixels of red, green and blue.
    pub fn framebuffer(&self) -> Option<Description> {
        let Protocol::Multiboot2(information, _) = &self.0 else {
            return None;
        };
        let tag = information.framebuffer_tag()?.ok()?;
        let Ok(FramebufferType::RGB { red, green, blue }) = tag.buffer_type() else {
            return None;
        };
        let is_full_colour = [red.size, green.size, blue.size] == [8; 3];
        let bytes = u32::from(tag.bpp()) / 8;
        // GRUB on UEFI gives address 0 for a card that has no pixels in memory, only calls.
        let is_in_memory = tag.address() != 0;
        (is_full_colour && is_in_memory && matches!(bytes, 3 | 4)).then(|| Description {
            address: tag.address(),
            pitch: tag.pitch(),
            width: tag.width(),
            height: tag.height(),
            bytes,
            shifts: [red.position, green.position, blue.position],
        })
    }

    /// Where the ACPI tables begin.
    pub fn acpi_root(&self) -> Option<AcpiRoot> {
        match &self.0 {
            Protocol::Pvh(reader, _) => {
                Some(reader.raw().rsdp_paddr).filter(|&a| a != 0).map(AcpiRoot::Pointer)
            }
            Protocol::Multiboot2(information, _) => {
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
