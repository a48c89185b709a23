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
//! The ledger stands apart from the tree: one slice for the ranges of the map, one for each range
//! that came later, found by a search. It is written at initialisation, which therefore costs in
//! frames. It does not know the tree's own methods: what is taken there has to go back there.
//!
//! [`Setup::hardened`]: crate::Setup::hardened

use core::fmt;

use crate::arena::{Arena, part};
use crate::cache::Contents;
use crate::error::{Found, FreeError};
use crate::frame::{CpuId, FrameNumber, NumberRange};
use crate::geometry::{BLOCK_FRAMES, FRAME_SIZE};
use crate::request::Request;
use crate::sync::{Link, Ordering, Word};
use crate::tree::{Broken, FrameTree, mix};

/// Who has a frame, by a number of the caller's choice: a subsystem, a driver, a process.
///
/// # Examples
/// Names of a kernel's subsystems, one number each:
///
/// ```
/// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/hard.rs")); }
/// # use frametree::*;
/// const NET: Owner = Owner::new(1);
/// const DISK: Owner = Owner::new(2);
/// let pool = example::hardened();
/// let buffer = pool.alloc_tagged(NET)?;
/// pool.tag(&buffer, DISK)?; // handed on
/// assert_eq!(pool.owners().next(), Some((DISK, 1)));
/// # pool.free(buffer)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
#[repr(transparent)]
pub struct Owner(u16);

impl Owner {
    /// Of frames that were taken without a name.
    ///
    /// # Examples
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/hard.rs")); }
    /// # use frametree::*;
    /// let pool = example::hardened();
    /// let frame = pool.alloc()?; // nobody said for whom
    /// assert_eq!(pool.owners().next(), Some((Owner::UNNAMED, 1)));
    /// # pool.free(frame)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub const UNNAMED: Self = Self(0);

    /// The owner with this number.
    ///
    /// # Examples
    /// The number of a process as the owner of its pages:
    ///
    /// ```
    /// # use frametree::Owner;
    /// let owner = |process: u16| Owner::new(0x8000 | process); // below are the kernel's own
    /// assert_eq!(owner(7).to_string(), "owner 32775");
    /// ```
    #[must_use]
    pub const fn new(number: u16) -> Self {
        Self(number)
    }

    /// The number.
    ///
    /// # Examples
    /// To print more than the number:
    ///
    /// ```
    /// # use frametree::Owner;
    /// const NAMES: [&str; 3] = ["nobody in particular", "network", "disk"];
    /// let name = |owner: Owner| NAMES.get(usize::from(owner.get())).copied();
    /// assert_eq!(name(Owner::new(1)), Some("network"));
    /// ```
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::UNNAMED { f.write_str("unnamed") } else { write!(f, "owner {}", self.0) }
    }
}

/// What an allocation found wrong with a frame that it was about to hand out. The frame is set
/// aside: nobody gets it until the next boot, and the allocation takes another.
///
/// # Examples
/// ```
/// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs")); }
/// # use frametree::*;
/// use std::sync::Mutex;
/// static LAST: Mutex<Option<Violation>> = Mutex::new(None);
///
/// let report = |violation| *LAST.lock().unwrap() = Some(violation); // or print it
/// // SAFETY: there is memory behind all frames of the example.
/// let how = unsafe { Hardening::new(report).poisoned_through(example::direct_map) };
/// let pool = example::pool(Setup::new(1).hardened(how));
/// let frame = pool.alloc_tagged(Owner::new(7))?;
/// let dangling = example::direct_map(frame.start_address());
/// pool.free(frame)?;
/// // SAFETY: it is mapped. That the frame was freed is the bug that is to be found.
/// unsafe { dangling.add(64).write(1) };
/// let next = pool.alloc()?; // another one: the frame is set aside
/// let found = LAST.lock().unwrap().take();
/// assert!(matches!(
///     found,
///     Some(Violation::WrittenAfterFree { offset: 64, last, .. }) if last == Owner::new(7)
/// ));
/// # pool.free(next)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Violation {
    /// Somebody has written to it while it was free.
    WrittenAfterFree {
        /// The frame.
        frame: FrameNumber,
        /// The first byte of the first word that was written, from the frame's start.
        offset: usize,
        /// What that word holds.
        found: u64,
        /// Who had the frame last.
        last: Owner,
    },
    /// Somebody has it already: two CPUs were in one cache at once, or the metadata was written
    /// over.
    HandedOutTwice {
        /// The frame.
        frame: FrameNumber,
        /// Who has it.
        owner: Owner,
    },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WrittenAfterFree { frame, offset, found, last } => write!(
                f,
                "use after free: {frame}, which {last} had last, holds {found:#018x} at {offset:#x}"
            ),
            Self::HandedOutTwice { frame, owner } => {
                write!(f, "handed out twice: {frame}, which {owner} has")
            }
        }
    }
}

/// What a hardened pool does; see [`Setup::hardened`](crate::Setup::hardened).
///
/// # Examples
/// A kernel under test, with all that there is:
///
/// ```
/// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs")); }
/// # use frametree::*;
/// fn report(violation: Violation) {
///     println!("{violation}"); // and stop, or count it
/// }
/// let random = 0x9e37_79b9_7f4a_7c15; // of `rdrand`
/// let how = Hardening::new(report).placed_by(random);
/// // SAFETY: all memory of the pool is mapped there.
/// let how = unsafe { how.poisoned_through(example::direct_map) };
/// let pool = example::pool(Setup::new(1).hardened(how));
/// # let frame = pool.alloc()?;
/// # pool.free(frame)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Hardening {
    report: fn(Violation),
    seed: Option<u64>,
    mapped: Option<fn(u64) -> *mut u8>,
}

impl Hardening {
    /// Who has each frame is known; what allocations find wrong is told to `report`.
    ///
    /// It is called inside the allocation, outside of [`Cpus::with_current`](crate::Cpus): it may
    /// use the pool, and it may panic.
    ///
    /// # Examples
    /// The ledger alone: it finds every double free.
    ///
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs")); }
    /// # use frametree::*;
    /// let how = Hardening::new(|violation| panic!("{violation}"));
    /// let pool = example::pool(Setup::new(1).hardened(how));
    /// let frame = pool.alloc()?;
    /// let number = frame.number();
    /// pool.free(frame)?;
    /// // SAFETY: nobody uses the frame. That it is free already is the bug that is to be found.
    /// let error = pool.free(unsafe { Frame::from_number(number) }).unwrap_err();
    /// assert_eq!(error.found, Found::NotHandedOut);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub const fn new(report: fn(Violation)) -> Self {
        Self { report, seed: None, mapped: None }
    }

    /// Single frames come from places that follow from this seed: numbers that are hard to
    /// guess, not a cipher. Each then costs a search for a run; large frames become rarer only
    /// slowly, a block for each CPU at a time.
    ///
    /// # Examples
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs")); }
    /// # use frametree::*;
    /// let how = Hardening::new(|violation| panic!("{violation}")).placed_by(0x5eed);
    /// let pool = example::pool(Setup::new(1).hardened(how));
    /// let [one, two] = [pool.alloc()?, pool.alloc()?];
    /// assert_ne!(one.number().get() + 1, two.number().get()); // no neighbours to run over into
    /// # pool.free(one)?;
    /// # pool.free(two)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub const fn placed_by(self, seed: u64) -> Self {
        Self { seed: Some(seed), ..self }
    }

    /// Freed frames are filled, and looked at when they are handed out again: 4 KiB to write and
    /// to read for each frame, a GiB for a GiB.
    ///
    /// # Safety
    /// For the physical address of every frame that the pool manages or will manage, `to_virtual`
    /// returns a pointer, aligned to 8, that is valid for reads and writes of the frame's 4096
    /// bytes, for as long as the pool is in use, with provenance over them.
    ///
    /// # Examples
    /// With a direct map, as most kernels have one:
    ///
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs")); }
    /// # use frametree::*;
    /// # use example::direct_map;
    /// let how = Hardening::new(|violation| panic!("{violation}"));
    /// // SAFETY: `direct_map` maps all memory of the pool, and is never undone.
    /// let how = unsafe { how.poisoned_through(direct_map) };
    /// let pool = example::pool(Setup::new(1).hardened(how));
    /// let frame = pool.alloc()?;
    /// let bytes = direct_map(frame.start_address());
    /// // SAFETY: the frame is ours and mapped.
    /// unsafe { bytes.write_bytes(0xaa, 4096) };
    /// pool.free(frame)?;
    /// // SAFETY: it is mapped, and only looked at.
    /// assert_ne!(unsafe { bytes.read() }, 0xaa); // what it held is gone
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub const unsafe fn poisoned_through(self, to_virtual: fn(u64) -> *mut u8) -> Self {
        Self { mapped: Some(to_virtual), ..self }
    }
}

/// The owner's number.
const OWNER: u32 = 0xffff;
/// It is handed out.
const HELD: u32 = 1 << 16;
/// It is free and filled.
const POISONED: u32 = 1 << 17;
/// It is free and was freed as zeroed.
const ZEROED: u32 = 1 << 18;
/// It is nobody's for ever.
const ASIDE: u32 = 1 << 19;
/// What there is but the owner.
const STATE: u32 = HELD | POISONED | ZEROED | ASIDE;

/// The entries of one range.
#[derive(Debug)]
pub struct Ledger<'m> {
    range: NumberRange,
    /// Two entries a word, those of other ranges too.
    entries: &'m [Word],
    /// Which of them is the range's first.
    first: u64,
    /// The range that came before, of one that came later.
    next: Link<'m, Self>,
}

/// One frame's entry.
#[derive(Clone, Copy, Debug)]
struct Entry<'m> {
    frame: FrameNumber,
    word: &'m Word,
    shift: u32,
}

/// Where a CPU takes single frames from.
#[derive(Debug)]
#[repr(C, align(128))]
struct Place {
    dice: Word,
    /// The number of its block, and one; 0 for none.
    block: Word,
}

/// What a pool that is hardened knows beside its tree.
#[derive(Debug)]
pub struct Hardened<'m> {
    how: Hardening,
    /// Those of the memory map, ascending.
    initial: &'m [Ledger<'m>],
    /// Those that came later, the latest first.
    latest: Link<'m, Ledger<'m>>,
    places: &'m [Place],
    /// Frames below are not for who does not ask for them.
    low_end: u64,
    aside: Word,
    seal: Word,
}

impl<'m> Entry<'m> {
    fn get(self) -> u32 {
        // ORDERING: a look; who changes it decides.
        (self.word.load(Ordering::Relaxed) >> self.shift) as u32
    }

    /// Changes it, if `change` does not object to what it is: what it was, either way.
    fn change(self, change: impl Fn(u32) -> Option<u32>) -> Result<u32, u32> {
        // ORDERING: the exchange decides.
        let mut word = self.word.load(Ordering::Relaxed);
        loop {
            let old = (word >> self.shift) as u32;
            let new = change(old).ok_or(old)?;
            let others = word & !(u64::from(u32::MAX) << self.shift);
            let with_new = others | u64::from(new) << self.shift;
            // ORDERING: the frame's own way carries its contents; this only has to be one.
            match self.word.compare_exchange(word, with_new, Ordering::Relaxed) {
                Ok(_) => return Ok(old),
                Err(now) => word = now,
            }
        }
    }
}

impl<'m> Hardened<'m> {
    /// What carving may add, beyond a part: a range cut in two.
    pub const SLACK: usize = part::<Ledger<'m>>(1);

    /// Bytes that it takes for so many frames, ranges and CPUs.
    pub const fn bytes(frames: u64, ranges: usize, cpus: usize) -> usize {
        part::<Self>(1)
            + part::<Ledger<'m>>(ranges)
            + part::<Word>(words(frames))
            + part::<Place>(cpus)
    }

    /// Bytes that it takes when so many frames come later.
    pub const fn bytes_to_grow(frames: u64) -> usize {
        part::<Ledger<'m>>(1) + part::<Word>(words(frames))
    }

    /// A ledger in which nobody has anything. Costs in frames.
    pub fn new(
        arena: &mut Arena<'m>,
        (how, low_end): (Hardening, u64),
        (frames, ranges, cpus): (u64, usize, usize),
        map: impl Iterator<Item = NumberRange>,
    ) -> &'m Self {
        let mut room = arena.deal_part(1);
        let entries = arena.deal(words(frames), |_| Word::new(0));
        let mut behind = 0;
        let ledgers = map.map(|range| {
            let first = behind;
            behind += range.len();
            Ledger { range, entries, first, next: Link::empty() }
        });
        let initial = arena.deal_all(ranges, ledgers);
        let seed = how.seed.unwrap_or(0);
        let place = |cpu| Place { dice: Word::new(mix(seed ^ cpu as u64)), block: Word::new(0) };
        let places = arena.deal(cpus, place);
        let [aside, seal] = core::array::from_fn(|_| Word::new(0));
        room.put(Self { how, initial, latest: Link::empty(), places, low_end, aside, seal })
    }

    /// A ledger for memory that is about to come.
    pub fn ledger(arena: &mut Arena<'m>, range: NumberRange) -> &'m Ledger<'m> {
        let mut room = arena.deal_part(1);
        let entries = arena.deal(words(range.len()), |_| Word::new(0));
        room.put(Ledger { range, entries, first: 0, next: Link::empty() })
    }

    /// Opens a ledger for memory that is claimed by now, and not free yet.
    pub fn open(&self, ledger: &'m Ledger<'m>) {
        loop {
            let latest = self.latest.load();
            ledger.next.copy(latest);
            if self.latest.replace(latest, ledger).is_ok() {
                return;
            }
        }
    }

    fn later(&self) -> impl Iterator<Item = &'m Ledger<'m>> + use<'m> {
        core::iter::successors(self.latest.load(), |ledger| ledger.next.load())
    }

    fn ledger_of(&self, frame: FrameNumber) -> Option<&'m Ledger<'m>> {
        let at = self.initial.partition_point(|ledger| ledger.range.end() <= frame);
        let initial = self.initial.get(at).into_iter();
        initial.chain(self.later()).find(|ledger| ledger.range.contains(frame))
    }

    /// The entries of some frames; `None` for one that has none.
    fn entries(&self, frames: NumberRange) -> impl Iterator<Item = Option<Entry<'m>>> {
        let mut ledger: Option<&Ledger<'m>> = None;
        (frames.start().get()..frames.end().get()).map(FrameNumber::trusted).map(move |frame| {
            if !ledger.is_some_and(|ledger| ledger.range.contains(frame)) {
                ledger = self.ledger_of(frame);
            }
            ledger.map(|ledger| ledger.entry(frame))
        })
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
                give_back(one(entry.frame));
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
            let held = |old| is_free(old).then_some(HELD | u32::from(owner.0));
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
        let last = Owner(now as u16);
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
        let of = |old| (old & HELD != 0).then_some(HELD | u32::from(owner.0));
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
        let ledgers = self.initial.iter().chain(self.later());
        let mut held = ledgers.flat_map(|ledger| self.entries(ledger.range)).flatten().peekable();
        let owner = |entry: &Entry<'_>| {
            let now = entry.get();
            (now & HELD != 0).then_some(Owner(now as u16))
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
        let place = &self.places[cpu.get() % self.places.len()];
        let (mut block, frames) = (get(&place.block), self.initial.last()?);
        if block == 0 {
            let at = place.roll() % (frames.first + frames.range.len());
            let ledger = &self.initial[self.initial.partition_point(|next| next.first <= at) - 1];
            block = (ledger.range.start().get() + at - ledger.first) / BLOCK_FRAMES + 1;
            put(&place.block, block);
        }
        let from = (block - 1) * BLOCK_FRAMES + place.roll() % BLOCK_FRAMES;
        let request = Request::new(1).above(from * FRAME_SIZE);
        // Whoever finds nothing in its block takes what comes behind, and another block next time.
        let settle = move |found: Option<FrameNumber>| {
            if found.is_none_or(|found| found.get() / BLOCK_FRAMES + 1 != block) {
                put(&place.block, 0);
            }
        };
        if from < self.low_end {
            settle(None);
            return None;
        }
        Some((request, settle))
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
        for ledger in self.initial.iter().chain(self.later()) {
            for entry in self.entries(ledger.range).flatten() {
                let (frame, now) = (entry.frame, entry.get());
                let state = now & !OWNER;
                if ![0, HELD, POISONED, ZEROED, ASIDE].contains(&state) {
                    return Err(Broken::Ledger(frame));
                }
                let is_free = || {
                    let (free, _) = tree.peek(frame).unwrap_or_default();
                    free >> (frame.get() % 64) & 1 != 0
                };
                if !self::is_free(now) && (is_free() || cached(frame)) {
                    return Err(Broken::HeldAndFree(frame));
                }
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

    /// What a free frame is filled with.
    fn poison(&self, frame: FrameNumber) -> u64 {
        mix(self.how.seed.unwrap_or(0) ^ frame.get())
    }
}

impl<'m> Ledger<'m> {
    fn entry(&self, frame: FrameNumber) -> Entry<'m> {
        let at = self.first + frame.get() - self.range.start().get();
        Entry { frame, word: &self.entries[at as usize / 2], shift: at as u32 % 2 * 32 }
    }
}

impl Place {
    /// The next number of this CPU. An interrupt in between may get the same.
    fn roll(&self) -> u64 {
        let next = get(&self.dice).wrapping_add(0x9e37_79b9_7f4a_7c15);
        put(&self.dice, next);
        mix(next)
    }
}

const fn is_free(entry: u32) -> bool {
    entry & (HELD | ASIDE) == 0
}

const fn words(frames: u64) -> usize {
    frames.div_ceil(2) as usize
}

const fn one(frame: FrameNumber) -> NumberRange {
    NumberRange::trusted(frame, FrameNumber::trusted(frame.get() + 1))
}

fn get(word: &Word) -> u64 {
    // ORDERING: a CPU's own.
    word.load(Ordering::Relaxed)
}

fn put(word: &Word, value: u64) {
    // ORDERING: as in `get`.
    word.store(value, Ordering::Relaxed);
}

#[cfg(all(test, not(loom)))]
#[allow(unsafe_code, reason = "memory that is not real")]
pub(crate) mod tests {
    extern crate std;

    use std::boxed::Box;
    use std::vec;

    use super::*;
    use crate::counts::Cpu;
    use crate::layout::Layout;
    use crate::map::{MapEntry, MemoryMap, MemoryRegion, RegionKind};
    use crate::pool::{FramePool, Setup};

    pub fn pool() -> &'static FramePool<Cpu> {
        let pool = Box::leak(Box::new(FramePool::new(Cpu::new(0))));
        let length = 8 * BLOCK_FRAMES * FRAME_SIZE;
        let regions = [MemoryRegion { start: 0, length, kind: RegionKind::Usable }];
        let mut buffer = [MapEntry::EMPTY; MemoryMap::entries_needed(1)];
        let map = MemoryMap::normalise(regions, &mut buffer).expect("a map");
        let bytes = Layout::new(&map, 1).expect("a layout").hardened().bytes();
        let setup = Setup::new(1).hardened(Hardening::new(|violation| panic!("{violation}")));
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
}
