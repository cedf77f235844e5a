//! Summaries of jobs, kept in memory while they are used and rebuilt from their rows when they are not.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use sheaf_core::{ChunkSet, JobId, Summary};
use sheaf_protocol::{StoreError, SummaryEntry};

use crate::{
    engine::{Engine, Scan, Space, behind},
    keys,
};

/// Jobs whose summaries are kept in memory.
const JOBS_MAX: usize = 256;
/// Rows read at once when a summary is rebuilt.
const PAGE: usize = 10_000;

/// One job's summary, with which chunks it counts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally {
    pub(crate) summary: Summary,
    submitted: ChunkSet,
    ended: ChunkSet,
}

impl Tally {
    /// Counts an entry unless it is counted already; answers whether it was news.
    pub(crate) fn add(&mut self, entry: &SummaryEntry) -> bool {
        let mut news = false;
        if self.submitted.insert(entry.number) {
            self.summary.chunks_submitted += 1;
            self.summary.tasks_submitted += u64::from(entry.tasks);
            news = true;
        }
        if let Some(totals) = entry.ended
            && self.ended.insert(entry.number)
        {
            self.summary.chunks_ended += 1;
            self.summary.totals += totals.into();
            news = true;
        }
        news
    }

    /// Chunks that ended and are not in `have`, lowest first.
    pub(crate) fn ended(&self, have: &ChunkSet, limit: usize) -> Vec<u32> {
        (&self.ended - have).iter().take(limit).collect()
    }
}

#[derive(Default)]
pub(crate) struct Summaries {
    jobs: Mutex<HashMap<JobId, Arc<Mutex<Tally>>>>,
}

impl Summaries {
    /// A job's tally, from memory or its rows.
    pub(crate) fn of(&self, engine: &dyn Engine, job: JobId) -> Result<Arc<Mutex<Tally>>, StoreError> {
        let mut jobs = self.jobs.lock();
        if let Some(tally) = jobs.get(&job) {
            return Ok(tally.clone());
        }
        let mut tally = Tally::default();
        let (mut from, end) = (job.as_bytes().to_vec(), behind(job.as_bytes()));
        loop {
            let rows = engine.scan(Space::Sums, Scan::new(&from, &end, PAGE)).map_err(crate::store::stopped)?;
            for (key, row) in &rows {
                let number = keys::parse_chunk(key).map(|key| key.number);
                if let (Some(number), Some((tasks, ended))) = (number, keys::decode_sum(row)) {
                    tally.add(&SummaryEntry { number, tasks, ended });
                }
            }
            match rows.last() {
                Some((last, _)) if rows.len() == PAGE => from = [last.as_slice(), &[0]].concat(),
                _ => break,
            }
        }
        let tally = Arc::new(Mutex::new(tally));
        jobs.insert(job, tally.clone());
        Ok(tally)
    }

    /// Drops what is too much. Only between commits: a tally that counts a row which is not committed cannot be rebuilt.
    pub(crate) fn trim(&self) {
        let mut jobs = self.jobs.lock();
        if jobs.len() > JOBS_MAX {
            jobs.clear();
        }
    }

    pub(crate) fn forget(&self, job: JobId) {
        self.jobs.lock().remove(&job);
    }
}
