//! What callers get back: a hit, a miss with its reasons, a served answer, a store that was or was not
//! made.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::admit::Refused;
use crate::clock::Timestamp;
use crate::embed::Unrefined;
use crate::entry::{Answer, EntryId};
use crate::policy::PassReason;
use crate::request::{BypassReason, IneligibleReason, VolatileReason};
use crate::savings::Saved;
use crate::stampede::Flight;
use crate::verify::Unverified;

/// The result of a lookup.
#[derive(Clone, Debug)]
#[must_use]
pub enum Outcome {
    /// A stored answer may be given.
    Hit(Hit),
    /// None may.
    Miss(Miss),
}

impl Outcome {
    /// The hit, if it is one.
    #[must_use]
    pub fn hit(self) -> Option<Hit> {
        match self {
            Self::Hit(hit) => Some(hit),
            Self::Miss(_) => None,
        }
    }

    /// The miss, if it is one.
    #[must_use]
    pub fn miss(self) -> Option<Miss> {
        match self {
            Self::Hit(_) => None,
            Self::Miss(miss) => Some(miss),
        }
    }

    /// Whether it is a hit.
    #[must_use]
    pub fn is_hit(&self) -> bool {
        matches!(self, Self::Hit(_))
    }
}

/// A stored answer that may be given.
#[derive(Clone, Debug)]
pub struct Hit {
    /// The answer.
    pub answer: Answer,
    /// How the entry was found.
    pub kind: HitKind,
    /// The entry that holds it.
    pub entry: EntryId,
    /// How long ago it was stored.
    pub age: Duration,
    /// How long it will live on; `None`: without end.
    pub ttl: Option<Duration>,
    /// What the upstream call would have taken.
    pub saved: Saved,
}

/// How a hit was found.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum HitKind {
    /// The same request was answered before.
    Exact {
        /// Name of the tier that held the answer.
        tier: Arc<str>,
    },
    /// A similar request was answered before.
    Semantic {
        /// Cosine of the two texts' embeddings.
        similarity: f32,
        /// The policy's estimate that the answer is right; `None` when it has none.
        probability: Option<f64>,
        /// The estimate of the verifier, where the policy had passed and the verifier had not.
        #[serde(skip_serializing_if = "Option::is_none")]
        verified: Option<f64>,
    },
}

impl HitKind {
    /// The policy's estimate that the answer is right, of a hit by similarity.
    pub(super) const fn probability(&self) -> Option<f64> {
        match self {
            Self::Exact { .. } => None,
            Self::Semantic { probability, .. } => *probability,
        }
    }

    /// The stable name used in metrics and headers.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Exact { .. } => "exact",
            Self::Semantic { .. } => "semantic",
        }
    }
}

/// No stored answer may be given.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Miss {
    /// Why, the decisive reason first; never empty.
    pub reasons: Vec<MissReason>,
    /// The most similar entry that was looked at, and what stopped it. Entries whose similarity is more than
    /// 0.15 below the least that could be served are not looked at; they are if the request is
    /// [explained](super::SemanticCache::explain).
    pub nearest: Option<Nearest>,
}

impl Miss {
    /// The decisive reason.
    #[must_use]
    pub fn reason(&self) -> MissReason {
        self.reasons
            .first()
            .copied()
            .unwrap_or(MissReason::NotFound)
    }
}

/// An entry that was close but not served.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Nearest {
    /// The entry.
    pub entry: EntryId,
    /// Cosine of the two texts' embeddings.
    pub similarity: f32,
    /// The policy's estimate that its answer would have been right.
    pub probability: Option<f64>,
    /// What stopped it.
    pub stopped_by: MissReason,
}

/// Why a lookup missed. Every reason has a stable name, which is its metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MissReason {
    /// The cache is switched off by config.
    Disabled,
    /// Nothing similar is stored.
    NotFound,
    /// No stored answer can stand for the call.
    NotCacheable(BypassReason),
    /// The request can only match exactly.
    Ineligible(IneligibleReason),
    /// The right answer changes with time, so only the same request matches, and not for long.
    Volatile(VolatileReason),
    /// Similarity is switched off, by config or for this lookup.
    SimilarityOff,
    /// The policy passed on the candidate.
    Policy(PassReason),
    /// A caller reported this entry as wrong for this query, or two did for any query.
    ReportedWrong,
    /// Too few principals have asked for exactly this to give the answer to another, by
    /// [`min_principals`](crate::admit::AdmissionConfig::min_principals).
    TooFewPrincipals,
    /// Too many hits of this category were wrong: nothing is served by similarity until the breaker is
    /// [reset](super::SemanticCache::reset_breaker).
    BreakerOpen,
    /// The candidate expired, was evicted or was invalidated.
    Gone,
    /// The entry was stored before something that it depends on was invalidated, by whatever process.
    Invalidated,
    /// Whether the entry was invalidated could not be read.
    GenerationUnavailable,
    /// The candidate turned out to belong elsewhere: a stale index row. It is never served.
    IdentityMismatch,
    /// The answer is older than the caller accepts.
    TooOld,
    /// The caller asked not to be served from the cache.
    Bypassed,
    /// A tier failed.
    TierUnavailable,
    /// A tier held bytes that are not a usable entry.
    TierCorrupt,
    /// The text has no embedding: no known token in it, or too long.
    NotEmbeddable,
    /// The embedding model failed.
    EmbeddingFailed,
    /// The embedding model did not answer in time.
    EmbeddingTimeout,
    /// The vector index failed.
    IndexFailed,
    /// The policy was in doubt, and the second embedding could not be had.
    NotRefined(Unrefined),
    /// The policy nearly served it, and the verifier found it wrong.
    VerifierRefused,
    /// The policy nearly served something, and the verifier said nothing of it.
    NotVerified(Unverified),
}

impl MissReason {
    /// The stable name used in metrics, headers and reports.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Disabled => "disabled",
            Self::NotFound => "not_found",
            Self::NotCacheable(reason) => reason.as_str(),
            Self::Ineligible(reason) => reason.as_str(),
            Self::Volatile(_) => "volatile",
            Self::SimilarityOff => "similarity_off",
            Self::Policy(reason) => reason.as_str(),
            Self::ReportedWrong => "reported_wrong",
            Self::TooFewPrincipals => "too_few_principals",
            Self::BreakerOpen => "breaker_open",
            Self::Gone => "gone",
            Self::Invalidated => "invalidated",
            Self::GenerationUnavailable => "generation_unavailable",
            Self::IdentityMismatch => "identity_mismatch",
            Self::TooOld => "too_old",
            Self::Bypassed => "bypassed",
            Self::TierUnavailable => "tier_unavailable",
            Self::TierCorrupt => "tier_corrupt",
            Self::NotEmbeddable => "not_embeddable",
            Self::EmbeddingFailed => "embedding_failed",
            Self::EmbeddingTimeout => "embedding_timeout",
            Self::IndexFailed => "index_failed",
            Self::NotRefined(Unrefined::NotEmbeddable) => "refine_not_embeddable",
            Self::NotRefined(Unrefined::Busy) => "refine_busy",
            Self::NotRefined(Unrefined::Timeout) => "refine_timeout",
            Self::NotRefined(Unrefined::Failed) => "refine_failed",
            Self::NotRefined(Unrefined::Resting) => "refine_resting",
            Self::VerifierRefused => "verifier_refused",
            Self::NotVerified(Unverified::Busy) => "verify_busy",
            Self::NotVerified(Unverified::OverBudget) => "verify_over_budget",
            Self::NotVerified(Unverified::Timeout) => "verify_timeout",
            Self::NotVerified(Unverified::Failed) => "verify_failed",
        }
    }
}

impl fmt::Display for MissReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for MissReason {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// An answer that was given, from the cache or from upstream.
#[derive(Clone, Debug)]
pub struct Served {
    /// The answer.
    pub answer: Answer,
    /// Where it came from.
    pub source: Source,
}

/// Where a served answer came from.
#[derive(Clone, Debug)]
pub enum Source {
    /// From the cache.
    Cache(Hit),
    /// From upstream.
    Upstream {
        /// Why the cache had none.
        miss: Miss,
        /// Whether this caller's own call ran, or another's for the same request.
        flight: Flight,
        /// What became of the answer.
        stored: StoreOutcome,
    },
}

impl Source {
    /// The hit, when the answer came from the cache.
    #[must_use]
    pub fn hit(&self) -> Option<&Hit> {
        match self {
            Self::Cache(hit) => Some(hit),
            Self::Upstream { .. } => None,
        }
    }
}

/// What became of an answer that was offered to the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum StoreOutcome {
    /// It is stored and will be found.
    Stored {
        /// Its entry.
        entry: EntryId,
        /// From when on it is dead; `None`: it lives without end.
        expires: Option<Timestamp>,
    },
    /// It is not stored.
    NotStored {
        /// Why.
        reason: NotStored,
    },
}

impl StoreOutcome {
    /// The entry, when the answer was stored.
    #[must_use]
    pub fn entry(&self) -> Option<EntryId> {
        match self {
            Self::Stored { entry, .. } => Some(*entry),
            Self::NotStored { .. } => None,
        }
    }
}

/// Why an answer was not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NotStored {
    /// The cache is switched off by config.
    Disabled,
    /// No stored answer can stand for the call.
    NotCacheable,
    /// The answer is empty.
    EmptyAnswer,
    /// The rules of [admission](crate::admit) refuse it.
    Refused(Refused),
    /// The right answer changes with time, and config says not to keep such answers.
    Volatile,
    /// The caller said that this answer must not be kept.
    Declined,
    /// What the answer was made from was invalidated while it was being made.
    Invalidated,
    /// It is larger than a tier can hold.
    TooLarge,
    /// A tier failed.
    TierUnavailable,
    /// Its time to live is zero.
    NoLife,
}

impl NotStored {
    /// The stable name used in metrics and headers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Disabled => "disabled",
            Self::NotCacheable => "not_cacheable",
            Self::EmptyAnswer => "empty_answer",
            Self::Refused(refused) => refused.as_str(),
            Self::Volatile => "volatile",
            Self::Declined => "declined",
            Self::Invalidated => "invalidated",
            Self::TooLarge => "too_large",
            Self::TierUnavailable => "tier_unavailable",
            Self::NoLife => "no_life",
        }
    }
}

impl From<Refused> for NotStored {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::EmptyAnswer => Self::EmptyAnswer,
            refused => Self::Refused(refused),
        }
    }
}

impl Serialize for NotStored {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}
