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
        // An anchor's name ends where its line or its comment does.
        let included = read(&path.with_file_name(file)).replace('\n', " \n");
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

/// A line of a manifest, `name = "1.2"` or `name = { version = "1.2", ..`: the name and the version.
fn requirement(line: &str) -> Option<(&str, &str)> {
    let (name, rest) = line.split_once(" = ")?;
    let version = rest.strip_prefix("{ version = ").unwrap_or(rest).strip_prefix('"')?;
    let (version, _) = version.split_once('"')?;
    let is_one = name != "version" && version.starts_with(|c: char| c.is_ascii_digit());
    is_one.then_some((name, version))
}

#[test]
fn crates_that_documents_ask_for_are_of_the_versions_that_are_built() {
    let manifests = ["Cargo.toml", "kernel-demo/Cargo.toml"].map(|name| read(&root().join(name)));
    let built = || manifests.iter().flat_map(|text| text.lines()).filter_map(requirement);
    let mut seen = 0;
    for (path, text) in documents() {
        for (name, version) in text.split(['\n', '`']).filter_map(requirement) {
            let is_built = |has: &str| has == version || has.starts_with(&format!("{version}."));
            let found = built().any(|(has, its)| has == name && is_built(its));
            assert!(found, "{}: {name} = {version:?} is not what is built", path.display());
            seen += 1;
        }
    }
    // One for each boot protocol that has a crate, and `x86_64`.
    assert!(seen >= 6, "{seen} seen");
}

#[test]
fn small_kernels_are_small() {
    let folder = root().join("kernel-demo/examples");
    for file in fs::read_dir(folder).expect("the small kernels") {
        let path = file.expect("a file").path();
        let is_code = |line: &str| !line.is_empty() && !line.starts_with("//");
        let code = read(&path).lines().filter(|line| is_code(line.trim())).count();
        assert!((20..100).contains(&code), "{}: {code} lines of code", path.display());
    }
}

/// A public item: its file, `Type::method` or a name, and its own documentation.
struct Item {
    place: String,
    name: String,
    doc: String,
}

/// What `src/lib.rs` names for users.
fn exported() -> Vec<String> {
    let lib = read(&root().join("src/lib.rs"));
    let lists = lib.split("\npub use ").skip(1).filter_map(|rest| rest.split_once(';'));
    let names = lists.flat_map(|(list, _)| {
        let (_, names) = list.rsplit_once("::").expect("a path");
        names.trim_matches(['{', '}']).split(',').map(|name| name.trim().to_owned())
    });
    names.filter(|name| !name.is_empty()).collect()
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("a file").path();
        match path.is_dir() {
            true if path.ends_with("models") => {}
            true => sources(&path, found),
            false => found.push(path),
        }
    }
}

/// The type that an `impl` of its own begins for, if the line is one.
fn implemented(line: &str) -> Option<&str> {
    let rest = line.strip_prefix("impl")?;
    let rest = if rest.starts_with('<') { rest.split_once("> ")?.1 } else { rest.trim_start() };
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    (!rest.contains(" for ")).then(|| rest.split(|c| !is_name(c)).next()).flatten()
}

/// The name of the item that a line begins, or nothing if it begins none.
fn declared(line: &str) -> Option<&str> {
    let kinds = ["const", "enum", "fn", "struct", "trait", "type", "unsafe"];
    let mut words = line.split(|c: char| !(c.is_alphanumeric() || c == '_'));
    words.next().filter(|first| kinds.contains(first))?;
    words.find(|word| !kinds.contains(word))
}

/// All that users of the crate call or name, as far as one can see without a compiler.
fn public_items() -> Vec<Item> {
    let (exported, mut files, mut items) = (exported(), Vec::new(), Vec::new());
    sources(&root().join("src"), &mut files);
    files.sort();
    for file in &files {
        let place = file.strip_prefix(root()).expect("ours").display().to_string();
        let is_open =
            ["src/heap.rs", "src/boot/", "src/cpus/"].iter().any(|p| place.starts_with(p));
        let (mut owner, mut is_trait, mut doc) = (None, false, String::new());
        for line in read(file).lines().take_while(|line| !line.starts_with("mod tests")) {
            let code = line.trim_start();
            if let Some(text) = code.strip_prefix("///") {
                doc += &format!("{}\n", text.strip_prefix(' ').unwrap_or(text));
            } else if !code.starts_with("#[") {
                // What a public trait has is public without a word.
                let of_trait = is_trait && line.starts_with(' ');
                let public = code.strip_prefix("pub ").or(of_trait.then_some(code));
                let known = |name: &String| is_open || exported.contains(name);
                let name =
                    public.and_then(declared).and_then(|name| match line.len() - code.len() {
                        0 => Some(name.to_owned()).filter(known),
                        4 => owner.clone().filter(known).map(|owner| format!("{owner}::{name}")),
                        _ => None,
                    });
                if !line.starts_with(' ') && line.ends_with('{') {
                    is_trait = line.starts_with("pub ") && line.contains("trait ");
                    let of = implemented(line).map(str::to_owned);
                    owner = of.or(name.clone().filter(|_| is_trait));
                }
                let doc = std::mem::take(&mut doc);
                items.extend(name.map(|name| Item { place: place.clone(), name, doc }));
            }
        }
    }
    items
}

/// What a reader sees of the examples that are compiled.
fn examples(doc: &str) -> String {
    let blocks = doc.split("```").skip(1).step_by(2).filter_map(|block| block.split_once('\n'));
    let compiled = blocks.filter(|(kind, _)| ["", "no_run"].contains(kind));
    let lines = compiled.flat_map(|(_, code)| code.lines());
    lines.filter(|line| !line.starts_with("# ")).map(|line| format!("{line}\n")).collect()
}

/// An example of its own, compiled, in which a reader finds the item's name.
#[test]
fn every_public_item_has_an_example() {
    let items = public_items();
    assert!(items.len() > 235, "{} items", items.len());
    let is_in = |name: &str, text: &str| {
        text.split(|c: char| !(c.is_alphanumeric() || c == '_')).any(|word| word == name)
    };
    let is_shown = |Item { name, doc, .. }: &&Item| {
        is_in(name.rsplit("::").next().unwrap_or(name), &examples(doc))
    };
    let missing = items.iter().filter(|item| !is_shown(item));
    let missing: Vec<_> =
        missing.map(|Item { place, name, .. }| format!("{place}: {name}")).collect();
    assert!(missing.is_empty(), "without an example that names it: {missing:#?}");
}

#[test]
fn the_check_of_examples_sees_what_it_looks_at() {
    let items = public_items();
    let doc = |name: &str| {
        let item = items.iter().find(|item| item.name == name);
        examples(&item.unwrap_or_else(|| panic!("{name} was not seen")).doc)
    };
    assert!(doc("FramePool::alloc").contains("pool.alloc()?"));
    // Constants, functions of an adapter, and methods of a trait are items too.
    assert!(doc("FRAME_SIZE").contains("FRAME_SIZE"));
    assert!(doc("Owner::UNNAMED").contains("UNNAMED"));
    assert!(doc("placed").contains("placed("));
    assert!(doc("Cpus::request_drain").contains("request_drain"));
    // Hidden lines and what nobody compiles are no examples.
    assert_eq!(examples("```\n# hidden\nseen();\n```\n"), "seen();\n");
    assert_eq!(examples("```text\nseen();\n```\n```ignore\nseen();\n```\n"), "");
}
