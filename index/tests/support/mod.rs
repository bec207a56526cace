//! Data, a naive index that the tests compare with, and the list of engines.

// Each test binary uses a part of this.
#![allow(dead_code, unused_imports, unused_macros)]

use std::collections::BTreeMap;

use askonce_index::{Audit, Capability, Expiry, Neighbor, Query, RowId, VectorIndex};

pub(crate) mod engines;

/// A small generator with a fixed seed, so that every run sees the same data.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// SplitMix64.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        (self.next() >> 16) as usize % limit
    }

    /// Nearly normal, mean 0 and variance 1: a sum of twelve uniform numbers.
    pub(crate) fn normal(&mut self) -> f32 {
        (0..12)
            .map(|_| (self.next() >> 40) as f32 / (1u64 << 24) as f32)
            .sum::<f32>()
            - 6.0
    }
}

/// The vector at unit length, as an embedder makes it.
pub(crate) fn normalized(vector: &[f32]) -> Vec<f32> {
    let squared: f64 = vector.iter().map(|&x| f64::from(x).powi(2)).sum();
    vector
        .iter()
        .map(|&x| (f64::from(x) / squared.sqrt()) as f32)
        .collect()
}

/// A unit vector near this one; `spread` of 0.4 gives a cosine of about 0.93.
pub(crate) fn near(random: &mut Random, vector: &[f32], spread: f32) -> Vec<f32> {
    let size = 1.0 / (vector.len() as f32).sqrt();
    let moved: Vec<f32> = vector
        .iter()
        .map(|x| x + spread * size * random.normal())
        .collect();
    normalized(&moved)
}

/// Unit vectors around one centre per 20 rows: no two alike, many near.
pub(crate) fn clustered(random: &mut Random, rows: usize, dimension: usize) -> Vec<Vec<f32>> {
    let centres: Vec<Vec<f32>> = (0..rows.div_ceil(20))
        .map(|_| (0..dimension).map(|_| random.normal()).collect())
        .collect();
    (0..rows)
        .map(|_| {
            let centre = &centres[random.below(centres.len())];
            let row: Vec<f32> = centre.iter().map(|x| x + 0.4 * random.normal()).collect();
            normalized(&row)
        })
        .collect()
}

pub(crate) fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter()
            .zip(b)
            .map(|(&x, &y)| f64::from(x) * f64::from(y))
            .sum()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

pub(crate) fn search(index: &dyn VectorIndex, query: &[f32], k: usize) -> Vec<Neighbor> {
    let mut out = Vec::new();
    index.search(query, k, &mut out).unwrap();
    out
}

pub(crate) fn ids(found: &[Neighbor]) -> Vec<u64> {
    found.iter().map(|neighbor| neighbor.id.0).collect()
}

/// A search as a value that owns what it asks for.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) vector: Vec<f32>,
    pub(crate) k: usize,
    pub(crate) min_score: f32,
    pub(crate) now: Expiry,
    /// Only ids that leave this rest when divided by this number.
    pub(crate) only: Option<(u64, u64)>,
    pub(crate) exact: bool,
}

impl Ask {
    pub(crate) fn new(vector: &[f32], k: usize) -> Self {
        Self {
            vector: vector.to_vec(),
            k,
            min_score: -1.0,
            now: Expiry::NEVER,
            only: None,
            exact: false,
        }
    }

    fn takes(&self, id: u64) -> bool {
        self.only.is_none_or(|(rest, by)| id % by == rest)
    }

    /// The query that this stands for, given its filter.
    fn query<'a>(&'a self, filter: &'a dyn Fn(RowId) -> bool) -> Query<'a> {
        let mut query = Query::new(&self.vector, self.k);
        query = query.above(self.min_score).at(self.now);
        if self.only.is_some() {
            query = query.only(filter);
        }
        if self.exact { query.exact() } else { query }
    }

    pub(crate) fn of(&self, index: &dyn VectorIndex) -> Vec<Neighbor> {
        let filter = |id: RowId| self.takes(id.0);
        let mut out = Vec::new();
        index.query(&self.query(&filter), &mut out).unwrap();
        out
    }
}

impl Ask {
    /// Answers to all of them, asked at once.
    pub(crate) fn batch(asks: &[Self], index: &dyn VectorIndex) -> Vec<Vec<Neighbor>> {
        let filters: Vec<_> = asks
            .iter()
            .map(|ask| move |id: RowId| ask.takes(id.0))
            .collect();
        let queries: Vec<Query<'_>> = asks
            .iter()
            .zip(&filters)
            .map(|(ask, filter)| ask.query(filter))
            .collect();
        let mut out = Vec::new();
        index.query_batch(&queries, &mut out).unwrap();
        assert_eq!(out.len(), asks.len());
        out
    }
}

/// An index that cannot be wrong: a map, and cosines in f64.
#[derive(Default)]
pub(crate) struct Twin {
    pub(crate) rows: BTreeMap<u64, (Vec<f32>, Expiry)>,
}

impl Twin {
    pub(crate) fn of(rows: &[Vec<f32>]) -> Self {
        let mut twin = Self::default();
        for (id, row) in (0..).zip(rows) {
            twin.upsert(id, row, Expiry::NEVER);
        }
        twin
    }

    pub(crate) fn upsert(&mut self, id: u64, vector: &[f32], expires: Expiry) {
        self.rows.insert(id, (vector.to_vec(), expires));
    }

    pub(crate) fn remove(&mut self, id: u64) -> bool {
        self.rows.remove(&id).is_some()
    }

    pub(crate) fn remove_expired(&mut self, now: Expiry) -> usize {
        let before = self.rows.len();
        self.rows.retain(|_, (_, expires)| !expires.is_past(now));
        before - self.rows.len()
    }

    /// Rows that may score as well as the row of this vector.
    fn alike(&self, vector: &[f32], capability: &Capability) -> usize {
        let bar = 1.0 - 1e-5 - f64::from(capability.score_error);
        let rows = self.rows.values();
        rows.filter(|(row, _)| cosine(row, vector) >= bar).count()
    }

    /// The rows that may answer and their cosines, best first.
    fn truth(&self, ask: &Ask) -> Vec<(u64, f64)> {
        let mut rows: Vec<(u64, f64)> = self
            .rows
            .iter()
            .filter(|&(&id, (_, expires))| ask.takes(id) && !expires.is_past(ask.now))
            .map(|(&id, (row, _))| (id, cosine(&ask.vector, row)))
            .collect();
        rows.sort_by(|a, b| b.1.total_cmp(&a.1));
        rows
    }

    /// Checks an answer against everything that is promised, and counts how much of the truth an
    /// approximate one found: neighbours so near to the bar that rounding decides are not counted.
    pub(crate) fn check(&self, ask: &Ask, found: &[Neighbor], capability: &Capability) -> Audit {
        let error = f64::from(capability.score_error);
        let truth = self.truth(ask);
        let mut ids = ids(found);
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), found.len(), "an id was returned twice");
        assert!(found.len() <= ask.k, "{} of {}", found.len(), ask.k);

        for neighbor in found {
            let of = truth.iter().find(|(id, _)| *id == neighbor.id.0);
            let Some(&(_, cosine)) = of else {
                panic!("{neighbor:?} may not answer {ask:?}");
            };
            assert!(
                (f64::from(neighbor.score) - cosine).abs() <= error,
                "{neighbor:?} has the cosine {cosine}"
            );
            assert!((-1.0..=1.0).contains(&neighbor.score), "{neighbor:?}");
            assert!(neighbor.score >= ask.min_score, "{neighbor:?}");
        }
        for pair in found.windows(2) {
            let in_order = pair[0].score > pair[1].score
                || pair[0].score == pair[1].score && pair[0].id < pair[1].id;
            assert!(in_order, "{pair:?}");
        }

        let everything = ask.min_score <= -1.0 && ask.now == Expiry::NEVER && ask.only.is_none();
        if everything {
            assert_eq!(found.len(), ask.k.min(self.rows.len()), "{ask:?}");
        }
        // The score below which a row had to stay out.
        let bar = match found.last() {
            Some(worst) if found.len() == ask.k => f64::from(worst.score),
            _ => f64::from(ask.min_score),
        };
        if (ask.exact || capability.exact) && ask.k > 0 {
            for &(id, cosine) in &truth {
                assert!(
                    cosine <= bar + error || ids.binary_search(&id).is_ok(),
                    "row {id} of cosine {cosine} is missing in {found:?} for {ask:?}"
                );
            }
        }
        let clear = |cosine: f64| cosine > f64::from(ask.min_score) + error;
        let truth: Vec<Neighbor> = truth
            .iter()
            .take(ask.k)
            .take_while(|&&(_, cosine)| clear(cosine))
            .map(|&(id, cosine)| Neighbor {
                id: RowId(id),
                // Equal rows may stand for each other.
                score: (cosine - error) as f32,
            })
            .collect();
        let mut audit = Audit::default();
        audit.add(found, &truth);
        audit
    }

    /// Checks that the index gives out these rows, each once and as near as it states to what was
    /// written; tells what it gave out.
    pub(crate) fn check_content(&self, index: &dyn VectorIndex) -> Self {
        let error = f64::from(index.capability().score_error);
        let mut given = Self::default();
        let mut rows = 0;
        index.for_each(&mut |row| {
            let Some((vector, expires)) = self.rows.get(&row.id.0) else {
                panic!("row {} is not one of these", row.id);
            };
            assert_eq!(row.expires, *expires);
            let cosine = cosine(row.vector, vector);
            assert!(cosine >= 1.0 - error, "row {} moved to {cosine}", row.id);
            given.upsert(row.id.0, row.vector, row.expires);
            rows += 1;
        });
        assert!(given.rows.keys().eq(self.rows.keys()), "a row is missing");
        assert_eq!(rows, given.rows.len(), "a row came twice");
        given
    }

    /// Sends the index through a snapshot. Each row is still found by the vector it was written with.
    pub(crate) fn restart<S: engines::Subject>(
        &self,
        index: &dyn VectorIndex,
    ) -> Box<dyn VectorIndex> {
        self.check_content(index);
        let restored = S::again(index);
        self.check_content(&*restored);
        restored
    }

    /// Checks that every row is found by its own vector.
    pub(crate) fn check_reach(&self, index: &dyn VectorIndex) {
        for (&id, (vector, _)) in &self.rows {
            self.check_found(index, id, vector);
        }
    }

    /// Checks that this row is found by its own vector, and scores 1.
    pub(crate) fn check_found(&self, index: &dyn VectorIndex, id: u64, vector: &[f32]) {
        let mut found = search(index, vector, 1);
        if found.first().is_none_or(|best| best.id.0 != id) {
            // Rows that lie in nearly the same direction may come first.
            let alike = self.alike(vector, &index.capability());
            found = search(index, vector, alike);
        }
        let own = found.iter().find(|neighbor| neighbor.id.0 == id);
        let score = own.map(|neighbor| neighbor.score);
        assert!(
            score.is_some_and(|score| score >= 1.0 - 1e-5),
            "row {id} by its own vector: {score:?} among {found:?}"
        );
    }
}
