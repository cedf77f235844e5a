//! From an event of an HTTP API (payload version 2.0) to a request.

use aws_lambda_events::apigw::ApiGatewayV2httpRequest;
use axum::http::{Request, Uri};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde_json::Value;
use sheaf_api::{Answer, ApiError};

/// The request that an event carries. What no HTTP API sends is refused, never a panic.
pub(crate) fn request(event: Value) -> Answer<Request<Bytes>> {
    let refuse = |what: &str| ApiError::invalid(format!("the event is not a request of an HTTP API: {what}"));
    let event: ApiGatewayV2httpRequest = serde_json::from_value(event).map_err(|error| refuse(&error.to_string()))?;
    let body = match event.body {
        None => Bytes::new(),
        Some(text) if event.is_base64_encoded => {
            STANDARD.decode(text).map_err(|_| refuse("its body is not base64"))?.into()
        }
        Some(text) => text.into(),
    };
    let path = event.raw_path.unwrap_or_default();
    let path = without_stage(&path, event.request_context.stage.as_deref());
    let target = match event.raw_query_string.filter(|query| !query.is_empty()) {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    let uri: Uri = target.parse().map_err(|_| refuse("its path is not one"))?;
    let mut request = Request::new(body);
    *request.method_mut() = event.request_context.http.method;
    *request.uri_mut() = uri;
    *request.headers_mut() = event.headers;
    // Of what came over the wire; the body is whole and decoded here.
    for header in ["content-length", "transfer-encoding", "expect"] {
        request.headers_mut().remove(header);
    }
    Ok(request)
}

/// All stages but the default one stand before the path.
fn without_stage<'a>(path: &'a str, stage: Option<&str>) -> &'a str {
    let named = stage.filter(|stage| *stage != "$default");
    let rest = named.and_then(|stage| path.strip_prefix('/')?.strip_prefix(stage)).filter(|rest| rest.starts_with('/'));
    rest.unwrap_or(path)
}
