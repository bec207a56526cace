//! Promises and what became of them: a cut-off chosen on one part of the data, judged on another.
//!
//! Each rate of wrong answers per request is promised twice. On average, by Conformal Risk Control
//! (A. Angelopoulos and others 2022): the loosest cut-off under which one more wrong answer in one more
//! request would still be within the promise. That holds on average over draws of the two parts, so about
//! half of all single runs lie a little above the promise. And at 95 %, by exact tests in a fixed sequence,
//! as the engine promises by default: one calibration in twenty may break it. The interval of what was
//! realised says whether a run lies too far above.

use askonce::calibrate::{self, Outcome};
use askonce::policy::Bound;
use serde::Serialize;

use super::replay::Call;
use super::score::{Counts, Figure, Operating};

/// Wrong answers per request that are promised.
pub(crate) const PROMISES: [f64; 4] = [0.005, 0.01, 0.02, 0.05];

/// How sure each is: 0 on average, 0.95 for 19 of 20 calibrations.
pub(crate) const CONFIDENCES: [f64; 2] = [0.0, 0.95];

/// One promise.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Promise {
    /// The promised rate of wrong answers per request.
    pub(crate) promised: f64,
    /// How sure the promise is; 0: it holds on average.
    pub(crate) confidence: f64,
    /// The cut-off that keeps it on the calibration part; `None` where none does, and nothing is served.
    pub(crate) cutoff: Option<f64>,
    /// Decisions of the calibration part.
    pub(crate) calibrated_on: usize,
    /// What was realised on the judged part.
    pub(crate) realised: Figure,
    /// Whether the promise lies below the interval of what was realised: it was broken for sure.
    pub(crate) broken: bool,
    /// Hits per request.
    pub(crate) hit_rate: Figure,
    /// Right hits per request with a right answer stored.
    pub(crate) true_hit_rate: Figure,
    /// What was served.
    pub(crate) counts: Counts,
}

/// Chooses a cut-off on `calibration` for each promise and judges it on `judged`.
pub(crate) fn promises(calibration: &[Call], judged: &[Call], seed: u64) -> Vec<Promise> {
    let one = |(promised, confidence)| {
        let cutoff = cutoff(calibration, promised, confidence);
        let figures = Operating::of(&at(judged, cutoff), seed);
        let realised = figures.wrong_per_request;
        Promise {
            promised,
            confidence,
            cutoff,
            calibrated_on: calibration.len(),
            realised,
            broken: realised
                .interval
                .is_some_and(|interval| interval.low > promised),
            hit_rate: figures.hit_rate,
            true_hit_rate: figures.true_hit_rate,
            counts: figures.counts,
        }
    };
    let all = CONFIDENCES
        .into_iter()
        .flat_map(|confidence| PROMISES.map(|promised| (promised, confidence)));
    all.map(one).collect()
}

/// The decisions as they would be with this cut-off on the score alone.
fn at(calls: &[Call], cutoff: Option<f64>) -> Vec<Call> {
    let served = |call: &Call| {
        let (score, right) = call.surest?;
        (score >= cutoff?).then_some(right)
    };
    let cut = |call: &Call| Call {
        served: served(call),
        ..*call
    };
    calls.iter().map(cut).collect()
}

/// The loosest cut-off that keeps the promise, so surely, over calibrations.
pub(crate) fn cutoff(calls: &[Call], promised: f64, confidence: f64) -> Option<f64> {
    let outcome = |call: &Call| Outcome {
        score: call.surest.map_or(f64::NEG_INFINITY, |(score, _)| score),
        wrong: call.surest.is_some_and(|(_, right)| !right),
        group: call.group,
    };
    let outcomes: Vec<Outcome> = calls.iter().map(outcome).collect();
    let promise = calibrate::Promise {
        bound: Bound::PerRequest,
        rate: promised,
        confidence,
    };
    let cutoff = calibrate::certify(&outcomes, promise).ok()?;
    Some(cutoff.probability)
}

#[cfg(test)]
mod tests {
    use super::super::seed::Rng;
    use super::*;

    /// Scores that mean what they say: of decisions scored `p`, a share of `p` is right.
    fn honest(n: u64, seed: u64) -> Vec<Call> {
        let mut rng = Rng::new(seed);
        (0..n)
            .map(|group| {
                let score = rng.unit();
                let right = rng.unit() < score;
                Call {
                    group,
                    answerable: right,
                    surest: Some((score, right)),
                    served: None,
                    refined: false,
                }
            })
            .collect()
    }

    #[test]
    fn promises_hold_on_average() {
        for promised in PROMISES {
            let runs = 60;
            let realised: f64 = (0..runs)
                .map(|seed| {
                    let cutoff = cutoff(&honest(1_000, seed), promised, 0.0);
                    let judged = at(&honest(1_000, seed + 1_000), cutoff);
                    Counts::of(&judged).wrong_per_request().unwrap()
                })
                .sum();
            let mean = realised / runs as f64;
            assert!(mean <= promised * 1.15, "{promised}: {mean}");
            assert!(mean >= promised * 0.5, "{promised}: {mean}");
        }
    }

    #[test]
    fn a_sure_promise_is_broken_by_one_calibration_in_twenty_at_most() {
        let runs = 200;
        let mut broken = 0;
        for seed in 0..runs {
            let cutoff = cutoff(&honest(1_000, seed), 0.05, 0.95);
            // Of these many the rate is known well.
            let judged = at(&honest(20_000, seed + 1_000), cutoff);
            broken += u32::from(Counts::of(&judged).wrong_per_request() > Some(0.051));
        }
        assert!(broken <= 16, "{broken} of {runs}");
    }

    #[test]
    fn too_little_data_promises_nothing() {
        assert_eq!(cutoff(&honest(98, 1), 0.01, 0.0), None);
        assert_eq!(cutoff(&honest(298, 1), 0.01, 0.95), None);
        let promises = promises(&honest(50, 1), &honest(500, 2), 1);
        assert_eq!(promises[0].cutoff, None);
        assert_eq!(promises[0].hit_rate.value, Some(0.0));
        assert!(!promises[0].broken);
    }

    #[test]
    fn a_score_that_turned_worse_breaks_its_promise_and_it_shows() {
        let mut worse = honest(4_000, 3);
        for call in &mut worse {
            call.surest = call.surest.map(|(score, _)| (score, false));
        }
        let promises = promises(&honest(4_000, 4), &worse, 1);
        assert!(promises.iter().all(|promise| promise.broken));
    }
}
