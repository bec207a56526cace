//! What the attribute macros expand to. Not part of the public API: it changes with them.

use std::marker::PhantomData;
use std::time::Duration;

pub use super::load::Sharing;
use super::sync::now;
use super::{Cache, CacheValue, Key, KeyPart, LeaseOptions, Load, Loaded, SyncCache, Ttl};
use crate::error::Result;

/// What an attribute says about a function. The cache is held by value, so that it does not borrow from
/// the function's arguments.
#[derive(Debug)]
pub struct Call<C> {
    /// The cache.
    pub cache: C,
    /// The name of the value.
    pub key: Key,
    /// How long a value lives.
    pub ttl: Ttl,
    /// How long a `None` lives.
    pub negative_ttl: Option<Ttl>,
    /// What the value can be invalidated by.
    pub tags: Vec<String>,
    /// The share of its life that may be taken off at random.
    pub jitter: Option<f64>,
    /// How long after its life a value is served in place of an error.
    pub stale_if_error: Option<Duration>,
    /// How eagerly a value is made anew before its life ends.
    pub early_refresh: Option<f64>,
    /// Whether processes share a load.
    pub lease: bool,
}

impl<C> Call<C> {
    fn load_from<'a>(&self, cache: &'a Cache) -> Load<'a> {
        let mut load = cache
            .load(&self.key)
            .ttl(self.ttl)
            .tags(self.tags.iter().cloned());
        if let Some(ttl) = self.negative_ttl {
            load = load.negative_ttl(ttl);
        }
        if let Some(jitter) = self.jitter {
            load = load.jitter(jitter);
        }
        if let Some(stale) = self.stale_if_error {
            load = load.stale_if_error(stale);
        }
        if let Some(beta) = self.early_refresh {
            load = load.early_refresh(beta);
        }
        if self.lease {
            load = load.lease(LeaseOptions::default());
        }
        load
    }
}

impl Call<Cache> {
    /// `cacheable`.
    pub async fn run<L: Loaded>(
        self,
        sharing: Sharing<L::Error>,
        unless: impl FnOnce(&L::Value) -> bool,
        load: impl Future<Output = L>,
    ) -> L {
        self.load_from(&self.cache)
            .run_with(sharing, unless, || load)
            .await
    }

    /// `cacheable` with `cache_err`: an error is kept beside the value, in a place of its own, and only
    /// looked at when there is no value.
    pub async fn run_keeping_errors<L, F>(
        self,
        ttl: Ttl,
        sharing: Sharing<L::Error>,
        unless: impl FnOnce(&L::Value) -> bool,
        load: F,
    ) -> L
    where
        L: Fallible,
        F: Future<Output = L>,
    {
        let Self {
            cache, key, tags, ..
        } = &self;
        let load = async move {
            let mut load = Some(load);
            let mut done = None;
            let key = error_key(key);
            let failure = cache.load(&key).ttl(ttl).tags(tags.iter().cloned());
            let failed = failure.run(async || match load.take()?.await.split() {
                Ok(loaded) => {
                    done = Some(loaded);
                    None
                }
                Err(error) => Some(error),
            });
            // A load within a load: boxed, as each is large.
            let failed: Option<L::Error> = Box::pin(failed).await;
            match (failed, done, load) {
                (Some(error), _, _) => L::from_error(error),
                (None, Some(loaded), _) => loaded,
                // Somebody else has found that there is no error.
                (None, None, Some(load)) => load.await,
                (None, None, None) => unreachable!("a function that has run has a result"),
            }
        };
        self.load_from(cache)
            .run_with(sharing, unless, || Box::pin(load))
            .await
    }

    /// `cache_put`. Nothing borrows `loaded` while the returned future waits.
    pub fn keep<'a, L: Loaded, U: FnOnce(&L::Value) -> bool>(
        &'a self,
        loaded: &L,
        unless: U,
    ) -> impl Future<Output = ()> + use<'a, L, U> {
        self.load_from(&self.cache).keep(loaded, unless)
    }
}

impl Call<SyncCache> {
    /// `cacheable` on a function that is not async.
    pub fn run<L: Loaded>(
        self,
        sharing: Sharing<L::Error>,
        unless: impl FnOnce(&L::Value) -> bool,
        load: impl FnOnce() -> L,
    ) -> L {
        let begin = self.load_from(self.cache.as_async());
        self.cache.run(&self.key, begin, sharing, unless, load)
    }

    /// `cache_put` on a function that is not async.
    pub fn keep<L: Loaded, U: FnOnce(&L::Value) -> bool>(&self, loaded: &L, unless: U) {
        let keep = self.load_from(self.cache.as_async()).keep(loaded, unless);
        if now(keep).is_none() {
            self.cache.remove(Target::Key(self.key.clone()));
        }
    }
}

/// Where the error of a function is kept whose value is kept under `key`.
fn error_key(key: &Key) -> Key {
    key.clone().part(("error",))
}

/// What `cache_invalidate` says.
#[derive(Debug)]
pub struct OutOfDate<C> {
    /// The cache.
    pub cache: C,
    /// What in it.
    pub target: Target,
}

/// Which values are out of date.
#[derive(Debug)]
pub enum Target {
    /// The one of this name.
    Key(Key),
    /// Those with one of these tags.
    Tags(Vec<String>),
    /// Those whose names match.
    Pattern(Pattern),
    /// All in the cache's namespace.
    All,
}

impl OutOfDate<Cache> {
    /// Removes them. Failures are logged and counted.
    pub async fn forget(self) {
        self.target.forget(&self.cache).await;
    }
}

impl OutOfDate<SyncCache> {
    /// Removes them, or sees to it that they are. Failures are logged and counted.
    pub fn forget(self) {
        self.cache.remove(self.target);
    }
}

impl Target {
    pub(super) async fn forget(&self, cache: &Cache) {
        let (operation, done): (_, Result<()>) = match self {
            Self::Key(key) => {
                let keys = [key.clone(), error_key(key)];
                let mut deleted = cache.delete_many(&keys).await.into_iter();
                ("delete", deleted.try_for_each(|deleted| deleted.map(drop)))
            }
            Self::Tags(tags) => ("invalidate_tags", cache.invalidate_tags(tags).await),
            Self::Pattern(pattern) => {
                let removed = cache.delete_pattern(&pattern.0).await;
                ("delete_pattern", removed.map(drop))
            }
            Self::All => ("clear", cache.clear().await),
        };
        if let Err(error) = done {
            cache.report(operation, &error);
        }
    }
}

/// A pattern over the readable keys of a cache, with values in it.
#[derive(Debug, Default)]
pub struct Pattern(String);

impl Pattern {
    /// A pattern over all keys.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A pattern over what follows `key` and the mark of its end.
    #[must_use]
    pub fn under(key: &Key) -> Self {
        Self(format!("{}:", key.text()))
    }

    /// This pattern and a piece of one, as it stands.
    #[must_use]
    pub fn text(mut self, piece: &str) -> Self {
        self.0.push_str(piece);
        self
    }

    /// This pattern and a value, which matches itself alone.
    #[must_use]
    pub fn place(mut self, value: &impl KeyPart) -> Self {
        self.0.push_str(Key::new(value).text());
        self
    }
}

/// A return type that can be an error, as `cache_err` needs.
#[diagnostic::on_unimplemented(
    message = "`cache_err` needs a function that returns a `Result`",
    label = "is never an error"
)]
pub trait Fallible: Loaded<Error: CacheValue> {
    /// The error, or else what is none.
    fn split(self) -> Result<Self, Self::Error>;
}
impl<T, E: CacheValue> Fallible for Result<T, E>
where
    Self: Loaded<Error = E>,
{
    fn split(self) -> Result<Self, E> {
        match self {
            Ok(value) => Ok(Ok(value)),
            Err(error) => Err(error),
        }
    }
}

/// Names the output of a function's body, so that `?` in it knows its type.
pub async fn typed<T>(body: impl Future<Output = T>) -> T {
    body.await
}

/// A return type that can be `None`, as `negative_ttl` needs.
#[diagnostic::on_unimplemented(
    message = "`negative_ttl` needs a function that returns an `Option`, or a `Result` of one",
    label = "is never `None`"
)]
pub trait MaybeNone {}
impl<T: CacheValue> MaybeNone for Option<T> {}
impl<T: CacheValue, E> MaybeNone for Result<Option<T>, E> {}

/// Checks a return type at compile time.
pub const fn assert_maybe_none<T: MaybeNone>() {}

/// Stands for a type while a method is chosen by what the type can do. A method that is found with
/// fewer references wins, and one whose bounds do not hold is not found.
#[derive(Debug)]
pub struct Probe<T>(PhantomData<fn() -> T>);

impl<T> Probe<T> {
    /// A stand-in for `T`.
    #[must_use]
    pub const fn new() -> Self {
        Self(PhantomData)
    }
}

impl<T> Default for Probe<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// Errors that can be cloned are shared.
pub trait ByClone<E> {
    /// How to share them.
    fn __askonce_sharing(&self) -> Sharing<E>;
}
impl<E: Clone + Send + Sync + 'static> ByClone<E> for Probe<E> {
    fn __askonce_sharing(&self) -> Sharing<E> {
        Sharing::CLONE
    }
}

/// All others are not.
pub trait Never<E> {
    /// How not to share them.
    fn __askonce_sharing(&self) -> Sharing<E>;
}
impl<E> Never<E> for &Probe<E> {
    fn __askonce_sharing(&self) -> Sharing<E> {
        Sharing::NEVER
    }
}

/// Whether a function has done what it was asked to: a `Result` tells.
pub trait Tells {
    /// Whether it says so.
    fn __askonce_succeeded(&self) -> bool;
}
impl<T, E> Tells for Result<T, E> {
    fn __askonce_succeeded(&self) -> bool {
        self.is_ok()
    }
}

/// Nothing else does: a function that returns has succeeded.
pub trait Silent {
    /// Always true.
    fn __askonce_succeeded(&self) -> bool;
}
impl<T> Silent for &T {
    fn __askonce_succeeded(&self) -> bool {
        true
    }
}
