//! Something else in the middle of an operation: after so many of its instructions the processor's
//! single-step flag brings a signal handler, which does it and returns. To the operation that is
//! an interrupt on its CPU, or another CPU that does all of its work at that instant; and it may
//! be interrupted in turn.
//!
//! Where there is no such flag (other machines, Miri) it comes right behind the operation.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr::null;

/// What is to come in the middle of the work that follows.
pub struct Interrupt<'w> {
    /// Instructions of the work until then.
    left: Cell<u32>,
    work: Cell<Option<&'w dyn Fn()>>,
    panic: Cell<Option<Box<dyn Any + Send>>>,
}

impl<'w> Interrupt<'w> {
    /// `work` after `at` instructions of what [`during`](Self::during) is given, in one piece or
    /// in several.
    pub fn new(at: u32, work: &'w dyn Fn()) -> Self {
        Self { left: Cell::new(at), work: Cell::new(Some(work)), panic: Cell::new(None) }
    }

    /// Does `work`, and the interrupt in the middle of it when it is time. The work must not be
    /// inside of the heap, or of anything else that the interrupt needs.
    pub fn during<R>(&self, work: impl FnOnce() -> R) -> R {
        if self.is_over() {
            return work();
        }
        let result = flag::stepped(self, work);
        if let Some(panic) = self.panic.take() {
            resume_unwind(panic);
        }
        result
    }

    /// Whether it has come.
    pub fn is_over(&self) -> bool {
        let work = self.work.take();
        self.work.set(work);
        work.is_none()
    }

    /// It will not come.
    pub fn cancel(&self) {
        self.work.set(None);
    }

    /// Lets it come now, if it has not.
    pub fn come(&self) {
        if let Some(work) = self.work.take() {
            work();
        }
    }

    /// One instruction is done; whether more are to be stepped.
    fn step(&self) -> bool {
        if std::thread::panicking() {
            return false;
        }
        let left = self.left.get();
        self.left.set(left.saturating_sub(1));
        if left > 0 {
            return true;
        }
        // A panic must not unwind through the handler's frame.
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.come())) {
            self.panic.set(Some(panic));
        }
        false
    }
}

std::thread_local! {
    /// The interrupt of the operation that is being stepped.
    static CURRENT: Cell<*const Interrupt<'static>> = const { Cell::new(null()) };
}

#[cfg(all(target_arch = "x86_64", target_os = "linux", not(miri)))]
mod flag {
    use super::*;
    use std::arch::asm;
    use std::ptr::null_mut;
    use std::sync::Once;

    const TRAP_FLAG: i64 = 0x100;

    pub fn stepped<R>(interrupt: &Interrupt<'_>, work: impl FnOnce() -> R) -> R {
        install();
        let outer = CURRENT.replace(std::ptr::from_ref(interrupt).cast());
        let _end = End(outer);
        // SAFETY: sets the trap flag: the kernel sends a signal after each instruction from here
        // on, and its handler is installed. The stack is as before.
        unsafe { asm!("pushfq", "or qword ptr [rsp], 0x100", "popfq") };
        work()
    }

    /// The end of what is stepped, also by a panic.
    struct End(*const Interrupt<'static>);

    impl Drop for End {
        fn drop(&mut self) {
            // SAFETY: clears the flag; the stack is as before.
            unsafe { asm!("pushfq", "and qword ptr [rsp], -0x101", "popfq") };
            CURRENT.set(self.0);
        }
    }

    extern "C" fn on_step(
        _: libc::c_int,
        _: *const libc::siginfo_t,
        interrupted: *mut libc::ucontext_t,
    ) {
        let current = CURRENT.get();
        // SAFETY: it outlives the work that is stepped, at the end of which it is replaced.
        if current.is_null() || unsafe { !(*current).step() } {
            // SAFETY: the kernel gave this context to the handler, which is its only user.
            unsafe { (*interrupted).uc_mcontext.gregs[libc::REG_EFL as usize] &= !TRAP_FLAG };
        }
    }

    fn install() {
        static INSTALLED: Once = Once::new();
        INSTALLED.call_once(|| {
            // SAFETY: an all-zero `sigaction` is a valid one, filled in here; the handler has the
            // signature that goes with these flags. It may come inside of itself.
            unsafe {
                let mut action: libc::sigaction = std::mem::zeroed();
                action.sa_sigaction = on_step as *const () as usize;
                action.sa_flags = libc::SA_SIGINFO | libc::SA_NODEFER;
                libc::sigemptyset(&raw mut action.sa_mask);
                assert_eq!(libc::sigaction(libc::SIGTRAP, &raw const action, null_mut()), 0);
            }
        });
    }
}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux", not(miri))))]
mod flag {
    use super::Interrupt;

    pub fn stepped<R>(interrupt: &Interrupt<'_>, work: impl FnOnce() -> R) -> R {
        let result = work();
        while interrupt.step() {}
        result
    }
}
