//! The second half of running a file: a line per command, once its job is over.

use std::{io::Write, sync::Arc, time::Instant};

use sheaf_api::{
    Api,
    intake::{self, Format, IntakeError, Scan},
    wire::JobView,
};
use sheaf_core::JobState;
use tokio::{
    sync::{Semaphore, watch},
    task::spawn_blocking,
};

use crate::{
    Checked, FileError, FileOptions, FileReport, FileSource,
    feed::{self, Feed, Halt},
    lines::{self, Written},
    plan::{COMMANDS, Plan, find_job},
    report,
    source::{Pass, Reading},
    transfer::{CHUNKS_READY, Collected, Submitted, collect_all},
};

/// Writes a line per command of a file that [`submit_file`](crate::submit_file) has submitted and whose job is over, or that
/// made no job. Gives the sink back. Memory does not grow with the file.
///
/// The file itself is read only if it has commands that are not among the job's results: of unknown functions, or of a job that
/// was cancelled before all of it was submitted. Then it is read two or three times, once less if `checked` is given.
///
/// Costs one read of results per 32 chunks. Dropping the future stops it, once the line being written is.
///
/// # Errors
/// See [`FileError`]; [`FileError::NotOver`] if the job is not. If it fails, what was written to the sink is incomplete.
pub async fn collect_file<A: Api, W: Write + Send + 'static>(
    api: &A,
    source: &FileSource,
    options: &FileOptions,
    checked: Option<&Checked>,
    out: W,
) -> Result<(W, FileReport), FileError> {
    let started = Instant::now();
    let format = Format::of(&source.name)?;
    let reading = Reading::new(source);
    let view = find_job(api, source.job).await?;
    if view.as_ref().is_some_and(|view| view.job.state.ended_at_ms().is_none()) {
        return Err(FileError::NotOver { job: source.job });
    }
    let (scan, with_file) = match (view.as_ref().and_then(all_in_results), checked) {
        (Some(commands), _) => (Scan { commands, ..Scan::default() }, false),
        (None, Some(checked)) => (checked.scan(), true),
        (None, None) => (scan(&reading, format, options).await?, true),
    };
    let commands = scan.commands;
    let plan = Arc::new(Plan::of_job(api, (source.job, view.as_ref()), (format, scan), options).await?);

    let (sender, receiver) = flume::bounded(CHUNKS_READY);
    let writing = spawn_blocking({
        let plan = plan.clone();
        move || lines::write_all(out, &receiver, plan.job, &plan.forms)
    });
    let collected = Box::pin(collect(api, &plan, with_file.then_some(&reading), &sender)).await;
    drop(sender);
    let written = writing.await.expect("writing lines does not panic");
    let (out, counts) = match (collected, written) {
        (Err(Halt::Failed(error)), _) | (_, Err(error)) => return Err(error),
        (Ok(()) | Err(Halt::Left), Ok(written)) => written,
    };
    Ok((out, report(&plan, counts, commands, started)?))
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

/// Sends the results of every chunk, then what only the file knows.
async fn collect<A: Api>(
    api: &A,
    plan: &Arc<Plan>,
    reading: Option<&Reading>,
    lines: &flume::Sender<Written>,
) -> Result<(), Halt> {
    let collected = if plan.has_tasks() {
        let window = Semaphore::new(0);
        let (_sender, submitted) = watch::channel(Some(Submitted { seal: plan.sealed, cut: false }));
        Some(collect_all(api, plan, lines, &window, submitted, |_, _| ()).await?)
    } else {
        None
    };
    let Some(reading) = reading else { return Ok(()) };
    let not_handled = {
        let (plan, lines) = (plan.clone(), lines.clone());
        move |pass| feed::feed(pass, &plan, Feed { batches: None, first: 0, lines: Some(&lines) }).map(drop)
    };
    read(reading, not_handled).await?;
    let Some(Collected { have, cancelled: true }) = collected else { return Ok(()) };
    let (plan, lines) = (plan.clone(), lines.clone());
    read(reading, move |pass| feed::feed_cancelled(pass, &plan, &have, &lines)).await
}

async fn read(reading: &Reading, work: impl FnOnce(Pass) -> Result<(), Halt> + Send + 'static) -> Result<(), Halt> {
    let pass = reading.pass().map_err(|error| Halt::from(IntakeError::Io(error)))?;
    spawn_blocking(move || work(pass)).await.expect("reading commands does not panic")
}
