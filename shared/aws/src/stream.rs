//! Records of the table's stream, as Lambda brings them: which chunk or job has become what.
//!
//! The stream has the new image of every write, at least once, those of one item in order. Of a chunk's five and more writes
//! two are news to the result step: that it was submitted (T1) and that it has ended (T8, T9). [`STREAM_FILTER`] lets Lambda
//! pass over the others before anything is invoked; what comes through it in spite of that is told apart here by one
//! attribute, and costs nothing.

use aws_sdk_dynamodb::{primitives::Blob, types::AttributeValue};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::Value;
use sheaf_core::{Chunk, Job};
use sheaf_protocol::StoreError;

use crate::{
    fault::damaged,
    schema::{META, PK, SK, chunk, job},
    state::item::{self, Item, QUEUED, Reader},
};

/// The filter of the event source mapping between the table's stream and the result function: an array of patterns, each a
/// `pattern` of its `filter_criteria`. Lambda filters a stream by what is under `dynamodb` alone, so the event's name (insert,
/// modify, remove) is not in it: the sweeper's touch of a chunk that nobody has claimed yet comes through.
pub const STREAM_FILTER: &str = include_str!("../stream-filter.json");

/// What a record is to the result step.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// A chunk that was submitted, or has ended.
    Chunk(Box<Chunk>),
    /// A job, after one of its events.
    Job(Box<Job>),
    /// Nothing.
    Other,
}

/// A record.
#[derive(Debug, Clone, Copy)]
pub struct StreamRecord<'a>(&'a Value);

impl<'a> StreamRecord<'a> {
    /// The records of an event, in their order.
    pub fn all(event: &'a Value) -> Vec<Self> {
        event["Records"].as_array().into_iter().flatten().map(Self).collect()
    }

    /// Its place in its shard, by which Lambda is told from where on to repeat.
    pub fn sequence_number(&self) -> &'a str {
        self.0["dynamodb"]["SequenceNumber"].as_str().unwrap_or_default()
    }

    /// The item that was written, for people: partition and sort key.
    pub fn key(&self) -> String {
        let (partition, sort) = self.keys();
        format!("{}/{}", partition.unwrap_or("?"), sort.unwrap_or("?"))
    }

    fn keys(&self) -> (Option<&'a str>, Option<&'a str>) {
        let keys = &self.0["dynamodb"]["Keys"];
        (keys[PK]["S"].as_str(), keys[SK]["S"].as_str())
    }

    /// What it says. An error is one of the record itself: reading it again will not help.
    pub fn change(&self) -> Result<Change, StoreError> {
        let (Some(partition), Some(sort)) = self.keys() else {
            return Err(damaged("a record of the stream", "it has no keys"));
        };
        let is_job = partition.starts_with("S#") && sort == META;
        if self.0["eventName"] == "REMOVE" || !(is_job || partition.starts_with("C#")) {
            return Ok(Change::Other);
        }
        let image = &self.0["dynamodb"]["NewImage"];
        if !is_job && !self.is_news(&image[chunk::STATE]["S"]) {
            return Ok(Change::Other);
        }
        let item = item(image).ok_or_else(|| damaged(self.key(), "its new image is missing or malformed"))?;
        if is_job {
            Reader { item: &item, object: "job" }.json(job::JOB).map(|job| Change::Job(Box::new(job)))
        } else {
            item::chunk(&item).map(|chunk| Change::Chunk(Box::new(chunk)))
        }
    }

    /// Whether a chunk's state is news, or no state at all.
    fn is_news(&self, state: &Value) -> bool {
        match state.as_str() {
            Some(QUEUED) => self.0["eventName"] == "INSERT",
            Some(item::LEASED) => false,
            _ => true,
        }
    }
}

fn item(image: &Value) -> Option<Item> {
    image.as_object()?.iter().map(|(name, value)| Some((name.clone(), attribute(value)?))).collect()
}

/// An attribute's value in the JSON of DynamoDB, of which Lambda's events are made.
fn attribute(value: &Value) -> Option<AttributeValue> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let blob = |value: &Value| BASE64_STANDARD.decode(value.as_str()?).ok().map(Blob::new);
    let value = value.as_object()?;
    let (kind, value) = value.iter().next().filter(|_| value.len() == 1)?;
    Some(match kind.as_str() {
        "S" => AttributeValue::S(text(value)?),
        "N" => AttributeValue::N(text(value)?),
        "B" => AttributeValue::B(blob(value)?),
        "SS" => AttributeValue::Ss(value.as_array()?.iter().map(text).collect::<Option<_>>()?),
        "NS" => AttributeValue::Ns(value.as_array()?.iter().map(text).collect::<Option<_>>()?),
        "BS" => AttributeValue::Bs(value.as_array()?.iter().map(blob).collect::<Option<_>>()?),
        "L" => AttributeValue::L(value.as_array()?.iter().map(attribute).collect::<Option<_>>()?),
        "M" => AttributeValue::M(item(value)?),
        "BOOL" => AttributeValue::Bool(value.as_bool()?),
        "NULL" => AttributeValue::Null(value.as_bool()?),
        _ => return None,
    })
}

/// For tests: records as DynamoDB's stream would write them.
#[cfg(any(test, feature = "loopback"))]
pub mod records {
    use serde_json::{Map, json};
    use sheaf_protocol::StateStore;

    use super::*;
    use crate::{AwsState, schema};

    /// The record of a chunk's write: the image after it.
    pub fn of_chunk(chunk: &Chunk, event: &str, sequence_number: u64) -> Value {
        let (partition, sort) = schema::chunk_key(chunk.spec.key);
        let attributes = item::attributes(chunk).into_iter().map(|(name, value)| (name.to_owned(), value));
        record((&partition, &sort), attributes.collect(), event, sequence_number)
    }

    /// The record of a job's write.
    pub fn of_job(of: &Job, event: &str, sequence_number: u64) -> Value {
        let json = serde_json::to_string(of).expect("plain structs become JSON");
        let attributes = [(job::JOB.to_owned(), item::text(json)), (job::REVISION.to_owned(), item::number(1))];
        record((&schema::job_pk(of.id), META), attributes.into(), event, sequence_number)
    }

    /// The record of a job as it is in the table.
    pub async fn of_stored_job(state: &AwsState, id: sheaf_core::JobId, sequence_number: u64) -> Value {
        let job = state.job(id).await.expect("an answer").expect("a job");
        of_job(&job, "MODIFY", sequence_number)
    }

    /// Any record.
    pub(crate) fn record((partition, sort): (&str, &str), mut item: Item, event: &str, sequence_number: u64) -> Value {
        let key = item::key(partition, sort);
        item.extend(key.clone());
        let mut change = json!({"Keys": json_of(&key), "SequenceNumber": format!("{sequence_number:021}")});
        if event != "REMOVE" {
            change["NewImage"] = json_of(&item);
        }
        json!({"eventSource": "aws:dynamodb", "eventName": event, "dynamodb": change})
    }

    fn json_of(item: &Item) -> Value {
        Value::Object(item.iter().map(|(name, value)| (name.clone(), json_value(value))).collect::<Map<_, _>>())
    }

    pub(crate) fn json_value(value: &AttributeValue) -> Value {
        let base64 = |blob: &Blob| BASE64_STANDARD.encode(blob.as_ref());
        match value {
            AttributeValue::S(text) => json!({ "S": text }),
            AttributeValue::N(text) => json!({ "N": text }),
            AttributeValue::B(blob) => json!({"B": base64(blob)}),
            AttributeValue::Ss(texts) => json!({ "SS": texts }),
            AttributeValue::Ns(texts) => json!({ "NS": texts }),
            AttributeValue::Bs(blobs) => json!({"BS": blobs.iter().map(base64).collect::<Vec<_>>()}),
            AttributeValue::L(values) => json!({"L": values.iter().map(json_value).collect::<Vec<_>>()}),
            AttributeValue::M(item) => json!({"M": json_of(item)}),
            AttributeValue::Bool(is) => json!({ "BOOL": is }),
            AttributeValue::Null(is) => json!({ "NULL": is }),
            other => panic!("{other:?} is in no table"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde_json::json;
    use sheaf_conformance::fixture;
    use sheaf_core::{
        Attempt, CheckpointRef, ChunkEvent, ChunkKey, Commit, Digest, EndReason, JobEvent, Mark, Marks, Owner,
        ReleaseReason, Seal, SegmentRef, Tally,
    };

    use super::{records::*, *};

    /// Lambda's filter, as far as ours needs it: a record passes if one pattern matches; an object of a pattern matches what
    /// has all of its members, an array what is equal to one of its texts or begins with one of its prefixes.
    fn passes(record: &Value) -> bool {
        let patterns: Vec<Value> = serde_json::from_str(STREAM_FILTER).expect("the filter is JSON");
        assert!(patterns.len() <= 5, "Lambda takes five patterns");
        assert!(patterns.iter().all(|pattern| pattern.to_string().len() <= 4_096), "Lambda takes patterns of 4 KB");
        let members = |pattern: &Value| pattern.as_object().map(|object| object.keys().cloned().collect::<Vec<_>>());
        assert!(patterns.iter().all(|pattern| members(pattern) == Some(vec!["dynamodb".to_owned()])));
        patterns.iter().any(|pattern| matches(pattern, record))
    }

    fn matches(pattern: &Value, value: &Value) -> bool {
        match pattern {
            Value::Object(members) => members.iter().all(|(name, pattern)| matches(pattern, &value[name.as_str()])),
            Value::Array(choices) => choices.iter().any(|choice| match choice {
                Value::Object(rule) => {
                    let prefix = rule["prefix"].as_str().expect("the only rule we use");
                    value.as_str().is_some_and(|text| text.starts_with(prefix))
                }
                choice => choice == value,
            }),
            other => panic!("{other} is no part of a pattern"),
        }
    }

    fn spec() -> sheaf_core::ChunkSpec {
        fixture::spec(fixture::job_id(), 7, 12)
    }

    /// A checkpoint of a task, by an attempt of this epoch and nonce.
    fn checkpoints([epoch, number]: [u32; 2], nonce: u64, task: u32) -> BTreeMap<u32, CheckpointRef> {
        let (digest, bytes) = (Digest::of(&number.to_le_bytes()), u32::MAX);
        let (at_ms, run_ms) = (fixture::NOW_MS, u64::from(number) << 40);
        BTreeMap::from([(task, CheckpointRef { epoch, nonce, number, digest, bytes, at_ms, run_ms })])
    }

    /// A chunk after some events, each chosen by bytes; with whether it was just created.
    fn chunk(deadline: bool, choices: &[[u8; 4]]) -> (Chunk, bool) {
        let deadline_ms = deadline.then_some(fixture::NOW_MS + 100_000);
        let submit = ChunkEvent::Submit { spec: Box::new(sheaf_core::ChunkSpec { deadline_ms, ..spec() }) };
        let mut chunk = Chunk::apply(None, &submit).expect("T1");
        let mut is_new = true;
        for [kind, a, b, c] in choices.iter().copied() {
            let now_ms = fixture::NOW_MS + u64::from(a) * 1_000;
            let until_ms = now_ms + 30_000;
            let owner = Owner { worker: "wrk_a".parse().expect("an id"), nonce: u64::MAX - u64::from(b) };
            let attempt =
                chunk.lease().map_or(Attempt { epoch: 1, owner: owner.clone() }, |lease| lease.attempt.clone());
            let (rv, task) = (chunk.rv, u32::from(c) % 12);
            let mut marks = Marks::open(12);
            let open: Vec<u32> = chunk.work.marks.open_tasks().collect();
            let closed = if kind % 8 == 6 { open.as_slice() } else { open.get(..1).unwrap_or_default() };
            closed.iter().for_each(|task| marks.set(*task, if b % 3 == 0 { Mark::Failed } else { Mark::Succeeded }));
            let (epoch, nonce) = (attempt.epoch, attempt.owner.nonce);
            let segment = SegmentRef {
                epoch,
                nonce,
                number: c.into(),
                digest: Digest::of(&[a, b, c]),
                bytes: u32::MAX,
                tasks: closed.len() as u32,
                run_us: u64::from(a) << 40,
                run_us_max: b.into(),
                has_logs: c % 2 == 0,
            };
            let commit = Commit { marks, segment };
            let tallies = vec![(task, Tally { attempts: b.into(), strikes: 1 })];
            let event = match kind % 8 {
                0 | 1 => ChunkEvent::Claim { owner, now_ms, until_ms },
                2 => ChunkEvent::Heartbeat { attempt, until_ms },
                3 => {
                    let (commit, checkpoints) =
                        (Some(commit).filter(|_| a % 4 > 0), checkpoints([epoch, c.into()], nonce, task));
                    ChunkEvent::Segment { attempt, rv, commit, tallies, checkpoints, until_ms }
                }
                4 => ChunkEvent::Mark { attempt, rv, task },
                5 => {
                    let (not_before_ms, reason) = (until_ms, ReleaseReason::Drain);
                    let (commit, checkpoints) = (None, checkpoints([epoch, c.into()], nonce, task));
                    ChunkEvent::Release { attempt, rv, commit, tallies, checkpoints, now_ms, not_before_ms, reason }
                }
                6 => ChunkEvent::Finish { attempt, rv, commit: Some(commit), now_ms },
                _ if c < 64 => {
                    ChunkEvent::End { reason: [EndReason::Cancelled, EndReason::Expired][b as usize % 2], now_ms }
                }
                _ => ChunkEvent::Touch { seen_due_ms: chunk.due_ms, due_ms: until_ms },
            };
            if let Ok(after) = Chunk::apply(Some(&chunk), &event) {
                (chunk, is_new) = (after, false);
            }
        }
        (chunk, is_new)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

        /// What is news comes out as it was, and passes the filter; of the rest, only touches of chunks that nobody has claimed
        /// pass.
        #[test]
        fn filter_and_decoder_agree_on_chunks(choices in prop::collection::vec(any::<[u8; 4]>(), 0..12), deadline: bool) {
            let (chunk, is_new) = chunk(deadline, &choices);
            let record = of_chunk(&chunk, if is_new { "INSERT" } else { "MODIFY" }, 1);
            let change = StreamRecord(&record).change().expect("a record");
            if is_new || chunk.is_final() {
                prop_assert_eq!(change, Change::Chunk(Box::new(chunk)));
                prop_assert!(passes(&record));
            } else {
                prop_assert_eq!(change, Change::Other);
                prop_assert_eq!(passes(&record), chunk.epoch == 0);
            }
        }
    }

    #[test]
    fn jobs_come_as_they_are() {
        let open = fixture::job(fixture::job_id(), 1);
        let sealed = open.apply(&JobEvent::Seal { seal: Seal { chunks: 1, tasks: 1 } }).expect("sealed");
        let done = sealed.apply(&JobEvent::Complete { now_ms: 5 }).expect("done");
        for (job, event) in [(open, "INSERT"), (sealed, "MODIFY"), (done, "MODIFY")] {
            let record = of_job(&job, event, 1);
            assert!(passes(&record));
            assert_eq!(StreamRecord(&record).change(), Ok(Change::Job(Box::new(job))));
        }
    }

    #[test]
    fn other_items_are_nothing_and_do_not_pass() {
        let job = fixture::job_id();
        let others = [
            (format!("S#{job}"), "SUM#00000000"),
            ("F#default".to_owned(), "echo@0123456789ab"),
            ("W".to_owned(), "wrk_a"),
            ("G".to_owned(), "GRID"),
        ];
        for (partition, sort) in &others {
            let record = record((partition, sort), Item::new(), "MODIFY", 1);
            assert_eq!(StreamRecord(&record).change(), Ok(Change::Other), "{partition}/{sort}");
            assert!(!passes(&record), "{partition}/{sort}");
        }
    }

    #[test]
    fn what_was_removed_is_nothing() {
        let (chunk, _) = chunk(false, &[]);
        let removed = of_chunk(&chunk, "REMOVE", 1);
        assert_eq!(StreamRecord(&removed).change(), Ok(Change::Other));
        assert!(!passes(&removed));
        let job = of_job(&fixture::job(fixture::job_id(), 1), "REMOVE", 1);
        assert_eq!(StreamRecord(&job).change(), Ok(Change::Other));
    }

    #[test]
    fn what_cannot_be_read_is_said_with_its_key() {
        let (chunk, _) = chunk(false, &[]);
        let key = ChunkKey { ..chunk.spec.key };
        let spoil = |spoiled: &dyn Fn(&mut Value)| {
            let mut record = of_chunk(&chunk, "INSERT", 9);
            spoiled(&mut record);
            (StreamRecord(&record).change(), StreamRecord(&record).key(), StreamRecord(&record).sequence_number().len())
        };
        let spoilers: [&dyn Fn(&mut Value); 6] = [
            &|record| record["dynamodb"]["NewImage"]["spec"] = json!({"B": "////"}),
            &|record| record["dynamodb"]["NewImage"]["spec"] = json!({"B": "no base64!"}),
            &|record| record["dynamodb"]["NewImage"]["st"] = json!({"S": "Z"}),
            &|record| record["dynamodb"]["NewImage"]["st"] = json!(null),
            &|record| record["dynamodb"]["NewImage"] = json!(null),
            &|record| record["dynamodb"]["NewImage"]["ep"] = json!({"N": "1", "S": "1"}),
        ];
        for spoiled in spoilers {
            let (change, found, sequence) = spoil(spoiled);
            assert!(matches!(change, Err(StoreError::Damaged { .. })), "{change:?}");
            assert_eq!((found, sequence), (format!("C#{}#7/0000000007", key.job), 21));
        }
        let (change, found, _) = spoil(&|record| record["dynamodb"]["Keys"] = json!(null));
        assert!(change.is_err() && found == "?/?");
    }

    #[test]
    fn every_kind_of_attribute_is_read() {
        let blob = |bytes: &[u8]| Blob::new(bytes);
        let values = [
            AttributeValue::S("é".into()),
            AttributeValue::N("-1.5".into()),
            AttributeValue::B(blob(&[0, 255])),
            AttributeValue::Ss(vec!["a".into(), "b".into()]),
            AttributeValue::Ns(vec!["1".into()]),
            AttributeValue::Bs(vec![blob(b""), blob(b"x")]),
            AttributeValue::Bool(false),
            AttributeValue::Null(true),
        ];
        let nested = AttributeValue::M(Item::from([("l".to_owned(), AttributeValue::L(values.to_vec()))]));
        for value in values.into_iter().chain([nested]) {
            assert_eq!(attribute(&json_value(&value)), Some(value));
        }
        for malformed in [json!({}), json!({"S": 1}), json!({"Z": "a"}), json!("S"), json!({"BS": ["!"]}), json!(null)]
        {
            assert_eq!(attribute(&malformed), None, "{malformed}");
        }
    }
}
