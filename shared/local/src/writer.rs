//! The writer: one thread that applies every write, in groups, each group one commit of the engine.
//!
//! While a group is being synced the next one gathers, so that the number of syncs does not grow with the number of
//! writes. Whoever asked is answered after the commit. After a commit that failed nothing is written any more, and every
//! request is answered with why: what cannot be made durable is never acknowledged.
//!
//! A submission with a small pack is written without a sync, so that its chunk can begin, and asks for one when it settles. That
//! sync waits a moment: where the task is short, its end arrives meanwhile, and one sync serves both. What needs no sync is
//! written by whoever asks, if the thread has nothing to do: that is every chunk's write where nothing waits for the disk.

use std::{
    collections::HashMap,
    ops::Range,
    panic::{self, AssertUnwindSafe},
    sync::{Arc, atomic::Ordering},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use sheaf_api::wire::EventView;
use sheaf_core::{
    Chunk, ChunkEvent, ChunkKey, Estimate, Event, FunctionRef, Job, JobEvent, JobId, JobRefused, Manifest, Refused,
    Summary,
};
use sheaf_protocol::{Put, StoreError, SummaryEntry, Write, WriteError, error::JobWriteError};
use tokio::sync::oneshot;

use crate::{
    engine::{Batch, Engine, EngineError, Scan, Space, behind},
    keys,
    store::{Shared, stopped},
};

/// Requests that may wait for the writer; senders wait beyond it.
const REQUESTS_MAX: usize = 4_096;
/// Writes of a request that is done at once where nothing else is to be done.
const QUICK_WRITES_MAX: usize = 4;
/// Requests in one group. Bounds how long the first of them waits.
const GROUP_MAX: usize = 256;
/// Chunks remembered between groups, to save reading them back.
const CHUNKS_MAX: usize = 16_384;
/// How long the sync of a submission is put off, so that the end of its task may share it: longer than a short task takes from one
/// to the other, and about what the sync itself takes.
const SETTLES_WITHIN: Duration = Duration::from_micros(400);
/// After a wait for nothing one submission is not put off, then two, and so on, up to this.
const NOT_WAITED_MAX: u32 = 64;
/// Rows removed in one go when a job is forgotten.
const REMOVE_MAX: usize = 5_000;

type Reply<T> = oneshot::Sender<T>;

/// What the writer is asked.
pub(crate) enum Request {
    CreateJob {
        job: Box<Job>,
        reply: Reply<Result<Job, StoreError>>,
    },
    ApplyJob {
        id: JobId,
        event: JobEvent,
        reply: Reply<Result<Job, JobWriteError>>,
    },
    DeleteJob {
        id: JobId,
        reply: Reply<Result<(), StoreError>>,
    },
    Apply {
        writes: Vec<Write>,
        reply: Reply<Vec<Result<Chunk, WriteError>>>,
    },
    Summarise {
        job: JobId,
        entries: Vec<SummaryEntry>,
        reply: Reply<Result<Summary, StoreError>>,
    },
    FeedTaken {
        until: u64,
    },
    PutBlobs {
        blobs: Vec<(String, Bytes)>,
        reply: Reply<Vec<Result<Put, StoreError>>>,
    },
    RemoveBlobs {
        prefix: String,
        reply: Reply<Result<(), StoreError>>,
    },
    PutFunction {
        reference: FunctionRef,
        manifest: Box<Manifest>,
        reply: Reply<Result<(), StoreError>>,
    },
    PutEstimates {
        estimates: Vec<(FunctionRef, Estimate)>,
    },
    /// Commits what somebody else has left to the writer.
    Commit,
    /// Answers once the submissions so far are durable.
    Settle {
        reply: Reply<Result<(), StoreError>>,
    },
    /// Makes everything so far durable.
    Sync {
        reply: Reply<Result<(), StoreError>>,
    },
}

impl Request {
    /// Whether it takes no longer than waking a thread, and waits for no disk.
    fn is_quick(&self, engine: &dyn Engine) -> bool {
        match self {
            Self::Apply { writes, .. } => {
                let waits = |write: &Write| engine.waits() && !is_unsynced(write, engine);
                writes.len() <= QUICK_WRITES_MAX && !writes.iter().any(waits)
            }
            Self::Summarise { entries, .. } => entries.len() <= QUICK_WRITES_MAX,
            Self::FeedTaken { .. } => true,
            _ => false,
        }
    }
}

/// Whether a write is answered before it is synced: what is only ordered before what follows, and a submission that is still to
/// settle, unless its pack may be one that is not laid down without a sync.
fn is_unsynced(write: &Write, engine: &dyn Engine) -> bool {
    match &write.event {
        ChunkEvent::Submit { .. } => !engine.holds_back(),
        event => !event.needs_durability(),
    }
}

/// Where requests are handed over. Cloning shares it.
#[derive(Clone)]
pub(crate) struct Requests {
    writer: Arc<Mutex<Writer>>,
    sender: flume::Sender<Request>,
}

impl Requests {
    /// Hands over a request; whether there still is a writer.
    pub(crate) async fn send(&self, request: Request) -> bool {
        match self.write_now(request) {
            None => true,
            Some(request) => self.sender.send_async(request).await.is_ok(),
        }
    }

    /// Writes what is quick on this thread, if the writer has nothing to do: else two threads would be woken for it. Gives back
    /// what is for the writer.
    fn write_now(&self, request: Request) -> Option<Request> {
        let Some(mut writer) = self.writer.try_lock() else { return Some(request) };
        if !self.sender.is_empty() || !request.is_quick(&*writer.shared.engine) {
            return Some(request);
        }
        let written = panic::catch_unwind(AssertUnwindSafe(|| {
            writer.handle(request);
            match writer.durable && writer.shared.engine.waits() {
                false => writer.commit(),
                // It was refused for something that must be made durable first. Where there is no room, a commit comes anyway.
                true => drop(self.sender.try_send(Request::Commit)),
            }
        }));
        if written.is_err() {
            writer.has_panicked();
        }
        None
    }

    /// Lets the writer end when it has done what it was given.
    pub(crate) fn close(&mut self) {
        self.sender = flume::bounded(0).0;
    }
}

/// Starts the writer; it ends when every sender is gone.
pub(crate) fn start(shared: Arc<Shared>, feed: Range<u64>) -> (Requests, thread::JoinHandle<()>) {
    let (sender, receiver) = flume::bounded(REQUESTS_MAX);
    let writer = Arc::new(Mutex::new(Writer {
        shared,
        chunks: HashMap::new(),
        batch: Batch::default(),
        replies: Vec::new(),
        changed: Vec::new(),
        durable: false,
        settling: Vec::new(),
        waits: Waits::default(),
        feed_first: feed.start,
        feed_next: feed.end,
        event_last: 0,
        stopped: None,
    }));
    let requests = Requests { writer: writer.clone(), sender };
    let run = move || {
        if panic::catch_unwind(AssertUnwindSafe(|| Writer::run(&writer, &receiver))).is_err() {
            writer.lock().has_panicked();
            // Nobody waits for ever.
            while receiver.recv().is_ok() {}
        }
    };
    let thread = thread::Builder::new().name("sheaf-writer".into()).spawn(run);
    (requests, thread.expect("a thread can be started at start-up"))
}

/// Answers one request, given how the commit of its group went.
type Answer = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

struct Writer {
    shared: Arc<Shared>,
    chunks: HashMap<ChunkKey, Chunk>,
    batch: Batch,
    replies: Vec<Answer>,
    /// Chunks of this group that the result step must look at.
    changed: Vec<ChunkKey>,
    durable: bool,
    /// Who waits for the next sync, without being in a hurry for it.
    settling: Vec<Reply<Result<(), StoreError>>>,
    waits: Waits,
    /// The feed holds numbers from `feed_first` to below `feed_next`.
    feed_first: u64,
    feed_next: u64,
    event_last: u64,
    stopped: Option<StoreError>,
}

impl Writer {
    fn run(this: &Mutex<Self>, requests: &flume::Receiver<Request>) {
        while let Ok(first) = requests.recv() {
            let mut writer = this.lock();
            writer.take(first, requests);
            if !writer.settling.is_empty() && writer.is_unsettled() && !writer.durable {
                Self::put_off(&mut writer, requests);
                writer.durable = true;
            }
            writer.commit();
        }
    }

    /// Takes in what is there, as a group.
    fn take(&mut self, first: Request, requests: &flume::Receiver<Request>) {
        self.handle(first);
        for request in requests.try_iter().take(GROUP_MAX - 1) {
            self.handle(request);
        }
    }

    /// Lets what was submitted begin, and waits a moment for something else that must be synced, if that is likely to come.
    fn put_off(writer: &mut MutexGuard<'_, Self>, requests: &flume::Receiver<Request>) {
        if !writer.waits.is_worth_it() {
            return;
        }
        let until = Instant::now() + SETTLES_WITHIN;
        while !writer.durable {
            writer.commit();
            let Ok(request) = MutexGuard::unlocked(writer, || requests.recv_deadline(until)) else { break };
            writer.take(request, requests);
        }
        let paid = writer.durable;
        writer.waits.told(paid);
    }

    fn is_unsettled(&self) -> bool {
        self.shared.unsettled.load(Ordering::Acquire)
    }

    fn commit(&mut self) {
        let fed = !self.changed.is_empty();
        if fed {
            let keys = std::mem::take(&mut self.changed);
            self.batch.put(Space::Feed, self.feed_next.to_be_bytes(), keys::encode_keys(&keys));
            self.feed_next += 1;
        }
        let batch = std::mem::take(&mut self.batch);
        let durable = std::mem::take(&mut self.durable);
        let mut outcome = self.stopped.clone().map_or(Ok(()), Err);
        if outcome.is_ok() && (durable || !batch.rows.is_empty()) {
            outcome = self.shared.engine.commit(batch, durable).map_err(|error| self.stop(&error));
        }
        self.replies.drain(..).for_each(|reply| reply(outcome.clone()));
        if durable && outcome.is_ok() {
            self.shared.unsettled.store(false, Ordering::Release);
        }
        if outcome.is_err() || !self.is_unsettled() {
            // A receiver that is gone has stopped waiting.
            self.settling.drain(..).for_each(|reply| drop(reply.send(outcome.clone())));
        }
        self.shared.summaries.trim();
        if self.chunks.len() > CHUNKS_MAX {
            self.chunks.clear();
        }
        if fed && outcome.is_ok() {
            self.shared.feed.send_replace(self.feed_next);
        }
    }

    fn stop(&mut self, error: &EngineError) -> StoreError {
        tracing::error!(%error, "the store has stopped: a write failed, and nothing is acknowledged from now on");
        let error = stopped(error.clone());
        self.stopped = Some(error.clone());
        self.shared.failed.send_replace(Some(error.to_string()));
        error
    }

    /// Drops what was not committed, with everybody who waits for it.
    fn has_panicked(&mut self) {
        (self.batch, self.replies, self.settling) = Default::default();
        self.stop(&EngineError("its writer has a defect, and has panicked".to_owned()));
    }

    /// Answers after the commit: with `answer` if it went well, else with the error.
    fn reply<T: Send + 'static, E: From<StoreError> + Send + 'static>(
        &mut self,
        reply: Reply<Result<T, E>>,
        answer: Result<T, E>,
    ) {
        self.replies.push(Box::new(move |committed| {
            // A receiver that is gone has stopped waiting; what it asked for has happened all the same.
            let _ = reply.send(committed.map_err(E::from).and(answer));
        }));
    }

    fn handle(&mut self, request: Request) {
        match request {
            Request::CreateJob { job, reply } => {
                let answer = self.create_job(*job);
                self.reply(reply, answer);
            }
            Request::ApplyJob { id, event, reply } => {
                let answer = self.apply_job(id, event);
                self.reply(reply, answer);
            }
            Request::DeleteJob { id, reply } => {
                let answer = self.delete_job(id);
                self.reply(reply, answer);
            }
            Request::Apply { writes, reply } => {
                let answers: Vec<_> = writes.iter().map(|write| self.apply(write)).collect();
                self.replies.push(Box::new(move |committed| {
                    let _ = reply.send(match committed {
                        Ok(()) => answers,
                        Err(error) => answers.iter().map(|_| Err(error.clone().into())).collect(),
                    });
                }));
            }
            Request::Summarise { job, entries, reply } => {
                let answer = self.summarise(job, &entries);
                self.reply(reply, answer);
            }
            Request::FeedTaken { until } => self.feed_taken(until),
            Request::PutBlobs { blobs, reply } => {
                let answers: Vec<_> = blobs.iter().map(|(key, bytes)| self.put_blob(key, bytes)).collect();
                let _ = reply.send(answers);
            }
            Request::RemoveBlobs { prefix, reply } => {
                let answer = self.remove_blobs(&prefix);
                self.reply(reply, answer);
            }
            Request::PutFunction { reference, manifest, reply } => {
                self.batch.put(Space::Things, keys::function(&reference), keys::encode_json(&*manifest));
                self.batch.put(Space::Things, keys::newest(&reference.name), reference.to_string());
                self.durable = true;
                self.reply(reply, Ok::<_, StoreError>(()));
            }
            Request::PutEstimates { estimates } => {
                for (reference, estimate) in estimates {
                    self.batch.put(Space::Things, keys::estimate(&reference), keys::encode_json(&estimate));
                }
            }
            Request::Commit => self.durable = true,
            Request::Settle { reply } => self.settling.push(reply),
            Request::Sync { reply } => {
                self.durable = true;
                self.reply(reply, Ok::<_, StoreError>(()));
            }
        }
    }

    fn create_job(&mut self, job: Job) -> Result<Job, StoreError> {
        if let Some(existing) = self.shared.job(job.id)? {
            return Ok(existing);
        }
        self.batch.put(Space::Things, keys::created(job.created_at_ms, job.id), []);
        self.put_job(&job);
        self.event(job.id, Event::JobCreated);
        Ok(job)
    }

    fn put_job(&mut self, job: &Job) {
        self.batch.put(Space::Things, keys::job(job.id), keys::encode_json(job));
        match job.state.ended_at_ms() {
            None => self.batch.put(Space::Things, keys::alive(job.id), []),
            Some(_) => self.batch.remove(Space::Things, keys::alive(job.id)),
        }
        self.shared.jobs.write().insert(job.id, job.clone());
        self.durable = true;
        let shared = self.shared.clone();
        let id = job.id;
        let over = job.state.ended_at_ms().is_some();
        self.replies.push(Box::new(move |_| {
            if over {
                shared.jobs.write().remove(&id);
            }
            shared.changes.send_modify(|version| *version += 1);
        }));
    }

    fn apply_job(&mut self, id: JobId, event: JobEvent) -> Result<Job, JobWriteError> {
        let job = self.shared.job(id)?.ok_or(JobWriteError::Refused(JobRefused::Absent))?;
        let job = job.apply(&event).map_err(JobWriteError::Refused)?;
        self.put_job(&job);
        self.event(id, Event::of_job(&event));
        Ok(job)
    }

    fn delete_job(&mut self, id: JobId) -> Result<(), StoreError> {
        let Some(job) = self.shared.job(id)? else { return Ok(()) };
        let end = behind(id.as_bytes());
        for space in [Space::Chunks, Space::Sums, Space::Events] {
            loop {
                let rows =
                    self.shared.engine.scan(space, Scan::new(id.as_bytes(), &end, REMOVE_MAX)).map_err(stopped)?;
                let mut batch = Batch::default();
                rows.iter().for_each(|(key, _)| batch.remove(space, key.clone()));
                self.shared.engine.commit(batch, false).map_err(|error| self.stop(&error))?;
                if rows.len() < REMOVE_MAX {
                    break;
                }
            }
        }
        self.chunks.retain(|key, _| key.job != id);
        self.shared.summaries.forget(id);
        self.shared.jobs.write().remove(&id);
        for key in [keys::job(id), keys::alive(id), keys::created(job.created_at_ms, id)] {
            self.batch.remove(Space::Things, key);
        }
        self.durable = true;
        Ok(())
    }

    fn chunk(&self, key: ChunkKey) -> Result<Option<Chunk>, StoreError> {
        match self.chunks.get(&key) {
            Some(chunk) => Ok(Some(chunk.clone())),
            None => self.shared.chunk(key),
        }
    }

    fn apply(&mut self, write: &Write) -> Result<Chunk, WriteError> {
        let current = self.chunk(write.key)?;
        let after = match Chunk::apply(current.as_ref(), &write.event) {
            Ok(after) => after,
            Err(reason) => {
                // Who is told that something is so must be able to rely on it.
                self.durable |= matches!(reason, Refused::Exists | Refused::Final);
                return Err(WriteError::Refused { reason, current: current.map(Box::new) });
            }
        };
        debug_assert_eq!(sheaf_core::invariant::check_write(current.as_ref(), &after), Ok(()));
        let before_due = current.as_ref().and_then(Chunk::due);
        if before_due != after.due() {
            before_due.into_iter().for_each(|due| self.batch.remove(Space::Due, keys::due(due, write.key)));
            after.due().into_iter().for_each(|due| self.batch.put(Space::Due, keys::due(due, write.key), []));
        }
        self.batch.put(Space::Chunks, keys::chunk(write.key), keys::encode_chunk(&after));
        match (is_unsynced(write, &*self.shared.engine), &write.event) {
            (false, _) => self.durable = true,
            (true, ChunkEvent::Submit { .. }) => {
                self.shared.unsettled.store(self.shared.engine.waits(), Ordering::Release);
            }
            (true, _) => {}
        }
        if after.is_final() || matches!(write.event, ChunkEvent::Submit { .. }) {
            self.changed.push(write.key);
        }
        Event::of_chunk(&write.event, &after).for_each(|event| self.event(write.key.job, event));
        self.chunks.insert(write.key, after.clone());
        Ok(after)
    }

    /// Events are numbered by their time in µs, moved on where two fall together.
    fn event(&mut self, job: JobId, event: Event) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let number = (now.as_micros() as u64).max(self.event_last + 1);
        self.event_last = number;
        let view = EventView { number, at_ms: now.as_millis() as u64, job, event };
        self.batch.put(Space::Events, keys::event(job, number), keys::encode_json(&view));
    }

    /// Entries that are counted already change nothing. Not durable by itself: after a power cut the feed, which is, brings
    /// them again.
    fn summarise(&mut self, job: JobId, entries: &[SummaryEntry]) -> Result<Summary, StoreError> {
        let tally = self.shared.summaries.of(&*self.shared.engine, job)?;
        let mut tally = tally.lock();
        for entry in entries {
            if tally.add(entry) {
                let key = keys::chunk(ChunkKey { job, number: entry.number });
                self.batch.put(Space::Sums, key, keys::encode_sum(entry.tasks, entry.ended));
            }
        }
        let shared = self.shared.clone();
        self.replies.push(Box::new(move |_| shared.changes.send_modify(|version| *version += 1)));
        Ok(tally.summary)
    }

    fn feed_taken(&mut self, until: u64) {
        for number in self.feed_first..until {
            self.batch.remove(Space::Feed, number.to_be_bytes());
        }
        self.feed_first = self.feed_first.max(until);
    }

    fn put_blob(&mut self, key: &str, bytes: &Bytes) -> Result<Put, StoreError> {
        if let Some(error) = &self.stopped {
            return Err(error.clone());
        }
        let created = self.shared.engine.put_blob(key, bytes).map_err(|error| self.stop(&error))?;
        Ok(if created { Put::Created } else { Put::Exists })
    }

    fn remove_blobs(&mut self, prefix: &str) -> Result<(), StoreError> {
        while self.shared.engine.remove_blobs(prefix).map_err(|error| self.stop(&error))? {}
        Ok(())
    }
}

/// Whether it is worth it to put off the sync of a submission: for as long as it was the last time.
#[derive(Default)]
struct Waits {
    /// How many were not put off after the last wait, which was for nothing.
    after: u32,
    /// How many are still not to be put off.
    left: u32,
}

impl Waits {
    fn is_worth_it(&mut self) -> bool {
        let now = self.left == 0;
        self.left = self.left.saturating_sub(1);
        now
    }

    fn told(&mut self, paid: bool) {
        self.after = if paid { 0 } else { (self.after * 2).clamp(1, NOT_WAITED_MAX) };
        self.left = self.after;
    }
}
