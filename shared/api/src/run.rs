//! What a worker hands to whatever runs functions, and what it gets back: the seam between the steps, which know of
//! chunks and fences, and the host, which knows of processes.

use std::{sync::Arc, time::Duration};

use sheaf_core::{ChunkKey, Failure, FunctionRef, Manifest, TenantId};

use crate::{Pack, SegmentBuilder, checkpoint::Checkpoint};

/// Some tasks of one chunk and one function, to be run one after the other (or, by a batch function, at once).
#[derive(Debug, Clone)]
pub struct Call {
    /// Whose tasks they are. Processes are never shared between tenants.
    pub tenant: TenantId,
    /// The function.
    pub function: FunctionRef,
    /// How it is declared.
    pub manifest: Arc<Manifest>,
    /// The chunk.
    pub chunk: ChunkKey,
    /// The attempt; 0 for a second copy, which has none.
    pub epoch: u32,
    /// The chunk's payloads.
    pub pack: Pack,
    /// Which of its tasks, in the order to run them.
    pub tasks: Vec<u32>,
    /// No task starts after this time (Unix, ms).
    pub deadline_ms: Option<u64>,
    /// Once this has passed no further task is started; those not started are in no list of the report.
    pub budget: Option<Duration>,
    /// Start no further task once one has failed: the tasks are ordered, and a failed one may be tried again first.
    pub stop_on_failure: bool,
    /// The checkpoint of the only task, for a function that writes checkpoints.
    pub checkpoint: Option<Arc<Checkpoint>>,
}

/// What came of a call. A task in none of the lists was not started, unless `unanswered` says otherwise.
#[derive(Debug, Default)]
pub struct Report {
    /// Results of the tasks that succeeded.
    pub answers: SegmentBuilder,
    /// The others.
    pub failures: Vec<Failed>,
    /// What tasks printed: at most the last [`sheaf_core::limits::LOG_BYTES_MAX`] of each; only tasks that printed.
    pub logs: SegmentBuilder,
    /// Why tasks in no list have no answer, if not because they were not started in time: their function could not be
    /// started at all (`not_started`), or was called with a whole batch and died, timed out or reported an error, so that
    /// nobody knows which task is guilty.
    pub unanswered: Option<Failure>,
}

/// A task whose attempt failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    /// The task's index in its chunk.
    pub task: u32,
    /// Why.
    pub failure: Failure,
    /// How long it ran, in µs.
    pub run_us: u32,
}
