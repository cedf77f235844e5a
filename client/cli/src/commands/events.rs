//! The history of a job, and what it tells of its size.

use std::{io::Write, time::Duration};

use sheaf_api::{Api, Code, wire::EventView};
use sheaf_core::{EndReason, Event, JobId, ReleaseReason, Seal, summary::ChunkTotals};

use crate::{
    connect::Session,
    exit::Exit,
    output::{Format, Row},
    problem::{Outcome, Problem},
    text, wait,
};

/// How long a look for news is held by the grid.
const WAIT_MS: u64 = 1_000;
/// Counters lag behind chunks; a size is believed once it was the same so often.
const SAME_SIZES: u32 = 3;
const SIZE_PAUSE_MS: u64 = 300;
const SIZE_LOOKS_MAX: u32 = 100;

impl Row for EventView {
    const COLUMNS: &'static [&'static str] = &["TIME", "EVENT"];

    fn id(&self) -> String {
        self.number.to_string()
    }

    fn cells(&self) -> Vec<String> {
        vec![text::time(self.at_ms), describe(&self.event)]
    }
}

/// Prints a job's events as they are read.
pub(crate) async fn print(session: &Session, format: Format, job: JobId, follow: bool) -> Outcome {
    let mut all = Vec::new();
    let mut from = 0;
    let mut seen = None;
    let printing = async {
        loop {
            let page = session.api().events(job, from).await?;
            let more = page.next.is_some();
            from = page.rows.last().map_or(from, |event| event.number + 1);
            if format == Format::Json {
                all.extend(page.rows);
            } else {
                write(format, &page.rows)?;
            }
            if more {
                continue;
            }
            if !follow {
                return Ok::<_, Problem>(Exit::Succeeded);
            }
            let view = session.api().progress(job, seen, WAIT_MS).await?;
            let was_over = seen == Some(u64::MAX);
            if was_over {
                return Ok(Exit::of(&view));
            }
            // Once more after the end, for what came in between.
            seen = Some(if view.job.state.ended_at_ms().is_some() { u64::MAX } else { view.summary.chunks_ended });
        }
    };
    let exit = wait::unless_stopped(session, None, printing).await?;
    if format == Format::Json {
        crate::output::Printer(format).list(&all)?;
    }
    Ok(exit)
}

fn write(format: Format, rows: &[EventView]) -> Outcome<()> {
    let mut out = std::io::stdout().lock();
    for row in rows {
        match format {
            Format::Table => writeln!(out, "{}", row.cells().join("  "))?,
            Format::Id => writeln!(out, "{}", row.id())?,
            Format::Json | Format::Ndjson => {
                writeln!(out, "{}", serde_json::to_string(row).map_err(std::io::Error::from)?)?;
            }
        }
    }
    Ok(out.flush()?)
}

fn totals(totals: &ChunkTotals) -> String {
    let ChunkTotals { succeeded, failed, cancelled, expired, quarantined } = *totals;
    let counts = [
        (succeeded, "succeeded"),
        (failed, "failed"),
        (quarantined, "quarantined"),
        (cancelled, "cancelled"),
        (expired, "expired"),
    ];
    let counts = counts.iter().filter(|(count, _)| *count > 0);
    counts.map(|(count, word)| format!("{count} {word}")).collect::<Vec<_>>().join(", ")
}

/// Why a chunk was given back.
pub(crate) const fn released(reason: ReleaseReason) -> &'static str {
    match reason {
        ReleaseReason::BackOff => "a task waits for its next attempt",
        ReleaseReason::Drain => "its worker was told to stop",
        ReleaseReason::Reclaimed => "its machine is being taken away",
        ReleaseReason::Unavailable => "its worker could not run it",
        ReleaseReason::Outrun => "a second copy ended first",
    }
}

/// An event in words.
pub(crate) fn describe(event: &Event) -> String {
    match event {
        Event::JobCreated => "job created".into(),
        Event::JobSealed { seal } => {
            let (tasks, chunks) = (text::counted(seal.tasks, "task"), text::counted(seal.chunks.into(), "chunk"));
            format!("job sealed with {tasks} in {chunks}")
        }
        Event::JobCancelling => "job is being cancelled".into(),
        Event::JobCancelled => "job cancelled".into(),
        Event::JobDone => "job done".into(),
        Event::ChunkSubmitted { chunk, tasks } => {
            format!("chunk {chunk} submitted with {}", text::counted((*tasks).into(), "task"))
        }
        Event::ChunkClaimed { chunk, epoch, worker, taken_over, resumed } => {
            let (how, from) = match taken_over {
                false => ("claimed", ""),
                true => ("taken over", " from a worker that is gone"),
            };
            let resumed = match resumed {
                0 => String::new(),
                resumed => format!(", with {} to go on from", text::counted((*resumed).into(), "checkpoint")),
            };
            format!("chunk {chunk} {how} by {worker}{from} (attempt {epoch}){resumed}")
        }
        Event::SegmentCommitted { chunk, totals: so_far, .. } => format!("chunk {chunk} has {} so far", totals(so_far)),
        Event::CheckpointStored { chunk, task, bytes, run_ms, .. } => {
            let (bytes, ran) = (text::bytes((*bytes).into()), text::duration_ms(*run_ms));
            format!("checkpoint of task {task} of chunk {chunk} stored: {bytes}, after a run of {ran}")
        }
        Event::TaskIsolated { chunk, task } => {
            format!("task {task} of chunk {chunk} runs alone, as it may be what kills workers")
        }
        Event::ChunkReleased { chunk, reason, not_before_ms, .. } => {
            let reason = released(*reason);
            let wait = not_before_ms.saturating_sub(text::now_ms());
            let later = if wait > 0 { format!(", not before {}", text::time(*not_before_ms)) } else { String::new() };
            format!("chunk {chunk} given back: {reason}{later}")
        }
        Event::ChunkFinished { chunk, totals: of, .. } => format!("chunk {chunk} finished: {}", totals(of)),
        Event::ChunkEnded { chunk, reason, totals: of } => {
            let word = match reason {
                EndReason::Cancelled => "cancelled",
                EndReason::Expired => "expired",
            };
            format!("chunk {chunk} {word}: {}", totals(of))
        }
    }
}

/// The size of a job that nobody submits to any more.
pub(crate) async fn settled_size(api: &impl Api, job: JobId) -> Outcome<Seal> {
    let mut last = None;
    let mut same = 0;
    for _ in 0..SIZE_LOOKS_MAX {
        let summary = api.progress(job, None, 0).await?.summary;
        let size = Seal {
            chunks: u32::try_from(summary.chunks_submitted).unwrap_or(u32::MAX),
            tasks: summary.tasks_submitted,
        };
        same = if last == Some(size) { same + 1 } else { 0 };
        if same >= SAME_SIZES {
            return Ok(size);
        }
        last = Some(size);
        tokio::time::sleep(Duration::from_millis(SIZE_PAUSE_MS)).await;
    }
    Err(Problem::new(Code::Conflict, format!("{job} is still being submitted to"))
        .with_hint("stop whoever submits to it first"))
}
