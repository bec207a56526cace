//! What holds for FAISS as a library, and what it says about the other engines.
#![cfg(feature = "faiss")]

use std::collections::HashSet;

use askonce_index::{
    BinaryConfig, BinaryIndex, BuildThread, FaissConfig, FaissIndex, FlatIndex, Query, RowId,
    VectorIndex,
};
use faiss::{Index, MetricType, index_factory};

mod support;
use support::{Random, clustered};

/// FAISS knows nothing of this crate, and so is an oracle for what this crate calls exact.
#[test]
fn exact_searches_agree_with_the_flat_index_of_faiss() {
    const K: usize = 10;
    for dimension in [1, 7, 24, 128, 384] {
        let mut random = Random::new(40 + dimension as u64);
        let rows = clustered(&mut random, 2000, dimension);
        let queries = clustered(&mut random, 20, dimension);
        let mut oracle = index_factory(dimension as u32, "Flat", MetricType::InnerProduct).unwrap();
        oracle.add(&rows.concat()).unwrap();
        let engines: [Box<dyn VectorIndex>; 3] = [
            Box::new(FlatIndex::new(dimension).unwrap()),
            Box::new(BinaryIndex::new(dimension, BinaryConfig::default()).unwrap()),
            Box::new(FaissIndex::new(dimension, &by_caller("Flat")).unwrap()),
        ];
        for index in &engines {
            for (id, row) in (0..).zip(&rows) {
                index.upsert(RowId(id), row).unwrap();
            }
            for query in rows.iter().step_by(50).chain(&queries) {
                let truth = oracle.search(query, K).unwrap();
                let mut found = Vec::new();
                index
                    .query(&Query::new(query, K).exact(), &mut found)
                    .unwrap();
                assert_eq!(found.len(), K);
                for ((&score, label), neighbor) in
                    truth.distances.iter().zip(&truth.labels).zip(&found)
                {
                    // Two lists of scores that differ by no more than this differ so in order, too.
                    let capability = index.capability();
                    let allowed = capability.score_error + 1e-5;
                    assert!(
                        (score.clamp(-1.0, 1.0) - neighbor.score).abs() < allowed,
                        "{} with {dimension} components: {neighbor:?} for {label} at {score}",
                        capability.engine,
                    );
                }
            }
        }
    }
}

/// Of the neighbours that FAISS lists, the default engine finds as many as it promises.
#[test]
fn the_binary_index_finds_the_neighbours_that_faiss_lists() {
    const K: usize = 10;
    let mut random = Random::new(77);
    let rows = clustered(&mut random, 8000, 128);
    let mut oracle = index_factory(128, "Flat", MetricType::InnerProduct).unwrap();
    oracle.add(&rows.concat()).unwrap();
    let config = BinaryConfig::default();
    let index = BinaryIndex::new(128, config).unwrap();
    for (id, row) in (0..).zip(&rows) {
        index.upsert(RowId(id), row).unwrap();
    }
    index.settle();
    // It tunes itself by audits; by other queries than those that are counted here.
    let others = rows.iter().skip(8).step_by(16);
    let others: Vec<Query<'_>> = others.map(|row| Query::new(row, K).above(0.8)).collect();
    for _ in 0..3 {
        index.audit(&others).unwrap();
    }
    let margin = index.capability().score_error;
    let (mut there, mut found) = (0, 0);
    for query in rows.iter().step_by(16) {
        let truth = oracle.search(query, K).unwrap();
        let mut listed = Vec::new();
        index.search_above(query, 0.8, K, &mut listed).unwrap();
        let listed: HashSet<u64> = listed.iter().map(|neighbor| neighbor.id.0).collect();
        for (score, label) in truth.distances.iter().zip(&truth.labels) {
            // One nearer to the threshold, or to the next best, than scores are told apart may go
            // either way.
            let last = truth.distances[K - 1];
            if *score > 0.8 + margin && *score > last + margin {
                there += 1;
                found += usize::from(listed.contains(&label.get().unwrap()));
            }
        }
    }
    assert!(there > 1000, "{there} neighbours");
    let recall = found as f32 / there as f32;
    assert!(recall >= config.recall - 0.005, "{found} of {there}");
}

fn by_caller(factory: &str) -> FaissConfig {
    FaissConfig {
        factory: factory.to_owned(),
        seal_rows: 500,
        build: BuildThread::Caller,
        ..FaissConfig::default()
    }
}

/// FAISS would use all cores for one search, and would keep the threads.
#[test]
#[cfg(target_os = "linux")]
fn neither_a_build_nor_a_search_starts_threads() {
    // In a process of its own, as other tests come and go with threads of theirs.
    const ALONE: &str = "ASKONCE_TEST_ALONE";
    const NAME: &str = "neither_a_build_nor_a_search_starts_threads";
    if std::env::var_os(ALONE).is_none() {
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", NAME, "--test-threads=1"])
            .env(ALONE, "1")
            .env("OMP_NUM_THREADS", "4")
            .status()
            .unwrap();
        assert!(status.success());
        return;
    }
    let threads = || std::fs::read_dir("/proc/self/task").unwrap().count();
    let before = threads();
    let rows = clustered(&mut Random::new(1), 1500, 32);
    // Not cells: these are trained by BLAS, which may have threads of its own.
    for factory in ["Flat", "SQ8", "HNSW16,SQ8"] {
        let index = FaissIndex::new(32, &by_caller(factory)).unwrap();
        for (id, row) in (0..).zip(&rows) {
            index.upsert(RowId(id), row).unwrap();
        }
        assert_eq!(index.backlog().waiting, 0);
        let mut found = Vec::new();
        for row in &rows {
            index.search(row, 3, &mut found).unwrap();
        }
        assert_eq!(threads(), before, "{factory}");
    }
}
