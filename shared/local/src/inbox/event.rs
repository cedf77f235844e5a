//! What a watched folder tells whoever runs it.

use std::{path::PathBuf, time::Duration};

use sheaf_api::intake::ErrorReport;
use sheaf_core::JobId;

use sheaf_files::{FileProgress, FileReport};

/// What happened to a dropped file. `file` is its name in the folder.
#[derive(Debug, Clone, PartialEq)]
pub enum InboxEvent {
    /// It is complete, and is being checked and run.
    Taken {
        /// The file.
        file: String,
        /// The job that it becomes, or goes on with.
        job: JobId,
    },
    /// Results were read.
    Progress {
        /// The file.
        file: String,
        /// How far it has come.
        progress: FileProgress,
    },
    /// Its results are there.
    Finished {
        /// The file.
        file: String,
        /// Where its results are.
        results: PathBuf,
        /// What came of it.
        report: FileReport,
    },
    /// It is refused, and nothing of it runs.
    Refused {
        /// The file.
        file: String,
        /// Where the report is.
        path: PathBuf,
        /// What is wrong with it.
        report: ErrorReport,
    },
    /// Something else than the file is at fault.
    Postponed {
        /// The file.
        file: String,
        /// What.
        reason: String,
        /// When it is tried again; none if it is not until it changes or the grid starts again.
        again_in: Option<Duration>,
    },
    /// The system does not tell when something changes in the folder: it is looked at every second.
    Unwatched {
        /// Why.
        reason: String,
    },
    /// The folder cannot be read; it is tried again.
    Unreadable {
        /// Why.
        reason: String,
    },
}
