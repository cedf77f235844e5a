//! Tasks and results as lines of JSON, for people and scripts without an SDK.

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::{Serialize, de::IgnoredAny};
use serde_json::value::RawValue;
use sheaf_api::{
    ApiError, Entry, Pack, PackBuilder, Segment,
    wire::{ChunkHead, ChunkResult},
};
use sheaf_core::{ChunkKey, Failure, JobId, Outcome, TaskId};

/// Bytes of lines after which they are sent.
const LINES_BYTES_TARGET: usize = 64 * 1024;

/// Packs a body of lines, one JSON payload each; empty lines are skipped. The same lines give the same pack in every
/// version, which is why it is not compressed: a repeated request must stay the same chunk.
pub(crate) fn pack(body: &[u8]) -> Result<Pack, ApiError> {
    let mut builder = PackBuilder::new();
    for (number, line) in (1_u64..).zip(body.split(|byte| *byte == b'\n')) {
        let payload = line.trim_ascii();
        if payload.is_empty() {
            continue;
        }
        serde_json::from_slice::<IgnoredAny>(payload)
            .map_err(|error| ApiError::invalid(format!("line {number} is not JSON: {error}")))?;
        builder.push(payload).map_err(|error| {
            let error = ApiError::from(error);
            ApiError { message: format!("line {number}: {}", error.message), ..error }
        })?;
    }
    if builder.is_empty() {
        return Err(ApiError::invalid("the body holds no tasks").with_hint("send one JSON payload per line"));
    }
    Ok(builder.finish(false))
}

/// One task's line.
#[derive(Serialize)]
struct Line<'a> {
    task: TaskId,
    index: u64,
    #[serde(skip_serializing_if = "str::is_empty")]
    key: &'a str,
    outcome: Outcome,
    #[serde(flatten)]
    answer: Option<LineAnswer<'a>>,
}

/// What the task answered: JSON as it is, other text as a string, other bytes in base64.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum LineAnswer<'a> {
    Result(Box<RawValue>),
    ResultText(&'a str),
    ResultBase64(String),
    Failure(Failure),
}

impl<'a> LineAnswer<'a> {
    fn of(entry: &Entry<'a>) -> Result<Self, ApiError> {
        if entry.mark.outcome() != Some(Outcome::Succeeded) {
            return entry.failure().map(Self::Failure).map_err(internal);
        }
        let Ok(text) = std::str::from_utf8(entry.answer) else {
            return Ok(Self::ResultBase64(STANDARD.encode(entry.answer)));
        };
        // A line break in JSON can only stand between its tokens.
        let json = RawValue::from_string(text.trim().replace(['\n', '\r'], " "));
        Ok(json.map_or(Self::ResultText(text), Self::Result))
    }
}

/// The lines of one chunk, in the order of its tasks, made as they are read.
pub(crate) struct ChunkLines {
    job: JobId,
    head: ChunkHead,
    segments: Vec<Segment>,
    pack: Option<Pack>,
    next: u32,
}

impl ChunkLines {
    /// Checks the segments of a chunk.
    pub(crate) fn new(job: JobId, chunk: ChunkResult) -> Result<Self, ApiError> {
        let segments = chunk.segments.into_iter().map(Segment::parse).collect::<Result<_, _>>().map_err(internal)?;
        let pack = chunk.pack.map(Pack::parse).transpose().map_err(internal)?;
        Ok(Self { job, head: chunk.head, segments, pack, next: 0 })
    }

    /// The chunk's number.
    pub(crate) const fn number(&self) -> u32 {
        self.head.number
    }

    /// Some more lines; `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Bytes>, ApiError> {
        let mut out = Vec::new();
        while self.next < self.head.tasks && out.len() < LINES_BYTES_TARGET {
            self.write_line(self.next, &mut out)?;
            self.next += 1;
        }
        Ok((!out.is_empty()).then(|| out.into()))
    }

    fn write_line(&self, index: u32, out: &mut Vec<u8>) -> Result<(), ApiError> {
        let entry = self.segments.iter().find_map(|segment| segment.find(index));
        let outcome = entry
            .and_then(|entry| entry.mark.outcome())
            .or(self.head.ended.map(|reason| reason.outcome()))
            .ok_or_else(|| internal(format!("task {index} of chunk {} has no outcome", self.head.number)))?;
        let line = Line {
            task: TaskId { chunk: ChunkKey { job: self.job, number: self.head.number }, index },
            index: self.head.task_first + u64::from(index),
            key: self.pack.as_ref().filter(|pack| index < pack.tasks()).map_or("", |pack| pack.key(index)),
            outcome,
            answer: entry.as_ref().map(LineAnswer::of).transpose()?,
        };
        serde_json::to_writer(&mut *out, &line).map_err(internal)?;
        out.push(b'\n');
        Ok(())
    }
}

/// What is stored cannot be read: nothing that the caller could do about.
fn internal(error: impl std::fmt::Display) -> ApiError {
    ApiError::new(sheaf_api::Code::Internal, format!("a result cannot be shown: {error}"))
}
