//! The shared state: one job, its chunks, its summary, the blobs and the feed of changes; and every write of them, through
//! the real transitions, checked by the real invariants.

use std::{
    collections::BTreeSet,
    hash::{Hash, Hasher},
    sync::Arc,
};

use sheaf_core::{
    Chunk, ChunkEvent, ChunkKey, ChunkSpec, ChunkState, ChunkTotals, Digest, Job, JobEvent, JobId, JobOptions,
    JobRefused, JobState, Lane, Lease, Outcome, Priority, Refused, Summary, TenantId, invariant,
};

use super::{Bounds, Broken, Bug, Note, ask::Part, time};

/// A blob of results, by what names it; its digest is of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Blob {
    pub(crate) chunk: u8,
    pub(crate) epoch: u32,
    pub(crate) nonce: u64,
    pub(crate) part: Part,
}

/// The set behind a [`Summary`].
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Tally {
    submitted: BTreeSet<u8>,
    ended: Vec<Option<ChunkTotals>>,
    /// What a counter in place of the set would have counted twice.
    twice: Summary,
}

impl Tally {
    pub(crate) fn summary(&self) -> Summary {
        let ended = self.ended.iter().flatten();
        Summary {
            chunks_submitted: self.submitted.len() as u64 + self.twice.chunks_submitted,
            tasks_submitted: self.submitted.len() as u64 * u64::from(super::TASKS) + self.twice.tasks_submitted,
            chunks_ended: ended.clone().count() as u64 + self.twice.chunks_ended,
            totals: ended.fold(self.twice.totals, |sum, &totals| sum + totals.into()),
        }
    }
}

/// What is stored, and what is remembered of it in order to check it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Store {
    pub(crate) job: Arc<Job>,
    pub(crate) chunks: Vec<Option<Arc<Chunk>>>,
    pub(crate) tally: Tally,
    /// Chunks whose packs are stored.
    pub(crate) packs: BTreeSet<u8>,
    pub(crate) blobs: BTreeSet<Blob>,
    /// Changes that the result step has not taken in: the chunk, and whether it is final.
    pub(crate) feed: BTreeSet<(u8, bool)>,
    /// The chunks that there were when the wish to cancel became durable.
    at_wish: BTreeSet<u8>,
    /// What the last action was an example of.
    pub(crate) note: Option<Note>,
    /// What the last action broke, each with how.
    pub(crate) broken: Vec<(Broken, String)>,
}

/// What an author is told of a write, once it is told.
pub(crate) type Answer = Result<Arc<Chunk>, (Refused, Option<Arc<Chunk>>)>;

impl Store {
    pub(crate) fn new(bounds: &Bounds) -> Self {
        let mut options = JobOptions::new(vec!["f@000000000000".parse().expect("a function version")]);
        options.deadline_ms = bounds.deadline.map(|steps| time::NOW_MS + steps * time::STEP_MS);
        let job = Job {
            id: JobId::from_bytes([7; 16]),
            tenant: TenantId::default(),
            options,
            options_digest: Digest::of(b"options"),
            origin: None,
            created_at_ms: 0,
            state: JobState::Open,
        };
        let chunks = usize::from(bounds.chunks);
        let tally = Tally { submitted: BTreeSet::new(), ended: vec![None; chunks], twice: Summary::default() };
        let (packs, blobs, feed, at_wish, broken) = Default::default();
        Self { job: Arc::new(job), chunks: vec![None; chunks], tally, packs, blobs, feed, at_wish, note: None, broken }
    }

    pub(crate) fn key(&self, chunk: u8) -> ChunkKey {
        ChunkKey { job: self.job.id, number: chunk.into() }
    }

    /// The chunk as its submitter describes it at a time.
    pub(crate) fn spec(&self, chunk: u8, at_ms: u64) -> ChunkSpec {
        ChunkSpec {
            key: self.key(chunk),
            tenant: self.job.tenant.clone(),
            tasks: super::TASKS,
            task_first: u64::from(chunk) * u64::from(super::TASKS),
            digest: pack_digest(chunk),
            pack_bytes: 1,
            lane: Lane::Lambda,
            priority: Priority::Normal,
            deadline_ms: self.job.options.deadline_ms,
            submitted_at_ms: at_ms,
        }
    }

    pub(crate) fn chunk(&self, chunk: u8) -> Option<&Chunk> {
        self.chunks[usize::from(chunk)].as_deref()
    }

    pub(crate) fn numbers(&self) -> impl Iterator<Item = u8> + use<> {
        0..self.chunks.len() as u8
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Chunk> {
        self.chunks.iter().flatten().map(Arc::as_ref)
    }

    pub(crate) fn open(&self) -> impl Iterator<Item = &Chunk> {
        self.all().filter(|chunk| !chunk.is_final())
    }

    pub(crate) fn is_over(&self) -> bool {
        self.job.state.ended_at_ms().is_some()
    }

    pub(crate) fn break_promise(&mut self, promise: Broken, detail: impl Into<String>) {
        self.broken.push((promise, detail.into()));
    }

    /// One conditional write of a chunk, and what its author makes of the answer, as `write_all` in
    /// `shared/protocol/src/write.rs`.
    pub(crate) fn write(&mut self, bug: Option<Bug>, chunk: u8, event: &ChunkEvent) -> Answer {
        let before = self.chunks[usize::from(chunk)].clone();
        match apply(bug, before.as_deref(), event) {
            Ok(after) => {
                let after = Arc::new(after);
                self.put(chunk, before.as_deref(), after.clone(), event);
                Ok(after)
            }
            Err(reason) => {
                let is_submit = matches!(event, ChunkEvent::Submit { .. });
                let recognised = bug != Some(Bug::OwnWriteNotRecognised) && !is_submit;
                match before {
                    Some(current) if recognised && event.landed_in(&current) => {
                        // That a chunk has ended or was touched may be another's doing.
                        let own = !matches!(event, ChunkEvent::End { .. } | ChunkEvent::Touch { .. });
                        self.note = own.then_some(Note::LostAnswerRecognised);
                        Ok(current)
                    }
                    current => Err((reason, current)),
                }
            }
        }
    }

    fn put(&mut self, number: u8, before: Option<&Chunk>, after: Arc<Chunk>, event: &ChunkEvent) {
        if let Err(violation) = invariant::check_write(before, &after) {
            self.break_promise(Broken::Write, violation.to_string());
        }
        for task in 0..super::TASKS {
            let (old, new) = (before.and_then(|chunk| chunk.outcome(task)), after.outcome(task));
            if old.is_some() && old != new {
                self.break_promise(Broken::OutcomeChanged, format!("task {task} was {old:?} and became {new:?}"));
            }
            let produced = matches!(new, Some(Outcome::Succeeded | Outcome::Failed | Outcome::Quarantined));
            if old.is_none() && produced && matches!(self.job.state, JobState::Cancelled { .. }) {
                self.break_promise(Broken::VisibleAfterCancel, format!("task {task} became {new:?}"));
            }
        }
        if matches!(event, ChunkEvent::TakeOver { .. }) {
            self.note = Some(Note::TookOver);
        }
        if after.is_final() || matches!(event, ChunkEvent::Submit { .. }) {
            self.feed.insert((number, after.is_final()));
        }
        self.chunks[usize::from(number)] = Some(after);
    }

    /// One conditional write of the job, and what its author makes of the answer, as `write_job`.
    pub(crate) fn write_job(&mut self, event: &JobEvent) -> Result<(), JobRefused> {
        let after = match self.job.apply(event) {
            Ok(after) => after,
            Err(JobRefused::Already) => return Ok(()),
            Err(refused) => return Err(refused),
        };
        match after.state {
            JobState::Cancelling { .. } => {
                self.at_wish = self.numbers().filter(|&chunk| self.chunk(chunk).is_some()).collect();
            }
            JobState::Cancelled { .. } => {
                let open = |&&chunk: &&u8| self.chunk(chunk).is_some_and(|chunk| !chunk.is_final());
                if let Some(chunk) = self.at_wish.iter().find(open).copied() {
                    self.break_promise(Broken::CancelledEarly, format!("chunk {chunk} is open"));
                }
            }
            JobState::Done { .. } => self.note = Some(Note::JobDone),
            JobState::Open | JobState::Sealed { .. } => {}
        }
        self.job = Arc::new(after);
        Ok(())
    }

    /// Adds an entry to the summary; answers the summary after it.
    pub(crate) fn summarise(&mut self, bug: Option<Bug>, chunk: u8, ended: bool) -> Summary {
        let totals = self.chunk(chunk).filter(|_| ended).map(Chunk::totals);
        let (tally, counts) = (&mut self.tally, bug == Some(Bug::SummaryIsCounter));
        if !tally.submitted.insert(chunk) && counts && !ended {
            tally.twice.chunks_submitted += 1;
        }
        if let Some(totals) = totals
            && tally.ended[usize::from(chunk)].replace(totals).is_some()
            && counts
        {
            tally.twice.chunks_ended += 1;
            tally.twice.totals += totals.into();
        }
        tally.summary()
    }

    /// Everything that is stored, as the invariants see it.
    pub(crate) fn world(&self) -> invariant::World {
        let mut world = invariant::World::default();
        world.jobs.insert(self.job.id, self.job.as_ref().clone());
        world.summaries.insert(self.job.id, self.tally.summary());
        for number in self.numbers() {
            let spec = self.spec(number, 0);
            if let Some(chunk) = self.chunk(number) {
                world.chunks.insert(spec.key, chunk.clone());
            }
            if self.packs.contains(&number) {
                world.blobs.insert(spec.pack_key(), spec.digest);
            }
        }
        for blob in &self.blobs {
            let segment = blob.part.segment(blob.epoch, blob.nonce);
            world.blobs.insert(segment.key(&self.spec(blob.chunk, 0)), segment.digest);
        }
        world
    }

    /// A step of time: everything that is stored becomes so much older.
    pub(crate) fn age(&mut self) {
        for chunk in self.chunks.iter_mut().flatten() {
            time::age_chunk(Arc::make_mut(chunk));
        }
        if self.job.options.deadline_ms.is_some() {
            Arc::make_mut(&mut self.job).options.deadline_ms.iter_mut().for_each(time::age);
        }
    }
}

fn pack_digest(chunk: u8) -> Digest {
    Digest::of(&[chunk])
}

/// [`Chunk::apply`], unless a planted bug has its way.
fn apply(bug: Option<Bug>, current: Option<&Chunk>, event: &ChunkEvent) -> Result<Chunk, Refused> {
    match (bug, current, event) {
        (Some(Bug::SubmitWithoutCondition), Some(_), ChunkEvent::Submit { .. }) => Chunk::apply(None, event),
        (Some(Bug::CommitWithoutFence), Some(chunk), ChunkEvent::Finish { attempt, rv, .. }) => {
            let ChunkState::Leased(lease) = &chunk.state else { return Chunk::apply(current, event) };
            let mine = ChunkState::Leased(Lease { attempt: attempt.clone(), ..lease.clone() });
            Chunk::apply(Some(&Chunk { state: mine, rv: *rv, ..chunk.clone() }), event)
        }
        (Some(Bug::TakeOverUnfenced), Some(chunk), ChunkEvent::TakeOver { until_ms, .. }) => {
            Chunk::apply(current, event)?;
            let ChunkState::Leased(lease) = &chunk.state else { return Err(Refused::NotHeld) };
            let renewed = Lease { until_ms: *until_ms, ..lease.clone() };
            Ok(Chunk { state: ChunkState::Leased(renewed), ..chunk.clone() })
        }
        (Some(Bug::EndOverwrites), Some(chunk), ChunkEvent::End { .. }) if chunk.is_final() => {
            let queued = ChunkState::Queued { not_before_ms: 0 };
            Chunk::apply(Some(&Chunk { state: queued, ..chunk.clone() }), event)
        }
        _ => Chunk::apply(current, event),
    }
}

/// What tells two stores apart for all that can still happen: times and names kept for people only are left out.
impl Hash for Store {
    fn hash<H: Hasher>(&self, to: &mut H) {
        let Self { job, chunks, tally, packs, blobs, feed, at_wish, note, broken } = self;
        std::mem::discriminant(&job.state).hash(to);
        job.state.seal().map(|seal| (seal.chunks, seal.tasks)).hash(to);
        job.options.deadline_ms.hash(to);
        chunks.iter().for_each(|chunk| hash_chunk(chunk.as_deref(), to));
        let Tally { submitted, ended, twice } = tally;
        submitted.hash(to);
        ended.iter().for_each(|totals| totals.is_some().hash(to));
        (twice.chunks_submitted, twice.chunks_ended).hash(to);
        (packs, blobs, feed, at_wish, note).hash(to);
        broken.iter().for_each(|(promise, _)| promise.hash(to));
    }
}

fn hash_chunk<H: Hasher>(chunk: Option<&Chunk>, to: &mut H) {
    let Some(chunk) = chunk else { return 0_u8.hash(to) };
    // Without `..`: who adds a field decides here whether it matters.
    let Chunk { spec, state, work, epoch, rv, due_ms } = chunk;
    let sheaf_core::Work { marks, segments, crashes, tallies, past, checkpoints } = work;
    match state {
        ChunkState::Queued { not_before_ms } => {
            let since_ms = past.last().map_or(spec.submitted_at_ms, |past| past.until_ms);
            (1_u8, not_before_ms, due_ms, since_ms).hash(to);
        }
        ChunkState::Leased(Lease { attempt, since_ms: _, until_ms, marker }) => {
            (2_u8, attempt, until_ms, marker, due_ms).hash(to);
        }
        ChunkState::Done { attempt, since_ms: _, at_ms: _ } => (3_u8, attempt).hash(to),
        ChunkState::Ended { reason, at_ms: _ } => (4_u8, reason).hash(to),
    }
    (marks.bits(), crashes, epoch, rv).hash(to);
    segments.iter().for_each(|segment| (segment.epoch, segment.nonce, segment.number, segment.tasks).hash(to));
    tallies.iter().for_each(|(task, tally)| (task, tally.attempts, tally.strikes).hash(to));
    checkpoints.iter().for_each(|(task, of)| (task, of.epoch, of.nonce, of.number).hash(to));
}
