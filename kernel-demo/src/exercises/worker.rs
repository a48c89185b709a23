//! One CPU at work in an exercise: it takes and gives back frames, counts both, stamps what it
//! holds, and ends the kernel on anything that the pool should never say.

use core::sync::atomic::{AtomicU64, Ordering};
use frametree::{CpuId, Frame};

use super::ledger::{Entry, Held, Ledger, Size};
use super::pattern::Stamp;
use crate::memory::POOL;

/// Frames that a worker keeps in motion.
const HAND: usize = 32;

static TAKEN: AtomicU64 = AtomicU64::new(0);
static GIVEN_BACK: AtomicU64 = AtomicU64::new(0);

/// Frames that all workers have taken and given back so far.
pub fn totals() -> (u64, u64) {
    // ORDERING: Relaxed; statistics, read when the workers are done.
    (TAKEN.load(Ordering::Relaxed), GIVEN_BACK.load(Ordering::Relaxed))
}

/// A frame with a stamp on it.
struct Stamped {
    frame: Frame,
    /// The stamp's number among its CPU's.
    sequence: u16,
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
        self.taken += 1;
        Some(frame)
    }

    /// Gives a frame back.
    pub fn give_back(&mut self, frame: Frame) {
        if let Err(error) = POOL.free(frame) {
            panic!("CPU {} was refused: {error}", self.cpu.get());
        }
        self.given_back += 1;
    }

    /// Counts frames that went another way, in larger pieces.
    pub fn count_taken(&mut self, frames: u64) {
        self.taken += frames;
    }

    /// As [`Worker::count_taken`], for the way back.
    pub fn count_given_back(&mut self, frames: u64) {
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
            Entry::Listed(Held { first, note, .. }) => {
                self.unstamp(Stamped { frame: first, sequence: note }, words)
            }
        };
        self.give_back(frame);
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

impl Drop for Worker {
    fn drop(&mut self) {
        // ORDERING: Relaxed; statistics.
        TAKEN.fetch_add(self.taken, Ordering::Relaxed);
        GIVEN_BACK.fetch_add(self.given_back, Ordering::Relaxed);
    }
}
