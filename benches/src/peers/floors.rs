//! What the others are read by: the least that the work can cost.

use std::cell::UnsafeCell;
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};

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

/// A bit for each frame, and nothing else: a free is one locked read-modify-write of the word that
/// the frame's bit is in, whose answer is looked at. What random frees cost is mostly where these
/// words lie. One thread only.
pub struct BareWords {
    words: Vec<AtomicU64>,
    /// Where the next allocation looks.
    next: UnsafeCell<u64>,
}

// SAFETY: the workloads with one thread are the only ones that it takes part in.
unsafe impl Sync for BareWords {}

impl Allocator for BareWords {
    const NAME: &'static str = "floor: an RMW of each frame's word";
    const HAS_RUNS: bool = false;

    fn new(frames: u64) -> Result<Self, Refusal> {
        let words = (0..frames / 64).map(|_| AtomicU64::new(u64::MAX)).collect();
        Ok(Self { words, next: UnsafeCell::new(0) })
    }

    /// By address, round and round, which is no floor for anything.
    fn alloc(&self) -> Option<u64> {
        // SAFETY: nobody else is at it, and the reference ends with the call.
        let next = unsafe { &mut *self.next.get() };
        let frame = *next % (self.words.len() as u64 * 64);
        let (word, bit) = (&self.words[(frame / 64) as usize], 1 << (frame % 64));
        if word.fetch_and(!bit, Ordering::Relaxed) & bit == 0 {
            return None;
        }
        *next = frame + 1;
        Some(frame)
    }
    #[inline(always)]
    fn free(&self, frame: u64) {
        let bit = 1 << (frame % 64);
        let old = self.words[(frame / 64) as usize].fetch_or(bit, Ordering::AcqRel);
        assert!(old & bit == 0, "frame {frame} was free");
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
