//! The method.
//!
//! All contestants of a row are prepared and then alive at the same time. In a round each runs one
//! short block (about 2 ms), in random order, then one more, in the reversed order: what drifts
//! during a round hits all alike. A round gives each contestant one figure, and one ratio to ours,
//! from blocks that ran within the same tenths of a second; medians of both are kept, with half of
//! the interquartile range as the spread. A figure from blocks in which the thread was kept off its
//! CPU, or in which two threads did not run side by side, is thrown away and counted.

use std::time::{Duration, Instant};

use cpu_time::ThreadTime;

use crate::allocator::Refusal;
use crate::machine::Sample;
use crate::stats::{median, spread};
use crate::support::Dice;

/// How long a block should take.
pub const BLOCK: Duration = Duration::from_millis(2);

/// How much is measured.
#[derive(Clone, Copy)]
pub struct Effort {
    /// Rounds that are kept, at least, if the machine lets us.
    pub rounds: usize,
    /// How long a contestant may take to get ready for a row, and in all of its rounds: on the
    /// CPU, so that others on the machine do not count.
    pub patience: Duration,
    /// When a row ends that has three rounds, even if the machine was never quiet: on the wall.
    pub time: Duration,
}

/// How long somebody waits for this thread, in its own time.
#[derive(Clone, Copy)]
pub struct Patience {
    start: ThreadTime,
    duration: Duration,
}

impl Patience {
    pub fn new(duration: Duration) -> Self {
        Self { start: ThreadTime::now(), duration }
    }

    pub fn check(self) -> Result<(), Refusal> {
        if self.start.elapsed() < self.duration { Ok(()) } else { Err(Refusal::TooSlow) }
    }
}

/// A further figure of a contestant. Lower is better.
pub struct Extra {
    pub what: String,
    pub median: f64,
    pub spread: f64,
    pub unit: &'static str,
}

impl Extra {
    /// One that is exact.
    pub fn plain(what: &str, figure: f64, unit: &'static str) -> Self {
        Self { what: what.into(), median: figure, spread: 0.0, unit }
    }
}

/// An allocator in a workload, ready to run.
pub trait Contestant {
    /// Runs about `ops` operations.
    fn block(&mut self, ops: u64, patience: Patience) -> Result<Sample, Refusal>;
    /// Whether how much is done in a block is the contestant's own affair.
    fn has_own_blocks(&self) -> bool {
        false
    }
    /// What else there is to say, after the last round.
    fn extras(&mut self) -> Vec<Extra> {
        Vec::new()
    }
}

/// A contestant by name, or why there is none.
pub struct Entry {
    pub name: &'static str,
    pub contestant: Result<Box<dyn Contestant>, Refusal>,
}

/// What was measured. Times are nanoseconds for an operation.
pub struct Outcome {
    pub name: &'static str,
    pub median: f64,
    pub spread: f64,
    pub wall: f64,
    /// How many times the figure of the first entry, ours.
    pub ratio: f64,
    pub kept: usize,
    pub thrown: usize,
    /// It stopped before the others.
    pub gave_up: bool,
    pub extras: Vec<Extra>,
}

struct Lane {
    name: &'static str,
    contestant: Box<dyn Contestant>,
    ops: u64,
    spent: Duration,
    /// One of each round so far, unless it gave up.
    rounds: Vec<Sample>,
    gave_up: bool,
}

impl Lane {
    /// Finds how many operations a block is; warms up.
    fn calibrate(&mut self, effort: Effort) -> Result<(), Refusal> {
        let patience = Patience::new(effort.patience);
        if self.contestant.has_own_blocks() {
            return Ok(());
        }
        loop {
            let sample = self.contestant.block(self.ops, patience)?;
            let wanted = BLOCK.as_nanos() as f64;
            if sample.cpu >= wanted / 8.0 {
                let each = sample.cpu / sample.ops.max(1) as f64;
                self.ops = ((wanted / each) as u64).max(1);
                return Ok(());
            }
            self.ops *= 4;
        }
    }

    fn block(&mut self, round: usize, effort: Effort) {
        if self.gave_up {
            return;
        }
        let start = ThreadTime::now();
        let left = effort.patience.saturating_sub(self.spent);
        match self.contestant.block(self.ops, Patience::new(left)) {
            Ok(sample) => {
                // Of several threads, this one only waits for the others.
                self.spent += Duration::from_nanos(sample.cpu as u64);
                if self.rounds.len() <= round {
                    self.rounds.push(sample);
                } else {
                    self.rounds[round] += sample;
                }
            }
            Err(_) => self.gave_up = true,
        }
        self.spent += start.elapsed();
        self.gave_up |= self.spent > effort.patience;
    }

    fn kept(&self) -> usize {
        self.rounds.iter().filter(|sample| !sample.is_disturbed).count()
    }
}

/// Measures all who entered; and who did not get as far as a figure, with the reason.
pub fn race(entries: Vec<Entry>, effort: Effort) -> (Vec<Outcome>, Vec<(&'static str, Refusal)>) {
    let (mut lanes, mut refusals) = (Vec::new(), Vec::new());
    for Entry { name, contestant } in entries {
        let lane = contestant.and_then(|contestant| {
            let (spent, rounds) = (Duration::ZERO, Vec::new());
            let mut lane = Lane { name, contestant, ops: 16, spent, rounds, gave_up: false };
            lane.calibrate(effort).map(|()| lane)
        });
        match lane {
            Ok(lane) => lanes.push(lane),
            Err(refusal) => refusals.push((name, refusal)),
        }
    }
    run_rounds(&mut lanes, effort);
    let (measured, empty): (Vec<_>, Vec<_>) =
        lanes.into_iter().partition(|lane| !lane.rounds.is_empty());
    refusals.extend(empty.into_iter().map(|lane| (lane.name, Refusal::TooSlow)));
    (evaluate(measured), refusals)
}

fn run_rounds(lanes: &mut [Lane], effort: Effort) {
    let mut dice = Dice::new(17);
    let mut order: Vec<_> = (0..lanes.len()).collect();
    let start = Instant::now();
    for round in 0..effort.rounds * 3 {
        dice.shuffle(&mut order);
        for &at in order.iter().chain(order.iter().rev()) {
            lanes[at].block(round, effort);
        }
        let is_done = |lane: &Lane| lane.gave_up || lane.kept() >= effort.rounds;
        let is_late = round >= 2 && start.elapsed() > effort.time;
        if is_late || lanes.iter().all(is_done) {
            break;
        }
    }
}

fn evaluate(lanes: Vec<Lane>) -> Vec<Outcome> {
    let ours: Vec<_> = lanes.first().map(|lane| lane.rounds.clone()).unwrap_or_default();
    let evaluate = |mut lane: Lane| {
        let kept = lane.kept();
        // On a machine that is never quiet, disturbed figures are better than none.
        let is_good = |sample: &Sample| !sample.is_disturbed || kept < 3;
        let good = lane.rounds.iter().filter(|sample| is_good(sample));
        let each = |sample: &Sample| sample.cpu / sample.ops.max(1) as f64;
        let mut times: Vec<_> = good.clone().map(each).collect();
        let mut walls: Vec<_> = good.map(|sample| sample.wall / sample.ops.max(1) as f64).collect();
        let mut ratios = ratios(&lane.rounds, &ours);
        Outcome {
            name: lane.name,
            median: median(&mut times),
            spread: spread(&mut times),
            wall: median(&mut walls),
            ratio: median(&mut ratios),
            kept,
            thrown: lane.rounds.len() - kept,
            gave_up: lane.gave_up,
            extras: lane.contestant.extras(),
        }
    };
    lanes.into_iter().map(evaluate).collect()
}

/// The ratios of one contestant's figures to another's, of rounds in which both were undisturbed,
/// or of all if there are hardly any.
fn ratios(theirs: &[Sample], ours: &[Sample]) -> Vec<f64> {
    let each = |sample: &Sample| sample.cpu / sample.ops.max(1) as f64;
    let pairs = || theirs.iter().zip(ours);
    let is_good = |(theirs, ours): &(&Sample, &Sample)| !theirs.is_disturbed && !ours.is_disturbed;
    let ratio = |(theirs, ours)| each(theirs) / each(ours);
    let good: Vec<_> = pairs().filter(is_good).map(ratio).collect();
    if good.len() < 3 { pairs().map(ratio).collect() } else { good }
}
