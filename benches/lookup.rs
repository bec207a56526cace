//! What a lookup and a store cost inside a process, by number of entries.
//!
//! Measured: an exact hit, a hit on a reworded prompt, a miss, a lookup of a reworded prompt by the built-in
//! policy, which weighs evidence of more candidates, a store, and embedding alone, on one thread, through the
//! public API, on caches of 1,000, 10,000 and 100,000 entries of one partition, each with an answer of its own.
//! Every call gets a request of its own: keys and texts are computed once per request, and a real
//! caller pays for that. Prompts are made from templates by a fixed seed, about ten words each; answers
//! are short, and token counts are stated, as a gateway would from the provider's reply.
//!
//! The index is the default one. `benches/index.rs` times the indexes by themselves.
//!
//! Left out: the network, the HTTP layer, other tiers, and contention between threads.
//!
//! Speed alone says nothing, so the run begins with what the timed hits are worth: how many reworded
//! prompts are served at all, how many by the right entry, and how many prompts that have no answer are
//! served one. The templates are easier than people: `askonce bench` has the figures on real questions.
//!
//! `cargo bench -p askonce --bench lookup`

use std::sync::{Arc, OnceLock};

use askonce::policy::Threshold;
use askonce::savings::Usage;
use askonce::{Answer, CacheBuilder, EntryId, Outcome, Request, SemanticCache, StoreOptions};
use askonce_models::StaticEmbedder;
use divan::Bencher;
use tokio::runtime::Runtime;

const SIZES: [usize; 3] = [1_000, 10_000, 100_000];

/// Prompts that are asked in turn, so that no timing hangs on one of them.
const QUERIES: usize = 512;

/// The policy, but where the built-in one is named: a fixed number, so that timings do not move with a
/// calibration.
const THRESHOLD: f64 = 0.85;

fn main() {
    // `cargo bench` says `--bench`; a list or a test run need not wait for full caches.
    if std::env::args().any(|argument| argument == "--bench") {
        for size in SIZES {
            Filled::of(size).report(&format!("served at {THRESHOLD}"));
            Filled::built_in(size).report("served by the built-in policy");
        }
    }
    divan::main();
}

const VERBS: [&str; 16] = [
    "clean",
    "repair",
    "replace",
    "install",
    "sell",
    "store",
    "paint",
    "measure",
    "ship",
    "rent",
    "insure",
    "test",
    "recycle",
    "assemble",
    "label",
    "photograph",
];
const KINDS: [&str; 16] = [
    "old",
    "wooden",
    "electric",
    "broken",
    "small",
    "cheap",
    "heavy",
    "antique",
    "folding",
    "red",
    "portable",
    "rusty",
    "leather",
    "glass",
    "used",
    "hydraulic",
];
const THINGS: [&str; 32] = [
    "bicycle",
    "piano",
    "window",
    "engine",
    "camera",
    "sofa",
    "printer",
    "kettle",
    "mirror",
    "tent",
    "guitar",
    "fridge",
    "ladder",
    "clock",
    "boat",
    "carpet",
    "lamp",
    "drill",
    "oven",
    "bookshelf",
    "violin",
    "pump",
    "radio",
    "scooter",
    "chair",
    "toaster",
    "helmet",
    "trailer",
    "fence",
    "mixer",
    "telescope",
    "wardrobe",
];
const PLACES: [&str; 16] = [
    "garage", "kitchen", "school", "office", "barn", "museum", "harbour", "hotel", "hospital",
    "garden", "theatre", "bakery", "workshop", "library", "airport", "stadium",
];

/// The number of different prompts that the words make.
const COMBINATIONS: usize = VERBS.len() * KINDS.len() * THINGS.len() * PLACES.len();

/// The words of prompt `i`, for `i` below [`COMBINATIONS`]: all different, in no visible order.
fn words(i: usize) -> [&'static str; 4] {
    // An odd factor permutes the numbers below a power of two.
    let mut rest = (i * 77_317 + 12_345) % COMBINATIONS;
    let mut digit = |base: usize| {
        let digit = rest % base;
        rest /= base;
        digit
    };
    [
        VERBS[digit(VERBS.len())],
        KINDS[digit(KINDS.len())],
        THINGS[digit(THINGS.len())],
        PLACES[digit(PLACES.len())],
    ]
}

fn stored_prompt(i: usize) -> String {
    let [verb, kind, thing, place] = words(i);
    format!("How do I {verb} the {kind} {thing} in the {place}?")
}

fn reworded_prompt(i: usize) -> String {
    let [verb, kind, thing, place] = words(i);
    format!("What is the best way to {verb} a {kind} {thing} at the {place}")
}

fn unrelated_prompt(i: usize) -> String {
    let [_, kind, thing, place] = words(i);
    format!("Who wrote the novel about a {kind} {thing} and the ghost of the {place}?")
}

/// Which of the sizes this is.
fn place(size: usize) -> usize {
    SIZES.iter().position(|known| *known == size).unwrap()
}

fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    })
}

/// A cache that holds the prompts below `size`.
struct Filled {
    cache: SemanticCache,
    entries: Vec<EntryId>,
    /// Prompts that hit, and by which entry they should.
    reworded: Vec<usize>,
    served: usize,
    rightly: usize,
    unrelated_served: usize,
}

impl Filled {
    fn of(size: usize) -> &'static Self {
        static CACHES: [OnceLock<Filled>; SIZES.len()] = [const { OnceLock::new() }; SIZES.len()];
        CACHES[place(size)].get_or_init(|| {
            let policy = Arc::new(Threshold::new(THRESHOLD).unwrap().guards(false));
            let filled =
                runtime().block_on(Self::fill(size, SemanticCache::builder().policy(policy)));
            assert!(
                filled.served > 0,
                "no reworded prompt hits: there is nothing to time"
            );
            filled
        })
    }

    fn built_in(size: usize) -> &'static Self {
        static CACHES: [OnceLock<Filled>; SIZES.len()] = [const { OnceLock::new() }; SIZES.len()];
        CACHES[place(size)]
            .get_or_init(|| runtime().block_on(Self::fill(size, SemanticCache::builder())))
    }

    async fn fill(size: usize, builder: CacheBuilder) -> Self {
        let cache = builder.build().await.unwrap();
        let mut entries = Vec::with_capacity(size);
        for i in 0..size {
            let request = Request::prompt(stored_prompt(i));
            let stored = cache
                .store(
                    &request,
                    Answer::text(format!("Like this: {i}.")),
                    options(),
                )
                .await;
            entries.push(stored.entry().unwrap());
        }
        assert_eq!(
            cache.stats().await.entries,
            size,
            "the cache evicted what it should hold"
        );
        let step = size / QUERIES.min(size);
        let mut filled = Self {
            cache,
            entries,
            reworded: Vec::new(),
            served: 0,
            rightly: 0,
            unrelated_served: 0,
        };
        for i in (0..size).step_by(step).take(QUERIES) {
            if let Outcome::Hit(hit) = filled
                .cache
                .lookup(&Request::prompt(reworded_prompt(i)))
                .await
            {
                filled.served += 1;
                filled.rightly += usize::from(hit.entry == filled.entries[i]);
                filled.reworded.push(i);
            }
            let unrelated = Request::prompt(unrelated_prompt(i));
            filled.unrelated_served += usize::from(filled.cache.lookup(&unrelated).await.is_hit());
        }
        filled
    }

    fn report(&self, how: &str) {
        println!(
            "{:>7} entries: of {QUERIES} reworded prompts {} are {how}, {} by the right entry; of as many \
             unrelated ones {}",
            self.entries.len(),
            self.served,
            self.rightly,
            self.unrelated_served,
        );
    }

    /// Times lookups of requests that `prompt` makes; `i` counts the lookups. `hits` is what each must be.
    fn time(
        &self,
        bencher: Bencher<'_, '_>,
        hits: Option<bool>,
        prompt: impl Fn(usize) -> String + Sync,
    ) {
        let mut i = 0;
        bencher
            .with_inputs(|| {
                i += 1;
                Request::prompt(prompt(i))
            })
            .bench_local_values(|request| {
                let outcome = runtime().block_on(self.cache.lookup(&request));
                assert!(hits.is_none_or(|hits| hits == outcome.is_hit()));
                outcome
            });
    }
}

fn options() -> StoreOptions {
    StoreOptions::default().usage(Usage::new(20, 200))
}

#[divan::bench(args = SIZES)]
fn exact_hit(bencher: Bencher<'_, '_>, entries: usize) {
    let filled = Filled::of(entries);
    filled.time(bencher, Some(true), |i| {
        stored_prompt((i * 7_919) % entries)
    });
}

#[divan::bench(args = SIZES)]
fn semantic_hit(bencher: Bencher<'_, '_>, entries: usize) {
    let filled = Filled::of(entries);
    filled.time(bencher, Some(true), |i| {
        reworded_prompt(filled.reworded[i % filled.reworded.len()])
    });
}

/// Hits and misses: what the built-in policy serves of these is reported first.
#[divan::bench(args = SIZES)]
fn reworded_by_the_built_in_policy(bencher: Bencher<'_, '_>, entries: usize) {
    let step = entries / QUERIES.min(entries);
    let prompt = |i: usize| reworded_prompt((i % QUERIES) * step);
    Filled::built_in(entries).time(bencher, None, prompt);
}

#[divan::bench(args = SIZES)]
fn miss(bencher: Bencher<'_, '_>, entries: usize) {
    let filled = Filled::of(entries);
    assert_eq!(
        filled.unrelated_served, 0,
        "some of these prompts would hit"
    );
    let step = entries / QUERIES.min(entries);
    filled.time(bencher, Some(false), |i| {
        unrelated_prompt((i % QUERIES) * step)
    });
}

/// The cache starts empty and grows with every store.
#[divan::bench]
fn store(bencher: Bencher<'_, '_>) {
    let cache = runtime()
        .block_on(SemanticCache::builder().build())
        .unwrap();
    let mut i = 0;
    bencher
        .with_inputs(|| {
            i += 1;
            Request::prompt(stored_prompt(i % COMBINATIONS))
        })
        .bench_local_values(|request| {
            runtime().block_on(cache.store(&request, Answer::text("Like this."), options()))
        });
}

#[divan::bench]
fn embed(bencher: Bencher<'_, '_>) {
    let embedder = StaticEmbedder::builtin();
    let mut i = 0;
    let mut vector = Vec::new();
    bencher
        .with_inputs(|| {
            i += 1;
            stored_prompt(i % COMBINATIONS)
        })
        .bench_local_values(|text| {
            vector.clear();
            embedder.embed_one(&text, &mut vector)
        });
}
