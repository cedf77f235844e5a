//! The CSVs beside a report: a line for each task, attempt and worker. Times are Unix milliseconds.

use std::{
    fs::File,
    io::{self, BufWriter},
    path::{Path, PathBuf},
};

use csv::Writer;

use super::{
    WorkerLine,
    history::{Attempt, History},
};
use crate::{
    answers::{TaskAnswer, kind},
    problem::{Outcome, Problem},
};

/// One CSV.
pub(super) struct Csv {
    path: PathBuf,
    writer: Writer<BufWriter<File>>,
}

impl Csv {
    pub(super) fn create(folder: &Path, name: &str, heading: &[&str]) -> Outcome<Self> {
        let path = folder.join(name);
        let file = File::create(&path).map_err(|error| Problem::file("written", &path, error))?;
        let mut csv = Self { path, writer: Writer::from_writer(BufWriter::new(file)) };
        csv.line(heading)?;
        Ok(csv)
    }

    pub(super) fn line<T: AsRef<[u8]>>(&mut self, cells: impl IntoIterator<Item = T>) -> Outcome<()> {
        self.writer.write_record(cells).map_err(|error| Problem::file("written", &self.path, io::Error::other(error)))
    }

    pub(super) fn finish(mut self) -> Outcome<PathBuf> {
        self.writer.flush().map_err(|error| Problem::file("written", &self.path, error))?;
        Ok(self.path)
    }
}

/// The CSVs of a job, written as its events and results are read.
pub(super) struct Files {
    tasks: Csv,
    attempts: Csv,
    workers: Csv,
}

impl Files {
    /// Begins them in `folder`, which is made if it is not there.
    pub(super) fn create(folder: &Path) -> Outcome<Self> {
        std::fs::create_dir_all(folder).map_err(|error| Problem::file("made", folder, error))?;
        Ok(Self {
            tasks: Csv::create(
                folder,
                "tasks.csv",
                &[
                    "task",
                    "position",
                    "key",
                    "outcome",
                    "cause",
                    "worker",
                    "attempts",
                    "submitted_at_ms",
                    "first_claimed_at_ms",
                    "claimed_at_ms",
                    "ended_at_ms",
                    "run_us",
                    "submitted_to_first_claimed_ms",
                    "first_claimed_to_claimed_ms",
                    "claimed_to_ended_ms",
                    "submitted_to_ended_ms",
                ],
            )?,
            attempts: Csv::create(
                folder,
                "attempts.csv",
                &[
                    "chunk",
                    "attempt",
                    "worker",
                    "how",
                    "claimed_at_ms",
                    "ended_at_ms",
                    "held_ms",
                    "uncommitted_ms",
                    "tasks_ended",
                ],
            )?,
            workers: Csv::create(
                folder,
                "workers.csv",
                &[
                    "worker",
                    "slots",
                    "first_claimed_at_ms",
                    "last_ended_at_ms",
                    "span_ms",
                    "held_ms",
                    "busy_ms",
                    "utilisation",
                    "claimed",
                    "finished",
                    "released",
                    "lost",
                    "tasks_ended",
                ],
            )?,
        })
    }

    /// A line for an attempt that is over.
    pub(super) fn attempt(&mut self, attempt: &Attempt, history: &History) -> Outcome<()> {
        let worker = history.workers.get(attempt.worker).map(|worker| worker.id.to_string()).unwrap_or_default();
        self.attempts.line([
            attempt.chunk.to_string(),
            attempt.number.to_string(),
            worker,
            attempt.how.as_str().to_owned(),
            attempt.claimed_ms.to_string(),
            attempt.ended_ms.to_string(),
            attempt.held_ms().to_string(),
            attempt.uncommitted_ms.to_string(),
            attempt.tasks_ended.to_string(),
        ])
    }

    /// A line for a task with an outcome. Its times are those of its chunk.
    pub(super) fn task(&mut self, answer: &TaskAnswer, history: &History) -> Outcome<()> {
        let stages = history.stages(answer.task.chunk.number);
        let shown = |at_ms: Option<u64>| at_ms.map(|at_ms| at_ms.to_string()).unwrap_or_default();
        let between = |from: Option<u64>, until: Option<u64>| {
            from.zip(until).map(|(from, until)| until.saturating_sub(from).to_string()).unwrap_or_default()
        };
        let (submitted, first, last, ended) =
            (stages.submitted_ms, stages.first_claimed_ms, stages.claimed_ms, stages.ended_ms);
        let worker = stages.worker.and_then(|worker| history.workers.get(worker));
        self.tasks.line([
            answer.task.to_string(),
            answer.position.to_string(),
            answer.key.clone(),
            answer.outcome.to_string(),
            answer.failure.as_ref().map(|failure| kind(failure).to_owned()).unwrap_or_default(),
            worker.map(|worker| worker.id.to_string()).unwrap_or_default(),
            stages.attempts.to_string(),
            shown(submitted),
            shown(first),
            shown(last),
            shown(ended),
            answer.run_us.map(|us| us.to_string()).unwrap_or_default(),
            between(submitted, first),
            between(first, last),
            between(last, ended),
            between(submitted, ended),
        ])
    }

    /// A line for each worker; the paths of all files.
    pub(super) fn finish(mut self, workers: &[WorkerLine]) -> Outcome<Vec<PathBuf>> {
        for worker in workers {
            self.workers.line([
                worker.worker.to_string(),
                worker.slots.map(|slots| slots.to_string()).unwrap_or_default(),
                worker.first_claimed_at_ms.to_string(),
                worker.last_ended_at_ms.to_string(),
                worker.span_ms.to_string(),
                worker.held_ms.to_string(),
                (worker.busy_us / 1_000).to_string(),
                worker.utilisation.map(|share| format!("{share:.4}")).unwrap_or_default(),
                worker.claimed.to_string(),
                worker.finished.to_string(),
                worker.released.to_string(),
                worker.lost.to_string(),
                worker.tasks_ended.to_string(),
            ])?;
        }
        [self.tasks, self.attempts, self.workers].into_iter().map(Csv::finish).collect()
    }
}
