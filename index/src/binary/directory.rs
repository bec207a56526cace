//! Which cells there are, which one a vector belongs to, and which ones a query may find its
//! neighbours in.
//!
//! Cells come from splitting: a cell that is too large is cut in two by a plane. The planes stay,
//! as the inner nodes of a tree, so the cell of a vector is found by going down from the root, and
//! is the same for a row when it is stored and for a query by the same vector later: no row can get
//! out of reach of its own vector. A search looks at that cell first, and then at those whose
//! centers are most similar to the query.
//!
//! A directory never changes. A writer that splits or merges cells makes a new one and puts it in
//! place of the old. A cell that only had to be larger is exchanged within the directory: it has
//! the same rows and the same center.
//!
//! Always true: cell `i` of the directory is cell `i` of the writer, and each cell is exactly one
//! leaf of the tree.

use std::mem::size_of;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::cell::Cell;
use super::encode::{Encoded, Encoder};
use crate::kernel::RowLine;

/// Where a plane leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Child {
    Node(u32),
    Cell(u32),
}

/// An inner node of the tree.
#[derive(Clone, Copy, Debug)]
pub(super) struct Node {
    /// Rows whose product with the plane is greater go left.
    pub(super) bias: i32,
    pub(super) left: Child,
    pub(super) right: Child,
}

/// What is kept of a center beside its components, which are in [`Directory::centers`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Center {
    /// What a component is worth.
    pub(super) scale: f32,
    /// Length of the center, below 1 as it is the mean of unit vectors.
    pub(super) norm: f32,
}

impl Center {
    /// The center of a cell that has none: zero.
    pub(super) const NONE: Self = Self {
        scale: 0.0,
        norm: 0.0,
    };

    /// Squared distance of a unit vector from the center, by its cosine to it.
    pub(super) fn squared_distance(&self, cosine: f32) -> f32 {
        (1.0 + self.norm * (self.norm - 2.0 * cosine)).max(0.0)
    }
}

/// The cells at one moment.
#[derive(Debug)]
pub(super) struct Directory {
    pub(super) lines: usize,
    pub(super) root: Child,
    pub(super) nodes: Vec<Node>,
    /// One row of components for each node.
    pub(super) planes: Vec<RowLine>,
    pub(super) about: Vec<Center>,
    /// One row of components for each cell.
    pub(super) centers: Vec<RowLine>,
    pub(super) cells: Vec<ArcSwap<Cell>>,
}

impl Directory {
    /// One cell, with no center.
    pub(super) fn of_one(lines: usize, cell: &Arc<Cell>) -> Self {
        Self {
            lines,
            root: Child::Cell(0),
            nodes: Vec::new(),
            planes: Vec::new(),
            about: vec![Center::NONE],
            centers: vec![RowLine([0; 64]); lines],
            cells: vec![ArcSwap::new(Arc::clone(cell))],
        }
    }

    /// A copy with room for one node and one cell more.
    pub(super) fn copy(&self) -> Self {
        fn with_room<T: Copy>(items: &[T], more: usize) -> Vec<T> {
            let mut copy = Vec::with_capacity(items.len() + more);
            copy.extend_from_slice(items);
            copy
        }
        let mut cells = Vec::with_capacity(self.cells.len() + 1);
        cells.extend(self.cells.iter().map(|cell| ArcSwap::new(cell.load_full())));
        Self {
            lines: self.lines,
            root: self.root,
            nodes: with_room(&self.nodes, 1),
            planes: with_room(&self.planes, self.lines),
            about: with_room(&self.about, 1),
            centers: with_room(&self.centers, self.lines),
            cells,
        }
    }

    pub(super) fn center(&self, cell: usize) -> &[RowLine] {
        &self.centers[cell * self.lines..][..self.lines]
    }

    fn plane(&self, node: usize) -> &[RowLine] {
        &self.planes[node * self.lines..][..self.lines]
    }

    /// The cell that a row with this first plane belongs to.
    pub(super) fn home(&self, encoder: &Encoder, high: &[RowLine]) -> usize {
        let mut at = self.root;
        loop {
            match at {
                Child::Cell(cell) => return cell as usize,
                Child::Node(node) => {
                    let (plane, node) = (self.plane(node as usize), &self.nodes[node as usize]);
                    let mut product = [0];
                    encoder.kernel.dot_lines(high, plane, &mut product);
                    at = if product[0] > node.bias {
                        node.left
                    } else {
                        node.right
                    };
                }
            }
        }
    }

    /// Has whatever leads to `old` lead to `new`.
    pub(super) fn link(&mut self, old: Child, new: Child) {
        if self.root == old {
            self.root = new;
        }
        for node in &mut self.nodes {
            for child in [&mut node.left, &mut node.right] {
                if *child == old {
                    *child = new;
                }
            }
        }
    }

    /// Takes a cell out; the last one gets its number. What was beside it takes the place of both.
    pub(super) fn take_out(&mut self, number: usize) {
        let leaf = Child::Cell(number as u32);
        let Some(parent) = self
            .nodes
            .iter()
            .position(|node| node.left == leaf || node.right == leaf)
        else {
            return;
        };
        let Node { left, right, .. } = self.nodes[parent];
        let beside = if left == leaf { right } else { left };
        // Nothing leads to this node any more, so its own children do not count.
        self.nodes.swap_remove(parent);
        swap_remove(&mut self.planes, parent, self.lines);
        let moved = Child::Node(self.nodes.len() as u32);
        let gone = Child::Node(parent as u32);
        if moved == gone {
            self.link(gone, beside);
        } else {
            // Two changes at once: what led to the node that is gone, and to the one that moved.
            let beside = if beside == moved { gone } else { beside };
            let change = |child: &mut Child| {
                if *child == gone {
                    *child = beside;
                } else if *child == moved {
                    *child = gone;
                }
            };
            change(&mut self.root);
            for node in &mut self.nodes {
                change(&mut node.left);
                change(&mut node.right);
            }
        }
        self.cells.swap_remove(number);
        self.about.swap_remove(number);
        swap_remove(&mut self.centers, number, self.lines);
        let last = Child::Cell(self.cells.len() as u32);
        if last != leaf {
            self.link(last, leaf);
        }
    }

    /// Cosine of the query to the center of each cell.
    pub(super) fn similarities(
        &self,
        encoder: &Encoder,
        query: &Encoded,
        products: &mut Vec<i32>,
        out: &mut Vec<f32>,
    ) {
        products.clear();
        products.resize(self.cells.len(), 0);
        encoder
            .kernel
            .dot_lines(&query.high, &self.centers, products);
        let step = 256.0 * query.step as f32;
        out.clear();
        out.extend(products.iter().zip(&self.about).map(|(&product, center)| {
            if center.norm > 0.0 {
                product as f32 * step * center.scale / center.norm
            } else {
                0.0
            }
        }));
    }

    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>()
            + self.nodes.capacity() * size_of::<Node>()
            + (self.planes.capacity() + self.centers.capacity()) * size_of::<RowLine>()
            + self.about.capacity() * size_of::<Center>()
            + self.cells.capacity() * size_of::<ArcSwap<Cell>>()
    }
}

/// Removes one row of lines; the last one takes its place.
fn swap_remove(rows: &mut Vec<RowLine>, at: usize, lines: usize) {
    let last = rows.len() - lines;
    rows.copy_within(last.., at * lines);
    rows.truncate(last);
}
