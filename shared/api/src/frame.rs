//! What the pack and segment formats share: the frame around a body.
//!
//! ```text
//! offset size
//! 0      4    magic
//! 4      1    version (1)
//! 5      1    flags
//! 6      2    reserved, 0
//! 8      4    entries
//! 12     4    bytes of the body when decompressed
//! 16     n    the body, as it is or as one zstd frame
//! 16+n   4    CRC-32 (IEEE) of all before it
//! ```
//! Integers are little-endian. A reader checks the magic, version, flags, sizes and the CRC before it looks at the body,
//! and allocates at most the declared size, itself bounded by [`limits::PACK_BYTES_MAX`] and by what the compressed bytes
//! can possibly unfold to.

use bytes::{BufMut, Bytes, BytesMut};
use sheaf_core::limits;

/// Flag of every format: the body is one zstd frame.
pub(crate) const FLAG_ZSTD: u8 = 1;
const HEADER_BYTES: usize = 16;
const BODY_BYTES_AT: usize = 12;
const CRC_BYTES: usize = 4;
const VERSION: u8 = 1;
/// Bodies below this stay uncompressed: the frame would cost more than it saves.
const ZSTD_FLOOR_BYTES: usize = 512;
/// zstd's fastest regular level; payloads are mostly small JSON, where higher ones gain little.
const ZSTD_LEVEL: i32 = 1;
/// No zstd frame unfolds to more per byte. Source: RFC 8878, section 3.1.1.2: the smallest block takes 4 bytes and gives at
/// most 128 KiB.
const ZSTD_RATIO_MAX: usize = 32 * 1024;

/// Bytes that are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// The magic is another format's.
    #[error("not a {expected}: the first bytes are {found:02x?}")]
    Magic {
        /// The format that was asked for.
        expected: &'static str,
        /// What stands in place of the magic.
        found: [u8; 4],
    },
    /// A later version, or flags that this version does not know.
    #[error("{format} of version {version} with flags {flags:#04x}: this build reads version 1 and its flags")]
    Version {
        /// The format.
        format: &'static str,
        /// Its version byte.
        version: u8,
        /// Its flags byte.
        flags: u8,
    },
    /// The checksum does not match: torn or changed on the way.
    #[error("{format} is damaged: the checksum is {found:#010x}, {expected:#010x} was written")]
    Checksum {
        /// The format.
        format: &'static str,
        /// What was written.
        expected: u32,
        /// What the bytes give.
        found: u32,
    },
    /// A size or number is beyond its limit.
    #[error("{what}: {found}, the limit is {limit}")]
    Limit {
        /// Which.
        what: &'static str,
        /// Its value.
        found: u64,
        /// The most it may be.
        limit: u64,
    },
    /// The parts do not fit together.
    #[error("{format} is malformed: {reason}")]
    Malformed {
        /// The format.
        format: &'static str,
        /// What does not fit.
        reason: &'static str,
    },
}

pub(crate) fn check_limit(what: &'static str, found: usize, limit: usize) -> Result<(), FormatError> {
    if found <= limit { Ok(()) } else { Err(FormatError::Limit { what, found: found as u64, limit: limit as u64 }) }
}

/// A format's magic, name and the flags it knows.
pub(crate) struct Format {
    pub(crate) magic: [u8; 4],
    pub(crate) name: &'static str,
    pub(crate) flags_known: u8,
}

impl Format {
    pub(crate) fn malformed(&self, reason: &'static str) -> FormatError {
        FormatError::Malformed { format: self.name, reason }
    }

    /// Frames a body given as parts, compressing it if asked and worth it.
    pub(crate) fn encode(&self, flags: u8, entries: u32, parts: &[&[u8]], compress: bool) -> Bytes {
        let body_bytes: usize = parts.iter().map(|part| part.len()).sum();
        let mut out = BytesMut::with_capacity(HEADER_BYTES + body_bytes + CRC_BYTES);
        out.put_slice(&self.magic);
        out.put_slice(&[VERSION, flags, 0, 0]);
        out.put_u32_le(entries);
        out.put_u32_le(u32::try_from(body_bytes).expect("builders refuse bodies over the limit, which is below 4 GiB"));
        let zstd = (compress && body_bytes >= ZSTD_FLOOR_BYTES)
            .then(|| zstd::bulk::compress(&parts.concat(), ZSTD_LEVEL).ok())
            .flatten()
            .filter(|zstd| zstd.len() < body_bytes);
        match zstd {
            Some(zstd) => {
                out[5] |= FLAG_ZSTD;
                out.put_slice(&zstd);
            }
            None => parts.iter().for_each(|part| out.put_slice(part)),
        }
        let crc = crc32fast::hash(&out);
        out.put_u32_le(crc);
        out.freeze()
    }

    /// Checks a frame and gives its flags, entries and body; the body is a slice of `bytes` unless it was compressed.
    pub(crate) fn decode(&self, bytes: &Bytes) -> Result<(u8, u32, Bytes), FormatError> {
        if bytes.len() < HEADER_BYTES + CRC_BYTES {
            return Err(self.malformed("shorter than its frame"));
        }
        let found: [u8; 4] = [bytes[0], bytes[1], bytes[2], bytes[3]];
        if found != self.magic {
            return Err(FormatError::Magic { expected: self.name, found });
        }
        let (version, flags) = (bytes[4], bytes[5]);
        if version != VERSION || flags & !(self.flags_known | FLAG_ZSTD) != 0 {
            return Err(FormatError::Version { format: self.name, version, flags });
        }
        if bytes[6..8] != [0, 0] {
            return Err(self.malformed("its reserved bytes are not 0"));
        }
        let entries = u32_at(bytes, 8);
        let body_bytes = u32_at(bytes, BODY_BYTES_AT) as usize;
        check_limit("body bytes", body_bytes, limits::PACK_BYTES_MAX)?;
        check_limit("entries", entries as usize, limits::ORDERED_TASKS_MAX as usize)?;
        let end = bytes.len() - CRC_BYTES;
        let (expected, found) = (u32_at(bytes, end), crc32fast::hash(&bytes[..end]));
        if expected != found {
            return Err(FormatError::Checksum { format: self.name, expected, found });
        }
        let stored = bytes.slice(HEADER_BYTES..end);
        let body = if flags & FLAG_ZSTD == 0 { stored } else { self.decompress(&stored, body_bytes)? };
        if body.len() != body_bytes {
            return Err(self.malformed("the body is not as long as declared"));
        }
        Ok((flags, entries, body))
    }

    fn decompress(&self, stored: &[u8], body_bytes: usize) -> Result<Bytes, FormatError> {
        if zstd::zstd_safe::find_frame_compressed_size(stored) != Ok(stored.len()) {
            return Err(self.malformed("the body is not one zstd frame"));
        }
        if body_bytes > stored.len().saturating_mul(ZSTD_RATIO_MAX) {
            return Err(self.malformed("its zstd frame is too short for the body declared"));
        }
        let body = zstd::bulk::decompress(stored, body_bytes);
        Ok(body.map_err(|_| self.malformed("its zstd frame cannot be read"))?.into())
    }
}

/// What a frame says that its body takes when decompressed: a bound on what reading it allocates. 0 for what is no frame.
pub(crate) fn declared_bytes(bytes: &[u8]) -> usize {
    if bytes.len() < HEADER_BYTES { 0 } else { u32_at(bytes, BODY_BYTES_AT) as usize }
}

/// The little-endian `u32` at an offset that the caller has checked.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    // One bounds check, not one for each byte.
    u32::from_le_bytes(*bytes[at..].first_chunk().expect("the caller has checked that they are there"))
}

/// A table of `count` non-decreasing end offsets into the bytes that follow it: where each of `count` items lies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ends {
    pub(crate) table: usize,
    pub(crate) count: usize,
    pub(crate) bytes: usize,
}

impl Ends {
    /// Reads and checks a table at `at`; gives it and the offset behind its items.
    pub(crate) fn read(body: &[u8], at: usize, count: usize) -> Option<(Self, usize)> {
        let bytes_at = at.checked_add(count.checked_mul(4)?)?;
        if bytes_at > body.len() {
            return None;
        }
        let mut before = 0;
        for entry in 0..count {
            let end = u32_at(body, at + 4 * entry);
            if end < before {
                return None;
            }
            before = end;
        }
        let end = bytes_at.checked_add(before as usize)?;
        (end <= body.len()).then_some((Self { table: at, count, bytes: bytes_at }, end))
    }

    /// Where item `index` lies in the body.
    ///
    /// # Panics
    /// If there is no such item.
    pub(crate) fn range(&self, body: &[u8], index: usize) -> std::ops::Range<usize> {
        assert!(index < self.count, "entry {index} of {}", self.count);
        let end = |i: usize| u32_at(body, self.table + 4 * i) as usize;
        let start = if index == 0 { 0 } else { end(index - 1) };
        self.bytes + start..self.bytes + end(index)
    }
}
