//! Plays a stream through a real cache and keeps every decision with its evidence and its truth.
//!
//! The policy of the recording cache serves nothing that a lookup would end with, so every candidate is
//! there with its evidence, and every asked text of a filling stream is stored. What a policy would have
//! done is worked out of the records later: they do not depend on any policy.
//!
//! What is stored for texts with one answer is worded the same for all, or anew for each ([`Wording`]): in the
//! one case another entry with the right answer is known for what it is, and the margin to the next *other*
//! answer means what it does in a cache that never asks twice for one answer; in the other case it is a rival
//! like any other.
//!
//! What is right: a candidate that labels link to the question. What is wrong: any other candidate, except
//! under [`Order::Pairs`], where a candidate that no label compares with the question has no truth.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use askonce::cache::Explanation;
use askonce::config::{EmbedderConfig, IndexType};
use askonce::decision::{CandidateRecord, DecisionRecord};
use askonce::policy::{Decision, Evidence, HitPolicy};
use askonce::{EntryId, HitKind, Request};
use indicatif::ProgressBar;

use super::corpus::{self, AnswerId, Set, TextId, Truth};
use super::lab::{Lab, Progress, spread};
use super::remember::Vectors;
use super::split::Part;
use super::stream::{Order, Plan, plan};

/// What to record.
#[derive(Clone, Debug)]
pub(crate) struct RecordSettings {
    /// The parts of the data whose texts are stored and asked.
    pub(crate) parts: Vec<Part>,
    /// Files that tell only which texts belong together, so that none of a component is of two parts.
    pub(crate) links: Vec<PathBuf>,
    /// The order of requests; `None`: [`Order::Pairs`] for pairs, except those of natural questions and all
    /// clusters, which are streams in random order.
    pub(crate) order: Option<Order>,
    /// Seed of every random choice.
    pub(crate) seed: u64,
    /// Most requests of one set.
    pub(crate) limit: Option<usize>,
    /// How answers are worded.
    pub(crate) wording: Wording,
    /// Whether the second cosine is asked for wherever it can be had.
    pub(crate) refine: bool,
    /// The embedding.
    pub(crate) embedder: EmbedderConfig,
    /// The structure of the vector index.
    pub(crate) index: IndexType,
    /// Vectors of the second embedding that are known already.
    pub(crate) vectors: Vectors,
    /// Whether and where bars are drawn.
    pub(crate) progress: Progress,
}

impl Default for RecordSettings {
    /// The part to report on, whole, with the built-in embedding and an exact index; no bars.
    fn default() -> Self {
        Self {
            parts: vec![Part::Test],
            links: Vec::new(),
            order: None,
            seed: 42,
            limit: None,
            wording: Wording::default(),
            refine: true,
            embedder: EmbedderConfig::default(),
            index: IndexType::Flat,
            vectors: Vectors::default(),
            progress: Progress::new(true),
        }
    }
}

/// Records the decisions on all files; without files, on the project's own prompts.
///
/// Sets in which every text stands alone are left out: they hold nothing to decide by themselves.
///
/// # Errors
/// A file cannot be read; the cache cannot be built or refuses a store.
pub(crate) async fn record(
    files: &[PathBuf],
    settings: &RecordSettings,
) -> Result<Vec<DecisionRecord>> {
    let sets = if files.is_empty() {
        corpus::golden()?
    } else {
        corpus::read_linked(files, &settings.links)?
    };
    let mut records = Vec::new();
    for set in sets.iter().filter(|set| !set.is_background()) {
        let order = settings.order.unwrap_or_else(|| usual_order(set));
        if order == Order::Pairs && set.pairs.is_empty() {
            continue;
        }
        let recorded = record_set(set, order, settings).await;
        records.extend(
            recorded
                .with_context(|| format!("failed to record {}", set.name))?
                .records,
        );
    }
    Ok(records)
}

/// The order in which a set is played when none is asked for.
///
/// Pairs that were made to be near-misses are judged as pairs: among them many are unlabelled that a
/// person would call the same.
pub(crate) fn usual_order(set: &Set) -> Order {
    if set.pairs.is_empty() || set.rule == super::split::Rule::Trained {
        Order::Random
    } else {
        Order::Pairs
    }
}

/// What came beside the records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Skipped {
    /// Requests that matched exactly: one text spelt in two ways that the engine does not tell apart.
    pub(crate) exact: usize,
    /// Pairs that could not be asked: see [`Plan::left_out`].
    pub(crate) pairs: usize,
}

/// Decisions, and what they are about.
#[derive(Debug, Default)]
pub(crate) struct Recorded {
    pub(crate) records: Vec<DecisionRecord>,
    pub(crate) skipped: Skipped,
    /// What was asked, by the place that a record has in the stream.
    asked: Vec<TextId>,
    stored: BTreeMap<EntryId, TextId>,
}

impl Recorded {
    /// The text that was asked, and that of the candidate at this place.
    pub(crate) fn texts_of(
        &self,
        record: &DecisionRecord,
        place: usize,
    ) -> Option<(TextId, TextId)> {
        let asked = self.asked.get(usize::try_from(record.at).ok()?)?;
        let stored = self.stored.get(&record.candidates.get(place)?.entry)?;
        Some((*asked, *stored))
    }
}

/// Records the decisions on one set.
///
/// # Errors
/// The cache cannot be built or refuses a store.
pub(crate) async fn record_set(
    set: &Set,
    order: Order,
    settings: &RecordSettings,
) -> Result<Recorded> {
    let plan = plan(set, &settings.parts, order, settings.seed, settings.limit);
    let policy = Recording {
        refine: settings.refine,
    };
    let lab = Lab::recording(
        settings.index,
        &settings.embedder,
        &settings.vectors,
        Arc::new(policy),
    )
    .await?;
    let (bar, what) = (settings.progress, set.name.clone());
    let bar = bar.bar(what, plan.stored.len() + plan.asked.len());
    let mut stored = Stored {
        wording: settings.wording,
        ..Stored::default()
    };
    for &text in &plan.stored {
        stored.store(&lab, set, text).await?;
        bar.inc(1);
    }
    lab.cache.refined_all().await;
    let (records, stored) = if plan.fills {
        one_by_one(set, order, &plan, &lab, stored, &bar).await?
    } else {
        at_once(set, order, &plan, &lab, stored, &bar).await?
    };
    bar.finish_and_clear();
    let skipped = Skipped {
        exact: plan.asked.len() - records.len(),
        pairs: plan.left_out,
    };
    Ok(Recorded {
        records,
        skipped,
        asked: plan.asked,
        stored,
    })
}

/// Asks, then stores.
async fn one_by_one(
    set: &Set,
    order: Order,
    plan: &Plan,
    lab: &Lab,
    mut stored: Stored,
    bar: &ProgressBar,
) -> Result<(Vec<DecisionRecord>, BTreeMap<EntryId, TextId>)> {
    let mut records = Vec::with_capacity(plan.asked.len());
    for (at, &text) in plan.asked.iter().enumerate() {
        records.extend(ask(set, order, lab, &stored, text, at).await?);
        stored.store(lab, set, text).await?;
        lab.cache.refined_all().await;
        bar.inc(1);
    }
    Ok((records, stored.texts))
}

/// Requests given to one task at a time.
const BATCH: usize = 64;

/// Asks a cache that stays as it is, on all cores.
async fn at_once(
    set: &Set,
    order: Order,
    plan: &Plan,
    lab: &Lab,
    stored: Stored,
    bar: &ProgressBar,
) -> Result<(Vec<DecisionRecord>, BTreeMap<EntryId, TextId>)> {
    let asked: Vec<(usize, TextId)> = plan.asked.iter().copied().enumerate().collect();
    let batches: Vec<_> = asked.chunks(BATCH).map(<[_]>::to_vec).collect();
    let stored = Arc::new(stored);
    let shared = (Arc::new(set.clone()), lab.clone(), Arc::clone(&stored));
    let bar = bar.clone();
    let work = move |batch: Vec<(usize, TextId)>| {
        let ((set, lab, stored), bar) = (shared.clone(), bar.clone());
        async move {
            let mut records = Vec::with_capacity(batch.len());
            for (at, text) in batch {
                records.extend(ask(&set, order, &lab, &stored, text, at).await?);
                bar.inc(1);
            }
            Ok(records)
        }
    };
    let records = spread(batches, work).await?.into_iter().flatten().collect();
    Ok((records, stored.texts.clone()))
}

/// Stores after which the vectors of the second space are waited for: more of them wait in no queue.
const MADE_BETWEEN_WAITS: usize = 1_000;

/// What the cache under test holds.
#[derive(Debug, Default)]
struct Stored {
    wording: Wording,
    texts: BTreeMap<EntryId, TextId>,
    answers: BTreeMap<AnswerId, usize>,
}

impl Stored {
    async fn store(&mut self, lab: &Lab, set: &Set, text: TextId) -> Result<()> {
        let answer = set.texts.answer(text);
        let request = Request::prompt(set.texts.text(text));
        let entry = lab
            .store(&request, &self.wording.answer(answer, text))
            .await?;
        self.texts.insert(entry, text);
        if self.texts.len().is_multiple_of(MADE_BETWEEN_WAITS) {
            lab.cache.refined_all().await;
        }
        *self.answers.entry(answer).or_default() += 1;
        Ok(())
    }
}

/// How the answers are worded that are stored for texts which ask for the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Wording {
    /// All in the same words, as where answers come out of a table, or were found to be the same.
    #[default]
    Same,
    /// Each in its own words, as a model gives them: the cache cannot tell that they are one answer.
    Anew,
}

impl Wording {
    /// The stored answer: short, and different for different answers.
    pub(crate) fn answer(self, answer: AnswerId, text: TextId) -> String {
        match self {
            Self::Anew => format!("answer {answer}, worded for {text}"),
            Self::Same => format!("answer {answer}"),
        }
    }
}

/// Whether this is what is stored for the answer.
pub(crate) fn is_answer(stored: &str, answer: AnswerId) -> bool {
    let plain = format!("answer {answer}");
    stored.split(',').next() == Some(&*plain)
}

/// The record of one request; `None` when it matched exactly.
async fn ask(
    set: &Set,
    order: Order,
    lab: &Lab,
    stored: &Stored,
    text: TextId,
    at: usize,
) -> Result<Option<DecisionRecord>> {
    let request = Request::prompt(set.texts.text(text));
    let explained = lab.cache.explain(&request).await;
    let exact = |kind: &HitKind| matches!(kind, HitKind::Exact { .. });
    if explained.hit.as_ref().is_some_and(|hit| exact(&hit.kind)) {
        return Ok(None);
    }
    let candidates = candidates(set, order, stored, text, &explained)?;
    let known = stored.answers.contains_key(&set.texts.answer(text));
    // A reader may find a right answer where the labels know none.
    let found = candidates.iter().any(|found| found.right == Some(true));
    Ok(Some(DecisionRecord {
        at: at as u64,
        group: set.texts.group(text),
        set: Some(set.name.clone()),
        policy: "none".to_owned(),
        spaces: explained
            .embedder
            .iter()
            .chain(&explained.refiner)
            .cloned()
            .collect(),
        candidates,
        answerable: Some(known || found),
        ..DecisionRecord::default()
    }))
}

fn candidates(
    set: &Set,
    order: Order,
    stored: &Stored,
    text: TextId,
    explained: &Explanation,
) -> Result<Vec<CandidateRecord>> {
    let judged = explained
        .candidates
        .iter()
        .filter_map(|candidate| Some((candidate.entry, candidate.evidence?)));
    judged
        .map(|(entry, evidence)| {
            let other = stored.texts.get(&entry).copied();
            let other = other.context("a candidate is no entry that was stored")?;
            let right = match set.texts.truth(text, other) {
                Truth::Right => Some(true),
                Truth::Wrong => Some(false),
                Truth::Unknown => (order != Order::Pairs).then_some(false),
            };
            Ok(CandidateRecord {
                entry,
                evidence,
                right,
            })
        })
        .collect()
}

/// Asks for all that can be known of every candidate.
#[derive(Clone, Copy, Debug)]
struct Recording {
    refine: bool,
}

impl HitPolicy for Recording {
    fn name(&self) -> &'static str {
        "recording"
    }

    fn decide(&self, evidence: &Evidence) -> Decision {
        if self.refine && evidence.can_refine && evidence.refined.is_none() {
            return Decision::Refine { probability: None };
        }
        Decision::Serve {
            probability: None,
            utility: f64::from(evidence.similarity),
        }
    }

    fn may_refine(&self) -> bool {
        self.refine
    }

    fn least_similarity(&self) -> f32 {
        f32::NEG_INFINITY
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn golden(order: Order) -> Vec<DecisionRecord> {
        let settings = RecordSettings {
            order: Some(order),
            ..RecordSettings::default()
        };
        record(&[], &settings).await.unwrap()
    }

    #[tokio::test]
    async fn a_stream_is_recorded_with_evidence_and_truth() {
        let records = golden(Order::Random).await;
        let first = &records[0];
        assert!(first.candidates.is_empty() && first.answerable == Some(false));
        for record in &records {
            let similarities = record.candidates.iter();
            let similarities = similarities.map(|candidate| candidate.evidence.similarity);
            assert!(similarities.is_sorted_by(|a, b| a >= b));
            assert!(
                record
                    .candidates
                    .iter()
                    .all(|candidate| candidate.right.is_some())
            );
            let right = record
                .candidates
                .iter()
                .any(|candidate| candidate.right == Some(true));
            assert!(!right || record.answerable == Some(true));
        }
        let right = |record: &&DecisionRecord| {
            record
                .candidates
                .first()
                .is_some_and(|candidate| candidate.right == Some(true))
        };
        assert!(records.iter().filter(right).count() > 100);
    }

    #[tokio::test]
    async fn an_answer_in_other_words_is_a_rival_to_the_margin() {
        let worded = async |wording| {
            let settings = RecordSettings {
                order: Some(Order::Random),
                wording,
                ..RecordSettings::default()
            };
            record(&[], &settings).await.unwrap()
        };
        let (same, anew) = (worded(Wording::Same).await, worded(Wording::Anew).await);
        let firsts = |records: &[DecisionRecord]| -> Vec<(f32, Option<bool>, f32)> {
            let first = |record: &DecisionRecord| {
                let found = record.candidates.first()?;
                let margin = found.evidence.margin.unwrap_or(f32::INFINITY);
                Some((found.evidence.similarity, found.right, margin))
            };
            records.iter().filter_map(first).collect()
        };
        let (same, anew) = (firsts(&same), firsts(&anew));
        assert_eq!(same.len(), anew.len());
        let pairs = || same.iter().zip(&anew);
        // What is right does not hang on the words.
        assert!(pairs().all(|(a, b)| (a.0, a.1) == (b.0, b.1) && a.2 >= b.2));
        assert!(pairs().any(|(a, b)| a.2 > b.2));
    }

    #[test]
    fn an_answer_is_known_in_any_words() {
        for wording in [Wording::Same, Wording::Anew] {
            assert!(is_answer(&wording.answer(12, 7), 12));
            assert!(!is_answer(&wording.answer(12, 7), 1));
        }
    }

    #[tokio::test]
    async fn under_pairs_only_labels_count() {
        let records = golden(Order::Pairs).await;
        let truths = |truth| {
            let candidates = records.iter().flat_map(|record| &record.candidates);
            candidates
                .filter(|candidate| candidate.right == truth)
                .count()
        };
        assert!(truths(Some(true)) > 80, "{}", truths(Some(true)));
        assert!(truths(Some(false)) > 100, "{}", truths(Some(false)));
        assert!(truths(None) > truths(Some(true)));
        assert!(
            records
                .iter()
                .all(|record| record.set.as_deref() == Some("golden_pairs"))
        );
    }

    #[tokio::test]
    async fn a_recording_repeats_but_for_the_names_of_entries() {
        type Judged = Vec<(f32, Option<bool>)>;
        let stripped = |records: Vec<DecisionRecord>| -> Vec<(u64, Judged)> {
            let row = |record: DecisionRecord| {
                let candidates = record.candidates.iter();
                let candidates = candidates
                    .map(|candidate| (candidate.evidence.similarity, candidate.right))
                    .collect();
                (record.group, candidates)
            };
            records.into_iter().map(row).collect()
        };
        let (first, second) = (
            golden(Order::Retrieval).await,
            golden(Order::Retrieval).await,
        );
        let (first, second) = (stripped(first), stripped(second));
        assert!(first.len() > 200);
        for (first, second) in first.iter().zip(&second) {
            assert_eq!(first.0, second.0);
            // Equal similarities come in the order of entry ids, which are random.
            let similarities = |row: &[(f32, Option<bool>)]| -> Vec<f32> {
                row.iter().map(|candidate| candidate.0).collect()
            };
            assert_eq!(similarities(&first.1), similarities(&second.1));
        }
    }
}
