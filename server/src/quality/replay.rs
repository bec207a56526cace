//! What a policy would have done with recorded decisions.
//!
//! The order of things is the engine's: the policy is asked about every candidate by the first cosine;
//! what it would serve and gains most is served; only when that is nothing, and it is in doubt about a
//! candidate, the second cosine is looked at and it is asked about all of them again.

use askonce::decision::{CandidateRecord, DecisionRecord};
use askonce::policy::{Decision, Evidence, HitPolicy, PassReason};

use super::stream::Order;

/// What became of one recorded decision.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Replayed {
    /// The candidate that is served, by its place.
    pub(crate) served: Option<usize>,
    /// Whether the second cosine was asked for.
    pub(crate) refined: bool,
    /// How sure the policy is of each candidate: its probability, or the similarity if it knows none. Minus
    /// infinity for what it serves at no cut-off.
    pub(crate) scores: Vec<f64>,
}

impl Replayed {
    /// The candidate of the highest score above minus infinity; of equal ones the first.
    pub(crate) fn surest(&self) -> Option<(usize, f64)> {
        let scored = self.scores.iter().copied().enumerate();
        scored
            .filter(|(_, score)| *score > f64::NEG_INFINITY)
            .reduce(|best, next| if next.1 > best.1 { next } else { best })
    }
}

/// Runs `policy` on recorded candidates.
pub(crate) fn replay(policy: &dyn HitPolicy, candidates: &[CandidateRecord]) -> Replayed {
    let mut decisions: Vec<Decision> = candidates
        .iter()
        .map(|candidate| decide(policy, &without_second(&candidate.evidence)))
        .collect();
    let mut replayed = Replayed {
        served: most_useful(&decisions),
        ..Replayed::default()
    };
    let doubt = |decision: &Decision| matches!(decision, Decision::Refine { .. });
    if replayed.served.is_none() && decisions.iter().any(doubt) {
        replayed.refined = true;
        for (decision, candidate) in decisions.iter_mut().zip(candidates) {
            let evidence = Evidence {
                can_refine: false,
                ..candidate.evidence
            };
            *decision = decide(policy, &evidence);
        }
        replayed.served = most_useful(&decisions);
    }
    let probable = knows_probabilities(policy);
    replayed.scores = decisions
        .iter()
        .zip(candidates)
        .map(|(decision, candidate)| {
            let otherwise = if probable {
                f64::NEG_INFINITY
            } else {
                f64::from(candidate.evidence.similarity)
            };
            score(*decision, otherwise)
        })
        .collect();
    replayed
}

/// Whether the policy tells how probable an answer is. One that does, and does not of some candidate, would
/// serve that at no cut-off; its similarity is no probability.
pub(crate) fn knows_probabilities(policy: &dyn HitPolicy) -> bool {
    probability(policy.decide(&Evidence::similarity(1.0))).is_some()
}

fn probability(decision: Decision) -> Option<f64> {
    match decision {
        Decision::Serve { probability, .. }
        | Decision::Refine { probability }
        | Decision::Pass { probability, .. } => probability,
    }
}

/// The evidence as it is before the second cosine was asked for.
fn without_second(evidence: &Evidence) -> Evidence {
    Evidence {
        can_refine: evidence.can_refine || evidence.refined.is_some(),
        refined: None,
        refined_margin: None,
        ..*evidence
    }
}

/// What the engine would be told: below its least similarity a policy is not asked what it serves.
fn decide(policy: &dyn HitPolicy, evidence: &Evidence) -> Decision {
    let decision = policy.decide(evidence);
    if evidence.similarity >= policy.least_similarity() {
        return decision;
    }
    match decision {
        Decision::Serve { probability, .. } | Decision::Refine { probability } => Decision::Pass {
            reason: PassReason::BelowThreshold,
            probability,
        },
        pass @ Decision::Pass { .. } => pass,
    }
}

fn most_useful(decisions: &[Decision]) -> Option<usize> {
    let useful = decisions.iter().enumerate().filter_map(|(i, decision)| {
        let Decision::Serve { utility, .. } = decision else {
            return None;
        };
        Some((i, *utility))
    });
    useful
        .reduce(|best, next| if next.1 > best.1 { next } else { best })
        .map(|(i, _)| i)
}

/// What cut-offs are compared with, or `otherwise` where the policy knows no probability.
fn score(decision: Decision, otherwise: f64) -> f64 {
    match decision {
        Decision::Pass {
            reason: PassReason::Guard(_) | PassReason::ExactOnly,
            ..
        } => f64::NEG_INFINITY,
        _ => probability(decision).unwrap_or(otherwise),
    }
}

/// One decision, counted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Call {
    /// What belongs together.
    pub(crate) group: u64,
    /// Whether a right answer was stored.
    pub(crate) answerable: bool,
    /// Score of the surest candidate, and whether it is right; `None` where no cut-off serves one.
    pub(crate) surest: Option<(f64, bool)>,
    /// Whether what the policy serves is right; `None` where it serves nothing.
    pub(crate) served: Option<bool>,
    /// Whether the second cosine was asked for.
    pub(crate) refined: bool,
}

/// Counts what `policy` does with `records`.
///
/// Under [`Order::Pairs`] each candidate with a truth is a decision of its own, and a request whose right
/// answer was not among its candidates is one more. In any other order each request is one decision, and a
/// candidate that no label speaks of is wrong.
pub(crate) fn calls(policy: &dyn HitPolicy, records: &[DecisionRecord], order: Order) -> Vec<Call> {
    let mut calls = Vec::with_capacity(records.len());
    for record in records {
        if order == Order::Pairs {
            pair_calls(policy, record, &mut calls);
            continue;
        }
        let replayed = replay(policy, &record.candidates);
        let right = |place: usize| record.candidates[place].right == Some(true);
        calls.push(Call {
            group: record.group,
            answerable: record.answerable == Some(true),
            surest: replayed.surest().map(|(i, score)| (score, right(i))),
            served: replayed.served.map(right),
            refined: replayed.refined,
        });
    }
    calls
}

fn pair_calls(policy: &dyn HitPolicy, record: &DecisionRecord, calls: &mut Vec<Call>) {
    let mut found = false;
    for candidate in &record.candidates {
        let Some(right) = candidate.right else {
            continue;
        };
        found |= right;
        let replayed = replay(policy, std::slice::from_ref(candidate));
        calls.push(Call {
            group: record.group,
            answerable: right,
            surest: replayed.surest().map(|(_, score)| (score, right)),
            served: replayed.served.map(|_| right),
            refined: replayed.refined,
        });
    }
    if record.answerable == Some(true) && !found {
        calls.push(Call {
            group: record.group,
            answerable: true,
            surest: None,
            served: None,
            refined: false,
        });
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use askonce::EntryId;
    use askonce::policy::{CalibratedSettings, GuardReport, PolicyConfig, PolicyFile, Threshold};

    use super::*;

    pub(crate) fn candidate(similarity: f32, right: Option<bool>) -> CandidateRecord {
        CandidateRecord {
            entry: EntryId::new(0),
            evidence: Evidence::similarity(similarity),
            right,
        }
    }

    pub(crate) fn record(group: u64, candidates: Vec<CandidateRecord>) -> DecisionRecord {
        let right = |candidate: &CandidateRecord| candidate.right == Some(true);
        DecisionRecord {
            group,
            answerable: Some(candidates.iter().any(right)),
            candidates,
            ..DecisionRecord::default()
        }
    }

    /// Serves by the second cosine, which it always asks for.
    #[derive(Debug)]
    struct Second;

    impl HitPolicy for Second {
        fn name(&self) -> &'static str {
            "second"
        }

        fn decide(&self, evidence: &Evidence) -> Decision {
            match evidence.refined {
                None if evidence.can_refine => Decision::Refine { probability: None },
                Some(refined) if refined > 0.5 => Decision::Serve {
                    probability: Some(f64::from(refined)),
                    utility: f64::from(refined),
                },
                _ => Decision::Pass {
                    reason: PassReason::BelowFloor,
                    probability: Some(0.0),
                },
            }
        }

        fn least_similarity(&self) -> f32 {
            0.3
        }
    }

    #[test]
    fn the_most_useful_candidate_is_served_and_a_conflict_gives_way() {
        let mut candidates = [
            candidate(0.99, Some(false)),
            candidate(0.96, Some(true)),
            candidate(0.5, Some(true)),
        ];
        let threshold = Threshold::new(0.95).unwrap();
        assert_eq!(replay(&threshold, &candidates).served, Some(0));
        candidates[0].evidence.guards = GuardReport::compare("eat meat", "do not eat meat");
        let replayed = replay(&threshold, &candidates);
        assert_eq!(replayed.served, Some(1));
        assert_eq!(replayed.surest(), Some((1, f64::from(0.96_f32))));
        assert_eq!(replayed.scores[0], f64::NEG_INFINITY);
    }

    #[test]
    fn a_similarity_is_never_taken_for_a_probability() {
        // Not looked at, for it is farther than the policy serves at any cut-off.
        let farthest = PolicyFile::builtin().unwrap().least_similarity;
        let policy = CalibratedSettings::default();
        let policy = PolicyConfig::Calibrated(policy).build().unwrap();
        assert!(policy.least_similarity() > farthest);
        let far = candidate(farthest - 0.01, Some(false));
        assert_eq!(replay(&*policy, &[far]).scores, [f64::NEG_INFINITY]);
        let threshold = Threshold::new(0.95).unwrap();
        let scores = replay(&threshold, &[far]).scores;
        assert_eq!(scores, [f64::from(far.evidence.similarity)]);
    }

    #[test]
    fn the_second_cosine_is_looked_at_only_when_it_was_asked_for() {
        let mut candidates = [candidate(0.9, Some(false)), candidate(0.8, Some(true))];
        assert!(!replay(&Second, &candidates).refined);
        candidates[0].evidence.refined = Some(0.2);
        candidates[1].evidence.refined = Some(0.9);
        let replayed = replay(&Second, &candidates);
        assert!(replayed.refined);
        assert_eq!(replayed.served, Some(1));
        candidates[1].evidence.similarity = 0.1;
        assert_eq!(replay(&Second, &candidates).served, None);
    }

    #[test]
    fn a_pair_is_a_decision_and_what_no_label_compares_is_none() {
        let records = [record(
            7,
            vec![
                candidate(0.99, None),
                candidate(0.97, Some(true)),
                candidate(0.96, Some(false)),
            ],
        )];
        let threshold = Threshold::new(0.95).unwrap();
        let pairs = calls(&threshold, &records, Order::Pairs);
        let served: Vec<_> = pairs.iter().map(|call| call.served).collect();
        assert_eq!(served, [Some(true), Some(false)]);
        let stream = calls(&threshold, &records, Order::Random);
        assert_eq!(stream.len(), 1);
        assert_eq!(stream[0].served, Some(false));
    }

    #[test]
    fn a_right_answer_that_was_not_found_is_a_missed_hit() {
        let mut lost = record(7, vec![candidate(0.4, Some(false))]);
        lost.answerable = Some(true);
        let threshold = Threshold::new(0.95).unwrap();
        let calls = calls(&threshold, &[lost], Order::Pairs);
        assert_eq!(calls.iter().filter(|call| call.answerable).count(), 1);
        assert_eq!(calls.len(), 2);
    }
}
