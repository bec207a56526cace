//! Writes that race with loads.
//!
//! A loaded value is what was true when its load began. If the key is set or deleted meanwhile, the
//! value must not be stored: it would bring back what has just been replaced. So each key with
//! something going on has a gate that counts the writes. A load notes the count before it begins and
//! stores through the gate, only if the count is still the same. A write counts and writes inside the
//! gate. Whoever comes second sees the first.
//!
//! Loads are shared only among callers that saw the same count, so that nobody who asks after a
//! delete is given what was loaded before it.
//!
//! The gate is held across one operation of the backend, or one short exchange with it, and never
//! across a load. A gate exists as long as somebody holds it: idle keys cost nothing. Other processes
//! have gates of their own; between them [`super::lease`] keeps order.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::key::{Digest, Place};
use crate::error::Result;

type Writes = Arc<tokio::sync::Mutex<u64>>;

/// The gates of one cache.
#[derive(Default)]
pub(super) struct Gates {
    busy: Mutex<HashMap<Digest, Busy>>,
}

struct Busy {
    /// Counted here, under the lock of the table: two owners of an [`Arc`] that go away at once may
    /// each see the other's.
    holds: usize,
    /// What the backend calls the key, for writes that name many keys by a pattern.
    name: Bytes,
    writes: Writes,
}

impl fmt::Debug for Gates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gates")
            .field("busy", &self.busy.lock().len())
            .finish()
    }
}

impl Gates {
    /// The gate of a key.
    pub(super) fn of(&self, place: &Place) -> Gate<'_> {
        let mut table = self.busy.lock();
        let busy = table.entry(place.digest).or_insert_with(|| Busy {
            holds: 0,
            name: place.name.clone(),
            writes: Writes::default(),
        });
        self.hold(place.digest, busy)
    }

    fn hold(&self, key: Digest, busy: &mut Busy) -> Gate<'_> {
        busy.holds += 1;
        Gate {
            gates: self,
            key,
            writes: Arc::clone(&busy.writes),
        }
    }

    /// Counts a write of each key and lets it through alone. The gates are taken in one order, so that
    /// two batches never wait for each other.
    pub(super) async fn write_all<T>(&self, places: &[Place], write: impl Future<Output = T>) -> T {
        let mut places: Vec<_> = places.iter().collect();
        places.sort_unstable_by_key(|place| place.digest);
        places.dedup_by_key(|place| place.digest);
        let gates: Vec<_> = places.into_iter().map(|place| self.of(place)).collect();
        let mut held = Vec::with_capacity(gates.len());
        for gate in &gates {
            let mut writes = gate.writes.lock().await;
            *writes += 1;
            held.push(writes);
        }
        write.await
    }

    /// Counts a write of every key with something going on whose name fits. Loads that are under way
    /// are not stored after that.
    pub(super) async fn count_where(&self, fits: impl Fn(&[u8]) -> bool) {
        let hit: Vec<_> = {
            let mut table = self.busy.lock();
            let hit = table.iter_mut().filter(|(_, busy)| fits(&busy.name));
            hit.map(|(key, busy)| self.hold(*key, busy)).collect()
        };
        for gate in hit {
            gate.write(async {}).await;
        }
    }
}

/// A hold on the gate of one key.
pub(super) struct Gate<'a> {
    gates: &'a Gates,
    key: Digest,
    writes: Writes,
}

/// The number of writes that a gate has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Seen(u64);

impl Gate<'_> {
    /// The writes so far, once none is under way.
    pub(super) async fn seen(&self) -> Seen {
        Seen(*self.writes.lock().await)
    }

    /// Counts a write and lets it through alone.
    pub(super) async fn write<T>(&self, write: impl Future<Output = T>) -> T {
        let mut writes = self.writes.lock().await;
        *writes += 1;
        write.await
    }

    /// Lets a change through alone, and counts it as a write if it says that it was one. One that failed
    /// may have been.
    pub(super) async fn exchange<T>(
        &self,
        change: impl Future<Output = Result<(bool, T)>>,
    ) -> Result<T> {
        let mut writes = self.writes.lock().await;
        let changed = change.await;
        if !matches!(changed, Ok((false, _))) {
            *writes += 1;
        }
        changed.map(|(_, result)| result)
    }

    /// Lets a fill through, unless something was written since `seen`.
    pub(super) async fn fill<T>(&self, seen: Seen, fill: impl Future<Output = T>) -> Option<T> {
        let writes = self.writes.lock().await;
        if *writes == seen.0 {
            Some(fill.await)
        } else {
            None
        }
    }
}

impl Drop for Gate<'_> {
    fn drop(&mut self) {
        if let Entry::Occupied(mut busy) = self.gates.busy.lock().entry(self.key) {
            busy.get_mut().holds -= 1;
            if busy.get().holds == 0 {
                busy.remove();
            }
        }
    }
}
