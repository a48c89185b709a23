//! some: the exercises by name. `only=exhaust,heap` on the command line asks for a few; the keys
//! of the screen start them one by one.

use super::{exhaust, heap, interrupt, nmi, pages, remove, shapes, soak, stamp, zero};
use crate::clock::Stopwatch;
use crate::{println, smp};

/// An exercise that can be run any number of times.
#[derive(Clone, Copy)]
pub struct Exercise {
    /// What it is called, everywhere.
    pub name: &'static str,
    /// Runs it.
    pub run: fn(),
}

/// All of them.
pub const ALL: [Exercise; 9] = [
    Exercise { name: "stamp", run: stamp::run },
    Exercise { name: "exhaust", run: exhaust::run },
    Exercise { name: "interrupt", run: interrupt::run },
    Exercise { name: "nmi", run: || _ = nmi::run() },
    Exercise { name: "shapes", run: || _ = shapes::run() },
    Exercise { name: "zero", run: || _ = zero::run() },
    Exercise { name: "pages", run: || _ = pages::run() },
    Exercise { name: "remove", run: || _ = remove::run() },
    Exercise { name: "heap", run: heap::run },
];

/// What the command line asks for.
pub fn requested(command_line: &str) -> Option<&str> {
    command_line.split_whitespace().find_map(|word| word.strip_prefix("only="))
}

/// Runs the exercises with these names, and looks at the pool afterwards.
pub fn run(names: &str) {
    let watch = Stopwatch::start();
    for name in names.split(',') {
        let exercise = ALL.iter().find(|exercise| exercise.name == name);
        let exercise = exercise.unwrap_or_else(|| panic!("only={name}: there is no such exercise"));
        (exercise.run)();
    }
    let faults = soak::check();
    assert!(faults == 0, "{faults} faults");
    let (seconds, cpus) = (watch.elapsed().as_secs_f32(), smp::online());
    println!("only {names}: {seconds:.1} s on {cpus} CPUs, every frame accounted for");
}
