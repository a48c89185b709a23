//! Documents that are true to the source, as far as a machine can tell: what they link to, include
//! or name exists. The programs in them are doc tests.
#![cfg(not(loom))]

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The book's chapters and the documents beside the source, by path and text.
fn documents() -> Vec<(PathBuf, String)> {
    let chapters = fs::read_dir(root().join("docs")).expect("the book");
    let chapters = chapters.map(|file| file.expect("a file").path());
    let beside = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"];
    let all = chapters.chain(beside.map(|name| root().join(name)));
    let documents = all.filter(|path| path.extension().is_some_and(|end| end == "md"));
    documents.map(|path| (path.clone(), read(&path))).collect()
}

/// What stands between `open` and `close`, each time.
fn between<'t>(text: &'t str, open: &'t str, close: &'t str) -> impl Iterator<Item = &'t str> {
    text.split(open).skip(1).filter_map(move |rest| rest.split_once(close)).map(|(found, _)| found)
}

/// The text without blocks of code.
fn prose(text: &str) -> String {
    text.split("```").step_by(2).collect()
}

/// The names that headings get as targets of links.
fn headings(text: &str) -> Vec<String> {
    let name = |heading: &str| {
        let kept = heading.trim().chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        kept.collect::<String>().to_lowercase().replace(' ', "-")
    };
    let lines = prose(text).lines().map(str::to_owned).collect::<Vec<_>>();
    let headings = lines.iter().filter(|line| line.starts_with('#'));
    headings.map(|line| name(line.trim_start_matches('#'))).collect()
}

/// The text with what it includes put in.
fn expanded(path: &Path, text: &str) -> String {
    let mut result = text.to_owned();
    for include in between(text, "{{#include ", "}}") {
        let (file, anchor) = include.split_once(':').unwrap_or((include, ""));
        let included = read(&path.with_file_name(file));
        let part = if anchor.is_empty() {
            included
        } else {
            let (open, close) = (format!("ANCHOR: {anchor} "), format!("ANCHOR_END: {anchor} "));
            let part = between(&included, &open, &close).next();
            part.unwrap_or_else(|| panic!("{}: no {include}", path.display())).to_owned()
        };
        result = result.replace(&format!("{{{{#include {include}}}}}"), &part);
    }
    result
}

#[test]
fn links_and_includes_lead_somewhere() {
    for (path, text) in documents() {
        let text = expanded(&path, &text);
        for link in between(&prose(&text), "](", ")") {
            if link.contains("://") {
                continue;
            }
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { path.clone() } else { path.with_file_name(file) };
            assert!(target.exists(), "{}: {link} leads nowhere", path.display());
            if !heading.is_empty() {
                let names = headings(&expanded(&target, &read(&target)));
                let has = names.iter().any(|name| name == heading);
                assert!(has, "{}: {link}: no such heading: {names:?}", path.display());
            }
        }
    }
}

#[test]
fn the_book_has_all_chapters() {
    let summary = read(&root().join("docs/SUMMARY.md"));
    let linked: Vec<_> = between(&summary, "](", ")").collect();
    for (path, _) in documents().iter().filter(|(path, _)| path.parent().unwrap().ends_with("docs"))
    {
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
        assert!(name == "SUMMARY.md" || linked.contains(&name), "{name} is in no summary");
    }
}

/// What stands between single backticks.
fn code(text: &str) -> Vec<String> {
    let paragraphs = prose(text);
    let code = paragraphs.split("\n\n").flat_map(|text| text.split('`').skip(1).step_by(2));
    code.map(|code| code.replace('\n', " ")).collect()
}

/// Words of a command, up to what ends it.
fn words(command: &str) -> Vec<&str> {
    command
        .split(|c: char| c.is_whitespace() || ";,".contains(c))
        .filter(|w| !w.is_empty())
        .collect()
}

#[test]
fn commands_that_documents_name_exist() {
    let makefile = read(&root().join("Makefile"));
    let is_target = |name: &str| makefile.lines().any(|line| line.starts_with(&format!("{name}:")));
    for (path, text) in documents() {
        for code in code(&text) {
            let words = words(&code);
            for pair in words.windows(2) {
                let place = format!("{}: `{code}`", path.display());
                if words[0] == "make" && pair[0] == "make" && !pair[1].contains('=') {
                    assert!(is_target(pair[1]), "{place}: no such target");
                }
                if pair[0] == "--test" {
                    let test = root().join("tests").join(pair[1]);
                    let exists =
                        test.with_extension("rs").exists() || test.join("main.rs").exists();
                    assert!(exists, "{place}: no such test");
                }
            }
        }
    }
}

#[test]
fn files_that_documents_name_exist() {
    let folders =
        ["src/", "tests/", "docs/", "tools/", "kernel-demo/", "benches/", "qemu/", "fuzz/"];
    for (path, text) in documents() {
        for code in code(&text) {
            let is_path = folders.iter().any(|folder| code.starts_with(folder));
            if is_path && !code.contains([' ', '*', '<']) {
                assert!(root().join(&code).exists(), "{}: no {code}", path.display());
            }
        }
    }
}
