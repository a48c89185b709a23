//! The kernel's heap: `frametree`'s bridge from the pool to `GlobalAlloc`, with
//! `linked_list_allocator` in its segments. It grows and shrinks by frames of the pool, which it
//! uses where the direct map has them.

use frametree::cpus::InterruptsOff;
use frametree::heap::PoolHeap;

use crate::memory::{Cpus, POOL};
use crate::paging::DIRECT_MAP;

#[global_allocator]
static HEAP: PoolHeap<Cpus, InterruptsOff> = {
    // SAFETY: nothing allocates before all memory of the pool is in the direct map, where it stays.
    // Interrupts are off while the lock is held, so no handler can wait for it in vain.
    unsafe { PoolHeap::new(&POOL, InterruptsOff, DIRECT_MAP as usize) }
};

/// How many frames the heap has.
pub fn frames() -> u64 {
    HEAP.frames()
}

/// Gives back what the heap has kept for next time.
pub fn trim() {
    HEAP.trim();
}
