//! Every engine, in the settings under which the suites run it.
//!
//! A new engine adds a [`Subject`] and a line to [`on_every_engine`], and inherits all suites. What
//! an approximate engine may do and an exact one may not is asked of the index itself.

use askonce_index::{
    AutoConfig, AutoIndex, BinaryConfig, BinaryIndex, FlatIndex, IndexError, Precision, RowId,
    VectorIndex,
};

/// What the suites need to know of an engine.
pub(crate) trait Subject {
    /// Rows that the tests of large sets fill it with.
    const MANY: usize = 20_000;

    fn empty(dimension: usize) -> Result<Box<dyn VectorIndex>, IndexError>;
    fn restored(bytes: &[u8]) -> Result<Box<dyn VectorIndex>, IndexError>;

    /// Rows numbered from 0.
    fn filled(rows: &[Vec<f32>]) -> Box<dyn VectorIndex> {
        let index = Self::empty(rows[0].len()).unwrap();
        for (id, row) in (0..).zip(rows) {
            index.upsert(RowId(id), row).unwrap();
        }
        index
    }

    /// The same rows, after a way through a snapshot.
    fn again(index: &dyn VectorIndex) -> Box<dyn VectorIndex> {
        let mut bytes = Vec::new();
        index.snapshot(&mut bytes).unwrap();
        Self::restored(&bytes).unwrap()
    }
}

/// Makes each of these tests, functions that take a [`Subject`], a test of every engine.
macro_rules! on_every_engine {
    ($($test:ident)*) => {
        $crate::support::engines::on_engine!(flat Flat: $($test)*);
        $crate::support::engines::on_engine!(binary Binary: $($test)*);
        $crate::support::engines::on_engine!(binary_of_many_cells BinaryOfManyCells: $($test)*);
        $crate::support::engines::on_engine!(binary_of_16_bits BinaryOf16Bits: $($test)*);
        $crate::support::engines::on_engine!(auto_at_defaults AutoAtDefaults: $($test)*);
        $crate::support::engines::on_engine!(auto_growing AutoGrowing: $($test)*);
        #[cfg(feature = "hnsw")]
        $crate::support::engines::on_engine!(hnsw_rs HnswRs: $($test)*);
        #[cfg(feature = "hnsw")]
        $crate::support::engines::on_engine!(hnsw_rs_in_background HnswRsInBackground: $($test)*);
        #[cfg(feature = "faiss")]
        $crate::support::engines::on_engine!(faiss_flat FaissFlat: $($test)*);
        #[cfg(feature = "faiss")]
        $crate::support::engines::on_engine!(faiss_sq8 FaissSq8: $($test)*);
        #[cfg(feature = "faiss")]
        $crate::support::engines::on_engine!(faiss_hnsw_flat FaissHnswFlat: $($test)*);
        #[cfg(feature = "faiss")]
        $crate::support::engines::on_engine!(faiss_hnsw_sq8 FaissHnswSq8: $($test)*);
        #[cfg(feature = "faiss")]
        $crate::support::engines::on_engine!(faiss_hnsw_in_background FaissHnswInBackground: $($test)*);
        #[cfg(feature = "faiss")]
        $crate::support::engines::on_engine!(faiss_ivf_flat FaissIvfFlat: $($test)*);
        #[cfg(feature = "faiss")]
        $crate::support::engines::on_engine!(faiss_ivf_sq8 FaissIvfSq8: $($test)*);
        #[cfg(feature = "faiss")]
        $crate::support::engines::on_engine!(faiss_ivf_hnsw_in_background FaissIvfHnswInBackground: $($test)*);
    };
}

macro_rules! on_engine {
    ($module:ident $subject:ident: $($test:ident)*) => {
        mod $module {
            $(
                #[test]
                fn $test() {
                    super::$test::<$crate::support::engines::$subject>();
                }
            )*
        }
    };
}

pub(crate) use {on_engine, on_every_engine};

pub(crate) struct Flat;

impl Subject for Flat {
    fn empty(dimension: usize) -> Result<Box<dyn VectorIndex>, IndexError> {
        Ok(Box::new(FlatIndex::new(dimension)?))
    }
    fn restored(mut bytes: &[u8]) -> Result<Box<dyn VectorIndex>, IndexError> {
        Ok(Box::new(FlatIndex::restore(&mut bytes)?))
    }
}

/// One cell, or a few, at the sizes of the suites.
pub(crate) struct Binary;

/// Cells as small as can be, so that they split, shrink and merge all the time.
pub(crate) struct BinaryOfManyCells;

/// Many cells of the finer rows.
pub(crate) struct BinaryOf16Bits;

macro_rules! binary {
    ($($subject:ident $config:expr;)*) => {$(
        impl Subject for $subject {
            fn empty(dimension: usize) -> Result<Box<dyn VectorIndex>, IndexError> {
                Ok(Box::new(BinaryIndex::new(dimension, $config)?))
            }
            fn restored(mut bytes: &[u8]) -> Result<Box<dyn VectorIndex>, IndexError> {
                Ok(Box::new(BinaryIndex::restore(&mut bytes, $config)?))
            }
        }
    )*};
}

binary! {
    Binary BinaryConfig::default();
    BinaryOfManyCells BinaryConfig {
        cell_rows: Some(16),
        ..BinaryConfig::default()
    };
    BinaryOf16Bits BinaryConfig {
        cell_rows: Some(32),
        precision: Precision::Int16,
        ..BinaryConfig::default()
    };
}

/// Flat for a part of each test, or for all of it.
pub(crate) struct AutoAtDefaults;

/// Goes on as a binary index in the middle of every test.
pub(crate) struct AutoGrowing;

macro_rules! auto {
    ($($subject:ident $config:expr;)*) => {$(
        impl Subject for $subject {
            fn empty(dimension: usize) -> Result<Box<dyn VectorIndex>, IndexError> {
                Ok(Box::new(AutoIndex::new(dimension, $config)?))
            }
            fn restored(mut bytes: &[u8]) -> Result<Box<dyn VectorIndex>, IndexError> {
                Ok(Box::new(AutoIndex::restore(&mut bytes, $config)?))
            }
        }
    )*};
}

auto! {
    AutoAtDefaults AutoConfig::default();
    AutoGrowing AutoConfig {
        flat_limit: 20,
        binary: BinaryConfig {
            cell_rows: Some(64),
            ..BinaryConfig::default()
        },
    };
}

#[cfg(feature = "hnsw")]
pub(crate) use graphs::{HnswRs, HnswRsInBackground};

#[cfg(feature = "hnsw")]
mod graphs {
    use askonce_index::{BuildThread, HnswConfig, HnswRsIndex};

    use super::*;

    fn by(build: BuildThread) -> HnswConfig {
        HnswConfig {
            links: 16,
            ef_construction: 60,
            seal_rows: 16,
            build,
            ..HnswConfig::default()
        }
    }

    /// Graphs that the writer builds, so that the tests see them built.
    pub(crate) struct HnswRs;

    impl Subject for HnswRs {
        // To link a row takes most of a millisecond.
        const MANY: usize = 1_500;

        fn empty(dimension: usize) -> Result<Box<dyn VectorIndex>, IndexError> {
            let config = by(BuildThread::Caller);
            Ok(Box::new(HnswRsIndex::new(dimension, config)?))
        }
        fn restored(mut bytes: &[u8]) -> Result<Box<dyn VectorIndex>, IndexError> {
            let config = by(BuildThread::Caller);
            Ok(Box::new(HnswRsIndex::restore(&mut bytes, config)?))
        }
    }

    /// Graphs that are built beside the tests.
    pub(crate) struct HnswRsInBackground;

    impl Subject for HnswRsInBackground {
        const MANY: usize = 1_500;

        fn empty(dimension: usize) -> Result<Box<dyn VectorIndex>, IndexError> {
            let config = by(BuildThread::Shared);
            Ok(Box::new(HnswRsIndex::new(dimension, config)?))
        }
        fn restored(mut bytes: &[u8]) -> Result<Box<dyn VectorIndex>, IndexError> {
            let config = by(BuildThread::Shared);
            Ok(Box::new(HnswRsIndex::restore(&mut bytes, config)?))
        }
    }
}

#[cfg(feature = "faiss")]
pub(crate) use over_faiss::*;

#[cfg(feature = "faiss")]
mod over_faiss {
    use askonce_index::{BuildThread, FaissConfig, FaissIndex};

    use super::*;

    /// FAISS gets its rows at the sizes of the suites.
    fn made(factory: &str, build: BuildThread) -> FaissConfig {
        FaissConfig {
            factory: factory.to_owned(),
            ef_construction: 60,
            probes: 2,
            seal_rows: 16,
            build,
            ..FaissConfig::default()
        }
    }

    macro_rules! faiss {
        ($($subject:ident $factory:literal $build:ident;)*) => {$(
            pub(crate) struct $subject;

            impl Subject for $subject {
                // Graphs with so few links are made for sizes as small.
                const MANY: usize = 1_500;

                fn empty(dimension: usize) -> Result<Box<dyn VectorIndex>, IndexError> {
                    let config = made($factory, BuildThread::$build);
                    Ok(Box::new(FaissIndex::new(dimension, &config)?))
                }
                fn restored(mut bytes: &[u8]) -> Result<Box<dyn VectorIndex>, IndexError> {
                    let config = made($factory, BuildThread::$build);
                    Ok(Box::new(FaissIndex::restore(&mut bytes, &config)?))
                }
            }
        )*};
    }

    // Each structure that FAISS can build, searched while the tests see it built or beside them.
    faiss! {
        FaissFlat "Flat" Caller;
        FaissSq8 "SQ8" Caller;
        FaissHnswFlat "HNSW16,Flat" Caller;
        FaissHnswSq8 "HNSW16,SQ8" Caller;
        FaissHnswInBackground "HNSW16,SQ8" Shared;
        FaissIvfFlat "IVF4,Flat" Caller;
        FaissIvfSq8 "IVF4,SQ8" Caller;
        FaissIvfHnswInBackground "IVF4_HNSW8,SQ8" Shared;
    }
}
