//! What is proved of each function: that its bits, one by one, or its answer, by search, are what
//! the words of its description say; and variants of it that are wrong, which are to be refuted.

pub mod bits;
pub mod frames;
pub mod node;
pub mod packed;
pub mod request;
pub mod tree;

use std::path::{Path, PathBuf};

use crate::run::Run;
use crate::source::Source;
use crate::terms::Term;
use crate::value::{Value, number};

/// A function of `src/`, what is claimed of it, and wrong variants: what is replaced, by what.
pub struct Proof {
    pub file: &'static str,
    pub function: &'static str,
    pub claim: fn(&Source) -> Result<(), String>,
    pub wrong: &'static [(&'static str, &'static str)],
}

/// All of them, those that take long first.
pub fn all() -> impl Iterator<Item = &'static Proof> {
    let files = [request::PROOFS, bits::PROOFS, node::PROOFS, frames::PROOFS];
    files.into_iter().chain([packed::PROOFS, tree::PROOFS]).flatten()
}

/// What the others stand on.
const GROUND: [&str; 5] = ["geometry.rs", "bits.rs", "frame/number.rs", "node.rs", "directory.rs"];

pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn read(file: &str) -> String {
    std::fs::read_to_string(folder().join(file)).unwrap_or_else(|why| panic!("src/{file}: {why}"))
}

impl Proof {
    /// Tries to prove it of the source as it is.
    pub fn check(&self) -> Result<(), String> {
        self.check_of(&read(self.file))
    }

    fn check_of(&self, text: &str) -> Result<(), String> {
        let below = GROUND.iter().filter(|file| **file != self.file).map(|file| read(file));
        let texts: Vec<_> = below.chain([text.to_owned()]).collect();
        (self.claim)(&Source::parse(&texts))
    }

    /// Tries to prove it of the wrong variants: what is wrong with each, `None` if nothing is.
    pub fn refute(&self) -> impl Iterator<Item = (&'static str, Option<String>)> {
        let text = read(self.file);
        let at = self.begin(&text);
        self.wrong.iter().map(move |(right, wrong)| {
            let (above, below) = text.split_at(at);
            assert!(below.contains(right), "{} has no `{right}`", self.function);
            let changed = format!("{above}{}", below.replacen(right, wrong, 1));
            (*wrong, self.check_of(&changed).err())
        })
    }

    /// Where the function begins in its file.
    fn begin(&self, text: &str) -> usize {
        let (owner, name) = self.function.split_once("::").unwrap_or(("", self.function));
        let block = text.match_indices("\nimpl").map(|(at, _)| at).find(|at| {
            let head = text[*at..].split('{').next().expect("a head");
            head.split(|c: char| !c.is_alphanumeric()).any(|word| word == owner)
                && text[*at..].contains(&format!("fn {name}"))
        });
        let block = if owner.is_empty() { 0 } else { block.expect("the type's functions") };
        let head = format!("fn {name}");
        let mut places = text[block..].match_indices(&head).map(|(at, _)| block + at);
        let is_whole = |at: &usize| text[at + head.len()..].starts_with(['(', '<']);
        places.find(is_whole).unwrap_or_else(|| panic!("src/{}: no {}", self.file, self.function))
    }
}

pub fn n32(value: u32) -> Term {
    Term::constant(value.into(), 32)
}

pub fn n64(value: u64) -> Term {
    Term::constant(value, 64)
}

pub fn at_most(one: Term, other: Term) -> Term {
    one.is("bvule", other)
}

pub fn less(one: Term, other: Term) -> Term {
    one.is("bvult", other)
}

/// Whether the bits of `word` are exactly those for which `claim` holds.
pub fn bits_are(word: Term, claim: impl Fn(u32) -> Term) -> Term {
    Term::all((0..64).map(|index| word.bit(index).equals(claim(index))))
}

/// What a function says of these numbers.
pub fn call(run: &mut Run<'_>, name: &str, arguments: &[Term]) -> Value {
    let arguments: Vec<_> = arguments.iter().copied().map(Value::Number).collect();
    run.call(name, &arguments)
}

/// A number that a structure or tuple holds.
pub fn field(value: &Value, name: &str) -> Term {
    number(value.field(name))
}

/// The number that a function says; some other one on a way that is given up.
pub fn value_of(run: &mut Run<'_>, name: &str, arguments: &[Term]) -> Term {
    match call(run, name, arguments) {
        Value::Unit => n64(0),
        value => number(&value),
    }
}
