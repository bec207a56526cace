//! Lookups beside writers, with real threads.
//!
//! Cells are as small as can be, so that they split, merge and are compacted all the time. Rows that
//! stay are looked up throughout: one that is missed once, or listed twice, is an error. Which
//! interleavings these runs meet is up to the machine; `shuttle` chooses them.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use askonce_index::{
    BinaryConfig, BinaryIndex, Expiry, Neighbor, Precision, Query, RowId, VectorIndex,
};

mod support;
use support::{Random, clustered, near};

const DIMENSION: usize = 32;
const TIME: Duration = Duration::from_millis(1500);

fn config(precision: Precision) -> BinaryConfig {
    BinaryConfig {
        cell_rows: Some(16),
        precision,
        ..BinaryConfig::default()
    }
}

/// Writes, replaces and removes rows of its own ids until it is told to stop.
fn disturb(index: &BinaryIndex, seed: u64, stop: &AtomicBool) -> usize {
    let mut random = Random::new(seed);
    let rows = clustered(&mut random, 400, DIMENSION);
    let base = seed << 32;
    let mut writes = 0;
    while !stop.load(Ordering::Relaxed) {
        // In waves, so that cells fill and empty.
        let growing = writes / 800 % 2 == 0;
        let id = RowId(base + random.below(400) as u64);
        if random.below(10) < if growing { 8 } else { 3 } {
            index.upsert(id, &rows[random.below(400)]).unwrap();
        } else {
            index.remove(id).unwrap();
        }
        writes += 1;
    }
    writes
}

fn ids_are_distinct(found: &[Neighbor]) -> bool {
    let mut ids: Vec<RowId> = found.iter().map(|neighbor| neighbor.id).collect();
    ids.sort_unstable();
    ids.windows(2).all(|pair| pair[0] != pair[1])
}

#[test]
fn a_row_that_stays_is_found_by_every_lookup_while_cells_come_and_go() {
    for precision in [Precision::Int8, Precision::Int16] {
        let index = BinaryIndex::new(DIMENSION, config(precision)).unwrap();
        let mut random = Random::new(11);
        let mut stay = clustered(&mut random, 200, DIMENSION);
        // Some that are nearly alike: one must not stand for the other.
        for at in 0..60 {
            let twin = near(&mut random, &stay[at], 0.012);
            stay.push(twin);
        }
        for (id, row) in (0..).zip(&stay) {
            index.upsert(RowId(id), row).unwrap();
        }
        let (stop, lookups) = (AtomicBool::new(false), AtomicUsize::new(0));
        let writes: usize = thread::scope(|scope| {
            let writers: Vec<_> = (1..4)
                .map(|seed| {
                    scope.spawn({
                        let (index, stop) = (&index, &stop);
                        move || disturb(index, seed, stop)
                    })
                })
                .collect();
            let readers: Vec<_> = (0..3)
                .map(|reader| {
                    let (index, stay, lookups) = (&index, &stay, &lookups);
                    scope.spawn(move || {
                        let mut random = Random::new(100 + reader);
                        let mut found = Vec::new();
                        let began = Instant::now();
                        let mut count = 0;
                        while began.elapsed() < TIME {
                            let id = random.below(stay.len());
                            // By 8 bits, one of two so alike may well score like the other.
                            let is_one_of_two = !(60..200).contains(&id);
                            let k = match precision {
                                Precision::Int8 if is_one_of_two => 2 + random.below(15),
                                _ => [1, 1, 4, 16][random.below(4)],
                            };
                            let bar = [-1.0, 0.8, 0.99, 0.999][random.below(4)];
                            found.clear();
                            index.search_above(&stay[id], bar, k, &mut found).unwrap();
                            assert!(ids_are_distinct(&found), "{found:?}");
                            let own = found.iter().find(|n| n.id.0 == id as u64);
                            assert!(
                                own.is_some_and(|own| own.score > 1.0 - 1e-5),
                                "lookup {count}: row {id}, {k} best above {bar}: {found:?}"
                            );
                            count += 1;
                        }
                        lookups.fetch_add(count, Ordering::Relaxed);
                    })
                })
                .collect();
            let results: Vec<_> = readers
                .into_iter()
                .map(thread::ScopedJoinHandle::join)
                .collect();
            stop.store(true, Ordering::Relaxed);
            let writes = writers
                .into_iter()
                .map(|writer| writer.join().unwrap())
                .sum();
            for result in results {
                if let Err(panic) = result {
                    std::panic::resume_unwind(panic);
                }
            }
            writes
        });
        println!(
            "{precision:?}: {} lookups beside {writes} writes",
            lookups.into_inner()
        );
    }
}

#[test]
fn a_row_that_is_replaced_all_the_time_is_found_once_in_one_version_or_the_other() {
    for precision in [Precision::Int8, Precision::Int16] {
        let index = BinaryIndex::new(DIMENSION, config(precision)).unwrap();
        let mut random = Random::new(12);
        let first = clustered(&mut random, 40, DIMENSION);
        // Either version has a cosine of about 0.98 to the middle, which is what is looked for.
        let second: Vec<Vec<f32>> = first
            .iter()
            .map(|row| near(&mut random, row, 0.2))
            .collect();
        let middle: Vec<Vec<f32>> = first
            .iter()
            .zip(&second)
            .map(|(a, b)| a.iter().zip(b).map(|(a, b)| a + b).collect())
            .collect();
        for (id, row) in (0..).zip(&first) {
            index.upsert(RowId(id), row).unwrap();
        }
        let (stop, lookups) = (AtomicBool::new(false), AtomicUsize::new(0));
        let writes = AtomicU64::new(0);
        thread::scope(|scope| {
            let disturber = scope.spawn(|| disturb(&index, 7, &stop));
            let replacer = scope.spawn(|| {
                let mut random = Random::new(13);
                while !stop.load(Ordering::Relaxed) {
                    let id = random.below(first.len());
                    let row = [&first, &second][random.below(2)];
                    let expires = Expiry::at_seconds(1 + random.below(1000) as u64);
                    index
                        .upsert_until(RowId(id as u64), &row[id], expires)
                        .unwrap();
                    writes.fetch_add(1, Ordering::Relaxed);
                }
            });
            let readers: Vec<_> = (0..2)
                .map(|reader| {
                    let (index, middle, first, second, lookups) =
                        (&index, &middle, &first, &second, &lookups);
                    scope.spawn(move || {
                        let mut random = Random::new(200 + reader);
                        let mut found = Vec::new();
                        let began = Instant::now();
                        let mut count = 0;
                        while began.elapsed() < TIME {
                            let id = random.below(middle.len());
                            let by = [middle, first, second][random.below(3)];
                            let query = Query::new(&by[id], index.len()).above(0.85);
                            found.clear();
                            index.query(&query, &mut found).unwrap();
                            assert!(ids_are_distinct(&found), "{found:?}");
                            assert!(
                                found.iter().any(|n| n.id.0 == id as u64),
                                "lookup {count}: row {id} is in neither version among {found:?}"
                            );
                            count += 1;
                        }
                        lookups.fetch_add(count, Ordering::Relaxed);
                    })
                })
                .collect();
            let results: Vec<_> = readers
                .into_iter()
                .map(thread::ScopedJoinHandle::join)
                .collect();
            stop.store(true, Ordering::Relaxed);
            replacer.join().unwrap();
            disturber.join().unwrap();
            for result in results {
                if let Err(panic) = result {
                    std::panic::resume_unwind(panic);
                }
            }
        });
        println!(
            "{precision:?}: {} lookups beside {} replacements",
            lookups.into_inner(),
            writes.into_inner()
        );
    }
}

#[test]
fn a_removed_row_is_not_listed_once_its_removal_returned() {
    let index = BinaryIndex::new(DIMENSION, config(Precision::Int8)).unwrap();
    let stop = AtomicBool::new(false);
    let rows = clustered(&mut Random::new(14), 300, DIMENSION);
    thread::scope(|scope| {
        for seed in 1..3 {
            let (index, stop) = (&index, &stop);
            scope.spawn(move || disturb(index, seed, stop));
        }
        let mut random = Random::new(15);
        let mut found = Vec::new();
        let began = Instant::now();
        let mut rounds = 0;
        while began.elapsed() < TIME && !stop.load(Ordering::Relaxed) {
            let row = &rows[random.below(rows.len())];
            let id = RowId(random.below(50) as u64);
            index.upsert(id, row).unwrap();
            found.clear();
            index.search_above(row, 0.999, 60, &mut found).unwrap();
            let is_found = found.iter().any(|n| n.id == id);
            index.remove(id).unwrap();
            found.clear();
            index
                .search_above(row, 0.5, index.len(), &mut found)
                .unwrap();
            let is_gone = found.iter().all(|n| n.id != id);
            rounds += 1;
            if !is_found || !is_gone {
                stop.store(true, Ordering::Relaxed);
            }
            assert!(
                is_found && is_gone,
                "round {rounds}: found {is_found}, gone {is_gone}"
            );
        }
        stop.store(true, Ordering::Relaxed);
        println!("{rounds} rounds");
    });
}
