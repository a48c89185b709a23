//! A whole kernel that is a UEFI application: it leaves the boot services, starts the pool on the
//! memory that is free at once, moves to page tables, a stack and a GDT of its own, and then
//! reclaims what the boot services have used, which held all of these before.
//!
//! It shares no line with the other kernels: `frametree`, `uefi` and `x86_64` are all that it needs
//! for this, and small crates for a lock, COM1 and QEMU's exit.
#![no_std]
#![no_main]

use core::{arch::asm, fmt::Write, panic::PanicInfo, ptr::with_exposed_provenance_mut};

use frametree::cpus::{InterruptsOff, OneCpu, Pinned};
use frametree::{FRAME_SIZE, FramePool, GrowError, MapEntry, MemoryMap, Request, Setup, boot};
use qemu_exit::{QEMUExit, X86};
use spin::{Mutex, MutexGuard, Once};
use uart_16550::{Config, Uart16550Tty};
use uefi::{boot::exit_boot_services, entry, mem::memory_map::MemoryMap as _, prelude::Status};
use x86_64::instructions::{interrupts, segmentation::*};
use x86_64::registers::control::{Cr3, Cr3Flags};
use x86_64::structures::gdt::{Descriptor, GlobalDescriptorTable};
use x86_64::structures::idt::InterruptDescriptorTable;
use x86_64::structures::paging::{FrameAllocator, Mapper, OffsetPageTable, PhysFrame};
use x86_64::structures::paging::{PageTable, PageTableFlags, Size2MiB, Size4KiB};
use x86_64::{PhysAddr, VirtAddr};

static POOL: FramePool<Pinned<OneCpu, InterruptsOff>> = {
    // SAFETY: this kernel starts no other CPU.
    let one_cpu = unsafe { OneCpu::promised() };
    FramePool::new(Pinned::new(one_cpu, InterruptsOff))
};
const CELLS: usize = MemoryMap::entries_needed(512);
static BUFFER: Mutex<[MapEntry; CELLS]> = Mutex::new([MapEntry::EMPTY; CELLS]);
static MAP: Once<MemoryMap> = Once::new();

#[entry]
fn main() -> Status {
    // The firmware resets a machine whose loader is at work for five minutes. What has no such
    // timer says so.
    let _ = uefi::boot::set_watchdog_timer(0, 0x1_0000, None);
    // SAFETY: nothing here uses boot services afterwards; without them memory is as it was mapped.
    let firmware = unsafe { exit_boot_services(None) };
    interrupts::disable();
    let buffer = &mut MutexGuard::leak(BUFFER.lock())[..];
    let regions = boot::uefi::regions(firmware.entries());
    let mut map = MemoryMap::normalise(regions, buffer).expect("a map");
    map.reserve(0, 1 << 20).expect("room in the map"); // the first MiB
    // SAFETY: what the map calls usable is nobody's, and UEFI maps it all to itself.
    unsafe { POOL.init(&mut map, Setup::new(1), identity) }.expect("memory for the pool");
    say(format_args!("free at once: {} frames", POOL.stats().free_frames));
    MAP.call_once(|| map);
    move_out()
}

/// Leaves all that the firmware has set up: page tables, GDT, IDT and, last of all, the stack.
fn move_out() -> ! {
    let root: PhysFrame<Size4KiB> = (&POOL).allocate_frame().expect("a frame");
    let table: *mut PageTable = identity(root.start_address().as_u64()).cast();
    // SAFETY: the frame is ours.
    unsafe { table.write(PageTable::new()) };
    // SAFETY: the same; physical memory is mapped to itself, before and after.
    let mut tables = unsafe { OffsetPageTable::new(&mut *table, VirtAddr::zero()) };
    // Also what is reclaimed afterwards, wherever the firmware has put it.
    let map = MAP.get().expect("a map");
    let end = map.usable().chain(map.reclaimable()).map(|range| range.end().start_address()).max();
    for start in (0..end.unwrap_or(0).max(4 << 30)).step_by(2 << 20) {
        let page = PhysFrame::<Size2MiB>::containing_address(PhysAddr::new(start));
        let flags = PageTableFlags::PRESENT | PageTableFlags::WRITABLE;
        // SAFETY: these tables are not in use yet.
        unsafe { tables.identity_map(page, flags, &mut &POOL) }.expect("a page").ignore();
    }
    static GDT: Once<GlobalDescriptorTable> = Once::new();
    static IDT: InterruptDescriptorTable = InterruptDescriptorTable::new(); // a fault is a reset
    let mut gdt = GlobalDescriptorTable::new();
    let code = gdt.append(Descriptor::kernel_code_segment());
    let data = gdt.append(Descriptor::kernel_data_segment());
    GDT.call_once(|| gdt).load();
    IDT.load();
    let stack = POOL.alloc_run(&Request::new(16)).expect("frames").into_numbers();
    // SAFETY: the tables map everything as before, the segments are flat, the stack is ours.
    unsafe {
        CS::set_reg(code);
        SS::set_reg(data);
        Cr3::write(root, Cr3Flags::empty());
        let end = stack.end().start_address();
        asm!("mov rsp, {}", "call {}", "ud2", in(reg) end, sym moved_out, options(noreturn))
    }
}

extern "sysv64" fn moved_out() -> ! {
    let (mut joined, mut pieces) = (0, 0);
    for piece in MAP.get().expect("a map").reclaimable() {
        // SAFETY: whatever lay there, this kernel has left it, and reads no ACPI tables.
        match unsafe { POOL.grow(piece, identity) } {
            Ok(added) => (joined, pieces) = (joined + added.len(), pieces + 1),
            Err(GrowError::TooSmall { .. }) => {} // it would be all metadata
            Err(error) => panic!("{piece:?}: {error}"),
        }
    }
    let (mut held, free) = (0, POOL.stats().free_frames);
    while let Ok(frame) = POOL.alloc() {
        // SAFETY: it is ours, so nobody misses what was there. All memory, reclaimed or not.
        unsafe { identity(frame.start_address()).write_bytes(0xa5, FRAME_SIZE as usize) };
        let _ = frame.into_number(); // kept
        held += 1;
    }
    assert_eq!(held, free);
    POOL.verify().expect("a sound tree");
    say(format_args!("reclaimed: {joined} frames in {pieces} pieces; all overwritten: {held}"));
    // SAFETY: QEMU's exit device, or nothing.
    unsafe { X86::new(0xf4, 33) }.exit(0x10)
}

fn identity(physical: u64) -> *mut u8 {
    with_exposed_provenance_mut(physical as usize)
}

fn say(text: core::fmt::Arguments) {
    // SAFETY: COM1 on every PC, and nobody else uses it once the boot services are gone.
    let port = unsafe { Uart16550Tty::new_port(0x3f8, Config::default()) };
    let _ = port.map(|mut port| writeln!(port, "{text}"));
}

#[panic_handler]
fn panic(info: &PanicInfo) -> ! {
    say(format_args!("PANIC: {info}"));
    // SAFETY: as above.
    unsafe { X86::new(0xf4, 33) }.exit(0x11)
}
