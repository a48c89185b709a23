//! The programs of the book as its readers see them.

use std::fs;
use std::path::Path;

/// The Rust programs of a chapter that `cargo test --doc` compiles too, without the lines that only
/// that sees. `docs` is the folder of the book.
pub fn programs(docs: &Path, chapter: &str) -> Vec<String> {
    let text = fs::read_to_string(docs.join(chapter)).expect("a chapter");
    let programs = text.split("```rust\n").skip(1).map(|rest| {
        let program = rest.split_once("```").expect("the program's end").0;
        let shown = program.lines().filter(|line| *line != "#" && !line.starts_with("# "));
        shown.flat_map(|line| [line, "\n"]).collect()
    });
    programs.collect()
}
