//! Tasks and results as lines, the way of people with curl.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use sheaf_api::{
    Api, Code,
    wire::{CreateJob, SubmitReply},
};
use sheaf_core::Seal;

use crate::{
    round_trips::{chunk, job_id},
    server::{Server, refusal},
};

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn lines_in_and_lines_out() {
    let server = Server::start().await;
    let job = job_id(1);
    server.fake.create_job(CreateJob::new(job, vec!["echo".into()])).await.unwrap();
    let path = format!("/v1/jobs/{job}/tasks?chunk=3&task_first=40");
    let body = "{\"a\": 1}\n\n  \"text\"\r\n\"fail\"";
    for answer in ["accepted", "exists"] {
        let reply = server.request(Method::POST, &path).body(body).send().await.unwrap().bytes().await.unwrap();
        let value: Value = serde_json::from_slice(&reply).unwrap();
        assert_eq!(value["answers"], json!([{ "answer": answer }]));
        serde_json::from_slice::<SubmitReply>(&reply).unwrap();
    }
    let (status, error) = refusal(server.request(Method::POST, &path).body("1")).await;
    assert_eq!((status, error.code), (409, Code::Conflict));

    let answer = server.request(Method::GET, &format!("/v1/jobs/{job}/results.ndjson")).send().await.unwrap();
    assert_eq!(answer.headers()["content-type"], "application/x-ndjson");
    let lines = lines(&answer.text().await.unwrap());
    assert_eq!(
        lines[..2],
        [
            json!({ "task": format!("{job}/3/0"), "index": 40, "outcome": "succeeded", "result": { "a": 1 } }),
            json!({ "task": format!("{job}/3/1"), "index": 41, "outcome": "succeeded", "result": "text" }),
        ]
    );
    assert_eq!((&lines[2]["outcome"], &lines[2]["failure"]["message"]), (&json!("failed"), &json!("told to")));
    server.stopped().await;
}

#[tokio::test]
async fn every_kind_of_result() {
    let server = Server::start().await;
    let job = job_id(1);
    server.fake.create_job(CreateJob::new(job, vec!["echo".into()])).await.unwrap();
    let mut pack = sheaf_api::PackBuilder::new();
    for payload in [&b"{\n \"big\":\r\n 123456789012345678901 }\n"[..], b"plain\ntext", b"\xff\0", b""] {
        pack.push_task(payload, 0, "key").unwrap();
    }
    let chunk = sheaf_api::wire::SubmitChunk { number: 0, task_first: 0, pack: pack.finish(false) };
    server.fake.submit(job, vec![chunk]).await.unwrap();
    let path = format!("/v1/jobs/{job}/results.ndjson?with_keys=true");
    let text = server.request(Method::GET, &path).send().await.unwrap().text().await.unwrap();
    assert!(text.contains("123456789012345678901"), "numbers are not changed");
    let lines = lines(&text);
    assert_eq!(lines.len(), 4);
    assert!(lines.iter().all(|line| line["key"] == "key"));
    assert_eq!(lines[1]["result_text"], "plain\ntext");
    assert_eq!(lines[2]["result_base64"], "/wA=");
    assert_eq!(lines[3]["result_text"], "");
    server.stopped().await;
}

#[tokio::test]
async fn bad_lines_are_numbered() {
    let server = Server::start().await;
    let path = format!("/v1/jobs/{}/tasks", job_id(1));
    let (_, error) = refusal(server.request(Method::POST, &path).body("1\n\nnope\n")).await;
    assert!(error.message.starts_with("line 3 is not JSON"), "{}", error.message);
    let (_, error) = refusal(server.request(Method::POST, &path).body("\n")).await;
    assert_eq!(error.code, Code::Invalid);
    let long = format!("1\n\"{}\"", "x".repeat(sheaf_core::limits::TASK_BYTES_MAX));
    let (_, error) = refusal(server.request(Method::POST, &path).body(long)).await;
    assert_eq!(error.code, Code::TooLarge);
    assert!(error.message.starts_with("line 2: payload bytes"), "{}", error.message);
    server.stopped().await;
}

#[tokio::test]
async fn many_pages_and_following() {
    let server = Server::start().await;
    let (fake, job) = (&server.fake, job_id(1));
    let path = |more: &str| format!("/v1/jobs/{job}/results.ndjson{more}");
    assert_eq!(refusal(server.request(Method::GET, &path("?follow=true"))).await.1.code, Code::NotFound);
    fake.create_job(CreateJob::new(job, vec!["echo".into()])).await.unwrap();
    for number in 0..100 {
        fake.submit(job, vec![chunk(number, &["1"; 50])]).await.unwrap();
    }
    let now = server.request(Method::GET, &path("")).send().await.unwrap().text().await.unwrap();
    assert_eq!(lines(&now).len(), 5_000);
    let following = tokio::spawn(server.request(Method::GET, &path("?follow=true")).send());
    tokio::time::sleep(Duration::from_millis(100)).await;
    fake.submit(job, vec![chunk(100, &["2"])]).await.unwrap();
    fake.seal(job, Seal { chunks: 101, tasks: 5_001 }).await.unwrap();
    let all = following.await.unwrap().unwrap().text().await.unwrap();
    assert_eq!(lines(&all).len(), 5_001);
    server.stopped().await;
}
