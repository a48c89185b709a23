//! Identities and guards that are instructions of x86-64.

use core::arch::asm;
use core::arch::x86_64::{__cpuid, __cpuid_count, __rdtscp};

use x86_64::instructions::interrupts::without_interrupts;

use super::{Guard, Identity};
use crate::frame::CpuId;

/// The number of the CPU's local APIC, from `cpuid`: the 32 bits of x2APIC where the CPU has that
/// leaf, else the 8 bits of xAPIC. Nothing has to be set up, so it is for a kernel's first day; it
/// is slow, see the module's page.
///
/// The numbers have gaps where cores have. Initialise the pool for the highest number and one more,
/// as the ACPI tables list them: a slot without a CPU costs its metadata, a CPU without a slot
/// works without a cache.
///
/// # Examples
/// A kernel's first day: nothing has to be set up but the number of slots.
///
/// ```
/// use frametree::cpus::{ApicId, Identity, InterruptsOff, Pinned};
/// use frametree::{FramePool, Setup};
///
/// static POOL: FramePool<Pinned<ApicId, InterruptsOff>> =
///     FramePool::new(Pinned::new(ApicId, InterruptsOff));
///
/// /// For all that the ACPI tables list.
/// fn setup(local_apics: impl Iterator<Item = u32>) -> Setup {
///     Setup::new(local_apics.max().map_or(1, |highest| highest as usize + 1))
/// }
/// # let _ = setup([ApicId.current().get() as u32].into_iter());
/// ```
#[derive(Clone, Copy, Default, Debug)]
pub struct ApicId;

/// The leaf that has the number in 32 bits.
const TOPOLOGY_LEAF: u32 = 0xb;

// SAFETY: the hardware gives each local APIC of a machine a number of its own, and `cpuid` shows
// that of the CPU that runs it. Leaf 0xb is on every CPU whose machine needs more than 8 bits.
unsafe impl Identity for ApicId {
    fn current(&self) -> CpuId {
        let has_topology = __cpuid(0).eax >= TOPOLOGY_LEAF;
        let topology = has_topology.then(|| __cpuid_count(TOPOLOGY_LEAF, 0));
        // A leaf that is there but not filled in says so by no threads.
        let number = match topology.filter(|leaf| leaf.ebx & 0xffff != 0) {
            Some(leaf) => leaf.edx,
            None => __cpuid(1).ebx >> 24,
        };
        CpuId::new(number as usize)
    }
}

/// A CPU's number in memory of its own, of 8 bytes, `OFFSET` bytes behind where `gs` points.
///
/// # Examples
/// ```
/// use frametree::FramePool;
/// use frametree::cpus::{GsSlot, InterruptsOff, Pinned};
///
/// #[repr(C)]
/// struct PerCpu {
///     this: *const PerCpu,
///     number: usize,
/// }
/// const NUMBER: usize = core::mem::offset_of!(PerCpu, number);
///
/// // SAFETY: each CPU points `gs` at a `PerCpu` of its own before it uses the pool, and every way
/// // into the kernel from user mode executes `swapgs` first.
/// static POOL: FramePool<Pinned<GsSlot<NUMBER>, InterruptsOff>> =
///     FramePool::new(unsafe { Pinned::new(GsSlot::promised(), InterruptsOff) });
/// ```
#[derive(Clone, Copy, Debug)]
pub struct GsSlot<const OFFSET: usize>(());

impl<const OFFSET: usize> GsSlot<OFFSET> {
    /// The promise.
    ///
    /// # Safety
    /// Whenever what is given this identity is used, also in handlers of interrupts and NMIs, `gs`
    /// points at memory that only this CPU's `gs` points at, the 8 bytes at `OFFSET` can be read,
    /// and they hold a number that no other CPU has and that does not change. In a kernel with user
    /// mode that takes `swapgs` at every entry; in an NMI handler a look at whether it is due.
    ///
    /// # Examples
    /// ```
    /// # use frametree::cpus::GsSlot;
    /// #[repr(C)]
    /// struct PerCpu {
    ///     stack: u64,
    ///     number: usize,
    /// }
    /// // SAFETY: each CPU points `gs` at a `PerCpu` of its own before it uses the pool.
    /// const THIS_CPU: GsSlot<{ core::mem::offset_of!(PerCpu, number) }> =
    ///     unsafe { GsSlot::promised() };
    /// ```
    #[must_use]
    pub const unsafe fn promised() -> Self {
        Self(())
    }
}

// SAFETY: the number is one CPU's own, as was promised.
unsafe impl<const OFFSET: usize> Identity for GsSlot<OFFSET> {
    #[inline(always)]
    fn current(&self) -> CpuId {
        let number: usize;
        // SAFETY: the memory can be read, as was promised. Not `pure`: the thread can go on on
        // another CPU between two looks, and must not be given the first one's answer.
        unsafe {
            asm!(
                "mov {}, gs:[{}]",
                out(reg) number,
                const OFFSET,
                options(readonly, nostack, preserves_flags),
            );
        }
        CpuId::new(number)
    }
}

/// What the kernel wrote into the register `IA32_TSC_AUX` (0xc000_0103) of each CPU, by `rdpid`.
///
/// # Examples
/// Each CPU writes its number into the register before it allocates:
///
/// ```
/// use frametree::FramePool;
/// use frametree::cpus::{InterruptsOff, Pinned, Rdpid};
/// use x86_64::registers::model_specific::Msr;
///
/// fn begin(number: u32) {
///     // SAFETY: the register means nothing to the CPU itself.
///     unsafe { Msr::new(0xc000_0103).write(number.into()) };
/// }
/// // SAFETY: every CPU has the instruction, and has called `begin` with a number of its own.
/// static POOL: FramePool<Pinned<Rdpid, InterruptsOff>> =
///     FramePool::new(Pinned::new(unsafe { Rdpid::promised() }, InterruptsOff));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Rdpid(());

impl Rdpid {
    /// The promise.
    ///
    /// # Safety
    /// Every CPU that uses what is given this identity has the instruction (leaf 7 of `cpuid`, bit
    /// 22 of `ecx`), and has a number in that register that no other one has and that does not
    /// change.
    ///
    /// # Examples
    /// ```no_run
    /// use core::arch::x86_64::__cpuid_count;
    /// use frametree::cpus::{Identity, Rdpid};
    ///
    /// assert!(__cpuid_count(7, 0).ecx >> 22 & 1 != 0, "a CPU without `rdpid`");
    /// // SAFETY: it has the instruction, and its number is in `IA32_TSC_AUX` by now.
    /// let number = unsafe { Rdpid::promised() }.current();
    /// ```
    #[must_use]
    pub const unsafe fn promised() -> Self {
        Self(())
    }
}

// SAFETY: the number is one CPU's own, as was promised.
unsafe impl Identity for Rdpid {
    #[inline(always)]
    fn current(&self) -> CpuId {
        let number: u64;
        // SAFETY: the CPU has the instruction, as was promised. Not `pure`: see `GsSlot`.
        unsafe { asm!("rdpid {}", out(reg) number, options(nomem, nostack, preserves_flags)) };
        CpuId::new(number as u32 as usize)
    }
}

/// The same register by `rdtscp`, which older CPUs have, and which waits for all loads before it.
///
/// # Examples
/// For kernels that have to run on CPUs without `rdpid`; else like [`Rdpid`]:
///
/// ```
/// use frametree::FramePool;
/// use frametree::cpus::{InterruptsOff, Pinned, Rdtscp};
///
/// // SAFETY: every CPU has the instruction, and a number of its own in `IA32_TSC_AUX`.
/// static POOL: FramePool<Pinned<Rdtscp, InterruptsOff>> =
///     FramePool::new(Pinned::new(unsafe { Rdtscp::promised() }, InterruptsOff));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Rdtscp(());

impl Rdtscp {
    /// The promise.
    ///
    /// # Safety
    /// As for [`Rdpid::promised`], for `rdtscp` (leaf 0x8000_0001, bit 27 of `edx`), which must not
    /// be forbidden where the kernel runs (`CR4.TSD` with a privilege level above 0).
    ///
    /// # Examples
    /// ```no_run
    /// use core::arch::x86_64::__cpuid;
    /// use frametree::cpus::{Identity, Rdtscp};
    ///
    /// assert!(__cpuid(0x8000_0001).edx >> 27 & 1 != 0, "a CPU without `rdtscp`");
    /// // SAFETY: it has the instruction, and its number is in `IA32_TSC_AUX` by now.
    /// let number = unsafe { Rdtscp::promised() }.current();
    /// ```
    #[must_use]
    pub const unsafe fn promised() -> Self {
        Self(())
    }
}

// SAFETY: the number is one CPU's own, as was promised.
unsafe impl Identity for Rdtscp {
    #[inline(always)]
    fn current(&self) -> CpuId {
        let mut number = 0;
        // SAFETY: the CPU has the instruction, as was promised, and the place can be written.
        unsafe { __rdtscp(&mut number) };
        CpuId::new(number as usize)
    }
}

/// Interrupts of this CPU are off meanwhile, and then as they were before: nothing but an NMI comes
/// between, so no scheduler does. In kernel mode only: in user mode the instruction is a fault.
///
/// # Examples
/// A kernel whose timer switches threads, in kernel mode too:
///
/// ```
/// use frametree::FramePool;
/// use frametree::cpus::{ApicId, InterruptsOff, Pinned};
///
/// static POOL: FramePool<Pinned<ApicId, InterruptsOff>> =
///     FramePool::new(Pinned::new(ApicId, InterruptsOff));
/// ```
#[derive(Clone, Copy, Default, Debug)]
pub struct InterruptsOff;

// SAFETY: threads are switched by code that runs on their CPU: the thread's own, which here is the
// closure, or that of an interrupt, which is off. A kernel whose NMI handler switches threads has
// no way to keep one anywhere.
unsafe impl Guard for InterruptsOff {
    #[inline(always)]
    fn hold<R>(&self, work: impl FnOnce() -> R) -> R {
        without_interrupts(work)
    }
}

/// Preemption of this CPU is off meanwhile: a count in memory of its own, of 8 bytes, `OFFSET`
/// bytes behind where `gs` points, is one higher. Interrupts stay on. A switch of threads that the
/// scheduler has put off meanwhile it makes up for at its next tick.
///
/// # Examples
/// ```
/// use frametree::FramePool;
/// use frametree::cpus::{GsSlot, Pinned, PreemptionOff};
///
/// #[repr(C)]
/// struct PerCpu {
///     number: usize,
///     preemption_off: u64,
/// }
/// const NUMBER: usize = core::mem::offset_of!(PerCpu, number);
/// const COUNT: usize = core::mem::offset_of!(PerCpu, preemption_off);
///
/// // SAFETY: each CPU points `gs` at a `PerCpu` of its own before it uses the pool, every way into
/// // the kernel from user mode executes `swapgs` first, and the scheduler's tick returns to the
/// // thread that it came from while the count is not 0.
/// static POOL: FramePool<Pinned<GsSlot<NUMBER>, PreemptionOff<COUNT>>> =
///     FramePool::new(unsafe { Pinned::new(GsSlot::promised(), PreemptionOff::promised()) });
/// ```
#[derive(Clone, Copy, Debug)]
pub struct PreemptionOff<const OFFSET: usize>(());

impl<const OFFSET: usize> PreemptionOff<OFFSET> {
    /// The promise.
    ///
    /// # Safety
    /// Whenever what is given this guard is used, also in handlers of interrupts and NMIs, `gs`
    /// points at memory that only this CPU's `gs` points at, and the 8 bytes at `OFFSET` are a
    /// count. While it is not 0 the CPU switches to no other thread, and a handler leaves it as it
    /// was.
    ///
    /// # Examples
    /// ```
    /// # use frametree::cpus::PreemptionOff;
    /// #[repr(C)]
    /// struct PerCpu {
    ///     stack: u64,
    ///     preemption_off: u64,
    /// }
    /// // SAFETY: each CPU points `gs` at a `PerCpu` of its own, and while the count is not 0 the
    /// // scheduler leaves the thread where it is.
    /// const GUARD: PreemptionOff<{ core::mem::offset_of!(PerCpu, preemption_off) }> =
    ///     unsafe { PreemptionOff::promised() };
    /// ```
    #[must_use]
    pub const unsafe fn promised() -> Self {
        Self(())
    }
}

// SAFETY: the count goes up by one instruction, so on one CPU, and from then on the thread stays on
// that CPU until it has gone down again, as was promised.
unsafe impl<const OFFSET: usize> Guard for PreemptionOff<OFFSET> {
    #[inline(always)]
    fn hold<R>(&self, work: impl FnOnce() -> R) -> R {
        // SAFETY: the count is there, as was promised. It may be any memory for the compiler, so
        // nothing of `work` comes before it, or behind the one below.
        unsafe { asm!("inc qword ptr gs:[{}]", const OFFSET, options(nostack)) };
        let result = work();
        // SAFETY: the same count: the thread has stayed where it was.
        unsafe { asm!("dec qword ptr gs:[{}]", const OFFSET, options(nostack)) };
        result
    }
}
