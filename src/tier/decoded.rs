//! Entries as they were read of their envelopes, for those that are asked for again.
//!
//! A tier in this process gives the very bytes that it was given, shared and not copied: while it does, an
//! envelope needs to be checked and decoded once. What is kept here holds on to those bytes, so that the same
//! place in memory means the same bytes; anything else that a tier gives is read anew. Whether an entry is
//! alive, valid and meant is none of this module's business.
//!
//! Where values are encrypted nothing is kept: what is encrypted at rest stays so.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::codec::Mark;
use crate::entry::Entry;
use crate::request::ExactKey;

/// Bytes of an entry beside its envelope and its texts.
const OVERHEAD: usize = 1 << 10;
/// Bytes for each of which one entry is expected. The cache falls into parts for 32 of them or more, and keeps
/// nothing that is larger than a part.
const FOR_ONE: usize = 32 << 10;

/// An entry and the marks of its envelope.
pub(super) struct Decoded {
    pub(super) entry: Arc<Entry>,
    pub(super) marks: Vec<Mark>,
}

/// The entries that were read of late.
#[derive(Clone)]
pub(super) struct DecodedEntries(Arc<Cache<ExactKey, Held, Weigh>>);

/// An envelope that is held on to, and what was read of it.
type Held = (Bytes, Arc<Decoded>);

#[derive(Clone)]
struct Weigh;

impl Weighter<ExactKey, Held> for Weigh {
    fn weight(&self, _: &ExactKey, (bytes, _): &Held) -> u64 {
        (bytes.len() * 2 + OVERHEAD) as u64
    }
}

impl DecodedEntries {
    /// Room for so many bytes of envelopes that are held on to, and of what was read of them.
    pub(super) fn new(most_bytes: u64) -> Self {
        let items = usize::try_from(most_bytes).unwrap_or(usize::MAX) / FOR_ONE;
        Self(Arc::new(Cache::with_weighter(items, most_bytes, Weigh)))
    }

    /// What was read of these very bytes before.
    pub(super) fn get(&self, key: &ExactKey, bytes: &Bytes) -> Option<Arc<Decoded>> {
        let (read, decoded) = self.0.get(key)?;
        let same = read.as_ptr() == bytes.as_ptr() && read.len() == bytes.len();
        same.then_some(decoded)
    }

    pub(super) fn keep(&self, key: ExactKey, bytes: Bytes, decoded: Arc<Decoded>) {
        self.0.insert(key, (bytes, decoded));
    }

    pub(super) fn forget(&self, key: &ExactKey) {
        self.0.remove(key);
    }
}

impl fmt::Debug for DecodedEntries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DecodedEntries")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::entry::{Answer, EntryId, Trust};
    use crate::request::Request;
    use crate::savings::Usage;

    fn entry() -> Entry {
        Entry {
            id: EntryId::random(),
            digests: Request::prompt("hello").digests(),
            text: None,
            answer: Answer::text("hello yourself"),
            usage: Usage::new(1, 1),
            cost: None,
            latency: std::time::Duration::ZERO,
            tags: Vec::new(),
            trust: Trust::default(),
            created: Timestamp::from_millis(0),
            expires: None,
        }
    }

    #[test]
    fn the_same_bytes_are_read_once_and_equal_ones_anew() {
        let (entries, entry) = (DecodedEntries::new(1 << 20), entry());
        let key = entry.digests.exact();
        let bytes = Bytes::from(vec![7; 100]);
        let decoded = Arc::new(Decoded {
            entry: Arc::new(entry),
            marks: Vec::new(),
        });
        assert!(entries.get(&key, &bytes).is_none());
        entries.keep(key, bytes.clone(), Arc::clone(&decoded));
        let again = entries.get(&key, &bytes.clone()).unwrap();
        assert!(Arc::ptr_eq(&again, &decoded));
        assert!(entries.get(&key, &Bytes::from(vec![7; 100])).is_none());
        assert!(entries.get(&key, &bytes.slice(1..)).is_none());
        assert!(
            entries
                .get(&ExactKey::from_bytes([0; 32]), &bytes)
                .is_none()
        );
        entries.forget(&key);
        assert!(entries.get(&key, &bytes).is_none());
    }
}
