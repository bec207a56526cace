//! Who is stored and who is asked, in which order.
//!
//! | order | what happens |
//! |---|---|
//! | [`Order::Retrieval`] | half of the texts are stored, then the other half is asked |
//! | [`Order::Pairs`] | one text of each labelled pair is stored, then the other is asked |
//! | [`Order::Random`] | every text is asked, in random order, and stored |
//! | [`Order::Bursty`] | the same, but an answer that was asked for is likely asked for again soon |
//! | [`Order::Time`] | the same, in the order of the file |
//!
//! No text is both stored and asked before it is stored, and no text is asked twice, so nothing matches
//! exactly. The same seed gives the same stream.

use std::collections::{HashMap, HashSet, VecDeque};

use super::corpus::{AnswerId, Set, TextId};
use super::seed::Rng;
use super::split::Part;

/// The order of requests.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, clap::ValueEnum,
)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Order {
    /// Half of the texts stored, the other half asked: a cache that neither grows nor shrinks.
    Retrieval,
    /// Labelled pairs: the near-misses of a set are stored, and what they are near to is asked. Only what
    /// labels compare counts.
    Pairs,
    /// A stream in random order through a cache that fills.
    Random,
    /// A stream in which few answers are popular and come in bursts.
    Bursty,
    /// A stream in the order of the file's rows: that of time, where the file is a log.
    Time,
}

impl Order {
    /// The name in reports and on the command line.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Retrieval => "retrieval",
            Self::Pairs => "pairs",
            Self::Random => "random",
            Self::Bursty => "bursty",
            Self::Time => "time",
        }
    }

    /// Whether the cache fills while it is asked.
    pub(crate) const fn fills(self) -> bool {
        matches!(self, Self::Random | Self::Bursty | Self::Time)
    }
}

/// What is stored first, and what is asked then.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Stored before anything is asked.
    pub(crate) stored: Vec<TextId>,
    /// Asked in this order.
    pub(crate) asked: Vec<TextId>,
    /// Whether what was asked is stored then.
    pub(crate) fills: bool,
    /// Pairs that could not be asked, because each text of theirs has the other role in another pair.
    pub(crate) left_out: usize,
}

/// Plans the requests of one set; `limit` is the most that are asked.
pub(crate) fn plan(
    set: &Set,
    parts: &[Part],
    order: Order,
    seed: u64,
    limit: Option<usize>,
) -> Plan {
    let mut rng = Rng::new(seed);
    match order {
        Order::Retrieval => {
            let (stored, asked) = set
                .members_of(parts)
                .into_iter()
                .partition::<Vec<_>, _>(|_| rng.coin());
            Plan {
                stored,
                asked: rng.sample(asked, limit),
                ..Plan::default()
            }
        }
        Order::Pairs => pairs(set, parts, &mut rng, limit),
        Order::Random | Order::Bursty | Order::Time => {
            let members = whole_groups(set, set.members_of(parts), &mut rng, limit);
            let asked = match order {
                Order::Random => rng.sample(members, None),
                Order::Bursty => bursty(set, members, &mut rng),
                _ => members,
            };
            Plan {
                asked,
                fills: true,
                ..Plan::default()
            }
        }
    }
}

/// Gives each text of the pairs one role, in random order, as far as that goes.
fn pairs(set: &Set, parts: &[Part], rng: &mut Rng, limit: Option<usize>) -> Plan {
    let mut plan = Plan::default();
    let (mut stored, mut asked) = (HashSet::new(), HashSet::new());
    for pair in rng.sample(set.pairs_of(parts), None) {
        if limit.is_some_and(|limit| plan.asked.len() >= limit) {
            break;
        }
        let free = |store: TextId, ask: TextId| {
            store != ask && !asked.contains(&store) && !stored.contains(&ask)
        };
        let (store, ask) = match (free(pair.a, pair.b), free(pair.b, pair.a)) {
            (true, true) if rng.coin() => (pair.b, pair.a),
            (true, _) => (pair.a, pair.b),
            (false, true) => (pair.b, pair.a),
            (false, false) => {
                plan.left_out += 1;
                continue;
            }
        };
        if stored.insert(store) {
            plan.stored.push(store);
        }
        if asked.insert(ask) {
            plan.asked.push(ask);
        }
    }
    plan
}

/// About `limit` texts, in the order they had, as whole components: a sample of single texts would hold
/// fewer duplicates than the data does.
fn whole_groups(
    set: &Set,
    members: Vec<TextId>,
    rng: &mut Rng,
    limit: Option<usize>,
) -> Vec<TextId> {
    let Some(limit) = limit.filter(|limit| *limit < members.len()) else {
        return members;
    };
    let mut sizes: HashMap<u64, usize> = HashMap::new();
    let mut groups = Vec::new();
    for &text in &members {
        let group = set.texts.group(text);
        let size = sizes.entry(group).or_insert(0);
        if *size == 0 {
            groups.push(group);
        }
        *size += 1;
    }
    let (mut taken, mut room) = (HashSet::new(), limit);
    for group in rng.sample(groups, None) {
        let size = sizes.get(&group).copied().unwrap_or(0);
        if size <= room {
            room -= size;
            taken.insert(group);
        }
    }
    members
        .into_iter()
        .filter(|text| taken.contains(&set.texts.group(*text)))
        .collect()
}

/// Chance that a request of a bursty stream asks for an answer that was asked for lately.
const AGAIN: f64 = 0.5;

/// How many requests back "lately" is.
const LATELY: usize = 32;

/// Texts in bursts: a request asks again for one of the latest answers with the chance [`AGAIN`]; any
/// other asks for an answer drawn by popularity, which falls as one over the rank (G. Zipf 1949). An answer
/// whose texts have all been asked is left out from then on.
fn bursty(set: &Set, members: Vec<TextId>, rng: &mut Rng) -> Vec<TextId> {
    let total = members.len();
    let mut by_answer: HashMap<AnswerId, VecDeque<TextId>> = HashMap::new();
    let mut answers = Vec::new();
    for text in rng.sample(members, None) {
        let answer = set.texts.answer(text);
        let texts = by_answer.entry(answer).or_default();
        if texts.is_empty() {
            answers.push(answer);
        }
        texts.push_back(text);
    }
    // Whoever comes first by an exponential clock of the speed 1/rank is drawn in Zipf's proportions
    // without repetition (P. Efraimidis, P. Spirakis 2006).
    let mut drawn: Vec<(f64, AnswerId)> = answers
        .into_iter()
        .enumerate()
        .map(|(rank, answer)| (-rng.unit().ln() * (rank + 1) as f64, answer))
        .collect();
    drawn.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut fresh: VecDeque<AnswerId> = drawn.into_iter().map(|(_, answer)| answer).collect();
    let mut lately: VecDeque<AnswerId> = VecDeque::new();
    let mut stream = Vec::with_capacity(total);
    while stream.len() < total {
        let again = (!lately.is_empty() && (rng.unit() < AGAIN || fresh.is_empty()))
            .then(|| lately.get(rng.below(lately.len())).copied())
            .flatten();
        let Some(answer) = again.or_else(|| fresh.pop_front()) else {
            break;
        };
        let Some(texts) = by_answer.get_mut(&answer) else {
            continue;
        };
        stream.extend(texts.pop_front());
        lately.retain(|other| *other != answer);
        if texts.is_empty() {
            continue;
        }
        lately.push_back(answer);
        if lately.len() > LATELY
            && let Some(oldest) = lately.pop_front()
        {
            // It may come again, but no sooner than what was never asked for.
            fresh.push_back(oldest);
        }
    }
    stream
}

#[cfg(test)]
mod tests {
    use super::super::corpus;
    use super::*;

    fn clusters() -> Set {
        corpus::golden().unwrap().remove(1)
    }

    fn golden_pairs() -> Set {
        corpus::golden().unwrap().remove(0)
    }

    const TEST: &[Part] = &[Part::Test];

    #[test]
    fn every_order_of_a_stream_asks_each_text_once() {
        let set = clusters();
        let mut all = set.members.clone();
        all.sort_unstable();
        for order in [Order::Random, Order::Bursty, Order::Time] {
            let plan = plan(&set, TEST, order, 3, None);
            let mut asked = plan.asked.clone();
            asked.sort_unstable();
            assert_eq!(asked, all, "{order:?}");
            assert!(plan.fills && plan.stored.is_empty());
        }
        assert_eq!(plan(&set, TEST, Order::Time, 3, None).asked, set.members);
    }

    #[test]
    fn texts_of_one_answer_stand_nearer_to_each_other_in_bursts() {
        let set = clusters();
        let gap = |order| {
            let asked = plan(&set, TEST, order, 3, None).asked;
            let mut last: HashMap<AnswerId, usize> = HashMap::new();
            let gaps: Vec<usize> = asked
                .iter()
                .enumerate()
                .filter_map(|(i, text)| Some(i - last.insert(set.texts.answer(*text), i)?))
                .collect();
            gaps.iter().sum::<usize>() / gaps.len()
        };
        assert!(gap(Order::Bursty) * 2 < gap(Order::Random));
    }

    #[test]
    fn stored_and_asked_texts_are_different_ones() {
        let set = golden_pairs();
        for order in [Order::Retrieval, Order::Pairs] {
            let plan = plan(&set, TEST, order, 3, None);
            let stored: HashSet<_> = plan.stored.iter().collect();
            assert!(plan.asked.iter().all(|text| !stored.contains(text)));
            assert!(plan.asked.len() > 100 && !plan.fills, "{order:?}");
        }
        let pairs = plan(&set, TEST, Order::Pairs, 3, None);
        assert!(pairs.left_out * 10 < set.pairs.len(), "{}", pairs.left_out);
    }

    #[test]
    fn the_seed_decides_and_the_limit_bounds() {
        let set = clusters();
        for order in [Order::Retrieval, Order::Random, Order::Bursty, Order::Time] {
            let at = |seed| plan(&set, TEST, order, seed, Some(50));
            assert_eq!(at(1), at(1));
            assert_ne!(at(1), at(2));
            assert!((30..=50).contains(&at(1).asked.len()), "{order:?}");
        }
    }

    #[test]
    fn a_limited_stream_keeps_whole_answers() {
        let set = clusters();
        let asked = plan(&set, TEST, Order::Random, 1, Some(80)).asked;
        let count = |texts: &[TextId], answer| {
            let of = texts
                .iter()
                .filter(|text| set.texts.answer(**text) == answer);
            of.count()
        };
        for text in &asked {
            let answer = set.texts.answer(*text);
            assert_eq!(count(&asked, answer), count(&set.members, answer));
        }
    }
}
