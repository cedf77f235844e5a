//! A stand-in for the metadata service of an EC2 machine, for tests of what happens when a spot machine is taken away.
//!
//! ```text
//! sheaf-metadata-standin [ADDRESS]      an address to listen at; 127.0.0.1:0, any free port, unless given
//! ```
//!
//! The first line it prints is its URL, for `SHEAF_METADATA`. It answers what the service answers (version 2 only: a token
//! first), and is told what to say over HTTP, without a token:
//!
//! | call | effect |
//! |---|---|
//! | `PUT /notice {"action": "terminate", "in_s": 120}` | the machine is to be taken away in so many seconds; `terminate`, `stop` or `hibernate` |
//! | `PUT /rebalance` | it is recommended to go elsewhere, as of now |
//! | `PUT /tokens/expire` | tokens given out so far are good for nothing |
//! | `DELETE /notice`, `DELETE /rebalance` | all is well again |
//! | `GET /looks` | how often a notice was looked for with a valid token |
//!
//! It ends when its standard input does, and so with whoever has started it with a pipe there.

use std::{
    io::{Read, Write},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::{get, put},
};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Default)]
struct Machine {
    token: u64,
    looks: u64,
    action: Option<Value>,
    rebalance: Option<Value>,
}

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Machine>>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Notice {
    action: Action,
    in_s: i64,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Action {
    Terminate,
    Stop,
    Hibernate,
}

impl Shared {
    fn machine(&self) -> MutexGuard<'_, Machine> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a caller with a valid token finds.
    fn find(
        &self,
        headers: &HeaderMap,
        what: impl Fn(&mut Machine) -> Option<Value>,
    ) -> Result<Json<Value>, StatusCode> {
        let mut machine = self.machine();
        let token = headers.get("x-aws-ec2-metadata-token").and_then(|token| token.to_str().ok());
        if token != Some(&token_text(machine.token)) {
            return Err(StatusCode::UNAUTHORIZED);
        }
        what(&mut machine).map(Json).ok_or(StatusCode::NOT_FOUND)
    }
}

fn token_text(token: u64) -> String {
    format!("standin-{token}")
}

/// Times of the service are whole seconds.
fn in_seconds(seconds: i64) -> String {
    let time = Timestamp::now() + SignedDuration::from_secs(seconds);
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

async fn new_token(State(shared): State<Shared>, headers: HeaderMap) -> Result<String, StatusCode> {
    let seconds =
        headers.get("x-aws-ec2-metadata-token-ttl-seconds").and_then(|value| value.to_str().ok()?.parse().ok());
    match seconds {
        Some(1..=21_600) => Ok(token_text(shared.machine().token)),
        _ => Err(StatusCode::BAD_REQUEST),
    }
}

fn routes() -> Router {
    let told = |State(shared): State<Shared>, Json(Notice { action, in_s }): Json<Notice>| async move {
        let action = match action {
            Action::Terminate => "terminate",
            Action::Stop => "stop",
            Action::Hibernate => "hibernate",
        };
        shared.machine().action = Some(json!({ "action": action, "time": in_seconds(in_s) }));
    };
    Router::new()
        .route("/latest/api/token", put(new_token))
        .route(
            "/latest/meta-data/spot/instance-action",
            get(|State(shared): State<Shared>, headers: HeaderMap| async move {
                shared.find(&headers, |machine| {
                    machine.looks += 1;
                    machine.action.clone()
                })
            }),
        )
        .route(
            "/latest/meta-data/events/recommendations/rebalance",
            get(|State(shared): State<Shared>, headers: HeaderMap| async move {
                shared.find(&headers, |machine| machine.rebalance.clone())
            }),
        )
        .route(
            "/notice",
            put(told).delete(|State(shared): State<Shared>| async move { shared.machine().action = None }),
        )
        .route(
            "/rebalance",
            put(|State(shared): State<Shared>| async move {
                shared.machine().rebalance = Some(json!({ "noticeTime": in_seconds(0) }));
            })
            .delete(|State(shared): State<Shared>| async move { shared.machine().rebalance = None }),
        )
        .route("/tokens/expire", put(|State(shared): State<Shared>| async move { shared.machine().token += 1 }))
        .route("/looks", get(|State(shared): State<Shared>| async move { shared.machine().looks.to_string() }))
        .with_state(Shared::default())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let listener = tokio::net::TcpListener::bind(address).await?;
    println!("http://{}", listener.local_addr()?);
    std::io::stdout().flush()?;
    std::thread::spawn(|| {
        let mut input = std::io::stdin().lock();
        while input.read(&mut [0; 64]).is_ok_and(|bytes| bytes > 0) {}
        std::process::exit(0);
    });
    axum::serve(listener, routes()).await
}
