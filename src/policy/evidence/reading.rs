//! One pass over a text: its tokens, and its words with what is known of each.
//!
//! Guards and text features start from the same reading, so that they agree on what a word is.

use std::borrow::Cow;
use std::ops::{ControlFlow, Range};

use askonce_models::{StaticEmbedder, inverse_document_frequency};
use unicode_normalization::UnicodeNormalization;
use xxhash_rust::xxh3::xxh3_64;

use super::lexicon::{self, Meaning, Role};

/// Most a single word weighs, as an inverse document frequency: that of a word seen nowhere.
pub(super) const MOST_WEIGHT: f32 = 12.0;

/// A text as its words.
pub(super) struct Reading<'t> {
    text: Cow<'t, str>,
    tokens: Vec<Range<usize>>,
    spellings: String,
    pub(super) words: Vec<Word>,
    /// Rows of the words' pieces in the built-in table.
    pub(super) rows: Vec<u32>,
}

/// One word of a text.
#[derive(Clone, Debug)]
pub(super) struct Word {
    /// Number of the token that it stands in.
    pub(super) token: usize,
    /// Digest of its stem.
    pub(super) stem: u32,
    /// Inverse document frequency; that of its pieces together where it has several.
    pub(super) weight: f32,
    pub(super) meaning: Meaning,
    /// Written like a name: with a capital that no beginning of a sentence explains.
    pub(super) is_name: bool,
    /// Ends a clause: a full stop, a comma or the like follows.
    pub(super) ends_clause: bool,
    spelling: Range<usize>,
    /// Which of [`Reading::rows`] are its own.
    pub(super) rows: Range<usize>,
}

impl Word {
    /// Whether it is none of the words that only hold a sentence together, and no negation.
    pub(super) fn is_content(&self) -> bool {
        !self.meaning.is(Role::Function) && !self.meaning.is(Role::Negation)
    }
}

impl<'t> Reading<'t> {
    /// Linear in the text.
    pub(super) fn of(text: &'t str) -> Self {
        let text = if text.is_ascii() {
            Cow::Borrowed(text)
        } else {
            Cow::Owned(text.nfkc().collect::<String>().replace('\u{2019}', "'"))
        };
        let mut reading = Self {
            tokens: token_ranges(&text),
            text,
            spellings: String::new(),
            words: Vec::new(),
            rows: Vec::new(),
        };
        reading.read_words();
        reading
    }

    /// The text with compatibility forms made plain.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// How many tokens the text has.
    pub(super) fn token_count(&self) -> usize {
        self.tokens.len()
    }

    /// A token as it stands between spaces.
    pub(super) fn raw_token(&self, i: usize) -> &str {
        self.tokens
            .get(i)
            .map_or("", |range| &self.text[range.clone()])
    }

    /// A token without the punctuation of the sentence; nothing past the end.
    pub(super) fn token(&self, i: usize) -> &str {
        trim_punctuation(self.raw_token(i))
    }

    /// A word in lower case.
    pub(super) fn spelling(&self, word: &Word) -> &str {
        &self.spellings[word.spelling.clone()]
    }

    fn read_words(&mut self) {
        let embedder = StaticEmbedder::builtin();
        self.spellings.reserve(self.text.len());
        self.words.reserve(self.text.len() / 5);
        let mut sentence_starts = true;
        let (mut capitals, mut starts) = (0, 0);
        for (number, range) in self.tokens.iter().enumerate() {
            let raw = &self.text[range.clone()];
            let token = trim_punctuation(raw);
            let first_word = self.words.len();
            for word in token.split(|c: char| !c.is_alphanumeric() && c != '\'') {
                let word = word.trim_matches('\'');
                let Some(initial) = word.chars().next() else {
                    continue;
                };
                let start = self.spellings.len();
                if word.is_ascii() {
                    self.spellings.push_str(word);
                    self.spellings[start..].make_ascii_lowercase();
                } else {
                    self.spellings.push_str(&word.to_lowercase());
                }
                let spelling = &self.spellings[start..];
                let meaning = lexicon::meaning(spelling);
                let first_row = self.rows.len();
                let mut weight = 0.0;
                let _: ControlFlow<()> = embedder.wordpiece().pieces(spelling, |piece| {
                    let row = embedder.row_of(piece);
                    self.rows.push(row);
                    weight += inverse_document_frequency(row);
                    ControlFlow::Continue(())
                });
                capitals += usize::from(initial.is_uppercase());
                starts += usize::from(sentence_starts);
                self.words.push(Word {
                    token: number,
                    stem: digest(lexicon::stem(spelling)),
                    weight: f32::min(weight, MOST_WEIGHT),
                    meaning,
                    is_name: initial.is_uppercase()
                        && !sentence_starts
                        && !meaning.is(Role::Function),
                    ends_clause: false,
                    spelling: start..self.spellings.len(),
                    rows: first_row..self.rows.len(),
                });
                sentence_starts = false;
            }
            sentence_starts |= raw.ends_with(['.', '?', '!', ':', ';']);
            let ends_clause = sentence_starts || raw.ends_with([',', ')']);
            if let Some(last) = self.words[first_word..].last_mut() {
                last.ends_clause = ends_clause;
            }
        }
        // A headline, or shouting: capitals tell nothing.
        if 2 * (capitals - capitals.min(starts)) > self.words.len() && self.words.len() > 3 {
            for word in &mut self.words {
                word.is_name = false;
            }
        }
    }
}

/// What stands for a text of any length in a comparison.
pub(super) fn digest(text: &str) -> u32 {
    xxh3_64(text.as_bytes()) as u32
}

fn token_ranges(text: &str) -> Vec<Range<usize>> {
    let base = text.as_ptr() as usize;
    text.split_whitespace()
        .map(|token| {
            let start = token.as_ptr() as usize - base;
            start..start + token.len()
        })
        .collect()
}

/// Strips what a sentence puts round a token, and keeps what belongs to it: the dash of a flag, the
/// dot of `.env`, the slash of a path, the sigil of a shell variable.
fn trim_punctuation(token: &str) -> &str {
    token
        .trim_start_matches(['(', '[', '{', '"', '\'', '`', ',', ';', ':', '?', '!', '<'])
        .trim_end_matches([
            ')', ']', '}', '"', '\'', '`', ',', ';', ':', '?', '!', '.', '>', '\u{2026}',
        ])
}
