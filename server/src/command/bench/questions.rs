//! Labelled pairs as questions and answers.
//!
//! Pairs say which two texts may share an answer. "May share" is taken as transitive: the connected
//! components of the positive pairs are the answers. A negative pair sets two answers apart, so a hit
//! across it is *known* to be wrong, and a hit across two components that nobody compared is wrong as
//! far as anybody knows.
//!
//! Each text gets one role, by the seed: stored, or asked. No text has both, so no lookup can match
//! exactly, and each answer lies in one of two folds with all its texts, so that what is fitted on one
//! fold is judged on answers that it has not seen.

use std::collections::{HashMap, HashSet};

use super::data::Pair;
use super::seed::Rng;
use crate::quality::components::DisjointSets;

/// A text, by its place in [`Questions::texts`].
pub(super) type TextId = u32;
/// An answer: a component of the positive pairs.
pub(super) type AnswerId = u32;

/// What a text does in the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Stored,
    Asked,
}

/// Which half an answer belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fold {
    /// Thresholds and curves are chosen here.
    Fit,
    /// And judged here.
    Judge,
}

/// Whether a stored answer is right for a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Truth {
    Right,
    /// A negative pair links the two answers.
    LabelledWrong,
    /// Nothing links them.
    UnlabelledWrong,
}

impl Truth {
    pub(super) fn is_right(self) -> bool {
        self == Self::Right
    }
}

/// The distinct texts of a pairs file, with everything the labels say of them.
#[derive(Debug)]
pub(super) struct Questions {
    pub(super) texts: Vec<String>,
    answers: Vec<AnswerId>,
    roles: Vec<Role>,
    folds: Vec<Fold>,
    /// Texts in the role `Stored`, by answer.
    stored_per_answer: Vec<u32>,
    apart: HashSet<(AnswerId, AnswerId)>,
    pub(super) positives: usize,
    pub(super) negatives: usize,
    /// Negative pairs inside one component: labels that contradict each other.
    pub(super) contradictions: usize,
}

impl Questions {
    pub(super) fn new(pairs: &[Pair], seed: u64) -> Self {
        let mut texts: Vec<String> = Vec::new();
        let mut ids: HashMap<&str, TextId> = HashMap::new();
        let mut linked = Vec::with_capacity(pairs.len());
        for pair in pairs {
            let [a, b] = [&pair.a, &pair.b].map(|text| {
                *ids.entry(text).or_insert_with(|| {
                    texts.push(text.clone());
                    (texts.len() - 1) as TextId
                })
            });
            linked.push((a, b, pair.same));
        }
        let mut sets = DisjointSets::new(texts.len());
        for &(a, b, _) in linked.iter().filter(|(_, _, same)| *same) {
            sets.join(a, b);
        }
        let (answers, count) = sets.components();
        let answer = |text: TextId| answers[text as usize];
        let mut apart = HashSet::new();
        let (mut positives, mut contradictions) = (0, 0);
        for &(a, b, same) in &linked {
            positives += usize::from(same);
            if !same {
                contradictions += usize::from(answer(a) == answer(b));
                apart.insert(ordered(answer(a), answer(b)));
            }
        }
        let mut rng = Rng::new(seed);
        let roles: Vec<Role> = texts
            .iter()
            .map(|_| {
                if rng.coin() {
                    Role::Stored
                } else {
                    Role::Asked
                }
            })
            .collect();
        let folds = (0..count)
            .map(|_| if rng.coin() { Fold::Fit } else { Fold::Judge })
            .collect();
        let mut stored_per_answer = vec![0; count];
        for (answer, role) in answers.iter().zip(&roles) {
            stored_per_answer[*answer as usize] += u32::from(*role == Role::Stored);
        }
        let negatives = pairs.len() - positives;
        Self {
            texts,
            answers,
            roles,
            folds,
            stored_per_answer,
            apart,
            positives,
            negatives,
            contradictions,
        }
    }

    /// Number of different answers.
    pub(super) fn answers(&self) -> usize {
        self.folds.len()
    }

    /// The texts in a role, in file order.
    pub(super) fn in_role(&self, role: Role) -> Vec<TextId> {
        (0..)
            .zip(&self.roles)
            .filter(|(_, has)| **has == role)
            .map(|(text, _)| text)
            .collect()
    }

    pub(super) fn text(&self, text: TextId) -> &str {
        &self.texts[text as usize]
    }

    pub(super) fn answer(&self, text: TextId) -> AnswerId {
        self.answers[text as usize]
    }

    pub(super) fn fold(&self, text: TextId) -> Fold {
        self.folds[self.answer(text) as usize]
    }

    /// Whether the right answer to a text is stored.
    pub(super) fn is_answerable(&self, text: TextId) -> bool {
        self.stored_per_answer[self.answer(text) as usize] > 0
    }

    /// Whether the answer stored for one text is right for another.
    pub(super) fn truth(&self, asked: TextId, stored: TextId) -> Truth {
        let (a, b) = (self.answer(asked), self.answer(stored));
        if a == b {
            Truth::Right
        } else if self.apart.contains(&ordered(a, b)) {
            Truth::LabelledWrong
        } else {
            Truth::UnlabelledWrong
        }
    }
}

fn ordered(a: AnswerId, b: AnswerId) -> (AnswerId, AnswerId) {
    (a.min(b), a.max(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(a: &str, b: &str, same: bool) -> Pair {
        Pair {
            a: a.to_owned(),
            b: b.to_owned(),
            same,
            kind: None,
        }
    }

    fn questions() -> Questions {
        let pairs = [
            pair("a", "b", true),
            pair("b", "c", true),
            pair("d", "e", true),
            pair("c", "d", false),
            pair("a", "c", false),
            pair("f", "a", false),
        ];
        Questions::new(&pairs, 7)
    }

    #[test]
    fn positive_pairs_chain_into_one_answer() {
        let questions = questions();
        assert_eq!(questions.texts, ["a", "b", "c", "d", "e", "f"]);
        assert_eq!(questions.answers(), 3);
        assert_eq!(questions.truth(0, 2), Truth::Right);
        assert_eq!(questions.truth(0, 4), Truth::LabelledWrong);
        assert_eq!(questions.truth(4, 5), Truth::UnlabelledWrong);
        assert_eq!(questions.contradictions, 1);
        assert_eq!((questions.positives, questions.negatives), (3, 3));
    }

    #[test]
    fn no_text_is_both_stored_and_asked() {
        let pairs: Vec<_> = (0..500)
            .map(|i| {
                pair(
                    &format!("q{}", i % 300),
                    &format!("q{}", (i * 7 + 1) % 300),
                    i % 3 == 0,
                )
            })
            .collect();
        let questions = Questions::new(&pairs, 1);
        let stored: HashSet<_> = questions.in_role(Role::Stored).into_iter().collect();
        let asked: HashSet<_> = questions.in_role(Role::Asked).into_iter().collect();
        assert!(stored.is_disjoint(&asked));
        assert_eq!(stored.len() + asked.len(), questions.texts.len());
        assert!(stored.len() > 100 && asked.len() > 100);
        for &text in &asked {
            let answerable = stored
                .iter()
                .any(|&other| questions.truth(text, other).is_right());
            assert_eq!(questions.is_answerable(text), answerable);
        }
    }

    #[test]
    fn an_answer_lies_in_one_fold_with_all_its_texts() {
        let questions = questions();
        assert_eq!(questions.fold(0), questions.fold(1));
        assert_eq!(questions.fold(1), questions.fold(2));
    }

    #[test]
    fn the_seed_alone_decides_the_roles() {
        assert_eq!(questions().roles, questions().roles);
    }
}
