/// Why a model could not be fitted to the rows given.
///
/// Rows, features and weights count from 0. No variant holds a text.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum FitError {
    /// A setting is out of range.
    #[error("the setting `{field}` is {found}: {remedy}")]
    Setting {
        /// Name of the setting.
        field: &'static str,
        /// What it is.
        found: String,
        /// What is allowed.
        remedy: &'static str,
    },

    /// There is nothing to learn from.
    #[error("there are no rows or no features: give at least two rows and one feature")]
    Empty,

    /// Columns, labels or weights are not of one length.
    #[error("{what} has {found} values for {expected} labels: give one per row")]
    Length {
        /// What is of another length.
        what: String,
        /// Number of labels.
        expected: usize,
        /// Its length.
        found: usize,
    },

    /// A value is infinite.
    #[error(
        "feature {feature} of row {row} is infinite: give a number, or not-a-number for what is \
         not known"
    )]
    Infinite {
        /// Number of the column.
        feature: usize,
        /// Number of the row.
        row: usize,
    },

    /// A weight is negative, infinite or not a number.
    #[error("the weight of row {row} is {found}: give a finite number of 0 or more")]
    Weight {
        /// Number of the row.
        row: usize,
        /// The weight.
        found: f32,
    },

    /// All rows that count have one label.
    #[error(
        "all {rows} rows of positive weight are labelled {label}: give rows of both labels{}",
        if *held_out { " among those that are not held out" } else { "" }
    )]
    OneLabel {
        /// Number of rows.
        rows: usize,
        /// Their label.
        label: bool,
        /// Whether a part of the rows was held out.
        held_out: bool,
    },
}

/// Rows that a model can be fitted to: checked once, column by column.
pub(crate) struct TrainingRows<'a> {
    pub(crate) columns: Vec<&'a [f32]>,
    pub(crate) labels: &'a [bool],
    /// One per row.
    pub(crate) weights: Vec<f32>,
}

impl<'a> TrainingRows<'a> {
    /// Checks the rows. No weights at all stand for 1 throughout.
    pub(crate) fn new<C: AsRef<[f32]>>(
        columns: &'a [C],
        labels: &'a [bool],
        weights: &[f32],
    ) -> Result<Self, FitError> {
        let columns: Vec<_> = columns.iter().map(AsRef::as_ref).collect();
        if columns.is_empty() || labels.len() < 2 {
            return Err(FitError::Empty);
        }
        let of_one_length = |what: &dyn Fn() -> String, found: usize| match found == labels.len() {
            true => Ok(()),
            false => Err(FitError::Length {
                what: what(),
                expected: labels.len(),
                found,
            }),
        };
        for (feature, column) in columns.iter().enumerate() {
            of_one_length(&|| format!("feature {feature}"), column.len())?;
            if let Some(row) = column.iter().position(|value| value.is_infinite()) {
                return Err(FitError::Infinite { feature, row });
            }
        }
        let weights = match weights {
            [] => vec![1.0; labels.len()],
            _ => {
                of_one_length(&|| "the list of weights".to_owned(), weights.len())?;
                weights.to_vec()
            }
        };
        let bad = weights.iter().position(|w| !(w.is_finite() && *w >= 0.0));
        if let Some(row) = bad {
            let found = weights[row];
            return Err(FitError::Weight { row, found });
        }
        Ok(Self {
            columns,
            labels,
            weights,
        })
    }

    pub(crate) fn features(&self) -> usize {
        self.columns.len()
    }

    /// The log-odds of the share of positives by weight, among the rows below `end`.
    pub(crate) fn log_odds(&self, end: usize) -> Result<f64, FitError> {
        let mut of_label = [0.0; 2];
        for (&label, &weight) in self.labels.iter().zip(&self.weights).take(end) {
            of_label[usize::from(label)] += f64::from(weight);
        }
        let [negative, positive] = of_label;
        if negative == 0.0 || positive == 0.0 {
            return Err(FitError::OneLabel {
                rows: self.weights[..end].iter().filter(|&&w| w > 0.0).count(),
                label: positive > 0.0,
                held_out: end < self.labels.len(),
            });
        }
        Ok((positive / negative).ln())
    }
}

/// Checks a list of signs: none at all, or one of -1, 0 and 1 per feature.
pub(crate) fn check_monotone(monotone: &[i8], features: usize) -> Result<(), FitError> {
    if !monotone.is_empty() && monotone.len() != features {
        return Err(FitError::Setting {
            field: "monotone",
            found: format!("a list of {} for {features} features", monotone.len()),
            remedy: "give one sign per feature, or none at all",
        });
    }
    match monotone.iter().find(|sign| !(-1..=1).contains(*sign)) {
        None => Ok(()),
        Some(sign) => Err(FitError::Setting {
            field: "monotone",
            found: sign.to_string(),
            remedy: "a sign is -1, 0 or 1",
        }),
    }
}

/// The probability of these log-odds.
pub(crate) fn sigmoid(margin: f64) -> f64 {
    1.0 / (1.0 + (-margin).exp())
}

/// Minus the logarithm of the probability that `margin` gives to `label`.
pub(crate) fn log_loss(margin: f64, label: bool) -> f64 {
    let against = if label { -margin } else { margin };
    // ln(1 + e^x), without overflow for a large x.
    against.max(0.0) + (-against.abs()).exp().ln_1p()
}

/// Distinct values of a column and the weight of each, smallest first, and the weight of the rows
/// that have none. Rows of no weight are left out.
pub(crate) fn weighed(column: &[f32], weights: &[f32]) -> (Vec<(f32, f64)>, f64) {
    let mut values = Vec::with_capacity(column.len());
    let mut unknown = 0.0;
    for (&value, &weight) in column.iter().zip(weights) {
        if value.is_nan() {
            unknown += f64::from(weight);
        } else if weight > 0.0 {
            // Adding zero makes -0 and 0 the same bits.
            values.push((value + 0.0, f64::from(weight)));
        }
    }
    values.sort_unstable_by(|(a, _), (b, _)| a.total_cmp(b));
    values.dedup_by(|next, kept| {
        let same = next.0 == kept.0;
        if same {
            kept.1 += next.1;
        }
        same
    });
    (values, unknown)
}
