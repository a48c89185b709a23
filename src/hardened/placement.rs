//! Placement: single frames come from anywhere, each CPU's from a block chosen at random, at a
//! place chosen at random, so that large frames stay whole elsewhere.

use super::ledger::Ledgers;
use crate::arena::{Arena, part};
use crate::frame::{CpuId, FrameNumber};
use crate::geometry::{BLOCK_FRAMES, FRAME_SIZE};
use crate::request::Request;
use crate::sync::{Ordering, Word};
use crate::tree::mix;

/// Where all CPUs take single frames from.
#[derive(Debug)]
pub struct Placement<'m> {
    places: &'m [Place],
    /// Frames below are not for who does not ask for them.
    low_end: u64,
}

/// Where one does.
#[derive(Debug)]
#[repr(C, align(128))]
struct Place {
    dice: Word,
    /// The number of its block, and one; 0 for none.
    block: Word,
}

impl<'m> Placement<'m> {
    /// Bytes that it takes for so many CPUs.
    pub const fn bytes(cpus: usize) -> usize {
        part::<Place>(cpus)
    }

    /// Nobody has a block yet.
    pub fn new(arena: &mut Arena<'m>, (seed, low_end): (u64, u64), cpus: usize) -> Self {
        let place = |cpu| Place { dice: Word::new(mix(seed ^ cpu as u64)), block: Word::new(0) };
        Self { places: arena.deal(cpus, place), low_end }
    }

    /// Where to take a single frame from, if it does not matter to the caller; and whom to tell
    /// what was found there.
    pub fn place(
        &self,
        cpu: CpuId,
        ledgers: &Ledgers<'_>,
    ) -> Option<(Request, impl FnOnce(Option<FrameNumber>) + '_)> {
        let place = &self.places[cpu.get() % self.places.len()];
        let mut block = get(&place.block);
        if block == 0 {
            block = ledgers.nth(place.roll())?.get() / BLOCK_FRAMES + 1;
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
}

impl Place {
    /// The next number of this CPU. An interrupt in between may get the same.
    fn roll(&self) -> u64 {
        let next = get(&self.dice).wrapping_add(0x9e37_79b9_7f4a_7c15);
        put(&self.dice, next);
        mix(next)
    }
}

fn get(word: &Word) -> u64 {
    // ORDERING: a CPU's own.
    word.load(Ordering::Relaxed)
}

fn put(word: &Word, value: u64) {
    // ORDERING: as in `get`.
    word.store(value, Ordering::Relaxed);
}
