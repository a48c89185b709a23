//! What can go wrong between a caller and the allocator. Each error carries the numbers and says
//! what was found; none of them loses or doubles a frame.

use core::fmt;

use crate::frame::FrameNumber;
use crate::request::{Request, RequestError};

/// A free that was refused, with the frame that it was refused for.
///
/// Nothing was changed for that frame: it is recorded as often as before, so it can't be handed
/// out twice because of this call.
///
/// # Examples
/// ```
/// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs")); }
/// # use frametree::*;
/// let pool = example::pool(Setup::new(1));
/// // SAFETY: 8 MiB is not memory of the pool, so nobody is harmed; the pool refuses it.
/// let foreign = unsafe { Frame::from_number(FrameNumber::new(2048)) };
/// let error: FreeError = pool.free(foreign).unwrap_err();
/// assert_eq!(error.found, Found::Unmanaged);
/// assert!(error.to_string().contains("0x800"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FreeError {
    /// The frame.
    pub frame: FrameNumber,
    /// What was found there.
    pub found: Found,
}

/// What a refused free found.
///
/// # Examples
/// ```
/// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs")); }
/// # use frametree::*;
/// let pool = example::pool(Setup::new(1));
/// let frame = pool.alloc()?;
/// let number = frame.number();
/// pool.free(frame)?;
/// // SAFETY: nobody uses the frame. That it is free already is the bug that is to be found.
/// let error = pool.free(unsafe { Frame::from_number(number) }).unwrap_err();
/// let what = match error.found {
///     Found::Unmanaged => "a device's memory, or the kernel's image",
///     Found::Misaligned { .. } | Found::NotInitialised => "the wrong call",
///     _ => "freed twice",
/// };
/// assert_eq!(what, "freed twice");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Found {
    /// The frame is free already: a double free.
    Free,
    /// The frame is part of a 2 MiB block that is free as a whole: a double free.
    FreeBlock,
    /// The frame is part of a GiB that is free as a whole: a double free.
    FreeGiant,
    /// The frame sits in this CPU's page cache: a double free.
    Cached,
    /// The frame is free, which only the flush of this CPU's cache could see: another CPU had
    /// freed it between the free into the cache and the flush. If this is not the frame that
    /// the call was about, then the call itself succeeded.
    FreeAtFlush,
    /// No memory, or memory that was reserved: the allocator never had this frame.
    Unmanaged,
    /// The number is no multiple of the size that is freed.
    Misaligned {
        /// Frames of the size that is freed.
        frames: u64,
    },
    /// Some of the frames of this block are free already.
    PartlyFree {
        /// How many of them.
        free: u64,
    },
    /// The pool has not been initialised.
    NotInitialised,
    /// Nobody has the frame: it sits in a CPU's page cache, say. A double free, found by the ledger
    /// of a hardened pool; or the frame was taken from the tree, past the pool.
    #[cfg(feature = "hardened")]
    NotHandedOut,
}

impl fmt::Display for FreeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let frame = self.frame;
        match self.found {
            Found::Free => write!(f, "double free: {frame} is free already"),
            Found::FreeBlock => {
                write!(f, "double free: {frame} lies in a 2 MiB block that is free as a whole")
            }
            Found::FreeGiant => {
                write!(f, "double free: {frame} lies in a GiB that is free as a whole")
            }
            Found::Cached => write!(f, "double free: {frame} sits in this CPU's page cache"),
            Found::FreeAtFlush => {
                write!(f, "double free, found when a page cache was flushed: {frame} was free")
            }
            Found::Unmanaged => write!(
                f,
                "foreign frame: {frame} is not managed here (no memory, or reserved at boot)"
            ),
            Found::Misaligned { frames } => {
                write!(f, "{frame} is not aligned to the {frames} frames that were to be freed")
            }
            Found::PartlyFree { free } => {
                write!(f, "double free: {free} frames of the block at {frame} are free already")
            }
            Found::NotInitialised => {
                write!(f, "{frame} freed before the pool was initialised; call `init` first")
            }
            #[cfg(feature = "hardened")]
            Found::NotHandedOut => write!(f, "double free: nobody has {frame}"),
        }
    }
}

impl core::error::Error for FreeError {}

/// A request that got no frame.
///
/// # Examples
/// ```
/// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs")); }
/// # use frametree::*;
/// let pool = example::pool(Setup::new(1));
/// let run = pool.alloc_run(&Request::new(2048))?; // all there is
/// match pool.alloc() {
///     Err(AllocError::OutOfMemory { cached_elsewhere }) => assert_eq!(cached_elsewhere, 0),
///     other => panic!("{other:?}"),
/// }
/// # pool.free_run(run)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum AllocError {
    /// Nothing was free in the shared tree at some instant during the call.
    OutOfMemory {
        /// Free frames that sat in other CPUs' page caches at the end of the call.
        cached_elsewhere: u64,
    },
    /// No aligned frame of 2 MiB or 1 GiB was free as a whole in the shared tree at some instant
    /// during the call.
    NoneWhole {
        /// How many frames of 4 KiB were asked for, as one.
        frames: u64,
        /// Frames that were free in smaller pieces at the end of the call.
        free: u64,
        /// How many of these lay in a row, at most: what [`FramePool::alloc_run`] could have had
        /// without conditions.
        ///
        /// [`FramePool::alloc_run`]: crate::FramePool::alloc_run
        longest: u64,
        /// Free frames that sat in other CPUs' page caches then.
        cached_elsewhere: u64,
    },
    /// What is free is kept for urgent requests ([`Setup::reserve`](crate::Setup::reserve)), or
    /// has been granted to other CPUs.
    Reserved {
        /// Free frames in the shared tree.
        free: u64,
    },
    /// There is no such run in the shared tree, as was so at some instant during the call.
    NoRun(NoRun),
    /// A run was asked for at a place of its own, and this is the first of its frames that is
    /// in the way.
    InTheWay {
        /// The frame.
        frame: FrameNumber,
        /// What it is.
        why: InTheWay,
    },
    /// The request makes no sense.
    Request(RequestError),
    /// The pool has not been initialised.
    NotInitialised,
}

/// A run that is not to be had, and what is.
///
/// # Examples
/// A driver that can do with a smaller buffer than it would like:
///
/// ```
/// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs")); }
/// # use frametree::*;
/// let pool = example::pool(Setup::new(1)); // 8 MiB
/// let wanted = Request::new(4096).below(4 << 30);
/// let buffer = match pool.alloc_run(&wanted) {
///     Err(AllocError::NoRun(no_run)) => pool.alloc_run(&wanted.with_count(no_run.longest))?,
///     other => other?,
/// };
/// assert_eq!(buffer.len(), 2048);
/// # pool.free_run(buffer)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoRun {
    /// What was asked for.
    pub request: Request,
    /// Free frames in the shared tree, wherever they lie.
    pub free: u64,
    /// The longest run that meets the request's other conditions. A look while others work; exact
    /// at rest.
    pub longest: u64,
    /// Free frames that sat in page caches, each in one CPU's.
    pub cached: u64,
}

/// Why a frame can't be part of a run.
///
/// # Examples
/// A driver wants the memory where the firmware has left its frame buffer:
///
/// ```
/// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs")); }
/// # use frametree::*;
/// let pool = example::pool(Setup::new(1));
/// let at = FrameNumber::containing(0xe000_0000).expect("an address below 2^52");
/// match pool.alloc_run(&Request::new(1024).at(at)) {
///     Ok(_buffer) => panic!("the map has called a device's memory usable"),
///     Err(AllocError::InTheWay { why: InTheWay::Unmanaged, .. }) => {} // nobody's: map it
///     Err(error) => panic!("somebody has it: {error}"), // `InTheWay::Taken`
/// }
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum InTheWay {
    /// Somebody has it; perhaps a page cache.
    Taken,
    /// No memory, or memory that was reserved.
    Unmanaged,
}

impl fmt::Display for NoRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { request, free, longest, cached } = self;
        write!(f, "no run of {request}; {free} frames are free, {longest} in a row could be had")?;
        if *cached > 0 {
            write!(f, ", {cached} more sit in page caches")?;
        }
        Ok(())
    }
}

impl fmt::Display for AllocError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfMemory { cached_elsewhere: 0 } => f.write_str("out of memory: 0 free"),
            Self::OutOfMemory { cached_elsewhere } => write!(
                f,
                "out of memory: {cached_elsewhere} free frames sit in other CPUs' page caches \
                 and come back when those CPUs next use the pool"
            ),
            Self::NoneWhole { frames, free, longest, cached_elsewhere } => write!(
                f,
                "no aligned {frames} frames are free as a whole: {free} are free in smaller \
                 pieces, at most {longest} in a row, {cached_elsewhere} more sit in other CPUs' \
                 page caches"
            ),
            Self::Reserved { free } => {
                write!(f, "out of memory: {free} frames are free, and kept for urgent requests")
            }
            Self::NoRun(no_run) => no_run.fmt(f),
            Self::InTheWay { frame, why: InTheWay::Taken } => write!(f, "{frame} is not free"),
            Self::InTheWay { frame, why: InTheWay::Unmanaged } => {
                write!(f, "{frame} is not managed here (no memory, or reserved at boot)")
            }
            Self::Request(error) => error.fmt(f),
            Self::NotInitialised => f.write_str("the pool is not initialised; call `init` first"),
        }
    }
}

impl core::error::Error for AllocError {}

/// The shared tree had nothing to give.
///
/// # Examples
/// ```
/// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs")); }
/// # use frametree::*;
/// let pool = example::pool(Setup::new(1));
/// let all = pool.alloc_run(&Request::new(2048))?;
/// let tree = pool.tree().expect("a pool in use");
/// assert_eq!(tree.alloc(), Err(OutOfMemory)); // of the tree: it knows no caches to ask
/// # tree.free_run(all)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OutOfMemory;

impl fmt::Display for OutOfMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("out of memory: nothing of that size is free in the shared tree")
    }
}

impl core::error::Error for OutOfMemory {}

/// Why a CPU got nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Refusal {
    /// It is not there.
    NotThere,
    /// It is kept for urgent requests.
    Reserved,
}

impl From<OutOfMemory> for Refusal {
    fn from(OutOfMemory: OutOfMemory) -> Self {
        Self::NotThere
    }
}
