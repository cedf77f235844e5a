//! The two levels of error: [`GridError`] is ours, [`TaskError`] is your function's.

use std::{borrow::Cow, path::PathBuf, sync::Arc};

use sheaf_api::{ApiError, Code, FormatError, WriteOutcome};
use sheaf_core::{Failure, JobId, Outcome};

use crate::settings::SettingsError;

/// Something that the grid, the way to it or its use got wrong. Ends the call, or the stream, that gives it; the tasks
/// that were acknowledged go on.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum GridError {
    /// The grid answered with an error, or could not be reached for long.
    #[error(transparent)]
    Call(#[from] ApiError),
    /// An item could not be made into a task. Those before it were submitted.
    #[error("task {index} cannot be sent")]
    Item {
        /// Its position in the submission.
        index: u64,
        /// Why.
        #[source]
        source: ItemError,
    },
    /// What the grid answered is damaged.
    #[error("the answer about {job} cannot be read")]
    Damaged {
        /// The job.
        job: JobId,
        /// What is wrong with it.
        #[source]
        source: FormatError,
    },
    /// The journal of a job cannot be used.
    #[error("the journal {}", path.display())]
    Journal {
        /// Its path.
        path: PathBuf,
        /// Why.
        #[source]
        source: JournalError,
    },
    /// Which grid to use cannot be told.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// A grid in this process cannot be opened.
    #[error("the grid in {place} cannot be opened: {reason}")]
    Open {
        /// Its directory, or `memory`.
        place: String,
        /// Why.
        reason: String,
        /// Whether another process has it open, without serving it.
        in_use: bool,
    },
    /// Handlers are Rust functions in the grid's own process.
    #[error("{function} is a handler, and this grid runs in another process")]
    HandlerElsewhere {
        /// The function.
        function: String,
    },
    /// The handle was closed. What was accepted goes on.
    #[error("the handle of the grid was closed before {what}")]
    Closed {
        /// What did not come to pass.
        what: Cow<'static, str>,
    },
}

impl GridError {
    /// The code, the same as the grid uses.
    pub const fn code(&self) -> Code {
        match self {
            Self::Call(error) => error.code,
            Self::Item { source: ItemError::Format(FormatError::Limit { .. }), .. } => Code::TooLarge,
            Self::Item { .. } | Self::Settings(_) | Self::HandlerElsewhere { .. } => Code::Invalid,
            Self::Damaged { .. } => Code::Internal,
            Self::Journal { source, .. } => match source {
                JournalError::OtherJob { .. } | JournalError::OtherItems { .. } | JournalError::JobLost { .. } => {
                    Code::Conflict
                }
                JournalError::NotOne | JournalError::Version { .. } => Code::Invalid,
                JournalError::Locked | JournalError::Io { .. } => Code::Unavailable,
            },
            Self::Open { .. } => Code::Unavailable,
            Self::Closed { .. } => Code::Stopped,
        }
    }

    /// What to do next, where there is something.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Call(error) => error.hint.as_deref(),
            Self::Item { source: ItemError::Format(FormatError::Limit { what: "tasks in a pack", .. }), .. } => {
                Some("split it: the tasks of an ordered job travel together")
            }
            Self::Item { source: ItemError::Format(FormatError::Limit { .. }), .. } => {
                Some("put large inputs where the function can read them, and send their path or URL")
            }
            Self::Item { .. } | Self::Damaged { .. } => None,
            Self::Journal { source, .. } => source.hint(),
            Self::Settings(error) => error.hint(),
            Self::Open { in_use: true, .. } => {
                Some("wait for that process, give this one another directory, or serve the grid with `sheaf up`")
            }
            Self::Open { .. } => Some("`sheaf doctor` looks at the directory and says what is wrong"),
            Self::HandlerElsewhere { .. } => {
                Some("declare a command or a package with `sheaf function add`, or use an embedded grid")
            }
            Self::Closed { .. } => Some("attach to the job to read what becomes of it"),
        }
    }

    /// Could it have happened?
    pub const fn outcome(&self) -> WriteOutcome {
        match self {
            Self::Call(error) => error.outcome(),
            Self::Damaged { .. } => WriteOutcome::Unknown,
            Self::Closed { .. } => WriteOutcome::Unknown,
            Self::Journal { source: JournalError::Locked | JournalError::Io { .. }, .. } | Self::Open { .. } => {
                WriteOutcome::NotApplied
            }
            Self::Item { .. } | Self::Journal { .. } | Self::Settings(_) | Self::HandlerElsewhere { .. } => {
                WriteOutcome::Final
            }
        }
    }
}

/// Why an item could not be made into a task.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ItemError {
    /// It is beyond a limit.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// It cannot be written as JSON.
    #[error("it cannot be written as JSON")]
    Json(#[source] Arc<serde_json::Error>),
}

/// Why a journal cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// The file is something else.
    #[error("is not a journal of a job")]
    NotOne,
    /// It was written by a later version.
    #[error("is of version {version}, this build reads version 1")]
    Version {
        /// Its version.
        version: u8,
    },
    /// It belongs to a job with other options.
    #[error("belongs to {job}, which differs in its {difference}")]
    OtherJob {
        /// That job.
        job: JobId,
        /// What differs.
        difference: &'static str,
    },
    /// The items are not those that were submitted before.
    #[error("has chunk {chunk} of {job} with {expected} tasks, the items gave {found}")]
    OtherItems {
        /// The job.
        job: JobId,
        /// Which chunk.
        chunk: u32,
        /// Its tasks.
        expected: u32,
        /// How many were left.
        found: u32,
    },
    /// The grid has forgotten the job.
    #[error("belongs to {job}, which this grid no longer has")]
    JobLost {
        /// The job.
        job: JobId,
    },
    /// Another process uses it.
    #[error("is in use by another process")]
    Locked,
    /// It cannot be read or written.
    #[error("cannot be {doing}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// Why it failed.
        #[source]
        source: Arc<std::io::Error>,
    },
}

impl JournalError {
    const fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NotOne | Self::Version { .. } | Self::OtherJob { .. } => Some("give every job a journal of its own"),
            Self::OtherItems { .. } => Some("a job that is resumed must be given the same items in the same order"),
            Self::JobLost { .. } => Some("remove the journal to submit everything again, as a new job"),
            Self::Locked => Some("another run of the same job is still alive; wait for it or stop it"),
            Self::Io { .. } => None,
        }
    }
}

/// Why a task has no result. One task's business: the others and the grid go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TaskError {
    /// The function failed, on its last attempt.
    #[error(transparent)]
    Failed(Box<Failure>),
    /// Running it killed its process or worker too often.
    #[error("quarantined: {0}")]
    Quarantined(Box<Failure>),
    /// The job was cancelled before it had a result.
    #[error("cancelled before it had a result")]
    Cancelled,
    /// The deadline passed before it had a result.
    #[error("its deadline passed before it had a result")]
    Expired,
    /// It succeeded, but its result is not of the type that was asked for.
    #[error("its result is not what was asked for: {reason}")]
    Unreadable {
        /// What is wrong with it.
        reason: String,
    },
}

impl TaskError {
    /// What the task ended as.
    pub const fn outcome(&self) -> Outcome {
        match self {
            Self::Failed(_) => Outcome::Failed,
            Self::Quarantined(_) => Outcome::Quarantined,
            Self::Cancelled => Outcome::Cancelled,
            Self::Expired => Outcome::Expired,
            Self::Unreadable { .. } => Outcome::Succeeded,
        }
    }

    /// What the function or the grid said of it: kind, type, message, stack, stderr.
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Failed(failure) | Self::Quarantined(failure) => Some(failure),
            Self::Cancelled | Self::Expired | Self::Unreadable { .. } => None,
        }
    }
}
