//! One way through the source after the other, and the questions to the solver.
//!
//! Where the source decides on something unknown, the run takes one way and notes the condition;
//! [`prove`] runs it again for every other way. Whatever would panic in a debug build (an overflow,
//! a shift by too much, a loop of more than 64 rounds too) counts as a violation.

use std::fmt::Write as _;
use std::rc::Rc;

use crate::solver::find;
use crate::source::Source;
use crate::terms::Term;
use crate::value::{Scope, Value, number};

/// Violations that the solver is asked about at once: more are slow, fewer are many questions.
const AT_ONCE: usize = 8;

/// Why an expression has no value.
pub enum Exit {
    Return(Value),
    Break,
    /// This way can't be gone on, which is a violation if it can be reached.
    Abandoned,
}

pub type Outcome = Result<Value, Exit>;

/// What a variable is at the head of each round of a loop.
#[derive(Clone)]
pub struct Invariant {
    pub variable: &'static str,
    pub value: Rc<dyn Fn(usize) -> Term>,
    /// Up to this round it has been proved before.
    pub proved: usize,
}

/// What a function says, as another proof has shown.
pub type Lemma = Rc<dyn Fn(&[Value]) -> Value>;

/// One way through the source.
pub struct Run<'s> {
    pub source: &'s Source,
    /// Which way to take at the decisions so far, and how many were met.
    ways: Vec<bool>,
    met: usize,
    /// What is the case on this way.
    path: Term,
    facts: Vec<Term>,
    /// What must not be possible, and why.
    violations: Vec<(Term, String)>,
    pub scope: Scope,
    /// The type that `Self` is.
    pub owner: String,
    pub invariant: Option<Invariant>,
    /// Functions that are not run.
    lemmas: Vec<(&'static str, Lemma)>,
    /// Whether this part has been proved before.
    pub is_granted: bool,
    calls: Vec<String>,
}

/// Proves that `claim` holds for all values of the inputs, given by name and width.
///
/// # Errors
/// Values for which it does not, with what the functions say for them.
pub fn prove<const N: usize>(
    source: &Source,
    inputs: [(&str, u32); N],
    claim: impl Fn(&mut Run<'_>, [Term; N]) -> Term,
) -> Result<(), String> {
    let unknown = inputs.map(|(name, width)| Term::input(name, width));
    let mut violations = Vec::new();
    let mut ways = Vec::new();
    let mut found = None;
    while found.is_none() {
        let mut run = Run::new(source, ways);
        let holds = claim(&mut run, unknown);
        run.require(holds, "the claim does not hold");
        violations.extend(run.violations.iter().map(|(violation, _)| *violation));
        ways = run.ways;
        if violations.len() >= AT_ONCE {
            found = find(Term::any(violations.drain(..)), &unknown);
        }
        // The last decision that went the first way goes the other one next.
        while ways.last() == Some(&false) {
            ways.pop();
        }
        match ways.last_mut() {
            Some(way) => *way = false,
            None => break,
        }
    }
    let found = found.or_else(|| find(Term::any(violations), &unknown));
    let Some(values) = found else { return Ok(()) };
    let mut report = String::new();
    let mut known = unknown;
    for ((place, value), (name, width)) in known.iter_mut().zip(values).zip(inputs) {
        *place = Term::constant(value, width);
        let _ = write!(report, "{name} = {value:#x}, ");
    }
    let mut run = Run::new(source, Vec::new());
    let holds = claim(&mut run, known);
    run.require(holds, "the claim does not hold");
    let broken = run.violations.iter().find(|(violation, _)| violation.value() == Some(1));
    let why = broken.map_or("and yet it holds for these", |(_, why)| why);
    Err(format!("{report}{}: {why}", run.calls.join(", ")))
}

impl<'s> Run<'s> {
    pub fn new(source: &'s Source, ways: Vec<bool>) -> Self {
        Self {
            source,
            ways,
            met: 0,
            path: Term::truth(true),
            facts: Vec::new(),
            violations: Vec::new(),
            scope: Vec::new(),
            owner: String::new(),
            invariant: None,
            lemmas: Vec::new(),
            is_granted: false,
            calls: Vec::new(),
        }
    }

    /// What a function of the source says.
    pub fn call(&mut self, name: &str, arguments: &[Value]) -> Value {
        let result = self.invoke(name, arguments.to_vec());
        let result = match result {
            Ok(value) => value,
            Err(_) => Value::Unit,
        };
        let arguments: Vec<_> = arguments.iter().map(ToString::to_string).collect();
        self.calls.push(format!("{name}({}) is {result}", arguments.join(", ")));
        result
    }

    /// The first item of an iterator, and the local variable `state` behind it.
    pub fn next(&mut self, iterator: &Value, state: &str) -> (Value, Value) {
        let Value::Iterator(step, scope) = iterator else { panic!("no iterator: {iterator}") };
        self.scope.clone_from(scope);
        let item = match self.apply(&Value::Closure(step.clone()), Vec::new()) {
            Ok(item) => item,
            Err(_) => Value::Unit,
        };
        self.calls.push(format!("its first item is {item}"));
        (item, self.local(state).clone())
    }

    /// From here on this function is not run; what it says is known.
    pub fn lemma(&mut self, name: &'static str, says: impl Fn(&[Value]) -> Value + 'static) {
        self.lemmas.push((name, Rc::new(says)));
    }

    /// What a function says of which that is known.
    pub fn known(&self, name: &str, arguments: &[Value]) -> Option<Value> {
        let lemma = self.lemmas.iter().find(|(known, _)| *known == name);
        lemma.map(|(_, says)| says(arguments))
    }

    /// From here on only this is looked at.
    pub fn assume(&mut self, truth: Term) {
        self.path = self.path.and(truth);
        self.facts.push(truth);
    }

    pub fn require(&mut self, truth: Term, why: &str) {
        let violation = self.path.and(truth.not());
        if violation.value() != Some(0) && !self.is_granted {
            self.violations.push((violation, why.to_owned()));
        }
        self.assume(truth);
    }

    pub fn decide(&mut self, truth: Term) -> bool {
        if let Some(value) = truth.value() {
            return value != 0;
        }
        for (fact, says) in [(truth, true), (truth.not(), false)] {
            if self.facts.contains(&fact) {
                return says;
            }
        }
        if self.met == self.ways.len() {
            self.ways.push(true);
        }
        let way = self.ways[self.met];
        self.met += 1;
        self.assume(if way { truth } else { truth.not() });
        way
    }

    /// The variable has the invariant's value; from here on in these words.
    pub fn keep_invariant(&mut self, round: usize) {
        let Some(Invariant { variable, value, proved }) = self.invariant.clone() else { return };
        let value = value(round);
        self.is_granted = round < proved;
        let found = number(self.local(variable));
        self.require(found.equals(value), "the invariant does not hold");
        self.is_granted = round + 1 < proved;
        *self.local_mut(variable) = Value::Number(value);
    }

    pub fn local(&self, name: &str) -> &Value {
        let found = self.scope.iter().rev().find(|(known, _)| known == name);
        &found.unwrap_or_else(|| panic!("no variable {name}")).1
    }

    pub fn local_mut(&mut self, name: &str) -> &mut Value {
        let found = self.scope.iter_mut().rev().find(|(known, _)| known == name);
        &mut found.unwrap_or_else(|| panic!("no variable {name}")).1
    }
}
