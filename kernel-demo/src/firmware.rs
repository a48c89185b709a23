//! What the firmware's ACPI tables say: which CPUs there are, and where the timer is.
//!
//! The tables may lie anywhere, also where the early map does not reach. They are only read.

use acpi::fadt::Fadt;
use acpi::madt::{Madt, MadtEntry};
use acpi::{AcpiHandler, AcpiTables, PhysicalMapping};
use core::ptr::NonNull;

use crate::handoff::AcpiRoot;
use crate::paging::map_firmware;

/// Bit 0 of a CPU's flags: it can be started.
const ENABLED: u32 = 1;

/// Lets the `acpi` crate read physical memory.
#[derive(Clone, Copy, Debug)]
struct DirectMapped;

impl AcpiHandler for DirectMapped {
    unsafe fn map_physical_region<T>(
        &self,
        address: usize,
        size: usize,
    ) -> PhysicalMapping<Self, T> {
        let pointer = map_firmware(address as u64, size as u64).cast::<T>();
        let pointer = NonNull::new(pointer).expect("no map begins at 0");
        // SAFETY: By this method's contract there is a `T` of that size, and it is mapped.
        unsafe { PhysicalMapping::new(address, pointer, size, size, *self) }
    }

    fn unmap_physical_region<T>(_: &PhysicalMapping<Self, T>) {}
}

/// The ACPI tables.
pub struct Firmware(AcpiTables<DirectMapped>);

impl Firmware {
    /// Finds the tables.
    ///
    /// # Safety
    /// `root` is what the boot loader named.
    pub unsafe fn new(root: AcpiRoot) -> Option<Self> {
        // SAFETY: By contract the addresses are those of the root pointer or of the root table.
        let tables = unsafe {
            match root {
                AcpiRoot::Pointer(address) => AcpiTables::from_rsdp(DirectMapped, address as usize),
                AcpiRoot::Table { revision, address } => {
                    AcpiTables::from_rsdt(DirectMapped, revision, address as usize)
                }
            }
        };
        tables.ok().map(Self)
    }

    /// Calls `each` with the local APIC's number of each CPU that can run.
    pub fn cpus(&self, mut each: impl FnMut(u32)) {
        let Ok(madt) = self.0.find_table::<Madt>() else {
            return;
        };
        for entry in madt.get().entries() {
            match entry {
                MadtEntry::LocalApic(cpu) if cpu.flags & ENABLED != 0 => each(cpu.apic_id.into()),
                MadtEntry::LocalX2Apic(cpu) if cpu.flags & ENABLED != 0 => each(cpu.x2apic_id),
                _ => {}
            }
        }
    }

    /// Where the tables lie that are read here, and their lengths.
    pub fn places(&self) -> [(u64, u64); 2] {
        let madt = self.0.find_table::<Madt>().expect("a list of CPUs");
        let fadt = self.0.find_table::<Fadt>().expect("a fixed table");
        let place = |start: usize, length: usize| (start as u64, length as u64);
        [
            place(madt.physical_start(), madt.region_length()),
            place(fadt.physical_start(), fadt.region_length()),
        ]
    }

    /// The I/O port of the power management timer.
    pub fn pm_timer_port(&self) -> Option<u16> {
        let fadt = self.0.find_table::<Fadt>().ok()?;
        let block = fadt.pm_timer_block().ok()??;
        u16::try_from(block.address).ok()
    }
}
