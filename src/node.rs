//! A node: 512 bits in one cache line, 1 = free, shared by all CPUs.
//!
//! Every state change is one atomic step on one word, and says which transition it made; what
//! follows from the transition (announce, merge) is the tree's business. A node does not know
//! which level it stands on, nor whether it is the truth or a hint.

use crate::bits::{lowest_ones, mask};
use crate::geometry::{FULL, NODE_BITS, NODE_WORDS, WORD_BITS};
use crate::sync::{Ordering, Word};

/// 512 bits, one cache line.
#[derive(Debug)]
#[cfg_attr(not(loom), repr(C, align(64)))]
#[cfg_attr(loom, repr(C))]
pub struct Node {
    words: [Word; NODE_WORDS],
}

/// The transition that giving bits made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Given {
    /// Bits that were set already.
    pub overlap: u64,
    /// Whether the word went from nothing to something.
    pub edge: Edge,
    /// Whether the word is full now.
    pub fill: Fill,
}

/// Whether a word was empty before bits were given to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Edge {
    /// It was: whoever made this step announces it.
    FromEmpty,
    /// It held something: whoever put that there announces, or has announced, it.
    Within,
}

/// Whether a word is full after bits were given to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fill {
    /// All bits are set.
    Full,
    /// Some are missing.
    Partial,
}

/// Which word of a node a bit lies in, and its mask there. Bit numbers wrap at the node's end.
#[inline]
pub const fn word_and_mask(bit: usize) -> (usize, u64) {
    (bit / WORD_BITS as usize % NODE_WORDS, 1 << (bit as u64 % WORD_BITS))
}

/// The bits of the word whose first bit is number `base` that lie in `start..end`.
pub const fn mask_between(start: usize, end: usize, base: usize) -> u64 {
    let from = if start > base { start } else { base };
    let behind = base + WORD_BITS as usize;
    let to = if end < behind { end } else { behind };
    if from < to { mask((from - base) as u32, (to - from) as u32) } else { 0 }
}

impl Given {
    /// The transition of a word that held `old` when `mask` was given to it.
    #[inline(always)]
    pub const fn by(old: u64, mask: u64) -> Self {
        Self {
            overlap: old & mask,
            edge: if old == 0 { Edge::FromEmpty } else { Edge::Within },
            fill: if old | mask == FULL { Fill::Full } else { Fill::Partial },
        }
    }
}

/// Gives `mask` to a word of truth: one read-modify-write.
#[inline(always)]
pub fn give(word: &Word, mask: u64) -> Given {
    Given::by(give_bits(word, mask), mask)
}

/// The same; returns what was there before.
#[inline(always)]
pub fn give_bits(word: &Word, mask: u64) -> u64 {
    // ORDERING: Release pairs with the Acquire of whoever takes these bits: what their last
    // owner wrote (frame contents, known-zero bits, node contents) is seen by the next. Acquire
    // makes the announcement that may follow come after everything that emptied the word.
    word.fetch_or(mask, Ordering::AcqRel)
}

/// Takes everything that a word of truth holds; `None` if it holds nothing. One read-modify-write,
/// none if it reads empty, and one more for each other CPU that changes the word meanwhile.
///
/// A compare-exchange and not a swap: whoever comes too late writes nothing, so a split may
/// write a leaf by plain stores although somebody with an old hint tries to take from it.
#[inline]
pub fn take_all(word: &Word) -> Option<u64> {
    loop {
        // ORDERING: the exchange decides what is taken. Acquire is for who reads nothing here: if
        // a merge emptied the word, its `begun` is seen before "out of memory" is said (see
        // `journal`).
        let bits = word.load(Ordering::Acquire);
        if bits == 0 {
            return None;
        }
        if exchange(word, bits, 0) {
            return Some(bits);
        }
    }
}

/// Takes the bits of `mask` of a word of truth, if all are there: one read-modify-write, and one
/// more for each other CPU that changes the word meanwhile.
#[inline]
pub fn take_bit(word: &Word, mask: u64) -> Result<(), ()> {
    loop {
        // ORDERING: as in `take_all`.
        let bits = word.load(Ordering::Acquire);
        if bits & mask != mask {
            return Err(());
        }
        if exchange(word, bits, bits & !mask) {
            return Ok(());
        }
    }
}

/// Takes the lowest bit of a word of truth, as a mask; `None` if it holds nothing. One
/// read-modify-write, and one more for each other CPU that changes the word meanwhile.
#[inline(always)]
pub fn take_lowest(word: &Word) -> Option<u64> {
    take_lowest_of(word, FULL)
}

/// The same of the bits of `mask`.
#[inline(always)]
pub fn take_lowest_of(word: &Word, mask: u64) -> Option<u64> {
    loop {
        // ORDERING: as in `take_all`.
        let bits = word.load(Ordering::Acquire);
        let lowest = bits & mask & (bits & mask).wrapping_neg();
        if lowest == 0 {
            return None;
        }
        if exchange(word, bits, bits & !lowest) {
            return Some(lowest);
        }
    }
}

/// Takes the lowest bits of a word of truth, at most `most`; `None` if it holds nothing. Else as
/// [`take_lowest`].
#[inline]
pub fn take_some(word: &Word, most: u32) -> Option<u64> {
    loop {
        // ORDERING: as in `take_all`.
        let bits = word.load(Ordering::Acquire);
        let some = lowest_ones(bits, most);
        if some == 0 {
            return None;
        }
        if exchange(word, bits, bits & !some) {
            return Some(some);
        }
    }
}

/// Takes those bits of `mask` that a word of truth holds: one read-modify-write if there are any,
/// and one more for each other CPU that changes the word meanwhile.
pub fn take_any(word: &Word, mask: u64) -> u64 {
    loop {
        // ORDERING: as in `take_all`.
        let bits = word.load(Ordering::Acquire);
        if bits & mask == 0 || exchange(word, bits, bits & !mask) {
            return bits & mask;
        }
    }
}

/// Changes a word of truth from `found` to `left`: what is missing then is the caller's.
#[inline]
fn exchange(word: &Word, found: u64, left: u64) -> bool {
    // ORDERING: Acquire pairs with the Release in `give` and with the stores of a split: contents
    // and known-zero bits come with the frames. Release: a retirer whose second look reads what
    // this leaves must also see what this CPU did before.
    word.compare_exchange(found, left, Ordering::AcqRel).is_ok()
}

impl Node {
    /// A node whose words are all `value`.
    pub fn new(value: u64) -> Self {
        Self { words: core::array::from_fn(|_| Word::new(value)) }
    }

    /// Word `index`, counted modulo the words that there are.
    #[inline]
    pub fn word(&self, index: usize) -> &Word {
        &self.words[index % NODE_WORDS]
    }

    /// All words, lowest first.
    #[inline]
    pub fn words(&self) -> impl Iterator<Item = &Word> {
        self.words.iter()
    }

    /// The word that bit `bit` lies in, and its mask there.
    #[inline]
    pub fn at(&self, bit: usize) -> (&Word, u64) {
        let (word, mask) = word_and_mask(bit);
        (&self.words[word], mask)
    }

    /// Whether bit `bit` reads set.
    #[inline]
    pub fn is_set(&self, bit: usize, ordering: Ordering) -> bool {
        let (word, mask) = self.at(bit);
        word.load(ordering) & mask != 0
    }

    /// Whether every word reads `value`.
    #[inline]
    pub fn all(&self, value: u64, ordering: Ordering) -> bool {
        self.words.iter().all(|word| word.load(ordering) == value)
    }

    /// Whether every word reads 0: all are looked at, without a branch for each.
    #[inline(always)]
    pub fn is_empty(&self, ordering: Ordering) -> bool {
        let mut bits = 0;
        for word in &self.words {
            bits |= word.load(ordering);
        }
        bits == 0
    }

    /// How many bits read set. A statistic: nothing hangs on it.
    pub fn count(&self) -> u64 {
        // ORDERING: a statistic.
        self.words.iter().map(|word| u64::from(word.load(Ordering::Relaxed).count_ones())).sum()
    }

    /// Writes every word as the node's exclusive owner; plain stores. The owner publishes them
    /// with its next read-modify-write that hands the node's bits out.
    #[inline]
    pub fn fill(&self, value: u64) {
        for word in &self.words {
            // ORDERING: exclusive; published by the Release of the step that follows.
            word.store(value, Ordering::Relaxed);
        }
    }

    /// Takes all 512 bits if all are there: one compare-exchange a word. On a conflict what was
    /// taken is given back, and the number of words that were given back is the error: they went
    /// from empty to full once more, so the caller has to announce them again if there are any.
    pub fn take_full(&self) -> Result<(), usize> {
        for (taken, word) in self.words.iter().enumerate() {
            if !exchange(word, FULL, 0) {
                for back in &self.words[..taken] {
                    give(back, FULL);
                }
                return Err(taken);
            }
        }
        Ok(())
    }
}

const _: () = assert!(cfg!(loom) || size_of::<Node>() * 8 == NODE_BITS as usize);

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn giving_says_which_transition_it_made() {
        let word = Word::new(0);
        let first = give(&word, 0b110);
        assert_eq!(first, Given { overlap: 0, edge: Edge::FromEmpty, fill: Fill::Partial });
        let second = give(&word, 0b011);
        assert_eq!(second, Given { overlap: 0b010, edge: Edge::Within, fill: Fill::Partial });
        let third = give(&word, !0b111);
        assert_eq!(third, Given { overlap: 0, edge: Edge::Within, fill: Fill::Full });
    }

    #[test]
    fn a_conflict_gives_everything_back() {
        let node = Node::new(FULL);
        node.word(3).store(FULL - 1, Ordering::Relaxed);
        assert_eq!(node.take_full(), Err(3));
        assert_eq!(node.count(), 511);
        node.word(3).store(FULL, Ordering::Relaxed);
        assert_eq!(node.take_full(), Ok(()));
        assert_eq!(node.count(), 0);
    }
}
