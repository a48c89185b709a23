//! Operators, which say what would overflow; literals, which take the type of what they meet.

use syn::{BinOp, Expr, Lit};

use crate::run::{Outcome, Run};
use crate::source::text;
use crate::terms::{EXACT, Term};
use crate::value::{Value, alike, are_equal, number, width};

impl Run<'_> {
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
        if assigns { self.assign(left, value) } else { Ok(value) }
    }

    fn operate(&mut self, one: Value, operator: &str, other: Value) -> Value {
        match operator {
            "==" => return Value::Truth(are_equal(&one, &other)),
            "!=" => return Value::Truth(are_equal(&one, &other).not()),
            _ => {}
        }
        if let (Value::Truth(a), Value::Truth(b)) = (&one, &other) {
            return Value::Truth(match operator {
                "&" => a.and(*b),
                "|" => a.or(*b),
                _ => panic!("an operator of truths that is not known here: {operator}"),
            });
        }
        let are_literals = matches!((&one, &other), (Value::Literal(_), Value::Literal(_)));
        let is_signed = matches!(one, Value::Signed(_));
        let (result, defined, why) = if operator == "<<" || operator == ">>" {
            let (a, by) = (number(&one), number(&other));
            let limit = Term::constant(a.width().into(), by.width());
            let shift = match (operator, is_signed) {
                ("<<", _) => "bvshl",
                (_, true) => "bvashr",
                _ => "bvlshr",
            };
            let result = a.with(shift, by.resized(a.width()));
            (result, Some(by.is("bvult", limit)), "a shift by too much")
        } else {
            let (one, other) = (one.inner(), other.inner());
            assert!(!is_signed, "an operator of signed numbers that is not known here: {operator}");
            let (a, b) = alike(one, other);
            let zero = Term::constant(0, a.width());
            let (result, defined) = match operator {
                "&" => (a.with("bvand", b), None),
                "|" => (a.with("bvor", b), None),
                "^" => (a.with("bvxor", b), None),
                "+" => (a.with("bvadd", b), Some(a.is("bvule", a.with("bvadd", b)))),
                "-" => (a.with("bvsub", b), Some(b.is("bvule", a))),
                "*" => (a.with("bvmul", b), Some(a.is(EXACT, b))),
                "/" => (a.with("bvudiv", b), Some(b.equals(zero).not())),
                "%" => (a.with("bvurem", b), Some(b.equals(zero).not())),
                "<" => return Value::Truth(a.is("bvult", b)),
                "<=" => return Value::Truth(a.is("bvule", b)),
                ">" => return Value::Truth(b.is("bvult", a)),
                ">=" => return Value::Truth(b.is("bvule", a)),
                _ => panic!("an operator that is not known here: {operator}"),
            };
            (result, defined, "an overflow")
        };
        if let Some(defined) = defined {
            self.require(defined, why);
        }
        match result.value() {
            Some(value) if are_literals => Value::Literal(value),
            _ if is_signed => Value::Signed(result),
            _ => Value::Number(result),
        }
    }
}

pub fn literal_value(literal: &Lit) -> Value {
    match literal {
        Lit::Int(number) => {
            let value = number.base10_parse().expect("a number");
            match number.suffix() {
                "" => Value::Literal(value),
                ty => Value::Number(Term::constant(value, width(ty))),
            }
        }
        Lit::Bool(truth) => Value::Truth(Term::truth(truth.value)),
        other => panic!("a literal that is not known here: {}", text(other)),
    }
}

/// Literals among them have the type of the others.
pub fn array_of(values: Vec<Value>) -> Value {
    let known = values.iter().find(|value| matches!(value, Value::Number(_))).cloned();
    let alike = |value: Value| match (&known, value) {
        (Some(known), value @ Value::Literal(_)) => Value::Number(alike(&value, known).0),
        (_, value) => value,
    };
    Value::Array(values.into_iter().map(alike).collect())
}
