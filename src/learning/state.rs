//! All that was learnt, and the operations that it is made of.
//!
//! A process applies each operation to its own state at once, writes the state to its file, and where a
//! tier is shared applies the same operations to the state that lies there. So all processes that share a
//! tier come to the same state, in whatever order their operations arrive; sums and sets do not depend on
//! it, and the bets of the breaker hold in any order.
//!
//! Always true: the state is bounded, holds no text, and what is read back was checked.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::breaker::{EProcess, PageHinkley};
use super::caps::Spent;
use super::estimate::Audits;
use super::freshness::Ages;
use super::posterior::{Posterior, Spread, Step};
use super::{LabelSource, Purse};
use crate::clock::Timestamp;
use crate::config::LearningConfig;
use crate::entry::EntryId;
use crate::error::{Error, ErrorKind, Result};
use crate::policy::Category;

const MAGIC: [u8; 8] = *b"ASKLEARN";
/// Version 1 had no groups and no ages.
const VERSION: u16 = 2;

/// Magic, version, checksum.
const HEAD: usize = 8 + 2 + 4;

/// Entries that labels are kept of. Of more, those that were labelled least lately go.
const MOST_RECORDS: usize = 16_384;

/// Entries that reports of wrong hits are kept of.
const MOST_ACCUSED: usize = 8_192;

/// Categories that are told apart; labels of others make no estimate.
const MOST_CATEGORIES: usize = 256;

/// Queries kept of an entry that was wrong for them.
const MOST_QUERIES: usize = 16;

/// Entries that are kept in answer groups. Of more, those that joined least lately leave.
const MOST_GROUPED: usize = 8_192;

/// Entries of one answer group.
const MOST_MEMBERS: usize = 16;

/// Principals whose reports of one entry quarantine it.
const ACCUSERS: usize = 2;

/// Something that was learnt.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Op {
    /// A label of a candidate.
    Label {
        entry: EntryId,
        category: String,
        step: Step,
        source: LabelSource,
        right: bool,
        /// Whether the policy was in doubt.
        grey: bool,
        at: Timestamp,
    },
    /// Somebody found a hit wrong.
    Wrong {
        entry: EntryId,
        /// Fingerprint of the query that it must not answer.
        query: [u8; 32],
        accuser: u64,
        at: Timestamp,
    },
    /// A hit was audited, and a label came of it.
    Audit {
        category: String,
        wrong: bool,
        weight: f64,
        uniform: bool,
        /// How old the answer was.
        age: Duration,
        at: Timestamp,
    },
    /// The answers of two entries were found to say the same.
    Merge {
        one: EntryId,
        other: EntryId,
        at: Timestamp,
    },
    /// A call was made.
    Spent {
        purse: Purse,
        calls: u64,
        usd: f64,
        at: Timestamp,
    },
    /// The breakers begin anew: of one category, or of all.
    Reset { category: Option<String> },
}

/// What applying an operation brought about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Effect {
    /// The entry of the operation is exact only from now on.
    pub(crate) quarantined: bool,
    /// The category of the operation serves nothing by similarity from now on.
    pub(crate) tripped: bool,
    /// The share of right answers in the grey band has changed.
    pub(crate) drifted: bool,
    /// The entries of the operation give one answer from now on.
    pub(crate) merged: bool,
}

impl Op {
    /// The entries that it is about.
    fn entries(&self) -> Vec<EntryId> {
        match self {
            Self::Label { entry, .. } | Self::Wrong { entry, .. } => vec![*entry],
            Self::Merge { one, other, .. } => vec![*one, *other],
            Self::Audit { .. } | Self::Spent { .. } | Self::Reset { .. } => Vec::new(),
        }
    }
}

/// An entry's place in an answer group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Grouped {
    /// The least id among those that were merged.
    pub(crate) group: u64,
    at: Timestamp,
}

/// What is held against an entry.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Accused {
    by: Vec<u64>,
    pub(crate) queries: Vec<[u8; 32]>,
    at: Timestamp,
}

impl Accused {
    /// Whether enough distinct principals found it wrong.
    pub(crate) fn quarantined(&self) -> bool {
        self.by.len() >= ACCUSERS
    }
}

/// Labels of one source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counts {
    pub(crate) right: u64,
    pub(crate) wrong: u64,
}

/// What is known of one category.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct CategoryState {
    pub(crate) labels: BTreeMap<LabelSource, Counts>,
    pub(crate) audits: Audits,
    /// Uniformly drawn audits, and how many of them found a wrong hit, since the last reset.
    pub(crate) uniform: u64,
    pub(crate) uniform_wrong: u64,
    pub(crate) breaker: EProcess,
    pub(crate) tripped: bool,
    pub(crate) grey: PageHinkley,
    pub(crate) drifts: u64,
    pub(crate) spread: Spread,
}

/// All that was learnt.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) records: HashMap<EntryId, Posterior>,
    pub(crate) accused: HashMap<EntryId, Accused>,
    pub(crate) categories: BTreeMap<String, CategoryState>,
    pub(crate) spent: BTreeMap<Purse, Spent>,
    /// Entries whose answers were found to be interchangeable with others'. Records stay those of entries, so
    /// that operations add up in any order; what is read is the sum over the group.
    #[serde(skip)]
    pub(crate) groups: HashMap<EntryId, Grouped>,
    /// Audits by the age of the answer, by category.
    #[serde(skip)]
    pub(crate) ages: BTreeMap<String, Ages>,
}

impl State {
    pub(crate) fn apply(&mut self, op: &Op, config: &LearningConfig) -> Effect {
        let mut effect = Effect::default();
        match op {
            Op::Label {
                entry,
                category,
                step,
                source,
                right,
                grey,
                at,
            } => {
                if let Some(category) = self.category(category) {
                    let counts = category.labels.entry(*source).or_default();
                    counts.right += u64::from(*right);
                    counts.wrong += u64::from(!*right);
                    if *grey {
                        effect.drifted = category.grey.add(f64::from(u8::from(*right)));
                        category.drifts += u64::from(effect.drifted);
                    }
                }
                let mut unused = Spread::default();
                let spread = self
                    .categories
                    .get_mut(category)
                    .map_or(&mut unused, |category| &mut category.spread);
                let record = self.records.entry(*entry).or_default();
                record.add(*step, *at, config.retention_per_day, spread);
                shrink(&mut self.records, MOST_RECORDS, Posterior::last);
            }
            Op::Wrong {
                entry,
                query,
                accuser,
                at,
            } => {
                let accused = self.accused.entry(*entry).or_default();
                let before = accused.quarantined();
                if !accused.by.contains(accuser) && accused.by.len() < ACCUSERS {
                    accused.by.push(*accuser);
                }
                if !accused.queries.contains(query) && accused.queries.len() < MOST_QUERIES {
                    accused.queries.push(*query);
                }
                accused.at = accused.at.max(*at);
                effect.quarantined = accused.quarantined() && !before;
                // What one of a group is accused of may be true of all: each is by itself again.
                if let Some(own) = self.groups.get(entry).map(|own| own.group) {
                    self.groups.retain(|_, other| other.group != own);
                }
                shrink(&mut self.accused, MOST_ACCUSED, |accused| accused.at);
            }
            Op::Audit {
                category,
                wrong,
                weight,
                uniform,
                age,
                at,
            } => {
                let name = category;
                let Some(category) = self.category(category) else {
                    return effect;
                };
                category
                    .audits
                    .add(*wrong, *weight, *at, config.retention_per_day);
                if *uniform {
                    category.uniform += 1;
                    category.uniform_wrong += u64::from(*wrong);
                    category.breaker.add(*wrong, config.breaker.bound);
                    let trips = category.breaker.wealth() >= 1.0 / config.breaker.false_alarm;
                    effect.tripped = trips && !category.tripped && config.breaker.enabled;
                    category.tripped |= effect.tripped;
                }
                let ages = self.ages.entry(name.clone()).or_default();
                ages.add(*age, *wrong, *weight, *at, config.retention_per_day);
            }
            Op::Merge { one, other, at } => effect.merged = self.merge(*one, *other, *at),
            Op::Spent {
                purse,
                calls,
                usd,
                at,
            } => {
                let spent = self.spent.entry(*purse).or_default();
                spent.charge(*at, *calls, *usd);
            }
            Op::Reset { category } => {
                for (name, state) in &mut self.categories {
                    if category.as_ref().is_none_or(|category| category == name) {
                        state.breaker = EProcess::default();
                        (state.uniform, state.uniform_wrong) = (0, 0);
                        state.tripped = false;
                        state.grey = PageHinkley::default();
                    }
                }
            }
        }
        effect
    }

    /// Puts two entries, and those that each gives one answer with, into one group. Not those that were found
    /// wrong for anything, and not into a group without end.
    fn merge(&mut self, one: EntryId, other: EntryId, at: Timestamp) -> bool {
        let pair = [one, other];
        if one == other || pair.iter().any(|entry| self.accused.contains_key(entry)) {
            return false;
        }
        let groups = pair.map(|entry| self.group(entry).unwrap_or(entry.get()));
        let group = groups[0].min(groups[1]);
        let mut members: HashSet<_> = HashSet::from(pair);
        for entry in pair {
            members.extend(self.members(entry));
        }
        if members.len() > MOST_MEMBERS {
            return false;
        }
        for entry in members {
            self.groups.entry(entry).or_default().group = group;
        }
        for entry in pair {
            if let Some(grouped) = self.groups.get_mut(&entry) {
                grouped.at = grouped.at.max(at);
            }
        }
        shrink(&mut self.groups, MOST_GROUPED, |grouped| grouped.at);
        true
    }

    /// The answer group of an entry.
    pub(crate) fn group(&self, entry: EntryId) -> Option<u64> {
        self.groups.get(&entry).map(|grouped| grouped.group)
    }

    /// The entries that give one answer with this one, itself among them.
    fn members(&self, entry: EntryId) -> Vec<EntryId> {
        let Some(group) = self.group(entry) else {
            return vec![entry];
        };
        let others = self.groups.iter().filter(|(_, other)| other.group == group);
        others.map(|(member, _)| *member).collect()
    }

    /// The entries that an operation is about, and those in their groups.
    pub(crate) fn touched(&self, op: &Op) -> Vec<EntryId> {
        let entries = op.entries().into_iter();
        entries.flat_map(|entry| self.members(entry)).collect()
    }

    /// What the labels of an entry and of its answer group say together.
    pub(crate) fn pooled(&self, entry: EntryId, retention: f64) -> Posterior {
        let records = self.members(entry).into_iter();
        let records = records.filter_map(|member| self.records.get(&member));
        records.fold(Posterior::default(), |sum, record| {
            sum.plus(*record, retention)
        })
    }

    fn category(&mut self, name: &str) -> Option<&mut CategoryState> {
        if !self.categories.contains_key(name) && self.categories.len() >= MOST_CATEGORIES {
            return None;
        }
        Some(self.categories.entry(name.to_owned()).or_default())
    }

    /// The variance of the entries' shifts in a category.
    pub(crate) fn variance(&self, category: &str, prior: f64) -> f64 {
        self.categories
            .get(category)
            .map_or(prior, |category| category.spread.variance(prior))
    }

    /// The categories that serve nothing by similarity.
    pub(crate) fn tripped(&self) -> HashSet<Category> {
        let tripped = self.categories.iter().filter(|(_, state)| state.tripped);
        tripped.map(|(name, _)| Category::named(name)).collect()
    }

    /// The state as bytes, with what tells damage.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] when it cannot be written, which no state is known to cause.
    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        let body = postcard::to_stdvec(&(self, &self.groups, &self.ages)).map_err(|error| {
            Error::new(ErrorKind::Corrupt, "what was learnt has no bytes").caused_by(error)
        })?;
        let mut bytes = Vec::with_capacity(HEAD + body.len());
        bytes.extend(MAGIC);
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend(crc32fast::hash(&body).to_le_bytes());
        bytes.extend(body);
        Ok(bytes)
    }

    /// # Errors
    /// [`ErrorKind::Corrupt`] when the bytes are damaged, or of another version.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        let refuse = |what: &'static str| Error::new(ErrorKind::Corrupt, what);
        let Some((head, body)) = bytes.split_at_checked(HEAD) else {
            return Err(refuse("what was learnt ends too soon"));
        };
        if head[..8] != MAGIC {
            return Err(refuse("these bytes are not what was learnt"));
        }
        let version = u16::from_le_bytes([head[8], head[9]]);
        if !(1..=VERSION).contains(&version) {
            return Err(
                refuse("what was learnt was written by another version").with("version", version)
            );
        }
        let checksum = u32::from_le_bytes([head[10], head[11], head[12], head[13]]);
        if checksum != crc32fast::hash(body) {
            return Err(refuse("what was learnt is damaged"));
        }
        let unreadable =
            |error: postcard::Error| refuse("what was learnt cannot be read").caused_by(error);
        let (mut state, later): (Self, _) = postcard::take_from_bytes(body).map_err(unreadable)?;
        if version > 1 {
            (state.groups, state.ages) = postcard::from_bytes(later).map_err(unreadable)?;
        }
        Ok(state)
    }
}

/// Takes out the oldest tenth once there are too many.
fn shrink<T>(held: &mut HashMap<EntryId, T>, most: usize, age: impl Fn(&T) -> Timestamp) {
    if held.len() <= most {
        return;
    }
    let mut ages: Vec<_> = held.iter().map(|(id, value)| (age(value), *id)).collect();
    ages.sort_unstable();
    for (_, id) in &ages[..most / 10 + 1] {
        held.remove(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(1_790_000_000_000 + millis)
    }

    fn wrong(entry: u64, query: u8, accuser: u64) -> Op {
        Op::Wrong {
            entry: EntryId::new(entry),
            query: [query; 32],
            accuser,
            at: at(0),
        }
    }

    fn label(entry: u64, right: bool, millis: u64) -> Op {
        Op::Label {
            entry: EntryId::new(entry),
            category: String::new(),
            step: Step::new(0.5, 0.0, right, 1.0),
            source: LabelSource::Miss,
            right,
            grey: true,
            at: at(millis),
        }
    }

    #[test]
    fn two_distinct_principals_quarantine_an_entry_and_one_alone_never_does() {
        let (mut state, config) = (State::default(), LearningConfig::default());
        for query in 0..10 {
            assert!(!state.apply(&wrong(1, query, 7), &config).quarantined);
        }
        assert!(state.apply(&wrong(1, 0, 8), &config).quarantined);
        // It is news once.
        assert!(!state.apply(&wrong(1, 1, 9), &config).quarantined);
        assert!(state.accused[&EntryId::new(1)].quarantined());
    }

    #[test]
    fn a_state_is_the_same_after_it_was_written_and_damage_is_told() {
        let (mut state, config) = (State::default(), LearningConfig::default());
        for entry in 0..50 {
            state.apply(&label(entry, entry % 3 == 0, entry), &config);
            state.apply(&wrong(entry, 1, entry), &config);
        }
        let bytes = state.encode().unwrap();
        assert_eq!(State::decode(&bytes).unwrap(), state);
        for damaged in [0, 8, 10, 20, bytes.len() - 1] {
            let mut bytes = bytes.clone();
            bytes[damaged] ^= 0x55;
            assert_eq!(
                State::decode(&bytes).unwrap_err().kind(),
                ErrorKind::Corrupt
            );
        }
        assert!(State::decode(&bytes[..bytes.len() - 1]).is_err());
        assert!(State::decode(&[]).is_err());
    }

    #[test]
    fn a_state_stays_bounded_and_keeps_what_is_new() {
        let (mut state, config) = (State::default(), LearningConfig::default());
        let many = MOST_RECORDS as u64 + 5_000;
        for entry in 0..many {
            state.apply(&label(entry, true, entry), &config);
        }
        assert!(state.records.len() <= MOST_RECORDS);
        assert!(state.records.contains_key(&EntryId::new(many - 1)));
        assert!(!state.records.contains_key(&EntryId::new(0)));
    }

    fn merge(one: u64, other: u64) -> Op {
        let [one, other] = [one, other].map(EntryId::new);
        Op::Merge {
            one,
            other,
            at: at(0),
        }
    }

    #[test]
    fn a_group_shares_its_labels_and_ends_when_one_of_it_is_found_wrong() {
        let (mut state, config) = (State::default(), LearningConfig::default());
        let pooled = |state: &State, entry| {
            let pooled = state.pooled(EntryId::new(entry), config.retention_per_day);
            pooled.record(1.0, at(0), config.retention_per_day)
        };
        state.apply(&label(1, true, 0), &config);
        assert!(state.apply(&merge(1, 2), &config).merged);
        assert!(state.apply(&merge(3, 2), &config).merged);
        assert!(pooled(&state, 3).shift > 0.0);
        assert_eq!(pooled(&state, 3), pooled(&state, 1));
        state.apply(&label(3, true, 0), &config);
        assert!(pooled(&state, 2).precision > pooled(&state, 4).precision);
        assert_eq!(State::decode(&state.encode().unwrap()).unwrap(), state);

        state.apply(&wrong(2, 0, 7), &config);
        assert!(state.groups.is_empty());
        assert_eq!(pooled(&state, 2).precision, 0.0);
        assert!(
            !state.apply(&merge(1, 2), &config).merged,
            "it was wrong once"
        );
        assert!(!state.apply(&merge(1, 1), &config).merged);
    }

    #[test]
    fn groups_are_bounded_in_size_and_number() {
        let (mut state, config) = (State::default(), LearningConfig::default());
        for entry in 1..=100 {
            state.apply(&merge(0, entry), &config);
        }
        assert_eq!(state.groups.len(), MOST_MEMBERS);
        for pair in 0..MOST_GROUPED as u64 {
            let first = 1_000 + 2 * pair;
            state.apply(&merge(first, first + 1), &config);
        }
        assert!(state.groups.len() <= MOST_GROUPED);
    }

    #[test]
    fn a_state_of_version_1_is_read() {
        let (mut state, config) = (State::default(), LearningConfig::default());
        state.apply(&label(1, true, 0), &config);
        let body = postcard::to_stdvec(&state).unwrap();
        let mut bytes = MAGIC.to_vec();
        bytes.extend(1_u16.to_le_bytes());
        bytes.extend(crc32fast::hash(&body).to_le_bytes());
        bytes.extend(body);
        assert_eq!(State::decode(&bytes).unwrap(), state);
    }

    #[test]
    fn a_reset_lets_a_category_serve_again() {
        let (mut state, config) = (State::default(), LearningConfig::default());
        let audit = |category: &str| Op::Audit {
            category: category.to_owned(),
            wrong: true,
            weight: 1.0,
            uniform: true,
            age: Duration::ZERO,
            at: at(0),
        };
        let mut tripped = false;
        for _ in 0..20 {
            tripped |= state.apply(&audit("a"), &config).tripped;
            state.apply(&audit("b"), &config);
        }
        assert!(tripped);
        assert_eq!(state.tripped().len(), 2);
        let category = Some("a".to_owned());
        state.apply(&Op::Reset { category }, &config);
        assert_eq!(state.tripped(), HashSet::from([Category::named("b")]));
        state.apply(&Op::Reset { category: None }, &config);
        assert!(state.tripped().is_empty());
    }

    proptest! {
        #[test]
        fn sums_and_sets_do_not_depend_on_the_order_of_operations(
            ops in prop::collection::vec((0_u64..4, any::<bool>(), 0_u8..3, 0_u64..4), 1..40),
            turn in 0_usize..40,
        ) {
            let config = LearningConfig::default();
            let ops: Vec<_> = ops
                .into_iter()
                .flat_map(|(entry, right, query, who)| [label(entry, right, 0), wrong(entry, query, who)])
                .collect();
            let run = |ops: &[Op]| {
                let mut state = State::default();
                for op in ops {
                    state.apply(op, &config);
                }
                state
            };
            let mut turned = ops.clone();
            turned.rotate_left(turn % ops.len());
            let (one, other) = (run(&ops), run(&turned));
            for (entry, accused) in &one.accused {
                prop_assert_eq!(accused.quarantined(), other.accused[entry].quarantined());
            }
            for (entry, record) in &one.records {
                let (one, other) = (
                    record.record(1.0, at(0), 0.98),
                    other.records[entry].record(1.0, at(0), 0.98),
                );
                prop_assert!((one.shift - other.shift).abs() < 1e-4);
            }
            prop_assert_eq!(&one.categories[""].labels, &other.categories[""].labels);
        }
    }
}
