//! What a workload asked of the store and what it was told, one line each; and the ledger that these lines add up to.
//!
//! `ask …` is written before the call, `ack …` after its answer. What was acknowledged must be there after a crash; what is
//! there must have been asked for.

use std::{collections::BTreeMap, fmt, str::FromStr};

use anyhow::{Context, bail};
use sheaf_core::{ChunkKey, Digest, FunctionRef, JobId, JobState};

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// A job is about to be created.
    AskJob(JobId),
    /// The job is at least in this stage (see [`stage`]).
    AckJob(JobId, u8),
    /// A chunk is about to be submitted, with a pack of this digest.
    AskChunk(ChunkKey, Digest),
    /// The chunk is at least at this `rv`.
    AckChunk(ChunkKey, u64),
    /// A segment is about to be put under this key.
    AskSegment(String, Digest),
    /// The job is about to be removed: from now on it may be there in part.
    AskRemove(JobId),
    /// The job is gone.
    AckRemove(JobId),
    /// The function is there.
    AckFunction(FunctionRef),
    /// The store has refused a write because an earlier one failed.
    Stopped,
    /// The workload itself saw a promise broken.
    Broken(String),
}

impl Fact {
    /// Whether it says that the store acknowledged something.
    pub const fn is_acknowledged(&self) -> bool {
        matches!(self, Self::AckJob(..) | Self::AckChunk(..) | Self::AckRemove(_) | Self::AckFunction(_))
    }
}

/// How far a job has come: 0 open, 1 sealed or being cancelled, 2 over.
pub const fn stage(state: &JobState) -> u8 {
    match state {
        JobState::Open => 0,
        JobState::Sealed { .. } | JobState::Cancelling { .. } => 1,
        JobState::Done { .. } | JobState::Cancelled { .. } => 2,
    }
}

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AskJob(job) => writeln!(f, "ask job {job}"),
            Self::AckJob(job, stage) => writeln!(f, "ack job {job} {stage}"),
            Self::AskChunk(key, digest) => writeln!(f, "ask chunk {} {} {digest}", key.job, key.number),
            Self::AckChunk(key, rv) => writeln!(f, "ack chunk {} {} {rv}", key.job, key.number),
            Self::AskSegment(key, digest) => writeln!(f, "ask segment {key} {digest}"),
            Self::AskRemove(job) => writeln!(f, "ask remove {job}"),
            Self::AckRemove(job) => writeln!(f, "ack remove {job}"),
            Self::AckFunction(function) => writeln!(f, "ack function {function}"),
            Self::Stopped => writeln!(f, "stopped"),
            Self::Broken(how) => writeln!(f, "broken {how}"),
        }
    }
}

impl FromStr for Fact {
    type Err = anyhow::Error;

    fn from_str(line: &str) -> anyhow::Result<Self> {
        if let Some(how) = line.strip_prefix("broken ") {
            return Ok(Self::Broken(how.trim_end().to_owned()));
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        let key = |job: &str, number: &str| -> anyhow::Result<ChunkKey> {
            Ok(ChunkKey { job: job.parse()?, number: number.parse()? })
        };
        let fact = match words.as_slice() {
            ["ask", "job", job] => Self::AskJob(job.parse()?),
            ["ack", "job", job, stage] => Self::AckJob(job.parse()?, stage.parse()?),
            ["ask", "chunk", job, number, digest] => Self::AskChunk(key(job, number)?, digest.parse()?),
            ["ack", "chunk", job, number, rv] => Self::AckChunk(key(job, number)?, rv.parse()?),
            ["ask", "segment", blob, digest] => Self::AskSegment((*blob).to_owned(), digest.parse()?),
            ["ask", "remove", job] => Self::AskRemove(job.parse()?),
            ["ack", "remove", job] => Self::AckRemove(job.parse()?),
            ["ack", "function", function] => Self::AckFunction(function.parse().context("a function")?),
            ["stopped"] => Self::Stopped,
            _ => bail!("no fact: {line:?}"),
        };
        Ok(fact)
    }
}

/// A job, as far as the facts tell.
#[derive(Debug, Clone, Copy, Default)]
pub struct JobFacts {
    /// The stage acknowledged.
    pub stage: Option<u8>,
    /// Its removal was asked for.
    pub removing: bool,
    /// Its removal was acknowledged.
    pub removed: bool,
}

/// A chunk, as far as the facts tell.
#[derive(Debug, Clone, Copy)]
pub struct ChunkFacts {
    /// The digest of its pack.
    pub digest: Digest,
    /// The greatest `rv` acknowledged; 0 for none.
    pub rv: u64,
}

/// What must be there, and what may be.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    /// Every job asked for.
    pub jobs: BTreeMap<JobId, JobFacts>,
    /// Every chunk asked for.
    pub chunks: BTreeMap<ChunkKey, ChunkFacts>,
    /// Every segment asked for.
    pub segments: BTreeMap<String, Digest>,
    /// Every function acknowledged.
    pub functions: Vec<FunctionRef>,
    /// Promises that the workload itself saw broken.
    pub broken: Vec<String>,
}

impl Ledger {
    /// Adds a line.
    pub fn add(&mut self, fact: &Fact) {
        match fact {
            Fact::AskJob(job) => drop(self.jobs.entry(*job).or_default()),
            Fact::AckJob(job, stage) => {
                let facts = self.jobs.entry(*job).or_default();
                facts.stage = facts.stage.max(Some(*stage));
            }
            Fact::AskChunk(key, digest) => {
                self.chunks.insert(*key, ChunkFacts { digest: *digest, rv: 0 });
            }
            Fact::AckChunk(key, rv) => {
                if let Some(facts) = self.chunks.get_mut(key) {
                    facts.rv = facts.rv.max(*rv);
                }
            }
            Fact::AskSegment(key, digest) => drop(self.segments.insert(key.clone(), *digest)),
            Fact::AskRemove(job) => self.jobs.entry(*job).or_default().removing = true,
            Fact::AckRemove(job) => self.jobs.entry(*job).or_default().removed = true,
            Fact::AckFunction(function) => self.functions.push(function.clone()),
            Fact::Stopped => {}
            Fact::Broken(how) => self.broken.push(how.clone()),
        }
    }

    /// Whether a job's removal was asked for.
    pub fn is_removing(&self, job: JobId) -> bool {
        self.jobs.get(&job).is_some_and(|facts| facts.removing)
    }
}
