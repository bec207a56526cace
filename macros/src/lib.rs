//! Attribute macros for the askonce cache: use them through `askonce`, which re-exports them.
//!
//! Each attribute is read into `arguments::Arguments`, compared with the function it stands on
//! (`function`), and written out as calls of `askonce::typed`. What can be wrong is found here, at
//! compile time and at the place where it stands: an unknown argument, a key that names no argument,
//! an argument that nobody said should or should not be part of the key.
#![forbid(unsafe_code)]

mod arguments;
mod duration;
mod entity;
mod function;
mod key;
mod value;

use proc_macro::TokenStream;
use syn::{DeriveInput, ItemFn, parse_macro_input};

use arguments::Attribute;

/// Makes a function or method return what it returned before, as long as the cache has it.
///
/// The function returns a `CacheValue`, an `Option` of one, or a `Result` of either. Callers that ask
/// for the same key at the same time share one run of the body. An `Err` is never stored; it is shared
/// with those who wait if it is `Clone`, and otherwise each of them runs the body in its turn. A `None`
/// is stored only with `negative_ttl`. No failure of the cache reaches the caller: the body runs.
///
/// | argument | meaning |
/// |---|---|
/// | `cache = <expression>` | The `askonce::Cache`: a static, a field of `self`, an argument. Required. |
/// | `key(id, region)` | What the result depends on: expressions of arguments, each a `KeyPart`. |
/// | `key = "user:{id}"` | The same, as a text with arguments or fields of them in it. |
/// | `ignore(pool)` | Arguments that the result does not depend on. |
/// | `instance = self.tenant` | What tells instances apart: part of the key after the function's name. |
/// | `namespace = "users"` | Takes the place of the module path. Required for methods. |
/// | `ttl = "5m"` | How long a value lives: `ms`, `s`, `m`, `h`, `d`, or `"forever"`; or an expression. Default: the cache's. |
/// | `negative_ttl = "30s"` | How long a `None` lives. Default: it is not stored. |
/// | `cache_err = "10s"` | How long an `Err` is kept, which must be a `CacheValue`. Default: it is not. `async` only. |
/// | `tags = ["user:{id}"]` | What values can be invalidated by together: texts with arguments in them. |
/// | `stale_if_error = "1h"` | How long after its life a value is returned in place of an `Err`. Default: never. |
/// | `early_refresh = 1.0` | How eagerly a value is made anew before its life ends; see `Load::early_refresh`. |
/// | `jitter = 0.1` | The share of its life that may be taken off at random. Default: the cache's. |
/// | `lease` | Makes it one run for all processes; see `Load::lease`. `async` only. |
/// | `sync` | Callers of one key share one run. Always so; `sync = false` is refused. |
/// | `condition = <expression>` | Of the arguments: where it is false, the cache is neither read nor written. |
/// | `unless = \|value\| ..` | Of the value: where it is true, the value is returned and not stored. |
/// | `crate = <path>` | Where `askonce` is, if not at `::askonce`. |
///
/// The key is the namespace or module path, the function's name, the instance, and the declared parts, in that order
/// and nothing else: `Key::new("users").part("name").part(tenant).part(id)` is that of `name` below. In
/// a text, each piece between arguments is a part too, so no argument can pose as two.
///
/// A function that is not `async` needs a `SyncCache`, which stands over a backend in this process: it
/// needs no runtime and blocks none. A function that asks for its own key runs again.
///
/// A macro takes a cache as a value, not a backend's name: a name could be wrong when it is too late.
/// Several caches are fields of a struct, as in `cache = self.caches.local`.
///
/// Each argument must be in `key` or in `ignore`, `self` included: what distinguishes two calls is said
/// and never guessed. A macro does not see the type that a method belongs to, so a method says a
/// `namespace`, and two types with methods of one name do not meet.
///
/// ```
/// use std::sync::{Arc, LazyLock};
///
/// use askonce::backend::{MemoryBackend, MemoryConfig};
/// use askonce::{Cache, cacheable};
///
/// static CACHE: LazyLock<Cache> = LazyLock::new(|| {
///     let memory = MemoryBackend::builder(MemoryConfig::default()).build();
///     Cache::new(Arc::new(memory.expect("the default settings are valid")))
/// });
///
/// #[cacheable(cache = CACHE, key = "square of {n}", ttl = "5m")]
/// async fn square(n: u64) -> u64 {
///     println!("this is said once");
///     n * n
/// }
///
/// struct Users {
///     cache: Cache,
///     tenant: u64,
/// }
///
/// impl Users {
///     #[cacheable(
///         cache = self.cache,
///         namespace = "users",
///         key(self.tenant, id),
///         ttl = "1h30m",
///         negative_ttl = "30s",
///     )]
///     async fn name(&self, id: u64) -> Result<Option<String>, std::io::Error> {
///         Ok((id == 7).then(|| "Ada".to_owned()))
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// assert_eq!((square(3).await, square(3).await), (9, 9));
/// let users = Users { cache: CACHE.clone(), tenant: 1 };
/// assert_eq!(users.name(7).await?.as_deref(), Some("Ada"));
/// # Ok(())
/// # }
/// ```
#[proc_macro_attribute]
pub fn cacheable(arguments: TokenStream, function: TokenStream) -> TokenStream {
    expand(Attribute::Cacheable, arguments, function)
}

/// Stores what a function or method returns as the value of another, cached function.
///
/// The body always runs. A value is stored under the key of the function named by `of`; a `None` is
/// stored for `negative_ttl`, or else deletes what was there; an `Err` leaves it. A value that `unless`
/// turns away deletes what was there too, as that is now out of date.
///
/// Takes the arguments of [`macro@cacheable`] that say where and how to store, and `of = <function>`: the cached
/// function, whose `namespace` (or module) and form of `key` must be the same here.
///
/// ```
/// # use askonce::{Cache, cache_put, cacheable};
/// # struct Names { cache: Cache }
/// impl Names {
///     #[cacheable(cache = self.cache, namespace = "names", key(id), ignore(self))]
///     async fn name(&self, id: u64) -> Option<String> {
///         None
///     }
///
///     #[cache_put(cache = self.cache, namespace = "names", of = name, key(id))]
///     async fn rename(&self, id: u64, name: &str) -> Option<String> {
///         Some(name.to_owned())
///     }
/// }
/// # use std::sync::Arc;
/// # use askonce::backend::{MemoryBackend, MemoryConfig};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> askonce::Result<()> {
/// # let cache = Cache::new(Arc::new(MemoryBackend::builder(MemoryConfig::default()).build()?));
/// # let names = Names { cache };
/// names.rename(7, "Ada").await;
/// assert_eq!(names.name(7).await.as_deref(), Some("Ada"));
/// # Ok(())
/// # }
/// ```
#[proc_macro_attribute]
pub fn cache_put(arguments: TokenStream, function: TokenStream) -> TokenStream {
    expand(Attribute::Put, arguments, function)
}

/// Deletes values of cached functions when another function or method has done its work.
///
/// A `Result` that is an `Err` leaves them; everything else deletes them. `only_if_ok = false` deletes
/// them after an `Err` too, and `before` deletes them before the body runs, whatever comes of it. A
/// deletion that fails is logged and counted, and the function returns what it returned.
///
/// | argument | which values |
/// |---|---|
/// | `of = user, key(id)` | That of the function named by `of` for this key, and its kept error. |
/// | `tags = ["user:{id}"]` | Those with one of these tags, in this process and all others. |
/// | `pattern = "users:name:{tenant}:*"` | Those whose readable keys match, see `Cache::delete_pattern`. With `of`, the pattern is over what follows the function's name. Arguments are written as in a key, and match themselves alone. |
/// | `all` | All in the cache's namespace, see `Cache::clear`. |
///
/// Several of these take several attributes. The rest is as in [`macro@cacheable`]: `cache`, `instance`,
/// `namespace`, `condition`, `crate`.
///
/// ```
/// # use std::sync::{Arc, LazyLock};
/// # use askonce::backend::{MemoryBackend, MemoryConfig};
/// # use askonce::{Cache, cache_invalidate, cacheable};
/// # static CACHE: LazyLock<Cache> = LazyLock::new(|| {
/// #     let memory = MemoryBackend::builder(MemoryConfig::default()).build();
/// #     Cache::new(Arc::new(memory.expect("the default settings are valid")))
/// # });
/// #[cacheable(cache = CACHE, key(id))]
/// async fn name(id: u64) -> String {
///     format!("user {id}")
/// }
///
/// #[cache_invalidate(cache = CACHE, of = name, key(id))]
/// async fn rename(id: u64, to: &str) -> Result<(), std::io::Error> {
///     // ...
///     Ok(())
/// }
/// ```
#[proc_macro_attribute]
pub fn cache_invalidate(arguments: TokenStream, function: TokenStream) -> TokenStream {
    expand(Attribute::Invalidate, arguments, function)
}

/// Derives `askonce::typed::CacheValue`: the name that the stored form of a type is known by.
///
/// ```
/// use askonce::typed::CacheValue;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize, CacheValue)]
/// #[cache_value(name = "invoice", version = 3)]
/// struct Invoice {
///     cents: u64,
/// }
///
/// assert_eq!(Invoice::schema(), "invoice@3");
/// ```
///
/// `version` is 1 unless given. Raise it when values in stores must not be read as the new form.
#[proc_macro_derive(CacheValue, attributes(cache_value))]
pub fn cache_value(item: TokenStream) -> TokenStream {
    let item = parse_macro_input!(item as DeriveInput);
    value::expand(&item)
        .unwrap_or_else(|error| error.to_compile_error())
        .into()
}

/// Derives `askonce::repository::CacheEntity`, and `CacheValue` with it: a type whose values a repository
/// keeps by id.
///
/// ```
/// use askonce::repository::CacheEntity;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize, CacheEntity)]
/// #[cache_entity(name = "user", version = 2, key = "id", ttl = "5m", negative_ttl = "30s")]
/// struct User {
///     id: u64,
///     name: String,
/// }
///
/// assert_eq!(User { id: 7, name: "Ada".to_owned() }.id(), &7);
/// ```
///
/// | argument | meaning |
/// |---|---|
/// | `name = "user"` | The kind of entity, part of every key. Required. |
/// | `key = "id"` | The field that holds the id. Default: `id`. |
/// | `version = 2` | The version of the stored form. Default: 1. |
/// | `ttl = "5m"` | How long an entity is kept. Default: the cache's. |
/// | `negative_ttl = "30s"` | How long it is kept that there is none. Default: it is not kept. |
/// | `list_ttl = "1m"` | How long lists and query results are kept, if nothing changes. Default: five minutes. |
/// | `crate = <path>` | Where `askonce` is, if not at `::askonce`. |
#[proc_macro_derive(CacheEntity, attributes(cache_entity))]
pub fn cache_entity(item: TokenStream) -> TokenStream {
    let item = parse_macro_input!(item as DeriveInput);
    entity::expand(&item)
        .unwrap_or_else(|error| error.to_compile_error())
        .into()
}

fn expand(attribute: Attribute, arguments: TokenStream, function: TokenStream) -> TokenStream {
    let function = parse_macro_input!(function as ItemFn);
    let expanded = arguments::parse(attribute, arguments.into())
        .and_then(|arguments| function::expand(attribute, &arguments, &function));
    // The function itself stays, so that its callers do not fail as well.
    let expanded = expanded.unwrap_or_else(|error| {
        let error = error.to_compile_error();
        quote::quote!(#error #function)
    });
    expanded.into()
}
