//! The local APIC of the CPU that runs: interrupts between CPUs and the timer.
//!
//! **Invariant:** a CPU's [`LocalApic`] is used by that CPU only, with interrupts off. Uses
//! x2APIC mode where the CPU has it, and xAPIC's registers in the direct map otherwise (as under
//! TCG of QEMU before 9.0).

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU32, Ordering};
use core::time::Duration;
use frametree::CpuId;
use raw_cpuid::CpuId as CpuFeatures;
use x2apic::lapic::{IpiAllShorthand, LocalApic, LocalApicBuilder};
use x2apic::lapic::{TimerDivide, TimerMode, xapic_base};
use x86_64::instructions::interrupts::without_interrupts;
use x86_64::instructions::port::PortWriteOnly;

use crate::clock::{self, Stopwatch};
use crate::cpu::{self, MAX_CPUS};
use crate::interrupts::{APIC_ERROR, SPURIOUS, TIMER};
use crate::paging::direct_map;

/// How long the timer is measured.
const SAMPLE: Duration = Duration::from_millis(5);
/// How often the delivery bit of an interrupt to another CPU is read before it is given up.
const DELIVERY_ATTEMPTS: usize = 1_000_000;

static APICS: [Apic; MAX_CPUS] = [const { Apic::absent() }; MAX_CPUS];
static TIMER_TICKS_PER_MICROSECOND: AtomicU32 = AtomicU32::new(0);

struct Apic {
    driver: UnsafeCell<Option<LocalApic>>,
    /// Where to send interrupts for this CPU: its number, where the command register wants it.
    destination: AtomicU32,
}

// SAFETY: The driver of entry `n` is used by CPU `n` only, see `with`.
unsafe impl Sync for Apic {}

impl Apic {
    const fn absent() -> Self {
        Self { driver: UnsafeCell::new(None), destination: AtomicU32::new(0) }
    }
}

/// Runs `f` on this CPU's APIC, with interrupts off.
fn with<R>(f: impl FnOnce(&mut LocalApic) -> R) -> R {
    without_interrupts(|| {
        let driver = APICS[cpu::current().get()].driver.get();
        // SAFETY: The entry is this CPU's, and no interrupt comes between: the only reference.
        let driver = unsafe { &mut *driver };
        f(driver.as_mut().expect("apic::init comes first"))
    })
}

/// What the drivers go by.
fn has_x2apic() -> bool {
    CpuFeatures::new().get_feature_info().is_some_and(|features| features.has_x2apic())
}

/// How this CPU's APIC is spoken to.
pub fn mode() -> &'static str {
    if has_x2apic() { "x2APIC" } else { "xAPIC" }
}

/// The highest number of a CPU that is up, as the firmware's tables have it.
pub fn highest() -> u32 {
    // ORDERING: Relaxed; see `init`.
    let numbers = APICS.iter().map(|apic| apic.destination.load(Ordering::Relaxed));
    numbers.max().unwrap_or(0) >> number_shift()
}

/// The shift that brings a CPU's number to where the registers have it.
fn number_shift() -> u32 {
    if has_x2apic() { 0 } else { 24 }
}

/// Switches this CPU's APIC on, its timer stopped.
///
/// # Safety
/// Called once on each CPU, with interrupts off.
pub unsafe fn init() {
    // SAFETY: Every x86-64 CPU has the register, and the APIC's page is below 4 GiB.
    let registers = direct_map(unsafe { xapic_base() });
    let mut driver = LocalApicBuilder::new()
        .timer_vector(TIMER.into())
        .error_vector(APIC_ERROR.into())
        .spurious_vector(SPURIOUS.into())
        .timer_mode(TimerMode::OneShot)
        .timer_divide(TimerDivide::Div1)
        .timer_initial(0)
        .set_xapic_base(registers.addr() as u64)
        .build()
        .expect("all fields are given");
    let apic = &APICS[cpu::current().get()];
    // SAFETY: The interrupt table has an entry for each vector, and the old interrupt
    // controllers are silent (see `silence_pics`).
    let number = unsafe {
        driver.enable();
        driver.id()
    };
    // ORDERING: Relaxed; others send here only after they have met this CPU (see smp.rs).
    apic.destination.store(number, Ordering::Relaxed);
    // SAFETY: By contract the only reference.
    unsafe { *apic.driver.get() = Some(driver) };
}

/// Masks all inputs of the two old interrupt controllers.
pub fn silence_pics() {
    for port in [0x21, 0xa1] {
        // SAFETY: The controllers' mask registers, at the same ports on every PC.
        unsafe { PortWriteOnly::<u8>::new(port).write(0xff) };
    }
}

/// This CPU's number, as the firmware's tables have it.
pub fn id() -> u32 {
    // SAFETY: Reading a register of an APIC that is on.
    with(|apic| unsafe { apic.id() }) >> number_shift()
}

/// Tells this CPU's APIC that the interrupt is dealt with.
pub extern "C" fn end_of_interrupt() {
    // SAFETY: Called at the end of a handler.
    with(|apic| unsafe { apic.end_of_interrupt() });
}

/// Resets the CPU with this number and starts it at `page`, below 1 MiB.
///
/// # Safety
/// The CPU is not running, and the page holds code for it.
pub unsafe fn start(number: u32, page: u64) {
    let destination = number << number_shift();
    let vector = u8::try_from(page / 4096).expect("a page below 1 MiB");
    // SAFETY: By contract.
    with(|apic| unsafe { apic.send_init_ipi(destination) });
    clock::pause(Duration::from_millis(10));
    for _ in 0..2 {
        // SAFETY: By contract. A second start-up interrupt is ignored by a CPU that runs.
        with(|apic| unsafe { apic.send_sipi(vector, destination) });
        clock::pause(Duration::from_micros(200));
    }
}

/// Interrupts another CPU.
pub fn interrupt(cpu: CpuId, vector: u8) {
    // ORDERING: Relaxed; see `init`.
    let destination = APICS[cpu.get()].destination.load(Ordering::Relaxed);
    with(|apic| {
        // SAFETY: The interrupt table has an entry for the vector.
        unsafe { apic.send_ipi(vector, destination) };
        delivered(apic);
    });
}

/// Sends a CPU, this one too, an interrupt that it can't hold off.
pub fn send_nmi(cpu: CpuId) {
    // ORDERING: Relaxed; see `init`.
    let destination = APICS[cpu.get()].destination.load(Ordering::Relaxed);
    with(|apic| {
        // SAFETY: The interrupt table has an entry for it, and its handler leaves the APIC alone.
        unsafe { apic.send_nmi(destination) };
        delivered(apic);
    });
}

/// Interrupts all other CPUs.
pub fn interrupt_others(vector: u8) {
    with(|apic| {
        // SAFETY: The interrupt table has an entry for the vector.
        unsafe { apic.send_ipi_all(vector, IpiAllShorthand::AllExcludingSelf) };
        delivered(apic);
    });
}

/// Waits until xAPIC's command register is free again.
fn delivered(apic: &LocalApic) {
    // SAFETY: Reading a register of an APIC that is on.
    let _ = (0..DELIVERY_ATTEMPTS).find(|_| unsafe { !apic.get_ipi_delivery_status() });
}

/// Measures the timer against the clock.
pub fn calibrate_timer() {
    set_timer(u32::MAX);
    let watch = Stopwatch::start();
    clock::pause(SAMPLE);
    // SAFETY: Reading a register of an APIC that is on.
    let ticks = u32::MAX - with(|apic| unsafe { apic.timer_current() });
    let elapsed = watch.elapsed().as_micros() as u32;
    set_timer(0);
    // ORDERING: Relaxed; a number that stands for itself.
    TIMER_TICKS_PER_MICROSECOND.store((ticks / elapsed.max(1)).max(1), Ordering::Relaxed);
}

/// Has this CPU's timer fire once, after that many microseconds; 0 stops it.
pub fn set_timer_after(microseconds: u32) {
    // ORDERING: Relaxed; a number that stands for itself.
    set_timer(microseconds.saturating_mul(TIMER_TICKS_PER_MICROSECOND.load(Ordering::Relaxed)));
}

fn set_timer(ticks: u32) {
    // SAFETY: The interrupt table has an entry for the timer.
    with(|apic| unsafe { apic.set_timer_initial(ticks) });
}
