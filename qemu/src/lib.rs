//! Boots frametree's demo kernel in QEMU and says how it ended.
//!
//! A boot succeeds only if the kernel itself says so, through QEMU's exit device. A panic, a CPU
//! exception, a reset (the machine's answer to a triple fault) and silence beyond the time limit
//! are failures, each with a name of its own.
//!
//! It never uses KVM, so that a boot is the same everywhere. It installs nothing: what is missing
//! is an error that names the command to run.

mod control;
mod image;
mod kernel;
mod machine;
mod uefi;

pub use control::Control;
pub use image::{Entry, Firmware, ImageError, Medium, image, image_with};
pub use kernel::{BuildError, application, kernel, small_kernel};
pub use machine::{Boot, BootError, Memory, MemoryError, Outcome, Report, Screen};
