//! Every cap of the grid, each with its source.
//!
//! A loop, queue, buffer or retry anywhere in the workspace takes its bound from here, so that a reader can see in one
//! place what can be asked of the grid, and so that two parts never disagree on it.

/// Tasks in a chunk of an unordered job. Source: a chunk's marks (2 bits a task) and its work must fit one lease renewal
/// and one DynamoDB item of a few KB.
pub const CHUNK_TASKS_MAX: u32 = 1_024;
/// Tasks in the single chunk of an ordered job. 65,536 tasks are 16 KB of marks, well under DynamoDB's 400 KB item.
pub const ORDERED_TASKS_MAX: u32 = 65_536;
/// Chunks in one job. The number is a `u32`; the cap leaves room for arithmetic and keeps a set of a job's chunks under
/// 128 MiB at one bit each.
pub const JOB_CHUNKS_MAX: u32 = 1 << 30;
/// Functions that one job may name by index.
pub const JOB_FUNCTIONS_MAX: usize = 256;
/// A job's name for people.
pub const JOB_NAME_BYTES_MAX: usize = 256;
/// Names and values of a job's labels together.
pub const JOB_LABELS_BYTES_MAX: usize = 4_096;
/// One payload or one result. Source: the payload limit of a synchronous Lambda invocation, 6 MiB.
pub const TASK_BYTES_MAX: usize = 6 * 1024 * 1024;
/// A pack or a segment, uncompressed. An SDK closes a chunk well before (see [`PACK_BYTES_TARGET`]); an ordered job's
/// single chunk is what needs the room.
pub const PACK_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Bytes after which a batcher closes a chunk, whatever its task count.
pub const PACK_BYTES_TARGET: usize = 1024 * 1024;
/// A user's key of a task (the id of a command in a file).
pub const TASK_KEY_BYTES_MAX: usize = 1_024;
/// Packs up to this size also ride in the queue message. Source: SQS bills per 64 KB; base64 adds a third.
pub const INLINE_PACK_BYTES_MAX: usize = 48 * 1024;
/// Chunks in one submit, claim or commit call. Source: DynamoDB's `TransactWriteItems` limit of 100, and an HTTP body of
/// at most 100 × 1 MiB targets.
pub const WRITES_PER_CALL_MAX: usize = 100;
/// Messages per queue call. Source: SQS batch calls take 10 entries.
pub const QUEUE_BATCH_MAX: usize = 10;
/// Bytes of one HTTP request body. Source: the largest pack plus its frame.
pub const REQUEST_BYTES_MAX: usize = PACK_BYTES_MAX + 1024 * 1024;
/// Chunks answered by one page of results.
pub const RESULT_PAGE_CHUNKS_MAX: usize = 64;
/// Bytes after which a page of results is closed (always holding at least one chunk).
pub const RESULT_PAGE_BYTES_TARGET: usize = 8 * 1024 * 1024;
/// Rows in one page of a listing.
pub const PAGE_ROWS_MAX: usize = 1_000;
/// The longest a long poll is held. Source: API Gateway ends an HTTP request after 30 s.
pub const LONG_POLL_MS_MAX: u64 = 20_000;

/// A lease, renewed every [`HEARTBEAT_MS`].
pub const LEASE_MS: u64 = 30_000;
/// The pause between two heartbeats: two may be lost before a lease runs out.
pub const HEARTBEAT_MS: u64 = 10_000;
/// Clocks may differ by this much; a lease is taken over only after lease + margin. Source: NTP on EC2 keeps within
/// milliseconds; seconds cover a broken one.
pub const CLOCK_MARGIN_MS: u64 = 5_000;
/// The pause between two sweeps.
pub const SWEEP_MS: u64 = 15_000;
/// A queued chunk is looked at by the sweeper this long after its last hint.
pub const HINT_AGE_MS: u64 = 60_000;
/// Work whose results are not yet committed is committed at least this often, so that a crash loses little.
pub const SEGMENT_MS: u64 = 5_000;
/// Segments of one chunk. An unordered chunk cannot have more, as each holds a task at least; an ordered one reaches it after
/// 85 minutes of one every [`SEGMENT_MS`].
pub const SEGMENTS_MAX: usize = 1_024;
/// Uncommitted result bytes after which a segment is committed at once.
pub const SEGMENT_BYTES_TARGET: usize = 16 * 1024 * 1024;

/// One checkpoint of a task. A larger one is not kept; the task goes on.
pub const CHECKPOINT_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Open tasks of one chunk that have a checkpoint. At about 70 bytes each they take 9 KB of the chunk's item; only tasks that
/// were running when an attempt ended have one, so this bounds what a worker with very many slots leaves.
pub const CHECKPOINTS_MAX: usize = 128;
/// How often a function's checkpoint is looked for unless its manifest says otherwise.
pub const CHECKPOINT_EVERY_MS_DEFAULT: u64 = 60_000;
/// The shortest pause between two looks that a manifest may ask for. Source: each new checkpoint is a put, a write of the
/// chunk, and a deletion of the one before.
pub const CHECKPOINT_EVERY_MS_MIN: u64 = 1_000;
/// A worker that has to stop asks for checkpoints this long before its time is up, or when half of the notice is left if that
/// is less: 64 MiB are written to a disk and sent to a store in this time.
pub const CHECKPOINT_ASK_MS: u64 = 20_000;

/// Host deaths under a chunk after which it runs one task at a time behind a marker.
pub const CRASHES_BEFORE_ISOLATION: u8 = 2;
/// Strikes (child deaths, or host deaths under the marker) after which a task is quarantined.
pub const STRIKES_MAX: u8 = 3;
/// The most attempts that a job may ask for per task.
pub const TASK_ATTEMPTS_MAX: u32 = 100;
/// Ended attempts remembered in a chunk, for `explain`; older ones are forgotten, oldest first.
pub const PAST_ATTEMPTS_MAX: usize = 16;
/// First back-off after a user error; doubled each time, with full jitter.
pub const BACKOFF_BASE_MS: u64 = 200;
/// Longest back-off after a user error.
pub const BACKOFF_MAX_MS: u64 = 60_000;
/// Back-offs up to this long are waited for under the lease; longer ones release the chunk.
pub const BACKOFF_HELD_MS_MAX: u64 = 2_000;

/// Stderr (or log output) kept per task and attempt: the last bytes of it.
pub const LOG_BYTES_MAX: usize = 64 * 1024;
/// The function's own name for an error, kept.
pub const ERROR_TYPE_BYTES_MAX: usize = 256;
/// A failure's message, kept.
pub const MESSAGE_BYTES_MAX: usize = 16 * 1024;
/// Frames of a failure's stack, kept.
pub const STACK_FRAMES_MAX: usize = 100;
/// One of those frames, kept.
pub const STACK_FRAME_BYTES_MAX: usize = 1_024;

/// How long a function may run on one task unless its manifest says otherwise.
pub const FUNCTION_TIMEOUT_MS_DEFAULT: u64 = 60_000;
/// The longest timeout a manifest may ask for: a week.
pub const FUNCTION_TIMEOUT_MS_MAX: u64 = 7 * 24 * 3600 * 1000;
/// Memory of a function's process (resident, with its children) unless its manifest says otherwise.
pub const FUNCTION_MEMORY_BYTES_DEFAULT: u64 = 1024 * 1024 * 1024;
/// A function package, zipped. Source: Lambda's limit for a zip is 250 MB unzipped.
pub const PACKAGE_BYTES_MAX: u64 = 250 * 1024 * 1024;
/// A manifest's JSON.
pub const MANIFEST_BYTES_MAX: usize = 64 * 1024;

/// How long a finished job and its bytes are kept unless its options say otherwise: 30 days.
pub const RETENTION_MS_DEFAULT: u64 = 30 * 24 * 3600 * 1000;
/// The longest that a job may ask to be kept after its end: ten years.
pub const RETENTION_MS_MAX: u64 = 3_653 * 24 * 3600 * 1000;
/// An SDK closes a chunk this long after its first task at the latest.
pub const LINGER_MS_DEFAULT: u64 = 5;
/// Bytes an SDK may have submitted and not yet seen acknowledged.
pub const UNACKNOWLEDGED_BYTES_DEFAULT: usize = 64 * 1024 * 1024;
/// Work that a chunk should hold, for a function whose task time is known.
pub const CHUNK_WORK_MS_TARGET: u64 = 10_000;
