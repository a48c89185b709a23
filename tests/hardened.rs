//! The hardened mode: what it finds that an ordinary pool does not, on memory that is real.
#![cfg(all(not(loom), feature = "hardened"))]

mod support;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use frametree::{
    Found, FrameNumber, FramePool, FrameRange, FreeError, Hardening, Layout, NumberRange, Owner,
    Request, Setup, Violation,
};
use support::{BLOCK, Crew, Dice, GIANT, Threads, frame, regions, with_map};

/// The physical memory of all tests here, zeros at first: each takes a part of its own.
const MEMORY: u64 = 64 * BLOCK;

fn mapped(address: u64) -> *mut u8 {
    static START: OnceLock<usize> = OnceLock::new();
    let start = START.get_or_init(|| {
        let bytes = (MEMORY * frametree::FRAME_SIZE) as usize;
        Box::leak(vec![0u64; bytes / 8].into_boxed_slice()).as_mut_ptr().expose_provenance()
    });
    assert!(address < MEMORY * frametree::FRAME_SIZE, "{address:#x} is not mapped");
    std::ptr::with_exposed_provenance_mut(start + address as usize)
}

/// Whole blocks that nobody else has.
fn blocks(count: u64) -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(count, Ordering::Relaxed) * BLOCK
}

std::thread_local! {
    static REPORTS: RefCell<Vec<Violation>> = const { RefCell::new(Vec::new()) };
}

fn report(violation: Violation) {
    REPORTS.with_borrow_mut(|reports| reports.push(violation));
}

fn reports() -> Vec<Violation> {
    REPORTS.take()
}

/// Owners and double frees; nothing is mapped.
const LEDGER: Hardening = Hardening::new(report);

/// Poison too.
fn poisoned() -> Hardening {
    // SAFETY: the tests manage only parts of what is mapped for ever.
    unsafe { LEDGER.poisoned_through(mapped) }
}

type Pool = &'static FramePool<Threads>;

fn pool(how: Hardening, cpus: usize, frames: &[(u64, u64)]) -> Pool {
    let pool: Pool = Box::leak(Box::new(FramePool::new(Threads)));
    Threads::become_cpu(0);
    with_map(frames, |map| {
        let bytes = Layout::new(map, cpus).expect("a layout").hardened().bytes();
        let garbage = vec![0xdead_beef_0bad_cafe; bytes / 8 + 16].leak();
        // SAFETY: nobody else uses the memory.
        unsafe { pool.init_in(map, Setup::new(cpus).hardened(how), garbage) }.expect("a pool");
    });
    pool
}

fn sound(pool: Pool) {
    pool.verify().unwrap_or_else(|broken| panic!("{broken}"));
}

fn nobody_has(at: u64) -> Result<(), FreeError> {
    Err(FreeError { frame: FrameNumber::new(at), found: Found::NotHandedOut })
}

fn run(start: u64, count: u64) -> FrameRange {
    // SAFETY: deliberately wrong; the pool must refuse what is.
    unsafe { FrameRange::from_numbers(NumberRange::from_numbers(start, start + count)) }
}

/// Takes all that there is, and says what came: none twice.
fn all(pool: Pool) -> BTreeSet<u64> {
    let mut seen = BTreeSet::new();
    while let Ok(frame) = pool.alloc() {
        let number = frame.into_number().get();
        assert!(seen.insert(number), "frame {number} came out twice");
    }
    seen
}

fn write_to(frame: u64, offset: u64, byte: u8) {
    // SAFETY: mapped; this is the bug that is to be found, or the frame is the caller's.
    unsafe { mapped(frame * frametree::FRAME_SIZE + offset).write(byte) };
}

/// Changes a byte, whatever it is: poison can be anything. What it is now.
fn change(frame: u64, offset: u64) -> u8 {
    // SAFETY: mapped; any byte is one.
    let byte = !unsafe { mapped(frame * frametree::FRAME_SIZE + offset).read() };
    write_to(frame, offset, byte);
    byte
}

#[test]
fn a_frame_in_any_cpus_cache_is_not_freed_again() {
    let pool = pool(LEDGER, 3, &[(64, 4 * BLOCK)]);
    let one = pool.alloc().expect("a frame").into_number().get();
    for cpu in 0..2 {
        Threads::become_cpu(cpu);
        pool.free(frame(one)).expect("a free");
        for other in 0..3 {
            Threads::become_cpu(other);
            assert_eq!(pool.free(frame(one)), nobody_has(one), "cached by {cpu}, from {other}");
            assert_eq!(pool.free_run(run(one, 1)), nobody_has(one));
            assert_eq!(pool.free_bulk(&mut [Some(frame(one))]), nobody_has(one));
            // SAFETY: no memory is behind it.
            assert_eq!(unsafe { pool.free_zeroed(frame(one)) }, nobody_has(one));
        }
        Threads::become_cpu(cpu);
        assert_eq!(pool.alloc().expect("a frame").into_number().get(), one);
    }
    pool.free(frame(one)).expect("a free");
    Threads::become_cpu(2);
    // Never handed out: those beside it sit in that cache as well.
    assert_eq!(pool.free(frame(one + 1)), nobody_has(one + 1));
    // What is free in the tree is told as ever.
    let free = FreeError { frame: FrameNumber::new(64 + 2 * BLOCK), found: Found::FreeBlock };
    assert_eq!(pool.free(frame(64 + 2 * BLOCK)), Err(free));
    sound(pool);
    assert_eq!(pool.held().count(), 0);
}

#[test]
fn of_frees_that_race_one_succeeds() {
    const ROUNDS: u64 = 3000;
    let pool = pool(LEDGER, 2, &[(0, 8 * BLOCK)]);
    let crew = Crew::new(2);
    let shared: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];
    let freed = crew.run(|cpu| {
        let mut freed = 0;
        for round in 0..ROUNDS {
            if cpu == 0 {
                let taken = pool.alloc_run(&Request::new(1 + round % 70)).expect("a run");
                let taken = taken.into_numbers();
                shared[0].store(taken.start().get(), Ordering::Relaxed);
                shared[1].store(taken.len(), Ordering::Relaxed);
            }
            crew.meet();
            let [first, count] = [0, 1].map(|at| shared[at].load(Ordering::Relaxed));
            match pool.free_run(run(first, count)) {
                Ok(()) => freed += 1,
                Err(error) => assert!(error.frame.get() - first < count, "{error}"),
            }
            crew.meet();
        }
        freed
    });
    assert_eq!(freed.iter().sum::<u64>(), ROUNDS);
    Threads::become_cpu(0);
    pool.drain().expect("a drain");
    Threads::become_cpu(1);
    pool.drain().expect("a drain");
    sound(pool);
    assert_eq!(pool.tree().expect("a tree").count_free().frames, 8 * BLOCK);
}

#[test]
fn a_frame_that_was_written_to_after_its_free_is_set_aside() {
    let start = blocks(2);
    let pool = pool(poisoned(), 1, &[(start, 2 * BLOCK)]);
    let taken: Vec<_> = (0..3)
        .map(|who| pool.alloc_tagged(Owner::new(who)).expect("a frame").into_number().get())
        .collect();
    let bad = taken[2];
    taken.iter().for_each(|&one| pool.free(frame(one)).expect("a free"));
    let byte = change(bad, 4095);
    let seen = all(pool);
    assert_eq!(seen.len() as u64, 2 * BLOCK - 1);
    assert!(!seen.contains(&bad));
    let [Violation::WrittenAfterFree { frame: at, offset, found, last }] = reports()[..] else {
        panic!("one report was due");
    };
    assert_eq!((at.get(), offset, last), (bad, 4088, Owner::new(2)));
    assert_eq!(found >> 56, u64::from(byte), "the word that was written to");
    assert_eq!(pool.set_aside(), 1);
    assert_eq!(pool.free(frame(bad)), nobody_has(bad), "nobody's for ever");
    sound(pool);
}

#[test]
fn the_rest_of_a_run_and_of_a_block_stays_in_use() {
    let start = blocks(3);
    let pool = pool(poisoned(), 1, &[(start, 3 * BLOCK)]);
    let block = pool.alloc_block().expect("a block").into_number().get();
    pool.free_block(frame(block)).expect("a free");
    change(block + 100, 0);
    change(block + 300, 8);
    // The lowest block is no block any more.
    let next = pool.alloc_block().expect("another block").into_number().get();
    assert_eq!((next, reports().len()), (block + BLOCK, 2));
    assert_eq!(pool.set_aside(), 2);
    // Runs go around them.
    let long = pool.alloc_run(&Request::new(150)).expect("a run").into_numbers();
    assert_eq!(long.start().get(), block + 101);
    pool.free_run(run(block + 101, 150)).expect("a free");
    change(block + 120, 16);
    let long = pool.alloc_run(&Request::new(150)).expect("a run").into_numbers();
    assert!(long.start().get() > block + 120, "the lowest has a hole now");
    assert_eq!((reports().len(), pool.set_aside()), (1, 3));
    pool.free_block(frame(next)).expect("a free");
    pool.free_run(run(long.start().get(), 150)).expect("a free");
    pool.drain().expect("a drain");
    assert_eq!(pool.tree().expect("a tree").count_free().frames, 3 * BLOCK - 3);
    sound(pool);
}

#[test]
fn a_zeroed_frame_that_was_written_to_is_not_handed_out_as_such() {
    let start = blocks(1);
    let pool = pool(poisoned(), 1, &[(start, BLOCK)]);
    let clear = |frame: &frametree::Frame| {
        // SAFETY: mapped, and ours.
        unsafe { mapped(frame.start_address()).write_bytes(0, 4096) };
    };
    let one = pool.alloc_zeroed(clear).expect("a frame").into_number().get();
    // SAFETY: it was cleared just now.
    unsafe { pool.free_zeroed(frame(one)) }.expect("a free");
    let again = pool.alloc_zeroed(|_| panic!("it holds zeros")).expect("a frame");
    assert_eq!(again.number().get(), one);
    // SAFETY: as above.
    unsafe { pool.free_zeroed(again) }.expect("a free");
    change(one, 0);
    let other = pool.alloc_zeroed(clear).expect("a frame").into_number().get();
    assert_ne!(other, one);
    let [Violation::WrittenAfterFree { frame: at, offset: 0, found: 0xff, .. }] = reports()[..]
    else {
        panic!("one report was due");
    };
    assert_eq!(at.get(), one);
    sound(pool);
}

#[test]
fn a_frame_that_the_tree_gives_twice_does_not_get_a_second_owner() {
    let pool = pool(LEDGER, 1, &[(64, BLOCK)]);
    let who = Owner::new(9);
    let one = pool.alloc_tagged(who).expect("a frame").into_number();
    let two = pool.alloc_run(&Request::new(2).above(1 << 20)).expect("a run").into_numbers();
    pool.drain().expect("a drain");
    // Somebody who goes past the pool, or has written into the bits of the tree.
    let tree = pool.tree().expect("a tree");
    tree.free(frame(one.get())).expect("the tree does not know better");
    tree.free(frame(two.start().get() + 1)).expect("nor here");
    assert!(matches!(pool.verify(), Err(frametree::Broken::HeldAndFree(at)) if at == one));
    let next = pool.alloc().expect("another frame").into_number();
    assert_ne!(next, one);
    let twice = Violation::HandedOutTwice { frame: one, owner: who };
    assert_eq!(reports(), [twice]);
    let seen = all(pool);
    assert_eq!(seen.len() as u64, BLOCK - 4, "each of the others, once");
    assert!(!seen.contains(&two.start().get()));
    assert_eq!(reports().len(), 1);
    sound(pool);
    pool.free(frame(one.get())).expect("its owner's free");
    assert_eq!(pool.alloc().expect("a frame").into_number(), one);
}

#[test]
fn owners_and_leaks_are_listed() {
    let pool = pool(LEDGER, 1, &[(64, 2 * BLOCK)]);
    let [net, disk] = [Owner::new(7), Owner::new(300)];
    assert_eq!(pool.leaks().to_string(), "");
    let one = pool.alloc_tagged(net).expect("a frame");
    let mut two = pool.alloc_run(&Request::new(5)).expect("a run");
    let three = pool.alloc_tagged(net).expect("a frame").into_number();
    pool.tag_run(&two, disk).expect("frames that are handed out");
    let held: Vec<_> = pool.held().collect();
    let numbers = NumberRange::from_numbers;
    assert_eq!(held, [(numbers(64, 65), net), (numbers(65, 70), disk), (numbers(70, 71), net)]);
    assert_eq!(pool.owners().collect::<Vec<_>>(), [(net, 2), (disk, 5)]);
    let leaks = "owner 7: 2 frames in 2 runs, the first frames 0x40..0x41\n\
                 owner 300: 5 frames in 1 runs, the first frames 0x41..0x46\n";
    assert_eq!(pool.leaks().to_string(), leaks);
    // A part goes, the rest gets another name; a frame can.
    let (gone, rest) = two.split_at(2);
    two = rest;
    pool.free_run(gone).expect("a free");
    pool.tag(&one, Owner::UNNAMED).expect("a frame that is handed out");
    assert_eq!(pool.owners().next(), Some((Owner::UNNAMED, 1)));
    pool.free(one).expect("a free");
    pool.free_run(two).expect("a free");
    assert_eq!(pool.held().collect::<Vec<_>>(), [(numbers(70, 71), net)]);
    pool.free(frame(three.get())).expect("a free");
    assert_eq!(pool.owners().count(), 0);
    // Nobody's frames get no name.
    let free = frame(100);
    assert_eq!(pool.tag(&free, net), nobody_has(100));
    let _ = free.into_number();
    let foreign = frame(1 << 30);
    assert_eq!(pool.tag(&foreign, net).expect_err("no memory").found, Found::Unmanaged);
    let _ = foreign.into_number();
}

#[test]
fn blocks_and_giants_are_in_the_ledger() {
    let pool = pool(LEDGER, 1, &[(0, 2 * GIANT)]);
    let giant = pool.alloc_giant().expect("a GiB").into_number().get();
    let block = pool.alloc_block().expect("a block").into_number().get();
    let frames: u64 = pool.held().map(|(frames, _)| frames.len()).sum();
    assert_eq!(frames, GIANT + BLOCK);
    assert_eq!(pool.free_block(frame(block + 1)).expect_err("misaligned").frame.get(), block + 1);
    // A part of it goes: the whole can't any more.
    pool.free(frame(block + 5)).expect("a part of it");
    assert!(pool.free_block(frame(block)).is_err());
    assert_eq!(pool.held().map(|(frames, _)| frames.len()).sum::<u64>(), GIANT + BLOCK - 1);
    pool.free_run(run(block, 5)).expect("a free");
    pool.free_run(run(block + 6, BLOCK - 6)).expect("a free");
    pool.free_giant(frame(giant)).expect("a free");
    assert!(pool.free_giant(frame(giant)).is_err());
    pool.drain().expect("a drain");
    assert_eq!(pool.tree().expect("a tree").count_free().giants, 2);
    sound(pool);
}

#[test]
fn memory_that_comes_and_goes_is_in_the_ledger() {
    let pool = pool(LEDGER, 1, &[(0, BLOCK)]);
    let late = NumberRange::from_numbers(BLOCK, 40 * BLOCK);
    let bytes = pool.bytes_to_grow(late);
    assert!(bytes >= 39 * BLOCK as usize * 4, "{bytes}");
    // SAFETY: as the tests' other memory, it is not real.
    unsafe { pool.grow_in(late, vec![!0; bytes / 8 + 16].leak()) }.expect("more memory");
    sound(pool);
    // A range that has its own metadata.
    let memory = vec![!0u64; 600 << 9].leak().as_mut_ptr().expose_provenance() + 4096;
    let page = |address: u64| {
        let offset = address as usize - ((4 * GIANT) << 12) as usize;
        std::ptr::with_exposed_provenance_mut((memory & !4095) + offset)
    };
    let far = NumberRange::from_numbers(4 * GIANT, 4 * GIANT + 550);
    // SAFETY: the pointers lead to memory that is the pool's alone.
    let added = unsafe { pool.grow(far, page) }.expect("memory of its own");
    sound(pool);
    let frames = 40 * BLOCK + added.len();
    let seen = all(pool);
    assert_eq!(seen.len() as u64, frames);
    assert_eq!(pool.held().map(|(frames, _)| frames.len()).sum::<u64>(), frames);
    seen.iter().for_each(|&one| pool.free(frame(one)).expect("a free"));
    assert_eq!(pool.free(frame(4 * GIANT)).expect_err("again").frame.get(), 4 * GIANT);

    // And goes.
    let nowhere =
        |_| vec![0u64; 1024].leak().as_mut_ptr().map_addr(|at| (at + 4095) & !4095).cast();
    let range = NumberRange::from_numbers(8 * BLOCK, 9 * BLOCK);
    // SAFETY: as above.
    let isolation = unsafe { pool.isolate(range, nowhere) }.expect("an isolation");
    pool.drain().expect("a drain");
    sound(pool);
    pool.offline(isolation).expect("nothing is in use");
    sound(pool);
    let broken = pool.alloc().expect("a frame");
    let at = broken.number();
    // SAFETY: as above.
    unsafe { pool.retire(broken, nowhere) }.expect("it goes");
    assert_eq!(pool.free(frame(at.get())).expect_err("it is gone").found, Found::Unmanaged);
    sound(pool);
    assert_eq!(pool.held().count(), 0);
    let one = NumberRange::from_numbers(at.get(), at.get() + 1);
    // SAFETY: as above.
    assert_eq!(unsafe { pool.bring_back(one) }, 1);
    // SAFETY: as above.
    assert_eq!(unsafe { pool.bring_back(range) }, BLOCK);
    pool.drain().expect("a drain");
    sound(pool);
    // All but the one that has become metadata.
    let managed = pool.tree().expect("a tree").managed_frames();
    assert_eq!(all(pool).len() as u64, managed - 1);
}

#[test]
fn the_metadata_is_carved_with_the_ledger() {
    for (start, frames) in [(3, 700), (0, 5 * BLOCK), (100, 3 * GIANT + 17)] {
        with_map(&[(start, frames)], |map| {
            let pool = Box::leak(Box::new(FramePool::new(Threads)));
            let setup = Setup::new(4).hardened(LEDGER);
            let plain = Layout::new(map, 4).expect("a layout");
            let (all, more) = (plain.hardened().bytes(), plain.hardened().bytes() - plain.bytes());
            assert!(more as u64 >= 4 * frames, "{more} bytes for {frames} frames");
            assert!(more as u64 <= 4 * frames + 1500, "{more} bytes for {frames} frames");
            let memory = vec![!0u64; all / 8 + 2048].leak().as_mut_ptr();
            let memory = memory.map_addr(|at| at.next_multiple_of(4096)).cast();
            // SAFETY: the memory is the pool's alone; the rest is not real.
            let metadata = unsafe { pool.init(map, setup, |_| memory) }.expect("a pool");
            assert!(metadata.bytes as u64 <= metadata.frames.len() * 4096);
            assert_eq!(metadata.managed_frames + metadata.frames.len(), frames);
            sound(pool);
        });
    }
    assert_eq!(regions(&[]).len(), 0);
}

#[test]
fn frames_are_placed_by_the_seed() {
    let frames = 64 * BLOCK;
    let first = |seed| {
        let pool = pool(LEDGER.placed_by(seed), 1, &[(64, frames)]);
        (0..200).map(|_| pool.alloc().expect("a frame").into_number().get()).collect::<Vec<_>>()
    };
    let (one, again, other) = (first(1), first(1), first(2));
    assert_eq!(one, again);
    assert_ne!(one, other);
    let in_order = one.windows(2).filter(|pair| pair[1] == pair[0] + 1).count();
    assert!(in_order < 20, "{in_order} of 199 lie behind the one before");
    // They break up few large frames, and all come in the end.
    let pool = pool(LEDGER.placed_by(3), 1, &[(64, frames)]);
    let whole = || pool.tree().expect("a tree").count_free().blocks;
    let before = whole();
    let some: Vec<_> = (0..BLOCK).map(|_| pool.alloc().expect("a frame")).collect();
    assert!(whole() + 8 >= before, "{} of {before} blocks are left", whole());
    some.into_iter().for_each(|frame| pool.free(frame).expect("a free"));
    assert_eq!(all(pool).len() as u64, frames);
    sound(pool);
}

#[test]
fn all_cpus_work_and_nothing_is_reported() {
    const CPUS: usize = 3;
    const ROUNDS: u64 = 700;
    let start = blocks(12);
    let pool = pool(poisoned().placed_by(5), CPUS, &[(start, 12 * BLOCK)]);
    let found = Crew::new(CPUS).run(|cpu| {
        let mut dice = Dice::new(cpu as u64);
        let (mut frames, mut runs, mut blocks) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            match dice.below(8) {
                0..3 => frames.extend(pool.alloc_tagged(Owner::new(cpu as u16)).ok()),
                3 | 4 if !frames.is_empty() => {
                    let at = dice.below(frames.len() as u64) as usize;
                    pool.free(frames.swap_remove(at)).expect("a free");
                }
                5 => runs.extend(pool.alloc_run(&Request::new(1 + dice.below(90))).ok()),
                6 if !runs.is_empty() => {
                    let at = dice.below(runs.len() as u64) as usize;
                    pool.free_run(runs.swap_remove(at)).expect("a free");
                }
                7 => match blocks.pop() {
                    Some(block) => pool.free_block(block).expect("a free"),
                    None => blocks.extend(pool.alloc_block().ok()),
                },
                _ => {}
            }
            if let Some(frame) = frames.last() {
                write_to(frame.number().get(), dice.below(4096), cpu as u8);
            }
        }
        frames.into_iter().for_each(|frame| pool.free(frame).expect("a free"));
        runs.into_iter().for_each(|run| pool.free_run(run).expect("a free"));
        blocks.into_iter().for_each(|block| pool.free_block(block).expect("a free"));
        pool.drain().expect("a drain");
        reports()
    });
    assert!(found.iter().all(Vec::is_empty), "{found:?}");
    sound(pool);
    assert_eq!((pool.held().count(), pool.set_aside()), (0, 0));
    assert_eq!(pool.tree().expect("a tree").count_free().frames, 12 * BLOCK);
}
