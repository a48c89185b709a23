//! Proofs of the functions on words, for every word and every argument, not for examples: the
//! shipped source is run on unknown numbers ([`source`]), and z3 looks for values for which a claim
//! is wrong, or the source would panic. `unsat` is the proof.
//!
//! The claims say bit by bit, or by search, what the functions compute in a few steps. Wrong
//! variants are refuted (with the arguments that refute them), and the interpreter itself is compared with the compiled functions.
#![cfg(not(loom))]

mod library;
mod source;
mod terms;

#[path = "../../src/bits.rs"]
mod bits;

use std::rc::Rc;

use source::{Invariant, Run, Source, Value, number, prove};
use terms::Term;

const BITS: &str = include_str!("../../src/bits.rs");
const NODE: &str = include_str!("../../src/node.rs");
const GEOMETRY: &str = include_str!("../../src/geometry.rs");
const REQUEST: &str = include_str!("../../src/request.rs");

type Proof = fn(&Source) -> Result<(), String>;

/// Whether a case of many is to be proved: all of them by `make proofs`, these in `make test`.
fn is_asked(case: u64, quick: &[u64]) -> bool {
    quick.contains(&case) || std::env::var_os("PROVE_ALL").is_some()
}

fn n32(value: u32) -> Term {
    Term::constant(value.into(), 32)
}

fn n64(value: u64) -> Term {
    Term::constant(value, 64)
}

fn at_most(one: Term, other: Term) -> Term {
    one.is("bvule", other)
}

fn less(one: Term, other: Term) -> Term {
    one.is("bvult", other)
}

/// Whether the bits of `word` are exactly those for which `claim` holds.
fn bits_are(word: Term, claim: impl Fn(u32) -> Term) -> Term {
    Term::all((0..64).map(|index| word.bit(index).equals(claim(index))))
}

/// Whether `n` bits in a row are set from bit `start` on.
fn fits(word: Term, start: u32, n: u32) -> Term {
    word.slice(start, n).equals(Term::constant(u64::MAX, n))
}

/// Whether there is such a place at all.
fn fits_somewhere(word: Term, n: u32) -> Term {
    if n > 64 {
        return Term::truth(false);
    }
    Term::any((0..=64 - n).map(|start| fits(word, start, n)))
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

fn call(run: &mut Run<'_>, name: &str, arguments: &[Term]) -> Value {
    let arguments: Vec<_> = arguments.iter().copied().map(Value::Number).collect();
    run.call(name, &arguments)
}

/// The number that a function says; some other one on a way that is given up.
fn value_of(run: &mut Run<'_>, name: &str, arguments: &[Term]) -> Term {
    match call(run, name, arguments) {
        Value::Unit => n64(0),
        value => number(&value),
    }
}

fn lowest_run(source: &Source) -> Result<(), String> {
    for n in (1..=64).filter(|n| is_asked(u64::from(*n), &[1, 2, 3, 4, 13, 32, 33, 63, 64])) {
        prove(source, [("word", 64)], |run, [word]| {
            match call(run, "lowest_run", &[word, n32(n)]) {
                Value::Option(Some(start)) => is_first_fit(word, n, number(&start)),
                _ => fits_somewhere(word, n).not(),
            }
        })?;
    }
    prove(source, [("word", 64)], |run, [word]| {
        Term::truth(matches!(call(run, "lowest_run", &[word, n32(0)]), Value::Option(None)))
    })?;
    prove(source, [("word", 64), ("n", 32)], |run, [word, n]| {
        run.assume(less(n32(64), n));
        Term::truth(matches!(call(run, "lowest_run", &[word, n]), Value::Option(None)))
    })
}

fn mask(source: &Source) -> Result<(), String> {
    prove(source, [("start", 32), ("len", 32)], |run, [start, len]| {
        let mask = value_of(run, "mask", &[start, len]);
        bits_are(mask, |bit| at_most(start, n32(bit)).and(less(n32(bit).with("bvsub", start), len)))
    })
}

fn extract(source: &Source) -> Result<(), String> {
    for first in (0..64).filter(|first| is_asked(u64::from(*first), &[0, 1, 32, 63])) {
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

/// By induction over `n`: after so many rounds the rest is what lies above so many bits.
fn lowest_ones(source: &Source) -> Result<(), String> {
    for n in (0..=64).filter(|n| is_asked(*n, &[0, 1, 2, 3])) {
        prove(source, [("word", 64)], |run, [word]| {
            let at_least: Rc<Vec<_>> = Rc::new((0..64).map(|bit| word.at_least(bit)).collect());
            let below = at_least.clone();
            let rest = move |round: usize| {
                Term::of_bits((0..64).map(|bit| word.bit(bit).and(below[bit as usize][round])))
            };
            let (variable, proved) = ("rest", n as usize);
            run.invariant = Some(Invariant { variable, value: Rc::new(rest), proved });
            let lowest = value_of(run, "lowest_ones", &[word, n32(n as u32)]);
            bits_are(lowest, |bit| word.bit(bit).and(at_least[bit as usize][n as usize].not()))
        })?;
    }
    prove(source, [("word", 64), ("n", 32)], |run, [word, n]| {
        // From 64 on there are never more bits than that, so it says all of them.
        let all = at_most(word.count_ones(), n);
        run.assume(all);
        value_of(run, "lowest_ones", &[word, n]).equals(word)
    })?;
    prove(source, [("word", 64), ("n", 32)], |_, [word, n]| {
        at_most(n32(64), n).implies(at_most(word.count_ones(), n))
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

fn mask_between(source: &Source) -> Result<(), String> {
    for first in (0..64).filter(|first| is_asked(*first, &[0, 63])) {
        // Words begin at multiples of 64. `end` and `start` may lie anywhere.
        prove(source, [("end", 64), ("word", 57), ("below", 64)], |run, [end, word, below]| {
            let base = word.resized(64).with("bvshl", n64(6));
            let start = base.with("bvor", n64(first));
            // Below the word, wherever, is as good as at its begin.
            let start = if first == 0 { below } else { start };
            run.assume(at_most(below, base));
            let mask = value_of(run, "mask_between", &[start, end, base]);
            bits_are(mask, |bit| {
                let at = base.with("bvor", n64(bit.into()));
                Term::truth(u64::from(bit) >= first).and(less(at, end))
            })
        })?;
    }
    prove(source, [("start", 64), ("end", 64), ("word", 57)], |run, [start, end, word]| {
        let base = word.resized(64).with("bvshl", n64(6));
        run.assume(less(base.with("bvor", n64(63)), start));
        value_of(run, "mask_between", &[start, end, base]).equals(n64(0))
    })
}

fn word_and_mask(source: &Source) -> Result<(), String> {
    prove(source, [("bit", 64)], |run, [bit]| {
        let Value::Tuple(found) = call(run, "word_and_mask", &[bit]) else {
            return Term::truth(false);
        };
        let (word, mask) = (number(&found[0]), number(&found[1]));
        let low = bit.slice(0, 6);
        let is_mask = bits_are(mask, |at| low.equals(Term::constant(at.into(), 6)));
        is_mask.and(word.equals(bit.slice(6, 3).resized(64)))
    })
}

fn is_power_of_two(term: Term) -> Term {
    let zero = n64(0);
    term.equals(zero).not().and(term.with("bvand", term.with("bvsub", n64(1))).equals(zero))
}

/// Whether a run of `count` from `begin` on contains a multiple of `boundary` above its first
/// frame.
fn crosses(begin: Term, count: Term, boundary: Term) -> Term {
    let last = begin.with("bvadd", count).with("bvsub", n64(1));
    let upper = boundary.with("bvsub", n64(1)).flipped();
    let differ = begin.with("bvand", upper).equals(last.with("bvand", upper)).not();
    boundary.equals(n64(0)).not().and(differ)
}

/// Where frames end, and the bits of a number of frames.
const FRAMES: u64 = 1 << 40;
const WIDTH: u32 = 41;
/// The fields of a rule, and two frames.
const RULE: [(&str, u32); 7] = [
    ("count", WIDTH),
    ("align", 19),
    ("first", WIDTH),
    ("end", WIDTH),
    ("boundary", 52),
    ("start", WIDTH),
    ("other", WIDTH + 1),
];

/// A rule of a request that was checked, and frames that exist.
fn rule(run: &mut Run<'_>, fields: [Term; 5]) -> Value {
    let [count, align, first, end, boundary] = fields;
    run.assume(less(n64(0), count).and(at_most(count, n64(FRAMES))));
    run.assume(is_power_of_two(align).and(at_most(align, n64(1 << 18))));
    run.assume(at_most(first, end).and(at_most(end, n64(FRAMES))));
    let is_wide = is_power_of_two(boundary).and(at_most(count, boundary));
    run.assume(boundary.equals(n64(0)).or(is_wide));
    let names = ["count", "align", "first", "end", "boundary"];
    Value::Struct("rule", names.into_iter().zip(fields).collect())
}

fn lowest_begin(source: &Source) -> Result<(), String> {
    let mut aligns = (0..=18).rev().filter(|align| is_asked(*align, &[9]));
    aligns.try_for_each(|align| lowest_begin_at(source, n64(1 << align)))
}

fn lowest_begin_at(source: &Source, align: Term) -> Result<(), String> {
    prove(source, RULE, |run, inputs| {
        let [count, _, first, end, boundary, start, other] = inputs.map(|t| t.resized(64));
        let rule = rule(run, [count, align, first, end, boundary]);
        run.assume(at_most(start, n64(FRAMES)));
        let begin = run.call("lowest_begin", &[rule, Value::Number(start)]);
        let begin = number(&begin);
        let is_allowed = |frame: Term| {
            let is_late = at_most(start, frame).and(at_most(first, frame));
            let low = frame.with("bvand", align.with("bvsub", n64(1)));
            is_late.and(low.equals(n64(0))).and(crosses(frame, count, boundary).not())
        };
        is_allowed(begin).and(is_allowed(other).implies(at_most(begin, other)))
    })
}

fn latest_end(source: &Source) -> Result<(), String> {
    prove(source, RULE, |run, inputs| {
        let [count, align, first, end, boundary, begin, other] = inputs.map(|t| t.resized(64));
        let rule = rule(run, [count, align, first, end, boundary]);
        run.assume(less(begin, other).and(at_most(other, n64(FRAMES))));
        let latest = run.call("latest_end", &[rule, Value::Number(begin)]);
        let latest = number(&latest);
        let length = other.with("bvsub", begin);
        let is_allowed = at_most(other, end).and(crosses(begin, length, boundary).not());
        is_allowed.equals(at_most(other, latest))
    })
}

/// Each function, where it stands, and its proof.
const PROOFS: &[(&str, &str, Proof)] = &[
    ("lowest_run", BITS, lowest_run),
    ("mask", BITS, mask),
    ("extract", BITS, extract),
    ("bytes_at_least", BITS, bytes_at_least),
    ("lowest_ones", BITS, lowest_ones),
    ("ones", BITS, ones),
    ("runs", BITS, runs),
    ("mask_between", NODE, mask_between),
    ("word_and_mask", NODE, word_and_mask),
    ("lowest_begin", REQUEST, lowest_begin),
    ("latest_end", REQUEST, latest_end),
];

/// A wrong variant of a function: what is replaced, and by what.
const WRONG: &[(&str, &str, &str)] = &[
    ("lowest_run", "starts & (starts >> left)", "starts"),
    ("lowest_run", "left >= u64::BITS", "left >= 63"),
    ("lowest_run", "starts &= starts >> step", "starts &= starts >> 1"),
    ("mask", "len == 0 || start >= u64::BITS", "start >= u64::BITS"),
    ("mask", "start >= u64::BITS", "start > u64::BITS"),
    ("extract", "start >= end", "start > end"),
    ("bytes_at_least", "least <= 0x80", "least <= 0x81"),
    ("bytes_at_least", "0x0102_0408_1020_4080", "0x0102_0408_1020_4180"),
    ("lowest_ones", "rest &= rest - 1", "rest &= rest >> 1"),
    ("lowest_ones", "word & !rest", "rest"),
    ("ones", "rest &= rest - 1", "rest &= rest >> 1"),
    ("runs", "(rest >> start).trailing_ones()", "rest.trailing_ones()"),
    ("mask_between", "from < to", "from <= base + 64"),
    ("word_and_mask", "% NODE_WORDS", "% (NODE_WORDS - 1)"),
    ("lowest_begin", "left >= self.count", "left > self.count"),
    ("lowest_begin", "self.aligned(begin + left)", "self.aligned(begin)"),
    ("latest_end", "(begin | (self.boundary - 1)) + 1", "begin | (self.boundary - 1)"),
];

fn with_ground(text: &str) -> Source {
    Source::parse(&[GEOMETRY, BITS, text])
}

/// A test for each function, so that they run side by side.
macro_rules! tests {
    ($($name:ident)*) => {
        mod proof {
            $(
                #[test]
                fn $name() {
                    super::check(stringify!($name));
                }
            )*
        }

        #[test]
        fn every_proof_is_a_test() {
            let names = [$(stringify!($name)),*];
            assert!(PROOFS.iter().map(|(name, ..)| *name).eq(names));
        }
    };
}

tests! {
    lowest_run mask extract bytes_at_least lowest_ones ones runs
    mask_between word_and_mask lowest_begin latest_end
}

fn check(name: &str) {
    let (_, text, proof) = PROOFS.iter().find(|(known, ..)| *known == name).expect("a proof");
    assert_eq!(proof(&with_ground(text)), Ok(()), "{name}");
}

#[test]
fn every_wrong_variant_is_refuted() {
    for (name, right, wrong) in WRONG {
        let (_, text, proof) = PROOFS.iter().find(|(known, ..)| known == name).expect("a proof");
        let at = text.find(&format!("fn {name}(")).expect("the function");
        let (above, below) = text.split_at(at);
        assert!(below.contains(right), "{name} has no `{right}`");
        let changed = format!("{above}{}", below.replacen(right, wrong, 1));
        let refuted = proof(&with_ground(&changed));
        println!("`{wrong}`: {}", refuted.as_ref().err().map_or("NOT REFUTED", String::as_str));
        assert!(refuted.is_err(), "`{wrong}` in {name} is not refuted");
    }
}

/// What the interpreter makes of known numbers is what the compiler makes of them.
#[test]
fn the_interpreter_agrees_with_the_compiler() {
    let source = with_ground("");
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
        let hex = |number: u64| format!("{number:#x}");
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
