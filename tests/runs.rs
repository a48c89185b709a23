//! Runs of frames against a naive model: a flag for each frame, and a search by the definition.
//! Whatever the request, the tree must give the run that the model finds first, take exactly its
//! frames, and take back any part of it.
#![cfg(not(loom))]

mod support;

use frametree::{
    AllocError, Found, FrameNumber, FramePool, FrameRange, FrameTree, InTheWay, NoRun, NumberRange,
    Request, RequestError,
};
use proptest::prelude::*;
use support::{BLOCK, Dice, GIANT, Threads, frame, pool};

const FRAME: u64 = frametree::FRAME_SIZE;

fn numbers(start: u64, count: u64) -> NumberRange {
    NumberRange::from_numbers(start, start + count)
}

/// The owner of frames that the test says are held.
fn owner(start: u64, count: u64) -> FrameRange {
    // SAFETY: these frames are only numbers; what is wrong must be refused.
    unsafe { FrameRange::from_numbers(numbers(start, count)) }
}

/// A request as the model reads it.
#[derive(Clone, Copy, Debug)]
struct Wish {
    count: u64,
    /// Frames.
    align: u64,
    first: u64,
    end: u64,
    boundary: u64,
}

impl Wish {
    fn request(self) -> Request {
        Request::new(self.count)
            .align(self.align * FRAME)
            .above(self.first * FRAME)
            .below(self.end * FRAME)
            .not_crossing(self.boundary * FRAME)
    }

    fn allows(self, begin: u64) -> bool {
        let last = begin + self.count - 1;
        let crosses = self.boundary != 0 && begin / self.boundary != last / self.boundary;
        begin >= self.first && last < self.end && begin.is_multiple_of(self.align) && !crosses
    }
}

/// One flag for each frame: free or not.
struct Model(Vec<bool>);

impl Model {
    fn stretches(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let mut at = 0;
        std::iter::from_fn(move || {
            let start = at + self.0[at..].iter().position(|free| *free)?;
            let len = self.0[start..].iter().position(|free| !free);
            at = len.map_or(self.0.len(), |len| start + len);
            Some((start as u64, at as u64))
        })
    }

    fn first_run(&self, wish: Wish) -> Option<u64> {
        self.stretches().find_map(|(start, end)| {
            (start..(end + 1).saturating_sub(wish.count)).find(|begin| wish.allows(*begin))
        })
    }

    fn set(&mut self, start: u64, count: u64, free: bool) {
        for flag in &mut self.0[start as usize..(start + count) as usize] {
            assert_ne!(*flag, free, "near frame {start}");
            *flag = free;
        }
    }

    fn free(&self) -> u64 {
        self.0.iter().filter(|free| **free).count() as u64
    }
}

struct Both {
    pool: &'static FramePool<Threads>,
    model: Model,
    held: Vec<(u64, u64)>,
}

impl Both {
    fn new(regions: &[(u64, u64)]) -> Self {
        let end = regions.iter().map(|(start, count)| start + count).max().expect("a region");
        let mut model = Model(vec![false; end as usize]);
        regions.iter().for_each(|&(start, count)| model.set(start, count, true));
        Self { pool: pool(Threads, 1, regions), model, held: Vec::new() }
    }

    fn tree(&self) -> &'static FrameTree<'static> {
        self.pool.tree().expect("a tree")
    }

    fn alloc(&mut self, wish: Wish) {
        let said = self.tree().alloc_run(&wish.request()).map(FrameRange::into_numbers);
        match self.model.first_run(wish) {
            Some(begin) => {
                assert_eq!(said, Ok(numbers(begin, wish.count)), "{wish:?}");
                self.model.set(begin, wish.count, false);
                self.held.push((begin, wish.count));
            }
            None => self.is_refused(wish, said),
        }
    }

    fn is_refused(&self, wish: Wish, said: Result<NumberRange, AllocError>) {
        match said {
            Err(AllocError::NoRun(NoRun { request, free, longest, cached })) => {
                assert_eq!((request, free, cached), (wish.request(), self.model.free(), 0));
                // The longest that could have been had, and not one longer.
                let with = |count| self.model.first_run(Wish { count, ..wish }).is_some();
                assert!(longest == 0 || with(longest), "{wish:?}: {longest} is not to be had");
                assert!(!with(longest + 1), "{wish:?}: more than {longest} is to be had");
            }
            Err(AllocError::InTheWay { frame, .. }) => {
                assert_eq!(wish.request().exactly().map(NumberRange::len), Some(wish.count));
                let in_the_way = (wish.first..wish.end).find(|at| !self.is_free(*at));
                assert_eq!(Some(frame.get()), in_the_way, "{wish:?}");
            }
            said => assert!(wish.request().check().is_err(), "{wish:?}: {said:?}"),
        }
    }

    fn is_free(&self, frame: u64) -> bool {
        self.model.0.get(frame as usize).copied().unwrap_or(false)
    }

    /// Frees a part of something held, and keeps the rest.
    fn free_part(&mut self, dice: &mut Dice) {
        if self.held.is_empty() {
            return;
        }
        let which = dice.below(self.held.len() as u64) as usize;
        let (start, count) = self.held.swap_remove(which);
        let from = if dice.below(2) == 0 { 0 } else { dice.below(count) };
        let len = if dice.below(2) == 0 { count - from } else { 1 + dice.below(count - from) };
        assert_eq!(self.tree().free_run(owner(start + from, len)), Ok(()));
        self.model.set(start + from, len, true);
        let rest = [(start, from), (start + from + len, count - from - len)];
        self.held.extend(rest.into_iter().filter(|(_, count)| *count > 0));
    }

    fn check(&self) {
        self.pool.verify().unwrap_or_else(|broken| panic!("{broken}"));
        assert_eq!(self.tree().count_free().frames, self.model.free());
        for group in 0..self.model.0.len() as u64 / 64 {
            let free = self.tree().peek(FrameNumber::new(group * 64)).map_or(0, |(free, _)| free);
            let due = (0..64).filter(|bit| self.is_free(group * 64 + bit));
            assert_eq!(free, due.map(|bit| 1 << bit).sum::<u64>(), "group {group}");
        }
    }
}

fn wish(dice: &mut Dice, end: u64) -> Wish {
    let log = |dice: &mut Dice, below: u64| 1 << dice.below(below);
    let count = match dice.below(8) {
        0..4 => 1 + dice.below(70),
        4..6 => 1 + dice.below(3 * BLOCK),
        6 => BLOCK << dice.below(3),
        _ => 1 + dice.below(end),
    };
    let align = if dice.below(2) == 0 { 1 } else { log(dice, 14) };
    let boundary = if dice.below(4) == 0 { (count * 2).next_power_of_two() >> 1 } else { 0 };
    let boundary = if boundary < count { boundary * 2 } else { boundary };
    let (first, end) = match dice.below(4) {
        0 => (dice.below(end), end),
        1 => (0, 1 + dice.below(end)),
        2 => {
            let first = dice.below(end);
            (first, first + count)
        }
        _ => (0, 1 << 40),
    };
    Wish { count, align, first, end, boundary }
}

fn play(regions: &[(u64, u64)], seed: u64, steps: u64) {
    let mut both = Both::new(regions);
    let mut dice = Dice::new(seed);
    let end = both.model.0.len() as u64;
    for step in 0..steps {
        if dice.below(5) < 3 {
            both.alloc(wish(&mut dice, end));
        } else {
            both.free_part(&mut dice);
        }
        if step % 16 == 0 {
            both.check();
        }
    }
    for (start, count) in std::mem::take(&mut both.held) {
        assert_eq!(both.tree().free_run(owner(start, count)), Ok(()));
        both.model.set(start, count, true);
    }
    both.check();
    let first = pool(Threads, 1, regions).tree().expect("a tree").count_free();
    assert_eq!(both.tree().count_free(), first, "merged as at first");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn small_maps_agree_with_the_model(
        seed in any::<u64>(), gaps in prop::collection::vec((1..200u64, 1..1400u64), 1..6),
    ) {
        let mut at = 0;
        let regions: Vec<_> = gaps.into_iter().map(|(gap, count)| {
            at += gap + count;
            (at - count, count)
        }).collect();
        play(&regions, seed, 120);
    }
}

#[test]
fn runs_across_gibs_agree_with_the_model() {
    let regions = [(BLOCK + 3, 2 * GIANT), (2 * GIANT + 2 * BLOCK, BLOCK + 100)];
    (0..6).for_each(|seed| play(&regions, seed, 60));
}

#[test]
fn every_size_comes_exactly_and_goes_back_whole() {
    let pool = pool(Threads, 1, &[(0, 2 * GIANT)]);
    let tree = pool.tree().expect("a tree");
    let first = tree.count_free();
    let around = |n: u64| n - 1..=n + 1;
    let sizes = [2, 64, 128, BLOCK, 2 * BLOCK, GIANT, 2 * GIANT - 1];
    for count in sizes.into_iter().flat_map(around) {
        let run = tree.alloc_run(&Request::new(count)).expect("a run");
        assert_eq!(run.numbers(), numbers(0, count));
        assert_eq!(tree.count_free().frames, 2 * GIANT - count);
        tree.verify().unwrap_or_else(|broken| panic!("{count}: {broken}"));
        tree.free_run(run).expect("a free");
        tree.verify().unwrap_or_else(|broken| panic!("{count}: {broken}"));
        assert_eq!(tree.count_free(), first, "after {count}");
    }
}

#[test]
fn a_run_is_split_and_its_parts_go_back_in_any_order() {
    let pool = pool(Threads, 1, &[(0, 4 * BLOCK)]);
    let tree = pool.tree().expect("a tree");
    let run = tree.alloc_run(&Request::new(3 * BLOCK)).expect("a run");
    let (low, rest) = run.split_at(700);
    let (middle, high) = rest.split_at(1);
    for part in [middle, high, low] {
        tree.free_run(part).expect("a free");
        tree.verify().expect("sound");
    }
    assert_eq!(tree.count_free().blocks, 4);
}

#[test]
fn what_is_wrong_with_a_free_is_named_and_nothing_is_freed() {
    let pool = pool(Threads, 1, &[(64, 4 * BLOCK), (GIANT, GIANT)]);
    let tree = pool.tree().expect("a tree");
    let run = tree.alloc_run(&Request::new(1000)).expect("a run").into_numbers();
    let free = tree.count_free();
    let refused = |start: u64, count: u64, at: u64, found: Found| {
        let error = tree.free_run(owner(start, count)).expect_err("wrong");
        assert_eq!((error.frame.get(), error.found), (at, found), "{start}, {count}");
        assert_eq!(tree.count_free(), free);
        tree.verify().expect("sound");
    };
    // A tail that was never allocated, a head that is no memory, whole blocks, a whole GiB.
    refused(64, 1001, 1064, Found::Free);
    refused(0, 100, 0, Found::Unmanaged);
    refused(60, 100, 60, Found::Unmanaged);
    refused(64, 3 * BLOCK, 1064, Found::Free);
    refused(3 * BLOCK, BLOCK, 3 * BLOCK, Found::FreeBlock);
    refused(GIANT, GIANT, GIANT, Found::FreeGiant);
    refused(5 * BLOCK, 1, 5 * BLOCK, Found::Unmanaged);
    refused(9 * GIANT, 7, 9 * GIANT, Found::Unmanaged);
    // SAFETY: the run that was just allocated.
    tree.free_run(unsafe { FrameRange::from_numbers(run) }).expect("a free");
    assert_eq!(tree.free_run(owner(0, 0)), Ok(()), "nothing is no mistake");
    let error = tree.free_run(owner(64, 1000)).expect_err("a double free");
    assert_eq!((error.frame.get(), error.found), (64, Found::Free));
}

#[test]
fn a_frame_in_the_way_is_named() {
    let pool = pool(Threads, 1, &[(0, 2 * BLOCK), (3 * BLOCK, BLOCK)]);
    let tree = pool.tree().expect("a tree");
    let at =
        |start: u64, count: u64| tree.alloc_run(&Request::new(count).at(FrameNumber::new(start)));
    let taken = at(300, 5).expect("free");
    assert_eq!(taken.numbers(), numbers(300, 5));
    let way = |frame: u64, why| Err(AllocError::InTheWay { frame: FrameNumber::new(frame), why });
    assert_eq!(at(290, 30), way(300, InTheWay::Taken));
    assert_eq!(at(304, 1), way(304, InTheWay::Taken));
    assert_eq!(at(2 * BLOCK - 10, 11), way(2 * BLOCK, InTheWay::Unmanaged));
    assert_eq!(at(7 * GIANT, 1), way(7 * GIANT, InTheWay::Unmanaged));
    let rest = at(305, 719).expect("free to the end of the region");
    tree.free_run(rest).expect("a free");
    tree.free(frame(300)).expect("one of the run");
    assert_eq!(at(290, 30), way(301, InTheWay::Taken));
}

#[test]
fn requests_without_sense_are_refused_before_anything_is_looked_at() {
    let pool = pool(Threads, 1, &[(0, BLOCK)]);
    let said = pool.tree().expect("a tree").alloc_run(&Request::new(0));
    assert_eq!(said, Err(AllocError::Request(RequestError::NoFrames)));
    let text = said.expect_err("no sense").to_string();
    assert!(text.contains("0 frames"), "{text}");
}

#[test]
fn running_out_says_what_there_is() {
    let pool = pool(Threads, 1, &[(0, 2 * BLOCK)]);
    let tree = pool.tree().expect("a tree");
    let middle = tree.alloc_run(&Request::new(10).at(FrameNumber::new(500))).expect("free");
    let request = Request::new(520);
    let error = tree.alloc_run(&request).expect_err("too long");
    let due = NoRun { request, free: 1014, longest: 514, cached: 0 };
    assert_eq!(error, AllocError::NoRun(due));
    assert_eq!(
        error.to_string(),
        "no run of 520 contiguous frames; 1014 frames are free, 514 in a row could be had"
    );
    tree.free_run(middle).expect("a free");
}

/// What a search in vain says of a GiB holds for all of it, not only for what it has looked at.
#[test]
fn a_run_is_found_after_longer_ones_were_not_and_none_was_further_up() {
    for (before, behind) in [(1, 1), (1, 2), (2, 1), (3, 3)] {
        let pool = pool(Threads, 1, &[(0, GIANT)]);
        let tree = pool.tree().expect("a tree");
        let giant = tree.alloc_giant().expect("the GiB").into_number().get();
        // A run from the last block that shares a word of bounds into the first of the next eight.
        let (end, count) = (giant + 128 * BLOCK, before + behind);
        (end - before..end + behind).for_each(|number| tree.free(frame(number)).expect("a free"));
        let longer = tree.alloc_run(&Request::new(count + 1));
        assert!(longer.is_err(), "{count} frames are all that is free");
        let above = Request::new(count).above((end + behind) * FRAME);
        assert!(tree.alloc_run(&above).is_err(), "nothing is free there");
        let run = tree.alloc_run(&Request::new(count)).expect("the frames");
        assert_eq!(run.into_numbers(), numbers(end - before, count));
    }
}

/// What is free at a GiB's end goes on in the next one, also if that came free after a search in
/// vain.
#[test]
fn a_run_goes_on_from_a_used_gib_into_a_free_one() {
    let pool = pool(Threads, 1, &[(0, 2 * GIANT)]);
    let tree = pool.tree().expect("a tree");
    let [lower, upper] = [(); 2].map(|()| tree.alloc_giant().expect("a GiB"));
    let end = upper.number().get();
    let _ = lower.into_number(); // given back in part
    (end - 10..end).for_each(|number| tree.free(frame(number)).expect("a free"));
    assert!(tree.alloc_run(&Request::new(20)).is_err(), "10 frames are all that is free");
    tree.free_giant(upper).expect("own frames");
    let run = tree.alloc_run(&Request::new(20)).expect("the frames");
    assert_eq!(run.into_numbers(), numbers(end - 10, 20));
}

/// What a search in vain says of the ends of two GiBs is no less than what is free there.
#[test]
fn a_run_across_two_used_gibs_is_found_after_longer_ones_were_not() {
    for (before, behind) in [(60, 60), (1, 99), (99, 1), (300, 2)] {
        let pool = pool(Threads, 1, &[(0, 2 * GIANT)]);
        let tree = pool.tree().expect("a tree");
        let [_, upper] = [(); 2].map(|()| tree.alloc_giant().expect("a GiB").into_number().get());
        let count = before + behind;
        let free = upper - before..upper + behind;
        free.for_each(|number| tree.free(frame(number)).expect("a free"));
        for more in [2 * count, count + 1] {
            assert!(tree.alloc_run(&Request::new(more)).is_err(), "{count} frames are free");
        }
        let run = tree.alloc_run(&Request::new(count)).expect("the frames");
        assert_eq!(run.into_numbers(), numbers(upper - before, count));
    }
}

/// A limit is that of an address, in the first 64 GiB and behind.
#[test]
fn a_run_above_an_address_is_found_in_far_memory() {
    let far = 70 * GIANT;
    let pool = pool(Threads, 1, &[(0, GIANT), (far, GIANT)]);
    for at in [far - GIANT, far, far + 5 * BLOCK + 7] {
        let run = pool.alloc_run(&Request::new(3).above(at * FRAME)).expect("a run");
        assert_eq!(run.numbers(), numbers(at.max(far), 3));
        pool.free_run(run).expect("own frames");
    }
    let beyond = Request::new(3).above((far + GIANT) * FRAME);
    assert!(pool.alloc_run(&beyond).is_err(), "there is nothing");
}

/// Who had a GiB may have written to it: no frame of it is taken for zero after that.
#[test]
fn what_was_zero_in_a_giant_is_forgotten_when_it_is_taken() {
    let pool = pool(Threads, 1, &[(0, GIANT)]);
    let tree = pool.tree().expect("a tree");
    let zeroed = tree.alloc().expect("a frame");
    let number = zeroed.number();
    // SAFETY: the tests use no memory; that it is zero is what the test says.
    unsafe { tree.free_zeroed(zeroed) }.expect("own frame");
    let giant = tree.alloc_giant().expect("all is free again");
    tree.free_giant(giant).expect("own frames");
    let mut cleared = None;
    let again = tree.alloc_zeroed(|frame| cleared = Some(frame.number())).expect("a frame");
    assert_eq!(
        (again.number(), cleared),
        (number, Some(number)),
        "the lowest, not known to be zero"
    );
    tree.free(again).expect("own frame");
}

/// Frees single frames, some as zeroed; a run of all of them then shows the others, and no frame
/// that is zero.
#[test]
fn of_a_zeroed_run_what_is_not_known_to_be_zero_is_shown() {
    let mut dice = Dice::new(7);
    for pass in 0..40 {
        let pool = pool(Threads, 1, &[(0, 3 * BLOCK)]);
        let mut frames = Vec::from_iter((0..3 * BLOCK).map(|_| pool.alloc().expect("a frame")));
        dice.shuffle(&mut frames);
        let mut zeroed = vec![false; frames.len()];
        // All, none, and shares in between; in stretches that lie across words.
        let share = pass % 4;
        for frame in frames {
            let number = frame.number().get();
            zeroed[number as usize] = (number / 48) % 4 < share;
            let freed = if zeroed[number as usize] {
                // SAFETY: the tests use no memory; that it is zero is what the model says.
                unsafe { pool.free_zeroed(frame) }
            } else {
                pool.free(frame)
            };
            freed.expect("own frame");
        }
        let (start, align) = if pass < 20 { (dice.below(BLOCK), 1) } else { (BLOCK, BLOCK) };
        let count = if pass < 20 { 1 + dice.below(2 * BLOCK) } else { BLOCK };
        // So close that what the cache has of it must come back first.
        let end = (start + count + 1) * FRAME;
        let request = Request::new(count).align(align * FRAME).above(start * FRAME).below(end);
        let mut dirty = vec![true; zeroed.len()];
        let run = pool.alloc_run_zeroed(&request, |shown| {
            let shown = shown.start().get() as usize..shown.end().get() as usize;
            dirty[shown].iter_mut().for_each(|dirty| *dirty = !*dirty);
        });
        let run = run.expect("some of it is in the cache, and comes back").into_numbers();
        let start = run.start().get();
        assert_eq!(run, numbers(start, count), "exactly so many");
        for number in 0..zeroed.len() {
            let inside = (run.start().get()..run.end().get()).contains(&(number as u64));
            // Shown once at most: twice would have turned it back.
            assert_eq!(dirty[number], !inside || zeroed[number], "frame {number} of {run:?}");
        }
        // What it was is forgotten now; nothing of what is free still.
        pool.free_run(owner(start, count)).expect("own frames");
        let mut shown = 0;
        let all = pool.alloc_run_zeroed(&Request::new(3 * BLOCK), |part| shown += part.len());
        let kept = (0..zeroed.len() as u64)
            .filter(|at| zeroed[*at as usize] && !(start..start + count).contains(at));
        assert_eq!(shown, 3 * BLOCK - kept.count() as u64);
        pool.free_run(all.expect("all of it")).expect("own frames");
        pool.verify().unwrap_or_else(|broken| panic!("{broken}"));
    }
}

#[test]
fn a_zeroed_block_is_a_block_and_what_is_wrong_is_said() {
    let pool = pool(Threads, 1, &[(0, 2 * GIANT)]);
    let mut shown = Vec::new();
    for frames in [BLOCK, GIANT] {
        let request = Request::new(frames).align(frames * FRAME);
        let run = pool.alloc_run_zeroed(&request, |part| shown.push(part)).expect("memory");
        let first = run.into_numbers().start();
        assert_eq!(shown.pop(), Some(numbers(first.get(), frames)), "in one piece");
        assert!(shown.is_empty());
        let first = frame(first.get());
        let freed = if frames == BLOCK { pool.free_block(first) } else { pool.free_giant(first) };
        freed.expect("held as a whole");
    }
    let none = pool.alloc_run_zeroed(&Request::new(0), |_| unreachable!("nothing was taken"));
    assert_eq!(none, Err(AllocError::Request(RequestError::NoFrames)));
    let more = pool.alloc_run_zeroed(&Request::new(3 * GIANT), |_| unreachable!("nor was this"));
    assert!(matches!(more, Err(AllocError::NoRun(NoRun { longest, .. })) if longest == 2 * GIANT));
}

/// A pool whose cache holds crumbs that no run fits into, so that runs come from beyond it: of each
/// word of the first 64 frames every second one, and of the others stretches.
fn fragmented(dice: &mut Dice) -> (&'static FramePool<Threads>, Model) {
    let (words, frames) = (64, 8 * BLOCK);
    let pool = pool(Threads, 1, &[(0, frames)]);
    let tree = pool.tree().expect("a tree");
    let _ = tree.alloc_run(&Request::new(frames)).expect("all of it").into_numbers();
    let mut model = Model(vec![false; frames as usize]);
    let mut give = |start: u64, count: u64| {
        tree.free_run(owner(start, count)).expect("a free");
        model.set(start, count, true);
    };
    (0..64).step_by(2).for_each(|at| give(at, 1));
    let mut at = words;
    while at < frames {
        let count = (1 + dice.below(60)).min(frames - at);
        give(at, count);
        at += count + 1 + dice.below(20);
        // Now and then from where a word begins.
        at = if dice.below(4) == 0 { at.next_multiple_of(64) } else { at };
    }
    // The cache takes the lowest word, and keeps what is of no use for a run.
    let frame = pool.alloc().expect("a frame");
    pool.free(frame).expect("a free");
    (0..64).step_by(2).for_each(|at| model.set(at, 1, false));
    (pool, model)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// What this CPU frees is found again where it is the lowest, also if it waits in the cache.
    #[test]
    fn through_the_pool_one_cpu_alone_gets_the_lowest_run(
        seed in any::<u64>(), burst in 1..4u64, sizes in prop::collection::vec(
            prop_oneof![2..24u64, 2..130u64, (1..5u64).prop_map(|words| words * 16)], 1..4,
        ),
    ) {
        let mut dice = Dice::new(seed);
        let (pool, mut model) = fragmented(&mut dice);
        let mut held: Vec<(u64, u64)> = Vec::new();
        for _ in 0..400 {
            for _ in 0..dice.below(burst + 1) {
                let count = sizes[dice.below(sizes.len() as u64) as usize];
                let wish = Wish { count, align: 1, first: 0, end: 1 << 40, boundary: 0 };
                let Some(begin) = model.first_run(wish) else { continue };
                let run = pool.alloc_run(&Request::new(count)).expect("there is one");
                prop_assert_eq!(run.into_numbers(), numbers(begin, count));
                model.set(begin, count, false);
                held.push((begin, count));
            }
            for _ in 0..dice.below(burst + 1).min(held.len() as u64) {
                let (start, count) = held.swap_remove(dice.below(held.len() as u64) as usize);
                let from = if dice.below(4) == 0 { dice.below(count) } else { 0 };
                pool.free_run(owner(start + from, count - from)).expect("a free");
                model.set(start + from, count - from, true);
                if from > 0 {
                    held.push((start, from));
                }
                let again = pool.free_run(owner(start + from, count - from));
                prop_assert_eq!(again.expect_err("a double free").frame.get(), start + from);
            }
            prop_assert_eq!(pool.stats().free_frames, model.free() + 32);
        }
        pool.verify().unwrap_or_else(|broken| panic!("{broken}"));
        pool.drain().expect("a drain");
        prop_assert_eq!(pool.tree().expect("a tree").count_free().frames, model.free() + 32);
        pool.verify().unwrap_or_else(|broken| panic!("{broken}"));
    }
}
