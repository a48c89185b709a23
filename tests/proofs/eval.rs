//! Runs functions of the shipped source on [`Term`]s: a small interpreter for the part of Rust that
//! functions on words are written in. What it does not know it refuses, loudly.

use std::rc::Rc;

use syn::{Block, Expr, Item, ReturnType, Stmt, UnOp};

use crate::operators::{array_of, literal_value};
use crate::run::{Exit, Outcome, Run};
use crate::source::{Function, text};
use crate::terms::Term;
use crate::value::{Value, alike, as_type, cast_to, number, truth, width};

/// More rounds than a word has bits are a loop without end.
const ROUNDS: usize = 64;

impl Run<'_> {
    pub fn invoke(&mut self, name: &str, arguments: Vec<Value>) -> Outcome {
        if let Some(known) = self.known(name, &arguments) {
            return Ok(known);
        }
        let (name, constants) = name.split_once("::<").unwrap_or((name, ""));
        let source = self.source;
        let Some(Function { owner, signature, block }) = source.functions.get(name) else {
            panic!("there is no function {name} in the source")
        };
        assert_eq!(signature.inputs.len(), arguments.len(), "the arguments of {name}");
        let outer = std::mem::take(&mut self.scope);
        let constants = constants.trim_end_matches('>').split(',').filter_map(|n| n.parse().ok());
        for (parameter, constant) in signature.generics.const_params().zip(constants) {
            let value = as_type(Value::Literal(constant), &parameter.ty);
            self.scope.push((parameter.ident.to_string(), value));
        }
        let outer_owner = std::mem::replace(&mut self.owner, owner.clone());
        for (input, argument) in signature.inputs.iter().zip(arguments) {
            match input {
                syn::FnArg::Receiver(_) => self.scope.push(("self".to_owned(), argument)),
                syn::FnArg::Typed(typed) => {
                    let is_match = self.matches(&typed.pat, as_type(argument, &typed.ty));
                    assert!(is_match.is_ok_and(|is| is), "an argument that does not fit");
                }
            }
        }
        let result = match self.block(block) {
            Ok(value) | Err(Exit::Return(value)) => match &signature.output {
                ReturnType::Type(_, ty) => Ok(as_type(value, ty)),
                ReturnType::Default => Ok(value),
            },
            Err(Exit::Break) => panic!("a break outside of a loop in {name}"),
            Err(Exit::Abandoned) => Err(Exit::Abandoned),
        };
        self.scope = outer;
        self.owner = outer_owner;
        result
    }

    /// What a closure, or a function named in its place, makes of these.
    pub fn apply(&mut self, closure: &Value, arguments: Vec<Value>) -> Outcome {
        let Value::Closure(code) = closure else { panic!("no closure: {closure}") };
        let Expr::Closure(code) = &**code else { return self.named(&text(code), arguments) };
        let outer = self.scope.len();
        assert_eq!(code.inputs.len(), arguments.len(), "the arguments of {}", text(code));
        for (pattern, argument) in code.inputs.iter().zip(arguments) {
            self.matches(pattern, argument)?;
        }
        let result = match self.eval(&code.body) {
            Err(Exit::Return(value)) => Ok(value),
            result => result,
        };
        self.scope.truncate(outer);
        result
    }

    fn block(&mut self, block: &Block) -> Outcome {
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

    fn statement(&mut self, statement: &Stmt) -> Outcome {
        match statement {
            Stmt::Local(local) => {
                let init = local.init.as_ref().expect("a value");
                let value = self.eval(&init.expr)?;
                let is_match = self.matches(&local.pat, value)?;
                if !is_match {
                    let (_, other) = init.diverge.as_ref().expect("a pattern that always fits");
                    return self.eval(other);
                }
            }
            Stmt::Item(Item::Const(constant)) => {
                let value = self.eval(&constant.expr)?;
                let value = as_type(value, &constant.ty);
                self.scope.push((constant.ident.to_string(), value));
            }
            Stmt::Expr(expression, None) => return self.eval(expression),
            Stmt::Expr(expression, Some(_)) => drop(self.eval(expression)?),
            Stmt::Macro(call) => drop(self.macro_call(&call.mac)?),
            other => panic!("a statement that is not known here: {}", text(other)),
        }
        Ok(Value::Unit)
    }

    fn values<'e>(
        &mut self,
        expressions: impl IntoIterator<Item = &'e Expr>,
    ) -> Result<Vec<Value>, Exit> {
        expressions.into_iter().map(|expression| self.eval(expression)).collect()
    }

    pub fn eval(&mut self, expression: &Expr) -> Outcome {
        match expression {
            Expr::Paren(inner) => self.eval(&inner.expr),
            Expr::Block(inner) => self.block(&inner.block),
            Expr::Lit(literal) => Ok(literal_value(&literal.lit)),
            Expr::Path(path) => Ok(self.name(&text(path))),
            Expr::Tuple(tuple) if tuple.elems.is_empty() => Ok(Value::Unit),
            Expr::Tuple(tuple) => self.values(&tuple.elems).map(Value::Tuple),
            Expr::Array(array) => self.values(&array.elems).map(array_of),
            Expr::Range(range) => {
                let [start, end] = [&range.start, &range.end].map(|end| end.as_ref());
                let start = self.eval(start.expect("a start"))?;
                let end = self.eval(end.expect("an end"))?;
                let (start, end) = alike(&start, &end);
                Ok(Value::Range(start, end))
            }
            Expr::Struct(made) => self.structure(made),
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
                self.assign(&assign.left, value)
            }
            Expr::If(choice) => self.choose_branch(choice),
            Expr::Match(choice) => self.choose_arm(choice),
            Expr::While(repeat) => self.repeat(Some(&repeat.cond), &repeat.body),
            Expr::Loop(repeat) => self.repeat(None, &repeat.body),
            Expr::Return(exit) => {
                let value = exit.expr.as_ref().map_or(Ok(Value::Unit), |expr| self.eval(expr))?;
                Err(Exit::Return(value))
            }
            Expr::Break(_) => Err(Exit::Break),
            Expr::Try(inner) => match self.eval(&inner.expr)? {
                Value::Option(Some(value)) => Ok((*value).clone()),
                Value::Option(None) => Err(Exit::Return(Value::Option(None))),
                other => panic!("no option: {other}"),
            },
            Expr::Cast(cast) => Ok(cast_to(self.eval(&cast.expr)?, &cast.ty)),
            Expr::Closure(_) => Ok(Value::Closure(Rc::new(expression.clone()))),
            Expr::Field(field) => {
                let value = self.eval(&field.base)?;
                Ok(value.field(&text(&field.member)).clone())
            }
            Expr::Index(index) => self.index(index),
            Expr::Call(call) => {
                let arguments = self.values(&call.args)?;
                self.named(&text(&call.func), arguments)
            }
            Expr::MethodCall(call) => self.method_call(call),
            Expr::Macro(call) => self.macro_call(&call.mac),
            other => panic!("an expression that is not known here: {}", text(other)),
        }
    }

    fn structure(&mut self, made: &syn::ExprStruct) -> Outcome {
        let name = self.own(&text(&made.path));
        let mut fields = match &made.rest {
            Some(rest) => match self.eval(rest)? {
                Value::Struct(_, fields) => fields,
                other => panic!("no structure: {other}"),
            },
            None => Vec::new(),
        };
        for field in &made.fields {
            let member = text(&field.member);
            let value = self.eval(&field.expr)?;
            let value = self.as_field(&name, &member, value);
            fields.retain(|(known, _)| *known != member);
            fields.push((member, value));
        }
        Ok(Value::Struct(name, fields))
    }

    fn method_call(&mut self, call: &syn::ExprMethodCall) -> Outcome {
        let receiver = self.eval(&call.receiver)?;
        let arguments = self.values(&call.args)?;
        let name = call.method.to_string();
        if name == "set_bits" || name == "set_bit" {
            // The variable behind a chain of these.
            return self.set_bits(root(&call.receiver), &arguments);
        }
        self.method(receiver, &name, arguments)
    }

    fn choose_branch(&mut self, choice: &syn::ExprIf) -> Outcome {
        let outer = self.scope.len();
        let result = match (self.condition(&choice.cond)?, &choice.else_branch) {
            (true, _) => self.block(&choice.then_branch),
            (false, Some((_, other))) => self.eval(other),
            (false, None) => Ok(Value::Unit),
        };
        self.scope.truncate(outer);
        result
    }

    fn index(&mut self, index: &syn::ExprIndex) -> Outcome {
        let value = self.eval(&index.expr)?;
        let at = self.eval(&index.index)?;
        let Value::Array(values) = value else { panic!("no array: {value}") };
        let Some(at) = self.place(&at, values.len()) else { return Err(Exit::Abandoned) };
        Ok(values[at].clone())
    }

    /// An index, if it is within an array of so many.
    fn place(&mut self, at: &Value, len: usize) -> Option<usize> {
        let at = number(at);
        self.require(at.is("bvult", Term::constant(len as u64, at.width())), "out of an array");
        let at = at.value().expect("an index that is known on the way at hand") as usize;
        (at < len).then_some(at)
    }

    fn macro_call(&mut self, call: &syn::Macro) -> Outcome {
        let name = text(&call.path);
        if text(call) == "cfg!(loom)" {
            return Ok(Value::Truth(Term::truth(false)));
        }
        assert!(name == "assert" || name == "debug_assert", "not known here: {}", text(call));
        let parser = syn::punctuated::Punctuated::<Expr, syn::token::Comma>::parse_terminated;
        let arguments = call.parse_body_with(parser).expect("expressions");
        let holds = self.eval(&arguments[0])?;
        self.require(truth(&holds), "an assertion does not hold");
        Ok(Value::Unit)
    }

    fn repeat(&mut self, condition: Option<&Expr>, body: &Block) -> Outcome {
        for round in 0.. {
            self.keep_invariant(round);
            if let Some(condition) = condition
                && !self.condition(condition)?
            {
                break;
            }
            if round == ROUNDS {
                self.require(Term::truth(false), "a loop of more than 64 rounds");
                return Err(Exit::Abandoned);
            }
            match self.block(body) {
                Err(Exit::Break) => break,
                result => drop(result?),
            }
        }
        self.is_granted = false;
        Ok(Value::Unit)
    }

    /// The name of a type or of something in it, without `Self` and without what it is generic
    /// over.
    pub fn own(&self, name: &str) -> String {
        let name = name.strip_prefix("crate::").unwrap_or(name);
        match name.strip_prefix("Self") {
            Some(rest) => format!("{}{rest}", self.owner),
            None => name.to_owned(),
        }
    }

    pub fn as_field(&self, structure: &str, field: &str, value: Value) -> Value {
        let fields = self.source.structs.get(structure);
        let ty = fields.and_then(|fields| fields.iter().find(|(name, _)| name == field));
        match ty {
            // Constants in an array's type and the like are no matter here.
            Some((_, ty)) if matches!(value, Value::Literal(_)) => as_type(value, ty),
            _ => value,
        }
    }

    pub fn name(&mut self, name: &str) -> Value {
        if let Some((_, value)) = self.scope.iter().rev().find(|(known, _)| known == name) {
            return value.clone();
        }
        if name == "None" {
            return Value::Option(None);
        }
        let name = self.own(name);
        let source = self.source;
        if let Some((ty, expression)) = source.constants.get(&name) {
            let owner = name.split_once("::").map_or(String::new(), |(owner, _)| owner.to_owned());
            let outer = std::mem::replace(&mut self.owner, owner);
            let value = self.eval(expression);
            self.owner = outer;
            return match value {
                Ok(value) => as_type(value, ty),
                Err(_) => panic!("{name} is no constant"),
            };
        }
        if let Some((ty, member)) = name.split_once("::") {
            if let Some(variants) = source.enums.get(ty) {
                let at = variants.iter().position(|variant| variant == member);
                let at = at.unwrap_or_else(|| panic!("{ty} has no {member}")) as u64;
                return Value::Enum(ty.to_owned(), Term::constant(at, 64));
            }
            if ty.starts_with(char::is_lowercase) && (member == "MAX" || member == "BITS") {
                let width = width(ty);
                return Value::Number(match member {
                    "MAX" => Term::constant(u64::MAX, width),
                    _ => Term::constant(width.into(), 32),
                });
            }
        }
        if name.contains("::") {
            // A function, to be called by somebody else; or a variant of an error.
            let path = syn::parse_str(&name).expect("a path");
            return Value::Closure(Rc::new(Expr::Path(path)));
        }
        panic!("a name that is not known here: {name}")
    }

    pub fn assign(&mut self, place: &Expr, value: Value) -> Outcome {
        match place {
            Expr::Path(path) => *self.local_mut(&text(path)) = value,
            Expr::Index(index) => {
                let at = self.eval(&index.index)?;
                let name = text(&index.expr);
                let Value::Array(values) = self.local(&name) else { panic!("no array: {name}") };
                let len = values.len();
                let Some(at) = self.place(&at, len) else { return Err(Exit::Abandoned) };
                if let Value::Array(values) = self.local_mut(&name) {
                    values[at] = value;
                }
            }
            other => panic!("a place that is not known here: {}", text(other)),
        }
        Ok(Value::Unit)
    }
}

/// The variable that a chain of method calls begins with.
fn root(expression: &Expr) -> String {
    match expression {
        Expr::MethodCall(call) => root(&call.receiver),
        other => text(other),
    }
}
