//! Reads the shipped source, and runs its functions on [`Term`]s: a small interpreter for the part
//! of Rust that functions on words are written in. What it does not know it refuses, loudly.
//!
//! Where the source decides on something unknown, the run takes one way and notes the condition;
//! [`prove`] runs it again for every other way. Whatever would panic in a debug build (an overflow,
//! a shift by too much, a loop of more than 64 rounds too) counts as a violation.

use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::rc::Rc;

use quote::ToTokens;
use syn::{BinOp, Block, Expr, Item, Lit, Pat, ReturnType, Stmt, Type, UnOp};

use crate::terms::{EXACT, Term, find};

/// More rounds than a word has bits are a loop without end.
const ROUNDS: usize = 64;

/// Violations that the solver is asked about at once: more are slow, fewer are many questions.
const AT_ONCE: usize = 8;

/// What an expression is worth.
#[derive(Clone)]
pub enum Value {
    Unit,
    Truth(Term),
    Number(Term),
    /// A literal, whose type is that of what it meets.
    Literal(u64),
    Option(Option<Rc<Value>>),
    Tuple(Vec<Value>),
    Range(Term, Term),
    Struct(&'static str, Vec<(&'static str, Term)>),
    Closure(Rc<Expr>),
    Iterator(Rc<Expr>, Scope),
}

pub type Scope = Vec<(String, Value)>;

/// Why an expression has no value.
pub enum Exit {
    Return(Value),
    /// This way can't be gone on, which is a violation if it can be reached.
    Abandoned,
}

pub type Outcome = Result<Value, Exit>;

/// Functions and constants of some files of `src/`.
#[derive(Default)]
pub struct Source {
    functions: HashMap<String, (syn::Signature, Block)>,
    constants: HashMap<String, (Type, Expr)>,
}

impl Source {
    /// Of these texts.
    pub fn parse(texts: &[&str]) -> Self {
        let mut source = Self::default();
        for text in texts {
            let file = syn::parse_file(text).expect("Rust");
            file.items.into_iter().for_each(|item| source.add(item));
        }
        source
    }

    pub fn add(&mut self, item: Item) {
        match item {
            Item::Fn(function) => self.add_function(function.sig, *function.block),
            Item::Const(constant) => {
                let said = (*constant.ty, *constant.expr);
                self.constants.insert(constant.ident.to_string(), said);
            }
            Item::Impl(block) => {
                for item in block.items {
                    if let syn::ImplItem::Fn(method) = item {
                        self.add_function(method.sig, method.block);
                    }
                }
            }
            _ => {}
        }
    }

    pub fn add_function(&mut self, signature: syn::Signature, block: Block) {
        self.functions.insert(signature.ident.to_string(), (signature, block));
    }
}

/// What a variable is at the head of each round of a loop.
#[derive(Clone)]
pub struct Invariant {
    pub variable: &'static str,
    pub value: Rc<dyn Fn(usize) -> Term>,
    /// Up to this round it has been proved before.
    pub proved: usize,
}

/// One way through the source.
pub struct Run<'s> {
    source: &'s Source,
    /// Which way to take at the decisions so far, and how many were met.
    ways: Vec<bool>,
    met: usize,
    /// What is the case on this way.
    path: Term,
    facts: Vec<Term>,
    /// What must not be possible, and why.
    violations: Vec<(Term, String)>,
    pub scope: Scope,
    pub invariant: Option<Invariant>,
    /// Whether this part has been proved before.
    is_granted: bool,
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
            invariant: None,
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
        let item = match self.eval(step) {
            Ok(item) | Err(Exit::Return(item)) => item,
            Err(Exit::Abandoned) => Value::Unit,
        };
        self.calls.push(format!("its first item is {item}"));
        (item, self.local(state).clone())
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
        if self.facts.contains(&truth) {
            return true;
        }
        if self.met == self.ways.len() {
            self.ways.push(true);
        }
        let way = self.ways[self.met];
        self.met += 1;
        self.assume(if way { truth } else { truth.not() });
        way
    }

    pub fn invoke(&mut self, name: &str, arguments: Vec<Value>) -> Outcome {
        let source = self.source;
        let Some((signature, block)) = source.functions.get(name) else {
            panic!("there is no function {name} in the source")
        };
        let mut scope = Vec::new();
        assert_eq!(signature.inputs.len(), arguments.len(), "the arguments of {name}");
        for (input, argument) in signature.inputs.iter().zip(arguments) {
            match input {
                syn::FnArg::Receiver(_) => scope.push(("self".to_owned(), argument)),
                syn::FnArg::Typed(typed) => {
                    scope.push((name_of(&typed.pat), as_type(argument, &typed.ty)));
                }
            }
        }
        let outer = std::mem::replace(&mut self.scope, scope);
        let result = match self.block(block) {
            Ok(value) | Err(Exit::Return(value)) => match &signature.output {
                ReturnType::Type(_, ty) => Ok(as_type(value, ty)),
                ReturnType::Default => Ok(value),
            },
            Err(Exit::Abandoned) => Err(Exit::Abandoned),
        };
        self.scope = outer;
        result
    }

    pub fn local(&self, name: &str) -> &Value {
        let found = self.scope.iter().rev().find(|(known, _)| known == name);
        &found.unwrap_or_else(|| panic!("no variable {name}")).1
    }

    pub fn block(&mut self, block: &Block) -> Outcome {
        let outer = self.scope.len();
        let mut last = Ok(Value::Unit);
        for statement in &block.stmts {
            last = self.statement(statement);
            if last.is_err() {
                break;
            }
        }
        self.scope.truncate(outer);
        last
    }

    pub fn statement(&mut self, statement: &Stmt) -> Outcome {
        match statement {
            Stmt::Local(local) => {
                let init = local.init.as_ref().expect("a value");
                let value = self.eval(&init.expr)?;
                self.bind(&local.pat, value);
            }
            Stmt::Item(Item::Const(constant)) => {
                let value = self.eval(&constant.expr)?;
                let value = as_type(value, &constant.ty);
                self.scope.push((constant.ident.to_string(), value));
            }
            Stmt::Expr(expression, None) => return self.eval(expression),
            Stmt::Expr(expression, Some(_)) => drop(self.eval(expression)?),
            other => panic!("a statement that is not known here: {}", text(other)),
        }
        Ok(Value::Unit)
    }

    pub fn bind(&mut self, pattern: &Pat, value: Value) {
        match (pattern, value) {
            (Pat::Type(typed), value) => self.bind(&typed.pat, as_type(value, &typed.ty)),
            (Pat::Tuple(patterns), Value::Tuple(values)) => {
                for (pattern, value) in patterns.elems.iter().zip(values) {
                    self.bind(pattern, value);
                }
            }
            (pattern, value) => self.scope.push((name_of(pattern), value)),
        }
    }

    pub fn eval(&mut self, expression: &Expr) -> Outcome {
        match expression {
            Expr::Paren(inner) => self.eval(&inner.expr),
            Expr::Block(inner) => self.block(&inner.block),
            Expr::Lit(literal) => Ok(match &literal.lit {
                Lit::Int(number) => match number.suffix() {
                    "" => Value::Literal(number.base10_parse().expect("a number")),
                    ty => as_width(Value::Literal(number.base10_parse().expect("one")), width(ty)),
                },
                Lit::Bool(truth) => Value::Truth(Term::truth(truth.value)),
                other => panic!("a literal that is not known here: {}", text(other)),
            }),
            Expr::Path(path) => Ok(self.name(&text(path))),
            Expr::Tuple(tuple) => {
                let items: Result<_, _> = tuple.elems.iter().map(|item| self.eval(item)).collect();
                items.map(Value::Tuple)
            }
            Expr::Range(range) => {
                let [start, end] = [&range.start, &range.end].map(|end| end.as_ref());
                let start = self.eval(start.expect("a start"))?;
                let end = self.eval(end.expect("an end"))?;
                let (start, end) = alike(start, end);
                Ok(Value::Range(start, end))
            }
            Expr::Unary(unary) => {
                let value = self.eval(&unary.expr)?;
                Ok(match (&unary.op, value) {
                    (UnOp::Not(_), Value::Truth(truth)) => Value::Truth(truth.not()),
                    (UnOp::Not(_), value) => Value::Number(number(&value).flipped()),
                    (UnOp::Deref(_), value) => value,
                    _ => panic!("an operator that is not known here: {}", text(unary)),
                })
            }
            Expr::Reference(reference) => self.eval(&reference.expr),
            Expr::Binary(binary) => self.binary(&binary.left, &binary.op, &binary.right),
            Expr::Assign(assign) => {
                let value = self.eval(&assign.right)?;
                self.assign(&assign.left, value);
                Ok(Value::Unit)
            }
            Expr::If(choice) => match (self.condition(&choice.cond)?, &choice.else_branch) {
                (true, _) => self.block(&choice.then_branch),
                (false, Some((_, other))) => self.eval(other),
                (false, None) => Ok(Value::Unit),
            },
            Expr::Match(choice) => {
                let value = self.eval(&choice.expr)?;
                for arm in &choice.arms {
                    let Pat::Lit(literal) = &arm.pat else {
                        let outer = self.scope.len();
                        self.bind(&arm.pat, value);
                        let result = self.eval(&arm.body);
                        self.scope.truncate(outer);
                        return result;
                    };
                    let literal = self.eval(&Expr::Lit(literal.clone()))?;
                    let (value, literal) = alike(value.clone(), literal);
                    if self.decide(value.equals(literal)) {
                        return self.eval(&arm.body);
                    }
                }
                panic!("a match without an end: {}", text(choice))
            }
            Expr::While(repeat) => self.repeat(&repeat.cond, &repeat.body),
            Expr::Return(exit) => {
                let value = exit.expr.as_ref().map_or(Ok(Value::Unit), |expr| self.eval(expr))?;
                Err(Exit::Return(value))
            }
            Expr::Try(inner) => match self.eval(&inner.expr)? {
                Value::Option(Some(value)) => Ok((*value).clone()),
                Value::Option(None) => Err(Exit::Return(Value::Option(None))),
                other => panic!("no option: {other}"),
            },
            Expr::Cast(cast) => Ok(cast_to(self.eval(&cast.expr)?, &cast.ty)),
            Expr::Closure(closure) => Ok(Value::Closure(Rc::new((*closure.body).clone()))),
            Expr::Field(field) => {
                let value = self.eval(&field.base)?;
                let name = text(&field.member);
                let Value::Struct(_, fields) = value else { panic!("no structure: {value}") };
                let found = fields.iter().find(|(known, _)| *known == name);
                Ok(Value::Number(found.expect("a field that was given").1))
            }
            Expr::Call(call) => self.function(&text(&call.func), &call.args),
            Expr::MethodCall(call) => {
                let receiver = self.eval(&call.receiver)?;
                self.method(receiver, &call.method.to_string(), &call.args)
            }
            Expr::Macro(call) if text(&call.mac) == "cfg!(loom)" => {
                Ok(Value::Truth(Term::truth(false)))
            }
            other => panic!("an expression that is not known here: {}", text(other)),
        }
    }

    pub fn condition(&mut self, expression: &Expr) -> Result<bool, Exit> {
        let value = self.eval(expression)?;
        Ok(self.decide(truth(&value)))
    }

    pub fn repeat(&mut self, condition: &Expr, body: &Block) -> Outcome {
        for round in 0.. {
            self.keep_invariant(round);
            if !self.condition(condition)? {
                break;
            }
            if round == ROUNDS {
                self.require(Term::truth(false), "a loop of more than 64 rounds");
                return Err(Exit::Abandoned);
            }
            self.block(body)?;
        }
        self.is_granted = false;
        Ok(Value::Unit)
    }

    /// The variable has the invariant's value; from here on in these words.
    fn keep_invariant(&mut self, round: usize) {
        let Some(Invariant { variable, value, proved }) = self.invariant.clone() else { return };
        let value = value(round);
        self.is_granted = round < proved;
        let found = number(self.local(variable));
        self.require(found.equals(value), "the invariant does not hold");
        self.is_granted = round + 1 < proved;
        let place = self.scope.iter_mut().rev().find(|(known, _)| known == variable);
        place.expect("a variable").1 = Value::Number(value);
    }

    pub fn name(&mut self, name: &str) -> Value {
        if let Some((_, value)) = self.scope.iter().rev().find(|(known, _)| known == name) {
            return value.clone();
        }
        if name == "None" {
            return Value::Option(None);
        }
        if let Some((ty, limit)) = name.split_once("::") {
            let width = width(ty);
            return Value::Number(match limit {
                "MAX" => Term::constant(u64::MAX, width),
                "BITS" => Term::constant(width.into(), 32),
                _ => panic!("a name that is not known here: {name}"),
            });
        }
        let source = self.source;
        let Some((ty, expression)) = source.constants.get(name) else {
            panic!("a name that is not known here: {name}")
        };
        match self.eval(expression) {
            Ok(value) => as_type(value, ty),
            Err(_) => panic!("{name} is no constant"),
        }
    }

    pub fn assign(&mut self, place: &Expr, value: Value) {
        let name = text(place);
        let found = self.scope.iter_mut().rev().find(|(known, _)| *known == name);
        found.unwrap_or_else(|| panic!("no variable {name}")).1 = value;
    }

    pub fn binary(&mut self, left: &Expr, operator: &BinOp, right: &Expr) -> Outcome {
        let operator = text(operator);
        if operator == "&&" || operator == "||" {
            let goes_on = self.condition(left)? == (operator == "&&");
            let decided = Value::Truth(Term::truth(operator == "||"));
            return if goes_on { self.eval(right) } else { Ok(decided) };
        }
        let one = self.eval(left)?;
        let other = self.eval(right)?;
        let (operator, assigns) = match operator.as_str() {
            "<=" | ">=" | "==" | "!=" => (operator.as_str(), false),
            other => (other.trim_end_matches('='), other.ends_with('=')),
        };
        let value = self.operate(one, operator, other);
        if assigns {
            self.assign(left, value);
            return Ok(Value::Unit);
        }
        Ok(value)
    }

    pub fn operate(&mut self, one: Value, operator: &str, other: Value) -> Value {
        if let (Value::Truth(a), Value::Truth(b)) = (&one, &other) {
            return Value::Truth(match operator {
                "&" => a.and(*b),
                "|" => a.or(*b),
                "==" => a.equals(*b),
                _ => panic!("an operator of truths that is not known here: {operator}"),
            });
        }
        if operator == "<<" || operator == ">>" {
            let a = number(&one);
            let by = number(&other);
            let limit = Term::constant(a.width().into(), by.width());
            self.require(by.is("bvult", limit), "a shift by too much");
            let shift = if operator == "<<" { "bvshl" } else { "bvlshr" };
            return Value::Number(a.with(shift, by.resized(a.width())));
        }
        let are_literals = matches!((&one, &other), (Value::Literal(_), Value::Literal(_)));
        let (a, b) = alike(one, other);
        let zero = Term::constant(0, a.width());
        let (result, defined) = match operator {
            "&" => (a.with("bvand", b), None),
            "|" => (a.with("bvor", b), None),
            "+" => (a.with("bvadd", b), Some(a.is("bvule", a.with("bvadd", b)))),
            "-" => (a.with("bvsub", b), Some(b.is("bvule", a))),
            "*" => (a.with("bvmul", b), Some(a.is(EXACT, b))),
            "/" => (a.with("bvudiv", b), Some(b.equals(zero).not())),
            "%" => (a.with("bvurem", b), Some(b.equals(zero).not())),
            "==" => return Value::Truth(a.equals(b)),
            "!=" => return Value::Truth(a.equals(b).not()),
            "<" => return Value::Truth(a.is("bvult", b)),
            "<=" => return Value::Truth(a.is("bvule", b)),
            ">" => return Value::Truth(b.is("bvult", a)),
            ">=" => return Value::Truth(b.is("bvule", a)),
            _ => panic!("an operator that is not known here: {operator}"),
        };
        if let Some(defined) = defined {
            self.require(defined, "an overflow");
        }
        match result.value() {
            Some(value) if are_literals => Value::Literal(value),
            _ => Value::Number(result),
        }
    }
}

/// `name` of `name` or `mut name`.
pub fn name_of(pattern: &Pat) -> String {
    match pattern {
        Pat::Ident(name) => name.ident.to_string(),
        other => panic!("a pattern that is not known here: {}", text(other)),
    }
}

/// A piece of source without its spaces.
pub fn text(tokens: &impl ToTokens) -> String {
    tokens.to_token_stream().to_string().replace(' ', "")
}

pub fn width(ty: &str) -> u32 {
    match ty {
        "u8" => 8,
        "u32" => 32,
        "u64" | "usize" => 64,
        other => panic!("a type that is not known here: {other}"),
    }
}

pub fn as_width(value: Value, width: u32) -> Value {
    match value {
        Value::Literal(value) => Value::Number(Term::constant(value, width)),
        Value::Number(term) => {
            assert_eq!(term.width(), width, "a number of another type");
            value
        }
        other => other,
    }
}

/// A literal takes the type that is declared.
pub fn as_type(value: Value, ty: &Type) -> Value {
    match (&value, ty) {
        (Value::Literal(_) | Value::Number(_), Type::Path(ty)) => as_width(value, width(&text(ty))),
        _ => value,
    }
}

pub fn cast_to(value: Value, ty: &Type) -> Value {
    Value::Number(match value {
        Value::Truth(truth) => {
            let width = width(&text(ty));
            truth.choose(Term::constant(1, width), Term::constant(0, width))
        }
        value => number(&value).resized(width(&text(ty))),
    })
}

pub fn number(value: &Value) -> Term {
    match value {
        Value::Number(term) => *term,
        Value::Literal(value) => Term::constant(*value, 64),
        other => panic!("no number: {other}"),
    }
}

pub fn truth(value: &Value) -> Term {
    match value {
        Value::Truth(truth) => *truth,
        other => panic!("no truth: {other}"),
    }
}

/// Two numbers of one type: a literal has that of the other.
pub fn alike(one: Value, other: Value) -> (Term, Term) {
    match (&one, &other) {
        (Value::Literal(value), Value::Number(term)) => {
            (Term::constant(*value, term.width()), *term)
        }
        (Value::Number(term), Value::Literal(value)) => {
            (*term, Term::constant(*value, term.width()))
        }
        _ => (number(&one), number(&other)),
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unit => f.write_str("()"),
            Self::Truth(term) | Self::Number(term) => match term.value() {
                Some(value) if term.width() == 64 => write!(f, "{value:#x}"),
                Some(value) => write!(f, "{value}"),
                None => f.write_str("?"),
            },
            Self::Literal(value) => write!(f, "{value}"),
            Self::Option(None) => f.write_str("None"),
            Self::Option(Some(value)) => write!(f, "Some({value})"),
            Self::Tuple(values) => {
                let values: Vec<_> = values.iter().map(ToString::to_string).collect();
                write!(f, "({})", values.join(", "))
            }
            Self::Struct(name, _) => f.write_str(name),
            Self::Range(..) | Self::Closure(_) | Self::Iterator(..) => f.write_str("…"),
        }
    }
}
