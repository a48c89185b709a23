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

    /// Neither ours nor a floor.
    pub fn is_peer(&self) -> bool {
        !self.allocator.starts_with("frametree") && !self.allocator.starts_with("floor")
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

    /// One line a row: ours, the floor, the best peer.
    pub fn print_summary(&self) {
        println!(
            "\nSummary: ours, the floor (one locked RMW), the best peer, and its ratio to ours"
        );
        let mut is_behind = Vec::new();
        for ours in self.figures.iter().filter(|figure| figure.is_ours()) {
            let row = || self.figures.iter().filter(|figure| figure.row() == ours.row());
            let by_median = |a: &&Figure, b: &&Figure| a.median.total_cmp(&b.median);
            let floor = row().find(|figure| figure.is_floor());
            let Some(best) = row().filter(|figure| figure.is_peer()).min_by(by_median) else {
                continue;
            };
            let ratio = best.detail.as_ref().map_or(best.median / ours.median, |d| d.ratio);
            let name: String = format!("{}, {}", ours.workload, ours.size);
            let floor = floor.map_or(String::new(), |floor| short(floor.median));
            let ratio = if ratio.is_finite() { format!("{ratio:.2}x") } else { "=".into() };
            println!(
                "{name:38.38} {} {:>7} {floor:>6} {:>7} {:9.9} {ratio:>7}",
                ours.threads,
                short(ours.median),
                short(best.median),
                best.allocator,
            );
            if best.median + best.spread < ours.median - ours.spread {
                is_behind.push(format!("{name}, {} threads: {}", ours.threads, best.allocator));
            }
        }
        if is_behind.is_empty() {
            println!("\nNo row in which a peer is ahead by more than the spread.");
        } else {
            println!("\nA peer is ahead by more than the spread in {} rows:", is_behind.len());
            is_behind.iter().for_each(|row| println!("  {row}"));
        }
        println!("Figures thrown away because the machine was disturbed: {}", self.thrown_away);
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

/// Three digits that count.
pub fn short(figure: f64) -> String {
    match figure {
        _ if !figure.is_finite() => "-".into(),
        f if f == 0.0 => "0".into(),
        f if f >= 1e6 => format!("{:.1}M", f / 1e6),
        f if f >= 1e4 => format!("{:.1}k", f / 1e3),
        f if f >= 100.0 => format!("{f:.0}"),
        f if f >= 10.0 => format!("{f:.1}"),
        f => format!("{f:.2}"),
    }
}
