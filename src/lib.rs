#![doc = include_str!("../README.md")]
#![no_std]
#![deny(missing_docs)]

mod arena;
#[doc(hidden)]
pub mod bits;
pub mod boot;
mod budget;
mod cache;
#[cfg(all(test, not(loom)))]
mod counts;
mod cpu;
pub mod cpus;
mod directory;
mod error;
#[cfg(all(test, not(loom)))]
mod faults;
mod frame;
mod geometry;
#[cfg(feature = "hardened")]
mod hardened;
#[cfg(feature = "heap")]
pub mod heap;
mod isolation;
mod journal;
mod layout;
mod map;
#[cfg(all(test, loom))]
mod models;
mod node;
mod observe;
#[cfg(feature = "hardened")]
mod owners;
mod pool;
mod ranges;
mod request;
mod root;
mod slot;
mod stats;
mod stock;
mod sync;
mod tree;
#[cfg(all(feature = "x86_64", target_arch = "x86_64"))]
mod x86;

pub use budget::{Crossing, Level};
pub use cache::{CachedRun, PageCache};
pub use cpu::Cpus;
pub use error::{AllocError, Found, FreeError, InTheWay, NoRun, OutOfMemory};
pub use frame::{CpuId, Frame, FrameNumber, FrameRange, NumberRange, lost_frames};
pub use geometry::FRAME_SIZE;
#[cfg(feature = "hardened")]
pub use hardened::{Hardening, Owner, Violation};
pub use layout::{Layout, LayoutError};
pub use map::{MapEntry, MapError, MemoryMap, MemoryRegion, RegionKind};
pub use pool::{Drained, FramePool, InitError, Metadata, Setup};
pub use request::{Request, RequestError};
pub use stats::Stats;
pub use tree::{BlockUse, Broken, FrameTree, FreeCount, GrowError, InUse, IsolateError, Isolation};

/// What a simulator needs: a look at all accesses, and words for what it compares with.
#[cfg(observed)]
#[doc(hidden)]
pub mod observed {
    pub use crate::sync::watching::{Access, watch};
    pub use crate::sync::{Ordering, Word, pause};
}

/// The programs of the book.
#[cfg(doctest)]
mod book {
    #[doc = include_str!("../docs/start.md")]
    mod start {}
    #[doc = include_str!("../docs/start-others.md")]
    mod start_others {}
    #[doc = include_str!("../docs/porting.md")]
    mod porting {}
}
