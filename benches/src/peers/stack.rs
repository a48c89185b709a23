//! Home-made: a stack of frame numbers behind a spin lock. It has no runs, and notices nothing.

use spin::Mutex;

use crate::allocator::{Allocator, Refusal};

pub struct Stack(Mutex<Vec<u32>>);

impl Allocator for Stack {
    const NAME: &'static str = "lock + stack";
    const HAS_RUNS: bool = false;

    fn new(frames: u64) -> Result<Self, Refusal> {
        let end = u32::try_from(frames).map_err(|_| Refusal::TooMuchMemory)?;
        Ok(Self(Mutex::new((0..end).rev().collect())))
    }

    #[inline(always)]
    fn alloc(&self) -> Option<u64> {
        self.0.lock().pop().map(u64::from)
    }
    #[inline(always)]
    fn free(&self, frame: u64) {
        self.0.lock().push(frame as u32);
    }
    fn alloc_run(&self, _: u64, _: u64) -> Option<u64> {
        None
    }
    fn free_run(&self, _: u64, _: u64) {}
    fn free_frames(&self) -> Option<u64> {
        Some(self.0.lock().len() as u64)
    }
}
