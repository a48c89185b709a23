//! The `x86_64` crate's frame allocator traits, on a shared reference: `map_to` and its friends
//! take `&mut &POOL`, where `POOL` is the `static` pool. For frames of 4 KiB, 2 MiB and 1 GiB: each
//! size names the pool's operations for it, and the rest is the same for all.

use x86_64::PhysAddr;
use x86_64::structures::paging::{
    FrameAllocator, FrameDeallocator, PageSize, PhysFrame, Size1GiB, Size2MiB, Size4KiB,
};

use crate::cpu::Cpus;
use crate::error::{AllocError, FreeError};
use crate::frame::{Frame, FrameNumber};
use crate::geometry::FRAME_SIZE;
use crate::pool::FramePool;

/// A size of frames that a pool has.
pub trait PooledSize: PageSize {
    /// Takes one, named by its first frame of 4 KiB.
    fn alloc<C: Cpus>(pool: &FramePool<C>) -> Result<Frame, AllocError>;

    /// Gives one back.
    fn free<C: Cpus>(pool: &FramePool<C>, first: Frame) -> Result<(), FreeError>;
}

impl PooledSize for Size4KiB {
    fn alloc<C: Cpus>(pool: &FramePool<C>) -> Result<Frame, AllocError> {
        pool.alloc()
    }

    fn free<C: Cpus>(pool: &FramePool<C>, first: Frame) -> Result<(), FreeError> {
        pool.free(first)
    }
}

impl PooledSize for Size2MiB {
    fn alloc<C: Cpus>(pool: &FramePool<C>) -> Result<Frame, AllocError> {
        pool.alloc_block()
    }

    fn free<C: Cpus>(pool: &FramePool<C>, first: Frame) -> Result<(), FreeError> {
        pool.free_block(first)
    }
}

impl PooledSize for Size1GiB {
    fn alloc<C: Cpus>(pool: &FramePool<C>) -> Result<Frame, AllocError> {
        pool.alloc_giant()
    }

    fn free<C: Cpus>(pool: &FramePool<C>, first: Frame) -> Result<(), FreeError> {
        pool.free_giant(first)
    }
}

/// For [`Mapper::map_to`](x86_64::structures::paging::Mapper::map_to) and all else that takes a
/// frame allocator: `&mut &POOL`, where `POOL` is a `static`.
///
/// # Examples
/// ```
/// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs")); }
/// # use frametree::Setup;
/// use x86_64::structures::paging::{FrameAllocator, FrameDeallocator, PhysFrame, Size2MiB};
///
/// let pool = example::pool(Setup::new(1));
/// let frame: PhysFrame<Size2MiB> = (&pool).allocate_frame().expect("2 MiB");
/// assert_eq!(pool.stats().free_frames, 3 * 512);
/// // SAFETY: nothing maps it.
/// unsafe { (&pool).deallocate_frame(frame) };
/// assert_eq!(pool.stats().free_frames, 4 * 512); // the block waits in this CPU's cache
/// ```
// SAFETY: what the pool hands out is free, of the size asked for and aligned to it, and the
// caller's alone until it is freed.
unsafe impl<C: Cpus, S: PooledSize> FrameAllocator<S> for &FramePool<C> {
    fn allocate_frame(&mut self) -> Option<PhysFrame<S>> {
        let first = S::alloc(self).ok()?;
        let address = PhysAddr::new(first.into_number().start_address());
        Some(PhysFrame::containing_address(address))
    }
}

/// Beside [`FrameAllocator`], which has the example.
impl<C: Cpus, S: PooledSize> FrameDeallocator<S> for &FramePool<C> {
    /// # Panics
    /// If the pool refuses the frame: the trait has no way to say so, and a double free must
    /// not pass unseen.
    unsafe fn deallocate_frame(&mut self, frame: PhysFrame<S>) {
        let number = FrameNumber::new(frame.start_address().as_u64() / FRAME_SIZE);
        // SAFETY: the caller promises that the frame is unused, as the trait asks.
        let first = unsafe { Frame::from_number(number) };
        if let Err(error) = S::free(self, first) {
            panic!("deallocate_frame: {error}");
        }
    }
}
