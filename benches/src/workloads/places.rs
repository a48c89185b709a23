//! Places of a list, at random, each fetched a turn before it is used: what the workload itself
//! has to wait for, a line of a list of megabytes, is charged to no allocator.

use crate::support::Dice;

/// Which place of a list comes next.
pub struct Places {
    dice: Dice,
    next: usize,
}

impl Places {
    /// Of the sequence number `seed`.
    pub const fn new(seed: u64) -> Self {
        Self { dice: Dice::new(seed), next: 0 }
    }

    /// The next place of this list, which is not empty.
    #[inline(always)]
    pub fn next(&mut self, list: &[u32]) -> usize {
        let place = self.next;
        self.next = self.dice.below(list.len() as u64) as usize;
        fetch(&list[self.next]);
        place
    }
}

/// Has a line fetched that is needed soon.
#[inline(always)]
fn fetch(place: &u32) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a hint; nothing is read, and the address is that of a reference.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(place).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = place;
}
