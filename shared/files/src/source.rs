//! The file that is run, and reading it more than once.

use std::{
    collections::BTreeMap,
    fmt,
    fs::File,
    io::{self, Read, Seek},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use sheaf_core::JobId;

/// Bytes that can be read from their beginning more than once, and are the same each time.
pub trait Reopen: fmt::Debug + Send + Sync + 'static {
    /// Starts reading from the beginning. One pass at a time: they may share a position. Must not block; what it gives is
    /// read in a thread that may.
    fn open(&self) -> io::Result<Box<dyn Read + Send>>;
}

impl Reopen for File {
    fn open(&self) -> io::Result<Box<dyn Read + Send>> {
        let mut file = self.try_clone()?;
        file.rewind()?;
        Ok(Box::new(file))
    }
}

/// A file to run. It is opened once and read two or three times, so that another file put in its place meanwhile does not
/// matter.
#[derive(Debug, Clone)]
pub struct FileSource {
    pub(crate) bytes: Arc<dyn Reopen>,
    pub(crate) name: String,
    pub(crate) origin: String,
    pub(crate) job: JobId,
    pub(crate) labels: BTreeMap<String, String>,
}

impl FileSource {
    /// The file at a path. Its name says what format it has; `job` is the job it becomes, or became in an earlier run that
    /// was cut short.
    pub fn open(path: &Path, job: JobId) -> io::Result<Self> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let origin = std::path::absolute(path)?;
        Ok(Self::new(File::open(path)?, name, origin.to_string_lossy(), job))
    }

    /// A file that is open already, or anything else that can be read again; `origin` is where people find it.
    pub fn new(bytes: impl Reopen, name: impl Into<String>, origin: impl Into<String>, job: JobId) -> Self {
        Self { bytes: Arc::new(bytes), name: name.into(), origin: origin.into(), job, labels: BTreeMap::new() }
    }

    /// The same, with labels for its job beside those that this crate gives it.
    #[must_use]
    pub fn with_labels(mut self, labels: impl IntoIterator<Item = (String, String)>) -> Self {
        self.labels.extend(labels);
        self
    }
}

/// A file and whether somebody still waits for what is in it.
pub(crate) struct Reading {
    bytes: Arc<dyn Reopen>,
    stopped: Arc<AtomicBool>,
}

impl Reading {
    pub(crate) fn new(source: &FileSource) -> Self {
        Self { bytes: source.bytes.clone(), stopped: Arc::default() }
    }

    /// Reads it from the beginning. One pass at a time: they may share the position in the file.
    pub(crate) fn pass(&self) -> io::Result<Pass> {
        Ok(Pass { bytes: self.bytes.open()?, stopped: self.stopped.clone() })
    }

    /// Makes the pass that is under way end with an error.
    pub(crate) fn stop(&self) {
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
pub(crate) struct Pass {
    bytes: Box<dyn Read + Send>,
    stopped: Arc<AtomicBool>,
}

impl Read for Pass {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.stopped.load(Ordering::Relaxed) {
            return Err(io::Error::other("nobody waits for the file any more"));
        }
        self.bytes.read(into)
    }
}
