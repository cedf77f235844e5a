//! The first half of running a file, for a process that has only so much time: everything up to the seal.

use std::{
    future::Future,
    pin::pin,
    sync::{Arc, atomic::AtomicU64},
};

use futures::FutureExt;
use serde::{Deserialize, Serialize};
use sheaf_api::{
    Api,
    intake::{self, Format, IntakeError, Scan},
};
use sheaf_core::JobId;
use tokio::{
    sync::{Semaphore, oneshot},
    task::spawn_blocking,
};

use crate::{
    FileError, FileOptions, FileSource,
    feed::{self, Feed, Halt},
    give_up,
    plan::{COMMANDS, Plan},
    source::Reading,
    transfer::{Sent, submit_all},
};

/// What the first pass over a file has found, so that whoever goes on need not make it again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checked {
    /// Commands in the file.
    pub commands: u64,
    /// The functions that they name, in the order of first use.
    pub functions: Vec<String>,
    /// Its bytes, decompressed.
    pub bytes: u64,
}

impl Checked {
    pub(crate) fn scan(&self) -> Scan {
        Scan { commands: self.commands, functions: self.functions.clone(), bytes: self.bytes }
    }
}

impl From<Scan> for Checked {
    fn from(Scan { commands, functions, bytes }: Scan) -> Self {
        Self { commands, functions, bytes }
    }
}

/// Where a submission goes on; by default at the beginning.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Resume {
    /// The grid has the chunks before this one.
    pub chunk: u32,
    /// What the first pass found. It is made again if this is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checked: Option<Checked>,
}

/// How far a submission came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Submission {
    /// All of the file is submitted, and its job sealed.
    Complete(Submitted),
    /// It was told to stop, and is to go on here.
    Paused(Resume),
}

/// A file whose commands the grid has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submitted {
    /// The job; none if no function of the file is known, as in a file without commands.
    pub job: Option<JobId>,
    /// What the first pass found.
    pub checked: Checked,
}

/// Checks a file, makes its job, submits all of its commands whose function is known, and seals the job. Results are for
/// [`collect_file`](crate::collect_file). Memory does not grow with the file.
///
/// When `stop` is ready, the submission pauses: what is under way is waited for, and the answer says where to go on. Every call
/// submits something, if anything is left. A call that goes on reads the file from its beginning, as its chunks can only be
/// found so; it skips those that the grid has, and the first pass too if it was given what that found. Calls with the same
/// arguments may be repeated and overlap.
///
/// Costs a pass over the file to check it, one to submit it, and one submission per chunk. Dropping the future leaves the job
/// as it is; the same call goes on with it.
///
/// # Errors
/// See [`FileError`]; [`FileError::TooLong`] if the first pass is not over when `stop` is ready. The job of a file that turns
/// out to be at fault is cancelled.
pub async fn submit_file<A: Api>(
    api: &A,
    source: &FileSource,
    options: &FileOptions,
    resume: &Resume,
    stop: impl Future<Output = ()> + Send,
) -> Result<Submission, FileError> {
    let format = Format::of(&source.name)?;
    let reading = Reading::new(source);
    let mut stop = pin!(stop.fuse());
    let scan = match &resume.checked {
        Some(checked) => checked.scan(),
        None => check(&reading, format, options, stop.as_mut()).await?,
    };
    let checked = Checked::from(scan.clone());
    let labelled = source.clone().with_labels([(COMMANDS.to_owned(), scan.commands.to_string())]);
    let plan = Arc::new(Plan::make(api, &labelled, (format, scan), options).await?);
    let job = plan.has_tasks().then_some(plan.job);
    if job.is_none() || plan.sealed.is_some() {
        return Ok(Submission::Complete(Submitted { job, checked }));
    }
    let stopped = async {
        // A future that is over stays over: it may have been so before the first submission.
        if !futures::future::FusedFuture::is_terminated(&*stop) {
            stop.as_mut().await;
        }
    };
    let sent = match Box::pin(send(api, &reading, &plan, resume.chunk, stopped)).await {
        Err(Halt::Left) => unreachable!("nobody else is part of this"),
        Err(Halt::Failed(error)) => {
            give_up(api, &plan, &error).await;
            return Err(error);
        }
        Ok(sent) => sent,
    };
    Ok(match sent {
        Sent::All(_) => Submission::Complete(Submitted { job, checked }),
        Sent::UpTo(chunk) => Submission::Paused(Resume { chunk, checked: Some(checked) }),
    })
}

/// The first pass.
async fn check(
    reading: &Reading,
    format: Format,
    options: &FileOptions,
    stop: impl Future<Output = ()> + Send,
) -> Result<Scan, FileError> {
    let (pass, function) = (reading.pass().map_err(IntakeError::Io)?, options.function.clone());
    let mut scanning = spawn_blocking(move || intake::scan(pass, format, function.as_deref()));
    let scanned = tokio::select! {
        biased;
        () = stop => {
            reading.stop();
            // It ends with its next read.
            let _ = scanning.await;
            return Err(FileError::TooLong);
        }
        scanned = &mut scanning => scanned,
    };
    Ok(scanned.expect("scanning a file does not panic")?)
}

/// The second pass, from a chunk on.
async fn send<A: Api>(
    api: &A,
    reading: &Reading,
    plan: &Arc<Plan>,
    first: u32,
    stop: impl Future<Output = ()> + Send,
) -> Result<Sent, Halt> {
    let (batch_sender, batches) = flume::bounded(1);
    let (fed_sender, fed) = oneshot::channel();
    let pass = reading.pass().map_err(|error| Halt::from(IntakeError::Io(error)))?;
    let feeding = spawn_blocking({
        let plan = plan.clone();
        move || {
            let feed = Feed { batches: Some(&batch_sender), first, lines: None };
            let _ = fed_sender.send(feed::feed(pass, &plan, feed));
        }
    });
    // Nobody reads results here, so nothing but the number of submissions under way holds the reader back.
    let (window, tasks_sent) = (Semaphore::new(Semaphore::MAX_PERMITS), AtomicU64::new(0));
    let sent = submit_all(api, plan, (batches, fed), (&window, &tasks_sent), stop).await;
    reading.stop();
    feeding.await.expect("reading commands does not panic");
    sent
}
