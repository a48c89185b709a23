//! `free-list` behind a spin lock, with 16 ranges inline as its documentation shows; Hermit, whose
//! it is, keeps it behind an interrupt-safe spin lock. Frees of what is free are errors.

use free_list::{FreeList, PageLayout, PageRange};
use spin::Mutex;

use crate::allocator::{Allocator, Refusal};

const PAGE: usize = 4096;

pub struct List(Mutex<FreeList<16>>);

fn range(first: u64, count: u64) -> PageRange {
    PageRange::from_start_len(first as usize * PAGE, count as usize * PAGE).expect("a range")
}

impl Allocator for List {
    const NAME: &'static str = "free-list";

    fn new(frames: u64) -> Result<Self, Refusal> {
        let list = Self(Mutex::new(FreeList::new()));
        list.free_run(0, frames);
        Ok(list)
    }

    #[inline(always)]
    fn alloc(&self) -> Option<u64> {
        self.alloc_run(1, 1)
    }
    #[inline(always)]
    fn free(&self, frame: u64) {
        self.free_run(frame, 1);
    }
    #[inline(always)]
    fn alloc_run(&self, count: u64, align: u64) -> Option<u64> {
        let (size, align) = (count as usize * PAGE, align as usize * PAGE);
        let layout = PageLayout::from_size_align(size, align).expect("a layout");
        let range = self.0.lock().allocate(layout).ok()?;
        Some((range.start() / PAGE) as u64)
    }
    #[inline(always)]
    fn free_run(&self, first: u64, count: u64) {
        // SAFETY: there is no memory behind it.
        let freed = unsafe { self.0.lock().deallocate(range(first, count)) };
        freed.expect("frames that are not free");
    }
    fn free_frames(&self) -> Option<u64> {
        Some((self.0.lock().free_space() / PAGE) as u64)
    }
}
