//! Bodies that do not fit through a Lambda.

use bytes::Bytes;
use sheaf_api::{Answer, ApiError, Code};
use sheaf_aws::{AwsBodies, BODIES_PREFIX, Taken};
use sheaf_core::{TenantId, limits};
use sheaf_protocol::StoreError;
use uuid::Uuid;

/// The header of a request whose body lies in the bucket: its name.
pub const BODY_HEADER: &str = "x-sheaf-body";
/// The header of an answer whose body lies in the bucket: where to get it.
pub const BODY_URL_HEADER: &str = "x-sheaf-body-url";

/// A place for bodies, and the URLs by which clients reach it without passing through the Lambda.
pub trait Bodies: Send + Sync + 'static {
    /// A URL to put a body to, for some minutes.
    fn upload_url(&self, name: &str) -> impl Future<Output = Result<String, StoreError>> + Send;

    /// A URL to get a body from, for some minutes.
    fn download_url(&self, name: &str) -> impl Future<Output = Result<String, StoreError>> + Send;

    /// Reads a body of at most so many bytes, and leaves it there: the call may be repeated.
    fn take(&self, name: &str, bytes_max: u64) -> impl Future<Output = Result<Taken, StoreError>> + Send;

    /// Writes a body.
    fn give(&self, name: &str, body: Bytes) -> impl Future<Output = Result<(), StoreError>> + Send;
}

impl Bodies for AwsBodies {
    async fn upload_url(&self, name: &str) -> Result<String, StoreError> {
        self.upload_url(name).await
    }

    async fn download_url(&self, name: &str) -> Result<String, StoreError> {
        self.download_url(name).await
    }

    async fn take(&self, name: &str, bytes_max: u64) -> Result<Taken, StoreError> {
        self.take(name, bytes_max).await
    }

    async fn give(&self, name: &str, body: Bytes) -> Result<(), StoreError> {
        self.give(name, body).await
    }
}

/// A name that nothing has yet.
pub(crate) fn new_name(tenant: &TenantId) -> String {
    format!("{}{}", prefix(tenant), Uuid::new_v4())
}

fn prefix(tenant: &TenantId) -> String {
    format!("{BODIES_PREFIX}{tenant}/")
}

/// The body of a name, which must be one of the tenant's: a name is not to lead anywhere else in the bucket.
pub(crate) async fn taken(bodies: &impl Bodies, tenant: &TenantId, name: &str) -> Answer<Bytes> {
    let prefix = prefix(tenant);
    let id = name.strip_prefix(&prefix).and_then(|id| id.parse::<Uuid>().ok());
    // An id may be written in several ways; S3 knows only the one.
    if id.is_none_or(|id| name != format!("{prefix}{id}")) {
        return Err(ApiError::invalid(format!("the header {BODY_HEADER} names no body"))
            .with_hint("POST /v1/bodies gives a name and where to put the body"));
    }
    let limit = limits::REQUEST_BYTES_MAX as u64;
    match bodies.take(name, limit).await.map_err(ApiError::from)? {
        Taken::Body(body) => Ok(body),
        Taken::Absent => Err(ApiError::new(Code::NotFound, format!("there is no body {name}"))
            .with_hint("put it to the URL of its name first; bodies are kept for a day")),
        Taken::TooLarge { bytes } => {
            Err(ApiError::new(Code::TooLarge, format!("the body has {bytes} bytes: the limit is {limit}")))
        }
    }
}
