//! Growing: memory that joins a tree in use. Nobody stops, and several CPUs may grow it at once.
//!
//! 1. The range is claimed, by a record in the list of ranges that overlaps no other.
//! 2. What is missing on the way to its bits is made of new metadata and published, part by part,
//!    into empty links: parts that were there stay where they are. If another CPU is faster, its
//!    part is used.
//! 3. The frames are freed, as frames are freed always: announced, merged with what lies beside,
//!    in a step of the journal.
//!
//! A search that is under way finds the frames or not, as with any free. The model is Go's
//! `mheap.grow`, which does this under the heap's lock.

use core::fmt;

use super::FrameTree;
use crate::arena::{Arena, part};
use crate::directory::Directory;
use crate::frame::NumberRange;
use crate::journal::{Counter, Writer};
use crate::ranges::Record;
use crate::stock::{Size, Stock};
use crate::sync::Ordering;

/// Why memory could not be added; nothing has changed then.
///
/// # Examples
/// A module of memory was plugged in that the firmware had listed already:
///
/// ```
/// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs")); }
/// # use frametree::*;
/// let pool = example::pool(Setup::new(1));
/// let module = NumberRange::from_numbers(1024, 4096);
/// // SAFETY: not real, so nobody uses it; metadata has memory of its own.
/// match unsafe { pool.grow(module, example::mapped) } {
///     Err(GrowError::Overlap { managed }) => assert!(managed.overlap(module).is_some()),
///     other => panic!("{other:?}"),
/// }
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum GrowError {
    /// The pool is not initialised yet.
    NotInitialised,
    /// A range of no frames.
    Empty,
    /// Some of the frames are managed already.
    Overlap {
        /// A stretch of them.
        managed: NumberRange,
    },
    /// The memory given for the metadata is too small.
    StorageTooSmall {
        /// Bytes that are needed, with alignment to 128.
        needed: usize,
        /// Bytes that were given.
        given: usize,
    },
    /// The range is not longer than the metadata that it would need.
    TooSmall {
        /// Frames of metadata.
        needed: u64,
        /// Frames of the range.
        given: u64,
    },
    /// The kernel's mapping gave a pointer that is not aligned to 128.
    Misaligned {
        /// The address.
        address: usize,
    },
}

impl fmt::Display for GrowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotInitialised => f.write_str("the pool is not initialised; call `init` first"),
            Self::Empty => f.write_str("a range of 0 frames can't be added"),
            Self::Overlap { managed } => write!(f, "{managed:?} is managed already"),
            Self::StorageTooSmall { needed, given } => {
                write!(f, "the new metadata needs {needed} bytes, {given} were given")
            }
            Self::TooSmall { needed, given } => write!(
                f,
                "{given} frames are not worth adding: their metadata takes {needed} frames"
            ),
            Self::Misaligned { address } => {
                write!(f, "the metadata is mapped at {address:#x}, not at a multiple of 128")
            }
        }
    }
}

impl core::error::Error for GrowError {}

impl<'m> FrameTree<'m> {
    /// Adds memory, whose metadata `place` gives a place to: it is told the bytes that are needed,
    /// aligned to 128, and answers with them and those of the frames that are to be added. When
    /// these are claimed, and not free yet, `claimed` is called.
    pub(crate) fn grow(
        &self,
        range: NumberRange,
        place: impl FnOnce(usize) -> Result<(Arena<'m>, NumberRange), GrowError>,
        claimed: impl FnOnce(),
    ) -> Result<NumberRange, GrowError> {
        let Directory { ranges, .. } = &self.directory;
        if range.is_empty() {
            return Err(GrowError::Empty);
        }
        if let Some(managed) = ranges.overlap(range) {
            return Err(GrowError::Overlap { managed });
        }
        let spare = ranges.take_record();
        let size = self.directory.missing(range);
        let grown = place(bytes(spare, size)).and_then(|(mut arena, added)| {
            let record = spare.unwrap_or_else(|| arena.deal_part(1).put(Record::new()));
            let is_claimed = ranges.claim(added, record);
            is_claimed.map_err(|managed| GrowError::Overlap { managed })?;
            claimed();
            self.add(self.shared_writer(), &mut Stock::new(&mut arena, size), added);
            Ok(added)
        });
        if let (Err(_), Some(record)) = (grown, spare) {
            ranges.put_record(record);
        }
        grown
    }

    /// How many bytes of metadata it would take to add a range, as things are.
    pub(crate) fn bytes_to_grow(&self, range: NumberRange) -> usize {
        let spare = self.directory.ranges.take_record();
        if let Some(record) = spare {
            self.directory.ranges.put_record(record);
        }
        bytes(spare, self.directory.missing(range))
    }

    /// Puts frames of a range into the tree that was claimed for this.
    pub(super) fn add(&self, writer: Writer<'_>, stock: &mut Stock<'m>, range: NumberRange) {
        self.directory.cover(stock, range);
        self.open_up_isolated(range);
        // ORDERING: a statistic.
        self.managed.fetch_add(range.len(), Ordering::Relaxed);
        let step = writer.begin();
        // A frame that somebody has freed before it was here is there once, and counted twice.
        let (overlap, _) = self.put_run(&step, range);
        writer.add(Counter::Taken, overlap);
        drop(step);
        self.fill_ends(range);
    }

    /// The managed ranges, ascending, neighbours as one. Takes their number squared.
    ///
    /// # Examples
    /// Whether all of a range that a device asks for is memory of the pool:
    ///
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/tree.rs")); }
    /// # use frametree::*;
    /// let tree = example::tree();
    /// let window = NumberRange::from_numbers(0x400, 0x1000);
    /// let managed = tree.managed_ranges().filter_map(|range| range.overlap(window));
    /// assert_eq!(managed.map(NumberRange::len).sum::<u64>(), 0x400); // a part of it
    /// ```
    pub fn managed_ranges(&self) -> impl Iterator<Item = NumberRange> + '_ {
        self.directory.ranges.joined()
    }
}

/// Bytes of new metadata.
fn bytes(spare: Option<&Record<'_>>, missing: Size) -> usize {
    part::<Record<'_>>(usize::from(spare.is_none())) + missing.bytes()
}
