//! Where traces go.

use std::collections::BTreeMap;

use askonce::config::is_local;
use askonce::{Error, ErrorKind, Result};
use axum::http::HeaderName;
use reqwest::Url;
use serde::{Deserialize, Serialize};

/// The collector that traces are sent to, over HTTP in protobuf. What is left out is taken from the standard
/// variables of OpenTelemetry.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct TracesConfig {
    /// Its base URL, without credentials, query or fragment; spans go to `{endpoint}/v1/traces`. Default:
    /// `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`, as it is; else `OTEL_EXPORTER_OTLP_ENDPOINT`; else
    /// `http://localhost:4318`.
    pub(crate) endpoint: Option<String>,
    /// Headers that are sent along: from a header's name to the environment variable that holds its value. Those of
    /// `OTEL_EXPORTER_OTLP_HEADERS` are sent too. Default: none.
    pub(crate) headers_env: BTreeMap<String, String>,
    /// The share of requests that are traced, 0 to 1, where the caller has not decided that already. Default: what
    /// `OTEL_TRACES_SAMPLER` and `OTEL_TRACES_SAMPLER_ARG` say, else 1.
    pub(crate) sample_ratio: Option<f64>,
    /// The name of this service in traces. Default: `OTEL_SERVICE_NAME`, else `askonce`.
    pub(crate) service_name: Option<String>,
}

impl TracesConfig {
    /// # Errors
    /// Names the field, and what to do.
    pub(crate) fn validate(&self, production: bool) -> Result<()> {
        if !cfg!(feature = "otlp") {
            return Err(Self::not_in_this_build());
        }
        let wrong = |field: &str, expected: &str| {
            Error::new(ErrorKind::Config, "a setting of traces cannot be used")
                .with("field", format!("traces.{field}"))
                .with("expected", expected)
        };
        let url = self.endpoint.as_deref().map(Url::parse).transpose();
        // The text is not repeated: it may hold a password.
        let url = url.ok().filter(|url| url.as_ref().is_none_or(is_plain));
        let Some(url) = url else {
            let expected = "http(s)://host[:port][/path] without credentials, query or fragment, such as http://localhost:4318";
            return Err(wrong("endpoint", expected));
        };
        if self
            .sample_ratio
            .is_some_and(|ratio| !(0.0..=1.0).contains(&ratio))
        {
            return Err(wrong("sample_ratio", "0 to 1"));
        }
        if self.service_name.as_deref().is_some_and(str::is_empty) {
            return Err(wrong("service_name", "a name, or null"));
        }
        for (name, variable) in &self.headers_env {
            if HeaderName::try_from(name).is_err() || variable.is_empty() {
                let expected = "names of headers, each with the name of an environment variable";
                return Err(wrong("headers_env", expected));
            }
        }
        if let Some(url) = url
            && production
            && url.scheme() == "http"
            && !self.headers_env.is_empty()
            && !is_local(url.host_str().unwrap_or(""))
        {
            return Err(Error::new(
                ErrorKind::Config,
                "a secret would cross the network unencrypted",
            )
            .with("field", "traces.endpoint")
            .with("remedy", "use https in production"));
        }
        Ok(())
    }

    /// The error of a build without the feature.
    pub(crate) fn not_in_this_build() -> Error {
        Error::new(ErrorKind::Config, "this build sends no traces")
            .with("field", "traces")
            .with(
                "remedy",
                "build the server with --features otlp, or take the section out",
            )
    }
}

fn is_plain(url: &Url) -> bool {
    matches!(url.scheme(), "http" | "https")
        && url.host_str().is_some()
        && url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none()
}

#[cfg(all(test, feature = "otlp"))]
mod tests {
    use super::*;

    fn refused(config: &TracesConfig) -> String {
        config.validate(true).unwrap_err().to_string()
    }

    #[test]
    fn what_cannot_be_used_is_refused_by_name_and_not_repeated() {
        let at = |endpoint: &str| TracesConfig {
            endpoint: Some(endpoint.to_owned()),
            ..TracesConfig::default()
        };
        for endpoint in [
            "localhost:4318",
            "http://me:geheim@c:4318",
            "http://c/?k=geheim",
        ] {
            let error = refused(&at(endpoint));
            assert!(error.contains("traces.endpoint"), "{error}");
            assert!(!error.contains("geheim"), "{error}");
        }
        let ratio = TracesConfig {
            sample_ratio: Some(f64::NAN),
            ..TracesConfig::default()
        };
        assert!(refused(&ratio).contains("traces.sample_ratio"));
        let mut secret = at("http://collector.example:4318");
        secret.validate(true).unwrap();
        secret
            .headers_env
            .insert("authorization".to_owned(), "COLLECTOR_KEY".to_owned());
        assert!(refused(&secret).contains("use https"));
        secret.validate(false).unwrap();
    }
}
