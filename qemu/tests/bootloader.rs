//! The quick start's lines as printed, in a kernel that the crate `bootloader` starts on BIOS and UEFI.
//! Building that loader takes a nightly Rust: `make test-bootloader` installs one and names it in
//! `FRAMETREE_NIGHTLY`.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

#[path = "../../tests/support/printed.rs"]
mod printed;

use frametree_qemu::{Boot, Firmware, Medium, Memory, Outcome, Screen};

/// What the kernel has beside the printed lines, whose `start` ends in an endless loop.
const REST: &str = r#"
use core::arch::asm;

bootloader_api::entry_point!(start, config = &CONFIG);

fn end() -> ! {
    let mut taken = 0;
    while let Ok(frame) = POOL.alloc() {
        let address = DIRECT_MAP + frame.into_number().start_address() as usize;
        unsafe { core::ptr::with_exposed_provenance_mut::<[u64; 512]>(address).write([!0; 512]) };
        taken += 1;
    }
    let stats = POOL.stats();
    // Most of 128 MiB; the loader needs some of it.
    let is_sound = POOL.verify().is_ok() && taken > 30_000 && taken == stats.managed_frames;
    leave(if is_sound { 0x10 } else { 0x11 })
}

fn leave(code: u32) -> ! {
    unsafe { asm!("out dx, eax", in("dx") 0xf4, in("eax") code) };
    loop {}
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    leave(0x11)
}
"#;

const MAKER: &str = r#"
fn main() {
    let mut paths = std::env::args_os().skip(1).map(std::path::PathBuf::from);
    let mut path = || paths.next().expect("a kernel and two images");
    let builder = bootloader::DiskImageBuilder::new(path());
    builder.create_bios_image(&path()).expect("an image");
    builder.create_uefi_image(&path()).expect("an image");
}
"#;

/// Writes a package, and has a cargo do something in it, with none of the settings of ours.
fn package(folder: &Path, dependencies: &str, program: &str, cargo: &mut Command) {
    let manifest =
        "[package]\nname = \"it\"\nedition = \"2024\"\n\n[workspace]\n\n[dependencies]\n";
    fs::create_dir_all(folder.join("src")).expect("a folder");
    fs::write(folder.join("Cargo.toml"), manifest.to_owned() + dependencies).expect("a file");
    fs::write(folder.join("src/main.rs"), program).expect("a file");
    for name in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_TARGET", "CARGO_TARGET_DIR"] {
        cargo.env_remove(name);
    }
    let status = cargo.current_dir(folder).status().expect("cargo runs");
    assert!(status.success(), "{cargo:?}: {status}");
}

/// The two disk images, by BIOS and by UEFI.
fn images() -> [PathBuf; 2] {
    let nightly = env::var("FRAMETREE_NIGHTLY").expect("of `make test-bootloader`");
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bootloader");
    let chapter = |name| printed::programs(&repository.join("docs"), name);
    let lines = chapter("start.md").remove(0) + &chapter("start-others.md")[1];
    assert_eq!(lines.matches("loop {}").count(), 1, "{lines}");
    let program = format!("#![no_std]\n#![no_main]\n{}{REST}", lines.replace("loop {}", "end()"));
    let dependencies = format!(
        "bootloader_api = \"0.11\"\n\
         frametree = {{ path = {repository:?}, features = [\"bootloader_api\"] }}\n\
         [profile.release]\npanic = \"abort\"\n"
    );
    let target = "x86_64-unknown-none";
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or("cargo".into()));
    let build = cargo.args(["build", "--quiet", "--release", "--target", target]);
    package(&folder.join("kernel"), &dependencies, &program, build);

    let images = ["bios.img", "uefi.img"].map(|name| folder.join(name));
    let mut cargo = Command::new("cargo");
    cargo.arg(format!("+{nightly}")).args(["run", "--quiet", "--"]);
    cargo.arg(folder.join("kernel/target").join(target).join("release/it")).args(&images);
    package(&folder.join("maker"), "bootloader = \"0.11\"\n", MAKER, &mut cargo);
    images
}

#[test]
fn the_quick_start_by_the_bootloader_crate_on_bios_and_uefi() {
    for (image, firmware) in images().iter().zip([Firmware::Bios, Firmware::Uefi]) {
        // On BIOS the loader hangs on a machine without graphics.
        let boot = Boot { screen: Screen::Hidden, ..Boot::new(1, Memory::mebibytes(128)) };
        let report = boot.run_image(image, firmware, Medium::Usb, |_| ());
        let report = report.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(report.outcome, Outcome::Success, "{firmware:?}:\n{}", report.output);
    }
}
