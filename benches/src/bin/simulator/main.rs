//! The simulator: `make simulate`.
//!
//! Two CPUs say little about two hundred. This runs the real allocator on up to 512 virtual CPUs:
//! each is a coroutine that stops at every access to a shared word, as the one door to atomics
//! (`src/sync.rs`, under `cfg(observed)`) tells of it, until its turn has come. What an access costs
//! is decided by a model of cache coherence (`coherence.rs`); in which order the CPUs run follows
//! from that (`cpus.rs`), and from the chance in their work. The same workloads (`workloads.rs`) run
//! on what kernels have without us: a stack and a bitmap behind a lock (`contestants.rs`).
//!
//! Without `cfg(observed)` the same program measures this machine: the workloads on one and on two
//! threads, and what the model needs to know. Its predictions for these stand beside that.

mod contestants;
#[cfg(not(observed))]
mod measure;
#[path = "../../../../tests/support/mod.rs"]
mod support;
mod workloads;

#[cfg(observed)]
mod coherence;
#[cfg(observed)]
mod cpus;
#[cfg(observed)]
mod report;
#[cfg(observed)]
mod worst;

use std::path::PathBuf;
use std::process::ExitCode;

use lexopt::prelude::*;

const USAGE: &str = "\
    --measure FILE   measure this machine (not with cfg(observed))
    --against FILE   simulate it, then a large one (only with cfg(observed))
    --worst          count the accesses of single operations (the same)
";

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let mut parser = lexopt::Parser::from_env();
    match parser.next()? {
        #[cfg(not(observed))]
        Some(Long("measure")) => measure::run(&PathBuf::from(parser.value()?)),
        #[cfg(observed)]
        Some(Long("against")) => report::run(&PathBuf::from(parser.value()?)),
        #[cfg(observed)]
        Some(Long("worst")) => {
            worst::run();
            Ok(())
        }
        Some(argument) => Err(argument.unexpected().into()),
        None => Err(USAGE.into()),
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
