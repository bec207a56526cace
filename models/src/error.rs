use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// What an embedding model can do wrong.
///
/// Positions count the texts of the call from 0. No variant holds a text, a vector or a key, so an
/// error can be logged as it is.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// The text has no word: it is empty, white space, or made of characters that the model drops.
    /// An all-zero vector has no direction, so there is nothing to compare.
    #[error("text {position} has nothing that {model} can embed")]
    NoTokens {
        /// Which text of the call.
        position: usize,
        /// The model asked.
        model: String,
    },

    /// The text is longer than the model reads. It is not cut: two texts that differ only after
    /// the cut would look the same.
    #[error("text {position} has more than {limit} tokens, which is all that {model} reads")]
    InputTooLong {
        /// Which text of the call.
        position: usize,
        /// Most tokens that the model reads.
        limit: usize,
        /// The model asked.
        model: String,
    },

    /// A row has another length than the model's rows before it, or than the configuration says.
    #[error("{model} returned {found} dimensions where {expected} are expected")]
    WrongDimension {
        /// Configured, or learnt from the first answer.
        expected: usize,
        /// Length of the row received.
        found: usize,
        /// The model asked.
        model: String,
    },

    /// A row has an infinite or undefined component.
    #[error("{model} returned a vector with a component that is not finite for text {position}")]
    NotFinite {
        /// Which text of the call.
        position: usize,
        /// The model asked.
        model: String,
    },

    /// A row is zero throughout and cannot be brought to unit length.
    #[error("the vector of text {position} from {model} is zero and has no direction")]
    ZeroVector {
        /// Which text of the call.
        position: usize,
        /// The model asked.
        model: String,
    },

    /// The weights are not what this version reads, or are damaged.
    #[error("the weights of {origin} cannot be used: {reason}")]
    BadWeights {
        /// The file, or the name of the embedded table.
        origin: String,
        /// What is wrong with them.
        reason: String,
    },

    /// The file with the weights could not be read.
    #[error("cannot read the weights in {path}")]
    UnreadableWeights {
        /// The file asked for.
        path: PathBuf,
        /// What the file system answered.
        source: io::Error,
    },

    /// The model ran and failed, or returned what its description does not say.
    #[error("{model} failed: {reason}")]
    Failed {
        /// The model asked.
        model: String,
        /// What the runtime reports.
        reason: String,
    },

    /// A setting is missing or out of range.
    #[error("the setting `{field}` of the model is invalid: {reason}")]
    Config {
        /// Name of the setting.
        field: &'static str,
        /// What is wrong with it, and what is allowed.
        reason: String,
    },

    /// The provider answered with an error status.
    #[error("the embedding provider answered {status}{}", code_suffix(code.as_deref()))]
    Http {
        /// HTTP status.
        status: u16,
        /// The provider's short error code, when it sent a harmless one.
        code: Option<String>,
        /// How long the provider asks to wait.
        retry_after: Option<Duration>,
    },

    /// The provider did not answer in time.
    #[error("the embedding provider did not answer within {after:?}")]
    Timeout {
        /// The time allowed for one attempt.
        after: Duration,
    },

    /// The provider could not be reached, or the connection broke.
    #[error("the embedding provider cannot be reached")]
    Unreachable {
        /// What the transport reported; it names no URL and no key.
        source: Box<dyn std::error::Error + Send + Sync>,
    },

    /// The provider's answer is not the answer to the request.
    #[error("the embedding provider's answer cannot be used: {reason}")]
    BadReply {
        /// What is wrong with it.
        reason: String,
    },
}

impl ModelError {
    /// Whether the same call may succeed later without any change.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Timeout { .. } | Self::Unreachable { .. } => true,
            Self::Http { status, .. } => matches!(status, 408 | 429 | 500..=599),
            _ => false,
        }
    }
}

fn code_suffix(code: Option<&str>) -> String {
    code.map_or_else(String::new, |code| format!(" ({code})"))
}
