//! Memory that is taken away: nobody gets a frame of an isolated range, what is freed of it is set
//! aside, and in the end it is gone, or back.
#![cfg(not(loom))]

mod support;

use std::sync::atomic::{AtomicBool, Ordering};

use frametree::{
    AllocError, Found, FrameNumber, FramePool, FrameRange, InTheWay, InUse, IsolateError,
    Isolation, NumberRange, Request, Setup,
};
use support::{BLOCK, Crew, Dice, GIANT, Owners, Threads, frame, pool, pool_by};

fn range(start: u64, count: u64) -> NumberRange {
    NumberRange::from_numbers(start, start + count)
}

/// Memory for a frame of metadata, full of garbage.
fn anywhere(_: u64) -> *mut u8 {
    let garbage = vec![0xdead_beef_0bad_cafe_u64; 512 + 16].leak();
    let start = garbage.as_mut_ptr().cast::<u8>();
    start.wrapping_add(start.align_offset(128))
}

fn isolate(pool: &FramePool<Threads>, range: NumberRange) -> Result<Isolation, IsolateError> {
    // SAFETY: `anywhere` gives fresh memory each time.
    unsafe { pool.isolate(range, anywhere) }
}

fn run(start: u64, count: u64) -> FrameRange {
    // SAFETY: the tests use no memory; they keep account of who owns which number.
    unsafe { FrameRange::from_numbers(range(start, count)) }
}

/// Takes everything that can be had, and gives it back; how many frames, and of these how many lie
/// in `inside`.
fn all_that_is_left(pool: &FramePool<Threads>, inside: NumberRange) -> (u64, u64) {
    let frames: Vec<_> = std::iter::from_fn(|| pool.alloc().ok()).collect();
    let within = frames.iter().filter(|frame| inside.contains(frame.number())).count() as u64;
    let total = frames.len() as u64;
    frames.into_iter().for_each(|frame| pool.free(frame).expect("own frame"));
    pool.drain().expect("no double free");
    (total, within)
}

#[test]
fn free_memory_is_gone_at_once() {
    // Whole GiBs, blocks, and crumbs at both ends.
    for isolated in [
        range(0, GIANT),
        range(GIANT, 2 * GIANT),
        range(BLOCK + 3, 2 * BLOCK),
        range(777, 1),
        range(GIANT - 70, 140),
        range(5, 3 * GIANT - 300),
    ] {
        let pool = pool(Threads, 1, &[(0, 3 * GIANT)]);
        let first = pool.tree().expect("a tree").count_free();
        let isolation = isolate(pool, isolated).expect("free memory");
        assert_eq!(isolation.range(), isolated);
        assert_eq!(pool.in_use(&isolation), InUse { frames: 0, first: None }, "{isolated:?}");
        pool.verify().expect("a sound tree");
        let taken = pool.stats().managed_frames - pool.stats().free_frames;
        let taken_for_metadata = taken - isolated.len();
        assert!(taken_for_metadata <= 24, "{taken_for_metadata} frames of metadata");
        pool.verify().expect("a sound tree");
        let left = 3 * GIANT - isolated.len() - taken_for_metadata;
        assert_eq!(all_that_is_left(pool, isolated), (left, 0), "{isolated:?}");
        let gone = pool.offline(isolation).expect("nothing is in use");
        assert_eq!(gone, isolated);
        assert_eq!(pool.stats().managed_frames, 3 * GIANT - isolated.len());
        assert_eq!(all_that_is_left(pool, isolated), (left, 0), "{isolated:?}, offline");
        for lost in [isolated.start().get(), isolated.end().get() - 1] {
            let refused = pool.free(frame(lost)).expect_err("a frame that is gone");
            assert_eq!(refused.found, Found::Unmanaged);
        }
        // SAFETY: nobody uses it.
        assert_eq!(unsafe { pool.bring_back(isolated) }, isolated.len());
        pool.verify().expect("a sound tree");
        assert_eq!(all_that_is_left(pool, isolated).0, left + isolated.len());
        let free = pool.tree().expect("a tree").count_free();
        assert_eq!(free.frames, first.frames - taken_for_metadata);
        // All is together again but for the blocks of the metadata.
        assert!(free.blocks >= first.blocks - taken_for_metadata, "{free:?} of {first:?}");
    }
}

#[test]
fn what_is_in_use_is_reported_until_it_is_freed() {
    let pool = pool(Threads, 1, &[(0, 3 * GIANT)]);
    let isolated = range(GIANT + 100, GIANT);
    let single = pool.alloc_run(&Request::new(1).at(FrameNumber::new(GIANT + 150))).expect("free");
    let block = pool.alloc_run(&Request::new(BLOCK).at(FrameNumber::new(GIANT + 4 * BLOCK)));
    let block = block.expect("free");
    let across = pool.alloc_run(&Request::new(200).at(FrameNumber::new(2 * GIANT))).expect("free");
    let isolation = isolate(pool, isolated).expect("managed memory");
    let in_use = |frames, first| InUse { frames, first: Some(FrameNumber::new(first)) };
    assert_eq!(pool.in_use(&isolation), in_use(1 + BLOCK + 100, GIANT + 150));
    pool.free_run(single).expect("own frame");
    assert_eq!(pool.in_use(&isolation), in_use(BLOCK + 100, GIANT + 4 * BLOCK));
    let isolation = pool.offline(isolation).expect_err("some of it is in use");
    pool.free_block(frame(block.into_numbers().start().get())).expect("own block");
    assert_eq!(pool.in_use(&isolation), in_use(100, 2 * GIANT));
    assert_eq!(all_that_is_left(pool, isolated).1, 0);
    pool.free_run(across).expect("own frames, isolated and not");
    assert_eq!(all_that_is_left(pool, isolated).1, 0);
    assert_eq!(pool.in_use(&isolation), InUse { frames: 0, first: None });
    pool.offline(isolation).expect("nothing is in use");
    pool.verify().expect("a sound tree");
    let refused = pool.free_run(run(2 * GIANT, 200)).expect_err("freed, and half of it gone");
    assert_eq!((refused.frame.get(), refused.found), (2 * GIANT, Found::Unmanaged));
}

#[test]
fn its_metadata_comes_from_low_memory_last() {
    const LOW: u64 = 8 * BLOCK;
    let setup = Setup::new(1).low_last(LOW * frametree::FRAME_SIZE);
    let pool = pool_by(Threads, (1, setup), &[(0, LOW), (LOW, 40_000)]);
    let used = |pool: &FramePool<Threads>, isolated: NumberRange| {
        let blocks = pool.tree().expect("a tree").blocks();
        let mut used = blocks.filter(|block| block.free < block.managed);
        used.find(|block| !isolated.contains(block.first)).map(|block| block.first.get())
    };
    // From below it, from above it, and in the end from low memory.
    let isolated = range(20_480, BLOCK);
    let isolation = isolate(pool, isolated).expect("free memory");
    assert_eq!(used(pool, isolated), Some(LOW));
    pool.readmit(isolation);
    let pool = pool_by(Threads, (1, setup), &[(0, LOW), (LOW, 40_000)]);
    let isolated = range(LOW, BLOCK);
    let isolation = isolate(pool, isolated).expect("free memory");
    assert_eq!(used(pool, isolated), Some(LOW + BLOCK));
    pool.readmit(isolation);
    let pool = pool_by(Threads, (1, setup), &[(0, LOW), (LOW, BLOCK)]);
    let isolated = range(LOW, BLOCK);
    let isolation = isolate(pool, isolated).expect("free memory");
    assert_eq!(used(pool, isolated), Some(0));
    pool.offline(isolation).expect("nothing is in use");
    // What has become metadata does not go.
    let isolation = isolate(pool, range(0, BLOCK)).expect("managed memory");
    assert_eq!(pool.in_use(&isolation), InUse { frames: 1, first: Some(FrameNumber::new(0)) });
    pool.readmit(isolation);
    pool.verify().expect("a sound pool");
}

#[test]
fn a_cache_keeps_nothing_of_an_isolated_range() {
    let pool = pool(Threads, 2, &[(0, 64), (128, 64)]);
    let held: Vec<_> = (0..40).map(|_| pool.alloc().expect("a frame")).collect();
    let isolated = range(0, 64);
    let isolation = isolate(pool, isolated).expect("managed memory");
    assert_eq!(pool.in_use(&isolation).frames, 40, "the cache has been drained");
    for frame in held {
        pool.free(frame).expect("own frame");
        let other = pool.alloc().expect("a frame of the other group");
        assert!(!isolated.contains(other.number()), "{other:?}");
        pool.free(other).expect("own frame");
    }
    assert_eq!(pool.in_use(&isolation).frames, 0);
    pool.offline(isolation).expect("nothing is in use");
}

#[test]
fn nor_does_one_that_was_filled_when_the_budget_ended() {
    let pool = pool_by(Threads, (1, Setup::new(1).reserve(100)), &[(0, 4096)]);
    let all = std::iter::from_fn(|| pool.alloc().ok()).map(|frame| frame.into_number().get());
    assert_eq!(all.count(), 4096 - 100);
    let isolated = range(640, 32);
    let isolation = isolate(pool, isolated).expect("managed memory");
    // A refill gets no more than these ten, of a group of which the rest is isolated.
    (672..682).for_each(|number| pool.free(frame(number)).expect("own frame"));
    pool.drain().expect("no double free");
    let one = pool.alloc().expect("one of the ten").into_number();
    assert_eq!(one.get(), 672);
    pool.free(frame(645)).expect("own frame, isolated");
    let others: Vec<_> = std::iter::from_fn(|| pool.alloc().ok()).collect();
    assert!(others.iter().all(|frame| !isolated.contains(frame.number())), "{others:?}");
    assert_eq!(pool.in_use(&isolation).frames, 31);
}

#[test]
fn what_another_cpu_has_cached_counts_as_in_use_until_it_drains() {
    let pool = pool(Threads, 2, &[(0, 256)]);
    Threads::become_cpu(1);
    let one = pool.alloc().expect("a frame, and 63 for the cache");
    Threads::become_cpu(0);
    let isolation = isolate(pool, range(0, 64)).expect("managed memory");
    assert_eq!(pool.in_use(&isolation).frames, 64);
    Threads::become_cpu(1);
    pool.free(one).expect("own frame");
    let other = pool.alloc().expect("a frame");
    assert!(other.number().get() >= 64, "it has drained at the end of its free");
    pool.free(other).expect("own frame");
    assert_eq!(pool.in_use(&isolation).frames, 0);
    pool.offline(isolation).expect("nothing is in use");
    pool.drain().expect("no double free");
    pool.verify().expect("a sound tree");
}

#[test]
fn readmitted_memory_is_as_it_was() {
    let pool = pool(Threads, 1, &[(0, 2 * GIANT)]);
    let held = pool.alloc_run(&Request::new(1000).at(FrameNumber::new(GIANT + 300))).expect("free");
    let isolated = range(GIANT - 1000, 4000);
    let isolation = isolate(pool, isolated).expect("managed memory");
    assert_eq!(pool.in_use(&isolation).frames, 1000);
    pool.readmit(isolation);
    pool.verify().expect("a sound tree");
    assert!(all_that_is_left(pool, isolated).1 == 3000);
    pool.free_run(held).expect("own frames");
    pool.verify().expect("a sound tree");
    let metadata = pool.stats().managed_frames - pool.stats().free_frames;
    assert_eq!(pool.stats().managed_frames, 2 * GIANT);
    // The frames of metadata lie side by side.
    assert!(metadata <= 2, "{metadata} frames of metadata");
    assert_eq!(pool.tree().expect("a tree").count_free().blocks, 1023);
    let run = pool.alloc_run(&Request::new(4000).at(isolated.start())).expect("free again");
    pool.free_run(run).expect("own frames");
}

#[test]
fn a_retired_frame_does_not_come_back_through_a_cache() {
    let pool = pool(Threads, 1, &[(0, 4 * BLOCK)]);
    // The cache has the other frames of its group at hand.
    let bad = pool.alloc().expect("a frame").into_number();
    // SAFETY: `anywhere` gives fresh memory each time.
    unsafe { pool.retire(frame(bad.get()), anywhere) }.expect("own frame");
    let refused = pool.free(frame(bad.get())).expect_err("a retired frame");
    assert_eq!((refused.frame, refused.found), (bad, Found::Unmanaged));
    assert_eq!(all_that_is_left(pool, range(bad.get(), 1)).1, 0);
    pool.verify().expect("a sound tree");
}

/// CPU 0 has a side open for the group, dry or not, when CPU 1 has the frame gone, and the hook does
/// nothing: what CPU 0 frees is refused, or dropped at the end of the same operation.
#[test]
fn nor_through_the_cache_of_another_cpu() {
    for (others, is_offline) in [(0, false), (10, false), (0, true), (10, true)] {
        let pool = pool(Threads, 2, &[(0, 8 * BLOCK)]);
        Threads::become_cpu(0);
        let held: Vec<u64> =
            (0..64).map(|_| pool.alloc().expect("a frame").into_number().get()).collect();
        let (gone, rest) = (held[20], &held[54..]);
        Threads::become_cpu(1);
        if is_offline {
            pool.free(frame(gone)).expect("own frame");
            pool.drain().expect("no double free");
            let isolation = isolate(pool, range(gone, 1)).expect("free memory");
            pool.offline(isolation).expect("nothing is in use");
        } else {
            // SAFETY: `anywhere` gives fresh memory each time.
            unsafe { pool.retire(frame(gone), anywhere) }.expect("own frame");
        }
        Threads::become_cpu(0);
        // All of this is one operation: CPU 0 has been asked to drain, but not yet done so.
        let numbers = rest[..others].iter().chain([&gone]).copied();
        let mut frames: Vec<_> = numbers.map(|number| Some(frame(number))).collect();
        let freed = pool.free_bulk(&mut frames);
        match others {
            0 => {
                let refused = freed.expect_err("a frame that is gone");
                assert_eq!((refused.frame.get(), refused.found), (gone, Found::Unmanaged));
            }
            _ => assert_eq!(pool.stats().late_double_frees, 1, "noticed at the end"),
        }
        pool.verify().expect("a sound pool");
        assert_eq!(all_that_is_left(pool, range(gone, 1)).1, 0);
    }
}

#[test]
fn a_retired_frame_never_comes_back() {
    let pool = pool(Threads, 1, &[(0, 4 * BLOCK)]);
    let bad = pool.alloc_run(&Request::new(1).at(FrameNumber::new(BLOCK + 9))).expect("free");
    let bad = bad.into_numbers().start().get();
    // SAFETY: `anywhere` gives fresh memory each time.
    unsafe { pool.retire(frame(bad), anywhere) }.expect("own frame");
    assert_eq!(pool.stats().managed_frames, 4 * BLOCK - 1);
    let refused = pool.free(frame(bad)).expect_err("a retired frame");
    assert_eq!(refused.found, Found::Unmanaged);
    assert_eq!(all_that_is_left(pool, range(bad, 1)).1, 0);
    let in_the_way = pool.alloc_run(&Request::new(1).at(FrameNumber::new(bad)));
    let why = InTheWay::Unmanaged;
    assert_eq!(in_the_way, Err(AllocError::InTheWay { frame: FrameNumber::new(bad), why }));
    // SAFETY: as above.
    let (_, error) = unsafe { pool.retire(frame(bad), anywhere) }.expect_err("gone already");
    assert_eq!(error, IsolateError::Unmanaged { frame: FrameNumber::new(bad) });
    let free = FrameNumber::new(3 * BLOCK + 1);
    // SAFETY: as above.
    let (kept, error) = unsafe { pool.retire(frame(free.get()), anywhere) }.expect_err("free");
    assert_eq!((kept.number(), error), (free, IsolateError::Free { frame: free }));
    pool.verify().expect("a sound tree");
    // Part of a block: it is freed around it.
    let block = pool.alloc_block().expect("a block").into_number().get();
    // SAFETY: as above.
    unsafe { pool.retire(frame(block + 77), anywhere) }.expect("own frame");
    let refused = pool.free_block(frame(block)).expect_err("not all of it is there");
    assert_eq!(refused.found, Found::Unmanaged);
    pool.free_run(run(block, 77)).expect("own frames");
    pool.free_run(run(block + 78, BLOCK - 78)).expect("own frames");
    pool.verify().expect("a sound tree");
    assert_eq!(pool.tree().expect("a tree").count_free().blocks, 1);
}

#[test]
fn what_can_not_be_isolated_is_refused_and_nothing_changes() {
    let pool = pool(Threads, 1, &[(0, 100), (200, GIANT)]);
    let refused = |range, why: IsolateError| {
        let before = pool.stats();
        let result = isolate(pool, range).map(|isolation| isolation.range());
        assert_eq!(result, Err(why));
        assert!(!why.to_string().is_empty());
        assert_eq!(pool.stats(), before);
    };
    refused(range(50, 0), IsolateError::Empty);
    refused(range(50, 51), IsolateError::Unmanaged { frame: FrameNumber::new(100) });
    refused(range(7 * GIANT, 1), IsolateError::Unmanaged { frame: FrameNumber::new(7 * GIANT) });
    let isolations: Vec<_> =
        (0..16).map(|at| isolate(pool, range(1000 + at * 10, 5)).expect("a place")).collect();
    refused(range(1002, 9), IsolateError::Overlap { isolated: range(1002, 3) });
    refused(range(5000, 1), IsolateError::TooMany { limit: 16 });
    for isolation in isolations {
        pool.readmit(isolation);
    }
    let held = pool.alloc_run(&Request::new(9).at(FrameNumber::new(5000))).expect("free");
    let isolation = isolate(pool, range(4000, 1009)).expect("managed memory");
    refused(range(5004, 100), IsolateError::Overlap { isolated: range(5004, 5) });
    pool.readmit(isolation);
    pool.free_run(held).expect("own frames");
    // SAFETY: nothing is put there.
    let result = unsafe { pool.isolate(range(GIANT, 1), |_| std::ptr::without_provenance_mut(8)) };
    assert_eq!(
        result.map(|isolation| isolation.range()),
        Err(IsolateError::Misaligned { address: 8 })
    );
    assert_eq!(all_that_is_left(pool, range(0, 1)).0, 100 + GIANT - 1, "a frame of metadata");
    pool.verify().expect("a sound tree");
}

/// Isolations that are readmitted or refused, over and over, while others take and give frames of
/// the range: none may be left set aside.
#[test]
fn nothing_is_lost_to_isolations_that_come_to_nothing() {
    const CPUS: usize = 3;
    const LAST: u64 = 16 * BLOCK;
    let pool = pool(Threads, CPUS, &[(0, LAST)]);
    let held = pool.alloc_run(&Request::new(64)).expect("free");
    let first = isolate(pool, range(0, 64)).expect("managed memory");
    let done = AtomicBool::new(false);
    Crew::new(CPUS).run(|cpu| {
        if cpu > 0 {
            while !done.load(Ordering::Relaxed) {
                let frames: Vec<_> = (0..300).filter_map(|_| pool.alloc().ok()).collect();
                let run = pool.alloc_run(&Request::new(700)).ok();
                frames.into_iter().for_each(|frame| pool.free(frame).expect("own frame"));
                run.into_iter().for_each(|run| pool.free_run(run).expect("own frames"));
                pool.drain().expect("no double free");
            }
            return;
        }
        for _ in 0..2000 {
            let isolation = isolate(pool, range(100, 1000)).expect("nothing else is isolated");
            pool.readmit(isolation);
            let refused = isolate(pool, range(0, 4096)).expect_err("the first frames are");
            assert_eq!(refused, IsolateError::Overlap { isolated: range(0, 64) });
        }
        done.store(true, Ordering::Relaxed);
    });
    pool.readmit(first);
    pool.free_run(held).expect("own frames");
    pool.verify().expect("a sound pool");
    let stats = pool.stats();
    assert_eq!(stats.managed_frames, LAST);
    assert_eq!(stats.free_frames, LAST - 1, "one frame of metadata");
}

#[test]
fn a_range_is_removed_while_all_cpus_allocate() {
    const CPUS: usize = 4;
    // Half of what is not taken can be isolated, and the CPUs hold little of the rest: who finds
    // nothing while others work looks very often.
    const LAST: u64 = GIANT + 9 * BLOCK + 5;
    for seed in 0..20 {
        let mut dice = Dice::new(seed);
        let pool = pool(Threads, CPUS, &[(0, LAST)]);
        let owners = Owners::new(LAST);
        let start = GIANT - dice.below(2 * BLOCK);
        let isolated = range(start, 1 + dice.below(3 * BLOCK));
        let done = AtomicBool::new(false);
        // Filled up but for a part that holds the range, so that all meet there.
        let low = pool.alloc_run(&Request::new(GIANT - 9 * BLOCK)).expect("free");
        Crew::new(CPUS).run(|cpu| {
            if cpu == 0 {
                let isolation = isolate(pool, isolated).expect("managed memory");
                while pool.in_use(&isolation).frames > 0 {
                    std::thread::yield_now();
                }
                let gone = pool.offline(isolation).expect("nothing is in use");
                // It is this thread's now, and nobody else may have a frame of it.
                owners.take(1, gone.start().get(), gone.len());
                done.store(true, Ordering::Relaxed);
                return;
            }
            let mut dice = Dice::new(seed * 100 + cpu as u64);
            let mut held: Vec<FrameRange> = Vec::new();
            let mut rounds = 0;
            while !done.load(Ordering::Relaxed) || rounds < 500 {
                rounds += 1;
                let request = Request::new(1 + dice.below(4) * dice.below(80));
                if let Ok(taken) = pool.alloc_run(&request) {
                    owners.take(cpu + 1, taken.numbers().start().get(), taken.len());
                    held.push(taken);
                }
                if dice.below(9) == 0
                    && let Ok(block) = pool.alloc_block()
                {
                    owners.take(cpu + 1, block.number().get(), BLOCK);
                    held.push(run(block.into_number().get(), BLOCK));
                }
                while held.len() > dice.below(20) as usize {
                    let run = held.swap_remove(dice.below(held.len() as u64) as usize);
                    owners.give(cpu + 1, run.numbers().start().get(), run.len());
                    pool.free_run(run).expect("own frames");
                }
            }
            for run in held {
                owners.give(cpu + 1, run.numbers().start().get(), run.len());
                pool.free_run(run).expect("own frames");
            }
            pool.drain().expect("no double free");
        });
        pool.free_run(low).expect("own frames");
        pool.verify().expect("a sound tree");
        let stats = pool.stats();
        assert_eq!(stats.managed_frames, LAST - isolated.len());
        let metadata = stats.managed_frames - stats.free_frames;
        assert!(metadata <= 2, "{metadata} frames of metadata");
    }
}
