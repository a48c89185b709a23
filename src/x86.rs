//! The `x86_64` crate's frame allocator traits, on a shared reference: `map_to` and its friends
//! take `&mut &POOL`, where `POOL` is the `static` pool.

use x86_64::PhysAddr;
use x86_64::structures::paging::{FrameAllocator, FrameDeallocator, PhysFrame, Size4KiB};

use crate::cpu::Cpus;
use crate::frame::{Frame, FrameNumber};
use crate::geometry::FRAME_SIZE;
use crate::pool::FramePool;

// SAFETY: a frame that `alloc` returns is free, and the caller's alone until it is freed.
unsafe impl<C: Cpus> FrameAllocator<Size4KiB> for &FramePool<C> {
    fn allocate_frame(&mut self) -> Option<PhysFrame<Size4KiB>> {
        let frame = self.alloc().ok()?;
        let address = PhysAddr::new(frame.into_number().start_address());
        Some(PhysFrame::containing_address(address))
    }
}

impl<C: Cpus> FrameDeallocator<Size4KiB> for &FramePool<C> {
    /// # Panics
    /// If the pool refuses the frame: the trait has no way to say so, and a double free must
    /// not pass unseen.
    unsafe fn deallocate_frame(&mut self, frame: PhysFrame<Size4KiB>) {
        let number = FrameNumber::new(frame.start_address().as_u64() / FRAME_SIZE);
        // SAFETY: the caller promises that the frame is unused, as the trait asks.
        let frame = unsafe { Frame::from_number(number) };
        if let Err(error) = self.free(frame) {
            panic!("deallocate_frame: {error}");
        }
    }
}
