//! The rules of the house, checked on the source text: imports go down only; files say what they
//! are; orderings and `unsafe` say why; functions and lines are short; nothing is left undone.
#![cfg(not(loom))]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// The floors, from the ground up. A file may use what lies on floors below its own; within a
/// floor nobody uses anybody, except that a folder is one house: its files use each other by
/// `super::`.
const FLOORS: &[&[&str]] = &[
    &["sync", "geometry", "bits"],
    &["frame", "node", "bounds", "journal", "arena"],
    &["root", "ranges", "isolation", "cache", "cpu", "request", "map"],
    &["stock"],
    &["directory", "error"],
    &["tree", "budget"],
    &["slot", "stats", "hardened"],
    &["layout", "observe"],
    &["pool"],
    &["x86", "boot", "cpus", "owners"],
    &["heap"],
    &["lib"],
];

/// Files that may say `unsafe`, and why.
const UNSAFE: &[(&str, &str)] = &[
    ("arena.rs", "makes typed values of raw memory"),
    ("cache.rs", "a constructor that invents ownership"),
    ("cpu.rs", "the trait whose promise the kernel gives"),
    ("cpus/mod.rs", "promises about CPUs, kept or passed on"),
    ("cpus/x86.rs", "the same, by instructions of x86-64"),
    ("frame/owner.rs", "constructors that invent ownership"),
    ("hardened/mod.rs", "looks at frames through the kernel's mapping"),
    ("hardened/setting.rs", "a promise about that mapping"),
    ("heap.rs", "a global allocator, and what lies in its memory"),
    ("pool/change.rs", "memory that comes, or becomes metadata"),
    ("pool/init.rs", "initialisation: memory that the map calls usable"),
    ("pool/mod.rs", "a slot whose CPU is gone"),
    ("pool/single.rs", "a free whose caller vouches for the contents"),
    ("root.rs", "parts of which any bytes are a value"),
    ("tree/single.rs", "a free whose caller vouches for the contents"),
    ("sync.rs", "a reference of the pointer that was made of one"),
    ("x86.rs", "implements an unsafe trait of another crate"),
];

const LINE: usize = 100;
const FUNCTION: usize = 70;
/// How far above its code a reason may stand, in lines of code, with one reason for all that
/// directly follow.
const REASON_REACH: usize = 6;

/// A source file, line by line.
struct Source {
    path: String,
    lines: Vec<Line>,
}

/// A line, cut into its code and its comment; strings are emptied, so that what they say is not
/// taken for either.
struct Line {
    number: usize,
    length: usize,
    code: String,
    comment: String,
    is_test: bool,
}

impl Source {
    fn read(root: &Path, path: &Path) -> Self {
        let text = fs::read_to_string(path).expect("a source file");
        let name = path.strip_prefix(root).expect("below the root");
        Self::parse(name.to_str().expect("a plain name"), &text)
    }

    fn parse(path: &str, text: &str) -> Self {
        let mut lines = Vec::new();
        let mut depth = 0i64;
        // The depth at which a test module or function began.
        let mut test_from = None;
        let mut marked = false;
        for (index, line) in text.lines().enumerate() {
            let (code, comment) = cut(line);
            let attribute = code.trim().replace(' ', "");
            marked |= attribute.starts_with("#[cfg(") && is_for_tests(&attribute)
                || attribute.starts_with("#[test]");
            let opens = code.matches('{').count() as i64;
            if marked && test_from.is_none() && opens > 0 {
                test_from = Some(depth);
            }
            depth += opens - code.matches('}').count() as i64;
            let is_test = marked || test_from.is_some();
            let is_over = code.contains('}') || code.trim_end().ends_with(';');
            if is_over && test_from.is_none_or(|from| depth <= from) {
                (marked, test_from) = (false, None);
            }
            let length = line.chars().count();
            lines.push(Line { number: index + 1, length, code, comment, is_test });
        }
        Self { path: path.to_owned(), lines }
    }

    /// Its house: the module, or the folder, right below `src`.
    fn module(&self) -> &str {
        let first = self.path.split('/').next().expect("a name");
        first.strip_suffix(".rs").unwrap_or(first)
    }

    /// The lines that are compiled for users of the crate.
    fn real(&self) -> impl Iterator<Item = &Line> {
        self.lines.iter().filter(|line| !line.is_test)
    }

    fn at(&self, line: &Line) -> String {
        format!("src/{}:{}", self.path, line.number)
    }

    /// Whether a comment with `mark` explains line `index`: in the same line, or above it, with
    /// at most [`REASON_REACH`] lines of code of the same function between.
    fn is_explained(&self, index: usize, mark: &str) -> bool {
        let mut code = 0;
        for (back, line) in self.lines[..=index].iter().rev().enumerate() {
            if line.comment.contains(mark) {
                return true;
            }
            if back > 0 && (has_word(&line.code, "fn") || line.code.trim() == "}") && code > 0 {
                // Another function, or the end of a block before this statement.
                return has_word(&line.code, "fn") && self.doc_above(index - back, mark);
            }
            code += usize::from(back > 0 && !line.code.trim().is_empty());
            if code > REASON_REACH {
                return false;
            }
        }
        false
    }

    /// Whether the comments and attributes right above line `index` contain `mark`.
    fn doc_above(&self, index: usize, mark: &str) -> bool {
        let above = self.lines[..index].iter().rev();
        let belongs = |line: &&Line| {
            let code = line.code.trim();
            !line.comment.is_empty() || code.starts_with("#[")
        };
        above.take_while(belongs).any(|line| line.comment.contains(mark))
    }
}

/// Whether a `cfg` attribute is for tests only. `not(test)` is not.
fn is_for_tests(attribute: &str) -> bool {
    attribute.contains("(test") || attribute.contains(",test")
}

/// Cuts a line into code and comment, and empties strings and characters.
fn cut(line: &str) -> (String, String) {
    let mut code = String::new();
    let mut rest = line.chars().peekable();
    let mut in_string = false;
    while let Some(c) = rest.next() {
        match c {
            '\\' if in_string => drop(rest.next()),
            '"' => {
                in_string = !in_string;
                code.push(c);
            }
            _ if in_string => {}
            '/' if rest.peek() == Some(&'/') => return (code, rest.collect()),
            '\'' => {
                // A character, or a lifetime.
                let mut ahead = rest.clone();
                let (one, two) = (ahead.next(), ahead.next());
                if one == Some('\\') || two == Some('\'') {
                    while rest.next_if(|c| *c != '\'').is_some() {}
                    rest.next();
                }
            }
            _ => code.push(c),
        }
    }
    (code, String::new())
}

fn has_word(code: &str, word: &str) -> bool {
    code.split(|c: char| !c.is_alphanumeric() && c != '_').any(|found| found == word)
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    walk(&root, &mut files);
    // Tests that need the crate's inside: the models, for loom, the counts and the faults.
    let tests =
        ["models", "costs.rs", "counts.rs", "deaths.rs", "faults.rs", "nesting.rs", "schedules.rs"];
    let tests = tests.map(|name| root.join(name));
    files.retain(|file| !tests.iter().any(|test| file.starts_with(test)));
    files.sort();
    assert!(files.len() > 20, "only {} files in {}", files.len(), root.display());
    files.iter().map(|file| Source::read(&root, file)).collect()
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            walk(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// All complaints at once, so that one run shows everything.
fn none(rule: &str, complaints: &[String]) {
    let mut text = String::new();
    for complaint in complaints {
        let _ = writeln!(text, "  {complaint}");
    }
    assert!(complaints.is_empty(), "{rule}:\n{text}");
}

fn floor_of(module: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&module))
}

/// The modules that a line of code names by `crate::…`, also in `crate::{a, b}`.
fn imports(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let path = &code[at + "crate::".len()..];
        let names = match path.strip_prefix('{') {
            Some(list) => list.split(['}']).next().unwrap_or_default().split(',').collect(),
            None => vec![path],
        };
        for name in names {
            let is_name = |c: char| c.is_alphanumeric() || c == '_';
            let name: String = name.trim().chars().take_while(|c| is_name(*c)).collect();
            found.push(name);
        }
    }
    found
}

/// What is wrong with the imports of a file.
fn wrong_imports(source: &Source) -> Vec<String> {
    let module = source.module();
    let Some(floor) = floor_of(module) else {
        return vec![format!("src/{}: `{module}` stands on no floor", source.path)];
    };
    let mut wrong = Vec::new();
    for line in source.real() {
        for name in imports(&line.code) {
            let at = source.at(line);
            match floor_of(&name) {
                Some(below) if below < floor => {}
                _ if name == module => {}
                Some(other) => wrong.push(format!(
                    "{at}: `{module}` (floor {floor}) uses `{name}` (floor {other}), not below it"
                )),
                // What lib.rs re-exports comes from above.
                None => wrong.push(format!(
                    "{at}: `{module}` (floor {floor}) uses `crate::{name}`, which is no module; \
                     name the floor that it stands on"
                )),
            }
        }
        let is_in_folder = source.path.contains('/');
        if !is_in_folder && line.code.contains("super::") {
            wrong.push(format!("{}: `super::` outside a folder; say `crate::`", source.at(line)));
        }
    }
    wrong
}

#[test]
fn imports_go_down_only() {
    let complaints: Vec<_> = sources().iter().flat_map(wrong_imports).collect();
    none("an import goes up, or sideways", &complaints);
}

#[test]
fn the_floors_are_those_that_exist() {
    let exist: BTreeSet<_> = sources().iter().map(|source| source.module().to_owned()).collect();
    let named: BTreeSet<_> =
        FLOORS.iter().copied().flatten().map(|&name| name.to_owned()).collect();
    assert_eq!(exist, named, "files of src/, and the floors that this test knows");
}

#[test]
fn every_file_begins_with_its_design() {
    let complaints: Vec<_> = sources()
        .iter()
        .filter(|source| {
            // The crate's own page is the README.
            let is_header =
                |line: &Line| line.comment.starts_with("/!") || line.code.contains("include_str!");
            !source.lines.first().is_some_and(is_header)
        })
        .map(|source| format!("src/{}", source.path))
        .collect();
    none("a file without a `//!` header", &complaints);
}

/// What is wrong with the orderings of a file: each use needs a reason, except where the
/// ordering is passed on (`sync.rs`) or does not matter (tests).
fn unexplained_orderings(source: &Source) -> Vec<String> {
    let mut wrong = Vec::new();
    for (index, line) in source.lines.iter().enumerate() {
        let is_use = line.code.contains("Ordering::") && !line.code.contains("use ");
        // Verification is at rest, as its header says.
        let is_exempt = line.is_test || ["sync.rs", "tree/verify.rs"].contains(&&*source.path);
        if is_use && !is_exempt && !source.is_explained(index, "ORDERING:") {
            wrong.push(format!("{}: {}", source.at(line), line.code.trim()));
        }
    }
    wrong
}

#[test]
fn every_ordering_has_its_reason() {
    let complaints: Vec<_> = sources().iter().flat_map(unexplained_orderings).collect();
    none("an ordering without `// ORDERING:` near above it", &complaints);
}

#[test]
fn atomics_come_through_one_door() {
    let mut complaints = Vec::new();
    for source in sources().iter().filter(|source| source.path != "sync.rs") {
        for line in &source.lines {
            let names = ["sync::atomic", "AtomicU", "AtomicI", "AtomicBool", "AtomicPtr", "loom::"];
            if names.iter().any(|name| line.code.contains(name)) {
                complaints.push(format!("{}: {}", source.at(line), line.code.trim()));
            }
        }
    }
    none("atomics that did not come through src/sync.rs", &complaints);
}

/// What is wrong with the `unsafe` of a file.
fn wrong_unsafe(source: &Source) -> Vec<String> {
    let mut wrong = Vec::new();
    let is_listed = UNSAFE.iter().any(|(path, _)| *path == source.path);
    for (index, line) in source.lines.iter().enumerate() {
        if !has_word(&line.code, "unsafe") {
            continue;
        }
        let at = source.at(line);
        if !is_listed && !line.is_test {
            wrong.push(format!("{at}: `unsafe` in a file that is not listed for it"));
        }
        let code = &line.code;
        let declares = (has_word(code, "fn") || has_word(code, "trait")) && !has_word(code, "impl");
        // What a trait demands is said in the trait.
        let is_in_impl = code.starts_with("    ") && !has_word(code, "pub");
        let is_explained = if declares {
            is_in_impl || source.doc_above(index, "# Safety")
        } else {
            source.is_explained(index, "SAFETY:")
        };
        if !is_explained {
            wrong.push(format!("{at}: no reason for {}", code.trim()));
        }
    }
    wrong
}

#[test]
fn every_unsafe_is_listed_and_has_its_reason() {
    let sources = sources();
    let mut complaints: Vec<_> = sources.iter().flat_map(wrong_unsafe).collect();
    for (path, why) in UNSAFE {
        let source = sources.iter().find(|source| source.path == *path);
        let is_used =
            source.is_some_and(|source| source.real().any(|line| has_word(&line.code, "unsafe")));
        if !is_used {
            complaints.push(format!("src/{path} is listed ({why}), but has none"));
        }
    }
    none("`unsafe`", &complaints);
}

/// Functions of a file that are too long: (line, length).
fn long_functions(source: &Source) -> Vec<String> {
    let mut wrong = Vec::new();
    for (index, line) in source.lines.iter().enumerate() {
        if !has_word(&line.code, "fn") || line.code.trim_start().starts_with("use ") {
            continue;
        }
        let mut depth = 0i64;
        let mut has_body = false;
        for (length, inner) in source.lines[index..].iter().enumerate() {
            depth += inner.code.matches('{').count() as i64;
            has_body |= depth > 0;
            depth -= inner.code.matches('}').count() as i64;
            let is_declaration = !has_body && inner.code.trim_end().ends_with(';');
            if is_declaration || has_body && depth <= 0 {
                if length + 1 > FUNCTION {
                    wrong.push(format!("{}: {} lines", source.at(line), length + 1));
                }
                break;
            }
        }
    }
    wrong
}

#[test]
fn functions_and_lines_are_short() {
    let sources = sources();
    let mut complaints: Vec<_> = sources.iter().flat_map(long_functions).collect();
    for source in &sources {
        for line in source.lines.iter().filter(|line| line.length > LINE) {
            complaints.push(format!("{}: {} columns", source.at(line), line.length));
        }
    }
    none("functions to 70 lines, lines to 100", &complaints);
}

#[test]
fn nothing_is_left_undone_or_ignored() {
    let marks = ["todo!", "unimplemented!", "#[ignore", "dbg!(", "println!("];
    let mut complaints = Vec::new();
    for source in &sources() {
        for line in &source.lines {
            let code = line.code.replace(' ', "");
            let is_open = ["TODO", "FIXME", "XXX"].iter().any(|mark| line.comment.contains(mark));
            if is_open || marks.iter().any(|mark| code.contains(mark)) {
                complaints.push(format!("{}: {}{}", source.at(line), line.code, line.comment));
            }
        }
    }
    none("left undone", &complaints);
}

/// The checks themselves, on small texts that break one rule each.
mod the_checks {
    use super::*;

    fn parse(path: &str, text: &str) -> Source {
        Source::parse(path, text)
    }

    #[test]
    fn see_imports_that_go_up_or_sideways() {
        let up = parse("tree/init.rs", "use crate::layout::Layout;\n");
        assert!(
            wrong_imports(&up)[0].contains("src/tree/init.rs:1: `tree` (floor 5) uses `layout`")
        );
        let inline = parse("node.rs", "fn f() {\n    crate::tree::g();\n}\n");
        assert!(wrong_imports(&inline)[0].contains("src/node.rs:2"));
        let sideways = parse("frame/owner.rs", "use crate::node::Node;\n");
        assert_eq!(wrong_imports(&sideways).len(), 1);
        let list = parse("cache.rs", "use crate::{frame::FrameNumber, pool::FramePool};\n");
        assert_eq!(wrong_imports(&list).len(), 1);
        let root = parse("x86.rs", "let size = crate::FRAME_SIZE;\n");
        assert!(wrong_imports(&root)[0].contains("no module"));
        let unknown = parse("attic.rs", "");
        assert!(wrong_imports(&unknown)[0].contains("no floor"));
        let sound = parse("pool.rs", "use crate::slot::Slot; // crate::x86\n/// [`crate::x86`]\n");
        assert!(wrong_imports(&sound).is_empty());
        let test = parse("bits.rs", "#[cfg(test)]\nmod tests {\n    use crate::pool::X;\n}\n");
        assert!(wrong_imports(&test).is_empty());
    }

    #[test]
    fn see_orderings_without_a_reason() {
        let bare = "fn f(word: &Word) {\n    word.load(Ordering::Relaxed);\n}\n";
        assert_eq!(unexplained_orderings(&parse("slot.rs", bare)).len(), 1);
        let told = bare.replace("    word", "    // ORDERING: a look.\n    word");
        assert!(unexplained_orderings(&parse("slot.rs", &told)).is_empty());
        // A reason in the function before does not count.
        let after = format!("{told}{bare}");
        assert_eq!(unexplained_orderings(&parse("slot.rs", &after)).len(), 1);
        let far = told.replace("a look.\n", &format!("a look.\n{}", "    g();\n".repeat(7)));
        assert_eq!(unexplained_orderings(&parse("slot.rs", &far)).len(), 1);
        let test = format!("#[cfg(all(test, not(loom)))]\nmod tests {{\n{bare}}}\n{bare}");
        assert_eq!(unexplained_orderings(&parse("slot.rs", &test)).len(), 1);
    }

    #[test]
    fn see_unsafe_without_a_reason_or_out_of_place() {
        let bare = "fn f() {\n    unsafe { g() };\n}\n";
        assert_eq!(wrong_unsafe(&parse("arena.rs", bare)).len(), 1);
        let told = "fn f() {\n    // SAFETY: as promised.\n    unsafe { g() };\n}\n";
        assert!(wrong_unsafe(&parse("arena.rs", told)).is_empty());
        assert_eq!(wrong_unsafe(&parse("slot.rs", told)).len(), 1);
        let function = "/// # Safety\n/// Promise.\n#[inline]\npub unsafe fn f() {}\n";
        assert!(wrong_unsafe(&parse("arena.rs", function)).is_empty());
        assert_eq!(wrong_unsafe(&parse("arena.rs", "/// Doc.\npub unsafe fn f() {}\n")).len(), 1);
        let text = "fn f() {\n    g(\"unsafe\"); // unsafe\n}\n";
        assert!(wrong_unsafe(&parse("slot.rs", text)).is_empty());
    }

    #[test]
    fn see_long_functions() {
        let long = format!("fn f() {{\n{}}}\n", "    g();\n".repeat(69));
        assert_eq!(long_functions(&parse("slot.rs", &long)).len(), 1);
        let short = format!("fn f() {{\n{}}}\n", "    g();\n".repeat(68));
        assert!(long_functions(&parse("slot.rs", &short)).is_empty());
    }

    #[test]
    fn tell_code_from_comments_and_strings() {
        assert_eq!(cut("a(\"// no\"); // yes"), ("a(\"\"); ".to_owned(), "/ yes".to_owned()));
        assert_eq!(cut("f::<'m>('{', '\\'', 'x')").0, "f::<m>(, , )");
    }
}
