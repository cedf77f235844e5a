//! Packages: what a path holds, as a zip that is the same whenever its files are the same.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, Cursor, Read, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use sheaf_core::{Digest, limits};
use zip::{CompressionMethod, DateTime, ZipArchive, ZipWriter, write::SimpleFileOptions};

/// What the grid starts.
const BOOTSTRAP: &str = "bootstrap";
/// Made by Python while it runs, different each time, and never needed.
const SKIPPED: [&str; 2] = ["__pycache__", ".git"];
/// Folders within folders.
const DEPTH_MAX: usize = 64;
/// Files in a package.
const FILES_MAX: usize = 100_000;

/// A zipped package. Cloning shares it.
#[derive(Debug, Clone)]
pub(crate) struct Archive {
    /// Its digest.
    pub(crate) digest: Digest,
    /// Its bytes.
    pub(crate) bytes: Bytes,
}

/// Packages made so far: one that several functions name is made once.
#[derive(Debug, Default)]
pub(super) struct Archives {
    made: HashMap<PathBuf, Archive>,
}

/// A path that is no package.
pub(super) struct NoPackage {
    pub(super) message: String,
    pub(super) source: Option<io::Error>,
}

fn refuse(message: String) -> NoPackage {
    NoPackage { message, source: None }
}

fn io_at(path: &Path) -> impl Fn(io::Error) -> NoPackage {
    move |source| NoPackage { message: format!("{} cannot be packed", path.display()), source: Some(source) }
}

impl Archives {
    /// The package at a path.
    pub(super) fn of(&mut self, path: &Path) -> Result<Archive, NoPackage> {
        let path = fs::canonicalize(path).map_err(io_at(path))?;
        if let Some(made) = self.made.get(&path) {
            return Ok(made.clone());
        }
        let bytes = Bytes::from(pack(&path)?);
        let archive = Archive { digest: Digest::of(&bytes), bytes };
        self.made.insert(path, archive.clone());
        Ok(archive)
    }
}

fn pack(path: &Path) -> Result<Vec<u8>, NoPackage> {
    let metadata = fs::metadata(path).map_err(io_at(path))?;
    if metadata.is_dir() {
        let mut files = Vec::new();
        collect(path, String::new(), 0, &mut files)?;
        files.sort();
        let bootstrap = files.iter().find(|(name, _)| name == BOOTSTRAP);
        let (_, bootstrap) = bootstrap.ok_or_else(|| refuse(format!("{} holds no {BOOTSTRAP}", path.display())))?;
        if !is_executable(bootstrap)? {
            return Err(refuse(format!("{} is not executable", bootstrap.display())));
        }
        return zip(&files);
    }
    if is_zip(path)? {
        check_size(path, metadata.len())?;
        let bytes = fs::read(path).map_err(io_at(path))?;
        return check_zip(path, bytes);
    }
    if !is_executable(path)? {
        return Err(refuse(format!("{} is neither a directory, nor a zip, nor executable", path.display())));
    }
    zip(&[(BOOTSTRAP.to_owned(), path.to_owned())])
}

fn is_executable(path: &Path) -> Result<bool, NoPackage> {
    let metadata = fs::metadata(path).map_err(io_at(path))?;
    Ok(metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

fn is_zip(path: &Path) -> Result<bool, NoPackage> {
    let mut start = Vec::new();
    File::open(path).and_then(|file| file.take(4).read_to_end(&mut start)).map_err(io_at(path))?;
    Ok(start == b"PK\x03\x04")
}

fn check_zip(path: &Path, bytes: Vec<u8>) -> Result<Vec<u8>, NoPackage> {
    let not_one = |error| refuse(format!("{} is not a zip: {error}", path.display()));
    let mut archive = ZipArchive::new(Cursor::new(&bytes)).map_err(not_one)?;
    if archive.by_name(BOOTSTRAP).is_err() {
        return Err(refuse(format!("{} holds no {BOOTSTRAP} at its top", path.display())));
    }
    Ok(bytes)
}

fn check_size(path: &Path, bytes: u64) -> Result<(), NoPackage> {
    if bytes <= limits::PACKAGE_BYTES_MAX {
        return Ok(());
    }
    let most = crate::text::bytes(limits::PACKAGE_BYTES_MAX);
    Err(refuse(format!("{} makes a package of more than {most}", path.display())))
}

/// All files under a folder, by their names in the package. Links are followed.
fn collect(folder: &Path, prefix: String, depth: usize, files: &mut Vec<(String, PathBuf)>) -> Result<(), NoPackage> {
    if depth > DEPTH_MAX {
        return Err(refuse(format!("{} is more than {DEPTH_MAX} folders deep", folder.display())));
    }
    for entry in fs::read_dir(folder).map_err(io_at(folder))? {
        let path = entry.map_err(io_at(folder))?.path();
        let name = path.file_name().unwrap_or_default();
        let name = name.to_str().ok_or_else(|| refuse(format!("{} has a name that is not UTF-8", path.display())))?;
        if SKIPPED.contains(&name) || name.ends_with(".pyc") {
            continue;
        }
        let metadata = fs::metadata(&path).map_err(io_at(&path))?;
        let name = format!("{prefix}{name}");
        if metadata.is_dir() {
            collect(&path, format!("{name}/"), depth + 1, files)?;
        } else if metadata.is_file() {
            files.push((name, path));
        }
        if files.len() > FILES_MAX {
            return Err(refuse(format!("{} holds more than {FILES_MAX} files", folder.display())));
        }
    }
    Ok(())
}

/// Zips files in the order given, with one time for all of them, so that the digest depends on nothing but names, contents and
/// who may execute what.
fn zip(files: &[(String, PathBuf)]) -> Result<Vec<u8>, NoPackage> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    let mut total_bytes = 0;
    for (name, path) in files {
        let mode = if is_executable(path)? { 0o755 } else { 0o644 };
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Deflated)
            .last_modified_time(DateTime::default())
            .unix_permissions(mode);
        let contents = fs::read(path).map_err(io_at(path))?;
        total_bytes += contents.len() as u64;
        check_size(path, total_bytes)?;
        let started = writer.start_file(name.as_str(), options);
        started.map_err(|error| refuse(format!("{} cannot be packed: {error}", path.display())))?;
        writer.write_all(&contents).map_err(io_at(path))?;
    }
    let finished = writer.finish().map_err(|error| refuse(format!("the package cannot be made: {error}")))?;
    Ok(finished.into_inner())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn folder(files: &[(&str, u32)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, mode) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, name).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(*mode)).unwrap();
        }
        folder
    }

    fn names(archive: &Archive) -> Vec<String> {
        let zip = ZipArchive::new(Cursor::new(&archive.bytes)).unwrap();
        zip.file_names().map(|name| name.unwrap().into_owned()).collect()
    }

    fn of(path: &Path) -> Archive {
        Archives::default().of(path).map_err(|wrong| wrong.message).unwrap()
    }

    fn refusal(path: &Path) -> String {
        Archives::default().of(path).map(|_| String::new()).unwrap_or_else(|wrong| wrong.message)
    }

    #[test]
    fn the_same_files_are_the_same_package() {
        let files = [("bootstrap", 0o755), ("lib/b.py", 0o644), ("lib/a.py", 0o600)];
        let one = folder(&files);
        let other = folder(&[files[2], files[1], files[0], ("lib/__pycache__/a.pyc", 0o644)]);
        assert_eq!(of(one.path()).digest, of(other.path()).digest);
        assert_eq!(names(&of(one.path())), ["bootstrap", "lib/a.py", "lib/b.py"]);
        fs::write(one.path().join("lib/a.py"), "changed").unwrap();
        assert_ne!(of(one.path()).digest, of(other.path()).digest);
    }

    #[test]
    fn an_executable_becomes_a_bootstrap_and_a_zip_stays_as_it_is() {
        let folder = folder(&[("price", 0o755)]);
        let packed = of(&folder.path().join("price"));
        assert_eq!(names(&packed), ["bootstrap"]);
        let zip = folder.path().join("price.zip");
        fs::write(&zip, &packed.bytes).unwrap();
        assert_eq!(of(&zip).digest, packed.digest);
    }

    #[test]
    fn what_is_no_package_is_refused() {
        let bare = folder(&[("main.py", 0o644)]);
        assert!(refusal(bare.path()).ends_with("holds no bootstrap"));
        assert!(refusal(&bare.path().join("main.py")).ends_with("nor executable"));
        let plain = folder(&[("bootstrap", 0o644)]);
        assert!(refusal(plain.path()).ends_with("is not executable"));
    }
}
