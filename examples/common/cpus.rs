// What kernels have of their own, for the examples in the documentation of `src/cpus/`.

use frametree::CpuId;
use frametree::cpus::{Guard, Identity};

/// Which CPU it is.
pub struct ThisCpu;

// SAFETY: an example is one thread.
unsafe impl Identity for ThisCpu {
    fn current(&self) -> CpuId {
        CpuId::new(0)
    }
}

/// What keeps a thread there.
pub struct PreemptionOff;

// SAFETY: an example is one thread.
unsafe impl Guard for PreemptionOff {
    fn hold<R>(&self, work: impl FnOnce() -> R) -> R {
        work()
    }
}

/// Asks another CPU.
pub fn send_ipi(_cpu: usize, _interrupt: u8) {}
