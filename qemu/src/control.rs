//! A hand on the machine while it runs: keys pressed, and pictures of its screen, through QEMU's
//! machine protocol (QMP), which is lines of JSON on a socket.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// How long QEMU may take for an answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// The control socket of a machine that runs.
pub struct Control(BufReader<UnixStream>);

impl Control {
    /// Connects to the socket that [`Boot::control`](crate::Boot::control) names.
    pub fn connect(socket: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut control = Self(BufReader::new(stream));
        // It greets, and then wants to hear that we know what it can do.
        control.0.read_line(&mut String::new())?;
        control.ask(r#"{"execute":"qmp_capabilities"}"#)?;
        Ok(control)
    }

    /// Writes the screen to a file, as PNG. The path has no characters that JSON would escape.
    pub fn screenshot(&mut self, file: &Path) -> io::Result<()> {
        let file = file.display();
        self.ask(&format!(
            r#"{{"execute":"screendump","arguments":{{"filename":"{file}","format":"png"}}}}"#
        ))
    }

    /// Writes so many bytes of physical memory to a file, from an address on. The same of its path.
    pub fn save_memory(&mut self, address: u64, bytes: usize, file: &Path) -> io::Result<()> {
        let file = file.display();
        self.ask(&format!(
            r#"{{"execute":"pmemsave","arguments":{{"val":{address},"size":{bytes},"filename":"{file}"}}}}"#
        ))
    }

    /// Presses and releases a key, by QEMU's name for it: `spc`, `equal`, `3`.
    pub fn press(&mut self, key: &str) -> io::Result<()> {
        self.ask(&format!(
            r#"{{"execute":"send-key","arguments":{{"keys":[{{"type":"qcode","data":"{key}"}}]}}}}"#
        ))
    }

    /// Sends a command and waits for its answer; events in between are skipped.
    fn ask(&mut self, command: &str) -> io::Result<()> {
        writeln!(self.0.get_mut(), "{command}")?;
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if line.starts_with(r#"{"return""#) {
                return Ok(());
            }
            if line.starts_with(r#"{"error""#) {
                return Err(io::Error::other(line));
            }
        }
    }
}
