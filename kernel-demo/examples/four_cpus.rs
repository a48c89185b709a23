//! A whole kernel for several CPUs, started through PVH: each CPU takes frames, signs them and
//! hands them to the next one, which checks them and gives them back.
//!
//! `kernel_demo` brings the machine up: the memory map with everything reserved that is in use, the
//! pool, the CPUs. How its pool knows the CPUs is in its memory.rs: `GsSlot`, and nothing to guard
//! against, because nothing here is preempted.
#![no_std]
#![no_main]

use frametree::{CpuId, Frame};
use kernel_demo::exit::{self, Outcome};
use kernel_demo::handoff::Handoff;
use kernel_demo::memory::{self, POOL};
use kernel_demo::paging::direct_map;
use kernel_demo::{println, smp};
use spin::Mutex;

const CPUS: usize = 4;
const ROUNDS: u64 = 500;
/// Frames that go from hand to hand at once.
const HANDFUL: usize = 100;

type Handful = [Option<Frame>; HANDFUL];

/// What the CPU before has left for each CPU.
static MAILBOXES: [Mutex<Option<Handful>>; CPUS] = [const { Mutex::new(None) }; CPUS];

/// The way into Rust, with what the boot loader left in `eax` and `ebx`.
// SAFETY: boot.s calls it by this name, which nothing else has.
#[unsafe(no_mangle)]
extern "C" fn kernel_main(magic: u32, information: u32) -> ! {
    // SAFETY: the first call, on the first CPU.
    unsafe { kernel_demo::start() };
    // SAFETY: boot.s hands the registers on, and what they name is untouched.
    let handoff = unsafe { Handoff::receive(magic, information) }.expect("a boot loader");
    kernel_demo::bring_up(&handoff);
    assert_eq!(smp::online(), CPUS, "this kernel is for {CPUS} CPUs");

    let before = POOL.stats();
    smp::run(work);
    smp::run(|_| memory::drain());
    let after = POOL.stats();
    assert_eq!(after.free_frames, before.free_frames, "frames are missing");
    POOL.verify().expect("a sound tree");
    println!(
        "\n{} frames went from CPU to CPU, none is missing",
        CPUS as u64 * ROUNDS * HANDFUL as u64
    );
    println!("{}", POOL.tree().expect("a pool in use").buddyinfo());
    println!("{}", after.meminfo());
    exit::exit(Outcome::Success)
}

/// What each CPU does, all at once.
fn work(cpu: CpuId) {
    let next = &MAILBOXES[(cpu.get() + 1) % CPUS];
    let (mut sent, mut received) = (0, 0);
    while sent < ROUNDS || received < ROUNDS {
        if sent < ROUNDS && next.lock().is_none() {
            *next.lock() = Some(signed(cpu, sent));
            sent += 1;
        }
        let handful = MAILBOXES[cpu.get()].lock().take();
        if let Some(handful) = handful {
            check(CpuId::new((cpu.get() + CPUS - 1) % CPUS), received, handful);
            received += 1;
        }
        core::hint::spin_loop();
    }
}

/// Frames with this CPU's signature.
fn signed(cpu: CpuId, round: u64) -> Handful {
    core::array::from_fn(|index| {
        let frame = POOL.alloc().expect("a frame");
        let signature = [cpu.get() as u64, round, index as u64];
        // SAFETY: the frame is ours; the direct map has it.
        unsafe { direct_map(frame.start_address()).cast::<[u64; 3]>().write(signature) };
        Some(frame)
    })
}

/// Frames that this CPU must have signed in this round go back.
fn check(signer: CpuId, round: u64, mut handful: Handful) {
    for (index, frame) in handful.iter().flatten().enumerate() {
        // SAFETY: the frame is ours now; the direct map has it.
        let found = unsafe { direct_map(frame.start_address()).cast::<[u64; 3]>().read() };
        assert_eq!(found, [signer.get() as u64, round, index as u64], "{frame:?}");
    }
    POOL.free_bulk(&mut handful).expect("frames that were taken");
}
