//! Bodies of calls that go through the bucket, for those that do not fit through a Lambda: URLs that whoever holds them may
//! put to or get from for a while.
//!
//! The bucket forgets them after a day (a lifecycle rule on the prefix, see `infra/terraform`).

use std::time::Duration;

use aws_config::SdkConfig;
use aws_sdk_s3::{
    Client,
    config::{Builder, RequestChecksumCalculation, ResponseChecksumValidation},
    presigning::{PresignedRequest, PresigningConfig},
};
use bytes::Bytes;
use sheaf_protocol::StoreError;

use crate::fault::store_error;

/// What the names of bodies begin with.
pub const BODIES_PREFIX: &str = "u/";
/// How long a URL may be used. Source: ample for 256 MiB over a slow line, short for a URL that got about.
pub const URL_MS_MAX: u64 = 15 * 60 * 1_000;

/// The bodies in a bucket. Cloning shares the connections.
#[derive(Debug, Clone)]
pub struct AwsBodies {
    client: Client,
    bucket: String,
}

/// What became of reading a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Taken {
    /// All of it.
    Body(Bytes),
    /// There is none of this name.
    Absent,
    /// It is larger than was allowed, and was not read.
    TooLarge {
        /// Its size.
        bytes: u64,
    },
}

impl AwsBodies {
    /// The bodies in a bucket, which must exist. Nothing is called yet.
    pub fn new(config: &SdkConfig, bucket: &str) -> Self {
        // A URL must say all that is signed: a checksum of what will be put to it is not known, and nobody asks for one of what
        // is got from it.
        let builder = Builder::from(config)
            .force_path_style(config.endpoint_url().is_some())
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
        Self { client: Client::from_conf(builder.build()), bucket: bucket.to_owned() }
    }

    /// A URL to put a body to. Costs no request.
    pub async fn upload_url(&self, name: &str) -> Result<String, StoreError> {
        let put = self.client.put_object().bucket(&self.bucket).key(name).presigned(for_a_while()).await;
        put.map(url).map_err(store_error)
    }

    /// A URL to get a body from. Costs no request.
    pub async fn download_url(&self, name: &str) -> Result<String, StoreError> {
        let get = self.client.get_object().bucket(&self.bucket).key(name).presigned(for_a_while()).await;
        get.map(url).map_err(store_error)
    }

    /// Reads a body of at most so many bytes. It stays where it is: the call may be repeated.
    pub async fn take(&self, name: &str, bytes_max: u64) -> Result<Taken, StoreError> {
        let object = match self.client.get_object().bucket(&self.bucket).key(name).send().await {
            Ok(object) => object,
            Err(error) if error.as_service_error().is_some_and(|error| error.is_no_such_key()) => {
                return Ok(Taken::Absent);
            }
            Err(error) => return Err(store_error(error)),
        };
        // An object in S3 always has a length; without one there is nothing to trust.
        let bytes = object.content_length().and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(u64::MAX);
        if bytes > bytes_max {
            return Ok(Taken::TooLarge { bytes });
        }
        match object.body.collect().await {
            Ok(body) => Ok(Taken::Body(body.into_bytes())),
            Err(error) => Err(StoreError::Unknown { detail: format!("{name} broke off: {error}") }),
        }
    }

    /// Writes a body.
    pub async fn give(&self, name: &str, body: Bytes) -> Result<(), StoreError> {
        let put = self.client.put_object().bucket(&self.bucket).key(name).body(body.into());
        put.send().await.map(drop).map_err(store_error)
    }
}

fn for_a_while() -> PresigningConfig {
    PresigningConfig::expires_in(Duration::from_millis(URL_MS_MAX)).expect("less than a week")
}

fn url(request: PresignedRequest) -> String {
    debug_assert_eq!(request.headers().count(), 0, "whoever has the URL has all");
    request.uri().to_owned()
}
