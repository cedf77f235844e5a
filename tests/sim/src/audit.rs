//! What truly happened, as nobody in the simulated world can know it, and what it must amount to.

use std::collections::{BTreeMap, BTreeSet};

use sheaf_core::{
    Chunk, ChunkEvent, ChunkKey, ChunkState, ChunkTotals, Evidence, JobId, Mark, invariant::Violation, limits,
};

use crate::executor::ProcessId;

/// Things that must have happened in some run of a campaign, or it has shown nothing; and what is counted for people.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts(pub BTreeMap<&'static str, u64>);

impl Counts {
    /// Counts one.
    pub fn one(&mut self, what: &'static str) {
        self.add(what, 1);
    }

    /// Counts some.
    pub fn add(&mut self, what: &'static str, count: u64) {
        *self.0.entry(what).or_default() += count;
    }

    /// How often.
    pub fn of(&self, what: &str) -> u64 {
        self.0.get(what).copied().unwrap_or_default()
    }

    /// Takes in the counts of another run.
    pub fn merge(&mut self, other: &Self) {
        for (what, count) in &other.0 {
            self.add(what, *count);
        }
    }
}

/// One start of a task.
#[derive(Debug, Clone, Copy)]
pub struct Start {
    /// By which attempt.
    pub epoch: u32,
    /// When (Unix, ms, true time).
    pub at_ms: u64,
}

/// What truly became of a chunk.
#[derive(Debug, Clone, Default)]
pub struct ChunkTruth {
    /// Runs of each task.
    pub runs: Vec<u16>,
    /// Times that each task reported an error or died.
    pub failures: Vec<u8>,
    /// Deaths of a worker or child while each task was the suspect.
    pub deaths: BTreeMap<u32, u32>,
    /// Second copies of each task.
    pub copies: BTreeMap<u32, u32>,
    /// Workers that a task has killed.
    pub killed: BTreeMap<u32, u32>,
    /// When an attempt was fenced off or its chunk ended (true time, ms).
    pub fenced_ms: BTreeMap<u32, u64>,
    /// Outcomes when the chunk became final.
    pub totals: Option<ChunkTotals>,
}

/// Keeps the books of one run.
#[derive(Debug, Default)]
pub struct Audit {
    /// What was counted.
    pub counts: Counts,
    /// What must not have happened; the first stops the run.
    pub violations: Vec<String>,
    /// Chunks whose acceptance a client was told of.
    pub acknowledged: BTreeSet<ChunkKey>,
    /// What truly became of chunks.
    pub chunks: BTreeMap<ChunkKey, ChunkTruth>,
    /// When a client was told that a job's cancellation is final (true time, ms).
    pub cancelled: BTreeMap<JobId, u64>,
    /// Who holds each lease, by nonce.
    pub holders: BTreeMap<u64, ProcessId>,
    /// Whether workers' deaths may be charged to chunks in this run at all.
    pub may_crash: bool,
    /// How far clocks may be off, in ms.
    pub skew_ms: u64,
    /// Whether the promises that need every layer are checked.
    pub strict: bool,
}

impl Audit {
    /// Notes that something is not as it must be while every layer is there.
    pub fn unkept(&mut self, what: impl Into<String>) {
        if self.strict {
            self.violated(what);
        }
    }

    /// Notes that something must not be as it is, whichever layer is missing.
    pub fn violated(&mut self, what: impl Into<String>) {
        self.violations.push(what.into());
    }

    /// Notes a broken invariant.
    pub fn broken(&mut self, violation: &Violation) {
        self.violated(violation.to_string());
    }

    /// What truly became of a chunk, so far.
    pub fn truth(&mut self, key: ChunkKey, tasks: u32) -> &mut ChunkTruth {
        let truth = self.chunks.entry(key).or_default();
        if truth.runs.is_empty() {
            truth.runs = vec![0; tasks as usize];
            truth.failures = vec![0; tasks as usize];
        }
        truth
    }

    /// Takes in a write that was applied.
    pub fn applied(&mut self, before: Option<&Chunk>, event: &ChunkEvent, after: &Chunk, now_ms: u64) {
        let key = after.spec.key;
        self.counts.one(event.transition());
        let Some(before) = before else {
            self.truth(key, after.spec.tasks);
            self.counts.add("tasks", after.spec.tasks.into());
            return;
        };
        let outrun = matches!(event, ChunkEvent::TakeOver { evidence: Evidence::Outrun, .. });
        if outrun {
            self.counts.one("attempts outrun by a copy");
        }
        if let (ChunkEvent::TakeOver { .. }, false) = (event, outrun)
            && let Some(lease) = before.lease()
        {
            if !self.may_crash {
                self.unkept(format!("{key} was charged with a crash, and nobody has died or been late"));
            }
            let mut open = before.work.marks.open_tasks();
            let only = open.next().filter(|_| open.next().is_none());
            if let Some(suspect) = lease.marker.or(only) {
                *self.truth(key, after.spec.tasks).deaths.entry(suspect).or_default() += 1;
            }
        }
        if matches!(event, ChunkEvent::Touch { .. }) && before.rv != after.rv {
            self.unkept(format!("{key}: a touch of the sweeper fences its owner off"));
        }
        if after.work.crashes > before.work.crashes && (outrun || !matches!(event, ChunkEvent::TakeOver { .. })) {
            self.unkept(format!("{key}: {} counts as a crash", event.transition()));
        }
        if let (Some(lease), None) = (before.lease(), after.lease().filter(|lease| lease.attempt.epoch == before.epoch))
        {
            let epoch = lease.attempt.epoch;
            self.truth(key, after.spec.tasks).fenced_ms.insert(epoch, now_ms);
        }
        if after.is_final() && !before.is_final() {
            self.truth(key, after.spec.tasks).totals = Some(after.totals());
            self.check_convictions(after);
        }
    }

    /// Invariant 6, its second half: nobody is quarantined by fewer than three deaths under him.
    fn check_convictions(&mut self, chunk: &Chunk) {
        let key = chunk.spec.key;
        let convicted: Vec<u32> =
            (0..chunk.spec.tasks).filter(|&task| chunk.work.marks.get(task) == Mark::Quarantined).collect();
        for task in convicted {
            self.counts.one("tasks quarantined");
            let truth = self.truth(key, chunk.spec.tasks);
            let (deaths, failures) =
                (truth.deaths.get(&task).copied().unwrap_or_default(), u32::from(truth.failures[task as usize]));
            if deaths + failures < u32::from(limits::STRIKES_MAX) {
                self.unkept(format!("invariant 6: {key}/{task} is quarantined after {deaths} deaths under it"));
            }
        }
    }

    /// Takes in the start of a task, and checks that it may start. `paused_ms` is how long its worker stood still.
    pub fn started(&mut self, chunk: Option<&Chunk>, key: ChunkKey, task: u32, start: Start, paused_ms: u64) {
        let Start { epoch, at_ms } = start;
        let Some(chunk) = chunk else { return };
        let late_ms = limits::LEASE_MS + 2 * limits::CLOCK_MARGIN_MS + 2 * self.skew_ms + paused_ms;
        let tasks = chunk.spec.tasks;
        let skew_ms = self.skew_ms;
        if let Some(deadline_ms) = chunk.spec.deadline_ms
            && at_ms > deadline_ms + 2 * skew_ms + paused_ms
        {
            self.unkept(format!("invariant 15: {key}/{task} starts {} ms after its deadline", at_ms - deadline_ms));
        }
        if let Some(&cancelled_ms) = self.cancelled.get(&key.job)
            && at_ms > cancelled_ms + late_ms
        {
            self.unkept(format!("invariant 4: {key}/{task} starts {} ms after a final cancel", at_ms - cancelled_ms));
        }
        let truth = self.truth(key, tasks);
        if epoch == 0 {
            *truth.copies.entry(task).or_default() += 1;
            return self.counts.one("second copies run");
        }
        let fenced_ms = truth.fenced_ms.get(&epoch).copied();
        let runs = &mut truth.runs[task as usize];
        *runs += 1;
        self.counts.one("executions");
        if let Some(fenced_ms) = fenced_ms {
            self.counts.one("executions of a fenced attempt");
            if at_ms > fenced_ms + late_ms {
                let late = at_ms - fenced_ms;
                self.unkept(format!("invariant 4: {key}/{task} starts {late} ms after its attempt was fenced off"));
            }
        } else if chunk.epoch == epoch && chunk.work.marks.get(task) != Mark::Open {
            self.unkept(format!("{key}/{task} is run again though its outcome is committed"));
        }
    }

    /// Invariant 11: no message is deleted while its chunk is open.
    pub fn message_deleted(&mut self, key: ChunkKey, chunk: Option<&Chunk>) {
        if chunk.is_some_and(|chunk| !chunk.is_final()) {
            self.unkept(format!("invariant 11: a message of {key} is deleted while it is open"));
        }
    }

    /// Invariant 6, its first half, at the end of a run: a poison task costs at most five workers, and one more for each second
    /// copy of it.
    pub fn check_poison(&mut self) {
        let most = u32::from(limits::CRASHES_BEFORE_ISOLATION + limits::STRIKES_MAX);
        let worst: Vec<String> = self
            .chunks
            .iter()
            .flat_map(|(key, truth)| truth.killed.iter().map(move |(task, &killed)| (key, truth, task, killed)))
            .filter(|(_, truth, task, killed)| *killed > most + truth.copies.get(task).copied().unwrap_or_default())
            .map(|(key, _, task, killed)| format!("invariant 6: {key}/{task} has killed {killed} workers"))
            .collect();
        worst.into_iter().for_each(|what| self.unkept(what));
    }

    /// That final chunks stay as they were when they became final.
    pub fn check_final(&mut self, chunk: &Chunk) {
        let key = chunk.spec.key;
        if let Some(totals) = self.chunks.get(&key).and_then(|truth| truth.totals)
            && totals != chunk.totals()
        {
            self.violated(format!("invariant 2: the outcomes of {key} changed after it was final"));
        }
        if matches!(chunk.state, ChunkState::Done { .. }) && chunk.spec.tasks == 0 {
            self.violated(format!("{key} is done without a task"));
        }
    }
}
