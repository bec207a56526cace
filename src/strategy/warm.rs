//! Loading before anybody asks.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::stream::{self, Stream};
use futures_util::{FutureExt as _, StreamExt as _, pin_mut};
use rand::random;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::passed_over;
use crate::entry::Ttl;
use crate::error::Error;
use crate::typed::{Cache, CacheValue, Key};

type OnProgress = Arc<dyn Fn(Progress) + Send + Sync>;

/// Fills a cache with what will be asked for.
///
/// Loads through the cache, so a warmer and the callers who come meanwhile share one load per key, and a
/// value that is written meanwhile is not overwritten. One key that fails, by an error or a panic,
/// says nothing of the others.
///
/// ```
/// # use std::sync::Arc;
/// # use askonce::backend::{MemoryBackend, MemoryConfig};
/// # use askonce::Cache;
/// use askonce::strategy::Warmer;
/// use askonce::typed::Key;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> askonce::Result<()> {
/// # let cache = Cache::new(Arc::new(MemoryBackend::builder(MemoryConfig::default()).build()?));
/// let load = |id: u64| async move { Ok::<_, std::io::Error>(format!("user {id}")) };
/// let warmed = Warmer::new(&cache)
///     .concurrency(4)
///     .warm([1, 2, 3], |id| Key::new("user").part(id), load)
///     .await;
/// assert_eq!(warmed.loaded, 3);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Warmer {
    cache: Cache,
    concurrency: usize,
    ttl: Ttl,
    skip_existing: bool,
    on_progress: Option<OnProgress>,
}

impl fmt::Debug for Warmer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Warmer")
            .field("cache", &self.cache)
            .field("concurrency", &self.concurrency)
            .field("ttl", &self.ttl)
            .field("skip_existing", &self.skip_existing)
            .finish_non_exhaustive()
    }
}

/// How far a warmer has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// How many there are, as far as the list or stream of them knows; a stream may know only a part.
    pub total: Option<usize>,
    /// Loaded, and readable from the cache.
    pub loaded: usize,
    /// There already.
    pub skipped: usize,
    /// Not loaded, or not kept.
    pub failed: usize,
}

impl Progress {
    /// How many are done with, one way or another.
    #[must_use]
    pub const fn done(&self) -> usize {
        self.loaded + self.skipped + self.failed
    }
}

/// What a warmer has done.
#[derive(Debug)]
pub struct Warmed<I, E> {
    /// Loaded, and readable from the cache.
    pub loaded: usize,
    /// There already.
    pub skipped: usize,
    /// The rest, in the order in which they failed.
    pub failed: Vec<Failed<I, E>>,
}

/// One item that is not in the cache, though it should be.
#[derive(Debug)]
pub struct Failed<I, E> {
    /// Which.
    pub item: I,
    /// Why.
    pub why: Failure<E>,
}

/// Why an item could not be warmed.
#[derive(Debug)]
pub enum Failure<E> {
    /// The loader returned this.
    Load(E),
    /// The loader panicked.
    Panicked,
    /// Another warmer was loading the same key, and its loader returned an error.
    Shared,
    /// The loader gave a value, and the cache did not keep it; the error says more where there is one. A
    /// value that was deleted meanwhile is among these.
    NotKept(Option<Error>),
}

impl<E: fmt::Display> fmt::Display for Failure<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Load(error) => write!(f, "the loader failed: {error}"),
            Self::Panicked => f.write_str("the loader panicked"),
            Self::Shared => f.write_str("the loader of another warmer failed"),
            Self::NotKept(Some(error)) => write!(f, "the value was not kept: {error}"),
            Self::NotKept(None) => f.write_str("the value was not kept"),
        }
    }
}

enum Done<E> {
    Loaded,
    Skipped,
    Failed(Failure<E>),
}

/// What a loader that warms may end with, besides a value.
#[derive(Clone)]
enum Stopped {
    Failed,
    Panicked,
}

impl Warmer {
    /// A warmer that loads ten at a time, keeps values for [`Ttl::Default`], and skips what is there.
    #[must_use]
    pub fn new(cache: &Cache) -> Self {
        Self {
            cache: cache.clone(),
            concurrency: 10,
            ttl: Ttl::Default,
            skip_existing: true,
            on_progress: None,
        }
    }

    /// How many loads may run at once. Default: 10. Zero is one.
    #[must_use]
    pub fn concurrency(mut self, loads: usize) -> Self {
        self.concurrency = loads.max(1);
        self
    }

    /// How long values live. Default: [`Ttl::Default`].
    #[must_use]
    pub fn ttl(mut self, ttl: impl Into<Ttl>) -> Self {
        self.ttl = ttl.into();
        self
    }

    /// Whether what is in the cache stays, and its loader does not run. Default: `true`. If `false`, it is
    /// deleted first, and those who ask meanwhile wait for the warmer's load.
    #[must_use]
    pub fn skip_existing(mut self, skip: bool) -> Self {
        self.skip_existing = skip;
        self
    }

    /// Is told after each item how far the warmer has come. Called from the warming task: it should
    /// return at once.
    #[must_use]
    pub fn on_progress(mut self, listener: impl Fn(Progress) + Send + Sync + 'static) -> Self {
        self.on_progress = Some(Arc::new(listener));
        self
    }

    /// Loads each of `items` and keeps it under its key.
    pub async fn warm<I, T, E, K, F, Fut>(
        &self,
        items: impl IntoIterator<Item = I>,
        key: K,
        loader: F,
    ) -> Warmed<I, E>
    where
        I: Clone,
        T: CacheValue,
        K: Fn(&I) -> Key,
        F: Fn(I) -> Fut,
        Fut: Future<Output = Result<T, E>>,
    {
        self.warm_stream(stream::iter(items), key, loader).await
    }

    /// As [`warm`](Self::warm), for items that come one after the other. No more are taken than can be
    /// loaded at once.
    pub async fn warm_stream<I, T, E, K, F, Fut>(
        &self,
        items: impl Stream<Item = I>,
        key: K,
        loader: F,
    ) -> Warmed<I, E>
    where
        I: Clone,
        T: CacheValue,
        K: Fn(&I) -> Key,
        F: Fn(I) -> Fut,
        Fut: Future<Output = Result<T, E>>,
    {
        let total = items.size_hint().1;
        let mut warmed = Warmed {
            loaded: 0,
            skipped: 0,
            failed: Vec::new(),
        };
        let (key, loader) = (&key, &loader);
        let loads = items
            .map(|item| async move {
                let done = self.warm_one(&key(&item), || loader(item.clone())).await;
                (item, done)
            })
            .buffer_unordered(self.concurrency);
        pin_mut!(loads);
        while let Some((item, done)) = loads.next().await {
            match done {
                Done::Loaded => warmed.loaded += 1,
                Done::Skipped => warmed.skipped += 1,
                Done::Failed(why) => warmed.failed.push(Failed { item, why }),
            }
            if let Some(listener) = &self.on_progress {
                listener(Progress {
                    total,
                    loaded: warmed.loaded,
                    skipped: warmed.skipped,
                    failed: warmed.failed.len(),
                });
            }
        }
        warmed
    }

    async fn warm_one<T, E, Fut>(&self, key: &Key, loader: impl FnOnce() -> Fut) -> Done<E>
    where
        T: CacheValue,
        Fut: Future<Output = Result<T, E>>,
    {
        if self.skip_existing {
            match self.cache.exists(key).await {
                Ok(true) => return Done::Skipped,
                Ok(false) => {}
                // What cannot be read is not there.
                Err(error) => passed_over("get", &error),
            }
        } else if let Err(error) = self.cache.delete(key).await {
            return Done::Failed(Failure::NotKept(Some(error)));
        }
        let mut failure = None;
        let loaded: Result<T, Stopped> = self
            .cache
            .load(key)
            .ttl(self.ttl)
            .run(|| async {
                let load = AssertUnwindSafe(async { loader().await }).catch_unwind();
                match load.await {
                    Ok(Ok(value)) => Ok(value),
                    Ok(Err(error)) => {
                        failure = Some(Failure::Load(error));
                        Err(Stopped::Failed)
                    }
                    Err(_) => Err(Stopped::Panicked),
                }
            })
            .await;
        match loaded {
            // Only the cache can say that it has a value.
            Ok(_) => match self.cache.exists(key).await {
                Ok(true) => Done::Loaded,
                Ok(false) => Done::Failed(Failure::NotKept(None)),
                Err(error) => Done::Failed(Failure::NotKept(Some(error))),
            },
            Err(stopped) => Done::Failed(failure.unwrap_or(match stopped {
                Stopped::Panicked => Failure::Panicked,
                Stopped::Failed => Failure::Shared,
            })),
        }
    }
}

impl Warmer {
    /// Runs `round` now and then again and again, `period` after each has ended, until stopped.
    ///
    /// Each pause is made longer or shorter by up to the share `jitter` of it (0 to 1), so that many
    /// processes do not warm at the same moments. A round that panics is logged, and the next one comes.
    /// Call it within a tokio runtime.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use std::time::Duration;
    /// # use askonce::backend::{MemoryBackend, MemoryConfig};
    /// # use askonce::Cache;
    /// # use askonce::strategy::Warmer;
    /// # use askonce::typed::Key;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> askonce::Result<()> {
    /// # let cache = Cache::new(Arc::new(MemoryBackend::builder(MemoryConfig::default()).build()?));
    /// let schedule = Warmer::new(&cache).repeat(Duration::from_secs(300), 0.1, |warmer| async move {
    ///     let load = |id: u64| async move { Ok::<_, std::io::Error>(format!("user {id}")) };
    ///     warmer.warm([1, 2, 3], |id| Key::new("user").part(id), load).await;
    /// });
    /// schedule.stop().await;
    /// # Ok(())
    /// # }
    /// ```
    pub fn repeat<F, Fut>(self, period: Duration, jitter: f64, round: F) -> Schedule
    where
        F: Fn(Self) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send,
    {
        let (stop, mut stopped) = watch::channel(false);
        let rounds = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&rounds);
        let task = tokio::spawn(async move {
            loop {
                let run = AssertUnwindSafe(async { round(self.clone()).await }).catch_unwind();
                if run.await.is_err() {
                    tracing::error!("a round of warming panicked");
                }
                counted.fetch_add(1, Ordering::SeqCst);
                let pause = jittered(period, jitter, random());
                // Only `true` is ever sent; a sender that is gone has aborted this task.
                let asked = tokio::time::timeout(pause, stopped.wait_for(|stop| *stop));
                if asked.await.is_ok() {
                    return;
                }
            }
        });
        Schedule { task, stop, rounds }
    }
}

/// `pause`, made up to the share `jitter` of it longer or shorter; `drawn` is from 0 to 1.
fn jittered(pause: Duration, jitter: f64, drawn: f64) -> Duration {
    let share = jitter.clamp(0.0, 1.0) * (2.0 * drawn - 1.0);
    Duration::try_from_secs_f64(pause.as_secs_f64() * (1.0 + share)).unwrap_or(pause)
}

/// Warming that is repeated; made by [`Warmer::repeat`]. It stops at once when this is dropped.
#[derive(Debug)]
#[must_use = "warming stops when its schedule is dropped"]
pub struct Schedule {
    task: JoinHandle<()>,
    stop: watch::Sender<bool>,
    rounds: Arc<AtomicU64>,
}

impl Schedule {
    /// How many rounds have ended.
    #[must_use]
    pub fn rounds(&self) -> u64 {
        self.rounds.load(Ordering::SeqCst)
    }

    /// Lets the round that is under way end, and stops.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        if let Err(error) = (&mut self.task).await {
            tracing::error!(%error, "the warming task has failed");
        }
    }
}

impl Drop for Schedule {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_stays_within_its_jitter() {
        let pause = Duration::from_secs(100);
        assert_eq!(jittered(pause, 0.1, 0.0), Duration::from_secs(90));
        assert_eq!(jittered(pause, 0.1, 0.5), pause);
        assert_eq!(jittered(pause, 0.1, 1.0), Duration::from_secs(110));
        assert_eq!(jittered(pause, 0.0, 0.9), pause);
        assert_eq!(jittered(pause, f64::NAN, 0.9), pause);
        assert_eq!(jittered(pause, 7.0, 0.0), Duration::ZERO);
    }
}
