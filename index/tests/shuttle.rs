//! Lookups beside a writer, under a scheduler that chooses who goes on at every atomic and lock.
//!
//! Each check runs a writer that makes cells split, merge and drop their dead rows, and readers that
//! look for rows which are there all the time. The whole engine is compiled with the atomics of
//! shuttle, which runs the threads in turn and chooses at random and by PCT (probabilistic concurrency
//! testing, Burckhardt and others, ASPLOS 2010), from fixed seeds. It sees every order of the steps,
//! and none of what weak memory adds to them: that is for Miri to look at. Nothing is built without
//!
//! ```text
//! RUSTFLAGS="--cfg shuttle" cargo test -p askonce-index --no-default-features --test shuttle
//! ```
#![cfg(shuttle)]

use std::sync::Arc;

use askonce_index::{BinaryConfig, BinaryIndex, Neighbor, Query, RowId, VectorIndex};
use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::{Config, Runner, thread};

mod support;
use support::{Random, near, normalized};

const DIMENSION: usize = 64;

/// Runs the check under many schedules.
fn under_all_schedulers(check: fn()) {
    let mut config = Config::new();
    config.stack_size = 1 << 20;
    let schedules = 400;
    Runner::new(
        RandomScheduler::new_from_seed(42, schedules),
        config.clone(),
    )
    .run(check);
    Runner::new(PctScheduler::new_from_seed(42, 3, schedules), config).run(check);
}

/// With one probe, a search looks into the most similar cell and those that hold the very row: then
/// nothing but that knowledge finds a row in another cell.
fn empty(probes: Option<usize>) -> BinaryIndex {
    let config = BinaryConfig {
        cell_rows: Some(16),
        probes,
        ..BinaryConfig::default()
    };
    BinaryIndex::new(DIMENSION, config).unwrap()
}

fn noise(random: &mut Random) -> Vec<f32> {
    let vector: Vec<f32> = (0..DIMENSION).map(|_| random.normal()).collect();
    normalized(&vector)
}

/// Rows of two groups that a cut tells apart, some of them nearly alike.
fn rows(random: &mut Random, count: usize) -> Vec<Vec<f32>> {
    let groups = [noise(random), noise(random)];
    let mut rows: Vec<Vec<f32>> = Vec::new();
    for at in 0..count {
        let of = if at % 5 == 4 {
            &rows[at - 1]
        } else {
            &groups[at % 2]
        };
        let spread = if at % 5 == 4 { 0.02 } else { 0.7 };
        rows.push(near(random, &of.clone(), spread));
    }
    rows
}

fn find(index: &BinaryIndex, query: &[f32], bar: f32, k: usize) -> Vec<Neighbor> {
    let mut found = Vec::new();
    index
        .query(&Query::new(query, k).above(bar), &mut found)
        .unwrap();
    let mut ids: Vec<u64> = found.iter().map(|neighbor| neighbor.id.0).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), found.len(), "listed twice: {found:?}");
    found
}

fn is_among(found: &[Neighbor], id: usize) -> bool {
    found.iter().any(|neighbor| neighbor.id.0 == id as u64)
}

/// Two readers look for rows 0 to `stay` while `write` runs.
fn look_while(
    index: &Arc<BinaryIndex>,
    rows: &Arc<Vec<Vec<f32>>>,
    stay: usize,
    write: impl FnOnce(),
) {
    let readers: Vec<_> = [(0, 2, 0.99), (3, 4, 0.9)]
        .into_iter()
        .map(|(first, k, bar)| {
            let (index, rows) = (Arc::clone(index), Arc::clone(rows));
            thread::spawn(move || {
                for id in (first..stay).step_by(4).take(3) {
                    let found = find(&index, &rows[id], bar, k);
                    assert!(is_among(&found, id), "row {id} is not in {found:?}");
                }
            })
        })
        .collect();
    write();
    for reader in readers {
        reader.join().unwrap();
    }
}

#[test]
fn a_row_is_found_once_while_its_cell_is_cut_and_others_join() {
    under_all_schedulers(|| {
        let mut random = Random::new(1);
        let rows = Arc::new(rows(&mut random, 40));
        let index = Arc::new(empty(Some(1)));
        for (id, row) in (0..32).zip(rows.iter()) {
            index.upsert(RowId(id), row).unwrap();
        }
        let cells = index.cells();
        look_while(&index, &rows, 32, || {
            for id in 32..40 {
                index.upsert(RowId(id), &rows[id as usize]).unwrap();
            }
        });
        assert!(index.cells() > cells, "nothing was cut");
    });
}

#[test]
fn a_row_is_found_once_while_its_cell_is_dissolved_and_the_last_takes_its_number() {
    under_all_schedulers(|| {
        let mut random = Random::new(2);
        let rows = Arc::new(rows(&mut random, 48));
        let index = Arc::new(empty(Some(1)));
        for (id, row) in (0..).zip(rows.iter()) {
            index.upsert(RowId(id), row).unwrap();
        }
        // All but the rows that stay, and two more.
        for id in (14..48).rev().skip(2) {
            if index.cells() > 2 || id > 20 {
                index.remove(RowId(id)).unwrap();
            }
        }
        look_while(&index, &rows, 14, || {
            for id in 14..48 {
                index.remove(RowId(id)).unwrap();
            }
        });
        assert_eq!(index.len(), 14);
    });
}

#[test]
fn a_row_that_is_replaced_is_found_once_in_one_version_or_the_other_while_the_dead_are_dropped() {
    under_all_schedulers(|| {
        let mut random = Random::new(3);
        let rows = rows(&mut random, 40);
        let index = Arc::new(empty(None));
        for (id, row) in (0..).zip(&rows) {
            index.upsert(RowId(id), row).unwrap();
        }
        assert!(index.cells() > 1);
        // Row 3 is now of one group and now of the other, and so in one cell or the other.
        let middle: Vec<f32> = rows[2].iter().zip(&rows[3]).map(|(a, b)| a + b).collect();
        let readers: Vec<_> = (0..2)
            .map(|_| {
                let (index, middle) = (Arc::clone(&index), middle.clone());
                thread::spawn(move || {
                    for _ in 0..2 {
                        let found = find(&index, &middle, 0.2, 40);
                        assert!(is_among(&found, 3), "neither version: {found:?}");
                    }
                })
            })
            .collect();
        for round in 0..6 {
            for id in [3, 7, 12] {
                let row = &rows[if id == 3 { 2 + (round % 2) } else { id }];
                index.upsert(RowId(id as u64), row).unwrap();
            }
        }
        for reader in readers {
            reader.join().unwrap();
        }
    });
}

#[test]
fn a_reader_sees_a_whole_row_or_none() {
    under_all_schedulers(|| {
        let mut random = Random::new(4);
        let rows = Arc::new(rows(&mut random, 10));
        let index = Arc::new(empty(Some(1)));
        let reader = {
            let (index, rows) = (Arc::clone(&index), Arc::clone(&rows));
            thread::spawn(move || {
                for id in [1, 4, 7] {
                    for neighbor in find(&index, &rows[id], -1.0, 10) {
                        let row = &rows[neighbor.id.0 as usize];
                        let cosine: f32 = row.iter().zip(&rows[id]).map(|(a, b)| a * b).sum();
                        assert!(
                            (neighbor.score - cosine).abs() < 0.01,
                            "{neighbor:?} {cosine}"
                        );
                    }
                }
            })
        };
        for (id, row) in (0..).zip(rows.iter()) {
            index.upsert(RowId(id), row).unwrap();
            assert!(is_among(&find(&index, row, 0.99, 2), id as usize));
        }
        index.remove(RowId(1)).unwrap();
        assert!(!is_among(&find(&index, &rows[1], -1.0, 10), 1));
        reader.join().unwrap();
    });
}
