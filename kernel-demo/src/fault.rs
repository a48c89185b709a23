//! Faults on request: `fail=panic` and its like on the command line show that a failing kernel is
//! seen to fail.

use spin::Once;
use x86_64::instructions::interrupts;
use x86_64::instructions::tables::lidt;
use x86_64::structures::DescriptorTablePointer;
use x86_64::{VirtAddr, instructions};

/// What shall go wrong.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A Rust panic.
    Panic,
    /// A CPU exception.
    Exception,
    /// An exception that no handler can take.
    Triple,
    /// Silence.
    Hang,
    /// A changed byte in a stamped frame.
    Stamp,
}

static REQUESTED: Once<Option<Fault>> = Once::new();

/// Reads the command line, once.
pub fn request(command_line: &str) {
    let name = command_line.split_whitespace().find_map(|word| word.strip_prefix("fail="));
    REQUESTED.call_once(|| {
        name.map(|name| match name {
            "panic" => Fault::Panic,
            "exception" => Fault::Exception,
            "triple" => Fault::Triple,
            "hang" => Fault::Hang,
            "stamp" => Fault::Stamp,
            _ => panic!("fail={name}: not one of panic, exception, triple, hang, stamp"),
        })
    });
}

/// Whether this fault was asked for.
pub fn is_requested(fault: Fault) -> bool {
    REQUESTED.get() == Some(&Some(fault))
}

/// Commits what was asked for, if it can be done right here.
pub fn commit() {
    match REQUESTED.get().copied().flatten() {
        None | Some(Fault::Stamp) => {}
        Some(Fault::Panic) => panic!("on request"),
        Some(Fault::Exception) => {
            let nowhere = 0x1234_5678_9000_usize as *mut u8;
            // SAFETY: Not at all: the page is not mapped. That is the point.
            unsafe { nowhere.write_volatile(1) };
        }
        Some(Fault::Triple) => {
            let nothing = DescriptorTablePointer { limit: 0, base: VirtAddr::zero() };
            // SAFETY: With an empty table the next exception ends the machine, as it should.
            unsafe { lidt(&nothing) };
            interrupts::int3();
        }
        Some(Fault::Hang) => loop {
            instructions::hlt();
        },
    }
}
