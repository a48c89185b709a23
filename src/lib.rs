#![doc = include_str!("../README.md")]
#![no_std]
// On docs.rs each item says which feature it takes.
#![cfg_attr(docsrs, feature(doc_cfg))]
#![deny(missing_docs, unsafe_code)]

#[allow(unsafe_code, reason = "makes typed values of raw memory")]
mod arena;
#[doc(hidden)]
pub mod bits;
pub mod boot;
mod bounds;
mod budget;
#[allow(unsafe_code, reason = "a constructor that invents ownership")]
mod cache;
#[cfg(all(test, not(loom)))]
#[allow(unsafe_code, reason = "a test")]
mod costs;
#[cfg(all(test, not(loom)))]
#[allow(unsafe_code, reason = "a test")]
mod counts;
#[allow(unsafe_code, reason = "the trait whose promise the kernel gives")]
mod cpu;
#[allow(unsafe_code, reason = "promises about CPUs, kept or passed on")]
pub mod cpus;
#[cfg(all(test, not(loom)))]
#[allow(unsafe_code, reason = "a test")]
mod deaths;
mod directory;
mod error;
#[cfg(all(test, not(loom)))]
mod faults;
#[allow(unsafe_code, reason = "constructors that invent ownership")]
mod frame;
mod geometry;
#[cfg(feature = "hardened")]
#[allow(unsafe_code, reason = "looks at frames through the kernel's mapping")]
mod hardened;
#[cfg(feature = "heap")]
#[allow(unsafe_code, reason = "implements an unsafe trait of core")]
pub mod heap;
mod isolation;
mod journal;
mod layout;
mod map;
#[cfg(all(test, loom))]
#[allow(unsafe_code, reason = "a test")]
mod models;
#[cfg(all(test, not(loom)))]
#[allow(unsafe_code, reason = "a test")]
mod nesting;
mod node;
mod observe;
#[cfg(feature = "hardened")]
mod owners;
#[allow(unsafe_code, reason = "initialisation, and a slot whose CPU is gone")]
mod pool;
mod ranges;
mod request;
#[allow(unsafe_code, reason = "parts of which any bytes are a value")]
mod root;
#[cfg(all(test, not(loom)))]
#[allow(unsafe_code, reason = "a test")]
mod schedules;
mod slot;
mod stats;
mod stock;
#[allow(unsafe_code, reason = "a reference of the pointer that was made of one")]
mod sync;
mod tree;
#[cfg(all(feature = "x86_64", target_arch = "x86_64"))]
#[allow(unsafe_code, reason = "implements an unsafe trait of another crate")]
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
