//! Isolated ranges: frames that are not to be handed out any more, though some are still in use.
//!
//! A few ranges at a time, each in a place of its own. Whoever takes frames from the tree asks
//! here afterwards, and that is one load while nothing is isolated.
//!
//! **On record, then in force.** A range is put on record first, where only those look who want
//! to isolate something too: so who has to be turned away has not harmed anybody. In force,
//! takers set its frames aside.
//!
//! **Guests.** A taker sets frames aside only as a guest of the place, which it can become only
//! while the range is in force; who has isolated it is one too. A range that is not in force any
//! more stays on record until the last guest has left, and this last one brings back what the
//! others have set aside meanwhile. So nobody marks a frame on behalf of an isolation that is
//! over, and nobody mistakes such a mark for that of the next isolation. Nobody waits: all that a
//! guest who stands still keeps is the place, and the frames in its hands.
//!
//! **Filling.** That a block is managed in full, with nothing isolated or gone, is said only by who
//! has it on record here meanwhile ([`Isolations::hold`]): so nobody isolates or retires a frame of
//! it between the look and the saying. Who can't have it leaves it unsaid.
//!
//! All of it is one word for each place, changed by read-modify-writes: phase, guests, and a
//! version that grows when the place is given away.

use core::ops::Range;

use bit_field::BitField;

use crate::frame::{FrameNumber, NumberRange};
use crate::node::mask_between;
use crate::sync::{Ordering, Word, full_fence, pause};

/// How many ranges can be isolated at a time.
pub const ISOLATIONS: usize = if cfg!(loom) { 2 } else { 16 };

/// How often a range is looked at whose last guest is about to leave.
const LOOKS: usize = if cfg!(loom) { 2 } else { 1000 };

/// The ranges that are isolated now.
#[derive(Debug)]
pub struct Isolations {
    /// How many are in force, or are about to be.
    active: Word,
    places: [Place; ISOLATIONS],
}

/// Room for one range.
#[derive(Debug)]
struct Place {
    /// Truth: a [`State`].
    state: Word,
    start: Word,
    /// The frame behind the range.
    end: Word,
}

/// What becomes of a place. They are numbered in the order that they come in, but that `Readmitted`
/// and `Over` are one or the other, and that `Held` comes right after `Written`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
enum Phase {
    /// Nobody's.
    Free,
    /// The range is being written.
    Written,
    /// On record.
    Named,
    /// Takers set its frames aside.
    InForce,
    /// Over: its frames are the tree's again.
    Readmitted,
    /// Over: nothing is to be brought back.
    Over,
    /// Not isolated; whoever has it looks what is, and says so.
    Held,
}

/// A place's word, read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct State(u64);

/// Why a range can't be put on record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// Some of it is there already.
    Overlap(NumberRange),
    /// All places are taken.
    TooMany,
}

impl State {
    const PHASE: Range<usize> = 0..3;
    const GUESTS: Range<usize> = 3..32;
    const VERSION: Range<usize> = 32..64;
    const GUEST: u64 = 1 << Self::GUESTS.start;

    fn of(version: u64, guests: u64, phase: Phase) -> Self {
        let mut word = phase as u64;
        word.set_bits(Self::GUESTS, guests).set_bits(Self::VERSION, version);
        Self(word)
    }

    fn phase(self) -> Phase {
        let phase = self.0.get_bits(Self::PHASE);
        let all = [
            Phase::Free,
            Phase::Written,
            Phase::Named,
            Phase::InForce,
            Phase::Readmitted,
            Phase::Over,
        ];
        all.into_iter().find(|other| *other as u64 == phase).unwrap_or(Phase::Held)
    }

    fn guests(self) -> u64 {
        self.0.get_bits(Self::GUESTS)
    }

    fn version(self) -> u64 {
        self.0.get_bits(Self::VERSION)
    }

    /// The next state of a place that is its caller's alone.
    fn next(self, phase: Phase) -> Self {
        match phase {
            Phase::Free => Self::of((self.version() + 1) % (1 << 32), 0, phase),
            _ => Self::of(self.version(), 1, phase),
        }
    }

    /// Whether it has not changed but for its guests.
    fn is_like(self, other: Self) -> bool {
        self.phase() == other.phase() && self.version() == other.version()
    }
}

impl Place {
    fn state(&self) -> State {
        // ORDERING: Acquire pairs with the Release in `set`: who sees that a range is there reads
        // it whole.
        State(self.state.load(Ordering::Acquire))
    }

    /// For who has it to himself.
    fn set(&self, state: State) {
        // ORDERING: Release, as said in `state`.
        self.state.store(state.0, Ordering::Release);
    }

    fn swap(&self, state: State, other: State) -> Result<(), State> {
        // ORDERING: Acquire and Release, as said in `state` and `leave`.
        let swapped = self.state.compare_exchange(state.0, other.0, Ordering::AcqRel);
        swapped.map(|_| ()).map_err(State)
    }

    /// Its range, and the state in which it was read, if it has one.
    fn look(&self) -> Option<(State, NumberRange)> {
        loop {
            let state = self.state();
            if matches!(state.phase(), Phase::Free | Phase::Written) {
                return None;
            }
            let [start, end] = self.ends();
            full_fence();
            // ORDERING: behind the fence.
            if State(self.state.load(Ordering::Relaxed)).is_like(state) {
                // Not before: half of it may be another one's, and no range at all.
                return Some((state, NumberRange::trusted(start, end)));
            }
        }
    }

    /// The same of a range that is in force.
    fn look_in_force(&self) -> Option<(State, NumberRange)> {
        self.look().filter(|(state, _)| state.phase() == Phase::InForce)
    }

    fn ends(&self) -> [FrameNumber; 2] {
        // ORDERING: written before the state that says so; what is read while somebody writes is
        // thrown away.
        [&self.start, &self.end].map(|word| FrameNumber::trusted(word.load(Ordering::Relaxed)))
    }

    /// For a guest: nobody writes it meanwhile.
    fn range(&self) -> NumberRange {
        let [start, end] = self.ends();
        NumberRange::trusted(start, end)
    }

    /// Puts a range on record here, if the place is nobody's.
    fn name(&self, range: NumberRange, phase: Phase) -> bool {
        let state = self.state();
        let written = state.next(Phase::Written);
        if state.phase() != Phase::Free || self.swap(state, written).is_err() {
            return false;
        }
        full_fence();
        // ORDERING: nobody else writes in this phase; readers look at the state again.
        self.start.store(range.start().get(), Ordering::Relaxed);
        // ORDERING: as above.
        self.end.store(range.end().get(), Ordering::Relaxed);
        self.set(written.next(phase));
        true
    }

    /// Becomes a guest, if it is in force as it was seen.
    fn enter(&self, seen: State) -> bool {
        let mut state = seen;
        while state.is_like(seen) {
            match self.swap(state, State(state.0 + State::GUEST)) {
                Ok(()) => return true,
                Err(other) => state = other,
            }
        }
        false
    }
}

impl Isolations {
    /// None.
    pub fn new() -> Self {
        let word = || Word::new(0);
        let place = || Place { state: word(), start: word(), end: word() };
        Self { active: word(), places: core::array::from_fn(|_| place()) }
    }

    /// Whether none is in force: one load. The caller has just taken frames, and a full fence
    /// between that and this orders it with [`Isolations::enforce`]: either this sees the
    /// isolation, or who isolates sees that the frames are taken.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        // ORDERING: behind the caller's fence.
        self.active.load(Ordering::Relaxed) == 0
    }

    /// Puts a range on record that overlaps no other there. Returns its place, of which the caller
    /// is a guest.
    ///
    /// # Errors
    /// What is in the way. Of two that overlap, and come at once, both may be turned away.
    pub fn claim(&self, range: NumberRange) -> Result<usize, Refused> {
        let mut looks = LOOKS;
        loop {
            looks -= 1;
            match self.try_claim(range, Phase::Named) {
                // It is as good as over.
                Err((Refused::Overlap(_), Phase::Readmitted | Phase::Over | Phase::Held))
                    if looks > 0 =>
                {
                    pause();
                }
                Err((refused, _)) => return Err(refused),
                Ok(at) => return Ok(at),
            }
        }
    }

    /// Puts a range on record, so that nobody isolates any of it until its place is
    /// [vacated](Self::vacate); if nothing of it is, and there is a place.
    pub fn hold(&self, range: NumberRange) -> Option<usize> {
        self.try_claim(range, Phase::Held).ok()
    }

    fn try_claim(&self, range: NumberRange, phase: Phase) -> Result<usize, (Refused, Phase)> {
        let overlap = |but: Option<usize>| {
            let others = self.places.iter().enumerate().filter(|(at, _)| Some(*at) != but);
            let mut ranges = others.filter_map(|(_, place)| place.look());
            let found = ranges.find_map(|(state, other)| Some((state, range.overlap(other)?)));
            found.map(|(state, both)| (Refused::Overlap(both), state.phase()))
        };
        if let Some(refused) = overlap(None) {
            return Err(refused);
        }
        let named = self.places.iter().position(|place| place.name(range, phase));
        let at = named.ok_or((Refused::TooMany, Phase::Named))?;
        full_fence();
        // Looked for again: of two that overlap, and begin at once, at least one sees it.
        match overlap(Some(at)) {
            None => Ok(at),
            Some(refused) => {
                self.vacate(at);
                Err(refused)
            }
        }
    }

    /// Isolates the range with this place from now on, for everybody who takes frames hereafter.
    pub fn enforce(&self, at: usize) {
        let place = &self.places[at];
        // ORDERING: the fence below orders it.
        self.active.fetch_add(1, Ordering::Relaxed);
        place.set(place.state().next(Phase::InForce));
        full_fence();
    }

    /// Ends what is in force; the caller stays a guest. Whether there is no other guest.
    pub fn readmit(&self, at: usize) -> bool {
        self.end(at, Phase::Readmitted)
    }

    /// The same, with nothing to bring back.
    pub fn close(&self, at: usize) {
        self.end(at, Phase::Over);
    }

    fn end(&self, at: usize, phase: Phase) -> bool {
        let by = phase as u64 - Phase::InForce as u64;
        // ORDERING: as in `leave`; from here on nobody can become a guest.
        let before = State(self.places[at].state.fetch_add(by, Ordering::AcqRel));
        // ORDERING: frames of the range are the caller's, or in the tree.
        self.active.fetch_sub(1, Ordering::Relaxed);
        before.guests() == 1
    }

    /// Leaves a place as a guest. The last one is given the range if what was set aside of it is to
    /// be brought back, and has to [`vacate`](Self::vacate) the place then.
    pub fn leave(&self, at: usize) -> Option<NumberRange> {
        let place = &self.places[at];
        // ORDERING: Release and Acquire: what each guest has set aside is seen by the last one.
        let before = State(place.state.fetch_sub(State::GUEST, Ordering::AcqRel));
        match before.phase() {
            _ if before.guests() > 1 => None,
            Phase::Readmitted => Some(place.range()),
            _ => {
                self.vacate(at);
                None
            }
        }
    }

    /// Gives a place away whose last guest the caller is, or was.
    pub fn vacate(&self, at: usize) {
        let place = &self.places[at];
        place.set(place.state().next(Phase::Free));
    }

    /// Becomes a guest of the lowest isolated range that overlaps this one; returns the place, and
    /// what is isolated.
    pub fn enter(&self, range: NumberRange) -> Option<(usize, NumberRange)> {
        loop {
            let overlaps = self.places.iter().enumerate().filter_map(|(at, place)| {
                let (state, other) = place.look_in_force()?;
                Some((at, state, range.overlap(other)?))
            });
            let (at, state, both) = overlaps.min_by_key(|(.., both)| both.start())?;
            if self.places[at].enter(state) {
                return Some((at, both));
            }
        }
    }

    /// Which of 64 frames from `base` on are isolated, one bit each.
    pub fn mask(&self, base: FrameNumber) -> u64 {
        self.mask_of(base, Place::look_in_force)
    }

    /// Which are on record, on their way out or back.
    pub fn recorded(&self, base: FrameNumber) -> u64 {
        self.mask_of(base, |place| place.look().filter(|(state, _)| state.phase() != Phase::Held))
    }

    fn mask_of(
        &self,
        base: FrameNumber,
        look: impl Fn(&Place) -> Option<(State, NumberRange)>,
    ) -> u64 {
        self.places.iter().filter_map(look).fold(0, |mask, (_, range)| {
            let (start, end) = (range.start().get() as usize, range.end().get() as usize);
            mask | mask_between(start, end, base.get() as usize)
        })
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_is_given_away_has_another_version_and_no_guests() {
        let over = State::of(7, 1, Phase::Over);
        assert_eq!(over.next(Phase::Free), State::of(8, 0, Phase::Free));
        assert_eq!(State::of(u64::MAX >> 32, 1, Phase::Held).next(Phase::Free).version(), 0);
        let free = State::of(8, 0, Phase::Free);
        assert_eq!(free.next(Phase::Written), State::of(8, 1, Phase::Written));
    }

    #[test]
    fn a_place_is_like_it_was_if_it_was_not_given_away_and_is_as_far() {
        let state = State::of(7, 2, Phase::InForce);
        assert!(state.is_like(State::of(7, 3, Phase::InForce)), "guests come and go");
        assert!(!state.is_like(State::of(8, 2, Phase::InForce)), "another range");
        assert!(!state.is_like(State::of(7, 2, Phase::Readmitted)), "it is over");
    }
}
