//! Single frames: one, an urgent one, one of zeros, a list of them.
//!
//! The first attempt of each is a few dozen instructions on this CPU's slot, inlined into the
//! caller; what is not as simple takes another turn, out of line.

use super::FramePool;
use super::shared::{Shared, not_initialised, whole, whole_at};
#[cfg(feature = "hardened")]
use crate::cache::Handful;
use crate::cache::{Contents, Known, empty_out, fill_holes};
use crate::cpu::Cpus;
use crate::error::{AllocError, Found, FreeError};
use crate::frame::{CpuId, Frame, FrameNumber};
#[cfg(feature = "hardened")]
use crate::hardened::Owner;

/// How many places of a list are freed in one turn.
const AT_ONCE: usize = 64;

impl<C: Cpus> FramePool<C> {
    /// Takes a frame.
    ///
    /// # Errors
    /// [`AllocError::OutOfMemory`] if nothing was free at some instant during the call, apart
    /// from frames in other CPUs' caches, which it counts; [`AllocError::NotInitialised`].
    ///
    /// # Examples
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs")); }
    /// # use frametree::*;
    /// let pool = example::pool(Setup::new(1));
    /// let frame = pool.alloc()?;
    /// assert!(frame.start_address() < 8 << 20); // a physical address
    /// pool.free(frame)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn alloc(&self) -> Result<Frame, AllocError> {
        #[cfg(feature = "hardened")]
        if self.hardened().is_some() {
            return self.alloc_owned(Owner::UNNAMED);
        }
        self.alloc_plain()
    }

    /// The same, written in for an owner, and from anywhere if frames are placed at random.
    #[cfg(feature = "hardened")]
    pub(crate) fn alloc_owned(&self, owner: Owner) -> Result<Frame, AllocError> {
        let Some((shared, hardened)) = self.with_ledger() else { return self.alloc_plain() };
        let place = || {
            let (request, settle) = self.cpus.with_current(|cpu| hardened.place(cpu))?;
            let run = self.cpus.with_current(|cpu| shared.alloc_run(cpu, &request)).ok();
            let frame = run.map(|run| run.into_numbers().start());
            settle(frame);
            frame.map(Frame::owned)
        };
        let take = || place().map_or_else(|| self.alloc_plain(), Ok);
        hardened.hand_out(owner, whole::<1>, take, |frames| shared.put(frames))
    }

    #[inline(always)]
    fn alloc_plain(&self) -> Result<Frame, AllocError> {
        let at_once = |cpu: CpuId| self.slots.get(cpu.get())?.alloc_at_once();
        match self.cpus.with_current(at_once) {
            Some(frame) => Ok(frame),
            None => self.alloc_crumb(),
        }
    }

    #[inline(never)]
    fn alloc_crumb(&self) -> Result<Frame, AllocError> {
        let crumb = |cpu: CpuId| self.slots.get(cpu.get())?.alloc_crumb(&self.shared.get()?.tree);
        match self.cpus.with_current(crumb) {
            Some(number) => Ok(Frame::owned(number)),
            None => self.alloc_slowly(),
        }
    }

    #[inline(never)]
    fn alloc_slowly(&self) -> Result<Frame, AllocError> {
        self.take(Shared::alloc)
    }

    /// Takes a frame, of the reserve too ([`Setup::reserve`](crate::Setup::reserve)): for who can't
    /// wait, as an interrupt handler, or gets memory freed by it. Costs and contexts as for
    /// [`alloc`](Self::alloc), whose frames it takes while there are any; one of the reserve costs
    /// one read-modify-write on the tree, and one on the budget.
    ///
    /// # Errors
    /// As [`FramePool::alloc`], if the reserve is used up as well.
    ///
    /// # Examples
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs")); }
    /// # use frametree::*;
    /// let pool = example::pool(Setup::new(1).reserve(1)); // of 2048 frames
    /// let mut taken = [const { None }; 2048];
    /// assert_eq!(pool.alloc_bulk(&mut taken), 2047);
    /// let last = pool.alloc_urgent()?;
    /// assert!(pool.alloc_urgent().is_err());
    /// # pool.free(last)?;
    /// # pool.free_bulk(&mut taken)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn alloc_urgent(&self) -> Result<Frame, AllocError> {
        self.taking(whole::<1>, || self.take(Shared::alloc_urgent))
    }

    /// Gives a frame back, on any CPU.
    ///
    /// # Errors
    /// If it is free already or was never this pool's; see "What is detected" above. Nothing
    /// happens to the frame then. With [`Found::FreeAtFlush`] look at the error's frame.
    ///
    /// # Examples
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs")); }
    /// # use frametree::*;
    /// let pool = example::pool(Setup::new(1));
    /// // SAFETY: it lies behind the pool's 8 MiB: nobody's, as the pool finds out.
    /// let stranger = unsafe { Frame::from_number(FrameNumber::new(5000)) };
    /// let error = pool.free(stranger).unwrap_err();
    /// assert_eq!((error.frame, error.found), (FrameNumber::new(5000), Found::Unmanaged));
    /// ```
    #[inline]
    pub fn free(&self, frame: Frame) -> Result<(), FreeError> {
        let number = frame.into_number();
        self.giving(|| whole_at::<1>(number), Contents::Unknown, || self.free_plain(number))
    }

    #[inline(always)]
    fn free_plain(&self, number: FrameNumber) -> Result<(), FreeError> {
        self.cpus.with_current(|cpu| {
            match self.slots.get(cpu.get()).is_some_and(|slot| slot.free_at_once(number)) {
                true => Ok(()),
                false => self.free_past(cpu, number),
            }
        })
    }

    #[inline(never)]
    fn free_past(&self, cpu: CpuId, frame: FrameNumber) -> Result<(), FreeError> {
        let slowly = || self.free_slowly(cpu, frame);
        let below = || self.free_below(cpu, frame);
        match (self.slots.get(cpu.get()), self.shared.get()) {
            (Some(slot), Some(shared)) => slot.free_past(&shared.tree, frame, below, slowly),
            _ => slowly(),
        }
    }

    #[inline(never)]
    fn free_below(&self, cpu: CpuId, frame: FrameNumber) -> Result<(), FreeError> {
        let slowly = || self.free_slowly(cpu, frame);
        match (self.slots.get(cpu.get()), self.shared.get()) {
            (Some(slot), Some(shared)) => match slot.keep_lowest(&shared.tree, frame) {
                true => Ok(()),
                false => slot.free_to_tree(&shared.tree, frame, slowly),
            },
            _ => slowly(),
        }
    }

    #[inline(never)]
    fn free_slowly(&self, cpu: CpuId, frame: FrameNumber) -> Result<(), FreeError> {
        let Some(shared) = self.shared.get() else {
            return Err(FreeError { frame, found: Found::NotInitialised });
        };
        match shared.take_turn(cpu, |turn| turn.free(&shared.tree, frame)) {
            Some(freed) => freed,
            None => shared.free_nested(cpu, frame),
        }
    }

    /// Takes a frame of zeros: has it cleared by `clear`, unless its contents are known to be zero
    /// because it was last given back by [`free_zeroed`](Self::free_zeroed) or a flush that said
    /// so. Of the frames in this CPU's cache it prefers those. Costs and contexts as for
    /// [`alloc`](Self::alloc); `clear` runs after the operation, so it may use the pool, be
    /// interrupted, and take its time. If it panics the frame is lost.
    ///
    /// # Errors
    /// As [`FramePool::alloc`].
    ///
    /// # Examples
    /// Frames are free and dirty until somebody clears them. Here an idle CPU does it ahead: it
    /// takes the lowest free frames, clears what is dirty, and gives all of them back as zeroed.
    /// Meanwhile nobody else can have them.
    ///
    /// ```
    /// use frametree::{Cpus, FrameNumber, FramePool, PageCache};
    ///
    /// fn clear_ahead(pool: &FramePool<impl Cpus>, clear: impl Fn(FrameNumber)) {
    ///     let Some(tree) = pool.tree() else { return };
    ///     let caches: [_; 8] = core::array::from_fn(|_| tree.refill()); // 2 MiB at most
    ///     for cache in caches.into_iter().flatten() {
    ///         let (base, free, known_zero) = cache.into_parts();
    ///         let dirty = free & !known_zero;
    ///         for bit in (0..64).filter(|bit| dirty >> bit & 1 != 0) {
    ///             clear(FrameNumber::new(base.get() + bit));
    ///         }
    ///         // SAFETY: `cache` has given these frames up, and all of them hold zeros now.
    ///         let mut zeroed = unsafe { PageCache::from_parts(base, free, free) };
    ///         zeroed.flush(tree).expect("frames that were free a moment ago");
    ///     }
    /// }
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs")); }
    /// # let pool = example::pool(frametree::Setup::new(1));
    /// let cleared = core::cell::Cell::new(0);
    /// let count = || cleared.set(cleared.get() + 1);
    /// clear_ahead(&pool, |_| count());
    /// assert_eq!(cleared.get(), 512);
    /// clear_ahead(&pool, |_| count());
    /// assert_eq!(cleared.get(), 512, "they were known to be zero");
    /// let frame = pool.alloc_zeroed(|_| count()).expect("a frame");
    /// assert_eq!(cleared.get(), 512, "and so is this one");
    /// pool.free(frame).expect("a frame that is not free already"); // now it counts as dirty
    /// ```
    #[inline]
    pub fn alloc_zeroed(&self, clear: impl FnOnce(&Frame)) -> Result<Frame, AllocError> {
        let number = |known: &Known| whole::<1>(&known.frame);
        self.taking(number, || self.take(Shared::alloc_known)).map(|known| known.cleared(clear))
    }

    /// Gives a frame back that holds zeros, on any CPU: that is kept on record through the cache
    /// and the tree, until the frame is handed out. Costs 2 read-modify-writes more when it goes
    /// to the tree, alone or with others of its group; 0 in the cache.
    ///
    /// # Errors
    /// As [`FramePool::free`].
    ///
    /// # Safety
    /// Every byte of the frame is 0, and nobody will write to it before it is handed out again:
    /// its next owner gets it as zeroed.
    ///
    /// # Examples
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs")); }
    /// # use frametree::*;
    /// let pool = example::pool(Setup::new(1));
    /// let frame = pool.alloc_zeroed(|_frame| { /* a kernel clears it here */ })?;
    /// // SAFETY: nobody has written to it since.
    /// unsafe { pool.free_zeroed(frame) }?;
    /// let again = pool.alloc_zeroed(|_| panic!("it is known to be zero"))?;
    /// # pool.free(again)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub unsafe fn free_zeroed(&self, frame: Frame) -> Result<(), FreeError> {
        match self.shared.get() {
            Some(shared) => {
                let number = frame.into_number();
                let free = || self.cpus.with_current(|cpu| shared.free_zeroed(cpu, number));
                self.giving(|| whole_at::<1>(number), Contents::Zero, free)
            }
            None => Err(not_initialised(frame)),
        }
    }

    /// Fills the holes (`None`) of a list with single frames, in order, and returns how many it
    /// has filled: fewer than there are only where [`alloc`](Self::alloc) would have returned an
    /// error. Takes all that it needs of a group of 64 at once, from this CPU's cache, or with
    /// one read-modify-write for a refill. An interrupt may come in between; drain requests are
    /// served after each group.
    ///
    /// # Examples
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs")); }
    /// # use frametree::*;
    /// let pool = example::pool(Setup::new(1));
    /// let mut frames = [const { None }; 100];
    /// assert_eq!(pool.alloc_bulk(&mut frames), 100);
    /// assert!(frames.iter().all(Option::is_some));
    /// pool.free_bulk(&mut frames)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn alloc_bulk(&self, frames: &mut [Option<Frame>]) -> usize {
        #[cfg(feature = "hardened")]
        if self.hardened().is_some() {
            return fill_holes(frames, |_| self.alloc().ok().map(Handful::of));
        }
        fill_holes(frames, |most| self.take(|shared, cpu| shared.alloc_some(cpu, most)).ok())
    }

    /// Takes all frames out of a list and gives each back, as [`free`](Self::free) does, on any
    /// CPU. In order of address that is one flush for each group of 64; in random order, up to
    /// one for each frame. Drain requests are served after each 64 places.
    ///
    /// # Errors
    /// The first that is found, as in [`FramePool::free`]; all other frames are back.
    ///
    /// # Examples
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs")); }
    /// # use frametree::*;
    /// let pool = example::pool(Setup::new(1));
    /// let mut frames = [pool.alloc().ok(), None, pool.alloc().ok()]; // holes are passed over
    /// pool.free_bulk(&mut frames)?;
    /// assert!(frames.iter().all(Option::is_none));
    /// assert_eq!(pool.stats().free_frames, 2048);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn free_bulk(&self, frames: &mut [Option<Frame>]) -> Result<(), FreeError> {
        #[cfg(feature = "hardened")]
        if self.hardened().is_some() {
            let freed = frames.iter_mut().filter_map(Option::take).map(|frame| self.free(frame));
            return freed.fold(Ok(()), Result::and);
        }
        let mut result = Ok(());
        for some in frames.chunks_mut(AT_ONCE) {
            result = result.and(match self.shared.get() {
                Some(shared) => self.cpus.with_current(|cpu| shared.free_bulk(cpu, some)),
                None => empty_out(some, |lost| Err(not_initialised(lost.into_one().frame))),
            });
        }
        result
    }
}
