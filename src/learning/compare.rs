//! Whether two answers say the same, by cheap means, and only where those are sure.
//!
//! A model words the same answer in many ways, so words that differ prove little: what is told `Different`
//! rests on an opposite yes or no, on other numbers in the same words, or on two names that have nothing in
//! common. All else that is not nearly the same is `Unsure`, which makes no label.

use std::collections::HashSet;

use askonce_models::StaticEmbedder;

use crate::entry::Answer;

/// What a comparison of two answers comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Agreement {
    /// They say the same.
    Same,
    /// They do not.
    Different,
    /// Cheap means cannot tell.
    Unsure,
}

/// Most characters of an answer that are compared.
const LONGEST: usize = 20_000;

/// Words of an answer that is short: it says one thing.
const SHORT: usize = 12;

/// Words with content of an answer that is no more than a name.
const NAME: usize = 3;

/// Words that carry no answer.
const FILLERS: &[&str] = &[
    "a",
    "an",
    "the",
    "is",
    "are",
    "was",
    "were",
    "it",
    "its",
    "this",
    "that",
    "of",
    "to",
    "in",
    "on",
    "and",
    "or",
    "you",
    "your",
    "can",
    "for",
    "with",
    "by",
    "as",
    "be",
    "here",
    "answer",
    "sure",
    "certainly",
    "there",
];

const NEGATIONS: &[&str] = &["not", "no", "never", "cannot", "without", "none", "nor"];

/// Compares two answers.
pub(crate) fn compare(one: &Answer, other: &Answer, embedder: &StaticEmbedder) -> Agreement {
    let (one, other) = (one.words(), other.words());
    if one.len() > LONGEST || other.len() > LONGEST {
        let same = one.split_whitespace().eq(other.split_whitespace());
        return if same {
            Agreement::Same
        } else {
            Agreement::Unsure
        };
    }
    let (one_words, other_words) = (Words::of(&one), Words::of(&other));
    if one_words.all.is_empty() || other_words.all.is_empty() {
        // Nothing but signs: only the very same is the same.
        return if one.trim() == other.trim() {
            Agreement::Same
        } else {
            Agreement::Unsure
        };
    }
    if one_words.all == other_words.all {
        return Agreement::Same;
    }
    if let (Some(one), Some(other)) = (one_words.verdict(), other_words.verdict())
        && one != other
    {
        return Agreement::Different;
    }
    let shared = overlap(&one_words.content, &other_words.content);
    let short = one_words.all.len().max(other_words.all.len()) <= SHORT;
    let numbers = (&one_words.numbers, &other_words.numbers);
    if numbers.0 != numbers.1 {
        let both =
            !numbers.0.is_empty() && !numbers.1.is_empty() && numbers.0.is_disjoint(numbers.1);
        // "3 days" and "5 days" differ, "3 days" and "72 hours" do not; long answers may list more or fewer.
        let rest = |words: &Words| words.content.difference(&words.numbers).cloned().collect();
        let alike = overlap(&rest(&one_words), &rest(&other_words)) >= 0.6;
        return if both && short && alike {
            Agreement::Different
        } else {
            Agreement::Unsure
        };
    }
    if one_words.negations != other_words.negations {
        return Agreement::Unsure;
    }
    let (one_set, other_set) = (&one_words.content, &other_words.content);
    // A word in place of another may be all that matters; a word more seldom is. Nor may words trade places.
    let more = one_set.is_subset(other_set) || other_set.is_subset(one_set);
    if shared >= 0.85 && more && overlap(&one_words.pairs, &other_words.pairs) >= 0.6 {
        return Agreement::Same;
    }
    let names = |words: &Words| (1..=NAME).contains(&words.content.len());
    if names(&one_words)
        && names(&other_words)
        && one_words.content.is_disjoint(&other_words.content)
    {
        // Two names; those of one thing are near each other.
        let far = cosine(&one, &other, embedder).is_some_and(|cosine| cosine < 0.3);
        return if far {
            Agreement::Different
        } else {
            Agreement::Unsure
        };
    }
    Agreement::Unsure
}

/// What is compared of an answer.
struct Words {
    all: Vec<String>,
    /// The words that are no fillers.
    content: HashSet<String>,
    /// Each of them with the next.
    pairs: HashSet<String>,
    numbers: HashSet<String>,
    negations: usize,
}

impl Words {
    fn of(text: &str) -> Self {
        let lower = text.to_lowercase().replace('’', "'");
        let all: Vec<String> = lower
            .split(|c: char| !c.is_alphanumeric() && !matches!(c, '\'' | '.' | ','))
            .map(|word| word.trim_matches(['\'', '.', ',']).replace(',', ""))
            .filter(|word| !word.is_empty())
            .collect();
        let is_negation =
            |word: &&String| NEGATIONS.contains(&word.as_str()) || word.ends_with("n't");
        let is_number = |word: &&String| word.chars().any(|c| c.is_ascii_digit());
        let content = all.iter().filter(|word| !FILLERS.contains(&word.as_str()));
        let content: Vec<_> = content.cloned().collect();
        Self {
            pairs: content.windows(2).map(|pair| pair.join(" ")).collect(),
            content: content.into_iter().collect(),
            numbers: all.iter().filter(is_number).cloned().collect(),
            negations: all.iter().filter(is_negation).count(),
            all,
        }
    }

    /// Whether the answer begins with a yes or a no.
    fn verdict(&self) -> Option<bool> {
        match self.all.first()?.as_str() {
            "yes" | "true" | "correct" => Some(true),
            "no" | "false" | "incorrect" => Some(false),
            _ => None,
        }
    }
}

/// Words in both, as a share of the words in either (Jaccard).
fn overlap(one: &HashSet<String>, other: &HashSet<String>) -> f64 {
    let common = one.intersection(other).count();
    let either = one.len() + other.len() - common;
    if either == 0 {
        1.0
    } else {
        common as f64 / either as f64
    }
}

/// The cosine of two texts; `None` when one has no vector.
fn cosine(one: &str, other: &str, embedder: &StaticEmbedder) -> Option<f32> {
    let rows = embedder.embed_sync(&[one, other]).ok()?;
    let (one, other) = rows.split_at(rows.len() / 2);
    Some(one.iter().zip(other).map(|(a, b)| a * b).sum())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn told(one: &str, other: &str) -> Agreement {
        compare(
            &Answer::text(one),
            &Answer::text(other),
            &StaticEmbedder::builtin(),
        )
    }

    #[test]
    fn the_same_words_in_other_dress_are_the_same() {
        for (one, other) in [
            ("Paris.", "paris"),
            ("The answer is 42.", "The answer is: 42"),
            (
                "Open Settings, then Security.",
                "open settings then security",
            ),
            (
                "Open Settings, choose Security, and click Reset password to get an email.",
                "Open the Settings, choose Security and click Reset password, to get the email.",
            ),
        ] {
            assert_eq!(told(one, other), Agreement::Same, "{one} | {other}");
        }
    }

    #[test]
    fn opposite_verdicts_other_numbers_and_other_things_are_different() {
        for (one, other) in [
            ("Yes, you can.", "No, you cannot."),
            ("It takes 3 days.", "It takes 5 days."),
            ("Paris", "Potassium nitrate"),
        ] {
            assert_eq!(told(one, other), Agreement::Different, "{one} | {other}");
        }
    }

    #[test]
    fn what_cheap_means_cannot_tell_is_left_open() {
        for (one, other) in [
            ("You can return it.", "You can't return it."),
            ("It takes 3 days.", "Usually 72 hours."),
            ("The UK", "Great Britain"),
            ("Alice is older than Bob.", "Bob is older than Alice."),
            (
                "Open the settings of your Gmail account, choose security, then passwords, and click on reset.",
                "Open the settings of your Outlook account, choose security, then passwords, and click on reset.",
            ),
            (
                "Plants make sugar from light in their leaves.",
                "By photosynthesis, using carbon dioxide and water.",
            ),
            (
                "Photosynthesis turns light into sugar in the leaves of plants.",
                "Plants make glucose from carbon dioxide and water by using sunlight.",
            ),
            (
                "There were 12 members in 1990, and later there were more of them in the whole country.",
                "There were 12 members at first, and later there were more of them in the whole country.",
            ),
            ("***", "---"),
        ] {
            assert_eq!(told(one, other), Agreement::Unsure, "{one} | {other}");
        }
    }

    #[test]
    fn of_a_chat_completion_the_message_counts() {
        let completion = |id: &str, text: &str| {
            let body = serde_json::json!({
                "id": id, "created": 7, "choices": [{"message": {"role": "assistant", "content": text}}]
            });
            Answer::json(body.to_string()).unwrap()
        };
        let embedder = StaticEmbedder::builtin();
        let (one, other) = (completion("a", "Paris."), completion("b", "Paris"));
        assert_eq!(compare(&one, &other, &embedder), Agreement::Same);
        assert_eq!(
            compare(&one, &Answer::text("paris"), &embedder),
            Agreement::Same
        );
    }

    proptest! {
        #[test]
        fn a_comparison_is_the_same_both_ways_and_an_answer_is_like_itself(
            one in "[a-z0-9 .,']{0,60}", other in "[a-z0-9 .,']{0,60}",
        ) {
            prop_assert_eq!(told(&one, &other), told(&other, &one));
            prop_assert_eq!(told(&one, &one), Agreement::Same);
        }
    }
}
