//! What the data runners share about a file of cases: the cases in it, numbers as they are
//! written there, and how a case came out.

use serde::de::{Deserialize, Deserializer, Error};
use serde_json::Value;

/// A number, written as an integer, or as a string with a hexadecimal (`"0x1f"`) or decimal one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Number(pub u64);

impl Number {
    fn parse(text: &str) -> Option<Self> {
        let digits = text.trim().replace('_', "");
        let hex = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X"));
        hex.map_or_else(|| digits.parse(), |hex| u64::from_str_radix(hex, 16)).ok().map(Self)
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let number = match &value {
            Value::Number(number) => number.as_u64().map(Self),
            Value::String(text) => Self::parse(text),
            _ => None,
        };
        number.ok_or_else(|| D::Error::custom(format!("{value} is not a number of 64 bits")))
    }
}

/// How one case came out: `Err` says in words what differs.
pub struct Outcome {
    pub name: String,
    pub result: Result<(), String>,
}

/// The cases of a file, or why it can't be read as one.
pub fn cases(file: &Value) -> Result<&[Value], String> {
    let cases = file.get("cases").and_then(Value::as_array);
    cases.map(Vec::as_slice).ok_or_else(|| "there is no list of `cases` in it".to_owned())
}

/// What to call a case: its `name`, or else its place in the file.
pub fn name(case: &Value, index: usize) -> String {
    let name = case.get("name").and_then(Value::as_str);
    name.map_or_else(|| format!("case {index}"), str::to_owned)
}
