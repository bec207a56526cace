//! The policy that decides now, which may be put aside for another while lookups go on.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::{Decision, Evidence, PolicyHandle};

/// Holds the policy of a running cache. Reading takes no lock; a lookup that has begun may see both.
pub(crate) struct PolicySlot(ArcSwap<PolicyHandle>);

impl PolicySlot {
    pub(crate) fn new(policy: PolicyHandle) -> Self {
        Self(ArcSwap::from_pointee(policy))
    }

    /// The policy that decides now.
    pub(crate) fn current(&self) -> PolicyHandle {
        PolicyHandle::clone(&self.0.load())
    }

    /// Puts `policy` in and returns the one before.
    pub(crate) fn replace(&self, policy: PolicyHandle) -> PolicyHandle {
        PolicyHandle::clone(&self.0.swap(Arc::new(policy)))
    }

    /// As [`HitPolicy::name`](super::HitPolicy::name).
    pub(crate) fn name(&self) -> &'static str {
        self.0.load().name()
    }

    /// As [`HitPolicy::decide`](super::HitPolicy::decide).
    pub(crate) fn decide(&self, evidence: &Evidence) -> Decision {
        self.0.load().decide(evidence)
    }

    /// As [`HitPolicy::may_refine`](super::HitPolicy::may_refine).
    pub(crate) fn may_refine(&self) -> bool {
        self.0.load().may_refine()
    }

    /// As [`HitPolicy::least_similarity`](super::HitPolicy::least_similarity).
    pub(crate) fn least_similarity(&self) -> f32 {
        self.0.load().least_similarity()
    }
}

impl fmt::Debug for PolicySlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PolicySlot").field(&self.current()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{ExactOnly, Threshold};

    #[test]
    fn a_replaced_policy_decides_from_then_on() {
        let slot = PolicySlot::new(Arc::new(Threshold::new(0.9).unwrap()));
        let near = Evidence::similarity(0.95);
        assert!(matches!(slot.decide(&near), Decision::Serve { .. }));
        let before = slot.replace(Arc::new(ExactOnly));
        assert_eq!(before.name(), "threshold");
        assert_eq!(slot.name(), "exact_only");
        assert!(matches!(slot.decide(&near), Decision::Pass { .. }));
    }
}
