//! The exact tiers of a semantic cache, nearest first.
//!
//! A [`TierStack`] asks its backends in order, checks each envelope against the key, and copies a
//! value found in a far tier into the nearer ones with the life it has left. A store writes the
//! farthest tier first and the nearest last, whose word counts.
//!
//! A tier that fails, hangs onto garbage or lies is counted, reported and passed over: the answer of
//! the stack is then a miss with a note of the fault, never an error.

use bytes::Bytes;

use crate::backend::{BackendHandle, BackendUsage};
use crate::clock::Timestamp;
use crate::codec::{Codec, EnvelopeError, Header};
use crate::entry::Entry;
use crate::error::{Error, ErrorKind, Result};
use crate::observe;
use crate::request::ExactKey;

/// The exact tiers of one cache, nearest first.
#[derive(Clone, Debug)]
pub struct TierStack {
    tiers: Vec<BackendHandle>,
    codec: Codec,
}

/// What the tiers know of a key.
#[derive(Debug)]
pub struct TierAnswer {
    /// The live entry, and the position of the tier that held it.
    pub found: Option<(Entry, usize)>,
    /// A tier failed or held bytes that could not be used.
    pub fault: Option<TierFault>,
}

/// Why a tier could not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TierFault {
    /// It returned an error.
    Unavailable,
    /// It held bytes that are not a usable entry.
    Corrupt,
}

impl TierStack {
    /// A stack of `tiers`, nearest first, of values that `codec` writes and reads.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when there is none.
    pub fn new(tiers: Vec<BackendHandle>, codec: Codec) -> Result<Self> {
        if tiers.is_empty() {
            return Err(
                Error::new(ErrorKind::Config, "a cache needs at least one backend")
                    .with("field", "backends"),
            );
        }
        Ok(Self { tiers, codec })
    }

    /// What writes and reads the values.
    #[must_use]
    pub fn codec(&self) -> &Codec {
        &self.codec
    }

    /// The name of the tier at `position`.
    #[must_use]
    pub fn name(&self, position: usize) -> &str {
        self.tiers.get(position).map_or("", |tier| tier.name())
    }

    /// Names of the tiers, nearest first.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tiers.iter().map(|tier| tier.name())
    }

    /// The live entry under `key`, from the nearest tier that has one.
    pub async fn get(&self, key: &ExactKey, now: Timestamp) -> TierAnswer {
        let mut fault = None;
        for (position, tier) in self.tiers.iter().enumerate() {
            let bytes = match tier.get(key.as_bytes()).await {
                Ok(Some(held)) => held.bytes,
                Ok(None) => continue,
                Err(error) => {
                    fault = Some(TierFault::Unavailable);
                    self.report(position, "get", &error);
                    continue;
                }
            };
            match self.unseal(key, &bytes) {
                Ok(entry) if entry.is_live(now) => {
                    self.backfill(position, key, &bytes, entry.expires).await;
                    return TierAnswer {
                        found: Some((entry, position)),
                        fault,
                    };
                }
                Ok(_) => {}
                Err(error) => {
                    fault = Some(TierFault::Corrupt);
                    let error = Error::new(ErrorKind::Corrupt, error.to_string());
                    self.report(position, "decode", &error);
                    // Left in place it would be read, checked and refused on every lookup.
                    if let Err(error) = tier.delete(key.as_bytes()).await {
                        self.report(position, "delete", &error);
                    }
                }
            }
        }
        TierAnswer { found: None, fault }
    }

    /// Whether any tier holds a value under `key`, usable or not.
    pub async fn contains(&self, key: &ExactKey) -> bool {
        for tier in &self.tiers {
            if matches!(tier.get(key.as_bytes()).await, Ok(Some(_))) {
                return true;
            }
        }
        false
    }

    /// Stores `entry` in every tier, the farthest first.
    ///
    /// The nearest tier decides: what it takes is stored, and a farther tier that fails is reported and
    /// does without, so that a remote server that is down does not stop the cache from filling. Until
    /// it is written again such a tier may still give an older answer to the same request, within that
    /// answer's own life.
    ///
    /// # Errors
    /// What the nearest tier said; the farther ones are then cleaned of the entry.
    pub async fn set(&self, entry: &Entry, generation: u64) -> Result<()> {
        let key = entry.digests.exact();
        let header = Header {
            created: entry.created,
            expires: entry.expires,
            generation,
            load_time: entry.latency,
            ..Header::default()
        };
        let sealed = self.codec.seal(key.as_bytes(), &header, entry);
        let bytes = sealed.map_err(|error| {
            Error::new(ErrorKind::Corrupt, "the entry has no stored form").caused_by(error)
        })?;
        for (position, tier) in self.tiers.iter().enumerate().rev() {
            let written = tier.set(key.as_bytes(), bytes.clone(), entry.expires).await;
            let Err(error) = written else { continue };
            self.report(position, "set", &error);
            if position == 0 {
                self.delete(&key).await;
                return Err(error);
            }
        }
        Ok(())
    }

    /// Removes `key` from every tier, nearest first; `true` when any held it.
    pub async fn delete(&self, key: &ExactKey) -> bool {
        let mut held = false;
        for (position, tier) in self.tiers.iter().enumerate() {
            match tier.delete(key.as_bytes()).await {
                Ok(had) => held |= had,
                Err(error) => self.report(position, "delete", &error),
            }
        }
        held
    }

    /// What each tier holds, nearest first; `None` for a tier that does not answer.
    pub async fn usage(&self) -> Vec<(String, Option<BackendUsage>)> {
        let mut usage = Vec::with_capacity(self.tiers.len());
        for tier in &self.tiers {
            usage.push((tier.name().to_owned(), tier.usage().await.ok()));
        }
        usage
    }

    async fn backfill(
        &self,
        from: usize,
        key: &ExactKey,
        bytes: &Bytes,
        expires: Option<Timestamp>,
    ) {
        for (position, tier) in self.tiers.iter().enumerate().take(from) {
            if let Err(error) = tier.set(key.as_bytes(), bytes.clone(), expires).await {
                self.report(position, "backfill", &error);
            }
        }
    }

    fn report(&self, position: usize, operation: &'static str, error: &Error) {
        let tier = self.name(position);
        observe::backend_error(tier, operation);
        tracing::warn!(tier, operation, kind = %error.kind(), %error, "tier failed");
    }

    fn unseal(&self, key: &ExactKey, bytes: &Bytes) -> Result<Entry, EnvelopeError> {
        let envelope = self.codec.open(key.as_bytes(), bytes)?;
        let mut entry: Entry = envelope.read()?;
        entry.created = envelope.header.created;
        entry.expires = envelope.header.expires;
        if entry.digests.exact() == *key {
            Ok(entry)
        } else {
            Err(EnvelopeError::WrongKey)
        }
    }
}
