//! Lookup, and on a miss one upstream call for everybody who asks for the same request.

use std::future::Future;
use std::time::{Duration, Instant};

use super::epoch::Epoch;
use super::learn::Noted;
use super::lookup::{Depth, LookupOptions, Made};
use super::marks::Began;
use super::outcome::{Hit, Miss, MissReason, NotStored, Outcome, Served, Source, StoreOutcome};
use super::store::StoreOptions;
use super::{Inner, SemanticCache};
use crate::entry::Answer;
use crate::error::{Error, ErrorKind, Result};
use crate::observe;
use crate::request::{CacheControl, ExactKey, Request};
use crate::savings::Usage;
use crate::stampede::Flight;

/// What an upstream call gives back: an answer, and whether and how to keep it.
#[derive(Clone, Debug)]
pub struct Fill {
    answer: Answer,
    keep: Option<StoreOptions>,
    usage: Option<Usage>,
}

impl Fill {
    /// An answer to be kept as `options` say.
    #[must_use]
    pub fn keep(answer: Answer, options: StoreOptions) -> Self {
        Self {
            answer,
            usage: options.usage,
            keep: Some(options),
        }
    }

    /// An answer to be given to those who wait for it, and then forgotten: it was cut short, filtered,
    /// or marked `no-store`.
    #[must_use]
    pub fn pass_on(answer: Answer) -> Self {
        Self {
            answer,
            keep: None,
            usage: None,
        }
    }

    /// The answer, whether it is to be kept, and the tokens as far as the provider told them.
    pub(super) fn into_parts(self) -> (Answer, bool, Option<Usage>) {
        (self.answer, self.keep.is_some(), self.usage)
    }

    /// The same with the tokens that the provider reports; they are counted here otherwise.
    #[must_use]
    pub fn usage(mut self, usage: Usage) -> Self {
        self.usage = Some(usage);
        self
    }
}

impl From<Answer> for Fill {
    fn from(answer: Answer) -> Self {
        Self::keep(answer, StoreOptions::default())
    }
}

/// What a lookup came to.
pub(super) enum Looked<F> {
    /// A stored answer.
    Hit(Box<Hit>),
    /// None, and the call to make.
    Missed(Box<Missed>, F),
}

/// What a flight needs to know of the lookup before it.
pub(super) struct Missed {
    pub(super) miss: Miss,
    pub(super) epoch: Epoch,
    pub(super) made: Made,
    pub(super) noted: Option<Noted>,
    /// Whether an answer that came in between may be given.
    pub(super) look_again: bool,
}

/// What the callers of one flight share.
#[derive(Clone)]
pub(super) struct Landed {
    answer: Answer,
    /// `None`: another flight had stored the answer by the time this one began.
    stored: Option<StoreOutcome>,
}

impl Inner {
    /// Under which key the flights of a request meet.
    pub(super) fn flight_key(&self, request: &Request) -> ExactKey {
        match self.protection && request.bypass().is_none() {
            true => request.exact_key(),
            // Nobody else's: it is counted among those that run, and shared with nobody.
            false => ExactKey::from_bytes(rand::random()),
        }
    }

    /// The answer of another flight that has landed since a lookup missed.
    pub(super) async fn landed_meanwhile(&self, request: &Request) -> Option<Landed> {
        let now = self.clock.now();
        let mut check = self.check(request);
        let key = request.exact_key();
        let (entry, _) = self.tiers.look(&key, &[], &mut check, now).await.found?;
        (entry.digests == request.digests()).then(|| Landed {
            answer: entry.answer.clone(),
            stored: None,
        })
    }

    /// Books and stores what a call gave.
    pub(super) async fn land(
        &self,
        request: &Request,
        fill: Fill,
        took: Duration,
        began: &Began,
        made: Made,
        noted: Option<&Noted>,
    ) -> Landed {
        let Fill {
            answer,
            keep,
            usage,
        } = fill;
        let usage = match usage {
            Some(usage) => usage,
            None => self.count_tokens(request, &answer).await,
        };
        self.book_call(request, usage, took);
        let stored = match keep {
            Some(mut options) => {
                options.usage = Some(usage);
                options.latency.get_or_insert(took);
                let stored = self
                    .store(request, answer.clone(), options, began, made)
                    .await;
                if let Some(noted) = noted {
                    self.learn_from_miss(request, noted, &answer, &stored);
                }
                stored
            }
            None => StoreOutcome::NotStored {
                reason: NotStored::Declined,
            },
        };
        Landed {
            answer,
            stored: Some(stored),
        }
    }
}

impl SemanticCache {
    /// The stored answer for `request`, or the one that `call` gives.
    ///
    /// `call` runs at most once for all callers that ask for the same request at the same time, as a
    /// task of its own: it goes on when its caller goes away, and its answer is stored. Its error is
    /// shared with those who wait, and not kept. If it panics, one of those who wait runs its own
    /// call.
    ///
    /// Where [audits](crate::config::AuditConfig) are on, which they are not by default, `call` also runs for
    /// a few hits, in the background, to see whether they were right. So in any case it runs once at most.
    ///
    /// Must be called within a tokio runtime.
    ///
    /// # Errors
    /// Only what `call` returns: an [`Error`] as it is, anything else as the cause of an
    /// [`ErrorKind::Upstream`] error. No failure of a cache part ever surfaces here.
    ///
    /// ```
    /// use askonce::{Answer, Request, SemanticCache};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> askonce::Result<()> {
    /// let cache = SemanticCache::in_memory()?;
    /// let request = Request::prompt("What is the capital of France?").model("gpt-4o");
    /// let call = || async { Ok::<_, std::io::Error>(Answer::text("Paris.").into()) };
    /// let first = cache.get_or_call(&request, call).await?;
    /// let second = cache.get_or_call(&request, call).await?;
    /// assert!(first.source.hit().is_none());
    /// assert!(second.source.hit().is_some());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn get_or_call<F, Fut, E>(&self, request: &Request, call: F) -> Result<Served>
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<Fill, E>> + Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>> + 'static,
    {
        self.get_or_call_with(request, &LookupOptions::of(request), call)
            .await
    }

    /// As [`get_or_call`](Self::get_or_call), with a say in what may be served from the cache.
    ///
    /// # Errors
    /// As [`get_or_call`](Self::get_or_call).
    pub async fn get_or_call_with<F, Fut, E>(
        &self,
        request: &Request,
        options: &LookupOptions,
        call: F,
    ) -> Result<Served>
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<Fill, E>> + Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>> + 'static,
    {
        let missed = match self.served(request, options, call).await {
            Looked::Hit(hit) => {
                return Ok(Served {
                    answer: hit.answer.clone(),
                    source: Source::Cache(*hit),
                });
            }
            Looked::Missed(missed, call) => (missed, call),
        };
        let (missed, call) = missed;
        // Whoever streams the answer must not give up while this caller waits for it.
        let _waiting = self.inner.lives.attend(&request.exact_key());
        // Apart, so that a hit does not carry the room that a call takes.
        Box::pin(self.fly(request, missed, call)).await
    }

    /// The hit, or what a flight needs to know of the miss; and `call` back, unless an audit took it.
    pub(super) async fn served<F, Fut, E>(
        &self,
        request: &Request,
        options: &LookupOptions,
        call: F,
    ) -> Looked<F>
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<Fill, E>> + Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>> + 'static,
    {
        // Before anything is read: whatever is invalidated from here on counts against the fill.
        let epoch = self.inner.epochs.now();
        let lookup = self
            .inner
            .lookup(request, options, Depth::FirstServed)
            .await;
        self.inner.account(request, &lookup.outcome);
        match lookup.outcome {
            Outcome::Hit(hit) => {
                if let Some(noted) = lookup.noted {
                    self.inner.audit(request, &hit, noted, call);
                }
                Looked::Hit(Box::new(hit))
            }
            Outcome::Miss(miss) => {
                let missed = Missed {
                    miss,
                    epoch,
                    made: lookup.made,
                    noted: lookup.noted,
                    look_again: may_look_again(&options.control),
                };
                Looked::Missed(Box::new(missed), call)
            }
        }
    }

    /// One call for everybody who missed, and what becomes of its answer.
    pub(super) async fn fly<F, Fut, E>(
        &self,
        request: &Request,
        missed: Box<Missed>,
        call: F,
    ) -> Result<Served>
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<Fill, E>> + Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>> + 'static,
    {
        let Missed {
            miss,
            epoch,
            made,
            noted,
            look_again,
        } = *missed;
        let flight = {
            let (inner, request) = (std::sync::Arc::clone(&self.inner), request.clone());
            move || async move {
                let began = inner.begin(epoch, &request, None).await;
                // Between this caller's lookup and its turn another flight may have landed.
                if look_again && let Some(landed) = inner.landed_meanwhile(&request).await {
                    return Ok(landed);
                }
                let started = Instant::now();
                let fill = call().await.map_err(|error| upstream_error(error.into()));
                observe::upstream(if fill.is_ok() { "ok" } else { "error" });
                inner.counters.upstream(fill.is_ok());
                let took = started.elapsed();
                Ok(inner
                    .land(&request, fill?, took, &began, made, noted.as_ref())
                    .await)
            }
        };
        let key = self.inner.flight_key(request);
        let Some((landed, role)) = self.inner.flights.run(key, flight).await else {
            return Err(Error::new(
                ErrorKind::Upstream,
                "the upstream call ended without a result",
            ));
        };
        Ok(self.arrived(request, landed?, role, miss).await)
    }

    /// What a caller gets of a flight that has landed.
    pub(super) async fn arrived(
        &self,
        request: &Request,
        landed: Landed,
        role: Flight,
        miss: Miss,
    ) -> Served {
        let Landed { answer, stored } = landed;
        if role == Flight::Followed {
            self.inner.count_in_follower(request, stored.as_ref()).await;
        }
        let source = match stored {
            Some(stored) => Source::Upstream {
                miss,
                flight: role,
                stored,
            },
            None => match self.just_stored(request).await {
                Some(hit) => Source::Cache(hit),
                // Stored and evicted in the blink between: still the right answer.
                None => Source::Upstream {
                    miss: Miss {
                        reasons: vec![MissReason::Gone],
                        nearest: None,
                    },
                    flight: Flight::Followed,
                    stored: StoreOutcome::NotStored {
                        reason: NotStored::Declined,
                    },
                },
            },
        };
        Served { answer, source }
    }

    /// The exact hit on an answer that another flight has just stored.
    async fn just_stored(&self, request: &Request) -> Option<super::outcome::Hit> {
        let options = LookupOptions {
            exact_only: true,
            ..LookupOptions::default()
        };
        self.inner
            .lookup(request, &options, Depth::FirstServed)
            .await
            .outcome
            .hit()
    }
}

/// Whether an answer of the same request that has just come is as good as one from upstream.
pub(super) fn may_look_again(control: &CacheControl) -> bool {
    let exact_only = control.exact_only;
    *control
        == CacheControl {
            exact_only,
            ..CacheControl::default()
        }
}

pub(super) fn upstream_error(error: Box<dyn std::error::Error + Send + Sync>) -> Error {
    match error.downcast::<Error>() {
        Ok(error) => *error,
        Err(error) => Error::new(ErrorKind::Upstream, "the upstream call failed").caused_by(error),
    }
}
