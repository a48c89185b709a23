//! Amounts of memory as people read them.

use core::fmt;

/// An amount of memory in bytes: in the largest unit of which there are ten.
#[derive(Clone, Copy)]
pub struct Bytes(pub u64);

impl Bytes {
    /// The number and the unit.
    pub fn parts(self) -> (u64, &'static str) {
        let units = [(30, "GiB"), (20, "MiB"), (10, "KiB"), (0, "B")];
        let (shift, unit) =
            units.into_iter().find(|&(shift, _)| self.0 >= 10 << shift).unwrap_or((0, "B"));
        (self.0 >> shift, unit)
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (number, unit) = self.parts();
        write!(f, "{number} {unit}")
    }
}

/// An amount of memory in frames of 4 KiB.
pub fn frames(frames: u64) -> Bytes {
    Bytes(frames * frametree::FRAME_SIZE)
}
