//! The screen: memory as a map, what the CPUs do, and the last minutes, ten times a second.
//!
//! `screen` on the command line asks for it, `screen=30` for so many seconds of it. It needs a
//! framebuffer, which the disk image gets from GRUB.
//!
//! The last CPU draws, and does nothing else from then on: it is none of those that
//! [`smp::run`] runs jobs on. It reads the tree as anybody may at any time, and takes nothing from
//! the pool once it has begun. On a machine with one CPU the picture is drawn between two operations
//! of its worker ([`glance`]). If the kernel fails, what it said stands in the picture, since who
//! draws goes on.

mod dashboard;
mod draw;
mod framebuffer;
mod history;
mod keys;
mod map;
mod palette;

use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use embedded_graphics::pixelcolor::Rgb888;
use spin::{Mutex, Once};

use crate::clock::Stopwatch;
use crate::exercises::{self, breathe, soak, some};
use crate::handoff::Handoff;
use crate::{clock, console, elsewhere, memory, println, smp, steering};
use dashboard::Dashboard;
use framebuffer::Framebuffer;

pub use framebuffer::Description;

type Color = Rgb888;

/// Between two pictures.
const PERIOD: Duration = Duration::from_millis(100);
/// On tour, the load between two exercises.
const BETWEEN: Duration = Duration::from_secs(8);
/// The load looks for wishes so often.
const PORTION: Duration = Duration::from_secs(1);
/// Between two lines on the console.
const SILENCE: u64 = 5;

static DASHBOARD: Mutex<Option<Dashboard>> = Mutex::new(None);
static LIMIT: Once<Option<Duration>> = Once::new();
/// Whether there is no CPU that does nothing but draw.
static IS_ALONE: AtomicBool = AtomicBool::new(false);

/// What the command line asks for.
pub enum Wish {
    /// Until somebody ends it.
    Endless,
    /// So long.
    For(Duration),
}

/// What the command line asks for.
pub fn requested(command_line: &str) -> Option<Wish> {
    command_line.split_whitespace().find_map(|word| match word.split_once('=') {
        None => (word == "screen").then_some(Wish::Endless),
        Some(("screen", time)) => {
            let seconds = time.parse();
            let seconds = seconds.unwrap_or_else(|_| panic!("{word}: not a number of seconds"));
            Some(Wish::For(Duration::from_secs(seconds)))
        }
        Some(_) => None,
    })
}

/// Shows the machine at work, until it has been long enough.
pub fn run(handoff: &Handoff, wish: Wish) {
    let Some(description) = elsewhere::framebuffer(handoff) else {
        println!("screen: the loader gave none; the disk image of `make iso` gets one");
        return;
    };
    let Some(framebuffer) = Framebuffer::new(description) else {
        println!("screen: no memory for a picture");
        return;
    };
    let framebuffer::Description { width, height, address, .. } = description;
    println!("screen: {width} x {height} pixels at {address:#x}");
    LIMIT.call_once(|| match wish {
        Wish::Endless => None,
        Wish::For(time) => Some(time),
    });
    steering::watch();
    *DASHBOARD.lock() = Some(Dashboard::new(framebuffer));
    memory::drain();
    if smp::online() > 1 {
        smp::detach_last(draw_forever);
    } else {
        // ORDERING: Relaxed; only this CPU looks.
        IS_ALONE.store(true, Ordering::Relaxed);
    }
    work();
    breathe::release();
    let faults = soak::check();
    assert!(faults == 0, "{faults} faults");
    println!("screen: over; every frame accounted for, every level sound");
}

/// What the working CPUs do meanwhile.
fn work() {
    let watch = Stopwatch::start();
    let (mut next, mut breathes_since) = (0, watch.elapsed());
    while !steering::is_ended() {
        let wanted = steering::take_wanted();
        let is_due = steering::is_on_tour() && watch.elapsed() > breathes_since + BETWEEN;
        let chosen = wanted.or(is_due.then_some(next));
        let Some(number) = chosen else {
            set_work("load");
            breathe::run(PORTION, watch.elapsed());
            continue;
        };
        breathe::release();
        exercises::drain_all();
        set_work(some::ALL[number].name);
        (some::ALL[number].run)();
        next = (number + 1) % some::ALL.len();
        breathes_since = watch.elapsed();
    }
}

fn set_work(name: &'static str) {
    *WORK.lock() = name;
}

/// What is going on.
static WORK: Mutex<&'static str> = Mutex::new("");

/// What the last CPU does.
fn draw_forever() -> ! {
    loop {
        let watch = Stopwatch::start();
        draw();
        clock::pause(PERIOD.saturating_sub(watch.elapsed()));
    }
}

/// Where there is one CPU, it draws here if it is time; elsewhere this does nothing.
pub fn glance() {
    static LAST: Mutex<Option<Stopwatch>> = Mutex::new(None);
    // ORDERING: Relaxed; see `run`.
    if !IS_ALONE.load(Ordering::Relaxed) {
        return;
    }
    let Some(mut last) = LAST.try_lock() else { return };
    if last.is_none_or(|last| last.elapsed() >= PERIOD) {
        draw();
        *last = Some(Stopwatch::start());
    }
}

/// Draws one picture, and does what keys and time want.
fn draw() {
    let mut dashboard = DASHBOARD.lock();
    let Some(dashboard) = dashboard.as_mut() else { return };
    let work = *WORK.lock();
    dashboard.draw(work);
    let (seconds, told) = (dashboard.seconds(), dashboard.told);
    if seconds >= told + SILENCE {
        dashboard.told = seconds - seconds % SILENCE;
        let (seconds, pictures) = (dashboard.told, dashboard.pictures());
        console::send(format_args!("screen: {seconds} s, {pictures} pictures\n"));
    }
    if LIMIT.get().copied().flatten().is_some_and(|limit| seconds >= limit.as_secs()) {
        steering::end();
    }
}
