//! The work step, as `shared/protocol/src/work`: receive → T2 or T3 → read the job → run → put the blob → T5, T6, T7, T8 →
//! delete or postpone the hint. One call of a port is one atomic step; what needs none is part of the step before.

use sheaf_core::{Chunk, ChunkState, EndReason, Evidence, Lease, Mark, Refused, limits};

use super::{
    Broken, Bug, Grid, Note, Protocol, TASKS, Told, Untold,
    ask::{Ask, Fence, Part, Tasks, What, members},
    store::Blob,
    time::NOW_MS,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Worker {
    /// The chunk whose hint it has received.
    pub(crate) hint: Option<u8>,
    pub(crate) step: Step,
}

/// What a worker does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Step {
    /// Receives a hint.
    Idle,
    /// T2 or T3.
    Claim(Ask),
    /// Reads the job.
    ReadJob(Held),
    /// Runs tasks and stores their results.
    Run(Held),
    /// T5 to T8.
    Write(Held, Ask),
    /// T9.
    End(Ask),
    /// Has the outcome of a second copy, and nothing else of its chunk.
    Copied(u8),
    /// Deletes the hint.
    Delete,
    /// Gives the hint of a released chunk back.
    GiveBack,
    /// Postpones the hint: at once, since a worker that dies before is as one that died before it asked.
    Postpone,
}

/// What a worker knows of the chunk that it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Held {
    chunk: u8,
    fence: Fence,
    until_ms: u64,
    /// Tasks without a committed outcome.
    open: Tasks,
    /// Tasks with an outcome that is not committed yet; and those of them that were struck too often.
    pending: Tasks,
    quarantined: Tasks,
    isolated: bool,
    marked: Option<u32>,
    segments: u32,
}

impl Held {
    fn new(number: u8, chunk: &Chunk) -> Self {
        let Lease { attempt, until_ms, .. } = chunk.lease().expect("a claim answers a held chunk");
        let strikes = |task: u32| chunk.work.tallies.get(&task).map_or(0, |tally| tally.strikes);
        let condemned = (0..TASKS).filter(|&task| strikes(task) >= limits::STRIKES_MAX).map(|task| 1 << task).sum();
        Self {
            chunk: number,
            fence: Fence { epoch: attempt.epoch, nonce: attempt.owner.nonce, rv: chunk.rv },
            until_ms: *until_ms,
            open: open(chunk),
            pending: condemned,
            quarantined: condemned,
            isolated: chunk.is_isolated(),
            marked: None,
            segments: 0,
        }
    }

    /// The tasks to run.
    const fn waiting(&self) -> Tasks {
        self.open & !self.pending
    }

    fn part(&self) -> Option<Part> {
        let Self { segments: number, pending: tasks, quarantined, .. } = *self;
        (tasks != 0).then_some(Part { number, tasks, quarantined })
    }
}

fn open(chunk: &Chunk) -> Tasks {
    (0..TASKS).filter(|&task| chunk.work.marks.get(task) == Mark::Open).map(|task| 1 << task).sum()
}

impl Worker {
    pub(crate) const IDLE: Self = Self { hint: None, step: Step::Idle };

    pub(crate) const fn ask(&self) -> Option<Ask> {
        match self.step {
            Step::Claim(ask) | Step::Write(_, ask) | Step::End(ask) => Some(ask),
            Step::Idle | Step::ReadJob(_) | Step::Run(_) | Step::Copied(_) => None,
            Step::Delete | Step::GiveBack | Step::Postpone => None,
        }
    }

    pub(crate) const fn held(&self) -> Option<&Held> {
        match &self.step {
            Step::ReadJob(held) | Step::Run(held) | Step::Write(held, _) => Some(held),
            Step::Idle | Step::Claim(_) | Step::End(_) | Step::Copied(_) => None,
            Step::Delete | Step::GiveBack | Step::Postpone => None,
        }
    }

    /// The chunk that it believes to hold, and by which attempt.
    pub(crate) fn holds(&self) -> Option<(u8, Fence)> {
        self.held().map(|held| (held.chunk, held.fence))
    }

    pub(crate) const fn age(&mut self) {
        match &mut self.step {
            Step::Claim(ask) | Step::End(ask) => ask.age(),
            Step::ReadJob(held) | Step::Run(held) => super::time::age(&mut held.until_ms),
            Step::Write(held, ask) => {
                super::time::age(&mut held.until_ms);
                ask.age();
            }
            Step::Idle | Step::Copied(_) | Step::Delete | Step::GiveBack | Step::Postpone => {}
        }
    }

    /// Whether it may renew its lease to some effect.
    pub(crate) const fn may_renew(&self) -> bool {
        matches!(self.step, Step::Run(held) if held.until_ms < NOW_MS + limits::LEASE_MS)
    }

    /// Whether it may commit before it goes on with other tasks.
    pub(crate) const fn may_commit_some(&self) -> bool {
        match self.step {
            Step::Run(held) => !held.isolated && held.waiting().count_ones() > 1,
            _ => false,
        }
    }
}

impl Grid {
    pub(crate) fn receive(&mut self, at: &Protocol, worker: usize, hint: usize) {
        let chunk = self.hints.remove(hint).chunk;
        let claim = Ask::new(chunk, What::Claim { nonce: self.nonce() });
        let kept = at.bug != Some(Bug::HintDeletedWhenReceived);
        self.workers[worker] = Worker { hint: kept.then_some(chunk), step: Step::Claim(claim) };
    }

    pub(super) fn work(&mut self, at: &Protocol, worker: usize, told: Option<Told>) {
        let step = self.workers[worker].step;
        let next = match step {
            Step::Idle => return,
            Step::Copied(chunk) => self.copied(at, chunk),
            Step::Claim(ask) => self.claimed(at, ask, told.expect("a write is told of")),
            Step::ReadJob(held) => {
                let cancelled = self.store.job.state.is_cancelled() && at.bug != Some(Bug::JobNotRead);
                if cancelled { end(held.chunk, EndReason::Cancelled) } else { Step::Run(held) }
            }
            Step::Run(held) => self.run(at, held),
            Step::Write(held, ask) => self.written(held, ask, told.expect("a write is told of")),
            Step::End(ask) => ended(at, ask, told.expect("a write is told of")),
            Step::Delete => {
                let number = self.workers[worker].hint;
                let open = number.and_then(|chunk| self.store.chunk(chunk)).is_some_and(|chunk| !chunk.is_final());
                if open {
                    self.store.break_promise(Broken::HintDeletedWhileOpen, format!("of chunk {number:?}"));
                }
                return self.workers[worker] = Worker::IDLE;
            }
            Step::GiveBack | Step::Postpone => return self.postpone(worker, false),
        };
        self.go_on(worker, next);
    }

    fn go_on(&mut self, worker: usize, next: Step) {
        match next {
            Step::Postpone => self.postpone(worker, true),
            next => self.workers[worker].step = next,
        }
    }

    fn postpone(&mut self, worker: usize, later: bool) {
        let hint = self.workers[worker].hint;
        self.workers[worker] = Worker::IDLE;
        if let Some(chunk) = hint {
            self.hints.push(super::Hint { chunk, later });
        }
    }

    /// `claim.rs`.
    fn claimed(&mut self, at: &Protocol, ask: Ask, told: Told) -> Step {
        let (reason, current) = match told {
            Ok(chunk) => {
                if matches!(ask.what, What::TakeOver { evidence: Evidence::Outrun, .. }) {
                    self.store.note = Some(Note::Outrun);
                }
                return Step::ReadJob(Held::new(ask.chunk, &chunk));
            }
            Err(Untold::GaveUp) => return Step::Postpone,
            Err(Untold::Refused(reason, current)) => (reason, current),
        };
        let nonce = ask.nonce();
        let mine = current.as_deref().and_then(Chunk::lease).is_some_and(|it| Some(it.attempt.owner.nonce) == nonce);
        if mine {
            self.store.break_promise(Broken::HolderGaveUp, format!("{ask:?} was applied and is taken for refused"));
        }
        if matches!(ask.what, What::TakeOver { .. }) {
            return match reason {
                Refused::Final | Refused::Absent => Step::Delete,
                Refused::PastDeadline => end(ask.chunk, EndReason::Expired),
                _ => Step::Postpone,
            };
        }
        let Some(chunk) = current else { return Step::Delete };
        match &chunk.state {
            _ if reason == Refused::PastDeadline => end(ask.chunk, EndReason::Expired),
            ChunkState::Done { .. } | ChunkState::Ended { .. } => Step::Delete,
            ChunkState::Queued { .. } => Step::Postpone,
            ChunkState::Leased(lease) => self.take_over(at, ask, lease),
        }
    }

    fn take_over(&mut self, at: &Protocol, claim: Ask, lease: &Lease) -> Step {
        let owner = &lease.attempt.owner;
        let owner_gone = at.bounds.owner_gone && !self.workers.iter().any(|worker| worker.knows(owner.nonce));
        if !owner_gone && claim.at_ms <= lease.until_ms + limits::CLOCK_MARGIN_MS {
            self.store.note = Some(Note::DuplicatePostponed);
            let delete = at.bug == Some(Bug::DuplicateDeleted);
            return if delete { Step::Delete } else { Step::Postpone };
        }
        let nonce = claim.nonce().expect("a claim has one");
        let evidence = if owner_gone { Evidence::OwnerGone } else { Evidence::LeaseOver };
        Step::Claim(Ask { what: take_over(nonce, lease, evidence), ..claim })
    }

    /// `copy.rs`: with the outcome at hand it takes the chunk, from whoever has it. The outcome is that of the attempt that
    /// commits it: it is run again here, which is as good.
    fn copied(&self, at: &Protocol, number: u8) -> Step {
        let Some(chunk) = self.store.chunk(number).filter(|chunk| !chunk.is_final()) else { return Step::Delete };
        let what = match chunk.lease() {
            Some(_) if at.bug == Some(Bug::CopyCommitsAsOwner) => return Step::Run(Held::new(number, chunk)),
            Some(lease) => take_over(self.nonce(), lease, Evidence::Outrun),
            None => What::Claim { nonce: self.nonce() },
        };
        Step::Claim(Ask::new(number, what))
    }

    /// One turn of `Run::run_all`.
    fn run(&mut self, at: &Protocol, mut held: Held) -> Step {
        let expired = self.store.job.options.deadline_ms.is_some_and(|deadline_ms| NOW_MS >= deadline_ms);
        if held.waiting() == 0 {
            let part = self.put(at, &held);
            return write(held, What::Finish { fence: held.fence, part });
        }
        if expired {
            return match self.put(at, &held) {
                Some(part) => write(held, What::Segment { fence: held.fence, part }),
                None => end(held.chunk, EndReason::Expired),
            };
        }
        if held.isolated && at.bug != Some(Bug::NoIsolation) {
            let task = held.waiting().trailing_zeros();
            if held.marked != Some(task) {
                // The next task may be the one that kills: what is done is committed before.
                if let Some(part) = self.put(at, &held) {
                    return write(held, What::Segment { fence: held.fence, part });
                }
                return write(held, What::Mark { fence: held.fence, task });
            }
            return self.run_tasks(at, &mut held, 1 << task).unwrap_or(Step::Run(held));
        }
        let all = held.waiting();
        self.run_tasks(at, &mut held, all).unwrap_or_else(|| {
            let part = self.put(at, &held);
            write(held, What::Finish { fence: held.fence, part })
        })
    }

    /// Runs tasks; answers what comes of a worker that did not survive it.
    fn run_tasks(&mut self, at: &Protocol, held: &mut Held, tasks: Tasks) -> Option<Step> {
        let kills = |task| at.bounds.poison == Some((held.chunk, task));
        if members(tasks).any(kills) {
            self.deaths += 1;
            if self.deaths > POISON_DEATHS_MAX {
                self.store.break_promise(Broken::PoisonKillsOn, format!("{} workers", self.deaths));
            }
            return Some(Step::Postpone);
        }
        held.pending |= tasks;
        held.marked = None;
        None
    }

    /// Puts the blob of what is pending.
    fn put(&mut self, at: &Protocol, held: &Held) -> Option<Part> {
        let part = held.part()?;
        if at.bug != Some(Bug::CommitWithoutBlob) {
            let Fence { epoch, nonce, .. } = held.fence;
            self.store.blobs.insert(Blob { chunk: held.chunk, epoch, nonce, part });
        }
        Some(part)
    }

    fn written(&mut self, mut held: Held, ask: Ask, told: Told) -> Step {
        let chunk = match told {
            Ok(chunk) => chunk,
            Err(Untold::GaveUp) => return Step::Postpone,
            Err(Untold::Refused(reason, current)) => return self.lost(&held, ask, reason, current.as_deref()),
        };
        match ask.what {
            What::Finish { .. } => return Step::Delete,
            What::Release { .. } => return Step::GiveBack,
            What::Mark { task, .. } => held.marked = Some(task),
            What::Segment { .. } => {
                (held.pending, held.quarantined, held.marked) = (0, 0, None);
                held.segments += 1;
            }
            What::Submit
            | What::Claim { .. }
            | What::TakeOver { .. }
            | What::Heartbeat { .. }
            | What::End { .. }
            | What::Touch { .. } => unreachable!("not what a holder writes"),
        }
        held.fence.rv = chunk.rv;
        held.open = open(&chunk);
        held.until_ms = chunk.lease().map_or(held.until_ms, |lease| lease.until_ms);
        Step::Run(held)
    }

    /// The attempt is over. It had better be so.
    fn lost(&mut self, held: &Held, ask: Ask, reason: Refused, current: Option<&Chunk>) -> Step {
        let mine = |state: &ChunkState| match state {
            ChunkState::Leased(lease) => lease.attempt == held.fence.attempt(),
            ChunkState::Done { attempt, .. } => *attempt == held.fence.attempt(),
            ChunkState::Queued { .. } | ChunkState::Ended { .. } => false,
        };
        if current.is_some_and(|chunk| mine(&chunk.state)) {
            self.store.break_promise(Broken::HolderGaveUp, format!("{ask:?} was refused: {reason}"));
        }
        let cancelled =
            current.is_some_and(|chunk| matches!(chunk.state, ChunkState::Ended { reason: EndReason::Cancelled, .. }));
        self.store.note = Some(if cancelled { Note::CancelWon } else { Note::LateWriteRefused });
        Step::Postpone
    }

    pub(crate) fn heartbeat(&mut self, at: &Protocol, worker: usize) {
        let Step::Run(mut held) = self.workers[worker].step else { return };
        let ask = Ask::new(held.chunk, What::Heartbeat { fence: held.fence });
        let event = ask.event(&self.store);
        match self.store.write(at.bug, held.chunk, &event) {
            Ok(chunk) => {
                held.until_ms = chunk.lease().map_or(held.until_ms, |lease| lease.until_ms);
                self.workers[worker].step = Step::Run(held);
            }
            Err((reason, current)) => {
                self.lost(&held, ask, reason, current.as_deref());
                self.postpone(worker, true);
            }
        }
    }

    /// Runs one task, commits it and goes on.
    pub(crate) fn commit_some(&mut self, at: &Protocol, worker: usize) {
        let Step::Run(mut held) = self.workers[worker].step else { return };
        let first = held.waiting() & held.waiting().wrapping_neg();
        let next = self.run_tasks(at, &mut held, first).or_else(|| {
            let part = self.put(at, &held)?;
            Some(write(held, What::Segment { fence: held.fence, part }))
        });
        self.go_on(worker, next.expect("there is something to commit"));
    }

    /// The worker is told to stop and gives its chunk back.
    pub(crate) fn drain(&mut self, at: &Protocol, worker: usize) {
        let Step::Run(held) = self.workers[worker].step else { return };
        let part = self.put(at, &held);
        self.workers[worker].step = write(held, What::Release { fence: held.fence, part });
    }
}

/// Deaths that convict a poison task: so many make a chunk suspect, and so many more are strikes of its own.
const POISON_DEATHS_MAX: u8 = limits::CRASHES_BEFORE_ISOLATION + limits::STRIKES_MAX;

impl Worker {
    /// Whether this nonce is of an attempt of its own.
    pub(crate) fn knows(&self, nonce: u64) -> bool {
        self.held().is_some_and(|held| held.fence.nonce == nonce)
            || self.ask().is_some_and(|ask| ask.nonce() == Some(nonce))
    }
}

/// Whether a second copy may be run of what is open of a chunk: a single task of a worker that lives, and none that has killed one.
pub(crate) fn is_copyable(chunk: &Chunk) -> bool {
    chunk.lease().is_some() && chunk.only_open().is_some() && chunk.work.crashes == 0
}

fn take_over(nonce: u64, lease: &Lease, evidence: Evidence) -> What {
    let seen = &lease.attempt;
    What::TakeOver {
        nonce,
        seen_epoch: seen.epoch,
        seen_nonce: seen.owner.nonce,
        seen_until_ms: lease.until_ms,
        evidence,
    }
}

fn write(held: Held, what: What) -> Step {
    Step::Write(held, Ask::new(held.chunk, what))
}

const fn end(chunk: u8, reason: EndReason) -> Step {
    Step::End(Ask::new(chunk, What::End { reason }))
}

/// What becomes of the hint after T9: a worker deletes it when it knows that the chunk is final.
fn ended(at: &Protocol, ask: Ask, told: Told) -> Step {
    let cancelled = matches!(ask.what, What::End { reason: EndReason::Cancelled });
    match told {
        Ok(_) | Err(Untold::Refused(Refused::Final | Refused::Absent, _)) => Step::Delete,
        Err(_) if cancelled && at.bug == Some(Bug::HintDeletedUnsure) => Step::Delete,
        Err(_) => Step::Postpone,
    }
}
