//! What a value is on a server: header, generation and expiry, and how one is read and replaced.

use std::time::Duration;

use bytes::Bytes;

use super::server::{Delete, Get, Held, Op, Reply, Server, Set, get_versioned};
use crate::backend::StoredValue;
use crate::clock::{Clock, ClockHandle, SystemClock, Timestamp};
use crate::error::{ErrorKind, Result};

/// Bytes of a generation.
const GENERATION: usize = 8;
/// Bytes before a value: its generation, then its expiry in milliseconds, both big-endian.
const HEADER: usize = GENERATION + 8;
/// In place of an expiry: the value has none.
const NEVER: u64 = u64::MAX;
/// Seconds that memcached's expiry lies behind ours: its clock ticks once a second, and it counts from
/// a tick that may be nearly two seconds old.
const LATE_SECS: u64 = 2;
/// Above this, memcached reads a number of seconds as a date.
const LONGEST_RELATIVE_SECS: u64 = 30 * 24 * 60 * 60;
/// Attempts at making a generation while others make or evict theirs, and at writing in one that stays.
const GENERATION_ATTEMPTS: usize = 4;
/// The longest pause before a change is tried again that others came between.
const LONGEST_PAUSE: Duration = Duration::from_millis(5);

type Generation = [u8; GENERATION];

/// A value to be written.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) wire_key: String,
    pub(super) value: Bytes,
    pub(super) expires: Option<Timestamp>,
}

/// What to do about what a key holds.
pub(super) enum Change<T> {
    /// Nothing.
    Leave(T),
    /// Remove it.
    Remove(T),
    /// Replace it by a value with an expiry.
    Write(Bytes, Option<Timestamp>, T),
}

/// What was found under a key.
struct Seen {
    generation: Option<Generation>,
    /// The value, if it is of this generation and alive.
    live: Option<StoredValue>,
    /// Whether the server holds anything, dead or alive, and in which version.
    version: Option<Option<u64>>,
}

/// The values of one prefix.
#[derive(Clone, Debug)]
pub(super) struct Records {
    /// Where each server keeps the generation. No key of ours is spelled like this one.
    pub(super) generation_key: String,
    pub(super) clock: ClockHandle,
}

impl Records {
    /// The values under `keys`.
    pub(super) async fn get(
        &self,
        server: &Server,
        keys: &[String],
    ) -> Result<Vec<Result<Option<StoredValue>>>> {
        let asked = keys.iter().map(|key| Get::new(key).into());
        let mut commands = vec![Get::new(&self.generation_key).into()];
        commands.extend(asked);
        let mut replies = server.run_each(commands).await.into_iter();
        let generation = replies.next().map_or(Ok(None), as_generation)?;
        Ok(replies
            .map(|stored| Ok(self.live(generation, stored?.into_value())))
            .collect())
    }

    /// Stores each of `records`.
    pub(super) async fn set(&self, server: &Server, records: &[Record]) -> Result<Vec<Result<()>>> {
        for _ in 0..GENERATION_ATTEMPTS {
            let generation = self.generation(server).await?;
            let mut commands: Vec<Op> = records
                .iter()
                .map(|record| self.command(generation, record))
                .collect();
            commands.push(Get::new(&self.generation_key).into());
            let mut replies = server.run_each(commands).await;
            // What was written in a generation that has ended may have covered what others wrote in the
            // next one, so it is written again.
            let after = replies.pop().map_or(Ok(None), as_generation);
            if matches!(after, Ok(after) if after != Some(generation)) {
                continue;
            }
            let stored = records.iter().zip(replies).map(|(record, reply)| {
                if reply?.is_changed() || self.is_past(record.expires) {
                    return Ok(());
                }
                Err(server
                    .error(ErrorKind::BackendUnavailable, "memcached did not store")
                    .retryable())
            });
            return Ok(stored.collect());
        }
        Err(unsettled(server))
    }

    /// Removes `keys`; `true` where one held a live value.
    pub(super) async fn delete(
        &self,
        server: &Server,
        keys: &[String],
    ) -> Result<Vec<Result<bool>>> {
        let mut commands: Vec<Op> = vec![Get::new(&self.generation_key).into()];
        for key in keys {
            commands.push(Get::new(key).into());
            commands.push(Delete::new(key).into());
        }
        let mut replies = server.run_each(commands).await.into_iter();
        let generation = replies.next().map_or(Ok(None), as_generation)?;
        let mut deleted = Vec::with_capacity(keys.len());
        while let (Some(stored), Some(gone)) = (replies.next(), replies.next()) {
            deleted.push(stored.and_then(|stored| {
                let was_live = self.live(generation, stored.into_value()).is_some();
                // Of several who delete at once, the server says yes to one.
                Ok(gone?.is_changed() && was_live)
            }));
        }
        Ok(deleted)
    }

    /// Looks at what `key` holds and does as `decide` says, which is asked anew when another came
    /// between: the change is made to exactly what was seen, or not at all. Ends by the deadline of the
    /// caller.
    pub(super) async fn change<T>(
        &self,
        server: &Server,
        key: &str,
        decide: impl Fn(Option<&StoredValue>) -> Result<Change<T>>,
    ) -> Result<T> {
        let mut attempt = 0;
        loop {
            pause(attempt).await;
            attempt += 1;
            let seen = self.see(server, key).await?;
            let (command, then) = match decide(seen.live.as_ref())? {
                Change::Leave(then) => return Ok(then),
                Change::Write(value, expires, then) if !self.is_past(expires) => {
                    let generation = match seen.generation {
                        Some(generation) => generation,
                        None => self.generation(server).await?,
                    };
                    let set = self.set_command(generation, key, &value, expires);
                    let set = match seen.version {
                        None => set.add(),
                        Some(version) => set.compare_cas(known(server, version)?),
                    };
                    (set.into(), then)
                }
                // Something to remove is something alive: what is dead is as good as gone.
                Change::Remove(then) | Change::Write(_, _, then) => match seen.version {
                    Some(version) if seen.live.is_some() => {
                        let version = known(server, version)?;
                        (Delete::new(key).compare_cas(version).into(), then)
                    }
                    _ => return Ok(then),
                },
            };
            let [changed] = server.run([command]).await?;
            if changed.is_changed() {
                return Ok(then);
            }
        }
    }

    /// Replaces the generation: what was written before is dead.
    pub(super) async fn clear(&self, server: &Server) -> Result<()> {
        let command = Set::new(&self.generation_key, fresh_generation());
        server.run([command.into()]).await.map(drop)
    }

    async fn see(&self, server: &Server, key: &str) -> Result<Seen> {
        let commands = [
            Get::new(&self.generation_key).into(),
            get_versioned(key).into(),
        ];
        let [generation, stored] = server.run(commands).await?;
        let generation = as_generation(Ok(generation))?;
        let (version, bytes) = match stored.into_held() {
            Some(Held { bytes, version }) => (Some(version), Some(bytes)),
            None => (None, None),
        };
        Ok(Seen {
            generation,
            live: self.live(generation, bytes),
            version,
        })
    }

    /// The generation in force on `server`, made when there is none.
    async fn generation(&self, server: &Server) -> Result<Generation> {
        for _ in 0..GENERATION_ATTEMPTS {
            let [held] = server.run([Get::new(&self.generation_key).into()]).await?;
            let held = held.into_value();
            if let Some(generation) = held.as_deref().and_then(|held| held.try_into().ok()) {
                return Ok(generation);
            }
            let fresh = fresh_generation();
            let mut made = Set::new(&self.generation_key, fresh);
            if held.is_none() {
                // Whoever comes first decides; the others read it in their next attempt.
                made = made.add();
            }
            let [made] = server.run([made.into()]).await?;
            if made.is_changed() {
                return Ok(fresh);
            }
        }
        Err(unsettled(server))
    }

    /// The value in `stored`, when it is of this generation and alive.
    fn live(&self, generation: Option<Generation>, stored: Option<Vec<u8>>) -> Option<StoredValue> {
        let stored = Bytes::from(stored?);
        let (header, _) = stored.split_first_chunk::<HEADER>()?;
        let (of, expires) = header.split_first_chunk::<GENERATION>()?;
        let expires = u64::from_be_bytes(expires.try_into().ok()?);
        let expires = (expires != NEVER).then(|| Timestamp::from_millis(expires));
        let counts = Some(*of) == generation && !self.is_past(expires);
        counts.then(|| StoredValue::new(stored.slice(HEADER..), expires))
    }

    fn is_past(&self, expires: Option<Timestamp>) -> bool {
        expires.is_some_and(|expires| expires <= self.clock.now())
    }

    fn command(&self, generation: Generation, record: &Record) -> Op {
        let Record {
            wire_key,
            value,
            expires,
        } = record;
        if self.is_past(*expires) {
            return Delete::new(wire_key).into();
        }
        self.set_command(generation, wire_key, value, *expires)
            .into()
    }

    fn set_command(
        &self,
        generation: Generation,
        key: &str,
        value: &[u8],
        expires: Option<Timestamp>,
    ) -> Set {
        let life = expires.map(|at| at.since(self.clock.now()));
        let mut bytes = Vec::with_capacity(HEADER + value.len());
        bytes.extend(generation);
        bytes.extend(expires.map_or(NEVER, Timestamp::as_millis).to_be_bytes());
        bytes.extend_from_slice(value);
        let mut set = Set::new(key, []).ttl_raw(exptime(life, SystemClock.now()));
        set.value = bytes;
        set
    }
}

/// The version to compare with.
fn known(server: &Server, version: Option<u64>) -> Result<u64> {
    version.ok_or_else(|| {
        let kind = ErrorKind::Unsupported;
        server
            .error(
                kind,
                "this memcached keeps no versions to write conditionally by",
            )
            .with("remedy", "start memcached without -C")
    })
}

fn unsettled(server: &Server) -> crate::error::Error {
    server
        .error(
            ErrorKind::BackendUnavailable,
            "the server drops the generation of this cache at once",
        )
        .retryable()
}

/// Waits before another attempt, by chance and longer each time, so that writers of one key do not keep
/// in step.
async fn pause(attempt: u32) {
    // The first failure says only that there is another writer.
    let Some(doublings) = attempt.checked_sub(2) else {
        return;
    };
    let most = Duration::from_micros(100).saturating_mul(1 << doublings.min(10));
    let most = most.min(LONGEST_PAUSE);
    tokio::time::sleep(most.mul_f64(rand::random())).await;
}

fn as_generation(reply: Result<Reply>) -> Result<Option<Generation>> {
    let held = reply?.into_value();
    Ok(held.and_then(|held| held.try_into().ok()))
}

fn fresh_generation() -> Generation {
    rand::random()
}

/// When memcached may give the memory of a value back that has `life` left: 0 for never, a number of
/// seconds, or a date. A date is by the wall clock, whatever clock measured the life.
fn exptime(life: Option<Duration>, wall: Timestamp) -> u32 {
    let Some(life) = life else { return 0 };
    let secs = ceil_secs(life).saturating_add(LATE_SECS);
    let secs = if secs > LONGEST_RELATIVE_SECS {
        let date = wall.after(life).as_millis().div_ceil(1_000);
        date.saturating_add(LATE_SECS)
    } else {
        secs
    };
    // memcached reads a signed number; what lies beyond it is left to eviction and the header.
    i32::try_from(secs).map_or(0, i32::unsigned_abs)
}

fn ceil_secs(duration: Duration) -> u64 {
    let part = u64::from(duration.subsec_nanos() > 0);
    duration.as_secs().saturating_add(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WALL: Timestamp = Timestamp::from_millis(1_800_000_000_001);
    const DAY: u64 = 24 * 60 * 60;

    #[test]
    fn the_expiry_of_the_server_is_never_before_ours() {
        assert_eq!(exptime(None, WALL), 0);
        for (millis, secs) in [(1, 3), (999, 3), (1_000, 3), (1_001, 4), (60_000, 62)] {
            assert_eq!(exptime(Some(Duration::from_millis(millis)), WALL), secs);
        }
        let days = |days| exptime(Some(Duration::from_secs(days * DAY)), WALL);
        assert_eq!(u64::from(days(29)), 29 * DAY + 2);
        // More than thirty days as a number of seconds would be a date in 1970: gone at once.
        assert_eq!(u64::from(days(30)), 1_800_000_001 + 30 * DAY + 2);
        assert_eq!(u64::from(days(365)), 1_800_000_001 + 365 * DAY + 2);
        // Beyond 2038 the field overflows.
        assert_eq!(days(36_500), 0);
        assert_eq!(exptime(Some(Duration::MAX), WALL), 0);
    }
}
