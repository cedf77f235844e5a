//! Functions that are linked into the grid's process: what they look like, and where they are found by name.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use bytes::Bytes;
use futures::future::BoxFuture;
use parking_lot::RwLock;
use sheaf_api::{
    FormatError, Pack, SegmentBuilder,
    checkpoint::{Checkpoint, Written},
    run::{Call, Failed},
};
use sheaf_core::{Failure, FailureKind, FunctionName, TaskId, limits::CHECKPOINT_BYTES_MAX};

/// Which task a handler runs.
#[derive(Clone)]
pub struct TaskContext {
    /// The task; in a batch, the first.
    pub task: TaskId,
    /// The attempt's epoch: grows each time that the task's chunk is run again.
    pub epoch: u32,
    pub(crate) pack: Pack,
    pub(crate) stopped: Arc<AtomicBool>,
    checkpoint: Option<Arc<Checkpoint>>,
    began: Instant,
}

impl TaskContext {
    pub(crate) fn of(call: &Call, stopped: Arc<AtomicBool>) -> Self {
        let index = call.tasks.first().copied().unwrap_or_default();
        let task = TaskId { chunk: call.chunk, index };
        let (pack, checkpoint) = (call.pack.clone(), call.checkpoint.clone());
        Self { task, epoch: call.epoch, pack, stopped, checkpoint, began: Instant::now() }
    }

    /// The user's key of the task; empty when it has none.
    pub fn key(&self) -> &str {
        self.pack.key(self.task.index)
    }

    /// Whether nobody waits for the task any more: it ran out of time, its job was cancelled, or the grid is shutting
    /// down. A handler that takes long should look now and then, and return anything: nothing else can stop it.
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// The checkpoint that an earlier attempt at the task [left](Self::save), for a function that is declared to write them.
    pub fn restored(&self) -> Option<&Bytes> {
        self.checkpoint.as_ref()?.restored.as_ref()
    }

    /// Leaves a checkpoint, from which the task's next attempt goes on. It is stored as often as the manifest says; of those
    /// left in between, the last counts. False if it is not kept: it has more than
    /// [`CHECKPOINT_BYTES_MAX`](sheaf_core::limits::CHECKPOINT_BYTES_MAX) bytes, or the function is not declared to write them.
    pub fn save(&self, bytes: Bytes) -> bool {
        let Some(checkpoint) = self.checkpoint.as_ref().filter(|_| bytes.len() <= CHECKPOINT_BYTES_MAX) else {
            return false;
        };
        checkpoint.lay(Written { bytes, run_ms: self.began.elapsed().as_millis() as u64 });
        true
    }

    /// Whether the worker has to stop, and wants a last checkpoint: a handler [leaves](Self::save) one and returns an error,
    /// which is not counted.
    pub fn is_asked(&self) -> bool {
        self.checkpoint.as_ref().is_some_and(|checkpoint| checkpoint.is_asked())
    }
}

impl fmt::Debug for TaskContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskContext").field("task", &self.task).field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

type SyncForm = dyn Fn(&TaskContext, &[u8], &mut Vec<u8>) -> Result<(), Failure> + Send + Sync;
type AsyncForm = dyn Fn(TaskContext, Bytes) -> BoxFuture<'static, Result<Bytes, Failure>> + Send + Sync;
type BatchForm = dyn Fn(&mut HandlerBatch<'_>) -> Result<(), Failure> + Send + Sync;

/// A function that is linked in. Cloning shares it.
#[derive(Clone)]
pub struct Handler(pub(crate) Form);

#[derive(Clone)]
pub(crate) enum Form {
    Sync(Arc<SyncForm>),
    Async(Arc<AsyncForm>),
    Batch(Arc<BatchForm>),
}

impl Handler {
    /// The fast form: takes a payload and appends the result to a buffer. It runs on a thread that may block, once per
    /// task, without an allocation in between. A panic fails its task with `panic`.
    ///
    /// A thread cannot be stopped from outside: after the timeout its task fails, and the thread goes on until the handler
    /// returns (see [`TaskContext::is_stopped`]).
    pub fn new(run: impl Fn(&TaskContext, &[u8], &mut Vec<u8>) -> Result<(), Failure> + Send + Sync + 'static) -> Self {
        Self(Form::Sync(Arc::new(run)))
    }

    /// The form for handlers that wait rather than compute: a future per task, on the grid's runtime, dropped at the
    /// timeout.
    pub fn new_async<F>(run: impl Fn(TaskContext, Bytes) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Bytes, Failure>> + Send + 'static,
    {
        Self(Form::Async(Arc::new(move |context, payload| Box::pin(run(context, payload)))))
    }

    /// The form that sees all tasks of a call at once, on a thread that may block. An error fails, and a panic leaves
    /// unanswered, whatever it has not answered by then.
    pub fn new_batch(run: impl Fn(&mut HandlerBatch<'_>) -> Result<(), Failure> + Send + Sync + 'static) -> Self {
        Self(Form::Batch(Arc::new(run)))
    }
}

impl fmt::Debug for Handler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Form::Sync(_) => "Handler(sync)",
            Form::Async(_) => "Handler(async)",
            Form::Batch(_) => "Handler(batch)",
        })
    }
}

/// The handlers of a grid, by name and revision. Cloning shares them, so that more can be added while the grid runs.
#[derive(Debug, Default, Clone)]
pub struct Handlers {
    by_name: Arc<RwLock<HashMap<(FunctionName, String), Handler>>>,
}

impl Handlers {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a handler under a name and a revision (empty if nothing distinguishes it from earlier ones), in place of one
    /// that was there.
    pub fn insert(&self, name: FunctionName, revision: impl Into<String>, handler: Handler) {
        self.by_name.write().insert((name, revision.into()), handler);
    }

    /// The same, in a chain of calls.
    #[must_use]
    pub fn with(self, name: FunctionName, handler: Handler) -> Self {
        self.insert(name, "", handler);
        self
    }

    /// The handler of this name and revision.
    pub fn get(&self, name: &FunctionName, revision: &str) -> Option<Handler> {
        self.by_name.read().get(&(name.clone(), revision.to_owned())).cloned()
    }
}

/// The tasks of a call, for a handler that takes them all at once. Each task is answered once; later answers to the same
/// task are ignored, and tasks without an answer fail with `bad_answer`.
pub struct HandlerBatch<'a> {
    pub(crate) context: &'a TaskContext,
    pub(crate) tasks: &'a [u32],
    pub(crate) output_bytes_max: u64,
    pub(crate) answered: Vec<u64>,
    pub(crate) answers: SegmentBuilder,
    pub(crate) failures: Vec<Failed>,
}

impl<'a> HandlerBatch<'a> {
    pub(crate) fn new(context: &'a TaskContext, tasks: &'a [u32], output_bytes_max: u64) -> Self {
        // Tasks of the chunk that are not in this call count as answered, so that they stay untouched.
        let mut answered = vec![u64::MAX; (context.pack.tasks() as usize).div_ceil(64)];
        tasks.iter().for_each(|&task| answered[task as usize / 64] &= !(1 << (task % 64)));
        let (answers, failures) = Default::default();
        Self { context, tasks, output_bytes_max, answered, answers, failures }
    }

    /// Which tasks these are.
    pub fn context(&self) -> &'a TaskContext {
        self.context
    }

    /// The tasks: their index in the chunk, and their payload.
    pub fn tasks(&self) -> impl ExactSizeIterator<Item = (u32, &'a [u8])> + use<'a> {
        let context = self.context;
        self.tasks.iter().map(move |&task| (task, context.pack.payload(task)))
    }

    /// Answers a task with a result.
    pub fn succeed(&mut self, task: u32, result: &[u8]) {
        self.succeed_with(task, |answer| {
            answer.extend_from_slice(result);
            Ok(())
        });
    }

    /// Answers a task with what `write` appends to a buffer, or with its failure.
    pub fn succeed_with(&mut self, task: u32, write: impl FnOnce(&mut Vec<u8>) -> Result<(), Failure>) {
        if !self.claim(task) {
            return;
        }
        let limit = self.output_bytes_max;
        let kept = self.answers.succeeded_with(
            task,
            || 0,
            |answers| {
                let before = answers.len();
                write(answers).map_err(Kept::Failed)?;
                let bytes = (answers.len() - before) as u64;
                if bytes > limit { Err(Kept::Failed(crate::answer::too_large(Some(bytes), limit))) } else { Ok(()) }
            },
        );
        match kept {
            Ok(()) => {}
            Err(Kept::Failed(failure)) => self.push(task, failure),
            Err(Kept::Full(error)) => self.push(task, Failure::new(FailureKind::OutputTooLarge, error.to_string())),
        }
    }

    /// Answers a task with a failure.
    pub fn fail(&mut self, task: u32, failure: Failure) {
        if self.claim(task) {
            self.push(task, failure);
        }
    }

    fn push(&mut self, task: u32, failure: Failure) {
        self.failures.push(Failed { task, failure: failure.capped(), run_us: 0 });
    }

    /// Whether the task is open and of this call; it is not from now on.
    fn claim(&mut self, task: u32) -> bool {
        let Some(bits) = self.answered.get_mut(task as usize / 64) else { return false };
        let bit = 1 << (task % 64);
        let open = *bits & bit == 0;
        *bits |= bit;
        open
    }

    pub(crate) fn open(&self) -> impl Iterator<Item = u32> + '_ {
        self.tasks.iter().copied().filter(|&task| self.answered[task as usize / 64] & 1 << (task % 64) == 0)
    }
}

impl fmt::Debug for HandlerBatch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HandlerBatch({} tasks)", self.tasks.len())
    }
}

/// Why a result was not kept.
enum Kept {
    Failed(Failure),
    Full(FormatError),
}

impl From<FormatError> for Kept {
    fn from(error: FormatError) -> Self {
        Self::Full(error)
    }
}
