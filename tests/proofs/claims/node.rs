//! `src/node.rs`: what words of a node are made of.

use super::bits::mask_says;
use super::{Proof, at_most, bits_are, call, less, n64, value_of};
use crate::run::{Run, prove};
use crate::source::Source;
use crate::terms::Term;
use crate::value::{Value, number};

pub const PROOFS: &[Proof] = &[
    Proof {
        file: "node.rs",
        function: "mask_between",
        claim: mask_between,
        wrong: &[
            ("from < to", "from <= base + 64"),
            ("start > base", "start >= base + 1 && start < end"),
            ("end < behind", "end + 1 < behind"),
        ],
    },
    Proof {
        file: "node.rs",
        function: "word_and_mask",
        claim: word_and_mask,
        wrong: &[("% NODE_WORDS", "% (NODE_WORDS - 1)")],
    },
];

/// Where a number lies, seen from a word.
#[derive(Clone, Copy)]
enum Place {
    Below,
    In,
    Above,
}

impl Place {
    /// A number there, made of one that is not known; and whether it is at most the word's bit
    /// number so-and-so.
    fn of(self, run: &mut Run<'_>, word: Term, any: Term) -> (Term, impl Fn(u32) -> Term + use<>) {
        let (base, behind) = (word.with_zeros(6), word.with_zeros(6).with("bvadd", n64(64)));
        let bit = any.resized(6);
        let number = match self {
            Self::In => word.above(bit),
            Self::Below | Self::Above => any,
        };
        run.assume(match self {
            Self::Below => less(number, base),
            Self::In => Term::truth(true),
            Self::Above => at_most(behind, number),
        });
        let is_at_most = move |index: u32| match self {
            Self::Below => Term::truth(true),
            Self::In => at_most(bit, Term::constant(index.into(), 6)),
            Self::Above => Term::truth(false),
        };
        (number, is_at_most)
    }
}

/// By what is proved of `mask`. Words begin at multiples of 64, and the last one ends before the
/// numbers do; `start` and `end` lie before, in or behind the word.
fn mask_between(source: &Source) -> Result<(), String> {
    let places = [Place::Below, Place::In, Place::Above];
    let pairs = places.into_iter().flat_map(|start| places.map(|end| (start, end)));
    for (start, end) in pairs {
        let inputs = [("word", 58), ("start", 64), ("end", 64)];
        prove(source, inputs, |run, [word, first, behind]| {
            run.lemma("mask", mask_says);
            run.assume(less(word, Term::constant(u64::MAX, 58)));
            let (start, is_from) = start.of(run, word, first);
            let (end, is_behind) = end.of(run, word, behind);
            let mask = value_of(run, "mask_between", &[start, end, word.with_zeros(6)]);
            bits_are(mask, |bit| is_from(bit).and(is_behind(bit).not()))
        })?;
    }
    Ok(())
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
