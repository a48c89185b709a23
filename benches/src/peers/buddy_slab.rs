//! `buddy-slab-allocator`: its `BuddyAllocator` behind a spin lock, as its own `GlobalAllocator`
//! has it (which adds the slabs for small objects, and of which there can be only one).
//!
//! A region begins with its metadata, and what is left is aligned to a page only: then no request
//! for 2 MiB, aligned to 2 MiB, ever succeeds. So the region begins just so much below an address
//! of a whole GiB that the frames begin there.

use buddy_slab_allocator::{BuddyAllocator, SlabPoolTrait};
use spin::Mutex;

use super::sparse::Sparse;
use crate::allocator::{Allocator, GIANT, Refusal};

const PAGE: usize = 4096;

/// Its fields are dropped in this order.
pub struct BuddySlab {
    inner: Mutex<BuddyAllocator<PAGE>>,
    /// Where its first frame is.
    start: usize,
    prefix: usize,
    _sparse: Sparse,
}

/// What the crate wants linked: none of it is called for whole pages above 4 GiB.
struct Platform;

#[ax_crate_interface::impl_interface]
impl buddy_slab_allocator::interface::BuddySlabIf for Platform {
    fn virt_to_phys(vaddr: usize) -> usize {
        vaddr
    }
    fn slab_pool() -> &'static dyn SlabPoolTrait {
        unreachable!("pages do not come from slabs")
    }
}

impl Allocator for BuddySlab {
    const NAME: &'static str = "buddy-slab-allocator";

    fn new(frames: u64) -> Result<Self, Refusal> {
        let mut sparse = Sparse::new(frames + 4 * GIANT)?;
        // 12 bytes a frame, and a page for the section.
        let needed = BuddyAllocator::<PAGE>::required_meta_size(frames as usize * PAGE);
        let prefix = needed.next_multiple_of(PAGE) + PAGE;
        let ahead = (4 * GIANT) as usize * PAGE;
        let start = sparse.start() + ahead;
        let region = &mut sparse.bytes(frames + 4 * GIANT)[ahead - prefix..];
        let mut inner = BuddyAllocator::new();
        // SAFETY: the memory is its alone, and lives as long as it does.
        let result = unsafe { inner.init(region) };
        result.map_err(|error| Refusal::NotInitialised(format!("{error:?}")))?;
        Ok(Self { inner: Mutex::new(inner), start, prefix, _sparse: sparse })
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
        let address = self.inner.lock().alloc_pages(count as usize, align as usize * PAGE).ok()?;
        Some(((address - self.start) / PAGE) as u64)
    }
    #[inline(always)]
    fn free_run(&self, first: u64, count: u64) {
        let address = self.start + first as usize * PAGE;
        self.inner.lock().dealloc_pages(address, count as usize);
    }
    fn free_frames(&self) -> Option<u64> {
        Some(self.inner.lock().free_pages() as u64)
    }
    fn metadata(&self) -> u64 {
        self.prefix as u64
    }
}
