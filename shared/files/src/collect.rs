//! The second half of running a file, for a process that has only so much time: a line per command, once its job is over.

use std::{
    future::Future,
    io::Write,
    sync::Arc,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use sheaf_api::{
    Api,
    intake::{self, Format, IntakeError, Scan},
    wire::JobView,
};
use sheaf_core::{ChunkSet, JobState};
use tokio::{
    sync::{Semaphore, watch},
    task::spawn_blocking,
};

use crate::{
    Checked, FileError, FileOptions, FileReport, FileSource,
    feed::{self, Feed, Halt},
    lines::{self, Counts, Written},
    plan::{COMMANDS, Plan, find_job},
    report,
    source::{Pass, Reading},
    transfer::{CHUNKS_READY, End, Submitted, collect_all},
};

/// A pass over the file begins in so much of the caller's time, or when it goes on: the rest of that time was enough to check
/// the file, which took one pass.
const PASS_WITHIN: Duration = Duration::from_secs(60);

/// Where collecting goes on: what the sink has so far; by default nothing.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Collecting {
    /// What a pass over the file found.
    checked: Option<Checked>,
    step: Step,
    /// The chunks whose lines are written.
    #[serde(with = "chunk_set")]
    have: ChunkSet,
    counts: Counts,
    spent_ms: u64,
}

/// What is to be written next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
enum Step {
    /// Results.
    #[default]
    Results,
    /// Lines of commands that nobody handles; then, of a cancelled job, of those that it never had.
    NotHandled { cancelled: bool },
    /// Lines of commands that a cancelled job never had.
    Cancelled,
    /// Nothing.
    Complete,
}

/// A set of chunks, as it travels elsewhere.
mod chunk_set {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
    use sheaf_api::stream::{decode_chunk_set, encode_chunk_set};
    use sheaf_core::ChunkSet;

    pub(super) fn serialize<S: Serializer>(set: &ChunkSet, serializer: S) -> Result<S::Ok, S::Error> {
        encode_chunk_set(set).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ChunkSet, D::Error> {
        decode_chunk_set(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

impl From<Checked> for Collecting {
    /// From the beginning, with what is known of the file.
    fn from(checked: Checked) -> Self {
        Self { checked: Some(checked), ..Self::default() }
    }
}

impl Collecting {
    /// Lines that the sink has.
    pub const fn lines(&self) -> u64 {
        self.counts.lines()
    }
}

/// How far collecting came.
#[derive(Debug, Clone, PartialEq)]
pub enum Collection {
    /// Every command has its line.
    Complete(FileReport),
    /// It was told to stop, and is to go on here, behind what the sink has.
    Paused(Collecting),
}

/// Writes a line per command of a file that [`submit_file`](crate::submit_file) has submitted and whose job is over, or that
/// made no job. Gives the sink back. Memory does not grow with the file.
///
/// The file itself is read only if it has commands that are not among the job's results: of unknown functions, or of a job that
/// was cancelled before all of it was submitted. Then it is read two or three times, once less if `from` knows what is in it.
///
/// When `stop` is ready, collecting pauses: the answer says where to go on, with a sink behind what this one was given. Every
/// call writes something. The caller's time began at `begun`; a pass over the file is left to the next call if it is late.
///
/// Costs one read of results per 32 chunks. Dropping the future stops it, once the line being written is.
///
/// # Errors
/// See [`FileError`]; [`FileError::NotOver`] if the job is not. If it fails, what was written to the sink is incomplete.
pub async fn collect_file<A: Api, W: Write + Send + 'static>(
    api: &A,
    source: &FileSource,
    options: &FileOptions,
    mut from: Collecting,
    (begun, stop): (Instant, impl Future<Output = ()> + Send),
    out: W,
) -> Result<(W, Collection), FileError> {
    let started = Instant::now();
    let format = Format::of(&source.name)?;
    let reading = Reading::new(source);
    let view = find_job(api, source.job).await?;
    if view.as_ref().is_some_and(|view| view.job.state.ended_at_ms().is_none()) {
        return Err(FileError::NotOver { job: source.job });
    }
    let (scan, with_file) = match (view.as_ref().and_then(all_in_results), &from.checked) {
        (Some(commands), _) => (Scan { commands, ..Scan::default() }, false),
        (None, Some(checked)) => (checked.scan(), true),
        (None, None) => {
            let scan = scan(&reading, format, options).await?;
            from.checked = Some(scan.clone().into());
            (scan, true)
        }
    };
    let commands = scan.commands;
    let plan = Arc::new(Plan::of_job(api, (source.job, view.as_ref()), (format, scan), options).await?);

    let (sender, receiver) = flume::bounded(CHUNKS_READY);
    let writing = spawn_blocking({
        let (plan, counts) = (plan.clone(), from.counts);
        move || lines::write_all(out, counts, &receiver, plan.job, &plan.forms)
    });
    let collecting = collect(api, &plan, with_file.then_some(&reading), &sender, &mut from, (begun, stop));
    let collected = Box::pin(collecting).await;
    drop(sender);
    let written = writing.await.expect("writing lines does not panic");
    let (out, counts) = match (collected, written) {
        (Err(Halt::Failed(error)), _) | (_, Err(error)) => return Err(error),
        (Ok(()) | Err(Halt::Left), Ok(written)) => written,
    };
    from.counts = counts;
    from.spent_ms += started.elapsed().as_millis() as u64;
    if from.step == Step::Complete {
        let report = report(&plan, counts, commands, Duration::from_millis(from.spent_ms))?;
        return Ok((out, Collection::Complete(report)));
    }
    Ok((out, Collection::Paused(from)))
}

/// How many commands the file of a job has, if all of them are among its results.
fn all_in_results(view: &JobView) -> Option<u64> {
    let JobState::Done { seal, .. } = view.job.state else { return None };
    let commands: u64 = view.job.options.labels.get(COMMANDS)?.parse().ok()?;
    (commands == seal.tasks).then_some(commands)
}

async fn scan(reading: &Reading, format: Format, options: &FileOptions) -> Result<Scan, FileError> {
    let (pass, function) = (reading.pass().map_err(IntakeError::Io)?, options.function.clone());
    let scanning = spawn_blocking(move || intake::scan(pass, format, function.as_deref()));
    Ok(scanning.await.expect("scanning a file does not panic")?)
}

/// Sends the results of every chunk, then what only the file knows, from where `at` is; and brings that on.
async fn collect<A: Api>(
    api: &A,
    plan: &Arc<Plan>,
    reading: Option<&Reading>,
    lines: &flume::Sender<Written>,
    at: &mut Collecting,
    (begun, stop): (Instant, impl Future<Output = ()> + Send),
) -> Result<(), Halt> {
    let resumed = at.step;
    if at.step == Step::Results {
        let mut end = End::All;
        if plan.has_tasks() {
            let window = Semaphore::new(0);
            let (_sender, submitted) = watch::channel(Some(Submitted { seal: plan.sealed, cut: false }));
            let from = (std::mem::take(&mut at.have), stop);
            let collected = collect_all(api, plan, lines, &window, submitted, from, |_, _| ()).await?;
            (at.have, end) = (collected.have, collected.end);
        }
        if end == End::Stopped {
            return Ok(());
        }
        at.step = Step::NotHandled { cancelled: end == End::Cancelled };
    }
    let Some(reading) = reading else {
        at.step = Step::Complete;
        return Ok(());
    };
    let is_late = |step| step != resumed && begun.elapsed() > PASS_WITHIN;
    if let Step::NotHandled { cancelled } = at.step {
        if is_late(at.step) {
            return Ok(());
        }
        let (plan, lines) = (plan.clone(), lines.clone());
        let feed = move |pass| feed::feed(pass, &plan, Feed { batches: None, first: 0, lines: Some(&lines) }).map(drop);
        read(reading, feed).await?;
        at.step = if cancelled { Step::Cancelled } else { Step::Complete };
    }
    if at.step == Step::Cancelled {
        if is_late(at.step) {
            return Ok(());
        }
        let (plan, have, lines) = (plan.clone(), at.have.clone(), lines.clone());
        read(reading, move |pass| feed::feed_cancelled(pass, &plan, &have, &lines)).await?;
        at.step = Step::Complete;
    }
    Ok(())
}

async fn read(reading: &Reading, work: impl FnOnce(Pass) -> Result<(), Halt> + Send + 'static) -> Result<(), Halt> {
    let pass = reading.pass().map_err(|error| Halt::from(IntakeError::Io(error)))?;
    spawn_blocking(move || work(pass)).await.expect("reading commands does not panic")
}
