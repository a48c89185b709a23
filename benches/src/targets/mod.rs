//! The figures that the project has promised, each with its target beside it.
//!
//! They are ours alone, and measured in rounds one after the other; what compares is elsewhere.

mod blocks;
mod figures;
mod runs;

pub use crate::stats::median;

/// Prints them all.
pub fn print(is_quick: bool) {
    println!("\nTargets: 8 GiB unless said, medians\n");
    let mut rows = figures::rows(if is_quick { 7 } else { 31 });
    rows.extend(blocks::rows());
    rows.extend(runs::rows(if is_quick { 5 } else { 15 }));
    print_rows(&rows);
}

/// A row of the table.
pub struct Row {
    name: String,
    figure: String,
    target: &'static str,
    verdict: &'static str,
}

impl Row {
    pub fn new(name: &str, figure: String, target: &'static str, is_met: bool) -> Self {
        let verdict = if is_met { "met" } else { "MISSED" };
        Self { name: name.into(), figure, target, verdict }
    }

    /// A row without a target: what the others are to be read by.
    pub fn plain(name: &str, figure: String) -> Self {
        Self { name: name.into(), figure, target: "", verdict: "" }
    }
}

/// Prints them, aligned.
fn print_rows(rows: &[Row]) {
    let head = Row { name: "row".into(), figure: "figure".into(), target: "target", verdict: "" };
    let width = |cell: fn(&Row) -> &str| {
        rows.iter().chain([&head]).map(|row| cell(row).len()).max().unwrap_or_default()
    };
    let (name, figure, target, verdict) =
        (width(|r| &r.name), width(|r| &r.figure), width(|r| r.target), width(|r| r.verdict));
    let print = |row: &Row| {
        let Row { name: n, figure: f, target: t, verdict: v } = row;
        println!("| {n:name$} | {f:figure$} | {t:target$} | {v:verdict$} |");
    };
    print(&head);
    let line = |width| "-".repeat(width + 2);
    println!("|{}|{}|{}|{}|", line(name), line(figure), line(target), line(verdict));
    rows.iter().for_each(print);
}
