//! Stamps: a pattern over a frame that tells whose it is. Each word of it is the owner's tag,
//! mixed with the word's place, so that no two words of memory should ever be alike.

use bit_field::BitField;
use core::fmt;
use core::slice;
use frametree::{CpuId, Frame, FrameNumber, FrameRange, NumberRange};

use crate::cpu;
use crate::paging::direct_map;

/// Words of a frame.
pub const WORDS: usize = 512;

/// Who stamped which frame, for the how-manieth time.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    frame: FrameNumber,
    cpu: CpuId,
    sequence: u16,
}

/// A stamp that is not what it was.
pub struct Damage {
    stamp: Stamp,
    word: usize,
    found: u64,
}

impl Stamp {
    /// The `sequence`-th stamp of `cpu`, on this frame.
    pub fn new(frame: &Frame, cpu: CpuId, sequence: u16) -> Self {
        Self { frame: frame.number(), cpu, sequence }
    }

    /// What all words of the pattern have in common.
    fn tag(self) -> u64 {
        let mut tag = 0;
        tag.set_bits(0..40, self.frame.get());
        tag.set_bits(40..48, self.cpu.get() as u64);
        tag.set_bits(48..64, u64::from(self.sequence));
        tag
    }

    /// Reads a word of some stamp back.
    fn from_word(word: u64, index: usize) -> Self {
        let tag = word ^ place(index);
        Self {
            frame: FrameNumber::new(tag.get_bits(0..40)),
            cpu: CpuId::new(tag.get_bits(40..48) as usize),
            sequence: tag.get_bits(48..64) as u16,
        }
    }

    /// Writes the first `words` words of the pattern.
    pub fn write(self, frame: &mut Frame, words: usize) {
        let tag = self.tag();
        for (index, word) in contents(frame)[..words].iter_mut().enumerate() {
            *word = tag ^ place(index);
        }
    }

    /// Checks the first `words` words of the pattern.
    pub fn check(self, frame: &mut Frame, words: usize) -> Result<(), Damage> {
        let (tag, contents) = (self.tag(), &contents(frame)[..words]);
        // First all words without a branch for each; which one it was comes later.
        let differences = contents
            .iter()
            .enumerate()
            .fold(0, |differences, (index, word)| differences | word ^ tag ^ place(index));
        if differences == 0 {
            return Ok(());
        }
        let is_damaged = |&(index, &word): &(usize, &u64)| word != tag ^ place(index);
        let first = contents.iter().enumerate().find(is_damaged);
        Err(first.map_or(Damage { stamp: self, word: 0, found: 0 }, |(word, &found)| Damage {
            stamp: self,
            word,
            found,
        }))
    }
}

/// Takes a run apart.
pub fn frames(run: FrameRange) -> impl Iterator<Item = Frame> {
    // SAFETY: The run owned each of them, and is gone.
    numbers(run.into_numbers()).map(|number| unsafe { Frame::from_number(number) })
}

/// Shows each frame of a run to `work`.
pub fn for_each(run: &mut FrameRange, mut work: impl FnMut(&mut Frame)) {
    for number in numbers(run.numbers()) {
        // SAFETY: The run owns it and is borrowed, so that nobody else can use it meanwhile; this
        // name of it ends here, and `work` only borrows it.
        let mut frame = unsafe { Frame::from_number(number) };
        work(&mut frame);
        let _ = frame.into_number();
    }
}

fn numbers(range: NumberRange) -> impl Iterator<Item = FrameNumber> {
    (range.start().get()..range.end().get()).map(FrameNumber::new)
}

/// Changes one byte behind the owner's back: the exercise has to find it.
pub fn corrupt(frame: &mut Frame) {
    contents(frame)[WORDS / 3].set_bits(16..24, 0x55);
}

/// A different value for each place in a frame, with about half of its bits set.
fn place(index: usize) -> u64 {
    (index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn contents(frame: &mut Frame) -> &mut [u64] {
    let words = direct_map(frame.start_address()).cast::<u64>();
    // SAFETY: The direct map reaches the frame, the borrow of its owner makes the access
    // exclusive, and any bits are a `u64`.
    unsafe { slice::from_raw_parts_mut(words, WORDS) }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { stamp, word, found } = *self;
        let expected = stamp.tag() ^ place(word);
        writeln!(f, "damaged stamp in {}", stamp.frame)?;
        writeln!(f, "  stamped by  CPU {} (its stamp {})", stamp.cpu.get(), stamp.sequence)?;
        writeln!(f, "  checked by  CPU {}", cpu::current().get())?;
        let byte = 8 * word as u32 + (expected ^ found).trailing_zeros() / 8;
        writeln!(f, "  first byte  {byte} of 4096")?;
        writeln!(f, "  expected    {expected:#018x}")?;
        write!(f, "  found       {found:#018x}")?;
        let other = Stamp::from_word(found, word);
        if other.frame == stamp.frame && other.sequence != stamp.sequence {
            write!(f, ", stamp {} of CPU {}", other.sequence, other.cpu.get())?;
        }
        Ok(())
    }
}
