//! zero: frames that `alloc_zeroed` and `alloc_run_zeroed` hand out hold zeros, every byte of them;
//! and many frames at once.
//!
//! All CPUs take zeroed frames, check each byte, scribble over all of it, and give half of them
//! back as they are and the other half cleared and declared so. What they are given next has been
//! through other CPUs' hands. What is known to be zero is not cleared again: that is counted, and
//! must have happened. In between they take and give back zeroed runs, of any length and of whole
//! 2 MiB, and frames by the list.

use core::slice;
use core::sync::atomic::{AtomicU64, Ordering};
use frametree::{FRAME_SIZE, Frame, FrameNumber, FrameRange, NumberRange, Request};

use super::pattern::WORDS;
use super::worker::Worker;
use crate::clock::Stopwatch;
use crate::memory::{self, POOL};
use crate::{paging, println, smp};

/// Frames that each CPU has at a time.
const HAND: usize = 96;
const ROUNDS: usize = 12;
/// The longest zeroed run but for those of 2 MiB.
const LONGEST: usize = 96;
const BLOCK_FRAMES: u64 = 512;

/// What was done.
pub struct Counts {
    /// Zeroed frames that were checked.
    pub checked: u64,
    /// Of these, how many did not have to be cleared.
    pub known: u64,
    /// Frames of zeroed runs that were checked.
    pub in_runs: u64,
}

/// Runs the exercise.
pub fn run() -> Counts {
    super::drain_all();
    let watch = Stopwatch::start();
    println!("zero: all CPUs take zeroed frames, and frames by the list");
    let [checked, cleared, listed] = [const { AtomicU64::new(0) }; 3];
    let [in_runs, cleared_in_runs] = [const { AtomicU64::new(0) }; 2];
    let share = super::available() as usize / (2 * smp::online());
    smp::run(|cpu| {
        let mut worker = Worker::new(cpu);
        for _ in 0..ROUNDS {
            let mut hand = [const { None }; HAND];
            for place in hand.iter_mut().take(share) {
                *place = Some(take_zeroed(&mut worker, &cleared));
                // ORDERING: Relaxed, here and below; read when the job is over.
                checked.fetch_add(1, Ordering::Relaxed);
            }
            hand.into_iter().flatten().for_each(|frame| give_back(&mut worker, frame));
            for request in requests(&mut worker) {
                let run = take_run_of_zeros(&mut worker, &request, &cleared_in_runs);
                in_runs.fetch_add(run.as_ref().map_or(0, FrameRange::len), Ordering::Relaxed);
                run.into_iter().for_each(|run| give_run_back(&mut worker, run));
            }
            listed.fetch_add(by_the_list(&mut worker, share), Ordering::Relaxed);
        }
        memory::drain();
    });
    let (checked, cleared) = (checked.into_inner(), cleared.into_inner());
    let known = checked - cleared;
    println!("  {checked} zeroed frames, no byte of them set; {known} were known to be zero");
    let (in_runs, cleared_in_runs) = (in_runs.into_inner(), cleared_in_runs.into_inner());
    let known_in_runs = in_runs - cleared_in_runs;
    println!("  {in_runs} in zeroed runs; {known_in_runs} of them were known to be zero");
    println!(
        "  {} frames by the list, all different: {:.1} s",
        listed.into_inner(),
        watch.elapsed().as_secs_f32()
    );
    assert!(known > 0 && cleared > 0, "only one of both kinds: {cleared} of {checked} cleared");
    assert!(in_runs > 0 && cleared_in_runs > 0, "of runs {cleared_in_runs} of {in_runs} cleared");
    Counts { checked, known, in_runs }
}

fn take_zeroed(worker: &mut Worker, cleared: &AtomicU64) -> Frame {
    let clear = |number: &Frame| {
        words(number).fill(0);
        cleared.fetch_add(1, Ordering::Relaxed);
    };
    let frame = match POOL.alloc_zeroed(clear) {
        Ok(frame) => frame,
        Err(error) => panic!("CPU {} was refused a zeroed frame: {error}", worker.cpu().get()),
    };
    worker.count_taken(1);
    let set = words(&frame).iter().position(|word| *word != 0);
    if let Some(word) = set {
        panic!(
            "word {word} of {:?}, which should be zero, is {:#x}",
            frame.number(),
            words(&frame)[word]
        );
    }
    frame
}

/// A run of some length, and a block of 2 MiB.
fn requests(worker: &mut Worker) -> [Request; 2] {
    let some = 1 + worker.random(LONGEST) as u64;
    [Request::new(some), Request::new(BLOCK_FRAMES).align(BLOCK_FRAMES * FRAME_SIZE)]
}

/// Takes such a run, if there is one, and checks each byte of it.
fn take_run_of_zeros(
    worker: &mut Worker,
    request: &Request,
    cleared: &AtomicU64,
) -> Option<FrameRange> {
    let clear = |dirty: NumberRange| {
        cleared.fetch_add(dirty.len(), Ordering::Relaxed);
        each_of(dirty).for_each(|frame| words_at(frame).fill(0));
    };
    let run = POOL.alloc_run_zeroed(request, clear).ok()?;
    worker.count_taken(run.len());
    for frame in each_of(run.numbers()) {
        assert!(words_at(frame).iter().all(|word| *word == 0), "{frame:?} of a run is not clear");
    }
    Some(run)
}

/// Scribbles over all of a run, and gives it back: as it is, or each frame cleared and declared so.
fn give_run_back(worker: &mut Worker, run: FrameRange) {
    let numbers = run.numbers();
    each_of(numbers).for_each(|frame| words_at(frame).fill(0xdead_0000 + frame.get()));
    if worker.random(2) == 0 {
        return worker.give_back_run(run);
    }
    let mut rest = run;
    while !rest.is_empty() {
        let (first, others) = rest.split_at(1);
        rest = others;
        let frame = first.into_numbers().start();
        words_at(frame).fill(0);
        // SAFETY: It is the owner's that was just taken apart, and was just cleared.
        let freed = unsafe { POOL.free_zeroed(Frame::from_number(frame)) };
        assert!(freed.is_ok(), "{frame:?} was refused: {freed:?}");
        worker.count_given_back(1);
    }
}

fn each_of(frames: NumberRange) -> impl Iterator<Item = FrameNumber> {
    (frames.start().get()..frames.end().get()).map(FrameNumber::new)
}

/// Scribbles over a frame, and gives it back, clean or not.
fn give_back(worker: &mut Worker, frame: Frame) {
    words(&frame).fill(0xdead_0000 + frame.number().get());
    if worker.random(2) == 0 {
        return worker.give_back(frame);
    }
    words(&frame).fill(0);
    // SAFETY: It was just cleared, and nobody else has it.
    if let Err(error) = unsafe { POOL.free_zeroed(frame) } {
        panic!("CPU {} was refused: {error}", worker.cpu().get());
    }
    worker.count_given_back(1);
}

/// Takes as many frames as fit into a list, writes into each what no other holds, looks after all
/// of them, and gives them back.
fn by_the_list(worker: &mut Worker, share: usize) -> u64 {
    let mut list = [const { None }; HAND];
    let list = &mut list[..share.min(HAND)];
    let count = POOL.alloc_bulk(list);
    worker.count_taken(count as u64);
    assert!(count == list.len(), "{count} of {} frames", list.len());
    for frame in list.iter().flatten() {
        words(frame).fill(frame.number().get());
    }
    for frame in list.iter().flatten() {
        let number = frame.number().get();
        assert!(words(frame).iter().all(|word| *word == number), "frame {number:#x} is not alone");
    }
    if let Err(error) = POOL.free_bulk(list) {
        panic!("CPU {} was refused: {error}", worker.cpu().get());
    }
    worker.count_given_back(count as u64);
    count as u64
}

fn words(frame: &Frame) -> &mut [u64] {
    words_at(frame.number())
}

/// The words of a frame that this CPU has.
fn words_at<'f>(frame: FrameNumber) -> &'f mut [u64] {
    let words = paging::direct_map(frame.start_address()).cast::<u64>();
    // SAFETY: The direct map reaches the frame, which is this CPU's alone, and each use of the words
    // ends before the next; any bits are a `u64`.
    unsafe { slice::from_raw_parts_mut(words, WORDS) }
}
