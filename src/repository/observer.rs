//! What is kept of a kind of entity, and who is told of its changes.

use std::fmt;
use std::marker::PhantomData;

use super::CacheEntity;
use crate::error::Result;
use crate::typed::{Cache, Key};

/// The tag of every list and query result.
pub(super) const LISTS: &str = "lists";

/// What is kept of the entities of one kind.
pub(super) struct Kept<E> {
    /// In the namespace of this kind.
    pub(super) cache: Cache,
    of: PhantomData<fn() -> E>,
}

impl<E> Clone for Kept<E> {
    fn clone(&self) -> Self {
        Self {
            cache: self.cache.clone(),
            of: PhantomData,
        }
    }
}

impl<E: CacheEntity> Kept<E> {
    pub(super) fn new(cache: &Cache) -> Self {
        Self {
            cache: cache.namespace(("entity", E::NAME)),
            of: PhantomData,
        }
    }

    pub(super) fn key(&self, id: &E::Id) -> Key {
        Key::new("id").part(id)
    }
}

/// Tells the cache of changes that were made to the source without it.
///
/// A repository of the application holds one and calls it after each change. Cheap to clone, and needs
/// no [`Source`](super::Source).
pub struct Observer<E> {
    kept: Kept<E>,
}

impl<E> Clone for Observer<E> {
    fn clone(&self) -> Self {
        Self {
            kept: self.kept.clone(),
        }
    }
}

impl<E: CacheEntity> fmt::Debug for Observer<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observer")
            .field("entity", &E::NAME)
            .finish_non_exhaustive()
    }
}

impl<E: CacheEntity> Observer<E> {
    pub(super) fn new(kept: Kept<E>) -> Self {
        Self { kept }
    }

    /// An observer of the entities that are kept in `cache`.
    #[must_use]
    pub fn of(cache: &Cache) -> Self {
        Self::new(Kept::new(cache))
    }

    /// The entity was saved: what is kept of it goes, and all lists and query results.
    ///
    /// # Errors
    /// Whatever the backend reports. What is kept may then be out of date until it expires.
    pub async fn saved(&self, entity: &E) -> Result<()> {
        self.changed(entity.id()).await
    }

    /// The entity with this id was deleted, or changed in whatever way.
    ///
    /// # Errors
    /// As [`saved`](Self::saved).
    pub async fn changed(&self, id: &E::Id) -> Result<()> {
        // Both, even if one of them fails.
        let deleted = self.kept.cache.delete(&self.kept.key(id)).await;
        let invalidated = self.lists_changed().await;
        deleted.map(drop).and(invalidated)
    }

    /// Lists and query results are out of date, and no entity is.
    ///
    /// # Errors
    /// As [`saved`](Self::saved).
    pub async fn lists_changed(&self) -> Result<()> {
        self.kept.cache.invalidate_tag(LISTS).await
    }

    /// Everything may have changed: all entities of this kind go, and all lists and query results.
    ///
    /// # Errors
    /// As [`saved`](Self::saved).
    pub async fn all_changed(&self) -> Result<()> {
        self.kept.cache.clear().await
    }
}
