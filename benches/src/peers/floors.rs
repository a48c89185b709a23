//! What the others are read by: the least that the work can cost.

use std::cell::UnsafeCell;
use std::hint::black_box;

use crate::allocator::{Allocator, Refusal};

/// A stack of frame numbers that no other CPU can reach: one thread only.
pub struct PrivateStack(UnsafeCell<Vec<u32>>);

// SAFETY: the workloads with one thread are the only ones that it takes part in.
unsafe impl Sync for PrivateStack {}

impl Allocator for PrivateStack {
    const NAME: &'static str = "floor: a private stack";
    const HAS_RUNS: bool = false;

    fn new(frames: u64) -> Result<Self, Refusal> {
        let end = u32::try_from(frames).map_err(|_| Refusal::TooMuchMemory)?;
        Ok(Self(UnsafeCell::new((0..end).rev().collect())))
    }

    #[inline(always)]
    fn alloc(&self) -> Option<u64> {
        // SAFETY: nobody else is at it, and the reference ends here.
        unsafe { &mut *self.0.get() }.pop().map(u64::from)
    }
    #[inline(always)]
    fn free(&self, frame: u64) {
        // SAFETY: as above.
        unsafe { &mut *self.0.get() }.push(black_box(frame) as u32);
    }
    fn alloc_run(&self, _: u64, _: u64) -> Option<u64> {
        None
    }
    fn free_run(&self, _: u64, _: u64) {}
}

/// Does nothing: what is left is the workload's own cost.
pub struct NoWork;

impl Allocator for NoWork {
    const NAME: &'static str = "floor: the workload alone";

    fn new(_: u64) -> Result<Self, Refusal> {
        Ok(Self)
    }

    #[inline(always)]
    fn alloc(&self) -> Option<u64> {
        Some(black_box(0))
    }
    #[inline(always)]
    fn free(&self, frame: u64) {
        black_box(frame);
    }
    #[inline(always)]
    fn alloc_run(&self, _: u64, _: u64) -> Option<u64> {
        Some(black_box(0))
    }
    #[inline(always)]
    fn free_run(&self, first: u64, _: u64) {
        black_box(first);
    }
}
