//! The server's settings: what a deployment writes into `askonce.yaml`.
//!
//! One struct holds the engine's sections beside the server's own, so that a file reads as one thing;
//! [`ServerConfig::engine`] hands the engine its part. Secrets are never settings: a key is named by the
//! environment variable that holds it, or known by its digest. So a configuration can be printed and
//! logged, apart from the digests, which [`ServerConfig::shown`] leaves out.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use askonce::admit::AdmissionConfig;
use askonce::config::{
    BackendSection, Loaded, SemanticConfig, ServiceConfig, Sources, VerifierModelConfig, is_local,
    is_production,
};
use askonce::savings::{LedgerConfig, PricesConfig};
use askonce::{Config, Error, ErrorKind, Result};
use axum::http::{HeaderName, header};
use bytesize::ByteSize;
use reqwest::Url;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::traces::TracesConfig;

/// The stem of the configuration file and of variables.
const NAME: &str = "askonce";

/// Least and greatest bound for bodies that are read whole.
const BODY_BYTES: std::ops::RangeInclusive<u64> = (1 << 10)..=(1 << 30);

/// Everything that can be set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ServerConfig {
    /// The name of the application, 1 to 24 letters, digits, - _ and dots: keys in backends that processes
    /// share begin with the backend's prefix and this. Default: `null`, the prefix alone.
    pub(crate) name: Option<String>,
    /// The version of what is stored, formed as `name`: a new one does not read what an old one stored.
    /// Default: `null`.
    pub(crate) version: Option<String>,
    /// Whether anything is cached. Default: true. Otherwise every request goes to its upstream.
    pub(crate) enabled: bool,
    /// The name of this deployment. `prod`, `production` and `live`, alone or as a word in a longer name,
    /// refuse unsafe settings. Default: `ASKONCE_ENV`, else `LEX_ENV`, else `development`.
    pub(crate) environment: String,
    /// Whether everything that happens in the tiers is logged, at level `debug`, keys as digests. Default:
    /// false.
    pub(crate) debug: bool,
    /// Address and port to listen on. Default: `127.0.0.1:8080`; port 0 takes any free one.
    pub(crate) listen: String,
    /// The APIs that the proxy stands in front of. A request goes to the one that it names in
    /// `X-Askonce-Upstream`; else to the first that speaks its protocol and lists its model; else to the first
    /// that speaks its protocol and lists no models; else to the first. Default: OpenAI's and Anthropic's.
    pub(crate) upstreams: Vec<UpstreamConfig>,
    /// The model that compares answers where cheaper means are not sure, within the budget of
    /// `semantic.learning.judge`, which is 0 unless set; and that verifies candidates where
    /// `semantic.verifier.model` is of type `language_model`, within the budget there. Default: `null`, none.
    pub(crate) judge: Option<JudgeModelConfig>,
    /// Who may call.
    pub(crate) auth: AuthConfig,
    /// The page for operators.
    pub(crate) admin: AdminConfig,
    /// Where traces of requests are sent. Default: `null`, none are made. `{}` takes everything from the standard
    /// variables of OpenTelemetry. Only in builds with the feature `otlp`.
    pub(crate) traces: Option<TracesConfig>,
    /// Largest body that is read whole: prompts, answers, responses that may be cached. Default:
    /// `32MiB`; 1 KiB to 1 GiB. What is passed through as a stream has no bound.
    #[schemars(with = "askonce::schema::Bytes")]
    pub(crate) max_body_bytes: ByteSize,
    /// How long an upstream's stream is read on, to be stored, when nobody waits for it any more. Default: `2m`;
    /// at most 1 h. Answers that are not streams are always awaited.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "askonce::schema::Time")]
    pub(crate) finish_abandoned: Duration,
    /// The time between two events of a stream that is given from the cache. Default: `0s`, all at once; at most
    /// 1 s.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "askonce::schema::Time")]
    pub(crate) stream_pace: Duration,
    /// How long running requests may go on after the signal to stop. Default: `30s`.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "askonce::schema::Time")]
    pub(crate) shutdown_grace: Duration,
    /// The exact tiers: those in this process first, then as listed. Default: one memory tier of 512 MiB.
    pub(crate) backends: Vec<BackendSection>,
    /// How a memory tier goes together with a shared one behind it.
    pub(crate) tiers: askonce::tier::TierConfig,
    /// How long an answer is kept when neither its store nor the default backend says. Default: `24h`.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "Option<askonce::schema::Time>")]
    pub(crate) default_ttl: Option<Duration>,
    /// What is kept ready for requests that come again, beside what the backends hold: a number of bytes, or
    /// `48MiB`. Default: `48MiB`. A third each for requests as they were read, entries as they were decoded (none
    /// that are encrypted) and responses as they were rendered. 0: nothing.
    #[schemars(with = "askonce::schema::Bytes")]
    pub(crate) ready_bytes: ByteSize,
    /// What holds for all tiers together.
    pub(crate) service: ServiceConfig,
    /// How stored answers are written: serializer, compression, protection.
    pub(crate) codec: askonce::codec::CodecConfig,
    /// Matching by similarity.
    pub(crate) semantic: SemanticConfig,
    /// What may be kept, and how far it is shared.
    pub(crate) admission: AdmissionConfig,
    /// What models charge.
    pub(crate) prices: PricesConfig,
    /// The books of what was saved.
    pub(crate) ledger: LedgerConfig,
}

impl Default for ServerConfig {
    fn default() -> Self {
        let Config {
            name,
            version,
            enabled,
            environment,
            debug,
            backends,
            tiers,
            default_ttl,
            ready_bytes,
            service,
            codec,
            semantic,
            admission,
            prices,
            ledger,
            ..
        } = Config::default();
        Self {
            name,
            version,
            enabled,
            environment,
            debug,
            listen: "127.0.0.1:8080".to_owned(),
            upstreams: vec![UpstreamConfig::default(), UpstreamConfig::anthropic()],
            judge: None,
            auth: AuthConfig::default(),
            admin: AdminConfig::default(),
            traces: None,
            max_body_bytes: ByteSize::mib(32),
            finish_abandoned: Duration::from_secs(120),
            stream_pace: Duration::ZERO,
            shutdown_grace: Duration::from_secs(30),
            backends,
            tiers,
            default_ttl,
            ready_bytes,
            service,
            codec,
            semantic,
            admission,
            prices,
            ledger,
        }
    }
}

/// One API to forward to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct UpstreamConfig {
    /// Its name in logs, errors and `X-Askonce-Upstream`. Default: `openai`.
    pub(crate) name: String,
    /// What it speaks.
    pub(crate) protocol: Protocol,
    /// Where its API begins, version included; a request for `/v1/models` goes to `{base_url}/models`.
    /// Without credentials, query or fragment. Default: `https://api.openai.com/v1`.
    pub(crate) base_url: String,
    /// How long a whole answer may take, or the next part of a stream. Default: `120s`.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "askonce::schema::Time")]
    pub(crate) timeout: Duration,
    /// The environment variable that holds the key to send. Default: none, the caller's own is passed
    /// on.
    pub(crate) api_key_env: Option<String>,
    /// The header that carries that key: `authorization`, `x-api-key` or `api-key`, the last for Azure. Default:
    /// `authorization` for the protocol `openai`, `x-api-key` for `anthropic`.
    pub(crate) key_header: Option<String>,
    /// Models that it has; `*` stands for any text, as in `claude-*`. Default: none listed, it takes all that no
    /// other lists.
    pub(crate) models: Vec<String>,
    /// Names that models have here and nowhere else, such as those of deployments: from the name in the request
    /// to the name here.
    pub(crate) rename: BTreeMap<String, String>,
    /// Upstreams that are asked in its place, in this order, when it cannot be reached, takes too long, or answers
    /// with status 408, 429, 500, 502, 503, 504 or 529. Their answers are stored as its own. Default: none.
    pub(crate) failover: Vec<String>,
    /// Whether streams of chat completions are asked to tell the tokens used (`stream_options.include_usage`) also
    /// where the caller does not ask; the caller is not shown. Set it to false for servers that refuse the field:
    /// tokens are counted here then. Default: true.
    pub(crate) stream_usage: bool,
}

impl Default for UpstreamConfig {
    fn default() -> Self {
        Self {
            name: "openai".to_owned(),
            protocol: Protocol::Openai,
            base_url: "https://api.openai.com/v1".to_owned(),
            timeout: Duration::from_secs(120),
            api_key_env: None,
            key_header: None,
            models: Vec::new(),
            rename: BTreeMap::new(),
            failover: Vec::new(),
            stream_usage: true,
        }
    }
}

impl UpstreamConfig {
    /// Anthropic's API.
    fn anthropic() -> Self {
        Self {
            name: "anthropic".to_owned(),
            protocol: Protocol::Anthropic,
            base_url: "https://api.anthropic.com/v1".to_owned(),
            ..Self::default()
        }
    }

    /// The header that carries the key.
    pub(crate) fn key_header_name(&self) -> HeaderName {
        match (self.key_header.as_deref(), self.protocol) {
            (Some("api-key"), _) => HeaderName::from_static("api-key"),
            (Some("x-api-key"), _) | (None, Protocol::Anthropic) => {
                HeaderName::from_static("x-api-key")
            }
            _ => header::AUTHORIZATION,
        }
    }

    /// The checked base URL; `path` is where this section stands in the file.
    pub(crate) fn url(&self, path: &str) -> Result<Url> {
        let wrong = |problem: &str| {
            Error::new(ErrorKind::Config, "an upstream's address cannot be used")
                .with("field", format!("{path}.base_url"))
                .with("problem", problem)
                .with(
                    "expected",
                    "http(s)://host[:port]/path, such as https://api.openai.com/v1",
                )
        };
        // The text is not repeated: it may hold a password.
        let url = Url::parse(&self.base_url).map_err(|error| wrong(&error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            return Err(wrong("it is no http or https URL"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(wrong(
                "it holds credentials; name a variable in api_key_env instead",
            ));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(wrong("it has a query or a fragment"));
        }
        Ok(url)
    }
}

/// A model that compares and verifies answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct JudgeModelConfig {
    /// The upstream that it is behind, by name. Default: the first. Where that needs a key, it must have one of
    /// its own: no caller's is sent.
    #[serde(default)]
    pub(crate) upstream: Option<String>,
    /// Its name there.
    pub(crate) model: String,
}

/// What an upstream speaks.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Protocol {
    /// The OpenAI API, and every server that copies it, Azure's included.
    #[default]
    Openai,
    /// The Anthropic API.
    Anthropic,
}

/// Who may call.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct AuthConfig {
    /// The keys that are let in. Default: none; then this machine's callers need no key, each key that
    /// is sent has a cache of its own, and other machines' callers must send one.
    pub(crate) keys: Vec<KeyConfig>,
    /// Whether, without `keys`, callers from other machines are let in without a key. They all share one
    /// cache then. Default: false.
    pub(crate) allow_anonymous: bool,
}

/// The page for operators at `/admin`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct AdminConfig {
    /// Whether there is such a page, and lookups of late are kept for it. Default: true. It asks for a key with
    /// `admin: true`; without `auth.keys` only this machine may open it, which production refuses.
    pub(crate) enabled: bool,
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self { enabled: true }
    }
}

/// One key that is let in.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct KeyConfig {
    /// Its name in messages.
    pub(crate) name: String,
    /// Whose answers its holder shares. Default: the key's own name.
    pub(crate) tenant: Option<String>,
    /// The environment variable that holds the key.
    pub(crate) key_env: Option<String>,
    /// Or the key's SHA-256, in 64 hexadecimal digits.
    pub(crate) key_sha256: Option<String>,
    /// Whether its holder may look after all tenants' entries. Default: false.
    pub(crate) admin: bool,
}

impl ServerConfig {
    /// Reads and checks the settings: `--config` or the working directory's file, the environment, and
    /// `--set`.
    pub(crate) fn load(sources: &ConfigSources) -> Result<Loaded<Self>> {
        let loaded = sources.sources()?.load::<Self>()?;
        let checked = loaded.settings.validate();
        checked.map_err(|error| loaded.located(error))?;
        Ok(loaded)
    }

    /// The engine's part.
    pub(crate) fn engine(&self) -> Config {
        let mut config = Config::default();
        config.name.clone_from(&self.name);
        config.version.clone_from(&self.version);
        config.enabled = self.enabled;
        config.environment.clone_from(&self.environment);
        config.debug = self.debug;
        config.backends.clone_from(&self.backends);
        config.tiers.clone_from(&self.tiers);
        config.default_ttl = self.default_ttl;
        config.ready_bytes = self.ready_bytes;
        config.service.clone_from(&self.service);
        config.codec.clone_from(&self.codec);
        config.semantic.clone_from(&self.semantic);
        config.admission.clone_from(&self.admission);
        config.prices.clone_from(&self.prices);
        config.ledger.clone_from(&self.ledger);
        config
    }

    /// Whether unsafe settings are refused.
    pub(crate) fn is_production(&self) -> bool {
        is_production(&self.environment)
    }

    /// Whether only this machine can reach the server.
    pub(crate) fn listens_locally(&self) -> bool {
        let host = self
            .listen
            .rsplit_once(':')
            .map_or(self.listen.as_str(), |(host, _)| host);
        is_local(host)
    }

    /// A JSON Schema of the settings.
    pub(crate) fn schema() -> Value {
        let mut schema = askonce::schema::of::<Self>();
        if let Some(schema) = schema.as_object_mut() {
            schema.insert(
                "title".to_owned(),
                Value::from("Settings of the askonce server"),
            );
        }
        schema
    }

    /// The settings as they are in force, without digests of keys.
    pub(crate) fn shown(&self) -> Value {
        let mut shown = self.clone();
        for key in &mut shown.auth.keys {
            if let Some(digest) = &mut key.key_sha256 {
                "(hidden)".clone_into(digest);
            }
        }
        serde_json::to_value(shown).unwrap_or_default()
    }

    fn validate(&self) -> Result<()> {
        self.engine().validate()?;
        check_listen(&self.listen)?;
        if !BODY_BYTES.contains(&self.max_body_bytes.as_u64()) {
            return Err(range("max_body_bytes", self.max_body_bytes, "1KiB to 1GiB"));
        }
        if self.shutdown_grace > Duration::from_secs(3_600) {
            let value = humantime::format_duration(self.shutdown_grace);
            return Err(range("shutdown_grace", value, "0s to 1h"));
        }
        if self.finish_abandoned > Duration::from_secs(3_600) {
            let value = humantime::format_duration(self.finish_abandoned);
            return Err(range("finish_abandoned", value, "0s to 1h"));
        }
        if self.stream_pace > Duration::from_secs(1) {
            let value = humantime::format_duration(self.stream_pace);
            return Err(range("stream_pace", value, "0s to 1s"));
        }
        if let Some(traces) = &self.traces {
            traces.validate(self.is_production())?;
        }
        self.validate_upstreams()?;
        self.validate_judge()?;
        self.validate_auth()
    }

    fn validate_judge(&self) -> Result<()> {
        let verifies =
            self.semantic.verifier.as_ref().is_some_and(|verifier| {
                matches!(verifier.model, VerifierModelConfig::LanguageModel)
            });
        let Some(judge) = &self.judge else {
            if verifies {
                let message = "there is no language model that verifies";
                return Err(Error::new(ErrorKind::Config, message)
                    .with("field", "judge")
                    .with("remedy", "name one, or set semantic.verifier to null"));
            }
            return Ok(());
        };
        if judge.model.is_empty() {
            return Err(range("judge.model", "", "the name of a model"));
        }
        let mut upstreams = self.upstreams.iter();
        if let Some(name) = &judge.upstream
            && !upstreams.any(|upstream| upstream.name == *name)
        {
            return Err(range("judge.upstream", name, "the name of an upstream"));
        }
        if self.semantic.learning.judge.calls_per_day == 0 && !verifies {
            return Err(Error::new(ErrorKind::Config, "the judge may make no calls")
                .with("field", "semantic.learning.judge.calls_per_day")
                .with("value", 0)
                .with(
                    "remedy",
                    "set how many it may make a day, or leave judge out",
                ));
        }
        Ok(())
    }

    fn validate_upstreams(&self) -> Result<()> {
        if self.upstreams.is_empty() {
            return Err(
                Error::new(ErrorKind::Config, "the proxy needs at least one upstream")
                    .with("field", "upstreams"),
            );
        }
        for (i, upstream) in self.upstreams.iter().enumerate() {
            let path = format!("upstreams[{i}]");
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            if upstream.name.is_empty() || !upstream.name.chars().all(plain) {
                return Err(range(
                    &format!("{path}.name"),
                    &upstream.name,
                    "letters, digits, - _ .",
                ));
            }
            if self.upstreams[..i]
                .iter()
                .any(|other| other.name == upstream.name)
            {
                return Err(
                    Error::new(ErrorKind::Config, "two upstreams have the same name")
                        .with("field", format!("{path}.name"))
                        .with("value", &upstream.name),
                );
            }
            let url = upstream.url(&path)?;
            if self.is_production()
                && url.scheme() == "http"
                && !is_local(url.host_str().unwrap_or(""))
            {
                return Err(Error::new(
                    ErrorKind::Config,
                    "prompts would cross the network unencrypted",
                )
                .with("field", format!("{path}.base_url"))
                .with("remedy", "use https in production"));
            }
            if upstream.timeout.is_zero() || upstream.timeout > Duration::from_secs(3_600) {
                let value = humantime::format_duration(upstream.timeout);
                return Err(range(&format!("{path}.timeout"), value, "1ms to 1h"));
            }
            self.validate_routing(upstream, &path)?;
        }
        Ok(())
    }

    fn validate_routing(&self, upstream: &UpstreamConfig, path: &str) -> Result<()> {
        const HEADERS: [&str; 3] = ["authorization", "x-api-key", "api-key"];
        if let Some(name) = &upstream.key_header
            && !HEADERS.contains(&name.as_str())
        {
            let field = format!("{path}.key_header");
            return Err(range(&field, name, "authorization, x-api-key, api-key"));
        }
        for (at, name) in upstream.failover.iter().enumerate() {
            let field = format!("{path}.failover[{at}]");
            let named = self.upstreams.iter().find(|other| other.name == *name);
            let Some(other) = named.filter(|other| other.name != upstream.name) else {
                return Err(range(&field, name, "the name of another upstream"));
            };
            if other.protocol != upstream.protocol {
                return Err(range(&field, name, "an upstream of the same protocol"));
            }
        }
        let empty = upstream.models.iter().position(String::is_empty);
        if let Some(at) = empty {
            let field = format!("{path}.models[{at}]");
            return Err(range(
                &field,
                "",
                "the name of a model, or a pattern with *",
            ));
        }
        Ok(())
    }

    fn validate_auth(&self) -> Result<()> {
        for (i, key) in self.auth.keys.iter().enumerate() {
            let path = format!("auth.keys[{i}]");
            let refuse = |field: &str, message: &'static str| {
                Error::new(ErrorKind::Config, message).with("field", format!("{path}{field}"))
            };
            if key.name.is_empty() {
                return Err(refuse(".name", "a key needs a name"));
            }
            if self.auth.keys[..i]
                .iter()
                .any(|other| other.name == key.name)
            {
                return Err(refuse(".name", "two keys have the same name").with("value", &key.name));
            }
            if key.tenant.as_deref() == Some("") {
                return Err(refuse(".tenant", "a tenant's name cannot be empty"));
            }
            match (&key.key_env, &key.key_sha256) {
                (Some(_), None) => {}
                (None, Some(digest)) if decode_sha256(digest).is_some() => {}
                (None, Some(_)) => {
                    return Err(refuse(".key_sha256", "a SHA-256 has 64 hexadecimal digits"));
                }
                _ => return Err(refuse("", "a key is given by either key_env or key_sha256")),
            }
        }
        let open = self.auth.keys.is_empty() && !self.listens_locally();
        let spends = self
            .upstreams
            .iter()
            .position(|upstream| upstream.api_key_env.is_some());
        if let (true, Some(i)) = (open, spends) {
            return Err(Error::new(
                ErrorKind::Config,
                "whoever reaches this server could spend your key",
            )
            .with("field", "auth.keys")
            .with("listen", &self.listen)
            .with("key", format!("upstreams[{i}].api_key_env"))
            .with(
                "remedy",
                "list the keys of your callers, or listen on 127.0.0.1",
            ));
        }
        if open && self.is_production() {
            return Err(Error::new(
                ErrorKind::Config,
                "production needs callers to be authenticated",
            )
            .with("field", "auth.keys")
            .with(
                "remedy",
                "list the keys of your callers, or listen on 127.0.0.1",
            ));
        }
        if self.is_production() && self.admin.enabled && self.auth.keys.is_empty() {
            return Err(Error::new(
                ErrorKind::Config,
                "everybody on this machine could open the admin page, read all answers and remove them",
            )
            .with("field", "admin.enabled")
            .with("environment", self.environment.trim())
            .with(
                "remedy",
                "list a key with admin: true in auth.keys, or set admin.enabled to false",
            ));
        }
        Ok(())
    }
}

/// Where the command line wants settings to come from.
#[derive(Clone, Debug, Default)]
pub(crate) struct ConfigSources {
    /// `--config`.
    pub(crate) file: Option<std::path::PathBuf>,
    /// `--set`, and flags that stand for one.
    pub(crate) overrides: Vec<String>,
}

impl ConfigSources {
    fn sources(&self) -> Result<Sources> {
        let mut sources = Sources::named(NAME).process();
        sources = match &self.file {
            Some(file) => sources.file(file),
            None => sources.directory("."),
        };
        if let Some(name) = sources.environment_name() {
            let environment = format!("environment={name}");
            sources = sources.default(&environment)?;
        }
        self.overrides
            .iter()
            .try_fold(sources, |sources, text| sources.set(text))
    }
}

/// The bytes of a SHA-256 in hexadecimal.
pub(crate) fn decode_sha256(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    let mut digest = [0; 32];
    for (i, byte) in digest.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).ok()?;
    }
    Some(digest)
}

fn check_listen(listen: &str) -> Result<()> {
    let port = listen
        .rsplit_once(':')
        .filter(|(host, _)| !host.is_empty())
        .map(|(_, port)| port);
    if listen.parse::<SocketAddr>().is_ok() || port.is_some_and(|port| port.parse::<u16>().is_ok())
    {
        return Ok(());
    }
    Err(range(
        "listen",
        listen,
        "host:port, such as 127.0.0.1:8080 or [::1]:8080",
    ))
}

fn range(field: &str, value: impl std::fmt::Display, allowed: &'static str) -> Error {
    Error::new(ErrorKind::Config, "a setting is out of range")
        .with("field", field)
        .with("value", value)
        .with("allowed", allowed)
}

#[cfg(test)]
mod tests {
    use askonce::config::VerifierConfig;

    use super::*;

    fn refused(change: impl FnOnce(&mut ServerConfig)) -> String {
        let mut config = ServerConfig::default();
        change(&mut config);
        config.validate().unwrap_err().to_string()
    }

    #[test]
    fn the_defaults_are_valid() {
        ServerConfig::default().validate().unwrap();
    }

    #[test]
    fn what_is_out_of_range_is_named() {
        for (error, field) in [
            (refused(|config| config.listen = "8080".into()), "listen"),
            (
                refused(|config| config.max_body_bytes = ByteSize(1)),
                "max_body_bytes",
            ),
            (refused(|config| config.upstreams.clear()), "upstreams"),
            (
                refused(|config| config.upstreams[0].timeout = Duration::ZERO),
                "upstreams[0].timeout",
            ),
            (
                refused(|config| config.upstreams[0].base_url = "ftp://x".into()),
                "upstreams[0].base_url",
            ),
            (
                refused(|config| config.auth.keys = vec![KeyConfig::default()]),
                "auth.keys[0].name",
            ),
            (
                refused(|config| config.semantic.candidates = 0),
                "semantic.candidates",
            ),
        ] {
            assert!(error.contains(&format!("field: {field}")), "{error}");
        }
    }

    #[test]
    fn a_language_model_that_verifies_is_named_and_then_needs_no_budget_for_labels() {
        let model = |name: &str| JudgeModelConfig {
            upstream: None,
            model: name.to_owned(),
        };
        let verifier = VerifierConfig::new(VerifierModelConfig::LanguageModel, 0.9);
        let nobody = refused(|config| config.semantic.verifier = Some(verifier.clone()));
        assert!(nobody.contains("field: judge"), "{nobody}");
        let idle = refused(|config| config.judge = Some(model("m")));
        assert!(idle.contains("calls_per_day"), "{idle}");
        let mut config = ServerConfig::default();
        config.semantic.verifier = Some(verifier);
        config.judge = Some(model("m"));
        config.validate().unwrap();
        let unnamed = refused(|other| {
            other
                .semantic
                .verifier
                .clone_from(&config.semantic.verifier);
            other.judge = Some(model(""));
        });
        assert!(unnamed.contains("judge.model"), "{unnamed}");
    }

    #[test]
    fn a_password_in_an_address_is_refused_and_not_repeated() {
        let error =
            refused(|config| config.upstreams[0].base_url = "https://me:hush@host/v1".into());
        assert!(
            error.contains("credentials") && !error.contains("hush"),
            "{error}"
        );
    }

    #[test]
    fn a_server_that_would_lend_its_key_to_strangers_does_not_start() {
        let error = refused(|config| {
            config.listen = "0.0.0.0:8080".into();
            config.upstreams[0].api_key_env = Some("OPENAI_API_KEY".into());
        });
        assert!(error.contains("auth.keys"), "{error}");
    }

    #[test]
    fn production_refuses_plain_text_and_strangers_in_any_spelling() {
        for name in ["prod", "Production", "LIVE "] {
            let error = refused(|config| {
                config.environment = name.into();
                config.upstreams[0].base_url = "http://models.example/v1".into();
            });
            assert!(error.contains("https"), "{error}");
            let error = refused(|config| {
                config.environment = name.into();
                config.listen = "0.0.0.0:80".into();
            });
            assert!(error.contains("auth.keys"), "{error}");
        }
    }

    #[test]
    fn production_refuses_an_admin_page_that_asks_for_no_key() {
        let mut config = ServerConfig {
            environment: "production".into(),
            ..ServerConfig::default()
        };
        let error = config.validate().unwrap_err().to_string();
        assert!(error.contains("field: admin.enabled"), "{error}");
        config.admin.enabled = false;
        config.validate().unwrap();
        config.admin.enabled = true;
        config.auth.keys.push(KeyConfig {
            name: "operator".into(),
            key_sha256: Some("ab".repeat(32)),
            admin: true,
            ..KeyConfig::default()
        });
        config.validate().unwrap();
    }

    #[test]
    fn digests_of_keys_are_not_shown() {
        let mut config = ServerConfig::default();
        let key_sha256 = Some("ab".repeat(32));
        config.auth.keys.push(KeyConfig {
            name: "a".into(),
            key_sha256,
            ..KeyConfig::default()
        });
        config.validate().unwrap();
        assert!(!config.shown().to_string().contains("abab"));
    }

    #[test]
    fn w_61_nothing_that_is_shown_holds_a_secret() {
        let mut config = ServerConfig::default();
        let backends = r#"[{"type": "redis", "redis_url": "redis://canary1:canary2@h"},
            {"type": "redis", "name": "b", "redis_password": "canary3", "sentinels": ["s:1"],
             "sentinel_password": "canary4"}]"#;
        config.backends = serde_json::from_str(backends).unwrap();
        let secret = "d31b8c025fe7946a10be772dc841f936830ea55cd0691fb248ed97247bca003f";
        let codec = format!(
            r#"{{"protection": {{"kind": "mac", "keys": [{{"id": 1, "secret": "{secret}"}}]}}}}"#
        );
        config.codec = serde_json::from_str(&codec).unwrap();
        config.validate().unwrap();
        let mut shown = format!("{} {config:?}", config.shown());
        config.environment = "prod".to_owned();
        let error = config.validate().unwrap_err();
        assert!(
            error.to_string().contains("field: backends[0].redis_url"),
            "{error}"
        );
        shown.push_str(&format!("{error} {error:?}"));
        assert!(
            !shown.contains("canary") && !shown.contains(secret),
            "{shown}"
        );
    }

    #[test]
    fn every_section_of_the_file_has_its_place_in_the_schema() {
        let schema = ServerConfig::schema();
        let shown = ServerConfig::default().shown();
        for name in shown.as_object().unwrap().keys() {
            let field = &schema["properties"][name];
            assert!(field.is_object(), "{name}");
        }
        assert_eq!(schema["additionalProperties"], Value::from(false));
        let upstream = &schema["$defs"]["UpstreamConfig"]["properties"];
        for name in shown["upstreams"][0].as_object().unwrap().keys() {
            assert!(
                upstream[name]["description"].is_string() || upstream[name]["$ref"].is_string(),
                "{name}"
            );
        }
    }
}
