//! One run of QEMU: its command line, its output, its end.

use std::fmt;
use std::io::{self, PipeReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

const QEMU: &str = "qemu-system-x86_64";
/// How long QEMU may take to go away after it closed its output.
const FAREWELL: Duration = Duration::from_secs(10);
/// More output than this is not kept.
const OUTPUT_LIMIT: usize = 16 << 20;

/// An amount of memory, written as QEMU writes it: `64M`, `6G`, `1T`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Memory {
    mebibytes: u64,
}

impl Memory {
    /// That many MiB.
    pub const fn mebibytes(mebibytes: u64) -> Self {
        Self { mebibytes }
    }

    /// That many GiB.
    pub const fn gibibytes(gibibytes: u64) -> Self {
        Self { mebibytes: gibibytes << 10 }
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}M", self.mebibytes)
    }
}

/// A text that is no amount of memory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MemoryError(String);

impl fmt::Display for MemoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is not an amount of memory; write for example 512M, 6G or 1T", self.0)
    }
}

impl std::error::Error for MemoryError {}

impl FromStr for Memory {
    type Err = MemoryError;

    fn from_str(text: &str) -> Result<Self, MemoryError> {
        let error = || MemoryError(text.to_owned());
        let (number, unit) = text.split_at_checked(text.len().wrapping_sub(1)).ok_or_else(error)?;
        let shift = match unit {
            "M" | "m" => 0,
            "G" | "g" => 10,
            "T" | "t" => 20,
            _ => return Err(error()),
        };
        let number: u64 = number.parse().map_err(|_| error())?;
        let mebibytes = number.checked_mul(1 << shift).filter(|&mebibytes| mebibytes > 0);
        Ok(Self { mebibytes: mebibytes.ok_or_else(error)? })
    }
}

/// A machine to boot the kernel on.
#[derive(Clone, Debug)]
pub struct Boot {
    /// The QEMU that plays it.
    pub qemu: PathBuf,
    /// How many CPUs it has.
    pub cpus: u32,
    /// How much memory it has.
    pub memory: Memory,
    /// What the kernel finds on its command line.
    pub command_line: String,
    /// What its CPUs have or lack, as QEMU writes it after the model: `pdpe1gb=off`.
    pub features: String,
    /// What else it has, as QEMU's arguments say it: `-device ib700`.
    pub devices: String,
    /// Whether it has COM1, through which the kernel is heard.
    pub has_com1: bool,
    /// What is typed on that line, if anything: the end that QEMU reads.
    pub typed: Option<Arc<PipeReader>>,
    /// Whether it has a screen, that of a PC; QEMU may show it in a window.
    pub screen: Screen,
    /// The socket through which [`Control`](crate::Control) reaches it, if that is wanted.
    pub control: Option<PathBuf>,
    /// How long the run may take.
    pub time_limit: Duration,
}

/// What a machine shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Screen {
    /// It has no graphics.
    Absent,
    /// A graphics card, and nobody looks.
    Hidden,
    /// A window, or what else QEMU chooses.
    Window,
}

/// How a run ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The kernel reported that everything passed.
    Success,
    /// The kernel reported a panic.
    Panic,
    /// The kernel reported a CPU exception.
    Exception,
    /// The machine reset itself: a triple fault.
    Reset,
    /// The time limit passed; QEMU was ended.
    TimedOut,
    /// QEMU failed, or ended with a status that nobody here gives.
    Unknown(ExitStatus),
}

impl Outcome {
    /// What QEMU's exit status says. The kernel's values arrive doubled, plus one.
    fn from_status(status: ExitStatus) -> Self {
        match status.code() {
            Some(33) => Self::Success,
            Some(35) => Self::Panic,
            Some(37) => Self::Exception,
            Some(0) => Self::Reset,
            _ => Self::Unknown(status),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Success => write!(f, "the kernel reported success"),
            Self::Panic => write!(f, "the kernel panicked"),
            Self::Exception => write!(f, "the kernel met a CPU exception"),
            Self::Reset => write!(f, "the machine reset itself, as after a triple fault"),
            Self::TimedOut => write!(f, "the kernel did not end within the time limit"),
            Self::Unknown(status) => write!(f, "QEMU ended with {status}"),
        }
    }
}

/// What a run left behind.
#[derive(Clone, Debug)]
pub struct Report {
    /// How it ended.
    pub outcome: Outcome,
    /// What the kernel printed, and QEMU's complaints.
    pub output: String,
    /// How long it took, from starting QEMU to its end.
    pub took: Duration,
}

/// Why there was no run.
#[derive(Debug)]
pub enum BootError {
    /// QEMU is not installed.
    QemuMissing,
    /// OVMF, the firmware for UEFI, is not installed.
    FirmwareMissing,
    /// QEMU could not be started or waited for.
    Io(io::Error),
}

impl fmt::Display for BootError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::QemuMissing => write!(
                f,
                "{QEMU} is not installed; run `apt-get install qemu-system-x86`, \
                 or `make run`, which does it for you"
            ),
            Self::FirmwareMissing => write!(
                f,
                "the UEFI firmware OVMF is not installed; run `apt-get install ovmf`, \
                 or `make test`, which does it for you"
            ),
            Self::Io(error) => write!(f, "cannot run {QEMU}: {error}"),
        }
    }
}

impl std::error::Error for BootError {}

impl From<io::Error> for BootError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::QemuMissing,
            _ => Self::Io(error),
        }
    }
}

/// QEMU, ended with its owner.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        // Both fail only if it has ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Boot {
    /// A machine of that size, with an empty command line and two minutes' time.
    pub fn new(cpus: u32, memory: Memory) -> Self {
        let time_limit = Duration::from_secs(120);
        Self {
            qemu: QEMU.into(),
            cpus,
            memory,
            command_line: String::new(),
            features: String::new(),
            devices: String::new(),
            has_com1: true,
            typed: None,
            screen: Screen::Absent,
            control: None,
            time_limit,
        }
    }

    /// Boots `kernel` and waits for the end. `live` gets the output as it comes.
    pub fn run(&self, kernel: &Path, live: impl FnMut(&[u8])) -> Result<Report, BootError> {
        self.watch(self.command(kernel), live)
    }

    /// Starts QEMU and waits for the end.
    pub(crate) fn watch(
        &self,
        mut command: Command,
        mut live: impl FnMut(&[u8]),
    ) -> Result<Report, BootError> {
        let started = Instant::now();
        let mut machine = Machine(command.spawn()?);
        let (sender, output) = mpsc::channel();
        forward(machine.0.stdout.take().expect("piped"), sender.clone());
        forward(machine.0.stderr.take().expect("piped"), sender);

        let mut kept = Vec::new();
        let outcome = loop {
            let left = self.time_limit.saturating_sub(started.elapsed());
            match output.recv_timeout(left) {
                Ok(bytes) => {
                    live(&bytes);
                    kept.extend_from_slice(&bytes[..bytes.len().min(OUTPUT_LIMIT - kept.len())]);
                }
                Err(RecvTimeoutError::Timeout) => break Outcome::TimedOut,
                Err(RecvTimeoutError::Disconnected) => break end_of(&mut machine.0)?,
            }
        };
        let output = String::from_utf8_lossy(&kept).into_owned();
        Ok(Report { outcome, output, took: started.elapsed() })
    }

    fn command(&self, kernel: &Path) -> Command {
        let mut command = self.machine();
        command.arg("-kernel").arg(kernel).args(["-append", &self.command_line]);
        command
    }

    /// The machine, with nothing to boot yet.
    pub(crate) fn machine(&self) -> Command {
        let Self { cpus, memory, features, .. } = self;
        let address_bits = if *memory < Memory::gibibytes(512) { 40 } else { 48 };
        let separator = if features.is_empty() { "" } else { "," };
        let mut command = Command::new(&self.qemu);
        command
            // Never KVM. 48 address bits only where memory needs them: OVMF hangs on so many.
            .args(["-accel", "tcg", "-cpu"])
            .arg(format!("max,phys-bits={address_bits}{separator}{features}"))
            .args(["-smp", &cpus.to_string(), "-m", &memory.to_string()])
            // Memory that is not there until the kernel touches it.
            .args(["-object", &format!("memory-backend-ram,id=ram,size={memory},reserve=off")])
            .args(["-machine", "memory-backend=ram", "-nodefaults", "-no-reboot"])
            .args(["-serial", if self.has_com1 { "stdio" } else { "none" }])
            .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"])
            .stdin(self.input())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        match self.screen {
            Screen::Absent => command.args(["-display", "none"]),
            Screen::Hidden => command.args(["-display", "none", "-vga", "std"]),
            Screen::Window => command.args(["-vga", "std"]),
        };
        command.args(self.devices.split_whitespace());
        if let Some(socket) = &self.control {
            command.arg("-qmp").arg(format!("unix:{},server=on,wait=off", socket.display()));
        }
        command
    }

    fn input(&self) -> Stdio {
        match &self.typed {
            Some(end) => end.try_clone().expect("a handle").into(),
            // Who sees the screen may also type here.
            None if self.screen == Screen::Window => Stdio::inherit(),
            None => Stdio::null(),
        }
    }
}

/// Sends what comes out of `stream` on, until it ends or nobody listens.
fn forward(mut stream: impl Read + Send + 'static, to: Sender<Vec<u8>>) {
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = stream.read(&mut buffer) {
            if to.send(buffer[..length].to_vec()).is_err() {
                break;
            }
        }
    });
}

/// Waits for a QEMU that has closed its output.
fn end_of(qemu: &mut Child) -> io::Result<Outcome> {
    let closed = Instant::now();
    while closed.elapsed() < FAREWELL {
        if let Some(status) = qemu.try_wait()? {
            return Ok(Outcome::from_status(status));
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok(Outcome::TimedOut)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_of_memory_are_read_as_qemu_writes_them() {
        assert_eq!("512M".parse(), Ok(Memory::mebibytes(512)));
        assert_eq!("6g".parse(), Ok(Memory::gibibytes(6)));
        assert_eq!("1T".parse(), Ok(Memory::gibibytes(1024)));
        for wrong in ["", "M", "512", "0M", "-1G", "1.5G", "99999999999999999999T", "2¼G", "é"] {
            assert_eq!(wrong.parse::<Memory>(), Err(MemoryError(wrong.to_owned())));
        }
    }
}
