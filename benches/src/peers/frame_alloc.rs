//! `frame-alloc`: its core bare, and with its depot as its README composes it for a kernel (64
//! slots of 128 frames, a depot of 512). `InterruptControl` does nothing here; in a kernel the
//! depot's locks switch interrupts off.

use std::num::NonZeroUsize;
use std::ptr::{NonNull, with_exposed_provenance_mut};

use frame_alloc::{
    CpuId, DepotAllocator, PageSize, PhysicalAllocator, Provenance, RegionInit,
    SummaryBuddyAllocator,
};
use frametree::Cpus;

use super::sparse::Sparse;
use crate::allocator::{Allocator, Refusal};
use crate::support::Threads;

const FRAME: PageSize = PageSize::from_log2(12);
/// Orders 0 to 18: up to 1 GiB.
const ORDERS: usize = 19;

type Buddy = SummaryBuddyAllocator<ORDERS, Exposed>;
type WithDepot = DepotAllocator<Buddy, Current, 64, 128, 512>;

/// Memory is where its address says.
pub struct Exposed;

// SAFETY: `Sparse` exposed the provenance of the whole range.
unsafe impl Provenance for Exposed {
    unsafe fn create(phys: usize) -> NonNull<u8> {
        NonNull::new(with_exposed_provenance_mut(phys)).expect("not at 0")
    }
    unsafe fn destroy<T>(ptr: NonNull<T>) -> usize {
        ptr.addr().get()
    }
}

/// The CPU that this thread plays.
pub struct Current;

impl CpuId for Current {
    #[inline(always)]
    fn current_cpu() -> usize {
        Threads.with_current(|cpu| cpu.get())
    }
}

/// Either of the two, over memory of its own. Its fields are dropped in this order.
pub struct FrameAlloc<I> {
    inner: Box<I>,
    sparse: Sparse,
}

pub type Core = FrameAlloc<Buddy>;
pub type Depot = FrameAlloc<WithDepot>;

/// What tells the two apart.
pub trait Kind: PhysicalAllocator + RegionInit + Sync + 'static {
    const NAME: &'static str;
    fn fresh() -> Box<Self>;
}

impl Kind for Buddy {
    const NAME: &'static str = "frame-alloc";
    fn fresh() -> Box<Self> {
        Box::new(Self::new(FRAME))
    }
}

impl Kind for WithDepot {
    const NAME: &'static str = "frame-alloc, depot";
    fn fresh() -> Box<Self> {
        Box::new(Self::new(FRAME, Buddy::new(FRAME)))
    }
}

impl<I: Kind> FrameAlloc<I> {
    #[inline(always)]
    fn take(&self, size: PageSize, count: u64) -> Option<u64> {
        let count = NonZeroUsize::new(count as usize)?;
        let address = self.inner.allocate_physical(size, count).ok()?;
        Some(((address - self.sparse.start()) / 4096) as u64)
    }

    #[inline(always)]
    fn give(&self, size: PageSize, count: u64, first: u64) {
        let count = NonZeroUsize::new(count as usize).expect("frames");
        let address = self.sparse.start() + first as usize * 4096;
        // SAFETY: what `take` gave for the same size and count, by the workload's account.
        unsafe { self.inner.deallocate_physical(size, count, address) };
    }
}

impl<I: Kind> Allocator for FrameAlloc<I> {
    const NAME: &'static str = I::NAME;

    fn new(frames: u64) -> Result<Self, Refusal> {
        let sparse = Sparse::new(frames)?;
        let inner = I::fresh();
        // SAFETY: the memory is its alone, and lives as long as it does.
        let result = unsafe { inner.try_init_region(sparse.start(), frames as usize * 4096) };
        result.map_err(|error| Refusal::NotInitialised(error.to_string()))?;
        Ok(Self { inner, sparse })
    }

    #[inline(always)]
    fn alloc(&self) -> Option<u64> {
        self.take(FRAME, 1)
    }
    #[inline(always)]
    fn free(&self, frame: u64) {
        self.give(FRAME, 1, frame);
    }
    // Runs are powers of two, aligned to their size.
    #[inline(always)]
    fn alloc_run(&self, count: u64, _: u64) -> Option<u64> {
        self.take(FRAME, count)
    }
    #[inline(always)]
    fn free_run(&self, first: u64, count: u64) {
        self.give(FRAME, count, first);
    }
}
