//! Behind something that has let the caller in, and that passes answers on as a whole.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use axum::Extension;
use reqwest::{Response, StatusCode};
use serde_json::Value;
use sheaf_api::{Api, ApiError, Code, wire::CreateJob};
use sheaf_core::{Seal, limits};
use sheaf_http::{Access, Buffered, HAVE_HEADER, refusal, router, serve};
use tokio::{net::TcpListener, task::JoinHandle, time::Instant};

use crate::{
    fake::Fake,
    round_trips::{chunk, job_id},
};

struct Behind {
    url: String,
    fake: Arc<Fake>,
    running: JoinHandle<()>,
}

impl Drop for Behind {
    fn drop(&mut self) {
        self.running.abort();
    }
}

impl Behind {
    async fn start(answer_ms: u64, lines_bytes_max: usize) -> Self {
        let fake = Arc::new(Fake::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let buffered = Buffered { answer_by: Instant::now() + Duration::from_millis(answer_ms), lines_bytes_max };
        let router = router(Arc::clone(&fake), Access::Authenticated).layer(Extension(buffered));
        let running = tokio::spawn(async move { serve(listener, router, std::future::pending()).await.unwrap() });
        Self { url, fake, running }
    }

    async fn get(&self, path: &str) -> Response {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        client.get(format!("{}{path}", self.url)).header("host", "api.example").send().await.unwrap()
    }
}

#[tokio::test]
async fn nothing_is_asked_of_a_caller_that_was_let_in_before() {
    let behind = Behind::start(60_000, usize::MAX).await;
    assert_eq!(behind.get("/v1/grid").await.status(), StatusCode::OK);
    assert_eq!(behind.get("/v1/nowhere").await.status(), StatusCode::NOT_FOUND);
    let refused = refusal(ApiError::new(Code::TooLarge, "too much"));
    assert_eq!(
        (refused.status(), &refused.headers()["content-type"]),
        (StatusCode::PAYLOAD_TOO_LARGE, &"application/json".parse().unwrap())
    );
}

#[tokio::test]
async fn a_long_poll_ends_in_time() {
    let behind = Behind::start(300, usize::MAX).await;
    let job = job_id(1);
    behind.fake.create_job(CreateJob::new(job, vec!["echo".into()])).await.unwrap();
    let started = Instant::now();
    for path in ["progress?seen=0&wait_ms=20000", "results?wait_ms=20000"] {
        assert_eq!(behind.get(&format!("/v1/jobs/{job}/{path}")).await.status(), StatusCode::OK);
    }
    assert!(started.elapsed() < Duration::from_millis(limits::LONG_POLL_MS_MAX));
}

#[tokio::test]
async fn lines_stop_behind_a_chunk_and_say_how_to_read_on() {
    let behind = Behind::start(60_000, 2_000).await;
    let job = job_id(1);
    behind.fake.create_job(CreateJob::new(job, vec!["echo".into()])).await.unwrap();
    for number in 0..100 {
        behind.fake.submit(job, vec![chunk(number, &["1", "2", "3"])]).await.unwrap();
    }
    behind.fake.seal(job, Seal { chunks: 100, tasks: 300 }).await.unwrap();
    let (mut have, mut answers, mut seen) = (String::new(), 0, BTreeSet::new());
    loop {
        let answer = behind.get(&format!("/v1/jobs/{job}/results.ndjson?have={have}")).await;
        assert_eq!(answer.status(), StatusCode::OK);
        let next = answer.headers().get(HAVE_HEADER).map(|have| have.to_str().unwrap().to_owned());
        let text = answer.text().await.unwrap();
        assert!(text.len() < 3_000, "a chunk over the bound: {}", text.len());
        for line in text.lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            assert!(seen.insert(line["task"].as_str().unwrap().to_owned()), "{line} came twice");
        }
        answers += 1;
        match next {
            Some(next) => have = next,
            None => break,
        }
    }
    assert_eq!(seen.len(), 300);
    assert!(answers > 3, "{answers} answers");
    let follow = behind.get(&format!("/v1/jobs/{job}/results.ndjson?follow=true")).await;
    assert_eq!(follow.status(), StatusCode::BAD_REQUEST);
}

/// Whoever reads on gets on, however little time there is.
#[tokio::test]
async fn at_least_one_chunk_is_given() {
    let behind = Behind::start(0, 1).await;
    let job = job_id(1);
    behind.fake.create_job(CreateJob::new(job, vec!["echo".into()])).await.unwrap();
    behind.fake.submit(job, vec![chunk(0, &["1", "2"]), chunk(1, &["3"])]).await.unwrap();
    let answer = behind.get(&format!("/v1/jobs/{job}/results.ndjson")).await;
    assert!(answer.headers().contains_key(HAVE_HEADER));
    assert_eq!(answer.text().await.unwrap().lines().count(), 2);
}
