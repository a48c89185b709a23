//! What should be so: sets of frames, in the tree and held, and what each CPU has cached. Each
//! function does what the pool's of that name should, and gives the answer that it should give.

use frametree::{AllocError, Found, FrameNumber, FreeCount, FreeError};

use crate::CPUS;
use crate::support::frames::{Frames, GROUP, pieces};
use crate::support::{BLOCK, GIANT, Machine};

/// One side of a CPU's cache: the group that it is open for, and the frames of it.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Side {
    pub group: Option<u64>,
    pub bits: u64,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Cache {
    pub alloc_side: Side,
    pub free_side: Side,
    /// The group that the last frame went past the sides to, or the last few; none if there were
    /// many.
    pub passed: Option<u64>,
    /// The first frame of the block that waits there.
    pub parked: Option<u64>,
    pub is_asked_to_drain: bool,
}

impl Cache {
    pub fn count(&self) -> u64 {
        self.frames().count()
    }

    pub fn holds(&self, frame: u64) -> bool {
        self.frames().contains(frame)
    }

    /// All that it holds.
    pub fn frames(&self) -> Frames {
        let mut frames = Frames::default();
        for side in [self.alloc_side, self.free_side] {
            frames.insert(side.group.unwrap_or(0), side.bits);
        }
        self.parked.iter().for_each(|first| frames.insert_range(*first, BLOCK));
        frames
    }

    /// Whether a side is open for a group of these frames.
    fn is_open_in(&self, start: u64, size: u64) -> bool {
        let open = [self.alloc_side, self.free_side].into_iter().filter_map(|side| side.group);
        open.into_iter().any(|group| group * GROUP / size == start / size)
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
    pub fn of(self, free: u64, zero: u64) -> u64 {
        let lowest = |bits: u64| bits & bits.wrapping_neg();
        match self {
            Self::Lowest(most) => (0..most).fold(0, |all, _| all | lowest(free & !all)),
            Self::Zero if zero != 0 => lowest(zero),
            Self::Zero => lowest(free),
        }
    }
}

/// What should be so.
pub struct Model {
    pub managed: Frames,
    pub tree: Frames,
    pub held: Frames,
    /// Free frames, in the tree or in a cache, that are known to hold zeros.
    pub zero: Frames,
    pub caches: [Cache; CPUS],
    /// The 128 MiB that each CPU's last block came from, by number.
    pub last_block: [Option<u64>; CPUS],
    pub machine: Machine,
}

/// Blocks that share a word of truth, in frames: 128 MiB.
const NEAR: u64 = 64 * BLOCK;

impl Model {
    pub fn new(regions: &[(u64, u64)], machine: Machine) -> Self {
        let managed = Frames::of(regions);
        let tree = managed.clone();
        let [held, zero] = [Frames::default(), Frames::default()];
        let (caches, last_block) = ([Cache::default(); CPUS], [None; CPUS]);
        Self { managed, tree, held, zero, caches, last_block, machine }
    }

    pub fn cached(&self) -> u64 {
        self.caches.iter().map(Cache::count).sum()
    }

    fn cached_elsewhere(&self, cpu: usize) -> u64 {
        let others = self.caches.iter().enumerate().filter(|(other, _)| *other != cpu);
        others.map(|(_, cache)| cache.count()).sum()
    }

    pub fn count_free(&self) -> FreeCount {
        FreeCount {
            frames: self.tree.count(),
            blocks: self.tree.whole(BLOCK).count() as u64,
            giants: self.tree.whole(GIANT).count() as u64,
        }
    }

    /// Every use of a slot ends with serving a request that is there.
    pub fn leave(&mut self, cpu: usize) {
        if self.caches.get(cpu).is_some_and(|cache| cache.is_asked_to_drain) {
            self.drain(cpu);
        }
    }

    pub fn drain(&mut self, cpu: usize) {
        let Some(cache) = self.caches.get_mut(cpu) else { return };
        let old = std::mem::take(cache);
        let is_few = (1..8).contains(&old.free_side.bits.count_ones());
        cache.passed = if is_few { old.free_side.group } else { old.passed };
        old.frames().0.into_iter().for_each(|(group, bits)| self.tree.insert(group, bits));
    }

    /// The block that waits in a cache goes to the tree.
    fn unpark(&mut self, cpu: usize) {
        let parked = self.caches.get_mut(cpu).and_then(|cache| cache.parked.take());
        parked.iter().for_each(|first| self.tree.insert_range(*first, BLOCK));
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
    pub fn free(&mut self, cpu: usize, frame: u64, is_kept: bool) -> Result<(), Found> {
        let freed = self.free_once(cpu, frame, is_kept);
        self.leave(cpu);
        freed
    }

    pub fn free_once(&mut self, cpu: usize, frame: u64, is_kept: bool) -> Result<(), Found> {
        let (group, bit) = (frame / GROUP, 1 << (frame % GROUP));
        if self.caches.get(cpu).is_some_and(|cache| cache.parked == Some(frame / BLOCK * BLOCK)) {
            self.unpark(cpu);
        }
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
    pub fn alloc(&mut self, cpu: usize, given: Option<u64>) -> Result<u64, AllocError> {
        let (group, bit) =
            self.ask_others(cpu, |model| model.alloc_once(cpu, Pick::Lowest(1), given))?;
        self.zero.forget(group, bit);
        Ok(group * GROUP + u64::from(bit.trailing_zeros()))
    }

    /// The same for a frame of zeros; and whether it has to be cleared.
    pub fn alloc_zeroed(
        &mut self,
        cpu: usize,
        given: Option<u64>,
    ) -> Result<(u64, bool), AllocError> {
        let (group, bit) =
            self.ask_others(cpu, |model| model.alloc_once(cpu, Pick::Zero, given))?;
        let is_dirty = self.zero.forget(group, bit) == 0;
        Ok((group * GROUP + u64::from(bit.trailing_zeros()), is_dirty))
    }

    /// What a list with this many holes gets; `given` is what it got.
    pub fn alloc_bulk(&mut self, cpu: usize, holes: usize, given: &[u64]) -> Vec<u64> {
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

    pub fn alloc_whole(
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
        if cache.alloc_side.bits == 0 {
            self.unpark(cpu);
        }
        let cache = &mut self.caches[cpu];
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
    pub fn take(&mut self, start: u64, count: u64) {
        self.tree.remove_range(start, count);
        self.held.insert_range(start, count);
        pieces(start, count).for_each(|(group, bits)| _ = self.zero.forget(group, bits));
    }

    /// The lowest; or, of blocks, the lowest in the word that this CPU's last one came from.
    fn alloc_whole_once(&mut self, cpu: usize, size: u64, given: Option<u64>) -> Option<u64> {
        if size == BLOCK
            && let Some(parked) = self.caches.get_mut(cpu).and_then(|cache| cache.parked.take())
        {
            self.held.insert_range(parked, size);
            pieces(parked, size).for_each(|(group, bits)| _ = self.zero.forget(group, bits));
            return Some(parked);
        }
        self.unpark(cpu);
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
    pub fn free_whole(&mut self, cpu: usize, start: u64, size: u64) -> Result<(), Found> {
        let freed = self.free_whole_near(cpu, start, size);
        self.leave(cpu);
        freed
    }

    fn free_whole_near(&mut self, cpu: usize, start: u64, size: u64) -> Result<(), Found> {
        let Some(cache) = self.caches.get(cpu) else { return self.free_whole_once(start, size, 0) };
        let is_right = size == BLOCK
            && start.is_multiple_of(BLOCK)
            && self.managed.count_in(start, BLOCK) == BLOCK
            && self.tree.count_in(start, BLOCK) == 0
            && !cache.is_open_in(start, BLOCK);
        if is_right && cache.parked.is_none() && self.would_be_next(cpu, start) {
            self.held.remove_range(start, BLOCK);
            self.caches[cpu].parked = Some(start);
            return Ok(());
        }
        if !is_right || cache.parked >= Some(start) {
            self.unpark(cpu);
        }
        let held = self.caches[cpu].frames();
        let cached = held.count_in(start / size * size, size);
        self.free_whole_once(start, size, cached)
    }

    /// Whether a block is, or would be, the lowest of those that this CPU's last one came from.
    fn would_be_next(&self, cpu: usize, start: u64) -> bool {
        let word = start / NEAR;
        let mut below = self.tree.whole(BLOCK).filter(|first| first / NEAR == word);
        self.last_block[cpu] == Some(word) && below.all(|first| first > start)
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
    pub fn flush(&mut self, group: u64, bits: u64, zero: u64) -> Result<(), FreeError> {
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
