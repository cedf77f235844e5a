//! What a port can answer when it does not do what it was asked.

use sheaf_api::{ApiError, Code, WriteOutcome};
use sheaf_core::{Chunk, JobRefused, Refused};

/// A store or queue that could not do its work. Variants are by what the caller can do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// It did not happen; ask again after the time given.
    #[error("the store is busy")]
    Throttled {
        /// When to ask again.
        retry_after_ms: u64,
    },
    /// It may have happened: the answer was lost.
    #[error("the answer of the store was lost: {detail}")]
    Unknown {
        /// What was seen.
        detail: String,
    },
    /// It did not happen, and this store will not do anything again: full, failing, or closed.
    #[error("the store has stopped: {detail}")]
    Stopped {
        /// Why.
        detail: String,
    },
    /// What is stored cannot be read: damaged, or of a later version.
    #[error("{object} cannot be read: {detail}")]
    Damaged {
        /// The object.
        object: String,
        /// What is wrong with it.
        detail: String,
    },
}

impl StoreError {
    /// Could it have happened?
    pub const fn outcome(&self) -> WriteOutcome {
        match self {
            Self::Throttled { .. } => WriteOutcome::NotApplied,
            Self::Unknown { .. } => WriteOutcome::Unknown,
            Self::Stopped { .. } | Self::Damaged { .. } => WriteOutcome::Final,
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        let message = error.to_string();
        match error {
            StoreError::Throttled { retry_after_ms } => {
                Self::new(Code::Unavailable, message).with_retry_after_ms(retry_after_ms)
            }
            StoreError::Unknown { .. } => Self::new(Code::Unknown, message),
            StoreError::Stopped { .. } => Self::new(Code::Stopped, message)
                .with_hint("`sheaf doctor` checks the disk; nothing acknowledged is lost"),
            StoreError::Damaged { .. } => Self::new(Code::Internal, message),
        }
    }
}

/// A write of a chunk that was not applied, or whose answer was lost.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// Its condition does not hold, and never will for this event.
    #[error("{reason}")]
    Refused {
        /// Why.
        reason: Refused,
        /// The chunk as it is, read with the refusal; absent if there is none.
        current: Option<Box<Chunk>>,
    },
    /// The store could not.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A write of a job that was not applied, or whose answer was lost.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JobWriteError {
    /// Its condition does not hold.
    #[error("{0}")]
    Refused(JobRefused),
    /// The store could not.
    #[error(transparent)]
    Store(#[from] StoreError),
}
