//! The feed: order, catching up, and every way to miss a message, which must show.

use std::sync::Arc;
use std::time::{Duration, Instant};

use askonce::ErrorKind;
use askonce::backend::{BackendHandle, FeedHandle, FeedPosition};
use bytes::Bytes;

use super::support::server::RedisServer;
use super::{backend, eventually};

const LONG: Duration = Duration::from_secs(20);

fn message(number: usize) -> Bytes {
    Bytes::from(format!("message {number}"))
}

fn feed(backend: &BackendHandle) -> FeedHandle {
    backend.feed().expect("Redis has a feed")
}

async fn append(feed: &FeedHandle, numbers: std::ops::Range<usize>) {
    for number in numbers {
        feed.append(message(number)).await.unwrap();
    }
}

/// Reads on until there are as many messages; none of the batches has a gap.
async fn read(feed: &FeedHandle, from: &mut FeedPosition, count: usize) -> Vec<Bytes> {
    let mut messages = Vec::new();
    while messages.len() < count {
        let batch = feed.read(from.clone(), LONG).await.unwrap();
        assert!(!batch.gap);
        assert!(!batch.messages.is_empty(), "never came");
        messages.extend(batch.messages);
        *from = batch.next;
    }
    messages
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_readers_see_all_messages_in_one_order() {
    let Some(server) = RedisServer::shared() else {
        return;
    };
    let redis = server.config();
    let (one, two) = (backend(redis.clone()), backend(redis));
    let mut from = feed(&one).tail().await.unwrap();
    let mut again = feed(&two).tail().await.unwrap();
    assert_eq!(from, again);
    let nothing = feed(&one).read(from.clone(), Duration::ZERO).await.unwrap();
    assert!(nothing.messages.is_empty() && !nothing.gap);
    let writers = [&one, &two].map(|backend| {
        let feed = feed(backend);
        tokio::spawn(async move { append(&feed, 0..300).await })
    });
    let seen = read(&feed(&one), &mut from, 600).await;
    for writer in writers {
        writer.await.unwrap();
    }
    assert_eq!(read(&feed(&two), &mut again, 600).await, seen);
    assert_eq!(from, again);
    assert_eq!(feed(&two).tail().await.unwrap(), from);
    assert_eq!(seen.iter().filter(|seen| **seen == message(299)).count(), 2);
    // From any place in the middle, the rest.
    append(&feed(&one), 600..602).await;
    assert_eq!(
        read(&feed(&two), &mut from, 2).await,
        [message(600), message(601)]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiting_reader_is_woken_at_once_and_keeps_nobody_waiting() {
    let Some(server) = RedisServer::shared() else {
        return;
    };
    let redis = server.config();
    let (reader, writer) = (backend(redis.clone()), backend(redis));
    // Two that wait for nothing, on the backend that is used meanwhile.
    let idle: Vec<_> = (0..2)
        .map(|_| {
            let feed = feed(&reader);
            tokio::spawn(async move {
                let from = feed.tail().await.unwrap();
                feed.read(from, LONG).await.unwrap()
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let started = Instant::now();
    for _ in 0..100 {
        reader
            .set(b"k", Bytes::from_static(b"v"), None)
            .await
            .unwrap();
    }
    assert!(started.elapsed() < LONG / 2, "{:?}", started.elapsed());
    feed(&writer).append(message(0)).await.unwrap();
    for idle in idle {
        assert_eq!(idle.await.unwrap().messages, [message(0)]);
    }

    let mut delays = Vec::new();
    let mut from = feed(&reader).tail().await.unwrap();
    for number in 1..100 {
        let (waiting, place) = (feed(&reader), from.clone());
        let waiting = tokio::spawn(async move {
            let batch = waiting.read(place, LONG).await.unwrap();
            (batch, Instant::now())
        });
        tokio::time::sleep(Duration::from_millis(5)).await;
        let sent = Instant::now();
        feed(&writer).append(message(number)).await.unwrap();
        let (batch, seen) = waiting.await.unwrap();
        assert_eq!(batch.messages, [message(number)]);
        from = batch.next;
        delays.push(seen.saturating_duration_since(sent));
    }
    delays.sort_unstable();
    println!(
        "from append to reader: p50 {:?}, max {:?}",
        delays[49], delays[98]
    );
}

#[tokio::test]
async fn a_reader_that_was_away_catches_up_or_is_told_that_it_cannot() {
    let Some(server) = RedisServer::shared() else {
        return;
    };
    let redis = server.config();
    let stream = format!("{}::%~feed", redis.key_prefix);
    let mut raw = server.raw();
    let writer = backend(redis.clone());
    append(&feed(&writer), 0..10).await;
    let early = feed(&writer).tail().await.unwrap();
    append(&feed(&writer), 10..2_000).await;

    let away = backend(redis);
    let mut from = early.clone();
    let missed = read(&feed(&away), &mut from, 1_990).await;
    assert!(
        missed
            .iter()
            .enumerate()
            .all(|(i, m)| *m == message(i + 10))
    );
    away.close().await;
    append(&feed(&writer), 2_000..2_003).await;
    assert_eq!(read(&feed(&away), &mut from, 3).await.len(), 3);

    let trim = ["MAXLEN", "5"];
    redis::cmd("XTRIM")
        .arg(&stream)
        .arg(&trim)
        .exec(&mut raw)
        .unwrap();
    let batch = feed(&away).read(early, LONG).await.unwrap();
    assert!(batch.gap);
    assert_eq!(batch.messages.len(), 5, "what is left is still given");
    assert_eq!(batch.next, from);
    let unknown = FeedPosition::new("of another kind of feed");
    assert!(feed(&away).read(unknown, LONG).await.unwrap().gap);
    let none = feed(&away)
        .read(from.clone(), Duration::from_millis(20))
        .await
        .unwrap();
    assert!(none.messages.is_empty() && !none.gap && none.next == from);

    // Everything is forgotten, and nothing new has come that could tell.
    redis::cmd("DEL").arg(&stream).exec(&mut raw).unwrap();
    let batch = feed(&away).read(from.clone(), LONG).await.unwrap();
    assert!(batch.gap && batch.messages.is_empty());
    let none = feed(&away).read(batch.next, Duration::ZERO).await.unwrap();
    assert!(!none.gap);
    append(&feed(&writer), 0..1).await;
    assert!(
        feed(&away).read(from, LONG).await.unwrap().gap,
        "begun anew"
    );
}

#[tokio::test]
async fn the_feed_is_bounded_is_no_key_and_outlives_a_clear() {
    let Some(server) = RedisServer::shared() else {
        return;
    };
    let redis = server.config();
    let stream = format!("{}::%~feed", redis.key_prefix);
    let backend = backend(redis);
    for start in (0..12_000).step_by(500) {
        let feed = feed(&backend);
        let batch: Vec<_> = (start..start + 500)
            .map(|number| {
                let feed = Arc::clone(&feed);
                tokio::spawn(async move { feed.append(message(number)).await })
            })
            .collect();
        for appended in batch {
            appended.await.unwrap().unwrap();
        }
    }
    let mut raw = server.raw();
    let kept: u64 = redis::cmd("XLEN").arg(&stream).query(&mut raw).unwrap();
    assert!((10_000..11_000).contains(&kept), "{kept}");
    let everything = askonce::backend::Glob::everything();
    assert!(
        super::writes::listed(&backend, &everything, 10)
            .await
            .is_empty()
    );
    assert_eq!(backend.usage().await.unwrap().entries, 0);
    let tail = feed(&backend).tail().await.unwrap();
    backend.clear().await.unwrap();
    assert_eq!(backend.delete_matching(&everything).await.unwrap(), 0);
    let none = feed(&backend).read(tail, Duration::ZERO).await.unwrap();
    assert!(!none.gap && none.messages.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_lost_its_memory_is_a_gap_and_its_end_is_an_error_not_a_silence() {
    let Some(server) = RedisServer::start() else {
        return;
    };
    let port = server.port;
    let backend = backend(server.config());
    append(&feed(&backend), 0..5).await;
    let tail = feed(&backend).tail().await.unwrap();
    let (waiting, place) = (feed(&backend), tail.clone());
    let waiting = tokio::spawn(async move { waiting.read(place, LONG).await });
    tokio::time::sleep(Duration::from_millis(200)).await;
    let killed = Instant::now();
    tokio::task::spawn_blocking(move || drop(server))
        .await
        .unwrap();
    let error = waiting.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BackendUnavailable, "{error}");
    assert!(error.is_retryable());
    assert!(
        killed.elapsed() < LONG,
        "it did not wait for the end of its patience"
    );
    assert!(feed(&backend).append(message(5)).await.is_err());

    let start = tokio::task::spawn_blocking(move || RedisServer::start_at(port));
    let _server = start.await.unwrap().expect("the port is still free");
    let mut batch = None;
    eventually("a read after the restart", async || {
        batch = feed(&backend).read(tail.clone(), Duration::ZERO).await.ok();
        batch.is_some()
    })
    .await;
    let batch = batch.unwrap();
    assert!(batch.gap && batch.messages.is_empty());
    eventually("an append after the restart", async || {
        feed(&backend).append(message(0)).await.is_ok()
    })
    .await;
    let mut from = batch.next;
    assert_eq!(read(&feed(&backend), &mut from, 1).await, [message(0)]);
}

#[tokio::test]
async fn a_user_who_may_not_ask_for_the_servers_name_reads_the_feed_all_the_same() {
    let Some(server) = RedisServer::shared() else {
        return;
    };
    let mut redis = server.config();
    let keys = format!("~{}::*", redis.key_prefix);
    let user = [
        "SETUSER",
        "reader",
        "on",
        ">pw",
        &keys,
        "+@all",
        "-@dangerous",
        "-@admin",
    ];
    redis::cmd("ACL")
        .arg(&user)
        .exec(&mut server.raw())
        .unwrap();
    redis.redis_url = format!("redis://reader:pw@127.0.0.1:{}", server.port);
    let backend = backend(redis);
    let mut from = feed(&backend).tail().await.unwrap();
    append(&feed(&backend), 0..3).await;
    assert_eq!(read(&feed(&backend), &mut from, 3).await.len(), 3);
}
