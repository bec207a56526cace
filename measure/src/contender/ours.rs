//! The engines of `askonce-index`.

use std::sync::Arc;

use askonce_index::{
    AutoConfig, AutoIndex, BinaryConfig, BinaryIndex, BuildThread, FlatIndex, HnswConfig,
    HnswRsIndex, IndexError, Neighbor, Precision, Query, RowId, VectorIndex,
};

use super::{Contender, Entry, Found, HNSW_RS_INT8, OURS, OURS_AUDITED, Setting};
use crate::dataset::Dataset;
use crate::error::{Result, of};

pub(crate) type Made = std::result::Result<Box<dyn VectorIndex>, IndexError>;
type Make = Arc<dyn Fn(usize, usize) -> Made + Send + Sync>;

/// Cells looked at, for the curve; the default of the engine finds its own number.
const PROBES: [usize; 9] = [1, 2, 4, 8, 16, 32, 64, 128, 256];

/// Rows that are scanned in full for every lookup, where that is not what is measured.
const SCANNED: usize = 20_000;

/// Rows that are linked by one thread and looked up again each, which takes minutes for more.
const LINKED: usize = 10_000;

pub(super) fn entries(patient: bool) -> Vec<Entry> {
    let every = |most: usize| if patient { usize::MAX } else { most };
    let default = || {
        vec![Setting {
            label: "default".to_owned(),
            default: true,
        }]
    };
    let mut probes = default();
    probes.extend(PROBES.map(|probes| Setting {
        label: format!("{probes} cells"),
        default: false,
    }));
    #[cfg_attr(
        not(feature = "faiss"),
        expect(unused_mut, reason = "FAISS is another")
    )]
    let mut entries = vec![
        entry(OURS, usize::MAX, probes, Arc::new(binary)),
        entry(OURS_AUDITED, usize::MAX, default(), Arc::new(binary)),
        entry(
            "ours int16",
            usize::MAX,
            default(),
            Arc::new(|dimension, _| {
                let config = BinaryConfig {
                    precision: Precision::Int16,
                    ..BinaryConfig::default()
                };
                Ok(Box::new(BinaryIndex::new(dimension, config)?))
            }),
        ),
        entry(
            "auto",
            usize::MAX,
            default(),
            Arc::new(|dimension, _| {
                Ok(Box::new(AutoIndex::new(dimension, AutoConfig::default())?))
            }),
        ),
        entry(
            "flat",
            every(SCANNED),
            default(),
            Arc::new(|dimension, _| Ok(Box::new(FlatIndex::new(dimension)?))),
        ),
        entry(
            HNSW_RS_INT8,
            if patient { 2 * LINKED } else { LINKED },
            default(),
            Arc::new(|dimension, _| {
                let config = HnswConfig {
                    build: BuildThread::Caller,
                    ..HnswConfig::default()
                };
                Ok(Box::new(HnswRsIndex::new(dimension, config)?))
            }),
        ),
    ];
    #[cfg(feature = "faiss")]
    entries.push(entry(
        super::FAISS_INT8,
        every(SCANNED),
        default(),
        Arc::new(|dimension, _| {
            let config = askonce_index::FaissConfig {
                build: BuildThread::Caller,
                ..askonce_index::FaissConfig::default()
            };
            Ok(Box::new(askonce_index::FaissIndex::new(
                dimension, &config,
            )?))
        }),
    ));
    entries
}

/// The default engine. Setting 0 is what it does by itself, the others are fixed numbers of cells.
pub(crate) fn binary(dimension: usize, setting: usize) -> Made {
    let probes = setting
        .checked_sub(1)
        .and_then(|at| PROBES.get(at).copied());
    let config = BinaryConfig {
        probes,
        ..BinaryConfig::default()
    };
    Ok(Box::new(BinaryIndex::new(dimension, config)?))
}

fn entry(name: &'static str, most_rows: usize, settings: Vec<Setting>, make: Make) -> Entry {
    Entry {
        name,
        most_rows,
        make: Box::new(move |set| {
            let first = make(set.dimension, 0).map_err(of(name))?;
            Ok(Box::new(Indexed {
                name,
                settings: settings.clone(),
                make: Arc::clone(&make),
                first,
                other: None,
            }))
        }),
    }
}

/// An engine of ours. Its knob is one of construction, so another setting is another index.
struct Indexed {
    name: &'static str,
    settings: Vec<Setting>,
    make: Make,
    first: Box<dyn VectorIndex>,
    other: Option<Box<dyn VectorIndex>>,
}

impl Indexed {
    fn current(&self) -> &dyn VectorIndex {
        self.other.as_deref().unwrap_or(&*self.first)
    }
}

impl Contender for Indexed {
    fn settings(&self) -> Vec<Setting> {
        self.settings.clone()
    }

    fn turn(&mut self, setting: usize, set: &Dataset) -> Result<()> {
        self.other = None;
        if setting == 0 {
            return Ok(());
        }
        let other = (self.make)(set.dimension, setting).map_err(of(self.name))?;
        for row in 0..set.len() {
            other
                .upsert(RowId(row as u64), set.row(row))
                .map_err(of(self.name))?;
        }
        other.settle();
        self.other = Some(other);
        Ok(())
    }

    fn insert(&self, row: u64, vector: &[f32]) -> Result<()> {
        self.current()
            .upsert(RowId(row), vector)
            .map_err(of(self.name))
    }

    fn settle(&self) {
        self.current().settle();
    }

    fn practice(&self, set: &Dataset) -> Result<()> {
        if self.name == OURS_AUDITED {
            let queries: Vec<Query<'_>> = set
                .practice()
                .map(|query| Query::new(query, 1).above(0.8))
                .collect();
            self.current().audit(&queries).map_err(of(self.name))?;
        }
        Ok(())
    }

    fn lookup(
        &self,
        query: &[f32],
        k: usize,
        min_score: Option<f32>,
        out: &mut Vec<Found>,
    ) -> Result<()> {
        thread_local! {
            static FOUND: std::cell::RefCell<Vec<Neighbor>> = const { std::cell::RefCell::new(Vec::new()) };
        }
        FOUND.with_borrow_mut(|found| {
            found.clear();
            let query = Query::new(query, k).above(min_score.unwrap_or(-1.0));
            self.current().query(&query, found).map_err(of(self.name))?;
            out.extend(found.iter().map(|near| Found {
                row: near.id.0,
                score: near.score,
            }));
            Ok(())
        })
    }

    fn delete(&self, row: u64) -> Result<bool> {
        self.current().remove(RowId(row)).map_err(of(self.name))?;
        Ok(true)
    }

    fn bytes(&self) -> Option<usize> {
        Some(self.current().bytes())
    }
}
