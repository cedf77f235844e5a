//! How bulk requests and replies are framed: a sequence of parts, each a `u32` length (little-endian) and its bytes.
//!
//! - a submission: per chunk a part of `number: u32, task_first: u64` and a part that is its pack;
//! - a page of results: a part that is a JSON head ([`PageHead`]), then per chunk its segments and, if asked for, its
//!   pack, in the order and number that the head says;
//! - a function: a part that is its manifest as JSON, and for a package a part that is its zip.
//!
//! Parts are slices of the body they came in: nothing is copied.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use sheaf_core::{ChunkSet, limits};

use crate::{
    ApiError, FormatError, Pack,
    frame::{self, check_limit},
    wire::{ChunkHead, ChunkResult, JobView, PutFunction, ResultsPage, SubmitChunk},
};

/// The media type of framed bodies.
pub const MEDIA_TYPE: &str = "application/vnd.sheaf.parts";

/// The JSON head of a page of results.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PageHead {
    /// The job.
    pub job: JobView,
    /// The chunks, each with how many segments follow for it and whether its pack does.
    pub chunks: Vec<(ChunkHead, usize, bool)>,
}

fn length_of(part: &[u8]) -> u32 {
    u32::try_from(part.len()).expect("parts are packs, segments, packages and heads, all bounded below 4 GiB")
}

fn put(out: &mut BytesMut, part: &[u8]) {
    out.put_u32_le(length_of(part));
    out.put_slice(part);
}

fn take(body: &mut Bytes) -> Result<Bytes, FormatError> {
    let malformed = |reason| FormatError::Malformed { format: "body", reason };
    if body.len() < 4 {
        return Err(malformed("it ends within the length of a part"));
    }
    let bytes = body.get_u32_le() as usize;
    if bytes > body.len() {
        return Err(malformed("a part is longer than what is left of it"));
    }
    Ok(body.split_to(bytes))
}

fn check_end(body: &Bytes) -> Result<(), FormatError> {
    let malformed = FormatError::Malformed { format: "body", reason: "bytes follow its last part" };
    if body.is_empty() { Ok(()) } else { Err(malformed) }
}

/// Frames a submission.
pub fn encode_submission(chunks: &[SubmitChunk]) -> Bytes {
    let bytes: usize = chunks.iter().map(|chunk| chunk.pack.bytes().len() + 20).sum();
    let mut out = BytesMut::with_capacity(bytes);
    for chunk in chunks {
        out.put_u32_le(12);
        out.put_u32_le(chunk.number);
        out.put_u64_le(chunk.task_first);
        put(&mut out, chunk.pack.bytes());
    }
    out.freeze()
}

/// Reads a submission. Every pack is checked; decompressed, they take at most [`limits::REQUEST_BYTES_MAX`] together.
pub fn decode_submission(mut body: Bytes) -> Result<Vec<SubmitChunk>, FormatError> {
    let mut chunks = Vec::new();
    let mut unpacked_bytes = 0;
    while !body.is_empty() {
        check_limit("chunks in one submission", chunks.len() + 1, limits::WRITES_PER_CALL_MAX)?;
        let mut head = take(&mut body)?;
        if head.len() != 12 {
            return Err(FormatError::Malformed { format: "submission", reason: "a chunk's head is not of 12 bytes" });
        }
        let (number, task_first) = (head.get_u32_le(), head.get_u64_le());
        let pack = take(&mut body)?;
        unpacked_bytes += frame::declared_bytes(&pack);
        check_limit("decompressed bytes of one submission", unpacked_bytes, limits::REQUEST_BYTES_MAX)?;
        chunks.push(SubmitChunk { number, task_first, pack: Pack::parse(pack)? });
    }
    Ok(chunks)
}

/// Frames a page of results as the parts to send one after the other, without copying segments.
pub fn encode_results(page: &ResultsPage) -> Vec<Bytes> {
    let chunks = page.chunks.iter().map(|chunk| (chunk.head.clone(), chunk.segments.len(), chunk.pack.is_some()));
    let head = PageHead { job: page.job.clone(), chunks: chunks.collect() };
    let head: Bytes = serde_json::to_vec(&head).expect("plain structs become JSON").into();
    let parts = page.chunks.iter().flat_map(|chunk| chunk.segments.iter().chain(&chunk.pack));
    let length = |part: &Bytes| Bytes::copy_from_slice(&length_of(part).to_le_bytes());
    [&head].into_iter().chain(parts).flat_map(|part| [length(part), part.clone()]).collect()
}

/// Reads a page of results. Segments are slices of the body, not yet checked.
pub fn decode_results(mut body: Bytes) -> Result<ResultsPage, FormatError> {
    let head = take(&mut body)?;
    let malformed = FormatError::Malformed { format: "results", reason: "their head cannot be read" };
    let head: PageHead = serde_json::from_slice(&head).map_err(|_| malformed)?;
    let mut chunks = Vec::with_capacity(head.chunks.len().min(limits::RESULT_PAGE_CHUNKS_MAX));
    for (head, segments, has_pack) in head.chunks {
        // Each holds a task at least.
        check_limit("segments of a chunk", segments, limits::ORDERED_TASKS_MAX as usize)?;
        let segments = (0..segments).map(|_| take(&mut body)).collect::<Result<_, _>>()?;
        let pack = has_pack.then(|| take(&mut body)).transpose()?;
        chunks.push(ChunkResult { head, segments, pack });
    }
    check_end(&body)?;
    Ok(ResultsPage { job: head.job, chunks })
}

/// Frames a function.
pub fn encode_function(request: &PutFunction) -> Bytes {
    let mut out = BytesMut::new();
    put(&mut out, &manifest_json(&request.manifest));
    if let Some(package) = &request.package {
        put(&mut out, package);
    }
    out.freeze()
}

/// Reads a function.
pub fn decode_function(mut body: Bytes) -> Result<PutFunction, ApiError> {
    let manifest = take(&mut body)?;
    check_limit("bytes of a manifest", manifest.len(), limits::MANIFEST_BYTES_MAX)?;
    let manifest = serde_json::from_slice(&manifest)
        .map_err(|error| ApiError::invalid(format!("the manifest is not one: {error}")))?;
    let package = if body.is_empty() { None } else { Some(take(&mut body)?) };
    check_limit("bytes of a package", package.as_ref().map_or(0, Bytes::len), limits::PACKAGE_BYTES_MAX as usize)?;
    check_end(&body)?;
    Ok(PutFunction { manifest, package })
}

/// A manifest's canonical bytes: what its version is the digest of.
pub fn manifest_json(manifest: &sheaf_core::Manifest) -> Vec<u8> {
    serde_json::to_vec(manifest).expect("plain structs become JSON")
}

/// A set of chunks as text for a URL: base64url of the portable roaring format; empty for the empty set.
pub fn encode_chunk_set(set: &ChunkSet) -> String {
    use base64::Engine;
    if set.is_empty() {
        return String::new();
    }
    let mut compact = set.clone();
    compact.optimize();
    let mut bytes = Vec::with_capacity(compact.serialized_size());
    compact.serialize_into(&mut bytes).expect("writing to memory");
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}

/// Reads a set of chunks from text: numbers below [`limits::JOB_CHUNKS_MAX`].
pub fn decode_chunk_set(text: &str) -> Result<ChunkSet, FormatError> {
    use base64::Engine;
    if text.is_empty() {
        return Ok(ChunkSet::new());
    }
    let malformed = |reason| FormatError::Malformed { format: "set of chunks", reason };
    let bytes =
        base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text).map_err(|_| malformed("it is not base64url"))?;
    let mut rest = bytes.as_slice();
    let set = ChunkSet::deserialize_from(&mut rest).map_err(|_| malformed("it is not a roaring bitmap"))?;
    if !rest.is_empty() {
        return Err(malformed("bytes follow the roaring bitmap"));
    }
    check_limit("chunk number", set.max().unwrap_or(0) as usize, limits::JOB_CHUNKS_MAX as usize - 1)?;
    Ok(set)
}
