//! The caps of the client, each with its source. Those that the grid holds too are in [`sheaf_core::limits`].

/// Submissions of one job under way at once. With a disk that syncs in about a millisecond, two keep it busy and two more
/// cover the round trip; the chunks that close meanwhile travel together in the next call.
pub(crate) const SUBMISSIONS_MAX: usize = 4;
/// Bytes of packs after which a submission is sent, whatever its number of chunks. Source: a request body that a proxy
/// takes without complaint.
pub(crate) const SUBMISSION_BYTES_TARGET: usize = 8 * 1024 * 1024;
/// Closed chunks that wait for a submission: two calls' worth, so that tiny chunks cannot pile up under the byte budget.
pub(crate) const CHUNKS_READY_MAX: usize = 2 * sheaf_core::limits::WRITES_PER_CALL_MAX;
/// The least work a chunk is made to hold when the rest of a job is spread over all slots: below, the chunk itself costs
/// more than the straggler it avoids.
pub(crate) const CHUNK_WORK_US_MIN: f64 = 5_000.0;
/// The shortest mean task time that is believed: clocks do not resolve less.
pub(crate) const TASK_US_MIN: f64 = 0.1;
/// Chunks per slot that the rest of a job is spread over (guided self-scheduling).
pub(crate) const CHUNKS_PER_SLOT: u64 = 4;
/// Single tasks sent of a function of which nothing is known before its first estimate is waited for.
pub(crate) const PROBES_MIN: u64 = 16;
/// How long an estimate is waited for before twice as many single tasks may go out.
pub(crate) const PROBE_WAIT_MS: u64 = 1_000;

/// Errors that may pass are retried for so long, unless the grid says when to come back.
pub(crate) const RETRY_FOR_MS: u64 = 120_000;
/// First pause before a retry; doubled each time, with jitter.
pub(crate) const RETRY_PAUSE_MS_MIN: u64 = 10;
/// Longest pause before a retry.
pub(crate) const RETRY_PAUSE_MS_MAX: u64 = 5_000;
/// Longest pause that a grid's "retry after" is followed to.
pub(crate) const RETRY_AFTER_MS_MAX: u64 = 30_000;

/// Chunks that wait for an earlier one when results are given in order.
pub(crate) const REORDER_CHUNKS_MAX: u32 = 64;
/// Bytes of results that wait for an earlier one; beyond, only the chunk that is next is fetched.
pub(crate) const REORDER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Tasks that wait in one process for a place in the job behind the tickets.
pub(crate) const TICKETS_QUEUED_MAX: usize = 16 * 1024;
/// Chunks after which the job behind the tickets is sealed and another one begun: what one container of the set of
/// chunks that were read holds.
pub(crate) const TICKET_CHUNKS_MAX: u32 = 65_536;

/// Progress is told at most this often. Source: four times a second is what a terminal shows.
pub(crate) const PROGRESS_MS: u64 = 250;
/// How far back the rate looks.
pub(crate) const RATE_WINDOW_MS: u64 = 5_000;

/// How long connecting is retried before a wrong address is told: enough for a grid that is being restarted.
#[cfg(feature = "remote")]
pub(crate) const CONNECT_RETRY_MS: u64 = 5_000;
/// How long a grid that holds the lock of its directory may take to say where it listens.
#[cfg(feature = "embedded")]
pub(crate) const GRID_FILE_WAIT_MS: u64 = 3_000;
