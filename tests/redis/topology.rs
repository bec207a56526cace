//! More than one server: a master that Sentinels replace, and a cluster that loses a master.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use askonce::backend::{BackendHandle, Glob, RedisConfig, Write};
use askonce::{ErrorKind, Result};
use bytes::Bytes;

use super::support::server::{RedisCluster, Watched};
use super::writes::{batches_and_lists_are_whole, conditional_writes_are_atomic, held, listed};
use super::{backend, eventually};

const V: Bytes = Bytes::from_static(b"v");

/// Writes until all of `keys` have been taken at once; every refusal says that it may be tried again.
async fn until_all_are_written(backend: &BackendHandle, keys: &[Bytes]) -> Duration {
    let started = Instant::now();
    eventually("writes after the failover", async || {
        let writes: Vec<Write> = keys
            .iter()
            .map(|key| Write {
                key: key.clone(),
                value: V,
                expires: None,
            })
            .collect();
        let mut all = true;
        for stored in backend.set_many(&writes).await {
            if let Err(error) = stored {
                let kinds = [ErrorKind::BackendUnavailable, ErrorKind::Timeout];
                assert!(kinds.contains(&error.kind()), "{error:?}");
                assert!(error.is_retryable(), "{error:?}");
                all = false;
            }
        }
        all
    })
    .await;
    started.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_go_on_at_the_new_master_that_the_sentinels_name() {
    let start = tokio::task::spawn_blocking(Watched::start).await.unwrap();
    let Some(watched) = start else {
        return;
    };
    let backend = backend(watched.config());
    backend.set(b"before", V, None).await.unwrap();
    assert_eq!(backend.increment(b"count", 1, None).await.unwrap(), 1);
    let feed = backend.feed().unwrap();
    feed.append(V).await.unwrap();
    let tail = feed.tail().await.unwrap();
    let watched_in_step = tokio::task::spawn_blocking(move || {
        watched.wait_in_step();
        watched
    });
    let mut watched = watched_in_step.await.unwrap();

    let master = watched.master.take();
    tokio::task::spawn_blocking(move || drop(master))
        .await
        .unwrap();
    let keys = [Bytes::from_static(b"after")];
    let outage = until_all_are_written(&backend, &keys).await;
    println!("from the end of the master to the first write at the next: {outage:?}");
    assert_eq!(held(&backend, b"before").await, Some(V));
    assert_eq!(backend.increment(b"count", 1, None).await.unwrap(), 2);
    let mut batch = None;
    eventually("a read of the feed at the new master", async || {
        batch = feed.read(tail.clone(), Duration::ZERO).await.ok();
        batch.is_some()
    })
    .await;
    assert!(batch.unwrap().gap, "what was not replicated, nobody knows");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_is_one_backend_before_and_after_it_loses_a_master() {
    let start = tokio::task::spawn_blocking(RedisCluster::start)
        .await
        .unwrap();
    let Some(cluster) = start else {
        return;
    };
    let redis = cluster.config();
    // The other way to name a cluster, by one of its nodes.
    let by_address = RedisConfig {
        redis_url: format!("redis://127.0.0.1:{}", cluster.nodes[0].port),
        cluster: true,
        cluster_nodes: Vec::new(),
        ..redis.clone()
    };
    let backends = [backend(redis.clone()), backend(by_address)];
    let backend = &backends[0];
    backend.ping().await.unwrap();
    conditional_writes_are_atomic(&backends).await;
    backend.clear().await.unwrap();
    batches_and_lists_are_whole(backend).await;

    let keys: Vec<Bytes> = (0..300).map(|i| Bytes::from(format!("key {i}"))).collect();
    until_all_are_written(backend, &keys).await;
    for node in &cluster.nodes[..3] {
        let own: u64 = redis::cmd("DBSIZE").query(&mut node.raw()).unwrap();
        assert!(own > 50, "all masters have their share: {own}");
    }
    let counted: Vec<Bytes> = (0..30).map(|i| Bytes::from(format!("count {i}"))).collect();
    for key in &counted {
        assert_eq!(backend.increment(key, 2, None).await.unwrap(), 2);
    }
    let feed = backend.feed().unwrap();
    let tail = feed.tail().await.unwrap();
    feed.append(V).await.unwrap();
    let batch = feed.read(tail, Duration::from_secs(20)).await.unwrap();
    assert_eq!(batch.messages, [V]);
    // A walk that has begun when the servers change.
    let everything = Glob::everything();
    let first = backend
        .scan(&everything, Default::default(), 1)
        .await
        .unwrap();
    let cluster_in_step = tokio::task::spawn_blocking(move || {
        cluster.wait_in_step();
        cluster
    });
    let mut cluster = cluster_in_step.await.unwrap();

    let victim = cluster.nodes.remove(0);
    tokio::task::spawn_blocking(move || drop(victim))
        .await
        .unwrap();
    // The others go on.
    let written = backend
        .set_many(&[Write {
            key: keys[0].clone(),
            value: V,
            expires: None,
        }])
        .await;
    assert_eq!(written.len(), 1);
    let outage = until_all_are_written(backend, &keys).await;
    println!("from the end of a master to writes of all slots: {outage:?}");
    for key in &counted {
        assert_eq!(backend.increment(key, 1, None).await.unwrap(), 3);
    }
    eventually("an answer from all masters", async || {
        backend.ping().await.is_ok()
    })
    .await;
    let mut seen: HashSet<Bytes> = first.keys.into_iter().collect();
    let mut cursor = first.next;
    while let Some(at) = cursor {
        let page = backend.scan(&everything, at, 100).await.unwrap();
        seen.extend(page.keys);
        cursor = page.next;
    }
    assert_eq!(
        seen.len(),
        330,
        "a walk across the failover leaves no key out"
    );
    assert_eq!(listed(backend, &everything, 50).await.len(), 330);
    let found: Vec<Result<_>> = backend.get_many(&keys).await;
    assert!(found.iter().all(|found| matches!(found, Ok(Some(_)))));
    let mut from = batch.next;
    eventually("a message of the feed", async || {
        let sent = feed.append(V).await.is_ok();
        match feed.read(from.clone(), Duration::from_millis(100)).await {
            Ok(batch) => {
                from = batch.next;
                sent && !batch.messages.is_empty()
            }
            Err(_) => false,
        }
    })
    .await;
    backend.clear().await.unwrap();
    assert!(listed(backend, &everything, 50).await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_hangs_is_left_for_the_one_that_takes_its_place() {
    let start = tokio::task::spawn_blocking(RedisCluster::start)
        .await
        .unwrap();
    let Some(mut cluster) = start else {
        return;
    };
    let backend = backend(RedisConfig {
        timeout: Duration::from_millis(500),
        ..cluster.config()
    });
    let keys: Vec<Bytes> = (0..50).map(|i| Bytes::from(format!("key {i}"))).collect();
    until_all_are_written(&backend, &keys).await;
    cluster.nodes[0].hang();
    let outage = until_all_are_written(&backend, &keys).await;
    println!("from the hanging of a master to writes of all slots: {outage:?}");
    cluster.nodes[0].wake();
    until_all_are_written(&backend, &keys).await;
}
