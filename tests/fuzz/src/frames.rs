//! Packs and segments out of what a fuzzer writes.

use bytes::Bytes;

const HEADER_BYTES: usize = 16;
const CRC_BYTES: usize = 4;
const FLAG_ZSTD: u8 = 1;

/// A frame of the format with this magic. Input that begins with the magic is a frame as it stands, but for its checksum.
/// Any other is `flags: u8, entries: u16, body`, and the frame around that is sound: the body is compressed if the flags
/// say so, so that what is inside gets tried too.
pub fn sealed(magic: &[u8; 4], input: &[u8]) -> Bytes {
    if input.starts_with(magic) {
        return resealed(input);
    }
    let [flags, low, high, body @ ..] = input else { return Bytes::copy_from_slice(input) };
    framed(magic, *flags, u16::from_le_bytes([*low, *high]).into(), body)
}

/// The frame with a checksum that fits.
pub fn resealed(frame: &[u8]) -> Bytes {
    let mut frame = frame.to_vec();
    if let Some(end) = frame.len().checked_sub(CRC_BYTES) {
        let crc = crc32fast::hash(&frame[..end]);
        frame[end..].copy_from_slice(&crc.to_le_bytes());
    }
    frame.into()
}

/// A sound frame around a body.
pub fn framed(magic: &[u8; 4], flags: u8, entries: u32, body: &[u8]) -> Bytes {
    let zipped = (flags & FLAG_ZSTD != 0).then(|| zstd::bulk::compress(body, 1).expect("memory takes it"));
    let stored = zipped.as_deref().unwrap_or(body);
    let header = [&magic[..], &[1, flags, 0, 0], &entries.to_le_bytes(), &(body.len() as u32).to_le_bytes()].concat();
    resealed(&[&header, stored, &[0; CRC_BYTES]].concat())
}

/// A sequence of parts (a `u32` length and its bytes, each) in which everything that looks like a frame is sealed.
pub fn sealed_parts(input: &[u8]) -> Bytes {
    let mut parts = input.to_vec();
    let mut at = 0;
    while let Some(length) = parts.get(at..at + 4) {
        let bytes = u32::from_le_bytes([length[0], length[1], length[2], length[3]]) as usize;
        at += 4;
        let Some(part) = at.checked_add(bytes).and_then(|end| parts.get_mut(at..end)) else { break };
        if part.len() >= HEADER_BYTES + CRC_BYTES && (part.starts_with(b"SHPK") || part.starts_with(b"SHSG")) {
            let whole = resealed(part);
            part.copy_from_slice(&whole);
        }
        at += bytes;
    }
    parts.into()
}
