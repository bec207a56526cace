//! `#[derive(CacheEntity)]`.

use proc_macro2::{Span, TokenStream};
use quote::quote;
use syn::{Data, DeriveInput, Error, Field, LitInt, LitStr, Path, Result};

use crate::arguments::TtlSource;
use crate::value;

/// What stands in `#[cache_entity(..)]`.
struct Arguments {
    name: LitStr,
    key: LitStr,
    version: u32,
    ttl: Option<TtlSource>,
    negative_ttl: Option<TtlSource>,
    list_ttl: Option<TtlSource>,
    krate: Path,
}

pub(crate) fn expand(item: &DeriveInput) -> Result<TokenStream> {
    let arguments = read(item)?;
    let Arguments {
        name, key, krate, ..
    } = &arguments;
    let field = field(item, key)?;
    let (id, kind) = (&field.ident, &field.ty);
    let value = value::implementation(item, name, arguments.version, krate)?;
    let ttl = arguments.ttl.as_ref().map(|ttl| {
        let ttl = ttl.tokens(krate);
        quote! {
            fn ttl() -> #krate::typed::Ttl { #ttl }
        }
    });
    let negative_ttl = arguments.negative_ttl.as_ref().map(|ttl| {
        let ttl = ttl.tokens(krate);
        quote! {
            fn negative_ttl() -> ::core::option::Option<#krate::typed::Ttl> {
                ::core::option::Option::Some(#ttl)
            }
        }
    });
    let list_ttl = arguments.list_ttl.as_ref().map(|ttl| {
        let ttl = ttl.tokens(krate);
        quote! {
            fn list_ttl() -> #krate::typed::Ttl { #ttl }
        }
    });
    let ident = &item.ident;
    let (impl_generics, type_generics, where_clause) = item.generics.split_for_impl();
    Ok(quote! {
        #value

        impl #impl_generics #krate::repository::CacheEntity for #ident #type_generics #where_clause {
            type Id = #kind;

            const NAME: &'static str = #name;

            fn id(&self) -> &#kind {
                &self.#id
            }

            #ttl
            #negative_ttl
            #list_ttl
        }
    })
}

fn read(item: &DeriveInput) -> Result<Arguments> {
    let mut name: Option<LitStr> = None;
    let mut arguments = Arguments {
        // Replaced below, or an error returned.
        name: LitStr::new("", Span::call_site()),
        key: LitStr::new("id", Span::call_site()),
        version: 1,
        ttl: None,
        negative_ttl: None,
        list_ttl: None,
        krate: syn::parse_quote!(::askonce),
    };
    for attribute in item
        .attrs
        .iter()
        .filter(|attribute| attribute.path().is_ident("cache_entity"))
    {
        attribute.parse_nested_meta(|meta| {
            let given = |name: &str| meta.path.is_ident(name);
            if given("name") {
                name = Some(meta.value()?.parse()?);
            } else if given("key") {
                arguments.key = meta.value()?.parse()?;
            } else if given("version") {
                arguments.version = meta.value()?.parse::<LitInt>()?.base10_parse()?;
            } else if given("ttl") {
                arguments.ttl = Some(TtlSource::new(meta.value()?.parse()?)?);
            } else if given("negative_ttl") {
                arguments.negative_ttl = Some(TtlSource::new(meta.value()?.parse()?)?);
            } else if given("list_ttl") {
                arguments.list_ttl = Some(TtlSource::new(meta.value()?.parse()?)?);
            } else if given("crate") {
                arguments.krate = meta.value()?.parse()?;
            } else {
                return Err(meta.error(
                    "unknown argument; `cache_entity` takes `name`, `key`, `version`, `ttl`, \
                     `negative_ttl`, `list_ttl`, `crate`",
                ));
            }
            Ok(())
        })?;
    }
    arguments.name = name.ok_or_else(|| {
        Error::new(
            Span::call_site(),
            "an entity is known by a name that outlives renames in the code: \
             add `#[cache_entity(name = \"..\")]`",
        )
    })?;
    Ok(arguments)
}

/// The field that holds the id.
fn field<'a>(item: &'a DeriveInput, key: &LitStr) -> Result<&'a Field> {
    let Data::Struct(data) = &item.data else {
        return Err(Error::new_spanned(
            &item.ident,
            "implement `CacheEntity` by hand for what is no struct: a macro does not see where its id is",
        ));
    };
    let name = key.value();
    let named = |field: &&Field| field.ident.as_ref().is_some_and(|ident| *ident == name);
    data.fields.iter().find(named).ok_or_else(|| {
        Error::new(
            key.span(),
            format!(
                "`{}` has no field `{name}`: say which one holds the id, as in `key = \"..\"`",
                item.ident
            ),
        )
    })
}
