//! Planted bugs: each takes one guard of the protocol away, where a step meets its port, and the gate must notice.

macro_rules! bugs {
    ($($(#[doc = $doc:literal])+ $name:ident),+ $(,)?) => {
        /// A guard that is missing.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Bug {
            $($(#[doc = $doc])+ $name),+
        }

        impl Bug {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// Its name.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name)),+ }
            }

            /// What is missing.
            pub const fn what(self) -> &'static str {
                match self { $(Self::$name => concat!($($doc),+)),+ }
            }
        }
    };
}

bugs! {
    /// Commits are applied whoever holds the chunk: no epoch and owner check on T5, T7, T8.
    CommitWithoutFence,
    /// Commits of the holder are applied whatever was written before: no `rv` check, and outcomes may be overwritten.
    CommitWithoutVersion,
    /// Result keys do not name the attempt.
    ResultKeyWithoutAttempt,
    /// Blobs are overwritten.
    PutOverwrites,
    /// Blobs are answered before they are stored, and some are lost.
    PutNotDurable,
    /// T1 replaces what is there.
    SubmitUnconditional,
    /// T1 is answered before it is durable, and some are lost.
    SubmitNotDurable,
    /// T9 ends chunks that are final.
    EndUnconditional,
    /// T9 keeps none of the outcomes that were committed.
    EndForgetsOutcomes,
    /// A hint of a held chunk is deleted rather than postponed.
    DuplicateDeleted,
    /// There is no sweeper.
    NoSweeper,
    /// The sweeper's touch moves `rv`.
    TouchMovesVersion,
    /// The job is not read after a claim.
    JobNotReadAfterClaim,
    /// The deadline is not seen by workers.
    DeadlineUnseen,
    /// Summaries are counters.
    SummaryCounts,
    /// A job is closed as soon as its chunks are there, not when they are final.
    DoneTooEarly,
    /// Cancelling is said to be complete before every chunk is final.
    CancelledTooEarly,
    /// Deaths of workers are not counted, so that chunks are never isolated.
    NoIsolation,
    /// Deaths under a task are not counted.
    NoStrikes,
    /// The marker is answered and not written.
    MarkNotWritten,
    /// A drain counts as a crash.
    DrainCountsAsCrash,
    /// Nobody recognises his own write when its answer was lost and it is refused the second time.
    OwnWriteUnrecognised,
    /// Leases are not renewed, though the worker is told so.
    HeartbeatNotWritten,
    /// A fenced worker's heartbeats are answered as if all were well, and so are its commits.
    FencedUntold,
    /// A chunk may be taken over whenever somebody wants to.
    LeaseIgnored,
    /// A release forgets what was committed with it.
    ReleaseForgetsOutcomes,
    /// The stream's records are lost when their consumer dies.
    StreamLossy,
    /// A takeover keeps the epoch.
    EpochKept,
    /// Jobs are shown to everybody.
    TenantIgnored,
    /// A second seal changes the first.
    SealAgain,
    /// Checkpoints are named before they are stored, and some are lost.
    CheckpointNotDurable,
    /// The checkpoint of an attempt that was fenced off is named all the same.
    CheckpointWithoutFence,
    /// With a checkpoint that was replaced, the one that replaced it is deleted.
    CheckpointDeletedWithOthers,
    /// Who is outrun by a second copy counts as having crashed.
    OutrunCountsAsCrash,
}

impl Bug {
    /// Guards that others stand behind: without one of them much is slower, late or done twice, and still no outcome changes
    /// and no result is lost.
    pub const LAYERS: &[Self] = &[
        Self::DuplicateDeleted,
        Self::NoSweeper,
        Self::JobNotReadAfterClaim,
        Self::DeadlineUnseen,
        Self::NoIsolation,
        Self::NoStrikes,
        Self::OwnWriteUnrecognised,
        Self::HeartbeatNotWritten,
        Self::FencedUntold,
        Self::LeaseIgnored,
        Self::StreamLossy,
        Self::TouchMovesVersion,
    ];

    /// Guards without which outcomes change or results are lost, whatever the others do.
    pub const VITAL: &[Self] = &[
        Self::CommitWithoutFence,
        Self::CommitWithoutVersion,
        Self::ResultKeyWithoutAttempt,
        Self::PutOverwrites,
        Self::PutNotDurable,
        Self::SubmitUnconditional,
        Self::SubmitNotDurable,
        Self::EndUnconditional,
        Self::EndForgetsOutcomes,
        Self::SummaryCounts,
        Self::DoneTooEarly,
        Self::EpochKept,
        Self::TenantIgnored,
        Self::SealAgain,
    ];
}
