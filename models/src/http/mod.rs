//! A remote embedder: any server with an OpenAI-compatible `/embeddings` endpoint, or with the own
//! protocol of text-embeddings-inference or of Ollama.
//!
//! Texts go out in batches, one after the other. Each batch is tried again, with jittered
//! exponential waits, on what may pass by itself: 408, 429, 5xx, a failed connection, a timeout.
//! A `Retry-After` is honoured up to [`LONGEST_WAIT`]; a server that asks for more gets no retry,
//! and the error says how long it asked for.
//!
//! What comes back is checked before anybody sees it: one row per text, in the order of the texts,
//! of one dimension, finite, not zero; and brought to unit length.
//!
//! Always true: the key is read once, from the environment, and shows up in no error and no
//! `Debug`; no redirect is followed with it; a text without any visible character is refused here
//! and not sent. Deadlines over a whole call are the caller's: dropping the future ends it.

mod config;
mod reply;

use std::fmt;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use backon::{ExponentialBuilder, Retryable};
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Client, Response, Url};

use crate::{Embedder, ModelError, ModelId};
pub use config::{Api, Encoding, HttpConfig};

/// Longest wait between two attempts, whoever asks for it.
pub const LONGEST_WAIT: Duration = Duration::from_secs(20);

/// Wait before the second attempt, before jitter.
const FIRST_WAIT: Duration = Duration::from_millis(200);

/// Longest answer that is read: about twice the largest batch of 1,536 numbers written out.
const MAX_REPLY_BYTES: usize = 128 << 20;

/// Longest error answer that is searched for a code.
const MAX_ERROR_BYTES: usize = 64 << 10;

/// Embeds over HTTP. See the [module](self) for what it promises.
///
/// ```no_run
/// use askonce_models::{Embedder, HttpConfig, HttpEmbedder};
///
/// # async fn example() -> Result<(), askonce_models::ModelError> {
/// let embedder = HttpEmbedder::new(HttpConfig {
///     api_key_env: Some("OPENAI_API_KEY".to_owned()),
///     ..HttpConfig::new("https://api.openai.com/v1", "text-embedding-3-small")
/// })?;
/// let rows = embedder.embed(&["How do I reset my password?"]).await?;
/// assert_eq!(rows.len(), embedder.dimension());
/// # Ok(())
/// # }
/// ```
pub struct HttpEmbedder {
    config: HttpConfig,
    endpoint: Url,
    client: Client,
    id: ModelId,
    /// Configured, or learnt from the first good answer.
    dimension: OnceLock<usize>,
}

impl HttpEmbedder {
    /// Checks the settings and reads the key from the environment. Connects to nothing.
    ///
    /// # Errors
    /// [`ModelError::Config`] naming the setting that is missing or out of range.
    pub fn new(config: HttpConfig) -> Result<Self, ModelError> {
        let key = config.key(|variable| std::env::var(variable).ok())?;
        Self::build(config, key.as_deref())
    }

    /// As [`new`](Self::new), with a key from elsewhere; `api_key_env` is not read.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_key(config: HttpConfig, key: &str) -> Result<Self, ModelError> {
        Self::build(config, Some(key))
    }

    fn build(config: HttpConfig, key: Option<&str>) -> Result<Self, ModelError> {
        let endpoint = config.endpoint()?;
        config.check_ranges()?;
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        if let Some(key) = key {
            headers.insert(AUTHORIZATION, config::authorization(key)?);
        }
        let client = Client::builder()
            .timeout(config.timeout)
            .redirect(reqwest::redirect::Policy::none())
            .default_headers(headers)
            .build()
            .map_err(|error| ModelError::Config {
                field: "base_url",
                reason: format!("no HTTP client can be made: {}", error.without_url()),
            })?;
        Ok(Self {
            id: config.model_id(&endpoint),
            dimension: config.dimension.map_or_else(OnceLock::new, OnceLock::from),
            config,
            endpoint,
            client,
        })
    }

    /// Embeds a word, so that a wrong URL, key, model or dimension shows at start-up, and
    /// [`dimension`](Embedder::dimension) is known from then on.
    ///
    /// # Errors
    /// As [`Embedder::embed`].
    pub async fn probe(&self) -> Result<usize, ModelError> {
        Ok(self.embed(&["probe"]).await?.len())
    }

    /// Rows of `texts`, whose first is text `first` of the call.
    async fn batch(&self, first: usize, texts: &[&str]) -> Result<Vec<f32>, ModelError> {
        let waits = ExponentialBuilder::new()
            .with_min_delay(FIRST_WAIT)
            .with_max_delay(LONGEST_WAIT)
            .with_max_times(self.config.retries)
            .with_jitter();
        let body = (|| self.attempt(texts))
            .retry(waits)
            .when(ModelError::is_retryable)
            .adjust(|error, planned| match error {
                ModelError::Http {
                    retry_after: Some(asked),
                    ..
                } => planned
                    .map(|wait| wait.max(*asked))
                    .filter(|wait| *wait <= LONGEST_WAIT),
                _ => planned.map(|wait| wait.min(LONGEST_WAIT)),
            })
            .await?;
        let rows = reply::Rows::parse(self.config.api, &body, texts.len())?;
        let model = self.id.to_string();
        rows.check_dimension(self.dimension.get().copied(), &model)?;
        let mut out = Vec::new();
        rows.append_units(first, &model, &mut out)?;
        // Learnt only from rows that are good; another call may have learnt in the meantime.
        let expected = *self.dimension.get_or_init(|| rows.dimension());
        rows.check_dimension(Some(expected), &model)?;
        Ok(out)
    }

    /// One request: the body of a good answer.
    async fn attempt(&self, texts: &[&str]) -> Result<Vec<u8>, ModelError> {
        let sent = self
            .client
            .post(self.endpoint.clone())
            .json(&self.config.request(texts))
            .send()
            .await;
        let response = sent.map_err(|error| self.transport(error))?;
        let status = response.status();
        if status.is_success() {
            return self.body(response, MAX_REPLY_BYTES).await;
        }
        let retry_after = retry_after(response.headers(), SystemTime::now());
        // The status is what counts; a body that breaks off takes nothing from it.
        let body = self
            .body(response, MAX_ERROR_BYTES)
            .await
            .unwrap_or_default();
        Err(ModelError::Http {
            status: status.as_u16(),
            code: reply::error_code(&body),
            retry_after,
        })
    }

    async fn body(&self, mut response: Response, most: usize) -> Result<Vec<u8>, ModelError> {
        let mut body = Vec::new();
        while let Some(chunk) = response
            .chunk()
            .await
            .map_err(|error| self.transport(error))?
        {
            if body.len() + chunk.len() > most {
                return Err(ModelError::BadReply {
                    reason: format!("it is longer than {most} bytes"),
                });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    fn transport(&self, error: reqwest::Error) -> ModelError {
        if error.is_timeout() {
            ModelError::Timeout {
                after: self.config.timeout,
            }
        } else {
            ModelError::Unreachable {
                source: Box::new(error.without_url()),
            }
        }
    }
}

impl Embedder for HttpEmbedder {
    fn id(&self) -> &ModelId {
        &self.id
    }

    fn dimension(&self) -> usize {
        self.dimension.get().copied().unwrap_or(0)
    }

    async fn embed(&self, texts: &[&str]) -> Result<Vec<f32>, ModelError> {
        if let Some(position) = texts.iter().position(|text| text.trim().is_empty()) {
            return Err(ModelError::NoTokens {
                position,
                model: self.id.to_string(),
            });
        }
        let mut out = Vec::with_capacity(texts.len() * self.dimension());
        let size = self.config.batch_size;
        for (batch, texts) in texts.chunks(size).enumerate() {
            out.extend(self.batch(batch * size, texts).await?);
        }
        Ok(out)
    }
}

impl fmt::Debug for HttpEmbedder {
    /// Leaves out the client, whose headers hold the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpEmbedder")
            .field("id", &self.id)
            .field("config", &self.config)
            .field("dimension", &self.dimension.get())
            .finish_non_exhaustive()
    }
}

/// What `Retry-After` asks for, as seconds or as a date.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let asked = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = asked.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(asked).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_read_as_seconds_and_as_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let read = |value: &'static str| {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static(value))]);
            retry_after(&headers, now)
        };
        assert_eq!(read("7"), Some(Duration::from_secs(7)));
        assert_eq!(
            read("Sun, 09 Sep 2001 01:46:50 GMT"),
            Some(Duration::from_secs(10))
        );
        assert_eq!(read("Sun, 09 Sep 2001 01:46:30 GMT"), Some(Duration::ZERO));
        assert_eq!(read("soon"), None);
        assert_eq!(read("-1"), None);
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }
}
