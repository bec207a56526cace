//! One tree, grown leaf by leaf: the leaf whose cut gains most is cut next (Ke et al., "LightGBM",
//! 2017). Cuts are looked for in histograms, and of two sisters only the smaller is counted: the other
//! is the parent less that.
//!
//! A leaf's value and a cut's gain are those of the second-order expansion of the loss, and a value that
//! is not known goes to the side where it gains more (Chen and Guestrin, "XGBoost", 2016).
//!
//! Monotone features: a cut that would put its sides in the wrong order is not made, and the middle of
//! the two values bounds everything that grows under either side. So the order holds for whole trees,
//! whatever is cut later.

use super::bins::Binned;
use super::settings::ForestSettings;

/// First and second derivative of the loss by the margin, and weight.
#[derive(Clone, Copy, Default)]
pub(super) struct Sum {
    pub(super) slope: f64,
    pub(super) curvature: f64,
    pub(super) weight: f64,
}

impl Sum {
    fn plus(self, other: Self) -> Self {
        Self {
            slope: self.slope + other.slope,
            curvature: self.curvature + other.curvature,
            weight: self.weight + other.weight,
        }
    }

    fn minus(self, other: Self) -> Self {
        Self {
            slope: self.slope - other.slope,
            curvature: self.curvature - other.curvature,
            weight: self.weight - other.weight,
        }
    }
}

/// What the values of a leaf are held between.
#[derive(Clone, Copy)]
struct Bounds {
    low: f64,
    high: f64,
}

/// Where a leaf is best cut, and what that gains.
#[derive(Clone, Copy)]
struct Cut {
    feature: usize,
    bin: u8,
    unknown_left: bool,
    gain: f64,
    left: Sum,
    right: Sum,
}

/// A leaf that may still be cut.
struct Leaf {
    rows: Vec<u32>,
    total: Sum,
    bounds: Bounds,
    /// Per sampled feature, its bins and that of the unknown.
    histogram: Vec<Sum>,
    best: Option<Cut>,
    place: Place,
}

/// Which child of which node a leaf hangs on; the root hangs on none.
#[derive(Clone, Copy)]
enum Place {
    Root,
    Left(usize),
    Right(usize),
}

/// A child: a further node, or a leaf.
#[derive(Clone, Copy)]
pub(super) enum Child {
    Node(usize),
    Leaf(usize),
}

pub(super) struct Node {
    pub(super) feature: usize,
    pub(super) bin: u8,
    pub(super) unknown_left: bool,
    pub(super) left: Child,
    pub(super) right: Child,
}

/// A tree over bins. Children come behind their parents.
pub(super) struct Grown {
    pub(super) root: Child,
    pub(super) nodes: Vec<Node>,
    /// Values of the leaves, before shrinkage.
    pub(super) leaves: Vec<f64>,
    /// Feature and gain of each cut.
    pub(super) gains: Vec<(usize, f64)>,
}

impl Grown {
    /// The value that a row of the binned columns gets.
    pub(super) fn value(&self, columns: &[Binned], row: usize) -> f64 {
        let mut at = self.root;
        loop {
            match at {
                Child::Leaf(leaf) => return self.leaves[leaf],
                Child::Node(node) => {
                    let node = &self.nodes[node];
                    at = match node.goes_left(&columns[node.feature], row) {
                        true => node.left,
                        false => node.right,
                    };
                }
            }
        }
    }
}

impl Node {
    fn goes_left(&self, column: &Binned, row: usize) -> bool {
        let bin = column.bins[row];
        match usize::from(bin) == column.known() {
            true => self.unknown_left,
            false => bin <= self.bin,
        }
    }
}

/// What grows trees over one set of columns.
pub(super) struct Grower<'a> {
    pub(super) columns: &'a [Binned],
    pub(super) settings: &'a ForestSettings,
}

impl Grower<'_> {
    /// Grows a tree for these rows, cutting by these features only.
    pub(super) fn grow(&self, rows: Vec<u32>, features: &[usize], of_row: &[Sum]) -> Grown {
        let mut grown = Grown {
            root: Child::Leaf(0),
            nodes: Vec::new(),
            leaves: Vec::new(),
            gains: Vec::new(),
        };
        let histogram = self.histogram(&rows, features, of_row);
        let total = rows
            .iter()
            .fold(Sum::default(), |sum, &row| sum.plus(of_row[row as usize]));
        let bounds = Bounds {
            low: f64::NEG_INFINITY,
            high: f64::INFINITY,
        };
        let mut open = vec![self.leaf(rows, total, bounds, histogram, features, Place::Root)];
        while open.len() < usize::from(self.settings.leaves) {
            let Some((at, cut)) = best(&open) else { break };
            let leaf = open.swap_remove(at);
            let node = grown.nodes.len();
            open.extend(self.cut(leaf, cut, node, features, of_row, &mut grown));
        }
        for leaf in open {
            let value = self.value(leaf.total, leaf.bounds);
            let child = Child::Leaf(grown.leaves.len());
            grown.leaves.push(value);
            grown.hang(leaf.place, child);
        }
        grown
    }

    fn cut(
        &self,
        leaf: Leaf,
        cut: Cut,
        node: usize,
        features: &[usize],
        of_row: &[Sum],
        grown: &mut Grown,
    ) -> [Leaf; 2] {
        grown.hang(leaf.place, Child::Node(node));
        let made = Node {
            feature: cut.feature,
            bin: cut.bin,
            unknown_left: cut.unknown_left,
            // Both are set when what hangs there is known.
            left: Child::Leaf(0),
            right: Child::Leaf(0),
        };
        let column = &self.columns[cut.feature];
        let (left, right): (Vec<u32>, Vec<u32>) = leaf
            .rows
            .iter()
            .partition(|&&row| made.goes_left(column, row as usize));
        grown.nodes.push(made);
        grown.gains.push((cut.feature, cut.gain));

        let [below, above] = self.bounds(leaf.bounds, cut);
        let mut larger = leaf.histogram;
        let small = if left.len() <= right.len() {
            &left
        } else {
            &right
        };
        let smaller = self.histogram(small, features, of_row);
        for (sum, part) in larger.iter_mut().zip(&smaller) {
            *sum = sum.minus(*part);
        }
        let (of_left, of_right) = match left.len() <= right.len() {
            true => (smaller, larger),
            false => (larger, smaller),
        };
        [
            self.leaf(left, cut.left, below, of_left, features, Place::Left(node)),
            self.leaf(
                right,
                cut.right,
                above,
                of_right,
                features,
                Place::Right(node),
            ),
        ]
    }

    /// Bounds of the two sides of a cut.
    fn bounds(&self, bounds: Bounds, cut: Cut) -> [Bounds; 2] {
        let sign = self.sign(cut.feature);
        if sign == 0 {
            return [bounds; 2];
        }
        let middle = f64::midpoint(self.value(cut.left, bounds), self.value(cut.right, bounds));
        let low = Bounds {
            high: middle,
            ..bounds
        };
        let high = Bounds {
            low: middle,
            ..bounds
        };
        if sign > 0 { [low, high] } else { [high, low] }
    }

    fn leaf(
        &self,
        rows: Vec<u32>,
        total: Sum,
        bounds: Bounds,
        histogram: Vec<Sum>,
        features: &[usize],
        place: Place,
    ) -> Leaf {
        let best = self.best_cut(total, bounds, &histogram, features);
        Leaf {
            rows,
            total,
            bounds,
            histogram,
            best,
            place,
        }
    }

    fn histogram(&self, rows: &[u32], features: &[usize], of_row: &[Sum]) -> Vec<Sum> {
        // Gathered once, so that each feature reads them in a row.
        let sums: Vec<Sum> = rows.iter().map(|&row| of_row[row as usize]).collect();
        let length = features.iter().map(|&f| self.columns[f].known() + 1).sum();
        let mut histogram = vec![Sum::default(); length];
        let mut start = 0;
        for &feature in features {
            let column = &self.columns[feature];
            let end = start + column.known() + 1;
            let bins = &mut histogram[start..end];
            for (&row, &sum) in rows.iter().zip(&sums) {
                let bin = &mut bins[usize::from(column.bins[row as usize])];
                *bin = bin.plus(sum);
            }
            start = end;
        }
        histogram
    }

    fn best_cut(
        &self,
        total: Sum,
        bounds: Bounds,
        histogram: &[Sum],
        features: &[usize],
    ) -> Option<Cut> {
        let least = self.settings.least_rows;
        // Weights are sums of floats: what differs by rounding only is enough.
        let enough = |sum: Sum| sum.weight >= least * (1.0 - 1e-9);
        if total.weight < 2.0 * least * (1.0 - 1e-9) {
            return None;
        }
        let uncut = self.loss(total, self.value(total, bounds));
        let mut best: Option<Cut> = None;
        let mut start = 0;
        for &feature in features {
            let known = self.columns[feature].known();
            let bins = &histogram[start..start + known];
            let unknown = histogram[start + known];
            start += known + 1;
            let some_unknown = unknown.weight > least * 1e-9;
            let sign = self.sign(feature);
            let mut below = Sum::default();
            for (bin, &sum) in bins.iter().enumerate() {
                below = below.plus(sum);
                // Behind the last bin there is only the unknown.
                let ways: &[bool] = match some_unknown {
                    true if bin + 1 == known => &[false],
                    true => &[false, true],
                    false if bin + 1 == known => &[],
                    false => &[false],
                };
                for &unknown_left in ways {
                    let left = if unknown_left {
                        below.plus(unknown)
                    } else {
                        below
                    };
                    let right = total.minus(left);
                    if !enough(left) || !enough(right) {
                        continue;
                    }
                    let (low, high) = (self.value(left, bounds), self.value(right, bounds));
                    if (sign > 0 && low > high) || (sign < 0 && low < high) {
                        continue;
                    }
                    let gain = uncut - self.loss(left, low) - self.loss(right, high);
                    if gain > best.map_or(LEAST_GAIN, |best| best.gain) {
                        best = Some(Cut {
                            feature,
                            bin: bin as u8,
                            // Where none was seen, with the heavier side.
                            unknown_left: match some_unknown {
                                true => unknown_left,
                                false => left.weight >= right.weight,
                            },
                            gain,
                            left,
                            right,
                        });
                    }
                }
            }
        }
        best
    }

    fn sign(&self, feature: usize) -> i8 {
        self.settings.monotone.get(feature).copied().unwrap_or(0)
    }

    /// The value within the bounds that lowers the loss most.
    fn value(&self, sum: Sum, bounds: Bounds) -> f64 {
        let free = -sum.slope / (sum.curvature + self.settings.l2).max(LEAST_CURVATURE);
        free.max(bounds.low).min(bounds.high)
    }

    /// What the loss becomes with this value, less what it is with 0.
    fn loss(&self, sum: Sum, value: f64) -> f64 {
        value * (sum.slope + 0.5 * (sum.curvature + self.settings.l2) * value)
    }
}

/// Below this a gain is rounding.
const LEAST_GAIN: f64 = 1e-9;

/// Keeps a leaf finite whose rows are all predicted with certainty.
const LEAST_CURVATURE: f64 = 1e-12;

impl Grown {
    fn hang(&mut self, place: Place, child: Child) {
        match place {
            Place::Root => self.root = child,
            Place::Left(node) => self.nodes[node].left = child,
            Place::Right(node) => self.nodes[node].right = child,
        }
    }
}

fn best(open: &[Leaf]) -> Option<(usize, Cut)> {
    let mut best: Option<(usize, Cut)> = None;
    for (at, leaf) in open.iter().enumerate() {
        if let Some(cut) = leaf.best
            && best.is_none_or(|(_, found)| cut.gain > found.gain)
        {
            best = Some((at, cut));
        }
    }
    best
}
