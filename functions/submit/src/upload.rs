//! Uploaded files: an object under `inbox/` becomes a job, and its results an object under `outbox/`.
//!
//! # Messages
//! The queue of uploads brings four kinds:
//! - S3's event that an object was created. It is checked and submitted, as far as the time of the invocation allows.
//! - `{"continue": …}`, from here: a submission goes on where an invocation had to end. It is sent before that one answers.
//! - `{"collect": "job_…"}`, from the result step: the job of an upload is over, and its results are written.
//! - `{"write": …}`, from here: writing them goes on where an invocation had to end, as the object `u/collect/…` says that the
//!   message names.
//!
//! # Which job it becomes
//! The job's id is made of bucket, key and the version's id, or of the ETag and S3's sequencer where the bucket keeps no versions.
//! So an event that comes twice, late or again is the same job, and uploading a key again is a new one. All that happens to the
//! file afterwards is found from the job: its origin is the object's URL, and its labels tell the version.
//!
//! # Where everything goes
//! | what | where |
//! |---|---|
//! | results of `inbox/night/a.json` | `outbox/night/a.txt` |
//! | why it is refused, with line and column | `outbox/night/a.error.json`; removed by the next good file of that stem |
//! | results of a second file of the stem, `inbox/night/a.csv` | `outbox/night/a.csv.txt`, then and ever after |
//! | who has the name `night/a` | `outbox/.names/night/a`, put once: its bytes are the key |
//!
//! Names that are hidden or not whole yet are left alone, as in a watched folder. The results of an older version never take the
//! place of those of a newer one. An object that is deleted or replaced before it was read is none; one that is deleted later
//! has its results all the same, unless commands of unknown functions are only in it.
//!
//! # Trouble
//! A bad file has its report, and its message is done. Everything else fails the message: it comes again, and goes to the dead
//! letters if it keeps failing. Every step may be repeated: submitting finds the chunks that are there, writing goes on behind the
//! parts that are there, and of two that write the same results one completes them.

mod message;
mod names;
mod source;
#[cfg(test)]
mod tests;
mod trouble;
mod work;

use std::{future::Future, time::Duration};

use serde_json::{Value, json};
use sheaf_api::Api;
use sheaf_aws::{AwsPorts, Objects, SdkConfig};
use sheaf_core::TenantId;
use sheaf_files::FileOptions;
use sheaf_lambda::{Error, Settings};
use sheaf_protocol::Service;
use tokio::{sync::OnceCell, time::Instant};
use tracing::Instrument;

use message::{Continuation, Message};
use trouble::Trouble;

/// What is kept of an invocation's time for answering what is under way when it is told to stop, at most; of a short time, a
/// quarter. Source: a call of the grid gives up after a good minute, and is rarely longer than a second.
const STOP_BEFORE: Duration = Duration::from_secs(60);

/// Answers a batch of messages of the queue of uploads, with `remaining_ms` left for it: with those of them that are to come
/// again.
pub(crate) async fn handle(
    settings: &Settings,
    config: &SdkConfig,
    event: Value,
    remaining_ms: u64,
) -> Result<Value, Error> {
    static UPLOADS: OnceCell<Uploads<Service<AwsPorts>>> = OnceCell::const_new();
    let uploads = UPLOADS.get_or_init(async || Uploads::on_aws(settings, config)).await;
    Ok(uploads.answer(&event, remaining_ms).await)
}

/// What uploads need.
#[derive(Debug)]
pub(crate) struct Uploads<A> {
    api: A,
    objects: Objects,
    options: FileOptions,
}

impl Uploads<Service<AwsPorts>> {
    fn on_aws(settings: &Settings, config: &SdkConfig) -> Self {
        let ports = AwsPorts::over(config, &settings.aws);
        let service = Service::new(ports, TenantId::default(), settings.grid_view());
        Self::new(service, Objects::over(config, &settings.aws))
    }
}

impl<A: Api> Uploads<A> {
    /// Over any implementation of the calls.
    pub(crate) fn new(api: A, objects: Objects) -> Self {
        Self { api, objects, options: FileOptions::default() }
    }

    /// Works on each message of a batch. The answer is what SQS expects where it is told of partial batches: the messages that
    /// failed.
    pub(crate) async fn answer(&self, event: &Value, remaining_ms: u64) -> Value {
        let times = Times::of(Duration::from_millis(remaining_ms));
        let mut failures = Vec::new();
        for record in event.get("Records").and_then(Value::as_array).into_iter().flatten() {
            let text = |name| record.get(name).and_then(Value::as_str).unwrap_or_default();
            let span = tracing::info_span!("upload", message = text("messageId"));
            if let Err(trouble) = Box::pin(self.work(text("body"), times)).instrument(span.clone()).await {
                span.in_scope(|| tracing::warn!(reason = trouble.with_sources(), "the message is to come again"));
                failures.push(json!({"itemIdentifier": text("messageId")}));
            }
        }
        json!({"batchItemFailures": failures})
    }

    async fn work(&self, body: &str, times: Times) -> Result<(), Trouble> {
        match Message::parse(body)? {
            Message::Uploaded(uploads) => {
                for upload in uploads {
                    self.submit(&upload, &Default::default(), times).await?;
                }
                Ok(())
            }
            Message::Continue(Continuation { upload, resume }) => self.submit(&upload, &resume, times).await,
            Message::Collect(job) => self.collect(job, times).await,
            Message::Write(writing) => self.write_on(&writing, times).await,
        }
    }
}

/// What an invocation's time allows.
#[derive(Debug, Clone, Copy)]
struct Times {
    begun: Instant,
    stop_at: Instant,
}

impl Times {
    fn of(remaining: Duration) -> Self {
        let begun = Instant::now();
        Self { begun, stop_at: begun + remaining.saturating_sub(STOP_BEFORE.min(remaining / 4)) }
    }

    /// When what goes on in another invocation is to stop.
    fn stop(self) -> impl Future<Output = ()> + Send {
        tokio::time::sleep_until(self.stop_at)
    }
}
