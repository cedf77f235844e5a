//! Ids as types: what each one names, how it is written, and what was expected when it does not parse.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize, de};
use uuid::Uuid;

/// An id that could not be read. The text names what was given and what was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is not {expected}")]
pub struct IdError {
    given: String,
    expected: &'static str,
}

impl IdError {
    pub(crate) fn new(given: &str, expected: &'static str) -> Self {
        Self { given: given.chars().take(80).collect(), expected }
    }
}

macro_rules! serde_as_text {
    ($type:ty) => {
        impl Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(de::Error::custom)
            }
        }
    };
}

/// A job: `job_` and a UUID. Chosen by the client (UUIDv7, so that ids sort by time of creation) before its first call;
/// creating the same id twice with the same options is the same job.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(Uuid);

impl JobId {
    /// An id from a UUID of any version.
    pub const fn from_uuid(uuid: Uuid) -> Self {
        Self(uuid)
    }

    /// The id of the job that one version of one uploaded object starts: UUIDv8 of a BLAKE3 hash, so that duplicated,
    /// reordered and replayed upload events collapse into one job.
    pub fn of_upload(bucket: &str, key: &str, version: &str) -> Self {
        let mut hasher = blake3::Hasher::new();
        for part in [bucket, key, version] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        let mut bytes = [0; 16];
        hasher.finalize_xof().fill(&mut bytes);
        Self(uuid::Builder::from_custom_bytes(bytes).into_uuid())
    }

    /// The 16 bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// The id with these 16 bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "job_{}", self.0.simple())
    }
}

impl fmt::Debug for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for JobId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        // The UUID crate also reads hyphens, braces and URNs: one id would have many texts.
        text.strip_prefix("job_")
            .filter(|hex| hex.len() == 32)
            .and_then(|hex| Uuid::try_parse(hex).ok())
            .map(Self)
            .ok_or_else(|| IdError::new(text, "a job id (job_ and 32 hexadecimal digits)"))
    }
}

serde_as_text!(JobId);

/// A position, written in one way only: digits, without a sign or leading zeros.
fn position(text: &str) -> Option<u32> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if plain { text.parse().ok() } else { None }
}

/// A chunk: the `number`-th (from 0) of a job. For ever the idempotency key of its submission. Written `job_…/number`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkKey {
    /// The job.
    pub job: JobId,
    /// Position in the job, from 0.
    pub number: u32,
}

impl fmt::Display for ChunkKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.job, self.number)
    }
}

impl fmt::Debug for ChunkKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ChunkKey {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let expected = || IdError::new(text, "a chunk id (job_…/chunk)");
        let (job, number) = text.split_once('/').ok_or_else(expected)?;
        Ok(Self { job: job.parse()?, number: position(number).ok_or_else(expected)? })
    }
}

serde_as_text!(ChunkKey);

/// A task: the `index`-th (from 0) of a chunk. Written `job_…/chunk/index`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId {
    /// The chunk.
    pub chunk: ChunkKey,
    /// Position in the chunk, from 0.
    pub index: u32,
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.chunk, self.index)
    }
}

impl fmt::Debug for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for TaskId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let expected = || IdError::new(text, "a task id (job_…/chunk/index)");
        let (chunk, index) = text.rsplit_once('/').ok_or_else(expected)?;
        Ok(Self { chunk: chunk.parse().map_err(|_| expected())?, index: position(index).ok_or_else(expected)? })
    }
}

serde_as_text!(TaskId);

macro_rules! name_type {
    ($(#[$doc:meta])* $type:ident, $prefix:literal, $max:literal, $expected:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(Arc<str>);

        impl $type {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $type {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                let rest = text.strip_prefix($prefix).unwrap_or_default();
                let fits = !rest.is_empty()
                    && text.len() <= $max
                    && rest.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
                    && rest.bytes().any(|b| b != b'.');
                if fits { Ok(Self(text.into())) } else { Err(IdError::new(text, $expected)) }
            }
        }

        serde_as_text!($type);
    };
}

name_type!(
    /// Who a job belongs to. Tenants never see each other's jobs, and the queue is fair between them. `default` unless a
    /// deployment has several.
    TenantId, "", 64, "a tenant (1 to 64 of A-Z a-z 0-9 _ - .)"
);
name_type!(
    /// A function's name, as commands and manifests write it.
    FunctionName, "", 128, "a function name (1 to 128 of A-Z a-z 0-9 _ - .)"
);
name_type!(
    /// A process that claims chunks and runs functions.
    WorkerId, "wrk_", 64, "a worker id (wrk_ and up to 60 of A-Z a-z 0-9 _ - .)"
);

impl Default for TenantId {
    fn default() -> Self {
        Self("default".into())
    }
}

/// What the ids of remote workers begin with.
const REMOTE: &str = "wrk_remote-";

impl WorkerId {
    /// The worker with this UUID.
    pub fn from_uuid(uuid: Uuid) -> Self {
        Self(format!("wrk_{}", uuid.simple()).into())
    }

    /// The worker with this UUID, in another process than the local grid it works for. Such a worker outlives its grid: that
    /// the grid was opened by a new process says nothing of it.
    pub fn remote_from_uuid(uuid: Uuid) -> Self {
        Self(format!("{REMOTE}{}", uuid.simple()).into())
    }

    /// Whether it is in another process than the local grid it works for.
    pub fn is_remote(&self) -> bool {
        self.0.starts_with(REMOTE)
    }
}

/// One version of a function, written `name@version`. The version is a digest of the manifest, so it can never change
/// under a job that runs it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FunctionRef {
    /// The name.
    pub name: FunctionName,
    /// The first 12 hexadecimal digits of the manifest's BLAKE3 digest, in lower case.
    pub version: Arc<str>,
}

impl fmt::Display for FunctionRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.name, self.version)
    }
}

impl fmt::Debug for FunctionRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for FunctionRef {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let expected = || IdError::new(text, "a function version (name@12 hexadecimal digits)");
        let (name, version) = text.split_once('@').ok_or_else(expected)?;
        if version.len() != 12 || !version.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(expected());
        }
        Ok(Self { name: name.parse()?, version: version.to_ascii_lowercase().into() })
    }
}

serde_as_text!(FunctionRef);

/// A BLAKE3 digest of 32 bytes, written as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of some bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The digest with these 32 bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let hash = blake3::Hash::from_hex(text).map_err(|_| IdError::new(text, "a digest (64 hexadecimal digits)"))?;
        Ok(Self(*hash.as_bytes()))
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() { serializer.collect_str(self) } else { self.0.serialize(serializer) }
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
            text.parse().map_err(de::Error::custom)
        } else {
            Deserialize::deserialize(deserializer).map(Self)
        }
    }
}
