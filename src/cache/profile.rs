//! What a lookup compares with, kept beside the catalogue so that no entry is fetched to be weighed.
//!
//! A [`Profile`] is made when its entry is stored. Entries that came from elsewhere (an earlier process,
//! another node) get theirs when they are first fetched. It holds no text: traits, a digest of the answer,
//! and the vector in the second embedding space, once that is made.
//!
//! Always true: the bytes of all profiles stay within what the memory bound counts for them, which is
//! [`PROFILE_BYTES`] and the second vector for each entry. Short texts leave room for long ones; where there
//! is none left, profiles are dropped and made again when their entries are fetched.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::RwLock;
use xxhash_rust::xxh3::Xxh3;

use crate::clock::Timestamp;
use crate::entry::{Answer, Entry, EntryId, Media};
use crate::policy::TextTraits;
use crate::replay;
use crate::savings::Usd;

/// Bytes that the memory bound counts for the profile of an entry, its second vector left out.
pub(super) const PROFILE_BYTES: usize = 1536;

/// Bytes of a profile beside the traits and the second vector: itself, its counters and its map slot.
const FIXED_BYTES: usize = size_of::<Profile>() + 16 + 2 * size_of::<(EntryId, Arc<Profile>)>();

/// What is known of one entry without fetching it.
#[derive(Debug)]
pub(super) struct Profile {
    /// What its words show.
    pub(super) traits: TextTraits,
    /// Entries with equal digests give the same answer.
    pub(super) answer: u64,
    /// When the entry was stored.
    pub(super) created: Timestamp,
    /// What the call that made it cost, in dollars.
    pub(super) cost: Option<f64>,
    /// How long that call took.
    pub(super) latency: Duration,
    bytes: usize,
    second: OnceLock<Option<Quantized>>,
}

impl Profile {
    /// The profile of an entry; `None` when it has no text to compare.
    pub(super) fn of(entry: &Entry) -> Option<Self> {
        let traits = TextTraits::of(entry.text.as_deref()?);
        Some(Self {
            bytes: FIXED_BYTES + traits.heap_bytes(),
            traits,
            answer: digest(&entry.answer),
            created: entry.created,
            cost: entry.cost.map(Usd::as_dollars),
            latency: entry.latency,
            second: OnceLock::new(),
        })
    }

    /// Whether it is still open what the second vector is.
    pub(super) fn lacks_second(&self) -> bool {
        self.second.get().is_none()
    }

    /// Keeps the vector in the second space, or that there is none. The first call counts.
    pub(super) fn keep_second(&self, vector: Option<&[f32]>) {
        // Whoever lost the race made the same vector.
        let _ = self.second.set(vector.map(Quantized::of));
    }

    /// Cosine of a unit vector of the second space and the entry's; `None` when that is not there.
    pub(super) fn second_cosine(&self, query: &[f32]) -> Option<f32> {
        self.second.get()?.as_ref()?.cosine(query)
    }
}

/// A unit vector in a byte a component. What rounding adds to a cosine is below 0.002.
#[derive(Debug)]
struct Quantized {
    scale: f32,
    components: Box<[i8]>,
}

impl Quantized {
    fn of(vector: &[f32]) -> Self {
        let most = vector.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
        let scale = most / f32::from(i8::MAX);
        let component = |x: &f32| (x / scale).round() as i8;
        Self {
            scale,
            components: vector.iter().map(component).collect(),
        }
    }

    fn cosine(&self, query: &[f32]) -> Option<f32> {
        if query.len() != self.components.len() {
            return None;
        }
        let pairs = query.iter().zip(&self.components);
        let sum: f32 = pairs.map(|(x, c)| x * f32::from(*c)).sum();
        Some((sum * self.scale).clamp(-1.0, 1.0))
    }
}

/// A digest of what is said, so that the same answer from two calls is one answer: of a provider's reply
/// that is its content, without ids and times.
fn digest(answer: &Answer) -> u64 {
    let mut hasher = Xxh3::new();
    let said = match answer.media() {
        Media::Text => None,
        _ => replay::said(&answer.to_value()),
    };
    match said {
        Some(said) => hasher.update(said.as_bytes()),
        None => hasher.update(answer.body()),
    }
    hasher.digest()
}

/// The profiles of the entries that are searchable here.
#[derive(Debug)]
pub(super) struct Profiles {
    by_entry: RwLock<HashMap<EntryId, Arc<Profile>>>,
    bytes: AtomicUsize,
    /// Bytes that the memory bound counts for each entry.
    share: usize,
    /// Bytes of a second vector.
    second: usize,
}

impl Profiles {
    /// Profiles whose second vectors have this many components; 0: there is no second space.
    pub(super) fn new(second_dimension: usize) -> Self {
        Self {
            by_entry: RwLock::default(),
            bytes: AtomicUsize::new(0),
            share: share(second_dimension),
            second: second_bytes(second_dimension),
        }
    }

    /// Keeps a profile of one of `entries` entries, if there is room for it.
    pub(super) fn insert(&self, id: EntryId, profile: Profile, entries: usize) -> Arc<Profile> {
        let profile = Arc::new(profile);
        let bytes = profile.bytes + self.second;
        if self.bytes() + bytes <= entries.max(1).saturating_mul(self.share) {
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
            let old = self.by_entry.write().insert(id, Arc::clone(&profile));
            self.gone(old.as_deref());
        }
        profile
    }

    /// The profiles of these entries, in their order.
    pub(super) fn get(&self, ids: impl Iterator<Item = EntryId>) -> Vec<Option<Arc<Profile>>> {
        let by_entry = self.by_entry.read();
        ids.map(|id| by_entry.get(&id).cloned()).collect()
    }

    pub(super) fn remove(&self, id: EntryId) {
        let old = self.by_entry.write().remove(&id);
        self.gone(old.as_deref());
    }

    /// Drops profiles until those left fit what is counted for `entries` entries: after many entries with
    /// short texts have died, those with long ones may be too much.
    pub(super) fn trim(&self, entries: usize) {
        let room = entries.saturating_mul(self.share);
        if self.bytes() <= room {
            return;
        }
        let mut by_entry = self.by_entry.write();
        let mut over = self.bytes().saturating_sub(room);
        by_entry.retain(|_, profile| {
            let dropped = over > 0;
            if dropped {
                over = over.saturating_sub(profile.bytes + self.second);
                self.gone(Some(profile));
            }
            !dropped
        });
    }

    /// Bytes of all of them.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Number of them.
    pub(super) fn len(&self) -> usize {
        self.by_entry.read().len()
    }

    fn gone(&self, profile: Option<&Profile>) {
        if let Some(profile) = profile {
            let bytes = profile.bytes + self.second;
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
    }
}

/// Bytes that the memory bound counts for each entry, where second vectors have this many components.
pub(super) fn share(second_dimension: usize) -> usize {
    PROFILE_BYTES + second_bytes(second_dimension)
}

fn second_bytes(dimension: usize) -> usize {
    if dimension == 0 { 0 } else { dimension + 32 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Request;
    use crate::savings::Usage;

    fn entry(text: &str, answer: Answer) -> Entry {
        let request = Request::prompt(text);
        Entry {
            id: EntryId::random(),
            digests: request.digests(),
            text: request.fuzzy_text().map(str::to_owned),
            answer,
            usage: Usage::new(1, 1),
            cost: None,
            latency: Duration::ZERO,
            tags: Vec::new(),
            trust: crate::entry::Trust::default(),
            created: Timestamp::from_millis(0),
            expires: None,
        }
    }

    fn profile(text: &str) -> Profile {
        Profile::of(&entry(text, Answer::text("yes"))).unwrap()
    }

    #[test]
    fn replies_that_differ_in_id_and_time_only_say_the_same() {
        let reply = |id: &str, said: &str| {
            let body = serde_json::json!({"id": id, "created": id.len(),
                "choices": [{"index": 0, "message": {"role": "assistant", "content": said}}]});
            digest(&Answer::json(body.to_string()).unwrap())
        };
        assert_eq!(reply("a", "Paris."), reply("bcd", "Paris."));
        assert_ne!(reply("a", "Paris."), reply("a", "Rome."));
        assert_eq!(digest(&Answer::text("x")), digest(&Answer::text("x")));
        assert_ne!(digest(&Answer::text("x")), digest(&Answer::text("y")));
    }

    #[test]
    fn a_vector_of_bytes_gives_the_cosine_within_a_five_hundredth() {
        let unit = |seed: u32| {
            let mut state = seed;
            let mut vector: Vec<f32> = (0..384)
                .map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (state >> 8) as f32 / (1 << 24) as f32 - 0.5
                })
                .collect();
            let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
            vector.iter_mut().for_each(|x| *x /= length);
            vector
        };
        for seed in 0..50 {
            let (a, b) = (unit(seed), unit(seed + 1_000));
            let exact: f32 = a.iter().zip(&b).map(|(x, y)| x * y).sum();
            let coarse = Quantized::of(&b).cosine(&a).unwrap();
            assert!((exact - coarse).abs() < 0.002, "{exact} {coarse}");
            assert!(Quantized::of(&b).cosine(&b).unwrap() > 0.998);
            assert_eq!(Quantized::of(&b).cosine(&a[1..]), None);
        }
    }

    #[test]
    fn a_question_of_twenty_words_fits_what_is_counted_for_it() {
        let text = "How do I change the password of my second account when the first one was closed by \
                    the bank last year?";
        let bytes = profile(text).bytes;
        assert!(bytes <= PROFILE_BYTES, "{bytes}");
    }

    #[test]
    fn profiles_stay_within_what_is_counted_for_them() {
        let profiles = Profiles::new(384);
        let long = "many different words such as these ".repeat(200);
        let mut kept = Vec::new();
        for i in 0..200_usize {
            let text = if i % 2 == 0 { "short" } else { long.as_str() };
            let id = EntryId::new(i as u64);
            profiles.insert(id, profile(text), i + 1);
            kept.push(id);
            assert!(profiles.bytes() <= (i + 1) * share(384), "{i}");
        }
        assert!(profiles.len() > 50, "{}", profiles.len());
        // The entries with short texts die, and those left are too many.
        for id in kept.iter().step_by(2) {
            profiles.remove(*id);
        }
        profiles.trim(10);
        assert!(profiles.bytes() <= 10 * share(384));
        for id in kept {
            profiles.remove(id);
        }
        assert_eq!((profiles.bytes(), profiles.len()), (0, 0));
    }
}
