//! The file that is run, and reading it more than once.

use std::{
    fs::File,
    io::{self, Read, Seek},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use sheaf_core::JobId;

/// A file to run. It is opened once and read two or three times, so that another file put in its place meanwhile does not
/// matter.
#[derive(Debug)]
pub struct FileSource {
    pub(super) file: File,
    pub(super) name: String,
    pub(super) origin: String,
    pub(super) job: JobId,
}

impl FileSource {
    /// The file at a path. Its name says what format it has; `job` is the job it becomes, or became in an earlier run that
    /// was cut short.
    pub fn open(path: &Path, job: JobId) -> io::Result<Self> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let origin = std::path::absolute(path)?;
        Ok(Self::new(File::open(path)?, name, origin.to_string_lossy(), job))
    }

    /// A file that is open already; `origin` is where people find it.
    pub fn new(file: File, name: impl Into<String>, origin: impl Into<String>, job: JobId) -> Self {
        Self { file, name: name.into(), origin: origin.into(), job }
    }
}

/// A file and whether somebody still waits for what is in it.
pub(super) struct Reading {
    file: File,
    stopped: Arc<AtomicBool>,
}

impl Reading {
    pub(super) fn new(file: File) -> Self {
        Self { file, stopped: Arc::default() }
    }

    /// Reads it from the beginning. One pass at a time: they share the position in the file.
    pub(super) fn pass(&self) -> io::Result<Pass> {
        let mut file = self.file.try_clone()?;
        file.rewind()?;
        Ok(Pass { file, stopped: self.stopped.clone() })
    }

    /// Makes the pass that is under way end with an error.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }
}

impl Drop for Reading {
    /// A thread that reads must not go on through gigabytes that nobody wants.
    fn drop(&mut self) {
        self.stop();
    }
}

/// One pass over a file, in a thread that may block.
pub(super) struct Pass {
    file: File,
    stopped: Arc<AtomicBool>,
}

impl Read for Pass {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.stopped.load(Ordering::Relaxed) {
            return Err(io::Error::other("nobody waits for the file any more"));
        }
        self.file.read(into)
    }
}
