//! Tags, and the clearing of namespaces, in constant time.
//!
//! A **mark** stands for a thing that values depend on: a namespace, or a tag within one. Its
//! **generation** is a random number that lies in the backend under a key of its own, so it is the same
//! for all processes and survives their restarts. A value carries its marks with the generations that
//! they had *before* it was computed, and is alive only while each of them is what it was. To invalidate
//! is to write another random number, however many values depend on it.
//!
//! Always true: a value whose mark is missing, damaged or cannot be read is not served; a mark that was
//! lost and made anew has another generation, so nothing comes back to life; no clock is compared.
//!
//! A loader that only tells afterwards which tags its value has leaves no time to read their
//! generations before. For such loads there is one more mark per namespace, that every invalidation of
//! one of its tags renews first. If it has moved while the loader ran, the value is not stored.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::Cache;
use super::key::Namespace;
use crate::backend::{Condition, StoredValue, Write};
use crate::clock::Timestamp;
use crate::codec::Mark;
use crate::error::{Error, ErrorKind, Result};

/// Separates the ids of marks from every other use of BLAKE3.
const DOMAIN: &str = "askonce 2026 typed cache mark v1";

/// How long a mark lives unless values that carry it live longer. With less than half of that left, the
/// next value that is stored prolongs it.
const LIFE: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// What a mark stands for.
#[derive(Clone, Copy)]
enum Kind<'a> {
    Namespace,
    Tag(&'a str),
    AnyTag,
}

/// The name of a mark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MarkName {
    pub(super) id: [u8; 16],
    key: Bytes,
}

impl MarkName {
    fn new(namespace: &Namespace, kind: Kind<'_>) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(DOMAIN);
        let (kind, tag) = match kind {
            Kind::Namespace => (b'n', ""),
            Kind::Tag(tag) => (b't', tag),
            Kind::AnyTag => (b'a', ""),
        };
        hasher.update(&[kind]);
        hasher.update(&(namespace.as_bytes().len() as u64).to_le_bytes());
        hasher.update(namespace.as_bytes());
        hasher.update(tag.as_bytes());
        let mut id = [0; 16];
        id.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        Self::of(id)
    }

    /// The mark with an id that a value carries. No key of a value looks like a mark's.
    fn of(id: [u8; 16]) -> Self {
        let key = format!("!mark:{:032x}", u128::from_be_bytes(id)).into();
        Self { id, key }
    }

    /// Of a namespace as a whole.
    pub(super) fn namespace(namespace: &Namespace) -> Self {
        Self::new(namespace, Kind::Namespace)
    }

    /// Of a tag in a namespace.
    pub(super) fn tag(namespace: &Namespace, tag: &str) -> Self {
        Self::new(namespace, Kind::Tag(tag))
    }

    /// Of all tags in a namespace.
    pub(super) fn any_tag(namespace: &Namespace) -> Self {
        Self::new(namespace, Kind::AnyTag)
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
pub(super) struct Generations(Vec<(MarkName, Known)>);

/// Generations as part of the identity of a load: those who saw others do not share it.
pub(super) type Fingerprint = Arc<[Option<u64>]>;

impl Generations {
    fn note(&mut self, name: MarkName, answer: Result<Option<StoredValue>>) {
        let known = match answer {
            Ok(None) => Known::Missing,
            Ok(Some(held)) => match <[u8; 8]>::try_from(&held.bytes[..]) {
                Ok(bytes) => Known::At(u64::from_le_bytes(bytes), held.expires),
                Err(_) => Known::Damaged,
            },
            Err(error) => Known::Failed(error),
        };
        self.0.push((name, known));
    }

    fn knows(&self, id: &[u8; 16]) -> Option<&Known> {
        let mut all = self.0.iter();
        all.find(|(name, _)| name.id == *id).map(|(_, known)| known)
    }

    /// The generation of a mark, if it has one.
    pub(super) fn of(&self, id: &[u8; 16]) -> Option<u64> {
        match self.knows(id) {
            Some(Known::At(generation, _)) => Some(*generation),
            _ => None,
        }
    }

    /// Those of `marks` that have not been asked for.
    pub(super) fn unknown(&self, marks: &[Mark]) -> Vec<MarkName> {
        let unknown = marks.iter().filter(|mark| self.knows(&mark.id).is_none());
        unknown.map(|mark| MarkName::of(mark.id)).collect()
    }

    /// Whether each of `marks` is still what it was.
    ///
    /// # Errors
    /// What the backend reported when it was asked for one of them.
    pub(super) fn agree(&self, marks: &[Mark]) -> Result<bool> {
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
    pub(super) fn fingerprint(&self, names: &[MarkName]) -> Fingerprint {
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

impl Cache {
    /// The marks of every value in this namespace.
    pub(super) fn namespace_marks(&self) -> &[MarkName] {
        if self.inner.generations {
            &self.namespace.marks
        } else {
            &[]
        }
    }

    /// The marks of a value with these tags.
    pub(super) fn marks_with(&self, tags: &[String]) -> Vec<MarkName> {
        let mut names = self.namespace_marks().to_vec();
        for tag in tags {
            let name = MarkName::tag(&self.namespace.name, tag);
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    /// The marks of tags alone.
    pub(super) fn marks_of(&self, tags: &[String]) -> Vec<MarkName> {
        let tags = tags.iter();
        tags.map(|tag| MarkName::tag(&self.namespace.name, tag))
            .collect()
    }

    /// The mark that every invalidation of a tag of this namespace renews.
    pub(super) fn any_tag(&self) -> MarkName {
        MarkName::any_tag(&self.namespace.name)
    }

    /// Asks for values and marks in one round trip.
    pub(super) async fn fetch(
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
            [key] => vec![self.inner.backend.get(key).await],
            keys => self.inner.backend.get_many(keys).await,
        };
        let marks = answers.split_off(values);
        for (name, answer) in names.iter().zip(marks) {
            generations.note(name.clone(), answer);
        }
        answers
    }

    /// The marks of a value that is about to be computed, made where they are missing.
    ///
    /// # Errors
    /// What the backend reports.
    pub(super) async fn current_marks(
        &self,
        names: &[MarkName],
    ) -> Result<(Vec<Mark>, Generations)> {
        let mut generations = Generations::default();
        self.fetch(std::iter::empty(), names, &mut generations)
            .await;
        let marks = self.ensure_marks(names, &mut generations).await?;
        Ok((marks, generations))
    }

    /// The same, where some have been asked for already.
    pub(super) async fn ensure_marks(
        &self,
        names: &[MarkName],
        generations: &mut Generations,
    ) -> Result<Vec<Mark>> {
        let mut marks = Vec::with_capacity(names.len());
        for name in names {
            let generation = match generations.knows(&name.id) {
                Some(Known::At(generation, _)) => *generation,
                Some(Known::Failed(error)) => return Err(error.clone()),
                Some(Known::Damaged) => self.make_mark(name, false, generations).await?,
                Some(Known::Missing) | None => self.make_mark(name, true, generations).await?,
            };
            marks.push(Mark {
                id: name.id,
                generation,
            });
        }
        Ok(marks)
    }

    /// Gives a mark its first generation, unless another is faster.
    async fn make_mark(
        &self,
        name: &MarkName,
        only_if_absent: bool,
        generations: &mut Generations,
    ) -> Result<u64> {
        let backend = &self.inner.backend;
        let expires = Some(self.inner.clock.now().after(LIFE));
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
        let mut other = Generations::default();
        other.note(name.clone(), backend.get(&name.key).await);
        let Some((_, known)) = other.0.pop() else {
            unreachable!("it has just been noted")
        };
        generations.replace(name, known.clone());
        match known {
            Known::At(generation, _) => Ok(generation),
            Known::Failed(error) => Err(error),
            Known::Missing | Known::Damaged => Err(self.contended("mark")),
        }
    }

    /// Sees to it that marks outlive a value that carries them and dies at `expires`.
    pub(super) async fn prolong_marks(
        &self,
        generations: &Generations,
        expires: Option<Timestamp>,
    ) {
        let now = self.inner.clock.now();
        for (name, known) in &generations.0 {
            let Known::At(_, Some(dies)) = known else {
                continue;
            };
            let needed = expires.map(|expires| expires.max(now.after(LIFE / 2)));
            if needed.is_some_and(|needed| needed <= *dies) {
                continue;
            }
            let until = needed.map(|needed| needed.max(now.after(LIFE)));
            match self.inner.backend.touch(&name.key, until).await {
                // Without conditional writes marks die after a month, and their values with them.
                Err(error) if error.kind() != ErrorKind::Unsupported => {
                    self.report("touch", &error);
                }
                _ => {}
            }
        }
    }

    /// Makes every value with this tag in this namespace a miss, in this process and all others, however
    /// many there are.
    ///
    /// A value whose load is under way is not served either. Tags of other namespaces are other tags,
    /// also those of a namespace within this one.
    ///
    /// # Errors
    /// Whatever the backend reports. The values may then still be alive.
    pub async fn invalidate_tag(&self, tag: &str) -> Result<()> {
        self.invalidate_tags(&[tag]).await
    }

    /// As [`invalidate_tag`](Self::invalidate_tag), for every value with one of these tags.
    ///
    /// # Errors
    /// The first failure that the backend reports. Some or all of the values may then still be alive.
    pub async fn invalidate_tags<S: AsRef<str> + Sync>(&self, tags: &[S]) -> Result<()> {
        let namespace = &self.namespace.name;
        // First: whoever reads a tag's new generation must find that this one has moved.
        self.renew(&[MarkName::any_tag(namespace)]).await?;
        let tags = tags
            .iter()
            .map(|tag| MarkName::tag(namespace, tag.as_ref()));
        let tags: Vec<_> = tags.collect();
        self.renew(&tags).await
    }

    /// Gives each mark another generation.
    pub(super) async fn renew(&self, names: &[MarkName]) -> Result<()> {
        let expires = Some(self.inner.clock.now().after(LIFE));
        let backend = &self.inner.backend;
        if let [name] = names {
            return backend.set(&name.key, new_generation().1, expires).await;
        }
        let writes = names.iter().map(|name| Write {
            key: name.key.clone(),
            value: new_generation().1,
            expires,
        });
        let writes: Vec<_> = writes.collect();
        backend.set_many(&writes).await.into_iter().collect()
    }

    /// Whether each of `marks` is still what it was.
    pub(super) async fn agree_now(&self, marks: &[Mark]) -> Result<bool> {
        let mut generations = Generations::default();
        let names = generations.unknown(marks);
        self.fetch(std::iter::empty(), &names, &mut generations)
            .await;
        generations.agree(marks)
    }

    /// The generation of the mark of all tags.
    pub(super) async fn any_tag_now(&self) -> Result<Option<u64>> {
        let name = MarkName::any_tag(&self.namespace.name);
        let mut generations = Generations::default();
        self.fetch(
            std::iter::empty(),
            std::slice::from_ref(&name),
            &mut generations,
        )
        .await;
        if let Some(Known::Failed(error)) = generations.knows(&name.id) {
            return Err(error.clone());
        }
        Ok(generations.of(&name.id))
    }
}
