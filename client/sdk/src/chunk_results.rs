//! The results of one chunk, read in place.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use sheaf_api::{Entry, FormatError, Segment, wire::ChunkHead, wire::ChunkResult};
use sheaf_core::{ChunkKey, EndReason, Failure, FailureKind, JobId, Mark, TaskId, limits};

use crate::{error::TaskError, function::Decode};

/// What became of one task.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TaskResult<O> {
    /// Its position in the submission, from 0.
    pub index: u64,
    /// Its id, for `explain` and logs.
    pub id: TaskId,
    /// Its result, or why it has none.
    pub outcome: Result<O, TaskError>,
    /// How long its last attempt ran; zero when that was not measured or under a microsecond.
    pub run: Duration,
}

/// The bytes of one result, where they lie.
#[derive(Clone, Copy)]
pub(crate) struct ResultBytes<'a> {
    segment: &'a Segment,
    position: u32,
}

impl<'a> ResultBytes<'a> {
    pub(crate) fn as_slice(self) -> &'a [u8] {
        self.segment.entry(self.position).answer
    }

    pub(crate) fn to_bytes(self) -> Bytes {
        self.segment.answer_bytes(self.position)
    }
}

/// Where a task's entry lies: its segment and the position in that.
type Place = (u16, u32);
const NOWHERE: Place = (u16::MAX, 0);
const _: () = assert!(limits::SEGMENTS_MAX < u16::MAX as usize);

/// A checked chunk of results, before anybody says what they are.
pub(crate) struct RawChunk {
    pub(crate) job: JobId,
    pub(crate) head: ChunkHead,
    segments: Vec<Segment>,
    /// By task; absent when the first segment holds them all, as it mostly does.
    places: Option<Box<[Place]>>,
    pub(crate) bytes: usize,
}

const fn malformed(reason: &'static str) -> FormatError {
    FormatError::Malformed { format: "results of a chunk", reason }
}

impl RawChunk {
    /// Checks that every task of the chunk has exactly one outcome.
    pub(crate) fn parse(job: JobId, result: ChunkResult) -> Result<Self, FormatError> {
        let ChunkResult { head, segments, pack: _ } = result;
        if head.tasks > limits::ORDERED_TASKS_MAX {
            let (found, limit) = (head.tasks.into(), limits::ORDERED_TASKS_MAX.into());
            return Err(FormatError::Limit { what: "tasks of a chunk", found, limit });
        }
        if segments.len() > limits::SEGMENTS_MAX {
            let (found, limit) = (segments.len() as u64, limits::SEGMENTS_MAX as u64);
            return Err(FormatError::Limit { what: "segments of a chunk", found, limit });
        }
        let bytes = segments.iter().map(Bytes::len).sum();
        let segments = segments.into_iter().map(Segment::parse).collect::<Result<Vec<_>, _>>()?;
        let places = if holds_all(&segments, head.tasks) { None } else { Some(places(&segments, &head)?) };
        Ok(Self { job, head, segments, places, bytes })
    }

    fn place(&self, task: u32) -> Place {
        self.places.as_ref().map_or((0, task), |places| places[task as usize])
    }

    /// The outcome of a task and its run time in µs.
    ///
    /// # Panics
    /// If there is no such task.
    pub(crate) fn get(&self, task: u32) -> (Result<ResultBytes<'_>, TaskError>, u32) {
        let (segment, position) = self.place(task);
        let Some(segment) = self.segments.get(usize::from(segment)) else {
            let error = match self.head.ended {
                Some(EndReason::Expired) => TaskError::Expired,
                Some(EndReason::Cancelled) | None => TaskError::Cancelled,
            };
            return (Err(error), 0);
        };
        let entry = segment.entry(position);
        let outcome = match entry.mark {
            Mark::Succeeded => Ok(ResultBytes { segment, position }),
            Mark::Failed => Err(TaskError::Failed(failure(&entry))),
            Mark::Quarantined => Err(TaskError::Quarantined(failure(&entry))),
            Mark::Open => Err(TaskError::Cancelled),
        };
        (outcome, entry.run_us)
    }

    pub(crate) fn task<O>(&self, task: u32, decode: Decode<O>) -> TaskResult<O> {
        let (outcome, run_us) = self.get(task);
        TaskResult {
            index: self.head.task_first + u64::from(task),
            id: TaskId { chunk: ChunkKey { job: self.job, number: self.head.number }, index: task },
            outcome: outcome.and_then(|bytes| decode(bytes).map_err(|reason| TaskError::Unreadable { reason })),
            run: Duration::from_micros(run_us.into()),
        }
    }
}

/// Segments ascend, so as many entries as tasks whose last is the last task are all of them, in order.
fn holds_all(segments: &[Segment], tasks: u32) -> bool {
    match segments {
        [segment] => segment.tasks() == tasks && (tasks == 0 || segment.entry(tasks - 1).task == tasks - 1),
        _ => false,
    }
}

fn places(segments: &[Segment], head: &ChunkHead) -> Result<Box<[Place]>, FormatError> {
    let mut places = vec![NOWHERE; head.tasks as usize].into_boxed_slice();
    for (number, segment) in segments.iter().enumerate() {
        for (position, entry) in segment.entries().enumerate() {
            let place = places.get_mut(entry.task as usize).ok_or(malformed("a task is not of the chunk"))?;
            if *place != NOWHERE {
                return Err(malformed("a task has two outcomes"));
            }
            *place = (number as u16, position as u32);
        }
    }
    if head.ended.is_none() && places.contains(&NOWHERE) {
        return Err(malformed("a task has no outcome"));
    }
    Ok(places)
}

fn failure(entry: &Entry<'_>) -> Box<Failure> {
    Box::new(entry.failure().unwrap_or_else(|error| Failure::new(FailureKind::BadAnswer, error.to_string())))
}

/// The results of one chunk: consecutive tasks that travelled together. Reading a result costs no allocation beyond what
/// its own type needs.
pub struct ChunkResults<O> {
    chunk: Arc<RawChunk>,
    /// Tasks before this one were dealt with by an earlier run.
    from: u32,
    decode: Decode<O>,
}

impl<O> ChunkResults<O> {
    pub(crate) const fn new(chunk: Arc<RawChunk>, from: u32, decode: Decode<O>) -> Self {
        Self { chunk, from, decode }
    }

    /// The chunk's number in its job.
    pub fn number(&self) -> u32 {
        self.chunk.head.number
    }

    /// How many results it holds.
    pub fn len(&self) -> usize {
        (self.chunk.head.tasks - self.from) as usize
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The results, in the order of submission.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = TaskResult<O>> + '_ {
        (self.from..self.chunk.head.tasks).map(|task| self.chunk.task(task, self.decode))
    }

    /// Position in the submission and undecoded result of each task, in the order of submission. The fastest way: nothing
    /// is copied.
    pub fn raw(&self) -> impl ExactSizeIterator<Item = (u64, Result<&[u8], TaskError>)> + '_ {
        (self.from..self.chunk.head.tasks).map(|task| {
            let (outcome, _) = self.chunk.get(task);
            (self.chunk.head.task_first + u64::from(task), outcome.map(ResultBytes::as_slice))
        })
    }

    pub(crate) fn position(&self, task: u32) -> TaskResult<O> {
        self.chunk.task(task, self.decode)
    }

    /// The same from a later task on.
    pub(crate) fn rest(self, from: u32) -> Self {
        Self { from, ..self }
    }

    pub(crate) const fn from(&self) -> u32 {
        self.from
    }

    pub(crate) fn tasks(&self) -> u32 {
        self.chunk.head.tasks
    }
}

impl<O> fmt::Debug for ChunkResults<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChunkResults({}/{}, {} tasks)", self.chunk.job, self.number(), self.len())
    }
}
