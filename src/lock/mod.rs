//! Locks that processes share, in any store with conditional writes.
//!
//! ```
//! use std::sync::Arc;
//!
//! use askonce::backend::{MemoryBackend, MemoryConfig};
//! use askonce::clock::SystemClock;
//! use askonce::lock::{LockError, LockOptions, Locks};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> askonce::Result<()> {
//! let backend = Arc::new(MemoryBackend::builder(MemoryConfig::default()).build()?);
//! let locks = Locks::new(backend, Arc::new(SystemClock));
//!
//! let nightly = locks.acquire("nightly-report", LockOptions::default()).await?;
//! assert!(nightly.is_held());
//! // What is written under the lock carries the fence, so that a holder that was cut off cannot undo it.
//! let fence = nightly.fence();
//!
//! let second = locks.acquire("nightly-report", LockOptions::default()).await;
//! assert!(matches!(second, Err(LockError::Held)));
//!
//! assert!(nightly.release().await?);
//! let next = locks.acquire("nightly-report", LockOptions::default()).await?;
//! assert!(next.fence() > fence);
//! # Ok(())
//! # }
//! ```
//!
//! # Protocol
//! Each step is one atomic write of one key, so it works on one server as on a cluster:
//! 1. the lock's key is set to a fresh random token of 128 bits, if it is absent: the claim;
//! 2. the counter beside it is incremented: that is the fence;
//! 3. the key is set to token and fence, if it still holds the token: now the lock is held.
//!
//! # Why fences grow
//! Between claim and step 3 of one holder no other can have claimed, or step 3 would have failed; and the
//! next holder counts after its own claim, so after that. A claimant that was stopped between the steps
//! until its claim ran out may count late, but its fence is never valid.
//! The counter has no expiry. Should the store lose it all the same (evicted, cleared, started anew) it
//! goes on from the microseconds since 1970, which no counter has reached; only then does the order rest
//! on clocks.
//!
//! # What a holder may rely on
//! A lock saves double work; it does not make double work impossible. A holder that is stopped for longer
//! than `ttl` wakes up without it, and one whose clock differs from the others' by as much is no better
//! off. So a holder is told as soon as it can be ([`LockGuard::lost`], also when renewals fail and the
//! time runs out by its own clock), and what must not happen twice checks the [fence](LockGuard::fence).
//! A store that evicts, or is cleared, loses locks with everything else.
//!
//! # Always true
//! - A lock is renewed and released only by comparing with its own token, in one step with the change.
//! - A caller that goes away while it acquires leaves nothing behind: the attempt ends by itself, and what
//!   it got is released.
//! - Locks are not reentrant: a second acquire by the same holder waits like anyone else's. Nor are they
//!   fair: who waits tries again after a pause that is partly left to chance.

mod config;
mod guard;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;

use crate::backend::{BackendHandle, Condition, MAX_COUNT};
use crate::clock::{ClockHandle, Timestamp};
use crate::error::{Error, ErrorKind, Result};
use crate::observe;

pub use config::LockConfig;
pub use guard::{LockGuard, Loss};

use guard::forget;

/// The longest pause between two attempts at a lock that another holds.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// A counter below this has begun anew: one that goes on is far beyond.
const BEGUN_ANEW: i64 = 1_000_000_000_000;

/// Attempts at lifting a counter that has begun anew, while others count or the store drops it.
const LIFTS: usize = 16;

/// How a lock is acquired and kept. The defaults are those of [`LockConfig`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockOptions {
    /// How long the lock outlives a holder that died, 100 ms to 24 h. Default: 30 s.
    pub ttl: Duration,
    /// How long to wait while another holds it; `None`: do not. Default: `None`.
    pub wait: Option<Duration>,
    /// Whether to renew it every third of `ttl` until it is released; otherwise it is lost after `ttl`.
    /// Default: `true`.
    pub renew: bool,
    /// The first pause between two attempts; it doubles up to a second. Default: 20 ms.
    pub retry: Duration,
}

impl Default for LockOptions {
    fn default() -> Self {
        LockConfig::default().options()
    }
}

/// Why a lock was not acquired.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LockError {
    /// Another holds it, and did so for as long as we were to wait.
    #[error("the lock is held by another")]
    Held,
    /// The store failed, does not write conditionally, or the options are out of range. Whether another
    /// holds the lock is not known.
    #[error(transparent)]
    Failed(#[from] Error),
}

impl From<LockError> for Error {
    fn from(error: LockError) -> Self {
        match error {
            LockError::Held => {
                Self::new(ErrorKind::Timeout, "the lock is held by another").retryable()
            }
            LockError::Failed(error) => error,
        }
    }
}

/// The locks of one store. Cheap to clone.
#[derive(Clone)]
pub struct Locks {
    backend: BackendHandle,
    clock: ClockHandle,
    prefix: Arc<str>,
    defaults: LockOptions,
}

impl fmt::Debug for Locks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Locks")
            .field("backend", &self.backend.name())
            .field("prefix", &self.prefix)
            .field("defaults", &self.defaults)
            .finish_non_exhaustive()
    }
}

impl Locks {
    /// Locks in `backend`, with the settings of [`LockConfig::default`]. `clock` must be the one that the
    /// backend reads.
    #[must_use]
    pub fn new(backend: BackendHandle, clock: ClockHandle) -> Self {
        let LockConfig { prefix, .. } = LockConfig::default();
        Self {
            backend,
            clock,
            prefix: prefix.into(),
            defaults: LockOptions::default(),
        }
    }

    /// As [`new`](Self::new), with other settings.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when a setting is out of range.
    pub fn with_config(
        backend: BackendHandle,
        clock: ClockHandle,
        config: &LockConfig,
    ) -> Result<Self> {
        config.validate("lock")?;
        Ok(Self {
            backend,
            clock,
            prefix: config.prefix.as_str().into(),
            defaults: config.options(),
        })
    }

    /// What the settings say about acquiring a lock: to be passed on, or changed first.
    #[must_use]
    pub fn defaults(&self) -> LockOptions {
        self.defaults.clone()
    }

    /// Acquires the lock `name`. Must be called in a tokio runtime.
    ///
    /// # Errors
    /// - [`LockError::Held`] when another holds it and `wait` is over.
    /// - [`LockError::Failed`] as soon as the store fails, or when it did not answer within `wait`.
    pub async fn acquire(&self, name: &str, options: LockOptions) -> Result<LockGuard, LockError> {
        let acquired = self.acquire_within(name, options).await;
        observe::lock(match &acquired {
            Ok(_) => "acquired",
            Err(LockError::Held) => "held",
            Err(LockError::Failed(_)) => "failed",
        });
        acquired
    }

    async fn acquire_within(
        &self,
        name: &str,
        options: LockOptions,
    ) -> Result<LockGuard, LockError> {
        options.validate("options")?;
        let Some(wait) = options.wait.filter(|wait| !wait.is_zero()) else {
            return self.attempt(name, &options).await?.ok_or(LockError::Held);
        };
        let seen_held = AtomicBool::new(false);
        let attempts = async {
            let mut pause = options.retry;
            loop {
                if let Some(guard) = self.attempt(name, &options).await? {
                    return Ok(guard);
                }
                seen_held.store(true, Ordering::Relaxed);
                tokio::time::sleep(pause.mul_f64(0.5 + rand::random::<f64>() / 2.0)).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        };
        match tokio::time::timeout(wait, attempts).await {
            Ok(ended) => ended,
            Err(_) if seen_held.into_inner() => Err(LockError::Held),
            Err(_) => {
                let error = Error::new(ErrorKind::Timeout, "the store of locks did not answer");
                let error = error.with("tier", self.backend.name());
                Err(error.with("waited", format!("{wait:?}")).retryable().into())
            }
        }
    }

    /// Whether anyone holds the lock `name` now, or is about to.
    ///
    /// # Errors
    /// Whatever the backend reports.
    pub async fn is_held(&self, name: &str) -> Result<bool> {
        let held = self.backend.get(&self.key(name, "held")).await?;
        Ok(held.is_some())
    }

    /// One attempt, in a task of its own: it ends whatever becomes of the caller, and a guard that nobody
    /// takes is dropped, which releases it.
    async fn attempt(&self, name: &str, options: &LockOptions) -> Result<Option<LockGuard>> {
        let runtime = Handle::try_current().map_err(|error| {
            Error::new(ErrorKind::Config, "locks need a tokio runtime").caused_by(error)
        })?;
        let claim = Claim {
            locks: self.clone(),
            key: self.key(name, "held"),
            fence_key: self.key(name, "fence"),
            options: options.clone(),
            runtime: runtime.clone(),
        };
        let attempted = runtime.spawn(claim.attempt()).await;
        attempted.unwrap_or_else(|error| {
            let failed = Error::new(ErrorKind::BackendUnavailable, "the store of locks failed");
            Err(failed.with("tier", self.backend.name()).caused_by(error))
        })
    }

    /// The kinds have no separator in them, so no name of one is a name of the other.
    fn key(&self, name: &str, kind: &str) -> Bytes {
        Bytes::from(format!("{}:{kind}:{name}", self.prefix))
    }

    /// The next number of the counter under `key`, larger than all before.
    async fn next_fence(&self, key: &Bytes) -> Result<u64> {
        for _ in 0..LIFTS {
            let count = self.backend.increment(key, 1, None).await?;
            let start = first_fence(self.clock.now());
            if count >= BEGUN_ANEW || start < BEGUN_ANEW {
                return u64::try_from(count).map_err(|error| {
                    Error::new(ErrorKind::Corrupt, "the fence of a lock is negative")
                        .with("tier", self.backend.name())
                        .caused_by(error)
                });
            }
            let counted = count.to_string();
            let still = Condition::Equals(counted.as_bytes());
            let start = Bytes::from(start.to_string());
            // If another has counted or lifted it meanwhile, the next round sees what came of it.
            self.backend.set_if(key, start, None, still).await?;
        }
        let error = Error::new(
            ErrorKind::BackendUnavailable,
            "the store drops the fence of a lock at once",
        );
        Err(error.with("tier", self.backend.name()).retryable())
    }
}

/// Where a counter goes on that the store has lost: nobody acquires one lock a thousand times a
/// millisecond.
fn first_fence(now: Timestamp) -> i64 {
    let micros = now.as_millis().saturating_mul(1_000);
    i64::try_from(micros).unwrap_or(i64::MAX).min(MAX_COUNT / 2)
}

/// One attempt at one lock.
struct Claim {
    locks: Locks,
    key: Bytes,
    fence_key: Bytes,
    options: LockOptions,
    runtime: Handle,
}

impl Claim {
    /// The lock, or `None` when another holds it.
    async fn attempt(self) -> Result<Option<LockGuard>> {
        let Locks { backend, clock, .. } = &self.locks;
        let token = Bytes::copy_from_slice(&rand::random::<[u8; 16]>());
        let expires = clock.now().after(self.options.ttl);
        let claimed = backend
            .set_if(&self.key, token.clone(), Some(expires), Condition::Absent)
            .await;
        // What failed may have been written all the same.
        if !claimed.inspect_err(|_| self.give_up(&[&token]))? {
            return Ok(None);
        }
        let fence = self.locks.next_fence(&self.fence_key).await;
        let fence = fence.inspect_err(|_| self.give_up(&[&token]))?;
        let value = Bytes::from([&token[..], &fence.to_be_bytes()].concat());
        let until = clock.now().after(self.options.ttl);
        let held = backend
            .set_if(
                &self.key,
                value.clone(),
                Some(until),
                Condition::Equals(&token),
            )
            .await;
        if !held.inspect_err(|_| self.give_up(&[&value, &token]))? {
            return Ok(None);
        }
        let (backend, clock) = (Arc::clone(backend), Arc::clone(clock));
        Ok(Some(LockGuard::new(
            backend,
            clock,
            (self.key, value),
            fence,
            until,
            self.options,
            self.runtime,
        )))
    }

    fn give_up(&self, values: &[&Bytes]) {
        let values = values.iter().copied().cloned().collect();
        let backend = Arc::clone(&self.locks.backend);
        let forgotten = forget(backend, self.key.clone(), values, self.options.ttl);
        self.runtime.spawn(forgotten);
    }
}
