//! The protocol as a small model that is explored exhaustively.
//!
//! A state holds what is stored, as real values of `sheaf-core` ([`store`]), the hints under way, and how far each actor has
//! come. A worker ([`worker`]), the client ([`client`]), a canceller ([`cancel`]), the result step and the sweeper
//! ([`house`]) take one atomic step at a time, in the order of the production steps in `shared/protocol`, and everything is
//! tried in every order, with every fault that [`Bounds`] allow. Each write goes through `Chunk::apply` or `Job::apply` and
//! is checked by `sheaf_core::invariant`.
//!
//! What keeps it small: the workers are alike (all have one worker's id, so that only the nonce tells their attempts apart);
//! time is only ever how old things are ([`time`]); and a step that commutes with all that others may do is taken at once.
//!
//! What is left out: users' errors and back-off, quotas, retention, tenants, estimates; and throttling, which only delays.

mod ask;
mod cancel;
mod client;
mod house;
mod settle;
mod store;
mod time;
mod worker;

use std::{
    collections::{HashMap, HashSet},
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, Mutex, PoisonError},
};

use sheaf_core::{Chunk, JobEvent, JobState, Mark, Refused, invariant};
use stateright::{Model, Property};

use ask::{Ask, What};
use cancel::{Canceller, Carry};
use client::Client;
use house::{Summariser, Sweeper};
use store::Store;
use worker::{Step, Worker};

/// Tasks of each chunk.
const TASKS: u32 = 2;

/// How much is explored.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Bounds {
    pub(crate) chunks: u8,
    pub(crate) workers: usize,
    /// Claims and takeovers of one chunk.
    pub(crate) epochs: u32,
    /// Deaths between any two steps: of workers, or of anybody.
    pub(crate) crashes: u8,
    pub(crate) anybody_crashes: bool,
    /// Hints that the queue delivers twice.
    pub(crate) duplicates: u8,
    /// Answers of writes that are lost, so that the author asks again; or asks no more, without knowing.
    pub(crate) lost: u8,
    pub(crate) gives_up: bool,
    /// Writes that arrive once more, at any later time.
    pub(crate) ghosts: u8,
    /// Workers that are told to stop while they run a chunk.
    pub(crate) drains: u8,
    /// Second copies of a chunk's only open task.
    pub(crate) copies: u8,
    /// Steps of time, each a lease long. When nothing else goes on, time has no end.
    pub(crate) steps: u8,
    /// Chunks that the sweeper looks at before that.
    pub(crate) sweeps: u8,
    /// Hints that the queue holds; further ones are dropped.
    pub(crate) hints: usize,
    pub(crate) canceller: bool,
    /// Whether workers renew leases, and commit some tasks before others.
    pub(crate) heartbeats: bool,
    pub(crate) segments: bool,
    /// The job's deadline, in steps of time from the beginning.
    pub(crate) deadline: Option<u64>,
    /// A task that kills whoever runs it: its chunk and its number.
    pub(crate) poison: Option<(u8, u32)>,
    /// Whether the store knows that an owner's process is gone, as the embedded one does.
    pub(crate) owner_gone: bool,
    /// Whether steps that commute with all others are taken in one order only.
    pub(crate) reduced: bool,
}

/// A mistake planted in the protocol; each must be found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bug {
    /// A worker that was fenced off commits as if its attempt held the chunk.
    CommitWithoutFence,
    /// T3 renews the lease of the attempt that is gone, and makes no new one.
    TakeOverUnfenced,
    /// T8 names a segment whose blob is not stored.
    CommitWithoutBlob,
    /// T1 does not ask whether there is a chunk.
    SubmitWithoutCondition,
    /// T1 comes before the payload is durable.
    PackAfterSubmit,
    /// A chunk is acknowledged when its payload is durable.
    AcknowledgedBeforeSubmit,
    /// T9 does not ask whether the chunk is final.
    EndOverwrites,
    /// A worker deletes the hint before its chunk is final.
    HintDeletedWhenReceived,
    /// A worker deletes the duplicate hint of a chunk that another holds.
    DuplicateDeleted,
    /// The summary is a counter, not a set.
    SummaryIsCounter,
    /// The job is closed whatever the summary counts.
    DoneUncounted,
    /// The seal does not look whether all chunks have ended.
    SealDoesNotLook,
    /// The job is said to be cancelled before its chunks are ended.
    CancelCompleteEarly,
    /// A failed condition is taken for a refusal without looking whether the write is one's own.
    OwnWriteNotRecognised,
    /// The job is not read after a claim.
    JobNotRead,
    /// The sweeper moves the due time of a chunk and sends no hint.
    SweeperSendsNothing,
    /// A chunk is not isolated, whatever dies under it.
    NoIsolation,
    /// A second copy commits by the attempt of the chunk's living owner, which it does not take over.
    CopyCommitsAsOwner,
    /// A worker that finds its job cancelled deletes the hint although it does not know whether its T9 was applied.
    HintDeletedUnsure,
    /// The sweeper does not carry out the wishes of cancellers that died.
    WishForgotten,
}

/// A promise that can be broken by an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Broken {
    Write,
    OutcomeChanged,
    VisibleAfterCancel,
    CancelledEarly,
    HolderGaveUp,
    HintDeletedWhileOpen,
    PoisonKillsOn,
}

/// Something that must be seen to happen, lest the model be too small for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Note {
    JobDone,
    TookOver,
    LateWriteRefused,
    DuplicatePostponed,
    LostAnswerRecognised,
    CancelWon,
    Outrun,
}

/// What may still go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Faults {
    crashes: u8,
    duplicates: u8,
    lost: u8,
    ghosts: u8,
    drains: u8,
    copies: u8,
    steps: u8,
    sweeps: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Hint {
    chunk: u8,
    /// Postponed: it is delivered when time has passed.
    later: bool,
}

/// A state of everything.
#[derive(Debug, Clone, PartialEq, Hash)]
pub(crate) struct Grid {
    store: Store,
    hints: Vec<Hint>,
    client: Client,
    canceller: Canceller,
    summariser: Summariser,
    sweeper: Sweeper,
    /// Sorted: they are alike.
    workers: Vec<Worker>,
    faults: Faults,
    /// A write that the network will deliver once more.
    ghost: Option<Ask>,
    /// Chunks that the client was told are accepted.
    acknowledged: u8,
    /// Workers that the poison task has killed.
    deaths: u8,
    /// The action made no difference.
    moot: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Actor {
    Client,
    Canceller,
    Summariser,
    Sweeper,
    Worker(usize),
}

/// One atomic step of somebody, or a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// An actor goes on; and what becomes of the write, if it is one.
    Step(Actor, Fate),
    /// Somebody wants the job cancelled.
    Cancel,
    TakeIn((u8, bool)),
    Look(u8),
    SweepCancelled,
    Receive {
        worker: usize,
        hint: usize,
        /// The queue will deliver it once more.
        twice: bool,
    },
    Heartbeat(usize),
    CommitSome(usize),
    Drain(usize),
    /// A worker has run a second copy of a chunk's only open task.
    Copy {
        worker: usize,
        chunk: u8,
    },
    /// An actor dies and another takes its place; the hint that it held is delivered again, or lost.
    Crash {
        actor: Actor,
        keeps_hint: bool,
    },
    LandGhost,
    TimePasses,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Answered,
    /// Applied; the answer is lost, and the author asks again.
    AnswerLost,
    /// The author has asked often enough.
    GivesUp {
        applied: bool,
    },
    /// Applied and answered; the network keeps a copy.
    Doubled,
}

/// What the author of a write knows in the end.
type Told = Result<Arc<Chunk>, Untold>;

#[derive(Debug)]
enum Untold {
    Refused(Refused, Option<Arc<Chunk>>),
    GaveUp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum JobTold {
    Applied,
    Refused,
    AnswerLost,
    GaveUp,
}

/// The model.
#[derive(Debug, Clone)]
pub(crate) struct Protocol {
    bounds: Bounds,
    bug: Option<Bug>,
    /// Stores that were checked, by their hash: many states share one.
    worlds: Arc<Mutex<HashMap<u64, bool>>>,
    /// States known to come to an end, by their hash.
    settled: Arc<Mutex<HashSet<u64>>>,
}

/// Takes one from a budget, unless it is unlimited.
const fn spend(budget: &mut u8) {
    if *budget != u8::MAX {
        *budget -= 1;
    }
}

fn hash_of(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

impl Grid {
    fn new(bounds: &Bounds) -> Self {
        let Bounds { crashes, duplicates, lost, ghosts, drains, copies, steps, sweeps, .. } = *bounds;
        let store = Store::new(bounds);
        Self {
            store,
            hints: Vec::new(),
            client: Client::Put(0),
            canceller: Canceller::Idle,
            summariser: Summariser::Idle,
            sweeper: Sweeper::Idle,
            workers: vec![Worker::IDLE; bounds.workers],
            faults: Faults { crashes, duplicates, lost, ghosts, drains, copies, steps, sweeps },
            ghost: None,
            acknowledged: 0,
            deaths: 0,
            moot: false,
        }
    }

    /// One write of a chunk; `None` if its author asks again.
    fn write(&mut self, at: &Protocol, ask: Ask, fate: Fate) -> Option<Told> {
        let event = ask.event(&self.store);
        let lands = matches!(fate, Fate::Answered | Fate::AnswerLost | Fate::Doubled | Fate::GivesUp { applied: true });
        if fate != Fate::Answered && lands && Chunk::apply(self.store.chunk(ask.chunk), &event).is_err() {
            self.moot = true;
            return None;
        }
        let answer = lands.then(|| self.store.write(at.bug, ask.chunk, &event));
        match fate {
            Fate::Answered => {}
            Fate::AnswerLost => {
                self.faults.lost -= 1;
                return None;
            }
            Fate::GivesUp { .. } => {
                self.faults.lost -= 1;
                return Some(Err(Untold::GaveUp));
            }
            Fate::Doubled => {
                self.faults.ghosts -= 1;
                self.ghost = Some(ask);
            }
        }
        answer.map(|answer| answer.map_err(|(reason, current)| Untold::Refused(reason, current)))
    }

    /// One write of the job.
    fn write_job(&mut self, event: &JobEvent, fate: Fate) -> JobTold {
        let applies = self.store.job.apply(event).is_ok();
        match fate {
            Fate::Answered => {}
            Fate::Doubled => self.moot = true,
            Fate::AnswerLost | Fate::GivesUp { applied: true } => {
                self.moot = !applies;
                self.faults.lost -= 1;
            }
            Fate::GivesUp { applied: false } => {
                self.faults.lost -= 1;
                return JobTold::GaveUp;
            }
        }
        match (fate, self.store.write_job(event)) {
            (Fate::AnswerLost, _) => JobTold::AnswerLost,
            (Fate::GivesUp { .. }, _) => JobTold::GaveUp,
            (Fate::Answered | Fate::Doubled, Ok(())) => JobTold::Applied,
            (Fate::Answered | Fate::Doubled, Err(_)) => JobTold::Refused,
        }
    }

    fn send(&mut self, at: &Protocol, chunk: u8) {
        if self.hints.len() < at.bounds.hints {
            self.hints.push(Hint { chunk, later: false });
        }
    }

    /// The least nonce that nothing names any more. A random one is as good as one that was never used.
    fn nonce(&self) -> u64 {
        let named = |nonce: u64| {
            let in_chunk = |chunk: &Chunk| {
                chunk.lease().is_some_and(|lease| lease.attempt.owner.nonce == nonce)
                    || chunk.work.segments.iter().any(|segment| segment.nonce == nonce)
            };
            self.store.all().any(in_chunk)
                || self.workers.iter().any(|worker| worker.knows(nonce))
                || self.ghost.is_some_and(|ask| ask.nonce() == Some(nonce))
        };
        (0..).find(|&nonce| !named(nonce)).expect("there are few")
    }

    /// The write of a chunk or the job that an actor is about to make, if it is about to make one.
    fn writes(&self, actor: Actor) -> Option<Option<Ask>> {
        let carry = |carry: Carry| carry.writes().then(|| carry.ask());
        match actor {
            Actor::Client => match self.client {
                Client::Submit(ask) => Some(Some(ask)),
                Client::Seal | Client::Complete => Some(None),
                Client::Put(_) | Client::Hint(_) | Client::ReadSummary | Client::Over => None,
            },
            Actor::Canceller => match self.canceller {
                Canceller::Wish => Some(None),
                Canceller::Carry(step) => carry(step),
                Canceller::Idle | Canceller::Over => None,
            },
            Actor::Summariser => match self.summariser {
                Summariser::Complete { .. } => Some(None),
                Summariser::Carry { carry: step, .. } => carry(step),
                Summariser::Idle | Summariser::ReadJob { .. } | Summariser::ReadSummary { .. } => None,
            },
            Actor::Sweeper => match self.sweeper {
                Sweeper::Write { ask, .. } => Some(Some(ask)),
                Sweeper::Carry(step) => carry(step),
                Sweeper::Idle | Sweeper::Send(_) => None,
            },
            Actor::Worker(worker) => self.workers[worker].ask().map(Some),
        }
    }

    fn is_idle(&self, actor: Actor) -> bool {
        match actor {
            Actor::Client => self.client == Client::Over,
            Actor::Canceller => matches!(self.canceller, Canceller::Idle | Canceller::Over),
            Actor::Summariser => self.summariser == Summariser::Idle,
            Actor::Sweeper => self.sweeper == Sweeper::Idle,
            Actor::Worker(worker) => self.workers[worker].step == Step::Idle,
        }
    }

    fn actors(&self) -> impl Iterator<Item = Actor> + use<> {
        let workers = (0..self.workers.len()).map(Actor::Worker);
        [Actor::Canceller, Actor::Client].into_iter().chain(workers).chain([Actor::Summariser, Actor::Sweeper])
    }

    /// Whether an actor's next step gives the same in whatever order it and the steps of others are taken: what it changes
    /// is read by nobody else, and it reads what nobody else changes.
    fn commutes(&self, at: &Protocol, actor: Actor) -> bool {
        let quiet = !at.bounds.canceller;
        match actor {
            Actor::Client => match self.client {
                // The job stays open until this client seals it, or somebody cancels it.
                Client::Put(_) => quiet,
                Client::Hint(_) => true,
                Client::Submit(_) | Client::Seal | Client::ReadSummary | Client::Complete | Client::Over => false,
            },
            Actor::Canceller => false,
            // Only a cancellation reads how many chunks the summary counts as submitted.
            Actor::Summariser => matches!(self.summariser, Summariser::ReadJob { change: (_, false), .. }) && quiet,
            Actor::Sweeper => matches!(self.sweeper, Sweeper::Send(_)),
            Actor::Worker(worker) => match self.workers[worker].step {
                Step::Delete | Step::GiveBack => true,
                Step::ReadJob(_) => quiet,
                Step::Run(_) => at.bounds.deadline.is_none() && !at.interrupts(),
                Step::Idle | Step::Copied(_) | Step::Claim(_) | Step::Write(..) | Step::End(_) | Step::Postpone => {
                    false
                }
            },
        }
    }

    fn step(&mut self, at: &Protocol, actor: Actor, fate: Fate) {
        match actor {
            Actor::Client => self.submit(at, fate),
            Actor::Canceller => self.cancel(at, fate),
            Actor::Summariser => self.summarise(at, fate),
            Actor::Sweeper => self.sweep(at, fate),
            Actor::Worker(worker) => {
                let told = match self.workers[worker].ask() {
                    Some(ask) => match self.write(at, ask, fate) {
                        Some(told) => Some(told),
                        None => return,
                    },
                    None => None,
                };
                self.work(at, worker, told);
            }
        }
    }

    fn crash(&mut self, actor: Actor, keeps_hint: bool) {
        self.faults.crashes -= 1;
        match actor {
            Actor::Client => self.client = Client::Put(0),
            Actor::Canceller => self.canceller = Canceller::Over,
            Actor::Summariser => self.summariser = Summariser::Idle,
            Actor::Sweeper => self.sweeper = Sweeper::Idle,
            Actor::Worker(worker) => {
                let hint = self.workers[worker].hint;
                self.workers[worker] = Worker::IDLE;
                self.hints.extend(hint.filter(|_| keeps_hint).map(|chunk| Hint { chunk, later: true }));
            }
        }
    }

    fn time_passes(&mut self) {
        self.store.age();
        self.hints.iter_mut().for_each(|hint| hint.later = false);
        self.workers.iter_mut().for_each(Worker::age);
        self.ghost.iter_mut().for_each(Ask::age);
        if let Client::Submit(ask) = &mut self.client {
            ask.age();
        }
        if let Sweeper::Write { ask, .. } = &mut self.sweeper {
            ask.age();
        }
    }

    /// How many attempts could commit now.
    fn committers(&self, at: &Protocol) -> usize {
        let could = |(chunk, fence): (u8, ask::Fence)| {
            let release = Ask::new(chunk, What::Release { fence, part: None }).event(&self.store);
            Chunk::apply(self.store.chunk(chunk), &release).is_ok()
        };
        let most = |number: u8| {
            let holders = self.workers.iter().filter_map(Worker::holds).filter(|(chunk, _)| *chunk == number);
            holders.filter(|&holder| could(holder)).count()
        };
        (0..at.bounds.chunks).map(most).max().unwrap_or_default()
    }
}

impl Protocol {
    pub(crate) fn new(bounds: Bounds, bug: Option<Bug>) -> Self {
        let (worlds, settled) = Default::default();
        Self { bounds, bug, worlds, settled }
    }

    /// The state after an action; `None` if that is the same.
    fn after(&self, before: &Grid, action: Action) -> Option<Grid> {
        let mut grid = before.clone();
        grid.store.note = None;
        match action {
            Action::Step(actor, fate) => grid.step(self, actor, fate),
            Action::Cancel => grid.canceller = Canceller::Wish,
            Action::TakeIn(change) => grid.take_in(self, change),
            Action::Look(chunk) => {
                spend(&mut grid.faults.sweeps);
                grid.look(self, chunk);
            }
            Action::SweepCancelled => {
                spend(&mut grid.faults.sweeps);
                grid.sweeper = Sweeper::Carry(Carry::ReadJob);
            }
            Action::Receive { worker, hint, twice } => {
                if twice {
                    grid.faults.duplicates -= 1;
                    grid.hints.push(grid.hints[hint]);
                }
                grid.receive(self, worker, hint);
            }
            Action::Heartbeat(worker) => grid.heartbeat(self, worker),
            Action::CommitSome(worker) => grid.commit_some(self, worker),
            Action::Drain(worker) => {
                grid.faults.drains -= 1;
                grid.drain(self, worker);
            }
            Action::Copy { worker, chunk } => {
                grid.faults.copies -= 1;
                grid.workers[worker].step = Step::Copied(chunk);
            }
            Action::Crash { actor, keeps_hint } => grid.crash(actor, keeps_hint),
            Action::LandGhost => {
                if let Some(ask) = grid.ghost.take() {
                    let event = ask.event(&grid.store);
                    let _ = grid.store.write(self.bug, ask.chunk, &event);
                }
            }
            Action::TimePasses => {
                spend(&mut grid.faults.steps);
                grid.time_passes();
            }
        }
        grid.hints.sort_unstable();
        grid.workers.sort_unstable();
        (!grid.moot).then_some(grid)
    }

    /// Whether a worker may do other things than to run on.
    const fn interrupts(&self) -> bool {
        self.bounds.heartbeats || self.bounds.segments || self.bounds.drains > 0
    }

    fn keeps_invariants(&self, store: &Store) -> bool {
        let mut worlds = self.worlds.lock().unwrap_or_else(PoisonError::into_inner);
        *worlds.entry(hash_of(store)).or_insert_with(|| invariant::check_world(&store.world()).is_empty())
    }
}

impl Model for Protocol {
    type State = Grid;
    type Action = Action;

    fn init_states(&self) -> Vec<Grid> {
        vec![Grid::new(&self.bounds)]
    }

    fn actions(&self, grid: &Grid, actions: &mut Vec<Action>) {
        let (bounds, faults) = (&self.bounds, &grid.faults);
        if !grid.store.broken.is_empty() {
            return;
        }
        // What somebody does next and what commutes with all that others do, needs no other order.
        let eager = grid.actors().find(|&actor| bounds.reduced && grid.commutes(self, actor));
        for actor in grid.actors().filter(|&actor| !grid.is_idle(actor) && eager.is_none_or(|eager| eager == actor)) {
            actions.push(Action::Step(actor, Fate::Answered));
            if let Some(ask) = grid.writes(actor) {
                if faults.lost > 0 {
                    actions.push(Action::Step(actor, Fate::AnswerLost));
                    let given_up = [true, false].map(|applied| Action::Step(actor, Fate::GivesUp { applied }));
                    actions.extend(given_up.into_iter().filter(|_| bounds.gives_up));
                }
                if faults.ghosts > 0 && ask.is_some() {
                    actions.push(Action::Step(actor, Fate::Doubled));
                }
            }
            if faults.crashes > 0 && (bounds.anybody_crashes || matches!(actor, Actor::Worker(_))) {
                let holds_hint = matches!(actor, Actor::Worker(worker) if grid.workers[worker].hint.is_some());
                actions.push(Action::Crash { actor, keeps_hint: true });
                if holds_hint && bounds.sweeps > 0 {
                    actions.push(Action::Crash { actor, keeps_hint: false });
                }
            }
        }
        if eager.is_some() {
            return;
        }
        for (at, worker) in grid.workers.iter().enumerate() {
            if bounds.heartbeats && worker.may_renew() {
                actions.push(Action::Heartbeat(at));
            }
            if bounds.segments && worker.may_commit_some() {
                actions.push(Action::CommitSome(at));
            }
            if faults.drains > 0 && matches!(worker.step, Step::Run(_)) {
                actions.push(Action::Drain(at));
            }
        }
        // The workers that idle are alike.
        let idle = grid.workers.iter().position(|worker| worker.step == Step::Idle);
        for (at, hint) in grid.hints.iter().enumerate() {
            let first = at == 0 || grid.hints[at - 1] != *hint;
            if !first {
                continue;
            }
            if let Some(worker) = idle.filter(|_| !hint.later) {
                actions.push(Action::Receive { worker, hint: at, twice: false });
                if faults.duplicates > 0 {
                    actions.push(Action::Receive { worker, hint: at, twice: true });
                }
            }
        }
        if let Some(worker) = idle.filter(|_| faults.copies > 0) {
            let copied = grid.store.open().filter(|chunk| worker::is_copyable(chunk));
            actions.extend(copied.map(|chunk| Action::Copy { worker, chunk: chunk.spec.key.number as u8 }));
        }
        if grid.summariser == Summariser::Idle {
            actions.extend(grid.store.feed.iter().map(|&change| Action::TakeIn(change)));
        }
        if faults.sweeps > 0 && grid.sweeper == Sweeper::Idle {
            let due = grid.store.open().filter(|chunk| chunk.due_ms <= time::NOW_MS);
            actions.extend(due.map(|chunk| Action::Look(chunk.spec.key.number as u8)));
            if matches!(grid.store.job.state, JobState::Cancelling { .. }) && self.bug != Some(Bug::WishForgotten) {
                actions.push(Action::SweepCancelled);
            }
        }
        if bounds.canceller && grid.canceller == Canceller::Idle {
            actions.push(Action::Cancel);
        }
        if grid.ghost.is_some() {
            actions.push(Action::LandGhost);
        }
        if faults.steps > 0 {
            actions.push(Action::TimePasses);
        }
    }

    fn next_state(&self, before: &Grid, action: Action) -> Option<Grid> {
        self.after(before, action)
    }

    fn within_boundary(&self, grid: &Grid) -> bool {
        grid.store.all().all(|chunk| chunk.epoch <= self.bounds.epochs)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        macro_rules! kept {
            ($promise:ident, $name:literal) => {
                Property::<Self>::always($name, |_, grid| {
                    !grid.store.broken.iter().any(|(promise, _)| *promise == Broken::$promise)
                })
            };
        }
        macro_rules! seen {
            ($note:ident, $name:literal) => {
                Property::<Self>::sometimes($name, |_, grid| grid.store.note == Some(Note::$note))
            };
        }
        vec![
            kept!(Write, "every write keeps the invariants"),
            Property::always("every state keeps the invariants", |at: &Self, grid: &Grid| {
                at.keeps_invariants(&grid.store)
            }),
            kept!(OutcomeChanged, "an outcome once visible never changes"),
            Property::always("at most one attempt can commit", |at: &Self, grid: &Grid| grid.committers(at) <= 1),
            kept!(VisibleAfterCancel, "nothing becomes visible after a final cancel"),
            kept!(CancelledEarly, "a final cancel leaves no chunk open that it found"),
            kept!(HolderGaveUp, "nobody gives up what is his"),
            kept!(HintDeletedWhileOpen, "no hint is deleted while its chunk is open"),
            kept!(PoisonKillsOn, "a poison task costs at most five workers"),
            Property::always("what was acknowledged is there", |at: &Self, grid: &Grid| {
                let there = |chunk: u8| grid.acknowledged & 1 << chunk == 0 || grid.store.chunk(chunk).is_some();
                (0..at.bounds.chunks).all(there)
            }),
            Property::always("when faults stop, every task ends", |at: &Self, grid: &Grid| at.settles(grid)),
            seen!(JobDone, "a job is done"),
            seen!(TookOver, "a chunk is taken over"),
            seen!(LateWriteRefused, "a late write is refused"),
            seen!(DuplicatePostponed, "a duplicate is postponed"),
            seen!(LostAnswerRecognised, "a lost answer is recognised"),
            seen!(CancelWon, "a cancel wins against a running worker"),
            seen!(Outrun, "a living owner is outrun"),
            Property::sometimes("a job is cancelled", |_, grid: &Grid| {
                matches!(grid.store.job.state, JobState::Cancelled { .. })
            }),
            Property::sometimes("a task expires", |_, grid: &Grid| {
                grid.store.all().any(|chunk| chunk.totals().expired > 0)
            }),
            Property::sometimes("a task is quarantined", |_, grid: &Grid| {
                grid.store.all().any(|chunk| chunk.work.marks.count(Mark::Quarantined) > 0)
            }),
        ]
    }
}

/// A path in words: each action, and what it left behind where that is not plain.
pub(crate) fn trace(path: &stateright::Path<Grid, Action>) -> String {
    let mut lines = Vec::new();
    for (grid, action) in path.clone().into_vec() {
        let store = &grid.store;
        let chunks: Vec<_> = store.all().map(|chunk| (&chunk.state, &chunk.work.marks)).collect();
        lines.push(format!("    job {}, chunks {chunks:?}, hints {:?}", store.job.state.as_str(), grid.hints));
        lines.extend(store.broken.iter().map(|(promise, detail)| format!("    {promise:?}: {detail}")));
        let Some(action) = action else { continue };
        let who = match action {
            Action::Step(actor, _) | Action::Crash { actor, .. } => match actor {
                Actor::Client => format!("{:?}", grid.client),
                Actor::Canceller => format!("{:?}", grid.canceller),
                Actor::Summariser => format!("{:?}", grid.summariser),
                Actor::Sweeper => format!("{:?}", grid.sweeper),
                Actor::Worker(worker) => format!("{:?}", grid.workers[worker].step),
            },
            _ => String::new(),
        };
        lines.push(format!("{action:?}  {who}"));
    }
    lines.join("\n")
}
