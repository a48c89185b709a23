//! `buddy_system_allocator`: its own `LockedFrameAllocator`, as its documentation shows.

use buddy_system_allocator::LockedFrameAllocator;

use crate::allocator::{Allocator, Refusal};

pub struct BuddySystem(LockedFrameAllocator);

impl Allocator for BuddySystem {
    const NAME: &'static str = "buddy_system_allocator";

    fn new(frames: u64) -> Result<Self, Refusal> {
        let inner = LockedFrameAllocator::new();
        inner.lock().add_frame(0, frames as usize);
        Ok(Self(inner))
    }

    #[inline(always)]
    fn alloc(&self) -> Option<u64> {
        self.0.lock().alloc(1).map(|frame| frame as u64)
    }
    #[inline(always)]
    fn free(&self, frame: u64) {
        self.0.lock().dealloc(frame as usize, 1);
    }
    // Runs are powers of two, aligned to their size.
    #[inline(always)]
    fn alloc_run(&self, count: u64, _: u64) -> Option<u64> {
        self.0.lock().alloc(count as usize).map(|frame| frame as u64)
    }
    #[inline(always)]
    fn free_run(&self, first: u64, count: u64) {
        self.0.lock().dealloc(first as usize, count as usize);
    }
}
