//! The hits of late, for reports that come after them and name no more than an entry and a query.

use std::collections::{HashMap, VecDeque};

use parking_lot::Mutex;

use super::decision_log::DecisionId;
use crate::decision::CandidateRecord;
use crate::entry::EntryId;

/// Hits that are kept.
const MOST: usize = 2_048;

/// A hit by similarity.
#[derive(Clone, Debug)]
pub(super) struct RecentHit {
    pub(super) decision: DecisionId,
    pub(super) category: Option<String>,
    pub(super) candidate: CandidateRecord,
}

#[derive(Debug, Default)]
pub(super) struct Recent(Mutex<Hits>);

#[derive(Debug, Default)]
struct Hits {
    by_pair: HashMap<(EntryId, [u8; 32]), RecentHit>,
    /// The pairs as they came, oldest first. A pair stands here once.
    order: VecDeque<(EntryId, [u8; 32])>,
    last: HashMap<EntryId, [u8; 32]>,
}

impl Recent {
    pub(super) fn keep(
        &self,
        query: [u8; 32],
        decision: DecisionId,
        candidate: CandidateRecord,
        category: Option<String>,
    ) {
        let mut hits = self.0.lock();
        let pair = (candidate.entry, query);
        let hit = RecentHit {
            decision,
            category,
            candidate,
        };
        hits.last.insert(candidate.entry, query);
        if hits.by_pair.insert(pair, hit).is_some() {
            return;
        }
        hits.order.push_back(pair);
        if hits.order.len() > MOST
            && let Some(oldest) = hits.order.pop_front()
        {
            hits.by_pair.remove(&oldest);
            if hits.last.get(&oldest.0) == Some(&oldest.1) {
                hits.last.remove(&oldest.0);
            }
        }
    }

    /// The hit of an entry on a query, or its last one.
    pub(super) fn find(&self, entry: EntryId, query: Option<[u8; 32]>) -> Option<RecentHit> {
        let hits = self.0.lock();
        let query = match query {
            Some(query) => query,
            None => *hits.last.get(&entry)?,
        };
        hits.by_pair.get(&(entry, query)).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Evidence;

    #[test]
    fn hits_are_found_by_pair_or_entry_and_the_oldest_go() {
        let recent = Recent::default();
        let candidate = |entry: u64| CandidateRecord {
            entry: EntryId::new(entry),
            evidence: Evidence::similarity(0.9),
            right: None,
        };
        for entry in 0..3_000 {
            recent.keep([1; 32], entry, candidate(entry), None);
            recent.keep([1; 32], entry, candidate(entry), None);
        }
        assert!(recent.find(EntryId::new(0), None).is_none());
        let hit = recent.find(EntryId::new(2_999), Some([1; 32])).unwrap();
        assert_eq!(hit.decision, 2_999);
        assert!(recent.find(EntryId::new(2_999), Some([2; 32])).is_none());
        assert!(recent.find(EntryId::new(2_999), None).is_some());
        let hits = recent.0.lock();
        assert_eq!((hits.by_pair.len(), hits.last.len()), (MOST, MOST));
    }
}
