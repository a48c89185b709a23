//! A CPU that dies in the middle of an operation: at each access to a shared word of each
//! operation in turn, the same each time. A thread is the CPU, and stands still at that access; the
//! whole memory is in the state that a CPU would leave which stops there for ever.
//!
//! What must hold then: nobody waits, nothing is handed out twice, and all that is not to be had
//! any more is what the operation was moving and the frames in the dead CPU's cache: at most the
//! documented number. And if the CPU was not dead but slow (a hypervisor had taken it away), and
//! goes on when all others have done their work: it finds only frames that nobody has, and in the
//! end nothing is lost at all.

extern crate std;

use core::cell::{Cell, RefCell};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::vec;
use std::vec::Vec;

use crate::counts::pool_of;
use crate::cpu::Cpus;
use crate::frame::{CpuId, FrameNumber, NumberRange};
use crate::geometry::{BLOCK_FRAMES, FRAME_SIZE, GIANT_FRAMES, WORD_BITS};
use crate::nesting::{frame, run};
use crate::pool::{Drained, FramePool, Setup};
use crate::request::Request;
use crate::sync::watching::{Access, watch};

/// What a cache holds at most, beside a block that waits there.
const CACHED: u64 = 2 * WORD_BITS;
/// Blocks and crumbs.
const SMALL: u64 = 4 * BLOCK_FRAMES + 100;
/// A GiB, a block and crumbs.
const LARGE: u64 = GIANT_FRAMES + BLOCK_FRAMES + 100;
/// The one that dies, and the one that goes on.
const VICTIM: usize = 1;
const OTHER: usize = 0;

std::thread_local! {
    static CPU: Cell<usize> = const { Cell::new(OTHER) };
    /// Accesses until this CPU stops, and whom it tells and asks.
    static STOP: RefCell<Option<Stop>> = const { RefCell::new(None) };
}

struct Stop {
    left: u64,
    stopped: Sender<()>,
    go: Receiver<()>,
}

/// Each thread is the CPU that it says.
#[derive(Debug)]
struct ByThread;

// SAFETY: one thread is the victim, one the other CPU.
unsafe impl Cpus for ByThread {
    fn with_current<R>(&self, work: impl FnOnce(CpuId) -> R) -> R {
        work(CpuId::new(CPU.get()))
    }
}

type Pool = &'static FramePool<ByThread>;

/// Called at each access of a thread that is to stop.
fn on_access(_: usize, access: Access, _: &'static core::panic::Location<'static>) {
    if access == Access::Pause {
        return;
    }
    let stop = STOP.with_borrow_mut(|stop| {
        let at = stop.as_mut()?;
        at.left -= 1;
        if at.left == 0 { stop.take() } else { None }
    });
    if let Some(Stop { stopped, go, .. }) = stop {
        watch(None);
        stopped.send(()).expect("somebody waits for it");
        go.recv().expect("somebody lets it go on");
    }
}

/// What one CPU has.
#[derive(Clone, Default)]
struct Hands {
    runs: Vec<(u64, u64)>,
}

impl Hands {
    fn put(&mut self, first: FrameNumber, count: u64) {
        self.runs.push((first.get(), count));
    }

    /// How many frames lie below `end`.
    fn below(&self, end: u64) -> u64 {
        self.runs.iter().map(|&(first, count)| end.saturating_sub(first).min(count)).sum()
    }

    /// How many of these frames others have too.
    fn shared(&self, others: &Self) -> u64 {
        let both = |one: (u64, u64), other: (u64, u64)| {
            let end = (one.0 + one.1).min(other.0 + other.1);
            end.saturating_sub(one.0.max(other.0))
        };
        let theirs = |&one| others.runs.iter().map(|&other| both(one, other)).sum::<u64>();
        self.runs.iter().map(theirs).sum()
    }

    /// A frame that is here twice.
    fn twice(&self) -> Option<u64> {
        let mut runs = self.runs.clone();
        runs.sort_unstable();
        runs.windows(2).find(|pair| pair[0].0 + pair[0].1 > pair[1].0).map(|pair| pair[1].0)
    }

    /// Single frames, so many.
    fn fill(&mut self, pool: Pool, count: u64) {
        for _ in 0..count {
            let Ok(frame) = pool.alloc() else { return };
            self.put(frame.into_number(), 1);
        }
    }

    fn give_all(&mut self, pool: Pool) {
        for (first, count) in self.runs.drain(..) {
            pool.free_run(run((first, count))).expect("its own frames");
        }
    }
}

/// Metadata for who asks for some; never given back.
fn page(_: u64) -> *mut u8 {
    let memory: &'static mut [[u8; 4096]] = vec![[0xa5; 4096]; 2].leak();
    let start = memory.as_mut_ptr().cast::<u8>();
    start.wrapping_add(start.align_offset(4096))
}

/// An operation, and what it was prepared by.
struct Case {
    name: &'static str,
    frames: u64,
    setup: Setup,
    /// On the victim, before.
    prepare: fn(Pool, &mut Hands),
    /// Takes what it frees out of the hands, and puts what it got into them. It may get nothing,
    /// if others have taken all meanwhile.
    work: fn(Pool, &mut Hands),
    /// Frames that it moves, beside those in the cache.
    moves: u64,
    /// Frames that become metadata, unless there are none.
    metadata: u64,
}

const fn case(
    name: &'static str,
    frames: u64,
    moves: u64,
    prepare: fn(Pool, &mut Hands),
    work: fn(Pool, &mut Hands),
) -> Case {
    Case { name, frames, setup: Setup::new(2), prepare, work, moves, metadata: 0 }
}

fn nothing(_: Pool, _: &mut Hands) {}

fn some(pool: Pool, hands: &mut Hands) {
    hands.fill(pool, 200);
}

/// All of the memory but a crumb, frame by frame; so that a free merges.
fn one_of_a_whole_block(pool: Pool, hands: &mut Hands) {
    let block = pool.alloc_block().expect("a block").into_number().get();
    pool.free_run(run((block + 1, BLOCK_FRAMES - 1))).expect("most of it");
    hands.runs.push((block, 1));
}

fn one_block(pool: Pool, hands: &mut Hands) {
    let taken = pool.alloc_block();
    taken.into_iter().for_each(|block| hands.put(block.into_number(), BLOCK_FRAMES));
}

fn one_giant(pool: Pool, hands: &mut Hands) {
    let taken = pool.alloc_giant();
    taken.into_iter().for_each(|giant| hands.put(giant.into_number(), GIANT_FRAMES));
}

fn alloc(pool: Pool, hands: &mut Hands) {
    hands.fill(pool, 1);
}

fn free(pool: Pool, hands: &mut Hands) {
    let (first, count) = hands.runs.remove(0);
    pool.free_run(run((first, count))).expect("its own");
}

fn free_one(pool: Pool, hands: &mut Hands) {
    let (first, _) = hands.runs.remove(0);
    pool.free(frame(first)).expect("its own");
}

fn alloc_run<const COUNT: u64>(pool: Pool, hands: &mut Hands) {
    let taken = pool.alloc_run(&Request::new(COUNT).align(16 * FRAME_SIZE));
    taken.into_iter().for_each(|run| hands.put(run.into_numbers().start(), COUNT));
}

fn cases() -> Vec<Case> {
    const BLOCK: u64 = BLOCK_FRAMES;
    let mut cases = vec![
        case("the first frame", LARGE, GIANT_FRAMES, nothing, alloc),
        case("a frame, another GiB's", LARGE, GIANT_FRAMES, one_giant, alloc),
        case("a cached frame", SMALL, 1, some, alloc),
        case("a refill", SMALL, WORD_BITS, |pool, hands| hands.fill(pool, 64), alloc),
        case("another block", SMALL, BLOCK, |pool, hands| hands.fill(pool, 512), alloc),
        case("an urgent frame", SMALL, BLOCK, nothing, |pool, hands| {
            let taken = pool.alloc_urgent();
            taken.into_iter().for_each(|frame| hands.put(frame.into_number(), 1));
        }),
        case("many frames", SMALL, BLOCK + 70, nothing, |pool, hands| {
            let mut list = [const { None }; 70];
            pool.alloc_bulk(&mut list);
            list.into_iter().flatten().for_each(|frame| hands.put(frame.into_number(), 1));
        }),
        case("a zeroed frame", SMALL, BLOCK, nothing, |pool, hands| {
            let taken = pool.alloc_zeroed(|_| ());
            taken.into_iter().for_each(|frame| hands.put(frame.into_number(), 1));
        }),
        case("a free to the cache", SMALL, 1, some, |pool, hands| {
            let (last, _) = hands.runs.pop().expect("a frame");
            pool.free(frame(last)).expect("its own");
        }),
        case("a free and a flush", SMALL, CACHED, some, |pool, hands| {
            free_one(pool, hands);
            hands.runs.swap(0, 100);
            free_one(pool, hands);
        }),
        case("a zeroed free", SMALL, CACHED, some, |pool, hands| {
            let (first, _) = hands.runs.remove(0);
            // SAFETY: no memory is behind it.
            unsafe { pool.free_zeroed(frame(first)) }.expect("its own");
            pool.drain().expect("a drain");
        }),
        case("many frees", SMALL, CACHED + 64, some, |pool, hands| {
            let mut list: Vec<_> =
                hands.runs.drain(..150).map(|(first, _)| Some(frame(first))).collect();
            pool.free_bulk(&mut list).expect("its own");
        }),
        case("a drain", SMALL, CACHED, some, |pool, _| {
            pool.drain().expect("a drain");
        }),
        case("a merge", SMALL, BLOCK, one_of_a_whole_block, free),
        case("a merge of a GiB", LARGE, GIANT_FRAMES, one_of_a_whole_block, free),
        case("a block", SMALL, BLOCK, nothing, one_block),
        case("a block of a GiB", LARGE, GIANT_FRAMES, nothing, one_block),
        case("a block's free", SMALL, BLOCK, one_block, |pool, hands| {
            let (first, _) = hands.runs.remove(0);
            pool.free_block(frame(first)).expect("its own");
        }),
        case("the free of a GiB's last block", LARGE, GIANT_FRAMES, one_block, free),
        case("a GiB", LARGE, GIANT_FRAMES, nothing, one_giant),
        case("a GiB's free", LARGE, GIANT_FRAMES, one_giant, |pool, hands| {
            let (first, _) = hands.runs.remove(0);
            pool.free_giant(frame(first)).expect("its own");
        }),
        case("a short run", SMALL, BLOCK, some, alloc_run::<5>),
        case("a run across words", SMALL, 150 + BLOCK, some, alloc_run::<150>),
        case("a run across blocks", SMALL, 700 + 2 * BLOCK, some, alloc_run::<700>),
        case("a run's free", SMALL, 700 + 2 * BLOCK, alloc_run::<700>, free),
    ];
    let with_budget = Setup::new(2).reserve(100).watermarks(600, 900, |_| ());
    cases.extend(
        [
            case("a budget's frame", SMALL, BLOCK, nothing, alloc),
            case("a budget's flush", SMALL, CACHED, some, |pool, _| {
                pool.drain().expect("a drain");
            }),
        ]
        .map(|case| Case { setup: with_budget, ..case }),
    );
    cases.extend(shrinking_and_growing());
    cases
}

fn shrinking_and_growing() -> [Case; 4] {
    const BLOCK: u64 = BLOCK_FRAMES;
    [
        Case {
            metadata: 1,
            ..case("an isolation, ended", SMALL, 3 * BLOCK + 1, nothing, |pool, _| {
                let range = NumberRange::from_numbers(BLOCK + 5, 2 * BLOCK + 7);
                // SAFETY: `page` gives memory of its own.
                let isolation = unsafe { pool.isolate(range, page) };
                isolation.into_iter().for_each(|isolation| pool.readmit(isolation));
            })
        },
        Case {
            metadata: 1,
            ..case("a frame retired, and back", SMALL, 2 * BLOCK + 2, some, |pool, hands| {
                let (number, _) = hands.runs.remove(0);
                // SAFETY: as above.
                if let Err((frame, _)) = unsafe { pool.retire(frame(number), page) } {
                    return hands.put(frame.into_number(), 1);
                }
                let number = NumberRange::from_numbers(number, number + 1);
                // SAFETY: nobody uses it.
                unsafe { pool.bring_back(number) };
            })
        },
        case("growing beside", SMALL, BLOCK, nothing, |pool, _| {
            let late = NumberRange::from_numbers(SMALL, SMALL + BLOCK);
            // SAFETY: the memory is not real.
            unsafe { pool.grow_in(late, &mut []) }.expect("room for it");
        }),
        case("growing far away", SMALL, BLOCK, nothing, |pool, _| {
            let late = NumberRange::from_numbers(70 * GIANT_FRAMES, 70 * GIANT_FRAMES + BLOCK);
            let storage = vec![!0; pool.bytes_to_grow(late) / 8 + 16].leak();
            // SAFETY: the memory is not real.
            unsafe { pool.grow_in(late, storage) }.expect("room for it");
        }),
    ]
}

impl Case {
    /// The operation, whose CPU stops at this access; whether there was one.
    fn dies_at(&self, step: u64) -> bool {
        let pool = pool_of(ByThread, (self.setup, 2), self.frames);
        let ([stopped, go_on], [has_stopped, go]) = {
            let ((stopped, has_stopped), (go_on, go)) = (channel(), channel());
            ([stopped, go_on], [has_stopped, go])
        };
        let (start, started) = channel();
        std::thread::scope(|scope| {
            // Gone with this closure, also by a panic: the victim does not wait for ever then.
            let go_on = go_on;
            let victim = scope.spawn(move || {
                CPU.set(VICTIM);
                let mut hands = Hands::default();
                (self.prepare)(pool, &mut hands);
                start.send(hands.clone()).expect("somebody waits for it");
                STOP.set(Some(Stop { left: step, stopped, go }));
                watch(Some(on_access));
                (self.work)(pool, &mut hands);
                watch(None);
                STOP.set(None);
                hands
            });
            let before = started.recv().expect("the victim's hands");
            // An error says that it has ended without.
            let is_dead = has_stopped.recv().is_ok();
            let mut mine = Hands::default();
            if is_dead {
                self.go_on_without(pool, &before, &mut mine, step);
                go_on.send(()).expect("it waits");
            }
            let hands = victim.join().expect("the victim's work");
            self.ends_well(pool, hands, mine, step);
            is_dead
        })
    }

    /// What the other CPU does meanwhile.
    fn go_on_without(&self, pool: Pool, before: &Hands, mine: &mut Hands, step: u64) {
        let tree = pool.tree().expect("a tree");
        mine.fill(pool, 70);
        for (first, count) in mine.runs.drain(..mine.runs.len() / 2) {
            pool.free_run(run((first, count))).expect("own frames");
        }
        if let Ok(taken) = pool.alloc_run(&Request::new(40).above(BLOCK_FRAMES * FRAME_SIZE)) {
            let numbers = taken.into_numbers();
            mine.put(numbers.start(), numbers.len());
        }
        assert_eq!(pool.drain(), Ok(Drained::Done));
        // Everything that there is. An answer that there is nothing takes a thousand looks.
        for _ in 0..tree.count_free().blocks {
            let Ok(block) = tree.alloc_block() else { break };
            mine.put(block.into_number(), BLOCK_FRAMES);
        }
        while step.is_multiple_of(64) || tree.count_free().frames > 0 {
            let Ok(cache) = tree.refill() else { break };
            for bit in (0..WORD_BITS).filter(|bit| cache.free() >> bit & 1 != 0) {
                mine.runs.push((cache.base().get() + bit, 1));
            }
        }
        assert_eq!(mine.twice(), None, "{}, {step}: a frame came twice", self.name);
        // What the operation was about to free may have come.
        let kept = before.below(self.frames) - before.shared(mine);
        let missing = self.frames - mine.below(self.frames) - kept;
        let most = CACHED + self.moves;
        assert!(missing <= most, "{}, {step}: {missing} frames are stranded", self.name);
        // Its slot may be in use for ever, and says what it holds.
        // SAFETY: nobody uses it but a CPU that stands still.
        let drained = unsafe { pool.drain_offline(CpuId::new(VICTIM)) };
        if let Ok(Drained::Stranded { frames }) = drained {
            assert!(
                frames <= CACHED + BLOCK_FRAMES,
                "{}, {step}: {frames} frames in a cache",
                self.name
            );
        }
    }

    /// The victim was only slow: nobody has what it has, and all comes together again.
    fn ends_well(&self, pool: Pool, mut victims: Hands, mut mine: Hands, step: u64) {
        assert_eq!(victims.shared(&mine), 0, "{}, {step}: a frame has two owners", self.name);
        mine.give_all(pool);
        victims.give_all(pool);
        for cpu in [OTHER, VICTIM] {
            // SAFETY: their threads are at rest, or gone.
            let drained = unsafe { pool.drain_offline(CpuId::new(cpu)) };
            assert_eq!(drained, Ok(Drained::Done), "{}, {step}", self.name);
        }
        pool.verify().unwrap_or_else(|broken| panic!("{}, {step}: {broken}", self.name));
        let tree = pool.tree().expect("a tree");
        let (free, all) = (tree.count_free().frames, tree.managed_frames());
        let metadata = all - free;
        assert!(metadata <= self.metadata, "{}, {step}: {metadata} are not free", self.name);
    }
}

#[test]
fn a_cpu_that_dies_at_any_access_strands_what_it_moved_and_no_more() {
    for case in cases() {
        // Each of the first ones; then of long loops (the leaves of a GiB, the frames of a list)
        // fewer and fewer.
        let steps = core::iter::successors(Some(1), |step| Some(step + 1 + step / 24));
        let last = steps.take_while(|step| case.dies_at(*step)).last();
        assert!(last > Some(3), "{}: {last:?} accesses", case.name);
    }
}
