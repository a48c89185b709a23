//! `src/bits.rs`: the functions on words.

use std::rc::Rc;

use super::{Proof, at_most, bits_are, call, less, n32, n64, value_of};
use crate::run::{Invariant, prove};
use crate::source::Source;
use crate::terms::Term;
use crate::value::{Value, number};

pub const PROOFS: &[Proof] = &[
    Proof {
        file: "bits.rs",
        function: "lowest_run",
        claim: lowest_run,
        wrong: &[
            ("starts => Some(starts.trailing_zeros())", "_ => Some(word.trailing_zeros())"),
            ("starts & (starts >> left)", "starts"),
        ],
    },
    Proof {
        file: "bits.rs",
        function: "starts_of_runs",
        claim: starts_of_runs,
        wrong: &[
            ("starts & (starts >> left)", "starts"),
            ("left >= u64::BITS", "left >= 63"),
            ("starts &= starts >> step", "starts &= starts >> 1"),
        ],
    },
    Proof {
        file: "bits.rs",
        function: "longest_run",
        claim: longest_run,
        wrong: &[
            ("step < 5 &&", "step < 4 &&"),
            ("step < 5 &&", "step < 6 &&"),
            ("found & (starts[step] >> length)", "starts[step] >> length"),
            ("found = longer;", "found = starts[step];"),
            ("if word == u64::MAX { u64::BITS } else { length }", "length"),
        ],
    },
    Proof {
        file: "bits.rs",
        function: "mask",
        claim: mask,
        wrong: &[
            ("len == 0 || start >= u64::BITS", "start >= u64::BITS"),
            ("start >= u64::BITS", "start > u64::BITS"),
        ],
    },
    Proof {
        file: "bits.rs",
        function: "extract",
        claim: extract,
        wrong: &[("start >= end", "start > end")],
    },
    Proof {
        file: "bits.rs",
        function: "bytes_at_least",
        claim: bytes_at_least,
        wrong: &[
            ("least <= 0x80", "least <= 0x81"),
            ("0x0102_0408_1020_4080", "0x0102_0408_1020_4180"),
        ],
    },
    Proof {
        file: "bits.rs",
        function: "lowest_ones",
        claim: lowest_ones,
        wrong: &[("rest &= rest - 1", "rest &= rest >> 1"), ("word & !rest", "rest")],
    },
    Proof {
        file: "bits.rs",
        function: "ones",
        claim: ones,
        wrong: &[("rest &= rest - 1", "rest &= rest >> 1")],
    },
    Proof {
        file: "bits.rs",
        function: "runs",
        claim: runs,
        wrong: &[("(rest >> start).trailing_ones()", "rest.trailing_ones()")],
    },
];

/// Whether `n` bits in a row are set from bit `start` on.
fn fits(word: Term, start: u32, n: u32) -> Term {
    if start + n > 64 {
        return Term::truth(false);
    }
    word.slice(start, n).equals(Term::constant(u64::MAX, n))
}

/// Whether there is such a place at all.
fn fits_somewhere(word: Term, n: u32) -> Term {
    Term::any((0..64).map(|start| fits(word, start, n)))
}

/// Whether `start` is the lowest such place. Said of each place by itself, which is what a solver
/// decides quickly.
fn is_first_fit(word: Term, n: u32, start: Term) -> Term {
    let mut is_first = at_most(start, n32(64 - n));
    let mut is_below = Term::truth(false);
    for place in 0..=64 - n {
        let fits = fits(word, place, n);
        is_first = is_first.and(start.equals(n32(place)).implies(fits.and(is_below.not())));
        is_below = is_below.or(fits);
    }
    is_first
}

fn lowest_run(source: &Source) -> Result<(), String> {
    for n in 1..=64 {
        prove(source, [("word", 64)], |run, [word]| {
            match call(run, "lowest_run", &[word, n32(n)]) {
                Value::Option(Some(start)) => is_first_fit(word, n, number(&start)),
                _ => fits_somewhere(word, n).not(),
            }
        })?;
    }
    prove(source, [("word", 64), ("n", 32)], |run, [word, n]| {
        run.assume(n.equals(n32(0)).or(less(n32(64), n)));
        Term::truth(matches!(call(run, "lowest_run", &[word, n]), Value::Option(None)))
    })
}

fn starts_of_runs(source: &Source) -> Result<(), String> {
    for n in 1..=64 {
        prove(source, [("word", 64)], |run, [word]| {
            let starts = value_of(run, "starts_of_runs", &[word, n32(n)]);
            bits_are(starts, |bit| fits(word, bit, n))
        })?;
    }
    prove(source, [("word", 64), ("n", 32)], |run, [word, n]| {
        run.assume(n.equals(n32(0)).or(less(n32(64), n)));
        value_of(run, "starts_of_runs", &[word, n]).equals(n64(0))
    })
}

/// On each way the length is known: there is a run of it, and none that is longer.
fn longest_run(source: &Source) -> Result<(), String> {
    prove(source, [("word", 64)], |run, [word]| {
        let length = value_of(run, "longest_run", &[word]);
        let length = length.value().map_or(65, |length| length as u32);
        let is_there = match length {
            0 => Term::truth(true),
            length => fits_somewhere(word, length),
        };
        is_there.and(fits_somewhere(word, length + 1).not())
    })
}

/// The bits that a mask has.
fn is_in_mask(start: Term, len: Term) -> impl Fn(u32) -> Term {
    move |bit| at_most(start, n32(bit)).and(less(n32(bit).with("bvsub", start), len))
}

fn mask(source: &Source) -> Result<(), String> {
    prove(source, [("start", 32), ("len", 32)], |run, [start, len]| {
        let mask = value_of(run, "mask", &[start, len]);
        bits_are(mask, is_in_mask(start, len))
    })
}

/// The mask as it is proved.
pub fn mask_says(arguments: &[Value]) -> Value {
    let is_set = is_in_mask(number(&arguments[0]), number(&arguments[1]));
    Value::Number(Term::of_bits((0..64).map(is_set)))
}

/// `mask_between` as it is proved, of a word that begins at a multiple of 64.
pub fn mask_between_says(arguments: &[Value]) -> Value {
    let [start, end, base] = [0, 1, 2].map(|index| number(&arguments[index]));
    let is_set = |bit: u32| {
        let at = base.with("bvor", n64(bit.into()));
        at_most(start, at).and(less(at, end))
    };
    Value::Number(Term::of_bits((0..64).map(is_set)))
}

fn extract(source: &Source) -> Result<(), String> {
    for first in 0..64 {
        prove(source, [("word", 64), ("len", 32)], |run, [word, len]| {
            let bits = value_of(run, "extract", &[word, n32(first), len]);
            bits_are(bits, |bit| word.bit(first + bit).and(less(n32(bit), len)))
        })?;
    }
    prove(source, [("word", 64), ("start", 32), ("len", 32)], |run, [word, start, len]| {
        run.assume(at_most(n32(64), start));
        value_of(run, "extract", &[word, start, len]).equals(n64(0))
    })
}

fn bytes_at_least(source: &Source) -> Result<(), String> {
    prove(source, [("word", 64), ("least", 8)], |run, [word, least]| {
        run.assume(least.equals(Term::constant(0, 8)).not());
        let bytes = value_of(run, "bytes_at_least", &[word, least]);
        bits_are(bytes, |bit| match bit {
            0..8 => at_most(least, word.slice(8 * bit, 8)),
            _ => Term::truth(false),
        })
    })
}

/// For each bit whether at least one more of those below it are set, if `at_least` says it of some
/// number of them.
fn one_more(word: Term, at_least: impl Fn(u32) -> Term) -> Vec<Term> {
    let mut more = vec![Term::truth(false)];
    for bit in 0..64 {
        more.push(more[bit as usize].or(word.bit(bit).and(at_least(bit))));
    }
    more
}

/// By induction over `n`: after so many rounds the rest is what lies above so many bits. What is
/// above one less is not computed, but unknown: the step from it holds for any.
fn lowest_ones(source: &Source) -> Result<(), String> {
    for n in 0..=64 {
        let inputs = [("word", 64), ("above one less", 64), ("count", 32)];
        prove(source, inputs, |run, [word, one_less, count]| {
            let above = match n {
                0 => vec![Term::truth(true); 65],
                _ => one_more(word, |bit| one_less.bit(bit)),
            };
            // What it means to count.
            let is_one_more = one_more(word, |bit| above[bit as usize]).pop().expect("a last one");
            run.assume(less(n32(n), count).equals(is_one_more));
            run.lemma("count_ones", move |_| Value::Number(count));
            let last = above.clone();
            let rest = move |round: usize| match round as u32 == n {
                true => Term::of_bits((0..64).map(|bit| word.bit(bit).and(last[bit as usize]))),
                false => word.with("bvand", one_less),
            };
            let (variable, proved) = ("rest", n as usize);
            run.invariant = Some(Invariant { variable, value: Rc::new(rest), proved });
            let lowest = value_of(run, "lowest_ones", &[word, n32(n)]);
            bits_are(lowest, |bit| word.bit(bit).and(above[bit as usize].not()))
        })?;
    }
    // From 64 on it is all of them.
    prove(source, [("word", 64), ("n", 32), ("count", 32)], |run, [word, n, count]| {
        run.assume(at_most(count, n32(64)).and(at_most(n32(64), n)));
        run.lemma("count_ones", move |_| Value::Number(count));
        value_of(run, "lowest_ones", &[word, n]).equals(word)
    })
}

/// One step, from any word: the rest is a word again.
fn ones(source: &Source) -> Result<(), String> {
    prove(source, [("word", 64)], |run, [word]| {
        let iterator = call(run, "ones", &[word]);
        let (item, rest) = run.next(&iterator, "rest");
        match item {
            Value::Option(Some(item)) => {
                let lowest = word.trailing_zeros();
                let is_lowest = number(&item).equals(lowest).and(less(lowest, n32(64)));
                let is_without =
                    bits_are(number(&rest), |bit| word.bit(bit).and(lowest.equals(n32(bit)).not()));
                is_lowest.and(is_without)
            }
            _ => word.equals(n64(0)),
        }
    })
}

fn runs(source: &Source) -> Result<(), String> {
    prove(source, [("word", 64)], |run, [word]| {
        let iterator = call(run, "runs", &[word]);
        let (item, rest) = run.next(&iterator, "rest");
        let Value::Option(Some(item)) = item else { return word.equals(n64(0)) };
        let Value::Tuple(item) = &*item else { return Term::truth(false) };
        let (start, len) = (number(&item[0]), number(&item[1]));
        let end = start.with("bvadd", len);
        let inside = |bit| at_most(start, n32(bit)).and(less(n32(bit), end));
        let is_first = start.equals(word.trailing_zeros());
        let is_sound = less(n32(0), len).and(at_most(len, n32(64))).and(at_most(end, n32(64)));
        let is_set = Term::all((0..64).map(|bit| inside(bit).implies(word.bit(bit))));
        let is_longest =
            Term::all((0..64).map(|bit| end.equals(n32(bit)).implies(word.bit(bit).not())));
        let is_without = bits_are(number(&rest), |bit| word.bit(bit).and(inside(bit).not()));
        is_first.and(is_sound).and(is_set).and(is_longest).and(is_without)
    })
}
