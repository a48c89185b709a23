//! The pool on one thread: what it hands out, what it refuses, and that it loses nothing.
#![cfg(not(loom))]

mod support;

use std::collections::HashSet;

use frametree::{AllocError, Found, Frame, FrameNumber, FramePool, Layout};
use support::{BLOCK, GIANT, Threads, pool};

/// A map with crumbs at both ends, a hole in a block, a hole of GiBs, and two whole GiBs.
const RAGGED: &[(u64, u64)] = &[
    (1, 100),
    (103, 700),
    (3 * BLOCK, 5 * BLOCK + 17),
    (4 * GIANT - 5, 2 * GIANT + 12),
    (1000 * GIANT + 77, 3 * BLOCK),
];

fn total(frames: &[(u64, u64)]) -> u64 {
    frames.iter().map(|(_, count)| count).sum()
}

fn alloc_all(pool: &FramePool<Threads>) -> Vec<Frame> {
    std::iter::from_fn(|| pool.alloc().ok()).collect()
}

fn frame(number: u64) -> Frame {
    // SAFETY: the tests use no memory; this is how they free what they should not.
    unsafe { Frame::from_number(FrameNumber::new(number)) }
}

#[test]
fn every_frame_comes_out_once_and_goes_back() {
    let pool = pool(Threads, 1, RAGGED);
    let first = pool.stats();
    assert_eq!(first.free_frames, total(RAGGED));
    assert_eq!(first.free_giants, 2);
    pool.verify().expect("a sound tree");
    for order in [0, 1, 2] {
        let mut frames = alloc_all(pool);
        assert_eq!(frames.len() as u64, total(RAGGED));
        assert_eq!(pool.alloc(), Err(AllocError::OutOfMemory { cached_elsewhere: 0 }));
        let distinct: HashSet<_> = frames.iter().map(Frame::number).collect();
        assert_eq!(distinct.len(), frames.len());
        for frame in &distinct {
            let inside =
                |&(start, count): &(u64, u64)| (start..start + count).contains(&frame.get());
            assert!(RAGGED.iter().any(inside), "{frame} is not in the map");
        }
        pool.verify().expect("a sound tree when everything is taken");
        match order {
            0 => {}
            1 => frames.reverse(),
            _ => frames.sort_by_key(|frame| frame.number().get().wrapping_mul(0x9e37_79b9) % 65537),
        }
        for frame in frames {
            pool.free(frame).expect("a free");
        }
        pool.drain().expect("a drain");
        pool.verify().expect("a sound tree");
        let stats = pool.stats();
        assert_eq!(
            (stats.free_frames, stats.free_blocks, stats.free_giants, stats.cached_frames),
            (first.free_frames, first.free_blocks, first.free_giants, 0)
        );
    }
}

#[test]
fn double_frees_are_found_wherever_the_frame_is() {
    let pool = pool(Threads, 2, &[(0, 2 * GIANT + 10)]);
    let refused = |number, found| {
        let error = pool.free(frame(number)).expect_err("a double free");
        assert_eq!((error.frame.get(), error.found), (number, found), "{error}");
    };
    refused(GIANT + 5, Found::FreeGiant);
    let one = pool.alloc().expect("a frame").into_number().get();
    assert_eq!(one, 0);
    refused(63, Found::Cached);
    refused(64, Found::Free);
    refused(BLOCK, Found::FreeBlock);
    refused(2 * GIANT + 9, Found::Free);
    pool.free(frame(one)).expect("the only free that is due");
    refused(one, Found::Cached);
    pool.drain().expect("a drain");
    refused(one, Found::FreeGiant);
    // Through the other CPU's cache, and through the tree.
    Threads::become_cpu(1);
    refused(one, Found::FreeGiant);
    Threads::become_cpu(0);
    pool.verify().expect("nothing was recorded twice");
    assert_eq!(alloc_all(pool).len() as u64, 2 * GIANT + 10);
}

#[test]
fn foreign_frames_are_refused() {
    let pool = pool(Threads, 1, &[(10, 20), (40, 700), (7 * GIANT, 8)]);
    for number in [0, 9, 30, 39, 740, 1023, GIANT, 7 * GIANT - 1, 7 * GIANT + 8, 1 << 39] {
        let error = pool.free(frame(number)).expect_err("a foreign frame");
        assert_eq!((error.frame.get(), error.found), (number, Found::Unmanaged));
    }
    // Also within a group that the cache is open for.
    let one = pool.alloc().expect("a frame");
    assert_eq!(one.number().get(), 10);
    assert_eq!(pool.free(frame(9)).expect_err("foreign").found, Found::Unmanaged);
    pool.free(one).expect("a free");
}

#[test]
fn a_block_taken_whole_may_be_freed_frame_by_frame() {
    let pool = pool(Threads, 1, &[(0, 2 * GIANT)]);
    let tree = pool.tree().expect("initialised");
    let block = tree.alloc_block().expect("a block").into_number().get();
    let giant = tree.alloc_giant().expect("a GiB").into_number().get();
    assert_eq!((block, giant), (0, GIANT));
    assert_eq!(tree.free_block(frame(0)), Ok(()));
    assert_eq!(tree.free_block(frame(0)).expect_err("twice").found, Found::FreeGiant);
    let block = tree.alloc_block().expect("a block").into_number().get();
    for number in block..block + BLOCK {
        pool.free(frame(number)).expect("a part of a block");
    }
    for number in giant..giant + GIANT {
        pool.free(frame(number)).expect("a part of a GiB");
    }
    pool.drain().expect("a drain");
    assert_eq!(tree.count_free().giants, 2);
    pool.verify().expect("a sound tree");
    let error = tree.free_block(frame(1)).expect_err("misaligned");
    assert_eq!(error.found, Found::Misaligned { frames: BLOCK });
}

#[test]
fn the_pool_says_so_when_it_is_not_ready_or_ready_twice() {
    let pool = FramePool::new(Threads);
    assert_eq!(pool.alloc(), Err(AllocError::NotInitialised));
    assert_eq!(pool.free(frame(1)).expect_err("no pool").found, Found::NotInitialised);
    let never = |_: &Frame| panic!("there is nothing to clear");
    assert_eq!(pool.alloc_zeroed(never), Err(AllocError::NotInitialised));
    // SAFETY: there are no contents.
    let freed = unsafe { pool.free_zeroed(frame(1)) };
    assert_eq!(freed.expect_err("no pool").found, Found::NotInitialised);
    assert_eq!(pool.alloc_giant(), Err(AllocError::NotInitialised));
    assert_eq!(pool.free_giant(frame(0)).expect_err("no pool").found, Found::NotInitialised);
    assert_eq!(pool.alloc_bulk(&mut [None]), 0);
    let mut list = [None, Some(frame(77)), Some(frame(3))];
    let error = pool.free_bulk(&mut list).expect_err("no pool");
    assert_eq!((error.frame.get(), error.found), (77, Found::NotInitialised));
    assert_eq!(pool.free_bulk(&mut [None]), Ok(()));
    let pool = support::pool(Threads, 1, &[(0, 64)]);
    support::with_map(&[(0, 64)], |map| {
        // SAFETY: the memory is not real, nobody uses it.
        let again = unsafe { pool.init_in(map, 1, vec![0; 4096].leak()) };
        assert_eq!(again, Err(frametree::InitError::AlreadyInitialised));
    });
}

#[test]
fn a_frame_that_came_back_dirty_is_cleared() {
    let pool = pool(Threads, 2, &[(0, 1024)]);
    let zeroed = || {
        let mut is_cleared = false;
        let frame = pool.alloc_zeroed(|_| is_cleared = true).expect("a frame");
        (frame, is_cleared)
    };
    let (one, is_cleared) = zeroed();
    assert!(is_cleared, "nothing was known of it");
    assert_eq!(one.number().get(), 0);
    // Through the cache: known, used, and dirty again in the same side.
    // SAFETY: there are no contents.
    unsafe { pool.free_zeroed(one) }.expect("a free");
    let (one, is_cleared) = zeroed();
    assert_eq!((one.number().get(), is_cleared), (0, false));
    pool.free(one).expect("a free");
    let (one, is_cleared) = zeroed();
    assert_eq!((one.number().get(), is_cleared), (0, true));
    // Known to this CPU's cache, dirty by another CPU, and back by a flush and a refill.
    // SAFETY: as above.
    unsafe { pool.free_zeroed(one) }.expect("a free");
    let one = pool.alloc().expect("the frame that was known to be zero");
    Threads::become_cpu(1);
    pool.free(one).expect("a free");
    pool.drain().expect("a drain");
    Threads::become_cpu(0);
    pool.drain().expect("a drain");
    assert!(zeroed().1);
    // Through the tree, and a block and a GiB that were put together.
    pool.drain().expect("a drain");
    let frames = alloc_all(pool);
    for frame in frames {
        // SAFETY: as above.
        unsafe { pool.free_zeroed(frame) }.expect("a free");
    }
    pool.free(frame(0)).expect("the one that `zeroed` has taken");
    pool.drain().expect("a drain");
    assert_eq!(pool.stats().free_blocks, 2);
    assert_eq!((0..1024).filter(|_| zeroed().1).count(), 1, "all but one are known to be zero");
    pool.verify().expect("a sound tree");
}

#[test]
fn of_the_frames_at_hand_one_of_zeros_comes_first() {
    let pool = pool(Threads, 1, &[(0, 64)]);
    let frames = alloc_all(pool);
    for (number, frame) in (0..).zip(frames) {
        match number {
            // SAFETY: there are no contents.
            7 | 9 => unsafe { pool.free_zeroed(frame) },
            _ => pool.free(frame),
        }
        .expect("a free");
    }
    for due in [(7, false), (9, false), (0, true)] {
        let mut is_cleared = false;
        let frame = pool.alloc_zeroed(|_| is_cleared = true).expect("a frame");
        assert_eq!((frame.number().get(), is_cleared), due);
    }
}

#[test]
fn in_bulk_what_is_wrong_is_said_and_all_else_is_done() {
    let pool = pool(Threads, 1, &[(0, 1000)]);
    let mut list: Vec<Option<Frame>> = (0..1001).map(|_| None).collect();
    list[0] = Some(frame(5000));
    assert_eq!(pool.alloc_bulk(&mut list[..500]), 499);
    assert_eq!(pool.alloc_bulk(&mut list), 501);
    assert_eq!(pool.alloc_bulk(&mut [None, None]), 0);
    list.push(Some(frame(700)));
    let error = pool.free_bulk(&mut list).expect_err("a foreign frame first");
    assert_eq!((error.frame.get(), error.found), (5000, Found::Unmanaged));
    assert!(list.iter().all(Option::is_none));
    assert_eq!(pool.stats().free_frames, 1000);
    pool.verify().expect("nothing was recorded twice");
    // The same without a slot.
    Threads::become_cpu(1);
    let taken = pool.alloc_bulk(&mut list);
    Threads::become_cpu(0);
    let cached = pool.stats().cached_frames;
    assert_eq!(taken as u64 + cached, 1000);
    Threads::become_cpu(1);
    let (first, same) = (list[0].as_ref().expect("a frame").number().get(), list.len() - 1);
    list[same] = Some(frame(first));
    let error = pool.free_bulk(&mut list).expect_err("a double free");
    assert_eq!(error.frame.get(), first);
    Threads::become_cpu(0);
    assert_eq!(pool.stats().free_frames, 1000);
    pool.verify().expect("nothing was recorded twice");
}

#[test]
fn gibs_through_the_pool() {
    let pool = pool(Threads, 2, &[(0, 2 * GIANT + 64)]);
    let giant = pool.alloc_giant().expect("a GiB").into_number().get();
    let again = pool.alloc_giant().expect("a GiB").into_number().get();
    assert_eq!((giant, again), (0, GIANT));
    let none = pool.alloc_giant().expect_err("no third one");
    assert_eq!(
        none,
        AllocError::NoneWhole { frames: GIANT, free: 64, longest: 64, cached_elsewhere: 0 }
    );
    let refused = |number: u64| pool.free_giant(frame(number)).expect_err("refused").found;
    assert_eq!(refused(BLOCK), Found::Misaligned { frames: GIANT });
    assert_eq!(refused(2 * GIANT), Found::Unmanaged);
    // A part of it in this CPU's cache, from anywhere in it.
    pool.free(frame(GIANT - 1)).expect("a part of the GiB");
    assert_eq!(refused(0), Found::PartlyFree { free: 1 });
    assert_eq!(pool.alloc().expect("the same").into_number().get(), GIANT - 1);
    pool.free_giant(frame(0)).expect("a free");
    assert_eq!(refused(0), Found::FreeGiant);
    // What keeps a GiB from being whole in another CPU's cache is asked for.
    let part = pool.alloc().expect("a frame").into_number().get();
    assert!(!(GIANT..2 * GIANT).contains(&part));
    pool.free(frame(part)).expect("a free");
    pool.free_giant(frame(GIANT)).expect("a free");
    pool.verify().expect("a sound tree");
}

#[test]
fn every_second_frame_free_and_all_of_them_found() {
    let pool = pool(Threads, 1, &[(0, GIANT)]);
    let frames = alloc_all(pool);
    let (kept, freed): (Vec<_>, Vec<_>) =
        frames.into_iter().partition(|frame| frame.number().get() % 2 == 0);
    let count = freed.len();
    for frame in freed {
        pool.free(frame).expect("a free");
    }
    assert_eq!(alloc_all(pool).len(), count);
    drop(kept);
}

#[test]
fn what_another_cpu_has_cached_comes_back_on_request() {
    let pool = pool(Threads, 2, &[(0, 640)]);
    let one = pool.alloc().expect("a frame");
    Threads::become_cpu(1);
    let rest = alloc_all(pool).len();
    assert_eq!(rest, 640 - 64);
    assert_eq!(pool.alloc(), Err(AllocError::OutOfMemory { cached_elsewhere: 63 }));
    // CPU 0 serves the request at the end of its next use; a hook that waits would have found
    // them at once.
    Threads::become_cpu(0);
    pool.free(one).expect("a free");
    assert_eq!(pool.stats().cached_frames, 0);
    Threads::become_cpu(1);
    assert_eq!(alloc_all(pool).len(), 64);
}

#[test]
fn a_block_with_a_frame_in_the_own_cache_is_not_freed_whole() {
    let pool = pool(Threads, 1, &[(0, 4 * BLOCK)]);
    let first = pool.alloc_block().expect("a block").into_number().get();
    pool.free(frame(first)).expect("a part of the block");
    let error = pool.free_block(frame(first)).expect_err("partly free");
    assert_eq!(error.found, Found::PartlyFree { free: 1 });
    pool.verify().expect("nothing was recorded twice");
}

#[test]
fn a_block_that_only_the_own_cache_breaks_up_is_found() {
    let pool = pool(Threads, 1, &[(0, 2 * BLOCK)]);
    pool.free(pool.alloc().expect("a frame")).expect("a free");
    let blocks = [pool.alloc_block(), pool.alloc_block()].map(|block| block.expect("a block"));
    let none = AllocError::NoneWhole { frames: BLOCK, free: 0, longest: 0, cached_elsewhere: 0 };
    assert_eq!(pool.alloc_block(), Err(none));
    blocks.into_iter().for_each(|block| pool.free_block(block).expect("a free"));
    pool.verify().expect("a sound pool");
}

#[test]
fn a_flush_into_a_block_that_was_merged_meanwhile_is_refused() {
    let pool = pool(Threads, 2, &[(0, 4 * BLOCK)]);
    let first = pool.alloc_block().expect("a block").into_number().get();
    pool.free(frame(first)).expect("a part of the block");
    Threads::become_cpu(1);
    for number in first..first + BLOCK {
        pool.free(frame(number)).expect("CPU 1 can't see what CPU 0 has cached");
    }
    pool.drain().expect("a drain");
    Threads::become_cpu(0);
    let error = pool.drain().expect_err("a double free");
    assert_eq!((error.frame.get(), error.found), (first, Found::FreeAtFlush));
    assert_eq!(pool.stats().late_double_frees, 1);
    pool.verify().expect("nothing was recorded twice");
}

#[test]
fn absurd_numbers_of_cpus_are_refused() {
    support::with_map(&[(0, 64)], |map| {
        for cpus in [0, (1 << 20) + 1, 1 << 57, usize::MAX] {
            assert!(frametree::Layout::new(map, cpus).is_err(), "{cpus} CPUs");
        }
    });
}

#[test]
fn metadata_is_for_memory_and_not_for_holes() {
    let bytes = |frames: &[(u64, u64)]| {
        support::with_map(frames, |map| Layout::new(map, 1).expect("a layout").bytes())
    };
    let near = bytes(&[(0, GIANT), (2 * GIANT, GIANT)]);
    assert_eq!(bytes(&[(0, GIANT), (63 * GIANT, GIANT)]), near, "a hole of GiBs");
    let far = bytes(&[(0, GIANT), (1000 * 1000 * GIANT, GIANT)]);
    assert!(far <= near + 1024, "{far} and {near}: a hole of many TiB");
    // A whole section for its leaf: 128 MiB's worth.
    assert!(bytes(&[(77, 1)]) <= 8192 + 3072, "{} for one frame", bytes(&[(77, 1)]));
    assert_eq!(bytes(&[(0, 4 * BLOCK)]), bytes(&[(77, 1)]), "the same section");
    // Two bits a frame, and less than a fiftieth more.
    let large = bytes(&[(0, 1024 * GIANT)]) as u64;
    let bits = 1024 * GIANT * 2;
    assert!(large * 8 < bits + bits / 50, "{large} bytes for 1 TiB");
}

#[test]
fn a_layout_is_counted_in_frames_rounded_up() {
    for (frames, cpus) in [(RAGGED, 1), (RAGGED, 64), (&[(0, 64)][..], 1), (&[(0, GIANT)], 8)] {
        support::with_map(frames, |map| {
            let layout = Layout::new(map, cpus).expect("a layout");
            assert_eq!(layout.frames(), (layout.bytes() as u64).div_ceil(4096));
            assert_eq!(layout.managed_frames(), total(frames));
        });
    }
}
