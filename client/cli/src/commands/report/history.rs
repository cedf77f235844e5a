//! What a job's events tell, taken in one after the other: when each chunk waited, ran and ended, and who held it.
//!
//! About 60 bytes a chunk are kept, while bars are drawn 24 more, and everything else is summed up as it passes: a million
//! tasks need no more memory than their chunks do.

use std::collections::HashMap;

use sheaf_api::wire::EventView;
use sheaf_charts::Bar;
use sheaf_core::{EndReason, Event, ReleaseReason, WorkerId, summary::ChunkTotals};

/// Steps of the curves over time.
pub(super) const BINS: usize = 240;
/// Workers whose bars are kept for the timeline.
pub(super) const DRAWN_WORKERS_MAX: usize = 60;
/// Lanes of a worker that are drawn.
const DRAWN_LANES_MAX: usize = 64;
/// Attempts that were not finished, of which bars are drawn.
const DRAWN_UNFINISHED_MAX: usize = 10_000;
/// Bars closer than this share of the time are drawn as one, and may overlap by as much.
const JOINED_SHARE: f64 = 1.0 / 1_000.0;
/// No time: it has not come to that.
const NEVER: u32 = u32::MAX;

/// How an attempt at a chunk ended. Its place among them is its shade in the timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum How {
    /// The chunk was finished.
    Finished,
    /// It was given back.
    Released(ReleaseReason),
    /// Its worker was gone, and another took over.
    Lost,
    /// The job was cancelled, or its deadline passed.
    Cut(EndReason),
    /// It has not ended.
    Running,
}

impl How {
    /// The names of the shades.
    pub(super) const SHADES: [&'static str; 6] =
        ["finished", "worker lost", "still running", "machine reclaimed", "given back", "cancelled, expired"];

    const fn shade(self) -> usize {
        match self {
            Self::Finished => 0,
            Self::Lost => 1,
            Self::Running => 2,
            Self::Released(ReleaseReason::Reclaimed) => 3,
            Self::Released(_) => 4,
            Self::Cut(_) => 5,
        }
    }

    /// In a word or two.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::Lost => "lost",
            Self::Running => "running",
            Self::Released(ReleaseReason::BackOff) => "back_off",
            Self::Released(ReleaseReason::Drain) => "drain",
            Self::Released(ReleaseReason::Reclaimed) => "reclaimed",
            Self::Released(ReleaseReason::Unavailable) => "unavailable",
            Self::Released(ReleaseReason::Outrun) => "outrun",
            Self::Cut(EndReason::Cancelled) => "cancelled",
            Self::Cut(EndReason::Expired) => "expired",
        }
    }

    /// In words, as a cause of work that may be done again.
    pub(super) const fn describe(self) -> &'static str {
        match self {
            Self::Lost => "its worker was gone, and another took over",
            Self::Released(reason) => crate::commands::events::released(reason),
            Self::Cut(EndReason::Cancelled) => "the job was cancelled",
            Self::Cut(EndReason::Expired) => "the deadline passed",
            Self::Finished | Self::Running => "",
        }
    }
}

/// An attempt at a chunk that is over, or still runs at the end of the history.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attempt {
    pub(super) chunk: u32,
    pub(super) number: u32,
    pub(super) worker: usize,
    pub(super) claimed_ms: u64,
    pub(super) ended_ms: u64,
    /// Since its claim or its last commit: what may have to be done again.
    pub(super) uncommitted_ms: u64,
    /// Tasks of the chunk with an outcome by then.
    pub(super) tasks_ended: u32,
    pub(super) how: How,
}

impl Attempt {
    /// How long the chunk was held.
    pub(super) const fn held_ms(&self) -> u64 {
        self.ended_ms.saturating_sub(self.claimed_ms)
    }
}

/// What is kept of a chunk; times are ms since the job was created.
#[derive(Debug, Clone, Copy)]
struct Chunk {
    submitted: u32,
    first_claimed: u32,
    claimed: u32,
    committed: u32,
    ended: u32,
    worker: u32,
    attempts: u32,
    tasks: u32,
    succeeded: u32,
    failed: u32,
    other: u32,
    /// How long its tasks ran, all together.
    ran_us: u64,
    held: bool,
}

const UNSEEN: Chunk = Chunk {
    submitted: NEVER,
    first_claimed: NEVER,
    claimed: NEVER,
    committed: NEVER,
    ended: NEVER,
    worker: NEVER,
    attempts: 0,
    tasks: 0,
    succeeded: 0,
    failed: 0,
    other: 0,
    ran_us: 0,
    held: false,
};

/// When a chunk went through its stages (Unix, ms), as far as it did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Stages {
    pub(super) submitted_ms: Option<u64>,
    pub(super) first_claimed_ms: Option<u64>,
    pub(super) claimed_ms: Option<u64>,
    pub(super) ended_ms: Option<u64>,
    pub(super) attempts: u32,
    /// Whoever held it last.
    pub(super) worker: Option<usize>,
}

/// What is known of a worker.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) id: WorkerId,
    /// Its first claim and the end of its last attempt (Unix, ms).
    pub(super) first_ms: u64,
    pub(super) last_ms: u64,
    pub(super) claimed: u64,
    pub(super) finished: u64,
    pub(super) released: u64,
    pub(super) lost: u64,
    pub(super) tasks_ended: u64,
    pub(super) held_ms: u64,
    /// The run times of tasks in chunks that it held last.
    pub(super) busy_us: u64,
    /// What it ran, in as many lanes as it ran things at once.
    pub(super) bars: Vec<Vec<Bar>>,
}

impl Worker {
    /// From its first claim to the end of its last attempt.
    pub(super) const fn span_ms(&self) -> u64 {
        self.last_ms.saturating_sub(self.first_ms)
    }
}

/// Sums over one step of time.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Bin {
    pub(super) submitted: u64,
    pub(super) succeeded: u64,
    pub(super) failed: u64,
    pub(super) other: u64,
    /// Chunks that ran, times seconds.
    pub(super) ran_s: f64,
}

/// What attempts that were not finished came to.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Loss {
    pub(super) attempts: u64,
    pub(super) held_ms: u64,
    pub(super) uncommitted_ms: u64,
}

/// What a job's events tell.
#[derive(Debug)]
pub(super) struct History {
    start_ms: u64,
    end_ms: u64,
    chunks: Vec<Chunk>,
    pub(super) workers: Vec<Worker>,
    by_id: HashMap<WorkerId, usize>,
    pub(super) bins: Vec<Bin>,
    pub(super) losses: Vec<(How, Loss)>,
    unfinished: Vec<Attempt>,
    pub(super) attempts: u64,
    /// Tasks that ran alone because they may have been what killed workers.
    pub(super) isolated: u64,
}

impl History {
    /// Nothing yet, of a job that lasted from `start_ms` to `end_ms`.
    pub(super) fn new(start_ms: u64, end_ms: u64) -> Self {
        Self {
            start_ms,
            end_ms: end_ms.max(start_ms + 1),
            chunks: Vec::new(),
            workers: Vec::new(),
            by_id: HashMap::new(),
            bins: vec![Bin::default(); BINS],
            losses: Vec::new(),
            unfinished: Vec::new(),
            attempts: 0,
            isolated: 0,
        }
    }

    /// From the job's start to its end, in seconds.
    pub(super) fn span_s(&self) -> f64 {
        (self.end_ms - self.start_ms) as f64 / 1e3
    }

    /// Takes in the next event; gives the attempt that ended with it.
    pub(super) fn take(&mut self, view: &EventView) -> Option<Attempt> {
        let at_ms = view.at_ms;
        match &view.event {
            Event::ChunkSubmitted { chunk, tasks } => {
                let at = self.since_start(at_ms);
                let state = self.chunk(*chunk);
                (state.submitted, state.tasks) = (at, *tasks);
                self.bin(at_ms).submitted += u64::from(*tasks);
                None
            }
            Event::ChunkClaimed { chunk, worker, epoch, .. } => {
                // Whoever holds it still is gone: a chunk is claimed from a queue, or taken over.
                let before = self.end_attempt(*chunk, at_ms, How::Lost);
                self.claim(*chunk, *epoch, worker, at_ms);
                before
            }
            Event::SegmentCommitted { chunk, totals, .. } => {
                self.count(*chunk, totals, at_ms);
                self.chunk(*chunk).committed = self.since_start(at_ms);
                None
            }
            Event::ChunkReleased { chunk, reason, .. } => self.end_attempt(*chunk, at_ms, How::Released(*reason)),
            Event::ChunkFinished { chunk, totals, .. } => {
                self.count(*chunk, totals, at_ms);
                self.chunk(*chunk).ended = self.since_start(at_ms);
                self.end_attempt(*chunk, at_ms, How::Finished)
            }
            Event::ChunkEnded { chunk, totals, reason } => {
                self.count(*chunk, totals, at_ms);
                self.chunk(*chunk).ended = self.since_start(at_ms);
                self.end_attempt(*chunk, at_ms, How::Cut(*reason))
            }
            Event::TaskIsolated { .. } => {
                self.isolated += 1;
                None
            }
            Event::CheckpointStored { .. }
            | Event::JobCreated
            | Event::JobSealed { .. }
            | Event::JobCancelling
            | Event::JobCancelled
            | Event::JobDone => None,
        }
    }

    /// The attempts that still run at the end.
    pub(super) fn close(&mut self) -> Vec<Attempt> {
        let held: Vec<u32> =
            (0..).zip(&self.chunks).filter(|(_, chunk)| chunk.held).map(|(number, _)| number).collect();
        let end_ms = self.end_ms;
        held.into_iter().filter_map(|number| self.end_attempt(number, end_ms, How::Running)).collect()
    }

    /// Notes that a task of chunk `number` ran for so long.
    pub(super) fn ran(&mut self, number: u32, run_us: u64) {
        let Some(chunk) = self.chunks.get_mut(number as usize) else { return };
        chunk.ran_us += run_us;
        if let Some(worker) = self.workers.get_mut(chunk.worker as usize) {
            worker.busy_us += run_us;
        }
    }

    /// Draws what each worker ran, once all events and run times are known. A worker holds chunks before it runs them: a
    /// chunk that was finished is taken to have run as long as its tasks did, up to its end; any other, while it was held.
    pub(super) fn draw(&mut self) {
        let seconds = |at: u32| f64::from(at) / 1e3;
        let finished = self.chunks.iter().filter(|chunk| chunk.ended != NEVER && chunk.worker != NEVER).map(|chunk| {
            let until = seconds(chunk.ended);
            let from = (until - chunk.ran_us as f64 / 1e6).max(seconds(chunk.claimed));
            (chunk.worker as usize, Bar { from, until, shade: How::Finished.shade() })
        });
        let unfinished = self.unfinished.iter().map(|attempt| {
            let (from, until) = (self.seconds(attempt.claimed_ms), self.seconds(attempt.ended_ms));
            (attempt.worker, Bar { from, until, shade: attempt.how.shade() })
        });
        let mut bars: Vec<(usize, Bar)> = finished.chain(unfinished).collect();
        bars.sort_by(|(_, a), (_, b)| a.from.total_cmp(&b.from));
        let joined_s = self.span_s() * JOINED_SHARE;
        for (worker, bar) in bars {
            self.run(bar.from, bar.until);
            if let Some(worker) = self.workers.get_mut(worker).filter(|_| worker < DRAWN_WORKERS_MAX) {
                worker.draw(bar, joined_s);
            }
        }
    }

    /// When chunk `number` went through its stages.
    pub(super) fn stages(&self, number: u32) -> Stages {
        let Some(chunk) = self.chunks.get(number as usize) else { return Stages::default() };
        let unix = |at: u32| (at != NEVER).then(|| self.start_ms + u64::from(at));
        Stages {
            submitted_ms: unix(chunk.submitted),
            first_claimed_ms: unix(chunk.first_claimed),
            claimed_ms: unix(chunk.claimed),
            ended_ms: unix(chunk.ended),
            attempts: chunk.attempts,
            worker: (chunk.worker != NEVER).then_some(chunk.worker as usize),
        }
    }

    /// The number and the tasks of every chunk.
    pub(super) fn chunks(&self) -> impl Iterator<Item = (u32, u32)> {
        (0..).zip(&self.chunks).map(|(number, chunk)| (number, chunk.tasks))
    }

    fn chunk(&mut self, number: u32) -> &mut Chunk {
        let at = number as usize;
        if at >= self.chunks.len() {
            self.chunks.resize(at + 1, UNSEEN);
        }
        &mut self.chunks[at]
    }

    fn since_start(&self, at_ms: u64) -> u32 {
        u32::try_from(at_ms.saturating_sub(self.start_ms)).unwrap_or(NEVER - 1)
    }

    fn bin_of(&self, at_ms: u64) -> usize {
        let share = at_ms.saturating_sub(self.start_ms) as f64 / (self.end_ms - self.start_ms) as f64;
        ((share * BINS as f64) as usize).min(BINS - 1)
    }

    fn bin(&mut self, at_ms: u64) -> &mut Bin {
        let at = self.bin_of(at_ms);
        &mut self.bins[at]
    }

    /// Counts the tasks that have ended since the chunk was last heard of.
    fn count(&mut self, number: u32, totals: &ChunkTotals, at_ms: u64) {
        let now = (totals.succeeded, totals.failed + totals.quarantined, totals.cancelled + totals.expired);
        let chunk = self.chunk(number);
        let before = (chunk.succeeded, chunk.failed, chunk.other);
        (chunk.succeeded, chunk.failed, chunk.other) = now;
        let worker = chunk.worker as usize;
        let more = |now: u32, before: u32| u64::from(now.saturating_sub(before));
        let (succeeded, failed, other) = (more(now.0, before.0), more(now.1, before.1), more(now.2, before.2));
        let bin = self.bin(at_ms);
        (bin.succeeded, bin.failed, bin.other) = (bin.succeeded + succeeded, bin.failed + failed, bin.other + other);
        if let Some(worker) = self.workers.get_mut(worker) {
            worker.tasks_ended += succeeded + failed;
        }
    }

    fn worker(&mut self, id: &WorkerId, at_ms: u64) -> usize {
        if let Some(&worker) = self.by_id.get(id) {
            return worker;
        }
        let worker = self.workers.len();
        self.by_id.insert(id.clone(), worker);
        let (claimed, finished, released, lost, tasks_ended, held_ms, busy_us) = Default::default();
        self.workers.push(Worker {
            id: id.clone(),
            first_ms: at_ms,
            last_ms: at_ms,
            claimed,
            finished,
            released,
            lost,
            tasks_ended,
            held_ms,
            busy_us,
            bars: Vec::new(),
        });
        worker
    }

    fn claim(&mut self, number: u32, epoch: u32, id: &WorkerId, at_ms: u64) {
        let at = self.since_start(at_ms);
        let index = self.worker(id, at_ms);
        self.attempts += 1;
        self.workers[index].claimed += 1;
        let chunk = self.chunk(number);
        if chunk.first_claimed == NEVER {
            chunk.first_claimed = at;
        }
        (chunk.claimed, chunk.committed, chunk.attempts) = (at, NEVER, epoch);
        (chunk.worker, chunk.held) = (index as u32, true);
    }

    fn end_attempt(&mut self, number: u32, at_ms: u64, how: How) -> Option<Attempt> {
        let start_ms = self.start_ms;
        let chunk = self.chunk(number);
        if !std::mem::take(&mut chunk.held) {
            return None;
        }
        let (claimed_ms, index) = (start_ms + u64::from(chunk.claimed), chunk.worker as usize);
        let committed = if chunk.committed == NEVER { chunk.claimed } else { chunk.committed };
        let attempt = Attempt {
            chunk: number,
            number: chunk.attempts,
            worker: index,
            claimed_ms,
            ended_ms: at_ms.max(claimed_ms),
            uncommitted_ms: at_ms.saturating_sub(start_ms + u64::from(committed)),
            tasks_ended: chunk.succeeded + chunk.failed + chunk.other,
            how,
        };
        self.lose(&attempt);
        if how != How::Finished && !matches!(how, How::Cut(_)) && self.unfinished.len() < DRAWN_UNFINISHED_MAX {
            self.unfinished.push(attempt);
        }
        let worker = &mut self.workers[index];
        worker.last_ms = worker.last_ms.max(attempt.ended_ms);
        worker.held_ms += attempt.held_ms();
        match how {
            How::Finished => worker.finished += 1,
            How::Released(_) => worker.released += 1,
            How::Lost => worker.lost += 1,
            How::Cut(_) | How::Running => {}
        }
        Some(attempt)
    }

    fn seconds(&self, at_ms: u64) -> f64 {
        at_ms.saturating_sub(self.start_ms) as f64 / 1e3
    }

    /// Adds a time in which a chunk ran to the steps that it touches.
    fn run(&mut self, from_s: f64, until_s: f64) {
        let step_s = self.span_s() / BINS as f64;
        let bin = |at_s: f64| ((at_s / step_s) as usize).min(BINS - 1);
        for at in bin(from_s)..=bin(until_s) {
            let begins_s = at as f64 * step_s;
            self.bins[at].ran_s += (until_s.min(begins_s + step_s) - from_s.max(begins_s)).max(0.0);
        }
    }

    fn lose(&mut self, attempt: &Attempt) {
        if matches!(attempt.how, How::Finished | How::Running) {
            return;
        }
        let at = self.losses.iter().position(|(how, _)| *how == attempt.how).unwrap_or_else(|| {
            self.losses.push((attempt.how, Loss::default()));
            self.losses.len() - 1
        });
        let loss = &mut self.losses[at].1;
        loss.attempts += 1;
        loss.held_ms += attempt.held_ms();
        loss.uncommitted_ms += attempt.uncommitted_ms;
    }
}

impl Worker {
    /// Adds a bar, which begins after all before it, to the first lane that is free then.
    fn draw(&mut self, bar: Bar, joined_s: f64) {
        let free = |lane: &Vec<Bar>| lane.last().is_none_or(|last| last.until <= bar.from + joined_s);
        let lane = self.bars.iter().position(free).unwrap_or(self.bars.len());
        if lane == self.bars.len() {
            if lane == DRAWN_LANES_MAX {
                return;
            }
            self.bars.push(Vec::new());
        }
        match self.bars[lane].last_mut() {
            Some(last) if last.shade == bar.shade && bar.from - last.until < joined_s => {
                last.until = last.until.max(bar.until);
            }
            _ => self.bars[lane].push(bar),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use sheaf_core::JobId;

    use super::*;

    fn told(history: &mut History, at_ms: u64, event: Event) -> Option<Attempt> {
        let job = "job_01890a5dac96774bbcceb302099a8057".parse::<JobId>().unwrap();
        history.take(&EventView { number: at_ms, at_ms, job, event })
    }

    fn worker(n: u8) -> WorkerId {
        format!("wrk_{n}").parse().unwrap()
    }

    fn claimed(chunk: u32, epoch: u32, n: u8) -> Event {
        Event::ChunkClaimed { chunk, epoch, worker: worker(n), taken_over: epoch > 1, resumed: 0 }
    }

    fn totals(succeeded: u32, failed: u32) -> ChunkTotals {
        ChunkTotals { succeeded, failed, ..ChunkTotals::default() }
    }

    #[test]
    fn a_chunk_that_is_taken_over_has_two_attempts_and_a_loss() {
        let mut history = History::new(1_000, 11_000);
        assert!(told(&mut history, 1_000, Event::ChunkSubmitted { chunk: 0, tasks: 10 }).is_none());
        assert!(told(&mut history, 2_000, claimed(0, 1, 1)).is_none());
        told(&mut history, 4_000, Event::SegmentCommitted { chunk: 0, epoch: 1, totals: totals(3, 1) });
        let lost = told(&mut history, 7_000, claimed(0, 2, 2)).unwrap();
        assert_eq!((lost.how, lost.held_ms(), lost.uncommitted_ms, lost.tasks_ended), (How::Lost, 5_000, 3_000, 4));
        let finished =
            Event::ChunkFinished { chunk: 0, epoch: 2, worker: worker(2), since_ms: 7_000, totals: totals(9, 1) };
        let last = told(&mut history, 9_000, finished).unwrap();
        assert_eq!((last.how, last.number, last.held_ms()), (How::Finished, 2, 2_000));
        assert!(history.close().is_empty());
        let stages = history.stages(0);
        assert_eq!((stages.submitted_ms, stages.first_claimed_ms), (Some(1_000), Some(2_000)));
        assert_eq!((stages.claimed_ms, stages.ended_ms, stages.attempts), (Some(7_000), Some(9_000), 2));
        assert_eq!(history.losses.len(), 1);
        assert_eq!(history.losses[0].1.uncommitted_ms, 3_000);
        let ended: Vec<u64> = history.workers.iter().map(|worker| worker.tasks_ended).collect();
        assert_eq!(ended, [4, 6]);
        let sum = |of: fn(&Bin) -> u64| history.bins.iter().map(of).sum::<u64>();
        assert_eq!((sum(|bin| bin.submitted), sum(|bin| bin.succeeded), sum(|bin| bin.failed)), (10, 9, 1));
        // It ran for 1.5 of the 2 seconds that it was held last, and nobody knows when it ran before.
        (0..10).for_each(|_| history.ran(0, 150_000));
        history.draw();
        let ran_s: f64 = history.bins.iter().map(|bin| bin.ran_s).sum();
        assert!((ran_s - 6.5).abs() < 1e-3, "{ran_s}");
        assert_eq!(history.workers[1].bars[0], [Bar { from: 6.5, until: 8.0, shade: How::Finished.shade() }]);
        assert_eq!(history.workers[0].bars[0], [Bar { from: 1.0, until: 6.0, shade: How::Lost.shade() }]);
    }

    #[test]
    fn bars_do_not_grow_with_the_number_of_chunks() {
        let mut history = History::new(0, 1_000_000);
        for chunk in 0..100_000 {
            let at_ms = u64::from(chunk) * 10;
            told(&mut history, at_ms, claimed(chunk, 1, 1));
            let finished =
                Event::ChunkFinished { chunk, epoch: 1, worker: worker(1), since_ms: at_ms, totals: totals(1, 0) };
            told(&mut history, at_ms + 9, finished);
            history.ran(chunk, 9_000);
        }
        history.draw();
        assert_eq!((history.workers[0].bars.len(), history.workers[0].bars[0].len()), (1, 1));
        assert_eq!(history.workers[0].finished, 100_000);
    }

    #[test]
    fn what_runs_at_once_has_lanes_of_its_own_and_what_still_runs_ends_with_the_history() {
        let mut history = History::new(0, 1_000);
        told(&mut history, 100, claimed(0, 1, 1));
        told(&mut history, 200, claimed(1, 1, 1));
        let released = Event::ChunkReleased { chunk: 0, epoch: 1, reason: ReleaseReason::Reclaimed, not_before_ms: 0 };
        told(&mut history, 300, released);
        told(&mut history, 400, claimed(2, 1, 1));
        let running = history.close();
        assert_eq!(running.iter().map(|attempt| attempt.chunk).collect::<Vec<_>>(), [1, 2]);
        history.draw();
        assert_eq!(history.workers[0].bars.len(), 2);
        let shades: Vec<Vec<usize>> =
            history.workers[0].bars.iter().map(|lane| lane.iter().map(|bar| bar.shade).collect()).collect();
        let (reclaimed, running) = (How::Released(ReleaseReason::Reclaimed).shade(), How::Running.shade());
        assert_eq!(shades, [vec![reclaimed, running], vec![running]]);
    }
}
