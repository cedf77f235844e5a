//! Why a dropped file gave no results.

use std::io;

use sheaf_api::{
    ApiError, Code, FormatError, WriteOutcome,
    intake::{ErrorReport, IntakeError},
};
use sheaf_core::{JobId, limits};

/// Why a file gave no results. Its job, if there is one already, is left as it is unless the file itself is at fault, when
/// it is cancelled: running the file again under the same job goes on where this one stopped.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The file is not what its format says, or cannot be read.
    #[error(transparent)]
    Intake(#[from] IntakeError),
    /// The file names a function whose tasks have an order, and is longer than one chunk.
    #[error("{commands} commands in a file whose order counts, over the limit of {}", limits::ORDERED_TASKS_MAX)]
    OrderedTooLong {
        /// Its commands.
        commands: u64,
    },
    /// Checking the file alone takes longer than whoever runs it has.
    #[error("the file could not be checked in the time that there is for it")]
    TooLong,
    /// The commands of a file whose order counts are together larger than one pack.
    #[error("a file whose order counts does not fit into one pack")]
    OrderedTooLarge(#[source] FormatError),
    /// The grid refused, or could not answer for over a minute.
    #[error("{doing} failed")]
    Call {
        /// What was being done.
        doing: &'static str,
        /// What the grid said.
        #[source]
        source: ApiError,
    },
    /// A result that the grid gave is not one.
    #[error("results of {job} cannot be read")]
    Damaged {
        /// The job.
        job: JobId,
        /// What is wrong with it.
        #[source]
        source: FormatError,
    },
    /// The grid says that the job is over, and commands have no outcome.
    #[error("{lines} of {commands} commands of {job} have an outcome")]
    Incomplete {
        /// The job.
        job: JobId,
        /// Commands with an outcome.
        lines: u64,
        /// All of them.
        commands: u64,
    },
    /// Its results are asked for, and its job is not over.
    #[error("{job} is not over")]
    NotOver {
        /// The job.
        job: JobId,
    },
    /// The results could not be written.
    #[error("the results could not be written")]
    Output(#[source] io::Error),
}

impl FileError {
    /// Whether running the same bytes again would end in the same way: the file, or what the grid answered, is at fault.
    /// Otherwise it is worth trying again later, under the same job.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Intake(IntakeError::Io(_) | IntakeError::Changed { .. }) => false,
            Self::NotOver { .. } | Self::Output(_) => false,
            Self::Intake(_) | Self::OrderedTooLong { .. } | Self::OrderedTooLarge(_) | Self::TooLong => true,
            Self::Damaged { .. } | Self::Incomplete { .. } => true,
            Self::Call { source, .. } => {
                source.outcome() == WriteOutcome::Final
                    && !matches!(source.code, Code::Stopped | Code::Unauthorized | Code::Forbidden)
            }
        }
    }

    /// Whether the file's author can mend it.
    pub fn is_of_the_file(&self) -> bool {
        match self {
            Self::Intake(error) => !matches!(error, IntakeError::Io(_)),
            Self::OrderedTooLong { .. } | Self::OrderedTooLarge(_) | Self::TooLong => true,
            Self::Call { .. } | Self::Damaged { .. } | Self::Incomplete { .. } => false,
            Self::NotOver { .. } | Self::Output(_) => false,
        }
    }

    /// What is written into `<stem>.error.json`; `file` is the name that its author knows.
    pub fn error_report(&self, file: &str) -> ErrorReport {
        let (code, hint) = match self {
            Self::Intake(error) => return ErrorReport::new(file, error),
            Self::OrderedTooLong { .. } | Self::OrderedTooLarge(_) => (
                "over_limit",
                Some("split the file, and drop the next part when the one before has its results".into()),
            ),
            Self::TooLong => ("over_limit", Some("split the file".into())),
            Self::NotOver { .. } => (Code::Unavailable.as_str(), None),
            Self::Call { source, .. } => (source.code.as_str(), source.hint.clone()),
            Self::Damaged { .. } | Self::Incomplete { .. } => (Code::Internal.as_str(), None),
            Self::Output(_) => ("unwritable", None),
        };
        let sources = std::iter::successors(std::error::Error::source(self), |source| source.source());
        ErrorReport {
            file: file.into(),
            code: code.into(),
            message: sources.fold(self.to_string(), |message, source| format!("{message}: {source}")),
            line: None,
            column: None,
            hint,
        }
    }
}
