//! Which cells there are, and which of them are like a vector.
//!
//! A row belongs to the cell whose center is most similar to it, so the cells that are most similar
//! to a query are where its neighbours are. See `twins` for the guarantee, and `split` for where
//! centers come from.
//!
//! A directory never changes. A writer that splits cells or takes one out makes a new directory with
//! new cells and puts it in place of the old; a search that began with the old one finishes with
//! it, and with the rows as they were. A cell that only had to be larger is exchanged within the
//! directory: it has the same rows and the same center.
//!
//! Always true: cell `i` of the directory is cell `i` of the writer.

use std::mem::size_of;
use std::sync::Arc;

use super::cell::Cell;
use super::encode::Encoder;
use super::sync::ArcSwap;
use crate::kernel::RowLine;

/// What is kept of a center beside its components, which are in [`Directory::centers`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Center {
    /// What a component is worth.
    pub(super) scale: f32,
    /// Length of the center, below 1 as it is the mean of unit vectors.
    pub(super) norm: f32,
    /// What a component is worth of the center's direction: each search asks every center.
    unit_scale: f32,
}

impl Center {
    /// The center of a cell that has none: zero.
    pub(super) const NONE: Self = Self {
        scale: 0.0,
        norm: 0.0,
        unit_scale: 0.0,
    };

    pub(super) fn new(scale: f32, norm: f32) -> Self {
        let unit_scale = if norm > 0.0 { scale / norm } else { 0.0 };
        Self {
            scale,
            norm,
            unit_scale,
        }
    }

    /// Squared distance of a unit vector from the center, by its cosine to it.
    pub(super) fn squared_distance(&self, cosine: f32) -> f32 {
        (1.0 + self.norm * (self.norm - 2.0 * cosine)).max(0.0)
    }

    /// The cosine to the center that a product with its components stands for, if a step of the
    /// other factor is worth `step`.
    pub(super) fn cosine(&self, product: i32, step: f32) -> f32 {
        product as f32 * step * self.unit_scale
    }
}

/// The cells at one moment.
#[derive(Debug)]
pub(super) struct Directory {
    pub(super) lines: usize,
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
            about: vec![Center::NONE],
            centers: vec![RowLine([0; 64]); lines],
            cells: vec![ArcSwap::new(Arc::clone(cell))],
        }
    }

    /// A copy with room for one cell more.
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
            about: with_room(&self.about, 1),
            centers: with_room(&self.centers, self.lines),
            cells,
        }
    }

    pub(super) fn center(&self, cell: usize) -> &[RowLine] {
        &self.centers[cell * self.lines..][..self.lines]
    }

    /// Gives a cell another center.
    pub(super) fn set_center(&mut self, cell: usize, center: &[RowLine], about: Center) {
        self.centers[cell * self.lines..][..self.lines].copy_from_slice(center);
        self.about[cell] = about;
    }

    /// Takes a cell out; the last one gets its number.
    pub(super) fn take_out(&mut self, number: usize) {
        self.cells.swap_remove(number);
        self.about.swap_remove(number);
        let last = self.centers.len() - self.lines;
        self.centers.copy_within(last.., number * self.lines);
        self.centers.truncate(last);
    }

    /// Cosine to the center of each cell of a vector with this first plane, whose step is worth
    /// `step`.
    pub(super) fn similarities(
        &self,
        encoder: &Encoder,
        high: &[RowLine],
        step: f32,
        products: &mut Vec<i32>,
        out: &mut Vec<f32>,
    ) {
        products.clear();
        products.resize(self.cells.len(), 0);
        encoder.kernel.dot_lines(high, &self.centers, products);
        out.clear();
        let centers = products.iter().zip(&self.about);
        out.extend(centers.map(|(&product, center)| center.cosine(product, step)));
    }

    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>()
            + self.centers.capacity() * size_of::<RowLine>()
            + self.about.capacity() * size_of::<Center>()
            + self.cells.capacity() * size_of::<ArcSwap<Cell>>()
    }
}

/// Place of the largest, the first of equal ones.
pub(super) fn most_similar(similarities: &[f32]) -> usize {
    const LANES: usize = 8;
    // Lane by lane, so that it is done with vector instructions.
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let (whole, rest) = similarities.as_chunks::<LANES>();
    let mut largest = [f32::NEG_INFINITY; LANES];
    for lanes in whole {
        for (largest, &similarity) in largest.iter_mut().zip(lanes) {
            *largest = larger(*largest, similarity);
        }
    }
    let largest = largest.iter().chain(rest).copied();
    let largest = largest.fold(f32::NEG_INFINITY, larger);
    let mut places = similarities.iter();
    places.position(|&s| s == largest).unwrap_or(0)
}
