//! The public API on one thread, which plays several CPUs, against a naive model: sets of frames
//! (in the tree, held) and two groups of frames for each CPU's cache. The model says which frame
//! comes, which error with which frame, and what is free at each size; the pool has to agree
//! after every step, on maps with holes, crumbs, missing GiBs and whole ones.
//!
//! Not asked of it, since documented as undetected: freeing what another CPU has cached.
#![cfg(not(loom))]

mod support;

use std::cell::Cell;

use frametree::{
    AllocError, CpuId, Drained, Found, Frame, FrameNumber, FreeCount, FreeError, OutOfMemory,
    PageCache,
};
use proptest::prelude::*;
use proptest::sample::Index;
use support::frames::{Frames, GROUP, pieces};
use support::{BLOCK, GIANT, Machine, Pool, Threads};

/// CPUs with a slot; one more takes part without.
const CPUS: usize = 3;

/// One side of a CPU's cache: the group that it is open for, and the frames of it.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
struct Side {
    group: Option<u64>,
    bits: u64,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
struct Cache {
    alloc_side: Side,
    free_side: Side,
    /// The group that the last frame went past the sides to, or the last few; none if there were
    /// many.
    passed: Option<u64>,
    is_asked_to_drain: bool,
}

impl Cache {
    fn count(&self) -> u64 {
        u64::from(self.alloc_side.bits.count_ones() + self.free_side.bits.count_ones())
    }

    fn holds(&self, frame: u64) -> bool {
        [self.alloc_side, self.free_side]
            .iter()
            .any(|side| side.group == Some(frame / GROUP) && side.bits >> (frame % GROUP) & 1 != 0)
    }

    /// Whether a frame of a group that no side is open for goes to the tree, and the side that
    /// holds others stays: not beside these, nor twice in turn.
    fn passes(&self, group: u64) -> bool {
        let is_far = self.free_side.group.is_none_or(|open| open.abs_diff(group) > 1);
        let is_at_random = self.free_side.bits != 0 || self.passed.is_some();
        is_at_random && is_far && self.passed != Some(group)
    }
}

/// What an allocation takes of a group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Pick {
    /// The lowest frames, at most so many.
    Lowest(usize),
    /// The lowest frame that is known to be zero, if a cache's allocation side has one; or else
    /// the lowest.
    Zero,
}

impl Pick {
    fn of(self, free: u64, zero: u64) -> u64 {
        let lowest = |bits: u64| bits & bits.wrapping_neg();
        match self {
            Self::Lowest(most) => (0..most).fold(0, |all, _| all | lowest(free & !all)),
            Self::Zero if zero != 0 => lowest(zero),
            Self::Zero => lowest(free),
        }
    }
}

/// What should be so.
struct Model {
    managed: Frames,
    tree: Frames,
    held: Frames,
    /// Free frames, in the tree or in a cache, that are known to hold zeros.
    zero: Frames,
    caches: [Cache; CPUS],
    /// The 128 MiB that each CPU's last block came from, by number.
    last_block: [Option<u64>; CPUS],
    machine: Machine,
}

/// Blocks that share a word of truth, in frames: 128 MiB.
const NEAR: u64 = 64 * BLOCK;

impl Model {
    fn new(regions: &[(u64, u64)], machine: Machine) -> Self {
        let managed = Frames::of(regions);
        let tree = managed.clone();
        let [held, zero] = [Frames::default(), Frames::default()];
        let (caches, last_block) = ([Cache::default(); CPUS], [None; CPUS]);
        Self { managed, tree, held, zero, caches, last_block, machine }
    }

    fn cached(&self) -> u64 {
        self.caches.iter().map(Cache::count).sum()
    }

    fn cached_elsewhere(&self, cpu: usize) -> u64 {
        let others = self.caches.iter().enumerate().filter(|(other, _)| *other != cpu);
        others.map(|(_, cache)| cache.count()).sum()
    }

    fn count_free(&self) -> FreeCount {
        FreeCount {
            frames: self.tree.count(),
            blocks: self.tree.whole(BLOCK).count() as u64,
            giants: self.tree.whole(GIANT).count() as u64,
        }
    }

    /// Every use of a slot ends with serving a request that is there.
    fn leave(&mut self, cpu: usize) {
        if self.caches.get(cpu).is_some_and(|cache| cache.is_asked_to_drain) {
            self.drain(cpu);
        }
    }

    fn drain(&mut self, cpu: usize) {
        let Some(cache) = self.caches.get_mut(cpu) else { return };
        let Cache { alloc_side, free_side, passed, .. } = std::mem::take(cache);
        let is_few = (1..8).contains(&free_side.bits.count_ones());
        cache.passed = if is_few { free_side.group } else { passed };
        for side in [alloc_side, free_side] {
            self.tree.insert(side.group.unwrap_or(0), side.bits);
        }
    }

    /// What a look at the frame would find wrong with freeing it to the tree.
    fn found_in_tree(&self, frame: u64) -> Option<Found> {
        let free_in = |size| self.tree.count_in(frame / size * size, size);
        if !self.managed.contains(frame) {
            Some(Found::Unmanaged)
        } else if free_in(GIANT) == GIANT {
            Some(Found::FreeGiant)
        } else if free_in(BLOCK) == BLOCK {
            Some(Found::FreeBlock)
        } else {
            self.tree.contains(frame).then_some(Found::Free)
        }
    }

    /// A free by a CPU, or by none; what it must say. Of a frame that goes past the sides, whether
    /// it was kept, as the lowest there is, is the pool's choice.
    fn free(&mut self, cpu: usize, frame: u64, is_kept: bool) -> Result<(), Found> {
        let freed = self.free_once(cpu, frame, is_kept);
        self.leave(cpu);
        freed
    }

    fn free_once(&mut self, cpu: usize, frame: u64, is_kept: bool) -> Result<(), Found> {
        let (group, bit) = (frame / GROUP, 1 << (frame % GROUP));
        let found = self.found_in_tree(frame);
        let Some(cache) = self.caches.get_mut(cpu) else {
            if let Some(found) = found {
                return Err(found);
            }
            self.held.remove(group, bit);
            self.tree.insert(group, bit);
            return Ok(());
        };
        if self.managed.group(group) == 0 {
            return Err(Found::Unmanaged);
        }
        if cache.alloc_side.group != Some(group) && cache.free_side.group != Some(group) {
            // A free that is refused moves nothing.
            if let Some(found) = found {
                return Err(found);
            }
            if cache.passes(group) {
                self.held.remove(group, bit);
                if is_kept && cache.alloc_side.bits == 0 {
                    cache.alloc_side = Side { group: Some(group), bits: bit };
                } else {
                    cache.passed = Some(group);
                    self.tree.insert(group, bit);
                }
                return Ok(());
            }
            let old = std::mem::replace(&mut cache.free_side, Side { group: Some(group), bits: 0 });
            self.tree.insert(old.group.unwrap_or(0), old.bits);
        }
        let side = match cache.alloc_side.group {
            Some(open) if open == group => &mut cache.alloc_side,
            _ => &mut cache.free_side,
        };
        if side.bits & bit != 0 {
            return Err(Found::Cached);
        }
        if let Some(found) = found {
            return Err(found);
        }
        side.bits |= bit;
        self.held.remove(group, bit);
        Ok(())
    }

    /// An allocation that gave `given`; what it must give, where that is determined.
    fn alloc(&mut self, cpu: usize, given: Option<u64>) -> Result<u64, AllocError> {
        let (group, bit) =
            self.ask_others(cpu, |model| model.alloc_once(cpu, Pick::Lowest(1), given))?;
        self.zero.forget(group, bit);
        Ok(group * GROUP + u64::from(bit.trailing_zeros()))
    }

    /// The same for a frame of zeros; and whether it has to be cleared.
    fn alloc_zeroed(&mut self, cpu: usize, given: Option<u64>) -> Result<(u64, bool), AllocError> {
        let (group, bit) =
            self.ask_others(cpu, |model| model.alloc_once(cpu, Pick::Zero, given))?;
        let is_dirty = self.zero.forget(group, bit) == 0;
        Ok((group * GROUP + u64::from(bit.trailing_zeros()), is_dirty))
    }

    /// What a list with this many holes gets; `given` is what it got.
    fn alloc_bulk(&mut self, cpu: usize, holes: usize, given: &[u64]) -> Vec<u64> {
        let mut due = Vec::new();
        while due.len() < holes {
            let (most, next) = ((holes - due.len()).min(64), given.get(due.len()).copied());
            let pick = Pick::Lowest(most);
            let some = self.ask_others(cpu, |model| model.alloc_once(cpu, pick, next));
            let Ok((group, bits)) = some else { break };
            self.zero.forget(group, bits);
            let taken = (0..GROUP).filter(|bit| bits >> bit & 1 != 0);
            due.extend(taken.map(|bit| group * GROUP + bit));
        }
        due
    }

    fn alloc_whole(
        &mut self,
        cpu: usize,
        size: u64,
        given: Option<u64>,
    ) -> Result<u64, AllocError> {
        let taken = self.ask_others(cpu, |model| model.alloc_whole_once(cpu, size, given));
        taken.map_err(|error| match error {
            AllocError::OutOfMemory { cached_elsewhere } => {
                let (free, longest) = (self.tree.count(), self.tree.longest());
                AllocError::NoneWhole { frames: size, free, longest, cached_elsewhere }
            }
            error => error,
        })
    }

    /// An attempt, and if it finds nothing, another one after this CPU has drained, and the others were
    /// asked to.
    fn ask_others<T>(
        &mut self,
        cpu: usize,
        mut attempt: impl FnMut(&mut Self) -> Option<T>,
    ) -> Result<T, AllocError> {
        let first = attempt(self);
        self.leave(cpu);
        if let Some(taken) = first {
            return Ok(taken);
        }
        for other in (0..CPUS).filter(|other| *other != cpu) {
            if self.caches[other].count() > 0 {
                match self.machine {
                    Machine::Deaf => self.caches[other].is_asked_to_drain = true,
                    Machine::Waits => self.drain(other),
                }
            }
        }
        self.drain(cpu);
        let second = attempt(self);
        self.leave(cpu);
        second.ok_or(AllocError::OutOfMemory { cached_elsewhere: self.cached_elsewhere(cpu) })
    }

    /// The group, and the frames taken of it; what was known of them is still on record.
    fn alloc_once(&mut self, cpu: usize, pick: Pick, given: Option<u64>) -> Option<(u64, u64)> {
        let Some(cache) = self.caches.get_mut(cpu) else {
            let (&group, &free) = self.tree.0.first_key_value()?;
            let bits = pick.of(free, 0);
            self.tree.remove(group, bits);
            self.held.insert(group, bits);
            return Some((group, bits));
        };
        match cache.free_side.bits.count_ones() {
            _ if cache.alloc_side.bits != 0 => {}
            0 => {}
            1..8 => {
                // Few freed frames go to the tree first.
                let Side { group, bits } = std::mem::take(&mut cache.free_side);
                self.tree.insert(group.unwrap_or(0), bits);
                cache.passed = group;
            }
            _ => {
                std::mem::swap(&mut cache.alloc_side, &mut cache.free_side);
                cache.passed = None;
            }
        }
        if cache.alloc_side.bits == 0 {
            // A refill: which group is the tree's choice, and then all of it.
            self.tree.first()?;
            let group = given? / GROUP;
            let bits = self.tree.group(group);
            assert_ne!(bits, 0, "a refill from group {group:#x}, where nothing is free");
            self.tree.remove(group, bits);
            cache.alloc_side = Side { group: Some(group), bits };
        }
        let Side { group, ref mut bits } = cache.alloc_side;
        let group = group?;
        let taken = pick.of(*bits, *bits & self.zero.group(group));
        *bits &= !taken;
        self.held.insert(group, taken);
        Some((group, taken))
    }

    /// Moves frames from the tree to the holder.
    fn take(&mut self, start: u64, count: u64) {
        self.tree.remove_range(start, count);
        self.held.insert_range(start, count);
        pieces(start, count).for_each(|(group, bits)| _ = self.zero.forget(group, bits));
    }

    /// The lowest; or, of blocks, the lowest in the word that this CPU's last one came from.
    fn alloc_whole_once(&mut self, cpu: usize, size: u64, given: Option<u64>) -> Option<u64> {
        let lowest = self.tree.whole(size).next()?;
        let near = given.filter(|at| {
            let word = at / NEAR;
            let mut beside = self.tree.whole(size).skip_while(|start| start / NEAR < word);
            let last = self.last_block.get(cpu).copied().flatten();
            size == BLOCK && last == Some(word) && beside.next() == Some(*at)
        });
        let start = near.unwrap_or(lowest);
        self.take(start, size);
        if size == BLOCK
            && let Some(last) = self.last_block.get_mut(cpu)
        {
            *last = Some(start / NEAR);
        }
        Some(start)
    }

    /// A CPU's free of a block or a GiB.
    fn free_whole(&mut self, cpu: usize, start: u64, size: u64) -> Result<(), Found> {
        let inside = |group: u64| group * GROUP / size == start / size;
        let sides = self.caches.get(cpu).map(|cache| [cache.alloc_side, cache.free_side]);
        let sides = sides.into_iter().flatten().filter(|side| side.group.is_some_and(inside));
        let cached: u64 = sides.map(|side| u64::from(side.bits.count_ones())).sum();
        let freed = self.free_whole_once(start, size, cached);
        self.leave(cpu);
        freed
    }

    fn free_whole_once(&mut self, start: u64, size: u64, cached: u64) -> Result<(), Found> {
        if !start.is_multiple_of(size) {
            return Err(Found::Misaligned { frames: size });
        }
        if self.managed.count_in(start, size) != size {
            return Err(Found::Unmanaged);
        }
        if let Some(found @ (Found::FreeGiant | Found::FreeBlock)) = self.found_in_tree(start)
            && (found == Found::FreeGiant || size == BLOCK)
        {
            return Err(found);
        }
        match self.tree.count_in(start, size) {
            0 if cached > 0 => Err(Found::PartlyFree { free: cached }),
            0 => {
                self.held.remove_range(start, size);
                self.tree.insert_range(start, size);
                Ok(())
            }
            free => Err(Found::PartlyFree { free }),
        }
    }

    /// A flush of `bits` to the tree: the held ones go back.
    fn flush(&mut self, group: u64, bits: u64, zero: u64) -> Result<(), FreeError> {
        let error = |bits: u64, found| {
            let frame = group * GROUP + u64::from(bits.trailing_zeros());
            Err(FreeError { frame: FrameNumber::new(frame), found })
        };
        let managed = self.managed.group(group);
        if managed == 0 {
            return error(bits, Found::Unmanaged);
        }
        let above = self.found_in_tree(group * GROUP);
        if let Some(found @ (Found::FreeGiant | Found::FreeBlock)) = above {
            return error(bits, found);
        }
        let overlap = bits & self.tree.group(group);
        let back = bits & managed & !overlap;
        self.held.remove(group, back);
        self.tree.insert(group, back);
        self.zero.insert(group, zero & back);
        if overlap != 0 {
            error(overlap, Found::Free)
        } else if bits & !managed != 0 {
            error(bits & !managed, Found::Unmanaged)
        } else {
            Ok(())
        }
    }
}

/// One step. A CPU number may be one too high: a CPU without a cache.
#[derive(Clone, Debug)]
enum Step {
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

fn step() -> impl Strategy<Value = Step> {
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
fn regions(large: bool) -> BoxedStrategy<Vec<(u64, u64)>> {
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

/// The pool and the model side by side.
struct Both {
    pool: Pool,
    model: Model,
    first: FreeCount,
}

fn frame(number: u64) -> Frame {
    // SAFETY: the tests use no memory; the model owns what is freed in earnest.
    unsafe { Frame::from_number(FrameNumber::new(number)) }
}

fn refused(frame: u64, result: Result<(), Found>) -> Result<(), FreeError> {
    result.map_err(|found| FreeError { frame: FrameNumber::new(frame), found })
}

fn number(frame: Result<Frame, OutOfMemory>) -> Option<u64> {
    frame.ok().map(|frame| frame.into_number().get())
}

impl Both {
    fn new(regions: &[(u64, u64)], machine: Machine) -> Self {
        let pool = support::pool(machine, CPUS, regions);
        Machine::serves(pool);
        let model = Model::new(regions, machine);
        let both = Self { pool, first: model.count_free(), model };
        both.compare();
        both
    }

    fn alloc(&mut self, cpu: usize) -> bool {
        Threads::become_cpu(cpu);
        let given = self.pool.alloc().map(|frame| frame.into_number().get());
        assert_eq!(given, self.model.alloc(cpu, given.ok()), "alloc on CPU {cpu}");
        given.is_ok()
    }

    fn free(&mut self, cpu: usize, number: u64) {
        // A pending request may still put the frame where a free finds it; look after that.
        let elsewhere = (0..CPUS).any(|at| at != cpu && self.model.caches[at].holds(number));
        if elsewhere {
            return;
        }
        Threads::become_cpu(cpu);
        let said = self.pool.free(frame(number));
        let first = FrameNumber::new(number - number % GROUP);
        let in_tree =
            self.pool.tree().and_then(|tree| tree.peek(first)).map_or(0, |(free, _)| free);
        let is_kept = in_tree >> (number % GROUP) & 1 == 0;
        let due = self.model.free(cpu, number, is_kept);
        assert_eq!(said, refused(number, due), "free on CPU {cpu}");
    }

    fn alloc_zeroed(&mut self, cpu: usize) -> bool {
        Threads::become_cpu(cpu);
        let cleared = Cell::new(None);
        let given = self.pool.alloc_zeroed(|frame| cleared.set(Some(frame.number())));
        let given = given.map(|frame| {
            assert!(cleared.get().is_none_or(|cleared| cleared == frame.number()));
            (frame.into_number().get(), cleared.get().is_some())
        });
        let number = given.ok().map(|(number, _)| number);
        assert_eq!(given, self.model.alloc_zeroed(cpu, number), "alloc_zeroed on CPU {cpu}");
        given.is_ok()
    }

    /// A free of a held frame that is zero.
    fn free_zeroed(&mut self, cpu: usize, number: u64) {
        Threads::become_cpu(cpu);
        // SAFETY: the tests use no memory; the model says that it is zero from now on.
        let said = unsafe { self.pool.free_zeroed(frame(number)) };
        self.model.zero.insert(number / GROUP, 1 << (number % GROUP));
        assert_eq!(said, refused(number, self.model.free(cpu, number, false)), "on CPU {cpu}");
    }

    fn alloc_bulk(&mut self, cpu: usize, places: usize, full: usize) {
        Threads::become_cpu(cpu);
        const OWN: u64 = 1 << 39;
        let place = |at: usize| at.is_multiple_of(full).then(|| frame(OWN + at as u64));
        let mut list: Vec<_> = (0..places).map(place).collect();
        let holes = list.iter().filter(|place| place.is_none()).count();
        let filled = self.pool.alloc_bulk(&mut list);
        for at in (0..places).step_by(full) {
            assert_eq!(list[at].take(), Some(frame(OWN + at as u64)), "was full before");
        }
        let given: Vec<_> = list.into_iter().flatten().map(|f| f.into_number().get()).collect();
        assert_eq!(given.len(), filled);
        assert_eq!(given, self.model.alloc_bulk(cpu, holes, &given), "in bulk on CPU {cpu}");
    }

    fn free_bulk(&mut self, cpu: usize, numbers: &[u64]) {
        Threads::become_cpu(cpu);
        let hole = |at: &usize| at.is_multiple_of(10);
        let mut list = Vec::new();
        for &number in numbers {
            list.extend(hole(&list.len()).then_some(None));
            list.push(Some(frame(number)));
        }
        let mut due = Ok(());
        for turn in list.chunks(64) {
            for number in turn.iter().flatten().map(|frame| frame.number().get()) {
                due = due.and(refused(number, self.model.free_once(cpu, number, false)));
            }
            self.model.leave(cpu);
        }
        assert_eq!(self.pool.free_bulk(&mut list), due, "in bulk on CPU {cpu}");
        assert!(list.iter().all(Option::is_none));
    }

    fn alloc_block(&mut self, cpu: usize) -> bool {
        self.alloc_whole(cpu, BLOCK)
    }

    fn alloc_whole(&mut self, cpu: usize, size: u64) -> bool {
        Threads::become_cpu(cpu);
        let given = if size == BLOCK { self.pool.alloc_block() } else { self.pool.alloc_giant() };
        let given = given.map(|frame| frame.into_number().get());
        let due = self.model.alloc_whole(cpu, size, given.ok());
        assert_eq!(given, due, "{size} frames on CPU {cpu}");
        given.is_ok()
    }

    fn free_whole(&mut self, cpu: usize, first: u64, size: u64) {
        let mut others = (0..CPUS).filter(|other| *other != cpu).flat_map(|other| {
            let Cache { alloc_side, free_side, .. } = self.model.caches[other];
            [alloc_side, free_side]
        });
        let inside = |group: u64| group * GROUP / size == first / size;
        let cached = others.any(|side| side.bits != 0 && side.group.is_some_and(inside));
        let free = self.model.tree.count_in(first, size);
        if first.is_multiple_of(size) && free == 0 && cached {
            return;
        }
        Threads::become_cpu(cpu);
        let first_frame = frame(first);
        let said = if size == BLOCK {
            self.pool.free_block(first_frame)
        } else {
            self.pool.free_giant(first_frame)
        };
        let due = refused(first, self.model.free_whole(cpu, first, size));
        assert_eq!(said, due, "{size} frames on CPU {cpu}");
    }

    fn tree_alloc(&mut self) {
        let given = number(self.pool.tree().expect("a tree").alloc());
        assert_eq!(given, self.model.tree.first(), "the tree's lowest frame");
        if let Some(frame) = given {
            self.model.take(frame, 1);
        }
    }

    /// A refill of a cache of one's own; some of it taken, some known to be zero afterwards.
    fn refill(&mut self, take: u32, zero: u64) {
        let tree = self.pool.tree().expect("a tree");
        let given = tree.refill();
        let due = self.model.tree.0.first_key_value().map(|(group, bits)| (*group, *bits));
        let Ok(mut cache) = given else { return assert_eq!(due, None, "a refill") };
        let group = cache.base().get() / GROUP;
        assert_eq!(Some((group, cache.free())), due, "a refill");
        assert_eq!(cache.known_zero(), self.model.zero.group(group) & cache.free());
        let known = cache.known_zero();
        let all = cache.free();
        self.model.tree.remove(group, all);
        self.model.held.insert(group, all);
        self.model.zero.forget(group, all);
        for _ in 0..take {
            let lowest = cache.free().trailing_zeros();
            let Some(run) = cache.alloc() else { break };
            assert_eq!(run.frames.into_numbers().start().get(), group * GROUP + u64::from(lowest));
            assert_eq!(run.known_zero, known >> lowest & 1);
        }
        let (base, bits, _) = cache.into_parts();
        // SAFETY: the same frames again, as a zeroer would bring them back.
        let mut cache = unsafe { PageCache::from_parts(base, bits, bits & zero) };
        assert_eq!(cache.flush(tree), Ok(()));
        assert!(cache.is_empty());
        if bits != 0 {
            assert_eq!(self.model.flush(group, bits, bits & zero), Ok(()));
        }
    }

    /// Frames of one group given back at once: held, free and foreign ones.
    fn bad_flush(&mut self, near: u64, bits: u64) {
        let group = near / GROUP;
        let cached = self.model.caches.iter().flat_map(|cache| [cache.alloc_side, cache.free_side]);
        let cached = cached.filter(|side| side.group == Some(group)).fold(0, |all, s| all | s.bits);
        let bits = bits & !cached;
        let base = FrameNumber::new(group * GROUP);
        // SAFETY: deliberately wrong; the tree must refuse what is.
        let mut cache = unsafe { PageCache::from_parts(base, bits, 0) };
        let said = self.pool.tree().expect("a tree").flush(&mut cache);
        let due = if bits == 0 { Ok(()) } else { self.model.flush(group, bits, 0) };
        assert_eq!(said, due, "a flush of {bits:#x} to group {group:#x}");
    }

    fn held(&self, which: &Index) -> Option<u64> {
        let count = self.model.held.count();
        self.model.held.nth(which.index(count.max(1) as usize) as u64)
    }

    /// Any managed frame.
    fn managed(&self, which: &Index) -> u64 {
        let at = which.index(self.model.managed.count() as usize);
        self.model.managed.nth(at as u64).expect("a managed frame")
    }

    fn run(&mut self, step: &Step) {
        match *step {
            Step::Alloc { cpu, count } => _ = (0..count).all(|_| self.alloc(cpu)),
            Step::Free { cpu, which, count } => self.free_some(cpu, &which, count, 1),
            Step::Scatter { cpu, which, count, stride } => {
                self.free_some(cpu, &which, count, stride);
            }
            Step::DoubleFree { cpu, which } => {
                let frame = self.managed(&which);
                if !self.model.held.contains(frame) {
                    self.free(cpu, frame);
                }
            }
            Step::FreeCached { cpu, which } => {
                let Some(cache) = self.model.caches.get(cpu) else { return };
                let mut cached = Frames::default();
                for side in [cache.alloc_side, cache.free_side] {
                    cached.insert(side.group.unwrap_or(0), side.bits);
                }
                let at = which.index(cached.count().max(1) as usize) as u64;
                if let Some(frame) = cached.nth(at) {
                    self.free(cpu, frame);
                }
            }
            Step::UseZeroed { cpu, count } => self.use_zeroed(cpu, count),
            Step::ForeignFree { cpu, which, above } => {
                let frame = self.managed(&which) + above;
                if !self.model.managed.contains(frame) {
                    self.free(cpu, frame);
                }
            }
            Step::Drain { cpu } => {
                Threads::become_cpu(cpu);
                assert_eq!(self.pool.drain(), Ok(Drained::Done));
                self.model.drain(cpu);
            }
            Step::DrainOffline { cpu } => self.drain_offline(cpu),
            Step::AllocBlock { cpu, count } => _ = (0..count).all(|_| self.alloc_block(cpu)),
            Step::AllocZeroed { cpu, count } => _ = (0..count).all(|_| self.alloc_zeroed(cpu)),
            Step::FreeZeroed { cpu, which, count, stride } => {
                for number in self.held_from(&which, count, stride) {
                    self.free_zeroed(cpu, number);
                }
            }
            Step::AllocBulk { cpu, places, full } => self.alloc_bulk(cpu, places, full),
            Step::FreeBulk { cpu, which, count, stride, twice } => {
                let mut numbers = self.held_from(&which, count, stride);
                if !numbers.is_empty()
                    && let Some(twice) = twice
                {
                    numbers.push(*twice.get(&numbers));
                }
                self.free_bulk(cpu, &numbers);
            }
            Step::FreeBlock { cpu, which, off_by } => {
                self.free_whole(cpu, self.managed(&which) / BLOCK * BLOCK + off_by, BLOCK);
            }
            Step::TreeAlloc => self.tree_alloc(),
            Step::TreeFree { which } => {
                if let Some(held) = self.held(&which) {
                    assert_eq!(self.pool.tree().expect("a tree").free(frame(held)), Ok(()));
                    assert_eq!(self.model.free(CPUS, held, false), Ok(()));
                }
            }
            Step::Refill { take, zero } => self.refill(take, zero),
            Step::BadFlush { which, bits } => self.bad_flush(self.managed(&which), bits),
            Step::AllocGiant { cpu } => _ = self.alloc_whole(cpu, GIANT),
            Step::FreeGiant { cpu, which, off_by } => {
                self.free_whole(cpu, self.managed(&which) / GIANT * GIANT + off_by, GIANT);
            }
            Step::Exhaust { cpu } => self.exhaust(cpu),
            Step::Replace { cpu, which, count, stride, is_full } => {
                if is_full {
                    self.exhaust(cpu);
                }
                for number in self.held_from(&which, count, stride) {
                    self.free(cpu, number);
                    if number % 2 == 0 {
                        self.alloc(cpu)
                    } else {
                        self.alloc_zeroed(cpu)
                    };
                }
            }
        }
    }

    fn use_zeroed(&mut self, cpu: usize, count: usize) {
        Threads::become_cpu(cpu);
        assert_eq!(self.pool.drain(), Ok(Drained::Done));
        self.model.drain(cpu);
        self.refill(0, u64::MAX);
        let before = self.model.held.clone();
        _ = (0..count).all(|_| self.alloc(cpu));
        let after = self.model.held.clone();
        for (group, bits) in after.0 {
            let new = bits & !before.group(group);
            for bit in (0..GROUP).filter(|bit| new >> bit & 1 != 0) {
                self.free(cpu, group * GROUP + bit);
            }
        }
    }

    fn free_some(&mut self, cpu: usize, which: &Index, count: usize, stride: u64) {
        for number in self.held_from(which, count, stride) {
            self.free(cpu, number);
        }
    }

    /// The held ones of every `stride`-th frame from a held one upward.
    fn held_from(&self, which: &Index, count: usize, stride: u64) -> Vec<u64> {
        let Some(first) = self.held(which) else { return Vec::new() };
        let frames = (0..count as u64).map(|at| first + at * stride);
        frames.filter(|number| self.model.held.contains(*number)).collect()
    }

    fn drain_offline(&mut self, cpu: usize) {
        // SAFETY: one thread plays all CPUs; this one is not inside the pool.
        assert_eq!(unsafe { self.pool.drain_offline(CpuId::new(cpu)) }, Ok(Drained::Done));
        self.model.drain(cpu);
    }

    /// Takes everything, in the largest sizes first, and once more to see the error.
    fn exhaust(&mut self, cpu: usize) {
        while self.alloc_whole(cpu, GIANT) {}
        while self.alloc_block(cpu) {}
        while self.alloc(cpu) {}
        assert!(!self.alloc(cpu));
    }

    /// Every number and every bit.
    fn compare(&self) {
        self.account();
        let tree = self.pool.tree().expect("a tree");
        self.pool.verify().unwrap_or_else(|broken| panic!("{broken}"));
        let count = self.model.count_free();
        assert_eq!(tree.count_free(), count);
        let stats = self.pool.stats();
        assert_eq!((stats.free_blocks, stats.free_giants), (count.blocks, count.giants));
        for (group, managed) in &self.model.managed.0 {
            let free = self.model.tree.group(*group);
            let due = (free, self.model.zero.group(*group) & free);
            let seen = tree.peek(FrameNumber::new(group * GROUP));
            assert_eq!(seen, Some(due), "group {group:#x}, managed {managed:#x}");
            let behind = group + 1;
            if self.model.managed.group(behind) == 0 {
                assert_eq!(tree.peek(FrameNumber::new(behind * GROUP)), None, "a hole");
            }
        }
    }

    /// Conservation: each managed frame is in the tree, in one cache, or held.
    fn account(&self) {
        let (tree, cached) = (self.model.tree.count(), self.model.cached());
        assert_eq!(self.model.managed.count(), tree + cached + self.model.held.count());
        let stats = self.pool.stats();
        assert_eq!(stats.managed_frames, self.model.managed.count());
        assert_eq!((stats.free_frames, stats.cached_frames), (tree + cached, cached));
        assert_eq!(stats.late_double_frees, 0);
    }

    /// Gives everything back; the tree must be as it was at first.
    fn finish(&mut self) {
        (0..=CPUS).for_each(|cpu| self.drain_offline(cpu));
        let blocks: Vec<_> = self.model.held.whole(BLOCK).collect();
        for block in blocks {
            self.free_whole(block as usize / 512 % CPUS, block, BLOCK);
        }
        while let Some(frame) = self.model.held.first() {
            self.free(frame as usize / 64 % (CPUS + 1), frame);
        }
        (0..CPUS).for_each(|cpu| self.drain_offline(cpu));
        self.compare();
        assert_eq!(self.pool.tree().expect("a tree").count_free(), self.first);
        assert_eq!(self.model.tree, self.model.managed);
    }
}

fn check(regions: &[(u64, u64)], machine: Machine, steps: &[Step]) {
    let mut both = Both::new(regions, machine);
    for (at, step) in steps.iter().enumerate() {
        both.run(step);
        both.account();
        if at % 8 == 7 {
            both.compare();
        }
    }
    both.compare();
    both.finish();
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        max_shrink_iters: 2000,
        ..ProptestConfig::default()
    }
}

fn machine() -> impl Strategy<Value = Machine> {
    prop_oneof![Just(Machine::Deaf), Just(Machine::Waits)]
}

proptest! {
    #![proptest_config(config(96))]

    #[test]
    fn small_maps_agree_with_the_model(
        regions in regions(false), machine in machine(), steps in prop::collection::vec(step(), 1..60)
    ) {
        check(&regions, machine, &steps);
    }
}

proptest! {
    #![proptest_config(config(8))]

    #[test]
    fn maps_of_gibs_agree_with_the_model(
        regions in regions(true), machine in machine(), steps in prop::collection::vec(step(), 1..40)
    ) {
        check(&regions, machine, &steps);
    }
}
