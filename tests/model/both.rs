//! The pool and the model side by side: each step is done to both, and they have to agree.

use std::cell::Cell;

use frametree::{
    CpuId, Drained, Found, Frame, FrameNumber, FreeCount, FreeError, OutOfMemory, PageCache,
};
use proptest::sample::Index;

use crate::CPUS;
use crate::naive::{Cache, Model};
use crate::steps::Step;
use crate::support::frames::GROUP;
use crate::support::{self, BLOCK, GIANT, Machine, Pool, Threads};

/// The pool and the model side by side.
pub struct Both {
    pool: Pool,
    model: Model,
    first: FreeCount,
}

pub fn frame(number: u64) -> Frame {
    // SAFETY: the tests use no memory; the model owns what is freed in earnest.
    unsafe { Frame::from_number(FrameNumber::new(number)) }
}

pub fn refused(frame: u64, result: Result<(), Found>) -> Result<(), FreeError> {
    result.map_err(|found| FreeError { frame: FrameNumber::new(frame), found })
}

pub fn number(frame: Result<Frame, OutOfMemory>) -> Option<u64> {
    frame.ok().map(|frame| frame.into_number().get())
}

impl Both {
    pub fn new(regions: &[(u64, u64)], machine: Machine) -> Self {
        let pool = support::pool(machine, CPUS, regions);
        Machine::serves(pool);
        let model = Model::new(regions, machine);
        let both = Self { pool, first: model.count_free(), model };
        both.compare();
        both
    }

    pub fn alloc(&mut self, cpu: usize) -> bool {
        Threads::become_cpu(cpu);
        let given = self.pool.alloc().map(|frame| frame.into_number().get());
        assert_eq!(given, self.model.alloc(cpu, given.ok()), "alloc on CPU {cpu}");
        given.is_ok()
    }

    pub fn free(&mut self, cpu: usize, number: u64) {
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

    pub fn alloc_zeroed(&mut self, cpu: usize) -> bool {
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

    pub fn alloc_bulk(&mut self, cpu: usize, places: usize, full: usize) {
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

    pub fn alloc_whole(&mut self, cpu: usize, size: u64) -> bool {
        Threads::become_cpu(cpu);
        let given = if size == BLOCK { self.pool.alloc_block() } else { self.pool.alloc_giant() };
        let given = given.map(|frame| frame.into_number().get());
        let due = self.model.alloc_whole(cpu, size, given.ok());
        assert_eq!(given, due, "{size} frames on CPU {cpu}");
        given.is_ok()
    }

    pub fn free_whole(&mut self, cpu: usize, first: u64, size: u64) {
        let mut others = (0..CPUS).filter(|other| *other != cpu);
        let inside = |cache: &Cache| cache.frames().count_in(first / size * size, size) > 0;
        let cached = others.any(|other| inside(&self.model.caches[other]));
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
    pub fn refill(&mut self, take: u32, zero: u64) {
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
        let cached = self.model.caches.iter().map(|cache| cache.frames().group(group));
        let cached = cached.fold(0, |all, bits| all | bits);
        let bits = bits & !cached;
        let base = FrameNumber::new(group * GROUP);
        // SAFETY: deliberately wrong; the tree must refuse what is.
        let mut cache = unsafe { PageCache::from_parts(base, bits, 0) };
        let said = self.pool.tree().expect("a tree").flush(&mut cache);
        let due = if bits == 0 { Ok(()) } else { self.model.flush(group, bits, 0) };
        assert_eq!(said, due, "a flush of {bits:#x} to group {group:#x}");
    }

    pub fn held(&self, which: &Index) -> Option<u64> {
        let count = self.model.held.count();
        self.model.held.nth(which.index(count.max(1) as usize) as u64)
    }

    /// Any managed frame.
    pub fn managed(&self, which: &Index) -> u64 {
        let at = which.index(self.model.managed.count() as usize);
        self.model.managed.nth(at as u64).expect("a managed frame")
    }

    pub fn run(&mut self, step: &Step) {
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
                let cached = cache.frames();
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
    pub fn compare(&self) {
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
    pub fn account(&self) {
        let (tree, cached) = (self.model.tree.count(), self.model.cached());
        assert_eq!(self.model.managed.count(), tree + cached + self.model.held.count());
        let stats = self.pool.stats();
        assert_eq!(stats.managed_frames, self.model.managed.count());
        assert_eq!((stats.free_frames, stats.cached_frames), (tree + cached, cached));
        assert_eq!(stats.late_double_frees, 0);
    }

    /// Gives everything back; the tree must be as it was at first.
    pub fn finish(&mut self) {
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
