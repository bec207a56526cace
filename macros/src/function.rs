//! The function that an attribute stands on: what is checked of it, and what becomes of it.

use proc_macro2::{Ident, Span, TokenStream, TokenTree};
use quote::{ToTokens, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Error, Expr, FnArg, ItemFn, Pat, PatIdent, Result, ReturnType, Type, TypeImplTrait};

use crate::arguments::{Arguments, Attribute};
use crate::key::{self, Template};

/// The function with the cache around its body.
pub(crate) fn expand(
    attribute: Attribute,
    arguments: &Arguments,
    function: &ItemFn,
) -> Result<TokenStream> {
    check(attribute, arguments, function)?;
    let Arguments {
        krate,
        cache,
        condition,
        ..
    } = arguments;
    let ItemFn {
        attrs,
        vis,
        sig,
        block,
        ..
    } = function;
    let output = match &sig.output {
        ReturnType::Default => quote!(()),
        ReturnType::Type(_, output) if names_no_type(output) => quote!(_),
        ReturnType::Type(_, output) => output.to_token_stream(),
    };
    let expansion = quote!(#krate::typed::expansion);
    let is_async = sig.asyncness.is_some();
    let wait = is_async.then(|| quote!(.await));
    let condition = match condition {
        Some(condition) => quote!(#condition),
        None => quote!(true),
    };
    let unless = match &arguments.unless {
        Some(unless) => quote!(#unless),
        None => quote!(|_| false),
    };
    let error = quote_spanned!(output.span()=> <#output as #krate::typed::Loaded>::Error);
    let kind = if is_async {
        quote!(#krate::typed::Cache)
    } else {
        quote!(#krate::typed::SyncCache)
    };
    let what = match attribute {
        Attribute::Invalidate => target(arguments, function, &expansion),
        Attribute::Cacheable | Attribute::Put => call(arguments, function, &output, &expansion),
    };
    // The key and the cache are read before the body takes the arguments away.
    let prepare = quote! {
        let __askonce_call = if #condition {
            let __askonce_cache: &#kind = &#cache;
            let __askonce_cache = ::core::clone::Clone::clone(__askonce_cache);
            ::core::option::Option::Some(#what)
        } else {
            ::core::option::Option::None
        };
    };
    // What is not yet running: a future, or a closure.
    let (body, run) = if is_async {
        let body = quote!(#expansion::typed::<#output>(async move #block));
        (body, quote!(__askonce_body.await))
    } else {
        let body = quote!(move || -> #output #block);
        (body, quote!(__askonce_body()))
    };
    let body = match attribute {
        Attribute::Cacheable => {
            let sharing = quote!({
                use #expansion::{ByClone as _, Never as _};
                (&#expansion::Probe::<#error>::new()).__askonce_sharing()
            });
            let cached = match &arguments.cache_err {
                None => quote! {
                    __askonce_call.run::<#output>(#sharing, #unless, __askonce_body)#wait
                },
                Some(ttl) => {
                    let ttl = ttl.tokens(krate);
                    quote! {
                        __askonce_call
                            .run_keeping_errors::<#output, _>(#ttl, #sharing, #unless, __askonce_body)
                            #wait
                    }
                }
            };
            quote! {
                let __askonce_body = #body;
                match __askonce_call {
                    ::core::option::Option::Some(__askonce_call) => #cached,
                    ::core::option::Option::None => #run,
                }
            }
        }
        Attribute::Put => quote! {
            let __askonce_body = #body;
            let __askonce_output: #output = #run;
            if let ::core::option::Option::Some(__askonce_call) = __askonce_call {
                __askonce_call.keep::<#output, _>(&__askonce_output, #unless)#wait;
            }
            __askonce_output
        },
        Attribute::Invalidate if arguments.before => quote! {
            if let ::core::option::Option::Some(__askonce_call) = __askonce_call {
                __askonce_call.forget()#wait;
            }
            let __askonce_body = #body;
            #run
        },
        Attribute::Invalidate => {
            let succeeded = if arguments.only_if_ok {
                quote!({
                    use #expansion::{Silent as _, Tells as _};
                    (&__askonce_output).__askonce_succeeded()
                })
            } else {
                quote!(true)
            };
            quote! {
                let __askonce_body = #body;
                let __askonce_output = #run;
                if let ::core::option::Option::Some(__askonce_call) = __askonce_call {
                    let __askonce_succeeded: bool = #succeeded;
                    if __askonce_succeeded {
                        __askonce_call.forget()#wait;
                    }
                }
                __askonce_output
            }
        }
    };
    Ok(quote! {
        #(#attrs)*
        #vis #sig {
            #prepare
            #body
        }
    })
}

/// What `cacheable` and `cache_put` say, as an expression.
fn call(
    arguments: &Arguments,
    function: &ItemFn,
    output: &TokenStream,
    expansion: &TokenStream,
) -> TokenStream {
    let krate = &arguments.krate;
    let key = key_tokens(arguments, function);
    let optional = |value: Option<TokenStream>| match value {
        Some(value) => quote!(::core::option::Option::Some(#value)),
        None => quote!(::core::option::Option::None),
    };
    let ttl = match &arguments.ttl {
        Some(ttl) => ttl.tokens(krate),
        None => quote!(#krate::typed::Ttl::Default),
    };
    let negative_ttl = optional(arguments.negative_ttl.as_ref().map(|ttl| {
        let ttl = ttl.tokens(krate);
        quote!({
            const { #expansion::assert_maybe_none::<#output>() };
            #ttl
        })
    }));
    let tags = arguments.tags.iter().map(Template::shown);
    let jitter = optional(arguments.jitter.as_ref().map(ToTokens::to_token_stream));
    let early_refresh = optional(
        arguments
            .early_refresh
            .as_ref()
            .map(ToTokens::to_token_stream),
    );
    let stale_if_error = optional(arguments.stale_if_error.map(|length| {
        let millis = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
        quote!(::core::time::Duration::from_millis(#millis))
    }));
    let lease = arguments.lease;
    quote!(#expansion::Call {
        cache: __askonce_cache,
        key: #key,
        ttl: #ttl,
        negative_ttl: #negative_ttl,
        tags: ::std::vec![#(#tags),*],
        jitter: #jitter,
        stale_if_error: #stale_if_error,
        early_refresh: #early_refresh,
        lease: #lease,
    })
}

/// What `cache_invalidate` says, as an expression.
fn target(arguments: &Arguments, function: &ItemFn, expansion: &TokenStream) -> TokenStream {
    let target = if arguments.all {
        quote!(All)
    } else if let Some(pattern) = &arguments.pattern {
        let start = match &arguments.of {
            Some(_) => {
                let key = key_tokens(arguments, function);
                quote!(#expansion::Pattern::under(&#key))
            }
            None => quote!(#expansion::Pattern::new()),
        };
        let pieces = pattern.pieces();
        quote!(Pattern(#start #pieces))
    } else if arguments.tags.is_empty() {
        let key = key_tokens(arguments, function);
        quote!(Key(#key))
    } else {
        let tags = arguments.tags.iter().map(Template::shown);
        quote!(Tags(::std::vec![#(#tags),*]))
    };
    quote!(#expansion::OutOfDate {
        cache: __askonce_cache,
        target: #expansion::Target::#target,
    })
}

/// The key: where the cached function is, its name, and the declared parts.
fn key_tokens(arguments: &Arguments, function: &ItemFn) -> TokenStream {
    let krate = &arguments.krate;
    let name = arguments
        .of
        .as_ref()
        .unwrap_or(&function.sig.ident)
        .to_string();
    let place = match &arguments.namespace {
        Some(namespace) => quote!(#namespace),
        None => quote!(::core::module_path!()),
    };
    let instance = arguments.instance.as_ref().map(key::part_of);
    let parts = arguments.key.as_ref().map(key::KeySource::tokens);
    quote!(#krate::typed::Key::new(#place).part(#name)#instance #parts)
}

fn check(attribute: Attribute, arguments: &Arguments, function: &ItemFn) -> Result<()> {
    let sig = &function.sig;
    let attribute_name = attribute.name();
    if sig.constness.is_some() {
        return Err(Error::new_spanned(
            sig.constness,
            format!(
                "`{attribute_name}` cannot stand on a `const fn`: a cache is there only at run time"
            ),
        ));
    }
    if sig.asyncness.is_none() && (arguments.lease || arguments.cache_err.is_some()) {
        let argument = if arguments.lease {
            "lease"
        } else {
            "cache_err"
        };
        return Err(Error::new_spanned(
            sig.fn_token,
            format!("`{argument}` needs an `async fn`"),
        ));
    }
    if attribute != Attribute::Invalidate {
        match &sig.output {
            ReturnType::Default => {
                return Err(Error::new_spanned(
                    &sig.ident,
                    format!("`{}` returns nothing that could be cached", sig.ident),
                ));
            }
            ReturnType::Type(_, output) if names_no_type(output) => {
                return Err(Error::new_spanned(
                    output,
                    "name the type: a cached value is read back as a type that is known here",
                ));
            }
            ReturnType::Type(..) => {}
        }
    }
    let names_keys = attribute != Attribute::Invalidate || arguments.of.is_some();
    if names_keys
        && arguments.namespace.is_none()
        && (sig.receiver().is_some() || mentions_self_type(function))
    {
        return Err(Error::new_spanned(
            &sig.ident,
            format!(
                "a method needs a `namespace`: the macro does not see which type `{}` belongs to, \
                 and two types would share their values",
                sig.ident
            ),
        ));
    }
    let known = argument_names(function);
    for name in &arguments.ignore {
        if !known.contains(name) {
            return Err(Error::new(
                name.span(),
                format!("`{name}` is not an argument of `{}`", sig.ident),
            ));
        }
    }
    let templates = arguments.tags.iter().chain(&arguments.pattern);
    for part in templates
        .flat_map(Template::places)
        .chain(&arguments.instance)
    {
        key::check_names(part, &sig.ident, &known)?;
    }
    let cache = name_of(&arguments.cache);
    let free: Vec<_> = known
        .iter()
        .filter(|name| cache != Some(name) && !arguments.ignore.contains(name))
        .collect();
    let other_target = arguments.all || arguments.pattern.is_some() || !arguments.tags.is_empty();
    if attribute == Attribute::Invalidate && other_target {
        return Ok(());
    }
    if let Some(key) = &arguments.key {
        key::check(key, &sig.ident, &known)?;
    } else if free
        .iter()
        .any(|name| *name != "self" || arguments.instance.is_none())
        || (attribute != Attribute::Cacheable && arguments.instance.is_none())
    {
        let example = if free.is_empty() {
            "..".to_owned()
        } else {
            free.iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(", ")
        };
        return Err(Error::new(
            Span::call_site(),
            format!("`key` is missing: say what tells two values apart, as in `key({example})`"),
        ));
    }
    if attribute == Attribute::Cacheable {
        check_that_every_argument_is_accounted_for(arguments, function, &free)?;
    }
    Ok(())
}

/// `free` are the arguments that are neither ignored nor the cache itself.
fn check_that_every_argument_is_accounted_for(
    arguments: &Arguments,
    function: &ItemFn,
    free: &[&Ident],
) -> Result<()> {
    let expressions = arguments.key.as_ref().map(key::KeySource::expressions);
    let used: Vec<_> = expressions
        .into_iter()
        .flatten()
        .chain(&arguments.instance)
        .flat_map(key::names_in)
        .collect();
    if let Some(name) = arguments.ignore.iter().find(|name| used.contains(name)) {
        let message = format!("`{name}` is in the key and cannot be ignored");
        return Err(Error::new(name.span(), message));
    }
    let Some(name) = free.iter().find(|name| !used.contains(name)) else {
        return Ok(());
    };
    let message = if *name == "self" {
        "`self` is neither in the key nor ignored, so two instances would share their values: \
         declare what tells them apart, as in `instance = self.tenant`, or write `ignore(self)`"
            .to_owned()
    } else {
        format!(
            "`{name}` is neither in the key nor ignored, so calls of `{}` that differ in it would \
             share their values: add it to the key, or write `ignore({name})`",
            function.sig.ident
        )
    };
    Err(Error::new(name.span(), message))
}

/// The argument that a cache expression consists of.
fn name_of(cache: &Expr) -> Option<&Ident> {
    match cache {
        Expr::Path(path) => path.path.get_ident(),
        Expr::Reference(reference) => name_of(&reference.expr),
        Expr::Paren(paren) => name_of(&paren.expr),
        _ => None,
    }
}

/// Every name that the arguments bind, `self` included.
fn argument_names(function: &ItemFn) -> Vec<Ident> {
    struct Bound(Vec<Ident>);
    impl<'a> Visit<'a> for Bound {
        fn visit_pat_ident(&mut self, pattern: &'a PatIdent) {
            self.0.push(pattern.ident.clone());
            visit::visit_pat_ident(self, pattern);
        }
    }
    let mut bound = Bound(Vec::new());
    for input in &function.sig.inputs {
        match input {
            FnArg::Receiver(receiver) => {
                bound.0.push(Ident::new("self", receiver.self_token.span));
            }
            FnArg::Typed(argument) => {
                let pattern: &Pat = &argument.pat;
                bound.visit_pat(pattern);
            }
        }
    }
    bound.0
}

fn names_no_type(output: &Type) -> bool {
    struct Opaque(bool);
    impl<'a> Visit<'a> for Opaque {
        fn visit_type_impl_trait(&mut self, _: &'a TypeImplTrait) {
            self.0 = true;
        }
    }
    let mut opaque = Opaque(false);
    opaque.visit_type(output);
    opaque.0
}

/// Whether the function stands in an `impl` block, as far as its own text tells.
fn mentions_self_type(function: &ItemFn) -> bool {
    fn any(tokens: TokenStream) -> bool {
        tokens.into_iter().any(|token| match token {
            TokenTree::Ident(name) => name == "Self",
            TokenTree::Group(group) => any(group.stream()),
            _ => false,
        })
    }
    any(function.sig.to_token_stream()) || any(function.block.to_token_stream())
}
