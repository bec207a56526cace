//! Traces: what a collector is sent of a miss, an exact hit and a hit by similarity, and that no text is in it.

mod support;

#[cfg(not(feature = "otlp"))]
#[test]
fn a_build_that_sends_no_traces_refuses_to_be_asked_for_them() {
    let directory = tempfile::tempdir().unwrap();
    let args = [
        "config",
        "check",
        "--set",
        "traces.endpoint=http://127.0.0.1:4318",
    ];
    let output = support::run(directory.path(), &args);
    assert!(!output.status.success());
    let said = support::stderr(&output);
    assert!(said.contains("this build sends no traces"), "{said}");
    assert!(said.contains("--features otlp"), "{said}");
}

#[cfg(feature = "otlp")]
mod sent {
    use std::collections::BTreeMap;

    use axum::http::StatusCode;
    use axum::response::IntoResponse as _;
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
    use opentelemetry_proto::tonic::trace::v1::{
        Span, span::SpanKind, status::StatusCode as Coded,
    };
    use prost::Message as _;
    use serde_json::json;

    use crate::support::{Server, Setup, Upstream, completion, json_response, prompt};

    const RESET: &str = "How do I reset my password?";
    const REWORDED: &str = "how can I reset my password";
    const ANSWER: &str = "Choose Forgotten on the page where you log in.";
    const SECRET: &str = "sk-not-to-be-seen";
    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const CALLER: &str = "b7ad6b7169203331";

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn told(attributes: &[KeyValue]) -> BTreeMap<String, String> {
        let text = |value: &any_value::Value| match value {
            any_value::Value::StringValue(text) => text.clone(),
            any_value::Value::IntValue(number) => number.to_string(),
            any_value::Value::DoubleValue(number) => number.to_string(),
            any_value::Value::BoolValue(yes) => yes.to_string(),
            other => panic!("an attribute of another type: {other:?}"),
        };
        let pair = |attribute: &KeyValue| {
            let value = attribute.value.as_ref()?.value.as_ref()?;
            Some((attribute.key.clone(), text(value)))
        };
        attributes.iter().filter_map(pair).collect()
    }

    /// All that a collector was sent.
    struct Sent {
        spans: Vec<Span>,
        resource: BTreeMap<String, String>,
    }

    impl Sent {
        fn to(collector: &Upstream) -> Self {
            let mut sent = Self {
                spans: Vec::new(),
                resource: BTreeMap::new(),
            };
            for seen in collector.all() {
                assert_eq!(seen.path, "/v1/traces");
                assert_eq!(seen.headers["content-type"], "application/x-protobuf");
                let request = ExportTraceServiceRequest::decode(seen.body).unwrap();
                for of_resource in request.resource_spans {
                    sent.resource = told(&of_resource.resource.unwrap().attributes);
                    for scope in of_resource.scope_spans {
                        sent.spans.extend(scope.spans);
                    }
                }
            }
            sent
        }

        /// The requests, in the order in which they began.
        fn requests(&self) -> Vec<&Span> {
            let server = |span: &&Span| span.kind == SpanKind::Server as i32;
            let mut requests: Vec<_> = self.spans.iter().filter(server).collect();
            requests.sort_by_key(|span| span.start_time_unix_nano);
            requests
        }

        /// What lies below a span, in the order in which it began.
        fn below(&self, parent: &Span) -> Vec<&Span> {
            let mut spans: Vec<_> = self
                .spans
                .iter()
                .filter(|span| span.parent_span_id == parent.span_id)
                .collect();
            spans.sort_by_key(|span| span.start_time_unix_nano);
            assert!(spans.iter().all(|span| span.trace_id == parent.trace_id));
            spans
        }

        fn names_below(&self, parent: &Span) -> Vec<&str> {
            let spans = self.below(parent);
            spans.into_iter().map(|span| span.name.as_str()).collect()
        }

        fn one_below(&self, parent: &Span, name: &str) -> &Span {
            let mut spans = self.below(parent).into_iter();
            spans.find(|span| span.name == name).expect(name)
        }
    }

    async fn collector() -> Upstream {
        let collector = Upstream::start().await;
        collector.answer(|_| StatusCode::OK.into_response());
        collector
    }

    fn base(upstream: &Upstream) -> &str {
        upstream.url.trim_end_matches("/v1")
    }

    fn start(upstream: &Upstream, collector: &Upstream) -> Setup {
        Setup::upstream(&upstream.url).set(&format!("traces.endpoint={}", base(collector)))
    }

    /// Stops the server while the collector goes on.
    async fn stop(mut server: Server) -> String {
        server.terminate();
        let ended = tokio::task::spawn_blocking(move || server.wait());
        let (status, log) = ended.await.unwrap();
        assert!(status.success(), "{log}");
        log
    }

    #[tokio::test]
    async fn a_miss_an_exact_hit_and_a_similar_one_are_told_stage_by_stage() {
        let (upstream, collector) = (Upstream::start().await, collector().await);
        upstream.answer_json(completion(ANSWER));
        let server = start(&upstream, &collector)
            .set("traces.headers_env.x-collector-key=COLLECTOR_KEY")
            .env("COLLECTOR_KEY", SECRET)
            .start();
        let parent = format!("00-{TRACE}-{CALLER}-01");
        let from_caller = [("traceparent", parent.as_str())];
        server.chat_with(&prompt(RESET), &from_caller).await;
        server.chat(&prompt(RESET)).await;
        server.chat(&prompt(REWORDED)).await;
        server.get("/health/live").await;
        assert_eq!(upstream.calls(), 1);
        let handed_on = upstream.last().headers["traceparent"].clone();
        let log = stop(server).await;

        let sent = Sent::to(&collector);
        assert_eq!(collector.last().headers["x-collector-key"], SECRET);
        assert_eq!(sent.resource["service.name"], "askonce");
        let requests = sent.requests();
        let [missed, exact, similar] = requests[..] else {
            panic!("three requests and no probe: {:?}", sent.spans);
        };

        assert_eq!(hex(&missed.trace_id), TRACE);
        assert_eq!(hex(&missed.parent_span_id), CALLER);
        assert_eq!(missed.name, "POST /v1/chat/completions");
        let about = told(&missed.attributes);
        assert_eq!(about["http.request.method"], "POST");
        assert_eq!(about["http.route"], "/v1/chat/completions");
        assert_eq!(about["http.response.status_code"], "200");
        assert_eq!(about["askonce.cache"], "miss");
        assert_eq!(
            sent.names_below(missed),
            ["lookup", "chat gpt-4o-mini", "store"]
        );
        let lookup = sent.one_below(missed, "lookup");
        assert_eq!(
            sent.names_below(lookup),
            ["exact", "embed", "search", "decide"]
        );
        assert_eq!(told(&lookup.attributes)["askonce.reason"], "not_found");
        let store = sent.one_below(missed, "store");
        assert_eq!(told(&store.attributes)["askonce.outcome"], "stored");

        let call = sent.one_below(missed, "chat gpt-4o-mini");
        assert_eq!(call.kind, SpanKind::Client as i32);
        let expected = format!("00-{TRACE}-{}-01", hex(&call.span_id));
        assert_eq!(handed_on, expected.as_str());
        let about = told(&call.attributes);
        assert_eq!(about["gen_ai.operation.name"], "chat");
        assert_eq!(about["gen_ai.provider.name"], "openai");
        assert_eq!(about["gen_ai.request.model"], "gpt-4o-mini");
        assert_eq!(about["gen_ai.usage.input_tokens"], "1000");
        assert_eq!(about["gen_ai.usage.output_tokens"], "500");
        assert_eq!(about["http.response.status_code"], "200");
        assert_eq!(about["server.address"], "127.0.0.1");

        assert!(exact.parent_span_id.is_empty(), "the caller sent none");
        assert_ne!(exact.trace_id, missed.trace_id);
        assert_eq!(sent.names_below(exact), ["lookup"]);
        let lookup = sent.one_below(exact, "lookup");
        assert_eq!(sent.names_below(lookup), ["exact"]);
        let about = told(&lookup.attributes);
        assert_eq!(about["askonce.hit"], "exact");
        assert_eq!(about["askonce.tier"], "memory");

        let lookup = sent.one_below(similar, "lookup");
        assert_eq!(
            sent.names_below(lookup),
            ["exact", "embed", "search", "decide", "fetch"]
        );
        let about = told(&lookup.attributes);
        assert_eq!(about["askonce.hit"], "semantic");
        assert!(about["askonce.similarity"].parse::<f64>().unwrap() > 0.5);

        for span in &sent.spans {
            let shown = format!("{span:?}").to_lowercase();
            assert!(!shown.contains("password"), "{shown}");
            assert!(!shown.contains("forgotten"), "{shown}");
        }
        assert!(!log.contains(SECRET), "{log}");
    }

    #[tokio::test]
    async fn a_stream_and_a_failure_end_with_what_came_of_them() {
        let (upstream, collector) = (Upstream::start().await, collector().await);
        upstream.answer(|seen| match seen.body.windows(7).any(|at| at == b"refused") {
            true => {
                let mut refusal = json_response(&json!({ "error": { "message": "no" } }));
                *refusal.status_mut() = StatusCode::BAD_REQUEST;
                refusal
            }
            false => (
                [("content-type", "text/event-stream")],
                concat!(
                    "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",",
                    "\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"Hi\"},",
                    "\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n",
                ),
            )
                .into_response(),
        });
        let server = start(&upstream, &collector).start();
        let mut asked = prompt("Say hello in one word, please.");
        asked["stream"] = json!(true);
        server.chat(&asked).await;
        server.chat(&prompt("This one is refused.")).await;
        stop(server).await;

        let sent = Sent::to(&collector);
        let requests = sent.requests();
        let [streamed, refused] = requests[..] else {
            panic!("two requests: {:?}", sent.spans);
        };
        assert_eq!(
            sent.names_below(streamed),
            ["lookup", "chat gpt-4o-mini", "store"]
        );
        let call = sent.one_below(refused, "chat gpt-4o-mini");
        assert_eq!(told(&call.attributes)["http.response.status_code"], "400");
        let status = call.status.as_ref().expect("a status");
        assert_eq!(status.code, Coded::Error as i32);
        // A caller's own fault is no failure of this server.
        assert!(
            refused
                .status
                .as_ref()
                .is_none_or(|status| status.code == Coded::Unset as i32)
        );
    }

    #[tokio::test]
    async fn an_upstream_that_is_away_is_an_error_of_the_call_and_of_the_request() {
        let collector = collector().await;
        let server = Setup::upstream("http://127.0.0.1:9/v1")
            .set(&format!("traces.endpoint={}", base(&collector)))
            .start();
        let reply = server.chat(&prompt(RESET)).await;
        assert_eq!(reply.status, StatusCode::BAD_GATEWAY);
        stop(server).await;

        let sent = Sent::to(&collector);
        let request = sent.requests()[0];
        let call = sent.one_below(request, "chat gpt-4o-mini");
        assert_eq!(told(&call.attributes)["error.type"], "unreachable");
        for span in [request, call] {
            let status = span.status.as_ref().expect("a status");
            assert_eq!(status.code, Coded::Error as i32, "{}", span.name);
        }
    }

    #[tokio::test]
    async fn standard_variables_say_where_to_and_as_whom_and_how_many() {
        let (upstream, collector) = (Upstream::start().await, collector().await);
        let server = Setup::upstream(&upstream.url)
            .config("traces: {}")
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", base(&collector))
            .env("OTEL_SERVICE_NAME", "answers")
            .env("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
            .env("OTEL_TRACES_SAMPLER_ARG", "0")
            .start();
        server.chat(&prompt(RESET)).await;
        let parent = format!("00-{TRACE}-{CALLER}-01");
        let from_caller = [("traceparent", parent.as_str())];
        server.chat_with(&prompt(RESET), &from_caller).await;
        stop(server).await;

        let sent = Sent::to(&collector);
        assert_eq!(sent.resource["service.name"], "answers");
        let requests = sent.requests();
        assert_eq!(requests.len(), 1, "the caller decides before the ratio");
        assert_eq!(hex(&requests[0].trace_id), TRACE);
    }

    #[tokio::test]
    async fn a_collector_that_is_away_costs_no_answer() {
        let upstream = Upstream::start().await;
        let server = Setup::upstream(&upstream.url)
            .set("traces.endpoint=http://127.0.0.1:9")
            .start();
        let reply = server.chat(&prompt(RESET)).await;
        assert_eq!(reply.status, StatusCode::OK);
        stop(server).await;
    }
}
