//! From labelled decisions to a policy file.

use std::collections::{BTreeMap, HashMap};

use askonce_models::additive::{Additive, AdditiveSettings};
use askonce_models::trees::{Forest, ForestSettings};

use super::beta::{lower_bound, upper_bound};
use super::certify::{Outcome, Promise, certify};
use super::isotonic::{self, Labelled, log_odds};
use super::report::{
    CategoryReport, CurvePoint, FitReport, GuardEarnings, PromiseReport, ReliabilityBin,
    ShortageReport,
};
use super::split::{Parts, thinned};
use super::{CalibrateError, platt, prior};
use crate::decision::{CandidateRecord, DecisionRecord};
use crate::policy::{
    Bound, CalibrationMap, Card, CategoryFit, Cutoffs, Evidence, FORMAT, GreyBand, GuardFit,
    GuardKind, GuardState, PolicyFile, Reach, SECOND_SPACE, Scorer, Stage, StageModel, Stages,
    Verdict, WordingFit,
};

/// Best candidates from which on a map is fitted by monotone regression; below, a logistic curve.
const ENOUGH_FOR_STEPS: usize = 2_000;

/// Least best candidates for any map.
const LEAST_LABELS: usize = 50;

/// Strength of the logistic map's pull towards believing the model, in labels.
const PULL: f64 = 1.0;

/// Variance of the prior of a category's offset, in log-odds.
const CATEGORY_VARIANCE: f64 = 0.25;

/// Share of the candidates served with the second cosine that the grey band's lower end may lose, and
/// share of those served without it that the second cosine would have stopped.
const BAND_LOSS: f64 = 0.02;

/// Where the models come from.
#[derive(Clone, Debug)]
pub enum Models {
    /// Those of an existing policy; only maps, categories, guards and certificates are made anew.
    Keep(Box<PolicyFile>),
    /// Gradient boosted trees.
    Forest(ForestSettings),
    /// A monotone additive model: weaker, and open to inspection.
    Additive(AdditiveSettings),
    /// A logistic curve over the similarity alone, to compare with and for the smallest data.
    Curve,
}

/// Probabilities from which on candidates with a guard's conflict are counted.
const SURE_FROM: [f64; 5] = [0.5, 0.6, 0.7, 0.8, 0.9];

/// How much farther than in the data what is right may lie, at a probability of 0; nothing at 1.
const FARTHER: f64 = 0.25;

/// No candidate that is less probable than this decides where to look for candidates.
const LEAST_PROBABILITY: f64 = 0.2;

/// How a policy is made.
#[derive(Clone, Debug)]
pub struct FitSettings {
    /// Where the models come from.
    pub models: Models,
    /// Rates of wrong answers per request to certify, each on average and with confidence. Default:
    /// 0.005, 0.01, 0.02, 0.05.
    pub per_request: Vec<f64>,
    /// Rates of wrong answers per hit to certify. Default: 0.01, 0.02, 0.05, 0.1.
    pub per_hit: Vec<f64>,
    /// Confidence of the promises, above 0 and below 1. Default: 0.95.
    pub confidence: f64,
    /// Weight of each decision of a set, in fitting; 1 where a set is not named.
    pub set_weights: BTreeMap<String, f64>,
    /// Most candidates of a decision that models are fitted on, from the most similar on. Default: 8.
    pub candidates: usize,
    /// Least decisions of the certification for a category to get cut-offs of its own. Default: 1000.
    pub category_requests: usize,
    /// When the policy is made, RFC 3339.
    pub created: String,
    /// What the policy's card says of its making; counts are filled in.
    pub card: Card,
    /// Seed of every choice by lot.
    pub seed: u64,
}

impl Default for FitSettings {
    fn default() -> Self {
        Self {
            models: Models::Forest(ForestSettings::default()),
            per_request: vec![0.005, 0.01, 0.02, 0.05],
            per_hit: vec![0.01, 0.02, 0.05, 0.1],
            confidence: 0.95,
            set_weights: BTreeMap::new(),
            candidates: 8,
            category_requests: 1_000,
            created: String::new(),
            card: Card::default(),
            seed: 1,
        }
    }
}

/// Makes a policy from decisions that are split already.
///
/// # Errors
/// [`CalibrateError`], saying what the data lacks. A promise that cannot be certified is no error here:
/// the policy does without it, and the report says what is missing.
pub fn fit(
    parts: &Parts<'_>,
    settings: &FitSettings,
) -> Result<(PolicyFile, FitReport), CalibrateError> {
    let unlabelled = |records: &[&DecisionRecord]| {
        records.iter().filter(|record| !is_labelled(record)).count() as u64
    };
    let mut report = FitReport {
        unlabelled: unlabelled(&parts.calibration) + unlabelled(&parts.certification),
        ..FitReport::default()
    };
    let calibration: Vec<&DecisionRecord> = parts
        .calibration
        .iter()
        .copied()
        .filter(|record| is_labelled(record))
        .collect();
    let certification: Vec<&DecisionRecord> = thinned(&parts.certification, settings.seed)
        .into_iter()
        .filter(|record| is_labelled(record))
        .collect();
    let spaces = spaces_of(parts)?;
    let mut file = draft(parts, settings, &spaces, &mut report)?;

    calibrate_stages(&mut file, &calibration, settings)?;
    file.band = choose_band(&file, &calibration, settings)?;
    file.least_similarity = nearest_for(&file, &calibration, LEAST_PROBABILITY)?;
    // After the band, which is about the models alone.
    // What too few labels tell is taken from the policy whose models are kept; certificates count it anyway.
    let known = match &settings.models {
        Models::Keep(kept) => kept.same_wording,
        _ => None,
    };
    file.same_wording = same_wording(&calibration, settings.confidence).or(known);
    let scorer = Scorer::new(&file)?;
    file.prior_variance = prior::shift_variance(rows_for_prior(&scorer, &calibration));
    add_categories(&mut file, &calibration)?;
    add_vetoes(&mut file, &calibration, settings, &mut report)?;
    add_bounds(&mut file, &calibration, settings, &mut report)?;
    certify_all(&mut file, &certification, settings, &mut report)?;
    file.reach = reach(&file, &calibration)?;
    measure(&file, &certification, &mut report)?;

    report.fitted = parts.fit.len() as u64;
    report.calibrated = calibration.len() as u64;
    report.certified = certification.len() as u64;
    file.card = Card {
        fitted: if report.rows[0] > 0 {
            report.fitted
        } else {
            file.card.fitted
        },
        calibrated: report.calibrated,
        certified: report.certified,
        ..settings.card.clone()
    };
    Ok((file, report))
}

/// Whether a decision tells anything: it has a label, or nothing to label.
fn is_labelled(record: &DecisionRecord) -> bool {
    record.candidates.is_empty() || record.candidates.iter().any(|c| c.right.is_some())
}

/// The embeddings that all records agree on.
fn spaces_of(parts: &Parts<'_>) -> Result<Vec<String>, CalibrateError> {
    let mut all = parts
        .fit
        .iter()
        .chain(&parts.calibration)
        .chain(&parts.certification)
        .filter(|record| !record.candidates.is_empty());
    let first = all.next().ok_or(CalibrateError::NoLabels {
        found: 0,
        needed: LEAST_LABELS,
    })?;
    match all.find(|record| record.spaces != first.spaces) {
        Some(other) => Err(CalibrateError::MixedEmbeddings {
            first: first.spaces.join(", "),
            other: other.spaces.join(", "),
        }),
        None if first.spaces.is_empty() => Err(CalibrateError::NoEmbedding),
        None => Ok(first.spaces.clone()),
    }
}

/// A policy with models and nothing else.
fn draft(
    parts: &Parts<'_>,
    settings: &FitSettings,
    spaces: &[String],
    report: &mut FitReport,
) -> Result<PolicyFile, CalibrateError> {
    let bare = |model| Stage {
        model,
        calibration: CalibrationMap::Logistic {
            slope: 1.0,
            intercept: 0.0,
        },
        share: 1.0,
    };
    let everything = Some(GreyBand {
        low: 0.0,
        high: 1.0,
    });
    let (features, stages) = match &settings.models {
        Models::Keep(file) => {
            if file.spaces != spaces {
                return Err(CalibrateError::OtherEmbedding {
                    policy: file.spaces.join(", "),
                    records: spaces.join(", "),
                });
            }
            let stages = Stages {
                fast: bare(file.stages.fast.model.clone()),
                full: file
                    .stages
                    .full
                    .as_ref()
                    .map(|stage| bare(stage.model.clone())),
            };
            (file.features.clone(), stages)
        }
        _ => {
            // The size of a cache grows from nothing wherever it runs; in made-up streams it stands for the set.
            let names: Vec<String> = Evidence::feature_names()
                .filter(|name| *name != "log_rows")
                .map(str::to_owned)
                .collect();
            let fast = Rows::of(parts, settings, &names, false);
            let full = Rows::of(parts, settings, &names, true);
            report.rows = [fast.labels.len() as u64, full.labels.len() as u64];
            let stages = Stages {
                fast: bare(fast.model(settings, &names, "similarity")?),
                full: if spaces.len() > 1 && !full.labels.is_empty() {
                    Some(bare(full.model(settings, &names, "refined")?))
                } else {
                    None
                },
            };
            (names, stages)
        }
    };
    Ok(PolicyFile {
        format: FORMAT,
        created: settings.created.clone(),
        spaces: spaces.to_vec(),
        features,
        band: stages.full.as_ref().and(everything),
        stages,
        same_wording: None,
        prior_variance: 0.0,
        least_similarity: -1.0,
        reach: Vec::new(),
        guards: BTreeMap::new(),
        vetoes: Vec::new(),
        cutoffs: Cutoffs::default(),
        categories: BTreeMap::new(),
        card: match &settings.models {
            Models::Keep(file) => file.card.clone(),
            _ => settings.card.clone(),
        },
        digest: String::new(),
    })
}

/// Training rows by column.
struct Rows {
    columns: Vec<Vec<f32>>,
    labels: Vec<bool>,
    weights: Vec<f32>,
}

impl Rows {
    /// The labelled candidates of the part for models; with the second cosine, or as if there were none.
    fn of(parts: &Parts<'_>, settings: &FitSettings, names: &[String], full: bool) -> Self {
        let mut rows = Self {
            columns: vec![Vec::new(); names.len()],
            labels: Vec::new(),
            weights: Vec::new(),
        };
        let places: Vec<Option<usize>> = names
            .iter()
            .map(|name| Evidence::feature_names().position(|known| known == name))
            .collect();
        let mut values = Vec::new();
        for record in &parts.fit {
            let weight = set_weight(record, settings);
            for candidate in record.candidates.iter().take(settings.candidates) {
                let Some(right) = candidate.right else {
                    continue;
                };
                if full && candidate.evidence.refined.is_none() {
                    continue;
                }
                candidate.evidence.features(&mut values);
                for ((column, place), name) in rows.columns.iter_mut().zip(&places).zip(names) {
                    let hidden = !full && SECOND_SPACE.contains(&name.as_str());
                    let value = place.and_then(|at| values.get(at)).filter(|_| !hidden);
                    column.push(value.copied().unwrap_or(f32::NAN));
                }
                rows.labels.push(right);
                rows.weights.push(weight as f32);
            }
        }
        rows
    }

    fn model(
        &self,
        settings: &FitSettings,
        names: &[String],
        cosine: &str,
    ) -> Result<StageModel, CalibrateError> {
        let right = self.labels.iter().filter(|right| **right).count();
        let fewer = right.min(self.labels.len() - right);
        if fewer < LEAST_LABELS {
            return Err(CalibrateError::NoLabels {
                found: fewer,
                needed: LEAST_LABELS,
            });
        }
        let monotone: Vec<i8> = names.iter().map(|name| direction(name)).collect();
        Ok(match &settings.models {
            Models::Forest(forest) => StageModel::Forest {
                forest: Forest::fit(
                    &self.columns,
                    &self.labels,
                    &self.weights,
                    &ForestSettings {
                        monotone,
                        ..forest.clone()
                    },
                )?,
            },
            Models::Additive(additive) => StageModel::Additive {
                additive: Additive::fit(
                    &self.columns,
                    &self.labels,
                    &self.weights,
                    &AdditiveSettings {
                        monotone,
                        ..additive.clone()
                    },
                )?,
            },
            Models::Curve | Models::Keep(_) => {
                let values = names
                    .iter()
                    .position(|name| name == cosine)
                    .map_or(&[][..], |at| &self.columns[at]);
                // Cosines in units in which a slope of one is plausible, for the pull to mean little.
                let (scale, middle) = (20.0, 0.8);
                let rows: Vec<_> = values
                    .iter()
                    .zip(&self.labels)
                    .zip(&self.weights)
                    .map(|((value, right), weight)| Labelled {
                        score: scale * (f64::from(*value) - middle),
                        right: *right,
                        weight: f64::from(*weight),
                    })
                    .collect();
                let curve = platt::fit(&rows, PULL);
                let slope = scale * curve.slope.max(1e-3);
                StageModel::Curve {
                    feature: cosine.to_owned(),
                    intercept: curve.intercept - slope * middle,
                    slope,
                }
            }
        })
    }
}

/// Which way a feature may move the log-odds: nearer never speaks against a match, and more conflict never
/// speaks for one.
fn direction(feature: &str) -> i8 {
    match feature {
        "similarity" | "refined" | "margin" | "refined_margin" => 1,
        name if GuardKind::ALL.iter().any(|kind| kind.as_str() == name) => -1,
        _ => 0,
    }
}

fn set_weight(record: &DecisionRecord, settings: &FitSettings) -> f64 {
    let of_set = record
        .set
        .as_ref()
        .and_then(|set| settings.set_weights.get(set))
        .copied()
        .unwrap_or(1.0);
    of_set * record.weight
}

/// Whether decisions are made with the second cosine or without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Cascade,
    Fast,
}

/// Log-odds of a candidate by the stage that has the last word on it; `None` where it cannot be served.
fn score(scorer: &Scorer, evidence: &Evidence, mode: Mode) -> Option<f64> {
    if evidence.similarity < scorer.least_similarity() || scorer.veto(evidence).is_some() {
        return None;
    }
    let weighed = match mode {
        Mode::Fast => scorer.fast(evidence, 0.0),
        Mode::Cascade => match scorer.weigh(evidence, 0.0) {
            Verdict::Clear(weighed) => weighed,
            Verdict::Grey { fast, above: true } => fast,
            Verdict::Grey { above: false, .. } | Verdict::Hopeless(_) => return None,
        },
    };
    Some(weighed.probability).filter(|p| p.is_finite())
}

/// The candidate that would be served, if any is, with its probability.
fn best<'a>(
    scorer: &Scorer,
    record: &'a DecisionRecord,
    mode: Mode,
) -> Option<(&'a CandidateRecord, f64)> {
    record
        .candidates
        .iter()
        .filter_map(|candidate| Some((candidate, score(scorer, &candidate.evidence, mode)?)))
        // Of equals the first, which is the most similar.
        .rev()
        .max_by(|a, b| a.1.total_cmp(&b.1))
}

/// What each decision would risk. A best candidate that nobody labelled counts as wrong.
fn outcomes(scorer: &Scorer, records: &[&DecisionRecord], mode: Mode) -> Vec<Outcome> {
    records
        .iter()
        .map(|record| match best(scorer, record, mode) {
            Some((candidate, probability)) => Outcome {
                score: probability,
                wrong: candidate.right != Some(true),
                group: record.group,
            },
            None => Outcome {
                score: f64::NEG_INFINITY,
                wrong: false,
                group: record.group,
            },
        })
        .collect()
}

/// Fits the map of each stage on the candidate that the stage would choose.
fn calibrate_stages(
    file: &mut PolicyFile,
    records: &[&DecisionRecord],
    settings: &FitSettings,
) -> Result<(), CalibrateError> {
    let scorer = Scorer::new(file)?;
    let rows = |full: bool| -> Vec<Labelled> {
        records
            .iter()
            .filter_map(|record| {
                let (candidate, score) = record
                    .candidates
                    .iter()
                    .filter_map(|candidate| {
                        let score = scorer.margin(&candidate.evidence, full)?;
                        Some((candidate, score))
                    })
                    .rev()
                    .max_by(|a, b| a.1.total_cmp(&b.1))?;
                Some(Labelled {
                    score,
                    right: candidate.right?,
                    weight: set_weight(record, settings),
                })
            })
            .collect()
    };
    file.stages.fast.calibration = map(&rows(false))?;
    if let Some(stage) = &mut file.stages.full {
        stage.calibration = map(&rows(true))?;
    }
    Ok(())
}

/// What the same words in other dress are worth: a lower bound, for there are few of them.
fn same_wording(records: &[&DecisionRecord], confidence: f64) -> Option<WordingFit> {
    let labels = records
        .iter()
        .flat_map(|record| &record.candidates)
        .filter(|candidate| {
            let evidence = &candidate.evidence;
            evidence.same_wording && evidence.guards.conflict().is_none()
        })
        .filter_map(|candidate| candidate.right);
    let (mut right, mut of) = (0, 0);
    for label in labels {
        right += u64::from(label);
        of += 1;
    }
    let probability = lower_bound(right as f64, of as f64, confidence);
    (of >= LEAST_LABELS as u64 && probability > 0.0).then_some(WordingFit {
        probability,
        right,
        of,
    })
}

fn map(rows: &[Labelled]) -> Result<CalibrationMap, CalibrateError> {
    if rows.len() < LEAST_LABELS {
        return Err(CalibrateError::NoLabels {
            found: rows.len(),
            needed: LEAST_LABELS,
        });
    }
    if rows.len() >= ENOUGH_FOR_STEPS {
        return Ok(CalibrationMap::Steps {
            knots: isotonic::knots(rows),
        });
    }
    let curve = platt::fit(rows, PULL);
    Ok(CalibrationMap::Logistic {
        slope: curve.slope,
        intercept: curve.intercept,
    })
}

/// The band in which the second cosine is asked for. Below, hardly anything would be served at the loosest promise; above,
/// hardly anything would be stopped at the tightest: so what is served at once is what would be served anyway, whatever
/// is promised.
fn choose_band(
    file: &PolicyFile,
    records: &[&DecisionRecord],
    settings: &FitSettings,
) -> Result<Option<GreyBand>, CalibrateError> {
    if file.stages.full.is_none() {
        return Ok(None);
    }
    let scorer = Scorer::new(file)?;
    let risked = outcomes(&scorer, records, Mode::Cascade);
    let loosest = loosest_cutoff(&risked, settings);
    let tightest = tightest_cutoff(&risked, settings);
    // Of every candidate with both cosines: what the fast stage says, and what both say together.
    let mut pairs: Vec<(f64, f64)> = Vec::new();
    for record in records {
        for candidate in &record.candidates {
            if candidate.evidence.refined.is_none() {
                continue;
            }
            let full = score(&scorer, &candidate.evidence, Mode::Cascade);
            pairs.push((
                scorer.fast(&candidate.evidence, 0.0).probability,
                full.unwrap_or_default(),
            ));
        }
    }
    pairs.sort_by(|a, b| a.0.total_cmp(&b.0));
    let served = pairs.iter().filter(|(_, full)| *full >= loosest);
    let spared = (served.clone().count() as f64 * BAND_LOSS) as usize;
    let low = served.clone().nth(spared).map_or(1.0, |(fast, _)| *fast);
    // From the top down, as long as the second cosine would stop few.
    let (mut stopped, mut high) = (0, 1.0);
    for (seen, (fast, full)) in pairs.iter().rev().enumerate() {
        stopped += usize::from(*full < tightest);
        if stopped as f64 <= BAND_LOSS * (seen as f64 + 1.0) && seen >= LEAST_LABELS {
            high = *fast;
        }
    }
    Ok(Some(GreyBand {
        low: low.min(high),
        high,
    }))
}

/// The cut-off of the loosest promise per request, on average: where the widest use would begin.
fn loosest_cutoff(outcomes: &[Outcome], settings: &FitSettings) -> f64 {
    let rate = settings.per_request.iter().copied().fold(0.02, f64::max);
    average_cutoff(outcomes, rate).unwrap_or(0.5)
}

/// The same of the tightest promise: what reaches it is served whatever is promised. 1 where none keeps it.
fn tightest_cutoff(outcomes: &[Outcome], settings: &FitSettings) -> f64 {
    let rate = settings.per_request.iter().copied().fold(0.02, f64::min);
    average_cutoff(outcomes, rate).unwrap_or(1.0)
}

/// The cut-off that keeps a rate of wrong answers per request on average.
fn average_cutoff(outcomes: &[Outcome], rate: f64) -> Option<f64> {
    let promise = Promise {
        bound: Bound::PerRequest,
        rate,
        confidence: 0.0,
    };
    let certified = certify(outcomes, promise);
    certified.ok().map(|cutoff| cutoff.probability)
}

/// A similarity below which hardly any right candidate is as probable as this; lowered, and the more so the less
/// probable, for in other traffic what is right may lie farther.
fn nearest_for(
    file: &PolicyFile,
    records: &[&DecisionRecord],
    probability: f64,
) -> Result<f32, CalibrateError> {
    let scorer = Scorer::new(file)?;
    let reaches = |candidate: &&CandidateRecord| {
        [Mode::Cascade, Mode::Fast]
            .into_iter()
            .any(|mode| score(&scorer, &candidate.evidence, mode).is_some_and(|p| p >= probability))
    };
    let mut similarities: Vec<f32> = records
        .iter()
        .flat_map(|record| &record.candidates)
        .filter(|candidate| candidate.right == Some(true))
        .filter(reaches)
        .map(|candidate| candidate.evidence.similarity)
        .collect();
    similarities.sort_by(f32::total_cmp);
    let lowered = (FARTHER * (1.0 - probability)) as f32;
    let at = similarities.len() / 200;
    Ok(similarities
        .get(at)
        .map_or(0.0, |similarity| (similarity - lowered).clamp(-1.0, 1.0)))
}

/// How near a candidate has to be for each cut-off.
fn reach(file: &PolicyFile, records: &[&DecisionRecord]) -> Result<Vec<Reach>, CalibrateError> {
    let of_categories = file.categories.values().map(|fit| &fit.cutoffs);
    let cutoffs = of_categories.chain([&file.cutoffs]);
    let mut probabilities: Vec<f64> = cutoffs
        .flat_map(|cutoffs| cutoffs.cascade.iter().chain(&cutoffs.fast))
        .map(|cutoff| cutoff.probability)
        .collect();
    probabilities.sort_by(f64::total_cmp);
    probabilities.dedup();
    // A looser cut-off never asks for a nearer candidate.
    let mut farthest = 1.0_f32;
    let mut reach = Vec::with_capacity(probabilities.len());
    for probability in probabilities.into_iter().rev() {
        farthest = farthest.min(nearest_for(file, records, probability)?);
        reach.push(Reach {
            probability,
            similarity: farthest.max(file.least_similarity),
        });
    }
    Ok(reach)
}

/// Candidates that online learning would have labelled: with their log-odds.
fn rows_for_prior<'a>(
    scorer: &'a Scorer,
    records: &'a [&DecisionRecord],
) -> impl Iterator<Item = (crate::entry::EntryId, f64, bool)> + 'a {
    let mode = if scorer.has_full() {
        Mode::Cascade
    } else {
        Mode::Fast
    };
    records
        .iter()
        .flat_map(|record| &record.candidates)
        .filter_map(move |candidate| {
            let p = score(scorer, &candidate.evidence, mode).filter(|p| *p >= 0.2)?;
            Some((candidate.entry, log_odds(p), candidate.right?))
        })
}

fn add_categories(
    file: &mut PolicyFile,
    records: &[&DecisionRecord],
) -> Result<(), CalibrateError> {
    let scorer = Scorer::new(file)?;
    let mode = main_mode(file);
    let mut rows: BTreeMap<String, Vec<Labelled>> = BTreeMap::new();
    for record in records {
        let Some(name) = &record.category else {
            continue;
        };
        if let Some((candidate, p)) = best(&scorer, record, mode)
            && let Some(right) = candidate.right
        {
            rows.entry(name.clone()).or_default().push(Labelled {
                score: log_odds(p),
                right,
                weight: record.weight,
            });
        }
    }
    file.categories = rows
        .into_iter()
        .map(|(name, rows)| {
            let fit = CategoryFit {
                offset: platt::offset(&rows, CATEGORY_VARIANCE),
                cutoffs: Cutoffs::default(),
            };
            (name, fit)
        })
        .collect();
    Ok(())
}

fn main_mode(file: &PolicyFile) -> Mode {
    if file.stages.full.is_some() {
        Mode::Cascade
    } else {
        Mode::Fast
    }
}

/// Makes vetoes of the guards that the data proves: among candidates that would be served at the loosest
/// promise, those with the guard's conflict are surely right less often than the cut-off demands.
fn add_vetoes(
    file: &mut PolicyFile,
    records: &[&DecisionRecord],
    settings: &FitSettings,
    report: &mut FitReport,
) -> Result<(), CalibrateError> {
    let scorer = Scorer::new(file)?;
    let mode = main_mode(file);
    let cutoff = loosest_cutoff(&outcomes(&scorer, records, mode), settings);
    let served: Vec<&CandidateRecord> = records
        .iter()
        .filter_map(|record| best(&scorer, record, mode))
        .filter(|(_, p)| *p >= cutoff)
        .map(|(candidate, _)| candidate)
        .collect();
    let is_right = |candidate: &&&CandidateRecord| candidate.right == Some(true);
    let right = served.iter().filter(is_right).count();
    let share = |part: usize, whole: usize| part as f64 / whole.max(1) as f64;
    for kind in GuardKind::ALL {
        let fires: Vec<_> = served
            .iter()
            .filter(|candidate| candidate.evidence.guards.state(kind) == GuardState::Conflict)
            .collect();
        let fires_right = fires.iter().filter(|c| c.right == Some(true)).count();
        let at_most = upper_bound(fires_right as f64, fires.len() as f64, 0.95);
        let veto = at_most < cutoff;
        if veto {
            file.vetoes.push(kind.as_str().to_owned());
        }
        report.guards.push(GuardEarnings {
            guard: kind.as_str(),
            wrong_stopped: share(fires.len() - fires_right, served.len() - right),
            right_lost: share(fires_right, right),
            fires: fires.len() as u64,
            right: fires_right as u64,
            right_at_most: at_most,
            veto,
            most: None,
        });
    }
    Ok(())
}

/// Bounds what a guard's conflict leaves of a probability by what the labels show: what those of all guards together
/// show, within what those of the guard itself allow.
fn add_bounds(
    file: &mut PolicyFile,
    records: &[&DecisionRecord],
    settings: &FitSettings,
    report: &mut FitReport,
) -> Result<(), CalibrateError> {
    let scorer = Scorer::new(file)?;
    let mode = main_mode(file);
    let guards = || GuardKind::ALL.into_iter().filter(|kind| kind.is_veto());
    let conflicts: Vec<(GuardKind, Vec<(f64, bool)>)> = guards()
        .map(|kind| (kind, surest_conflicts(&scorer, records, kind, mode)))
        .collect();
    let confidence = 1.0 - (1.0 - settings.confidence) / SURE_FROM.len() as f64;
    let together = most_shown(conflicts.iter().flat_map(|(_, rows)| rows), confidence);
    for (kind, rows) in conflicts {
        let own = most_shown(&rows, confidence);
        let allowed = upper_bound(own.right as f64, own.of as f64, confidence);
        let own = GuardFit {
            most: together.most.clamp(own.most, allowed),
            ..own
        };
        // What more labels tell counts.
        let known = match &settings.models {
            Models::Keep(kept) => kept.guards.get(kind.as_str()).copied(),
            _ => None,
        };
        let Some(fit) = known.into_iter().chain([own]).max_by_key(|fit| fit.of) else {
            continue;
        };
        file.guards.insert(kind.as_str().to_owned(), fit);
        let rows = report.guards.iter_mut();
        for row in rows.filter(|row| row.guard == kind.as_str()) {
            row.most = Some(fit);
        }
    }
    Ok(())
}

/// The greatest lower bound of how often candidates of at least some probability were right.
fn most_shown<'a>(rows: impl IntoIterator<Item = &'a (f64, bool)>, confidence: f64) -> GuardFit {
    let rows: Vec<_> = rows.into_iter().collect();
    let fits = SURE_FROM.map(|from| {
        let sure = rows.iter().filter(|(p, _)| *p >= from);
        let right = sure.clone().filter(|(_, right)| *right).count() as u64;
        let of = sure.count() as u64;
        GuardFit {
            most: lower_bound(right as f64, of as f64, confidence),
            right,
            of,
        }
    });
    fits.into_iter().reduce(surer).unwrap_or(GuardFit {
        most: 0.0,
        right: 0,
        of: 0,
    })
}

fn surer(a: GuardFit, b: GuardFit) -> GuardFit {
    if b.most > a.most { b } else { a }
}

/// Of each decision the most probable candidate in which the guard finds a conflict, with its label.
fn surest_conflicts(
    scorer: &Scorer,
    records: &[&DecisionRecord],
    kind: GuardKind,
    mode: Mode,
) -> Vec<(f64, bool)> {
    let surest = |record: &&DecisionRecord| {
        record
            .candidates
            .iter()
            .filter(|candidate| candidate.evidence.guards.state(kind) == GuardState::Conflict)
            .filter_map(|candidate| {
                Some((score(scorer, &candidate.evidence, mode)?, candidate.right?))
            })
            .max_by(|a, b| a.0.total_cmp(&b.0))
    };
    records.iter().filter_map(surest).collect()
}

/// Every promise that is asked for.
fn promises(settings: &FitSettings) -> Vec<Promise> {
    let mut promises = Vec::new();
    for &rate in &settings.per_request {
        for confidence in [0.0, settings.confidence] {
            promises.push(Promise {
                bound: Bound::PerRequest,
                rate,
                confidence,
            });
        }
    }
    promises.extend(settings.per_hit.iter().map(|&rate| Promise {
        bound: Bound::PerHit,
        rate,
        confidence: settings.confidence,
    }));
    promises
}

fn certify_all(
    file: &mut PolicyFile,
    records: &[&DecisionRecord],
    settings: &FitSettings,
    report: &mut FitReport,
) -> Result<(), CalibrateError> {
    let scorer = Scorer::new(file)?;
    // What guards stop is a reserve. Spent on other matches, a promise would rest on how rare opposites were here.
    let unguarded = Scorer::new(&PolicyFile {
        guards: BTreeMap::new(),
        ..file.clone()
    })?;
    let modes: &[(Mode, &'static str)] = if file.stages.full.is_some() {
        &[(Mode::Cascade, "cascade"), (Mode::Fast, "fast")]
    } else {
        &[(Mode::Fast, "fast")]
    };
    for &(mode, stages) in modes {
        let both = |scorer: &Scorer| {
            let all = outcomes(scorer, records, mode);
            let by_name = by_category(records, &all);
            (all, by_name)
        };
        let (all, of_category) = both(&scorer);
        let (all_unguarded, unguarded_of_category) = both(&unguarded);
        for promise in promises(settings) {
            let mut note = |category: Option<&str>, outcomes: &[Outcome], unguarded: &[Outcome]| {
                let certified = certify(outcomes, promise).and_then(|cutoff| {
                    if promise.bound == Bound::PerHit {
                        return Ok(cutoff);
                    }
                    let strict = certify(unguarded, promise)?;
                    Ok(if strict.probability > cutoff.probability {
                        strict
                    } else {
                        cutoff
                    })
                });
                report.promises.push(PromiseReport {
                    stages,
                    category: category.map(str::to_owned),
                    bound: promise.bound,
                    rate: promise.rate,
                    confidence: promise.confidence,
                    cutoff: certified.ok(),
                    shortage: certified.err().map(|shortage| ShortageReport {
                        served: shortage.served,
                        wrong: shortage.wrong,
                        requests: shortage.requests,
                        missing: shortage.missing,
                    }),
                });
                certified.ok()
            };
            let common = note(None, &all, &all_unguarded);
            if let Some(cutoff) = common {
                list(&mut file.cutoffs, mode).push(cutoff);
            }
            for (name, fit) in &mut file.categories {
                let of = |outcomes: &HashMap<&str, Vec<Outcome>>| {
                    let own = outcomes.get(name.as_str());
                    own.cloned().unwrap_or_default()
                };
                let own = of(&of_category);
                if own.len() >= settings.category_requests
                    && let Some(cutoff) = note(Some(name), &own, &of(&unguarded_of_category))
                {
                    list(&mut fit.cutoffs, mode).push(cutoff);
                }
            }
        }
    }
    Ok(())
}

fn by_category<'a>(
    records: &[&'a DecisionRecord],
    outcomes: &[Outcome],
) -> HashMap<&'a str, Vec<Outcome>> {
    let mut by_category: HashMap<&str, Vec<Outcome>> = HashMap::new();
    for (record, outcome) in records.iter().zip(outcomes) {
        if let Some(name) = &record.category {
            by_category.entry(name).or_default().push(*outcome);
        }
    }
    by_category
}

fn list(cutoffs: &mut Cutoffs, mode: Mode) -> &mut Vec<crate::policy::Cutoff> {
    match mode {
        Mode::Cascade => &mut cutoffs.cascade,
        Mode::Fast => &mut cutoffs.fast,
    }
}

/// Reliability, the curve of precision over hit rate, categories, and shares of the stages.
fn measure(
    file: &PolicyFile,
    records: &[&DecisionRecord],
    report: &mut FitReport,
) -> Result<(), CalibrateError> {
    let scorer = Scorer::new(file)?;
    let mode = main_mode(file);
    let all = outcomes(&scorer, records, mode);
    let mut ranked: Vec<Outcome> = all
        .iter()
        .copied()
        .filter(|o| o.score.is_finite())
        .collect();
    ranked.sort_by(|a, b| b.score.total_cmp(&a.score));
    let requests = all.len().max(1) as f64;

    let mut bins = [(0.0, 0.0, 0.0); 10];
    for outcome in &ranked {
        let right = f64::from(u8::from(!outcome.wrong));
        let bin = &mut bins[((outcome.score * 10.0) as usize).min(9)];
        *bin = (bin.0 + outcome.score, bin.1 + right, bin.2 + 1.0);
        report.brier += (outcome.score - right).powi(2) / ranked.len() as f64;
    }
    report.reliability = bins
        .iter()
        .filter(|(.., count)| *count > 0.0)
        .map(|&(said, right, count)| ReliabilityBin {
            said: said / count,
            right: right / count,
            low: lower_bound(right, count, 0.975),
            high: upper_bound(right, count, 0.975),
            count: count as u64,
        })
        .collect();

    let (mut wrong, mut least) = (0.0, 1_usize);
    for (rank, outcome) in ranked.iter().enumerate() {
        wrong += f64::from(u8::from(outcome.wrong));
        let served = rank as f64 + 1.0;
        // The area is a sum over hits of the precision at each.
        report.area += (1.0 - wrong / served) / requests;
        if rank + 1 >= least || rank + 1 == ranked.len() {
            least = (rank + 1) + (rank + 1) / 20 + 1;
            report.curve.push(CurvePoint {
                probability: outcome.score,
                hit_rate: served / requests,
                precision: 1.0 - wrong / served,
                wrong_per_request: wrong / requests,
            });
        }
    }

    let cutoffs = match mode {
        Mode::Cascade => &file.cutoffs.cascade,
        Mode::Fast => &file.cutoffs.fast,
    };
    let cutoff = cutoffs
        .first()
        .map_or(f64::INFINITY, |cutoff| cutoff.probability);
    let mut names: BTreeMap<&str, (f64, f64, f64)> = BTreeMap::new();
    for (record, outcome) in records.iter().zip(&all) {
        let served = f64::from(u8::from(outcome.score >= cutoff));
        let sums = names
            .entry(record.category.as_deref().unwrap_or_default())
            .or_default();
        sums.0 += 1.0;
        sums.1 += served;
        sums.2 += served * f64::from(u8::from(outcome.wrong));
    }
    report.categories = names
        .into_iter()
        .map(|(name, (requests, served, wrong))| {
            let fit = file.categories.get(name);
            CategoryReport {
                name: name.to_owned(),
                requests: requests as u64,
                offset: fit.map_or(0.0, |fit| fit.offset),
                own_cutoffs: fit.is_some_and(|fit| fit.cutoffs != Cutoffs::default()),
                hit_rate: served / requests,
                wrong_per_request: wrong / requests,
            }
        })
        .collect();

    if let Some(band) = file.band {
        let fast: Vec<f64> = records
            .iter()
            .flat_map(|record| &record.candidates)
            .map(|candidate| scorer.fast(&candidate.evidence, 0.0).probability)
            .collect();
        let grey = fast.iter().filter(|p| (band.low..band.high).contains(p));
        report.refined = grey.count() as f64 / fast.len().max(1) as f64;
    }
    Ok(())
}
