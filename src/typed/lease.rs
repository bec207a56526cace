//! One load for all processes.
//!
//! A lease lies under the key of the value itself: an envelope that holds the place and no value, or the
//! old value with a token in its header. It is taken, renewed, filled and given back by conditional
//! writes that compare all bytes, so whatever happens to the key meanwhile (a `set`, a `delete`, another
//! process that found the lease run out) makes the fill fail: nothing is stored by whoever has lost its
//! lease. No lock is kept anywhere else, and nothing has to be cleaned up: a lease that is not renewed
//! runs out.
//!
//! The token says until when the lease runs and has a random part, so that two leases never look alike.
//! Processes whose clocks differ by more than a lease's length would take it from each other, and load
//! twice; they would still not store what is out of date.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use super::Cache;
use super::held::Held;
use super::key::Place;
use crate::backend::Condition;
use crate::clock::Timestamp;
use crate::codec::{Envelope, Header};
use crate::error::{Error, ErrorKind, Result};

/// How loads in several processes become one; see [`Load::lease`](super::Load::lease).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseOptions {
    pub(super) ttl: Duration,
    pub(super) wait: Option<Duration>,
    poll: Duration,
}

impl Default for LeaseOptions {
    fn default() -> Self {
        Self {
            ttl: Duration::from_secs(30),
            wait: None,
            poll: Duration::from_millis(10),
        }
    }
}

impl LeaseOptions {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How long a lease runs unless it is renewed, which happens every third of it while the loader
    /// runs: the time that others lose when a process dies with a lease. At least 100 ms. Default: 30 s.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl.max(Duration::from_millis(100));
        self
    }

    /// How long to wait for another process before loading too; what is then loaded is not stored.
    /// Default, and `None`: as long as it renews its lease.
    #[must_use]
    pub fn wait(mut self, wait: impl Into<Option<Duration>>) -> Self {
        self.wait = wait.into();
        self
    }

    /// The first pause between two looks at what another process does; each further one is half as long
    /// again, up to 500 ms, and half of each is left to chance. At least 1 ms. Default: 10 ms.
    #[must_use]
    pub fn poll(mut self, pause: Duration) -> Self {
        self.poll = pause.max(Duration::from_millis(1));
        self
    }
}

/// Bits of a token that are random; the others are the milliseconds at which it runs out.
const RANDOM_BITS: u32 = 20;

fn token(until: Timestamp) -> u64 {
    let random = rand::random::<u64>() >> (u64::BITS - RANDOM_BITS);
    until.as_millis() << RANDOM_BITS | random
}

/// Whether somebody is making a new value.
pub(super) fn is_live(header: &Header, now: Timestamp) -> bool {
    header
        .lease
        .is_some_and(|token| now < Timestamp::from_millis(token >> RANDOM_BITS))
}

/// A lease that is held. Dropping it gives it back in a task of its own, or else it runs out.
pub(super) struct Lease(Option<Arc<Holding>>);

struct Holding {
    cache: Cache,
    place: Place,
    /// The old value, which others may use meanwhile.
    base: Option<Envelope>,
    ttl: Duration,
    /// What the key holds if the lease is still ours: several, if it is not known whether a renewal has
    /// come through; none, once it is lost or given back.
    ours: Mutex<Vec<Bytes>>,
}

impl Lease {
    /// Takes a lease on a key that holds `held`; `None` when that has changed.
    pub(super) async fn take(
        cache: &Cache,
        place: &Place,
        held: &Held,
        ttl: Duration,
    ) -> Result<Option<Self>> {
        let base = match held {
            Held::Stale(sealed) | Held::Fresh(sealed) => Some(sealed.envelope.clone()),
            Held::Nothing | Held::Dead(_) | Held::Leased(_) | Held::Unusable(..) => None,
        };
        let holding = Holding {
            cache: cache.clone(),
            place: place.clone(),
            base,
            ttl,
            ours: Mutex::default(),
        };
        let (bytes, expires) = holding.form()?;
        holding.ours.lock().push(bytes.clone());
        let lease = Self(Some(Arc::new(holding)));
        let backend = &cache.inner.backend;
        let taken = backend.set_if(&place.name, bytes, expires, held.unchanged());
        match taken.await {
            Ok(true) => Ok(Some(lease)),
            Ok(false) => {
                lease.disown();
                Ok(None)
            }
            // It may have been taken all the same: dropping it gives it back.
            Err(error) => Err(error),
        }
    }

    /// Runs `load` and renews the lease meanwhile.
    pub(super) async fn during<T>(&self, load: impl Future<Output = T>) -> T {
        let mut load = pin!(load);
        let mut renewals = pin!(async {
            if let Some(holding) = &self.0 {
                holding.renew_as_long_as_it_is_ours().await;
            }
        });
        let mut renewing = true;
        poll_fn(|context| {
            if let Poll::Ready(loaded) = load.as_mut().poll(context) {
                return Poll::Ready(loaded);
            }
            if renewing {
                renewing = renewals.as_mut().poll(context).is_pending();
            }
            Poll::Pending
        })
        .await
    }

    /// Stores a value in place of the lease; `false` when that was lost.
    pub(super) async fn fill(&self, bytes: Bytes, expires: Option<Timestamp>) -> Result<bool> {
        let Some(holding) = &self.0 else {
            return Ok(false);
        };
        let backend = &holding.cache.inner.backend;
        let name = &holding.place.name;
        for own in holding.candidates() {
            let set = backend.set_if(name, bytes.clone(), expires, Condition::Equals(&own));
            if set.await? {
                self.disown();
                return Ok(true);
            }
        }
        self.disown();
        Ok(false)
    }

    /// Gives the lease back: the old value is as it was, unless it is to be `dropped`, and others go on
    /// at once. `false` when it was lost.
    pub(super) async fn give_back(mut self, dropped: bool) -> bool {
        match self.0.take() {
            Some(holding) => holding.give_back(dropped).await,
            None => false,
        }
    }

    fn disown(&self) {
        if let Some(holding) = &self.0 {
            holding.ours.lock().clear();
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(holding) = self.0.take()
            && !holding.ours.lock().is_empty()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(async move { holding.give_back(false).await });
        }
    }
}

impl Holding {
    fn candidates(&self) -> Vec<Bytes> {
        self.ours.lock().clone()
    }

    /// What the key is to hold from now on, and until when.
    fn form(&self) -> Result<(Bytes, Option<Timestamp>)> {
        let inner = &self.cache.inner;
        let key = self.place.digest.as_bytes();
        let now = inner.clock.now();
        let until = now.after(self.ttl);
        let lease = Some(token(until));
        let (sealed, expires) = match &self.base {
            None => {
                let header = Header {
                    created: now,
                    expires: Some(until),
                    lease,
                    ..Header::default()
                };
                (inner.codec.seal_empty(key, &header), Some(until))
            }
            Some(envelope) => {
                let header = Header {
                    lease,
                    ..envelope.header.clone()
                };
                let expires = header.physical_expiry().map(|expires| expires.max(until));
                (inner.codec.reseal(key, &header, envelope), expires)
            }
        };
        let bytes = sealed.map_err(|error| {
            Error::new(ErrorKind::Corrupt, "the lease has no stored form").caused_by(error)
        })?;
        Ok((bytes, expires))
    }

    async fn renew_as_long_as_it_is_ours(&self) {
        loop {
            tokio::time::sleep(self.ttl / 3).await;
            match self.renew().await {
                Ok(true) => {}
                Ok(false) => return,
                // There are two more thirds to come.
                Err(error) => self.cache.report("renew", &error),
            }
        }
    }

    /// `false` when the lease was lost.
    async fn renew(&self) -> Result<bool> {
        let (bytes, expires) = self.form()?;
        let before = self.candidates();
        // Before the request: if this future is dropped now, the renewal may still come through.
        self.ours.lock().push(bytes.clone());
        let backend = &self.cache.inner.backend;
        for own in before {
            let set = backend.set_if(
                &self.place.name,
                bytes.clone(),
                expires,
                Condition::Equals(&own),
            );
            let renewed = set.await?;
            let mut ours = self.ours.lock();
            if renewed {
                *ours = vec![bytes];
                return Ok(true);
            }
            ours.retain(|candidate| *candidate != own);
        }
        self.ours.lock().clear();
        Ok(false)
    }

    /// `false` when the lease was lost; `true` also when the backend does not tell.
    async fn give_back(&self, dropped: bool) -> bool {
        let mut lost = true;
        let ours = std::mem::take(&mut *self.ours.lock());
        let backend = &self.cache.inner.backend;
        let (name, key) = (&self.place.name, self.place.digest.as_bytes());
        let base = self.base.as_ref().filter(|_| !dropped);
        for own in ours {
            let given_back = match base {
                None => backend.delete_if(name, &own).await,
                Some(envelope) => {
                    let header = Header {
                        lease: None,
                        ..envelope.header.clone()
                    };
                    let expires = header.physical_expiry();
                    match self.cache.inner.codec.reseal(key, &header, envelope) {
                        Ok(bytes) => {
                            let same = Condition::Equals(&own);
                            backend.set_if(name, bytes, expires, same).await
                        }
                        Err(_) => backend.delete_if(name, &own).await,
                    }
                }
            };
            match given_back {
                Ok(true) => return true,
                Ok(false) => {}
                Err(error) => {
                    self.cache.report("release", &error);
                    lost = false;
                }
            }
        }
        !lost
    }
}

/// Ever longer pauses between looks at a key that somebody else is working on.
pub(super) struct Pauses {
    next: Duration,
}

impl Pauses {
    const LONGEST: Duration = Duration::from_millis(500);

    pub(super) fn new(options: Option<LeaseOptions>) -> Self {
        Self {
            next: options.unwrap_or_default().poll,
        }
    }

    /// Waits, between half a pause and a whole one, as `draw` says.
    pub(super) async fn pause(&mut self, draw: f64) {
        let pause = self.next.mul_f64(0.5 + draw / 2.0);
        self.next = (self.next * 3 / 2).min(Self::LONGEST.max(self.next));
        tokio::time::sleep(pause).await;
    }
}
