//! The worker's side of the wire.

use std::{error::Error as _, sync::Arc, time::Duration};

use backon::{ExponentialBuilder, Retryable};
use bytes::Bytes;
use parking_lot::Mutex;
use reqwest::{Client, StatusCode, Url, header::CONTENT_TYPE};
use serde::{Serialize, de::DeserializeOwned};
use sheaf_api::{ApiError, Code};
use sheaf_protocol::StoreError;

use crate::calls::{Call, MEDIA_TYPE, decode, encode};

const CONNECT_MAX: Duration = Duration::from_secs(5);
/// How long an answer may take, besides what the call itself waits, and per byte sent.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// The slowest upload that is waited for, in bytes a ms.
const UPLOAD_BYTES_PER_MS_MIN: u64 = 1_024;
/// A connection is kept for so long after its last use: less than the server keeps it.
const IDLE_MAX: Duration = Duration::from_secs(30);
/// How long a call that did not arrive is repeated: about what a grid takes to be started again, and well within a lease.
const ABSENT_MAX: Duration = Duration::from_secs(10);
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Where a grid is.
#[derive(Clone, PartialEq, Eq)]
pub struct Place {
    /// Its URL, such as `http://127.0.0.1:7433`.
    pub url: String,
    /// Its token.
    pub token: Arc<str>,
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Place({})", self.url)
    }
}

/// Where a grid is at present, asked again whenever it cannot be reached: one that is started again may be elsewhere. `None`
/// when nobody knows.
pub type Find = dyn Fn() -> Option<Place> + Send + Sync;

/// A grid, as its workers reach it.
#[derive(Clone)]
pub(crate) struct Connection {
    client: Client,
    find: Arc<Find>,
    place: Arc<Mutex<Place>>,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Connection({})", self.place.lock().url)
    }
}

impl Connection {
    pub(crate) fn new(find: Arc<Find>) -> Result<Self, ApiError> {
        let nowhere =
            || ApiError::new(Code::Unavailable, "no grid is running there").with_hint("`sheaf up` starts one");
        let place = find().ok_or_else(nowhere)?;
        let base = base(&place)?;
        if base.scheme() != "http" || base.cannot_be_a_base() {
            return Err(ApiError::invalid(format!("{base} is not where workers join a local grid"))
                .with_hint("give an address such as http://127.0.0.1:7433"));
        }
        // Never through a proxy: the grid is on this machine, or at the end of a tunnel that begins here.
        let client = Client::builder()
            .no_proxy()
            .connect_timeout(CONNECT_MAX)
            .pool_idle_timeout(IDLE_MAX)
            .tcp_nodelay(true)
            .redirect(reqwest::redirect::Policy::none())
            .build();
        let client = client.map_err(|error| ApiError::new(Code::Internal, format!("no HTTP client: {error}")))?;
        Ok(Self { client, find, place: Arc::new(Mutex::new(place)) })
    }

    /// Makes a call, again for a while if it does not arrive.
    pub(crate) async fn call<T: DeserializeOwned>(&self, call: Call, ask: &impl Serialize) -> Result<T, ApiError> {
        self.call_waiting(call, ask, Duration::ZERO).await
    }

    /// The same, of a call that may wait for so long before it answers.
    pub(crate) async fn call_waiting<T: DeserializeOwned>(
        &self,
        call: Call,
        ask: &impl Serialize,
        wait: Duration,
    ) -> Result<T, ApiError> {
        decode(call, &self.bytes(call, ask, wait).await?)
    }

    /// The same, giving the answer as it is.
    pub(crate) async fn bytes(&self, call: Call, ask: &impl Serialize, wait: Duration) -> Result<Bytes, ApiError> {
        let body = Bytes::from(encode(ask));
        if body.len() > call.bytes_max() {
            let message = format!("{} of {} bytes: the limit is {}", call.as_str(), body.len(), call.bytes_max());
            return Err(ApiError::new(Code::TooLarge, message));
        }
        let pauses = ExponentialBuilder::new()
            .with_min_delay(PAUSE_MIN)
            .with_max_delay(PAUSE_MAX)
            .with_total_delay(Some(ABSENT_MAX))
            .with_jitter()
            .without_max_times();
        // Only what certainly did not happen: the steps know what to do about the rest.
        (|| self.once(call, body.clone(), wait)).retry(pauses).when(|error| error.code == Code::Unavailable).await
    }

    async fn once(&self, call: Call, body: Bytes, wait: Duration) -> Result<Bytes, ApiError> {
        let place = self.place.lock().clone();
        let mut url = base(&place)?;
        url.set_path(&Call::PATH.replace("{call}", call.as_str()));
        let upload = Duration::from_millis(body.len() as u64 / UPLOAD_BYTES_PER_MS_MIN);
        let request = self.client.post(url).bearer_auth(&place.token).header(CONTENT_TYPE, MEDIA_TYPE);
        let sent = request.timeout(ANSWER_MAX + wait + upload).body(body).send().await;
        let answer = sent.map_err(|error| self.unanswered(call, &place, &error))?;
        let status = answer.status();
        let body = answer.bytes().await.map_err(|error| self.unanswered(call, &place, &error))?;
        if status == StatusCode::OK { Ok(body) } else { Err(refused(call, status, &body)) }
    }

    fn unanswered(&self, call: Call, place: &Place, error: &reqwest::Error) -> ApiError {
        let mut cause = error.source();
        while let Some(next) = cause.and_then(|cause| cause.source()) {
            cause = Some(next);
        }
        let cause = cause.map_or_else(|| "the connection failed".to_owned(), ToString::to_string);
        if error.is_connect() {
            if let Some(found) = (self.find)() {
                *self.place.lock() = found;
            }
            let message = format!("there is no connection to the grid at {}: {cause}", place.url);
            ApiError::new(Code::Unavailable, message).with_hint("is the grid running, and is this its address?")
        } else {
            ApiError::new(Code::Unknown, format!("the answer to {} was lost: {cause}", call.as_str()))
        }
    }
}

fn base(place: &Place) -> Result<Url, ApiError> {
    Url::parse(&place.url).map_err(|error| ApiError::invalid(format!("{:?} is not a URL: {error}", place.url)))
}

/// The error in an answer; where it is not from a grid, what its status says.
fn refused(call: Call, status: StatusCode, body: &[u8]) -> ApiError {
    serde_json::from_slice(body).unwrap_or_else(|_| {
        let code = if status.is_client_error() { Code::Invalid } else { Code::Unknown };
        ApiError::new(code, format!("{} was answered with {status}", call.as_str()))
            .with_hint("is this the address of a grid?")
    })
}

/// What a call's error means to the steps.
pub(crate) fn store_error(call: Call, error: ApiError) -> StoreError {
    let ApiError { code, message, retry_after_ms, .. } = error;
    match code {
        Code::Throttled | Code::Unavailable => {
            StoreError::Throttled { retry_after_ms: retry_after_ms.unwrap_or_default() }
        }
        // One that has stopped is started again, by whoever runs it.
        Code::Unknown | Code::Stopped => StoreError::Unknown { detail: message },
        Code::Internal => StoreError::Damaged { object: call.as_str().to_owned(), detail: message },
        Code::Invalid
        | Code::TooLarge
        | Code::NotFound
        | Code::Conflict
        | Code::Over
        | Code::Unauthorized
        | Code::Forbidden => StoreError::Stopped { detail: message },
    }
}
