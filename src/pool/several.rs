//! Frames that belong together: runs, blocks of 2 MiB, GiBs.
//!
//! As in `single`: what is near comes first, inlined; then the whole tree; then the other CPUs.

use super::FramePool;
use super::shared::{Refused, Shared, not_initialised, range, whole, whole_at};
use crate::cache::Contents;
use crate::cpu::Cpus;
use crate::error::{AllocError, Found, FreeError, Refusal};
use crate::frame::{CpuId, Frame, FrameNumber, FrameRange, NumberRange};
use crate::geometry::{BLOCK_FRAMES, GIANT_FRAMES};
use crate::request::Request;
use crate::slot::{Rest, Slot, frames_in_a_word};
use crate::tree::{FrameTree, Wanted};

impl<C: Cpus> FramePool<C> {
    /// Takes a 2 MiB block and returns its first frame: one read-modify-write if its GiB is split
    /// already. It is the lowest of the 128 MiB that this CPU took one of last, while there is one;
    /// if this CPU has freed that one itself, it waits in the cache, and takes none.
    ///
    /// # Errors
    /// [`AllocError::NoneWhole`], after this CPU's cache was given back and the others were asked
    /// for theirs, whose frames can keep a block from being whole. [`AllocError::Reserved`] and
    /// [`AllocError::NotInitialised`] as by [`FramePool::alloc`].
    ///
    /// # Examples
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs")); }
    /// # use frametree::*;
    /// let pool = example::pool(Setup::new(1));
    /// let block = pool.alloc_block()?;
    /// assert!(block.start_address().is_multiple_of(2 << 20));
    /// pool.free_block(block)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn alloc_block(&self) -> Result<Frame, AllocError> {
        self.taking(whole::<BLOCK_FRAMES>, || match self.alloc_block_by(Slot::alloc_parked_block) {
            Some(block) => Ok(block),
            None => self.alloc_block_near(),
        })
    }

    #[inline(never)]
    fn alloc_block_near(&self) -> Result<Frame, AllocError> {
        match self.alloc_block_by(Slot::alloc_block_at_once) {
            Some(block) => Ok(block),
            None => self.alloc_block_slowly(),
        }
    }

    #[inline(always)]
    fn alloc_block_by(
        &self,
        take: impl FnOnce(&Slot<'static>, &FrameTree<'static>) -> Option<FrameNumber>,
    ) -> Option<Frame> {
        let tree = &self.shared.get()?.tree;
        self.cpus.with_current(|cpu| take(self.slots.get(cpu.get())?, tree)).map(Frame::owned)
    }

    #[inline(never)]
    fn alloc_block_slowly(&self) -> Result<Frame, AllocError> {
        self.take_whole(BLOCK_FRAMES, Shared::alloc_block)
    }

    /// Gives back a 2 MiB block, named by its first frame, that was taken as a whole: one
    /// read-modify-write; none if the next `alloc_block` of this CPU would take it, and no other
    /// waits for that. So each CPU caches one block at most; with a reserve or watermarks none.
    ///
    /// # Errors
    /// As [`FrameTree::free_block`](crate::FrameTree::free_block).
    ///
    /// # Examples
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs")); }
    /// # use frametree::*;
    /// let pool = example::pool(Setup::new(1));
    /// let first = pool.alloc_block()?.into_number(); // as a page table entry keeps it
    /// // SAFETY: the number is that of a block of ours, and is used once.
    /// pool.free_block(unsafe { Frame::from_number(first) })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn free_block(&self, first: Frame) -> Result<(), FreeError> {
        let number = first.into_number();
        let free = || self.free_block_plain(number);
        self.giving(|| whole_at::<BLOCK_FRAMES>(number), Contents::Unknown, free)
    }

    #[inline]
    fn free_block_plain(&self, first: FrameNumber) -> Result<(), FreeError> {
        self.cpus.with_current(|cpu| {
            let near = self.slots.get(cpu.get()).zip(self.shared.get());
            match near.is_some_and(|(slot, shared)| slot.park_block(&shared.tree, first)) {
                true => Ok(()),
                false => self.free_block_past(cpu, first),
            }
        })
    }

    #[inline(never)]
    fn free_block_past(&self, cpu: CpuId, first: FrameNumber) -> Result<(), FreeError> {
        let Some(shared) = self.shared.get() else {
            return Err(FreeError { frame: first, found: Found::NotInitialised });
        };
        let slot = self.slots.get(cpu.get());
        match slot.and_then(|slot| slot.free_block_at_once(&shared.tree, first)) {
            Some(freed) => freed,
            None => shared.free_block(cpu, first),
        }
    }

    /// Takes contiguous frames: exactly as many as the request asks for. Up to 64 without further
    /// conditions come from this CPU's cache if it has them in a row, without an atomic
    /// read-modify-write (a dry cache is refilled first, as for a single frame); else from the
    /// tree, the lowest that fit (without conditions the lowest as far as this CPU knows, which
    /// notices what others have freed below after 64 runs at the latest), at one
    /// read-modify-write for each word of 64 frames that the run touches, and for each block and
    /// GiB that it contains.
    ///
    /// # Errors
    /// As [`FrameTree::alloc_run`](crate::FrameTree::alloc_run), after this CPU's cache and those
    /// of the others were given back ([`Cpus::request_drain`]); [`AllocError::NotInitialised`].
    ///
    /// # Examples
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs")); }
    /// # use frametree::*;
    /// let pool = example::pool(Setup::new(1));
    /// let ring = pool.alloc_run(&Request::new(5).align(32 << 10).below(4 << 20))?;
    /// assert_eq!(ring.len(), 5);
    /// assert!(ring.start_address().is_multiple_of(32 << 10));
    /// pool.free_run(ring)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn alloc_run(&self, request: &Request) -> Result<FrameRange, AllocError> {
        self.taking(FrameRange::numbers, || self.alloc_run_plain(request))
    }

    #[inline(always)]
    fn alloc_run_plain(&self, request: &Request) -> Result<FrameRange, AllocError> {
        let Some(count) = request.plain_within_a_word() else {
            return self.alloc_run_anew(request);
        };
        let at_once = |cpu: CpuId| self.slots.get(cpu.get())?.alloc_run_at_once(count);
        match self.cpus.with_current(at_once) {
            Some((first, Rest::Nothing)) => Ok(range(first, count)),
            Some((first, Rest::Requests)) => self.serve_and_give(first, count),
            None => self.alloc_run_anew(request),
        }
    }

    #[cold]
    #[inline(never)]
    fn serve_and_give(&self, first: FrameNumber, count: u32) -> Result<FrameRange, AllocError> {
        self.cpus.with_current(|cpu| self.slots.get(cpu.get()).map(Slot::serve));
        Ok(range(first, count))
    }

    #[inline(never)]
    fn alloc_run_anew(&self, request: &Request) -> Result<FrameRange, AllocError> {
        if request.is_plain()
            && let Some(run) = self.alloc_run_near(request.count())
        {
            return Ok(FrameRange::owned(run));
        }
        self.alloc_run_slowly(request)
    }

    #[inline(never)]
    fn alloc_run_near(&self, count: u64) -> Option<NumberRange> {
        let shared = self.shared.get()?;
        let near = |cpu: CpuId| {
            let slot = shared.slots.get(cpu.get())?;
            slot.take_turn(|turn| turn.alloc_run_near(&shared.tree, count))?
        };
        self.cpus.with_current(near)
    }

    #[inline(never)]
    fn alloc_run_slowly(&self, request: &Request) -> Result<FrameRange, AllocError> {
        let shared = self.shared.get().ok_or(AllocError::NotInitialised)?;
        let run = self.cpus.with_current(|cpu| shared.alloc_run(cpu, request));
        self.or_after_drain(shared, run, request, Wanted::Any)
    }

    /// Takes contiguous frames of zeros: shows those to `clear`, stretch by stretch, whose contents
    /// are not known to be zero. From the tree, as by [`alloc_run`](Self::alloc_run) beyond the
    /// cache; `clear` runs after the operation, so it may use the pool, be interrupted, and take
    /// its time. If it panics the frames are lost. A hardened pool shows all of them.
    ///
    /// For a zeroed 2 MiB block ask for 512 frames aligned to 2 MiB, for a GiB likewise: it goes
    /// back by [`free_block`](Self::free_block) or [`free_giant`](Self::free_giant), or in parts.
    /// Costs one read-modify-write more for each 64 frames of which some are known.
    ///
    /// # Errors
    /// As [`FramePool::alloc_run`].
    ///
    /// # Examples
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs")); }
    /// # use frametree::*;
    /// let pool = example::pool(Setup::new(1));
    /// let block = Request::new(512).align(2 << 20);
    /// let mut cleared = 0;
    /// let run = pool.alloc_run_zeroed(&block, |dirty| cleared += dirty.len())?;
    /// assert_eq!(cleared, 512); // nothing was known of them
    /// let block = run.into_numbers().start();
    /// // SAFETY: the frames were named by `into_numbers`, and are nobody else's.
    /// pool.free_block(unsafe { Frame::from_number(block) })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn alloc_run_zeroed(
        &self,
        request: &Request,
        clear: impl FnMut(NumberRange),
    ) -> Result<FrameRange, AllocError> {
        #[cfg(feature = "hardened")]
        if self.hardened().is_some() {
            // Of a frame that is set aside nobody would ever take what is known.
            let (run, mut clear) = (self.alloc_run(request)?, clear);
            clear(run.numbers());
            return Ok(run);
        }
        let shared = self.shared.get().ok_or(AllocError::NotInitialised)?;
        let past = |cpu: CpuId| shared.alloc_run_past(cpu, request, Wanted::Zero);
        let run = self.cpus.with_current(past);
        let run = self.or_after_drain(shared, run, request, Wanted::Zero)?;
        shared.tree.take_contents(run.numbers(), clear);
        Ok(run)
    }

    /// Gives contiguous frames back, on any CPU: a run, a part of one, or neighbours from several
    /// allocations. Up to 64 go to this CPU's cache if they lie beside what it has; or if the next
    /// request for as many frames would get these, as far as this CPU knows, and it has nothing
    /// else there. Then they wait for that, until the CPU looks for something else in the tree.
    ///
    /// # Errors
    /// If one of them is free already, sits in this CPU's cache, or was never this pool's; then
    /// nothing was freed, and the error names the lowest such frame. With [`Found::FreeAtFlush`]
    /// look at the error's frame.
    ///
    /// # Examples
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs")); }
    /// # use frametree::*;
    /// let pool = example::pool(Setup::new(1));
    /// let run = pool.alloc_run(&Request::new(100))?;
    /// let (kept, rest) = run.split_at(40);
    /// pool.free_run(rest)?; // any part of it
    /// assert_eq!(pool.stats().free_frames, 2048 - kept.len());
    /// pool.free_run(kept)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn free_run(&self, run: FrameRange) -> Result<(), FreeError> {
        let run = run.into_numbers();
        self.giving(|| run, Contents::Unknown, || self.free_run_plain(run))
    }

    #[inline(always)]
    fn free_run_plain(&self, run: NumberRange) -> Result<(), FreeError> {
        self.cpus.with_current(|cpu| {
            let Some(frames) = frames_in_a_word(run) else { return self.free_run_slowly(cpu, run) };
            match self.slots.get(cpu.get()).is_some_and(|slot| slot.free_run_at_once(run, frames)) {
                true => Ok(()),
                false => self.free_run_past(cpu, run, frames),
            }
        })
    }

    #[inline(never)]
    fn free_run_past(&self, cpu: CpuId, run: NumberRange, frames: u64) -> Result<(), FreeError> {
        let slowly = || self.free_run_slowly(cpu, run);
        match (self.slots.get(cpu.get()), self.shared.get()) {
            (Some(slot), Some(shared)) => slot.free_run_past(&shared.tree, (run, frames), slowly),
            _ => slowly(),
        }
    }

    #[inline(never)]
    fn free_run_slowly(&self, cpu: CpuId, run: NumberRange) -> Result<(), FreeError> {
        let Some(shared) = self.shared.get() else {
            return Err(FreeError { frame: run.start(), found: Found::NotInitialised });
        };
        shared.free_run(cpu, run)
    }

    /// The run, or, if there was none, what there is after the caches were given back.
    fn or_after_drain(
        &self,
        shared: &Shared,
        run: Result<FrameRange, Refused>,
        request: &Request,
        contents: Wanted,
    ) -> Result<FrameRange, AllocError> {
        match run {
            Ok(run) => Ok(run),
            Err(Refused::Senseless(error)) => Err(AllocError::Request(error)),
            Err(Refused::NotThere | Refused::Reserved) => {
                self.alloc_run_after_drain(shared, request, contents)
            }
        }
    }

    #[cold]
    #[inline(never)]
    fn alloc_run_after_drain(
        &self,
        shared: &Shared,
        request: &Request,
        contents: Wanted,
    ) -> Result<FrameRange, AllocError> {
        let drained =
            |shared: &Shared, cpu: CpuId| shared.alloc_run_drained(cpu, request, contents);
        let run = self.ask_others(shared, drained);
        let why = |refused| self.cpus.with_current(|cpu| shared.why_no_run(cpu, request, refused));
        run.map_err(why)
    }

    /// Takes a GiB and returns its first frame: one read-modify-write. The first time for each
    /// GiB it also writes the leaves of its blocks that were never used, 64 KiB at most, with one
    /// read-modify-write each. GiBs are not cached.
    ///
    /// # Errors
    /// As [`FramePool::alloc_block`].
    ///
    /// # Examples
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs")); }
    /// # use frametree::*;
    /// let pool = example::pool(Setup::new(1)); // of 8 MiB
    /// let error = pool.alloc_giant().unwrap_err();
    /// assert!(matches!(error, AllocError::NoneWhole { free: 2048, .. }), "{error}");
    /// ```
    #[inline]
    pub fn alloc_giant(&self) -> Result<Frame, AllocError> {
        let take = || self.take_whole(GIANT_FRAMES, Shared::alloc_giant);
        self.taking(whole::<GIANT_FRAMES>, take)
    }

    /// Gives back a GiB, named by its first frame, that was taken as a whole: one
    /// read-modify-write, after a look at the leaves of all its blocks.
    ///
    /// # Errors
    /// As [`FrameTree::free_giant`](crate::FrameTree::free_giant).
    ///
    /// # Examples
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs")); }
    /// # use frametree::*;
    /// let pool = example::pool_of(2 << 30, Setup::new(1)); // 2 GiB
    /// let guest = pool.alloc_giant()?; // all memory of a virtual machine
    /// pool.free_giant(guest)?; // it was shut down
    /// assert_eq!(pool.stats().free_giants, 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn free_giant(&self, first: Frame) -> Result<(), FreeError> {
        match self.shared.get() {
            Some(shared) => {
                let number = first.into_number();
                let free = || self.cpus.with_current(|cpu| shared.free_giant(cpu, number));
                self.giving(|| whole_at::<GIANT_FRAMES>(number), Contents::Unknown, free)
            }
            None => Err(not_initialised(first)),
        }
    }

    /// The same for so many frames as one.
    #[inline]
    fn take_whole(
        &self,
        frames: u64,
        attempt: impl Fn(&Shared, CpuId) -> Result<Frame, Refusal>,
    ) -> Result<Frame, AllocError> {
        self.take(attempt).map_err(|error| match error {
            AllocError::OutOfMemory { cached_elsewhere } => {
                let (free, longest) = self.what_is_free();
                AllocError::NoneWhole { frames, free, longest, cached_elsewhere }
            }
            error => error,
        })
    }

    /// How many frames are free in the tree, and how many in a row at most.
    #[cold]
    fn what_is_free(&self) -> (u64, u64) {
        let Some(Shared { tree, .. }) = self.shared.get() else { return (0, 0) };
        (tree.free_frames(), tree.longest_run(tree.shared_writer()))
    }
}
