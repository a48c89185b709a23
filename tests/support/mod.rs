//! What the host tests share: a pool over memory that does not exist, and CPUs that are threads.
//! Frames are numbers to the allocator, so a map of a TiB needs only its metadata.
#![allow(dead_code, reason = "every test binary uses a part of it")]

pub mod asked;
pub mod frames;
pub mod play;
pub mod reshape;
pub mod rule;
pub mod stepping;

use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};

use frametree::{
    CpuId, Cpus, Frame, FrameNumber, FramePool, Layout, MapEntry, MemoryMap, MemoryRegion,
    RegionKind, Setup,
};

std::thread_local! {
    static CPU: Cell<usize> = const { Cell::new(0) };
}

/// CPUs as the tests play them: the current one is what this thread says it is.
#[derive(Debug)]
pub struct Threads;

impl Threads {
    /// From now on this thread is CPU `cpu`.
    pub fn become_cpu(cpu: usize) {
        CPU.set(cpu);
    }
}

// SAFETY: each test gives every CPU number to one thread at a time.
unsafe impl Cpus for Threads {
    #[inline(always)]
    fn with_current<R>(&self, work: impl FnOnce(CpuId) -> R) -> R {
        work(CpuId::new(CPU.get()))
    }
}

/// Usable memory: (first frame, frames).
pub fn regions(frames: &[(u64, u64)]) -> Vec<MemoryRegion> {
    let region = |&(start, count): &(u64, u64)| MemoryRegion {
        start: start * frametree::FRAME_SIZE,
        length: count * frametree::FRAME_SIZE,
        kind: RegionKind::Usable,
    };
    frames.iter().map(region).collect()
}

/// Runs `work` on the normalised map of this usable memory.
pub fn with_map<R>(frames: &[(u64, u64)], work: impl FnOnce(&mut MemoryMap<'_>) -> R) -> R {
    let regions = regions(frames);
    let mut buffer = vec![MapEntry::EMPTY; MemoryMap::entries_needed(regions.len()) + 8];
    work(&mut MemoryMap::normalise(regions, &mut buffer).expect("a map"))
}

/// A pool of this memory, with its metadata beside it and filled with garbage.
pub fn pool<C: Cpus>(with: C, cpus: usize, frames: &[(u64, u64)]) -> &'static FramePool<C> {
    pool_by(with, (cpus, Setup::new(cpus)), frames)
}

/// The same for so many CPUs, with a setup of its own.
pub fn pool_by<C: Cpus>(
    with: C,
    (cpus, setup): (usize, Setup),
    frames: &[(u64, u64)],
) -> &'static FramePool<C> {
    let pool = Box::leak(Box::new(FramePool::new(with)));
    with_map(frames, |map| {
        let bytes = Layout::new(map, cpus).expect("a layout").bytes();
        let garbage = vec![0xdead_beef_0bad_cafe; bytes / 8 + 16].leak();
        // SAFETY: the memory is not real, nobody uses it.
        unsafe { pool.init_in(map, setup, garbage) }.expect("a pool");
    });
    pool
}

pub type Pool = &'static FramePool<Machine>;

std::thread_local! {
    static POOL: Cell<Option<Pool>> = const { Cell::new(None) };
}

/// CPUs that one thread plays, and what a request to drain does there: nothing at once, or a drain
/// that is waited for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Machine {
    Deaf,
    Waits,
}

impl Machine {
    /// The pool that requests to drain are about.
    pub fn serves(pool: Pool) {
        POOL.set(Some(pool));
    }
}

// SAFETY: one thread plays all CPUs. What it does as one of them inside of another's operation
// ends before that goes on; inside of its own it is an interrupt.
unsafe impl Cpus for Machine {
    fn with_current<R>(&self, work: impl FnOnce(CpuId) -> R) -> R {
        Threads.with_current(work)
    }

    fn request_drain(&self, cpu: CpuId) {
        if *self == Self::Waits {
            let this = Threads.with_current(CpuId::get);
            Threads::become_cpu(cpu.get());
            POOL.get().expect("a pool").drain().expect("a drain");
            Threads::become_cpu(this);
        }
    }
}

std::thread_local! {
    /// Metadata that the pool of [`with_pool`] was given later.
    static LATER: RefCell<Vec<*mut [u64]>> = const { RefCell::new(Vec::new()) };
}

/// So many words of more metadata for the pool of [`with_pool`], full of something; they live as
/// long as the pool.
pub fn later(words: usize) -> &'static mut [u64] {
    let storage = Box::into_raw(vec![0xdead_beef_0bad_cafe; words].into_boxed_slice());
    LATER.with_borrow_mut(|later| later.push(storage));
    // SAFETY: it lives until it is taken back in `with_pool`, when nobody looks at it any more.
    unsafe { &mut *storage }
}

/// Runs `work` on a pool of this memory, whose metadata was full of `garbage`, and gives its own
/// memory back afterwards: for tests that make pools by the million.
pub fn with_pool<R>(
    machine: Machine,
    cpus: usize,
    frames: &[(u64, u64)],
    garbage: u64,
    work: impl FnOnce(Pool) -> R,
) -> R {
    with_map(frames, |map| {
        let words = Layout::new(map, cpus).expect("a layout").bytes() / 8 + 16;
        let storage = Box::into_raw(vec![garbage; words].into_boxed_slice());
        let pool = Box::into_raw(Box::new(FramePool::new(machine)));
        // SAFETY: both live until they are taken back below, when nobody looks at the pool any
        // more; if `work` panics they live for ever. The memory managed is not real.
        let result = unsafe {
            (*pool).init_in(map, cpus, &mut *storage).expect("a pool");
            Machine::serves(&*pool);
            work(&*pool)
        };
        POOL.set(None);
        // SAFETY: as said; the pool first, which knows the storage.
        unsafe {
            drop(Box::from_raw(pool));
            drop(Box::from_raw(storage));
            LATER.take().into_iter().for_each(|storage| drop(Box::from_raw(storage)));
        }
        result
    })
}

/// 2 MiB blocks in frames.
pub const BLOCK: u64 = 512;
/// GiBs in frames.
pub const GIANT: u64 = 512 * 512;

/// Who owns which frame, as the callers see it: each frame has one owner, or none. And what is in
/// it: whoever gets a frame writes to it, and may clear it later.
pub struct Owners {
    owners: Vec<AtomicU8>,
    zeroed: Vec<AtomicBool>,
}

impl Owners {
    /// Nobody owns any of the frames below `end`, and all hold something.
    pub fn new(end: u64) -> Self {
        Self {
            owners: (0..end).map(|_| AtomicU8::new(0)).collect(),
            zeroed: (0..end).map(|_| AtomicBool::new(false)).collect(),
        }
    }

    /// The frame's owner clears it.
    pub fn clear(&self, frame: u64) {
        self.zeroed[frame as usize].store(true, Ordering::Relaxed);
    }

    /// Whether a frame is clear; for its owner.
    pub fn is_clear(&self, frame: u64) -> bool {
        self.zeroed[frame as usize].load(Ordering::Relaxed)
    }

    /// `who` (not 0) got `count` frames from `first` on: nobody may own one.
    pub fn take(&self, who: usize, first: u64, count: u64) {
        self.pass(0, who as u8, first, count).expect("frames that nobody owns");
    }

    /// `who` is about to give them back: they must all be theirs.
    pub fn give(&self, who: usize, first: u64, count: u64) {
        self.pass(who as u8, 0, first, count).expect("frames that this thread owns");
    }

    /// The same for those who must not panic.
    pub fn pass(&self, from: u8, to: u8, first: u64, count: u64) -> Result<(), WrongOwner> {
        for frame in first..first + count {
            if from == 0 {
                self.zeroed[frame as usize].store(false, Ordering::Relaxed);
            }
            let owner = self.owners[frame as usize].swap(to, Ordering::AcqRel);
            if owner != from {
                return Err(WrongOwner { frame, owner, from, to });
            }
        }
        Ok(())
    }

    /// How many frames have an owner.
    pub fn count(&self) -> usize {
        self.owners.iter().filter(|owner| owner.load(Ordering::Acquire) != 0).count()
    }
}

/// A frame was to pass from one owner to another, but belonged to neither of the two, or to the
/// second already. 0 is nobody.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WrongOwner {
    pub frame: u64,
    pub owner: u8,
    pub from: u8,
    pub to: u8,
}

/// A frame by its number, for tests that keep numbers.
pub fn frame(number: u64) -> Frame {
    // SAFETY: the tests use no memory; they keep account of who owns which number.
    unsafe { Frame::from_number(FrameNumber::new(number)) }
}

/// A small random number generator (xorshift64*): repeatable, and nothing that a signal handler
/// could not use.
pub struct Dice(u64);

impl Dice {
    /// The sequence number `seed`.
    pub const fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The next number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % end
    }

    /// Puts a list into random order.
    pub fn shuffle<T>(&mut self, list: &mut [T]) {
        for at in (1..list.len()).rev() {
            list.swap(at, self.below(at as u64 + 1) as usize);
        }
    }
}

/// Threads that work together: they meet, and if one panics, none waits for it for ever.
pub struct Crew {
    size: usize,
    arrived: AtomicUsize,
    has_failed: AtomicBool,
}

impl Crew {
    /// A crew of `size` threads.
    pub const fn new(size: usize) -> Self {
        Self { size, arrived: AtomicUsize::new(0), has_failed: AtomicBool::new(false) }
    }

    /// Runs `work` on all of them at once, thread `i` as CPU `i`.
    pub fn run<R: Send>(&self, work: impl Fn(usize) -> R + Sync) -> Vec<R> {
        let member = |cpu| {
            let _alarm = Alarm(self);
            Threads::become_cpu(cpu);
            self.meet();
            work(cpu)
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..self.size).map(|cpu| scope.spawn(move || member(cpu))).collect();
            threads.into_iter().map(|thread| thread.join().expect("a thread's work")).collect()
        })
    }

    /// Waits until all are here.
    pub fn meet(&self) {
        let ticket = self.arrived.fetch_add(1, Ordering::AcqRel);
        let all = (ticket / self.size + 1) * self.size;
        while self.arrived.load(Ordering::Acquire) < all {
            self.rest();
        }
    }

    /// Lets others go on, in a loop that waits for them.
    pub fn rest(&self) {
        assert!(!self.has_failed.load(Ordering::Acquire), "another thread has failed");
        std::thread::yield_now();
    }
}

/// Tells the crew when its thread panics.
struct Alarm<'c>(&'c Crew);

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.has_failed.store(true, Ordering::Release);
        }
    }
}
