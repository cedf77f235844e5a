//! The ports in memory and on disk keep their contracts.

#![expect(clippy::unwrap_used, reason = "a test stops where it fails")]

use sheaf_local::{LocalPorts, LocalStore};

mod memory {
    fn fresh() -> (super::LocalPorts, ()) {
        (super::LocalPorts::new(super::LocalStore::memory().unwrap()), ())
    }

    sheaf_conformance::conformance_tests!(super::fresh());
}

mod disk {
    fn fresh() -> (super::LocalPorts, tempfile::TempDir) {
        let directory = tempfile::tempdir().unwrap();
        (super::LocalPorts::new(super::LocalStore::disk(directory.path(), true).unwrap()), directory)
    }

    sheaf_conformance::conformance_tests!(super::fresh());
}
