//! The pool: one static for the whole kernel, fed from the boot loader's map.
//!
//! Also the frames that the kernel keeps for itself, counted by what they are for. **Invariant:**
//! managed frames = free ones + what the kernel keeps + what an exercise holds right now.

use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use frametree::cpus::{GsSlot, NotPreempted, Pinned};
use frametree::{CpuId, Crossing, FramePool, InitError, MemoryMap, Metadata, Setup};
use x86_64::instructions::interrupts;
use x86_64::structures::paging::{FrameAllocator, PhysFrame, Size4KiB};

use crate::cpu::{self, MAX_CPUS};
use crate::interrupts::DRAIN;
use crate::waiting::wait_for;
use crate::{apic, heap, paging, smp};

// ANCHOR: pool
/// How the pool learns on which CPU it runs, and keeps it there.
pub type Cpus = Pinned<GsSlot<{ cpu::NUMBER }>, NotPreempted>;

/// The pool's type, with that.
pub type Pool = FramePool<Cpus>;

/// Every frame of this machine.
pub static POOL: Pool = {
    // SAFETY: `gs` points at each CPU's own `Cpu` from its first line of Rust on (see cpu.rs), and
    // there is no user mode that could change it.
    let identity = unsafe { GsSlot::promised() };
    // SAFETY: this kernel has no threads.
    FramePool::new(Pinned::with_drain(identity, unsafe { NotPreempted::promised() }, ask_to_drain))
};
// ANCHOR_END: pool

/// Interrupts the other CPU and waits until it has drained its cache, so that nothing stays out of
/// reach. A caller that has interrupts off does not wait: two of them could wait for each other.
/// The handler of a non-maskable interrupt asks nobody: it may have come inside the APIC's driver.
fn ask_to_drain(cpu: CpuId) {
    if cpu == cpu::current() || cpu.get() >= smp::online() || cpu::is_in_nmi() {
        return;
    }
    // ORDERING: Acquire pairs with the Release in `drain_on_request`.
    let drains = || DRAINS[cpu.get()].load(Ordering::Acquire);
    let before = drains();
    apic::interrupt(cpu, DRAIN);
    if interrupts::are_enabled() {
        // Past the limit the allocation goes on without those frames.
        let _ = wait_for(DRAIN_LIMIT, || drains() != before);
    }
}

/// How long an allocation waits for another CPU's cache.
const DRAIN_LIMIT: Duration = Duration::from_secs(1);

/// How often each CPU has drained its cache because another one asked.
static DRAINS: [AtomicU64; MAX_CPUS] = [const { AtomicU64::new(0) }; MAX_CPUS];

/// Gives this CPU's cached frames back, and ends the kernel if one of them was free already.
pub fn drain() {
    if let Err(error) = POOL.drain() {
        panic!("CPU {}: {error}", cpu::current().get());
    }
}

/// What the `DRAIN` interrupt does.
pub fn drain_on_request() {
    drain();
    // ORDERING: Release: the frames are back for whoever sees the new count.
    DRAINS[cpu::current().get()].fetch_add(1, Ordering::Release);
}

/// Drains requested by other CPUs so far.
pub fn requested_drains() -> u64 {
    // ORDERING: Relaxed; a statistic.
    DRAINS.iter().map(|drains| drains.load(Ordering::Relaxed)).sum()
}

/// Memory for old devices, which is used last.
pub const LOW_END: u64 = 16 << 20;

/// Frames of the reserve for each CPU.
pub const RESERVE: u64 = 32;

/// Free frames at which the pool says that memory is low, and that it is not any more.
const LOW_MARK: u64 = 1024;
const HIGH_MARK: u64 = 2048;

/// Crossings of these marks so far.
static CROSSINGS: AtomicU64 = AtomicU64::new(0);

/// What the pool calls when free memory crosses one.
fn count_crossing(_: Crossing) {
    // ORDERING: Relaxed; a count.
    CROSSINGS.fetch_add(1, Ordering::Relaxed);
}

/// How often free memory has crossed a watermark.
pub fn crossings() -> u64 {
    // ORDERING: Relaxed; a count.
    CROSSINGS.load(Ordering::Relaxed)
}

/// What the kernel keeps a frame for.
#[derive(Clone, Copy)]
pub enum Purpose {
    /// A page table.
    Table,
    /// A CPU's stack.
    Stack,
    /// The picture on the screen.
    Screen,
    /// The pool's own metadata, for what was isolated and retired.
    Pool,
}

static KEPT: [AtomicU64; 4] = [const { AtomicU64::new(0) }; 4];

/// How many frames the kernel keeps for this purpose.
pub fn kept(purpose: Purpose) -> u64 {
    // ORDERING: Relaxed; a statistic, compared only when nothing is under way.
    KEPT[purpose as usize].load(Ordering::Relaxed)
}

/// How many frames the kernel keeps in all, its heap among them.
pub fn kept_in_all() -> u64 {
    [Purpose::Table, Purpose::Stack, Purpose::Screen, Purpose::Pool].map(kept).iter().sum::<u64>()
        + heap::frames()
}

/// Puts frames on the account that the kernel keeps from now on.
pub fn keep(purpose: Purpose, frames: u64) {
    // ORDERING: Relaxed; a statistic.
    KEPT[purpose as usize].fetch_add(frames, Ordering::Relaxed);
}

/// The pool as `x86_64`'s mapper sees it, with the kernel's count.
pub struct KernelFrames(pub Purpose);

// SAFETY: Each frame is new from the pool, whose own implementation of this trait promises that
// it is nobody else's.
unsafe impl FrameAllocator<Size4KiB> for KernelFrames {
    fn allocate_frame(&mut self) -> Option<PhysFrame> {
        let frame = (&POOL).allocate_frame()?;
        keep(self.0, 1);
        Some(frame)
    }
}

/// Gives the pool what is left in the map. Its metadata goes where the early map reaches.
///
/// # Safety
/// What the map calls usable is memory that nobody uses.
pub unsafe fn init(map: &mut MemoryMap, cpus: usize) -> Result<Metadata, InitError> {
    let setup = Setup::new(cpus)
        .metadata_below(paging::EARLY_MAP_END)
        .low_last(LOW_END)
        .reserve(RESERVE * cpus as u64)
        .watermarks(LOW_MARK, HIGH_MARK, count_crossing);
    // SAFETY: By contract, and the early map maps everything below its end, writable and forever.
    unsafe { POOL.init(map, setup, paging::direct_map) }
}

const STACKS: u64 = 0xffff_c000_0000_0000;
const STACK_PAGES: u64 = 16;

/// Maps a stack for a CPU, a missing page below it, and returns its upper end.
pub fn map_stack(cpu: usize) -> u64 {
    let guard = STACKS + cpu as u64 * (STACK_PAGES + 1) * 4096;
    for page in 1..=STACK_PAGES {
        paging::map_page(guard + page * 4096, Purpose::Stack);
    }
    guard + (STACK_PAGES + 1) * 4096
}
