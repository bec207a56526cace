//! Indexes that change their structure while they are used.
//!
//! A partition grows past the limit in the middle of traffic: another structure is built aside, lookups
//! go on, and no write is lost between the two. Or the index is dropped with a build half done.

use std::sync::atomic::{AtomicBool, Ordering};

use askonce_index::{AutoConfig, AutoIndex, Expiry, Row, RowId, VectorIndex};

mod support;
use support::{Random, Twin, clustered, ids, search};

const DIMENSION: usize = 32;

fn limited(flat_limit: usize) -> AutoConfig {
    AutoConfig {
        flat_limit,
        ..AutoConfig::default()
    }
}

#[test]
fn an_index_is_exact_up_to_its_limit_and_free_of_locks_from_then_on() {
    let rows = clustered(&mut Random::new(1), 201, DIMENSION);
    let index = AutoIndex::new(DIMENSION, limited(200)).unwrap();
    for (id, row) in (0..).zip(&rows) {
        assert!(index.capability().exact);
        assert!(!index.capability().lock_free_reads);
        index.upsert(RowId(id), row).unwrap();
        index.upsert(RowId(id), row).unwrap();
    }
    assert!(!index.capability().exact);
    assert!(index.capability().lock_free_reads);
    assert_eq!(index.len(), 201);
    Twin::of(&rows).check_reach(&index);
    for id in 0..201 {
        assert!(index.remove(RowId(id)).unwrap());
    }
    assert!(index.is_empty());
    assert!(!index.capability().exact, "it went back");
    index.upsert(RowId(7), &rows[7]).unwrap();
    assert_eq!(ids(&search(&index, &rows[7], 3)), [7]);
}

#[test]
fn a_limit_of_zero_rows_is_no_flat_rows_at_all() {
    let index = AutoIndex::new(DIMENSION, limited(0)).unwrap();
    let rows = clustered(&mut Random::new(2), 1, DIMENSION);
    assert!(search(&index, &rows[0], 1).is_empty());
    index.upsert(RowId(1), &rows[0]).unwrap();
    assert!(!index.capability().exact);
    assert_eq!(ids(&search(&index, &rows[0], 1)), [1]);
}

#[test]
fn a_batch_grows_the_index_by_the_ids_that_are_new() {
    let rows = clustered(&mut Random::new(3), 100, DIMENSION);
    let index = AutoIndex::new(DIMENSION, limited(60)).unwrap();
    let batch: Vec<Row<'_>> = (0..100)
        .map(|at| Row {
            id: RowId(at as u64 % 60),
            vector: &rows[at],
            expires: Expiry::at_seconds(at as u64 + 1),
        })
        .collect();
    index.upsert_batch(&batch).unwrap();
    assert!(index.capability().exact);
    assert_eq!(index.len(), 60);
    index.upsert_batch(&batch[40..]).unwrap();
    assert!(index.capability().exact);
    index.upsert(RowId(60), &rows[60]).unwrap();
    assert!(!index.capability().exact);
    let mut twin = Twin::default();
    for row in &batch {
        twin.upsert(row.id.0, row.vector, row.expires);
    }
    twin.upsert(60, &rows[60], Expiry::NEVER);
    twin.check_content(&index);

    let index = AutoIndex::new(DIMENSION, limited(59)).unwrap();
    index.upsert(RowId(3), &rows[9]).unwrap();
    index.upsert_batch(&batch).unwrap();
    assert!(!index.capability().exact);
    twin.remove(60);
    twin.check_content(&index);
    twin.check_reach(&index);
}

#[test]
fn an_index_restored_above_its_limit_has_grown() {
    let rows = clustered(&mut Random::new(4), 120, DIMENSION);
    let index = AutoIndex::new(DIMENSION, limited(200)).unwrap();
    for (id, row) in (0..).zip(&rows) {
        index.upsert(RowId(id), row).unwrap();
    }
    let mut bytes = Vec::new();
    index.snapshot(&mut bytes).unwrap();
    for (limit, exact) in [(120, true), (119, false)] {
        let restored = AutoIndex::restore(&mut bytes.as_slice(), limited(limit)).unwrap();
        assert_eq!(restored.capability().exact, exact);
        Twin::of(&rows).check_reach(&restored);
    }
}

#[test]
fn no_write_is_lost_and_no_lookup_fails_while_the_structure_changes() {
    // Many small indexes, each of which moves once in the middle of the traffic.
    for seed in 0..20 {
        let mut random = Random::new(seed);
        let rows = clustered(&mut random, 600, DIMENSION);
        let index = AutoIndex::new(DIMENSION, limited(300)).unwrap();
        for (id, row) in (0..100).zip(&rows) {
            index.upsert(RowId(id), row).unwrap();
        }
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            // Rows below 100 are only read.
            let reader = scope.spawn(|| {
                let mut at = 0;
                while !done.load(Ordering::Relaxed) {
                    let found = search(&index, &rows[at], 1);
                    assert_eq!(ids(&found), [at as u64], "row {at} was lost in the move");
                    assert!(index.len() >= 100);
                    assert!(index.contains(RowId(at as u64)));
                    at = (at + 1) % 100;
                }
            });
            // Two writers, one of which begins the move. Each removes a third of what it wrote.
            let writers: Vec<_> = (0..2)
                .map(|part| {
                    let (index, rows) = (&index, &rows);
                    scope.spawn(move || {
                        for id in (100 + part..600).step_by(2) {
                            index.upsert(RowId(id as u64), &rows[id]).unwrap();
                            if id % 3 == 0 {
                                assert!(index.remove(RowId(id as u64)).unwrap());
                            }
                        }
                    })
                })
                .collect();
            for writer in writers {
                writer.join().unwrap();
            }
            done.store(true, Ordering::Relaxed);
            reader.join().unwrap();
        });
        assert!(!index.capability().exact);
        let mut twin = Twin::of(&rows);
        for id in (100..600).filter(|id| id % 3 == 0) {
            twin.remove(id);
        }
        twin.check_content(&index);
        twin.check_reach(&index);
    }
}

#[cfg(feature = "hnsw")]
mod graphs {
    use askonce_index::{BuildThread, FlatIndex, HnswConfig, HnswRsIndex};

    use super::*;

    fn built_by(build: BuildThread, seal_rows: usize) -> HnswConfig {
        HnswConfig {
            links: 16,
            ef_construction: 60,
            seal_rows,
            build,
            ..HnswConfig::default()
        }
    }

    #[test]
    fn a_graph_is_built_once_enough_rows_wait_for_it() {
        let rows = clustered(&mut Random::new(11), 400, DIMENSION);
        let config = built_by(BuildThread::Caller, 100);
        let index = HnswRsIndex::new(DIMENSION, config).unwrap();
        let mut builds = 0;
        for (id, row) in (0..).zip(&rows) {
            let before = index.backlog().waiting;
            index.upsert(RowId(id), row).unwrap();
            let now = index.backlog().waiting;
            assert!(now == before + 1 || now == 0, "{before}, then {now}");
            builds += usize::from(now == 0);
            assert!(now < 100);
        }
        assert_eq!(builds, 4);
        // Below a quarter of the rows in the graph another one has to wait.
        let config = built_by(BuildThread::Caller, 1);
        let index = HnswRsIndex::new(DIMENSION, config).unwrap();
        let mut builds = 0;
        for (id, row) in (0..).zip(&rows) {
            index.upsert(RowId(id), row).unwrap();
            builds += usize::from(index.backlog().waiting == 0);
        }
        assert!((20..40).contains(&builds), "{builds} builds");
        index.settle();
        assert_eq!(index.backlog(), askonce_index::Backlog::default());
    }

    #[test]
    fn removed_rows_are_dead_nodes_until_a_graph_without_them_is_built() {
        let rows = clustered(&mut Random::new(12), 400, DIMENSION);
        let config = built_by(BuildThread::Caller, 400);
        let index = HnswRsIndex::new(DIMENSION, config).unwrap();
        for (id, row) in (0..).zip(&rows) {
            index.upsert(RowId(id), row).unwrap();
        }
        let mut most = 0;
        for id in 0..300 {
            index.remove(RowId(id)).unwrap();
            most = most.max(index.backlog().dead);
            let found = search(&index, &rows[id as usize], 5);
            assert_eq!(found.len(), 5);
            assert!(found.iter().all(|neighbor| neighbor.id.0 > id));
        }
        assert!((100..=125).contains(&most), "{most} dead nodes");
        index.settle();
        assert_eq!(index.backlog().dead, 0);
    }

    #[test]
    fn a_row_that_is_written_again_as_it_was_keeps_its_place() {
        let rows = clustered(&mut Random::new(13), 200, DIMENSION);
        let config = built_by(BuildThread::Caller, 200);
        let index = HnswRsIndex::new(DIMENSION, config).unwrap();
        for _ in 0..3 {
            for (id, row) in (0..).zip(&rows) {
                index.upsert(RowId(id), row).unwrap();
            }
            assert_eq!(index.backlog(), askonce_index::Backlog::default());
        }
    }

    #[test]
    fn writes_during_a_build_are_neither_lost_nor_undone_by_it() {
        let mut random = Random::new(14);
        let rows = clustered(&mut random, 1500, DIMENSION);
        let config = built_by(BuildThread::Shared, 200);
        let index = HnswRsIndex::new(DIMENSION, config).unwrap();
        let mut twin = Twin::default();
        for (id, row) in (0..).zip(&rows) {
            index.upsert(RowId(id), row).unwrap();
            twin.upsert(id, row, Expiry::NEVER);
            let other = random.below(id as usize + 1) as u64;
            if id % 3 == 0 {
                assert_eq!(index.remove(RowId(other)).unwrap(), twin.remove(other));
            } else {
                let row = &rows[random.below(1500)];
                index.upsert(RowId(other), row).unwrap();
                twin.upsert(other, row, Expiry::NEVER);
                twin.check_found(&index, other, row);
            }
        }
        twin.check_reach(&index);
        index.settle();
        assert_eq!(index.backlog(), askonce_index::Backlog::default());
        twin.check_reach(&index);
        twin.check_content(&index);
    }

    #[test]
    fn an_index_dropped_during_a_build_holds_up_no_one() {
        let rows = clustered(&mut Random::new(15), 2000, DIMENSION);
        for _ in 0..3 {
            let config = built_by(BuildThread::Shared, 1000);
            let index = HnswRsIndex::new(DIMENSION, config).unwrap();
            for (id, row) in (0..).zip(&rows) {
                index.upsert(RowId(id), row).unwrap();
            }
        }
        // Work of another index comes next on the shared thread, and is done.
        let config = built_by(BuildThread::Shared, 100);
        let index = HnswRsIndex::new(DIMENSION, config).unwrap();
        for (id, row) in (0..100).zip(&rows) {
            index.upsert(RowId(id), row).unwrap();
        }
        while index.backlog().waiting > 0 {
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_graph_finds_nearly_all_that_a_scan_finds() {
        let mut random = Random::new(16);
        let rows = clustered(&mut random, 3000, DIMENSION);
        let queries = clustered(&mut random, 200, DIMENSION);
        let graph = HnswRsIndex::new(DIMENSION, HnswConfig::default()).unwrap();
        let exact = FlatIndex::new(DIMENSION).unwrap();
        for (id, row) in (0..).zip(&rows) {
            graph.upsert(RowId(id), row).unwrap();
            exact.upsert(RowId(id), row).unwrap();
        }
        graph.settle();
        let mut found = 0;
        for query in &queries {
            let truth = search(&exact, query, 10);
            let answer = search(&graph, query, 10);
            found += truth.iter().filter(|one| answer.contains(one)).count();
        }
        assert!(found >= 1960, "{found} of 2000");
    }

    /// The walk is widened until enough rows may answer, and gives way to a scan if few do.
    #[test]
    fn a_filter_leaves_no_search_short_of_rows_that_may_answer() {
        let mut random = Random::new(17);
        let rows = clustered(&mut random, 3000, DIMENSION);
        let graph = HnswRsIndex::new(DIMENSION, HnswConfig::default()).unwrap();
        for (id, row) in (0..).zip(&rows) {
            graph.upsert(RowId(id), row).unwrap();
        }
        graph.settle();
        let twin = Twin::of(&rows);
        let mut audit = askonce_index::Audit::default();
        for by in [2, 7, 40, 300, 1000] {
            for row in rows.iter().step_by(60) {
                let mut ask = support::Ask::new(row, 3);
                ask.only = Some((1, by));
                let found = ask.of(&graph);
                assert_eq!(found.len(), 3, "one of {by}");
                audit.merge(&twin.check(&ask, &found, &graph.capability()));
            }
        }
        assert!(audit.recall() >= 0.98, "{audit:?}");
    }

    #[test]
    fn rows_that_are_all_alike_are_neither_lost_nor_built_for_ever() {
        let row = clustered(&mut Random::new(18), 1, DIMENSION).remove(0);
        let config = built_by(BuildThread::Caller, 50);
        let index = HnswRsIndex::new(DIMENSION, config).unwrap();
        for id in 0..600 {
            index.upsert(RowId(id), &row).unwrap();
        }
        let mut different = row.clone();
        different[0] += 0.5;
        index.upsert(RowId(600), &different).unwrap();
        assert_eq!(ids(&search(&index, &different, 1)), [600]);
        let found = search(&index, &row, 100);
        assert!(found.iter().all(|neighbor| neighbor.score > 0.999_99));
        for id in 0..500 {
            index.remove(RowId(id)).unwrap();
        }
        assert_eq!(search(&index, &row, 100).len(), 100);
    }
}
