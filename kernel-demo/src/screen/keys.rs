//! Keys, from the serial line or the keyboard, whoever has one: polled by whoever draws.
//!
//! The keyboard is asked the old way, at its controller's ports. Firmware plays that for USB
//! keyboards on many machines that booted by BIOS, and on few by UEFI.

use pc_keyboard::{
    DecodedKey, EventDecoder, HandleControl, ScancodeSet, ScancodeSet1, layouts::Us104Key,
};
use x86_64::instructions::port::PortReadOnly;

use crate::exercises::some;
use crate::{console, println, steering};

/// Bytes that are taken at a time; a port that is not there says "something has come" forever.
const AT_A_TIME: usize = 16;
const NO_CONTROLLER: u8 = 0xff;
const HAS_BYTE: u8 = 1;
/// The byte is the mouse's.
const IS_MOUSE: u8 = 1 << 5;

/// What is needed to make keys of the keyboard's bytes.
pub struct Keys {
    codes: ScancodeSet1,
    events: EventDecoder<Us104Key>,
}

impl Keys {
    /// With no key pressed.
    pub const fn new() -> Self {
        let events = EventDecoder::new(Us104Key, HandleControl::Ignore);
        Self { codes: ScancodeSet1::new(), events }
    }

    /// Does what the keys say that were pressed since the last time.
    pub fn serve(&mut self) {
        for _ in 0..AT_A_TIME {
            let Some(key) = self.next() else { return };
            obey(key);
        }
    }

    fn next(&mut self) -> Option<char> {
        if let Some(byte) = console::read() {
            return Some(byte.into());
        }
        loop {
            let event = self.codes.advance_state(keyboard_byte()?).ok().flatten();
            let key = event.and_then(|event| self.events.process_keyevent(event));
            if let Some(DecodedKey::Unicode(key)) = key {
                return Some(key);
            }
        }
    }
}

/// A byte of the keyboard's, if one has come.
fn keyboard_byte() -> Option<u8> {
    // SAFETY: the ports of the keyboard's controller, which nobody else here uses; where there is
    // none, reading them does nothing.
    let (status, byte) = unsafe {
        let status = PortReadOnly::<u8>::new(0x64).read();
        if status == NO_CONTROLLER || status & HAS_BYTE == 0 {
            return None;
        }
        (status, PortReadOnly::<u8>::new(0x60).read())
    };
    Some(byte).filter(|_| status & IS_MOUSE == 0)
}

fn obey(key: char) {
    match key {
        '1'..='9' => {
            let number = key as usize - '1' as usize;
            println!("screen: key {key}, {}", some::ALL[number].name);
            steering::want(number);
        }
        ' ' | 'p' => {
            steering::toggle_pause();
            println!("screen: {}", if steering::is_paused() { "paused" } else { "goes on" });
        }
        't' => steering::toggle_tour(),
        '+' | '=' => steering::more_load(),
        '-' => steering::less_load(),
        'q' => steering::end(),
        _ => return,
    }
    if let '+' | '=' | '-' = key {
        println!("screen: load {} %", steering::load());
    }
}
