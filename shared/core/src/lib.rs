//! The words of the grid, as types and pure functions.
//!
//! Everything here is data and arithmetic: ids, limits, the states of jobs and chunks, the ten transitions between
//! them, outcomes, events, and the invariants that hold between all of these. There is no I/O, no clock, no randomness
//! and no async: time and nonces arrive inside events, so that the same code runs under DynamoDB, under the embedded
//! store and under a simulator. What to do *when* is the business of `sheaf-protocol`.

pub mod chunk;
pub mod event;
pub mod function;
pub mod id;
pub mod invariant;
pub mod job;
pub mod limits;
pub mod outcome;
pub mod summary;

pub use chunk::{
    Attempt, CheckpointRef, Chunk, ChunkEvent, ChunkSpec, ChunkState, Commit, Due, EndReason, Evidence, Lease, Owner,
    PastAttempt, Refused, ReleaseReason, SegmentRef, Tally, Work, WorkV1, due_of_lease,
};
pub use event::Event;
pub use function::{Estimate, FunctionKind, Manifest, ManifestError, ResultForm};
pub use id::{ChunkKey, Digest, FunctionName, FunctionRef, IdError, JobId, TaskId, TenantId, WorkerId};
pub use job::{Job, JobEvent, JobOptions, JobRefused, JobState, Lane, Origin, Priority, Seal};
pub use outcome::{Consequence, Failure, FailureKind, Mark, Marks, Outcome};
pub use summary::{ChunkSet, ChunkTotals, Summary, Totals};
