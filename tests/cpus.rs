//! The ready-made identities where Linux lets user space see what they read: each thread stays on a
//! CPU, and all of them use one pool. Interrupts can't be switched off here; the small kernels of
//! `kernel-demo/examples` do that.
#![cfg(all(not(loom), feature = "x86_64", target_arch = "x86_64", target_os = "linux"))]

mod support;

use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};

use frametree::cpus::{
    ApicId, GsSlot, Guard, Identity, NotPreempted, OneCpu, Pinned, PreemptionOff, Rdpid, Rdtscp,
};
use frametree::{CpuId, Cpus, FramePool};
use support::BLOCK;

/// What Linux keeps in `IA32_TSC_AUX`: the CPU below bit 12, the NUMA node above.
const LINUX_CPU: usize = 0xfff;

/// Runs `work` once on each CPU that this process may use, on threads that run at once.
fn on_each_cpu(work: impl Fn(usize) + Sync) {
    let cores = core_affinity::get_core_ids().expect("the CPUs");
    let (work, all_there) = (&work, &Barrier::new(cores.len()));
    std::thread::scope(|scope| {
        for core in cores {
            scope.spawn(move || {
                assert!(core_affinity::set_for_current(core), "CPU {}", core.id);
                all_there.wait();
                work(core.id);
            });
        }
    });
}

/// No two CPUs have a number in common, and each keeps its own.
fn tells_cpus_apart(identity: &(impl Identity + Sync)) {
    let taken: Vec<_> = (0..4096).map(|_| AtomicUsize::new(usize::MAX)).collect();
    on_each_cpu(|core| {
        let number = identity.current();
        assert_eq!(taken[number.get()].swap(core, Ordering::Relaxed), usize::MAX, "{number:?}");
        for _ in 0..1000 {
            assert_eq!(identity.current(), number);
        }
    });
}

/// Every CPU takes frames through its own cache and gives them back; nothing is lost or doubled.
fn serves_a_pool<I: Identity + Sync + 'static>(identity: I) {
    // SAFETY: each thread of `on_each_cpu` has its CPU for itself.
    let cpus = Pinned::new(identity, unsafe { NotPreempted::promised() });
    let pool: &FramePool<_> = support::pool(cpus, 64, &[(0, 64 * BLOCK)]);
    on_each_cpu(|_| {
        for _ in 0..100 {
            let frames: [_; 100] = std::array::from_fn(|_| pool.alloc().expect("a frame"));
            for frame in frames {
                pool.free(frame).expect("a frame that was taken");
            }
        }
        pool.drain().expect("a drain");
    });
    pool.verify().unwrap_or_else(|broken| panic!("{broken}"));
    assert_eq!(pool.stats().free_blocks, 64);
}

fn has_leaf_bit(leaf: u32, register: impl Fn(std::arch::x86_64::CpuidResult) -> u32) -> bool {
    register(std::arch::x86_64::__cpuid_count(leaf, 0)) != 0
}

#[test]
fn apic_ids() {
    tells_cpus_apart(&ApicId);
    serves_a_pool(ApicId);
}

#[test]
fn what_linux_keeps_in_tsc_aux() {
    if has_leaf_bit(7, |leaf| leaf.ecx & 1 << 22) {
        // SAFETY: the CPUs have the instruction, and Linux has given each its number.
        let rdpid = unsafe { Rdpid::promised() };
        tells_cpus_apart(&rdpid);
        on_each_cpu(|core| assert_eq!(rdpid.current().get() & LINUX_CPU, core));
        serves_a_pool(rdpid);
    }
    if has_leaf_bit(0x8000_0001, |leaf| leaf.edx & 1 << 27) {
        // SAFETY: as above.
        let rdtscp = unsafe { Rdtscp::promised() };
        tells_cpus_apart(&rdtscp);
        on_each_cpu(|core| assert_eq!(rdtscp.current().get() & LINUX_CPU, core));
        serves_a_pool(rdtscp);
    }
}

/// Points `gs` of this thread at memory.
fn set_gs(memory: *const usize) {
    const ARCH_SET_GS: i32 = 0x1001;
    // SAFETY: Linux' x86-64 threads use `fs`, not `gs`.
    let set = unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_SET_GS, memory) };
    assert_eq!(set, 0);
}

#[test]
fn a_count_behind_gs() {
    // SAFETY: each thread points `gs` at memory of its own first, and uses it for nothing else.
    let (slot, guard) = unsafe { (GsSlot::<0>::promised(), PreemptionOff::<8>::promised()) };
    let count = |words: *const usize| {
        // SAFETY: the second of two words, which nobody else writes.
        unsafe { words.add(1).read_volatile() }
    };
    on_each_cpu(|core| {
        let mut memory = [core, 0];
        let words: *const usize = (&raw mut memory).cast();
        set_gs(words);
        let cpus = Pinned::new(slot, guard);
        cpus.with_current(|cpu| {
            assert_eq!((cpu, count(words)), (CpuId::new(core), 1));
            // As in a handler.
            cpus.with_current(|cpu| assert_eq!((cpu, count(words)), (CpuId::new(core), 2)));
            assert_eq!(count(words), 1);
        });
        assert_eq!(count(words), 0);
    });
}

#[test]
fn a_slot_behind_gs() {
    // SAFETY: each thread points `gs` at memory of its own first, and uses it for nothing else.
    let slot = unsafe { GsSlot::<8>::promised() };
    on_each_cpu(|core| {
        let memory = [!0_usize, core + 40];
        set_gs(memory.as_ptr());
        for _ in 0..1000 {
            assert_eq!(slot.current(), CpuId::new(core + 40));
        }
        // The compiler must not have thought that nobody reads it.
        std::hint::black_box(&memory);
    });
}

#[test]
fn a_guard_is_held_around_the_work_and_the_hook_is_called() {
    static DEPTH: AtomicUsize = AtomicUsize::new(0);
    static ASKED: AtomicUsize = AtomicUsize::new(usize::MAX);
    struct Counted;
    // SAFETY: one thread.
    unsafe impl Guard for Counted {
        fn hold<R>(&self, work: impl FnOnce() -> R) -> R {
            DEPTH.fetch_add(1, Ordering::Relaxed);
            let result = work();
            DEPTH.fetch_sub(1, Ordering::Relaxed);
            result
        }
    }
    // SAFETY: one thread.
    let one = unsafe { OneCpu::promised() };
    Pinned::new(one, Counted).request_drain(CpuId::new(3));
    let cpus = Pinned::with_drain(one, Counted, |cpu| ASKED.store(cpu.get(), Ordering::Relaxed));
    let (cpu, depth) = cpus.with_current(|cpu| (cpu.get(), DEPTH.load(Ordering::Relaxed)));
    assert_eq!((cpu, depth, DEPTH.load(Ordering::Relaxed)), (0, 1, 0));
    assert_eq!(ASKED.load(Ordering::Relaxed), usize::MAX, "nobody was to be asked");
    cpus.request_drain(CpuId::new(3));
    assert_eq!(ASKED.load(Ordering::Relaxed), 3);
}
