//! What the trees of a forest say of a row, found feature by feature rather than tree by tree.
//!
//! A walk down a tree is a chain of loads, each waiting for the one before. Here the leaves of a tree are
//! bits, from left to right, and a cut knows which leaves are not on its left. The cuts of a feature lie in the
//! order of their thresholds, those of all trees together: all cuts that the value is above lead to the right, so
//! they take out the leaves on their left, and none of these steps waits for another. The first leaf that a tree
//! has left is where a walk would have ended. The algorithm is QuickScorer (Lucchese et al., SIGIR 2015).

use super::grow::Child;
use super::{Child32, Node};

/// Most features of a forest.
pub(super) const MOST_FEATURES: usize = 1 << 15;

/// Leaves in a word.
const LEAVES: usize = u64::BITS as usize;

/// Words that trees are scanned together up to: the number of a word is a byte. Mostly a tree is one word.
const WORDS: usize = u8::MAX as usize + 1;

/// A forest, ready to be asked.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Scan {
    blocks: Vec<Block>,
}

/// Trees that are scanned together.
#[derive(Clone, Debug, Default, PartialEq)]
struct Block {
    features: Vec<Feature>,
    /// Thresholds, by feature, each once and least first.
    thresholds: Vec<f32>,
    /// Per threshold, where its cuts end in `known`.
    ends: Vec<usize>,
    /// What is taken out by cuts that a value is above, by feature and threshold.
    known: Vec<Cut>,
    /// What is taken out where a value is not known, by feature.
    unknown: Vec<Cut>,
    trees: Vec<Tree>,
    /// Values of the leaves, tree by tree, from left to right.
    values: Vec<f32>,
    words: usize,
}

/// Where the thresholds and the cuts of a feature end; they begin where those of the one before end.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Feature {
    thresholds: usize,
    known: usize,
    unknown: usize,
}

/// What a cut takes out of one word of leaves.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Cut {
    word: u8,
    /// The leaves that stay.
    leaves: u64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Tree {
    /// Its first and its last word.
    word: u8,
    last_word: u8,
    /// Place of its first leaf's value.
    value: u32,
}

/// The cuts of one feature while a block is laid out.
#[derive(Default)]
struct Cuts {
    known: Vec<(f32, Cut)>,
    unknown: Vec<Cut>,
}

impl Scan {
    /// Lays trees out whose children lie behind their parents, and whose cuts are by features below `features`.
    pub(super) fn new(
        features: usize,
        roots: &[Child32],
        nodes: &[Node],
        leaves: &[f32],
    ) -> Result<Self, String> {
        let mut blocks = Vec::new();
        let mut block = Block::default();
        let mut cuts: Vec<Cuts> = Vec::new();
        cuts.resize_with(features, Cuts::default);
        for root in roots {
            let tree = Laid::of(root.child(), nodes, leaves);
            let words = tree.values.len().div_ceil(LEAVES);
            if words > WORDS {
                let most = LEAVES * WORDS;
                return Err(format!("a tree of a forest has more than {most} leaves"));
            }
            if block.words + words > WORDS {
                block.close(&mut cuts);
                blocks.push(std::mem::take(&mut block));
            }
            block.add(&tree, nodes, &mut cuts);
        }
        block.close(&mut cuts);
        blocks.push(block);
        Ok(Self { blocks })
    }

    /// Sum of the trees' values. `features` has at least as many values as the forest has features.
    pub(super) fn sum(&self, features: &[f32]) -> f64 {
        self.blocks.iter().map(|block| block.sum(features)).sum()
    }
}

/// The leaves of a tree from left to right, and which of them are on the left of each cut.
struct Laid {
    values: Vec<f32>,
    cuts: Vec<(usize, std::ops::Range<usize>)>,
}

impl Laid {
    fn of(root: Child, nodes: &[Node], leaves: &[f32]) -> Self {
        enum Visit {
            To(Child),
            /// Back from the left side of a cut, which began with this leaf.
            FromLeft(usize, usize),
        }
        let (mut values, mut cuts) = (Vec::new(), Vec::new());
        let mut visits = vec![Visit::To(root)];
        while let Some(visit) = visits.pop() {
            match visit {
                Visit::To(Child::Leaf(leaf)) => values.push(leaves[leaf]),
                Visit::To(Child::Node(node)) => {
                    visits.push(Visit::To(nodes[node].right.child()));
                    visits.push(Visit::FromLeft(node, values.len()));
                    visits.push(Visit::To(nodes[node].left.child()));
                }
                Visit::FromLeft(node, first) => cuts.push((node, first..values.len())),
            }
        }
        Self { values, cuts }
    }
}

impl Block {
    /// Takes a tree in, for which there are words left.
    fn add(&mut self, tree: &Laid, nodes: &[Node], cuts: &mut [Cuts]) {
        for (node, on_left) in &tree.cuts {
            let Node {
                threshold,
                feature,
                unknown_left,
                ..
            } = nodes[*node];
            for word in on_left.start / LEAVES..on_left.end.div_ceil(LEAVES) {
                let place = |leaf: usize| leaf.saturating_sub(word * LEAVES).min(LEAVES) as u32;
                let below = |place: u32| u64::MAX.checked_shr(u64::BITS - place).unwrap_or(0);
                let cut = Cut {
                    word: (self.words + word) as u8,
                    leaves: !(below(place(on_left.end)) & !below(place(on_left.start))),
                };
                let of_feature = &mut cuts[usize::from(feature)];
                of_feature.known.push((threshold, cut));
                if !unknown_left {
                    of_feature.unknown.push(cut);
                }
            }
        }
        let words = tree.values.len().div_ceil(LEAVES);
        self.trees.push(Tree {
            word: self.words as u8,
            last_word: (self.words + words - 1) as u8,
            value: self.values.len() as u32,
        });
        self.words += words;
        self.values.extend_from_slice(&tree.values);
    }

    /// Lays out the cuts, and leaves none.
    fn close(&mut self, cuts: &mut [Cuts]) {
        for Cuts { known, unknown } in cuts {
            known.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.word.cmp(&b.1.word)));
            for (threshold, cut) in known.drain(..) {
                let first = self.features.last().map_or(0, |feature| feature.thresholds);
                if self.thresholds[first..].last() != Some(&threshold) {
                    self.thresholds.push(threshold);
                    self.ends.push(self.known.len());
                }
                self.known.push(cut);
                if let Some(end) = self.ends.last_mut() {
                    *end = self.known.len();
                }
            }
            unknown.sort_by_key(|cut| cut.word);
            unknown.dedup_by(|next, cut| {
                let same = next.word == cut.word;
                if same {
                    cut.leaves &= next.leaves;
                }
                same
            });
            self.unknown.append(unknown);
            self.features.push(Feature {
                thresholds: self.thresholds.len(),
                known: self.known.len(),
                unknown: self.unknown.len(),
            });
        }
    }

    fn sum(&self, features: &[f32]) -> f64 {
        let mut left = [u64::MAX; WORDS];
        let mut start = Feature::default();
        for (&value, &end) in features.iter().zip(&self.features) {
            let out = if value.is_nan() {
                &self.unknown[start.unknown..end.unknown]
            } else {
                let thresholds = &self.thresholds[start.thresholds..end.thresholds];
                let below = thresholds.partition_point(|&threshold| threshold < value);
                let end = match below {
                    0 => start.known,
                    below => self.ends[start.thresholds + below - 1],
                };
                &self.known[start.known..end]
            };
            for cut in out {
                left[usize::from(cut.word)] &= cut.leaves;
            }
            start = end;
        }
        let mut sum = 0.0;
        for tree in &self.trees {
            let mut leaf = tree.value as usize;
            for word in tree.word..=tree.last_word {
                let word = left[usize::from(word)];
                leaf += word.trailing_zeros() as usize;
                if word != 0 {
                    break;
                }
            }
            sum += f64::from(self.values[leaf]);
        }
        sum
    }
}
