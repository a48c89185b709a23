//! `cargo run -p frametree-qemu`: boots the demo kernel and shows what it prints. The exit status
//! is 0 only if the kernel itself reported success.

mod screen;

use std::error::Error;
use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use frametree_qemu::{Boot, Entry, Memory, Outcome, Screen};
use lexopt::prelude::*;

const HELP: &str = "\
Boots frametree's demo kernel in QEMU.

Usage: frametree-qemu [OPTIONS]

  --iso FILE     boot nothing: write the disk image for real machines
  --screen       boot that image, with its screen in a window
  --screenshot FILE
                 boot it, write a picture of the screen as PNG, and end

  --cpus N       CPUs, 1 to 128 [4]
  --mem SIZE     memory, 64M to 1T [512M]
  --timeout S    seconds that the boot may take [120]
  --append TEXT  the kernel's command line, for example fail=panic
  --help         this text";

/// What the disk image offers, and for how many seconds.
const MENU: [Entry<'_>; 2] =
    [("Memory on the screen", "screen"), ("All exercises once, on the serial line COM1", "")];
const PATIENCE: u32 = 5;

const A_DAY: Duration = Duration::from_secs(24 * 3600);

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What the command line asks for.
enum Task {
    Help,
    /// Boot the kernel itself, or the image for its screen.
    Boot(Boot),
    /// Write the disk image.
    Iso(PathBuf),
    /// Boot the image, and take a picture of the screen.
    Screenshot(PathBuf),
}

fn run() -> Result<ExitCode, Box<dyn Error>> {
    let report = match arguments()? {
        Task::Help => {
            println!("{HELP}");
            return Ok(ExitCode::SUCCESS);
        }
        Task::Iso(file) => {
            frametree_qemu::image(frametree_qemu::kernel()?, &file, PATIENCE, &MENU)?;
            println!("{}: {} bytes", file.display(), fs::metadata(&file)?.len());
            return Ok(ExitCode::SUCCESS);
        }
        Task::Screenshot(file) => screen::shoot(&file)?,
        Task::Boot(boot) if boot.screen == Screen::Window => screen::show(&boot, print)?,
        Task::Boot(boot) => boot.run(frametree_qemu::kernel()?, print)?,
    };
    if report.outcome == Outcome::Success {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("\nfailed after {:.1} s: {}", report.took.as_secs_f64(), report.outcome);
    Ok(ExitCode::FAILURE)
}

fn print(bytes: &[u8]) {
    let mut out = io::stdout().lock();
    // If nobody reads on, the boot still decides the exit status.
    let _ = out.write_all(bytes).and_then(|()| out.flush());
}

fn arguments() -> Result<Task, lexopt::Error> {
    let mut boot = Boot::new(4, Memory::mebibytes(512));
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("iso") => return Ok(Task::Iso(parser.value()?.into())),
            Long("screenshot") => return Ok(Task::Screenshot(parser.value()?.into())),
            Long("screen") => (boot.screen, boot.time_limit) = (Screen::Window, A_DAY),
            Long("cpus") => boot.cpus = parser.value()?.parse()?,
            Long("mem") => boot.memory = parser.value()?.parse()?,
            Long("timeout") => boot.time_limit = Duration::from_secs(parser.value()?.parse()?),
            Long("append") => boot.command_line = parser.value()?.string()?,
            Long("help") | Short('h') => return Ok(Task::Help),
            _ => {
                return Err(format!("{}; --help lists what there is", argument.unexpected()).into());
            }
        }
    }
    if !(1..=128).contains(&boot.cpus) {
        return Err(format!("--cpus {}: the kernel runs 1 to 128 CPUs", boot.cpus).into());
    }
    Ok(Task::Boot(boot))
}
