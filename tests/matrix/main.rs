//! The typed cache compared with a map, over every kind of stack.
//!
//! What works alone may fail together: a signature over a value that was compressed after it, a near
//! copy that outlives a tag, a serializer that a conditional write cannot reproduce. So the same steps run
//! over the product of backends, serializers, compressions and protections ([`axes`]), each backend in its
//! layers, by two caches that share it as two processes would. The product is sampled: every pair of values
//! of two axes meets in some stack, which a test counts. Steps come from a fixed seed, so a run repeats; a
//! failing one is made smaller before it is shown.
//!
//! After every case the listing and each key are compared with the map ([`model`]), and no layer has seen
//! a failure.

#[cfg(feature = "memcached")]
#[path = "../support/memcached.rs"]
mod memcached;
#[path = "../support/mod.rs"]
mod support;

mod axes;
mod model;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use askonce::backend::BackendHandle;
use askonce::clock::ManualClock;
use askonce::codec::Codec;
use askonce::layer::Layered;
use askonce::typed::Cache;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use axes::{Stack, Store, sample};

/// Sequences of steps per stack.
const CASES: u32 = 24;

/// Runs the sampled stacks over one kind of store.
fn agrees_with_a_map(store: Store) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    for stack in sample().into_iter().filter(|stack| stack.store == store) {
        let clock = support::clock();
        let Some(layered) = runtime.block_on(async { stack.layered(&clock) }) else {
            println!("SKIPPED: {stack:?}");
            return;
        };
        run(&runtime, stack, &clock, &layered);
    }
}

/// Runs many sequences of steps over one stack, each in a namespace of its own.
fn run(
    runtime: &tokio::runtime::Runtime,
    stack: Stack,
    clock: &Arc<ManualClock>,
    layered: &Arc<Layered>,
) {
    let backend: BackendHandle = Arc::clone(layered) as _;
    let lists_keys = backend.capability().lists_keys;
    let codec = Codec::new(&stack.codec()).expect("the settings are valid");
    let spaces = AtomicUsize::new(0);
    let config = Config {
        cases: CASES,
        failure_persistence: None,
        ..Config::default()
    };
    let chance = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let outcome = TestRunner::new_with_rng(config, chance).run(
        &model::steps(lists_keys),
        |(generations, steps)| {
            let space = spaces.fetch_add(1, Ordering::SeqCst);
            let process = || {
                let builder = Cache::builder(Arc::clone(&backend)).clock(Arc::clone(clock) as _);
                let builder = builder.codec(codec.clone()).generations(generations);
                let cache = builder.namespace("matrix").namespace(space as u64).build();
                cache.expect("the settings are valid")
            };
            let processes = [process(), process()];
            runtime.block_on(model::run(&processes, clock, lists_keys, &steps))
        },
    );
    if let Err(failure) = outcome {
        panic!("{stack:?}: {failure}");
    }
    let counts = layered.counts();
    assert!(
        counts.hits > 0 && counts.misses > 0 && counts.sets > 0,
        "{stack:?}: {counts:?}"
    );
    assert_eq!((counts.retries, counts.refused), (0, 0), "{stack:?}");
    // What a store has no means for is refused by name; nothing has failed.
    assert_eq!(layered.last_error(), None, "{stack:?}");
    assert_eq!(counts.errors > 0, !lists_keys, "{stack:?}: {counts:?}");
}

#[test]
fn every_pair_of_values_of_two_axes_is_in_the_sample() {
    let sample = sample();
    assert_eq!(axes::pairs_of(&sample), axes::pairs_of(&axes::product()));
    // Each more costs time, and proves little.
    assert!(
        sample.len() <= axes::product().len() / 2,
        "{}",
        sample.len()
    );
}

#[test]
fn memory_agrees_with_a_map() {
    agrees_with_a_map(Store::Memory);
}

#[test]
fn memory_over_memory_agrees_with_a_map() {
    agrees_with_a_map(Store::MemoryOverMemory);
}

#[cfg(feature = "redis")]
#[test]
fn redis_agrees_with_a_map() {
    agrees_with_a_map(Store::Redis);
}

#[cfg(feature = "redis")]
#[test]
fn memory_over_redis_agrees_with_a_map() {
    agrees_with_a_map(Store::MemoryOverRedis);
}

#[cfg(feature = "memcached")]
#[test]
fn memcached_agrees_with_a_map() {
    agrees_with_a_map(Store::Memcached);
}
