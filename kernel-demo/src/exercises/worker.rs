//! One CPU at work in an exercise: it takes and gives back frames, runs of them and 2 MiB blocks,
//! counts both, stamps what it holds, and ends the kernel on anything that the pool should never
//! say.

use core::sync::atomic::{AtomicU64, Ordering};
use frametree::{AllocError, CpuId, Frame, FrameRange, NumberRange, Request};

use super::ledger::{Entry, Held, Ledger, Size};
use super::pattern::{self, Stamp, WORDS};
use crate::memory::POOL;
use crate::steering;

/// Frames that a worker keeps in motion.
const HAND: usize = 32;

static TAKEN: AtomicU64 = AtomicU64::new(0);
static GIVEN_BACK: AtomicU64 = AtomicU64::new(0);
static STAMPS: AtomicU64 = AtomicU64::new(0);

/// Frames that all workers have taken and given back so far.
pub fn totals() -> (u64, u64) {
    // ORDERING: Relaxed; statistics, read when the workers are done.
    (TAKEN.load(Ordering::Relaxed), GIVEN_BACK.load(Ordering::Relaxed))
}

/// Stamps that all workers have written so far, each of them checked by its worker.
pub fn stamps() -> u64 {
    // ORDERING: Relaxed; as above.
    STAMPS.load(Ordering::Relaxed)
}

/// A frame with a stamp on it.
struct Stamped {
    frame: Frame,
    /// The stamp's number among its CPU's.
    sequence: u16,
}

/// A run with the same stamp on each of its frames, over all of it.
pub struct StampedRun {
    run: FrameRange,
    sequence: u16,
}

impl StampedRun {
    /// How many frames.
    pub fn len(&self) -> u64 {
        self.run.len()
    }

    /// Its two halves.
    pub fn split_in_two(self) -> (Self, Self) {
        let Self { run, sequence } = self;
        let half = run.len() / 2;
        let (one, other) = run.split_at(half);
        (Self { run: one, sequence }, Self { run: other, sequence })
    }
}

/// A CPU at work. Dropping it adds its counts to the totals.
pub struct Worker {
    cpu: CpuId,
    random: u64,
    stamps: u64,
    hand: [Option<Stamped>; HAND],
    taken: u64,
    given_back: u64,
}

impl Worker {
    /// A worker with nothing in hand.
    pub fn new(cpu: CpuId) -> Self {
        let random = 0x2545_f491_4f6c_dd1d ^ (cpu.get() as u64 + 1) << 32;
        let hand = [const { None }; HAND];
        Self { cpu, random, stamps: 0, hand, taken: 0, given_back: 0 }
    }

    /// The CPU that this worker is.
    pub fn cpu(&self) -> CpuId {
        self.cpu
    }

    /// How many stamps it has written.
    pub fn stamps(&self) -> u64 {
        self.stamps
    }

    /// A number below `limit`, different each time (Marsaglia's xorshift).
    pub fn random(&mut self, limit: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 33) as usize % limit
    }

    /// Takes a frame; `None` if the pool has nothing left.
    pub fn take(&mut self) -> Option<Frame> {
        let frame = POOL.alloc().ok()?;
        self.count_taken(1);
        Some(frame)
    }

    /// The same of the reserve too.
    pub fn take_urgent(&mut self) -> Option<Frame> {
        let frame = POOL.alloc_urgent().ok()?;
        self.taken += 1;
        Some(frame)
    }

    /// Gives a frame back.
    pub fn give_back(&mut self, frame: Frame) {
        if let Err(error) = POOL.free(frame) {
            panic!("CPU {} was refused: {error}", self.cpu.get());
        }
        self.count_given_back(1);
    }

    /// Counts frames that went another way, in larger pieces.
    pub fn count_taken(&mut self, frames: u64) {
        steering::count_operation();
        self.taken += frames;
    }

    /// As [`Worker::count_taken`], for the way back.
    pub fn count_given_back(&mut self, frames: u64) {
        steering::count_operation();
        self.given_back += frames;
    }

    /// Stamps the first `words` words of a frame.
    fn stamp(&mut self, mut frame: Frame, words: usize) -> Stamped {
        self.stamps += 1;
        let sequence = self.stamps as u16;
        Stamp::new(&frame, self.cpu, sequence).write(&mut frame, words);
        Stamped { frame, sequence }
    }

    /// Checks the first `words` words of this worker's stamp and takes the frame from under it.
    fn unstamp(&mut self, stamped: Stamped, words: usize) -> Frame {
        let Stamped { mut frame, sequence } = stamped;
        if let Err(damage) = Stamp::new(&frame, self.cpu, sequence).check(&mut frame, words) {
            panic!("{damage}");
        }
        frame
    }

    /// Stamps a frame and lists it; or stamps it, checks it, and has the list stand in it.
    pub fn keep(&mut self, frame: Frame, words: usize, ledger: &mut Ledger) {
        let stamped = self.stamp(frame, words);
        if ledger.is_full() {
            let frame = self.unstamp(stamped, words);
            ledger.add_page(frame);
        } else {
            ledger.add(Held { first: stamped.frame, size: Size::Frame, note: stamped.sequence });
        }
    }

    /// Checks what [`Worker::keep`] listed, and gives it back.
    pub fn release(&mut self, entry: Entry, words: usize) {
        let frame = match entry {
            Entry::Page(frame) => frame,
            Entry::Listed(Held { first, note, size: Size::Frame }) => {
                self.unstamp(Stamped { frame: first, sequence: note }, words)
            }
            Entry::Listed(Held { first, note, size }) => {
                return self.release_block(first, size, note);
            }
        };
        self.give_back(frame);
    }

    /// Takes a run.
    pub fn take_run(&mut self, request: &Request) -> Result<FrameRange, AllocError> {
        let run = POOL.alloc_run(request)?;
        self.count_taken(run.len());
        Ok(run)
    }

    /// Gives a run or a part of one back.
    pub fn give_back_run(&mut self, run: FrameRange) {
        let frames = run.len();
        if let Err(error) = POOL.free_run(run) {
            panic!("CPU {} was refused: {error}", self.cpu.get());
        }
        self.count_given_back(frames);
    }

    /// Stamps all of a run.
    pub fn stamp_run(&mut self, mut run: FrameRange) -> StampedRun {
        self.stamps += run.len();
        let (cpu, sequence) = (self.cpu, self.stamps as u16);
        pattern::for_each(&mut run, |frame| Stamp::new(frame, cpu, sequence).write(frame, WORDS));
        StampedRun { run, sequence }
    }

    /// Checks all of a run and takes it from under the stamp.
    fn unstamp_run(&mut self, stamped: StampedRun) -> FrameRange {
        let StampedRun { mut run, sequence } = stamped;
        pattern::for_each(&mut run, |frame| {
            if let Err(damage) = Stamp::new(frame, self.cpu, sequence).check(frame, WORDS) {
                panic!("{damage}");
            }
        });
        run
    }

    /// Checks a run and gives it back.
    pub fn release_run(&mut self, stamped: StampedRun) {
        let run = self.unstamp_run(stamped);
        self.give_back_run(run);
    }

    /// The same for a run of one frame, which goes the way of single frames.
    pub fn release_single(&mut self, stamped: StampedRun) {
        let run = self.unstamp_run(stamped);
        pattern::frames(run).for_each(|frame| self.give_back(frame));
    }

    /// Stamps and lists a run, frame by frame.
    pub fn keep_run(&mut self, run: FrameRange, ledger: &mut Ledger) {
        pattern::frames(run).for_each(|frame| self.keep(frame, WORDS, ledger));
    }

    /// Takes a 2 MiB block, stamps all of it and lists it.
    pub fn keep_block(&mut self, ledger: &mut Ledger) {
        if ledger.is_full() {
            ledger.add_page(self.take().expect("a frame for a page of the ledger"));
        }
        let first = POOL.alloc_block();
        let first = first.unwrap_or_else(|error| panic!("CPU {}: {error}", self.cpu.get()));
        self.count_taken(Size::Block.frames());
        assert!(first.start_address().is_multiple_of(2 << 20), "{} for 2 MiB", first.number());
        let StampedRun { run, sequence } = self.stamp_run(whole(first, Size::Block));
        let first = pattern::frames(run).next().expect("a block has frames");
        ledger.add(Held { first, size: Size::Block, note: sequence });
    }

    /// Checks all of what [`Worker::keep_block`] listed, and gives it back.
    fn release_block(&mut self, first: Frame, size: Size, sequence: u16) {
        assert!(size == Size::Block, "a stamped GiB at {}", first.number());
        let run = self.unstamp_run(StampedRun { run: whole(first, size), sequence });
        let first = pattern::frames(run).next().expect("a block has frames");
        if let Err(error) = POOL.free_block(first) {
            panic!("CPU {} was refused: {error}", self.cpu.get());
        }
        self.count_given_back(size.frames());
    }

    /// One change to the set in hand: a random place is filled, or its frame checked and given
    /// back. Returns whether a frame was there to be had.
    pub fn churn(&mut self, words: usize) -> bool {
        let place = self.random(HAND);
        if let Some(stamped) = self.hand[place].take() {
            let frame = self.unstamp(stamped, words);
            self.give_back(frame);
            return true;
        }
        let Some(frame) = self.take() else {
            return false;
        };
        self.hand[place] = Some(self.stamp(frame, words));
        true
    }

    /// Checks and gives back everything in hand.
    pub fn empty_hand(&mut self, words: usize) {
        for place in 0..HAND {
            if let Some(stamped) = self.hand[place].take() {
                let frame = self.unstamp(stamped, words);
                self.give_back(frame);
            }
        }
    }
}

/// All frames of a large piece, which its first one owns.
fn whole(first: Frame, size: Size) -> FrameRange {
    let start = first.into_number().get();
    // SAFETY: Whoever owns the first frame of a piece owns all of it, and just gave it up.
    unsafe { FrameRange::from_numbers(NumberRange::from_numbers(start, start + size.frames())) }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // ORDERING: Relaxed; statistics.
        TAKEN.fetch_add(self.taken, Ordering::Relaxed);
        GIVEN_BACK.fetch_add(self.given_back, Ordering::Relaxed);
        STAMPS.fetch_add(self.stamps, Ordering::Relaxed);
    }
}
