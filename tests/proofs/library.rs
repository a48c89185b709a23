//! What the word functions use of Rust's library and of `bit_field`.

use std::rc::Rc;

use syn::Expr;
use syn::punctuated::Punctuated;
use syn::token::Comma;

use crate::source::{Exit, Outcome, Run, Value, alike, number, width};
use crate::terms::Term;

type Arguments = Punctuated<Expr, Comma>;

impl Run<'_> {
    pub fn function(&mut self, name: &str, arguments: &Arguments) -> Outcome {
        let mut values = Vec::new();
        for argument in arguments {
            values.push(self.eval(argument)?);
        }
        match name {
            "Some" => Ok(Value::Option(Some(Rc::new(values.remove(0))))),
            "core::iter::from_fn" => match values.remove(0) {
                Value::Closure(step) => Ok(Value::Iterator(step, self.scope.clone())),
                other => panic!("no closure: {other}"),
            },
            "u64::from" => Ok(Value::Number(number(&values[0]).resized(64))),
            _ => self.invoke(name, values),
        }
    }

    pub fn method(&mut self, value: Value, name: &str, arguments: &Arguments) -> Outcome {
        let mut values = Vec::new();
        for argument in arguments {
            values.push(self.eval(argument)?);
        }
        match &value {
            Value::Struct(..) => {
                values.insert(0, value);
                return self.invoke(name, values);
            }
            Value::Truth(truth) if name == "then" => {
                if !self.decide(*truth) {
                    return Ok(Value::Option(None));
                }
                let Value::Closure(body) = &values[0] else { panic!("no closure") };
                return Ok(Value::Option(Some(Rc::new(self.eval(body)?))));
            }
            _ => {}
        }
        let word = number(&value);
        let other = |values: &[Value]| alike(value.clone(), values[0].clone()).1;
        Ok(Value::Number(match name {
            "trailing_zeros" => word.trailing_zeros(),
            "trailing_ones" => word.flipped().trailing_zeros(),
            "count_ones" => word.count_ones(),
            "wrapping_mul" => word.with("bvmul", other(&values)),
            "wrapping_sub" => word.with("bvsub", other(&values)),
            "wrapping_neg" => Term::constant(0, word.width()).with("bvsub", word),
            "min" => word.is("bvule", other(&values)).choose(word, other(&values)),
            "max" => word.is("bvule", other(&values)).choose(other(&values), word),
            "saturating_add" => {
                let sum = word.with("bvadd", other(&values));
                let most = Term::constant(u64::MAX, word.width());
                word.is("bvule", sum).choose(sum, most)
            }
            "get_bits" => {
                let Value::Range(start, end) = values[0] else { panic!("no range") };
                return self.get_bits(word, start, end);
            }
            _ => panic!("a method that is not known here: {name}"),
        }))
    }

    /// `bit_field::BitField::get_bits`, which panics for a range that is empty or out of the word.
    fn get_bits(&mut self, word: Term, start: Term, end: Term) -> Outcome {
        let bits = Term::constant(word.width().into(), width("usize"));
        let is_sound = start.is("bvult", end).and(end.is("bvule", bits));
        self.require(is_sound, "bits out of the word");
        let above = bits.with("bvsub", end);
        let low = word.with("bvshl", above).with("bvlshr", above);
        Ok::<_, Exit>(Value::Number(low.with("bvlshr", start)))
    }
}
