//! One CPU: its number, its segments, its emergency stack.
//!
//! Each CPU's `gs` base points at its own [`Cpu`], from its first line of Rust on. That is how
//! code learns where it runs, in one instruction. **Invariant:** nothing in this kernel moves
//! from one CPU to another: there are no threads and no preemption, and an interrupt handler
//! returns on the CPU that it came to. So the answer stays true for as long as anybody holds it.

use core::cell::UnsafeCell;
use core::mem::offset_of;
use core::sync::atomic::{AtomicBool, Ordering};
use frametree::CpuId;
use frametree::cpus::{GsSlot, Identity};
use spin::Once;
use x86_64::VirtAddr;
use x86_64::instructions::tables::load_tss;
use x86_64::registers::model_specific::GsBase;
use x86_64::registers::segmentation::{CS, Segment};
use x86_64::structures::gdt::{Descriptor, GlobalDescriptorTable};
use x86_64::structures::tss::TaskStateSegment;

/// The most CPUs that this kernel starts.
pub const MAX_CPUS: usize = 128;
/// The entry of the interrupt stack table that double faults use.
pub const DOUBLE_FAULT_STACK: u16 = 0;
const EMERGENCY_STACK_BYTES: usize = 8192;
/// Where a CPU's number lies behind its `gs`.
pub const NUMBER: usize = offset_of!(Cpu, index);

static CPUS: [Cpu; MAX_CPUS] = [const { Cpu::new() }; MAX_CPUS];

/// What a CPU has for itself.
pub struct Cpu {
    index: UnsafeCell<usize>,
    in_nmi: AtomicBool,
    tss: Once<TaskStateSegment>,
    gdt: Once<GlobalDescriptorTable>,
    emergency_stack: EmergencyStack,
}

#[repr(align(16))]
struct EmergencyStack(UnsafeCell<[u8; EMERGENCY_STACK_BYTES]>);

// SAFETY: The number is written once, by `enter`, before its CPU reads it through `gs`, and nobody
// else reads it. The stack is touched by its CPU's hardware only.
unsafe impl Sync for Cpu {}

impl Cpu {
    const fn new() -> Self {
        Self {
            index: UnsafeCell::new(0),
            in_nmi: AtomicBool::new(false),
            tss: Once::new(),
            gdt: Once::new(),
            emergency_stack: EmergencyStack(UnsafeCell::new([0; EMERGENCY_STACK_BYTES])),
        }
    }
}

/// Makes the CPU that runs this CPU number `index`: from here on [`current`] works on it.
///
/// # Safety
/// Called once on each CPU, with a number of its own, before anything else.
pub unsafe fn enter(index: usize) {
    let cpu = &CPUS[index];
    // SAFETY: By contract no CPU but this one uses this entry, and this one does not yet.
    unsafe { *cpu.index.get() = index };
    GsBase::write(VirtAddr::from_ptr(cpu));

    let tss = cpu.tss.call_once(|| {
        let stack = cpu.emergency_stack.0.get().cast::<u8>();
        let mut tss = TaskStateSegment::new();
        tss.interrupt_stack_table[usize::from(DOUBLE_FAULT_STACK)] =
            VirtAddr::from_ptr(stack) + EMERGENCY_STACK_BYTES as u64;
        tss
    });
    let mut selectors = None;
    let gdt = cpu.gdt.call_once(|| {
        let mut gdt = GlobalDescriptorTable::new();
        let code = gdt.append(Descriptor::kernel_code_segment());
        selectors = Some((code, gdt.append(Descriptor::tss_segment(tss))));
        gdt
    });
    let (code, task) = selectors.expect("a CPU enters once");
    gdt.load();
    // SAFETY: Both selectors come from the table that was just loaded and that never goes away.
    unsafe {
        CS::set_reg(code);
        load_tss(task);
    }
}

/// The CPU that this runs on.
pub fn current() -> CpuId {
    // SAFETY: `enter` pointed `gs` at this CPU's entry, which it has filled in, for good.
    unsafe { GsSlot::<NUMBER>::promised() }.current()
}

/// Runs the handler of a non-maskable interrupt. None comes inside another one.
pub fn in_nmi(handler: impl FnOnce()) {
    let flag = &CPUS[current().get()].in_nmi;
    // ORDERING: Relaxed, all; only this CPU looks.
    flag.store(true, Ordering::Relaxed);
    handler();
    flag.store(false, Ordering::Relaxed);
}

/// Whether this CPU is in such a handler: what it has interrupted may be anything.
pub fn is_in_nmi() -> bool {
    CPUS[current().get()].in_nmi.load(Ordering::Relaxed)
}
