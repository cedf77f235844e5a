//! Functions that take many tasks in one invocation: how a batch is asked and answered.
//!
//! Starting an invocation costs a process tens of microseconds; a batch pays that once for a whole chunk. The contract
//! is the plainest that a function can be written against:
//!
//! - The event is a JSON array with one element per task: the payload as it is when it is JSON, as a JSON string when it
//!   is other UTF-8 text. A payload that is neither fails with `error` and is not in the array.
//! - The answer is a JSON array of the same length, in the same order: `[f(event[0]), f(event[1]), …]`.
//! - An element that is an object with a member `errorMessage` says that this task failed, in the shape that Lambda
//!   functions report errors: `{"errorMessage": …, "errorType": …, "stackTrace": […]}`. Any other element is the
//!   result, kept as it is written.
//! - An answer of another shape or length fails every task of the batch with `bad_answer`: which element belongs to which
//!   task would be a guess. An error report for the invocation as a whole leaves the tasks unanswered: see
//!   [`Report::unanswered`](sheaf_api::run::Report).
//!
//! The timeout of a batch is that of one task times their number. What the function prints goes to the first task.

use bytes::Bytes;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use sheaf_api::Pack;
use sheaf_core::{Failure, FailureKind};

/// A batch to be sent.
pub(crate) struct Batch {
    /// The event.
    pub(crate) body: Bytes,
    /// The task of each element.
    pub(crate) tasks: Vec<u32>,
    /// Tasks that cannot be put into the event.
    pub(crate) refused: Vec<(u32, Failure)>,
    /// How many tasks this took from the list.
    pub(crate) taken: usize,
}

/// One task's payload as an event of its own, in the form that it has as an element of a batch.
pub(crate) fn single(pack: &Pack, task: u32) -> Batch {
    let mut body = Vec::with_capacity(pack.payload(task).len() + 2);
    let mut batch = Batch { body: Bytes::new(), tasks: Vec::new(), refused: Vec::new(), taken: 1 };
    if push(&mut body, pack.payload(task)) {
        batch.tasks.push(task);
    } else {
        let message = "the payload is neither JSON nor UTF-8 text, which is all that an event can hold";
        batch.refused.push((task, Failure::new(FailureKind::Error, message)));
    }
    batch.body = body.into();
    batch
}

/// Puts tasks into an event of at most `bytes_max`, though at least the first, until there are no more.
pub(crate) fn encode(pack: &Pack, tasks: &[u32], bytes_max: usize) -> Batch {
    let mut body = Vec::with_capacity(pack.bytes().len().min(bytes_max) + 2 * tasks.len() + 2);
    let mut batch = Batch { body: Bytes::new(), tasks: Vec::with_capacity(tasks.len()), refused: Vec::new(), taken: 0 };
    body.push(b'[');
    for &task in tasks {
        let before = body.len();
        if before > 1 {
            body.push(b',');
        }
        let is_pushed = push(&mut body, pack.payload(task));
        if before > 1 && body.len() >= bytes_max {
            body.truncate(before);
            break;
        }
        batch.taken += 1;
        if is_pushed {
            batch.tasks.push(task);
        } else {
            body.truncate(before);
            let message = "the payload is neither JSON nor UTF-8 text, which is all that a batch can hold";
            batch.refused.push((task, Failure::new(FailureKind::Error, message)));
        }
    }
    body.push(b']');
    batch.body = body.into();
    batch
}

fn push(body: &mut Vec<u8>, payload: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(payload) else { return false };
    if serde_json::from_str::<IgnoredAny>(text).is_ok() {
        body.extend_from_slice(payload);
        true
    } else {
        serde_json::to_writer(body, text).is_ok()
    }
}

/// Splits an answer into its elements, without building them.
pub(crate) fn decode(answer: &[u8], tasks: usize) -> Result<Vec<&RawValue>, Failure> {
    let bad = |reason: String| Failure::new(FailureKind::BadAnswer, reason);
    let elements: Vec<&RawValue> = serde_json::from_slice(answer)
        .map_err(|error| bad(format!("the answer to a batch is not a JSON array: {error}")))?;
    if elements.len() == tasks {
        Ok(elements)
    } else {
        Err(bad(format!("the answer to a batch of {tasks} tasks has {} elements", elements.len())))
    }
}

#[cfg(test)]
mod tests {
    use sheaf_api::PackBuilder;

    use super::*;
    use crate::limits;

    fn pack(payloads: &[&[u8]]) -> Pack {
        let mut builder = PackBuilder::new();
        payloads.iter().for_each(|payload| builder.push(payload).expect("small"));
        builder.finish(false)
    }

    #[test]
    fn payloads_become_elements() {
        let payloads = pack(&[b"{\"a\":1}", b"\xff", b"hi \"you\"", b"", b" 7 "]);
        let batch = encode(&payloads, &[0, 1, 2, 3, 4], limits::BATCH_BYTES_MAX);
        assert_eq!(batch.body, r#"[{"a":1},"hi \"you\"",""," 7 ]"#.replace("\",\" 7", "\", 7"));
        assert_eq!((batch.tasks, batch.taken), (vec![0, 2, 3, 4], 5));
        assert_eq!(batch.refused.len(), 1);
        let first_refused = encode(&pack(&[b"\xff", b"1"]), &[0, 1], limits::BATCH_BYTES_MAX);
        assert_eq!(first_refused.body, "[1]");
    }

    #[test]
    fn a_batch_is_closed_when_it_is_large() {
        let payloads = pack(&[b"111", b"22", b"3"]);
        let body = |tasks: &[u32], bytes_max| encode(&payloads, tasks, bytes_max).body;
        assert_eq!(body(&[0, 1, 2], 10), "[111,22,3]");
        assert_eq!(body(&[0, 1, 2], 9), "[111,22]", "an event is never larger than it may be");
        assert_eq!(body(&[1, 2], 9), "[22,3]");
        let alone = encode(&payloads, &[0, 1], 2);
        assert_eq!((&*alone.body, alone.taken), (&b"[111]"[..], 1), "the first is there however large it is");
    }

    #[test]
    fn a_payload_alone_is_what_it_is_in_a_batch() {
        let payloads = pack(&[b"{\"a\":1}", b"hi", b"\xff"]);
        assert_eq!((single(&payloads, 0).body, single(&payloads, 1).body), ("{\"a\":1}".into(), "\"hi\"".into()));
        let refused = single(&payloads, 2);
        assert_eq!((refused.tasks.len(), refused.refused.len(), refused.taken), (0, 1, 1));
    }

    #[test]
    fn answers_are_split_or_refused() {
        let elements = decode(br#"[1, {"a": [2]} ,null]"#, 3).expect("an answer");
        let texts: Vec<&str> = elements.into_iter().map(RawValue::get).collect();
        assert_eq!(texts, ["1", r#"{"a": [2]}"#, "null"]);
        assert_eq!(decode(b"[1]", 2).expect_err("too few").kind, FailureKind::BadAnswer);
        assert_eq!(decode(b"{}", 2).expect_err("no array").kind, FailureKind::BadAnswer);
        assert_eq!(decode(b"[1,2", 2).expect_err("no end").kind, FailureKind::BadAnswer);
    }
}
