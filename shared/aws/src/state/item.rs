//! A chunk as an item.
//!
//! What conditions and updates name is in attributes of its own; what they do not is in two blobs, each with a version byte:
//! what was submitted, which never changes, and what was achieved, which only the owner changes.

use std::collections::{BTreeMap, HashMap};

use aws_sdk_dynamodb::{primitives::Blob, types::AttributeValue};
use serde::{Serialize, de::DeserializeOwned};
use sheaf_core::{Attempt, Chunk, ChunkSpec, ChunkState, EndReason, Lease, Owner, Work, WorkV1};
use sheaf_protocol::StoreError;

use crate::{
    fault::damaged,
    schema::{self, DUE, PK, SK, chunk as at},
};

/// An item, or the values of an expression.
pub(crate) type Item = HashMap<String, AttributeValue>;
/// Attributes by name, in order.
pub(crate) type Attributes = BTreeMap<&'static str, AttributeValue>;

const VERSION: u8 = 1;
/// What was achieved holds checkpoints since its second version; the first is still read.
const WORK_VERSION: u8 = 2;

pub(crate) fn text(text: impl Into<String>) -> AttributeValue {
    AttributeValue::S(text.into())
}

pub(crate) fn number(number: impl ToString) -> AttributeValue {
    AttributeValue::N(number.to_string())
}

pub(crate) fn binary(bytes: Vec<u8>) -> AttributeValue {
    AttributeValue::B(Blob::new(bytes))
}

fn packed(version: u8, value: &impl Serialize) -> AttributeValue {
    binary(postcard::to_extend(value, vec![version]).expect("plain structs become postcard"))
}

/// Reads attributes, naming the object when one cannot be read.
pub(crate) struct Reader<'a> {
    pub(crate) item: &'a Item,
    pub(crate) object: &'static str,
}

impl Reader<'_> {
    pub(crate) fn bad(&self, name: &str) -> StoreError {
        let key = |name| self.item.get(name).and_then(|value| value.as_s().ok()).map_or("?", String::as_str);
        damaged(format!("{} {}/{}", self.object, key(PK), key(SK)), format!("attribute {name} is missing or malformed"))
    }

    pub(crate) fn text(&self, name: &str) -> Result<&str, StoreError> {
        let value = self.item.get(name).and_then(|value| value.as_s().ok());
        value.map(String::as_str).ok_or_else(|| self.bad(name))
    }

    pub(crate) fn number<T: std::str::FromStr>(&self, name: &str) -> Result<T, StoreError> {
        self.number_if_any(name)?.ok_or_else(|| self.bad(name))
    }

    pub(crate) fn number_if_any<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, StoreError> {
        let Some(value) = self.item.get(name) else { return Ok(None) };
        let number = value.as_n().ok().and_then(|text| text.parse().ok());
        number.map(Some).ok_or_else(|| self.bad(name))
    }

    pub(crate) fn bytes(&self, name: &str) -> Result<&[u8], StoreError> {
        let value = self.item.get(name).and_then(|value| value.as_b().ok());
        value.map(Blob::as_ref).ok_or_else(|| self.bad(name))
    }

    pub(crate) fn json<T: DeserializeOwned>(&self, name: &str) -> Result<T, StoreError> {
        serde_json::from_str(self.text(name)?).map_err(|error| damaged(self.object, error))
    }

    fn spec(&self) -> Result<ChunkSpec, StoreError> {
        match self.bytes(at::SPEC)? {
            [VERSION, rest @ ..] => self.unpacked(rest),
            _ => Err(damaged(self.object, "it was written by another version")),
        }
    }

    fn work(&self) -> Result<Work, StoreError> {
        match self.bytes(at::WORK)? {
            [WORK_VERSION, rest @ ..] => self.unpacked(rest),
            [VERSION, rest @ ..] => self.unpacked::<WorkV1>(rest).map(Work::from),
            _ => Err(damaged(self.object, "it was written by another version")),
        }
    }

    fn unpacked<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T, StoreError> {
        postcard::from_bytes(bytes).map_err(|error| damaged(self.object, error))
    }
}

/// All attributes of a chunk but its table key. What is not among them must not be in the item.
pub(crate) fn attributes(chunk: &Chunk) -> Attributes {
    let mut attributes = Attributes::from([
        (at::SPEC, packed(VERSION, &chunk.spec)),
        (at::WORK, packed(WORK_VERSION, &chunk.work)),
        (at::EPOCH, number(chunk.epoch)),
        (at::REVISION, number(chunk.rv)),
        (at::STATE, text(state_word(&chunk.state))),
        (DUE.sort, binary(schema::due_row(chunk.due_ms, chunk.spec.key))),
    ]);
    let mut set = |name, value| attributes.insert(name, value);
    if let Some(deadline_ms) = chunk.spec.deadline_ms {
        set(at::DEADLINE, number(deadline_ms));
    }
    if !chunk.is_final() {
        set(DUE.partition, text(schema::due_pk(schema::due_shard(chunk.spec.key))));
    }
    match &chunk.state {
        ChunkState::Queued { not_before_ms } => {
            set(at::NOT_BEFORE, number(not_before_ms));
        }
        ChunkState::Leased(lease) => {
            set(at::WORKER, text(lease.attempt.owner.worker.as_str()));
            set(at::NONCE, number(lease.attempt.owner.nonce));
            set(at::SINCE, number(lease.since_ms));
            set(at::UNTIL, number(lease.until_ms));
            if let Some(task) = lease.marker {
                set(at::MARKER, number(task));
            }
        }
        ChunkState::Done { attempt, since_ms, at_ms } => {
            set(at::WORKER, text(attempt.owner.worker.as_str()));
            set(at::NONCE, number(attempt.owner.nonce));
            set(at::SINCE, number(since_ms));
            set(at::AT, number(at_ms));
        }
        ChunkState::Ended { reason, at_ms } => {
            set(at::REASON, text(reason_word(*reason)));
            set(at::AT, number(at_ms));
        }
    }
    attributes
}

/// The state, as the table has it.
pub(crate) const fn state_word(state: &ChunkState) -> &'static str {
    match state {
        ChunkState::Queued { .. } => QUEUED,
        ChunkState::Leased(_) => LEASED,
        ChunkState::Done { .. } => "D",
        ChunkState::Ended { .. } => "X",
    }
}

pub(crate) const QUEUED: &str = "Q";
pub(crate) const LEASED: &str = "L";

const fn reason_word(reason: EndReason) -> &'static str {
    match reason {
        EndReason::Cancelled => "cancelled",
        EndReason::Expired => "expired",
    }
}

/// The chunk in an item.
pub(crate) fn chunk(item: &Item) -> Result<Chunk, StoreError> {
    let read = Reader { item, object: "chunk" };
    let (spec, work) = (read.spec()?, read.work()?);
    let epoch = read.number(at::EPOCH)?;
    let (due_ms, _) = schema::parse_due_row(read.bytes(DUE.sort)?).ok_or_else(|| read.bad(DUE.sort))?;
    let attempt = || {
        let worker = read.text(at::WORKER)?.parse().map_err(|_| read.bad(at::WORKER))?;
        Ok(Attempt { epoch, owner: Owner { worker, nonce: read.number(at::NONCE)? } })
    };
    let state = match read.text(at::STATE)? {
        QUEUED => ChunkState::Queued { not_before_ms: read.number(at::NOT_BEFORE)? },
        LEASED => ChunkState::Leased(Lease {
            attempt: attempt()?,
            since_ms: read.number(at::SINCE)?,
            until_ms: read.number(at::UNTIL)?,
            marker: read.number_if_any(at::MARKER)?,
        }),
        "D" => ChunkState::Done { attempt: attempt()?, since_ms: read.number(at::SINCE)?, at_ms: read.number(at::AT)? },
        "X" => {
            let reason = match read.text(at::REASON)? {
                "cancelled" => EndReason::Cancelled,
                "expired" => EndReason::Expired,
                _ => return Err(read.bad(at::REASON)),
            };
            ChunkState::Ended { reason, at_ms: read.number(at::AT)? }
        }
        _ => return Err(read.bad(at::STATE)),
    };
    Ok(Chunk { spec, state, work, epoch, rv: read.number(at::REVISION)?, due_ms })
}

/// A table key.
pub(crate) fn key(pk: impl Into<String>, sk: impl Into<String>) -> Item {
    Item::from([(PK.to_owned(), text(pk)), (SK.to_owned(), text(sk))])
}
