//! The demo kernel on CPUs whose APICs are in x2APIC mode, which QEMU's TCG has since version 9.0:
//! `make test-x2apic` fetches one, and names it in `FRAMETREE_QEMU`.

use std::env;
use std::path::{Path, PathBuf};
use std::time::Duration;

use frametree_qemu::{Boot, Firmware, Medium, Memory, Outcome};

/// What sends interrupts between CPUs, has timers fire, and takes all memory.
const COMMAND_LINE: &str = "only=exhaust,interrupt,nmi";

fn machine(cpus: u32) -> Boot {
    let qemu = env::var_os("FRAMETREE_QEMU").expect("FRAMETREE_QEMU, from `make test-x2apic`");
    Boot {
        qemu: qemu.into(),
        features: "+x2apic".into(),
        command_line: COMMAND_LINE.into(),
        time_limit: Duration::from_secs(90),
        ..Boot::new(cpus, Memory::mebibytes(256))
    }
}

fn kernel() -> &'static Path {
    frametree_qemu::kernel().unwrap_or_else(|error| panic!("{error}"))
}

/// What the kernel says of its CPUs, on a boot that succeeds.
fn cpus(boot: &Boot) -> String {
    let report = boot.run(kernel(), |_| ()).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(report.outcome, Outcome::Success, "{}:\n{}", report.outcome, report.output);
    said(&report.output)
}

fn said(output: &str) -> String {
    assert!(output.contains("every frame accounted for"), "{output}");
    let line = output.lines().find(|line| line.starts_with("CPUs: "));
    line.unwrap_or_else(|| panic!("no CPUs:\n{output}")).to_owned()
}

#[test]
fn firmware_leaves_xapic_and_the_kernel_goes_on_to_x2apic() {
    assert_eq!(cpus(&machine(4)), "CPUs: 0 1 2 3 up, 4 in all; by x2APIC, their numbers up to 3");
}

#[test]
fn without_x2apic_the_same_qemu_shows_none() {
    let boot = Boot { features: "-x2apic".into(), ..machine(4) };
    assert_eq!(cpus(&boot), "CPUs: 0 1 2 3 up, 4 in all; by xAPIC, their numbers up to 3");
}

/// Only x2APIC reaches them. One CPU of the first package, the first one and another of the second.
#[test]
fn cpus_have_numbers_above_255() {
    let cpu = |core: u32| {
        let place = format!("socket-id=1,die-id=0,module-id=0,core-id={core},thread-id=0");
        format!(" -device max-x86_64-cpu,{place}")
    };
    let packages = "-machine q35 -smp 1,sockets=2,cores=129,threads=1,maxcpus=258";
    let devices = packages.to_owned() + &cpu(0) + &cpu(127);
    let boot = Boot { devices, ..machine(1) };
    assert_eq!(cpus(&boot), "CPUs: 0 1 2 up, 3 in all; by x2APIC, their numbers up to 383");
}

/// More than there is room for, and the firmware itself has switched them all to x2APIC.
#[test]
fn of_300_cpus_the_first_128_are_used() {
    let (devices, command_line) = ("-machine q35".into(), "only=exhaust".into());
    let cpus = cpus(&Boot { devices, command_line, ..machine(300) });
    let end = " 126 127 up, 128 in all; by x2APIC, their numbers up to 127";
    assert!(cpus.ends_with(end), "{cpus}");
}

#[test]
fn by_grub_and_uefi() {
    let image = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("x2apic.iso");
    let made = frametree_qemu::image(kernel(), &image, 0, &[("Once", COMMAND_LINE)]);
    made.unwrap_or_else(|error| panic!("{error}"));
    let report = machine(2).run_image(&image, Firmware::Uefi, Medium::Cd, |_| ());
    let report = report.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(report.outcome, Outcome::Success, "{}:\n{}", report.outcome, report.output);
    let expected = "CPUs: 0 1 up, 2 in all; by x2APIC, their numbers up to 1";
    assert_eq!(said(&report.output), expected);
}
