//! Which part of labelled data a text belongs to, so that nothing is judged on what it was fitted on.
//!
//! The rule is that of `models/training/split.py`, by which the shipped embedding models were trained:
//! 1. **Normalise**: ASCII letters are lower-cased; ASCII letters, ASCII digits and characters from U+0080
//!    up are kept, except U+00A0 and U+2000..=U+206F; anything else becomes a space; runs of spaces fold.
//! 2. **Component**: normalised texts are nodes, every labelled pair is an edge, whatever its label, and so
//!    are two texts of one cluster. Texts in one component always share a part.
//! 3. **Bucket**: SHA-256 of the component's smallest text, its first four bytes as a big-endian integer.
//! 4. **Part**: the bucket modulo 10 for the data that the shipped models were trained on
//!    ([`Rule::Trained`]); modulo 4 for other data, of which the models have seen nothing
//!    ([`Rule::Unseen`]).
//!
//! Data made from templates shares its templates across components. There whole kinds are kept together
//! ([`Rule::ByKind`]).

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest as _, Sha256};

use super::data::Pair;

/// What a text may be used for.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, clap::ValueEnum,
)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Part {
    /// The embedding models may have been trained on it: nothing else is fitted on it.
    Train,
    /// Verifiers are fitted on it.
    Dev,
    /// Probabilities and cut-offs are fitted on it.
    Calibration,
    /// Nothing is: it is reported on.
    Test,
}

/// How buckets become parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// 7 of 10 buckets are [`Part::Train`], and one each is of the other parts.
    Trained,
    /// Half of the buckets are [`Part::Dev`], a quarter [`Part::Calibration`], a quarter [`Part::Test`].
    Unseen,
    /// As [`Rule::Unseen`], by the kind of the pair.
    ByKind,
    /// Everything is [`Part::Test`].
    TestOnly,
}

impl Rule {
    /// The rule for a file of this name.
    ///
    /// Files of Quora's question pairs are known by their names, which begin with `qqp`, and CheckList's
    /// templates by `checklist`; any other file is unseen.
    pub(crate) fn of(name: &str) -> Self {
        let name = name.to_ascii_lowercase();
        if name.starts_with("qqp") {
            Self::Trained
        } else if name.starts_with("checklist") {
            Self::ByKind
        } else {
            Self::Unseen
        }
    }

    /// The part of a component with this digest.
    pub(crate) fn part(self, digest: &[u8; 32]) -> Part {
        let [a, b, c, d, ..] = *digest;
        let bucket = u32::from_be_bytes([a, b, c, d]);
        match self {
            Self::Trained => match bucket % 10 {
                0 => Part::Calibration,
                1 => Part::Test,
                2 => Part::Dev,
                _ => Part::Train,
            },
            Self::Unseen | Self::ByKind => part_of_four(bucket as usize),
            Self::TestOnly => Part::Test,
        }
    }
}

fn part_of_four(n: usize) -> Part {
    match n % 4 {
        1 => Part::Calibration,
        3 => Part::Test,
        _ => Part::Dev,
    }
}

/// The part of each kind of pairs. Kinds that hold duplicates and kinds that hold none are dealt out
/// separately, each in the order of the digests of their names, so that no part is left with one label.
pub(crate) fn parts_of_kinds(pairs: &[Pair]) -> BTreeMap<String, Part> {
    let kind = |pair: &Pair| pair.kind.clone().unwrap_or_default();
    let positive: BTreeSet<String> = pairs.iter().filter(|pair| pair.same).map(kind).collect();
    let all: BTreeSet<String> = pairs.iter().map(kind).collect();
    let (positive, negative): (Vec<String>, Vec<String>) =
        all.into_iter().partition(|kind| positive.contains(kind));
    let mut parts = BTreeMap::new();
    for mut kinds in [positive, negative] {
        kinds.sort_by_key(|kind| digest(kind));
        parts.extend(
            kinds
                .into_iter()
                .enumerate()
                .map(|(i, kind)| (kind, part_of_four(i))),
        );
    }
    parts
}

/// SHA-256 of a text.
pub(crate) fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

/// The form of a text by which components are made; empty for a text without letters and digits.
pub(crate) fn normalise(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut gap = false;
    for c in text.chars() {
        let kept = match c {
            'a'..='z' | 'A'..='Z' | '0'..='9' => true,
            '\u{a0}' | '\u{2000}'..='\u{206f}' => false,
            c => c >= '\u{80}',
        };
        if !kept {
            gap = !out.is_empty();
            continue;
        }
        if gap {
            out.push(' ');
            gap = false;
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_normalised_as_the_training_does() {
        // Made with `normalise` of models/training/split.py.
        for (text, expected) in [
            ("What's  C++ -- really?", "what s c really"),
            (
                "  \u{a0}Caf\u{e9} \u{2013} 24\u{2009}km ",
                "caf\u{e9} 24 km",
            ),
            ("\u{130}STANBUL", "\u{130}stanbul"),
            ("?!", ""),
        ] {
            assert_eq!(normalise(text), expected);
        }
    }

    #[test]
    fn a_bucket_is_that_of_the_training() {
        // Made with `part_of_component` of models/training/split.py.
        for (text, part) in [
            ("how do i learn rust", Part::Train),
            ("is tea good for you", Part::Dev),
            ("how far is the moon", Part::Calibration),
            ("what is a monad", Part::Test),
        ] {
            assert_eq!(Rule::Trained.part(&digest(text)), part, "{text}");
        }
    }

    #[test]
    fn every_part_has_kinds_of_either_label() {
        let pair = |kind: usize, same| Pair {
            a: "a".to_owned(),
            b: "b".to_owned(),
            same,
            kind: Some(format!("kind {kind}")),
        };
        let pairs: Vec<Pair> = (0..19).map(|kind| pair(kind, kind < 6)).collect();
        let parts = parts_of_kinds(&pairs);
        assert_eq!(parts.len(), 19);
        for part in [Part::Dev, Part::Calibration, Part::Test] {
            for same in [true, false] {
                let kinds = pairs.iter().filter(|pair| pair.same == same);
                assert!(
                    kinds
                        .filter_map(|pair| pair.kind.as_deref())
                        .any(|kind| parts[kind] == part)
                );
            }
        }
    }
}
