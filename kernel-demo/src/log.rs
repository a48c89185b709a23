//! The last lines that the console wrote, for whoever has no serial line: the screen shows them.

use core::fmt;
use spin::Mutex;
use x86_64::instructions::interrupts::without_interrupts;

/// Lines that are kept, the last of which may not be ended yet.
pub const LINES: usize = 6;
/// Characters of a line; what is longer is cut.
const LENGTH: usize = 120;

type Line = heapless::String<LENGTH>;

static LOG: Mutex<Log> = Mutex::new(Log {
    lines: [const { Line::new() }; LINES],
    at: 0,
    is_ended: false,
    is_picture: false,
});

struct Log {
    lines: [Line; LINES],
    at: usize,
    is_ended: bool,
    is_picture: bool,
}

impl fmt::Write for Log {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.chars().for_each(|character| self.keep(character));
        Ok(())
    }
}

impl Log {
    fn keep(&mut self, character: char) {
        if character == '\n' {
            // A picture of memory is left out: its characters are not in the screen's font, and
            // the screen has a better one.
            self.is_ended = !self.is_picture && !self.lines[self.at].is_empty();
            if self.is_picture {
                self.lines[self.at].clear();
            }
            self.is_picture = false;
            return;
        }
        if self.is_ended {
            self.at = (self.at + 1) % LINES;
            self.lines[self.at].clear();
            self.is_ended = false;
        }
        self.is_picture |= !character.is_ascii();
        // What is too long is cut.
        let _ = self.lines[self.at].push(character);
    }
}

/// Keeps text. If somebody else holds the log, perhaps a CPU that is gone, this text is missing.
pub fn keep(text: fmt::Arguments) {
    without_interrupts(|| {
        if let Some(mut log) = LOG.try_lock() {
            let _ = fmt::Write::write_fmt(&mut *log, text);
        }
    });
}

/// Calls `each` with the lines that are kept, the oldest first.
pub fn lines(mut each: impl FnMut(usize, &str)) {
    if let Some(log) = LOG.try_lock() {
        let lines = (1..=LINES).map(|age| &log.lines[(log.at + age) % LINES]);
        lines.enumerate().for_each(|(number, line)| each(number, line));
    }
}
