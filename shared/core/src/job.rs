//! The job: what a client submits, and the life of it.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{Digest, FunctionRef, IdError, JobId, TenantId, limits};

/// Where a job's chunks may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Lane {
    /// On Lambda: short tasks. On an embedded grid, all lanes are its own workers.
    #[default]
    Lambda,
    /// In containers on machines that may be taken away at two minutes' notice.
    Spot,
    /// In containers on machines that stay.
    OnDemand,
}

/// How urgent a job is. Queues are polled 90 to 9 to 1, so that nothing starves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// Before the others.
    High,
    /// As usual.
    #[default]
    Normal,
    /// When nothing else waits.
    Low,
}

impl Priority {
    /// All of them, most urgent first.
    pub const ALL: [Self; 3] = [Self::High, Self::Normal, Self::Low];
}

macro_rules! words {
    ($type:ident, $expected:literal, $($variant:ident => $word:literal),+) => {
        impl $type {
            /// The word for it.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }
        impl FromStr for $type {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                match text {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(IdError::new(text, $expected)),
                }
            }
        }
    };
}
words!(Lane, "a lane (lambda, spot or on-demand)", Lambda => "lambda", Spot => "spot", OnDemand => "on-demand");
words!(Priority, "a priority (high, normal or low)", High => "high", Normal => "normal", Low => "low");

/// What a client asks of a job. Fixed when it is created; its digest tells the same job from another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobOptions {
    /// A name for people; need not be unique.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The functions that its packs name by index: 1 to [`limits::JOB_FUNCTIONS_MAX`].
    pub functions: Vec<FunctionRef>,
    /// One chunk, whose tasks run one after the other.
    #[serde(default)]
    pub ordered: bool,
    /// How often a task is tried when the function reports an error, including the first. 1 to
    /// [`limits::TASK_ATTEMPTS_MAX`].
    #[serde(default = "one")]
    pub max_attempts: u32,
    /// No task starts after this time (Unix, ms).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
    /// The job is cancelled once this many tasks have failed or were quarantined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fail_fast: Option<u64>,
    /// How long a task is expected to take, in ms; at least 1. A hint: it sizes chunks until the function has been seen, and counts
    /// before what was seen where capacity is decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_ms: Option<u64>,
    /// How urgent.
    #[serde(default)]
    pub priority: Priority,
    /// Where it runs.
    #[serde(default)]
    pub lane: Lane,
    /// How long it is kept after its end; at most [`limits::RETENTION_MS_MAX`].
    #[serde(default = "retention_ms_default")]
    pub retention_ms: u64,
    /// Whatever the user wants to find again.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

const fn one() -> u32 {
    1
}

const fn retention_ms_default() -> u64 {
    limits::RETENTION_MS_DEFAULT
}

impl JobOptions {
    /// Options with defaults for all but the functions.
    pub fn new(functions: Vec<FunctionRef>) -> Self {
        Self {
            name: String::new(),
            functions,
            ordered: false,
            max_attempts: one(),
            deadline_ms: None,
            fail_fast: None,
            task_ms: None,
            priority: Priority::default(),
            lane: Lane::default(),
            retention_ms: retention_ms_default(),
            labels: BTreeMap::new(),
        }
    }

    /// Checks every bound that options can break; says which, in words for the user.
    pub fn check(&self) -> Result<(), String> {
        if self.functions.is_empty() || self.functions.len() > limits::JOB_FUNCTIONS_MAX {
            return Err(format!(
                "names {} functions, must be 1 to {}",
                self.functions.len(),
                limits::JOB_FUNCTIONS_MAX
            ));
        }
        if !(1..=limits::TASK_ATTEMPTS_MAX).contains(&self.max_attempts) {
            return Err(format!("max_attempts is {}, must be 1 to {}", self.max_attempts, limits::TASK_ATTEMPTS_MAX));
        }
        if self.fail_fast == Some(0) {
            return Err("fail_fast is 0, must be at least 1".into());
        }
        if self.task_ms == Some(0) {
            return Err("task_ms is 0, must be at least 1".into());
        }
        if self.retention_ms > limits::RETENTION_MS_MAX {
            return Err(format!("retention_ms is {}, must be at most {}", self.retention_ms, limits::RETENTION_MS_MAX));
        }
        let at_most = |what, bytes: usize, bytes_max: usize| {
            if bytes <= bytes_max {
                Ok(())
            } else {
                Err(format!("{what} of {bytes} bytes, must have at most {bytes_max}"))
            }
        };
        at_most("has a name", self.name.len(), limits::JOB_NAME_BYTES_MAX)?;
        let labels_bytes = self.labels.iter().map(|(name, value)| name.len() + value.len()).sum();
        at_most("has labels", labels_bytes, limits::JOB_LABELS_BYTES_MAX)?;
        Ok(())
    }

    /// Tasks that one chunk of the job may hold.
    pub const fn chunk_tasks_max(&self) -> u32 {
        if self.ordered { limits::ORDERED_TASKS_MAX } else { limits::CHUNK_TASKS_MAX }
    }
}

/// What a job came from, where that was not a client's call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// A file that was dropped into an inbox, or an uploaded object.
    File {
        /// Its path or URL.
        path: String,
    },
    /// The failed tasks of another job.
    RetryOf {
        /// That job.
        job: JobId,
    },
}

/// The size of a job, fixed when it is sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seal {
    /// Chunks 0 to `chunks` − 1 make up the job.
    pub chunks: u32,
    /// Tasks in all of them.
    pub tasks: u64,
}

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum JobState {
    /// Takes chunks.
    Open,
    /// Takes no more chunks.
    Sealed {
        /// Its size.
        seal: Seal,
    },
    /// The wish to cancel is durable; its chunks are being ended.
    Cancelling {
        /// Its size, if it was sealed.
        seal: Option<Seal>,
    },
    /// Every chunk is final, and some may have been cancelled. Final.
    Cancelled {
        /// Its size, if it was sealed.
        seal: Option<Seal>,
        /// When (Unix, ms).
        at_ms: u64,
    },
    /// Every chunk is final. Final.
    Done {
        /// Its size.
        seal: Seal,
        /// When (Unix, ms).
        at_ms: u64,
    },
}

impl JobState {
    /// The word for it.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Sealed { .. } => "sealed",
            Self::Cancelling { .. } => "cancelling",
            Self::Cancelled { .. } => "cancelled",
            Self::Done { .. } => "done",
        }
    }

    /// The size, once it is fixed.
    pub const fn seal(&self) -> Option<Seal> {
        match *self {
            Self::Open => None,
            Self::Sealed { seal } | Self::Done { seal, .. } => Some(seal),
            Self::Cancelling { seal } | Self::Cancelled { seal, .. } => seal,
        }
    }

    /// When it ended (Unix, ms).
    pub const fn ended_at_ms(&self) -> Option<u64> {
        match *self {
            Self::Open | Self::Sealed { .. } | Self::Cancelling { .. } => None,
            Self::Cancelled { at_ms, .. } | Self::Done { at_ms, .. } => Some(at_ms),
        }
    }

    /// Whether its chunks are to be ended rather than run.
    pub const fn is_cancelled(&self) -> bool {
        matches!(self, Self::Cancelling { .. } | Self::Cancelled { .. })
    }
}

/// A job, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// The id.
    pub id: JobId,
    /// Whose it is.
    pub tenant: TenantId,
    /// What was asked.
    pub options: JobOptions,
    /// Digest of the options, as the client sent them.
    pub options_digest: Digest,
    /// Where it came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    /// When it was created (Unix, ms).
    pub created_at_ms: u64,
    /// Where it stands.
    pub state: JobState,
}

/// What can happen to a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobEvent {
    /// The client has submitted all of it.
    Seal {
        /// Its size.
        seal: Seal,
    },
    /// Somebody wants it cancelled.
    Cancel,
    /// Every chunk of the cancelled job is final.
    CancelComplete {
        /// When (Unix, ms).
        now_ms: u64,
    },
    /// Every chunk of the sealed job is final.
    Complete {
        /// When (Unix, ms).
        now_ms: u64,
    },
}

/// Why a job did not change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum JobRefused {
    /// There is no such job.
    #[error("no such job")]
    Absent,
    /// It is so already.
    #[error("it is so already")]
    Already,
    /// It was sealed with another size.
    #[error("it was sealed with another size")]
    OtherSeal,
    /// It is over, or being cancelled.
    #[error("it is over")]
    Over,
    /// It cannot be complete before it is sealed, nor cancelled before somebody asked for that.
    #[error("it has not come to that yet")]
    Open,
}

impl Job {
    /// The job after an event, or why nothing changes.
    pub fn apply(&self, event: &JobEvent) -> Result<Self, JobRefused> {
        let state = match (self.state, *event) {
            (JobState::Open, JobEvent::Seal { seal }) => JobState::Sealed { seal },
            (JobState::Sealed { seal: old } | JobState::Done { seal: old, .. }, JobEvent::Seal { seal }) => {
                return Err(if old == seal { JobRefused::Already } else { JobRefused::OtherSeal });
            }
            (JobState::Cancelling { .. } | JobState::Cancelled { .. }, JobEvent::Seal { .. }) => {
                return Err(JobRefused::Over);
            }
            (JobState::Open, JobEvent::Cancel) => JobState::Cancelling { seal: None },
            (JobState::Sealed { seal }, JobEvent::Cancel) => JobState::Cancelling { seal: Some(seal) },
            (JobState::Cancelling { .. } | JobState::Cancelled { .. }, JobEvent::Cancel) => {
                return Err(JobRefused::Already);
            }
            (JobState::Done { .. }, JobEvent::Cancel) => return Err(JobRefused::Over),
            (JobState::Cancelling { seal }, JobEvent::CancelComplete { now_ms }) => {
                JobState::Cancelled { seal, at_ms: now_ms }
            }
            (JobState::Cancelled { .. }, JobEvent::CancelComplete { .. }) => return Err(JobRefused::Already),
            (JobState::Open | JobState::Sealed { .. }, JobEvent::CancelComplete { .. }) => {
                return Err(JobRefused::Open);
            }
            (JobState::Done { .. }, JobEvent::CancelComplete { .. }) => return Err(JobRefused::Over),
            (JobState::Sealed { seal }, JobEvent::Complete { now_ms }) => JobState::Done { seal, at_ms: now_ms },
            (JobState::Open, JobEvent::Complete { .. }) => return Err(JobRefused::Open),
            (JobState::Cancelling { .. } | JobState::Cancelled { .. }, JobEvent::Complete { .. }) => {
                return Err(JobRefused::Over);
            }
            (JobState::Done { .. }, JobEvent::Complete { .. }) => return Err(JobRefused::Already),
        };
        Ok(Self { state, ..self.clone() })
    }
}
