//! The way out: QEMU's `isa-debug-exit` device ends the machine with a status that tells success,
//! panic and CPU exception apart. On a machine without it, the CPU stops.

use core::panic::PanicInfo;
use core::sync::atomic::{AtomicUsize, Ordering};
use qemu_exit::{QEMUExit, X86};
use x86_64::instructions::{hlt, interrupts};

use crate::{console, cpu, println};

const DEBUG_EXIT_PORT: u16 = 0xf4;

/// How the kernel ended. QEMU's exit status is twice this value plus one, so that none of them
/// can be taken for QEMU's own 0 and 1.
#[derive(Clone, Copy)]
#[repr(u32)]
pub enum Outcome {
    /// All exercises passed: status 33.
    Success = 0x10,
    /// A Rust panic: status 35.
    Panic = 0x11,
    /// A CPU exception: status 37.
    Exception = 0x12,
}

/// Ends the machine.
pub fn exit(outcome: Outcome) -> ! {
    // SAFETY: The runner puts QEMU's exit device at this port; elsewhere nothing listens there.
    let device = unsafe { X86::new(DEBUG_EXIT_PORT, 2 * Outcome::Success as u32 + 1) };
    device.exit(outcome as u32)
}

const NOBODY: usize = usize::MAX;
static REPORTER: AtomicUsize = AtomicUsize::new(NOBODY);

/// Whether the kernel has failed.
pub fn has_failed() -> bool {
    // ORDERING: Relaxed; for the screen.
    REPORTER.load(Ordering::Relaxed) != NOBODY
}

/// Lets one CPU report its failure. The others stop here, so that the report stays whole; a CPU
/// that fails while it reports leaves at once.
pub fn claim_failure(outcome: Outcome) {
    let this = cpu::current().get();
    // ORDERING: Relaxed; the word picks one CPU and hands nothing over.
    match REPORTER.compare_exchange(NOBODY, this, Ordering::Relaxed, Ordering::Relaxed) {
        Ok(_) => console::be_quiet(false),
        Err(reporter) if reporter == this => exit(outcome),
        Err(_) => loop {
            interrupts::disable();
            hlt();
        },
    }
}

#[panic_handler]
fn panic(info: &PanicInfo) -> ! {
    claim_failure(Outcome::Panic);
    println!("\nPANIC on CPU {}: {}", cpu::current().get(), info.message());
    if let Some(place) = info.location() {
        println!("  at {place}");
    }
    exit(Outcome::Panic)
}
