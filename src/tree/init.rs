//! Making a tree of a memory map, and what it is made of. Costs in ranges and GiBs: frames are put
//! in as they are freed later, whole GiBs by one bit, whole blocks at the edges of a range by one
//! bit each, and only the last crumbs touch leaves.

use super::FrameTree;
use crate::arena::{Arena, part};
use crate::directory::Directory;
use crate::frame::NumberRange;
use crate::geometry::{BLOCK_FRAMES, CLUSTER_FRAMES};
use crate::journal::Journal;
use crate::ranges::{Ranges, Record};
use crate::root::Cluster;
use crate::stock::{Size, Stock};
use crate::sync::{Link, Word};

/// Clusters that are found by their number, at least (1 TiB) and at most (16 TiB), as far as the
/// memory goes that is there at the start. Those above cost a walk over them.
const TABLE: (usize, usize) = (16, 256);
/// Ranges to come that need no metadata if they lie beside memory that is known, apart from those
/// that the map calls reclaimable.
const RECORDS: usize = 4;

/// What a tree is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Plan {
    pub cpus: usize,
    /// Managed frames.
    pub frames: u64,
    pub ranges: usize,
    records: usize,
    table: usize,
    size: Size,
}

impl Plan {
    /// For these ranges (ascending, disjoint, not adjacent), and so many that may come later.
    pub fn new(
        ranges: impl Iterator<Item = NumberRange> + Clone,
        to_come: usize,
        cpus: usize,
    ) -> Self {
        let end = ranges.clone().last().map_or(0, |range| range.end().get());
        let size = Size::of(ranges.clone());
        // Not for a hole much larger than the memory.
        let most = TABLE.1.min(TABLE.0 + 4 * size.clusters);
        Self {
            cpus,
            frames: ranges.clone().map(NumberRange::len).sum(),
            ranges: ranges.count(),
            records: to_come + RECORDS,
            table: (end.div_ceil(CLUSTER_FRAMES) as usize).clamp(TABLE.0, most),
            size,
        }
    }

    /// Bytes that it takes.
    pub const fn bytes(&self) -> usize {
        part::<Link<'_, Cluster<'_>>>(self.table)
            + part::<NumberRange>(self.ranges)
            + part::<Record<'_>>(self.records)
            + part::<Journal>(Journal::count_for(self.cpus))
            + self.size.bytes()
    }
}

impl<'m> FrameTree<'m> {
    /// The tree of this plan, made of these ranges, all free.
    pub(crate) fn new(
        arena: &mut Arena<'m>,
        plan: &Plan,
        ranges: impl Iterator<Item = NumberRange> + Clone,
    ) -> Self {
        let table = arena.deal(plan.table, |_| Link::empty());
        let initial = arena.deal_all(plan.ranges, ranges.clone());
        let records = arena.deal(plan.records, |_| Record::new());
        let tree = Self {
            directory: Directory::new(table, Ranges::new(initial, records)),
            journals: arena.deal(Journal::count_for(plan.cpus), |_| Journal::new()),
            managed: Word::new(0),
            gone: Word::new(0),
            low_end: 0,
        };
        let mut stock = Stock::new(arena, plan.size);
        for range in ranges {
            tree.add(tree.shared_writer(), &mut stock, range);
        }
        tree
    }

    /// The same tree, which uses frames below `end` last, for whoever does not ask for them.
    pub(crate) fn with_low_end(self, end: u64) -> Self {
        Self { low_end: end.next_multiple_of(BLOCK_FRAMES), ..self }
    }
}
