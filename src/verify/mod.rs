//! A second opinion on candidates that the policy nearly served: a slower model that reads both texts.
//!
//! The policy serves what is sure, and passes on what is hopeless. Between them lies a grey band: its probability
//! is at least `low`, and below what it serves from. There a [`Verifier`] may be asked, off by default, whether the
//! stored answer answers the request. What it finds right is served, the most probable first; the rest is left as
//! the policy left it.
//!
//! Always true:
//! - It fails closed. A verifier that is slow, busy, failing or beyond its budget leaves a lookup as it would have
//!   been without one, with the reason beside it.
//! - It serves nothing that a guard, a report of a wrong hit or the breaker of a category stopped.
//! - Its probability is no part of what a policy file promises: the threshold is stated by whoever configures it.

#[cfg(feature = "onnx")]
mod cross_encoder;
mod stage;

use std::fmt;
use std::sync::Arc;

use crate::backend::BoxFuture;
use crate::error::Result;

#[cfg(feature = "onnx")]
pub use cross_encoder::CrossEncoderVerifier;
pub use stage::{Unverified, VerifyStage};

/// A request, and the candidates to be verified. Holds text: a verifier is told what the cache holds.
#[derive(Clone)]
pub struct VerifierQuestion {
    /// What was asked.
    pub query: String,
    /// The candidates, the most probable first.
    pub candidates: Vec<VerifierCandidate>,
}

impl fmt::Debug for VerifierQuestion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifierQuestion")
            .field("candidates", &self.candidates.len())
            .finish_non_exhaustive()
    }
}

/// A stored answer. Holds text.
#[derive(Clone)]
pub struct VerifierCandidate {
    /// What it was given to.
    pub query: String,
    /// Its words.
    pub answer: String,
}

impl fmt::Debug for VerifierCandidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifierCandidate").finish_non_exhaustive()
    }
}

/// What a verifier says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Verification {
    /// For each candidate, in their order, the probability that its answer answers the request; `None`: no word.
    pub probabilities: Vec<Option<f64>>,
    /// What it cost, in dollars.
    pub usd: f64,
}

/// Tells of stored answers whether they answer a request.
///
/// # Contract
/// - One number for each candidate, in their order, from 0 to 1; or an error for all.
/// - What is slow keeps no thread of the runtime busy.
pub trait Verifier: fmt::Debug + Send + Sync + 'static {
    /// The name in explanations and logs.
    fn name(&self) -> &str;

    /// Looks at all candidates of one request.
    fn verify<'a>(&'a self, question: &'a VerifierQuestion) -> BoxFuture<'a, Result<Verification>>;
}

/// A shared verifier of any kind.
pub type VerifierHandle = Arc<dyn Verifier>;
