//! From a reply to what an HTTP API wants of a Lambda.

use aws_lambda_events::{apigw::ApiGatewayV2httpResponse, encodings::Body};
use axum::http::{Response, header};
use bytes::Bytes;
use serde_json::Value;

/// Bytes of a body that goes through the Lambda as base64. Source: Lambda gives back 6 MB, of which base64 leaves three
/// quarters; what is short of 6 MiB is for the headers.
pub const BINARY_BYTES_MAX: usize = 4_500_000;
/// Bytes of a text that goes through as it is. Source: as JSON in JSON it at most doubles, each quote and backslash being
/// escaped again.
pub const TEXT_BYTES_MAX: usize = 3_000_000;

/// Whether a body travels as text rather than as base64, by its media type.
fn is_text(response: &Response<Bytes>) -> bool {
    let media_type = response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let text = ["text/", "application/json", "application/x-ndjson", "application/yaml"];
    media_type.is_some_and(|media_type| text.iter().any(|prefix| media_type.starts_with(prefix)))
}

/// Whether a body is too large for the Lambda.
pub(crate) fn is_too_large(response: &Response<Bytes>) -> bool {
    response.body().len() > if is_text(response) { TEXT_BYTES_MAX } else { BINARY_BYTES_MAX }
}

/// The answer to the HTTP API.
pub(crate) fn event(response: Response<Bytes>) -> Value {
    let text = is_text(&response);
    let (head, body) = response.into_parts();
    let mut event = ApiGatewayV2httpResponse::default();
    event.status_code = head.status.as_u16().into();
    event.headers = head.headers;
    // API Gateway counts what it sends by itself.
    event.headers.remove(header::CONTENT_LENGTH);
    let body = match String::from_utf8(body.into()) {
        Ok(body) if text => Body::Text(body),
        Ok(body) => Body::Binary(body.into_bytes()),
        Err(error) => Body::Binary(error.into_bytes()),
    };
    event.is_base64_encoded = matches!(body, Body::Binary(_));
    event.body = Some(body);
    serde_json::to_value(event).expect("texts and numbers become JSON")
}
