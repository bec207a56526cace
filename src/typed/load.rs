//! A miss: one load per key, shared by all who ask.
//!
//! The first caller of a key leads: it looks again, runs its loader in its own task, stores the value
//! and hands the stored form to those who wait. Running in place lets a loader borrow from its caller,
//! needs no runtime, and lets a panic unwind to the caller whose loader it was. The price: if the
//! leader's future is dropped, so is its load. One of those who wait then runs its own, as after a
//! panic. A load that must outlive its caller is [detached](super::detached).
//!
//! Those who wait are given the stored form, so they see exactly what a later hit will see, and no
//! value needs to be [`Clone`]. Whoever cannot use what is handed over (an error that cannot be
//! shared, a value of another type) takes its turn with its own loader.
//!
//! What a load may store was decided before its loader began: by the writes that its gate had seen, the
//! generations of its marks, and its lease. If one of them has moved, its value goes to those who asked
//! before that, and nowhere else.

use std::any::Any;
use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::fresh::{Advice, Fresh};
use super::gate::{Gate, Seen};
use super::held::{Held, Sealed};
use super::key::{Digest, Place};
use super::lease::{self, Lease, LeaseOptions, Pauses};
use super::marks::{Fingerprint, Generations, MarkName};
use super::value::CacheValue;
use super::{Cache, Key, Ttl};
use crate::clock::Timestamp;
use crate::codec::{Header, Mark};
use crate::error::Result;
use crate::observe;

/// Callers with the same id share a load: the same key, the same writes before it, and the same
/// generations of its marks.
pub(super) type LoadId = (Digest, Seen, Fingerprint);

/// An error, to be given to several callers.
pub(super) type Shared = Arc<dyn Any + Send + Sync>;

/// What a load hands to those who wait for it.
#[derive(Clone)]
pub(super) enum Landed {
    /// An envelope with a value or a null.
    Sealed(Bytes),
    Failed(Shared),
    /// Something that only the leader can use.
    Unshared,
}

mod sealed {
    pub trait Sealed {}
    impl<T: super::CacheValue> Sealed for T {}
    impl<T: super::CacheValue> Sealed for Option<T> {}
    impl<L: super::Plain> Sealed for super::Fresh<L> {}
    impl<L: super::Present, E> Sealed for Result<L, E> {}
    impl<L: super::Loaded> Sealed for super::Lent<'_, L> {}
}

/// What a loader may give: a [`CacheValue`], an `Option` of one, either in a [`Fresh`], or a `Result` of
/// any of these.
///
/// An `Err` is never stored. A `None` is stored only for a [`negative_ttl`](Load::negative_ttl).
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be cached",
    label = "neither a `CacheValue`, nor an `Option` or `Result` of one",
    note = "give your own type a name: `#[derive(Serialize, Deserialize, CacheValue)] #[cache_value(name = \"...\")]`"
)]
pub trait Loaded: sealed::Sealed + Sized {
    /// What is stored.
    type Value: CacheValue;
    /// What is not.
    type Error;

    /// Whether it may come with advice.
    #[doc(hidden)]
    const ADVISES: bool = false;

    #[doc(hidden)]
    fn view(&self) -> Result<Option<&Self::Value>, &Self::Error>;
    /// `None` when this type has no way to say that there is no value.
    #[doc(hidden)]
    fn from_known(known: Option<Self::Value>) -> Option<Self>;
    #[doc(hidden)]
    fn from_error(error: Self::Error) -> Self;
    #[doc(hidden)]
    fn advice(&self) -> Option<&Advice> {
        None
    }
}

impl<T: CacheValue> Loaded for T {
    type Value = T;
    type Error = Infallible;

    fn view(&self) -> Result<Option<&T>, &Infallible> {
        Ok(Some(self))
    }
    fn from_known(known: Option<T>) -> Option<T> {
        known
    }
    fn from_error(error: Infallible) -> T {
        match error {}
    }
}

impl<T: CacheValue> Loaded for Option<T> {
    type Value = T;
    type Error = Infallible;

    fn view(&self) -> Result<Option<&T>, &Infallible> {
        Ok(self.as_ref())
    }
    fn from_known(known: Option<T>) -> Option<Self> {
        Some(known)
    }
    fn from_error(error: Infallible) -> Self {
        match error {}
    }
}

impl<L: Plain> Loaded for Fresh<L> {
    type Value = L::Value;
    type Error = Infallible;

    const ADVISES: bool = true;

    fn view(&self) -> Result<Option<&L::Value>, &Infallible> {
        self.value.view()
    }
    fn from_known(known: Option<L::Value>) -> Option<Self> {
        L::from_known(known).map(Self::new)
    }
    fn from_error(error: Infallible) -> Self {
        match error {}
    }
    fn advice(&self) -> Option<&Advice> {
        Some(&self.advice)
    }
}

impl<L: Present, E> Loaded for Result<L, E> {
    type Value = L::Value;
    type Error = E;

    const ADVISES: bool = L::ADVISES;

    fn view(&self) -> Result<Option<&L::Value>, &E> {
        match self {
            Ok(value) => value.view().map_err(|never| match *never {}),
            Err(error) => Err(error),
        }
    }
    fn from_known(known: Option<L::Value>) -> Option<Self> {
        L::from_known(known).map(Ok)
    }
    fn from_error(error: E) -> Self {
        Err(error)
    }
    fn advice(&self) -> Option<&Advice> {
        self.as_ref().ok()?.advice()
    }
}

/// A result that its maker keeps: it is there also when the load is given up.
pub(super) enum Lent<'a, L> {
    /// Made by this caller.
    Made(&'a L),
    /// Known without it.
    Known(L),
}

impl<L> Lent<'_, L> {
    fn get(&self) -> &L {
        match self {
            Self::Made(loaded) => loaded,
            Self::Known(known) => known,
        }
    }
}

impl<L: Loaded> Loaded for Lent<'_, L> {
    type Value = L::Value;
    type Error = L::Error;

    const ADVISES: bool = L::ADVISES;

    fn view(&self) -> Result<Option<&L::Value>, &L::Error> {
        self.get().view()
    }
    fn from_known(known: Option<L::Value>) -> Option<Self> {
        L::from_known(known).map(Self::Known)
    }
    fn from_error(error: L::Error) -> Self {
        Self::Known(L::from_error(error))
    }
    fn advice(&self) -> Option<&Advice> {
        self.get().advice()
    }
}

/// A [`CacheValue`] or an `Option` of one.
pub trait Plain: Loaded<Error = Infallible> {}
impl<T: CacheValue> Plain for T {}
impl<T: CacheValue> Plain for Option<T> {}

/// What cannot fail to be loaded.
pub trait Present: Loaded<Error = Infallible> {}
impl<L: Plain> Present for Fresh<L> {}
impl<T: CacheValue> Present for T {}
impl<T: CacheValue> Present for Option<T> {}

/// The share of a value's whole life that an early refresh may come before its end, on average.
const EARLY_SHARE: f64 = 0.1;

/// How a load goes about it.
#[derive(Clone, Debug, Default)]
pub(super) struct Settings {
    ttl: Ttl,
    negative_ttl: Option<Ttl>,
    jitter: Option<f64>,
    tags: Vec<String>,
    early: Option<f64>,
    /// How long after its life a value may be served while it is made anew, or because that failed.
    pub(super) while_revalidating: Duration,
    on_error: Duration,
    lease: Option<LeaseOptions>,
}

impl Settings {
    /// How long a value is kept after its life.
    fn stale(&self) -> Duration {
        self.while_revalidating.max(self.on_error)
    }
}

/// What becomes of a result.
enum Plan {
    /// Neither stored nor shared in its stored form: an error, or a value without such a form.
    Leave,
    /// Shared in this form, and stored if it is given a life: `Some(None)` is one without end.
    Keep {
        bytes: Bytes,
        expires: Option<Option<Timestamp>>,
    },
}

/// What became of a fill.
enum Filled {
    Stored,
    /// Something was written in this process, which those who asked after it know, or the backend failed.
    Refused,
    /// The key no longer holds the lease: nobody here knows since when.
    LeaseLost,
}

/// Whether a load may begin.
enum Turn {
    /// It may, and store its value if that is still wanted.
    Go(Option<Lease>),
    /// It may, and must not store its value: it is not known what others do.
    GoAlone,
    /// Somebody else is at it.
    Wait,
    /// Something has changed.
    LookAgain,
}

/// What lies under a key, as far as the backend tells.
pub(super) struct Examined {
    pub(super) held: Held,
    generations: Generations,
}

/// A lookup with a loader, begun by [`Cache::load`].
#[must_use = "nothing is loaded before `run`"]
pub struct Load<'a> {
    pub(super) cache: &'a Cache,
    pub(super) place: Place,
    pub(super) settings: Settings,
}

impl fmt::Debug for Load<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Load")
            .field("cache", self.cache)
            .field("ttl", &self.settings.ttl)
            .field("negative_ttl", &self.settings.negative_ttl)
            .finish_non_exhaustive()
    }
}

impl Cache {
    /// Begins a lookup that falls back on a loader; [`Load::run`] ends it.
    ///
    /// - The loader runs once for all callers that ask for `key` at the same time.
    /// - If the caller whose loader runs is cancelled, or its loader panics, one of those who wait runs
    ///   its own. The panic unwinds to its own caller. A [detached](Load::detached) load goes on.
    /// - A `set` or `delete` of `key` while the loader runs wins: the loaded value is returned to those
    ///   who asked before it, and not stored. So does the invalidation of one of its tags, and the
    ///   clearing of the namespace, by any process.
    /// - A failing backend, and stored bytes that are of no use, are logged and counted; the loader
    ///   runs.
    /// - A loader that asks for its own key waits for itself. So does a task that starts a load, keeps
    ///   its future without polling it, and asks for the key again.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use std::time::Duration;
    /// # use askonce::backend::{MemoryBackend, MemoryConfig};
    /// # use askonce::typed::{Cache, Key, Lookup};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> askonce::Result<()> {
    /// # let cache = Cache::new(Arc::new(MemoryBackend::builder(MemoryConfig::default()).build()?));
    /// let key = Key::new("email").part(7);
    /// let email: Option<String> = cache
    ///     .load(&key)
    ///     .ttl(Duration::from_secs(300))
    ///     .negative_ttl(Duration::from_secs(30))
    ///     .run(|| async { None })
    ///     .await;
    /// assert_eq!(email, None);
    /// assert_eq!(cache.get::<String>(&key).await?, Lookup::Null);
    /// # Ok(())
    /// # }
    /// ```
    pub fn load(&self, key: &Key) -> Load<'_> {
        Load {
            cache: self,
            place: self.place(key),
            settings: Settings {
                lease: self.inner.lease,
                ..Settings::default()
            },
        }
    }
}

impl<'a> Load<'a> {
    /// How long a loaded value lives. Default: [`Ttl::Default`].
    pub fn ttl(mut self, ttl: impl Into<Ttl>) -> Self {
        self.settings.ttl = ttl.into();
        self
    }

    /// Stores that there is no value, for `ttl`, when the loader gives `None`. Default: a `None` is not
    /// stored, and the next caller loads anew.
    pub fn negative_ttl(mut self, ttl: impl Into<Ttl>) -> Self {
        self.settings.negative_ttl = Some(ttl.into());
        self
    }

    /// The share of its life, from 0 to 1, that may be taken off at random; see
    /// [`CacheBuilder::jitter`](super::CacheBuilder::jitter). Default: the cache's.
    pub fn jitter(mut self, share: f64) -> Self {
        self.settings.jitter = Some(share);
        self
    }

    /// What the value can be [invalidated](Cache::invalidate_tag) by, besides its key. Default:
    /// nothing. Adds to the tags that were given before.
    pub fn tags<S: Into<String>>(mut self, tags: impl IntoIterator<Item = S>) -> Self {
        self.settings.tags.extend(tags.into_iter().map(Into::into));
        self
    }

    /// Serves the old value, up to `stale` after its life, when the loader gives an error, and then for
    /// a while without asking the loader: a second, twice as long after each further failure, 30 seconds
    /// at most. Default: zero, the error is returned.
    pub fn stale_if_error(mut self, stale: Duration) -> Self {
        self.settings.on_error = stale;
        self
    }

    /// Makes a value anew before its life ends, the more likely the nearer the end, so that one of many
    /// readers does it in time and the others are served (XFetch, Vattani et al., 2015).
    ///
    /// A reader does it when `-beta * delta * ln(u)` is more than what is left of the life: `delta` is how
    /// long the value took to make, `u` uniform from 0 to 1. `beta` is 1 for the published optimum, and
    /// more to be earlier. `beta * delta` counts as no more than a tenth of the life. The reader whose
    /// turn it is waits for the loader, unless the load is [detached](Self::detached); if the loader
    /// gives an error, it is served what there is. Default: never.
    pub fn early_refresh(mut self, beta: f64) -> Self {
        self.settings.early = (beta > 0.0).then_some(beta);
        self
    }

    /// Makes it one load for all processes that share the backend: one of them takes a lease on the key,
    /// renews it while its loader runs, and the others wait for the value. A process that dies is
    /// replaced when its lease runs out; if its load fails or is cancelled, at once. A value
    /// is stored only while its lease is held. If another process writes the key in the meantime, callers
    /// who wait load anew, unless that write falls into the very request that stores the value. Default:
    /// as the cache is [set](super::CacheBuilder::lease), which is that each process loads for itself.
    ///
    /// Needs a backend with [conditional writes](crate::backend::Capability::conditional_writes); with
    /// any other it has no effect. Needs a tokio runtime with time.
    pub fn lease(mut self, options: LeaseOptions) -> Self {
        self.settings.lease = Some(options);
        self
    }

    /// What is stored, or else what `loader` gives.
    ///
    /// A stored null is `None` to a loader that gives options; to any other it is a miss.
    pub async fn run<L, F, Fut>(self, loader: F) -> L
    where
        L: Loaded<Error: Clone + Send + Sync + 'static>,
        F: FnOnce() -> Fut,
        Fut: Future<Output = L>,
    {
        self.run_with(Sharing::CLONE, |_| false, loader).await
    }

    /// As [`run`](Self::run), with a say in which values are stored and which errors are shared.
    pub(super) async fn run_with<L, F, Fut>(
        self,
        sharing: Sharing<L::Error>,
        unless: impl FnOnce(&L::Value) -> bool,
        loader: F,
    ) -> L
    where
        L: Loaded,
        F: FnOnce() -> Fut,
        Fut: Future<Output = L>,
    {
        let examined = self.examine(&self.names::<L>()).await;
        let mut early = None;
        if let Held::Fresh(sealed) = &examined.held
            && let Some(known) = self.known(sealed)
        {
            if !self.is_early(&sealed.envelope.header) {
                observe::typed_load("hit");
                return known;
            }
            early = Some(sealed.bytes.clone());
        }
        self.run_from(examined, early, sharing, unless, loader)
            .await
    }

    /// As [`run_with`](Self::run_with), once it is known that there is something to do. A value of the
    /// bytes `early` is to be made anew though it is fresh.
    pub(super) async fn run_from<L, F, Fut>(
        &self,
        examined: Examined,
        early: Option<Bytes>,
        sharing: Sharing<L::Error>,
        unless: impl FnOnce(&L::Value) -> bool,
        loader: F,
    ) -> L
    where
        L: Loaded,
        F: FnOnce() -> Fut,
        Fut: Future<Output = L>,
    {
        let names = self.names::<L>();
        let mut generations = examined.generations;
        self.ensure(&names, &mut generations).await;
        let inner = &self.cache.inner;
        let gate = inner.gates.of(&self.place);
        let mut caller = Some((unless, loader));
        loop {
            let seen = gate.seen().await;
            let id = (self.place.digest, seen, generations.fingerprint(&names));
            if let Some(early) = &early
                && inner.loads.is_running(&id)
                && let Some(known) = self.served(early)
            {
                return known;
            }
            let mut own = None;
            let lead = self.lead(
                (&gate, seen),
                &names,
                early.as_ref(),
                sharing,
                &mut caller,
                &mut own,
            );
            let landed = if inner.single_flight {
                inner.loads.run_in_place(id, lead).await.0
            } else {
                lead.await
            };
            if let Some(own) = own {
                return own;
            }
            if let Some(shared) = self.unpack(&landed, sharing) {
                observe::typed_load("shared");
                return shared;
            }
            generations = self.examine(&names).await.generations;
            self.ensure(&names, &mut generations).await;
        }
    }

    /// Makes marks that are missing before they tell loads apart: else the first load of a namespace
    /// would not be shared with those who ask a moment later. `None` when they are not to be had.
    async fn ensure(&self, names: &[MarkName], generations: &mut Generations) -> Option<Vec<Mark>> {
        match self.cache.ensure_marks(names, generations).await {
            Ok(marks) => Some(marks),
            Err(error) => {
                self.cache.report("marks", &error);
                None
            }
        }
    }

    /// Looks again, loads if it must, and stores. `own` is what this caller is given.
    async fn lead<L, U, F, Fut>(
        &self,
        (gate, seen): (&Gate<'_>, Seen),
        names: &[MarkName],
        early: Option<&Bytes>,
        sharing: Sharing<L::Error>,
        caller: &mut Option<(U, F)>,
        own: &mut Option<L>,
    ) -> Landed
    where
        L: Loaded,
        U: FnOnce(&L::Value) -> bool,
        F: FnOnce() -> Fut,
        Fut: Future<Output = L>,
    {
        let inner = &self.cache.inner;
        let began = self.cache.now();
        let mut pauses = Pauses::new(self.settings.lease);
        let (held, mut generations, lease, may_store) = loop {
            let Examined { held, generations } = self.examine(names).await;
            // Between this caller's look and its turn another load may have landed.
            if let Held::Fresh(sealed) = &held
                && early != Some(&sealed.bytes)
                && let Some(known) = self.known(sealed)
            {
                *own = Some(known);
                return Landed::Sealed(sealed.bytes.clone());
            }
            if inner.backoff.waits(self.place.digest, self.cache.now())
                && let Some(old) = self.fallback(&held)
                && let Some(known) = self.known(old)
            {
                observe::typed_load("stale_if_error");
                *own = Some(known);
                return Landed::Sealed(old.bytes.clone());
            }
            match self.turn(&held, began).await {
                Turn::Go(lease) => break (held, generations, lease, true),
                Turn::GoAlone => break (held, generations, None, false),
                Turn::LookAgain => {}
                Turn::Wait => {
                    let revalidating = self.settings.while_revalidating;
                    if let Held::Stale(sealed) = &held
                        && self.is_within(sealed, revalidating)
                        && let Some(known) = self.known(sealed)
                    {
                        *own = Some(known);
                        return Landed::Sealed(sealed.bytes.clone());
                    }
                    pauses.pause(inner.draw()).await;
                }
            }
        };
        // The generations of before, whatever the loader finds.
        let mut marks = self.ensure(names, &mut generations).await;
        let any_tag = marks.as_mut().filter(|_| L::ADVISES).and_then(Vec::pop);

        let Some((unless, loader)) = caller.take() else {
            unreachable!("a caller that has led has a result of its own")
        };
        let began = self.cache.now();
        let loaded = match &lease {
            Some(lease) => lease.during(loader()).await,
            None => loader().await,
        };
        let load_time = self.cache.now().since(began);

        let advice = loaded.advice().cloned();
        if let Some(advice) = &advice
            && !advice.tags.is_empty()
        {
            let more = self.advised_marks(&advice.tags, any_tag).await;
            marks = marks.zip(more).map(|(marks, more)| [marks, more].concat());
        }
        let failed = loaded.view().is_err();
        if failed && let Some(old) = self.fallback(&held) {
            // It stays what it was, also to those who wait.
            if let Some(known) = self.known(old) {
                if let Some(lease) = lease {
                    lease.give_back(false).await;
                }
                inner.backoff.failed(self.place.digest, self.cache.now());
                observe::typed_load("stale_if_error");
                *own = Some(known);
                return Landed::Sealed(old.bytes.clone());
            }
        }
        if !failed {
            inner.backoff.recovered(self.place.digest);
        }
        let marks = marks.filter(|_| may_store);
        let carried = marks.clone().unwrap_or_default();
        let plan = self.plan(&loaded, unless, advice.as_ref(), marks, load_time);
        let shared = loaded.view().err().and_then(|error| (sharing.pack)(error));
        *own = Some(loaded);
        observe::typed_load(if failed { "failed" } else { "loaded" });
        match plan {
            Plan::Keep {
                bytes,
                expires: Some(expires),
            } => {
                // What has moved would be dead where it lies; but it could take the place of what is not.
                if !self.still_agree(&carried).await {
                    observe::typed_load("refused");
                    if let Some(lease) = lease {
                        lease.give_back(false).await;
                    }
                    return Landed::Sealed(bytes);
                }
                let fill = self.fill(gate, seen, lease.as_ref(), bytes.clone(), expires);
                match fill.await {
                    Filled::Stored => self.cache.prolong_marks(&generations, expires).await,
                    Filled::Refused => {}
                    // Another process has written, and some of those who wait may have asked after it.
                    Filled::LeaseLost => return Landed::Unshared,
                }
                Landed::Sealed(bytes)
            }
            plan => {
                // What it would have replaced is out of date, though nothing takes its place.
                let dropped = !failed && matches!(held, Held::Stale(_) | Held::Fresh(_));
                let mut lost = false;
                match lease {
                    Some(lease) => lost = !lease.give_back(dropped).await,
                    None if dropped && may_store => {
                        let delete = inner.backend.delete(&self.place.name);
                        if let Some(Err(error)) = gate.fill(seen, delete).await {
                            self.cache.report("delete", &error);
                        }
                    }
                    None => {}
                }
                match plan {
                    Plan::Keep { .. } if lost => Landed::Unshared,
                    Plan::Keep { bytes, .. } => Landed::Sealed(bytes),
                    Plan::Leave => shared.map_or(Landed::Unshared, Landed::Failed),
                }
            }
        }
    }

    /// What a load of `L` asks for besides the value.
    pub(super) fn names<L: Loaded>(&self) -> Vec<MarkName> {
        let mut names = self.cache.marks_with(&self.settings.tags);
        if L::ADVISES {
            names.push(self.cache.any_tag());
        }
        names
    }

    /// What lies under the key. A failure is noted, and then nothing is known.
    pub(super) async fn examine(&self, names: &[MarkName]) -> Examined {
        let (held, generations) = match self.cache.look(&self.place, names).await {
            Ok(found) => found,
            Err(error) => {
                self.cache.report("get", &error);
                (Held::Nothing, Generations::default())
            }
        };
        if let Held::Unusable(_, error) = &held {
            self.cache.report("get", error);
        }
        Examined { held, generations }
    }

    /// The value in an envelope, if `L` can say it.
    pub(super) fn known<L: Loaded>(&self, sealed: &Sealed) -> Option<L> {
        match self.cache.unseal::<L::Value>(sealed) {
            Ok(known) => L::from_known(known),
            Err(error) => {
                self.cache.report("get", &error);
                None
            }
        }
    }

    /// The value in bytes that were read before.
    pub(super) fn served<L: Loaded>(&self, bytes: &Bytes) -> Option<L> {
        let codec = &self.cache.inner.codec;
        let envelope = codec.open(self.place.digest.as_bytes(), bytes).ok()?;
        let bytes = bytes.clone();
        L::from_known(self.cache.unseal(&Sealed { envelope, bytes }).ok()?)
    }

    /// Whether the life of a value ended less than `stale` ago.
    pub(super) fn is_within(&self, sealed: &Sealed, stale: Duration) -> bool {
        let expires = sealed.envelope.header.expires;
        expires.is_some_and(|expires| self.cache.now() < expires.after(stale))
    }

    /// What may be served in place of an error.
    fn fallback<'h>(&self, held: &'h Held) -> Option<&'h Sealed> {
        match held {
            Held::Stale(sealed) if self.is_within(sealed, self.settings.on_error) => Some(sealed),
            // Early: it is still good.
            Held::Fresh(sealed) if self.is_within(sealed, Duration::ZERO) => Some(sealed),
            _ => None,
        }
    }

    /// Whether this reader is the one to make a value anew before its time.
    pub(super) fn is_early(&self, header: &Header) -> bool {
        let (Some(beta), Some(expires)) = (self.settings.early, header.expires) else {
            return false;
        };
        let now = self.cache.now();
        if header.load_time.is_zero() || lease::is_live(header, now) {
            return false;
        }
        let life = expires.since(header.created).as_secs_f64();
        let lead = (beta * header.load_time.as_secs_f64()).min(EARLY_SHARE * life);
        // From 0, not included, to 1: the logarithm of 0 is no time.
        let u = 1.0 - self.cache.inner.draw();
        expires.since(now).as_secs_f64() <= -lead * u.ln()
    }

    /// Whether to begin.
    async fn turn(&self, held: &Held, began: Timestamp) -> Turn {
        let Some(options) = self.settings.lease else {
            return Turn::Go(None);
        };
        if !self.cache.inner.backend.capability().conditional_writes {
            return Turn::Go(None);
        }
        let now = self.cache.now();
        let taken = match held {
            Held::Leased(_) => true,
            Held::Stale(sealed) | Held::Fresh(sealed) => {
                lease::is_live(&sealed.envelope.header, now)
            }
            Held::Nothing | Held::Dead(_) | Held::Unusable(..) => false,
        };
        if taken {
            let enough = options.wait.is_some_and(|wait| began.after(wait) <= now);
            return if enough { Turn::GoAlone } else { Turn::Wait };
        }
        match Lease::take(self.cache, &self.place, held, options.ttl).await {
            Ok(Some(lease)) => Turn::Go(Some(lease)),
            Ok(None) => Turn::LookAgain,
            Err(error) => {
                self.cache.report("lease", &error);
                Turn::GoAlone
            }
        }
    }

    /// The marks of tags that only the loader knew; `None` when one of the namespace's tags was
    /// invalidated since `any_tag` was read.
    async fn advised_marks(&self, tags: &[String], any_tag: Option<Mark>) -> Option<Vec<Mark>> {
        let names = self.cache.marks_of(tags);
        let marks = match self.cache.current_marks(&names).await {
            Ok((marks, _)) => marks,
            Err(error) => {
                self.cache.report("marks", &error);
                return None;
            }
        };
        // After the others: whoever renews a tag renews this one first.
        match self.cache.any_tag_now().await {
            Ok(now) => {
                (now.is_some() && now == any_tag.map(|mark| mark.generation)).then_some(marks)
            }
            Err(error) => {
                self.cache.report("marks", &error);
                None
            }
        }
    }

    /// What to do with what was loaded. Not `async`, so that nothing borrows the value while waiting.
    fn plan<L: Loaded>(
        &self,
        loaded: &L,
        unless: impl FnOnce(&L::Value) -> bool,
        advice: Option<&Advice>,
        marks: Option<Vec<Mark>>,
        load_time: Duration,
    ) -> Plan {
        let Ok(value) = loaded.view() else {
            return Plan::Leave;
        };
        let settings = &self.settings;
        let advised = advice.and_then(|advice| advice.ttl);
        let (ttl, stale) = match value {
            Some(value) => {
                let ttl = (!unless(value)).then(|| advised.unwrap_or(settings.ttl));
                (ttl, settings.stale())
            }
            None => (
                settings.negative_ttl.map(|ttl| advised.unwrap_or(ttl)),
                Duration::ZERO,
            ),
        };
        let ttl = ttl.filter(|_| advice.is_none_or(|advice| advice.store));
        let header = ttl.zip(marks).and_then(|(ttl, marks)| {
            let header = self.cache.header(ttl, settings.jitter, stale, marks);
            header
                .map_err(|error| self.cache.report("set", &error))
                .ok()
        });
        let expires = header.as_ref().map(Header::physical_expiry);
        let header = Header {
            load_time,
            ..header.unwrap_or_else(|| Header {
                created: self.cache.now(),
                ..Header::default()
            })
        };
        match self.cache.seal(&self.place, &header, value) {
            Ok(bytes) => Plan::Keep { bytes, expires },
            Err(error) => {
                self.cache.report("encode", &error);
                Plan::Leave
            }
        }
    }

    /// Whether each of `marks` is what it was before the load.
    async fn still_agree(&self, marks: &[Mark]) -> bool {
        match self.cache.agree_now(marks).await {
            Ok(agree) => agree,
            Err(error) => {
                self.cache.report("marks", &error);
                false
            }
        }
    }

    /// Stores what was loaded, unless something was written meanwhile or the lease was lost.
    async fn fill(
        &self,
        gate: &Gate<'_>,
        seen: Seen,
        lease: Option<&Lease>,
        bytes: Bytes,
        expires: Option<Timestamp>,
    ) -> Filled {
        let fill = async {
            match lease {
                Some(lease) => lease.fill(bytes, expires).await,
                None => {
                    let backend = &self.cache.inner.backend;
                    let set = backend.set(&self.place.name, bytes, expires);
                    set.await.map(|()| true)
                }
            }
        };
        match gate.fill(seen, fill).await {
            Some(Ok(true)) => Filled::Stored,
            Some(Ok(false)) => {
                observe::typed_load("refused");
                Filled::LeaseLost
            }
            None => {
                observe::typed_load("refused");
                Filled::Refused
            }
            Some(Err(error)) => {
                self.cache.report("set", &error);
                Filled::Refused
            }
        }
    }

    /// Another caller's result, if `L` can say it.
    fn unpack<L: Loaded>(&self, landed: &Landed, sharing: Sharing<L::Error>) -> Option<L> {
        match landed {
            Landed::Sealed(bytes) => self.served(bytes),
            Landed::Failed(error) => (sharing.unpack)(error).map(L::from_error),
            Landed::Unshared => None,
        }
    }

    /// Stores what was made without a loader, as if it had been loaded; deletes what it makes out of
    /// date. Failures are logged and counted.
    pub(super) fn keep<L: Loaded, U: FnOnce(&L::Value) -> bool>(
        self,
        loaded: &L,
        unless: U,
    ) -> impl Future<Output = ()> + use<'a, L, U> {
        let failed = loaded.view().is_err();
        let advice = loaded.advice().cloned();
        // The marks come later, when nothing borrows the value any more.
        let plan = self.plan(
            loaded,
            unless,
            advice.as_ref(),
            Some(Vec::new()),
            Duration::ZERO,
        );
        async move {
            if let Plan::Keep {
                bytes,
                expires: Some(expires),
            } = plan
            {
                let tags = advice.map(|advice| advice.tags).unwrap_or_default();
                match self.put_marked(&bytes, expires, &tags).await {
                    Ok(()) => return,
                    Err(error) => self.cache.report("set", &error),
                }
            }
            // What was there is out of date, though nothing took its place.
            if !failed {
                self.forget().await;
            }
        }
    }

    /// Stores an envelope with the marks that are still missing in it.
    async fn put_marked(
        &self,
        bytes: &Bytes,
        expires: Option<Timestamp>,
        tags: &[String],
    ) -> Result<()> {
        let Self { cache, place, .. } = self;
        let names = cache.marks_with(&[&self.settings.tags, tags].concat());
        let mut bytes = bytes.clone();
        if !names.is_empty() {
            let (marks, generations) = cache.current_marks(&names).await?;
            let opened = cache.inner.codec.open(place.digest.as_bytes(), &bytes);
            let envelope = opened.map_err(|error| {
                let error = cache
                    .unusable("the value cannot be rewritten")
                    .caused_by(error);
                error.with("operation", "set")
            })?;
            let header = Header {
                marks,
                ..envelope.header.clone()
            };
            bytes = cache.reseal(place, &Sealed { envelope, bytes }, &header)?;
            cache.prolong_marks(&generations, expires).await;
        }
        let set = cache.inner.backend.set(&place.name, bytes, expires);
        cache.inner.gates.of(place).write(set).await
    }

    /// Deletes what is stored. Failures are logged and counted.
    pub(super) async fn forget(self) {
        let Self { cache, place, .. } = self;
        let deleted = cache.inner.backend.delete(&place.name);
        if let Err(error) = cache.inner.gates.of(&place).write(deleted).await {
            cache.report("delete", &error);
        }
    }
}

/// How an error reaches callers that did not cause it.
pub struct Sharing<E> {
    pack: fn(&E) -> Option<Shared>,
    unpack: fn(&Shared) -> Option<E>,
}

impl<E> Clone for Sharing<E> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<E> Copy for Sharing<E> {}

impl<E> fmt::Debug for Sharing<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sharing").finish_non_exhaustive()
    }
}

impl<E: Clone + Send + Sync + 'static> Sharing<E> {
    /// Each caller is given a clone.
    pub const CLONE: Self = Self {
        pack: |error| Some(Arc::new(error.clone())),
        unpack: |shared| shared.downcast_ref().cloned(),
    };
}

impl<E> Sharing<E> {
    pub(super) fn packed(&self, error: &E) -> Option<Shared> {
        (self.pack)(error)
    }

    pub(super) fn unpacked(&self, shared: &Shared) -> Option<E> {
        (self.unpack)(shared)
    }

    /// Only the caller whose loader failed is given the error; the others take their turn.
    pub const NEVER: Self = Self {
        pack: |_| None,
        unpack: |_| None,
    };
}
