//! Isolated ranges: frames that are not to be handed out any more, though some are still in use.
//!
//! A few ranges at a time, each in a place of its own. Whoever takes frames from the tree asks
//! here afterwards, and that is one load while nothing is isolated. A place is written by who has
//! made its version odd; a reader that finds it odd, or changed, has not seen a range: the
//! isolation is not in force yet, or is over.

use crate::frame::{FrameNumber, NumberRange};
use crate::node::mask_between;
use crate::sync::{Ordering, Word, full_fence};

/// How many ranges can be isolated at a time.
pub const ISOLATIONS: usize = if cfg!(loom) { 1 } else { 16 };

/// The ranges that are isolated now.
#[derive(Debug)]
pub struct Isolations {
    /// How many there are, or are about to be.
    active: Word,
    places: [Place; ISOLATIONS],
}

/// Room for one range.
#[derive(Debug)]
struct Place {
    /// Odd while the rest changes.
    version: Word,
    start: Word,
    /// The frame behind the range; 0 if there is none.
    end: Word,
}

impl Place {
    fn range(&self) -> Option<NumberRange> {
        loop {
            // ORDERING: Acquire pairs with the Release in `write`.
            let version = self.version.load(Ordering::Acquire);
            // ORDERING: what is read while somebody writes is thrown away.
            let [start, end] = [&self.start, &self.end].map(|word| word.load(Ordering::Relaxed));
            full_fence();
            // ORDERING: behind the fence.
            if !version.is_multiple_of(2) || end == 0 {
                return None;
            }
            // ORDERING: behind the fence.
            if self.version.load(Ordering::Relaxed) == version {
                let [start, end] = [start, end].map(FrameNumber::trusted);
                return Some(NumberRange::trusted(start, end));
            }
        }
    }

    /// Makes it say something else, if it is still at this version.
    fn write(&self, version: u64, start: u64, end: u64) -> bool {
        // ORDERING: Acquire keeps the stores below behind it.
        if self.version.compare_exchange(version, version + 1, Ordering::Acquire).is_err() {
            return false;
        }
        full_fence();
        // ORDERING: nobody else writes while the version is odd; readers look at it again.
        self.start.store(start, Ordering::Relaxed);
        // ORDERING: as above.
        self.end.store(end, Ordering::Relaxed);
        // ORDERING: Release pairs with the Acquire in `range`.
        self.version.store(version + 2, Ordering::Release);
        true
    }
}

impl Isolations {
    /// None.
    pub fn new() -> Self {
        let word = || Word::new(0);
        let place = || Place { version: word(), start: word(), end: word() };
        Self { active: word(), places: core::array::from_fn(|_| place()) }
    }

    /// Whether there is none: one load. The caller has just taken frames, and a full fence
    /// between that and this orders it with [`Isolations::begin`]: either this sees the
    /// isolation, or who isolates sees that the frames are taken.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        // ORDERING: behind the caller's fence.
        self.active.load(Ordering::Relaxed) == 0
    }

    /// Isolates a range from now on, for everybody who takes frames hereafter. Returns its place;
    /// `None` if all places are taken.
    pub fn begin(&self, range: NumberRange) -> Option<usize> {
        // ORDERING: the fence below orders it.
        self.active.fetch_add(1, Ordering::Relaxed);
        let (start, end) = (range.start().get(), range.end().get());
        let free = |place: &Place| {
            // ORDERING: Acquire as in `range`; the write decides.
            let version = place.version.load(Ordering::Acquire);
            // ORDERING: as above.
            let is_free = version.is_multiple_of(2) && place.end.load(Ordering::Relaxed) == 0;
            is_free && place.write(version, start, end)
        };
        let place = self.places.iter().position(free);
        if place.is_none() {
            // ORDERING: as above.
            self.active.fetch_sub(1, Ordering::Relaxed);
        }
        full_fence();
        place
    }

    /// Ends the isolation that has this place; the caller is the one who began it.
    pub fn end(&self, place: usize) {
        let Some(place) = self.places.get(place) else { return };
        // ORDERING: only its owner changes a place that is taken.
        place.write(place.version.load(Ordering::Relaxed), 0, 0);
        // ORDERING: frames of the range are the caller's, or in the tree.
        self.active.fetch_sub(1, Ordering::Relaxed);
    }

    /// What of a range is isolated, or a part of that.
    pub fn overlap(&self, range: NumberRange) -> Option<NumberRange> {
        self.ranges().find_map(|(_, other)| range.overlap(other))
    }

    /// The same, apart from the isolation with this place.
    pub fn overlap_elsewhere(&self, place: usize, range: NumberRange) -> Option<NumberRange> {
        let others = self.ranges().filter(|(at, _)| *at != place);
        others.into_iter().find_map(|(_, other)| range.overlap(other))
    }

    /// Which of 64 frames from `base` on are isolated, one bit each.
    pub fn mask(&self, base: FrameNumber) -> u64 {
        self.ranges().fold(0, |mask, (_, range)| {
            let (start, end) = (range.start().get() as usize, range.end().get() as usize);
            mask | mask_between(start, end, base.get() as usize)
        })
    }

    fn ranges(&self) -> impl Iterator<Item = (usize, NumberRange)> {
        let places = self.places.iter().enumerate();
        places.filter_map(|(at, place)| Some((at, place.range()?)))
    }
}
