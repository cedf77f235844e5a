//! Events in, answers out.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sheaf::{
    Code, JobId,
    api::{ApiError, wire::CreateJob},
};
use sheaf_core::{Seal, limits};

use crate::{
    gateway::{body, grid, http, v2},
    store::Memory,
};

const REMAINING_MS: u64 = 29_000;

fn post(path: &str, text: &str) -> Value {
    let mut event = v2("POST", path, "");
    event["headers"] = json!({ "content-type": "application/json", "content-length": "1" });
    event["body"] = text.into();
    event
}

fn error(answer: &Value) -> ApiError {
    let error: ApiError = serde_json::from_slice(&body(answer)).unwrap();
    assert_eq!(answer["headers"]["content-type"], "application/json");
    error
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_requests_and_answers_are_replies() {
    let grid = grid().await;
    let http = http(&grid, Memory::default());
    let id = JobId::from_bytes([1; 16]);
    let create = serde_json::to_string(&CreateJob::new(id, vec!["echo".into()])).unwrap();
    let answer = http.answer(post("/v1/jobs", &create), REMAINING_MS).await;
    assert_eq!((&answer["statusCode"], &answer["isBase64Encoded"]), (&json!(200), &json!(false)), "{answer}");
    // The same in base64, as bodies that are no text come.
    let mut encoded = post("/v1/jobs", "");
    encoded["isBase64Encoded"] = true.into();
    encoded["body"] = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &create).into();
    assert_eq!(body(&http.answer(encoded, REMAINING_MS).await), body(&answer));

    let lines = http.answer(post(&format!("/v1/jobs/{id}/tasks"), "1\n\"two\"\n"), REMAINING_MS).await;
    assert_eq!(lines["statusCode"], 200, "{lines}");
    let seal = serde_json::to_string(&Seal { chunks: 1, tasks: 2 }).unwrap();
    http.answer(post(&format!("/v1/jobs/{id}/seal"), &seal), REMAINING_MS).await;
    let wait = v2("GET", &format!("/v1/jobs/{id}/progress"), "seen=0&wait_ms=20000");
    assert_eq!(http.answer(wait, REMAINING_MS).await["statusCode"], 200);
    // Frames are no text.
    let page = http.answer(v2("GET", &format!("/v1/jobs/{id}/results"), "chunks_max=9"), REMAINING_MS).await;
    assert_eq!((&page["statusCode"], &page["isBase64Encoded"]), (&json!(200), &json!(true)));
    assert_eq!(sheaf::api::stream::decode_results(body(&page)).unwrap().chunks.len(), 1);
    let path = format!("/v1/jobs/{id}/results.ndjson");
    let lines = http.answer(v2("GET", &path, "with_keys=false"), REMAINING_MS).await;
    assert_eq!(String::from_utf8(body(&lines).to_vec()).unwrap().lines().count(), 2);
    assert!(lines["headers"].get(sheaf_http::HAVE_HEADER).is_none(), "that is all of it");
    let follow = http.answer(v2("GET", &path, "follow=true"), REMAINING_MS).await;
    assert_eq!((error(&follow).code, &follow["statusCode"]), (Code::Invalid, &json!(400)));

    let missing = http.answer(v2("GET", "/v1/nowhere", ""), REMAINING_MS).await;
    assert_eq!((error(&missing).code, &missing["statusCode"]), (Code::NotFound, &json!(404)));
    grid.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_named_stage_is_not_part_of_the_path() {
    let grid = grid().await;
    let http = http(&grid, Memory::default());
    for (stage, path, status) in [
        ("prod", "/prod/v1/grid", 200),
        ("$default", "/v1/grid", 200),
        ("v1", "/v1/v1/grid", 200),
        ("prod", "/v1/grid", 200),
        ("pro", "/prod/v1/grid", 404),
    ] {
        let mut event = v2("GET", path, "");
        event["requestContext"]["stage"] = stage.into();
        assert_eq!(http.answer(event, REMAINING_MS).await["statusCode"], status, "{stage} {path}");
    }
    grid.close().await;
}

/// A function that dies by an event would be started again for each of its repetitions.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_request_is_refused() {
    let grid = grid().await;
    let http = http(&grid, Memory::default());
    let with = |pointer: &str, value: Value| {
        let mut event = post("/v1/jobs", "{}");
        *event.pointer_mut(pointer).unwrap() = value;
        event
    };
    let events = [
        json!(null),
        json!({}),
        json!([1]),
        with("/requestContext/http/method", json!("G ET")),
        with("/requestContext/http", json!(null)),
        with("/headers", json!({ "a b": "c" })),
        with("/headers", json!({ "a": "b\nc" })),
        with("/headers", json!([])),
        with("/rawPath", json!("no path")),
        with("/rawPath", json!("\u{0}")),
        with("/rawPath", json!("http://else.where")),
        with("/rawPath", json!(null)),
        with("/rawQueryString", json!("a b\n")),
        with("/isBase64Encoded", json!(true)),
        with("/body", json!(7)),
    ];
    for event in events {
        let answer = http.answer(event.clone(), REMAINING_MS).await;
        let status = answer["statusCode"].as_u64().unwrap();
        assert!((400..500).contains(&status), "{status} for {event}");
        error(&answer);
    }
    grid.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_poll_ends_before_the_function_does() {
    let grid = grid().await;
    let http = http(&grid, Memory::default());
    let id = JobId::from_bytes([1; 16]);
    let create = serde_json::to_string(&CreateJob::new(id, vec!["echo".into()])).unwrap();
    http.answer(post("/v1/jobs", &create), REMAINING_MS).await;
    let started = Instant::now();
    for (path, query) in [("progress", "seen=0&wait_ms=20000"), ("results", "wait_ms=20000")] {
        let answer = http.answer(v2("GET", &format!("/v1/jobs/{id}/{path}"), query), 5_200).await;
        assert_eq!(answer["statusCode"], 200, "{answer}");
    }
    assert!(started.elapsed() < Duration::from_millis(limits::LONG_POLL_MS_MAX), "{:?}", started.elapsed());
    grid.close().await;
}
