//! Page tables: the direct map of all usable memory, and windows of pages one by one.
//!
//! boot.s maps the first 4 GiB at `DIRECT_MAP`. The rest of usable memory is mapped here, once
//! the allocator runs, because the tables for it are frames from the allocator: `x86_64`'s own
//! `map_to` takes them through frametree's `FrameAllocator`. **Invariant:** a table is a frame
//! that the direct map reaches already, so memory is mapped upward and the allocator's metadata
//! lies below 4 GiB. The firmware's tables are read before there is an allocator: what maps them is
//! made of three tables in the kernel's image.

use core::fmt::Debug;
use frametree::NumberRange;
use raw_cpuid::CpuId as CpuFeatures;
use spin::{Mutex, Once};
use x86_64::registers::control::Cr3;
use x86_64::structures::paging::{
    FrameAllocator, Mapper, OffsetPageTable, Page, PageSize, PageTable, PageTableFlags, PhysFrame,
    Size1GiB, Size2MiB, Size4KiB,
};
use x86_64::{PhysAddr, VirtAddr};

use crate::memory::{KernelFrames, Purpose};
use crate::windows::Windows;

/// Where the direct map begins: physical address `a` is at `DIRECT_MAP + a`.
pub const DIRECT_MAP: u64 = 0xffff_8000_0000_0000;
/// Where the early map of boot.s ends.
pub const EARLY_MAP_END: u64 = 4 << 30;
const DATA: PageTableFlags =
    PageTableFlags::PRESENT.union(PageTableFlags::WRITABLE).union(PageTableFlags::NO_EXECUTE);

static TABLES: Once<Mutex<OffsetPageTable<'static>>> = Once::new();

/// Where the kernel sees this physical address.
pub fn direct_map(physical: u64) -> *mut u8 {
    core::ptr::with_exposed_provenance_mut((DIRECT_MAP + physical) as usize)
}

/// How many pages of each size the direct map took.
#[derive(Default)]
pub struct Mapped {
    /// Pages of 1 GiB.
    pub giant: u64,
    /// Pages of 2 MiB.
    pub large: u64,
    /// Pages of 4 KiB.
    pub small: u64,
}

/// Maps the usable memory that the early map does not reach, in the largest pages that fit.
pub fn map_usable_memory(usable: impl Iterator<Item = NumberRange>) -> Mapped {
    let giant_pages = has_giant_pages();
    let mut mapped = Mapped::default();
    for range in usable {
        let mut at = range.start().start_address().max(EARLY_MAP_END);
        let end = range.end().start_address();
        while at < end {
            let fits = |size| at.is_multiple_of(size) && end - at >= size;
            if giant_pages && fits(Size1GiB::SIZE) {
                map_direct::<Size1GiB>(at);
                mapped.giant += 1;
                at += Size1GiB::SIZE;
            } else if fits(Size2MiB::SIZE) {
                map_direct::<Size2MiB>(at);
                mapped.large += 1;
                at += Size2MiB::SIZE;
            } else {
                map_direct::<Size4KiB>(at);
                mapped.small += 1;
                at += Size4KiB::SIZE;
            }
        }
    }
    mapped
}

fn map_direct<S: PageSize + Debug>(physical: u64)
where
    OffsetPageTable<'static>: Mapper<S>,
{
    let page = Page::<S>::containing_address(VirtAddr::new(DIRECT_MAP + physical));
    let frame = PhysFrame::containing_address(PhysAddr::new(physical));
    // SAFETY: This place of the direct map belongs to this memory, which nobody uses yet.
    unsafe { map(page, frame) };
}

/// Maps `frame` at `page`.
///
/// # Safety
/// Nobody else uses the frame, or all users agree on it; nothing relies on the page being absent.
unsafe fn map<S: PageSize + Debug>(page: Page<S>, frame: PhysFrame<S>)
where
    OffsetPageTable<'static>: Mapper<S>,
{
    // SAFETY: By contract.
    unsafe { map_with(page, frame, &mut KernelFrames(Purpose::Table)) };
}

/// The same, with tables of these frames.
///
/// # Safety
/// As above.
unsafe fn map_with<S: PageSize + Debug>(
    page: Page<S>,
    frame: PhysFrame<S>,
    frames: &mut impl FrameAllocator<Size4KiB>,
) where
    OffsetPageTable<'static>: Mapper<S>,
{
    let mut tables = tables().lock();
    // SAFETY: By contract. The frames for tables come from an allocator and are nobody else's.
    let result = unsafe { tables.map_to(page, frame, DATA, frames) };
    match result {
        // A page that was absent is in no CPU's cache of translations.
        Ok(flush) => flush.ignore(),
        Err(error) => panic!("cannot map {page:?}: {error:?}"),
    }
}

/// Where devices' memory is mapped.
const DEVICES: u64 = 0xffff_d800_0000_0000;
/// How much of it there is.
const DEVICES_LENGTH: u64 = 1 << 39;

/// Maps memory of a device, wherever it lies, without caching it more than the machine says by
/// itself (the firmware has set up write-combining for screens). It stays forever.
pub fn map_device(physical: u64, length: u64) -> *mut u8 {
    static NEXT: Mutex<u64> = Mutex::new(DEVICES);
    let first = physical / Size2MiB::SIZE * Size2MiB::SIZE;
    let end = physical + length;
    let mut next = NEXT.lock();
    let address = *next + (physical - first);
    for at in (first..end).step_by(Size2MiB::SIZE as usize) {
        assert!(*next < DEVICES + DEVICES_LENGTH, "no room for devices");
        let page = Page::<Size2MiB>::containing_address(VirtAddr::new(*next));
        let frame = PhysFrame::containing_address(PhysAddr::new(at));
        // SAFETY: The place is new, and the memory is the device's: no frame of the pool.
        unsafe { map(page, frame) };
        *next += Size2MiB::SIZE;
    }
    core::ptr::with_exposed_provenance_mut(address as usize)
}

/// Where the firmware's tables are mapped that the early map does not reach, page by page.
const FIRMWARE: u64 = 0xffff_d000_0000_0000;
/// As many as one table of the lowest level maps, 2 MiB.
const FIRMWARE_PAGES: usize = 512;

/// The memory of the firmware that begins at this address, wherever that is, before and after there
/// is an allocator. It stays mapped.
pub fn map_firmware(physical: u64, length: u64) -> *mut u8 {
    static PLACES: Mutex<Windows<FIRMWARE_PAGES>> = Mutex::new(Windows::new());
    let end = physical.checked_add(length).expect("it ends somewhere");
    if end <= EARLY_MAP_END {
        return direct_map(physical);
    }
    let address = |place: usize| FIRMWARE + place as u64 * Size4KiB::SIZE;
    let pages = physical / Size4KiB::SIZE..end.div_ceil(Size4KiB::SIZE);
    let place = PLACES.lock().place(pages, |place, number| {
        let page = Page::<Size4KiB>::containing_address(VirtAddr::new(address(place)));
        let frame = PhysFrame::containing_address(PhysAddr::new(number * Size4KiB::SIZE));
        // SAFETY: The place is new. What lies there is the firmware's: no frame of the pool.
        unsafe { map_with(page, frame, &mut ImageFrames) };
    });
    let place = place.unwrap_or_else(|| panic!("no room for {length} bytes at {physical:#x}"));
    core::ptr::with_exposed_provenance_mut((address(place) + physical % Size4KiB::SIZE) as usize)
}

/// The three tables that map the firmware's, one of each level, in the kernel's image, which is
/// linked to its physical addresses.
struct ImageFrames;

// SAFETY: Each is handed out once, and no Rust code names its memory afterwards.
unsafe impl FrameAllocator<Size4KiB> for ImageFrames {
    fn allocate_frame(&mut self) -> Option<PhysFrame> {
        static mut FRAMES: [PageTable; 3] = [const { PageTable::new() }; 3];
        static NEXT: Mutex<usize> = Mutex::new(0);
        let mut next = NEXT.lock();
        let frame = (&raw const FRAMES).cast::<PageTable>().wrapping_add(*next).addr() as u64;
        let frame = PhysFrame::containing_address(PhysAddr::new(frame));
        *next += 1;
        (*next <= 3).then_some(frame)
    }
}

/// Whether this CPU has pages of 1 GiB.
pub fn has_giant_pages() -> bool {
    CpuFeatures::new()
        .get_extended_processor_and_feature_identifiers()
        .is_some_and(|features| features.has_1gib_pages())
}

/// Where a frame is mapped for a while, by the CPU that runs the exercises: so far up as it is
/// large, since the tables for small pages stay where a large one would be.
const WINDOW: u64 = 0xffff_e000_0000_0000;

/// Maps a frame at an address of its own for the time of `work`.
///
/// # Safety
/// Nobody else uses the frame meanwhile, and this is not called on two CPUs at once.
pub unsafe fn with_window<S: PageSize + Debug, R>(
    frame: PhysFrame<S>,
    work: impl FnOnce(*mut u64) -> R,
) -> R
where
    OffsetPageTable<'static>: Mapper<S>,
{
    let address = WINDOW + S::SIZE;
    let page = Page::<S>::containing_address(VirtAddr::new(address));
    // SAFETY: By contract, and the window is unmapped between two calls.
    unsafe { map(page, frame) };
    let result = work(core::ptr::with_exposed_provenance_mut(address as usize));
    match tables().lock().unmap(page) {
        Ok((_, flush)) => flush.flush(),
        Err(error) => panic!("cannot unmap {page:?}: {error:?}"),
    }
    result
}

fn tables() -> &'static Mutex<OffsetPageTable<'static>> {
    TABLES.call_once(|| {
        let root = direct_map(Cr3::read().0.start_address().as_u64()).cast::<PageTable>();
        // SAFETY: The tables that boot.s made lie in the early map, and from here on only this
        // lock's holder uses them.
        let tables = unsafe { OffsetPageTable::new(&mut *root, VirtAddr::new(DIRECT_MAP)) };
        Mutex::new(tables)
    })
}

/// Maps a frame of its own at this address, in a part of the address space that is the kernel's
/// own. It stays forever.
pub fn map_page(address: u64, purpose: Purpose) {
    let page = Page::<Size4KiB>::containing_address(VirtAddr::new(address));
    let frame = KernelFrames(purpose).allocate_frame().expect("no frame left for the kernel");
    // SAFETY: The frame is new and nobody else's.
    unsafe { map(page, frame) };
}
