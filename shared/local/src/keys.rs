//! Keys and rows: how jobs, chunks and the rest lie in the engine's spaces.
//!
//! Keys are big-endian, so that they sort as their numbers do. Rows begin with a version byte; rows of things that grow new
//! fields are JSON, the chunk, of which there are many, is postcard.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sheaf_core::{Chunk, ChunkKey, ChunkSpec, ChunkState, ChunkTotals, Due, FunctionName, FunctionRef, JobId, WorkV1};
use sheaf_protocol::StoreError;

const VERSION: u8 = 1;
/// Chunks have checkpoints since their second version; the first is still read.
const CHUNK_VERSION: u8 = 2;
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
fn row(version: u8) -> Vec<u8> {
    let mut row = Vec::with_capacity(ROW_BYTES);
    row.push(version);
    row
}

pub(crate) fn encode_chunk(chunk: &Chunk) -> Vec<u8> {
    postcard::to_extend(chunk, row(CHUNK_VERSION)).expect("plain structs become postcard")
}

/// A chunk as the first version wrote it.
#[derive(Deserialize)]
struct ChunkV1 {
    spec: ChunkSpec,
    state: ChunkState,
    work: WorkV1,
    epoch: u32,
    rv: u64,
    due_ms: Due,
}

impl From<ChunkV1> for Chunk {
    fn from(ChunkV1 { spec, state, work, epoch, rv, due_ms }: ChunkV1) -> Self {
        Self { spec, state, work: work.into(), epoch, rv, due_ms }
    }
}

pub(crate) fn decode_chunk(row: &[u8]) -> Result<Chunk, StoreError> {
    let read = match row {
        [CHUNK_VERSION, rest @ ..] => postcard::from_bytes(rest),
        [VERSION, rest @ ..] => postcard::from_bytes::<ChunkV1>(rest).map(Chunk::from),
        _ => return Err(damaged("a chunk", "it was written by another version")),
    };
    read.map_err(|error| damaged("a chunk", error))
}

pub(crate) fn encode_json(value: &impl Serialize) -> Vec<u8> {
    let mut row = row(VERSION);
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What the first version wrote for a chunk of four tasks, claimed for the second time, with a segment and a tally.
    const FIRST: &str = "01266a6f625f30373037303730373037303730373037303730373037303730373037303730372f330764656661756c74040c\
        fd6ad1c2e792f4cb1c7af9be82806a548fffa613a25fed9338903ee8d793b86c64010101a0f7360501020577726b5f624d46f6ea01000401\
        0101014d005a48604cfa203c785d8fa2dfb6389c72223011766efdcf837d63340af718ab6932010a0a01000101020101010577726b5f610a\
        32010102059cd503";

    #[test]
    fn chunks_of_the_first_version_are_read() {
        let byte = |at: usize| u8::from_str_radix(&FIRST[at..at + 2], 16).expect("hexadecimal digits");
        let row: Vec<u8> = (0..FIRST.len()).step_by(2).map(byte).collect();
        let chunk = decode_chunk(&row).expect("it is read");
        assert_eq!(
            (chunk.spec.key.number, chunk.spec.tasks, chunk.epoch, chunk.rv, chunk.due_ms),
            (3, 4, 2, 5, 60_060)
        );
        assert_eq!((chunk.work.segments.len(), chunk.work.tallies[&1].attempts), (1, 2));
        let past = &chunk.work.past[0];
        assert_eq!((past.epoch, past.since_ms, past.until_ms, past.checkpointed_at_ms), (1, 10, 50, None));
        assert_eq!(chunk.work.checkpoints.len(), 0);
        let again = encode_chunk(&chunk);
        assert_eq!((again[0], decode_chunk(&again).expect("what was written is read")), (CHUNK_VERSION, chunk));
        assert!(decode_chunk(&[&[CHUNK_VERSION + 1], &again[1..]].concat()).is_err());
    }
}
