//! Keys and rows: how jobs, chunks and the rest lie in the engine's spaces.
//!
//! Keys are big-endian, so that they sort as their numbers do. Rows begin with a version byte; rows of things that grow new
//! fields are JSON, the chunk, of which there are many, is postcard.

use serde::{Serialize, de::DeserializeOwned};
use sheaf_core::{Chunk, ChunkKey, ChunkTotals, Due, FunctionName, FunctionRef, JobId};
use sheaf_protocol::StoreError;

const VERSION: u8 = 1;
/// What a new row has room for.
const ROW_BYTES: usize = 256;

/// What a row of [`super::engine::Space::Things`] is, by the first byte of its key.
#[derive(Debug, Clone, Copy)]
#[repr(u8)]
pub(crate) enum Thing {
    /// A job, by id.
    Job = b'j',
    /// Jobs by time of creation and id.
    Created = b'c',
    /// Jobs that are not over, by id.
    Alive = b'a',
    /// A version of a function, by reference.
    Function = b'f',
    /// The newest version of a function, by name.
    Newest = b'n',
    /// A function's estimate, by reference.
    Estimate = b'e',
}

impl Thing {
    pub(crate) fn key(self, rest: &[u8]) -> Vec<u8> {
        [&[self as u8], rest].concat()
    }
}

pub(crate) fn job(id: JobId) -> Vec<u8> {
    Thing::Job.key(id.as_bytes())
}

pub(crate) fn alive(id: JobId) -> Vec<u8> {
    Thing::Alive.key(id.as_bytes())
}

pub(crate) fn created(at_ms: u64, id: JobId) -> Vec<u8> {
    Thing::Created.key(&[&at_ms.to_be_bytes()[..], id.as_bytes()].concat())
}

pub(crate) fn function(reference: &FunctionRef) -> Vec<u8> {
    Thing::Function.key(reference.to_string().as_bytes())
}

pub(crate) fn newest(name: &FunctionName) -> Vec<u8> {
    Thing::Newest.key(name.as_str().as_bytes())
}

pub(crate) fn estimate(reference: &FunctionRef) -> Vec<u8> {
    Thing::Estimate.key(reference.to_string().as_bytes())
}

pub(crate) fn chunk(key: ChunkKey) -> Vec<u8> {
    [&key.job.as_bytes()[..], &key.number.to_be_bytes()].concat()
}

pub(crate) fn parse_chunk(key: &[u8]) -> Option<ChunkKey> {
    let (job, number) = key.split_first_chunk::<16>()?;
    Some(ChunkKey { job: JobId::from_bytes(*job), number: u32::from_be_bytes(number.try_into().ok()?) })
}

pub(crate) fn due(due_ms: Due, key: ChunkKey) -> Vec<u8> {
    [&due_ms.to_be_bytes()[..], &chunk(key)].concat()
}

pub(crate) fn parse_due(key: &[u8]) -> Option<(Due, ChunkKey)> {
    let (due_ms, rest) = key.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*due_ms), parse_chunk(rest)?))
}

pub(crate) fn event(job: JobId, number: u64) -> Vec<u8> {
    [&job.as_bytes()[..], &number.to_be_bytes()].concat()
}

/// What a chunk adds to a summary: its tasks, and once it has ended their outcomes.
pub(crate) fn encode_sum(tasks: u32, ended: Option<ChunkTotals>) -> Vec<u8> {
    let mut row = vec![VERSION];
    row.extend_from_slice(&tasks.to_le_bytes());
    if let Some(ChunkTotals { succeeded, failed, cancelled, expired, quarantined }) = ended {
        for count in [succeeded, failed, cancelled, expired, quarantined] {
            row.extend_from_slice(&count.to_le_bytes());
        }
    }
    row
}

pub(crate) fn decode_sum(row: &[u8]) -> Option<(u32, Option<ChunkTotals>)> {
    let (&VERSION, counts) = row.split_first()? else { return None };
    let counts: Vec<u32> = counts.chunks_exact(4).map(|n| u32::from_le_bytes([n[0], n[1], n[2], n[3]])).collect();
    match *counts.as_slice() {
        [tasks] => Some((tasks, None)),
        [tasks, succeeded, failed, cancelled, expired, quarantined] => {
            Some((tasks, Some(ChunkTotals { succeeded, failed, cancelled, expired, quarantined })))
        }
        _ => None,
    }
}

fn damaged(object: impl ToString, detail: impl ToString) -> StoreError {
    StoreError::Damaged { object: object.to_string(), detail: detail.to_string() }
}

/// A row with nothing but its version, and room for what most rows hold: one grown from a byte is allocated seven times.
fn row() -> Vec<u8> {
    let mut row = Vec::with_capacity(ROW_BYTES);
    row.push(VERSION);
    row
}

pub(crate) fn encode_chunk(chunk: &Chunk) -> Vec<u8> {
    postcard::to_extend(chunk, row()).expect("plain structs become postcard")
}

pub(crate) fn decode_chunk(row: &[u8]) -> Result<Chunk, StoreError> {
    match row {
        [VERSION, rest @ ..] => postcard::from_bytes(rest).map_err(|error| damaged("a chunk", error)),
        _ => Err(damaged("a chunk", "it was written by another version")),
    }
}

pub(crate) fn encode_json(value: &impl Serialize) -> Vec<u8> {
    let mut row = row();
    serde_json::to_writer(&mut row, value).expect("plain structs become JSON");
    row
}

pub(crate) fn decode_json<T: DeserializeOwned>(row: &[u8], object: &'static str) -> Result<T, StoreError> {
    match row {
        [VERSION, rest @ ..] => serde_json::from_slice(rest).map_err(|error| damaged(object, error)),
        _ => Err(damaged(object, "it was written by another version")),
    }
}

pub(crate) fn encode_keys(keys: &[ChunkKey]) -> Vec<u8> {
    let mut row = vec![VERSION];
    keys.iter().for_each(|key| row.extend_from_slice(&chunk(*key)));
    row
}

pub(crate) fn decode_keys(row: &[u8]) -> Result<Vec<ChunkKey>, StoreError> {
    match row {
        [VERSION, rest @ ..] => Ok(rest.chunks_exact(20).filter_map(parse_chunk).collect()),
        _ => Err(damaged("the feed", "it was written by another version")),
    }
}
