//! The records of a journal, as bytes.
//!
//! ```text
//! file      "SHJN", version (1), 3 × 0, then records
//! record    kind: u8, bytes of the body: u32, the body, CRC-32 (IEEE) of all before it in the record
//! 1 job     JSON of [`Opening`]
//! 2 created created_at_ms: u64
//! 3 chunk   number: u32, tasks: u32
//! 4 acked   number: u32
//! 5 sealing chunks: u32, tasks: u64
//! 6 done    number: u32, tasks: u32      the reader has dealt with so many tasks of the chunk, from its first
//! ```
//! Integers are little-endian. A reader stops at the first record that is torn or makes no sense, and cuts it off.

use std::io::{self, Read};

use serde::{Deserialize, Serialize};
use sheaf_api::wire::CreateJob;
use sheaf_core::Seal;

pub(super) const MAGIC: [u8; 8] = *b"SHJN\x01\0\0\0";
const HEAD_BYTES: usize = 5;
const CRC_BYTES: usize = 4;
/// Options with a full set of labels and functions are well below.
const BODY_BYTES_MAX: usize = 1024 * 1024;

/// What a run begins with, and a resumed one repeats.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Opening {
    /// The job, as it was or will be created.
    pub(crate) request: CreateJob,
    /// Whether packs are compressed: the digest of a chunk depends on it.
    pub(crate) compress: bool,
}

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Record {
    Job(Box<Opening>),
    Created { at_ms: u64 },
    Chunk { number: u32, tasks: u32 },
    Acknowledged { number: u32 },
    Sealing(Seal),
    Delivered { number: u32, tasks: u32 },
}

impl Record {
    /// Appends the record to a buffer.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let start = out.len();
        let kind = match self {
            Self::Job(_) => 1,
            Self::Created { .. } => 2,
            Self::Chunk { .. } => 3,
            Self::Acknowledged { .. } => 4,
            Self::Sealing(_) => 5,
            Self::Delivered { .. } => 6,
        };
        out.extend_from_slice(&[kind, 0, 0, 0, 0]);
        match self {
            Self::Job(opening) => serde_json::to_writer(&mut *out, opening).expect("plain structs become JSON"),
            Self::Created { at_ms } => out.extend_from_slice(&at_ms.to_le_bytes()),
            Self::Acknowledged { number } => out.extend_from_slice(&number.to_le_bytes()),
            Self::Chunk { number, tasks } | Self::Delivered { number, tasks } => {
                out.extend_from_slice(&number.to_le_bytes());
                out.extend_from_slice(&tasks.to_le_bytes());
            }
            Self::Sealing(seal) => {
                out.extend_from_slice(&seal.chunks.to_le_bytes());
                out.extend_from_slice(&seal.tasks.to_le_bytes());
            }
        }
        let body_bytes = (out.len() - start - HEAD_BYTES) as u32;
        out[start + 1..start + HEAD_BYTES].copy_from_slice(&body_bytes.to_le_bytes());
        let crc = crc32fast::hash(&out[start..]);
        out.extend_from_slice(&crc.to_le_bytes());
    }

    /// Reads the next record into `buffer`; `None` at the end, and where what follows is no record. Gives its size, too.
    pub(super) fn read(from: &mut impl Read, buffer: &mut Vec<u8>) -> io::Result<Option<(Self, u64)>> {
        buffer.resize(HEAD_BYTES, 0);
        if !fill(from, buffer)? {
            return Ok(None);
        }
        let body_bytes = u32::from_le_bytes([buffer[1], buffer[2], buffer[3], buffer[4]]) as usize;
        if body_bytes > BODY_BYTES_MAX {
            return Ok(None);
        }
        let end = HEAD_BYTES + body_bytes;
        buffer.resize(end + CRC_BYTES, 0);
        if !fill(from, &mut buffer[HEAD_BYTES..])? || crc32fast::hash(&buffer[..end]).to_le_bytes() != buffer[end..] {
            return Ok(None);
        }
        Ok(Self::parse(buffer[0], &buffer[HEAD_BYTES..end]).map(|record| (record, buffer.len() as u64)))
    }

    fn parse(kind: u8, body: &[u8]) -> Option<Self> {
        let u32_at = |at: usize| Some(u32::from_le_bytes(body.get(at..at + 4)?.try_into().ok()?));
        let u64_at = |at: usize| Some(u64::from_le_bytes(body.get(at..at + 8)?.try_into().ok()?));
        Some(match (kind, body.len()) {
            (1, _) => Self::Job(serde_json::from_slice(body).ok()?),
            (2, 8) => Self::Created { at_ms: u64_at(0)? },
            (3, 8) => Self::Chunk { number: u32_at(0)?, tasks: u32_at(4)? },
            (4, 4) => Self::Acknowledged { number: u32_at(0)? },
            (5, 12) => Self::Sealing(Seal { chunks: u32_at(0)?, tasks: u64_at(4)? }),
            (6, 8) => Self::Delivered { number: u32_at(0)?, tasks: u32_at(4)? },
            _ => return None,
        })
    }
}

/// Reads as many bytes as the buffer takes; `false` if there are fewer.
pub(super) fn fill(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match from.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written by this version; every later one must read it.
    #[test]
    fn the_bytes_of_a_chunk_record() {
        let mut bytes = Vec::new();
        Record::Chunk { number: 7, tasks: 1_024 }.write(&mut bytes);
        assert_eq!(bytes, [3, 8, 0, 0, 0, 7, 0, 0, 0, 0, 4, 0, 0, 119, 253, 126, 185]);
    }

    #[test]
    fn what_is_written_is_read() {
        let request = CreateJob::new(sheaf_core::JobId::from_bytes([7; 16]), vec!["price".into()]);
        let records = [
            Record::Job(Box::new(Opening { request, compress: true })),
            Record::Created { at_ms: 1 << 40 },
            Record::Chunk { number: 0, tasks: 3 },
            Record::Acknowledged { number: 0 },
            Record::Delivered { number: 0, tasks: 2 },
            Record::Sealing(Seal { chunks: 1, tasks: 3 }),
        ];
        let mut bytes = Vec::new();
        records.iter().for_each(|record| record.write(&mut bytes));
        let (mut from, mut buffer) = (bytes.as_slice(), Vec::new());
        for record in records {
            assert_eq!(Record::read(&mut from, &mut buffer).expect("memory").expect("a record").0, record);
        }
        assert!(Record::read(&mut from, &mut buffer).expect("memory").is_none());
    }
}
