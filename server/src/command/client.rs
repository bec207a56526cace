//! Talking to a running server.

use std::io::Read as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use askonce::Protocol;
use clap::Args as ClapArgs;
use clap::builder::PossibleValuesParser;
use reqwest::RequestBuilder;
use serde_json::{Map, Value, json};

use crate::http::PROTOCOLS;

/// Which server to talk to.
#[derive(Debug, ClapArgs)]
pub(crate) struct ServerArgs {
    /// The server to talk to.
    #[arg(
        long,
        env = "ASKONCE_SERVER",
        default_value = "http://127.0.0.1:8080",
        value_name = "URL"
    )]
    server: String,
    /// The environment variable that holds the API key to send, if it is set.
    #[arg(long, default_value = "ASKONCE_API_KEY", value_name = "VARIABLE")]
    key_env: String,
}

/// A client of one server.
pub(crate) struct Client {
    http: reqwest::Client,
    base: String,
    key: Option<String>,
}

impl ServerArgs {
    /// The client.
    pub(crate) fn client(&self) -> anyhow::Result<Client> {
        Client::new(&self.server, key_from(&self.key_env))
    }
}

/// `text` as one part of a path.
pub(crate) fn path_part(text: &str) -> String {
    let mut part = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'~') {
            part.push(char::from(byte));
        } else {
            part.push_str(&format!("%{byte:02X}"));
        }
    }
    part
}

/// The key in a variable, if it is set.
pub(crate) fn key_from(variable: &str) -> Option<String> {
    std::env::var(variable)
        .ok()
        .map(|key| key.trim().to_owned())
        .filter(|key| !key.is_empty())
}

impl Client {
    /// How long a server that is there may take to say so.
    const LIVE_WITHIN: Duration = Duration::from_secs(5);

    /// A client of the server at `base`.
    pub(crate) fn new(base: &str, key: Option<String>) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .context("no HTTP client can be made")?;
        Ok(Self {
            http,
            base: base.trim_end_matches('/').to_owned(),
            key,
        })
    }

    /// Posts JSON and gives back the response, whatever its status.
    pub(crate) async fn send(&self, path: &str, body: &Value) -> anyhow::Result<reqwest::Response> {
        self.sent(self.http.post(format!("{}{path}", self.base)).json(body))
            .await
    }

    /// Posts JSON and reads JSON.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        read_json(self.send(path, body).await?).await
    }

    /// Reads JSON.
    pub(crate) async fn get(&self, path: &str, query: &[(&str, String)]) -> anyhow::Result<Value> {
        read_json(self.sent(self.http.get(self.url(path, query)?)).await?).await
    }

    /// Reads a text report.
    pub(crate) async fn get_text(
        &self,
        path: &str,
        query: &[(&str, String)],
    ) -> anyhow::Result<String> {
        let request = self
            .http
            .get(self.url(path, query)?)
            .header("accept", "text/plain");
        let response = self.sent(request).await?;
        if response.status().is_success() {
            return Ok(response.text().await?);
        }
        read_json(response).await?;
        bail!("the server refused without saying why")
    }

    fn url(&self, path: &str, query: &[(&str, String)]) -> anyhow::Result<reqwest::Url> {
        let url = format!("{}{path}", self.base);
        if query.is_empty() {
            return reqwest::Url::parse(&url).with_context(|| self.unusable());
        }
        reqwest::Url::parse_with_params(&url, query).with_context(|| self.unusable())
    }

    fn unusable(&self) -> String {
        format!(
            "--server {} is no URL such as http://127.0.0.1:8080",
            self.base
        )
    }

    /// Whether a server answers at all, whatever it says.
    pub(crate) async fn is_there(&self) -> bool {
        let asked = self.http.get(format!("{}/health/live", self.base));
        asked.timeout(Self::LIVE_WITHIN).send().await.is_ok()
    }

    async fn sent(&self, request: RequestBuilder) -> anyhow::Result<reqwest::Response> {
        let request = match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        };
        request.send().await.map_err(|error| {
            if error.is_builder() {
                return anyhow::anyhow!(self.unusable());
            }
            let error = error.without_url();
            let mut cause: &dyn std::error::Error = &error;
            while let Some(inner) = cause.source() {
                cause = inner;
            }
            anyhow::anyhow!(
                "no askonce server answers at {}: {cause}; start one with `askonce serve`, or name \
                 another with --server or ASKONCE_SERVER",
                self.base
            )
        })
    }
}

/// The JSON of a good response, or the problem of a bad one as an error.
pub(crate) async fn read_json(response: reqwest::Response) -> anyhow::Result<Value> {
    let status = response.status();
    let body = response.bytes().await.context("the response ended early")?;
    let value: Option<Value> = serde_json::from_slice(&body).ok();
    if status.is_success() {
        return value.context("the response is not JSON: is this an askonce server?");
    }
    let value = value.unwrap_or_default();
    let told = value
        .get("detail")
        .or_else(|| value.pointer("/error/message"))
        .and_then(Value::as_str);
    match (told, value.get("field").and_then(Value::as_str)) {
        (Some(told), Some(field)) => bail!("the server refused ({status}): {field}: {told}"),
        (Some(told), None) => bail!("the server refused ({status}): {told}"),
        (None, _) => bail!("the server answered with status {status}"),
    }
}

/// What is asked.
#[derive(Debug, ClapArgs)]
pub(crate) struct PromptArgs {
    /// The prompt; `-` reads it from standard input.
    #[arg(required_unless_present_any = ["chat", "body"])]
    prompt: Option<String>,
    /// A file with the whole body of a call, in place of a prompt; `-` is standard input.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["prompt", "chat"])]
    body: Option<PathBuf>,
    /// The protocol of `--body`. Default: `openai_chat`.
    #[arg(long, value_name = "NAME", requires = "body",
        value_parser = PossibleValuesParser::new(PROTOCOLS.map(Protocol::as_str)))]
    protocol: Option<String>,
    /// A file with a whole chat completions request, in place of a prompt; `-` is standard input.
    #[arg(long, value_name = "FILE", conflicts_with = "prompt")]
    chat: Option<PathBuf>,
    /// The model that is to answer.
    #[arg(long)]
    model: Option<String>,
    /// Instructions beside the prompt.
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// A parameter that may change the answer; the value is read as JSON, else as text.
    #[arg(long = "param", value_name = "NAME=VALUE")]
    params: Vec<String>,
    /// A part of the cache to keep to.
    #[arg(long)]
    namespace: Option<String>,
}

impl PromptArgs {
    /// The fields of a request to the native API.
    pub(crate) fn fields(&self) -> anyhow::Result<Map<String, Value>> {
        let mut fields = Map::new();
        let files = [("openai_chat", &self.chat), ("body", &self.body)];
        for (name, file) in files {
            let Some(file) = file else { continue };
            let text = if file.as_os_str() == "-" {
                std::io::read_to_string(std::io::stdin())
            } else {
                std::fs::read_to_string(file)
            };
            let text = text.with_context(|| format!("{} cannot be read", file.display()))?;
            let body: Value = serde_json::from_str(&text)
                .with_context(|| format!("{} is not JSON", file.display()))?;
            fields.insert(name.to_owned(), body);
        }
        if let Some(prompt) = &self.prompt {
            fields.insert("prompt".to_owned(), json!(read_prompt(prompt)?));
        }
        let named = [
            ("protocol", &self.protocol),
            ("model", &self.model),
            ("system", &self.system),
            ("namespace", &self.namespace),
        ];
        for (name, value) in named {
            if let Some(value) = value {
                fields.insert(name.to_owned(), json!(value));
            }
        }
        let mut params = Map::new();
        for param in &self.params {
            let (name, value) = param
                .split_once('=')
                .context("--param is given as name=value")?;
            let value = serde_json::from_str(value).unwrap_or_else(|_| json!(value));
            params.insert(name.to_owned(), value);
        }
        if !params.is_empty() {
            fields.insert("params".to_owned(), Value::Object(params));
        }
        Ok(fields)
    }
}

/// The prompt, from standard input when it is `-`.
pub(crate) fn read_prompt(prompt: &str) -> anyhow::Result<String> {
    if prompt != "-" {
        return Ok(prompt.to_owned());
    }
    let mut text = String::new();
    std::io::stdin()
        .read_to_string(&mut text)
        .context("standard input is not text")?;
    Ok(text)
}
