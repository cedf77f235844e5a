//! Frames as the tests take them apart: golden files, and a checksum that fits again after a change.

#![allow(dead_code, reason = "every test crate uses its own part of it")]

use bytes::Bytes;
use sheaf_api::{Pack, Segment, stream};

/// A file under `tests/golden`: hexadecimal digits, text between backticks, and remarks behind `#`.
pub(crate) fn golden(name: &str) -> Bytes {
    let path = format!("{}/tests/golden/{name}.hex", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    text.lines().flat_map(|line| line_bytes(line.split('#').next().unwrap_or_default())).collect()
}

fn line_bytes(line: &str) -> Vec<u8> {
    let digits = |text: &str| -> Vec<u8> {
        let byte = |hex: &str| u8::from_str_radix(hex, 16).unwrap_or_else(|_| panic!("{hex:?} in {line:?}"));
        text.split_whitespace().map(byte).collect()
    };
    let part = |(at, text): (usize, &str)| if at % 2 == 0 { digits(text) } else { text.as_bytes().to_vec() };
    line.split('`').enumerate().flat_map(part).collect()
}

/// A changed frame with the checksum that it would have if it had been written so: what a hostile writer sends.
pub(crate) fn resealed(frame: &[u8]) -> Bytes {
    let mut frame = frame.to_vec();
    if let Some(end) = frame.len().checked_sub(4) {
        let crc = crc32fast::hash(&frame[..end]);
        frame[end..].copy_from_slice(&crc.to_le_bytes());
    }
    frame.into()
}

/// A frame around a body as it stands, with a checksum that fits.
pub(crate) fn framed(magic: &[u8; 4], flags: u8, entries: u32, body_bytes: u32, body: &[u8]) -> Bytes {
    let header = [&magic[..], &[1, flags, 0, 0], &entries.to_le_bytes(), &body_bytes.to_le_bytes()].concat();
    resealed(&[&header[..], body, &[0; 4]].concat())
}

/// Reads everything that a pack offers. Gives the bytes read, so that nothing is left out as unused.
pub(crate) fn read_pack(pack: &Pack) -> usize {
    let _ = format!("{pack:?} {}", pack.digest());
    (0..pack.tasks())
        .map(|task| {
            assert_eq!(pack.payload(task), &pack.payload_bytes(task)[..]);
            pack.payload(task).len() + pack.key(task).len() + usize::from(pack.function(task))
        })
        .sum()
}

/// Reads everything that a segment offers.
pub(crate) fn read_segment(segment: &Segment) -> usize {
    let _ = format!("{segment:?}");
    let entries: Vec<_> = segment.entries().collect();
    for (position, entry) in (0..).zip(&entries) {
        assert_eq!(segment.entry(position), *entry);
        assert_eq!(segment.find(entry.task), Some(*entry));
        assert_eq!(entry.answer, &segment.answer_bytes(position)[..]);
        let _ = entry.failure();
    }
    assert_eq!(segment.find(u32::MAX), None);
    entries.iter().map(|entry| entry.answer.len()).sum()
}

/// Reads bytes as everything they could claim to be.
pub(crate) fn read_as_all(bytes: &Bytes) {
    if let Ok(pack) = Pack::parse(bytes.clone()) {
        read_pack(&pack);
    }
    if let Ok(segment) = Segment::parse(bytes.clone()) {
        read_segment(&segment);
    }
    for chunk in stream::decode_submission(bytes.clone()).unwrap_or_default() {
        read_pack(&chunk.pack);
    }
    let _ = stream::decode_results(bytes.clone());
    let _ = stream::decode_function(bytes.clone());
}

/// Whether a slice lies in the memory of another: it was not copied.
pub(crate) fn lies_in(part: &[u8], whole: &[u8]) -> bool {
    let (part, whole) = (part.as_ptr_range(), whole.as_ptr_range());
    whole.start <= part.start && part.end <= whole.end
}
