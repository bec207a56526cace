//! Decisions as a log: recorded once, judged under every policy.
//!
//! A lookup is recorded as its candidates with the evidence that a policy would see. Policies are pure
//! functions of evidence, so [`replay`] gives what the cache would serve, for any number of policies,
//! without asking the index again. The pairs run checks a sample of it against real lookups.

use anyhow::Result;
use askonce::EntryId;
use askonce::policy::{
    Decision, Evidence, GuardKind, GuardState, HitPolicy, PolicyConfig, PolicyHandle,
    WrongAnswerCost,
};
use serde::Serialize;

use super::fit::Outcome;
use super::questions::{Fold, TextId, Truth};
use super::stats::{Interval, share, wilson};

/// A candidate that one lookup found.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lead {
    pub(super) entry: EntryId,
    pub(super) stored: TextId,
    pub(super) evidence: Evidence,
    pub(super) truth: Truth,
}

/// One lookup: everything that any policy could decide on.
#[derive(Clone, Debug)]
pub(super) struct Recorded {
    pub(super) asked: TextId,
    pub(super) fold: Fold,
    /// Whether the right answer is stored.
    pub(super) answerable: bool,
    /// Best first.
    pub(super) leads: Vec<Lead>,
}

/// The candidate that the cache serves under `policy`: the first that the policy would serve.
pub(super) fn replay<'a>(policy: &dyn HitPolicy, leads: &'a [Lead]) -> Option<&'a Lead> {
    leads.iter().find(|lead| serves(policy, &lead.evidence))
}

/// Whether `policy` serves on this evidence.
pub(super) fn serves(policy: &dyn HitPolicy, evidence: &Evidence) -> bool {
    // The engine does not ask a policy about candidates below its least similarity.
    evidence.similarity >= policy.least_similarity()
        && matches!(policy.decide(evidence), Decision::Serve { .. })
}

/// A policy to run, under the name it has in the report.
#[derive(Clone, Debug)]
pub(super) struct OperatingPoint {
    pub(super) name: String,
    pub(super) config: PolicyConfig,
    pub(super) policy: PolicyHandle,
}

impl OperatingPoint {
    pub(super) fn new(name: impl Into<String>, config: PolicyConfig) -> Result<Self> {
        Ok(Self {
            name: name.into(),
            policy: config.build()?,
            config,
        })
    }

    pub(super) fn threshold(threshold: f64, guards: bool) -> Result<Self> {
        let suffix = if guards { "" } else { ", no guards" };
        let name = format!("threshold {threshold:.2}{suffix}");
        Self::new(name, PolicyConfig::Threshold { threshold, guards })
    }

    /// What a cache does when nothing is configured.
    pub(super) fn by_default() -> Result<Self> {
        Self::new("default", PolicyConfig::default())
    }
}

/// Thresholds of the sweep, in hundredths.
const SWEEP: std::ops::RangeInclusive<u8> = 70..=99;

/// Every policy that a pairs run judges.
pub(super) fn operating_points() -> Result<Vec<OperatingPoint>> {
    let mut points = vec![OperatingPoint::by_default()?];
    for (name, times) in [
        ("cost_aware bold (5x)", 5.0),
        ("cost_aware timid (100x)", 100.0),
    ] {
        points.push(OperatingPoint::new(name, cost_aware(times, None))?);
    }
    points.push(OperatingPoint::new("exact_only", PolicyConfig::ExactOnly)?);
    for guards in [true, false] {
        for hundredths in SWEEP {
            points.push(OperatingPoint::threshold(
                f64::from(hundredths) / 100.0,
                guards,
            )?);
        }
    }
    Ok(points)
}

/// The cost-aware policy with another cost of a wrong answer, or another curve.
pub(super) fn cost_aware(
    times: f64,
    new_curve: Option<&askonce::policy::SimilarityCurve>,
) -> PolicyConfig {
    PolicyConfig::CostAware {
        wrong_answer_cost: WrongAnswerCost::TimesSaving(times),
        floor: 0.8,
        usd_per_second: 0.0,
        guards: true,
        curve: new_curve.cloned(),
    }
}

/// What a policy did with a number of requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Tally {
    pub(super) asked: usize,
    /// Requests whose right answer is stored.
    pub(super) answerable: usize,
    pub(super) right: usize,
    pub(super) labelled_wrong: usize,
    pub(super) unlabelled_wrong: usize,
}

impl Tally {
    pub(super) fn of<'a>(
        policy: &dyn HitPolicy,
        log: impl IntoIterator<Item = &'a Recorded>,
    ) -> Self {
        let mut tally = Self::default();
        for recorded in log {
            tally.asked += 1;
            tally.answerable += usize::from(recorded.answerable);
            match replay(policy, &recorded.leads).map(|lead| lead.truth) {
                None => {}
                Some(Truth::Right) => tally.right += 1,
                Some(Truth::LabelledWrong) => tally.labelled_wrong += 1,
                Some(Truth::UnlabelledWrong) => tally.unlabelled_wrong += 1,
            }
        }
        tally
    }

    pub(super) fn wrong(&self) -> usize {
        self.labelled_wrong + self.unlabelled_wrong
    }

    pub(super) fn hits(&self) -> usize {
        self.right + self.wrong()
    }
}

/// The shares of a [`Tally`]; each is `None` when there is nothing to divide by.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Rates {
    #[serde(flatten)]
    pub(super) tally: Tally,
    /// Hits per request.
    pub(super) hit_rate: Option<f64>,
    /// Right hits per request whose right answer is stored.
    pub(super) true_hit_rate: Option<f64>,
    /// Wrong hits per hit, all that are not known to be right.
    pub(super) wrong_per_hit: Option<f64>,
    pub(super) wrong_per_hit_95: Option<Interval>,
    /// Wrong hits per hit, only those that a label says are wrong.
    pub(super) labelled_wrong_per_hit: Option<f64>,
    /// Wrong hits per request.
    pub(super) wrong_per_request: Option<f64>,
}

impl From<Tally> for Rates {
    fn from(tally: Tally) -> Self {
        let (hits, wrong) = (tally.hits(), tally.wrong());
        Self {
            hit_rate: share(hits, tally.asked),
            true_hit_rate: share(tally.right, tally.answerable),
            wrong_per_hit: share(wrong, hits),
            wrong_per_hit_95: wilson(wrong, hits),
            labelled_wrong_per_hit: share(tally.labelled_wrong, hits),
            wrong_per_request: share(wrong, tally.asked),
            tally,
        }
    }
}

/// The candidate that a rising policy serves if it serves any: the most similar one, or the most
/// similar one that no guard objects to.
pub(super) fn front(recorded: &Recorded, guards: bool) -> Option<&Lead> {
    let free = |lead: &&Lead| !guards || lead.evidence.guards.conflict().is_none();
    recorded.leads.iter().find(free)
}

/// What to make of a candidate that no label speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Unlabelled {
    /// It is wrong as far as anybody knows: too severe where duplicates were missed.
    Wrong,
    /// It says nothing: too kind where pairs were labelled because they might be duplicates.
    LeftOut,
}

/// What a curve is fitted on: the front candidate of each request, guards respected.
pub(super) fn outcomes(log: &[Recorded], fold: Fold, unlabelled: Unlabelled) -> Vec<Outcome> {
    log.iter()
        .filter(|recorded| recorded.fold == fold)
        .filter_map(|recorded| front(recorded, true))
        .filter(|lead| lead.truth != Truth::UnlabelledWrong || unlabelled == Unlabelled::Wrong)
        .map(|lead| (lead.evidence.similarity, lead.truth.is_right()))
        .collect()
}

/// The lowest threshold under which at most `budget` wrong hits per request are served on `fold`;
/// `None` when none is low enough to serve anything.
pub(super) fn threshold_within(
    log: &[Recorded],
    fold: Fold,
    budget: f64,
    guards: bool,
) -> Option<f64> {
    let asked = log.iter().filter(|recorded| recorded.fold == fold);
    let allowed = budget * asked.clone().count() as f64;
    let mut fronts: Vec<(f32, bool)> = asked
        .filter_map(|recorded| front(recorded, guards))
        .map(|lead| (lead.evidence.similarity, lead.truth.is_right()))
        .filter(|(similarity, _)| *similarity > 0.0)
        .collect();
    fronts.sort_by(|a, b| b.0.total_cmp(&a.0));
    let (mut wrong, mut threshold) = (0_usize, None);
    for tied in fronts.chunk_by(|a, b| a.0.total_cmp(&b.0).is_eq()) {
        wrong += tied.iter().filter(|(_, right)| !right).count();
        if wrong as f64 > allowed {
            break;
        }
        // A rounding error above 1 is no threshold.
        threshold = tied
            .first()
            .map(|(similarity, _)| f64::from(similarity.min(1.0)));
    }
    threshold
}

/// What a guard stops among the hits that a threshold without guards would give.
#[derive(Clone, Debug, Serialize)]
pub(super) struct GuardValue {
    pub(super) guard: GuardKind,
    /// Right hits that it stops, and their share of all right hits.
    pub(super) right_stopped: usize,
    pub(super) right_share: Option<f64>,
    /// Wrong hits that it stops, and their share of all wrong hits.
    pub(super) wrong_stopped: usize,
    pub(super) wrong_share: Option<f64>,
    /// Share of what it stops that was right: 0 is a perfect guard.
    pub(super) right_when_it_fires: Option<f64>,
    pub(super) right_when_it_fires_95: Option<Interval>,
}

/// The value of each guard at `threshold`, and of all of them together (`None`).
pub(super) fn guard_values(log: &[Recorded], threshold: f32) -> Vec<GuardValue> {
    let hits: Vec<(&Lead, bool)> = log
        .iter()
        .filter_map(|recorded| front(recorded, false))
        .filter(|lead| lead.evidence.similarity >= threshold)
        .map(|lead| (lead, lead.truth.is_right()))
        .collect();
    let all_right = hits.iter().filter(|(_, right)| *right).count();
    let all_wrong = hits.len() - all_right;
    let value = |guard: GuardKind| {
        let fired = |lead: &Lead| lead.evidence.guards.state(guard) == GuardState::Conflict;
        let stopped = hits.iter().filter(|(lead, _)| fired(lead));
        let right_stopped = stopped.clone().filter(|(_, right)| *right).count();
        let wrong_stopped = stopped.count() - right_stopped;
        let fires = right_stopped + wrong_stopped;
        GuardValue {
            guard,
            right_stopped,
            right_share: share(right_stopped, all_right),
            wrong_stopped,
            wrong_share: share(wrong_stopped, all_wrong),
            right_when_it_fires: share(right_stopped, fires),
            right_when_it_fires_95: wilson(right_stopped, fires),
        }
    };
    GuardKind::ALL.into_iter().map(value).collect()
}

#[cfg(test)]
mod tests {
    use askonce::policy::GuardReport;

    use super::super::seed::Rng;
    use super::*;

    fn lead(similarity: f32, right: bool, conflict: bool) -> Lead {
        let mut evidence = Evidence::similarity(similarity);
        if conflict {
            evidence.guards = GuardReport::compare("eat meat", "do not eat meat");
        }
        let truth = if right {
            Truth::Right
        } else {
            Truth::LabelledWrong
        };
        Lead {
            entry: EntryId::new(0),
            stored: 0,
            evidence,
            truth,
        }
    }

    fn log() -> Vec<Recorded> {
        let mut rng = Rng::new(3);
        (0..400)
            .map(|i| {
                let mut similarity = 1.0;
                let leads = (0..4).map(|_| {
                    similarity -= (rng.next() % 100) as f32 / 1_000.0;
                    lead(
                        similarity,
                        rng.next().is_multiple_of(2),
                        rng.next().is_multiple_of(5),
                    )
                });
                let leads: Vec<_> = leads.collect();
                let answerable = leads.iter().any(|lead| lead.truth.is_right());
                let fold = if i % 2 == 0 { Fold::Fit } else { Fold::Judge };
                Recorded {
                    asked: i,
                    fold,
                    answerable,
                    leads,
                }
            })
            .collect()
    }

    #[test]
    fn a_higher_threshold_serves_a_subset() {
        let log = log();
        for guards in [true, false] {
            let points = SWEEP.map(|hundredths| {
                OperatingPoint::threshold(f64::from(hundredths) / 100.0, guards).unwrap()
            });
            let tallies: Vec<_> = points
                .map(|point| Tally::of(&*point.policy, &log))
                .collect();
            assert!(tallies[0].hits() > 0);
            for (lower, higher) in tallies.iter().zip(&tallies[1..]) {
                assert!(higher.hits() <= lower.hits());
                assert!(higher.wrong() <= lower.wrong());
            }
        }
    }

    #[test]
    fn a_conflict_gives_way_to_the_next_candidate() {
        let leads = [lead(0.99, false, true), lead(0.96, true, false)];
        let serve = |guards| {
            let point = OperatingPoint::threshold(0.95, guards).unwrap();
            replay(&*point.policy, &leads).map(|lead| lead.truth)
        };
        assert_eq!(serve(true), Some(Truth::Right));
        assert_eq!(serve(false), Some(Truth::LabelledWrong));
    }

    #[test]
    fn the_chosen_threshold_is_the_lowest_within_the_budget() {
        let log = log();
        let fit: Vec<_> = log
            .iter()
            .filter(|recorded| recorded.fold == Fold::Fit)
            .collect();
        for guards in [true, false] {
            let chosen = threshold_within(&log, Fold::Fit, 0.2, guards).unwrap();
            let wrong = |threshold| {
                let config = PolicyConfig::Threshold { threshold, guards };
                let point = OperatingPoint::new("", config).unwrap();
                Tally::of(&*point.policy, fit.iter().copied()).wrong()
            };
            let allowed = fit.len() / 5;
            assert!(wrong(chosen) <= allowed);
            assert!(wrong(chosen - 0.01) > allowed);
        }
        assert_eq!(threshold_within(&[], Fold::Fit, 0.1, true), None);
    }

    #[test]
    fn exact_only_serves_nothing_that_is_similar() {
        let tally = Tally::of(&askonce::policy::ExactOnly, &log());
        assert_eq!((tally.hits(), tally.asked), (0, 400));
        assert_eq!(Rates::from(tally).wrong_per_hit, None);
    }

    #[test]
    fn a_guard_is_worth_what_it_stops() {
        let log = vec![
            Recorded {
                asked: 0,
                fold: Fold::Fit,
                answerable: false,
                leads: vec![lead(0.99, false, true)],
            },
            Recorded {
                asked: 1,
                fold: Fold::Fit,
                answerable: true,
                leads: vec![lead(0.98, true, false)],
            },
        ];
        let values = guard_values(&log, 0.9);
        let negation = values
            .iter()
            .find(|value| value.guard == GuardKind::Negation)
            .unwrap();
        assert_eq!((negation.right_stopped, negation.wrong_stopped), (0, 1));
        assert_eq!(negation.wrong_share, Some(1.0));
        assert_eq!(negation.right_when_it_fires, Some(0.0));
    }
}
