//! Misses of plain lookups, until their answers are stored by a call of their own: what
//! [`get_or_call`](super::SemanticCache::get_or_call) knows by itself is joined here by the exact key.
//!
//! Always true: bounded in number and in time. A miss whose answer comes later teaches nothing.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use parking_lot::Mutex;

use crate::clock::Timestamp;
use crate::request::ExactKey;

/// Misses that are kept: some 5 KB each where there were many candidates.
const MOST: usize = 512;

/// How long an answer is waited for.
const LIFE: Duration = Duration::from_secs(600);

/// Misses whose answers may come.
#[derive(Debug)]
pub(super) struct Pending<T>(Mutex<Misses<T>>);

#[derive(Debug)]
struct Misses<T> {
    by_key: HashMap<ExactKey, Waiting<T>>,
    /// As they came, oldest first. Of a key that came again, only the last place counts.
    order: VecDeque<(u64, ExactKey)>,
    count: u64,
}

#[derive(Debug)]
struct Waiting<T> {
    miss: T,
    since: Timestamp,
    place: u64,
}

impl<T> Default for Pending<T> {
    fn default() -> Self {
        Self(Mutex::new(Misses {
            by_key: HashMap::new(),
            order: VecDeque::new(),
            count: 0,
        }))
    }
}

impl<T> Pending<T> {
    /// Keeps a miss, in place of an earlier one of the same request.
    pub(super) fn keep(&self, key: ExactKey, miss: T, now: Timestamp) {
        let mut misses = self.0.lock();
        misses.count += 1;
        let place = misses.count;
        let since = now;
        misses.by_key.insert(key, Waiting { miss, since, place });
        misses.order.push_back((place, key));
        while let Some(&(place, key)) = misses.order.front() {
            let waiting = misses.by_key.get(&key);
            let counts = waiting.is_some_and(|waiting| waiting.place == place);
            let old = waiting.is_some_and(|waiting| now.since(waiting.since) > LIFE);
            if counts && !old && misses.by_key.len() <= MOST {
                break;
            }
            misses.order.pop_front();
            if counts {
                misses.by_key.remove(&key);
            }
        }
        if misses.order.len() > 2 * MOST {
            // Mostly places of keys that came again or were taken.
            let Misses { by_key, order, .. } = &mut *misses;
            order.retain(|(place, key)| by_key.get(key).is_some_and(|w| w.place == *place));
        }
    }

    /// The miss whose answer has come, once.
    pub(super) fn take(&self, key: &ExactKey, now: Timestamp) -> Option<T> {
        let waiting = self.0.lock().by_key.remove(key)?;
        (now.since(waiting.since) <= LIFE).then_some(waiting.miss)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: usize) -> ExactKey {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&n.to_le_bytes());
        ExactKey::from_bytes(bytes)
    }

    const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_000);

    #[test]
    fn a_miss_is_found_once_and_not_after_its_time() {
        let pending = Pending::default();
        pending.keep(key(1), "first", NOW);
        pending.keep(key(1), "second", NOW);
        assert_eq!(pending.take(&key(1), NOW), Some("second"));
        assert_eq!(pending.take(&key(1), NOW), None);
        pending.keep(key(1), "third", NOW);
        let late = NOW.after(LIFE + Duration::from_secs(1));
        assert_eq!(pending.take(&key(1), late), None);
    }

    #[test]
    fn the_oldest_go_and_what_is_taken_or_repeated_leaves_nothing_behind() {
        let pending = Pending::default();
        for n in 0..5 * MOST {
            pending.keep(key(n), n, NOW);
            pending.keep(key(n), n, NOW);
            if n % 2 == 0 {
                assert_eq!(pending.take(&key(n), NOW), Some(n));
            }
        }
        assert_eq!(pending.take(&key(1), NOW), None);
        assert_eq!(pending.take(&key(5 * MOST - 1), NOW), Some(5 * MOST - 1));
        let late = NOW.after(LIFE + Duration::from_secs(1));
        pending.keep(key(0), 0, late);
        let misses = pending.0.lock();
        assert_eq!((misses.by_key.len(), misses.order.len()), (1, 1));
    }

    #[test]
    fn one_request_that_is_looked_up_without_end_fills_no_memory() {
        let pending = Pending::default();
        pending.keep(key(1), 0, NOW);
        for n in 0..10_000 {
            pending.keep(key(2), n, NOW);
        }
        assert!(pending.0.lock().order.len() <= 2 * MOST);
        assert_eq!(pending.take(&key(1), NOW), Some(0), "and pushes nobody out");
    }
}
