//! The five stores behind one small interface: a group of writes committed at
//! once, a blob read by key, a prefix of blobs deleted.

use std::{
    collections::HashMap,
    fs::File,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use fjall::{
    CompressionType, Database, Keyspace, KeyspaceCreateOptions, KvSeparationOptions, PersistMode,
    config::CompressionPolicy,
};
use redb::{Durability, ReadableDatabase, ReadableTable, TableDefinition};

/// Block or page cache given to every store.
const CACHE_BYTES: u64 = 64 << 20;
/// From this size on a blob is not copied into the write buffer of `files+fjall`.
const WRITE_DIRECTLY: usize = 16 << 10;
/// Target size of one segment file of `files+fjall`.
const SEGMENT_BYTES: u64 = 64 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
pub enum Kind {
    /// Everything in fjall, blobs in the LSM tables themselves.
    Fjall,
    /// Everything in fjall, blobs of 1 KiB and more in its blob files.
    FjallKvsep,
    /// Blobs in own segment files, state and pointers in fjall.
    #[value(name = "files+fjall")]
    FilesFjall,
    Redb,
    Sqlite,
}

/// Where a record lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    Blob,
    State,
    Index,
    Summary,
}

pub const TABLES: [Table; 4] = [Table::Blob, Table::State, Table::Index, Table::Summary];

impl Table {
    fn name(self) -> &'static str {
        match self {
            Table::Blob => "blob",
            Table::State => "state",
            Table::Index => "idx",
            Table::Summary => "summary",
        }
    }
}

/// One write; `value` is `None` for a deletion.
pub struct Op {
    pub table: Table,
    pub key: Vec<u8>,
    pub value: Option<Vec<u8>>,
}

/// Settings of fjall and of the segment files that the comparison varies.
#[derive(Clone, Copy, Debug)]
pub struct Tuning {
    pub journal_mb: u64,
    pub memtable_mb: u64,
    pub state_memtable_mb: u64,
    pub workers: usize,
    /// Give a new segment file its length at once.
    pub preallocate: bool,
}

pub trait Store {
    /// Applies `ops` atomically; `durable` means on disk when this returns,
    /// otherwise at least handed to the operating system (or, for redb, kept
    /// until the next durable commit).
    fn commit(&mut self, ops: Vec<Op>, durable: bool) -> Result<()>;
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>>;
    fn count(&self, table: Table) -> Result<u64>;
    /// Deletes every blob whose key starts with `prefix`, durably; returns how many.
    fn delete_blobs(&mut self, prefix: &[u8]) -> Result<u64>;
    /// Whatever the store offers to give freed space back right now.
    fn reclaim(&mut self) -> Result<()>;
    /// A line of internal figures.
    fn note(&self) -> String {
        String::new()
    }
}

pub fn open(kind: Kind, dir: &Path, tuning: Tuning) -> Result<Box<dyn Store>> {
    std::fs::create_dir_all(dir)?;
    Ok(match kind {
        Kind::Fjall => Box::new(FjallStore::open(dir, tuning, false)?),
        Kind::FjallKvsep => Box::new(FjallStore::open(dir, tuning, true)?),
        Kind::FilesFjall => Box::new(FilesStore::open(dir, tuning)?),
        Kind::Redb => Box::new(RedbStore::open(dir)?),
        Kind::Sqlite => Box::new(SqliteStore::open(dir)?),
    })
}

// ---------------------------------------------------------------- fjall

struct FjallStore {
    db: Database,
    spaces: [Keyspace; 4],
}

impl FjallStore {
    fn open(dir: &Path, tuning: Tuning, separate: bool) -> Result<Self> {
        let db = Database::builder(dir.join("fjall"))
            .cache_size(CACHE_BYTES)
            .journal_compression(CompressionType::None)
            .manual_journal_persist(true)
            .max_journaling_size(tuning.journal_mb << 20)
            .worker_threads(tuning.workers)
            .open()?;
        let small = || {
            KeyspaceCreateOptions::default()
                .manual_journal_persist(true)
                .max_memtable_size(tuning.state_memtable_mb << 20)
        };
        let blobs = || {
            let separation = separate.then(|| {
                KvSeparationOptions::default()
                    .separation_threshold(1024)
                    .compression(CompressionType::None)
                    .file_target_size(64 << 20)
            });
            KeyspaceCreateOptions::default()
                .manual_journal_persist(true)
                .max_memtable_size(tuning.memtable_mb << 20)
                .data_block_compression_policy(CompressionPolicy::disabled())
                .with_kv_separation(separation)
        };
        let spaces = [
            db.keyspace(Table::Blob.name(), blobs)?,
            db.keyspace(Table::State.name(), small)?,
            db.keyspace(Table::Index.name(), small)?,
            db.keyspace(Table::Summary.name(), small)?,
        ];
        Ok(Self { db, spaces })
    }

    fn space(&self, table: Table) -> &Keyspace {
        &self.spaces[table as usize]
    }
}

impl Store for FjallStore {
    fn commit(&mut self, ops: Vec<Op>, durable: bool) -> Result<()> {
        let mode = if durable { PersistMode::SyncData } else { PersistMode::Buffer };
        let mut batch = self.db.batch().durability(Some(mode));
        for op in ops {
            let space = &self.spaces[op.table as usize];
            match op.value {
                Some(value) => batch.insert(space, op.key, value),
                None => batch.remove(space, op.key),
            }
        }
        batch.commit()?;
        Ok(())
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.space(table).get(key)?.map(|value| value.to_vec()))
    }

    fn count(&self, table: Table) -> Result<u64> {
        Ok(self.space(table).len()? as u64)
    }

    fn delete_blobs(&mut self, prefix: &[u8]) -> Result<u64> {
        let mut ops = Vec::new();
        for guard in self.space(Table::Blob).prefix(prefix) {
            ops.push(Op { table: Table::Blob, key: guard.key()?.to_vec(), value: None });
        }
        let deleted = ops.len() as u64;
        self.commit(ops, true)?;
        Ok(deleted)
    }

    fn reclaim(&mut self) -> Result<()> {
        let blobs = self.space(Table::Blob);
        blobs.rotate_memtable_and_wait()?;
        blobs.major_compact()?;
        Ok(())
    }

    fn note(&self) -> String {
        let blobs = self.space(Table::Blob);
        format!(
            "journals={} tables={} l0={} blob_files={} stale_mb={} compactions={}",
            self.db.journal_count(),
            blobs.table_count(),
            blobs.l0_table_count(),
            blobs.blob_file_count(),
            blobs.fragmented_blob_bytes() >> 20,
            self.db.compactions_completed(),
        )
    }
}

// ---------------------------------------------------------------- files + fjall

/// Blobs are appended to numbered segment files, one write and one fdatasync
/// per group; fjall then records (segment, offset, length) with the state.
struct FilesStore {
    dir: PathBuf,
    meta: FjallStore,
    active: u32,
    tail: u64,
    open: HashMap<u32, File>,
    live: HashMap<u32, u64>,
    buffer: Vec<u8>,
    preallocate: bool,
}

fn pointer(segment: u32, offset: u64, len: u32) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(16);
    bytes.extend_from_slice(&segment.to_le_bytes());
    bytes.extend_from_slice(&offset.to_le_bytes());
    bytes.extend_from_slice(&len.to_le_bytes());
    bytes
}

fn parse_pointer(bytes: &[u8]) -> Result<(u32, u64, u32)> {
    if bytes.len() != 16 {
        bail!("a pointer of {} bytes", bytes.len());
    }
    Ok((
        u32::from_le_bytes(bytes[..4].try_into()?),
        u64::from_le_bytes(bytes[4..12].try_into()?),
        u32::from_le_bytes(bytes[12..].try_into()?),
    ))
}

impl FilesStore {
    fn open(dir: &Path, tuning: Tuning) -> Result<Self> {
        let meta = FjallStore::open(dir, tuning, false)?;
        let mut store = Self {
            dir: dir.join("segments"),
            meta,
            active: 0,
            tail: SEGMENT_BYTES,
            open: HashMap::new(),
            live: HashMap::new(),
            buffer: Vec::new(),
            preallocate: tuning.preallocate,
        };
        std::fs::create_dir_all(&store.dir)?;
        for entry in std::fs::read_dir(&store.dir)? {
            let entry = entry?;
            let number: u32 = entry.file_name().to_str().context("segment name")?.parse()?;
            let file = File::options().read(true).write(true).open(entry.path())?;
            store.active = store.active.max(number);
            store.open.insert(number, file);
        }
        for guard in store.meta.space(Table::Blob).iter() {
            let (segment, _, len) = parse_pointer(&guard.value()?)?;
            *store.live.entry(segment).or_default() += u64::from(len);
        }
        Ok(store)
    }

    fn append(&mut self, blobs: &[(usize, &[u8])]) -> Result<Vec<(usize, Vec<u8>)>> {
        if self.tail >= SEGMENT_BYTES {
            self.active += 1;
            self.tail = 0;
            let path = self.dir.join(self.active.to_string());
            let file = File::options().read(true).write(true).create_new(true).open(path)?;
            if self.preallocate {
                file.set_len(SEGMENT_BYTES)?;
                file.sync_all()?;
            }
            self.open.insert(self.active, file);
            File::open(&self.dir)?.sync_all()?;
        }
        let file = self.open.get(&self.active).context("active segment")?;
        let mut pointers = Vec::with_capacity(blobs.len());
        let start = self.tail;
        // Small blobs are gathered, big ones written from where they are.
        self.buffer.clear();
        let mut gathered_from = self.tail;
        for (position, blob) in blobs {
            pointers.push((*position, pointer(self.active, self.tail, blob.len() as u32)));
            if blob.len() < WRITE_DIRECTLY {
                self.buffer.extend_from_slice(blob);
            } else {
                file.write_all_at(&self.buffer, gathered_from)?;
                self.buffer.clear();
                file.write_all_at(blob, self.tail)?;
                gathered_from = self.tail + blob.len() as u64;
            }
            self.tail += blob.len() as u64;
        }
        file.write_all_at(&self.buffer, gathered_from)?;
        file.sync_data()?;
        *self.live.entry(self.active).or_default() += self.tail - start;
        Ok(pointers)
    }

    fn drop_segment(&mut self, segment: u32) -> Result<()> {
        self.open.remove(&segment);
        self.live.remove(&segment);
        std::fs::remove_file(self.dir.join(segment.to_string()))?;
        Ok(())
    }
}

impl Store for FilesStore {
    fn commit(&mut self, mut ops: Vec<Op>, durable: bool) -> Result<()> {
        let blobs: Vec<(usize, &[u8])> = ops
            .iter()
            .enumerate()
            .filter(|(_, op)| op.table == Table::Blob)
            .filter_map(|(position, op)| Some((position, op.value.as_deref()?)))
            .collect();
        if !blobs.is_empty() {
            for (position, pointer) in self.append(&blobs)? {
                ops[position].value = Some(pointer);
            }
        }
        self.meta.commit(ops, durable)
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let Some(value) = self.meta.get(table, key)? else { return Ok(None) };
        if table != Table::Blob {
            return Ok(Some(value));
        }
        let (segment, offset, len) = parse_pointer(&value)?;
        let mut blob = vec![0; len as usize];
        self.open.get(&segment).context("segment")?.read_exact_at(&mut blob, offset)?;
        Ok(Some(blob))
    }

    fn count(&self, table: Table) -> Result<u64> {
        self.meta.count(table)
    }

    fn delete_blobs(&mut self, prefix: &[u8]) -> Result<u64> {
        let mut ops = Vec::new();
        for guard in self.meta.space(Table::Blob).prefix(prefix) {
            let (key, value) = guard.into_inner()?;
            let (segment, _, len) = parse_pointer(&value)?;
            if let Some(live) = self.live.get_mut(&segment) {
                *live -= u64::from(len);
            }
            ops.push(Op { table: Table::Blob, key: key.to_vec(), value: None });
        }
        let deleted = ops.len() as u64;
        self.meta.commit(ops, true)?;
        let dead: Vec<u32> = self
            .live
            .iter()
            .filter(|&(&segment, &live)| live == 0 && segment != self.active)
            .map(|(&segment, _)| segment)
            .collect();
        for segment in dead {
            self.drop_segment(segment)?;
        }
        Ok(deleted)
    }

    /// Copies the live blobs out of segments that are less than 60 % live.
    fn reclaim(&mut self) -> Result<()> {
        let thin: Vec<u32> = self
            .live
            .iter()
            .filter(|&(&segment, &live)| segment != self.active && live < SEGMENT_BYTES * 6 / 10)
            .map(|(&segment, _)| segment)
            .collect();
        let mut moving = Vec::new();
        for guard in self.meta.space(Table::Blob).iter() {
            let (key, value) = guard.into_inner()?;
            if thin.contains(&parse_pointer(&value)?.0) {
                moving.push(key.to_vec());
            }
        }
        for keys in moving.chunks(64) {
            let mut ops = Vec::with_capacity(keys.len());
            for key in keys {
                let value = self.get(Table::Blob, key)?;
                ops.push(Op { table: Table::Blob, key: key.clone(), value });
            }
            self.commit(ops, true)?;
        }
        for segment in thin {
            self.drop_segment(segment)?;
        }
        Ok(())
    }

    fn note(&self) -> String {
        format!("segments={} {}", self.open.len(), self.meta.note())
    }
}

// ---------------------------------------------------------------- redb

type RedbTable = TableDefinition<'static, &'static [u8], &'static [u8]>;

fn redb_table(table: Table) -> RedbTable {
    TableDefinition::new(table.name())
}

struct RedbStore {
    db: redb::Database,
}

impl RedbStore {
    fn open(dir: &Path) -> Result<Self> {
        let db = redb::Builder::new().set_cache_size(CACHE_BYTES as usize).create(dir.join("store.redb"))?;
        let write = db.begin_write()?;
        for table in TABLES {
            write.open_table(redb_table(table))?;
        }
        write.commit()?;
        Ok(Self { db })
    }
}

impl Store for RedbStore {
    fn commit(&mut self, ops: Vec<Op>, durable: bool) -> Result<()> {
        let mut write = self.db.begin_write()?;
        write.set_durability(if durable { Durability::Immediate } else { Durability::None })?;
        for table in TABLES {
            let mut target = None;
            for op in ops.iter().filter(|op| op.table == table) {
                let target = match &mut target {
                    Some(target) => target,
                    None => target.insert(write.open_table(redb_table(table))?),
                };
                match &op.value {
                    Some(value) => drop(target.insert(op.key.as_slice(), value.as_slice())?),
                    None => drop(target.remove(op.key.as_slice())?),
                }
            }
        }
        write.commit()?;
        Ok(())
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let read = self.db.begin_read()?;
        let table = read.open_table(redb_table(table))?;
        Ok(table.get(key)?.map(|value| value.value().to_vec()))
    }

    fn count(&self, table: Table) -> Result<u64> {
        let read = self.db.begin_read()?;
        let table = read.open_table(redb_table(table))?;
        let mut count = 0;
        for entry in table.iter()? {
            entry?;
            count += 1;
        }
        Ok(count)
    }

    fn delete_blobs(&mut self, prefix: &[u8]) -> Result<u64> {
        let write = self.db.begin_write()?;
        let mut deleted = 0;
        {
            let mut table = write.open_table(redb_table(Table::Blob))?;
            let mut end = prefix.to_vec();
            *end.last_mut().context("empty prefix")? += 1;
            table.retain_in::<&[u8], _>(prefix..end.as_slice(), |_, _| {
                deleted += 1;
                false
            })?;
        }
        write.commit()?;
        Ok(deleted)
    }

    fn reclaim(&mut self) -> Result<()> {
        self.db.compact()?;
        Ok(())
    }
}

// ---------------------------------------------------------------- SQLite

struct SqliteStore {
    connection: rusqlite::Connection,
}

impl SqliteStore {
    fn open(dir: &Path) -> Result<Self> {
        let connection = rusqlite::Connection::open(dir.join("store.sqlite"))?;
        connection.execute_batch(&format!(
            "PRAGMA page_size = 16384;
             PRAGMA auto_vacuum = INCREMENTAL;
             PRAGMA journal_mode = WAL;
             PRAGMA synchronous = FULL;
             PRAGMA cache_size = -{};
             PRAGMA wal_autocheckpoint = 2048;
             CREATE TABLE IF NOT EXISTS blob (k BLOB NOT NULL UNIQUE, v BLOB NOT NULL);
             CREATE TABLE IF NOT EXISTS state (k BLOB PRIMARY KEY, v BLOB NOT NULL) WITHOUT ROWID;
             CREATE TABLE IF NOT EXISTS idx (k BLOB PRIMARY KEY, v BLOB NOT NULL) WITHOUT ROWID;
             CREATE TABLE IF NOT EXISTS summary (k BLOB PRIMARY KEY, v BLOB NOT NULL) WITHOUT ROWID;",
            CACHE_BYTES >> 10
        ))?;
        connection.set_prepared_statement_cache_capacity(32);
        Ok(Self { connection })
    }
}

impl Store for SqliteStore {
    fn commit(&mut self, ops: Vec<Op>, durable: bool) -> Result<()> {
        // FULL fsyncs the WAL on commit, NORMAL only hands it to the system.
        let level = if durable { "FULL" } else { "NORMAL" };
        self.connection.pragma_update(None, "synchronous", level)?;
        let transaction = self.connection.transaction()?;
        for op in &ops {
            let table = op.table.name();
            match &op.value {
                Some(value) => transaction
                    .prepare_cached(&format!("INSERT OR REPLACE INTO {table} (k, v) VALUES (?, ?)"))?
                    .execute((&op.key, value))?,
                None => transaction.prepare_cached(&format!("DELETE FROM {table} WHERE k = ?"))?.execute((&op.key,))?,
            };
        }
        transaction.commit()?;
        Ok(())
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let query = format!("SELECT v FROM {} WHERE k = ?", table.name());
        let mut statement = self.connection.prepare_cached(&query)?;
        let mut rows = statement.query((key,))?;
        Ok(match rows.next()? {
            Some(row) => Some(row.get(0)?),
            None => None,
        })
    }

    fn count(&self, table: Table) -> Result<u64> {
        let query = format!("SELECT count(*) FROM {}", table.name());
        Ok(self.connection.query_row(&query, (), |row| row.get::<_, i64>(0))? as u64)
    }

    fn delete_blobs(&mut self, prefix: &[u8]) -> Result<u64> {
        let mut end = prefix.to_vec();
        *end.last_mut().context("empty prefix")? += 1;
        self.connection.pragma_update(None, "synchronous", "FULL")?;
        let deleted = self.connection.execute("DELETE FROM blob WHERE k >= ? AND k < ?", (prefix, &end))?;
        Ok(deleted as u64)
    }

    fn reclaim(&mut self) -> Result<()> {
        // The pragma frees a page per step, so it must be stepped to its end.
        let mut vacuum = self.connection.prepare("PRAGMA incremental_vacuum")?;
        let mut rows = vacuum.query(())?;
        while rows.next()?.is_some() {}
        self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", (), |_| Ok(()))?;
        Ok(())
    }
}
