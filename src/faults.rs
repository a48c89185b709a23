//! Every operation on the tree, disturbed at each of its compare-exchanges in turn: first by a
//! failure, as if another CPU had been faster; then by another CPU that truly takes a frame in
//! the way, for good or for a moment, or all that is free; then by a theft and a failure. So
//! every undo is taken at every step, the same each time.
//!
//! After each the tree must be sound, every frame free or held by one, and what the operation
//! has said must be so. Then all goes back, and the tree must be whole again.

extern crate std;

use std::boxed::Box;
use std::cell::RefCell;
use std::rc::Rc;
use std::vec;
use std::vec::Vec;

use crate::bits::runs;
use crate::cache::Handful;
use crate::counts::pool;
use crate::error::{AllocError, NoRun, OutOfMemory};
use crate::frame::{FrameNumber, NumberRange};
use crate::geometry::{BLOCK_FRAMES, FRAME_SIZE, GIANT_FRAMES, WORD_BITS};
use crate::journal::Counter;
use crate::request::Request;
use crate::sync::faults::{Fault, during};
use crate::tree::{FrameTree, FreeCount, Wanted};

/// Frames of the larger trees: two GiBs, two blocks and crumbs.
const LARGE: u64 = 2 * GIANT_FRAMES + 2 * BLOCK_FRAMES + 100;
/// Of the smaller.
const SMALL: u64 = 8 * BLOCK_FRAMES + 100;

/// An operation.
#[derive(Clone, Copy, Debug)]
enum Work {
    Run(Request),
    Frame,
    Word,
    Block,
    Giant,
    /// A free of (first frame, frames), which are held.
    Free(u64, u64),
}

/// An operation, and what is held before.
struct Case {
    frames: u64,
    held: &'static [(u64, u64)],
    work: Work,
    /// Frames that other CPUs may want meanwhile.
    wanted: &'static [u64],
}

const fn case(
    frames: u64,
    held: &'static [(u64, u64)],
    work: Work,
    wanted: &'static [u64],
) -> Case {
    Case { frames, held, work, wanted }
}

const fn run(count: u64) -> Work {
    Work::Run(Request::new(count))
}

const fn run_at(first: u64, count: u64) -> Work {
    Work::Run(Request::new(count).at(FrameNumber::new(first)))
}

const CASES: &[Case] = &[
    // Within a word, across words, across the blocks of a split GiB.
    case(SMALL, &[(0, 3)], run(5), &[3, 5, 7]),
    case(SMALL, &[(0, 10)], run(150), &[10, 64, 100, 159]),
    case(SMALL, &[(0, 10)], run(700), &[10, 511, 512, 709]),
    case(SMALL, &[(0, 1), (600, 1)], run(599), &[1, 512, 599]),
    // Splits of a block and of a GiB.
    case(SMALL, &[], run(100), &[0, 64, 99]),
    case(LARGE, &[], run(100), &[0, 99, 511]),
    case(LARGE, &[], run(1000), &[0, 512, 999]),
    // Whole blocks and GiBs, and what sticks out.
    case(SMALL, &[], run(BLOCK_FRAMES), &[0, 511]),
    case(SMALL, &[(0, 1)], run(2 * BLOCK_FRAMES), &[1, 512, 1024]),
    case(SMALL, &[], run(3 * BLOCK_FRAMES + 70), &[0, 1024, 1535, 1605]),
    case(LARGE, &[], run(GIANT_FRAMES), &[0, GIANT_FRAMES / 2, GIANT_FRAMES - 1]),
    case(LARGE, &[], run(GIANT_FRAMES + 70), &[0, GIANT_FRAMES - 1, GIANT_FRAMES + 69]),
    // Aligned, within limits, and at a place.
    case(SMALL, &[(0, 1)], Work::Run(Request::new(64).align(2 << 20)), &[512, 575]),
    case(SMALL, &[(0, 1)], Work::Run(Request::new(9).not_crossing(16 * FRAME_SIZE)), &[1, 9]),
    case(SMALL, &[(0, 1)], run_at(77, 3), &[77, 79]),
    case(SMALL, &[(0, 1)], run_at(100, 1000), &[100, 512, 1099]),
    case(
        LARGE,
        &[],
        run_at(GIANT_FRAMES - 412, GIANT_FRAMES + 412 + 612),
        &[GIANT_FRAMES - 412, GIANT_FRAMES, 2 * GIANT_FRAMES, 2 * GIANT_FRAMES + 611],
    ),
    // One frame, a word, a block, a GiB.
    case(SMALL, &[(0, 3)], Work::Frame, &[3, 4]),
    case(LARGE, &[], Work::Frame, &[0, 1, 600]),
    case(SMALL, &[(0, 3)], Work::Word, &[3, 4, 64]),
    case(LARGE, &[], Work::Word, &[0, 1, 600]),
    case(SMALL, &[(0, 1)], Work::Block, &[512, 700, 1024]),
    case(LARGE, &[], Work::Block, &[0, 511, 512]),
    case(LARGE, &[], Work::Giant, &[0, GIANT_FRAMES - 1, GIANT_FRAMES]),
    // Merges: of a block, of a GiB, of both; by a frame, a part of a run, a run.
    case(SMALL, &[(5, 1)], Work::Free(5, 1), &[0, 63, 64, 200, 511]),
    case(SMALL, &[(0, 700)], Work::Free(0, 512), &[0, 511, 700]),
    case(SMALL, &[(0, 700)], Work::Free(30, 670), &[30, 512, 699]),
    case(LARGE, &[(5, 1)], Work::Free(5, 1), &[0, 64, 511, 512, GIANT_FRAMES - 1]),
    case(
        LARGE,
        &[(BLOCK_FRAMES, BLOCK_FRAMES)],
        Work::Free(BLOCK_FRAMES, BLOCK_FRAMES),
        &[0, 512, GIANT_FRAMES - 1],
    ),
    case(
        LARGE,
        &[(7, GIANT_FRAMES + 70)],
        Work::Free(7, GIANT_FRAMES + 70),
        &[7, 512, GIANT_FRAMES],
    ),
];

/// Another CPU.
#[derive(Clone, Copy, Debug)]
enum Other {
    /// Takes a frame, if it is free, for good.
    Keeps(u64),
    /// Takes a frame, if it is free, and gives it back at once.
    Returns(u64),
    /// Takes all that is free, so that every hint is taken back.
    KeepsAll,
}

/// A tree, and who holds what.
struct Ledger {
    tree: &'static FrameTree<'static>,
    first: FreeCount,
    held: RefCell<Vec<NumberRange>>,
    /// What another CPU took.
    stolen: RefCell<Vec<FrameNumber>>,
}

impl Ledger {
    fn new(frames: u64) -> Rc<Self> {
        let tree = pool(frames).tree().expect("a tree");
        let first = tree.count_free();
        Rc::new(Self { tree, first, held: RefCell::default(), stolen: RefCell::default() })
    }

    fn got(&self, run: NumberRange) {
        let mut held = self.held.borrow_mut();
        let disjoint =
            |other: &NumberRange| other.end() <= run.start() || run.end() <= other.start();
        assert!(held.iter().all(disjoint), "{run:?} has two owners");
        held.push(run);
    }

    /// The same for all frames of a cache; returns them one by one.
    fn got_all(&self, cache: &Handful) -> Vec<FrameNumber> {
        let first = cache.base().get();
        for (start, len) in runs(cache.free()) {
            let start = first + u64::from(start);
            self.got(NumberRange::from_numbers(start, start + u64::from(len)));
        }
        let free = (0..WORD_BITS).filter(|bit| cache.free() >> bit & 1 != 0);
        free.map(|bit| FrameNumber::new(first + bit)).collect()
    }

    /// Takes frames out of those held, cutting what they are part of.
    fn give(&self, run: NumberRange) {
        let mut held = self.held.borrow_mut();
        let holds = |other: &NumberRange| other.start() <= run.start() && run.end() <= other.end();
        let at = held.iter().position(holds).expect("held");
        let whole = held.swap_remove(at);
        let rest = [(whole.start(), run.start()), (run.end(), whole.end())];
        let rest = rest.into_iter().map(|(start, end)| NumberRange::new(start, end));
        held.extend(rest.filter(|rest| !rest.is_empty()));
    }

    /// Puts these frames, and no others, into the caller's hands.
    fn hold(&self, runs: &[(u64, u64)]) {
        for &(first, count) in runs {
            let request = Request::new(count).at(FrameNumber::new(first));
            self.got(self.tree.alloc_run(&request).expect("free").into_numbers());
        }
    }

    /// Does it, and looks whether what it says is so.
    fn perform(&self, work: Work) {
        let writer = self.tree.sole_writer(0);
        let whole = |first: FrameNumber, count: u64| {
            assert!(first.get().is_multiple_of(count));
            self.got(NumberRange::from_numbers(first.get(), first.get() + count));
        };
        match work {
            Work::Run(request) => self.perform_run(&request),
            Work::Frame => match self.tree.alloc_with(writer) {
                Ok(frame) => whole(frame.into_number(), 1),
                Err(OutOfMemory) => assert_eq!(self.tree.count_free().frames, 0),
            },
            Work::Word => match self.tree.refill_with(writer) {
                Ok(cache) => {
                    assert!(!cache.is_empty());
                    let _ = self.got_all(&cache);
                }
                Err(OutOfMemory) => assert_eq!(self.tree.count_free().frames, 0),
            },
            Work::Block => match self.tree.alloc_block_with(writer) {
                Ok(first) => whole(first.into_number(), BLOCK_FRAMES),
                Err(OutOfMemory) => assert_eq!(self.tree.count_free().blocks, 0),
            },
            Work::Giant => match self.tree.alloc_giant_with(writer) {
                Ok(first) => whole(first.into_number(), GIANT_FRAMES),
                Err(OutOfMemory) => assert_eq!(self.tree.count_free().giants, 0),
            },
            Work::Free(first, count) => {
                let run = NumberRange::from_numbers(first, first + count);
                self.give(run);
                self.tree.free_run_with(writer, run).expect("own frames");
            }
        }
    }

    fn perform_run(&self, request: &Request) {
        let writer = self.tree.sole_writer(0);
        match self.tree.alloc_run_with(writer, request, Wanted::Any) {
            Ok(run) => {
                let (run, rule) = (run.into_numbers(), request.rule());
                let (begin, end) = (run.start().get(), run.end().get());
                assert_eq!(run.len(), request.count());
                assert_eq!(rule.lowest_begin(begin), begin);
                assert!(end <= rule.latest_end(begin) && begin >= rule.first);
                self.got(run);
            }
            Err(AllocError::InTheWay { frame, .. }) => {
                assert!(self.stolen.borrow().contains(&frame), "{frame} was nobody else's");
            }
            Err(AllocError::NoRun(NoRun { longest, .. })) => {
                assert!(longest < request.count(), "{longest} in a row are free");
                assert!(!self.stolen.borrow().is_empty(), "nobody took anything");
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// What another CPU does at some step of an operation.
    fn come_between(&self, other: Other) {
        // As an interrupt, which does not wait for what it has interrupted.
        let writer = self.tree.nested_writer(0);
        let (Other::Keeps(frame) | Other::Returns(frame)) = other else {
            while let Ok(cache) = self.tree.refill_with(writer) {
                self.stolen.borrow_mut().extend(self.got_all(&cache));
            }
            return;
        };
        let request = Request::new(1).at(FrameNumber::new(frame));
        let Ok(taken) = self.tree.alloc_run_with(writer, &request, Wanted::Any) else { return };
        self.stolen.borrow_mut().push(taken.numbers().start());
        let taken = taken.into_numbers();
        self.got(taken);
        if matches!(other, Other::Returns(_)) {
            self.give(taken);
            self.tree.free_run_with(writer, taken).expect("own frame");
        }
    }

    /// Sound, and every frame free or held.
    fn check(&self) {
        self.tree.verify().unwrap_or_else(|broken| panic!("{broken}"));
        let held = self.held.borrow();
        let sum: u64 = held.iter().map(|run| run.len()).sum();
        assert_eq!(self.tree.count_free().frames + sum, self.tree.managed_frames());
        for run in held.iter() {
            let (start, end) = (run.start().get(), run.end().get());
            for base in (start / WORD_BITS * WORD_BITS..end).step_by(WORD_BITS as usize) {
                let (free, _) = self.tree.peek(FrameNumber::new(base)).expect("managed");
                let mine = (0..WORD_BITS).filter(|bit| (start..end).contains(&(base + bit)));
                assert!(mine.fold(0, |mine, bit| mine | 1 << bit) & free == 0, "free and held");
            }
        }
    }

    /// Everything goes back, and is put together again.
    fn empty(&self) {
        for run in self.held.take() {
            self.tree.free_run_with(self.tree.sole_writer(0), run).expect("own frames");
        }
        self.stolen.take();
        self.check();
        assert_eq!(self.tree.count_free(), self.first, "not merged");
    }
}

impl Case {
    /// Does the operation with these faults; whether it came to all of them.
    fn disturbed(&self, ledger: &Rc<Ledger>, faults: Vec<(u64, Fault)>) -> bool {
        ledger.hold(self.held);
        let (came_to_all, ()) = during(faults, || ledger.perform(self.work));
        ledger.check();
        came_to_all
    }

    /// Another CPU that does this at the given step.
    fn other(ledger: &Rc<Ledger>, step: u64, other: Other) -> (u64, Fault) {
        let ledger = ledger.clone();
        (step, Fault::Before(Box::new(move || ledger.come_between(other))))
    }

    /// Everybody who may come in between.
    fn others(&self) -> impl Iterator<Item = Other> {
        let one = |&frame: &u64| [Other::Keeps(frame), Other::Returns(frame)];
        // Word by word: of a small memory only.
        let all = (self.frames == SMALL).then_some(Other::KeepsAll);
        self.wanted.iter().flat_map(one).chain(all)
    }
}

#[test]
fn an_exchange_that_fails_changes_nothing_about_the_outcome() {
    for case in CASES {
        let ledger = Ledger::new(case.frames);
        case.disturbed(&ledger, Vec::new());
        let (held, free) = (ledger.held.borrow().clone(), ledger.tree.count_free());
        ledger.empty();
        let mut step = 1;
        while case.disturbed(&ledger, vec![(step, Fault::Failure)]) {
            assert_eq!(*ledger.held.borrow(), held, "{:?}, step {step}", case.work);
            assert_eq!(ledger.tree.count_free(), free, "{:?}, step {step}", case.work);
            ledger.empty();
            step += 1;
        }
        // All but a free of what others hold the rest of, or of a whole GiB, exchanges something.
        assert!(step > 1 || matches!(case.work, Work::Free(..)), "{:?}: no step", case.work);
    }
}

#[test]
fn a_frame_that_another_cpu_takes_in_between_has_one_owner() {
    for case in CASES {
        let ledger = Ledger::new(case.frames);
        for other in case.others() {
            let lost = ledger.tree.sum(Counter::LostRaces);
            let mut step = 1;
            while case.disturbed(&ledger, vec![Case::other(&ledger, step, other)]) {
                ledger.empty();
                step += 1;
            }
            ledger.empty();
            let undone = ledger.tree.sum(Counter::LostRaces) - lost;
            let is_run = matches!(case.work, Work::Run(_)) && matches!(other, Other::Keeps(_));
            assert!(undone > 0 || !is_run, "{:?}, {other:?}: no claim was undone", case.work);
        }
    }
}

#[test]
fn an_undo_at_which_an_exchange_fails_gives_everything_back() {
    for case in CASES.iter().filter(|case| case.frames == SMALL) {
        let ledger = Ledger::new(case.frames);
        for other in case.wanted.iter().map(|&frame| Other::Keeps(frame)) {
            let mut step = 1;
            loop {
                let mut failure = step;
                let theft = || Case::other(&ledger, step, other);
                while case.disturbed(&ledger, vec![theft(), (failure, Fault::Failure)]) {
                    ledger.empty();
                    failure += 1;
                }
                ledger.empty();
                if failure == step {
                    break;
                }
                step += 1;
            }
        }
    }
}
