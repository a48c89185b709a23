//! Threads of the host as CPUs, all on one pool at once, with every frame accounted for: a table
//! of owners says at each step whether a frame changed hands that was not free to. Afterwards
//! the tree must be as it was at first: every frame back, every block and GiB merged.
#![cfg(not(loom))]

mod support;

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use frametree::{
    AllocError, CpuId, Found, Frame, FrameNumber, FramePool, FrameRange, FrameTree, FreeCount,
    NumberRange, PageCache, Request,
};
use support::{BLOCK, Crew, Dice, GIANT, Owners, Threads, frame, pool};

/// More threads than this machine has cores, so that some are descheduled inside the allocator.
const MANY: usize = 8;

/// Sizes that are no multiple of a group, a block or a GiB, holes inside of each, and a GiB.
const RAGGED: &[(u64, u64)] =
    &[(1, 100), (103, 700), (3 * BLOCK, 5 * BLOCK + 17), (GIANT - 5, GIANT + 12)];

struct Stage {
    pool: &'static FramePool<Threads>,
    owners: Owners,
    crew: Crew,
    cpus: usize,
    frames: u64,
    first: FreeCount,
}

impl Stage {
    fn new(cpus: usize, frames: &[(u64, u64)]) -> Self {
        let pool = pool(Threads, cpus, frames);
        let end = frames.iter().map(|(start, count)| start + count).max().expect("a region");
        let first = pool.tree().expect("a tree").count_free();
        let total = frames.iter().map(|(_, count)| count).sum();
        assert_eq!(first.frames, total);
        Self { pool, owners: Owners::new(end), crew: Crew::new(cpus), cpus, frames: total, first }
    }

    fn tree(&self) -> &FrameTree<'static> {
        self.pool.tree().expect("a tree")
    }

    /// Runs `work` on every CPU at once, each a thread.
    fn on_all<R: Send>(&self, work: impl Fn(usize) -> R + Sync) -> Vec<R> {
        self.crew.run(work)
    }

    /// Runs many rounds on every CPU, which meet before each one; fewer on a busy machine, where
    /// to meet takes long.
    fn in_rounds(&self, rounds: usize, work: impl Fn(usize, usize) + Sync) {
        let end = Instant::now() + Duration::from_secs(2);
        let is_over = AtomicBool::new(false);
        self.crew.run(|cpu| {
            for round in 0..rounds {
                if cpu == 0 && round > 100 && Instant::now() > end {
                    is_over.store(true, Ordering::Release);
                }
                self.crew.meet();
                if is_over.load(Ordering::Acquire) {
                    break;
                }
                work(cpu, round);
            }
        });
    }

    fn alloc(&self, cpu: usize) -> Option<u64> {
        let number = self.pool.alloc().ok()?.into_number().get();
        self.owners.take(cpu + 1, number, 1);
        Some(number)
    }

    fn alloc_bulk(&self, cpu: usize, count: usize) -> Vec<u64> {
        let mut list: Vec<_> = (0..count).map(|_| None).collect();
        let filled = self.pool.alloc_bulk(&mut list);
        assert!(list[..filled].iter().all(Option::is_some));
        assert!(list[filled..].iter().all(Option::is_none));
        let numbers: Vec<_> = list.into_iter().flatten().map(|f| f.into_number().get()).collect();
        numbers.iter().for_each(|number| self.owners.take(cpu + 1, *number, 1));
        numbers
    }

    fn free_bulk(&self, owner: usize, numbers: Vec<u64>) {
        numbers.iter().for_each(|number| self.owners.give(owner + 1, *number, 1));
        let mut list: Vec<_> = numbers.into_iter().map(|number| Some(frame(number))).collect();
        self.pool.free_bulk(&mut list).unwrap_or_else(|error| panic!("{error}"));
    }

    /// A free by any CPU of what CPU `owner` has allocated.
    fn free(&self, owner: usize, number: u64) {
        self.owners.give(owner + 1, number, 1);
        self.pool.free(frame(number)).unwrap_or_else(|error| panic!("{error}"));
    }

    /// One of zeros, which is looked at; and whether it had to be cleared.
    fn alloc_zeroed(&self, cpu: usize) -> Option<(u64, bool)> {
        let mut is_cleared = false;
        let clear = |frame: &Frame| {
            self.owners.clear(frame.number().get());
            is_cleared = true;
        };
        let number = self.pool.alloc_zeroed(clear).ok()?.into_number().get();
        assert!(self.owners.is_clear(number), "frame {number:#x} is dirty");
        self.owners.take(cpu + 1, number, 1);
        Some((number, is_cleared))
    }

    /// A free of what CPU `owner` has allocated and clears now.
    fn free_zeroed(&self, owner: usize, number: u64) {
        self.owners.clear(number);
        self.owners.give(owner + 1, number, 1);
        // SAFETY: it holds zeros.
        unsafe { self.pool.free_zeroed(frame(number)) }.unwrap_or_else(|error| panic!("{error}"));
    }

    /// Takes what is free in a group of the tree and gives it back with all of it cleared.
    fn clear_ahead(&self) {
        let Ok(cache) = self.tree().refill() else { return };
        let (base, free, known_zero) = cache.into_parts();
        for number in (0..64).filter(|bit| free >> bit & 1 != 0).map(|bit| base.get() + bit) {
            let is_known = known_zero >> (number % 64) & 1 != 0;
            assert!(!is_known || self.owners.is_clear(number), "frame {number:#x} is dirty");
            self.owners.clear(number);
        }
        // SAFETY: the same frames again, which hold zeros.
        let mut cache = unsafe { PageCache::from_parts(base, free, free) };
        cache.flush(self.tree()).unwrap_or_else(|error| panic!("{error}"));
    }

    fn alloc_block(&self, cpu: usize) -> Option<u64> {
        let number = self.pool.alloc_block().ok()?.into_number().get();
        assert!(number.is_multiple_of(BLOCK));
        self.owners.take(cpu + 1, number, BLOCK);
        Some(number)
    }

    fn free_block(&self, owner: usize, number: u64) {
        self.owners.give(owner + 1, number, BLOCK);
        self.pool.free_block(frame(number)).unwrap_or_else(|error| panic!("{error}"));
    }

    /// A run from the tree: (first frame, frames).
    fn alloc_run(&self, cpu: usize, request: &Request) -> Option<(u64, u64)> {
        let run = self.tree().alloc_run(request).ok()?.into_numbers();
        assert_eq!(run.len(), request.count());
        self.owners.take(cpu + 1, run.start().get(), run.len());
        Some((run.start().get(), run.len()))
    }

    /// A free of contiguous frames that CPU `owner` has, to the tree.
    fn free_run(&self, owner: usize, first: u64, count: u64) {
        self.owners.give(owner + 1, first, count);
        let run = NumberRange::from_numbers(first, first + count);
        // SAFETY: the tests use no memory, and the table says whose the frames are.
        let run = unsafe { FrameRange::from_numbers(run) };
        self.tree().free_run(run).unwrap_or_else(|error| panic!("{error}"));
    }

    fn alloc_all(&self, cpu: usize) -> Vec<u64> {
        std::iter::from_fn(|| self.alloc(cpu)).collect()
    }

    fn drain_all(&self) {
        for cpu in 0..self.cpus {
            // SAFETY: called between the threads' lives only.
            unsafe { self.pool.drain_offline(CpuId::new(cpu)) }.expect("a drain");
        }
    }

    /// At rest: nothing owned, nothing lost, and all merged as it was at first.
    fn is_as_at_first(&self) {
        assert_eq!(self.owners.count(), 0);
        self.drain_all();
        self.pool.verify().unwrap_or_else(|broken| panic!("{broken}"));
        assert_eq!(self.tree().count_free(), self.first);
        let stats = self.pool.stats();
        assert_eq!((stats.free_frames, stats.cached_frames), (self.frames, 0));
        assert_eq!(stats.late_double_frees, 0);
    }
}

/// All CPUs take until nothing is left: the sum is exact. Then other CPUs than those that took
/// them free the frames in another order.
fn exhaust(cpus: usize, frames: &[(u64, u64)], rounds: u64) {
    let stage = Stage::new(cpus, frames);
    for round in 0..rounds {
        let taken = stage.on_all(|cpu| stage.alloc_all(cpu));
        // What a CPU still had in its cache when others had given up is its own.
        let held: usize = taken.iter().map(Vec::len).sum();
        assert_eq!(held as u64 + stage.pool.stats().cached_frames, stage.frames);
        assert_eq!(stage.tree().count_free().frames, 0);
        assert_eq!(stage.owners.count(), held);
        stage.pool.verify().unwrap_or_else(|broken| panic!("{broken}"));
        let share = |cpu: usize| {
            let owner = (cpu + 1 + round as usize) % cpus;
            let mut mine = taken[owner].clone();
            match round % 3 {
                0 => mine.reverse(),
                1 => Dice::new(round * 64 + cpu as u64).shuffle(&mut mine),
                _ => {}
            }
            mine.into_iter().for_each(|number| stage.free(owner, number));
        };
        stage.on_all(share);
        stage.is_as_at_first();
    }
}

#[test]
fn all_is_taken_by_all_and_freed_by_others_in_another_order() {
    exhaust(4, RAGGED, 3);
    exhaust(MANY, &[(0, 20 * BLOCK)], 4);
}

#[test]
fn small_memories_are_taken_to_the_last_frame() {
    for count in [1, 63, 64, 65, 511, 512, 513, 1024] {
        for start in [0, 1, 64, BLOCK - 1] {
            exhaust(4, &[(start, count)], 6);
        }
    }
}

/// With fewer frames than CPUs, as many get one as there are, whatever the others cached.
#[test]
fn what_is_left_at_exhaustion_goes_to_as_many() {
    let stage = Stage::new(MANY, &[(7, 3)]);
    for _ in 0..200 {
        let got = stage.on_all(|cpu| {
            let got = stage.alloc(cpu);
            stage.crew.meet();
            // Those who have a cache serve the requests of the others here.
            stage.pool.drain().expect("a drain");
            got.map(|number| stage.free(cpu, number)).is_some()
        });
        assert!(got.iter().any(|got| *got) && got.iter().filter(|got| **got).count() <= 3);
        stage.is_as_at_first();
    }
    // One after the other, with the drain that a hook would bring: exactly three.
    let mut got = Vec::new();
    for cpu in 0..MANY {
        Threads::become_cpu(cpu);
        got.extend(stage.alloc(cpu).map(|number| (cpu, number)));
        stage.pool.drain().expect("a drain");
    }
    assert_eq!(got.len(), 3);
    got.into_iter().for_each(|(cpu, number)| stage.free(cpu, number));
    stage.is_as_at_first();
}

/// Each CPU holds half of its share and replaces frames at random; the memory is nearly full.
#[test]
fn frames_are_replaced_at_random() {
    let frames = &[(3, 6 * BLOCK + 77)];
    let stage = Stage::new(6, frames);
    stage.on_all(|cpu| {
        let mut dice = Dice::new(cpu as u64);
        let mut held: Vec<u64> = (0..440).filter_map(|_| stage.alloc(cpu)).collect();
        assert!(held.len() > 400);
        for _ in 0..20_000 {
            let at = dice.below(held.len() as u64) as usize;
            stage.free(cpu, held[at]);
            // All of it may sit in other CPUs' caches at this moment: not for long.
            held[at] = loop {
                match stage.alloc(cpu) {
                    Some(number) => break number,
                    None => stage.crew.rest(),
                }
            };
        }
        held.into_iter().for_each(|number| stage.free(cpu, number));
        stage.pool.drain().expect("a drain");
    });
    stage.is_as_at_first();
}

/// Frames are used dirty and clean, one by one, in bulk and as blocks, while some CPUs have no
/// slot and some clear what is free: nobody gets a dirty one as zeroed.
#[test]
fn a_frame_that_is_said_to_be_zero_is() {
    let stage = Stage::new(6, &[(3, 6 * BLOCK + 77)]);
    let known = stage.on_all(|cpu| {
        // The last one has no slot.
        Threads::become_cpu(if cpu == 5 { 6 } else { cpu });
        let mut dice = Dice::new(cpu as u64);
        let (mut held, mut known) = (Vec::new(), 0u64);
        for _ in 0..8_000 {
            match dice.below(16) {
                0..5 => {
                    let Some((number, is_cleared)) = stage.alloc_zeroed(cpu) else { continue };
                    held.push(number);
                    known += u64::from(!is_cleared);
                }
                5 => held.extend(stage.alloc(cpu)),
                6 => held.extend(stage.alloc_bulk(cpu, dice.below(90) as usize)),
                7 => {
                    let keep = held.len().saturating_sub(dice.below(90) as usize);
                    stage.free_bulk(cpu, held.split_off(keep));
                }
                8 => stage.clear_ahead(),
                9 => {
                    if let Some(block) = stage.alloc_block(cpu) {
                        stage.free_block(cpu, block);
                    }
                }
                10 => drop(stage.pool.drain().expect("a drain")),
                what if !held.is_empty() => {
                    let at = dice.below(held.len() as u64) as usize;
                    let number = held.swap_remove(at);
                    match what {
                        11..14 => stage.free_zeroed(cpu, number),
                        _ => stage.free(cpu, number),
                    }
                }
                _ => {}
            }
        }
        stage.free_bulk(cpu, held);
        known
    });
    let known: u64 = known.iter().sum();
    assert!(known > 1000, "only {known} frames were known to be zero");
    stage.is_as_at_first();
}

/// Pairs of CPUs: one allocates on and on, the other frees what it is sent.
#[test]
fn one_frees_what_another_allocates_meanwhile() {
    let stage = Stage::new(4, &[(5, 4 * BLOCK + 9)]);
    let (ends, starts): (Vec<_>, Vec<_>) = (0..2)
        .map(|_| sync_channel::<u64>(300))
        .map(|(send, receive)| (Mutex::new(Some(send)), Mutex::new(receive)))
        .unzip();
    stage.on_all(|cpu| {
        let pair = cpu / 2;
        if cpu % 2 == 0 {
            let send = ends[pair].lock().expect("no panic").take().expect("one sender");
            let mut sent = 0;
            while sent < 60_000 {
                match stage.alloc(cpu) {
                    Some(number) => {
                        while send.try_send(number).is_err() {
                            stage.crew.rest();
                        }
                        sent += 1;
                    }
                    None => stage.crew.rest(),
                }
            }
        } else {
            let receive = starts[pair].lock().expect("no panic");
            receive.iter().for_each(|number| stage.free(cpu - 1, number));
        }
        stage.pool.drain().expect("a drain");
    });
    stage.is_as_at_first();
}

/// A block is taken as a whole and its halves are freed by two CPUs at the same moment, frame by
/// frame from both ends or the middle: it is merged again each time, and the GiB with it.
#[test]
fn a_block_split_by_two_frees_at_once_is_merged_every_time() {
    for frames in [&[(0, GIANT)][..], &[(BLOCK, BLOCK)], &[(0, 3 * BLOCK)]] {
        let stage = Stage::new(2, frames);
        let block = AtomicUsize::new(0);
        stage.in_rounds(700, |cpu, round| {
            if cpu == 0 {
                let first = stage.alloc_block(0).expect("merged again");
                block.store(first as usize, Ordering::Release);
            }
            stage.crew.meet();
            let first = block.load(Ordering::Acquire) as u64;
            let half = first + cpu as u64 * BLOCK / 2..first + (cpu as u64 + 1) * BLOCK / 2;
            let free = |number| {
                stage.owners.give(1, number, 1);
                match round % 3 {
                    0 => stage.tree().free(frame(number)).expect("a free"),
                    _ => stage.pool.free(frame(number)).expect("a free"),
                }
            };
            if round % 2 == 0 {
                half.for_each(free)
            } else {
                half.rev().for_each(free)
            }
            stage.pool.drain().expect("a drain");
            stage.crew.meet();
            if cpu == 0 && round % 16 == 0 {
                assert_eq!(stage.tree().count_free(), stage.first, "round {round}");
                stage.pool.verify().unwrap_or_else(|broken| panic!("{broken}"));
            }
        });
        stage.is_as_at_first();
    }
}

/// Every flush may complete a block, which is merged while others refill from it, and split by
/// the next refill. Half of it is always free, so a refill finds something, unless a CPU is
/// descheduled for long with the block in its hands.
#[test]
fn merges_meet_refills() {
    for (cpus, frames) in [(2, &[(0, BLOCK)][..]), (4, &[(BLOCK, BLOCK)]), (3, &[(0, 2 * BLOCK)])] {
        let stage = Stage::new(cpus, frames);
        let failures = AtomicUsize::new(0);
        stage.in_rounds(60, |cpu, _| {
            for turn in 0..200 {
                let Ok(mut cache) = stage.tree().refill() else {
                    failures.fetch_add(1, Ordering::Relaxed);
                    stage.crew.rest();
                    continue;
                };
                let base = cache.base().get();
                let bits = (0..64).filter(|bit| cache.free() >> bit & 1 != 0);
                let owned: Vec<u64> = bits.map(|bit| base + bit).collect();
                owned.iter().for_each(|number| stage.owners.take(cpu + 1, *number, 1));
                owned.iter().for_each(|number| stage.owners.give(cpu + 1, *number, 1));
                // In one piece, or a frame by itself first.
                if turn % 3 == 0 {
                    let run = cache.alloc().expect("a frame");
                    stage.tree().free_run(run.frames).expect("a free");
                }
                cache.flush(stage.tree()).expect("a flush");
            }
            stage.crew.meet();
            if cpu == 0 {
                stage.pool.verify().unwrap_or_else(|broken| panic!("{broken}"));
                assert_eq!(stage.tree().count_free(), stage.first);
            }
        });
        stage.is_as_at_first();
        let failures = failures.load(Ordering::Relaxed);
        assert!(failures < 60, "{failures} refills found nothing, and half was free");
    }
}

/// The last two frames of a block, and of the GiB, come back at the same moment: one of the two
/// CPUs merges, many times over.
#[test]
fn the_last_two_frames_at_once_complete_a_block() {
    let stage = Stage::new(2, &[(0, GIANT)]);
    let pair = [AtomicUsize::new(0), AtomicUsize::new(0)];
    stage.in_rounds(20_000, |cpu, round| {
        if cpu == 0 {
            // Two frames of one word, of neighbouring words, or as far apart as can be.
            let apart = [1, 64, 511][round % 3];
            let taken: Vec<u64> = (0..=apart)
                .map(|_| stage.tree().alloc().expect("a frame").into_number().get())
                .collect();
            assert!(taken.is_sorted_by(|one, next| one + 1 == *next), "the lowest free frame");
            let [one, .., two] = taken[..] else { panic!("two frames at least") };
            for number in one + 1..two {
                stage.tree().free(frame(number)).expect("a free");
            }
            for (at, number) in [one, two].into_iter().enumerate() {
                stage.owners.take(at + 1, number, 1);
                pair[at].store(number as usize, Ordering::Release);
            }
        }
        stage.crew.meet();
        let mine = pair[cpu].load(Ordering::Acquire) as u64;
        stage.owners.give(cpu + 1, mine, 1);
        stage.tree().free(frame(mine)).expect("a free");
        stage.crew.meet();
        if cpu == 0 {
            let stats = stage.pool.stats();
            assert_eq!((stats.free_giants, stats.free_blocks), (1, 512), "round {round}");
        }
    });
    stage.is_as_at_first();
}

/// Frames, blocks and GiBs asked for at once, held for a while, and freed whole or in parts.
#[test]
fn sizes_are_mixed() {
    let stage = Stage::new(5, &[(17, GIANT + 3 * BLOCK), (2 * GIANT - 100, GIANT + 200)]);
    let blocks_in_parts = AtomicUsize::new(0);
    let giants = AtomicUsize::new(0);
    stage.on_all(|cpu| {
        let mut dice = Dice::new(100 + cpu as u64);
        let mut frames = Vec::new();
        let mut blocks = Vec::new();
        for _ in 0..4_000 {
            match dice.below(20) {
                0..8 => frames.extend((0..dice.below(80)).map_while(|_| stage.alloc(cpu))),
                8..14 => {
                    dice.shuffle(&mut frames);
                    let keep = frames.len().saturating_sub(dice.below(120) as usize);
                    frames.drain(keep..).for_each(|number| stage.free(cpu, number));
                }
                14..16 => blocks.extend(stage.alloc_block(cpu)),
                16..18 => {
                    blocks.pop().into_iter().for_each(|first| stage.free_block(cpu, first));
                }
                18 => {
                    if let Some(first) = blocks.pop() {
                        blocks_in_parts.fetch_add(1, Ordering::Relaxed);
                        (first..first + BLOCK).for_each(|number| stage.free(cpu, number));
                    }
                }
                _ => drop(stage.pool.drain().expect("a drain")),
            }
        }
        frames.into_iter().for_each(|number| stage.free(cpu, number));
        blocks.into_iter().for_each(|first| stage.free_block(cpu, first));
        stage.pool.drain().expect("a drain");
        // By now others may be done too, and then the GiBs are whole again.
        if let Ok(giant) = stage.tree().alloc_giant() {
            let first = giant.number().get();
            stage.owners.take(cpu + 1, first, GIANT);
            stage.owners.give(cpu + 1, first, GIANT);
            giants.fetch_add(1, Ordering::Relaxed);
            stage.tree().free_giant(giant).expect("a GiB");
        }
    });
    assert!(blocks_in_parts.load(Ordering::Relaxed) > 100);
    assert!(giants.load(Ordering::Relaxed) > 0, "the last CPU at least finds a whole GiB");
    stage.is_as_at_first();
}

/// Half full, with every second block used: each of the others can be had as a block, also while
/// a CPU keeps taking and freeing single frames.
#[test]
fn a_block_is_to_be_had_when_every_second_one_is_used() {
    let count = 64;
    let stage = Stage::new(4, &[(0, count * BLOCK)]);
    let blocks: Vec<_> = (0..count).filter_map(|_| stage.alloc_block(0)).collect();
    assert_eq!(blocks.len() as u64, count);
    assert!(stage.alloc_block(0).is_none());
    for first in blocks.iter().skip(1).step_by(2) {
        (*first..first + BLOCK).for_each(|number| stage.free(0, number));
    }
    stage.drain_all();
    let done = AtomicUsize::new(0);
    let got: usize = stage
        .on_all(|cpu| {
            if cpu == 3 {
                // Its frames come from one block, and a second one at times.
                stage.alloc(cpu).into_iter().for_each(|number| stage.free(cpu, number));
                stage.crew.meet();
                while done.load(Ordering::Acquire) < 3 {
                    stage.alloc(cpu).into_iter().for_each(|number| stage.free(cpu, number));
                }
                return 0;
            }
            stage.crew.meet();
            let mine: Vec<_> = std::iter::from_fn(|| stage.alloc_block(cpu)).take(10).collect();
            done.fetch_add(1, Ordering::AcqRel);
            mine.iter().for_each(|first| stage.free_block(cpu, *first));
            mine.len()
        })
        .iter()
        .sum();
    assert_eq!(got, 30, "of 32 free blocks, with one CPU's frames in at most two");
    for first in blocks.iter().step_by(2) {
        stage.free_block(0, *first);
    }
    stage.is_as_at_first();
}

/// The read-modify-write that frees it decides, whatever both have seen before: where the block goes
/// to the tree, and does not wait in one's cache. (The GiB is never free as a whole: a block of it
/// is held.)
#[test]
fn of_two_cpus_that_free_one_block_at_once_one_succeeds() {
    const ROUNDS: usize = 3000;
    let stage = Stage::new(2, &[(0, 8 * BLOCK)]);
    let held = stage.alloc_block(0).expect("a block that stays");
    let blocks: [_; 2] = [const { AtomicU64::new(0) }; 2];
    let (freed, played) = (AtomicUsize::new(0), AtomicUsize::new(0));
    stage.in_rounds(ROUNDS, |cpu, round| {
        if cpu == 0 {
            // By turns near the last one and from the tree, with its own free in between.
            let taken = [(); 2].map(|()| stage.alloc_block(0).expect("seven are free"));
            let other = (round % 3 == 0).then(|| stage.alloc_block(0).expect("five are free"));
            stage.owners.give(1, taken[1], BLOCK);
            blocks
                .iter()
                .zip(taken)
                .for_each(|(block, first)| block.store(first, Ordering::Release));
            other.into_iter().for_each(|other| stage.free_block(0, other));
            played.fetch_add(1, Ordering::Relaxed);
        }
        stage.crew.meet();
        let [lower, first] = [0, 1].map(|at: usize| blocks[at].load(Ordering::Acquire));
        if cpu == 1 {
            // With one below that is free in the tree, the other does not wait for CPU 0.
            stage.free_block(0, lower);
        }
        stage.crew.meet();
        match stage.pool.free_block(frame(first)) {
            Ok(()) => _ = freed.fetch_add(1, Ordering::Relaxed),
            Err(error) => assert_eq!((error.frame.get(), error.found), (first, Found::FreeBlock)),
        }
        stage.crew.meet();
        assert_eq!(freed.load(Ordering::Relaxed), played.load(Ordering::Relaxed), "round {round}");
        let free = stage.tree().count_free();
        assert_eq!((free.frames, free.blocks), (7 * BLOCK, 7), "round {round}");
    });
    stage.free_block(0, held);
    stage.is_as_at_first();
}

/// Every second frame free, in words that all CPUs share: all of them are found, once.
#[test]
fn every_second_frame_is_found_by_all() {
    let stage = Stage::new(4, &[(0, 16 * BLOCK)]);
    Threads::become_cpu(0);
    let all = stage.alloc_all(0);
    assert_eq!(all.len() as u64, stage.frames);
    let (freed, kept): (Vec<u64>, Vec<u64>) = all.into_iter().partition(|number| number % 2 == 0);
    freed.iter().for_each(|number| stage.free(0, *number));
    stage.drain_all();
    let taken = stage.on_all(|cpu| {
        let taken = stage.alloc_all(cpu);
        stage.pool.drain().expect("a drain");
        taken
    });
    // What a CPU drained when others had given up already is free in the tree.
    let held: usize = taken.iter().map(Vec::len).sum();
    let left = stage.tree().count_free().frames as usize;
    assert_eq!(held + left, freed.len());
    assert!(left < 64 * 4, "{left} free frames, and all CPUs said out of memory");
    for (cpu, numbers) in taken.iter().enumerate() {
        numbers.iter().for_each(|number| stage.free(cpu, *number));
    }
    kept.iter().for_each(|number| stage.free(0, *number));
    stage.is_as_at_first();
}

/// A block's leaf holds garbage until its first split. While one CPU writes it, others may
/// already have seen the block: they must not take garbage for frames.
#[test]
fn blocks_are_touched_for_the_first_time_by_several_at_once() {
    let stage = Stage::new(1, &[(0, 6 * GIANT + 5 * BLOCK)]);
    let crew = Crew::new(4);
    let taken = crew.run(|cpu| {
        Threads::become_cpu(1 + cpu);
        let mut taken = Vec::new();
        while let Ok(cache) = stage.tree().refill() {
            assert_eq!(cache.free(), u64::MAX, "group at {}", cache.base());
            stage.owners.take(cpu + 1, cache.base().get(), 64);
            taken.push(cache);
        }
        crew.meet();
        for mut cache in std::mem::take(&mut taken) {
            stage.owners.give(cpu + 1, cache.base().get(), 64);
            cache.flush(stage.tree()).expect("a flush");
        }
    });
    assert_eq!(taken.len(), 4);
    stage.is_as_at_first();
}

/// CPUs without a slot, on the tree alone: they share one journal, and all of the above holds.
#[test]
fn the_tree_alone_serves_many() {
    let stage = Stage::new(1, &[(9, 3 * BLOCK + 100)]);
    Crew::new(MANY).run(|cpu| {
        let mut dice = Dice::new(cpu as u64);
        Threads::become_cpu(1 + cpu);
        let mut held = Vec::new();
        for _ in 0..6_000 {
            match dice.below(8) {
                0..4 => held.extend(stage.alloc(cpu)),
                4 => {
                    let Ok(mut cache) = stage.tree().refill() else { continue };
                    while let Some(run) = cache.alloc_n(1 + dice.below(3) as u32) {
                        let run = run.frames.into_numbers();
                        for number in run.start().get()..run.end().get() {
                            stage.owners.take(cpu + 1, number, 1);
                            held.push(number);
                        }
                    }
                    cache.flush(stage.tree()).expect("a flush");
                }
                _ => {
                    dice.shuffle(&mut held);
                    let keep = held.len() * 3 / 4;
                    held.drain(keep..).for_each(|number| stage.free(cpu, number));
                }
            }
        }
        held.into_iter().for_each(|number| stage.free(cpu, number));
    });
    stage.is_as_at_first();
}

/// "Out of memory" is never said while a frame is free in the tree the whole time: each CPU
/// holds at most what is its share, so one frame more is always free.
#[test]
fn out_of_memory_is_never_said_while_a_frame_is_free() {
    let cpus = 4;
    let stage = Stage::new(1, &[(60, cpus + 1)]);
    Crew::new(cpus as usize).run(|cpu| {
        Threads::become_cpu(1 + cpu);
        for round in 0..20_000 {
            match stage.pool.alloc() {
                Ok(taken) => {
                    let number = taken.number().get();
                    stage.owners.take(cpu + 1, number, 1);
                    stage.free(cpu, number);
                }
                Err(AllocError::OutOfMemory { .. }) => {
                    panic!("round {round}: out of memory, with a frame free at every moment")
                }
                Err(error) => panic!("{error}"),
            }
        }
    });
    stage.is_as_at_first();
}

/// A request for up to 700 frames: of any length, now and then aligned, or at a place.
fn any_run(dice: &mut Dice, end: u64) -> Request {
    let count = match dice.below(4) {
        0 => 1 + dice.below(8),
        1 => 1 + dice.below(130),
        _ => 1 + dice.below(700),
    };
    let request = Request::new(count);
    match dice.below(6) {
        0 => request.align(4096 << dice.below(10)),
        1 => request.at(FrameNumber::new(dice.below(end))),
        _ => request,
    }
}

/// Runs of every length, parts of runs and single frames at once, on a memory that is too small
/// for all: claims meet, are undone, and nobody loses or shares a frame.
#[test]
fn runs_of_mixed_lengths_are_taken_and_freed_in_parts() {
    for frames in
        [&[(9, 3 * BLOCK + 100)][..], &[(BLOCK, 2 * BLOCK)], &[(0, 700), (705, 2 * BLOCK)]]
    {
        let stage = Stage::new(4, frames);
        let end = frames.iter().map(|(start, count)| start + count).max().expect("a region");
        let refused = AtomicUsize::new(0);
        stage.on_all(|cpu| {
            let mut dice = Dice::new(cpu as u64);
            let mut runs: Vec<(u64, u64)> = Vec::new();
            let mut singles = Vec::new();
            for _ in 0..3_000 {
                match dice.below(8) {
                    0..3 => match stage.alloc_run(cpu, &any_run(&mut dice, end)) {
                        Some(run) => runs.push(run),
                        None => drop(refused.fetch_add(1, Ordering::Relaxed)),
                    },
                    3..6 if !runs.is_empty() => {
                        let which = dice.below(runs.len() as u64) as usize;
                        let (first, count) = runs.swap_remove(which);
                        let start = if dice.below(2) == 0 { 0 } else { dice.below(count) };
                        let len = 1 + dice.below(count - start);
                        stage.free_run(cpu, first + start, len);
                        let rest = [(first, start), (first + start + len, count - start - len)];
                        runs.extend(rest.into_iter().filter(|(_, count)| *count > 0));
                    }
                    6 => singles.extend((0..dice.below(40)).map_while(|_| stage.alloc(cpu))),
                    _ => {
                        let keep = singles.len().saturating_sub(dice.below(80) as usize);
                        singles.drain(keep..).for_each(|number| stage.free(cpu, number));
                    }
                }
            }
            // To the last frame: whatever is free in the tree, in runs of halving lengths.
            for count in (0..10).rev().map(|log| 1 << log) {
                let taken = std::iter::from_fn(|| stage.alloc_run(cpu, &Request::new(count)));
                runs.extend(taken);
            }
            stage.crew.meet();
            if cpu == 0 {
                assert_eq!(stage.tree().count_free().frames, 0, "found by nobody");
            }
            stage.crew.meet();
            runs.into_iter().for_each(|(first, count)| stage.free_run(cpu, first, count));
            singles.into_iter().for_each(|number| stage.free(cpu, number));
        });
        assert!(refused.load(Ordering::Relaxed) > 100, "the memory was never too small");
        stage.is_as_at_first();
    }
}

/// Two CPUs claim runs that overlap, at places, again and again, while a third takes and frees
/// frames of the overlap: one of them at most has it.
#[test]
fn claims_that_overlap_share_nothing() {
    let stage = Stage::new(3, &[(0, 4 * BLOCK)]);
    let won = [AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0)];
    let request = |first: u64, count: u64| Request::new(count).at(FrameNumber::new(first));
    let requests = [request(100, 1000), request(700, 1000), request(1030, 2)];
    stage.in_rounds(20_000, |cpu, round| {
        if let Some((first, count)) = stage.alloc_run(cpu, &requests[cpu]) {
            won[cpu].fetch_add(1, Ordering::Relaxed);
            stage.free_run(cpu, first, count);
        }
        stage.crew.meet();
        if cpu == 0 && round % 16 == 0 {
            stage.pool.verify().unwrap_or_else(|broken| panic!("{broken}"));
            assert_eq!(stage.tree().count_free(), stage.first, "round {round}");
        }
    });
    assert!(won.iter().all(|won| won.load(Ordering::Relaxed) > 0), "{won:?}");
    stage.is_as_at_first();
}
