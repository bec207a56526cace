//! A cache that runs for long: rows come, expire, are replaced and evicted, all the time.
//!
//! What must hold then: memory is that of the rows that are there, however many there were before;
//! a lookup finds what a fresh index would find, also among topics that nobody wrote of at the
//! beginning; an id that was removed stays away; and a row that is stored is found by its own
//! vector, at every moment, however unlucky the vectors and their order are. The allocator of this
//! test counts for each thread what that thread asked for and gave back.
//!
//! `millions_of_operations_leave_the_index_as_new` runs for minutes and only when it is asked for:
//! `cargo test --release -p askonce-index --test churn -- --ignored --nocapture`.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::Instant;

use askonce_index::{BinaryConfig, BinaryIndex, Expiry, Precision, Query, RowId, VectorIndex};

mod support;
use support::{Random, near, normalized};

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
}

struct Counting;

#[expect(unsafe_code, reason = "an allocator that counts")]
// SAFETY: every call is passed on to the system allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.with(|held| held.set(held.get() + layout.size() as isize));
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        HELD.with(|held| held.set(held.get() + layout.size() as isize));
        // SAFETY: the caller keeps the contract of `alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        HELD.with(|held| held.set(held.get() - layout.size() as isize));
        // SAFETY: the caller keeps the contract of `dealloc`, and `block` came from `System`.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn held() -> isize {
    HELD.get()
}

fn config(cell_rows: usize) -> BinaryConfig {
    BinaryConfig {
        cell_rows: Some(cell_rows),
        ..BinaryConfig::default()
    }
}

/// Vectors around the topics of the day: each topic is a direction, and a few of them are spoken of
/// at a time.
struct Topics {
    random: Random,
    topics: Vec<Vec<f32>>,
}

impl Topics {
    fn new(seed: u64, dimension: usize, topics: usize) -> Self {
        let mut random = Random::new(seed);
        let topics = (0..topics)
            .map(|_| (0..dimension).map(|_| random.normal()).collect::<Vec<_>>())
            .map(|topic| normalized(&topic))
            .collect();
        Self { random, topics }
    }

    /// A vector of one of the topics of this part of the list.
    fn vector(&mut self, topics: std::ops::Range<usize>) -> Vec<f32> {
        let at = topics.start + self.random.below(topics.len());
        let topic = self.topics[at].clone();
        near(&mut self.random, &topic, 0.8)
    }
}

/// An index, and what it must hold.
struct Watched {
    index: BinaryIndex,
    rows: BTreeMap<u64, (Vec<f32>, Expiry)>,
}

impl Watched {
    fn new(dimension: usize, config: BinaryConfig) -> Self {
        Self {
            index: BinaryIndex::new(dimension, config).unwrap(),
            rows: BTreeMap::new(),
        }
    }

    fn upsert(&mut self, id: u64, vector: Vec<f32>, expires: Expiry) {
        self.index
            .upsert_until(RowId(id), &vector, expires)
            .unwrap();
        self.rows.insert(id, (vector, expires));
    }

    fn remove(&mut self, id: u64) {
        let was = self.rows.remove(&id).is_some();
        assert_eq!(self.index.remove(RowId(id)).unwrap(), was);
    }

    fn remove_expired(&mut self, now: Expiry) -> usize {
        let before = self.rows.len();
        self.rows.retain(|_, (_, expires)| !expires.is_past(now));
        let removed = self.index.remove_expired(now).unwrap();
        assert_eq!(removed, before - self.rows.len());
        removed
    }

    /// Every row is found by its own vector, with a score of 1; no other row is listed for it that
    /// is not there.
    fn check_reach(&self) {
        assert_eq!(self.index.len(), self.rows.len());
        let mut found = Vec::new();
        for (&id, (vector, _)) in &self.rows {
            found.clear();
            self.index.search(vector, 1, &mut found).unwrap();
            if found.first().is_none_or(|best| best.id.0 != id) {
                // Rows in nearly the same direction may come first, but only those.
                let best = found.first().map_or(0.0, |best| best.score);
                assert!(best > 1.0 - 1e-5, "row {id} by its own vector: {best}");
                found.clear();
                let all = self.rows.len();
                self.index
                    .search_above(vector, 1.0 - 1e-5, all, &mut found)
                    .unwrap();
                assert!(
                    found.iter().any(|neighbor| neighbor.id.0 == id),
                    "row {id} is not among {} like it",
                    found.len()
                );
            }
            for neighbor in &found {
                assert!(
                    self.rows.contains_key(&neighbor.id.0),
                    "{neighbor:?} is gone"
                );
            }
        }
    }

    /// An index of the same rows that never held another, and what it takes.
    fn fresh(&self, config: BinaryConfig) -> (BinaryIndex, usize) {
        let before = held();
        let dimension = self.index.dimension();
        let fresh = BinaryIndex::new(dimension, config).unwrap();
        for (&id, (vector, expires)) in &self.rows {
            fresh.upsert_until(RowId(id), vector, *expires).unwrap();
        }
        let taken = held() - before;
        (fresh, taken.try_into().unwrap())
    }

    /// Recall among the neighbours of these queries that score at least 0.8.
    fn recall(&self, queries: &[Vec<f32>]) -> f64 {
        let queries: Vec<_> = queries
            .iter()
            .map(|query| Query::new(query, 10).above(0.8))
            .collect();
        self.index.audit(&queries).unwrap().recall()
    }

    fn some_rows(&self, random: &mut Random, count: usize) -> Vec<Vec<f32>> {
        let rows: Vec<&Vec<f32>> = self.rows.values().map(|(vector, _)| vector).collect();
        (0..count)
            .map(|_| rows[random.below(rows.len())].clone())
            .collect()
    }

    /// Paraphrases of some rows.
    fn questions(&self, random: &mut Random, count: usize) -> Vec<Vec<f32>> {
        let rows = self.some_rows(random, count);
        rows.iter().map(|row| near(random, row, 0.4)).collect()
    }
}

/// Churn at a constant number of rows: each round writes a row, replaces one, looks one up, and
/// removes one; one in four of those that go, goes because it expired. The topics move on all the
/// time. Tells the largest of the bytes that were told at the end of each tenth.
fn churn(watched: &mut Watched, topics: &mut Topics, live: usize, rounds: usize, checks: usize) {
    let mut random = Random::new(77);
    let every = topics.topics.len();
    let window = every / 4;
    let mut next = watched.rows.keys().last().map_or(0, |last| last + 1);
    let mut oldest = next.saturating_sub(watched.rows.len() as u64);
    let mut found = Vec::new();
    let mut second = 1u32;
    for round in 0..rounds {
        let start = round * (every - window) / rounds;
        let vector = topics.vector(start..start + window);
        // One in four lives only as long as four fifths of the others.
        let expires = match random.below(4) {
            0 => Expiry::at_seconds(u64::from(second) + live as u64 * 4 / 5),
            _ => Expiry::NEVER,
        };
        watched.upsert(next, vector, expires);
        next += 1;
        if watched.rows.len() > live {
            while !watched.rows.contains_key(&oldest) {
                oldest += 1;
            }
            watched.remove(oldest);
        }
        let id = oldest + random.below((next - oldest) as usize) as u64;
        if let Some((vector, expires)) = watched.rows.get(&id).cloned() {
            if random.below(2) == 0 {
                let moved = near(&mut random, &vector, 0.3);
                watched.upsert(id, moved, expires);
            } else {
                found.clear();
                watched
                    .index
                    .search_above(&vector, 0.9, 1, &mut found)
                    .unwrap();
                let best = found.first().map_or(0.0, |best| best.score);
                assert!(best > 1.0 - 1e-5, "row {id} by its own vector: {best}");
            }
        } else {
            assert!(!watched.index.contains(RowId(id)), "{id} is back");
        }
        second += 1;
        if round % 512 == 0 {
            watched.remove_expired(Expiry::at_seconds(u64::from(second)));
        }
        if round % (rounds / checks) == 0 {
            watched.check_reach();
        }
    }
}

#[test]
fn hundreds_of_thousands_of_operations_leave_the_index_as_new() {
    let (dimension, live) = (64, 6_000);
    let config = config(32);
    let mut topics = Topics::new(1, dimension, 400);
    let mut watched = Watched::new(dimension, config);
    churn(&mut watched, &mut topics, live, 120_000, 8);
    watched.check_reach();

    let rows = watched.rows.clone();
    let content: usize = rows.len() * dimension * 4;
    let mut random = Random::new(5);
    let questions = watched.questions(&mut random, 400);
    let recall = watched.recall(&questions);
    let (fresh, fresh_taken) = watched.fresh(config);
    println!(
        "{} rows, {content} bytes of f32; told {} of {fresh_taken} fresh ({} told), {} cells of {}; recall {recall}",
        rows.len(),
        watched.index.bytes(),
        fresh.bytes(),
        watched.index.cells(),
        fresh.cells(),
    );
    assert!(recall >= 0.99, "{recall}");
    // Dead rows are up to a quarter, and cells as small as these are rounded up by much.
    assert!(watched.index.bytes() * 3 <= fresh.bytes() * 4);
    assert!(watched.index.cells() <= fresh.cells() * 3 / 2);

    // What was told is what the allocator has given out.
    let told = watched.index.bytes();
    let all = held();
    drop(watched.index);
    let taken = usize::try_from(all - held()).unwrap();
    assert!(taken.abs_diff(told) * 20 <= taken, "{told} told of {taken}");
}

#[test]
#[ignore = "takes minutes; see the top of this file"]
fn millions_of_operations_leave_the_index_as_new() {
    let (dimension, live) = (256, 100_000);
    let config = BinaryConfig::default();
    let mut topics = Topics::new(1, dimension, 4_000);
    let mut watched = Watched::new(dimension, config);
    churn(&mut watched, &mut topics, live, 1_500_000, 5);
    watched.check_reach();
    let mut random = Random::new(5);
    let questions = watched.questions(&mut random, 1000);
    let recall = watched.recall(&questions);
    let (fresh, _) = watched.fresh(config);
    println!(
        "told {} of {} fresh, {} cells of {}; recall {recall}",
        watched.index.bytes(),
        fresh.bytes(),
        watched.index.cells(),
        fresh.cells(),
    );
    assert!(recall >= 0.99, "{recall}");
    assert!(watched.index.bytes() * 10 <= fresh.bytes() * 11);
}

#[test]
fn topics_that_nobody_wrote_of_before_are_found_as_well_as_the_first() {
    let dimension = 96;
    let config = BinaryConfig::default();
    let mut topics = Topics::new(2, dimension, 200);
    let mut watched = Watched::new(dimension, config);
    let half = 8_000;
    for id in 0..2 * half {
        let part = if id < half { 0..100 } else { 100..200 };
        let vector = topics.vector(part);
        watched.upsert(id, vector, Expiry::NEVER);
    }
    let mut random = Random::new(3);
    for range in [0..half, half..2 * half] {
        let ids: Vec<u64> = range.clone().collect();
        let questions: Vec<Vec<f32>> = (0..1000)
            .map(|_| {
                let id = ids[random.below(ids.len())];
                let row = watched.rows[&id].0.clone();
                near(&mut random, &row, 0.4)
            })
            .collect();
        let recall = watched.recall(&questions);
        println!("rows {range:?}: recall {recall}");
        assert!(recall >= 0.99, "rows {range:?}: {recall}");
    }
    watched.check_reach();
    // The first topics go out of use.
    for id in 0..half {
        watched.remove(id);
    }
    watched.check_reach();
    let (fresh, _) = watched.fresh(config);
    println!(
        "{} of {} cells, {} of {} bytes",
        watched.index.cells(),
        fresh.cells(),
        watched.index.bytes(),
        fresh.bytes()
    );
    assert!(watched.index.bytes() * 3 <= fresh.bytes() * 4);
}

/// Vectors and orders that cells and codes do not like.
fn unlucky(dimension: usize, count: usize) -> Vec<(&'static str, Vec<Vec<f32>>)> {
    let mut random = Random::new(8);
    let random = &mut random;
    let noise = |random: &mut Random| -> Vec<f32> {
        let vector: Vec<f32> = (0..dimension).map(|_| random.normal()).collect();
        normalized(&vector)
    };
    let (a, b) = (noise(random), noise(random));
    let line = |share: f32| -> Vec<f32> {
        let on: Vec<f32> = a.iter().zip(&b).map(|(a, b)| a + share * b).collect();
        normalized(&on)
    };
    let mut sorted: Vec<Vec<f32>> = (0..count).map(|_| noise(random)).collect();
    sorted.sort_by(|a, b| a[0].total_cmp(&b[0]));
    let one_hot = |at: usize, sign: f32| {
        let mut vector = vec![0.0; dimension];
        vector[at % dimension] = sign;
        vector
    };
    vec![
        ("all alike", vec![a.clone(); count]),
        (
            "two kinds",
            (0..count)
                .map(|at| if at % 2 == 0 { a.clone() } else { b.clone() })
                .collect(),
        ),
        (
            "alike within rounding",
            (0..count).map(|_| near(random, &a, 1e-6)).collect(),
        ),
        (
            "nearly alike",
            (0..count).map(|_| near(random, &a, 1e-3)).collect(),
        ),
        (
            "one tight cluster",
            (0..count).map(|_| near(random, &a, 0.05)).collect(),
        ),
        ("many kinds of many", {
            let kinds: Vec<Vec<f32>> = (0..20).map(|_| noise(random)).collect();
            (0..count).map(|at| kinds[at % 20].clone()).collect()
        }),
        ("noise", (0..count).map(|_| noise(random)).collect()),
        ("sorted", sorted),
        (
            "on a line",
            (0..count)
                .map(|at| line(at as f32 / count as f32 * 4.0 - 2.0))
                .collect(),
        ),
        (
            "opposites",
            (0..count)
                .map(|at| {
                    let row = near(random, &a, 0.3);
                    let sign = if at % 2 == 0 { 1.0 } else { -1.0 };
                    row.iter().map(|x| x * sign).collect()
                })
                .collect(),
        ),
        (
            "axes",
            (0..count)
                .map(|at| {
                    one_hot(
                        at,
                        if (at / dimension).is_multiple_of(2) {
                            1.0
                        } else {
                            -1.0
                        },
                    )
                })
                .collect(),
        ),
    ]
}

#[test]
fn rows_are_reached_and_cells_stay_few_however_unlucky_the_vectors_are() {
    let (dimension, count) = (64, 3_000);
    for precision in [Precision::Int8, Precision::Int16] {
        let config = BinaryConfig {
            precision,
            ..config(16)
        };
        for (name, vectors) in unlucky(dimension, count) {
            let began = Instant::now();
            let mut watched = Watched::new(dimension, config);
            for (id, vector) in (0..).zip(&vectors) {
                watched.upsert(id, vector.clone(), Expiry::NEVER);
            }
            let (cells, bytes) = (watched.index.cells(), watched.index.bytes());
            // As many again, one in for one out, in the same unlucky order.
            for (id, vector) in (0u64..).zip(&vectors) {
                watched.upsert(count as u64 + id, vector.clone(), Expiry::NEVER);
                watched.remove(id);
                if id % 1000 == 999 {
                    let first = watched.rows.keys().next().copied();
                    assert_eq!(first, Some(id + 1));
                }
            }
            for at in (0..count).rev() {
                let (id, vector) = (at as u64, &vectors[at]);
                watched.upsert(id, vector.clone(), Expiry::NEVER);
                watched.remove(count as u64 + id);
            }
            println!(
                "{precision:?}, {name}: {cells} then {} cells, {bytes} then {} bytes, {:?}",
                watched.index.cells(),
                watched.index.bytes(),
                began.elapsed()
            );
            assert!(
                watched.index.cells() <= cells * 2 + 8,
                "{name}: {cells} cells have become {}",
                watched.index.cells()
            );
            assert!(watched.index.bytes() * 2 <= bytes * 3, "{name}");
            let sample: Vec<u64> = watched.rows.keys().copied().step_by(7).collect();
            watched.rows.retain(|id, _| sample.contains(id));
            for id in 0..count as u64 {
                if !watched.rows.contains_key(&id) {
                    watched.index.remove(RowId(id)).unwrap();
                }
            }
            watched.check_reach();
            println!("    reached after {:?}", began.elapsed());
        }
    }
}

#[test]
fn an_index_that_was_emptied_is_as_small_as_a_new_one_and_nothing_comes_back() {
    let dimension = 32;
    let mut topics = Topics::new(4, dimension, 50);
    let mut watched = Watched::new(dimension, config(16));
    let empty = BinaryIndex::new(dimension, config(16)).unwrap().bytes();
    for round in 0..3u64 {
        for id in 0..4_000 {
            let vector = topics.vector(0..50);
            watched.upsert(round * 10_000 + id, vector, Expiry::NEVER);
        }
        let full = watched.index.bytes();
        let ids: Vec<u64> = watched.rows.keys().copied().collect();
        let gone = watched.rows.clone();
        for id in ids {
            watched.remove(id);
        }
        println!(
            "{full} bytes full, {} emptied, {empty} new",
            watched.index.bytes()
        );
        assert!(watched.index.bytes() <= empty + full / 50);
        assert_eq!(watched.index.cells(), 1);
        let mut found = Vec::new();
        for (vector, _) in gone.values().step_by(97) {
            watched.index.search(vector, 3, &mut found).unwrap();
        }
        assert!(found.is_empty());
    }
}

#[test]
fn half_the_rows_removed_leave_a_lookup_no_more_to_read() {
    let dimension = 64;
    let mut topics = Topics::new(6, dimension, 150);
    let mut watched = Watched::new(dimension, config(64));
    for id in 0..12_000 {
        let vector = topics.vector(0..150);
        watched.upsert(id, vector, Expiry::NEVER);
    }
    let mut random = Random::new(9);
    let questions = watched.questions(&mut random, 500);
    let lookups = |watched: &Watched| {
        let mut found = Vec::new();
        let began = Instant::now();
        for _ in 0..4 {
            for question in &questions {
                found.clear();
                watched
                    .index
                    .search_above(question, 0.9, 3, &mut found)
                    .unwrap();
            }
        }
        began.elapsed()
    };
    lookups(&watched);
    let full = lookups(&watched);
    let (bytes, cells) = (watched.index.bytes(), watched.index.cells());
    for id in (0..12_000).step_by(2) {
        watched.remove(id);
    }
    let half = lookups(&watched);
    println!("2000 lookups: {full:?} of all, {half:?} of half");
    println!(
        "{cells} cells, then {}; {bytes} bytes, then {}; {:?}",
        watched.index.cells(),
        watched.index.bytes(),
        watched.index.backlog()
    );
    // What a lookup reads are the rows of cells, live or dead.
    assert!(watched.index.cells() <= cells);
    assert!(watched.index.bytes() * 4 <= bytes * 3);
    assert!(watched.index.backlog().dead * 3 <= watched.index.len());
    assert!(watched.recall(&questions) >= 0.99);
}
