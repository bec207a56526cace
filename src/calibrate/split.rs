//! Which decisions are fitted on, calibrated on, and certified on.
//!
//! Always true: all decisions of a group are in one part, and the same records give the same parts.
//! Data sets are split by a hash of the group. Logs are split by time, the latest for the certificate:
//! what is promised is promised of what comes.

use std::collections::HashMap;

use crate::decision::DecisionRecord;

/// Decisions by what they are used for.
#[derive(Clone, Debug, Default)]
pub struct Parts<'a> {
    /// For models.
    pub fit: Vec<&'a DecisionRecord>,
    /// For the maps from score to probability, categories and guards.
    pub calibration: Vec<&'a DecisionRecord>,
    /// For certificates.
    pub certification: Vec<&'a DecisionRecord>,
}

impl<'a> Parts<'a> {
    /// Splits `records`: of the groups, the share `fit` for models, `calibration` for maps and the rest
    /// for certificates.
    #[must_use]
    pub fn split(records: &'a [DecisionRecord], fit: f64, calibration: f64, seed: u64) -> Self {
        // A log's group stands where its first decision stands.
        let mut first: HashMap<u64, u64> = HashMap::new();
        for record in records.iter().filter(|record| record.set.is_none()) {
            let at = first.entry(record.group).or_insert(record.at);
            *at = (*at).min(record.at);
        }
        let mut by_time: Vec<(u64, u64)> =
            first.into_iter().map(|(group, at)| (at, group)).collect();
        by_time.sort_unstable();
        let of_logs: HashMap<u64, f64> = by_time
            .iter()
            .enumerate()
            .map(|(rank, (_, group))| (*group, rank as f64 / by_time.len() as f64))
            .collect();
        let mut parts = Self::default();
        for record in records {
            let place = match &record.set {
                None => of_logs.get(&record.group).copied().unwrap_or_default(),
                Some(_) => chance(record.group, seed),
            };
            let part = if place < fit {
                &mut parts.fit
            } else if place < fit + calibration {
                &mut parts.calibration
            } else {
                &mut parts.certification
            };
            part.push(record);
        }
        parts
    }
}

/// A number from 0 to below 1 that depends on `value` and `seed` alone.
pub(super) fn chance(value: u64, seed: u64) -> f64 {
    let hash = xxhash_rust::xxh3::xxh3_64_with_seed(&value.to_le_bytes(), seed);
    // The upper 53 bits are what a double holds.
    (hash >> 11) as f64 / (1_u64 << 53) as f64
}

/// Of decisions that stand for different numbers of others, a sample in which all stand for the same: each
/// is kept with a probability in proportion to its weight. So rates of the sample are rates of the traffic.
pub(super) fn thinned<'a>(records: &[&'a DecisionRecord], seed: u64) -> Vec<&'a DecisionRecord> {
    let most = records
        .iter()
        .map(|record| record.weight)
        .fold(0.0, f64::max);
    records
        .iter()
        .enumerate()
        .filter(|(i, record)| {
            let lot = record.group ^ record.at.rotate_left(32) ^ *i as u64;
            record.weight > 0.0 && chance(lot, seed) * most <= record.weight
        })
        .map(|(_, record)| *record)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(set: Option<&str>, group: u64, at: u64) -> DecisionRecord {
        DecisionRecord {
            set: set.map(str::to_owned),
            group,
            at,
            ..DecisionRecord::default()
        }
    }

    #[test]
    fn a_group_is_never_divided() {
        let records: Vec<_> = (0..3_000)
            .map(|i| record(if i % 2 == 0 { Some("a") } else { None }, i % 300, i))
            .collect();
        let parts = Parts::split(&records, 0.4, 0.3, 1);
        let mut part_of: HashMap<u64, usize> = HashMap::new();
        for (part, records) in [&parts.fit, &parts.calibration, &parts.certification]
            .into_iter()
            .enumerate()
        {
            assert!(records.len() > 500, "{part}: {}", records.len());
            for record in records {
                let key = record.group * 2 + u64::from(record.set.is_some());
                assert_eq!(*part_of.entry(key).or_insert(part), part);
            }
        }
    }

    #[test]
    fn of_a_log_the_latest_is_kept_for_the_certificate() {
        let records: Vec<_> = (0..1_000).map(|i| record(None, i, i)).collect();
        let parts = Parts::split(&records, 0.5, 0.25, 1);
        let latest = parts.calibration.iter().map(|r| r.at).max().unwrap();
        assert!(parts.certification.iter().all(|r| r.at > latest));
        assert_eq!(parts.certification.len(), 250);
    }

    #[test]
    fn a_thinned_sample_has_the_rates_of_the_traffic() {
        // Every tenth decision of a kind that makes up half of the traffic was labelled, and all of the other.
        let records: Vec<_> = (0..11_000)
            .map(|i| DecisionRecord {
                weight: if i % 11 == 0 { 10.0 } else { 1.0 },
                ..record(None, i, i)
            })
            .collect();
        let records: Vec<_> = records.iter().collect();
        let sample = thinned(&records, 5);
        let heavy = sample.iter().filter(|record| record.weight > 1.0).count();
        let share = heavy as f64 / sample.len() as f64;
        assert!((share - 0.5).abs() < 0.05, "{share}");
    }
}
