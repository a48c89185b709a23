//! Bounds: a byte for each of many things that lie side by side, eight in a word (a *row*): how
//! long a run could begin there. [`ANY`] says that nothing is known.
//!
//! A bound errs only upward. What it may be lowered to, and who has to raise it, is the business
//! of [`crate::tree`]; here is how a byte of a word is changed that others change beside it.

use crate::geometry::ROW;
use crate::sync::{Ordering, Word};

/// The bound of something of which nothing is known.
pub const ANY: u64 = 0xff;
const BYTE: usize = 8;

/// The bounds of `ROWS` rows.
#[derive(Debug)]
#[repr(C)]
pub struct Bounds<const ROWS: usize> {
    rows: [Word; ROWS],
}

/// One of them: its row, and by how many bits it is shifted there.
#[derive(Clone, Copy, Debug)]
pub struct Bound<'m> {
    row: &'m Word,
    shift: usize,
}

impl<const ROWS: usize> Bounds<ROWS> {
    /// All the same in every bit: of nothing known, or of nothing there.
    pub fn new(bits: u64) -> Self {
        Self { rows: core::array::from_fn(|_| Word::new(bits)) }
    }

    /// One row; they are counted modulo those that there are.
    #[inline]
    pub fn row(&self, index: usize) -> &Word {
        &self.rows[index % ROWS]
    }

    /// All of them.
    pub fn rows(&self) -> impl Iterator<Item = &Word> {
        self.rows.iter()
    }

    /// The bound of number `index`.
    #[inline(always)]
    pub fn of(&self, index: usize) -> Bound<'_> {
        Bound { row: self.row(index / ROW), shift: index % ROW * BYTE }
    }
}

impl Bound<'_> {
    /// What it says.
    #[inline]
    pub fn get(self) -> u64 {
        // ORDERING: a hint; Acquire pairs with the Release in `exchange`, so that its step is seen
        // before "out of memory" is said.
        self.said_by(self.row.load(Ordering::Acquire))
    }

    /// Its row as it is.
    #[inline(always)]
    pub fn look(self) -> u64 {
        // ORDERING: who needs an order has made a fence, or will exchange what it has read.
        self.row.load(Ordering::Relaxed)
    }

    /// What a row says of it.
    #[inline]
    pub const fn said_by(self, row: u64) -> u64 {
        row >> self.shift & ANY
    }

    /// Whether nothing is known of it and the one below in the same row, as the row says.
    #[inline(always)]
    pub const fn is_wide_with_below(self, row: u64) -> bool {
        !row & (ANY << self.shift | ANY << self.shift >> BYTE) == 0
    }

    /// A row that says so much and, of this one, that there is nothing.
    pub const fn at_nothing(self, row: u64) -> u64 {
        row & !(ANY << self.shift)
    }

    /// Makes it say at least this.
    pub fn raise(self, least: u64) {
        loop {
            let row = self.look();
            if self.said_by(row) >= least || self.exchange(row, least) {
                return;
            }
        }
    }

    /// Makes it say this, if its row is still as it was.
    pub fn exchange(self, row: u64, bound: u64) -> bool {
        let changed = self.at_nothing(row) | bound << self.shift;
        // ORDERING: Release carries the step's begin to a search that reads this.
        self.row.compare_exchange(row, changed, Ordering::AcqRel).is_ok()
    }
}
