//! What cannot be read or routed, and what is said of it.

use bytes::Bytes;
use reqwest::Method;
use sheaf_api::{Code, stream};

use crate::{
    round_trips::{chunk, job_id},
    server::{Server, refusal},
};

#[tokio::test]
async fn unknown_routes_and_wrong_methods() {
    let server = Server::start().await;
    for path in ["/", "/v1", "/v1/", "/v2/grid", "/v1/jobs/", "/v1/tasks/a/b"] {
        assert_eq!(refusal(server.request(Method::GET, path)).await.1.code, Code::NotFound, "{path}");
    }
    for (method, path) in [(Method::DELETE, "/v1/jobs"), (Method::GET, "/v1/jobs/x/seal"), (Method::PUT, "/healthz")] {
        let answer = server.request(method.clone(), path).send().await.unwrap();
        assert!(answer.headers().contains_key("allow"), "{path}");
        let (status, error) = refusal(server.request(method, path)).await;
        assert_eq!((status, error.code), (405, Code::Invalid), "{path}");
    }
    server.stopped().await;
}

#[tokio::test]
async fn bad_ids_name_what_was_expected() {
    let server = Server::start().await;
    let job = job_id(1);
    for (path, expected) in [
        ("/v1/jobs/1".to_owned(), "a job id (job_ and 32 hexadecimal digits)"),
        ("/v1/jobs/job_xyz/results".to_owned(), "a job id"),
        ("/v1/jobs/%FF".to_owned(), "UTF-8"),
        (format!("/v1/tasks/{job}/x/0"), "a task id (job_…/chunk/index)"),
        (format!("/v1/tasks/{job}/0/-1/logs"), "a task id"),
        ("/v1/jobs?before=job_1".to_owned(), "a job id"),
    ] {
        let (status, error) = refusal(server.request(Method::GET, &path)).await;
        assert_eq!((status, error.code), (400, Code::Invalid), "{path}");
        assert!(error.message.contains(expected), "{path}: {}", error.message);
    }
    server.stopped().await;
}

#[tokio::test]
async fn bad_queries() {
    let server = Server::start().await;
    let job = job_id(1);
    for (path, named) in [
        ("/v1/jobs?limit=many".to_owned(), "limit"),
        ("/v1/jobs?alive=perhaps".to_owned(), "alive"),
        (format!("/v1/jobs/{job}/progress?wait_ms=-1"), "wait_ms"),
        (format!("/v1/jobs/{job}/results?have=***"), "base64url"),
        (format!("/v1/jobs/{job}/results?have=AAAA"), "roaring"),
        (format!("/v1/jobs/{job}/events?from=x"), "from"),
    ] {
        let (status, error) = refusal(server.request(Method::GET, &path)).await;
        assert_eq!(status, 400, "{path}");
        assert!(error.message.contains(named), "{path}: {}", error.message);
    }
    let request = server.request(Method::POST, &format!("/v1/jobs/{job}/results")).body("not a set");
    assert!(refusal(request).await.1.message.contains("roaring"));
    server.stopped().await;
}

#[tokio::test]
async fn bad_json_is_located() {
    let server = Server::start().await;
    let (_, error) = refusal(server.request(Method::POST, "/v1/jobs").body("{\n \"id\": 1,\n}")).await;
    assert!(error.message.contains("line 2 column"), "{}", error.message);
    let body = format!("{{\"id\": \"{}\"}}", job_id(1));
    let (_, error) = refusal(server.request(Method::POST, "/v1/jobs").body(body)).await;
    assert!(error.message.contains("missing field `functions`"), "{}", error.message);
    let (_, error) = refusal(server.request(Method::POST, "/v1/jobs")).await;
    assert!(error.message.contains("line 1 column 0"), "{}", error.message);
    server.stopped().await;
}

#[tokio::test]
async fn malformed_frames() {
    let server = Server::start().await;
    let path = format!("/v1/jobs/{}/chunks", job_id(1));
    let good = stream::encode_submission(&[chunk(0, &["1"])]);
    let mut damaged = good.to_vec();
    damaged[40] ^= 1;
    let many = stream::encode_submission(&vec![chunk(0, &["1"]); 101]);
    for (body, code, named) in [
        (good.slice(..good.len() - 1), Code::Invalid, "longer than what is left"),
        (good.slice(..2), Code::Invalid, "within the length"),
        (Bytes::from(damaged), Code::Invalid, "checksum"),
        (Bytes::from_static(b"{\"chunks\": []}"), Code::Invalid, "body is malformed"),
        (many, Code::TooLarge, "chunks in one submission"),
    ] {
        let (_, error) = refusal(server.request(Method::PUT, &path).body(body)).await;
        assert_eq!(error.code, code, "{}", error.message);
        assert!(error.message.contains(named), "{}", error.message);
    }
    let (_, error) = refusal(server.request(Method::PUT, "/v1/functions").body(vec![2, 0, 0, 0, b'{', b'}'])).await;
    assert!(error.message.contains("missing field `name`"), "{}", error.message);
    server.stopped().await;
}
