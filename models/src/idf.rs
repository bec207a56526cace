//! How rare each word piece of the built-in vocabulary is.
//!
//! Counted over 132,000 distinct questions; `training/token_idf.py` writes the file.

/// One byte per id, in steps of 1/20.
static STEPS: &[u8] = include_bytes!("../assets/idf.bin");

const NATS_PER_STEP: f32 = 0.05;

/// Inverse document frequency of a token of the built-in vocabulary, in natural logarithms: about 1 for
/// a word in every third question, 12 for one that occurs in none, and 12 outside the vocabulary.
#[must_use]
pub fn inverse_document_frequency(id: u32) -> f32 {
    let steps = STEPS.get(id as usize).copied().unwrap_or(UNSEEN_STEPS);
    f32::from(steps) * NATS_PER_STEP
}

/// The largest value of the file: that of a token in no text.
const UNSEEN_STEPS: u8 = 236;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::StaticEmbedder;

    #[test]
    fn every_token_has_a_frequency_and_rare_words_weigh_more() {
        let wordpiece = StaticEmbedder::builtin().wordpiece().clone();
        assert_eq!(STEPS.len(), wordpiece.vocabulary_len());
        assert_eq!(STEPS.iter().max(), Some(&UNSEEN_STEPS));
        let idf = |word: &str| {
            let mut ids = Vec::new();
            wordpiece.tokenize(word, &mut ids);
            inverse_document_frequency(ids[0])
        };
        assert!(idf("the") < idf("password") && idf("password") < idf("polymerase"));
    }
}
