//! What was decided of one request, as a record: logged, labelled, replayed under other settings, and
//! learnt from.
//!
//! A record holds the evidence of every candidate, and no text. Labels come later, or never: a record
//! with labels is what calibration fits on and what a benchmark counts.

use serde::{Deserialize, Serialize};

use crate::entry::EntryId;
use crate::policy::Evidence;

/// One decision: the candidates in the order of their similarity, and what became of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DecisionRecord {
    /// When, in milliseconds since 1970; in made-up streams, the number of the request.
    pub at: u64,
    /// What belongs together: records of one group are never split between fitting and testing. The
    /// component of the labelled data; in a log, a digest of what the query is compared with.
    pub group: u64,
    /// Where the record comes from: the name of a data set; `None` in a log.
    pub set: Option<String>,
    /// The kind of traffic, by name; `None` for the default kind.
    pub category: Option<String>,
    /// The policy that decided.
    pub policy: String,
    /// Embedding spaces of [`Evidence::similarity`] and [`Evidence::refined`].
    pub spaces: Vec<String>,
    /// The candidates, most similar first.
    pub candidates: Vec<CandidateRecord>,
    /// The entry that was served by similarity.
    pub served: Option<EntryId>,
    /// What a verifier said of candidates that the policy did not serve.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub verified: Vec<VerifiedRecord>,
    /// Whether a right answer was stored; `None` where nobody knows.
    pub answerable: Option<bool>,
    /// How many decisions this one stands for: one over the probability with which its labels were asked
    /// for. 1 where all are labelled.
    pub weight: f64,
}

impl Default for DecisionRecord {
    /// No candidates, and it stands for itself alone.
    fn default() -> Self {
        Self {
            at: 0,
            group: 0,
            set: None,
            category: None,
            policy: String::new(),
            spaces: Vec::new(),
            candidates: Vec::new(),
            served: None,
            verified: Vec::new(),
            answerable: None,
            weight: 1.0,
        }
    }
}

/// What a verifier said of one candidate of a [`DecisionRecord`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct VerifiedRecord {
    /// The candidate's entry.
    pub entry: EntryId,
    /// The verifier's estimate that its answer is right for the query.
    pub probability: f64,
}

/// One candidate of a [`DecisionRecord`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct CandidateRecord {
    /// The entry.
    pub entry: EntryId,
    /// What the policy was told.
    pub evidence: Evidence,
    /// Whether its answer is right for the query; `None` while nobody knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub right: Option<bool>,
}
