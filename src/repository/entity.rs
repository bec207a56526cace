//! What a repository must know of its entities, and where it gets them.

use std::time::Duration;

use super::Params;
use crate::entry::Ttl;
use crate::typed::{CacheValue, KeyPart};

/// Something with an identity that a [`Repository`](super::Repository) keeps.
///
/// Derive it, which derives [`CacheValue`] too:
///
/// ```
/// # #[cfg(feature = "macros")] {
/// use askonce::repository::CacheEntity;
/// use askonce::typed::CacheValue;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize, CacheEntity)]
/// #[cache_entity(name = "invoice", version = 2, key = "number", ttl = "1h", list_ttl = "30s")]
/// struct Invoice {
///     number: String,
///     cents: u64,
/// }
///
/// assert_eq!(Invoice::NAME, "invoice");
/// assert_eq!(Invoice::schema(), "invoice@2");
/// # }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no entity that a repository could keep",
    label = "not a `CacheEntity`",
    note = "derive it: `#[derive(Serialize, Deserialize, CacheEntity)] #[cache_entity(name = \"..\", key = \"id\")]`"
)]
pub trait CacheEntity: CacheValue + Send + Sync + 'static {
    /// What tells two entities of this kind apart.
    type Id: KeyPart + Send + Sync + 'static;

    /// The kind of entity: part of every key.
    const NAME: &'static str;

    /// Which of its kind this is.
    fn id(&self) -> &Self::Id;

    /// How long an entity is kept. Default: [`Ttl::Default`].
    #[must_use]
    fn ttl() -> Ttl {
        Ttl::Default
    }

    /// How long it is kept that there is no entity with an id. Default: not at all.
    #[must_use]
    fn negative_ttl() -> Option<Ttl> {
        None
    }

    /// How long lists and query results are kept if nothing changes. Default: five minutes.
    #[must_use]
    fn list_ttl() -> Ttl {
        Ttl::For(Duration::from_secs(300))
    }
}

/// Where entities come from, and the truth about them.
///
/// # Contract
/// - `load` gives `None` for an id that does not exist; an `Err` says that it could not find out.
/// - `save` returns the entity as it is now stored, with every id and default filled in.
pub trait Source<E: CacheEntity>: Send + Sync + 'static {
    /// Why it failed. Given to all who wait for the same load; what is not [`Clone`] fits in an
    /// [`Arc`](std::sync::Arc).
    type Error: Clone + Send + Sync + 'static;

    /// The entity with this id.
    fn load(&self, id: &E::Id) -> impl Future<Output = Result<Option<E>, Self::Error>> + Send;

    /// The entities with these ids, one for each, in order. Default: one after the other.
    fn load_many(
        &self,
        ids: &[&E::Id],
    ) -> impl Future<Output = Result<Vec<Option<E>>, Self::Error>> + Send {
        async move {
            let mut loaded = Vec::with_capacity(ids.len());
            for id in ids {
                loaded.push(self.load(id).await?);
            }
            Ok(loaded)
        }
    }

    /// The entities that `params` ask for.
    fn list(&self, params: &Params) -> impl Future<Output = Result<Vec<E>, Self::Error>> + Send;

    /// Stores `entity`, new or changed.
    fn save(&self, entity: E) -> impl Future<Output = Result<E, Self::Error>> + Send;

    /// Removes the entity with this id; `false` when there was none.
    fn delete(&self, id: &E::Id) -> impl Future<Output = Result<bool, Self::Error>> + Send;
}
