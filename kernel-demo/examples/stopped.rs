//! A kernel for the debugger: it puts frames into every state that there is, says which they are
//! and what `Stats` says, and stops at [`stopped`]. On 6 GiB, tests/gdb.rs looks at it there with
//! tools/frametree-gdb.py.
#![no_std]
#![no_main]

use core::hint::black_box;
use core::sync::atomic::{AtomicU64, Ordering};

use frametree::{BlockUse, CpuId, FRAME_SIZE};
use kernel_demo::exit::{self, Outcome};
use kernel_demo::handoff::Handoff;
use kernel_demo::memory::{self, POOL};
use kernel_demo::{println, smp};

/// What CPU 1 has freed last.
static CACHED: AtomicU64 = AtomicU64::new(0);

/// The way into Rust, with what the boot loader left in `eax` and `ebx`.
#[unsafe(no_mangle)]
extern "C" fn kernel_main(magic: u32, information: u32) -> ! {
    // SAFETY: the first call, on the first CPU.
    unsafe { kernel_demo::start() };
    // SAFETY: boot.s hands the registers on, and what they name is untouched.
    let handoff = unsafe { Handoff::receive(magic, information) }.expect("a boot loader");
    kernel_demo::bring_up(&handoff);
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
    ]);
    exit::exit(Outcome::Success)
}

/// Where the debugger waits.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn stopped(places: &[u64; 7]) {
    black_box(places);
}

fn take_and_free(cpu: CpuId) {
    if cpu == CpuId::new(1) {
        let frame = POOL.alloc().expect("a frame");
        // ORDERING: Relaxed; see above.
        CACHED.store(frame.start_address(), Ordering::Relaxed);
        POOL.free(frame).expect("a frame that was taken");
    }
}
