//! The chunk being filled: items in, a pack out, encoded once.

use std::{fmt, time::Duration};

use sheaf_api::{Pack, PackBuilder};
use sheaf_core::limits;
use tokio::time::Instant;

use crate::{
    error::{GridError, ItemError},
    function::Encode,
};

/// A closed chunk, ready to be submitted.
#[derive(Debug, Clone)]
pub(crate) struct Closed {
    pub(crate) number: u32,
    pub(crate) task_first: u64,
    pub(crate) pack: Pack,
}

impl Closed {
    pub(crate) fn bytes(&self) -> usize {
        self.pack.bytes().len()
    }
}

/// How chunks are closed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Closing {
    /// How long after its first task at the latest.
    pub(crate) linger: Duration,
    /// Whether packs are compressed.
    pub(crate) compress: bool,
    /// Whether all tasks must lie in one chunk.
    pub(crate) ordered: bool,
}

/// Fills one chunk after the other. Nothing here is shared or locked: it runs once per task.
pub(crate) struct Batch<I> {
    encode: Encode<I>,
    closing: Closing,
    builder: PackBuilder,
    scratch: Vec<u8>,
    tasks_max: u32,
    bytes_max: usize,
    /// The chunk's size was written down by an earlier run and is all that closes it.
    repeats: bool,
    begun: Option<Instant>,
    number: u32,
    task_first: u64,
}

impl<I> Batch<I> {
    pub(crate) fn new(encode: Encode<I>, closing: Closing) -> Self {
        let bytes_max = if closing.ordered { usize::MAX } else { limits::PACK_BYTES_TARGET };
        Self {
            encode,
            closing,
            builder: PackBuilder::new(),
            scratch: Vec::new(),
            tasks_max: 1,
            bytes_max,
            repeats: false,
            begun: None,
            number: 0,
            task_first: 0,
        }
    }

    /// Sets how many tasks the chunk may hold. An ordered job's chunk holds what there is.
    pub(crate) const fn limit_tasks(&mut self, tasks_max: u32) {
        self.repeats = false;
        self.tasks_max = if self.closing.ordered { u32::MAX } else { tasks_max };
    }

    /// Makes the chunk the one of so many tasks that an earlier run wrote down, whatever its bytes and age.
    pub(crate) const fn repeat_tasks(&mut self, tasks: u32) {
        self.repeats = true;
        self.tasks_max = tasks;
    }

    /// Adds a task.
    #[inline]
    pub(crate) fn push(&mut self, item: &I) -> Result<(), GridError> {
        let pushed = (self.encode)(item, &mut self.scratch)
            .and_then(|payload| self.builder.push(payload).map_err(ItemError::Format));
        match pushed {
            Ok(()) => Ok(()),
            Err(source) => Err(GridError::Item { index: self.index(), source }),
        }
    }

    /// Whether the chunk is to be closed for its size.
    #[inline]
    pub(crate) fn is_full(&self) -> bool {
        self.builder.tasks() >= self.tasks_max || (!self.repeats && self.builder.bytes() >= self.bytes_max)
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.builder.is_empty()
    }

    pub(crate) const fn tasks(&self) -> u32 {
        self.builder.tasks()
    }

    /// Position of the next task in the submission.
    pub(crate) const fn index(&self) -> u64 {
        self.task_first + self.builder.tasks() as u64
    }

    /// The number of the chunk being filled: as many chunks are closed.
    pub(crate) const fn number(&self) -> u32 {
        self.number
    }

    /// When the chunk is to be closed for its age; the first call after its first task starts the clock.
    pub(crate) fn due(&mut self) -> Option<Instant> {
        if self.is_empty() || self.closing.ordered || self.repeats {
            return None;
        }
        let begun = *self.begun.get_or_insert_with(Instant::now);
        Some(begun + self.closing.linger)
    }

    /// Closes the chunk.
    pub(crate) fn close(&mut self) -> Closed {
        let closed = Closed {
            number: self.number,
            task_first: self.task_first,
            pack: self.builder.finish(self.closing.compress),
        };
        self.skip(closed.pack.tasks());
        closed
    }

    /// Counts a chunk that was submitted by an earlier run.
    pub(crate) fn skip(&mut self, tasks: u32) {
        self.number += 1;
        self.task_first += u64::from(tasks);
        self.begun = None;
    }
}

impl<I> fmt::Debug for Batch<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Batch(chunk {}, {} tasks)", self.number, self.tasks())
    }
}
