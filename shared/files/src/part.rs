//! A file that appears under its name only when it is complete.

use std::{
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
};

/// A file being written next to where it will be. Dropped without [`PartFile::publish`] it is removed, and whatever had the
/// name before stays.
#[derive(Debug)]
pub struct PartFile {
    file: File,
    part: PathBuf,
    target: PathBuf,
}

impl PartFile {
    /// Starts a file; `token` keeps apart what is written at the same time, and names what a killed process left behind so
    /// that the next one writes over it.
    pub fn create(target: &Path, token: &str) -> io::Result<Self> {
        let part = target.with_file_name(format!(".sheaf-{token}.part"));
        Ok(Self { file: File::create(&part)?, part, target: target.to_owned() })
    }

    /// Makes it durable and puts it in the place of what had its name, in one step that is durable too.
    pub fn publish(self) -> io::Result<()> {
        self.file.sync_all()?;
        std::fs::rename(&self.part, &self.target)?;
        sync_folder_of(&self.target)
    }
}

/// Makes names in the folder of a file durable.
pub fn sync_folder_of(file: &Path) -> io::Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

impl Write for PartFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for PartFile {
    /// After publishing there is nothing of that name any more.
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.part);
    }
}
