//! The crate as its users get it: packed without a complaint, and with the README's program in an
//! empty directory, where it compiles as printed, for the host and for bare metal, and runs.
#![cfg(not(loom))]

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

#[path = "support/printed.rs"]
mod printed;

use frametree_qemu::{Boot, Memory, Outcome, Report};

/// A folder outside of the repository, so that nothing of it leaks in; removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = env::temp_dir().join(format!("frametree-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a folder for the test");
        Self(path)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, text).expect("a file");
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Runs a cargo of its own, as a user has it: nothing that the calling one has set.
fn cargo<S: AsRef<OsStr>>(directory: &Path, arguments: impl IntoIterator<Item = S>) -> Output {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or("cargo".into()));
    for name in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_TARGET", "CARGO_TARGET_DIR"] {
        command.env_remove(name);
    }
    command.current_dir(directory).args(arguments).output().expect("cargo runs")
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Packs the crate into this folder and unpacks it there.
fn packed_into(folder: &Folder) -> PathBuf {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target = folder.0.join("target");
    let arguments = ["package", "-p", "frametree", "--allow-dirty", "--no-verify", "--target-dir"];
    let arguments = || arguments.iter().map(OsStr::new).chain([target.as_os_str()]);
    // All that it depends on is here already, unless this is the first cargo on a new machine.
    let offline = cargo(repository, arguments().chain([OsStr::new("--offline")]));
    let output = if offline.status.success() { offline } else { cargo(repository, arguments()) };
    let said = text(&output);
    assert!(output.status.success() && !said.contains("warning"), "cargo package:\n{said}");

    let name = concat!("frametree-", env!("CARGO_PKG_VERSION"));
    let archive = target.join("package").join(name).with_added_extension("crate");
    let unpacked = Command::new("tar").arg("-xzf").arg(archive).current_dir(&folder.0).status();
    assert!(unpacked.expect("tar runs").success());
    folder.0.join(name)
}

/// The first Rust program in a text, as printed.
fn program(text: &str) -> &str {
    let (_, rest) = text.split_once("```rust").expect("a program");
    let (_, rest) = rest.split_once('\n').expect("a program");
    rest.split_once("```").expect("the program's end").0
}

#[test]
fn the_readme_s_program_compiles_in_an_empty_directory() {
    let folder = Folder::new("user");
    let unpacked = packed_into(&folder);
    let readme = fs::read_to_string(unpacked.join("README.md")).expect("a packed README");
    let (_, rest) = readme.split_once("```toml\n").expect("what to depend on");
    let (dependencies, _) = rest.split_once("```").expect("its end");
    fs::rename(&unpacked, folder.0.join("frametree")).expect("a copy beside the kernel");
    let manifest = format!(
        "[package]\nname = \"kernel\"\nedition = \"2024\"\n\n[workspace]\n\n{dependencies}"
    );
    folder.write("kernel/Cargo.toml", &manifest);
    folder.write(
        "kernel/src/lib.rs",
        &format!("#![no_std]\n#![allow(dead_code)]\n{}", program(&readme)),
    );
    for target in [&[][..], &["--target", "x86_64-unknown-none"]] {
        let output = cargo(&folder.0.join("kernel"), ["build", "--release"].iter().chain(target));
        let said = text(&output);
        assert!(output.status.success() && !said.contains("warning"), "{target:?}:\n{said}");
    }
}

/// `cargo test --doc` compiles them too, but with lines that the reader does not see, and each alone.
#[test]
fn the_quick_start_and_the_porting_guide_compile_as_printed() {
    let folder = Folder::new("book");
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let start = fs::read_to_string(repository.join("docs/start.md")).expect("a chapter");
    let (_, rest) = start.split_once("```toml\n").expect("what to depend on");
    let (dependencies, _) = rest.split_once("```").expect("its end");
    let dependencies = dependencies
        .replace("\"../frametree\"", &format!("{repository:?}"))
        .replace("[\"limine\",", "[\"limine\", \"bootloader_api\", \"e820\",");
    let manifest = format!(
        "[package]\nname = \"kernel\"\nedition = \"2024\"\n\n[workspace]\n\n\
         {dependencies}bootloader_api = \"0.11\"\n"
    );
    folder.write("Cargo.toml", &manifest);
    // The versions that are here already.
    fs::copy(repository.join("Cargo.lock"), folder.0.join("Cargo.lock")).expect("a file");
    let printed = |chapter| printed::programs(&repository.join("docs"), chapter);
    let mut programs = Vec::new();
    for chapter in ["start-others.md", "porting.md"] {
        let mut blocks = printed(chapter);
        // What the others of a chapter begin with.
        let first =
            if chapter == "porting.md" { blocks.remove(0) } else { printed("start.md").remove(0) };
        programs.extend(blocks.into_iter().map(|block| first.clone() + "\n" + &block));
    }
    assert_eq!(programs.len(), 6);
    for (number, program) in programs.iter().enumerate() {
        let program = format!("#![allow(dead_code)]\n{program}\nfn main() {{}}\n");
        folder.write(&format!("src/bin/program{number}.rs"), &program);
    }
    let offline = cargo(&folder.0, ["check", "--offline"]);
    let output = if offline.status.success() { offline } else { cargo(&folder.0, ["check"]) };
    let said = text(&output);
    assert!(output.status.success() && !said.contains("warning"), "{said}");
}

/// A kernel of somebody else: it has left UEFI, maps physical memory where the README's program
/// expects it, and calls that program.
const FOREIGN_KERNEL: &str = r#"
#![no_std]
#![no_main]
use core::arch::asm;
use uefi::mem::memory_map::MemoryMap as _;

include!("readme.rs");

#[uefi::entry]
fn main() -> uefi::Status {
    let firmware = unsafe { uefi::boot::exit_boot_services(None) };
    unsafe {
        // The upper half becomes what the lower half is, also where firmware protects its tables.
        let (root, flags): (u64, u64);
        asm!("cli", "mov {}, cr3", "mov {}, cr0", out(reg) root, out(reg) flags);
        asm!("mov cr0, {}", in(reg) flags & !(1 << 16));
        let tables = (root & !0xfff) as *mut u64;
        tables.add(256).write_volatile(tables.read_volatile());
    }
    start(frametree::boot::uefi::regions(firmware.entries()), (0, 0), 1);
    let stats = POOL.stats();
    assert!(stats.free_frames > 30_000 && stats.free_frames == stats.managed_frames);
    end(0x10)
}

fn end(code: u32) -> ! {
    unsafe { asm!("out dx, eax", in("dx") 0xf4, in("eax") code) };
    loop {}
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    end(0x11)
}
"#;

#[test]
fn the_readme_s_program_runs_in_a_kernel_that_is_not_ours() {
    let folder = Folder::new("kernel");
    let unpacked = packed_into(&folder);
    let readme = fs::read_to_string(unpacked.join("README.md")).expect("a packed README");
    let manifest = format!(
        "[package]\nname = \"kernel\"\nedition = \"2024\"\n\n[workspace]\n\n\
         [dependencies]\nuefi = \"0.41\"\n\
         frametree = {{ path = {unpacked:?}, features = [\"uefi\"] }}\n"
    );
    folder.write("kernel/Cargo.toml", &manifest);
    folder.write("kernel/src/main.rs", FOREIGN_KERNEL);
    folder.write("kernel/src/readme.rs", program(&readme));
    let target = "x86_64-unknown-uefi";
    let output = cargo(&folder.0.join("kernel"), ["build", "--release", "--target", target]);
    assert!(output.status.success(), "{}", text(&output));

    let application = folder.0.join("kernel/target").join(target).join("release/kernel.efi");
    let report = Boot::new(1, Memory::mebibytes(256)).run_application(&application, |_| ());
    let Report { outcome, output, .. } = report.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(outcome, Outcome::Success, "{outcome}:\n{output}");
}

#[test]
fn the_package_has_what_a_kernel_needs_and_no_more() {
    let output = cargo(
        Path::new(env!("CARGO_MANIFEST_DIR")),
        ["package", "-p", "frametree", "--allow-dirty", "--list", "--offline"],
    );
    let list = String::from_utf8_lossy(&output.stdout).into_owned();
    let has = |name: &str| list.lines().any(|line| line == name);
    for name in ["README.md", "CHANGELOG.md", "LICENSE-MIT", "LICENSE-APACHE", "src/lib.rs"] {
        assert!(has(name), "no {name} in\n{list}");
    }
    let foreign = ["kernel-demo/", "qemu/", "tools/", "Makefile"];
    let stray = list.lines().find(|line| foreign.iter().any(|name| line.starts_with(name)));
    assert_eq!(stray, None, "{list}");
}
