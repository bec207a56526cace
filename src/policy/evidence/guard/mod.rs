//! Guards: evidence *against* a match that an embedding cannot see.
//!
//! A sum of word vectors gives "is A better than B" and "is B better than A" the same point, and an
//! uncased vocabulary does the same with `rm -r` and `rm -R`. A guard compares one such trait of the
//! two texts and reports one of four [`GuardState`]s. It decides nothing: policies weigh the report.
//!
//! The traits and their firing rates on labelled pairs come from the project's study of near misses
//! (numbers conflict on 1.3 % of duplicates and 3.6 % of others in Quora Question Pairs, and so on):
//! evidence, no proof, and worth different amounts in different traffic.
//!
//! Word lists are English. A text in another language yields fewer firings, never more.

mod order;
mod quantity;
mod surface;
#[cfg(test)]
mod tests;
mod traits;

use serde::{Deserialize, Serialize};

use super::reading::Reading;
pub(super) use traits::Traits;

/// How two texts compare in one trait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GuardState {
    /// Neither text has the trait.
    #[default]
    Absent,
    /// Both have it, and it is the same.
    Agree,
    /// Only one has it.
    OneSided,
    /// Both have it, and it differs; or its presence alone turns the meaning round.
    Conflict,
}

/// Which trait a guard compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum GuardKind {
    /// Quantities, with magnitudes and units made comparable: `25k` is `25,000`, `0.5 kg` is `500 g`,
    /// `1 GB` is not `2 GB`.
    Number,
    /// Whether the text negates, or speaks of what used to be.
    Negation,
    /// Opposite words in the same place: enable and disable.
    Antonym,
    /// Flags, paths, versions, code names; flags by letter case.
    Identifier,
    /// Days of a year however written, weekdays, months, relative days.
    Calendar,
    /// Text in quotation marks or back-ticks.
    Quote,
    /// The same words in another order: roles swapped.
    Order,
    /// One word stands where the other text has another, and all else is the same: a slot with
    /// another value, as in the capital of France and of Spain. Synonyms fire it too.
    Substitution,
    /// Who, when, where and why ask for different things about the same.
    Question,
    /// The form of the answer: JSON, a table, one sentence, yes or no.
    Format,
    /// The language of the answer, spoken or of a program.
    Language,
    /// Names and rare words that the other text does not hold. Other wordings fire it too.
    Entity,
    /// Pronouns for something that the text has not named: he is not she.
    Pronoun,
    /// "And" where the other text has "or".
    Connective,
}

impl GuardKind {
    /// All guards, in the order in which they are reported.
    pub const ALL: [Self; 14] = [
        Self::Number,
        Self::Negation,
        Self::Antonym,
        Self::Identifier,
        Self::Calendar,
        Self::Quote,
        Self::Format,
        Self::Language,
        Self::Question,
        Self::Order,
        Self::Pronoun,
        Self::Substitution,
        Self::Entity,
        Self::Connective,
    ];

    /// The stable name used in metrics and reports.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Number => "number",
            Self::Negation => "negation",
            Self::Antonym => "antonym",
            Self::Identifier => "identifier",
            Self::Calendar => "calendar",
            Self::Quote => "quote",
            Self::Order => "order",
            Self::Substitution => "substitution",
            Self::Question => "question",
            Self::Format => "format",
            Self::Language => "language",
            Self::Entity => "entity",
            Self::Pronoun => "pronoun",
            Self::Connective => "connective",
        }
    }

    /// Whether a conflict is a reason to pass for a policy without fitted weights. A conflict of
    /// entities or connectives is not: too many paraphrases have one.
    #[must_use]
    pub const fn is_veto(self) -> bool {
        !matches!(self, Self::Entity | Self::Connective)
    }
}

/// What every guard says of one pair of texts. Symmetric: swapping the texts changes nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GuardReport {
    /// State of [`GuardKind::Number`].
    pub number: GuardState,
    /// State of [`GuardKind::Negation`].
    pub negation: GuardState,
    /// State of [`GuardKind::Antonym`].
    pub antonym: GuardState,
    /// State of [`GuardKind::Identifier`].
    pub identifier: GuardState,
    /// State of [`GuardKind::Calendar`].
    pub calendar: GuardState,
    /// State of [`GuardKind::Quote`].
    pub quote: GuardState,
    /// State of [`GuardKind::Order`].
    pub order: GuardState,
    /// State of [`GuardKind::Substitution`].
    pub substitution: GuardState,
    /// State of [`GuardKind::Question`].
    pub question: GuardState,
    /// State of [`GuardKind::Format`].
    pub format: GuardState,
    /// State of [`GuardKind::Language`].
    pub language: GuardState,
    /// State of [`GuardKind::Entity`].
    pub entity: GuardState,
    /// State of [`GuardKind::Pronoun`].
    pub pronoun: GuardState,
    /// State of [`GuardKind::Connective`].
    pub connective: GuardState,
}

impl GuardReport {
    /// Compares two texts. Linear in their lengths, apart from sorting their words.
    ///
    /// Where one text is compared with many, [`TextTraits`](super::TextTraits) reads it once.
    #[must_use]
    pub fn compare(a: &str, b: &str) -> Self {
        Traits::of(&Reading::of(a)).compare(&Traits::of(&Reading::of(b)))
    }

    /// The state of one guard.
    #[must_use]
    pub const fn state(&self, kind: GuardKind) -> GuardState {
        match kind {
            GuardKind::Number => self.number,
            GuardKind::Negation => self.negation,
            GuardKind::Antonym => self.antonym,
            GuardKind::Identifier => self.identifier,
            GuardKind::Calendar => self.calendar,
            GuardKind::Quote => self.quote,
            GuardKind::Order => self.order,
            GuardKind::Substitution => self.substitution,
            GuardKind::Question => self.question,
            GuardKind::Format => self.format,
            GuardKind::Language => self.language,
            GuardKind::Entity => self.entity,
            GuardKind::Pronoun => self.pronoun,
            GuardKind::Connective => self.connective,
        }
    }

    /// The first guard that reports a conflict and [may stop](GuardKind::is_veto) a match alone.
    #[must_use]
    pub fn conflict(&self) -> Option<GuardKind> {
        GuardKind::ALL
            .into_iter()
            .find(|&kind| kind.is_veto() && self.state(kind) == GuardState::Conflict)
    }
}
