//! Invalidation in constant time, however many values it means and whichever process stored them.
//!
//! A **mark** stands for a thing that values depend on: a namespace, a tag, a model. Its **generation**
//! is a random number that lies in the backend under a key of its own, so it is the same for all
//! processes and survives their restarts. A value carries its marks with the generations that they had
//! *before* it was computed, and is alive only while each of them is what it was. To invalidate is to
//! write another random number.
//!
//! Always true: a value whose mark is missing, damaged or cannot be read is not served; a mark that was
//! lost and made anew has another generation, so nothing comes back to life; no clock is compared.
//!
//! Which marks a value has is for those who store it: [`crate::typed`] and [`crate::cache`].

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::backend::{BackendHandle, Condition, StoredValue, Write};
use crate::clock::{ClockHandle, Timestamp};
use crate::codec::Mark;
use crate::error::{Error, ErrorKind, Result};
use crate::observe;

/// How long a mark lives unless values that carry it live longer. With less than half of that left, the
/// next value that is stored prolongs it.
const LIFE: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// The name of a mark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MarkName {
    pub(crate) id: [u8; 16],
    key: Bytes,
}

impl MarkName {
    /// The mark with an id that a value carries. No key of a value looks like a mark's.
    pub(crate) fn of(id: [u8; 16]) -> Self {
        let key = format!("!mark:{:032x}", u128::from_be_bytes(id)).into();
        Self { id, key }
    }

    /// The mark that a digest names.
    pub(crate) fn hashed(hasher: &blake3::Hasher) -> Self {
        let mut id = [0; 16];
        id.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        Self::of(id)
    }
}

/// What is known of a mark.
#[derive(Clone, Debug)]
enum Known {
    /// This is its generation, until then.
    At(u64, Option<Timestamp>),
    /// It has none.
    Missing,
    /// Its key holds something else.
    Damaged,
    Failed(Error),
}

/// The generations of some marks, at one time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Generations(Vec<(MarkName, Known)>);

/// Generations as part of the identity of a load: those who saw others do not share it.
pub(crate) type Fingerprint = Arc<[Option<u64>]>;

impl Generations {
    /// Takes down what the backend said of a mark.
    pub(crate) fn note(&mut self, name: &MarkName, answer: Result<Option<StoredValue>>) {
        let known = match answer {
            Ok(None) => Known::Missing,
            Ok(Some(held)) => match <[u8; 8]>::try_from(&held.bytes[..]) {
                Ok(bytes) => Known::At(u64::from_le_bytes(bytes), held.expires),
                Err(_) => Known::Damaged,
            },
            Err(error) => Known::Failed(error),
        };
        self.replace(name, known);
    }

    fn knows(&self, id: &[u8; 16]) -> Option<&Known> {
        let mut all = self.0.iter();
        all.find(|(name, _)| name.id == *id).map(|(_, known)| known)
    }

    /// Adds what is known of other marks.
    pub(crate) fn extend(&mut self, others: Self) {
        for (name, known) in others.0 {
            self.replace(&name, known);
        }
    }

    /// The generation of a mark, if it has one.
    pub(crate) fn of(&self, id: &[u8; 16]) -> Option<u64> {
        match self.knows(id) {
            Some(Known::At(generation, _)) => Some(*generation),
            _ => None,
        }
    }

    /// Why a mark could not be read.
    pub(crate) fn failure(&self, id: &[u8; 16]) -> Option<&Error> {
        match self.knows(id) {
            Some(Known::Failed(error)) => Some(error),
            _ => None,
        }
    }

    /// Those of `marks` that have not been asked for.
    pub(crate) fn unknown(&self, marks: &[Mark]) -> Vec<MarkName> {
        let unknown = marks.iter().filter(|mark| self.knows(&mark.id).is_none());
        unknown.map(|mark| MarkName::of(mark.id)).collect()
    }

    /// Those of `names` that have not been asked for.
    pub(crate) fn missing_of<'a>(
        &self,
        names: impl Iterator<Item = &'a MarkName>,
    ) -> Vec<MarkName> {
        let unknown = names.filter(|name| self.knows(&name.id).is_none());
        unknown.cloned().collect()
    }

    /// Whether each of `marks` is still what it was.
    ///
    /// # Errors
    /// What the backend reported when it was asked for one of them.
    pub(crate) fn agree(&self, marks: &[Mark]) -> Result<bool> {
        let mut agree = true;
        for mark in marks {
            match self.knows(&mark.id) {
                Some(Known::At(generation, _)) => agree &= *generation == mark.generation,
                Some(Known::Failed(error)) => return Err(error.clone()),
                _ => agree = false,
            }
        }
        Ok(agree)
    }

    /// The generations of `names`, to be compared with what they were at another time.
    pub(crate) fn fingerprint(&self, names: &[MarkName]) -> Fingerprint {
        names.iter().map(|name| self.of(&name.id)).collect()
    }

    fn replace(&mut self, name: &MarkName, known: Known) {
        match self.0.iter_mut().find(|(own, _)| own == name) {
            Some(place) => place.1 = known,
            None => self.0.push((name.clone(), known)),
        }
    }
}

/// The stored form of a generation that was never there before.
fn new_generation() -> (u64, Bytes) {
    let generation: u64 = rand::random();
    (
        generation,
        Bytes::copy_from_slice(&generation.to_le_bytes()),
    )
}

/// Where the generations of some marks lie.
#[derive(Clone, Copy)]
pub(crate) struct Board<'a> {
    /// The store that all who must agree share.
    pub(crate) backend: &'a BackendHandle,
    /// Ends the life of marks.
    pub(crate) clock: &'a ClockHandle,
}

impl Board<'_> {
    /// Asks for values and marks in one round trip.
    pub(crate) async fn fetch(
        &self,
        keys: impl Iterator<Item = Bytes>,
        names: &[MarkName],
        generations: &mut Generations,
    ) -> Vec<Result<Option<StoredValue>>> {
        let mut asked: Vec<Bytes> = keys.collect();
        let values = asked.len();
        asked.extend(names.iter().map(|name| name.key.clone()));
        let mut answers = match asked.as_slice() {
            [] => return Vec::new(),
            [key] => vec![self.backend.get(key).await],
            keys => self.backend.get_many(keys).await,
        };
        let marks = answers.split_off(values);
        for (name, answer) in names.iter().zip(marks) {
            generations.note(name, answer);
        }
        answers
    }

    /// The generations of `names` now.
    pub(crate) async fn read(&self, names: &[MarkName]) -> Generations {
        let mut generations = Generations::default();
        self.fetch(std::iter::empty(), names, &mut generations)
            .await;
        generations
    }

    /// The marks of a value that is about to be computed, made where they are missing.
    ///
    /// # Errors
    /// What the backend reports.
    pub(crate) async fn current(&self, names: &[MarkName]) -> Result<(Vec<Mark>, Generations)> {
        let mut generations = self.read(names).await;
        let marks = self.ensure(names, &mut generations).await?;
        Ok((marks, generations))
    }

    /// The same, where some have been asked for already.
    pub(crate) async fn ensure(
        &self,
        names: &[MarkName],
        generations: &mut Generations,
    ) -> Result<Vec<Mark>> {
        let mut marks = Vec::with_capacity(names.len());
        for name in names {
            let generation = match generations.knows(&name.id) {
                Some(Known::At(generation, _)) => *generation,
                Some(Known::Failed(error)) => return Err(error.clone()),
                Some(Known::Damaged) => self.make(name, false, generations).await?,
                Some(Known::Missing) | None => self.make(name, true, generations).await?,
            };
            marks.push(Mark {
                id: name.id,
                generation,
            });
        }
        Ok(marks)
    }

    /// Gives a mark its first generation, unless another is faster.
    async fn make(
        &self,
        name: &MarkName,
        only_if_absent: bool,
        generations: &mut Generations,
    ) -> Result<u64> {
        let backend = self.backend;
        let expires = Some(self.clock.now().after(LIFE));
        let (generation, bytes) = new_generation();
        let made = if only_if_absent {
            match backend
                .set_if(&name.key, bytes.clone(), expires, Condition::Absent)
                .await
            {
                // Of two who write at once the last wins, and the values of the other are dead.
                Err(error) if error.kind() == ErrorKind::Unsupported => {
                    backend.set(&name.key, bytes, expires).await?;
                    true
                }
                made => made?,
            }
        } else {
            backend.set(&name.key, bytes, expires).await?;
            true
        };
        if made {
            generations.replace(name, Known::At(generation, expires));
            return Ok(generation);
        }
        generations.note(name, backend.get(&name.key).await);
        match generations.knows(&name.id) {
            Some(Known::At(generation, _)) => Ok(*generation),
            Some(Known::Failed(error)) => Err(error.clone()),
            Some(Known::Missing | Known::Damaged) | None => Err(Error::new(
                ErrorKind::BackendUnavailable,
                "too many writers of one key",
            )
            .with("tier", backend.name())
            .with("operation", "mark")
            .retryable()),
        }
    }

    /// Sees to it that marks outlive a value that carries them and dies at `expires`.
    pub(crate) async fn prolong(&self, generations: &Generations, expires: Option<Timestamp>) {
        let now = self.clock.now();
        for (name, known) in &generations.0 {
            let Known::At(_, Some(dies)) = known else {
                continue;
            };
            let needed = expires.map(|expires| expires.max(now.after(LIFE / 2)));
            if needed.is_some_and(|needed| needed <= *dies) {
                continue;
            }
            let until = needed.map(|needed| needed.max(now.after(LIFE)));
            match self.backend.touch(&name.key, until).await {
                // Without conditional writes marks die after a month, and their values with them.
                Err(error) if error.kind() != ErrorKind::Unsupported => {
                    let tier = self.backend.name();
                    observe::backend_error(tier, "touch");
                    tracing::warn!(tier, kind = %error.kind(), %error, "a mark was not prolonged");
                }
                _ => {}
            }
        }
    }

    /// Gives each mark another generation: what was computed under the old one is dead.
    ///
    /// # Errors
    /// The first failure that the backend reports. Some or all of the values may then still be alive.
    pub(crate) async fn renew(&self, names: &[MarkName]) -> Result<()> {
        let expires = Some(self.clock.now().after(LIFE));
        if let [name] = names {
            return self
                .backend
                .set(&name.key, new_generation().1, expires)
                .await;
        }
        let writes = names.iter().map(|name| Write {
            key: name.key.clone(),
            value: new_generation().1,
            expires,
        });
        let writes: Vec<_> = writes.collect();
        self.backend.set_many(&writes).await.into_iter().collect()
    }
}
