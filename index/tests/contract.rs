//! The promises of `VectorIndex`, each a named test, run over every engine of `support/engines.rs`.
//!
//! What an engine claims in its `Capability` it is held to; what it does not claim is not asked.

use std::io::{self, ErrorKind, Read, Write};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use askonce_index::{
    Audit, Backlog, Expiry, IndexError, Neighbor, Query, Row, RowId, SnapshotFault, VectorIndex,
    restore,
};

mod support;
use support::engines::{Subject, on_every_engine};
use support::{Ask, Random, Twin, clustered, ids, near, normalized, search};

const DIMENSION: usize = 24;

/// Below, at and above the widths that code words, vector registers and real models have.
const DIMENSIONS: [usize; 9] = [1, 2, 24, 63, 64, 65, 100, 128, 384];

fn unit(position: usize) -> Vec<f32> {
    let mut vector = vec![0.0; DIMENSION];
    vector[position] = 1.0;
    vector
}

fn at(seconds: u64) -> Expiry {
    Expiry::at_seconds(seconds)
}

fn row(id: u64, vector: &[f32]) -> Row<'_> {
    Row {
        id: RowId(id),
        vector,
        expires: Expiry::NEVER,
    }
}

/// Has an engine that learns from audits learn from these vectors.
fn teach(index: &dyn VectorIndex, vectors: &[Vec<f32>]) {
    let queries: Vec<Query<'_>> = vectors
        .iter()
        .map(|vector| Query::new(vector, 5).above(0.8))
        .collect();
    for _ in 0..3 {
        index.audit(&queries).unwrap();
    }
}

/// Every row of the index as it gives them out, by id.
fn content(index: &dyn VectorIndex) -> Vec<(u64, Vec<f32>, Expiry)> {
    let mut rows = Vec::new();
    index.for_each(&mut |row| rows.push((row.id.0, row.vector.to_vec(), row.expires)));
    rows.sort_by_key(|row| row.0);
    rows
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
        assert!(found[0].score >= 1.0 - 1e-5, "{found:?}");
    }
}

fn every_dimension_is_served<S: Subject>() {
    for dimension in DIMENSIONS {
        let mut random = Random::new(dimension as u64);
        let rows = clustered(&mut random, 150, dimension);
        let twin = Twin::of(&rows);
        let index = S::filled(&rows);
        let capability = index.capability();
        twin.check_reach(&*index);
        for (at, row) in rows.iter().step_by(15).enumerate() {
            let mut ask = Ask::new(&near(&mut random, row, 0.4), 1 + at);
            twin.check(&ask, &ask.of(&*index), &capability);
            ask.exact = true;
            twin.check(&ask, &ask.of(&*index), &capability);
        }
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
    let error = index.capability().score_error;
    assert!((found[0].score - 0.6).abs() <= error);
    assert!((found[1].score + 1.0).abs() <= error);
}

/// A vector that counts as one of unit length and is not quite is kept as it is: the error that
/// the engine states has room for that.
fn scores_are_within_the_error_that_the_engine_states<S: Subject>() {
    for dimension in DIMENSIONS {
        let mut random = Random::new(100 + dimension as u64);
        let mut rows = clustered(&mut random, 60, dimension);
        for (at, row) in rows.iter_mut().enumerate() {
            let length = [1.0, 1.000_001_9, 0.999_998_1][at % 3];
            row.iter_mut().for_each(|x| *x *= length);
        }
        // One large component and many small ones are what few levels render worst.
        let mut spiked = vec![1e-3; dimension];
        spiked[0] = 1.0;
        rows.push(normalized(&spiked));
        let twin = Twin::of(&rows);
        let index = S::filled(&rows);
        for row in &rows {
            for exact in [false, true] {
                let mut ask = Ask::new(row, rows.len());
                ask.exact = exact;
                twin.check(&ask, &ask.of(&*index), &index.capability());
            }
        }
    }
}

fn a_score_is_the_same_however_the_row_was_found<S: Subject>() {
    let mut random = Random::new(21);
    let rows = clustered(&mut random, 400, DIMENSION);
    let index = S::filled(&rows);
    for row in rows.iter().step_by(8) {
        let query = near(&mut random, row, 0.4);
        let mut ask = Ask::new(&query, 10);
        let found = ask.of(&*index);
        ask.k = rows.len();
        ask.exact = true;
        let all = ask.of(&*index);
        for neighbor in found {
            assert!(all.contains(&neighbor), "{neighbor:?}");
        }
    }
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

fn every_row_is_given_out_once_as_near_as_the_engine_states<S: Subject>() {
    let rows = clustered(&mut Random::new(4), 300, DIMENSION);
    let index = S::filled(&rows);
    index.remove(RowId(40)).unwrap();
    index.upsert_until(RowId(41), &rows[40], at(9)).unwrap();
    let content = content(&*index);
    assert_eq!(content.len(), 299);
    let capability = index.capability();
    for (id, vector, expires) in content {
        let (given, until) = match id {
            40 => panic!("row 40 was removed"),
            41 => (&rows[40], at(9)),
            _ => (&rows[id as usize], Expiry::NEVER),
        };
        assert_eq!(expires, until);
        if capability.keeps_vectors {
            assert_eq!(&vector, given);
        } else {
            let cosine = support::cosine(&vector, given);
            assert!(
                cosine >= 1.0 - f64::from(capability.score_error),
                "{cosine}"
            );
        }
        let squared: f64 = vector.iter().map(|&x| f64::from(x).powi(2)).sum();
        assert!((squared - 1.0).abs() < 1e-5, "a row of length {squared}");
    }
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
    assert_eq!(ids(&out), [42, 1, 3, 5, 9, 0]);
    assert_eq!(out[0], kept);
    out.clear();
    index.search(&unit(0), 2, &mut out).unwrap();
    assert_eq!(ids(&out), [1, 3]);
}

fn an_exact_answer_lists_the_best_rows<S: Subject>() {
    let mut random = Random::new(22);
    let rows = clustered(&mut random, 700, DIMENSION);
    let twin = Twin::of(&rows);
    let index = S::filled(&rows);
    for (at, row) in rows.iter().step_by(10).enumerate() {
        let mut ask = Ask::new(&near(&mut random, row, 0.6), 1 + at % 20);
        ask.exact = true;
        twin.check(&ask, &ask.of(&*index), &index.capability());
    }
}

fn an_exact_index_answers_alike_whatever_the_order_of_the_writes<S: Subject>() {
    let mut random = Random::new(23);
    let rows = clustered(&mut random, 300, DIMENSION);
    let forward = S::filled(&rows);
    let backward = S::empty(DIMENSION).unwrap();
    for (id, row) in rows.iter().enumerate().rev() {
        let other = near(&mut random, row, 1.0);
        backward.upsert(RowId(id as u64), &other).unwrap();
    }
    for (id, row) in rows.iter().enumerate().rev() {
        if id % 3 == 0 {
            backward.remove(RowId(id as u64)).unwrap();
        }
        backward.upsert(RowId(id as u64), row).unwrap();
    }
    if !forward.capability().exact || !backward.capability().exact {
        return;
    }
    for row in &rows {
        let ask = Ask::new(&near(&mut random, row, 0.5), 7);
        assert_eq!(ask.of(&*forward), ask.of(&*backward));
    }
}

fn a_threshold_keeps_out_what_scores_below_it<S: Subject>() {
    let mut random = Random::new(24);
    let rows = clustered(&mut random, 600, DIMENSION);
    let twin = Twin::of(&rows);
    let index = S::filled(&rows);
    let capability = index.capability();
    let mut audit = Audit::default();
    teach(&*index, &rows);
    for (at, row) in rows.iter().step_by(5).enumerate() {
        for min_score in [-1.0, 0.0, 0.5, 0.8, 0.9, 0.99, 1.0] {
            let mut ask = Ask::new(&near(&mut random, row, 0.3), 1 + at % 5);
            ask.min_score = min_score;
            ask.exact = at % 4 == 0;
            let found = ask.of(&*index);
            audit.merge(&twin.check(&ask, &found, &capability));
            if !ask.exact {
                let mut above = Vec::new();
                let (vector, k) = (&ask.vector, ask.k);
                index
                    .search_above(vector, min_score, k, &mut above)
                    .unwrap();
                twin.check(&ask, &above, &capability);
            }
        }
    }
    assert!(audit.neighbors > 500, "{audit:?}");
    assert!(audit.recall() > 0.97, "{audit:?}");
}

fn no_threshold_is_out_of_reach_or_out_of_range<S: Subject>() {
    let rows = clustered(&mut Random::new(25), 200, DIMENSION);
    let index = S::filled(&rows);
    let above = |min_score: f32| {
        let mut ask = Ask::new(&rows[3], 500);
        ask.min_score = min_score;
        ask.of(&*index).len()
    };
    for everything in [f32::NAN, f32::NEG_INFINITY, -7.0, -1.0] {
        assert_eq!(above(everything), 200, "{everything}");
    }
    for nothing in [1.1, 40.0, f32::INFINITY] {
        assert_eq!(above(nothing), 0, "{nothing}");
    }
    // The row itself reaches a threshold as near to 1 as its score is promised to be.
    let mut out = Vec::new();
    index
        .search_above(&rows[3], 1.0 - 1e-5, 1, &mut out)
        .unwrap();
    assert_eq!(ids(&out), [3]);
}

fn a_filter_keeps_out_what_it_refuses<S: Subject>() {
    let mut random = Random::new(26);
    let rows = clustered(&mut random, 600, DIMENSION);
    let twin = Twin::of(&rows);
    let index = S::filled(&rows);
    let capability = index.capability();
    for (id, row) in rows.iter().enumerate().step_by(7) {
        for by in [1, 2, 10, 150, 600] {
            // Rows far from the query, and the nearest one.
            for rest in [3 % by, id as u64 % by] {
                let mut ask = Ask::new(row, 4);
                ask.only = Some((rest, by));
                let found = ask.of(&*index);
                twin.check(&ask, &found, &capability);
                if rest == id as u64 % by {
                    assert_eq!(found[0].id.0, id as u64, "one of {by}: {found:?}");
                }
                ask.exact = true;
                let found = ask.of(&*index);
                twin.check(&ask, &found, &capability);
                assert_eq!(found.len(), 4.min(600 / by as usize));
            }
        }
    }
    let mut ask = Ask::new(&rows[0], 4);
    ask.only = Some((1000, 1001));
    assert!(ask.of(&*index).is_empty());
}

fn an_expired_row_is_not_listed_and_is_held_until_it_is_removed<S: Subject>() {
    let rows = clustered(&mut Random::new(27), 300, DIMENSION);
    let index = S::empty(DIMENSION).unwrap();
    let mut twin = Twin::default();
    for (id, row) in (0..).zip(&rows) {
        // A third never expires, the others from second 100 on, each at its own.
        let expires = if id % 3 == 0 {
            Expiry::NEVER
        } else {
            at(100 + id)
        };
        index.upsert_until(RowId(id), row, expires).unwrap();
        twin.upsert(id, row, expires);
    }
    let capability = index.capability();
    for now in [
        Expiry::NEVER,
        at(1),
        at(100),
        at(101),
        at(250),
        at(399),
        at(5000),
    ] {
        for (id, row) in (0..).zip(&rows).step_by(11) {
            let mut ask = Ask::new(row, 5);
            ask.now = now;
            let found = ask.of(&*index);
            twin.check(&ask, &found, &capability);
            let (_, expires) = &twin.rows[&id];
            assert_eq!(ids(&found).contains(&id), !expires.is_past(now));
            ask.exact = true;
            twin.check(&ask, &ask.of(&*index), &capability);
        }
    }
    assert_eq!(index.remove_expired(Expiry::NEVER).unwrap(), 0);
    assert_eq!(index.remove_expired(at(100)).unwrap(), 0);
    assert_eq!(index.len(), 300);
    for now in [250, 250, 400] {
        let expected = twin.remove_expired(at(now));
        assert_eq!(index.remove_expired(at(now)).unwrap(), expected);
        assert_eq!(index.len(), twin.rows.len());
        for id in 0..300 {
            assert_eq!(index.contains(RowId(id)), twin.rows.contains_key(&id));
        }
        twin.check_reach(&*index);
    }
    assert_eq!(index.len(), 100);
}

fn an_update_replaces_the_expiry<S: Subject>() {
    let index = S::empty(DIMENSION).unwrap();
    let listed = |now| {
        let mut ask = Ask::new(&unit(0), 5);
        ask.now = at(now);
        !ask.of(&*index).is_empty()
    };
    index.upsert_until(RowId(1), &unit(0), at(10)).unwrap();
    assert!(listed(9) && !listed(10));
    index.upsert_until(RowId(1), &unit(0), at(20)).unwrap();
    assert!(listed(19) && !listed(20));
    index.upsert_until(RowId(1), &unit(0), at(5)).unwrap();
    assert!(listed(4) && !listed(5));
    index.upsert(RowId(1), &unit(0)).unwrap();
    assert!(listed(1 << 31));
    assert_eq!(index.remove_expired(at(1 << 31)).unwrap(), 0);
    assert_eq!(index.len(), 1);
}

fn a_batch_of_writes_does_what_the_writes_do<S: Subject>() {
    let mut random = Random::new(28);
    let rows = clustered(&mut random, 500, DIMENSION);
    let index = S::empty(DIMENSION).unwrap();
    let mut twin = Twin::default();
    index.upsert_batch(&[]).unwrap();
    assert!(index.is_empty());
    let mut written = 0;
    for size in [1, 3, 60, 200, 7, 200, 29] {
        // Half of a batch replaces rows, and one row comes twice: the later one counts.
        let mut batch: Vec<(u64, &[f32], Expiry)> = (0..size)
            .map(|at| {
                let row = &rows[(written + at) % 500];
                let id = random.below(written / 2 + size) as u64;
                (id, &row[..], Expiry::at_seconds(random.next() % 1000))
            })
            .collect();
        batch.push((batch[0].0, &rows[written % 500], at(7)));
        written += size;
        let batch: Vec<Row<'_>> = batch
            .into_iter()
            .map(|(id, vector, expires)| Row {
                id: RowId(id),
                vector,
                expires,
            })
            .collect();
        index.upsert_batch(&batch).unwrap();
        for row in &batch {
            twin.upsert(row.id.0, row.vector, row.expires);
        }
        assert_eq!(index.len(), twin.rows.len());
        twin.check_reach(&*index);
    }
    for (id, _, expires) in content(&*index) {
        assert_eq!(twin.rows[&id].1, expires);
    }
}

fn a_batch_with_one_bad_vector_writes_nothing<S: Subject>() {
    let rows = clustered(&mut Random::new(29), 100, DIMENSION);
    let index = S::filled(&rows[..50]);
    let before = content(&*index);
    let mut nan = unit(0);
    nan[5] = f32::NAN;
    for bad in [nan, vec![0.0; DIMENSION], vec![1.0; DIMENSION - 1]] {
        for place in [0, 20, 40] {
            let mut batch: Vec<Row<'_>> = (30..70).map(|id| row(id, &rows[99])).collect();
            batch.insert(place, row(31, &bad));
            let one = index.upsert(RowId(31), &bad).unwrap_err();
            let error = index.upsert_batch(&batch).unwrap_err();
            assert_eq!(error.to_string(), one.to_string());
            assert_eq!(index.len(), 50);
            assert_eq!(content(&*index), before);
        }
    }
}

fn a_batch_of_queries_is_answered_in_order<S: Subject>() {
    let mut random = Random::new(30);
    let rows = clustered(&mut random, 500, DIMENSION);
    let twin = Twin::of(&rows);
    let index = S::filled(&rows);
    let capability = index.capability();
    let asks: Vec<Ask> = (0..50)
        .map(|at| {
            let mut ask = Ask::new(&near(&mut random, &rows[at * 9], 0.3), at % 6);
            ask.min_score = [-1.0, 0.7, 0.9][at % 3];
            ask.exact = at % 5 == 0;
            ask.only = (at % 4 == 0).then_some((0, 2));
            ask
        })
        .collect();
    for size in [0, 1, 2, 8, 9, 50] {
        let out = Ask::batch(&asks[..size], &*index);
        for (ask, found) in asks.iter().zip(&out) {
            twin.check(ask, found, &capability);
            if capability.exact || ask.exact {
                assert_eq!(found, &ask.of(&*index));
            }
        }
    }
    // What the list held stays, and a query that is refused leaves no answers of the others.
    let kept = search(&*index, &rows[0], 2);
    let mut out = vec![kept.clone()];
    let bad = [f32::INFINITY; DIMENSION];
    let queries = [Query::new(&rows[1], 1), Query::new(&bad, 1)];
    let error = index.query_batch(&queries, &mut out).unwrap_err();
    assert!(matches!(error, IndexError::NotFinite { position: 0 }));
    assert_eq!(out.len(), 1);
    assert_eq!(out[0], kept);
    index.query_batch(&queries[..1], &mut out).unwrap();
    assert_eq!(out, [kept, search(&*index, &rows[1], 1)]);
}

fn an_audit_tells_the_share_of_the_truth_that_is_found<S: Subject>() {
    let mut random = Random::new(31);
    let rows = clustered(&mut random, 600, DIMENSION);
    let index = S::filled(&rows);
    assert_eq!(index.audit(&[]).unwrap(), Audit::default());
    let vectors: Vec<_> = rows.iter().map(|row| near(&mut random, row, 0.3)).collect();
    let queries: Vec<Query<'_>> = vectors
        .iter()
        .map(|vector| Query::new(vector, 5).above(0.8))
        .collect();
    teach(&*index, &vectors);
    let audit = index.audit(&queries).unwrap();
    let mut expected = Audit::default();
    for query in &queries {
        let mut truth = Vec::new();
        index.query(&query.exact(), &mut truth).unwrap();
        expected.add(&truth, &truth);
    }
    assert_eq!(audit.queries, 600);
    assert_eq!(audit.with_neighbor, expected.with_neighbor);
    assert_eq!(audit.neighbors, expected.neighbors);
    if index.capability().exact {
        assert_eq!(audit, expected);
    }
    assert!(audit.best_recall() >= 0.97, "{audit:?}");
    assert!(audit.recall() >= 0.97, "{audit:?}");
    let bad = [0.0; DIMENSION];
    assert!(index.audit(&[Query::new(&bad, 1)]).is_err());
}

fn a_settled_index_has_nothing_waiting_and_answers_as_before<S: Subject>() {
    let mut random = Random::new(32);
    let rows = clustered(&mut random, 900, DIMENSION);
    let index = S::filled(&rows);
    let mut twin = Twin::of(&rows);
    for id in (0..900).step_by(4) {
        index.remove(RowId(id)).unwrap();
        twin.remove(id);
    }
    let Backlog { waiting, dead } = index.backlog();
    assert!(waiting <= index.len());
    assert!(dead <= 900);
    if index.capability().removes_in_place {
        assert_eq!(dead, 0);
    }
    index.settle();
    assert_eq!(index.backlog().waiting, 0);
    assert!(index.backlog().dead <= 225);
    assert_eq!(index.len(), 675);
    twin.check_reach(&*index);
    index.settle();
    twin.check_reach(&*index);
}

/// The predicate of a search waits until another thread has written: with a lock that the search
/// holds and writers want, neither would ever go on.
fn a_search_without_locks_holds_up_no_write<S: Subject>() {
    let rows = clustered(&mut Random::new(33), 400, DIMENSION);
    let index = S::filled(&rows);
    if !index.capability().lock_free_reads {
        return;
    }
    std::thread::scope(|scope| {
        let (inside, writer_waits) = mpsc::channel();
        let (written, search_waits) = mpsc::channel();
        let (index, rows) = (&*index, &rows);
        scope.spawn(move || {
            writer_waits.recv().unwrap();
            for id in 400..800 {
                index.upsert(RowId(id), &rows[id as usize - 400]).unwrap();
            }
            index.remove(RowId(5)).unwrap();
            written.send(()).unwrap();
        });
        let has_waited = AtomicBool::new(false);
        let filter = |_: RowId| {
            if !has_waited.swap(true, Ordering::Relaxed) {
                inside.send(()).unwrap();
                let woken = search_waits.recv_timeout(Duration::from_secs(60));
                assert!(woken.is_ok(), "the writer waits for the search");
            }
            true
        };
        let mut out = Vec::new();
        index
            .query(&Query::new(&rows[7], 3).only(&filter), &mut out)
            .unwrap();
        assert!(has_waited.load(Ordering::Relaxed));
        assert_eq!(out.len(), 3);
    });
    assert_eq!(index.len(), 799);
}

/// One thread inserts rows in order and removes them in order some time later; others search. What
/// a search must and must not see is told by counters that are set once a write returned.
fn a_write_is_seen_by_every_search_that_begins_after_it<S: Subject>() {
    const ROWS: u64 = 1500;
    const HELD: u64 = 200;
    let mut random = Random::new(34);
    let rows = clustered(&mut random, ROWS as usize, DIMENSION);
    let index = S::empty(DIMENSION).unwrap();
    let (inserted, removed) = (AtomicU64::new(0), AtomicU64::new(0));
    let start = Barrier::new(3);
    std::thread::scope(|scope| {
        for reader in 0..2 {
            let (index, rows) = (&*index, &rows);
            let (inserted, removed, start) = (&inserted, &removed, &start);
            scope.spawn(move || {
                let mut random = Random::new(reader);
                let mut out = Vec::new();
                start.wait();
                loop {
                    let gone = removed.load(Ordering::Acquire);
                    let there = inserted.load(Ordering::Acquire);
                    if there == 0 {
                        continue;
                    }
                    let back = random.below(HELD as usize) as u64;
                    let row = (there - 1).saturating_sub(back);
                    out.clear();
                    index.search(&rows[row as usize], 1, &mut out).unwrap();
                    for neighbor in &out {
                        assert!(neighbor.id.0 >= gone, "row {} is back", neighbor.id.0);
                    }
                    let may_be_gone = removed.load(Ordering::Acquire) >= row;
                    assert!(
                        may_be_gone || ids(&out) == [row],
                        "row {row} of {there} was lost: {out:?}"
                    );
                    if there == ROWS {
                        break;
                    }
                }
            });
        }
        start.wait();
        for (id, row) in (0..).zip(&rows) {
            index.upsert(RowId(id), row).unwrap();
            inserted.store(id + 1, Ordering::Release);
            if let Some(old) = id.checked_sub(HELD) {
                // Counted before, as a search during the removal may see either.
                removed.fetch_max(old, Ordering::AcqRel);
                assert!(index.remove(RowId(old)).unwrap());
            }
        }
    });
    assert_eq!(index.len() as u64, HELD);
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
    assert_eq!(ids(&search(&*index, &unit(0), 3)), [1]);
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
    let twin = Twin::of(&new);
    twin.check_reach(&*index);
    for old in &old {
        let ask = Ask::new(old, 10);
        twin.check(&ask, &ask.of(&*index), &index.capability());
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
        let found = search(&*index, &vector, 1);
        assert_eq!(ids(&found), [8]);
        assert!(found[0].score >= 1.0 - 1e-5);
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
    // A byte for each component is the least that scores of this precision need.
    assert!(full >= rows.len() * (DIMENSION + size_of::<RowId>()));
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
    let mut twin = Twin::of(&rows);
    index.remove(RowId(17)).unwrap();
    twin.remove(17);
    index.upsert_until(RowId(18), &rows[18], at(77)).unwrap();
    twin.upsert(18, &rows[18], at(77));
    // What is in the snapshot is all that a restored index knows.
    let given = twin.check_content(&*index);
    let mut bytes = Vec::new();
    index.snapshot(&mut bytes).unwrap();
    for restored in [
        S::restored(&bytes).unwrap(),
        restore(&mut bytes.as_slice()).unwrap(),
    ] {
        assert_eq!(restored.len(), 399);
        assert_eq!(restored.dimension(), DIMENSION);
        assert_eq!(restored.capability().engine, index.capability().engine);
        assert!(!restored.contains(RowId(17)));
        given.check_content(&*restored);
        given.check_reach(&*restored);
        let mut ask = Ask::new(&rows[18], 9);
        ask.now = at(77);
        twin.check(&ask, &ask.of(&*restored), &restored.capability());
    }
}

/// An engine of coarse rows must not get coarser with every restart, nor lose rows on the way.
fn rows_stay_near_what_was_written_through_many_restarts<S: Subject>() {
    let rows = clustered(&mut Random::new(36), 400, DIMENSION);
    let mut index = S::filled(&rows);
    let twin = Twin::of(&rows);
    for _ in 0..10 {
        index = twin.restart::<S>(&*index);
        twin.check_reach(&*index);
    }
    Twin::of(&rows).check_content(&*index);
    if index.capability().keeps_vectors {
        assert!(content(&*index).iter().map(|row| &row.1).eq(&rows));
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
                // One bit may make the version another one that is known.
                8..10 => matches!(
                    error,
                    IndexError::Snapshot {
                        fault: SnapshotFault::UnknownVersion { .. }
                            | SnapshotFault::ChecksumMismatch
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
                    let error = f64::from(index.capability().score_error);
                    let mut out = Vec::new();
                    while !done.load(Ordering::Relaxed) || searches < 500 {
                        let at = (searches * 7 + reader) % fixed.len();
                        out.clear();
                        index.search(&fixed[at], 5, &mut out).unwrap();
                        assert_eq!(out.len(), 5);
                        assert!(out[0].score >= 1.0 - 1e-5, "row {at} was lost: {out:?}");
                        for neighbor in &out {
                            let row = match neighbor.id.0 {
                                id @ 0..200 => &fixed[id as usize],
                                id @ 200..600 => &moving[id as usize - 200],
                                id => panic!("row {id} is back from the dead"),
                            };
                            let cosine = support::cosine(&fixed[at], row);
                            assert!((f64::from(neighbor.score) - cosine).abs() <= error);
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

on_every_engine! {
    an_empty_index_finds_nothing
    a_dimension_out_of_range_is_refused
    every_stored_vector_is_found_by_itself
    every_dimension_is_served
    a_row_is_found_as_soon_as_upsert_returns
    scores_are_cosines_of_vectors_of_any_length
    scores_are_within_the_error_that_the_engine_states
    a_score_is_the_same_however_the_row_was_found
    scores_stay_within_a_cosine
    every_row_is_given_out_once_as_near_as_the_engine_states
    results_are_appended_best_first_with_ties_by_id
    an_exact_answer_lists_the_best_rows
    an_exact_index_answers_alike_whatever_the_order_of_the_writes
    a_threshold_keeps_out_what_scores_below_it
    no_threshold_is_out_of_reach_or_out_of_range
    a_filter_keeps_out_what_it_refuses
    an_expired_row_is_not_listed_and_is_held_until_it_is_removed
    an_update_replaces_the_expiry
    a_batch_of_writes_does_what_the_writes_do
    a_batch_with_one_bad_vector_writes_nothing
    a_batch_of_queries_is_answered_in_order
    an_audit_tells_the_share_of_the_truth_that_is_found
    a_settled_index_has_nothing_waiting_and_answers_as_before
    a_search_without_locks_holds_up_no_write
    a_write_is_seen_by_every_search_that_begins_after_it
    k_may_be_zero_or_larger_than_the_index
    unusable_vectors_are_refused_and_change_nothing
    a_removed_row_is_never_found
    removing_an_absent_row_changes_nothing
    an_update_replaces_the_vector
    a_removed_id_can_be_inserted_again
    memory_is_given_back_when_rows_go
    a_snapshot_restores_the_same_rows_and_answers
    rows_stay_near_what_was_written_through_many_restarts
    a_snapshot_of_an_empty_index_restores
    a_restore_reads_no_byte_past_the_snapshot
    a_damaged_snapshot_is_refused
    a_failing_reader_or_writer_is_told_as_such
    searches_during_writes_see_whole_rows_only
    writers_of_different_rows_do_not_disturb_each_other
}
