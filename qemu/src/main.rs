//! `cargo run -p frametree-qemu`: boots the demo kernel and shows what it prints. The exit status
//! is 0 only if the kernel itself reported success.

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use frametree_qemu::{Boot, Memory, Outcome};
use lexopt::prelude::*;

const HELP: &str = "\
Boots frametree's demo kernel in QEMU.

Usage: frametree-qemu [OPTIONS]

  --cpus N       CPUs, 1 to 64 [4]
  --mem SIZE     memory, 64M to 1T [512M]
  --timeout S    seconds that the boot may take [120]
  --append TEXT  the kernel's command line, for example fail=panic
  --help         this text";

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<ExitCode, Box<dyn Error>> {
    let Some(boot) = arguments()? else {
        println!("{HELP}");
        return Ok(ExitCode::SUCCESS);
    };
    let kernel = frametree_qemu::kernel()?;
    let report = boot.run(kernel, |bytes| {
        let mut out = io::stdout().lock();
        // If nobody reads on, the boot still decides the exit status.
        let _ = out.write_all(bytes).and_then(|()| out.flush());
    })?;
    if report.outcome == Outcome::Success {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("\nfailed after {:.1} s: {}", report.took.as_secs_f64(), report.outcome);
    Ok(ExitCode::FAILURE)
}

/// The machine that the command line asks for; `None` if it asks for help.
fn arguments() -> Result<Option<Boot>, lexopt::Error> {
    let mut boot = Boot::new(4, Memory::mebibytes(512));
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("cpus") => boot.cpus = parser.value()?.parse()?,
            Long("mem") => boot.memory = parser.value()?.parse()?,
            Long("timeout") => boot.time_limit = Duration::from_secs(parser.value()?.parse()?),
            Long("append") => boot.command_line = parser.value()?.string()?,
            Long("help") | Short('h') => return Ok(None),
            _ => {
                return Err(format!("{}; --help lists what there is", argument.unexpected()).into());
            }
        }
    }
    if !(1..=64).contains(&boot.cpus) {
        return Err(format!("--cpus {}: the kernel runs 1 to 64 CPUs", boot.cpus).into());
    }
    Ok(Some(boot))
}
