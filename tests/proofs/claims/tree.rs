//! Small functions of the tree.

use super::packed::is;
use super::{Proof, at_most, bits_are, call, less, n64, value_of};
use crate::run::prove;
use crate::source::Source;
use crate::terms::Term;
use crate::value::{number, truth};

pub const PROOFS: &[Proof] = &[
    Proof {
        file: "node.rs",
        function: "Given::by",
        claim: given_by,
        wrong: &[
            ("old & mask", "old | mask"),
            ("old == 0", "mask == 0"),
            ("old | mask == FULL", "old & mask == FULL"),
        ],
    },
    Proof {
        file: "tree/crumbs.rs",
        function: "is_few",
        claim: is_few,
        wrong: &[("others & others.wrapping_sub(1)", "others")],
    },
    Proof {
        file: "tree/free.rs",
        function: "count",
        claim: |source| count(source, "count"),
        wrong: &[("{ 1 }", "{ 2 }")],
    },
    Proof {
        file: "tree/free.rs",
        function: "count_many",
        claim: |source| count(source, "count_many"),
        wrong: &[("bits.count_ones()", "bits.trailing_ones()")],
    },
    Proof {
        file: "tree/home.rs",
        function: "mark",
        claim: mark,
        wrong: &[("old & mask == 0", "old == 0")],
    },
    Proof {
        file: "tree/longest.rs",
        function: "high_ones",
        claim: high_ones,
        wrong: &[("leading_ones", "trailing_ones")],
    },
    Proof {
        file: "tree/near.rs",
        function: "size",
        claim: size,
        wrong: &[("/ 2", "/ 3"), (".min(SIZES - 1)", "")],
    },
];

fn given_by(source: &Source) -> Result<(), String> {
    prove(source, [("old", 64), ("mask", 64)], |run, [old, mask]| {
        let given = call(run, "Given::by", &[old, mask]);
        let is_overlap =
            bits_are(number(given.field("overlap")), |bit| old.bit(bit).and(mask.bit(bit)));
        let is_edge = is(given.field("edge"), source, "FromEmpty").equals(old.equals(n64(0)));
        let all = Term::all((0..64).map(|bit| old.bit(bit).or(mask.bit(bit))));
        is_overlap.and(is_edge).and(is(given.field("fill"), source, "Full").equals(all))
    })
}

fn is_few(source: &Source) -> Result<(), String> {
    prove(source, [("frames", 64)], |run, [frames]| {
        let is_few = call(run, "is_few", &[frames]);
        truth(&is_few).equals(frames.at_least()[64][3].not())
    })
}

fn count(source: &Source, name: &str) -> Result<(), String> {
    prove(source, [("bits", 64)], |run, [bits]| {
        let count = value_of(run, name, &[bits]);
        let at_least = bits.at_least().pop().expect("a row");
        Term::all((0..=64).map(|n| at_most(n64(n), count).equals(at_least[n as usize])))
            .and(at_most(count, n64(64)))
    })
}

fn mark(source: &Source) -> Result<(), String> {
    prove(source, [("old", 64), ("mask", 64)], |run, [old, mask]| {
        let mark = call(run, "mark", &[old, mask]);
        let some = Term::any((0..64).map(|bit| old.bit(bit).and(mask.bit(bit))));
        is(&mark, source, "Own").equals(some.not())
    })
}

fn high_ones(source: &Source) -> Result<(), String> {
    prove(source, [("bits", 64)], |run, [bits]| {
        let count = value_of(run, "high_ones", &[bits]);
        // So many are there, and not the next one.
        let at = |n: u32| bits.bit(63 - n);
        let are_there = (0..64).map(|n| less(n64(n.into()), count).implies(at(n)));
        let is_end = (0..64).map(|n| count.equals(n64(n.into())).implies(at(n).not()));
        Term::all(are_there.chain(is_end)).and(at_most(count, n64(64)))
    })
}

fn size(source: &Source) -> Result<(), String> {
    prove(source, [("count", 64)], |run, [count]| {
        run.assume(count.equals(n64(0)).not());
        let size = value_of(run, "size", &[count]);
        let is = |limits: [u64; 2], number| {
            let is_so = at_most(n64(limits[0]), count).and(at_most(count, n64(limits[1])));
            is_so.equals(size.equals(n64(number)))
        };
        let small = is([1, 3], 0).and(is([4, 15], 1));
        small.and(is([16, 63], 2)).and(is([64, u64::MAX], 3))
    })
}
