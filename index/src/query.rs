//! What a search asks for, and which rows may answer it.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::{IndexError, Neighbor, RowId};

/// The second from which on a row is no longer listed; [`Expiry::NEVER`] for one that stays.
///
/// Seconds since the UNIX epoch, kept in 32 bits: enough until the year 2106. Whoever makes one of a
/// finer time rounds up, so that no row is hidden before its time; the caller checks the entry anyway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Expiry(pub(crate) u32);

impl Expiry {
    /// Of a row that does not expire, and of a search that takes rows as if none had.
    pub const NEVER: Self = Self(0);

    /// This many seconds after the UNIX epoch; later than 32 bits can say is [`Expiry::NEVER`].
    #[must_use]
    pub fn at_seconds(seconds: u64) -> Self {
        Self(u32::try_from(seconds).unwrap_or(0))
    }

    /// The first whole second that is not before `time`.
    #[must_use]
    pub fn not_before(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self::at_seconds(since.as_secs() + u64::from(since.subsec_nanos() > 0))
    }

    /// Seconds since the UNIX epoch, or `None` for [`Expiry::NEVER`].
    #[must_use]
    pub fn seconds(self) -> Option<u32> {
        (self.0 != 0).then_some(self.0)
    }

    /// Whether a row of this expiry is past it at `now`. Never, if either is [`Expiry::NEVER`].
    #[must_use]
    pub fn is_past(self, now: Self) -> bool {
        self.0.wrapping_sub(1) < now.0
    }
}

/// A row to be written.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// Its id.
    pub id: RowId,
    /// Its vector, of any length but zero.
    pub vector: &'a [f32],
    /// When it stops being listed.
    pub expires: Expiry,
}

/// One search.
///
/// ```
/// use askonce_index::{FlatIndex, Query, RowId, VectorIndex};
///
/// let index = FlatIndex::new(2)?;
/// index.upsert(RowId(1), &[3.0, 4.0])?;
/// index.upsert(RowId(2), &[4.0, 3.0])?;
/// let mut found = Vec::new();
/// let odd = |id: RowId| id.0 % 2 == 1;
/// index.query(&Query::new(&[4.0, 3.0], 5).above(0.9).only(&odd), &mut found)?;
/// assert_eq!(found.len(), 1);
/// assert_eq!(found[0].id, RowId(1));
/// # Ok::<(), askonce_index::IndexError>(())
/// ```
#[derive(Clone, Copy)]
pub struct Query<'a> {
    pub(crate) vector: &'a [f32],
    pub(crate) k: usize,
    pub(crate) min_score: f32,
    pub(crate) now: Expiry,
    pub(crate) filter: Option<&'a dyn Fn(RowId) -> bool>,
    pub(crate) exact: bool,
}

impl<'a> Query<'a> {
    /// The `k` nearest rows to the vector, however far they are.
    #[must_use]
    pub fn new(vector: &'a [f32], k: usize) -> Self {
        Self {
            vector,
            k,
            min_score: -1.0,
            now: Expiry::NEVER,
            filter: None,
            exact: false,
        }
    }

    /// Only rows whose score is at least this. An index that knows the threshold reads less. NaN
    /// counts as no threshold.
    #[must_use]
    pub fn above(mut self, min_score: f32) -> Self {
        self.min_score = min_score.max(-1.0);
        self
    }

    /// Only rows that are not expired at this second.
    #[must_use]
    pub fn at(mut self, now: Expiry) -> Self {
        self.now = now;
        self
    }

    /// Only rows for which the predicate is true. It is called for rows that are near enough, and
    /// must be quick: an index may call it under a lock that writers wait for. It must not call
    /// into the index.
    #[must_use]
    pub fn only(mut self, filter: &'a dyn Fn(RowId) -> bool) -> Self {
        self.filter = Some(filter);
        self
    }

    /// No row may be missed, whatever that costs: every row is scored. For audits and oracles.
    #[must_use]
    pub fn exact(mut self) -> Self {
        self.exact = true;
        self
    }

    /// The vector searched for, as it was given.
    #[must_use]
    pub fn vector(&self) -> &'a [f32] {
        self.vector
    }

    /// How many rows are wanted.
    #[must_use]
    pub fn k(&self) -> usize {
        self.k
    }

    /// Whether a row of this score, expiry and id may answer.
    pub(crate) fn admits(&self, id: RowId, score: f32, expires: Expiry) -> bool {
        score >= self.min_score
            && !expires.is_past(self.now)
            && self.filter.is_none_or(|filter| filter(id))
    }
}

impl fmt::Debug for Query<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Query")
            .field("k", &self.k)
            .field("min_score", &self.min_score)
            .field("now", &self.now)
            .field("filtered", &self.filter.is_some())
            .field("exact", &self.exact)
            .finish_non_exhaustive()
    }
}

/// What an engine can and cannot do. Callers ask this, not the engine's name.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Capability {
    /// Name of the engine, as in a configuration file.
    pub engine: &'static str,
    /// Every search finds every true neighbour. If not, one with [`Query::exact`] does.
    pub exact: bool,
    /// Farthest that a listed score may be from the cosine.
    pub score_error: f32,
    /// Vectors are kept bit for bit. If not, [`crate::VectorIndex::for_each`] gives them within
    /// [`Self::score_error`].
    pub keeps_vectors: bool,
    /// A search knows its threshold and reads less for a higher one. If not, it is applied last.
    pub uses_threshold: bool,
    /// Rows that may not answer are left out while searching. If not, the search takes more rows
    /// than asked for and leaves out after.
    pub filters_inside: bool,
    /// A search takes no lock and waits for no write.
    pub lock_free_reads: bool,
    /// A removal frees the row at once. If not, a rebuild frees it later.
    pub removes_in_place: bool,
}

/// How much an index has still to do. See [`crate::VectorIndex::settle`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Rows that are searched in a slower way until they have their place.
    pub waiting: usize,
    /// Removed rows whose room is not free yet.
    pub dead: usize,
}

/// What a comparison of an index with the truth found. See [`crate::VectorIndex::audit`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Audit {
    /// Queries compared.
    pub queries: usize,
    /// Queries with a row at or above their threshold.
    pub with_neighbor: usize,
    /// Those of them whose best row was found, or one that scores as well.
    pub best_found: usize,
    /// True neighbours, up to `k` for each query.
    pub neighbors: usize,
    /// Those of them that were found.
    pub neighbors_found: usize,
}

impl Audit {
    /// Share of queries with a neighbour whose best one was found; 1 if there were none.
    #[must_use]
    pub fn best_recall(&self) -> f64 {
        share(self.best_found, self.with_neighbor)
    }

    /// Share of all true neighbours that were found; 1 if there were none.
    #[must_use]
    pub fn recall(&self) -> f64 {
        share(self.neighbors_found, self.neighbors)
    }

    /// Adds the comparison of one query: what was found, and what there is.
    pub fn add(&mut self, found: &[Neighbor], truth: &[Neighbor]) {
        self.queries += 1;
        self.neighbors += truth.len();
        let ids: std::collections::HashSet<RowId> = found.iter().map(|n| n.id).collect();
        self.neighbors_found += truth.iter().filter(|n| ids.contains(&n.id)).count();
        if let Some(best) = truth.first() {
            self.with_neighbor += 1;
            // Equal rows may stand for each other.
            let reached = found.first().is_some_and(|n| n.score >= best.score);
            self.best_found += usize::from(reached || ids.contains(&best.id));
        }
    }

    /// Adds the counts of another audit.
    pub fn merge(&mut self, other: &Self) {
        self.queries += other.queries;
        self.with_neighbor += other.with_neighbor;
        self.best_found += other.best_found;
        self.neighbors += other.neighbors;
        self.neighbors_found += other.neighbors_found;
    }
}

fn share(part: usize, whole: usize) -> f64 {
    if whole == 0 {
        return 1.0;
    }
    part as f64 / whole as f64
}

/// Answers each query by itself.
pub(crate) fn one_by_one(
    index: &(impl crate::VectorIndex + ?Sized),
    queries: &[Query<'_>],
    out: &mut Vec<Vec<Neighbor>>,
) -> Result<(), IndexError> {
    let start = out.len();
    for query in queries {
        let mut found = Vec::new();
        if let Err(error) = index.query(query, &mut found) {
            out.truncate(start);
            return Err(error);
        }
        out.push(found);
    }
    Ok(())
}

/// Compares the answers of an index with those of its own exact search.
pub(crate) fn audit(
    index: &(impl crate::VectorIndex + ?Sized),
    queries: &[Query<'_>],
) -> Result<Audit, IndexError> {
    let mut audit = Audit::default();
    let (mut found, mut truth) = (Vec::new(), Vec::new());
    for query in queries {
        found.clear();
        truth.clear();
        index.query(query, &mut found)?;
        index.query(&query.exact(), &mut truth)?;
        audit.add(&found, &truth);
    }
    Ok(audit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_is_never_past_and_no_time_is_past_never() {
        let at = Expiry::at_seconds(100);
        assert!(!Expiry::NEVER.is_past(Expiry::at_seconds(u64::from(u32::MAX))));
        assert!(!at.is_past(Expiry::NEVER));
        assert!(!at.is_past(Expiry::at_seconds(99)));
        assert!(at.is_past(at));
        assert!(at.is_past(Expiry::at_seconds(101)));
        assert_eq!(Expiry::at_seconds(u64::MAX), Expiry::NEVER);
    }
}
