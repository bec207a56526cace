//! The same over real servers: what two processes promise each other.

use askonce::clock::SystemClock;
use askonce::typed::{LeaseOptions, Lookup, SetOptions};

use super::*;

/// Two processes over one store, by real time.
#[allow(dead_code, reason = "servers are behind features")]
async fn two_processes_agree(backend: BackendHandle) {
    if !backend.capability().conditional_writes {
        println!("SKIPPED: {} has no conditional writes", backend.name());
        return;
    }
    let process = || {
        let builder = Cache::builder(Arc::clone(&backend)).clock(Arc::new(SystemClock));
        builder.namespace("app").build().unwrap()
    };
    let (one, two) = (process(), process());

    // Operations on single values.
    assert!(one.add(&key(), &1_u8, MINUTE).await.unwrap());
    assert!(!two.add(&key(), &2_u8, MINUTE).await.unwrap());
    let (_, version) = two.get_versioned::<u8>(&key()).await.unwrap();
    assert!(
        two.compare_and_set(&key(), &version, &3_u8, MINUTE)
            .await
            .unwrap()
    );
    assert!(
        !one.compare_and_set(&key(), &version, &4_u8, MINUTE)
            .await
            .unwrap()
    );
    assert!(one.touch(&key(), None).await.unwrap());
    assert_eq!(two.take(&key()).await.unwrap(), Lookup::Hit(3_u8));
    let count = Key::new("count");
    let (a, b) = tokio::join!(
        one.increment(&count, 2, MINUTE),
        two.increment(&count, 3, MINUTE)
    );
    assert_eq!(a.unwrap().max(b.unwrap()), 5);
    assert_eq!(one.get(&count).await.unwrap(), Lookup::Hit(5_i64));

    // Tags and clears.
    let tagged = SetOptions::new(MINUTE).tags(["t"]);
    one.set(&key(), &1_u8, tagged.clone()).await.unwrap();
    assert_eq!(two.get(&key()).await.unwrap(), Lookup::Hit(1_u8));
    two.invalidate_tag("t").await.unwrap();
    assert_eq!(one.get::<u8>(&key()).await.unwrap(), Lookup::Miss);
    one.set(&key(), &1_u8, tagged).await.unwrap();
    two.clear().await.unwrap();
    assert_eq!(one.get::<u8>(&key()).await.unwrap(), Lookup::Miss);
    assert_eq!(one.get::<i64>(&count).await.unwrap(), Lookup::Miss);

    // One load for both, and a delete in the midst of another.
    let loader = Loader::default();
    let load = |cache: &Cache, value: u8| {
        let (cache, load) = (
            cache.clone(),
            loader.load(Duration::from_millis(300), value),
        );
        tokio::spawn(async move {
            let leased = cache.load(&key()).ttl(MINUTE).lease(LeaseOptions::new());
            leased.run(|| load).await
        })
    };
    let (a, b) = (load(&one, 1), load(&two, 2));
    assert_eq!(a.await.unwrap(), b.await.unwrap());
    assert_eq!(loader.runs(), 1);
    one.delete(&key()).await.unwrap();
    let late = load(&one, 3);
    while loader.runs() == 1 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    two.delete(&key()).await.unwrap();
    assert_eq!(late.await.unwrap(), 3);
    assert_eq!(two.get::<u8>(&key()).await.unwrap(), Lookup::Miss);
}

#[tokio::test]
async fn two_processes_agree_over_memory() {
    let memory = MemoryBackend::builder(MemoryConfig::default()).build();
    two_processes_agree(Arc::new(memory.unwrap())).await;
}

#[cfg(feature = "redis")]
#[tokio::test]
async fn two_processes_agree_over_redis() {
    use askonce::backend::RedisBackend;
    let Some(server) = support::server::RedisServer::start() else {
        return;
    };
    let redis = RedisBackend::builder(server.config()).build().unwrap();
    two_processes_agree(Arc::new(redis)).await;
}

#[cfg(feature = "memcached")]
#[tokio::test]
async fn two_processes_agree_over_memcached() {
    use askonce::backend::{MemcachedBackend, MemcachedConfig};
    let Some(server) = memcached::Server::start() else {
        return;
    };
    let config = MemcachedConfig {
        servers: vec![server.address()],
        ..MemcachedConfig::default()
    };
    let memcached = MemcachedBackend::builder(config).build().unwrap();
    two_processes_agree(Arc::new(memcached)).await;
}
