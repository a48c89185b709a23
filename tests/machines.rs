//! The demo kernel where real machines differ from `qemu -kernel`: started by GRUB from the disk
//! image, by BIOS and UEFI, as CD and as USB stick; without COM1, without pages of 1 GiB, on 128
//! CPUs. And the script that writes the image to a stick.
#![cfg(not(loom))]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use frametree_qemu::{Boot, Firmware, Medium, Memory, Outcome, Report};

/// A fast exercise that takes all memory there is.
const SHORT: &str = "only=exhaust";

fn kernel() -> &'static Path {
    frametree_qemu::kernel().unwrap_or_else(|error| panic!("{error}"))
}

/// A place for this test run's files.
fn place(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

fn image() -> &'static Path {
    static IMAGE: OnceLock<PathBuf> = OnceLock::new();
    IMAGE.get_or_init(|| {
        let file = place("short.iso");
        let made = frametree_qemu::image(kernel(), &file, 0, &[("Short", SHORT)]);
        made.unwrap_or_else(|error| panic!("{error}"));
        file
    })
}

fn machine(cpus: u32, memory: Memory) -> Boot {
    let time_limit = Duration::from_secs(90);
    Boot { time_limit, command_line: SHORT.into(), ..Boot::new(cpus, memory) }
}

fn succeeds(report: Result<Report, frametree_qemu::BootError>) -> String {
    let Report { outcome, output, .. } = report.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(outcome, Outcome::Success, "{outcome}:\n{output}");
    output
}

/// Boots the image, and checks what only this way of booting has.
fn image_boots(firmware: Firmware, medium: Medium) {
    let boot = machine(2, Memory::mebibytes(256));
    let output = succeeds(boot.run_image(image(), firmware, medium, |_| ()));
    assert!(output.contains("booted through multiboot2"), "{output}");
    assert!(output.contains("CPUs: 0 1 up, 2 in all"), "no second CPU, so no MADT:\n{output}");
    assert!(output.contains("only exhaust: "), "not this command line:\n{output}");
    assert!(output.contains("every frame accounted for"), "{output}");
    let information = output.lines().find(|line| line.contains("  boot information: "));
    let information = information.unwrap_or_else(|| panic!("not reserved:\n{output}"));
    // Below 1 MiB all is reserved already; GRUB puts it there on UEFI.
    let is_low = information.trim_start().starts_with("0x0000000");
    assert!(is_low || !information.ends_with(": 0 frames"), "it was not usable: {information}");
    let kinds = ["usable", "reserved"].map(|kind| output.matches(kind).count());
    assert!(kinds.into_iter().all(|count| count > 1), "a memory map:\n{output}");
}

#[test]
fn the_image_from_cd_by_bios() {
    image_boots(Firmware::Bios, Medium::Cd);
}

#[test]
fn the_image_from_a_stick_by_bios() {
    image_boots(Firmware::Bios, Medium::Usb);
}

#[test]
fn the_image_from_cd_by_uefi() {
    image_boots(Firmware::Uefi, Medium::Cd);
}

#[test]
fn the_image_from_a_stick_by_uefi() {
    image_boots(Firmware::Uefi, Medium::Usb);
}

#[test]
fn without_com1() {
    let boot = Boot { has_com1: false, ..machine(2, Memory::mebibytes(64)) };
    let output = succeeds(boot.run(kernel(), |_| ()));
    assert_eq!(output, "", "somebody was heard");
}

#[test]
fn without_pages_of_1_gib() {
    let boot = Boot { features: "pdpe1gb=off".into(), ..machine(2, Memory::gibibytes(6)) };
    let output = succeeds(boot.run(kernel(), |_| ()));
    assert!(output.contains("Mapped above 4 GiB: 0 pages of 1 GiB, 1"), "{output}");
}

#[test]
fn on_128_cpus() {
    let output = succeeds(machine(128, Memory::mebibytes(256)).run(kernel(), |_| ()));
    assert!(output.contains(" 126 127 up, 128 in all"), "{output}");
}

/// Runs `make usb`'s script, with this answer to its question.
fn write_stick(device: &str, answer: &str) -> Output {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/usb.sh");
    let mut command = Command::new(script);
    let pipes = [Stdio::piped(), Stdio::piped(), Stdio::piped()];
    let [input, output, errors] = pipes;
    command.args([image(), Path::new(device)]).stdin(input).stdout(output).stderr(errors);
    let mut child = command.spawn().expect("a script");
    // It may have refused before it reads.
    let _ = child.stdin.take().expect("piped").write_all(answer.as_bytes());
    child.wait_with_output().expect("an end")
}

#[test]
fn a_stick_is_written_after_the_right_answer_only() {
    let image = fs::read(image()).expect("the image");
    let stick = place("stick");
    let before = vec![0x5a; image.len() + 4096];
    fs::write(&stick, &before).expect("a file");
    let name = stick.to_str().expect("a plain path");
    for answer in ["", "\n", "yes\n", "/dev/sda\n"] {
        let output = write_stick(name, answer);
        assert!(!output.status.success() && fs::read(&stick).unwrap() == before, "{output:?}");
    }
    let output = write_stick(name, &format!("{name}\n"));
    assert!(output.status.success(), "{output:?}");
    let after = fs::read(&stick).unwrap();
    assert!(after[..image.len()] == image[..], "not the image");
    assert!(after.len() == before.len() && after.ends_with(&[0x5a; 4096]), "more than the image");
}

#[test]
fn what_is_no_stick_is_refused() {
    // This machine's own disk, if it shows one.
    let root = Command::new("findmnt").args(["-no", "SOURCE", "/"]).output();
    let root = root.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    let own = root.ok().filter(|root| Path::new(root).exists());
    let cases = [
        (Some(""), "which stick?"),
        (Some("/dev/no-such-disk"), "does not exist"),
        (Some("/dev/null"), "is no disk"),
        (Some("/tmp"), "is no disk"),
        (Some(image().to_str().unwrap()), "is the image itself"),
        (own.as_deref(), ""),
    ];
    for (device, why) in cases.into_iter().filter_map(|(device, why)| Some((device?, why))) {
        let output = write_stick(device, &format!("{device}\n"));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(why), "{device:?}: {output:?}");
        assert!(output.stdout.is_empty(), "{device:?} was asked about: {output:?}");
    }
}
