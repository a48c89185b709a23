//! The one door to atomics: every shared word of the crate is a [`Word`], and nothing else in
//! `src/` names an atomic type.
//!
//! Behind the door stands `core`, or `loom` under `cfg(loom)`, or, in the crate's own unit
//! tests, `core` with a count of the read-modify-writes that this thread has made (see
//! [`counting`]): the numbers in the documentation are asserted there.

#[cfg(not(loom))]
use core::sync::atomic as imp;
#[cfg(loom)]
use loom::sync::atomic as imp;

pub use imp::Ordering;

/// One shared 64-bit word. Whether it holds truth or a hint is said where it stands.
#[derive(Debug)]
#[repr(transparent)]
pub struct Word(imp::AtomicU64);

impl Word {
    /// A word with this value.
    pub fn new(value: u64) -> Self {
        Self(imp::AtomicU64::new(value))
    }

    /// Reads it.
    #[inline]
    pub fn load(&self, ordering: Ordering) -> u64 {
        self.0.load(ordering)
    }

    /// Writes it; no read-modify-write.
    #[inline]
    pub fn store(&self, value: u64, ordering: Ordering) {
        self.0.store(value, ordering);
    }

    /// Sets the bits of `mask` and says what was there before.
    #[inline]
    pub fn fetch_or(&self, mask: u64, ordering: Ordering) -> u64 {
        counting::one();
        self.0.fetch_or(mask, ordering)
    }

    /// Keeps only the bits of `mask` and says what was there before.
    #[inline]
    pub fn fetch_and(&self, mask: u64, ordering: Ordering) -> u64 {
        counting::one();
        self.0.fetch_and(mask, ordering)
    }

    /// Adds and says what was there before.
    #[inline]
    pub fn fetch_add(&self, by: u64, ordering: Ordering) -> u64 {
        counting::one();
        self.0.fetch_add(by, ordering)
    }

    /// Puts `new` in if it finds `current`; a failure reads Relaxed.
    #[inline]
    pub fn compare_exchange(&self, current: u64, new: u64, success: Ordering) -> Result<u64, u64> {
        counting::one();
        // ORDERING: nothing is read through a word that was not won.
        self.0.compare_exchange(current, new, success, Ordering::Relaxed)
    }
}

/// A full fence between this CPU's earlier read-modify-writes and its later loads.
#[inline]
pub fn full_fence() {
    imp::fence(Ordering::SeqCst);
}

/// Keeps the compiler, and so an interrupt on this CPU, from seeing accesses out of order; no
/// instruction.
#[inline]
pub fn interrupt_fence() {
    core::sync::atomic::compiler_fence(Ordering::SeqCst);
}

/// What a loop does between two looks at what another CPU is about to change.
#[inline]
pub fn pause() {
    #[cfg(loom)]
    loom::thread::yield_now();
    #[cfg(not(loom))]
    core::hint::spin_loop();
}

/// Counts this thread's read-modify-writes, in the crate's own unit tests only.
pub mod counting {
    #[cfg(all(test, not(loom)))]
    extern crate std;

    #[cfg(all(test, not(loom)))]
    std::thread_local! {
        static COUNT: core::cell::Cell<u64> = const { core::cell::Cell::new(0) };
    }

    /// One more.
    #[inline]
    pub(super) fn one() {
        #[cfg(all(test, not(loom)))]
        COUNT.set(COUNT.get() + 1);
    }

    /// How many read-modify-writes `work` makes on this thread.
    #[cfg(all(test, not(loom)))]
    pub fn during<R>(work: impl FnOnce() -> R) -> (u64, R) {
        let before = COUNT.get();
        let result = work();
        (COUNT.get() - before, result)
    }
}
