//! The writer: one thread that applies every write, in groups, each group one commit of the engine.
//!
//! While a group is being synced the next one gathers, so that the number of syncs does not grow with the number of
//! writes. Whoever asked is answered after the commit. After a commit that failed nothing is written any more, and every
//! request is answered with why: what cannot be made durable is never acknowledged.

use std::{
    collections::HashMap,
    ops::Range,
    sync::Arc,
    thread,
    time::{SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use sheaf_api::wire::EventView;
use sheaf_core::{
    Chunk, ChunkEvent, ChunkKey, Estimate, Event, FunctionRef, Job, JobEvent, JobId, JobRefused, Manifest, Refused,
    Summary,
};
use sheaf_protocol::{Put, StoreError, SummaryEntry, Write, WriteError, error::JobWriteError};
use tokio::sync::oneshot;

use crate::{
    engine::{Batch, EngineError, Scan, Space, behind},
    keys,
    store::{Shared, stopped},
};

/// Requests in one group. Bounds how long the first of them waits.
const GROUP_MAX: usize = 256;
/// Chunks remembered between groups, to save reading them back.
const CHUNKS_MAX: usize = 16_384;
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
    /// Makes everything so far durable.
    Sync {
        reply: Reply<Result<(), StoreError>>,
    },
}

/// Starts the writer; it ends when every sender is gone.
pub(crate) fn start(
    shared: Arc<Shared>,
    requests: flume::Receiver<Request>,
    feed: Range<u64>,
) -> thread::JoinHandle<()> {
    let ended = Ended { shared: shared.clone(), requests: requests.clone() };
    let writer = Writer {
        shared,
        chunks: HashMap::new(),
        batch: Batch::default(),
        replies: Vec::new(),
        changed: Vec::new(),
        durable: false,
        feed_first: feed.start,
        feed_next: feed.end,
        event_last: 0,
        stopped: None,
    };
    let run = move || {
        let _ended = ended;
        writer.run(&requests);
    };
    thread::Builder::new().name("sheaf-writer".into()).spawn(run).expect("a thread can be started at start-up")
}

/// What is left of the writer if it panics: it says that the store has stopped, and drops all requests, so that nobody waits
/// for ever.
struct Ended {
    shared: Arc<Shared>,
    requests: flume::Receiver<Request>,
}

impl Drop for Ended {
    fn drop(&mut self) {
        if thread::panicking() {
            self.shared.failed.send_replace(Some("its writer has a defect, and has panicked".to_owned()));
            while self.requests.recv().is_ok() {}
        }
    }
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
    /// The feed holds numbers from `feed_first` to below `feed_next`.
    feed_first: u64,
    feed_next: u64,
    event_last: u64,
    stopped: Option<StoreError>,
}

impl Writer {
    fn run(mut self, requests: &flume::Receiver<Request>) {
        while let Ok(first) = requests.recv() {
            self.handle(first);
            for request in requests.try_iter().take(GROUP_MAX - 1) {
                self.handle(request);
            }
            self.commit();
        }
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
        self.durable |= write.event.needs_durability();
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
