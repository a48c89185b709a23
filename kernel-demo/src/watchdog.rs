//! The chipset's watchdog: firmware may leave it running, and then it resets the machine in the
//! middle of the exercises. Nobody here would feed it, so it is halted before anything takes time.
//!
//! This knows the timer of Intel's chipsets (tco.rs says which), and no other watchdog: AMD's, a
//! management controller's or a card's goes on if somebody has armed it.

use x86_64::instructions::port::{Port, PortReadOnly, PortWriteOnly};

use crate::{println, tco};

/// Which register of which function [`CONFIGURATION_DATA`] shows, of all that PCI has.
const CONFIGURATION_ADDRESS: u16 = 0xcf8;
const CONFIGURATION_DATA: u16 = 0xcfc;
const IS_ENABLED: u32 = 1 << 31;
const DEVICE_31: u32 = 31 << 11;
/// Behind the timer's first port, which has what is left in the low bits.
const CONTROL: u16 = 8;
const LEFT: u16 = 0x3ff;
const IS_HALTED: u16 = 1 << 11;

/// Halts the timer if it is there, and says so if it ran.
///
/// # Safety
/// No other CPU runs: PCI's configuration is read through a pair of ports.
pub unsafe fn halt() {
    // SAFETY: By contract nobody comes between the two, and reading changes nothing.
    let read = |function, register| unsafe {
        let address = IS_ENABLED | DEVICE_31 | function << 8 | register;
        PortWriteOnly::<u32>::new(CONFIGURATION_ADDRESS).write(address);
        PortReadOnly::<u32>::new(CONFIGURATION_DATA).read()
    };
    let Some(first) = tco::first_port(read) else {
        return;
    };
    let mut control = Port::<u16>::new(first + CONTROL);
    // SAFETY: The chipset says that its timer is there, and reading it changes nothing.
    let (left, before) = unsafe { (PortReadOnly::<u16>::new(first).read() & LEFT, control.read()) };
    if before & IS_HALTED != 0 {
        return;
    }
    // SAFETY: Nobody waits for this timer.
    let after = unsafe {
        control.write(before | IS_HALTED);
        control.read()
    };
    // One that was never started has nothing left.
    if left > 0 {
        let outcome = if after & IS_HALTED == 0 { "cannot be halted" } else { "halted" };
        println!("watchdog: the chipset's timer was running, {left} ticks to go: {outcome}\n");
    }
}
