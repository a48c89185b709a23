//! The pool: the shared tree and a slot for each CPU, in one `static`.
//!
//! It is built before main, initialised once from the memory map, and from then on used from
//! any context. What it decides itself is little: which slot, what an interrupt does that finds
//! the slot busy (the tree), and what happens when the tree has nothing (ask the other CPUs to
//! drain, and look once more).

use core::fmt;

use spin::Once;

use crate::arena::{Arena, PART_ALIGN};
use crate::budget::{Budget, Crossing, Level, Marks, Rules};
use crate::cache::{Contents, Handful, Known, empty_out, fill_holes};
use crate::cpu::Cpus;
use crate::error::{AllocError, Found, FreeError, NoRun, OutOfMemory};
use crate::frame::{CpuId, Frame, FrameNumber, FrameRange, NumberRange};
use crate::geometry::{BLOCK_FRAMES, FRAME_LIMIT, FRAME_SIZE, GIANT_FRAMES};
#[cfg(feature = "hardened")]
use crate::hardened::{Hardened, Hardening, Owner};
use crate::journal::{Counter, Writer};
use crate::layout::{Layout, LayoutError};
use crate::map::{MapError, MemoryMap};
use crate::request::Request;
use crate::slot::{Slot, Turn};
use crate::stats::Stats;
use crate::sync::{Row, pause};
use crate::tree::{Broken, FrameTree, GrowError, InUse, IsolateError, Isolation, Wanted};

/// A frame allocator for all CPUs of a machine; lives in a `static`.
///
/// | operation, alone on the tree | atomic read-modify-writes |
/// |---|---|
/// | [`alloc`](Self::alloc), [`free`](Self::free) from and to this CPU's cache | 0 |
/// | an allocation that refills, from a partly used block | 1, for up to 64 frames |
/// | the same from another block, which is free as a whole | 5, for up to 512 frames |
/// | the same from another GiB, which is free as a whole | up to 10, for up to 2^18 frames |
/// | the same after fewer than 8 frees to one group | 1 or 2 more, for what was freed |
/// | a free that flushes | 1, for up to 64 frames; 2 if the group had no free frame |
/// | a free far from the last ones | the same for the one frame |
/// | a flush that completes a 2 MiB block | 10 more, for 512 frames |
/// | a flush that completes a GiB | 10 more, for 2^18 frames |
/// | [`alloc_block`](Self::alloc_block), [`free_block`](Self::free_block) | 1 each |
/// | `alloc_block` that splits a GiB | 3, for 512 blocks |
///
/// The first use of each block costs 1 more, and so does that of each GiB; so do the first free
/// frame and the first free block to appear in a GiB that had none, and, for a search, each hint
/// that turns out to be stale.
///
/// Any of these may run in an interrupt or NMI, also inside another of these on the same CPU: it
/// then works on the shared tree, without a cache, and waits for nobody.
///
/// # Out of reach
/// Each CPU's cache holds at most 128 free frames (two groups of 64) that other CPUs can't take.
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
/// ([`Found::FreeAtFlush`]); if it has handed it out again, the frame has two owners.
/// All of these are detected by a hardened pool (feature `hardened`, `Setup::hardened`).
///
/// # Examples
/// ```
/// # mod example {
/// #     include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs"));
/// # }
/// # use frametree::*;
/// let pool = example::pool(Setup::new(1)); // 8 MiB; the crate's page has a real start
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

#[derive(Debug)]
struct Shared {
    tree: FrameTree<'static>,
    slots: &'static [Slot<'static>],
    budget: &'static Budget<'static>,
    #[cfg(feature = "hardened")]
    hardened: Option<&'static Hardened<'static>>,
}

/// How many places of a list are freed in one turn.
const AT_ONCE: usize = 64;

/// How often an allocation looks again while other CPUs are about to give frames back.
const LOOKS: usize = 1000;

/// For how long, in pauses, it waits between two looks: together a fraction of a millisecond.
const PAUSES: usize = 16;

/// How a pool is to be initialised.
///
/// # Examples
/// ```
/// # mod example {
/// #     include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs"));
/// # }
/// # use frametree::*;
/// use std::sync::atomic::{AtomicU64, Ordering};
/// static LOW: AtomicU64 = AtomicU64::new(0);
///
/// let setup = Setup::new(1).reserve(64).watermarks(512, 1024, |crossing| {
///     if crossing.level == Level::Low {
///         LOW.fetch_add(1, Ordering::Relaxed); // a kernel would wake a thread that frees some
///     }
/// });
/// let pool = example::pool(setup);
/// let mut taken = 0;
/// while let Ok(frame) = pool.alloc() {
///     let _ = frame.into_number(); // kept
///     taken += 1;
/// }
/// assert_eq!((taken, LOW.load(Ordering::Relaxed)), (2048 - 64, 1));
/// let urgent = pool.alloc_urgent()?; // of the reserve
/// pool.free(urgent)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    cpus: usize,
    metadata_below: u64,
    rules: Rules,
    low_end: u64,
    #[cfg(feature = "hardened")]
    hardening: Option<Hardening>,
}

impl Setup {
    /// For this many CPUs; the metadata is taken from the highest usable memory, and there is no
    /// reserve.
    #[must_use]
    pub const fn new(cpus: usize) -> Self {
        Self {
            cpus,
            metadata_below: u64::MAX,
            rules: Rules::OFF,
            low_end: 0,
            #[cfg(feature = "hardened")]
            hardening: None,
        }
    }

    /// The metadata must lie below this physical address: where the kernel has mapped memory.
    #[must_use]
    pub const fn metadata_below(self, address: u64) -> Self {
        Self { metadata_below: address, ..self }
    }

    /// Memory below this physical address is used last by requests that do not ask for it: 4 GiB,
    /// for devices that reach no further, or 16 MiB, for the oldest. Rounded up to 2 MiB.
    ///
    /// Single frames and runs without a limit come from there when nothing else is left in the
    /// tree; blocks and GiBs when there is none in the GiBs above it.
    /// What is above is used from its lowest address on. It costs nothing on any path that finds
    /// memory above.
    ///
    /// # Panics
    /// If the address is above 2^52.
    #[must_use]
    pub const fn low_last(self, below: u64) -> Self {
        assert!(below <= 1 << 52, "an address that no x86-64 machine has");
        Self { low_end: below.div_ceil(FRAME_SIZE), ..self }
    }

    /// The pool is hardened: it knows who has each frame. So it refuses *every* double free
    /// ([`Found::NotHandedOut`]), wherever the frame sits and whatever it races with, and hands no
    /// frame out that somebody has or, with poison, has written to since its free: see
    /// [`Hardening`]. [`verify`](FramePool::verify) compares the ledger and a seal as well.
    ///
    /// It costs 32 bits of metadata a frame ([`Layout::hardened`]), which are written at
    /// initialisation and when memory comes, and for each frame that goes out or comes back a
    /// search among the ranges and an atomic read-modify-write; two with poison, and the frame is
    /// written and read. Lists of frames are taken and freed one by one.
    ///
    /// Frames go in and out through the pool: one that was taken from [`FramePool::tree`] has to go
    /// back there, and the ledger does not know of it.
    #[cfg(feature = "hardened")]
    #[must_use]
    pub const fn hardened(self, how: Hardening) -> Self {
        Self { hardening: Some(how), ..self }
    }

    /// Bytes that carving may add, beyond a part.
    fn slack(&self) -> usize {
        #[cfg(feature = "hardened")]
        if self.hardening.is_some() {
            return Hardened::SLACK;
        }
        0
    }

    /// How much metadata that takes.
    fn layout(&self, map: &MemoryMap<'_>) -> Result<Layout, InitError> {
        let layout = Layout::new(map, self.cpus).map_err(InitError::Layout);
        #[cfg(feature = "hardened")]
        if self.hardening.is_some() {
            return layout.map(Layout::hardened);
        }
        layout
    }

    /// Ordinary requests leave so many frames to urgent ones ([`FramePool::alloc_urgent`],
    /// [`Request::urgent`]), which can't wait or fail: those of interrupts, and those on the way
    /// to more free memory. Frames in caches are not part of it.
    ///
    /// Exact for all CPUs with a cache. What interrupts inside the allocator, CPUs without a
    /// cache, and direct users of the tree take at the same moment can come out of it; so can the
    /// frames of metadata of [`FramePool::isolate`]. The rest of
    /// the budget is granted to CPUs in batches: at most a 32nd of all memory (but 128 frames for
    /// each CPU) can be out of others' reach in this way, and comes back as cached frames do. The
    /// price: one atomic read-modify-write for a batch of 64 to 4096 frames, a few loads for a
    /// refill or flush.
    #[must_use]
    pub const fn reserve(self, frames: u64) -> Self {
        Self { rules: Rules { reserve: frames, ..self.rules }, ..self }
    }

    /// `tell` is called when free memory falls below `low` frames, and when it then reaches `high`
    /// frames again: once for each time, in turn, whichever and however many CPUs do it.
    ///
    /// It is called on the CPU that has made the difference (or on another that comes first), at
    /// the end of its operation on the pool: inside [`Cpus::with_current`], but outside of the
    /// allocator, so it may use the pool, and be called from within itself if that crosses the
    /// other mark. It should not take long: to wake a thread is a good use.
    ///
    /// Free memory is here what is free in the shared tree, the reserve included. Frames in caches
    /// do not count, nor does what CPUs have been granted ahead, as with
    /// [`reserve`](Self::reserve) and at the same price: so `low` may be told early by that much,
    /// a 32nd of all memory at most (but 128 frames for each CPU), and `high` as late, but never
    /// the other way round. What is taken and freed past the CPUs' caches on the tree itself is
    /// noticed with the next batch.
    ///
    /// # Panics
    /// If `low` is above `high`.
    #[must_use]
    pub const fn watermarks(self, low: u64, high: u64, tell: fn(Crossing)) -> Self {
        assert!(low <= high, "a low watermark above the high one");
        let marks = Some(Marks { low, high, tell });
        Self { rules: Rules { marks, ..self.rules }, ..self }
    }

    /// Whether the reserve leaves something of so many frames.
    fn check_reserve(&self, managed: u64) -> Result<(), InitError> {
        let Rules { reserve, .. } = self.rules;
        if reserve < managed || reserve == 0 {
            return Ok(());
        }
        Err(InitError::ReserveTooLarge { reserve, managed })
    }
}

/// So many CPUs, and all else as by [`Setup::new`].
impl From<usize> for Setup {
    fn from(cpus: usize) -> Self {
        Self::new(cpus)
    }
}

/// What an initialised pool took, and what it manages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Metadata {
    /// The frames that the metadata lies in; empty if the caller gave the memory.
    pub frames: NumberRange,
    /// Bytes of metadata.
    pub bytes: usize,
    /// Frames that the pool manages: usable, without the metadata.
    pub managed_frames: u64,
}

/// What became of the frames in a CPU's cache.
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

/// Why a pool could not be initialised. The pool is as it was before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum InitError {
    /// It was initialised before.
    AlreadyInitialised,
    /// The map has nothing to manage, or there is no CPU.
    Layout(LayoutError),
    /// The map has no room for the metadata.
    Map(MapError),
    /// The memory given is too small.
    StorageTooSmall {
        /// Bytes that are needed, with alignment to 128.
        needed: usize,
        /// Bytes that were given.
        given: usize,
    },
    /// The kernel's mapping gave a pointer that is not aligned to 128.
    Misaligned {
        /// The address.
        address: usize,
    },
    /// The reserve would leave nothing to ordinary requests.
    ReserveTooLarge {
        /// Frames of the reserve.
        reserve: u64,
        /// Frames of the map.
        managed: u64,
    },
}

impl fmt::Display for InitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AlreadyInitialised => f.write_str("the pool was initialised before"),
            Self::Layout(error) => error.fmt(f),
            Self::Map(error) => error.fmt(f),
            Self::StorageTooSmall { needed, given } => {
                write!(f, "the metadata needs {needed} bytes, {given} were given")
            }
            Self::Misaligned { address } => {
                write!(f, "the metadata is mapped at {address:#x}, not at a multiple of 128")
            }
            Self::ReserveTooLarge { reserve, managed } => {
                write!(f, "a reserve of {reserve} frames leaves nothing of {managed}")
            }
        }
    }
}

impl core::error::Error for InitError {}

impl<C> FramePool<C> {
    /// A pool that has no memory yet.
    pub const fn new(cpus: C) -> Self {
        Self { cpus, shared: Once::new(), slots: Row::empty() }
    }

    /// Takes over the usable frames of `map`, after carving the metadata from it.
    ///
    /// `to_virtual` translates the metadata's physical address to a pointer. Costs in entries
    /// and GiBs of the map, not in frames.
    ///
    /// # Errors
    /// See [`InitError`]; the pool is as before then. So is the map, unless the mapping was
    /// misaligned or carving left nothing usable: then the carved frames are gone from it.
    ///
    /// # Safety
    /// The usable frames of `map` are memory that nobody else uses or will use. The pointer that
    /// `to_virtual` returns is valid for reads and writes of the carved frames for ever, with
    /// provenance over all of them (for a fixed offset mapping:
    /// `core::ptr::with_exposed_provenance_mut`).
    pub unsafe fn init(
        &self,
        map: &mut MemoryMap<'_>,
        setup: Setup,
        to_virtual: impl FnOnce(u64) -> *mut u8,
    ) -> Result<Metadata, InitError> {
        let metadata = self.once(|| {
            let layout = setup.layout(map)?;
            // Carving may cut a range in two: less than one more part, and one for a ledger. Of
            // clusters, giants and sections it leaves as many or fewer: fewer frames can't touch
            // more of them.
            let bytes = layout.bytes() + PART_ALIGN + setup.slack();
            let count = (bytes as u64).div_ceil(FRAME_SIZE);
            setup.check_reserve(layout.managed_frames().saturating_sub(count))?;
            let frames = map.carve(count, setup.metadata_below).map_err(InitError::Map)?;
            let start = to_virtual(frames.start().start_address());
            if !start.addr().is_multiple_of(PART_ALIGN) {
                return Err(InitError::Misaligned { address: start.addr() });
            }
            let rest = setup.layout(map)?;
            let (needed, given) = (rest.bytes(), (frames.len() * FRAME_SIZE) as usize);
            if needed > given {
                return Err(InitError::StorageTooSmall { needed, given });
            }
            // SAFETY: the caller vouches for the pointer; the frames were just carved out, so
            // they are nobody else's.
            let arena = unsafe { Arena::new(start, needed) };
            Ok(self.build(arena, map, rest, (frames, setup)))
        })?;
        #[cfg(feature = "log")]
        crate::observe::log_start(map, metadata.bytes, setup.cpus);
        Ok(metadata)
    }

    /// As [`FramePool::init`], with the metadata in memory that the caller gives, of
    /// [`Layout::bytes`] and 128 more for alignment.
    ///
    /// # Errors
    /// See [`InitError`].
    ///
    /// # Safety
    /// The usable frames of `map` are memory that nobody else uses or will use.
    pub unsafe fn init_in(
        &self,
        map: &MemoryMap<'_>,
        setup: impl Into<Setup>,
        storage: &'static mut [u64],
    ) -> Result<Metadata, InitError> {
        let setup = setup.into();
        let metadata = self.once(|| {
            let layout = setup.layout(map)?;
            setup.check_reserve(layout.managed_frames())?;
            let given = size_of_val(storage);
            let start = storage.as_mut_ptr().cast::<u8>();
            let skip = start.align_offset(PART_ALIGN);
            let needed = layout.bytes().saturating_add(skip);
            if needed > given {
                return Err(InitError::StorageTooSmall { needed, given });
            }
            // SAFETY: `skip + bytes` lies within `storage`, which is ours alone for ever.
            let arena = unsafe { Arena::new(start.add(skip), layout.bytes()) };
            Ok(self.build(arena, map, layout, (NumberRange::from_numbers(0, 0), setup)))
        })?;
        #[cfg(feature = "log")]
        crate::observe::log_start(map, metadata.bytes, setup.cpus);
        Ok(metadata)
    }

    /// Initialises the pool with what `build` makes. Who is not the first, also by a moment, does
    /// not get as far as touching the map.
    fn once(
        &self,
        build: impl FnOnce() -> Result<(Shared, Metadata), InitError>,
    ) -> Result<Metadata, InitError> {
        let mut built = None;
        self.shared.try_call_once(|| {
            let (shared, metadata) = build()?;
            built = Some(metadata);
            Ok(shared)
        })?;
        built.ok_or(InitError::AlreadyInitialised)
    }

    fn build(
        &self,
        mut arena: Arena<'static>,
        map: &MemoryMap<'_>,
        layout: Layout,
        (frames, setup): (NumberRange, Setup),
    ) -> (Shared, Metadata) {
        let (cpus, managed) = (layout.plan.cpus, layout.managed_frames());
        let tree = FrameTree::new(&mut arena, &layout.plan, map.usable());
        let tree = tree.with_low_end(setup.low_end);
        let budget = Budget::new(setup.rules, managed, cpus, tree.shared_journal());
        let budget = arena.deal_part(1).put(budget);
        let slots = arena.deal(cpus, |cpu| Slot::new(tree.journal_of(cpu), budget));
        // SAFETY: `once` calls this once with success, and what follows here can't fail.
        unsafe { self.slots.publish(slots) };
        #[cfg(feature = "hardened")]
        let hardened = setup.hardening.map(|how| {
            let low_end = setup.low_end.next_multiple_of(BLOCK_FRAMES);
            let sizes = (managed, layout.plan.ranges, cpus);
            let hardened = Hardened::new(&mut arena, (how, low_end), sizes, map.usable());
            hardened.seal(&tree);
            hardened
        });
        let metadata = Metadata { frames, bytes: layout.bytes(), managed_frames: managed };
        let shared = Shared {
            tree,
            slots,
            budget,
            #[cfg(feature = "hardened")]
            hardened,
        };
        (shared, metadata)
    }

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
    /// # mod example {
    /// #     include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs"));
    /// # }
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
    #[must_use]
    pub fn bytes_to_grow(&self, range: NumberRange) -> usize {
        let bytes = |shared: &Shared| shared.tree.bytes_to_grow(range) + shared.ledger_bytes(range);
        self.shared.get().map_or(0, bytes)
    }

    /// The shared tree, or `None` before initialisation.
    pub fn tree(&self) -> Option<&FrameTree<'static>> {
        self.shared.get().map(|shared| &shared.tree)
    }

    /// Gives back what the slot of a CPU holds that does not run any more.
    ///
    /// If the CPU stopped in the middle of an operation, nobody can tell which of its frames that
    /// operation was about: they stay where they are ([`Drained::Stranded`], at most 128; and
    /// what a split or merge had in its hands, at most a GiB).
    ///
    /// # Errors
    /// A double free that only this flush could see; everything is drained all the same.
    ///
    /// # Safety
    /// No CPU uses this slot during the call: it is offline, or waits for this call.
    pub unsafe fn drain_offline(&self, cpu: CpuId) -> Result<Drained, FreeError> {
        let Some(shared) = self.shared.get() else { return Ok(Drained::Done) };
        match shared.drain(cpu)? {
            Drained::AtEndOfUse => {
                Ok(Drained::Stranded { frames: shared.slots[cpu.get()].cached() })
            }
            drained => Ok(drained),
        }
    }

    /// Sets aside what has become free of an isolated range, and says what is still in use. Takes
    /// a step for each 64 frames.
    pub fn in_use(&self, isolation: &Isolation) -> InUse {
        let nothing = InUse { frames: 0, first: None };
        self.recounted(|tree| tree.in_use(isolation)).unwrap_or(nothing)
    }

    /// Ends an isolation of which nothing is in use any more: its frames are gone for good. No
    /// free of one is accepted, and none counts as managed. The memory may be unplugged. (A CPU
    /// that has been asked to drain, but has not done so, may still take one back into its cache;
    /// at the end of that operation it is dropped, and counted: [`Stats::late_double_frees`].)
    ///
    /// # Errors
    /// The isolation, unchanged, if some of it is in use.
    pub fn offline(&self, isolation: Isolation) -> Result<NumberRange, Isolation> {
        let Some(shared) = self.shared.get() else { return Err(isolation) };
        let gone = shared.tree.offline(isolation);
        shared.changed();
        gone
    }

    /// Ends an isolation the other way: its frames may be handed out again.
    pub fn readmit(&self, isolation: Isolation) {
        self.recounted(|tree| tree.readmit(isolation));
    }

    /// Frees those frames of a range that are gone ([`offline`](Self::offline),
    /// [`retire`](Self::retire)), but not those of ranges that are isolated now: the memory is
    /// there again. Returns how many there were.
    ///
    /// # Safety
    /// The frames are memory that nobody uses.
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

    /// Whether free memory is low: what the last [`Crossing`] of a watermark said.
    pub fn level(&self) -> Level {
        self.shared.get().map_or(Level::High, |shared| shared.budget.level())
    }

    /// What the pool has done, and what is free. See [`Stats`] for the costs.
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
    /// Takes a frame.
    ///
    /// # Errors
    /// [`AllocError::OutOfMemory`] if nothing was free at some instant during the call, apart
    /// from frames in other CPUs' caches, which it counts; [`AllocError::NotInitialised`].
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
            None => self.alloc_slowly(),
        }
    }

    #[inline(never)]
    fn alloc_slowly(&self) -> Result<Frame, AllocError> {
        self.take(Shared::alloc)
    }

    /// Takes a frame, of the reserve too ([`Setup::reserve`]): for who can't wait, as an interrupt
    /// handler, or gets memory freed by it. Costs and contexts as for [`alloc`](Self::alloc), whose
    /// frames it takes while there are any; one of the reserve costs one read-modify-write on the
    /// tree, and one on the budget.
    ///
    /// # Errors
    /// As [`FramePool::alloc`], if the reserve is used up as well.
    pub fn alloc_urgent(&self) -> Result<Frame, AllocError> {
        self.taking(whole::<1>, || self.take(Shared::alloc_urgent))
    }

    /// Gives a frame back, on any CPU.
    ///
    /// # Errors
    /// If it is free already or was never this pool's; see "What is detected" above. Nothing
    /// happens to the frame then. With [`Found::FreeAtFlush`] look at the error's frame.
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
        match (self.slots.get(cpu.get()), self.shared.get()) {
            (Some(slot), Some(shared)) => slot.free_past(&shared.tree, frame, slowly),
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
    /// # struct One;
    /// # // SAFETY: there is one thread.
    /// # unsafe impl Cpus for One {
    /// #     fn with_current<R>(&self, work: impl FnOnce(frametree::CpuId) -> R) -> R {
    /// #         work(frametree::CpuId::new(0))
    /// #     }
    /// # }
    /// # use frametree::{MapEntry, MemoryMap, MemoryRegion, RegionKind};
    /// # let kind = RegionKind::Usable;
    /// # let regions = [MemoryRegion { start: 0, length: 4 << 20, kind }];
    /// # let mut cells = [MapEntry::EMPTY; MemoryMap::entries_needed(1)];
    /// # let map = MemoryMap::normalise(regions, &mut cells).expect("a map");
    /// # let pool = FramePool::new(One);
    /// # // SAFETY: the memory is not real, nobody uses it.
    /// # unsafe { pool.init_in(&map, 1, vec![0; 4096].leak()) }.expect("a pool");
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
    /// # mod example {
    /// #     include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs"));
    /// # }
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

    /// Takes a 2 MiB block and returns its first frame: one read-modify-write if its GiB is split
    /// already. Blocks are not cached; it is the lowest of the 128 MiB that this CPU took one of
    /// last, while there is one.
    ///
    /// # Errors
    /// [`AllocError::NoneWhole`], after this CPU's cache was given back and the others were asked
    /// for theirs, whose frames can keep a block from being whole. [`AllocError::Reserved`] and
    /// [`AllocError::NotInitialised`] as by [`FramePool::alloc`].
    #[inline]
    pub fn alloc_block(&self) -> Result<Frame, AllocError> {
        self.taking(whole::<BLOCK_FRAMES>, || {
            if let Some(shared) = self.shared.get() {
                let at_once =
                    |cpu: CpuId| self.slots.get(cpu.get())?.alloc_block_at_once(&shared.tree);
                if let Some(first) = self.cpus.with_current(at_once) {
                    return Ok(Frame::owned(first));
                }
            }
            self.alloc_block_slowly()
        })
    }

    #[inline(never)]
    fn alloc_block_slowly(&self) -> Result<Frame, AllocError> {
        self.take_whole(BLOCK_FRAMES, Shared::alloc_block)
    }

    /// Gives back a 2 MiB block, named by its first frame, that was taken as a whole: one
    /// read-modify-write.
    ///
    /// # Errors
    /// As [`FrameTree::free_block`].
    #[inline]
    pub fn free_block(&self, first: Frame) -> Result<(), FreeError> {
        let number = first.into_number();
        let Some(shared) = self.shared.get() else {
            return Err(FreeError { frame: number, found: Found::NotInitialised });
        };
        let free = || {
            self.cpus.with_current(|cpu| {
                let tree = &shared.tree;
                let slot = self.slots.get(cpu.get());
                match slot.and_then(|slot| slot.free_block_at_once(tree, number)) {
                    Some(freed) => freed,
                    None => shared.free_block(cpu, number),
                }
            })
        };
        self.giving(|| whole_at::<BLOCK_FRAMES>(number), Contents::Unknown, free)
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
    /// As [`FrameTree::alloc_run`], after this CPU's cache and those of the others were given back
    /// ([`Cpus::request_drain`]); [`AllocError::NotInitialised`].
    #[inline]
    pub fn alloc_run(&self, request: &Request) -> Result<FrameRange, AllocError> {
        self.taking(FrameRange::numbers, || self.alloc_run_plain(request))
    }

    #[inline(always)]
    fn alloc_run_plain(&self, request: &Request) -> Result<FrameRange, AllocError> {
        if let Some(count) = request.plain_within_a_word() {
            let at_once = |cpu: CpuId| self.slots.get(cpu.get())?.alloc_run_at_once(count);
            if let Some(start) = self.cpus.with_current(at_once) {
                return Ok(range(start, count));
            }
        }
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
        match self.cpus.with_current(|cpu| shared.alloc_run(cpu, request)) {
            Ok(run) => Ok(run),
            Err(AllocError::Request(error)) => Err(AllocError::Request(error)),
            Err(_) => self.alloc_run_after_drain(shared, request),
        }
    }

    /// Gives contiguous frames back, on any CPU: a run, a part of one, or neighbours from several
    /// allocations.
    ///
    /// # Errors
    /// If one of them is free already, sits in this CPU's cache, or was never this pool's; then
    /// nothing was freed, and the error names the lowest such frame. With [`Found::FreeAtFlush`]
    /// look at the error's frame.
    #[inline]
    pub fn free_run(&self, run: FrameRange) -> Result<(), FreeError> {
        let run = run.into_numbers();
        self.giving(|| run, Contents::Unknown, || self.free_run_plain(run))
    }

    #[inline(always)]
    fn free_run_plain(&self, run: NumberRange) -> Result<(), FreeError> {
        self.cpus.with_current(|cpu| {
            match self.slots.get(cpu.get()).is_some_and(|slot| slot.free_run_at_once(run)) {
                true => Ok(()),
                false => self.free_run_slowly(cpu, run),
            }
        })
    }

    #[inline(never)]
    fn free_run_slowly(&self, cpu: CpuId, run: NumberRange) -> Result<(), FreeError> {
        let Some(shared) = self.shared.get() else {
            return Err(FreeError { frame: run.start(), found: Found::NotInitialised });
        };
        shared.free_run(cpu, run)
    }

    #[cold]
    #[inline(never)]
    fn alloc_run_after_drain(
        &self,
        shared: &Shared,
        request: &Request,
    ) -> Result<FrameRange, AllocError> {
        let run = self.ask_others(shared, |shared, cpu| shared.alloc_run_drained(cpu, request));
        run.map_err(|error| match error {
            AllocError::NoRun(no_run) => {
                AllocError::NoRun(NoRun { cached: shared.cached(), ..no_run })
            }
            error => error,
        })
    }

    /// Takes a GiB and returns its first frame: one read-modify-write. The first time for each
    /// GiB it also writes the leaves of its blocks that were never used, 64 KiB at most, with one
    /// read-modify-write each. GiBs are not cached.
    ///
    /// # Errors
    /// As [`FramePool::alloc_block`].
    #[inline]
    pub fn alloc_giant(&self) -> Result<Frame, AllocError> {
        let take = || self.take_whole(GIANT_FRAMES, Shared::alloc_giant);
        self.taking(whole::<GIANT_FRAMES>, take)
    }

    /// Gives back a GiB, named by its first frame, that was taken as a whole: one
    /// read-modify-write, after a look at the leaves of all its blocks.
    ///
    /// # Errors
    /// As [`FrameTree::free_giant`].
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

    /// Gives all frames in this CPU's cache back to the shared tree: when the CPU goes idle or
    /// offline, or in the handler of a [`Cpus::request_drain`] interrupt. If that has come inside
    /// another operation of this CPU, that operation does it when it ends.
    ///
    /// # Errors
    /// A double free that only this flush could see; everything is drained all the same.
    pub fn drain(&self) -> Result<Drained, FreeError> {
        let Some(shared) = self.shared.get() else { return Ok(Drained::Done) };
        self.cpus.with_current(|cpu| shared.drain(cpu))
    }

    /// Isolates a range: from now on nobody is given a frame of it, by any request. What is free
    /// of it is set aside at once; what is in use can be used on, and is set aside when it was
    /// freed. Ask [`in_use`](Self::in_use) from time to time, and end it by
    /// [`offline`](Self::offline), when nothing is left, or [`readmit`](Self::readmit). Up to 16
    /// ranges can be isolated at a time, of any length.
    ///
    /// This CPU's cache is drained, and all others are asked to ([`Cpus::request_drain`]). A CPU
    /// that has not done so can still hand out those frames of the range that it had cached, at
    /// most 128; it drains at the end of its next use of the pool at the latest.
    ///
    /// While anything is isolated each refill, run and block costs a look at the isolated ranges
    /// more. The first time in each 128 MiB a frame outside the range is taken for metadata: the
    /// lowest, but of low memory ([`Setup::low_last`]) only if nothing else is left. It stays in
    /// use for ever, so a range that it lies in can't go off line any more.
    ///
    /// # Errors
    /// See [`IsolateError`]; nothing is isolated then. Of two calls at the same moment with frames
    /// in common both may be refused. A range that was isolated until just now is refused for as
    /// long as a CPU has frames of it in its hands that it is about to set aside.
    ///
    /// # Safety
    /// The pointer that `to_virtual` returns for a physical address is valid for reads and writes
    /// of the frame there, for ever, with provenance over all of it.
    ///
    /// # Examples
    /// ```
    /// # mod example {
    /// #     include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs"));
    /// # }
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
    /// not be isolated. Nothing has changed then.
    ///
    /// # Safety
    /// As [`FramePool::isolate`].
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

    /// Drains this CPU's cache, asks all others to do so, and waits for those that are about to.
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
        for _ in 0..LOOKS {
            if !shared.slots.iter().any(Slot::is_about_to_drain) {
                break;
            }
            pause();
        }
    }

    /// Takes something on this CPU, and asks the others if there is nothing.
    #[inline(always)]
    fn take<T>(
        &self,
        attempt: impl Fn(&Shared, CpuId) -> Result<T, OutOfMemory>,
    ) -> Result<T, AllocError> {
        let shared = self.shared.get().ok_or(AllocError::NotInitialised)?;
        match self.cpus.with_current(|cpu| attempt(shared, cpu)) {
            Ok(taken) => Ok(taken),
            Err(OutOfMemory) => self
                .ask_others(shared, attempt)
                .map_err(|OutOfMemory| shared.out_of_memory(self.cpus.with_current(|cpu| cpu))),
        }
    }

    /// The same for so many frames as one.
    #[inline]
    fn take_whole(
        &self,
        frames: u64,
        attempt: impl Fn(&Shared, CpuId) -> Result<Frame, OutOfMemory>,
    ) -> Result<Frame, AllocError> {
        self.take(attempt).map_err(|error| match error {
            AllocError::OutOfMemory { cached_elsewhere } => {
                let free = self.tree().map_or(0, FrameTree::free_frames);
                AllocError::NoneWhole { frames, free, cached_elsewhere }
            }
            error => error,
        })
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
            // A busy one may have frames in its hands.
            if slot.cached() > 0 || slot.is_busy() || shared.has_credit(slot) {
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

/// So many frames, which the caller has taken.
#[inline]
fn range(start: FrameNumber, count: u32) -> FrameRange {
    let end = FrameNumber::trusted(start.get() + u64::from(count));
    FrameRange::owned(NumberRange::trusted(start, end))
}

/// The frames of something that is named by its first one.
#[inline(always)]
fn whole<const FRAMES: u64>(first: &Frame) -> NumberRange {
    whole_at::<FRAMES>(first.number())
}

/// The same for a number, which may be wrong: none then, and the tree says what is wrong.
#[inline(always)]
fn whole_at<const FRAMES: u64>(first: FrameNumber) -> NumberRange {
    let frames = if first.get().is_multiple_of(FRAMES) { FRAMES } else { 0 };
    let end = FrameNumber::trusted((first.get() + frames).min(FRAME_LIMIT));
    NumberRange::trusted(first, end)
}

/// The error for a frame that comes too early.
#[cold]
fn not_initialised(frame: Frame) -> FreeError {
    FreeError { frame: frame.into_number(), found: Found::NotInitialised }
}

impl Shared {
    #[inline(always)]
    fn take_turn<R>(&self, cpu: CpuId, work: impl FnOnce(Turn<'_, 'static>) -> R) -> Option<R> {
        self.slots.get(cpu.get())?.take_turn(work)
    }

    #[inline(always)]
    fn alloc(&self, cpu: CpuId) -> Result<Frame, OutOfMemory> {
        match self.take_turn(cpu, |turn| turn.alloc(&self.tree)) {
            Some(taken) => taken,
            None => self.alloc_nested(cpu),
        }
    }

    #[inline(never)]
    fn alloc_urgent(&self, cpu: CpuId) -> Result<Frame, OutOfMemory> {
        let cached = |turn: Turn<'_, 'static>| turn.alloc_urgent(&self.tree);
        self.take_turn_or(cpu, cached, |writer| self.tree.alloc_with(writer))
    }

    #[cold]
    #[inline(never)]
    fn alloc_nested(&self, cpu: CpuId) -> Result<Frame, OutOfMemory> {
        self.nested(cpu, |writer| {
            self.budget.ask_shared(1)?;
            self.tree.alloc_with(writer)
        })
    }

    #[cold]
    #[inline(never)]
    fn free_nested(&self, cpu: CpuId, frame: FrameNumber) -> Result<(), FreeError> {
        self.nested(cpu, |writer| self.tree.free_with(writer, frame))
    }

    #[inline(never)]
    fn alloc_block(&self, cpu: CpuId) -> Result<Frame, OutOfMemory> {
        match self.take_turn(cpu, |turn| turn.alloc_block(&self.tree)) {
            Some(taken) => taken,
            None => self.alloc_block_nested(cpu),
        }
    }

    #[inline(never)]
    fn free_block(&self, cpu: CpuId, first: FrameNumber) -> Result<(), FreeError> {
        let freed = self.take_turn(cpu, |turn| match turn.held_in(first, BLOCK_FRAMES) {
            0 => turn.unasked(|writer| self.tree.free_block_with(writer, first)),
            free => self
                .tree
                .check_block(first)
                .and(Err(FreeError { frame: first, found: Found::PartlyFree { free } })),
        });
        match freed {
            Some(freed) => freed,
            None => self.free_block_nested(cpu, first),
        }
    }

    #[cold]
    #[inline(never)]
    fn alloc_block_nested(&self, cpu: CpuId) -> Result<Frame, OutOfMemory> {
        self.nested(cpu, |writer| {
            self.budget.ask_shared(BLOCK_FRAMES)?;
            self.tree.alloc_block_with(writer)
        })
    }

    #[cold]
    #[inline(never)]
    fn free_block_nested(&self, cpu: CpuId, first: FrameNumber) -> Result<(), FreeError> {
        self.nested(cpu, |writer| self.tree.free_block_with(writer, first))
    }

    fn alloc_run(&self, cpu: CpuId, request: &Request) -> Result<FrameRange, AllocError> {
        let cached = |turn: Turn<'_, 'static>| {
            let from_cache = |count| Some(range(turn.alloc_run(&self.tree, count)?, count));
            match request.plain_within_a_word().and_then(from_cache) {
                Some(run) => Ok(run),
                None => self.alloc_run_in(&turn, request),
            }
        };
        self.take_turn_or(cpu, cached, |writer| self.alloc_run_nested(writer, request))
    }

    /// From the tree, with this CPU's cache given back first: a refill could break up the run.
    fn alloc_run_drained(&self, cpu: CpuId, request: &Request) -> Result<FrameRange, AllocError> {
        let drained = |turn: Turn<'_, 'static>| {
            // A double free that only this flush could see is counted in the journal.
            let _ = turn.drain();
            self.alloc_run_in(&turn, request)
        };
        self.take_turn_or(cpu, drained, |writer| self.alloc_run_nested(writer, request))
    }

    /// From the tree, if the budget allows it.
    fn alloc_run_in(
        &self,
        turn: &Turn<'_, 'static>,
        request: &Request,
    ) -> Result<FrameRange, AllocError> {
        request.check().map_err(AllocError::Request)?;
        if !request.is_urgent() && turn.is_rationed() {
            self.tree.look_for_run(turn.writer(), request)?;
            turn.ask(request.count()).map_err(|OutOfMemory| self.reserved())?;
        }
        turn.unasked(|writer| self.tree.alloc_run_with(writer, request, Wanted::Any))
    }

    /// The same for an interrupt inside another use.
    fn alloc_run_nested(
        &self,
        writer: Writer<'_>,
        request: &Request,
    ) -> Result<FrameRange, AllocError> {
        request.check().map_err(AllocError::Request)?;
        if !request.is_urgent() {
            self.budget.ask_shared(request.count()).map_err(|OutOfMemory| self.reserved())?;
        }
        self.tree.alloc_run_with(writer, request, Wanted::Any)
    }

    fn free_run(&self, cpu: CpuId, run: NumberRange) -> Result<(), FreeError> {
        let tree = &self.tree;
        let cached = |turn: Turn<'_, 'static>| match turn.first_held(run) {
            None => turn.free_run(tree, run),
            Some(frame) => {
                // Only what lies below can be the lowest mistake.
                let below = NumberRange::trusted(run.start(), frame);
                tree.check_run(below).and(Err(FreeError { frame, found: Found::Cached }))
            }
        };
        self.take_turn_or(cpu, cached, |writer| tree.free_run_with(writer, run))
    }

    fn cached(&self) -> u64 {
        self.slots.iter().map(Slot::cached).sum()
    }

    /// A use of the CPU's slot; or, for one without a slot and for an interrupt inside another
    /// use, what the tree does.
    #[inline]
    fn take_turn_or<R>(
        &self,
        cpu: CpuId,
        work: impl FnOnce(Turn<'_, 'static>) -> R,
        nested: impl FnOnce(Writer<'_>) -> R,
    ) -> R {
        match self.take_turn(cpu, work) {
            Some(done) => done,
            None => self.nested(cpu, nested),
        }
    }

    #[inline(never)]
    fn alloc_known(&self, cpu: CpuId) -> Result<Known, OutOfMemory> {
        let tree = &self.tree;
        let cached = |turn: Turn<'_, 'static>| turn.alloc_known(tree);
        self.take_turn_or(cpu, cached, |writer| {
            self.budget.ask_shared(1)?;
            tree.alloc_known_with(writer)
        })
    }

    #[inline(never)]
    fn free_zeroed(&self, cpu: CpuId, frame: FrameNumber) -> Result<(), FreeError> {
        let tree = &self.tree;
        let cached = |turn: Turn<'_, 'static>| turn.free_zeroed(tree, frame);
        self.take_turn_or(cpu, cached, |writer| tree.free_zeroed_with(writer, frame))
    }

    #[inline(never)]
    fn alloc_some(&self, cpu: CpuId, most: u32) -> Result<Handful, OutOfMemory> {
        let tree = &self.tree;
        let cached = |turn: Turn<'_, 'static>| turn.alloc_some(tree, most);
        self.take_turn_or(cpu, cached, |writer| {
            let most = self.budget.allow_shared(1, u64::from(most)) as u32;
            if most == 0 { Err(OutOfMemory) } else { tree.alloc_some_with(writer, most) }
        })
    }

    #[inline(never)]
    fn free_bulk(&self, cpu: CpuId, frames: &mut [Option<Frame>]) -> Result<(), FreeError> {
        let tree = &self.tree;
        let freed = self.take_turn(cpu, |turn| {
            let frames = frames.iter_mut().filter_map(Option::take);
            let freed = frames.map(|frame| turn.free(tree, frame.into_number()));
            freed.fold(Ok(()), Result::and)
        });
        match freed {
            Some(freed) => freed,
            None => self.nested(cpu, |writer| tree.free_bulk_with(writer, frames)),
        }
    }

    #[inline(never)]
    fn alloc_giant(&self, cpu: CpuId) -> Result<Frame, OutOfMemory> {
        let tree = &self.tree;
        let from_tree = |writer: Writer<'_>| tree.alloc_giant_with(writer);
        let look = |writer: Writer<'_>| tree.look_for_giant(writer);
        let held = |turn: Turn<'_, 'static>| turn.asking(GIANT_FRAMES, look, from_tree);
        self.take_turn_or(cpu, held, |writer| {
            self.budget.ask_shared(GIANT_FRAMES)?;
            from_tree(writer)
        })
    }

    #[inline(never)]
    fn free_giant(&self, cpu: CpuId, first: FrameNumber) -> Result<(), FreeError> {
        let tree = &self.tree;
        let checked = |turn: Turn<'_, 'static>| match turn.held_in(first, GIANT_FRAMES) {
            0 => turn.unasked(|writer| tree.free_giant_with(writer, first)),
            free => tree
                .check_giant(first)
                .and(Err(FreeError { frame: first, found: Found::PartlyFree { free } })),
        };
        self.take_turn_or(cpu, checked, |writer| tree.free_giant_with(writer, first))
    }

    /// What a CPU says that got nothing.
    #[cold]
    fn out_of_memory(&self, cpu: CpuId) -> AllocError {
        self.recount();
        if self.budget.is_spent() && self.tree.free_frames() > 0 {
            return self.reserved();
        }
        // An interrupt inside the allocator can't take from its own CPU's cache either.
        let is_elsewhere = |at: usize, slot: &Slot<'_>| at != cpu.get() || slot.is_busy();
        let others = self.slots.iter().enumerate().filter(|(at, slot)| is_elsewhere(*at, slot));
        AllocError::OutOfMemory { cached_elsewhere: others.map(|(_, slot)| slot.cached()).sum() }
    }

    fn drain(&self, cpu: CpuId) -> Result<Drained, FreeError> {
        let Some(slot) = self.slots.get(cpu.get()) else { return Ok(Drained::Done) };
        match slot.take_turn(|turn| turn.drain()) {
            Some(drained) => drained.map(|()| Drained::Done),
            None => {
                slot.request_drain();
                Ok(Drained::AtEndOfUse)
            }
        }
    }

    #[cold]
    fn reserved(&self) -> AllocError {
        AllocError::Reserved { free: self.tree.free_frames() }
    }

    /// Adds memory.
    fn grow(
        &self,
        range: NumberRange,
        place: impl FnOnce(usize) -> Result<(Arena<'static>, NumberRange), GrowError>,
    ) -> Result<NumberRange, GrowError> {
        #[cfg(feature = "hardened")]
        if let Some(hardened) = self.hardened {
            let ledger = core::cell::Cell::new(None);
            let beside = |bytes| {
                let (mut arena, added) = place(bytes + Hardened::bytes_to_grow(range.len()))?;
                ledger.set(Some(Hardened::ledger(&mut arena, added)));
                Ok((arena, added))
            };
            let open = || ledger.take().into_iter().for_each(|ledger| hardened.open(ledger));
            return self.tree.grow(range, beside, open).inspect(|_| self.changed());
        }
        self.tree.grow(range, place, || ()).inspect(|_| self.changed())
    }

    /// Bytes of the ledger that it would take.
    fn ledger_bytes(&self, range: NumberRange) -> usize {
        #[cfg(feature = "hardened")]
        if self.hardened.is_some() {
            return Hardened::bytes_to_grow(range.len());
        }
        let _ = range;
        0
    }

    /// Puts frames back that nobody has got.
    #[cfg(feature = "hardened")]
    fn put(&self, frames: NumberRange) {
        // They were taken from there just now.
        let _ = self.tree.free_run_with(self.tree.shared_writer(), frames);
        self.recount();
    }

    /// After memory has come or gone.
    fn changed(&self) {
        self.recount();
        #[cfg(feature = "hardened")]
        if let Some(hardened) = self.hardened {
            hardened.seal(&self.tree);
        }
    }

    /// Tells the budget what else has changed than by those who ask it.
    fn recount(&self) {
        self.budget.recount(self.tree.ever_managed());
        self.budget.settle_shared(|| ());
    }

    /// Has crossings told that were made outside of a turn: at the end of the one that this
    /// interrupts, or at once.
    fn tell(&self, cpu: CpuId) {
        if !self.budget.has_untold() {
            return;
        }
        match self.slots.get(cpu.get()) {
            Some(slot) if slot.is_busy() => slot.ring(),
            _ => self.budget.tell(),
        }
    }

    /// Whether a CPU may take more frames than it has taken.
    fn has_credit(&self, slot: &Slot<'_>) -> bool {
        !self.budget.is_off() && slot.credit() > 0
    }

    /// What a CPU without a slot does, or an interrupt inside its slot's use: on the tree.
    fn nested<R>(&self, cpu: CpuId, work: impl FnOnce(Writer<'_>) -> R) -> R {
        let done = work(self.nested_writer(cpu));
        if !self.budget.is_off() {
            self.budget.settle_shared(|| ());
            self.tell(cpu);
        }
        done
    }

    fn nested_writer(&self, cpu: CpuId) -> Writer<'_> {
        if cpu.get() >= self.slots.len() {
            return self.tree.shared_writer();
        }
        let writer = self.tree.nested_writer(cpu.get());
        writer.add(Counter::Nested, 1);
        writer
    }
}
