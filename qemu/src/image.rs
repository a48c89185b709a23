//! The disk image for real machines: GRUB and the kernel on one ISO 9660 file system, with the
//! boot records of BIOS and UEFI, so that the same file is a CD and a USB stick.
//!
//! GRUB starts the kernel through multiboot2. `grub-mkrescue` makes the image; of GRUB's modules it
//! gets those that are needed, which is a quarter of all. The kernel goes in without its debug
//! information, which GRUB would load into memory too; gdb reads that in the file that cargo made.

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;

use crate::machine::{Boot, BootError, Report};
use crate::uefi;

const MAKER: &str = "grub-mkrescue";
/// All kinds of partitions are among them because the boot record asks for them, and complains;
/// `mmap` has `cutmem`, for who knows that some memory is broken; `iorw` and `memrw` have `outw` and
/// `write_dword`, for what firmware might have left.
const MODULES: &str = "--install-modules=multiboot2 normal boot all_video iso9660 fat part_gpt \
    part_msdos part_acorn part_amiga part_apple part_bsd part_dfly part_dvh part_plan part_sun \
    part_sunpc mmap iorw memrw";
const STRIPPER: &str = "strip";

/// What GRUB offers: a title and the kernel's command line. The first is taken after a while.
pub type Entry<'a> = (&'a str, &'a str);

/// Who starts the image.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Firmware {
    /// SeaBIOS, QEMU's own.
    Bios,
    /// OVMF.
    Uefi,
}

/// As what the machine sees the image.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Medium {
    /// A CD in a drive.
    Cd,
    /// A stick behind a USB 3 controller.
    Usb,
}

/// Why there is no image.
#[derive(Debug)]
pub enum ImageError {
    /// A file could not be written, or a program not be started.
    Io(io::Error),
    /// A program is not installed.
    Missing(String),
    /// A program, and what it said.
    Failed(String, String),
}

impl fmt::Display for ImageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "cannot make the image: {error}"),
            Self::Missing(program) => {
                write!(f, "{program} is not installed; `make iso` installs it with what it needs")
            }
            Self::Failed(program, said) => write!(f, "{program} failed:\n{said}"),
        }
    }
}

impl std::error::Error for ImageError {}

impl From<io::Error> for ImageError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Writes an image of `kernel` to the file `to`. GRUB waits for `patience` seconds before it takes
/// the first entry.
pub fn image(
    kernel: &Path,
    to: &Path,
    patience: u32,
    entries: &[Entry<'_>],
) -> Result<(), ImageError> {
    image_with("", kernel, to, patience, entries)
}

/// The same, with these commands for GRUB before anything starts: `cutmem`, `outw`, `write_dword`.
pub fn image_with(
    commands: &str,
    kernel: &Path,
    to: &Path,
    patience: u32,
    entries: &[Entry<'_>],
) -> Result<(), ImageError> {
    let root = to.with_extension("root");
    let grub = root.join("boot/grub");
    fs::create_dir_all(&grub)?;
    fs::write(grub.join("grub.cfg"), menu(commands, patience, entries))?;
    run(Command::new(STRIPPER)
        .arg("--strip-debug")
        .arg(kernel)
        .arg("-o")
        .arg(root.join("boot/kernel")))?;
    run(Command::new(MAKER)
        .args([MODULES, "--locales=", "--fonts=", "--themes=", "-o"])
        .args([to, &root]))?;
    Ok(fs::remove_dir_all(&root)?)
}

fn run(command: &mut Command) -> Result<(), ImageError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => ImageError::Missing(program.clone()),
        _ => ImageError::Io(error),
    })?;
    if output.status.success() {
        Ok(())
    } else {
        Err(ImageError::Failed(program, String::from_utf8_lossy(&output.stderr).into_owned()))
    }
}

fn menu(commands: &str, patience: u32, entries: &[Entry<'_>]) -> String {
    let mut menu = format!("insmod all_video\n{commands}\nset timeout={patience}\nset default=0\n");
    for (title, command_line) in entries {
        menu +=
            &format!("menuentry \"{title}\" {{\n    multiboot2 /boot/kernel {command_line}\n}}\n");
    }
    menu
}

impl Boot {
    /// Boots an image and waits for the end, as [`run`](Self::run) does with a kernel. The command
    /// line is the image's own.
    pub fn run_image(
        &self,
        image: &Path,
        firmware: Firmware,
        medium: Medium,
        live: impl FnMut(&[u8]),
    ) -> Result<Report, BootError> {
        let mut command = self.machine();
        if firmware == Firmware::Uefi {
            uefi::firmware(&mut command)?;
        }
        let drive = format!("if=none,id=image,format=raw,readonly=on,file={}", image.display());
        command.args(["-drive", &drive]);
        match medium {
            Medium::Cd => command.args(["-device", "ide-cd,drive=image"]),
            Medium::Usb => {
                command.args(["-device", "qemu-xhci", "-device", "usb-storage,drive=image"])
            }
        };
        self.watch(command, live)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_entry_is_the_default() {
        let menu = menu("", 3, &[("The screen", "screen"), ("Once", "")]);
        assert!(menu.contains("set timeout=3\nset default=0\n"), "{menu}");
        let first = menu.find("menuentry").expect("an entry");
        assert!(
            menu[first..]
                .starts_with("menuentry \"The screen\" {\n    multiboot2 /boot/kernel screen\n}\n")
        );
        assert_eq!(menu.matches("menuentry").count(), 2);
    }
}
