//! Where the time of a task goes, as far as the grid's own history of its chunk tells.
//!
//! The grid writes an event with its time for each write that moves a chunk. Its time is that of the decision, a moment before
//! the write is durable; so the sync of the last write belongs to `read`, which ends when the client has the result.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use sheaf::{
    Grid, JobId,
    core::{ChunkKey, Event},
    wire::EventView,
};

use crate::{
    clients::ChunkSeen,
    error::LoadError,
    histogram::{Percentiles, Times},
};

/// Events that are read after a measurement, all jobs together.
const EVENTS_MAX: usize = 200_000;

/// When each chunk moved (Unix, µs).
#[derive(Debug, Default)]
pub struct History {
    chunks: HashMap<ChunkKey, Moves>,
    /// Events that were read, and whether those were all.
    pub events: usize,
    /// Whether jobs had more events than are read.
    pub cut: bool,
}

#[derive(Debug, Default, Clone, Copy)]
struct Moves {
    submitted_us: Option<u64>,
    claimed_us: Option<u64>,
    claims: u32,
    finished_us: Option<u64>,
}

impl History {
    /// Reads the history of jobs.
    pub async fn read(grid: &Grid, jobs: &BTreeSet<JobId>) -> Result<Self, LoadError> {
        let mut history = Self::default();
        for job in jobs {
            let (job, mut from) = (grid.attach(*job).await?, Some(0));
            while let Some(number) = from {
                if history.events >= EVENTS_MAX {
                    history.cut = true;
                    return Ok(history);
                }
                let page = job.events(number).await?;
                page.rows.iter().for_each(|event| history.take(event));
                from = page.next.and_then(|next| next.parse().ok());
            }
        }
        Ok(history)
    }

    fn take(&mut self, view: &EventView) {
        self.events += 1;
        let at_us = time_us(view);
        let key = |number: &u32| ChunkKey { job: view.job, number: *number };
        match &view.event {
            Event::ChunkSubmitted { chunk, .. } => {
                self.chunks.entry(key(chunk)).or_default().submitted_us = Some(at_us);
            }
            Event::ChunkClaimed { chunk, .. } => {
                let moves = self.chunks.entry(key(chunk)).or_default();
                moves.claims += 1;
                moves.claimed_us.get_or_insert(at_us);
            }
            Event::ChunkFinished { chunk, .. } => {
                self.chunks.entry(key(chunk)).or_default().finished_us = Some(at_us);
            }
            _ => {}
        }
    }

    /// From the first claim to the last end of a chunk.
    pub fn active_us(&self) -> Option<u64> {
        let first = self.chunks.values().filter_map(|moves| moves.claimed_us).min()?;
        let last = self.chunks.values().filter_map(|moves| moves.finished_us).max()?;
        last.checked_sub(first).filter(|_| !self.cut)
    }

    /// The stages of chunks, by name. What cannot be told apart is said in `blurred`.
    pub fn stages(
        &self,
        seen: &HashMap<ChunkKey, ChunkSeen>,
        shares_clock: bool,
        blurred: &mut BTreeSet<String>,
    ) -> BTreeMap<String, Percentiles> {
        let (mut queue, mut held, mut commit, mut read) =
            (Times::default(), Times::default(), Times::default(), Times::default());
        for (key, seen) in seen {
            let Some(Moves {
                submitted_us: Some(submitted),
                claimed_us: Some(claimed),
                claims,
                finished_us: Some(finished),
            }) = self.chunks.get(key).copied()
            else {
                continue;
            };
            queue.add_us(claimed.saturating_sub(submitted));
            held.add_us(finished.saturating_sub(claimed));
            if seen.tasks == 1 && claims == 1 {
                commit.add_us(finished.saturating_sub(claimed).saturating_sub(seen.run_us));
            }
            if shares_clock {
                read.add_us(seen.at_us.saturating_sub(finished));
            }
        }
        if held.count() > commit.count() {
            blurred.insert("running and committing, of chunks with several tasks: both lie in `held`".to_owned());
        }
        if !shares_clock && held.count() > 0 {
            blurred.insert("reading, as the grid's clock is another machine's".to_owned());
        }
        let stages = [("queue", queue), ("held", held), ("commit", commit), ("read", read)];
        stages.into_iter().filter_map(|(name, times)| Some((name.to_owned(), times.percentiles()?))).collect()
    }
}

/// When an event was, in µs where the grid numbers its events so, else in whole ms.
const fn time_us(view: &EventView) -> u64 {
    let by_number = view.number / 1_000;
    // Two at the same µs are numbered one after the other, so that a number may run ahead of its time a little.
    if by_number >= view.at_ms && by_number <= view.at_ms + 1_000 { view.number } else { view.at_ms * 1_000 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(number: u64, at_ms: u64) -> EventView {
        let job = "job_0198c0ffee0070008000000000000001".parse().expect("an id");
        EventView { number, at_ms, job, event: Event::JobCreated }
    }

    #[test]
    fn times_are_as_fine_as_the_grid_tells() {
        assert_eq!(time_us(&view(1_780_000_000_123_456, 1_780_000_000_123)), 1_780_000_000_123_456);
        assert_eq!(time_us(&view(17, 1_780_000_000_123)), 1_780_000_000_123_000);
    }

    #[test]
    fn stages_are_the_differences_of_moves() {
        let mut history = History::default();
        let EventView { job, .. } = view(0, 0);
        let key = ChunkKey { job, number: 0 };
        let moves = Moves { submitted_us: Some(100), claimed_us: Some(300), claims: 1, finished_us: Some(1_000) };
        history.chunks.insert(key, moves);
        let several = ChunkKey { job, number: 1 };
        history.chunks.insert(several, Moves { finished_us: Some(1_500), ..moves });
        let one = ChunkSeen { at_us: 1_250, run_us: 600, tasks: 1 };
        let seen = HashMap::from([(key, one), (several, ChunkSeen { at_us: 1_500, tasks: 2, ..one })]);
        let mut blurred = BTreeSet::new();
        let stages = history.stages(&seen, true, &mut blurred);
        let of = |name: &str| (stages[name].count, stages[name].max_ms);
        assert_eq!((of("queue"), of("held"), of("commit"), of("read")), ((2, 0.2), (2, 1.2), (1, 0.1), (2, 0.25)));
        assert_eq!((blurred.len(), history.active_us()), (1, Some(1_200)));
        assert!(!history.stages(&seen, false, &mut blurred).contains_key("read"));
        assert_eq!(blurred.len(), 2);
    }
}
