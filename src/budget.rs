//! The budget: how many frames of the tree ordinary requests may still take, so that a reserve is
//! left for urgent ones.
//!
//! One shared word counts what nobody has been granted yet. A CPU is granted many frames at once
//! and takes them as it needs; what it gives back is its own again, until that is too much. So the
//! word is written once for a batch of frames, and what a CPU has left (its *credit*) follows from
//! four counters of its journal, which it writes anyway:
//!
//! ```text
//! credit  =  granted + returned - repaid - taken
//! left    =  free frames of the tree - reserve - the sum of all credits
//!         =  word + returned - taken, of the journal that all share
//! ```
//!
//! This always holds, but for frames on their way, since each step changes both sides. A CPU has
//! its credit before it takes a frame, and no credit before it has given one: so those who ask
//! first leave the reserve alone, to the frame, however many they are and whatever happens at once.
//! Urgent requests do not ask; their CPU's credit falls below 0, and the word with it.
//!
//! Interrupts inside the allocator, and whoever uses the tree directly, share a journal, in which
//! nobody can tell whose credit is whose. They look at what is left instead, and take. So the
//! reserve can come out short by what they take at one moment. What they have taken and returned
//! stays in their journal and is never moved to the word: on its way it would be in nobody's sight,
//! and who asks just then would be refused what is there. As it is, a refusal is true of the moment
//! at which the word was read ([`Journal::balance_with`]).
//!
//! Credits are out of others' reach, as cached frames are, and come back the same way: when their
//! CPU drains.
//!
//! **Watermarks.** The same word tells when free memory crosses a mark, and beside the count it
//! counts the crossings: down at the low mark and up at the high one, in turn. Whoever changes the
//! count over a mark adds the crossing in the same step, so there is one for each, however many
//! CPUs are at it. Whoever has changed it or the shared journal looks at both then, behind a fence:
//! of two that cross a mark only together one sees it. They are told outside of the allocator's
//! turns, each by whoever adds one to `told`. What CPUs have as credit is not left: that says of
//! free memory too little, at most two batches for each CPU, and never too much.

use crate::error::Refusal;
use crate::geometry::WORD_BITS;
use crate::journal::{Counter, Journal, Writer};
use crate::sync::{Ordering, Word, rmw_fence};

/// Bits of the word that count crossings, modulo their size; the others hold what is left.
const CROSSINGS: u32 = 22;

/// The most frames that a CPU is granted ahead of its need.
const MOST: u64 = 4096;
/// Credits are at most this part of all memory, if batches of [`LEAST`] allow it.
const SHARE: u64 = 32;
/// The fewest frames that a batch has: those of a refill.
const LEAST: u64 = WORD_BITS;

/// See above.
#[derive(Debug)]
#[repr(C, align(128))]
pub struct Budget<'m> {
    count: Count,
    rules: Rules,
    cpus: u64,
    /// Frames that a CPU is granted at once, and keeps of what it has given back.
    batch: u64,
    /// The journal that all share.
    common: &'m Journal,
}

/// What all CPUs write, on lines of its own.
#[derive(Debug)]
#[repr(C, align(128))]
struct Count {
    /// Truth: frames that nobody has been granted, signed, but for what the shared journal says;
    /// and how often they crossed a mark.
    word: Word,
    /// How many crossings have been told.
    told: Word,
    /// How many frames had ever been managed when that was last looked at.
    managed: Word,
}

/// The word and the shared journal, read.
#[derive(Clone, Copy, Debug)]
struct Look {
    word: u64,
    /// What the journal adds to the word, modulo as much as the word counts.
    shared: u64,
}

/// What they say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct State {
    left: i64,
    crossings: u64,
}

/// What a budget is for.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Frames that ordinary requests leave alone.
    pub reserve: u64,
    pub marks: Option<Marks>,
}

/// Two levels of free memory, and who is told when it crosses them.
#[derive(Clone, Copy, Debug)]
pub struct Marks {
    pub low: u64,
    pub high: u64,
    pub tell: fn(Crossing),
}

/// Free memory has crossed a watermark ([`Setup::watermarks`](crate::Setup::watermarks)).
///
/// # Examples
/// ```
/// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs")); }
/// # use frametree::*;
/// fn tell(crossing: Crossing) {
///     println!("crossing {}: {:?}", crossing.number, crossing.level); // or wake who frees some
/// }
/// let pool = example::pool(Setup::new(1).watermarks(100, 200, tell));
/// # assert_eq!(pool.level(), Level::High);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Crossing {
    /// How many crossings there have been with this one. Of two that are told at the same moment,
    /// by two CPUs, the one with the higher number is the later.
    pub number: u64,
    /// What it is now.
    pub level: Level,
}

/// How much memory is free, as the watermarks see it.
///
/// # Examples
/// Whether a kernel's cache of files may grow:
///
/// ```
/// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs")); }
/// # use frametree::*;
/// fn may_grow(pool: &FramePool<impl Cpus>) -> bool {
///     pool.level() == Level::High
/// }
/// let pool = example::pool(Setup::new(1).watermarks(512, 1024, |_crossing| ()));
/// assert!(may_grow(&pool));
/// let run = pool.alloc_run(&Request::new(2000))?;
/// assert!(!may_grow(&pool)); // until 1024 frames are free again
/// # pool.free_run(run)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Level {
    /// It fell below the low mark, and has not reached the high one since.
    Low,
    /// It has reached the high mark, or has never been below the low one.
    High,
}

impl Rules {
    /// No reserve, no marks.
    pub const OFF: Self = Self { reserve: 0, marks: None };

    /// Whether there is anything to keep account for.
    const fn is_off(&self) -> bool {
        self.reserve == 0 && self.marks.is_none()
    }

    /// A state with so much left and as many crossings as that makes.
    fn reached(&self, State { crossings, .. }: State, left: i64) -> State {
        let free = left + self.reserve.cast_signed();
        let crosses = self.marks.is_some_and(|Marks { low, high, .. }| match level(crossings) {
            Level::High => free < low.cast_signed(),
            Level::Low => free >= high.cast_signed(),
        });
        State { left, crossings: crossings + u64::from(crosses) }
    }
}

impl Look {
    const fn state(self) -> State {
        State::unpack(self.word.wrapping_add(self.shared))
    }

    /// The word that says this, with the same journal.
    const fn word_for(self, state: State) -> u64 {
        state.pack().wrapping_sub(self.shared)
    }
}

impl State {
    const fn unpack(word: u64) -> Self {
        Self { left: word.cast_signed() >> CROSSINGS, crossings: word % (1 << CROSSINGS) }
    }

    const fn pack(self) -> u64 {
        let crossings = self.crossings % (1 << CROSSINGS);
        (self.left << CROSSINGS).cast_unsigned() | crossings
    }
}

/// They begin high, and alternate.
const fn level(crossings: u64) -> Level {
    if crossings.is_multiple_of(2) { Level::High } else { Level::Low }
}

impl<'m> Budget<'m> {
    /// For a tree with so many free frames, which so many CPUs use, and this journal too.
    pub fn new(rules: Rules, frames: u64, cpus: usize, common: &'m Journal) -> Self {
        let left = frames.cast_signed() - rules.reserve.cast_signed();
        let [word, told, managed] = [State { left, crossings: 0 }.pack(), 0, frames].map(Word::new);
        let cpus = cpus as u64;
        // A credit is at most two batches.
        let batch = (frames / (2 * SHARE * cpus)).clamp(LEAST, MOST);
        Self { count: Count { word, told, managed }, rules, cpus, batch, common }
    }

    /// Whether there is nothing to ask it for.
    #[inline]
    pub fn is_off(&self) -> bool {
        self.rules.is_off()
    }

    /// Whether there is a reserve. Else who takes many frames need not ask: the account follows.
    #[inline]
    pub fn has_reserve(&self) -> bool {
        self.rules.reserve != 0
    }

    /// How many frames an ordinary request that can use `least` to `most` may take: none, or as
    /// many. No read-modify-write if the credit suffices, one for a batch. Rings if there is a
    /// crossing to tell.
    pub fn allow(&self, writer: Writer<'_>, (least, most): (u64, u64), ring: impl Fn()) -> u64 {
        if self.is_off() {
            return most;
        }
        let [least, most] = [least, most].map(u64::cast_signed);
        let credit = writer.credit();
        if credit >= most {
            return most.cast_unsigned();
        }
        // Less ahead when little is left, or one CPU would have what all others need.
        let ahead =
            |left: i64| (left / (2 * self.cpus).cast_signed()).min(self.batch.cast_signed());
        let change = self.change(
            |left| {
                let wanted = ahead(left).max(most - credit);
                let granted = if self.rules.reserve == 0 { wanted } else { left.min(wanted) };
                if credit + granted >= least { -granted.max(0) } else { 0 }
            },
            ring,
        );
        writer.add(Counter::Granted, change.wrapping_neg().cast_unsigned());
        let credit = credit - change;
        if credit < least { 0 } else { credit.min(most).cast_unsigned() }
    }

    /// The same for those who share a journal, for all or nothing.
    pub fn ask_shared(&self, frames: u64) -> Result<(), Refusal> {
        if self.allow_shared(frames, frames) == 0 { Err(Refusal::Reserved) } else { Ok(()) }
    }

    /// The same for those who share a journal: a look.
    pub fn allow_shared(&self, least: u64, most: u64) -> u64 {
        if self.rules.reserve == 0 {
            return most;
        }
        let State { left, .. } = self.look().state();
        if left < least.cast_signed() { 0 } else { left.cast_unsigned().min(most) }
    }

    /// After frames were given back, or taken without asking: gives up what is too much, and what
    /// is owed is counted. No read-modify-write in between.
    pub fn settle(&self, writer: Writer<'_>, ring: impl Fn()) {
        let (credit, batch) = (writer.credit(), self.batch.cast_signed());
        if credit < 0 {
            self.repay(writer, credit, ring);
        } else if credit > 2 * batch {
            self.repay(writer, credit - batch, ring);
        }
    }

    /// Gives all of the credit up.
    pub fn close(&self, writer: Writer<'_>, ring: impl Fn()) {
        if !self.is_off() {
            self.repay(writer, writer.credit(), ring);
        }
    }

    /// After a change of the word or the shared journal: adds the crossings that it makes, if
    /// nobody has yet, and rings if there is one to tell.
    pub fn watch(&self, ring: impl Fn()) {
        if self.rules.marks.is_none() {
            return;
        }
        loop {
            // Of two who change the one and the other, one at least sees both.
            rmw_fence();
            let look = self.look();
            let state = look.state();
            if self.rules.reached(state, state.left) == state {
                break;
            }
            self.put(look, 0);
        }
        // Also for one that was made where nobody could be told.
        if self.has_untold() {
            ring();
        }
    }

    /// Counts frames that have come into the tree, of which there have been so many by now. Who
    /// looked at that number earlier, and comes later, changes nothing.
    pub fn recount(&self, managed: u64) {
        if self.is_off() {
            return;
        }
        let word = &self.count.managed;
        // ORDERING: a number only, which grows.
        let mut before = word.load(Ordering::Relaxed);
        while before < managed {
            match word.compare_exchange(before, managed, Ordering::Relaxed) {
                Ok(_) => {
                    self.change(|_| (managed - before).cast_signed(), || ());
                    return;
                }
                Err(now) => before = now,
            }
        }
    }

    /// What should be left of so many free frames and such credits, less what is.
    pub fn off_by(&self, free: u64, credits: i64) -> i64 {
        if self.is_off() {
            return 0;
        }
        let due = free.cast_signed().wrapping_sub(self.rules.reserve.cast_signed());
        due.wrapping_sub(credits).wrapping_sub(self.look().state().left)
    }

    /// Whether free memory is low; high without marks.
    pub fn level(&self) -> Level {
        level(self.crossings())
    }

    /// Whether a crossing is not told yet.
    pub fn has_untold(&self) -> bool {
        let told = self.told();
        self.untold(told) != 0
    }

    /// Tells what has not been told yet. Outside of any turn: those who are told may use the pool.
    pub fn tell(&self) {
        let Some(Marks { tell, .. }) = self.rules.marks else { return };
        loop {
            let told = self.told();
            if self.untold(told) == 0 {
                return;
            }
            let number = told + 1;
            // ORDERING: Release pairs with the Acquire in `told`.
            if self.count.told.compare_exchange(told, number, Ordering::AcqRel).is_ok() {
                tell(Crossing { number, level: level(number) });
            }
        }
    }

    fn told(&self) -> u64 {
        // ORDERING: Acquire pairs with the Release in `tell`: who sees that a crossing was told
        // sees that it was made.
        self.count.told.load(Ordering::Acquire)
    }

    /// How many crossings there have been since so many were told. To be read after that number.
    fn untold(&self, told: u64) -> u64 {
        self.crossings().wrapping_sub(told) % (1 << CROSSINGS)
    }

    fn repay(&self, writer: Writer<'_>, frames: i64, ring: impl Fn()) {
        writer.add(Counter::Repaid, frames.cast_unsigned());
        self.change(|_| frames, ring);
    }

    fn crossings(&self) -> u64 {
        State::unpack(self.word()).crossings
    }

    fn look(&self) -> Look {
        let (word, balance) = self.common.balance_with(|| self.word());
        Look { word, shared: balance << CROSSINGS }
    }

    fn word(&self) -> u64 {
        // ORDERING: as in `put`.
        self.count.word.load(Ordering::Acquire)
    }

    /// Adds what `by` says of what is left, and says how much it was; rings if there is a crossing
    /// to tell then.
    fn change(&self, by: impl Fn(i64) -> i64, ring: impl Fn()) -> i64 {
        loop {
            let look = self.look();
            let by = by(look.state().left);
            if by == 0 || self.put(look, by) {
                self.watch(ring);
                return by;
            }
        }
    }

    /// Adds so much to what was left, and the crossing that this makes; not if the word has changed
    /// since.
    fn put(&self, look: Look, by: i64) -> bool {
        let state = look.state();
        let changed = look.word_for(self.rules.reached(state, state.left.wrapping_add(by)));
        // ORDERING: Release pairs with the Acquire in `word`: whoever is granted a frame finds it
        // free, and whoever sees a grant sees what was returned before.
        self.count.word.compare_exchange(look.word, changed, Ordering::AcqRel).is_ok()
    }
}
