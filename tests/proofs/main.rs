//! Proofs of the functions on words, for every word and every argument, not for examples: the
//! shipped source is run on unknown numbers ([`eval`]), and z3 looks for values for which a claim
//! is wrong, or the source would panic. `unsat` is the proof.
//!
//! The claims ([`claims`]) say bit by bit, or by search, what the functions compute in a few steps.
//! Wrong variants are refuted (with the arguments that refute them), and the interpreter itself is
//! compared with the compiled functions.
//!
//! `PROVE=Rule::` proves only what has that in its name.
#![cfg(not(loom))]

mod claims;
mod eval;
mod library;
mod listed;
mod operators;
mod patterns;
mod run;
mod solver;
mod source;
mod terms;
mod value;

#[path = "../../src/bits.rs"]
mod bits;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use claims::{Proof, call, n32, n64};
use run::Run;
use source::Source;
use terms::Term;

/// Does this with all proofs that are asked for, on all cores, and says how long each took.
fn with_all(what: &str, work: impl Fn(&Proof) -> Vec<String> + Sync) {
    let asked = std::env::var("PROVE").unwrap_or_default();
    let proofs: Vec<_> = claims::all().filter(|proof| proof.function.contains(&asked)).collect();
    let (next, wrong) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let one_after_the_other = || {
        while let Some(proof) = proofs.get(next.fetch_add(1, Ordering::Relaxed)) {
            let began = Instant::now();
            let complaints = work(proof);
            println!("{what} {}: {:.1} s", proof.function, began.elapsed().as_secs_f32());
            wrong.lock().expect("a list").extend(complaints);
        }
    };
    let cores = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| (0..cores).for_each(|_| drop(scope.spawn(one_after_the_other))));
    println!("{what} {} functions: {:.0} s of CPU time so far", proofs.len(), cpu_seconds());
    let wrong = wrong.into_inner().expect("a list");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What this process and its solvers have used.
fn cpu_seconds() -> f64 {
    let of = |who| {
        let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
        // SAFETY: it is written by the call, and any bytes are a value.
        let usage = unsafe {
            libc::getrusage(who, usage.as_mut_ptr());
            usage.assume_init()
        };
        let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
        seconds(usage.ru_utime) + seconds(usage.ru_stime)
    };
    of(libc::RUSAGE_SELF) + of(libc::RUSAGE_CHILDREN)
}

#[test]
fn every_claim_holds() {
    with_all("proved", |proof| {
        let wrong = proof.check().err();
        wrong.map(|why| format!("{}: {why}", proof.function)).into_iter().collect()
    });
}

#[test]
fn every_wrong_variant_is_refuted() {
    with_all("refuted variants of", |proof| {
        assert!(!proof.wrong.is_empty(), "{}: no wrong variant", proof.function);
        let mut left = Vec::new();
        for (variant, why) in proof.refute() {
            match why {
                Some(why) => println!("`{variant}`: {why}"),
                None => left.push(format!("`{variant}` in {} is not refuted", proof.function)),
            }
        }
        left
    });
}

/// What the interpreter makes of known numbers is what the compiler makes of them.
#[test]
fn the_interpreter_agrees_with_the_compiler() {
    let source = Source::parse(&[include_str!("../../src/bits.rs")]);
    let mut state = 1u64;
    let mut random = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state ^ state >> 29
    };
    let [mut some, mut none] = [0, 0];
    for _ in 0..100 {
        // Intervals as well: random words have no long runs.
        let [a, b] = [random() % 64, random() % 64];
        let interval = u64::MAX >> (63 - a.max(b)) & u64::MAX << a.min(b);
        let word = [random(), interval, !interval, random() & interval][(random() % 4) as usize];
        let [n, start] = [random() % 67, random() % 67].map(|number| number as u32);
        let least = (random() % 255 + 1) as u8;
        let says = |name: &str, arguments: &[Term]| {
            let mut run = Run::new(&source, Vec::new());
            call(&mut run, name, arguments).to_string()
        };
        let found = bits::lowest_run(word, n);
        *(if found.is_some() { &mut some } else { &mut none }) += 1;
        let found = found.map_or("None".to_owned(), |start| format!("Some({start})"));
        assert_eq!(says("lowest_run", &[n64(word), n32(n)]), found);
        assert_eq!(says("longest_run", &[n64(word)]), bits::longest_run(word).to_string());
        let hex = |number: u64| format!("{number:#x}");
        let starts = says("starts_of_runs", &[n64(word), n32(n)]);
        assert_eq!(starts, hex(bits::starts_of_runs(word, n)));
        assert_eq!(says("mask", &[n32(start), n32(n)]), hex(bits::mask(start, n)));
        let extracted = bits::extract(word, start, n);
        assert_eq!(says("extract", &[n64(word), n32(start), n32(n)]), hex(extracted));
        let bytes = bits::bytes_at_least(word, least);
        let least = Term::constant(least.into(), 8);
        assert_eq!(says("bytes_at_least", &[n64(word), least]), hex(bytes));
        assert_eq!(says("lowest_ones", &[n64(word), n32(n)]), hex(bits::lowest_ones(word, n)));
        let mut run = Run::new(&source, Vec::new());
        let iterator = call(&mut run, "runs", &[n64(word)]);
        let (item, _) = run.next(&iterator, "rest");
        let first = bits::runs(word).next();
        let first =
            first.map_or("None".to_owned(), |(start, len)| format!("Some(({start}, {len}))"));
        assert_eq!(item.to_string(), first);
        let mut run = Run::new(&source, Vec::new());
        let iterator = call(&mut run, "ones", &[n64(word)]);
        let (item, _) = run.next(&iterator, "rest");
        let first = bits::ones(word).next();
        assert_eq!(item.to_string(), first.map_or("None".to_owned(), |bit| format!("Some({bit})")));
    }
    assert!(some > 15 && none > 15, "{some} runs found, {none} not");
}

#[test]
fn every_function_of_numbers_is_proved_or_says_why_not() {
    let listed = listed::functions();
    let proved = |file: &str, function: &str| {
        claims::all().any(|proof| proof.file == file && proof.function == function)
    };
    let excused: Vec<_> = listed::REASONS.iter().flat_map(|(_, functions)| *functions).collect();
    let mut wrong = Vec::new();
    for (file, function) in &listed {
        let is_excused = excused.contains(&&(file.as_str(), function.as_str()));
        match (proved(file, function), is_excused) {
            (false, false) => wrong.push(format!("src/{file}: {function} is not proved")),
            (true, true) => wrong.push(format!("src/{file}: {function} is proved after all")),
            _ => {}
        }
    }
    for (file, function) in excused {
        if !listed.iter().any(|(known, name)| known == file && name == function) {
            wrong.push(format!("src/{file}: {function} has a reason, and is no such function"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let excused = listed.iter().filter(|(file, function)| !proved(file, function)).count();
    println!("{} functions of numbers, {excused} of them not proved", listed.len());
}
