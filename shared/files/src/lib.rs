//! Running a file: its commands become a job, and each has its line in the results.
//!
//! Works through the calls of [`Api`], so it is the same for the grid in this process and for one that is far away. A file is
//! read twice. The first pass checks all of it, so that nothing of a malformed file ever runs; the second feeds chunks to the
//! grid while results are read and written. Memory does not grow with the file.
//!
//! # Lines
//! One per command, in any order: `id result`, in the form that the function's manifest declares (JSON as Python prints it;
//! text as it is; bytes as they are if they are UTF-8, else `base64:` and their encoding), `id TYPE not handled` for a
//! function that the grid does not know when the job is made, and `id ERROR kind: message` for a command that failed. `kind` is
//! a word of [`sheaf_core::FailureKind`], or `cancelled` or `expired`; where a function names its error, as Python does, the
//! message of kind `error` begins with that name. If not every command has a line, that is an error.
//!
//! # Going on after a crash
//! Running the same file again with the same [`JobId`] goes on with the job: chunks that the grid has are not run again. The
//! functions, their versions and the places where the file is cut are then those of the job as it was made. They are kept
//! with it; nothing else is.
//!
//! # Order
//! If a known function of the file is declared ordered, the file is one chunk and runs in its own order. It then has at most
//! [`sheaf_core::limits::ORDERED_TASKS_MAX`] commands, counting those that are not handled.
//!
//! # In two parts
//! [`run`] submits and collects at the same time, in one process that stays. Where processes come and go, [`submit_file`] does
//! the first half and [`collect_file`] the second once the job is over, each in several calls if need be. The lines are the same.

mod call;
mod collect;
mod error;
mod feed;
mod lines;
mod name;
mod packing;
mod part;
mod plan;
mod source;
mod submit;
mod transfer;

use std::{
    io::Write,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use serde::Serialize;
use sheaf_api::{
    Api,
    intake::{self, Format, IntakeError},
};
use sheaf_core::{JobId, Priority, Totals};
use tokio::task::spawn_blocking;

pub use collect::{Collecting, Collection, collect_file};
pub use error::FileError;
pub use name::is_ignored;
pub use part::{PartFile, sync_folder_of};
pub use source::{FileSource, Reopen};
pub use submit::{Checked, Resume, Submission, Submitted, submit_file};

use lines::Counts;
use plan::Plan;
use source::Reading;

/// How a file is run. Only the default function and the backlog matter to a job that exists already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileOptions {
    /// Runs the commands that name no function; none by default, so that such a file is refused.
    pub function: Option<String>,
    /// How often a command is tried if its function reports an error; 1 by default.
    pub max_attempts: Option<u32>,
    /// How urgent.
    pub priority: Priority,
    /// Work submitted ahead, in ms of all of the grid's slots: 2,000 by default. A grid takes chunks in the order they came,
    /// so this is about how long a small file waits behind a huge one. At least two chunks a slot are on their way, and no
    /// more while nothing is known of how long a function takes; at most 256.
    pub backlog_ms: u64,
}

impl Default for FileOptions {
    fn default() -> Self {
        Self { function: None, max_attempts: None, priority: Priority::default(), backlog_ms: 2_000 }
    }
}

/// How far a file has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct FileProgress {
    /// Commands in the file.
    pub commands: u64,
    /// Commands that the grid has.
    pub submitted: u64,
    /// Commands whose results were read.
    pub ended: u64,
    /// What the job's tasks have come to so far, as the grid counts them.
    pub totals: Totals,
}

/// What came of a file.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FileReport {
    /// The job; none if no function of the file is known, as in a file without commands.
    pub job: Option<JobId>,
    /// Commands in the file, each with its line in the results.
    pub commands: u64,
    /// Commands whose function is not known.
    pub not_handled: u64,
    /// What became of the others.
    pub totals: Totals,
    /// How long it took, from opening the file to its last line.
    pub seconds: f64,
}

impl FileReport {
    /// Commands a second.
    pub fn rate(&self) -> f64 {
        self.commands as f64 / self.seconds.max(f64::EPSILON)
    }
}

/// Runs a file and writes a line per command as results come, in any order. Nothing is written before the whole file has
/// been checked. `progress` is called with every page of results.
///
/// Costs two passes over the file, and per chunk one submission and one read of its results with its pack. Dropping the
/// future stops reading and writing; what was submitted goes on, and running the file again under the same job finds it.
///
/// # Errors
/// See [`FileError`]. Calls that a grid asks to repeat are repeated for a good minute. A file that turns out to be at fault
/// in its second pass (it was written to meanwhile) has its job cancelled.
pub async fn run<A: Api, W: Write + Send + 'static>(
    api: &A,
    source: FileSource,
    options: &FileOptions,
    out: W,
    progress: impl Fn(&FileProgress) + Send + Sync,
) -> Result<FileReport, FileError> {
    run_into(api, source, options, out, progress).await.map(|(_, report)| report)
}

/// Runs a file as [`run`] does, into a file: it has the results under its name, durably and in one step, when they are
/// complete. Whatever had the name before stays until then, and for good after an error.
pub async fn run_to<A: Api>(
    api: &A,
    source: FileSource,
    options: &FileOptions,
    path: &Path,
    progress: impl Fn(&FileProgress) + Send + Sync,
) -> Result<FileReport, FileError> {
    let (target, token) = (path.to_owned(), source.job.to_string());
    let create = spawn_blocking(move || PartFile::create(&target, &token));
    let part = create.await.expect("creating a file does not panic").map_err(FileError::Output)?;
    let (part, report) = run_into(api, source, options, part, progress).await?;
    let publish = spawn_blocking(move || part.publish());
    publish.await.expect("renaming a file does not panic").map_err(FileError::Output)?;
    Ok(report)
}

async fn run_into<A: Api, W: Write + Send + 'static>(
    api: &A,
    source: FileSource,
    options: &FileOptions,
    out: W,
    progress: impl Fn(&FileProgress) + Send + Sync,
) -> Result<(W, FileReport), FileError> {
    let started = Instant::now();
    let (name, job) = (&source.name, source.job);
    let format = Format::of(name)?;
    let reading = Reading::new(&source);
    let scanning = spawn_blocking({
        let (pass, function) = (reading.pass().map_err(IntakeError::Io)?, options.function.clone());
        move || intake::scan(pass, format, function.as_deref())
    });
    let scan = scanning.await.expect("scanning a file does not panic")?;
    tracing::debug!(%job, file = name, commands = scan.commands, bytes = scan.bytes, "the file is well-formed");
    let commands = scan.commands;
    let plan = Arc::new(Plan::make(api, &source, (format, scan), options).await?);
    let transferred = Box::pin(transfer::transfer(api, &reading, &plan, out, &progress)).await;
    if let Err(error) = &transferred {
        give_up(api, &plan, error).await;
    }
    let (out, counts) = transferred?;
    Ok((out, report(&plan, counts, commands, started.elapsed())?))
}

/// Cancels the job of a file that turned out to be at fault: nobody will ever submit the rest, and what was submitted must not
/// run on.
async fn give_up<A: Api>(api: &A, plan: &Plan, error: &FileError) {
    if error.is_of_the_file()
        && plan.has_tasks()
        && let Err(error) = api.cancel(plan.job).await
    {
        tracing::warn!(job = %plan.job, %error, "the job of a file that changed could not be cancelled");
    }
}

/// What came of a file, if each of its commands has its line.
fn report(plan: &Plan, counts: Counts, commands: u64, spent: Duration) -> Result<FileReport, FileError> {
    let (job, lines) = (plan.job, counts.lines());
    if lines != commands {
        return Err(FileError::Incomplete { job, lines, commands });
    }
    Ok(FileReport {
        job: plan.has_tasks().then_some(job),
        commands,
        not_handled: counts.not_handled,
        totals: counts.totals,
        seconds: spent.as_secs_f64(),
    })
}
