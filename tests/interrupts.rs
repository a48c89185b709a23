//! Interrupts and NMIs that use the allocator inside an operation of the same CPU. A thread of
//! the host is the CPU, a signal handler on it the interrupt: as in a kernel, the handler ends
//! before the interrupted code goes on.
//!
//! Once by a storm of signals from outside, at random places and nested twice; and once by the
//! processor's single-step flag, which puts a handler between any two instructions of an
//! operation. Every frame is accounted for, and the tree must be as at first afterwards.
#![cfg(all(not(loom), target_os = "linux"))]

mod support;

use std::cell::Cell;
use std::ptr::null_mut;
use std::sync::Once;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use frametree::{CpuId, Drained, Frame, FramePool, FreeCount, FreeError};
use support::{BLOCK, Crew, Dice, Owners, Threads, WrongOwner, frame, pool};

const INTERRUPT: libc::c_int = libc::SIGUSR1;
const NMI: libc::c_int = libc::SIGUSR2;
const STEP: libc::c_int = libc::SIGTRAP;

/// How many frames a handler holds at most.
const HOLDS: usize = 48;

type Pool = &'static FramePool<Threads>;

/// What went wrong in a handler, which must not panic.
#[derive(Clone, Copy, Debug)]
#[allow(dead_code, reason = "read by `Debug` only")]
enum Fault {
    Owner(WrongOwner),
    Free(FreeError),
    /// A frame that was handed out as zeroed.
    Dirty(u64),
}

impl From<WrongOwner> for Fault {
    fn from(wrong: WrongOwner) -> Self {
        Self::Owner(wrong)
    }
}

impl From<FreeError> for Fault {
    fn from(error: FreeError) -> Self {
        Self::Free(error)
    }
}

/// A handler's own memory. There is one for each level, since the levels interrupt each other.
struct Level {
    held: [Cell<u64>; HOLDS],
    count: Cell<usize>,
    /// A 2 MiB block.
    block: Cell<Option<u64>>,
    dice: Cell<u64>,
    hits: Cell<u64>,
    fault: Cell<Option<Fault>>,
}

impl Level {
    const fn new() -> Self {
        Self {
            held: [const { Cell::new(0) }; HOLDS],
            count: Cell::new(0),
            block: Cell::new(None),
            dice: Cell::new(1),
            hits: Cell::new(0),
            fault: Cell::new(None),
        }
    }

    /// What the handler does: takes or frees some of everything.
    fn hit(&self, pool: Pool, owners: &Owners, who: u8) -> Result<(), Fault> {
        self.hits.set(self.hits.get() + 1);
        let mut dice = Dice::new(self.dice.get());
        self.dice.set(dice.below(u64::from(u32::MAX)) << 20 | self.hits.get());
        match dice.below(16) {
            0..7 => self.alloc(pool, owners, who),
            7..12 => self.free(pool, owners, who),
            12 => {
                self.alloc(pool, owners, who)?;
                self.free(pool, owners, who)
            }
            13 => pool.drain().map(drop).map_err(Fault::from),
            _ => match self.block.take() {
                Some(first) => {
                    owners.pass(who, 0, first, BLOCK)?;
                    pool.free_block(frame(first)).map_err(Fault::from)
                }
                None => {
                    let Ok(block) = pool.alloc_block() else { return Ok(()) };
                    let first = block.into_number().get();
                    self.block.set(Some(first));
                    owners.pass(0, who, first, BLOCK).map_err(Fault::from)
                }
            },
        }
    }

    fn alloc(&self, pool: Pool, owners: &Owners, who: u8) -> Result<(), Fault> {
        let count = self.count.get();
        if count == HOLDS {
            return self.free(pool, owners, who);
        }
        // Zeroed ones by turns.
        let is_zeroed = self.hits.get().is_multiple_of(2);
        let taken = if is_zeroed {
            pool.alloc_zeroed(|frame| owners.clear(frame.number().get()))
        } else {
            pool.alloc()
        };
        // It may well find nothing: what the interrupted code moves is out of sight.
        let Ok(taken) = taken else { return Ok(()) };
        let number = taken.into_number().get();
        if is_zeroed && !owners.is_clear(number) {
            return Err(Fault::Dirty(number));
        }
        self.held[count].set(number);
        self.count.set(count + 1);
        owners.pass(0, who, number, 1).map_err(Fault::from)
    }

    fn free(&self, pool: Pool, owners: &Owners, who: u8) -> Result<(), Fault> {
        let Some(last) = self.count.get().checked_sub(1) else { return Ok(()) };
        // Oldest and newest by turns.
        let at = if self.hits.get().is_multiple_of(2) { 0 } else { last };
        let number = self.held[at].replace(self.held[last].get());
        self.count.set(last);
        if self.hits.get().is_multiple_of(3) {
            owners.clear(number);
            owners.pass(who, 0, number, 1)?;
            // SAFETY: it holds zeros, as far as there are contents.
            return unsafe { pool.free_zeroed(frame(number)) }.map_err(Fault::from);
        }
        owners.pass(who, 0, number, 1)?;
        pool.free(frame(number)).map_err(Fault::from)
    }

    /// Gives everything back, after the last hit.
    fn end(&self, pool: Pool, owners: &Owners, who: u8) -> u64 {
        assert!(self.fault.get().is_none(), "in a handler: {:?}", self.fault.get());
        while self.count.get() > 0 {
            self.free(pool, owners, who).expect("a free");
        }
        if let Some(first) = self.block.take() {
            owners.give(usize::from(who), first, BLOCK);
            pool.free_block(frame(first)).expect("a free");
        }
        self.hits.replace(0)
    }
}

/// What the handlers on this CPU work on. Plain data without a destructor, so that a handler
/// may use it at any moment.
struct Context {
    work: Cell<Option<(Pool, &'static Owners)>>,
    cpu: Cell<u8>,
    /// For interrupts (also single steps) and for NMIs.
    levels: [Level; 2],
    plan: Cell<Plan>,
    steps: Cell<u64>,
    /// What the last [`Act::Drain`] said.
    drained: Cell<Option<Drained>>,
}

/// At which instructions the single-step handler acts.
#[derive(Clone, Copy, Debug)]
struct Plan {
    first: u64,
    every: u64,
    act: Act,
}

/// What it does there.
#[derive(Clone, Copy, Debug)]
enum Act {
    /// Some of everything.
    Mix,
    /// What the handler of another CPU's request does.
    Drain,
}

impl Plan {
    /// For `every`: not after the first time.
    const NEVER: u64 = u64::MAX;
}

std::thread_local! {
    static CONTEXT: Context = const {
        Context {
            work: Cell::new(None),
            cpu: Cell::new(0),
            levels: [Level::new(), Level::new()],
            plan: Cell::new(Plan { first: 0, every: 1, act: Act::Mix }),
            steps: Cell::new(0),
            drained: Cell::new(None),
        }
    };
}

impl Context {
    fn who(&self, level: usize) -> u8 {
        100 + self.cpu.get() * 2 + level as u8
    }

    fn hit(&self, index: usize) {
        let Some((pool, owners)) = self.work.get() else { return };
        let level = &self.levels[index];
        if level.fault.get().is_none() {
            level.fault.set(level.hit(pool, owners, self.who(index)).err());
        }
    }

    /// From now on handlers on this thread use the pool as CPU `cpu`.
    fn arm(&self, cpu: usize, pool: Pool, owners: &'static Owners, seed: u64) {
        Threads::become_cpu(cpu);
        self.cpu.set(cpu as u8);
        self.levels.iter().for_each(|level| level.dice.set(seed));
        self.work.set(Some((pool, owners)));
    }

    /// No more hits; gives back what the handlers hold, and says how often they were there.
    fn disarm(&self) -> u64 {
        let Some((pool, owners)) = self.work.take() else { return 0 };
        (0..2).map(|level| self.levels[level].end(pool, owners, self.who(level))).sum()
    }

    /// One instruction of a stepped operation is done. Whether more are to be stepped.
    fn step(&self) -> bool {
        let step = self.steps.get();
        self.steps.set(step + 1);
        let Plan { first, every, act } = self.plan.get();
        if step >= first && (step - first).is_multiple_of(every) {
            match (act, self.work.get()) {
                (Act::Drain, Some((pool, _))) => self.drained.set(pool.drain().ok()),
                _ => self.hit(0),
            }
        }
        step < first || every != Plan::NEVER
    }
}

extern "C" fn on_signal(
    signal: libc::c_int,
    _: *const libc::siginfo_t,
    interrupted: *mut libc::ucontext_t,
) {
    CONTEXT.with(|context| match signal {
        INTERRUPT => context.hit(0),
        NMI => context.hit(1),
        _ => {
            if !context.step() {
                stop_stepping(interrupted);
            }
        }
    });
}

/// Clears the single-step flag of the interrupted code.
#[cfg(target_arch = "x86_64")]
fn stop_stepping(interrupted: *mut libc::ucontext_t) {
    // SAFETY: the kernel gave this context to the handler, which is its only user.
    unsafe { (*interrupted).uc_mcontext.gregs[libc::REG_EFL as usize] &= !0x100 };
}

#[cfg(not(target_arch = "x86_64"))]
fn stop_stepping(_: *mut libc::ucontext_t) {}

/// Installs the handlers; an interrupt may be interrupted by an NMI, and an NMI by nothing.
fn install() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        for (signal, masked) in [(INTERRUPT, None), (NMI, Some(INTERRUPT)), (STEP, None)] {
            // SAFETY: an all-zero `sigaction` is a valid one, filled in below; the handler has
            // the signature that goes with these flags and does nothing but plain accesses and
            // the operations under test.
            unsafe {
                let mut action: libc::sigaction = std::mem::zeroed();
                action.sa_sigaction = on_signal as *const () as usize;
                action.sa_flags = libc::SA_RESTART | libc::SA_SIGINFO;
                libc::sigemptyset(&raw mut action.sa_mask);
                if let Some(masked) = masked {
                    libc::sigaddset(&raw mut action.sa_mask, masked);
                }
                assert_eq!(libc::sigaction(signal, &raw const action, null_mut()), 0);
            }
        }
    });
}

/// A pool, its table of owners, and what was free at first.
struct Stage {
    pool: Pool,
    owners: &'static Owners,
    cpus: usize,
    first: FreeCount,
}

impl Stage {
    fn new(cpus: usize, frames: &[(u64, u64)]) -> Self {
        install();
        let pool = pool(Threads, cpus, frames);
        let end = frames.iter().map(|(start, count)| start + count).max().expect("a region");
        let first = pool.tree().expect("a tree").count_free();
        Self { pool, owners: Box::leak(Box::new(Owners::new(end))), cpus, first }
    }

    fn alloc(&self, cpu: usize) -> Option<u64> {
        let number = self.pool.alloc().ok()?.into_number().get();
        self.owners.take(cpu + 1, number, 1);
        Some(number)
    }

    fn free(&self, cpu: usize, number: u64) {
        self.owners.give(cpu + 1, number, 1);
        self.pool.free(frame(number)).unwrap_or_else(|error| panic!("{error}"));
    }

    fn alloc_zeroed(&self, cpu: usize) -> Option<u64> {
        let taken = self.pool.alloc_zeroed(|frame| self.owners.clear(frame.number().get()));
        let number = taken.ok()?.into_number().get();
        assert!(self.owners.is_clear(number), "frame {number:#x} is dirty");
        self.owners.take(cpu + 1, number, 1);
        Some(number)
    }

    fn free_zeroed(&self, cpu: usize, number: u64) {
        self.owners.clear(number);
        self.owners.give(cpu + 1, number, 1);
        // SAFETY: it holds zeros, as far as there are contents.
        unsafe { self.pool.free_zeroed(frame(number)) }.unwrap_or_else(|error| panic!("{error}"));
    }

    /// Some of everything, as the interrupted code.
    fn churn(&self, cpu: usize, dice: &mut Dice, held: &mut Vec<u64>, blocks: &mut Vec<u64>) {
        match dice.below(12) {
            0..3 => held.extend((0..dice.below(70)).map_while(|_| self.alloc(cpu))),
            3..5 => held.extend((0..dice.below(70)).map_while(|_| self.alloc_zeroed(cpu))),
            what @ 5..9 => {
                dice.shuffle(held);
                let keep = held.len().saturating_sub(dice.below(70) as usize);
                held.drain(keep..).for_each(|number| match what {
                    5..7 => self.free(cpu, number),
                    _ => self.free_zeroed(cpu, number),
                });
            }
            9 => drop(self.pool.drain().expect("a drain")),
            10 => {
                if let Ok(block) = self.pool.alloc_block() {
                    let first = block.into_number().get();
                    self.owners.take(cpu + 1, first, BLOCK);
                    blocks.push(first);
                }
            }
            _ => {
                let Some(first) = blocks.pop() else { return };
                if dice.below(2) == 0 {
                    self.owners.give(cpu + 1, first, BLOCK);
                    self.pool.free_block(frame(first)).expect("a free");
                } else {
                    (first..first + BLOCK).for_each(|number| self.free(cpu, number));
                }
            }
        }
    }

    /// At rest: nothing owned, nothing lost, and all merged as it was at first.
    fn is_as_at_first(&self) {
        assert_eq!(self.owners.count(), 0);
        for cpu in 0..self.cpus {
            // SAFETY: the threads that were these CPUs have ended, or this one is it.
            unsafe { self.pool.drain_offline(CpuId::new(cpu)) }.expect("a drain");
        }
        self.pool.verify().unwrap_or_else(|broken| panic!("{broken}"));
        assert_eq!(self.pool.tree().expect("a tree").count_free(), self.first);
        let stats = self.pool.stats();
        assert_eq!((stats.cached_frames, stats.late_double_frees), (0, 0));
    }
}

/// Signals of two levels rain on all CPUs until handlers have come thousands of times at a
/// moment when the same CPU was inside the allocator.
#[test]
fn a_storm_of_interrupts_and_nmis_loses_nothing() {
    const CPUS: usize = 3;
    const NESTED: u64 = 1000;
    let stage = Stage::new(CPUS, &[(11, 24 * BLOCK + 300)]);
    let threads: [AtomicU64; CPUS] = [const { AtomicU64::new(0) }; CPUS];
    let done = AtomicUsize::new(0);
    let crew = Crew::new(CPUS + 1);
    let end = Instant::now() + Duration::from_secs(60);
    let hits = crew.run(|cpu| {
        if cpu == CPUS {
            crew.meet();
            while done.load(Ordering::Acquire) < CPUS {
                for (at, thread) in threads.iter().enumerate() {
                    let signal =
                        if at.is_multiple_of(2) { [INTERRUPT, NMI] } else { [NMI, INTERRUPT] };
                    for signal in signal {
                        // SAFETY: the thread lives until this one has met it again, below.
                        unsafe { libc::pthread_kill(thread.load(Ordering::Acquire), signal) };
                    }
                }
                crew.rest();
                std::thread::sleep(Duration::from_micros(20));
            }
            crew.meet();
            return 0;
        }
        // SAFETY: no condition.
        threads[cpu].store(unsafe { libc::pthread_self() }, Ordering::Release);
        let mut dice = Dice::new(cpu as u64);
        let (mut held, mut blocks) = (Vec::new(), Vec::new());
        CONTEXT.with(|context| context.arm(cpu, stage.pool, stage.owners, cpu as u64));
        crew.meet();
        while stage.pool.stats().nested < NESTED && Instant::now() < end {
            for _ in 0..40 {
                stage.churn(cpu, &mut dice, &mut held, &mut blocks);
            }
            crew.rest();
        }
        done.fetch_add(1, Ordering::AcqRel);
        crew.meet();
        let hits = CONTEXT.with(Context::disarm);
        held.into_iter().for_each(|number| stage.free(cpu, number));
        for first in blocks {
            stage.owners.give(cpu + 1, first, BLOCK);
            stage.pool.free_block(frame(first)).expect("a free");
        }
        hits
    });
    let nested = stage.pool.stats().nested;
    assert!(
        nested >= NESTED,
        "{nested} of {} hits came inside the allocator",
        hits.iter().sum::<u64>()
    );
    assert!(hits[..CPUS].iter().all(|hits| *hits > 0));
    stage.is_as_at_first();
}

/// An interrupt between any two instructions.
#[cfg(target_arch = "x86_64")]
mod stepping {
    use super::*;

    /// An operation and what it does to the frames that the CPU holds.
    #[derive(Clone, Copy, Debug)]
    enum Operation {
        /// From the cache, or by a refill and perhaps a split.
        Alloc,
        /// The newest frame: to the cache.
        FreeNewest,
        /// The frame in the middle: the free side is flushed and opened elsewhere.
        FreeMiddle,
        /// As `Alloc`.
        AllocZeroed,
        /// As `FreeNewest`, and as `FreeMiddle`, of a frame of zeros.
        FreeNewestZeroed,
        FreeMiddleZeroed,
        /// More than the cache holds.
        AllocBulk,
        /// What `AllocBulk` took.
        FreeBulk,
        AllocBlock,
        FreeBlock,
        Drain,
    }

    /// Runs `work` with a [`STEP`] after each of its instructions; returns how many there were.
    fn stepped<R>(plan: Plan, work: impl FnOnce() -> R) -> (u64, R) {
        CONTEXT.with(|context| {
            context.plan.set(plan);
            context.steps.set(0);
        });
        // SAFETY: sets the trap flag: the kernel sends a signal after each instruction from here
        // on, and its handler is installed. The stack is as before.
        unsafe { std::arch::asm!("pushfq", "or qword ptr [rsp], 0x100", "popfq") };
        let result = work();
        // SAFETY: clears the flag; the stack is as before.
        unsafe { std::arch::asm!("pushfq", "and qword ptr [rsp], -0x101", "popfq") };
        (CONTEXT.with(|context| context.steps.get()), result)
    }

    /// A CPU that runs operations one by one, each stepped by the same plan.
    struct Stepper<'s> {
        stage: &'s Stage,
        plan: Plan,
        held: Vec<u64>,
        blocks: Vec<u64>,
        list: [Option<Frame>; 70],
        steps: u64,
    }

    impl Stepper<'_> {
        fn run(&mut self, operation: Operation) -> u64 {
            let Stage { pool, owners, .. } = *self.stage;
            let count = match operation {
                Operation::Alloc => {
                    let (count, taken) = stepped(self.plan, || pool.alloc());
                    let number = taken.expect("a frame").into_number().get();
                    owners.take(1, number, 1);
                    self.held.push(number);
                    count
                }
                Operation::AllocZeroed => {
                    let (count, number) = stepped(self.plan, || self.stage.alloc_zeroed(0));
                    self.held.extend(number);
                    count
                }
                Operation::FreeNewestZeroed | Operation::FreeMiddleZeroed => {
                    let middle = self.held.len() / 2;
                    let number = match operation {
                        Operation::FreeMiddleZeroed => self.held.remove(middle),
                        _ => self.held.pop().expect("a frame"),
                    };
                    stepped(self.plan, || self.stage.free_zeroed(0, number)).0
                }
                Operation::AllocBulk => {
                    let list = &mut self.list;
                    let (count, filled) = stepped(self.plan, || pool.alloc_bulk(list));
                    assert!(filled > 0);
                    for taken in list.iter().flatten() {
                        owners.take(1, taken.number().get(), 1);
                    }
                    count
                }
                Operation::FreeBulk => {
                    let list = &mut self.list;
                    for taken in list.iter().flatten() {
                        owners.give(1, taken.number().get(), 1);
                    }
                    let (count, result) = stepped(self.plan, || pool.free_bulk(list));
                    result.expect("a free");
                    count
                }
                Operation::FreeNewest | Operation::FreeMiddle => {
                    let middle = self.held.len() / 2;
                    let number = match operation {
                        Operation::FreeMiddle => self.held.remove(middle),
                        _ => self.held.pop().expect("a frame"),
                    };
                    owners.give(1, number, 1);
                    let (count, result) = stepped(self.plan, || pool.free(frame(number)));
                    result.expect("a free");
                    count
                }
                Operation::AllocBlock => {
                    let (count, taken) = stepped(self.plan, || pool.alloc_block());
                    let first = taken.expect("a block").into_number().get();
                    owners.take(1, first, BLOCK);
                    self.blocks.push(first);
                    count
                }
                Operation::FreeBlock => {
                    let first = self.blocks.pop().expect("a block");
                    owners.give(1, first, BLOCK);
                    let (count, result) = stepped(self.plan, || pool.free_block(frame(first)));
                    result.expect("a free");
                    count
                }
                Operation::Drain => {
                    let (count, result) = stepped(self.plan, || pool.drain());
                    result.expect("a drain");
                    count
                }
            };
            self.steps += count;
            count
        }

        /// Allocations without a step, so that the next one has to refill.
        fn use_up_the_cache(&mut self) {
            while self.stage.pool.stats().cached_frames > 0 {
                self.held.extend(self.stage.alloc(0));
            }
        }
    }

    /// Every kind of operation once, at each of the places where its work differs.
    fn play(stage: &Stage, plan: Plan) -> (u64, u64) {
        CONTEXT.with(|context| context.arm(0, stage.pool, stage.owners, plan.first));
        let (held, blocks) = (Vec::new(), Vec::new());
        let mut cpu = Stepper { stage, plan, held, blocks, list: [const { None }; 70], steps: 0 };
        cpu.held.extend((0..200).filter_map(|_| stage.alloc(0)));
        stage.pool.drain().expect("a drain");
        // A split, then the cache, then a refill from the same block.
        cpu.run(Operation::Alloc);
        cpu.run(Operation::Alloc);
        cpu.use_up_the_cache();
        cpu.run(Operation::Alloc);
        cpu.run(Operation::AllocBlock);
        // Frees into both sides, with a flush.
        cpu.run(Operation::FreeNewest);
        cpu.run(Operation::FreeMiddle);
        cpu.run(Operation::FreeNewest);
        cpu.run(Operation::FreeBlock);
        // Zeroed ones: into both sides, and out of them.
        cpu.run(Operation::FreeNewestZeroed);
        cpu.run(Operation::AllocZeroed);
        cpu.run(Operation::FreeMiddleZeroed);
        cpu.run(Operation::FreeNewestZeroed);
        cpu.run(Operation::AllocZeroed);
        cpu.run(Operation::AllocBulk);
        cpu.run(Operation::FreeBulk);
        cpu.run(Operation::Drain);
        cpu.run(Operation::AllocZeroed);
        cpu.run(Operation::Drain);
        // All but one frame back, unstepped; the last one and the drain merge.
        let rest = cpu.held.split_off(1);
        rest.into_iter().for_each(|number| stage.free(0, number));
        stage.pool.drain().expect("a drain");
        cpu.run(Operation::FreeNewest);
        cpu.run(Operation::Drain);
        let steps = cpu.steps;
        (steps, CONTEXT.with(Context::disarm))
    }

    const FRAMES: &[(u64, u64)] = &[(0, 6 * BLOCK + 70)];

    #[test]
    fn an_interrupt_at_every_instruction_loses_nothing() {
        let stage = Stage::new(1, FRAMES);
        let (steps, hits) = play(&stage, Plan { first: 0, every: 1, act: Act::Mix });
        assert_eq!(hits, steps, "one hit for each instruction");
        assert!(steps > 1000, "{steps} instructions were stepped");
        let nested = stage.pool.stats().nested;
        assert!(nested > hits / 4, "{nested} of {hits} hits came inside the allocator");
        stage.is_as_at_first();
    }

    #[test]
    fn an_interrupt_at_some_instructions_loses_nothing() {
        let stage = Stage::new(1, FRAMES);
        let mut nested = 0;
        for (first, every) in [(0, 3), (1, 17)] {
            play(&stage, Plan { first, every, act: Act::Mix });
            stage.is_as_at_first();
            let now = stage.pool.stats().nested;
            assert!(now > nested, "no hit of every {every} came inside the allocator");
            nested = now;
        }
        // One interrupt in each operation, later and later.
        for first in (0..2000).step_by(211) {
            play(&stage, Plan { first, every: Plan::NEVER, act: Act::Mix });
            stage.is_as_at_first();
        }
    }

    /// Without optimisation there are many more instructions, and each step is a signal.
    const STRIDE: usize = if cfg!(debug_assertions) { 29 } else { 1 };

    #[test]
    fn a_drain_inside_an_operation_is_served_at_its_end() {
        let stage = Stage::new(1, FRAMES);
        CONTEXT.with(|context| context.arm(0, stage.pool, stage.owners, 0));
        let (held, blocks) = (Vec::new(), Vec::new());
        let plan = Plan { first: 0, every: Plan::NEVER, act: Act::Drain };
        let mut cpu =
            Stepper { stage: &stage, plan, held, blocks, list: [const { None }; 70], steps: 0 };
        let operations =
            [Operation::Alloc, Operation::Alloc, Operation::FreeMiddle, Operation::FreeMiddle];
        let mut served = 0;
        cpu.held.extend((0..200).filter_map(|_| stage.alloc(0)));
        for first in (0..).step_by(STRIDE) {
            let mut came = false;
            // Or all of them could be short ones, from and to the cache.
            stage.pool.drain().expect("a drain");
            for operation in operations {
                CONTEXT.with(|context| context.drained.set(None));
                cpu.plan = Plan { first, ..plan };
                cpu.run(operation);
                let drained = CONTEXT.with(|context| context.drained.get());
                came |= drained.is_some();
                if drained == Some(Drained::AtEndOfUse) {
                    assert_eq!(stage.pool.stats().cached_frames, 0, "{operation:?}, {first}");
                    served += 1;
                }
            }
            if !came {
                break;
            }
        }
        assert!(served > 100, "{served} drains came inside an operation");
        CONTEXT.with(Context::disarm);
        cpu.held.into_iter().for_each(|number| stage.free(0, number));
        stage.is_as_at_first();
    }
}
