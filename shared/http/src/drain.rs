//! Reading on after a refusal.
//!
//! A server that answers and closes while the client is still sending makes the client's system throw the answer away: it
//! sees a broken connection, where it was told that its token is wrong. So what is left of the body of a refused request is
//! read and forgotten, within bounds, before the answer goes out.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use axum::{body::Body, extract::Request, http::header};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body as _, Frame, SizeHint};

/// The most that is read only to be forgotten.
const DRAIN_BYTES_MAX: usize = 64 * 1024 * 1024;
/// The longest that this may take.
const DRAIN_MS_MAX: u64 = 2_000;

/// A body that two may hold: whoever reads the request, and whoever has to bring it to its end.
#[derive(Clone)]
pub(crate) struct Shared(Arc<Mutex<Body>>);

impl Shared {
    /// Puts a shared body in place of a request's own. `None` when there is nothing to read, or when the client sends it only
    /// once asked to.
    pub(crate) fn of(request: Request) -> (Request, Option<Self>) {
        if request.body().is_end_stream() || request.headers().contains_key(header::EXPECT) {
            return (request, None);
        }
        let (head, body) = request.into_parts();
        let shared = Self(Arc::new(Mutex::new(body)));
        (Request::from_parts(head, Body::new(shared.clone())), Some(shared))
    }

    fn body(&self) -> MutexGuard<'_, Body> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads what is left, within bounds.
    pub(crate) async fn drain(mut self) {
        let rest = async {
            let mut bytes_left = DRAIN_BYTES_MAX;
            while let Some(Ok(frame)) = self.frame().await {
                let bytes = frame.data_ref().map_or(0, Bytes::len);
                let Some(left) = bytes_left.checked_sub(bytes) else { return };
                bytes_left = left;
            }
        };
        // Whether it came to its end does not matter: there is no more that could be done.
        let _ = tokio::time::timeout(Duration::from_millis(DRAIN_MS_MAX), rest).await;
    }
}

impl hyper::body::Body for Shared {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut *self.body()).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body().is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body().size_hint()
    }
}
