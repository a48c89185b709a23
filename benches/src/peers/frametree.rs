//! Ours: the pool as a kernel uses it, and the shared tree alone, without any CPU's cache.

use frametree::{Frame, FrameNumber, FramePool, FrameRange, Layout, NumberRange, Request};

use crate::allocator::{Allocator, Refusal};
use crate::support::{Threads, with_map};
use crate::workloads::churn::CPUS;

/// `FramePool`. A double free is an error, as always.
pub struct Pool {
    pool: FramePool<Threads>,
    storage: *mut [u64],
}

// SAFETY: the pool may be shared; the pointer is only for giving the storage back.
unsafe impl Sync for Pool {}
// SAFETY: as above.
unsafe impl Send for Pool {}

impl Drop for Pool {
    fn drop(&mut self) {
        // SAFETY: from `Box::into_raw`, and the pool that used it is dropped without a look at it.
        drop(unsafe { Box::from_raw(self.storage) });
    }
}

fn frame(number: u64) -> Frame {
    // SAFETY: there is no memory behind it; the workload keeps account of who has it.
    unsafe { Frame::from_number(FrameNumber::new(number)) }
}

fn run(first: u64, count: u64) -> FrameRange {
    // SAFETY: as above.
    unsafe { FrameRange::from_numbers(NumberRange::from_numbers(first, first + count)) }
}

fn request(count: u64, align: u64) -> Request {
    if align == 1 {
        Request::new(count)
    } else {
        Request::new(count).align(align * frametree::FRAME_SIZE)
    }
}

impl Allocator for Pool {
    const NAME: &'static str = "frametree";

    fn new(frames: u64) -> Result<Self, Refusal> {
        with_map(&[(0, frames)], |map| {
            let refusal = |error: String| Refusal::NotInitialised(error);
            let layout = Layout::new(map, CPUS).map_err(|error| refusal(error.to_string()))?;
            let storage = Box::into_raw(vec![0u64; layout.bytes() / 8 + 16].into_boxed_slice());
            let pool = Self { pool: FramePool::new(Threads), storage };
            // SAFETY: the frames are not real; the storage lives as long as the pool.
            let result = unsafe { pool.pool.init_in(map, CPUS, &mut *storage) };
            result.map_err(|error| refusal(error.to_string()))?;
            Ok(pool)
        })
    }

    #[inline(always)]
    fn alloc(&self) -> Option<u64> {
        self.pool.alloc().ok().map(|frame| frame.into_number().get())
    }
    #[inline(always)]
    fn free(&self, number: u64) {
        self.pool.free(frame(number)).expect("a frame that is not free");
    }
    #[inline(always)]
    fn alloc_run(&self, count: u64, align: u64) -> Option<u64> {
        self.pool.alloc_run(&request(count, align)).ok().map(|r| r.into_numbers().start().get())
    }
    #[inline(always)]
    fn free_run(&self, first: u64, count: u64) {
        self.pool.free_run(run(first, count)).expect("frames that are not free");
    }
    #[inline(always)]
    fn alloc_block(&self) -> Option<u64> {
        self.pool.alloc_block().ok().map(|frame| frame.into_number().get())
    }
    #[inline(always)]
    fn free_block(&self, first: u64) {
        self.pool.free_block(frame(first)).expect("a block that is not free");
    }
    #[inline(always)]
    fn alloc_giant(&self) -> Option<u64> {
        self.pool.alloc_giant().ok().map(|frame| frame.into_number().get())
    }
    #[inline(always)]
    fn free_giant(&self, first: u64) {
        self.pool.free_giant(frame(first)).expect("a giant that is not free");
    }
    fn free_frames(&self) -> Option<u64> {
        Some(self.pool.stats().free_frames)
    }
    fn drain(&self) {
        self.pool.drain().expect("a drain");
    }
}

/// `FrameTree`: what is below the caches, and what an interrupt inside the allocator uses.
pub struct Tree(Pool);

impl Tree {
    #[inline(always)]
    fn tree(&self) -> &frametree::FrameTree<'static> {
        self.0.pool.tree().expect("it is initialised")
    }
}

impl Allocator for Tree {
    const NAME: &'static str = "frametree, tree only";

    fn new(frames: u64) -> Result<Self, Refusal> {
        Pool::new(frames).map(Self)
    }

    #[inline(always)]
    fn alloc(&self) -> Option<u64> {
        self.tree().alloc().ok().map(|frame| frame.into_number().get())
    }
    #[inline(always)]
    fn free(&self, number: u64) {
        self.tree().free(frame(number)).expect("a frame that is not free");
    }
    #[inline(always)]
    fn alloc_run(&self, count: u64, align: u64) -> Option<u64> {
        self.tree().alloc_run(&request(count, align)).ok().map(|r| r.into_numbers().start().get())
    }
    #[inline(always)]
    fn free_run(&self, first: u64, count: u64) {
        self.tree().free_run(run(first, count)).expect("frames that are not free");
    }
    #[inline(always)]
    fn alloc_block(&self) -> Option<u64> {
        self.tree().alloc_block().ok().map(|frame| frame.into_number().get())
    }
    #[inline(always)]
    fn free_block(&self, first: u64) {
        self.tree().free_block(frame(first)).expect("a block that is not free");
    }
    #[inline(always)]
    fn alloc_giant(&self) -> Option<u64> {
        self.tree().alloc_giant().ok().map(|frame| frame.into_number().get())
    }
    #[inline(always)]
    fn free_giant(&self, first: u64) {
        self.tree().free_giant(frame(first)).expect("a giant that is not free");
    }
    fn free_frames(&self) -> Option<u64> {
        Some(self.tree().free_frames())
    }
}
