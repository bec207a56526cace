//! What stands in the parentheses of an attribute.

use std::time::Duration;

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, quote};
use syn::ext::IdentExt;
use syn::parse::{ParseStream, Parser};
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::{Error, Expr, ExprLit, Ident, Lit, LitBool, LitStr, Path, Result, Token, parenthesized};

use crate::duration;
use crate::key::KeySource;

/// Which attribute is expanded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attribute {
    Cacheable,
    Put,
    Invalidate,
}

impl Attribute {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Cacheable => "cacheable",
            Self::Put => "cache_put",
            Self::Invalidate => "cache_invalidate",
        }
    }

    /// The arguments it takes.
    const fn known(self) -> &'static [&'static str] {
        match self {
            Self::Cacheable => &[
                "cache",
                "key",
                "ignore",
                "namespace",
                "ttl",
                "negative_ttl",
                "condition",
                "unless",
                "crate",
            ],
            Self::Put => &[
                "cache",
                "of",
                "key",
                "namespace",
                "ttl",
                "negative_ttl",
                "condition",
                "unless",
                "crate",
            ],
            Self::Invalidate => &[
                "cache",
                "of",
                "key",
                "namespace",
                "before",
                "condition",
                "crate",
            ],
        }
    }
}

/// The arguments of an attribute; what must be there is.
pub(crate) struct Arguments {
    pub(crate) cache: Expr,
    pub(crate) key: Option<KeySource>,
    pub(crate) ignore: Vec<Ident>,
    pub(crate) of: Option<Ident>,
    pub(crate) namespace: Option<LitStr>,
    pub(crate) ttl: Option<TtlSource>,
    pub(crate) negative_ttl: Option<TtlSource>,
    pub(crate) condition: Option<Expr>,
    pub(crate) unless: Option<Expr>,
    pub(crate) before: bool,
    pub(crate) krate: Path,
}

/// A time to live: known now, or computed at each call.
pub(crate) enum TtlSource {
    For(Duration),
    Forever,
    Computed(Expr),
}

impl TtlSource {
    pub(crate) fn new(source: Expr) -> Result<Self> {
        match source {
            Expr::Lit(ExprLit {
                lit: Lit::Str(text),
                ..
            }) => match text.value().as_str() {
                "forever" => Ok(Self::Forever),
                length => duration::parse(length)
                    .map(Self::For)
                    .map_err(|message| Error::new(text.span(), message)),
            },
            Expr::Lit(literal) => Err(Error::new_spanned(
                literal,
                "a length of time needs a unit: write it as \"30s\", or as an expression of type `Duration`",
            )),
            computed => Ok(Self::Computed(computed)),
        }
    }

    /// An expression of type `Ttl`.
    pub(crate) fn tokens(&self, krate: &Path) -> TokenStream {
        let ttl = quote!(#krate::typed::Ttl);
        match self {
            Self::For(length) => {
                let millis = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
                quote!(#ttl::For(::core::time::Duration::from_millis(#millis)))
            }
            Self::Forever => quote!(#ttl::Forever),
            Self::Computed(expression) => quote!(#ttl::from(#expression)),
        }
    }
}

/// Reads the arguments of `attribute`.
pub(crate) fn parse(attribute: Attribute, tokens: TokenStream) -> Result<Arguments> {
    (|input: ParseStream<'_>| read(attribute, input)).parse2(tokens)
}

fn read(attribute: Attribute, input: ParseStream<'_>) -> Result<Arguments> {
    let mut seen: Vec<Ident> = Vec::new();
    let mut cache = None;
    let mut arguments = Arguments {
        // Replaced below, or an error returned.
        cache: Expr::Verbatim(TokenStream::new()),
        key: None,
        ignore: Vec::new(),
        of: None,
        namespace: None,
        ttl: None,
        negative_ttl: None,
        condition: None,
        unless: None,
        before: false,
        krate: syn::parse_quote!(::askonce),
    };
    while !input.is_empty() {
        let name = input.call(Ident::parse_any)?;
        let known = attribute.known();
        if !known.iter().any(|known| name == known) {
            let message = format!(
                "unknown argument `{name}`; `{}` takes {}",
                attribute.name(),
                known
                    .iter()
                    .map(|name| format!("`{name}`"))
                    .collect::<Vec<_>>()
                    .join(", ")
            );
            return Err(Error::new(name.span(), message));
        }
        if seen.contains(&name) {
            return Err(Error::new(name.span(), format!("`{name}` is given twice")));
        }
        match name.to_string().as_str() {
            "cache" => cache = Some(value(&name, input)?),
            "key" => arguments.key = Some(key(&name, input)?),
            "ignore" => arguments.ignore = names(input)?,
            "of" => arguments.of = Some(value(&name, input)?),
            "namespace" => arguments.namespace = Some(namespace(value(&name, input)?)?),
            "ttl" => arguments.ttl = Some(TtlSource::new(value(&name, input)?)?),
            "negative_ttl" => arguments.negative_ttl = Some(TtlSource::new(value(&name, input)?)?),
            "condition" => arguments.condition = Some(value(&name, input)?),
            "unless" => arguments.unless = Some(value(&name, input)?),
            "before" => arguments.before = value::<LitBool>(&name, input)?.value,
            "crate" => arguments.krate = value(&name, input)?,
            _ => unreachable!("checked against the list of known arguments"),
        }
        seen.push(name);
        if !input.is_empty() {
            input.parse::<Token![,]>()?;
        }
    }
    arguments.cache = cache.ok_or_else(|| {
        Error::new(
            Span::call_site(),
            "`cache` is missing: say which cache to use, as in `cache = self.cache` or `cache = CACHE`",
        )
    })?;
    if attribute != Attribute::Cacheable && arguments.of.is_none() {
        return Err(Error::new(
            Span::call_site(),
            "`of` is missing: say whose values are meant, as in `of = find_user`",
        ));
    }
    Ok(arguments)
}

/// What follows `name =`.
fn value<T: syn::parse::Parse>(name: &Ident, input: ParseStream<'_>) -> Result<T> {
    if !input.peek(Token![=]) {
        return Err(Error::new(
            name.span(),
            format!("`{name}` needs a value: `{name} = ..`"),
        ));
    }
    input.parse::<Token![=]>()?;
    input.parse()
}

fn namespace(name: LitStr) -> Result<LitStr> {
    if name.value().is_empty() {
        return Err(Error::new(name.span(), "a namespace has a name"));
    }
    Ok(name)
}

/// `key = "text with {arguments}"`, or `key(expression, ..)`.
fn key(name: &Ident, input: ParseStream<'_>) -> Result<KeySource> {
    if input.peek(syn::token::Paren) {
        let parts;
        parenthesized!(parts in input);
        let parts = Punctuated::<Expr, Token![,]>::parse_terminated(&parts)?;
        return Ok(KeySource::Parts(parts.into_iter().collect()));
    }
    match value::<Expr>(name, input)? {
        Expr::Lit(ExprLit {
            lit: Lit::Str(text),
            ..
        }) => KeySource::template(&text),
        other => Err(Error::new(
            other.span(),
            format!(
                "`key = ..` takes a text with arguments in it; write expressions as `key({})`",
                other.to_token_stream()
            ),
        )),
    }
}

/// `(name, ..)`, `self` included.
fn names(input: ParseStream<'_>) -> Result<Vec<Ident>> {
    if !input.peek(syn::token::Paren) {
        return Err(input.error("`ignore` takes the names of arguments: `ignore(self, pool)`"));
    }
    let names;
    parenthesized!(names in input);
    let names = names.parse_terminated(Ident::parse_any, Token![,])?;
    Ok(names.into_iter().collect())
}
