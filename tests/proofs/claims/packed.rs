//! Words that hold several numbers: what is put in comes out again, and nothing else does.

use super::{Proof, at_most, bits_are, call, field, less, n64};
use crate::run::prove;
use crate::source::Source;
use crate::terms::Term;
use crate::value::{Value, number, truth};

pub const PROOFS: &[Proof] = &[
    Proof {
        file: "bounds.rs",
        function: "Bound::said_by",
        claim: said_by,
        wrong: &[("row >> self.shift & ANY", "row >> self.shift")],
    },
    Proof {
        file: "bounds.rs",
        function: "Bound::is_wide_with_below",
        claim: is_wide_with_below,
        wrong: &[("ANY << self.shift >> BYTE", "ANY << (self.shift + BYTE) % 64"), ("!row", "row")],
    },
    Proof {
        file: "bounds.rs",
        function: "Bound::at_nothing",
        claim: at_nothing,
        wrong: &[("row & !(ANY << self.shift)", "row & !ANY << self.shift")],
    },
    Proof {
        file: "budget.rs",
        function: "State::unpack",
        claim: budget_unpack,
        wrong: &[
            ("word.cast_signed() >> CROSSINGS", "(word >> CROSSINGS).cast_signed()"),
            ("word % (1 << CROSSINGS)", "word % (1 << 21)"),
        ],
    },
    Proof {
        file: "budget.rs",
        function: "State::pack",
        claim: budget_pack,
        wrong: &[("self.crossings % (1 << CROSSINGS)", "self.crossings")],
    },
    Proof {
        file: "budget.rs",
        function: "Look::state",
        claim: budget_look,
        wrong: &[("wrapping_add(self.shared)", "wrapping_sub(self.shared)")],
    },
    Proof {
        file: "budget.rs",
        function: "Look::word_for",
        claim: budget_word_for,
        wrong: &[("wrapping_sub(self.shared)", "wrapping_add(self.shared)")],
    },
    Proof {
        file: "budget.rs",
        function: "level",
        claim: level,
        wrong: &[("is_multiple_of(2)", "is_multiple_of(4)")],
    },
    Proof {
        file: "isolation.rs",
        function: "State::of",
        claim: isolation_of,
        wrong: &[("set_bits(Self::GUESTS, guests)", "set_bits(4..32, guests)")],
    },
    Proof {
        file: "isolation.rs",
        function: "State::phase",
        claim: isolation_phase,
        wrong: &[("unwrap_or(Phase::Held)", "unwrap_or(Phase::Over)")],
    },
    Proof {
        file: "isolation.rs",
        function: "State::guests",
        claim: |source| isolation_part(source, "State::guests", 3, 29),
        wrong: &[("Self::GUESTS", "3..31")],
    },
    Proof {
        file: "isolation.rs",
        function: "State::version",
        claim: |source| isolation_part(source, "State::version", 32, 32),
        wrong: &[("Self::VERSION", "31..64")],
    },
    Proof {
        file: "isolation.rs",
        function: "State::next",
        claim: isolation_next,
        wrong: &[
            ("(self.version() + 1) % (1 << 32)", "self.version() + 1"),
            ("Self::of(self.version(), 1, phase)", "Self::of(self.version(), 0, phase)"),
        ],
    },
    Proof {
        file: "isolation.rs",
        function: "State::is_like",
        claim: isolation_is_like,
        wrong: &[
            ("self.phase() == other.phase() && self.version()", "self.version()"),
            ("self.version() == other.version()", "self.guests() == other.guests()"),
        ],
    },
    Proof {
        file: "map.rs",
        function: "MapEntry::from_edge",
        claim: from_edge,
        wrong: &[
            ("edge == Edge::End", "edge == Edge::Begin"),
            ("bits.set_bits(0..2, kind as u64);", ""),
        ],
    },
    Proof {
        file: "map.rs",
        function: "MapEntry::from_step",
        claim: from_step,
        wrong: &[("set_bits(2..64, frame)", "set_bits(3..64, frame)")],
    },
    Proof {
        file: "map.rs",
        function: "MapEntry::kind",
        claim: map_kind,
        wrong: &[("get_bits(0..2)", "get_bits(0..3)")],
    },
    Proof {
        file: "map.rs",
        function: "MapEntry::edge",
        claim: map_edge,
        wrong: &[("{ Edge::End } else { Edge::Begin }", "{ Edge::Begin } else { Edge::End }")],
    },
    Proof {
        file: "map.rs",
        function: "MapEntry::edge_address",
        claim: |source| map_part(source, "MapEntry::edge_address", 3),
        wrong: &[("3..64", "2..64")],
    },
    Proof {
        file: "map.rs",
        function: "MapEntry::step_frame",
        claim: |source| map_part(source, "MapEntry::step_frame", 2),
        wrong: &[("2..64", "2..63")],
    },
    Proof {
        file: "map.rs",
        function: "RegionKind::from_index",
        claim: from_index,
        wrong: &[("1 => Self::Reclaimable", "1 => Self::Bad")],
    },
    Proof {
        file: "tree/near.rs",
        function: "unpack",
        claim: near_unpack,
        wrong: &[("word % (1 << LOW_BITS)", "word % ((1 << LOW_BITS) - 1)")],
    },
];

/// The bound of number `byte` in its row.
fn bound(byte: u32) -> Value {
    let fields = [("row", Value::Unit), ("shift", Value::Number(n64(u64::from(byte) * 8)))];
    Value::Struct("Bound".into(), fields.map(|(name, value)| (name.to_owned(), value)).to_vec())
}

/// The same claim for each byte of a row.
fn of_each_byte(
    source: &Source,
    function: &str,
    claim: impl Fn(Term, u32, &Value) -> Term,
) -> Result<(), String> {
    (0..8).try_for_each(|byte| {
        prove(source, [("row", 64)], |run, [row]| {
            let said = run.call(function, &[bound(byte), Value::Number(row)]);
            claim(row, byte, &said)
        })
    })
}

fn said_by(source: &Source) -> Result<(), String> {
    of_each_byte(source, "Bound::said_by", |row, byte, said| {
        number(said).equals(row.slice(8 * byte, 8).resized(64))
    })
}

fn is_wide_with_below(source: &Source) -> Result<(), String> {
    of_each_byte(source, "Bound::is_wide_with_below", |row, byte, said| {
        let below = byte.saturating_sub(1);
        let are_wide = [byte, below].map(|at| row.slice(8 * at, 8).equals(Term::constant(255, 8)));
        truth(said).equals(Term::all(are_wide))
    })
}

fn at_nothing(source: &Source) -> Result<(), String> {
    of_each_byte(source, "Bound::at_nothing", |row, byte, said| {
        bits_are(number(said), |bit| row.bit(bit).and(Term::truth(bit / 8 != byte)))
    })
}

/// A number of so many bits with a sign, as one of 64.
fn signed(term: Term) -> Term {
    let room = 64 - term.width();
    term.with_zeros(room).with("bvashr", n64(room.into()))
}

fn budget_unpack(source: &Source) -> Result<(), String> {
    prove(source, [("word", 64)], |run, [word]| {
        let state = call(run, "State::unpack", &[word]);
        let left = number(state.field("left")).equals(signed(word.slice(22, 42)));
        left.and(number(state.field("crossings")).equals(word.slice(0, 22).resized(64)))
    })
}

/// As many frames as there can be, and more, either way.
fn budget_pack(source: &Source) -> Result<(), String> {
    prove(source, [("left", 42), ("crossings", 64)], |run, [left, crossings]| {
        let fields = [
            ("left".to_owned(), Value::Signed(signed(left))),
            ("crossings".to_owned(), Value::Number(crossings)),
        ];
        let packed = run.call("State::pack", &[Value::Struct("State".into(), fields.to_vec())]);
        number(&packed).equals(left.above(crossings.slice(0, 22)))
    })
}

fn look(word: Term, shared: Term) -> Value {
    Value::of("Look", [("word", word), ("shared", shared)])
}

fn budget_look(source: &Source) -> Result<(), String> {
    prove(source, [("word", 64), ("shared", 64)], |run, [word, shared]| {
        let state = run.call("Look::state", &[look(word, shared)]);
        let sum = word.with("bvadd", shared);
        let left = number(state.field("left")).equals(signed(sum.slice(22, 42)));
        left.and(number(state.field("crossings")).equals(sum.slice(0, 22).resized(64)))
    })
}

/// What is put into the word is what is read from it, with the same journal.
fn budget_word_for(source: &Source) -> Result<(), String> {
    let arguments = [("left", 42), ("crossings", 22), ("word", 64), ("shared", 64)];
    prove(source, arguments, |run, [left, crossings, word, shared]| {
        let fields = [
            ("left".to_owned(), Value::Signed(signed(left))),
            ("crossings".to_owned(), Value::Number(crossings.resized(64))),
        ];
        let state = Value::Struct("State".into(), fields.to_vec());
        let word = run.call("Look::word_for", &[look(word, shared), state]);
        let read = run.call("Look::state", &[look(number(&word), shared)]);
        let same = number(read.field("left")).equals(signed(left));
        same.and(number(read.field("crossings")).equals(crossings.resized(64)))
    })
}

fn level(source: &Source) -> Result<(), String> {
    prove(source, [("crossings", 64)], |run, [crossings]| {
        let level = call(run, "level", &[crossings]);
        is(&level, source, "High").equals(crossings.bit(0).not())
    })
}

/// Whether a value is this variant of its enumeration.
pub fn is(value: &Value, source: &Source, variant: &str) -> Term {
    let Value::Enum(name, term) = value else { return Term::truth(false) };
    let at = source.enums[name].iter().position(|known| known == variant);
    term.equals(n64(at.expect("a variant") as u64))
}

/// The number of a variant, less than all.
fn variant_of(value: &Value) -> Term {
    match value {
        Value::Enum(_, term) => *term,
        other => panic!("no enumeration: {other}"),
    }
}

fn state(word: Term) -> Value {
    Value::of("State", [("0", word)])
}

fn phase(term: Term) -> Value {
    Value::Enum("Phase".into(), term.resized(64))
}

/// The phase in a word: what is above the last one is that too.
fn phase_in(word: Term) -> Term {
    let (phase, held) = (word.slice(0, 3).resized(64), n64(6));
    at_most(phase, held).choose(phase, held)
}

const VERSION_GUESTS_PHASE: [(&str, u32); 3] = [("version", 32), ("guests", 29), ("phase", 3)];

fn isolation_of(source: &Source) -> Result<(), String> {
    prove(source, VERSION_GUESTS_PHASE, |run, [version, guests, kind]| {
        run.assume(less(kind, Term::constant(7, 3)));
        let [a, b] = [version, guests].map(|term| Value::Number(term.resized(64)));
        let made = run.call("State::of", &[a, b, phase(kind)]);
        number(&made).equals(version.above(guests).above(kind))
    })
}

fn isolation_phase(source: &Source) -> Result<(), String> {
    prove(source, [("word", 64)], |run, [word]| {
        let phase = run.call("State::phase", &[state(word)]);
        variant_of(&phase).equals(phase_in(word))
    })
}

fn isolation_part(source: &Source, name: &str, low: u32, bits: u32) -> Result<(), String> {
    prove(source, [("word", 64)], |run, [word]| {
        let part = run.call(name, &[state(word)]);
        number(&part).equals(word.slice(low, bits).resized(64))
    })
}

fn isolation_next(source: &Source) -> Result<(), String> {
    prove(source, [("word", 64), ("phase", 3)], |run, [word, kind]| {
        run.assume(less(kind, Term::constant(7, 3)));
        let next = run.call("State::next", &[state(word), phase(kind)]);
        let version = word.slice(32, 32);
        let is_free = kind.equals(Term::constant(0, 3));
        let one_more = version.with("bvadd", Term::constant(1, 32));
        let version = is_free.choose(one_more, version);
        let guests = is_free.choose(Term::constant(0, 29), Term::constant(1, 29));
        number(&next).equals(version.above(guests).above(kind))
    })
}

fn isolation_is_like(source: &Source) -> Result<(), String> {
    prove(source, [("word", 64), ("other", 64)], |run, [word, other]| {
        let is_like = run.call("State::is_like", &[state(word), state(other)]);
        let is_version = word.slice(32, 32).equals(other.slice(32, 32));
        truth(&is_like).equals(phase_in(word).equals(phase_in(other)).and(is_version))
    })
}

fn from_edge(source: &Source) -> Result<(), String> {
    let inputs = [("address", 61), ("edge", 1), ("kind", 2)];
    prove(source, inputs, |run, [address, edge, kind]| {
        let arguments = [
            Value::Number(address.resized(64)),
            Value::Enum("Edge".into(), edge.resized(64)),
            Value::Enum("RegionKind".into(), kind.resized(64)),
        ];
        let entry = run.call("MapEntry::from_edge", &arguments);
        // The address on top, so that they sort by it.
        field(&entry, "0").equals(address.above(edge).above(kind))
    })
}

fn from_step(source: &Source) -> Result<(), String> {
    prove(source, [("frame", 62), ("kind", 2)], |run, [frame, kind]| {
        let kind_ = Value::Enum("RegionKind".into(), kind.resized(64));
        let entry = run.call("MapEntry::from_step", &[Value::Number(frame.resized(64)), kind_]);
        field(&entry, "0").equals(frame.above(kind))
    })
}

fn entry(word: Term) -> Value {
    Value::of("MapEntry", [("0", word)])
}

fn map_kind(source: &Source) -> Result<(), String> {
    prove(source, [("word", 64)], |run, [word]| {
        let kind = run.call("MapEntry::kind", &[entry(word)]);
        variant_of(&kind).equals(word.slice(0, 2).resized(64))
    })
}

fn map_edge(source: &Source) -> Result<(), String> {
    prove(source, [("word", 64)], |run, [word]| {
        let edge = run.call("MapEntry::edge", &[entry(word)]);
        is(&edge, source, "End").equals(word.bit(2))
    })
}

fn map_part(source: &Source, name: &str, low: u32) -> Result<(), String> {
    prove(source, [("word", 64)], |run, [word]| {
        let part = run.call(name, &[entry(word)]);
        number(&part).equals(word.slice(low, 64 - low).resized(64))
    })
}

fn from_index(source: &Source) -> Result<(), String> {
    prove(source, [("index", 64)], |run, [index]| {
        let kind = call(run, "RegionKind::from_index", &[index]);
        let last = n64(3);
        variant_of(&kind).equals(at_most(index, last).choose(index, last))
    })
}

fn near_unpack(source: &Source) -> Result<(), String> {
    prove(source, [("word", 64)], |run, [word]| {
        let numbers = call(run, "unpack", &[word]);
        let [high, low] = ["0", "1"].map(|name| number(numbers.field(name)));
        let is_high = high.equals(word.slice(24, 40).resized(64));
        is_high.and(low.equals(word.slice(0, 24).resized(64)))
    })
}
