//! What the engine must do with vectors that are made to defeat it: they are made by undoing the rotation.

use super::encode::Encoder;
use super::rotate::{Rotation, split_mix};
use super::*;

fn noise(state: &mut u64, width: usize) -> Vec<f32> {
    let mut random = || (split_mix(state) >> 40) as f32 / (1 << 24) as f32 - 0.5;
    (0..width).map(|_| random()).collect()
}

/// A vector with one large component after the rotation, and all others half a step above one step
/// of 8 bits, so that rounding errs the same way in each.
fn peaked(width: usize, peak: usize, sign: impl Fn(usize) -> f32) -> Vec<f32> {
    let mut vector: Vec<f32> = (0..width).map(|at| 1.49 * sign(at)).collect();
    vector[peak] = 127.0;
    Rotation::new(width).undo(&mut vector);
    vector
}

#[test]
fn rows_that_codes_and_coarse_scores_misjudge_are_found_by_their_own_vector() {
    for (width, precision) in [(1536, Precision::Int8), (4096, Precision::Int16)] {
        let config = BinaryConfig {
            cell_rows: Some(16),
            precision,
            ..BinaryConfig::default()
        };
        let index = BinaryIndex::new(width, config).unwrap();
        let mut state = 3;
        let mut rows: Vec<Vec<f32>> = (0..60).map(|_| noise(&mut state, width)).collect();
        for at in 0..60 {
            let odd = |component: usize| (component * (at + 3)) % 7 > 3;
            let sign = |component| {
                if odd(component) && at % 2 == 1 {
                    -1.0
                } else {
                    1.0
                }
            };
            rows.push(peaked(width, 64 + at * 11, sign));
        }
        for (id, row) in (0..).zip(&rows) {
            index.upsert(RowId(id), row).unwrap();
        }
        for (id, row) in (0..).zip(&rows) {
            for bar in [-1.0, 0.9, 0.99, 0.9999] {
                let mut found = Vec::new();
                index.search_above(row, bar, 2, &mut found).unwrap();
                let best = found.first().map(|best| best.id);
                assert_eq!(best, Some(RowId(id)), "above {bar}: {found:?}");
                let distinct = found.len() < 2 || found[0].id != found[1].id;
                assert!(distinct, "{found:?}");
            }
        }
    }
}

#[test]
fn numbers_at_the_ends_of_their_ranges_are_answered_and_not_panicked_at() {
    let mut state = 4;
    for width in [1, 2, 65] {
        let index = BinaryIndex::new(width, BinaryConfig::default()).unwrap();
        let rows: Vec<Vec<f32>> = (0..200).map(|_| noise(&mut state, width)).collect();
        for (id, row) in (0..).zip(&rows) {
            index.upsert(RowId(id), row).unwrap();
        }
        let bars = [
            f32::NAN,
            f32::NEG_INFINITY,
            -1.0,
            -0.999_999_9,
            0.0,
            1.0,
            1.0 + f32::EPSILON,
            f32::MAX,
            f32::INFINITY,
        ];
        for bar in bars {
            for k in [0, 1, 49, 50, 51, 200, usize::MAX] {
                let mut found = Vec::new();
                index.search_above(&rows[7], bar, k, &mut found).unwrap();
                assert!(found.len() <= k.min(200), "{} of {k}", found.len());
                assert!(bar.is_nan() || found.iter().all(|n| n.score >= bar));
                let all = bar.is_nan() || bar <= -1.0;
                assert!(!all || found.len() == k.min(200), "{} of {k}", found.len());
            }
        }
    }
}

#[test]
fn the_widest_vectors_are_stored_and_found() {
    let width = crate::MAX_DIMENSION;
    let index = BinaryIndex::new(width, BinaryConfig::default()).unwrap();
    let mut state = 5;
    let rows: Vec<Vec<f32>> = (0..20).map(|_| noise(&mut state, width)).collect();
    for (id, row) in (0..).zip(&rows) {
        index.upsert(RowId(id), row).unwrap();
    }
    for (id, row) in (0..).zip(&rows) {
        let mut found = Vec::new();
        index.search_above(row, 0.99, 1, &mut found).unwrap();
        assert_eq!(found[0].id, RowId(id));
    }
    // Products of the widest rows with all components at their largest fit in 32 bits.
    let mut vector = vec![1.0f32; width];
    Rotation::new(width).undo(&mut vector);
    index.upsert(RowId(99), &vector).unwrap();
    let mut found = Vec::new();
    index.search_above(&vector, 0.99, 1, &mut found).unwrap();
    assert_eq!(found[0].id, RowId(99));
    assert!(found[0].score > 1.0 - 1e-5);
    let encoder = Encoder::new(width, Precision::Int16);
    assert_eq!(encoder.lines() * 64, width);
}

#[test]
fn lookups_beside_a_writer_find_the_rows_that_stay() {
    // Under Miri, which also shows what weak memory may do: `-Zmiri-many-seeds`.
    let (rounds, lookups) = if cfg!(miri) { (8, 2) } else { (2_000, 2_000) };
    let config = BinaryConfig {
        cell_rows: Some(16),
        ..BinaryConfig::default()
    };
    let index = BinaryIndex::new(64, config).unwrap();
    let mut state = 6;
    let rows: Vec<Vec<f32>> = (0..40).map(|_| noise(&mut state, 64)).collect();
    for (id, row) in (0..).zip(&rows[..20]) {
        index.upsert(RowId(id), row).unwrap();
    }
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for at in 0..lookups {
                let id = at * 7 % 12;
                let mut found = Vec::new();
                index.search_above(&rows[id], 0.9, 2, &mut found).unwrap();
                let best = found.first().map(|best| best.id);
                assert_eq!(best, Some(RowId(id as u64)), "{found:?}");
            }
        });
        for round in 0..rounds {
            let (id, row) = (12 + round * 5 % 28, 12 + round * 11 % 28);
            index.upsert(RowId(id as u64), &rows[row]).unwrap();
            if round % 3 == 2 {
                index.remove(RowId(12 + (round * 3 % 28) as u64)).unwrap();
            }
        }
    });
}
