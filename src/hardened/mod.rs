//! The hardened mode: who has each frame, and whether anybody has written to one that is free.
//! With the feature `hardened`, for pools that ask for it ([`Setup::hardened`]).
//!
//! **A ledger.** Four bytes for each frame say whether it is handed out, to whom, and what a free
//! one holds. The pool asks it on the way out and on the way in, past all caches: an allocation
//! writes its frames in by a compare-exchange each, a free writes them out in the same way. So of
//! two frees one is refused, wherever the frame sits and however they race; and a frame that the
//! tree or a cache gave twice (a broken promise of the kernel, metadata that somebody has written
//! over) is noticed before its second owner gets it. The entry decides, nothing else.
//!
//! ```text
//!              hand out                       write off                  poison
//!   free  ----------------> HELD, owner -------------------> free -----------------> POISONED
//!     (contents checked)                (owner kept: the last)  (or ZEROED, as it came)
//! ```
//!
//! **Poison.** If the kernel gives a mapping, a freed frame is filled with a word made of its
//! number and the seed, and read through before it is handed out again. What was freed as zeroed
//! is checked for zeros instead. A frame that somebody has written to is *set aside*: it is
//! reported, never handed out again, and the allocation takes another.
//!
//! **Placement.** With a seed, single frames come from anywhere: each CPU works in a block chosen
//! at random, at a place chosen at random, so that large frames stay whole elsewhere.
//!
//! **A seal** over the parts of the metadata that only growing and shrinking change (links, ranges,
//! and, where nothing was ever isolated, which blocks are managed in full), made anew by those and
//! compared by `verify`.
//!
//! The ledger stands apart from the tree. It is written at initialisation, which therefore costs in
//! frames. It does not know the tree's own methods: what is taken there has to go back there.
//!
//! `setting` has what is asked for and told, `ledger` the entries, `placement` the third; the
//! rest is here.
//!
//! [`Setup::hardened`]: crate::Setup::hardened

mod ledger;
mod placement;
mod setting;

use self::ledger::{ASIDE, Entry, HELD, Ledger, Ledgers, OWNER, POISONED, STATE, ZEROED, is_free};
use self::placement::Placement;
pub use self::setting::{Hardening, Owner, Violation};
use crate::arena::{Arena, part};
use crate::cache::Contents;
use crate::error::{Found, FreeError};
use crate::frame::{CpuId, FrameNumber, NumberRange};
use crate::geometry::FRAME_SIZE;
use crate::request::Request;
use crate::sync::{Ordering, Word};
use crate::tree::{Broken, FrameTree, mix};

/// What a pool that is hardened knows beside its tree.
#[derive(Debug)]
pub struct Hardened<'m> {
    how: Hardening,
    ledgers: Ledgers<'m>,
    placement: Placement<'m>,
    aside: Word,
    seal: Word,
}

impl<'m> Hardened<'m> {
    /// What carving may add, beyond a part: a range cut in two.
    pub const SLACK: usize = part::<Ledger<'m>>(1);

    /// Bytes that it takes for so many frames, ranges and CPUs.
    pub const fn bytes(frames: u64, ranges: usize, cpus: usize) -> usize {
        part::<Self>(1) + Ledgers::bytes(frames, ranges) + Placement::bytes(cpus)
    }

    /// Bytes that it takes when so many frames come later.
    pub const fn bytes_to_grow(frames: u64) -> usize {
        Ledger::bytes(frames)
    }

    /// A ledger in which nobody has anything. Costs in frames.
    pub fn new(
        arena: &mut Arena<'m>,
        (how, low_end): (Hardening, u64),
        (frames, ranges, cpus): (u64, usize, usize),
        map: impl Iterator<Item = NumberRange>,
    ) -> &'m Self {
        let mut room = arena.deal_part(1);
        let ledgers = Ledgers::new(arena, (frames, ranges), map);
        let placement = Placement::new(arena, (how.seed.unwrap_or(0), low_end), cpus);
        let [aside, seal] = core::array::from_fn(|_| Word::new(0));
        room.put(Self { how, ledgers, placement, aside, seal })
    }

    /// A ledger for memory that is about to come.
    pub fn ledger(arena: &mut Arena<'m>, range: NumberRange) -> &'m Ledger<'m> {
        Ledger::new(arena, range)
    }

    /// Opens a ledger for memory that is claimed by now, and not free yet.
    pub fn open(&self, ledger: &'m Ledger<'m>) {
        self.ledgers.open(ledger);
    }

    fn entries(&self, frames: NumberRange) -> impl Iterator<Item = Option<Entry<'m>>> {
        self.ledgers.entries(frames)
    }

    /// Hands out what `take` takes: the frames `numbers` of it. If something is wrong with one of
    /// them that is set aside, the others go to `give_back`, and `take` takes more.
    pub fn hand_out<T, E>(
        &self,
        owner: Owner,
        numbers: impl Fn(&T) -> NumberRange,
        take: impl Fn() -> Result<T, E>,
        give_back: impl Fn(NumberRange),
    ) -> Result<T, E> {
        loop {
            let taken = take()?;
            let frames = numbers(&taken);
            if self.write_in(frames, owner) {
                return Ok(taken);
            }
            // They go on one by one, or nowhere.
            core::mem::forget(taken);
            for entry in self.entries(frames).flatten().filter(|entry| is_free(entry.get())) {
                give_back(NumberRange::one(entry.frame));
            }
        }
    }

    /// Writes frames in that this owner gets, if nothing is wrong with any of them.
    fn write_in(&self, frames: NumberRange, owner: Owner) -> bool {
        // Each is looked at, so that all that are wrong are set aside at once.
        let wrong = self.entries(frames).flatten().filter(|entry| !self.is_sound(*entry)).count();
        if wrong > 0 {
            return false;
        }
        let hand = |entry: &Entry<'_>| {
            let held = |old| is_free(old).then_some(HELD | u32::from(owner.get()));
            entry.change(held).is_ok()
        };
        let mut handed = self.entries(frames).flatten().take_while(hand).count() as u64;
        if handed == frames.len() {
            return true;
        }
        // Somebody has got one of them in this moment.
        for entry in self.entries(frames).flatten() {
            if handed > 0 {
                handed -= 1;
                // What is known of its contents is lost.
                let _ = entry.change(|old| Some(old & OWNER));
            } else {
                self.is_sound(entry);
            }
        }
        false
    }

    /// Whether a frame can be handed out; it is set aside if not.
    fn is_sound(&self, entry: Entry<'_>) -> bool {
        let (frame, now) = (entry.frame, entry.get());
        let last = Owner::new(now as u16);
        if !is_free(now) {
            (self.how.report)(Violation::HandedOutTwice { frame, owner: last });
            return false;
        }
        let due = match now & STATE {
            POISONED => self.poison(frame),
            ZEROED => 0,
            _ => return true,
        };
        let words = self.words(frame).unwrap_or_default();
        // ORDERING: the frame's own way here carries what its last owner has written.
        let load = |word: &Word| word.load(Ordering::Relaxed);
        let Some(at) = words.iter().position(|word| load(word) != due) else { return true };
        let _ = entry.change(|old| is_free(old).then_some(ASIDE | old & OWNER));
        // ORDERING: a statistic.
        self.aside.fetch_add(1, Ordering::Relaxed);
        let (offset, found) = (at * size_of::<Word>(), load(&words[at]));
        (self.how.report)(Violation::WrittenAfterFree { frame, offset, found, last });
        false
    }

    /// Takes frames back by `free`, if all of them are handed out. `check` says what else is to be
    /// said of them if not.
    pub fn take_back(
        &self,
        frames: NumberRange,
        contents: Contents,
        check: impl FnOnce() -> Result<(), FreeError>,
        free: impl FnOnce() -> Result<(), FreeError>,
    ) -> Result<(), FreeError> {
        if self.entries(frames).any(|entry| entry.is_none()) {
            // One of them was never managed, and will be named.
            return free();
        }
        if let Err(frame) = self.write_off(frames) {
            check()?;
            return Err(FreeError { frame, found: Found::NotHandedOut });
        }
        self.entries(frames).flatten().for_each(|entry| self.fill(entry, contents));
        free()
    }

    /// Writes frames off that their owners give up: all or, if one is not handed out, none.
    pub fn write_off(&self, frames: NumberRange) -> Result<(), FrameNumber> {
        let off = |old| (old & HELD != 0).then_some(old & OWNER);
        let refused = self.entries(frames).flatten().find(|entry| entry.change(off).is_err());
        let Some(refused) = refused else { return Ok(()) };
        let before = NumberRange::trusted(frames.start(), refused.frame);
        for entry in self.entries(before).flatten() {
            let _ = entry.change(|old| Some(HELD | old));
        }
        Err(refused.frame)
    }

    /// Fills a frame that is written off, and nowhere else yet.
    fn fill(&self, entry: Entry<'_>, contents: Contents) {
        let Some(words) = self.words(entry.frame) else { return };
        let state = match contents {
            Contents::Zero => ZEROED,
            Contents::Unknown => {
                let poison = self.poison(entry.frame);
                // ORDERING: the frame's own way to its next owner carries it.
                words.iter().for_each(|word| word.store(poison, Ordering::Relaxed));
                POISONED
            }
        };
        let _ = entry.change(|old| Some(state | old));
    }

    /// Gives handed out frames another owner.
    pub fn tag(&self, frames: NumberRange, owner: Owner) -> Result<(), FreeError> {
        let of = |old| (old & HELD != 0).then_some(HELD | u32::from(owner.get()));
        for (frame, entry) in (frames.start().get()..).zip(self.entries(frames)) {
            let found = match entry.map(|entry| entry.change(of)) {
                Some(Ok(_)) => continue,
                Some(Err(_)) => Found::NotHandedOut,
                None => Found::Unmanaged,
            };
            return Err(FreeError { frame: FrameNumber::trusted(frame), found });
        }
        Ok(())
    }

    /// Runs of frames with one owner, ascending within each range.
    pub fn held(&self) -> impl Iterator<Item = (NumberRange, Owner)> {
        let mut held = self.ledgers.all().flat_map(Ledger::entries).peekable();
        let owner = |entry: &Entry<'_>| {
            let now = entry.get();
            (now & HELD != 0).then_some(Owner::new(now as u16))
        };
        core::iter::from_fn(move || {
            let (first, of) = held.find_map(|entry| Some((entry.frame, owner(&entry)?)))?;
            let mut end = first.get() + 1;
            while held.next_if(|next| next.frame.get() == end && owner(next) == Some(of)).is_some()
            {
                end += 1;
            }
            Some((NumberRange::trusted(first, FrameNumber::trusted(end)), of))
        })
    }

    /// How many frames were set aside.
    pub fn aside(&self) -> u64 {
        // ORDERING: a statistic.
        self.aside.load(Ordering::Relaxed)
    }

    /// Where to take a single frame from, if it does not matter to the caller.
    pub fn place(&self, cpu: CpuId) -> Option<(Request, impl FnOnce(Option<FrameNumber>) + '_)> {
        self.how.seed?;
        self.placement.place(cpu, &self.ledgers)
    }

    /// Seals the metadata as it is, after a change that was meant.
    pub fn seal(&self, tree: &FrameTree<'m>) {
        loop {
            let sum = tree.fingerprint();
            // ORDERING: compared at rest; of several that seal, each looks again afterwards.
            self.seal.store(sum, Ordering::Relaxed);
            if tree.fingerprint() == sum {
                return;
            }
        }
    }

    /// Checks the seal, and the ledger against the tree and what `cached` says of a frame; at rest.
    pub fn verify(
        &self,
        tree: &FrameTree<'m>,
        cached: impl Fn(FrameNumber) -> bool,
    ) -> Result<(), Broken> {
        // ORDERING: at rest.
        if self.seal.load(Ordering::Relaxed) != tree.fingerprint() {
            return Err(Broken::Seal);
        }
        for entry in self.ledgers.all().flat_map(Ledger::entries) {
            let (frame, now) = (entry.frame, entry.get());
            let state = now & !OWNER;
            if ![0, HELD, POISONED, ZEROED, ASIDE].contains(&state) {
                return Err(Broken::Ledger(frame));
            }
            let in_the_tree = || {
                let (free, _) = tree.peek(frame).unwrap_or_default();
                free >> (frame.get() % 64) & 1 != 0
            };
            if !is_free(now) && (in_the_tree() || cached(frame)) {
                return Err(Broken::HeldAndFree(frame));
            }
        }
        Ok(())
    }

    /// A frame's memory, if it is mapped.
    fn words(&self, frame: FrameNumber) -> Option<&[Word]> {
        let start = (self.how.mapped?)(frame.start_address());
        // SAFETY: `poisoned_through` was promised that it is valid for reads and writes of so many
        // bytes, and aligned; words are atomic, so that it does not matter who else writes.
        Some(unsafe { core::slice::from_raw_parts(start.cast(), FRAME_SIZE as usize / 8) })
    }

    /// What a free frame is filled with: never with zeros, as `mix` makes zero of zero alone and
    /// the highest bit of what it is given is set.
    fn poison(&self, frame: FrameNumber) -> u64 {
        mix(!(self.how.seed.unwrap_or(0) >> 1 ^ frame.get()))
    }
}

#[cfg(all(test, not(loom)))]
#[allow(unsafe_code, reason = "memory that is not real")]
pub(crate) mod tests {
    extern crate std;

    use std::boxed::Box;
    use std::collections::BTreeSet;
    use std::vec;

    use super::*;
    use crate::counts::Cpu;
    use crate::geometry::BLOCK_FRAMES;
    use crate::layout::Layout;
    use crate::map::{MapEntry, MemoryMap, MemoryRegion, RegionKind};
    use crate::pool::{FramePool, Setup};

    pub fn pool() -> &'static FramePool<Cpu> {
        pool_that_reports(|violation| panic!("{violation}"))
    }

    fn pool_that_reports(report: fn(Violation)) -> &'static FramePool<Cpu> {
        let pool = Box::leak(Box::new(FramePool::new(Cpu::new(0))));
        let length = 8 * BLOCK_FRAMES * FRAME_SIZE;
        let regions = [MemoryRegion { start: 0, length, kind: RegionKind::Usable }];
        let mut buffer = [MapEntry::EMPTY; MemoryMap::entries_needed(1)];
        let map = MemoryMap::normalise(regions, &mut buffer).expect("a map");
        let bytes = Layout::new(&map, 1).expect("a layout").hardened().bytes();
        let setup = Setup::new(1).hardened(Hardening::new(report));
        // SAFETY: the memory is not real, nobody uses it.
        unsafe { pool.init_in(&map, setup, vec![7; bytes / 8 + 16].leak()) }.expect("a pool");
        pool
    }

    #[test]
    fn verify_notices_a_seal_that_does_not_fit() {
        let pool = pool();
        let hardened = pool.hardened().expect("a hardened pool");
        let tree = pool.tree().expect("a tree");
        assert_eq!(pool.verify(), Ok(()));
        let right = hardened.seal.load(Ordering::Relaxed);
        hardened.seal.store(right ^ 1 << 40, Ordering::Relaxed);
        assert_eq!(pool.verify(), Err(Broken::Seal));
        hardened.seal.store(right, Ordering::Relaxed);
        // What no other check sees: that a block is managed frame by frame is no fault.
        tree.forget_full(FrameNumber::trusted(3 * BLOCK_FRAMES));
        assert_eq!(pool.verify(), Err(Broken::Seal));
        assert_eq!(tree.verify(), Ok(()));
        hardened.seal(tree);
        assert_eq!(pool.verify(), Ok(()));
    }

    #[test]
    fn verify_notices_a_ledger_that_says_otherwise() {
        let pool = pool();
        let hardened = pool.hardened().expect("a hardened pool");
        // Frames 0 to 63 are in use, those behind it in the cache from 66 on, and then in the tree.
        let mut taken: std::vec::Vec<_> =
            (0..66).map(|_| pool.alloc().expect("a frame").into_number()).collect();
        assert_eq!(pool.verify(), Ok(()), "others of a group are in use, or of other groups");
        let entry = |at| {
            let frame = FrameNumber::trusted(at);
            hardened.entries(NumberRange::one(frame)).flatten().next().expect("a managed frame")
        };
        for (at, state, broken) in [
            (70, HELD, Broken::HeldAndFree(FrameNumber::trusted(70))),
            (200, HELD, Broken::HeldAndFree(FrameNumber::trusted(200))),
            (200, ASIDE, Broken::HeldAndFree(FrameNumber::trusted(200))),
            (3, HELD | ZEROED, Broken::Ledger(FrameNumber::trusted(3))),
            (300, POISONED | ZEROED, Broken::Ledger(FrameNumber::trusted(300))),
        ] {
            let before = entry(at).change(|_| Some(state)).expect("a change");
            assert_eq!(pool.verify(), Err(broken));
            let _ = entry(at).change(|_| Some(before));
            assert_eq!(pool.verify(), Ok(()));
        }
        let last = taken.pop().expect("a frame");
        // SAFETY: it is in use, and nobody else frees it.
        pool.free(unsafe { crate::Frame::from_number(last) }).expect("a free");
        assert_eq!(pool.verify(), Ok(()));
    }

    #[test]
    fn of_frames_that_somebody_gets_in_this_moment_none_is_kept() {
        // At each access to the ledger's words in turn, somebody gets a frame of a run.
        for stolen in [0, 2, 5] {
            let mut others = 0;
            for step in 1..40 {
                let pool = pool_that_reports(|_| REPORTS.set(REPORTS.get() + 1));
                REPORTS.set(0);
                let hardened = pool.hardened().expect("a hardened pool");
                let frames =
                    NumberRange::trusted(FrameNumber::trusted(8), FrameNumber::trusted(14));
                THEFT.set(Some((hardened, FrameNumber::trusted(8 + stolen), step)));
                crate::sync::watching::watch(Some(steal));
                let is_whole = hardened.write_in(frames, Owner::new(7));
                crate::sync::watching::watch(None);
                let is_stolen = THEFT.take().is_none();
                let owners: std::vec::Vec<_> = hardened.held().collect();
                let thief = (NumberRange::one(FrameNumber::trusted(8 + stolen)), Owner::new(9));
                match (is_stolen, is_whole) {
                    (true, false) => assert_eq!(owners, [thief]),
                    // It was too late to get it.
                    (_, true) => assert_eq!(owners, [(frames, Owner::new(7))]),
                    (false, false) => panic!("nobody was in the way"),
                }
                assert_eq!(REPORTS.get(), u64::from(!is_whole));
                others += REPORTS.get();
            }
            assert!(others > 2, "{others}");
        }
    }

    std::thread_local! {
        static REPORTS: core::cell::Cell<u64> = const { core::cell::Cell::new(0) };
        /// Who steals which frame, and after how many accesses.
        static THEFT: core::cell::Cell<Option<(&'static Hardened<'static>, FrameNumber, u64)>> =
            const { core::cell::Cell::new(None) };
    }

    fn steal(_: usize, _: crate::sync::watching::Access, _: &'static core::panic::Location<'_>) {
        let Some((hardened, frame, left)) = THEFT.take() else { return };
        if left > 1 {
            return THEFT.set(Some((hardened, frame, left - 1)));
        }
        let entry =
            hardened.entries(NumberRange::one(frame)).flatten().next().expect("a managed frame");
        let _ = entry.change(|old| is_free(old).then_some(HELD | 9));
    }

    #[test]
    fn each_frame_has_a_poison_of_its_own() {
        let hardened = pool().hardened().expect("a hardened pool");
        let poison = |number| hardened.poison(FrameNumber::trusted(number));
        let all: BTreeSet<_> = (0..1000).map(poison).collect();
        assert!(all.len() == 1000 && !all.contains(&0), "what others hold, or zeros, would pass");
        // Whatever the seed is: with this one it would be zeros for frame 1, were it not cut.
        let how = Hardening { seed: Some(u64::MAX >> 1), ..Hardening::new(|_| ()) };
        let bytes = 1 << 16;
        let memory = vec![[0_u8; 128]; bytes / 128 + 1].leak().as_mut_ptr().cast::<u8>();
        let memory = memory.wrapping_add(memory.align_offset(128));
        // SAFETY: memory of its own.
        let mut arena = unsafe { Arena::new(memory, bytes) };
        let map = core::iter::once(NumberRange::one(FrameNumber::trusted(1)));
        let hardened = Hardened::new(&mut arena, (how, 0), (1, 1, 1), map);
        assert_ne!(hardened.poison(FrameNumber::trusted(1)), 0);
    }
}
