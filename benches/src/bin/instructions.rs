//! How many instructions the hot paths take: `make instructions`.
//!
//! Each path is run under callgrind, which counts what is executed while [`frametree_counted`] is on the
//! stack: no contention, no caches, but the same number every time for the same binary. So a path
//! that grows is seen on any machine, however busy. The counts are committed
//! (`benches/instructions.txt`), and `tests/instructions.rs` compares.
//!
//! ```text
//! instructions            lists the paths
//! instructions PATH       runs one, for callgrind
//! instructions --table    runs callgrind for each, and prints the table
//! instructions --hardened the same for a hardened pool, in its ways (feature `hardened`)
//! instructions PATH HOW   runs one of a pool that is hardened in this way
//! ```

#[path = "../../../tests/support/mod.rs"]
mod support;

use std::hint::black_box;
use std::process::{Command, ExitCode};

use frametree::{CpuId, Cpus, Frame, FrameNumber, FramePool, FrameRange, Layout, Request, Setup};
use support::{BLOCK, Dice, GIANT};

/// How often a path is gone; the count is for one.
const TIMES: u64 = 1024;

static POOL: FramePool<Alone> = FramePool::new(Alone);

/// One thread that is CPU 0: what a kernel's own look at its CPU number costs is not ours.
struct Alone;

// SAFETY: there is one thread.
unsafe impl Cpus for Alone {
    #[inline(always)]
    fn with_current<R>(&self, work: impl FnOnce(CpuId) -> R) -> R {
        work(CpuId::new(0))
    }
}

/// What a path is given: made before anything is counted.
struct Ready {
    frames: Vec<Option<Frame>>,
    runs: Vec<Option<FrameRange>>,
}

/// A path by name: what makes it ready, and what is counted.
struct Path {
    name: &'static str,
    prepare: fn() -> Ready,
    go: fn(&mut Ready),
}

const PATHS: &[Path] = &[
    Path { name: "pair", prepare: one_out, go: pair },
    Path { name: "alloc_in_order", prepare: empty, go: alloc },
    Path { name: "free_in_order", prepare: in_order, go: free },
    Path { name: "free_reversed", prepare: reversed, go: free },
    Path { name: "free_at_random", prepare: at_random, go: free },
    Path { name: "alloc_from_holes", prepare: holes, go: alloc },
    Path { name: "replace_half_used", prepare: replaced::<500>, go: replace },
    Path { name: "replace_nearly_full", prepare: replaced::<990>, go: replace },
    Path { name: "last_free", prepare: all_out, go: last_free },
    Path { name: "tree_pair", prepare: one_out, go: tree_pair },
    Path { name: "block_pair", prepare: block_out, go: block_pair },
    Path { name: "blocks_out_or_back", prepare: empty, go: blocks },
    Path { name: "giant_pair", prepare: empty, go: giant_pair },
    Path { name: "run_of_4_pair", prepare: one_out, go: run_pair::<4> },
    Path { name: "run_of_8_pair", prepare: one_out, go: run_pair::<8> },
    Path { name: "run_of_100_pair", prepare: one_out, go: run_pair::<100> },
    Path { name: "replace_run_of_3", prepare: runs_out::<3>, go: replace_runs },
    Path { name: "replace_run_of_17", prepare: runs_out::<17>, go: replace_runs },
    Path { name: "replace_run_of_100", prepare: runs_out::<100>, go: replace_runs },
    Path { name: "mixed_sizes", prepare: mixed, go: replace_mixed },
    Path { name: "bulk_of_32_pair", prepare: one_out, go: bulk },
    Path { name: "failing", prepare: all_out, go: failing },
    Path { name: "statistics", prepare: one_out, go: statistics },
];

fn take() -> Frame {
    POOL.alloc().expect("a frame")
}

fn give(frame: Frame) {
    POOL.free(frame).expect("a frame that is not free");
}

fn empty() -> Ready {
    Ready { frames: Vec::with_capacity(TIMES as usize), runs: Vec::new() }
}

fn one_out() -> Ready {
    let mut ready = empty();
    ready.frames.push(Some(take()));
    ready
}

fn block_out() -> Ready {
    let mut ready = empty();
    ready.frames.push(Some(POOL.alloc_block().expect("a block")));
    ready
}

fn all_out() -> Ready {
    let mut ready = empty();
    ready.frames = std::iter::from_fn(|| POOL.alloc().ok()).map(Some).collect();
    ready
}

fn in_order() -> Ready {
    let mut ready = empty();
    ready.frames.extend((0..TIMES).map(|_| Some(take())));
    ready
}

fn reversed() -> Ready {
    let mut ready = in_order();
    ready.frames.reverse();
    ready
}

/// Frames from all of a full GiB, in random order: each free is one of its own to the tree.
fn at_random() -> Ready {
    let mut ready = all_out();
    Dice::new(1).shuffle(&mut ready.frames);
    ready.frames.truncate(TIMES as usize);
    ready
}

/// Every second frame of the GiB is free.
fn holes() -> Ready {
    let out = all_out().frames.into_iter().flatten();
    let (kept, freed) = out.partition::<Vec<_>, _>(|frame| frame.number().get() % 2 == 0);
    freed.into_iter().for_each(give);
    POOL.drain().expect("a drain");
    assert_eq!(kept.len() as u64, GIANT / 2);
    empty()
}

/// So many thousandths are in use, at random at first, and were replaced for long enough that what
/// is in use lies below: each frame that is freed then is the one hole in a full word, mostly.
fn replaced<const PERMILLE: u64>() -> Ready {
    let mut ready = all_out();
    Dice::new(3).shuffle(&mut ready.frames);
    let kept = GIANT * PERMILLE / 1000;
    ready.frames.drain(kept as usize..).flatten().for_each(give);
    replace_some(&mut ready.frames, GIANT, 5);
    ready
}

/// Frees a frame at random and takes one, so often.
fn replace_some(frames: &mut [Option<Frame>], times: u64, seed: u64) {
    let mut dice = Dice::new(seed);
    for _ in 0..times {
        let place = &mut frames[dice.below(frames.len() as u64) as usize];
        give(place.take().expect("a frame"));
        *place = Some(take());
    }
}

fn replace(ready: &mut Ready) {
    replace_some(&mut ready.frames, TIMES, 7);
}

/// A frame at random is freed, and the cache given back, in memory where nothing else is free.
fn last_free(ready: &mut Ready) {
    let mut dice = Dice::new(9);
    for _ in 0..TIMES {
        let place = &mut ready.frames[dice.below(GIANT) as usize];
        give(place.take().expect("a frame"));
        POOL.drain().expect("a drain");
        *place = Some(take());
    }
}

fn giant_pair(_: &mut Ready) {
    for _ in 0..TIMES {
        let giant = black_box(POOL.alloc_giant().expect("a GiB"));
        POOL.free_giant(giant).expect("a GiB that is not free");
    }
}

fn pair(_: &mut Ready) {
    for _ in 0..TIMES {
        give(black_box(take()));
    }
}

fn alloc(ready: &mut Ready) {
    for _ in 0..TIMES {
        ready.frames.push(Some(take()));
    }
}

fn free(ready: &mut Ready) {
    for frame in ready.frames.drain(..).flatten() {
        give(frame);
    }
}

fn tree_pair(_: &mut Ready) {
    let tree = POOL.tree().expect("a tree");
    for _ in 0..TIMES {
        let frame = black_box(tree.alloc().expect("a frame"));
        tree.free(frame).expect("a frame that is not free");
    }
}

fn block_pair(_: &mut Ready) {
    for _ in 0..TIMES {
        let block = black_box(POOL.alloc_block().expect("a block"));
        POOL.free_block(block).expect("a block that is not free");
    }
}

/// 512 times one and 512 times the other: what is counted is the mean of the two.
fn blocks(ready: &mut Ready) {
    for _ in 0..GIANT / BLOCK {
        ready.frames.push(Some(POOL.alloc_block().expect("a block")));
    }
    for block in ready.frames.drain(..).flatten() {
        POOL.free_block(block).expect("a block that is not free");
    }
}

fn run_pair<const COUNT: u64>(ready: &mut Ready) {
    let request = Request::new(black_box(COUNT));
    for _ in 0..TIMES {
        ready.runs.push(Some(POOL.alloc_run(&request).expect("a run")));
        let run = ready.runs.pop().flatten().expect("the run");
        POOL.free_run(run).expect("a run that is not free");
    }
}

/// A quarter is used, in runs of mean 8, and a hundred runs of this length are out, each of which
/// was replaced some ten times.
fn runs_out<const COUNT: u64>() -> Ready {
    let tree = POOL.tree().expect("a tree");
    let mut dice = Dice::new(7);
    let mut at = 0;
    while at < GIANT {
        let count = geometric(&mut dice, 8).min(GIANT - at);
        let request = Request::new(count).at(FrameNumber::new(at));
        let _ = tree.alloc_run(&request).expect("free").into_numbers();
        at += count + geometric(&mut dice, 24);
    }
    let request = Request::new(COUNT);
    let mut ready = empty();
    ready.runs.extend((0..100).map(|_| Some(POOL.alloc_run(&request).expect("a run"))));
    replace_runs(&mut ready);
    ready
}

/// A number with this mean, at least 1.
fn geometric(dice: &mut Dice, mean: u64) -> u64 {
    (1..).find(|_| dice.below(mean) == 0).expect("it ends")
}

/// Frees one of some runs of the same length at random, and takes one.
fn replace_runs(ready: &mut Ready) {
    let mut dice = Dice::new(3);
    let count = ready.runs.iter().flatten().next().expect("runs").len();
    let request = Request::new(black_box(count));
    for _ in 0..TIMES {
        let place = &mut ready.runs[dice.below(100) as usize];
        POOL.free_run(place.take().expect("a run")).expect("a run that is not free");
        *place = Some(POOL.alloc_run(&request).expect("a run"));
    }
}

/// Of a hundred requests for more than one frame, so many are for runs of this length. They are a
/// tenth of all requests, as in the workload of mixed sizes.
const RUNS: [(u64, u64); 7] = [(40, 4), (25, 2), (15, 8), (10, 16), (5, 64), (3, 256), (2, BLOCK)];

/// 60 % are in use, in pieces of all sizes, each of which was replaced once or so.
fn mixed() -> Ready {
    let mut dice = Dice::new(11);
    let mut ready = empty();
    let mut left = GIANT * 6 / 10;
    while left > 0 {
        let run = (dice.below(10) == 0).then(|| take_piece(&mut dice));
        left = left.saturating_sub(run.as_ref().map_or(1, FrameRange::len));
        match run {
            Some(run) => ready.runs.push(Some(run)),
            None => ready.frames.push(Some(take())),
        }
    }
    replace_pieces(&mut ready, GIANT / 4, 13);
    ready
}

fn replace_mixed(ready: &mut Ready) {
    replace_pieces(ready, TIMES, 17);
}

fn replace_pieces(ready: &mut Ready, times: u64, seed: u64) {
    let mut dice = Dice::new(seed);
    for _ in 0..times {
        if dice.below(10) > 0 {
            let at = dice.below(ready.frames.len() as u64) as usize;
            give(ready.frames[at].take().expect("a frame"));
            ready.frames[at] = Some(take());
            continue;
        }
        let at = dice.below(ready.runs.len() as u64) as usize;
        let run = ready.runs[at].take().expect("a run");
        POOL.free_run(run).expect("a run that is not free");
        ready.runs[at] = Some(take_piece(&mut dice));
    }
}

/// A run of one of these lengths.
fn take_piece(dice: &mut Dice) -> FrameRange {
    let mut number = dice.below(100);
    let fits = |(weight, _): &&(u64, u64)| {
        let is_it = number < *weight;
        number = number.wrapping_sub(*weight);
        is_it
    };
    let (_, count) = RUNS.iter().find(fits).expect("the weights are 100 in all");
    POOL.alloc_run(&Request::new(*count)).expect("a run")
}

fn bulk(_: &mut Ready) {
    let mut frames = [const { None }; 32];
    for _ in 0..TIMES {
        assert_eq!(POOL.alloc_bulk(black_box(&mut frames)), 32);
        POOL.free_bulk(black_box(&mut frames)).expect("frames that are not free");
    }
}

fn failing(_: &mut Ready) {
    for _ in 0..TIMES {
        assert!(black_box(POOL.alloc()).is_err());
    }
}

fn statistics(_: &mut Ready) {
    for _ in 0..TIMES {
        black_box(POOL.stats());
    }
}

/// What callgrind counts: by this name, so it must be one function that is called.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn frametree_counted(path: &Path, ready: &mut Ready) {
    (black_box(path.go))(ready);
}

fn run(path: &Path, how: Option<&str>) {
    support::with_map(&[(0, GIANT)], |map| {
        let layout = Layout::new(map, 1).expect("a layout");
        let (setup, layout) = setup(how, layout);
        let storage = vec![0; layout.bytes() / 8 + 16].leak();
        // SAFETY: nobody uses the memory, or looks at it but through `mapped`.
        unsafe { POOL.init_in(map, setup, storage) }.expect("a pool");
    });
    let mut ready = (path.prepare)();
    frametree_counted(path, &mut ready);
}

/// In which ways a pool can be hardened, or not though it could.
#[cfg(feature = "hardened")]
const WAYS: [&str; 4] = ["off", "ledger", "placed", "poison"];

/// What is counted of hardened pools: paths that don't touch all of the memory.
#[cfg(feature = "hardened")]
const HARDENED: [&str; 7] = [
    "pair",
    "alloc_in_order",
    "free_in_order",
    "free_at_random",
    "block_pair",
    "run_of_4_pair",
    "bulk_of_32_pair",
];

#[cfg(not(feature = "hardened"))]
fn setup(_: Option<&str>, layout: Layout) -> (Setup, Layout) {
    (Setup::new(1), layout)
}

#[cfg(feature = "hardened")]
fn setup(how: Option<&str>, layout: Layout) -> (Setup, Layout) {
    use frametree::Hardening;

    fn mapped(address: u64) -> *mut u8 {
        static MEMORY: std::sync::OnceLock<usize> = std::sync::OnceLock::new();
        let start = MEMORY.get_or_init(|| {
            vec![0u64; (GIANT << 9) as usize].leak().as_mut_ptr().expose_provenance()
        });
        std::ptr::with_exposed_provenance_mut(start + address as usize)
    }

    let ledger = Hardening::new(|violation| panic!("{violation}"));
    let how = match how {
        Some("ledger") => ledger,
        Some("placed") => ledger.placed_by(1),
        // SAFETY: a GiB is mapped.
        Some("poison") => unsafe { ledger.poisoned_through(mapped) },
        _ => return (Setup::new(1), layout),
    };
    (Setup::new(1).hardened(how), layout.hardened())
}

#[cfg(feature = "hardened")]
fn hardened_table() -> Result<(), String> {
    println!("# Instructions of a pool with the feature `hardened`, each path for one time:");
    println!("# not asked for, with a ledger, and with that and placement or poison.");
    println!("# `make hardened-cost` writes this.");
    println!("{:20} {:>10} {:>10} {:>10} {:>10}", "", WAYS[0], WAYS[1], WAYS[2], WAYS[3]);
    for path in PATHS.iter().filter(|path| HARDENED.contains(&path.name)) {
        print!("{:20}", path.name);
        for how in WAYS {
            print!(" {:10.1}", count(path, Some(how))?);
        }
        println!();
    }
    Ok(())
}

#[cfg(not(feature = "hardened"))]
fn hardened_table() -> Result<(), String> {
    Err("built without the feature `hardened`: see `make hardened-cost`".into())
}

/// Instructions for one time, as callgrind has counted them.
fn count(path: &Path, how: Option<&str>) -> Result<f64, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg("--toggle-collect=frametree_counted")
        .arg(program)
        .arg(path.name)
        .args(how)
        .output()
        .map_err(|error| format!("valgrind does not start: {error}"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    let collected = text.lines().find_map(|line| line.split("Collected :").nth(1));
    match collected.and_then(|number| number.trim().parse::<u64>().ok()) {
        Some(number) if output.status.success() && number > TIMES => {
            Ok(number as f64 / TIMES as f64)
        }
        _ => Err(format!("callgrind counted nothing for {}:\n{text}", path.name)),
    }
}

fn table() -> Result<(), String> {
    let compiler = Command::new("rustc").arg("--version").output();
    let compiler = compiler.map_err(|error| format!("rustc does not start: {error}"))?;
    println!("# Instructions of the hot paths, each for one time, as callgrind counts them.");
    println!("# `make instructions` writes this; tests/instructions.rs compares.");
    println!("# {}", String::from_utf8_lossy(&compiler.stdout).trim());
    for path in PATHS {
        println!("{:20} {:10.1}", path.name, count(path, None)?);
    }
    Ok(())
}

fn main() -> ExitCode {
    let argument = std::env::args().nth(1);
    match argument.as_deref() {
        None => PATHS.iter().for_each(|path| println!("{}", path.name)),
        Some(which @ ("--table" | "--hardened")) => {
            let table = if which == "--table" { table() } else { hardened_table() };
            if let Err(error) = table {
                eprintln!("{error}");
                return ExitCode::FAILURE;
            }
        }
        Some(name) => match PATHS.iter().find(|path| path.name == name) {
            Some(path) => run(path, std::env::args().nth(2).as_deref()),
            None => {
                eprintln!("there is no path {name}");
                return ExitCode::FAILURE;
            }
        },
    }
    ExitCode::SUCCESS
}
