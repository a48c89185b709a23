//! Normalises recorded memory maps and compares with their answers.

#[path = "../common/case.rs"]
mod case;
#[path = "../common/cli.rs"]
mod cli;
mod player;

const USAGE: &str = "\
usage: cargo run --release --example memory_map -- FILE...

Normalises the memory maps in each JSON file and compares with the answers given there. The shape
of a file is that of tests/fixtures/memory-maps/cases.json. Prints a line for each case; the exit
status is 0 only if every file could be read and every case passed.";

fn main() -> std::process::ExitCode {
    cli::run(USAGE, player::play)
}
