//! What an expression of the source is worth, when numbers may be unknown.

use std::fmt;
use std::rc::Rc;

use syn::{Expr, GenericArgument, PathArguments, Type};

use crate::source::text;
use crate::terms::Term;

/// What an expression is worth.
#[derive(Clone)]
pub enum Value {
    Unit,
    Truth(Term),
    Number(Term),
    /// An `i64`.
    Signed(Term),
    /// A literal, whose type is that of what it meets.
    Literal(u64),
    /// A variant of an enumeration without data, by its number.
    Enum(String, Term),
    Option(Option<Rc<Value>>),
    Result(Result<Rc<Value>, Rc<Value>>),
    Tuple(Vec<Value>),
    Array(Vec<Value>),
    Range(Term, Term),
    Struct(String, Vec<(String, Value)>),
    Closure(Rc<Expr>),
    Iterator(Rc<Expr>, Scope),
}

/// The local variables, the innermost last.
pub type Scope = Vec<(String, Value)>;

impl Value {
    /// A structure of numbers.
    pub fn of<const N: usize>(name: &str, fields: [(&str, Term); N]) -> Self {
        let fields = fields.map(|(name, term)| (name.to_owned(), Self::Number(term)));
        Self::Struct(name.to_owned(), fields.to_vec())
    }

    /// What a structure of one field holds; anything else is itself.
    pub fn inner(&self) -> &Self {
        match self {
            Self::Struct(_, fields) if fields.len() == 1 => fields[0].1.inner(),
            _ => self,
        }
    }

    pub fn field(&self, name: &str) -> &Self {
        match self {
            Self::Struct(_, fields) => {
                let found = fields.iter().find(|(known, _)| *known == name);
                &found.unwrap_or_else(|| panic!("no field {name}")).1
            }
            Self::Tuple(values) => &values[name.parse::<usize>().expect("a number")],
            other => panic!("no structure: {other}"),
        }
    }
}

/// How many bits a number of this type has.
pub fn width(ty: &str) -> u32 {
    match ty {
        "u8" => 8,
        "u16" => 16,
        "u32" => 32,
        "u64" | "usize" | "i64" => 64,
        other => panic!("a type that is not known here: {other}"),
    }
}

fn as_width(value: Value, width: u32) -> Value {
    match value {
        Value::Literal(value) => Value::Number(Term::constant(value, width)),
        Value::Number(term) => {
            assert_eq!(term.width(), width, "a number of another type");
            value
        }
        other => other,
    }
}

/// A literal takes the type that is declared, also inside.
pub fn as_type(value: Value, ty: &Type) -> Value {
    match (value, ty) {
        (value @ (Value::Literal(_) | Value::Number(_)), Type::Path(ty)) => {
            as_width(value, width(&text(ty)))
        }
        (Value::Option(Some(value)), Type::Path(ty)) => {
            let last = ty.path.segments.last().expect("a name");
            match &last.arguments {
                PathArguments::AngleBracketed(of) => match of.args.first() {
                    Some(GenericArgument::Type(of)) => {
                        Value::Option(Some(Rc::new(as_type((*value).clone(), of))))
                    }
                    _ => Value::Option(Some(value)),
                },
                _ => Value::Option(Some(value)),
            }
        }
        (Value::Tuple(values), Type::Tuple(types)) => {
            let values = values.into_iter().zip(&types.elems);
            Value::Tuple(values.map(|(value, ty)| as_type(value, ty)).collect())
        }
        (value, _) => value,
    }
}

pub fn cast_to(value: Value, ty: &Type) -> Value {
    let width = width(&text(ty));
    Value::Number(match value {
        Value::Truth(truth) => truth.choose(Term::constant(1, width), Term::constant(0, width)),
        Value::Enum(_, number) => number.resized(width),
        value => number(&value).resized(width),
    })
}

pub fn number(value: &Value) -> Term {
    match value {
        Value::Number(term) | Value::Signed(term) => *term,
        Value::Literal(value) => Term::constant(*value, 64),
        Value::Struct(_, fields) if fields.len() == 1 => number(&fields[0].1),
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
pub fn alike(one: &Value, other: &Value) -> (Term, Term) {
    match (one, other) {
        (Value::Literal(value), Value::Number(term) | Value::Signed(term)) => {
            (Term::constant(*value, term.width()), *term)
        }
        (Value::Number(term) | Value::Signed(term), Value::Literal(value)) => {
            (*term, Term::constant(*value, term.width()))
        }
        _ => (number(one), number(other)),
    }
}

/// Whether two values of one type are the same.
pub fn are_equal(one: &Value, other: &Value) -> Term {
    let all = |ones: &mut dyn Iterator<Item = (&Value, &Value)>| {
        Term::all(ones.map(|(one, other)| are_equal(one, other)))
    };
    match (one, other) {
        (Value::Unit, Value::Unit) => Term::truth(true),
        (Value::Truth(a), Value::Truth(b)) | (Value::Enum(_, a), Value::Enum(_, b)) => a.equals(*b),
        (Value::Struct(name, ones), Value::Struct(other, others)) if name == other => {
            all(&mut ones.iter().zip(others).map(|((_, one), (_, other))| (one, other)))
        }
        (Value::Tuple(ones), Value::Tuple(others)) => all(&mut ones.iter().zip(others)),
        (Value::Option(one), Value::Option(other)) => match (one, other) {
            (Some(one), Some(other)) => are_equal(one, other),
            (one, other) => Term::truth(one.is_none() && other.is_none()),
        },
        _ => {
            let (one, other) = alike(one, other);
            one.equals(other)
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |values: &[Value]| {
            values.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        };
        match self {
            Self::Unit => f.write_str("()"),
            Self::Truth(term) => match term.value() {
                Some(value) => write!(f, "{}", value != 0),
                None => f.write_str("?"),
            },
            Self::Number(term) | Self::Signed(term) => match term.value() {
                Some(value) if term.width() == 64 => write!(f, "{value:#x}"),
                Some(value) => write!(f, "{value}"),
                None => f.write_str("?"),
            },
            Self::Literal(value) => write!(f, "{value}"),
            Self::Enum(name, term) => match term.value() {
                Some(value) => write!(f, "{name} {value}"),
                None => write!(f, "{name} ?"),
            },
            Self::Option(None) => f.write_str("None"),
            Self::Option(Some(value)) => write!(f, "Some({value})"),
            Self::Result(Ok(value)) => write!(f, "Ok({value})"),
            Self::Result(Err(value)) => write!(f, "Err({value})"),
            Self::Tuple(values) => write!(f, "({})", list(values)),
            Self::Array(values) => write!(f, "[{}]", list(values)),
            Self::Struct(name, fields) => {
                let values: Vec<_> = fields.iter().map(|(_, value)| value.clone()).collect();
                write!(f, "{name}({})", list(&values))
            }
            Self::Range(..) | Self::Closure(_) | Self::Iterator(..) => f.write_str("…"),
        }
    }
}
