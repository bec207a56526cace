//! Entities of a source of truth, and what is asked of them, kept and invalidated together.
//!
//! A [`Repository`] stands before a [`Source`], a table of a database for instance, and keeps entities
//! by id, lists and query results. Whoever changes the source goes through [`Repository::save`] and
//! [`Repository::delete`], or tells an [`Observer`] afterwards. [`Settings`] does the same for
//! configuration values that a more specific environment overrides.
//!
//! Lists and query results are invalidated all at once, by a tag: one write, however many there are, in
//! this process and all others. One that was being loaded during a change is neither kept nor given
//! to those who ask after the change.
//!
//! Always true: every key begins with the kind of repository and the name of the entity, so two
//! repositories over one cache never meet; what is kept of an entity is what the source returned; a
//! change that failed, or whose caller went away, leaves nothing of the entity in the cache; no failure
//! of the cache reaches a caller.
//!
//! ```
//! use std::sync::Arc;
//!
//! # use askonce::backend::{MemoryBackend, MemoryConfig};
//! use askonce::Cache;
//! use askonce::repository::{CacheEntity, Params, Repository, Source};
//! use serde::{Deserialize, Serialize};
//!
//! # #[cfg(feature = "macros")] {
//! #[derive(Clone, Serialize, Deserialize, CacheEntity)]
//! #[cache_entity(name = "user", version = 1, key = "id", ttl = "5m", negative_ttl = "30s")]
//! struct User {
//!     id: u64,
//!     name: String,
//! }
//!
//! struct Table;
//!
//! impl Source<User> for Table {
//!     type Error = Arc<std::io::Error>;
//!
//!     async fn load(&self, id: &u64) -> Result<Option<User>, Self::Error> {
//!         Ok(Some(User { id: *id, name: "Ada".to_owned() }))
//!     }
//!     async fn list(&self, _: &Params) -> Result<Vec<User>, Self::Error> {
//!         Ok(vec![])
//!     }
//!     async fn save(&self, user: User) -> Result<User, Self::Error> {
//!         Ok(user)
//!     }
//!     async fn delete(&self, _: &u64) -> Result<bool, Self::Error> {
//!         Ok(true)
//!     }
//! }
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! # let cache = Cache::new(Arc::new(MemoryBackend::builder(MemoryConfig::default()).build().unwrap()));
//! let users = Repository::new(&cache, Table);
//! let user = users.get_by_id(&7).await?.expect("everybody is there");
//! let open = users.list(&Params::new().with("status", "open").with("page", 2)).await?;
//! # let _ = (user, open);
//! # Ok::<_, Arc<std::io::Error>>(())
//! # }).unwrap();
//! # }
//! ```

mod batch;
mod entity;
mod observer;
mod params;
mod settings;

use std::fmt;
use std::sync::Arc;

use crate::strategy::{Outdated, passed_over};
use crate::typed::{Cache, CacheValue, Key, Lookup};

#[cfg(feature = "macros")]
pub use askonce_macros::CacheEntity;
pub use entity::{CacheEntity, Source};
pub use observer::Observer;
pub use params::{Param, Params};
pub use settings::{SettingSource, Settings};

use batch::Batch;
use observer::{Kept, LISTS};

/// Entities of one kind, from a source and a cache before it; see the [module](self).
///
/// Cheap to clone.
pub struct Repository<E, S> {
    kept: Kept<E>,
    source: Arc<S>,
}

impl<E, S> Clone for Repository<E, S> {
    fn clone(&self) -> Self {
        Self {
            kept: self.kept.clone(),
            source: Arc::clone(&self.source),
        }
    }
}

impl<E: CacheEntity, S> fmt::Debug for Repository<E, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Repository")
            .field("entity", &E::NAME)
            .field("cache", &self.kept.cache)
            .finish_non_exhaustive()
    }
}

impl<E: CacheEntity, S: Source<E>> Repository<E, S> {
    /// The entities of `source`, kept in `cache`.
    ///
    /// Repositories of one entity over one cache share what is kept. Where the same ids mean different
    /// things, as for tenants, give each a [namespace](Cache::namespace).
    #[must_use]
    pub fn new(cache: &Cache, source: S) -> Self {
        Self {
            kept: Kept::new(cache),
            source: Arc::new(source),
        }
    }

    /// The entity with this id.
    ///
    /// # Errors
    /// Only what the source returns. It is given to all who wait, and not kept.
    pub async fn get_by_id(&self, id: &E::Id) -> Result<Option<E>, S::Error> {
        let load = || self.source.load(id);
        self.load(&self.kept.key(id), load).await
    }

    /// The entities with these ids, in order. Those that are not kept are asked of the source together.
    ///
    /// # Errors
    /// As [`get_by_id`](Self::get_by_id).
    pub async fn get_many(&self, ids: &[E::Id]) -> Result<Vec<Option<E>>, S::Error> {
        let keys: Vec<Key> = ids.iter().map(|id| self.kept.key(id)).collect();
        let mut found = Vec::with_capacity(ids.len());
        let mut missing = Vec::new();
        for (at, known) in self
            .kept
            .cache
            .get_many::<E>(&keys)
            .await
            .into_iter()
            .enumerate()
        {
            let known = known.unwrap_or_else(|error| {
                passed_over("get", &error);
                Lookup::Miss
            });
            if let Some(known) = known.known() {
                found.push(known);
            } else {
                missing.push(at);
                found.push(None);
            }
        }
        let batch = Batch::new(&*self.source, missing.len());
        let loads = missing.iter().map(|at| {
            let load = || batch.load(&ids[*at]);
            let loaded = self.load(&keys[*at], load);
            batch.account(loaded)
        });
        let loaded = batch.run(loads).await;
        for (at, loaded) in missing.into_iter().zip(loaded) {
            found[at] = loaded?;
        }
        Ok(found)
    }

    /// The list that the source gives for `params`: a page, a filter, an order.
    ///
    /// # Errors
    /// As [`get_by_id`](Self::get_by_id).
    pub async fn list(&self, params: &Params) -> Result<Vec<E>, S::Error> {
        let load = || self.source.list(params);
        self.asked("list", "", params, load).await
    }

    /// What `loader` gives for `params`, kept as `name` until it expires or an entity changes.
    ///
    /// Parameters count by name and value, not by the order in which they were given.
    ///
    /// # Errors
    /// Only what `loader` returns.
    pub async fn query<T, F, Fut>(
        &self,
        name: &str,
        params: &Params,
        loader: F,
    ) -> Result<T, S::Error>
    where
        T: CacheValue,
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<T, S::Error>>,
    {
        self.asked("query", name, params, loader).await
    }

    /// Saves `entity` to the source, then keeps what the source returned, and renews all lists.
    ///
    /// # Errors
    /// Only what the source returns. Nothing of the entity is kept then.
    pub async fn save(&self, entity: E) -> Result<E, S::Error> {
        let cache = &self.kept.cache;
        let key = self.kept.key(entity.id());
        let outdated = Outdated::begin::<E>(cache, &key).await.tag(LISTS);
        let saved = self.source.save(entity).await;
        match &saved {
            Ok(entity) if self.kept.key(entity.id()) == key => {
                outdated.replace(entity, E::ttl()).await;
            }
            // The source has chosen an id: what was asked to be saved is no entity.
            Ok(entity) => {
                let chosen = self.kept.key(entity.id());
                match cache.add(&chosen, entity, E::ttl()).await {
                    Ok(true) => {}
                    // Somebody knows it already, as absent or as a later write left it.
                    Ok(false) => Outdated::deleting(cache, &chosen).forget().await,
                    Err(error) => {
                        passed_over("add", &error);
                        Outdated::deleting(cache, &chosen).forget().await;
                    }
                }
                outdated.forget().await;
            }
            Err(_) => outdated.forget().await,
        }
        saved
    }

    /// Deletes the entity from the source, then from the cache, and renews all lists. `false` when the
    /// source had none.
    ///
    /// # Errors
    /// Only what the source returns. The cached entity is gone all the same.
    pub async fn delete(&self, id: &E::Id) -> Result<bool, S::Error> {
        let outdated = Outdated::deleting(&self.kept.cache, &self.kept.key(id)).tag(LISTS);
        let deleted = self.source.delete(id).await;
        outdated.forget().await;
        deleted
    }

    /// What tells this repository of changes that others make to the source.
    #[must_use]
    pub fn observer(&self) -> Observer<E> {
        Observer::new(self.kept.clone())
    }

    /// The source.
    #[must_use]
    pub fn source(&self) -> &S {
        &self.source
    }

    async fn load<F, Fut>(&self, key: &Key, loader: F) -> Result<Option<E>, S::Error>
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<Option<E>, S::Error>>,
    {
        let mut load = self.kept.cache.load(key).ttl(E::ttl());
        if let Some(ttl) = E::negative_ttl() {
            load = load.negative_ttl(ttl);
        }
        load.run(loader).await
    }

    async fn asked<T, F, Fut>(
        &self,
        kind: &str,
        name: &str,
        params: &Params,
        loader: F,
    ) -> Result<T, S::Error>
    where
        T: CacheValue,
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<T, S::Error>>,
    {
        let key = Key::new(kind).part(name).part(params);
        let load = self.kept.cache.load(&key).ttl(E::list_ttl()).tags([LISTS]);
        load.run(loader).await
    }
}
