//! What a key is made of, and the check that it is made of arguments.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Error, Expr, ExprCall, ExprPath, LitStr, Member, Path, Result};

/// The parts of a key, as declared.
pub(crate) enum KeySource {
    /// `key(id, region)`.
    Parts(Vec<Expr>),
    /// `key = "user:{id}"`.
    Template(Template),
}

/// A text with arguments in it.
pub(crate) struct Template(Vec<TemplatePart>);

/// A piece of a text with arguments in it.
pub(crate) enum TemplatePart {
    Text(LitStr),
    /// An argument, or a field of one.
    Place(Box<Expr>),
}

impl Template {
    /// Reads `{name}` and `{name.field}` out of a text; `{{` and `}}` stand for braces.
    pub(crate) fn new(text: &LitStr) -> Result<Self> {
        let span = text.span();
        let value = text.value();
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut rest = value.as_str();
        while let Some(at) = rest.find(['{', '}']) {
            let (before, brace) = rest.split_at(at);
            plain.push_str(before);
            if let Some(after) = brace
                .strip_prefix("{{")
                .or_else(|| brace.strip_prefix("}}"))
            {
                plain.push_str(&brace[..1]);
                rest = after;
                continue;
            }
            let place = brace
                .strip_prefix('{')
                .and_then(|inside| inside.split_once('}'));
            let Some((name, after)) = place else {
                return Err(Error::new(
                    span,
                    "a brace has no partner; write `{{` or `}}` for the character",
                ));
            };
            if !plain.is_empty() {
                parts.push(TemplatePart::Text(LitStr::new(&plain, span)));
                plain.clear();
            }
            parts.push(TemplatePart::Place(Box::new(place_in_text(name, span)?)));
            rest = after;
        }
        plain.push_str(rest);
        if !plain.is_empty() || parts.is_empty() {
            parts.push(TemplatePart::Text(LitStr::new(&plain, span)));
        }
        Ok(Self(parts))
    }

    /// Every part that is not a text.
    pub(crate) fn places(&self) -> impl Iterator<Item = &Expr> {
        self.0.iter().filter_map(|part| match part {
            TemplatePart::Place(place) => Some(&**place),
            TemplatePart::Text(_) => None,
        })
    }

    /// A `String` with each place written as it shows itself.
    pub(crate) fn shown(&self) -> TokenStream {
        let pushes = self.0.iter().map(|part| match part {
            TemplatePart::Text(text) => quote!(__askonce_text.push_str(#text);),
            TemplatePart::Place(place) => {
                let shown =
                    quote_spanned!(place.span()=> ::std::string::ToString::to_string(&(#place)));
                quote!(__askonce_text.push_str(&#shown);)
            }
        });
        quote!({
            let mut __askonce_text = ::std::string::String::new();
            #(#pushes)*
            __askonce_text
        })
    }

    /// `.text(..)` and `.place(..)` for each piece.
    pub(crate) fn pieces(&self) -> TokenStream {
        let pieces = self.0.iter().map(|part| match part {
            TemplatePart::Text(text) => quote!(.text(#text)),
            TemplatePart::Place(place) => {
                let borrowed = quote_spanned!(place.span()=> &(#place));
                quote!(.place(#borrowed))
            }
        });
        pieces.collect()
    }
}

impl KeySource {
    /// Every part that is not a text.
    pub(crate) fn expressions(&self) -> Vec<&Expr> {
        match self {
            Self::Parts(parts) => parts.iter().collect(),
            Self::Template(template) => template.places().collect(),
        }
    }

    /// `.part(..)` for each part.
    pub(crate) fn tokens(&self) -> TokenStream {
        match self {
            Self::Parts(parts) => parts.iter().map(part_of).collect(),
            Self::Template(template) => template
                .0
                .iter()
                .map(|part| match part {
                    TemplatePart::Text(text) => quote!(.part(#text)),
                    TemplatePart::Place(place) => part_of(place),
                })
                .collect(),
        }
    }
}

/// `.part(&expression)`, so that a type that is no part is complained of where it stands.
pub(crate) fn part_of(expression: &Expr) -> TokenStream {
    let borrowed = quote_spanned!(expression.span()=> &(#expression));
    quote!(.part(#borrowed))
}

/// An argument or a field of one, as it stands between braces.
fn place_in_text(name: &str, span: Span) -> Result<Expr> {
    let refuse = |message: String| Error::new(span, message);
    if name.trim().is_empty() {
        return Err(refuse(
            "`{}` names nothing; write the argument's name into the braces".to_owned(),
        ));
    }
    if name.contains(':') {
        return Err(refuse(format!(
            "`{{{name}}}` has a format, but keys are made of values, not of their text; write `{{{}}}`",
            name.split(':').next().unwrap_or_default()
        )));
    }
    let mut place: Expr = LitStr::new(name, span).parse().map_err(|_| {
        refuse(format!(
            "`{{{name}}}` is neither an argument nor a field of one; write expressions as `key(..)`"
        ))
    })?;
    let mut inner = &mut place;
    loop {
        match inner {
            Expr::Path(path) if path.path.get_ident().is_some() => return Ok(place),
            Expr::Field(field) => {
                if let Member::Named(name) = &mut field.member {
                    name.set_span(span);
                }
                inner = &mut *field.base;
            }
            _ => {
                return Err(refuse(format!(
                    "`{{{name}}}` is neither an argument nor a field of one; write expressions as `key(..)`"
                )));
            }
        }
    }
}

/// The bare names in an expression: what can be an argument. Names of functions that are called, and
/// names of constants, are none.
pub(crate) fn names_in(expression: &Expr) -> Vec<&Ident> {
    let mut names = Names(Vec::new());
    names.visit_expr(expression);
    names.0
}

struct Names<'a>(Vec<&'a Ident>);

impl<'a> Visit<'a> for Names<'a> {
    fn visit_expr_path(&mut self, path: &'a ExprPath) {
        self.0.extend(bare(&path.path));
    }

    fn visit_expr_call(&mut self, call: &'a ExprCall) {
        if !matches!(&*call.func, Expr::Path(_)) {
            self.visit_expr(&call.func);
        }
        for argument in &call.args {
            self.visit_expr(argument);
        }
    }

    fn visit_expr_macro(&mut self, _: &'a syn::ExprMacro) {}

    fn visit_expr_closure(&mut self, closure: &'a syn::ExprClosure) {
        visit::visit_expr(self, &closure.body);
    }
}

fn bare(path: &Path) -> Option<&Ident> {
    let name = path.get_ident()?;
    let constant = name.to_string().starts_with(char::is_uppercase);
    (!constant).then_some(name)
}

/// Checks that each part of the key is made of arguments of the function, or is a literal.
pub(crate) fn check(key: &KeySource, function: &Ident, arguments: &[Ident]) -> Result<()> {
    for part in key.expressions() {
        let names = check_names(part, function, arguments)?;
        let constant = matches!(part, Expr::Lit(_))
            || matches!(part, Expr::Path(path) if bare(&path.path).is_none());
        if names.is_empty() && !constant {
            return Err(Error::new(
                part.span(),
                format!(
                    "this part of the key names no argument of `{function}`, so it cannot tell two calls apart"
                ),
            ));
        }
    }
    Ok(())
}

/// Checks that every name in `part` is an argument, and returns them.
pub(crate) fn check_names<'a>(
    part: &'a Expr,
    function: &Ident,
    arguments: &[Ident],
) -> Result<Vec<&'a Ident>> {
    let names = names_in(part);
    match names.iter().find(|name| !arguments.contains(name)) {
        None => Ok(names),
        Some(name) => {
            let known = if arguments.is_empty() {
                "it takes none".to_owned()
            } else {
                format!("it takes {}", listed(arguments))
            };
            Err(Error::new(
                name.span(),
                format!("`{name}` is not an argument of `{function}`; {known}"),
            ))
        }
    }
}

/// Names for a message.
pub(crate) fn listed(names: &[Ident]) -> String {
    names
        .iter()
        .map(|name| format!("`{name}`"))
        .collect::<Vec<_>>()
        .join(", ")
}
