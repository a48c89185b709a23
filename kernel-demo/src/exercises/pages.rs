//! pages: frames of 2 MiB and of 1 GiB are what the page tables take them for.
//!
//! Each is taken through `x86_64`'s `FrameAllocator` on a shared reference to the pool, mapped by
//! its mapper as one page, written through that page and read through the direct map, and given
//! back through `FrameDeallocator`.

use core::fmt::Debug;
use frametree::{BlockUse, FRAME_SIZE};
use x86_64::structures::paging::{
    FrameAllocator, FrameDeallocator, Mapper, OffsetPageTable, PageSize, PhysFrame, Size1GiB,
    Size2MiB,
};

use crate::clock::Stopwatch;
use crate::memory::{POOL, Pool};
use crate::{paging, println};

/// Pages of 2 MiB that are mapped, one after the other.
const LARGE: usize = 8;
/// Words of a frame.
const WORDS: usize = (FRAME_SIZE / 8) as usize;

/// What was done.
pub struct Counts {
    /// Pages of 2 MiB that were mapped and written.
    pub large: usize,
    /// The same of 1 GiB.
    pub giant: usize,
}

/// Runs the exercise.
pub fn run() -> Counts {
    super::drain_all();
    let watch = Stopwatch::start();
    println!("pages: frames of 2 MiB and 1 GiB, mapped as one page and written");
    let free = POOL.tree().map(|tree| tree.count_free()).unwrap_or_default();
    // Each word of them, and one of each frame of a GiB: all of it would take too long.
    let large = (0..LARGE.min(free.blocks as usize)).filter(|_| through::<Size2MiB>(1)).count();
    let may_be_giant = free.giants > 0 && paging::has_giant_pages();
    let giant = usize::from(may_be_giant && through::<Size1GiB>(WORDS));
    assert!(free.blocks == 0 || large > 0, "no 2 MiB, though {} are free", free.blocks);
    assert!(!may_be_giant || giant == 1, "no GiB, though {} are free", free.giants);
    let after = POOL.tree().map(|tree| tree.blocks().filter(is_whole).count());
    println!(
        "  {large} of 2 MiB, every word; {giant} of 1 GiB ({} are free), a word in each 4 KiB",
        free.giants
    );
    println!(
        "  blocks whole afterwards: {}: {:.1} s",
        after.unwrap_or(0),
        watch.elapsed().as_secs_f32()
    );
    Counts { large, giant }
}

fn is_whole(block: &BlockUse) -> bool {
    block.free == block.managed && block.managed == Size2MiB::SIZE / FRAME_SIZE
}

/// Takes a frame of this size, writes each `step`-th word of it through a page of its own, reads
/// them elsewhere, and gives it back. Whether there was one.
fn through<S: PageSize + Debug>(step: usize) -> bool
where
    OffsetPageTable<'static>: Mapper<S>,
    for<'p> &'p Pool: FrameAllocator<S> + FrameDeallocator<S>,
{
    let mut pool: &Pool = &POOL;
    let Some(frame): Option<PhysFrame<S>> = pool.allocate_frame() else { return false };
    let start = frame.start_address().as_u64();
    assert!(start.is_multiple_of(S::SIZE), "{start:#x} is no frame of {} bytes", S::SIZE);
    let words = (S::SIZE / 8) as usize;
    let value = |index: usize| (start + index as u64 * 8).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    // SAFETY: The frame is this exercise's, which runs on one CPU.
    unsafe {
        paging::with_window(frame, |page| {
            for index in (0..words).step_by(step) {
                // SAFETY: Inside the page.
                page.add(index).write_volatile(value(index));
            }
        });
    }
    let direct = paging::direct_map(start).cast::<u64>();
    for index in (0..words).step_by(step) {
        // SAFETY: Inside the frame, which the direct map reaches.
        let found = unsafe { direct.add(index).read_volatile() };
        assert!(found == value(index), "word {index} of {frame:?}: {found:#x}");
    }
    // SAFETY: It is mapped nowhere but in the direct map.
    unsafe { pool.deallocate_frame(frame) };
    true
}
