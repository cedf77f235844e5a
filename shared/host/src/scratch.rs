//! The host's directory: packages, one directory per child, and records of what runs.
//!
//! ```text
//! lock              held while a host is open
//! packages/{digest} unpacked packages
//! run/{n}           HOME and TMPDIR of a child, emptied when it ends
//! run/{n}.pid       boot id, process group and start time of that child, or of the last one
//! ```
//! A directory that a child leaves empty, as most do, is used again: making and removing files is what would cost a short
//! command most.
//!
//! A host that is killed leaves `run/` behind. The next one that opens the directory ends what still runs and removes the
//! rest; a process is only ended when its start time is the recorded one (or, where the leader is gone, when its
//! environment names the directory), so that a reused process id harms nobody.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, FileExt, MetadataExt},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use tokio_util::task::TaskTracker;

use crate::{
    HostError,
    proc_table::{self, Row},
    process::Group,
};

/// An open scratch directory.
pub(crate) struct Scratch {
    run: PathBuf,
    packages: PathBuf,
    boot: String,
    next: AtomicU64,
    free: Arc<Mutex<Vec<Place>>>,
    tracker: TaskTracker,
    lock: File,
}

/// A directory and its record.
#[derive(Debug)]
struct Place {
    path: PathBuf,
    record: File,
}

impl Scratch {
    /// Opens (and creates) a directory, cleaning up what a killed host left in it. `tracker` owns slow removals.
    pub(crate) fn open(root: &Path, tracker: TaskTracker) -> Result<Self, HostError> {
        let scratch = |source| HostError::Scratch { path: root.to_owned(), source };
        create(root).map_err(scratch)?;
        // Children start elsewhere: their paths must mean the same there.
        let root = &root.canonicalize().map_err(scratch)?;
        let lock = File::create(root.join("lock")).map_err(scratch)?;
        lock.try_lock().map_err(|_| HostError::InUse { path: root.clone() })?;
        let (run, packages) = (root.join("run"), root.join("packages"));
        create(&run).and_then(|()| create(&packages)).map_err(scratch)?;
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned();
        let (next, free) = Default::default();
        let this = Self { run, packages, boot, next, free, tracker, lock };
        this.clean_up().map_err(scratch)?;
        Ok(this)
    }

    /// Where packages are unpacked to.
    pub(crate) fn packages(&self) -> &Path {
        &self.packages
    }

    /// An empty directory for a child.
    pub(crate) fn dir(&self) -> io::Result<RunDir> {
        let free = self.free.lock().pop();
        let place = match free {
            Some(place) => place,
            None => {
                let path = self.run.join(self.next.fetch_add(1, Ordering::Relaxed).to_string());
                DirBuilder::new().mode(0o700).create(&path)?;
                let record =
                    OpenOptions::new().write(true).create(true).truncate(true).open(path.with_extension("pid"))?;
                Place { path, record }
            }
        };
        Ok(RunDir { place: Some(place), unused: false, free: Arc::clone(&self.free), tracker: self.tracker.clone() })
    }

    /// Writes down which process uses a directory.
    pub(crate) fn record(&self, dir: &RunDir, pid: i32) -> io::Result<()> {
        let started_ticks = proc_table::read(pid).map_or(0, |row| row.started_ticks);
        // Padded, so that one write replaces a longer one.
        let line = format!("{} {pid} {started_ticks} {:20}", self.boot, "");
        dir.place().record.write_all_at(line.as_bytes(), 0)
    }

    fn clean_up(&self) -> io::Result<()> {
        let rows = proc_table::scan();
        for entry in fs::read_dir(&self.run)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "pid") {
                if let Some(group) = self.orphans(&rows, &path) {
                    tracing::warn!(group, "ending the processes that a killed host left");
                    Group::new(group).kill_all(&rows);
                }
                fs::remove_file(&path)?;
            }
        }
        for entry in fs::read_dir(&self.run)? {
            // What an escaped process still writes there is left for the next time.
            let _ = fs::remove_dir_all(entry?.path());
        }
        Ok(())
    }

    /// The process group of a record, if it still runs.
    fn orphans(&self, rows: &[Row], record: &Path) -> Option<i32> {
        let text = fs::read_to_string(record).ok()?;
        let mut fields = text.split(' ');
        let (boot, group, started) = (fields.next()?, fields.next()?, fields.next()?);
        let (group, started): (i32, u64) = (group.parse().ok()?, started.parse().ok()?);
        if boot != self.boot || group <= 1 {
            return None;
        }
        match rows.iter().find(|row| row.pid == group) {
            Some(leader) => (leader.started_ticks == started && leader.group == group).then_some(group),
            None => {
                let dir = record.with_extension("");
                let named = |row: &Row| row.group == group && environment_names(row.pid, &dir);
                rows.iter().any(named).then_some(group)
            }
        }
    }
}

fn create(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).recursive(true).create(path)
}

fn environment_names(pid: i32, dir: &Path) -> bool {
    let variable = format!("TMPDIR={}", dir.display());
    fs::read(format!("/proc/{pid}/environ"))
        .is_ok_and(|environment| environment.split(|byte| *byte == 0).any(|entry| entry == variable.as_bytes()))
}

impl Drop for Scratch {
    fn drop(&mut self) {
        self.free.lock().drain(..).for_each(|place| place.remove());
        // Children have the file too until they begin their programs, and so the lock.
        let _ = self.lock.unlock();
    }
}

impl Place {
    /// Whether nothing was left in it, and it still is as it was made.
    fn is_clean(&self) -> bool {
        let as_made = fs::symlink_metadata(&self.path).is_ok_and(|meta| meta.mode() & 0o7777 == 0o700);
        as_made && fs::read_dir(&self.path).is_ok_and(|mut entries| entries.next().is_none())
    }

    fn remove(self) {
        let _ = fs::remove_file(self.path.with_extension("pid"));
        if let Err(error) = fs::remove_dir_all(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "a scratch directory stays until the next start");
        }
    }
}

/// A child's directory, to be dropped when the child has ended.
#[derive(Debug)]
pub(crate) struct RunDir {
    place: Option<Place>,
    unused: bool,
    free: Arc<Mutex<Vec<Place>>>,
    tracker: TaskTracker,
}

impl RunDir {
    fn place(&self) -> &Place {
        self.place.as_ref().expect("there until it is dropped")
    }

    /// The directory.
    pub(crate) fn path(&self) -> &Path {
        &self.place().path
    }

    /// All processes that knew of it have ended, so that nobody writes there any more: it may be used again.
    pub(crate) fn release(&mut self) {
        self.unused = true;
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        let Some(place) = self.place.take() else { return };
        if self.unused && place.is_clean() {
            self.free.lock().push(place);
        } else if tokio::runtime::Handle::try_current().is_ok() {
            drop(self.tracker.spawn_blocking(|| place.remove()));
        } else {
            place.remove();
        }
    }
}
