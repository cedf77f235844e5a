//! Writing a line per command, in a thread that may block.

use std::io::{self, Write};

use base64::{Engine, engine::general_purpose::STANDARD};
use flume::Receiver;
use serde::{Deserialize, Serialize};
use sheaf_api::{
    FormatError, Pack, Segment,
    intake::{OutcomeText, write_line},
    segment::Entry,
    wire::ChunkResult,
};
use sheaf_core::{EndReason, FailureKind, JobId, Mark, ResultForm, Totals};

use crate::FileError;

/// Bytes collected before they are written.
const WRITE_BYTES: usize = 256 * 1024;

/// What the writing thread is given.
pub(crate) enum Written {
    /// The results of a chunk, with its pack.
    Chunk(ChunkResult),
    /// Lines that are finished.
    Lines {
        /// Their text.
        text: Vec<u8>,
        /// How many.
        lines: u64,
        /// What became of their commands.
        ended: Ended,
    },
}

/// What became of commands that have no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Nobody knows their function.
    NotHandled,
    /// Their job ended before them.
    Early(EndReason),
}

/// How many commands have a line, by what became of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Counts {
    pub(crate) totals: Totals,
    pub(crate) not_handled: u64,
}

impl Counts {
    /// Lines.
    pub(crate) const fn lines(&self) -> u64 {
        self.totals.ended() + self.not_handled
    }

    fn add(&mut self, ended: Ended, lines: u64) {
        let count = match ended {
            Ended::NotHandled => &mut self.not_handled,
            Ended::Early(EndReason::Cancelled) => &mut self.totals.cancelled,
            Ended::Early(EndReason::Expired) => &mut self.totals.expired,
        };
        *count += lines;
    }
}

/// The writing thread: ends when nobody can send any more. What waits is flushed when nothing more is ready, so that
/// somebody who reads along sees results as they come. `counts` says what the sink has already.
pub(crate) fn write_all<W: Write>(
    mut sink: W,
    mut counts: Counts,
    written: &Receiver<Written>,
    job: JobId,
    forms: &[ResultForm],
) -> Result<(W, Counts), FileError> {
    let mut text = Vec::new();
    while let Ok(next) = written.recv() {
        match next {
            Written::Lines { text: ready, lines, ended } => {
                text.extend_from_slice(&ready);
                counts.add(ended, lines);
            }
            Written::Chunk(chunk) => {
                let lines = chunk_lines(&mut text, &chunk, forms, &mut counts);
                lines.map_err(|source| FileError::Damaged { job, source })?;
            }
        }
        if text.len() >= WRITE_BYTES || written.is_empty() {
            put(&mut sink, &mut text).map_err(FileError::Output)?;
        }
    }
    sink.flush().map_err(FileError::Output)?;
    Ok((sink, counts))
}

fn put(sink: &mut impl Write, text: &mut Vec<u8>) -> io::Result<()> {
    sink.write_all(text)?;
    text.clear();
    sink.flush()
}

/// The lines of a chunk. A task that is in no segment though its chunk did not end early has none; whoever counts notices.
fn chunk_lines(
    text: &mut Vec<u8>,
    chunk: &ChunkResult,
    forms: &[ResultForm],
    counts: &mut Counts,
) -> Result<(), FormatError> {
    let damaged = |reason| Err(FormatError::Malformed { format: "results", reason });
    let Some(pack) = &chunk.pack else { return damaged("they came without their pack") };
    let pack = Pack::parse(pack.clone())?;
    let mut open = vec![true; pack.tasks() as usize];
    for segment in &chunk.segments {
        let segment = Segment::parse(segment.clone())?;
        for entry in segment.entries() {
            let Some(open) = open.get_mut(entry.task as usize) else {
                return damaged("a task is outside of its chunk");
            };
            if !std::mem::replace(open, false) {
                return damaged("a task has two outcomes");
            }
            let form = forms.get(usize::from(pack.function(entry.task))).copied().unwrap_or_default();
            entry_line(text, pack.key(entry.task), &entry, form)?;
            match entry.mark {
                Mark::Quarantined => counts.totals.quarantined += 1,
                Mark::Failed => counts.totals.failed += 1,
                Mark::Succeeded | Mark::Open => counts.totals.succeeded += 1,
            }
        }
    }
    if let Some(reason) = chunk.head.ended {
        for (task, _) in (0..).zip(&open).filter(|(_, open)| **open) {
            write_ended(text, pack.key(task), reason);
            counts.add(Ended::Early(reason), 1);
        }
    }
    Ok(())
}

fn entry_line(text: &mut Vec<u8>, id: &str, entry: &Entry<'_>, form: ResultForm) -> Result<(), FormatError> {
    if entry.mark != Mark::Succeeded {
        let failure = entry.failure()?;
        let mut message = failure.message;
        if failure.kind == FailureKind::Error && !failure.error_type.is_empty() {
            message = format!("{}: {message}", failure.error_type);
        }
        write_line(text, id, &OutcomeText::Failed { kind: failure.kind.as_str(), message: &message });
        return Ok(());
    }
    match form {
        ResultForm::Json => write_line(text, id, &OutcomeText::Json(entry.answer)),
        ResultForm::Bytes if std::str::from_utf8(entry.answer).is_err() => {
            let encoded = format!("base64:{}", STANDARD.encode(entry.answer));
            write_line(text, id, &OutcomeText::Text(encoded.as_bytes()));
        }
        ResultForm::Text | ResultForm::Bytes => write_line(text, id, &OutcomeText::Text(entry.answer)),
    }
    Ok(())
}

/// The line of a command whose job ended before it.
pub(crate) fn write_ended(text: &mut Vec<u8>, id: &str, reason: EndReason) {
    let message = match reason {
        EndReason::Cancelled => "its job was cancelled before it had a result",
        EndReason::Expired => "its job's deadline passed before it had a result",
    };
    write_line(text, id, &OutcomeText::Failed { kind: reason.outcome().as_str(), message });
}
