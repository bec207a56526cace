//! What is known of a stored value without reading it.

use std::time::Duration;

use crate::clock::Timestamp;

/// What an envelope says of its value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// When the value was stored.
    pub created: Timestamp,
    /// Until when it is fresh; `None`: always.
    pub expires: Option<Timestamp>,
    /// Until when it may be served stale, not before `expires`; `None`: not at all.
    pub stale_until: Option<Timestamp>,
    /// The invalidation generation that the value was computed under.
    pub generation: u64,
    /// How long the value took to make, in whole milliseconds; a fraction is not kept.
    pub load_time: Duration,
    /// The token of whoever is making a new value; `None`: nobody.
    pub lease: Option<u64>,
    /// What the value depends on, at most 65 535.
    pub marks: Vec<Mark>,
}

/// A thing that a value depends on, a tag or a namespace, as it was when the value was computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mark {
    /// A digest of its name.
    pub id: [u8; 16],
    /// Its generation then. The value is out of date when the generation is another now.
    pub generation: u64,
}

impl Header {
    /// From when on a store may drop the value: it is then neither fresh nor to be served stale.
    /// `None`: never.
    #[must_use]
    pub fn physical_expiry(&self) -> Option<Timestamp> {
        let expires = self.expires?;
        Some(self.stale_until.map_or(expires, |stale| stale.max(expires)))
    }

    /// Whether the value is fresh at `now`.
    #[must_use]
    pub fn is_fresh(&self, now: Timestamp) -> bool {
        self.expires.is_none_or(|expires| now < expires)
    }
}
