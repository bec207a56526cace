//! Row ids, neighbours, and the best-k selection that every engine shares.

use std::cmp::Ordering;
use std::fmt;

/// Id that the caller chose for a row. It displays as 16 hexadecimal digits.
///
/// Ids should be spread over the 64 bits (random or hashed); an index gives them no meaning beyond
/// equality and the order in which equal scores are listed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowId(
    /// The id itself.
    pub u64,
);

impl fmt::Display for RowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl From<u64> for RowId {
    fn from(id: u64) -> Self {
        Self(id)
    }
}

/// One row that a search found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Neighbor {
    /// The row.
    pub id: RowId,
    /// Cosine of the angle between the row and the query, within `[-1, 1]`.
    pub score: f32,
}

impl Neighbor {
    /// `Less` if `self` is listed before `other`: higher score first, then lower id.
    pub(crate) fn rank(&self, other: &Self) -> Ordering {
        other
            .score
            .total_cmp(&self.score)
            .then_with(|| self.id.cmp(&other.id))
    }
}

/// The best `k` of the neighbours offered, kept at the end of the caller's vector.
///
/// The tail of `out` that belongs to this selection is a binary heap with the worst neighbour at
/// its root, so an offer that is not good enough costs one comparison, one that is costs `log k`,
/// and nothing is allocated but room for `min(k, rows)` neighbours in `out`.
pub(crate) struct TopK<'out> {
    out: &'out mut Vec<Neighbor>,
    start: usize,
    k: usize,
}

impl<'out> TopK<'out> {
    /// A selection of up to `k` out of `rows` neighbours, appended to `out`.
    pub(crate) fn new(out: &'out mut Vec<Neighbor>, k: usize, rows: usize) -> Self {
        let k = k.min(rows);
        out.reserve(k);
        let start = out.len();
        Self { out, start, k }
    }

    /// Whether this row would be kept if it were offered now.
    pub(crate) fn wants(&self, id: RowId, score: f32) -> bool {
        self.out.len() - self.start < self.k
            || self
                .out
                .get(self.start)
                .is_some_and(|worst| Neighbor { id, score }.rank(worst).is_lt())
    }

    /// The score from which on a row is kept, once there are `k`.
    pub(crate) fn bar(&self) -> Option<f32> {
        let full = self.k > 0 && self.out.len() - self.start == self.k;
        full.then(|| self.out[self.start].score)
    }

    /// Whether this row is among those kept. Looks at all of them.
    pub(crate) fn contains(&self, id: RowId) -> bool {
        self.out[self.start..].iter().any(|kept| kept.id == id)
    }

    /// Considers one row; `score` is a cosine.
    pub(crate) fn offer(&mut self, id: RowId, score: f32) {
        let candidate = Neighbor { id, score };
        let heap = self.out.len() - self.start;
        if heap < self.k {
            self.out.push(candidate);
            self.sift_up(heap);
        } else if let Some(worst) = self.out.get(self.start)
            && candidate.rank(worst) == Ordering::Less
        {
            self.out[self.start] = candidate;
            self.sift_down();
        }
    }

    /// Leaves the selection in `out`, best first.
    pub(crate) fn finish(self) {
        self.out[self.start..].sort_unstable_by(Neighbor::rank);
    }

    fn sift_up(&mut self, mut child: usize) {
        let heap = &mut self.out[self.start..];
        while child > 0 {
            let parent = (child - 1) / 2;
            if heap[child].rank(&heap[parent]) != Ordering::Greater {
                break;
            }
            heap.swap(child, parent);
            child = parent;
        }
    }

    fn sift_down(&mut self) {
        let heap = &mut self.out[self.start..];
        let mut parent = 0;
        loop {
            let left = 2 * parent + 1;
            if left >= heap.len() {
                break;
            }
            let right = left + 1;
            let worse = if right < heap.len() && heap[right].rank(&heap[left]).is_gt() {
                right
            } else {
                left
            };
            if heap[worse].rank(&heap[parent]) != Ordering::Greater {
                break;
            }
            heap.swap(parent, worse);
            parent = worse;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_selection_is_the_head_of_the_sorted_list(
            scores in prop::collection::vec((0u64..40, -8i8..8), 0..120),
            k in 0usize..140,
        ) {
            let mut sorted: Vec<Neighbor> = scores
                .iter()
                .map(|&(id, score)| Neighbor { id: RowId(id), score: f32::from(score) / 8.0 })
                .collect();
            let kept = Neighbor { id: RowId(7), score: 0.5 };
            let mut out = vec![kept];
            let mut top = TopK::new(&mut out, k, sorted.len());
            for neighbor in &sorted {
                top.offer(neighbor.id, neighbor.score);
            }
            top.finish();
            sorted.sort_by(Neighbor::rank);
            sorted.truncate(k);
            prop_assert_eq!(out[0], kept);
            prop_assert_eq!(&out[1..], &sorted[..]);
        }
    }

    #[test]
    fn a_row_id_displays_as_sixteen_hex_digits() {
        assert_eq!(RowId(0xbeef).to_string(), "000000000000beef");
    }
}
