//! The write path: admission, every tier, the catalogue, the index; then the check against
//! invalidations that came in between.
//!
//! | what fails | what happens |
//! |---|---|
//! | admission ([`crate::admit`]) | nothing is written; the reason is returned |
//! | generations cannot be read | the entry is kept by this process alone, for as long as a near copy lives |
//! | the nearest of several tiers | what other tiers took is taken back; nothing is stored |
//! | a farther tier | it does without, and the fault is recorded |
//! | embedding or index | the entry is stored and matches exactly only |
//! | an invalidation came in between, here or in another process | the entry is removed again, or not written |

use std::sync::Arc;
use std::time::Duration;

use tracing::Instrument as _;
use tracing::field::Empty;

use super::Inner;
use super::lookup::Made;
use super::marks::Began;
use super::outcome::{NotStored, StoreOutcome};
use super::profile::Profile;
use crate::admit::{Admission, Refused};
use crate::clock::Timestamp;
use crate::config::VolatileAction;
use crate::entry::catalog::Row;
use crate::entry::{Answer, Entry, EntryId, Trust, Ttl};
use crate::error::ErrorKind;
use crate::observe::{self, SPANS};
use crate::request::{Eligibility, Request};
use crate::savings::Usage;

/// Bytes of text that are looked through on an async thread: some hundred microseconds.
const LOOKED_THROUGH_HERE: u64 = 64 << 10;

/// Bytes of a request's texts and its answer.
fn size_of(request: &Request, answer: &Answer) -> u64 {
    let texts: usize = request.message_texts().map(str::len).sum();
    (texts + answer.body().len()) as u64
}

/// What is known of an answer that is stored.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StoreOptions {
    /// How long the entry lives. A volatile prompt's entry lives no longer than config says.
    pub ttl: Ttl,
    /// Labels to invalidate by.
    pub tags: Vec<String>,
    /// Tokens that the call used, as the provider reports them; counted here when `None`.
    pub usage: Option<Usage>,
    /// How long the call took.
    pub latency: Option<Duration>,
    /// Whether somebody answers for it: it serves all of its scope at once, whatever
    /// [`min_principals`](crate::admit::AdmissionConfig::min_principals) says, may read like a refusal, and
    /// counts against no quota. Not for callers to choose.
    pub approved: bool,
}

impl StoreOptions {
    /// Options with one more tag.
    #[must_use]
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.tags.push(tag.into());
        self
    }

    /// Options with this life.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Ttl::For(ttl);
        self
    }

    /// Options with the provider's token counts.
    #[must_use]
    pub fn usage(mut self, usage: Usage) -> Self {
        self.usage = Some(usage);
        self
    }

    /// Options of an answer that somebody answers for.
    #[must_use]
    pub fn approved(mut self) -> Self {
        self.approved = true;
        self
    }

    /// Options with the duration of the call.
    #[must_use]
    pub fn latency(mut self, latency: Duration) -> Self {
        self.latency = Some(latency);
        self
    }
}

impl Inner {
    /// The whole write path. `began` was noted before the answer was computed; `made` are the request's
    /// vectors, as far as they are known already.
    pub(super) async fn store(
        &self,
        request: &Request,
        answer: Answer,
        options: StoreOptions,
        began: &Began,
        made: Made,
    ) -> StoreOutcome {
        let span = tracing::debug_span!(target: SPANS, "store", askonce.outcome = Empty);
        let write = self.write(request, answer, options, began, made);
        let outcome = match write.instrument(span.clone()).await {
            Ok((entry, expires)) => StoreOutcome::Stored { entry, expires },
            Err(reason) => StoreOutcome::NotStored { reason },
        };
        let label = match outcome {
            StoreOutcome::Stored { .. } => "stored",
            StoreOutcome::NotStored { reason } => reason.as_str(),
        };
        span.record("askonce.outcome", label);
        drop(span);
        observe::store(label);
        self.counters.store(label);
        self.tend().await;
        outcome
    }

    async fn write(
        &self,
        request: &Request,
        answer: Answer,
        options: StoreOptions,
        began: &Began,
        made: Made,
    ) -> Result<(EntryId, Option<Timestamp>), NotStored> {
        let now = self.clock.now();
        let expires = self.admit(request, &answer, &options, now)?;
        self.look_through(request, &answer).await?;
        let size = size_of(request, &answer);
        if !options.approved {
            self.quotas.take(request, size, now)?;
        }
        let scope = request.scope_ref();
        let terms = self.terms(began, scope, &options.tags, expires).await?;
        let expires = terms.expires;
        let usage = match options.usage {
            Some(usage) => usage,
            None => self.count_tokens(request, &answer).await,
        };
        let cost = request
            .model_name()
            .and_then(|model| self.prices.cost(model, &usage));
        let trust = self.trust(request, &answer, options.approved, now).await;
        let entry = Entry {
            id: EntryId::random(),
            digests: request.digests(),
            text: request.fuzzy_text().map(str::to_owned),
            answer,
            usage,
            cost,
            latency: options.latency.unwrap_or_default(),
            tags: options.tags,
            trust,
            created: now,
            expires,
        };
        let row = Row {
            exact: request.exact_key(),
            partition: request.partition(),
            scope: scope.clone(),
            model: request.model_name().unwrap_or_default().into(),
            tags: entry.tags.clone().into(),
            created: now,
            expires,
        };
        self.tiers
            .set(&entry, began.epoch.get(), terms.marks.clone())
            .await
            .map_err(|error| match error.kind() {
                ErrorKind::TooLarge => NotStored::TooLarge,
                _ => NotStored::TierUnavailable,
            })?;
        if let Some((old, old_row)) = self.catalog.insert(entry.id, row.clone()) {
            self.unlink(old, &old_row);
        }
        if !options.approved {
            self.quotas.hold(request, entry.id, size, now);
        }
        self.make_searchable(request, &entry, &row, made).await;
        self.keep_marks(&terms).await;
        if self.epochs.invalidates(began.epoch, entry.id, &row, now) {
            self.remove(entry.id, "invalidated").await;
            return Err(NotStored::Invalidated);
        }
        if let Some(cost) = cost {
            self.typical_cost.add(cost.as_dollars());
        }
        Ok((entry.id, expires))
    }

    /// Whether the answer may be stored, and until when.
    fn admit(
        &self,
        request: &Request,
        answer: &Answer,
        options: &StoreOptions,
        now: Timestamp,
    ) -> Result<Option<Timestamp>, NotStored> {
        if !self.enabled {
            return Err(NotStored::Disabled);
        }
        if request.bypass().is_some() {
            return Err(NotStored::NotCacheable);
        }
        let control = request.control();
        if control.no_store || control.use_cache == Some(false) {
            return Err(NotStored::Declined);
        }
        self.admission.answer(request, answer, options.approved)?;
        let default = control.ttl.or(self.default_ttl);
        let mut ttl = options.ttl;
        if request.volatility().is_some() {
            match self.volatile.action {
                VolatileAction::Ignore => {}
                VolatileAction::NoStore => return Err(NotStored::Volatile),
                VolatileAction::ShortTtl => {
                    let cap = self.volatile.ttl;
                    let life = ttl.life(default).map_or(cap, |life| life.min(cap));
                    ttl = Ttl::For(life);
                }
            }
        }
        ttl.expires(now, default).map_err(|_| NotStored::NoLife)
    }

    /// Whether there are secrets or personal data in the request or the answer; long texts are looked through
    /// off the async threads.
    async fn look_through(&self, request: &Request, answer: &Answer) -> Result<(), NotStored> {
        let look = |admission: &Admission, request: &Request, answer: &Answer| {
            admission.find(request, answer).map(|finding| {
                observe::admission_finding(finding.detector);
                finding.reason
            })
        };
        let found = if size_of(request, answer) <= LOOKED_THROUGH_HERE {
            look(&self.admission, request, answer)
        } else {
            let (admission, request, answer) =
                (Arc::clone(&self.admission), request.clone(), answer.clone());
            let look = move || look(&admission, &request, &answer);
            let looked = tokio::task::spawn_blocking(look).await;
            // What was not looked through to the end is not kept.
            looked.unwrap_or(Some(Refused::Secret))
        };
        found.map_or(Ok(()), |reason| Err(reason.into()))
    }

    /// Who has asked for this answer: whoever stores it, and those who asked before, if they were given the
    /// same one.
    async fn trust(
        &self,
        request: &Request,
        answer: &Answer,
        approved: bool,
        now: Timestamp,
    ) -> Trust {
        let key = request.exact_key();
        let mut trust = Trust::default();
        if approved {
            trust.approve();
        }
        trust.add(&key, request);
        if self.admission.min_principals() > 1 {
            let mut check = self.check(request);
            let held = self.tiers.look(&key, &[], &mut check, now).await.found;
            if let Some((entry, _)) = held
                && entry.answer == *answer
            {
                trust.join(&entry.trust);
            }
        }
        trust
    }

    /// Counts in whoever is given an entry for the same request. What comes in between, such as the removal
    /// of the entry, wins.
    pub(super) async fn count_in(&self, request: &Request, entry: &Entry, now: Timestamp) {
        let needed = self.admission.min_principals();
        let trust = &entry.trust;
        if needed <= 1 || trust.is_approved() || trust.principals() >= needed {
            return;
        }
        let key = request.exact_key();
        if !trust.clone().add(&key, request) {
            return;
        }
        let add = |held: &mut Entry| held.id == entry.id && held.trust.add(&key, request);
        self.tiers.amend(&key, now, add).await;
    }

    /// Counts in whoever waited for another's call for the same request.
    pub(super) async fn count_in_follower(&self, request: &Request, stored: Option<&StoreOutcome>) {
        let stored = stored.and_then(StoreOutcome::entry);
        if self.admission.min_principals() > 1
            && let Some(id) = stored
            && let Some(entry) = self.entry(id).await
        {
            self.count_in(request, &entry, self.clock.now()).await;
        }
    }

    /// Tokens by tokenizer, off the async threads: building a vocabulary takes a while, once.
    pub(super) async fn count_tokens(&self, request: &Request, answer: &Answer) -> Usage {
        let (counter, request, answer) = (self.tokens, request.clone(), answer.clone());
        let count = move || {
            let messages: Vec<&str> = request.message_texts().collect();
            let model = request.model_name().unwrap_or_default();
            counter.usage(model, &messages, &answer.words()).0
        };
        tokio::task::spawn_blocking(count).await.unwrap_or_default()
    }

    /// Puts the entry's text into the index. Without it the entry still matches exactly.
    async fn make_searchable(&self, request: &Request, entry: &Entry, row: &Row, made: Made) {
        let (Some(semantic), Some(text)) = (&self.semantic, request.fuzzy_text()) else {
            return;
        };
        if request.eligibility() != Eligibility::Eligible {
            return;
        }
        if request.volatility().is_some() && self.volatile.action != VolatileAction::Ignore {
            return;
        }
        let id = entry.id;
        // Before the row, so that whoever finds the one finds the other.
        let profile = Profile::of(entry).map(|profile| {
            let entries = self.catalog.len();
            semantic.profiles.insert(id, profile, entries)
        });
        if let (Some(profile), Some(backlog)) = (profile, &semantic.backlog) {
            match &made.second {
                Some(vector) => profile.keep_second(Some(vector)),
                None if semantic.policy.may_refine() => backlog.push(&profile, text),
                None => {}
            }
        }
        let vector = match made.vector {
            Some(vector) => Ok(vector),
            None => semantic.embed.embed(text).await,
        };
        let added = vector.and_then(|vector| semantic.search.upsert(id, row, &vector));
        if let Err(error) = added {
            observe::store("not_searchable");
            tracing::warn!(entry = %id, %error, "the entry is stored but not searchable");
        }
    }
}
