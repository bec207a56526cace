//! Serve when it is worth it: expected utility with a floor.
//!
//! With p the probability that the stored answer is right, S what a right hit saves, L what a wrong
//! one costs, a candidate is served when
//!
//! ```text
//! p * S  -  (1 - p) * L  >  0        and        p >= floor
//! ```
//!
//! S is the price of the upstream call plus the value of the time it takes. L is dollars, or a
//! multiple of the *typical* saving of a hit in this cache. With L = 20 x the typical saving, a
//! typical answer is served from p = 0.952 up, a cheap one later, an expensive one earlier; the floor
//! stops very expensive answers from buying junk. When S or the typical saving is unknown, S is taken
//! as typical.
//!
//! The formula replaces the weighted sum of similarity and dollars that the reference system used,
//! under which any similarity was good enough once a call cost more than a few dollars.

use std::cmp::Ordering;

use super::utility::Utility;
use super::{
    Decision, Evidence, HitPolicy, PassReason, SimilarityCurve, WrongAnswerCost, out_of_range,
};
use crate::error::Result;

/// Serves when the expected gain is positive. See the module documentation.
#[derive(Clone, Debug)]
pub struct CostAware {
    curve: SimilarityCurve,
    utility: Utility,
    floor: f64,
    guards: bool,
}

impl CostAware {
    /// The policy with a floor of 0.8, no value for time, the built-in curve, and guards respected.
    #[must_use]
    pub fn new(cost: WrongAnswerCost) -> Self {
        Self {
            curve: SimilarityCurve::default(),
            utility: Utility::new(cost),
            floor: 0.8,
            guards: true,
        }
    }

    /// Whether a guard's conflict is a pass.
    #[must_use]
    pub fn guards(mut self, guards: bool) -> Self {
        self.guards = guards;
        self
    }

    /// The curve from similarity to probability.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) when the curve does not rise.
    pub fn curve(mut self, curve: SimilarityCurve) -> Result<Self> {
        self.curve = curve.checked()?;
        Ok(self)
    }

    /// Least probability at which anything is served.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) when `floor` is not between 0.5 and 1.
    pub fn floor(mut self, floor: f64) -> Result<Self> {
        if !(0.5..=1.0).contains(&floor) {
            return Err(out_of_range(floor, "0.5 to 1"));
        }
        self.floor = floor;
        Ok(self)
    }

    /// What a second of waiting is worth, in dollars.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) when the value is negative or not finite.
    pub fn usd_per_second(mut self, usd: f64) -> Result<Self> {
        self.utility = self.utility.usd_per_second(usd)?;
        Ok(self)
    }
}

impl HitPolicy for CostAware {
    fn name(&self) -> &'static str {
        "cost_aware"
    }

    fn decide(&self, evidence: &Evidence) -> Decision {
        let p = self.curve.probability(evidence.similarity) * evidence.freshness();
        let pass = |reason| Decision::Pass {
            reason,
            probability: Some(p),
        };
        // A comparison with no outcome, of a similarity that is no number, is a pass.
        if p.partial_cmp(&self.floor).is_none_or(Ordering::is_lt) {
            return pass(PassReason::BelowFloor);
        }
        if let Some(guard) = evidence.guards.conflict().filter(|_| self.guards) {
            return pass(PassReason::Guard(guard));
        }
        let gain = self.utility.gain(p, evidence);
        if gain.partial_cmp(&0.0).is_none_or(Ordering::is_le) {
            return pass(PassReason::NotWorthTheRisk);
        }
        Decision::Serve {
            probability: Some(p),
            utility: gain,
        }
    }

    fn calibrated_for(&self) -> &[String] {
        self.curve.fingerprint.as_slice()
    }

    fn may_refine(&self) -> bool {
        false
    }

    fn least_similarity(&self) -> f32 {
        // A hair below, so that rounding never hides a candidate that the floor would let through.
        self.curve.similarity_at(self.floor) - 1e-4
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn serves(policy: &CostAware, evidence: &Evidence) -> bool {
        matches!(policy.decide(evidence), Decision::Serve { .. })
    }

    /// A candidate that is right with probability `p` under the default curve.
    fn evidence(p: f64, saving: f64, typical: f64) -> Evidence {
        Evidence {
            saving_usd: Some(saving),
            typical_saving_usd: Some(typical),
            ..Evidence::similarity(SimilarityCurve::default().similarity_at(p))
        }
    }

    #[test]
    fn a_typical_answer_is_served_from_twenty_to_one_on() {
        let policy = CostAware::new(WrongAnswerCost::default());
        assert!(!serves(&policy, &evidence(0.95, 0.01, 0.01)));
        assert!(serves(&policy, &evidence(0.955, 0.01, 0.01)));
    }

    #[test]
    fn what_goes_wrong_with_age_is_served_while_it_is_young() {
        let policy = CostAware::new(WrongAnswerCost::default());
        let aged = |days: u64, hazard_per_day: f32| Evidence {
            age: std::time::Duration::from_secs(days * 86_400),
            hazard_per_day,
            ..evidence(0.98, 0.01, 0.01)
        };
        assert!(serves(&policy, &aged(1, 0.01)));
        assert!(!serves(&policy, &aged(10, 0.01)));
        assert!(serves(&policy, &aged(1_000, 0.0)));
    }

    #[test]
    fn w_31_no_price_buys_an_answer_below_the_floor() {
        let policy = CostAware::new(WrongAnswerCost::default());
        assert!(serves(&policy, &evidence(0.85, 1.0, 0.01)));
        assert!(!serves(&policy, &evidence(0.79, 1e9, 0.01)));
    }

    #[test]
    fn a_cheap_answer_needs_more_certainty_than_a_typical_one() {
        let policy = CostAware::new(WrongAnswerCost::default());
        assert!(!serves(&policy, &evidence(0.96, 0.001, 0.01)));
    }

    #[test]
    fn an_unpriced_model_is_judged_as_a_typical_one() {
        let policy = CostAware::new(WrongAnswerCost::default());
        let curve = SimilarityCurve::default();
        assert!(serves(
            &policy,
            &Evidence::similarity(curve.similarity_at(0.96))
        ));
        assert!(!serves(
            &policy,
            &Evidence::similarity(curve.similarity_at(0.94))
        ));
    }

    #[test]
    fn a_cost_in_dollars_with_nothing_to_save_serves_nothing() {
        let policy = CostAware::new(WrongAnswerCost::Usd(0.05));
        assert!(!serves(&policy, &Evidence::similarity(1.0)));
    }

    proptest! {
        #[test]
        fn raising_the_similarity_never_turns_a_serve_into_a_pass(
            low in -1.0_f32..=1.0, high in -1.0_f32..=1.0, saving in 0.0_f64..10.0, typical in 0.0_f64..10.0,
        ) {
            let (low, high) = if low <= high { (low, high) } else { (high, low) };
            let policy = CostAware::new(WrongAnswerCost::default());
            let at = |similarity| Evidence {
                saving_usd: Some(saving),
                typical_saving_usd: Some(typical),
                ..Evidence::similarity(similarity)
            };
            prop_assert!(!serves(&policy, &at(low)) || serves(&policy, &at(high)));
        }

        #[test]
        fn nothing_below_the_least_similarity_is_served(similarity in -1.0_f32..=1.0, saving in 0.0_f64..1e9) {
            let policy = CostAware::new(WrongAnswerCost::default());
            let evidence = Evidence { saving_usd: Some(saving), ..Evidence::similarity(similarity) };
            prop_assert!(!serves(&policy, &evidence) || similarity >= policy.least_similarity());
        }
    }
}
