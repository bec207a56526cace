//! The one error type of the engine: what kind of failure, whether a retry can help, and context.
//!
//! Messages are lower-case fragments that read well after "failed to look up: ". Context pairs
//! carry names and numbers, never prompts, answers or secrets, so an error can be logged as it is.
//!
//! Failures of a tier, an embedder or an index do not surface here on the request path: the engine
//! turns them into a recorded miss. What callers see are configuration, request and upstream errors.

use std::borrow::Cow;
use std::fmt;

/// A result with the engine's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, for callers that branch on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A setting is missing, unknown or out of range.
    Config,
    /// The caller's request cannot be understood; sending it again will not help.
    InvalidRequest,
    /// A value is larger than the limit that applies to it.
    TooLarge,
    /// A tier did not answer or answered with an error.
    BackendUnavailable,
    /// Stored bytes cannot be read back: unknown version, failed checksum, wrong type.
    Corrupt,
    /// The embedding model failed or returned vectors that do not fit.
    Embedding,
    /// The vector index refused an operation.
    Index,
    /// The call that fills the cache failed.
    Upstream,
    /// The operation did not finish within its deadline.
    Timeout,
    /// The part that was asked has no means to do that.
    Unsupported,
}

impl ErrorKind {
    /// The stable, lower-case name used in metrics and JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::InvalidRequest => "invalid_request",
            Self::TooLarge => "too_large",
            Self::BackendUnavailable => "backend_unavailable",
            Self::Corrupt => "corrupt",
            Self::Embedding => "embedding",
            Self::Index => "index",
            Self::Upstream => "upstream",
            Self::Timeout => "timeout",
            Self::Unsupported => "unsupported",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

type Source = std::sync::Arc<dyn std::error::Error + Send + Sync + 'static>;

/// A failure of the engine, with everything an operator needs to act on it.
///
/// Cloning is cheap: a failed upstream call is handed to every caller that waited for it.
///
/// ```
/// use askonce::{Error, ErrorKind};
///
/// let error = Error::new(ErrorKind::BackendUnavailable, "no reply from the tier")
///     .with("tier", "redis")
///     .retryable();
/// assert_eq!(error.to_string(), "no reply from the tier (tier: redis)");
/// assert!(error.is_retryable());
/// ```
#[derive(Clone)]
pub struct Error(Box<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    message: Cow<'static, str>,
    context: Vec<(&'static str, String)>,
    retryable: bool,
    source: Option<Source>,
}

impl Error {
    /// A permanent failure of `kind`; `message` is a lower-case fragment without a full stop.
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        let message = message.into();
        Self(Box::new(Inner {
            kind,
            message,
            context: Vec::new(),
            retryable: false,
            source: None,
        }))
    }

    /// Adds a context pair, shown as `key: value` in the order added.
    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl fmt::Display) -> Self {
        self.0.context.push((key, value.to_string()));
        self
    }

    /// Marks the failure as one that a later attempt may not meet.
    #[must_use]
    pub fn retryable(mut self) -> Self {
        self.0.retryable = true;
        self
    }

    /// Attaches what caused this failure.
    #[must_use]
    pub fn caused_by(
        mut self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync + 'static>>,
    ) -> Self {
        self.0.source = Some(Source::from(source.into()));
        self
    }

    /// What went wrong.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The message alone, without context or cause.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The context pairs, in the order added.
    #[must_use]
    pub fn context(&self) -> &[(&'static str, String)] {
        &self.0.context
    }

    /// Whether the same operation may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.0.retryable
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        for (i, (key, value)) in self.0.context.iter().enumerate() {
            write!(f, "{}{key}: {value}", if i == 0 { " (" } else { ", " })?;
        }
        if !self.0.context.is_empty() {
            f.write_str(")")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {self}", self.0.kind)?;
        let mut cause = std::error::Error::source(self);
        while let Some(source) = cause {
            write!(f, ": {source}")?;
            cause = source.source();
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0
            .source
            .as_deref()
            .map(|source| source as &(dyn std::error::Error + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_lists_its_context_and_the_debug_form_lists_its_causes() {
        let error = Error::new(ErrorKind::Upstream, "the call failed")
            .with("model", "gpt-4o")
            .with("attempts", 3)
            .caused_by(std::io::Error::other("connection refused"));
        assert_eq!(
            error.to_string(),
            "the call failed (model: gpt-4o, attempts: 3)"
        );
        assert_eq!(
            format!("{error:?}"),
            "upstream: the call failed (model: gpt-4o, attempts: 3): connection refused"
        );
        assert!(!error.is_retryable());
    }
}
