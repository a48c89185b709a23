//! The console: everything that the kernel says goes to COM1.
//!
//! Works from the first line of Rust on, on every CPU and in exception handlers. Waits for
//! nobody for long: a port that is missing or stuck swallows the text (it is waited for once, and
//! then not before it has taken a byte again), and a lock holder that does not let go (it may be
//! the very CPU that now panics) is ignored after a while.

use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, Ordering};
use spin::Mutex;
use uart_16550::backend::PioBackend;
use uart_16550::{Config, Uart16550};
use x86_64::instructions::interrupts::without_interrupts;

use crate::log;

const COM1: u16 = 0x3f8;
/// How often a byte is offered to a port that does not take it: some milliseconds, and once if it
/// has not taken the one before either.
const SEND_ATTEMPTS: usize = 10_000;
/// How often the lock is tried before the text is written without it: some seconds.
const LOCK_ATTEMPTS: usize = 20_000_000;

static CONSOLE: Mutex<Console> = Mutex::new(Console::Absent);

/// Whether text is thrown away.
static QUIET: AtomicBool = AtomicBool::new(false);

enum Console {
    Absent,
    Com1 { port: Uart16550<PioBackend>, is_stuck: bool },
}

/// Looks for COM1. Until then, and if there is none, text goes nowhere.
pub fn init() {
    // SAFETY: 0x3f8 is COM1 on every PC, and this driver is the only one that uses it.
    let Ok(mut port) = (unsafe { Uart16550::new_port(COM1) }) else {
        return;
    };
    if port.init(Config::default()).is_ok() {
        *CONSOLE.lock() = Console::Com1 { port, is_stuck: false };
    }
}

impl Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let Self::Com1 { port, is_stuck } = self else {
            return Ok(());
        };
        for byte in text.bytes() {
            let attempts = if *is_stuck { 1 } else { SEND_ATTEMPTS };
            *is_stuck = !(0..attempts).any(|_| port.try_send_byte(byte).is_ok());
        }
        Ok(())
    }
}

/// Writes formatted text; what [`print!`](crate::print) and [`println!`](crate::println) call.
pub fn write(text: fmt::Arguments) {
    // ORDERING: Relaxed; a wish.
    if QUIET.load(Ordering::Relaxed) {
        return;
    }
    log::keep(text);
    send(text);
}

/// Writes to the serial line only, for whoever listens there: the screen does not repeat it.
pub fn send(text: fmt::Arguments) {
    without_interrupts(|| {
        let guard = (0..LOCK_ATTEMPTS).find_map(|_| {
            core::hint::spin_loop();
            CONSOLE.try_lock()
        });
        let mut guard = guard.unwrap_or_else(|| {
            // SAFETY: Nobody held the lock for seconds on purpose, so its holder is gone (it
            // panicked inside). What we break is at worst the driver's idea of the port's state.
            unsafe { CONSOLE.force_unlock() };
            CONSOLE.lock()
        });
        let _ = guard.write_fmt(text);
    });
}

/// A byte that came in, if there is one.
pub fn read() -> Option<u8> {
    without_interrupts(|| match &mut *CONSOLE.try_lock()? {
        Console::Absent => None,
        Console::Com1 { port, .. } => port.try_receive_byte().ok(),
    })
}

/// From here on text is thrown away; or not.
pub fn be_quiet(quiet: bool) {
    // ORDERING: Relaxed; see `write`.
    QUIET.store(quiet, Ordering::Relaxed);
}

/// Writes to the console.
#[macro_export]
macro_rules! print {
    ($($text:tt)*) => { $crate::console::write(format_args!($($text)*)) };
}

/// Writes a line to the console.
#[macro_export]
macro_rules! println {
    () => { $crate::print!("\n") };
    ($($text:tt)*) => { $crate::console::write(format_args!("{}\n", format_args!($($text)*))) };
}
