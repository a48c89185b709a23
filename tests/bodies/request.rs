//! Requests with any numbers, and frees of parts, against the naive search: the lowest run that is
//! what is asked for, an error that is true to the frame, and a free map that agrees afterwards.

use frametree::{AllocError, FrameNumber, FrameRange, FrameTree, InTheWay, NoRun, NumberRange};

use super::Bytes;
use crate::support::asked::Asked;
use crate::support::frames::{Frames, GROUP};
use crate::support::{Machine, with_pool};

const STEPS: usize = 64;

/// How many requests were answered.
pub fn run(data: &[u8]) -> usize {
    let bytes = &mut Bytes::new(data);
    let regions = bytes.regions();
    let end = regions.iter().map(|(start, count)| start + count).max().expect("a region");
    let mut free = Frames::of(&regions);
    let managed = free.clone();
    let mut held = Frames::default();
    let mut answered = 0;
    let garbage = bytes.u8().into();
    with_pool(Machine::Deaf, 1, &regions, garbage, |pool| {
        let tree = pool.tree().expect("a tree");
        let first = tree.count_free();
        while !bytes.is_empty() && answered < STEPS {
            if bytes.u8().is_multiple_of(3) {
                give_part(bytes, tree, &mut free, &mut held);
                continue;
            }
            let asked = bytes.asked(end);
            answered += 1;
            match tree.alloc_run(&asked.request()) {
                Ok(run) => {
                    let begin = run.into_numbers().start().get();
                    assert!(asked.makes_sense(), "{asked:?}");
                    assert_eq!(Some(begin), free.first_run(asked), "{asked:?}");
                    free.remove_range(begin, asked.count);
                    held.insert_range(begin, asked.count);
                }
                Err(error) => is_true(asked, error, &free, &managed),
            }
        }
        pool.verify().unwrap_or_else(|broken| panic!("{broken}"));
        for group in 0..=end / GROUP {
            let seen = tree.peek(FrameNumber::new(group * GROUP)).map_or(0, |(free, _)| free);
            assert_eq!(seen, free.group(group), "group {group:#x}");
        }
        for (start, count) in held.stretches() {
            assert_eq!(tree.free_run(run_of(start, count)), Ok(()));
        }
        assert_eq!(tree.count_free(), first);
    });
    answered
}

/// Frees a part of something held, or of anything.
fn give_part(bytes: &mut Bytes<'_>, tree: &FrameTree<'_>, free: &mut Frames, held: &mut Frames) {
    let count = u64::from(bytes.u16() % 800);
    let which = u64::from(bytes.u16());
    let start = match held.nth(which % held.count().max(1)) {
        Some(number) if count % 5 > 0 => number,
        _ => which % 4096,
    };
    let count = if count % 5 > 1 { count.min(held.run_from(start)) } else { count };
    match held.first_missing(start, count) {
        None => {
            assert_eq!(tree.free_run(run_of(start, count)), Ok(()));
            held.remove_range(start, count);
            free.insert_range(start, count);
        }
        Some(missing) => {
            let error = tree.free_run(run_of(start, count)).expect_err("not all are held");
            assert_eq!(error.frame.get(), missing, "{error}");
        }
    }
}

/// Whether an error says what is so.
fn is_true(asked: Asked, error: AllocError, free: &Frames, managed: &Frames) {
    match error {
        AllocError::Request(_) => assert!(!asked.makes_sense(), "{asked:?}: {error}"),
        AllocError::InTheWay { frame, why } => {
            let place = asked.place().expect("a place that was named");
            assert_eq!(free.first_missing(place, asked.count), Some(frame.get()), "{asked:?}");
            assert_eq!(why == InTheWay::Unmanaged, !managed.contains(frame.get()), "{error}");
        }
        AllocError::NoRun(NoRun { request, free: said, longest, cached }) => {
            assert!(asked.makes_sense() && asked.place().is_none(), "{asked:?}: {error}");
            assert_eq!((request, said, cached), (asked.request(), free.count(), 0));
            let with = |count| free.first_run(Asked { count, ..asked });
            assert_eq!(with(asked.count), None, "{asked:?}");
            assert!(longest == 0 || with(longest).is_some(), "{asked:?}: {error}");
            assert_eq!(with(longest + 1), None, "{asked:?}: {error}");
        }
        error => panic!("{asked:?}: {error}"),
    }
}

fn run_of(start: u64, count: u64) -> FrameRange {
    // SAFETY: no memory is behind these numbers; what is not held is to be refused.
    unsafe { FrameRange::from_numbers(NumberRange::from_numbers(start, start + count)) }
}
