//! The feed: a Redis stream under a reserved key of the prefix.
//!
//! Each message carries the generation of the stream, a random name that its first message was given, and
//! a number that counts from one. A script that adds a message takes both from the message before it, so
//! a reader sees from the next message alone whether it missed any: by trimming, because the stream is
//! gone and has begun anew, or because a failover lost what was not yet replicated. A position also
//! names the server that it was read from. Another one, or the same after a restart, may have forgotten
//! messages that nobody will ever number, so that is a gap too. Users that may not ask a server for its
//! name do without that last check.
//!
//! A reader waits on a connection of its own: on a shared one everybody would wait with it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{FromRedisValue, RedisError, RedisResult, Value};

use super::link::Link;
use super::script::{APPEND, Call};
use crate::backend::{BoxFuture, Feed, FeedBatch, FeedPosition};
use crate::error::Result;

/// About how many messages are kept.
const KEPT: &[u8] = b"10000";

/// Messages given at once.
const BATCH: usize = 1_000;

/// A reader that wants to wait longer is given an empty batch and asks again.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// The feed of one prefix.
pub(super) struct RedisFeed {
    link: Arc<Link>,
    key: Vec<u8>,
    /// Connections that nobody waits on.
    idle: Mutex<Vec<Reader>>,
}

impl std::fmt::Debug for RedisFeed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisFeed")
            .field("tier", &self.link.name())
            .finish_non_exhaustive()
    }
}

/// A connection to the server that holds the stream.
struct Reader {
    wire: MultiplexedConnection,
    /// The name of this run of the server; empty when it may not be asked.
    server: String,
}

/// The place after a message; before the first one the number is 0.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    generation: String,
    number: u64,
    /// The message's own place in the stream.
    id: String,
    server: String,
}

impl Place {
    fn beginning(server: &str) -> Self {
        Self {
            generation: String::new(),
            number: 0,
            id: "0-0".to_owned(),
            server: server.to_owned(),
        }
    }

    fn read(position: &FeedPosition) -> Option<Self> {
        let text = std::str::from_utf8(position.as_bytes()).ok()?;
        let mut parts = text.split('/').map(str::to_owned);
        let place = Self {
            generation: parts.next()?,
            number: parts.next()?.parse().ok()?,
            id: parts.next()?,
            server: parts.next()?,
        };
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
        let (millis, sequence) = place.id.split_once('-')?;
        (digits(millis) && digits(sequence) && parts.next().is_none()).then_some(place)
    }

    fn write(&self) -> FeedPosition {
        let Self {
            generation,
            number,
            id,
            server,
        } = self;
        FeedPosition::new(format!("{generation}/{number}/{id}/{server}"))
    }

    /// Whether a message with this number can be the next.
    fn is_followed_by(&self, generation: &str, number: u64) -> bool {
        number == self.number + 1 && (self.number == 0 || self.generation == generation)
    }
}

/// What stands in the stream.
struct Message {
    id: String,
    /// Generation, number and message; `None` when somebody else has added it.
    own: Option<(String, u64, Bytes)>,
}

fn messages(value: Value) -> RedisResult<Vec<Message>> {
    let rows: Vec<(String, Vec<Vec<u8>>)> = redis::from_redis_value(value)?;
    let read = |fields: Vec<Vec<u8>>| {
        let [g, generation, n, number, m, message] = <[Vec<u8>; 6]>::try_from(fields).ok()?;
        let named = g == b"g" && n == b"n" && m == b"m";
        let generation = String::from_utf8(generation).ok()?;
        let number = String::from_utf8(number).ok()?.parse().ok()?;
        named.then(|| (generation, number, Bytes::from(message)))
    };
    Ok(rows
        .into_iter()
        .map(|(id, fields)| Message {
            id,
            own: read(fields),
        })
        .collect())
}

/// The messages of a batch that begins after `from`.
fn batch(from: &Place, read: Vec<Message>) -> FeedBatch {
    let mut place = from.clone();
    let mut batch = FeedBatch {
        messages: Vec::with_capacity(read.len()),
        next: from.write(),
        gap: false,
    };
    for Message { id, own } in read {
        if let Some((generation, number, message)) = own {
            batch.gap |= !place.is_followed_by(&generation, number);
            (place.generation, place.number) = (generation, number);
            batch.messages.push(message);
        }
        place.id = id;
    }
    batch.next = place.write();
    batch
}

impl RedisFeed {
    pub(super) fn new(link: Arc<Link>, key: Vec<u8>) -> Self {
        Self {
            link,
            key,
            idle: Mutex::default(),
        }
    }

    /// Gives the connections back that nobody waits on.
    pub(super) fn close(&self) {
        self.idle.lock().clear();
    }

    async fn reader(&self) -> RedisResult<Reader> {
        let idle = self.idle.lock().pop();
        if let Some(reader) = idle {
            return Ok(reader);
        }
        let mut wire = self.link.dedicated(&self.key).await?;
        let about = redis::cmd("INFO")
            .arg("server")
            .query_async::<String>(&mut wire)
            .await;
        let server = match about {
            Ok(about) => about
                .lines()
                .find_map(|line| line.strip_prefix("run_id:"))
                .unwrap_or_default()
                .to_owned(),
            Err(error) if error.code() == Some("NOPERM") => String::new(),
            Err(error) => return Err(error),
        };
        Ok(Reader { wire, server })
    }

    /// Asks on a connection of its own, which serves again if all went well.
    async fn ask<T>(
        &self,
        operation: &'static str,
        wait: Duration,
        ask: impl AsyncFnOnce(&mut Reader) -> RedisResult<T>,
    ) -> Result<T> {
        let slow = |_| RedisError::from(std::io::Error::from(std::io::ErrorKind::TimedOut));
        let asked = async {
            let connecting = tokio::time::timeout(self.link.connect_timeout(), self.reader());
            let mut reader = connecting.await.map_err(slow)??;
            let asking = tokio::time::timeout(self.link.timeout() + wait, ask(&mut reader));
            let answer = asking.await.map_err(slow)??;
            Ok((reader, answer))
        };
        match asked.await {
            Ok((reader, answer)) => {
                self.idle.lock().push(reader);
                Ok(answer)
            }
            Err(error) => {
                // What happened to one connection has happened to the others.
                self.close();
                Err(self.link.failure(operation, &error))
            }
        }
    }

    fn range(&self, name: &str, from: &str, to: &str, count: usize) -> redis::Cmd {
        redis::cmd(name)
            .arg(&self.key)
            .arg(from)
            .arg(to)
            .arg("COUNT")
            .arg(count)
            .take()
    }

    /// All that is there, for a reader that has missed something.
    async fn all_there_is(&self, reader: &mut Reader) -> RedisResult<FeedBatch> {
        let all = self.range("XRANGE", "-", "+", BATCH);
        let all = messages(all.query_async(&mut reader.wire).await?)?;
        let mut batch = batch(&Place::beginning(&reader.server), all);
        batch.gap = true;
        Ok(batch)
    }

    async fn after(
        &self,
        reader: &mut Reader,
        after: FeedPosition,
        wait: Duration,
    ) -> RedisResult<FeedBatch> {
        let same = |place: &Place| {
            [&place.server, &reader.server]
                .iter()
                .any(|server| server.is_empty())
                || place.server == reader.server
        };
        let Some(place) = Place::read(&after).filter(same) else {
            return self.all_there_is(reader).await;
        };
        let new = self.range("XRANGE", &format!("({}", place.id), "+", BATCH);
        let last = self.range("XREVRANGE", "+", "-", 1);
        // At one moment, so that the last is the place itself when there is nothing new.
        let (new, last): (Value, Value) = redis::pipe()
            .atomic()
            .add_command(new)
            .add_command(last)
            .query_async(&mut reader.wire)
            .await?;
        let (mut new, last) = (messages(new)?, messages(last)?.pop());
        if new.is_empty() {
            let still_there = match last {
                None => place.number == 0,
                Some(Message { id, own }) => {
                    let (generation, number) = (&place.generation, place.number);
                    id == place.id && own.is_none_or(|own| (&own.0, own.1) == (generation, number))
                }
            };
            if !still_there {
                return self.all_there_is(reader).await;
            }
            if !wait.is_zero() {
                new = self.wait(reader, &place, wait).await?;
            }
        }
        let batch = batch(&place, new);
        if batch.gap {
            return self.all_there_is(reader).await;
        }
        Ok(batch)
    }

    async fn wait(
        &self,
        reader: &mut Reader,
        place: &Place,
        wait: Duration,
    ) -> RedisResult<Vec<Message>> {
        // 0 would be for ever.
        let millis = wait.as_millis().max(1).to_string();
        let answer = redis::cmd("XREAD")
            .arg("BLOCK")
            .arg(millis)
            .arg("COUNT")
            .arg(BATCH)
            .arg("STREAMS")
            .arg(&self.key)
            .arg(&place.id)
            .query_async::<Value>(&mut reader.wire)
            .await?;
        if answer == Value::Nil {
            return Ok(Vec::new());
        }
        let streams = Vec::<(Vec<u8>, Value)>::from_redis_value(answer)?;
        let read = streams.into_iter().map(|(_, read)| messages(read));
        Ok(read
            .collect::<RedisResult<Vec<_>>>()?
            .into_iter()
            .flatten()
            .collect())
    }
}

impl Feed for RedisFeed {
    fn append(&self, message: Bytes) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let generation = format!("{:016x}", rand::random::<u64>());
            let call = Call::Script {
                script: &APPEND,
                key: self.key.clone(),
                arguments: vec![
                    // No time is needed.
                    Bytes::from_static(b"0"),
                    Bytes::from(generation),
                    Bytes::from_static(KEPT),
                    message,
                ],
            };
            let added = self.link.call::<Value>("feed_append", &call);
            added.await.map(drop)
        })
    }

    fn tail(&self) -> BoxFuture<'_, Result<FeedPosition>> {
        Box::pin(self.ask("feed_tail", Duration::ZERO, async |reader| {
            let last = self.range("XREVRANGE", "+", "-", 1);
            let last = messages(last.query_async(&mut reader.wire).await?)?;
            let mut place = Place::beginning(&reader.server);
            for Message { id, own } in last {
                if let Some((generation, number, _)) = own {
                    (place.generation, place.number) = (generation, number);
                }
                place.id = id;
            }
            Ok(place.write())
        }))
    }

    fn read(&self, after: FeedPosition, wait: Duration) -> BoxFuture<'_, Result<FeedBatch>> {
        let wait = wait.min(LONGEST_WAIT);
        Box::pin(self.ask("feed_read", wait, async move |reader| {
            self.after(reader, after, wait).await
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(number: u64) -> Place {
        Place {
            generation: "g1".to_owned(),
            number,
            id: format!("{number}-0"),
            server: "s".to_owned(),
        }
    }

    fn message(generation: &str, number: u64) -> Message {
        Message {
            id: format!("{number}-0"),
            own: Some((generation.to_owned(), number, Bytes::from_static(b"m"))),
        }
    }

    #[test]
    fn a_position_is_read_back_and_anothers_is_not() {
        let beginning = Place::beginning("");
        for place in [place(7), beginning] {
            assert_eq!(Place::read(&place.write()), Some(place));
        }
        for other in ["", "a/b/c/d", "g/1/1-0", "g/1/+/s", "g/1/1-0/s/t"] {
            assert_eq!(Place::read(&FeedPosition::new(other.to_owned())), None);
        }
    }

    #[test]
    fn a_message_that_does_not_follow_is_a_gap() {
        let gap = |from: &Place, read: Vec<Message>| batch(from, read).gap;
        assert!(!gap(&place(3), vec![message("g1", 4), message("g1", 5)]));
        assert!(gap(&place(3), vec![message("g1", 5)]), "trimmed");
        assert!(gap(&place(3), vec![message("g1", 4), message("g1", 6)]));
        assert!(gap(&place(3), vec![message("g2", 4)]), "begun anew");
        assert!(gap(&place(3), vec![message("g1", 3)]), "lost by a failover");
        let beginning = Place::beginning("s");
        assert!(!gap(&beginning, vec![message("g2", 1)]), "the first ever");
        assert!(gap(&beginning, vec![message("g2", 2)]));
        let foreign = Message {
            id: "9-0".to_owned(),
            own: None,
        };
        let read = batch(&place(3), vec![foreign, message("g1", 4)]);
        assert!(!read.gap && read.messages.len() == 1);
    }
}
