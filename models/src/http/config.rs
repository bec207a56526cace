//! What an operator sets, checked before anything is sent.

use std::time::Duration;

use reqwest::Url;
use reqwest::header::HeaderValue;
use serde::Serialize;

use crate::{ModelError, ModelId};

/// Settings of an [`HttpEmbedder`](super::HttpEmbedder).
///
/// Fill in what differs from the defaults:
///
/// ```
/// use askonce_models::HttpConfig;
/// use std::time::Duration;
///
/// let config = HttpConfig {
///     timeout: Duration::from_secs(2),
///     ..HttpConfig::new("http://127.0.0.1:8080/v1", "bge-small-en-v1.5")
/// };
/// assert_eq!(config.batch_size, 64);
/// ```
#[derive(Clone, Debug)]
pub struct HttpConfig {
    /// Where the API begins: with OpenAI's protocol, version included, `https://api.openai.com/v1`;
    /// with the others the server's root, `http://127.0.0.1:11434`. The path of the endpoint is
    /// added. Without credentials, query or fragment.
    pub base_url: String,

    /// Which protocol the server speaks. Default: [`Api::OpenAi`].
    pub api: Api,

    /// The provider's name of the model. A server of [`Api::Tei`] runs one model and is not told:
    /// the name becomes part of the [`ModelId`] only.
    pub model: String,

    /// Name of the environment variable that holds the API key. Default: none, no key is sent.
    pub api_key_env: Option<String>,

    /// Floats per vector. Default: none, learnt from the first answer. Set it to fail at the first
    /// call rather than to build an index of the wrong width.
    pub dimension: Option<usize>,

    /// Whether to ask the provider for `dimension` floats. Default: `false`; only for models that
    /// can shorten their vectors, others refuse the request.
    pub request_dimension: bool,

    /// Revision of the model, as it becomes part of the [`ModelId`]. Default: none, and a short
    /// hash of the URL stands in, so that two servers that happen to use one model name are never
    /// taken for one. Set it to keep vectors when the server moves, and change it when the model
    /// behind the name does.
    pub revision: Option<String>,

    /// Time for one attempt, from connecting to the last byte. Default: 10 s. A cache lookup waits
    /// for it: set it below what calling the language model takes.
    pub timeout: Duration,

    /// Further attempts after the first, per batch. Default: 2. At most 10.
    pub retries: usize,

    /// Most texts per request. Default: 64. At most 2,048.
    pub batch_size: usize,

    /// How the vectors travel. Default: [`Encoding::Float`], which every server knows, and the only
    /// one outside of OpenAI's protocol.
    pub encoding: Encoding,
}

/// A protocol of an embedding server.
///
/// Servers are told not to cut texts that are too long, in so far as the protocol can say so: a
/// cut text would get the answers of another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Api {
    /// OpenAI's `/embeddings`, which most servers speak besides their own.
    #[default]
    OpenAi,
    /// `/embed` of Hugging Face's text-embeddings-inference.
    Tei,
    /// `/api/embed` of Ollama.
    Ollama,
}

impl Api {
    /// Path below the base URL.
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::OpenAi => "/embeddings",
            Self::Tei => "/embed",
            Self::Ollama => "/api/embed",
        }
    }
}

/// The form of vectors on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoding {
    /// JSON numbers.
    #[default]
    Float,
    /// Little-endian `f32` in base64: a quarter of the size. Answers in numbers are read as well.
    Base64,
}

/// The body of a request.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Request<'a> {
    OpenAi {
        model: &'a str,
        input: &'a [&'a str],
        encoding_format: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        dimensions: Option<usize>,
    },
    Tei {
        inputs: &'a [&'a str],
        truncate: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        dimensions: Option<usize>,
    },
    Ollama {
        model: &'a str,
        input: &'a [&'a str],
        truncate: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        dimensions: Option<usize>,
    },
}

impl HttpConfig {
    /// Defaults for a server and a model.
    #[must_use]
    pub fn new(base_url: impl Into<String>, model: impl Into<String>) -> Self {
        Self {
            base_url: base_url.into(),
            api: Api::default(),
            model: model.into(),
            api_key_env: None,
            dimension: None,
            request_dimension: false,
            revision: None,
            timeout: Duration::from_secs(10),
            retries: 2,
            batch_size: 64,
            encoding: Encoding::default(),
        }
    }

    pub(super) fn endpoint(&self) -> Result<Url, ModelError> {
        let bad = |reason: String| ModelError::Config {
            field: "base_url",
            reason,
        };
        let url = Url::parse(&self.base_url)
            .map_err(|error| bad(format!("{error}; it looks like https://host/v1")))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(bad(format!(
                "scheme `{}` is not http or https",
                url.scheme()
            )));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(bad(
                "it holds credentials; name them in `api_key_env`".to_owned()
            ));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(bad("it has a query or a fragment".to_owned()));
        }
        let base = url.as_str().trim_end_matches('/');
        let path = self.api.path();
        if base.ends_with(path) {
            return Err(bad(format!("leave out `{path}`, it is added")));
        }
        Url::parse(&format!("{base}{path}")).map_err(|error| bad(error.to_string()))
    }

    pub(super) fn check_ranges(&self) -> Result<(), ModelError> {
        let check = |holds: bool, field, reason: &str| match holds {
            true => Ok(()),
            false => Err(ModelError::Config {
                field,
                reason: reason.to_owned(),
            }),
        };
        check(!self.model.trim().is_empty(), "model", "it is empty")?;
        check(
            self.dimension != Some(0),
            "dimension",
            "0 is not at least 1",
        )?;
        check(
            !self.request_dimension || self.dimension.is_some(),
            "request_dimension",
            "there is no `dimension` to request",
        )?;
        check(
            !self.timeout.is_zero(),
            "timeout",
            "0 s is no time to answer",
        )?;
        check(self.retries <= 10, "retries", "it is more than 10")?;
        check(
            (1..=2048).contains(&self.batch_size),
            "batch_size",
            "it is not in 1 to 2048",
        )?;
        check(
            self.api == Api::OpenAi || self.encoding == Encoding::Float,
            "encoding",
            "only OpenAI's protocol knows another than numbers",
        )
    }

    /// The key in the variable that `api_key_env` names.
    pub(super) fn key(
        &self,
        read: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<String>, ModelError> {
        let Some(variable) = &self.api_key_env else {
            return Ok(None);
        };
        match read(variable) {
            Some(key) if !key.trim().is_empty() => Ok(Some(key)),
            _ => Err(ModelError::Config {
                field: "api_key_env",
                reason: format!("the environment variable `{variable}` is not set to a key"),
            }),
        }
    }

    pub(super) fn model_id(&self, endpoint: &Url) -> ModelId {
        let server = || blake3::hash(endpoint.as_str().as_bytes()).to_hex()[..12].to_owned();
        let revision = self.revision.clone().unwrap_or_else(server);
        let pooling = match self.dimension.filter(|_| self.request_dimension) {
            Some(dimension) => format!("remote-{dimension}"),
            None => "remote".to_owned(),
        };
        ModelId::new(&self.model, &revision, &pooling)
    }

    pub(super) fn request<'a>(&'a self, texts: &'a [&'a str]) -> Request<'a> {
        let dimensions = self.dimension.filter(|_| self.request_dimension);
        match self.api {
            Api::OpenAi => Request::OpenAi {
                model: &self.model,
                input: texts,
                encoding_format: match self.encoding {
                    Encoding::Float => "float",
                    Encoding::Base64 => "base64",
                },
                dimensions,
            },
            Api::Tei => Request::Tei {
                inputs: texts,
                truncate: false,
                dimensions,
            },
            Api::Ollama => Request::Ollama {
                model: &self.model,
                input: texts,
                truncate: false,
                dimensions,
            },
        }
    }
}

/// The header that carries the key. Errors never quote it.
pub(super) fn authorization(key: &str) -> Result<HeaderValue, ModelError> {
    let mut header = HeaderValue::from_str(&format!("Bearer {}", key.trim())).map_err(|_| {
        ModelError::Config {
            field: "api_key_env",
            reason: "the key holds characters that a header cannot carry".to_owned(),
        }
    })?;
    header.set_sensitive(true);
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(base_url: &str) -> Result<String, String> {
        let endpoint = HttpConfig::new(base_url, "m").endpoint();
        endpoint
            .map(String::from)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn the_endpoint_is_below_the_base_url() {
        for base in ["https://api.example/v1", "https://api.example/v1/"] {
            assert_eq!(endpoint(base).unwrap(), "https://api.example/v1/embeddings");
        }
        assert_eq!(
            endpoint("http://localhost:80").unwrap(),
            "http://localhost/embeddings"
        );
    }

    #[test]
    fn every_protocol_has_its_path() {
        for (api, wanted) in [
            (Api::Tei, "http://localhost:8080/embed"),
            (Api::Ollama, "http://localhost:8080/api/embed"),
        ] {
            let config = HttpConfig {
                api,
                ..HttpConfig::new("http://localhost:8080/", "m")
            };
            assert_eq!(config.endpoint().unwrap().as_str(), wanted);
            let whole = HttpConfig {
                base_url: wanted.to_owned(),
                ..config
            };
            assert!(whole.endpoint().is_err());
        }
    }

    #[test]
    fn a_base_url_that_cannot_be_meant_is_refused_without_being_quoted() {
        for base in [
            "",
            "api.example/v1",
            "localhost:8080/v1",
            "ftp://api.example/v1",
            "https://user:secret@api.example/v1",
            "https://api.example/v1?key=secret",
            "https://api.example/v1#secret",
            "https://api.example/v1/embeddings",
        ] {
            let message = endpoint(base).unwrap_err();
            assert!(
                message.contains("base_url") && !message.contains("secret"),
                "{message}"
            );
        }
    }

    #[test]
    fn settings_out_of_range_are_named() {
        let good = || HttpConfig::new("https://api.example/v1", "m");
        for (field, config) in [
            (
                "model",
                HttpConfig {
                    model: " ".to_owned(),
                    ..good()
                },
            ),
            (
                "dimension",
                HttpConfig {
                    dimension: Some(0),
                    ..good()
                },
            ),
            (
                "request_dimension",
                HttpConfig {
                    request_dimension: true,
                    ..good()
                },
            ),
            (
                "timeout",
                HttpConfig {
                    timeout: Duration::ZERO,
                    ..good()
                },
            ),
            (
                "retries",
                HttpConfig {
                    retries: 11,
                    ..good()
                },
            ),
            (
                "batch_size",
                HttpConfig {
                    batch_size: 0,
                    ..good()
                },
            ),
            (
                "batch_size",
                HttpConfig {
                    batch_size: 2049,
                    ..good()
                },
            ),
            (
                "encoding",
                HttpConfig {
                    api: Api::Ollama,
                    encoding: Encoding::Base64,
                    ..good()
                },
            ),
        ] {
            match config.check_ranges() {
                Err(ModelError::Config { field: found, .. }) => assert_eq!(found, field),
                other => panic!("{field}: {other:?}"),
            }
        }
        good().check_ranges().unwrap();
    }

    #[test]
    fn a_missing_key_is_an_error_and_no_variable_is_no_key() {
        let mut config = HttpConfig::new("https://api.example/v1", "m");
        assert_eq!(config.key(|_| panic!("nothing to read")).unwrap(), None);
        config.api_key_env = Some("MODEL_KEY".to_owned());
        for missing in [None, Some(" ".to_owned())] {
            let error = config.key(|_| missing.clone()).unwrap_err();
            assert!(error.to_string().contains("MODEL_KEY"), "{error}");
        }
        assert_eq!(
            config
                .key(|name| Some(name.to_lowercase()))
                .unwrap()
                .unwrap(),
            "model_key"
        );
    }

    #[test]
    fn servers_and_requested_dimensions_are_different_models() {
        let id = |config: HttpConfig| config.model_id(&config.endpoint().unwrap());
        let one = HttpConfig::new("https://one.example/v1", "m");
        let two = HttpConfig::new("https://two.example/v1", "m");
        assert_ne!(id(one.clone()), id(two.clone()));
        let stated = |config| HttpConfig {
            revision: Some("r1".to_owned()),
            ..config
        };
        assert_eq!(id(stated(one.clone())), id(stated(two)));
        let short = HttpConfig {
            dimension: Some(64),
            request_dimension: true,
            ..one.clone()
        };
        assert_ne!(id(one), id(short));
    }
}
