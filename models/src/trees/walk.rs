//! The way through a forest: its trees laid out so that eight are walked at a time.
//!
//! A walk is a chain of loads, each waiting for the one before, and whether it goes left can hardly be
//! foretold. So eight trees are walked in step, without a branch: while one load is under way the others go
//! on. A tree that ends early stays at its leaf, which leads to itself. The two children of a cut lie side
//! by side, so one number tells where both are, and a step is 8 bytes.

use super::grow::Child;
use super::{Child32, Node};

/// Trees walked at a time.
const LANES: usize = 8;

/// Most features of a forest: one bit of a feature's number is a flag.
pub(super) const MOST_FEATURES: usize = UNKNOWN_LEFT as usize;

/// Flag beside the number of a feature: a value that is not known goes left.
const UNKNOWN_LEFT: u16 = 1 << 15;

/// A cut or a leaf, by its place in the tree.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Step {
    threshold: f32,
    /// Number of the feature, and the flag.
    feature: u16,
    /// Place of the left child; the right one is behind it. For a leaf its own.
    next: u16,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Tree {
    /// Where its root is among all steps.
    start: u32,
    /// Steps from the root to the farthest leaf.
    depth: u32,
}

/// A forest, ready to be walked.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Walk {
    steps: Vec<Step>,
    /// Per step, the value of a leaf.
    values: Vec<f32>,
    /// Filled up to a multiple of [`LANES`] with trees that add nothing.
    trees: Vec<Tree>,
}

impl Walk {
    /// Lays trees out whose children lie behind their parents.
    pub(super) fn new(roots: &[Child32], nodes: &[Node], leaves: &[f32]) -> Result<Self, String> {
        let mut walk = Self {
            steps: Vec::with_capacity(nodes.len() + leaves.len() + LANES),
            values: Vec::with_capacity(nodes.len() + leaves.len() + LANES),
            trees: Vec::with_capacity(roots.len().next_multiple_of(LANES)),
        };
        for root in roots {
            walk.add(root.child(), nodes, leaves)?;
        }
        while !walk.trees.len().is_multiple_of(LANES) {
            walk.add(Child::Leaf(0), &[], &[0.0])?;
        }
        // Shallow trees together, so that few wait for a deep one.
        walk.trees.sort_by_key(|tree| tree.depth);
        Ok(walk)
    }

    fn add(&mut self, root: Child, nodes: &[Node], leaves: &[f32]) -> Result<(), String> {
        let start = self.steps.len();
        let too_large = || "a tree of a forest has more than 65,535 cuts and leaves".to_owned();
        // Level by level: what is at each place, and how far it is from the root.
        let mut places = vec![(root, 0)];
        let mut place = 0;
        while let Some(&(child, depth)) = places.get(place) {
            let (step, value) = match child {
                Child::Leaf(leaf) => (
                    Step {
                        threshold: f32::INFINITY,
                        feature: UNKNOWN_LEFT,
                        next: u16::try_from(place).map_err(|_| too_large())?,
                    },
                    leaves[leaf],
                ),
                Child::Node(node) => {
                    let Node {
                        threshold,
                        feature,
                        unknown_left,
                        left,
                        right,
                    } = nodes[node];
                    let next = u16::try_from(places.len()).map_err(|_| too_large())?;
                    places.extend([left, right].map(|child| (child.child(), depth + 1)));
                    let feature = if unknown_left {
                        feature | UNKNOWN_LEFT
                    } else {
                        feature
                    };
                    (
                        Step {
                            threshold,
                            feature,
                            next,
                        },
                        0.0,
                    )
                }
            };
            self.steps.push(step);
            self.values.push(value);
            place += 1;
        }
        self.trees.push(Tree {
            start: u32::try_from(start).map_err(|_| "a forest is too large".to_owned())?,
            depth: places.last().map_or(0, |(_, depth)| *depth),
        });
        Ok(())
    }

    /// Sum of the trees' values. `features` has all features of the forest, and at least one.
    pub(super) fn sum(&self, features: &[f32]) -> f64 {
        let mut sum = 0.0;
        let (groups, _) = self.trees.as_chunks::<LANES>();
        for group in groups {
            let starts = group.map(|tree| tree.start as usize);
            let mut places = starts;
            // The deepest tree is the last.
            for _ in 0..group[LANES - 1].depth {
                for (place, start) in places.iter_mut().zip(starts) {
                    let step = self.steps[*place];
                    let value = features[usize::from(step.feature & !UNKNOWN_LEFT)];
                    let unknown_left = step.feature & UNKNOWN_LEFT != 0;
                    let left = (value <= step.threshold) | (unknown_left & value.is_nan());
                    *place = start + usize::from(step.next) + usize::from(!left);
                }
            }
            for place in places {
                sum += f64::from(self.values[place]);
            }
        }
        sum
    }
}
