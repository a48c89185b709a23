//! What was measured, as it is shown and as it is kept: 80 columns on the terminal, and a list of
//! figures in JSON. In every figure, lower is better.

use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::allocator::Refusal;
use crate::harness::Outcome;

/// A figure of one allocator in one workload.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Figure {
    pub workload: String,
    pub size: String,
    pub threads: usize,
    pub allocator: String,
    pub median: f64,
    /// Half of the interquartile range.
    pub spread: f64,
    pub unit: String,
    #[serde(flatten)]
    pub detail: Option<Detail>,
}

/// What else is known of a figure that was raced for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Detail {
    /// The median of the rounds' ratios to ours.
    pub ratio: f64,
    /// The median on the wall; `median` is the thread's own time.
    pub wall: f64,
    pub rounds: usize,
    pub thrown_away: usize,
    /// It was too slow for all of the rounds.
    pub gave_up: bool,
    /// Nanoseconds that a cache line takes between the two CPUs; of rows with two threads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<f64>,
}

impl Figure {
    pub fn is_ours(&self) -> bool {
        self.allocator == "frametree"
    }

    /// A crate that others can use.
    pub fn is_published(&self) -> bool {
        !["frametree", "floor", "lock"].iter().any(|kind| self.allocator.starts_with(kind))
    }

    /// What kernels write themselves.
    pub fn is_home_made(&self) -> bool {
        self.allocator.starts_with("lock")
    }

    fn is_floor(&self) -> bool {
        self.allocator.starts_with("floor: one locked")
    }

    /// The row that it belongs to.
    pub fn row(&self) -> (&str, &str, usize) {
        (&self.workload, &self.size, self.threads)
    }
}

/// A workload at a size, for so many threads.
#[derive(Clone, Copy)]
pub struct Row<'r> {
    pub workload: &'r str,
    pub size: &'r str,
    pub threads: usize,
    pub unit: &'r str,
    /// The distance of a cache line, if two threads are at it.
    pub line: Option<f64>,
}

impl Row<'_> {
    fn figure(&self, allocator: &str, workload: String, median: f64, spread: f64) -> Figure {
        let (size, unit) = (self.size.into(), self.unit.into());
        let allocator = allocator.into();
        let threads = self.threads;
        Figure { workload, size, threads, allocator, median, spread, unit, detail: None }
    }
}

/// All figures so far.
#[derive(Default)]
pub struct Report {
    pub figures: Vec<Figure>,
    pub thrown_away: usize,
}

impl Report {
    /// Shows and keeps a row.
    pub fn add(&mut self, row: Row<'_>, outcomes: &[Outcome], left_out: &[(&str, Refusal)]) {
        let mut lines = Vec::new();
        for outcome in outcomes {
            let mut figure =
                row.figure(outcome.name, row.workload.into(), outcome.median, outcome.spread);
            figure.detail = Some(Detail {
                ratio: outcome.ratio,
                wall: outcome.wall,
                rounds: outcome.kept,
                thrown_away: outcome.thrown,
                gave_up: outcome.gave_up,
                line: row.line,
            });
            self.thrown_away += outcome.thrown;
            self.figures.push(figure);
            for extra in &outcome.extras {
                let name = format!("{}: {}", row.workload, extra.what);
                let unit = Row { unit: extra.unit, ..row };
                self.figures.push(unit.figure(outcome.name, name, extra.median, extra.spread));
            }
            lines.push(line(outcome));
        }
        show(row, &lines, left_out);
    }

    /// Shows and keeps a row of figures that are what they are, without rounds.
    pub fn add_plain(
        &mut self,
        row: Row<'_>,
        figures: &[(&str, f64)],
        left_out: &[(&str, Refusal)],
    ) {
        let line = |(name, figure): &(&str, f64)| format!("  {name:26} {:>12}", short(*figure));
        let lines: Vec<_> = figures.iter().map(line).collect();
        for (name, figure) in figures {
            self.figures.push(row.figure(name, row.workload.into(), *figure, 0.0));
        }
        show(row, &lines, left_out);
    }

    /// One line a row.
    pub fn print_summary(&self) {
        println!(
            "\nSummary: a locked RMW beside us, the best published peer and the better of the two"
        );
        println!("home-made ones, with their ratios to ours (above 1: we are ahead)\n");
        println!(
            "{:34} t {:>6} {:>5} {:>6} {:9} {:>6} {:>6}",
            "", "ours", "RMW", "best", "peer", "ratio", "home"
        );
        let mut is_behind = Vec::new();
        for ours in self.figures.iter().filter(|figure| figure.is_ours()) {
            let best = self.best(ours, Figure::is_published);
            let home = self.best(ours, Figure::is_home_made);
            let floor = self.best(ours, Figure::is_floor);
            let size = ours.size.replace(' ', "");
            let name = format!("{}, {size}", ours.workload.replace("at random", "random"));
            println!(
                "{name:34.34} {} {:>6} {:>5} {:>6} {:9.9} {:>6} {:>6}",
                ours.threads,
                short(ours.median),
                floor.map_or(String::new(), |floor| short(floor.median)),
                best.map_or(String::new(), |best| short(best.median)),
                best.map_or("", |best| &best.allocator),
                best.map_or(String::new(), |best| ratio(best, ours)),
                home.map_or(String::new(), |home| ratio(home, ours)),
            );
            is_behind.extend([best, home].into_iter().flatten().filter_map(|other| {
                let is_ahead = other.median + other.spread < ours.median - ours.spread;
                is_ahead.then(|| format!("{name}, {}: {}", ours.threads, other.allocator))
            }));
        }
        println!("\nRows in which another is ahead by more than the spread: {}", is_behind.len());
        is_behind.iter().for_each(|row| println!("  {row}"));
        println!("Figures thrown away because the machine was disturbed: {}", self.thrown_away);
    }

    /// The best of some kind in the same row.
    fn best(&self, ours: &Figure, is_one: fn(&Figure) -> bool) -> Option<&Figure> {
        let row = self.figures.iter().filter(|figure| figure.row() == ours.row() && is_one(figure));
        row.min_by(|a, b| a.median.total_cmp(&b.median))
    }

    /// Writes all figures.
    pub fn write_json(&self, path: &Path) -> io::Result<()> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(path, serde_json::to_string_pretty(&self.figures)? + "\n")
    }
}

/// Figures that were measured before.
pub fn read_json(path: &Path) -> io::Result<Vec<Figure>> {
    Ok(serde_json::from_str(&fs::read_to_string(path)?)?)
}

fn show(row: Row<'_>, lines: &[String], left_out: &[(&str, Refusal)]) {
    let threads =
        if row.threads == 1 { "1 thread".into() } else { format!("{} threads", row.threads) };
    let line = row.line.map_or(String::new(), |line| format!(", a line moves in {line:.0} ns"));
    println!("\n{}, {}, {threads}, {}{line}", row.workload, row.size, row.unit);
    lines.iter().for_each(|line| println!("{line}"));
    for (name, why) in left_out {
        println!("  {name:26} {:>12}  {why}", "-");
    }
}

fn line(outcome: &Outcome) -> String {
    let Outcome { name, median, spread, ratio, wall, kept, thrown, .. } = outcome;
    let mut line = format!("  {name:26} {:>8} ±{:<6}", short(*median), short(*spread));
    line += &format!("{:>8} {:>8} wall", format!("{}x", short(*ratio)), short(*wall));
    line += &format!(" {kept:>3}/{}", kept + thrown);
    if outcome.gave_up {
        line += " slow";
    }
    for extra in outcome.extras.iter().filter(|extra| extra.median != 0.0) {
        line += &format!("\n      {}: {} {}", extra.what, short(extra.median), extra.unit);
    }
    line
}

/// How many times ours.
fn ratio(theirs: &Figure, ours: &Figure) -> String {
    let ratio = theirs.detail.as_ref().map_or(theirs.median / ours.median, |d| d.ratio);
    if ratio.is_nan() { "1.00".into() } else { short(ratio) }
}

/// Three digits that count.
pub fn short(figure: f64) -> String {
    match figure {
        _ if !figure.is_finite() => "-".into(),
        0.0 => "0".into(),
        f if f >= 1e6 => format!("{:.1}M", f / 1e6),
        f if f >= 1e4 => format!("{:.1}k", f / 1e3),
        f if f >= 100.0 => format!("{f:.0}"),
        f if f >= 10.0 => format!("{f:.1}"),
        f => format!("{f:.2}"),
    }
}
