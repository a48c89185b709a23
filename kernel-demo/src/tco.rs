//! Where Intel's chipsets have their watchdog, the TCO timer: the first of its 32 I/O ports.
//!
//! PCI's device 31 says so: since 2015 (the 100 series) in the SMBus controller, before that (from
//! ICH6 on) in the bridge to the LPC bus, which places it behind the ports of power management.
//!
//! Pure: the ports themselves are the caller's (watchdog.rs), so that the host's tests can run this.

const INTEL: u32 = 0x8086;
/// Bit 0 of a place: it is one of ports.
const IS_PORTS: u32 = 1;
/// The bits of a place that are the number of its first port.
const PORT: u32 = 0xffe0;

/// A function of device 31 that may know the place.
struct Guide {
    function: u32,
    /// What it is: its class and its subclass.
    class: u32,
    /// The register with the place, and how far behind that the timer is.
    place: u32,
    distance: u16,
    /// The register and the bit that say whether anything is there.
    control: u32,
    is_on: u32,
}

/// The later chipsets come first: in their bridges the registers mean something else.
const GUIDES: [Guide; 2] = [
    Guide { function: 4, class: 0x0c05, place: 0x50, distance: 0, control: 0x54, is_on: 1 << 8 },
    Guide { function: 0, class: 0x0601, place: 0x40, distance: 0x60, control: 0x44, is_on: 1 << 7 },
];

/// The timer's first port. `read` is given a function of device 31 and a register, and returns what
/// PCI's configuration has there; all ones is nothing.
pub fn first_port(mut read: impl FnMut(u32, u32) -> u32) -> Option<u16> {
    let guide = GUIDES.iter().find(|guide| {
        let (names, kind) = (read(guide.function, 0), read(guide.function, 8));
        names & 0xffff == INTEL && kind >> 16 == guide.class
    })?;
    let (place, control) = (read(guide.function, guide.place), read(guide.function, guide.control));
    let is_there = place & IS_PORTS != 0 && control & guide.is_on != 0;
    is_there.then_some((place & PORT) as u16 + guide.distance)
}
