//! Sends spans to an OpenTelemetry collector: batched, in the background, over HTTP in protobuf.
//!
//! The exporter has a thread of its own; what it sends goes out by the runtime and the HTTP client that everything
//! else here uses, so there is no second TLS stack. A collector that is away costs spans and nothing else.

use std::collections::HashMap;
use std::time::Duration;

use askonce::observe::SPANS;
use askonce::{Error, ErrorKind, Result};
use async_trait::async_trait;
use axum::http::HeaderMap;
use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry::{Key, KeyValue};
use opentelemetry_http::{
    Bytes, HeaderExtractor, HeaderInjector, HttpClient, HttpError, Request, Response,
};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use reqwest::Client;
use tokio::runtime::Handle;
use tracing::level_filters::LevelFilter;
use tracing::{Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::FilterFn;
use tracing_subscriber::registry::LookupSpan;

use super::TracesConfig;
use crate::http::secret;

/// How long the collector has for a batch, and at the end for what is left.
const PATIENCE: Duration = Duration::from_secs(5);

/// What takes spans and sends them.
#[derive(Debug)]
pub(crate) struct Exporter(SdkTracerProvider);

impl Exporter {
    /// Must be called within a tokio runtime.
    ///
    /// # Errors
    /// Names the variable that is not set, or what is wrong with the settings.
    pub(crate) fn start(config: &TracesConfig) -> Result<Self> {
        let wrong = |problem: &dyn std::error::Error| {
            Error::new(ErrorKind::Config, "traces cannot be sent")
                .with("field", "traces")
                .with("problem", problem.to_string())
        };
        let client = Client::builder()
            .timeout(PATIENCE)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| wrong(&error))?;
        let mut headers = HashMap::new();
        for (name, variable) in &config.headers_env {
            let field = format!("traces.headers_env.{name}");
            headers.insert(name.clone(), secret(variable, &field)?.trim().to_owned());
        }
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(Sender {
                client,
                runtime: Handle::current(),
            })
            .with_headers(headers)
            .with_timeout(PATIENCE);
        let exporter = match &config.endpoint {
            Some(endpoint) => {
                exporter.with_endpoint(format!("{}/v1/traces", endpoint.trim_end_matches('/')))
            }
            None => exporter,
        };
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter.build().map_err(|error| wrong(&error))?)
            .with_resource(resource(config));
        let provider = match config.sample_ratio {
            Some(ratio) => provider.with_sampler(Sampler::ParentBased(Box::new(
                Sampler::TraceIdRatioBased(ratio),
            ))),
            None => provider,
        };
        Ok(Self(provider.build()))
    }

    /// What takes the spans of this server, and nothing else.
    pub(crate) fn layer<S>(&self) -> Box<dyn Layer<S> + Send + Sync>
    where
        S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
    {
        let ours = FilterFn::new(|about| about.is_span() && about.target() == SPANS)
            .with_max_level_hint(LevelFilter::DEBUG);
        tracing_opentelemetry::layer()
            .with_tracer(self.0.tracer("askonce"))
            .with_level(false)
            .with_location(false)
            .with_target(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_filter(ours)
            .boxed()
    }

    /// Sends what is left.
    pub(crate) async fn close(self) {
        let provider = self.0;
        let closed =
            tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(PATIENCE)).await;
        if let Ok(Err(error)) = closed {
            tracing::warn!(%error, "the last traces were not sent");
        }
    }
}

fn resource(config: &TracesConfig) -> Resource {
    let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    let resource = Resource::builder().with_attribute(version);
    if let Some(name) = &config.service_name {
        return resource.with_service_name(name.clone()).build();
    }
    let found = resource.build();
    let name = found.get_ref(&Key::from_static_str("service.name"));
    // What the kit calls a service that neither of its variables names.
    let named = name.is_some_and(|name| !name.as_str().starts_with("unknown_service"));
    if named {
        return found;
    }
    let attributes: Vec<KeyValue> = found
        .iter()
        .map(|(key, value)| KeyValue::new(key.clone(), value.clone()))
        .collect();
    Resource::builder_empty()
        .with_attributes(attributes)
        .with_service_name("askonce")
        .build()
}

/// Makes the caller's span, if it sent one, the parent of `span`.
pub(super) fn adopt(span: &Span, headers: &HeaderMap) {
    if headers.contains_key("traceparent") {
        let caller = TraceContextPropagator::new().extract(&HeaderExtractor(headers));
        // It fails only where no exporter listens.
        let _ = span.set_parent(caller);
    }
}

/// Makes `span` the parent that a request with these headers names.
pub(super) fn hand_on(span: &Span, headers: &mut HeaderMap) {
    TraceContextPropagator::new().inject_context(&span.context(), &mut HeaderInjector(headers));
}

/// The HTTP client, for a thread that has no runtime.
#[derive(Debug)]
struct Sender {
    client: Client,
    runtime: Handle,
}

#[async_trait]
impl HttpClient for Sender {
    async fn send_bytes(
        &self,
        request: Request<Bytes>,
    ) -> std::result::Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        self.runtime
            .spawn(async move { client.send_bytes(request).await })
            .await?
    }
}
