//! A whole kernel for one CPU, started through PVH or multiboot2: it takes over all memory, has
//! `x86_64`'s mapper map pages to frames from the pool, and gives everything back.
//!
//! From `kernel_demo` it has what is not about memory: the way into 64-bit mode with the first
//! 4 GiB mapped, a console, and QEMU's exit.
#![no_std]
#![no_main]

use core::ptr::with_exposed_provenance;

use frametree::cpus::{InterruptsOff, OneCpu, Pinned};
use frametree::{FramePool, MapEntry, MapError, MemoryMap, MemoryRegion, Setup, boot};
use kernel_demo::exit::{self, Outcome};
use kernel_demo::paging::direct_map;
use kernel_demo::println;
use multiboot2::{BootInformation, BootInformationHeader};
use pvh::start_info::reader::StartInfoReader;
use x86_64::VirtAddr;
use x86_64::registers::control::Cr3;
use x86_64::structures::paging::{
    FrameAllocator, FrameDeallocator, Mapper, OffsetPageTable, Page, PageTableFlags, PhysFrame,
    Size4KiB, mapper::CleanUp,
};

static POOL: FramePool<Pinned<OneCpu, InterruptsOff>> = {
    // SAFETY: this kernel starts no other CPU.
    let one_cpu = unsafe { OneCpu::promised() };
    FramePool::new(Pinned::new(one_cpu, InterruptsOff))
};

/// The way into Rust, with what the boot loader left in `eax` and `ebx`.
// SAFETY: boot.s calls it by this name, which nothing else has.
#[unsafe(no_mangle)]
extern "C" fn kernel_main(magic: u32, information: u32) -> ! {
    // SAFETY: the first call, on the only CPU.
    unsafe { kernel_demo::start() };
    let address = information as usize;
    if magic == multiboot2::MAGIC {
        let header = with_exposed_provenance::<BootInformationHeader>(address);
        // SAFETY: by the magic number this is multiboot2's information, mapped to itself.
        let information = unsafe { BootInformation::load(header) }.expect("sound information");
        start_memory(boot::multiboot2::regions(&information, address as u32));
    } else {
        // SAFETY: the reader checks PVH's magic number; all of it is mapped to itself.
        let info = unsafe { StartInfoReader::from_paddr_identity(information) };
        start_memory(boot::pvh::regions(&info.expect("PVH's start info"), information));
    }
    map_a_page();
    exit::exit(Outcome::Success)
}

fn start_memory(regions: impl Iterator<Item = MemoryRegion>) {
    let mut cells = [MapEntry::EMPTY; MemoryMap::entries_needed(256)];
    let map = |cells| -> Result<MemoryMap, MapError> {
        let mut map = MemoryMap::normalise(regions, cells)?;
        let (start, length) = kernel_demo::boot::kernel_image();
        map.reserve(start, length)?;
        map.reserve(0, 1 << 20)?; // the first MiB
        map.reserve(4 << 30, u64::MAX)?; // what boot.s has not mapped
        Ok(map)
    };
    let mut map = map(&mut cells).expect("a map of up to 256 entries");
    // SAFETY: what is left in the map is nobody's, and below 4 GiB, where it is mapped.
    let metadata = unsafe { POOL.init(&mut map, Setup::new(1), direct_map) };
    println!("{:?}", metadata.expect("memory for the pool"));
}

/// Maps a page to a frame, writes through the one and reads through the other, and gives it back.
fn map_a_page() {
    let before = POOL.stats();
    let root = direct_map(Cr3::read().0.start_address().as_u64()).cast();
    // SAFETY: the active tables, which nobody else uses; the direct map has all of them.
    let mut tables = unsafe { OffsetPageTable::new(&mut *root, VirtAddr::from_ptr(direct_map(0))) };
    let page = Page::<Size4KiB>::containing_address(VirtAddr::new(0xffff_e000_1234_5000));
    let frame: PhysFrame = (&POOL).allocate_frame().expect("a frame");
    let flags = PageTableFlags::PRESENT | PageTableFlags::WRITABLE;
    // SAFETY: the frame is ours, and so is that part of the address space.
    unsafe { tables.map_to(page, frame, flags, &mut &POOL) }.expect("tables for it").flush();

    let written: *mut u64 = page.start_address().as_mut_ptr();
    let read: *mut u64 = direct_map(frame.start_address().as_u64()).cast();
    // SAFETY: both are where the frame is mapped.
    unsafe {
        written.write_volatile(0x5eed_f00d);
        assert_eq!(read.read_volatile(), 0x5eed_f00d);
    }
    println!("{page:?} is {frame:?}: written there, read here");

    tables.unmap(page).expect("a page that is mapped").1.flush();
    // SAFETY: the frame is mapped nowhere else, and the tables of `page` map nothing any more.
    unsafe {
        (&POOL).deallocate_frame(frame);
        tables.clean_up_addr_range(Page::range_inclusive(page, page), &mut &POOL);
    }
    POOL.drain().expect("no double free");
    assert_eq!(POOL.stats().free_frames, before.free_frames);
    POOL.verify().expect("a sound tree");
    println!("{}", POOL.stats().meminfo());
}
