//! What may happen: one step of a sequence, and maps to play on, drawn at random.

use proptest::prelude::*;
use proptest::sample::Index;

use crate::CPUS;
use crate::support::{BLOCK, GIANT};

/// One step. A CPU number may be one too high: a CPU without a cache.
#[derive(Clone, Debug)]
pub enum Step {
    Alloc {
        cpu: usize,
        count: usize,
    },
    /// Frees held frames from the chosen one upward.
    Free {
        cpu: usize,
        which: Index,
        count: usize,
    },
    /// The same frame for every `stride`-th held one: many words, little of each.
    Scatter {
        cpu: usize,
        which: Index,
        count: usize,
        stride: u64,
    },
    DoubleFree {
        cpu: usize,
        which: Index,
    },
    /// Of a frame in the CPU's own cache.
    FreeCached {
        cpu: usize,
        which: Index,
    },
    /// Frames known to be zero go through a cache: to the caller, and back.
    UseZeroed {
        cpu: usize,
        count: usize,
    },
    ForeignFree {
        cpu: usize,
        which: Index,
        above: u64,
    },
    Drain {
        cpu: usize,
    },
    DrainOffline {
        cpu: usize,
    },
    AllocZeroed {
        cpu: usize,
        count: usize,
    },
    /// As `Scatter`, of frames that hold zeros.
    FreeZeroed {
        cpu: usize,
        which: Index,
        count: usize,
        stride: u64,
    },
    /// A list with a frame in every `full`-th place.
    AllocBulk {
        cpu: usize,
        places: usize,
        full: usize,
    },
    /// A list of every `stride`-th frame, the last one again, and holes.
    FreeBulk {
        cpu: usize,
        which: Index,
        count: usize,
        stride: u64,
        twice: Option<Index>,
    },
    AllocBlock {
        cpu: usize,
        count: usize,
    },
    FreeBlock {
        cpu: usize,
        which: Index,
        off_by: u64,
    },
    TreeAlloc,
    TreeFree {
        which: Index,
    },
    Refill {
        take: u32,
        zero: u64,
    },
    BadFlush {
        which: Index,
        bits: u64,
    },
    AllocGiant {
        cpu: usize,
    },
    FreeGiant {
        cpu: usize,
        which: Index,
        off_by: u64,
    },
    Exhaust {
        cpu: usize,
    },
    /// As `Scatter`, each replaced before the next is freed; in full memory, or as it is.
    Replace {
        cpu: usize,
        which: Index,
        count: usize,
        stride: u64,
        is_full: bool,
    },
}

pub fn step() -> impl Strategy<Value = Step> {
    let cpu = || prop_oneof![6 => 0..CPUS, 1 => Just(CPUS)];
    let which = any::<Index>;
    let off_by = || prop_oneof![5 => Just(0u64), 1 => Just(1u64), 1 => Just(64u64)];
    prop_oneof![
        6 => (cpu(), 1..200usize).prop_map(|(cpu, count)| Step::Alloc { cpu, count }),
        6 => (cpu(), which(), 1..700usize)
            .prop_map(|(cpu, which, count)| Step::Free { cpu, which, count }),
        3 => (cpu(), which(), 1..30usize, 1..100u64).prop_map(|(cpu, which, count, stride)| {
            Step::Scatter { cpu, which, count, stride }
        }),
        3 => (cpu(), which()).prop_map(|(cpu, which)| Step::DoubleFree { cpu, which }),
        2 => (cpu(), which()).prop_map(|(cpu, which)| Step::FreeCached { cpu, which }),
        2 => (0..CPUS, 1..9usize).prop_map(|(cpu, count)| Step::UseZeroed { cpu, count }),
        2 => (cpu(), which(), 0..600u64)
            .prop_map(|(cpu, which, above)| Step::ForeignFree { cpu, which, above }),
        2 => cpu().prop_map(|cpu| Step::Drain { cpu }),
        1 => cpu().prop_map(|cpu| Step::DrainOffline { cpu }),
        3 => (cpu(), 1..6usize).prop_map(|(cpu, count)| Step::AllocBlock { cpu, count }),
        3 => (cpu(), which(), off_by())
            .prop_map(|(cpu, which, off_by)| Step::FreeBlock { cpu, which, off_by }),
        2 => Just(Step::TreeAlloc),
        2 => which().prop_map(|which| Step::TreeFree { which }),
        3 => (0..70u32, any::<u64>()).prop_map(|(take, zero)| Step::Refill { take, zero }),
        2 => (which(), any::<u64>()).prop_map(|(which, bits)| Step::BadFlush { which, bits }),
        1 => cpu().prop_map(|cpu| Step::AllocGiant { cpu }),
        1 => (cpu(), which(), off_by())
            .prop_map(|(cpu, which, off_by)| Step::FreeGiant { cpu, which, off_by }),
        4 => (cpu(), 1..100usize).prop_map(|(cpu, count)| Step::AllocZeroed { cpu, count }),
        4 => (cpu(), which(), 1..200usize, 1..20u64).prop_map(|(cpu, which, count, stride)| {
            Step::FreeZeroed { cpu, which, count, stride }
        }),
        2 => (cpu(), 1..300usize, 2..90usize)
            .prop_map(|(cpu, places, full)| Step::AllocBulk { cpu, places, full }),
        2 => (cpu(), which(), 1..300usize, 1..9u64, prop::option::of(which())).prop_map(
            |(cpu, which, count, stride, twice)| {
                Step::FreeBulk { cpu, which, count, stride, twice }
            }
        ),
        1 => cpu().prop_map(|cpu| Step::Exhaust { cpu }),
        2 => (cpu(), which(), 1..90usize, 1..200u64, any::<bool>()).prop_map(
            |(cpu, which, count, stride, is_full)| {
                Step::Replace { cpu, which, count, stride, is_full }
            }
        ),
    ]
}

/// Regions as (gap before, frames), so that they never touch.
pub fn regions(large: bool) -> BoxedStrategy<Vec<(u64, u64)>> {
    let gap = prop_oneof![
        4 => 1..200u64,
        2 => (1..4u64, 0..BLOCK).prop_map(|(blocks, rest)| blocks * BLOCK + rest),
        1 => (1..900u64, 0..GIANT).prop_map(|(giants, rest)| giants * GIANT + rest),
        1 => (1..900u64).prop_map(|giants| giants * GIANT - 1),
    ];
    let small = prop_oneof![
        3 => 1..130u64,
        3 => 500..1600u64,
        1 => (1..8u64).prop_map(|blocks| blocks * BLOCK),
        1 => (1..8u64, 0..BLOCK).prop_map(|(blocks, rest)| blocks * BLOCK + rest),
    ];
    let length = if large {
        // A GiB and a few blocks on either side hold one aligned GiB, or almost.
        prop_oneof![1 => small, 2 => (GIANT - 600)..(2 * GIANT + 3000)].boxed()
    } else {
        small.boxed()
    };
    let most = if large { 3 } else { 6 };
    let regions = prop::collection::vec((gap, length), 1..most);
    regions
        .prop_map(|parts| {
            let mut end = 0;
            let place = |(gap, length)| {
                let start = end + gap;
                end = start + length;
                (start, length)
            };
            parts.into_iter().map(place).collect()
        })
        .boxed()
}
