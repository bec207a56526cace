use proptest::prelude::*;
use rand::RngExt;

use super::*;

impl Forest {
    /// The leaf of a tree, one cut after the other.
    fn leaf(&self, tree: usize, features: &[f32]) -> usize {
        let mut at = self.roots[tree];
        loop {
            match at.child() {
                Child::Leaf(leaf) => return leaf,
                Child::Node(node) => {
                    let node = self.nodes[node];
                    let value = features[usize::from(node.feature)];
                    let left = match value.is_nan() {
                        true => node.unknown_left,
                        false => value <= node.threshold,
                    };
                    at = if left { node.left } else { node.right };
                }
            }
        }
    }
}

/// Every row seen by every tree, and leaves of any size.
fn exact(trees: u32) -> ForestSettings {
    ForestSettings {
        trees,
        least_rows: 1.0,
        l2: 1.0,
        row_share: 1.0,
        column_share: 1.0,
        rate: 0.3,
        ..ForestSettings::default()
    }
}

/// Numbers that look random and are the same in every run.
fn noise(length: usize, seed: u64) -> Vec<f32> {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
    (0..length).map(|_| random.random::<f32>()).collect()
}

/// A yes where the first column, with noise from the third, beats the second.
fn sample(rows: usize) -> (Vec<Vec<f32>>, Vec<bool>) {
    let columns: Vec<_> = (0..3).map(|seed| noise(rows, seed)).collect();
    let labels = (0..rows)
        .map(|row| columns[0][row] + 0.2 * columns[2][row] > columns[1][row] + 0.1)
        .collect();
    (columns, labels)
}

fn row(columns: &[Vec<f32>], row: usize) -> Vec<f32> {
    columns.iter().map(|column| column[row]).collect()
}

fn loss(forest: &Forest, columns: &[Vec<f32>], labels: &[bool]) -> f64 {
    let losses = labels
        .iter()
        .enumerate()
        .map(|(at, &label)| log_loss(forest.margin(&row(columns, at)), label));
    losses.sum::<f64>() / labels.len() as f64
}

#[test]
fn a_forest_learns_what_no_single_feature_shows() {
    let (a, b) = (noise(2000, 1), noise(2000, 2));
    let labels: Vec<bool> = a
        .iter()
        .zip(&b)
        .map(|(a, b)| (*a > 0.5) != (*b > 0.5))
        .collect();
    let columns = [a, b];
    let forest = Forest::fit(&columns, &labels, &[], &exact(50)).unwrap();
    let (unseen_a, unseen_b) = (noise(500, 3), noise(500, 4));
    let right = unseen_a
        .iter()
        .zip(&unseen_b)
        .filter(|&(&a, &b)| (forest.margin(&[a, b]) > 0.0) == ((a > 0.5) != (b > 0.5)))
        .count();
    assert!(right > 475, "{right} of 500");
    assert!((forest.importance().iter().sum::<f32>() - 1.0).abs() < 1e-5);
}

#[test]
fn more_trees_fit_the_rows_better() {
    let (columns, labels) = sample(1000);
    let loss_of = |trees| {
        let forest = Forest::fit(&columns, &labels, &[], &exact(trees)).unwrap();
        loss(&forest, &columns, &labels)
    };
    let losses = [1, 5, 20, 80].map(loss_of);
    assert!(losses.is_sorted_by(|a, b| a > b), "{losses:?}");
    assert!(losses[3] < 0.1, "{losses:?}");
}

#[test]
fn the_first_leaf_is_one_newton_step_from_the_base_rate() {
    // Two values, three yes in four against one in four: base 0, slope 1 per side, curvature 1.
    let column = vec![0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0];
    let labels = [false, false, false, true, true, true, true, false];
    let settings = ForestSettings {
        rate: 1.0,
        ..exact(1)
    };
    let forest = Forest::fit(&[column], &labels, &[], &settings).unwrap();
    assert!((forest.margin(&[0.0]) + 0.5).abs() < 1e-6, "1 / (1 + l2)");
    assert!((forest.margin(&[1.0]) - 0.5).abs() < 1e-6);
}

#[test]
fn what_is_not_known_goes_where_the_rows_that_lack_it_went() {
    let mut column = noise(900, 5);
    let mut labels: Vec<bool> = column.iter().map(|value| *value > 0.5).collect();
    // Rows without a value: nine in ten are a yes.
    column.extend([f32::NAN; 100]);
    labels.extend((0..100).map(|i| i % 10 != 0));
    let forest = Forest::fit(&[column], &labels, &[], &exact(60)).unwrap();
    let expected = (90.0f64 / 10.0).ln();
    for unknown in [&[f32::NAN][..], &[]] {
        let found = forest.margin(unknown);
        assert!((found - expected).abs() < 0.4, "{found} for {expected}");
    }
    assert!(forest.margin(&[0.1]) < -2.0);
    assert!(forest.margin(&[0.9]) > 2.0);
    assert!(forest.margin(&[f32::INFINITY]).is_finite());
}

#[test]
fn a_weight_of_two_is_the_row_twice() {
    let (columns, labels) = sample(300);
    let weights: Vec<f32> = (0..300).map(|row| (row % 3) as f32).collect();
    let times = |row: usize| row % 3;
    let repeated: Vec<Vec<f32>> = columns
        .iter()
        .map(|column| {
            (0..300)
                .flat_map(|row| std::iter::repeat_n(column[row], times(row)))
                .collect()
        })
        .collect();
    let repeated_labels: Vec<bool> = (0..300)
        .flat_map(|row| std::iter::repeat_n(labels[row], times(row)))
        .collect();
    let settings = ForestSettings {
        least_rows: 7.0,
        bins: 16,
        ..exact(20)
    };
    let weighted = Forest::fit(&columns, &labels, &weights, &settings).unwrap();
    let doubled = Forest::fit(&repeated, &repeated_labels, &[], &settings).unwrap();
    for at in 0..300 {
        let (a, b) = (
            weighted.margin(&row(&columns, at)),
            doubled.margin(&row(&columns, at)),
        );
        assert!((a - b).abs() < 1e-4, "row {at}: {a} and {b}");
    }
}

#[test]
fn the_same_seed_gives_the_same_forest_and_another_seed_another() {
    let (columns, labels) = sample(500);
    let fit = |seed| {
        let settings = ForestSettings {
            seed,
            trees: 20,
            least_rows: 5.0,
            ..ForestSettings::default()
        };
        Forest::fit(&columns, &labels, &[], &settings).unwrap()
    };
    assert_eq!(fit(1), fit(1));
    assert_ne!(fit(1), fit(2));
}

#[test]
fn leaves_are_no_smaller_and_no_more_than_asked() {
    let (columns, labels) = sample(400);
    let settings = ForestSettings {
        least_rows: 30.0,
        leaves: 6,
        ..exact(10)
    };
    let forest = Forest::fit(&columns, &labels, &[], &settings).unwrap();
    assert!(forest.leaves.len() <= 6 * forest.trees());
    for tree in 0..forest.trees() {
        let mut counts = std::collections::HashMap::new();
        for at in 0..400 {
            let leaf = forest.leaf(tree, &row(&columns, at));
            *counts.entry(leaf).or_insert(0) += 1;
        }
        assert!(counts.values().all(|&count| count >= 30), "{counts:?}");
    }
}

#[test]
fn growth_stops_when_rows_held_out_gain_no_more() {
    // Labels that no feature explains: every tree beyond the first few is noise.
    let columns = vec![noise(600, 1), noise(600, 2)];
    let labels: Vec<bool> = noise(600, 3).iter().map(|value| *value > 0.5).collect();
    let settings = ForestSettings {
        early_stop: Some(EarlyStop {
            share: 0.25,
            patience: 10,
        }),
        ..exact(500)
    };
    let forest = Forest::fit(&columns, &labels, &[], &settings).unwrap();
    assert!(forest.trees() < 50, "{} trees", forest.trees());
    // What is left is a whole forest: it survives its own file.
    let json = serde_json::to_string(&forest).unwrap();
    assert_eq!(serde_json::from_str::<Forest>(&json).unwrap(), forest);

    let (columns, labels) = sample(600);
    let forest = Forest::fit(&columns, &labels, &[], &settings).unwrap();
    assert!(loss(&forest, &columns, &labels) < 0.3);
}

#[test]
fn bad_input_is_refused_with_a_remedy() {
    let columns = [vec![0.0, 1.0, 2.0]];
    let labels = [true, false, true];
    let fit = |columns: &[Vec<f32>], labels: &[bool], weights: &[f32]| {
        Forest::fit(columns, labels, weights, &exact(1)).unwrap_err()
    };
    assert_eq!(fit(&[], &labels, &[]), FitError::Empty);
    assert_eq!(fit(&[vec![]], &[], &[]), FitError::Empty);
    assert!(matches!(
        fit(&columns, &labels[..2], &[]),
        FitError::Length {
            expected: 2,
            found: 3,
            ..
        }
    ));
    assert!(matches!(
        fit(&columns, &labels, &[1.0]),
        FitError::Length {
            expected: 3,
            found: 1,
            ..
        }
    ));
    assert_eq!(
        fit(&columns, &labels, &[1.0, -1.0, 1.0]),
        FitError::Weight {
            row: 1,
            found: -1.0
        }
    );
    assert!(matches!(
        fit(&[vec![0.0, f32::INFINITY, 1.0]], &labels, &[]),
        FitError::Infinite { feature: 0, row: 1 }
    ));
    let one = fit(&columns, &[true; 3], &[]);
    assert_eq!(
        one.to_string(),
        "all 3 rows of positive weight are labelled true: give rows of both labels"
    );
    // The only no has no weight.
    assert!(matches!(
        fit(&columns, &labels, &[1.0, 0.0, 1.0]),
        FitError::OneLabel {
            rows: 2,
            label: true,
            ..
        }
    ));
}

#[test]
fn settings_out_of_range_are_named() {
    type Change = Box<dyn Fn(&mut ForestSettings)>;
    let wrong: Vec<(&str, Change)> = vec![
        ("trees", Box::new(|s| s.trees = 0)),
        ("leaves", Box::new(|s| s.leaves = 1)),
        ("rate", Box::new(|s| s.rate = f64::NAN)),
        ("least_rows", Box::new(|s| s.least_rows = 0.0)),
        ("l2", Box::new(|s| s.l2 = -1.0)),
        ("row_share", Box::new(|s| s.row_share = 1.5)),
        ("column_share", Box::new(|s| s.column_share = 0.0)),
        ("bins", Box::new(|s| s.bins = 1)),
        ("monotone", Box::new(|s| s.monotone = vec![1, 1])),
        ("monotone", Box::new(|s| s.monotone = vec![2])),
        (
            "early_stop.share",
            Box::new(|s| {
                s.early_stop = Some(EarlyStop {
                    share: 0.9,
                    patience: 1,
                });
            }),
        ),
    ];
    for (name, change) in wrong {
        let mut settings = ForestSettings::default();
        change(&mut settings);
        let error = Forest::fit(&[vec![0.0, 1.0]], &[true, false], &[], &settings).unwrap_err();
        assert!(
            matches!(&error, FitError::Setting { field, .. } if *field == name),
            "{name}: {error}"
        );
    }
}

/// A forest of two cuts, as a file.
fn file() -> serde_json::Value {
    serde_json::json!({
        "base": 0.5,
        "importance": [0.75, 0.25],
        "roots": [0],
        "feature": [0, 1],
        "threshold": [0.5, 1.5],
        "unknown_left": [1, 0],
        "left": [1, -2],
        "right": [-1, -3],
        "leaves": [0.25, -1.0, 2.0],
    })
}

#[test]
fn a_file_is_read_as_it_is_documented() {
    let forest: Forest = serde_json::from_value(file()).unwrap();
    assert_eq!(forest.features(), 2);
    assert_eq!(forest.margin(&[0.6, 0.0]), 0.75);
    assert_eq!(forest.margin(&[0.5, 1.5]), -0.5);
    assert_eq!(forest.margin(&[f32::NAN, f32::NAN]), 2.5);
    assert_eq!(serde_json::to_value(&forest).unwrap(), file());
}

#[test]
fn a_forest_without_a_cut_is_its_base_and_leaves() {
    let file = serde_json::json!({
        "base": 0.5, "importance": [], "roots": [-1], "feature": [], "threshold": [],
        "unknown_left": [], "left": [], "right": [], "leaves": [0.25],
    });
    let forest: Forest = serde_json::from_value(file).unwrap();
    assert_eq!(forest.margin(&[]), 0.75);
    assert_eq!(forest.margin(&[1.0]), 0.75);
}

#[test]
fn a_damaged_file_is_refused() {
    type Damage = (&'static str, &'static str, serde_json::Value);
    let damages: [Damage; 14] = [
        ("points back", "left", [0, -2].as_slice().into()),
        ("points back", "left", [1, 0].as_slice().into()),
        ("behind its end", "left", [7, -2].as_slice().into()),
        ("behind its end", "right", [-9, -3].as_slice().into()),
        ("behind its end", "right", [i32::MIN, -3].as_slice().into()),
        ("at one place", "right", [-2, -3].as_slice().into()),
        (
            "hangs on nothing",
            "leaves",
            serde_json::json!([0, 0, 0, 0]),
        ),
        ("hangs on nothing", "roots", serde_json::json!([])),
        ("not of one length", "threshold", serde_json::json!([0.5])),
        ("not finite", "threshold", serde_json::json!([0.5, 1e300])),
        ("cuts by feature 1", "importance", serde_json::json!([1.0])),
        ("neither 0 nor 1", "unknown_left", serde_json::json!([1, 2])),
        ("invalid value", "feature", serde_json::json!([0, -1])),
        ("unknown field", "surplus", serde_json::json!(1)),
    ];
    for (reason, field, value) in damages {
        let mut file = file();
        file[field] = value;
        let error = serde_json::from_value::<Forest>(file)
            .unwrap_err()
            .to_string();
        assert!(error.contains(reason), "{field}: {error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn the_margin_never_moves_against_a_monotone_feature(
        seed in 0u64..10_000,
        signs in prop::array::uniform3(-1i8..=1),
        unknown in 0.0f32..0.3,
        trees in 1u32..30,
    ) {
        // Labels that pull against the constraints in places.
        let mut columns: Vec<_> = (0..3).map(|at| noise(300, seed * 5 + at)).collect();
        let chance = noise(300, seed * 5 + 3);
        let labels: Vec<bool> = (0..300)
            .map(|row| {
                let wave = (columns[0][row] * 9.0).sin() + columns[1][row] - columns[2][row];
                wave + chance[row] > 0.6
            })
            .collect();
        prop_assume!(labels.contains(&true) && labels.contains(&false));
        let lack = noise(300, seed * 5 + 4);
        for (row, lack) in lack.iter().enumerate() {
            if *lack < unknown {
                columns[row % 3][row] = f32::NAN;
            }
        }
        let settings = ForestSettings { monotone: signs.to_vec(), seed, least_rows: 3.0, ..exact(trees) };
        let forest = Forest::fit(&columns, &labels, &[], &settings).unwrap();
        for at in 0..60 {
            let mut values = row(&columns, at);
            for feature in 0..3 {
                let kept = values[feature];
                let margins: Vec<f64> = (-5..=25)
                    .map(|step| {
                        values[feature] = step as f32 / 20.0;
                        forest.margin(&values)
                    })
                    .collect();
                values[feature] = kept;
                for pair in margins.windows(2) {
                    let rise = (pair[1] - pair[0]) * f64::from(signs[feature]);
                    prop_assert!(signs[feature] == 0 || rise >= -1e-12, "feature {feature}: {margins:?}");
                }
            }
        }
    }

    #[test]
    fn the_fast_scan_ends_where_a_plain_walk_does(seed in 0u64..1000, trees in 1u32..20, leaves in 2u16..400) {
        let mut columns: Vec<_> = (0..3).map(|at| noise(300, seed * 3 + at)).collect();
        let labels: Vec<bool> = (0..300)
            .map(|row| columns[0][row] * columns[1][row] > 0.2 * columns[2][row])
            .collect();
        for row in (0..300).step_by(7) {
            columns[row % 3][row] = f32::NAN;
        }
        // Up to five words of leaves a tree, and more words than are scanned together.
        let settings = ForestSettings { leaves, trees: trees * 5, ..exact(trees) };
        let forest = Forest::fit(&columns, &labels, &[], &settings).unwrap();
        for at in 0..300 {
            let values = row(&columns, at);
            let plain: f64 = (0..forest.trees())
                .map(|tree| f64::from(forest.leaves[forest.leaf(tree, &values)]))
                .sum();
            let found = forest.margin(&values);
            prop_assert!((found - forest.base - plain).abs() < 1e-9, "{found}");
        }
    }

    #[test]
    fn a_forest_survives_its_file_to_the_last_bit(seed in 0u64..1000) {
        let columns = vec![noise(200, seed), noise(200, seed + 7)];
        let labels: Vec<bool> = columns[0].iter().map(|value| *value > 0.4).collect();
        let forest = Forest::fit(&columns, &labels, &[], &exact(5)).unwrap();
        let json = serde_json::to_string(&forest).unwrap();
        prop_assert_eq!(serde_json::from_str::<Forest>(&json).unwrap(), forest);
    }
}
