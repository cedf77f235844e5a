//! The desk between a call and its child: what is to be done, what is in hand, what came of it.
//!
//! The listener of a child hands tasks out and takes answers in by itself, one after the other, without waking the call in
//! between: that is what makes one invocation cheap. The call is woken when its list is done, and looks in by a timer to
//! stop what runs too long. All of it is one small state behind one lock that is never held across an await.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use bytes::Bytes;
use parking_lot::Mutex;
use sheaf_api::run::Call;
use sheaf_core::{Failure, FailureKind, TaskId, limits::PACK_BYTES_MAX};
use tokio::sync::Notify;
use uuid::Uuid;

use crate::{
    allowance::{Until, run_us},
    answer, batch,
    capture::{self, LogPipe},
    limits,
    run::Run,
};

/// What a child has in hand.
struct InHand {
    serial: u64,
    tasks: Tasks,
    started: Instant,
    until: Until,
}

enum Tasks {
    One(u32),
    Batch(Vec<u32>),
}

impl InHand {
    fn count(&self) -> u32 {
        match &self.tasks {
            Tasks::One(_) => 1,
            Tasks::Batch(tasks) => tasks.len() as u32,
        }
    }
}

/// An invocation, as the listener sends it.
pub(crate) struct Invocation {
    pub(crate) call: Arc<Call>,
    pub(crate) id: Uuid,
    pub(crate) body: Bytes,
    /// The task, or the first of a batch.
    pub(crate) task: TaskId,
    /// Where its checkpoint lies, if its function writes any.
    pub(crate) checkpoint: Option<PathBuf>,
    pub(crate) deadline_ms: u64,
}

/// What a child said of an invocation.
pub(crate) enum Said {
    /// It answered.
    Result(Bytes),
    /// It reported an error.
    Error(Failure),
    /// Its answer is beyond the limit; `Some` if it told how large it is.
    TooLarge(Option<u64>),
}

/// Why an answer is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// No invocation with this id was ever in hand, or it has been closed since.
    UnknownId,
    /// It has been answered, or it is too late for it.
    Answered,
}

/// What the call should know when it looks in.
pub(crate) enum Phase {
    /// The list is done.
    Done,
    /// The child said that it cannot start.
    InitFailed(Failure),
    /// The child can no longer be used, for no fault of a task.
    Spoiled,
    /// The child has not asked for work yet.
    Starting,
    /// The child has answered, and not yet come back.
    Between {
        /// Since when.
        since: Instant,
    },
    /// The child has a task in hand.
    Working {
        /// Which.
        serial: u64,
        /// Until when it may.
        until: Until,
    },
}

/// See the [module](self).
pub(crate) struct Desk {
    state: Mutex<State>,
    log: Arc<LogPipe>,
    /// Where the child leaves checkpoints, if it does.
    checkpoint: Option<PathBuf>,
    nonce: u64,
    /// Wakes a connection that waits for work.
    work: Notify,
    /// Wakes the call.
    pub(crate) turn: Notify,
    connections: AtomicUsize,
}

struct State {
    ready: bool,
    spoiled: bool,
    init_failure: Option<Failure>,
    serial: u64,
    /// Requests for work so far.
    asked: u64,
    in_hand: Option<InHand>,
    idle_since: Instant,
    run: Option<Run>,
}

impl Desk {
    pub(crate) fn new(log: Arc<LogPipe>, checkpoint: Option<PathBuf>) -> Self {
        let state = State {
            ready: false,
            spoiled: false,
            init_failure: None,
            serial: 0,
            asked: 0,
            in_hand: None,
            idle_since: Instant::now(),
            run: None,
        };
        let nonce = Uuid::new_v4().as_u64_pair().0;
        let (work, turn, connections) = Default::default();
        Self { state: Mutex::new(state), log, checkpoint, nonce, work, turn, connections }
    }

    // The call's side.

    /// Lays a call on the desk. What a child that has worked before printed since then belongs to nobody.
    pub(crate) fn put(&self, run: Run) {
        let mut state = self.state.lock();
        if state.ready {
            drop(self.log.cut());
        }
        state.idle_since = Instant::now();
        state.run = Some(run);
        drop(state);
        self.work.notify_waiters();
    }

    /// Takes the call back. What is in hand is nobody's from now on.
    pub(crate) fn take(&self) -> Option<Run> {
        let mut state = self.state.lock();
        state.in_hand = None;
        state.run.take()
    }

    /// Whether the child may be given more calls after this one.
    pub(crate) fn is_usable(&self) -> bool {
        let state = self.state.lock();
        state.ready && !state.spoiled && state.init_failure.is_none() && state.in_hand.is_none()
    }

    pub(crate) fn phase(&self) -> Phase {
        let state = self.state.lock();
        if let Some(failure) = &state.init_failure {
            return Phase::InitFailed(failure.clone());
        }
        if let Some(InHand { serial, until, .. }) = state.in_hand {
            return Phase::Working { serial, until };
        }
        if state.run.as_ref().is_none_or(|run| run.is_over(Instant::now())) {
            return Phase::Done;
        }
        match (state.spoiled, state.ready) {
            (true, _) => Phase::Spoiled,
            (false, true) => Phase::Between { since: state.idle_since },
            (false, false) => Phase::Starting,
        }
    }

    /// Closes what is in hand with a failure, if it still is what it was.
    pub(crate) fn fail(&self, serial: Option<u64>, failure: impl FnOnce() -> Failure) -> bool {
        let mut state = self.state.lock();
        let Some(in_hand) = state.in_hand.take_if(|in_hand| serial.is_none_or(|serial| serial == in_hand.serial))
        else {
            return false;
        };
        let log = self.log.cut();
        state.close(in_hand, Err(failure()), log);
        true
    }

    /// What was printed and belongs to no task, for the failure of a child that never got one.
    pub(crate) fn printed(&self) -> String {
        capture::text(&self.log.cut())
    }

    /// Connections of the child that are open.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    // The listener's side.

    /// Counts a connection while the guard lives.
    pub(crate) fn connect(self: &Arc<Self>) -> ConnectionGuard {
        self.connections.fetch_add(1, Ordering::Relaxed);
        ConnectionGuard(Arc::clone(self))
    }

    /// The next invocation, waited for. A child asks for one at a time: who asks again has given up on the request before,
    /// perhaps with a connection that broke, so that one is refused.
    pub(crate) async fn next(&self) -> Result<Invocation, Refused> {
        let asked = {
            let mut state = self.state.lock();
            state.asked += 1;
            state.asked
        };
        self.work.notify_waiters();
        loop {
            let work = self.work.notified();
            if let Some(invocation) = self.begin(asked)? {
                return Ok(invocation);
            }
            work.await;
        }
    }

    fn begin(&self, asked: u64) -> Result<Option<Invocation>, Refused> {
        let mut state = self.state.lock();
        if state.asked != asked {
            return Err(Refused::Answered);
        }
        state.ready = true;
        if let Some(in_hand) = state.in_hand.take() {
            let message = "the function asked for the next task without having answered this one";
            let log = self.log.cut();
            state.close(in_hand, Err(Failure::new(FailureKind::BadAnswer, message)), log);
        }
        let begun = state.begin(self.nonce, self.checkpoint.as_ref());
        if begun.is_none() && state.run.is_some() {
            drop(state);
            self.turn.notify_one();
        }
        Ok(begun)
    }

    /// Checks the id of an answer before its body is read; gives the largest body that it may have.
    pub(crate) fn expects(&self, id: Uuid) -> Result<u64, Refused> {
        let state = self.state.lock();
        let in_hand = state.check(self.nonce, id)?;
        let per_task = state.run.as_ref().map_or(0, |run| run.call.manifest.output_bytes_max);
        Ok(match in_hand.tasks {
            Tasks::One(_) => per_task,
            // So large that one answer beyond its limit does not spoil a small batch; each is held to its own limit later.
            Tasks::Batch(_) => (per_task + 1)
                .saturating_mul(u64::from(in_hand.count()))
                .clamp(limits::OVERRUN_BYTES_MAX, PACK_BYTES_MAX as u64),
        })
    }

    /// Takes an answer in.
    pub(crate) fn answer(&self, id: Uuid, said: Said) -> Result<(), Refused> {
        let log = self.log.cut();
        let mut state = self.state.lock();
        state.check(self.nonce, id)?;
        let Some(in_hand) = state.in_hand.take() else { return Err(Refused::Answered) };
        let said = match said {
            Said::Result(body) => Ok(body),
            Said::Error(failure) => Err(failure),
            Said::TooLarge(bytes) => {
                let limit = state.run.as_ref().map_or(0, |run| run.call.manifest.output_bytes_max);
                Err(answer::too_large(bytes, limit))
            }
        };
        state.close(in_hand, said, log);
        let over = state.run.as_ref().is_some_and(|run| run.is_over(Instant::now()));
        drop(state);
        if over {
            self.turn.notify_one();
        }
        Ok(())
    }

    /// The child said that it cannot start; refused once it has.
    pub(crate) fn init_failed(&self, failure: Failure) -> Result<(), Refused> {
        let mut state = self.state.lock();
        if state.ready {
            return Err(Refused::Answered);
        }
        state.init_failure.get_or_insert(failure);
        drop(state);
        self.turn.notify_one();
        Ok(())
    }

    /// The child must not be used any more.
    pub(crate) fn spoil(&self) {
        self.state.lock().spoiled = true;
        self.turn.notify_one();
    }
}

impl State {
    fn check(&self, nonce: u64, id: Uuid) -> Result<&InHand, Refused> {
        match (id.as_u64_pair(), &self.in_hand) {
            ((from, serial), Some(in_hand)) if from == nonce && serial == in_hand.serial => Ok(in_hand),
            ((from, serial), _) if from == nonce && serial <= self.serial => Err(Refused::Answered),
            _ => Err(Refused::UnknownId),
        }
    }

    fn begin(&mut self, nonce: u64, checkpoint: Option<&PathBuf>) -> Option<Invocation> {
        let now = Instant::now();
        let run = self.run.as_mut().filter(|_| !self.spoiled)?;
        let (body, tasks) = loop {
            if run.is_over(now) {
                return None;
            }
            let rest = &run.call.tasks[run.begun..];
            if !run.call.manifest.batch {
                run.begun += 1;
                break (run.call.pack.payload_bytes(rest[0]), Tasks::One(rest[0]));
            }
            let batch = batch::encode(&run.call.pack, rest, limits::BATCH_BYTES_MAX);
            run.begun += batch.taken;
            batch.refused.into_iter().for_each(|(task, failure)| run.fail(task, failure, 0));
            if !batch.tasks.is_empty() {
                break (batch.body, Tasks::Batch(batch.tasks));
            }
        };
        self.serial += 1;
        let index = match &tasks {
            Tasks::One(task) => *task,
            Tasks::Batch(tasks) => tasks[0],
        };
        let mut in_hand = InHand { serial: self.serial, tasks, started: now, until: run.allowance.until(now, 1) };
        in_hand.until = run.allowance.until(now, in_hand.count());
        let invocation = Invocation {
            call: Arc::clone(&run.call),
            id: Uuid::from_u64_pair(nonce, self.serial),
            body,
            task: TaskId { chunk: run.call.chunk, index },
            checkpoint: checkpoint.cloned(),
            deadline_ms: run.allowance.unix_ms(in_hand.until.at),
        };
        self.in_hand = Some(in_hand);
        Some(invocation)
    }

    /// Writes down what came of an invocation.
    fn close(&mut self, in_hand: InHand, said: Result<Bytes, Failure>, log: Vec<u8>) {
        self.idle_since = Instant::now();
        let Some(run) = &mut self.run else { return };
        let notes = run.call.checkpoint.as_ref().map(|checkpoint| checkpoint.take_notes()).unwrap_or_default();
        let log = if notes.is_empty() { log } else { [notes.into_bytes(), log].concat() };
        let ran_us = run_us(in_hand.started, self.idle_since);
        let first = match &in_hand.tasks {
            Tasks::One(task) => *task,
            Tasks::Batch(tasks) => tasks[0],
        };
        if !log.is_empty() {
            // A log that finds no room is dropped: the answers matter more.
            let _ = run.report.logs.succeeded(first, &log, ran_us);
        }
        let with_log = |failure: Failure| Failure { stderr: capture::text(&log), ..failure }.capped();
        match in_hand.tasks {
            Tasks::One(task) => {
                let keep = |body: Bytes| answer::keep(&run.call.manifest, &mut run.report.answers, task, &body, ran_us);
                if let Err(failure) = said.and_then(keep) {
                    run.fail(task, with_log(failure), ran_us);
                }
            }
            Tasks::Batch(tasks) => match said {
                Ok(body) => run.close_batch(&tasks, &body, ran_us / tasks.len() as u32),
                Err(failure) => run.report.unanswered = Some(with_log(failure)),
            },
        }
    }
}

/// See [`Desk::connect`].
pub(crate) struct ConnectionGuard(Arc<Desk>);

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}
