//! `bitmap-allocator` behind a spin lock (its README leaves the lock to the user). Its capacity is
//! a type: the smallest one that fits is taken.

use bitmap_allocator::{BitAlloc, BitAlloc1M, BitAlloc16M, BitAlloc256M};
use spin::Mutex;

use crate::allocator::{Allocator, Refusal};

pub enum Bitmap {
    Small(Box<Mutex<BitAlloc1M>>),
    Middle(Box<Mutex<BitAlloc16M>>),
    Large(Box<Mutex<BitAlloc256M>>),
}

/// The type is far too large for a stack.
fn fresh<B: BitAlloc>(frames: u64) -> Box<Mutex<B>> {
    // SAFETY: `BitAlloc::DEFAULT` is what it is made of: words that are zero, for "nothing free",
    // and an open lock is zero too.
    let bitmap: Box<Mutex<B>> = unsafe { Box::new_zeroed().assume_init() };
    bitmap.lock().insert(0..frames as usize);
    bitmap
}

/// Does the same to whichever it is.
macro_rules! locked {
    ($bitmap:expr, $inner:ident => $work:expr) => {
        match $bitmap {
            Bitmap::Small($inner) => {
                let mut $inner = $inner.lock();
                $work
            }
            Bitmap::Middle($inner) => {
                let mut $inner = $inner.lock();
                $work
            }
            Bitmap::Large($inner) => {
                let mut $inner = $inner.lock();
                $work
            }
        }
    };
}

impl Allocator for Bitmap {
    const NAME: &'static str = "bitmap-allocator";

    fn new(frames: u64) -> Result<Self, Refusal> {
        let count = frames as usize;
        Ok(if count <= BitAlloc1M::CAP {
            Self::Small(fresh(frames))
        } else if count <= BitAlloc16M::CAP {
            Self::Middle(fresh(frames))
        } else if count <= BitAlloc256M::CAP {
            Self::Large(fresh(frames))
        } else {
            return Err(Refusal::TooMuchMemory);
        })
    }

    #[inline(always)]
    fn alloc(&self) -> Option<u64> {
        locked!(self, inner => inner.alloc()).map(|frame| frame as u64)
    }
    #[inline(always)]
    fn free(&self, frame: u64) {
        let was_allocated = locked!(self, inner => inner.dealloc(frame as usize));
        assert!(was_allocated);
    }
    #[inline(always)]
    fn alloc_run(&self, count: u64, align: u64) -> Option<u64> {
        let (count, align) = (count as usize, align.trailing_zeros() as usize);
        let run = locked!(self, inner => inner.alloc_contiguous(None, count, align));
        run.map(|frame| frame as u64)
    }
    #[inline(always)]
    fn free_run(&self, first: u64, count: u64) {
        let (first, count) = (first as usize, count as usize);
        assert!(locked!(self, inner => inner.dealloc_contiguous(first, count)));
    }
}
