//! What the words of two texts show.

use serde::{Deserialize, Serialize};

use super::guard::{self, GuardReport};

/// What one text shows, worked out once: at insert for an entry, once per lookup for a query.
#[derive(Clone, Debug)]
pub struct TextTraits {
    guards: guard::Traits,
}

impl TextTraits {
    /// The traits of `text`. Linear in its length.
    #[must_use]
    pub fn of(text: &str) -> Self {
        Self {
            guards: guard::Traits::of(text),
        }
    }

    /// Compares a query with an entry's text.
    #[must_use]
    pub fn compare(&self, entry: &Self) -> TextComparison {
        TextComparison {
            features: TextFeatures::default(),
            guards: self.guards.compare(&entry.guards),
        }
    }
}

/// What two texts show beside each other.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TextComparison {
    /// How far their words agree.
    pub features: TextFeatures,
    /// What speaks against a match.
    pub guards: GuardReport,
}

/// Number of text features.
const COUNT: usize = 0;

/// How far the words of two texts agree, as numbers for a fitted model.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TextFeatures([f32; COUNT]);

impl TextFeatures {
    /// Names of the values, in their order.
    pub const NAMES: [&'static str; COUNT] = [];

    /// The values, in the order of [`NAMES`](Self::NAMES).
    #[must_use]
    pub fn values(&self) -> [f32; COUNT] {
        self.0
    }
}

impl Default for TextFeatures {
    /// Nothing is known: every value is not-a-number.
    fn default() -> Self {
        Self([f32::NAN; COUNT])
    }
}
