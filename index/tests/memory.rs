//! What indexes cost in memory, as the allocator sees it.
//!
//! A million partitions of one to three rows must cost little more than their vectors, and `bytes`
//! must tell the truth, or a cache that bounds its memory by it does not. The allocator of this test
//! counts for each thread what that thread asked for and gave back.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use askonce_index::{Expiry, FlatIndex, IndexConfig, RowId, VectorIndex};

mod support;
use support::engines::{Subject, on_engine};
use support::{Random, clustered};

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static ALLOCATED: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// The one `unsafe` outside the kernels: an allocator cannot be had without, and this is a test.
#[expect(unsafe_code, reason = "an allocator that counts")]
// SAFETY: every call is passed on to the system allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.with(|held| held.set(held.get() + layout.size() as isize));
        ALLOCATED.with(|times| times.set(times.get() + 1));
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
    let config = IndexConfig::default();
    let before = held();
    let index = config.open(128).unwrap();
    let measured = held() - before + size_of_val(&index);
    println!("{measured} bytes");
    assert!(measured < 200, "{measured} bytes");
    assert_eq!(index.bytes(), 0);
    assert_eq!(measured, size_of_val(&*index) + size_of_val(&index));
}

#[test]
fn a_hundred_thousand_tiny_indexes_cost_what_their_rows_cost() {
    const PARTITIONS: usize = 100_000;
    const DIMENSION: usize = 64;
    let rows = clustered(&mut Random::new(1), 64, DIMENSION);
    let config = IndexConfig::default();
    let before = held();
    let mut indexes = Vec::with_capacity(PARTITIONS);
    let mut held_rows = 0;
    for partition in 0..PARTITIONS {
        let index = config.open(DIMENSION).unwrap();
        for row in 0..1 + partition % 3 {
            let vector = &rows[(partition + row) % 64];
            index.upsert(RowId(row as u64), vector).unwrap();
            held_rows += 1;
        }
        indexes.push(index);
    }
    let measured = held() - before;
    let own = size_of_val(&indexes[0]) + size_of_val(&*indexes[0]);
    let told: usize = indexes.iter().map(|index| index.bytes()).sum();
    assert_eq!(told + PARTITIONS * own, measured);
    let content = held_rows * (size_of::<RowId>() + size_of::<Expiry>() + 4 * DIMENSION);
    let overhead = (measured - content) / PARTITIONS;
    println!("{overhead} bytes for each partition beside its rows");
    assert!(overhead < 200, "{overhead} bytes beside the rows");
}

/// Fills the index, empties most of it, and compares what it tells with what it holds. An index is
/// right within a quarter, or within the few kilobytes that are none of its rows.
fn bytes_are_near_what_the_allocator_gave<S: Subject>() {
    let rows = clustered(&mut Random::new(5), 3000, 96);
    // What a thread keeps for its searches and writes is there before.
    drop(S::filled(&rows[..200]));
    let before = held();
    let index = S::empty(96).unwrap();
    let check = |when: &str| {
        let (measured, told) = (held() - before, index.bytes());
        let inline = size_of_val(&*index);
        println!("{when}: told {told} of {measured}");
        assert!(
            told.abs_diff(measured - inline) <= measured / 4 + 8192,
            "{told} told of {measured} {when}"
        );
    };
    for (id, row) in (0..).zip(&rows) {
        index.upsert(RowId(id), row).unwrap();
        if id % 500 == 499 {
            check(&format!("at {} rows", id + 1));
        }
    }
    index.settle();
    check("settled");
    let full = held() - before;
    for id in 0..2900 {
        index.remove(RowId(id)).unwrap();
    }
    index.settle();
    check("at 100 rows");
    let left = held() - before;
    assert!(left < full / 4, "{left} of {full} bytes are kept");
}

on_engine!(flat Flat: bytes_are_near_what_the_allocator_gave);
on_engine!(binary Binary: bytes_are_near_what_the_allocator_gave);
on_engine!(binary_of_many_cells BinaryOfManyCells: bytes_are_near_what_the_allocator_gave);
on_engine!(binary_of_16_bits BinaryOf16Bits: bytes_are_near_what_the_allocator_gave);
on_engine!(auto_growing AutoGrowing: bytes_are_near_what_the_allocator_gave);
// The graphs of `hnsw_rs` are freed by threads of rayon, which this allocator counts by themselves;
// one graph is looked at below.

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
        assert_eq!(index.backlog().waiting, 1500);
        index.settle();
        assert_eq!(index.backlog().waiting, 0);
        let (measured, told) = (held() - before, index.bytes());
        println!("links {links}, dimension {dimension}: told {told} of {measured}");
        assert!(
            told.abs_diff(measured) * 4 < measured,
            "{told} told of {measured}"
        );
    }
}

fn a_lookup_by_a_unit_vector_allocates_nothing<S: Subject>() {
    let rows = clustered(&mut Random::new(4), 500, 48);
    let index = S::filled(&rows);
    let mut out = Vec::with_capacity(8);
    // What a thread keeps for its searches is made by the first ones.
    for pass in 0..2 {
        let before = ALLOCATED.get();
        for row in &rows {
            out.clear();
            index.search(row, 8, &mut out).unwrap();
            out.clear();
            index.search_above(row, 0.9, 8, &mut out).unwrap();
        }
        assert!(pass == 0 || ALLOCATED.get() == before);
    }
    assert_eq!(out.capacity(), 8);
}

mod lookups {
    use super::*;

    on_engine!(flat Flat: a_lookup_by_a_unit_vector_allocates_nothing);
    on_engine!(binary Binary: a_lookup_by_a_unit_vector_allocates_nothing);
    on_engine!(auto_growing AutoGrowing: a_lookup_by_a_unit_vector_allocates_nothing);
}
