//! Terms of bit vectors, as SMT-LIB has them: what a word function computes when its arguments are
//! unknown. A term of constants is a constant, so that the same code also computes with numbers.
//!
//! Terms live in a table of their thread, each once; a [`Term`] is its number there.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};

/// Whether a product is as wide as its factors: no operator of SMT-LIB.
pub const EXACT: &str = "no overflow in bvmul";

/// A bit vector of up to 64 bits, or a truth, which has 0 bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Term(usize);

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Node {
    /// SMT-LIB's operator, a number, or an input's name.
    operator: Operator,
    operands: Vec<Term>,
    width: u32,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Operator {
    Constant(u64),
    Input(String),
    Apply(String),
}

#[derive(Default)]
struct Table {
    nodes: Vec<Node>,
    known: HashMap<Node, Term>,
}

thread_local! {
    static TABLE: RefCell<Table> = RefCell::default();
}

impl Table {
    fn put(&mut self, node: Node) -> Term {
        if let Some(&term) = self.known.get(&node) {
            return term;
        }
        let term = Term(self.nodes.len());
        self.nodes.push(node.clone());
        self.known.insert(node, term);
        term
    }
}

fn put(operator: Operator, operands: Vec<Term>, width: u32) -> Term {
    TABLE.with_borrow_mut(|table| table.put(Node { operator, operands, width }))
}

fn mask(width: u32) -> u64 {
    if width == 0 { 1 } else { u64::MAX >> (64 - width) }
}

/// An operator on numbers; `widths` are the operands'.
fn compute(operator: &str, values: &[u64], widths: &[u32], width: u32) -> u64 {
    let [a, b] = [0, 1].map(|index| values.get(index).copied().unwrap_or(0));
    let shifted = |by: u64, shift: fn(u64, u32) -> u64| {
        if by < u64::from(width) { shift(a, by as u32) } else { 0 }
    };
    let value = match operator {
        "bvadd" => a.wrapping_add(b),
        "bvsub" => a.wrapping_sub(b),
        "bvmul" => a.wrapping_mul(b),
        "bvudiv" => a.checked_div(b).unwrap_or(u64::MAX),
        "bvurem" => a.checked_rem(b).unwrap_or(a),
        "bvand" | "and" => a & b,
        "bvor" | "or" => a | b,
        "bvnot" | "not" => !a,
        "bvshl" => shifted(b, |a, by| a << by),
        "bvlshr" => shifted(b, |a, by| a >> by),
        "=" => u64::from(a == b),
        "bvult" => u64::from(a < b),
        "bvule" => u64::from(a <= b),
        EXACT => {
            let most = mask(widths[0]);
            u64::from(a.checked_mul(b).is_some_and(|product| product <= most))
        }
        "ite" => values[if a != 0 { 1 } else { 2 }],
        _ if operator.starts_with("(_ zero_extend") => a,
        _ => {
            let low = operator.strip_prefix("(_ extract ").and_then(|rest| rest.split(' ').nth(1));
            let low = low.expect("an operator").trim_end_matches(')').parse().expect("a number");
            shifted_down(a, low)
        }
    };
    value & mask(width)
}

fn shifted_down(value: u64, by: u32) -> u64 {
    value.checked_shr(by).unwrap_or(0)
}

impl Term {
    pub const fn is_same(self, other: Self) -> bool {
        self.0 == other.0
    }

    pub fn constant(value: u64, width: u32) -> Self {
        put(Operator::Constant(value & mask(width)), Vec::new(), width)
    }

    pub fn truth(value: bool) -> Self {
        Self::constant(u64::from(value), 0)
    }

    /// Any value whatever.
    pub fn input(name: &str, width: u32) -> Self {
        put(Operator::Input(name.to_owned()), Vec::new(), width)
    }

    pub fn width(self) -> u32 {
        TABLE.with_borrow(|table| table.nodes[self.0].width)
    }

    /// What it is, if that is known.
    pub fn value(self) -> Option<u64> {
        TABLE.with_borrow(|table| match table.nodes[self.0].operator {
            Operator::Constant(value) => Some(value),
            _ => None,
        })
    }

    fn apply(operator: &str, operands: &[Self], width: u32) -> Self {
        let values: Option<Vec<_>> = operands.iter().map(|term| term.value()).collect();
        if let Some(values) = values {
            let widths: Vec<_> = operands.iter().map(|term| term.width()).collect();
            return Self::constant(compute(operator, &values, &widths, width), width);
        }
        put(Operator::Apply(operator.to_owned()), operands.to_vec(), width)
    }

    /// An operator of two vectors of one width.
    pub fn with(self, operator: &str, other: Self) -> Self {
        assert_eq!(self.width(), other.width(), "{operator}");
        Self::apply(operator, &[self, other], self.width())
    }

    /// A relation of two vectors of one width.
    pub fn is(self, relation: &str, other: Self) -> Self {
        assert_eq!(self.width(), other.width(), "{relation}");
        Self::apply(relation, &[self, other], 0)
    }

    pub fn equals(self, other: Self) -> Self {
        if self.is_same(other) { Self::truth(true) } else { self.is("=", other) }
    }

    pub fn and(self, other: Self) -> Self {
        match (self.value(), other.value()) {
            (Some(1), _) => other,
            (_, Some(1)) => self,
            (Some(0), _) | (_, Some(0)) => Self::truth(false),
            _ => Self::apply("and", &[self, other], 0),
        }
    }

    pub fn or(self, other: Self) -> Self {
        self.not().and(other.not()).not()
    }

    pub fn implies(self, other: Self) -> Self {
        self.and(other.not()).not()
    }

    pub fn not(self) -> Self {
        Self::apply("not", &[self], 0)
    }

    pub fn all(terms: impl IntoIterator<Item = Self>) -> Self {
        terms.into_iter().fold(Self::truth(true), Self::and)
    }

    pub fn any(terms: impl IntoIterator<Item = Self>) -> Self {
        terms.into_iter().fold(Self::truth(false), Self::or)
    }

    /// The complement of a vector.
    pub fn flipped(self) -> Self {
        Self::apply("bvnot", &[self], self.width())
    }

    /// `yes` where this truth holds, else `no`.
    pub fn choose(self, yes: Self, no: Self) -> Self {
        match self.value() {
            Some(value) => [no, yes][value as usize],
            None => Self::apply("ite", &[self, yes, no], yes.width()),
        }
    }

    /// A bit as a truth; false above the vector's end.
    pub fn bit(self, index: u32) -> Self {
        if index >= self.width() {
            return Self::truth(false);
        }
        self.slice(index, 1).equals(Self::constant(1, 1))
    }

    /// So many bits from bit `low` on.
    pub fn slice(self, low: u32, bits: u32) -> Self {
        assert!(bits > 0 && low + bits <= self.width(), "bits out of the word");
        Self::apply(&format!("(_ extract {} {low})", low + bits - 1), &[self], bits)
    }

    /// The vector of these bits, the lowest first.
    pub fn of_bits(bits: impl IntoIterator<Item = Self>) -> Self {
        bits.into_iter().enumerate().fold(Self::constant(0, 64), |vector, (index, bit)| {
            let there = Self::constant(1 << index, 64);
            vector.with("bvor", bit.choose(there, Self::constant(0, 64)))
        })
    }

    /// With zeros above, or without its upper bits.
    pub fn resized(self, width: u32) -> Self {
        let own = self.width();
        match width.cmp(&own) {
            std::cmp::Ordering::Equal => self,
            std::cmp::Ordering::Less => self.slice(0, width),
            std::cmp::Ordering::Greater => {
                Self::apply(&format!("(_ zero_extend {})", width - own), &[self], width)
            }
        }
    }

    /// The number of zeros below the lowest bit that is set, in 32 bits.
    pub fn trailing_zeros(self) -> Self {
        let none = Self::constant(self.width().into(), 32);
        (0..self.width()).rev().fold(none, |rest, index| {
            self.bit(index).choose(Self::constant(index.into(), 32), rest)
        })
    }

    /// How many bits are set, in 32 bits. Said of each number by itself, not by a sum: that so many
    /// bits are set is then a term of its own, which claims can speak of.
    pub fn count_ones(self) -> Self {
        let at_least = self.at_least(self.width());
        let counts = (1..=self.width()).zip(&at_least[1..]);
        counts.fold(Self::constant(0, 32), |rest, (count, holds)| {
            holds.choose(Self::constant(count.into(), 32), rest)
        })
    }

    /// For each number whether at least so many of the lowest `below` bits are set.
    pub fn at_least(self, below: u32) -> Vec<Self> {
        let mut holds = vec![Self::truth(false); self.width() as usize + 1];
        holds[0] = Self::truth(true);
        for index in 0..below {
            for count in (1..=index as usize + 1).rev() {
                holds[count] = holds[count].or(self.bit(index).and(holds[count - 1]));
            }
        }
        holds
    }
}

/// Looks for values of the inputs for which `truth` holds; `None` is the proof that there are none.
pub fn find(truth: Term, inputs: &[Term]) -> Option<Vec<u64>> {
    if let Some(value) = truth.value() {
        return (value != 0).then(|| vec![0; inputs.len()]);
    }
    // Inputs are declared; all that is made of them is one term, each part of it named once. (As
    // definitions of their own the solver would copy the parts at each use.)
    let (mut script, mut parts) = (String::from("(set-logic QF_BV)\n"), String::new());
    let lets = TABLE.with_borrow(|table| {
        let mut written = HashSet::new();
        for input in inputs {
            let width = table.nodes[input.0].width;
            let _ = writeln!(script, "(declare-const t{} (_ BitVec {width}))", input.0);
            written.insert(*input);
        }
        write_down(table, truth, &mut written, &mut parts);
        written.len() - inputs.len()
    });
    let ends = ")".repeat(lets);
    let _ = writeln!(script, "(assert {parts}t{}{ends})\n(check-sat)", truth.0);
    let names: Vec<_> = inputs.iter().map(|term| format!("t{}", term.0)).collect();
    let _ = writeln!(script, "(get-value ({}))", names.join(" "));
    let answer = ask(&script);
    match answer.lines().next() {
        Some("unsat") => None,
        Some("sat") => Some(read_values(&answer, &names)),
        _ => panic!("the solver said:\n{answer}"),
    }
}

/// Names a term and all below it, the lower ones first.
fn write_down(table: &Table, term: Term, written: &mut HashSet<Term>, script: &mut String) {
    let mut pending = vec![term];
    while let Some(&term) = pending.last() {
        let Node { operator, operands, width } = &table.nodes[term.0];
        let missing = operands.iter().find(|operand| !written.contains(operand));
        if let Some(missing) = missing.filter(|_| !written.contains(&term)) {
            pending.push(*missing);
            continue;
        }
        pending.pop();
        if !written.insert(term) {
            continue;
        }
        let meaning = match operator {
            Operator::Constant(value) if *width == 0 => (*value != 0).to_string(),
            Operator::Constant(value) => format!("(_ bv{value} {width})"),
            Operator::Apply(operator) if operator == EXACT => {
                let width = table.nodes[operands[0].0].width;
                let long = |t: Term| format!("((_ zero_extend {width}) t{})", t.0);
                let product = format!("(bvmul {} {})", long(operands[0]), long(operands[1]));
                let upper = format!("((_ extract {} {width}) {product})", 2 * width - 1);
                format!("(= {upper} (_ bv0 {width}))")
            }
            Operator::Apply(operator) => {
                let operands: Vec<_> = operands.iter().map(|t| format!(" t{}", t.0)).collect();
                format!("({operator}{})", operands.concat())
            }
            Operator::Input(name) => panic!("{name} is not among the inputs"),
        };
        let _ = writeln!(script, "(let ((t{} {meaning}))", term.0);
    }
}

fn ask(script: &str) -> String {
    let z3 = Command::new("z3")
        .args(["-smt2", "-in", "-T:300"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let mut z3 = z3.expect("z3 runs; `tools/setup.sh solver` installs it");
    let mut input = z3.stdin.take().expect("a pipe");
    input.write_all(script.as_bytes()).expect("z3 listens");
    drop(input);
    let output = z3.wait_with_output().expect("z3 ends");
    String::from_utf8(output.stdout).expect("plain text")
}

/// Reads `((t0 #x00) (t1 #b1))`.
fn read_values(answer: &str, names: &[String]) -> Vec<u64> {
    let words: Vec<_> = answer
        .split(|c: char| c.is_whitespace() || c == '(' || c == ')')
        .filter(|word| !word.is_empty())
        .collect();
    let value = |name: &String| {
        let at = words.iter().position(|word| word == name).expect("a value for each input");
        let digits = words[at + 1];
        let (digits, radix) = match digits.strip_prefix("#x") {
            Some(digits) => (digits, 16),
            None => (digits.strip_prefix("#b").expect("a number"), 2),
        };
        u64::from_str_radix(digits, radix).expect("a number")
    };
    names.iter().map(value).collect()
}
