//! The cache under test, and what its runs share: progress, and work spread over cores.
//!
//! It is a real [`SemanticCache`] with the default settings, except that
//! - its index is flat unless asked otherwise: exact, and as the default one is up to its limit;
//! - its memory bound holds everything and nothing expires, so that no hit is lost to chance;
//! - prompts that ask for something current are treated as any other (`semantic.volatile.action:
//!   ignore`), because the labels of the data do not know of time; how many there are is reported;
//! - its policy can be exchanged between phases, so that one filled cache serves several policies;
//! - nothing is learnt on the way, so that a decision depends on what is stored alone;
//! - a lookup waits for the second embedding as long as it takes;
//! - stores state their token counts, so that no tokenizer is loaded.

use std::borrow::Cow;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use askonce::backend::{ByteSize, MemoryConfig};
use askonce::config::{BackendConfig, EmbedderConfig, IndexType, VolatileAction};
use askonce::policy::{Decision, Evidence, HitPolicy, PolicyHandle};
use askonce::savings::Usage;
use askonce::{Answer, Config, EntryId, Request, SemanticCache, StoreOptions, StoreOutcome, Ttl};
use askonce_models::EmbedderHandle;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::remember::Vectors;

/// A bound that no benchmark reaches.
const ROOM_FOR_ALL: u64 = 1 << 40;

/// How long a lookup waits for the second embedding: as long as the settings allow.
const PATIENCE: Duration = Duration::from_secs(10);

/// A cache whose policy can be exchanged.
#[derive(Clone, Debug)]
pub(crate) struct Lab {
    pub(crate) cache: SemanticCache,
    policy: Arc<Exchangeable>,
}

impl Lab {
    /// An empty cache that searches with `index` and decides with `policy`.
    ///
    /// # Errors
    /// The cache cannot be built.
    pub(crate) async fn new(index: IndexType, policy: PolicyHandle) -> Result<Self> {
        Self::with_embedder(index, &EmbedderConfig::default(), policy).await
    }

    /// As [`new`](Self::new), with another embedding than the built-in one.
    ///
    /// # Errors
    /// The cache cannot be built: the embedder is not in this build, or not there.
    pub(crate) async fn with_embedder(
        index: IndexType,
        embedder: &EmbedderConfig,
        policy: PolicyHandle,
    ) -> Result<Self> {
        Self::build(index, embedder, None, policy).await
    }

    /// As [`with_embedder`](Self::with_embedder), for decisions and not for times: vectors of the second
    /// embedding are taken from `vectors` where they are there.
    ///
    /// # Errors
    /// As [`with_embedder`](Self::with_embedder).
    pub(crate) async fn recording(
        index: IndexType,
        embedder: &EmbedderConfig,
        vectors: &Vectors,
        policy: PolicyHandle,
    ) -> Result<Self> {
        Self::build(index, embedder, vectors.before(embedder), policy).await
    }

    async fn build(
        index: IndexType,
        embedder: &EmbedderConfig,
        refiner: Option<EmbedderHandle>,
        policy: PolicyHandle,
    ) -> Result<Self> {
        let memory = MemoryConfig {
            max_bytes: ByteSize(ROOM_FOR_ALL),
            ..MemoryConfig::default()
        };
        let mut config = Config {
            backends: vec![BackendConfig::Memory(memory).into()],
            default_ttl: None,
            ..Config::default()
        };
        config.semantic.volatile.action = VolatileAction::Ignore;
        config.semantic.learning.enabled = false;
        config.semantic.index.kind = index;
        config.semantic.embedder = embedder.clone();
        if let EmbedderConfig::Cascade { deadline, .. } = &mut config.semantic.embedder {
            *deadline = PATIENCE;
        }
        let policy = Arc::new(Exchangeable(RwLock::new(policy)));
        let handle = Arc::clone(&policy) as PolicyHandle;
        let mut builder = SemanticCache::builder().config(&config).policy(handle);
        if let Some(refiner) = refiner {
            builder = builder.refiner(refiner);
        }
        let cache = builder.build().await?;
        Ok(Self { cache, policy })
    }

    /// Decides with `policy` from now on.
    pub(crate) fn decide_with(&self, policy: PolicyHandle) {
        *self
            .policy
            .0
            .write()
            .unwrap_or_else(PoisonError::into_inner) = policy;
    }

    /// Stores an answer; the cache has room, so anything but success is an error.
    pub(crate) async fn store(&self, request: &Request, answer: &str) -> Result<EntryId> {
        let options = StoreOptions {
            ttl: Ttl::Forever,
            usage: Some(Usage::default()),
            ..StoreOptions::default()
        };
        match self
            .cache
            .store(request, Answer::text(answer), options)
            .await
        {
            StoreOutcome::Stored { entry, .. } => Ok(entry),
            StoreOutcome::NotStored { reason } => {
                bail!("the cache did not store an answer: {}", reason.as_str())
            }
        }
    }
}

/// A policy that stands for another.
#[derive(Debug)]
struct Exchangeable(RwLock<PolicyHandle>);

impl Exchangeable {
    fn current(&self) -> PolicyHandle {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl HitPolicy for Exchangeable {
    fn name(&self) -> &'static str {
        self.current().name()
    }

    fn decide(&self, evidence: &Evidence) -> Decision {
        self.current().decide(evidence)
    }

    fn may_refine(&self) -> bool {
        self.current().may_refine()
    }

    fn least_similarity(&self) -> f32 {
        self.current().least_similarity()
    }
}

/// Serves every candidate, so that an explanation holds the evidence of all of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ServeAll;

impl HitPolicy for ServeAll {
    fn name(&self) -> &'static str {
        "serve_all"
    }

    fn decide(&self, evidence: &Evidence) -> Decision {
        Decision::Serve {
            probability: None,
            utility: f64::from(evidence.similarity),
        }
    }

    fn may_refine(&self) -> bool {
        false
    }

    fn least_similarity(&self) -> f32 {
        f32::NEG_INFINITY
    }
}

/// Draws progress bars on a terminal, or nothing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Progress {
    hidden: bool,
}

impl Progress {
    /// A bar needs a terminal at standard error; `hidden` switches it off there too.
    pub(crate) fn new(hidden: bool) -> Self {
        Self { hidden }
    }

    pub(crate) fn bar(self, what: impl Into<Cow<'static, str>>, steps: usize) -> ProgressBar {
        let target = if self.hidden {
            ProgressDrawTarget::hidden()
        } else {
            // indicatif draws nothing when this is not a terminal.
            ProgressDrawTarget::stderr()
        };
        let bar = ProgressBar::with_draw_target(Some(steps as u64), target);
        let template = "{msg:<28} {wide_bar} {human_pos}/{human_len} {eta:>5}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.with_message(what)
    }
}

/// Runs `work` on each item, on as many tasks as there are cores; results are in the order of the items.
///
/// # Errors
/// The first error of `work`.
pub(crate) async fn spread<T, R, W, F>(items: Vec<T>, work: W) -> Result<Vec<R>>
where
    T: Send + 'static,
    R: Send + 'static,
    W: Fn(T) -> F + Clone + Send + 'static,
    F: Future<Output = Result<R>> + Send,
{
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let queue = Arc::new(Mutex::new(items.into_iter().enumerate()));
    let workers: Vec<_> = (0..cores)
        .map(|_| {
            let (queue, work) = (Arc::clone(&queue), work.clone());
            tokio::spawn(async move {
                let mut done = Vec::new();
                loop {
                    let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
                    let Some((place, item)) = next else {
                        return anyhow::Ok(done);
                    };
                    done.push((place, work(item).await?));
                }
            })
        })
        .collect();
    let mut results = Vec::new();
    for worker in workers {
        results.extend(worker.await.context("a part of the benchmark panicked")??);
    }
    results.sort_by_key(|(place, _)| *place);
    Ok(results.into_iter().map(|(_, result)| result).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn spread_work_comes_back_in_order() {
        let results = spread((0..1_000).collect(), |i: u32| async move {
            tokio::task::yield_now().await;
            Ok(i * 2)
        });
        assert_eq!(
            results.await.unwrap(),
            (0..1_000).map(|i| i * 2).collect::<Vec<_>>()
        );
    }

    #[tokio::test]
    async fn the_first_error_ends_the_work() {
        let results = spread(vec![1, 2, 3], |i: u32| async move {
            if i == 2 { bail!("two") } else { Ok(i) }
        });
        assert_eq!(results.await.unwrap_err().to_string(), "two");
    }
}
