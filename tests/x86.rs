//! The `x86_64` crate's mapper with a pool as its frame allocator: page tables, pages of all three
//! sizes, and back. The tables lie in memory of this process, at an offset as a kernel has it.
#![cfg(all(not(loom), feature = "x86_64", target_arch = "x86_64"))]

mod support;

use frametree::{FramePool, Layout};
use support::{BLOCK, GIANT, Threads, with_map};
use x86_64::structures::paging::mapper::{CleanUp, MapperFlush};
use x86_64::structures::paging::{
    FrameAllocator, FrameDeallocator, Mapper, OffsetPageTable, Page, PageSize, PageTable,
    PageTableFlags, PhysFrame, Size1GiB, Size2MiB, Size4KiB, Translate,
};
use x86_64::{PhysAddr, VirtAddr};

static POOL: FramePool<Threads> = FramePool::new(Threads);

/// Physical memory from 0 on: the frames that page tables are made of.
#[repr(align(4096))]
struct Memory([u8; 64 * 4096]);

/// Maps one page to a frame of the pool, uses the mapping, and takes both away.
fn map_and_unmap<S: PageSize + std::fmt::Debug>(tables: &mut OffsetPageTable<'_>, at: u64)
where
    for<'a> OffsetPageTable<'a>: Mapper<S>,
    &'static FramePool<Threads>: FrameAllocator<S> + FrameDeallocator<S>,
{
    let mut pool = &POOL;
    let frame: PhysFrame<S> = pool.allocate_frame().expect("a frame of this size");
    let address = frame.start_address().as_u64();
    assert!(address.is_multiple_of(S::SIZE));
    let page = Page::<S>::from_start_address(VirtAddr::new(at)).expect("an aligned page");
    let flags = PageTableFlags::PRESENT | PageTableFlags::WRITABLE;
    // SAFETY: nobody uses these tables to translate addresses.
    let mapped = unsafe { tables.map_to(page, frame, flags, &mut pool) };
    // What a processor caches of these tables is nothing.
    mapped.map(MapperFlush::ignore).expect("a mapping");
    let inside = VirtAddr::new(at + S::SIZE - 1);
    assert_eq!(tables.translate_addr(inside), Some(PhysAddr::new(address + S::SIZE - 1)));
    let (unmapped, flush) = tables.unmap(page).expect("it was mapped");
    flush.ignore();
    assert_eq!(unmapped, frame);
    // SAFETY: it is mapped nowhere any more.
    unsafe { pool.deallocate_frame(unmapped) };
}

#[test]
fn map_to_takes_pages_of_all_sizes_from_the_pool() {
    with_map(&[(0, 2 * GIANT)], |map| {
        let storage = vec![7; Layout::new(map, 1).expect("a layout").bytes() / 8 + 16].leak();
        // SAFETY: the frames are numbers, apart from those in `Memory`, which the tables use.
        unsafe { POOL.init_in(map, 1, storage) }.expect("a pool");
    });
    let mut memory = Box::new(Memory([0xa5; 64 * 4096]));
    let offset = VirtAddr::from_ptr(memory.0.as_mut_ptr());
    let mut top = Box::new(PageTable::new());
    // SAFETY: the tables that the pool's lowest frames become lie at the offset.
    let mut tables = unsafe { OffsetPageTable::new(&mut top, offset) };
    map_and_unmap::<Size4KiB>(&mut tables, 0x1234_5000);
    map_and_unmap::<Size2MiB>(&mut tables, 0x4000_0000);
    map_and_unmap::<Size1GiB>(&mut tables, 0x8000_0000);
    let stats = POOL.stats();
    assert_eq!(stats.managed_frames - stats.free_frames, 4, "tables for the pages");
    // SAFETY: nothing is mapped, and nobody uses the tables.
    unsafe { tables.clean_up(&mut &POOL) };
    POOL.drain().expect("a drain");
    POOL.verify().unwrap_or_else(|broken| panic!("{broken}"));
    assert_eq!(POOL.stats().free_giants, 2);
}

#[test]
#[should_panic(expected = "double free")]
fn a_double_free_is_not_passed_over() {
    let pool = support::pool(Threads, 1, &[(0, 4 * BLOCK)]);
    let frame: PhysFrame<Size2MiB> = { pool }.allocate_frame().expect("a block");
    for _ in 0..2 {
        // SAFETY: deliberately wrong the second time.
        unsafe { { pool }.deallocate_frame(frame) };
    }
}
