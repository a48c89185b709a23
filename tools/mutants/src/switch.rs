//! Which mutant is on; `tools/mutants` puts this file into a copy of the library. `MUTANT=7` turns
//! on the seventh. `MUTANT_SEEN=FILE` turns on none, and at the end writes which places were
//! passed.

extern crate std;

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::string::ToString;
use std::vec::Vec;

const PLACES: usize = 16384;
const LOOK: u32 = u32::MAX;

static ACTIVE: AtomicU32 = AtomicU32::new(0);
static SEEN: [AtomicBool; PLACES] = [const { AtomicBool::new(false) }; PLACES];

/// Before and behind all of a program, so also of what starts threads.
#[used]
#[unsafe(link_section = ".init_array")]
static BEGIN: extern "C" fn() = begin;
#[used]
#[unsafe(link_section = ".fini_array")]
static END: extern "C" fn() = end;

extern "C" fn begin() {
    let chosen = std::env::var("MUTANT").ok().and_then(|number| number.parse().ok());
    let look = std::env::var_os("MUTANT_SEEN").map_or(0, |_| LOOK);
    ACTIVE.store(chosen.unwrap_or(look), Ordering::Relaxed);
}

extern "C" fn end() {
    if let Some(file) = std::env::var_os("MUTANT_SEEN") {
        let seen = (0..PLACES).filter(|place| SEEN[*place].load(Ordering::Relaxed));
        let seen: Vec<_> = seen.map(|place| place.to_string()).collect();
        std::fs::write(file, seen.join(" ")).expect("a file to write to");
    }
}

#[cold]
#[inline(never)]
fn see(place: usize) {
    // Threads are not to take the line from each other at each step.
    if !SEEN[place].load(Ordering::Relaxed) {
        SEEN[place].store(true, Ordering::Relaxed);
    }
}

#[inline(always)]
fn now(place: usize) -> u32 {
    let active = ACTIVE.load(Ordering::Relaxed);
    if active == LOOK {
        see(place);
    }
    active
}

const fn never(_: usize) -> u32 {
    0
}

/// The number of the mutant that is on. While the compiler evaluates, that is none.
#[inline(always)]
pub const fn active(place: usize) -> u32 {
    core::intrinsics::const_eval_select((place,), never, now)
}
