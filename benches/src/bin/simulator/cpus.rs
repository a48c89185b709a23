//! The virtual CPUs: coroutines that take turns by their own clocks.
//!
//! A CPU runs on while it touches lines that no other ever had. Before it touches any other, it waits
//! until it is the one whose clock is behind all others'; so accesses to shared lines happen in the
//! order of their times, each as a whole, as on a machine with strong ordering.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::panic::Location;
use std::ptr::NonNull;

use corosensei::stack::DefaultStack;
use corosensei::{Coroutine, CoroutineResult, Yielder};
use frametree::observed::{Access, watch};

use crate::coherence::{Caches, Hot, Machine};
use crate::contestants::Contestant;
use crate::support::{Dice, Threads};
use crate::workloads::{Hand, SHARE, Workload};

/// How far a CPU may run ahead with lines of its own, in picoseconds.
const AHEAD: u64 = 2_000_000;

/// What a simulation found.
pub struct Found {
    /// Pairs of an allocation and a free.
    pub pairs: u64,
    /// Nanoseconds that they took, of each CPU.
    pub time: f64,
    /// Lines that moved between CPUs.
    pub transfers: u64,
    pub hottest: Vec<Hot>,
}

/// The world that is simulated on this thread.
struct World {
    caches: Caches,
    clocks: Vec<u64>,
    waiting: BinaryHeap<Reverse<(u64, usize)>>,
    current: usize,
    yielder: WayOut,
    dice: Dice,
}

std::thread_local! {
    static WORLD: RefCell<Option<World>> = const { RefCell::new(None) };
}

fn with_world<R>(work: impl FnOnce(&mut World) -> R) -> R {
    WORLD.with_borrow_mut(|world| work(world.as_mut().expect("a world")))
}

/// What the door to atomics calls.
fn on_access(address: usize, access: Access, site: &'static Location<'static>) {
    let must_wait = with_world(|world| {
        access == Access::Pause || world.caches.is_shared(world.current, address)
    });
    if must_wait {
        wait_for_turn(0);
    }
    with_world(|world| {
        let cpu = world.current;
        let now = world.clocks[cpu];
        world.clocks[cpu] = world.caches.access(cpu, now, (address, access), site);
    });
}

/// Lets the others run until this CPU's clock is the last, or at most so far ahead of it.
fn wait_for_turn(ahead: u64) {
    let yielder = with_world(|world| {
        let now = world.clocks[world.current];
        let Reverse((next, _)) = *world.waiting.peek()?;
        if next + ahead >= now {
            return None;
        }
        world.waiting.push(Reverse((now, world.current)));
        world.yielder
    });
    if let Some(yielder) = yielder {
        // SAFETY: it is that of the coroutine that runs this.
        unsafe { yielder.as_ref() }.suspend(());
    }
}

fn now() -> u64 {
    with_world(|world| world.clocks[world.current])
}

/// Runs a workload on so many CPUs, for so many nanoseconds of each.
pub fn simulate<C: Contestant>(
    machine: Machine,
    workload: Workload,
    cpus: usize,
    nanoseconds: u64,
    seed: u64,
) -> Found {
    let contestant = C::new(cpus as u64 * SHARE, cpus);
    let clocks = vec![0; cpus];
    let (caches, dice) = (Caches::new(machine), Dice::new(seed));
    let waiting = (0..cpus).map(|cpu| Reverse((0, cpu))).collect();
    let world = World { caches, clocks, waiting, current: 0, yielder: None, dice };
    WORLD.set(Some(world));
    watch(Some(on_access));

    let length = nanoseconds * 1000;
    let mut coroutines: Vec<_> = (0..cpus)
        .map(|cpu| {
            let body = move |yielder: &Yielder<(), ()>, (): ()| {
                let me = NonNull::from(yielder);
                with_world(|world| world.yielder = Some(me));
                let mut hand = Hand::new(workload, contestant, seed + cpu as u64);
                let mut pairs = 0;
                // Once to warm up; then all begin together.
                for _ in 0..2 {
                    pairs = 0;
                    let end = now() + length;
                    while now() < end {
                        pairs += hand.step(contestant);
                        // Chance: what a CPU does in between.
                        with_world(|world| {
                            let rest = world.dice.below(2000);
                            world.clocks[world.current] += rest;
                        });
                        wait_for_turn(AHEAD);
                    }
                    let time = now() - (end - length);
                    yielder.suspend(());
                    DONE.with_borrow_mut(|done| done[cpu] = (pairs, time));
                }
                pairs
            };
            Coroutine::with_stack(DefaultStack::new(256 << 10).expect("a stack"), body)
        })
        .collect();
    DONE.set(vec![(0, 0); cpus]);
    let yielders = RefCell::new(vec![None; cpus]);
    for round in 0..3 {
        run_all(&mut coroutines, &yielders);
        with_world(|world| {
            let start = world.clocks.iter().copied().max().unwrap_or(0);
            if round == 0 {
                world.caches.reset();
            }
            world.clocks.fill(start);
            world.waiting = (0..cpus).map(|cpu| Reverse((start, cpu))).collect();
        });
    }
    watch(None);
    let done = DONE.take();
    let pairs = done.iter().map(|(pairs, _)| pairs).sum();
    let time = done.iter().map(|(_, time)| *time as f64 / 1000.0).sum::<f64>() / cpus as f64;
    with_world(|world| Found {
        pairs,
        time,
        transfers: world.caches.transfers,
        hottest: world.caches.hottest(3),
    })
}

std::thread_local! {
    /// Pairs and time of each CPU.
    static DONE: RefCell<Vec<(u64, u64)>> = const { RefCell::new(Vec::new()) };
}

type Cpu = Coroutine<(), (), u64>;

/// The way out of a coroutine, once it runs.
type WayOut = Option<NonNull<Yielder<(), ()>>>;

/// Runs the CPUs until each has stopped for the others' sake alone, or has ended.
fn run_all(coroutines: &mut [Cpu], yielders: &RefCell<Vec<WayOut>>) {
    while let Some(cpu) = with_world(|world| {
        let Reverse((_, cpu)) = world.waiting.pop()?;
        world.current = cpu;
        world.yielder = yielders.borrow()[cpu];
        Some(cpu)
    }) {
        Threads::become_cpu(cpu);
        if coroutines[cpu].done() {
            continue;
        }
        let result = coroutines[cpu].resume(());
        yielders.borrow_mut()[cpu] = with_world(|world| world.yielder);
        // One that has put itself into the queue goes on; one that has not is at the end of a round.
        debug_assert!(matches!(result, CoroutineResult::Yield(()) | CoroutineResult::Return(_)));
    }
}
