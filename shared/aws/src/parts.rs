//! Objects that are sent in parts, and appear in one step.

use std::{collections::HashMap, time::Duration};

use aws_sdk_s3::{
    Client,
    config::http::HttpResponse,
    error::{ProvideErrorMetadata, SdkError},
    types::{ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart},
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sheaf_api::WriteOutcome;
use sheaf_protocol::StoreError;
use tokio::time::sleep;

use crate::fault::store_error;

/// Tries of a part beyond the SDK's own, with pauses from this long, doubled.
pub(crate) const TRIES_MAX: u32 = 5;
pub(crate) const PAUSE: Duration = Duration::from_millis(100);

/// What must hold for an object to be written. S3 decides in one step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Replaces {
    /// There is none of its key.
    Nothing,
    /// The one with this ETag, without quotes, is still there.
    Etag(String),
}

impl Replaces {
    /// As the headers `If-None-Match` and `If-Match`.
    pub(crate) fn conditions(&self) -> (Option<String>, Option<String>) {
        match self {
            Self::Nothing => (Some("*".to_owned()), None),
            Self::Etag(etag) => (None, Some(format!("\"{etag}\""))),
        }
    }
}

/// What became of a conditional write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Written {
    /// It is there, with this ETag, without quotes.
    Done {
        /// The ETag.
        etag: String,
    },
    /// Its condition does not hold, somebody else is writing the key, or the upload is no more.
    Refused,
}

/// A part that S3 has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Part {
    number: i32,
    etag: Option<String>,
    crc32: Option<String>,
}

/// An upload in parts, of one key. Nobody sees it before it is complete. If it never is, the bucket's lifecycle gives it up.
#[derive(Debug, Clone)]
pub(crate) struct Upload {
    pub(crate) client: Client,
    pub(crate) bucket: String,
    pub(crate) key: String,
    pub(crate) id: String,
}

impl Upload {
    /// Begins one.
    pub(crate) async fn begin(
        client: &Client,
        bucket: &str,
        key: &str,
        content_type: Option<&str>,
        metadata: &HashMap<String, String>,
    ) -> Result<Self, StoreError> {
        let create =
            client.create_multipart_upload().bucket(bucket).key(key).checksum_algorithm(ChecksumAlgorithm::Crc32);
        let create = create.set_content_type(content_type.map(Into::into)).set_metadata(Some(metadata.clone()));
        let id = create.send().await.map_err(store_error)?.upload_id;
        let id = id.ok_or_else(|| StoreError::Unknown { detail: format!("no upload of {key}") })?;
        Ok(Self { client: client.clone(), bucket: bucket.to_owned(), key: key.to_owned(), id })
    }

    /// Sends a part, in the place of one that has its number. All but the last must have 5 MiB at least. Source: S3.
    pub(crate) async fn send(&self, number: i32, bytes: Bytes) -> Result<Part, StoreError> {
        let Self { client, bucket, key, id } = self;
        let mut tries = 0;
        loop {
            tries += 1;
            let part = client.upload_part().bucket(bucket).key(key).upload_id(id).part_number(number);
            let part = part.checksum_algorithm(ChecksumAlgorithm::Crc32).body(bytes.clone().into());
            match part.send().await.map_err(store_error) {
                Ok(sent) => return Ok(Part { number, etag: sent.e_tag, crc32: sent.checksum_crc32 }),
                Err(error) if tries < TRIES_MAX && error.outcome() != WriteOutcome::Final => {
                    sleep(PAUSE * 2_u32.pow(tries - 1)).await
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Makes the parts an object, if the condition holds.
    pub(crate) async fn complete(&self, parts: &[Part], replaces: &Replaces) -> Result<Written, StoreError> {
        let Self { client, bucket, key, id } = self;
        let part = |part: &Part| {
            let completed = CompletedPart::builder().part_number(part.number).set_e_tag(part.etag.clone());
            completed.set_checksum_crc32(part.crc32.clone()).build()
        };
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts.iter().map(part).collect())).build();
        let (if_none_match, if_match) = replaces.conditions();
        let complete = client.complete_multipart_upload().bucket(bucket).key(key).upload_id(id);
        let complete = complete.set_if_none_match(if_none_match).set_if_match(if_match).multipart_upload(parts);
        written(complete.send().await.map(|complete| unquoted(complete.e_tag())))
    }

    /// Gives it up. What cannot be given up now is by the bucket's lifecycle.
    pub(crate) async fn abort(&self) {
        let Self { client, bucket, key, id } = self;
        let abort = client.abort_multipart_upload().bucket(bucket).key(key).upload_id(id);
        if let Err(error) = abort.send().await.map_err(store_error) {
            tracing::warn!(key, %error, "an upload was not given up; the bucket's lifecycle will");
        }
    }
}

pub(crate) fn status<E>(error: &SdkError<E, HttpResponse>) -> Option<u16> {
    error.raw_response().map(|response| response.status().as_u16())
}

pub(crate) fn written<E>(sent: Result<String, SdkError<E, HttpResponse>>) -> Result<Written, StoreError>
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    match sent {
        Ok(etag) => Ok(Written::Done { etag }),
        // 404: what was to be replaced is gone, or the upload is. Source: S3's guide to conditional writes.
        Err(error) if matches!(status(&error), Some(404 | 409 | 412)) => Ok(Written::Refused),
        Err(error) => Err(store_error(error)),
    }
}

pub(crate) fn unquoted(etag: Option<&str>) -> String {
    etag.unwrap_or_default().trim_matches('"').to_owned()
}
