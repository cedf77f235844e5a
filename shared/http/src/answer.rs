//! What goes back: JSON, parts, and refusals.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use serde::Serialize;
use sheaf_api::{ApiError, Code, FormatError};

/// The media type of lines of JSON.
pub(crate) const NDJSON: &str = "application/x-ndjson";
const JSON: &str = "application/json";

/// An error on its way out: JSON under the status of its code. The code also travels as an extension of the response, for
/// the span of the request.
#[derive(Debug)]
pub(crate) struct Refusal {
    error: ApiError,
    status: StatusCode,
}

impl Refusal {
    /// The same under another status than its code's.
    pub(crate) fn with_status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }
}

impl From<FormatError> for Refusal {
    fn from(error: FormatError) -> Self {
        ApiError::from(error).into()
    }
}

impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Self {
        let status = StatusCode::from_u16(error.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self { error, status }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let Self { error, status } = self;
        let body = serde_json::to_vec(&error).expect("a code, texts and a number become JSON");
        let mut response = (status, [(header::CONTENT_TYPE, JSON)], body).into_response();
        if let Some(retry_after_ms) = error.retry_after_ms {
            let seconds = HeaderValue::from(retry_after_ms.div_ceil(1_000).max(1));
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
        }
        if error.code == Code::Unauthorized {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response.extensions_mut().insert(error.code);
        response
    }
}

/// What a handler gives.
pub(crate) type Reply = Result<Response, Refusal>;

/// A reply of 200 with a value as JSON.
pub(crate) fn json<T: Serialize>(value: &T) -> Reply {
    json_with(StatusCode::OK, value)
}

/// A reply with a value as JSON.
pub(crate) fn json_with<T: Serialize>(status: StatusCode, value: &T) -> Reply {
    let body = serde_json::to_vec(value)
        .map_err(|error| ApiError::new(Code::Internal, format!("the answer cannot be written as JSON: {error}")))?;
    Ok((status, [(header::CONTENT_TYPE, JSON)], body).into_response())
}

/// A reply of parts that are sent one after the other as they are, without being copied together.
pub(crate) fn parts(media_type: &'static str, parts: Vec<Bytes>) -> Response {
    let bytes_left = parts.iter().map(|part| part.len() as u64).sum();
    let body = Body::new(Parts { parts: parts.into_iter(), bytes_left });
    ([(header::CONTENT_TYPE, media_type)], body).into_response()
}

/// A body of known length whose frames are the parts.
struct Parts {
    parts: std::vec::IntoIter<Bytes>,
    bytes_left: u64,
}

impl hyper::body::Body for Parts {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let part = self.parts.find(|part| !part.is_empty());
        self.bytes_left -= part.as_ref().map_or(0, |part| part.len() as u64);
        Poll::Ready(part.map(|part| Ok(Frame::data(part))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes_left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes_left)
    }
}
