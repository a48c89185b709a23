//! Who is simulated: frametree's pool, and what kernels have without it. Their words are those of
//! the one door to atomics when that is watched, and plain atomics when this machine is measured.

use frametree::{Frame, FrameNumber, FramePool};

use crate::support::{Threads, pool};

#[cfg(observed)]
use frametree::observed::{Ordering, Word, pause};
#[cfg(not(observed))]
use std::hint::spin_loop as pause;
#[cfg(not(observed))]
use std::sync::atomic::{AtomicU64 as Word, Ordering};

/// An allocator of frames, shared by all CPUs.
pub trait Contestant: Sync + 'static {
    /// As the tables have it.
    const NAME: &'static str;
    /// So many frames, all free, for so many CPUs.
    fn new(frames: u64, cpus: usize) -> &'static Self;
    fn alloc(&self) -> u64;
    fn free(&self, frame: u64);
}

impl Contestant for FramePool<Threads> {
    const NAME: &'static str = "frametree";

    fn new(frames: u64, cpus: usize) -> &'static Self {
        pool(Threads, cpus, &[(0, frames)])
    }

    #[inline(always)]
    fn alloc(&self) -> u64 {
        FramePool::alloc(self).expect("a frame").into_number().get()
    }

    #[inline(always)]
    fn free(&self, frame: u64) {
        // SAFETY: there is no memory behind it; the workload has it.
        let frame = unsafe { Frame::from_number(FrameNumber::new(frame)) };
        FramePool::free(self, frame).expect("a frame that is not free");
    }
}

/// A lock that looks before it tries, as `spin`'s does.
struct Lock(Word);

impl Lock {
    #[inline(always)]
    fn hold<R>(&self, work: impl FnOnce() -> R) -> R {
        while self.try_lock().is_err() {
            // ORDERING: a look.
            while self.0.load(Ordering::Relaxed) != 0 {
                pause();
            }
        }
        let result = work();
        // ORDERING: Release pairs with the Acquire of the next holder.
        self.0.store(0, Ordering::Release);
        result
    }

    #[inline(always)]
    fn try_lock(&self) -> Result<u64, u64> {
        #[cfg(observed)]
        return self.0.compare_exchange(0, 1, Ordering::Acquire);
        #[cfg(not(observed))]
        self.0.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed)
    }
}

/// Words on lines of their own.
#[repr(align(128))]
struct Apart<T>(T);

/// A stack of frame numbers behind a lock.
pub struct Stack {
    lock: Apart<Lock>,
    length: Apart<Word>,
    frames: Vec<Word>,
}

impl Contestant for Stack {
    const NAME: &'static str = "lock + stack";

    fn new(frames: u64, _: usize) -> &'static Self {
        Box::leak(Box::new(Self {
            lock: Apart(Lock(Word::new(0))),
            length: Apart(Word::new(frames)),
            frames: (0..frames).rev().map(Word::new).collect(),
        }))
    }

    #[inline(always)]
    fn alloc(&self) -> u64 {
        self.lock.0.hold(|| {
            // ORDERING: under the lock, here and below.
            let length = self.length.0.load(Ordering::Relaxed) - 1;
            self.length.0.store(length, Ordering::Relaxed);
            self.frames[length as usize].load(Ordering::Relaxed)
        })
    }

    #[inline(always)]
    fn free(&self, frame: u64) {
        self.lock.0.hold(|| {
            let length = self.length.0.load(Ordering::Relaxed);
            self.frames[length as usize].store(frame, Ordering::Relaxed);
            self.length.0.store(length + 1, Ordering::Relaxed);
        });
    }
}

/// A bitmap behind a lock, with a hint where something was found or freed last.
pub struct Bitmap {
    lock: Apart<Lock>,
    hint: Apart<Word>,
    words: Vec<Word>,
}

impl Contestant for Bitmap {
    const NAME: &'static str = "lock + bitmap";

    fn new(frames: u64, _: usize) -> &'static Self {
        Box::leak(Box::new(Self {
            lock: Apart(Lock(Word::new(0))),
            hint: Apart(Word::new(0)),
            words: (0..frames / 64).map(|_| Word::new(u64::MAX)).collect(),
        }))
    }

    #[inline(always)]
    fn alloc(&self) -> u64 {
        self.lock.0.hold(|| {
            // ORDERING: under the lock, here and below.
            let mut at = self.hint.0.load(Ordering::Relaxed) as usize;
            loop {
                let word = self.words[at].load(Ordering::Relaxed);
                if word != 0 {
                    self.words[at].store(word & (word - 1), Ordering::Relaxed);
                    self.hint.0.store(at as u64, Ordering::Relaxed);
                    return at as u64 * 64 + u64::from(word.trailing_zeros());
                }
                at = (at + 1) % self.words.len();
            }
        })
    }

    #[inline(always)]
    fn free(&self, frame: u64) {
        self.lock.0.hold(|| {
            let word = &self.words[frame as usize / 64];
            word.store(word.load(Ordering::Relaxed) | 1 << (frame % 64), Ordering::Relaxed);
            self.hint.0.store(frame / 64, Ordering::Relaxed);
        });
    }
}
