//! Someone who can tell whether two answers say the same when cheap means cannot: usually a language model.

use std::fmt;
use std::sync::Arc;

use super::Agreement;
use crate::backend::BoxFuture;
use crate::error::Result;

/// Two answers to be compared. Holds text: a judge is told what the cache holds.
#[derive(Clone)]
pub struct JudgeQuestion {
    /// What was asked.
    pub query: String,
    /// What the stored answer was given to.
    pub stored_query: String,
    /// The stored answer's words.
    pub stored_answer: String,
    /// The words of a fresh answer to `query`.
    pub fresh_answer: String,
}

impl fmt::Debug for JudgeQuestion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JudgeQuestion").finish_non_exhaustive()
    }
}

/// What a judge says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Judgement {
    /// Whether the stored answer would have done in place of the fresh one. [`Agreement::Unsure`] makes no
    /// label.
    pub agreement: Agreement,
    /// What the judgement cost, in dollars; taken off the day's budget.
    pub usd: f64,
}

/// Compares answers, in the background and within a budget: see
/// [`JudgeConfig`](crate::config::JudgeConfig).
///
/// A judge that fails or takes too long makes no label. It is asked one question at a time.
pub trait Judge: fmt::Debug + Send + Sync + 'static {
    /// Judges one pair of answers.
    fn judge<'a>(&'a self, question: &'a JudgeQuestion) -> BoxFuture<'a, Result<Judgement>>;
}

/// A shared judge of any kind.
pub type JudgeHandle = Arc<dyn Judge>;
