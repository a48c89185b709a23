//! soak: the same again for hours. `soak=30` on the command line asks for it: stamp, interrupt and
//! nmi, one after the other, until so many minutes are over (once at least).
//!
//! Between two rounds the pool is verified and every frame accounted for. What a round prints is
//! left out; a line tells from time to time what all of them did. The first thing that is wrong
//! ends the kernel, with what it was; so do double frees that only the pool has seen and owners
//! that were dropped, which are the faults that the lines count.

use core::time::Duration;

use super::{interrupt, nmi, stamp, stamps, totals};
use crate::clock::Stopwatch;
use crate::memory::{self, POOL};
use crate::{console, println, smp};

/// Between two lines, at least.
const SILENCE: Duration = Duration::from_secs(20);

/// How long the command line asks for.
pub fn requested(command_line: &str) -> Option<Duration> {
    let minutes = command_line.split_whitespace().find_map(|word| word.strip_prefix("soak="))?;
    let number = minutes.parse::<u64>();
    let number = number.unwrap_or_else(|_| panic!("soak={minutes}: not a number of minutes"));
    Some(Duration::from_secs(60 * number))
}

/// Runs rounds until the time is over.
pub fn run(time: Duration) {
    println!("soak: {} minutes of stamp, interrupt and nmi", time.as_secs() / 60);
    println!("  operations are allocations and frees; patterns were written and checked");
    let watch = Stopwatch::start();
    let (mut rounds, mut told) = (0, Duration::ZERO);
    loop {
        console::be_quiet(true);
        stamp::run();
        interrupt::run();
        nmi::run();
        console::be_quiet(false);
        rounds += 1;
        let (elapsed, faults) = (watch.elapsed(), check());
        let is_over = elapsed >= time;
        if is_over || elapsed - told >= SILENCE {
            told = elapsed;
            tell(rounds, elapsed, faults);
        }
        assert!(faults == 0, "{faults} faults");
        if is_over {
            break;
        }
    }
    println!("soak: over, on {} CPUs; every frame accounted for, every level sound", smp::online());
}

/// Looks at the pool at rest; returns how many faults it has seen.
pub fn check() -> u64 {
    super::drain_all();
    let (stats, kept) = (POOL.stats(), memory::kept_in_all());
    let (free, managed) = (stats.free_frames, stats.managed_frames);
    assert!(free + kept == managed, "{free} frames are free and {kept} kept of {managed}");
    let (taken, given_back) = totals();
    assert!(taken == given_back, "{taken} frames were taken and {given_back} given back");
    if let Err(broken) = POOL.verify() {
        panic!("the pool is broken: {broken}");
    }
    stats.late_double_frees + frametree::lost_frames()
}

fn tell(rounds: u64, elapsed: Duration, faults: u64) {
    let (taken, given_back) = totals();
    let (minutes, seconds) = (elapsed.as_secs() / 60, elapsed.as_secs() % 60);
    println!(
        "  {minutes:>3}:{seconds:02}  {rounds} rounds, {} operations, {} patterns, {faults} faults",
        taken + given_back,
        stamps(),
    );
}
