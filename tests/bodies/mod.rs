//! What the fuzz targets do with their bytes. The targets of cargo-fuzz give them what libFuzzer
//! finds; `tests/corpus.rs` gives them the committed corpora, on the stable compiler. A body says
//! how much it did, so that a corpus that has gone stale is noticed.
#![allow(dead_code, reason = "every fuzz target uses one body")]

pub mod map;
pub mod operations;
pub mod request;

use crate::support::asked::{Asked, LIMIT};
use crate::support::{BLOCK, GIANT};

/// Bytes as a list of decisions; zeros when they have run out.
pub struct Bytes<'d>(&'d [u8]);

impl<'d> Bytes<'d> {
    pub fn new(data: &'d [u8]) -> Self {
        Self(data)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn u8(&mut self) -> u8 {
        let [byte] = self.array();
        byte
    }

    pub fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    pub fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    pub fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        let (now, later) = self.0.split_at(self.0.len().min(N));
        self.0 = later;
        let mut array = [0; N];
        array[..now.len()].copy_from_slice(now);
        array
    }

    /// A number in few bytes: small, near something at which things end, or any.
    pub fn number(&mut self, ends: &[u64]) -> u64 {
        let kind = self.u8();
        let end = ends[usize::from(kind >> 2) % ends.len()];
        match kind & 3 {
            0 => u64::from(self.u8()),
            1 => u64::from(self.u16()),
            2 => end.wrapping_add_signed(i64::from(self.u8().cast_signed())),
            _ => self.u64(),
        }
    }

    /// Usable memory, in up to four pieces that do not touch; all below three MiB or so.
    pub fn regions(&mut self) -> Vec<(u64, u64)> {
        let mut end = 0;
        let count = self.u8() % 4 + 1;
        let places = (0..count).map(|_| {
            let (gap, length) = (u64::from(self.u8()) + 1, u64::from(self.u16()) % 700 + 1);
            end += gap + length;
            (end - length, length)
        });
        places.collect()
    }

    /// A request, on memory that ends at frame `end`; with any numbers.
    pub fn asked(&mut self, end: u64) -> Asked {
        let ends = [1, 64, BLOCK, end, GIANT, LIMIT >> 12, LIMIT, 0];
        let count = self.number(&ends);
        let is = self.u8();
        let mut asked = if is & 1 != 0 {
            Asked::at(self.number(&ends) % (LIMIT >> 12), count)
        } else {
            Asked::plain(count)
        };
        let mut shifted = || {
            let log = self.u8() % 65;
            if log == 64 { self.number(&ends) } else { 1 << log }
        };
        if is & 2 != 0 {
            asked.align = shifted();
        }
        if is & 4 != 0 {
            asked.boundary = shifted();
        }
        if is & 8 != 0 {
            asked.above = self.number(&ends).wrapping_mul(if is & 16 != 0 { 4096 } else { 1 });
        }
        if is & 32 != 0 {
            asked.below = self.number(&ends).wrapping_mul(if is & 64 != 0 { 4096 } else { 1 });
        }
        asked
    }
}
