//! From candidates to evidence: what stands near whom, and what that says of each. Pure.

use crate::policy::Decision;

/// How far below a candidate another is a neighbour that counts towards its density.
const DENSE: f32 = 0.03;

/// How far below a candidate the nearest other answer is looked for. Farther out it would depend on how far
/// the lookup has looked, which depends on the policy.
pub(super) const MARGIN: f32 = 0.15;

/// A candidate's place among the others: its similarity, a digest of its answer where that is known, and the
/// group of entries that were found to give the same answer in other words.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) similarity: f32,
    pub(super) answer: Option<u64>,
    pub(super) group: Option<u64>,
}

impl Place {
    /// Whether two candidates give the same answer. Of one whose answer is not known it is not assumed.
    fn agrees(&self, other: &Self) -> bool {
        (self.answer.is_some() && self.answer == other.answer) || self.grouped_with(other)
    }

    fn grouped_with(&self, other: &Self) -> bool {
        self.group.is_some() && self.group == other.group
    }
}

/// The same places, as they are to one that is not to gain by its group.
pub(super) fn without_group(places: &[Option<Place>], at: usize) -> Vec<Option<Place>> {
    let mut places = places.to_vec();
    if let Some(Some(place)) = places.get_mut(at) {
        place.group = None;
    }
    places
}

/// Similarity of `places[at]` less that of the nearest candidate with another answer; `None` when there is
/// none up to [`MARGIN`] below it. Candidates without a place do not count.
pub(super) fn margin(places: &[Option<Place>], at: usize) -> Option<f32> {
    let own = (*places.get(at)?)?;
    others(places, at)
        .filter(|other| !own.agrees(other) && other.similarity >= own.similarity - MARGIN)
        .map(|other| other.similarity)
        .reduce(f32::max)
        .map(|nearest| own.similarity - nearest)
}

/// How many other candidates are at most 0.03 less similar than `places[at]`, those of its own group left out.
pub(super) fn density(places: &[Option<Place>], at: usize) -> u16 {
    let Some(own) = places.get(at).copied().flatten() else {
        return 0;
    };
    let near =
        |other: &Place| other.similarity >= own.similarity - DENSE && !own.grouped_with(other);
    let count = others(places, at).filter(near).count();
    u16::try_from(count).unwrap_or(u16::MAX)
}

fn others(places: &[Option<Place>], at: usize) -> impl Iterator<Item = Place> {
    let others = places.iter().enumerate();
    others.filter_map(move |(other, place)| place.filter(|_| other != at))
}

/// The candidates that may be served, the most useful first; of equals the more similar, which stand first
/// in `decisions`. One whose utility is no number comes last.
pub(super) fn by_utility(decisions: &[Option<Decision>]) -> Vec<usize> {
    let mut served: Vec<(usize, f64)> = decisions
        .iter()
        .enumerate()
        .filter_map(|(at, decision)| match decision {
            Some(Decision::Serve { utility, .. }) => Some((at, *utility)),
            _ => None,
        })
        .collect();
    let key = |utility: f64| {
        if utility.is_nan() {
            f64::NEG_INFINITY
        } else {
            utility
        }
    };
    served.sort_by(|(_, a), (_, b)| key(*b).total_cmp(&key(*a)));
    served.into_iter().map(|(at, _)| at).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(list: &[(f32, u64)]) -> Vec<Option<Place>> {
        let place = |&(similarity, answer)| {
            Some(Place {
                similarity,
                answer: (answer != 0).then_some(answer),
                group: None,
            })
        };
        list.iter().map(place).collect()
    }

    fn near(a: Option<f32>, b: f32) -> bool {
        a.is_some_and(|a| (a - b).abs() < 1e-6)
    }

    #[test]
    fn the_margin_is_to_another_answer_not_to_another_entry() {
        let p = places(&[(0.95, 1), (0.94, 1), (0.90, 2)]);
        assert!(near(margin(&p, 0), 0.05));
        assert!(near(margin(&p, 1), 0.04));
        assert!(near(margin(&p, 2), -0.05));
        let same = places(&[(0.95, 1), (0.94, 1)]);
        assert_eq!(margin(&same, 0), None);
    }

    #[test]
    fn entries_of_one_group_do_not_count_against_each_other() {
        let mut p = places(&[(0.95, 1), (0.94, 2), (0.93, 3)]);
        for place in p[..2].iter_mut().flatten() {
            place.group = Some(7);
        }
        assert!(near(margin(&p, 0), 0.02));
        assert!(near(margin(&p, 1), 0.01));
        assert!(near(margin(&p, 2), -0.02));
        assert_eq!([0, 1, 2].map(|at| density(&p, at)), [1, 1, 2]);
        let alone = without_group(&p, 0);
        assert!(near(margin(&alone, 0), 0.01));
        assert_eq!(density(&alone, 0), 2);
    }

    #[test]
    fn an_answer_that_is_not_known_is_another_answer() {
        let p = places(&[(0.95, 0), (0.94, 0)]);
        assert!(near(margin(&p, 0), 0.01));
        assert_eq!(margin(&places(&[(0.95, 0)]), 0), None);
    }

    #[test]
    fn the_margin_does_not_depend_on_what_lies_far_below() {
        let close = places(&[(0.95, 1)]);
        let more = places(&[(0.95, 1), (0.7, 2), (0.5, 3)]);
        assert_eq!(margin(&close, 0), margin(&more, 0));
    }

    #[test]
    fn density_counts_what_is_as_near_or_little_farther() {
        let p = places(&[(0.95, 1), (0.94, 2), (0.925, 3), (0.90, 4)]);
        assert_eq!(
            (0..4).map(|at| density(&p, at)).collect::<Vec<_>>(),
            [2, 2, 3, 3]
        );
    }

    #[test]
    fn the_most_useful_comes_first_and_of_equals_the_more_similar() {
        let serve = |utility| {
            Some(Decision::Serve {
                probability: None,
                utility,
            })
        };
        let decisions = [serve(0.1), None, serve(f64::NAN), serve(0.3), serve(0.1)];
        assert_eq!(by_utility(&decisions), [3, 0, 4, 2]);
    }
}
