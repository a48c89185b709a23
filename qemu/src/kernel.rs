//! Builds the demo kernel, once for each process, into a target directory of its own: whoever
//! runs under `cargo` holds the lock of the usual one.

use std::env;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::OnceLock;

const TARGET: &str = "x86_64-unknown-none";
const UEFI_TARGET: &str = "x86_64-unknown-uefi";
/// What the calling `cargo` may have set for the host, and the kernel must not inherit.
const HOST_SETTINGS: [&str; 4] =
    ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_TARGET", "CARGO_BUILD_RUSTFLAGS"];

/// Why there is no kernel.
#[derive(Clone, Debug)]
pub enum BuildError {
    /// The standard library for bare metal is not installed.
    TargetMissing(&'static str),
    /// A program could not be started.
    NotStarted {
        /// Which one.
        program: String,
        /// What the system said.
        why: io::ErrorKind,
    },
    /// `cargo build` failed; it said why on standard error.
    Failed(ExitStatus),
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TargetMissing(target) => write!(
                f,
                "the Rust target {target} is not installed; \
                 run `rustup target add {target}`, or `make test`, which does it for you"
            ),
            Self::NotStarted { program, why } => {
                write!(f, "cannot start `{program}` ({why}); is it in the PATH?")
            }
            Self::Failed(status) => {
                write!(f, "building the demo kernel failed ({status}); see above")
            }
        }
    }
}

impl std::error::Error for BuildError {}

/// The kernel's ELF file, built if it is not there or not up to date.
pub fn kernel() -> Result<&'static Path, BuildError> {
    static KERNEL: OnceLock<Result<PathBuf, BuildError>> = OnceLock::new();
    KERNEL.get_or_init(|| build(TARGET, "kernel-demo", &[])).as_deref().map_err(Clone::clone)
}

/// The ELF file of one of the small kernels in `kernel-demo/examples`, built likewise.
pub fn small_kernel(name: &str) -> Result<PathBuf, BuildError> {
    build(TARGET, &format!("examples/{name}"), &["--features", "small", "--example", name])
}

/// The UEFI application of `kernel-demo/examples`, built likewise.
pub fn application() -> Result<PathBuf, BuildError> {
    build(UEFI_TARGET, "examples/uefi.efi", &["--features", "uefi", "--example", "uefi"])
}

fn build(target: &'static str, file: &str, arguments: &[&str]) -> Result<PathBuf, BuildError> {
    check_target(target)?;
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let targets = env::var_os("CARGO_TARGET_DIR").map_or(workspace.join("target"), PathBuf::from);
    let directory = targets.join("kernel");
    let cargo = env::var_os("CARGO").unwrap_or("cargo".into());
    let mut command = Command::new(cargo);
    command
        .args(["build", "--quiet", "--release", "--package", "kernel-demo"])
        .args(["--target", target, "--target-dir"])
        .arg(&directory)
        .args(arguments)
        .current_dir(&workspace);
    for setting in HOST_SETTINGS {
        command.env_remove(setting);
    }
    let status = command.status().map_err(|error| not_started(&command, &error))?;
    if !status.success() {
        return Err(BuildError::Failed(status));
    }
    Ok(directory.join(target).join("release").join(file))
}

/// Asks the compiler where the target's library would be, and looks.
fn check_target(target: &'static str) -> Result<(), BuildError> {
    let rustc = env::var_os("RUSTC").unwrap_or("rustc".into());
    let mut command = Command::new(rustc);
    command.args(["--print", "target-libdir", "--target", target]);
    let output = command.output().map_err(|error| not_started(&command, &error))?;
    let directory = String::from_utf8_lossy(&output.stdout);
    if Path::new(directory.trim()).is_dir() {
        Ok(())
    } else {
        Err(BuildError::TargetMissing(target))
    }
}

fn not_started(command: &Command, error: &io::Error) -> BuildError {
    let program = command.get_program().to_string_lossy().into_owned();
    BuildError::NotStarted { program, why: error.kind() }
}
