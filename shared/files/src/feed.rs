//! Reading a file's commands once more, in a thread that may block, and handing them on.

use flume::Sender;
use sheaf_api::{
    FormatError,
    intake::{self, IntakeError, OutcomeText, write_line},
    wire::SubmitChunk,
};
use sheaf_core::{ChunkSet, EndReason, Seal};

use crate::{
    FileError,
    lines::{Ended, Written, write_ended},
    plan::Plan,
    source::Pass,
};

/// Bytes of chunks after which a submission is closed.
const BATCH_BYTES: usize = 4 * 1024 * 1024;
/// Bytes of finished lines handed on at once.
const LINES_BYTES: usize = 64 * 1024;

/// Why something stopped that is part of a run.
pub(crate) enum Halt {
    /// Another part of the run stopped, and says why.
    Left,
    /// This.
    Failed(FileError),
}

impl From<FileError> for Halt {
    fn from(error: FileError) -> Self {
        Self::Failed(error)
    }
}

impl From<IntakeError> for Halt {
    /// The first pass found nothing wrong: if this one does, the file is not what it was.
    fn from(error: IntakeError) -> Self {
        let changed = match error {
            IntakeError::Io(_) | IntakeError::Changed { .. } => error,
            error => IntakeError::Changed { was: "a good file".into(), is: format!("one that is not ({error})") },
        };
        Self::Failed(changed.into())
    }
}

impl From<FormatError> for Halt {
    /// Only a pack of a whole file can be over a limit: every command was checked by the first pass.
    fn from(error: FormatError) -> Self {
        Self::Failed(FileError::OrderedTooLarge(error))
    }
}

/// Lines that need no result, collected; without a place to send them, they are dropped.
struct Ready<'a> {
    to: Option<&'a Sender<Written>>,
    ended: Ended,
    text: Vec<u8>,
    lines: u64,
}

impl<'a> Ready<'a> {
    fn new(to: Option<&'a Sender<Written>>, ended: Ended) -> Self {
        Self { to, ended, text: Vec::new(), lines: 0 }
    }

    fn push(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Result<(), Halt> {
        if self.to.is_none() {
            return Ok(());
        }
        write(&mut self.text);
        self.lines += 1;
        if self.text.len() < LINES_BYTES { Ok(()) } else { self.send() }
    }

    fn send(&mut self) -> Result<(), Halt> {
        let text = std::mem::take(&mut self.text);
        let lines = std::mem::take(&mut self.lines);
        match self.to {
            Some(to) if lines > 0 => to.send(Written::Lines { text, lines, ended: self.ended }).map_err(|_| Halt::Left),
            _ => Ok(()),
        }
    }
}

/// Where the second pass sends what it finds.
pub(crate) struct Feed<'a> {
    /// Chunks; none if the job has all of them already.
    pub(crate) batches: Option<&'a Sender<Vec<SubmitChunk>>>,
    /// The first that is sent: the job has those before it.
    pub(crate) first: u32,
    /// Lines of commands that nobody handles; none if they are written another time.
    pub(crate) lines: Option<&'a Sender<Written>>,
}

/// The second pass: known commands go into chunks, unknown ones have their line at once. Gives the size of the job.
pub(crate) fn feed(pass: Pass, plan: &Plan, Feed { batches, first, lines }: Feed<'_>) -> Result<Seal, Halt> {
    let mut packing = plan.packing();
    let mut unknown = Ready::new(lines, Ended::NotHandled);
    let (mut batch, mut batch_bytes) = (Vec::new(), 0);
    let send = |batch: &mut Vec<SubmitChunk>| match batches {
        Some(batches) if !batch.is_empty() => batches.send(std::mem::take(batch)).map_err(|_| Halt::Left),
        _ => {
            batch.clear();
            Ok(())
        }
    };
    intake::read(pass, plan.format, plan.function_default.as_deref(), Some(&plan.scan), |command| {
        let Some(function) = plan.indices[command.function_index] else {
            let outcome = OutcomeText::NotHandled { function: command.function };
            return unknown.push(|text| write_line(text, &command.id, &outcome));
        };
        if let Some(chunk) = packing.push(command.payload, function, &command.id)?
            && chunk.number >= first
        {
            batch_bytes += chunk.pack.bytes().len();
            batch.push(chunk);
            if batch.len() >= plan.batch_chunks() || batch_bytes >= BATCH_BYTES {
                batch_bytes = 0;
                send(&mut batch)?;
            }
        }
        Ok::<_, Halt>(())
    })?;
    batch.extend(packing.close().filter(|chunk| chunk.number >= first));
    send(&mut batch)?;
    unknown.send()?;
    Ok(packing.seal())
}

/// One more pass, when a job was cancelled before all of it was accepted: a line for each command of the chunks that the
/// grid does not `have`.
pub(crate) fn feed_cancelled(pass: Pass, plan: &Plan, have: &ChunkSet, lines: &Sender<Written>) -> Result<(), Halt> {
    let mut packing = plan.packing();
    let mut cancelled = Ready::new(Some(lines), Ended::Early(EndReason::Cancelled));
    intake::read(pass, plan.format, plan.function_default.as_deref(), Some(&plan.scan), |command| {
        let Some(function) = plan.indices[command.function_index] else { return Ok(()) };
        if !have.contains(packing.number()) {
            cancelled.push(|text| write_ended(text, &command.id, EndReason::Cancelled))?;
        }
        packing.push(command.payload, function, &command.id)?;
        Ok::<_, Halt>(())
    })?;
    cancelled.send()
}
