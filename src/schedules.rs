//! Random schedules of two or three CPUs on the real thing: each is a thread, one goes on at a time,
//! and at each access to a shared word it may stop there while another goes on, or be interrupted,
//! or be asked to drain. Who goes on and what all do follows from a seed, so a schedule that fails
//! can be played again: the seed is printed.
//!
//! Three shapes, with few frames free:
//!
//! - CPU 0 takes frames, the others free and drain. So it is known what was free when it asked, and
//!   "out of memory" must be true, to the frame.
//! - The same with a reserve, near its edge: what lies above it must be had.
//! - All do everything: frames, runs, blocks, isolations; drains come late. That takes longest, so
//!   there are fewest of these.
//!
//! In all of them nothing is handed out twice, no free of an own frame is refused, and when all has
//! been given back the tree is as at first. `SCHEDULES=7` plays one seed, `SCHEDULES=0..20000` many,
//! each of which leaves its pool behind. All accesses are in the order of the program: orderings are
//! for the models.

extern crate std;

use core::cell::Cell;
use core::ops::Range;
use core::panic::Location;
use std::boxed::Box;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::vec;
use std::vec::Vec;

use crate::counts::pool_of;
use crate::cpu::Cpus;
use crate::error::AllocError;
use crate::frame::{CpuId, FrameNumber, NumberRange};
use crate::geometry::BLOCK_FRAMES;
use crate::nesting::{frame, isolate_once, run};
use crate::pool::{FramePool, Setup};
use crate::request::Request;
use crate::sync::watching::{Access, watch};
use crate::tree::FreeCount;

/// What the ordinary test plays.
const SEEDS: Range<u64> = 0..200;
/// Blocks and crumbs.
const FRAMES: u64 = 3 * BLOCK_FRAMES + 100;
/// CPUs at most.
const CPUS: usize = 3;
/// Interrupts in each other at most.
const DEEP: usize = 2;
/// Who has waited that often may give up: somebody stood still inside a step.
const PATIENCE: u64 = 15_000;

/// Each thread is the CPU that it says.
#[derive(Debug)]
struct ByThread;

// SAFETY: no two threads at work say the same.
unsafe impl Cpus for ByThread {
    fn with_current<R>(&self, work: impl FnOnce(CpuId) -> R) -> R {
        work(CpuId::new(CPU.get()))
    }

    /// An interrupt that comes some time later, and that is waited for where its effect is looked at.
    fn request_drain(&self, cpu: CpuId) {
        let Some(world) = WORLD.get() else { return };
        world.books().is_asked[cpu.get()] = true;
        while world.shape != Shape::All && world.books().is_asked[cpu.get()] {
            world.pass();
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Shape {
    /// One takes, the others free, with so much in reserve.
    OneTakes {
        reserve: u64,
    },
    All,
}

/// One schedule.
struct World {
    pool: &'static FramePool<ByThread>,
    first: FreeCount,
    shape: Shape,
    cpus: usize,
    /// One access of so many is interrupted.
    interrupts: u64,
    books: Mutex<Books>,
    comes: [Condvar; CPUS],
}

/// What is so just now.
struct Books {
    dice: u64,
    /// Whose turn it is; nobody's when it is over.
    turn: Option<usize>,
    /// Accesses that it has before another CPU goes on.
    left: u64,
    /// CPUs that have not done all yet.
    at_work: usize,
    is_asked: [bool; CPUS],
    /// What is held, by anybody, as (first frame, frames); and the same frame by frame.
    hands: Vec<(u64, u64)>,
    is_held: Vec<bool>,
    /// Frames that are held, or on their way back; on its way one may already be held again.
    in_use: u64,
    /// How often there was nothing: that takes many looks.
    refused: u64,
}

std::thread_local! {
    static WORLD: Cell<Option<&'static World>> = const { Cell::new(None) };
    static CPU: Cell<usize> = const { Cell::new(0) };
    /// How many interrupts are in the middle of something.
    static LEVEL: Cell<usize> = const { Cell::new(0) };
    static PAUSES: Cell<u64> = const { Cell::new(0) };
}

fn on_access(_: usize, access: Access, _: &'static Location<'static>) {
    let Some(world) = WORLD.get().filter(|_| !std::thread::panicking()) else { return };
    let is_pause = access == Access::Pause;
    PAUSES.set(PAUSES.get() + u64::from(is_pause));
    if world.is_to_pass() {
        world.pass();
    }
    let level = LEVEL.get();
    if is_pause || level == DEEP {
        return;
    }
    LEVEL.set(level + 1);
    if world.dice(4) == 0 {
        world.answer();
    } else if world.dice(world.interrupts) == 0 {
        world.operate();
    }
    LEVEL.set(level);
}

impl Books {
    fn dice(&mut self, sides: u64) -> u64 {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        (self.dice.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) % sides
    }

    fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.dice(all.len() as u64) as usize]
    }
}

impl World {
    fn new(seed: u64) -> &'static Self {
        let mut books = Books {
            dice: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            turn: Some(0),
            left: 1,
            at_work: 0,
            is_asked: [false; CPUS],
            hands: Vec::new(),
            is_held: vec![false; FRAMES as usize],
            in_use: 0,
            refused: 0,
        };
        (0..8).for_each(|_| _ = books.dice(2));
        let cpus = 2 + books.dice(2) as usize;
        let shape = match seed % 8 {
            0..3 => Shape::OneTakes { reserve: 0 },
            3..7 => Shape::OneTakes { reserve: 1 + books.dice(50) },
            _ => Shape::All,
        };
        let setup = match shape {
            Shape::OneTakes { reserve } => Setup::new(cpus).reserve(reserve),
            Shape::All => books.one_of(&[
                Setup::new(cpus),
                Setup::new(cpus).watermarks(50, 100, |_| ()),
                Setup::new(cpus).reserve(20),
            ]),
        };
        let pool = pool_of(ByThread, (setup, cpus), FRAMES);
        isolate_once(pool);
        let world = Box::leak(Box::new(Self {
            pool,
            first: pool.tree().expect("a tree").count_free(),
            shape,
            cpus,
            interrupts: books.one_of(&[50, 200, 1000, u64::MAX]),
            comes: [const { Condvar::new() }; CPUS],
            books: Mutex::new(books),
        }));
        world.use_most();
        world
    }

    /// All is taken; some of it comes back, to any CPU.
    fn use_most(&self) {
        if self.shape == Shape::All && self.dice(2) == 0 {
            return;
        }
        while let Ok(frame) = self.pool.alloc() {
            self.got(frame.into_number(), 1);
        }
        let holes = self.books().one_of(&[0, 1, 3, 10, 30]);
        for _ in 0..holes {
            CPU.set(self.dice(self.cpus as u64) as usize);
            self.give();
        }
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().expect("nobody fails with them in his hands")
    }

    fn dice(&self, sides: u64) -> u64 {
        self.books().dice(sides)
    }

    /// One access more; whether another CPU is to go on.
    fn is_to_pass(&self) -> bool {
        let mut books = self.books();
        books.left = books.left.saturating_sub(1);
        books.left == 0
    }

    /// Another CPU goes on, for a moment or for long, until it is this one's turn again.
    fn pass(&self) {
        let mut books = self.books();
        if books.turn.is_some() {
            let most = 1 << books.dice(8);
            books.left = 1 + books.dice(most);
            let ahead = 1 + books.dice(self.cpus as u64 - 1) as usize;
            let next = (CPU.get() + ahead) % self.cpus;
            books.turn = Some(next);
            self.comes[next].notify_one();
        }
        self.wait(books);
    }

    fn wait(&self, mut books: MutexGuard<'_, Books>) {
        let me = CPU.get();
        while books.turn.is_some_and(|turn| turn != me) {
            books = self.comes[me].wait(books).expect("nobody fails with them in his hands");
        }
        let is_over = books.turn.is_none() && books.at_work > 0;
        drop(books);
        assert!(!is_over, "another CPU has failed");
    }

    /// What this CPU does, until all have done all.
    fn work(&'static self, cpu: usize, operations: u64) {
        let _last = Over(self);
        WORLD.set(Some(self));
        CPU.set(cpu);
        self.wait(self.books());
        watch(Some(on_access));
        for _ in 0..operations {
            self.operate();
            self.answer();
        }
        self.books().at_work -= 1;
        while self.books().at_work > 0 {
            self.answer();
            self.pass();
        }
        watch(None);
    }

    /// Drains, if that was asked for.
    fn answer(&self) {
        if self.books().is_asked[CPU.get()] {
            self.pool.drain().expect("no double free");
            self.books().is_asked[CPU.get()] = false;
        }
    }

    fn operate(&self) {
        let is_taker = CPU.get() == 0 && LEVEL.get() == 0;
        let what = if self.books().refused < 4 { 100 } else { 45 };
        let what = self.dice(what);
        match (self.shape, what) {
            (Shape::OneTakes { reserve }, _) if is_taker => self.take_all_there_is(reserve),
            (Shape::OneTakes { .. }, 0..60) | (_, 0..35) => self.give(),
            (Shape::OneTakes { .. }, _) | (_, 35..45) => {
                self.pool.drain().expect("no double free");
            }
            (_, 45..65) => self.take(1, || Some(self.pool.alloc().ok()?.into_number())),
            (_, 65..70) => self.take(1, || {
                let tree = self.pool.tree().expect("a tree");
                Some(tree.alloc().ok()?.into_number())
            }),
            (_, 70..75) => {
                self.take(1, || Some(self.pool.alloc_zeroed(|_| ()).ok()?.into_number()));
            }
            (_, 75..80) => {
                let mut list = [const { None }; 70];
                self.pool.alloc_bulk(&mut list);
                list.into_iter().flatten().for_each(|frame| self.got(frame.into_number(), 1));
            }
            (_, 80..87) => {
                let count = 1 + self.dice(90);
                let taken = || self.pool.alloc_run(&Request::new(count)).ok();
                self.take(count, || Some(taken()?.into_numbers().start()));
            }
            (_, 87..94) => {
                let taken = || self.pool.alloc_block().ok();
                self.take(BLOCK_FRAMES, || Some(taken()?.into_number()));
            }
            _ => self.isolate(),
        }
    }

    /// The only one that takes takes a frame: it is known what there is.
    fn take_all_there_is(&self, reserve: u64) {
        let free = self.first.frames.saturating_sub(self.books().in_use);
        PAUSES.set(0);
        match self.pool.alloc() {
            Ok(frame) => self.got(frame.into_number(), 1),
            Err(AllocError::OutOfMemory { .. } | AllocError::Reserved { .. })
                if free <= reserve || PAUSES.get() > PATIENCE => {}
            Err(error) => panic!("{free} are free, {reserve} of them in reserve: {error:?}"),
        }
    }

    fn take(&self, count: u64, taken: impl FnOnce() -> Option<FrameNumber>) {
        match taken() {
            Some(first) => self.got(first, count),
            None => self.books().refused += 1,
        }
    }

    fn got(&self, first: FrameNumber, count: u64) {
        let mut books = self.books();
        let first = first.get();
        let held = &mut books.is_held[first as usize..][..count as usize];
        let is_other = held.contains(&true);
        held.fill(true);
        books.in_use += count;
        books.hands.push((first, count));
        drop(books);
        assert!(!is_other, "{first} and {} more were handed out twice", count - 1);
    }

    /// Frees some, mostly what was taken last, or its neighbour.
    fn give(&self) {
        let mut books = self.books();
        let ways = books.dice(8);
        let most = books.hands.len() as u64;
        if most == 0 {
            return;
        }
        let at = if books.dice(4) > 0 { most - 1 } else { books.dice(most) };
        let (first, count) = books.hands.swap_remove(at as usize);
        books.is_held[first as usize..][..count as usize].fill(false);
        drop(books);
        let freed = match (count, ways) {
            // SAFETY: no memory is behind it.
            (1, 0) => unsafe { self.pool.free_zeroed(frame(first)) },
            (1, 1) => self.pool.tree().expect("a tree").free(frame(first)),
            (1, 2..) => self.pool.free(frame(first)),
            (BLOCK_FRAMES, 4..) => self.pool.free_block(frame(first)),
            _ => self.pool.free_run(run((first, count))),
        };
        freed.expect("its own frames");
        self.books().in_use -= count;
    }

    fn isolate(&self) {
        let first = self.dice(FRAMES);
        let end = FRAMES.min(first + 1 + self.dice(BLOCK_FRAMES * 3 / 2));
        let range = NumberRange::from_numbers(first, end);
        // SAFETY: it has its metadata already; see `isolate_once`.
        let Ok(isolation) = (unsafe { self.pool.isolate(range, |_| unreachable!()) }) else {
            return;
        };
        (0..self.dice(4)).for_each(|_| self.operate());
        self.pool.readmit(isolation);
    }

    /// All is given back, to any CPU, and the tree is as at first.
    fn ends_well(&self) {
        self.pool.verify().unwrap_or_else(|broken| panic!("in use: {broken}"));
        while !self.books().hands.is_empty() {
            CPU.set(self.dice(self.cpus as u64) as usize);
            self.give();
        }
        for cpu in 0..self.cpus {
            CPU.set(cpu);
            self.pool.drain().expect("no double free");
        }
        self.pool.verify().unwrap_or_else(|broken| panic!("{broken}"));
        assert_eq!(self.pool.tree().expect("a tree").count_free(), self.first);
        assert_eq!(self.pool.stats().late_double_frees, 0);
    }
}

/// Dropped by the first who has ended or failed: all others end too, or fail.
struct Over(&'static World);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.books().turn = None;
        self.0.comes.iter().for_each(Condvar::notify_all);
    }
}

fn play(seed: u64) {
    let world = World::new(seed);
    let operations = 5 + world.dice(60);
    world.books().at_work = world.cpus;
    std::thread::scope(|scope| {
        (0..world.cpus).for_each(|cpu| _ = scope.spawn(move || world.work(cpu, operations)));
    });
    world.ends_well();
}

#[test]
fn nothing_is_lost_or_doubled_and_out_of_memory_is_true() {
    let asked = std::env::var("SCHEDULES").ok();
    let seeds = asked.map_or(SEEDS, |asked| {
        let number = |text: &str| text.parse().expect("SCHEDULES=seed or SCHEDULES=from..to");
        let one = || number(&asked)..number(&asked) + 1;
        asked.split_once("..").map_or_else(one, |(from, to)| number(from)..number(to))
    });
    for seed in seeds {
        let played = std::thread::spawn(move || play(seed)).join();
        assert!(
            played.is_ok(),
            "played again by `SCHEDULES={seed} cargo test --all-features --lib schedules`"
        );
    }
}
