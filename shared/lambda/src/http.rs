//! The HTTP API of a grid behind an HTTP API of API Gateway, or a function URL.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, header},
    response::IntoResponse,
};
use bytes::Bytes;
use http_body_util::BodyExt;
use lambda_runtime::tower::ServiceExt;
use serde_json::{Value, json};
use sheaf_api::{Answer, Api, ApiError, Code};
use sheaf_aws::{AwsBodies, AwsPorts, SdkConfig};
use sheaf_core::TenantId;
use sheaf_http::{Access, Buffered, refusal, router};
use sheaf_protocol::Service;
use tokio::time::Instant;

use crate::{BODY_HEADER, BODY_URL_HEADER, Bodies, Settings, bodies, reply, request};

/// An HTTP API ends a request after this time.
pub const ANSWER_MS_MAX: u64 = 30_000;
/// Of that, or of the function's own time where less is left of it, this is kept for reading and storing an answer after a
/// long poll has ended.
const MARGIN_MS: u64 = 5_000;
/// Lines of results end behind the chunk that takes them over so many bytes: what is larger than the Lambda gives back lies in
/// the bucket, and more would not fit into the memory and the time of the function.
const LINES_BYTES_MAX: usize = 32 * 1024 * 1024;

/// The HTTP API of a grid, for events. Whoever may invoke the function may do everything: the HTTP API in front asks for
/// signatures.
#[derive(Debug)]
pub struct Http<B> {
    router: Router,
    bodies: B,
    tenant: TenantId,
}

impl Http<AwsBodies> {
    /// Over the table, bucket and queues of a deployed grid. Nothing is called yet.
    pub fn on_aws(settings: &Settings, config: &SdkConfig) -> Self {
        let tenant = TenantId::default();
        let service = Service::new(AwsPorts::over(config, &settings.aws), tenant.clone(), settings.grid_view());
        Self::new(Arc::new(service), AwsBodies::new(config, &settings.aws.bucket), tenant)
    }
}

impl<B: Bodies> Http<B> {
    /// Over any implementation of the calls, and a place for large bodies.
    pub fn new(api: Arc<impl Api>, bodies: B, tenant: TenantId) -> Self {
        Self { router: router(api, Access::Authenticated), bodies, tenant }
    }

    /// Answers an event of payload version 2.0 within `remaining_ms`, with what the HTTP API passes on to its client. Errors are
    /// answers, too.
    pub async fn answer(&self, event: Value, remaining_ms: u64) -> Value {
        let response = match Box::pin(self.respond(event, remaining_ms)).await {
            Ok(response) => response,
            Err(error) => whole(refusal(error)).await,
        };
        reply::event(response)
    }

    async fn respond(&self, event: Value, remaining_ms: u64) -> Answer<Response<Bytes>> {
        let wait_ms = remaining_ms.min(ANSWER_MS_MAX).saturating_sub(MARGIN_MS);
        let answer_by = Instant::now() + Duration::from_millis(wait_ms);
        let mut request = request::request(event)?;
        if request.uri().path() == "/v1/bodies" {
            return self.new_body(request.method()).await;
        }
        if let Some(name) = request.headers_mut().remove(BODY_HEADER) {
            *request.body_mut() = self.body(&request, &name).await?;
        }
        let mut request: Request<Body> = request.map(Body::from);
        request.extensions_mut().insert(Buffered { answer_by, lines_bytes_max: LINES_BYTES_MAX });
        let Ok(response) = self.router.clone().oneshot(request).await;
        let response = whole(response).await;
        if reply::is_too_large(&response) { self.by_reference(response).await } else { Ok(response) }
    }

    /// A name for a body, and where to put it.
    async fn new_body(&self, method: &Method) -> Answer<Response<Bytes>> {
        if method != Method::POST {
            let error = ApiError::invalid(format!("this route does not take {method}")).with_hint("it takes POST");
            let mut response = whole(refusal(error)).await;
            *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
            return Ok(response);
        }
        let name = bodies::new_name(&self.tenant);
        let url = self.bodies.upload_url(&name).await.map_err(ApiError::from)?;
        let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
        Ok(whole((headers, json!({ "name": name, "url": url }).to_string()).into_response()).await)
    }

    /// The body that a request names.
    async fn body(&self, request: &Request<Bytes>, name: &HeaderValue) -> Answer<Bytes> {
        if !request.body().is_empty() {
            return Err(ApiError::invalid(format!("the request has a body, and another one by {BODY_HEADER}")));
        }
        bodies::taken(&self.bodies, &self.tenant, name.to_str().unwrap_or_default()).await
    }

    /// Puts the body of a reply where the client gets it by itself.
    async fn by_reference(&self, response: Response<Bytes>) -> Answer<Response<Bytes>> {
        let (mut head, body) = response.into_parts();
        let name = bodies::new_name(&self.tenant);
        let bytes = body.len();
        // The call has been carried out: what fails now loses its answer.
        let lost = |error: ApiError| ApiError { code: Code::Unknown, ..error };
        self.bodies.give(&name, body).await.map_err(|error| lost(error.into()))?;
        let url = self.bodies.download_url(&name).await.map_err(|error| lost(error.into()))?;
        let url = HeaderValue::try_from(url)
            .map_err(|_| ApiError::new(Code::Internal, "the URL of the answer is not one"))?;
        tracing::debug!(name, bytes, "an answer goes through the bucket");
        head.headers.insert(HeaderName::from_static(BODY_URL_HEADER), url);
        Ok(Response::from_parts(head, Bytes::new()))
    }
}

/// A reply with its whole body. One that breaks off on the way is an answer that was lost.
async fn whole(response: Response<Body>) -> Response<Bytes> {
    let (head, body) = response.into_parts();
    match body.collect().await {
        Ok(body) => Response::from_parts(head, body.to_bytes()),
        Err(error) => {
            let error = ApiError::new(Code::Unknown, format!("the answer broke off: {error}"));
            Box::pin(whole(refusal(error))).await
        }
    }
}
