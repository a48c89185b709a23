//! What the kernel promises about its CPUs.

use crate::frame::CpuId;

/// How the pool learns on which CPU it runs: the one promise that it asks of a kernel.
///
/// # Safety
/// While [`with_current`](Cpus::with_current) runs its closure with a [`CpuId`], no other CPU
/// (and no other thread that was scheduled on the same CPU meanwhile) runs a closure with the
/// same id. Interrupts and NMIs on the same CPU may: they end before the interrupted closure
/// goes on, which is all that the pool needs. In a kernel that never preempts a thread in kernel
/// mode, reading the CPU's number is enough; otherwise disable preemption around the closure, also
/// where threads stay on their CPU.
///
/// If the promise is broken, two CPUs can take the same frame from one cache, and both will
/// write to it. Nothing in the library itself becomes undefined: its words are atomic.
///
/// An id that is not below the number of CPUs given at initialisation is allowed: such a CPU
/// has no cache and works on the shared tree.
///
/// # Examples
/// ```
/// use frametree::{CpuId, Cpus};
///
/// struct Kernel;
///
/// // SAFETY: threads stay on their CPU while preemption is off.
/// unsafe impl Cpus for Kernel {
///     fn with_current<R>(&self, work: impl FnOnce(CpuId) -> R) -> R {
///         preemption::off();
///         let result = work(CpuId::new(this_cpu()));
///         preemption::on();
///         result
///     }
///
///     fn request_drain(&self, cpu: CpuId) {
///         send_ipi(cpu.get(), DRAIN); // whose handler calls the pool's `drain`
///     }
/// }
/// # mod preemption { pub fn off() {} pub fn on() {} }
/// # fn this_cpu() -> usize { 0 }
/// # fn send_ipi(_: usize, _: u8) {}
/// # const DRAIN: u8 = 0x40;
/// # Kernel.request_drain(Kernel.with_current(|cpu| cpu));
/// ```
pub unsafe trait Cpus {
    /// Runs `work` on the current CPU, pinned to it, and tells it which one that is.
    ///
    /// # Examples
    /// A kernel whose timer's interrupt switches threads:
    ///
    /// ```
    /// use frametree::{CpuId, Cpus};
    /// # mod interrupts { pub fn off() -> bool { true } pub fn set(_: bool) {} }
    /// # fn this_cpu() -> usize { 0 }
    ///
    /// struct Kernel;
    ///
    /// // SAFETY: nothing but an NMI comes between, and its handler returns.
    /// unsafe impl Cpus for Kernel {
    ///     fn with_current<R>(&self, work: impl FnOnce(CpuId) -> R) -> R {
    ///         let were_on = interrupts::off();
    ///         let result = work(CpuId::new(this_cpu()));
    ///         interrupts::set(were_on);
    ///         result
    ///     }
    /// }
    /// # assert_eq!(Kernel.with_current(|cpu| cpu.get()), 0);
    /// ```
    fn with_current<R>(&self, work: impl FnOnce(CpuId) -> R) -> R;

    /// Asks another CPU to call [`FramePool::drain`](crate::FramePool::drain) soon, or does
    /// nothing: that CPU also drains by itself at the end of its next use of the pool.
    ///
    /// Called by every allocation that found nothing, for each CPU whose cache holds frames or
    /// that is inside the allocator, outside of [`with_current`](Cpus::with_current). A kernel
    /// may send an interrupt and return at once, or wait until it was handled: then the
    /// allocation finds all frames. Who fears a storm of interrupts from a CPU that asks again
    /// and again leaves out those that were asked a moment ago.
    ///
    /// # Examples
    /// A CPU that has not answered yet is not asked again:
    ///
    /// ```
    /// # use frametree::{CpuId, Cpus};
    /// # use std::sync::atomic::{AtomicBool, Ordering};
    /// # const CPUS: usize = 4;
    /// # const DRAIN: u8 = 0x40;
    /// # fn send_ipi(_: usize, _: u8) {}
    /// static ASKED: [AtomicBool; CPUS] = [const { AtomicBool::new(false) }; CPUS];
    ///
    /// struct Kernel;
    ///
    /// // SAFETY: as above.
    /// unsafe impl Cpus for Kernel {
    /// #     fn with_current<R>(&self, work: impl FnOnce(CpuId) -> R) -> R {
    /// #         work(CpuId::new(0))
    /// #     }
    ///     // ..
    ///     fn request_drain(&self, cpu: CpuId) {
    ///         if !ASKED[cpu.get()].swap(true, Ordering::Relaxed) {
    ///             send_ipi(cpu.get(), DRAIN); // its handler sets it to `false` and calls `drain`
    ///         }
    ///     }
    /// }
    /// # Kernel.request_drain(CpuId::new(1));
    /// ```
    fn request_drain(&self, cpu: CpuId) {
        let _ = cpu;
    }
}
