//! The reserve: ordinary requests leave it alone, to the frame, whoever asks and however many at
//! once; urgent ones get it; and it fills up again by itself.
#![cfg(not(loom))]

mod support;

use std::cell::Cell;
use std::sync::atomic::{AtomicI64, Ordering};

use frametree::{
    AllocError, CpuId, Cpus, Frame, FrameNumber, FramePool, InitError, NumberRange, Request, Setup,
};
use proptest::prelude::*;
use support::{BLOCK, Crew, Dice, GIANT, Threads, pool_by};

/// CPUs with a cache.
const CPUS: usize = 3;

std::thread_local! {
    static POOL: Cell<Option<&'static FramePool<Obedient>>> = const { Cell::new(None) };
}

/// CPUs that drain at once when they are asked; one thread plays them all.
#[derive(Debug)]
struct Obedient;

// SAFETY: one thread plays all CPUs, one after the other.
unsafe impl Cpus for Obedient {
    fn with_current<R>(&self, work: impl FnOnce(CpuId) -> R) -> R {
        Threads.with_current(work)
    }

    fn request_drain(&self, cpu: CpuId) {
        let this = Threads.with_current(CpuId::get);
        Threads::become_cpu(cpu.get());
        POOL.get().expect("a pool").drain().expect("a drain");
        Threads::become_cpu(this);
    }
}

fn pool(reserve: u64, frames: &[(u64, u64)]) -> &'static FramePool<Obedient> {
    let pool = pool_by(Obedient, (CPUS, Setup::new(CPUS).reserve(reserve)), frames);
    POOL.set(Some(pool));
    pool
}

fn drain_all(pool: &FramePool<impl Cpus>) {
    for cpu in 0..CPUS {
        Threads::become_cpu(cpu);
        pool.drain().expect("a drain");
    }
    Threads::become_cpu(0);
}

#[test]
fn ordinary_requests_leave_it_and_urgent_ones_get_it() {
    for cpu in [0, CPUS] {
        let pool = pool(100, &[(0, 3000)]);
        Threads::become_cpu(cpu);
        let mut held: Vec<_> = std::iter::from_fn(|| pool.alloc().ok()).collect();
        assert_eq!(held.len(), 2900, "CPU {cpu}");
        assert_eq!(pool.alloc(), Err(AllocError::Reserved { free: 100 }));
        assert_eq!(pool.alloc_zeroed(|_| ()), Err(AllocError::Reserved { free: 100 }));
        assert_eq!(pool.alloc_run(&Request::new(1)), Err(AllocError::Reserved { free: 100 }));
        assert_eq!(pool.alloc_bulk(&mut [None, None]), 0);
        held.push(pool.alloc_urgent().expect("the reserve"));
        let run = pool.alloc_run(&Request::new(2).urgent()).expect("the reserve");
        held.extend(std::iter::from_fn(|| pool.alloc_urgent().ok()));
        assert_eq!(held.len(), 2998);
        assert_eq!(pool.alloc_urgent(), Err(AllocError::OutOfMemory { cached_elsewhere: 0 }));
        // It comes back first: 100 frees are not for ordinary requests.
        pool.free_run(run).expect("a free");
        for frame in held.drain(..98) {
            pool.free(frame).expect("a free");
        }
        drain_all(pool);
        pool.verify().expect("a sound pool");
        Threads::become_cpu(cpu);
        assert_eq!(pool.alloc(), Err(AllocError::Reserved { free: 100 }));
        pool.free(held.pop().expect("a frame")).expect("a free");
        drain_all(pool);
        Threads::become_cpu(cpu);
        held.push(pool.alloc().expect("one more than the reserve"));
        held.into_iter().for_each(|frame| pool.free(frame).expect("a free"));
        drain_all(pool);
        pool.verify().expect("a sound pool");
        assert_eq!(pool.stats().free_frames, 3000);
    }
}

#[test]
fn when_little_is_left_no_cpu_is_granted_all_of_it() {
    // 1000 frames beside the reserve; each CPU that asks gets a sixth of what is left ahead, and at
    // least a refill. None gives back what it has when another asks.
    let pool = pool_by(Threads, (CPUS, Setup::new(CPUS).reserve(69_000)), &[(0, 70_000)]);
    let mut left = 1000;
    for cpu in 0..2 {
        Threads::become_cpu(cpu);
        let _ = pool.alloc().expect("a frame");
        left -= left / 6;
    }
    Threads::become_cpu(2);
    let rest = std::iter::from_fn(|| pool.alloc().ok().map(Frame::into_number)).count();
    assert_eq!(rest, left, "what the others were granted, and have not used, they keep");
}

#[test]
fn blocks_gibs_and_runs_leave_it_too() {
    let pool = pool(BLOCK + 1, &[(0, 2 * GIANT)]);
    let giant = pool.alloc_giant().expect("a GiB");
    // They are there, but would take some of the reserve.
    assert_eq!(pool.alloc_giant(), Err(AllocError::Reserved { free: GIANT }));
    let blocks: Vec<_> = std::iter::from_fn(|| pool.alloc_block().ok()).collect();
    assert_eq!(blocks.len(), 510);
    assert_eq!(pool.alloc_block(), Err(AllocError::Reserved { free: 2 * BLOCK }));
    let run = pool.alloc_run(&Request::new(BLOCK - 1)).expect("what is left");
    let reserved = AllocError::Reserved { free: BLOCK + 1 };
    assert_eq!(pool.alloc_run(&Request::new(1)), Err(reserved));
    // What is not there is not asked for, whatever the budget says.
    let nowhere = pool.alloc_run(&Request::new(1 << 39)).expect_err("more than there is");
    assert!(matches!(nowhere, AllocError::NoRun(_)), "{nowhere}");
    let taken = pool.alloc_run(&Request::new(1).at(FrameNumber::new(3))).expect_err("in the GiB");
    assert!(matches!(taken, AllocError::InTheWay { .. }), "{taken}");
    let block = Request::new(BLOCK).align(2 << 20).urgent();
    let urgent = pool.alloc_run(&block).expect("the reserve");
    pool.free_run(urgent).expect("a free");
    pool.free_run(run).expect("a free");
    blocks.into_iter().for_each(|block| pool.free_block(block).expect("a free"));
    pool.free_giant(giant).expect("a free");
    pool.verify().expect("a sound pool");
    assert_eq!(pool.stats().free_giants, 2);
}

#[test]
fn who_uses_the_tree_directly_is_counted_too() {
    let pool = pool(100, &[(0, 3000)]);
    let tree = pool.tree().expect("a tree");
    let held: Vec<_> = (0..1000).map(|_| tree.alloc().expect("a frame")).collect();
    let mut mine: Vec<_> = std::iter::from_fn(|| pool.alloc().ok()).collect();
    assert_eq!(mine.len(), 1900);
    held.into_iter().for_each(|frame| tree.free(frame).expect("a free"));
    mine.extend(std::iter::from_fn(|| pool.alloc().ok()));
    assert_eq!(mine.len(), 2900);
    mine.into_iter().for_each(|frame| pool.free(frame).expect("a free"));
    pool.verify().expect("a sound pool");
}

#[test]
fn memory_that_is_added_is_for_ordinary_requests() {
    let pool = pool(100, &[(0, 3000)]);
    let mut held: Vec<_> = std::iter::from_fn(|| pool.alloc().ok()).collect();
    let more = NumberRange::from_numbers(3000, 4000);
    // SAFETY: the memory is not real, nobody uses it.
    unsafe { pool.grow_in(more, vec![0; 4096].leak()) }.expect("more memory");
    held.extend(std::iter::from_fn(|| pool.alloc().ok()));
    assert_eq!(held.len(), 3900);
    held.into_iter().for_each(|frame| pool.free(frame).expect("a free"));
    pool.verify().expect("a sound pool");
}

#[test]
fn what_is_set_aside_is_not_made_up_for_by_the_reserve() {
    let pool = pool(500, &[(0, 8192)]);
    let ordinary = || std::iter::from_fn(|| pool.alloc().ok()).map(Frame::into_number);
    assert_eq!(ordinary().count(), 7692);
    let isolated = NumberRange::from_numbers(640, 1040);
    let memory = vec![0u64; 1024].leak().as_mut_ptr().cast::<u8>();
    let aligned = memory.wrapping_add(memory.align_offset(4096));
    // SAFETY: the memory is given once.
    let isolation = unsafe { pool.isolate(isolated, |_| aligned) }.expect("managed memory");
    for number in 640..1040 {
        // SAFETY: the test holds it, and uses no memory.
        pool.free(unsafe { Frame::from_number(FrameNumber::new(number)) }).expect("a free");
    }
    drain_all(pool);
    assert_eq!(ordinary().count(), 0, "they came from the reserve");
    drain_all(pool);
    pool.verify().expect("a sound pool");
    assert_eq!(pool.tree().expect("a tree").free_frames(), 499, "a frame of metadata");
    pool.readmit(isolation);
    assert_eq!(ordinary().count(), 399, "and the reserve is full again");
    drain_all(pool);
    pool.verify().expect("a sound pool");
}

/// Documented at `Setup::reserve`: a block that meets isolated frames has asked for one block, and
/// takes these besides. So many may be missing of the reserve, and no more.
#[test]
fn a_block_overdraws_it_by_the_isolated_frames_that_it_meets() {
    for isolated in [1, 7, 500] {
        // The first frame becomes metadata.
        let pool = pool(BLOCK, &[(0, 1), (BLOCK, 3 * BLOCK)]);
        let at = |block: u64| Request::new(BLOCK).at(FrameNumber::new(block * BLOCK));
        let low = pool.alloc_run(&at(1)).expect("a block");
        let _high = pool.alloc_run(&at(3)).expect("a block").into_numbers();
        let range = NumberRange::from_numbers(BLOCK + 10, BLOCK + 10 + isolated);
        let memory = vec![0_u64; 1024].leak().as_mut_ptr().cast::<u8>();
        let memory = memory.wrapping_add(memory.align_offset(128));
        // SAFETY: memory of its own, for one frame.
        let isolation = unsafe { pool.isolate(range, |_| memory) }.expect("managed memory");
        pool.free_run(low).expect("own frames");
        // It meets the low block first, sets some of it aside, and takes the next.
        let taken = pool.alloc_block().expect("a block is left to ordinary requests");
        assert_eq!(taken.number().get(), 2 * BLOCK);
        assert_eq!(pool.stats().free_frames, BLOCK - isolated);
        // From then on it is known.
        let refused = pool.alloc().expect_err("nothing for ordinary requests");
        assert!(matches!(refused, AllocError::Reserved { .. }), "{refused}");
        pool.free_block(taken).expect("own block");
        pool.readmit(isolation);
        pool.verify().expect("a sound pool");
    }
}

#[test]
fn a_reserve_of_everything_is_refused() {
    let pool = FramePool::new(Threads);
    support::with_map(&[(0, 600)], |map| {
        let init = |reserve| {
            let setup = Setup::new(1).reserve(reserve);
            // SAFETY: the memory is not real, nobody uses it.
            unsafe { pool.init_in(map, setup, vec![0; 8192].leak()) }
        };
        let refused = InitError::ReserveTooLarge { reserve: 600, managed: 600 };
        assert_eq!(init(600), Err(refused));
        assert!(init(599).is_ok());
    });
}

#[test]
fn a_refused_reserve_leaves_the_map_as_it_was() {
    let pool = FramePool::new(Threads);
    support::with_map(&[(0, 4096)], |map| {
        let init = |map: &mut _, reserve| {
            let memory = vec![0u64; 1 << 16].leak().as_mut_ptr().cast::<u8>();
            let aligned = memory.wrapping_add(memory.align_offset(4096));
            // SAFETY: the memory is not real, nobody uses it, and the metadata is.
            unsafe { pool.init(map, Setup::new(1).reserve(reserve), |_| aligned) }
        };
        let Err(InitError::ReserveTooLarge { managed, .. }) = init(map, 5000) else {
            panic!("a reserve of more than there is");
        };
        assert_eq!(map.usable_frames(), 4096, "the map has paid for metadata that is not there");
        let exact = InitError::ReserveTooLarge { reserve: managed, managed };
        assert_eq!(init(map, managed), Err(exact));
        assert_eq!(init(map, managed - 1).map(|made| made.managed_frames), Ok(managed));
        assert_eq!(init(map, 1), Err(InitError::AlreadyInitialised));
        assert_eq!(map.usable_frames(), managed);
    });
}

/// Two CPUs that have a map each, and initialise one pool at the same moment.
#[test]
fn who_initialises_second_keeps_his_map() {
    for _ in 0..50 {
        let pool = FramePool::new(Threads);
        let crew = Crew::new(2);
        let made = crew.run(|_| {
            let memory = vec![0u64; 1 << 13].leak().as_mut_ptr().cast::<u8>();
            let aligned = memory.wrapping_add(memory.align_offset(4096));
            let mut left = (false, 0);
            support::with_map(&[(0, 600)], |map| {
                // SAFETY: the memory is not real, nobody uses it, and the metadata is.
                let made = unsafe { pool.init(map, Setup::new(1), |_| aligned) };
                left = (made.is_ok(), map.usable_frames());
            });
            left
        });
        assert!(made.iter().any(|(is_first, _)| *is_first));
        for (is_first, left) in made {
            assert_eq!(is_first, left < 600, "{left} frames are left");
        }
    }
}

#[test]
fn however_many_ask_at_once() {
    const THREADS: usize = 4;
    const RESERVE: u64 = 1000;
    const MANAGED: u64 = 3 * BLOCK + 5 * 64 + 20_000;
    let setup = Setup::new(THREADS).reserve(RESERVE);
    let pool = pool_by(Threads, (THREADS, setup), &[(7, MANAGED)]);
    // What ordinary requests hold, counted before a free and after an allocation.
    let held = AtomicI64::new(0);
    let most = (MANAGED - RESERVE).cast_signed();
    let crew = Crew::new(THREADS);
    let left = crew.run(|cpu| {
        let mut dice = Dice::new(cpu as u64 + 40);
        let mut mine: Vec<Frame> = Vec::new();
        for _ in 0..60 {
            while let Ok(frame) = pool.alloc() {
                mine.push(frame);
                assert!(held.fetch_add(1, Ordering::SeqCst) < most, "the reserve was taken");
            }
            dice.shuffle(&mut mine);
            for frame in mine.split_off(mine.len() - mine.len().min(dice.below(3000) as usize)) {
                held.fetch_sub(1, Ordering::SeqCst);
                pool.free(frame).expect("a free");
            }
        }
        mine
    });
    let urgent: Vec<_> = std::iter::from_fn(|| pool.alloc_urgent().ok()).collect();
    assert!(urgent.len() as u64 >= RESERVE, "{} frames are left of {RESERVE}", urgent.len());
    for frame in left.into_iter().flatten().chain(urgent) {
        pool.free(frame).expect("a free");
    }
    for cpu in 0..THREADS {
        Threads::become_cpu(cpu);
        pool.drain().expect("a drain");
    }
    pool.verify().expect("a sound pool");
    assert_eq!(pool.stats().free_frames, MANAGED);
}

/// What a step of the model does.
#[derive(Clone, Copy, Debug)]
enum Step {
    Alloc(usize),
    Urgent(usize),
    Run(u64),
    Block,
    Free(u64),
    Drain,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..200usize).prop_map(Step::Alloc),
        1 => (1..80usize).prop_map(Step::Urgent),
        1 => (1..300u64).prop_map(Step::Run),
        1 => Just(Step::Block),
        4 => any::<u64>().prop_map(Step::Free),
        1 => Just(Step::Drain),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    /// The model is one number: what callers hold. While they hold nothing of the reserve, an
    /// ordinary request is granted exactly if something else is left.
    #[test]
    fn an_ordinary_request_fails_when_only_the_reserve_is_left(
        reserve in 1..1200u64, managed in 1300..4000u64,
        steps in prop::collection::vec((0..=CPUS, step()), 1..60),
    ) {
        let pool = pool(reserve, &[(64, managed)]);
        // Runs of frames as they came.
        let mut held: Vec<(u64, u64)> = Vec::new();
        let mut was_urgent = false;
        let count = |held: &[(u64, u64)]| held.iter().map(|run| run.1).sum::<u64>();
        for (cpu, step) in steps {
            Threads::become_cpu(cpu);
            let left = managed - count(&held);
            match step {
                Step::Alloc(times) => for _ in 0..times {
                    let left = managed - count(&held);
                    match pool.alloc() {
                        Ok(frame) => held.push((frame.into_number().get(), 1)),
                        Err(_) => {
                            prop_assert!(left <= reserve, "refused with {} left", left);
                            break;
                        }
                    }
                    // What was granted before an urgent request may be taken after it.
                    prop_assert!(left > reserve || was_urgent, "{} left", left);
                },
                Step::Urgent(times) => for _ in 0..times {
                    was_urgent = true;
                    let left = managed - count(&held);
                    match pool.alloc_urgent() {
                        Ok(frame) => held.push((frame.into_number().get(), 1)),
                        Err(_) => { prop_assert_eq!(left, 0); break; }
                    }
                },
                Step::Run(frames) => match pool.alloc_run(&Request::new(frames)) {
                    Ok(run) => {
                        held.push((run.start_address() / frametree::FRAME_SIZE, frames));
                        let _ = run.into_numbers();
                    }
                    Err(AllocError::Reserved { .. }) => prop_assert!(left < reserve + frames),
                    Err(error) => prop_assert!(matches!(error, AllocError::NoRun(_))),
                },
                Step::Block => if let Ok(block) = pool.alloc_block() {
                    held.push((block.into_number().get(), BLOCK));
                    prop_assert!(left >= reserve + BLOCK);
                },
                Step::Free(seed) => {
                    let mut dice = Dice::new(seed);
                    dice.shuffle(&mut held);
                    let kept = dice.below(held.len() as u64 + 1) as usize;
                    for (first, frames) in held.drain(kept..) {
                        let run = NumberRange::new(
                            FrameNumber::new(first), FrameNumber::new(first + frames));
                        // SAFETY: held, as the model says.
                        let run = unsafe { frametree::FrameRange::from_numbers(run) };
                        pool.free_run(run).expect("a free");
                    }
                }
                Step::Drain => { pool.drain().expect("a drain"); }
            }
            pool.verify().expect("a sound pool");
        }
    }
}
