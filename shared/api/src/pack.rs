//! The pack: the payloads of one chunk.
//!
//! The body of the [frame](crate::frame) is
//! ```text
//! 4·n       end offsets of the payloads
//! …         the payloads
//! [flag 2]  2·n  index of each task's function in its job
//! [flag 4]  4·n  end offsets of the keys, then the keys
//! ```
//! A pack is encoded once, by whoever batches tasks, and then only stored, sent, hashed and sliced: nothing between the
//! client and the function copies a payload again.

use std::fmt;

use bytes::Bytes;
use sheaf_core::{Digest, limits};

use crate::frame::{Ends, Format, FormatError, check_limit};

const FORMAT: Format = Format { magic: *b"SHPK", name: "pack", flags_known: FLAG_FUNCTIONS | FLAG_KEYS };
const FLAG_FUNCTIONS: u8 = 2;
const FLAG_KEYS: u8 = 4;

/// What a task may be.
fn check_task(payload_bytes: usize, function: u16, key_bytes: usize) -> Result<(), FormatError> {
    check_limit("payload bytes", payload_bytes, limits::TASK_BYTES_MAX)?;
    check_limit("key bytes", key_bytes, limits::TASK_KEY_BYTES_MAX)?;
    check_limit("function index", function.into(), limits::JOB_FUNCTIONS_MAX - 1)
}

/// Collects payloads and encodes them as a pack.
#[derive(Debug, Default, Clone)]
pub struct PackBuilder {
    ends: Vec<u8>,
    payloads: Vec<u8>,
    functions: Vec<u8>,
    key_ends: Vec<u8>,
    keys: Vec<u8>,
    tasks: u32,
    has_functions: bool,
    has_keys: bool,
}

impl PackBuilder {
    /// An empty builder.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a task of the job's first function, without a key.
    pub fn push(&mut self, payload: &[u8]) -> Result<(), FormatError> {
        self.push_task(payload, 0, "")
    }

    /// Adds a task: its payload (at most [`limits::TASK_BYTES_MAX`]), the index of its function in the job's list, and the
    /// user's key for it (at most [`limits::TASK_KEY_BYTES_MAX`]; empty for none). On an error nothing was added.
    pub fn push_task(&mut self, payload: &[u8], function: u16, key: &str) -> Result<(), FormatError> {
        check_task(payload.len(), function, key.len())?;
        check_limit("tasks in a pack", self.tasks as usize + 1, limits::ORDERED_TASKS_MAX as usize)?;
        check_limit("pack bytes", self.bytes_with(payload, function, key), limits::PACK_BYTES_MAX)?;
        self.payloads.extend_from_slice(payload);
        self.ends.extend_from_slice(&(self.payloads.len() as u32).to_le_bytes());
        if function != 0 && !self.has_functions {
            self.has_functions = true;
            self.functions.resize(2 * self.tasks as usize, 0);
        }
        if self.has_functions {
            self.functions.extend_from_slice(&function.to_le_bytes());
        }
        if !key.is_empty() && !self.has_keys {
            self.has_keys = true;
            self.key_ends.resize(4 * self.tasks as usize, 0);
        }
        if self.has_keys {
            self.keys.extend_from_slice(key.as_bytes());
            self.key_ends.extend_from_slice(&(self.keys.len() as u32).to_le_bytes());
        }
        self.tasks += 1;
        Ok(())
    }

    /// Bytes of the body after one more task. The first function or key gives all tasks before it one too.
    fn bytes_with(&self, payload: &[u8], function: u16, key: &str) -> usize {
        let column = |has: bool, wants: bool, width: usize| match (has, wants) {
            (true, _) => width,
            (false, true) => width * (self.tasks as usize + 1),
            (false, false) => 0,
        };
        let functions = column(self.has_functions, function != 0, 2);
        let keys = column(self.has_keys, !key.is_empty(), 4) + key.len();
        self.bytes() + 4 + payload.len() + functions + keys
    }

    /// Tasks so far.
    pub const fn tasks(&self) -> u32 {
        self.tasks
    }

    /// Whether it holds no task.
    pub const fn is_empty(&self) -> bool {
        self.tasks == 0
    }

    /// Bytes of the body so far.
    pub fn bytes(&self) -> usize {
        self.ends.len() + self.payloads.len() + self.functions.len() + self.key_ends.len() + self.keys.len()
    }

    /// Encodes the pack and empties the builder, keeping its buffers for the next one. `compress` tries zstd and keeps it
    /// where it saves something.
    pub fn finish(&mut self, compress: bool) -> Pack {
        let flags = if self.has_functions { FLAG_FUNCTIONS } else { 0 } | if self.has_keys { FLAG_KEYS } else { 0 };
        let parts: [&[u8]; 5] = [&self.ends, &self.payloads, &self.functions, &self.key_ends, &self.keys];
        let bytes = FORMAT.encode(flags, self.tasks, &parts, compress);
        self.ends.clear();
        self.payloads.clear();
        self.functions.clear();
        self.key_ends.clear();
        self.keys.clear();
        (self.tasks, self.has_functions, self.has_keys) = (0, false, false);
        Pack::parse(bytes).expect("a builder encodes what a reader accepts")
    }
}

/// A checked pack. Cloning shares the bytes.
#[derive(Clone)]
pub struct Pack {
    bytes: Bytes,
    body: Bytes,
    payloads: Ends,
    functions: Option<usize>,
    keys: Option<Ends>,
}

impl Pack {
    /// Reads a pack, checking all of it: afterwards every accessor is infallible for tasks below [`Pack::tasks`].
    pub fn parse(bytes: Bytes) -> Result<Self, FormatError> {
        let (flags, tasks, body) = FORMAT.decode(&bytes)?;
        let tasks = tasks as usize;
        let (payloads, mut at) =
            Ends::read(&body, 0, tasks).ok_or(FORMAT.malformed("the payload offsets lead outside of it"))?;
        let mut functions = None;
        if flags & FLAG_FUNCTIONS != 0 {
            functions = Some(at);
            at += 2 * tasks;
        }
        let mut keys = None;
        if flags & FLAG_KEYS != 0 {
            let (ends, end) =
                Ends::read(&body, at, tasks).ok_or(FORMAT.malformed("the key offsets lead outside of it"))?;
            let all = ends.bytes..end;
            let text = std::str::from_utf8(&body[all.clone()]).map_err(|_| FORMAT.malformed("a key is not UTF-8"))?;
            if !(0..tasks).all(|i| text.is_char_boundary(ends.range(&body, i).end - all.start)) {
                return Err(FORMAT.malformed("a key is not UTF-8"));
            }
            keys = Some(ends);
            at = end;
        }
        if at != body.len() {
            return Err(FORMAT.malformed("the body does not end with its last part"));
        }
        let pack = Self { bytes, body, payloads, functions, keys };
        pack.check_limits()?;
        Ok(pack)
    }

    fn check_limits(&self) -> Result<(), FormatError> {
        (0..self.tasks()).try_for_each(|index| {
            let key_bytes = self.keys.as_ref().map_or(0, |keys| keys.range(&self.body, index as usize).len());
            check_task(self.payload(index).len(), self.function(index), key_bytes)
        })
    }

    /// How many tasks.
    pub const fn tasks(&self) -> u32 {
        self.payloads.count as u32
    }

    /// The payload of a task, in place.
    ///
    /// # Panics
    /// If there is no such task.
    pub fn payload(&self, index: u32) -> &[u8] {
        &self.body[self.payloads.range(&self.body, index as usize)]
    }

    /// The payload of a task as a slice that shares the pack's memory.
    ///
    /// # Panics
    /// If there is no such task.
    pub fn payload_bytes(&self, index: u32) -> Bytes {
        self.body.slice(self.payloads.range(&self.body, index as usize))
    }

    /// The index of a task's function in its job's list.
    ///
    /// # Panics
    /// If there is no such task.
    pub fn function(&self, index: u32) -> u16 {
        assert!(index < self.tasks(), "task {index} of {}", self.tasks());
        self.functions.map_or(0, |at| {
            let at = at + 2 * index as usize;
            u16::from_le_bytes([self.body[at], self.body[at + 1]])
        })
    }

    /// The user's key of a task; empty when it has none.
    ///
    /// # Panics
    /// If there is no such task.
    pub fn key(&self, index: u32) -> &str {
        assert!(index < self.tasks(), "task {index} of {}", self.tasks());
        let key = self.keys.as_ref().map(|keys| &self.body[keys.range(&self.body, index as usize)]);
        std::str::from_utf8(key.unwrap_or_default()).expect("checked when it was parsed")
    }

    /// The encoded bytes.
    pub const fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The digest of the encoded bytes: what makes a chunk sent twice the same chunk.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.bytes)
    }
}

impl fmt::Debug for Pack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pack({} tasks, {} bytes)", self.tasks(), self.bytes.len())
    }
}
