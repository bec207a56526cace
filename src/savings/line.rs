//! The figures of the ledger: one line, and what adds up to it.
//!
//! Everything here is a sum that starts at zero. Counts and tokens saturate, money is exact, so
//! adding lines is associative and commutative: a total does not depend on how its parts were
//! grouped. Time is kept in whole milliseconds for the same reason.

use std::ops::AddAssign;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Usage, Usd};

/// What one hit saved: the call that was not made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Saved {
    /// The tokens that call would have used.
    pub usage: Usage,
    /// What it would have cost, or `None` for a model without a price.
    pub usd: Option<Usd>,
    /// How much longer it would have taken than the hit.
    pub duration: Duration,
}

/// The kinds of hit that are counted apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HitKindLabel {
    /// The same request was answered before.
    Exact,
    /// A similar request was answered before.
    Semantic,
}

impl HitKindLabel {
    /// The stable, lower-case name used in metrics and JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Semantic => "semantic",
        }
    }
}

/// What the cache spends money on, apart from the calls it could not avoid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CostKind {
    /// Embedding requests at a paid provider.
    Embedding,
    /// A paid model asked whether a candidate answers the question.
    Verification,
    /// A paid model asked whether two answers say the same.
    Judge,
    /// Upstream calls made beside a hit to measure how often hits are wrong.
    Shadow,
    /// The price that the policy's settings put on a wrong answer, for hits that were found wrong; beyond the
    /// saving withdrawn.
    WrongHit,
}

impl CostKind {
    /// Every kind.
    pub const ALL: [Self; 5] = [
        Self::Embedding,
        Self::Verification,
        Self::Judge,
        Self::Shadow,
        Self::WrongHit,
    ];

    /// The stable, lower-case name used in metrics and JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Embedding => "embedding",
            Self::Verification => "verification",
            Self::Judge => "judge",
            Self::Shadow => "shadow",
            Self::WrongHit => "wrong_hit",
        }
    }
}

/// Tokens, money and time added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tally {
    /// Tokens.
    #[serde(flatten)]
    pub usage: Usage,
    /// Money, as far as models had a price.
    pub usd: Usd,
    /// Time, in milliseconds.
    pub millis: u64,
}

impl Tally {
    pub(super) fn new(usage: Usage, usd: Option<Usd>, duration: Duration) -> Self {
        Self {
            usage,
            usd: usd.unwrap_or_default(),
            millis: u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// The time as a duration.
    #[must_use]
    pub const fn duration(&self) -> Duration {
        Duration::from_millis(self.millis)
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.usage += other.usage;
        self.usd += other.usd;
        self.millis = self.millis.saturating_add(other.millis);
    }
}

/// One line of the books.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Line {
    /// Hits on the same request.
    pub hits_exact: u64,
    /// Hits on a similar request.
    pub hits_semantic: u64,
    /// Hits reported wrong afterwards; they are among the hits too.
    pub hits_wrong: u64,
    /// Calls that went upstream.
    pub calls: u64,
    /// Hits and calls of models without a price: their tokens are in, their money is not.
    pub unpriced: u64,
    /// What hits claimed to save.
    pub saved: Tally,
    /// What of it was taken back because the hit was wrong.
    pub withdrawn: Tally,
    /// What upstream calls took.
    pub spent: Tally,
}

impl Line {
    /// All hits, wrong ones included.
    #[must_use]
    pub const fn hits(&self) -> u64 {
        self.hits_exact.saturating_add(self.hits_semantic)
    }

    /// Hits among hits and calls, from 0 to 1; 0 before there were any.
    #[must_use]
    pub fn hit_rate(&self) -> f64 {
        match self.hits().saturating_add(self.calls) {
            0 => 0.0,
            all => self.hits() as f64 / all as f64,
        }
    }

    /// What right hits saved, before the cache's own cost.
    #[must_use]
    pub fn net_usd(&self) -> Usd {
        self.saved.usd - self.withdrawn.usd
    }

    /// The tokens that right hits saved.
    #[must_use]
    pub const fn net_tokens(&self) -> u64 {
        self.saved
            .usage
            .total()
            .saturating_sub(self.withdrawn.usage.total())
    }

    /// The time that right hits saved.
    #[must_use]
    pub const fn net_duration(&self) -> Duration {
        Duration::from_millis(self.saved.millis.saturating_sub(self.withdrawn.millis))
    }
}

impl AddAssign for Line {
    fn add_assign(&mut self, other: Self) {
        self.hits_exact = self.hits_exact.saturating_add(other.hits_exact);
        self.hits_semantic = self.hits_semantic.saturating_add(other.hits_semantic);
        self.hits_wrong = self.hits_wrong.saturating_add(other.hits_wrong);
        self.calls = self.calls.saturating_add(other.calls);
        self.unpriced = self.unpriced.saturating_add(other.unpriced);
        self.saved += other.saved;
        self.withdrawn += other.withdrawn;
        self.spent += other.spent;
    }
}

/// The cache's own cost, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Costs {
    /// See [`CostKind::Embedding`].
    pub embedding: Usd,
    /// See [`CostKind::Verification`].
    pub verification: Usd,
    /// See [`CostKind::Judge`].
    pub judge: Usd,
    /// See [`CostKind::Shadow`].
    pub shadow: Usd,
    /// See [`CostKind::WrongHit`].
    pub wrong_hit: Usd,
}

impl Costs {
    /// The cost of one kind.
    #[must_use]
    pub const fn of(&self, kind: CostKind) -> Usd {
        match kind {
            CostKind::Embedding => self.embedding,
            CostKind::Verification => self.verification,
            CostKind::Judge => self.judge,
            CostKind::Shadow => self.shadow,
            CostKind::WrongHit => self.wrong_hit,
        }
    }

    /// The cost of all kinds.
    #[must_use]
    pub fn total(&self) -> Usd {
        CostKind::ALL.into_iter().map(|kind| self.of(kind)).sum()
    }

    pub(super) fn of_mut(&mut self, kind: CostKind) -> &mut Usd {
        match kind {
            CostKind::Embedding => &mut self.embedding,
            CostKind::Verification => &mut self.verification,
            CostKind::Judge => &mut self.judge,
            CostKind::Shadow => &mut self.shadow,
            CostKind::WrongHit => &mut self.wrong_hit,
        }
    }
}

impl AddAssign for Costs {
    fn add_assign(&mut self, other: Self) {
        for kind in CostKind::ALL {
            *self.of_mut(kind) += other.of(kind);
        }
    }
}
