//! The one door to atomics: every shared word of the crate is a [`Word`], every pointer that may
//! change while others read it a [`Link`], and nothing else in `src/` names an atomic type.
//!
//! Behind the door stands `core`, or `loom` under `cfg(loom)`, or, in the crate's own unit
//! tests, `core` with a count of the read-modify-writes that this thread has made (see
//! [`counting`]): the numbers in the documentation are asserted there. There too another CPU can be
//! made to come in between at any of its compare-exchanges (see [`faults`]).

#[cfg(not(loom))]
use core::sync::atomic as imp;
#[cfg(loom)]
use loom::sync::atomic as imp;

use core::fmt;
use core::marker::PhantomData;

pub use imp::Ordering;

/// Tells of an access, under `cfg(observed)`: what a simulator of many CPUs sees of the crate
/// (`benches/src/bin/simulator/`); and in the crate's own unit tests. Nothing otherwise.
macro_rules! watch {
    ($word:expr, $access:ident) => {
        #[cfg(any(observed, all(test, not(loom))))]
        watching::access(core::ptr::from_ref($word).addr(), watching::Access::$access);
    };
}

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
    #[cfg_attr(observed, track_caller)]
    pub fn load(&self, ordering: Ordering) -> u64 {
        watch!(&self.0, Load);
        self.0.load(ordering)
    }

    /// Writes it; no read-modify-write.
    #[inline]
    #[cfg_attr(observed, track_caller)]
    pub fn store(&self, value: u64, ordering: Ordering) {
        watch!(&self.0, Store);
        self.0.store(value, ordering);
    }

    /// Sets the bits of `mask` and says what was there before.
    #[inline]
    #[cfg_attr(observed, track_caller)]
    pub fn fetch_or(&self, mask: u64, ordering: Ordering) -> u64 {
        watch!(&self.0, ReadModifyWrite);
        counting::one();
        self.0.fetch_or(mask, ordering)
    }

    /// Keeps only the bits of `mask` and says what was there before.
    #[inline]
    #[cfg_attr(observed, track_caller)]
    pub fn fetch_and(&self, mask: u64, ordering: Ordering) -> u64 {
        watch!(&self.0, ReadModifyWrite);
        counting::one();
        self.0.fetch_and(mask, ordering)
    }

    /// Adds and says what was there before.
    #[inline]
    #[cfg_attr(observed, track_caller)]
    pub fn fetch_add(&self, by: u64, ordering: Ordering) -> u64 {
        watch!(&self.0, ReadModifyWrite);
        counting::one();
        self.0.fetch_add(by, ordering)
    }

    /// Subtracts and says what was there before.
    #[inline]
    #[cfg_attr(observed, track_caller)]
    pub fn fetch_sub(&self, by: u64, ordering: Ordering) -> u64 {
        watch!(&self.0, ReadModifyWrite);
        counting::one();
        self.0.fetch_sub(by, ordering)
    }

    /// Puts `new` in if it finds `current`; a failure reads Relaxed.
    #[inline]
    #[cfg_attr(observed, track_caller)]
    pub fn compare_exchange(&self, current: u64, new: u64, success: Ordering) -> Result<u64, u64> {
        watch!(&self.0, ReadModifyWrite);
        counting::one();
        if faults::strike() {
            // As if another CPU had changed the word and changed it back.
            return Err(current);
        }
        // ORDERING: nothing is read through a word that was not won.
        self.0.compare_exchange(current, new, success, Ordering::Relaxed)
    }
}

/// A way to a part of the metadata: empty, or a `&'m T`. What is put behind it is whole by then,
/// so whoever follows it needs no other synchronisation.
#[repr(transparent)]
pub struct Link<'m, T> {
    at: imp::AtomicPtr<T>,
    /// It gives `&'m T` and takes `&'m T`: a link must pass for one of neither a shorter nor a
    /// longer lifetime.
    gives: PhantomData<&'m T>,
    takes: PhantomData<fn(&'m T)>,
}

impl<'m, T> Link<'m, T> {
    /// A link to nothing yet.
    pub fn empty() -> Self {
        Self::of(core::ptr::null_mut())
    }

    /// A link to `part`.
    #[inline]
    pub fn to(part: &'m T) -> Self {
        Self::of(core::ptr::from_ref(part).cast_mut())
    }

    #[inline]
    fn of(at: *mut T) -> Self {
        Self { at: imp::AtomicPtr::new(at), gives: PhantomData, takes: PhantomData }
    }

    /// What it leads to; a plain load on x86.
    #[inline]
    pub fn load(&self) -> Option<&'m T> {
        watch!(&self.at, Load);
        // ORDERING: Acquire pairs with the Release in `publish`: who finds a part finds it whole.
        let at = self.at.load(Ordering::Acquire);
        // SAFETY: null, or a `&'m T` that `to` or `publish` was given: valid for all of `'m`.
        unsafe { at.as_ref() }
    }

    /// Makes it lead to `part` from now on: one plain store.
    #[inline]
    pub fn publish(&self, part: &'m T) {
        watch!(&self.at, Store);
        // ORDERING: Release, as said in `load`.
        self.at.store(core::ptr::from_ref(part).cast_mut(), Ordering::Release);
    }

    /// Makes it lead where another link leads; for who has it to himself.
    pub fn copy(&self, other: Option<&'m T>) {
        let at = other.map_or(core::ptr::null_mut(), |part| core::ptr::from_ref(part).cast_mut());
        // ORDERING: Release, as said in `load`.
        self.at.store(at, Ordering::Release);
    }

    /// Makes it lead to `part` if it leads to `found` (or nowhere, if that is `None`): one
    /// read-modify-write. Else says where it leads.
    pub fn replace(&self, found: Option<&'m T>, part: &'m T) -> Result<(), Option<&'m T>> {
        watch!(&self.at, ReadModifyWrite);
        counting::one();
        let found =
            found.map_or(core::ptr::null_mut(), |part| core::ptr::from_ref(part).cast_mut());
        let part = core::ptr::from_ref(part).cast_mut();
        // ORDERING: Release, as said in `load`; Acquire for what another CPU has put there.
        match self.at.compare_exchange(found, part, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => Ok(()),
            // SAFETY: as in `load`.
            Err(at) => Err(unsafe { at.as_ref() }),
        }
    }

    /// Makes it lead to `part` if it is empty, and says where it leads then: to what was put there
    /// first.
    pub fn settle(&self, part: &'m T) -> &'m T {
        match self.replace(None, part) {
            Ok(()) => part,
            Err(other) => other.unwrap_or(part),
        }
    }
}

impl<'m, T> Link<'m, T> {
    /// Exchanges what two links of one owner lead to; nobody else writes them.
    #[inline]
    pub fn trade(&self, other: &Self) {
        // ORDERING: as in `load` and `publish`.
        let [one, another] = [self, other].map(|link| link.at.load(Ordering::Acquire));
        self.at.store(another, Ordering::Release);
        other.at.store(one, Ordering::Release);
    }
}

/// A link that always leads somewhere.
#[derive(Debug)]
#[repr(transparent)]
pub struct Way<'m, T>(Link<'m, T>);

impl<'m, T> Way<'m, T> {
    /// A way to `part`.
    pub fn to(part: &'m T) -> Self {
        Self(Link::to(part))
    }

    /// What it leads to; a plain load on x86.
    #[inline(always)]
    pub fn load(&self) -> &'m T {
        // SAFETY: `to`, `publish` and `trade` with another one are all that writes it.
        unsafe { self.0.load().unwrap_unchecked() }
    }

    /// As [`Link::publish`].
    #[inline]
    pub fn publish(&self, part: &'m T) {
        self.0.publish(part);
    }

    /// As [`Link::trade`].
    #[inline]
    pub fn trade(&self, other: &Self) {
        self.0.trade(&other.0);
    }
}

impl<T> fmt::Debug for Link<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not what it leads to: parts lead back to what they hang from.
        write!(f, "Link({:?})", self.load().map(core::ptr::from_ref))
    }
}

/// A statistic of the whole program, for what happens seldom or never.
#[derive(Debug)]
pub struct Tally(core::sync::atomic::AtomicU64);

impl Tally {
    /// Nothing yet.
    pub const fn new() -> Self {
        Self(core::sync::atomic::AtomicU64::new(0))
    }

    /// Adds.
    pub fn add(&self, by: u64) {
        // ORDERING: a statistic.
        self.0.fetch_add(by, Ordering::Relaxed);
    }

    /// What it is.
    pub fn get(&self) -> u64 {
        // ORDERING: a statistic.
        self.0.load(Ordering::Relaxed)
    }
}

/// Parts in a row that may be asked for before they are there: none, until they are published, once
/// and for all. No part of any protocol, so loom does not stand behind it.
#[derive(Debug)]
pub struct Row<T: 'static> {
    first: core::sync::atomic::AtomicPtr<T>,
    count: core::sync::atomic::AtomicUsize,
}

impl<T> Row<T> {
    /// None yet.
    pub const fn empty() -> Self {
        Self {
            first: core::sync::atomic::AtomicPtr::new(core::ptr::null_mut()),
            count: core::sync::atomic::AtomicUsize::new(0),
        }
    }

    /// Part `index`, if it is there: one load and compare, and a load.
    #[inline(always)]
    pub fn get(&self, index: usize) -> Option<&'static T> {
        watch!(&self.count, Load);
        // ORDERING: Acquire pairs with the Release in `publish`: who sees the count finds the rest.
        if index >= self.count.load(Ordering::Acquire) {
            return None;
        }
        // ORDERING: behind the Acquire.
        let first = self.first.load(Ordering::Relaxed);
        // SAFETY: the count is not 0, so both are those of the row that `publish` was given.
        Some(unsafe { &*first.add(index) })
    }

    /// Makes these the parts. To be called once: another row could be longer than the first.
    ///
    /// # Safety
    /// It has not been called before.
    pub unsafe fn publish(&self, row: &'static [T]) {
        // ORDERING: Release, as said in `get`.
        self.first.store(row.as_ptr().cast_mut(), Ordering::Relaxed);
        // ORDERING: as above.
        self.count.store(row.len(), Ordering::Release);
    }
}

/// A full fence between this CPU's earlier read-modify-writes and its later loads.
#[inline]
pub fn full_fence() {
    imp::fence(Ordering::SeqCst);
}

/// The same where a read-modify-write was the last access before: on x86-64 that is a full fence
/// itself (Intel SDM 3A, 8.2.3.9), so that only the compiler must be kept from moving what follows.
#[inline]
pub fn rmw_fence() {
    #[cfg(all(target_arch = "x86_64", not(loom)))]
    interrupt_fence();
    #[cfg(not(all(target_arch = "x86_64", not(loom))))]
    full_fence();
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
    #[cfg(any(observed, all(test, not(loom))))]
    watching::pause();
    #[cfg(loom)]
    loom::thread::yield_now();
    #[cfg(not(loom))]
    core::hint::spin_loop();
}

/// Who watches all accesses of this thread, under `cfg(observed)` and in unit tests only.
#[cfg(any(observed, all(test, not(loom))))]
pub mod watching {
    extern crate std;

    use core::cell::Cell;
    use core::panic::Location;

    /// What is done to a word.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub enum Access {
        /// It is read.
        Load,
        /// It is written.
        Store,
        /// Both, in one step.
        ReadModifyWrite,
        /// No word: a loop waits for another CPU.
        Pause,
    }

    /// Called before each access, with the word's address and where the source makes it.
    pub type Watcher = fn(usize, Access, &'static Location<'static>);

    std::thread_local! {
        static WATCHER: Cell<Option<Watcher>> = const { Cell::new(None) };
    }

    /// From now on this thread is watched by `watcher`.
    pub fn watch(watcher: Option<Watcher>) {
        WATCHER.set(watcher);
    }

    #[track_caller]
    pub(super) fn access(address: usize, access: Access) {
        if let Some(watcher) = WATCHER.get() {
            watcher(address, access, Location::caller());
        }
    }

    #[track_caller]
    pub(super) fn pause() {
        access(0, Access::Pause);
    }
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

/// Other CPUs that come in between at this thread's compare-exchanges, in the crate's own unit
/// tests only.
pub mod faults {
    #[cfg(all(test, not(loom)))]
    extern crate std;

    #[cfg(all(test, not(loom)))]
    use std::{boxed::Box, cell::RefCell, vec::Vec};

    /// What happens at a compare-exchange.
    #[cfg(all(test, not(loom)))]
    pub enum Fault {
        /// It fails.
        Failure,
        /// Another CPU does this just before it. What this makes itself is not disturbed.
        Before(Box<dyn FnOnce()>),
    }

    #[cfg(all(test, not(loom)))]
    struct Plan {
        made: u64,
        faults: Vec<(u64, Fault)>,
    }

    #[cfg(all(test, not(loom)))]
    std::thread_local! {
        static PLAN: RefCell<Option<Plan>> = const { RefCell::new(None) };
    }

    /// One compare-exchange more: whether it is to fail.
    #[cfg(all(test, not(loom)))]
    pub(super) fn strike() -> bool {
        let Some(mut plan) = PLAN.take() else { return false };
        plan.made += 1;
        let mut fails = false;
        while let Some(at) = plan.faults.iter().position(|(step, _)| *step == plan.made) {
            match plan.faults.remove(at).1 {
                Fault::Failure => fails = true,
                Fault::Before(work) => work(),
            }
        }
        PLAN.set(Some(plan));
        fails
    }

    #[cfg(not(all(test, not(loom))))]
    #[inline(always)]
    pub(super) const fn strike() -> bool {
        false
    }

    /// Does `work` with these faults at its compare-exchanges, counted from 1; says whether it
    /// came to all of them.
    #[cfg(all(test, not(loom)))]
    pub fn during<R>(faults: Vec<(u64, Fault)>, work: impl FnOnce() -> R) -> (bool, R) {
        PLAN.set(Some(Plan { made: 0, faults }));
        let result = work();
        let plan = PLAN.take();
        (plan.is_some_and(|plan| plan.faults.is_empty()), result)
    }
}
