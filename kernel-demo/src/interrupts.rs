//! Interrupts and exceptions: one table for all CPUs.
//!
//! Exceptions end the kernel: they print what happened and where, and leave with a status of
//! their own. Interrupts come back: their entry points save what a function may overwrite (this
//! target has no floating-point or vector registers in use), and the handlers run with
//! interrupts off.

use core::arch::{global_asm, naked_asm};
use spin::Once;
use x86_64::VirtAddr;
use x86_64::registers::control::Cr2;
use x86_64::structures::idt::{ExceptionVector, InterruptDescriptorTable};

use crate::exit::{self, Outcome};
use crate::{apic, cpu, exercises, memory, println};

/// The local APIC's timer.
pub const TIMER: u8 = 0x40;
/// Another CPU asks for this CPU's cached frames.
pub const DRAIN: u8 = 0x41;
/// There is a job for this CPU.
pub const WAKE: u8 = 0x42;
/// The local APIC has something to complain about.
pub const APIC_ERROR: u8 = 0x43;
/// The local APIC changed its mind.
pub const SPURIOUS: u8 = 0xff;

const STUB_BYTES: u64 = 16;

global_asm!(include_str!("interrupts.s"), options(att_syntax));

unsafe extern "C" {
    static exception_stubs: u8;
}

/// An entry point that calls `handler` and returns to what was interrupted.
macro_rules! entry_point {
    ($name:ident, $handler:path) => {
        #[unsafe(naked)]
        extern "C" fn $name() {
            // The CPU aligned the stack and pushed five words; with these nine, it is aligned
            // for the call.
            naked_asm!(
                "push rax", "push rcx", "push rdx", "push rsi", "push rdi",
                "push r8", "push r9", "push r10", "push r11",
                "cld",
                "call {handler}",
                "pop r11", "pop r10", "pop r9", "pop r8",
                "pop rdi", "pop rsi", "pop rdx", "pop rcx", "pop rax",
                "iretq",
                handler = sym $handler,
            )
        }
    };
}

entry_point!(timer_entry, timer);
entry_point!(drain_entry, drain);
entry_point!(wake_entry, apic::end_of_interrupt);
entry_point!(apic_error_entry, apic_error);
entry_point!(spurious_entry, spurious);
entry_point!(nmi_entry, nmi);

extern "C" fn timer() {
    exercises::interrupt::tick();
    exercises::nmi::tick();
    exercises::reserve::tick();
    apic::end_of_interrupt();
}

extern "C" fn drain() {
    memory::drain_on_request();
    apic::end_of_interrupt();
}

extern "C" fn apic_error() {
    panic!("the local APIC reports an error");
}

/// Comes at any time, also with interrupts off: it takes no lock that it would have to wait for,
/// and leaves the APIC and the console alone. There is no user mode, so that the stack which it
/// finds is always a good one. It is not acknowledged.
extern "C" fn nmi() {
    cpu::in_nmi(exercises::nmi::storm);
}

/// A spurious interrupt is not acknowledged.
extern "C" fn spurious() {}

/// Loads the table on this CPU.
pub fn load() {
    static TABLE: Once<InterruptDescriptorTable> = Once::new();
    TABLE.call_once(table).load();
}

fn table() -> InterruptDescriptorTable {
    let mut table = InterruptDescriptorTable::new();
    let stubs = VirtAddr::from_ptr(&raw const exception_stubs);
    macro_rules! exceptions {
        ($($vector:literal: $name:ident),* $(,)?) => {
            // SAFETY: Each stub fits its exception (see interrupts.s) and never returns.
            unsafe { $(table.$name.set_handler_addr(stubs + $vector * STUB_BYTES);)* }
        };
    }
    exceptions! {
        0: divide_error, 1: debug, 3: breakpoint, 4: overflow,
        5: bound_range_exceeded, 6: invalid_opcode, 7: device_not_available,
        10: invalid_tss, 11: segment_not_present, 12: stack_segment_fault,
        13: general_protection_fault, 14: page_fault, 16: x87_floating_point,
        17: alignment_check, 18: machine_check, 19: simd_floating_point, 20: virtualization,
        21: cp_protection_exception, 28: hv_injection_exception, 29: vmm_communication_exception,
        30: security_exception,
    }
    let entries: [(u8, extern "C" fn()); 5] = [
        (TIMER, timer_entry),
        (DRAIN, drain_entry),
        (WAKE, wake_entry),
        (APIC_ERROR, apic_error_entry),
        (SPURIOUS, spurious_entry),
    ];
    // SAFETY: As above for the stub, and each CPU's task state segment has the stack. The entry
    // points save what they use and end with `iretq`.
    unsafe {
        let double_fault = table.double_fault.set_handler_addr(stubs + 8 * STUB_BYTES);
        double_fault.set_stack_index(cpu::DOUBLE_FAULT_STACK);
        let nmi = VirtAddr::new(nmi_entry as *const () as u64);
        table.non_maskable_interrupt.set_handler_addr(nmi);
        for (vector, entry) in entries {
            table[vector].set_handler_addr(VirtAddr::new(entry as usize as u64));
        }
    }
    table
}

/// What the stubs leave on the stack.
#[repr(C)]
struct ExceptionFrame {
    vector: u64,
    error_code: u64,
    instruction: u64,
    code_segment: u64,
    flags: u64,
    stack: u64,
}

/// Every CPU exception ends here.
// SAFETY: interrupts.s calls it by this name, which nothing else has.
#[unsafe(no_mangle)]
extern "C" fn exception(frame: &ExceptionFrame) -> ! {
    exit::claim_failure(Outcome::Exception);
    println!("\nEXCEPTION {} on CPU {}", frame.vector, cpu::current().get());
    if let Ok(name) = ExceptionVector::try_from(frame.vector as u8) {
        println!("  what        {name:?}, error code {:#x}", frame.error_code);
    }
    println!("  instruction {:#018x}", frame.instruction);
    println!("  stack       {:#018x}", frame.stack);
    println!("  address     {:#018x}  (cr2: meant by page faults only)", Cr2::read_raw());
    exit::exit(Outcome::Exception)
}
