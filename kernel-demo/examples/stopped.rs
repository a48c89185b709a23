//! A kernel for the debugger: it puts frames into every state that there is, says which they are
//! and what `Stats` says, and stops at [`stopped`]. On 6 GiB, tests/gdb.rs looks at it there with
//! tools/frametree-gdb.py. A small pool beside the other is hardened: what its ledger says.
#![no_std]
#![no_main]

use core::hint::black_box;
use core::sync::atomic::{AtomicU64, Ordering};

use frametree::cpus::{InterruptsOff, OneCpu, Pinned};
use frametree::{BlockUse, CpuId, FRAME_SIZE, FramePool, MapEntry, MemoryMap, MemoryRegion, Setup};
use frametree::{Frame, Hardening, NumberRange, Owner, RegionKind, Request};
use kernel_demo::exit::{self, Outcome};
use kernel_demo::handoff::Handoff;
use kernel_demo::memory::{self, POOL};
use kernel_demo::paging::direct_map;
use kernel_demo::{println, smp};

/// The first CPU's own.
static HARDENED: FramePool<Pinned<OneCpu, InterruptsOff>> = {
    // SAFETY: no other CPU uses this pool.
    let one_cpu = unsafe { OneCpu::promised() };
    FramePool::new(Pinned::new(one_cpu, InterruptsOff))
};
/// Who has what there.
const DISK: Owner = Owner::new(7);

/// What CPU 1 has freed last.
static CACHED: AtomicU64 = AtomicU64::new(0);

/// The way into Rust, with what the boot loader left in `eax` and `ebx`.
// SAFETY: boot.s calls it by this name, which nothing else has.
#[unsafe(no_mangle)]
extern "C" fn kernel_main(magic: u32, information: u32) -> ! {
    // SAFETY: the first call, on the first CPU.
    unsafe { kernel_demo::start() };
    // SAFETY: boot.s hands the registers on, and what they name is untouched.
    let handoff = unsafe { Handoff::receive(magic, information) }.expect("a boot loader");
    kernel_demo::bring_up(&handoff);
    let [owned, unnamed, broken, freed, waits] = harden();
    smp::run(|_| memory::drain());

    let held = POOL.alloc().expect("a frame").into_number();
    let block = POOL.alloc_block().expect("a block").into_number();
    memory::drain();
    smp::run(take_and_free);
    let tree = POOL.tree().expect("a pool in use");
    let is_in_use = |block: &BlockUse| block.first.start_address() < 1 << 30;
    let whole = tree.blocks().filter(is_in_use).find(|block| block.free == 512);
    let crumb = tree.free_runs().find(|run| run.len() < 512).expect("a short run").start();

    let stats = POOL.stats();
    println!("\nmanaged: {}", stats.managed_frames);
    println!("free in the tree: {}", stats.free_frames - stats.cached_frames);
    println!("cached: {}", stats.cached_frames);
    stopped(&[
        held.start_address(),
        block.start_address() + 7 * FRAME_SIZE,
        // ORDERING: Relaxed; all CPUs have come back from `smp::run`.
        CACHED.load(Ordering::Relaxed),
        crumb.start_address(),
        whole.expect("a free block in the first GiB").first.start_address(),
        (4 << 30) + 5 * FRAME_SIZE,
        0xf000_0000,
        owned,
        unnamed,
        broken,
        freed,
        waits,
    ]);
    exit::exit(Outcome::Success)
}

/// Where the debugger waits.
// SAFETY: nothing else has this name.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn stopped(places: &[u64; 12]) {
    black_box(places);
}

/// Makes a hardened pool of 8 MiB of the other one, half of which join later. The addresses of four
/// of its frames: one of those that DISK has, one that has no name, one that DISK has written to
/// after its free, one freed by DISK; and one of a block that was freed.
fn harden() -> [u64; 5] {
    let run = POOL.alloc_run(&Request::new(2048)).expect("frames").into_numbers();
    let (start, length) = (run.start().start_address(), 4 << 20);
    let region = MemoryRegion { start, length, kind: RegionKind::Usable };
    let mut cells = [MapEntry::EMPTY; MemoryMap::entries_needed(1)];
    let mut map = MemoryMap::normalise([region], &mut cells).expect("a map of one entry");
    let how = Hardening::new(|violation| println!("{violation}"));
    // SAFETY: the direct map has all memory.
    let how = unsafe { how.poisoned_through(direct_map) };
    let setup = Setup::new(1).hardened(how);
    // SAFETY: the run is this pool's alone from here on.
    unsafe { HARDENED.init(&mut map, setup, direct_map) }.expect("memory for the pool");
    let half = NumberRange::from_numbers(run.start().get() + 1024, run.end().get());
    // SAFETY: the same.
    unsafe { HARDENED.grow(half, direct_map) }.expect("memory that joins");

    let request = Request::new(1).above(half.start().start_address());
    let owned = HARDENED.alloc_run(&request).expect("a frame that joined");
    HARDENED.tag_run(&owned, DISK).expect("a frame that was taken");
    let take = || HARDENED.alloc_tagged(DISK).expect("a frame");
    let [broken, freed] = [take(), take()];
    let places = [&broken, &freed].map(|frame| frame.start_address());
    HARDENED.free(broken).expect("a frame that was taken");
    // SAFETY: it is mapped. That the frame was freed is the bug that is to be found.
    unsafe { direct_map(places[0]).write(1) };
    let unnamed = HARDENED.alloc().expect("another frame").into_number();
    HARDENED.free(freed).expect("a frame that was taken");
    let owned = owned.into_numbers().start();
    let waits = HARDENED.alloc_block().expect("a block").into_number();
    // SAFETY: the block that was taken just now.
    HARDENED.free_block(unsafe { Frame::from_number(waits) }).expect("a block that is held");
    let waits = waits.start_address() + 9 * FRAME_SIZE;
    [owned.start_address(), unnamed.start_address(), places[0], places[1], waits]
}

fn take_and_free(cpu: CpuId) {
    if cpu == CpuId::new(1) {
        let frame = POOL.alloc().expect("a frame");
        // ORDERING: Relaxed; see above.
        CACHED.store(frame.start_address(), Ordering::Relaxed);
        POOL.free(frame).expect("a frame that was taken");
    }
}
