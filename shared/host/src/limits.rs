//! The caps that only a host has. Those it shares with the rest of the grid are in [`sheaf_core::limits`].

use std::time::Duration;

/// How long a child may take from its start to its first request for work. Source: Lambda's init phase, 10 s.
pub const INIT: Duration = Duration::from_secs(10);
/// How long a child may stay away between an answer and its next request for work before it is taken as hung.
pub const RETURN: Duration = Duration::from_secs(10);
/// The pause between two looks at a running child: its clock and its memory.
pub const SAMPLE: Duration = Duration::from_millis(50);
/// Time from SIGTERM to SIGKILL. Source: what Lambda leaves a runtime on shutdown.
pub const TERM: Duration = Duration::from_secs(2);
/// How long an answer of a child that has already ended is waited for: it lies in a socket buffer or nowhere.
pub const LAST_ANSWER: Duration = Duration::from_millis(100);
/// How long the output of a command that has ended is waited for, when somebody else still holds its pipe.
pub const LAST_OUTPUT: Duration = Duration::from_secs(1);
/// How long a program that was just unpacked, and still counts as busy, is left alone before it is tried again.
pub const BUSY: Duration = Duration::from_millis(10);
/// How often it is.
pub const BUSY_LOOKS_MAX: usize = 100;

/// Connections that one child may hold to its listener.
pub const CONNECTIONS_MAX: usize = 64;
/// Bytes of an answer beyond its limit that are read and dropped; past this the child is stopped instead.
pub const OVERRUN_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// The body of an error report: room for a message and a stack, which are cut further by [`sheaf_core::Failure::capped`].
pub const ERROR_BYTES_MAX: u64 = 1024 * 1024;
/// An event, be it of a batch; the rest of the call becomes another one. Source: what a synchronous invocation of a Lambda
/// function may carry, 6 MB, and less than a megabyte for what the service adds.
pub const BATCH_BYTES_MAX: usize = sheaf_core::limits::TASK_BYTES_MAX;
/// The client context of an invocation by ARN; a key that would make it longer is left out. Source: Lambda takes 3,583 bytes
/// of base64.
pub const CONTEXT_BYTES_MAX: usize = 2_685;
/// The first pause after an invocation by ARN was throttled, doubled up to the longest.
pub const THROTTLED: Duration = Duration::from_millis(100);
/// The longest pause between two tries of a throttled invocation.
pub const THROTTLED_MAX: Duration = Duration::from_secs(5);
/// How long a throttled invocation keeps its slot; then its tasks are as if they were not started.
pub const THROTTLED_TOTAL: Duration = Duration::from_secs(20);
/// Output read in one go when a log is cut at the end of a task.
pub const LOG_CUT_BYTES_MAX: usize = 1024 * 1024;

/// Entries in a package.
pub const PACKAGE_FILES_MAX: usize = 65_536;
/// Unpacked packages kept; beyond this the one longest unused goes.
pub const PACKAGES_MAX: usize = 64;
/// Handler threads that were left running after a timeout, or after nobody waited for them, before new calls of handlers
/// are refused.
pub const THREADS_LEFT_MAX: usize = 64;
/// How long an idle handler thread is kept.
pub const THREAD_IDLE: Duration = Duration::from_secs(30);

/// What a child finds in `PATH` unless its manifest says otherwise.
pub const PATH: &str = "/usr/local/bin:/usr/bin:/bin";
