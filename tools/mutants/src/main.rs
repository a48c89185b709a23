//! Asks the tests about all mutants of the library with one build: all are woven into it, and one
//! is turned on as a test begins. So a mutant costs the tests that come by its place, the quickest
//! first, until one fails; mostly that is some milliseconds, and not a build.
//!
//!   mutants LIST COPY RESULTS TARGETS...
//!
//! LIST is what `cargo mutants --list --json` printed, COPY a copy of the repository, which is
//! changed, TARGETS are arguments of `cargo test` that choose. Lines go to RESULTS as
//! `tools/mutants.sh` says:
//!
//!   caught 0    by a test      missed 3    all tests that come by its place passed
//!   timeout 0   did not end    missed 0    no test comes by its place
//!
//! A copy that was woven before, with the same LIST, is taken as it is: to try other tests, put them
//! there.
//!
//! Of what is not woven nothing is said: what does not compile here, as it is a constant's value or
//! has another type, is for cargo-mutants to ask. A function that the compiler evaluates for a
//! constant is changed for those only who call it at run time.

mod ask;
mod weave;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

/// The library's copy, and what is to be woven into it.
struct Copy {
    root: PathBuf,
    /// Its files as they were.
    files: HashMap<String, String>,
    mutants: Vec<Value>,
}

impl Copy {
    fn of(root: &Path, mutants: Vec<Value>) -> Self {
        let names: HashSet<&str> = mutants.iter().map(|one| text(one, "file")).collect();
        let read = |name| fs::read_to_string(root.join(name)).expect("a file of the library");
        let files = names.into_iter().chain(["src/lib.rs"]);
        let files = files.map(|name| (name.to_string(), read(name))).collect();
        Self { root: root.into(), files, mutants }
    }

    /// Writes all files anew, without the mutants in `left_out`. Of the others, where they are.
    fn weave(&self, left_out: &HashSet<usize>) -> HashMap<usize, usize> {
        let mut by_file: BTreeMap<&str, Vec<(usize, &Value)>> = BTreeMap::new();
        for (number, mutant) in (1..).zip(&self.mutants) {
            let all = by_file.entry(text(mutant, "file")).or_default();
            if !left_out.contains(&number) {
                all.push((number, mutant));
            }
        }
        let mut places = HashMap::new();
        let write = |name, text| fs::write(self.root.join(name), text).expect("a file to write");
        for (name, mutants) in by_file {
            let (text, more) = weave::weave(&self.files[name], &mutants);
            places.extend(more);
            write(name, text);
        }
        let switch =
            "#![feature(core_intrinsics, const_eval_select)]\n#[allow(unsafe_code)]\nmod switch;";
        let (head, tail) = self.files["src/lib.rs"].split_once("#![no_std]\n").expect("its head");
        let (attributes, modules) = tail.split_once("mod arena;").expect("its modules");
        let (feature, module) = switch.split_once('\n').expect("two lines");
        write(
            "src/lib.rs",
            format!("{head}#![no_std]\n{feature}\n{attributes}mod arena;\n{module}\n{modules}"),
        );
        write("src/switch.rs", include_str!("switch.rs").to_string());
        places
    }

    /// `cargo` on the copy's library; its messages.
    fn cargo(&self, command: &str, args: &[String]) -> (bool, Vec<Value>) {
        let output = Command::new("cargo")
            .args([command, "-q", "--profile=mutants", "--package=frametree", "--all-features"])
            .arg("--message-format=json")
            .args(args)
            .current_dir(&self.root)
            // What is built once may be built well. The compiler is to evaluate constants
            // otherwise than the program does, for which Rust has a word, but not a stable one.
            .env("CARGO_PROFILE_MUTANTS_OPT_LEVEL", "1")
            .env("RUSTC_WORKSPACE_WRAPPER", self.root.join("wrapper"))
            .stderr(Stdio::inherit())
            .output()
            .expect("cargo");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let messages = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        (output.status.success(), messages)
    }

    /// Weaves all that compiles.
    fn weave_what_compiles(&self) -> HashMap<usize, usize> {
        let wrapper = self.root.join("wrapper");
        let script = "#!/bin/sh\nRUSTC_BOOTSTRAP=1 exec \"$@\" --cap-lints allow\n";
        fs::write(&wrapper, script).expect("a file to write");
        Command::new("chmod").arg("+x").arg(&wrapper).status().expect("chmod");
        let mut left_out = HashSet::new();
        loop {
            let places = self.weave(&left_out);
            let (is_built, messages) = self.cargo("check", &[]);
            if is_built {
                eprintln!("{} of {} mutants are woven", places.len(), self.mutants.len());
                return places;
            }
            let before = left_out.len();
            left_out.extend(messages.iter().flat_map(|message| self.to_blame(message)));
            assert!(left_out.len() > before, "the woven library does not compile: {messages:#?}");
        }
    }

    /// The mutants in whose text an error lies.
    fn to_blame(&self, message: &Value) -> Vec<usize> {
        let message = &message["message"];
        let mut blamed = Vec::new();
        if message["level"] != "error" {
            return blamed;
        }
        for span in message["spans"].as_array().into_iter().flatten() {
            let file = fs::read_to_string(self.root.join(text(span, "file_name")));
            let end = span["byte_end"].as_u64().expect("a number") as usize;
            let Some(before) = file.ok().and_then(|file| file.get(..end).map(String::from)) else {
                continue;
            };
            let closed: HashSet<&str> =
                before.split("/*").filter_map(|p| p.split_once(">*/")).map(|p| p.0).collect();
            let opened = before.split("/*<").filter_map(|part| part.split_once("*/"));
            let open = opened.map(|part| part.0).filter(|number| !closed.contains(number));
            blamed.extend(open.filter_map(|number| number.parse::<usize>().ok()));
        }
        blamed
    }
}

/// A text of a JSON object.
fn text<'a>(object: &'a Value, key: &str) -> &'a str {
    object[key].as_str().expect("a text")
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [list, root, results, targets @ ..] = &args[..] else {
        panic!("mutants LIST COPY RESULTS TARGETS...");
    };
    let list = fs::read_to_string(list).expect("the list of mutants");
    let mutants: Vec<Value> = serde_json::from_str(&list).expect("a list in JSON");
    let names: Vec<_> = mutants.iter().map(|one| text(one, "name").to_string()).collect();
    let done = fs::read_to_string(results).unwrap_or_default();
    let done: HashSet<&str> = done.lines().filter_map(|l| Some(l.split_once('\t')?.1)).collect();
    if names.iter().all(|name| done.contains(&**name)) {
        return;
    }
    let copy = Copy::of(Path::new(root), mutants);
    let kept = copy.root.join("places.json");
    let places = match fs::read_to_string(&kept) {
        Ok(text) => serde_json::from_str(&text).expect("what was written below"),
        Err(_) => {
            let places = copy.weave_what_compiles();
            fs::write(kept, serde_json::to_string(&places).expect("JSON"))
                .expect("a file to write");
            places
        }
    };
    let (is_built, messages) = copy.cargo("test", &[&["--no-run".to_string()], targets].concat());
    assert!(is_built, "the tests do not compile");
    let programs = messages.iter().filter(|message| message["profile"]["test"] == true);
    let programs = programs.filter_map(|message| message["executable"].as_str()).map(String::from);
    ask::ask(Path::new(root), programs.collect(), (&names, &done), &places, Path::new(results));
}
