//! What the disk itself needs to make a write durable: the measure for everything that waits for that.

use std::{
    fs::{self, File},
    io::{Seek, Write},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Instant,
};

use crate::{
    error::LoadError,
    histogram::{Percentiles, Times},
};

/// Bytes of one write: about what a small commit is.
const WRITE_BYTES: usize = 4_096;
/// Writes that the file has room for; it is then written from its start again.
const WRITES: usize = 64;

/// A file whose writes are timed until they are durable. Its room is taken beforehand, as a journal's is: a file that grows
/// costs the file system a commit of its own each time.
#[derive(Debug)]
pub(crate) struct Probe {
    path: PathBuf,
    state: Mutex<(File, Times)>,
}

impl Probe {
    /// A file in a directory; removed with this.
    pub(crate) fn new(directory: &Path) -> Result<Self, LoadError> {
        let path = directory.join("fdatasync-probe");
        let make = || {
            let mut file = File::create(&path)?;
            file.write_all(&[0; WRITE_BYTES * WRITES])?;
            file.sync_all()?;
            file.rewind()?;
            Ok(file)
        };
        let file = make().map_err(|source| LoadError::File { doing: "written", path: path.clone(), source })?;
        Ok(Self { path, state: Mutex::new((file, Times::default())) })
    }

    /// Writes once, and notes how long that took to be durable. Blocks.
    pub(crate) fn look(&self) -> Result<(), LoadError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (file, times) = &mut *state;
        let mut write = || {
            if file.stream_position()? >= (WRITE_BYTES * WRITES) as u64 {
                file.rewind()?;
            }
            file.write_all(&[0x5a; WRITE_BYTES])?;
            let started = Instant::now();
            file.sync_data()?;
            times.add(started.elapsed());
            Ok(())
        };
        write().map_err(|source| LoadError::File { doing: "written", path: self.path.clone(), source })
    }

    /// How long it took so far.
    pub(crate) fn percentiles(&self) -> Option<Percentiles> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).1.percentiles()
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        // Its directory goes with the grid in any case.
        let _ = fs::remove_file(&self.path);
    }
}

/// Bytes of all files below a directory, as they lie on the disk.
pub(crate) fn bytes_below(directory: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    // Files come and go while one looks; those that are gone count for nothing.
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
            Ok(metadata) => metadata.blocks() * 512,
            Err(_) => 0,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sync_is_timed_in_the_same_room_and_nothing_is_left() {
        let directory = tempfile::tempdir().expect("a directory");
        let probe = Probe::new(directory.path()).expect("made");
        (0..WRITES + 3).for_each(|_| probe.look().expect("timed"));
        assert_eq!(probe.percentiles().map(|times| times.count), Some(WRITES as u64 + 3));
        assert_eq!(fs::metadata(&probe.path).expect("there").len(), (WRITE_BYTES * WRITES) as u64);
        drop(probe);
        assert_eq!(fs::read_dir(directory.path()).expect("a directory").count(), 0);
        let refused = Probe::new(&directory.path().join("none")).expect_err("there is none").to_string();
        assert!(refused.ends_with("none/fdatasync-probe cannot be written"), "{refused}");
    }

    #[test]
    fn files_below_are_counted() {
        let directory = tempfile::tempdir().expect("a directory");
        fs::create_dir(directory.path().join("a")).expect("made");
        fs::write(directory.path().join("a/b"), [1; 10_000]).expect("written");
        assert!((10_000..100_000).contains(&bytes_below(directory.path())));
    }
}
