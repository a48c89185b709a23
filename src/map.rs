//! The memory map: from what a bootloader says to disjoint ranges of whole frames.
//!
//! A bootloader's entries come in any order, overlap, start and end inside frames, and lie about
//! their length. [`MemoryMap::normalise`] settles all of that once, byte by byte:
//!
//! - A byte has the most restrictive kind of the entries that list it; a byte that no entry
//!   lists is reserved.
//! - A frame has the most restrictive kind of its bytes. So a frame is usable if all its bytes
//!   are, and one that an entry covers only in part is dropped.
//!
//! What the kernel itself occupies is not part of the rule. It is taken out afterwards, by
//! [`MemoryMap::reserve`] and [`MemoryMap::carve`].
//!
//! # How
//! There is no heap yet, so all of it happens in a buffer of the caller's, in cells of eight
//! bytes, two for an entry:
//!
//! ```text
//! entries   usable 0x1000..0x5000, reserved 0x2800..0x3000
//! edges     0x1000 +usable   0x2800 +reserved   0x3000 -reserved   0x5000 -usable
//! steps     frame 1: usable  frame 2: reserved  frame 3: usable    frame 5: reserved
//! ```
//!
//! Each entry becomes two *edges* (a byte address, and a kind that begins or ends there). They
//! are sorted in place, and one sweep over them counts how many entries of each kind lie over
//! the current byte. Where the kind of whole frames changes, the sweep writes a *step* (a frame
//! number, and the kind from there up to the next step) over edges that it has read already.
//! See `Sweep::step` for why it never overtakes itself.
//!
//! A finished map is the list of steps: ascending, each of another kind than the one before,
//! the last one reserved; what lies below the first step is reserved too. Disjoint, merged and
//! sorted is thus the only thing that it can say. `reserve` and `carve` replace a stretch of
//! this list by at most two steps.
//!
//! This file does not know what a frame is used for, nor any bootloader's format.

use core::fmt;

use bit_field::BitField;

use crate::frame::NumberRange;
use crate::geometry::{FRAME_LIMIT, FRAME_SIZE, PHYSICAL_LIMIT};

/// What a stretch of memory is good for, from the least to the most restrictive.
///
/// # Examples
/// A loader's own numbers, in a kernel that has no adapter for it ([`boot`](crate::boot)):
///
/// ```
/// # use frametree::RegionKind;
/// fn kind(code: u32) -> RegionKind {
///     match code {
///         1 => RegionKind::Usable,
///         3 => RegionKind::Reclaimable, // ACPI's tables: once they are read
///         5 => RegionKind::Bad,
///         _ => RegionKind::Reserved, // also what nobody has heard of
///     }
/// }
/// assert!(kind(1) < kind(3)); // where they overlap the more restrictive one holds
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum RegionKind {
    /// Free for the kernel from the start.
    Usable,
    /// Usable once the kernel has read what the firmware or the bootloader left in it.
    Reclaimable,
    /// Broken memory.
    Bad,
    /// Anything else: devices, firmware, holes, and every kind that no standard lists.
    Reserved,
}

impl RegionKind {
    const COUNT: usize = 4;

    const fn from_index(index: u64) -> Self {
        match index {
            0 => Self::Usable,
            1 => Self::Reclaimable,
            2 => Self::Bad,
            _ => Self::Reserved,
        }
    }
}

/// One entry of a bootloader's map, in bytes. There is nothing that it must not say: any start,
/// any length (also 0, and also one that runs past 2^64), any overlap with others.
///
/// # Examples
/// What a loader with entries of its own has said:
///
/// ```
/// use frametree::{MemoryRegion, RegionKind};
///
/// struct Theirs {
///     base: u64,
///     end: u64,
///     is_free: bool,
/// }
///
/// fn region(entry: &Theirs) -> MemoryRegion {
///     let kind = if entry.is_free { RegionKind::Usable } else { RegionKind::Reserved };
///     MemoryRegion { start: entry.base, length: entry.end - entry.base, kind }
/// }
/// # assert_eq!(region(&Theirs { base: 1, end: 3, is_free: true }).length, 2);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct MemoryRegion {
    /// The physical address of the first byte.
    pub start: u64,
    /// How many bytes.
    pub length: u64,
    /// What they are good for.
    pub kind: RegionKind,
}

/// A cell of the buffer that a [`MemoryMap`] lives in: eight bytes, an edge or a step.
///
/// # Examples
/// Room for a map of up to 512 entries, in a kernel whose first stack has less than 8 KiB:
///
/// ```
/// # use std::sync::Mutex;
/// use frametree::{MapEntry, MemoryMap};
///
/// static CELLS: Mutex<[MapEntry; 1024]> = Mutex::new([MapEntry::EMPTY; 1024]);
///
/// let mut cells = CELLS.lock().unwrap();
/// # let entries = [];
/// let map = MemoryMap::normalise(entries, &mut *cells).expect("at most 512 entries");
/// # assert_eq!(map.usable_frames(), 0);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(transparent)]
pub struct MapEntry(u64);

/// Whether an entry begins or ends at an edge.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Edge {
    Begin,
    End,
}

impl MapEntry {
    /// A cell with nothing in it, to make buffers of.
    ///
    /// # Examples
    /// ```
    /// # use frametree::{MapEntry, MemoryMap};
    /// let mut cells = [MapEntry::EMPTY; MemoryMap::entries_needed(128)]; // 2 KiB of stack
    /// # assert_eq!(size_of_val(&cells), 2048);
    /// # assert!(MemoryMap::normalise([], &mut cells).is_ok());
    /// ```
    pub const EMPTY: Self = Self(0);

    /// An edge: the address on top, so that cells sort by it.
    fn from_edge(address: u64, edge: Edge, kind: RegionKind) -> Self {
        let mut bits = 0;
        bits.set_bits(0..2, kind as u64);
        bits.set_bit(2, edge == Edge::End);
        bits.set_bits(3..64, address);
        Self(bits)
    }

    /// A step: from `frame` on the frames are of this kind.
    fn from_step(frame: u64, kind: RegionKind) -> Self {
        let mut bits = 0;
        bits.set_bits(0..2, kind as u64);
        bits.set_bits(2..64, frame);
        Self(bits)
    }

    /// The kind, of an edge and of a step.
    fn kind(self) -> RegionKind {
        RegionKind::from_index(self.0.get_bits(0..2))
    }

    fn edge(self) -> Edge {
        if self.0.get_bit(2) { Edge::End } else { Edge::Begin }
    }

    fn edge_address(self) -> u64 {
        self.0.get_bits(3..64)
    }

    fn step_frame(self) -> u64 {
        self.0.get_bits(2..64)
    }
}

impl fmt::Debug for MapEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MapEntry({:#x})", self.0)
    }
}

/// Why a map could not be made or changed.
///
/// # Examples
/// ```
/// # use frametree::{MapEntry, MapError, MemoryMap, MemoryRegion, RegionKind};
/// let entry = MemoryRegion { start: 0, length: 1 << 20, kind: RegionKind::Usable };
/// let error = MemoryMap::normalise([entry; 3], &mut [MapEntry::EMPTY; 4]).unwrap_err();
/// assert_eq!(error, MapError::BufferTooSmall { needed: 6, capacity: 4 }); // so it can be mended
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum MapError {
    /// The buffer has fewer cells than the map needs.
    BufferTooSmall {
        /// The cells needed.
        needed: usize,
        /// The cells that the buffer has.
        capacity: usize,
    },
    /// No usable run is long enough.
    NoRoom {
        /// The frames asked for, in one run.
        wanted: u64,
        /// The longest usable run below the limit, in frames.
        largest: u64,
        /// The limit asked for, as a byte address.
        below: u64,
    },
    /// A run of no frames was asked for.
    ZeroFrames,
}

impl fmt::Display for MapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::BufferTooSmall { needed, capacity } => write!(
                f,
                "the memory map needs a buffer of {needed} cells and has one of {capacity}: \
                 give it at least {needed}"
            ),
            Self::NoRoom { wanted, largest, below } => write!(
                f,
                "no usable run of {wanted} frames ends at or below address {below:#x}, the \
                 longest has {largest}: ask for fewer frames or allow a higher address"
            ),
            Self::ZeroFrames => f.write_str("a run of 0 frames was asked for: ask for at least 1"),
        }
    }
}

impl core::error::Error for MapError {}

/// The memory of a machine as disjoint ranges of whole frames, in a buffer of the caller's.
///
/// It exists only in this form. Ranges ascend, and two ranges of one kind never touch.
///
/// ```
/// use frametree::{MapEntry, MemoryMap, MemoryRegion, RegionKind};
///
/// let entries = [
///     MemoryRegion { start: 0x10_0000, length: 0x70_0000, kind: RegionKind::Usable },
///     MemoryRegion { start: 0x40_0800, length: 0x10, kind: RegionKind::Reserved },
/// ];
/// let mut buffer = [MapEntry::EMPTY; MemoryMap::entries_needed(2 + 1)];
/// let mut map = MemoryMap::normalise(entries, &mut buffer)?;
/// map.reserve(0x10_0000, 0x1234)?; // what the kernel knows to be in use: one more entry
/// let ranges: Vec<_> = map.usable().map(|run| (run.start().get(), run.len())).collect();
/// assert_eq!(ranges, [(0x102, 0x2fe), (0x401, 0x3ff)]);
/// # Ok::<(), frametree::MapError>(())
/// ```
pub struct MemoryMap<'b> {
    cells: &'b mut [MapEntry],
    /// How many of the cells hold steps, from the first on.
    used: usize,
}

impl<'b> MemoryMap<'b> {
    /// Makes a map of a bootloader's entries, in `buffer`. The most restrictive kind wins, frames
    /// covered in part are dropped, and what is not listed is reserved. Memory at 2^52 and above
    /// is left out; an entry that runs past it, or past 2^64, is cut there. An entry of 0 bytes
    /// says nothing. O(n log n) for n entries.
    ///
    /// # Errors
    /// [`MapError::BufferTooSmall`] with the cells needed, which is at most
    /// [`entries_needed`](Self::entries_needed) for the number of entries.
    ///
    /// # Examples
    /// Entries may come in any order and overlap:
    ///
    /// ```
    /// # use frametree::{MapEntry, MemoryMap, MemoryRegion, NumberRange, RegionKind};
    /// let region = |start, length, kind| MemoryRegion { start, length, kind };
    /// let entries = [
    ///     region(0x10_0000, 0x70_0000, RegionKind::Usable),
    ///     region(0, 0x9_fc00, RegionKind::Usable), // it ends inside a frame
    ///     region(0xf0_0000, 0x10_0000, RegionKind::Reserved),
    /// ];
    /// let mut cells = [MapEntry::EMPTY; MemoryMap::entries_needed(3)];
    /// let map = MemoryMap::normalise(entries, &mut cells)?;
    /// let usable = [NumberRange::from_numbers(0, 0x9f), NumberRange::from_numbers(0x100, 0x800)];
    /// assert!(map.usable().eq(usable));
    /// # Ok::<(), frametree::MapError>(())
    /// ```
    pub fn normalise(
        entries: impl IntoIterator<Item = MemoryRegion>,
        buffer: &'b mut [MapEntry],
    ) -> Result<Self, MapError> {
        let capacity = buffer.len();
        let mut needed = 0;
        for MemoryRegion { start, length, kind } in entries {
            let end = start.saturating_add(length).min(PHYSICAL_LIMIT);
            if start >= end {
                continue;
            }
            if let Some([begin_cell, end_cell]) = buffer.get_mut(needed..needed + 2) {
                *begin_cell = MapEntry::from_edge(start, Edge::Begin, kind);
                *end_cell = MapEntry::from_edge(end, Edge::End, kind);
            }
            needed += 2;
        }
        let edges =
            buffer.get_mut(..needed).ok_or(MapError::BufferTooSmall { needed, capacity })?;
        edges.sort_unstable();
        let used = Sweep::run(edges);
        Ok(Self { cells: buffer, used })
    }

    /// How many cells are enough for a map of that many entries. Count each later
    /// [`reserve`](Self::reserve) and [`carve`](Self::carve) as one entry more.
    ///
    /// # Examples
    /// For what a loader lists, and for the kernel's image and the first MiB, which it reserves
    /// later:
    ///
    /// ```
    /// # use frametree::{MapEntry, MemoryMap};
    /// const LOADER: usize = 128;
    /// let mut cells = [MapEntry::EMPTY; MemoryMap::entries_needed(LOADER + 2)];
    /// # assert!(MemoryMap::normalise([], &mut cells).is_ok());
    /// ```
    #[must_use]
    pub const fn entries_needed(regions: usize) -> usize {
        regions.saturating_mul(2)
    }

    /// The usable and the reclaimable ranges, ascending.
    ///
    /// # Examples
    /// What a kernel prints when it starts:
    ///
    /// ```
    /// # use frametree::{MapEntry, MemoryMap, MemoryRegion, RegionKind};
    /// # let region = |start, length, kind| MemoryRegion { start, length, kind };
    /// # let acpi = region(0x70_0000, 0x10_0000, RegionKind::Reclaimable);
    /// # let entries = [region(0, 0x80_0000, RegionKind::Usable), acpi];
    /// # let mut cells = [MapEntry::EMPTY; 4];
    /// # let map = MemoryMap::normalise(entries, &mut cells)?;
    /// for (frames, kind) in map.regions() {
    ///     println!("{:#x}: {} frames, {kind:?}", frames.start().start_address(), frames.len());
    /// }
    /// assert_eq!(map.regions().count(), 2); // usable, then reclaimable
    /// # Ok::<(), frametree::MapError>(())
    /// ```
    pub fn regions(
        &self,
    ) -> impl DoubleEndedIterator<Item = (NumberRange, RegionKind)> + Clone + '_ {
        self.steps().windows(2).filter(|pair| pair[0].kind() <= RegionKind::Reclaimable).map(
            |pair| {
                let range = NumberRange::from_numbers(pair[0].step_frame(), pair[1].step_frame());
                (range, pair[0].kind())
            },
        )
    }

    /// The usable ranges, ascending.
    ///
    /// # Examples
    /// The largest piece, for something that is needed before there is a pool:
    ///
    /// ```
    /// # use frametree::{MapEntry, MemoryMap, MemoryRegion, NumberRange, RegionKind};
    /// # let region = |start, length| MemoryRegion { start, length, kind: RegionKind::Usable };
    /// # let mut cells = [MapEntry::EMPTY; 4];
    /// # let entries = [region(0, 0x9_f000), region(0x10_0000, 0x70_0000)];
    /// # let map = MemoryMap::normalise(entries, &mut cells)?;
    /// let largest = map.usable().max_by_key(|run| run.len());
    /// assert_eq!(largest, Some(NumberRange::from_numbers(0x100, 0x800)));
    /// # Ok::<(), frametree::MapError>(())
    /// ```
    pub fn usable(&self) -> impl DoubleEndedIterator<Item = NumberRange> + Clone + '_ {
        self.regions().filter(|(_, kind)| *kind == RegionKind::Usable).map(|(range, _)| range)
    }

    /// The reclaimable ranges, ascending.
    ///
    /// # Examples
    /// The firmware's tables have been read, and their memory joins the pool:
    ///
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs")); }
    /// # use frametree::*;
    /// # let kind = RegionKind::Reclaimable;
    /// # let late = MemoryRegion { start: 8 << 20, length: 1 << 20, kind };
    /// # let mut cells = [MapEntry::EMPTY; MemoryMap::entries_needed(1)];
    /// # let map = MemoryMap::normalise([late], &mut cells)?;
    /// let pool = example::pool(Setup::new(1));
    /// for range in map.reclaimable() {
    ///     // SAFETY: nobody needs any more what lies there; metadata has memory of its own.
    ///     unsafe { pool.grow(range, example::mapped) }?;
    /// }
    /// assert_eq!(pool.stats().managed_frames, 2048 + 256);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn reclaimable(&self) -> impl DoubleEndedIterator<Item = NumberRange> + Clone + '_ {
        self.regions().filter(|(_, kind)| *kind == RegionKind::Reclaimable).map(|(range, _)| range)
    }

    /// How many frames are usable. Takes a step for each range.
    ///
    /// # Examples
    /// ```
    /// # use frametree::{MapEntry, MemoryMap, MemoryRegion, RegionKind};
    /// let memory = [MemoryRegion { start: 0, length: 64 << 20, kind: RegionKind::Usable }];
    /// let mut cells = [MapEntry::EMPTY; MemoryMap::entries_needed(2)];
    /// let mut map = MemoryMap::normalise(memory, &mut cells)?;
    /// map.reserve(0, 1 << 20)?;
    /// assert_eq!(map.usable_frames() * 4 >> 10, 63); // MiB
    /// # Ok::<(), frametree::MapError>(())
    /// ```
    #[must_use]
    pub fn usable_frames(&self) -> u64 {
        self.usable().map(NumberRange::len).sum()
    }

    /// Takes `length` bytes from byte address `start` on out of the map, with every frame that
    /// they touch, usable or reclaimable. What is not in the map anyway is no error; 0 bytes
    /// touch nothing. Returns how many usable frames went. O(ranges).
    ///
    /// # Errors
    /// [`MapError::BufferTooSmall`] if this splits a range and there are no cells for the new
    /// piece. Nothing has changed then.
    ///
    /// # Examples
    /// ```
    /// # use frametree::{MapEntry, MemoryMap, MemoryRegion, RegionKind};
    /// let regions = [MemoryRegion { start: 0, length: 8 << 20, kind: RegionKind::Usable }];
    /// let mut cells = [MapEntry::EMPTY; MemoryMap::entries_needed(2)]; // one more to reserve
    /// let mut map = MemoryMap::normalise(regions, &mut cells)?;
    /// let (image, bytes) = (2 << 20, 5000); // the frames that these bytes touch
    /// assert_eq!(map.reserve(image, bytes)?, 2);
    /// assert_eq!((map.usable_frames(), map.usable().count()), (2046, 2));
    /// # Ok::<(), frametree::MapError>(())
    /// ```
    pub fn reserve(&mut self, start: u64, length: u64) -> Result<u64, MapError> {
        let end = start.saturating_add(length).min(PHYSICAL_LIMIT);
        if start >= end {
            return Ok(0);
        }
        let before = self.usable_frames();
        self.take(NumberRange::from_numbers(start / FRAME_SIZE, end.div_ceil(FRAME_SIZE)))?;
        Ok(before - self.usable_frames())
    }

    /// Takes the highest usable run of that many frames that ends at or below byte address
    /// `below` out of the map, and returns it. O(ranges).
    ///
    /// # Errors
    /// [`MapError::NoRoom`] if there is none, [`MapError::ZeroFrames`] if `frames` is 0, and
    /// [`MapError::BufferTooSmall`] as [`reserve`](Self::reserve). Nothing has changed then.
    ///
    /// # Examples
    /// Frames that a kernel needs before the pool: as high as possible, but where its first page
    /// tables reach.
    ///
    /// ```
    /// # use frametree::{MapEntry, MemoryMap, MemoryRegion, NumberRange, RegionKind};
    /// let memory = [MemoryRegion { start: 0, length: 8 << 30, kind: RegionKind::Usable }];
    /// let mut cells = [MapEntry::EMPTY; MemoryMap::entries_needed(2)]; // one more to carve
    /// let mut map = MemoryMap::normalise(memory, &mut cells)?;
    /// let stacks = map.carve(64, 1 << 30)?;
    /// assert_eq!(stacks, NumberRange::from_numbers(0x4_0000 - 64, 0x4_0000));
    /// assert!(map.usable().all(|run| run.overlap(stacks).is_none()));
    /// # Ok::<(), frametree::MapError>(())
    /// ```
    pub fn carve(&mut self, frames: u64, below: u64) -> Result<NumberRange, MapError> {
        if frames == 0 {
            return Err(MapError::ZeroFrames);
        }
        let limit = (below / FRAME_SIZE).min(FRAME_LIMIT);
        let under_limit = |run: NumberRange| {
            let end = run.end().get().min(limit);
            NumberRange::from_numbers(run.start().get().min(end), end)
        };
        let room = self.usable().map(under_limit).rfind(|run| run.len() >= frames);
        let Some(run) = room else {
            let largest = self.usable().map(under_limit).map(NumberRange::len).max();
            return Err(MapError::NoRoom { wanted: frames, largest: largest.unwrap_or(0), below });
        };
        let end = run.end().get();
        let taken = NumberRange::from_numbers(end - frames, end);
        self.take(taken)?;
        Ok(taken)
    }

    fn steps(&self) -> &[MapEntry] {
        &self.cells[..self.used]
    }

    /// Makes a range, which is not empty, reserved: the steps in it and at its two ends give way
    /// to one down to reserved, where something else stood below, and one back to what stands
    /// above.
    fn take(&mut self, range: NumberRange) -> Result<(), MapError> {
        let (start, end) = (range.start().get(), range.end().get());
        let first = self.steps().partition_point(|step| step.step_frame() < start);
        let last = self.steps().partition_point(|step| step.step_frame() <= end);
        let below = kind_after(&self.cells[..first]);
        let above = kind_after(&self.cells[..last]);
        let down = (below != RegionKind::Reserved)
            .then(|| MapEntry::from_step(start, RegionKind::Reserved));
        let up = (above != RegionKind::Reserved).then(|| MapEntry::from_step(end, above));

        let kept = first + down.iter().count() + up.iter().count();
        let needed = kept + (self.used - last);
        let capacity = self.cells.len();
        if needed > capacity {
            return Err(MapError::BufferTooSmall { needed, capacity });
        }
        self.cells.copy_within(last..self.used, kept);
        for (cell, step) in self.cells[first..].iter_mut().zip(down.into_iter().chain(up)) {
            *cell = step;
        }
        self.used = needed;
        Ok(())
    }
}

impl fmt::Debug for MemoryMap<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.regions()).finish()
    }
}

/// The kind of the frames behind the last of these steps.
fn kind_after(steps: &[MapEntry]) -> RegionKind {
    steps.last().map_or(RegionKind::Reserved, |step| step.kind())
}

/// How many entries of each kind lie over a byte.
#[derive(Default)]
struct Coverage([usize; RegionKind::COUNT]);

impl Coverage {
    fn pass(&mut self, edge: MapEntry) {
        let count = &mut self.0[edge.kind() as usize];
        match edge.edge() {
            Edge::Begin => *count += 1,
            // Never below 0: the same entry's beginning has a lower address and came before.
            Edge::End => *count -= 1,
        }
    }

    /// The most restrictive kind over the byte; reserved where there is none at all.
    fn kind(&self) -> RegionKind {
        let most_restrictive = self.0.iter().rposition(|count| *count != 0);
        most_restrictive.map_or(RegionKind::Reserved, |index| RegionKind::from_index(index as u64))
    }
}

/// The walk over sorted edges that leaves steps in their place.
struct Sweep<'c> {
    /// Steps up to `written`, edges from `read` on; `written <= read`.
    cells: &'c mut [MapEntry],
    written: usize,
    read: usize,
    /// The frame that the sweep is in, not written yet: an edge may still follow inside it.
    frame: u64,
    /// The most restrictive kind of that frame's bytes so far.
    frame_kind: RegionKind,
}

impl<'c> Sweep<'c> {
    /// Turns sorted edges into steps, and returns how many cells hold them.
    fn run(cells: &'c mut [MapEntry]) -> usize {
        let mut sweep =
            Self { cells, written: 0, read: 0, frame: 0, frame_kind: RegionKind::Usable };
        let mut coverage = Coverage::default();
        let mut position = 0;
        while let Some(&edge) = sweep.cells.get(sweep.read) {
            sweep.bytes(position, edge.edge_address(), coverage.kind());
            position = edge.edge_address();
            coverage.pass(edge);
            sweep.read += 1;
        }
        sweep.bytes(position, PHYSICAL_LIMIT, coverage.kind());
        sweep.step(sweep.frame, sweep.frame_kind);
        sweep.step(FRAME_LIMIT, RegionKind::Reserved);
        sweep.written
    }

    /// Notes the bytes `start..end`, which follow the last ones noted and are all of one kind.
    fn bytes(&mut self, start: u64, end: u64, kind: RegionKind) {
        if start == end {
            return;
        }
        let (first, last) = (start / FRAME_SIZE, (end - 1) / FRAME_SIZE);
        self.enter(first, kind);
        if first + 1 < last {
            self.enter(first + 1, kind);
        }
        self.enter(last, kind);
    }

    /// Notes bytes of a kind in a frame. A frame that the sweep leaves by this is settled.
    fn enter(&mut self, frame: u64, kind: RegionKind) {
        if frame == self.frame {
            self.frame_kind = self.frame_kind.max(kind);
            return;
        }
        self.step(self.frame, self.frame_kind);
        self.frame = frame;
        self.frame_kind = kind;
    }

    /// Writes that frames are of this kind from `frame` on, if that is news.
    ///
    /// There is always a cell for it, whose edge has been read: each step is owed to an edge of
    /// its own, and is written after it. A step between two frames has one of three reasons.
    /// An edge lies exactly between the two: that edge owes it. Or the kind of the lower frame
    /// is not that of its last byte, or the kind of the upper frame not that of its first: then
    /// edges inside that frame owe it. If there is one edge inside a frame, the frame has the
    /// kind of its first or of its last byte, for it has no third, and the edge owes one step at
    /// most; if there are two or more, they owe at most the two steps at the frame's ends. All
    /// of them are read before the sweep leaves the upper frame, which is when it comes here.
    fn step(&mut self, frame: u64, kind: RegionKind) {
        let kind = if kind <= RegionKind::Reclaimable { kind } else { RegionKind::Reserved };
        if kind == kind_after(&self.cells[..self.written]) {
            return;
        }
        debug_assert!(self.written < self.read, "a step would overwrite an edge not yet read");
        self.cells[self.written] = MapEntry::from_step(frame, kind);
        self.written += 1;
    }
}
