//! Memory that comes and goes while the pool is in use: growing, isolating, retiring.

use super::shared::Shared;
#[cfg(feature = "hardened")]
use super::shared::whole_at;
use super::{FramePool, LOOKS};
use crate::arena::{Arena, PART_ALIGN};
use crate::cpu::Cpus;
use crate::frame::{CpuId, Frame, FrameNumber, NumberRange};
use crate::geometry::FRAME_SIZE;
use crate::slot::Slot;
use crate::sync::pause;
use crate::tree::{FrameTree, GrowError, InUse, IsolateError, Isolation};

impl<C> FramePool<C> {
    /// Adds memory, now or at any time: late-reclaimed boot memory, hot-added memory. Its metadata
    /// goes to the upper end of the range itself, if any is needed; returns the frames that were
    /// added, which are the others. Memory beside some that is managed already mostly needs none.
    ///
    /// On any CPU, also on several at once; allocations and frees go on meanwhile. In an interrupt
    /// too. Costs in GiBs of the range, not in frames: about one read-modify-write for each GiB
    /// and for each block at its ends, and up to three pages of metadata to write at each end.
    ///
    /// # Errors
    /// See [`GrowError`]; nothing has changed then.
    ///
    /// # Safety
    /// The frames are memory that nobody else uses or will use. The pointer that `to_virtual`
    /// returns for a physical address is valid for reads and writes from there to the end of the
    /// range, for ever, with provenance over all of it.
    ///
    /// # Examples
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs")); }
    /// # use frametree::*;
    /// let pool = example::pool(Setup::new(1));
    /// let late = NumberRange::from_numbers(2048, 4096); // the 8 MiB behind
    /// // SAFETY: not real, so nobody uses it; metadata has memory of its own.
    /// let added = unsafe { pool.grow(late, example::mapped) }?;
    /// assert_eq!(pool.stats().managed_frames, 2048 + added.len());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub unsafe fn grow(
        &self,
        range: NumberRange,
        to_virtual: impl FnOnce(u64) -> *mut u8,
    ) -> Result<NumberRange, GrowError> {
        let shared = self.shared.get().ok_or(GrowError::NotInitialised)?;
        shared.grow(range, |bytes| {
            let needed = (bytes as u64).div_ceil(FRAME_SIZE);
            if needed >= range.len() {
                return Err(GrowError::TooSmall { needed, given: range.len() });
            }
            let end = FrameNumber::trusted(range.end().get() - needed);
            if bytes == 0 {
                return Ok((Arena::empty(), range));
            }
            let start = to_virtual(end.start_address());
            if !start.addr().is_multiple_of(PART_ALIGN) {
                return Err(GrowError::Misaligned { address: start.addr() });
            }
            // SAFETY: the caller vouches for the pointer, and that the frames are nobody else's.
            let arena = unsafe { Arena::new(start, bytes) };
            // Fewer frames can't need more parts.
            Ok((arena, NumberRange::trusted(range.start(), end)))
        })
    }

    /// As [`FramePool::grow`], with the metadata in memory that the caller gives, of
    /// [`bytes_to_grow`](Self::bytes_to_grow) and 128 more for alignment; it may be empty if that
    /// is 0. What is left of it is not used.
    ///
    /// # Errors
    /// See [`GrowError`].
    ///
    /// # Safety
    /// The frames are memory that nobody else uses or will use.
    ///
    /// # Examples
    /// Beside memory that is managed mostly nothing is needed, up to the next multiple of 128 MiB:
    ///
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs")); }
    /// # use frametree::*;
    /// let pool = example::pool(Setup::new(1));
    /// let late = NumberRange::from_numbers(2048, 2304);
    /// assert_eq!(pool.bytes_to_grow(late), 0);
    /// // SAFETY: the frames are not real, so nobody uses them.
    /// unsafe { pool.grow_in(late, &mut []) }?;
    /// assert_eq!(pool.stats().managed_frames, 2304);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub unsafe fn grow_in(
        &self,
        range: NumberRange,
        storage: &'static mut [u64],
    ) -> Result<(), GrowError> {
        let shared = self.shared.get().ok_or(GrowError::NotInitialised)?;
        let grown = shared.grow(range, |bytes| {
            let given = size_of_val(storage);
            let start = storage.as_mut_ptr().cast::<u8>();
            if bytes == 0 {
                return Ok((Arena::empty(), range));
            }
            let skip = start.align_offset(PART_ALIGN);
            let needed = bytes.saturating_add(skip);
            if needed > given {
                return Err(GrowError::StorageTooSmall { needed, given });
            }
            // SAFETY: `skip + bytes` lies within `storage`, which is ours alone for ever.
            Ok((unsafe { Arena::new(start.wrapping_add(skip), bytes) }, range))
        });
        grown.map(|_| ())
    }

    /// How many bytes of metadata it would take to add a range, as things are; if other CPUs add
    /// some meanwhile, it can be less, or 128 more.
    ///
    /// # Examples
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs")); }
    /// # use frametree::*;
    /// let pool = example::pool(Setup::new(1));
    /// let late = NumberRange::from_numbers(2048, 4096);
    /// let memory = vec![0; pool.bytes_to_grow(late) + 128].leak(); // it lives as long as the pool
    /// // SAFETY: the frames are not real, so nobody uses them.
    /// unsafe { pool.grow_in(late, memory) }?;
    /// assert_eq!(pool.stats().managed_frames, 4096);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn bytes_to_grow(&self, range: NumberRange) -> usize {
        let bytes = |shared: &Shared| shared.tree.bytes_to_grow(range) + shared.ledger_bytes(range);
        self.shared.get().map_or(0, bytes)
    }

    /// Sets aside what has become free of an isolated range, and says what is still in use. Takes
    /// a step for each 64 frames.
    ///
    /// # Examples
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs")); }
    /// # use frametree::*;
    /// let pool = example::pool(Setup::new(1));
    /// let page = pool.alloc_run(&Request::new(1).at(FrameNumber::new(600)))?;
    /// let module = NumberRange::from_numbers(512, 1024);
    /// // SAFETY: metadata has memory of its own.
    /// let isolation = unsafe { pool.isolate(module, example::mapped) }?;
    /// assert_eq!(pool.in_use(&isolation).first, Some(FrameNumber::new(600))); // whose is it?
    /// pool.free_run(page)?; // its owner has moved elsewhere
    /// assert_eq!(pool.in_use(&isolation).frames, 0); // so it can go off line
    /// # pool.readmit(isolation);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn in_use(&self, isolation: &Isolation) -> InUse {
        let nothing = InUse { frames: 0, first: None };
        self.recounted(|tree| tree.in_use(isolation)).unwrap_or(nothing)
    }

    /// Ends an isolation of which nothing is in use any more: its frames are gone for good. No
    /// free of one is accepted, and none counts as managed. The memory may be unplugged. (A CPU
    /// that has been asked to drain, but has not done so, may still take one back into its cache;
    /// at the end of that operation it is dropped, and counted:
    /// [`Stats::late_double_frees`](crate::Stats::late_double_frees).)
    ///
    /// # Errors
    /// The isolation, unchanged, if some of it is in use.
    ///
    /// # Examples
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs")); }
    /// # use frametree::*;
    /// let pool = example::pool(Setup::new(1));
    /// let module = NumberRange::from_numbers(512, 1024);
    /// // SAFETY: metadata has memory of its own.
    /// let isolation = unsafe { pool.isolate(module, example::mapped) }?;
    /// match pool.offline(isolation) {
    ///     Ok(gone) => println!("{gone:?} may be unplugged"),
    ///     Err(isolation) => pool.readmit(isolation), // somebody has some of it: another time
    /// }
    /// assert_eq!(pool.stats().managed_frames, 1536);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn offline(&self, isolation: Isolation) -> Result<NumberRange, Isolation> {
        let Some(shared) = self.shared.get() else { return Err(isolation) };
        let gone = shared.tree.offline(isolation);
        shared.changed();
        gone
    }

    /// Ends an isolation the other way: its frames may be handed out again.
    ///
    /// # Examples
    /// Nobody pulls the module out after all:
    ///
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs")); }
    /// # use frametree::*;
    /// let pool = example::pool(Setup::new(1));
    /// let module = NumberRange::from_numbers(512, 1024);
    /// // SAFETY: metadata has memory of its own.
    /// let isolation = unsafe { pool.isolate(module, example::mapped) }?;
    /// pool.readmit(isolation);
    /// let all = pool.alloc_run(&Request::new(512).at(module.start()))?;
    /// # pool.free_run(all)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn readmit(&self, isolation: Isolation) {
        self.recounted(|tree| tree.readmit(isolation));
    }

    /// Frees those frames of a range that are gone ([`offline`](Self::offline),
    /// [`retire`](Self::retire)), but not those of ranges that are isolated now: the memory is
    /// there again. Returns how many there were.
    ///
    /// # Safety
    /// The frames are memory that nobody uses.
    ///
    /// # Examples
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs")); }
    /// # use frametree::*;
    /// let pool = example::pool(Setup::new(1));
    /// let module = NumberRange::from_numbers(512, 1024);
    /// // SAFETY: metadata has memory of its own.
    /// let isolation = unsafe { pool.isolate(module, example::mapped) }?;
    /// let gone = pool.offline(isolation).expect("nothing of it is in use");
    /// // SAFETY: a new module was put into the same place, which nobody uses.
    /// assert_eq!(unsafe { pool.bring_back(gone) }, 512);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub unsafe fn bring_back(&self, range: NumberRange) -> u64 {
        self.recounted(|tree| tree.bring_back(range)).unwrap_or(0)
    }

    /// Something that changes how many frames there are.
    fn recounted<R>(&self, work: impl FnOnce(&FrameTree<'static>) -> R) -> Option<R> {
        let shared = self.shared.get()?;
        let done = work(&shared.tree);
        shared.changed();
        Some(done)
    }
}

impl<C: Cpus> FramePool<C> {
    /// Isolates a range: from now on nobody is given a frame of it, by any request. What is free
    /// of it is set aside at once; what is in use can be used on, and is set aside when it was
    /// freed. Ask [`in_use`](Self::in_use) from time to time, and end it by
    /// [`offline`](Self::offline), when nothing is left, or [`readmit`](Self::readmit). Up to 16
    /// ranges can be isolated at a time, of any length.
    ///
    /// This CPU's cache is drained, and all others are asked to ([`Cpus::request_drain`]). A CPU
    /// that has not done so can still hand out those frames of the range that it had cached, at
    /// most 128 and a 2 MiB block; it drains at the end of its next use of the pool at the latest.
    ///
    /// While anything is isolated each refill, run and block costs a look at the isolated ranges
    /// more. The first time in each 128 MiB a frame outside the range is taken for metadata: the
    /// lowest, but of low memory ([`Setup::low_last`](crate::Setup::low_last)) only if nothing else
    /// is left. It stays in use for ever, so a range that it lies in can't go off line any more.
    ///
    /// # Errors
    /// See [`IsolateError`]; nothing is isolated then. Of two calls at the same moment with frames
    /// in common both may be refused. A range that was isolated until just now is refused for as
    /// long as a CPU has frames of it in its hands that it is about to set aside; and one in a
    /// 2 MiB block in which another isolation just ends, while a CPU that ends it stands still.
    ///
    /// # Safety
    /// The pointer that `to_virtual` returns for a physical address is valid for reads and writes
    /// of the frame there, for ever, with provenance over all of it.
    ///
    /// # Examples
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs")); }
    /// # use frametree::*;
    /// let pool = example::pool(Setup::new(1));
    /// let frame = pool.alloc_run(&Request::new(1).at(FrameNumber::new(600)))?;
    /// let range = NumberRange::from_numbers(512, 1024); // the second 2 MiB
    /// // SAFETY: metadata has memory of its own.
    /// let isolation = unsafe { pool.isolate(range, example::mapped) }?;
    /// let isolation = pool.offline(isolation).unwrap_err(); // not yet: a frame is in use
    /// pool.free_run(frame)?;
    /// let gone = pool.offline(isolation).expect("nothing of it is in use");
    /// assert_eq!((gone, pool.stats().managed_frames), (range, 1536));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub unsafe fn isolate(
        &self,
        range: NumberRange,
        to_virtual: impl Fn(u64) -> *mut u8,
    ) -> Result<Isolation, IsolateError> {
        let shared = self.shared.get().ok_or(IsolateError::NotInitialised)?;
        // SAFETY: the caller vouches for it.
        let arena = |frame| unsafe { arena_in(frame, &to_virtual) };
        let isolation = shared.tree.isolate(range, arena);
        shared.changed();
        let isolation = isolation?;
        self.drain_all(shared);
        shared.tree.in_use(&isolation);
        shared.recount();
        Ok(isolation)
    }

    /// Makes a frame that the caller has gone for good, because it is broken, say: no free of it
    /// is accepted hereafter. If it is a part of something larger, that must be freed around it.
    /// (A broken frame that somebody else has is for [`isolate`](Self::isolate).)
    ///
    /// Caches are drained, as for `isolate`: one whose group the frame is in would take it back
    /// (see [`offline`](Self::offline)).
    ///
    /// # Errors
    /// The frame, and why: see [`IsolateError`]; it counts as a range for the moment, so it must
    /// not be isolated, and is refused when such a range would be. Nothing has changed then.
    ///
    /// # Safety
    /// As [`FramePool::isolate`].
    ///
    /// # Examples
    /// The memory controller has corrected too many errors in a frame that the kernel has just
    /// emptied:
    ///
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs")); }
    /// # use frametree::*;
    /// let pool = example::pool(Setup::new(1));
    /// let broken = pool.alloc()?;
    /// // SAFETY: metadata has memory of its own.
    /// match unsafe { pool.retire(broken, example::mapped) } {
    ///     Ok(()) => assert_eq!(pool.stats().managed_frames, 2047),
    ///     Err((broken, why)) => panic!("{broken:?}, still ours: {why}"),
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub unsafe fn retire(
        &self,
        frame: Frame,
        to_virtual: impl Fn(u64) -> *mut u8,
    ) -> Result<(), (Frame, IsolateError)> {
        // SAFETY: the caller vouches for it.
        let arena = |frame| unsafe { arena_in(frame, &to_virtual) };
        let retired = self.recounted(|tree| tree.retire(frame.number(), arena));
        match retired.unwrap_or(Err(IsolateError::NotInitialised)) {
            Ok(()) => {
                let number = frame.into_number();
                #[cfg(feature = "hardened")]
                self.hardened().map(|hardened| hardened.write_off(whole_at::<1>(number)));
                let _ = number;
                self.shared.get().into_iter().for_each(|shared| self.drain_all(shared));
                Ok(())
            }
            Err(error) => Err((frame, error)),
        }
    }

    /// Drains this CPU's cache, asks all others to do so, and waits for those about to: not
    /// for this one, whose use this may have interrupted.
    fn drain_all(&self, shared: &Shared) {
        let this = self.cpus.with_current(|cpu| cpu);
        for (index, slot) in shared.slots.iter().enumerate() {
            slot.request_drain();
            if index != this.get() {
                self.cpus.request_drain(CpuId::new(index));
            }
        }
        // A double free that only this flush could see is counted in the journal.
        let _ = self.drain();
        let is_awaited =
            |(index, slot): (usize, &Slot<'_>)| index != this.get() && slot.is_about_to_drain();
        for _ in 0..LOOKS {
            if !shared.slots.iter().enumerate().any(is_awaited) {
                break;
            }
            pause();
        }
    }
}

/// The memory of a frame, for metadata.
///
/// # Safety
/// As [`FramePool::isolate`]; and the frame is the caller's.
unsafe fn arena_in(
    frame: FrameNumber,
    to_virtual: impl Fn(u64) -> *mut u8,
) -> Result<Arena<'static>, IsolateError> {
    let start = to_virtual(frame.start_address());
    if !start.addr().is_multiple_of(PART_ALIGN) {
        return Err(IsolateError::Misaligned { address: start.addr() });
    }
    // SAFETY: the caller vouches for both.
    Ok(unsafe { Arena::new(start, FRAME_SIZE as usize) })
}
