//! The examples do what they show.

#![expect(
    dead_code,
    reason = "the `main` functions of the examples, and what only some of them use"
)]
#![allow(
    clippy::duplicate_mod,
    reason = "each example has the stand-in for a provider"
)]

#[path = "../../examples/agent.rs"]
mod agent;
#[path = "../../examples/cli.rs"]
mod cli;
#[path = "../../examples/gateway.rs"]
mod gateway;

#[tokio::test]
async fn a_gateway_answers_six_questions_with_two_calls() {
    let mut out = Vec::new();
    gateway::demonstrate(&mut out).await.unwrap();
    let out = String::from_utf8(out).unwrap();
    let lines: Vec<_> = out.lines().map(str::trim).collect();
    for (line, status) in [
        (1, "fwd=miss; stored"),
        (4, "detail=exact"),
        (7, "detail=semantic"),
        (10, "detail=exact"),
        (13, "fwd=miss; detail="),
        (16, "detail=exact"),
    ] {
        assert!(lines[line].contains(status), "{line}: {out}");
    }
    for line in [2, 5, 8, 11] {
        assert_eq!(lines[line], "Open Settings, then Security, then Reset.");
    }
    for line in [14, 17] {
        assert_eq!(lines[line], "The capital of France is Paris.");
    }
    assert_eq!(lines[18], "6 answers, 2 calls of the provider");
}

#[tokio::test]
async fn an_agent_that_runs_again_calls_nobody() {
    let mut out = Vec::new();
    agent::demonstrate(&mut out).await.unwrap();
    let out = String::from_utf8(out).unwrap();
    let lines: Vec<_> = out.lines().map(str::trim).collect();
    assert_eq!(lines[0], "first run");
    assert!(lines[1].contains("fwd=miss; stored"), "{out}");
    assert!(
        lines[2].contains("fwd=miss; stored; detail=tool_result_turn"),
        "{out}"
    );
    assert_eq!(lines[3], "The station reports -3 degrees and snow.");
    assert_eq!(lines[5], "second run");
    assert!(
        lines[6].contains("detail=exact") && lines[7].contains("detail=exact"),
        "{out}"
    );
    assert_eq!(lines[8], lines[3]);
    assert_eq!(
        (lines[4], lines[9]),
        ("2 calls of the provider so far", lines[4])
    );
}

#[tokio::test]
async fn a_command_line_asks_once() {
    let mut out = Vec::new();
    cli::demonstrate(&mut out).await.unwrap();
    let out = String::from_utf8(out).unwrap();
    let lines: Vec<_> = out.lines().map(str::trim).collect();
    assert_eq!(lines[2], "from the model (not_found)");
    assert!(lines[5].starts_with("from a question 0.9"), "{out}");
    assert_eq!(lines[11], "from the same question");
    let saved: f64 = lines[12].strip_prefix("saved: $").unwrap().parse().unwrap();
    assert!(saved > 0.0, "{out}");
    assert_eq!(lines[13], "4 answers, 2 calls of the provider");
}
