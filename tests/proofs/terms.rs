//! Terms of bit vectors, as SMT-LIB has them: what a word function computes when its arguments are
//! unknown. A term of constants is a constant, so that the same code also computes with numbers.
//!
//! Terms live in a table of their thread, each once; a [`Term`] is its number there.

use std::cell::RefCell;
use std::collections::HashMap;

/// Whether a product is as wide as its factors: no operator of SMT-LIB.
pub const EXACT: &str = "no overflow in bvmul";

/// A bit vector of up to 64 bits, or a truth, which has 0 bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Term(usize);

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Node {
    /// SMT-LIB's operator, a number, or an input's name.
    pub operator: Operator,
    pub operands: Vec<Term>,
    pub width: u32,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Operator {
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
        "bvxor" => a ^ b,
        "bvnot" | "not" => !a,
        "bvshl" => shifted(b, |a, by| a << by),
        "bvlshr" => shifted(b, |a, by| a >> by),
        "bvashr" => {
            let sign = u64::MAX.wrapping_mul(a >> (width - 1) & 1) & !mask(width);
            ((a | sign).cast_signed() >> b.min(63)).cast_unsigned()
        }
        "concat" => a << widths[1] | b,
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

    /// What it is made of.
    pub fn node(self) -> Node {
        TABLE.with_borrow(|table| table.nodes[self.0].clone())
    }

    /// A name for it in a script.
    pub fn name(self) -> String {
        format!("t{}", self.0)
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
        let mut bits = bits.into_iter().map(|bit| {
            let [one, zero] = [1, 0].map(|value| Self::constant(value, 1));
            bit.choose(one, zero)
        });
        let lowest = bits.next().expect("a bit");
        bits.fold(lowest, |low, bit| bit.above(low))
    }

    /// Both in one vector, the other one below.
    pub fn above(self, low: Self) -> Self {
        Self::apply("concat", &[self, low], self.width() + low.width())
    }

    pub fn with_zeros(self, below: u32) -> Self {
        self.above(Self::constant(0, below))
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

    /// The number of zeros above the highest bit that is set, in 32 bits.
    pub fn leading_zeros(self) -> Self {
        let width = self.width();
        let none = Self::constant(width.into(), 32);
        (0..width).fold(none, |rest, index| {
            self.bit(index).choose(Self::constant((width - 1 - index).into(), 32), rest)
        })
    }

    /// How many bits are set, in 32 bits. Said of each number by itself, not by a sum: that so many
    /// bits are set is then a term of its own, which claims can speak of.
    pub fn count_ones(self) -> Self {
        let at_least = self.at_least().pop().expect("a row");
        let counts = (1..=self.width()).zip(&at_least[1..]);
        counts.fold(Self::constant(0, 32), |rest, (count, holds)| {
            holds.choose(Self::constant(count.into(), 32), rest)
        })
    }

    /// `[below][count]` is whether at least so many of the bits below that one are set.
    pub fn at_least(self) -> Vec<Vec<Self>> {
        let mut holds = vec![Self::truth(false); self.width() as usize + 1];
        holds[0] = Self::truth(true);
        let mut rows = vec![holds.clone()];
        for index in 0..self.width() {
            for count in (1..=index as usize + 1).rev() {
                holds[count] = holds[count].or(self.bit(index).and(holds[count - 1]));
            }
            rows.push(holds.clone());
        }
        rows
    }
}
