//! The store under the local ports: rows in a few ordered spaces, and blobs; in memory or on disk.
//!
//! An engine knows nothing of jobs and chunks. It has one writer (see [`crate::writer`]), which hands it whole groups of
//! changes, and any number of readers, who see a group once its commit has returned. Small blobs do not wait for the writer.

pub(crate) mod disk;
mod journal;
pub(crate) mod memory;
mod room;
pub(crate) mod volumes;

use bytes::Bytes;

/// Blobs below this are small.
pub(crate) const SMALL_BYTES_MAX: usize = 4 * 1024;

/// An ordered map from keys to rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Space {
    /// Jobs, functions, estimates and other things there are few of, told apart by a prefix.
    Things,
    /// Chunks, by job and number.
    Chunks,
    /// Open chunks, by due time.
    Due,
    /// Changed chunks that the result step has not taken in yet, by sequence number.
    Feed,
    /// What each chunk adds to its job's summary, by job and number.
    Sums,
    /// History, by job and event number.
    Events,
    /// Where blobs lie, or small blobs themselves, by key.
    Blobs,
}

impl Space {
    pub(crate) const ALL: [Self; 7] =
        [Self::Things, Self::Chunks, Self::Due, Self::Feed, Self::Sums, Self::Events, Self::Blobs];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Things => "things",
            Self::Chunks => "chunks",
            Self::Due => "due",
            Self::Feed => "feed",
            Self::Sums => "sums",
            Self::Events => "events",
            Self::Blobs => "blobs",
        }
    }
}

/// A group of changes that happens wholly or not at all.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// Rows to put, or with `None` to remove, in order.
    pub(crate) rows: Vec<(Space, Vec<u8>, Option<Vec<u8>>)>,
}

impl Batch {
    pub(crate) fn put(&mut self, space: Space, key: impl Into<Vec<u8>>, row: impl Into<Vec<u8>>) {
        self.rows.push((space, key.into(), Some(row.into())));
    }

    pub(crate) fn remove(&mut self, space: Space, key: impl Into<Vec<u8>>) {
        self.rows.push((space, key.into(), None));
    }
}

/// Which rows to scan: keys from `from` on and below `to`, first or last ones first, at most `limit`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scan<'a> {
    pub(crate) from: &'a [u8],
    pub(crate) to: &'a [u8],
    pub(crate) backwards: bool,
    pub(crate) limit: usize,
}

impl<'a> Scan<'a> {
    pub(crate) const fn new(from: &'a [u8], to: &'a [u8], limit: usize) -> Self {
        Self { from, to, backwards: false, limit }
    }
}

/// A key and its row.
pub(crate) type Row = (Vec<u8>, Vec<u8>);

/// The first key behind all that start with a prefix.
pub(crate) fn behind(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    vec![u8::MAX; 64]
}

/// An engine that could not do its work; after a failed write it does nothing any more.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub(crate) struct EngineError(pub(crate) String);

pub(crate) trait Engine: Send + Sync {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError>;

    fn scan(&self, space: Space, scan: Scan<'_>) -> Result<Vec<Row>, EngineError>;

    /// Takes a blob unless there is one of its key, and answers whether it did. It is readable at once, and durable with the
    /// next durable commit that begins after this. Of [small](SMALL_BYTES_MAX) ones anybody may put several at once, without
    /// waiting for a disk; larger ones are put by the writer only.
    fn put_blob(&self, key: &str, bytes: &Bytes) -> Result<bool, EngineError>;

    fn blob(&self, key: &str) -> Result<Option<Bytes>, EngineError>;

    /// Removes some of the blobs whose keys start with a prefix; answers whether there may be more. Only the writer calls it.
    fn remove_blobs(&self, prefix: &str) -> Result<bool, EngineError>;

    /// Applies a group. If `durable`, it and all before it survive a power cut when this returns. Only the writer calls it.
    fn commit(&self, batch: Batch, durable: bool) -> Result<(), EngineError>;

    /// Whether there are blobs that only a durable commit lays down.
    fn holds_back(&self) -> bool;

    /// Whether a durable commit waits for a disk.
    fn waits(&self) -> bool;

    /// How often a commit has waited for the disk so far; `None` where there is none.
    fn syncs(&self) -> Option<u64>;
}
