//! Requests and replies, as they travel: JSON but for the bulk ones, whose frames are in [`crate::stream`].
//!
//! Times are Unix milliseconds. Fields are only ever added; a reader ignores those it does not know. One that is added is
//! left out of the JSON when it has its default: the digest of a [`CreateJob`] and the version of a [`Manifest`] are made of
//! it, and stay what they were.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sheaf_core::{
    ChunkKey, EndReason, Estimate, Event, Failure, FunctionRef, Job, JobId, JobOptions, Lane, Manifest, Origin,
    Outcome, PastAttempt, Priority, Seal, Summary, TaskId, WorkerId, limits,
};

use crate::{ApiError, Pack};

/// Creates a job. Repeating it with the same id and options answers the same job; with other options, a conflict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateJob {
    /// Chosen by the client, and written to its journal before the call.
    pub id: JobId,
    /// The functions its packs name by index: `name` for the newest version, or `name@version`.
    pub functions: Vec<String>,
    /// See [`JobOptions::name`].
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// See [`JobOptions::ordered`]. A job of a function that declares itself ordered is ordered without being asked.
    #[serde(default)]
    pub ordered: bool,
    /// See [`JobOptions::max_attempts`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<u32>,
    /// See [`JobOptions::deadline_ms`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
    /// See [`JobOptions::fail_fast`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fail_fast: Option<u64>,
    /// See [`JobOptions::task_ms`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_ms: Option<u64>,
    /// See [`JobOptions::priority`].
    #[serde(default)]
    pub priority: Priority,
    /// See [`JobOptions::lane`].
    #[serde(default)]
    pub lane: Lane,
    /// See [`JobOptions::retention_ms`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention_ms: Option<u64>,
    /// See [`JobOptions::labels`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Where it came from, if not from a call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
}

impl CreateJob {
    /// A job of these functions, with defaults for the rest.
    pub fn new(id: JobId, functions: Vec<String>) -> Self {
        Self {
            id,
            functions,
            name: String::new(),
            ordered: false,
            max_attempts: None,
            deadline_ms: None,
            fail_fast: None,
            task_ms: None,
            priority: Priority::default(),
            lane: Lane::default(),
            retention_ms: None,
            labels: BTreeMap::new(),
            origin: None,
        }
    }

    /// The options this asks for, once its functions are resolved.
    pub fn options(&self, functions: Vec<FunctionRef>, ordered: bool) -> JobOptions {
        JobOptions {
            name: self.name.clone(),
            ordered: self.ordered || ordered,
            max_attempts: self.max_attempts.unwrap_or(1),
            deadline_ms: self.deadline_ms,
            fail_fast: self.fail_fast,
            task_ms: self.task_ms,
            priority: self.priority,
            lane: self.lane,
            retention_ms: self.retention_ms.unwrap_or(limits::RETENTION_MS_DEFAULT),
            labels: self.labels.clone(),
            ..JobOptions::new(functions)
        }
    }
}

/// A chunk to submit.
#[derive(Debug, Clone)]
pub struct SubmitChunk {
    /// Its number in the job.
    pub number: u32,
    /// Position of its first task in the job.
    pub task_first: u64,
    /// Its tasks.
    pub pack: Pack,
}

/// What became of one submitted chunk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum ChunkAnswer {
    /// Durable: it will end in an outcome per task, whatever crashes.
    Accepted,
    /// It was accepted before.
    Exists,
    /// It was not accepted.
    Refused {
        /// Why, and whether trying again may help.
        error: ApiError,
    },
}

/// The answer to a submission: one per chunk, in their order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SubmitReply {
    /// What became of each.
    pub answers: Vec<ChunkAnswer>,
    /// How long the job's first function takes, as far as known: for the choice of chunk sizes.
    pub estimate: Estimate,
    /// How many of its tasks the grid runs at once, at most.
    pub slots: u32,
}

/// A job, as it is shown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobView {
    /// The job.
    #[serde(flatten)]
    pub job: Job,
    /// Counts.
    pub summary: Summary,
    /// How long its first function takes, as far as known.
    pub estimate: Estimate,
    /// How many of its tasks the grid runs at once, at most: those of its lane, and of all jobs together.
    pub slots: u32,
    /// How long a machine takes to come where its lane has none while there is no work, 95th percentile.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub boot_ms: u64,
}

impl JobView {
    /// When the last of the tasks submitted so far ends at the earliest: if the job had the grid to itself, and its tasks took as
    /// long as is known of them. None where that is not known, no slot is there, or nothing is open.
    pub fn earliest_end_ms(&self, now_ms: u64) -> Option<u64> {
        let open = self.summary.tasks_submitted.saturating_sub(self.summary.totals.ended());
        let is_over = self.job.state.ended_at_ms().is_some();
        // Of several functions only the first one's tasks are known.
        let is_known = self.estimate.tasks > 0 && self.job.options.functions.len() == 1;
        if open == 0 || is_over || !is_known || self.slots == 0 {
            return None;
        }
        let width = if self.job.options.ordered { 1 } else { self.slots };
        let work_ms = self.estimate.mean_us / 1e3 * (open as f64 / f64::from(width)).max(1.0);
        Some(now_ms.saturating_add(self.boot_ms).saturating_add(work_ms as u64))
    }

    /// The job's deadline and [when it ends at the earliest](Self::earliest_end_ms), if that is later. Tasks that have not started
    /// by the deadline expire.
    pub fn lateness(&self, now_ms: u64) -> Option<(u64, u64)> {
        let deadline_ms = self.job.options.deadline_ms?;
        let end_ms = self.earliest_end_ms(now_ms)?;
        (end_ms > deadline_ms).then_some((deadline_ms, end_ms))
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Which jobs to list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobFilter {
    /// Only those that are not over.
    #[serde(default)]
    pub alive: bool,
    /// Only those with this name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Only those older than this one: the cursor of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<JobId>,
    /// At most so many; up to [`limits::PAGE_ROWS_MAX`], 100 by default.
    #[serde(default = "rows_default")]
    pub limit: usize,
}

impl Default for JobFilter {
    fn default() -> Self {
        Self { alive: false, name: None, before: None, limit: rows_default() }
    }
}

const fn rows_default() -> usize {
    100
}

/// A page of a listing, newest first for jobs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Page<T> {
    /// The rows.
    pub rows: Vec<T>,
    /// Where the next page starts; absent at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// The results of one chunk that has ended.
#[derive(Debug, Clone)]
pub struct ChunkResult {
    /// What is said of it.
    pub head: ChunkHead,
    /// Its segments, each in the segment format; tasks in none of them ended as `head.ended` says.
    pub segments: Vec<Bytes>,
    /// Its pack, if asked for.
    pub pack: Option<Bytes>,
}

/// What is said of a chunk with its results.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkHead {
    /// Its number in the job.
    pub number: u32,
    /// Position of its first task in the job.
    pub task_first: u64,
    /// Its tasks.
    pub tasks: u32,
    /// Why it ended before its tasks did, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<EndReason>,
}

/// Which results to read.
#[derive(Debug, Clone)]
pub struct ReadResults {
    /// Chunks that the reader has already.
    pub have: sheaf_core::ChunkSet,
    /// How long to wait for the first, at most [`limits::LONG_POLL_MS_MAX`].
    pub wait_ms: u64,
    /// At most so many chunks; up to [`limits::RESULT_PAGE_CHUNKS_MAX`], which is the default.
    pub chunks_max: usize,
    /// Whether to send the packs too, for the keys in them.
    pub with_packs: bool,
}

impl Default for ReadResults {
    fn default() -> Self {
        let (have, wait_ms, with_packs) = Default::default();
        Self { have, wait_ms, chunks_max: limits::RESULT_PAGE_CHUNKS_MAX, with_packs }
    }
}

/// Some results, and where the job stands.
#[derive(Debug, Clone)]
pub struct ResultsPage {
    /// The job.
    pub job: JobView,
    /// Chunks that ended and were not in `have`. Empty when there are none yet; when the job is over and this is empty,
    /// the reader has all.
    pub chunks: Vec<ChunkResult>,
}

/// What `explain` says of a task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskView {
    /// The task.
    pub id: TaskId,
    /// The user's key for it, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Its function.
    pub function: FunctionRef,
    /// Its outcome, once it has one.
    pub outcome: Option<Outcome>,
    /// In one sentence: why it is where it is.
    pub why: String,
    /// What its chunk waits for or is doing.
    pub chunk_state: String,
    /// The worker that holds or finished the chunk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<WorkerId>,
    /// When it was submitted.
    pub submitted_at_ms: u64,
    /// When its chunk ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at_ms: Option<u64>,
    /// Its run time, once it has a result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_us: Option<u32>,
    /// Attempts that ended in a user error so far.
    pub attempts: u32,
    /// Deaths under it so far.
    pub strikes: u8,
    /// Workers that died holding its chunk.
    pub crashes: u8,
    /// Attempts at its chunk that are over without having finished it.
    pub past: Vec<PastAttempt>,
    /// The checkpoint from which its next attempt goes on, or the present one went on or will; while it is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<CheckpointView>,
    /// Run time of those attempts that no checkpoint holds, in ms, once its chunk has had checkpoints. Exact for a task alone in
    /// its chunk; else what it may have lost at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost_ms: Option<u64>,
    /// Why it failed or was quarantined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// Size of its result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result_bytes: Option<u64>,
    /// How long its function takes, as far as known.
    pub estimate: Estimate,
}

/// A task's last checkpoint, as it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointView {
    /// The attempt that wrote it.
    pub epoch: u32,
    /// Its size.
    pub bytes: u32,
    /// When it was stored (Unix, ms).
    pub at_ms: u64,
    /// The run time that it holds, in ms, with that of the attempts before.
    pub run_ms: u64,
}

/// One line of a job's history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventView {
    /// Counts the events of a grid.
    pub number: u64,
    /// When it was written.
    pub at_ms: u64,
    /// The job.
    pub job: JobId,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// A function, as it is shown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FunctionView {
    /// Name and version.
    pub reference: FunctionRef,
    /// How it is declared.
    pub manifest: Manifest,
    /// How long it takes, as far as known.
    pub estimate: Estimate,
}

/// Declares a function. Repeating it with the same manifest is the same version.
#[derive(Debug, Clone)]
pub struct PutFunction {
    /// How it is declared.
    pub manifest: Manifest,
    /// Its zip, for a package; its digest is the manifest's.
    pub package: Option<Bytes>,
}

/// A worker, as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerView {
    /// The worker.
    pub id: WorkerId,
    /// Where it is: a host name.
    pub host: String,
    /// Its process there, if it says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Which chunks it takes.
    pub lanes: Vec<Lane>,
    /// How many tasks it runs at once.
    pub slots: u32,
    /// The chunks it holds, those of which it runs second copies included.
    pub holding: Vec<ChunkKey>,
    /// Of those, the chunks of which it runs second copies, without a lease.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub copies: Vec<ChunkKey>,
    /// Whether it takes no more.
    pub draining: bool,
    /// Since when it runs.
    pub started_at_ms: u64,
    /// When it was last heard of.
    pub seen_at_ms: u64,
    /// Tasks it has brought to an outcome.
    pub tasks_ended: u64,
}

/// The grid, as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GridView {
    /// Version of the software.
    pub version: String,
    /// What it stores in: `memory`, `disk` or `aws`.
    pub backend: String,
    /// Its data directory, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
    /// How many tasks it runs at once, on lanes of which `lanes` says nothing.
    pub slots: u32,
    /// The lanes that have machines of their own, which come when there is work.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub lanes: BTreeMap<Lane, LaneView>,
    /// Whether an acknowledgement means that it would survive a power cut.
    pub durable: bool,
    /// Syncs that acknowledgements waited for since it was opened, where it counts them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub syncs: Option<u64>,
}

impl GridView {
    /// What a lane's tasks run on.
    pub fn lane(&self, lane: Lane) -> LaneView {
        self.lanes.get(&lane).copied().unwrap_or(LaneView { slots: self.slots, boot_ms: 0 })
    }
}

/// The machines of a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneView {
    /// How many tasks they run at once, at most.
    pub slots: u32,
    /// How long one takes to come, 95th percentile.
    pub boot_ms: u64,
}

/// Fixes the size of a job.
pub type SealJob = Seal;

/// Asks for the failed and quarantined tasks of a job to be run again, as a new job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetryJob {
    /// The new job's id, chosen by the client.
    pub id: JobId,
}
