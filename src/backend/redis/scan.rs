//! Listing keys: those of our prefix, shard after shard.
//!
//! A cursor carries the shard it is at, and a digest of all shards. Where that has changed, by a failover
//! or because slots have moved, the walk begins anew: positions in one server's table mean nothing in
//! another's, and keys may be shown twice but none be left out.

use redis::Cmd;
use xxhash_rust::xxh3::xxh3_64;

use super::link::Shard;
use super::store::RedisBackend;
use crate::backend::Cursor;
use crate::error::{Error, ErrorKind, Result};

/// Keys asked for per round trip.
const SCAN_BATCH: usize = 1_000;

/// Where a walk over all keys is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Walk {
    /// A digest of the shards; 0 before the first step.
    topology: u64,
    shard: usize,
    position: u64,
}

impl Walk {
    /// The walk that a cursor stands for; `None` when it is none of ours.
    pub(super) fn from_cursor(cursor: &Cursor) -> Option<Self> {
        if cursor.as_bytes().is_empty() {
            return Some(Self::default());
        }
        let text = std::str::from_utf8(cursor.as_bytes()).ok()?;
        let mut parts = text.split('-');
        let walk = Self {
            topology: u64::from_str_radix(parts.next()?, 16).ok()?,
            shard: parts.next()?.parse().ok()?,
            position: parts.next()?.parse().ok()?,
        };
        parts.next().is_none().then_some(walk)
    }

    pub(super) fn into_cursor(self) -> Cursor {
        let Self {
            topology,
            shard,
            position,
        } = self;
        Cursor::new(format!("{topology:x}-{shard}-{position}"))
    }
}

/// A digest of which servers there are, never 0.
fn digest(shards: &[Shard]) -> u64 {
    let text: Vec<String> = shards.iter().map(|shard| format!("{shard:?}")).collect();
    xxh3_64(text.join(" ").as_bytes()).max(1)
}

impl RedisBackend {
    /// Some keys of this backend, as the server sees them, and where to go on.
    pub(super) async fn step(
        &self,
        operation: &'static str,
        walk: Walk,
    ) -> Result<(Vec<Vec<u8>>, Option<Walk>)> {
        let shards = self.link.shards(operation).await?;
        let topology = digest(&shards);
        let walk = if walk.topology == topology {
            walk
        } else {
            Walk {
                topology,
                ..Walk::default()
            }
        };
        let Some(shard) = shards.get(walk.shard) else {
            return Ok((Vec::new(), None));
        };
        let command: Cmd = redis::cmd("SCAN")
            .arg(walk.position)
            .arg("MATCH")
            .arg(self.keys.pattern())
            .arg("COUNT")
            .arg(SCAN_BATCH)
            .take();
        let (position, mut keys): (u64, Vec<Vec<u8>>) =
            self.link.command_at(operation, shard, &command).await?;
        keys.retain(|key| self.keys.decode(key).is_some());
        let next = Walk { position, ..walk };
        let next = match position {
            0 if walk.shard + 1 == shards.len() => None,
            0 => Some(Walk {
                shard: walk.shard + 1,
                ..next
            }),
            _ => Some(next),
        };
        Ok((keys, next))
    }

    /// The error of a cursor that this backend did not make.
    pub(super) fn unknown_cursor(&self) -> Error {
        Error::new(
            ErrorKind::InvalidRequest,
            "the cursor is not one of this backend",
        )
        .with("tier", self.link.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_back_and_anothers_is_not() {
        let walk = Walk {
            topology: u64::MAX,
            shard: 2,
            position: 17,
        };
        assert_eq!(Walk::from_cursor(&walk.into_cursor()), Some(walk));
        assert_eq!(Walk::from_cursor(&Cursor::default()), Some(Walk::default()));
        for other in ["x", "1-2", "1-2-3-4", "1-2-z"] {
            assert_eq!(Walk::from_cursor(&Cursor::new(other.to_owned())), None);
        }
    }
}
