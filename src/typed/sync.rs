//! The cache for functions that are not async.
//!
//! A function that is not async cannot wait for a cache on another machine without blocking its thread,
//! and within a runtime that thread may be the one that the cache needs to answer. So a [`SyncCache`]
//! stands only over a backend in this process, which answers at once, and asks it at once: no runtime is
//! needed, and none is blocked. Outside and inside of tokio, in a thread of one's own, in `spawn_blocking`
//! and in the midst of an async task, it is the same.
//!
//! Callers of one key at one time, each in a thread of its own, wait for the one whose function runs, as
//! for a [`OnceLock`](std::sync::OnceLock); they never wait for an async load of that key, which may be
//! waiting for this very thread. Where a value is being written by somebody else at this moment, and it
//! takes longer than a moment, the function runs without the cache, and an invalidation follows in a task
//! or a thread of its own.
//!
//! Always true: nothing here waits for the future of another task; a function that asks
//! for its own key runs again and does not wait for itself; a panic goes to the caller whose function
//! it was, and one of those who wait runs its own.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread, ThreadId};

use parking_lot::{Condvar, Mutex};

use super::expansion::Target;
use super::load::{Lent, Shared, Sharing};
use super::{Cache, CacheValue, Key, Load, Loaded, Lookup, SetOptions, Ttl};
use crate::error::{Error, ErrorKind, Result};

/// How often a busy cache is asked before it is let be.
const TRIES: usize = 64;

/// A [`Cache`] in this process, for code that is not async.
///
/// Cheap to clone; clones share the calls that are running. Values are those of the [`Cache`].
///
/// ```
/// # use std::sync::Arc;
/// # use std::time::Duration;
/// # use askonce::backend::{MemoryBackend, MemoryConfig};
/// use askonce::Cache;
/// use askonce::typed::{Key, SyncCache};
///
/// # fn main() -> askonce::Result<()> {
/// # let backend = Arc::new(MemoryBackend::builder(MemoryConfig::default()).build()?);
/// let cache = SyncCache::new(Cache::new(backend))?;
/// let key = Key::new("square").part(3);
/// let square = cache.get_or_set(&key, Duration::from_secs(60), || 9_u64);
/// assert_eq!(square, 9);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct SyncCache {
    cache: Cache,
    calls: Arc<Mutex<HashMap<Key, Arc<Call>>>>,
}

/// A call that is running.
struct Call {
    by: ThreadId,
    ended: Mutex<Option<Ended>>,
    wake: Condvar,
}

/// How a call ended, to those who waited.
enum Ended {
    /// What there is to know is in the cache.
    Look,
    Failed(Shared),
}

/// Ends a call, by a panic too.
struct Running<'a> {
    cache: &'a SyncCache,
    key: &'a Key,
    call: Arc<Call>,
    ended: Ended,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.cache.calls.lock().remove(self.key);
        let ended = std::mem::replace(&mut self.ended, Ended::Look);
        *self.call.ended.lock() = Some(ended);
        self.call.wake.notify_all();
    }
}

enum Turn<'a> {
    Leads(Running<'a>),
    /// This thread is at it already.
    Within,
    Ended(Arc<Call>),
}

impl fmt::Debug for SyncCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SyncCache")
            .field("cache", &self.cache)
            .field("calls", &self.calls.lock().len())
            .finish()
    }
}

impl SyncCache {
    /// `cache`, for code that is not async.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] when its backend is not in this process.
    pub fn new(cache: Cache) -> Result<Self> {
        let backend = &cache.inner.backend;
        if !backend.capability().in_process {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "a cache that is not async needs a backend in this process",
            )
            .with("tier", backend.name()));
        }
        Ok(Self {
            cache,
            calls: Arc::default(),
        })
    }

    /// The cache, for code that is async.
    #[must_use]
    pub const fn as_async(&self) -> &Cache {
        &self.cache
    }

    /// As [`Cache::get`].
    ///
    /// # Errors
    /// As there, and [`ErrorKind::Timeout`] when the cache is busy for longer than a moment.
    pub fn get<T: CacheValue>(&self, key: &Key) -> Result<Lookup<T>> {
        self.at_once(self.cache.get(key))
    }

    /// As [`Cache::set`].
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn set<T: CacheValue>(
        &self,
        key: &Key,
        value: &T,
        options: impl Into<SetOptions>,
    ) -> Result<()> {
        self.at_once(self.cache.set(key, value, options))
    }

    /// As [`Cache::delete`].
    ///
    /// # Errors
    /// As [`get`](Self::get). The value may then still be stored.
    pub fn delete(&self, key: &Key) -> Result<bool> {
        self.at_once(self.cache.delete(key))
    }

    /// As [`Cache::get_or_set`].
    pub fn get_or_set<T: CacheValue>(
        &self,
        key: &Key,
        ttl: impl Into<Ttl>,
        loader: impl FnOnce() -> T,
    ) -> T {
        let load = self.cache.load(key).ttl(ttl);
        self.run(key, load, Sharing::CLONE, |_| false, loader)
    }

    /// As [`Cache::get_or_try_set`].
    ///
    /// # Errors
    /// Only what `loader` returns.
    pub fn get_or_try_set<T, E>(
        &self,
        key: &Key,
        ttl: impl Into<Ttl>,
        loader: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E>
    where
        T: CacheValue,
        E: Clone + Send + Sync + 'static,
    {
        let load = self.cache.load(key).ttl(ttl);
        self.run(key, load, Sharing::CLONE, |_| false, loader)
    }

    /// What is stored, or else what `loader` gives.
    pub(super) fn run<L: Loaded>(
        &self,
        key: &Key,
        load: Load<'_>,
        sharing: Sharing<L::Error>,
        unless: impl FnOnce(&L::Value) -> bool,
        loader: impl FnOnce() -> L,
    ) -> L {
        let mut turn = self.turn(key);
        while let Turn::Ended(call) = &turn {
            if let Some(Ended::Failed(error)) = &*call.ended.lock()
                && let Some(error) = sharing.unpacked(error)
            {
                return L::from_error(error);
            }
            // A value is in the cache, if it could be kept; else this caller's turn may have come.
            turn = self.turn(key);
        }
        let Turn::Leads(mut running) = turn else {
            return loader();
        };
        let mut loader = Some(loader);
        let made = OnceCell::new();
        let run = load.run_with(Sharing::NEVER, unless, || async {
            let Some(loader) = loader.take() else {
                unreachable!("a load runs its loader once")
            };
            Lent::Made(made.get_or_init(loader))
        });
        if let Some(Lent::Known(known)) = now(run) {
            return known;
        }
        let loaded = match (made.into_inner(), loader) {
            (Some(loaded), _) => loaded,
            // The cache is busy.
            (None, Some(loader)) => loader(),
            (None, None) => unreachable!("a function that has run has a result"),
        };
        if let Some(error) = loaded.view().err().and_then(|error| sharing.packed(error)) {
            running.ended = Ended::Failed(error);
        }
        loaded
    }

    fn turn<'a>(&'a self, key: &'a Key) -> Turn<'a> {
        let mut calls = self.calls.lock();
        if let Some(call) = calls.get(key).cloned() {
            drop(calls);
            if call.by == thread::current().id() {
                return Turn::Within;
            }
            let mut ended = call.ended.lock();
            while ended.is_none() {
                call.wake.wait(&mut ended);
            }
            drop(ended);
            return Turn::Ended(call);
        }
        let call = Arc::new(Call {
            by: thread::current().id(),
            ended: Mutex::new(None),
            wake: Condvar::new(),
        });
        calls.insert(key.clone(), Arc::clone(&call));
        Turn::Leads(Running {
            cache: self,
            key,
            call,
            ended: Ended::Look,
        })
    }

    fn at_once<T>(&self, operation: impl Future<Output = Result<T>>) -> Result<T> {
        now(operation).unwrap_or_else(|| Err(self.busy()))
    }

    fn busy(&self) -> Error {
        Error::new(ErrorKind::Timeout, "the cache is busy")
            .with("tier", self.cache.inner.backend.name())
            .retryable()
    }

    /// Removes what is out of date: now, or as soon as somebody can wait for it.
    pub(super) fn remove(&self, target: Target) {
        if now(target.forget(&self.cache)).is_some() {
            return;
        }
        let cache = self.cache.clone();
        let removal = async move { target.forget(&cache).await };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => {
                runtime.spawn(removal);
            }
            Err(_) => {
                let thread = thread::Builder::new().name("askonce-remove".to_owned());
                if let Err(error) = thread.spawn(|| block_on(removal)) {
                    let error = self.busy().caused_by(error);
                    self.cache.report("delete", &error);
                }
            }
        }
    }
}

/// What `future` comes to, if it does so in a moment.
pub(super) fn now<F: Future>(future: F) -> Option<F::Output> {
    // A task's budget is for what it shares with other tasks. This shares nothing.
    let mut future = pin!(tokio::task::unconstrained(future));
    for _ in 0..TRIES {
        let polled = future
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()));
        if let Poll::Ready(output) = polled {
            return Some(output);
        }
        thread::yield_now();
    }
    None
}

/// Waits in this thread, which has nothing else to do.
fn block_on<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        thread::park();
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}
