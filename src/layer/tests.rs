//! The layers around a backend that does what the test says, on a clock and a runtime that are told the
//! time.

use std::collections::VecDeque;
use std::time::Duration;

use super::*;
use crate::backend::{MemoryBackend, MemoryConfig};
use crate::clock::ManualClock;
use crate::event::Received;

/// What a [`Scripted`] backend does with the next operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Work,
    /// Fails with this kind; `true`: a retry may help.
    Fail(ErrorKind, bool),
    Hang,
}

const DOWN: Act = Act::Fail(ErrorKind::BackendUnavailable, true);

/// A remote store that acts by a script and counts; after its end it does the last act for ever.
#[derive(Debug)]
struct Scripted {
    script: Mutex<VecDeque<Act>>,
    calls: AtomicU64,
    store: MemoryBackend,
}

impl Scripted {
    fn new(script: &[Act]) -> Arc<Self> {
        let store = MemoryBackend::builder(MemoryConfig::default()).build();
        Arc::new(Self {
            script: Mutex::new(script.iter().copied().collect()),
            calls: AtomicU64::new(0),
            store: store.unwrap(),
        })
    }

    fn now(&self, script: &[Act]) {
        *self.script.lock() = script.iter().copied().collect();
    }

    fn calls(&self) -> u64 {
        self.calls.load(Ordering::SeqCst)
    }

    async fn act(&self) -> Result<()> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let act = {
            let mut script = self.script.lock();
            if script.len() > 1 {
                script.pop_front().unwrap()
            } else {
                *script.front().unwrap()
            }
        };
        match act {
            Act::Work => Ok(()),
            Act::Hang => std::future::pending().await,
            Act::Fail(kind, again) => {
                let error = Error::new(kind, "told to fail");
                Err(if again { error.retryable() } else { error })
            }
        }
    }
}

impl CacheBackend for Scripted {
    fn name(&self) -> &str {
        "far"
    }

    fn capability(&self) -> Capability {
        Capability {
            in_process: false,
            ..CacheBackend::capability(&self.store)
        }
    }

    async fn get(&self, key: &[u8]) -> Result<Option<StoredValue>> {
        self.act().await?;
        CacheBackend::get(&self.store, key).await
    }

    async fn set(&self, key: &[u8], value: Bytes, expires: Option<Timestamp>) -> Result<()> {
        self.act().await?;
        CacheBackend::set(&self.store, key, value, expires).await
    }

    async fn delete(&self, key: &[u8]) -> Result<bool> {
        self.act().await?;
        CacheBackend::delete(&self.store, key).await
    }

    async fn clear(&self) -> Result<()> {
        self.act().await?;
        CacheBackend::clear(&self.store).await
    }

    async fn usage(&self) -> Result<BackendUsage> {
        self.act().await?;
        CacheBackend::usage(&self.store).await
    }

    async fn set_if(
        &self,
        key: &[u8],
        value: Bytes,
        expires: Option<Timestamp>,
        condition: Condition<'_>,
    ) -> Result<bool> {
        self.act().await?;
        CacheBackend::set_if(&self.store, key, value, expires, condition).await
    }

    async fn delete_if(&self, key: &[u8], expected: &[u8]) -> Result<bool> {
        self.act().await?;
        CacheBackend::delete_if(&self.store, key, expected).await
    }

    async fn take(&self, key: &[u8]) -> Result<Option<StoredValue>> {
        self.act().await?;
        CacheBackend::take(&self.store, key).await
    }

    async fn increment(&self, key: &[u8], by: i64, expires: Option<Timestamp>) -> Result<i64> {
        self.act().await?;
        CacheBackend::increment(&self.store, key, by, expires).await
    }
}

struct Setup {
    layered: Layered,
    store: Arc<Scripted>,
    clock: Arc<ManualClock>,
    events: Events,
}

impl Setup {
    fn new(script: &[Act], config: LayerConfig) -> Self {
        let store = Scripted::new(script);
        let clock = ManualClock::starting_at(Timestamp::from_millis(1_790_000_000_000));
        let events = Events::default();
        let layered = Layered::builder(Arc::clone(&store) as _)
            .config(config)
            .clock(Arc::clone(&clock) as _)
            .events(events.clone())
            .build()
            .unwrap();
        Self {
            layered,
            store,
            clock,
            events,
        }
    }

    async fn get(&self) -> Result<Option<StoredValue>> {
        CacheBackend::get(&self.layered, b"k").await
    }

    async fn set(&self) -> Result<()> {
        CacheBackend::set(&self.layered, b"k", Bytes::from_static(b"v"), None).await
    }

    fn states(&self) -> (BreakerState, BreakerState) {
        let BreakerStates { read, write } = self.layered.breakers().unwrap();
        (read, write)
    }
}

/// One attempt, so that calls can be counted.
fn once() -> LayerConfig {
    LayerConfig {
        retries: 0,
        ..LayerConfig::default()
    }
}

fn retrying(retries: usize) -> LayerConfig {
    LayerConfig {
        retries,
        breaker: BreakerConfig {
            enabled: false,
            ..BreakerConfig::default()
        },
        ..LayerConfig::default()
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_may_pass_is_tried_again_and_the_caller_does_not_notice() {
    let setup = Setup::new(&[DOWN, DOWN, Act::Work], retrying(3));
    assert_eq!(setup.get().await.unwrap(), None);
    assert_eq!(setup.store.calls(), 3);
    let counts = setup.layered.counts();
    assert_eq!((counts.retries, counts.errors, counts.misses), (2, 0, 1));
}

#[tokio::test(start_paused = true)]
async fn waits_between_attempts_grow_and_are_jittered() {
    let setup = Setup::new(&[DOWN], retrying(4));
    let mut waits = Vec::new();
    for _ in 0..20 {
        let before = tokio::time::Instant::now();
        setup.get().await.unwrap_err();
        waits.push(before.elapsed());
    }
    // 10, 20, 40 and 80 ms, each plus up to as much again.
    let (least, most) = (waits.iter().min().unwrap(), waits.iter().max().unwrap());
    assert!(*least >= Duration::from_millis(150), "{waits:?}");
    assert!(*most <= Duration::from_millis(310), "{waits:?}");
    assert!(least < most, "{waits:?}");
}

#[tokio::test(start_paused = true)]
async fn what_a_second_attempt_cannot_help_is_not_tried_again() {
    for act in [
        Act::Fail(ErrorKind::BackendUnavailable, false),
        Act::Fail(ErrorKind::Timeout, true),
        Act::Fail(ErrorKind::TooLarge, false),
    ] {
        let setup = Setup::new(&[act], retrying(3));
        setup.get().await.unwrap_err();
        assert_eq!(setup.store.calls(), 1, "{act:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_operation_that_must_not_happen_twice_has_one_attempt() {
    let setup = Setup::new(&[DOWN], retrying(3));
    let layered = &setup.layered;
    let value = || Bytes::from_static(b"v");
    let failed = [
        CacheBackend::increment(layered, b"k", 1, None)
            .await
            .is_err(),
        CacheBackend::take(layered, b"k").await.is_err(),
        CacheBackend::delete_if(layered, b"k", b"v").await.is_err(),
        CacheBackend::set_if(layered, b"k", value(), None, Condition::Absent)
            .await
            .is_err(),
    ];
    assert_eq!(failed, [true; 4]);
    assert_eq!(setup.store.calls(), 4);
}

#[tokio::test(start_paused = true)]
async fn the_deadline_bounds_all_attempts_together() {
    let mut config = retrying(10);
    config.deadline = Some(Duration::from_millis(100));
    let setup = Setup::new(&[DOWN], config.clone());
    let before = tokio::time::Instant::now();
    let error = setup.get().await.unwrap_err();
    assert_eq!(error.message(), "told to fail");
    assert!(before.elapsed() <= Duration::from_millis(100));
    assert!(setup.store.calls() < 5);

    let setup = Setup::new(&[DOWN, Act::Hang], config);
    let before = tokio::time::Instant::now();
    let error = setup.get().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert_eq!(before.elapsed(), Duration::from_millis(100));
    assert_eq!(setup.store.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_costs_its_deadline_a_few_times_and_then_nothing() {
    let setup = Setup::new(&[Act::Hang], LayerConfig::default());
    let before = tokio::time::Instant::now();
    for _ in 0..1_000 {
        setup.get().await.unwrap_err();
    }
    assert_eq!(setup.store.calls(), 5);
    assert_eq!(before.elapsed(), 5 * Duration::from_secs(2));
    let error = setup.get().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BackendUnavailable);
    assert_eq!(error.message(), "the breaker is open");
    assert!(!error.is_retryable());
    assert!(error.to_string().contains("reason: timeout"), "{error}");
    let last = setup.layered.last_error().unwrap();
    assert_eq!((last.kind, last.operation), (ErrorKind::Timeout, "get"));
}

#[tokio::test(start_paused = true)]
async fn w_49_an_error_that_is_returned_counts_as_a_failure() {
    let setup = Setup::new(&[DOWN], once());
    for _ in 0..10 {
        setup.get().await.unwrap_err();
    }
    assert_eq!(setup.store.calls(), 5);
    assert_eq!(setup.states().0, BreakerState::Open);
    assert_eq!(setup.layered.counts().refused, 5);
}

#[tokio::test(start_paused = true)]
async fn an_error_about_the_request_or_what_is_stored_never_opens_the_breaker() {
    for kind in [
        ErrorKind::TooLarge,
        ErrorKind::InvalidRequest,
        ErrorKind::Corrupt,
        ErrorKind::Unsupported,
    ] {
        let setup = Setup::new(&[Act::Fail(kind, false)], once());
        for _ in 0..50 {
            setup.set().await.unwrap_err();
            setup.get().await.unwrap_err();
        }
        assert_eq!(setup.store.calls(), 100, "{kind}");
        assert_eq!(setup.layered.last_error(), None, "{kind}");
    }
}

#[tokio::test(start_paused = true)]
async fn attempts_stop_when_the_breaker_opens_under_them() {
    let mut config = retrying(10);
    config.breaker = BreakerConfig::default();
    config.deadline = Some(Duration::from_secs(600));
    let setup = Setup::new(&[DOWN], config);
    let error = setup.get().await.unwrap_err();
    assert_eq!(error.message(), "the breaker is open");
    assert_eq!(setup.store.calls(), 5);
}

#[tokio::test(start_paused = true)]
async fn the_breaker_closes_again_and_one_that_recovers_wakes_the_other() {
    let setup = Setup::new(&[DOWN], once());
    let mut events = setup.events.subscribe();
    while setup.get().await.unwrap_err().message() == "told to fail" {}
    while setup.set().await.unwrap_err().message() == "told to fail" {}
    assert_eq!(setup.states(), (BreakerState::Open, BreakerState::Open));
    setup.store.now(&[Act::Work]);
    assert!(setup.get().await.is_err(), "still open");
    setup.clock.advance(Duration::from_secs(6));
    setup.get().await.unwrap();
    assert_eq!(setup.states().0, BreakerState::HalfOpen);
    setup.get().await.unwrap();
    assert_eq!(
        setup.states(),
        (BreakerState::Closed, BreakerState::HalfOpen)
    );
    setup.set().await.unwrap();
    setup.set().await.unwrap();
    assert_eq!(setup.states(), (BreakerState::Closed, BreakerState::Closed));
    assert_eq!(setup.layered.breaker_reason(), None);

    let mut seen = Vec::new();
    while let Some(Received::Event(event)) = events.try_next() {
        match event {
            Event::BreakerChanged { path, state, .. } => {
                seen.push(format!("{path} {}", state.as_str()));
            }
            Event::Reconnected { .. } => seen.push("reconnected".to_owned()),
            _ => {}
        }
    }
    let expected = [
        "read open",
        "write open",
        "read half_open",
        "reconnected",
        "read closed",
        "write half_open",
        "write closed",
    ];
    assert_eq!(seen, expected);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_only_reads_goes_on_reading() {
    let setup = Setup::new(&[DOWN], once());
    while setup.set().await.unwrap_err().message() == "told to fail" {}
    setup.store.now(&[Act::Work]);
    for _ in 0..20 {
        setup.get().await.unwrap();
    }
    assert_eq!(setup.states(), (BreakerState::Closed, BreakerState::Open));
}

#[tokio::test(start_paused = true)]
async fn callers_that_go_away_open_nothing_and_leak_no_probe() {
    let setup = Setup::new(&[Act::Hang], once());
    for _ in 0..50 {
        let gone = tokio::time::timeout(Duration::from_millis(1), setup.get()).await;
        assert!(gone.is_err());
    }
    assert_eq!(setup.states().0, BreakerState::Closed);
    setup.store.now(&[DOWN]);
    while setup.get().await.unwrap_err().message() == "told to fail" {}
    setup.clock.advance(Duration::from_secs(6));
    setup.store.now(&[Act::Hang]);
    for _ in 0..50 {
        let gone = tokio::time::timeout(Duration::from_millis(1), setup.get()).await;
        assert!(gone.is_err(), "let through as a probe");
    }
    setup.store.now(&[Act::Work]);
    setup.get().await.unwrap();
    setup.get().await.unwrap();
    assert_eq!(setup.states().0, BreakerState::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_ping_reaches_the_store_through_an_open_breaker_and_ends_the_wait() {
    let setup = Setup::new(&[DOWN], once());
    while setup.get().await.unwrap_err().message() == "told to fail" {}
    let error = CacheBackend::ping(&setup.layered).await.unwrap_err();
    assert_eq!(error.message(), "told to fail");
    assert_eq!(setup.states().0, BreakerState::Open);
    setup.store.now(&[Act::Work]);
    CacheBackend::ping(&setup.layered).await.unwrap();
    assert_eq!(setup.states().0, BreakerState::HalfOpen);
    setup.get().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_batch_fails_as_a_whole_only_when_every_item_does() {
    // The defaults of the contract ask for one key after the other.
    let setup = Setup::new(&[DOWN, Act::Work], retrying(3));
    let keys = [Bytes::from_static(b"a"), Bytes::from_static(b"b")];
    let results = CacheBackend::get_many(&setup.layered, &keys).await;
    assert!(results[0].is_err() && results[1].is_ok());
    assert_eq!(setup.store.calls(), 2, "not tried again");

    let setup = Setup::new(&[DOWN, DOWN, Act::Work], retrying(3));
    let results = CacheBackend::get_many(&setup.layered, &keys).await;
    assert!(results.iter().all(Result::is_ok));
    assert_eq!(setup.store.calls(), 4);

    let setup = Setup::new(&[DOWN], once());
    while setup.get().await.unwrap_err().message() == "told to fail" {}
    let results = CacheBackend::get_many(&setup.layered, &keys).await;
    assert_eq!(results.len(), 2);
    assert!(
        results
            .iter()
            .all(|result| result.as_ref().unwrap_err().message() == "the breaker is open")
    );
}

#[tokio::test]
async fn w_69_the_hit_rate_is_of_keys_asked_for_and_those_of_batches_count_one_by_one() {
    let store = MemoryBackend::builder(MemoryConfig::default()).build();
    let layered = Layered::builder(Arc::new(store.unwrap())).build().unwrap();
    assert_eq!(layered.counts().hit_rate(), None, "nothing was asked for");
    CacheBackend::set(&layered, b"a", Bytes::from_static(b"v"), None)
        .await
        .unwrap();
    assert!(CacheBackend::get(&layered, b"a").await.unwrap().is_some());
    assert_eq!(layered.counts().hit_rate(), Some(1.0), "a set is no miss");
    let write = |key| Write {
        key: Bytes::from_static(key),
        value: Bytes::from_static(b"v"),
        expires: None,
    };
    let stored = CacheBackend::set_many(&layered, &[write(b"b"), write(b"c")]).await;
    assert!(stored.iter().all(Result::is_ok));
    let keys: [Bytes; 4] = [b"a", b"b", b"x", b"y"].map(|key| Bytes::from_static(key));
    CacheBackend::get_many(&layered, &keys).await;
    assert!(CacheBackend::take(&layered, b"c").await.unwrap().is_some());
    let removed = CacheBackend::delete_many(&layered, &keys).await;
    assert_eq!(removed.len(), 4);
    let counts = layered.counts();
    assert_eq!((counts.hits, counts.misses), (4, 2));
    assert_eq!((counts.sets, counts.deletes), (3, 3));
    assert_eq!(counts.errors, 0);
}

#[tokio::test]
async fn w_70_every_way_to_reach_a_key_tells_the_events_and_none_tells_the_key() {
    let store = MemoryBackend::builder(MemoryConfig::default()).build();
    let events = Events::default();
    let layered = Layered::builder(Arc::new(store.unwrap()))
        .events(events.clone())
        .build()
        .unwrap();
    let mut heard = events.subscribe();
    let (key, value) = (Bytes::from_static(b"secret"), Bytes::from_static(b"dark"));
    let write = Write {
        key: key.clone(),
        value: value.clone(),
        expires: None,
    };
    CacheBackend::set(&layered, &key, value, None)
        .await
        .unwrap();
    CacheBackend::set_many(&layered, &[write]).await;
    CacheBackend::get(&layered, &key).await.unwrap();
    CacheBackend::get_many(&layered, &[key.clone(), Bytes::from_static(b"other")]).await;
    CacheBackend::take(&layered, &key).await.unwrap();
    CacheBackend::clear(&layered).await.unwrap();
    let mut seen = String::new();
    while let Some(Received::Event(event)) = heard.try_next() {
        let shown = format!("{event:?}");
        assert!(
            !shown.contains("secret") && !shown.contains("dark"),
            "{shown}"
        );
        seen.push_str(shown.split([' ', '{']).next().unwrap());
        seen.push(' ');
    }
    assert_eq!(seen, "Set Set Hit Hit Miss Hit Deleted Cleared ");
}

/// Writes down what metrics are fed, without their values.
#[derive(Default)]
struct Fed(Mutex<std::collections::BTreeSet<String>>);

impl Fed {
    fn note(&self, key: &metrics::Key) {
        let labels = key
            .labels()
            .map(|label| format!("{}={}", label.key(), label.value()));
        let labels: Vec<_> = labels.collect();
        let line = format!("{} {}", key.name(), labels.join(" "));
        self.0.lock().insert(line);
    }
}

impl metrics::Recorder for Fed {
    fn describe_counter(
        &self,
        _: metrics::KeyName,
        _: Option<metrics::Unit>,
        _: metrics::SharedString,
    ) {
    }
    fn describe_gauge(
        &self,
        _: metrics::KeyName,
        _: Option<metrics::Unit>,
        _: metrics::SharedString,
    ) {
    }
    fn describe_histogram(
        &self,
        _: metrics::KeyName,
        _: Option<metrics::Unit>,
        _: metrics::SharedString,
    ) {
    }
    fn register_counter(&self, key: &metrics::Key, _: &metrics::Metadata<'_>) -> metrics::Counter {
        self.note(key);
        metrics::Counter::noop()
    }
    fn register_gauge(&self, key: &metrics::Key, _: &metrics::Metadata<'_>) -> metrics::Gauge {
        self.note(key);
        metrics::Gauge::noop()
    }
    fn register_histogram(
        &self,
        key: &metrics::Key,
        _: &metrics::Metadata<'_>,
    ) -> metrics::Histogram {
        self.note(key);
        metrics::Histogram::noop()
    }
}

#[test]
fn operations_durations_retries_and_breakers_are_metrics_with_bounded_labels() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let fed = Fed::default();
    metrics::with_local_recorder(&fed, || {
        runtime.block_on(async {
            let setup = Setup::new(&[Act::Work, Act::Work, DOWN], LayerConfig::default());
            setup.set().await.unwrap();
            setup.get().await.unwrap();
            while setup.get().await.unwrap_err().message() == "told to fail" {}
        });
    });
    let fed = fed.0.into_inner();
    let fed: Vec<_> = fed.iter().map(String::as_str).collect();
    assert_eq!(
        fed,
        [
            "askonce_backend_duration_seconds tier=far operation=get",
            "askonce_backend_duration_seconds tier=far operation=set",
            "askonce_backend_operations_total tier=far operation=get outcome=backend_unavailable",
            "askonce_backend_operations_total tier=far operation=get outcome=hit",
            "askonce_backend_operations_total tier=far operation=set outcome=ok",
            "askonce_backend_retries_total tier=far operation=get",
            "askonce_breaker_state tier=far path=read",
        ]
    );
}

#[test]
fn metrics_that_are_switched_off_are_fed_nothing() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let fed = Fed::default();
    metrics::with_local_recorder(&fed, || {
        let store = MemoryBackend::builder(MemoryConfig::default()).build();
        let layered = Layered::builder(Arc::new(store.unwrap())).metrics(false);
        let layered = layered.build().unwrap();
        let got = runtime.block_on(CacheBackend::get(&layered, b"k"));
        assert_eq!(got.unwrap(), None);
        assert_eq!(layered.counts().misses, 1, "counts are another matter");
    });
    assert!(fed.0.into_inner().is_empty());
}

#[test]
fn a_backend_in_this_process_has_no_breaker_and_needs_no_timer() {
    let store = MemoryBackend::builder(MemoryConfig::default()).build();
    let layered = Layered::builder(Arc::new(store.unwrap())).build().unwrap();
    assert_eq!(layered.breakers(), None);
    // A runtime without a timer would panic at the first deadline.
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let got = runtime.unwrap().block_on(CacheBackend::get(&layered, b"k"));
    assert_eq!(got.unwrap(), None);
}
