//! zero: a frame that `alloc_zeroed` hands out holds zeros, every byte of it; and many frames at
//! once.
//!
//! All CPUs take zeroed frames, check each byte, scribble over all of it, and give half of them
//! back as they are and the other half cleared and declared so. What they are given next has been
//! through other CPUs' hands. What is known to be zero is not cleared again: that is counted, and
//! must have happened. In between they take and give back frames by the list.

use core::slice;
use core::sync::atomic::{AtomicU64, Ordering};
use frametree::Frame;

use super::pattern::WORDS;
use super::worker::Worker;
use crate::clock::Stopwatch;
use crate::memory::{self, POOL};
use crate::{paging, println, smp};

/// Frames that each CPU has at a time.
const HAND: usize = 96;
const ROUNDS: usize = 12;

/// What was done.
pub struct Counts {
    /// Zeroed frames that were checked.
    pub checked: u64,
    /// Of these, how many did not have to be cleared.
    pub known: u64,
}

/// Runs the exercise.
pub fn run() -> Counts {
    super::drain_all();
    let watch = Stopwatch::start();
    println!("zero: all CPUs take zeroed frames, and frames by the list");
    let (checked, cleared, listed) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
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
            listed.fetch_add(by_the_list(&mut worker, share), Ordering::Relaxed);
        }
        memory::drain();
    });
    let (checked, cleared) = (checked.into_inner(), cleared.into_inner());
    let known = checked - cleared;
    println!("  {checked} zeroed frames, no byte of them set; {known} were known to be zero");
    println!(
        "  {} frames by the list, all different: {:.1} s",
        listed.into_inner(),
        watch.elapsed().as_secs_f32()
    );
    assert!(known > 0 && cleared > 0, "only one of both kinds: {cleared} of {checked} cleared");
    Counts { checked, known }
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

#[expect(clippy::mut_from_ref, reason = "the owner is not the memory; this exercise has both")]
fn words(frame: &Frame) -> &mut [u64] {
    let words = paging::direct_map(frame.start_address()).cast::<u64>();
    // SAFETY: The direct map reaches the frame, whose owner is this CPU's alone, and each use of
    // the words ends before the next; any bits are a `u64`.
    unsafe { slice::from_raw_parts_mut(words, WORDS) }
}
