//! What every contestant can be asked for, in frame numbers: nothing is ever touched.
//!
//! Workloads are generic over [`Allocator`], so each is compiled for each contestant and a call
//! costs what it costs in a kernel. [`Shape`] says what is taken and given back: the workloads are
//! generic over it too.

use std::fmt;

/// 2 MiB, in frames.
pub const BLOCK: u64 = 512;
/// 1 GiB, in frames.
pub const GIANT: u64 = 512 * 512;

/// Why an allocator does not take part in a workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Its API has no such request.
    NoSuchRequest,
    /// It cannot manage so much memory, or not as it was built.
    TooMuchMemory,
    /// Its own initialisation said no.
    NotInitialised(String),
    /// It found nothing although memory was free.
    FoundNothing,
    /// To prepare the workload took longer than the harness waits.
    TooSlow,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchRequest => f.write_str("has no such request"),
            Self::TooMuchMemory => f.write_str("cannot manage so much memory"),
            Self::NotInitialised(why) => write!(f, "did not initialise: {why}"),
            Self::FoundNothing => f.write_str("found nothing although memory was free"),
            Self::TooSlow => f.write_str("was too slow to prepare"),
        }
    }
}

/// An allocator of frames 0 to `frames`, shared by the threads of a workload.
///
/// Each is behind the lock or wrapper that its own documentation tells a kernel to use.
/// Interrupts are not switched off around a lock, as a kernel would have to: that favours those
/// that need it.
pub trait Allocator: Sized + Sync + 'static {
    /// As the tables have it.
    const NAME: &'static str;
    /// Whether there are runs of frames at all.
    const HAS_RUNS: bool = true;

    /// All frames below `frames` free, less what it takes from them for itself.
    fn new(frames: u64) -> Result<Self, Refusal>;

    /// One frame.
    fn alloc(&self) -> Option<u64>;
    /// Back with it.
    fn free(&self, frame: u64);

    /// `count` contiguous frames from a multiple of `align` on (a power of two).
    fn alloc_run(&self, count: u64, align: u64) -> Option<u64>;
    /// Back with all of them.
    fn free_run(&self, first: u64, count: u64);

    /// 2 MiB.
    fn alloc_block(&self) -> Option<u64> {
        self.alloc_run(BLOCK, BLOCK)
    }
    /// Back with it.
    fn free_block(&self, first: u64) {
        self.free_run(first, BLOCK);
    }

    /// 1 GiB.
    fn alloc_giant(&self) -> Option<u64> {
        self.alloc_run(GIANT, GIANT)
    }
    /// Back with it.
    fn free_giant(&self, first: u64) {
        self.free_run(first, GIANT);
    }

    /// How many frames are free, by its own statistics, if it has any.
    fn free_frames(&self) -> Option<u64> {
        None
    }
    /// Gives back what this thread's CPU has cached.
    fn drain(&self) {}
    /// Bytes of metadata that are neither on the heap nor taken from the frames.
    fn metadata(&self) -> u64 {
        0
    }
}

/// What a workload takes and gives back.
pub trait Shape: Copy + Send + Sync + 'static {
    /// How many frames it is.
    fn frames(self) -> u64;
    /// Whether an allocator has a request for it.
    fn is_possible<A: Allocator>(self) -> bool {
        A::HAS_RUNS
    }
    fn take<A: Allocator>(self, allocator: &A) -> Option<u64>;
    fn give<A: Allocator>(self, allocator: &A, first: u64);
}

/// One frame of 4 KiB.
#[derive(Clone, Copy)]
pub struct One;

impl Shape for One {
    fn frames(self) -> u64 {
        1
    }
    fn is_possible<A: Allocator>(self) -> bool {
        true
    }
    #[inline(always)]
    fn take<A: Allocator>(self, allocator: &A) -> Option<u64> {
        allocator.alloc()
    }
    #[inline(always)]
    fn give<A: Allocator>(self, allocator: &A, first: u64) {
        allocator.free(first);
    }
}

/// A frame of 2 MiB.
#[derive(Clone, Copy)]
pub struct Block;

impl Shape for Block {
    fn frames(self) -> u64 {
        BLOCK
    }
    #[inline(always)]
    fn take<A: Allocator>(self, allocator: &A) -> Option<u64> {
        allocator.alloc_block()
    }
    #[inline(always)]
    fn give<A: Allocator>(self, allocator: &A, first: u64) {
        allocator.free_block(first);
    }
}

/// A frame of 1 GiB.
#[derive(Clone, Copy)]
pub struct Giant;

impl Shape for Giant {
    fn frames(self) -> u64 {
        GIANT
    }
    #[inline(always)]
    fn take<A: Allocator>(self, allocator: &A) -> Option<u64> {
        allocator.alloc_giant()
    }
    #[inline(always)]
    fn give<A: Allocator>(self, allocator: &A, first: u64) {
        allocator.free_giant(first);
    }
}

/// A run of so many frames, aligned to nothing.
#[derive(Clone, Copy)]
pub struct Run(pub u64);

impl Shape for Run {
    fn frames(self) -> u64 {
        self.0
    }
    #[inline(always)]
    fn take<A: Allocator>(self, allocator: &A) -> Option<u64> {
        allocator.alloc_run(self.0, 1)
    }
    #[inline(always)]
    fn give<A: Allocator>(self, allocator: &A, first: u64) {
        allocator.free_run(first, self.0);
    }
}
