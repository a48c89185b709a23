//! What a sequence does to the memory itself: it grows, ranges of it are isolated and go off line
//! or are readmitted, frames are retired, and what is gone is brought back. The naive allocator has
//! it simple: what is isolated stays free, but nobody may get it.
//!
//! What may still be handed out of an isolated range is what a CPU has cached that was asked to
//! drain and has not done so. A CPU that has ended an operation since has.
//!
//! In the middle of one such operation another one is left out where the naive allocator could not
//! tell which of the two has had which frames: see [`Play::is_left_out`].

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;

use frametree::{GrowError, InUse, IsolateError, Isolation, NumberRange};

use super::asked::FRAMES;
use super::frames::Frames;
use super::play::{CPUS, From, Play, Sets};
use super::stepping::Interrupt;
use super::{frame, later};

/// Frames that share their metadata of what is gone.
const SECTION: u64 = 64 * super::BLOCK;
/// How many of these an isolation may touch here.
const SECTIONS: usize = 64;
/// How many ranges can be isolated at a time.
const ISOLATIONS: usize = 16;

/// An operation on the memory itself. `which` chooses as in [`super::play::Op`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reshape {
    Isolate { start: u64, count: u64 },
    InUse { which: u32 },
    Offline { which: u32 },
    Readmit { which: u32 },
    Retire { which: u32 },
    BringBack { start: u64, count: u64 },
    Grow { start: u64, count: u64 },
}

/// An isolation, and how many came before it.
pub(super) struct Isolated {
    serial: u64,
    isolation: Isolation,
}

/// What should be so of the memory itself.
#[derive(Default)]
pub(super) struct Shape {
    pub isolations: RefCell<Vec<Isolated>>,
    begun: Cell<u64>,
    /// CPUs that were asked to drain, and may not have done so.
    pub stale: [Cell<bool>; CPUS],
    /// Sections with metadata of what is gone.
    prepared: RefCell<BTreeSet<u64>>,
    /// What is in the middle of being done.
    under_way: RefCell<Vec<Reshape>>,
    pub has_grown: Cell<bool>,
}

impl Shape {
    /// How many isolations there were so far.
    pub fn begun(&self) -> u64 {
        self.begun.get()
    }
}

impl Play {
    /// Does it, unless something is under way that it can't be told apart from.
    pub(super) fn reshape(&self, mid: &Interrupt<'_>, how: Reshape) {
        if self.is_left_out(&how) {
            return;
        }
        self.shape.under_way.borrow_mut().push(how);
        match how {
            Reshape::Isolate { start, count } => self.isolate(mid, start, count),
            Reshape::InUse { which } => self.look_in_use(mid, which),
            Reshape::Offline { which } => self.offline(mid, which),
            Reshape::Readmit { which } => {
                if let Some(Isolated { isolation, .. }) = self.chosen_isolation(which) {
                    mid.during(|| self.pool.readmit(isolation));
                }
            }
            Reshape::Retire { which } => self.retire(mid, which),
            Reshape::BringBack { start, count } => self.bring_back(mid, start, count),
            Reshape::Grow { start, count } => self.grow(mid, start, count),
        }
        self.shape.under_way.borrow_mut().pop();
    }

    /// Of two that make metadata of frames, or add a range, one might use what the other has made.
    /// Of what goes and comes at once nobody knows whether it is there.
    fn is_left_out(&self, how: &Reshape) -> bool {
        use Reshape::*;
        let makes_metadata = |how: &Reshape| match *how {
            Isolate { start, count } => !self.is_prepared(start, count),
            Retire { .. } => true,
            _ => false,
        };
        self.shape.under_way.borrow().iter().any(|outer| match (outer, how) {
            (Grow { .. }, Grow { .. }) => true,
            (BringBack { .. }, Isolate { .. } | Retire { .. } | Offline { .. }) => true,
            (Offline { .. } | Retire { .. } | BringBack { .. }, BringBack { .. }) => true,
            (outer, how) => makes_metadata(outer) && makes_metadata(how),
        })
    }

    fn is_prepared(&self, start: u64, count: u64) -> bool {
        let prepared = self.shape.prepared.borrow();
        sections(start, count).all(|section| prepared.contains(&section))
    }

    fn isolate(&self, mid: &Interrupt<'_>, start: u64, count: u64) {
        if sections(start, count).count() > SECTIONS {
            return;
        }
        let range = NumberRange::from_numbers(start, start + count);
        let metadata = Metadata::for_range(start, count);
        // SAFETY: fresh memory for each frame.
        let said = mid.during(|| unsafe { self.pool.isolate(range, |at| metadata.place(at)) });
        self.takes(&metadata, start, count);
        let is_due = self.refusal(start, count);
        match said {
            Ok(isolation) => {
                assert_eq!(isolation.range(), range);
                assert!(!self.is_exact() || is_due.is_none(), "{range:?}: {is_due:?}");
                let serial = self.shape.begun.replace(self.shape.begun.get() + 1);
                self.shape.isolations.borrow_mut().push(Isolated { serial, isolation });
            }
            Err(error) if self.is_exact() => self.is_refused(error, is_due, start, count),
            Err(_) => {}
        }
        self.asks_all_to_drain();
    }

    /// Whether a range can't be isolated, but for a want of metadata.
    fn refusal(&self, start: u64, count: u64) -> Option<IsolateError> {
        let isolations = self.shape.isolations.borrow();
        let range = NumberRange::from_numbers(start, start + count);
        let overlap = isolations.iter().find_map(|other| range.overlap(other.isolation.range()));
        let unmanaged = || {
            let Sets { managed, gone, .. } = &*self.sets.borrow();
            let lowest = [managed.first_missing(start, count), gone.first_of(start, count)];
            lowest.into_iter().flatten().min()
        };
        match overlap {
            _ if count == 0 => Some(IsolateError::Empty),
            Some(isolated) => Some(IsolateError::Overlap { isolated }),
            None if isolations.len() == ISOLATIONS => {
                Some(IsolateError::TooMany { limit: ISOLATIONS })
            }
            None => {
                unmanaged().map(|at| IsolateError::Unmanaged { frame: frame(at).into_number() })
            }
        }
    }

    fn is_refused(&self, said: IsolateError, due: Option<IsolateError>, start: u64, count: u64) {
        match (said, due) {
            // Any of several that overlap.
            (IsolateError::Overlap { isolated }, Some(IsolateError::Overlap { .. })) => {
                assert!(isolated.start().get() >= start && isolated.end().get() <= start + count);
            }
            (IsolateError::NoMetadata, None) => {
                let available = self.available();
                let outside = available.count() - available.count_of(start, count);
                assert!(outside <= self.pool.stats().cached_frames, "{outside} frames are free");
            }
            (said, due) => assert_eq!(Some(said), due),
        }
    }

    fn look_in_use(&self, mid: &Interrupt<'_>, which: u32) {
        let Some(isolated) = self.chosen_isolation(which) else { return };
        let said = mid.during(|| self.pool.in_use(&isolated.isolation));
        self.is_in_use(isolated.isolation.range(), said);
        self.shape.isolations.borrow_mut().push(isolated);
    }

    /// What is held of a range is in use, and what a cache has of it.
    fn is_in_use(&self, range: NumberRange, said: InUse) {
        if !self.is_exact() {
            return;
        }
        let (start, count) = (range.start().get(), range.len());
        let Sets { free, held, metadata, .. } = &*self.sets.borrow();
        let sets = [held, metadata];
        let due = sets.map(|set| set.count_of(start, count)).iter().sum::<u64>();
        let first = sets.iter().filter_map(|set| set.first_of(start, count)).min();
        let cached = self.pool.stats().cached_frames.min(free.count_of(start, count));
        assert!((due..=due + cached).contains(&said.frames), "{said:?}: {due} and {cached}");
        if said.frames == due {
            assert_eq!(said.first.map(|first| first.get()), first, "{said:?}");
        }
    }

    fn offline(&self, mid: &Interrupt<'_>, which: u32) {
        let Some(Isolated { serial, isolation }) = self.chosen_isolation(which) else { return };
        let range = isolation.range();
        let (start, count) = (range.start().get(), range.len());
        match mid.during(|| self.pool.offline(isolation)) {
            Ok(gone) => {
                assert_eq!(gone, range);
                let Sets { free, zero, gone, .. } = &mut *self.sets.borrow_mut();
                assert_eq!(free.first_missing(start, count), None, "{range:?} is gone, but in use");
                free.remove_range(start, count);
                zero.forget_range(start, count);
                gone.insert_range(start, count);
            }
            Err(isolation) => {
                let Sets { held, metadata, .. } = &*self.sets.borrow();
                let in_use = held.count_of(start, count) + metadata.count_of(start, count);
                let may_be_cached = self.pool.stats().cached_frames > 0;
                assert!(in_use > 0 || may_be_cached || !self.is_exact(), "nothing is in use");
                self.shape.isolations.borrow_mut().push(Isolated { serial, isolation });
            }
        }
    }

    fn retire(&self, mid: &Interrupt<'_>, which: u32) {
        let chosen = self.chosen(which, 1, 1);
        let [number] = chosen[..] else { return };
        let due = self.refusal(number, 1);
        let (group, bit) = (number / 64, 1 << (number % 64));
        {
            let Sets { held, gone, .. } = &mut *self.sets.borrow_mut();
            held.remove(group, bit);
            gone.insert(group, bit);
        }
        let metadata = Metadata::for_range(number, 1);
        // SAFETY: fresh memory for each frame.
        let said =
            mid.during(|| unsafe { self.pool.retire(frame(number), |at| metadata.place(at)) });
        self.takes(&metadata, number, 1);
        if let Err((kept, error)) = said {
            assert_eq!(kept.into_number().get(), number);
            {
                let Sets { held, gone, .. } = &mut *self.sets.borrow_mut();
                gone.remove(group, bit);
                held.insert(group, bit);
            }
            if self.is_exact() {
                self.is_refused(error, due, number, 1);
            }
        } else {
            assert!(due.is_none() || !self.is_exact(), "{number:#x}: {due:?}");
        }
        self.asks_all_to_drain();
    }

    fn bring_back(&self, mid: &Interrupt<'_>, start: u64, count: u64) {
        let back = {
            let Sets { free, gone, .. } = &mut *self.sets.borrow_mut();
            let all = gone.count();
            for (group, bits) in super::frames::pieces(start, count) {
                free.insert(group, gone.forget(group, bits));
            }
            all - gone.count()
        };
        let range = NumberRange::from_numbers(start, start + count);
        // SAFETY: the memory is not real, nobody uses it.
        assert_eq!(mid.during(|| unsafe { self.pool.bring_back(range) }), back, "{range:?}");
    }

    fn grow(&self, mid: &Interrupt<'_>, start: u64, count: u64) {
        let range = NumberRange::from_numbers(start, start + count);
        let is_new = self.sets.borrow().managed.first_of(start, count).is_none();
        if is_new && count > 0 {
            // From now on: somebody may have them before it returns.
            let Sets { managed, free, .. } = &mut *self.sets.borrow_mut();
            managed.insert_range(start, count);
            free.insert_range(start, count);
            self.shape.has_grown.set(true);
        }
        // Some for alignment, and for a record that somebody else may need meanwhile.
        let storage = later(self.pool.bytes_to_grow(range) / 8 + 32);
        // SAFETY: the memory is not real, nobody uses it.
        match mid.during(|| unsafe { self.pool.grow_in(range, storage) }) {
            Ok(()) => assert!(is_new && count > 0, "{range:?} was managed in part"),
            Err(GrowError::Empty) => assert_eq!(count, 0),
            Err(GrowError::Overlap { managed }) => {
                assert!(!is_new, "{managed:?} was not managed");
                assert_eq!(range.overlap(managed), Some(managed));
                let all = &self.sets.borrow().managed;
                assert!(all.contains_all(managed.start().get(), managed.len()));
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn chosen_isolation(&self, which: u32) -> Option<Isolated> {
        let mut isolations = self.shape.isolations.borrow_mut();
        let at = which as usize % isolations.len().max(1);
        (at < isolations.len()).then(|| isolations.swap_remove(at))
    }

    /// Frames that have become metadata, for the range of an isolation.
    fn takes(&self, metadata: &Metadata, start: u64, count: u64) {
        let unprepared: Vec<_> = {
            let prepared = self.shape.prepared.borrow();
            sections(start, count).filter(|section| !prepared.contains(section)).collect()
        };
        let frames: Vec<_> = metadata.taken().collect();
        assert!(frames.len() <= unprepared.len(), "{frames:x?} for {unprepared:?}");
        for (number, section) in frames.into_iter().zip(unprepared) {
            assert!(!(start..start + count).contains(&number), "{number:#x} lies in the range");
            self.is_to_be_had(number, 1, From::Tree);
            let Sets { free, zero, metadata, .. } = &mut *self.sets.borrow_mut();
            let (group, bit) = (number / 64, 1 << (number % 64));
            free.remove(group, bit);
            zero.forget(group, bit);
            metadata.insert(group, bit);
            self.shape.prepared.borrow_mut().insert(section);
        }
    }

    /// Frames come out: none may lie in an isolated range, but from the cache of a CPU that was to
    /// drain.
    pub(super) fn is_to_be_had(&self, first: u64, count: u64, from: From) {
        let (cpu, begun) = self.at_hand();
        let is_stale = cpu.is_some_and(|cpu| self.shape.stale[cpu].get());
        if is_stale && from == From::Pool {
            return;
        }
        let taken = NumberRange::from_numbers(first, first + count);
        for Isolated { serial, isolation } in &*self.shape.isolations.borrow() {
            let both = taken.overlap(isolation.range());
            assert!(both.is_none() || *serial >= begun, "{both:?} came out, and is isolated");
        }
    }

    fn asks_all_to_drain(&self) {
        for (cpu, stale) in self.shape.stale.iter().enumerate() {
            stale.set(!self.drains(cpu));
        }
    }

    pub(super) fn has_drained(&self, cpu: usize) {
        if let Some(stale) = self.shape.stale.get(cpu) {
            stale.set(false);
        }
    }

    /// The CPU at hand has ended a use of its slot: what was asked of it before is done.
    pub(super) fn has_served(&self) {
        if let (Some(cpu), _) = self.at_hand()
            && self.is_exact()
        {
            self.has_drained(cpu);
        }
    }

    /// What is free, and not isolated.
    pub(super) fn available(&self) -> Frames {
        let mut available = self.sets.borrow().free.clone();
        for Isolated { isolation, .. } in &*self.shape.isolations.borrow() {
            available.forget_range(isolation.range().start().get(), isolation.range().len());
        }
        available
    }

    /// Whether a frame is as if it were not managed; `None` if it may be either: isolated, and set
    /// aside or not.
    pub(super) fn is_unmanaged(&self, at: u64) -> Option<bool> {
        let Sets { managed, free, gone, .. } = &*self.sets.borrow();
        let isolations = self.shape.isolations.borrow();
        let is_in =
            |isolated: &Isolated| isolated.isolation.range().contains(frame(at).into_number());
        match isolations.iter().any(is_in) && free.contains(at) {
            true => None,
            false => Some(!managed.contains(at) || gone.contains(at)),
        }
    }

    /// Whether some of these frames may be so.
    pub(super) fn may_be_unmanaged(&self, first: u64, count: u64) -> bool {
        let Sets { managed, free, gone, .. } = &*self.sets.borrow();
        let range = NumberRange::from_numbers(first, (first + count).min(FRAMES));
        managed.first_missing(first, count).is_some()
            || gone.first_of(first, count).is_some()
            || self.shape.isolations.borrow().iter().any(|isolated| {
                let both = range.overlap(isolated.isolation.range());
                both.is_some_and(|both| free.first_of(both.start().get(), both.len()).is_some())
            })
    }

    /// How many frames isolations have set aside, by what is managed block by block.
    pub(super) fn set_aside(&self) -> u64 {
        let is_whole = self.shape.isolations.borrow().is_empty();
        if is_whole && self.sets.borrow().gone.count() == 0 {
            return 0;
        }
        let there: u64 = self.tree().blocks().map(|block| block.managed).sum();
        self.tree().managed_frames() - there
    }

    /// Half of the isolations go off line, if they can; all is brought back.
    pub(super) fn end_reshaping(&self) {
        while let Some(Isolated { isolation, .. }) = self.chosen_isolation(0) {
            let range = isolation.range();
            let (start, count) = (range.start().get(), range.len());
            let has_metadata = self.sets.borrow().metadata.count_of(start, count) > 0;
            if start.is_multiple_of(2) {
                self.pool.readmit(isolation);
                continue;
            }
            match self.pool.offline(isolation) {
                Ok(_) => assert!(!has_metadata),
                Err(isolation) => {
                    assert!(has_metadata, "nothing of {range:?} is in use");
                    self.pool.readmit(isolation);
                }
            }
        }
        let end = self.sets.borrow().managed.0.keys().next_back().map_or(0, |last| last * 64 + 64);
        // SAFETY: the memory is not real, nobody uses it.
        unsafe { self.pool.bring_back(NumberRange::from_numbers(0, end)) };
        let Sets { free, gone, .. } = &mut *self.sets.borrow_mut();
        let back: Vec<_> = std::mem::take(gone).stretches().collect();
        back.into_iter().for_each(|(start, count)| free.insert_range(start, count));
    }
}

/// The numbers of the sections that a range touches.
fn sections(start: u64, count: u64) -> impl Iterator<Item = u64> {
    let end = if count == 0 { start / SECTION } else { (start + count).div_ceil(SECTION) };
    start / SECTION..end
}

/// Memory for the metadata of an isolation, and which frames it stands for: without the heap, as
/// it is asked for in the middle of an operation.
struct Metadata {
    memory: *mut u8,
    taken: [Cell<u64>; SECTIONS],
    count: Cell<usize>,
}

impl Metadata {
    fn for_range(start: u64, count: u64) -> Self {
        let words = sections(start, count).count() * 512 + 16;
        let memory = later(words).as_mut_ptr().cast::<u8>();
        let memory = memory.wrapping_add(memory.align_offset(128));
        Self { memory, taken: [const { Cell::new(0) }; SECTIONS], count: Cell::new(0) }
    }

    fn place(&self, address: u64) -> *mut u8 {
        let at = self.count.replace(self.count.get() + 1);
        self.taken[at].set(address / frametree::FRAME_SIZE);
        self.memory.wrapping_add(at * 4096)
    }

    fn taken(&self) -> impl Iterator<Item = u64> + '_ {
        self.taken[..self.count.get()].iter().map(Cell::get)
    }
}
