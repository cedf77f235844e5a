//! The process whose system calls are recorded: several writers at once on one [`LocalStore`], every kind of durable write,
//! blobs of every size that is kept differently, removals, and the store closed and opened again in between.

use std::{
    collections::BTreeMap,
    fs::File,
    io::Write as _,
    os::unix::fs::FileExt,
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use anyhow::Context;
use bytes::Bytes;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use sheaf_core::{
    Chunk, ChunkEvent, ChunkKey, ChunkSpec, Commit, Digest, EndReason, FunctionKind, FunctionRef, Job, JobEvent, JobId,
    JobOptions, JobState, Lane, Manifest, Mark, Marks, Owner, Priority, ReleaseReason, Seal, SegmentRef, TenantId,
};
use sheaf_local::{LocalPorts, LocalStore};
use sheaf_protocol::{BlobStore, Ports, StateStore, SummaryEntry, Write, sweep};

use crate::fact::{Fact, stage};

/// A time to count from (Unix, ms).
const NOW_MS: u64 = 1_800_000_000_000;
/// Blobs longer than this are made by [`blob`] so that their content follows from their first bytes: a recording need not
/// hold all of it.
pub const FULL_BYTES_MAX: usize = 1024 * 1024;
const SEED_BYTES: usize = 16;
const MIB: usize = 1024 * 1024;

/// How much is written, and of which sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Profile {
    /// A few hundred commits of small and middling blobs.
    Small,
    /// Enough for fjall to flush, compact and rotate its journal, and for volumes to fill up.
    Large,
}

impl Profile {
    /// How often the store is opened.
    const fn lives(self) -> u32 {
        match self {
            Self::Small => 3,
            Self::Large => 2,
        }
    }

    /// Jobs of each writer in each life.
    const fn jobs(self) -> u32 {
        match self {
            Self::Small => 9,
            Self::Large => 40,
        }
    }

    fn chunks(self, rng: &mut StdRng) -> u32 {
        match self {
            Self::Small => rng.random_range(1..=8),
            Self::Large => rng.random_range(60..=90),
        }
    }

    fn pack_bytes(self, rng: &mut StdRng) -> usize {
        match (self, rng.random_range(0..200)) {
            (Self::Small, 0..60) => rng.random_range(1..600),
            (Self::Small, 60..100) => rng.random_range(3_500..4_096),
            (Self::Small, 100..160) => rng.random_range(4_096..12_000),
            (Self::Small, 160..196) => rng.random_range(12_000..30_000),
            (Self::Small, _) => rng.random_range(60_000..90_000),
            (Self::Large, 0) => 4 * MIB,
            (Self::Large, _) => rng.random_range(3_000..4_096),
        }
    }
}

/// Bytes that nobody else writes, told by a seed. Long ones are mostly zero, and follow from their first 16 bytes and
/// their length.
pub fn blob(seed: u128, bytes: usize) -> Bytes {
    let seed = seed.to_le_bytes();
    let mut content = vec![0; bytes];
    if bytes > FULL_BYTES_MAX {
        for at in (0..bytes - SEED_BYTES).step_by(MIB).chain([bytes - SEED_BYTES]) {
            content[at..at + SEED_BYTES].copy_from_slice(&seed);
        }
    } else {
        let mut key = [0; 32];
        key[..SEED_BYTES].copy_from_slice(&seed);
        rand::Rng::fill_bytes(&mut StdRng::from_seed(key), &mut content);
    }
    content.into()
}

/// The whole of a long blob, given how it begins.
pub fn whole(begin: &[u8], bytes: usize) -> Option<Bytes> {
    let seed = begin.first_chunk::<SEED_BYTES>()?;
    let whole = blob(u128::from_le_bytes(*seed), bytes);
    whole.starts_with(begin).then_some(whole)
}

/// The file of facts. Positioned writes: a fault injected into `write` does not hit it.
struct Facts {
    file: File,
    end: Mutex<u64>,
}

impl Facts {
    fn say(&self, fact: &Fact) {
        let line = fact.to_string();
        let mut end = self.end.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        self.file.write_all_at(line.as_bytes(), *end).expect("facts can be written");
        *end += line.len() as u64;
    }
}

/// Makes an empty store, for a recording to begin on.
pub fn make(directory: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(directory)?;
    LocalStore::disk(directory, true).map(drop).context("an empty store")
}

/// Runs the workload. Ends without closing the store the last time.
pub fn run(directory: &Path, facts: &Path, profile: Profile, seed: u64) -> anyhow::Result<()> {
    let facts = Facts { file: File::create(facts)?, end: Mutex::new(0) };
    let stopped = AtomicBool::new(false);
    let clock = AtomicU64::new(NOW_MS);
    for life in 0..profile.lives() {
        let store = match LocalStore::disk(directory, true) {
            Ok(store) => store,
            // A fault may hit the opening.
            Err(_) => {
                facts.say(&Fact::Stopped);
                return Ok(());
            }
        };
        std::thread::scope(|scope| {
            for writer in 0..3_u64 {
                let seed = seed.wrapping_mul(1_000_003).wrapping_add(u64::from(life) * 10 + writer);
                let mut writer = Writer {
                    ports: LocalPorts::new(store.clone()),
                    facts: &facts,
                    stopped: &stopped,
                    clock: &clock,
                    rng: StdRng::seed_from_u64(seed),
                    profile,
                    after_stop: 0,
                };
                scope.spawn(move || writer.run());
            }
        });
        if stopped.load(Ordering::Acquire) {
            return Ok(());
        }
        if life + 1 == profile.lives() {
            std::process::exit(0);
        }
        drop(store);
    }
    Ok(())
}

struct Writer<'a> {
    ports: LocalPorts,
    facts: &'a Facts,
    stopped: &'a AtomicBool,
    clock: &'a AtomicU64,
    rng: StdRng,
    profile: Profile,
    after_stop: u32,
}

/// The store has stopped, and this writer has tried often enough since.
struct Enough;

type Step<T> = Result<T, Enough>;

impl Writer<'_> {
    fn run(&mut self) {
        // Without I/O: the store's writer would wake it by writing to a descriptor, and a fault injected there is none of
        // the disk.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        runtime.block_on(async {
            for job in 0..self.profile.jobs() {
                if let Err(Enough) = self.job(job).await {
                    return;
                }
            }
        });
    }

    /// Takes the answer to a call that was begun when `before` said whether the store had stopped.
    fn take<T, E: std::fmt::Display>(&mut self, before: bool, what: &str, answer: Result<T, E>) -> Step<Option<T>> {
        match answer {
            Ok(_) if before => {
                self.facts.say(&Fact::Broken(format!("{what} was acknowledged after the store had stopped")));
                Err(Enough)
            }
            Ok(answer) => Ok(Some(answer)),
            Err(error) => {
                if !self.stopped.swap(true, Ordering::AcqRel) {
                    let _ = writeln!(std::io::stderr(), "{what}: {error}");
                    self.facts.say(&Fact::Stopped);
                }
                self.after_stop += 1;
                if self.after_stop > 12 { Err(Enough) } else { Ok(None) }
            }
        }
    }

    fn has_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    async fn put(&mut self, key: String, bytes: Bytes) -> Step<()> {
        let before = self.has_stopped();
        let answer = self.ports.blobs().put(vec![(key, bytes)]).await.remove(0);
        self.take(before, "a blob", answer).map(drop)
    }

    /// Applies writes in one call; says what is acknowledged: submissions once they have settled, which half of them does not wait
    /// for before their chunks are worked on.
    async fn apply(&mut self, writes: Vec<Write>) -> Step<Vec<Option<Chunk>>> {
        let before = self.has_stopped();
        let submits = writes.iter().any(|write| matches!(write.event, ChunkEvent::Submit { .. }));
        let settles = submits && self.rng.random();
        let is_durable = |event: &ChunkEvent| match event {
            ChunkEvent::Submit { .. } => settles,
            event => event.needs_durability(),
        };
        let durable: Vec<bool> = writes.iter().map(|write| is_durable(&write.event)).collect();
        let answers = self.ports.state().apply(writes).await;
        if settles {
            let before = self.has_stopped();
            let settled = self.ports.state().settle().await;
            if self.take(before, "submissions", settled)?.is_none() {
                return Ok(answers.into_iter().map(|_| None).collect());
            }
        }
        let mut chunks = Vec::new();
        for (durable, answer) in durable.into_iter().zip(answers) {
            let chunk = self.take(before, "a write", answer)?;
            if let Some(chunk) = chunk.as_ref().filter(|_| durable) {
                self.facts.say(&Fact::AckChunk(chunk.spec.key, chunk.rv));
            }
            chunks.push(chunk);
        }
        Ok(chunks)
    }

    async fn apply_one(&mut self, key: ChunkKey, event: ChunkEvent) -> Step<Option<Chunk>> {
        Ok(self.apply(vec![Write { key, event }]).await?.pop().flatten())
    }

    async fn apply_job(&mut self, id: JobId, event: JobEvent) -> Step<()> {
        let before = self.has_stopped();
        let answer = self.ports.state().apply_job(id, event).await;
        if let Some(job) = self.take(before, "a job's write", answer)? {
            self.facts.say(&Fact::AckJob(id, stage(&job.state)));
        }
        Ok(())
    }

    async fn job(&mut self, number: u32) -> Step<()> {
        let id = JobId::from_bytes(self.rng.random());
        let job = Job {
            id,
            tenant: TenantId::default(),
            options: JobOptions::new(vec!["echo@0123456789ab".parse().expect("a function version")]),
            options_digest: Digest::of(b""),
            origin: None,
            created_at_ms: self.clock.fetch_add(1, Ordering::Relaxed),
            state: JobState::Open,
        };
        self.facts.say(&Fact::AskJob(id));
        let before = self.has_stopped();
        let answer = self.ports.state().create_job(job).await;
        if self.take(before, "a job", answer)?.is_some() {
            self.facts.say(&Fact::AckJob(id, 0));
        }
        if number % 4 == 1 {
            self.function().await?;
        }

        let count = self.profile.chunks(&mut self.rng);
        let mut number = 0;
        let mut chunks = Vec::new();
        while number < count {
            let group = self.rng.random_range(1..=6).min(count - number);
            chunks.extend(self.submit(id, number..number + group).await?);
            number += group;
        }
        let mut ended = Vec::new();
        for chunk in chunks.into_iter().flatten() {
            ended.extend(self.work(chunk).await?);
        }
        self.end(id, count, ended).await
    }

    async fn function(&mut self) -> Step<()> {
        let reference: FunctionRef = format!("f{:x}@{:012x}", self.rng.random::<u16>(), self.rng.random::<u64>() >> 16)
            .parse()
            .expect("a version");
        let manifest = Manifest::new(reference.name.clone(), FunctionKind::Handler { revision: "1".to_owned() });
        let before = self.has_stopped();
        let answer = self.ports.state().put_function(&reference, &manifest).await;
        if self.take(before, "a function", answer)?.is_some() {
            self.facts.say(&Fact::AckFunction(reference));
        }
        Ok(())
    }

    async fn submit(&mut self, job: JobId, numbers: std::ops::Range<u32>) -> Step<Vec<Option<Chunk>>> {
        let mut writes = Vec::new();
        for number in numbers {
            let (seed, bytes) = (self.rng.random(), self.profile.pack_bytes(&mut self.rng));
            let pack = blob(seed, bytes);
            let spec = ChunkSpec {
                key: ChunkKey { job, number },
                tenant: TenantId::default(),
                tasks: self.rng.random_range(1..40),
                task_first: 0,
                digest: Digest::of(&pack),
                pack_bytes: pack.len() as u32,
                lane: Lane::default(),
                priority: Priority::default(),
                deadline_ms: None,
                submitted_at_ms: self.clock.fetch_add(1, Ordering::Relaxed),
            };
            self.facts.say(&Fact::AskChunk(spec.key, spec.digest));
            self.put(spec.pack_key(), pack).await?;
            writes.push(Write { key: spec.key, event: ChunkEvent::Submit { spec: Box::new(spec) } });
        }
        self.apply(writes).await
    }

    /// Takes a chunk some way towards its end; answers what it adds to its job's summary.
    async fn work(&mut self, chunk: Chunk) -> Step<Option<SummaryEntry>> {
        let key = chunk.spec.key;
        let entry = |chunk: &Chunk| Some(SummaryEntry::of(chunk));
        let road = self.rng.random_range(0..12);
        if road == 0 {
            return Ok(entry(&chunk));
        }
        if road == 1 {
            let event = ChunkEvent::End { reason: EndReason::Cancelled, now_ms: NOW_MS };
            return Ok(self.apply_one(key, event).await?.as_ref().and_then(entry));
        }
        let Some(mut chunk) = self.claim(key).await? else { return Ok(None) };
        // Not durable by themselves: they wait in the journal for the next that is.
        for beat in 0..self.rng.random_range(0..6) {
            let Some(lease) = chunk.lease() else { return Ok(None) };
            let event = ChunkEvent::Heartbeat { attempt: lease.attempt.clone(), until_ms: NOW_MS + 31_000 + beat };
            let Some(after) = self.apply_one(key, event).await? else { return Ok(None) };
            chunk = after;
        }
        if road < 6 && chunk.spec.tasks > 1 {
            let Some((attempt, commit)) = self.commit(&chunk, true).await? else { return Ok(None) };
            let (tallies, checkpoints) = Default::default();
            let (rv, until_ms) = (chunk.rv, NOW_MS + 60_000);
            let event = ChunkEvent::Segment { attempt, rv, commit: Some(commit), tallies, checkpoints, until_ms };
            let Some(after) = self.apply_one(key, event).await? else { return Ok(None) };
            chunk = after;
        }
        if road == 2 {
            return Ok(entry(&chunk));
        }
        if road == 3 || road == 7 {
            let Some(lease) = chunk.lease() else { return Ok(None) };
            let (attempt, now_ms) = (lease.attempt.clone(), NOW_MS);
            let event = ChunkEvent::Release {
                attempt,
                rv: chunk.rv,
                commit: None,
                tallies: Vec::new(),
                checkpoints: BTreeMap::new(),
                now_ms,
                not_before_ms: 0,
                reason: ReleaseReason::BackOff,
            };
            if self.apply_one(key, event).await?.is_none() {
                return Ok(None);
            }
            let Some(again) = self.claim(key).await? else { return Ok(None) };
            chunk = again;
        }
        let Some((attempt, commit)) = self.commit(&chunk, false).await? else { return Ok(None) };
        let event = ChunkEvent::Finish { attempt, rv: chunk.rv, commit: Some(commit), now_ms: NOW_MS };
        Ok(self.apply_one(key, event).await?.as_ref().and_then(entry))
    }

    async fn claim(&mut self, key: ChunkKey) -> Step<Option<Chunk>> {
        let owner = Owner { worker: "wrk_durability".parse().expect("a worker id"), nonce: self.rng.random() };
        self.apply_one(key, ChunkEvent::Claim { owner, now_ms: NOW_MS, until_ms: NOW_MS + 30_000 }).await
    }

    /// Puts a segment with the outcomes of half or all of the open tasks.
    async fn commit(&mut self, chunk: &Chunk, half: bool) -> Step<Option<(sheaf_core::Attempt, Commit)>> {
        let Some(lease) = chunk.lease() else { return Ok(None) };
        let attempt = lease.attempt.clone();
        let open: Vec<u32> = chunk.work.marks.open_tasks().collect();
        let tasks = if half { open.len().div_ceil(2).min(open.len() - 1) } else { open.len() };
        let mut marks = Marks::open(chunk.spec.tasks);
        open.iter().take(tasks).for_each(|&task| marks.set(task, Mark::Succeeded));
        let bytes = self.profile.pack_bytes(&mut self.rng);
        let content = blob(self.rng.random(), bytes);
        let number = chunk.work.segments.iter().filter(|segment| segment.epoch == attempt.epoch).count() as u32;
        let segment = SegmentRef {
            epoch: attempt.epoch,
            nonce: attempt.owner.nonce,
            number,
            digest: Digest::of(&content),
            bytes: content.len() as u32,
            tasks: tasks as u32,
            run_us: 0,
            run_us_max: 0,
            has_logs: false,
        };
        let key = segment.key(&chunk.spec);
        self.facts.say(&Fact::AskSegment(key.clone(), segment.digest));
        self.put(key, content).await?;
        Ok(Some((attempt, Commit { marks, segment })))
    }

    /// Summarises; seals or cancels; closes what is complete; removes some of what is over.
    async fn end(&mut self, id: JobId, chunks: u32, entries: Vec<SummaryEntry>) -> Step<()> {
        let before = self.has_stopped();
        let answer = self.ports.state().summarise(id, &entries).await;
        let Some(summary) = self.take(before, "a summary", answer)? else { return Ok(()) };
        if self.rng.random_range(0..6) == 0 {
            return Ok(());
        }
        let all_there = summary.chunks_submitted == u64::from(chunks) && !self.has_stopped();
        if self.rng.random_range(0..5) == 0 || !all_there {
            self.apply_job(id, JobEvent::Cancel).await?;
            return Ok(());
        }
        let seal = Seal { chunks, tasks: summary.tasks_submitted };
        self.apply_job(id, JobEvent::Seal { seal }).await?;
        if summary.chunks_ended != u64::from(chunks) || self.has_stopped() {
            return Ok(());
        }
        self.apply_job(id, JobEvent::Complete { now_ms: NOW_MS }).await?;
        if self.rng.random_range(0..3) == 0 {
            self.remove(id).await?;
        }
        Ok(())
    }

    async fn remove(&mut self, id: JobId) -> Step<()> {
        let Ok(Some(job)) = self.ports.state().job(id).await else { return Ok(()) };
        self.facts.say(&Fact::AskRemove(id));
        let before = self.has_stopped();
        let answer = sweep::remove(&self.ports, &job).await;
        if self.take(before, "a removal", answer)?.is_some() {
            self.facts.say(&Fact::AckRemove(id));
        }
        Ok(())
    }
}

/// Creates a job with one chunk, as a store that has been opened again must be able to; answers the facts.
pub fn one_more(store: &LocalStore) -> anyhow::Result<Vec<Fact>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let id = JobId::from_bytes(rand::random());
        let job = Job {
            id,
            tenant: TenantId::default(),
            options: JobOptions::new(vec!["echo@0123456789ab".parse().expect("a function version")]),
            options_digest: Digest::of(b""),
            origin: None,
            created_at_ms: NOW_MS,
            state: JobState::Open,
        };
        store.create_job(job).await.context("a new job")?;
        let pack = blob(rand::random(), 5_000);
        let spec = ChunkSpec {
            key: ChunkKey { job: id, number: 0 },
            tenant: TenantId::default(),
            tasks: 3,
            task_first: 0,
            digest: Digest::of(&pack),
            pack_bytes: pack.len() as u32,
            lane: Lane::default(),
            priority: Priority::default(),
            deadline_ms: None,
            submitted_at_ms: NOW_MS,
        };
        store.put(vec![(spec.pack_key(), pack)]).await.remove(0).context("a new blob")?;
        let write = Write { key: spec.key, event: ChunkEvent::Submit { spec: Box::new(spec.clone()) } };
        let chunk = store.apply(vec![write]).await.remove(0).context("a new chunk")?;
        store.settle().await?;
        Ok(vec![
            Fact::AskJob(id),
            Fact::AckJob(id, 0),
            Fact::AskChunk(spec.key, spec.digest),
            Fact::AckChunk(spec.key, chunk.rv),
        ])
    })
}
