//! All bugs in one build, none of them active until one is chosen.
//!
//! Each function that has a bug to be planted is written with several bodies: the right one, and
//! one for each bug. Which runs is asked each time that the function is called, of a variable of
//! the environment; so all bugs cost one build, not one each.
//!
//! What is a function is seen by its indentation, which is rustfmt's.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::Plant;

/// Names the bug, by its place in the list.
pub const VARIABLE: &str = "FRAMETREE_BUG";

/// What the bodies ask.
const ASKED: &str = r#"//! Which of the planted bugs is active.
extern crate std;

pub fn bug() -> usize {
    static BUG: std::sync::OnceLock<usize> = std::sync::OnceLock::new();
    let chosen = || std::env::var("FRAMETREE_BUG").map(|bug| bug.parse().expect("a number"));
    *BUG.get_or_init(|| chosen().unwrap_or(usize::MAX))
}
"#;

/// The files of `src` that differ if each function asks for its bugs.
pub fn with_all(plants: &[Plant]) -> Vec<(PathBuf, String)> {
    let mut plants_of: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (bug, plant) in plants.iter().enumerate() {
        plants_of.entry(plant.file).or_default().push((bug, plant));
    }
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let read = |file| fs::read_to_string(source.join(file)).expect("a source file");
    let mut files: Vec<_> = plants_of
        .into_iter()
        .map(|(file, plants)| (PathBuf::from(file), with_choices(&read(file), &plants)))
        .collect();
    files.push((PathBuf::from("planted.rs"), ASKED.into()));
    files.push((PathBuf::from("lib.rs"), read("lib.rs") + "\nmod planted;\n"));
    files
}

/// This text, with these bugs to choose from.
fn with_choices(text: &str, plants: &[(usize, &Plant)]) -> String {
    let mut bodies: BTreeMap<usize, (Range<usize>, String)> = BTreeMap::new();
    for &(bug, plant) in plants {
        let at = text.find(plant.right).unwrap_or_else(|| panic!("no place for {}", plant.name));
        let replaced = at..at + plant.right.len();
        let body = body_around(text, &replaced)
            .unwrap_or_else(|| panic!("not within one function: {}", plant.name));
        let wrong = [&text[body.start..at], plant.wrong, &text[replaced.end..body.end]].concat();
        let (_, choices) = bodies.entry(body.start).or_insert((body, String::new()));
        choices.push_str(&format!("{bug} => {{{wrong}}}\n"));
    }
    let mut chosen = text.to_owned();
    // From the end, so that what is above stays where it is.
    for (body, choices) in bodies.into_values().rev() {
        let right = &text[body.clone()];
        let all = format!("\nmatch crate::planted::bug() {{\n{choices}_ => {{{right}}}\n}}\n");
        chosen.replace_range(body, &all);
    }
    chosen
}

/// What stands between the braces of the function around these bytes.
fn body_around(text: &str, inner: &Range<usize>) -> Option<Range<usize>> {
    let lines = || {
        text.split_inclusive('\n').scan(0, |at, line| {
            *at += line.len();
            Some((*at - line.len(), line))
        })
    };
    let indent = |line: &str| line.len() - line.trim_start().len();
    let is_head = |line: &str| {
        let line = line.trim_start();
        !line.starts_with("//") && (line.starts_with("fn ") || line.contains(" fn "))
    };
    let (head, line) = lines().filter(|(at, line)| *at <= inner.start && is_head(line)).last()?;
    let below = || lines().filter(move |(at, _)| *at >= head);
    let depth = indent(line);
    let (open, line) = below().find(|(_, l)| indent(l) == depth && l.trim_end().ends_with('{'))?;
    let start = open + line.trim_end().len();
    let (end, _) = below().find(|(_, l)| indent(l) == depth && l.trim() == "}")?;
    (start <= inner.start && inner.end <= end).then_some(start..end)
}
