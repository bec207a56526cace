//! The promises of `VectorIndex`, each a named test, run over every engine.
//!
//! A new engine adds one line to the `contract!` list at the end and inherits every test. What an
//! approximate engine may do and an exact one may not is asked of the index itself.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use askonce_index::{
    AutoConfig, AutoIndex, FlatIndex, IndexError, Neighbor, RowId, SnapshotFault, VectorIndex,
    restore,
};
use proptest::prelude::*;

mod support;
use support::{Random, Twin, clustered, search};

const DIMENSION: usize = 24;

/// What the suite needs to know of an engine.
trait Subject {
    fn empty(dimension: usize) -> Result<Box<dyn VectorIndex>, IndexError>;
    fn restored(bytes: &[u8]) -> Result<Box<dyn VectorIndex>, IndexError>;

    fn filled(rows: &[Vec<f32>]) -> Box<dyn VectorIndex> {
        let index = Self::empty(rows[0].len()).unwrap();
        for (id, row) in (0..).zip(rows) {
            index.upsert(RowId(id), row).unwrap();
        }
        index
    }
}

fn unit(position: usize) -> Vec<f32> {
    let mut vector = vec![0.0; DIMENSION];
    vector[position] = 1.0;
    vector
}

fn an_empty_index_finds_nothing<S: Subject>() {
    let index = S::empty(DIMENSION).unwrap();
    assert!(index.is_empty());
    assert_eq!(index.len(), 0);
    assert_eq!(index.dimension(), DIMENSION);
    assert!(!index.contains(RowId(0)));
    assert!(search(&*index, &unit(0), 10).is_empty());
}

fn a_dimension_out_of_range_is_refused<S: Subject>() {
    for dimension in [0, askonce_index::MAX_DIMENSION + 1] {
        let error = S::empty(dimension).unwrap_err();
        assert!(
            matches!(error, IndexError::UnsupportedDimension { .. }),
            "{error}"
        );
    }
}

fn every_stored_vector_is_found_by_itself<S: Subject>() {
    let rows = clustered(&mut Random::new(1), 600, DIMENSION);
    let index = S::filled(&rows);
    for (id, row) in (0..).zip(&rows) {
        let found = search(&*index, row, 1);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].id, RowId(id));
        assert!(found[0].score > 0.999_99, "{found:?}");
    }
}

fn a_row_is_found_as_soon_as_upsert_returns<S: Subject>() {
    let rows = clustered(&mut Random::new(2), 600, DIMENSION);
    let index = S::empty(DIMENSION).unwrap();
    for (id, row) in (0..).zip(&rows) {
        index.upsert(RowId(id), row).unwrap();
        assert_eq!(search(&*index, row, 1)[0].id, RowId(id));
    }
}

fn scores_are_cosines_of_vectors_of_any_length<S: Subject>() {
    let index = S::empty(2).unwrap();
    index.upsert(RowId(1), &[300.0, 400.0]).unwrap();
    index.upsert(RowId(2), &[-1e-30, 0.0]).unwrap();
    let found = search(&*index, &[2e30, 0.0], 5);
    assert_eq!(
        found.iter().map(|n| n.id).collect::<Vec<_>>(),
        [RowId(1), RowId(2)]
    );
    assert!((found[0].score - 0.6).abs() < 1e-6);
    assert!((found[1].score + 1.0).abs() < 1e-6);
}

fn scores_stay_within_a_cosine<S: Subject>() {
    let rows = clustered(&mut Random::new(3), 300, DIMENSION);
    let index = S::filled(&rows);
    for row in &rows {
        for sign in [1.0, -1.0] {
            let query: Vec<f32> = row.iter().map(|x| x * sign).collect();
            for neighbor in search(&*index, &query, rows.len()) {
                assert!((-1.0..=1.0).contains(&neighbor.score), "{neighbor:?}");
            }
        }
    }
}

fn a_vector_of_unit_length_is_kept_bit_for_bit<S: Subject>() {
    let rows = clustered(&mut Random::new(4), 50, DIMENSION);
    let index = S::filled(&rows);
    let mut seen = 0;
    index.for_each(&mut |row| {
        assert_eq!(row.vector, &rows[row.id.0 as usize][..]);
        seen += 1;
    });
    assert_eq!(seen, rows.len());
}

fn results_are_appended_best_first_with_ties_by_id<S: Subject>() {
    let index = S::empty(DIMENSION).unwrap();
    for id in [5, 3, 9, 1] {
        index.upsert(RowId(id), &unit(0)).unwrap();
    }
    index.upsert(RowId(0), &unit(1)).unwrap();
    let kept = Neighbor {
        id: RowId(42),
        score: -2.0,
    };
    let mut out = vec![kept];
    index.search(&unit(0), 5, &mut out).unwrap();
    let ids: Vec<u64> = out.iter().map(|neighbor| neighbor.id.0).collect();
    assert_eq!(ids, [42, 1, 3, 5, 9, 0]);
    assert_eq!(out[0], kept);
    out.clear();
    index.search(&unit(0), 2, &mut out).unwrap();
    assert_eq!(out.iter().map(|n| n.id.0).collect::<Vec<_>>(), [1, 3]);
}

fn k_may_be_zero_or_larger_than_the_index<S: Subject>() {
    let rows = clustered(&mut Random::new(5), 300, DIMENSION);
    let index = S::filled(&rows);
    assert!(search(&*index, &rows[0], 0).is_empty());
    for k in [1, 7, 100, 299, 300, 301, usize::MAX] {
        let found = search(&*index, &rows[0], k);
        assert_eq!(found.len(), k.min(rows.len()));
        let mut ids: Vec<RowId> = found.iter().map(|neighbor| neighbor.id).collect();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), found.len(), "an id was returned twice");
    }
}

fn unusable_vectors_are_refused_and_change_nothing<S: Subject>() {
    let index = S::empty(DIMENSION).unwrap();
    index.upsert(RowId(1), &unit(0)).unwrap();
    let mut nan = unit(0);
    nan[3] = f32::NAN;
    let mut infinite = unit(0);
    infinite[4] = f32::NEG_INFINITY;
    type Expected = fn(&IndexError) -> bool;
    let cases: [(Vec<f32>, Expected); 5] = [
        (vec![1.0; DIMENSION + 1], |error| {
            matches!(
                error,
                IndexError::WrongDimension {
                    expected: DIMENSION,
                    actual: 25
                }
            )
        }),
        (vec![], |error| {
            matches!(
                error,
                IndexError::WrongDimension {
                    expected: DIMENSION,
                    actual: 0
                }
            )
        }),
        (nan, |error| {
            matches!(error, IndexError::NotFinite { position: 3 })
        }),
        (infinite, |error| {
            matches!(error, IndexError::NotFinite { position: 4 })
        }),
        (vec![0.0; DIMENSION], |error| {
            matches!(error, IndexError::ZeroVector)
        }),
    ];
    for (vector, expected) in cases {
        for id in [1, 2] {
            let error = index.upsert(RowId(id), &vector).unwrap_err();
            assert!(expected(&error), "{error}");
        }
        let mut out = vec![Neighbor {
            id: RowId(7),
            score: 0.5,
        }];
        let error = index.search(&vector, 3, &mut out).unwrap_err();
        assert!(expected(&error), "{error}");
        assert_eq!(out.len(), 1);
    }
    assert_eq!(index.len(), 1);
    assert_eq!(
        search(&*index, &unit(0), 3),
        [Neighbor {
            id: RowId(1),
            score: 1.0
        }]
    );
}

fn a_removed_row_is_never_found<S: Subject>() {
    let rows = clustered(&mut Random::new(6), 500, DIMENSION);
    let index = S::filled(&rows);
    for id in (0..500).step_by(2) {
        assert!(index.remove(RowId(id)).unwrap());
        assert!(!index.remove(RowId(id)).unwrap(), "removed twice");
        assert!(!index.contains(RowId(id)));
    }
    assert_eq!(index.len(), 250);
    for row in &rows {
        let found = search(&*index, row, 20);
        assert_eq!(found.len(), 20);
        assert!(
            found.iter().all(|neighbor| neighbor.id.0 % 2 == 1),
            "{found:?}"
        );
    }
    for id in 0..500 {
        index.remove(RowId(id)).unwrap();
    }
    assert!(index.is_empty());
    assert!(search(&*index, &rows[0], 3).is_empty());
}

fn removing_an_absent_row_changes_nothing<S: Subject>() {
    let index = S::empty(DIMENSION).unwrap();
    assert!(!index.remove(RowId(1)).unwrap());
    index.upsert(RowId(1), &unit(0)).unwrap();
    assert!(!index.remove(RowId(2)).unwrap());
    assert_eq!(index.len(), 1);
}

fn an_update_replaces_the_vector<S: Subject>() {
    let mut random = Random::new(7);
    let old = clustered(&mut random, 300, DIMENSION);
    let new = clustered(&mut random, 300, DIMENSION);
    let index = S::filled(&old);
    for (id, row) in (0..).zip(&new) {
        index.upsert(RowId(id), row).unwrap();
    }
    assert_eq!(index.len(), 300);
    for (id, (old, new)) in (0..).zip(old.iter().zip(&new)) {
        assert_eq!(search(&*index, new, 1)[0].id, RowId(id));
        for neighbor in search(&*index, old, 10) {
            let cosine = support::cosine(old, &new[..]);
            if neighbor.id == RowId(id) {
                assert!((f64::from(neighbor.score) - cosine).abs() < 1e-5);
            }
        }
    }
}

fn a_removed_id_can_be_inserted_again<S: Subject>() {
    let index = S::empty(DIMENSION).unwrap();
    for round in 0..50 {
        let vector = unit(round % DIMENSION);
        index.upsert(RowId(8), &vector).unwrap();
        index
            .upsert(RowId(9), &unit((round + 1) % DIMENSION))
            .unwrap();
        assert_eq!(
            search(&*index, &vector, 1),
            [Neighbor {
                id: RowId(8),
                score: 1.0
            }]
        );
        assert!(index.remove(RowId(8)).unwrap());
        assert_eq!(search(&*index, &vector, 1)[0].id, RowId(9));
    }
    assert_eq!(index.len(), 1);
}

fn memory_is_given_back_when_rows_go<S: Subject>() {
    let rows = clustered(&mut Random::new(8), 1500, DIMENSION);
    let index = S::filled(&rows);
    let full = index.bytes();
    index.settle();
    assert!(full >= rows.len() * DIMENSION * 4);
    for id in 0..1490 {
        index.remove(RowId(id)).unwrap();
    }
    index.settle();
    assert!(
        index.bytes() < full / 4,
        "{} of {full} bytes are kept",
        index.bytes()
    );
}

fn a_snapshot_restores_the_same_rows_and_answers<S: Subject>() {
    let rows = clustered(&mut Random::new(9), 400, DIMENSION);
    let index = S::filled(&rows);
    index.remove(RowId(17)).unwrap();
    let mut bytes = Vec::new();
    index.snapshot(&mut bytes).unwrap();
    for restored in [
        S::restored(&bytes).unwrap(),
        restore(&mut bytes.as_slice()).unwrap(),
    ] {
        assert_eq!(restored.len(), 399);
        assert_eq!(restored.dimension(), DIMENSION);
        assert!(!restored.contains(RowId(17)));
        restored.for_each(&mut |row| assert_eq!(row.vector, &rows[row.id.0 as usize][..]));
        for (id, row) in (0..).zip(&rows).filter(|&(id, _)| id != 17) {
            assert_eq!(search(&*restored, row, 1)[0].id, RowId(id));
        }
    }
}

fn a_snapshot_of_an_empty_index_restores<S: Subject>() {
    let mut bytes = Vec::new();
    S::empty(DIMENSION).unwrap().snapshot(&mut bytes).unwrap();
    let restored = S::restored(&bytes).unwrap();
    assert!(restored.is_empty());
    restored.upsert(RowId(1), &unit(0)).unwrap();
    assert_eq!(search(&*restored, &unit(0), 1)[0].id, RowId(1));
}

fn a_restore_reads_no_byte_past_the_snapshot<S: Subject>() {
    let index = S::filled(&[unit(0), unit(1)]);
    let mut bytes = Vec::new();
    index.snapshot(&mut bytes).unwrap();
    bytes.extend_from_slice(b"next");
    let mut reader = bytes.as_slice();
    restore(&mut reader).unwrap();
    assert_eq!(reader, b"next");
}

fn a_damaged_snapshot_is_refused<S: Subject>() {
    let index = S::filled(&clustered(&mut Random::new(10), 3, DIMENSION));
    let mut bytes = Vec::new();
    index.snapshot(&mut bytes).unwrap();
    for cut in 0..bytes.len() {
        let error = S::restored(&bytes[..cut]).unwrap_err();
        let truncated = matches!(
            error,
            IndexError::Snapshot {
                fault: SnapshotFault::Truncated
            }
        );
        assert!(truncated, "cut at {cut}: {error}");
    }
    for at in 0..bytes.len() {
        for bit in [0, 3, 7] {
            bytes[at] ^= 1 << bit;
            let error = S::restored(&bytes).unwrap_err();
            let fits = match at {
                0..8 => matches!(
                    error,
                    IndexError::Snapshot {
                        fault: SnapshotFault::BadMagic
                    }
                ),
                8..10 => matches!(
                    error,
                    IndexError::Snapshot {
                        fault: SnapshotFault::UnknownVersion { .. }
                    }
                ),
                _ => matches!(
                    error,
                    IndexError::Snapshot {
                        fault: SnapshotFault::ChecksumMismatch
                    }
                ),
            };
            assert!(fits, "bit {bit} of byte {at}: {error}");
            bytes[at] ^= 1 << bit;
        }
    }
    S::restored(&bytes).unwrap();
}

/// Fails on the first use, as a full disk or a lost connection does.
struct Broken;

impl Write for Broken {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(ErrorKind::StorageFull.into())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Broken {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(ErrorKind::ConnectionReset.into())
    }
}

fn a_failing_reader_or_writer_is_told_as_such<S: Subject>() {
    let index = S::filled(&[unit(0)]);
    let error = index.snapshot(&mut Broken).unwrap_err();
    assert!(matches!(error, IndexError::Io { source } if source.kind() == ErrorKind::StorageFull));
    let error = restore(&mut Broken).unwrap_err();
    assert!(
        matches!(error, IndexError::Io { source } if source.kind() == ErrorKind::ConnectionReset)
    );
}

/// One thread inserts, updates and removes; two others search. What a search may see is told by
/// ids: rows below 200 never change, rows from 1000 on were removed before the threads began.
fn searches_during_writes_see_whole_rows_only<S: Subject>() {
    let mut random = Random::new(11);
    let fixed = clustered(&mut random, 200, DIMENSION);
    let moving = clustered(&mut random, 400, DIMENSION);
    let index = S::filled(&fixed);
    for id in 1000..1050 {
        index.upsert(RowId(id), &unit(0)).unwrap();
        index.remove(RowId(id)).unwrap();
    }
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|reader| {
                let (index, fixed, moving, done) = (&*index, &fixed, &moving, &done);
                scope.spawn(move || {
                    let mut searches = 0usize;
                    let mut out = Vec::new();
                    while !done.load(Ordering::Relaxed) || searches < 500 {
                        let at = (searches * 7 + reader) % fixed.len();
                        out.clear();
                        index.search(&fixed[at], 5, &mut out).unwrap();
                        assert_eq!(out.len(), 5);
                        assert!(out[0].score > 0.999_99, "row {at} was lost: {out:?}");
                        for neighbor in &out {
                            let row = match neighbor.id.0 {
                                id @ 0..200 => &fixed[id as usize],
                                id @ 200..600 => &moving[id as usize - 200],
                                id => panic!("row {id} is back from the dead"),
                            };
                            let cosine = support::cosine(&fixed[at], row);
                            assert!((f64::from(neighbor.score) - cosine).abs() < 1e-5);
                        }
                        searches += 1;
                    }
                })
            })
            .collect();
        for round in 0..3 {
            for (id, row) in (200..).zip(&moving) {
                index.upsert(RowId(id), row).unwrap();
                if (id + round) % 3 == 0 && id >= 250 {
                    index.remove(RowId(id - 50)).unwrap();
                }
            }
        }
        done.store(true, Ordering::Relaxed);
        for reader in readers {
            reader.join().unwrap();
        }
    });
}

fn writers_of_different_rows_do_not_disturb_each_other<S: Subject>() {
    let rows = clustered(&mut Random::new(12), 400, DIMENSION);
    let index = S::empty(DIMENSION).unwrap();
    std::thread::scope(|scope| {
        for part in 0..4 {
            let (index, rows) = (&*index, &rows);
            scope.spawn(move || {
                for id in (part..400).step_by(4) {
                    index.upsert(RowId(id as u64), &rows[id]).unwrap();
                    if id % 5 == 0 {
                        assert!(index.remove(RowId(id as u64)).unwrap());
                    }
                }
            });
        }
    });
    assert_eq!(index.len(), 320);
    for (id, row) in rows.iter().enumerate() {
        assert_eq!(index.contains(RowId(id as u64)), id % 5 != 0);
        assert_eq!(
            search(&*index, row, 1)[0].id == RowId(id as u64),
            id % 5 != 0
        );
    }
}

#[derive(Clone, Debug)]
enum Step {
    Upsert { id: u64, vector: Vec<f32> },
    Remove { id: u64 },
    Search { query: Vec<f32>, k: usize },
    Restore,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    // Few ids and few values, so that updates, removals and equal scores are frequent.
    let vector = || {
        prop::collection::vec((-2i8..3).prop_map(f32::from), 6)
            .prop_filter("has a direction", |vector| vector.iter().any(|&x| x != 0.0))
    };
    let step = prop_oneof![
        6 => (0..40u64, vector()).prop_map(|(id, vector)| Step::Upsert { id, vector }),
        3 => (0..40u64).prop_map(|id| Step::Remove { id }),
        4 => (vector(), 0..50usize).prop_map(|(query, k)| Step::Search { query, k }),
        1 => Just(Step::Restore),
    ];
    prop::collection::vec(step, 1..120)
}

/// Random writes and searches against a plain map that computes cosines in f64.
fn every_run_of_steps_agrees_with_the_naive_twin<S: Subject>() {
    let config = ProptestConfig {
        cases: 64,
        failure_persistence: None,
        ..Default::default()
    };
    proptest!(config, |(steps in steps())| {
        let mut index = S::empty(6).unwrap();
        let mut twin = Twin::default();
        for step in &steps {
            match step {
                Step::Upsert { id, vector } => {
                    index.upsert(RowId(*id), vector).unwrap();
                    twin.upsert(*id, vector);
                }
                Step::Remove { id } => {
                    prop_assert_eq!(index.remove(RowId(*id)).unwrap(), twin.remove(*id));
                }
                Step::Search { query, k } => {
                    let found = search(&*index, query, *k);
                    twin.check(&found, query, *k, !index.capability().exact);
                }
                Step::Restore => {
                    let mut bytes = Vec::new();
                    index.snapshot(&mut bytes).unwrap();
                    index = S::restored(&bytes).unwrap();
                }
            }
            prop_assert_eq!(index.len(), twin.rows.len());
        }
        let mut held = HashMap::new();
        index.for_each(&mut |row| *held.entry(row.id.0).or_insert(0) += 1);
        prop_assert_eq!(held.len(), twin.rows.len());
        prop_assert!(held.iter().all(|(id, &times)| times == 1 && twin.rows.contains_key(id)));
    });
}

macro_rules! contract {
    ($($engine:ident: $subject:ty;)*) => {$(
        mod $engine {
            use super::*;

            contract!(@tests $subject:
                an_empty_index_finds_nothing
                a_dimension_out_of_range_is_refused
                every_stored_vector_is_found_by_itself
                a_row_is_found_as_soon_as_upsert_returns
                scores_are_cosines_of_vectors_of_any_length
                scores_stay_within_a_cosine
                a_vector_of_unit_length_is_kept_bit_for_bit
                results_are_appended_best_first_with_ties_by_id
                k_may_be_zero_or_larger_than_the_index
                unusable_vectors_are_refused_and_change_nothing
                a_removed_row_is_never_found
                removing_an_absent_row_changes_nothing
                an_update_replaces_the_vector
                a_removed_id_can_be_inserted_again
                memory_is_given_back_when_rows_go
                a_snapshot_restores_the_same_rows_and_answers
                a_snapshot_of_an_empty_index_restores
                a_restore_reads_no_byte_past_the_snapshot
                a_damaged_snapshot_is_refused
                a_failing_reader_or_writer_is_told_as_such
                searches_during_writes_see_whole_rows_only
                writers_of_different_rows_do_not_disturb_each_other
                every_run_of_steps_agrees_with_the_naive_twin
            );
        }
    )*};
    (@tests $subject:ty: $($test:ident)*) => {$(
        #[test]
        fn $test() {
            super::$test::<$subject>();
        }
    )*};
}

struct Flat;

impl Subject for Flat {
    fn empty(dimension: usize) -> Result<Box<dyn VectorIndex>, IndexError> {
        Ok(Box::new(FlatIndex::new(dimension)?))
    }
    fn restored(mut bytes: &[u8]) -> Result<Box<dyn VectorIndex>, IndexError> {
        Ok(Box::new(FlatIndex::restore(&mut bytes)?))
    }
}

/// An automatic index under some settings.
trait AutoSettings {
    fn config() -> AutoConfig;
}

impl<S: AutoSettings> Subject for S {
    fn empty(dimension: usize) -> Result<Box<dyn VectorIndex>, IndexError> {
        Ok(Box::new(AutoIndex::new(dimension, S::config())?))
    }
    fn restored(mut bytes: &[u8]) -> Result<Box<dyn VectorIndex>, IndexError> {
        Ok(Box::new(AutoIndex::restore(&mut bytes, S::config())?))
    }
}

/// Flat at the sizes of this suite.
struct AutoAtDefaults;

impl AutoSettings for AutoAtDefaults {
    fn config() -> AutoConfig {
        AutoConfig::default()
    }
}

contract! {
    flat: Flat;
    auto_at_defaults: AutoAtDefaults;
}

#[cfg(feature = "hnsw")]
mod graphs {
    use askonce_index::{BuildThread, HnswConfig, HnswRsIndex, IndexKind};

    use super::*;

    /// A graph whose work is done by the writer, so that the tests see it done.
    struct Hnsw;

    impl Subject for Hnsw {
        fn empty(dimension: usize) -> Result<Box<dyn VectorIndex>, IndexError> {
            Ok(Box::new(HnswRsIndex::new(
                dimension,
                by(BuildThread::Caller),
            )?))
        }
        fn restored(mut bytes: &[u8]) -> Result<Box<dyn VectorIndex>, IndexError> {
            Ok(Box::new(HnswRsIndex::restore(
                &mut bytes,
                by(BuildThread::Caller),
            )?))
        }
    }

    /// A graph whose work goes on beside the tests.
    struct HnswInBackground;

    impl Subject for HnswInBackground {
        fn empty(dimension: usize) -> Result<Box<dyn VectorIndex>, IndexError> {
            Ok(Box::new(HnswRsIndex::new(
                dimension,
                by(BuildThread::Shared),
            )?))
        }
        fn restored(mut bytes: &[u8]) -> Result<Box<dyn VectorIndex>, IndexError> {
            Ok(Box::new(HnswRsIndex::restore(
                &mut bytes,
                by(BuildThread::Shared),
            )?))
        }
    }

    fn by(build: BuildThread) -> HnswConfig {
        HnswConfig {
            links: 16,
            ef_construction: 60,
            build,
            ..HnswConfig::default()
        }
    }

    /// Moves to a graph, to several, and back, at the sizes of this suite.
    struct AutoGrowing;

    impl AutoSettings for AutoGrowing {
        fn config() -> AutoConfig {
            AutoConfig {
                kind: IndexKind::Auto,
                flat_limit: 64,
                shard_limit: 150,
                hnsw: by(BuildThread::Caller),
            }
        }
    }

    /// The same, moved by the shared thread while the tests write and search.
    struct AutoGrowingInBackground;

    impl AutoSettings for AutoGrowingInBackground {
        fn config() -> AutoConfig {
            AutoConfig {
                hnsw: by(BuildThread::Shared),
                ..AutoGrowing::config()
            }
        }
    }

    struct AutoAlwaysGraph;

    impl AutoSettings for AutoAlwaysGraph {
        fn config() -> AutoConfig {
            AutoConfig {
                kind: IndexKind::Hnsw,
                ..AutoGrowing::config()
            }
        }
    }

    contract! {
        hnsw: Hnsw;
        hnsw_in_background: HnswInBackground;
        auto_growing: AutoGrowing;
        auto_growing_in_background: AutoGrowingInBackground;
        auto_always_graph: AutoAlwaysGraph;
    }
}

#[cfg(feature = "faiss")]
#[path = "contract/faiss.rs"]
mod faiss;
