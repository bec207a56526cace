//! Tags, and the clearing of namespaces, in constant time.
//!
//! A namespace has a [mark](crate::generation), and so has each tag within one. A loader that only tells
//! afterwards which tags its value has leaves no time to read their generations before. For such loads
//! there is one more mark per namespace, that every invalidation of one of its tags renews first. If it
//! has moved while the loader ran, the value is not stored.

use bytes::Bytes;

use super::Cache;
use super::key::Namespace;
use crate::backend::StoredValue;
use crate::clock::Timestamp;
use crate::codec::Mark;
use crate::error::Result;
use crate::generation::Board;

pub(super) use crate::generation::{Fingerprint, Generations, MarkName};

/// Separates the ids of marks from every other use of BLAKE3.
const DOMAIN: &str = "askonce 2026 typed cache mark v1";

/// What a mark stands for.
#[derive(Clone, Copy)]
enum Kind<'a> {
    Namespace,
    Tag(&'a str),
    AnyTag,
}

fn mark(namespace: &Namespace, kind: Kind<'_>) -> MarkName {
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
    MarkName::hashed(&hasher)
}

/// The mark of a namespace as a whole.
pub(super) fn of_namespace(namespace: &Namespace) -> MarkName {
    mark(namespace, Kind::Namespace)
}

/// The mark of a tag in a namespace.
fn of_tag(namespace: &Namespace, tag: &str) -> MarkName {
    mark(namespace, Kind::Tag(tag))
}

/// The mark of all tags in a namespace.
fn of_any_tag(namespace: &Namespace) -> MarkName {
    mark(namespace, Kind::AnyTag)
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
            let name = of_tag(&self.namespace.name, tag);
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    /// The marks of tags alone.
    pub(super) fn marks_of(&self, tags: &[String]) -> Vec<MarkName> {
        let tags = tags.iter();
        tags.map(|tag| of_tag(&self.namespace.name, tag)).collect()
    }

    /// The mark that every invalidation of a tag of this namespace renews.
    pub(super) fn any_tag(&self) -> MarkName {
        of_any_tag(&self.namespace.name)
    }

    fn board(&self) -> Board<'_> {
        Board {
            backend: &self.inner.backend,
            clock: &self.inner.clock,
        }
    }

    /// Asks for values and marks in one round trip.
    pub(super) async fn fetch(
        &self,
        keys: impl Iterator<Item = Bytes>,
        names: &[MarkName],
        generations: &mut Generations,
    ) -> Vec<Result<Option<StoredValue>>> {
        self.board().fetch(keys, names, generations).await
    }

    /// The marks of a value that is about to be computed, made where they are missing.
    ///
    /// # Errors
    /// What the backend reports.
    pub(super) async fn current_marks(
        &self,
        names: &[MarkName],
    ) -> Result<(Vec<Mark>, Generations)> {
        self.board().current(names).await
    }

    /// The same, where some have been asked for already.
    pub(super) async fn ensure_marks(
        &self,
        names: &[MarkName],
        generations: &mut Generations,
    ) -> Result<Vec<Mark>> {
        self.board().ensure(names, generations).await
    }

    /// Sees to it that marks outlive a value that carries them and dies at `expires`.
    pub(super) async fn prolong_marks(
        &self,
        generations: &Generations,
        expires: Option<Timestamp>,
    ) {
        self.board().prolong(generations, expires).await;
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
        self.renew(&[of_any_tag(namespace)]).await?;
        let tags = tags.iter().map(|tag| of_tag(namespace, tag.as_ref()));
        let tags: Vec<_> = tags.collect();
        self.renew(&tags).await
    }

    /// Gives each mark another generation.
    pub(super) async fn renew(&self, names: &[MarkName]) -> Result<()> {
        self.board().renew(names).await
    }

    /// Whether each of `marks` is still what it was.
    pub(super) async fn agree_now(&self, marks: &[Mark]) -> Result<bool> {
        let names = Generations::default().unknown(marks);
        self.board().read(&names).await.agree(marks)
    }

    /// The generation of the mark of all tags.
    pub(super) async fn any_tag_now(&self) -> Result<Option<u64>> {
        let name = of_any_tag(&self.namespace.name);
        let generations = self.board().read(std::slice::from_ref(&name)).await;
        match generations.failure(&name.id) {
            Some(error) => Err(error.clone()),
            None => Ok(generations.of(&name.id)),
        }
    }
}
