//! What lies in the watched folder, and what of it counts.

use std::{
    ffi::OsString,
    fs::{File, Metadata},
    io,
    os::unix::fs::MetadataExt,
    path::Path,
};

use rustix::fs::{Mode, OFlags};
use sheaf_core::JobId;
use sheaf_files::is_ignored;

/// What tells one version of a file from another: a file with the same stamp is taken for the same bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Stamp {
    modified: (i64, i64),
    device: u64,
    inode: u64,
    bytes: u64,
}

impl Stamp {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self {
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.size(),
        }
    }

    /// A stamp for tests.
    #[cfg(test)]
    pub(super) const fn of_bytes(bytes: u64) -> Self {
        Self { modified: (0, 0), device: 0, inode: 0, bytes }
    }

    /// Which file it is, as far as names do not matter.
    pub(super) const fn file(&self) -> (u64, u64) {
        (self.device, self.inode)
    }

    /// The job that this version of a file becomes, in this life of the grid and in every other. (The device is left out:
    /// its number may change when the machine starts.)
    pub(super) fn job(&self, name: &str) -> JobId {
        let (seconds, nanoseconds) = self.modified;
        JobId::of_upload("inbox", name, &format!("{}-{seconds}.{nanoseconds:09}-{}", self.inode, self.bytes))
    }
}

/// A file in the folder.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) name: OsString,
    pub(super) stamp: Stamp,
}

/// The files that may be dropped ones, oldest first. Folders, symbolic links and the like are left alone.
pub(super) fn look(folder: &Path) -> io::Result<Vec<Found>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if is_ignored(&name.to_string_lossy()) {
            continue;
        }
        // It may be gone by now.
        if let Ok(metadata) = entry.metadata()
            && metadata.is_file()
        {
            found.push(Found { name, stamp: Stamp::of(&metadata) });
        }
    }
    found.sort_by(|a, b| (a.stamp, &a.name).cmp(&(b.stamp, &b.name)));
    Ok(found)
}

/// What became of a file since it was found.
pub(super) enum Opened {
    /// It is there, as it was.
    Same(File),
    /// It is something else by now.
    Changed,
    /// It is not there any more.
    Gone,
    /// It may not be read.
    Denied(io::Error),
}

/// Opens a file if it is still the one that was found. Never follows a link, and never waits for a pipe.
pub(super) fn open(path: &Path, stamp: &Stamp) -> io::Result<Opened> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::open(path, flags, Mode::empty()).map_err(io::Error::from) {
        Ok(file) => File::from(file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Opened::Gone),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(Opened::Denied(error)),
        Err(_) if std::fs::symlink_metadata(path).is_ok_and(|metadata| !metadata.is_file()) => {
            return Ok(Opened::Changed);
        }
        Err(error) => return Err(error),
    };
    let metadata = file.metadata()?;
    let same = metadata.is_file() && Stamp::of(&metadata) == *stamp;
    Ok(if same { Opened::Same(file) } else { Opened::Changed })
}

/// Whether a path still leads to this version of a file.
pub(super) fn is_same(path: &Path, stamp: &Stamp) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_file() && Stamp::of(&metadata) == *stamp)
}

/// How moving a file away ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moved {
    /// It is in the other folder.
    There,
    /// Something else has its name by now, or nothing.
    NotThere,
}

/// Moves a file into another folder if it is still the same, under its own name, or with a number behind it if that is
/// taken. Never writes over a file.
pub(super) fn move_to(path: &Path, stamp: &Stamp, folder: &Path) -> io::Result<Moved> {
    let name = path.file_name().unwrap_or_default();
    let mut target = folder.join(name);
    for number in 1_u64.. {
        if std::fs::symlink_metadata(&target).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            break;
        }
        let mut numbered = name.to_owned();
        numbered.push(format!(".{number}"));
        target = folder.join(numbered);
    }
    if !is_same(path, stamp) {
        return Ok(Moved::NotThere);
    }
    match std::fs::rename(path, &target) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && !path.exists() => return Ok(Moved::NotThere),
        renamed => renamed?,
    }
    if !is_same(&target, stamp) {
        // Another file was put in its place between the two calls: it goes back, unless a third one came.
        if !path.exists() {
            std::fs::rename(&target, path)?;
        }
        return Ok(Moved::NotThere);
    }
    Ok(Moved::There)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_moved_once_and_never_over_another() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let to = folder.path().join("processed");
        std::fs::create_dir(&to)?;
        let path = folder.path().join("a.json");
        for text in ["one", "two", "three"] {
            std::fs::write(&path, text)?;
            let stamp = Stamp::of(&std::fs::metadata(&path)?);
            assert_eq!(move_to(&path, &stamp, &to)?, Moved::There);
            assert_eq!(move_to(&path, &stamp, &to)?, Moved::NotThere);
        }
        for (name, text) in [("a.json", "one"), ("a.json.1", "two"), ("a.json.2", "three")] {
            assert_eq!(std::fs::read_to_string(to.join(name))?, text);
        }
        std::fs::write(&path, "four")?;
        let stamp = Stamp::of(&std::fs::metadata(&path)?);
        std::fs::write(&path, "another length")?;
        assert_eq!(move_to(&path, &stamp, &to)?, Moved::NotThere);
        assert!(path.exists());
        Ok(())
    }
}
