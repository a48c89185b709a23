//! remove: memory goes while all CPUs allocate, and comes back; a broken frame goes for good.
//!
//! CPU 0 takes some frames of a range of 4 MiB and isolates the range: the pool names what is in
//! use, and takes the range off line only when that is back. Meanwhile the others keep sets of
//! frames in motion, and none of what they are given after the isolation may lie in the range. When
//! it is gone CPU 0 writes all over it, as if a device had it, and brings it back.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::time::Duration;
use frametree::{FRAME_SIZE, Frame, FrameNumber, FrameTree, Isolation, NumberRange, Request};

use super::pattern::WORDS;
use super::worker::Worker;
use crate::clock::Stopwatch;
use crate::memory::{self, POOL, Purpose};
use crate::waiting::wait_for;
use crate::{paging, println, smp};

/// Frames of a block, and blocks of the range.
const BLOCK_FRAMES: u64 = 512;
const BLOCKS: u64 = 2;
/// Frames of it that are in use when it is isolated.
const USED: u64 = 100;
/// How long it may take until they are back.
const LIMIT: Duration = Duration::from_secs(30);
/// Changes that the others make to their sets between two looks whether it is over.
const BURST: usize = 64;

/// What was done.
pub struct Counts {
    /// Frames that were isolated, gone, and brought back.
    pub removed: u64,
    /// Frames that are gone for good.
    pub retired: u64,
    /// What other CPUs were given meanwhile.
    pub meanwhile: u64,
}

/// Runs the exercise.
pub fn run() -> Counts {
    super::drain_all();
    let watch = Stopwatch::start();
    let tree = POOL.tree().expect("the pool is initialised");
    let Some(range) = highest_free(tree) else {
        println!("remove: no 4 MiB in a row are free");
        return Counts { removed: 0, retired: retire(), meanwhile: 0 };
    };
    println!("remove: {range:?}, while all other CPUs allocate");
    let (isolated, over, meanwhile) =
        (AtomicBool::new(false), AtomicBool::new(false), AtomicU64::new(0));
    smp::run(|cpu| {
        let mut worker = Worker::new(cpu);
        if cpu.get() == 0 {
            remove(&mut worker, range, &isolated);
            // ORDERING: Relaxed: a wish.
            over.store(true, Ordering::Relaxed);
        } else {
            meanwhile.fetch_add(stay_out(&mut worker, range, &isolated, &over), Ordering::Relaxed);
        }
        memory::drain();
    });
    let (meanwhile, retired) = (meanwhile.into_inner(), retire());
    println!("  {meanwhile} frames went to other CPUs meanwhile, none of the range");
    println!(
        "  {} frames gone and back, {retired} broken one gone for good: {:.1} s",
        range.len(),
        watch.elapsed().as_secs_f32()
    );
    assert!(meanwhile > 0 || smp::online() == 1, "the others were given nothing");
    Counts { removed: range.len(), retired, meanwhile }
}

/// The highest blocks in a row that are free.
fn highest_free(tree: &FrameTree) -> Option<NumberRange> {
    let (mut run, mut end, mut found) = (0, 0, None);
    for block in tree.blocks().filter(|block| block.free == BLOCK_FRAMES) {
        let first = block.first.get();
        run = if first == end { run + 1 } else { 1 };
        end = first + BLOCK_FRAMES;
        if run >= BLOCKS {
            found = Some(NumberRange::from_numbers(end - BLOCKS * BLOCK_FRAMES, end));
        }
    }
    found
}

fn remove(worker: &mut Worker, range: NumberRange, is_isolated: &AtomicBool) {
    let first = Request::new(USED).at(range.start());
    let used = worker.take_run(&first).unwrap_or_else(|error| panic!("{USED} frames: {error}"));
    let used = worker.stamp_run(used);
    let managed = POOL.stats().managed_frames;
    // SAFETY: The direct map reaches all frames.
    let isolation = unsafe { POOL.isolate(range, paging::direct_map) };
    let isolation = isolation.unwrap_or_else(|error| panic!("cannot isolate {range:?}: {error}"));
    // Cached frames come back with the drains that the isolation asked for.
    wait_until_used(&isolation, USED);
    // ORDERING: Release pairs with the Acquire of those who check what they get.
    is_isolated.store(true, Ordering::Release);
    let isolation = POOL.offline(isolation).expect_err("some of it is in use");
    worker.release_run(used);
    memory::drain();
    wait_until_used(&isolation, 0);
    let gone = POOL.offline(isolation).expect("nothing of it is in use");
    assert!(gone == range, "{gone:?} is gone, not {range:?}");
    let left = POOL.stats().managed_frames;
    assert!(left == managed - range.len(), "{left} frames of {managed} without {}", range.len());
    // SAFETY: The memory is gone from the pool, and nobody else's.
    unsafe { scribble(range) };
    let refused = POOL.alloc_run(&Request::new(1).at(range.start()));
    assert!(refused.is_err(), "{refused:?}, which is gone");
    // ORDERING: Release; see `stay_out`.
    is_isolated.store(false, Ordering::Release);
    // SAFETY: Nobody uses it any more.
    let back = unsafe { POOL.bring_back(range) };
    assert!(back == range.len(), "{back} of {} frames are back", range.len());
}

/// Waits until so many frames of the range are in use.
fn wait_until_used(isolation: &Isolation, frames: u64) {
    let used = || POOL.in_use(isolation);
    if wait_for(LIMIT, || used().frames == frames).is_err() {
        panic!("{:?} in use, not {frames}, after {LIMIT:?}", used());
    }
}

/// Writes to all of it.
///
/// # Safety
/// Nobody uses it.
unsafe fn scribble(range: NumberRange) {
    let words = paging::direct_map(range.start().start_address()).cast::<u64>();
    let count = (range.len() * FRAME_SIZE / 8) as usize;
    for index in 0..count {
        // SAFETY: Inside the range, which the direct map reaches.
        unsafe { words.add(index).write_volatile(0x5c5c_5c5c_5c5c_5c5c) };
    }
}

/// Keeps frames in motion until it is over; looks at each that comes after the isolation.
fn stay_out(
    worker: &mut Worker,
    range: NumberRange,
    isolated: &AtomicBool,
    over: &AtomicBool,
) -> u64 {
    let mut count = 0;
    // ORDERING: Relaxed: a wish.
    while !over.load(Ordering::Relaxed) {
        for _ in 0..BURST {
            // It is isolated if it is so before and after: the range comes back only once.
            // ORDERING: Acquire, as said above.
            let was_isolated = isolated.load(Ordering::Acquire);
            let Some(frame) = worker.take() else { break };
            let is_isolated = was_isolated && isolated.load(Ordering::Acquire);
            assert!(
                !(is_isolated && range.contains(frame.number())),
                "CPU {} was given {:?}, which is isolated",
                worker.cpu().get(),
                frame.number()
            );
            count += u64::from(is_isolated);
            worker.give_back(frame);
            worker.churn(WORDS);
        }
    }
    worker.empty_hand(WORDS);
    count
}

/// A frame that turns out to be broken.
fn retire() -> u64 {
    super::drain_all();
    let frame: Frame = POOL.alloc().unwrap_or_else(|error| panic!("a frame: {error}"));
    let number: FrameNumber = frame.number();
    // SAFETY: The direct map reaches all frames.
    if let Err((_, error)) = unsafe { POOL.retire(frame, paging::direct_map) } {
        panic!("cannot retire {number}: {error}");
    }
    let again = POOL.alloc_run(&Request::new(1).at(number));
    assert!(again.is_err(), "{again:?}, which is retired");
    // SAFETY: Not at all, nobody owns it: a mistake that the pool must find.
    let freed = POOL.free(unsafe { Frame::from_number(number) });
    assert!(freed.is_err(), "a free of {number}, which is retired");
    // What the pool needed to know that frames are gone.
    super::drain_all();
    let stats = POOL.stats();
    let own = stats.managed_frames - stats.free_frames - memory::kept_in_all();
    assert!(own <= 2, "{own} frames for the account of what is gone");
    memory::keep(Purpose::Pool, own);
    1
}
