//! `#[derive(CacheValue)]`.

use proc_macro2::{Span, TokenStream};
use quote::quote;
use syn::{DeriveInput, Error, LitInt, LitStr, Path, Result};

pub(crate) fn expand(item: &DeriveInput) -> Result<TokenStream> {
    let mut name: Option<LitStr> = None;
    let mut version = 1_u32;
    let mut krate: Path = syn::parse_quote!(::askonce);
    for attribute in item
        .attrs
        .iter()
        .filter(|attribute| attribute.path().is_ident("cache_value"))
    {
        attribute.parse_nested_meta(|meta| {
            if meta.path.is_ident("name") {
                name = Some(meta.value()?.parse()?);
            } else if meta.path.is_ident("version") {
                version = meta.value()?.parse::<LitInt>()?.base10_parse()?;
            } else if meta.path.is_ident("crate") {
                krate = meta.value()?.parse()?;
            } else {
                return Err(
                    meta.error("unknown argument; `cache_value` takes `name`, `version`, `crate`")
                );
            }
            Ok(())
        })?;
    }
    let name = name.ok_or_else(|| {
        Error::new(
            Span::call_site(),
            "a stored value is known by a name that outlives renames in the code: \
             add `#[cache_value(name = \"..\")]`",
        )
    })?;
    implementation(item, &name, version, &krate)
}

/// `impl CacheValue`, once it is known what to write there.
pub(crate) fn implementation(
    item: &DeriveInput,
    name: &LitStr,
    version: u32,
    krate: &Path,
) -> Result<TokenStream> {
    if name.value().is_empty() {
        return Err(Error::new(name.span(), "a stored value is known by a name"));
    }
    if let Some(parameter) = item.generics.type_params().next() {
        return Err(Error::new_spanned(
            parameter,
            "implement `CacheValue` by hand for a generic type: its name must tell its parameters apart",
        ));
    }
    let schema = format!("{}@{version}", name.value());
    let ident = &item.ident;
    let (impl_generics, type_generics, where_clause) = item.generics.split_for_impl();
    Ok(quote! {
        impl #impl_generics #krate::typed::CacheValue for #ident #type_generics #where_clause {
            fn schema() -> ::std::borrow::Cow<'static, str> {
                ::std::borrow::Cow::Borrowed(#schema)
            }
        }
    })
}
