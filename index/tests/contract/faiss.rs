//! The suite over FAISS, in each of the structures it can build.

use askonce_index::{BuildThread, FaissConfig, FaissIndex};

use super::*;

/// An index that gives its rows to FAISS at the sizes of this suite.
trait Made {
    const FACTORY: &'static str;
    const BUILD: BuildThread = BuildThread::Caller;

    fn config() -> FaissConfig {
        FaissConfig {
            factory: Self::FACTORY.to_owned(),
            ef_construction: 60,
            probes: 2,
            seal_rows: 16,
            build: Self::BUILD,
            ..FaissConfig::default()
        }
    }
}

/// `Made` cannot stand for itself: another blanket implementation would overlap.
struct Faiss<M>(std::marker::PhantomData<M>);

impl<M: Made> Subject for Faiss<M> {
    fn empty(dimension: usize) -> Result<Box<dyn VectorIndex>, IndexError> {
        Ok(Box::new(FaissIndex::new(dimension, &M::config())?))
    }
    fn restored(mut bytes: &[u8]) -> Result<Box<dyn VectorIndex>, IndexError> {
        Ok(Box::new(FaissIndex::restore(&mut bytes, &M::config())?))
    }
}

struct Scan;

impl Made for Scan {
    const FACTORY: &'static str = "Flat";
}

struct ScanOfCodes;

impl Made for ScanOfCodes {
    const FACTORY: &'static str = "SQ8";
}

struct Graph;

impl Made for Graph {
    const FACTORY: &'static str = "HNSW16,Flat";
}

struct GraphOfCodes;

impl Made for GraphOfCodes {
    const FACTORY: &'static str = "HNSW16,SQ8";
}

struct GraphInBackground;

impl Made for GraphInBackground {
    const FACTORY: &'static str = "HNSW16,SQ8";
    const BUILD: BuildThread = BuildThread::Shared;
}

struct Cells;

impl Made for Cells {
    const FACTORY: &'static str = "IVF4,Flat";
}

struct CellsOfCodes;

impl Made for CellsOfCodes {
    const FACTORY: &'static str = "IVF4,SQ8";
}

struct CellsByGraphInBackground;

impl Made for CellsByGraphInBackground {
    const FACTORY: &'static str = "IVF4_HNSW8,SQ8";
    const BUILD: BuildThread = BuildThread::Shared;
}

contract! {
    scan: Faiss<Scan>;
    scan_of_codes: Faiss<ScanOfCodes>;
    graph: Faiss<Graph>;
    graph_of_codes: Faiss<GraphOfCodes>;
    graph_in_background: Faiss<GraphInBackground>;
    cells: Faiss<Cells>;
    cells_of_codes: Faiss<CellsOfCodes>;
    cells_by_graph_in_background: Faiss<CellsByGraphInBackground>;
}
