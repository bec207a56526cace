//! The one place that calls FAISS, and the rules of doing so.
//!
//! - *Threads.* FAISS promises that searches of an index that no one changes may run side by side,
//!   and nothing about changes. So a [`Native`] is changed only while it is being made, by its one
//!   owner; once it can be shared it is never changed again, and one that knows more rows is made
//!   as a copy. The wrapper `faiss` asks for `&mut` to search, hence the call below it. (FAISS also
//!   counts searches in global numbers without synchronization; nothing reads them.)
//! - *One thread for each call.* FAISS is compiled with OpenMP, which would start a team of threads
//!   in any thread that calls. The number is a property of the calling thread, not of the process:
//!   [`OneThread`] sets it around each call and puts back what was there. Training k-means also
//!   calls BLAS, which may have threads of its own: `OPENBLAS_NUM_THREADS` governs those.
//! - *Failures.* What a C++ exception says names source files and means nothing to a user, so
//!   [`Failed`] carries no text.
//! - *Instructions.* The library is compiled for the instruction set that its C++ flags name and
//!   does not look at the CPU, which stops the process at the first instruction it does not have.
//!   The build script asks the compiler what the flags mean; [`missing_instructions`] compares.
//! - *Ids* are the numbers 0, 1, 2... in the order in which rows were added: no `IDMap`, and nothing
//!   is ever removed, because a graph cannot and a scan renumbers.
//! - *Selectors* are not used: the wrapper leaks each one, and one made for a set of live rows is
//!   out of date with the next removal. The caller drops dead rows from a longer list.

use std::ffi::c_int;

use faiss::index::autotune::ParameterSpace;
use faiss::index::{Idx, IndexImpl, TryClone};
use faiss::{Index, MetricType, index_factory};

use super::config::Plan;
use super::factory::Structure;

/// Rows added by one call. Each call on a graph prepares a lock for every row there is, so not too
/// few; between calls the work can be given up, so not too many.
const ADDED: usize = 1024;

/// CPU features, by the names of Rust, that the compiler of FAISS was allowed to use.
const NEEDED: &str = env!("ASKONCE_FAISS_INSTRUCTIONS");

// libgomp, which faiss-sys links. Both calls take and give plain numbers.
unsafe extern "C" {
    safe fn omp_get_max_threads() -> c_int;
    safe fn omp_set_num_threads(threads: c_int);
}

/// While it lives, OpenMP starts no thread for the calling thread.
struct OneThread {
    before: c_int,
}

impl OneThread {
    fn enter() -> Self {
        let before = omp_get_max_threads();
        omp_set_num_threads(1);
        Self { before }
    }
}

impl Drop for OneThread {
    fn drop(&mut self) {
        omp_set_num_threads(self.before);
    }
}

/// FAISS refused or could not finish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Failed;

impl From<faiss::error::Error> for Failed {
    fn from(_: faiss::error::Error) -> Self {
        Self
    }
}

/// The CPU features that this build of FAISS needs and this CPU lacks, separated by commas.
pub(super) fn missing_instructions() -> Option<String> {
    missing(NEEDED, has_feature)
}

fn missing(needed: &str, has: fn(&str) -> bool) -> Option<String> {
    let missing: Vec<&str> = needed
        .split(',')
        .filter(|name| !name.is_empty() && !has(name))
        .collect();
    (!missing.is_empty()).then(|| missing.join(", "))
}

/// Whether this CPU has a feature; `false` for one that is not known here.
#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
fn has_feature(name: &str) -> bool {
    macro_rules! detect {
        ($($feature:tt)*) => {
            match name {
                $($feature => std::arch::is_x86_feature_detected!($feature),)*
                _ => false,
            }
        };
    }
    detect! {
        "sse3" "ssse3" "sse4.1" "sse4.2" "popcnt" "avx" "avx2" "fma" "f16c" "bmi1" "bmi2" "lzcnt"
        "movbe" "avx512f" "avx512cd" "avx512bw" "avx512dq" "avx512vl" "avx512vnni" "avx512ifma"
        "avx512vbmi" "avx512vbmi2" "avx512bitalg" "avx512vpopcntdq" "avx512bf16" "avx512fp16"
        "gfni" "vaes" "vpclmulqdq"
    }
}

#[cfg(target_arch = "aarch64")]
fn has_feature(name: &str) -> bool {
    name == "sve" && std::arch::is_aarch64_feature_detected!("sve")
}

#[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
fn has_feature(_: &str) -> bool {
    false
}

/// An index of FAISS that no longer changes.
pub(super) struct Native {
    index: IndexImpl,
    dimension: usize,
    /// Rows it was trained on.
    pub(super) trained_on: usize,
}

/// What a search of a [`Native`] found, best first.
#[derive(Debug, Default)]
pub(super) struct Listed {
    scores: Vec<f32>,
    labels: Vec<i64>,
}

impl Listed {
    /// Numbers and scores of the rows found; fewer than asked for if there were no more.
    pub(super) fn rows(&self) -> impl Iterator<Item = (usize, f32)> {
        // FAISS fills what is missing with -1.
        let found = self.labels.iter().zip(&self.scores);
        found.map_while(|(&label, &score)| Some((usize::try_from(label).ok()?, score)))
    }
}

impl Native {
    /// Whether FAISS takes this description and dimension at all.
    pub(super) fn check(plan: &Plan, dimension: usize) -> Result<(), Failed> {
        let _one = OneThread::enter();
        empty(plan, dimension).map(drop)
    }

    /// Trains on these rows and takes them. `None` if the work was given up.
    pub(super) fn build(
        plan: &Plan,
        dimension: usize,
        rows: &[f32],
        wanted: &dyn Fn() -> bool,
    ) -> Result<Option<Self>, Failed> {
        let _one = OneThread::enter();
        let mut index = empty(plan, dimension)?;
        if plan.factory.is_trained() {
            index.train(rows)?;
        }
        let trained_on = rows.len() / dimension;
        fill(index, dimension, rows, trained_on, wanted)
    }

    /// A copy that has these rows as well, numbered on. `None` if the work was given up.
    pub(super) fn extended(
        &self,
        rows: &[f32],
        wanted: &dyn Fn() -> bool,
    ) -> Result<Option<Self>, Failed> {
        let _one = OneThread::enter();
        fill(
            self.index.try_clone()?,
            self.dimension,
            rows,
            self.trained_on,
            wanted,
        )
    }

    /// The score that FAISS gives a row for its own vector.
    pub(super) fn own_score(
        &self,
        node: usize,
        unit: &[f32],
        kept: &mut Vec<f32>,
    ) -> Result<f32, Failed> {
        kept.resize(self.dimension, 0.0);
        let _one = OneThread::enter();
        self.index.reconstruct(Idx::new(node as u64), kept)?;
        Ok(unit.iter().zip(&*kept).map(|(a, b)| a * b).sum())
    }

    /// Up to `k` rows near the vector, best first.
    pub(super) fn search(&self, unit: &[f32], k: usize, found: &mut Listed) -> Result<(), Failed> {
        let wanted = i64::try_from(k).map_err(|_| Failed)?;
        if unit.len() != self.dimension {
            return Err(Failed);
        }
        found.scores.clear();
        found.scores.resize(k, 0.0);
        found.labels.clear();
        found.labels.resize(k, -1);
        let _one = OneThread::enter();
        // SAFETY: the index lives as long as `self` and nothing changes it: `index` is private, and
        // no method takes it out or by `&mut`. The call reads one query of `dimension` numbers, the
        // length that was checked above, and writes `k` scores and `k` labels, for which there is
        // room. It takes the index as const, and FAISS allows such calls from several threads.
        // Exceptions become codes.
        let code = unsafe {
            faiss_sys::faiss_Index_search(
                self.index.inner_ptr(),
                1,
                unit.as_ptr(),
                wanted,
                found.scores.as_mut_ptr(),
                found.labels.as_mut_ptr(),
            )
        };
        if code == 0 { Ok(()) } else { Err(Failed) }
    }
}

impl std::fmt::Debug for Native {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Native")
            .field("rows", &self.index.ntotal())
            .finish_non_exhaustive()
    }
}

/// An index without rows, with its settings made.
fn empty(plan: &Plan, dimension: usize) -> Result<IndexImpl, Failed> {
    let dimension = u32::try_from(dimension).map_err(|_| Failed)?;
    let description = plan.factory.to_string();
    let index = index_factory(dimension, description, MetricType::InnerProduct)?;
    // These change the index although the wrapper takes it by `&`; no one else has it yet.
    let settings = ParameterSpace::new()?;
    let set = |name, value: usize| settings.set_index_parameter(&index, name, value as f64);
    let links = match plan.factory.structure {
        Structure::Scan => None,
        Structure::Graph { links } => Some(links),
        Structure::Cells { cells, links } => {
            set("nprobe", plan.probes.min(cells))?;
            links
        }
    };
    if links.is_some() {
        set("efConstruction", plan.ef_construction)?;
        set("efSearch", plan.ef_search)?;
    }
    Ok(index)
}

fn fill(
    mut index: IndexImpl,
    dimension: usize,
    rows: &[f32],
    trained_on: usize,
    wanted: &dyn Fn() -> bool,
) -> Result<Option<Native>, Failed> {
    for rows in rows.chunks(ADDED * dimension) {
        if !wanted() {
            return Ok(None);
        }
        index.add(rows)?;
    }
    // The buffers grew by doubling; those of a copy have no spare room.
    let index = index.try_clone()?;
    Ok(Some(Native {
        index,
        dimension,
        trained_on,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FaissConfig;

    #[test]
    fn a_cpu_that_lacks_an_instruction_is_told_which() {
        let old = |name: &str| name == "sse3";
        assert_eq!(missing("sse3,avx2,fma", old), Some("avx2, fma".to_owned()));
        assert_eq!(missing("sse3", old), None);
        assert_eq!(missing("", old), None);
        // What the build script may name is known here, or every CPU would be refused.
        assert_eq!(missing_instructions(), None);
    }

    #[test]
    fn openmp_gets_one_thread_inside_and_its_own_number_back_after() {
        std::thread::spawn(|| {
            omp_set_num_threads(7);
            {
                let _one = OneThread::enter();
                assert_eq!(omp_get_max_threads(), 1);
            }
            assert_eq!(omp_get_max_threads(), 7);
        })
        .join()
        .unwrap();
    }

    /// The build script tells what the flags allow; this asks the library what it was given.
    #[test]
    #[cfg(all(target_arch = "x86_64", target_os = "linux", target_env = "gnu"))]
    fn the_library_has_the_instructions_that_the_build_script_found() {
        /// `std::string` of libstdc++.
        #[repr(C)]
        struct CxxString {
            text: *const u8,
            length: usize,
            room: [u8; 16],
        }
        unsafe extern "C" {
            /// `std::string faiss::get_compile_options()`, which writes its result where the
            /// caller says.
            #[link_name = "_ZN5faiss19get_compile_optionsB5cxx11Ev"]
            fn get_compile_options(result: *mut CxxString) -> *mut CxxString;
        }
        let mut result = std::mem::MaybeUninit::<CxxString>::uninit();
        // SAFETY: the call makes a string in `result`, whose layout this is; its text stays where
        // it is, as nothing frees it.
        let options = unsafe {
            get_compile_options(result.as_mut_ptr());
            let result = &*result.as_ptr();
            assert!(result.room.len() == 16 && result.length < 64);
            std::slice::from_raw_parts(result.text, result.length)
        };
        let options = str::from_utf8(options).unwrap();
        let names = |name| NEEDED.split(',').any(|needed| needed == name);
        assert_eq!(options.contains("AVX512"), names("avx512f"), "{options}");
        let avx2 = options.contains("AVX2") || options.contains("AVX512");
        assert_eq!(avx2, names("avx2"), "{options}");
        assert!(options.contains("OPTIMIZE"), "{options}");
    }

    #[test]
    fn a_refusal_of_faiss_becomes_an_error_without_its_text() {
        let config = FaissConfig {
            factory: "IVF100,Flat".to_owned(),
            ..FaissConfig::default()
        };
        let rows: Vec<f32> = (0..40).map(|x| x as f32).collect();
        // Fewer rows than cells.
        let built = Native::build(&config.plan().unwrap(), 4, &rows, &|| true);
        assert_eq!(built.err(), Some(Failed));
    }
}
