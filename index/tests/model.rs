//! Random runs of every operation against an index that cannot be wrong, over every engine.
//!
//! Two kinds of run. In the first there are few ids and few values, so that updates, removals, equal
//! scores, expiries and filters meet all the time, and a run that fails is shrunk to a short one. In
//! the second the vectors are clustered as those of texts are, the runs are thousands of steps long,
//! and every so often the index is replaced by one restored from its snapshot.

use askonce_index::{Audit, Expiry, Query, Row, RowId};
use proptest::prelude::*;

mod support;
use support::engines::{Subject, on_every_engine};
use support::{Ask, Random, Twin, clustered, near};

const FEW: usize = 6;

#[derive(Clone, Debug)]
enum Step {
    Upsert(Written),
    Batch(Vec<Written>),
    Remove { id: u64 },
    RemoveExpired { now: u64 },
    Query(Ask),
    Queries(Vec<Ask>),
    Settle,
    Restore,
}

#[derive(Clone, Debug)]
struct Written {
    id: u64,
    vector: Vec<f32>,
    expires: Expiry,
}

impl Written {
    fn row(&self) -> Row<'_> {
        Row {
            id: RowId(self.id),
            vector: &self.vector,
            expires: self.expires,
        }
    }
}

fn vector() -> impl Strategy<Value = Vec<f32>> {
    prop::collection::vec((-2i8..3).prop_map(f32::from), FEW)
        .prop_filter("has a direction", |vector| vector.iter().any(|&x| x != 0.0))
}

/// Half never expire, or search as if nothing did.
fn expiry() -> impl Strategy<Value = Expiry> {
    prop_oneof![Just(Expiry::NEVER), (1..20u64).prop_map(Expiry::at_seconds)]
}

fn written() -> impl Strategy<Value = Written> {
    (0..40u64, vector(), expiry()).prop_map(|(id, vector, expires)| Written {
        id,
        vector,
        expires,
    })
}

fn ask() -> impl Strategy<Value = Ask> {
    let only = prop_oneof![
        2 => Just(None),
        1 => (1..8u64).prop_flat_map(|by| (0..by, Just(by)).prop_map(Some)),
    ];
    let min_score = prop_oneof![
        2 => Just(-1.0f32),
        2 => prop::sample::select(vec![-0.5f32, 0.0, 0.5, 0.7, 0.9, 1.0]),
    ];
    (
        vector(),
        0..50usize,
        min_score,
        expiry(),
        only,
        any::<bool>(),
    )
        .prop_map(|(vector, k, min_score, now, only, exact)| Ask {
            vector,
            k,
            min_score,
            now,
            only,
            exact,
        })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => written().prop_map(Step::Upsert),
        1 => prop::collection::vec(written(), 0..30).prop_map(Step::Batch),
        3 => (0..40u64).prop_map(|id| Step::Remove { id }),
        1 => (0..20u64).prop_map(|now| Step::RemoveExpired { now }),
        4 => ask().prop_map(Step::Query),
        1 => prop::collection::vec(ask(), 0..10).prop_map(Step::Queries),
        1 => Just(Step::Settle),
        1 => Just(Step::Restore),
    ];
    prop::collection::vec(step, 1..100)
}

fn every_short_run_agrees_with_the_naive_twin<S: Subject>() {
    let config = ProptestConfig {
        cases: 64,
        failure_persistence: None,
        ..Default::default()
    };
    proptest!(config, |(steps in steps())| {
        let mut index = S::empty(FEW).unwrap();
        let mut twin = Twin::default();
        for step in &steps {
            match step {
                Step::Upsert(one) => {
                    index.upsert_until(RowId(one.id), &one.vector, one.expires).unwrap();
                    twin.upsert(one.id, &one.vector, one.expires);
                    twin.check_found(&*index, one.id, &one.vector);
                }
                Step::Batch(many) => {
                    let rows: Vec<Row<'_>> = many.iter().map(Written::row).collect();
                    index.upsert_batch(&rows).unwrap();
                    for one in many {
                        twin.upsert(one.id, &one.vector, one.expires);
                    }
                }
                Step::Remove { id } => {
                    prop_assert_eq!(index.remove(RowId(*id)).unwrap(), twin.remove(*id));
                }
                Step::RemoveExpired { now } => {
                    let now = Expiry::at_seconds(*now);
                    let removed = index.remove_expired(now).unwrap();
                    prop_assert_eq!(removed, twin.remove_expired(now));
                }
                Step::Query(ask) => {
                    twin.check(ask, &ask.of(&*index), &index.capability());
                }
                Step::Queries(asks) => {
                    for (ask, found) in asks.iter().zip(Ask::batch(asks, &*index)) {
                        twin.check(ask, &found, &index.capability());
                    }
                }
                Step::Settle => index.settle(),
                Step::Restore => index = twin.restart::<S>(&*index),
            }
            prop_assert_eq!(index.len(), twin.rows.len());
        }
        twin.check_reach(&*index);
        twin.check_content(&*index);
    });
}

/// Ids of the long runs. About half of them are held at any time.
const IDS: usize = 1500;
const STEPS: usize = 6000;
const DIMENSION: usize = 64;

fn a_long_run_over_clustered_vectors_agrees_with_the_naive_twin<S: Subject>() {
    let mut random = Random::new(41);
    let pool = clustered(&mut random, 3000, DIMENSION);
    let mut index = S::empty(DIMENSION).unwrap();
    let mut twin = Twin::default();
    let mut now = 1;
    let mut found_of_near = Audit::default();
    for step in 0..STEPS {
        let id = random.below(IDS) as u64;
        let vector = &pool[random.below(pool.len())];
        match random.below(100) {
            0..45 => {
                let expires = match random.below(3) {
                    0 => Expiry::at_seconds(now + 1 + random.next() % 400),
                    _ => Expiry::NEVER,
                };
                index.upsert_until(RowId(id), vector, expires).unwrap();
                twin.upsert(id, vector, expires);
                twin.check_found(&*index, id, vector);
            }
            45..46 => {
                let batch: Vec<Row<'_>> = (0..40)
                    .map(|_| Row {
                        id: RowId(random.below(IDS) as u64),
                        vector: &pool[random.below(pool.len())],
                        expires: Expiry::NEVER,
                    })
                    .collect();
                index.upsert_batch(&batch).unwrap();
                for row in &batch {
                    twin.upsert(row.id.0, row.vector, row.expires);
                }
            }
            46..70 => {
                assert_eq!(index.remove(RowId(id)).unwrap(), twin.remove(id));
                assert!(!index.contains(RowId(id)));
            }
            70..71 => {
                now += 60;
                let past = Expiry::at_seconds(now);
                let removed = index.remove_expired(past).unwrap();
                assert_eq!(removed, twin.remove_expired(past));
            }
            _ => {
                let mut ask = Ask::new(&near(&mut random, vector, 0.35), 1 + random.below(8));
                ask.min_score = [-1.0, 0.8, 0.85, 0.9][random.below(4)];
                ask.now = Expiry::at_seconds(now);
                ask.only = (random.below(4) == 0).then(|| (random.next() % 5, 5));
                ask.exact = random.below(8) == 0;
                let audit = twin.check(&ask, &ask.of(&*index), &index.capability());
                if ask.min_score > -1.0 && !ask.exact {
                    found_of_near.merge(&audit);
                }
            }
        }
        assert_eq!(index.len(), twin.rows.len());
        if step % 400 == 399 {
            // An engine that learns how far to look does so from audits.
            let vectors: Vec<_> = (0..60)
                .map(|_| {
                    let vector = &pool[random.below(pool.len())];
                    near(&mut random, vector, 0.35)
                })
                .collect();
            let queries: Vec<_> = vectors
                .iter()
                .map(|vector| Query::new(vector, 4).above(0.8))
                .collect();
            index.audit(&queries).unwrap();
        }
        if step == STEPS / 2 || step == STEPS * 3 / 4 {
            index.settle();
            twin.check_reach(&*index);
            index = twin.restart::<S>(&*index);
            twin.check_reach(&*index);
        }
    }
    twin.check_reach(&*index);
    twin.check_content(&*index);
    println!("{}: {found_of_near:?}", index.capability().engine);
    assert!(found_of_near.neighbors > 500, "{found_of_near:?}");
    assert!(found_of_near.best_recall() >= 0.95, "{found_of_near:?}");
    assert!(found_of_near.recall() >= 0.95, "{found_of_near:?}");
}

on_every_engine! {
    every_short_run_agrees_with_the_naive_twin
    a_long_run_over_clustered_vectors_agrees_with_the_naive_twin
}
