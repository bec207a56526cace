//! hnswlib (C++), M = 16 and `efConstruction` = 200, with room for exactly the rows of the set.
//!
//! Its `setEf` is not for one query but for all. Deletion marks a row, which stays a way station.

use std::ffi::{c_int, c_long, c_void};
use std::ptr::NonNull;

use super::{Contender, EF, Entry, Found, HNSWLIB, Setting, numbered};
use crate::dataset::Dataset;
use crate::error::{MeasureError, Result};

const LINKS: usize = 16;
const EF_CONSTRUCTION: usize = 200;

unsafe extern "C" {
    fn askonce_hnswlib_new(
        dimension: usize,
        capacity: usize,
        links: usize,
        ef_construction: usize,
    ) -> *mut c_void;
    fn askonce_hnswlib_free(index: *mut c_void);
    fn askonce_hnswlib_insert(index: *mut c_void, row: *const f32, label: usize) -> c_int;
    fn askonce_hnswlib_delete(index: *mut c_void, label: usize) -> c_int;
    fn askonce_hnswlib_set_ef(index: *mut c_void, ef: usize);
    fn askonce_hnswlib_search(
        index: *const c_void,
        query: *const f32,
        k: usize,
        labels: *mut usize,
        scores: *mut f32,
    ) -> c_long;
}

pub(super) fn entry() -> Entry {
    Entry {
        name: HNSWLIB,
        most_rows: usize::MAX,
        make: Box::new(|set| Ok(Box::new(Hnswlib::new(set.dimension, set.len())?))),
    }
}

struct Hnswlib {
    dimension: usize,
    index: NonNull<c_void>,
}

// SAFETY: the index is used by many threads at once only to search, which it allows; inserts, deletes
// and changes of ef are made by one thread while no other uses it.
unsafe impl Send for Hnswlib {}
// SAFETY: as above.
unsafe impl Sync for Hnswlib {}

impl Hnswlib {
    fn new(dimension: usize, capacity: usize) -> Result<Self> {
        // SAFETY: the call takes numbers, and a failure is a null pointer.
        let index = unsafe { askonce_hnswlib_new(dimension, capacity, LINKS, EF_CONSTRUCTION) };
        let index = NonNull::new(index).ok_or_else(|| fault("there is no memory for an index"))?;
        Ok(Self { dimension, index })
    }

    fn check(&self, vector: &[f32]) -> Result<()> {
        if vector.len() == self.dimension {
            Ok(())
        } else {
            Err(fault("the vector has another dimension"))
        }
    }
}

fn fault(reason: &str) -> MeasureError {
    MeasureError::Peer {
        contender: HNSWLIB,
        reason: reason.to_owned(),
    }
}

impl Drop for Hnswlib {
    fn drop(&mut self) {
        // SAFETY: the index was made by `askonce_hnswlib_new` and is used no more.
        unsafe { askonce_hnswlib_free(self.index.as_ptr()) };
    }
}

impl Contender for Hnswlib {
    fn settings(&self) -> Vec<Setting> {
        numbered("ef", &EF)
    }

    fn built(&self) -> Option<String> {
        Some(format!("M {LINKS}, efConstruction {EF_CONSTRUCTION}"))
    }

    fn turn(&mut self, setting: usize, _: &Dataset) -> Result<()> {
        // SAFETY: the index is alive, and no other thread uses it during `&mut self`.
        unsafe { askonce_hnswlib_set_ef(self.index.as_ptr(), EF[setting]) };
        Ok(())
    }

    fn insert(&self, row: u64, vector: &[f32]) -> Result<()> {
        self.check(vector)?;
        // SAFETY: the index is alive, and reads `dimension` components, which are there.
        let done =
            unsafe { askonce_hnswlib_insert(self.index.as_ptr(), vector.as_ptr(), row as usize) };
        if done == 1 {
            Ok(())
        } else {
            Err(fault("it refused a row"))
        }
    }

    fn lookup(&self, query: &[f32], k: usize, _: Option<f32>, out: &mut Vec<Found>) -> Result<()> {
        self.check(query)?;
        let (mut labels, mut scores) = ([0usize; 16], [0.0f32; 16]);
        let k = k.min(labels.len());
        // SAFETY: the index is alive and reads `dimension` components; it writes at most `k` labels
        // and scores, for which there is room.
        let found = unsafe {
            askonce_hnswlib_search(
                self.index.as_ptr(),
                query.as_ptr(),
                k,
                labels.as_mut_ptr(),
                scores.as_mut_ptr(),
            )
        };
        let found = usize::try_from(found).map_err(|_| fault("a search failed"))?;
        let found = labels.iter().zip(scores).take(found);
        out.extend(found.map(|(&row, score)| Found {
            row: row as u64,
            score,
        }));
        Ok(())
    }

    fn delete(&self, row: u64) -> Result<bool> {
        // SAFETY: the index is alive.
        let done = unsafe { askonce_hnswlib_delete(self.index.as_ptr(), row as usize) };
        if done == 1 {
            Ok(true)
        } else {
            Err(fault("it deleted nothing"))
        }
    }

    fn bytes(&self) -> Option<usize> {
        None
    }

    fn fixed_bytes(&self) -> usize {
        // A table of locks.
        65_536 * size_of::<[u64; 5]>()
    }
}
