//! Volumes: append-only files that hold the larger blobs.
//!
//! A blob is written once, to the end of the newest volume, and found by a pointer kept in the engine's rows. Whatever
//! lies behind the last pointer, a torn tail included, is never looked at; a new volume is begun at each start. A volume
//! whose blobs have all been removed is deleted.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use parking_lot::Mutex;

use super::disk::sync_directory;

/// A volume is closed at this size; larger ones free their space later, smaller ones cost more files.
const VOLUME_BYTES_MAX: u64 = 256 * 1024 * 1024;
const SUFFIX: &str = "vol";

/// Where a blob lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pointer {
    pub(crate) volume: u32,
    pub(crate) offset: u64,
    pub(crate) bytes: u32,
}

impl Pointer {
    pub(crate) fn encode(self) -> [u8; 16] {
        let mut row = [0; 16];
        row[..4].copy_from_slice(&self.volume.to_le_bytes());
        row[4..12].copy_from_slice(&self.offset.to_le_bytes());
        row[12..].copy_from_slice(&self.bytes.to_le_bytes());
        row
    }

    pub(crate) fn decode(row: &[u8]) -> Option<Self> {
        let row: [u8; 16] = row.try_into().ok()?;
        let [a, b, c, d, middle @ .., w, x, y, z] = row;
        let (volume, bytes) = (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([w, x, y, z]));
        Some(Self { volume, offset: u64::from_le_bytes(middle), bytes })
    }
}

/// The volumes of one directory.
pub(crate) struct Volumes {
    directory: PathBuf,
    state: Mutex<State>,
}

struct State {
    /// Every volume, with the bytes in it that are still pointed to.
    volumes: BTreeMap<u32, Volume>,
    newest: Option<Newest>,
}

struct Volume {
    file: Arc<File>,
    live_bytes: u64,
}

struct Newest {
    number: u32,
    end: u64,
    unsynced: bool,
}

impl Volumes {
    /// Opens the volumes of a directory, given what is still pointed to; deletes those that nothing points to.
    pub(crate) fn open(directory: &Path, live: impl IntoIterator<Item = Pointer>) -> io::Result<Self> {
        if !directory.exists() {
            std::fs::create_dir_all(directory)?;
            directory.parent().map_or(Ok(()), sync_directory)?;
        }
        let mut live_bytes: BTreeMap<u32, u64> = BTreeMap::new();
        for pointer in live {
            *live_bytes.entry(pointer.volume).or_default() += u64::from(pointer.bytes);
        }
        let mut volumes = BTreeMap::new();
        for entry in std::fs::read_dir(directory)? {
            let path = entry?.path();
            let Some(number) = number_of(&path) else { continue };
            match live_bytes.get(&number) {
                Some(&live_bytes) => {
                    drop(volumes.insert(number, Volume { file: Arc::new(File::open(&path)?), live_bytes }))
                }
                None => std::fs::remove_file(&path)?,
            }
        }
        let state = State { volumes, newest: None };
        Ok(Self { directory: directory.to_owned(), state: Mutex::new(state) })
    }

    fn path(&self, number: u32) -> PathBuf {
        self.directory.join(format!("{number:08}.{SUFFIX}"))
    }

    /// Appends a blob. It is durable after the next [`Volumes::sync`].
    pub(crate) fn append(&self, bytes: &Bytes) -> io::Result<Pointer> {
        let mut state = self.state.lock();
        if state.newest.as_ref().is_some_and(|newest| newest.end >= VOLUME_BYTES_MAX) {
            Self::sync_newest(&mut state)?;
            state.newest = None;
        }
        let (number, offset) = match &state.newest {
            Some(newest) => (newest.number, newest.end),
            None => (self.begin(&mut state)?, 0),
        };
        let volume = state.volumes.get_mut(&number).expect("the newest volume is one of the volumes");
        (&*volume.file).write_all(bytes)?;
        volume.live_bytes += bytes.len() as u64;
        state.newest = Some(Newest { number, end: offset + bytes.len() as u64, unsynced: true });
        Ok(Pointer { volume: number, offset, bytes: bytes.len() as u32 })
    }

    /// Begins a volume, its name durable.
    fn begin(&self, state: &mut State) -> io::Result<u32> {
        let number = state.volumes.keys().next_back().map_or(0, |last| last + 1);
        let file = OpenOptions::new().create_new(true).append(true).read(true).open(self.path(number))?;
        sync_directory(&self.directory)?;
        state.volumes.insert(number, Volume { file: Arc::new(file), live_bytes: 0 });
        Ok(number)
    }

    /// Makes every blob appended so far durable.
    pub(crate) fn sync(&self) -> io::Result<()> {
        Self::sync_newest(&mut self.state.lock())
    }

    fn sync_newest(state: &mut State) -> io::Result<()> {
        let Some(newest) = state.newest.as_mut().filter(|newest| newest.unsynced) else { return Ok(()) };
        state.volumes[&newest.number].file.sync_data()?;
        newest.unsynced = false;
        Ok(())
    }

    /// Reads a blob.
    pub(crate) fn read(&self, pointer: Pointer) -> io::Result<Bytes> {
        let file = self.state.lock().volumes.get(&pointer.volume).map(|volume| volume.file.clone());
        let file =
            file.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("volume {} is gone", pointer.volume)))?;
        let mut bytes = vec![0; pointer.bytes as usize];
        file.read_exact_at(&mut bytes, pointer.offset)?;
        Ok(bytes.into())
    }

    /// Says that a blob is no longer pointed to; deletes its volume if that was the last in it.
    pub(crate) fn forget(&self, pointer: Pointer) -> io::Result<()> {
        let mut state = self.state.lock();
        let is_newest = state.newest.as_ref().is_some_and(|newest| newest.number == pointer.volume);
        let Some(volume) = state.volumes.get_mut(&pointer.volume) else { return Ok(()) };
        volume.live_bytes = volume.live_bytes.saturating_sub(pointer.bytes.into());
        if volume.live_bytes == 0 && !is_newest {
            state.volumes.remove(&pointer.volume);
            std::fs::remove_file(self.path(pointer.volume))?;
        }
        Ok(())
    }
}

fn number_of(path: &Path) -> Option<u32> {
    if path.extension()?.to_str()? != SUFFIX {
        return None;
    }
    path.file_stem()?.to_str()?.parse().ok()
}
