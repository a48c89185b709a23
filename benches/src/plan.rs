//! Which workloads, at which sizes, for how many threads, in which order.

use std::time::Duration;

use crate::allocator::{Allocator, Block, GIANT, Giant, One, Refusal, Run, Shape};
use crate::harness::{Effort, Entry, Patience, race};
use crate::machine;
use crate::peers::{BareWords, NoWork, PrivateStack, each_allocator};
use crate::report::{Report, Row};
use crate::stats::median;
use crate::workloads::all::{Pass, PassOf};
use crate::workloads::bursts::{Bursts, Start};
use crate::workloads::churn::{self, LOOKS, Turn};
use crate::workloads::cross::CrossOf;
use crate::workloads::limits::Limit;
use crate::workloads::mixed::{LatencyOf, Mixed};
use crate::workloads::replace::Replace;
use crate::workloads::runs::{self, Fragmented};
use crate::workloads::{Contended, CrewOf, Floor, Work, boot};

/// Memory by its size in GiB.
#[derive(Clone, Copy)]
struct Size(u64);

impl Size {
    fn frames(self) -> u64 {
        self.0 * GIANT
    }

    fn name(self) -> String {
        if self.0 >= 1024 { format!("{} TiB", self.0 / 1024) } else { format!("{} GiB", self.0) }
    }
}

/// The whole run.
pub struct Plan {
    is_quick: bool,
    only: String,
    cores: usize,
    effort: Effort,
    pub report: Report,
}

/// Calls a function for an allocator, and keeps its name.
struct Each<F>(F);

/// What [`Each`] calls: generic, so that it can't be a closure.
trait Ask {
    type Answer;
    fn ask<A: Allocator>(&self) -> Result<Self::Answer, Refusal>;
}

impl<F: Ask> Each<F> {
    fn visit<A: Allocator>(&self) -> (&'static str, Result<F::Answer, Refusal>) {
        (A::NAME, self.0.ask::<A>())
    }
}

/// Something of each allocator, by name.
type Named<T> = Vec<(&'static str, T)>;

/// Those that answered, and those that did not.
fn sort_out<T>(answers: Named<Result<T, Refusal>>) -> (Named<T>, Named<Refusal>) {
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for (name, answer) in answers {
        match answer {
            Ok(answer) => good.push((name, answer)),
            Err(refusal) => bad.push((name, refusal)),
        }
    }
    (good, bad)
}

impl Plan {
    pub fn new(is_quick: bool, only: &str, cores: usize) -> Self {
        let effort = if is_quick {
            let (patience, time) = (Duration::from_millis(1500), Duration::from_secs(2));
            Effort { rounds: 7, patience, time }
        } else {
            let (patience, time) = (Duration::from_secs(15), Duration::from_secs(20));
            Effort { rounds: 25, patience, time }
        };
        Self { is_quick, only: only.into(), cores, effort, report: Report::default() }
    }

    /// All of it.
    pub fn run(&mut self) {
        self.main_rows(Size(8));
        if self.is_quick {
            self.churn(Size(1), 50, Turn::FreeThenAllocate);
            self.churn(Size(1), 50, Turn::OneByOne);
        } else {
            for size in [1, 64] {
                self.main_rows(Size(size));
            }
            self.huge_memory(Size(1024));
            for held in [50, 90] {
                self.churn(Size(8), held, Turn::FreeThenAllocate);
                self.churn(Size(8), held, Turn::OneByOne);
            }
        }
        self.boot();
    }

    fn main_rows(&mut self, size: Size) {
        self.hot(size);
        self.all(size);
        self.replace(size);
        self.large(size);
        self.runs(size);
        self.limits(size);
        self.mixed(size);
        self.two_threads(size);
    }

    /// Those that need no time in proportion to memory.
    fn huge_memory(&mut self, size: Size) {
        self.hot(size);
        self.large(size);
    }

    fn hot(&mut self, size: Size) {
        let start = Start::Free;
        for (name, burst) in [("hot pair", 1), ("bursts of 32", 32), ("bursts of 512", 512)] {
            self.crew(name, size, 1, Bursts { shape: One, burst, start });
        }
        if size.0 < 1024 {
            let start = Start::HalfUsed;
            self.crew("hot pair, half used", size, 1, Bursts { shape: One, burst: 1, start });
        }
    }

    fn all(&mut self, size: Size) {
        self.pass("allocate all", size, Pass::Allocate, One);
        self.pass("free all in order", size, Pass::FreeInOrder, One);
        self.pass("free all reversed", size, Pass::FreeReversed, One);
        self.pass("free all at random", size, Pass::FreeAtRandom, One);
        self.pass("every second frame free", size, Pass::AllocateEverySecond, One);
    }

    fn replace(&mut self, size: Size) {
        let degrees: &[u64] = if self.is_quick { &[500, 990] } else { &[500, 900, 990, 999] };
        for &permille in degrees {
            let name = format!("replace at random, {} % full", permille as f64 / 10.0);
            self.crew(&name, size, 1, Replace { permille, times_over: 0 });
        }
        let name = "replace at random, long in use";
        self.crew(name, size, 1, Replace { permille: 500, times_over: 16 });
    }

    fn large(&mut self, size: Size) {
        let start = Start::Free;
        self.crew("2 MiB pair", size, 1, Bursts { shape: Block, burst: 1, start });
        self.pass("allocate all, 2 MiB", size, Pass::Allocate, Block);
        self.pass("free all at random, 2 MiB", size, Pass::FreeAtRandom, Block);
        if size.0 > 1 {
            self.crew("1 GiB pair", size, 1, Bursts { shape: Giant, burst: 1, start });
            let burst = size.0 as usize / 2;
            let name = "1 GiB, half of memory and back";
            self.crew(name, size, 1, Bursts { shape: Giant, burst, start });
        }
    }

    fn runs(&mut self, size: Size) {
        let counts: &[u64] = if self.is_quick {
            &[2, 17, 100]
        } else {
            &[2, 3, 4, 8, 17, 32, 64, 100, 256, 512, 1000, 4096]
        };
        for &count in counts {
            if !self.is_quick || count == 2 {
                let work = Bursts { shape: Run(count), burst: 1, start: Start::Free };
                self.crew(&format!("run of {count}, memory free, pair"), size, 1, work);
            }
            let name = format!("run of {count}, fragmented, replaced");
            self.crew(&name, size, 1, Fragmented(count));
        }
        if size.0 == 8 {
            for &count in counts {
                self.footprint(count);
            }
        }
    }

    fn limits(&mut self, size: Size) {
        self.crew("the last free frame", size, 1, Limit::LastFree);
        self.crew("a failing request", size, 1, Limit::Failing);
        self.crew("how many are free", size, 1, Limit::Statistics);
    }

    fn mixed(&mut self, size: Size) {
        self.crew("mixed sizes", size, 1, Mixed);
        let threads = self.cores.min(2);
        let name = "mixed sizes, latency";
        let setup = LatencyOf { frames: size.frames(), threads, patience: self.effort.patience };
        // A block is long: a third of the rounds is enough.
        let effort = Effort { rounds: self.effort.rounds / 3, ..self.effort };
        self.row(name, size, threads, effort, || {
            let mut entries = each_allocator!(setup);
            entries.push(setup.visit::<NoWork>());
            entries
        });
    }

    fn two_threads(&mut self, size: Size) {
        if self.cores < 2 {
            println!("\nThere is one CPU: nothing for two threads.");
            return;
        }
        let start = Start::Free;
        for (name, burst) in [("hot pair", 1), ("bursts of 32", 32), ("bursts of 2048", 2048)] {
            let work = Bursts { shape: One, burst, start };
            if burst == 2048 {
                self.crew(name, size, 1, work);
            }
            self.crew(name, size, 2, work);
        }
        self.crew(
            "replace at random, 50 % full",
            size,
            2,
            Replace { permille: 500, times_over: 0 },
        );
        self.crew("2 MiB pair", size, 2, Bursts { shape: Block, burst: 1, start });
        self.crew("mixed sizes", size, 2, Mixed);
        let setup = CrossOf { frames: size.frames() };
        self.row("freed on the other CPU", size, 2, self.effort, || {
            let mut entries = each_allocator!(setup);
            entries.extend([setup.visit::<NoWork>(), Floor::entry(2), Contended::entry(2)]);
            entries
        });
    }

    fn is_wanted(&self, workload: &str) -> bool {
        workload.contains(&self.only)
    }

    fn row(
        &mut self,
        workload: &str,
        size: Size,
        threads: usize,
        effort: Effort,
        entries: impl FnOnce() -> Vec<Entry>,
    ) {
        if !self.is_wanted(workload) {
            return;
        }
        let line = (threads > 1).then(machine::distance);
        let (outcomes, refusals) = race(entries(), effort);
        let row = Row { workload, size: &size.name(), threads, unit: "ns", line };
        self.report.add(row, &outcomes, &refusals);
    }

    /// A row of all allocators and the floors at the same work.
    fn crew<W: Work>(&mut self, workload: &str, size: Size, threads: usize, work: W) {
        let patience = self.effort.patience;
        let setup = CrewOf { work, frames: size.frames(), threads, patience };
        self.row(workload, size, threads, self.effort, || {
            let mut entries: Vec<Entry> = each_allocator!(setup);
            if threads == 1 {
                entries.push(setup.visit::<PrivateStack>());
            } else {
                entries.push(Contended::entry(threads));
            }
            entries.push(setup.visit::<NoWork>());
            entries.push(Floor::entry(threads));
            entries.retain(|entry| !is_pointless(entry));
            entries
        });
    }

    fn pass<S: Shape>(&mut self, workload: &str, size: Size, pass: Pass, shape: S) {
        let patience = self.effort.patience;
        let setup = PassOf { pass, shape, frames: size.frames(), patience };
        self.row(workload, size, 1, self.effort, || {
            let mut entries: Vec<Entry> = each_allocator!(setup);
            entries.extend([setup.visit::<PrivateStack>(), Floor::entry(1)]);
            if pass == Pass::FreeAtRandom {
                entries.push(setup.visit::<BareWords>());
            }
            entries.retain(|entry| !is_pointless(entry));
            entries
        });
    }

    /// A row of figures that each allocator is asked for once.
    fn plain<F: Ask<Answer = f64>>(&mut self, workload: &str, size: &str, unit: &str, ask: F) {
        if !self.is_wanted(workload) {
            return;
        }
        let each = Each(ask);
        let (figures, refusals) = sort_out(each_allocator!(each));
        let row = Row { workload, size, threads: 1, unit, line: None };
        self.report.add_plain(row, &figures, &refusals);
    }

    fn footprint(&mut self, count: u64) {
        struct Footprint(u64, Duration);
        impl Ask for Footprint {
            type Answer = f64;
            fn ask<A: Allocator>(&self) -> Result<f64, Refusal> {
                if !A::HAS_RUNS {
                    return Err(Refusal::NoSuchRequest);
                }
                runs::footprint::<A>(self.0, Patience::new(self.1))
            }
        }
        let ask = Footprint(count, self.effort.patience);
        self.plain(&format!("run of {count}, footprint"), "256 MiB", "frames a frame", ask);
    }

    fn churn(&mut self, size: Size, held: u64, turn: Turn) {
        struct Churn(Size, u64, Turn, Duration);
        impl Ask for Churn {
            type Answer = [f64; LOOKS.len()];
            fn ask<A: Allocator>(&self) -> Result<Self::Answer, Refusal> {
                churn::churn::<A>(self.0.frames(), self.1, self.2, Patience::new(self.3))
            }
        }
        let how = if turn == Turn::OneByOne { ", one by one" } else { "" };
        let workload = format!("not in whole 2 MiB, {held} % held{how}");
        if !self.is_wanted(&workload) {
            return;
        }
        let each = Each(Churn(size, held, turn, self.effort.patience * 2));
        let (shares, refusals) = sort_out(each_allocator!(each));
        for (look, after) in LOOKS.iter().enumerate() {
            let figures: Vec<_> = shares.iter().map(|(name, all)| (*name, all[look])).collect();
            let workload = format!("{workload}, round {after}");
            let size = &size.name();
            let row = Row { workload: &workload, size, threads: 1, unit: "%", line: None };
            self.report.add_plain(row, &figures, &refusals);
        }
    }

    fn boot(&mut self) {
        struct Initialise(u64);
        impl Ask for Initialise {
            type Answer = f64;
            fn ask<A: Allocator>(&self) -> Result<f64, Refusal> {
                let times: Result<Vec<_>, _> =
                    (0..3).map(|_| boot::initialise::<A>(self.0)).collect();
                Ok(median(&mut times?))
            }
        }
        struct Metadata {
            frames: u64,
            is_shredded: bool,
            patience: Duration,
        }
        impl Ask for Metadata {
            type Answer = f64;
            fn ask<A: Allocator>(&self) -> Result<f64, Refusal> {
                let bits = boot::metadata::<A>(self.frames, Patience::new(self.patience))?;
                Ok(if self.is_shredded { bits.every_second } else { bits.all_free })
            }
        }
        let sizes: &[u64] = if self.is_quick { &[8] } else { &[1, 8, 64, 1024] };
        for size in sizes.iter().map(|gib| Size(*gib)) {
            self.plain("initialise", &size.name(), "us", Initialise(size.frames()));
        }
        let size = Size(8);
        for (name, is_shredded) in
            [("metadata, all free", false), ("metadata, every second frame free", true)]
        {
            let (frames, patience) = (size.frames(), self.effort.patience);
            let ask = Metadata { frames, is_shredded, patience };
            self.plain(name, &size.name(), "bits a frame", ask);
        }
    }
}

/// Whether a floor has nothing to do with a row.
fn is_pointless(entry: &Entry) -> bool {
    entry.name.starts_with("floor") && entry.contestant.is_err()
}
