//! How the command ends: one code per answer to "did it work?".

use std::process::ExitCode;

use sheaf_api::wire::JobView;
use sheaf_core::JobState;

/// How the command ends. The words of it stand in `sheaf help`, and the numbers are for scripts: they never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// Everything succeeded.
    Succeeded = 0,
    /// We could not do it.
    Failed = 1,
    /// It was asked for in a way that makes no sense.
    Usage = 2,
    /// The job is over, and some of its tasks failed, expired or were quarantined.
    TasksFailed = 3,
    /// The job was cancelled.
    Cancelled = 4,
    /// The job was not over in the time given.
    TimedOut = 5,
    /// Ctrl-C.
    Interrupted = 130,
    /// A worker was told twice to stop, the second time by SIGTERM.
    Terminated = 143,
}

impl Exit {
    /// What a job that is over amounts to; a job that is not has timed out.
    pub(crate) const fn of(view: &JobView) -> Self {
        let totals = &view.summary.totals;
        match view.job.state {
            JobState::Open | JobState::Sealed { .. } | JobState::Cancelling { .. } => Self::TimedOut,
            JobState::Cancelled { .. } => Self::Cancelled,
            JobState::Done { .. } if totals.succeeded == totals.ended() => Self::Succeeded,
            JobState::Done { .. } => Self::TasksFailed,
        }
    }

    /// What two jobs together amount to: the one that needs more attention.
    pub(crate) const fn and(self, other: Self) -> Self {
        const fn weight(exit: Exit) -> u8 {
            match exit {
                Exit::Succeeded => 0,
                Exit::Cancelled => 1,
                Exit::TasksFailed => 2,
                Exit::TimedOut => 3,
                Exit::Usage => 4,
                Exit::Failed => 5,
                Exit::Interrupted | Exit::Terminated => 6,
            }
        }
        if weight(other) > weight(self) { other } else { self }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
