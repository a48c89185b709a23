//! `src/request.rs`: where runs may begin and end.

use super::frames::{frame, is_in};
use super::{Proof, at_most, bits_are, field, less, n32, n64};
use crate::run::{Run, prove};
use crate::source::Source;
use crate::terms::Term;
use crate::value::{Value, are_equal, number, truth};

pub const PROOFS: &[Proof] = &[
    Proof {
        file: "request.rs",
        function: "Rule::lowest_begin",
        claim: lowest_begin,
        wrong: &[
            ("left >= self.count", "left > self.count"),
            ("self.aligned(begin + left)", "self.aligned(begin)"),
        ],
    },
    Proof {
        file: "request.rs",
        function: "Rule::latest_end",
        claim: latest_end,
        wrong: &[("(begin | (self.boundary - 1)) + 1", "begin | (self.boundary - 1)")],
    },
    Proof {
        file: "request.rs",
        function: "Rule::aligned",
        claim: aligned,
        wrong: &[("frame + self.align - 1", "frame + self.align")],
    },
    Proof {
        file: "request.rs",
        function: "Rule::begins_in_a_word",
        claim: begins_in_a_word,
        wrong: &[("align >= WORD_BITS => 1", "align >= WORD_BITS => FULL"), ("- 1)", ")")],
    },
    Proof {
        file: "request.rs",
        function: "Request::is_plain",
        claim: is_plain,
        wrong: &[("self.above | self.boundary == 0", "self.above & self.boundary == 0")],
    },
    Proof {
        file: "request.rs",
        function: "Request::settled",
        claim: settled,
        wrong: &[
            ("self.count.wrapping_sub(1) < WORD_BITS", "self.count.wrapping_sub(1) <= WORD_BITS"),
            ("is_short & self.is_plain()", "is_short"),
        ],
    },
    Proof {
        file: "request.rs",
        function: "Request::limits",
        claim: limits,
        wrong: &[
            ("self.above.div_ceil(FRAME_SIZE)", "self.above / FRAME_SIZE"),
            ("self.below < PHYSICAL_LIMIT", "self.below > PHYSICAL_LIMIT"),
        ],
    },
    Proof {
        file: "request.rs",
        function: "Request::at",
        claim: at,
        wrong: &[("above.saturating_add(length)", "length")],
    },
    Proof {
        file: "request.rs",
        function: "Request::exactly",
        claim: exactly,
        wrong: &[("limits.len() == self.count", "limits.len() >= self.count")],
    },
    Proof {
        file: "request.rs",
        function: "Request::check",
        claim: check,
        wrong: &[
            ("boundary / FRAME_SIZE < count", "boundary < count"),
            ("!align.is_power_of_two() || align >", "align >"),
            ("align > GIANT_FRAMES", "align > 2 * GIANT_FRAMES"),
            ("self.limits().len() < count", "false"),
        ],
    },
    Proof {
        file: "request.rs",
        function: "Request::rule",
        claim: rule_of,
        wrong: &[
            ("boundary: boundary / FRAME_SIZE", "boundary"),
            ("{ align / FRAME_SIZE }", "{ align }"),
        ],
    },
];

pub fn is_power_of_two(term: Term) -> Term {
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

const RULE_FIELDS: [&str; 5] = ["count", "align", "first", "end", "boundary"];

/// Whether a rule is one of a request that was checked ([`check`]).
fn is_sound([count, align, first, end, boundary]: [Term; 5]) -> Term {
    let some = less(n64(0), count).and(at_most(count, n64(FRAMES)));
    let is_aligned = is_power_of_two(align).and(at_most(align, n64(1 << 18)));
    let limits = at_most(first, end).and(at_most(end, n64(FRAMES)));
    let is_wide = is_power_of_two(boundary).and(at_most(count, boundary));
    Term::all([some, is_aligned, limits, boundary.equals(n64(0)).or(is_wide)])
}

/// A rule of a request that was checked.
fn rule(run: &mut Run<'_>, fields: [Term; 5]) -> Value {
    run.assume(is_sound(fields));
    let fields: [_; 5] = std::array::from_fn(|index| (RULE_FIELDS[index], fields[index]));
    Value::of("Rule", fields)
}

/// Alignments are powers of two: one after the other.
fn lowest_begin(source: &Source) -> Result<(), String> {
    (0..=18).rev().try_for_each(|align| lowest_begin_at(source, n64(1 << align)))
}

fn lowest_begin_at(source: &Source, align: Term) -> Result<(), String> {
    prove(source, RULE, |run, inputs| {
        let [count, _, first, end, boundary, start, other] = inputs.map(|t| t.resized(64));
        let rule = rule(run, [count, align, first, end, boundary]);
        run.assume(at_most(start, n64(FRAMES)));
        let begin = run.call("Rule::lowest_begin", &[rule, Value::Number(start)]);
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
        let latest = run.call("Rule::latest_end", &[rule, Value::Number(begin)]);
        let latest = number(&latest);
        let length = other.with("bvsub", begin);
        let is_allowed = at_most(other, end).and(crosses(begin, length, boundary).not());
        is_allowed.equals(at_most(other, latest))
    })
}

fn aligned(source: &Source) -> Result<(), String> {
    prove(source, RULE, |run, inputs| {
        let [count, align, first, end, boundary, frame, _] = inputs.map(|t| t.resized(64));
        let rule = rule(run, [count, align, first, end, boundary]);
        let aligned = number(&run.call("Rule::aligned", &[rule, Value::Number(frame)]));
        let low = aligned.with("bvand", align.with("bvsub", n64(1)));
        let is_near = less(aligned.with("bvsub", frame), align);
        low.equals(n64(0)).and(at_most(frame, aligned)).and(is_near)
    })
}

fn begins_in_a_word(source: &Source) -> Result<(), String> {
    (0..=18).try_for_each(|align| {
        prove(source, [], |run, []| {
            let rule = Value::of("Rule", [("align", n64(1 << align))]);
            let begins = run.call("Rule::begins_in_a_word", &[rule]);
            bits_are(number(&begins), |bit| Term::truth(bit % (1 << align) == 0))
        })
    })
}

/// A request's fields that are numbers.
const REQUEST: [(&str, u32); 5] =
    [("count", 64), ("align", 64), ("above", 64), ("below", 64), ("boundary", 64)];

fn request(fields: [Term; 5]) -> Value {
    let names = REQUEST.map(|(name, _)| name.to_owned());
    let mut fields: Vec<_> = names.into_iter().zip(fields.map(Value::Number)).collect();
    fields.push(("priority".into(), Value::Enum("Priority".into(), n64(0))));
    fields.push(("short".into(), Value::Number(n32(0))));
    Value::Struct("Request".into(), fields)
}

fn is_all_there_is([_, align, above, below, boundary]: [Term; 5]) -> Term {
    let is_anywhere = above.equals(n64(0)).and(at_most(n64(1 << 52), below));
    is_anywhere.and(boundary.equals(n64(0))).and(at_most(align, n64(4096)))
}

fn is_plain(source: &Source) -> Result<(), String> {
    prove(source, REQUEST, |run, fields| {
        let is_plain = run.call("Request::is_plain", &[request(fields)]);
        truth(&is_plain).equals(is_all_there_is(fields))
    })
}

fn settled(source: &Source) -> Result<(), String> {
    prove(source, REQUEST, |run, fields| {
        let settled = run.call("Request::settled", &[request(fields)]);
        let [count, ..] = fields;
        let is_short = at_most(n64(1), count).and(at_most(count, n64(64)));
        let short = is_short.and(is_all_there_is(fields)).choose(count.slice(0, 32), n32(0));
        let are_same = REQUEST.iter().zip(fields);
        let are_same = are_same.map(|((name, _), term)| field(&settled, name).equals(term));
        Term::all(are_same).and(field(&settled, "short").equals(short))
    })
}

/// Any frame is between the limits if all of its bytes are.
fn limits(source: &Source) -> Result<(), String> {
    let inputs = [("above", 64), ("below", 64), ("frame", 40)];
    prove(source, inputs, |run, [above, below, frame]| {
        let zero = n64(0);
        let limits = run.call("Request::limits", &[request([zero, zero, above, below, zero])]);
        let first = frame.with_zeros(12).resized(64);
        let behind = first.with("bvadd", n64(4096));
        is_in(frame, &limits).equals(at_most(above, first).and(at_most(behind, below)))
    })
}

/// Those of the frames asked for that exist are what lies between the limits.
fn at(source: &Source) -> Result<(), String> {
    let inputs = [("count", 64), ("first", 40), ("frame", 40)];
    prove(source, inputs, |run, [count, first, other]| {
        let zero = n64(0);
        let any = request([count, zero, zero, zero, zero]);
        let at = run.call("Request::at", &[any, frame(first)]);
        let limits = run.call("Request::limits", &[at]);
        let [first, other] = [first, other].map(|term| term.resized(64));
        let is_asked_for = at_most(first, other).and(less(other.with("bvsub", first), count));
        is_in(other, &limits).equals(is_asked_for)
    })
}

fn exactly(source: &Source) -> Result<(), String> {
    prove(source, [("count", 64), ("above", 64), ("below", 64)], |run, [count, above, below]| {
        let zero = n64(0);
        let request = request([count, zero, above, below, zero]);
        let limits = run.call("Request::limits", std::slice::from_ref(&request));
        let [start, end] = ["start", "end"].map(|name| field(&limits, name));
        let is_exact = end.with("bvsub", start).equals(count);
        match run.call("Request::exactly", &[request]) {
            Value::Option(Some(found)) => is_exact.and(are_equal(&found, &limits)),
            _ => is_exact.not(),
        }
    })
}

/// A request that is checked has a rule that is sound, and room for so many frames.
fn check(source: &Source) -> Result<(), String> {
    let mut inputs = REQUEST.to_vec();
    inputs.push(("begin", 64));
    let inputs: [_; 6] = inputs.try_into().expect("six");
    prove(source, inputs, |run, [count, align, above, below, boundary, begin]| {
        let request = request([count, align, above, below, boundary]);
        // Whatever it says: what follows of the request follows without it.
        run.lemma("Rule::lowest_begin", move |_| Value::Number(begin));
        let checked = run.call("Request::check", std::slice::from_ref(&request));
        let Value::Result(Ok(_)) = checked else { return Term::truth(true) };
        let rule = run.call("Request::rule", &[request]);
        let fields = RULE_FIELDS.map(|name| field(&rule, name));
        let [count, _, first, end, _] = fields;
        is_sound(fields).and(at_most(count, end.with("bvsub", first)))
    })
}

fn rule_of(source: &Source) -> Result<(), String> {
    prove(source, REQUEST, |run, fields| {
        let request = request(fields);
        let limits = run.call("Request::limits", std::slice::from_ref(&request));
        let rule = run.call("Request::rule", &[request]);
        let [count, align, _, _, boundary] = fields;
        let align = at_most(align, n64(4096)).choose(n64(1), frames(align));
        let limits = ["start", "end"].map(|name| field(&limits, name));
        let expected = [count, align, limits[0], limits[1], frames(boundary)];
        let pairs = RULE_FIELDS.iter().zip(expected);
        Term::all(pairs.map(|(name, expected)| field(&rule, name).equals(expected)))
    })
}

/// Whole frames of so many bytes.
fn frames(bytes: Term) -> Term {
    bytes.slice(12, 52).resized(64)
}
