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
use rustix::{fs::OFlags, process::Signal};
use sheaf_api::{
    checkpoint::{Checkpoint, Written},
    run::Call,
};
use sheaf_core::limits::CHECKPOINT_BYTES_MAX;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::process::Group;

/// Opening fails if the last part of the path is a link, and does not wait if it is a pipe.
const NOT_A_LINK: i32 = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).bits() as i32;

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
        Self::in_meta(&fs::symlink_metadata(path).ok()?)
    }

    fn in_meta(meta: &fs::Metadata) -> Option<Self> {
        let (inode, modified, bytes) = (meta.ino(), (meta.mtime(), meta.mtime_nsec()), meta.len());
        meta.is_file().then_some(Self { inode, modified, bytes })
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
        remove(&path).await?;
        if let Some(bytes) = &checkpoint.restored {
            create(&path, bytes).await?;
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
        // One that is written in place, and not renamed, may be half of the old and half of the new.
        let Some(bytes) = read(&self.path, stamp).await.filter(|_| Stamp::of(&self.path) == Some(stamp)) else {
            return false;
        };
        self.seen = Some(stamp);
        self.checkpoint.lay(Written { bytes: Bytes::from(bytes), run_ms });
        true
    }
}

/// Reads the file that has this stamp. A function may put a link in its place at any moment: following it would hand out what
/// only this process can read.
async fn read(path: &Path, stamp: Stamp) -> Option<Vec<u8>> {
    let file = tokio::fs::OpenOptions::new().read(true).custom_flags(NOT_A_LINK).open(path).await.ok()?;
    if Stamp::in_meta(&file.metadata().await.ok()?) != Some(stamp) {
        return None;
    }
    let mut bytes = Vec::with_capacity(stamp.bytes as usize);
    // One that grows meanwhile is another.
    file.take(stamp.bytes + 1).read_to_end(&mut bytes).await.ok()?;
    (bytes.len() as u64 == stamp.bytes).then_some(bytes)
}

/// Makes the file, which must not be there: a link that a warm child has left would have something else overwritten.
async fn create(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = tokio::fs::OpenOptions::new().write(true).create_new(true).open(path).await?;
    file.write_all(bytes).await?;
    file.flush().await
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

    /// Between the look at a file and its opening, a function may have put something else there.
    #[tokio::test]
    async fn what_has_taken_the_place_of_a_file_is_not_read() {
        let dir = tempfile::tempdir().expect("a directory");
        let (path, secret) = (dir.path().join("file"), dir.path().join("secret"));
        fs::write(&secret, b"secret").expect("written");
        fs::write(&path, b"mine!!").expect("written");
        let stamp = Stamp::of(&path).expect("a file");
        assert_eq!(read(&path, stamp).await.as_deref(), Some(&b"mine!!"[..]));
        fs::remove_file(&path).and_then(|()| std::os::unix::fs::symlink(&secret, &path)).expect("linked");
        assert_eq!(read(&path, Stamp::of(&secret).expect("a file")).await, None, "a link is not followed");
        assert!(create(&path, b"overwritten").await.is_err());
        remove(&path).await.expect("removed");
        create(&path, b"restored").await.expect("made");
        assert_eq!(
            (fs::read(&secret).expect("read"), fs::read(&path).expect("read")),
            (b"secret".to_vec(), b"restored".to_vec())
        );
    }
}
