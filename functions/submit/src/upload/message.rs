//! What the queue of uploads brings: S3's events, and our own messages.

use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sheaf_core::JobId;
use sheaf_files::Resume;

use super::{source::Upload, trouble::Trouble};

/// A message of up to this size takes along what the first pass over a file found. Source: SQS bills per 64 KiB.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// A message of the queue of uploads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Message {
    /// Objects were created; none, if S3 says something else.
    Uploaded(Vec<Upload>),
    /// A submission goes on.
    Continue(Continuation),
    /// A job is over.
    Collect(JobId),
    /// Its results are to be written on.
    Write(Writing),
}

/// Results that are written on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Writing {
    pub(super) upload: Upload,
    /// The object that says how far they are; none to begin anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) left: Option<String>,
}

/// A submission that goes on, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Continuation {
    pub(super) upload: Upload,
    pub(super) resume: Resume,
}

/// Our own messages, as they are sent.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Own {
    Continue(Continuation),
    Collect(JobId),
    Write(Writing),
}

impl Own {
    fn text(&self) -> String {
        serde_json::to_string(self).expect("plain structs become JSON")
    }
}

impl Message {
    pub(super) fn parse(body: &str) -> Result<Self, Trouble> {
        let message: Value = serde_json::from_str(body).map_err(Trouble::Message)?;
        // S3 sends this when it is told where to send events.
        if message.get("Event").and_then(Value::as_str) == Some("s3:TestEvent") {
            return Ok(Self::Uploaded(Vec::new()));
        }
        if message.get("Records").is_some() {
            let event: Event = serde_json::from_value(message).map_err(Trouble::Message)?;
            return Ok(Self::Uploaded(event.records.into_iter().filter_map(Record::upload).collect()));
        }
        Ok(match serde_json::from_value(message).map_err(Trouble::Message)? {
            Own::Continue(continuation) => Self::Continue(continuation),
            Own::Collect(job) => Self::Collect(job),
            Own::Write(writing) => Self::Write(writing),
        })
    }
}

impl Writing {
    /// As it is sent.
    pub(super) fn into_message(self) -> String {
        Own::Write(self).text()
    }
}

impl Continuation {
    /// As it is sent. What the first pass found is left out if it is large: file and job say the rest.
    pub(super) fn into_message(mut self) -> String {
        let message = Own::Continue(self.clone()).text();
        if message.len() <= MESSAGE_BYTES_MAX {
            return message;
        }
        self.resume.checked = None;
        Own::Continue(self).text()
    }
}

/// An event of S3. Source: "Event message structure" in the S3 user guide, versions 2.x; fields that are not used are left out.
#[derive(Deserialize)]
struct Event {
    #[serde(rename = "Records")]
    records: Vec<Record>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    event_name: String,
    s3: Entity,
}

#[derive(Deserialize)]
struct Entity {
    bucket: Bucket,
    object: Object,
}

#[derive(Deserialize)]
struct Bucket {
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Object {
    key: String,
    #[serde(default)]
    e_tag: String,
    #[serde(default)]
    version_id: Option<String>,
    #[serde(default)]
    sequencer: String,
}

impl Record {
    /// What was uploaded; none if something else happened.
    fn upload(self) -> Option<Upload> {
        let Object { key, e_tag, version_id, sequencer } = self.s3.object;
        // A bucket that has stopped keeping versions calls them all `null`.
        let version = version_id.filter(|version| !version.is_empty() && version != "null");
        let etag = e_tag.trim_matches('"').to_owned();
        let name = self.event_name.trim_start_matches("s3:");
        let upload = Upload { bucket: self.s3.bucket.name, key: decoded(&key), etag, version, sequencer };
        name.starts_with("ObjectCreated:").then_some(upload)
    }
}

/// A key as it is: events have it as the value of an HTML form has it.
fn decoded(key: &str) -> String {
    percent_decode_str(&key.replace('+', " ")).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use sheaf_files::Checked;

    use super::*;

    fn record(name: &str, object: Value) -> Value {
        json!({"eventVersion": "2.1", "eventSource": "aws:s3", "eventName": name, "s3": {"bucket": {"name": "b"}, "object": object}})
    }

    fn uploads(records: &[Value]) -> Vec<Upload> {
        match Message::parse(&json!({"Records": records}).to_string()).expect("an event") {
            Message::Uploaded(uploads) => uploads,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn keys_are_decoded_and_other_events_left_alone() {
        let object = json!({"key": "inbox/a+b%2Bc%20d/h%C3%B6her.json", "size": 5, "eTag": "e1", "sequencer": "0A"});
        let versioned = json!({"key": "inbox/x", "eTag": "e2", "versionId": "v7", "sequencer": "0B"});
        let unversioned = json!({"key": "inbox/x", "eTag": "e2", "versionId": "null", "sequencer": "0C"});
        let found = uploads(&[
            record("ObjectCreated:Put", object),
            record("s3:ObjectCreated:CompleteMultipartUpload", versioned),
            record("ObjectRemoved:Delete", json!({"key": "inbox/x", "sequencer": "0D"})),
            record("ObjectCreated:Copy", unversioned),
        ]);
        let keys: Vec<(&str, Option<&str>)> =
            found.iter().map(|upload| (upload.key.as_str(), upload.version.as_deref())).collect();
        assert_eq!(keys, [("inbox/a b+c d/höher.json", None), ("inbox/x", Some("v7")), ("inbox/x", None)]);
        let test = r#"{"Service":"Amazon S3","Event":"s3:TestEvent","Bucket":"b","RequestId":"r"}"#;
        assert_eq!(Message::parse(test).expect("a test"), Message::Uploaded(Vec::new()));
        assert_eq!(uploads(&[]), []);
    }

    #[test]
    fn versions_of_an_upload_are_jobs() {
        let job = |object: Value| uploads(&[record("ObjectCreated:Put", object)])[0].job();
        let first = json!({"key": "inbox/x", "eTag": "e", "sequencer": "0A"});
        assert_eq!(job(first.clone()), job(json!({"key": "inbox/x", "eTag": "\"e\"", "size": 9, "sequencer": "0A"})));
        assert_ne!(job(first.clone()), job(json!({"key": "inbox/x", "eTag": "e", "sequencer": "0B"})));
        assert_ne!(job(first.clone()), job(json!({"key": "inbox/y", "eTag": "e", "sequencer": "0A"})));
        let versioned = json!({"key": "inbox/x", "eTag": "e", "versionId": "v1", "sequencer": "0A"});
        assert_ne!(job(first), job(versioned.clone()));
        // A version is one, whatever else is said of it.
        assert_eq!(job(versioned), job(json!({"key": "inbox/x", "eTag": "e", "versionId": "v1", "sequencer": "0B"})));
    }

    #[test]
    fn our_own_messages_come_back() {
        let (bucket, key, etag) = ("b".to_owned(), "inbox/x.json".to_owned(), "e".to_owned());
        let upload = Upload { bucket, key, etag, version: None, sequencer: "0A".to_owned() };
        let written = upload.clone();
        let checked = Checked { commands: 5, functions: vec!["f".to_owned()], bytes: 9 };
        let mut continuation = Continuation { upload, resume: Resume { chunk: 7, checked: Some(checked) } };
        let parsed = Message::parse(&continuation.clone().into_message()).expect("a message");
        assert_eq!(parsed, Message::Continue(continuation.clone()));

        // Function names that nobody has may be long.
        continuation.resume.checked = Some(Checked { commands: 5, functions: vec!["\"".repeat(40_000)], bytes: 9 });
        let message = continuation.clone().into_message();
        assert!(message.len() < 1_000);
        continuation.resume.checked = None;
        assert_eq!(Message::parse(&message).expect("a message"), Message::Continue(continuation));

        for left in [None, Some("u/collect/x".to_owned())] {
            let writing = Writing { upload: written.clone(), left };
            let parsed = Message::parse(&writing.clone().into_message()).expect("a message");
            assert_eq!(parsed, Message::Write(writing));
        }
        let job = JobId::from_bytes([7; 16]);
        assert_eq!(Message::parse(&json!({"collect": job}).to_string()).expect("a message"), Message::Collect(job));
        for senseless in ["", "{}", "[]", r#"{"collect":"job_7"}"#, r#"{"Records":[{}]}"#] {
            assert!(Message::parse(senseless).is_err(), "{senseless}");
        }
    }
}
