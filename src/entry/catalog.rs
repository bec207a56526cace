//! The entries that are alive on this node, found by id, key, tag or expiry.
//!
//! The catalogue is what lets an index row lead to a key, an eviction lead to an index row, and an
//! invalidation lead to entries. It holds no text and no answer. A row is present from just after its
//! entry was stored until the entry is removed; rows of entries that died in their tier are taken out
//! when somebody notices, so a row is a lead, never a proof.
//!
//! One lock, held for map operations only.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;

use super::EntryId;
use crate::clock::Timestamp;
use crate::request::{ExactKey, PartitionKey, Scope};

/// What the catalogue knows of one entry.
#[derive(Clone, Debug)]
pub struct Row {
    /// The key that the entry is stored under.
    pub exact: ExactKey,
    /// Where the entry may be compared by similarity.
    pub partition: PartitionKey,
    /// Whom the entry belongs to.
    pub scope: Scope,
    /// The model that answered.
    pub model: Arc<str>,
    /// Labels to invalidate by.
    pub tags: Arc<[String]>,
    /// When the entry was stored.
    pub created: Timestamp,
    /// From when on it is dead.
    pub expires: Option<Timestamp>,
}

/// Bytes that a row costs beside the tags' text: the row, five map slots and their slack.
pub const ROW_BYTES: usize = 512;

/// Which entries an invalidation means.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Selector {
    /// One entry.
    Entry(EntryId),
    /// The entry stored for exactly this request.
    Key(ExactKey),
    /// Everything of one scope.
    Scope(Scope),
    /// Everything that carries a tag.
    Tag(String),
    /// Everything that a model answered.
    Model(String),
    /// Everything stored at least this long ago.
    OlderThan(Duration),
    /// Everything.
    All,
    /// What another selector means, as far as it belongs to one scope.
    Within(Scope, Box<Selector>),
}

impl Selector {
    /// Everything that carries `tag`.
    pub fn tag(tag: impl Into<String>) -> Self {
        Self::Tag(tag.into())
    }

    /// Everything that `model` answered.
    pub fn model(model: impl Into<String>) -> Self {
        Self::Model(model.into())
    }

    /// What this selector means, as far as it belongs to `scope`.
    #[must_use]
    pub fn within(self, scope: Scope) -> Self {
        Self::Within(scope, Box::new(self))
    }

    /// Whether an entry is meant, judged at `now`.
    #[must_use]
    pub fn matches(&self, id: EntryId, row: &Row, now: Timestamp) -> bool {
        match self {
            Self::Entry(entry) => *entry == id,
            Self::Key(key) => *key == row.exact,
            Self::Scope(scope) => *scope == row.scope,
            Self::Tag(tag) => row.tags.contains(tag),
            Self::Model(model) => **model == *row.model,
            Self::OlderThan(age) => now.since(row.created) >= *age,
            Self::All => true,
            Self::Within(scope, selector) => *scope == row.scope && selector.matches(id, row, now),
        }
    }

    /// The selector without the scopes that it is limited to.
    pub(crate) fn innermost(&self) -> &Self {
        match self {
            Self::Within(_, selector) => selector.innermost(),
            _ => self,
        }
    }

    /// The stable name used in metrics and reports.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Entry(_) => "entry",
            Self::Key(_) => "key",
            Self::Scope(_) => "scope",
            Self::Tag(_) => "tag",
            Self::Model(_) => "model",
            Self::OlderThan(_) => "older_than",
            Self::All => "all",
            Self::Within(_, selector) => selector.as_str(),
        }
    }
}

/// The live entries of one cache.
#[derive(Debug, Default)]
pub struct Catalog {
    state: RwLock<State>,
}

#[derive(Debug, Default)]
struct State {
    rows: HashMap<EntryId, Row>,
    by_key: HashMap<ExactKey, EntryId>,
    by_tag: HashMap<String, HashSet<EntryId>>,
    by_scope: HashMap<Scope, HashSet<EntryId>>,
    by_model: HashMap<Arc<str>, HashSet<EntryId>>,
    by_expiry: BTreeSet<(Timestamp, EntryId)>,
}

impl Catalog {
    /// Adds an entry and returns the one that it replaces: the one stored for the same request.
    pub fn insert(&self, id: EntryId, row: Row) -> Option<(EntryId, Row)> {
        let mut state = self.state.write();
        let replaced = state.by_key.insert(row.exact, id);
        for tag in row.tags.iter() {
            state.by_tag.entry(tag.clone()).or_default().insert(id);
        }
        if let Some(of_scope) = state.by_scope.get_mut(&row.scope) {
            of_scope.insert(id);
        } else {
            state
                .by_scope
                .insert(row.scope.clone(), HashSet::from([id]));
        }
        if let Some(of_model) = state.by_model.get_mut(&row.model) {
            of_model.insert(id);
        } else {
            let model = Arc::clone(&row.model);
            state.by_model.insert(model, HashSet::from([id]));
        }
        if let Some(expires) = row.expires {
            state.by_expiry.insert((expires, id));
        }
        state.rows.insert(id, row);
        let old = replaced.filter(|old| *old != id)?;
        state.take(old).map(|row| (old, row))
    }

    /// The row of an entry.
    #[must_use]
    pub fn get(&self, id: EntryId) -> Option<Row> {
        self.state.read().rows.get(&id).cloned()
    }

    /// The key and expiry of an entry: what a search needs, without cloning the row.
    #[must_use]
    pub fn locate(&self, id: EntryId) -> Option<(ExactKey, Option<Timestamp>)> {
        self.state
            .read()
            .rows
            .get(&id)
            .map(|row| (row.exact, row.expires))
    }

    /// The entries that are there, by the partition that each is in.
    #[must_use]
    pub fn by_partition(&self, ids: &[EntryId]) -> HashMap<PartitionKey, Vec<EntryId>> {
        let state = self.state.read();
        let mut partitions: HashMap<PartitionKey, Vec<EntryId>> = HashMap::new();
        for id in ids {
            if let Some(row) = state.rows.get(id) {
                partitions.entry(row.partition).or_default().push(*id);
            }
        }
        partitions
    }

    /// The entry stored under a key.
    #[must_use]
    pub fn id_of(&self, key: &ExactKey) -> Option<EntryId> {
        self.state.read().by_key.get(key).copied()
    }

    /// Takes an entry out.
    pub fn remove(&self, id: EntryId) -> Option<Row> {
        self.state.write().take(id)
    }

    /// The entries that `selector` means at `now`.
    #[must_use]
    pub fn select(&self, selector: &Selector, now: Timestamp) -> Vec<EntryId> {
        self.state.read().select(selector, now)
    }

    /// At most `limit` of the entries that `selector` means at `now`, the newest first; with `model`, only those
    /// that it answered.
    #[must_use]
    pub fn newest(
        &self,
        selector: &Selector,
        model: Option<&str>,
        now: Timestamp,
        limit: usize,
    ) -> Vec<(EntryId, Row)> {
        let state = self.state.read();
        let mut newest = BinaryHeap::new();
        for id in state.select(selector, now) {
            let Some(row) = state.rows.get(&id) else {
                continue;
            };
            if model.is_some_and(|model| *model != *row.model) {
                continue;
            }
            // The oldest is on top, and goes when there are too many.
            newest.push(Reverse((row.created, id)));
            if newest.len() > limit {
                newest.pop();
            }
        }
        let newest = newest.into_sorted_vec();
        newest
            .into_iter()
            .filter_map(|Reverse((_, id))| Some((id, state.rows.get(&id)?.clone())))
            .collect()
    }

    /// At most `limit` entries that are dead at `now`, the longest dead first.
    #[must_use]
    pub fn expired(&self, now: Timestamp, limit: usize) -> Vec<EntryId> {
        let state = self.state.read();
        state
            .by_expiry
            .iter()
            .take_while(|(expires, _)| *expires <= now)
            .take(limit)
            .map(|(_, id)| *id)
            .collect()
    }

    /// Number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.state.read().rows.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl State {
    fn select(&self, selector: &Selector, now: Timestamp) -> Vec<EntryId> {
        match selector {
            Selector::Entry(id) => self
                .rows
                .contains_key(id)
                .then_some(*id)
                .into_iter()
                .collect(),
            Selector::Key(key) => self.by_key.get(key).copied().into_iter().collect(),
            Selector::Tag(tag) => listed(self.by_tag.get(tag)),
            Selector::Scope(scope) => listed(self.by_scope.get(scope)),
            Selector::Model(model) => listed(self.by_model.get(&**model)),
            Selector::Within(scope, inner) if matches!(**inner, Selector::All) => {
                listed(self.by_scope.get(scope))
            }
            Selector::Within(scope, inner) => {
                let mut ids = self.select(inner, now);
                ids.retain(|id| self.rows.get(id).is_some_and(|row| row.scope == *scope));
                ids
            }
            _ => self
                .rows
                .iter()
                .filter(|(id, row)| selector.matches(**id, row, now))
                .map(|(id, _)| *id)
                .collect(),
        }
    }

    fn take(&mut self, id: EntryId) -> Option<Row> {
        let row = self.rows.remove(&id)?;
        if self.by_key.get(&row.exact) == Some(&id) {
            self.by_key.remove(&row.exact);
        }
        for tag in row.tags.iter() {
            unlist(&mut self.by_tag, tag, id);
        }
        unlist(&mut self.by_scope, &row.scope, id);
        unlist(&mut self.by_model, &row.model, id);
        if let Some(expires) = row.expires {
            self.by_expiry.remove(&(expires, id));
        }
        Some(row)
    }
}

fn listed(ids: Option<&HashSet<EntryId>>) -> Vec<EntryId> {
    ids.into_iter().flatten().copied().collect()
}

/// Takes an entry off one of the lists, and an empty list out of the map.
fn unlist<K: Hash + Eq>(lists: &mut HashMap<K, HashSet<EntryId>>, key: &K, id: EntryId) {
    if let Some(ids) = lists.get_mut(key) {
        ids.remove(&id);
        if ids.is_empty() {
            lists.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Request;

    #[test]
    fn what_a_selector_lists_is_what_it_matches() {
        let catalog = Catalog::default();
        let now = Timestamp::from_millis(0);
        let row = |bits: u64| {
            let scope = Scope::tenant(format!("t{}", bits % 3));
            let request = Request::prompt(format!("{bits}")).scope(scope.clone());
            Row {
                exact: request.exact_key(),
                partition: request.partition(),
                scope,
                model: format!("m{}", bits % 4).into(),
                tags: [format!("tag{}", bits % 5)].into(),
                created: now,
                expires: None,
            }
        };
        let selectors = [
            Selector::Scope(Scope::tenant("t1")),
            Selector::model("m2"),
            Selector::tag("tag3"),
            Selector::All,
            Selector::All.within(Scope::tenant("t2")),
            Selector::model("m1").within(Scope::tenant("t0")),
            Selector::Scope(Scope::tenant("nobody")),
        ];
        let check = |alive: &[u64]| {
            for selector in &selectors {
                let mut listed = catalog.select(selector, now);
                listed.sort_unstable();
                let means = |bits: &u64| selector.matches(EntryId::new(*bits), &row(*bits), now);
                let matched = alive.iter().copied().filter(means).map(EntryId::new);
                assert!(
                    listed.iter().copied().eq(matched),
                    "{selector:?}: {listed:?}"
                );
            }
        };
        let all: Vec<u64> = (0..120).collect();
        for bits in &all {
            catalog.insert(EntryId::new(*bits), row(*bits));
        }
        check(&all);
        let (gone, left): (Vec<_>, Vec<_>) = all.iter().partition(|bits| *bits % 7 == 0);
        for bits in gone {
            assert!(catalog.remove(EntryId::new(bits)).is_some());
        }
        check(&left);
        for bits in &left {
            catalog.remove(EntryId::new(*bits));
        }
        let state = catalog.state.read();
        assert!(state.by_scope.is_empty() && state.by_model.is_empty() && state.by_tag.is_empty());
    }

    #[test]
    fn a_selector_within_a_scope_means_nothing_of_another() {
        let catalog = Catalog::default();
        let now = Timestamp::from_millis(0);
        for (bits, tenant) in [(1, "acme"), (2, "globex")] {
            let request = Request::prompt("text").scope(Scope::tenant(tenant));
            let row = Row {
                exact: request.exact_key(),
                partition: request.partition(),
                scope: Scope::tenant(tenant),
                model: "gpt-4o".into(),
                tags: ["doc:1".to_owned()].into(),
                created: now,
                expires: None,
            };
            assert!(catalog.insert(EntryId::new(bits), row).is_none());
        }
        let selectors = [
            Selector::All,
            Selector::tag("doc:1"),
            Selector::model("gpt-4o"),
            Selector::Entry(EntryId::new(1)),
        ];
        for selector in selectors {
            let within = |tenant| selector.clone().within(Scope::tenant(tenant));
            let acme = within("acme");
            assert_eq!(catalog.select(&acme, now), [EntryId::new(1)], "{acme:?}");
            let row = catalog.get(EntryId::new(2)).unwrap();
            assert!(!acme.matches(EntryId::new(2), &row, now));
            assert!(catalog.select(&within("initech"), now).is_empty());
        }
    }
}
