//! Sequences of everything that the allocator can do, by several CPUs that one thread plays, with
//! steps in the middle of others, against a naive allocator: sets of frames. It does not
//! know what caches hold, so which frame comes is the pool's choice; that it was free, and to be
//! had, is not.
//!
//! After each step nothing is lost and nothing is there twice: free (in the tree, in a cache, or
//! set aside), held, gone, and become metadata are all. At rest an answer that there is nothing
//! must be true. What changes the memory itself is in [`reshape`](super::reshape).

use std::cell::{Cell, RefCell};

use frametree::{
    AllocError, CpuId, Drained, Found, Frame, FrameNumber, FrameRange, FrameTree, FreeCount,
    FreeError, InTheWay, NoRun, NumberRange, PageCache,
};

use super::asked::{Asked, FRAMES};
use super::frames::{Frames, GROUP};
use super::reshape::{Reshape, Shape};
use super::stepping::Interrupt;
use super::{BLOCK, GIANT, Machine, Pool, Threads, frame, with_pool};

/// CPUs with a slot; one more takes part without.
pub const CPUS: usize = 3;
/// An operation, one in the middle of it, and one in the middle of that.
pub const DEPTH: usize = 3;

/// One step of a sequence.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Step {
    /// May be one too high: a CPU without a cache.
    pub cpu: usize,
    /// In the middle of the step before this one, after so many of its instructions.
    pub inside: Option<u16>,
    pub op: Op,
}

/// What it does. `which` chooses among what is held, as many times over as needed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Op {
    Alloc {
        count: u16,
    },
    AllocZeroed {
        count: u16,
    },
    AllocBulk {
        count: u16,
    },
    AllocBlock,
    AllocGiant,
    AllocRun {
        asked: Asked,
    },
    /// Held ones of every `stride`-th frame from the chosen one upward.
    Free {
        which: u32,
        count: u16,
        stride: u16,
    },
    FreeZeroed {
        which: u32,
        count: u16,
        stride: u16,
    },
    /// The same, and another is taken each time before the next is freed; first so many are taken.
    Replace {
        before: u16,
        which: u32,
        count: u16,
        stride: u16,
    },
    FreeBulk {
        which: u32,
        count: u16,
        stride: u16,
    },
    FreeBlock {
        which: u32,
    },
    FreeGiant {
        which: u32,
    },
    /// So many, or as many as are held in a row from the chosen one on.
    FreeRun {
        which: u32,
        count: u32,
    },
    Drain,
    DrainOffline {
        other: usize,
    },
    /// The same on the tree alone.
    TreeAlloc {
        count: u16,
    },
    TreeAllocRun {
        asked: Asked,
    },
    TreeFreeRun {
        which: u32,
        count: u32,
    },
    /// A cache of the caller's: so many frames in runs of `run` are taken, the rest goes back.
    Refill {
        take: u8,
        run: u8,
    },
    /// Frees of any number whatever.
    Wild {
        number: u64,
        size: Size,
    },
    /// Memory comes or goes.
    Reshape {
        how: Reshape,
    },
}

/// What a free says that it frees.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Size {
    One,
    Zeroed,
    Block,
    Giant,
    Run(u64),
    /// These bits of the number's group.
    Group(u64),
}

#[derive(Default)]
pub(super) struct Sets {
    /// Those that ever were.
    pub managed: Frames,
    /// Those that are isolated too, if nobody holds them.
    pub free: Frames,
    pub held: Frames,
    /// Of the free ones, those that hold zeros.
    pub zero: Frames,
    /// Those that are off line or retired.
    pub gone: Frames,
    /// Those that isolations have taken for their metadata.
    pub metadata: Frames,
}

/// A pool and what should be so.
pub(super) struct Play {
    pub pool: Pool,
    machine: Machine,
    pub sets: RefCell<Sets>,
    first: FreeCount,
    pub shape: Shape,
    /// The CPUs that are in the middle of an operation, and how many isolations there had been when
    /// it began.
    suspended: RefCell<Vec<(usize, u64)>>,
    /// The CPUs whose slots are being drained by others.
    is_drained: RefCell<Vec<usize>>,
    /// Whether a step came in the middle of the one at hand.
    is_disturbed: Cell<bool>,
}

/// Plays a sequence on a pool of this memory, whose metadata was full of `garbage`; panics at the
/// first answer that is wrong. Returns how many steps came in the middle of another.
pub fn play(machine: Machine, regions: &[(u64, u64)], garbage: u64, steps: &[Step]) -> usize {
    with_pool(machine, CPUS, regions, garbage, |pool| {
        let play = Play::new(machine, pool, regions);
        let mut left = steps;
        let mut nested = 0;
        while let [_, others @ ..] = left {
            let inner = others.iter().take(DEPTH - 1).take_while(|step| step.inside.is_some());
            let (now, later) = left.split_at(1 + inner.count());
            play.is_disturbed.set(false);
            nested += play.steps(now);
            play.at_rest();
            left = later;
        }
        play.end();
        nested
    })
}

impl Play {
    fn new(machine: Machine, pool: Pool, regions: &[(u64, u64)]) -> Self {
        let managed = Frames::of(regions);
        let free = managed.clone();
        let first = pool.tree().expect("a tree").count_free();
        let play = Self {
            pool,
            machine,
            sets: RefCell::new(Sets { managed, free, ..Sets::default() }),
            first,
            shape: Shape::default(),
            suspended: RefCell::default(),
            is_drained: RefCell::default(),
            is_disturbed: false.into(),
        };
        assert_eq!(first, play.count());
        play.at_rest();
        play
    }

    pub(super) fn tree(&self) -> &'static FrameTree<'static> {
        self.pool.tree().expect("a tree")
    }

    /// The first of some steps, with the others inside it, each in the one before; returns how many
    /// did come there.
    fn steps(&self, steps: &[Step]) -> usize {
        let [step, inner @ ..] = steps else { return 0 };
        let cpu = current().get();
        let nested = Cell::new(0);
        let work = || {
            self.is_disturbed.set(true);
            nested.set(1 + self.steps(inner));
        };
        let at = inner.first().and_then(|step| step.inside);
        let interrupt = Interrupt::new(u32::from(at.unwrap_or(0)), &work);
        if inner.is_empty() {
            interrupt.cancel();
        }
        Threads::become_cpu(step.cpu);
        self.suspended.borrow_mut().push((step.cpu, self.shape.begun()));
        self.run(&interrupt, step);
        self.suspended.borrow_mut().pop();
        if !interrupt.is_over() {
            // It was over too soon: what was to come in the middle comes now.
            self.steps(inner);
        }
        Threads::become_cpu(cpu);
        nested.get()
    }

    fn run(&self, mid: &Interrupt<'_>, step: &Step) {
        match step.op {
            Op::Alloc { count } => self.alloc(mid, count),
            Op::AllocZeroed { count } => self.alloc_zeroed(mid, count),
            Op::AllocBulk { count } => self.alloc_bulk(mid, count),
            Op::AllocBlock => self.alloc_whole(mid, BLOCK),
            Op::AllocGiant => self.alloc_whole(mid, GIANT),
            Op::AllocRun { asked } => self.alloc_run(mid, asked, From::Pool),
            Op::Free { which, count, stride } => {
                for number in self.chosen(which, count, stride) {
                    self.free(mid, number);
                }
            }
            Op::Replace { before, which, count, stride } => {
                self.alloc(mid, before);
                for number in self.chosen(which, count, stride) {
                    self.free(mid, number);
                    self.alloc(mid, 1);
                }
            }
            Op::FreeZeroed { which, count, stride } => {
                for number in self.chosen(which, count, stride) {
                    if !self.give_if_held(number) {
                        continue;
                    }
                    self.clear(number);
                    // SAFETY: the memory is not real; the sets say that it is zero.
                    let freed = mid.during(|| unsafe { self.pool.free_zeroed(frame(number)) });
                    assert_eq!(freed, Ok(()), "frame {number:#x} was held");
                    self.has_served();
                }
            }
            Op::FreeBulk { which, count, stride } => self.free_bulk(mid, which, count, stride),
            Op::FreeBlock { which } => self.free_whole(mid, which, BLOCK),
            Op::FreeGiant { which } => self.free_whole(mid, which, GIANT),
            Op::FreeRun { which, count } => self.free_run(mid, which, count, From::Pool),
            Op::Drain => {
                let drained = mid.during(|| self.pool.drain()).expect("no double frees");
                assert!(drained == Drained::Done || self.is_disturbed.get(), "{drained:?}");
                self.has_served();
            }
            Op::DrainOffline { other } => {
                // Nor does anybody else drain it in its stead.
                if !self.is_suspended(other) && !self.is_drained.borrow().contains(&other) {
                    self.is_drained.borrow_mut().push(other);
                    // SAFETY: one thread plays all CPUs, and this one is not inside the pool.
                    let drained =
                        mid.during(|| unsafe { self.pool.drain_offline(CpuId::new(other)) });
                    self.is_drained.borrow_mut().pop();
                    assert_eq!(drained, Ok(Drained::Done));
                    self.has_drained(other);
                }
            }
            Op::TreeAlloc { count } => self.tree_alloc(mid, count),
            Op::TreeAllocRun { asked } => self.alloc_run(mid, asked, From::Tree),
            Op::TreeFreeRun { which, count } => self.free_run(mid, which, count, From::Tree),
            Op::Refill { take, run } => self.refill(mid, take, run),
            Op::Wild { number, size } => self.wild(step.cpu, number % (FRAMES + 1), size),
            Op::Reshape { how } => self.reshape(mid, how),
        }
    }

    fn free(&self, mid: &Interrupt<'_>, number: u64) {
        if self.give_if_held(number) {
            let freed = mid.during(|| self.pool.free(frame(number)));
            assert_eq!(freed, Ok(()), "frame {number:#x} was held");
            self.has_served();
        }
    }

    fn alloc(&self, mid: &Interrupt<'_>, count: u16) {
        for _ in 0..count {
            match mid.during(|| self.pool.alloc()) {
                Ok(taken) => self.take(taken.into_number().get(), 1, From::Pool),
                Err(error) => return self.is_out(error),
            }
            self.has_served();
        }
    }

    fn alloc_zeroed(&self, mid: &Interrupt<'_>, count: u16) {
        for _ in 0..count {
            let cleared = Cell::new(None);
            let clear = |frame: &Frame| cleared.set(Some(frame.number().get()));
            match mid.during(|| self.pool.alloc_zeroed(clear)) {
                Ok(taken) => {
                    let number = taken.into_number().get();
                    match cleared.get() {
                        Some(cleared) => assert_eq!(cleared, number),
                        None => self.is_zero(number, 1),
                    }
                    self.take(number, 1, From::Pool);
                }
                Err(error) => return self.is_out(error),
            }
            self.has_served();
        }
    }

    fn alloc_bulk(&self, mid: &Interrupt<'_>, count: u16) {
        let mut list: Vec<_> = (0..count).map(|_| None).collect();
        let filled = mid.during(|| self.pool.alloc_bulk(&mut list));
        assert!(list[..filled].iter().all(Option::is_some));
        assert!(list[filled..].iter().all(Option::is_none));
        list.into_iter()
            .flatten()
            .for_each(|frame| self.take(frame.into_number().get(), 1, From::Pool));
        if filled < usize::from(count) && self.is_exact() {
            assert_eq!(self.tree().count_free().frames, 0, "{filled} of {count} were filled");
        }
        self.has_served();
    }

    fn free_bulk(&self, mid: &Interrupt<'_>, which: u32, count: u16, stride: u16) {
        let chosen = self.chosen(which, count, stride);
        chosen.iter().for_each(|number| self.give(*number, 1));
        let mut list: Vec<_> = chosen.into_iter().map(|number| Some(frame(number))).collect();
        assert_eq!(mid.during(|| self.pool.free_bulk(&mut list)), Ok(()));
        assert!(list.iter().all(Option::is_none));
        self.has_served();
    }

    /// A block, or a GiB.
    fn alloc_whole(&self, mid: &Interrupt<'_>, size: u64) {
        let taken = mid.during(|| match size {
            BLOCK => self.pool.alloc_block(),
            _ => self.pool.alloc_giant(),
        });
        match taken {
            Ok(taken) => {
                let first = taken.into_number().get();
                assert!(first.is_multiple_of(size), "frame {first:#x}");
                self.take(first, size, From::Pool);
            }
            Err(AllocError::NoneWhole { frames, cached_elsewhere, .. }) => {
                assert_eq!(frames, size);
                if self.is_exact() {
                    let FreeCount { blocks, giants, .. } = self.tree().count_free();
                    assert_eq!(if size == BLOCK { blocks } else { giants }, 0);
                    assert!(cached_elsewhere <= self.pool.stats().cached_frames);
                }
            }
            Err(error) => panic!("{error}"),
        }
        self.has_served();
    }

    fn free_whole(&self, mid: &Interrupt<'_>, which: u32, size: u64) {
        let all: Vec<_> = self.sets.borrow().held.whole(size).collect();
        let Some(first) = all.get(which as usize % all.len().max(1)).copied() else { return };
        self.give(first, size);
        let freed = mid.during(|| match size {
            BLOCK => self.pool.free_block(frame(first)),
            _ => self.pool.free_giant(frame(first)),
        });
        assert_eq!(freed, Ok(()), "{size} frames from {first:#x} on were held");
        self.has_served();
    }

    fn free_run(&self, mid: &Interrupt<'_>, which: u32, count: u32, to: From) {
        let Some(start) = self.chosen(which, 1, 1).first().copied() else { return };
        let count = self.sets.borrow().held.run_from(start).min(u64::from(count));
        self.give(start, count);
        let freed = mid.during(|| match to {
            From::Pool => self.pool.free_run(run(start, count)),
            From::Tree => self.tree().free_run(run(start, count)),
        });
        assert_eq!(freed, Ok(()), "{count} frames from {start:#x} on were held");
        if to == From::Pool {
            self.has_served();
        }
    }

    fn alloc_run(&self, mid: &Interrupt<'_>, asked: Asked, from: From) {
        let request = asked.request();
        let none_cached = self.pool.stats().cached_frames == 0;
        let due = self.available().first_run(asked);
        let mut dirty = [(0, 0); 64];
        let mut count = 0;
        let taken = mid.during(|| match from {
            From::Pool => self.pool.alloc_run(&request),
            From::Tree => self.tree().alloc_run_zeroed(&request, |run| {
                if let Some(dirty) = dirty.get_mut(count) {
                    *dirty = (run.start().get(), run.len());
                }
                count += 1;
            }),
        });
        match taken {
            Ok(taken) => {
                let run = taken.into_numbers();
                let first = run.start().get();
                assert_eq!(run.len(), asked.count);
                assert!(asked.makes_sense() && asked.allows(first), "frame {first:#x}, {asked:?}");
                // A small one may come from a cache, and what is cached is not in the tree.
                let is_small = request.is_plain() && asked.count <= GROUP;
                if self.is_exact() && none_cached && !(from == From::Pool && is_small) {
                    assert_eq!(Some(first), due, "{asked:?}");
                }
                if from == From::Tree && count <= dirty.len() {
                    self.is_clean_but(&dirty[..count], first, asked.count);
                }
                self.take(first, asked.count, from);
            }
            Err(error) => self.is_no_run(asked, error),
        }
        if from == From::Pool && asked.makes_sense() {
            self.has_served();
        }
    }

    /// What is right about there being no such run.
    fn is_no_run(&self, asked: Asked, error: AllocError) {
        if let AllocError::Request(error) = error {
            return assert!(!asked.makes_sense(), "{error}: {asked:?}");
        }
        assert!(asked.makes_sense(), "{error}: {asked:?}");
        if !self.is_exact() {
            return;
        }
        let (sets, available) = (self.sets.borrow(), self.available());
        let none_cached = self.pool.stats().cached_frames == 0;
        match error {
            AllocError::InTheWay { frame, why } => {
                let place = asked.place().expect("a place that was named");
                assert!((place..place + asked.count).contains(&frame.get()));
                let is_unmanaged = self.is_unmanaged(frame.get());
                assert!(why != InTheWay::Unmanaged || is_unmanaged != Some(false), "{error}");
                assert!(why == InTheWay::Unmanaged || is_unmanaged != Some(true), "{error}");
                if none_cached {
                    assert_eq!(available.first_missing(place, asked.count), Some(frame.get()));
                }
            }
            AllocError::NoRun(NoRun { request, free, longest, .. }) => {
                assert_eq!(request, asked.request());
                assert_eq!(free, self.tree().count_free().frames, "{error}");
                if none_cached {
                    let with = |frames: &Frames, count| frames.first_run(Asked { count, ..asked });
                    assert_eq!(with(&available, asked.count), None, "{error}");
                    assert!(longest == 0 || with(&sets.free, longest).is_some(), "{error}");
                    assert_eq!(with(&available, longest + 1), None, "{error}");
                }
            }
            error => panic!("{error}"),
        }
    }

    fn tree_alloc(&self, mid: &Interrupt<'_>, count: u16) {
        for _ in 0..count {
            match mid.during(|| self.tree().alloc()) {
                Ok(taken) => self.take(taken.into_number().get(), 1, From::Tree),
                Err(_) if self.is_exact() => {
                    return assert_eq!(self.tree().count_free().frames, 0);
                }
                Err(_) => return,
            }
        }
    }

    fn refill(&self, mid: &Interrupt<'_>, take: u8, run: u8) {
        let tree = self.tree();
        let Ok(mut cache) = mid.during(|| tree.refill()) else {
            assert!(!self.is_exact() || tree.count_free().frames == 0);
            return;
        };
        let (base, known) = (cache.base().get(), cache.known_zero());
        assert!(base.is_multiple_of(GROUP) && cache.free() != 0 && known & !cache.free() == 0);
        numbers(base, known).for_each(|number| self.is_zero(number, 1));
        numbers(base, cache.free()).for_each(|number| self.take(number, 1, From::Tree));
        for _ in 0..take {
            let Some(taken) = cache.alloc_n(u32::from(run % 64) + 1) else { break };
            assert_eq!(taken.frames.into_numbers().len(), u64::from(run % 64) + 1);
        }
        // What is known of the rest still is.
        numbers(base, cache.free()).for_each(|number| self.give(number, 1));
        numbers(base, cache.known_zero()).for_each(|number| self.clear(number));
        assert_eq!(mid.during(|| cache.flush(tree)), Ok(()));
        assert!(cache.is_empty());
    }

    /// A free of anything: right, if it is held; else refused, with nothing changed. Only at rest,
    /// and not of what other CPUs have cached, which is documented as undetected.
    fn wild(&self, cpu: usize, number: u64, size: Size) {
        if self.suspended.borrow().len() > 1 {
            return;
        }
        let is_to_drain = |other: usize| {
            // Who was asked to may take back what is gone, and only then notices.
            other != cpu || matches!(size, Size::Group(_)) || self.shape.stale[other].get()
        };
        for other in (0..CPUS).filter(|other| is_to_drain(*other)) {
            // SAFETY: one thread plays all CPUs, and none is inside the pool.
            unsafe { self.pool.drain_offline(CpuId::new(other)) }.expect("no double frees");
            self.has_drained(other);
        }
        let (first, count) = match size {
            Size::One | Size::Zeroed => (number, 1),
            Size::Block => (number, BLOCK),
            Size::Giant => (number, GIANT),
            Size::Run(count) => (number, count.min(FRAMES - number)),
            Size::Group(bits) => return self.wild_group(number / GROUP * GROUP, bits),
        };
        if self.sets.borrow().metadata.first_of(first, count).is_some() {
            // In use, as far as anybody knows.
            return;
        }
        let wrong = self.sets.borrow().held.first_missing(first, count);
        let is_aligned = !matches!(size, Size::Block | Size::Giant) || first.is_multiple_of(count);
        let is_right = is_aligned && wrong.is_none();
        if is_right {
            self.give(first, count);
            if size == Size::Zeroed {
                self.clear(first);
            }
        }
        let said = match size {
            Size::One => self.pool.free(frame(first)),
            // SAFETY: the memory is not real; if the frame is held it is zero.
            Size::Zeroed => unsafe { self.pool.free_zeroed(frame(first)) },
            Size::Block => self.pool.free_block(frame(first)),
            Size::Giant => self.pool.free_giant(frame(first)),
            _ => self.pool.free_run(run(first, count)),
        };
        match said {
            Ok(()) => assert!(is_right, "{count} from {first:#x} on: {wrong:x?} is not held"),
            Err(error) => {
                assert!(!is_right, "{error}, but {count} from {first:#x} on are held");
                let named = if matches!(size, Size::Run(_)) { wrong } else { Some(first) };
                assert_eq!(Some(error.frame.get()), named, "{error}");
                self.is_found(error, count);
            }
        }
    }

    /// What an error says that it found is there.
    fn is_found(&self, FreeError { frame, found }: FreeError, count: u64) {
        let sets = self.sets.borrow();
        let at = frame.get();
        let free = sets.free.contains(at);
        match found {
            Found::Free | Found::FreeBlock | Found::FreeGiant | Found::Cached => assert!(free),
            Found::Misaligned { frames } => {
                assert!(frames == count && !at.is_multiple_of(frames));
            }
            Found::PartlyFree { free } => {
                let missing = (at..at + count).filter(|at| sets.free.contains(*at)).count() as u64;
                assert!(free > 0 && free <= missing, "{free} of {missing}");
            }
            Found::Unmanaged => assert!(self.may_be_unmanaged(at, count)),
            found => panic!("{found:?}"),
        }
    }

    /// Some frames of a group, by a flush.
    fn wild_group(&self, base: u64, bits: u64) {
        if base >= FRAMES {
            return;
        }
        let held = self.sets.borrow().held.group(base / GROUP) & bits;
        if self.sets.borrow().metadata.group(base / GROUP) & bits != 0 {
            return;
        }
        numbers(base, held).for_each(|number| self.give(number, 1));
        // SAFETY: what is not held must be refused.
        let mut cache = unsafe { PageCache::from_parts(FrameNumber::new(base), bits, 0) };
        let said = cache.flush(self.tree());
        assert_eq!(said.is_ok(), held == bits, "{said:?}, {bits:#x} at {base:#x}, held {held:#x}");
        if let Err(error) = said {
            let at = error.frame.get().wrapping_sub(base);
            assert!(at < GROUP && (bits & !held) >> at & 1 != 0, "{error}");
        }
    }

    /// Held ones of every `stride`-th frame from the chosen one upward.
    pub(super) fn chosen(&self, which: u32, count: u16, stride: u16) -> Vec<u64> {
        let held = &self.sets.borrow().held;
        let Some(first) = held.nth(u64::from(which) % held.count().max(1)) else {
            return Vec::new();
        };
        let places = (0..u64::from(count)).map(|at| first + at * u64::from(stride.max(1)));
        places.filter(|number| held.contains(*number)).collect()
    }

    /// Frames come out: they must have been free, and to be had.
    fn take(&self, first: u64, count: u64, from: From) {
        self.is_to_be_had(first, count, from);
        let Sets { free, held, zero, .. } = &mut *self.sets.borrow_mut();
        let missing = free.first_missing(first, count);
        assert_eq!(
            missing, None,
            "{count} frames from {first:#x} on came out, and one is not free"
        );
        free.remove_range(first, count);
        zero.forget_range(first, count);
        held.insert_range(first, count);
    }

    /// Frames go back, from now on: somebody may have them before their free returns.
    fn give(&self, first: u64, count: u64) {
        let Sets { free, held, .. } = &mut *self.sets.borrow_mut();
        held.remove_range(first, count);
        free.insert_range(first, count);
    }

    /// The same for one that an interrupt may have given back meanwhile; whether it has not.
    fn give_if_held(&self, number: u64) -> bool {
        let is_held = self.sets.borrow().held.contains(number);
        if is_held {
            self.give(number, 1);
        }
        is_held
    }

    /// A free frame is known to hold zeros.
    fn clear(&self, number: u64) {
        self.sets.borrow_mut().zero.insert(number / GROUP, 1 << (number % GROUP));
    }

    pub(super) fn is_suspended(&self, cpu: usize) -> bool {
        self.suspended.borrow().iter().any(|(suspended, _)| *suspended == cpu)
    }

    /// The CPU of the operation at hand, if it has its slot, and how many isolations there had been
    /// when it began.
    pub(super) fn at_hand(&self) -> (Option<usize>, u64) {
        let suspended = self.suspended.borrow();
        let (cpu, begun) = *suspended.last().expect("an operation");
        let times = suspended.iter().filter(|(other, _)| *other == cpu).count();
        ((cpu < CPUS && times == 1).then_some(cpu), begun)
    }

    /// Whether a CPU that is asked to drain does so at once.
    pub(super) fn drains(&self, cpu: usize) -> bool {
        let (this, _) = self.at_hand();
        this == Some(cpu) || self.machine == Machine::Waits && !self.is_suspended(cpu)
    }

    fn is_zero(&self, first: u64, count: u64) {
        let dirty = self.sets.borrow().zero.first_missing(first, count);
        assert_eq!(dirty, None, "a frame that is said to be zero is not");
    }

    /// Of a run, all but what lies in these stretches is zero.
    fn is_clean_but(&self, dirty: &[(u64, u64)], first: u64, count: u64) {
        let mut at = first;
        for (start, frames) in dirty {
            assert!(*start >= at && start + frames <= first + count, "{dirty:x?}");
            self.is_zero(at, start - at);
            at = start + frames;
        }
        self.is_zero(at, first + count - at);
    }

    /// Whether an answer must be true to the frame: nothing else was under way.
    pub(super) fn is_exact(&self) -> bool {
        self.suspended.borrow().len() == 1 && !self.is_disturbed.get()
    }

    fn is_out(&self, error: AllocError) {
        let AllocError::OutOfMemory { cached_elsewhere } = error else { panic!("{error}") };
        if self.is_exact() {
            let all = self.sets.borrow().free.count();
            assert!((self.available().count()..=all).contains(&cached_elsewhere), "{error}");
        }
    }

    /// What the sets say is free as a whole, if no cache holds anything.
    fn count(&self) -> FreeCount {
        let free = &self.sets.borrow().free;
        FreeCount {
            frames: free.count(),
            blocks: free.whole(BLOCK).count() as u64,
            giants: free.whole(GIANT).count() as u64,
        }
    }

    /// Conservation, and every invariant.
    fn at_rest(&self) {
        let stats = self.pool.stats();
        let Sets { managed, free, held, gone, metadata, .. } = &*self.sets.borrow();
        let (gone, managed) = (gone.count(), managed.count());
        let set_aside = self.set_aside();
        assert_eq!(stats.managed_frames, managed - gone);
        assert_eq!(stats.free_frames + set_aside, free.count());
        assert_eq!(free.count() + held.count() + metadata.count() + gone, managed);
        assert_eq!(self.tree().count_free().frames + stats.cached_frames, stats.free_frames);
        assert!(set_aside <= free.count() - self.available().count());
        assert_eq!(stats.late_double_frees, 0);
        self.pool.verify().unwrap_or_else(|broken| panic!("{broken}"));
    }

    fn drain_all(&self) {
        for cpu in 0..CPUS {
            // SAFETY: one thread plays all CPUs, and none is inside the pool.
            let drained = unsafe { self.pool.drain_offline(CpuId::new(cpu)) };
            assert_eq!(drained, Ok(Drained::Done));
            self.has_drained(cpu);
        }
    }

    /// Everything goes back; all must be as it was at first, also the summaries.
    fn end(&self) {
        self.drain_all();
        if self.shape.isolations.borrow().is_empty() {
            assert_eq!(self.tree().count_free(), self.count());
        }
        let held: Vec<_> = self.sets.borrow().held.stretches().collect();
        for (start, count) in held {
            self.give(start, count);
            assert_eq!(self.pool.free_run(run(start, count)), Ok(()));
        }
        self.drain_all();
        self.at_rest();
        self.end_reshaping();
        self.at_rest();
        assert_eq!(self.tree().count_free(), self.count());
        let Sets { metadata, .. } = &*self.sets.borrow();
        if metadata.count() == 0 && !self.shape.has_grown.get() {
            assert_eq!(self.tree().count_free(), self.first);
        }
    }
}

/// Where a run comes from and goes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum From {
    Pool,
    Tree,
}

fn run(start: u64, count: u64) -> FrameRange {
    // SAFETY: the tests use no memory; the sets say whose the frames are, or they are to be refused.
    unsafe { FrameRange::from_numbers(NumberRange::from_numbers(start, start + count)) }
}

/// The frames of a group.
fn numbers(base: u64, bits: u64) -> impl Iterator<Item = u64> {
    (0..GROUP).filter(move |bit| bits >> bit & 1 != 0).map(move |bit| base + bit)
}

fn current() -> CpuId {
    use frametree::Cpus as _;
    Threads.with_current(|cpu| cpu)
}
