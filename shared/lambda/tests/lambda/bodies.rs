//! Bodies by reference.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use rand::RngExt;
use serde_json::{Value, json};
use sheaf::{Code, Function, api::ApiError};
use sheaf_aws::{AwsBodies, Taken, loopback};
use sheaf_lambda::{BINARY_BYTES_MAX, BODY_HEADER, BODY_URL_HEADER, Bodies};

use crate::{
    gateway::{Gateway, body, grid, http, v2},
    store::Memory,
};

const REMAINING_MS: u64 = 29_000;

/// Payloads of which each is larger than what a Lambda takes, and that do not compress.
fn payloads() -> Vec<Bytes> {
    let mut rng = rand::rng();
    (0..3).map(|_| Bytes::from((0..5_000_000).map(|_| rng.random()).collect::<Vec<u8>>())).collect()
}

/// Submits payloads through an HTTP API and reads what comes back.
async fn echoed(url: &str, payloads: &[Bytes]) {
    let client = sheaf::builder().grid(url).connect().await.unwrap();
    let echo = Function::<Bytes, Bytes>::raw("echo");
    let map = client.job("large").chunk_tasks(1).map(&echo, payloads.to_vec());
    let mut results = map.start().await.unwrap().in_order();
    for payload in payloads {
        let result = results.next().await.unwrap().unwrap();
        assert!(result.outcome.unwrap() == payload, "task {} came back as another", result.index);
    }
    assert!(results.next().await.is_none());
    client.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_goes_through_the_bucket() {
    let (grid, memory) = (grid().await, Memory::default());
    let gateway = Gateway::start(http(&grid, memory.clone()), memory.clone()).await;
    echoed(&gateway.url, &payloads()).await;
    let (taken, given) = (memory.taken.load(Ordering::SeqCst), memory.given.load(Ordering::SeqCst));
    assert!(taken > 0 && given > 0, "{taken} requests and {given} answers");
    // What fits does not.
    let before = (taken, given);
    echoed(&gateway.url, &[Bytes::from_static(b"small")]).await;
    assert_eq!((memory.taken.load(Ordering::SeqCst), memory.given.load(Ordering::SeqCst)), before);
    grid.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bucket_may_be_one_of_s3() {
    let (config, settings) = match loopback::fresh_account().await {
        Ok(account) => account,
        Err(reason) => return loopback::skipped(reason),
    };
    loopback::ports(&config, &settings).await;
    let bodies = AwsBodies::new(&config, &settings.bucket);
    let grid = grid().await;
    let gateway = Gateway::start(http(&grid, bodies.clone()), Memory::default()).await;
    echoed(&gateway.url, &payloads()).await;

    let name = "u/default/5f1d7a84-0c3e-4f5e-9a3a-3d6b1c0a9e11";
    assert_eq!(bodies.take(name, 10).await.unwrap(), Taken::Absent);
    bodies.give(name, Bytes::from_static(b"0123456789")).await.unwrap();
    assert_eq!(bodies.take(name, 10).await.unwrap(), Taken::Body(Bytes::from_static(b"0123456789")));
    assert_eq!(bodies.take(name, 9).await.unwrap(), Taken::TooLarge { bytes: 10 });
    let url = bodies.download_url(name).await.unwrap();
    assert!(url.contains("X-Amz-Expires=900") && url.contains("X-Amz-Signature="), "{url}");
    grid.close().await;
}

async fn new_body(http: &sheaf_lambda::Http<Memory>) -> (String, String) {
    let answer = http.answer(v2("POST", "/v1/bodies", ""), REMAINING_MS).await;
    assert_eq!(answer["statusCode"], 200, "{answer}");
    let place: Value = serde_json::from_slice(&body(&answer)).unwrap();
    (place["name"].as_str().unwrap().to_owned(), place["url"].as_str().unwrap().to_owned())
}

fn by_name(name: &str) -> Value {
    let mut event = v2("POST", "/v1/jobs", "");
    event["headers"] = json!({ BODY_HEADER: name });
    event
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_leads_only_to_bodies_of_the_tenant() {
    let (grid, memory) = (grid().await, Memory::default());
    let http = http(&grid, memory.clone());
    let (name, url) = new_body(&http).await;
    assert!(name.starts_with("u/default/") && url.contains(&name));
    let code = async |event: Value| {
        let answer = http.answer(event, REMAINING_MS).await;
        serde_json::from_slice::<ApiError>(&body(&answer)).unwrap().code
    };
    let id = name.strip_prefix("u/default/").unwrap();
    let foreign = [
        String::new(),
        "u/".to_owned(),
        "u/default/".to_owned(),
        format!("u/other/{id}"),
        format!("r/default/{id}"),
        format!("/u/default/{id}"),
        format!("u/default/../default/{id}"),
        format!("u/default/{id}/x"),
        format!("u/default/x{id}"),
        format!("u/default/{}", id.to_uppercase()),
        format!("u/default/{}", id.replace('-', "")),
        format!("u/default/{{{id}}}"),
    ];
    for name in foreign {
        memory.bodies.lock().unwrap().insert(name.clone(), Bytes::from_static(b"{}"));
        assert_eq!(code(by_name(&name)).await, Code::Invalid, "{name:?}");
    }
    assert_eq!(memory.taken.load(Ordering::SeqCst), 0, "none was looked at");
    assert_eq!(code(by_name(&name)).await, Code::NotFound);
    memory.bodies.lock().unwrap().insert(name.clone(), Bytes::from_static(b"HUGE"));
    assert_eq!(code(by_name(&name)).await, Code::TooLarge);
    let mut both = by_name(&name);
    both["body"] = "{}".into();
    assert_eq!(code(both).await, Code::Invalid);
    let job = serde_json::to_vec(&sheaf::wire::CreateJob::new(sheaf::JobId::from_bytes([1; 16]), vec!["echo".into()]));
    memory.bodies.lock().unwrap().insert(name.clone(), job.unwrap().into());
    for _ in 0..2 {
        assert_eq!(http.answer(by_name(&name), REMAINING_MS).await["statusCode"], 200, "as often as wanted");
    }
    let answer = http.answer(v2("GET", "/v1/bodies", ""), REMAINING_MS).await;
    assert_eq!((&answer["statusCode"], &answer["headers"]["allow"]), (&json!(405), &json!("POST")));
    grid.close().await;
}

/// A store that fails after the call was carried out loses its answer, and says so.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_cannot_be_kept_is_lost() {
    #[derive(Clone)]
    struct Full(Memory);
    impl Bodies for Full {
        async fn upload_url(&self, name: &str) -> Result<String, sheaf_protocol::StoreError> {
            self.0.upload_url(name).await
        }

        async fn download_url(&self, name: &str) -> Result<String, sheaf_protocol::StoreError> {
            self.0.download_url(name).await
        }

        async fn take(&self, name: &str, bytes_max: u64) -> Result<Taken, sheaf_protocol::StoreError> {
            self.0.take(name, bytes_max).await
        }

        async fn give(&self, _: &str, _: Bytes) -> Result<(), sheaf_protocol::StoreError> {
            Err(sheaf_protocol::StoreError::Throttled { retry_after_ms: 1 })
        }
    }
    let (grid, memory) = (grid().await, Memory::default());
    let payloads = payloads();
    let gateway = Gateway::start(http(&grid, memory.clone()), memory.clone()).await;
    let client = sheaf::builder().grid(gateway.url.as_str()).connect().await.unwrap();
    let echo = Function::<Bytes, Bytes>::raw("echo");
    let results = client.job("large").chunk_tasks(1).map(&echo, payloads).start().await.unwrap();
    results.submitted().await.unwrap();
    results.job().wait().await.unwrap();
    let path = format!("/v1/jobs/{}/results", results.job_id());
    let answer = http(&grid, memory).answer(v2("GET", &path, ""), REMAINING_MS).await;
    assert_eq!(answer["statusCode"], 200);
    assert!(answer["headers"][BODY_URL_HEADER].as_str().unwrap().contains("/bucket/u/default/"));
    assert!(body(&answer).is_empty());
    let answer = http(&grid, Full(Memory::default())).answer(v2("GET", &path, ""), REMAINING_MS).await;
    assert_eq!(serde_json::from_slice::<ApiError>(&body(&answer)).unwrap().code, Code::Unknown);
    const { assert!(BINARY_BYTES_MAX * 4 / 3 < crate::gateway::PAYLOAD_BYTES_MAX) };
    grid.close().await;
}
