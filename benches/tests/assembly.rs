//! The page that shows the hot paths shows those of today, and what it says of them is so.
//!
//! What the compiler makes depends on its version, and on all that it inlines: after a change of
//! either `make assembly` writes the page anew.

use std::process::Command;

/// The listings of the page.
fn instructions(page: &str) -> impl Iterator<Item = &str> {
    page.lines().filter(|line| line.starts_with("    "))
}

#[test]
fn the_page_of_the_hot_paths_is_what_the_compiler_makes() {
    let committed = include_str!("../../docs/assembly.md");
    let output = Command::new(env!("CARGO"))
        .args(["run", "--quiet", "--release", "-p", "frametree-bench", "--bin", "assembly"])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .output()
        .expect("cargo starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "nothing was shown:\n{errors}");
    let now = String::from_utf8_lossy(&output.stdout);

    assert!(instructions(&now).count() > 50, "both functions are there");
    for line in instructions(&now) {
        let is_locked = line.contains("lock ") || line.contains("xchg") || line.contains("fence");
        assert!(!is_locked, "not private to a CPU: {line}");
    }
    assert!(now == committed, "docs/assembly.md is of another day: `make assembly` writes it");
}
