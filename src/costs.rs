//! What operations cost and what they hand out: a table, `costs.txt`, of a fixed sequence of
//! operations of all kinds.
//!
//! Most of what the allocator knows are hints and bounds, which only say where not to look: if one
//! is wrong upward, every answer stays right, and only comes later. Other tests ask for answers.
//! This one counts: each access to a shared word, at the one door to atomics, per kind of operation
//! and state of the memory, for three CPUs (one of them without a slot) by turns, some of their
//! operations in the middle of those of others; and a number made of all that was handed out or
//! refused.
//!
//! All of it is the same each time and on each machine, so any change of what the code does shows,
//! a wanted one as well: it may cost less now. Then look at the difference, which the test prints,
//! whether it is what you wanted, and renew the table:
//! `COSTS=renew cargo test --all-features --lib costs::`.
//! What an operation may cost at most is said, with its reasons, in [`crate::counts`].

extern crate std;

use core::cell::{Cell, RefCell};
use core::fmt::Debug;
use core::panic::Location;
use std::boxed::Box;
use std::fmt::Write as _;
use std::format;
use std::string::String;
use std::vec;
use std::vec::Vec;

use crate::cpu::Cpus;
use crate::error::FreeError;
use crate::frame::{CpuId, Frame, FrameNumber, FrameRange, NumberRange};
use crate::geometry::{BLOCK_FRAMES, FRAME_SIZE, GIANT_FRAMES, WORD_BITS};
use crate::layout::Layout;
use crate::map::{MapEntry, MemoryMap, MemoryRegion, RegionKind};
use crate::pool::{FramePool, Setup};
use crate::request::Request;
use crate::sync::watching::{Access, watch};
use crate::tree::{FrameTree, Isolation};

/// Operations on each memory.
const STEPS: usize = 1200;
/// CPUs with a slot; one more takes part without.
const CPUS: usize = 2;

type Pool = FramePool<InTurns>;
/// The first frame of each, and how many.
type Regions = &'static [(u64, u64)];

/// The one thread is the CPU that it says. Who is asked to drain does so at once, every other time.
#[derive(Debug)]
struct InTurns;

// SAFETY: one thread. What comes in the middle of an operation is over before that goes on: to the
// pool it is an interrupt, or another CPU that was faster.
unsafe impl Cpus for InTurns {
    fn with_current<R>(&self, work: impl FnOnce(CpuId) -> R) -> R {
        work(CpuId::new(CPU.get()))
    }

    fn request_drain(&self, cpu: CpuId) {
        if dice(2) == 0 {
            play(cpu.get(), DRAIN);
        }
    }
}

/// A kind of operation: how often it is chosen, among 100; and what it does. It says what was
/// answered.
struct Kind(&'static str, u64, fn(&'static Pool) -> String);

const KINDS: [Kind; 23] = [
    Kind("frame", 13, |pool| take(1, pool.alloc())),
    Kind("zeroed frame", 6, |pool| take(1, pool.alloc_zeroed(|_| ()))),
    Kind("urgent frame", 1, |pool| take(1, pool.alloc_urgent())),
    Kind("bulk", 3, take_bulk),
    Kind("block", 3, |pool| take(BLOCK_FRAMES, pool.alloc_block())),
    Kind("giant", 1, |pool| take(GIANT_FRAMES, pool.alloc_giant())),
    Kind("short run", 8, |pool| take_run(pool, &Request::new(length(WORD_BITS)))),
    Kind("usual run", 6, |pool| take_run(pool, &Request::new(pick(&[3, 3, 3, 17])))),
    Kind("run", 5, |pool| take_run(pool, &Request::new(length(4000)))),
    Kind("limited run", 7, |pool| take_run(pool, &limited())),
    Kind("long run", 2, |pool| take_run(pool, &Request::new(length(u64::MAX) << dice(6)))),
    Kind("free frame", 12, |pool| give(1, 1, |first, _| pool.free(frame(first)))),
    // SAFETY: no memory is behind it.
    Kind("free zeroed", 6, |pool| give(1, 1, |at, _| unsafe { pool.free_zeroed(frame(at)) })),
    Kind("free bulk", 3, give_bulk),
    Kind("free block", 2, |_| give_whole(BLOCK_FRAMES, FramePool::free_block)),
    Kind("free giant", 1, |_| give_whole(GIANT_FRAMES, FramePool::free_giant)),
    Kind("free run", 14, |pool| give(1, length(4000), |at, count| pool.free_run(run(at, count)))),
    Kind("refused free", 2, give_wrongly),
    Kind("isolation", 1, isolate),
    Kind("growth", 2, grow),
    Kind("numbers", 1, |pool| {
        format!("{:?} {:?}", pool.stats(), pool.tree().map(FrameTree::count_free))
    }),
    Kind("drain", 2, |pool| format!("{:?}", pool.drain())),
    // What comes before all others.
    Kind("start", 0, |_| String::new()),
];
const DRAIN: usize = KINDS.len() - 2;
const START: usize = KINDS.len() - 1;
/// Kinds that may come in the middle of others: none that are often in vain, which looks a thousand
/// times while another is under way.
const INSIDE: [usize; 9] = [0, 0, 1, 6, 11, 11, 12, 16, 16];

/// A row of the table.
#[derive(Clone, Copy, Default)]
struct Row {
    times: u64,
    loads: u64,
    stores: u64,
    changes: u64,
    /// Made of all answers.
    answers: u64,
}

std::thread_local! {
    static POOL: Cell<Option<&'static Pool>> = const { Cell::new(None) };
    static CPU: Cell<usize> = const { Cell::new(0) };
    static DICE: Cell<u64> = const { Cell::new(0) };
    static ROWS: RefCell<[Row; KINDS.len()]> = RefCell::new([Row::default(); KINDS.len()]);
    /// The row of what is being done.
    static KIND: Cell<usize> = const { Cell::new(0) };
    /// Accesses until another operation comes in between; 0 for never.
    static LEFT: Cell<u64> = const { Cell::new(0) };
    /// Frames that are in use, in rows: the first one and how many.
    static HANDS: RefCell<Vec<(u64, u64)>> = const { RefCell::new(Vec::new()) };
    static ISOLATION: RefCell<Option<Isolation>> = const { RefCell::new(None) };
    /// Frames that have come.
    static GROWN: Cell<u64> = const { Cell::new(0) };
    /// Frames that have become metadata.
    static METADATA: Cell<u64> = const { Cell::new(0) };
    static REGIONS: Cell<Regions> = const { Cell::new(&[]) };
}

/// Less than `sides`: `SplitMix64`.
fn dice(sides: u64) -> u64 {
    DICE.set(DICE.get().wrapping_add(0x9e37_79b9_7f4a_7c15));
    let mixed = (DICE.get() ^ DICE.get() >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed ^ mixed >> 31) % sides
}

fn pick<T: Copy>(some: &[T]) -> T {
    some[dice(some.len() as u64) as usize]
}

fn on_access(_: usize, access: Access, _: &'static Location<'static>) {
    ROWS.with_borrow_mut(|rows| {
        let row = &mut rows[KIND.get()];
        match access {
            Access::Load => row.loads += 1,
            Access::Store => row.stores += 1,
            Access::ReadModifyWrite => row.changes += 1,
            Access::Pause => {}
        }
    });
    if LEFT.get() > 0 {
        LEFT.set(LEFT.get() - 1);
        if LEFT.get() == 0 {
            play(pick(&[0, 1, 2]), pick(&INSIDE));
        }
    }
}

/// An operation on a CPU.
fn play(cpu: usize, kind: usize) {
    let before = (CPU.replace(cpu), KIND.replace(kind));
    let answer = KINDS[kind].2(POOL.get().expect("a pool"));
    CPU.set(before.0);
    KIND.set(before.1);
    ROWS.with_borrow_mut(|rows| {
        let row = &mut rows[kind];
        row.times += 1;
        // FNV-1a, which is the same everywhere.
        let fold = |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        row.answers = answer.bytes().fold(row.answers, fold);
    });
}

/// A length: most often near one at which something changes.
fn length(most: u64) -> u64 {
    let edges = [1, 4, 16, 64, 128, 254, BLOCK_FRAMES, 1024, 8 * BLOCK_FRAMES, GIANT_FRAMES / 8];
    let edge = pick(&edges).min(most);
    let count = match dice(3) {
        0 => 1 + dice(edge),
        1 => edge + dice(5),
        _ => edge.saturating_sub(dice(4)),
    };
    count.clamp(1, most)
}

/// A frame that is managed.
fn place() -> FrameNumber {
    let (first, count) = pick(REGIONS.get());
    FrameNumber::new(first + dice(count))
}

/// The frame behind all that there is at first.
fn end() -> u64 {
    REGIONS.get().iter().map(|(first, count)| first + count).max().expect("a region")
}

/// A request with conditions.
fn limited() -> Request {
    let request = Request::new(length(600));
    let align = FRAME_SIZE << dice(11);
    let boundary = 1 << (14 + dice(10));
    let place = place();
    match dice(6) {
        0 => request.align(align),
        1 => request.above(place.start_address()),
        2 => request.below(place.start_address()),
        3 => request.align(align).above(place.start_address()).not_crossing(boundary),
        4 => request.not_crossing(boundary),
        _ => request.at(place),
    }
}

fn frame(number: u64) -> Frame {
    // SAFETY: no memory is behind it; the hands say whose it is.
    unsafe { Frame::from_number(FrameNumber::new(number)) }
}

fn run(first: u64, count: u64) -> FrameRange {
    // SAFETY: as above.
    unsafe { FrameRange::from_numbers(NumberRange::from_numbers(first, first + count)) }
}

fn put(first: u64, count: u64) {
    if count > 0 {
        HANDS.with_borrow_mut(|hands| hands.push((first, count)));
    }
}

/// Some of what is in use, out of the hands: at most so many frames in a row, from a multiple of
/// `align` on, if that is where the dice fall.
fn grab(align: u64, most: u64) -> Option<(u64, u64)> {
    let (first, count) = HANDS.with_borrow_mut(|hands| {
        let at = dice(hands.len().max(1) as u64) as usize;
        (at < hands.len()).then(|| hands.swap_remove(at))
    })?;
    let most = most.min(count);
    let skipped = pick(&[0, count - most, dice(count - most + 1)]);
    let start = (first + skipped).next_multiple_of(align).min(first + count);
    let end = (start + most).min(first + count);
    put(first, start - first);
    put(end, first + count - end);
    (start < end).then_some((start, end - start))
}

/// A frame or a run, as a number.
trait Given {
    fn first(self) -> u64;
}

impl Given for Frame {
    fn first(self) -> u64 {
        self.into_number().get()
    }
}

impl Given for FrameRange {
    fn first(self) -> u64 {
        self.into_numbers().start().get()
    }
}

fn take<E: Debug>(count: u64, given: Result<impl Given, E>) -> String {
    let first = given.map(Given::first);
    first.iter().for_each(|first| put(*first, count));
    format!("{first:?}")
}

fn take_run(pool: &Pool, request: &Request) -> String {
    let run = match dice(4) {
        0 => pool.alloc_run_zeroed(request, |_| ()),
        _ => pool.alloc_run(request),
    };
    take(request.count(), run)
}

fn take_bulk(pool: &'static Pool) -> String {
    let mut list: Vec<_> = (0..length(100)).map(|_| None).collect();
    let taken = pool.alloc_bulk(&mut list);
    let numbers: Vec<_> = list.into_iter().flatten().map(Given::first).collect();
    numbers.iter().for_each(|number| put(*number, 1));
    format!("{taken} {numbers:?}")
}

fn give<E: Debug>(align: u64, most: u64, free: impl Fn(u64, u64) -> Result<(), E>) -> String {
    let Some((first, count)) = grab(align, most) else { return String::new() };
    free(first, count).expect("a free of what was in use");
    format!("{first} {count}")
}

fn give_bulk(pool: &'static Pool) -> String {
    give(1, length(100), |first, count| {
        let mut list: Vec<_> = (first..first + count).map(|number| Some(frame(number))).collect();
        pool.free_bulk(&mut list)
    })
}

/// The same for a block or a GiB, if one is in use as a whole.
fn give_whole(frames: u64, free: fn(&Pool, Frame) -> Result<(), FreeError>) -> String {
    let whole = HANDS.with_borrow_mut(|hands| {
        let first = |(first, _): &(u64, u64)| first.next_multiple_of(frames);
        let is_whole = |piece: &(u64, u64)| first(piece) + frames <= piece.0 + piece.1;
        let behind = dice(hands.len() as u64 + 1) as usize;
        let at = (behind..hands.len()).chain(0..behind).find(|at| is_whole(&hands[*at]))?;
        let piece = hands.swap_remove(at);
        Some((piece, first(&piece)))
    });
    let Some(((first, count), start)) = whole else { return String::new() };
    put(first, start - first);
    put(start + frames, first + count - start - frames);
    free(POOL.get().expect("a pool"), frame(start)).expect("a free of what was in use");
    format!("{start}")
}

/// Frees of what is free already, and of what is not managed.
fn give_wrongly(pool: &'static Pool) -> String {
    LEFT.set(0);
    let Some((first, count)) = grab(1, length(600)) else { return String::new() };
    pool.free_run(run(first, count)).expect("a free of what was in use");
    let twice = first + dice(count);
    let answers = [
        pool.free_run(run(first, count)),
        pool.free_run(run(twice, 1)),
        pool.free(frame(twice)),
        pool.free(frame(end() + 50 * PIECE + dice(1000))),
        pool.free_block(frame(twice & !(BLOCK_FRAMES - 1) | dice(2))),
        pool.free_giant(frame(twice & !(GIANT_FRAMES - 1))),
    ];
    format!("{answers:?}")
}

/// Begins an isolation, or ends the one that there is.
fn isolate(pool: &'static Pool) -> String {
    LEFT.set(0);
    let Some(isolation) = ISOLATION.take() else {
        let first = place().get();
        let range = NumberRange::from_numbers(first, first + length(2 * BLOCK_FRAMES));
        // SAFETY: nobody else has that memory.
        let isolation = unsafe { pool.isolate(range, metadata) };
        let answer = isolation.as_ref().map(|isolation| pool.in_use(isolation)).map_err(|e| *e);
        ISOLATION.set(isolation.ok());
        return format!("{answer:?}");
    };
    match pool.offline(isolation) {
        // SAFETY: no memory is behind it.
        Ok(range) => format!("{range:?} {}", unsafe { pool.bring_back(range) }),
        Err(isolation) => {
            pool.readmit(isolation);
            String::new()
        }
    }
}

/// Frames that come at once.
const PIECE: u64 = 200;

/// Adds memory behind the end, in pieces of any order.
fn grow(pool: &'static Pool) -> String {
    let first = end() + 100 + PIECE * dice(40);
    let range = NumberRange::from_numbers(first, first + PIECE);
    let storage = vec![7; pool.bytes_to_grow(range) / 8 + 16].leak();
    // SAFETY: the memory is not real, nobody uses it.
    let grown = unsafe { pool.grow_in(range, storage) };
    GROWN.set(GROWN.get() + if grown.is_ok() { PIECE } else { 0 });
    format!("{first} {grown:?}")
}

/// Where a frame lies that becomes metadata.
fn metadata(_: u64) -> *mut u8 {
    METADATA.set(METADATA.get() + 1);
    let memory: &'static mut [[u8; 4096]] = vec![[0xa5; 4096]; 2].leak();
    let start = memory.as_mut_ptr().cast::<u8>();
    start.wrapping_add(start.align_offset(4096))
}

/// A pool whose frames are in a certain state at first.
struct Memory {
    name: &'static str,
    regions: Regions,
    setup: Setup,
    /// Whether all is taken at first; and then so many runs of up to so many frames are given back.
    crumbs: Option<(usize, u64)>,
}

const SMALL: Regions = &[(3, 900), (2 * BLOCK_FRAMES, GIANT_FRAMES + 7 * BLOCK_FRAMES + 13)];
const LARGE: Regions = &[
    (1, 3 * GIANT_FRAMES - 77),
    (62 * GIANT_FRAMES + 5 * BLOCK_FRAMES, 4 * GIANT_FRAMES),
    (130 * GIANT_FRAMES - 600, 4000),
];

const MEMORIES: &[Memory] = &[
    Memory { name: "fresh", regions: LARGE, setup: Setup::new(CPUS), crumbs: None },
    Memory { name: "crumbs", regions: SMALL, setup: Setup::new(CPUS), crumbs: Some((9000, 60)) },
    Memory {
        name: "stretches",
        regions: LARGE,
        setup: Setup::new(CPUS),
        crumbs: Some((900, 3000)),
    },
    Memory { name: "holes", regions: SMALL, setup: Setup::new(CPUS), crumbs: Some((9000, 1)) },
    Memory { name: "full", regions: LARGE, setup: Setup::new(CPUS), crumbs: Some((60, 1)) },
    Memory {
        name: "rationed",
        regions: LARGE,
        setup: Setup::new(CPUS)
            .low_last((GIANT_FRAMES + 3 * BLOCK_FRAMES) * FRAME_SIZE)
            .reserve(5000)
            .watermarks(8000, 20000, |_| ()),
        crumbs: Some((4000, 40)),
    },
    #[cfg(feature = "hardened")]
    Memory {
        name: "hardened",
        regions: &[(3, 900), (2 * BLOCK_FRAMES, 20 * BLOCK_FRAMES + 13)],
        setup: Setup::new(CPUS)
            .hardened(crate::Hardening::new(|wrong| panic!("{wrong}")).placed_by(7)),
        crumbs: Some((900, 60)),
    },
];

impl Memory {
    fn pool(&self) -> &'static Pool {
        let pool = Box::leak(Box::new(FramePool::new(InTurns)));
        let regions = self.regions.iter().map(|(first, count)| MemoryRegion {
            start: first * FRAME_SIZE,
            length: count * FRAME_SIZE,
            kind: RegionKind::Usable,
        });
        let mut buffer = [MapEntry::EMPTY; MemoryMap::entries_needed(3)];
        let map = MemoryMap::normalise(regions, &mut buffer).expect("a map");
        let layout = Layout::new(&map, CPUS).expect("a layout");
        #[cfg(feature = "hardened")]
        let layout = layout.hardened();
        let bytes = layout.bytes();
        // SAFETY: the memory is not real, nobody uses it.
        unsafe { pool.init_in(&map, self.setup, vec![7; bytes / 8 + 16].leak()) }.expect("a pool");
        pool
    }

    /// What its operations cost.
    fn rows(&self) -> [Row; KINDS.len()] {
        ROWS.take();
        LEFT.set(0);
        KIND.set(START);
        watch(Some(on_access));
        let pool = self.pool();
        POOL.set(Some(pool));
        REGIONS.set(self.regions);
        DICE.set(0);
        METADATA.set(0);
        GROWN.set(0);
        let tree = pool.tree().expect("a tree");
        let first = tree.count_free();
        if let Some((runs, most)) = self.crumbs {
            while [5, 4].into_iter().any(|kind| KINDS[kind].2(pool).starts_with("Ok")) {}
            while KINDS[2].2(pool).starts_with("Ok") {}
            for cpu in 0..runs {
                CPU.set(cpu % CPUS);
                give(1, 1 + dice(most), |first, count| pool.free_run(run(first, count)));
            }
        }
        for _ in 0..STEPS {
            LEFT.set(if dice(4) == 0 { 1 + dice(pick(&[8, 40, 200])) } else { 0 });
            let mut chance = dice(100);
            let chosen = KINDS.iter().position(|Kind(_, often, _)| {
                let is_chosen = chance < *often;
                chance = chance.wrapping_sub(*often);
                is_chosen
            });
            play(pick(&[0, 0, 1, 1, 2]), chosen.expect("100 in all"));
        }
        watch(None);
        tree.verify().expect("a tree that is whole");
        ISOLATION.take().into_iter().for_each(|isolation| pool.readmit(isolation));
        for (first, count) in HANDS.take() {
            pool.free_run(run(first, count)).expect("a free of what was in use");
        }
        for cpu in 0..CPUS {
            CPU.set(cpu);
            pool.drain().expect("a drain");
        }
        pool.verify().expect("a pool that is whole");
        let free = tree.count_free().frames;
        assert_eq!(free + METADATA.get(), first.frames + GROWN.get(), "{}", self.name);
        ROWS.take()
    }
}

/// The table, as it is to be.
fn table() -> String {
    let mut text = format!(
        "{:10} {:14} {:>5} {:>9} {:>8} {:>7}  {}\n",
        "memory", "operation", "times", "loads", "stores", "changes", "answers"
    );
    for memory in MEMORIES {
        for (Kind(kind, ..), row) in KINDS.iter().zip(memory.rows()) {
            let Row { times, loads, stores, changes, answers } = row;
            let name = memory.name;
            writeln!(
                text,
                "{name:10} {kind:14} {times:5} {loads:9} {stores:8} {changes:7}  {answers:016x}"
            )
            .expect("room");
        }
    }
    text
}

#[test]
fn every_operation_costs_what_the_table_says() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/costs.txt");
    let (now, mut before) = (table(), std::fs::read_to_string(path).unwrap_or_default());
    if std::env::var("COSTS").is_ok_and(|what| what == "renew") {
        if !cfg!(feature = "hardened") {
            panic!("the whole table takes --features hardened");
        }
        return std::fs::write(path, now).expect("a file to write");
    }
    if !cfg!(feature = "hardened") {
        before = before.split_inclusive('\n').filter(|row| !row.starts_with("hardened")).collect();
    }
    let changed: String = now
        .lines()
        .zip(before.lines())
        .filter(|(now, before)| now != before)
        .flat_map(|(now, before)| ["- ", before, "\n+ ", now, "\n"])
        .collect();
    assert!(
        now == before,
        "operations do not cost, or answer, what src/costs.txt says:\n{changed}\nIf that is what \
         you wanted: COSTS=renew cargo test --all-features --lib costs::"
    );
}
