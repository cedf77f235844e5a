//! The file in which a function leaves its checkpoints.
//!
//! It is there when the task starts if an earlier attempt left one. The function replaces it by writing beside it and
//! renaming; what is read is kept only if the file did not change meanwhile. When the worker has to stop, the process that the
//! host started is sent `SIGUSR1`, and the task ends as soon as the next checkpoint is there.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use rustix::process::Signal;
use sheaf_api::{
    checkpoint::{Checkpoint, Written},
    run::Call,
};
use sheaf_core::limits::CHECKPOINT_BYTES_MAX;

use crate::process::Group;

/// The variable that holds the path.
pub(crate) const VARIABLE: &str = "SHEAF_CHECKPOINT";

/// Where a child whose directory this is leaves checkpoints, if its function does.
pub(crate) fn path(call: &Call, dir: &Path) -> Option<PathBuf> {
    call.manifest.checkpoint_every_ms.map(|_| dir.join("sheaf-checkpoint"))
}

/// What tells one content of the file from another: a rename gives another inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    modified: (i64, i64),
    bytes: u64,
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let meta = fs::symlink_metadata(path).ok().filter(fs::Metadata::is_file)?;
        Some(Self { inode: meta.ino(), modified: (meta.mtime(), meta.mtime_nsec()), bytes: meta.len() })
    }
}

/// The checkpoint of a task that runs.
pub(crate) struct Watched {
    path: PathBuf,
    checkpoint: Arc<Checkpoint>,
    every: Duration,
    started: Instant,
    look_at: Instant,
    seen: Option<Stamp>,
    /// The function has been told to write its last.
    told: bool,
}

impl Watched {
    /// Lays down what the task goes on from, in the directory of its child. `None` for functions without checkpoints.
    pub(crate) async fn start(call: &Call, dir: &Path) -> io::Result<Option<Self>> {
        let (Some(path), Some(checkpoint)) = (path(call, dir), &call.checkpoint) else { return Ok(None) };
        let every = Duration::from_millis(call.manifest.checkpoint_every_ms.unwrap_or_default());
        match &checkpoint.restored {
            Some(bytes) => tokio::fs::write(&path, bytes).await?,
            None => remove(&path).await?,
        }
        let (seen, started) = (Stamp::of(&path), Instant::now());
        let checkpoint = Arc::clone(checkpoint);
        Ok(Some(Self { path, checkpoint, every, started, look_at: started + every, seen, told: false }))
    }

    /// Takes a new checkpoint if it is time to look, and tells the function when its last one is wanted. True once that is
    /// there: then the task is to be ended.
    pub(crate) async fn look(&mut self, group: Group) -> bool {
        if self.checkpoint.is_asked() && !self.told {
            self.take().await;
            self.told = group.tell(Signal::USR1);
            return false;
        }
        if self.told {
            return self.take().await;
        }
        if Instant::now() >= self.look_at {
            self.take().await;
            self.look_at = Instant::now() + self.every;
        }
        false
    }

    /// The task is over without a result: takes what it has left.
    pub(crate) async fn end(mut self) {
        self.take().await;
        let _ = remove(&self.path).await;
    }

    /// Takes what is there if it is new and whole.
    async fn take(&mut self) -> bool {
        let Some(stamp) = Stamp::of(&self.path).filter(|stamp| self.seen != Some(*stamp)) else { return false };
        if stamp.bytes > CHECKPOINT_BYTES_MAX as u64 {
            let bytes = stamp.bytes;
            self.checkpoint.note(&format!(
                "a checkpoint of {bytes} bytes is not kept: it may have {CHECKPOINT_BYTES_MAX}; the one before it stays"
            ));
            tracing::warn!(path = %self.path.display(), bytes, "a checkpoint is larger than its limit");
            self.seen = Some(stamp);
            return false;
        }
        let run_ms = self.started.elapsed().as_millis() as u64;
        let Ok(bytes) = tokio::fs::read(&self.path).await else { return false };
        // One that is written in place, and not renamed, may be half of the old and half of the new.
        if Stamp::of(&self.path) != Some(stamp) || bytes.len() as u64 != stamp.bytes {
            return false;
        }
        self.seen = Some(stamp);
        self.checkpoint.lay(Written { bytes: Bytes::from(bytes), run_ms });
        true
    }
}

async fn remove(path: &Path) -> io::Result<()> {
    match tokio::fs::remove_file(path).await {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use sheaf_core::{ChunkKey, Digest, FunctionKind, JobId, Manifest};

    use super::*;

    fn call(checkpoint: &Arc<Checkpoint>) -> Call {
        let kind = FunctionKind::Command { argv: vec!["true".into()] };
        let manifest =
            Manifest { checkpoint_every_ms: Some(3_600_000), ..Manifest::new("saves".parse().expect("a name"), kind) };
        Call {
            tenant: Default::default(),
            function: manifest.reference(Digest::of(b"").to_string().as_bytes()),
            manifest: Arc::new(manifest),
            chunk: ChunkKey { job: JobId::from_bytes([1; 16]), number: 0 },
            epoch: 1,
            pack: sheaf_api::PackBuilder::new().finish(false),
            tasks: vec![0],
            deadline_ms: None,
            budget: None,
            stop_on_failure: false,
            checkpoint: Some(Arc::clone(checkpoint)),
        }
    }

    async fn watched(checkpoint: &Arc<Checkpoint>, dir: &Path) -> Watched {
        Watched::start(&call(checkpoint), dir).await.expect("a directory").expect("it writes checkpoints")
    }

    fn taken(checkpoint: &Checkpoint) -> Option<Bytes> {
        checkpoint.take().map(|written| written.bytes)
    }

    #[tokio::test]
    async fn each_new_content_is_taken_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let checkpoint = Arc::new(Checkpoint::new(Some(Bytes::from_static(b"old"))));
        let mut watched = watched(&checkpoint, dir.path()).await;
        let (path, beside) = (watched.path.clone(), dir.path().join("beside"));
        assert_eq!(fs::read(&path).expect("restored"), b"old");
        assert!(!watched.take().await, "what was restored is not new");
        fs::write(&beside, b"new").and_then(|()| fs::rename(&beside, &path)).expect("written");
        assert!(watched.take().await && !watched.take().await);
        assert_eq!(taken(&checkpoint).as_deref(), Some(&b"new"[..]));
        // Before its time nobody looks.
        fs::write(&beside, b"newer").and_then(|()| fs::rename(&beside, &path)).expect("written");
        assert!(!watched.look(Group::new(0)).await && taken(&checkpoint).is_none());
        watched.end().await;
        assert_eq!(taken(&checkpoint).as_deref(), Some(&b"newer"[..]));
        assert!(!path.exists(), "the next task of a warm child must not find it");
    }

    #[tokio::test]
    async fn a_large_checkpoint_is_noted_once_and_left() {
        let dir = tempfile::tempdir().expect("a directory");
        let checkpoint = Arc::new(Checkpoint::default());
        let mut watched = watched(&checkpoint, dir.path()).await;
        let file = fs::File::create(&watched.path).expect("created");
        file.set_len(CHECKPOINT_BYTES_MAX as u64 + 1).expect("grown");
        assert!(!watched.take().await && !watched.take().await);
        assert_eq!(checkpoint.take_notes().matches("is not kept").count(), 1);
        file.set_len(CHECKPOINT_BYTES_MAX as u64).expect("shrunk");
        assert!(watched.take().await);
    }

    #[tokio::test]
    async fn links_and_folders_are_no_checkpoints() {
        let dir = tempfile::tempdir().expect("a directory");
        let checkpoint = Arc::new(Checkpoint::default());
        let mut watched = watched(&checkpoint, dir.path()).await;
        std::os::unix::fs::symlink("/etc/hostname", &watched.path).expect("linked");
        assert!(!watched.take().await);
        fs::remove_file(&watched.path).and_then(|()| fs::create_dir(&watched.path)).expect("made");
        assert!(!watched.take().await);
    }
}
