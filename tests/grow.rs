//! Memory that joins a pool in use: in any pieces, in any order, by several CPUs at once, it ends
//! as if all of it had been there from the start.
#![cfg(not(loom))]

mod support;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use frametree::{FramePool, FreeCount, GrowError, NumberRange, Request};
use support::{BLOCK, Crew, Dice, GIANT, Owners, Threads, frame, pool};

/// Where the tests' memory ends, apart from one far piece.
const END: u64 = 3 * GIANT;
/// Above the clusters that are found by their number.
const FAR: u64 = 40 * 64 * GIANT;

fn range(start: u64, count: u64) -> NumberRange {
    NumberRange::from_numbers(start, start + count)
}

/// Adds a range, with its metadata in fresh memory that is full of garbage.
fn grow(pool: &FramePool<Threads>, range: NumberRange) -> Result<(), GrowError> {
    let garbage = vec![0xdead_beef_0bad_cafe; pool.bytes_to_grow(range) / 8 + 32].leak();
    // SAFETY: the memory is not real, nobody uses it.
    unsafe { pool.grow_in(range, garbage) }
}

/// Cuts the whole domain, but for the first block, into random pieces that leave no hole.
fn pieces(dice: &mut Dice) -> Vec<NumberRange> {
    let mut pieces = vec![range(FAR + 3, 2 * GIANT), range(FAR - 2 * BLOCK, BLOCK)];
    let mut at = BLOCK;
    while at < END {
        let most = [3, 64, 700, 40_000, GIANT + 1][dice.below(5) as usize];
        let count = (1 + dice.below(most)).min(END - at);
        pieces.push(range(at, count));
        at += count;
    }
    dice.shuffle(&mut pieces);
    pieces
}

fn all_at_once() -> FreeCount {
    let memory = [(0, END), (FAR - 2 * BLOCK, BLOCK), (FAR + 3, 2 * GIANT)];
    pool(Threads, 1, &memory).tree().expect("a tree").count_free()
}

#[test]
fn in_any_pieces_and_order_it_ends_as_if_it_had_been_there_from_the_start() {
    let expected = all_at_once();
    for seed in 0..20 {
        let mut dice = Dice::new(seed);
        let pool = pool(Threads, 1, &[(0, BLOCK)]);
        let (mut managed, mut held) = (BLOCK, Vec::new());
        for piece in pieces(&mut dice) {
            grow(pool, piece).expect("a range that is new");
            managed += piece.len();
            assert_eq!(pool.stats().managed_frames, managed);
            // In use meanwhile: what comes must merge with what is given back, too.
            if let Ok(run) = pool.alloc_run(&Request::new(1 + dice.below(300))) {
                held.push(run);
            }
            held.extend(pool.alloc().map(Into::into));
            if dice.below(3) == 0 && !held.is_empty() {
                let run = held.swap_remove(dice.below(held.len() as u64) as usize);
                pool.free_run(run).expect("own frames");
            }
        }
        held.into_iter().for_each(|run| pool.free_run(run).expect("own frames"));
        pool.drain().expect("no double free");
        pool.verify().expect("a sound tree");
        let tree = pool.tree().expect("a tree");
        assert_eq!(tree.count_free(), expected, "seed {seed}");
        let ranges: Vec<_> = tree.managed_ranges().collect();
        let whole = [range(0, END), range(FAR - 2 * BLOCK, BLOCK), range(FAR + 3, 2 * GIANT)];
        assert_eq!(ranges, whole, "seed {seed}");
        let run = tree.alloc_run(&Request::new(END)).expect("all of it in one piece");
        assert_eq!(run.numbers().start().get(), 0);
        tree.free_run(run).expect("own frames");
    }
}

#[test]
fn several_cpus_grow_one_pool_while_others_use_it() {
    const CPUS: usize = 6;
    for seed in 0..10 {
        let pool = pool(Threads, CPUS, &[(0, BLOCK)]);
        let pieces = pieces(&mut Dice::new(seed));
        let growing = AtomicUsize::new(CPUS / 2);
        let owners = Owners::new(END);
        Crew::new(CPUS).run(|cpu| {
            // Half of the CPUs add memory, each a share of the pieces; so they meet in blocks.
            let shares = CPUS / 2;
            if cpu < shares {
                for piece in pieces.iter().skip(cpu).step_by(shares) {
                    grow(pool, *piece).expect("a range that is new");
                }
                growing.fetch_sub(1, Ordering::Relaxed);
                return;
            }
            let mut dice = Dice::new(seed * 100 + cpu as u64);
            while growing.load(Ordering::Relaxed) > 0 {
                let run = pool.alloc_run(&Request::new(1 + dice.below(100)).below(END * 4096));
                let Ok(run) = run else { continue };
                let (first, count) = (run.numbers().start().get(), run.len());
                owners.take(cpu, first, count);
                owners.give(cpu, first, count);
                pool.free_run(run).expect("own frames");
            }
            pool.drain().expect("no double free");
        });
        pool.verify().expect("a sound tree");
        assert_eq!(pool.tree().expect("a tree").count_free(), all_at_once(), "seed {seed}");
    }
}

#[test]
fn of_overlapping_ranges_one_is_added() {
    const CPUS: usize = 4;
    for round in 0..200 {
        let pool = pool(Threads, CPUS, &[(0, BLOCK)]);
        let added = Crew::new(CPUS).run(|cpu| {
            // Each overlaps all others.
            let mine = range(1000 + 10 * cpu as u64, 100);
            grow(pool, mine).map(|()| mine)
        });
        let (winners, losers): (Vec<_>, Vec<_>) = added.into_iter().partition(Result::is_ok);
        assert_eq!(winners.len(), 1, "round {round}");
        let winner = winners[0].expect("a winner");
        for loser in losers {
            let Err(GrowError::Overlap { managed }) = loser else { panic!("{loser:?}") };
            assert_eq!(managed.overlap(winner), Some(managed));
        }
        assert_eq!(pool.tree().expect("a tree").count_free().frames, BLOCK + 100);
        pool.verify().expect("a sound tree");
    }
}

#[test]
fn its_metadata_comes_with_it() {
    let pool = pool(Threads, 1, &[(0, BLOCK)]);
    let piece = range(7 * GIANT + 1, 5 * GIANT);
    let bytes = pool.bytes_to_grow(piece);
    assert!(bytes as u64 * 8 <= piece.len() * 2 * 105 / 100, "{bytes} bytes");
    let memory = vec![u64::MAX; bytes / 8 + 1024 + 16].leak();
    let asked = std::cell::Cell::new(0);
    let to_virtual = |address| {
        asked.set(address);
        let start = memory.as_mut_ptr().cast::<u8>();
        start.wrapping_add(start.align_offset(128))
    };
    // SAFETY: the memory is not real, but where the metadata goes.
    let added = unsafe { pool.grow(piece, to_virtual) }.expect("a range that is new");
    let metadata = (bytes as u64).div_ceil(4096);
    assert_eq!(added, range(piece.start().get(), piece.len() - metadata));
    assert_eq!(asked.get(), added.end().start_address());
    assert_eq!(pool.tree().expect("a tree").count_free().frames, BLOCK + added.len());
    pool.verify().expect("a sound tree");
    let last = support::frame(added.end().get());
    let refused = pool.free(last).expect_err("a frame of metadata");
    assert_eq!(refused.found, frametree::Found::Unmanaged);
}

#[test]
fn beside_known_memory_it_needs_no_metadata() {
    let pool = pool(Threads, 1, &[(0, 100), (200, 100)]);
    for piece in [range(100, 100), range(300, BLOCK), range(2000, 1)] {
        assert_eq!(pool.bytes_to_grow(piece), 0);
        // SAFETY: the memory is not real, nobody uses it.
        let added = unsafe { pool.grow(piece, |_| unreachable!("no metadata is needed")) };
        assert_eq!(added, Ok(piece));
    }
    assert_eq!(pool.tree().expect("a tree").count_free().frames, 300 + BLOCK + 1);
    pool.verify().expect("a sound tree");
}

#[test]
fn a_frame_of_an_open_group_can_be_freed_after_it_was_added() {
    let pool = pool(Threads, 1, &[(0, 10)]);
    let held: Vec<_> = (0..10).map(|_| pool.alloc().expect("a frame")).collect();
    // The cache is open for the group, and knows ten frames of it.
    grow(pool, range(10, 30)).expect("a range that is new");
    let mut numbers = BTreeSet::new();
    let more: Vec<_> = std::iter::from_fn(|| pool.alloc().ok()).collect();
    for frame in held.into_iter().chain(more) {
        numbers.insert(frame.number().get());
        pool.free(frame).expect("own frame");
    }
    assert_eq!(numbers, (0..40).collect());
    let refused = pool.free(frame(40)).expect_err("a frame that never was");
    assert_eq!(refused.found, frametree::Found::Unmanaged);
    pool.drain().expect("no double free");
    assert_eq!(pool.tree().expect("a tree").count_free().frames, 40);
    pool.verify().expect("a sound tree");
}

#[test]
fn what_can_not_be_added_is_refused_and_nothing_changes() {
    let pool = pool(Threads, 1, &[(64, 100), (GIANT, 50)]);
    let before = pool.stats();
    let refused = |result: Result<(), GrowError>, why: GrowError| {
        assert_eq!(result, Err(why));
        assert!(!why.to_string().is_empty());
        assert_eq!(pool.stats(), before);
        pool.verify().expect("a sound tree");
    };
    refused(grow(pool, range(5, 0)), GrowError::Empty);
    let overlap = |managed| GrowError::Overlap { managed };
    refused(grow(pool, range(0, 65)), overlap(range(64, 1)));
    refused(grow(pool, range(100, 1)), overlap(range(100, 1)));
    refused(grow(pool, range(150, GIANT)), overlap(range(150, 14)));
    refused(grow(pool, range(GIANT - 1, 1000)), overlap(range(GIANT, 50)));
    let far = range(3 * GIANT, GIANT);
    // SAFETY: the memory is not real, nobody uses it.
    let result = unsafe { pool.grow_in(far, &mut []) };
    let Err(GrowError::StorageTooSmall { needed, given: 0 }) = result else { panic!("{result:?}") };
    assert!(needed >= pool.bytes_to_grow(far));
    // SAFETY: as above.
    let result = unsafe { pool.grow(range(3 * GIANT, 2), |_| unreachable!("it is too small")) };
    assert_eq!(result, Err(GrowError::TooSmall { needed: 3, given: 2 }));
    // SAFETY: as above.
    let result = unsafe { pool.grow(far, |_| std::ptr::without_provenance_mut(64)) };
    refused(result.map(|_| ()), GrowError::Misaligned { address: 64 });
    grow(pool, range(0, 64)).expect("nothing was lost of the way to grow");
    let unborn = FramePool::new(Threads);
    assert_eq!(grow(&unborn, far), Err(GrowError::NotInitialised));
}

#[test]
fn what_it_takes_to_grow_is_counted_to_the_byte() {
    let pool = pool(Threads, 1, &[(0, 3000)]);
    let bytes = |first: u64, giants: u64| {
        pool.bytes_to_grow(NumberRange::from_numbers(first * GIANT, (first + giants) * GIANT))
    };
    // For each GiB its nodes, itself, and its sections.
    let giant = 832 + 256 + 8 * 8192;
    let cluster = 768;
    assert_eq!(bytes(130, 2), cluster + 2 * giant);
    assert_eq!(bytes(130, 6), cluster + 6 * giant, "a cluster is counted once");
    assert_eq!(bytes(126, 4), 2 * cluster + 4 * giant, "and each of them");
    assert_eq!(bytes(2, 4), 4 * giant, "and not what is there");
    // Beside the frames that there are a part of a GiB is missing, but not the GiB.
    let beside = pool.bytes_to_grow(NumberRange::from_numbers(3000, GIANT));
    assert_eq!(beside, 7 * 8192);
}
