//! Puts all mutants of a file into its text, each behind a question whether it is on.
//!
//! What cargo-mutants replaces is text, so this does the same with text, as far out as the change
//! of an operator could change what belongs to what: `a + b * c` with `*` for `+` is `a * b * c`. A
//! function's body gets its early returns, a match arm its guard. Inside the text of a mutant there
//! are no others, as one at a time is on.

use std::collections::HashMap;
use std::ops::Range;

use proc_macro2::{LineColumn, Span};
use serde_json::Value;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Arm, Block, Expr, ExprBinary, ExprStruct, ExprUnary, ImplItemFn, ItemFn, TraitItemFn};

/// A mutant's number, and the text that it brings.
type Change = (usize, String);

/// What comes to a place of the text.
enum Place {
    /// `match active() { 1 => changed, _ => the same }`.
    Instead(Vec<Change>),
    /// `match active() { 1 => return changed, _ => {} }` in front.
    Return(Vec<Change>),
    /// ` if active() != 1` behind.
    Unless(usize),
}

impl Place {
    fn numbers(&self) -> Vec<usize> {
        match self {
            Self::Instead(changes) | Self::Return(changes) => changes.iter().map(|c| c.0).collect(),
            Self::Unless(number) => vec![*number],
        }
    }
}

/// A file with all of the mutants woven in, and of each mutant the number of its place: that of
/// the first one there. What has no place (`&&` beside `let`) is left out.
pub fn weave(text: &str, mutants: &[(usize, &Value)]) -> (String, HashMap<usize, usize>) {
    let mut loom = Loom { text, lines: vec![0], wanted: HashMap::new(), places: Vec::new() };
    loom.lines.extend(text.match_indices('\n').map(|(at, _)| at + 1));
    for &(number, mutant) in mutants {
        let place = |end: &str| {
            let of = |part: &str| mutant["span"][end][part].as_u64().expect("a number") as usize;
            loom.at(LineColumn { line: of("line"), column: of("column") - 1 })
        };
        let word = |key: &str| mutant[key].as_str().expect("a text").to_string();
        let key = (place("start")..place("end"), word("genre"));
        loom.wanted.entry(key).or_default().push((number, word("replacement")));
    }
    loom.visit_file(&syn::parse_file(text).expect("Rust"));
    let mut places = std::mem::take(&mut loom.places);
    places.sort_by_key(|(range, place)| {
        (range.start, usize::MAX - range.end, matches!(place, Place::Instead(_)))
    });
    let numbers = places.iter().map(|(_, place)| place.numbers());
    let at =
        numbers.flat_map(|all| all.clone().into_iter().map(move |one| (one, all[0]))).collect();
    (loom.render(0..text.len(), &mut &places[..]), at)
}

struct Loom<'a> {
    text: &'a str,
    /// Where the lines begin.
    lines: Vec<usize>,
    /// The mutants by what they replace, and the genre.
    wanted: HashMap<(Range<usize>, String), Vec<Change>>,
    places: Vec<(Range<usize>, Place)>,
}

impl Loom<'_> {
    fn at(&self, place: LineColumn) -> usize {
        let rest = &self.text[self.lines[place.line - 1]..];
        let column = rest.char_indices().nth(place.column).map_or(rest.len(), |(at, _)| at);
        self.lines[place.line - 1] + column
    }

    fn range(&self, span: Span) -> Range<usize> {
        self.at(span.start())..self.at(span.end())
    }

    fn wanted(&self, range: &Range<usize>, genre: &str) -> Vec<Change> {
        self.wanted.get(&(range.clone(), genre.to_string())).cloned().unwrap_or_default()
    }

    /// The text of `whole` with each of the changes at `part`.
    fn changed(&self, whole: &Range<usize>, part: Range<usize>, genre: &str) -> Vec<Change> {
        let (before, behind) =
            (&self.text[whole.start..part.start], &self.text[part.end..whole.end]);
        let changes = self.wanted(&part, genre).into_iter();
        changes.map(|(number, new)| (number, format!("{before}{new} {behind}"))).collect()
    }

    fn put(&mut self, range: Range<usize>, changes: Vec<Change>, place: fn(Vec<Change>) -> Place) {
        if !changes.is_empty() {
            self.places.push((range, place(changes)));
        }
    }

    /// The changes of all operators that hang together without parentheses.
    fn chain(&mut self, whole: &Range<usize>, i: &ExprBinary, changes: &mut Vec<Change>) {
        changes.extend(self.changed(whole, self.range(i.op.span()), "BinaryOperator"));
        for side in [&*i.left, &*i.right] {
            match side {
                Expr::Binary(inner) => self.chain(whole, inner, changes),
                other => self.visit_expr(other),
            }
        }
    }

    fn body(&mut self, block: &Block) {
        let (Some(first), Some(last)) = (block.stmts.first(), block.stmts.last()) else { return };
        let range = self.at(first.span().start())..self.at(last.span().end());
        self.put(range.clone(), self.wanted(&range, "FnValue"), Place::Return);
    }

    /// The text of `range` with what comes to the places within; of `rest` outer ones come first.
    fn render(&self, range: Range<usize>, rest: &mut &[(Range<usize>, Place)]) -> String {
        let (mut out, mut at) = (String::new(), range.start);
        while let [(inner, place), behind @ ..] = *rest {
            if inner.start >= range.end {
                break;
            }
            *rest = behind;
            out += &self.text[at..inner.start];
            at = inner.end;
            let same = self.render(inner.clone(), rest);
            let active = format!("crate::switch::active({})", place.numbers()[0]);
            out += &match place {
                Place::Instead(changes) => {
                    let arms = arms(changes, |text| format!("{{ ({text}) }}"));
                    format!("(match {active} {{ {arms}_ => {{ ({same}) }} }})")
                }
                Place::Return(changes) => {
                    let arms = arms(changes, |text| format!("return {text},"));
                    format!("match {active} {{ {arms}_ => {{}} }} {same}")
                }
                Place::Unless(n) => format!("{same} /*<{n}*/ if {active} != {n} /*{n}>*/"),
            };
        }
        out + &self.text[at..range.end]
    }
}

/// Arms of a match, each between marks by which an error of the compiler is known to be its own.
fn arms(changes: &[Change], body: impl Fn(&str) -> String) -> String {
    let arm = |(n, text): &Change| format!("/*<{n}*/ {n} => {} /*{n}>*/ ", body(text));
    changes.iter().map(arm).collect()
}

/// Whether a chain has a `let`, which can't stand in parentheses.
fn has_let(i: &ExprBinary) -> bool {
    [&*i.left, &*i.right].iter().any(|side| match side {
        Expr::Let(_) => true,
        Expr::Binary(inner) => has_let(inner),
        _ => false,
    })
}

impl<'ast> Visit<'ast> for Loom<'_> {
    fn visit_expr_binary(&mut self, i: &'ast ExprBinary) {
        if has_let(i) {
            return visit::visit_expr_binary(self, i);
        }
        let (range, mut changes) = (self.range(i.span()), Vec::new());
        self.chain(&range, i, &mut changes);
        self.put(range, changes, Place::Instead);
    }

    fn visit_expr_unary(&mut self, i: &'ast ExprUnary) {
        let whole = self.range(i.span());
        let changes = self.changed(&whole, self.range(i.op.span()), "UnaryOperator");
        self.put(whole, changes, Place::Instead);
        visit::visit_expr_unary(self, i);
    }

    fn visit_expr_struct(&mut self, i: &'ast ExprStruct) {
        let (whole, mut changes) = (self.range(i.span()), Vec::new());
        for start in i.fields.iter().map(|field| self.at(field.span().start())) {
            let fields = self.wanted.keys().filter(|(_, genre)| genre == "StructField");
            // With the comma behind it.
            if let Some((field, genre)) = fields.clone().find(|(field, _)| field.start == start) {
                changes.extend(self.changed(&whole, field.clone(), genre));
            }
        }
        self.put(whole, changes, Place::Instead);
        visit::visit_expr_struct(self, i);
    }

    fn visit_arm(&mut self, i: &'ast Arm) {
        for (number, _) in self.wanted(&self.range(i.span()), "MatchArm") {
            self.places.push((self.range(i.pat.span()), Place::Unless(number)));
        }
        if let Some((_, guard)) = &i.guard {
            let range = self.range(guard.span());
            self.put(range.clone(), self.wanted(&range, "MatchArmGuard"), Place::Instead);
        }
        visit::visit_arm(self, i);
    }

    fn visit_item_fn(&mut self, i: &'ast ItemFn) {
        self.body(&i.block);
        visit::visit_item_fn(self, i);
    }

    fn visit_impl_item_fn(&mut self, i: &'ast ImplItemFn) {
        self.body(&i.block);
        visit::visit_impl_item_fn(self, i);
    }

    fn visit_trait_item_fn(&mut self, i: &'ast TraitItemFn) {
        if let Some(block) = &i.default {
            self.body(block);
        }
        visit::visit_trait_item_fn(self, i);
    }
}
