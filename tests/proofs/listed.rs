//! Which functions of `src/` are to be proved: those that take numbers and nothing else, and
//! compute something.
//!
//! Numbers are `u64`, `usize` and the like, truths, and tuples, arrays and `Copy` structures of
//! them; one of 64 bits is to be among them. Of a `Copy` receiver that holds other things too the
//! body may read numbers by name. To compute is to have an operator, a method call, a condition or
//! a loop.

use std::collections::BTreeMap;
use std::path::Path;

use syn::visit::{Visit, visit_expr};
use syn::{Attribute, Block, Expr, FnArg, ImplItem, Item, Signature, Type};

use crate::claims::folder;
use crate::source::{fields_of, name_of_type, text};

/// Functions that are not proved, and why.
pub const REASONS: &[(&str, &[(&str, &str)])] = &[
    (
        "a sum of sizes of types, which are not in the source",
        &[
            ("arena.rs", "part"),
            ("hardened/ledger.rs", "Ledger::bytes"),
            ("hardened/ledger.rs", "Ledgers::bytes"),
            ("hardened/mod.rs", "Hardened::bytes"),
            ("layout.rs", "Layout::bytes"),
            ("layout.rs", "Layout::frames"),
            ("layout.rs", "Layout::ledger_bytes"),
            ("stock.rs", "Size::bytes"),
            ("tree/init.rs", "Plan::bytes"),
        ],
    ),
    (
        "one operator, or a sum: a claim would be the same line once more",
        &[
            ("frame/number.rs", "NumberRange::is_empty"),
            ("frame/number.rs", "NumberRange::len"),
            ("frame/number.rs", "NumberRange::one"),
            ("hardened/ledger.rs", "words"),
            ("journal.rs", "Journal::count_for"),
            ("map.rs", "MemoryMap::entries_needed"),
            ("observe.rs", "stretch"),
            ("pool/shared.rs", "range"),
            ("request.rs", "Request::is_limited"),
            ("request.rs", "Request::plain_within_a_word"),
            ("request.rs", "Rule::is_loose"),
            ("tree/isolate.rs", "between"),
        ],
    ),
    (
        "one field is set; the rest is `Request::settled`",
        &[
            ("request.rs", "Request::above"),
            ("request.rs", "Request::align"),
            ("request.rs", "Request::below"),
            ("request.rs", "Request::new"),
            ("request.rs", "Request::not_crossing"),
            ("request.rs", "Request::with_count"),
        ],
    ),
    (
        "it tells somebody, and computes nothing else",
        &[("frame/owner.rs", "lose"), ("observe.rs", "Stats::meminfo")],
    ),
    (
        "a table of codes: what stands there is what is meant",
        &[
            ("boot/e820.rs", "Entry::meaning"),
            ("boot/e820.rs", "Entry::region"),
            ("boot/limine.rs", "region"),
        ],
    ),
    (
        "an iterator over ranges, which the interpreter does not know",
        &[("directory.rs", "sections"), ("stock.rs", "pieces")],
    ),
    ("its Layout is that of core, which is no number", &[("heap.rs", "frames_of")]),
    ("a hash, which its own test compares with known numbers", &[("tree/seal.rs", "mix")]),
    ("it holds what others say", &[("tree/runs.rs", "Seeker::new")]),
];

/// Files that are tests: they need the crate's inside.
const TESTS: [&str; 7] =
    ["models", "costs.rs", "counts.rs", "deaths.rs", "faults.rs", "nesting.rs", "schedules.rs"];

const NARROW: [&str; 5] = ["u8", "u16", "u32", "i32", "bool"];
const WIDE: [&str; 3] = ["u64", "i64", "usize"];

/// A file of `src/`, and the types that it declares.
struct File {
    path: String,
    items: Vec<Item>,
}

/// By name or number.
type Fields = Vec<(String, Type)>;

/// What is known of types, by name and file: the fields of `Copy` structures, none of an
/// enumeration without data; nothing of others.
#[derive(Default)]
struct Types {
    known: BTreeMap<(String, String), Option<Fields>>,
}

/// How much of a number a type is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Narrow,
    Wide,
    Other,
}

/// The functions to be proved, each with its file.
pub fn functions() -> Vec<(String, String)> {
    let mut files = Vec::new();
    read(&folder(), &mut files);
    let mut types = Types::default();
    files.iter().for_each(|file| types.learn(file));
    let mut found = Vec::new();
    for File { path, items } in &files {
        let mut look = |owner: &str, signature: &Signature, block: &Block| {
            if types.is_listed(path, owner, signature, block) {
                let name = &signature.ident;
                let name =
                    if owner.is_empty() { name.to_string() } else { format!("{owner}::{name}") };
                found.push((path.clone(), name));
            }
        };
        for item in items {
            match item {
                Item::Fn(function) if !is_for_tests(&function.attrs) => {
                    look("", &function.sig, &function.block);
                }
                Item::Impl(block) if !is_for_tests(&block.attrs) => {
                    let owner = name_of_type(&block.self_ty);
                    for item in &block.items {
                        if let ImplItem::Fn(method) = item
                            && !is_for_tests(&method.attrs)
                        {
                            look(&owner, &method.sig, &method.block);
                        }
                    }
                }
                _ => {}
            }
        }
    }
    found
}

fn read(folder_: &Path, files: &mut Vec<File>) {
    let entries = std::fs::read_dir(folder_).expect("a folder");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    for path in paths {
        let name = path.strip_prefix(folder()).expect("below it").to_str().expect("plain");
        if TESTS.contains(&name) {
            continue;
        }
        if path.is_dir() {
            read(&path, files);
        } else if name.ends_with(".rs") {
            let text = std::fs::read_to_string(&path).expect("a source file");
            let items = syn::parse_file(&text).expect("Rust").items;
            files.push(File { path: name.to_owned(), items });
        }
    }
}

fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let text = text(attribute);
        text == "#[test]"
            || text.starts_with("#[cfg(") && (text.contains("(test") || text.contains(",test"))
    })
}

fn is_copy(attributes: &[Attribute]) -> bool {
    attributes.iter().map(text).any(|text| text.starts_with("#[derive(") && text.contains("Copy"))
}

impl Types {
    fn learn(&mut self, File { path, items }: &File) {
        for item in items {
            let (name, fields, attributes) = match item {
                Item::Struct(item) => (&item.ident, fields_of(&item.fields), &item.attrs),
                Item::Enum(item) if item.variants.iter().all(|one| one.fields.is_empty()) => {
                    (&item.ident, Vec::new(), &item.attrs)
                }
                _ => continue,
            };
            if !is_for_tests(attributes) {
                let fields = is_copy(attributes).then_some(fields);
                self.known.insert((name.to_string(), path.clone()), fields);
            }
        }
    }

    /// The fields of a type that a file names: its own, or else that of another file.
    fn fields(&self, path: &str, name: &str) -> Option<&[(String, Type)]> {
        let own = self.known.get(&(name.to_owned(), path.to_owned()));
        let mut others = self.known.iter().filter(|((known, _), _)| known == name);
        own.or_else(|| others.next().map(|(_, fields)| fields))?.as_deref()
    }

    fn kind(&self, path: &str, owner: &str, ty: &Type) -> Kind {
        let most = |types: &mut dyn Iterator<Item = &Type>| {
            types.map(|ty| self.kind(path, owner, ty)).max().unwrap_or(Kind::Narrow)
        };
        match ty {
            Type::Tuple(tuple) => most(&mut tuple.elems.iter()),
            Type::Array(array) => self.kind(path, owner, &array.elem),
            Type::Reference(reference) if reference.mutability.is_none() => {
                self.kind(path, owner, &reference.elem)
            }
            Type::Path(_) => {
                let name = name_of_type(ty);
                let name = if name == "Self" { owner } else { &name };
                match self.fields(path, name) {
                    _ if NARROW.contains(&name) => Kind::Narrow,
                    _ if WIDE.contains(&name) => Kind::Wide,
                    Some(fields) => most(&mut fields.iter().map(|(_, ty)| ty)),
                    None => Kind::Other,
                }
            }
            _ => Kind::Other,
        }
    }

    fn is_listed(&self, path: &str, owner: &str, signature: &Signature, block: &Block) -> bool {
        let mut body = Body::default();
        body.visit_block(block);
        let mut most = Kind::Narrow;
        for input in &signature.inputs {
            most = most.max(match input {
                FnArg::Typed(typed) => self.kind(path, owner, &typed.ty),
                FnArg::Receiver(receiver) => match self.fields(path, owner) {
                    Some(_) if text(receiver).contains("&mut") => Kind::Other,
                    Some(fields) => {
                        let all = fields.iter();
                        let read = all.clone().filter(|(name, _)| body.fields.contains(name));
                        let kind = |(_, ty): &(_, _)| self.kind(path, owner, ty);
                        let of_all = all.map(kind).max().unwrap_or(Kind::Narrow);
                        match of_all {
                            Kind::Other if body.is_self_whole => Kind::Other,
                            Kind::Other => read.map(kind).max().unwrap_or(Kind::Narrow),
                            kind => kind,
                        }
                    }
                    None => Kind::Other,
                },
            });
        }
        most == Kind::Wide && body.computes
    }
}

/// What the body of a function does.
#[derive(Default)]
struct Body {
    computes: bool,
    /// The fields of `self` that it reads, and whether it names `self` in another way.
    fields: Vec<String>,
    is_self_whole: bool,
}

impl<'a> Visit<'a> for Body {
    fn visit_expr(&mut self, expression: &'a Expr) {
        match expression {
            Expr::Field(field) if text(&field.base) == "self" => {
                self.fields.push(text(&field.member));
                return;
            }
            Expr::Path(path) => self.is_self_whole |= text(path) == "self",
            Expr::Binary(_)
            | Expr::Unary(_)
            | Expr::MethodCall(_)
            | Expr::If(_)
            | Expr::Match(_)
            | Expr::While(_)
            | Expr::Loop(_)
            | Expr::ForLoop(_) => self.computes = true,
            _ => {}
        }
        visit_expr(self, expression);
    }
}
