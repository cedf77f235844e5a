//! What every request passes through: its span, the check of its caller, and what all answers have in common.

use std::sync::Arc;

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderValue, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use sheaf_api::{ApiError, Code};
use tokio::time::Instant;
use tracing::Instrument;

use crate::{Access, ROUTES, answer::Refusal, drain::Shared, serve::Stopping};

pub(crate) async fn guard(State(access): State<Arc<Access>>, request: Request, next: Next) -> Response {
    let started_at = Instant::now();
    let path = request.extensions().get::<MatchedPath>().cloned();
    let path = path.as_ref().map_or("unknown", MatchedPath::as_str);
    let stopping = request.extensions().get::<Stopping>().cloned();
    let span = tracing::info_span!("request", method = %request.method(), path);
    let (request, body) = Shared::of(request);
    let is_open = ROUTES.iter().any(|route| route.is_open && route.path == path);
    let mut response = match access.check(request.uri(), request.headers(), is_open) {
        Ok(()) => next.run(request).instrument(span.clone()).await,
        Err(error) => Refusal::from(error).into_response(),
    };
    let mut code = response.extensions().get::<Code>().copied();
    if code == Some(Code::Stopped) && stopping.is_some_and(|stopping| stopping.is_stopped()) {
        // A grid that stops because its server was told to is one that comes back: the caller is to try again.
        let restarting = ApiError::new(Code::Unknown, "the grid was stopped while the call was under way");
        response = Refusal::from(restarting.with_retry_after_ms(1_000)).into_response();
        code = Some(Code::Unknown);
    }
    if let (Some(_), Some(body)) = (code, body) {
        body.drain().await;
    }
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let (status, ms) = (response.status().as_u16(), started_at.elapsed().as_millis() as u64);
    let code = code.map(Code::as_str);
    span.in_scope(|| match status {
        500.. => tracing::warn!(status, code, ms, "failed"),
        400.. => tracing::info!(status, code, ms, "refused"),
        _ => tracing::debug!(status, ms, "answered"),
    });
    response
}
