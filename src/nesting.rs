//! Interrupts inside of operations, and in each other, up to three deep: at each access to a shared
//! word of each operation in turn, the same each time. (`tests/interrupts.rs` has them between any
//! two instructions, and nested by chance.)
//!
//! An interrupt is a call at that access: it is over before the interrupted code goes on, as in a
//! kernel. One interrupt: at every access of every operation, with every kind of handler (of
//! operations with more than 48 accesses at fewer and fewer later on). Two and
//! three: every access of the operation at which there are few, fewer and fewer later on; the same
//! inside each handler; the kinds of handlers by turns. `NESTING=all` leaves nothing out of two.
//!
//! And a CPU that an interrupt has asked to drain, at each access of which another CPU finds nothing,
//! or one more interrupt asks.
//!
//! What must hold: nothing is handed out twice, every free of an own frame is accepted, and when all
//! is given back the tree is as at first.

extern crate std;

use core::cell::{Cell, RefCell};
use core::panic::Location;
use std::vec;
use std::vec::Vec;

use crate::counts::{Cpu, pool_by, pool_of};
use crate::cpu::Cpus;
use crate::error::{AllocError, FreeError};
use crate::frame::{CpuId, Frame, FrameNumber, FrameRange, NumberRange};
use crate::geometry::{BLOCK_FRAMES, FRAME_SIZE, GIANT_FRAMES};
use crate::pool::{Drained, FramePool, Setup};
use crate::request::Request;
use crate::sync::watching::{Access, watch};
use crate::tree::FreeCount;

/// Interrupts in each other at most.
const DEEP: usize = 3;
/// Blocks and crumbs.
const FRAMES: u64 = 4 * BLOCK_FRAMES + 100;

type Pool = &'static FramePool<Cpu>;
/// What it takes and frees is kept in the hands.
type Work = fn(Pool, &mut Vec<(u64, u64)>);

/// What is to happen, and what the operation and each handler have in their hands.
#[derive(Clone, Copy)]
struct Plan {
    pool: Pool,
    /// At which access of the operation, and of each handler; 0 for never.
    at: [u64; DEEP],
    handlers: [Work; DEEP],
}

std::thread_local! {
    static PLAN: Cell<Option<Plan>> = const { Cell::new(None) };
    /// How many handlers are in the middle of something.
    static LEVEL: Cell<usize> = const { Cell::new(0) };
    /// Accesses that the operation, and each handler, has made.
    static MADE: [Cell<u64>; DEEP + 1] = const { [const { Cell::new(0) }; DEEP + 1] };
    static HANDS: [RefCell<Vec<(u64, u64)>>; DEEP + 1] =
        const { [const { RefCell::new(Vec::new()) }; DEEP + 1] };
}

fn on_access(_: usize, access: Access, _: &'static Location<'static>) {
    let (level, Some(plan)) = (LEVEL.get(), PLAN.get()) else { return };
    PAUSES.set(PAUSES.get() + u64::from(access == Access::Pause));
    if access == Access::Pause || level == DEEP {
        return;
    }
    let made = MADE.with(|made| {
        made[level].set(made[level].get() + 1);
        made[level].get()
    });
    if made == plan.at[level] {
        LEVEL.set(level + 1);
        HANDS.with(|hands| plan.handlers[level](plan.pool, &mut hands[level + 1].borrow_mut()));
        LEVEL.set(level);
    }
}

pub fn frame(number: u64) -> Frame {
    // SAFETY: no memory is behind it; the hands say whose it is.
    unsafe { Frame::from_number(FrameNumber::new(number)) }
}

pub fn run((first, count): (u64, u64)) -> FrameRange {
    // SAFETY: as above.
    unsafe { FrameRange::from_numbers(NumberRange::from_numbers(first, first + count)) }
}

/// Isolations have their metadata from now on: one frame, which stays in use.
pub fn isolate_once<C: Cpus>(pool: &FramePool<C>) {
    let memory = vec![[0xa5_u8; 128]; 64].leak().as_mut_ptr().cast::<u8>();
    let memory = memory.wrapping_add(memory.align_offset(128));
    let range = NumberRange::from_numbers(BLOCK_FRAMES, 2 * BLOCK_FRAMES);
    // SAFETY: memory of its own.
    pool.readmit(unsafe { pool.isolate(range, |_| memory) }.expect("free memory"));
}

fn take(pool: Pool, hands: &mut Vec<(u64, u64)>) {
    hands.extend(pool.alloc().ok().map(|frame| (frame.into_number().get(), 1)));
}

fn take_many(pool: Pool, hands: &mut Vec<(u64, u64)>) {
    (0..200).for_each(|_| take(pool, hands));
}

fn take_zeroed(pool: Pool, hands: &mut Vec<(u64, u64)>) {
    let taken = pool.alloc_zeroed(|_| ()).ok();
    hands.extend(taken.map(|frame| (frame.into_number().get(), 1)));
}

fn take_block(pool: Pool, hands: &mut Vec<(u64, u64)>) {
    let taken = pool.alloc_block().ok();
    hands.extend(taken.map(|block| (block.into_number().get(), BLOCK_FRAMES)));
}

fn take_run(pool: Pool, hands: &mut Vec<(u64, u64)>) {
    let taken = pool.alloc_run(&Request::new(150).align(16 * FRAME_SIZE)).ok();
    hands.extend(taken.map(|run| (run.into_numbers().start().get(), 150)));
}

fn free(pool: Pool, hands: &mut Vec<(u64, u64)>) {
    if let Some(last) = hands.pop() {
        pool.free_run(run(last)).expect("its own frames");
    }
}

/// Nothing else is free, and the CPU knows.
fn take_all_and_replace(pool: Pool, hands: &mut Vec<(u64, u64)>) {
    (0..3).for_each(|_| take_block(pool, hands));
    (3 * BLOCK_FRAMES..FRAMES).for_each(|_| take(pool, hands));
    [300, 100, 500].iter().for_each(|at| replace(pool, hands, *at));
}

fn replace(pool: Pool, hands: &mut Vec<(u64, u64)>, at: usize) {
    let (first, _) = hands.swap_remove(at);
    pool.free(frame(first)).expect("its own");
    take(pool, hands);
}

fn drain(pool: Pool, _: &mut Vec<(u64, u64)>) {
    pool.drain().expect("no double free");
}

fn isolate(pool: Pool, _: &mut Vec<(u64, u64)>) {
    let range = NumberRange::from_numbers(BLOCK_FRAMES + 5, 2 * BLOCK_FRAMES + 7);
    // SAFETY: it has its metadata already; see `isolate_once`.
    let isolation = unsafe { pool.isolate(range, |_| unreachable!()) };
    isolation.into_iter().for_each(|isolation| pool.readmit(isolation));
}

/// An operation, and what was done before.
fn operations() -> [(&'static str, Work, Work); 15] {
    let nothing: Work = |_, _| ();
    let most_of_a_block: Work = |pool, hands| {
        take_block(pool, hands);
        let (first, _) = hands.pop().expect("a block");
        pool.free_run(run((first + 1, BLOCK_FRAMES - 1))).expect("its own frames");
        hands.push((first, 1));
    };
    [
        ("the first frame", nothing, take),
        ("a cached frame", take, take),
        ("a refill", |pool, hands| (0..64).for_each(|_| take(pool, hands)), take),
        ("a zeroed frame", nothing, take_zeroed),
        ("many frames", nothing, |pool, hands| {
            let mut list = [const { None }; 70];
            pool.alloc_bulk(&mut list);
            hands.extend(list.into_iter().flatten().map(|frame| (frame.into_number().get(), 1)));
        }),
        ("a free", take_many, free),
        ("a free past the cache", take_many, |pool, hands| {
            for at in [0, 80] {
                let (first, _) = hands.swap_remove(at);
                pool.free(frame(first)).expect("its own");
            }
        }),
        ("the lowest frame, kept, and taken again", take_all_and_replace, |pool, hands| {
            replace(pool, hands, 20);
            replace(pool, hands, 400);
        }),
        ("a zeroed free", take_many, |pool, hands| {
            let (first, _) = hands.swap_remove(0);
            // SAFETY: no memory is behind it.
            unsafe { pool.free_zeroed(frame(first)) }.expect("its own");
        }),
        ("a drain", take_many, drain),
        ("a merge", most_of_a_block, free),
        ("a block", nothing, take_block),
        ("a block's free", take_block, free),
        ("a run", nothing, take_run),
        ("an isolation", take_many, isolate),
    ]
}

/// What handlers do: each may find something to free that an earlier one of its level has left.
const HANDLERS: [Work; 6] = [
    take,
    |pool, hands| {
        take_block(pool, hands);
        free(pool, hands);
    },
    |pool, hands| {
        take(pool, hands);
        take_run(pool, hands);
        free(pool, hands);
        free(pool, hands);
    },
    drain,
    isolate,
    |pool, hands| {
        take_zeroed(pool, hands);
        drain(pool, hands);
        free(pool, hands);
    },
];

struct Stage {
    pool: Pool,
    first: FreeCount,
}

impl Stage {
    fn new(setup: Setup) -> Self {
        let pool = pool_by(setup, 0, FRAMES);
        isolate_once(pool);
        Self { pool, first: pool.tree().expect("a tree").count_free() }
    }

    /// The operation with these interrupts; whether all of them came.
    fn plays(&self, (name, before, work): (&str, Work, Work), plan: Plan) -> bool {
        let pool = self.pool;
        let deep = plan.at.iter().filter(|at| **at > 0).count();
        let mut hands = HANDS.with(|hands| hands[0].take());
        before(pool, &mut hands);
        MADE.with(|made| made.iter().for_each(|made| made.set(0)));
        PLAN.set(Some(plan));
        watch(Some(on_access));
        work(pool, &mut hands);
        watch(None);
        PLAN.set(None);
        let came = |level: usize| MADE.with(|made| made[level].get() >= plan.at[level]);
        let all_came = (0..deep).all(came);
        if deep == 1 {
            // Also before all comes back, and most of what is said of parts of blocks is over.
            pool.verify().unwrap_or_else(|broken| panic!("{name}, {:?}: {broken}", plan.at));
        }
        let mut all = hands;
        HANDS.with(|hands| hands[1..].iter().for_each(|more| all.append(&mut more.borrow_mut())));
        all.sort_unstable();
        let twice = all.windows(2).find(|pair| pair[0].0 + pair[0].1 > pair[1].0);
        assert_eq!(twice, None, "{name}, {:?}: a frame has two owners", plan.at);
        all.drain(..).for_each(|some| pool.free_run(run(some)).expect("own frames"));
        pool.drain().expect("no double free");
        pool.verify().unwrap_or_else(|broken| panic!("{name}, {:?}: {broken}", plan.at));
        let tree = pool.tree().expect("a tree");
        assert_eq!(tree.count_free(), self.first, "{name}, {:?}", plan.at);
        assert_eq!(pool.stats().late_double_frees, 0, "{name}, {:?}", plan.at);
        all_came
    }
}

/// Numbers from 1 on: each of the first ones, then fewer and fewer.
fn thinned(by: u64) -> impl Iterator<Item = u64> {
    core::iter::successors(Some(1), move |at| Some(at + 1 + at / by))
}

/// Does it for these numbers until it says no; whether it has said yes.
fn each(thin: u64, mut work: impl FnMut(u64) -> bool) -> bool {
    thinned(thin).take_while(|at| work(*at)).count() > 0
}

/// All operations, each with so many interrupts in each other; how often all of them came.
fn all_operations(setup: Setup, deep: usize, thin: u64) -> u64 {
    let stage = Stage::new(setup);
    let mut played = 0;
    for operation in operations() {
        let mut turn = 0;
        let mut play = |at| {
            turn += 1;
            let kind = |level: usize| HANDLERS[(turn / HANDLERS.len().pow(level as u32)) % 6];
            let plan = Plan { pool: stage.pool, at, handlers: [kind(0), kind(1), kind(2)] };
            let all_came = stage.plays(operation, plan);
            played += u64::from(all_came);
            all_came
        };
        match deep {
            // Each kind of handler at each access.
            1 => {
                let all_kinds = |at: &u64| HANDLERS.map(|_| play([*at, 0, 0])).contains(&true);
                _ = thinned(thin).take_while(all_kinds).last();
            }
            2 => _ = each(thin, |one| each(thin, |two| play([one, two, 0]))),
            _ => {
                let mut inner = |one, two| each(thin, |three| play([one, two, three]));
                each(thin, |one| each(thin, |two| inner(one, two)));
            }
        }
    }
    std::println!("{deep} deep: {played} times");
    played
}

#[test]
fn one_interrupt_at_each_access() {
    let played = all_operations(Setup::new(1), 1, 48);
    assert!(played > 1000, "{played} were played");
}

#[test]
fn two_interrupts_in_each_other() {
    let is_all = std::env::var("NESTING").is_ok_and(|how| how == "all");
    let played = all_operations(Setup::new(1), 2, if is_all { u64::MAX } else { 14 });
    assert!(played > 3000, "{played} were played");
}

#[test]
fn three_interrupts_in_each_other() {
    let played = all_operations(Setup::new(1), DEEP, 2);
    assert!(played > 3000, "{played} were played");
}

#[test]
fn and_with_a_budget_to_ask() {
    let setup = Setup::new(1).reserve(100).watermarks(600, 900, |_| ());
    let played = (1..=DEEP).map(|deep| all_operations(setup, deep, [12, 3, 1][deep - 1])).min();
    assert!(played > Some(500), "{played:?} were played");
}

/// This thread is either of two CPUs, by turns.
#[derive(Debug)]
struct Either;

type Both = &'static FramePool<Either>;

/// What comes in between at an access of an operation of CPU 0.
#[derive(Clone, Copy)]
struct Guest {
    pool: Both,
    at: u64,
    comes: fn(Both),
}

std::thread_local! {
    static ON: Cell<usize> = const { Cell::new(0) };
    static GUEST: Cell<Option<Guest>> = const { Cell::new(None) };
    static SEEN: Cell<u64> = const { Cell::new(0) };
    static PAUSES: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: each test has its own pool, and one thread.
unsafe impl Cpus for Either {
    fn with_current<R>(&self, work: impl FnOnce(CpuId) -> R) -> R {
        work(CpuId::new(ON.get()))
    }
}

/// An interrupt asks CPU 0 to drain at its fourth access, the first inside of its turn.
fn on_access_of_cpu_0(_: usize, access: Access, _: &'static Location<'static>) {
    PAUSES.set(PAUSES.get() + u64::from(access == Access::Pause));
    let Some(guest) = GUEST.take() else { return };
    SEEN.set(SEEN.get() + 1);
    if SEEN.get() == 4 {
        assert_eq!(guest.pool.drain(), Ok(Drained::AtEndOfUse));
    } else if SEEN.get() == guest.at {
        (guest.comes)(guest.pool);
    }
    GUEST.set(Some(guest));
}

/// CPU 1 takes one; whether it has looked again and again for more, because of CPU 0.
fn take_on_cpu_1(pool: Both) -> (Result<FrameNumber, AllocError>, bool) {
    ON.set(1);
    PAUSES.set(0);
    let taken = pool.alloc().map(Frame::into_number);
    ON.set(0);
    (taken, PAUSES.get() > 15_000)
}

/// For each access of a free on CPU 0 in turn, at which `comes` comes: how many there are.
fn in_a_free_on_cpu_0(comes: fn(Both), then: fn(Both)) -> usize {
    let comes_at = |at: &u64| {
        let pool = pool_of(Either, (Setup::new(2), 2), 128);
        (0..64).for_each(|_| _ = take_on_cpu_1(pool));
        let held = pool.alloc().expect("one of the other 64");
        SEEN.set(0);
        GUEST.set(Some(Guest { pool, at: *at, comes }));
        watch(Some(on_access_of_cpu_0));
        pool.free(held).expect("an own frame");
        GUEST.set(None);
        then(pool);
        watch(None);
        SEEN.get() >= *at
    };
    (5..).take_while(comes_at).count()
}

#[test]
fn who_was_asked_inside_a_use_is_waited_for() {
    let comes = |pool: Both| {
        let is_true = match take_on_cpu_1(pool) {
            // It stands still meanwhile.
            (Err(AllocError::OutOfMemory { .. }), has_waited) => has_waited,
            (taken, _) => taken.is_ok(),
        };
        assert!(is_true, "nothing, at access {}", SEEN.get());
    };
    assert!(in_a_free_on_cpu_0(comes, |_| ()) > 10);
}

#[test]
fn who_was_asked_again_while_it_drains_has_drained_when_it_rests() {
    let then = |pool: Both| {
        (0..64).for_each(|_| _ = take_on_cpu_1(pool));
        let nothing = Err(AllocError::OutOfMemory { cached_elsewhere: 0 });
        assert_eq!(take_on_cpu_1(pool), (nothing, false), "asked at access {}", SEEN.get());
    };
    assert!(in_a_free_on_cpu_0(|pool| _ = pool.drain().expect("no double free"), then) > 10);
}

/// Nothing is free, and a frame is about to be: an interrupt of the same CPU that wants one can't
/// wait until it is, and does not try to.
#[test]
fn an_interrupt_does_not_wait_for_what_it_has_interrupted() {
    let pool = pool_by(Setup::new(1), 0, FRAMES);
    let mut hands = Vec::new();
    (0..FRAMES).for_each(|_| take(pool, &mut hands));
    let mut inside = 0;
    for at in 1.. {
        MADE.with(|made| made.iter().for_each(|made| made.set(0)));
        PLAN.set(Some(Plan { pool, at: [at, 0, 0], handlers: [take; DEEP] }));
        watch(Some(on_access));
        pool.free(frame(hands[at as usize * 64 % 2048].0)).expect("its own");
        watch(None);
        PLAN.set(None);
        let [outer, inner] = MADE.with(|made| [made[0].get(), made[1].get()]);
        if outer < at {
            break;
        }
        inside += 1;
        assert!(inner < 1000, "{inner} accesses to find nothing, at {at}");
        // All is in use again.
        pool.drain().expect("no double free");
        HANDS.with(|hands| hands[1].take());
        while let Ok(frame) = pool.alloc() {
            let _ = frame.into_number();
        }
    }
    assert!(inside > 20, "{inside}");
}

/// Who isolates asks all caches to drain, and waits for those that are about to: not for its own CPU's,
/// which it has interrupted.
#[test]
fn who_isolates_inside_a_use_does_not_wait_for_its_end() {
    let stage = Stage::new(Setup::new(1));
    let inside = (1..).take_while(|at| {
        PAUSES.set(0);
        let plan = Plan { pool: stage.pool, at: [*at, 0, 0], handlers: [isolate; DEEP] };
        let came = stage.plays(("a free", take_many, free), plan);
        assert_eq!(PAUSES.get(), 0, "at access {at}");
        came
    });
    assert!(inside.count() > 10);
}

/// A block is found used up, and its hint retired; at each access of that in turn a frame of it comes
/// free.
#[test]
fn what_comes_free_while_a_hint_is_retired_is_announced() {
    let free: Work = |pool, _| {
        let tree = pool.tree().expect("a tree");
        tree.free(frame(5)).expect("it is in use");
    };
    let mut inside = 0;
    for at in 1.. {
        let pool = pool_by(Setup::new(1), 0, FRAMES);
        let tree = pool.tree().expect("a tree");
        for number in 0..BLOCK_FRAMES {
            assert_eq!(tree.alloc().expect("a frame").into_number().get(), number);
        }
        MADE.with(|made| made.iter().for_each(|made| made.set(0)));
        PLAN.set(Some(Plan { pool, at: [at, 0, 0], handlers: [free; DEEP] }));
        watch(Some(on_access));
        let taken = tree.alloc().expect("a frame").into_number().get();
        watch(None);
        PLAN.set(None);
        if MADE.with(|made| made[0].get()) < at {
            break;
        }
        inside += 1;
        tree.verify().unwrap_or_else(|broken| panic!("at {at}: {broken}"));
        let expected = if taken == 5 { BLOCK_FRAMES } else { 5 };
        assert_eq!(tree.alloc().expect("a frame").into_number().get(), expected, "at {at}");
    }
    assert!(inside > 10, "{inside}");
}

std::thread_local! {
    /// What is freed a second time, and what came of it.
    static AGAIN: Cell<(u64, u64)> = const { Cell::new((0, 0)) };
    static ANSWER: Cell<Option<Result<(), FreeError>>> = const { Cell::new(None) };
}

fn free_again(pool: Pool, _: &mut Vec<(u64, u64)>) {
    let (first, count) = AGAIN.get();
    let tree = pool.tree().expect("a tree");
    ANSWER.set(Some(match count {
        BLOCK_FRAMES => tree.free_block(frame(first)),
        GIANT_FRAMES => tree.free_giant(frame(first)),
        _ => tree.free_run(run((first, count))),
    }));
}

/// A part of a run is freed a second time, at each access of the run's free in turn. One of the two
/// is refused and told which frame it was, and nothing is there twice.
#[test]
fn a_double_free_that_races_is_refused_once_with_its_frame() {
    let cases = [
        // Within a block, across blocks, and blocks and a GiB as a whole.
        ((5, 200), (70, 1)),
        ((5, 200), (130, 3)),
        ((500, 40), (513, 1)),
        ((500, 200), (511, 1)),
        ((500, 12 + 2 * BLOCK_FRAMES), (2 * BLOCK_FRAMES, BLOCK_FRAMES)),
        ((GIANT_FRAMES - 70, GIANT_FRAMES + 70), (GIANT_FRAMES - 3, 2)),
        ((GIANT_FRAMES - 70, GIANT_FRAMES + 70), (GIANT_FRAMES, GIANT_FRAMES)),
    ];
    for (all, part) in cases {
        AGAIN.set(part);
        let (mut told, mut at) = ([0, 0], 0);
        loop {
            at += 1 + at * all.1 / 2_000_000;
            let pool = pool_by(Setup::new(1), 0, all.0 + all.1 + BLOCK_FRAMES);
            let tree = pool.tree().expect("a tree");
            // What lies beside it stays in use: a merge would hide who was first.
            let request = Request::new(all.1 + 2).at(FrameNumber::new(all.0 - 1));
            let _ = tree.alloc_run(&request).expect("a run").into_numbers();
            let (taken, before) = (run(all), tree.free_frames());
            MADE.with(|made| made.iter().for_each(|made| made.set(0)));
            PLAN.set(Some(Plan { pool, at: [at, 0, 0], handlers: [free_again; DEEP] }));
            watch(Some(on_access));
            let freed = tree.free_run(taken);
            watch(None);
            PLAN.set(None);
            let Some(again) = ANSWER.take() else { break };
            let refused = [freed, again].map(Result::err);
            let ([None, Some(error)] | [Some(error), None]) = refused else {
                panic!("{all:?}, {part:?} at {at}: {refused:?}");
            };
            assert_eq!(error.frame.get(), part.0, "{all:?}, {part:?} at {at}");
            told[usize::from(refused[0].is_none())] += 1;
            tree.verify().unwrap_or_else(|broken| panic!("{all:?}, {part:?} at {at}: {broken}"));
            // Seen before anything was given, nothing is.
            let given = tree.free_frames() - before;
            assert!(given == all.1 || given == part.1, "{all:?}, {part:?} at {at}: {given}");
        }
        assert!(told.iter().all(|told| *told > 0), "{all:?}, {part:?}: {told:?}");
    }
}
