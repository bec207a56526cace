//! No stored row is ever out of reach of its own vector.
//!
//! For a cache a row that its own vector does not find is paid for and never served, and nobody
//! notices. So every row is looked up by its own vector, in sets large enough that structures split,
//! shrink and merge many times: after a fill, after churn, after maintenance, after a restart.

use askonce_index::{Expiry, Query, RowId, VectorIndex};

mod support;
use support::engines::{Subject, on_every_engine};
use support::{Random, clustered, normalized};

const DIMENSION: usize = 128;

/// Clusters in clusters, as topics have questions and questions have wordings: rows that are near
/// each other are many, and no two are alike.
fn topical(random: &mut Random, rows: usize) -> Vec<Vec<f32>> {
    let topics = clustered(random, (rows / 20).max(20), DIMENSION);
    (0..rows)
        .map(|_| {
            let topic = &topics[random.below(topics.len())];
            let spread = 0.02 + 0.1 * (random.below(10) as f32 / 10.0);
            let row: Vec<f32> = topic.iter().map(|x| x + spread * random.normal()).collect();
            normalized(&row)
        })
        .collect()
}

/// The rows that should be there, and how many of them a lookup by their own vector misses.
struct Held {
    vectors: Vec<Option<Vec<f32>>>,
    /// Lookups are made for each row of this many; an index that reads them all needs fewer.
    step: usize,
}

impl Held {
    fn missed(&self, index: &dyn VectorIndex) -> usize {
        let mut missed = 0;
        let mut out = Vec::new();
        for (id, vector) in self.vectors.iter().enumerate().step_by(self.step) {
            let Some(vector) = vector else { continue };
            // As a cache asks, and with nothing that narrows the search down.
            for min_score in [0.95, -1.0] {
                out.clear();
                let query = Query::new(vector, 1).above(min_score);
                index.query(&query, &mut out).unwrap();
                let found = out
                    .first()
                    .is_some_and(|best| best.id.0 == id as u64 && best.score >= 1.0 - 1e-5);
                missed += usize::from(!found);
            }
        }
        missed
    }

    fn len(&self) -> usize {
        self.vectors.iter().flatten().count()
    }
}

fn every_row_is_found_by_itself_after_all_that_happens_to_an_index<S: Subject>() {
    let rows = S::MANY;
    let mut random = Random::new(51);
    let pool = topical(&mut random, rows * 3 / 2);
    let mut index = S::filled(&pool[..rows]);
    let mut held = Held {
        vectors: pool[..rows].iter().cloned().map(Some).collect(),
        step: if index.capability().exact { 16 } else { 1 },
    };
    assert_eq!(held.missed(&*index), 0, "after the fill");

    // A third is replaced, a third removed, and half of those come back as others.
    let mut fresh = pool[rows..].iter();
    for (id, other) in pool[..rows].iter().enumerate() {
        match random.below(6) {
            0 | 1 => {
                held.vectors[id] = fresh.next().cloned().or(held.vectors[id].take());
                if let Some(vector) = &held.vectors[id] {
                    index.upsert(RowId(id as u64), vector).unwrap();
                }
            }
            2 => {
                assert!(index.remove(RowId(id as u64)).unwrap());
                held.vectors[id] = None;
            }
            3 => {
                assert!(index.remove(RowId(id as u64)).unwrap());
                let until = Expiry::at_seconds(1_000);
                index.upsert_until(RowId(id as u64), other, until).unwrap();
                held.vectors[id] = Some(other.clone());
            }
            _ => {}
        }
    }
    assert_eq!(index.len(), held.len());
    assert_eq!(held.missed(&*index), 0, "after churn");

    index.settle();
    assert_eq!(held.missed(&*index), 0, "after it settled");

    index = S::again(&*index);
    assert_eq!(held.missed(&*index), 0, "after a restart");
    index.settle();

    // Nearly all rows go, and what is left is still there.
    let expired = index.remove_expired(Expiry::at_seconds(1_000)).unwrap();
    assert!(expired > rows / 10, "{expired} expired");
    for id in 0..rows {
        if !index.contains(RowId(id as u64)) || id % 20 != 0 {
            index.remove(RowId(id as u64)).unwrap();
            held.vectors[id] = None;
        }
    }
    assert_eq!(index.len(), held.len());
    held.step = 1;
    assert_eq!(held.missed(&*index), 0, "after nearly all were removed");
}

on_every_engine! {
    every_row_is_found_by_itself_after_all_that_happens_to_an_index
}
