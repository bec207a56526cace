//! What this crate asks of `hnsw_rs`: nodes in, nodes out.
//!
//! The graph holds int8 codes and not f32 rows: it is walked faster and takes a quarter of the
//! room, and the caller rescores what it returns by the exact rows. Walking costs cache misses and
//! not arithmetic, so the codes are the plain kind.
//!
//! `hnsw_rs` has rules of its own, kept here:
//! - a distance that is negative or NaN panics, so [`CodeDistance`] clamps;
//! - more than 256 links end the process, so [`crate::HnswConfig`] allows 128;
//! - inserting during a search is not promised by its documentation, so all inserts come first;
//! - it keeps pointers behind pointers, so a large graph takes seconds to free: that is left to the
//!   shared thread.

use hnsw_rs::prelude::{Distance, Hnsw};

use crate::background;
use crate::config::HnswConfig;
use crate::kernel::Kernel;

/// Most layers that `hnsw_rs` can have.
const LAYERS: usize = 16;

/// Bytes at the end of a row of codes that hold the inverse of its length.
const TAIL: usize = 4;

/// Nodes from which on a graph is freed by the shared thread.
const SLOW_TO_FREE: usize = 10_000;

/// A graph over nodes that are numbered by the caller.
pub(super) struct Graph {
    /// Always there until the drop.
    hnsw: Option<Hnsw<'static, i8, CodeDistance>>,
}

/// A node that a search found, and its distance by the codes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    pub(super) node: u32,
    pub(super) distance: f32,
}

impl Graph {
    /// An empty graph with room in its tables for `expected` nodes; it grows past them.
    pub(super) fn new(config: &HnswConfig, expected: usize) -> Self {
        let distance = CodeDistance {
            kernel: Kernel::detect(),
        };
        let HnswConfig {
            links,
            ef_construction,
            ..
        } = *config;
        Self {
            hnsw: Some(Hnsw::new(
                links,
                expected,
                LAYERS,
                ef_construction,
                distance,
            )),
        }
    }

    /// Links a node. One call at a time, and before the first search.
    pub(super) fn insert(&self, codes: &[i8], node: u32) {
        if let Some(hnsw) = &self.hnsw {
            hnsw.insert_slice((codes, node as usize));
        }
    }

    /// Up to `ef` nodes near the vector of these codes, nearest first.
    pub(super) fn search(&self, codes: &[i8], ef: usize) -> Vec<Found> {
        let Some(hnsw) = &self.hnsw else {
            return Vec::new();
        };
        let found = hnsw.search(codes, ef, ef).into_iter();
        // Numbers that insert() did not give cannot come back.
        found
            .filter_map(|neighbour| {
                let node = u32::try_from(neighbour.d_id).ok()?;
                Some(Found {
                    node,
                    distance: neighbour.distance,
                })
            })
            .collect()
    }

    /// Estimated heap bytes of a graph of `nodes` nodes. `hnsw_rs` does not tell; the shape of its
    /// nodes does, but for the number of links they keep. The test
    /// `the_estimate_of_a_graph_is_near_what_the_allocator_gave` holds it to the truth.
    pub(super) fn bytes(nodes: usize, dimension: usize, links: usize) -> usize {
        // The node behind its pointer, its lock, and a list for each of 16 layers.
        const NODE: usize = 96 + 64 + LAYERS * 24 + 8;
        // A pointer in the list, and what it points to: counts, node pointer, distance.
        const LINK: usize = 8 + 32;
        // Allocations are rounded up to 16 bytes and have a header.
        const ROUNDING: usize = 3 * 16;
        // Links a node keeps on average in clustered data, measured at 3000 rows with 16 and with
        // 32 links allowed: most are left out because a nearer neighbour leads the same way.
        const KEPT: usize = 28;
        nodes * (NODE + ROUNDING + dimension + TAIL + KEPT.min(2 * links) * LINK)
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        if let Some(hnsw) = self.hnsw.take()
            && hnsw.get_nb_point() >= SLOW_TO_FREE
        {
            // Without a shared thread the job is dropped here, and the graph with it.
            background::run(move || drop(hnsw));
        }
    }
}

impl std::fmt::Debug for Graph {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let nodes = self.hnsw.as_ref().map_or(0, Hnsw::get_nb_point);
        f.debug_struct("Graph")
            .field("nodes", &nodes)
            .finish_non_exhaustive()
    }
}

/// Codes of a unit-length vector: its components scaled so that the largest is 127, then the
/// inverse of the codes' own length, so that equal rows are at distance 0.
pub(super) fn encode(unit: &[f32]) -> Vec<i8> {
    let mut codes = Codes::new(unit.len(), 1);
    codes.push(unit);
    codes.codes
}

/// Codes of many vectors, side by side.
pub(super) struct Codes {
    width: usize,
    codes: Vec<i8>,
}

impl Codes {
    /// With room for the codes of `rows` vectors.
    pub(super) fn new(dimension: usize, rows: usize) -> Self {
        let width = dimension + TAIL;
        Self {
            width,
            codes: Vec::with_capacity(width * rows),
        }
    }

    pub(super) fn push(&mut self, unit: &[f32]) {
        let largest = unit.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
        let scale = 127.0 / largest;
        let start = self.codes.len();
        let scaled = unit.iter().map(|x| (x * scale).round_ties_even() as i8);
        self.codes.extend(scaled);
        let codes = self.codes[start..].iter();
        let squared: i64 = codes.map(|&x| i64::from(x) * i64::from(x)).sum();
        let inverse = (1.0 / (squared as f64).sqrt()) as f32;
        let inverse = inverse.to_le_bytes().map(u8::cast_signed);
        self.codes.extend(inverse);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &[i8]> {
        self.codes.chunks_exact(self.width)
    }
}

/// One minus the cosine of two rows of codes; never negative and never NaN.
#[derive(Clone, Copy, Debug)]
struct CodeDistance {
    kernel: Kernel,
}

impl Distance<i8> for CodeDistance {
    fn eval(&self, a: &[i8], b: &[i8]) -> f32 {
        let (Some((a, a_tail)), Some((b, b_tail))) =
            (a.split_last_chunk::<TAIL>(), b.split_last_chunk::<TAIL>())
        else {
            return 0.0;
        };
        let inverse = |tail: &[i8; TAIL]| f32::from_le_bytes(tail.map(i8::cast_unsigned));
        let dot = self.kernel.dot_codes(a, b) as f32;
        // `max` turns a NaN into 0 as well.
        (1.0 - dot * inverse(a_tail) * inverse(b_tail)).max(0.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::vector::with_unit;

    proptest! {
        #[test]
        fn the_distance_is_near_that_of_the_vectors_and_never_negative(
            pairs in prop::collection::vec((-1.0f32..1.0, -1.0f32..1.0), 1..150),
        ) {
            let (a, b): (Vec<f32>, Vec<f32>) = pairs.into_iter().unzip();
            prop_assume!(a.iter().any(|&x| x != 0.0) && b.iter().any(|&x| x != 0.0));
            let unit = |v: &[f32]| with_unit(v.len(), v, |unit| Ok(unit.to_vec())).unwrap();
            let (a, b) = (unit(&a), unit(&b));
            let exact: f32 = 1.0 - a.iter().zip(&b).map(|(x, y)| x * y).sum::<f32>();
            let distance = CodeDistance { kernel: Kernel::detect() };
            let found = distance.eval(&encode(&a), &encode(&b));
            prop_assert!(found >= 0.0);
            prop_assert!((found - exact).abs() < 0.01, "{found} for {exact}");
            prop_assert!(distance.eval(&encode(&a), &encode(&a)) < 1e-6);
        }
    }
}
