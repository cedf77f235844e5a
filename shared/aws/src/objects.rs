//! Uploaded files and their results: objects that people put and get, and the queue that tells of uploads.
//!
//! Blobs ([`crate::AwsBlobs`]) are the protocol's own: small, written once, read whole. These are of any size: they are read in
//! ranges ([`StoredObject::reader`]) and written in parts ([`ObjectWriter`]), both in threads that may block, as the reader and
//! the writer of a file are.

use std::{
    collections::HashMap,
    fmt,
    io::{self, Read, Write},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use aws_config::{SdkConfig, retry::RetryConfig};
use aws_sdk_s3::{Client, config::Builder};
use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use sheaf_api::WriteOutcome;
use sheaf_protocol::{Put, StoreError};
use tokio::{runtime::Handle, sync::OnceCell, task::JoinHandle, time::sleep};

use crate::{
    Settings,
    fault::store_error,
    notify::uploads_queue,
    parts::{PAUSE, Part, Replaces, TRIES_MAX, Upload, Written, status, unquoted, written},
};

/// Bytes of a range that is read at once; two are in memory, one being read. Source: S3's guide to performance asks for ranges
/// of 8 to 16 MB.
const RANGE_BYTES: u64 = 8 * 1024 * 1024;
/// Bytes of a part; two are in memory, one being sent. Source: S3 takes parts of 5 MiB to 5 GiB.
const PART_BYTES: usize = 8 * 1024 * 1024;
/// Parts after which the next ones are larger by [`PART_BYTES`]. Source: S3 takes 10,000 parts; growing so, they hold 430 GiB.
const PARTS_PER_SIZE: usize = 1_000;
/// Tries of the SDK for a request, the first included.
const SDK_TRIES_MAX: u32 = 3;
/// Bytes of an object that is read at once: the rest of an unfinished one, with a list of its parts, fits.
const SMALL_BYTES_MAX: u64 = 128 * 1024 * 1024;

/// Which bytes an object's key stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectVersion {
    /// The ETag, without quotes.
    pub etag: String,
    /// The id of the version, in a bucket that keeps versions.
    pub id: Option<String>,
}

/// What became of an object.
#[derive(Debug)]
pub enum Found {
    /// It is there, as it was.
    Same(StoredObject),
    /// Another has its key.
    Replaced,
    /// There is none of its key.
    Gone,
}

/// What is known of an object without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectHead {
    /// The ETag, without quotes.
    pub etag: String,
    /// Its bytes.
    pub bytes: u64,
    /// What its writer noted with it.
    pub metadata: HashMap<String, String>,
}

/// The objects and the queue of uploads of one grid. Cloning shares them.
#[derive(Debug, Clone)]
pub struct Objects {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    client: Client,
    bucket: String,
    queues: aws_sdk_sqs::Client,
    queue: String,
    queue_url: OnceCell<String>,
}

impl Objects {
    /// With a configuration of the SDK. Nothing is called yet.
    pub fn over(config: &SdkConfig, settings: &Settings) -> Self {
        let retries = RetryConfig::standard().with_max_attempts(SDK_TRIES_MAX);
        // Hosts named after buckets exist on AWS only.
        let own_endpoint = config.endpoint_url().is_some();
        let client = Builder::from(config).retry_config(retries.clone()).force_path_style(own_endpoint).build();
        let queues = aws_sdk_sqs::config::Builder::from(config).retry_config(retries).build();
        let shared = Shared {
            client: Client::from_conf(client),
            bucket: settings.bucket.clone(),
            queues: aws_sdk_sqs::Client::from_conf(queues),
            queue: uploads_queue(&settings.queues),
            queue_url: OnceCell::new(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// The bucket.
    pub fn bucket(&self) -> &str {
        &self.shared.bucket
    }

    /// Looks for one version of an object. One request; two if it is not there.
    pub async fn find(&self, key: &str, version: &ObjectVersion) -> Result<Found, StoreError> {
        let found = match self.head_of(key, version.id.as_deref()).await? {
            Some(head) if head.etag == version.etag => {
                let (objects, key, version) = (self.clone(), key.to_owned(), version.clone());
                Found::Same(StoredObject { objects, key, version, bytes: head.bytes, gone: Arc::default() })
            }
            Some(_) => Found::Replaced,
            None if version.id.is_some() && self.head(key).await?.is_some() => Found::Replaced,
            None => Found::Gone,
        };
        Ok(found)
    }

    /// What is known of the newest object of a key.
    pub async fn head(&self, key: &str) -> Result<Option<ObjectHead>, StoreError> {
        self.head_of(key, None).await
    }

    async fn head_of(&self, key: &str, version: Option<&str>) -> Result<Option<ObjectHead>, StoreError> {
        let Shared { client, bucket, .. } = &*self.shared;
        let head = client.head_object().bucket(bucket).key(key).set_version_id(version.map(Into::into));
        match head.send().await {
            Ok(head) => Ok(Some(ObjectHead {
                etag: unquoted(head.e_tag()),
                bytes: u64::try_from(head.content_length().unwrap_or_default()).unwrap_or_default(),
                metadata: head.metadata.unwrap_or_default(),
            })),
            // An answer to HEAD has no body, so its status is all there is; 405 is that of a version that marks a deletion.
            Err(error) if matches!(status(&error), Some(404 | 405)) => Ok(None),
            Err(error) => Err(store_error(error)),
        }
    }

    /// Reads a small object, of at most 128 MiB.
    pub async fn get(&self, key: &str) -> Result<Option<Bytes>, StoreError> {
        let Shared { client, bucket, .. } = &*self.shared;
        let object = match client.get_object().bucket(bucket).key(key).send().await {
            Ok(object) => object,
            Err(error) if status(&error) == Some(404) => return Ok(None),
            Err(error) => return Err(store_error(error)),
        };
        if object.content_length().is_some_and(|bytes| bytes > SMALL_BYTES_MAX as i64) {
            return Err(crate::fault::damaged(key, "it is larger than what is read at once"));
        }
        match object.body.collect().await {
            Ok(bytes) => Ok(Some(bytes.into_bytes())),
            Err(error) => Err(StoreError::Unknown { detail: format!("{key} broke off: {error}") }),
        }
    }

    /// Puts a small object in the place of what has its key.
    pub async fn put(
        &self,
        key: &str,
        bytes: Bytes,
        content_type: &str,
        metadata: HashMap<String, String>,
    ) -> Result<(), StoreError> {
        let Shared { client, bucket, .. } = &*self.shared;
        let put = client.put_object().bucket(bucket).key(key).content_type(content_type);
        put.set_metadata(Some(metadata)).body(bytes.into()).send().await.map(drop).map_err(store_error)
    }

    /// Puts a small object if there is none of its key. Of several that try at once, one succeeds.
    pub async fn put_if_absent(&self, key: &str, bytes: Bytes) -> Result<Put, StoreError> {
        let Shared { client, bucket, .. } = &*self.shared;
        let mut tries = 0;
        loop {
            tries += 1;
            let put = client.put_object().bucket(bucket).key(key).if_none_match("*").body(bytes.clone().into());
            let error = match put.send().await {
                Ok(_) => return Ok(Put::Created),
                Err(error) => error,
            };
            match status(&error) {
                Some(412) => return Ok(Put::Exists),
                // Another put of the key is under way; who comes first is open.
                Some(409) if tries < TRIES_MAX => sleep(PAUSE).await,
                _ => return Err(store_error(error)),
            }
        }
    }

    /// Deletes an object, if there is one.
    pub async fn delete(&self, key: &str) -> Result<(), StoreError> {
        let Shared { client, bucket, .. } = &*self.shared;
        client.delete_object().bucket(bucket).key(key).send().await.map(drop).map_err(store_error)
    }

    /// Starts an object that appears under its key only once it is complete. To be called inside a runtime, which sends what
    /// is written.
    pub fn write(&self, key: &str, content_type: &str, metadata: HashMap<String, String>) -> ObjectWriter {
        ObjectWriter {
            objects: self.clone(),
            key: key.to_owned(),
            content_type: content_type.to_owned(),
            metadata,
            runtime: Handle::current(),
            buffer: BytesMut::new(),
            upload: None,
            is_left: false,
            parts: Vec::new(),
            sending: None,
        }
    }

    /// Goes on with an object that somebody has left unfinished. If this is dropped, it stays so.
    pub fn go_on(
        &self,
        key: &str,
        content_type: &str,
        metadata: HashMap<String, String>,
        unfinished: Unfinished,
    ) -> ObjectWriter {
        let Unfinished { upload: id, parts, rest } = unfinished;
        let Shared { client, bucket, .. } = &*self.shared;
        let upload = Upload { client: client.clone(), bucket: bucket.clone(), key: key.to_owned(), id };
        let mut writer = self.write(key, content_type, metadata);
        (writer.buffer, writer.upload, writer.is_left, writer.parts) = (rest.into(), Some(upload), true, parts);
        writer
    }

    /// Sends a message to the queue that tells of uploads: at most 1 MiB. Source: SQS.
    pub async fn send_to_uploads(&self, message: String) -> Result<(), StoreError> {
        let Shared { queues, queue, queue_url, .. } = &*self.shared;
        let find = || async {
            let found = queues.get_queue_url().queue_name(queue).send().await.map_err(store_error)?;
            found.queue_url.ok_or_else(|| StoreError::Unknown { detail: format!("{queue} has no URL") })
        };
        let url = queue_url.get_or_try_init(find).await?;
        queues.send_message().queue_url(url).message_body(message).send().await.map(drop).map_err(store_error)
    }
}

/// One version of an object that was there, to be read.
#[derive(Debug, Clone)]
pub struct StoredObject {
    objects: Objects,
    key: String,
    version: ObjectVersion,
    bytes: u64,
    gone: Arc<AtomicBool>,
}

impl StoredObject {
    /// Its size.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether a reader found that it was deleted or replaced.
    pub fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Relaxed)
    }

    /// Reads it from the beginning, in a thread that may block. To be called inside a runtime. Nothing is called before the
    /// first read.
    pub fn reader(&self) -> ObjectReader {
        ObjectReader { object: self.clone(), runtime: Handle::current(), asked_to: 0, ready: Bytes::new(), next: None }
    }

    /// A range of it, tried again when the connection breaks off.
    async fn range(self, from: u64, to: u64) -> io::Result<Bytes> {
        let mut tries = 0;
        loop {
            tries += 1;
            match self.range_once(from, to).await {
                Err(error) if tries < TRIES_MAX && error.outcome() != WriteOutcome::Final => {
                    tracing::debug!(key = self.key, from, tries, %error, "a range was not read");
                    sleep(PAUSE * 2_u32.pow(tries - 1)).await;
                }
                read => return read.map_err(io::Error::other)?.ok_or_else(|| self.lost()),
            }
        }
    }

    /// The bytes from one position up to another; none if the object is gone.
    async fn range_once(&self, from: u64, to: u64) -> Result<Option<Bytes>, StoreError> {
        let Shared { client, bucket, .. } = &*self.objects.shared;
        let get = client.get_object().bucket(bucket).key(&self.key).range(format!("bytes={from}-{}", to - 1));
        let get = get.if_match(format!("\"{}\"", self.version.etag)).set_version_id(self.version.id.clone());
        let object = match get.send().await {
            Ok(object) => object,
            Err(error) if matches!(status(&error), Some(404 | 405 | 412)) => return Ok(None),
            Err(error) => return Err(store_error(error)),
        };
        let broken = |detail: String| StoreError::Unknown { detail: format!("{} broke off: {detail}", self.key) };
        let bytes = object.body.collect().await.map_err(|error| broken(error.to_string()))?.into_bytes();
        if bytes.len() as u64 != to - from {
            return Err(broken(format!("{} bytes instead of {}", bytes.len(), to - from)));
        }
        Ok(Some(bytes))
    }

    fn lost(&self) -> io::Error {
        self.gone.store(true, Ordering::Relaxed);
        io::Error::new(io::ErrorKind::NotFound, format!("{} was deleted or replaced", self.key))
    }
}

/// One pass over an object, ranges ahead of the reader. Memory: two ranges of 8 MiB. Costs one request per range.
pub struct ObjectReader {
    object: StoredObject,
    runtime: Handle,
    asked_to: u64,
    ready: Bytes,
    next: Option<JoinHandle<io::Result<Bytes>>>,
}

impl fmt::Debug for ObjectReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectReader").field("key", &self.object.key).field("asked_to", &self.asked_to).finish()
    }
}

impl ObjectReader {
    /// Asks for the next range; none at the end.
    fn ask(&mut self) -> Option<JoinHandle<io::Result<Bytes>>> {
        let from = self.asked_to;
        if from == self.object.bytes {
            return None;
        }
        self.asked_to = (from + RANGE_BYTES).min(self.object.bytes);
        Some(self.runtime.spawn(self.object.clone().range(from, self.asked_to)))
    }
}

impl Read for ObjectReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.ready.is_empty() {
            let Some(next) = self.next.take().or_else(|| self.ask()) else { return Ok(0) };
            self.ready = self.runtime.block_on(next).map_err(io::Error::other)??;
            self.next = self.ask();
        }
        let count = into.len().min(self.ready.len());
        into[..count].copy_from_slice(&self.ready.split_to(count));
        Ok(count)
    }
}

impl Drop for ObjectReader {
    fn drop(&mut self) {
        if let Some(next) = &self.next {
            next.abort();
        }
    }
}

/// An object being written, in a thread that may block: in parts of 8 MiB and more, or in one request if it is small. Nobody
/// sees it before [`complete`](ObjectWriter::complete), and if that is not called, nobody ever does: what was sent is given up
/// when this is dropped, unless it is [`left`](ObjectWriter::leave) to another, and by the bucket's lifecycle if that cannot be
/// done any more.
///
/// Costs one request per part and two more. Memory: two parts.
pub struct ObjectWriter {
    objects: Objects,
    key: String,
    content_type: String,
    metadata: HashMap<String, String>,
    runtime: Handle,
    buffer: BytesMut,
    upload: Option<Upload>,
    /// Somebody else may go on with the upload.
    is_left: bool,
    parts: Vec<Part>,
    sending: Option<JoinHandle<Result<Part, StoreError>>>,
}

/// An object that is written so far, for whoever goes on with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unfinished {
    upload: String,
    parts: Vec<Part>,
    /// What does not make a part yet.
    rest: Bytes,
}

impl Unfinished {
    /// S3's id of the upload: all who go on with the same one have it.
    pub fn upload(&self) -> &str {
        &self.upload
    }
}

impl fmt::Debug for ObjectWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectWriter").field("key", &self.key).field("parts", &self.parts.len()).finish()
    }
}

impl ObjectWriter {
    /// Makes what was written an object, in one step, if the condition holds.
    pub async fn complete(mut self, replaces: &Replaces) -> Result<Written, StoreError> {
        let written = match self.upload.clone() {
            None => self.put(replaces).await?,
            Some(upload) => {
                if !self.buffer.is_empty() {
                    self.send_part(&upload).await?;
                }
                self.wait_for_part().await?;
                upload.complete(&self.parts, replaces).await?
            }
        };
        if matches!(written, Written::Done { .. }) {
            self.upload = None;
        }
        Ok(written)
    }

    /// Leaves what was written to whoever goes on with it, as long as the bucket's lifecycle keeps the parts of an upload. Several
    /// may try: one of them completes it at most, with its own parts or not at all.
    pub async fn leave(mut self) -> Result<Unfinished, StoreError> {
        let upload = self.begin().await?;
        self.wait_for_part().await?;
        self.is_left = true;
        let (parts, rest) = (std::mem::take(&mut self.parts), self.buffer.split().freeze());
        Ok(Unfinished { upload: upload.id, parts, rest })
    }

    async fn put(&mut self, replaces: &Replaces) -> Result<Written, StoreError> {
        let Shared { client, bucket, .. } = &*self.objects.shared;
        let put = client.put_object().bucket(bucket).key(&self.key).content_type(&self.content_type);
        let (if_none_match, if_match) = replaces.conditions();
        let put = put.set_if_none_match(if_none_match).set_if_match(if_match);
        let put = put.set_metadata(Some(self.metadata.clone())).body(self.buffer.split().freeze().into());
        written(put.send().await.map(|put| unquoted(put.e_tag())))
    }

    fn part_bytes(&self) -> usize {
        PART_BYTES * (1 + self.parts.len() / PARTS_PER_SIZE)
    }

    async fn begin(&mut self) -> Result<Upload, StoreError> {
        if let Some(upload) = &self.upload {
            return Ok(upload.clone());
        }
        let Shared { client, bucket, .. } = &*self.objects.shared;
        let upload = Upload::begin(client, bucket, &self.key, Some(&self.content_type), &self.metadata).await?;
        self.upload = Some(upload.clone());
        Ok(upload)
    }

    /// Begins to send what is in the buffer, once the part before is there.
    async fn send_part(&mut self, upload: &Upload) -> Result<(), StoreError> {
        self.wait_for_part().await?;
        let number = self.parts.len() as i32 + 1;
        let (upload, bytes) = (upload.clone(), self.buffer.split().freeze());
        self.sending = Some(self.runtime.spawn(async move { upload.send(number, bytes).await }));
        Ok(())
    }

    async fn wait_for_part(&mut self) -> Result<(), StoreError> {
        if let Some(sending) = self.sending.take() {
            let sent = sending.await.map_err(|error| StoreError::Unknown { detail: error.to_string() })?;
            self.parts.push(sent?);
        }
        Ok(())
    }
}

impl Write for ObjectWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = self.part_bytes().saturating_sub(self.buffer.len()).max(1);
        let count = bytes.len().min(room);
        self.buffer.extend_from_slice(&bytes[..count]);
        if self.buffer.len() >= self.part_bytes() {
            let runtime = self.runtime.clone();
            let sent = runtime.block_on(async {
                let upload = self.begin().await?;
                self.send_part(&upload).await
            });
            sent.map_err(io::Error::other)?;
        }
        Ok(count)
    }

    /// Does nothing: a part is sent when it is full.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for ObjectWriter {
    fn drop(&mut self) {
        if self.is_left || self.upload.is_none() {
            return;
        }
        let (upload, sending) = (self.upload.take(), self.sending.take());
        self.runtime.spawn(async move {
            if let Some(sending) = sending {
                let _ = sending.await;
            }
            if let Some(upload) = upload {
                upload.abort().await;
            }
        });
    }
}

/// What Lambda, terraform and users do on AWS, for tests.
#[cfg(feature = "loopback")]
impl Objects {
    /// Makes the queue of uploads, and has the bucket tell it of what comes into the inbox.
    ///
    /// # Panics
    /// When that cannot be done.
    pub async fn make_uploads_queue(&self) {
        use aws_sdk_s3::types::{
            Event, FilterRule, FilterRuleName, NotificationConfiguration, NotificationConfigurationFilter,
            QueueConfiguration, S3KeyFilter,
        };
        let Shared { client, bucket, queues, queue, .. } = &*self.shared;
        let made = queues.create_queue().queue_name(queue).send().await.expect("a queue");
        let arn = aws_sdk_sqs::types::QueueAttributeName::QueueArn;
        let asked = queues.get_queue_attributes().set_queue_url(made.queue_url).attribute_names(arn.clone());
        let asked = asked.send().await.expect("its attributes");
        let arn = asked.attributes().and_then(|attributes| attributes.get(&arn)).expect("its ARN");
        let rule = FilterRule::builder().name(FilterRuleName::Prefix).value("inbox/").build();
        let filter = NotificationConfigurationFilter::builder().key(S3KeyFilter::builder().filter_rules(rule).build());
        let to = QueueConfiguration::builder().queue_arn(arn).events(Event::from("s3:ObjectCreated:*"));
        let to = to.filter(filter.build()).build().expect("an ARN and events");
        let told = NotificationConfiguration::builder().queue_configurations(to).build();
        let put = client.put_bucket_notification_configuration().bucket(bucket).notification_configuration(told);
        put.send().await.expect("notifications");
    }

    /// Takes what is in the queue of uploads, waiting up to `wait_s` for the first.
    ///
    /// # Panics
    /// When that cannot be done.
    pub async fn take_from_uploads(&self, wait_s: i32) -> Vec<String> {
        let Shared { queues, queue, .. } = &*self.shared;
        let url = queues.get_queue_url().queue_name(queue).send().await.expect("the queue").queue_url;
        let receive = queues.receive_message().set_queue_url(url.clone()).wait_time_seconds(wait_s);
        let received = receive.max_number_of_messages(10).send().await.expect("received");
        let mut bodies = Vec::new();
        for message in received.messages.unwrap_or_default() {
            let delete = queues.delete_message().set_queue_url(url.clone()).set_receipt_handle(message.receipt_handle);
            delete.send().await.expect("deleted");
            bodies.extend(message.body);
        }
        bodies
    }

    /// How many uploads in parts are neither complete nor given up.
    ///
    /// # Panics
    /// When that cannot be told.
    pub async fn uploads_open(&self) -> usize {
        let Shared { client, bucket, .. } = &*self.shared;
        client.list_multipart_uploads().bucket(bucket).send().await.expect("a list").uploads().len()
    }

    /// Has the bucket keep versions.
    ///
    /// # Panics
    /// When that cannot be done.
    pub async fn keep_versions(&self) {
        use aws_sdk_s3::types::{BucketVersioningStatus, VersioningConfiguration};
        let Shared { client, bucket, .. } = &*self.shared;
        let keep = VersioningConfiguration::builder().status(BucketVersioningStatus::Enabled).build();
        let put = client.put_bucket_versioning().bucket(bucket).versioning_configuration(keep);
        put.send().await.expect("versions");
    }
}
