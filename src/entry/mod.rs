//! The stored answer and what is kept beside it.
//!
//! An [`Entry`] carries the full digest set of the request that made it: a hit compares them, field by
//! field, with the request that asks. Neither a hash table slot nor an index row proves identity.
//!
//! [`catalog`] lists the entries that are alive on this node, so that they can be found by tag, scope,
//! model or age.

mod answer;
pub mod catalog;
mod id;
mod trust;
mod ttl;

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};

use crate::clock::Timestamp;
use crate::request::Digests;
use crate::savings::{Saved, Usage, Usd};

pub use answer::{Answer, Media};
pub use id::EntryId;
pub use trust::{MOST_PRINCIPALS, Trust};
pub use ttl::Ttl;
pub(crate) use ttl::{jittered, zero_life};

/// A stored answer, complete enough to be checked, priced, replayed and invalidated.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// This entry's own id. Storing an answer for the same request again makes a new id.
    pub id: EntryId,
    /// What the request was, as digests.
    pub digests: Digests,
    /// The request's text in the form that is embedded; `None` when it only matches exactly.
    pub text: Option<String>,
    /// The answer.
    pub answer: Answer,
    /// Tokens that the upstream call used.
    pub usage: Usage,
    /// What the upstream call cost; `None` when the model has no known price.
    pub cost: Option<Usd>,
    /// How long the upstream call took; zero when unknown.
    pub latency: Duration,
    /// Labels to invalidate by.
    pub tags: Vec<String>,
    /// Who has asked for exactly this. Last of what is stored: entries of before do not have it.
    #[serde(default, deserialize_with = "trust_if_any")]
    pub trust: Trust,
    /// When the entry was stored. Kept in the envelope's header.
    #[serde(skip)]
    pub created: Timestamp,
    /// From when on the entry is dead. Kept in the envelope's header.
    #[serde(skip)]
    pub expires: Option<Timestamp>,
}

/// Of an entry that was written before there was trust, in a form without names of fields, nothing is left
/// to read here.
fn trust_if_any<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Trust, D::Error> {
    Ok(Trust::deserialize(deserializer).unwrap_or_default())
}

impl Entry {
    /// Whether the entry may still be served at `now`.
    #[must_use]
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.expires.is_none_or(|expires| now < expires)
    }

    /// What a hit on this entry saves: the upstream call that made it.
    #[must_use]
    pub fn saved(&self) -> Saved {
        Saved {
            usage: self.usage,
            usd: self.cost,
            duration: self.latency,
        }
    }
}

impl fmt::Debug for Entry {
    /// Shows ids, sizes and times, never text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("id", &self.id)
            .field("digests", &self.digests)
            .field("text_bytes", &self.text.as_ref().map(String::len))
            .field("answer", &self.answer)
            .field("created", &self.created)
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}
