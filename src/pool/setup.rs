//! What a kernel says before the pool is its own: CPUs, where the metadata may lie, reserve,
//! watermarks, low memory; and what comes of it, or why nothing does.

use core::fmt;

use crate::budget::{Crossing, Marks, Rules};
use crate::frame::NumberRange;
use crate::geometry::FRAME_SIZE;
#[cfg(feature = "hardened")]
use crate::hardened::{Hardened, Hardening};
use crate::layout::{Layout, LayoutError};
use crate::map::{MapError, MemoryMap};

/// How a pool is to be initialised.
///
/// # Examples
/// ```
/// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs")); }
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
    pub(super) cpus: usize,
    pub(super) metadata_below: u64,
    pub(super) rules: Rules,
    pub(super) low_end: u64,
    #[cfg(feature = "hardened")]
    pub(super) hardening: Option<Hardening>,
}

impl Setup {
    /// For this many CPUs; the metadata is taken from the highest usable memory, and there is no
    /// reserve.
    ///
    /// # Examples
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs")); }
    /// # use frametree::*;
    /// let online = 4; // as the ACPI tables list them
    /// let pool = example::pool(Setup::new(online));
    /// # assert_eq!(pool.stats().managed_frames, 2048);
    /// ```
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
    ///
    /// # Examples
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs")); }
    /// # use frametree::*;
    /// // The direct map reaches 4 GiB so far: no metadata may lie above.
    /// let pool = example::pool(Setup::new(4).metadata_below(4 << 30));
    /// # assert_eq!(pool.stats().managed_frames, 2048);
    /// ```
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
    ///
    /// # Examples
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs")); }
    /// # use frametree::*;
    /// let pool = example::pool(Setup::new(1).low_last(2 << 20));
    /// let frame = pool.alloc()?;
    /// assert!(frame.start_address() >= 2 << 20); // the rest first
    /// let old = pool.alloc_run(&Request::new(1).below(2 << 20))?; // unless one asks for it
    /// # pool.free(frame)?;
    /// # pool.free_run(old)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub const fn low_last(self, below: u64) -> Self {
        assert!(below <= 1 << 52, "an address that no x86-64 machine has");
        Self { low_end: below.div_ceil(FRAME_SIZE), ..self }
    }

    /// The pool is hardened: it knows who has each frame. So it refuses *every* double free
    /// ([`Found::NotHandedOut`](crate::Found::NotHandedOut)), wherever the frame sits and whatever
    /// it races with, and hands no frame out that somebody has or, with poison, has written to
    /// since its free: see [`Hardening`]. [`verify`](crate::FramePool::verify) compares the ledger
    /// and a seal as well.
    ///
    /// It costs 32 bits of metadata a frame ([`Layout::hardened`]), which are written at
    /// initialisation and when memory comes, and for each frame that goes out or comes back a
    /// search among the ranges and an atomic read-modify-write; two with poison, and the frame is
    /// written and read. Lists of frames are taken and freed one by one.
    ///
    /// Frames go in and out through the pool: one that was taken from
    /// [`FramePool::tree`](crate::FramePool::tree) has to go back there, and the ledger does not
    /// know of it.
    ///
    /// # Examples
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs")); }
    /// # use frametree::*;
    /// const DRIVER: Owner = Owner::new(3);
    /// let how = Hardening::new(|violation| panic!("{violation}"));
    /// let pool = example::pool(Setup::new(4).hardened(how));
    /// let buffer = pool.alloc_tagged(DRIVER)?;
    /// assert_eq!(pool.owners().collect::<Vec<_>>(), [(DRIVER, 1)]);
    /// pool.free(buffer)?;
    /// pool.verify()?; // the ledger and the seal as well
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[cfg(feature = "hardened")]
    #[must_use]
    pub const fn hardened(self, how: Hardening) -> Self {
        Self { hardening: Some(how), ..self }
    }

    /// Bytes that carving may add, beyond a part.
    pub(super) fn slack(&self) -> usize {
        #[cfg(feature = "hardened")]
        if self.hardening.is_some() {
            return Hardened::SLACK;
        }
        0
    }

    /// How much metadata that takes.
    pub(super) fn layout(&self, map: &MemoryMap<'_>) -> Result<Layout, InitError> {
        let layout = Layout::new(map, self.cpus).map_err(InitError::Layout);
        #[cfg(feature = "hardened")]
        if self.hardening.is_some() {
            return layout.map(Layout::hardened);
        }
        layout
    }

    /// Ordinary requests leave so many frames to urgent ones
    /// ([`FramePool::alloc_urgent`](crate::FramePool::alloc_urgent),
    /// [`Request::urgent`](crate::Request::urgent)), which can't wait or fail: those of interrupts,
    /// and those on the way to more free memory. Frames in caches are not part of it.
    ///
    /// Exact for all CPUs with a cache. What interrupts inside the allocator, CPUs without a
    /// cache, and direct users of the tree take at the same moment can come out of it; so can the
    /// frames of metadata of [`FramePool::isolate`](crate::FramePool::isolate), and as many as a
    /// block or run meets on its way that are isolated and have come free since. The rest of
    /// the budget is granted to CPUs in batches: at most a 32nd of all memory (but 128 frames for
    /// each CPU) can be out of others' reach in this way, and comes back as cached frames do. The
    /// price: one atomic read-modify-write for a batch of 64 to 4096 frames, a few loads for a
    /// refill or flush.
    ///
    /// # Examples
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs")); }
    /// # use frametree::*;
    /// let pool = example::pool(Setup::new(1).reserve(64));
    /// let most = pool.alloc_run(&Request::new(2048 - 64))?;
    /// assert!(matches!(pool.alloc(), Err(AllocError::Reserved { free: 64 })));
    /// let page = pool.alloc_urgent()?; // to write pages out, say, which frees many more
    /// # pool.free(page)?;
    /// # pool.free_run(most)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub const fn reserve(self, frames: u64) -> Self {
        Self { rules: Rules { reserve: frames, ..self.rules }, ..self }
    }

    /// `tell` is called when free memory falls below `low` frames, and when it then reaches `high`
    /// frames again: once for each time, in turn, whichever and however many CPUs do it.
    ///
    /// It is called on the CPU that has made the difference (or on another that comes first), at
    /// the end of its operation on the pool: inside
    /// [`Cpus::with_current`](crate::Cpus::with_current), but outside of the allocator, so it may
    /// use the pool, and be called from within itself if that crosses the other mark. It should not
    /// take long: to wake a thread is a good use.
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
    ///
    /// # Examples
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs")); }
    /// # use frametree::*;
    /// use std::sync::atomic::{AtomicBool, Ordering};
    /// static IS_LOW: AtomicBool = AtomicBool::new(false);
    ///
    /// fn tell(crossing: Crossing) {
    ///     // A kernel wakes a thread here that looks at this.
    ///     IS_LOW.store(crossing.level == Level::Low, Ordering::Relaxed);
    /// }
    /// let pool = example::pool(Setup::new(1).watermarks(256, 512, tell));
    /// let run = pool.alloc_run(&Request::new(1800))?;
    /// assert!(IS_LOW.load(Ordering::Relaxed));
    /// pool.free_run(run)?;
    /// assert!(!IS_LOW.load(Ordering::Relaxed));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub const fn watermarks(self, low: u64, high: u64, tell: fn(Crossing)) -> Self {
        assert!(low <= high, "a low watermark above the high one");
        let marks = Some(Marks { low, high, tell });
        Self { rules: Rules { marks, ..self.rules }, ..self }
    }

    /// Whether the reserve leaves something of so many frames.
    pub(super) fn check_reserve(&self, managed: u64) -> Result<(), InitError> {
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
///
/// # Examples
/// What a kernel says about it when it starts:
///
/// ```
/// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs")); }
/// # use frametree::*;
/// # let memory = [MemoryRegion { start: 0, length: 8 << 20, kind: RegionKind::Usable }];
/// # let mut cells = [MapEntry::EMPTY; MemoryMap::entries_needed(2)];
/// # let mut map = MemoryMap::normalise(memory, &mut cells)?;
/// # let pool = FramePool::new(example::One);
/// // SAFETY: nobody else uses the memory, all of which is mapped.
/// let metadata = unsafe { pool.init(&mut map, Setup::new(1), example::direct_map) }?;
/// let Metadata { frames, bytes, managed_frames } = metadata;
/// println!("{managed_frames} frames managed by {bytes} bytes, in {frames:?}");
/// assert_eq!(managed_frames + frames.len(), 2048);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Metadata {
    /// The frames that the metadata lies in; empty if the caller gave the memory.
    pub frames: NumberRange,
    /// Bytes of metadata.
    pub bytes: usize,
    /// Frames that the pool manages: usable, without the metadata.
    pub managed_frames: u64,
}

/// Why a pool could not be initialised. The pool is as it was before.
///
/// # Examples
/// A kernel whose direct map ends below all usable memory:
///
/// ```
/// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs")); }
/// # use frametree::*;
/// # let memory = [MemoryRegion { start: 4 << 30, length: 8 << 20, kind: RegionKind::Usable }];
/// # let mut cells = [MapEntry::EMPTY; MemoryMap::entries_needed(2)];
/// # let mut map = MemoryMap::normalise(memory, &mut cells)?;
/// # let pool = FramePool::new(example::One);
/// let setup = Setup::new(1).metadata_below(1 << 30);
/// // SAFETY: nobody else uses the memory; what lies below 1 GiB is mapped.
/// let error = unsafe { pool.init(&mut map, setup, example::direct_map) }.unwrap_err();
/// assert!(matches!(error, InitError::Map(MapError::NoRoom { largest: 0, .. })));
/// println!("no pool: {error}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
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
