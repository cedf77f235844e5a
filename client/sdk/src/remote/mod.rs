//! A grid that runs elsewhere: the calls over HTTP.
//!
//! A call that did not arrive, or whose answer was lost, is sent again until its time is over: every call may be repeated.
//! So a client outlives a restart of its grid, and what it gets in the end says truly whether its write may have happened.

mod access;
mod by_reference;

use std::{
    error::Error as _,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use reqwest::{
    Client, Method, RequestBuilder, StatusCode, Url,
    header::{CONTENT_TYPE, DATE, HeaderMap, RETRY_AFTER},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sheaf_api::{
    Answer, Api, ApiError, Code, stream,
    wire::{
        CreateJob, EventView, FunctionView, GridView, JobFilter, JobView, Page, PutFunction, ReadResults, ResultsPage,
        RetryJob, SubmitChunk, SubmitReply, TaskView, WorkerView,
    },
};
use sheaf_core::{FunctionName, JobId, Seal, TaskId, limits};
use tokio::{sync::OnceCell, time::timeout};
use tracing::Instrument;

use self::access::Access;
pub(crate) use self::access::missing_feature;
use crate::retry::{self, Patience};

/// How long a call is repeated, from its first failure on, unless [`Remote::with_retry_ms_max`] says otherwise.
pub const RETRY_MS_DEFAULT: u64 = crate::limits::RETRY_FOR_MS;
/// How long an answer may take, besides what the call itself asks to wait; and the longest pause within one.
const ANSWER_MS_MAX: u64 = 10_000;
const CONNECT_MS_MAX: u64 = 5_000;
/// A connection is kept for this long after its last use: less than the server keeps it, so that none is used while the
/// server closes it.
const IDLE_MS_MAX: u64 = 30_000;
/// The slowest upload that is waited for.
const UPLOAD_BYTES_PER_MS_MIN: usize = 1_024;
/// Room made at once for an answer, whatever length it announces.
const ROOM_BYTES_MAX: usize = 2 * limits::RESULT_PAGE_BYTES_TARGET;
/// A set of chunks longer than this as text travels in a body instead of the URL.
const URL_SET_BYTES_MAX: usize = 4_096;
const JSON: &str = "application/json";
/// The header that names the body of a request, where that lies in the grid's bucket.
const BODY_HEADER: &str = "x-sheaf-body";
/// The header that says where the body of an answer is.
const BODY_URL_HEADER: &str = "x-sheaf-body-url";

/// The calls of a grid that runs elsewhere. Cloning shares its connections.
///
/// Calls that failed with [`Code::Throttled`], [`Code::Unavailable`] or [`Code::Unknown`] are repeated with exponential
/// back-off and jitter, and not before the time that the grid names. An error that comes out in the end is
/// [`Code::Unknown`] when any of the repetitions may have happened.
///
/// A call that is repeated does not wait for news any more, and may so answer earlier than it was told to. Bodies that are too
/// large for a grid behind Lambdas go through its bucket.
#[derive(Clone)]
pub struct Remote {
    client: Client,
    base: Url,
    access: Access,
    /// Whether the grid takes bodies by reference, once that mattered.
    takes_references: Arc<OnceCell<bool>>,
    retry_ms_max: u64,
    /// Requests that were sent, by all clones together.
    requests: Arc<AtomicU64>,
}

impl Remote {
    /// A client of the grid at a URL such as `http://127.0.0.1:7433`, with its token; an empty one is not sent. Does not connect
    /// yet.
    ///
    /// `https://` takes the feature `https`, and without a token the feature `aws`: requests are then signed with the AWS
    /// credentials of this process, found as the AWS command line finds them. So are those to an API of AWS (a host like
    /// `….execute-api.….amazonaws.com`) in any case.
    ///
    /// # Errors
    /// [`Code::Invalid`] when the URL or the token is not one, or when it takes a feature that this build lacks.
    pub fn new(url: &str, token: &str) -> Answer<Self> {
        let base = Url::parse(url).map_err(|error| ApiError::invalid(format!("{url:?} is not a URL: {error}")))?;
        if !matches!(base.scheme(), "http" | "https") || !base.username().is_empty() || base.password().is_some() {
            let message = format!("{}:// is not where a grid can be reached", base.scheme());
            return Err(ApiError::invalid(message).with_hint("give an address such as http://127.0.0.1:7433"));
        }
        if base.scheme() == "https" && !cfg!(feature = "https") {
            let message =
                format!("{base} takes the feature `https` of sheaf-sdk, which this program was built without");
            return Err(ApiError::invalid(message).with_hint("build it with that feature, or `aws`"));
        }
        let access = Access::new(&base, token)?;
        let mut client = Client::builder()
            .connect_timeout(Duration::from_millis(CONNECT_MS_MAX))
            .pool_idle_timeout(Duration::from_millis(IDLE_MS_MAX))
            .redirect(reqwest::redirect::Policy::none());
        if matches!(base.host_str(), Some("localhost" | "127.0.0.1" | "[::1]")) {
            client = client.no_proxy();
        }
        // Names below `localhost` are this machine, whatever its resolver knows of them (RFC 6761).
        if let Some(name) = base.host_str().filter(|name| name.ends_with(".localhost")) {
            client = client.no_proxy().resolve(name, std::net::SocketAddr::from(([127, 0, 0, 1], 0)));
        }
        let client = client.build();
        let client = client.map_err(|error| ApiError::new(Code::Internal, format!("no HTTP client: {error}")))?;
        Ok(Self {
            client,
            base,
            access,
            takes_references: Arc::default(),
            retry_ms_max: RETRY_MS_DEFAULT,
            requests: Arc::default(),
        })
    }

    /// The same, repeating a call for at most so long from its first failure on; 0 for never.
    pub const fn with_retry_ms_max(mut self, retry_ms_max: u64) -> Self {
        self.retry_ms_max = retry_ms_max;
        self
    }

    /// How many requests this and its clones have sent, repeated ones too.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// What the grid's clock says, as it stands in the header `Date` of an answer (RFC 9110); none if it has no clock.
    pub async fn date(&self) -> Answer<Option<String>> {
        let request = self.get("grid", &["grid"]);
        let patience = Patience::of(self.retry());
        let answer = retry::call_with(patience, || self.exchange_for(&request, None, false)).await?;
        Ok(answer.headers.get(DATE).and_then(|date| date.to_str().ok()).map(ToOwned::to_owned))
    }

    const fn retry(&self) -> Duration {
        Duration::from_millis(self.retry_ms_max)
    }

    fn request(&self, name: &'static str, method: Method, path: &[&str]) -> Request {
        let mut url = self.base.clone();
        url.path_segments_mut().expect("HTTP URLs have a path").pop_if_empty().push("v1").extend(path);
        Request { name, method, url, body: Bytes::new(), media_type: "", wait_ms: 0 }
    }

    fn get(&self, name: &'static str, path: &[&str]) -> Request {
        self.request(name, Method::GET, path)
    }

    fn post(&self, name: &'static str, path: &[&str]) -> Request {
        self.request(name, Method::POST, path)
    }

    /// Sends a request until it is answered for good, and reads the answer.
    async fn json<T: DeserializeOwned>(&self, request: Request) -> Answer<T> {
        let name = request.name;
        serde_json::from_slice(&self.send(request).await?).map_err(|error| unreadable(name, error))
    }

    async fn send(&self, request: Request) -> Answer<Bytes> {
        if request.body.len() > limits::REQUEST_BYTES_MAX {
            let (found, limit) = (request.body.len(), limits::REQUEST_BYTES_MAX);
            let message = format!("{} of {found} bytes: the limit is {limit}", request.name);
            return Err(ApiError::new(Code::TooLarge, message).with_hint("send fewer chunks at a time"));
        }
        let span = tracing::debug_span!("call", name = request.name);
        let answered = async {
            let reference = self.put_aside(&request).await?;
            self.repeated(&request, reference.as_deref()).await
        };
        // Large, and on the stack of whoever calls any way to a grid.
        Box::pin(answered.instrument(span)).await
    }

    /// Sends a request, or one whose body is put aside, until it is answered for good.
    async fn repeated(&self, request: &Request, reference: Option<&str>) -> Answer<Bytes> {
        let mut tried = false;
        let attempt = || self.attempt(request, reference, std::mem::replace(&mut tried, true));
        retry::call_with(Patience::of(self.retry()), attempt).await
    }

    async fn attempt(&self, request: &Request, reference: Option<&str>, is_repeated: bool) -> Answer<Bytes> {
        let Arrived { status, headers, mut body } = self.exchange_for(request, reference, is_repeated).await?;
        if let Some(url) = headers.get(BODY_URL_HEADER) {
            body = self.fetch(url.to_str().unwrap_or_default()).await?;
        }
        if status.is_success() {
            return Ok(body);
        }
        let retry_after_s = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        Err(refused(request.name, status, &body, retry_after_s, self.access.is_of_aws()))
    }

    /// Makes a call once. A repeated one does not wait: see [`retry::poll`].
    async fn exchange_for(&self, request: &Request, reference: Option<&str>, is_repeated: bool) -> Answer<Arrived> {
        let wait_ms = if is_repeated { 0 } else { request.wait_ms };
        let mut url = request.url.clone();
        if wait_ms > 0 {
            append(&mut url, "wait_ms", &wait_ms.to_string());
        }
        let headers = self.access.headers(request, &url, reference).await?;
        let mut builder = self.client.request(request.method.clone(), url).headers(headers);
        if !request.media_type.is_empty() {
            builder = builder.header(CONTENT_TYPE, request.media_type);
        }
        let bytes = match reference {
            Some(name) => {
                builder = builder.header(BODY_HEADER, name);
                0
            }
            None => {
                if !request.body.is_empty() {
                    builder = builder.body(request.body.clone());
                }
                request.body.len()
            }
        };
        self.exchange(request.name, builder, bytes, wait_ms).await
    }

    /// Sends a request with a body of so many bytes and reads all of its answer, which may come so late.
    async fn exchange(&self, name: &str, request: RequestBuilder, bytes: usize, wait_ms: u64) -> Answer<Arrived> {
        let upload_ms = (bytes / UPLOAD_BYTES_PER_MS_MIN) as u64;
        let patience = Duration::from_millis(wait_ms + ANSWER_MS_MAX + upload_ms);
        self.requests.fetch_add(1, Ordering::Relaxed);
        let silent = || lost(name, "it did not come in time");
        let answer = timeout(patience, request.send()).await.map_err(|_| silent())?;
        let mut answer = answer.map_err(|error| self.unanswered(name, error))?;
        let mut body = BytesMut::new();
        let pause_max = Duration::from_millis(ANSWER_MS_MAX);
        while let Some(piece) = timeout(pause_max, answer.chunk()).await.map_err(|_| silent())?.transpose() {
            let piece = piece.map_err(|error| lost(name, root(&error)))?;
            if body.is_empty() {
                let announced = answer.content_length().map_or(0, |bytes| bytes as usize);
                body.reserve(announced.min(ROOM_BYTES_MAX).max(piece.len()));
            }
            body.extend_from_slice(&piece);
        }
        let (status, headers) = (answer.status(), std::mem::take(answer.headers_mut()));
        Ok(Arrived { status, headers, body: body.freeze() })
    }

    /// What it means that there is no answer at all.
    fn unanswered(&self, name: &str, error: reqwest::Error) -> ApiError {
        let cause = root(&error);
        if error.is_connect() {
            let message = format!("there is no connection to the grid at {}: {cause}", self.base);
            ApiError::new(Code::Unavailable, message).with_hint("is the grid running, and is this its address?")
        } else if error.is_builder() {
            ApiError::invalid(format!("{name} cannot be sent: {cause}"))
        } else {
            lost(name, cause)
        }
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Remote({})", self.base)
    }
}

/// An answer, whole.
struct Arrived {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

/// One request, which can be sent any number of times.
struct Request {
    name: &'static str,
    method: Method,
    url: Url,
    body: Bytes,
    media_type: &'static str,
    wait_ms: u64,
}

impl Request {
    fn query(mut self, name: &str, value: impl fmt::Display) -> Self {
        append(&mut self.url, name, &value.to_string());
        self
    }

    /// Adds a query parameter where there is a value.
    fn query_some(self, name: &str, value: Option<impl fmt::Display>) -> Self {
        match value {
            Some(value) => self.query(name, value),
            None => self,
        }
    }

    fn body(mut self, media_type: &'static str, body: impl Into<Bytes>) -> Self {
        (self.media_type, self.body) = (media_type, body.into());
        self
    }

    fn json(self, value: &impl Serialize) -> Self {
        let body = serde_json::to_vec(value).expect("plain structs become JSON");
        self.body(JSON, body)
    }

    /// The answer may take so much longer, because the call waits for something.
    fn waiting(mut self, wait_ms: u64) -> Self {
        self.wait_ms = wait_ms.min(limits::LONG_POLL_MS_MAX);
        self
    }
}

/// Adds a query parameter. Spaces are not written as plus signs, which those who check a signature may read as such.
fn append(url: &mut Url, name: &str, value: &str) {
    url.query_pairs_mut().append_pair(name, value);
    let query = url.query().unwrap_or_default().replace('+', "%20");
    url.set_query(Some(&query));
}

fn lost(name: &str, cause: impl fmt::Display) -> ApiError {
    ApiError::new(Code::Unknown, format!("the answer to {name} was lost: {cause}"))
}

fn unreadable(name: &str, error: impl fmt::Display) -> ApiError {
    ApiError::new(Code::Internal, format!("the answer to {name} cannot be read: {error}"))
        .with_hint("are the client and the grid of the same version?")
}

/// The last cause in the chain of an error: the only one that names no URL and says what happened.
fn root(error: &reqwest::Error) -> String {
    let mut cause = error.source();
    while let Some(next) = cause.and_then(|cause| cause.source()) {
        cause = Some(next);
    }
    cause.map_or_else(|| "the connection failed".into(), ToString::to_string)
}

/// What something before a grid says instead of it.
#[derive(Default, Deserialize)]
struct Said {
    #[serde(alias = "Message")]
    message: String,
}

/// The error in an answer; where it is not from a grid but from something before it, what its status says.
fn refused(name: &str, status: StatusCode, body: &[u8], retry_after_s: Option<u64>, is_of_aws: bool) -> ApiError {
    if let Ok(error) = serde_json::from_slice(body) {
        return error;
    }
    let code = match status.as_u16() {
        401 => Code::Unauthorized,
        403 => Code::Forbidden,
        404 => Code::NotFound,
        409 => Code::Conflict,
        413 => Code::TooLarge,
        429 => Code::Throttled,
        // API Gateway says so, too, when the function did not answer in time.
        503 if !is_of_aws => Code::Unavailable,
        300..500 => Code::Invalid,
        _ => Code::Unknown,
    };
    let said = serde_json::from_slice::<Said>(body).unwrap_or_default().message;
    let reason = if said.is_empty() { "and no reason".to_owned() } else { format!("and {said:?}") };
    let retry_after_ms = retry_after_s.map(|seconds| seconds.saturating_mul(1_000));
    let error =
        ApiError { retry_after_ms, ..ApiError::new(code, format!("{name} was answered with {status} {reason}")) };
    if is_of_aws && code == Code::Forbidden {
        return error.with_hint("it takes the right execute-api:Invoke on the grid's API, and a clock that is right");
    }
    error
}

impl Api for Remote {
    async fn grid(&self) -> Answer<GridView> {
        self.json(self.get("grid", &["grid"])).await
    }

    async fn create_job(&self, request: CreateJob) -> Answer<JobView> {
        self.json(self.post("create_job", &["jobs"]).json(&request)).await
    }

    async fn submit(&self, job: JobId, chunks: Vec<SubmitChunk>) -> Answer<SubmitReply> {
        if chunks.len() > limits::WRITES_PER_CALL_MAX {
            let (found, limit) = (chunks.len(), limits::WRITES_PER_CALL_MAX);
            return Err(ApiError::new(Code::TooLarge, format!("submit of {found} chunks: the limit is {limit}")));
        }
        let request = self.request("submit", Method::PUT, &["jobs", &job.to_string(), "chunks"]);
        let body = stream::encode_submission(&chunks);
        let reply: SubmitReply = self.json(request.body(stream::MEDIA_TYPE, body)).await?;
        if reply.answers.len() != chunks.len() {
            let message = format!("{} answers for {} chunks", reply.answers.len(), chunks.len());
            return Err(unreadable("submit", message));
        }
        Ok(reply)
    }

    async fn seal(&self, job: JobId, seal: Seal) -> Answer<JobView> {
        self.json(self.post("seal", &["jobs", &job.to_string(), "seal"]).json(&seal)).await
    }

    async fn progress(&self, job: JobId, seen: Option<u64>, wait_ms: u64) -> Answer<JobView> {
        let request = self.get("progress", &["jobs", &job.to_string(), "progress"]);
        self.json(request.query_some("seen", seen).waiting(wait_ms)).await
    }

    async fn results(&self, job: JobId, read: ReadResults) -> Answer<ResultsPage> {
        let (job, have) = (job.to_string(), stream::encode_chunk_set(&read.have));
        let path = ["jobs", &job, "results"];
        let request = if have.len() > URL_SET_BYTES_MAX {
            let mut set = Vec::with_capacity(read.have.serialized_size());
            read.have.serialize_into(&mut set).expect("writing to memory");
            self.post("results", &path).body("application/octet-stream", set)
        } else {
            self.get("results", &path).query_some("have", (!have.is_empty()).then_some(have))
        };
        let request = request
            .waiting(read.wait_ms)
            .query("chunks_max", read.chunks_max)
            .query_some("with_packs", read.with_packs.then_some(true));
        let page = self.send(request).await?;
        stream::decode_results(page).map_err(|error| unreadable("results", error))
    }

    async fn cancel(&self, job: JobId) -> Answer<JobView> {
        self.json(self.post("cancel", &["jobs", &job.to_string(), "cancel"])).await
    }

    async fn retry(&self, job: JobId, request: RetryJob) -> Answer<JobView> {
        self.json(self.post("retry", &["jobs", &job.to_string(), "retry"]).json(&request)).await
    }

    async fn jobs(&self, filter: JobFilter) -> Answer<Page<JobView>> {
        let request = self.get("jobs", &["jobs"]).query_some("alive", filter.alive.then_some(true));
        let request = request.query_some("name", filter.name).query_some("before", filter.before);
        self.json(request.query("limit", filter.limit)).await
    }

    async fn task(&self, task: TaskId) -> Answer<TaskView> {
        let path = task_path(task);
        self.json(self.get("task", &["tasks", &path[0], &path[1], &path[2]])).await
    }

    async fn logs(&self, task: TaskId) -> Answer<Bytes> {
        let path = task_path(task);
        self.send(self.get("logs", &["tasks", &path[0], &path[1], &path[2], "logs"])).await
    }

    async fn events(&self, job: JobId, from: u64) -> Answer<Page<EventView>> {
        self.json(self.get("events", &["jobs", &job.to_string(), "events"]).query("from", from)).await
    }

    async fn put_function(&self, request: PutFunction) -> Answer<FunctionView> {
        let body = stream::encode_function(&request);
        self.json(self.request("put_function", Method::PUT, &["functions"]).body(stream::MEDIA_TYPE, body)).await
    }

    async fn function(&self, name: &str) -> Answer<FunctionView> {
        let (bare, _version) = name.split_once('@').unwrap_or((name, ""));
        bare.parse::<FunctionName>().map_err(|error| ApiError::invalid(error.to_string()))?;
        self.json(self.get("function", &["functions", name])).await
    }

    async fn functions(&self) -> Answer<Page<FunctionView>> {
        self.json(self.get("functions", &["functions"])).await
    }

    async fn workers(&self) -> Answer<Page<WorkerView>> {
        self.json(self.get("workers", &["workers"])).await
    }
}

fn task_path(task: TaskId) -> [String; 3] {
    [task.chunk.job.to_string(), task.chunk.number.to_string(), task.index.to_string()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_before_a_grid_is_understood() {
        let refused = |status: u16, body: &str, is_of_aws| {
            let error =
                refused("grid", StatusCode::from_u16(status).expect("one"), body.as_bytes(), Some(2), is_of_aws);
            assert_eq!(error.retry_after_ms, Some(2_000));
            error
        };
        let forbidden = refused(403, r#"{"message":"Forbidden"}"#, true);
        assert_eq!(forbidden.message, "grid was answered with 403 Forbidden and \"Forbidden\"");
        assert!(forbidden.hint.is_some_and(|hint| hint.contains("execute-api:Invoke")));
        // A function that did not answer in time may have done what it was asked.
        assert_eq!(refused(503, r#"{"message":"Service Unavailable"}"#, true).code, Code::Unknown);
        assert_eq!(refused(503, "<html>", false).code, Code::Unavailable);
        assert_eq!(refused(413, r#"{"Message":"Request Too Long"}"#, true).code, Code::TooLarge);
        assert!(refused(502, "", false).message.ends_with("and no reason"));
    }

    #[test]
    fn spaces_are_no_plus_signs() {
        let mut url = Url::parse("http://grid/v1/jobs").expect("a URL");
        append(&mut url, "name", "a + b&c");
        append(&mut url, "limit", "1");
        assert_eq!(url.query(), Some("name=a%20%2B%20b%26c&limit=1"));
    }
}
