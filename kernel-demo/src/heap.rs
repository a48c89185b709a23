//! The kernel's heap: `linked_list_allocator` on frames from the pool, one more frame whenever it
//! is full. It never shrinks.

use alloc::alloc::{GlobalAlloc, Layout};
use core::ptr;
use linked_list_allocator::Heap;
use spin::Mutex;
use x86_64::instructions::interrupts::without_interrupts;

use crate::memory::Purpose;
use crate::paging;

const HEAP: u64 = 0xffff_d000_0000_0000;
const PAGE: usize = 4096;
/// The heap ends here; nothing else is mapped above [`HEAP`].
const HEAP_LIMIT: usize = 1 << 30;

#[global_allocator]
static ALLOCATOR: GrowingHeap = GrowingHeap(Mutex::new(Heap::empty()));

struct GrowingHeap(Mutex<Heap>);

// SAFETY: `Heap` hands out memory as its layout asks, from pages that are mapped for it alone and
// never unmapped. The lock is held with interrupts off, so no handler can wait for it in vain.
unsafe impl GlobalAlloc for GrowingHeap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        without_interrupts(|| {
            let mut heap = self.0.lock();
            loop {
                if let Ok(memory) = heap.allocate_first_fit(layout) {
                    return memory.as_ptr();
                }
                if heap.size() + layout.size() > HEAP_LIMIT {
                    return ptr::null_mut();
                }
                grow(&mut heap);
            }
        })
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        without_interrupts(|| {
            let memory = ptr::NonNull::new(memory).expect("the heap hands out no null");
            // SAFETY: By this trait's contract the memory came from `alloc` with this layout.
            unsafe { self.0.lock().deallocate(memory, layout) };
        });
    }
}

/// Adds one page at the heap's end.
fn grow(heap: &mut Heap) {
    let size = heap.size();
    let end = HEAP + size as u64;
    paging::map_page(end, Purpose::Heap);
    // SAFETY: The page at the heap's end is mapped now and nobody else's.
    unsafe {
        if size == 0 {
            heap.init(end as usize as *mut u8, PAGE);
        } else {
            heap.extend(PAGE);
        }
    }
}

/// The heap's size and how much of it is in use, in bytes.
pub fn usage() -> (usize, usize) {
    without_interrupts(|| {
        let heap = ALLOCATOR.0.lock();
        (heap.size(), heap.used())
    })
}
