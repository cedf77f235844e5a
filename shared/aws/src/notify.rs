//! Telling others that a job is over: whoever listens to an event bus, and the function that writes the results of an uploaded
//! object.
//!
//! # Delivery
//! At least once: the result step repeats what it cannot be sure of. A second event has the same content, and collecting twice
//! writes the same object.

use aws_config::SdkConfig;
use aws_sdk_eventbridge::{primitives::DateTime, types::PutEventsRequestEntry};
use serde_json::json;
use sheaf_core::{Job, JobId, Origin, Summary};
use sheaf_protocol::StoreError;
use tokio::sync::OnceCell;

use crate::fault::store_error;

/// The `source` of our events.
const SOURCE: &str = "sheaf";
/// The `detail-type` of the event that a job is over.
const JOB_ENDED: &str = "Job ended";
/// When to ask a busy bus again.
const RETRY_AFTER_MS: u64 = 100;
/// What an uploaded job's origin begins with.
const UPLOADED: &str = "s3://";

/// The queue of uploads, of those whose names begin so.
pub fn uploads_queue(prefix: &str) -> String {
    format!("{prefix}-uploads")
}

/// The message that asks for the results of an uploaded job.
pub fn collect_message(job: JobId) -> String {
    json!({ "collect": job }).to_string()
}

/// Whether a job came from an uploaded object, so that its results are to be collected.
pub fn is_uploaded(job: &Job) -> bool {
    matches!(&job.origin, Some(Origin::File { path }) if path.starts_with(UPLOADED))
}

/// The content of the event that a job is over: its id, tenant, name, state, when (Unix, ms), and the outcomes of its tasks.
pub fn job_ended(job: &Job, summary: &Summary) -> serde_json::Value {
    json!({
        "job": job.id,
        "tenant": job.tenant,
        "name": job.options.name,
        "state": job.state.as_str(),
        "ended_at_ms": job.state.ended_at_ms(),
        "tasks": job.state.seal().map_or(summary.tasks_submitted, |seal| seal.tasks),
        "totals": summary.totals,
    })
}

/// Where to tell.
#[derive(Debug)]
pub struct Notifier {
    events: aws_sdk_eventbridge::Client,
    bus: Option<String>,
    queues: aws_sdk_sqs::Client,
    uploads: String,
    uploads_url: OnceCell<String>,
}

impl Notifier {
    /// Tells a bus, if there is one, and the queue of uploads of those whose names begin so. Nothing is called yet.
    pub fn over(config: &SdkConfig, queues: &str, bus: Option<&str>) -> Self {
        Self {
            events: aws_sdk_eventbridge::Client::new(config),
            bus: bus.map(str::to_owned),
            queues: aws_sdk_sqs::Client::new(config),
            uploads: uploads_queue(queues),
            uploads_url: OnceCell::new(),
        }
    }

    /// Whether there is a bus to tell.
    pub fn has_bus(&self) -> bool {
        self.bus.is_some()
    }

    /// Puts the event that a job is over on the bus, if there is one. One request.
    pub async fn ended(&self, job: &Job, summary: &Summary) -> Result<(), StoreError> {
        let Some(bus) = &self.bus else { return Ok(()) };
        let mut entry = PutEventsRequestEntry::builder()
            .event_bus_name(bus)
            .source(SOURCE)
            .detail_type(JOB_ENDED)
            .detail(job_ended(job, summary).to_string());
        if let Some(at_ms) = job.state.ended_at_ms() {
            entry = entry.time(DateTime::from_millis(i64::try_from(at_ms).unwrap_or(i64::MAX)));
        }
        let answer = self.events.put_events().entries(entry.build()).send().await.map_err(store_error)?;
        // The request succeeds even when the event in it did not.
        let refused = answer.entries().iter().find_map(|entry| entry.error_code());
        match refused {
            None => Ok(()),
            Some("ThrottlingException") => Err(StoreError::Throttled { retry_after_ms: RETRY_AFTER_MS }),
            Some("InternalFailure" | "InternalException") => {
                Err(StoreError::Unknown { detail: "internal failure".into() })
            }
            Some(code) => Err(StoreError::Stopped { detail: format!("the bus {bus} refused an event: {code}") }),
        }
    }

    /// Asks for the results of an uploaded job to be written. One request.
    pub async fn collect(&self, job: JobId) -> Result<(), StoreError> {
        let url = self.uploads_url.get_or_try_init(|| async {
            let found = self.queues.get_queue_url().queue_name(&self.uploads).send().await.map_err(store_error)?;
            found.queue_url.ok_or_else(|| StoreError::Unknown { detail: format!("{} has no URL", self.uploads) })
        });
        let send = self.queues.send_message().queue_url(url.await?).message_body(collect_message(job));
        send.send().await.map(drop).map_err(store_error)
    }
}

/// For tests: what was asked of the queue of uploads, and a table that has gone bad.
#[cfg(feature = "loopback")]
pub mod loopback {
    use aws_sdk_dynamodb::{primitives::Blob, types::AttributeValue};

    use super::*;
    use crate::{Settings, schema};

    /// The SDK's configuration, by a name that does not name the SDK.
    pub type Config = SdkConfig;

    /// Makes the queue of uploads.
    ///
    /// # Panics
    /// When it cannot be made.
    pub async fn create_queue(config: &SdkConfig, prefix: &str) {
        let create = aws_sdk_sqs::Client::new(config).create_queue().queue_name(uploads_queue(prefix));
        create.send().await.expect("a queue");
    }

    /// All messages in the queue of uploads.
    ///
    /// # Panics
    /// When it cannot be asked.
    pub async fn received(config: &SdkConfig, prefix: &str) -> Vec<String> {
        let client = aws_sdk_sqs::Client::new(config);
        let found = client.get_queue_url().queue_name(uploads_queue(prefix)).send().await.expect("a queue");
        let url = found.queue_url.expect("its URL");
        let mut bodies = Vec::new();
        loop {
            let receive = client.receive_message().queue_url(&url).max_number_of_messages(10).wait_time_seconds(1);
            let messages = receive.send().await.expect("received").messages.unwrap_or_default();
            if messages.is_empty() {
                return bodies;
            }
            bodies.extend(messages.into_iter().filter_map(|message| message.body));
        }
    }

    /// Makes a job's summary one that nobody can read.
    ///
    /// # Panics
    /// When it cannot be written.
    pub async fn spoil_summary(config: &SdkConfig, settings: &Settings, job: JobId) {
        let put = aws_sdk_dynamodb::Client::new(config)
            .put_item()
            .table_name(&settings.table)
            .item(schema::PK, AttributeValue::S(schema::job_pk(job)))
            .item(schema::SK, AttributeValue::S(schema::sum_sk(0)))
            .item(schema::sum::ENDED, AttributeValue::Bs(vec![Blob::new([0xff])]));
        put.send().await.expect("written");
    }
}

#[cfg(test)]
mod tests {
    use sheaf_conformance::fixture;
    use sheaf_core::{JobState, Seal, Totals};

    use super::*;

    #[test]
    fn an_event_says_what_became_of_the_job() {
        let mut job = fixture::job(JobId::from_bytes([7; 16]), 1);
        job.options.name = "eod".to_owned();
        job.state = JobState::Done { seal: Seal { chunks: 1, tasks: 3 }, at_ms: 9 };
        let totals = Totals { succeeded: 2, failed: 1, ..Totals::default() };
        let event = job_ended(&job, &Summary { totals, ..Summary::default() });
        let golden = json!({
            "job": "job_07070707070707070707070707070707", "tenant": "default", "name": "eod", "state": "done",
            "ended_at_ms": 9, "tasks": 3,
            "totals": {"succeeded": 2, "failed": 1, "cancelled": 0, "expired": 0, "quarantined": 0},
        });
        assert_eq!(event, golden);
        assert_eq!(collect_message(job.id), r#"{"collect":"job_07070707070707070707070707070707"}"#);
    }

    #[test]
    fn only_uploaded_objects_are_collected() {
        let mut job = fixture::job(fixture::job_id(), 1);
        assert!(!is_uploaded(&job));
        job.origin = Some(Origin::File { path: "/home/someone/inbox/a.json".into() });
        assert!(!is_uploaded(&job));
        job.origin = Some(Origin::RetryOf { job: fixture::job_id() });
        assert!(!is_uploaded(&job));
        job.origin = Some(Origin::File { path: "s3://bucket/inbox/a.json".into() });
        assert!(is_uploaded(&job));
    }
}
