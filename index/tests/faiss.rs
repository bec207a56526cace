//! What holds for FAISS as a library, and what it says about the other engines.
#![cfg(feature = "faiss")]

use askonce_index::{BuildThread, FaissConfig, FaissIndex, FlatIndex, Query, RowId, VectorIndex};
use faiss::{Index, MetricType, index_factory};

mod support;
use support::{Random, clustered};

/// FAISS knows nothing of this crate, and so is an oracle for what this crate calls exact.
#[test]
fn exact_engines_agree_with_the_flat_index_of_faiss() {
    const K: usize = 10;
    for dimension in [1, 7, 24, 128, 384] {
        let mut random = Random::new(40 + dimension as u64);
        let rows = clustered(&mut random, 2000, dimension);
        let queries = clustered(&mut random, 20, dimension);
        let mut oracle = index_factory(dimension as u32, "Flat", MetricType::InnerProduct).unwrap();
        oracle.add(&rows.concat()).unwrap();
        let engines: [Box<dyn VectorIndex>; 2] = [
            Box::new(FlatIndex::new(dimension).unwrap()),
            Box::new(FaissIndex::new(dimension, by_caller("Flat")).unwrap()),
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
                    let engine = index.capability().engine;
                    assert!(
                        (score.clamp(-1.0, 1.0) - neighbor.score).abs() < 1e-5,
                        "{engine} with {dimension} components: {neighbor:?} for {label} at {score}"
                    );
                }
            }
        }
    }
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
    let index = FaissIndex::new(32, by_caller("HNSW16,SQ8")).unwrap();
    for (id, row) in (0..).zip(&rows) {
        index.upsert(RowId(id), row).unwrap();
    }
    assert_eq!(index.backlog().waiting, 0);
    let mut found = Vec::new();
    for row in &rows {
        index.search(row, 3, &mut found).unwrap();
    }
    assert_eq!(threads(), before);
}
