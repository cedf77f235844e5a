//! Bytes in S3.
//!
//! A put is one `PutObject` with `If-None-Match: *`; a blob over 32 MiB goes in parts, several at once, so that what breaks off
//! is a part and not all of it. The SDK may retry here: a put whose lost first try had succeeded answers that the blob exists,
//! which is true.

use std::collections::HashMap;

use aws_config::{SdkConfig, retry::RetryConfig};
use aws_sdk_s3::{
    Client,
    config::Builder,
    types::{Delete, Object, ObjectIdentifier},
};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use sheaf_protocol::{BlobStore, Put, StoreError};

use crate::{
    fault::store_error,
    parts::{PAUSE, Replaces, Upload, Written, status},
};

/// Requests of one call that are under way at once.
const CONCURRENT_MAX: usize = 16;
/// Tries of the SDK, the first included.
const TRIES_MAX: u32 = 3;
/// Blobs of more bytes are sent in parts of as many, so many at once. Source: S3's guide to performance asks for parts of 8 to
/// 16 MB; a larger one takes fewer requests, and what Sheaf writes is rarely larger than [`limits::SEGMENT_BYTES_TARGET`].
///
/// [`limits::SEGMENT_BYTES_TARGET`]: sheaf_core::limits::SEGMENT_BYTES_TARGET
const PART_BYTES: usize = 32 * 1024 * 1024;
const PARTS_AT_ONCE: usize = 4;
/// Tries of a put that meets another put of the same key.
const CONFLICTS_MAX: u32 = 5;
/// Tries of keys that a deletion did not take.
const DELETIONS_MAX: u32 = 3;

/// The objects of one bucket.
#[derive(Debug, Clone)]
pub struct AwsBlobs {
    client: Client,
    bucket: String,
}

impl AwsBlobs {
    /// The blobs in a bucket, which must exist.
    pub fn new(config: &SdkConfig, bucket: &str) -> Self {
        // Hosts named after buckets exist on AWS only.
        let own_endpoint = config.endpoint_url().is_some();
        let builder = Builder::from(config)
            .retry_config(RetryConfig::standard().with_max_attempts(TRIES_MAX))
            .force_path_style(own_endpoint);
        Self { client: Client::from_conf(builder.build()), bucket: bucket.to_owned() }
    }

    async fn put_one(&self, key: String, bytes: Bytes) -> Result<Put, StoreError> {
        if bytes.len() > PART_BYTES {
            return self.put_parts(&key, &bytes).await;
        }
        let mut tries = 0;
        loop {
            tries += 1;
            let put = self.client.put_object().bucket(&self.bucket).key(&key).if_none_match("*");
            let error = match put.body(bytes.clone().into()).send().await {
                Ok(_) => return Ok(Put::Created),
                Err(error) => error,
            };
            match status(&error) {
                Some(412) => return Ok(Put::Exists),
                // Another put of the key is under way; who comes first is open.
                Some(409) if tries < CONFLICTS_MAX => {}
                _ => return Err(store_error(error)),
            }
        }
    }

    async fn put_parts(&self, key: &str, bytes: &Bytes) -> Result<Put, StoreError> {
        let upload = Upload::begin(&self.client, &self.bucket, key, None, &HashMap::new()).await?;
        let numbered = (1..).zip((0..bytes.len()).step_by(PART_BYTES));
        let sending = numbered.map(|(number, from)| {
            let part = bytes.slice(from..bytes.len().min(from + PART_BYTES));
            upload.send(number, part)
        });
        let sent = stream::iter(sending).buffered(PARTS_AT_ONCE).try_collect::<Vec<_>>().await;
        let written = match sent {
            Ok(parts) => upload.complete(&parts, &Replaces::Nothing).await,
            Err(error) => Err(error),
        };
        match written {
            Ok(Written::Done { .. }) => Ok(Put::Created),
            Ok(Written::Refused) => {
                upload.abort().await;
                // Or another put of the key is under way; who comes first is open.
                let there = self.client.head_object().bucket(&self.bucket).key(key).send().await;
                let retry_after_ms = PAUSE.as_millis() as u64;
                there.map(|_| Put::Exists).map_err(|_| StoreError::Throttled { retry_after_ms })
            }
            Err(error) => {
                upload.abort().await;
                Err(error)
            }
        }
    }

    async fn get_one(&self, key: String) -> Result<Option<Bytes>, StoreError> {
        let object = match self.client.get_object().bucket(&self.bucket).key(&key).send().await {
            Ok(object) => object,
            Err(error) if error.as_service_error().is_some_and(|error| error.is_no_such_key()) => return Ok(None),
            Err(error) => return Err(store_error(error)),
        };
        match object.body.collect().await {
            Ok(bytes) => Ok(Some(bytes.into_bytes())),
            Err(error) => Err(StoreError::Unknown { detail: format!("{key} broke off: {error}") }),
        }
    }

    /// Deletes up to 1,000 objects, each until it is gone.
    async fn delete(&self, objects: &[Object]) -> Result<(), StoreError> {
        let identifier = |key: &str| ObjectIdentifier::builder().key(key).build().expect("the key is set");
        let mut open: Vec<ObjectIdentifier> = objects.iter().filter_map(Object::key).map(identifier).collect();
        for _ in 0..DELETIONS_MAX {
            if open.is_empty() {
                return Ok(());
            }
            let delete = Delete::builder().set_objects(Some(open)).quiet(true).build().expect("there are objects");
            let answer = self.client.delete_objects().bucket(&self.bucket).delete(delete).send().await;
            open =
                answer.map_err(store_error)?.errors().iter().filter_map(|error| error.key()).map(identifier).collect();
        }
        match open.first() {
            None => Ok(()),
            Some(one) => {
                let detail = format!("{} objects were not deleted, such as {}", open.len(), one.key());
                Err(StoreError::Unknown { detail })
            }
        }
    }
}

impl BlobStore for AwsBlobs {
    async fn put(&self, blobs: Vec<(String, Bytes)>) -> Vec<Result<Put, StoreError>> {
        stream::iter(blobs).map(|(key, bytes)| self.put_one(key, bytes)).buffered(CONCURRENT_MAX).collect().await
    }

    async fn get(&self, keys: &[String]) -> Vec<Result<Option<Bytes>, StoreError>> {
        stream::iter(keys.to_vec()).map(|key| self.get_one(key)).buffered(CONCURRENT_MAX).collect().await
    }

    /// Costs one listing and one deletion per 1,000 blobs.
    async fn delete_prefix(&self, prefix: &str) -> Result<(), StoreError> {
        let list = self.client.list_objects_v2().bucket(&self.bucket).prefix(prefix);
        let mut pages = list.into_paginator().send();
        while let Some(page) = pages.next().await {
            match page {
                Ok(page) => self.delete(page.contents()).await?,
                Err(error) => return Err(store_error(error)),
            }
        }
        Ok(())
    }
}
