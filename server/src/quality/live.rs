//! A policy alive: every request is looked up for real, and what misses is stored.
//!
//! What a cache holds depends on what it served, so each policy has a stream of its own, over the same
//! requests. A wrong hit is not repaired: the text that was answered wrongly is never stored, as nobody
//! told the cache. Figures are given by window of the stream, because they change as the cache fills.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use anyhow::Result;
use askonce::policy::{ExactOnly, Observation, VcacheRule};
use askonce::{EntryId, HitKind, Outcome, Request};
use serde::Serialize;

use super::corpus::{AnswerId, Set, TextId, Truth};
use super::lab::Lab;
use super::policies::Contender;
use super::record::{RecordSettings, is_answer};
use super::replay::Call;
use super::seed::Rng;
use super::stats::{Timing, timing};
use super::stream::{Order, plan};

/// Windows of a stream that are reported apart.
const WINDOWS: usize = 20;

/// Requests whose stages are timed, about.
const TIMED: usize = 500;

/// The stage in which the second cosine is computed, by its name in an explanation.
const REFINE_STAGE: &str = "refine";

/// What happened in a part of a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Window {
    /// Requests.
    pub(crate) requests: usize,
    /// Of them, those that matched exactly.
    pub(crate) exact: usize,
    /// Right hits by similarity.
    pub(crate) right: usize,
    /// Wrong hits by similarity.
    pub(crate) wrong: usize,
    /// Entries at the end.
    pub(crate) entries: usize,
}

/// What happened in a stream.
#[derive(Clone, Debug, Default)]
pub(crate) struct Live {
    /// By window, in order.
    pub(crate) windows: Vec<Window>,
    /// Every request that did not match exactly, for intervals. It has no score.
    pub(crate) calls: Vec<Call>,
    /// Time of a lookup; `None` for a rule that is simulated.
    pub(crate) lookup: Option<Timing>,
    /// Time of each stage that was reached, on a sample.
    pub(crate) stages: BTreeMap<&'static str, Timing>,
    /// Share of the sample that reached the second embedding.
    pub(crate) refined: Option<f64>,
}

/// Plays a stream under a policy.
///
/// # Errors
/// The cache cannot be built or refuses a store.
pub(crate) async fn play(
    set: &Set,
    order: Order,
    contender: &Contender,
    settings: &RecordSettings,
) -> Result<Live> {
    let policy = contender.policy.clone();
    let lab = Lab::with_embedder(settings.index, &settings.embedder, policy).await?;
    let mut stream = Stream::new(set, order, settings);
    let every = stream.asked.len().div_ceil(TIMED).max(1);
    let (mut lookups, mut stages) = (Vec::new(), BTreeMap::<_, Vec<Duration>>::new());
    let (mut explained, mut refined) = (0_usize, 0_usize);
    for at in 0..stream.asked.len() {
        let text = stream.asked[at];
        // A new request each time: keys are computed once per request, inside the stages.
        if at % every == 0 {
            let explanation = lab
                .cache
                .explain(&Request::prompt(set.texts.text(text)))
                .await;
            explained += 1;
            let reached = explanation.stage_micros;
            refined += usize::from(reached.iter().any(|(stage, _)| *stage == REFINE_STAGE));
            for (stage, micros) in reached {
                let took = Duration::from_secs_f64(micros / 1e6);
                stages.entry(stage).or_default().push(took);
            }
        }
        let request = Request::prompt(set.texts.text(text));
        let start = Instant::now();
        let outcome = lab.cache.lookup(&request).await;
        lookups.push(start.elapsed());
        match outcome {
            Outcome::Hit(hit) if matches!(hit.kind, HitKind::Exact { .. }) => stream.exact(),
            Outcome::Hit(hit) => {
                let right = is_answer(hit.answer.as_str(), set.texts.answer(text));
                stream.count(text, Some(right));
            }
            Outcome::Miss(_) => {
                stream.count(text, None);
                let answer = settings.wording.answer(set.texts.answer(text), text);
                lab.store(&request, &answer).await?;
                stream.stored(text);
            }
        }
        stream.step(at);
    }
    Ok(Live {
        lookup: timing(lookups),
        stages: stages
            .into_iter()
            .filter_map(|(stage, took)| Some((stage, timing(took)?)))
            .collect(),
        refined: (explained > 0).then(|| refined as f64 / explained as f64),
        ..stream.live
    })
}

/// Plays a stream under the rule of vCache, each entry with its own labels: what the rule does not serve is
/// labelled against its neighbour, and stored if the neighbour was wrong.
///
/// # Errors
/// The cache cannot be built or refuses a store.
pub(crate) async fn play_vcache(
    set: &Set,
    order: Order,
    rule: VcacheRule,
    settings: &RecordSettings,
) -> Result<Live> {
    let lab = Lab::with_embedder(
        settings.index,
        &settings.embedder,
        std::sync::Arc::new(ExactOnly),
    );
    let lab = lab.await?;
    let mut stream = Stream::new(set, order, settings);
    let mut entries: HashMap<EntryId, (TextId, Vec<Observation>)> = HashMap::new();
    let mut rng = Rng::new(settings.seed ^ 0x7cac_4e00);
    for at in 0..stream.asked.len() {
        let text = stream.asked[at];
        let request = Request::prompt(set.texts.text(text));
        let explanation = lab.cache.explain(&request).await;
        let exact = explanation
            .hit
            .as_ref()
            .is_some_and(|hit| matches!(hit.kind, HitKind::Exact { .. }));
        if exact {
            stream.exact();
            stream.step(at);
            continue;
        }
        let nearest = explanation.candidates.first();
        let neighbour = nearest.and_then(|nearest| {
            let (stored, labels) = entries.get_mut(&nearest.entry)?;
            Some((*stored, labels, nearest.similarity))
        });
        let mut store = true;
        match neighbour {
            None => stream.count(text, None),
            Some((stored, labels, similarity)) => {
                let right = set.texts.truth(text, stored) == Truth::Right;
                if rng.unit() <= rule.serve_probability(labels, similarity) {
                    stream.count(text, Some(right));
                    store = false;
                } else {
                    stream.count(text, None);
                    labels.push((similarity, right));
                    store = !right;
                }
            }
        }
        if store {
            let answer = settings.wording.answer(set.texts.answer(text), text);
            let entry = lab.store(&request, &answer).await?;
            entries.insert(entry, (text, Vec::new()));
            stream.stored(text);
        }
        stream.step(at);
    }
    Ok(stream.live)
}

/// A stream as it goes on.
struct Stream<'a> {
    set: &'a Set,
    asked: Vec<TextId>,
    window: usize,
    /// The answers that are stored.
    answers: HashSet<AnswerId>,
    entries: usize,
    current: Window,
    live: Live,
}

impl<'a> Stream<'a> {
    fn new(set: &'a Set, order: Order, settings: &RecordSettings) -> Self {
        let plan = plan(set, &settings.parts, order, settings.seed, settings.limit);
        Self {
            set,
            window: plan.asked.len().div_ceil(WINDOWS).max(1),
            asked: plan.asked,
            answers: HashSet::new(),
            entries: 0,
            current: Window::default(),
            live: Live::default(),
        }
    }

    fn exact(&mut self) {
        self.current.exact += 1;
    }

    fn count(&mut self, text: TextId, served: Option<bool>) {
        self.current.right += usize::from(served == Some(true));
        self.current.wrong += usize::from(served == Some(false));
        self.live.calls.push(Call {
            group: self.set.texts.group(text),
            answerable: self.answers.contains(&self.set.texts.answer(text)),
            surest: None,
            served,
            refined: false,
        });
    }

    fn stored(&mut self, text: TextId) {
        self.answers.insert(self.set.texts.answer(text));
        self.entries += 1;
    }

    /// Ends a request, and with the last of a window the window.
    fn step(&mut self, at: usize) {
        self.current.requests += 1;
        if self.current.requests == self.window || at + 1 == self.asked.len() {
            self.current.entries = self.entries;
            self.live.windows.push(std::mem::take(&mut self.current));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::corpus;
    use super::super::score::Counts;
    use super::*;

    fn clusters() -> Set {
        corpus::golden().unwrap().remove(1)
    }

    fn total(live: &Live, of: fn(&Window) -> usize) -> usize {
        live.windows.iter().map(of).sum()
    }

    #[tokio::test]
    async fn every_request_is_counted_once_and_what_misses_is_stored() {
        let (set, settings) = (clusters(), RecordSettings::default());
        let loose = Contender::named("threshold:0.8").unwrap();
        let live = play(&set, Order::Random, &loose, &settings).await.unwrap();
        let requests = total(&live, |window| window.requests);
        assert_eq!(requests, set.members.len());
        let hits = total(&live, |window| window.right + window.wrong + window.exact);
        assert!(hits > 0);
        assert_eq!(live.windows.last().unwrap().entries, requests - hits);
        let counts = Counts::of(&live.calls);
        assert_eq!(counts.right as usize, total(&live, |window| window.right));
        assert!(live.lookup.is_some() && live.stages.contains_key("embed"));
    }

    #[tokio::test]
    async fn a_policy_that_serves_nothing_stores_everything() {
        let (set, settings) = (clusters(), RecordSettings::default());
        let nothing = Contender::named("exact_only").unwrap();
        let live = play(&set, Order::Bursty, &nothing, &settings)
            .await
            .unwrap();
        assert_eq!(total(&live, |window| window.right + window.wrong), 0);
        assert_eq!(live.windows.last().unwrap().entries, set.members.len());
    }

    #[tokio::test]
    async fn vcache_stores_no_second_wording_of_what_its_neighbour_answers() {
        let (set, settings) = (clusters(), RecordSettings::default());
        let rule = VcacheRule::new(0.05).unwrap();
        let live = play_vcache(&set, Order::Random, rule, &settings)
            .await
            .unwrap();
        assert_eq!(total(&live, |window| window.requests), set.members.len());
        let entries = live.windows.last().unwrap().entries;
        assert!(entries < set.members.len(), "{entries}");
        // Few texts ask for one answer often enough for the rule to serve at all.
        assert!(total(&live, |window| window.right + window.wrong) * 10 < set.members.len());
    }
}
