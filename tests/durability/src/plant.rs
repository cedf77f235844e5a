//! Bugs to be found: a campaign that cannot fail proves nothing. Each is emulated by changing a recording.

use std::path::Path;

use crate::recording::{Recording, Step};

/// A bug in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Plant {
    /// Volumes are never synced.
    VolumesUnsynced,
    /// The journal of the rows is never synced.
    JournalUnsynced,
    /// Writes are acknowledged before the journal's sync has returned.
    AcknowledgedEarly,
    /// The directory is not synced after a volume was created.
    VolumeNameUnsynced,
}

impl Plant {
    /// All of them.
    pub const ALL: [Self; 4] =
        [Self::VolumesUnsynced, Self::JournalUnsynced, Self::AcknowledgedEarly, Self::VolumeNameUnsynced];

    /// The recording as the bug would have made it.
    pub fn plant(self, mut recording: Recording) -> Recording {
        let is = |path: &Path, extension: &str| path.extension().is_some_and(|found| found == extension);
        match self {
            Self::VolumesUnsynced => without_syncs(&mut recording, |path| is(path, "vol")),
            Self::JournalUnsynced => without_syncs(&mut recording, |path| is(path, "jnl")),
            Self::VolumeNameUnsynced => without_syncs(&mut recording, |path| path == Path::new("volumes")),
            Self::AcknowledgedEarly => {
                let mut late = Vec::new();
                let mut steps = Vec::with_capacity(recording.steps.len());
                for step in recording.steps {
                    match step {
                        Step::SyncEnd { ref path, .. } if is(path, "jnl") => late.push(step),
                        Step::Fact(ref fact) if fact.is_acknowledged() => {
                            steps.push(step);
                            steps.append(&mut late);
                        }
                        step => steps.push(step),
                    }
                }
                steps.append(&mut late);
                recording.steps = steps;
            }
        }
        recording
    }
}

fn without_syncs(recording: &mut Recording, of: impl Fn(&Path) -> bool) {
    recording
        .steps
        .retain(|step| !matches!(step, Step::SyncBegin { path, .. } | Step::SyncEnd { path, .. } if of(path)));
}
