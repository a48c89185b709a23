//! Decisions: patterns, conditions, and the arms of a `match`.

use syn::{BinOp, Expr, Pat};

use crate::run::{Exit, Outcome, Run};
use crate::source::text;
use crate::terms::Term;
use crate::value::{Value, are_equal, as_type, truth};

impl Run<'_> {
    /// Whether a value fits a pattern, whose names it has from here on.
    pub fn matches(&mut self, pattern: &Pat, value: Value) -> Result<bool, Exit> {
        Ok(match (pattern, value) {
            (Pat::Wild(_) | Pat::Rest(_), _) => true,
            (Pat::Type(typed), value) => {
                let value = as_type(value, &typed.ty);
                self.matches(&typed.pat, value)?
            }
            (Pat::Guard(guarded), value) => {
                self.matches(&guarded.pat, value)? && self.condition(&guarded.guard)?
            }
            (Pat::Tuple(patterns), Value::Tuple(values)) => {
                self.all_match(patterns.elems.iter().zip(values))?
            }
            (Pat::Tuple(patterns), Value::Unit) if patterns.elems.is_empty() => true,
            (Pat::Slice(patterns), Value::Array(values)) => {
                self.all_match(patterns.elems.iter().zip(values))?
            }
            (Pat::Struct(patterns), value @ Value::Struct(..)) => {
                let fields = patterns.fields.iter();
                self.all_match(
                    fields.map(|field| (&*field.pat, value.field(&text(&field.member)).clone())),
                )?
            }
            (Pat::TupleStruct(patterns), Value::Option(value)) => match value {
                Some(value) => self.matches(&patterns.elems[0], (*value).clone())?,
                None => false,
            },
            (Pat::Lit(literal), value) => {
                let literal = self.eval(&Expr::Lit(literal.clone()))?;
                self.decide(are_equal(&value, &literal))
            }
            (Pat::Path(path), value) => {
                let name = self.name(&text(path));
                self.decide(are_equal(&value, &name))
            }
            (Pat::Ident(name), value) => {
                assert_ne!(name.ident, "None", "a pattern that is not known here");
                self.scope.push((name.ident.to_string(), value));
                true
            }
            (other, value) => {
                panic!("a pattern that is not known here: {} of {value}", text(other))
            }
        })
    }

    fn all_match<'p>(
        &mut self,
        mut pairs: impl Iterator<Item = (&'p Pat, Value)>,
    ) -> Result<bool, Exit> {
        pairs.try_fold(true, |all, (pattern, value)| Ok(all && self.matches(pattern, value)?))
    }

    pub fn choose_arm(&mut self, choice: &syn::ExprMatch) -> Outcome {
        let value = self.eval(&choice.expr)?;
        let outer = self.scope.len();
        for arm in &choice.arms {
            let fits = self.matches(&arm.pat, value.clone())?;
            let result = if fits { Some(self.eval(&arm.body)) } else { None };
            self.scope.truncate(outer);
            if let Some(result) = result {
                return result;
            }
        }
        // The compiler has seen that they are all.
        self.assume(Term::truth(false));
        Err(Exit::Abandoned)
    }

    pub fn condition(&mut self, expression: &Expr) -> Result<bool, Exit> {
        match expression {
            Expr::Let(bind) => {
                let value = self.eval(&bind.expr)?;
                self.matches(&bind.pat, value)
            }
            Expr::Binary(both) if matches!(both.op, BinOp::And(_)) => {
                Ok(self.condition(&both.left)? && self.condition(&both.right)?)
            }
            _ => {
                let value = self.eval(expression)?;
                Ok(self.decide(truth(&value)))
            }
        }
    }
}
