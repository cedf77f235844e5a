//! What the embedded store holds after a power cut at any moment.
//!
//! A [workload](workload) writes to a store under strace, which sees every system call of every thread, fjall's included,
//! and, among them, the lines in which the workload says what was acknowledged. From such a [recording](recording) the
//! directory is built as a [disk](disk) may hold it after a power cut at some point; the store is opened on it and
//! [audited](audit) against what had been acknowledged by then. A [campaign](campaign) does this thousands of times.
//! [Plants](plant) are bugs that it must find.
//!
//! What it does not show: disks that say that a sync is done when it is not, and bytes that change after they were synced.

pub mod audit;
pub mod campaign;
pub mod disk;
pub mod fact;
pub mod plant;
pub mod recording;
pub mod strace;
pub mod workload;

use std::path::{Path, PathBuf};

/// Where to build images: in memory, where there is such a place, since thousands are built.
pub fn scratch() -> std::io::Result<tempfile::TempDir> {
    let memory = Path::new("/dev/shm");
    let place = if memory.is_dir() { PathBuf::from(memory) } else { std::env::temp_dir() };
    tempfile::Builder::new().prefix("sheaf-durability-").tempdir_in(place)
}
