//! Plays recorded cases of Go's page allocator on this one.

#[path = "../common/case.rs"]
mod case;
#[path = "../common/cli.rs"]
mod cli;
mod growth;
mod heap;
mod invariant;
mod player;
mod script;
mod successor;

const USAGE: &str = "\
usage: cargo run --release --example replay -- FILE...

Plays the cases of each JSON file of the schema `go-pagealloc-cases/1` (see the README in
tests/fixtures/cases) on the real library, and compares with the answers given there. A case that
asks for something that is not built yet is named as such and counts as failed. Prints a line for
each case; the exit status is 0 only if every file could be read and every case passed.";

fn main() -> std::process::ExitCode {
    cli::run(USAGE, player::play)
}
