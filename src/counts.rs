//! How many atomic read-modify-writes each operation makes: the tables in the documentation of
//! [`FramePool`] and [`FrameTree`], row by row, counted at the one door to atomics.
//!
//! A row of the docs that changes has a test here that fails, and the other way round.

extern crate std;

use std::boxed::Box;
use std::vec;
use std::vec::Vec;

use crate::cpu::Cpus;
use crate::error::Found;
use crate::frame::{CpuId, Frame, FrameNumber, FrameRange, NumberRange};
use crate::geometry::{BLOCK_FRAMES, FRAME_SIZE, GIANT_BLOCKS, GIANT_FRAMES, WORD_BITS};
use crate::journal::Writer;
use crate::layout::Layout;
use crate::map::{MapEntry, MemoryMap, MemoryRegion, RegionKind};
use crate::pool::{FramePool, Setup};
use crate::request::Request;
use crate::sync::counting::during;
use crate::tree::FrameTree;

/// This thread is always this CPU.
#[derive(Debug)]
pub struct Cpu(usize);

impl Cpu {
    #[cfg(feature = "hardened")]
    pub const fn new(cpu: usize) -> Self {
        Self(cpu)
    }
}

// SAFETY: each test has its own pool, and one thread.
unsafe impl Cpus for Cpu {
    fn with_current<R>(&self, work: impl FnOnce(CpuId) -> R) -> R {
        work(CpuId::new(self.0))
    }
}

/// A pool with one slot and so many frames, that are all free, used by CPU `cpu`.
fn pool_as(cpu: usize, frames: u64) -> &'static FramePool<Cpu> {
    pool_by(Setup::new(1), cpu, frames)
}

/// The same with a setup of its own, for one CPU.
pub fn pool_by(setup: Setup, cpu: usize, frames: u64) -> &'static FramePool<Cpu> {
    pool_of(Cpu(cpu), (setup, 1), frames)
}

/// The same for so many CPUs.
pub fn pool_of<C: Cpus>(
    cpus: C,
    (setup, count): (Setup, usize),
    frames: u64,
) -> &'static FramePool<C> {
    let pool = Box::leak(Box::new(FramePool::new(cpus)));
    let kind = RegionKind::Usable;
    let regions = [MemoryRegion { start: 0, length: frames * FRAME_SIZE, kind }];
    let mut buffer = [MapEntry::EMPTY; MemoryMap::entries_needed(1)];
    let map = MemoryMap::normalise(regions, &mut buffer).expect("a map");
    let bytes = Layout::new(&map, count).expect("a layout").bytes();
    // SAFETY: the memory is not real, nobody uses it.
    unsafe { pool.init_in(&map, setup, vec![7; bytes / 8 + 16].leak()) }.expect("a pool");
    pool
}

/// The same for CPU 0, whose slot it is.
pub fn pool(frames: u64) -> &'static FramePool<Cpu> {
    pool_as(0, frames)
}

fn take(pool: &FramePool<Cpu>, count: u64) -> Vec<Frame> {
    (0..count).map(|_| pool.alloc().expect("a frame")).collect()
}

/// Allocates one, and how many read-modify-writes that took.
fn alloc(pool: &FramePool<Cpu>) -> u64 {
    let (count, frame) = during(|| pool.alloc());
    let _ = frame.expect("a frame");
    count
}

/// Frees one, and how many read-modify-writes that took.
fn free(pool: &FramePool<Cpu>, frame: Frame) -> u64 {
    let (count, freed) = during(|| pool.free(frame));
    freed.expect("a free");
    count
}

#[test]
fn in_the_cache_there_are_none() {
    let pool = pool(GIANT_FRAMES);
    let mut frames = take(pool, WORD_BITS + 2);
    assert_eq!(free(pool, frames.pop().expect("a frame")), 0, "to the allocation side");
    assert_eq!(free(pool, frames.remove(0)), 0, "opens the free side");
    for frame in frames.drain(..7) {
        assert_eq!(free(pool, frame), 0, "to the free side");
    }
    for _ in 0..WORD_BITS - 1 + 8 {
        assert_eq!(alloc(pool), 0, "from both sides");
    }
    assert_eq!(alloc(pool), 1, "and no more");
}

#[test]
fn few_freed_frames_go_to_the_tree_before_a_refill() {
    let pool = pool(GIANT_FRAMES);
    let mut frames = take(pool, 2 * WORD_BITS);
    for frame in frames.drain(..7) {
        assert_eq!(free(pool, frame), 0);
    }
    assert_eq!(alloc(pool), 2 + 1, "a flush to a group without free frames, and a refill");
}

#[test]
fn a_refill_from_a_partly_used_block_is_one() {
    let pool = pool(GIANT_FRAMES);
    let _ = take(pool, WORD_BITS);
    assert_eq!(alloc(pool), 1);
}

#[test]
fn a_refill_that_moves_to_another_block() {
    let pool = pool(2 * GIANT_FRAMES);
    assert_eq!(alloc(pool), 9, "the very first");
    let _ = take(pool, BLOCK_FRAMES - WORD_BITS - 1);
    assert_eq!(alloc(pool), 3, "the block's last word: it is retired, and not claimed any more");
    let _ = take(pool, WORD_BITS - 1);
    assert_eq!(alloc(pool), 4, "a block that was never used");
    let _ = take(pool, BLOCK_FRAMES - 1);
    // Block 2, used before, is free again.
    let block = pool.alloc_block().expect("a block");
    pool.free_block(block).expect("a free");
    assert_eq!(alloc(pool), 1 + 3, "a block that was used before, and has waited in the cache");
    let _ = take(pool, GIANT_FRAMES - 2 * BLOCK_FRAMES - 1);
    assert_eq!(alloc(pool), 12, "a block in another GiB, which was never used");
}

#[test]
fn a_hole_for_a_hole() {
    let pool = pool(GIANT_FRAMES);
    let mut frames: Vec<_> = take(pool, GIANT_FRAMES).into_iter().map(Some).collect();
    let mut replace = |group: u64| {
        let place = &mut frames[(group * WORD_BITS) as usize];
        let count = free(pool, place.take().expect("a frame"));
        let (taken, frame) = during(|| pool.alloc());
        *place = Some(frame.expect("the same"));
        (count, taken)
    };
    assert_eq!(replace(100).0, 0, "to a side, from which it goes to the tree");
    for group in [2000, 3000, 7] {
        assert_eq!(replace(group), (0, 0), "nothing else is free, by the hints");
    }
    // Also after they were asked again.
    assert!((0..500).all(|at| replace(at * 8) == (0, 0)));
}

#[test]
fn a_hole_for_a_hole_in_several_gibs() {
    let pool = pool(3 * GIANT_FRAMES);
    let mut frames: Vec<_> = take(pool, 3 * GIANT_FRAMES).into_iter().map(Some).collect();
    let mut replace = |at: u64| {
        let place = &mut frames[(at * 7919 * WORD_BITS % (3 * GIANT_FRAMES)) as usize];
        let count = free(pool, place.take().expect("a frame"));
        let (taken, frame) = during(|| pool.alloc());
        *place = Some(frame.expect("the same"));
        count + taken
    };
    let begin: u64 = (0..300).map(&mut replace).sum();
    assert!((1..40).contains(&begin), "{begin}: until all GiBs are known to be used up");
    assert_eq!((300..2000).map(replace).sum::<u64>(), 0);
}

/// All frames of a pool of so many, after a few holes at the upper end were filled.
fn all_of(pool: &FramePool<Cpu>, count: u64) -> Vec<Option<Frame>> {
    let mut frames: Vec<_> = take(pool, count).into_iter().map(Some).collect();
    fill_some_holes(pool, &mut frames);
    frames
}

/// After that the CPU knows that nothing else is free.
fn fill_some_holes(pool: &FramePool<Cpu>, frames: &mut [Option<Frame>]) {
    for group in [1, 9, 5] {
        let place = &mut frames[frames.len() - group * WORD_BITS as usize];
        free(pool, place.take().expect("a frame"));
        *place = pool.alloc().ok();
    }
}

#[test]
fn what_is_not_kept() {
    let pool = pool(GIANT_FRAMES);
    let [above, number, foreign] = [60_000, 700, GIANT_FRAMES + 5].map(FrameNumber::trusted);
    let isolate = || {
        let range = NumberRange::from_numbers(above.get(), above.get() + 1);
        let memory = vec![0u8; 8192].leak().as_mut_ptr();
        let memory = memory.wrapping_add(memory.align_offset(128));
        // SAFETY: memory of its own, for the one frame that it needs the first time.
        unsafe { pool.isolate(range, |_| memory) }.expect("a range")
    };
    pool.readmit(isolate());
    let mut frames = all_of(pool, GIANT_FRAMES - 1);
    let place = &mut frames[64_000];
    assert_eq!(free(pool, place.take().expect("a frame")), 0, "kept");
    assert_eq!(pool.stats().cached_frames, 1);
    *place = pool.alloc().ok();
    // What is on its way out.
    let isolation = isolate();
    fill_some_holes(pool, &mut frames);
    assert_eq!(pool.free(Frame::owned(above)), Ok(()));
    assert_eq!(pool.stats().cached_frames, 0);
    // What another CPU has freed, of which this one knows nothing.
    let tree = pool.tree().expect("a tree");
    tree.free(Frame::owned(number)).expect("in use");
    assert_eq!(pool.free(Frame::owned(number)).expect_err("it is free").found, Found::Free);
    assert_eq!(pool.stats().cached_frames, 0);
    // What is nobody's.
    let found = pool.free(Frame::owned(foreign)).expect_err("it is nobody's").found;
    assert_eq!(found, Found::Unmanaged);
    pool.readmit(isolation);
}

#[test]
fn a_lower_run_that_is_parked() {
    let pool = pool(GIANT_FRAMES);
    let mut frames = all_of(pool, GIANT_FRAMES);
    let run = |first: u64| FrameRange::owned(NumberRange::from_numbers(first, first + 2));
    // A run of two above shows that there is none below, but a frame.
    let tree = pool.tree().expect("a tree");
    tree.free_run(run(6403)).expect("in use");
    tree.free(Frame::owned(FrameNumber::trusted(100))).expect("in use");
    let above = pool.alloc_run(&Request::new(2)).expect("the only one");
    assert_eq!((above.numbers().start().get(), alloc(pool)), (6403, 0));
    assert_eq!(during(|| pool.free_run(run(643))).0, 0, "parked");
    let _ = free(pool, frames[3000].take().expect("a frame"));
    let lowest = pool.alloc().expect("a frame").number().get();
    assert_eq!(lowest, 643, "not the one that was freed last");
}

#[test]
fn a_home_that_has_moved_down() {
    let pool = pool(2 * GIANT_FRAMES);
    let mut frames = all_of(pool, 2 * GIANT_FRAMES);
    let mut free_of = |group: u64| {
        let frame = frames[(group * WORD_BITS) as usize].take().expect("a frame");
        free(pool, frame)
    };
    let alloc = || during(|| pool.alloc().expect("a frame").number().get());
    // Somebody else frees below.
    let tree = pool.tree().expect("a tree");
    let others = (0..8).map(|bit| 50 * WORD_BITS + bit).chain([700 * WORD_BITS + 9]);
    others.for_each(|number| tree.free(Frame::owned(FrameNumber::trusted(number))).expect("used"));
    assert_eq!((free_of(4096 + 900), alloc().1), (0, (4096 + 900) * WORD_BITS));
    assert!((0..8).all(|bit| alloc().1 == 50 * WORD_BITS + bit), "the home moves there");
    free_of(3000);
    assert_eq!(alloc().1, 700 * WORD_BITS + 9, "not the one that was freed last");
}

#[test]
fn a_home_goes_down_to_holes_below() {
    let pool = pool(3 * GIANT_FRAMES);
    let mut frames: Vec<_> = take(pool, 3 * GIANT_FRAMES).into_iter().map(Some).collect();
    let mut free_at = |at: u64| free(pool, frames[at as usize].take().expect("a frame"));
    // Holes in the highest GiB, where the home is, then some in the lowest.
    (0..150).for_each(|at| _ = free_at(2 * GIANT_FRAMES + at * BLOCK_FRAMES));
    let _ = take(pool, 2);
    (0..20).for_each(|at| _ = free_at(at * BLOCK_FRAMES));
    // Frames of the lowest GiB are replaced.
    let replaced = |at: u64| {
        free_at(at * WORD_BITS + 1);
        pool.alloc().expect("a frame").number().get() < GIANT_FRAMES
    };
    let low = (0..200).map(replaced).filter(|is_low| *is_low).count();
    assert!(low > 100, "{low} of 200 came from there");
}

#[test]
fn a_hole_for_a_hole_below_others() {
    let pool = pool(GIANT_FRAMES);
    let mut frames: Vec<_> = take(pool, GIANT_FRAMES).into_iter().map(Some).collect();
    let mut free_of = |group: u64| {
        let frame = frames[(group * WORD_BITS) as usize].take().expect("a frame");
        free(pool, frame)
    };
    let alloc = || during(|| pool.alloc().expect("a frame").number().get() / WORD_BITS);
    assert_eq!((free_of(100), alloc().1), (0, 100));
    // Two at once: the first waits in the cache, the second goes to the tree, and is found there.
    assert_eq!((free_of(500), free_of(400)), (0, 2));
    let twice = Frame::owned(FrameNumber::trusted(500 * WORD_BITS));
    assert_eq!(pool.free(twice).expect_err("it is free").found, Found::Cached);
    assert_eq!((alloc(), alloc()), ((0, 500), (2, 400)));
    // Packed up to there now, not above.
    assert_eq!((free_of(450), alloc()), (2, (2, 450)));
    assert_eq!((free_of(300), alloc()), (0, (0, 300)));
    // What another CPU frees is seen when the hints are asked again.
    let tree = pool.tree().expect("a tree");
    tree.free(Frame::owned(FrameNumber::trusted(WORD_BITS + 1))).expect("a frame in use");
    let is_seen = |at: u64| {
        let count = free_of(290 - at);
        let (taken, group) = alloc();
        assert!((count, taken, group) == (0, 0, 290 - at) || (count, taken, group) == (2, 2, 1));
        group == 1
    };
    let kept = (0..64).position(is_seen);
    assert!(kept > Some(50), "{kept:?}: the lowest, of the other CPU, after so many");
}

#[test]
fn a_free_that_flushes() {
    let pool = pool(GIANT_FRAMES);
    let mut frames = take(pool, 5 * WORD_BITS).into_iter().step_by(WORD_BITS as usize / 2);
    let mut next = || frames.next().expect("a frame");
    let (first, second, third) = (next(), next(), next());
    let (fourth, fifth) = (next(), next());
    assert_eq!(free(pool, first), 0, "the free side was closed");
    assert_eq!(free(pool, third), 2, "to a group without free frames");
    assert_eq!(free(pool, second), 2, "the same");
    assert_eq!(free(pool, fourth), 1, "to a group with free frames");
    assert_eq!(free(pool, fifth), 1, "the same");
}

#[test]
fn a_free_far_from_the_last() {
    let pool = pool(GIANT_FRAMES);
    let mut groups = [(); 8].map(|()| take(pool, WORD_BITS));
    let mut to = |group: usize| free(pool, groups[group].pop().expect("a frame"));
    assert_eq!(to(0), 0, "the free side was closed");
    assert_eq!(to(3), 2, "past it, to a group without free frames");
    assert_eq!(to(5), 2, "the same");
    assert_eq!(to(3), 1, "past it, to a group with free frames");
    assert_eq!(to(3), 2, "twice in turn: a flush, to a group without free frames");
    assert_eq!(to(3), 0, "to the free side");
    assert_eq!(to(5), 1, "past it");
    assert_eq!(to(3), 0, "which has stayed");
    assert_eq!(to(4), 1, "beside it: a flush");
    assert_eq!(to(4), 0, "to the free side");
}

#[test]
fn a_free_that_flushes_when_nothing_was_left() {
    let pool = pool(GIANT_FRAMES);
    let mut frames = take(pool, GIANT_FRAMES).into_iter();
    pool.alloc().expect_err("nothing is left");
    assert_eq!(free(pool, frames.next().expect("a frame")), 0);
    let far = frames.nth(WORD_BITS as usize).expect("a frame");
    assert_eq!(free(pool, far), 3, "the GiB's hint too");
}

#[test]
fn a_flush_that_completes_a_block_or_a_gib() {
    let pool = pool(GIANT_FRAMES);
    let frames = take(pool, GIANT_FRAMES);
    pool.alloc().expect_err("nothing is left");
    let mut counts = frames.into_iter().map(|frame| free(pool, frame)).enumerate();
    let flushes: Vec<_> = counts.by_ref().filter(|(_, count)| *count != 0).collect();
    let groups_of_a_block = (BLOCK_FRAMES / WORD_BITS) as usize;
    for (flush, (at, count)) in flushes.iter().enumerate() {
        assert_eq!(*at, (flush + 1) * WORD_BITS as usize);
        let expected = match flush + 1 {
            1 => 2 + 1,
            done if done == groups_of_a_block => 2 + 10 + 1,
            done if done % groups_of_a_block == 0 => 2 + 10,
            _ => 2,
        };
        assert_eq!(*count, expected, "flush {flush}");
    }
    let (count, drained) = during(|| pool.drain());
    drained.expect("a drain");
    assert_eq!(count, 2 + 10 + 10, "a group, block and GiB; the home went when nothing was left");
    assert_eq!(pool.tree().map(|tree| tree.count_free().giants), Some(1));
}

/// Takes a run, and how many read-modify-writes that took.
fn alloc_run(pool: &FramePool<Cpu>, count: u64) -> (u64, FrameRange) {
    let (made, run) = during(|| pool.alloc_run(&Request::new(count)));
    (made, run.expect("a run"))
}

fn free_run(pool: &FramePool<Cpu>, run: FrameRange) -> u64 {
    let (made, freed) = during(|| pool.free_run(run));
    freed.expect("a free");
    made
}

#[test]
fn a_short_run_from_the_cache_and_back() {
    let pool = pool(GIANT_FRAMES);
    let _ = take(pool, 1);
    let (made, run) = alloc_run(pool, 17);
    assert_eq!(made, 0);
    assert_eq!(free_run(pool, run), 0);
}

#[test]
fn a_run_for_a_run() {
    let pool = pool(GIANT_FRAMES);
    // One frame is left in the cache.
    let _ = take(pool, WORD_BITS - 1);
    let mut runs: Vec<_> = (0..60).map(|_| Some(alloc_run(pool, 3))).collect();
    assert!(runs[10..20].iter().flatten().all(|(made, _)| *made == 1), "a word each");
    let mut free = |at: usize| free_run(pool, runs[at].take().expect("a run").1);
    let alloc = || alloc_run(pool, 3);
    assert_eq!(free(7), 0, "it waits for the next");
    assert_eq!(alloc().0, 0, "which gets it");
    assert_eq!(free(8), 0);
    assert_eq!(free(32), 2, "in another word, to the tree, and announced");
    assert_eq!(alloc().0, 0, "the lower one");
    assert_eq!(alloc().0, 1);
    assert_eq!(free(33), 0);
    assert_eq!(free(9), 4, "below one that waits, which goes to the tree: both are announced");
    assert_eq!(alloc().0, 1);
    assert_eq!(alloc().0, 1);
    assert_eq!(free(10), 0);
    assert_eq!(free(11), 0, "beside the one that waits");
    assert_eq!(alloc().0, 3, "both go to the tree, are announced, and one is taken");
    assert_eq!(alloc().0, 1);
    assert_eq!(free(21), 4, "across two words, each of which is announced");
    assert_eq!(alloc().0, 2, "the same");
}

#[test]
fn blocks() {
    let pool = pool(2 * GIANT_FRAMES);
    let alloc = || during(|| pool.alloc_block().expect("a block"));
    assert_eq!(alloc().0, 5, "splits a GiB, writes its nodes and a leaf");
    let (count, block) = alloc();
    assert_eq!(count, 2, "writes a leaf");
    let free = |block| {
        let (count, freed) = during(|| pool.free_block(block));
        freed.expect("a free");
        count
    };
    let ((_, second), number) = (alloc(), block.number());
    assert_eq!(free(block), 0, "the lowest waits in the cache");
    let (count, first) = alloc();
    assert_eq!((count, first.number()), (0, number), "it comes back");
    assert_eq!(free(first), 0);
    assert_eq!(free(second), 1, "one waits already");
    let ((none, first), (one, second)) = (alloc(), alloc());
    assert_eq!((none, one), (0, 1));
    assert_eq!(free(second), 0);
    assert_eq!(free(first), 2, "below the one that waits, which goes to the tree");
    assert_eq!((alloc().0, alloc().0), (1, 1));
}

#[test]
fn giants() {
    let pool = pool(2 * GIANT_FRAMES);
    let (count, giant) = during(|| pool.alloc_giant().expect("a GiB"));
    assert_eq!(count, 1 + 1 + GIANT_BLOCKS, "writes its nodes, and a leaf for each block");
    let (count, freed) = during(|| pool.free_giant(giant));
    freed.expect("a free");
    assert_eq!(count, 1);
    let (count, giant) = during(|| pool.alloc_giant().expect("a GiB"));
    assert_eq!((count, giant.number().get()), (1, 0), "the same");
}

/// Gives a frame back that is said to be zero, and how many read-modify-writes that took.
fn free_zeroed(pool: &FramePool<Cpu>, frame: Frame) -> u64 {
    // SAFETY: the memory is not real.
    let (count, freed) = during(|| unsafe { pool.free_zeroed(frame) });
    freed.expect("a free");
    count
}

/// Allocates one, and how many read-modify-writes that took; it must be known to be zero.
fn alloc_zeroed(pool: &FramePool<Cpu>) -> u64 {
    let (count, frame) = during(|| pool.alloc_zeroed(|_| panic!("is known to be zero")));
    let _ = frame.expect("a frame");
    count
}

#[test]
fn zeroed_frames_cost_nothing_in_the_cache() {
    let pool = pool(GIANT_FRAMES);
    let mut frames = take(pool, 4 * WORD_BITS);
    let groups = [(); 3].map(|()| frames.split_off(frames.len() - WORD_BITS as usize));
    let [third, mut second, first] = groups;
    for frame in second.drain(..8) {
        assert_eq!(free_zeroed(pool, frame), 0, "opens a side");
    }
    assert_eq!(alloc_zeroed(pool), 0);
    for frame in second {
        assert_eq!(free_zeroed(pool, frame), 0, "to an open side");
    }
    let mut first = first.into_iter();
    assert_eq!(free_zeroed(pool, first.next().expect("a frame")), 0, "the other side");
    let mut third = third.into_iter();
    let count = free_zeroed(pool, third.next().expect("a frame"));
    assert_eq!(count, 2 + 2, "past the sides, to a group without free frames, a zeroed one");
    let count = free_zeroed(pool, third.next().expect("a frame"));
    assert_eq!(count, 2 + 2, "a flush to a group without free frames, of a zeroed one");
    assert_eq!(free_zeroed(pool, third.next().expect("a frame")), 0);
    let count = free_zeroed(pool, first.next().expect("a frame"));
    assert_eq!(count, 1 + 2, "past the sides, to a group with free frames");
    let count = free_zeroed(pool, first.next().expect("a frame"));
    assert_eq!(count, 1 + 2, "a flush to a group with free frames");
    pool.drain().expect("a drain");
    let (count, frame) = during(|| pool.alloc_zeroed(|_| panic!("is known to be zero")));
    let _ = frame.expect("a frame");
    assert_eq!(count, 1 + 1 + 2, "a refill of known-zero frames, and a home's two marks");
}

#[test]
fn in_bulk_one_for_each_word() {
    let pool = pool(GIANT_FRAMES);
    let _ = take(pool, WORD_BITS);
    let mut list = [(); 3 * WORD_BITS as usize].map(|()| None);
    assert_eq!(during(|| pool.alloc_bulk(&mut list[..5])), (1, 5), "a refill");
    assert_eq!(during(|| pool.alloc_bulk(&mut list[..5])), (0, 0), "no holes");
    assert_eq!(during(|| pool.alloc_bulk(&mut list)), (2, 187), "the cache, and two refills");
    let (count, freed) = during(|| pool.free_bulk(&mut list));
    freed.expect("a free");
    assert_eq!(count, 2, "two sides, and one flush to a group without free frames");
    assert_eq!(during(|| pool.alloc_bulk(&mut list)), (1, 192), "two sides, and a refill");
    // A frame of each group stays free.
    for frame in list.iter_mut().step_by(WORD_BITS as usize) {
        pool.free(frame.take().expect("a frame")).expect("a free");
    }
    pool.drain().expect("a drain");
    let (count, freed) = during(|| pool.free_bulk(&mut list));
    freed.expect("a free");
    assert_eq!(count, 3, "the first goes past; then two flushes to groups with free frames");
}

#[test]
fn a_cpu_without_a_slot_pays_for_the_shared_journal() {
    let pool = pool_as(7, GIANT_FRAMES);
    let frame = pool.alloc().expect("a frame");
    assert_eq!(alloc(pool), 2);
    assert_eq!(free(pool, frame), 4);
}

#[test]
fn a_reserve_costs_one_for_a_batch() {
    let pool = pool_by(Setup::new(1).reserve(100), 0, GIANT_FRAMES);
    // A 64th of a GiB in frames.
    let batch = GIANT_FRAMES / 64;
    assert_eq!(alloc(pool), 10, "the very first: 9, and a batch");
    let mut frames = take(pool, WORD_BITS - 1);
    let refills = batch / WORD_BITS;
    let counts: u64 = (1..2 * refills)
        .map(|_| {
            let count = alloc(pool);
            frames.extend(take(pool, WORD_BITS - 1));
            count
        })
        .sum();
    let blocks = 2 * batch / BLOCK_FRAMES - 1;
    assert_eq!(counts, (2 * refills - 1 - blocks) + 6 * blocks + 1, "one batch more");
    // To the shared word it goes only when there is more than two batches.
    let flushes = frames.into_iter().map(|frame| free(pool, frame)).filter(|count| *count > 0);
    assert_eq!(flushes.filter(|count| count % 2 != 0).count(), 0, "no flush costs one more");
    let _ = take(pool, GIANT_FRAMES - 2 * batch);
    while pool.alloc().is_ok() {}
    let (count, frame) = during(|| pool.alloc_urgent());
    let _ = frame.expect("a frame of the reserve");
    assert_eq!(count, 1 + 1, "the frame, and the budget");
}

/// Read-modify-writes of `work` on a tree that `prepare` has used, in a CPU's own journal, in
/// the shared one, and in an interrupt inside that CPU's operation.
fn on_the_tree<P>(
    prepare: impl Fn(&FrameTree<'static>) -> P,
    work: impl Fn(&FrameTree<'static>, Writer<'_>, P),
) -> [u64; 3] {
    let count = |writer: fn(&'static FrameTree<'static>) -> Writer<'static>| {
        let tree = pool(2 * GIANT_FRAMES).tree().expect("a tree");
        let prepared = prepare(tree);
        during(|| work(tree, writer(tree), prepared)).0
    };
    [
        count(|tree| tree.sole_writer(0)),
        count(FrameTree::shared_writer),
        count(|tree| tree.nested_writer(0)),
    ]
}

/// Takes frames one by one, so that a block is split.
fn singles(tree: &FrameTree<'_>, count: u64) -> Vec<Frame> {
    (0..count).map(|_| tree.alloc().expect("a frame")).collect()
}

#[test]
fn refills_and_single_frames_on_the_tree() {
    let one = |tree: &FrameTree<'_>, writer: Writer<'_>, _| {
        let _ = tree.alloc_with(writer).expect("a frame");
    };
    assert_eq!(on_the_tree(|tree| singles(tree, 1), one), [1, 2, 2], "alloc");
    let refill = |tree: &FrameTree<'_>, writer: Writer<'_>, _| {
        let _ = tree.refill_with(writer).expect("frames");
    };
    assert_eq!(on_the_tree(|tree| singles(tree, 1), refill), [1, 3, 3], "refill");
    let bulk = |tree: &FrameTree<'_>, writer: Writer<'_>, _| {
        let some = tree.alloc_some_with(writer, 40).expect("frames");
        assert_eq!(some.free().count_ones(), 40);
    };
    assert_eq!(on_the_tree(|tree| singles(tree, 1), bulk), [1, 2, 2], "alloc_bulk");
    let whole = |tree: &FrameTree<'_>| {
        // Three blocks have been used before; the first is not free again.
        let [_, second, third] = [(); 3].map(|()| tree.alloc_block().expect("a block"));
        tree.free_block(second).expect("a free");
        tree.free_block(third).expect("a free");
        Vec::new()
    };
    assert_eq!(on_the_tree(whole, refill), [3, 8, 8], "the first crumbs of a GiB");
    let used_up = |tree: &FrameTree<'_>| {
        whole(tree);
        singles(tree, BLOCK_FRAMES)
    };
    assert_eq!(on_the_tree(used_up, refill), [3, 10, 10], "refill from the next block");
}

#[test]
fn frees_on_the_tree() {
    let free = |tree: &FrameTree<'_>, writer: Writer<'_>, mut frames: Vec<Frame>| {
        let frame = frames.pop().expect("a frame");
        tree.free_with(writer, frame.into_number()).expect("a free");
    };
    assert_eq!(on_the_tree(|tree| singles(tree, 2), free), [1, 4, 4], "free");
    assert_eq!(on_the_tree(|tree| singles(tree, 1), free), [21, 30, 30], "completes a GiB");
    assert_eq!(on_the_tree(|tree| singles(tree, WORD_BITS), free), [2, 5, 5], "to an empty word");
    let zeroed = |tree: &FrameTree<'_>, writer: Writer<'_>, mut frames: Vec<Frame>| {
        let frame = frames.pop().expect("a frame");
        tree.free_zeroed_with(writer, frame.into_number()).expect("a free");
    };
    assert_eq!(on_the_tree(|tree| singles(tree, 2), zeroed), [3, 6, 6], "free_zeroed");
    let bulk = |tree: &FrameTree<'_>, writer: Writer<'_>, frames: Vec<Frame>| {
        let mut list: Vec<_> = frames.into_iter().skip(1).map(Some).collect();
        tree.free_bulk_with(writer, &mut list).expect("a free");
    };
    assert_eq!(on_the_tree(|tree| singles(tree, 41), bulk), [1, 4, 4], "free_bulk");
    let flush = |tree: &FrameTree<'_>, writer: Writer<'_>, mut cache: crate::PageCache| {
        tree.flush_with(writer, cache.take()).expect("a flush");
    };
    let part = |tree: &FrameTree<'_>| {
        let frame = tree.alloc().expect("a frame");
        let cache = tree.refill().expect("frames");
        let _ = tree.refill().expect("frames");
        tree.free(frame).expect("a free");
        cache
    };
    assert_eq!(on_the_tree(part, flush), [1, 5, 5], "flush");
    let whole = |tree: &FrameTree<'_>| {
        let _ = tree.alloc().expect("a frame");
        let _ = tree.refill().expect("frames");
        tree.refill().expect("frames")
    };
    assert_eq!(on_the_tree(whole, flush), [2, 6, 6], "flush to an empty word");
    let all = |tree: &FrameTree<'_>| {
        let _ = tree.alloc_block().expect("a block");
        tree.refill().expect("frames")
    };
    assert_eq!(on_the_tree(all, flush), [12, 19, 19], "flush that completes a block");
}

#[test]
fn blocks_on_the_tree() {
    let two = |tree: &FrameTree<'_>| {
        let _ = tree.alloc_block().expect("a block");
        tree.alloc_block().expect("a block")
    };
    let free = |tree: &FrameTree<'_>, writer: Writer<'_>, block: Frame| {
        tree.free_block_with(writer, block.into_number()).expect("a free");
    };
    assert_eq!(on_the_tree(two, free), [1, 4, 4], "free_block");
    let back = |tree: &FrameTree<'_>| tree.free_block(two(tree)).expect("a free");
    let alloc = |tree: &FrameTree<'_>, writer: Writer<'_>, ()| {
        let _ = tree.alloc_block_with(writer).expect("a block");
    };
    assert_eq!(on_the_tree(back, alloc), [1, 2, 2], "alloc_block");
}
