//! The benchmark: `make bench`, `make bench-quick`.
//!
//! frametree and its peers do the same work in the same run. What is measured is in `workloads/`,
//! who takes part in `peers/`, how in `harness.rs`; this file says at which sizes and in which
//! order. `targets/` prints the figures that the project has promised.

mod allocator;
mod charts;
mod harness;
mod machine;
mod peers;
mod plan;
mod report;
mod stats;
#[path = "../../tests/support/mod.rs"]
mod support;
mod targets;
mod workloads;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use lexopt::prelude::*;

const USAGE: &str = "\
Measures frametree and its peers on the same work.

    --quick          the main workloads, in three minutes
    --only TEXT      only the rows whose name contains TEXT
    --targets        only the figures that have a target
    --json FILE      where the figures go, target/bench/results.json if not said
    --charts DIR     draws charts of the figures into DIR
    --draw FILE DIR  draws the charts of figures that were measured before, and measures nothing
";

/// What is to be done.
struct Arguments {
    is_quick: bool,
    only: String,
    targets_only: bool,
    json: PathBuf,
    charts: Option<PathBuf>,
    draw: Option<(PathBuf, PathBuf)>,
}

fn arguments() -> Result<Option<Arguments>, lexopt::Error> {
    let mut arguments = Arguments {
        is_quick: false,
        only: String::new(),
        targets_only: false,
        json: "target/bench/results.json".into(),
        charts: None,
        draw: None,
    };
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("quick") => arguments.is_quick = true,
            Long("only") => arguments.only = parser.value()?.string()?,
            Long("targets") => arguments.targets_only = true,
            Long("json") => arguments.json = parser.value()?.into(),
            Long("charts") => arguments.charts = Some(parser.value()?.into()),
            Long("draw") => {
                arguments.draw = Some((parser.value()?.into(), parser.value()?.into()));
            }
            Short('h') | Long("help") => return Ok(None),
            _ => return Err(argument.unexpected()),
        }
    }
    Ok(Some(arguments))
}

fn main() -> ExitCode {
    match arguments() {
        Ok(Some(arguments)) => match run(&arguments) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error}");
                ExitCode::FAILURE
            }
        },
        Ok(None) => {
            print!("{USAGE}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}\n\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn std::error::Error>> {
    if let Some((figures, folder)) = &arguments.draw {
        return charts::draw(&report::read_json(figures)?, folder);
    }
    let start = Instant::now();
    // Asked before this thread is pinned.
    let cores = machine::cores().len();
    machine::pin(0);
    if !arguments.targets_only {
        let mut plan = plan::Plan::new(arguments.is_quick, &arguments.only, cores);
        plan.run();
        plan.report.print_summary();
        plan.report.write_json(&arguments.json)?;
        println!("All figures: {}", arguments.json.display());
        if let Some(folder) = &arguments.charts {
            charts::draw(&plan.report.figures, folder)?;
            println!("Charts: {}", folder.display());
        }
    }
    if arguments.only.is_empty() {
        targets::print(arguments.is_quick);
    }
    println!("\nThis took {:.0} s.", start.elapsed().as_secs_f64());
    Ok(())
}
