//! The pairs to train on, and those to judge by.

use std::collections::HashSet;

use askonce_models::train::Pair;

use crate::quality::corpus::Set;
use crate::quality::split::{Part, Rule, normalise};

/// Labelled pairs in two parts that share no text.
pub(super) struct Parts<'a> {
    /// To train on.
    pub(super) pairs: Vec<Pair<'a>>,
    /// To judge by.
    pub(super) held_out: Vec<Pair<'a>>,
    /// Pairs given, those for calibration and tests included.
    pub(super) all: usize,
}

/// What a pair is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    Train,
    Judge,
}

impl<'a> Parts<'a> {
    /// Of files that the shipped models were trained on, what they were trained on and what they were judged
    /// by. Of other files the part that verifiers are fitted on: one component in five is judged by.
    /// Calibration and test parts are left alone.
    pub(super) fn of(sets: &'a [Set]) -> Self {
        let (mut pairs, mut held_out, mut all) = (Vec::new(), Vec::new(), 0);
        for set in sets {
            let used = |text| match (set.rule, set.texts.part(text)?) {
                (Rule::Trained, Part::Train) => Some(Use::Train),
                (Rule::Trained, Part::Dev) => Some(Use::Judge),
                (Rule::Unseen | Rule::ByKind, Part::Dev) => match set.texts.group(text) % 5 {
                    0 => Some(Use::Judge),
                    _ => Some(Use::Train),
                },
                _ => None,
            };
            all += set.pairs.len();
            for pair in set.pairs_of(&[Part::Train, Part::Dev, Part::Calibration, Part::Test]) {
                let list = match used(pair.a) {
                    Some(Use::Train) => &mut pairs,
                    Some(Use::Judge) => &mut held_out,
                    None => continue,
                };
                let [a, b] = [pair.a, pair.b].map(|text| set.texts.text(text));
                list.push(Pair {
                    a,
                    b,
                    same: pair.same,
                    group: set.texts.group(pair.a),
                });
            }
        }
        // Components are made per file: a text of one may be in another.
        let seen: HashSet<String> = pairs
            .iter()
            .flat_map(|pair| [pair.a, pair.b])
            .map(normalise)
            .collect();
        held_out.retain(|pair| {
            ![pair.a, pair.b]
                .into_iter()
                .map(normalise)
                .any(|text| seen.contains(&text))
        });
        Self {
            pairs,
            held_out,
            all,
        }
    }
}
