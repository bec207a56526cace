//! What indexes cost in memory, as the allocator sees it.
//!
//! A million partitions of one to three rows must cost little more than their vectors, and `bytes`
//! must tell the truth, or a cache that bounds its memory by it does not. The allocator of this test
//! counts for each thread what that thread asked for and gave back.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use askonce_index::{
    AutoConfig, AutoIndex, BinaryConfig, BinaryIndex, FlatIndex, IndexError, RowId, SnapshotFault,
    VectorIndex, restore,
};

mod support;
use support::{Random, clustered};

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    /// The most that was held since this was set.
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

struct Counting;

// The one `unsafe` outside the kernels: an allocator cannot be had without, and this is a test.
#[expect(unsafe_code, reason = "an allocator that counts")]
// SAFETY: every call is passed on to the system allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.with(|held| {
            held.set(held.get() + layout.size() as isize);
            PEAK.with(|peak| peak.set(peak.get().max(held.get())));
        });
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        HELD.with(|held| held.set(held.get() - layout.size() as isize));
        // SAFETY: the caller keeps the contract of `dealloc`, and `block` came from `System`.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn held() -> usize {
    HELD.get().try_into().unwrap_or_default()
}

#[test]
fn an_empty_automatic_index_takes_less_than_two_hundred_bytes() {
    let before = held();
    let index = AutoIndex::new(128, AutoConfig::default()).unwrap();
    let measured = held() - before + size_of_val(&index);
    assert!(measured < 200, "{measured} bytes");
    assert_eq!(measured, index.bytes() + size_of_val(&index));
}

#[test]
fn a_hundred_thousand_tiny_indexes_cost_what_their_rows_cost() {
    const PARTITIONS: usize = 100_000;
    const DIMENSION: usize = 64;
    let rows = clustered(&mut Random::new(1), 64, DIMENSION);
    let mut indexes = Vec::with_capacity(PARTITIONS);
    let before = held();
    let mut held_rows = 0;
    for partition in 0..PARTITIONS {
        let index = AutoIndex::new(DIMENSION, AutoConfig::default()).unwrap();
        for row in 0..1 + partition % 3 {
            index
                .upsert(RowId(row as u64), &rows[(partition + row) % 64])
                .unwrap();
            held_rows += 1;
        }
        indexes.push(index);
    }
    let measured = held() - before;
    let told: usize = indexes.iter().map(VectorIndex::bytes).sum();
    assert_eq!(told, measured);
    let content = held_rows * (8 + 4 * DIMENSION);
    let overhead = (measured - content) / PARTITIONS;
    assert!(
        overhead < 200,
        "{overhead} bytes for each partition beside its rows"
    );
}

#[test]
fn the_bytes_of_a_flat_index_are_those_the_allocator_gave() {
    let rows = clustered(&mut Random::new(2), 2000, 32);
    let before = held();
    let index = FlatIndex::new(32).unwrap();
    for (id, row) in (0..).zip(&rows) {
        index.upsert(RowId(id), row).unwrap();
        let measured = held() - before;
        let difference = measured.abs_diff(index.bytes());
        assert!(
            difference <= measured / 100,
            "{} told of {measured}",
            index.bytes()
        );
    }
    let full = held() - before;
    for id in 0..1990 {
        index.remove(RowId(id)).unwrap();
    }
    assert!(held() - before < full / 50);
    assert!(index.bytes() < full / 50);
}

#[cfg(feature = "hnsw")]
#[test]
fn the_estimate_of_a_graph_is_near_what_the_allocator_gave() {
    use askonce_index::{BuildThread, HnswConfig, HnswRsIndex};

    for (links, dimension) in [(16, 32), (32, 128)] {
        let rows = clustered(&mut Random::new(3), 1500, dimension);
        let before = held();
        let config = HnswConfig {
            links,
            build: BuildThread::Caller,
            ..HnswConfig::default()
        };
        let index = HnswRsIndex::new(dimension, config).unwrap();
        for (id, row) in (0..).zip(&rows) {
            index.upsert(RowId(id), row).unwrap();
        }
        let (measured, told) = (held() - before, index.bytes());
        println!("links {links}, dimension {dimension}: told {told} of {measured}");
        assert!(
            told.abs_diff(measured) * 4 < measured,
            "{told} told of {measured}"
        );
    }
}

#[test]
fn a_lookup_by_a_unit_vector_allocates_nothing() {
    let rows = clustered(&mut Random::new(4), 500, 48);
    let index = AutoIndex::new(48, AutoConfig::default()).unwrap();
    for (id, row) in (0..).zip(&rows) {
        index.upsert(RowId(id), row).unwrap();
    }
    let mut out = Vec::with_capacity(8);
    let before = held();
    for row in &rows {
        out.clear();
        index.search(row, 8, &mut out).unwrap();
    }
    assert_eq!(held(), before);
    assert_eq!(out.capacity(), 8);
}

/// A snapshot that announces far more than follows, with checksums that fit.
#[test]
fn a_snapshot_gets_memory_for_the_bytes_there_are_and_not_for_those_it_announces() {
    let index = BinaryIndex::new(128, BinaryConfig::default()).unwrap();
    for (id, row) in (0..).zip(&clustered(&mut Random::new(3), 200, 128)) {
        index.upsert(RowId(id), row).unwrap();
    }
    let mut bytes = Vec::new();
    index.snapshot(&mut bytes).unwrap();
    assert_eq!(index.cells(), 1);
    let directory = 64 + 64 + 128 + 64;
    let seal = |bytes: &mut [u8], start: usize, end: usize| {
        let sum = crc32fast::hash(&bytes[start..end]);
        bytes[end..end + 4].copy_from_slice(&sum.to_le_bytes());
    };
    let rows = 3_000_000_000u32;
    let mut many_rows = bytes.clone();
    many_rows[16..20].copy_from_slice(&rows.to_le_bytes());
    many_rows[64..68].copy_from_slice(&rows.to_le_bytes());
    let mut many_cells = bytes.clone();
    many_cells[28..32].copy_from_slice(&u32::MAX.to_le_bytes());
    let mut wide = bytes.clone();
    wide[12..16].copy_from_slice(&65_536u32.to_le_bytes());
    for mut forged in [many_rows, many_cells, wide] {
        seal(&mut forged, 0, 24);
        seal(&mut forged, 28, 60);
        seal(&mut forged, 64, directory - 4);
        let before = HELD.get();
        PEAK.set(before);
        let error = restore(&mut forged.as_slice()).map(drop).unwrap_err();
        let truncated = matches!(
            error,
            IndexError::Snapshot {
                fault: SnapshotFault::Truncated
            }
        );
        assert!(truncated, "{error}");
        // A buffer that grows by doubling, while the old one is copied.
        let most = (PEAK.get() - before).unsigned_abs();
        assert!(most < 3 * forged.len() + 4096, "{most} bytes");
    }
}
