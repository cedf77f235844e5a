//! The data directory: who may open it, and what lies in it.
//!
//! ```text
//! lock        held by the one process that has it open
//! format      the version of what is in it
//! grid.json   where that process serves its API, if it does
//! rows/       the embedded store
//! volumes/    the larger blobs
//! scratch/    packages and the working directories of functions
//! ```

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use sheaf_protocol::StoreError;

const FORMAT: &str = "sheaf 1\n";

/// Why a grid could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has the data directory open.
    #[error("{} is in use by {holder}", directory.display())]
    InUse {
        /// The directory.
        directory: PathBuf,
        /// What is known of the other process.
        holder: String,
        /// Where it can be reached, if it serves an API.
        address: Option<Address>,
    },
    /// The data directory cannot be made, read or written.
    #[error("{} cannot be used: {source}", path.display())]
    Directory {
        /// The directory or a file in it.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The data directory was written by another version.
    #[error("{} holds {found:?}, this build reads {FORMAT:?}", directory.display())]
    Format {
        /// The directory.
        directory: PathBuf,
        /// Its format.
        found: String,
    },
    /// Its store cannot be opened.
    #[error("the store in {} cannot be opened: {source}", directory.display())]
    Store {
        /// The directory.
        directory: PathBuf,
        /// Why.
        source: StoreError,
    },
    /// Functions cannot be run.
    #[error(transparent)]
    Host(#[from] sheaf_host::HostError),
}

/// Where a grid serves its API: what `grid.json` holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// The URL.
    pub url: String,
    /// The file that holds its token.
    pub token_file: PathBuf,
    /// The process.
    pub pid: u32,
}

impl Address {
    const FILE: &str = "grid.json";

    /// Reads the address of the grid that serves a data directory, if one says so.
    pub fn read(directory: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(directory.join(Self::FILE)).ok()?).ok()
    }

    /// Writes it, wholly or not at all.
    pub fn write(&self, directory: &Path) -> io::Result<()> {
        let (file, new) = (directory.join(Self::FILE), directory.join("grid.json.new"));
        std::fs::write(&new, serde_json::to_vec(self)?)?;
        std::fs::rename(new, file)
    }

    /// Removes it.
    pub fn remove(directory: &Path) {
        let _ = std::fs::remove_file(directory.join(Self::FILE));
    }
}

/// An open data directory. Its lock is given up when this is dropped, or with the process.
#[derive(Debug)]
pub(crate) struct Directory {
    pub(crate) path: PathBuf,
    lock: File,
}

impl Directory {
    pub(crate) fn open(path: &Path) -> Result<Self, OpenError> {
        let fail = |path: &Path| {
            let path = path.to_owned();
            move |source| OpenError::Directory { path, source }
        };
        std::fs::create_dir_all(path).map_err(fail(path))?;
        let lock_path = path.join("lock");
        let mut lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&lock_path)
            .map_err(fail(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let _ = lock.read_to_string(&mut holder);
                let holder =
                    if holder.is_empty() { "another process".into() } else { format!("process {}", holder.trim()) };
                let (directory, address) = (path.to_owned(), Address::read(path));
                return Err(OpenError::InUse { directory, holder, address });
            }
            Err(TryLockError::Error(source)) => return Err(fail(&lock_path)(source)),
        }
        let said = lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id()));
        said.map_err(fail(&lock_path))?;
        Address::remove(path);
        let format = path.join("format");
        match std::fs::read_to_string(&format) {
            Ok(found) if found == FORMAT => {}
            Ok(found) => return Err(OpenError::Format { directory: path.to_owned(), found }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => write_format(path).map_err(fail(&format))?,
            Err(error) => return Err(fail(&format)(error)),
        }
        Ok(Self { path: path.to_owned(), lock })
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // Children of this process have the file too until they begin their programs, and so the lock.
        let _ = self.lock.unlock();
    }
}

/// Says which format the directory has, wholly or not at all: half of it would keep every later build out.
fn write_format(directory: &Path) -> io::Result<()> {
    let (format, new) = (directory.join("format"), directory.join("format.new"));
    let mut file = File::create(&new)?;
    file.write_all(FORMAT.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(new, format)?;
    File::open(directory)?.sync_all()
}
