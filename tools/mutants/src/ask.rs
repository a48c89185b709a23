//! Looks which tests come by which place, and asks each mutant of the tests that come by its own.
//!
//! A test that takes ten times as long with a mutant as without it, and some seconds more, has
//! noticed it: it mostly has no end. What it takes is time of a CPU, as a clock says more on a
//! busy machine.

use std::collections::{HashMap, HashSet};
use std::env;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output};
use std::rc::Rc;
use std::time::Duration;

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
    // A limit by the clock too, for what waits.
    Command::new("bash")
        .args(["-c", "TIMEFORMAT='%U %S'; time \"$@\"", "time"])
        .args(["timeout", "-s", "KILL", &(60 + 20 * seconds).to_string()])
        .args(["prlimit", &format!("--cpu={seconds}"), "--as=8000000000", "--core=0", program])
        .args(["--exact", "--test-threads=1", "-Zunstable-options", "--fail-fast"])
        .args(tests)
        .envs([("RUSTC_BOOTSTRAP", "1"), ("PROPTEST_MAX_SHRINK_ITERS", "0"), (key, value)])
        // proptest would keep what a test failed with, and begin with it the next time: another
        // mutant would be asked of more than the tests have.
        .env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "1")
        // And the same mutant is to get the same verdict.
        .env("PROPTEST_RNG_SEED", "1")
        .current_dir(root)
        .output()
        .expect("bash")
}

/// The time of a CPU that it took, which is the last line of what it has said.
fn taken(output: &Output) -> Duration {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let seconds = said.lines().last().expect("a line").split(' ');
    Duration::from_secs_f64(seconds.map(|part| part.parse::<f64>().expect("a number")).sum())
}

/// All tests that pass, with the places that they come by, the quickest first.
fn look(root: &Path, programs: Vec<String>) -> Vec<Test> {
    let mut tests: Vec<Test> =
        programs.into_iter().flat_map(|program| look_at(root, program)).collect();
    tests.sort_by_key(|test| test.takes);
    tests
}

/// Those of one program. What was seen is kept beside it, as long as it is the same program.
fn look_at(root: &Path, program: String) -> Vec<Test> {
    let (kept, program): (_, Rc<str>) = (program.clone() + ".seen", program.into());
    let written = |path: &str| fs::metadata(path).and_then(|file| file.modified());
    let is_same = written(&kept).is_ok_and(|seen| written(&program).is_ok_and(|at| at < seen));
    let text = if is_same { fs::read_to_string(&kept).expect("a file") } else { String::new() };
    let mut lines: Vec<String> = text.lines().map(String::from).collect();
    if !is_same {
        let list =
            Command::new(&*program).arg("--list").current_dir(root).output().expect("a test");
        let list = String::from_utf8_lossy(&list.stdout).into_owned();
        let names = list.lines().filter_map(|line| line.strip_suffix(": test"));
        lines.extend(names.filter_map(|name| see(root, &program, name)));
        fs::write(kept, lines.join("\n")).expect("a file to write");
    }
    let parse = |line: &String| {
        let [name, millis, places] = line.split('\t').collect::<Vec<_>>()[..] else {
            panic!("{line}: no name, time and places");
        };
        let takes = Duration::from_millis(millis.parse().expect("a number"));
        let places = places.split(' ').filter_map(|number| number.parse().ok()).collect();
        Test { program: program.clone(), name: name.into(), takes, places }
    };
    lines.iter().map(parse).collect()
}

/// One test: its name, how many milliseconds it takes, and its places. None if it does not pass in
/// 40 seconds: where threads wait for each other a thousand looks long, as in
/// `isolate::nothing_is_lost_to_isolations_that_come_to_nothing`, they wait longer while each
/// place is recorded.
fn see(root: &Path, program: &str, name: &str) -> Option<String> {
    let seen = root.join("seen");
    let look = ("MUTANT_SEEN", seen.to_str().expect("a path"));
    let output = run(root, program, &[name], 40, look);
    if !output.status.success() {
        eprintln!("not asked, as it fails without a mutant: {name}");
        return None;
    }
    let places = fs::read_to_string(seen).expect("the places");
    Some(format!("{name}\t{}\t{places}", taken(&output).as_millis()))
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

/// The verdict on a mutant, and the first of the tests that have given it.
fn verdict<'a>(root: &Path, number: usize, tests: Vec<Vec<&'a Test>>) -> (&'static str, &'a str) {
    if tests.is_empty() {
        return ("missed 0", "none");
    }
    for group in tests {
        let takes: Duration = group.iter().map(|test| test.takes).sum();
        let names: Vec<_> = group.iter().map(|test| &*test.name).collect();
        let mutant = ("MUTANT", &*number.to_string());
        let limit = 3 + (10.0 * takes.as_secs_f64()) as u64;
        let output = run(root, &group[0].program, &names, limit, mutant);
        if output.status.success() {
            continue;
        }
        // As `timeout` says it: killed, by the clock or for what it used. All else is a test that
        // failed, or died.
        let is_endless = matches!(output.status.code(), Some(137 | 152));
        return (if is_endless { "timeout 0" } else { "caught 0" }, names[0]);
    }
    ("missed 3", "all")
}

/// A place in the order that a seed gives to mutants: FNV-1a, with the bits of the last ones mixed.
fn order(seed: &str, name: &str) -> u64 {
    let fold = |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let hash = seed.bytes().chain(name.bytes()).fold(0xcbf2_9ce4_8422_2325, fold);
    let mixed = (hash ^ hash >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9)
}

/// Asks about mutants that have a place: `names` is that of mutant 1 first, and those in `done` are
/// asked already. Their order is that of `SEED`, and `SAMPLE` says how many, if these are set.
pub fn ask(
    root: &Path,
    programs: Vec<String>,
    (names, done): (&[String], &HashSet<&str>),
    places: &HashMap<usize, usize>,
    results: &Path,
) {
    let mut left: Vec<_> = places.iter().map(|(&n, place)| (n, place, &*names[n - 1])).collect();
    let seed = env::var("SEED").unwrap_or_default();
    left.sort_by_key(|(_, _, name)| order(&seed, name));
    if let Ok(most) = env::var("SAMPLE") {
        left.truncate(most.parse().expect("SAMPLE is a number"));
    }
    left.retain(|(_, _, name)| !done.contains(name));
    if left.is_empty() {
        return;
    }
    let tests = look(root, programs);
    eprintln!("{} tests, {} mutants to ask about", tests.len(), left.len());
    let mut results = OpenOptions::new().append(true).create(true).open(results).expect("results");
    for (number, place, name) in left {
        let mine = tests.iter().filter(|test| test.places.contains(place));
        let (verdict, test) = verdict(root, number, in_groups(mine));
        eprintln!("{verdict}, {name}, {test}");
        writeln!(results, "{verdict}\t{name}").expect("a line");
    }
}
