use proptest::prelude::*;
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

use super::*;

/// Numbers that look random and are the same in every run.
fn noise(length: usize, seed: u64) -> Vec<f32> {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
    (0..length).map(|_| random.random::<f32>()).collect()
}

fn settings(monotone: &[i8]) -> AdditiveSettings {
    AdditiveSettings {
        monotone: monotone.to_vec(),
        ..AdditiveSettings::default()
    }
}

#[test]
fn the_curves_of_the_features_are_found_again() {
    let columns = [noise(20_000, 1), noise(20_000, 2), noise(20_000, 3)];
    let truth = |row: &[f32]| {
        let hill = 1.0 - 4.0 * f64::from(row[1] - 0.5).abs();
        3.0 * f64::from(row[0]) - 2.0 + 2.0 * hill
    };
    let chance = noise(20_000, 4);
    let row = |at: usize| [columns[0][at], columns[1][at], columns[2][at]];
    let labels: Vec<bool> = (0..20_000)
        .map(|at| f64::from(chance[at]) < sigmoid(truth(&row(at))))
        .collect();
    let model = Additive::fit(&columns, &labels, &[], &settings(&[1, 0, 0])).unwrap();
    let off = (0..1000)
        .map(|at| (model.margin(&row(at)) - truth(&row(at))).abs())
        .sum::<f64>()
        / 1000.0;
    assert!(off < 0.2, "mean distance {off}");
    let importance = model.importance();
    assert!((importance[0] - 3.0).abs() < 0.5, "{importance:?}");
    assert!((importance[1] - 4.0).abs() < 0.5, "{importance:?}");
    assert!(importance[2] < 0.8, "{importance:?}");
}

#[test]
fn the_fit_is_where_no_curve_gains_by_a_small_change() {
    let columns = [noise(500, 1), noise(500, 2)];
    let labels: Vec<bool> = (0..500)
        .map(|at| columns[0][at] + columns[1][at] * 0.5 > 0.7)
        .collect();
    let settings = AdditiveSettings {
        passes: 10_000,
        ..settings(&[1, 0])
    };
    let rows = TrainingRows::new(&columns, &labels, &[]).unwrap();
    let base = rows.log_odds(500).unwrap();
    let mut fit = Fitting::new(&rows, base, &settings);
    for _ in 0..500 {
        fit.improve(0);
        fit.improve(1);
    }
    let least = fit.objective();
    for feature in 0..2 {
        for weight in 0..fit.curves[feature].weights.len() {
            for change in [-0.01, 0.01] {
                let kept = fit.curves[feature].weights.clone();
                let mut tried = kept.clone();
                tried[weight] += change;
                if feature == 0 && weight + 1 < tried.len() && tried[weight] < 0.0 {
                    continue;
                }
                let curve = &fit.curves[feature];
                let step: Vec<f64> = tried.iter().zip(&kept).map(|(t, k)| t - k).collect();
                let loss = fit.loss_with(|row| curve.value(curve.places[row], &step));
                let penalties: f64 = fit
                    .curves
                    .iter()
                    .enumerate()
                    .map(|(at, c)| {
                        c.penalty(if at == feature { &tried } else { &c.weights }, fit.l2)
                    })
                    .sum();
                assert!(loss + penalties > least, "{feature} {weight} {change}");
            }
        }
    }
}

#[test]
fn what_is_not_known_has_a_weight_of_its_own() {
    let mut column = noise(2000, 5);
    let mut labels: Vec<bool> = column.iter().map(|value| *value > 0.5).collect();
    column.extend([f32::NAN; 1000]);
    labels.extend((0..1000).map(|i| i % 10 != 0));
    let model = Additive::fit(&[column], &labels, &[], &settings(&[1])).unwrap();
    let expected = 9.0f64.ln();
    for unknown in [&[f32::NAN][..], &[]] {
        let found = model.margin(unknown);
        assert!((found - expected).abs() < 0.1, "{found} for {expected}");
    }
}

#[test]
fn what_was_always_known_counts_as_the_mean_when_it_is_not() {
    let column = noise(2000, 6);
    let labels: Vec<bool> = column.iter().map(|value| *value > 0.5).collect();
    let model = Additive::fit(&[column], &labels, &[], &settings(&[1])).unwrap();
    assert!(model.margin(&[0.0]) < -3.0 && model.margin(&[1.0]) > 3.0);
    assert!((model.margin(&[f32::NAN]) - model.base()).abs() < 1e-3);
}

#[test]
fn contributions_and_base_sum_to_the_margin() {
    let columns = [noise(300, 7), noise(300, 8)];
    let labels: Vec<bool> = columns[0].iter().map(|value| *value > 0.3).collect();
    let model = Additive::fit(&columns, &labels, &[], &settings(&[])).unwrap();
    let mut parts = vec![9.0; 5];
    model.contributions(&[0.2, f32::NAN], &mut parts);
    assert_eq!(parts.len(), 2);
    let sum = model.base() + parts.iter().sum::<f64>();
    assert!((sum - model.margin(&[0.2, f32::NAN])).abs() < 1e-12);
}

#[test]
fn a_weight_of_two_is_the_row_twice() {
    let column = noise(200, 9);
    let labels: Vec<bool> = noise(200, 10)
        .iter()
        .zip(&column)
        .map(|(chance, value)| chance < value)
        .collect();
    let weighted = Additive::fit(
        std::slice::from_ref(&column),
        &labels,
        &[2.0; 200],
        &settings(&[]),
    )
    .unwrap();
    let doubled = [column.clone(), column].concat();
    let labels = [labels.clone(), labels].concat();
    let doubled = Additive::fit(&[doubled], &labels, &[], &settings(&[])).unwrap();
    for at in 0..20 {
        let value = at as f32 / 20.0;
        let (a, b) = (weighted.margin(&[value]), doubled.margin(&[value]));
        assert!((a - b).abs() < 1e-6, "{a} and {b}");
    }
}

#[test]
fn columns_without_any_difference_add_nothing() {
    let columns = [vec![1.0; 100], vec![f32::NAN; 100], noise(100, 11)];
    let labels: Vec<bool> = columns[2].iter().map(|value| *value > 0.5).collect();
    let model = Additive::fit(&columns, &labels, &[], &settings(&[])).unwrap();
    let found = model.margin(&[1.0, f32::NAN, 0.2]);
    assert!(found < -1.0);
    assert!((model.margin(&[7.0, f32::NAN, 0.2]) - found).abs() < 1e-9);
}

#[test]
fn settings_out_of_range_are_named() {
    let wrong: [(&str, AdditiveSettings); 5] = [
        (
            "knots",
            AdditiveSettings {
                knots: 17,
                ..settings(&[])
            },
        ),
        (
            "knots",
            AdditiveSettings {
                knots: 1,
                ..settings(&[])
            },
        ),
        (
            "l2",
            AdditiveSettings {
                l2: 0.0,
                ..settings(&[])
            },
        ),
        (
            "passes",
            AdditiveSettings {
                passes: 0,
                ..settings(&[])
            },
        ),
        ("monotone", settings(&[1, 1])),
    ];
    for (name, settings) in wrong {
        let error = Additive::fit(&[[0.0, 1.0]], &[true, false], &[], &settings).unwrap_err();
        assert!(
            matches!(&error, FitError::Setting { field, .. } if *field == name),
            "{error}"
        );
    }
    let error = Additive::fit(&[[0.0, 1.0]], &[true, true], &[], &settings(&[])).unwrap_err();
    assert!(
        matches!(error, FitError::OneLabel { label: true, .. }),
        "{error}"
    );
}

#[test]
fn a_damaged_file_is_refused() {
    let curve = |knots: &str, values: &str, unknown: &str| {
        format!(
            r#"{{"base":0,"curves":[{{"knots":{knots},"values":{values},"unknown":{unknown}}}]}}"#
        )
    };
    let good: Additive = serde_json::from_str(&curve("[0,1]", "[-1,1]", "0.5")).unwrap();
    assert_eq!(good.margin(&[0.75]), 0.5);
    assert_eq!(good.margin(&[]), 0.5);
    for (reason, damaged) in [
        ("one value per knot", curve("[0,1]", "[1]", "0")),
        ("one value per knot", curve("[]", "[]", "0")),
        ("do not ascend", curve("[1,1]", "[1,2]", "0")),
        ("out of range", curve("[0,1e300]", "[1,2]", "0")),
        ("out of range", curve("[0,1]", "[1,2]", "1e999")),
    ] {
        let error = serde_json::from_str::<Additive>(&damaged)
            .unwrap_err()
            .to_string();
        assert!(error.contains(reason), "{error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(30))]

    #[test]
    fn the_margin_never_moves_against_a_monotone_feature(
        seed in 0u64..10_000,
        sign in prop::sample::select(vec![-1i8, 1]),
        knots in 2u8..=16,
    ) {
        let columns = [noise(200, seed), noise(200, seed + 1)];
        let chance = noise(200, seed + 2);
        let labels: Vec<bool> = (0..200)
            .map(|at| (columns[0][at] * 9.0).sin() + columns[1][at] + chance[at] > 1.0)
            .collect();
        prop_assume!(labels.contains(&true) && labels.contains(&false));
        let settings = AdditiveSettings { knots, ..settings(&[sign, 0]) };
        let model = Additive::fit(&columns, &labels, &[], &settings).unwrap();
        let margins: Vec<f64> = (-2..=22).map(|at| model.margin(&[at as f32 / 20.0, 0.5])).collect();
        for pair in margins.windows(2) {
            prop_assert!((pair[1] - pair[0]) * f64::from(sign) >= -1e-12, "{margins:?}");
        }
        let json = serde_json::to_string(&model).unwrap();
        prop_assert_eq!(serde_json::from_str::<Additive>(&json).unwrap(), model);
    }
}
