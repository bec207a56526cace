//! What very many partitions of the search stage cost: bytes for each, and the time to open, search, count,
//! sweep, drop and restore them.
//!
//! `cargo bench --bench partitions [-- PARTITIONS]`, a million unless told. Vectors have 128 components and
//! are random; each partition has one, then three rows. Resident memory is that of the whole process, from
//! Linux; what the stage counts of itself stands beside it. Times are of one thread, without the making of
//! vectors and rows. Left out: everything outside the stage, such as the catalogue's row of each entry.

use std::time::{Duration, Instant};

use askonce::clock::Timestamp;
use askonce::entry::catalog::Row;
use askonce::search::{IndexConfig, SearchStage};
use askonce::{EntryId, PartitionKey, Request, Scope};
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

const DIMENSION: usize = 128;

fn main() {
    let asked = std::env::args().skip(1).find_map(|arg| arg.parse().ok());
    let partitions: u64 = asked.unwrap_or(1_000_000);
    println!("{partitions} partitions, {DIMENSION} components, one thread; seed 42");
    println!(
        "{:>4}  {:>9}  {:>9}  {:>8}  {:>8}  {:>8}  {:>8}  {:>8}  {:>8}",
        "rows", "bytes", "resident", "insert", "lookup", "stats", "sweep", "drop", "left"
    );
    for rows in [1, 3] {
        measure(partitions, rows);
    }
    println!(
        "bytes, resident, left (after the drop): of each partition; insert, lookup: of each row; stats, sweep: \
         of one call; drop: of each partition"
    );
}

fn measure(partitions: u64, rows: u64) {
    let config = IndexConfig {
        audit_every: 0,
        ..IndexConfig::default()
    };
    let stage = SearchStage::new(DIMENSION, &config).expect("the default settings are valid");
    let now = Timestamp::from_millis(1_790_000_000_000);
    let mut random = SmallRng::seed_from_u64(42);
    let mut vector = [0.0f32; DIMENSION];
    let mut next = || {
        vector.fill_with(|| random.random_range(-1.0..1.0));
        vector
    };
    let request = Request::prompt("any").scope(Scope::local());
    let mut row = Row {
        exact: request.exact_key(),
        partition: request.partition(),
        scope: Scope::local(),
        model: "model".into(),
        tags: [].into(),
        created: now,
        expires: Some(now.after(Duration::from_secs(86_400))),
    };
    let before = resident();
    let mut took = Duration::ZERO;
    for number in 0..partitions * rows {
        row.partition = partition(number % partitions);
        let vector = next();
        let start = Instant::now();
        stage
            .upsert(EntryId::new(number), &row, &vector)
            .expect("the vector is one that can be compared");
        took += start.elapsed();
    }
    let insert = took.as_secs_f64() / (partitions * rows) as f64;
    let held = (resident().saturating_sub(before)) as f64 / partitions as f64;
    let counted = stage.bytes() as f64 / partitions as f64;

    let mut took = Duration::ZERO;
    const LOOKUPS: u64 = 100_000;
    for number in 0..LOOKUPS {
        let (key, vector) = (partition(number * 7919 % partitions), next());
        let start = Instant::now();
        let found = stage.nearest_above(&key, &vector, 8, now, 0.8);
        took += start.elapsed();
        assert!(found.is_ok_and(|found| found.has_rows));
    }
    let lookup = took.as_secs_f64() / LOOKUPS as f64;
    let start = Instant::now();
    let stats = stage.stats(now);
    let stats_took = start.elapsed();
    assert_eq!(stats.small.rows as u64, partitions * rows);
    let start = Instant::now();
    // Nothing is dead yet: what it costs to find that out.
    assert_eq!(stage.remove_expired(now), 0);
    let sweep = start.elapsed();
    let start = Instant::now();
    for number in 0..partitions {
        assert_eq!(stage.drop_partition(&partition(number)) as u64, rows);
    }
    let dropped = start.elapsed().as_secs_f64() / partitions as f64;
    let left = (resident().saturating_sub(before)) as f64 / partitions as f64;
    let us = |seconds: f64| format!("{:.2} us", seconds * 1e6);
    println!(
        "{rows:>4}  {:>7.0} B  {:>7.0} B  {:>8}  {:>8}  {:>8}  {:>8}  {:>8}  {:>6.0} B",
        counted,
        held,
        us(insert),
        us(lookup),
        us(stats_took.as_secs_f64()),
        format!("{:.1} ms", sweep.as_secs_f64() * 1e3),
        us(dropped),
        left
    );
}

/// A key as a digest would be: its bytes are spread.
fn partition(number: u64) -> PartitionKey {
    let mut bytes = [0; 32];
    for (at, part) in bytes.chunks_exact_mut(8).enumerate() {
        let mixed = (number + at as u64 * 0x9e37_79b9).wrapping_mul(0xff51_afd7_ed55_8ccd);
        let mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        part.copy_from_slice(&(mixed ^ (mixed >> 29)).to_le_bytes());
    }
    PartitionKey::from_bytes(bytes)
}

/// Resident bytes of this process; 0 where the system does not tell.
fn resident() -> usize {
    const PAGE: usize = 4096;
    let told = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = told.split_whitespace().nth(1);
    pages
        .and_then(|pages| pages.parse::<usize>().ok())
        .unwrap_or(0)
        * PAGE
}
