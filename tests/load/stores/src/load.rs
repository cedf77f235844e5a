//! The load: what the grid writes and reads for each chunk, and the meters
//! read around it.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use crate::store::{Op, Store, Table};

/// Jobs that run at the same time, so that the blobs of one lie between those of others.
pub const JOBS: u64 = 8;

const PAYLOAD: u8 = b'p';
const RESULT: u8 = b'r';

#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub chunks: u64,
    pub payload: usize,
    pub result: usize,
    pub group: u64,
}

impl Shape {
    /// How many chunks lie between submission, lease, completion and read-out.
    fn lag(&self) -> u64 {
        (self.chunks / 16).max(self.group)
    }
}

/// Incompressible bytes, cut differently for every chunk and stamped with its number.
pub struct Bytes(Vec<u8>);

impl Bytes {
    pub fn new() -> Self {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut pool = Vec::with_capacity(8 << 20);
        while pool.len() < 8 << 20 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            pool.extend_from_slice(&state.to_le_bytes());
        }
        Self(pool)
    }

    fn cut(&self, chunk: u64, salt: u64, len: usize) -> Vec<u8> {
        let span = (self.0.len() - len) as u64;
        let start = (chunk.wrapping_mul(0x9e37_79b9).wrapping_add(salt) % span) as usize;
        let mut bytes = self.0[start..start + len].to_vec();
        let stamp = chunk.to_be_bytes();
        let stamped = stamp.len().min(len);
        bytes[..stamped].copy_from_slice(&stamp[..stamped]);
        bytes
    }
}

pub fn job_prefix(job: u64) -> Vec<u8> {
    let mut key = vec![0x5a; 15];
    key.push(job as u8);
    key
}

fn key(chunk: u64, kind: u8, len: usize) -> Vec<u8> {
    let mut key = job_prefix(chunk % JOBS);
    key.push(kind);
    key.extend_from_slice(&chunk.to_be_bytes());
    key.resize(len, 0);
    key
}

fn put(table: Table, key: Vec<u8>, value: Vec<u8>) -> Op {
    Op { table, key, value: Some(value) }
}

fn delete(table: Table, key: Vec<u8>) -> Op {
    Op { table, key, value: None }
}

fn submit(chunk: u64, shape: &Shape, bytes: &Bytes, ops: &mut Vec<Op>) {
    ops.push(put(Table::Blob, key(chunk, PAYLOAD, 40), bytes.cut(chunk, 1, shape.payload)));
    ops.push(put(Table::State, key(chunk, b's', 26), bytes.cut(chunk, 2, 200)));
    ops.push(put(Table::Index, key(chunk, b'Q', 32), bytes.cut(chunk, 3, 8)));
}

fn lease(chunk: u64, bytes: &Bytes, ops: &mut Vec<Op>) {
    ops.push(put(Table::State, key(chunk, b's', 26), bytes.cut(chunk, 4, 200)));
    ops.push(delete(Table::Index, key(chunk, b'Q', 32)));
    ops.push(put(Table::Index, key(chunk, b'R', 32), bytes.cut(chunk, 5, 8)));
}

fn complete(chunk: u64, shape: &Shape, bytes: &Bytes, ops: &mut Vec<Op>) {
    ops.push(put(Table::Blob, key(chunk, RESULT, 40), bytes.cut(chunk, 6, shape.result)));
    ops.push(put(Table::State, key(chunk, b's', 26), bytes.cut(chunk, 7, 200)));
    ops.push(delete(Table::Index, key(chunk, b'R', 32)));
    ops.push(put(Table::Summary, key(chunk, b'd', 26), bytes.cut(chunk, 8, 60)));
}

fn read_blob(store: &dyn Store, chunk: u64, kind: u8, len: usize) -> Result<()> {
    let blob = store.get(Table::Blob, &key(chunk, kind, 40))?;
    let blob = blob.with_context(|| format!("blob {} of chunk {chunk} is gone", kind as char))?;
    ensure!(blob.len() == len, "blob of chunk {chunk} has {} bytes", blob.len());
    let stamp = chunk.to_be_bytes();
    ensure!(blob[..8] == stamp, "blob of chunk {chunk} has foreign content");
    Ok(())
}

/// Figures of one run.
pub struct Outcome {
    pub seconds: f64,
    pub commits: Vec<Duration>,
    pub cpu_seconds: f64,
    pub written_mb: u64,
    pub peak_rss_mb: u64,
}

/// Runs the whole load. At every step one group is submitted, an earlier one
/// leased (its payloads read), an earlier one completed and the results of a
/// still earlier one read, so that all kinds of request are always in flight.
pub fn run(store: &mut dyn Store, shape: &Shape) -> Result<Outcome> {
    let bytes = Bytes::new();
    let lag = shape.lag();
    let mut commits = Vec::new();
    let cpu_before = cpu_seconds()?;
    let written_before = proc_field("/proc/self/io", "write_bytes:")?;
    let start = Instant::now();
    let mut ops = Vec::new();
    let mut at = 0;
    while at < shape.chunks + 3 * lag {
        let slice = |behind: u64| {
            let from = at.saturating_sub(behind).min(shape.chunks);
            let to = (at + shape.group).saturating_sub(behind).min(shape.chunks);
            from..to
        };
        for chunk in slice(0) {
            submit(chunk, shape, &bytes, &mut ops);
        }
        timed_commit(store, &mut ops, &mut commits)?;
        for chunk in slice(lag) {
            lease(chunk, &bytes, &mut ops);
        }
        if !ops.is_empty() {
            store.commit(std::mem::take(&mut ops), false)?;
        }
        for chunk in slice(lag) {
            read_blob(store, chunk, PAYLOAD, shape.payload)?;
        }
        for chunk in slice(2 * lag) {
            complete(chunk, shape, &bytes, &mut ops);
        }
        timed_commit(store, &mut ops, &mut commits)?;
        for chunk in slice(3 * lag) {
            read_blob(store, chunk, RESULT, shape.result)?;
        }
        at += shape.group;
    }
    commits.sort_unstable();
    Ok(Outcome {
        seconds: start.elapsed().as_secs_f64(),
        commits,
        cpu_seconds: cpu_seconds()? - cpu_before,
        written_mb: (proc_field("/proc/self/io", "write_bytes:")? - written_before) >> 20,
        peak_rss_mb: proc_field("/proc/self/status", "VmHWM:")? >> 10,
    })
}

fn timed_commit(store: &mut dyn Store, ops: &mut Vec<Op>, times: &mut Vec<Duration>) -> Result<()> {
    if ops.is_empty() {
        return Ok(());
    }
    let start = Instant::now();
    store.commit(std::mem::take(ops), true)?;
    times.push(start.elapsed());
    Ok(())
}

/// After a reopen: every record is there in its last state, every 16th blob is whole.
pub fn verify(store: &dyn Store, shape: &Shape) -> Result<()> {
    let bytes = Bytes::new();
    ensure!(store.count(Table::Index)? == 0, "index records are left over");
    ensure!(store.count(Table::State)? == shape.chunks, "state records are missing");
    ensure!(store.count(Table::Summary)? == shape.chunks, "summary records are missing");
    for chunk in 0..shape.chunks {
        let state = store.get(Table::State, &key(chunk, b's', 26))?;
        ensure!(state == Some(bytes.cut(chunk, 7, 200)), "state of chunk {chunk} is old");
        if chunk % 16 == 0 {
            read_blob(store, chunk, PAYLOAD, shape.payload)?;
            read_blob(store, chunk, RESULT, shape.result)?;
        }
    }
    Ok(())
}

/// User and system time of this process; the kernel counts in hundredths.
fn cpu_seconds() -> Result<f64> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let rest = stat.rsplit(')').next().context("stat")?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    Ok(ticks as f64 / 100.0)
}

pub fn proc_field(file: &str, name: &str) -> Result<u64> {
    let text = fs::read_to_string(file)?;
    let line = text.lines().find(|line| line.starts_with(name)).context("no such field")?;
    Ok(line.split_whitespace().nth(1).context("empty field")?.parse()?)
}

/// Bytes really allocated below `path`, so that preallocated holes do not count.
pub fn disk_bytes(path: &Path) -> Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let mut total = 0;
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        // A file may vanish between the listing and this look.
        let Ok(metadata) = entry.metadata() else { continue };
        total += if metadata.is_dir() { disk_bytes(&entry.path())? } else { metadata.blocks() * 512 };
    }
    Ok(total)
}
