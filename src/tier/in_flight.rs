//! Which keys are being read and written now, so that no read puts an old value beside a new one.
//!
//! A read that misses the near tier asks the far one and keeps a copy of what it finds. Between the two,
//! the value may have been replaced. So each such read notes where its key stands ([`InFlight::read`]) and
//! its copy is dropped when the key has moved: when a write of it began or ended, when news of it came from
//! elsewhere ([`InFlight::moved`]), or when many keys at once were removed ([`InFlight::sweep`]).
//!
//! The look and the copying are one step to those who remove copies: both hold the key's
//! [gate](InFlight::gate). It is a tokio mutex, held across an operation of the near tier alone.
//!
//! Only keys under way take room here: a hit in the near tier leaves no trace.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::MutexGuard;
use xxhash_rust::xxh3::xxh3_64;

const SHARDS: usize = 64;

/// See the module documentation.
pub(super) struct InFlight {
    keys: [Mutex<HashMap<Box<[u8]>, UnderWay>>; SHARDS],
    gates: [tokio::sync::Mutex<()>; SHARDS],
    sweeps: AtomicU64,
    sweeping: AtomicUsize,
}

/// A key that is being read or written.
#[derive(Default)]
struct UnderWay {
    operations: usize,
    writers: usize,
    moves: u64,
}

/// A read or a write of one key, while it is held.
pub(super) struct Passage<'a> {
    owner: &'a InFlight,
    key: &'a [u8],
    writes: bool,
    /// Where the key stood at the start.
    moves: u64,
    sweeps: u64,
    /// No write or sweep was under way at the start.
    alone: bool,
}

/// The removal of many keys, while it is held.
pub(super) struct Sweep<'a>(&'a InFlight);

impl Default for InFlight {
    fn default() -> Self {
        Self {
            keys: std::array::from_fn(|_| Mutex::default()),
            gates: std::array::from_fn(|_| tokio::sync::Mutex::default()),
            sweeps: AtomicU64::new(0),
            sweeping: AtomicUsize::new(0),
        }
    }
}

impl InFlight {
    /// Begins a read of the far tier whose result may be copied.
    pub(super) fn read<'a>(&'a self, key: &'a [u8]) -> Passage<'a> {
        self.enter(key, false)
    }

    /// Begins a write. Copies that others are about to make are void, from now until it has ended.
    pub(super) fn write<'a>(&'a self, key: &'a [u8]) -> Passage<'a> {
        self.enter(key, true)
    }

    fn enter<'a>(&'a self, key: &'a [u8], writes: bool) -> Passage<'a> {
        // The count first: a sweep that starts in between is then seen by one of the two.
        let sweeps = self.sweeps.load(Ordering::SeqCst);
        let sweeping = self.sweeping.load(Ordering::SeqCst) > 0;
        let mut keys = self.keys[shard(key)].lock();
        let under_way = keys.entry(key.into()).or_default();
        let alone = under_way.writers == 0 && !sweeping;
        under_way.operations += 1;
        if writes {
            under_way.writers += 1;
            under_way.moves += 1;
        }
        Passage {
            owner: self,
            key,
            writes,
            moves: under_way.moves,
            sweeps,
            alone,
        }
    }

    /// Voids the copies that are about to be made of `key`.
    pub(super) fn moved(&self, key: &[u8]) {
        if let Some(under_way) = self.keys[shard(key)].lock().get_mut(key) {
            under_way.moves += 1;
        }
    }

    /// Begins the removal of many keys. Copies of any key that are about to be made are void, from now
    /// until it has ended.
    pub(super) fn sweep(&self) -> Sweep<'_> {
        self.sweeping.fetch_add(1, Ordering::SeqCst);
        self.sweeps.fetch_add(1, Ordering::SeqCst);
        Sweep(self)
    }

    /// The right to change what the near tier holds under `key`.
    pub(super) async fn gate(&self, key: &[u8]) -> MutexGuard<'_, ()> {
        self.gates[shard(key)].lock().await
    }

    /// The right to change all that the near tier holds.
    pub(super) async fn every_gate(&self) -> Vec<MutexGuard<'_, ()>> {
        let mut held = Vec::with_capacity(SHARDS);
        // Always in this order, and nobody else holds two: no circle.
        for gate in &self.gates {
            held.push(gate.lock().await);
        }
        held
    }

    #[cfg(test)]
    fn keys_under_way(&self) -> usize {
        self.keys.iter().map(|keys| keys.lock().len()).sum()
    }
}

impl Passage<'_> {
    pub(super) fn key(&self) -> &[u8] {
        self.key
    }

    pub(super) fn writes(&self) -> bool {
        self.writes
    }

    /// Whether nothing has happened to the key beside this operation. Ask with the key's gate held, and
    /// hold it until the copy is made.
    pub(super) fn is_undisturbed(&self) -> bool {
        let owner = self.owner;
        let keys = owner.keys[shard(self.key)].lock();
        let Some(under_way) = keys.get(self.key) else {
            return false;
        };
        self.alone
            && under_way.moves == self.moves
            && under_way.writers == usize::from(self.writes)
            && owner.sweeping.load(Ordering::SeqCst) == 0
            && owner.sweeps.load(Ordering::SeqCst) == self.sweeps
    }
}

impl Drop for Passage<'_> {
    fn drop(&mut self) {
        let mut keys = self.owner.keys[shard(self.key)].lock();
        let Some(under_way) = keys.get_mut(self.key) else {
            return;
        };
        under_way.operations -= 1;
        if self.writes {
            under_way.writers -= 1;
            // Of two writes at once nobody knows which the far tier took last.
            under_way.moves += 1;
        }
        if under_way.operations == 0 {
            keys.remove(self.key);
        }
    }
}

impl Drop for Sweep<'_> {
    fn drop(&mut self) {
        self.0.sweeps.fetch_add(1, Ordering::SeqCst);
        self.0.sweeping.fetch_sub(1, Ordering::SeqCst);
    }
}

fn shard(key: &[u8]) -> usize {
    xxh3_64(key) as usize % SHARDS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_is_disturbed_by_whatever_happens_to_its_key_and_by_nothing_else() {
        let table = InFlight::default();
        let read = table.read(b"a");
        drop(table.read(b"a"));
        drop(table.write(b"b"));
        table.moved(b"b");
        assert!(read.is_undisturbed());

        let write = table.write(b"a");
        assert!(!read.is_undisturbed(), "a write began");
        let during = table.read(b"a");
        assert!(!during.is_undisturbed());
        drop(write);
        assert!(!during.is_undisturbed(), "it began during a write");
        let after = table.read(b"a");
        assert!(after.is_undisturbed());
        table.moved(b"a");
        assert!(!after.is_undisturbed(), "news came");
        let fresh = table.read(b"a");
        let sweep = table.sweep();
        assert!(!fresh.is_undisturbed());
        drop(sweep);
        assert!(!fresh.is_undisturbed());
        assert!(table.read(b"a").is_undisturbed());

        drop((read, during, after, fresh));
        assert_eq!(table.keys_under_way(), 0);
    }

    #[test]
    fn of_two_writes_at_once_neither_keeps_a_copy() {
        let table = InFlight::default();
        let first = table.write(b"a");
        let second = table.write(b"a");
        assert!(!first.is_undisturbed() && !second.is_undisturbed());
        drop(first);
        assert!(!second.is_undisturbed());
        drop(second);
        let alone = table.write(b"a");
        assert!(alone.is_undisturbed());
    }
}
