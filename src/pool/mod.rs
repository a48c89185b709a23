//! The pool: the shared tree and a slot for each CPU, in one `static`.
//!
//! It is built before main, initialised once from the memory map, and from then on used from
//! any context. What it decides itself is little: which slot, what an interrupt does that finds
//! the slot busy (the tree), and what happens when the tree has nothing (ask the other CPUs to
//! drain, and look once more).
//!
//! Here is what it is, and how a CPU that finds nothing asks the others. How it begins is in
//! `setup` and `init`, its operations in `single`, `several` and `change`, each of which goes from
//! the fastest way to the slower ones; what they have in common below the choice of a CPU is
//! `shared`.

mod change;
mod init;
mod setup;
mod several;
mod shared;
mod single;

use spin::Once;

use self::shared::Shared;
use crate::budget::Level;
use crate::cache::Contents;
use crate::cpu::Cpus;
use crate::error::{AllocError, FreeError, Refusal};
use crate::frame::{CpuId, NumberRange};
#[cfg(feature = "hardened")]
use crate::hardened::{Hardened, Owner};
use crate::slot::Slot;
use crate::stats::Stats;
use crate::sync::{Row, pause};
use crate::tree::{Broken, FrameTree};

pub use self::setup::{InitError, Metadata, Setup};

/// A frame allocator for all CPUs of a machine; lives in a `static`.
///
/// | operation, alone on the tree | atomic read-modify-writes |
/// |---|---|
/// | [`alloc`](Self::alloc), [`free`](Self::free) from and to this CPU's cache | 0 |
/// | an allocation that refills, from a partly used block | 1, for up to 64 frames |
/// | the same of the last frames of a block | 2 or 3 |
/// | the same from another block, which is free as a whole | 3, for up to 512 frames |
/// | the same from another GiB, which is free as a whole | up to 10, for up to 2^18 frames |
/// | the same after fewer than 8 frees to one group | 1 or 2 more, for what was freed |
/// | a free that flushes | 1, for up to 64 frames; 2 if the group had no free frame |
/// | a free far from the last ones | the same for the one frame |
/// | a free of the lowest frame there is, as far as this CPU knows, and the next `alloc` | 0 |
/// | a flush that completes a 2 MiB block | 10 more, for 512 frames |
/// | a flush that completes a GiB | 10 more, for 2^18 frames |
/// | [`alloc_block`](Self::alloc_block), [`free_block`](Self::free_block) | 1 each |
/// | a free of the block that the next `alloc_block` would take, and that one | 0 |
/// | `alloc_block` that splits a GiB | 3, for 512 blocks |
/// | [`alloc_run`](Self::alloc_run), [`free_run`](Self::free_run) from and to the CPU's cache | 0 |
/// | a run from the tree, or to it | 1 for each group of 64 that it touches |
/// | to a group that had no free frame | 1 more |
///
/// The first use of each block costs 1 more, and so does that of each GiB; so do the first free
/// frame and the first free block to appear in a GiB that had none, and, for a search, each hint
/// that turns out to be stale.
///
/// Any of these may run in an interrupt or NMI, also inside another of these on the same CPU: it
/// then works on the shared tree, without a cache, and waits for nobody.
///
/// # Out of reach
/// Each CPU's cache holds at most 128 free frames (two groups of 64) that other CPUs can't take,
/// and a block of 2 MiB, if it was freed there last as a whole.
/// An allocation that finds nothing asks for them ([`Cpus::request_drain`]). After that none is
/// out of reach if the hook waits until each CPU has called [`drain`](Self::drain): a CPU that
/// was asked inside one of its own operations drains when that ends, and the allocation looks
/// again until it has (a thousand times, so that it never waits for a CPU that stands still).
/// If the hook does not wait, or does nothing, those of CPUs that have not drained yet are out of
/// reach; each drains at the end of its next operation.
/// An interrupt inside the allocator can't take from its own CPU's cache either.
///
/// # What is detected
/// Freeing a frame that is free in the tree or in this CPU's own cache, that was reserved, or
/// that is no memory, is an error, also in release builds. Not detected: freeing a frame that
/// sits in *another* CPU's cache, or in this CPU's cache from an interrupt inside the allocator.
/// If that other CPU still holds it when it flushes, the flush reports it
/// ([`Found::FreeAtFlush`](crate::Found::FreeAtFlush)); if it has handed it out again, the frame
/// has two owners. All of these are detected by a hardened pool (feature `hardened`,
/// `Setup::hardened`).
///
/// # Examples
/// ```
/// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs")); }
/// # use frametree::*;
/// // 8 MiB; the crate's page has a real start.
/// let pool: FramePool<_> = example::pool(Setup::new(1));
/// let frame = pool.alloc()?;
/// let run = pool.alloc_run(&Request::new(17))?; // exactly 17, next to each other
/// let block = pool.alloc_block()?; // 2 MiB
/// let number = frame.number();
/// pool.free(frame)?;
/// pool.free_run(run)?;
/// pool.free_block(block)?;
///
/// // SAFETY: nobody uses the frame. That it is free already is what the pool finds out.
/// let again = unsafe { Frame::from_number(number) };
/// assert_eq!(pool.free(again).unwrap_err().frame, number);
/// assert_eq!(pool.stats().free_frames, 2048);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct FramePool<C> {
    cpus: C,
    shared: Once<Shared>,
    /// Those of `shared`, where the hot paths find them without a look whether it is initialised:
    /// there are none before, and they hold nothing.
    slots: Row<Slot<'static>>,
}

/// How often an allocation looks again while other CPUs are about to give frames back.
const LOOKS: usize = 1000;

/// For how long, in pauses, it waits between two looks: together a fraction of a millisecond.
const PAUSES: usize = 16;

/// What became of the frames in a CPU's cache.
///
/// # Examples
/// A CPU was taken off line, and whoever did that looks after it:
///
/// ```
/// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs")); }
/// # use frametree::*;
/// let pool = example::pool(Setup::new(2));
/// // SAFETY: CPU 1 does not run any more.
/// match unsafe { pool.drain_offline(CpuId::new(1)) }? {
///     Drained::Done => {}
///     Drained::Stranded { frames } => println!("{frames} frames are lost until the next boot"),
///     other => println!("{other:?}"),
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Drained {
    /// They are in the shared tree.
    Done,
    /// The CPU is inside another operation, which gives them back when it ends.
    AtEndOfUse,
    /// The CPU has stopped inside an operation; they stay in its cache.
    Stranded {
        /// How many, as far as the cache can tell.
        frames: u64,
    },
}

impl<C> FramePool<C> {
    /// A pool that has no memory yet.
    ///
    /// # Examples
    /// In a `static`, before there is any memory:
    ///
    /// ```
    /// use frametree::cpus::{NotPreempted, OneCpu, Pinned};
    /// use frametree::{AllocError, FramePool};
    ///
    /// // SAFETY: this kernel starts no other CPU, and switches threads only where they wait.
    /// const CPUS: Pinned<OneCpu, NotPreempted> =
    ///     unsafe { Pinned::new(OneCpu::promised(), NotPreempted::promised()) };
    /// static POOL: FramePool<Pinned<OneCpu, NotPreempted>> = FramePool::new(CPUS);
    /// assert_eq!(POOL.alloc(), Err(AllocError::NotInitialised));
    /// ```
    pub const fn new(cpus: C) -> Self {
        Self { cpus, shared: Once::new(), slots: Row::empty() }
    }

    /// The shared tree, or `None` before initialisation.
    ///
    /// # Examples
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs")); }
    /// # use frametree::*;
    /// let pool = example::pool(Setup::new(1));
    /// let tree = pool.tree().expect("it is initialised");
    /// assert_eq!(tree.free_runs().count(), 1); // nothing is allocated
    /// assert_eq!(tree.managed_ranges().next(), Some(NumberRange::from_numbers(0, 2048)));
    /// ```
    pub fn tree(&self) -> Option<&FrameTree<'static>> {
        self.shared.get().map(|shared| &shared.tree)
    }

    /// Gives back what the slot of a CPU holds that does not run any more.
    ///
    /// If the CPU stopped in the middle of an operation, nobody can tell which of its frames that
    /// operation was about: they stay where they are ([`Drained::Stranded`], at most 128 and a
    /// block of 2 MiB; and what a split or merge had in its hands, at most a GiB).
    ///
    /// # Errors
    /// A double free that only this flush could see; everything is drained all the same.
    ///
    /// # Safety
    /// No CPU uses this slot during the call: it is offline, or waits for this call.
    ///
    /// # Examples
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs")); }
    /// # use frametree::*;
    /// let pool = example::pool(Setup::new(2)); // all below is CPU 0
    /// let frame = pool.alloc()?;
    /// // SAFETY: CPU 1 has never run.
    /// assert_eq!(unsafe { pool.drain_offline(CpuId::new(1)) }?, Drained::Done);
    /// # pool.free(frame)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub unsafe fn drain_offline(&self, cpu: CpuId) -> Result<Drained, FreeError> {
        let Some(shared) = self.shared.get() else { return Ok(Drained::Done) };
        match shared.drain(cpu)? {
            Drained::AtEndOfUse => {
                Ok(Drained::Stranded { frames: shared.slots[cpu.get()].cached() })
            }
            drained => Ok(drained),
        }
    }

    /// Whether free memory is low: what the last [`Crossing`](crate::Crossing) of a watermark said.
    ///
    /// # Examples
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs")); }
    /// # use frametree::*;
    /// let pool = example::pool(Setup::new(1).watermarks(100, 200, |_crossing| ()));
    /// assert_eq!(pool.level(), Level::High);
    /// let run = pool.alloc_run(&Request::new(2000))?;
    /// assert_eq!(pool.level(), Level::Low);
    /// pool.free_run(run)?;
    /// assert_eq!(pool.level(), Level::High);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn level(&self) -> Level {
        self.shared.get().map_or(Level::High, |shared| shared.budget.level())
    }

    /// What the pool has done, and what is free. See [`Stats`] for the costs.
    ///
    /// # Examples
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs")); }
    /// # use frametree::*;
    /// let pool = example::pool(Setup::new(1));
    /// let frame = pool.alloc()?;
    /// let stats = pool.stats();
    /// assert_eq!((stats.managed_frames, stats.free_frames), (2048, 2047));
    /// # pool.free(frame)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.shared
            .get()
            .map_or_else(Stats::default, |shared| Stats::collect(&shared.tree, shared.cached()))
    }

    /// Checks every invariant of the tree and of the caches against it. Only meaningful at rest.
    ///
    /// # Errors
    /// The first one that is broken.
    ///
    /// # Examples
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs")); }
    /// # use frametree::*;
    /// let pool = example::pool(Setup::new(1));
    /// let block = pool.alloc_block()?;
    /// pool.verify()?; // in a test, with all CPUs at rest
    /// # pool.free_block(block)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn verify(&self) -> Result<(), Broken> {
        let Some(shared) = self.shared.get() else { return Ok(()) };
        let Shared { tree, slots, budget, .. } = shared;
        tree.verify()?;
        shared.recount();
        match budget.off_by(tree.free_frames(), slots.iter().map(Slot::credit).sum()) {
            0 => {}
            by => return Err(Broken::Budget { by }),
        }
        if let Some(frame) = slots.iter().find_map(|slot| slot.overlap(tree)) {
            return Err(Broken::CachedAndFree(frame));
        }
        let mut rest: &[Slot<'_>] = slots;
        while let [slot, others @ ..] = rest {
            if let Some(frame) = slot.twice(others) {
                return Err(Broken::CachedTwice(frame));
            }
            rest = others;
        }
        #[cfg(feature = "hardened")]
        if let Some(hardened) = shared.hardened {
            hardened.verify(tree, |frame| slots.iter().any(|slot| slot.holds(frame)))?;
        }
        Ok(())
    }

    /// The ledger, of a hardened pool.
    #[cfg(feature = "hardened")]
    #[inline]
    pub(crate) fn hardened(&self) -> Option<&'static Hardened<'static>> {
        self.shared.get()?.hardened
    }

    #[cfg(feature = "hardened")]
    #[inline]
    fn with_ledger(&self) -> Option<(&Shared, &'static Hardened<'static>)> {
        let shared = self.shared.get()?;
        Some((shared, shared.hardened?))
    }

    /// Something that takes frames, those that `numbers` says: in a hardened pool they are written
    /// in.
    #[inline(always)]
    fn taking<T>(
        &self,
        numbers: impl Fn(&T) -> NumberRange,
        take: impl Fn() -> Result<T, AllocError>,
    ) -> Result<T, AllocError> {
        #[cfg(feature = "hardened")]
        if let Some((shared, hardened)) = self.with_ledger() {
            return hardened.hand_out(Owner::UNNAMED, numbers, take, |frames| shared.put(frames));
        }
        let _ = numbers;
        take()
    }

    /// Something that frees these frames: in a hardened pool they must be handed out.
    #[inline(always)]
    fn giving(
        &self,
        frames: impl FnOnce() -> NumberRange,
        contents: Contents,
        free: impl FnOnce() -> Result<(), FreeError>,
    ) -> Result<(), FreeError> {
        #[cfg(feature = "hardened")]
        if let Some((shared, hardened)) = self.with_ledger() {
            let frames = frames();
            return hardened.take_back(frames, contents, || shared.tree.check_run(frames), free);
        }
        let _ = (frames, contents);
        free()
    }
}

impl<C: Cpus> FramePool<C> {
    /// Gives all frames in this CPU's cache back to the shared tree: when the CPU goes idle or
    /// offline, or in the handler of a [`Cpus::request_drain`] interrupt. If that has come inside
    /// another operation of this CPU, that operation does it when it ends.
    ///
    /// # Errors
    /// A double free that only this flush could see; everything is drained all the same.
    ///
    /// # Examples
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs")); }
    /// # use frametree::*;
    /// let pool = example::pool(Setup::new(1));
    /// pool.free(pool.alloc()?)?; // it stays in this CPU's cache, with its neighbours
    /// assert_eq!(pool.drain()?, Drained::Done);
    /// let tree = pool.tree().expect("it is initialised");
    /// assert_eq!(tree.free_frames(), 2048); // all can be had by others
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn drain(&self) -> Result<Drained, FreeError> {
        let Some(shared) = self.shared.get() else { return Ok(Drained::Done) };
        self.cpus.with_current(|cpu| shared.drain(cpu))
    }

    /// Takes something on this CPU, and asks the others if there is nothing.
    #[inline(always)]
    fn take<T>(
        &self,
        attempt: impl Fn(&Shared, CpuId) -> Result<T, Refusal>,
    ) -> Result<T, AllocError> {
        let shared = self.shared.get().ok_or(AllocError::NotInitialised)?;
        match self.cpus.with_current(|cpu| attempt(shared, cpu)) {
            Ok(taken) => Ok(taken),
            Err(_) => self.ask_others(shared, attempt).map_err(|refusal| {
                self.cpus.with_current(|cpu| shared.out_of_memory(cpu, refusal))
            }),
        }
    }

    /// After nothing was found: gives this CPU's cache back, since its frames can keep a block from
    /// being whole, asks all other CPUs that have frames at hand to do the same, and looks again,
    /// for as long as one of them is about to.
    #[cold]
    #[inline(never)]
    fn ask_others<T, E>(
        &self,
        shared: &Shared,
        attempt: impl Fn(&Shared, CpuId) -> Result<T, E>,
    ) -> Result<T, E> {
        let this = self.cpus.with_current(|cpu| cpu);
        let others = shared.slots.iter().enumerate().filter(|(index, _)| *index != this.get());
        for (index, slot) in others.clone() {
            if slot.may_hold_some() || shared.may_have_credit(slot) {
                slot.request_drain();
                self.cpus.request_drain(CpuId::new(index));
            }
        }
        let mut looks = 1usize;
        loop {
            let is_last =
                looks == LOOKS || !others.clone().any(|(_, slot)| slot.is_about_to_drain());
            // Rarer and rarer: if one of them has stopped inside a step, each attempt is a thousand
            // looks at the tree by itself.
            if is_last || looks.is_power_of_two() {
                let taken = self.cpus.with_current(|cpu| {
                    // A double free that only this flush could see is counted in the journal.
                    let _ = shared.drain(cpu);
                    attempt(shared, cpu)
                });
                if taken.is_ok() || is_last {
                    return taken;
                }
            }
            looks += 1;
            (0..PAUSES).for_each(|_| pause());
        }
    }
}
