//! The Lambda Runtime API, as a child's listener serves it.
//!
//! The paths have no room for an identity, so every child has a listener of its own on a loopback port. Paths, headers and
//! status codes are those of Lambda's API of 2018-06-01: `GET …/invocation/next`, `POST …/invocation/{id}/response`,
//! `POST …/invocation/{id}/error`, `POST …/init/error`. An id that is not in hand is answered 400, an answer to what has
//! been answered 403, one beyond its limit 413, all else 202.
//!
//! What a task is comes in `Lambda-Runtime-Client-Context`, in the shape that runtimes hand to functions as the client
//! context: `{"custom":{"job":…,"chunk":…,"task":…,"epoch":…,"key":…},"env":{}}`. All values of `custom` are strings,
//! which some runtimes insist on; `task` is the task's whole id, `chunk` the number of its chunk, `key` is there when the
//! task has one, `checkpoint` (a path) when the function writes checkpoints. In a batch they are those of its first task.

use std::{borrow::Cow, convert::Infallible, fmt::Write, io, net::SocketAddr, path::Path, sync::Arc};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Body, Incoming},
    header::{CONTENT_TYPE, HeaderName, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use sheaf_core::{Failure, FailureKind, TaskId};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use uuid::Uuid;

use crate::{
    answer,
    desk::{Desk, Invocation, Refused, Said},
    limits, peer,
};

const RUNTIME: &str = "/2018-06-01/runtime/";
const REQUEST_ID: HeaderName = HeaderName::from_static("lambda-runtime-aws-request-id");
const DEADLINE_MS: HeaderName = HeaderName::from_static("lambda-runtime-deadline-ms");
const FUNCTION_ARN: HeaderName = HeaderName::from_static("lambda-runtime-invoked-function-arn");
const TRACE_ID: HeaderName = HeaderName::from_static("lambda-runtime-trace-id");
const CLIENT_CONTEXT: HeaderName = HeaderName::from_static("lambda-runtime-client-context");
const ERROR_TYPE: HeaderName = HeaderName::from_static("lambda-runtime-function-error-type");

type Reply = Response<Full<Bytes>>;

/// Serves a child until dropped.
pub(crate) async fn serve(listener: TcpListener, desk: Arc<Desk>) {
    let Ok(local) = listener.local_addr() else { return };
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < limits::CONNECTIONS_MAX => {
                if let Ok((stream, peer)) = accepted {
                    connections.spawn(connection(stream, peer, local, Arc::clone(&desk)));
                }
            }
        }
    }
}

async fn connection(stream: TcpStream, peer: SocketAddr, local: SocketAddr, desk: Arc<Desk>) {
    let _counted = desk.connect();
    if !peer::is_own(peer, local) {
        tracing::warn!(%peer, "refusing a connection that is not from a process of this user");
        return;
    }
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request| {
        let desk = Arc::clone(&desk);
        async move { Ok::<_, Infallible>(route(&desk, request).await) }
    });
    let mut builder = http1::Builder::new();
    // A process may end right after it has sent its answer; hyper would drop the request with the connection otherwise.
    builder.half_close(true).header_read_timeout(None).auto_date_header(false);
    if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "a child's connection broke");
    }
}

/// Replies to a request once its body has been read, of which refusals want nothing: a connection with an unread body
/// cannot go on, and a child should live through a refusal.
async fn route(desk: &Desk, mut request: Request<Incoming>) -> Reply {
    let reply = dispatch(desk, &mut request).await;
    if !request.body().is_end_stream() {
        let _ = read(request.body_mut(), 0).await;
    }
    reply
}

async fn dispatch(desk: &Desk, request: &mut Request<Incoming>) -> Reply {
    let Some(path) = request.uri().path().strip_prefix(RUNTIME) else { return not_found() };
    if let Some(rest) = path.strip_prefix("invocation/") {
        if rest == "next" {
            return match *request.method() {
                Method::GET => desk.next().await.map_or_else(refused, |next| invocation(&next)),
                _ => error(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", "next is asked for with GET"),
            };
        }
        let (id, is_error) = match rest.split_once('/') {
            Some((id, "response")) => (id, false),
            Some((id, "error")) => (id, true),
            _ => return not_found(),
        };
        let id = id.parse::<Uuid>().map_err(|_| Refused::UnknownId);
        return match id {
            _ if request.method() != Method::POST => {
                error(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", "answers are sent with POST")
            }
            Ok(id) => answered(desk, id, is_error, request).await.unwrap_or_else(refused),
            Err(reason) => refused(reason),
        };
    }
    if path == "init/error" && request.method() == Method::POST {
        return match read_error(request, FailureKind::NotStarted).await {
            Some(failure) => desk.init_failed(failure).map_or_else(refused, |()| accepted()),
            None => broken(),
        };
    }
    not_found()
}

async fn answered(desk: &Desk, id: Uuid, is_error: bool, request: &mut Request<Incoming>) -> Result<Reply, Refused> {
    let limit = desk.expects(id)?;
    if is_error {
        let Some(failure) = read_error(request, FailureKind::Error).await else { return Ok(broken()) };
        return desk.answer(id, Said::Error(failure)).map(|()| accepted());
    }
    match read(request.body_mut(), limit).await {
        Ok(Read { bytes, error_type: None }) => desk.answer(id, Said::Result(bytes)).map(|()| accepted()),
        Ok(Read { error_type, .. }) => {
            let failure = answer::error(FailureKind::Error, b"the answer failed midway", error_type.as_deref());
            desk.answer(id, Said::Error(failure)).map(|()| accepted())
        }
        Err(Unread::TooLarge { bytes, drained }) => {
            desk.answer(id, Said::TooLarge(bytes))?;
            if !drained {
                desk.spoil();
            }
            Ok(error(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", "the answer is beyond its limit"))
        }
        Err(Unread::Broken) => Ok(broken()),
    }
}

/// Reads an error report; `None` when it broke off.
async fn read_error(request: &mut Request<Incoming>, kind: FailureKind) -> Option<Failure> {
    let error_type =
        request.headers().get(&ERROR_TYPE).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    match read(request.body_mut(), limits::ERROR_BYTES_MAX).await {
        Ok(body) => Some(answer::error(kind, &body.bytes, error_type.as_deref())),
        Err(Unread::TooLarge { .. }) => {
            Some(answer::error(kind, b"the error report is larger than its limit", error_type.as_deref()))
        }
        Err(Unread::Broken) => None,
    }
}

struct Read {
    bytes: Bytes,
    /// A streamed answer that failed midway says so in a trailer.
    error_type: Option<String>,
}

enum Unread {
    /// `drained`: the rest was read and dropped, so that the connection can go on.
    TooLarge {
        bytes: Option<u64>,
        drained: bool,
    },
    Broken,
}

/// Reads a body of at most `limit` bytes. A body of one frame, as most are, is not copied.
async fn read(body: &mut Incoming, limit: u64) -> Result<Read, Unread> {
    let told = body.size_hint().exact();
    if told.is_some_and(|told| told > limit + limits::OVERRUN_BYTES_MAX) {
        return Err(Unread::TooLarge { bytes: told, drained: false });
    }
    let mut read = Read { bytes: Bytes::new(), error_type: None };
    let mut many: Option<BytesMut> = None;
    let mut seen: u64 = 0;
    while let Some(frame) = body.frame().await {
        let frame = match frame.map_err(|_| Unread::Broken)?.into_data() {
            Ok(data) => data,
            Err(other) => {
                let trailers = other.into_trailers().unwrap_or_default();
                let error_type =
                    trailers.get(&ERROR_TYPE).map(|value| String::from_utf8_lossy(value.as_bytes()).into());
                read.error_type = read.error_type.or(error_type);
                continue;
            }
        };
        seen += frame.len() as u64;
        if seen > limit + limits::OVERRUN_BYTES_MAX {
            return Err(Unread::TooLarge { bytes: told, drained: false });
        }
        if seen > limit {
            (read.bytes, many) = (Bytes::new(), None);
        } else if read.bytes.is_empty() && many.is_none() {
            read.bytes = frame;
        } else {
            let room = told.unwrap_or(2 * seen).min(limit) as usize;
            let many = many.get_or_insert_with(|| {
                let mut many = BytesMut::with_capacity(room);
                many.extend_from_slice(&std::mem::take(&mut read.bytes));
                many
            });
            many.extend_from_slice(&frame);
        }
    }
    if seen > limit {
        return Err(Unread::TooLarge { bytes: Some(seen), drained: true });
    }
    if let Some(many) = many {
        read.bytes = many.freeze();
    }
    Ok(read)
}

/// An invocation as a reply. All header values are slices of one buffer.
fn invocation(invocation: &Invocation) -> Reply {
    let mut text = HeaderText(BytesMut::with_capacity(512));
    let ends = write_headers(&mut text, invocation).unwrap_or_default();
    let text = text.0.freeze();
    let mut reply = Response::new(Full::new(invocation.body.clone()));
    let headers = reply.headers_mut();
    headers.reserve(6);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let mut from = 0;
    for (name, end) in [REQUEST_ID, DEADLINE_MS, FUNCTION_ARN, TRACE_ID, CLIENT_CONTEXT].into_iter().zip(ends) {
        if let Ok(value) = HeaderValue::from_maybe_shared(text.slice(from..end)) {
            headers.insert(name, value);
        }
        from = end;
    }
    reply
}

struct HeaderText(BytesMut);

impl Write for HeaderText {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

fn write_headers(text: &mut HeaderText, invocation: &Invocation) -> Result<[usize; 5], std::fmt::Error> {
    let Invocation { call, id, task, checkpoint, deadline_ms, .. } = invocation;
    let (nonce, serial) = id.as_u64_pair();
    let mut ends = [0; 5];
    write!(text, "{}", id.hyphenated())?;
    ends[0] = text.0.len();
    write!(text, "{deadline_ms}")?;
    ends[1] = text.0.len();
    write!(text, "arn:aws:lambda:local:000000000000:function:{}:{}", call.function.name, call.function.version)?;
    ends[2] = text.0.len();
    let (seconds, child) = ((deadline_ms / 1_000) & 0xffff_ffff, nonce >> 32);
    write!(text, "Root=1-{seconds:08x}-{child:08x}{serial:016x};Sampled=0")?;
    ends[3] = text.0.len();
    write_context(text, call.epoch, *task, call.pack.key(task.index), checkpoint.as_deref())?;
    ends[4] = text.0.len();
    Ok(ends)
}

/// The client context of a task; no key is written where it is empty, and no checkpoint where there is none to be left.
pub(crate) fn write_context(
    text: &mut impl Write,
    epoch: u32,
    task: TaskId,
    key: &str,
    checkpoint: Option<&Path>,
) -> std::fmt::Result {
    let (job, chunk) = (task.chunk.job, task.chunk.number);
    write!(text, r#"{{"custom":{{"job":"{job}","chunk":"{chunk}","task":"{task}","epoch":"{epoch}""#)?;
    let path = checkpoint.map(|path| path.to_string_lossy());
    for (name, value) in [("key", Some(key.into()).filter(|_| !key.is_empty())), ("checkpoint", path)] {
        let Some(value): Option<Cow<'_, str>> = value else { continue };
        write!(text, r#","{name}":""#)?;
        write_escaped(text, &value)?;
        text.write_str("\"")?;
    }
    text.write_str(r#"},"env":{}}"#)
}

/// JSON in ASCII, as a header may hold no other.
fn write_escaped(text: &mut impl Write, value: &str) -> std::fmt::Result {
    for unit in value.encode_utf16() {
        match u8::try_from(unit) {
            Ok(byte @ (b'"' | b'\\')) => write!(text, "\\{}", byte as char)?,
            Ok(byte @ 0x20..0x7f) => text.write_char(byte as char)?,
            _ => write!(text, "\\u{unit:04x}")?,
        }
    }
    Ok(())
}

fn refused(reason: Refused) -> Reply {
    match reason {
        Refused::UnknownId => error(StatusCode::BAD_REQUEST, "InvalidRequestID", "no invocation in hand has this id"),
        Refused::Answered => error(StatusCode::FORBIDDEN, "InvalidStateTransition", "this invocation has been closed"),
    }
}

fn accepted() -> Reply {
    let mut reply = Response::new(Full::new(Bytes::from_static(b"{\"status\":\"OK\"}\n")));
    *reply.status_mut() = StatusCode::ACCEPTED;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    reply
}

/// Nobody will read this; the task stays in hand until the child comes back, ends, or its time is up.
fn broken() -> Reply {
    error(StatusCode::BAD_REQUEST, "BrokenRequest", "the request ended early")
}

fn not_found() -> Reply {
    error(StatusCode::NOT_FOUND, "NotFound", "no such path in the Runtime API of 2018-06-01")
}

fn error(status: StatusCode, error_type: &'static str, message: &'static str) -> Reply {
    let body = format!(r#"{{"errorMessage":"{message}","errorType":"{error_type}"}}"#);
    let mut reply = Response::new(Full::new(Bytes::from(body)));
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    reply
}

/// A listener on a loopback port of its own.
pub(crate) async fn bind() -> io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let local = listener.local_addr()?;
    Ok((listener, local))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_escaped_into_ascii() {
        let mut text = HeaderText(BytesMut::new());
        write_escaped(&mut text, "a\"\\\n é😀").expect("memory");
        assert_eq!(text.0, r#"a\"\\\u000a \u00e9\ud83d\ude00"#);
        let parsed: String =
            serde_json::from_str(&format!("\"{}\"", std::str::from_utf8(&text.0).expect("ASCII"))).expect("JSON");
        assert_eq!(parsed, "a\"\\\n é😀");
    }
}
