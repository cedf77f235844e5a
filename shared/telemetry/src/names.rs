//! Every metric and dimension, by name. Counters end in `_total`, other quantities in their unit.
//!
//! CloudWatch bills a metric per name and combination of dimensions, so dimensions have few values: never a job, a chunk or
//! a tenant.

use sheaf_core::Outcome;

/// A metric: its name, and the unit it is given in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// Its unit, as CloudWatch calls it.
    pub unit: &'static str,
}

const fn count(name: &'static str) -> Metric {
    Metric { name, unit: "Count" }
}

const fn seconds(name: &'static str) -> Metric {
    Metric { name, unit: "Seconds" }
}

const fn bytes(name: &'static str) -> Metric {
    Metric { name, unit: "Bytes" }
}

/// The dimension that every metric has: the name of the grid.
pub const GRID: &str = "grid";
/// What a task ended as (of [`TASKS`]).
pub const OUTCOME: &str = "outcome";
/// The lane of a chunk (of those metrics that a lane's workers give).
pub const LANE: &str = "lane";
/// The AWS service that was asked (of [`REQUESTS`]).
pub const SERVICE: &str = "service";
/// What it was asked for (of [`REQUESTS`]).
pub const OPERATION: &str = "operation";
/// The step that asked (of [`REQUESTS`]).
pub const STEP: &str = "step";

/// Chunks claimed (T2, T3).
pub const CHUNKS_CLAIMED: Metric = count("chunks_claimed_total");
/// Chunks finished (T8).
pub const CHUNKS_FINISHED: Metric = count("chunks_finished_total");
/// Chunks given back (T7).
pub const CHUNKS_RELEASED: Metric = count("chunks_released_total");
/// Chunks whose worker found that it no longer holds them.
pub const CHUNKS_FENCED: Metric = count("chunks_fenced_total");
/// Chunks that were cancelled or expired (T9).
pub const CHUNKS_ENDED: Metric = count("chunks_ended_total");
/// Tasks that ended, by [`OUTCOME`]. A record of the stream that comes twice is counted twice: what is exact is the summary
/// of a job.
pub const TASKS: Metric = count("tasks_total");
/// From the claim of a chunk to its end, by the worker that finished it.
pub const CHUNK_DURATION: Metric = seconds("chunk_duration_seconds");
/// From the submission of a chunk to its first claim.
pub const QUEUE_DELAY: Metric = seconds("queue_delay_seconds");
/// Claims that a finished chunk took: at most so often was each of its tasks started by a worker.
pub const EXECUTIONS_PER_TASK: Metric = count("executions_per_task");
/// Bytes of results committed.
pub const RESULT_BYTES: Metric = bytes("result_bytes_total");
/// Hints whose chunk was over, or held by somebody else.
pub const ORPHAN_HINTS: Metric = count("orphan_hints_total");
/// Chunks that the sweeper looked at.
pub const SWEEP_LOOKED_AT: Metric = count("sweep_looked_at_total");
/// Hints that the sweeper sent again.
pub const SWEEP_HINTS: Metric = count("sweep_hints_total");
/// Chunks whose deadline the sweeper closed.
pub const SWEEP_EXPIRED: Metric = count("sweep_expired_total");
/// Ended chunks that the sweeper found missing in their job's summary.
pub const SWEEP_RECOUNTED: Metric = count("sweep_recounted_total");
/// Jobs past their retention that the sweeper removed.
pub const SWEEP_REMOVED: Metric = count("sweep_removed_total");
/// Rounds of the sweeper that broke off because a service was busy.
pub const SWEEP_BACKED_OFF: Metric = count("sweep_backed_off_total");
/// The longest that a chunk has been waiting for a worker, of those that the sweeper looked at.
pub const OLDEST_PENDING: Metric = seconds("oldest_pending_seconds");
/// Hints in the queues that nobody has received, roughly.
pub const BACKLOG: Metric = count("backlog_hints");
/// Work that the containers of a [`LANE`] have before them, in flight included.
pub const WORK: Metric = seconds("work_seconds");
/// Containers of a [`LANE`] that the scaler wants.
pub const CONTAINERS_WANTED: Metric = count("containers_wanted");
/// Containers of a [`LANE`] that run, as ECS counts them.
pub const CONTAINERS_RUNNING: Metric = count("containers_running");
/// Records of the table's stream that could not be read and were passed over.
pub const STREAM_POISON: Metric = count("stream_poison_total");
/// Notifications that were refused for good and given up.
pub const NOTIFICATIONS_LOST: Metric = count("notifications_lost_total");
/// Requests to AWS, by [`SERVICE`], [`OPERATION`] and [`STEP`].
pub const REQUESTS: Metric = count("requests_total");

/// The value of [`OUTCOME`].
pub const fn outcome(outcome: Outcome) -> &'static str {
    outcome.as_str()
}

/// All metrics.
pub const ALL: [Metric; 25] = [
    CHUNKS_CLAIMED,
    CHUNKS_FINISHED,
    CHUNKS_RELEASED,
    CHUNKS_FENCED,
    CHUNKS_ENDED,
    TASKS,
    CHUNK_DURATION,
    QUEUE_DELAY,
    EXECUTIONS_PER_TASK,
    RESULT_BYTES,
    ORPHAN_HINTS,
    SWEEP_LOOKED_AT,
    SWEEP_HINTS,
    SWEEP_EXPIRED,
    SWEEP_RECOUNTED,
    SWEEP_REMOVED,
    SWEEP_BACKED_OFF,
    OLDEST_PENDING,
    BACKLOG,
    WORK,
    CONTAINERS_WANTED,
    CONTAINERS_RUNNING,
    STREAM_POISON,
    NOTIFICATIONS_LOST,
    REQUESTS,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_apart_and_say_their_unit() {
        for (at, metric) in ALL.iter().enumerate() {
            assert!(ALL[..at].iter().all(|other| other.name != metric.name), "{} is there twice", metric.name);
            assert_eq!(metric.name.contains("_seconds"), metric.unit == "Seconds", "{}", metric.name);
            assert_eq!(metric.name.contains("_bytes"), metric.unit == "Bytes", "{}", metric.name);
            assert!(metric.name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{}", metric.name);
        }
    }
}
