//! What a policy may know of one candidate.
//!
//! Three kinds of evidence meet here: how near the two texts are in an embedding space and how near
//! others are ([`Evidence`]'s own fields), what their words show ([`TextFeatures`], and the
//! [`guard`]s, which speak against a match), and what became of the entry before ([`EntryRecord`]).
//! None of it holds text, so evidence can be logged, replayed and learnt from.
//!
//! What words show of one text is worked out once, as [`TextTraits`]: at insert for an entry, once per
//! lookup for a query.

pub mod guard;
mod lexicon;
mod reading;
mod text;
mod wording;

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use guard::{GuardKind, GuardReport, GuardState};
pub use text::{TextComparison, TextFeatures, TextTraits};

/// Everything that speaks for or against answering a query with one stored entry. Free of text, so
/// that it can be logged and replayed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Evidence {
    /// Cosine of the two embeddings, -1 to 1.
    pub similarity: f32,
    /// Cosine of the two embeddings in the second, slower space; `None` where it was not asked for, or
    /// one of the vectors is not there.
    pub refined: Option<f32>,
    /// Whether `refined` can be had: a policy that it would help may say [`Decision::Refine`] then.
    ///
    /// [`Decision::Refine`]: super::Decision::Refine
    pub can_refine: bool,
    /// Similarity less that of the nearest candidate with a *different* answer, so it is negative for
    /// all but the first answer; `None` when all candidates have this answer.
    pub margin: Option<f32>,
    /// The margin in the second space, among the candidates that have a cosine there.
    pub refined_margin: Option<f32>,
    /// Candidates whose similarity is at most 0.03 below this one's, itself left out.
    pub density: u16,
    /// Place among the candidates by similarity, from 0.
    pub rank: u16,
    /// Entries in the partition, dead rows among them.
    pub rows: u64,
    /// What the guards say of the two texts.
    pub guards: GuardReport,
    /// What the words of the two texts show.
    pub text: TextFeatures,
    /// Whether the two texts are the same but for case, punctuation, contractions, spelling and courtesy.
    pub same_wording: bool,
    /// What is known of the entry from former decisions.
    pub record: EntryRecord,
    /// The kind of traffic.
    pub category: Category,
    /// How long ago the entry was stored.
    pub age: Duration,
    /// What share of the right answers of the category goes wrong in a day; 0 where that is not known.
    pub hazard_per_day: f32,
    /// What the upstream call would cost, in dollars; `None` when the model has no known price.
    pub saving_usd: Option<f64>,
    /// How long the upstream call took when the entry was made.
    pub latency: Duration,
    /// Mean saving of a hit in this cache so far, in dollars; `None` before the first priced entry.
    pub typical_saving_usd: Option<f64>,
}

impl Evidence {
    /// Evidence of similarity alone: no conflict, no known saving.
    #[must_use]
    pub fn similarity(similarity: f32) -> Self {
        Self {
            similarity,
            ..Self::default()
        }
    }

    /// The probability that a right answer of this age is still right; policies multiply theirs by it.
    #[must_use]
    pub fn freshness(&self) -> f64 {
        let hazard = f64::from(self.hazard_per_day);
        if hazard > 0.0 {
            (-hazard * self.age.as_secs_f64() / 86_400.0).exp()
        } else {
            1.0
        }
    }

    /// Names of the values of [`features`](Self::features), in their order. A model fitted on features
    /// keeps the names and is refused when they differ.
    pub fn feature_names() -> impl Iterator<Item = &'static str> {
        [
            "similarity",
            "refined",
            "margin",
            "refined_margin",
            "density",
            "log_rows",
        ]
        .into_iter()
        .chain(TextFeatures::NAMES)
        .chain(GuardKind::ALL.into_iter().map(GuardKind::as_str))
    }

    /// The evidence as numbers for a fitted model, written over `out`: not-a-number for what is not
    /// known; guards as 0 agree, 1 absent, 2 one-sided, 3 conflict.
    pub fn features(&self, out: &mut Vec<f32>) {
        out.clear();
        out.extend(self.feature_values());
    }

    /// The same, on the stack.
    pub(crate) fn feature_values(&self) -> [f32; FEATURES] {
        let own = [
            self.similarity,
            self.refined.unwrap_or(f32::NAN),
            self.margin.unwrap_or(f32::NAN),
            self.refined_margin.unwrap_or(f32::NAN),
            f32::from(self.density),
            (self.rows as f32).ln_1p(),
        ];
        let guards = GuardKind::ALL.map(|kind| match self.guards.state(kind) {
            GuardState::Agree => 0.0,
            GuardState::Absent => 1.0,
            GuardState::OneSided => 2.0,
            GuardState::Conflict => 3.0,
        });
        let mut values = [f32::NAN; FEATURES];
        let text = self.text.values();
        let all = own.iter().chain(&text).chain(&guards);
        for (value, known) in values.iter_mut().zip(all) {
            *value = *known;
        }
        values
    }
}

/// Number of the values of [`Evidence::features`].
pub(crate) const FEATURES: usize = 6 + TextFeatures::NAMES.len() + GuardKind::ALL.len();

impl Default for Evidence {
    /// No similarity, no conflict, nothing known.
    fn default() -> Self {
        Self {
            similarity: 0.0,
            refined: None,
            can_refine: false,
            margin: None,
            refined_margin: None,
            density: 0,
            rank: 0,
            rows: 0,
            guards: GuardReport::default(),
            text: TextFeatures::default(),
            same_wording: false,
            record: EntryRecord::default(),
            category: Category::default(),
            age: Duration::ZERO,
            hazard_per_day: 0.0,
            saving_usd: None,
            latency: Duration::ZERO,
            typical_saving_usd: None,
        }
    }
}

/// What former decisions taught of one entry: a shift of the log-odds that its answer is right, and how
/// sure that shift is. 8 bytes; all zero for an entry nothing is known of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EntryRecord {
    /// Posterior mean of the shift, in log-odds.
    pub shift: f32,
    /// What labels have added to the precision (inverse variance) of the shift; 0 or more. The prior's
    /// is the policy's to add.
    pub precision: f32,
}

/// The kind of traffic that a request belongs to, as a digest of its name; the default kind has none.
///
/// Probabilities, budgets and false-hit estimates are kept per category.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Category(u64);

impl Category {
    /// The category of this name; an empty name is the default category.
    #[must_use]
    pub fn named(name: &str) -> Self {
        if name.is_empty() {
            return Self::default();
        }
        Self(xxhash_rust::xxh3::xxh3_64(name.as_bytes()))
    }
}

impl fmt::Debug for Category {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Category({:016x})", self.0)
    }
}
