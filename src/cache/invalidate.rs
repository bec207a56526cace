//! Taking entries out: by entry, key, scope, tag, model or age; and noting wrong hits.

use std::collections::{HashMap, HashSet};

use parking_lot::RwLock;

use super::{Inner, SemanticCache, marks};
use crate::entry::EntryId;
use crate::entry::catalog::{Row, Selector};
use crate::error::{Error, ErrorKind, Result};
use crate::learning::{Accuser, Report};
use crate::observe;
use crate::request::{ExactKey, Request, Scope};

/// What a caller says of a hit.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// The answer was right.
    Right,
    /// The answer was wrong for this request: it is never served for it again.
    Wrong {
        /// The request that was answered.
        query: Request,
    },
}

/// Queries that an entry must not answer. Bounded: an entry with [`MAX_WRONG`] of them stops matching
/// by similarity at all.
#[derive(Debug, Default)]
pub(super) struct WrongHits {
    by_entry: RwLock<HashMap<EntryId, HashSet<[u8; 32]>>>,
}

/// Entries removed from the tiers per step.
const REMOVE_BATCH: usize = 256;

/// Wrong queries after which an entry is only served for its own request.
pub(super) const MAX_WRONG: usize = 16;

impl WrongHits {
    pub(super) fn contains(&self, query: &Request, entry: EntryId) -> bool {
        let by_entry = self.by_entry.read();
        // Most caches have no wrong hit at all: spare the hash.
        !by_entry.is_empty()
            && by_entry
                .get(&entry)
                .is_some_and(|queries| queries.contains(&fingerprint(query)))
    }

    /// Notes a pair; `true` when the entry has had its last chance.
    pub(super) fn insert(&self, fingerprint: [u8; 32], entry: EntryId) -> bool {
        let mut by_entry = self.by_entry.write();
        let queries = by_entry.entry(entry).or_default();
        queries.insert(fingerprint);
        queries.len() >= MAX_WRONG
    }

    /// Notes what an earlier process was told.
    pub(super) fn restore(&self, entry: EntryId, queries: Vec<[u8; 32]>) {
        if !queries.is_empty() {
            self.by_entry
                .write()
                .insert(entry, queries.into_iter().collect());
        }
    }

    /// Fingerprints of the queries that an entry must not answer.
    pub(super) fn of(&self, entry: EntryId) -> Vec<[u8; 32]> {
        let by_entry = self.by_entry.read();
        let queries = by_entry.get(&entry).into_iter().flatten();
        queries.copied().collect()
    }

    pub(super) fn forget(&self, entry: EntryId) {
        if !self.by_entry.read().is_empty() {
            self.by_entry.write().remove(&entry);
        }
    }
}

/// The query as similarity sees it: a different spelling of white space is the same query.
pub(super) fn fingerprint(query: &Request) -> [u8; 32] {
    let mut hash = blake3::Hasher::new();
    hash.update(query.partition().as_bytes());
    hash.update(query.fuzzy_text().unwrap_or_default().as_bytes());
    *hash.finalize().as_bytes()
}

impl SemanticCache {
    /// Removes the entries that `selector` means and returns how many this process knew of. An answer that
    /// is being computed meanwhile is not stored if `selector` means it too.
    ///
    /// Where a tier is shared, this holds for all processes that share it, also for entries that this one
    /// never saw, except by age: [`Selector::OlderThan`] means what this process has stored, and so does
    /// [`Selector::Entry`]. What others have near they may serve until they hear of it, and no longer than
    /// [`near_ttl`](crate::tier::TierConfig::near_ttl). While the shared tier is away, nothing that is meant
    /// is served here, and the others hear of it when it is back.
    pub async fn invalidate(&self, selector: Selector) -> usize {
        let inner = &self.inner;
        // First the log, then the search for entries: see the module `epoch`.
        inner.epochs.record(selector.clone());
        // Those that other processes stored, and those that they are making.
        inner.renew(&selector).await;
        let ids = inner.catalog.select(&selector, inner.clock.now());
        if let ([id], Selector::Entry(_)) = (&ids[..], selector.innermost())
            && let Some((key, _)) = inner.catalog.locate(*id)
        {
            inner.renew_keys(&[key]).await;
        }
        // First from the index, where partitions that it means as a whole go in one step each. What is
        // still in the catalogue when this future is dropped is found by the next call.
        if let Some(semantic) = &inner.semantic {
            for (partition, ids) in inner.catalog.by_partition(&ids) {
                semantic.search.remove_all(&partition, &ids);
            }
        }
        for ids in ids.chunks(REMOVE_BATCH) {
            let rows = ids.iter().filter_map(|id| inner.forget(*id, "invalidated"));
            let keys: Vec<_> = rows.map(|row| row.exact).collect();
            inner.tiers.delete_many(&keys).await;
        }
        let mut removed = ids.len();
        if let Some(key) = inner.key_of(&selector).await {
            // A shared tier may hold what another node stored, or is about to store.
            inner.renew_keys(&[key]).await;
            let held = inner.tiers.delete(&key).await;
            removed = removed.max(usize::from(held));
        }
        tracing::info!(selector = selector.as_str(), removed, "invalidated");
        removed
    }

    /// How many entries `selector` means now: what [`invalidate`](Self::invalidate) would remove.
    #[must_use]
    pub fn count(&self, selector: &Selector) -> usize {
        self.inner
            .catalog
            .select(selector, self.inner.clock.now())
            .len()
    }

    /// Tells the cache whether a hit was right.
    ///
    /// A wrong hit by similarity is never served for that query again; an entry with many of them only
    /// answers its own request. A wrong exact hit removes the entry. The policy hears of either verdict, as
    /// far as [`FeedbackConfig::weight`](crate::config::FeedbackConfig::weight) says.
    ///
    /// The caller of this method vouches for the report;
    /// [`feedback_from`](Self::feedback_from) is for reports of others.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidRequest`] when there is no such entry, or when the query could not have
    /// been answered by it.
    pub async fn feedback(&self, entry: EntryId, verdict: Verdict) -> Result<()> {
        self.hear(entry, verdict, None).await.map(drop)
    }

    /// As [`feedback`](Self::feedback), for a report of `principal`: a user, or whoever else can be told from
    /// others. `false` when it has reported too much of late
    /// ([`FeedbackConfig::per_principal`](crate::config::FeedbackConfig::per_principal)), and nothing was
    /// noted. The policy hears of one report of a principal of each entry in that time. An entry that two principals found wrong, for whatever queries, only answers its own request.
    ///
    /// # Errors
    /// As [`feedback`](Self::feedback).
    pub async fn feedback_from(
        &self,
        entry: EntryId,
        verdict: Verdict,
        principal: &str,
    ) -> Result<bool> {
        self.hear(entry, verdict, Some(principal)).await
    }

    async fn hear(
        &self,
        entry: EntryId,
        verdict: Verdict,
        principal: Option<&str>,
    ) -> Result<bool> {
        let inner = &self.inner;
        let now = inner.clock.now();
        let refuse =
            |message| Err(Error::new(ErrorKind::InvalidRequest, message).with("entry", entry));
        let Some(row) = inner.catalog.get(entry) else {
            return refuse("there is no such entry, or it is gone");
        };
        match verdict {
            Verdict::Right => {
                if !inner.learning.admits(principal, now) {
                    observe::feedback("refused");
                    return Ok(false);
                }
                observe::feedback("right");
                let report = Report {
                    query: None,
                    right: true,
                    principal,
                };
                inner.learn_from_report(entry, report);
            }
            Verdict::Wrong { query } => {
                if query.partition() != row.partition {
                    return refuse("the entry could not have answered this request");
                }
                if !inner.learning.admits(principal, now) {
                    observe::feedback("refused");
                    return Ok(false);
                }
                observe::feedback("wrong");
                inner.counters.wrong_hit();
                if let Some(entry) = self.entry(entry).await {
                    // What the hit claimed to save is taken off the books again.
                    let saved = entry.saved();
                    let scope = query.scope_ref().label();
                    let model = query.model_name().unwrap_or_default();
                    let route = query.route_name().unwrap_or_default();
                    inner.book_wrong_hit((&*scope, model, route), &saved);
                }
                if query.exact_key() == row.exact {
                    inner.remove(entry, "reported_wrong").await;
                } else {
                    let query = fingerprint(&query);
                    let report = Report {
                        query: Some(query),
                        right: false,
                        principal,
                    };
                    inner.learn_from_report(entry, report);
                    inner.never_again(entry, query, Accuser::Caller(principal));
                }
            }
        }
        Ok(true)
    }
}

impl Inner {
    /// The one key that `selector` means, if it does not belong to another scope.
    async fn key_of(&self, selector: &Selector) -> Option<ExactKey> {
        let Selector::Key(key) = selector.innermost() else {
            return None;
        };
        let (mut rest, mut scopes) = (selector, Vec::new());
        while let Selector::Within(scope, inner) = rest {
            scopes.push(scope);
            rest = inner;
        }
        if scopes.is_empty() {
            return Some(*key);
        }
        // A key does not tell its scope, but what lies there carries the mark of it.
        let carries = self.tiers.marks_of(key).await;
        let belongs = |scope: &&Scope| carries.contains(&marks::of_scope(scope).id);
        scopes.iter().all(belongs).then_some(*key)
    }

    /// Removes an entry from every tier, the catalogue and the index.
    pub(super) async fn remove(&self, id: EntryId, cause: &'static str) {
        if let Some(row) = self.forget(id, cause) {
            self.tiers.delete(&row.exact).await;
        }
    }

    /// Removes an entry from the catalogue and the index: its tiers do not hold it any more.
    pub(super) fn forget(&self, id: EntryId, cause: &'static str) -> Option<Row> {
        let row = self.catalog.remove(id)?;
        self.unlink(id, &row);
        observe::removal(cause, 1);
        self.counters.removal(cause);
        Some(row)
    }

    /// Removes what hangs on an entry that has left the catalogue.
    pub(super) fn unlink(&self, id: EntryId, row: &Row) {
        self.unsearch(id, row);
        self.wrong_hits.forget(id);
        self.learning.forget(id);
        self.quotas.release(id);
        self.ready.forget(id);
    }

    /// Takes an entry out of the index: it matches exactly only.
    pub(super) fn unsearch(&self, id: EntryId, row: &Row) {
        if let Some(semantic) = &self.semantic {
            semantic.search.remove(&row.partition, id);
            semantic.profiles.remove(id);
        }
    }
}
