//! Looks which tests come by which place, and asks each mutant of the tests that come by its own.

use std::collections::hash_map::RandomState;
use std::collections::{HashMap, HashSet};
use std::fs::{self, OpenOptions};
use std::hash::BuildHasher;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Tests that take less than this are asked many at a time.
const QUICK: Duration = Duration::from_millis(50);

struct Test {
    program: Rc<str>,
    name: String,
    takes: Duration,
    places: HashSet<usize>,
}

/// Runs tests of one program until one fails.
fn run(
    root: &Path,
    program: &str,
    tests: &[&str],
    seconds: u64,
    (key, value): (&str, &str),
) -> Output {
    // What a test itself uses, as a clock says more on a busy machine: that is for what waits.
    Command::new("timeout")
        .args(["-s", "KILL", &(60 + 20 * seconds).to_string()])
        .args(["prlimit", &format!("--cpu={seconds}"), "--as=8000000000", "--core=0", program])
        .args(["--exact", "--test-threads=1", "-Zunstable-options", "--fail-fast"])
        .args(tests)
        .envs([("RUSTC_BOOTSTRAP", "1"), ("PROPTEST_MAX_SHRINK_ITERS", "0"), (key, value)])
        .current_dir(root)
        .output()
        .expect("timeout and prlimit")
}

/// All tests that pass, with the places that they come by, the quickest first.
fn look(root: &Path, programs: Vec<String>) -> Vec<Test> {
    let (seen, mut tests) = (root.join("seen"), Vec::new());
    for program in programs {
        let program: Rc<str> = program.into();
        let list =
            Command::new(&*program).arg("--list").current_dir(root).output().expect("a test");
        let list = String::from_utf8_lossy(&list.stdout).into_owned();
        for name in list.lines().filter_map(|line| line.strip_suffix(": test")) {
            let (start, seen) = (Instant::now(), seen.to_str().expect("a path"));
            let output = run(root, &program, &[name], 120, ("MUTANT_SEEN", seen));
            let takes = start.elapsed();
            if !output.status.success() {
                eprintln!("not asked, as it fails without a mutant: {name}");
                continue;
            }
            let places = fs::read_to_string(seen).expect("the places");
            let places = places.split(' ').filter_map(|number| number.parse().ok()).collect();
            tests.push(Test { program: program.clone(), name: name.into(), takes, places });
        }
    }
    tests.sort_by_key(|test| test.takes);
    tests
}

/// Tests in the order in which a mutant is asked of them: the quick ones of a program together.
fn in_groups<'a>(tests: impl Iterator<Item = &'a Test>) -> Vec<Vec<&'a Test>> {
    let (mut quick, mut slow) = (Vec::<Vec<&Test>>::new(), Vec::new());
    for test in tests {
        let group = quick.iter_mut().find(|group| group[0].program == test.program);
        match group {
            _ if test.takes > QUICK => slow.push(vec![test]),
            Some(group) => group.push(test),
            None => quick.push(vec![test]),
        }
    }
    quick.append(&mut slow);
    quick
}

/// The verdict on a mutant.
fn verdict(root: &Path, number: usize, tests: Vec<Vec<&Test>>) -> &'static str {
    if tests.is_empty() {
        return "missed 0";
    }
    for group in tests {
        let takes: Duration = group.iter().map(|test| test.takes).sum();
        let names: Vec<_> = group.iter().map(|test| &*test.name).collect();
        let mutant = ("MUTANT", &*number.to_string());
        let output = run(root, &group[0].program, &names, 10 + 10 * takes.as_secs(), mutant);
        forget_seeds(root);
        if output.status.success() {
            continue;
        }
        // As `timeout` says it: killed, by the clock or for what it used. All else is a test that
        // failed, or died.
        let is_endless = matches!(output.status.code(), Some(137 | 152));
        return if is_endless { "timeout 0" } else { "caught 0" };
    }
    "missed 3"
}

/// proptest keeps what a test failed with, and begins with it the next time: another mutant
/// would be asked of more than the tests have.
fn forget_seeds(root: &Path) {
    let _ = fs::remove_dir_all(root.join("proptest-regressions"));
    for entry in fs::read_dir(root.join("tests")).expect("the tests").flatten() {
        if entry.path().extension().is_some_and(|end| end == "proptest-regressions") {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Asks about all mutants that have a place and a name, in random order: `names` is that of mutant
/// 1 first. Those without are asked already.
pub fn ask(
    root: &Path,
    programs: Vec<String>,
    names: &[Option<&str>],
    places: &HashMap<usize, usize>,
    results: &Path,
) {
    let named = places.iter().filter_map(|(&n, place)| Some((n, place, names[n - 1]?)));
    let (mut left, dice): (Vec<_>, _) = (named.collect(), RandomState::new());
    left.sort_by_key(|(number, ..)| dice.hash_one(number));
    let tests = look(root, programs);
    eprintln!("{} tests, {} mutants to ask about", tests.len(), left.len());
    let mut results = OpenOptions::new().append(true).create(true).open(results).expect("results");
    for (number, place, name) in left {
        let mine = tests.iter().filter(|test| test.places.contains(place));
        let verdict = verdict(root, number, in_groups(mine));
        writeln!(results, "{verdict}\t{name}").expect("a line");
    }
}
