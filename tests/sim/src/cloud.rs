//! What is stored and sent: the table, the blobs, the queue and the stream, as DynamoDB, S3, SQS and DynamoDB Streams keep
//! them. Nothing here takes time or fails: that is the business of the ports.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use sheaf_api::Pack;
use sheaf_core::{
    Chunk, ChunkEvent, ChunkKey, ChunkSet, ChunkState, Digest, Due, Estimate, Evidence, FunctionRef, Job, JobEvent,
    JobId, JobRefused, JobState, Manifest, Outcome, Refused, Summary, Totals,
    invariant::{self, World},
};
use sheaf_protocol::{Hint, Put, SummaryEntry, Write, WriteError};

use crate::{
    audit::Audit,
    bug::Bug,
    runner::{Errand, Progress},
};

/// A job's summary, and which chunks it counts.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// The counts.
    pub summary: Summary,
    submitted: ChunkSet,
    /// Chunks that have ended.
    pub ended: ChunkSet,
}

/// A message of the queue.
#[derive(Debug, Clone)]
pub struct Message {
    /// Its number.
    pub id: u64,
    /// What it says.
    pub hint: Hint,
    /// When it may be received (true time, ms).
    pub visible_at_ms: u64,
    /// Receipts given out; only the newest counts.
    pub receipt: u64,
    /// When it was first sent (true time, ms).
    pub sent_at_ms: u64,
}

/// A record of the stream.
#[derive(Debug, Clone)]
pub struct Record {
    /// When it may be read (true time, ms).
    pub at_ms: u64,
    /// The chunk as it was after the write.
    pub chunk: Chunk,
}

/// Shards of the stream.
pub const SHARDS: usize = 2;

/// Everything that is stored and sent.
#[derive(Default)]
pub struct Cloud {
    /// Jobs.
    pub jobs: BTreeMap<JobId, Job>,
    /// Chunks.
    pub chunks: BTreeMap<ChunkKey, Chunk>,
    /// Summaries.
    pub tallies: BTreeMap<JobId, Tally>,
    /// Blobs with their digests.
    pub blobs: BTreeMap<String, (Bytes, Digest)>,
    /// Functions.
    pub functions: BTreeMap<String, (FunctionRef, Manifest)>,
    /// Their estimates.
    pub estimates: BTreeMap<String, Estimate>,
    /// The index of open chunks, which lags.
    pub index: BTreeSet<(Due, ChunkKey)>,
    indexed: BTreeMap<ChunkKey, Due>,
    lagging: VecDeque<(u64, ChunkKey, Option<Due>)>,
    /// Messages.
    pub messages: BTreeMap<u64, Message>,
    /// The stream, by shard.
    pub stream: [VecDeque<Record>; SHARDS],
    /// What truly happened.
    pub audit: Audit,
    /// What readers have seen of chunks.
    pub visible: BTreeMap<ChunkKey, Vec<Option<Outcome>>>,
    packs: BTreeMap<ChunkKey, Pack>,
    /// What is missing.
    pub bugs: Vec<Bug>,
    /// Whether faults are on.
    pub stormy: bool,
    /// Nothing can be written before this time (true time, ms).
    pub full_until_ms: u64,
    /// How old the oldest hint was that was received last, in ms.
    pub delay_ms: u64,
    next: u64,
}

impl Cloud {
    /// Whether a guard is missing.
    pub fn has(&self, bug: Bug) -> bool {
        self.bugs.contains(&bug)
    }

    /// Numbers for messages and receipts.
    pub fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Applies an event to a chunk, and checks what must hold of every write.
    pub fn apply(
        &mut self,
        write: &Write,
        now_ms: u64,
        index_at_ms: u64,
        stream_at_ms: u64,
    ) -> Result<Chunk, WriteError> {
        let before = self.chunks.get(&write.key);
        let event = self.misread(before, &write.event);
        let applied = Chunk::apply(before, &event).or_else(|reason| self.misapplied(before, &event, reason));
        let after = match applied {
            Ok(after) => after,
            Err(reason) => {
                let mut current = before.cloned();
                if self.has(Bug::LeaseIgnored)
                    && matches!(event, ChunkEvent::Claim { .. })
                    && let Some(Chunk { state: ChunkState::Leased(lease), .. }) = &mut current
                {
                    lease.until_ms = 0;
                }
                self.refused(&write.event, reason, current.as_ref());
                if self.has(Bug::OwnWriteUnrecognised)
                    && let Some(current) = current.as_mut().filter(|current| write.event.landed_in(current))
                {
                    *current = disguised(current);
                }
                return Err(WriteError::Refused { reason, current: current.map(Box::new) });
            }
        };
        let after = self.miswritten(before, &event, after);
        let before = before.cloned();
        if let Err(violation) = invariant::check_write(before.as_ref(), &after) {
            self.audit.broken(&violation);
        }
        self.check_named(before.as_ref(), &after);
        self.check_checkpoints(before.as_ref(), &after);
        if !write.event.landed_in(&after) {
            let what = format!("{}: {} was applied, and its author cannot see that", write.key, event.transition());
            self.audit.unkept(what);
        }
        self.audit.applied(before.as_ref(), &event, &after, now_ms);
        if matches!(event, ChunkEvent::Submit { .. }) || after.is_final() {
            let shard = write.key.number as usize % SHARDS;
            self.stream[shard].push_back(Record { at_ms: stream_at_ms, chunk: after.clone() });
        }
        if before.as_ref().and_then(Chunk::due) != after.due() {
            self.lagging.push_back((index_at_ms, write.key, after.due()));
        }
        self.chunks.insert(write.key, after.clone());
        Ok(after)
    }

    /// Invariant 3: what a chunk names is stored, with its digest, before it is named.
    fn check_named(&mut self, before: Option<&Chunk>, after: &Chunk) {
        let named = before.map_or(0, |before| before.work.segments.len());
        let mut wanted: Vec<(String, Digest)> =
            after.work.segments.iter().skip(named).map(|segment| (segment.key(&after.spec), segment.digest)).collect();
        if before.is_none() {
            let key = after.spec.pack_key();
            let pack = self.blobs.get(&key).and_then(|(bytes, _)| Pack::parse(bytes.clone()).ok());
            self.packs.extend(pack.map(|pack| (after.spec.key, pack)));
            wanted.push((key, after.spec.digest));
        }
        for (key, digest) in wanted {
            if self.blobs.get(&self.blob_key(&key)).is_none_or(|(_, stored)| *stored != digest) {
                self.audit.violated(format!("invariant 3: {} names {key}, which is not stored so", after.spec.key));
            }
        }
    }

    /// That new checkpoints are what the recorded attempt wrote of the recorded task.
    fn check_checkpoints(&mut self, before: Option<&Chunk>, after: &Chunk) {
        for (&task, checkpoint) in &after.work.checkpoints {
            if before.is_some_and(|before| before.work.checkpoints.get(&task) == Some(checkpoint)) {
                continue;
            }
            self.audit.counts.one("checkpoints stored");
            let key = checkpoint.key(&after.spec, task);
            let chunk = after.spec.key;
            let Some((bytes, _)) = self.blobs.get(&key).filter(|(_, stored)| *stored == checkpoint.digest) else {
                self.audit.violated(format!("invariant 3: {chunk} names {key}, which is not stored so"));
                continue;
            };
            let found = Progress::parse(bytes);
            let salt = self.errand(chunk, task).map(|errand| errand.salt);
            if found.epoch != checkpoint.epoch || Some(found.salt) != salt {
                self.audit.violated(format!("invariant 5: the checkpoint of {chunk}/{task} is of something else"));
            }
        }
    }

    /// Deletes blobs by prefix, none of which may be a checkpoint that a chunk names while its job is there.
    pub fn delete_prefix(&mut self, prefix: &str) {
        let whole_task = prefix.starts_with("k/") && self.has(Bug::CheckpointDeletedWithOthers);
        let prefix = match prefix.rsplit_once('/') {
            Some((task, _)) if whole_task => task,
            _ => prefix,
        };
        self.blobs.retain(|key, _| !key.starts_with(prefix));
        let named = |chunk: &Chunk| {
            let mut checkpoints = chunk.work.checkpoints.iter();
            checkpoints.any(|(&task, checkpoint)| checkpoint.key(&chunk.spec, task).starts_with(prefix))
        };
        if prefix.starts_with("k/")
            && let Some(chunk) = self.chunks.values().find(|chunk| named(chunk))
        {
            self.audit.violated(format!("invariant 3: a checkpoint that {} names is deleted", chunk.spec.key));
        }
    }

    /// Counts what was refused, and why that is well.
    fn refused(&mut self, event: &ChunkEvent, reason: Refused, current: Option<&Chunk>) {
        let counts = &mut self.audit.counts;
        let is_own = current.is_some_and(|current| event.landed_in(current));
        match (event, reason) {
            (ChunkEvent::Submit { .. }, Refused::Exists) => counts.one("chunk submitted again"),
            (ChunkEvent::Submit { .. }, Refused::Conflict) => counts.one("conflicting chunk refused"),
            _ if is_own => counts.one("own write recognised"),
            (ChunkEvent::Heartbeat { .. }, Refused::Fenced | Refused::Final) => counts.one("late heartbeat refused"),
            (
                ChunkEvent::Segment { .. } | ChunkEvent::Finish { .. } | ChunkEvent::Release { .. },
                Refused::Fenced | Refused::Final | Refused::NotHeld,
            ) => counts.one("late commit refused"),
            (ChunkEvent::TakeOver { .. }, _) => counts.one("lost race for a takeover"),
            (ChunkEvent::Claim { .. }, Refused::Held) => counts.one("claim of a held chunk refused"),
            (ChunkEvent::Claim { .. }, Refused::TooEarly) => counts.one("early claim refused"),
            (ChunkEvent::Claim { .. }, Refused::Final) => counts.one("claim of a final chunk refused"),
            (ChunkEvent::Touch { .. }, Refused::Stale) => counts.one("stale touch refused"),
            (ChunkEvent::End { .. }, Refused::Final) => counts.one("end of a final chunk refused"),
            _ => counts.one("other write refused"),
        }
    }

    /// Applies an event to a job.
    pub fn apply_job(&mut self, id: JobId, event: &JobEvent) -> Result<Job, JobRefused> {
        let job = self.jobs.get(&id).ok_or(JobRefused::Absent)?;
        let after = match (job.apply(event), event) {
            (Ok(after), _) => after,
            (Err(_), JobEvent::Seal { seal }) if self.has(Bug::SealAgain) => {
                Job { state: JobState::Sealed { seal: *seal }, ..job.clone() }
            }
            (Err(refused), _) => return Err(refused),
        };
        let was_sealed = job.state.seal();
        if was_sealed.is_some() && was_sealed != after.state.seal() {
            self.audit.violated(format!("invariant 2: the size of {id} changed after it was sealed"));
        }
        if job.state.ended_at_ms().is_some() {
            self.audit.violated(format!("invariant 2: {id} changed after it was over"));
        }
        if let JobState::Cancelled { .. } = after.state {
            self.audit.counts.one("job cancelled");
            // A chunk that was submitted while the last of the others was ended is ended by whoever claims it; nothing of it
            // may have run.
            let ran = |key: &ChunkKey| {
                self.audit.chunks.get(key).is_some_and(|truth| truth.runs.iter().any(|times| *times > 0))
            };
            let open: Vec<ChunkKey> =
                self.chunks_of(id).filter(|chunk| !chunk.is_final()).map(|chunk| chunk.spec.key).collect();
            if let Some(key) = open.iter().find(|key| ran(key)) {
                self.audit.violated(format!("invariant 4: {id} is said to be cancelled while {key} runs"));
            }
        }
        self.jobs.insert(id, after.clone());
        if matches!(after.state, JobState::Done { .. }) {
            self.audit.counts.one("job done");
            let world = self.world(Some(id));
            invariant::check_world(&world).iter().for_each(|violation| self.audit.broken(violation));
        }
        Ok(after)
    }

    /// The chunks of a job.
    pub fn chunks_of(&self, job: JobId) -> impl Iterator<Item = &Chunk> {
        let all = ChunkKey { job, number: 0 }..=ChunkKey { job, number: u32::MAX };
        self.chunks.range(all).map(|(_, chunk)| chunk)
    }

    /// The pack of a chunk, as it was accepted.
    pub fn pack(&self, key: ChunkKey) -> Option<&Pack> {
        self.packs.get(&key)
    }

    /// A task, as it was accepted.
    pub fn errand(&self, key: ChunkKey, task: u32) -> Option<Errand> {
        self.pack(key).filter(|pack| task < pack.tasks()).map(|pack| Errand::parse(pack.payload(task)))
    }

    /// The outcomes of a job, counted over its chunks.
    pub fn totals(&self, job: JobId) -> Totals {
        self.chunks_of(job).fold(Totals::default(), |sum, chunk| sum + chunk.totals().into())
    }

    /// Adds entries to a summary.
    pub fn summarise(&mut self, job: JobId, entries: &[SummaryEntry]) -> Summary {
        let counts_only = self.has(Bug::SummaryCounts);
        let tally = self.tallies.entry(job).or_default();
        for entry in entries {
            if tally.submitted.insert(entry.number) || (counts_only && entry.ended.is_none()) {
                tally.summary.chunks_submitted += 1;
                tally.summary.tasks_submitted += u64::from(entry.tasks);
            }
            if let Some(totals) = entry.ended
                && (tally.ended.insert(entry.number) || counts_only)
            {
                tally.summary.chunks_ended += 1;
                tally.summary.totals += totals.into();
            }
        }
        self.audit.counts.one("summary written");
        tally.summary
    }

    /// A job's summary.
    pub fn summary(&self, job: JobId) -> Summary {
        let mut summary = self.tallies.get(&job).map(|tally| tally.summary).unwrap_or_default();
        let state = self.jobs.get(&job).map(|job| job.state);
        let too_early = match state {
            Some(JobState::Sealed { .. }) => self.has(Bug::DoneTooEarly),
            Some(JobState::Cancelling { .. }) => self.has(Bug::CancelledTooEarly),
            _ => false,
        };
        if too_early {
            summary.chunks_ended = u64::MAX;
        }
        summary
    }

    /// Puts a blob unless there is one.
    pub fn put(&mut self, key: String, bytes: Bytes, is_lost: bool) -> Put {
        let key = self.blob_key(&key);
        if self.blobs.contains_key(&key) && !self.has(Bug::PutOverwrites) {
            return Put::Exists;
        }
        let bug = if key.starts_with("k/") { Bug::CheckpointNotDurable } else { Bug::PutNotDurable };
        if !(is_lost && self.has(bug)) {
            let digest = Digest::of(&bytes);
            self.blobs.insert(key, (bytes, digest));
        }
        Put::Created
    }

    /// Where a blob lies.
    pub fn blob_key(&self, key: &str) -> String {
        let by_chunk = key.rsplit_once('/').filter(|_| key.starts_with('r') && self.has(Bug::ResultKeyWithoutAttempt));
        by_chunk.map_or(key, |(chunk, _)| chunk).to_owned()
    }

    /// Brings the index up to what it may know by now.
    pub fn catch_up(&mut self, now_ms: u64) {
        while self.lagging.front().is_some_and(|(at_ms, _, _)| *at_ms <= now_ms) {
            let Some((_, key, due)) = self.lagging.pop_front() else { return };
            if let Some(old) = self.indexed.remove(&key) {
                self.index.remove(&(old, key));
            }
            if let Some(due) = due {
                self.indexed.insert(key, due);
                self.index.insert((due, key));
            }
        }
    }

    /// What is stored, all of it or of one job, for checking the invariants over it.
    pub fn world(&self, only: Option<JobId>) -> World {
        let is_wanted = |job: &JobId| only.is_none_or(|only| only == *job);
        let chunks: BTreeMap<ChunkKey, Chunk> = match only {
            Some(job) => self.chunks_of(job).map(|chunk| (chunk.spec.key, chunk.clone())).collect(),
            None => self.chunks.clone(),
        };
        let named = |chunk: &Chunk| {
            let segments: Vec<String> = chunk.work.segments.iter().map(|segment| segment.key(&chunk.spec)).collect();
            let checkpoints =
                chunk.work.checkpoints.iter().map(|(&task, checkpoint)| checkpoint.key(&chunk.spec, task));
            segments.into_iter().chain(checkpoints).chain([chunk.spec.pack_key()]).collect::<Vec<_>>()
        };
        let stored = |key: String| self.blobs.get(&self.blob_key(&key)).map(|(_, digest)| (key, *digest));
        let jobs = self.jobs.iter().filter(|(id, _)| is_wanted(id));
        let tallies = self.tallies.iter().filter(|(id, _)| is_wanted(id));
        World {
            jobs: jobs.map(|(id, job)| (*id, job.clone())).collect(),
            summaries: tallies.map(|(id, tally)| (*id, tally.summary)).collect(),
            blobs: chunks.values().flat_map(named).filter_map(stored).collect(),
            chunks,
        }
    }

    /// The event as a store without some guard would take it.
    fn misread(&self, before: Option<&Chunk>, event: &ChunkEvent) -> ChunkEvent {
        let mut event = event.clone();
        let Some(before) = before else { return event };
        let (fence, version) = (self.has(Bug::CommitWithoutFence), self.has(Bug::CommitWithoutVersion));
        if let Some(lease) = before.lease()
            && let ChunkEvent::Segment { attempt, rv, commit, .. }
            | ChunkEvent::Finish { attempt, rv, commit, .. }
            | ChunkEvent::Release { attempt, rv, commit, .. } = &mut event
        {
            if fence {
                (*attempt, *rv) = (lease.attempt.clone(), before.rv);
                if let Some(commit) = commit {
                    (commit.segment.epoch, commit.segment.nonce) = (lease.attempt.epoch, lease.attempt.owner.nonce);
                }
            }
            if version {
                *rv = before.rv;
            }
        }
        match &mut event {
            ChunkEvent::Release { commit, .. } if self.has(Bug::ReleaseForgetsOutcomes) => *commit = None,
            ChunkEvent::TakeOver { seen_until_ms, now_ms, .. } if self.has(Bug::LeaseIgnored) => {
                let until_ms = before.lease().map_or(0, |lease| lease.until_ms);
                *seen_until_ms = until_ms;
                *now_ms = (*now_ms).max(until_ms + sheaf_core::limits::CLOCK_MARGIN_MS + 1);
            }
            _ => {}
        }
        event
    }

    /// What a store without some guard makes of an event that must be refused.
    fn misapplied(&self, before: Option<&Chunk>, event: &ChunkEvent, reason: Refused) -> Result<Chunk, Refused> {
        let Some(before) = before else { return Err(reason) };
        match event {
            ChunkEvent::Submit { .. } if self.has(Bug::SubmitUnconditional) => Chunk::apply(None, event),
            ChunkEvent::End { reason, now_ms } if self.has(Bug::EndUnconditional) && before.is_final() => {
                Ok(Chunk { state: ChunkState::Ended { reason: *reason, at_ms: *now_ms }, ..before.clone() })
            }
            ChunkEvent::Segment { commit: Some(commit), .. } | ChunkEvent::Finish { commit: Some(commit), .. }
                if self.has(Bug::CommitWithoutVersion) && reason == Refused::OutcomeChange =>
            {
                let mut after = before.clone();
                after.rv += 1;
                after.work.segments.push(commit.segment.clone());
                Ok(after)
            }
            ChunkEvent::Claim { .. } if self.has(Bug::DeadlineUnseen) && reason == Refused::PastDeadline => {
                let mut unseen = before.clone();
                let deadline_ms = unseen.spec.deadline_ms.take();
                let mut after = Chunk::apply(Some(&unseen), event)?;
                after.spec.deadline_ms = deadline_ms;
                Ok(after)
            }
            ChunkEvent::Segment { checkpoints, .. } | ChunkEvent::Release { checkpoints, .. }
                if self.has(Bug::CheckpointWithoutFence) && reason == Refused::Fenced && !checkpoints.is_empty() =>
            {
                let mut after = before.clone();
                after.rv += 1;
                after.work.checkpoints.extend(checkpoints.clone());
                Ok(after)
            }
            ChunkEvent::Heartbeat { .. } if self.has(Bug::FencedUntold) => Ok(before.clone()),
            ChunkEvent::Segment { .. } if self.has(Bug::FencedUntold) && reason == Refused::Fenced => {
                Ok(before.clone())
            }
            _ => Err(reason),
        }
    }

    /// What a store without some guard writes instead.
    fn miswritten(&self, before: Option<&Chunk>, event: &ChunkEvent, mut after: Chunk) -> Chunk {
        match event {
            ChunkEvent::End { .. } if self.has(Bug::EndForgetsOutcomes) => {
                after.work.marks = sheaf_core::Marks::open(after.spec.tasks);
                after.work.segments.clear();
            }
            ChunkEvent::Touch { .. } if self.has(Bug::TouchMovesVersion) => after.rv += 1,
            ChunkEvent::TakeOver { evidence, .. } => {
                if *evidence == Evidence::Outrun && self.has(Bug::OutrunCountsAsCrash) {
                    after.work.crashes += 1;
                }
                if self.has(Bug::NoIsolation) {
                    after.work.crashes = 0;
                }
                if self.has(Bug::NoStrikes) {
                    after.work.tallies.values_mut().for_each(|tally| tally.strikes = 0);
                }
                if self.has(Bug::EpochKept) {
                    after.epoch = before.map_or(0, |before| before.epoch);
                    if let ChunkState::Leased(lease) = &mut after.state {
                        lease.attempt.epoch = after.epoch;
                    }
                }
            }
            ChunkEvent::Release { .. } if self.has(Bug::DrainCountsAsCrash) => after.work.crashes += 1,
            ChunkEvent::Segment { .. } if self.has(Bug::NoStrikes) => {
                after.work.tallies.values_mut().for_each(|tally| tally.strikes = 0);
            }
            ChunkEvent::Mark { .. } if self.has(Bug::MarkNotWritten) => {
                if let ChunkState::Leased(lease) = &mut after.state {
                    lease.marker = None;
                }
            }
            ChunkEvent::Heartbeat { .. } if self.has(Bug::HeartbeatNotWritten) => {
                return before.cloned().unwrap_or(after);
            }
            _ => {}
        }
        after
    }
}

/// A chunk in which nobody recognises his own write.
fn disguised(chunk: &Chunk) -> Chunk {
    let mut other = Chunk { rv: chunk.rv + 1, ..chunk.clone() };
    match &mut other.state {
        ChunkState::Leased(lease) => lease.attempt.owner.nonce ^= 1,
        ChunkState::Done { attempt, .. } => attempt.owner.nonce ^= 1,
        ChunkState::Queued { .. } | ChunkState::Ended { .. } => {}
    }
    other
}
