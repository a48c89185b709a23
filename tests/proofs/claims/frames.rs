//! Numbers of frames: in which group, block and giant they lie, and which frames of a group a range
//! has.

use super::bits::mask_between_says;
use super::{Proof, at_most, bits_are, call, field, less, n64};
use crate::run::{Run, prove};
use crate::source::Source;
use crate::terms::Term;
use crate::value::{Value, are_equal, number, truth};

pub const PROOFS: &[Proof] = &[
    Proof {
        file: "frame/number.rs",
        function: "FrameNumber::containing",
        claim: containing,
        wrong: &[("number < FRAME_LIMIT", "number <= FRAME_LIMIT")],
    },
    Proof {
        file: "frame/number.rs",
        function: "FrameNumber::start_address",
        claim: start_address,
        wrong: &[("self.0 * FRAME_SIZE", "self.0 * (FRAME_SIZE + 1)")],
    },
    Proof {
        file: "frame/number.rs",
        function: "NumberRange::contains",
        claim: contains,
        wrong: &[("frame.0 < self.end.0", "frame.0 <= self.end.0")],
    },
    Proof {
        file: "frame/number.rs",
        function: "NumberRange::overlap",
        claim: overlap,
        wrong: &[("self.start.max(other.start)", "self.start"), ("start < end", "start <= end")],
    },
    Proof {
        file: "directory.rs",
        function: "Group::of",
        claim: group_of,
        wrong: &[("frame.get() / WORD_BITS", "frame.get() / (WORD_BITS + 1)")],
    },
    Proof {
        file: "directory.rs",
        function: "Group::first_frame",
        claim: first_frame,
        wrong: &[("self.0 * WORD_BITS", "self.0 * (WORD_BITS - 1)")],
    },
    Proof {
        file: "directory.rs",
        function: "Group::giant",
        claim: |source| group_part(source, "Group::giant", 12, 22),
        wrong: &[("GIANT_FRAMES / WORD_BITS", "GIANT_FRAMES")],
    },
    Proof {
        file: "directory.rs",
        function: "Group::block",
        claim: |source| group_part(source, "Group::block", 3, 9),
        wrong: &[("% GIANT_BLOCKS", "% NODE_WORDS as u64")],
    },
    Proof {
        file: "directory.rs",
        function: "Group::word",
        claim: |source| group_part(source, "Group::word", 0, 3),
        wrong: &[("% NODE_WORDS", "% WORD_BITS as usize")],
    },
    Proof {
        file: "directory.rs",
        function: "Group::frame",
        claim: group_frame,
        wrong: &[("self.0 * WORD_BITS + bit as u64", "self.0 * WORD_BITS + 1")],
    },
    Proof {
        file: "directory.rs",
        function: "bit_of",
        claim: bit_of,
        wrong: &[("% WORD_BITS", "% (WORD_BITS - 1)")],
    },
    Proof {
        file: "directory.rs",
        function: "touched_and_filled",
        claim: touched_and_filled,
        wrong: &[
            ("end.div_ceil(BLOCK_FRAMES)", "end / BLOCK_FRAMES"),
            ("start.div_ceil(BLOCK_FRAMES)", "start / BLOCK_FRAMES"),
        ],
    },
    Proof {
        file: "pool/shared.rs",
        function: "whole_at",
        claim: whole_at,
        wrong: &[("{ FRAMES } else { 0 }", "{ FRAMES } else { 1 }"), (".min(FRAME_LIMIT)", "")],
    },
    Proof {
        file: "slot/mod.rs",
        function: "lowest",
        claim: lowest,
        wrong: &[("frames != 0", "frames != 1")],
    },
    Proof {
        file: "slot/runs.rs",
        function: "frames_in_a_word",
        claim: frames_in_a_word,
        wrong: &[
            ("(first ^ last) >= WORD_BITS", "(first ^ last) > WORD_BITS"),
            ("u64::MAX << 1 << (last % WORD_BITS)", "u64::MAX << (last % WORD_BITS)"),
        ],
    },
    Proof {
        file: "tree/claim.rs",
        function: "is_whole",
        claim: is_whole,
        wrong: &[("end - at >= frames", "end - at > frames")],
    },
    Proof {
        file: "tree/claim.rs",
        function: "frames_of",
        claim: frames_of,
        wrong: &[("end < next", "end < first")],
    },
    Proof {
        file: "tree/claim.rs",
        function: "groups_of",
        claim: groups_of,
        wrong: &[("(at < end)", "(at <= end)"), ("at = behind", "at = behind + 1")],
    },
    Proof {
        file: "tree/isolate.rs",
        function: "mask_in",
        claim: mask_in,
        wrong: &[("mask_between(start, end,", "mask_between(start, end + 1,")],
    },
];

/// Numbers of frames go up to 2^40, which is behind the last.
const LIMIT: u64 = 1 << 40;
const WIDTH: u32 = 41;

pub fn frame(number: Term) -> Value {
    Value::of("FrameNumber", [("0", number.resized(64))])
}

/// The frames from one up to another, the limit at most.
pub fn range(run: &mut Run<'_>, start: Term, end: Term) -> Value {
    run.assume(at_most(start, end));
    run.assume(at_most(end, Term::constant(LIMIT, end.width())));
    let fields = [("start", frame(start)), ("end", frame(end))];
    let fields = fields.map(|(name, value)| (name.to_owned(), value));
    Value::Struct("NumberRange".into(), fields.to_vec())
}

fn group(number: Term) -> Value {
    Value::of("Group", [("0", number.resized(64))])
}

fn containing(source: &Source) -> Result<(), String> {
    prove(source, [("address", 64)], |run, [address]| {
        let is_there = less(address, n64(1 << 52));
        match call(run, "FrameNumber::containing", &[address]) {
            Value::Option(Some(found)) => {
                is_there.and(number(&found).equals(address.slice(12, 52).resized(64)))
            }
            _ => is_there.not(),
        }
    })
}

fn start_address(source: &Source) -> Result<(), String> {
    prove(source, [("frame", WIDTH)], |run, [number_]| {
        let address = run.call("FrameNumber::start_address", &[frame(number_)]);
        number(&address).equals(number_.with_zeros(12).resized(64))
    })
}

/// Whether a frame is one of a range.
pub fn is_in(frame: Term, range: &Value) -> Term {
    let [start, end] = ["start", "end"].map(|name| number(range.field(name)));
    at_most(start, frame.resized(64)).and(less(frame.resized(64), end))
}

fn contains(source: &Source) -> Result<(), String> {
    prove(source, [("start", WIDTH), ("end", WIDTH), ("frame", WIDTH)], |run, [start, end, at]| {
        let range = range(run, start, end);
        let contains = run.call("NumberRange::contains", &[range.clone(), frame(at)]);
        truth(&contains).equals(is_in(at, &range))
    })
}

/// Any frame is in the answer if it is in both; and an answer is not empty.
fn overlap(source: &Source) -> Result<(), String> {
    let names = ["start", "end", "start of the other", "end of the other", "frame"];
    prove(source, names.map(|name| (name, WIDTH)), |run, [a, b, c, d, at]| {
        let (one, other) = (range(run, a, b), range(run, c, d));
        let is_in_both = is_in(at, &one).and(is_in(at, &other));
        match run.call("NumberRange::overlap", &[one, other]) {
            Value::Option(Some(found)) => {
                let [start, end] = ["start", "end"].map(|name| number(found.field(name)));
                less(start, end).and(is_in(at, &found).equals(is_in_both))
            }
            _ => is_in_both.not(),
        }
    })
}

fn group_of(source: &Source) -> Result<(), String> {
    prove(source, [("frame", WIDTH)], |run, [at]| {
        let group = run.call("Group::of", &[frame(at)]);
        number(&group).equals(at.slice(6, WIDTH - 6).resized(64))
    })
}

fn first_frame(source: &Source) -> Result<(), String> {
    prove(source, [("group", 34)], |run, [number_]| {
        let first = run.call("Group::first_frame", &[group(number_)]);
        number(&first).equals(number_.with_zeros(6).resized(64))
    })
}

fn group_part(source: &Source, name: &str, low: u32, bits: u32) -> Result<(), String> {
    prove(source, [("group", 34)], |run, [number_]| {
        let part = run.call(name, &[group(number_)]);
        number(&part).equals(number_.slice(low, bits).resized(64))
    })
}

fn group_frame(source: &Source) -> Result<(), String> {
    prove(source, [("group", 34), ("bit", 6)], |run, [number_, bit]| {
        let arguments = [group(number_), Value::Number(bit.resized(32))];
        let frame = run.call("Group::frame", &arguments);
        number(&frame).equals(number_.above(bit).resized(64))
    })
}

fn bit_of(source: &Source) -> Result<(), String> {
    prove(source, [("frame", WIDTH)], |run, [at]| {
        let bit = run.call("bit_of", &[frame(at)]);
        bits_are(number(&bit), |index| at.slice(0, 6).equals(Term::constant(index.into(), 6)))
    })
}

/// Any block, of frames of one giant, of which there are some.
fn touched_and_filled(source: &Source) -> Result<(), String> {
    let inputs = [("giant", 22), ("start", 18), ("frames", 19), ("block", 9)];
    prove(source, inputs, |run, [giant, start, frames, block]| {
        let [from, len] = [start, frames].map(|term| term.resized(64));
        run.assume(less(n64(0), len).and(at_most(from.with("bvadd", len), n64(1 << 18))));
        let first = giant.above(start).resized(64);
        let range = range(run, first, first.with("bvadd", len));
        let found = run.call("touched_and_filled", &[range]);
        let is_in = |pair: &Value| {
            let [first, end] = ["0", "1"].map(|name| number(pair.field(name)));
            at_most(first, block.resized(64)).and(less(block.resized(64), end))
        };
        let end = from.with("bvadd", len);
        let begin_of = block.with_zeros(9).resized(64);
        let end_of = begin_of.with("bvadd", n64(512));
        let is_touched = less(from, end_of).and(less(begin_of, end));
        let is_filled = at_most(from, begin_of).and(at_most(end_of, end));
        let is_right = is_in(found.field("0")).equals(is_touched);
        is_right.and(is_in(found.field("1")).equals(is_filled))
    })
}

/// Of a block and of a giant.
fn whole_at(source: &Source) -> Result<(), String> {
    [9, 18].into_iter().try_for_each(|bits| {
        prove(source, [("frame", WIDTH)], |run, [first]| {
            run.assume(at_most(first, Term::constant(LIMIT, WIDTH)));
            let run_ = run.call(&format!("whole_at::<{}>", 1u64 << bits), &[frame(first)]);
            let [start, end] = ["start", "end"].map(|name| number(run_.field(name)));
            let first_ = first.resized(64);
            let is_aligned = first.slice(0, bits).equals(Term::constant(0, bits));
            let is_below = less(first_, n64(LIMIT));
            let behind = first_.with("bvadd", n64(1 << bits));
            let right = is_aligned.and(is_below).choose(behind, first_);
            start.equals(first_).and(end.equals(right))
        })
    })
}

fn lowest(source: &Source) -> Result<(), String> {
    prove(source, [("group", 34), ("frames", 64)], |run, [number_, frames]| {
        match run.call("lowest", &[group(number_), Value::Number(frames)]) {
            Value::Option(Some(found)) => {
                let bit = frames.trailing_zeros();
                let is_there = less(bit, Term::constant(64, 32));
                is_there.and(number(&found).equals(number_.above(bit.slice(0, 6)).resized(64)))
            }
            _ => frames.equals(n64(0)),
        }
    })
}

fn frames_in_a_word(source: &Source) -> Result<(), String> {
    prove(source, [("start", WIDTH), ("end", WIDTH)], |run, [start, end]| {
        let range = range(run, start, end);
        let last = end.with("bvsub", Term::constant(1, WIDTH));
        let is_one = start.slice(6, WIDTH - 6).equals(last.slice(6, WIDTH - 6));
        let is_one = less(start, end).and(is_one);
        match run.call("frames_in_a_word", &[range]) {
            Value::Option(Some(frames)) => is_one.and(bits_are(number(&frames), |bit| {
                let bit = Term::constant(bit.into(), 6);
                at_most(start.slice(0, 6), bit).and(at_most(bit, last.slice(0, 6)))
            })),
            _ => is_one.not(),
        }
    })
}

/// Of blocks and giants.
fn is_whole(source: &Source) -> Result<(), String> {
    [9, 18].into_iter().try_for_each(|bits| {
        prove(source, [("at", WIDTH), ("end", WIDTH)], |run, [at, end]| {
            run.assume(at_most(at, end));
            let is_aligned = at.slice(0, bits).equals(Term::constant(0, bits));
            let frames = n64(1 << bits);
            let [at, end] = [at, end].map(|term| term.resized(64));
            let is_whole = call(run, "is_whole", &[at, end, frames]);
            let fits = at_most(at.with("bvadd", frames), end);
            truth(&is_whole).equals(is_aligned.and(fits))
        })
    })
}

/// The frames of a group that lie in a range, and whether `behind` is what comes behind them.
fn is_rest(number_: Term, first: Term, end: Term, (frames, behind): (Term, Term)) -> Term {
    let are_right = bits_are(frames, |bit| {
        let bit = Term::constant(bit.into(), 6);
        at_most(first, bit).and(less(number_.above(bit).resized(64), end))
    });
    let next = number_.with_zeros(6).resized(64).with("bvadd", n64(64));
    are_right.and(behind.equals(less(end, next).choose(end, next)))
}

const GROUP_AT_END: [(&str, u32); 3] = [("group", 34), ("at", 6), ("end", WIDTH)];

fn frames_of(source: &Source) -> Result<(), String> {
    prove(source, GROUP_AT_END, |run, [number_, first, end]| {
        run.lemma("mask_between", mask_between_says);
        let (at, end) = (number_.above(first).resized(64), end.resized(64));
        run.assume(at_most(at, end).and(at_most(end, n64(LIMIT))));
        let arguments = [group(number_), Value::Number(at), Value::Number(end)];
        let found = run.call("frames_of", &arguments);
        let [frames, behind] = ["0", "1"].map(|name| number(found.field(name)));
        is_rest(number_, first, end, (frames, behind))
    })
}

/// One step, from any frame: the rest is a run again.
fn groups_of(source: &Source) -> Result<(), String> {
    prove(source, GROUP_AT_END, |run, [number_, first, end]| {
        run.lemma("mask_between", mask_between_says);
        let (at, end) = (number_.above(first).resized(64), end.resized(64));
        let range = range(run, at, end);
        let iterator = run.call("groups_of", &[range]);
        let (item, rest) = run.next(&iterator, "at");
        let Value::Option(Some(item)) = item else { return at.equals(end) };
        let is_group = are_equal(item.field("0"), &group(number_));
        let found = (field(&item, "1"), number(&rest));
        less(at, end).and(is_group).and(is_rest(number_, first, end, found))
    })
}

fn mask_in(source: &Source) -> Result<(), String> {
    prove(source, [("group", 34), ("start", WIDTH), ("end", WIDTH)], |run, [number_, a, b]| {
        run.lemma("mask_between", mask_between_says);
        let range = range(run, a, b);
        let mask = run.call("mask_in", &[group(number_), range.clone()]);
        bits_are(number(&mask), |bit| is_in(number_.above(Term::constant(bit.into(), 6)), &range))
    })
}
