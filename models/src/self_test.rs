//! Two wordings of one question, by which a model is known to work as it did where it was made.

/// The texts.
pub(crate) const TEXTS: [&str; 2] = ["How do I reset my password?", "how can I reset my password"];

/// What a model makes of two wordings of one question, and what it should.
///
/// Weights have a checksum, so damage to a file is refused when it is opened. This tells whether the
/// arithmetic of this machine gives what it gave where the weights were made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SelfTest {
    /// The cosine that the weights should give. None where their file does not state it.
    pub expected: Option<f32>,
    /// The cosine that they give.
    pub found: f32,
}

impl SelfTest {
    /// How far the cosine may be off: more than sums in another order make, and far less than any other
    /// weights do.
    pub const TOLERANCE: f32 = 1e-4;

    /// Whether the weights give what they should, which none that state nothing do.
    #[must_use]
    pub fn passes(&self) -> bool {
        self.expected
            .is_some_and(|expected| (self.found - expected).abs() <= Self::TOLERANCE)
    }

    /// Of the rows of the texts, of unit length.
    pub(crate) fn of(expected: Option<f32>, rows: &[f32]) -> Self {
        let (a, b) = rows.split_at(rows.len() / 2);
        Self {
            expected,
            found: a.iter().zip(b).map(|(a, b)| a * b).sum(),
        }
    }
}
