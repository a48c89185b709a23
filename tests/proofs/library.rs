//! What the functions use of Rust's library and of `bit_field`.

use std::rc::Rc;

use crate::run::{Exit, Outcome, Run};
use crate::terms::Term;
use crate::value::{Value, alike, number, truth};

impl Run<'_> {
    /// A function, a closure in a variable or what makes a structure, by its name.
    pub fn named(&mut self, name: &str, mut values: Vec<Value>) -> Outcome {
        let own = self.own(name);
        if let Some((_, closure)) = self.scope.iter().rev().find(|(known, _)| known == name) {
            let closure = closure.clone();
            return self.apply(&closure, values);
        }
        match name {
            "Some" => Ok(Value::Option(Some(Rc::new(values.remove(0))))),
            "Ok" => Ok(Value::Result(Ok(Rc::new(values.remove(0))))),
            "Err" => Ok(Value::Result(Err(Rc::new(values.remove(0))))),
            "core::iter::from_fn" => match values.remove(0) {
                Value::Closure(step) => Ok(Value::Iterator(step, self.scope.clone())),
                other => panic!("no closure: {other}"),
            },
            "u64::from" | "u32::from" => {
                let width = crate::value::width(&name[..3]);
                Ok(match &values[0] {
                    Value::Truth(truth) => Value::Number(
                        truth.choose(Term::constant(1, width), Term::constant(0, width)),
                    ),
                    value => Value::Number(number(value).resized(width)),
                })
            }
            _ if self.source.structs.contains_key(&own) => {
                let fields = values.into_iter().enumerate().map(|(index, value)| {
                    let field = index.to_string();
                    let value = self.as_field(&own, &field, value);
                    (field, value)
                });
                Ok(Value::Struct(own.clone(), fields.collect()))
            }
            _ => self.invoke(&own, values),
        }
    }

    pub fn method(&mut self, value: Value, name: &str, mut values: Vec<Value>) -> Outcome {
        match &value {
            // What is derived of the order of the one field.
            Value::Struct(owner, fields) if name == "min" || name == "max" => {
                let (field, inner) = &fields[0];
                let least = self.method_of_number(inner, name, &[values[0].inner().clone()])?;
                Ok(Value::Struct(owner.clone(), vec![(field.clone(), least)]))
            }
            Value::Struct(owner, _) | Value::Enum(owner, _) => {
                let name = format!("{owner}::{name}");
                values.insert(0, value);
                self.invoke(&name, values)
            }
            Value::Truth(condition) => {
                if !self.decide(*condition) {
                    return Ok(Value::Option(None));
                }
                let inner = match name {
                    "then" => self.apply(&values[0], Vec::new())?,
                    "then_some" => values.remove(0),
                    _ => panic!("a method of truths that is not known here: {name}"),
                };
                Ok(Value::Option(Some(Rc::new(inner))))
            }
            Value::Option(option) => {
                let inner = option.as_ref().map(|inner| (**inner).clone());
                match (name, inner) {
                    ("map", Some(inner)) => {
                        // `map(|()| ..)` gets what an assignment is worth.
                        let result = self.apply(&values[0], vec![inner])?;
                        Ok(Value::Option(Some(Rc::new(result))))
                    }
                    ("map", None) => Ok(Value::Option(None)),
                    ("unwrap_or", Some(inner)) => Ok(inner),
                    ("unwrap_or", None) => Ok(values.remove(0)),
                    _ => panic!("a method of options that is not known here: {name}"),
                }
            }
            Value::Array(items) => match name {
                "into_iter" | "iter" => Ok(value),
                "map" => {
                    let items: Result<_, _> = items
                        .iter()
                        .map(|item| self.apply(&values[0], vec![item.clone()]))
                        .collect();
                    items.map(Value::Array)
                }
                "find" => {
                    for item in items {
                        let is_it = self.apply(&values[0], vec![item.clone()])?;
                        if self.decide(truth(&is_it)) {
                            return Ok(Value::Option(Some(Rc::new(item.clone()))));
                        }
                    }
                    Ok(Value::Option(None))
                }
                _ => panic!("a method of arrays that is not known here: {name}"),
            },
            _ => self.method_of_number(&value, name, &values),
        }
    }

    fn method_of_number(&mut self, value: &Value, name: &str, values: &[Value]) -> Outcome {
        if let Some(known) = self.known(name, std::slice::from_ref(value)) {
            return Ok(known);
        }
        let word = number(value);
        let zero = Term::constant(0, word.width());
        let one = Term::constant(1, word.width());
        let other = || alike(value, &values[0]).1;
        Ok(Value::Number(match name {
            "trailing_zeros" => word.trailing_zeros(),
            "trailing_ones" => word.flipped().trailing_zeros(),
            "leading_ones" => word.flipped().leading_zeros(),
            "count_ones" => word.count_ones(),
            "is_power_of_two" => {
                let others = word.with("bvand", word.with("bvsub", one));
                return Ok(Value::Truth(word.equals(zero).not().and(others.equals(zero))));
            }
            "is_multiple_of" => {
                let other = other();
                let rest = word.with("bvurem", other);
                // Of zero only zero is one.
                return Ok(Value::Truth(
                    other.equals(zero).choose(word.equals(zero), rest.equals(zero)),
                ));
            }
            "div_ceil" => {
                let other = other();
                self.require(other.equals(zero).not(), "a division by zero");
                let rest = word.with("bvurem", other).equals(zero).choose(zero, one);
                word.with("bvudiv", other).with("bvadd", rest)
            }
            "ilog2" => {
                self.require(word.equals(zero).not(), "a logarithm of zero");
                let most = Term::constant(u64::from(word.width()) - 1, 32);
                most.with("bvsub", word.leading_zeros())
            }
            "cast_signed" => return Ok(Value::Signed(word)),
            "cast_unsigned" => word,
            "wrapping_add" => word.with("bvadd", other()),
            "wrapping_mul" => word.with("bvmul", other()),
            "wrapping_sub" => word.with("bvsub", other()),
            "wrapping_neg" => zero.with("bvsub", word),
            "min" => word.is("bvule", other()).choose(word, other()),
            "max" => word.is("bvule", other()).choose(other(), word),
            "saturating_add" => {
                let sum = word.with("bvadd", other());
                let most = Term::constant(u64::MAX, word.width());
                word.is("bvule", sum).choose(sum, most)
            }
            "saturating_mul" => {
                let most = Term::constant(u64::MAX, word.width());
                word.is(crate::terms::EXACT, other()).choose(word.with("bvmul", other()), most)
            }
            "get_bit" => {
                let at = number(&values[0]);
                self.require(at.is("bvult", Term::constant(64, 64)), "a bit out of the word");
                let bit = word.with("bvlshr", at.resized(word.width())).bit(0);
                return Ok(Value::Truth(bit));
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
        let above = self.bits_above(word, start, end);
        let low = word.with("bvshl", above).with("bvlshr", above);
        Ok::<_, Exit>(Value::Number(low.with("bvlshr", start)))
    }

    fn bits_above(&mut self, word: Term, start: Term, end: Term) -> Term {
        let bits = Term::constant(word.width().into(), 64);
        let is_sound = start.is("bvult", end).and(end.is("bvule", bits));
        self.require(is_sound, "bits out of the word");
        bits.with("bvsub", end)
    }

    /// `set_bits` and `set_bit` of a variable; they panic if the value does not fit.
    pub fn set_bits(&mut self, variable: String, arguments: &[Value]) -> Outcome {
        let word = number(self.local(&variable));
        let (start, end, value) = match (&arguments[0], &arguments[1]) {
            (Value::Range(start, end), value) => (*start, *end, number(value)),
            (at, value) => {
                let start = number(at);
                let end = start.with("bvadd", Term::constant(1, 64));
                (start, end, truth(value).choose(Term::constant(1, 64), Term::constant(0, 64)))
            }
        };
        self.bits_above(word, start, end);
        let len = end.with("bvsub", start);
        let room = Term::constant(64, 64).with("bvsub", len);
        let cut = value.with("bvshl", room).with("bvlshr", room);
        self.require(cut.equals(value), "a value that does not fit into its bits");
        let ones = Term::constant(u64::MAX, 64).with("bvlshr", room).with("bvshl", start);
        let others = word.with("bvand", ones.flipped());
        let word = others.with("bvor", value.with("bvshl", start));
        *self.local_mut(&variable) = Value::Number(word);
        Ok(Value::Unit)
    }
}
