//! What stands in the parentheses of an attribute.

use std::time::Duration;

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, quote};
use syn::ext::IdentExt;
use syn::parse::{ParseStream, Parser};
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::{
    Error, Expr, ExprArray, ExprLit, Ident, Lit, LitBool, LitStr, Path, Result, Token,
    parenthesized,
};

use crate::duration;
use crate::key::{KeySource, Template};

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
                "instance",
                "namespace",
                "ttl",
                "negative_ttl",
                "cache_err",
                "tags",
                "condition",
                "unless",
                "jitter",
                "stale_if_error",
                "early_refresh",
                "lease",
                "sync",
                "crate",
            ],
            Self::Put => &[
                "cache",
                "of",
                "key",
                "instance",
                "namespace",
                "ttl",
                "negative_ttl",
                "tags",
                "condition",
                "unless",
                "jitter",
                "crate",
            ],
            Self::Invalidate => &[
                "cache",
                "of",
                "key",
                "tags",
                "pattern",
                "all",
                "instance",
                "namespace",
                "before",
                "only_if_ok",
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
    /// Part of the key, after the function's name.
    pub(crate) instance: Option<Expr>,
    pub(crate) ttl: Option<TtlSource>,
    pub(crate) negative_ttl: Option<TtlSource>,
    pub(crate) cache_err: Option<TtlSource>,
    pub(crate) tags: Vec<Template>,
    pub(crate) pattern: Option<Template>,
    pub(crate) all: bool,
    pub(crate) jitter: Option<Expr>,
    pub(crate) stale_if_error: Option<Duration>,
    pub(crate) early_refresh: Option<Expr>,
    pub(crate) lease: bool,
    pub(crate) condition: Option<Expr>,
    pub(crate) unless: Option<Expr>,
    pub(crate) before: bool,
    pub(crate) only_if_ok: bool,
    pub(crate) krate: Path,
}

/// A time to live: known now, or computed at each call.
pub(crate) enum TtlSource {
    For(Duration),
    Forever,
    Computed(Box<Expr>),
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
            computed => Ok(Self::Computed(Box::new(computed))),
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
        instance: None,
        ttl: None,
        negative_ttl: None,
        cache_err: None,
        tags: Vec::new(),
        pattern: None,
        all: false,
        jitter: None,
        stale_if_error: None,
        early_refresh: None,
        lease: false,
        condition: None,
        unless: None,
        before: false,
        only_if_ok: true,
        krate: syn::parse_quote!(::askonce),
    };
    while !input.is_empty() {
        let name = input.call(Ident::parse_any)?;
        if name == "backend" {
            return Err(Error::new(
                name.span(),
                "a cache is chosen as a value and not by a name that may not exist: \
                 `cache = self.caches.local`",
            ));
        }
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
            "instance" => arguments.instance = Some(value(&name, input)?),
            "cache_err" => arguments.cache_err = Some(TtlSource::new(value(&name, input)?)?),
            "tags" => arguments.tags = tags(&name, input)?,
            "pattern" => arguments.pattern = Some(Template::new(&value(&name, input)?)?),
            "all" => arguments.all = flag(&name, input)?,
            "jitter" => arguments.jitter = Some(value(&name, input)?),
            "stale_if_error" => arguments.stale_if_error = Some(length(&name, input)?),
            "early_refresh" => arguments.early_refresh = Some(value(&name, input)?),
            "lease" => arguments.lease = flag(&name, input)?,
            "sync" => {
                if !flag(&name, input)? {
                    return Err(Error::new(
                        name.span(),
                        "callers who ask for one key at one time always share one run: \
                         what is not to be shared needs a key of its own, or no cache",
                    ));
                }
            }
            "only_if_ok" => arguments.only_if_ok = flag(&name, input)?,
            "negative_ttl" => arguments.negative_ttl = Some(TtlSource::new(value(&name, input)?)?),
            "condition" => arguments.condition = Some(value(&name, input)?),
            "unless" => arguments.unless = Some(value(&name, input)?),
            "before" => arguments.before = flag(&name, input)?,
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
    let missing_of = || {
        Err(Error::new(
            Span::call_site(),
            "`of` is missing: say whose values are meant, as in `of = find_user`",
        ))
    };
    match attribute {
        Attribute::Cacheable => {}
        Attribute::Put if arguments.of.is_none() => return missing_of(),
        Attribute::Put => {}
        Attribute::Invalidate => {
            let given = [
                arguments.key.is_some(),
                !arguments.tags.is_empty(),
                arguments.pattern.is_some(),
                arguments.all,
            ];
            let given = given.iter().filter(|given| **given).count();
            if given > 1 {
                return Err(Error::new(
                    Span::call_site(),
                    "`key`, `tags`, `pattern` and `all` are four ways to say what is out of date: \
                     give each an attribute of its own",
                ));
            }
            let named = given == 0 || arguments.key.is_some();
            if named && arguments.of.is_none() {
                return missing_of();
            }
        }
    }
    if arguments.before && !arguments.only_if_ok {
        return Err(Error::new(
            Span::call_site(),
            "with `before = true` nothing is known of the result: leave out `only_if_ok`",
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

/// `name`, or `name = true`.
fn flag(name: &Ident, input: ParseStream<'_>) -> Result<bool> {
    if input.is_empty() || input.peek(Token![,]) {
        return Ok(true);
    }
    value::<LitBool>(name, input).map(|flag| flag.value)
}

/// A length of time that is known now.
fn length(name: &Ident, input: ParseStream<'_>) -> Result<Duration> {
    let text: LitStr = value(name, input)?;
    duration::parse(&text.value()).map_err(|message| Error::new(text.span(), message))
}

/// `["user:{id}", ..]`.
fn tags(name: &Ident, input: ParseStream<'_>) -> Result<Vec<Template>> {
    let tags: ExprArray = value(name, input)?;
    if tags.elems.is_empty() {
        return Err(Error::new(name.span(), "no tag is given; leave out `tags`"));
    }
    let texts = tags.elems.iter().map(|tag| match tag {
        Expr::Lit(ExprLit {
            lit: Lit::Str(text),
            ..
        }) => Template::new(text),
        other => Err(Error::new_spanned(
            other,
            "a tag is a text with arguments in it: \"user:{id}\"",
        )),
    });
    texts.collect()
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
        }) => Template::new(&text).map(KeySource::Template),
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
