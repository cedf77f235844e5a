//! What the agent of ECS is asked while a worker is busy.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::time::Duration;

use axum::{Json, Router, http::StatusCode, routing::put};
use serde_json::{Value, json};
use sheaf_worker_container::keep_protected;
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
};

/// An agent that tells what it is asked; its URL.
async fn agent(status: StatusCode, says: Value) -> (String, mpsc::UnboundedReceiver<Value>) {
    let (told, asked) = mpsc::unbounded_channel();
    let answer = move |Json(state): Json<Value>| {
        told.send(state).unwrap();
        std::future::ready((status, Json(says.clone())))
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/api/id", listener.local_addr().unwrap());
    let router = Router::new().route("/api/id/task-protection/v1/state", put(answer));
    tokio::spawn(async move { axum::serve(listener, router).await });
    (url, asked)
}

async fn next(asked: &mut mpsc::UnboundedReceiver<Value>) -> Value {
    tokio::time::timeout(Duration::from_secs(30), asked.recv()).await.unwrap().unwrap()
}

#[tokio::test]
async fn a_task_is_protected_while_it_is_busy() {
    let (url, mut asked) = agent(StatusCode::OK, json!({"protection": {"ProtectionEnabled": true}})).await;
    let (busy, is_busy) = watch::channel(false);
    let keeping = tokio::spawn(keep_protected(url, is_busy));
    busy.send_replace(true);
    let on = json!({"ProtectionEnabled": true, "ExpiresInMinutes": 60});
    assert_eq!(next(&mut asked).await, on);
    busy.send_replace(false);
    assert_eq!(next(&mut asked).await, json!({"ProtectionEnabled": false}));
    // Idle as before: nothing to ask for, which the next question shows.
    busy.send_replace(false);
    tokio::time::sleep(Duration::from_millis(50)).await;
    busy.send_replace(true);
    assert_eq!(next(&mut asked).await, on);
    drop(busy);
    tokio::time::timeout(Duration::from_secs(30), keeping).await.unwrap().unwrap();
    assert!(asked.try_recv().is_err(), "asked once more");
}

/// The agent does not do it: it is asked again when something changes, and nothing else suffers.
#[tokio::test]
async fn an_agent_that_refuses_is_asked_again() {
    for (status, says) in [
        (StatusCode::OK, json!({"failure": {"Reason": "TASK_NOT_VALID"}})),
        (StatusCode::INTERNAL_SERVER_ERROR, json!({})),
    ] {
        let (url, mut asked) = agent(status, says).await;
        let (busy, is_busy) = watch::channel(true);
        let keeping = tokio::spawn(keep_protected(url, is_busy));
        for _ in 0..2 {
            assert_eq!(next(&mut asked).await["ProtectionEnabled"], true);
            busy.send_replace(true);
        }
        drop(busy);
        tokio::time::timeout(Duration::from_secs(30), keeping).await.unwrap().unwrap();
    }
}
