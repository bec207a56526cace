//! What a finished lookup teaches: noted on the way, compared in the background.

use std::future::Future;
use std::path::Path;
use std::sync::{Arc, Weak};

use tokio::sync::mpsc;

use super::call::{Fill, upstream_error};
use super::invalidate::fingerprint;
use super::lookup::Judged;
use super::outcome::{Hit, Outcome, StoreOutcome};
use super::{Inner, SemanticCache};
use crate::backend::CacheBackend;
use crate::decision::{CandidateRecord, DecisionRecord, VerifiedRecord};
use crate::entry::{Answer, EntryId};
use crate::error::{Error, ErrorKind, Result};
use crate::layer::Layered;
use crate::learning::{
    Accuser, Agreement, Comparison, Label, LabelSource, LearningStats, News, PolicyOrigin,
    PolicyStatus, Purse, Recalibration, RecalibrationReport, Refit, Report, refit,
};
use crate::observe;
use crate::policy::{PolicyConfig, PolicyHandle, TextTraits};
use crate::request::Request;
use crate::savings::{CostKind, Usd};

/// A decision that was noted.
#[derive(Debug)]
pub(super) struct Noted {
    id: u64,
    decision: DecisionRecord,
    query: [u8; 32],
}

impl SemanticCache {
    /// What has been learnt from decisions.
    #[must_use]
    pub fn learning_stats(&self) -> LearningStats {
        self.inner.learning.stats()
    }

    /// Lets a category serve by similarity again after its breaker has tripped, or all of them. The default
    /// category has an empty name. Other processes that share a tier hear of it.
    pub fn reset_breaker(&self, category: Option<&str>) {
        self.inner.learning.reset(category);
    }

    /// Writes what was learnt to its file, and the decision log to the end; tells whether there is a file.
    /// Without this call a later process begins with what was written last, a minute before at most.
    ///
    /// # Errors
    /// [`ErrorKind::BackendUnavailable`] when a file cannot be written.
    pub async fn save_learning(&self) -> Result<bool> {
        Inner::save_learning(Arc::clone(&self.inner)).await
    }

    /// Tells what was learnt to the tier that is shared, if one is, and takes on what other processes learnt.
    /// A running cache does so every ten seconds by itself.
    ///
    /// # Errors
    /// Those of the tier.
    pub async fn share_learning(&self) -> Result<()> {
        self.inner.share_learning().await
    }

    /// Fits the calibrated policy anew on the labels of the decision log, and decides by the result if it keeps
    /// the same promises on them. Takes seconds, on a thread of its own. A running cache does so by itself where
    /// [`recalibrate_every`](crate::config::LearningConfig::recalibrate_every) is set.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] without a log or a calibrated policy in the settings; those of reading
    /// either.
    pub async fn recalibrate(&self) -> Result<Recalibration> {
        let unsupported = |message| Error::new(ErrorKind::Unsupported, message);
        let inner = &self.inner;
        let settings = inner.semantic.as_ref().and_then(|semantic| {
            if let PolicyConfig::Calibrated(settings) = &semantic.settings.policy {
                Some(settings.clone())
            } else {
                None
            }
        });
        let settings =
            settings.ok_or_else(|| unsupported("only a calibrated policy can be fitted anew"))?;
        if inner.learning.log_path().is_none() {
            return Err(unsupported("a policy is fitted anew on a decision log"));
        }
        let (fitting, now) = (Arc::clone(inner), inner.clock.now());
        let fit = move || {
            // With what is not written yet.
            fitting.learning.save()?;
            let path = fitting.learning.log_path().unwrap_or_else(|| Path::new(""));
            refit(path, &settings, now)
        };
        let Refit { decisions, policy } =
            tokio::task::spawn_blocking(fit)
                .await
                .unwrap_or_else(|error| {
                    Err(Error::new(ErrorKind::Config, "the fit did not end").caused_by(error))
                })?;
        let (outcome, policy) = match policy {
            Ok(policy) => (Recalibration::Replaced { decisions }, Some(policy)),
            Err(reason) => (Recalibration::Refused { decisions, reason }, None),
        };
        let file = policy.as_ref().map(|policy| policy.file().clone());
        let report = RecalibrationReport {
            at: now.as_millis(),
            outcome: outcome.clone(),
            digest: file.as_ref().map(|file| file.digest.clone()),
        };
        if let (Some(policy), Some(file)) = (policy, &file) {
            let made = Some((file.created.clone(), file.digest.clone()));
            self.put_policy(Arc::new(policy), PolicyOrigin::Recalibrated, made)?;
        }
        observe::recalibration(match outcome {
            Recalibration::Replaced { .. } => "replaced",
            Recalibration::Refused { .. } => "refused",
        });
        if let Some(semantic) = &inner.semantic {
            semantic.status.lock().last = Some(report.clone());
        }
        let keeping = Arc::clone(inner);
        let keep = move || keeping.learning.keep_policy(file.as_ref(), &report);
        match tokio::task::spawn_blocking(keep).await {
            Ok(Ok(())) => {}
            // It decides all the same, until this process ends.
            Ok(Err(error)) => tracing::warn!(%error, "the next start will not know of it"),
            Err(error) => tracing::warn!(%error, "the next start will not know of it"),
        }
        Ok(outcome)
    }

    /// Decides with `policy` from now on, and lets all categories serve again. Returns the policy before.
    /// Refused where similarity is off, and when the policy's numbers were fitted on another embedding.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] or [`ErrorKind::Config`] then.
    pub fn replace_policy(&self, policy: PolicyHandle) -> Result<PolicyHandle> {
        self.put_policy(policy, PolicyOrigin::Given, None)
    }

    /// As [`replace_policy`](Self::replace_policy); `made` is when the policy was made, and its digest.
    fn put_policy(
        &self,
        policy: PolicyHandle,
        origin: PolicyOrigin,
        made: Option<(String, String)>,
    ) -> Result<PolicyHandle> {
        let inner = &self.inner;
        let Some(semantic) = &inner.semantic else {
            let message = "a cache without similarity has no policy";
            return Err(Error::new(ErrorKind::Unsupported, message));
        };
        let refiner = semantic
            .refiner
            .as_ref()
            .map(|refiner| refiner.fingerprint());
        let spaces = [Some(semantic.embed.fingerprint()), refiner];
        for (other, space) in policy.calibrated_for().iter().zip(spaces) {
            if let Some(space) = space.filter(|space| other != space) {
                let message = "the policy's numbers were fitted on another embedding";
                return Err(Error::new(ErrorKind::Config, message)
                    .with("calibrated_for", other)
                    .with("embedder", space));
            }
        }
        tracing::info!(policy = policy.name(), "the policy was replaced");
        let (created, digest) = made.unzip();
        let since = inner.clock.now().as_millis();
        let mut status = semantic.status.lock();
        observe::policy_since(status.name, status.origin.as_str(), 0.0);
        *status = PolicyStatus {
            name: policy.name(),
            origin,
            since,
            created,
            digest,
            last: status.last.take(),
        };
        observe::policy_since(status.name, origin.as_str(), since as f64 / 1e3);
        let before = semantic.policy.replace(policy);
        drop(status);
        inner.learning.reset(None);
        Ok(before)
    }
}

impl Inner {
    /// Whether a candidate is not to be looked at, as it was found wrong.
    pub(super) fn was_wrong(&self, request: &Request, entry: EntryId) -> bool {
        self.wrong_hits.contains(request, entry) || self.learning.quarantined(entry)
    }

    /// Notes what was decided of the candidates of a lookup.
    pub(super) fn note(
        &self,
        request: &Request,
        judged: &[Judged],
        category: Option<&str>,
        served: Option<EntryId>,
    ) -> Option<Noted> {
        let semantic = self.semantic.as_ref()?;
        if !self.learning.listens() {
            return None;
        }
        let record = |judged: &Judged| {
            Some(CandidateRecord {
                entry: judged.candidate.id,
                evidence: judged.evidence?,
                right: None,
            })
        };
        let verified = |judged: &Judged| {
            Some(VerifiedRecord {
                entry: judged.candidate.id,
                probability: judged.verified?,
            })
        };
        let candidates: Vec<_> = judged.iter().filter_map(record).collect();
        if candidates.is_empty() {
            return None;
        }
        let mut spaces = vec![semantic.embed.fingerprint().to_owned()];
        let refiner = semantic.refiner.as_ref();
        spaces.extend(refiner.map(|refiner| refiner.fingerprint().to_owned()));
        let decision = DecisionRecord {
            at: self.clock.now().as_millis(),
            group: candidates.first().map_or(0, |nearest| nearest.entry.get()),
            category: category.map(str::to_owned),
            policy: semantic.policy.name().to_owned(),
            spaces,
            candidates,
            served,
            verified: judged.iter().filter_map(verified).collect(),
            ..DecisionRecord::default()
        };
        let query = fingerprint(request);
        Some(Noted {
            id: self.learning.note(&decision, query),
            decision,
            query,
        })
    }

    /// Keeps the decision of a plain lookup that was a miss: its answer may come with the next store.
    pub(super) fn expect_answer(&self, request: &Request, outcome: &Outcome, noted: Option<Noted>) {
        if let (Outcome::Miss(_), Some(noted)) = (outcome, noted)
            && self.learning.compares()
        {
            let now = self.clock.now();
            self.pending.keep(request.exact_key(), noted, now);
        }
    }

    /// Has the fresh answer of a miss compared with that of the best candidate.
    pub(super) fn learn_from_miss(
        &self,
        request: &Request,
        noted: &Noted,
        fresh: &Answer,
        stored: &StoreOutcome,
    ) {
        // What was not kept is nobody's to look at.
        let (Some(semantic), StoreOutcome::Stored { entry, .. }) = (&self.semantic, stored) else {
            return;
        };
        let policy = semantic.policy.current();
        if let Some(candidate) = self.learning.promising(&noted.decision, &*policy) {
            self.learning.offer(Comparison {
                decision: noted.id,
                category: noted.decision.category.clone(),
                candidate: *candidate,
                query: request.fuzzy_text().unwrap_or_default().to_owned(),
                fingerprint: noted.query,
                fresh: fresh.clone(),
                served: None,
                drawn: None,
                stored: Some(*entry),
                route: request.route_name().unwrap_or_default().to_owned(),
            });
        }
    }

    /// Makes the upstream call of a hit all the same, in the background, if the hit is drawn for it.
    pub(super) fn audit<F, Fut, E>(
        self: &Arc<Self>,
        request: &Request,
        hit: &Hit,
        noted: Noted,
        call: F,
    ) where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<Fill, E>> + Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>> + 'static,
    {
        let mut candidates = noted.decision.candidates.iter();
        let Some(candidate) = candidates
            .find(|candidate| candidate.entry == hit.entry)
            .copied()
        else {
            return;
        };
        let (now, probability) = (self.clock.now(), hit.kind.probability());
        let Some(drawn) = self.learning.draw(probability, now) else {
            return;
        };
        let Some(turn) = self.learning.turn_to_audit() else {
            return;
        };
        self.learning.charge(Purse::Audits, 1, 0.0, now);
        let (inner, request, served) = (Arc::clone(self), request.clone(), hit.answer.clone());
        tokio::spawn(async move {
            let _turn = turn;
            let fill = call().await.map_err(|error| upstream_error(error.into()));
            observe::upstream(if fill.is_ok() { "ok" } else { "error" });
            inner.counters.upstream(fill.is_ok());
            let (answer, kept, usage) = match fill {
                Ok(fill) => fill.into_parts(),
                Err(error) => {
                    tracing::debug!(%error, "the call of an audit failed: no label");
                    return inner.learning.unsure();
                }
            };
            let usage = match usage {
                Some(usage) => usage,
                None => inner.count_tokens(&request, &answer).await,
            };
            let model = request.model_name().unwrap_or_default();
            let usd = inner.prices.cost(model, &usage).unwrap_or_default();
            inner.book_cost(CostKind::Shadow, usd);
            inner
                .learning
                .charge(Purse::Audits, 0, usd.as_dollars(), now);
            // Cut short, filtered, or not to be kept: nothing to compare with.
            if !kept {
                return inner.learning.unsure();
            }
            inner.learning.offer(Comparison {
                decision: noted.id,
                category: noted.decision.category,
                candidate,
                query: request.fuzzy_text().unwrap_or_default().to_owned(),
                fingerprint: noted.query,
                fresh: answer,
                served: Some(served),
                drawn: Some(drawn),
                stored: None,
                route: request.route_name().unwrap_or_default().to_owned(),
            });
        });
    }

    /// Compares what comes in, until the cache is gone.
    pub(super) async fn learn(cache: Weak<Self>, mut queue: mpsc::Receiver<Comparison>) {
        while let Some(comparison) = queue.recv().await {
            let Some(inner) = cache.upgrade() else { return };
            inner.compare(&comparison).await;
        }
    }

    async fn compare(&self, comparison: &Comparison) {
        let Some(semantic) = &self.semantic else {
            return;
        };
        let (entry, now) = (comparison.candidate.entry, self.clock.now());
        let held = self.entry(entry).await;
        let stored = match (&comparison.served, &held) {
            (Some(served), _) => served,
            (None, Some(held)) => &held.answer,
            // Gone in the meantime.
            (None, None) => return self.learning.unsure(),
        };
        let stored_query = held.as_ref().and_then(|held| held.text.as_deref());
        let compared = self
            .learning
            .agreement(comparison, stored, stored_query.unwrap_or_default(), now)
            .await;
        let (agreement, judged) = compared;
        if let Some(usd) = judged {
            self.book_cost(CostKind::Judge, Usd::from_dollars(usd));
        }
        let right = match agreement {
            Agreement::Same => true,
            Agreement::Different => false,
            Agreement::Unsure => return self.learning.unsure(),
        };
        let source = match (comparison.drawn, judged.is_some()) {
            (Some(_), _) => LabelSource::Audit,
            (None, true) => LabelSource::Judge,
            (None, false) => LabelSource::Miss,
        };
        let policy = semantic.policy.current();
        let label = Label {
            decision: comparison.decision,
            category: comparison.category.as_deref(),
            candidate: &comparison.candidate,
            right,
            source,
            drawn: comparison.drawn,
        };
        self.learning.learn(&label, &*policy, now);
        if source == LabelSource::Audit && !right {
            self.counters.wrong_hit();
            if let (Some(held), Some(row)) = (&held, self.catalog.get(entry)) {
                let tenant = row.scope.label();
                self.book_wrong_hit((&*tenant, &*row.model, &*comparison.route), &held.saved());
            }
            self.never_again(entry, comparison.fingerprint, Accuser::Audit);
        }
        if let (true, Some(fresh), Some(text)) = (right, comparison.stored, stored_query) {
            self.merge(&comparison.query, fresh, text, entry);
        }
    }

    /// Puts a fresh answer into the group of the candidate that would have done, unless a guard tells their
    /// questions apart: whoever is asked next is in less doubt.
    fn merge(&self, query: &str, fresh: EntryId, stored_query: &str, candidate: EntryId) {
        let compared = TextTraits::of(query).compare(&TextTraits::of(stored_query));
        let alive =
            [fresh, candidate].map(|entry| self.catalog.get(entry).map(|row| row.partition));
        let together = alive[0].is_some() && alive[0] == alive[1];
        if together && compared.guards.conflict().is_none() {
            self.learning.merge(fresh, candidate, self.clock.now());
        }
    }

    /// Keeps an entry from answering a query again, and from matching by similarity at all when enough
    /// principals found it wrong.
    pub(super) fn never_again(&self, entry: EntryId, query: [u8; 32], accuser: Accuser<'_>) {
        let quarantined = self
            .learning
            .accuse(entry, query, accuser, self.clock.now());
        let many = self.wrong_hits.insert(query, entry);
        let Some(row) = self.catalog.get(entry) else {
            return;
        };
        if let Some(semantic) = &self.semantic {
            semantic.search.note_wrong(&row.partition, entry, query);
        }
        if quarantined {
            tracing::info!(entry = %entry, "an entry was found wrong by two principals: it matches exactly only");
        }
        if quarantined || many {
            self.unsearch(entry, &row);
        }
    }

    /// Takes in a report of a hit as a label.
    pub(super) fn learn_from_report(&self, entry: EntryId, report: Report<'_>) {
        if let Some(semantic) = &self.semantic {
            let (policy, now) = (semantic.policy.current(), self.clock.now());
            self.learning.reported(entry, report, &*policy, now);
        }
    }

    /// Heeds what an earlier process was told.
    pub(super) fn remember_wrong_hits(&self) {
        for (entry, queries) in self.learning.wrong_pairs() {
            for query in queries {
                self.wrong_hits.insert(query, entry);
            }
        }
    }

    pub(super) async fn share_learning(&self) -> Result<()> {
        let Some(tier) = shared_tier(&self.layers) else {
            return Ok(());
        };
        let News { wrong, quarantined } = self.learning.exchange(&**tier, self.clock.now()).await?;
        for (entry, query) in wrong {
            self.wrong_hits.insert(query, entry);
        }
        for entry in quarantined {
            if let Some(row) = self.catalog.get(entry) {
                self.unsearch(entry, &row);
            }
        }
        Ok(())
    }

    pub(super) async fn save_learning(inner: Arc<Self>) -> Result<bool> {
        let save = move || inner.learning.save();
        tokio::task::spawn_blocking(save)
            .await
            .unwrap_or_else(|error| {
                let message = "what was learnt was not written";
                Err(Error::new(ErrorKind::BackendUnavailable, message).caused_by(error))
            })
    }

    /// Does what is due; every sixth time the file is written.
    pub(super) async fn tend_learning(inner: &Arc<Self>, turn: u64) {
        if let Err(error) = inner.share_learning().await {
            tracing::debug!(%error, "what was learnt was not shared");
        }
        if inner.learning.recalibration_is_due(inner.clock.now()) {
            let cache = SemanticCache {
                inner: Arc::clone(inner),
            };
            tokio::spawn(async move {
                match cache.recalibrate().await {
                    Ok(outcome) => tracing::info!(?outcome, "the policy was fitted anew"),
                    Err(error) => {
                        observe::recalibration("failed");
                        tracing::warn!(%error, "the policy was not fitted anew");
                    }
                }
            });
        }
        inner.settle();
        if turn % 6 == 5 {
            if let Err(error) = Self::save_learning(Arc::clone(inner)).await {
                tracing::warn!(%error, "what was learnt was not written");
            }
            if let Err(error) = Self::save_savings(Arc::clone(inner)).await {
                tracing::warn!(%error, "the books were not written");
            }
        }
    }
}

/// The tier through which processes tell each other what they learnt, if there is one.
pub(super) fn shared_tier(layers: &[Arc<Layered>]) -> Option<&Arc<Layered>> {
    layers.iter().rev().find(|tier| {
        let capability = CacheBackend::capability(&***tier);
        !capability.in_process && capability.conditional_writes
    })
}
