//! `verify` sees what is broken, on every level. The metadata is memory of this test, which flips
//! one bit of it after the other while nobody works, asks, and puts the bit back.
#![cfg(not(loom))]

mod support;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

use frametree::{Broken, Found, FrameNumber, FramePool, PageCache, Setup};
use support::{BLOCK, GIANT, Threads, frame};

/// Room for the metadata: page aligned, as a frame is.
#[repr(C, align(4096))]
struct Page([AtomicU64; 512]);

/// A pool whose metadata the test can reach too.
fn pool_in_the_open(
    frames: &[(u64, u64)],
) -> (&'static FramePool<Threads>, impl Iterator<Item = &'static AtomicU64>) {
    let pool = Box::leak(Box::new(FramePool::new(Threads)));
    let pages = || Page([const { AtomicU64::new(0) }; 512]);
    let memory: &'static [Page] = (0..64).map(|_| pages()).collect::<Vec<_>>().leak();
    let bytes = support::with_map(frames, |map| {
        let start = memory.as_ptr().cast_mut().cast::<u8>();
        // SAFETY: the frames are not real; the metadata lies in atomic words that live for ever.
        let metadata = unsafe { pool.init(map, Setup::new(2), |_| start) }.expect("a pool");
        assert!(metadata.frames.len() <= 64, "room for the metadata");
        metadata.bytes
    });
    (pool, memory.iter().flat_map(|page| &page.0).take(bytes / 8))
}

/// What `verify` says, and how often, when one bit after the other is wrong.
fn broken_by_flips(
    pool: &FramePool<Threads>,
    memory: impl Iterator<Item = &'static AtomicU64>,
) -> BTreeMap<String, u64> {
    let mut seen: BTreeMap<String, u64> = BTreeMap::new();
    let quiet = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let memory: Vec<_> = memory.collect();
    let address = |word: &AtomicU64| word.as_ptr().addr() as u64;
    let addresses = address(memory[0])..address(memory[memory.len() - 1]);
    let mut since_link = usize::MAX;
    for (index, word) in memory.iter().enumerate() {
        // Links lead into the metadata; a wrong one would lead anywhere. Behind one there may be
        // empty ones, up to as many as a cluster has, or the length of what it leads to.
        let value = word.load(Ordering::Relaxed);
        since_link = since_link.saturating_add(1);
        if addresses.contains(&value) {
            since_link = 0;
        }
        if since_link == 0 || value == 0 && since_link < 64 || value == 1 && since_link == 1 {
            continue;
        }
        // Of the many words that hold nothing, at least one in each node of eight.
        let is_empty = value == 0;
        let bits: &[u32] = match (is_empty, index % 7) {
            (false, _) => &[0, 1, 2, 33, 63],
            (true, 0) => &[0, 33],
            (true, _) => &[],
        };
        for bit in bits {
            word.fetch_xor(1 << bit, Ordering::Relaxed);
            // A bit of the directory may lead out of it: that panics.
            let said = catch_unwind(AssertUnwindSafe(|| pool.verify()));
            if let Ok(Err(broken)) = said {
                assert!(broken.to_string().len() > 20, "{broken:?} in words");
                let name = format!("{broken:?}");
                let name = name.split(['(', ' ']).next().expect("a name");
                *seen.entry(name.to_owned()).or_default() += 1;
            }
            word.fetch_xor(1 << bit, Ordering::Relaxed);
        }
    }
    std::panic::set_hook(quiet);
    seen
}

#[test]
fn what_is_whole_and_not_merged_is_seen() {
    let (pool, memory) = pool_in_the_open(&[(0, GIANT + BLOCK)]);
    // One frame of a block, and one block of the lower GiB, are missing.
    let tree = pool.tree().expect("a tree");
    let frame = tree.alloc().expect("a frame");
    let seen = broken_by_flips(pool, memory);
    for name in ["NotMerged", "GiantNotMerged"] {
        assert!(seen.contains_key(name), "{name} was not seen, only {seen:?}");
    }
    tree.free(frame).expect("a free");
    pool.verify().expect("merged");
}

#[test]
fn a_frame_in_two_caches_is_seen() {
    let pool = support::pool(Threads, 2, &[(0, 2 * BLOCK)]);
    let one = pool.alloc().expect("a frame").into_number().get();
    Threads::become_cpu(1);
    let other = pool.alloc().expect("a frame").into_number().get();
    // In CPU 0's cache, unseen by CPU 1 as documented.
    pool.free(frame(one + 7)).expect("unseen, as documented");
    let broken = pool.verify().expect_err("a frame in two caches");
    assert_eq!(broken, Broken::CachedTwice(FrameNumber::new(one + 7)));
    pool.free(frame(other)).expect("a free");
}

#[test]
fn every_broken_invariant_is_seen_and_said() {
    // A free GiB, and two that have few blocks, whole ones and crumbs; known-zero frames, and some held.
    let (pool, memory) =
        pool_in_the_open(&[(GIANT - 5 * BLOCK, GIANT + 5 * BLOCK), (3 * GIANT + 100, 3 * BLOCK)]);
    let tree = pool.tree().expect("a tree");
    let block = tree.alloc_block().expect("a block").into_number().get();
    let other = tree.alloc_block().expect("a block");
    let held: Vec<_> = (0..BLOCK + 70).map(|_| tree.alloc().expect("a frame")).collect();
    let (base, free, _) = tree.refill().expect("frames").into_parts();
    // SAFETY: the same frames again, as a zeroer would bring them back.
    let mut cache = unsafe { PageCache::from_parts(base, free, free) };
    cache.flush(tree).expect("a flush");
    let cached = pool.alloc().expect("a frame");
    // A free block whose leaf has been written, and a free giant whose nodes have been.
    tree.free_block(other).expect("a free");
    let giant = tree.alloc_giant().expect("a giant");
    tree.free_giant(giant).expect("a free");
    pool.verify().expect("a sound tree");

    let seen = broken_by_flips(pool, memory);
    pool.verify().expect("all bits are back");
    for name in [
        "FreeGiantWithBlocks",
        "FreeBlockWithFrames",
        "NotManagedInFull",
        "NotManaged",
        "FramesNotAnnounced",
        "PartialNotRaised",
        "WholeNotRaised",
        "ZeroNotHinted",
        "ZeroNotFree",
        "CachedAndFree",
        "Count",
    ] {
        assert!(seen.contains_key(name), "{name} was not seen, only {seen:?}");
    }
    pool.free(cached).expect("a free");
    held.into_iter().for_each(|held| tree.free(held).expect("a free"));
    tree.free_block(frame(block)).expect("a free");
}

/// The one double free that is documented as unseen: of what another CPU has cached. `verify`
/// sees it while it lasts, and the flush reports it.
#[test]
fn a_double_free_of_what_another_cpu_has_cached_is_seen_by_verify_and_by_the_flush() {
    let pool = support::pool(Threads, 2, &[(0, 4 * BLOCK)]);
    let taken = pool.alloc().expect("a frame").into_number().get();
    let other = taken + 5;
    pool.tree().expect("a tree").free(frame(other)).expect("unseen, as documented");
    let broken = pool.verify().expect_err("a frame that is cached and free");
    assert!(broken.to_string().contains(&FrameNumber::new(other).to_string()), "{broken}");
    let error = pool.drain().expect_err("a late double free");
    assert_eq!((error.frame.get(), error.found), (other, Found::FreeAtFlush));
    assert_eq!(pool.stats().late_double_frees, 1);
    pool.free(frame(taken)).expect("a free");
    pool.drain().expect("a drain");
    pool.verify().expect("recorded once");
    assert_eq!(pool.stats().free_frames, 4 * BLOCK);
}
