//! What lies under a key, judged: found is not yet alive.

use bytes::Bytes;

use super::Cache;
use super::key::Place;
use super::lease;
use super::marks::{Generations, MarkName};
use super::value::{CacheValue, Found, Lookup};
use crate::backend::{Condition, StoredValue};
use crate::clock::Timestamp;
use crate::codec::Envelope;
use crate::error::{Error, Result};

/// An envelope as it was found, checked.
#[derive(Clone)]
pub(super) struct Sealed {
    pub(super) envelope: Envelope,
    pub(super) bytes: Bytes,
}

/// What a key holds.
pub(super) enum Held {
    Nothing,
    /// Bytes that stand for no value: it has died, or one of its marks has moved.
    Dead(Bytes),
    /// The place of a value that somebody is making now, and no value that could be served meanwhile.
    Leased(Bytes),
    /// A value past its life that may still be served to those who want it.
    Stale(Sealed),
    Fresh(Sealed),
    /// Bytes that cannot be read, or of which nobody knows whether they are alive.
    Unusable(Bytes, Error),
}

impl Held {
    /// The condition under which a write replaces this and nothing else.
    pub(super) fn unchanged(&self) -> Condition<'_> {
        match self {
            Self::Nothing => Condition::Absent,
            Self::Dead(bytes) | Self::Leased(bytes) | Self::Unusable(bytes, _) => {
                Condition::Equals(bytes)
            }
            Self::Stale(sealed) | Self::Fresh(sealed) => Condition::Equals(&sealed.bytes),
        }
    }

    /// The fresh value, if that is what it is.
    ///
    /// # Errors
    /// That of what cannot be read.
    pub(super) fn fresh(&self) -> Result<Option<&Sealed>> {
        match self {
            Self::Fresh(sealed) => Ok(Some(sealed)),
            Self::Unusable(_, error) => Err(error.clone()),
            _ => Ok(None),
        }
    }
}

impl Cache {
    /// What lies in `place`, and the generations of `names`, in one round trip; another one where a
    /// value carries marks beyond those.
    pub(super) async fn look(
        &self,
        place: &Place,
        names: &[MarkName],
    ) -> Result<(Held, Generations)> {
        let (mut held, generations) = self.look_many(std::slice::from_ref(place), names).await;
        match held.pop() {
            Some(held) => held.map(|held| (held, generations)),
            None => Ok((Held::Nothing, generations)),
        }
    }

    /// The same for many places.
    pub(super) async fn look_many(
        &self,
        places: &[Place],
        names: &[MarkName],
    ) -> (Vec<Result<Held>>, Generations) {
        let mut generations = Generations::default();
        let keys = places.iter().map(|place| place.name.clone());
        let answers = self.fetch(keys, names, &mut generations).await;
        let opened: Vec<_> = places
            .iter()
            .zip(answers)
            .map(|(place, answer)| self.open(place, answer))
            .collect();
        let mut unknown: Vec<MarkName> = Vec::new();
        for sealed in opened
            .iter()
            .filter_map(|opened| opened.as_ref().ok()?.ok())
        {
            for name in generations.unknown(&sealed.envelope.header.marks) {
                if !unknown.contains(&name) {
                    unknown.push(name);
                }
            }
        }
        if !unknown.is_empty() {
            self.fetch(std::iter::empty(), &unknown, &mut generations)
                .await;
        }
        let now = self.now();
        let judge = |opened: Result<Opened>| {
            Ok(match opened? {
                Opened::Nothing => Held::Nothing,
                Opened::Unreadable(bytes, error) => Held::Unusable(bytes, error),
                Opened::Sealed(sealed) => judge(sealed, &generations, now),
            })
        };
        let held = opened.into_iter().map(judge).collect();
        (held, generations)
    }

    fn open(&self, place: &Place, answer: Result<Option<StoredValue>>) -> Result<Opened> {
        let Some(StoredValue { bytes, .. }) = answer? else {
            return Ok(Opened::Nothing);
        };
        Ok(
            match self.inner.codec.open(place.digest.as_bytes(), &bytes) {
                Ok(envelope) => Opened::Sealed(Sealed { envelope, bytes }),
                Err(error) => {
                    let unusable = self.unusable("the stored bytes cannot be read");
                    Opened::Unreadable(bytes, unusable.caused_by(error))
                }
            },
        )
    }

    /// The value in an envelope.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) when it is no `T`.
    pub(super) fn unseal<T: CacheValue>(&self, sealed: &Sealed) -> Result<Option<T>> {
        match sealed.envelope.read_front::<Found<T>>() {
            Ok((Found::Value(value), true)) => Ok(Some(value)),
            Ok((Found::Null, true)) => Ok(None),
            Ok((Found::Other(stored), _)) => Err(self
                .unusable("the stored value is of another type")
                .with("stored", stored)
                .with("asked", T::schema())),
            Ok((_, false)) => Err(self
                .unusable("the stored value does not fit its type")
                .with("asked", T::schema())),
            Err(error) => Err(self
                .unusable("the stored value does not fit its type")
                .with("asked", T::schema())
                .caused_by(error)),
        }
    }

    /// What a caller is told about what lies there.
    pub(super) fn lookup<T: CacheValue>(&self, held: &Held) -> Result<Lookup<T>> {
        Ok(match held {
            Held::Nothing | Held::Dead(_) | Held::Leased(_) => Lookup::Miss,
            Held::Unusable(_, error) => return Err(error.clone()),
            Held::Fresh(sealed) => match self.unseal(sealed)? {
                Some(value) => Lookup::Hit(value),
                None => Lookup::Null,
            },
            // That there was no value once is nothing to fall back on.
            Held::Stale(sealed) => match self.unseal(sealed)? {
                Some(value) => Lookup::Stale(value),
                None => Lookup::Miss,
            },
        })
    }
}

/// What a backend gave, before anything is known of its marks.
enum Opened {
    Nothing,
    Unreadable(Bytes, Error),
    Sealed(Sealed),
}

impl Opened {
    fn ok(&self) -> Option<&Sealed> {
        match self {
            Self::Sealed(sealed) => Some(sealed),
            _ => None,
        }
    }
}

/// A backend that returns the dead is not believed.
fn judge(sealed: Sealed, generations: &Generations, now: Timestamp) -> Held {
    let header = &sealed.envelope.header;
    let leased = lease::is_live(header, now);
    let gone = |bytes: Bytes| {
        if leased {
            Held::Leased(bytes)
        } else {
            Held::Dead(bytes)
        }
    };
    if sealed.envelope.is_empty() {
        return gone(sealed.bytes);
    }
    match generations.agree(&header.marks) {
        Err(error) => Held::Unusable(sealed.bytes, error),
        Ok(false) => gone(sealed.bytes),
        Ok(true) if header.is_fresh(now) => Held::Fresh(sealed),
        Ok(true) if header.stale_until.is_some_and(|until| now < until) => Held::Stale(sealed),
        Ok(true) => gone(sealed.bytes),
    }
}
