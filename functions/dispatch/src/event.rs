//! An event of SQS: messages as deliveries, and the answer that tells Lambda which of them to keep.

use aws_lambda_events::event::sqs::{SqsBatchResponse, SqsEvent, SqsMessage};
use sheaf_aws::{AwsQueue, message};
use sheaf_protocol::{Delivery, work::Worked};

/// What a message of an event is.
#[derive(Debug)]
pub(crate) enum Record {
    /// A hint.
    Hint(Delivery),
    /// No hint: nothing will ever become of it.
    Poison,
    /// It came from a queue that is not one of this grid's, or without what is needed to answer it.
    Foreign,
}

/// Reads a message.
pub(crate) fn record(queue: &AwsQueue, message: SqsMessage) -> Record {
    let arn = message.event_source_arn.unwrap_or_default();
    let (Some((lane, priority)), Some(receipt)) = (queue.queue_of(&arn), message.receipt_handle) else {
        tracing::error!(arn, "a message of a queue that is not this grid's; is SHEAF_QUEUES right?");
        return Record::Foreign;
    };
    match message::decode(message.body.as_deref().unwrap_or_default(), lane, priority) {
        Some((hint, _)) => Record::Hint(Delivery { hint, receipt }),
        None => {
            tracing::warn!(%lane, %priority, message = message.message_id, "dropped a message that is no hint");
            Record::Poison
        }
    }
}

/// The messages of an event, each with its id.
pub(crate) fn records(queue: &AwsQueue, event: SqsEvent) -> Vec<(String, Record)> {
    let with_id = |message: SqsMessage| (message.message_id.clone().unwrap_or_default(), record(queue, message));
    event.records.into_iter().map(with_id).collect()
}

/// Whether Lambda may delete a message, by what became of its hint. Every other was postponed.
pub(crate) const fn is_done(worked: Worked) -> bool {
    match worked {
        Worked::Finished { .. } | Worked::Over => true,
        Worked::Postponed | Worked::Released | Worked::Fenced => false,
    }
}

/// The answer that has Lambda keep these messages, and delete the others of the event.
pub(crate) fn keep(messages: impl IntoIterator<Item = String>) -> SqsBatchResponse {
    let mut answer = SqsBatchResponse::default();
    messages.into_iter().for_each(|id| answer.add_failure(id));
    answer
}

#[cfg(test)]
mod tests {
    use sheaf_aws::{AwsPorts, Settings};
    use sheaf_core::{ChunkKey, JobId, Lane, Priority, TenantId};
    use sheaf_protocol::{Hint, Ports};

    use super::*;

    const ARN: &str = "arn:aws:sqs:eu-west-1:123456789012:my-grid-lambda-high";

    /// Ports of a grid whose queues begin with `my-grid`; nothing is called.
    async fn ports() -> AwsPorts {
        let name = || "my-grid".to_owned();
        let settings = Settings { table: name(), bucket: name(), queues: name() };
        AwsPorts::over(&sheaf_aws::loopback::config("http://127.0.0.1:9", "test").await, &settings)
    }

    fn body() -> String {
        let key = ChunkKey { job: JobId::from_bytes([7; 16]), number: 3 };
        let (lane, priority, tenant) = (Lane::Lambda, Priority::High, TenantId::default());
        message::encode(&Hint { key, tenant, lane, priority, pack: None, hedge: false }, 0)
    }

    fn event(arn: &str, body: &str) -> SqsEvent {
        let message = serde_json::json!({
            "messageId": "059f36b4-87a3-44ab-83d2-661975830a7d",
            "receiptHandle": "AQEBwJnKyrHigUMZj6rYigCgxlaS3SLy0a",
            "body": body,
            "attributes": {
                "ApproximateReceiveCount": "1", "SentTimestamp": "1545082649183", "SenderId": "AIDA",
                "ApproximateFirstReceiveTimestamp": "1545082649185", "MessageGroupId": "default",
            },
            "messageAttributes": {},
            "md5OfBody": "e4e68fb7bd0e697a0ae8f1bb342846b3",
            "eventSource": "aws:sqs",
            "eventSourceARN": arn,
            "awsRegion": "eu-west-1",
        });
        serde_json::from_value(serde_json::json!({ "Records": [message] })).expect("an event as AWS sends it")
    }

    #[tokio::test]
    async fn a_message_becomes_a_delivery_of_its_queue() {
        let ports = ports().await;
        let records = records(ports.queue(), event(ARN, &body()));
        let [(id, Record::Hint(delivery))] = &records[..] else { panic!("{records:?}") };
        assert_eq!(id, "059f36b4-87a3-44ab-83d2-661975830a7d");
        assert_eq!((delivery.hint.lane, delivery.hint.priority), (Lane::Lambda, Priority::High));
        assert_eq!((delivery.hint.key.number, &*delivery.receipt), (3, "AQEBwJnKyrHigUMZj6rYigCgxlaS3SLy0a"));
    }

    #[tokio::test]
    async fn what_is_no_hint_is_told_apart() {
        let ports = ports().await;
        for body in ["", "{}", "[]", "null", "\u{0}", "{\"v\":1}"] {
            assert!(matches!(records(ports.queue(), event(ARN, body))[0].1, Record::Poison), "{body}");
        }
        for arn in
            ["", "my-grid-lambda-high", "arn:aws:sqs:eu-west-1:1:other-lambda-high", "arn:aws:sqs:x:1:my-grid-dead"]
        {
            assert!(matches!(records(ports.queue(), event(arn, &body()))[0].1, Record::Foreign), "{arn}");
        }
        let bare =
            serde_json::from_str(r#"{"Records":[{"eventSourceARN":null,"attributes":null}]}"#).expect("an event");
        assert!(matches!(records(ports.queue(), bare)[0].1, Record::Foreign));
    }

    #[test]
    fn only_what_is_over_may_be_deleted() {
        assert!(is_done(Worked::Finished { tasks: 0 }) && is_done(Worked::Over));
        assert!(![Worked::Postponed, Worked::Released, Worked::Fenced].into_iter().any(is_done));
    }

    #[test]
    fn the_answer_is_as_lambda_reads_it() {
        let answer = serde_json::to_value(keep(["a".to_owned()])).expect("JSON");
        assert_eq!(answer, serde_json::json!({ "batchItemFailures": [{ "itemIdentifier": "a" }] }));
    }
}
