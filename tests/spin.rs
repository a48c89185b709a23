//! The protocol as a model of its own, in Spin: every interleaving of two CPUs without a bound on
//! preemptions, also those in which one CPU stops for good at any step; and bugs that it must find.
//! tests/spin/tree.pml says what is modelled.
#![cfg(not(loom))]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What is planted, and a part of what the checker must say of it.
const PLANTS: &[(&str, &str)] = &[
    ("-DNO_ANNOUNCE", "assertion violated"),
    ("-DNO_EVIDENCE", "assertion violated"),
    ("-DNO_JOURNAL", "assertion violated"),
    ("-DLOAD_STORE", "assertion violated"),
    ("-DONE_LOOK", "assertion violated"),
    ("-DNO_UNDO -DROUNDS=2", "assertion violated"),
    ("-DNO_RECHECK -DROUNDS=2", "assertion violated"),
    // A lock, which whoever stops inside of it never gives back: the others never end.
    ("-DLOCK -DHALT", "invalid end state"),
];

fn run(folder: &Path, program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).current_dir(folder).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}; see tools/setup.sh"));
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&text).into_owned()
}

/// Looks for assertions that fail, and for CPUs that wait for ever.
const SAFETY: &str = "-DSAFETY";
/// Looks for loops without end: nothing in the model is marked as progress, so any cycle is one.
/// (That search does not see CPUs that wait.)
const CYCLES: &str = "-DNP";

/// What the checker says of the model with these definitions.
fn explore(flags: &str, kind: &str) -> String {
    let name: String =
        flags.chars().chain(kind.chars()).filter(char::is_ascii_alphanumeric).collect();
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("spin{name}"));
    fs::create_dir_all(&folder).expect("a folder");
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/spin/tree.pml");
    let model = model.to_str().expect("a plain name");
    let flags = flags.split_whitespace();
    let made = run(&folder, "spin", &flags.chain(["-a", model]).collect::<Vec<_>>());
    let checker = ["-O2", "-w", kind, "-DMEMLIM=3000", "-o", "pan", "pan.c"];
    let built = run(&folder, "cc", &checker);
    assert!(folder.join("pan").exists(), "{made}{built}");
    let search = if kind == CYCLES { &["-m2000000", "-l"][..] } else { &["-m2000000"][..] };
    run(&folder, "./pan", search)
}

fn assert_sound(flags: &str, kind: &str) {
    let said = explore(flags, kind);
    println!("{flags}:\n{said}");
    assert!(said.contains("errors: 0"), "{said}");
    assert!(!said.contains("max search depth too small"), "{said}");
    assert!(!said.contains("out of memory"), "{said}");
}

#[test]
fn no_frame_is_lost_or_doubled_and_out_of_memory_is_true() {
    assert_sound("", SAFETY);
}

#[test]
fn one_cpu_may_stop_at_any_step() {
    assert_sound("-DHALT", SAFETY);
    assert_sound("-DHALT", CYCLES);
}

#[test]
fn every_planted_bug_is_found() {
    for (flags, complaint) in PLANTS {
        let said = explore(flags, SAFETY);
        println!("{flags}: {}", said.lines().find(|line| line.starts_with("pan:1")).unwrap_or("-"));
        assert!(said.contains(complaint), "{flags}:\n{said}");
    }
}
