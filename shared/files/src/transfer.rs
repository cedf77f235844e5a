//! Submitting chunks and reading their results at the same time.

use std::{
    future::pending,
    io::Write,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use flume::{Receiver, Sender};
use futures::{FutureExt, StreamExt, stream::FuturesUnordered};
use sheaf_api::{
    Answer, Api, Code,
    wire::{ChunkAnswer, ReadResults, SubmitChunk},
};
use sheaf_core::{ChunkSet, JobId, Seal, Totals, limits};
use tokio::{
    sync::{Semaphore, oneshot, watch},
    task::spawn_blocking,
};

use crate::{
    FileError, FileProgress,
    call::call,
    feed::{self, Feed, Halt},
    lines::{self, Counts, Written},
    plan::Plan,
    source::Reading,
};

/// Submissions that wait to be sent, and that are under way.
const BATCHES_READY: usize = 1;
const BATCHES_SENT: usize = 4;
/// Chunks of results read at once, and chunks that wait to be written.
const PAGE_CHUNKS: usize = 32;
pub(crate) const CHUNKS_READY: usize = 32;

/// What became of submitting, once it is over.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Submitted {
    /// The size of the job; none if it was never known, as for one that somebody else cancelled.
    pub(crate) seal: Option<Seal>,
    /// The job was cancelled before all of it was accepted.
    pub(crate) cut: bool,
}

/// How far submitting came.
pub(crate) enum Sent {
    /// To the end.
    All(Submitted),
    /// It was told to stop, with this chunk to be sent next.
    UpTo(u32),
}

/// What has been read.
pub(crate) struct Collected {
    pub(crate) have: ChunkSet,
    pub(crate) end: End,
}

/// Why no more is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Everything has been.
    All,
    /// The job was cancelled, and everything that there is has been.
    Cancelled,
    /// It was told to stop.
    Stopped,
}

/// Runs the commands of a file whose plan is made, and writes their lines. Gives the sink back.
pub(crate) async fn transfer<A: Api, W: Write + Send + 'static>(
    api: &A,
    reading: &Reading,
    plan: &Arc<Plan>,
    sink: W,
    progress: &(impl Fn(&FileProgress) + Send + Sync),
) -> Result<(W, Counts), FileError> {
    let (line_sender, line_receiver) = flume::bounded(CHUNKS_READY);
    let writing = spawn_blocking({
        let plan = plan.clone();
        move || lines::write_all(sink, Counts::default(), &line_receiver, plan.job, &plan.forms)
    });
    let moved = feed_and_exchange(api, reading, plan, &line_sender, progress).await;
    drop(line_sender);
    let written = writing.await.expect("writing lines does not panic");
    match (moved, written) {
        (Err(Halt::Failed(error)), _) | (_, Err(error)) => Err(error),
        (Ok(()) | Err(Halt::Left), Ok(written)) => Ok(written),
    }
}

async fn feed_and_exchange<A: Api>(
    api: &A,
    reading: &Reading,
    plan: &Arc<Plan>,
    lines: &Sender<Written>,
    progress: &(impl Fn(&FileProgress) + Send + Sync),
) -> Result<(), Halt> {
    let pass =
        |reading: &Reading| reading.pass().map_err(|error| Halt::from(sheaf_api::intake::IntakeError::Io(error)));
    let (batch_sender, batches) = flume::bounded(BATCHES_READY);
    let (fed_sender, fed) = oneshot::channel();
    let feeding = spawn_blocking({
        let (pass, plan, lines) = (pass(reading)?, plan.clone(), lines.clone());
        move || {
            let batches = plan.sealed.is_none().then_some(&batch_sender);
            let feed = Feed { batches, first: 0, lines: Some(&lines) };
            let _ = fed_sender.send(feed::feed(pass, &plan, feed));
        }
    });
    let exchanged = if plan.has_tasks() {
        exchange(api, plan, batches, fed, lines, progress).await.map(Some)
    } else {
        fed.await.unwrap_or(Err(Halt::Left)).map(|_| None)
    };
    if exchanged.is_err() {
        reading.stop();
    }
    feeding.await.expect("reading commands does not panic");
    match exchanged? {
        Some((submitted, collected)) if submitted.cut || collected.end == End::Cancelled => {
            let (pass, plan, lines) = (pass(reading)?, plan.clone(), lines.clone());
            let again = spawn_blocking(move || feed::feed_cancelled(pass, &plan, &collected.have, &lines));
            again.await.expect("reading commands does not panic")
        }
        _ => Ok(()),
    }
}

pub(crate) type Fed = oneshot::Receiver<Result<Seal, Halt>>;

async fn exchange<A: Api>(
    api: &A,
    plan: &Plan,
    batches: Receiver<Vec<SubmitChunk>>,
    fed: Fed,
    lines: &Sender<Written>,
    progress: &(impl Fn(&FileProgress) + Send + Sync),
) -> Result<(Submitted, Collected), Halt> {
    let window = Semaphore::new(plan.window_at_start());
    let tasks_sent = AtomicU64::new(0);
    let (sender, receiver) = watch::channel(None);
    let submitting = async {
        let sent = submit_all(api, plan, (batches, fed), (&window, &tasks_sent), pending()).await?;
        let Sent::All(submitted) = sent else { return Err(Halt::Left) };
        sender.send_replace(Some(submitted));
        Ok(submitted)
    };
    let from = (ChunkSet::new(), pending());
    let collecting = collect_all(api, plan, lines, &window, receiver, from, |ended, totals| {
        let submitted = tasks_sent.load(Ordering::Relaxed).max(ended);
        progress(&FileProgress { commands: plan.scan.commands, submitted, ended, totals });
    });
    futures::try_join!(submitting, collecting)
}

/// Submits chunks as they are read, then seals the job. When `stop` is ready, what is under way is waited for and no more is
/// sent; but one submission is always made if there is any, so that whoever goes on again and again comes to the end.
pub(crate) async fn submit_all<A: Api>(
    api: &A,
    plan: &Plan,
    (batches, mut fed): (Receiver<Vec<SubmitChunk>>, Fed),
    (window, tasks_sent): (&Semaphore, &AtomicU64),
    stop: impl Future<Output = ()> + Send,
) -> Result<Sent, Halt> {
    let mut stop = pin!(stop);
    let mut sent = FuturesUnordered::new();
    let mut waiting: Option<Vec<SubmitChunk>> = None;
    let (mut cut, mut ended, mut seal) = (false, false, None);
    let (mut next, mut stopped) = (None, false);
    let seal = loop {
        let is_idle = waiting.is_none() && sent.is_empty();
        if is_idle && (stopped || (ended && seal.is_some())) {
            break seal;
        }
        let room = waiting.as_ref().map_or(0, |batch| batch.len() as u32);
        let may_receive = waiting.is_none() && !ended && !stopped && sent.len() < BATCHES_SENT;
        tokio::select! {
            () = &mut stop, if next.is_some() && !stopped => stopped = true,
            // A file that is at fault ends it all at once.
            read = &mut fed, if seal.is_none() && !stopped => seal = Some(read.unwrap_or(Err(Halt::Left))?),
            Some(answer) = sent.next(), if !sent.is_empty() => match answer? {
                Answered { tasks, accepted: true, .. } => drop(tasks_sent.fetch_add(tasks, Ordering::Relaxed)),
                Answered { chunks, accepted: false, .. } => {
                    cut = true;
                    window.add_permits(chunks);
                }
            },
            batch = batches.recv_async(), if may_receive => match batch {
                Ok(_) if cut => {}
                Ok(batch) => waiting = Some(batch),
                Err(_) => ended = true,
            },
            admitted = window.acquire_many(room), if waiting.is_some() => {
                admitted.expect("the window is never closed").forget();
                next = waiting.as_ref().and_then(|batch| batch.last()).map(|chunk| chunk.number + 1);
                sent.extend(waiting.take().map(|batch| submit(api, plan, batch)));
            }
        }
    };
    let seal = match (seal, next) {
        (Some(seal), _) if ended => seal,
        (_, Some(next)) if stopped => return Ok(Sent::UpTo(next)),
        _ => return Err(Halt::Left),
    };
    if plan.sealed.is_none() && !cut {
        cut = !accepted(call("sealing the job", || api.seal(plan.job, seal)).await)?;
    }
    Ok(Sent::All(Submitted { seal: Some(seal), cut }))
}

/// What became of a submission.
struct Answered {
    chunks: usize,
    tasks: u64,
    /// The job takes chunks.
    accepted: bool,
}

async fn submit<A: Api>(api: &A, plan: &Plan, batch: Vec<SubmitChunk>) -> Result<Answered, FileError> {
    let tasks = batch.iter().map(|chunk| u64::from(chunk.pack.tasks())).sum();
    let submitted = call("submitting commands", || submit_once(api, plan.job, batch.clone())).await;
    Ok(Answered { chunks: batch.len(), tasks, accepted: accepted(submitted)? })
}

async fn submit_once<A: Api>(api: &A, job: JobId, batch: Vec<SubmitChunk>) -> Answer<()> {
    let reply = api.submit(job, batch).await?;
    let refused = reply.answers.into_iter().find_map(|answer| match answer {
        ChunkAnswer::Refused { error } => Some(error),
        ChunkAnswer::Accepted | ChunkAnswer::Exists => None,
    });
    refused.map_or(Ok(()), Err)
}

/// False if the job is cancelled, or being cancelled.
fn accepted<T>(answer: Result<T, FileError>) -> Result<bool, FileError> {
    match answer {
        Err(FileError::Call { source, .. }) if source.code == Code::Over => Ok(false),
        answer => answer.map(|_| true),
    }
}

/// Reads results as chunks end, but for those that it has already, until there are no more to come or `stop` is ready. One page
/// is always read if there is any, so that whoever goes on again and again comes to the end.
pub(crate) async fn collect_all<A: Api>(
    api: &A,
    plan: &Plan,
    lines: &Sender<Written>,
    window: &Semaphore,
    mut submitted: watch::Receiver<Option<Submitted>>,
    (mut have, stop): (ChunkSet, impl Future<Output = ()> + Send),
    progress: impl Fn(u64, Totals) + Send + Sync,
) -> Result<Collected, Halt> {
    let mut stop = pin!(stop.fuse());
    let mut chunks_open = plan.window_at_start();
    let mut tasks_ended = 0;
    loop {
        let all_submitted = *submitted.borrow();
        let seal = all_submitted.and_then(|submitted| submitted.seal);
        if seal.is_some_and(|seal| have.len() == u64::from(seal.chunks)) {
            return Ok(Collected { have, end: End::All });
        }
        if tasks_ended > 0 && (&mut stop).now_or_never().is_some() {
            return Ok(Collected { have, end: End::Stopped });
        }
        let read = ReadResults {
            have: have.clone(),
            wait_ms: limits::LONG_POLL_MS_MAX,
            chunks_max: PAGE_CHUNKS,
            with_packs: true,
        };
        let page = call("reading results", || api.results(plan.job, read.clone())).await?;
        let state = page.job.job.state;
        if page.chunks.is_empty() && state.ended_at_ms().is_some() {
            if all_submitted.is_some() {
                let end = if state.is_cancelled() { End::Cancelled } else { End::All };
                return Ok(Collected { have, end });
            }
            // Submitting ends soon: it is refused from now on.
            submitted.changed().await.map_err(|_| Halt::Left)?;
            continue;
        }
        let wider = plan.window(&page.job.estimate).saturating_sub(chunks_open);
        chunks_open += wider;
        window.add_permits(wider);
        for chunk in page.chunks {
            if have.insert(chunk.head.number) {
                tasks_ended += u64::from(chunk.head.tasks);
                window.add_permits(1);
                lines.send_async(Written::Chunk(chunk)).await.map_err(|_| Halt::Left)?;
            }
        }
        progress(tasks_ended, page.job.summary.totals);
    }
}
