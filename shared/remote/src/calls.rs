//! The calls, as both sides see them.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sheaf_api::ApiError;
use sheaf_core::{Chunk, ChunkKey, Lane, Priority, Refused, TenantId, limits};
use sheaf_protocol::Hint;

/// The first byte of every body.
const VERSION: u8 = 1;
/// Bytes of the body of a call that carries no blobs: a hundred writes with all their marks and tallies are far below.
pub const CALL_BYTES_MAX: usize = 4 * 1024 * 1024;
/// The media type of all bodies.
pub(crate) const MEDIA_TYPE: &str = "application/octet-stream";

macro_rules! calls {
    ($($(#[$doc:meta])* $name:ident = $word:literal;)+) => {
        /// What a worker may ask of its grid. All that it ever asks; what is not here does not exist for it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Call { $($(#[$doc])* $name,)+ }

        impl Call {
            /// The call of a path's last segment.
            pub(crate) fn named(word: &str) -> Option<Self> {
                match word {
                    $($word => Some(Self::$name),)+
                    _ => None,
                }
            }

            /// The last segment of its path.
            pub(crate) const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $word),+ }
            }
        }
    };
}

calls! {
    /// Says which version the worker is of: `String` to [`Joined`].
    Join = "join";
    /// Applies events to chunks: `Vec<(ChunkKey, ChunkEvent)>` to `Vec<`[`Applied`]`>`.
    Apply = "apply";
    /// Reads chunks: `Vec<ChunkKey>` to `Vec<Option<Chunk>>`.
    Chunks = "chunks";
    /// Reads a job: `JobId` to `Option<Json<Job>>`.
    Job = "job";
    /// Reads a version of a function: `FunctionRef` to `Option<Json<Manifest>>`.
    Function = "function";
    /// How long a function takes: `FunctionRef` to `Json<Estimate>`.
    Estimate = "estimate";
    /// Says that a worker is alive: `Json<WorkerView>` to nothing.
    Alive = "alive";
    /// Says that a worker has left: `WorkerId` to nothing.
    Leave = "leave";
    /// Receives hints: [`Receiving`] to `Vec<`[`Handed`]`>`.
    Receive = "receive";
    /// Deletes a hint: [`Handed`] to nothing.
    Delete = "delete";
    /// Makes a hint be handed out again after so many ms: `(`[`Handed`]`, u64)` to nothing.
    Postpone = "postpone";
    /// Puts blobs: `Vec<(String, Bytes)>` to whether each was created.
    Put = "put";
    /// Reads a blob: its key to its bytes, as they are.
    Get = "get";
}

impl Call {
    /// Where they are, with the call's word in place of the braces.
    pub(crate) const PATH: &str = "/v1/ports/{call}";

    /// Bytes of its request.
    pub(crate) const fn bytes_max(self) -> usize {
        match self {
            Self::Put => limits::REQUEST_BYTES_MAX,
            _ => CALL_BYTES_MAX,
        }
    }
}

/// What a worker learns that joins.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Joined {
    /// The grid's clock (Unix, ms).
    pub(crate) now_ms: u64,
}

/// What became of a write. A store that could not is an error of the whole call: the steps repeat it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Applied {
    Yes(Box<Chunk>),
    Refused {
        reason: Refused,
        current: Option<Box<Chunk>>,
        /// Whether the grid knows that whoever holds the chunk is gone.
        owner_is_gone: bool,
    },
}

/// What a worker wants to receive.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Receiving {
    pub(crate) lanes: Vec<Lane>,
    pub(crate) max: u32,
    pub(crate) wait_ms: u64,
}

/// A hint on the wire.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Handed {
    pub(crate) key: ChunkKey,
    pub(crate) tenant: TenantId,
    pub(crate) lane: Lane,
    pub(crate) priority: Priority,
    pub(crate) pack: Option<bytes::Bytes>,
    pub(crate) hedge: bool,
}

impl From<Hint> for Handed {
    fn from(Hint { key, tenant, lane, priority, pack, hedge }: Hint) -> Self {
        Self { key, tenant, lane, priority, pack, hedge }
    }
}

impl From<Handed> for Hint {
    fn from(Handed { key, tenant, lane, priority, pack, hedge }: Handed) -> Self {
        Self { key, tenant, lane, priority, pack, hedge }
    }
}

/// A value that travels as JSON: of things that grow new fields, as in the store.
#[derive(Debug, Clone)]
pub(crate) struct Json<T>(pub(crate) T);

impl<T: Serialize> Serialize for Json<T> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&serde_json::to_vec(&self.0).map_err(serde::ser::Error::custom)?)
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Json<T> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = <std::borrow::Cow<'de, [u8]>>::deserialize(deserializer)?;
        serde_json::from_slice(&bytes).map(Self).map_err(serde::de::Error::custom)
    }
}

/// The body of a request or an answer.
pub(crate) fn encode(value: &impl Serialize) -> Vec<u8> {
    postcard::to_extend(value, vec![VERSION]).expect("plain structs become postcard")
}

/// What a body says.
pub(crate) fn decode<T: DeserializeOwned>(call: Call, body: &[u8]) -> Result<T, ApiError> {
    let wrong = |detail: String| {
        ApiError::invalid(format!("a body of {} cannot be read: {detail}", call.as_str()))
            .with_hint("the worker and the grid must be of the same version of sheaf")
    };
    match body {
        [VERSION, rest @ ..] => match postcard::take_from_bytes(rest) {
            Ok((value, [])) => Ok(value),
            Ok((_, left)) => Err(wrong(format!("{} bytes follow it", left.len()))),
            Err(error) => Err(wrong(error.to_string())),
        },
        _ => Err(wrong(format!("it does not begin with {VERSION}"))),
    }
}

#[cfg(test)]
mod tests {
    use sheaf_core::FunctionRef;

    use super::*;

    #[test]
    fn a_call_is_found_by_its_word() {
        assert_eq!(Call::named(Call::Postpone.as_str()), Some(Call::Postpone));
        assert!(["", "submit", "Apply", "create_job", "delete_prefix"].iter().all(|word| Call::named(word).is_none()));
    }

    #[test]
    fn bodies_come_back_and_others_are_refused() {
        let function: FunctionRef = "echo@0123456789ab".parse().expect("a reference");
        let body = encode(&Json(function.clone()));
        assert_eq!(decode::<Json<FunctionRef>>(Call::Join, &body).expect("its own").0, function);
        assert!(decode::<Json<FunctionRef>>(Call::Join, &[&body[..], &[0]].concat()).is_err(), "too long");
        assert!(decode::<Json<FunctionRef>>(Call::Join, &body[..body.len() - 1]).is_err(), "too short");
        assert!(decode::<Json<FunctionRef>>(Call::Join, &[&[9], &body[1..]].concat()).is_err(), "of another version");
        assert!(decode::<()>(Call::Join, &[]).is_err(), "empty");
    }
}
