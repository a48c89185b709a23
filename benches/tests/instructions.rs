//! The hot paths do not grow unnoticed: what callgrind counts now, beside the committed table.
//!
//! A count depends on the compiler as well as on the source: after an update of Rust this may fail
//! although nobody changed a path. Then the table is written anew, in a commit of its own.

use std::collections::BTreeMap;
use std::process::Command;

/// How much more than in the table is still the same.
const GROWTH: f64 = 1.03;

/// The counts of a table, and the compiler that it holds for.
fn parse(table: &str) -> (BTreeMap<&str, f64>, &str) {
    let compiler = table.lines().find_map(|line| line.strip_prefix("# rustc "));
    let lines = table.lines().filter(|line| !line.starts_with('#'));
    let counts = lines.filter_map(|line| {
        let (path, count) = line.split_once(' ')?;
        Some((path, count.trim().parse().expect("a count")))
    });
    (counts.collect(), compiler.expect("the compiler of the table"))
}

#[test]
fn no_hot_path_has_grown() {
    let committed = include_str!("../instructions.txt");
    let (before, old_compiler) = parse(committed);
    let output = Command::new(env!("CARGO"))
        .args(["run", "--quiet", "--release", "-p", "frametree-bench", "--bin", "instructions"])
        .args(["--", "--table"])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .output()
        .expect("cargo starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the paths were not counted:\n{errors}");
    let text = String::from_utf8_lossy(&output.stdout);
    let (now, compiler) = parse(&text);

    let (new, old): (Vec<_>, Vec<_>) = (now.keys().collect(), before.keys().collect());
    assert_eq!(new, old, "the paths of the table: `make instructions` writes it");
    let grown: Vec<_> = now
        .iter()
        .filter(|(path, count)| **count > before[**path] * GROWTH)
        .map(|(path, count)| format!("  {path}: {} to {count} instructions", before[*path]))
        .collect();
    let compilers = if compiler == old_compiler {
        String::new()
    } else {
        format!("\nThe table is of rustc {old_compiler}, this is {compiler}: that alone may do it.")
    };
    assert!(
        grown.is_empty(),
        "these paths have grown by more than 3 %:\n{}{compilers}\n\
         If they must, `make instructions` rewrites benches/instructions.txt; say why in the commit.",
        grown.join("\n"),
    );
}
