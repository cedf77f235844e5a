//! Packages: zips by digest, unpacked once and kept.
//!
//! A package is fetched, checked against its digest, unpacked beside its place and renamed into it, so that a directory
//! under `packages/` is always whole. A zip is somebody else's: names that lead outside, special files, more files or more
//! bytes than the limits are refused, links are made after all files and folders so that nothing is ever written through
//! one, and links may not lead outside.

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Cursor, Read},
    os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink},
    path::{Component, Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use sheaf_core::{Digest, limits::PACKAGE_BYTES_MAX};
use tokio::sync::OnceCell;
use zip::{ZipArchive, read::ZipFile};

use crate::limits;

/// Where the zips of packages come from.
pub trait PackageSource: Send + Sync + 'static {
    /// The zip with this digest. The error is shown to whoever reads why a task failed, and the next call asks again.
    fn fetch(&self, digest: Digest) -> BoxFuture<'_, Result<Bytes, String>>;
}

/// A source without packages, for grids that only run commands and handlers.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoPackages;

impl PackageSource for NoPackages {
    fn fetch(&self, _: Digest) -> BoxFuture<'_, Result<Bytes, String>> {
        Box::pin(async { Err("this grid keeps no packages".into()) })
    }
}

/// A package on disk. It is not removed while this is held.
#[derive(Debug)]
pub(crate) struct Package {
    pub(crate) dir: PathBuf,
}

/// Why a package cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PackageError {
    #[error("package {digest} could not be fetched: {reason}")]
    Fetch { digest: Digest, reason: String },
    #[error("package {digest} is damaged: what was fetched has the digest {found}")]
    Digest { digest: Digest, found: Digest },
    #[error("package {digest}: {reason}")]
    Refused { digest: Digest, reason: String },
    #[error("package {digest} could not be unpacked")]
    Disk {
        digest: Digest,
        #[source]
        source: io::Error,
    },
}

type Cell = Arc<OnceCell<Arc<Package>>>;

/// The packages of a host.
pub(crate) struct Packages {
    root: PathBuf,
    source: Arc<dyn PackageSource>,
    known: Mutex<HashMap<Digest, (u64, Cell)>>,
    uses: AtomicU64,
}

impl Packages {
    /// The packages in a directory. Half-unpacked ones are removed; whole ones are used again.
    pub(crate) fn open(root: &Path, source: Arc<dyn PackageSource>) -> io::Result<Self> {
        let mut known = HashMap::new();
        for entry in fs::read_dir(root)? {
            let dir = entry?.path();
            let digest = dir.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse::<Digest>().ok());
            match digest {
                Some(digest) => {
                    known.insert(digest, (0, Arc::new(OnceCell::new_with(Some(Arc::new(Package { dir }))))));
                }
                None if dir.is_dir() => fs::remove_dir_all(dir)?,
                None => fs::remove_file(dir)?,
            }
        }
        Ok(Self { root: root.to_owned(), source, known: Mutex::new(known), uses: AtomicU64::new(1) })
    }

    /// The package with this digest, fetched and unpacked if it is not there yet. Callers of the same one share the work.
    pub(crate) async fn get(&self, digest: Digest) -> Result<Arc<Package>, PackageError> {
        let used = self.uses.fetch_add(1, Ordering::Relaxed);
        let cell = {
            let mut known = self.known.lock();
            let entry = known.entry(digest).or_default();
            entry.0 = used;
            Arc::clone(&entry.1)
        };
        Ok(Arc::clone(cell.get_or_try_init(|| self.add(digest)).await?))
    }

    async fn add(&self, digest: Digest) -> Result<Arc<Package>, PackageError> {
        let zip = self.source.fetch(digest).await.map_err(|reason| PackageError::Fetch { digest, reason })?;
        let unused = self.forget_unused();
        let dir = self.root.join(digest.to_string());
        let temp = self.temp_dir();
        let unpacked = tokio::task::spawn_blocking(move || {
            unused.iter().for_each(|dir| drop(fs::remove_dir_all(dir)));
            let found = Digest::of(&zip);
            if found != digest {
                return Err(PackageError::Digest { digest, found });
            }
            let result = unpack(zip, &temp).map_err(|error| match error {
                UnpackError::Refused(reason) => PackageError::Refused { digest, reason },
                UnpackError::Disk(source) => PackageError::Disk { digest, source },
            });
            let result =
                result.and_then(|()| fs::rename(&temp, &dir).map_err(|source| PackageError::Disk { digest, source }));
            if result.is_err() {
                let _ = fs::remove_dir_all(&temp);
            }
            result.map(|()| Arc::new(Package { dir }))
        });
        let aborted = |error: tokio::task::JoinError| PackageError::Disk { digest, source: io::Error::other(error) };
        unpacked.await.map_err(aborted)?
    }

    /// Forgets the packages beyond [`limits::PACKAGES_MAX`] that were used longest ago and by nobody now; gives their
    /// directories, renamed.
    fn forget_unused(&self) -> Vec<PathBuf> {
        let mut known = self.known.lock();
        let mut idle: Vec<(u64, Digest)> = known
            .iter()
            .filter(|(_, (_, cell))| {
                Arc::strong_count(cell) == 1 && cell.get().is_some_and(|p| Arc::strong_count(p) == 1)
            })
            .map(|(digest, (used, _))| (*used, *digest))
            .collect();
        idle.sort_unstable();
        let over = known.len().saturating_sub(limits::PACKAGES_MAX);
        let gone = idle.iter().take(over).filter_map(|(_, digest)| known.remove(digest));
        // Moved aside while nobody can ask for it again.
        let aside = |dir: &Path| {
            let temp = self.temp_dir();
            fs::rename(dir, &temp).is_ok().then_some(temp)
        };
        gone.filter_map(|(_, cell)| aside(&cell.get()?.dir)).collect()
    }

    /// A path that the next start removes if it is still there then.
    fn temp_dir(&self) -> PathBuf {
        self.root.join(format!("temp-{}", self.uses.fetch_add(1, Ordering::Relaxed)))
    }
}

#[derive(Debug)]
enum UnpackError {
    Refused(String),
    Disk(io::Error),
}

impl From<io::Error> for UnpackError {
    fn from(error: io::Error) -> Self {
        Self::Disk(error)
    }
}

impl From<zip::result::ZipError> for UnpackError {
    fn from(error: zip::result::ZipError) -> Self {
        Self::Refused(format!("not a zip that can be read: {error}"))
    }
}

fn refuse<T>(reason: impl Into<String>) -> Result<T, UnpackError> {
    Err(UnpackError::Refused(reason.into()))
}

fn unpack(zip: Bytes, root: &Path) -> Result<(), UnpackError> {
    if zip.len() as u64 > PACKAGE_BYTES_MAX {
        return refuse(format!("{} bytes zipped, the limit is {PACKAGE_BYTES_MAX}", zip.len()));
    }
    let mut archive = ZipArchive::new(Cursor::new(zip))?;
    if archive.len() > limits::PACKAGE_FILES_MAX {
        return refuse(format!("{} files, the limit is {}", archive.len(), limits::PACKAGE_FILES_MAX));
    }
    fs::create_dir(root)?;
    let mut left = PACKAGE_BYTES_MAX;
    let mut links = Vec::new();
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index)?;
        let Some(name) = entry.enclosed_name().and_then(|name| plain(&name)) else {
            return refuse(format!("{:?} leads outside of the package", String::from_utf8_lossy(entry.name_raw())));
        };
        let path = root.join(&name);
        if entry.is_dir() {
            fs::create_dir_all(&path)?;
        } else if entry.is_symlink() {
            let mut target = String::new();
            entry.by_ref().take(4_096).read_to_string(&mut target)?;
            links.push((name, path, target));
        } else {
            left -= write_file(&mut entry, &path, left)?;
        }
    }
    for (_, path, _) in &links {
        path.parent().map_or(Ok(()), fs::create_dir_all)?;
    }
    for (name, path, target) in links {
        if plain(&name.parent().unwrap_or(Path::new("")).join(&target)).is_none() {
            return refuse(format!("the link {name:?} leads outside of the package, to {target:?}"));
        }
        match symlink(target, path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return refuse(format!("{name:?} stands twice in it"));
            }
            made => made?,
        }
    }
    check_bootstrap(&root.join("bootstrap"))
}

/// A relative path without `.` and `..`; `None` if it leads out of where it starts, or nowhere.
fn plain(path: &Path) -> Option<PathBuf> {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => plain.push(name),
            Component::CurDir => {}
            Component::ParentDir => {
                if !plain.pop() {
                    return None;
                }
            }
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(plain)
}

fn write_file(entry: &mut ZipFile<'_, Cursor<Bytes>>, path: &Path, left: u64) -> Result<u64, UnpackError> {
    path.parent().map_or(Ok(()), fs::create_dir_all)?;
    let mode = entry.unix_mode().unwrap_or(0o644);
    if !matches!(mode & 0o170_000, 0 | 0o100_000) {
        return refuse(format!("{path:?} is a special file"));
    }
    // Nothing but permissions: a package has no business with setuid.
    let mode = mode & 0o777 | 0o400;
    let mut file: File = match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return refuse(format!("{path:?} stands twice in it"));
        }
        opened => opened?,
    };
    let written = match io::copy(&mut entry.by_ref().take(left + 1), &mut file) {
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput) => {
            return refuse(format!("{path:?} is damaged: {error}"));
        }
        copied => copied?,
    };
    if written > left {
        return refuse(format!("more than {PACKAGE_BYTES_MAX} bytes unpacked, which is the limit"));
    }
    file.set_permissions(Permissions::from_mode(mode))?;
    Ok(written)
}

fn check_bootstrap(path: &Path) -> Result<(), UnpackError> {
    match fs::metadata(path) {
        Ok(meta) if !meta.is_file() => refuse("bootstrap is not a file"),
        Ok(meta) if meta.permissions().mode() & 0o111 == 0 => {
            refuse("bootstrap is not executable: chmod 755 it and zip it again with its permissions")
        }
        Ok(_) => Ok(()),
        Err(_) => refuse("no bootstrap at the top of the zip"),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use zip::{ZipWriter, write::SimpleFileOptions};

    use super::*;

    fn zip(files: &[(&str, &[u8], u32)]) -> Bytes {
        let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
        for (name, content, mode) in files {
            let options = SimpleFileOptions::default().unix_permissions(*mode);
            writer.start_file(*name, options).expect("a name");
            writer.write_all(content).expect("memory");
        }
        writer.finish().expect("memory").into_inner().into()
    }

    fn refusal(zip: Bytes) -> String {
        let dir = tempfile::tempdir().expect("a directory");
        match unpack(zip, &dir.path().join("package")) {
            Err(UnpackError::Refused(reason)) => {
                assert!(fs::symlink_metadata(dir.path().join("evil")).is_err());
                reason
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_package_keeps_its_files_and_their_permissions() {
        let dir = tempfile::tempdir().expect("a directory");
        let root = dir.path().join("package");
        unpack(zip(&[("bootstrap", b"#!/bin/sh", 0o755), ("lib/a.txt", b"a", 0o4644)]), &root).expect("fine");
        let mode = |name: &str| fs::metadata(root.join(name)).expect("there").permissions().mode() & 0o7777;
        assert_eq!((mode("bootstrap"), mode("lib/a.txt")), (0o755, 0o644));
        assert_eq!(fs::read(root.join("lib/a.txt")).expect("there"), b"a");
    }

    #[test]
    fn what_leads_outside_is_refused() {
        assert!(refusal(zip(&[("../evil", b"x", 0o644), ("bootstrap", b"", 0o755)])).contains("leads outside"));
        assert!(refusal(zip(&[("a/../../evil", b"x", 0o644)])).contains("leads outside"));
        for target in ["..", "/etc/passwd", "a/../../evil"] {
            let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
            writer.add_symlink("link", target, SimpleFileOptions::default()).expect("a name");
            writer.start_file("link/evil", SimpleFileOptions::default()).expect("a name");
            let reason = refusal(writer.finish().expect("memory").into_inner().into());
            assert!(reason.contains("leads outside"), "{reason}");
        }
    }

    /// Each of these links leads inside as it is written; through the first, the second would be made outside.
    #[test]
    fn no_link_is_made_through_another() {
        let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
        for (name, target) in [("a/b/c", "../.."), ("d", "a/b/c/.."), ("d/evil", "bootstrap")] {
            writer.add_symlink(name, target, SimpleFileOptions::default()).expect("a name");
        }
        let reason = refusal(writer.finish().expect("memory").into_inner().into());
        assert!(reason.contains("stands twice"), "{reason}");
    }

    #[test]
    fn a_package_that_grows_beyond_its_limit_is_refused() {
        let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
        writer.start_file("zeros", SimpleFileOptions::default()).expect("a name");
        let zeros = vec![0; 1 << 20];
        for _ in 0..=PACKAGE_BYTES_MAX / zeros.len() as u64 {
            writer.write_all(&zeros).expect("memory");
        }
        let zip: Bytes = writer.finish().expect("memory").into_inner().into();
        assert!(zip.len() < 1 << 20, "a bomb is small");
        assert!(refusal(zip).contains("bytes unpacked, which is the limit"));
    }

    #[test]
    fn a_stray_file_among_the_packages_is_removed() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join("stray"), "").expect("written");
        Packages::open(dir.path(), Arc::new(crate::NoPackages)).expect("opened");
        assert!(!dir.path().join("stray").exists());
    }

    #[test]
    fn a_package_without_a_usable_bootstrap_is_refused() {
        assert!(refusal(zip(&[("main.py", b"", 0o644)])).contains("no bootstrap"));
        assert!(refusal(zip(&[("bootstrap", b"", 0o644)])).contains("not executable"));
        assert!(refusal(zip(&[("bootstrap/x", b"", 0o755)])).contains("not a file"));
        assert!(refusal(Bytes::from_static(b"PK no zip")).contains("not a zip"));
    }

    #[test]
    fn links_inside_are_kept() {
        let dir = tempfile::tempdir().expect("a directory");
        let root = dir.path().join("package");
        let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
        writer.add_symlink("bootstrap", "bin/run", SimpleFileOptions::default()).expect("a name");
        writer.start_file("bin/run", SimpleFileOptions::default().unix_permissions(0o755)).expect("a name");
        unpack(writer.finish().expect("memory").into_inner().into(), &root).expect("fine");
        assert_eq!(fs::read_link(root.join("bootstrap")).expect("a link"), Path::new("bin/run"));
    }
}
