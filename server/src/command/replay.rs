//! `askonce replay`: a log of decisions under other settings.
//!
//! A log holds the evidence of every candidate, and a policy decides on evidence alone: what another policy
//! would have served is worked out without asking any cache. What it cannot tell is what would have been
//! stored: a cache that serves more holds less. And it knows only the labels that the log has, so each
//! count of wrong hits stands beside the number of hits that nobody judged.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use askonce::decision::{CandidateRecord, DecisionRecord};
use clap::Args as ClapArgs;
use serde::Serialize;
use serde_json::Value;

use super::{Global, print};
use crate::quality::data;
use crate::quality::policies::Contender;
use crate::quality::replay::{knows_probabilities, replay};
use crate::quality::table::{Table, percent};

/// Settings of `replay`.
#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    /// Logs of decisions: JSON lines, plain or gzip.
    #[arg(required = true, value_name = "LOG")]
    logs: Vec<PathBuf>,

    /// What to decide with: default, calibrated, exact_only, threshold:NUMBER, or a policy file; with @RATE a
    /// calibrated one runs under that promise of wrong answers per request. May be given several times.
    /// Default: default.
    #[arg(long = "policy", value_name = "POLICY")]
    policies: Vec<String>,
}

/// What became of a log under one policy.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Replay {
    pub(crate) policy: String,
    /// Decisions in the log.
    requests: usize,
    /// Of them, those served by similarity.
    hits: usize,
    hit_rate: Option<f64>,
    /// Hits by what is known of them.
    known_right: usize,
    known_wrong: usize,
    unknown: usize,
    /// Wrong hits per hit, as estimated from the known ones, each standing for as many as its record says.
    wrong_per_hit: Option<f64>,
    /// Wrong hits that the policy itself expects, where it has probabilities.
    expected_wrong: Option<f64>,
    /// Dollars that its hits save, as far as prices are known.
    saved_usd: f64,
    /// The same less what was saved by the decisions that the log holds.
    saved_usd_more: f64,
    /// Hits that the log does not have, and hits of the log that are none now.
    new_hits: usize,
    lost_hits: usize,
    /// Decisions for which the policy asks for a second cosine that the log does not hold; it decides
    /// without then.
    second_cosine_missing: usize,
}

/// Replays.
///
/// # Errors
/// A log cannot be read or a row is not as described; a policy is none.
pub(crate) fn run(args: &Args, global: &Global) -> Result<()> {
    let mut contenders: Vec<Contender> = args
        .policies
        .iter()
        .map(|policy| Contender::named(policy))
        .collect::<Result<_>>()?;
    if contenders.is_empty() {
        contenders.push(Contender::by_default()?);
    }
    let mut records = Vec::new();
    for path in &args.logs {
        records.extend(data::decisions(path)?.rows);
    }
    let logged = as_logged(&records);
    let replays: Vec<Replay> = std::iter::once(logged.clone())
        .chain(
            contenders
                .iter()
                .map(|contender| under(contender, &records, &logged)),
        )
        .collect();
    let told = serde_json::to_value(&replays).context("the replay has no JSON form")?;
    print(global, &told, |_: &Value| words(&replays))
}

/// What the log itself says was served.
pub(crate) fn as_logged(records: &[DecisionRecord]) -> Replay {
    let mut tally = Tally::new("as logged".to_owned());
    for record in records {
        tally.add(record, logged_hit(record), None);
    }
    tally.replay
}

/// The candidate that was served when the record was made.
fn logged_hit(record: &DecisionRecord) -> Option<&CandidateRecord> {
    let served = record.served?;
    record
        .candidates
        .iter()
        .find(|candidate| candidate.entry == served)
}

/// What `contender` would have done with the log.
pub(crate) fn under(contender: &Contender, records: &[DecisionRecord], logged: &Replay) -> Replay {
    let mut tally = Tally::new(contender.name.clone());
    let probable = knows_probabilities(&*contender.policy);
    for record in records {
        let replayed = replay(&*contender.policy, &record.candidates);
        let hit = replayed.served.map(|place| &record.candidates[place]);
        let sure = replayed.served.map(|place| replayed.scores[place]);
        let sure = sure.filter(|_| probable);
        let second = |candidate: &CandidateRecord| candidate.evidence.refined.is_some();
        let missing = replayed.refined && !record.candidates.iter().any(second);
        tally.replay.second_cosine_missing += usize::from(missing);
        tally.replay.new_hits += usize::from(hit.is_some() && record.served.is_none());
        tally.replay.lost_hits += usize::from(hit.is_none() && record.served.is_some());
        tally.add(record, hit, sure);
    }
    let mut replay = tally.replay;
    replay.saved_usd_more = replay.saved_usd - logged.saved_usd;
    replay
}

/// Counts one policy's hits.
struct Tally {
    replay: Replay,
    known: f64,
    wrong: f64,
}

impl Tally {
    fn new(policy: String) -> Self {
        let replay = Replay {
            policy,
            ..Replay::default()
        };
        Self {
            replay,
            known: 0.0,
            wrong: 0.0,
        }
    }

    fn add(&mut self, record: &DecisionRecord, hit: Option<&CandidateRecord>, sure: Option<f64>) {
        let replay = &mut self.replay;
        replay.requests += 1;
        if let Some(hit) = hit {
            replay.hits += 1;
            match hit.right {
                Some(true) => replay.known_right += 1,
                Some(false) => replay.known_wrong += 1,
                None => replay.unknown += 1,
            }
            if let Some(right) = hit.right {
                self.known += record.weight;
                self.wrong += if right { 0.0 } else { record.weight };
            }
            replay.saved_usd += hit.evidence.saving_usd.unwrap_or(0.0);
            if let Some(sure) = sure {
                *replay.expected_wrong.get_or_insert(0.0) += (1.0 - sure).clamp(0.0, 1.0);
            }
        }
        let share = |part: f64, whole: f64| (whole > 0.0).then(|| part / whole);
        replay.hit_rate = share(replay.hits as f64, replay.requests as f64);
        replay.wrong_per_hit = share(self.wrong, self.known);
    }
}

fn words(replays: &[Replay]) -> String {
    let mut table = Table::new([
        "policy",
        "requests",
        "hits",
        "rate",
        "right",
        "wrong",
        "unknown",
        "wrong/hit",
        "expected",
        "new",
        "lost",
        "saved $",
        "more $",
    ]);
    for replay in replays {
        table.row([
            replay.policy.clone(),
            replay.requests.to_string(),
            replay.hits.to_string(),
            percent(replay.hit_rate),
            replay.known_right.to_string(),
            replay.known_wrong.to_string(),
            replay.unknown.to_string(),
            percent(replay.wrong_per_hit),
            replay
                .expected_wrong
                .map_or("-".to_owned(), |wrong| format!("{wrong:.1}")),
            replay.new_hits.to_string(),
            replay.lost_hits.to_string(),
            format!("{:.4}", replay.saved_usd),
            format!("{:+.4}", replay.saved_usd_more),
        ]);
    }
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = table.write(&mut out);
    let missing = replays
        .iter()
        .map(|replay| replay.second_cosine_missing)
        .max();
    if let Some(missing) = missing.filter(|missing| *missing > 0) {
        out += &format!(
            "  for up to {missing} requests a policy asks for a second cosine that the log does not hold\n"
        );
    }
    out.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use askonce::EntryId;
    use askonce::policy::Evidence;

    use super::*;

    fn record(similarity: f32, right: Option<bool>, served: bool, weight: f64) -> DecisionRecord {
        let entry = EntryId::new(7);
        DecisionRecord {
            candidates: vec![CandidateRecord {
                entry,
                evidence: Evidence {
                    saving_usd: Some(0.5),
                    ..Evidence::similarity(similarity)
                },
                right,
            }],
            served: served.then_some(entry),
            weight,
            ..DecisionRecord::default()
        }
    }

    fn log() -> Vec<DecisionRecord> {
        vec![
            record(0.99, Some(true), true, 1.0),
            record(0.96, Some(false), true, 3.0),
            record(0.95, None, false, 1.0),
            record(0.50, Some(false), true, 1.0),
        ]
    }

    #[test]
    fn hits_are_those_of_the_policy_and_known_by_the_labels_of_the_log() {
        let records = log();
        let logged = as_logged(&records);
        assert_eq!((logged.hits, logged.known_wrong, logged.unknown), (3, 2, 0));
        let contender = Contender::named("threshold:0.95").unwrap();
        let replay = under(&contender, &records, &logged);
        assert_eq!((replay.hits, replay.known_right), (3, 1));
        assert_eq!((replay.known_wrong, replay.unknown), (1, 1));
        assert_eq!((replay.new_hits, replay.lost_hits), (1, 1));
        assert_eq!(replay.wrong_per_hit, Some(0.75));
        // A similarity is no probability.
        assert_eq!(replay.expected_wrong, None);
        assert_eq!(replay.saved_usd_more, 0.0);
        let strict = Contender::named("threshold:0.98").unwrap();
        assert_eq!(under(&strict, &records, &logged).saved_usd_more, -1.0);
    }

    #[test]
    fn what_was_logged_is_what_is_replayed_under_the_same_policy() {
        let mut records = log();
        let contender = Contender::named("threshold:0.95").unwrap();
        for record in &mut records {
            let replayed = replay(&*contender.policy, &record.candidates);
            record.served = replayed.served.map(|place| record.candidates[place].entry);
        }
        let logged = as_logged(&records);
        let replay = under(&contender, &records, &logged);
        assert_eq!((replay.new_hits, replay.lost_hits), (0, 0));
        assert_eq!(replay.hits, logged.hits);
        assert!(words(&[logged, replay]).contains("as logged"));
    }
}
