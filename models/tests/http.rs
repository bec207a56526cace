//! The HTTP embedder against a local server that answers rightly, wrongly, late or not at all.

use std::time::Duration;

use askonce_models::http::{Api, Encoding};
use askonce_models::{Embedder, HttpConfig, HttpEmbedder, ModelError};
use serde_json::{Value, json};
use wiremock::matchers::{body_partial_json, header, method, path};
use wiremock::{Mock, MockServer, Request, ResponseTemplate};

/// A server whose vectors tell which text they belong to: (length of the text, 1).
async fn server() -> MockServer {
    let server = MockServer::start().await;
    Mock::given(method("POST"))
        .and(path("/v1/embeddings"))
        .respond_with(|request: &Request| good(request))
        .mount(&server)
        .await;
    server
}

fn good(request: &Request) -> ResponseTemplate {
    let body: Value = request.body_json().unwrap();
    let texts = body["input"].as_array().unwrap();
    let rows: Vec<_> = texts
        .iter()
        .enumerate()
        .rev() // in an order of its own
        .map(|(index, text)| row(index, &[text.as_str().unwrap().len() as f32, 1.0]))
        .collect();
    ResponseTemplate::new(200).set_body_json(json!({ "object": "list", "data": rows }))
}

fn row(index: usize, values: &[f32]) -> Value {
    json!({ "object": "embedding", "index": index, "embedding": values })
}

fn config(server: &MockServer) -> HttpConfig {
    HttpConfig {
        timeout: Duration::from_secs(5),
        ..HttpConfig::new(format!("{}/v1", server.uri()), "test-model")
    }
}

async fn answering(rows: Value) -> (MockServer, HttpEmbedder) {
    let server = MockServer::start().await;
    Mock::given(method("POST"))
        .respond_with(ResponseTemplate::new(200).set_body_json(json!({ "data": rows })))
        .mount(&server)
        .await;
    let embedder = HttpEmbedder::new(config(&server)).unwrap();
    (server, embedder)
}

/// A server that fails `times` times with `failure` and answers rightly from then on.
async fn failing(times: u64, failure: ResponseTemplate) -> MockServer {
    let server = server().await;
    Mock::given(method("POST"))
        .respond_with(failure)
        .up_to_n_times(times)
        .with_priority(1)
        .mount(&server)
        .await;
    server
}

async fn requests(server: &MockServer) -> usize {
    server.received_requests().await.unwrap().len()
}

#[tokio::test]
async fn rows_come_back_in_the_order_of_the_texts_and_of_unit_length() {
    let server = server().await;
    let embedder = HttpEmbedder::new(config(&server)).unwrap();
    assert_eq!(embedder.dimension(), 0);

    let rows = embedder.embed(&["a", "abc"]).await.unwrap();
    assert_eq!(embedder.dimension(), 2);
    let half = 0.5f32.sqrt();
    let tenth = 0.1f32.sqrt();
    for (found, wanted) in rows.iter().zip([half, half, 3.0 * tenth, tenth]) {
        assert!((found - wanted).abs() < 1e-6, "{rows:?}");
    }
    assert_eq!(rows.len(), 4);
}

#[tokio::test]
async fn many_texts_go_out_in_batches() {
    let server = server().await;
    let config = HttpConfig {
        batch_size: 2,
        ..config(&server)
    };
    let embedder = HttpEmbedder::new(config).unwrap();
    let rows = embedder
        .embed(&["a", "ab", "abc", "abcd", "abcde"])
        .await
        .unwrap();
    assert_eq!(requests(&server).await, 3);
    let slopes: Vec<_> = rows
        .chunks(2)
        .map(|row| (row[0] / row[1]).round())
        .collect();
    assert_eq!(slopes, [1.0, 2.0, 3.0, 4.0, 5.0]);
}

#[tokio::test]
async fn no_texts_and_blank_texts_are_not_sent() {
    let server = server().await;
    let embedder = HttpEmbedder::new(config(&server)).unwrap();
    assert!(embedder.embed(&[]).await.unwrap().is_empty());
    let blank = embedder.embed(&["a", " \n"]).await;
    assert!(matches!(
        blank,
        Err(ModelError::NoTokens { position: 1, .. })
    ));
    assert_eq!(requests(&server).await, 0);
}

#[tokio::test]
async fn the_request_says_what_is_configured() {
    let server = MockServer::start().await;
    Mock::given(header("authorization", "Bearer sk-local-test"))
        .and(body_partial_json(json!({
            "model": "test-model",
            "input": ["a"],
            "encoding_format": "base64",
            "dimensions": 2,
        })))
        .respond_with(ResponseTemplate::new(200).set_body_json(json!({
            "data": [{ "index": 0, "embedding": "AABAQAAAgEA=" }], // 3, 4
        })))
        .mount(&server)
        .await;
    let config = HttpConfig {
        dimension: Some(2),
        request_dimension: true,
        encoding: Encoding::Base64,
        ..config(&server)
    };
    let embedder = HttpEmbedder::with_key(config, "sk-local-test\n").unwrap();
    assert_eq!(embedder.embed(&["a"]).await.unwrap(), [0.6, 0.8]);
}

#[tokio::test]
async fn text_embeddings_inference_is_spoken() {
    let server = MockServer::start().await;
    Mock::given(method("POST"))
        .and(path("/embed"))
        .and(body_partial_json(
            json!({ "inputs": ["a", "abc"], "truncate": false }),
        ))
        .respond_with(ResponseTemplate::new(200).set_body_json(json!([[3.0, 4.0], [0.0, 2.0]])))
        .mount(&server)
        .await;
    let config = HttpConfig {
        api: Api::Tei,
        ..HttpConfig::new(server.uri(), "bge-small")
    };
    let embedder = HttpEmbedder::new(config).unwrap();
    let rows = embedder.embed(&["a", "abc"]).await.unwrap();
    assert_eq!(rows, [0.6, 0.8, 0.0, 1.0]);

    let long = failing(
        1,
        ResponseTemplate::new(413).set_body_json(json!({
            "error": "Input validation error: `inputs` must have less than 512 tokens",
            "error_type": "Validation",
        })),
    )
    .await;
    let config = HttpConfig {
        api: Api::Tei,
        ..HttpConfig::new(long.uri(), "bge-small")
    };
    let error = HttpEmbedder::new(config).unwrap().embed(&["a"]).await;
    assert_eq!(
        error.unwrap_err().to_string(),
        "the embedding provider answered 413 (validation)"
    );
}

#[tokio::test]
async fn ollama_is_spoken() {
    let server = MockServer::start().await;
    Mock::given(method("POST"))
        .and(path("/api/embed"))
        .and(body_partial_json(json!({
            "model": "all-minilm",
            "input": ["a"],
            "truncate": false,
            "dimensions": 2,
        })))
        .respond_with(ResponseTemplate::new(200).set_body_json(json!({
            "model": "all-minilm",
            "embeddings": [[3.0, 4.0]],
            "total_duration": 14_143_917,
        })))
        .mount(&server)
        .await;
    let config = HttpConfig {
        api: Api::Ollama,
        dimension: Some(2),
        request_dimension: true,
        ..HttpConfig::new(server.uri(), "all-minilm")
    };
    let embedder = HttpEmbedder::new(config).unwrap();
    assert_eq!(embedder.embed(&["a"]).await.unwrap(), [0.6, 0.8]);
}

#[tokio::test]
async fn protocols_refuse_answers_to_something_else() {
    for (api, body) in [
        (Api::Tei, json!([])),
        (Api::Tei, json!([[1.0], [1.0]])),
        (Api::Tei, json!({ "data": [row(0, &[1.0])] })),
        (Api::Tei, json!([["x"]])),
        (Api::Ollama, json!([[1.0]])),
        (Api::Ollama, json!({ "embeddings": [] })),
        (Api::Ollama, json!({ "embedding": [1.0] })),
    ] {
        let server = MockServer::start().await;
        Mock::given(method("POST"))
            .respond_with(ResponseTemplate::new(200).set_body_json(&body))
            .mount(&server)
            .await;
        let config = HttpConfig {
            api,
            ..HttpConfig::new(server.uri(), "m")
        };
        let error = HttpEmbedder::new(config).unwrap().embed(&["a"]).await;
        assert!(
            matches!(error, Err(ModelError::BadReply { .. })),
            "{body}: {error:?}"
        );
    }
}

#[tokio::test]
async fn what_may_pass_is_tried_again() {
    for status in [408, 429, 500, 503] {
        let server = failing(2, ResponseTemplate::new(status)).await;
        let embedder = HttpEmbedder::new(config(&server)).unwrap();
        embedder.embed(&["a"]).await.unwrap();
        assert_eq!(requests(&server).await, 3, "{status}");
    }
}

#[tokio::test]
async fn what_will_not_pass_is_not() {
    for status in [301, 400, 401, 404, 413] {
        let server = failing(1, ResponseTemplate::new(status)).await;
        let embedder = HttpEmbedder::new(config(&server)).unwrap();
        match embedder.embed(&["a"]).await {
            Err(ModelError::Http { status: found, .. }) => assert_eq!(found, status),
            other => panic!("{status}: {other:?}"),
        }
        assert_eq!(requests(&server).await, 1, "{status}");
    }
}

#[tokio::test]
async fn attempts_end_with_the_retries() {
    let server = failing(u64::MAX, ResponseTemplate::new(503)).await;
    let config = HttpConfig {
        retries: 1,
        ..config(&server)
    };
    let error = HttpEmbedder::new(config)
        .unwrap()
        .embed(&["a"])
        .await
        .unwrap_err();
    assert!(matches!(error, ModelError::Http { status: 503, .. }));
    assert!(error.is_retryable());
    assert_eq!(requests(&server).await, 2);
}

#[tokio::test]
async fn a_wait_that_the_server_asks_for_is_kept() {
    let busy = ResponseTemplate::new(429).insert_header("retry-after", "1");
    let server = failing(1, busy).await;
    let embedder = HttpEmbedder::new(config(&server)).unwrap();
    let start = std::time::Instant::now();
    embedder.embed(&["a"]).await.unwrap();
    assert!(start.elapsed() >= Duration::from_secs(1));
    assert_eq!(requests(&server).await, 2);
}

#[tokio::test]
async fn a_wait_that_is_too_long_is_handed_to_the_caller() {
    let busy = ResponseTemplate::new(429).insert_header("retry-after", "3600");
    let server = failing(1, busy).await;
    let embedder = HttpEmbedder::new(config(&server)).unwrap();
    match embedder.embed(&["a"]).await {
        Err(ModelError::Http {
            status: 429,
            retry_after,
            ..
        }) => {
            assert_eq!(retry_after, Some(Duration::from_secs(3600)));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(requests(&server).await, 1);
}

#[tokio::test]
async fn a_late_answer_is_a_timeout() {
    let late = ResponseTemplate::new(200).set_delay(Duration::from_secs(60));
    let server = failing(u64::MAX, late).await;
    let timeout = Duration::from_millis(50);
    let config = HttpConfig {
        timeout,
        retries: 1,
        ..config(&server)
    };
    let error = HttpEmbedder::new(config)
        .unwrap()
        .embed(&["a"])
        .await
        .unwrap_err();
    assert!(
        matches!(error, ModelError::Timeout { after } if after == timeout),
        "{error:?}"
    );
    assert_eq!(requests(&server).await, 2);
}

#[tokio::test]
async fn a_server_that_is_not_there_is_unreachable() {
    // Bound and dropped, so that nobody listens there.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let base = format!("http://127.0.0.1:{port}/v1");
    let config = HttpConfig {
        retries: 1,
        ..HttpConfig::new(base, "m")
    };
    let error = HttpEmbedder::new(config)
        .unwrap()
        .embed(&["a"])
        .await
        .unwrap_err();
    assert!(matches!(error, ModelError::Unreachable { .. }), "{error:?}");
}

#[tokio::test]
async fn another_dimension_than_before_is_refused() {
    let server = failing(
        1,
        ResponseTemplate::new(200).set_body_json(json!({ "data": [row(0, &[1.0, 2.0, 3.0])] })),
    )
    .await;
    let embedder = HttpEmbedder::new(config(&server)).unwrap();
    assert_eq!(embedder.probe().await.unwrap(), 3);
    let error = embedder.embed(&["a"]).await.unwrap_err();
    assert!(
        matches!(
            error,
            ModelError::WrongDimension {
                expected: 3,
                found: 2,
                ..
            }
        ),
        "{error:?}"
    );
}

#[tokio::test]
async fn another_dimension_than_configured_is_refused() {
    let server = server().await;
    let config = HttpConfig {
        dimension: Some(3),
        ..config(&server)
    };
    let embedder = HttpEmbedder::new(config).unwrap();
    assert_eq!(embedder.dimension(), 3);
    let error = embedder.probe().await.unwrap_err();
    assert!(
        matches!(
            error,
            ModelError::WrongDimension {
                expected: 3,
                found: 2,
                ..
            }
        ),
        "{error:?}"
    );
}

#[tokio::test]
async fn rows_without_a_direction_are_refused_and_teach_no_dimension() {
    let (_server, embedder) = answering(json!([row(0, &[1.0]), row(1, &[0.0])])).await;
    let error = embedder.embed(&["a", "b"]).await.unwrap_err();
    assert!(
        matches!(error, ModelError::ZeroVector { position: 1, .. }),
        "{error:?}"
    );
    assert_eq!(embedder.dimension(), 0);

    let huge = json!([{ "index": 0, "embedding": [1e300, 1.0] }]);
    let (_server, embedder) = answering(huge).await;
    let error = embedder.embed(&["a"]).await.unwrap_err();
    assert!(
        matches!(error, ModelError::NotFinite { position: 0, .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn answers_to_something_else_are_refused() {
    for data in [
        json!([]),
        json!([row(0, &[1.0])]),
        json!([row(0, &[1.0]), row(0, &[1.0])]),
        json!([row(0, &[1.0]), row(2, &[1.0])]),
        json!([row(0, &[1.0]), row(1, &[1.0]), row(2, &[1.0])]),
        json!([row(0, &[1.0]), { "index": 1, "embedding": [null] }]),
        json!([row(0, &[1.0]), { "index": 1, "embedding": "AAA" }]),
        json!([row(0, &[1.0]), { "index": 1, "embedding": "AAAA" }]),
        json!("no"),
    ] {
        let (server, embedder) = answering(data.clone()).await;
        let error = embedder.embed(&["a", "b"]).await.unwrap_err();
        assert!(
            matches!(error, ModelError::BadReply { .. }),
            "{data}: {error:?}"
        );
        assert_eq!(requests(&server).await, 1, "{data}");
    }
}

#[tokio::test]
async fn keys_and_texts_stay_out_of_errors_and_debug() {
    let (key, text) = ("sk-very-secret", "a private prompt");
    let echo = ResponseTemplate::new(401).set_body_json(json!({
        "error": { "code": "invalid_api_key", "message": format!("{key} may not ask {text}") }
    }));
    let server = failing(1, echo).await;
    let embedder = HttpEmbedder::with_key(config(&server), key).unwrap();
    let error = embedder.embed(&[text]).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the embedding provider answered 401 (invalid_api_key)"
    );
    let garbled = failing(1, ResponseTemplate::new(200).set_body_string(text)).await;
    let other = HttpEmbedder::with_key(config(&garbled), key).unwrap();
    let reply = other.embed(&[text]).await.unwrap_err();
    for shown in [
        format!("{error:?}"),
        format!("{reply:?} {reply}"),
        format!("{embedder:?}"),
        format!(
            "{:?}",
            HttpEmbedder::with_key(config(&server), "zebra\nkey").unwrap_err()
        ),
    ] {
        for secret in [key, text, "zebra"] {
            assert!(!shown.contains(secret), "{shown}");
        }
    }
}
