//! The way in: boot.s, the PVH note, and the names that the assembly and the linker script give
//! to Rust.
//!
//! Nothing here decides anything. After it, a CPU is in 64-bit mode with a stack, interrupts off,
//! and the first 4 GiB mapped twice (see boot.s).

use core::arch::global_asm;
use core::ptr;

global_asm!(include_str!("boot.s"), options(att_syntax));

unsafe extern "C" {
    fn boot_start() -> !;
    static kernel_start: u8;
    static kernel_end: u8;
    static trampoline_start: u8;
    static trampoline_end: u8;
    static mut next_cpu_stack: u64;
    static mut next_cpu_index: u64;
}

pvh::xen_elfnote_phys32_entry!(boot_start);

/// The kernel's own memory, from the multiboot2 header to the end of its zeroed data: first
/// physical address and length.
pub fn kernel_image() -> (u64, u64) {
    let start = (&raw const kernel_start).addr() as u64;
    let end = (&raw const kernel_end).addr() as u64;
    (start, end - start)
}

/// Copies the code with which the next CPU starts to `page`, and tells it which CPU it is and
/// where its stack ends.
///
/// # Safety
/// `page` is writable, page-aligned memory below 1 MiB of which nobody else has need, `stack_end`
/// the upper end of a stack that stays mapped, and no CPU is on its way through this code.
pub unsafe fn prepare_next_cpu(page: *mut u8, stack_end: u64, index: usize) {
    let code = &raw const trampoline_start;
    let length = (&raw const trampoline_end).addr() - code.addr();
    // SAFETY: The two symbols enclose the code in the kernel's image; by contract `page` is ours
    // and nobody reads the two variables now.
    unsafe {
        ptr::copy_nonoverlapping(code, page, length);
        (&raw mut next_cpu_stack).write_volatile(stack_end);
        (&raw mut next_cpu_index).write_volatile(index as u64);
    }
}
