//! How far a search has to look, learned from what it would have missed.
//!
//! Two questions decide what a search reads. Which cells: those whose center is not much less
//! similar to the query than the most similar one. Which rows of a cell: those whose code is not
//! much farther from the query's than that of a row at the threshold is expected to be.
//!
//! # Codes
//! Query and row are taken relative to the center of the cell (as in Gao and Long, "RaBitQ",
//! SIGMOD 2024). With `a` and `b` their distances from it, a row whose cosine to the query is at
//! least `t` is at most `D = sqrt(2 - 2t)` away, so by the law of cosines the angle between the
//! two, seen from the center, has a cosine of at least `f = (a² + b² - D²) / 2ab`. Each of the `d`
//! bits differs with probability `p = acos(f) / π` (Goemans and Williamson 1995, Charikar 2002),
//! so the distance of the codes is `d p` on average, with a standard deviation of `sqrt(d p (1-p))`.
//! A row is kept if its distance is no more than `spread` of these above the average.
//!
//! # Cells
//! A row at cosine `t` from the query has `sqrt(1 - t²)` of its length across it, so its own cell
//! may be less similar to the query than the best one by a multiple of that: `reach`. And it is among
//! the first of all cells by similarity, whatever the query: `most` bounds what a query that has no
//! neighbour costs.
//!
//! All three begin at values that find nearly all neighbours in rotated text embeddings. Each
//! audited neighbour tells what it would have taken to find it, and the tuning follows the
//! quantile that the asked recall needs.

use std::f32::consts::PI;
use std::sync::Arc;

use super::sync::{ArcSwap, AtomicU32, Guard, Mutex, Ordering};

/// Before audits: standard deviations of the distance of codes.
const FIRST_SPREAD: f32 = 3.5;
/// Before audits: share of the length across the query, and what each doubling of the cells beyond so many
/// adds: among more cells, more centers are about as near as the best one.
const FIRST_REACH: f32 = 0.5;
const FIRST_CELLS: f32 = 64.0;
const REACH_PER_DOUBLING: f32 = 0.03;
/// Before audits: cells that are looked into at most, beside the square root of their number.
const FIRST_MOST: usize = 12;
/// Most that audits can make of it, as a share of all cells and as a number. Above it the centers tell
/// nothing, and an exact scan would be the better choice.
const MOST_PART: usize = 4;
const MOST_OF_FEW: usize = 64;
/// However near the cells of all audited neighbours were: those of topics that are new may be spread
/// wider than those of the topics that cells were made for.
const LEAST_REACH: f32 = 0.2;
/// A step of the histograms, and the largest value they tell apart.
const STEPS_PER_SPREAD: f32 = 8.0;
const STEPS_PER_REACH: f32 = 64.0;
/// Of the logarithm to the base of 2 of a rank.
const STEPS_PER_RANK: f32 = 6.0;
const STEPS: usize = 96;
/// Steps of the cosine from 0 to 1 in which radii are looked up.
const COSINE_STEPS: usize = 256;
/// Neighbours from which on the histograms are believed.
const ENOUGH: u32 = 200;
/// Neighbours after which older ones count half.
const HALF_LIFE: u32 = 20_000;

/// What the audits of one embedding space taught; may be shared by the indexes of that space.
#[derive(Debug)]
pub(super) struct Tuning {
    bits: usize,
    recall: f32,
    reach: AtomicU32,
    /// 0 before audits.
    most: AtomicU32,
    table: ArcSwap<Table>,
    seen: Mutex<Seen>,
}

/// For each distance of codes, the largest cosine from the center at which a row that far is kept.
#[derive(Debug)]
pub(super) struct Table {
    spread: f32,
    cosines: Vec<f32>,
    /// For each step of the cosine, the radius of the least cosine in it.
    radii: Vec<u32>,
}

/// What audits taught.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Learned {
    /// Standard deviations of the distance of codes.
    pub(super) spread: f32,
    /// Share of the length across the query.
    pub(super) reach: f32,
    /// Cells that are looked into at most; 0 if nothing was learned of it.
    pub(super) most: u32,
}

/// What it took to find the neighbours of the audits.
#[derive(Debug)]
struct Seen {
    spreads: [u32; STEPS],
    reaches: [u32; STEPS],
    ranks: [u32; STEPS],
    count: u32,
}

impl Table {
    fn new(bits: usize, spread: f32) -> Self {
        let mut cosines = Vec::with_capacity(bits + 1);
        // The radius falls from `bits` to 0 as the cosine goes from -1 to 1: walk both at once.
        for distance in 0..=bits {
            let (mut low, mut high) = (-1.0f32, 1.0f32);
            for _ in 0..24 {
                let middle = (low + high) / 2.0;
                if radius(bits, middle, spread) >= distance as f32 {
                    low = middle;
                } else {
                    high = middle;
                }
            }
            cosines.push(low);
        }
        let radii = (0..2 * COSINE_STEPS).map(|step| {
            let least = step as f32 / COSINE_STEPS as f32 - 1.0;
            cosines.partition_point(|&most| most >= least) as u32
        });
        Self {
            spread,
            radii: radii.collect(),
            cosines,
        }
    }

    /// The largest distance at which a row of this cosine from the center is kept.
    pub(super) fn radius(&self, cosine: f32) -> u32 {
        let step = ((cosine + 1.0) * COSINE_STEPS as f32) as usize;
        let mut radius = self.radii[step.min(self.radii.len() - 1)];
        // The rest of the way, mostly none: each cosine has its cell looked for, and halving the table
        // again and again would take longer than anything else about a cell but its codes.
        while radius > 0 && self.cosines[radius as usize - 1] < cosine {
            radius -= 1;
        }
        radius
    }

    /// Whether a row is kept, given the distance of its code and its cosine from the center times
    /// `scale`.
    pub(super) fn keeps(&self, distance: u32, cosine: f32, scale: f32) -> bool {
        cosine <= self.cosines[distance as usize] * scale
    }
}

/// How much less similar than the best cell another may be, for neighbours at this cosine.
pub(super) fn gap(reach: f32, threshold: f32) -> f32 {
    reach * (1.0 - threshold * threshold.abs()).clamp(0.0, 1.0).sqrt()
}

/// The least cosine to the query, seen from a center at this distance from it, of a row that is as near
/// to the query as is asked. `beyond` is the square of the distance less the square of how near that
/// is; rows are from the least to the largest of `spreads` away from the center.
pub(super) fn from_center(distance: f32, beyond: f32, spreads: (f32, f32)) -> f32 {
    let (least, largest) = spreads;
    // The tangent's length where rows are that far from the center; else as near to it as they are.
    let spread = beyond.max(0.0).sqrt().min(largest).max(least).max(1e-6);
    ((beyond + spread * spread) / (2.0 * distance * spread)).clamp(-1.0, 1.0)
}

/// Expected distance of the codes of two vectors at this cosine, and `spread` deviations more.
fn radius(bits: usize, cosine: f32, spread: f32) -> f32 {
    let p = cosine.clamp(-1.0, 1.0).acos() / PI;
    let bits = bits as f32;
    bits * p + spread * (bits * p * (1.0 - p)).sqrt()
}

impl Tuning {
    /// `spread` if given is kept, whatever audits say.
    pub(super) fn new(bits: usize, recall: f32, spread: Option<f32>) -> Self {
        Self {
            bits,
            recall,
            reach: AtomicU32::new(FIRST_REACH.to_bits()),
            most: AtomicU32::new(0),
            table: ArcSwap::from_pointee(Table::new(bits, spread.unwrap_or(FIRST_SPREAD))),
            seen: Mutex::new(Seen {
                spreads: [0; STEPS],
                reaches: [0; STEPS],
                ranks: [0; STEPS],
                count: 0,
            }),
        }
    }

    /// What is known by now.
    pub(super) fn learned(&self) -> Learned {
        Learned {
            spread: self.table.load().spread,
            reach: f32::from_bits(self.reach.load(Ordering::Relaxed)),
            most: self.most.load(Ordering::Relaxed),
        }
    }

    /// Takes over what was learned before, but for the spread.
    pub(super) fn take_over(&self, learned: Learned) {
        self.reach.store(learned.reach.to_bits(), Ordering::Relaxed);
        self.most.store(learned.most, Ordering::Relaxed);
    }

    /// Cells that are looked into at most, of so many.
    pub(super) fn most(&self, cells: usize) -> usize {
        let most = match self.most.load(Ordering::Relaxed) {
            0 => FIRST_MOST + cells.isqrt(),
            learned => learned as usize,
        };
        most.min((cells / MOST_PART).max(MOST_OF_FEW))
    }

    pub(super) fn table(&self) -> Guard<Arc<Table>> {
        self.table.load()
    }

    /// Share of the length across the query by which one of so many cells may be less similar than the
    /// best one.
    pub(super) fn reach(&self, cells: usize) -> f32 {
        let reach = f32::from_bits(self.reach.load(Ordering::Relaxed));
        // What is learned is learned with the cells that there are.
        if self.most.load(Ordering::Relaxed) != 0 {
            return reach;
        }
        let doublings = (cells as f32 / FIRST_CELLS).log2().max(0.0);
        reach.max(FIRST_REACH + REACH_PER_DOUBLING * doublings)
    }

    /// Takes in a true neighbour: the distance of its code, its cosine seen from the center, its
    /// score, by how much its cell was less similar to the query than the best one, and how many
    /// cells were more similar.
    pub(super) fn learn(
        &self,
        distance: u32,
        from_center: f32,
        score: f32,
        behind: f32,
        rank: usize,
    ) {
        let p = from_center.clamp(-1.0, 1.0).acos() / PI;
        let bits = self.bits as f32;
        let deviation = (bits * p * (1.0 - p)).sqrt().max(0.5);
        let spread = (distance as f32 - bits * p) / deviation;
        let across = (1.0 - score * score.abs()).clamp(1e-4, 1.0).sqrt();
        let reach = behind / across;
        let step = |value: f32, per: f32| ((value.max(0.0) * per) as usize).min(STEPS - 1);
        let mut seen = self.seen.lock();
        seen.spreads[step(spread, STEPS_PER_SPREAD)] += 1;
        seen.reaches[step(reach, STEPS_PER_REACH)] += 1;
        seen.ranks[step((rank as f32 + 1.0).log2(), STEPS_PER_RANK)] += 1;
        seen.count += 1;
        if seen.count >= HALF_LIFE {
            seen.count /= 2;
            let Seen {
                spreads,
                reaches,
                ranks,
                ..
            } = &mut *seen;
            for step in spreads.iter_mut().chain(reaches).chain(ranks) {
                *step /= 2;
            }
        }
    }

    /// Follows what was learned. `spread_is_fixed` leaves the spread as it is.
    pub(super) fn follow(&self, spread_is_fixed: bool) {
        let seen = self.seen.lock();
        if seen.count < ENOUGH {
            return;
        }
        // Each of the three may lose a part of what may be lost in all; often they lose the same.
        let kept = 1.0 - (1.0 - self.recall) / 2.0;
        let quantile = |steps: &[u32; STEPS], per: f32, first: f32| {
            let all: u32 = steps.iter().sum();
            let mut left = (f64::from(all) * f64::from(kept)).ceil() as u32;
            let step = steps.iter().position(|&count| {
                left = left.saturating_sub(count);
                left == 0
            });
            let found = (step.unwrap_or(STEPS - 1) + 1) as f32 / per;
            // The largest of a few says nothing of how far the one in a thousand is.
            let is_seen = all as f32 * (1.0 - kept) >= 1.0;
            if is_seen { found } else { found.max(first) }
        };
        let spread = quantile(&seen.spreads, STEPS_PER_SPREAD, FIRST_SPREAD).clamp(1.5, 8.0);
        let reach = quantile(&seen.reaches, STEPS_PER_REACH, FIRST_REACH).clamp(LEAST_REACH, 1.5);
        // Twice the cells that were needed: more cost little where the reach ends the search before.
        let most = 2.0 * quantile(&seen.ranks, STEPS_PER_RANK, 0.0).exp2();
        let is_seen = seen.count as f32 * (1.0 - kept) >= 1.0;
        drop(seen);
        if is_seen {
            self.most.store((most as u32).max(8), Ordering::Relaxed);
        }
        self.reach.store(reach.to_bits(), Ordering::Relaxed);
        let differs = (self.table.load().spread - spread).abs() > 0.01;
        if !spread_is_fixed && differs {
            self.table.store(Arc::new(Table::new(self.bits, spread)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_keeps_what_is_within_the_radius() {
        for (bits, spread) in [(64, 3.0), (128, 3.5), (1536, 4.0)] {
            let table = Table::new(bits, spread);
            for step in -99..=99 {
                let cosine = step as f32 / 100.0;
                let most = radius(bits, cosine, spread);
                let kept = table.radius(cosine);
                assert!(
                    (kept as f32 - most.min(bits as f32)).abs() <= 1.01,
                    "{cosine}: {kept} {most}"
                );
            }
        }
    }

    #[test]
    fn a_few_neighbours_that_were_near_do_not_narrow_the_search() {
        let tuning = Tuning::new(128, 0.99, None);
        let (first, radius) = (gap(tuning.reach(64), 0.8), tuning.table().radius(0.75));
        for _ in 0..ENOUGH {
            tuning.learn(20, 0.75, 0.8, 0.0, 0);
        }
        tuning.follow(false);
        assert_eq!(
            (gap(tuning.reach(64), 0.8), tuning.table().radius(0.75)),
            (first, radius)
        );
    }

    #[test]
    fn the_tuning_follows_the_neighbours_it_saw() {
        let tuning = Tuning::new(128, 0.99, None);
        let before = gap(tuning.reach(64), 0.8);
        for _ in 0..1000 {
            tuning.learn(30, 0.75, 0.8, 0.02, 1);
        }
        tuning.follow(false);
        assert!(gap(tuning.reach(64), 0.8) < before / 2.0);
        assert!(
            (2..=16).contains(&tuning.most(1000)),
            "{}",
            tuning.most(1000)
        );
        for _ in 0..1000 {
            tuning.learn(60, 0.75, 0.8, 0.4, 40);
        }
        tuning.follow(false);
        assert!(gap(tuning.reach(64), 0.8) >= 0.4);
        assert!(
            (41..=120).contains(&tuning.most(1000)),
            "{}",
            tuning.most(1000)
        );
        assert!(tuning.table().radius(0.75) >= 60);
    }
}
