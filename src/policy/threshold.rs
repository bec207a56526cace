//! One number for everything: the rule that most semantic caches use.
//!
//! Its weakness is known and measured: the same similarity means less in a fuller cache, so the share
//! of wrong hits grows with the cache. It is here to compare with, and for traffic whose owner has
//! measured the number.

use std::cmp::Ordering;

use super::{Decision, Evidence, HitPolicy, PassReason, out_of_range};
use crate::error::Result;

/// Serves a candidate whose similarity reaches a fixed number.
#[derive(Clone, Copy, Debug)]
pub struct Threshold {
    threshold: f32,
    guards: bool,
}

impl Threshold {
    /// A policy that serves at `threshold` and above, and respects guards.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) when `threshold` is not between 0 and 1.
    ///
    /// ```
    /// use askonce::policy::Threshold;
    ///
    /// assert!(Threshold::new(0.95).is_ok());
    /// assert!(Threshold::new(1.7).is_err());
    /// ```
    pub fn new(threshold: f64) -> Result<Self> {
        if !(0.0..=1.0).contains(&threshold) {
            return Err(out_of_range(threshold, "0 to 1"));
        }
        Ok(Self {
            threshold: threshold as f32,
            guards: true,
        })
    }

    /// Whether a guard's conflict is a pass.
    #[must_use]
    pub fn guards(mut self, guards: bool) -> Self {
        self.guards = guards;
        self
    }
}

impl HitPolicy for Threshold {
    fn name(&self) -> &'static str {
        "threshold"
    }

    fn decide(&self, evidence: &Evidence) -> Decision {
        let pass = |reason| Decision::Pass {
            reason,
            probability: None,
        };
        // A similarity that is no number has no order, and is a pass.
        let order = evidence.similarity.partial_cmp(&self.threshold);
        if order.is_none_or(Ordering::is_lt) {
            return pass(PassReason::BelowThreshold);
        }
        match evidence.guards.conflict().filter(|_| self.guards) {
            Some(guard) => pass(PassReason::Guard(guard)),
            None => Decision::Serve {
                probability: None,
                utility: f64::from(evidence.similarity),
            },
        }
    }

    fn may_refine(&self) -> bool {
        false
    }

    fn least_similarity(&self) -> f32 {
        self.threshold
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::policy::GuardReport;

    fn serves(threshold: f64, similarity: f32) -> bool {
        let policy = Threshold::new(threshold).unwrap();
        matches!(
            policy.decide(&Evidence::similarity(similarity)),
            Decision::Serve { .. }
        )
    }

    #[test]
    fn a_similarity_that_is_no_number_is_never_served() {
        assert!(!serves(0.0, f32::NAN));
    }

    #[test]
    fn a_conflict_is_a_pass_that_names_the_guard() {
        let guards = GuardReport::compare("eat meat", "do not eat meat");
        let evidence = Evidence {
            guards,
            ..Evidence::similarity(0.99)
        };
        let policy = Threshold::new(0.9).unwrap();
        assert!(matches!(
            policy.decide(&evidence),
            Decision::Pass {
                reason: PassReason::Guard(crate::policy::GuardKind::Negation),
                ..
            }
        ));
        assert!(matches!(
            policy.guards(false).decide(&evidence),
            Decision::Serve { .. }
        ));
    }

    proptest! {
        #[test]
        fn raising_the_threshold_never_turns_a_pass_into_a_serve(
            low in 0.0_f64..=1.0, high in 0.0_f64..=1.0, similarity in -1.0_f32..=1.0,
        ) {
            let (low, high) = if low <= high { (low, high) } else { (high, low) };
            prop_assert!(!serves(high, similarity) || serves(low, similarity));
        }
    }
}
