//! The second, slower embedding: asked for in doubt only, and never waited for too long.
//!
//! A lookup asks for it when the policy cannot tell by the first cosine; what is stored gets its vector in
//! the background. A model that fails or hangs costs hits, never a lookup: each call has a deadline, few run
//! at the same time, and after some failures in a row nobody asks for a while.

use std::sync::Arc;
use std::time::Duration;

use askonce_models::EmbedderHandle;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::{EmbedStage, Vector};
use crate::error::ErrorKind;
use crate::observe;

/// Failures in a row after which nobody asks for a while.
const FAILURES: u32 = 5;

/// How long that is.
const COOL_OFF: Duration = Duration::from_secs(10);

/// Why there is no vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unrefined {
    /// The text has none in this space: it is too long, or has no known word.
    NotEmbeddable,
    /// All calls that may run at the same time were taken until the deadline.
    Busy,
    /// The model did not answer in time.
    Timeout,
    /// The model failed.
    Failed,
    /// It failed often of late and is not asked now.
    Resting,
}

impl Unrefined {
    /// The stable name used in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotEmbeddable => "not_embeddable",
            Self::Busy => "busy",
            Self::Timeout => "timeout",
            Self::Failed => "failed",
            Self::Resting => "resting",
        }
    }
}

/// Embeds in the second space.
#[derive(Debug)]
pub struct Refiner {
    stage: EmbedStage,
    deadline: Duration,
    turns: Semaphore,
    circuit: Mutex<Circuit>,
}

#[derive(Debug, Default)]
struct Circuit {
    failures: u32,
    /// Nobody asks before this; the first to ask after it tries for all.
    rests_until: Option<Instant>,
}

impl Refiner {
    /// A refiner of `embedder`: `deadline` holds for a lookup's whole wait, `concurrency` calls run at the
    /// same time, `memo_entries` recent vectors are remembered.
    #[must_use]
    pub fn new(
        embedder: EmbedderHandle,
        deadline: Duration,
        concurrency: usize,
        memo_entries: u64,
    ) -> Arc<Self> {
        // A call in the background may take longer than a lookup waits.
        let patience = deadline.max(Duration::from_secs(2));
        Arc::new(Self {
            stage: EmbedStage::new(embedder, memo_entries, patience),
            deadline,
            turns: Semaphore::new(concurrency.max(1)),
            circuit: Mutex::default(),
        })
    }

    /// The name of the second space.
    #[must_use]
    pub fn fingerprint(&self) -> &str {
        self.stage.fingerprint()
    }

    /// Length of its vectors.
    #[must_use]
    pub fn dimension(&self) -> usize {
        self.stage.dimension()
    }

    /// Whether a vector can be had, as far as is known.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let circuit = self.circuit.lock();
        circuit
            .rests_until
            .is_none_or(|until| Instant::now() >= until)
    }

    /// The vectors of a query and of what it is compared with, for a lookup: the query's first, and of the
    /// others as many as can be had until the deadline.
    ///
    /// # Errors
    /// [`Unrefined`]: what keeps the query's vector away.
    pub async fn embed(
        &self,
        query: &str,
        others: &[&str],
    ) -> Result<(Vector, Vec<Result<Vector, Unrefined>>), Unrefined> {
        let deadline = Instant::now() + self.deadline;
        let vector = self.one(query, deadline).await;
        let outcome = vector
            .as_ref()
            .map_or_else(|why| why.as_str(), |_| "refined");
        observe::refine(outcome);
        let vector = vector?;
        let mut rest = Vec::with_capacity(others.len());
        for other in others {
            rest.push(self.one(other, deadline).await);
        }
        Ok((vector, rest))
    }

    /// The vector of a text in the background: waits for its turn as long as it takes.
    ///
    /// # Errors
    /// [`Unrefined`]: why there is none.
    pub async fn embed_patiently(&self, text: &str) -> Result<Vector, Unrefined> {
        let patience = Duration::from_secs(60);
        self.one(text, Instant::now() + patience).await
    }

    async fn one(&self, text: &str, deadline: Instant) -> Result<Vector, Unrefined> {
        if !self.may_ask() {
            return Err(Unrefined::Resting);
        }
        let turn = tokio::time::timeout_at(deadline, self.turns.acquire()).await;
        let Ok(Ok(_turn)) = turn else {
            return Err(Unrefined::Busy);
        };
        let answer = tokio::time::timeout_at(deadline, self.stage.embed(text)).await;
        let answer = match answer {
            Err(_) => Err(Unrefined::Timeout),
            Ok(Ok(vector)) => Ok(vector),
            Ok(Err(error)) => Err(match error.kind() {
                ErrorKind::InvalidRequest => Unrefined::NotEmbeddable,
                ErrorKind::Timeout => Unrefined::Timeout,
                _ => Unrefined::Failed,
            }),
        };
        self.learn(&answer);
        answer
    }

    /// Whether this caller may ask. After a rest only the first may, until it is known how that went.
    fn may_ask(&self) -> bool {
        let mut circuit = self.circuit.lock();
        match circuit.rests_until {
            None => true,
            Some(until) if Instant::now() >= until => {
                circuit.rests_until = Some(Instant::now() + COOL_OFF);
                true
            }
            Some(_) => false,
        }
    }

    fn learn(&self, answer: &Result<Vector, Unrefined>) {
        let mut circuit = self.circuit.lock();
        match answer {
            // A text without a vector is an answer too.
            Ok(_) | Err(Unrefined::NotEmbeddable) => *circuit = Circuit::default(),
            Err(why) => {
                circuit.failures += 1;
                if circuit.failures >= FAILURES {
                    if circuit.failures == FAILURES {
                        tracing::warn!(
                            reason = why.as_str(),
                            embedder = self.fingerprint(),
                            "the second embedding failed several times in a row and rests"
                        );
                    }
                    circuit.rests_until = Some(Instant::now() + COOL_OFF);
                }
            }
        }
    }
}
