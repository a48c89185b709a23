//! Input that nobody should give: metadata memory full of anything, frees of any number whatever.
//! Nothing panics, every error carries its numbers, and nothing changes by it.
#![cfg(not(loom))]

mod support;

use std::collections::BTreeSet;

use frametree::{
    CpuId, Drained, Found, FrameNumber, FramePool, FrameRange, FreeError, Layout, NumberRange,
    PageCache, Request, Setup,
};
use support::{BLOCK, Dice, GIANT, Threads, frame, pool, with_map};

/// Frame numbers end here.
const LIMIT: u64 = 1 << 40;

/// Words of every kind, at random: zeros, ones, small numbers, bits.
fn garbage(dice: &mut Dice, bytes: usize) -> &'static mut [u64] {
    let mut word = || match dice.below(5) {
        0 => 0,
        1 => !0,
        2 => dice.below(1000),
        3 => 1 << dice.below(64),
        _ => dice.below(1 << 31) << 33 | dice.below(1 << 31),
    };
    (0..bytes / 8 + 16).map(|_| word()).collect::<Vec<_>>().leak()
}

#[test]
fn whatever_the_metadata_memory_held_does_not_matter() {
    for seed in 0..24 {
        let mut dice = Dice::new(seed);
        let (start, frames) = (dice.below(2 * BLOCK), 1 + dice.below(6 * BLOCK));
        let pool: &FramePool<Threads> = Box::leak(Box::new(FramePool::new(Threads)));
        with_map(&[(start, frames), (3 * GIANT, frames)], |map| {
            let bytes = Layout::new(map, 2).expect("a layout").bytes();
            let storage = garbage(&mut dice, bytes);
            // SAFETY: the memory is not real, nobody uses it.
            unsafe { pool.init_in(map, Setup::new(2), storage) }.expect("a pool");
        });
        // Beside what is there, in another section, in another GiB, and around a whole one.
        let late = [
            (start + frames, 1 + dice.below(BLOCK)),
            (100 * BLOCK + dice.below(BLOCK), 1 + dice.below(3 * BLOCK)),
            (5 * GIANT + 7, 2 * BLOCK),
            (66 * GIANT - 3, GIANT + 10),
        ];
        let mut managed = 2 * frames;
        for (start, count) in late {
            let range = NumberRange::from_numbers(start, start + count);
            let bytes = pool.bytes_to_grow(range);
            let storage = garbage(&mut dice, bytes);
            // SAFETY: as above.
            unsafe { pool.grow_in(range, storage) }.expect("room for it");
            pool.verify().unwrap_or_else(|broken| panic!("{broken}"));
            managed += count;
        }
        let tree = pool.tree().expect("a tree");
        assert_eq!(tree.count_free().frames, managed);
        // The GiB as one, then everything else frame by frame, each once.
        let giant = pool.alloc_giant().expect("the whole one");
        let mut seen = BTreeSet::new();
        while let Ok(frame) = pool.alloc() {
            assert!(seen.insert(frame.into_number().get()), "a frame came twice");
        }
        assert_eq!(seen.len() as u64 + GIANT, managed);
        pool.free_giant(giant).expect("a free");
        seen.into_iter().for_each(|number| pool.free(frame(number)).expect("a free"));
        pool.drain().expect("a drain");
        assert_eq!(tree.count_free().frames, managed);
        assert_eq!(tree.count_free().giants, 1);
        pool.verify().unwrap_or_else(|broken| panic!("{broken}"));
    }
}

/// Numbers at which things begin and end, and those beside them.
fn numbers() -> BTreeSet<u64> {
    let ends = [0, 64, BLOCK, 3 * BLOCK, GIANT, 2 * GIANT, 64 * GIANT, 65 * GIANT, 1 << 39, LIMIT];
    let beside = |end: &u64| [end.saturating_sub(1), *end, (end + 1).min(LIMIT)];
    ends.iter().flat_map(beside).collect()
}

fn run(start: u64, end: u64) -> FrameRange {
    // SAFETY: deliberately wrong; the pool must refuse it.
    unsafe { FrameRange::from_numbers(NumberRange::from_numbers(start, end)) }
}

#[test]
fn frees_of_any_number_are_refused_and_change_nothing() {
    // Nothing is handed out: each free is wrong.
    let pool = pool(Threads, 2, &[(64, 3 * BLOCK - 64), (GIANT, 2 * GIANT)]);
    let tree = pool.tree().expect("a tree");
    let before = tree.count_free();
    let wrong = |at: u64, said: Result<(), FreeError>| {
        let error = said.expect_err("nobody has it");
        assert_eq!(error.frame.get(), at, "{error}");
        assert!(!error.to_string().is_empty());
    };
    for at in numbers() {
        // SAFETY: no memory is behind any of these.
        unsafe {
            wrong(at, pool.free(frame(at)));
            wrong(at, pool.free_zeroed(frame(at)));
            wrong(at, tree.free(frame(at)));
            wrong(at, tree.free_zeroed(frame(at)));
        }
        wrong(at, pool.free_bulk(&mut [None, Some(frame(at))]));
        wrong(at, tree.free_bulk(&mut [Some(frame(at)), None]));
        wrong(at, pool.free_block(frame(at)));
        wrong(at, pool.free_giant(frame(at)));
        wrong(at, tree.free_block(frame(at)));
        wrong(at, tree.free_giant(frame(at)));
        for end in numbers().into_iter().filter(|end| *end >= at) {
            let said = [pool.free_run(run(at, end)), tree.free_run(run(at, end))];
            if end == at {
                assert_eq!(said, [Ok(()), Ok(())], "no frames are no mistake");
            } else {
                said.into_iter().for_each(|said| wrong(at, said));
            }
        }
        if at < LIMIT {
            let base = at / 64 * 64;
            // SAFETY: as above.
            let mut cache = unsafe { PageCache::from_parts(FrameNumber::new(base), !0, 0) };
            wrong(base, cache.flush(tree));
        }
        assert_eq!(pool.drain(), Ok(Drained::Done));
        assert_eq!(tree.count_free(), before, "after {at:#x}");
    }
    for cpu in [2, usize::MAX] {
        // SAFETY: there is no such CPU.
        assert_eq!(unsafe { pool.drain_offline(CpuId::new(cpu)) }, Ok(Drained::Done));
    }
    pool.verify().unwrap_or_else(|broken| panic!("{broken}"));
}

#[test]
fn memory_that_cannot_be_is_not_taken_or_let_go() {
    let pool = pool(Threads, 1, &[(64, 3 * BLOCK)]);
    let nowhere = |_| -> *mut u8 { panic!("no metadata is needed") };
    for at in numbers() {
        let end = (at + 1).min(LIMIT);
        if !(64..64 + 3 * BLOCK).contains(&at) {
            // SAFETY: it fails.
            let said = unsafe { pool.retire(frame(at), nowhere) };
            let (frame, error) = said.expect_err("no memory");
            assert_eq!(frame.into_number().get(), at, "{error}");
            let range = NumberRange::from_numbers(at, end);
            // SAFETY: it fails, or there are none.
            unsafe {
                assert!(pool.isolate(range, nowhere).is_err());
                assert_eq!(pool.bring_back(range), 0);
            }
        }
        // SAFETY: it fails, or is a frame that is not real.
        let grown = unsafe { pool.grow_in(NumberRange::from_numbers(at, at), &mut []) };
        assert!(grown.is_err(), "{at:#x}");
    }
    for at in numbers() {
        let request = Request::new(1).at(FrameNumber::new(at));
        if let Ok(run) = pool.alloc_run(&request) {
            assert_eq!(run.numbers().start().get(), at);
            pool.free_run(run).expect("a free");
        }
    }
    let all = NumberRange::from_numbers(0, LIMIT);
    // SAFETY: it fails.
    assert!(unsafe { pool.isolate(all, nowhere) }.is_err());
    assert_eq!(pool.free_run(run(64, LIMIT)).expect_err("free").found, Found::Free);
    pool.verify().unwrap_or_else(|broken| panic!("{broken}"));
}
