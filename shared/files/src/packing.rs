//! Cutting commands into chunks. The same commands and the same caps give the same chunks.

use sheaf_api::{FormatError, PackBuilder, wire::SubmitChunk};
use sheaf_core::Seal;

/// Collects commands and closes a chunk whenever it is full.
pub(crate) struct Packing {
    builder: PackBuilder,
    tasks_max: u32,
    bytes_target: usize,
    number: u32,
    task_first: u64,
}

impl Packing {
    /// Closes chunks at so many tasks, or when they have reached so many bytes.
    pub(crate) fn new(tasks_max: u32, bytes_target: usize) -> Self {
        Self { builder: PackBuilder::new(), tasks_max, bytes_target, number: 0, task_first: 0 }
    }

    /// The number of the chunk that the next command goes into.
    pub(crate) const fn number(&self) -> u32 {
        self.number
    }

    /// Adds a command; gives the chunk if it is full with it.
    pub(crate) fn push(
        &mut self,
        payload: &[u8],
        function: u16,
        key: &str,
    ) -> Result<Option<SubmitChunk>, FormatError> {
        self.builder.push_task(payload, function, key)?;
        let full = self.builder.tasks() >= self.tasks_max || self.builder.bytes() >= self.bytes_target;
        Ok(if full { self.close() } else { None })
    }

    /// Gives what is left.
    pub(crate) fn close(&mut self) -> Option<SubmitChunk> {
        if self.builder.is_empty() {
            return None;
        }
        // Not compressed: another version of a compressor would make another chunk of the same commands.
        let chunk = SubmitChunk { number: self.number, task_first: self.task_first, pack: self.builder.finish(false) };
        self.number += 1;
        self.task_first += u64::from(chunk.pack.tasks());
        Some(chunk)
    }

    /// What was closed so far.
    pub(crate) const fn seal(&self) -> Seal {
        Seal { chunks: self.number, tasks: self.task_first }
    }
}
