//! A lock that is held: renewed in the background, told when it is lost, released once.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::LockOptions;
use crate::backend::{BackendHandle, Condition};
use crate::clock::{ClockHandle, Timestamp};
use crate::error::Result;
use crate::observe;

/// Attempts at releasing in the background, and the pause after the first of them; each is four times
/// the one before.
const RELEASES: usize = 3;
const RELEASE_PAUSE: Duration = Duration::from_millis(50);

/// How a lock was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Loss {
    /// The store no longer has it for us: it expired there and another may hold it, or it was evicted,
    /// cleared or deleted.
    Gone,
    /// Its time ran out by our own clock, and no renewal had come through.
    Expired,
}

/// What a guard and its watcher share.
pub(super) struct Holding {
    pub(super) backend: BackendHandle,
    pub(super) clock: ClockHandle,
    pub(super) key: Bytes,
    /// What the key holds as long as the lock is ours.
    pub(super) value: Bytes,
    /// Until when, by our clock. Only the watcher moves it.
    until: AtomicU64,
    loss: watch::Sender<Option<Loss>>,
}

impl Holding {
    fn until(&self) -> Timestamp {
        Timestamp::from_millis(self.until.load(Ordering::SeqCst))
    }

    /// Time left by our clock.
    fn left(&self) -> Duration {
        self.until().since(self.clock.now())
    }

    fn lose(&self, how: Loss) {
        observe::lock("lost");
        tracing::warn!(?how, "a lock was lost before it was released");
        self.loss.send_replace(Some(how));
    }

    /// Renews in time, where that is wanted, and sees to it that a loss is told.
    async fn watch(&self, options: &LockOptions) {
        let third = options.ttl / 3;
        let mut pause = third;
        loop {
            // No longer than to the end, and never so long that a clock that is not the runtime's could
            // pass it unseen.
            tokio::time::sleep(pause.min(self.left())).await;
            let left = self.left();
            if left.is_zero() {
                return self.lose(Loss::Expired);
            }
            if !options.renew {
                continue;
            }
            // Counted from before the store is asked: it must not hold longer here than there.
            let until = self.clock.now().after(options.ttl);
            let ours = Condition::Equals(&self.value);
            let renewed = self
                .backend
                .set_if(&self.key, self.value.clone(), Some(until), ours);
            match tokio::time::timeout(left, renewed).await {
                // An answer that came too late does not bring back what was over meanwhile.
                Ok(Ok(true)) if self.left().is_zero() => return self.lose(Loss::Expired),
                Ok(Ok(true)) => {
                    self.until.store(until.as_millis(), Ordering::SeqCst);
                    pause = third;
                }
                Ok(Ok(false)) => return self.lose(Loss::Gone),
                // The store may be back before the time is over.
                Ok(Err(_)) | Err(_) => pause = third / 4,
            }
        }
    }
}

/// A lock that is held until it is released, dropped or lost.
///
/// Dropping it releases it in the background, as far as the store can be reached, and never blocks;
/// [`release`](Self::release) says what came of it.
#[must_use = "a lock is released when its guard is dropped"]
pub struct LockGuard {
    holding: Arc<Holding>,
    fence: u64,
    ttl: Duration,
    watcher: JoinHandle<()>,
    runtime: Handle,
    /// Whether there is nothing left to release.
    released: bool,
}

impl LockGuard {
    pub(super) fn new(
        backend: BackendHandle,
        clock: ClockHandle,
        (key, value): (Bytes, Bytes),
        fence: u64,
        until: Timestamp,
        options: LockOptions,
        runtime: Handle,
    ) -> Self {
        let holding = Arc::new(Holding {
            backend,
            clock,
            key,
            value,
            until: AtomicU64::new(until.as_millis()),
            loss: watch::Sender::new(None),
        });
        let ttl = options.ttl;
        let watched = Arc::clone(&holding);
        let watcher = runtime.spawn(async move { watched.watch(&options).await });
        Self {
            holding,
            fence,
            ttl,
            watcher,
            runtime,
            released: false,
        }
    }

    /// The fencing token: larger than that of every earlier holder of this lock. A resource that refuses
    /// tokens smaller than the largest it has seen is safe from a holder that does not know yet that it
    /// has lost the lock.
    #[must_use]
    pub fn fence(&self) -> u64 {
        self.fence
    }

    /// Whether the lock is ours, as far as can be known here: no loss was noticed, and by our own clock
    /// it has not run out. Asks nobody.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.holding.loss.borrow().is_none() && !self.holding.left().is_zero()
    }

    /// Waits until the lock is lost; for ever while it is not. Work that must not go on without the lock
    /// is raced against this.
    pub async fn lost(&self) -> Loss {
        let mut loss = self.holding.loss.subscribe();
        // The sender lives as long as this guard, so the wait only ends with a loss.
        let told = loss.wait_for(Option::is_some).await;
        told.ok().and_then(|loss| *loss).unwrap_or(Loss::Expired)
    }

    /// Gives the lock back; `false` when it was not ours any more, and nothing was changed then.
    ///
    /// # Errors
    /// Whatever the backend reports. It is then tried again in the background; if that fails too, the lock
    /// runs out by itself.
    pub async fn release(mut self) -> Result<bool> {
        self.watcher.abort();
        let Holding {
            backend,
            key,
            value,
            ..
        } = &*self.holding;
        let ours = backend.delete_if(key, value).await?;
        self.released = true;
        observe::lock(if ours { "released" } else { "released_late" });
        Ok(ours)
    }
}

impl Drop for LockGuard {
    fn drop(&mut self) {
        self.watcher.abort();
        if !self.released {
            let Holding {
                backend,
                key,
                value,
                ..
            } = &*self.holding;
            let values = vec![value.clone()];
            let forgotten = forget(Arc::clone(backend), key.clone(), values, self.ttl);
            self.runtime.spawn(forgotten);
        }
    }
}

impl fmt::Debug for LockGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockGuard")
            .field("fence", &self.fence)
            .field("held", &self.is_held())
            .finish_non_exhaustive()
    }
}

/// Removes `key` if it holds one of `values`; more than once, because a write whose answer was lost may
/// arrive after the first attempt. Ends by the time that the lock runs out anyway.
pub(super) async fn forget(backend: BackendHandle, key: Bytes, values: Vec<Bytes>, ttl: Duration) {
    let attempts = async {
        let mut pause = RELEASE_PAUSE;
        for _ in 0..RELEASES {
            for value in &values {
                if matches!(backend.delete_if(&key, value).await, Ok(true)) {
                    return;
                }
            }
            tokio::time::sleep(pause).await;
            pause *= 4;
        }
    };
    let _ = tokio::time::timeout(ttl, attempts).await;
}
