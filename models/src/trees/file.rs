//! A forest as a file holds it: flat lists, checked when they are read.

use serde::{Deserialize, Serialize};

use super::grow::Child;
use super::scan::{MOST_FEATURES, Scan};
use super::{Child32, Forest, Node};

/// Lists of equal length describe the cuts. A child is the number of a cut that comes later, or the number
/// of a leaf with its bits turned over.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ForestFile {
    base: f64,
    /// Per feature.
    importance: Vec<f32>,
    /// Per tree, its first cut, or its only leaf.
    roots: Vec<Child32>,
    feature: Vec<u16>,
    threshold: Vec<f32>,
    /// 1 where a value that is not known goes left, else 0.
    unknown_left: Vec<u8>,
    left: Vec<Child32>,
    right: Vec<Child32>,
    /// Value per leaf.
    leaves: Vec<f32>,
}

impl From<Forest> for ForestFile {
    fn from(forest: Forest) -> Self {
        let nodes = &forest.nodes;
        Self {
            base: forest.base,
            importance: forest.importance,
            roots: forest.roots,
            feature: nodes.iter().map(|node| node.feature).collect(),
            threshold: nodes.iter().map(|node| node.threshold).collect(),
            unknown_left: nodes
                .iter()
                .map(|node| u8::from(node.unknown_left))
                .collect(),
            left: nodes.iter().map(|node| node.left).collect(),
            right: nodes.iter().map(|node| node.right).collect(),
            leaves: forest.leaves,
        }
    }
}

impl TryFrom<ForestFile> for Forest {
    type Error = String;

    fn try_from(file: ForestFile) -> Result<Self, String> {
        let cuts = file.feature.len();
        let lengths = [
            file.threshold.len(),
            file.unknown_left.len(),
            file.left.len(),
            file.right.len(),
        ];
        if lengths.iter().any(|&length| length != cuts) {
            return Err("the lists of a forest's cuts are not of one length".to_owned());
        }
        if !file.base.is_finite() {
            return Err("the base of a forest is not finite".to_owned());
        }
        let finite = |list: &[f32]| list.iter().all(|value| value.is_finite());
        if !finite(&file.threshold) || !finite(&file.leaves) || !finite(&file.importance) {
            return Err("a forest has a number that is not finite".to_owned());
        }
        let features = file.importance.len();
        if features > MOST_FEATURES {
            return Err(format!(
                "a forest has {features} features, most are {MOST_FEATURES}"
            ));
        }
        if let Some(feature) = file.feature.iter().find(|&&f| usize::from(f) >= features) {
            return Err(format!(
                "a forest of {features} features cuts by feature {feature}"
            ));
        }
        if file.unknown_left.iter().any(|&flag| flag > 1) {
            return Err("a flag of a forest is neither 0 nor 1".to_owned());
        }
        check_shape(&file)?;
        let nodes: Vec<Node> = (0..cuts)
            .map(|at| Node {
                threshold: file.threshold[at],
                feature: file.feature[at],
                unknown_left: file.unknown_left[at] == 1,
                left: file.left[at],
                right: file.right[at],
            })
            .collect();
        Ok(Self {
            scan: Scan::new(features, &file.roots, &nodes, &file.leaves)?,
            base: file.base,
            nodes,
            leaves: file.leaves,
            roots: file.roots,
            importance: file.importance,
        })
    }
}

/// Every cut and every leaf hangs on exactly one place, and a cut's children come behind it: so there is
/// no circle, and every walk ends.
fn check_shape(file: &ForestFile) -> Result<(), String> {
    let mut hung = [
        vec![false; file.feature.len()],
        vec![false; file.leaves.len()],
    ];
    let mut hang = |child: Child32, first: usize| {
        let (kind, place) = match child.child() {
            Child::Node(node) if node < first => {
                return Err("a cut of a forest points back".to_owned());
            }
            Child::Node(node) => (0, node),
            Child::Leaf(leaf) => (1, leaf),
        };
        match hung[kind].get_mut(place) {
            None => Err("a cut of a forest points behind its end".to_owned()),
            Some(true) => Err("two cuts of a forest point at one place".to_owned()),
            Some(free) => {
                *free = true;
                Ok(())
            }
        }
    };
    for &root in &file.roots {
        hang(root, 0)?;
    }
    for (at, (&left, &right)) in file.left.iter().zip(&file.right).enumerate() {
        hang(left, at + 1)?;
        hang(right, at + 1)?;
    }
    match hung.iter().flatten().all(|&hung| hung) {
        true => Ok(()),
        false => Err("a cut or a leaf of a forest hangs on nothing".to_owned()),
    }
}
