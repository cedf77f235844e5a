//! Who has a file open for writing.

use std::collections::HashSet;

/// Those of these files (by device and inode) that a process has open for writing.
///
/// Looks through `/proc`, so it sees the processes that this user may inspect: its own, or all for root. A writer of another
/// user, in another container or on another machine of a network file system is not seen; a quiet time and the file's own
/// form have to do for those. On systems without `/proc` nobody is seen.
pub(super) fn open_for_writing(files: &HashSet<(u64, u64)>) -> HashSet<(u64, u64)> {
    let mut writing = HashSet::new();
    if files.is_empty() {
        return writing;
    }
    for process in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        if process.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit()) {
            of_process(&process.path(), files, &mut writing);
        }
        if writing.len() == files.len() {
            break;
        }
    }
    writing
}

/// A process or descriptor that goes away meanwhile, or may not be read, does not count.
fn of_process(process: &std::path::Path, files: &HashSet<(u64, u64)>, writing: &mut HashSet<(u64, u64)>) {
    use std::os::unix::fs::MetadataExt;
    for descriptor in std::fs::read_dir(process.join("fd")).into_iter().flatten().flatten() {
        let path = descriptor.path();
        // Sockets and pipes have no path: they need not be asked what they are.
        if !std::fs::read_link(&path).is_ok_and(|target| target.is_absolute()) {
            continue;
        }
        let Ok(metadata) = std::fs::metadata(&path) else { continue };
        let file = (metadata.dev(), metadata.ino());
        if files.contains(&file) && is_for_writing(&process.join("fdinfo").join(descriptor.file_name())) {
            writing.insert(file);
        }
    }
}

/// Reads the access mode of a descriptor: the last two bits of `flags`, which is octal (proc_pid_fdinfo(5)).
fn is_for_writing(info: &std::path::Path) -> bool {
    let info = std::fs::read_to_string(info).unwrap_or_default();
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
    flags.and_then(|flags| u64::from_str_radix(flags.trim(), 8).ok()).is_some_and(|flags| flags & 0o3 != 0)
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{File, OpenOptions},
        io,
        os::unix::fs::MetadataExt,
    };

    use super::*;

    #[test]
    #[cfg_attr(not(target_os = "linux"), ignore = "needs /proc")]
    fn a_writer_is_seen_while_it_has_the_file_open() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("a.json");
        let writer = File::create(&path)?;
        let file = |path: &std::path::Path| std::fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino()));
        let files = HashSet::from([file(&path)?]);
        assert_eq!(open_for_writing(&files), files);
        std::fs::rename(&path, folder.path().join("b.json"))?;
        assert_eq!(open_for_writing(&files), files);
        drop(writer);
        let path = folder.path().join("b.json");
        let _reader = File::open(&path)?;
        assert_eq!(open_for_writing(&files), HashSet::new());
        let _appender = OpenOptions::new().append(true).open(&path)?;
        assert_eq!(open_for_writing(&files), files);
        Ok(())
    }
}
