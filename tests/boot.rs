//! The allocator in a kernel of its own: the demo kernel boots in QEMU on machines of many
//! shapes and has to report success; and a kernel that fails has to be seen to fail, each way
//! with an outcome of its own.
#![cfg(not(loom))]

use std::path::Path;
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use frametree_qemu::{Boot, Memory, Outcome, Report};

/// Boots at once: each has several busy threads.
const MACHINES: usize = 2;

static FREE_MACHINES: (Mutex<usize>, Condvar) = (Mutex::new(MACHINES), Condvar::new());

/// One of the machines that may run at once, until dropped.
struct Turn;

impl Turn {
    fn wait() -> Self {
        let (free, freed) = &FREE_MACHINES;
        let mut free = freed.wait_while(free.lock().unwrap(), |free| *free == 0).unwrap();
        *free -= 1;
        Self
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let (free, freed) = &FREE_MACHINES;
        // A boot that panicked held no lock; the count is right all the same.
        *free.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) += 1;
        freed.notify_one();
    }
}

fn run(boot: &Boot) -> Report {
    run_kernel(boot, frametree_qemu::kernel().unwrap_or_else(|error| panic!("{error}")))
}

fn run_kernel(boot: &Boot, kernel: &Path) -> Report {
    let _turn = Turn::wait();
    boot.run(kernel, |_| ()).unwrap_or_else(|error| panic!("{error}"))
}

/// The number behind `label` in the kernel's output.
fn figure(output: &str, label: &str) -> u64 {
    let (_, rest) = output.split_once(label).unwrap_or_else(|| panic!("no {label:?}:\n{output}"));
    let number = rest.split_whitespace().next().unwrap_or_default();
    number.parse().unwrap_or_else(|_| panic!("{label:?} has {number:?} behind it:\n{output}"))
}

/// Boots, and checks what the kernel says about itself.
fn boots(cpus: u32, memory: Memory) -> String {
    let Report { outcome, output, .. } = run(&Boot::new(cpus, memory));
    assert_eq!(outcome, Outcome::Success, "{outcome}:\n{output}");
    assert!(output.contains("booted through PVH"), "{output}");
    fits_a_terminal(&output);
    let numbers: Vec<String> = (0..cpus).map(|cpu| cpu.to_string()).collect();
    let up = format!("CPUs: {} up, {cpus} in all", numbers.join(" "));
    assert!(output.contains(&up), "no {up:?}:\n{output}");

    let managed = figure(&output, "frames managed: ");
    assert!(managed > 0);
    let (joined, retired) = (figure(&output, "  joined late "), figure(&output, "  retired "));
    // The first MiB but frame 0.
    assert!(joined >= 158 && retired == 1, "{output}");
    let managed = managed + joined - retired;
    assert_eq!(figure(&output, "  removed "), 1024, "{output}");
    assert!(figure(&output, "  NMIs ") >= 250 * u64::from(cpus), "{output}");
    assert!(output.contains(" hit inside the allocator\n"), "{output}");
    let urgent = figure(&output, "  reserve ");
    assert_eq!(urgent, 24 * u64::from(cpus), "{output}");
    assert!(figure(&output, "had in interrupts, ") > 0, "{output}");
    assert!(figure(&output, "  low last ") >= 512, "{output}");
    let crossings = figure(&output, "  crossings ");
    assert!(crossings >= 2 && crossings.is_multiple_of(2), "{output}");
    assert!(figure(&output, "  zeroed ") > 1000, "{output}");
    assert!(figure(&output, "  large pages ") > 0, "{output}");
    assert!(output.contains(&format!("frames accounted for: {managed} of {managed}, all\n")));
    assert!(output.contains("verify: every level"), "{output}");
    assert!(figure(&output, "  nested ") > 0, "no interrupt hit inside the allocator:\n{output}");
    assert_eq!(figure(&output, "  allocations "), figure(&output, "  frees "));
    output
}

/// What the kernel prints can be read on 80 columns, without colour, and in a log.
fn fits_a_terminal(output: &str) {
    for line in output.lines() {
        let width = line.chars().count();
        assert!(width <= 80, "{width} columns: {line:?}");
        let odd = line.chars().find(|c| c.is_control() || !(c.is_ascii() || "·░▒▓█".contains(*c)));
        assert!(odd.is_none(), "{odd:?} in {line:?}");
    }
}

/// Boots with a fault on request, which must end the boot in this way.
fn fails(fault: &str, expected: Outcome) -> String {
    let command_line = format!("fail={fault}");
    let time_limit = Duration::from_secs(if expected == Outcome::TimedOut { 5 } else { 60 });
    let boot = Boot { command_line, time_limit, ..Boot::new(2, Memory::mebibytes(64)) };
    let Report { outcome, output, .. } = run(&boot);
    assert_eq!(outcome, expected, "{output}");
    output
}

/// Boots one of the small kernels, which must end well.
fn small_kernel_boots(name: &str, cpus: u32, memory: Memory) -> String {
    let kernel = frametree_qemu::small_kernel(name).unwrap_or_else(|error| panic!("{error}"));
    let Report { outcome, output, .. } = run_kernel(&Boot::new(cpus, memory), &kernel);
    assert_eq!(outcome, Outcome::Success, "{outcome}:\n{output}");
    output
}

#[test]
fn the_small_kernel_for_one_cpu() {
    let output = small_kernel_boots("one_cpu", 1, Memory::mebibytes(128));
    assert!(output.contains("written there, read here"), "{output}");
    assert!(figure(&output, "MemFree:") > 100 << 10, "{output}");
}

#[test]
fn the_small_kernel_for_four_cpus() {
    let output = small_kernel_boots("four_cpus", 4, Memory::gibibytes(6));
    assert!(output.contains("200000 frames went from CPU to CPU, none is missing"), "{output}");
    assert!(output.contains("zone   Normal"), "{output}");
    assert!(figure(&output, "Free1G:") >= 3 << 20, "{output}");
}

#[test]
fn the_small_kernel_that_is_a_uefi_application() {
    let application = frametree_qemu::application().unwrap_or_else(|error| panic!("{error}"));
    let _turn = Turn::wait();
    // A third of it lies above 4 GiB.
    let boot = Boot::new(1, Memory::gibibytes(3));
    let report = boot.run_application(&application, |_| ());
    let Report { outcome, output, .. } = report.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(outcome, Outcome::Success, "{outcome}:\n{output}");
    let at_once = figure(&output, "free at once: ");
    // OVMF has put away some 40 MiB for itself and for its drivers.
    assert!((2944..3066).contains(&(at_once >> 8)), "{output}");
    let reclaimed = figure(&output, "reclaimed: ");
    assert!((4 << 8..64 << 8).contains(&reclaimed), "{output}");
    // What is missing are page tables and the stack.
    let overwritten = figure(&output, "overwritten: ");
    assert!((at_once + reclaimed - overwritten) < 100, "{output}");
}

#[test]
fn one_cpu() {
    boots(1, Memory::mebibytes(512));
}

#[test]
fn two_cpus() {
    boots(2, Memory::mebibytes(512));
}

#[test]
fn four_cpus_and_all_memory_through_the_hands_of_each() {
    let output = boots(4, Memory::mebibytes(512));
    let through = output.lines().find(|line| line.contains("through the hands of each of 4 CPUs"));
    assert!(through.is_some_and(|line| line.ends_with(" frames, all")), "{output}");
}

#[test]
fn eight_cpus() {
    boots(8, Memory::mebibytes(512));
}

#[test]
fn memory_64_mib() {
    boots(4, Memory::mebibytes(64));
}

#[test]
fn memory_6_gib_with_a_hole_below_4_gib_and_every_shape_of_memory() {
    let output = boots(4, Memory::gibibytes(6));
    assert!(figure(&output, "Mapped above 4 GiB: ") > 0, "{output}");
    assert!(output.contains("of 2 MiB, and 1 of 1 GiB"), "{output}");

    let line = output.lines().find(|line| line.starts_with("  shapes  "));
    let line = line.unwrap_or_else(|| panic!("no line about shapes:\n{output}"));
    let words: Vec<&str> = line.split(|c: char| c.is_whitespace() || c == ',').collect();
    let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
    let [
        "shapes",
        frames,
        runs,
        "runs",
        old,
        "DMA",
        "<16M",
        buffers,
        "DMA",
        "<4G",
        blocks,
        "of",
        "2",
        "MiB",
    ] = words[..]
    else {
        panic!("not as it should be: {line:?}");
    };
    let [frames, runs, old, buffers, blocks] =
        [frames, runs, old, buffers, blocks].map(|word| word.parse::<u64>().expect("a number"));
    // The runs alone have 128 Ki frames; 4 CPUs take 4 blocks each.
    assert!(frames > (128 << 10) + 16 * 512 && runs > 200, "{line}");
    assert!(old > 100 && buffers > 20 && blocks == 16, "{line}");
}

#[test]
fn memory_64_gib() {
    boots(4, Memory::gibibytes(64));
}

#[test]
fn memory_1_tib() {
    let output = boots(4, Memory::gibibytes(1024));
    assert!(figure(&output, "frames managed: ") > 1023 << 18, "{output}");
}

#[test]
fn a_soak_of_one_round() {
    let boot = Boot { command_line: "soak=0".into(), ..Boot::new(2, Memory::mebibytes(64)) };
    let Report { outcome, output, .. } = run(&boot);
    assert_eq!(outcome, Outcome::Success, "{outcome}:\n{output}");
    let line = output.lines().find(|line| line.contains(" rounds, "));
    let line = line.unwrap_or_else(|| panic!("no line about rounds:\n{output}"));
    assert!(line.contains("  1 rounds, ") && line.ends_with(" 0 faults"), "{line}");
    // Each of two CPUs has stamped all of 60 MiB.
    assert!(figure(line, "rounds, ") > 60_000, "{line}");
    assert!(figure(line, "operations, ") > 30_000, "{line}");
    assert!(!output.contains("nmi:"), "a round that is not quiet:\n{output}");
}

#[test]
fn a_panic_is_a_failure() {
    let output = fails("panic", Outcome::Panic);
    assert!(output.contains("PANIC on CPU 1: on request"), "{output}");
}

#[test]
fn a_cpu_exception_is_a_failure() {
    let output = fails("exception", Outcome::Exception);
    assert!(output.contains("EXCEPTION 14 on CPU 1"), "{output}");
    assert!(output.contains("0x0000123456789000"), "{output}");
}

#[test]
fn a_triple_fault_is_a_failure() {
    fails("triple", Outcome::Reset);
}

#[test]
fn a_hang_is_a_failure() {
    fails("hang", Outcome::TimedOut);
}

#[test]
fn one_wrong_byte_in_a_stamped_frame_is_found() {
    let output = fails("stamp", Outcome::Panic);
    assert!(output.contains("damaged stamp in frame"), "{output}");
}
