//! The lookups of late, for people who look at a running cache.
//!
//! A bounded ring in memory, off unless [`CacheBuilder::keep_recent`](super::CacheBuilder::keep_recent) asks
//! for it. It holds no text: entries are named by their ids, and who may read an entry may read its text there.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::Serialize;

use super::outcome::{HitKind, MissReason, Nearest, Outcome};
use super::{Inner, SemanticCache};
use crate::decision::DecisionRecord;
use crate::entry::EntryId;
use crate::request::{Request, Scope};
use crate::savings::Usd;

/// A lookup that was made of late. Free of prompt and answer text.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct RecentLookup {
    /// When it ended, in milliseconds since 1970.
    pub at: u64,
    /// Who asked, by the [label](Scope::label) of the scope.
    pub scope: String,
    /// The model that was asked, if one was named.
    pub model: Option<String>,
    /// `hit` or `miss`.
    pub outcome: &'static str,
    /// Of a hit: `exact` or `semantic`.
    pub kind: Option<&'static str>,
    /// Of an exact hit: the tier that held the answer.
    pub tier: Option<Arc<str>>,
    /// Of a hit: the entry that was served.
    pub entry: Option<EntryId>,
    /// Of a hit by similarity: the cosine of the two texts' embeddings.
    pub similarity: Option<f32>,
    /// Of a hit by similarity: the policy's estimate that the answer is right.
    pub probability: Option<f64>,
    /// Of a hit: what the upstream call would have cost, as far as its model has a price.
    pub saved_usd: Option<Usd>,
    /// Of a miss: the decisive reason.
    pub reason: Option<MissReason>,
    /// Of a miss: the most similar entry that was looked at, and what stopped it.
    pub nearest: Option<Nearest>,
}

/// Which lookups are wanted.
#[derive(Clone, Debug, Default)]
pub struct RecentFilter {
    /// Only those of this scope. Default: all.
    pub scope: Option<Scope>,
    /// Only hits, or only misses. Default: both.
    pub hits: Option<bool>,
}

/// The ring. With room for none, nothing is kept and nothing is locked.
#[derive(Debug, Default)]
pub(super) struct Ring {
    room: usize,
    kept: Mutex<VecDeque<Kept>>,
}

#[derive(Debug)]
struct Kept {
    at: u64,
    scope: Scope,
    model: Option<Box<str>>,
    what: What,
}

#[derive(Debug)]
enum What {
    Hit {
        kind: HitKind,
        entry: EntryId,
        saved_usd: Option<Usd>,
    },
    Miss {
        reason: MissReason,
        nearest: Option<Nearest>,
    },
}

impl Ring {
    pub(super) fn new(room: usize) -> Self {
        Self {
            room,
            kept: Mutex::default(),
        }
    }

    fn push(&self, kept: Kept) {
        let mut ring = self.kept.lock();
        let oldest = if ring.len() >= self.room {
            ring.pop_front()
        } else {
            None
        };
        ring.push_back(kept);
        drop(ring);
        // Freed outside the lock.
        drop(oldest);
    }
}

impl Kept {
    fn told(&self) -> RecentLookup {
        let mut told = RecentLookup {
            at: self.at,
            scope: self.scope.label().into_owned(),
            model: self.model.as_deref().map(str::to_owned),
            outcome: "miss",
            kind: None,
            tier: None,
            entry: None,
            similarity: None,
            probability: None,
            saved_usd: None,
            reason: None,
            nearest: None,
        };
        match &self.what {
            What::Hit {
                kind,
                entry,
                saved_usd,
            } => {
                told.outcome = "hit";
                told.kind = Some(kind.as_str());
                told.entry = Some(*entry);
                told.saved_usd = *saved_usd;
                match kind {
                    HitKind::Exact { tier } => told.tier = Some(Arc::clone(tier)),
                    HitKind::Semantic {
                        similarity,
                        probability,
                        ..
                    } => (told.similarity, told.probability) = (Some(*similarity), *probability),
                }
            }
            What::Miss { reason, nearest } => {
                (told.reason, told.nearest) = (Some(*reason), *nearest);
            }
        }
        told
    }
}

impl Inner {
    /// Notes a finished lookup, where that is asked for.
    pub(super) fn note_recent(&self, request: &Request, outcome: &Outcome) {
        if self.recent.room == 0 {
            return;
        }
        let what = match outcome {
            Outcome::Hit(hit) => What::Hit {
                kind: hit.kind.clone(),
                entry: hit.entry,
                saved_usd: hit.saved.usd,
            },
            Outcome::Miss(miss) => What::Miss {
                reason: miss.reason(),
                nearest: miss.nearest,
            },
        };
        self.recent.push(Kept {
            at: self.clock.now().as_millis(),
            scope: request.scope_ref().clone(),
            model: request.model_name().map(Box::from),
            what,
        });
    }
}

impl SemanticCache {
    /// Up to `limit` of the lookups of late, the newest first; none unless the builder was told to
    /// [keep](super::CacheBuilder::keep_recent) them.
    #[must_use]
    pub fn recent_lookups(&self, filter: &RecentFilter, limit: usize) -> Vec<RecentLookup> {
        let wanted = |kept: &&Kept| {
            let is_hit = matches!(kept.what, What::Hit { .. });
            filter.scope.as_ref().is_none_or(|own| *own == kept.scope)
                && filter.hits.is_none_or(|hits| hits == is_hit)
        };
        let ring = self.inner.recent.kept.lock();
        let newest = ring.iter().rev().filter(wanted);
        newest.take(limit).map(Kept::told).collect()
    }

    /// The decisions of late with the labels that they got since, oldest first: what a policy would have done
    /// with them can be replayed. Begins with the end of the decision log, where there is one; empty unless the
    /// builder was told to [keep](super::CacheBuilder::keep_recent) them.
    #[must_use]
    pub fn recent_decisions(&self) -> Vec<DecisionRecord> {
        self.inner.learning.recent_decisions()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::StoreOptions;
    use crate::entry::Answer;

    fn ask(text: &str, tenant: &str) -> Request {
        let scope = Scope::tenant(tenant.to_owned());
        Request::prompt(text).model("gpt-4o").scope(scope)
    }

    async fn used(room: usize) -> SemanticCache {
        let cache = SemanticCache::builder().keep_recent(room).build().await;
        let cache = cache.unwrap();
        let stored = ask("How do I reset my password?", "acme");
        let _ = cache.lookup(&stored).await;
        let answer = Answer::text("Open Settings");
        let _ = cache.store(&stored, answer, StoreOptions::default()).await;
        let _ = cache.lookup(&stored).await;
        let _ = cache
            .lookup(&ask("how can I reset my password", "acme"))
            .await;
        let _ = cache.lookup(&ask("How do I cook rice?", "globex")).await;
        cache
    }

    #[tokio::test]
    async fn the_lookups_of_late_are_told_newest_first_and_without_text() {
        let cache = used(8).await;
        let all = cache.recent_lookups(&RecentFilter::default(), 10);
        let kinds: Vec<_> = all.iter().map(|lookup| lookup.kind).collect();
        assert_eq!(kinds, [None, Some("semantic"), Some("exact"), None]);
        assert!(all[1].similarity.is_some_and(|similarity| similarity > 0.5));
        assert_eq!(all[2].tier.as_deref(), Some("memory"));
        assert_eq!(all[3].reason, Some(MissReason::NotFound));
        let told = serde_json::to_string(&all).unwrap();
        assert!(
            !told.contains("password") && !told.contains("Settings"),
            "{told}"
        );
        let own = RecentFilter {
            scope: Some(Scope::tenant("acme")),
            hits: Some(false),
        };
        let misses = cache.recent_lookups(&own, 10);
        assert_eq!(misses.len(), 1);
        assert_eq!(
            (misses[0].scope.as_str(), misses[0].at),
            ("acme", all[3].at)
        );
    }

    #[tokio::test]
    async fn the_ring_is_bounded_and_off_unless_asked_for() {
        let everything = RecentFilter::default();
        assert_eq!(used(2).await.recent_lookups(&everything, 10).len(), 2);
        let off = used(0).await;
        assert!(off.recent_lookups(&everything, 10).is_empty());
    }

    #[tokio::test]
    async fn decisions_can_be_replayed() {
        let decisions = used(8).await.recent_decisions();
        assert_eq!(decisions.len(), 1);
        assert!(decisions[0].served.is_some());
        assert!(used(0).await.recent_decisions().is_empty());
    }
}
