//! Home-made: a bitmap behind a spin lock, with a hint where to look next. One bit a frame, 1 for
//! free; runs are found bit by bit from the bottom (first fit), whole words at a time where it can.

use spin::Mutex;

use crate::allocator::{Allocator, Refusal};

pub struct NextFit(Mutex<Map>);

struct Map {
    words: Vec<u64>,
    /// The word that gave or got a frame last.
    hint: usize,
}

impl Map {
    fn take_one(&mut self) -> Option<u64> {
        let (before, after) = self.words.split_at(self.hint);
        let is_some = |word: &u64| *word != 0;
        let at = match after.iter().position(is_some) {
            Some(at) => self.hint + at,
            None => before.iter().position(is_some)?,
        };
        let bit = self.words[at].trailing_zeros();
        self.words[at] &= self.words[at] - 1;
        self.hint = at;
        Some(at as u64 * 64 + u64::from(bit))
    }

    fn take_run(&mut self, count: u64, align: u64) -> Option<u64> {
        let end = self.words.len() as u64 * 64;
        let mut start = 0;
        while start + count <= end {
            match self.first_used(start, start + count) {
                None => {
                    self.fill(start, count, false);
                    return Some(start);
                }
                Some(used) => start = self.next_free(used + 1)?.next_multiple_of(align),
            }
        }
        None
    }

    /// The first frame of a range that is not free.
    fn first_used(&self, start: u64, end: u64) -> Option<u64> {
        let mut at = start;
        while at < end {
            let rest = !self.words[at as usize / 64] >> (at % 64);
            if rest != 0 {
                let used = at + u64::from(rest.trailing_zeros());
                return (used < end).then_some(used);
            }
            at = (at / 64 + 1) * 64;
        }
        None
    }

    /// The first free frame from `at` on.
    fn next_free(&self, at: u64) -> Option<u64> {
        let word = at as usize / 64;
        let rest = self.words.get(word)? >> (at % 64);
        if rest != 0 {
            return Some(at + u64::from(rest.trailing_zeros()));
        }
        let ahead = self.words[word + 1..].iter().position(|word| *word != 0)?;
        let word = word + 1 + ahead;
        Some(word as u64 * 64 + u64::from(self.words[word].trailing_zeros()))
    }

    fn fill(&mut self, start: u64, count: u64, is_free: bool) {
        let mut at = start;
        while at < start + count {
            let length = (64 - at % 64).min(start + count - at);
            let mask = (u64::MAX >> (64 - length)) << (at % 64);
            let word = &mut self.words[at as usize / 64];
            if is_free {
                *word |= mask;
            } else {
                *word &= !mask;
            }
            at += length;
        }
    }
}

impl Allocator for NextFit {
    const NAME: &'static str = "lock + bitmap";

    fn new(frames: u64) -> Result<Self, Refusal> {
        assert!(frames.is_multiple_of(64));
        Ok(Self(Mutex::new(Map { words: vec![u64::MAX; frames as usize / 64], hint: 0 })))
    }

    #[inline(always)]
    fn alloc(&self) -> Option<u64> {
        self.0.lock().take_one()
    }
    #[inline(always)]
    fn free(&self, frame: u64) {
        let mut map = self.0.lock();
        let at = frame as usize / 64;
        map.words[at] |= 1 << (frame % 64);
        map.hint = at;
    }
    fn alloc_run(&self, count: u64, align: u64) -> Option<u64> {
        self.0.lock().take_run(count, align)
    }
    fn free_run(&self, first: u64, count: u64) {
        self.0.lock().fill(first, count, true);
    }
    fn free_frames(&self) -> Option<u64> {
        let map = self.0.lock();
        Some(map.words.iter().map(|word| u64::from(word.count_ones())).sum())
    }
}
