//! A verifier within its budget.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use super::{VerifierHandle, VerifierQuestion};
use crate::clock::Timestamp;
use crate::config::VerifierConfig;
use crate::observe;

/// Why a verifier says nothing of any candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unverified {
    /// As many lookups as may ask at the same time did so for half of the time that there is.
    Busy,
    /// As many as may ask in a minute have asked.
    OverBudget,
    /// It did not answer in time.
    Timeout,
    /// It failed, or its answer cannot be used.
    Failed,
}

impl Unverified {
    /// The stable name used in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::OverBudget => "over_budget",
            Self::Timeout => "timeout",
            Self::Failed => "failed",
        }
    }
}

/// Asks a verifier, within time and budget.
#[derive(Debug)]
pub struct VerifyStage {
    verifier: VerifierHandle,
    config: VerifierConfig,
    turns: Semaphore,
    /// When the running minute began, and who asked in it.
    minute: Mutex<(Timestamp, u32)>,
    /// Dollars that it cost since somebody last asked.
    spent: Mutex<f64>,
}

impl VerifyStage {
    /// A stage that asks `verifier` as `config` says.
    #[must_use]
    pub fn new(verifier: VerifierHandle, config: VerifierConfig) -> Self {
        Self {
            turns: Semaphore::new(config.concurrency.max(1)),
            minute: Mutex::default(),
            spent: Mutex::default(),
            verifier,
            config,
        }
    }

    /// Who is asked.
    #[must_use]
    pub fn name(&self) -> &str {
        self.verifier.name()
    }

    /// Candidates of a lookup that are asked about at most.
    #[must_use]
    pub fn candidates(&self) -> usize {
        self.config.candidates
    }

    /// Whether a candidate that the policy did not serve is worth the question.
    #[must_use]
    pub fn is_grey(&self, probability: Option<f64>) -> bool {
        probability.is_some_and(|probability| probability >= self.config.low)
    }

    /// Whether a candidate of this probability, by the verifier, is served.
    #[must_use]
    pub fn serves(&self, probability: f64) -> bool {
        probability >= self.config.serve_at
    }

    /// What the verifier says of each candidate.
    ///
    /// # Errors
    /// [`Unverified`]: why it says nothing.
    pub async fn ask(
        &self,
        question: &VerifierQuestion,
        now: Timestamp,
    ) -> Result<Vec<Option<f64>>, Unverified> {
        let answer = self.ask_within(question, now).await;
        if let Err(why) = &answer {
            observe::verifier(why.as_str());
        }
        answer
    }

    /// Dollars that it cost since this was last asked.
    #[must_use]
    pub fn take_spent(&self) -> f64 {
        std::mem::take(&mut *self.spent.lock())
    }

    async fn ask_within(
        &self,
        question: &VerifierQuestion,
        now: Timestamp,
    ) -> Result<Vec<Option<f64>>, Unverified> {
        let began = Instant::now();
        let deadline = began + self.config.deadline;
        // Whoever waits longer for a turn has no time left for an answer.
        let patience = began + self.config.deadline / 2;
        let turn = timeout_at(patience, self.turns.acquire()).await;
        let Ok(Ok(_turn)) = turn else {
            return Err(Unverified::Busy);
        };
        if !self.may_ask(now) {
            return Err(Unverified::OverBudget);
        }
        let verification = match timeout_at(deadline, self.verifier.verify(question)).await {
            Err(_) => return Err(Unverified::Timeout),
            Ok(Err(error)) => {
                tracing::debug!(%error, verifier = self.name(), "the verifier failed");
                return Err(Unverified::Failed);
            }
            Ok(Ok(verification)) => verification,
        };
        observe::verifier_usd(verification.usd);
        *self.spent.lock() += verification.usd;
        let probabilities = verification.probabilities;
        let is_usable = |p: &Option<f64>| p.is_none_or(|p| (0.0..=1.0).contains(&p));
        if probabilities.len() != question.candidates.len() || !probabilities.iter().all(is_usable)
        {
            tracing::warn!(
                verifier = self.name(),
                "the verifier's answer is no probability for each candidate"
            );
            return Err(Unverified::Failed);
        }
        for probability in &probabilities {
            observe::verifier(match probability {
                Some(probability) if self.serves(*probability) => "passed",
                Some(_) => "refused",
                None => "no_word",
            });
        }
        Ok(probabilities)
    }

    /// Whether another lookup may ask in this minute, and notes it if so.
    fn may_ask(&self, now: Timestamp) -> bool {
        let mut minute = self.minute.lock();
        // A clock that was set back begins a minute too: it must not stop the questions for long.
        if now < minute.0 || now.since(minute.0) >= Duration::from_secs(60) {
            *minute = (now, 0);
        }
        let may = minute.1 < self.config.per_minute;
        minute.1 += u32::from(may);
        may
    }
}
