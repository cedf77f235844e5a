//! Runs functions for a worker: child processes on the Lambda Runtime API, commands, handlers linked in.
//!
//! A [`Host`] is given [calls](sheaf_api::run::Call): some tasks of one chunk, all of one function. It runs them one after
//! the other and [reports](sheaf_api::run::Report) what came of each. It knows nothing of leases, retries or stores, and
//! never tries a task twice.
//!
//! ```
//! use std::sync::Arc;
//! use sheaf_api::PackBuilder;
//! use sheaf_core::{ChunkKey, FunctionKind, JobId, Manifest};
//! use sheaf_host::{Call, Handler, Handlers, Host, HostOptions};
//!
//! # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! let shout = Handler::new(|_, payload, result| {
//!     result.extend(payload.to_ascii_uppercase());
//!     Ok(())
//! });
//! let handlers = Handlers::new().with("shout".parse()?, shout);
//! let host = Host::open(HostOptions::builder().scratch(dir.path()).handlers(handlers).build())?;
//!
//! let manifest = Manifest::new("shout".parse()?, FunctionKind::Handler { revision: String::new() });
//! let mut pack = PackBuilder::new();
//! pack.push(b"hello")?;
//! let report = host
//!     .call(Call {
//!         tenant: Default::default(),
//!         function: manifest.reference(b"the manifest's canonical bytes"),
//!         manifest: Arc::new(manifest),
//!         chunk: ChunkKey { job: JobId::from_bytes([1; 16]), number: 0 },
//!         epoch: 1,
//!         pack: pack.finish(false),
//!         tasks: vec![0],
//!         deadline_ms: None,
//!         budget: None,
//!         stop_on_failure: false,
//!         checkpoint: None,
//!     })
//!     .await;
//! assert_eq!(report.answers.tasks(), 1);
//! host.shutdown().await;
//! # Ok(()) }
//! ```
//!
//! # Packages
//! A package is a zip with an executable `bootstrap` at its top that speaks the public **Lambda Runtime API**: what
//! `cargo lambda` builds for Rust, what custom runtimes of Python, Node and Go start from. It is unpacked once, started
//! with the package's directory as its working directory, and kept warm: the next call of the same function version takes
//! it again. A child that has been idle for [`HostOptions`]' time is stopped, as is the one longest idle when another
//! function needs its slot.
//!
//! - *Environment*: what Lambda defines (`AWS_LAMBDA_RUNTIME_API`, `_HANDLER`, `LAMBDA_TASK_ROOT`,
//!   `AWS_LAMBDA_FUNCTION_NAME`, `…_VERSION`, `…_MEMORY_SIZE`, `AWS_LAMBDA_LOG_GROUP_NAME`, `…_STREAM_NAME`,
//!   `AWS_REGION=local`), `PATH`, `LANG`, `TZ`, `HOME` and `TMPDIR` (a fresh directory, removed with the child), and the
//!   manifest's own, which wins. Nothing is inherited, credentials least of all.
//! - *Invocations*: the payload's bytes are the event. Job, task, epoch and key come as the client context's `custom`
//!   members. The result is kept as it is sent, after a check that it has the form that the manifest declares.
//! - *Batches*: with `batch = true` a whole call is one invocation; see [`batch`].
//! - *Logs*: what is printed between the start of a task and its answer is that task's, the last
//!   [`LOG_BYTES_MAX`](sheaf_core::limits::LOG_BYTES_MAX) bytes of stdout and stderr together. What is printed while
//!   starting belongs to the first task. A child may print as much as it likes; it is read and dropped.
//!
//! # Commands
//! A process per task: arguments with placeholders (see [`sheaf_core::FunctionKind::Command`]), or the payload on stdin;
//! stdout is the result, without one newline at its end when the result is text; stderr is the log. The working directory,
//! `HOME` and `TMPDIR` are fresh. `SHEAF_TASK` and `SHEAF_EPOCH` name the task. No shell is involved, and a value that
//! fills a placeholder stays one argument.
//!
//! # Checkpoints
//! A function whose manifest has `checkpoint_every_ms` may leave a **checkpoint**: a file from which the next attempt at its task
//! goes on. `SHEAF_CHECKPOINT` is the file's path (a command also finds it as `{checkpoint}`, a package as the member
//! `checkpoint` of the client context's `custom`). If an earlier attempt left one, it is there when the task starts. The
//! function replaces it at any time by **writing beside it and renaming**; one that changes while it is read is not kept, nor
//! is one of more than [`CHECKPOINT_BYTES_MAX`](sheaf_core::limits::CHECKPOINT_BYTES_MAX), which the task's log tells.
//!
//! The file is looked at every `checkpoint_every_ms`, and when the task ends without a result. When the worker has to stop,
//! the process that the host started (not its children) is sent **`SIGUSR1`**: it should write a checkpoint at once, and need
//! not end; it is ended as soon as the checkpoint is read, and how it ends is then not counted. Functions that declare no
//! checkpoints are never sent it. A handler is given the same through [`TaskContext::restored`], [`TaskContext::save`] and
//! [`TaskContext::is_asked`].
//!
//! A task that is tried again after an error, too, finds its last checkpoint. Its timeout begins anew with each attempt.
//!
//! # Lambda functions by ARN
//! Invoked through the host's [`Invoker`], one request per task, or per batch with `batch = true`. The event is the payload as
//! it is when it is JSON, and as a JSON string when it is other UTF-8 text; the client context is as for packages, without a
//! key that would make it too long. The log is what the service tells of it, its last 4 KB.
//!
//! An invocation that is throttled is tried again for a while, and then its tasks count as not started: that costs them
//! neither an attempt nor a strike. Time spent so is not the function's. A function that outlasts the manifest's timeout, or
//! whose caller goes away, runs on where it runs, up to its own timeout; nobody can stop it. It runs with its own rights: the
//! host has no credentials to give.
//!
//! # Handlers
//! Rust functions linked into the grid's process; see [`Handler`] for their forms. They are trusted: what they answer is
//! not checked for its form, memory is not watched, and a handler that does not return keeps its thread. At most
//! [`limits::THREADS_LEFT_MAX`] such threads are tolerated before calls are refused.
//!
//! # How tasks fail
//! | what happened | kind |
//! |---|---|
//! | the function reported an error; a command's exit code is not 0 | `error` |
//! | the process ended by itself under a task | `exited` |
//! | it was ended by a signal that the host did not send | `killed` |
//! | the timeout or the job's deadline passed | `timed_out` |
//! | its processes together held more memory than the limit when looked at (every 50 ms) | `out_of_memory` |
//! | the answer is larger than the limit | `output_too_large` |
//! | the answer is not of its form, a batch's is not an array of the same length, or the function asked for its next task without answering | `bad_answer` |
//! | the package, program or handler is not there, cannot be started, or does not ask for work within 10 s | `not_started` |
//! | an ARN is refused: no such function, no right to invoke it | `not_started` |
//! | the answer to an invocation of an ARN was lost with its connection; it may have run | `bad_answer` |
//!
//! When a process dies under a task that task fails and the rest goes on in a fresh process. Two things fail as a whole and
//! are told in [`Report::unanswered`](sheaf_api::run::Report): a function that could not be started (none of the tasks
//! without an answer ran), and a batch whose process died, timed out or reported an error (nobody knows which task is
//! guilty).
//!
//! # What is and is not isolated
//! Children run as the host's own user, each in a process group of its own. They have no inherited environment, no
//! inherited files, and limits on time, memory and output. They are **not** separated by namespaces: they share the
//! network and the file system, including `/tmp`, other packages and the processes of other functions of the same user.
//! The Runtime API's port is open to all processes of that user (on Linux, others are
//! refused). Processes that leave their group
//! are found as long as their parents live; one that detaches completely outlives its task. Isolation between tenants who
//! do not trust each other is the business of the machine or container around a worker.
//!
//! Elsewhere than on Linux there is no `/proc`: memory is not watched, and a killed host's children are not found.
//!
//! A host that is killed leaves its children behind; the next one to open the same directory ends them.

mod allowance;
mod answer;
pub mod batch;
mod capture;
mod checkpoint;
mod child;
mod command;
mod desk;
mod handler;
mod host;
mod invoke;
pub mod limits;
mod linked;
mod package;
mod peer;
mod placeholder;
mod pool;
mod proc_table;
mod process;
mod run;
mod runtime_api;
mod scratch;
mod threads;

pub use handler::{Handler, HandlerBatch, Handlers, TaskContext};
pub use host::{Host, HostError, HostOptions};
pub use package::{NoPackages, PackageSource};
pub use sheaf_api::{
    invoke::{Invocation, Invoked, Invoker, Invoking, NotInvoked},
    run::{Call, Failed, Report},
};
