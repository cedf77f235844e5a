//! What an HTTP API does: requests become events of payload version 2.0, answers of the function become replies, and neither
//! may be larger than 6 MB.

use std::sync::Arc;

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Path, Request, State},
    http::{Response, StatusCode, Uri},
    routing::put,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde_json::{Map, Value, json};
use sheaf::{Grid, Transport};
use sheaf_core::TenantId;
use sheaf_lambda::{Bodies, Http};
use tokio::{net::TcpListener, task::JoinHandle};

use crate::store::Memory;

/// Source: the quotas of Lambda.
pub(crate) const PAYLOAD_BYTES_MAX: usize = 6_291_556;

/// A grid in memory with a function that echoes.
pub(crate) async fn grid() -> Grid {
    let grid = sheaf::builder().memory(true).slots(2).connect().await.unwrap();
    let echo = |payload: &[u8], result: &mut Vec<u8>| {
        result.extend_from_slice(payload);
        Ok(())
    };
    grid.handler_raw::<Bytes>("echo", echo).await.unwrap();
    grid
}

pub(crate) fn http<B: Bodies>(grid: &Grid, bodies: B) -> Http<B> {
    let Transport::Embedded(local) = grid.api() else { panic!("it is in this process") };
    Http::new(Arc::new(local.clone()), bodies, TenantId::default())
}

pub(crate) struct Gateway {
    pub(crate) url: String,
    running: JoinHandle<()>,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.running.abort();
    }
}

impl Gateway {
    /// Serves a function, and the bucket of its bodies.
    pub(crate) async fn start<B: Bodies>(http: Http<B>, memory: Memory) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        memory.base.lock().unwrap().clone_from(&url);
        let bucket = put(stored).get(got).with_state(memory);
        let function = Router::new().fallback(invoked::<B>).with_state(Arc::new(http));
        let router = function.route("/bucket/{*name}", bucket);
        let running = tokio::spawn(async move {
            sheaf_http::serve(listener, router, std::future::pending()).await.unwrap();
        });
        Self { url, running }
    }
}

async fn stored(State(memory): State<Memory>, Path(name): Path<String>, uri: Uri, request: Request) -> StatusCode {
    if uri.query() != Some("signature=secret") || request.headers().contains_key("authorization") {
        return StatusCode::FORBIDDEN;
    }
    let body = to_bytes(request.into_body(), usize::MAX).await.unwrap();
    memory.bodies.lock().unwrap().insert(name, body);
    StatusCode::OK
}

async fn got(State(memory): State<Memory>, Path(name): Path<String>) -> Result<Bytes, StatusCode> {
    memory.bodies.lock().unwrap().get(&name).cloned().ok_or(StatusCode::NOT_FOUND)
}

async fn invoked<B: Bodies>(State(http): State<Arc<Http<B>>>, request: Request) -> Response<Body> {
    let is_grid = request.uri().path() == "/v1/grid";
    let event = event(request).await;
    if event.to_string().len() > PAYLOAD_BYTES_MAX {
        return said(StatusCode::PAYLOAD_TOO_LARGE, "Request Too Long");
    }
    let mut answer = http.answer(event, 29_000).await;
    if answer.to_string().len() > PAYLOAD_BYTES_MAX {
        return said(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error");
    }
    if is_grid {
        // As a deployed grid says of itself.
        let view = answer["body"].as_str().unwrap().replace("\"memory\"", "\"aws\"");
        answer["body"] = view.into();
    }
    reply(&answer)
}

fn said(status: StatusCode, message: &str) -> Response<Body> {
    let body = json!({ "message": message }).to_string();
    Response::builder().status(status).body(body.into()).unwrap()
}

async fn event(request: Request) -> Value {
    let (head, body) = request.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    let text = head.headers.get("content-type").is_some_and(|kind| kind.to_str().unwrap().contains("json"));
    let headers: Map<String, Value> =
        head.headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().into())).collect();
    let mut event = v2(head.method.as_str(), head.uri.path(), head.uri.query().unwrap_or_default());
    event["headers"] = headers.into();
    if !body.is_empty() {
        event["isBase64Encoded"] = (!text).into();
        event["body"] = if text { String::from_utf8(body.to_vec()).unwrap() } else { STANDARD.encode(&body) }.into();
    }
    event
}

/// An event without headers and body.
pub(crate) fn v2(method: &str, path: &str, query: &str) -> Value {
    json!({
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": query,
        "headers": {},
        "requestContext": {
            "accountId": "123456789012",
            "apiId": "api",
            "domainName": "api.execute-api.eu-west-1.amazonaws.com",
            "http": {
                "method": method,
                "path": path,
                "protocol": "HTTP/1.1",
                "sourceIp": "192.0.2.1",
                "userAgent": "test",
            },
            "requestId": "id",
            "stage": "$default",
            "time": "12/Mar/2020:19:03:58 +0000",
            "timeEpoch": 1_583_348_638_390_u64,
        },
        "isBase64Encoded": false,
    })
}

/// The body of an answer.
pub(crate) fn body(answer: &Value) -> Bytes {
    let body = answer["body"].as_str().unwrap_or_default();
    if answer["isBase64Encoded"] == true { STANDARD.decode(body).unwrap().into() } else { body.to_owned().into() }
}

fn reply(answer: &Value) -> Response<Body> {
    let mut response = Response::builder().status(answer["statusCode"].as_u64().unwrap() as u16);
    for (name, value) in answer["headers"].as_object().unwrap() {
        response = response.header(name, value.as_str().unwrap());
    }
    response.body(body(answer).into()).unwrap()
}
