//! An index that changes its structure while it is used.
//!
//! A partition grows past the limit in the middle of traffic: the graph is built aside, lookups go
//! on, writes made meanwhile are in the graph once it takes over. Then the partition shrinks again,
//! or is dropped with the build half done.
#![cfg(feature = "hnsw")]

use std::sync::atomic::{AtomicBool, Ordering};

use askonce_index::{
    AutoConfig, AutoIndex, BuildThread, FlatIndex, HnswConfig, HnswRsIndex, IndexKind, RowId,
    VectorIndex,
};

mod support;
use support::{Random, clustered, search};

const DIMENSION: usize = 32;

fn config(flat_limit: usize, build: BuildThread) -> AutoConfig {
    let hnsw = HnswConfig {
        links: 16,
        ef_construction: 60,
        build,
        ..HnswConfig::default()
    };
    AutoConfig {
        kind: IndexKind::Auto,
        flat_limit,
        shard_limit: 100_000,
        hnsw,
    }
}

#[test]
fn an_index_becomes_a_graph_past_its_limit_and_flat_again_when_it_shrank() {
    let rows = clustered(&mut Random::new(1), 201, DIMENSION);
    let index = AutoIndex::new(DIMENSION, config(200, BuildThread::Caller)).unwrap();
    for (id, row) in (0..).zip(&rows) {
        assert!(index.capability().exact);
        index.upsert(RowId(id), row).unwrap();
    }
    assert!(!index.capability().exact);
    for id in 0..152 {
        assert!(!index.capability().exact);
        index.remove(RowId(id)).unwrap();
    }
    assert!(index.capability().exact);
    assert_eq!(index.len(), 49);
    for (id, row) in (0..).zip(&rows).skip(152) {
        assert_eq!(search(&index, row, 1)[0].id, RowId(id));
    }
}

#[test]
fn an_index_that_is_to_be_flat_stays_flat() {
    let flat = AutoConfig {
        kind: IndexKind::Flat,
        ..config(10, BuildThread::Caller)
    };
    let index = AutoIndex::new(DIMENSION, flat).unwrap();
    for (id, row) in (0..).zip(clustered(&mut Random::new(2), 100, DIMENSION)) {
        index.upsert(RowId(id), &row).unwrap();
    }
    assert!(index.capability().exact);
}

#[test]
fn no_write_is_lost_and_no_lookup_fails_while_the_structure_changes() {
    let mut random = Random::new(3);
    let rows = clustered(&mut random, 1500, DIMENSION);
    let index = AutoIndex::new(DIMENSION, config(400, BuildThread::Shared)).unwrap();
    for (id, row) in (0..400).zip(&rows) {
        index.upsert(RowId(id), row).unwrap();
    }
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut at = 0;
            while !done.load(Ordering::Relaxed) {
                let found = search(&index, &rows[at], 1);
                assert_eq!(
                    found[0].id,
                    RowId(at as u64),
                    "row {at} was lost in the move"
                );
                at = (at + 1) % 100;
            }
        });
        // The first of these begins the move; all go on during it. Rows below 100 are not written.
        for (id, row) in (400..).zip(&rows[400..]) {
            index.upsert(RowId(id), row).unwrap();
            let other = 100 + random.next() % 300;
            if id % 3 == 0 {
                index.remove(RowId(other)).unwrap();
            } else {
                index.upsert(RowId(other), &rows[other as usize]).unwrap();
            }
        }
        index.settle();
        done.store(true, Ordering::Relaxed);
        reader.join().unwrap();
    });
    assert!(!index.capability().exact);
    let mut held = Vec::new();
    index.for_each(&mut |row| held.push(row.id));
    assert_eq!(held.len(), index.len());
    assert!((400..1500).all(|id| index.contains(RowId(id))));
    for id in held {
        assert_eq!(search(&index, &rows[id.0 as usize], 1)[0].id, id);
    }
}

#[test]
fn an_index_dropped_during_its_move_holds_up_no_one() {
    let rows = clustered(&mut Random::new(4), 2000, DIMENSION);
    for _ in 0..3 {
        let index = AutoIndex::new(DIMENSION, config(400, BuildThread::Shared)).unwrap();
        for (id, row) in (0..).zip(&rows) {
            index.upsert(RowId(id), row).unwrap();
        }
    }
    // Work of another index comes next on the shared thread, and is done.
    let index = AutoIndex::new(DIMENSION, config(100, BuildThread::Shared)).unwrap();
    for (id, row) in (0..200).zip(&rows) {
        index.upsert(RowId(id), row).unwrap();
    }
    index.settle();
    assert!(!index.capability().exact);
}

#[test]
fn a_graph_finds_nearly_all_that_a_scan_finds() {
    let mut random = Random::new(5);
    let rows = clustered(&mut random, 3000, DIMENSION);
    let queries = clustered(&mut random, 200, DIMENSION);
    let graph = HnswConfig {
        build: BuildThread::Caller,
        ..HnswConfig::default()
    };
    let graph = HnswRsIndex::new(DIMENSION, graph).unwrap();
    let exact = FlatIndex::new(DIMENSION).unwrap();
    for (id, row) in (0..).zip(&rows) {
        graph.upsert(RowId(id), row).unwrap();
        exact.upsert(RowId(id), row).unwrap();
    }
    let mut found = 0;
    for query in &queries {
        let truth = search(&exact, query, 10);
        let answer = search(&graph, query, 10);
        found += truth
            .iter()
            .filter(|neighbor| answer.contains(neighbor))
            .count();
    }
    assert!(found >= 1960, "{found} of 2000");
}

#[test]
fn rows_that_are_all_alike_are_neither_lost_nor_built_for_ever() {
    let row = clustered(&mut Random::new(6), 1, DIMENSION).remove(0);
    let graph = HnswConfig {
        build: BuildThread::Caller,
        ..HnswConfig::default()
    };
    let index = HnswRsIndex::new(DIMENSION, graph).unwrap();
    for id in 0..600 {
        index.upsert(RowId(id), &row).unwrap();
    }
    let mut different = row.clone();
    different[0] += 0.5;
    index.upsert(RowId(600), &different).unwrap();
    assert_eq!(search(&index, &different, 1)[0].id, RowId(600));
    assert!(
        search(&index, &row, 100)
            .iter()
            .all(|neighbor| neighbor.score > 0.999_99)
    );
    for id in 0..500 {
        index.remove(RowId(id)).unwrap();
    }
    assert_eq!(search(&index, &row, 100).len(), 100);
}
