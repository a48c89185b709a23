//! The shipped source as it is read: functions, constants and types of some files of `src/`, by
//! their names. What a type or an `impl` holds goes by both names, as in `Group::of`.

use std::collections::HashMap;

use quote::ToTokens;
use syn::{Block, Expr, Fields, ImplItem, Item, Signature, Type};

/// A function, and the type that `Self` is in it.
pub struct Function {
    pub owner: String,
    pub signature: Signature,
    pub block: Block,
}

/// Some files of `src/`.
#[derive(Default)]
pub struct Source {
    pub functions: HashMap<String, Function>,
    pub constants: HashMap<String, (Type, Expr)>,
    /// The fields of a structure, by name or number.
    pub structs: HashMap<String, Vec<(String, Type)>>,
    /// The variants of an enumeration that has no data.
    pub enums: HashMap<String, Vec<String>>,
}

impl Source {
    /// Of these texts. Of two that say the same name the later one counts.
    pub fn parse<T: AsRef<str>>(texts: &[T]) -> Self {
        let mut source = Self::default();
        for text in texts {
            let file = syn::parse_file(text.as_ref()).expect("Rust");
            file.items.into_iter().for_each(|item| source.add(item));
        }
        source
    }

    fn add(&mut self, item: Item) {
        match item {
            Item::Fn(function) => self.add_function("", function.sig, *function.block),
            Item::Const(constant) => {
                let said = (*constant.ty, *constant.expr);
                self.constants.insert(constant.ident.to_string(), said);
            }
            Item::Struct(structure) => {
                let fields = fields_of(&structure.fields);
                self.structs.insert(structure.ident.to_string(), fields);
            }
            Item::Enum(choice) if choice.variants.iter().all(|one| one.fields.is_empty()) => {
                let variants = choice.variants.iter().map(|one| one.ident.to_string());
                self.enums.insert(choice.ident.to_string(), variants.collect());
            }
            Item::Impl(block) => {
                let owner = name_of_type(&block.self_ty);
                for item in block.items {
                    match item {
                        ImplItem::Fn(method) => self.add_function(&owner, method.sig, method.block),
                        ImplItem::Const(constant) => {
                            let name = format!("{owner}::{}", constant.ident);
                            self.constants.insert(name, (constant.ty, constant.expr));
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }

    fn add_function(&mut self, owner: &str, signature: Signature, block: Block) {
        let name = signature.ident.to_string();
        let name = if owner.is_empty() { name } else { format!("{owner}::{name}") };
        self.functions.insert(name, Function { owner: owner.to_owned(), signature, block });
    }
}

/// The fields of a structure, by name or number.
pub fn fields_of(fields: &Fields) -> Vec<(String, Type)> {
    let name = |(index, field): (usize, &syn::Field)| {
        let name = field.ident.as_ref().map_or(index.to_string(), ToString::to_string);
        (name, field.ty.clone())
    };
    fields.iter().enumerate().map(name).collect()
}

/// A type's name, without what it is generic over.
pub fn name_of_type(ty: &Type) -> String {
    let text = text(ty);
    text.split('<').next().expect("a name").to_owned()
}

/// A piece of source without its spaces.
pub fn text(tokens: &impl ToTokens) -> String {
    tokens.to_token_stream().to_string().replace(' ', "")
}
