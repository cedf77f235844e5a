//! The engine on disk: rows and small blobs in fjall, larger blobs in [`Volumes`]. ARCHITECTURE.md has the measurements
//! behind this choice.
//!
//! A durable commit syncs the volumes first, then fjall's journal, which holds the rows that point into them: a pointer
//! that survives leads to bytes that do. Pointers of blobs that were taken since the last durable commit wait in memory
//! until the next one.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    ops::Bound::{Excluded, Included},
    path::Path,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use fjall::{CompressionType, Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use parking_lot::{Mutex, RwLock};

use super::{
    Batch, Engine, EngineError, Row, SMALL_BYTES_MAX, Scan, Space, behind, journal,
    room::Room,
    volumes::{Pointer, Volumes},
};

/// A small blob lies in fjall itself: one write instead of two.
const INLINE: u8 = 0;
const IN_VOLUME: u8 = 1;
/// Blobs removed in one go.
const REMOVE_MAX: usize = 2_000;
const CACHE_BYTES: u64 = 64 * 1024 * 1024;
const JOURNAL_BYTES_MAX: u64 = 128 * 1024 * 1024;
const MEMTABLE_BYTES: u64 = 16 * 1024 * 1024;

pub(crate) struct DiskEngine {
    database: Database,
    spaces: BTreeMap<Space, Keyspace>,
    volumes: Volumes,
    /// Blobs taken since the last durable commit, as their rows.
    taken: RwLock<BTreeMap<String, Vec<u8>>>,
    durable: bool,
    /// Of the journal, for commits that are synced. Held while one writes there.
    room: Mutex<Room>,
    /// How often a commit has waited for the disk.
    syncs: AtomicU64,
    /// Why nothing is written any more. A sync that is tried again after it failed may succeed without what it was for.
    failed: OnceLock<EngineError>,
}

impl DiskEngine {
    /// Opens or creates the engine in a directory. Unless `durable`, commits are left to the operating system to write:
    /// they survive the end of the process, not that of the machine.
    pub(crate) fn open(directory: &Path, durable: bool) -> Result<Self, EngineError> {
        let rows = directory.join("rows");
        if !rows.exists() {
            create_rows(directory, &rows)?;
        }
        journal::cut(&rows).map_err(io)?;
        let (database, spaces) = open_rows(&rows)?;
        let mut live = Vec::new();
        for guard in spaces[&Space::Blobs].iter() {
            live.extend(pointer_of(&guard.value().map_err(explain)?));
        }
        let volumes = Volumes::open(&directory.join("volumes"), live).map_err(io)?;
        Ok(Self {
            database,
            spaces,
            volumes,
            taken: RwLock::default(),
            durable,
            room: Mutex::new(Room::new(&rows)),
            syncs: AtomicU64::new(0),
            failed: OnceLock::new(),
        })
    }

    /// Does one of the writer's works, unless an earlier one failed.
    fn write<T>(&self, work: impl FnOnce() -> Result<T, EngineError>) -> Result<T, EngineError> {
        if let Some(error) = self.failed.get() {
            return Err(error.clone());
        }
        work().inspect_err(|error| drop(self.failed.set(error.clone())))
    }

    fn has_blob(&self, taken: &BTreeMap<String, Vec<u8>>, key: &str) -> Result<bool, EngineError> {
        Ok(taken.contains_key(key) || self.spaces[&Space::Blobs].contains_key(key).map_err(explain)?)
    }

    fn blob_row(&self, key: &str) -> Result<Option<Vec<u8>>, EngineError> {
        if let Some(row) = self.taken.read().get(key) {
            return Ok(Some(row.clone()));
        }
        self.get(Space::Blobs, key.as_bytes())
    }
}

fn open_rows(rows: &Path) -> Result<(Database, BTreeMap<Space, Keyspace>), EngineError> {
    let database = Database::builder(rows)
        .cache_size(CACHE_BYTES)
        .journal_compression(CompressionType::None)
        .manual_journal_persist(true)
        .max_journaling_size(JOURNAL_BYTES_MAX)
        .worker_threads(2)
        .open()
        .map_err(explain)?;
    let mut spaces = BTreeMap::new();
    for space in Space::ALL {
        let options =
            || KeyspaceCreateOptions::default().manual_journal_persist(true).max_memtable_size(MEMTABLE_BYTES);
        spaces.insert(space, database.keyspace(space.name(), options).map_err(explain)?);
    }
    Ok((database, spaces))
}

/// Makes the rows, wholly or not at all: fjall does not open what is left when making them was cut short.
fn create_rows(directory: &Path, rows: &Path) -> Result<(), EngineError> {
    let new = directory.join("rows.new");
    match fs::remove_dir_all(&new) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io(error)),
        _ => fs::create_dir_all(directory).map_err(io)?,
    }
    drop(open_rows(&new)?);
    // Empty; without it, the next has its whole length when fjall opens the rows.
    if let Some(journal) = journal::newest(&new).map_err(io)? {
        fs::remove_file(journal).map_err(io)?;
    }
    sync_directory(&new.join("keyspaces")).and_then(|()| fs::rename(&new, rows)).map_err(io)?;
    sync_directory(directory).map_err(io)
}

/// Makes the names in a directory durable.
pub(super) fn sync_directory(directory: &Path) -> std::io::Result<()> {
    File::open(directory)?.sync_all()
}

fn pointer_of(row: &[u8]) -> Option<Pointer> {
    match row {
        [IN_VOLUME, pointer @ ..] => Pointer::decode(pointer),
        _ => None,
    }
}

fn io(error: std::io::Error) -> EngineError {
    EngineError(error.to_string())
}

fn explain(error: fjall::Error) -> EngineError {
    EngineError(match error {
        fjall::Error::Io(error) => error.to_string(),
        fjall::Error::Poisoned => "an earlier write failed".to_owned(),
        fjall::Error::JournalRecovery(error) => {
            format!("its journal is damaged in the middle, not only torn at the end ({error:?})")
        }
        error => format!("{error:?}"),
    })
}

impl Engine for DiskEngine {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        Ok(self.spaces[&space].get(key).map_err(explain)?.map(|row| row.to_vec()))
    }

    fn scan(&self, space: Space, scan: Scan<'_>) -> Result<Vec<Row>, EngineError> {
        if scan.from >= scan.to {
            return Ok(Vec::new());
        }
        let mut range = self.spaces[&space].range::<&[u8], _>((Included(scan.from), Excluded(scan.to)));
        let mut rows = Vec::new();
        while rows.len() < scan.limit
            && let Some(guard) = if scan.backwards { range.next_back() } else { range.next() }
        {
            let (key, row) = guard.into_inner().map_err(explain)?;
            rows.push((key.to_vec(), row.to_vec()));
        }
        Ok(rows)
    }

    fn put_blob(&self, key: &str, bytes: &Bytes) -> Result<bool, EngineError> {
        if let Some(error) = self.failed.get() {
            return Err(error.clone());
        }
        let pointer = if bytes.len() < SMALL_BYTES_MAX {
            None
        } else if self.has_blob(&self.taken.read(), key)? {
            return Ok(false);
        } else {
            Some(self.write(|| self.volumes.append(bytes).map_err(io))?)
        };
        let mut taken = self.taken.write();
        if self.has_blob(&taken, key)? {
            drop(taken);
            // Somebody has put a small one meanwhile.
            pointer.map_or(Ok(()), |pointer| self.write(|| self.volumes.forget(pointer).map_err(io)))?;
            return Ok(false);
        }
        let row = match pointer {
            None => [&[INLINE], &bytes[..]].concat(),
            Some(pointer) => [&[IN_VOLUME][..], &pointer.encode()].concat(),
        };
        taken.insert(key.to_owned(), row);
        Ok(true)
    }

    fn blob(&self, key: &str) -> Result<Option<Bytes>, EngineError> {
        let Some(row) = self.blob_row(key)? else { return Ok(None) };
        match pointer_of(&row) {
            Some(pointer) => self.volumes.read(pointer).map(Some).map_err(io),
            None => Ok(Some(Bytes::from(row).slice(1..))),
        }
    }

    fn remove_blobs(&self, prefix: &str) -> Result<bool, EngineError> {
        self.commit(Batch::default(), true)?;
        let end = behind(prefix.as_bytes());
        let rows = self.scan(Space::Blobs, Scan::new(prefix.as_bytes(), &end, REMOVE_MAX))?;
        let mut batch = Batch::default();
        rows.iter().for_each(|(key, _)| batch.remove(Space::Blobs, key.clone()));
        self.commit(batch, true)?;
        for pointer in rows.iter().filter_map(|(_, row)| pointer_of(row)) {
            self.write(|| self.volumes.forget(pointer).map_err(io))?;
        }
        Ok(rows.len() == REMOVE_MAX)
    }

    fn commit(&self, batch: Batch, durable: bool) -> Result<(), EngineError> {
        self.write(|| self.commit_group(batch, durable))
    }

    fn holds_back(&self) -> bool {
        self.taken.read().values().any(|row| row.first() == Some(&IN_VOLUME))
    }

    fn waits(&self) -> bool {
        self.durable
    }

    fn syncs(&self) -> Option<u64> {
        Some(self.syncs.load(Ordering::Relaxed))
    }
}

impl DiskEngine {
    fn commit_group(&self, batch: Batch, durable: bool) -> Result<(), EngineError> {
        let sync = durable && self.durable;
        let mut write = self.database.batch();
        let mut taken = self.taken.read().clone();
        if !durable {
            // What lies in a volume is laid down only once it is durable there.
            taken.retain(|_, row| row.first() == Some(&INLINE));
        }
        if sync && taken.values().any(|row| row.first() == Some(&IN_VOLUME)) {
            self.volumes.sync().map_err(io)?;
            self.syncs.fetch_add(1, Ordering::Relaxed);
        }
        let mut bytes = 0;
        for (key, row) in &taken {
            bytes += key.len() + row.len();
            write.insert(&self.spaces[&Space::Blobs], key.as_bytes(), row.as_slice());
        }
        for (space, key, row) in batch.rows {
            bytes += key.len() + row.as_ref().map_or(0, Vec::len);
            match row {
                Some(row) => write.insert(&self.spaces[&space], key, row),
                None => write.remove(&self.spaces[&space], key),
            }
        }
        let mode = if sync { PersistMode::SyncData } else { PersistMode::Buffer };
        self.syncs.fetch_add(u64::from(sync), Ordering::Relaxed);
        if write.is_empty() {
            // fjall does nothing about an empty group; but commits before it may not be synced yet.
            return self.database.persist(mode).map_err(explain);
        }
        let mut room = self.room.lock();
        write.durability(Some(mode)).commit().map_err(explain)?;
        if sync {
            room.used(bytes);
        }
        drop(room);
        if !taken.is_empty() {
            let mut all = self.taken.write();
            taken.keys().for_each(|key| drop(all.remove(key)));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a durable commit waits for is counted: the volumes where there are new blobs in them, and the rows.
    #[test]
    fn syncs_are_counted() {
        let directory = tempfile::tempdir().expect("a directory");
        let counted = |durable: bool, bytes: usize| {
            let engine =
                DiskEngine::open(&directory.path().join(format!("{durable}-{bytes}")), durable).expect("opened");
            engine.put_blob("p/a", &Bytes::from(vec![1; bytes])).expect("taken");
            engine.commit(Batch::default(), false).expect("written");
            let before = engine.syncs();
            engine.commit(Batch::default(), true).expect("written");
            (before, engine.syncs())
        };
        assert_eq!(counted(true, 10), (Some(0), Some(1)), "rows");
        assert_eq!(counted(true, SMALL_BYTES_MAX), (Some(0), Some(2)), "rows and a volume");
        assert_eq!(counted(false, SMALL_BYTES_MAX), (Some(0), Some(0)), "not asked to be durable");
    }
}
