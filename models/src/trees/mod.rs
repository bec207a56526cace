//! Gradient boosted trees: the log-odds of a yes from a row of numbers.
//!
//! A forest starts from the log-odds of the base rate, and each tree corrects what the trees before it
//! left over, by one step down the gradient of the logistic loss (Friedman, "Greedy function
//! approximation: a gradient boosting machine", 2001), seeing a random part of the rows and features
//! ("Stochastic gradient boosting", 2002). How one tree grows is described in `grow.rs`.
//!
//! What is not known is not-a-number, and each cut has learnt which way it goes.
//!
//! Always true: a forest that was read from a file ends every walk, reads no feature beyond
//! [`features`](Forest::features) and gives a finite margin; where a feature was fitted as monotone, the
//! margin never moves against it.

mod bins;
mod file;
mod grow;
mod scan;
mod settings;

use rand::SeedableRng;
use rand::rngs::Xoshiro256PlusPlus;
use rand::seq::index;
use serde::{Deserialize, Serialize};

use crate::FitError;
use crate::fit::{TrainingRows, log_loss, sigmoid};
use bins::Binned;
use file::ForestFile;
use grow::{Child, Grower, Grown, Sum};
use scan::Scan;

pub use settings::{EarlyStop, ForestSettings};

/// Gradient boosted trees with a logistic loss.
///
/// ```
/// use askonce_models::trees::{Forest, ForestSettings};
///
/// // Yes exactly when one of the two is above a half, but not both.
/// let side = |i: usize, bit: usize| if i >> bit & 1 == 1 { 0.9 } else { 0.1 };
/// let columns = [0, 1].map(|bit| (0..400).map(|i| side(i, bit)).collect::<Vec<f32>>());
/// let labels: Vec<bool> = (0..400).map(|i| (i & 1 == 1) != (i >> 1 & 1 == 1)).collect();
///
/// // Each tree has to see both.
/// let settings = ForestSettings { column_share: 1.0, ..ForestSettings::default() };
/// let forest = Forest::fit(&columns, &labels, &[], &settings)?;
/// assert!(forest.margin(&[0.9, 0.1]) > 1.0);
/// assert!(forest.margin(&[0.9, 0.9]) < -1.0);
/// # Ok::<(), askonce_models::FitError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "ForestFile", into = "ForestFile")]
pub struct Forest {
    /// Log-odds before the first tree.
    base: f64,
    /// Cuts of all trees; children lie behind their parents.
    nodes: Vec<Node>,
    /// Values of the leaves of all trees.
    leaves: Vec<f32>,
    roots: Vec<Child32>,
    /// Per feature, its share of what all cuts gained.
    importance: Vec<f32>,
    /// The trees once more, laid out to be asked fast.
    scan: Scan,
}

/// A cut: values up to the threshold go left.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Node {
    threshold: f32,
    feature: u16,
    /// Whether a value that is not known goes left.
    unknown_left: bool,
    left: Child32,
    right: Child32,
}

/// The place of a node, or of a leaf: its bits turned over, which makes it negative.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
struct Child32(i32);

impl Child32 {
    fn of_leaf(leaf: usize) -> Self {
        Self(!(leaf as i32))
    }

    fn of_node(node: usize) -> Self {
        Self(node as i32)
    }

    fn child(self) -> Child {
        match usize::try_from(self.0) {
            Ok(node) => Child::Node(node),
            Err(_) => Child::Leaf(!self.0 as usize),
        }
    }
}

impl Forest {
    /// Fits a forest. `columns` holds one slice of values per feature, `weights` one number per row or
    /// none at all, which stands for 1 throughout.
    ///
    /// # Errors
    /// [`FitError`] names the setting, the row or the column that is wrong, and what is allowed.
    pub fn fit<C: AsRef<[f32]>>(
        columns: &[C],
        labels: &[bool],
        weights: &[f32],
        settings: &ForestSettings,
    ) -> Result<Self, FitError> {
        settings.check(columns.len())?;
        let rows = TrainingRows::new(columns, labels, weights)?;
        let held_out = settings.early_stop.map_or(0, |stop| {
            ((labels.len() as f64 * stop.share) as usize).max(1)
        });
        let end = labels.len() - held_out;
        let mut growth = Growth {
            base: rows.log_odds(end)?,
            nodes: Vec::new(),
            leaves: Vec::new(),
            roots: Vec::new(),
        };
        let gains = growth.boost(&rows, end, settings);
        let total: f64 = gains.iter().sum();
        let importance = gains
            .iter()
            .map(|gain| {
                if total > 0.0 {
                    (gain / total) as f32
                } else {
                    0.0
                }
            })
            .collect();
        let Growth {
            roots,
            nodes,
            leaves,
            ..
        } = &growth;
        let scan = Scan::new(columns.len(), roots, nodes, leaves);
        Ok(Self {
            // At most 10,000 trees of 1,024 leaves: far from what can be laid out.
            scan: scan.map_err(|_| FitError::Setting {
                field: "leaves",
                found: settings.leaves.to_string(),
                remedy: "give 2 to 1,024",
            })?,
            base: growth.base,
            nodes: growth.nodes,
            leaves: growth.leaves,
            roots: growth.roots,
            importance,
        })
    }

    /// The log-odds of a yes. A value that is not-a-number, or missing at the end of `features`, is not
    /// known; values behind the last feature are not read.
    #[must_use]
    pub fn margin(&self, features: &[f32]) -> f64 {
        let count = self.features().max(1);
        let sum = match features.get(..count) {
            Some(features) => self.scan.sum(features),
            None => {
                let mut padded = features.to_vec();
                padded.resize(count, f32::NAN);
                self.scan.sum(&padded)
            }
        };
        self.base + sum
    }

    /// The probability of a yes, between 0 and 1: as the rows of the fit had it, not calibrated on others.
    #[must_use]
    pub fn probability(&self, features: &[f32]) -> f64 {
        sigmoid(self.margin(features))
    }

    /// Number of features of a row.
    #[must_use]
    pub fn features(&self) -> usize {
        self.importance.len()
    }

    /// Number of trees.
    #[must_use]
    pub fn trees(&self) -> usize {
        self.roots.len()
    }

    /// Per feature, its share of what all cuts gained when they were made. Sums to 1, or to 0 when nothing
    /// was cut.
    #[must_use]
    pub fn importance(&self) -> &[f32] {
        &self.importance
    }
}

/// A forest that grows.
struct Growth {
    base: f64,
    nodes: Vec<Node>,
    leaves: Vec<f32>,
    roots: Vec<Child32>,
}

impl Growth {
    /// Adds trees for the rows below `end`, watching those from there on. Gives what the cuts by each
    /// feature gained.
    fn boost(
        &mut self,
        rows: &TrainingRows<'_>,
        end: usize,
        settings: &ForestSettings,
    ) -> Vec<f64> {
        let columns = Binned::of(rows, settings.bins);
        let grower = Grower {
            columns: &columns,
            settings,
        };
        let mut random = Xoshiro256PlusPlus::seed_from_u64(settings.seed);
        let mut margins = vec![self.base; rows.labels.len()];
        let mut sums = vec![Sum::default(); end];
        let mut cuts = Vec::new();
        let mut watch = Watch::new(rows, end, &margins);
        for _ in 0..settings.trees {
            for (row, sum) in sums.iter_mut().enumerate() {
                let probability = sigmoid(margins[row]);
                let weight = f64::from(rows.weights[row]);
                *sum = Sum {
                    slope: weight * (probability - f64::from(u8::from(rows.labels[row]))),
                    curvature: weight * probability * (1.0 - probability),
                    weight,
                };
            }
            let sample = sampled(end, settings.row_share, &mut random);
            let features: Vec<usize> = sampled(rows.features(), settings.column_share, &mut random)
                .into_iter()
                .map(|feature| feature as usize)
                .collect();
            let mut tree = grower.grow(sample, &features, &sums);
            for value in &mut tree.leaves {
                // What the file keeps, so that training sees what will be predicted.
                *value = f64::from((*value * settings.rate) as f32);
            }
            for (row, margin) in margins.iter_mut().enumerate() {
                *margin += tree.value(&columns, row);
            }
            self.add(&tree, &columns);
            cuts.push(tree.gains);
            if let Some(stop) = settings.early_stop
                && watch.is_over(rows, &margins, self.roots.len(), stop.patience)
            {
                break;
            }
        }
        if settings.early_stop.is_some() {
            self.truncate(watch.best_trees);
        }
        let mut gains = vec![0.0; rows.features()];
        for &(feature, gain) in cuts.iter().take(self.roots.len()).flatten() {
            gains[feature] += gain;
        }
        gains
    }

    fn add(&mut self, tree: &Grown, columns: &[Binned]) {
        let (first_node, first_leaf) = (self.nodes.len(), self.leaves.len());
        let placed = |child| match child {
            Child::Node(node) => Child32::of_node(first_node + node),
            Child::Leaf(leaf) => Child32::of_leaf(first_leaf + leaf),
        };
        self.roots.push(placed(tree.root));
        self.nodes.extend(tree.nodes.iter().map(|node| Node {
            threshold: columns[node.feature].threshold(node.bin),
            feature: node.feature as u16,
            unknown_left: node.unknown_left,
            left: placed(node.left),
            right: placed(node.right),
        }));
        self.leaves
            .extend(tree.leaves.iter().map(|&value| value as f32));
    }

    /// Drops the trees behind the first `trees`.
    fn truncate(&mut self, trees: usize) {
        let dropped = self.roots.split_off(trees.min(self.roots.len()));
        // A tree has one leaf more than nodes, and its root comes first.
        let first = dropped.iter().find_map(|root| match root.child() {
            Child::Node(node) => Some(node),
            Child::Leaf(_) => None,
        });
        self.nodes.truncate(first.unwrap_or(self.nodes.len()));
        self.leaves.truncate(self.nodes.len() + self.roots.len());
    }
}

/// Numbers below `length`, a share of them, in ascending order; at least one.
fn sampled(length: usize, share: f64, random: &mut Xoshiro256PlusPlus) -> Vec<u32> {
    if share >= 1.0 {
        return (0..length as u32).collect();
    }
    let amount = ((length as f64 * share).round() as usize).clamp(1, length);
    let mut sample: Vec<u32> = index::sample(random, length, amount)
        .into_iter()
        .map(|place| place as u32)
        .collect();
    sample.sort_unstable();
    sample
}

/// How well the rows that no tree sees are predicted.
struct Watch {
    first: usize,
    best_loss: f64,
    best_trees: usize,
}

impl Watch {
    fn new(rows: &TrainingRows<'_>, first: usize, margins: &[f64]) -> Self {
        let mut watch = Self {
            first,
            best_loss: 0.0,
            best_trees: 0,
        };
        watch.best_loss = watch.loss(rows, margins);
        watch
    }

    fn loss(&self, rows: &TrainingRows<'_>, margins: &[f64]) -> f64 {
        (self.first..margins.len())
            .map(|row| f64::from(rows.weights[row]) * log_loss(margins[row], rows.labels[row]))
            .sum()
    }

    /// Looks at the loss with this many trees. Whether the best is `patience` trees ago.
    fn is_over(
        &mut self,
        rows: &TrainingRows<'_>,
        margins: &[f64],
        trees: usize,
        patience: u32,
    ) -> bool {
        let loss = self.loss(rows, margins);
        if loss < self.best_loss {
            self.best_loss = loss;
            self.best_trees = trees;
        }
        trees - self.best_trees >= patience as usize
    }
}

#[cfg(test)]
mod tests;
