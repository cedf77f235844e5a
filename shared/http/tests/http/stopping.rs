//! Stopping a server, and a client that outlives it.

use std::{sync::Arc, time::Duration};

use reqwest::Method;
use sheaf_api::{
    Api, ApiError, Code,
    wire::{ChunkAnswer, CreateJob, ReadResults},
};
use tokio::time::{Instant, sleep};

use crate::{
    fake::Fake,
    round_trips::{chunk, job_id},
    server::{Server, refusal},
};

const SOON: Duration = Duration::from_secs(5);

#[tokio::test]
async fn long_polls_end_with_what_they_have() {
    let mut server = Server::start().await;
    let remote = server.remote();
    remote.create_job(CreateJob::new(job_id(1), vec!["echo".into()])).await.unwrap();
    let started_at = Instant::now();
    let progress = tokio::spawn({
        let remote = remote.clone();
        async move { remote.progress(job_id(1), Some(0), 20_000).await }
    });
    let results = tokio::spawn({
        let remote = remote.clone();
        async move { remote.results(job_id(1), ReadResults { wait_ms: 20_000, ..ReadResults::default() }).await }
    });
    let lines = server.request(Method::GET, &format!("/v1/jobs/{}/results.ndjson?follow=true", job_id(1)));
    let lines = tokio::spawn(async move { lines.send().await.unwrap().text().await.unwrap() });
    sleep(Duration::from_millis(200)).await;
    assert!(!progress.is_finished() && !results.is_finished() && !lines.is_finished());
    server.stop();
    assert_eq!(progress.await.unwrap().unwrap().job.id, job_id(1));
    assert!(results.await.unwrap().unwrap().chunks.is_empty());
    assert_eq!(lines.await.unwrap(), "");
    server.stopped().await;
    assert!(started_at.elapsed() < SOON);
}

#[tokio::test]
async fn a_client_outlives_a_restart() {
    let server = Server::start().await;
    let remote = server.remote();
    let (address, token, fake) = (server.address, server.token.clone(), Arc::clone(&server.fake));
    remote.create_job(CreateJob::new(job_id(1), vec!["echo".into()])).await.unwrap();
    server.stopped().await;

    let submit = tokio::spawn(async move { remote.submit(job_id(1), vec![chunk(0, &["1"])]).await });
    sleep(Duration::from_millis(300)).await;
    assert!(!submit.is_finished());
    let server = Server::start_at(address, token, fake).await;
    assert_eq!(submit.await.unwrap().unwrap().answers, [ChunkAnswer::Accepted]);
    server.stopped().await;
}

#[tokio::test]
async fn restarts_under_load_lose_and_double_nothing() {
    let mut server = Server::start().await;
    let remote = server.remote();
    let (address, token, fake) = (server.address, server.token.clone(), Arc::clone(&server.fake));
    remote.create_job(CreateJob::new(job_id(1), vec!["echo".into()])).await.unwrap();
    let submits = tokio::spawn(async move {
        for number in 0..300 {
            remote.submit(job_id(1), vec![chunk(number, &["1"])]).await.unwrap();
            sleep(Duration::from_millis(2)).await;
        }
    });
    for _ in 0..5 {
        sleep(Duration::from_millis(100)).await;
        server.stopped().await;
        server = Server::start_at(address, token.clone(), Arc::clone(&fake)).await;
    }
    submits.await.unwrap();
    assert_eq!(fake.progress(job_id(1), None, 0).await.unwrap().summary.tasks_submitted, 300);
    server.stopped().await;
}

#[tokio::test]
async fn without_a_grid_nothing_was_applied() {
    let server = Server::start().await;
    let remote = server.remote().with_retry_ms_max(0);
    let address = server.address;
    server.stopped().await;
    let error = remote.grid().await.unwrap_err();
    assert_eq!(error.code, Code::Unavailable);
    assert!(error.message.contains(&address.to_string()), "{}", error.message);
}

#[tokio::test]
async fn a_cut_connection_is_unknown() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let cut = tokio::spawn(async move {
        use tokio::io::AsyncReadExt;
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.read_u8().await.unwrap();
    });
    let remote = sheaf::Remote::new(&format!("http://{address}"), "token").unwrap().with_retry_ms_max(0);
    assert_eq!(remote.cancel(job_id(1)).await.unwrap_err().code, Code::Unknown);
    cut.await.unwrap();
}

#[tokio::test]
async fn what_stands_before_a_grid_is_understood() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    for (status, code) in [("503 Busy", Code::Unavailable), ("404 No", Code::NotFound), ("502 Bad", Code::Unknown)] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let proxy = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 1024]).await.unwrap();
            let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 3\r\nConnection: close\r\n\r\n<p>");
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        let remote = sheaf::Remote::new(&format!("http://{address}"), "token").unwrap().with_retry_ms_max(0);
        assert_eq!(remote.grid().await.unwrap_err().code, code, "{status}");
        proxy.await.unwrap();
    }
}

#[tokio::test]
async fn a_grid_that_stops_with_its_server_is_to_be_tried_again() {
    let server = Server::start().await;
    let stopped = || ApiError::new(Code::Stopped, "shutting down");
    server.fake.errors.lock().unwrap().push(stopped());
    assert_eq!(refusal(server.request(Method::GET, "/v1/grid")).await.1.code, Code::Stopped);

    let mut server =
        Server::start_at("127.0.0.1:0".parse().unwrap(), server.token.clone(), Arc::new(Fake::default())).await;
    server.fake.errors.lock().unwrap().push(stopped());
    server.fake.hold_grid(Duration::from_millis(400));
    let asked = tokio::spawn(refusal(server.request(Method::GET, "/v1/grid")));
    sleep(Duration::from_millis(100)).await;
    server.stop();
    let (_, error) = asked.await.unwrap();
    assert_eq!((error.code, error.retry_after_ms), (Code::Unknown, Some(1_000)), "it may have happened");
    server.stopped().await;
}

#[tokio::test]
async fn idle_connections_do_not_hold_a_server_up() {
    let server = Server::start().await;
    let idle = tokio::net::TcpStream::connect(server.address).await.unwrap();
    server.remote().grid().await.unwrap();
    let started_at = Instant::now();
    server.stopped().await;
    assert!(started_at.elapsed() < SOON);
    drop(idle);
}
