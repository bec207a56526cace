//! The stage after the decision: what the policy nearly served is shown to the verifier, where there is one.

use std::sync::Arc;

use super::Inner;
use super::lookup::{Asked, Judged, Trail, Verdict, serve};
use super::outcome::{Hit, HitKind, MissReason};
use crate::entry::Entry;
use crate::observe;
use crate::policy::{Decision, PassReason};
use crate::savings::{CostKind, Usd};
use crate::verify::{VerifierCandidate, VerifierQuestion, VerifyStage};

impl Inner {
    /// Of the candidates in the grey band that the verifier finds right, the most probable. What it says nothing of
    /// stays as the policy left it.
    pub(super) async fn verify(
        &self,
        asked: &Asked<'_>,
        leads: &mut [Judged],
        trail: &mut Trail,
    ) -> Option<Hit> {
        let stage = asked.semantic.verifier.as_ref()?;
        let grey = grey(stage, leads);
        if grey.is_empty() || !self.may_serve(asked) {
            return None;
        }
        let mut entries: Vec<(usize, Arc<Entry>)> = Vec::new();
        let mut candidates = Vec::new();
        for at in grey {
            let lead = &mut leads[at];
            let entry = match lead.fetched.take() {
                Some(entry) => Ok(entry),
                None => {
                    let id = lead.candidate.id;
                    self.fetch_checked(asked, id, &mut trail.check).await
                }
            };
            match entry {
                Ok(entry) if asked.options.accepts(&entry, asked.now) => {
                    let Some(query) = entry.text.clone() else {
                        continue;
                    };
                    let answer = entry.answer.words().into_owned();
                    candidates.push(VerifierCandidate { query, answer });
                    entries.push((at, entry));
                }
                Ok(_) => lead.stop(MissReason::TooOld),
                Err(reason) => lead.stop(reason),
            }
            if entries.len() == stage.candidates() {
                break;
            }
        }
        if entries.is_empty() {
            return None;
        }
        let question = VerifierQuestion {
            query: asked.text.to_owned(),
            candidates,
        };
        trail.stage("verify");
        let answer = stage.ask(&question, asked.now).await;
        self.book_cost(
            CostKind::Verification,
            Usd::from_dollars(stage.take_spent()),
        );
        trail.stage_done("verify");
        let probabilities = match answer {
            Ok(probabilities) => probabilities,
            Err(why) => {
                trail.faults.push(MissReason::NotVerified(why));
                return None;
            }
        };
        let mut best: Option<(f64, usize, Arc<Entry>)> = None;
        for ((at, entry), probability) in entries.into_iter().zip(probabilities) {
            let lead = &mut leads[at];
            lead.verified = probability;
            match probability {
                Some(probability) if stage.serves(probability) => {
                    lead.verdict = Verdict::Serve;
                    if best.as_ref().is_none_or(|(most, ..)| probability > *most) {
                        best = Some((probability, at, entry));
                    }
                }
                Some(_) => lead.stop(MissReason::VerifierRefused),
                None => {}
            }
        }
        let (probability, at, entry) = best?;
        observe::verifier_hit();
        let lead = &leads[at];
        let kind = HitKind::Semantic {
            similarity: lead.candidate.similarity,
            probability: lead.probability(),
            verified: Some(probability),
        };
        Some(serve(&entry, kind, asked.now))
    }
}

/// The candidates that the policy nearly served, the most probable first. Policies name the first that stops a
/// candidate, which need not be the guard that would have stopped it too: so the guards are asked here as well.
fn grey(stage: &VerifyStage, leads: &[Judged]) -> Vec<usize> {
    let nearly = |lead: &Judged| match lead.verdict {
        Verdict::Stop(MissReason::Policy(reason)) => {
            matches!(reason, PassReason::BelowCutoff | PassReason::BelowFloor)
        }
        Verdict::Open => matches!(lead.decision, Some(Decision::Refine { .. })),
        _ => false,
    };
    let mut grey: Vec<(usize, f64)> = leads
        .iter()
        .enumerate()
        .filter(|(_, lead)| nearly(lead) && stage.is_grey(lead.probability()))
        .filter(|(_, lead)| {
            let evidence = lead.evidence.as_ref();
            evidence.is_some_and(|evidence| evidence.guards.conflict().is_none())
        })
        .map(|(at, lead)| (at, lead.probability().unwrap_or(0.0)))
        .collect();
    grey.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    grey.into_iter().map(|(at, _)| at).collect()
}
