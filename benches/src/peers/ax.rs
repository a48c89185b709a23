//! `ax-allocator`: its `BitmapPageAllocator` behind a spin lock, as ArceOS has it. Its capacity is
//! a feature of the whole build: 1 TiB here, one level more than smaller memory needs.

use ax_allocator::{BaseAllocator, BitmapPageAllocator, PageAllocator};
use spin::Mutex;

use crate::allocator::{Allocator, Refusal};

const PAGE: usize = 4096;
/// 1 TiB.
const MOST: u64 = 1 << 28;

pub struct Ax(Box<Mutex<BitmapPageAllocator<PAGE>>>);

impl Allocator for Ax {
    const NAME: &'static str = "ax-allocator";

    fn new(frames: u64) -> Result<Self, Refusal> {
        if frames > MOST {
            return Err(Refusal::TooMuchMemory);
        }
        // SAFETY: as `BitmapPageAllocator::new()`, all zero; but that is far too large for a stack.
        let inner: Box<Mutex<BitmapPageAllocator<PAGE>>> =
            unsafe { Box::new_zeroed().assume_init() };
        inner.lock().init(0, frames as usize * PAGE);
        Ok(Self(inner))
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
        let address = self.0.lock().alloc_pages(count as usize, align as usize * PAGE).ok()?;
        Some((address / PAGE) as u64)
    }
    #[inline(always)]
    fn free_run(&self, first: u64, count: u64) {
        self.0.lock().dealloc_pages(first as usize * PAGE, count as usize);
    }
    fn free_frames(&self) -> Option<u64> {
        Some(self.0.lock().available_pages() as u64)
    }
}
