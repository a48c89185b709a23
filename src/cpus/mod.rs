//! Ready-made [`Cpus`] for the usual kernels: [`Pinned`], put together from two answers.
//!
//! **Who am I?** An [`Identity`] reads the number of the CPU that runs.
//!
//! | identity | reads | costs |
//! |---|---|---|
//! | [`OneCpu`] | nothing | nothing |
//! | `GsSlot` | a word behind `gs` | a load |
//! | `Rdpid`, `Rdtscp` | `IA32_TSC_AUX` | one instruction |
//! | `ApicId` | `cpuid` | two slow ones; each leaves a guest for its hypervisor |
//!
//! **What keeps me here?** A [`Guard`] sees to it that the thread stays on its CPU while it works
//! there, and that no other thread runs in between.
//!
//! | guard | for kernels that | costs |
//! |---|---|---|
//! | [`NotPreempted`] | never switch threads in kernel mode | nothing |
//! | `InterruptsOff` | switch threads in interrupts | `pushf`, `cli`, `sti` |
//! | `PreemptionOff` | count, behind `gs`, how often preemption was switched off | `inc`, `dec` |
//! | your own | do that elsewhere | |
//!
//! Identities and guards that the hardware makes true are safe to have. Those that rest on
//! something that the kernel has set up are made by an unsafe function that says what. All that are
//! instructions of x86 come with the feature `x86_64`.

use crate::cpu::Cpus;
use crate::frame::CpuId;

#[cfg(all(feature = "x86_64", target_arch = "x86_64"))]
mod x86;

#[cfg(all(feature = "x86_64", target_arch = "x86_64"))]
pub use x86::{ApicId, GsSlot, InterruptsOff, PreemptionOff, Rdpid, Rdtscp};

/// A way to learn which CPU this is.
///
/// # Safety
/// Two CPUs that run at once never get the same number, and a CPU always gets the same one.
///
/// # Examples
/// A kernel that keeps each CPU's number in memory of its own, by means of its own:
///
/// ```
/// use frametree::CpuId;
/// use frametree::cpus::Identity;
/// # mod per_cpu { pub fn number() -> usize { 0 } }
///
/// struct ThisCpu;
///
/// // SAFETY: each CPU has written its number there before it allocates, and none writes it again.
/// unsafe impl Identity for ThisCpu {
///     fn current(&self) -> CpuId {
///         CpuId::new(per_cpu::number())
///     }
/// }
/// # assert_eq!(ThisCpu.current().get(), 0);
/// ```
pub unsafe trait Identity {
    /// The number of the CPU that runs this, true for as long as the thread stays there.
    ///
    /// # Examples
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/cpus.rs")); }
    /// # use example::*;
    /// # use frametree::cpus::{Guard, Identity};
    /// let cpu = PreemptionOff.hold(|| ThisCpu.current()); // the thread may be elsewhere by now
    /// println!("that was CPU {}", cpu.get());
    /// # assert_eq!(cpu.get(), 0);
    /// ```
    fn current(&self) -> CpuId;
}

/// A way to keep a thread on its CPU.
///
/// # Safety
/// While [`hold`](Guard::hold) runs `work`, the thread stays on the CPU that it is on, and no other
/// thread runs on that CPU. Handlers of interrupts and NMIs may, if they return to it.
///
/// # Examples
/// A kernel that counts how often preemption was switched off:
///
/// ```
/// use frametree::cpus::Guard;
/// # mod preemption { pub fn disable() {} pub fn enable() {} }
///
/// struct PreemptionOff;
///
/// // SAFETY: the scheduler leaves a CPU alone whose count is not 0.
/// unsafe impl Guard for PreemptionOff {
///     fn hold<R>(&self, work: impl FnOnce() -> R) -> R {
///         preemption::disable();
///         let result = work();
///         preemption::enable();
///         result
///     }
/// }
/// # assert_eq!(PreemptionOff.hold(|| 7), 7);
/// ```
pub unsafe trait Guard {
    /// Runs `work` where this thread is.
    ///
    /// # Examples
    /// Anything of a kernel that belongs to a CPU can be used so:
    ///
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/cpus.rs")); }
    /// # use example::*;
    /// # use frametree::cpus::{Guard, Identity};
    /// # use std::sync::atomic::{AtomicU64, Ordering};
    /// static SYSCALLS: [AtomicU64; 4] = [const { AtomicU64::new(0) }; 4]; // one for each CPU
    ///
    /// PreemptionOff.hold(|| {
    ///     let count = &SYSCALLS[ThisCpu.current().get()];
    ///     // No other CPU writes it, and no other thread of this one.
    ///     count.store(count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    /// });
    /// # assert_eq!(SYSCALLS[0].load(Ordering::Relaxed), 1);
    /// ```
    fn hold<R>(&self, work: impl FnOnce() -> R) -> R;
}

/// A kernel's CPUs: who they are, and what keeps a thread on one. See the module's page for both.
///
/// # Examples
/// ```
/// use frametree::FramePool;
/// use frametree::cpus::{NotPreempted, OneCpu, Pinned};
///
/// // SAFETY: this kernel starts no other CPU, and switches threads only where they wait.
/// static POOL: FramePool<Pinned<OneCpu, NotPreempted>> =
///     FramePool::new(unsafe { Pinned::new(OneCpu::promised(), NotPreempted::promised()) });
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Pinned<I, G> {
    identity: I,
    guard: G,
    drain: fn(CpuId),
}

impl<I: Identity, G: Guard> Pinned<I, G> {
    /// CPUs that are told apart so, with threads that are kept so. Another CPU's cache is not asked
    /// for.
    ///
    /// # Examples
    /// With an [`Identity`] and a [`Guard`] of the kernel's own, as on their pages:
    ///
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/cpus.rs")); }
    /// # use example::*;
    /// # use frametree::Cpus;
    /// use frametree::{FramePool, cpus::Pinned};
    ///
    /// static POOL: FramePool<Pinned<ThisCpu, PreemptionOff>> =
    ///     FramePool::new(Pinned::new(ThisCpu, PreemptionOff));
    /// # assert_eq!(Pinned::new(ThisCpu, PreemptionOff).with_current(|cpu| cpu.get()), 0);
    /// ```
    #[must_use]
    pub const fn new(identity: I, guard: G) -> Self {
        Self::with_drain(identity, guard, |_| ())
    }

    /// The same, with a function that asks another CPU for its cache, as an interrupt does:
    /// [`Cpus::request_drain`].
    ///
    /// # Examples
    /// A kernel with an interrupt for it, whose handler drains the CPU that it comes to:
    ///
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/cpus.rs")); }
    /// # use example::*;
    /// use frametree::{FramePool, cpus::Pinned};
    ///
    /// const DRAIN: u8 = 0x40; // the interrupt's number
    /// static POOL: FramePool<Pinned<ThisCpu, PreemptionOff>> = FramePool::new(Pinned::with_drain(
    ///     ThisCpu,
    ///     PreemptionOff,
    ///     |cpu| send_ipi(cpu.get(), DRAIN),
    /// ));
    ///
    /// fn handle_drain() {
    ///     let _ = POOL.drain(); // a double free that only this sees: worth a line in the log
    /// }
    /// # handle_drain();
    /// ```
    #[must_use]
    pub const fn with_drain(identity: I, guard: G, drain: fn(CpuId)) -> Self {
        Self { identity, guard, drain }
    }
}

// SAFETY: the guard keeps this thread on the CPU whose number it then reads, and others off it; by
// the identity's promise no other CPU reads the same number.
unsafe impl<I: Identity, G: Guard> Cpus for Pinned<I, G> {
    #[inline(always)]
    fn with_current<R>(&self, work: impl FnOnce(CpuId) -> R) -> R {
        self.guard.hold(|| work(self.identity.current()))
    }

    fn request_drain(&self, cpu: CpuId) {
        (self.drain)(cpu);
    }
}

/// The one CPU that runs, number 0.
///
/// # Examples
/// A kernel for one CPU, whose timer switches threads:
///
/// ```
/// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/cpus.rs")); }
/// # use example::*;
/// use frametree::FramePool;
/// use frametree::cpus::{OneCpu, Pinned};
///
/// // SAFETY: this kernel starts no other CPU.
/// static POOL: FramePool<Pinned<OneCpu, PreemptionOff>> =
///     FramePool::new(Pinned::new(unsafe { OneCpu::promised() }, PreemptionOff));
/// # assert!(POOL.tree().is_none());
/// ```
#[derive(Clone, Copy, Debug)]
pub struct OneCpu(());

impl OneCpu {
    /// The promise.
    ///
    /// # Safety
    /// Only one CPU ever uses what is given this identity: no other one was started, or the others
    /// keep away.
    ///
    /// # Examples
    /// ```
    /// use frametree::cpus::{Identity, OneCpu};
    ///
    /// // SAFETY: this kernel starts no other CPU.
    /// let only = unsafe { OneCpu::promised() };
    /// assert_eq!(only.current().get(), 0);
    /// ```
    #[must_use]
    pub const unsafe fn promised() -> Self {
        Self(())
    }
}

// SAFETY: there is one CPU, as was promised.
unsafe impl Identity for OneCpu {
    #[inline(always)]
    fn current(&self) -> CpuId {
        CpuId::new(0)
    }
}

/// Nothing has to be done: threads are switched only where they ask for it.
///
/// # Examples
/// A kernel with many CPUs, whose threads give theirs up by a call:
///
/// ```
/// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/cpus.rs")); }
/// # use example::*;
/// use frametree::FramePool;
/// use frametree::cpus::{NotPreempted, Pinned};
///
/// // SAFETY: only user mode is preempted; in kernel mode a thread calls the scheduler itself.
/// static POOL: FramePool<Pinned<ThisCpu, NotPreempted>> =
///     FramePool::new(Pinned::new(ThisCpu, unsafe { NotPreempted::promised() }));
/// # assert!(POOL.tree().is_none());
/// ```
#[derive(Clone, Copy, Debug)]
pub struct NotPreempted(());

impl NotPreempted {
    /// The promise.
    ///
    /// # Safety
    /// A thread in kernel mode is never moved to another CPU, and no other one runs on its CPU,
    /// while it uses what is given this guard: there are no threads, or they give up their CPU only
    /// by a call of their own, or only user mode is preempted. Handlers of interrupts may use it
    /// too.
    ///
    /// # Examples
    /// ```
    /// use frametree::cpus::{Guard, NotPreempted};
    ///
    /// // SAFETY: this kernel has no threads.
    /// let guard = unsafe { NotPreempted::promised() };
    /// assert_eq!(guard.hold(|| 7), 7); // nothing has to be done
    /// ```
    #[must_use]
    pub const unsafe fn promised() -> Self {
        Self(())
    }
}

// SAFETY: threads stay where they are, as was promised.
unsafe impl Guard for NotPreempted {
    #[inline(always)]
    fn hold<R>(&self, work: impl FnOnce() -> R) -> R {
        work()
    }
}
