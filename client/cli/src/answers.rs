//! What tasks ended as: the results of a job, read chunk by chunk and told apart into tasks.

use std::collections::{BTreeMap, HashMap, VecDeque};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::{Serialize, Serializer};
use sheaf_api::{
    Api, Code, Pack, Segment,
    intake::{OutcomeText, write_line},
    wire::{ChunkResult, JobView, ReadResults},
};
use sheaf_core::{ChunkKey, EndReason, Failure, FailureKind, JobId, Outcome as Ended, ResultForm, TaskId};

use crate::{
    output::Row,
    problem::{Outcome, Problem},
    text,
};

/// Bytes of chunks that may wait here for an earlier one when answers are wanted in order; further ones wait in the grid.
const PARKED_BYTES_MAX: usize = 64 << 20;

/// What a task ended as.
#[derive(Debug, Serialize)]
pub(crate) struct TaskAnswer {
    /// The task.
    pub(crate) task: TaskId,
    /// Its position in the job.
    pub(crate) position: u64,
    /// The user's key, if it has one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) key: String,
    /// What it ended as.
    pub(crate) outcome: Ended,
    /// How long it ran.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) run_us: Option<u32>,
    /// What it gave.
    #[serde(skip_serializing_if = "Option::is_none", flatten)]
    pub(crate) result: Option<Given>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) failure: Option<Failure>,
}

/// A result, and what its bytes are.
#[derive(Debug)]
pub(crate) struct Given {
    pub(crate) bytes: Bytes,
    pub(crate) form: ResultForm,
}

impl Serialize for Given {
    /// `result` is JSON for what is JSON and a string for text; what is neither is base64 in `result_base64`.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let json = match self.form {
            ResultForm::Json => serde_json::from_slice(&self.bytes).ok(),
            ResultForm::Text | ResultForm::Bytes => None,
        };
        let text = || std::str::from_utf8(&self.bytes).ok().map(serde_json::Value::from);
        match json.or_else(text) {
            Some(value) => serializer.collect_map([("result", value)]),
            None => serializer.collect_map([("result_base64", STANDARD.encode(&self.bytes))]),
        }
    }
}

impl TaskAnswer {
    /// Whether it failed or was quarantined.
    pub(crate) const fn is_failed(&self) -> bool {
        matches!(self.outcome, Ended::Failed | Ended::Quarantined)
    }

    /// Its key, or else its position.
    pub(crate) fn name(&self) -> String {
        if self.key.is_empty() { self.position.to_string() } else { self.key.clone() }
    }

    /// Appends its line, as `sheaf_local::files` writes those of a file: `name result`, or `name ERROR kind: message`.
    pub(crate) fn write_line(&self, out: &mut Vec<u8>) {
        let failed = |kind, message: &str, out: &mut Vec<u8>| {
            write_line(out, &self.name(), &OutcomeText::Failed { kind, message });
        };
        match (&self.result, &self.failure) {
            (Some(Given { bytes, form: ResultForm::Json }), _) => {
                write_line(out, &self.name(), &OutcomeText::Json(bytes))
            }
            (Some(Given { bytes, form: ResultForm::Bytes }), _) if std::str::from_utf8(bytes).is_err() => {
                let encoded = format!("base64:{}", STANDARD.encode(bytes));
                write_line(out, &self.name(), &OutcomeText::Text(encoded.as_bytes()));
            }
            (Some(Given { bytes, .. }), _) => write_line(out, &self.name(), &OutcomeText::Text(bytes)),
            (None, Some(failure)) if failure.kind == FailureKind::Error && !failure.error_type.is_empty() => {
                failed(failure.kind.as_str(), &format!("{}: {}", failure.error_type, failure.message), out);
            }
            (None, Some(failure)) => failed(failure.kind.as_str(), &failure.message, out),
            (None, None) if self.outcome == Ended::Expired => {
                failed(self.outcome.as_str(), "its job's deadline passed before it had a result", out);
            }
            (None, None) => failed(self.outcome.as_str(), "its job was cancelled before it had a result", out),
        }
    }
}

/// What a failure is called: by its function, or else by us.
pub(crate) fn kind(failure: &Failure) -> &str {
    if failure.error_type.is_empty() { failure.kind.as_str() } else { &failure.error_type }
}

impl Row for TaskAnswer {
    const COLUMNS: &'static [&'static str] = &["TASK", ">POSITION", "KEY", "OUTCOME", ">RUN TIME", "WHAT"];

    fn id(&self) -> String {
        self.task.to_string()
    }

    fn cells(&self) -> Vec<String> {
        let what = match (&self.result, &self.failure) {
            (Some(given), _) => text::bytes(given.bytes.len() as u64),
            (_, Some(failure)) => format!("{}: {}", kind(failure), failure.message.lines().next().unwrap_or_default()),
            (None, None) => String::new(),
        };
        let run = self.run_us.map(|us| text::duration_us(us.into())).unwrap_or_default();
        vec![self.id(), self.position.to_string(), self.key.clone(), self.outcome.to_string(), run, what]
    }
}

/// What a chunk of results takes here.
fn bytes(chunk: &ChunkResult) -> usize {
    chunk.segments.iter().chain(&chunk.pack).map(Bytes::len).sum()
}

/// Reads the answers of a job as its chunks end.
pub(crate) struct Answers<'a, A> {
    api: &'a A,
    job: JobId,
    read: ReadResults,
    ordered: bool,
    next: u32,
    parked: BTreeMap<u32, ChunkResult>,
    parked_bytes: usize,
    ready: VecDeque<ChunkResult>,
    forms: HashMap<u16, ResultForm>,
    view: Option<JobView>,
}

impl<'a, A: Api> Answers<'a, A> {
    /// All answers of a job; `ordered` gives those of earlier tasks first.
    pub(crate) fn of(api: &'a A, job: JobId, ordered: bool) -> Self {
        let read = ReadResults { with_packs: true, ..ReadResults::default() };
        let (next, parked, parked_bytes, ready, forms, view) = Default::default();
        Self { api, job, read, ordered, next, parked, parked_bytes, ready, forms, view }
    }

    /// The same, without the packs: tasks have no keys then, and results are taken to be of the job's first function.
    pub(crate) fn without_keys(mut self) -> Self {
        self.read.with_packs = false;
        self
    }

    /// The answers of one more chunk; none once the job is over and all were given. With `wait_ms` as 0, none also when
    /// there are no more yet.
    pub(crate) async fn next_chunk(&mut self, wait_ms: u64) -> Outcome<Option<Vec<TaskAnswer>>> {
        loop {
            if let Some(chunk) = self.ready.pop_front() {
                return self.tell_apart(chunk).await.map(Some);
            }
            let page = self.api.results(self.job, self.wanted(wait_ms)).await?;
            let is_over = page.job.job.state.ended_at_ms().is_some();
            self.view = Some(page.job);
            if page.chunks.is_empty() {
                // A look that found nothing in its time says nothing of the chunk whose turn it is.
                if is_over || wait_ms == 0 {
                    self.pass_gap();
                    if self.ready.is_empty() {
                        return Ok(None);
                    }
                }
                continue;
            }
            for chunk in page.chunks {
                self.read.have.insert(chunk.head.number);
                self.parked_bytes += bytes(&chunk);
                self.parked.insert(chunk.head.number, chunk);
            }
            self.release();
        }
    }

    /// Where the job stood when it was last asked.
    pub(crate) const fn view(&self) -> Option<&JobView> {
        self.view.as_ref()
    }

    /// What to ask for: all that is not here, or only the chunk whose turn it is while too much waits for it.
    fn wanted(&self, wait_ms: u64) -> ReadResults {
        let mut read = ReadResults { wait_ms, ..self.read.clone() };
        if self.parked_bytes >= PARKED_BYTES_MAX {
            read.have.insert_range(self.next + 1..self.chunks_known());
            read.chunks_max = 1;
        }
        read
    }

    /// Chunks that the grid is known to have.
    fn chunks_known(&self) -> u32 {
        let chunks = self.view.as_ref().map_or(0, |view| {
            view.job.state.seal().map_or(view.summary.chunks_submitted, |seal| u64::from(seal.chunks))
        });
        let highest = self.read.have.max().map_or(0, |number| number + 1);
        u32::try_from(chunks).unwrap_or(u32::MAX).max(highest)
    }

    /// Makes ready what may be given next.
    fn release(&mut self) {
        while let Some(entry) = self.parked.first_entry() {
            if self.ordered && *entry.key() != self.next {
                return;
            }
            let (number, chunk) = entry.remove_entry();
            self.next = number + 1;
            self.parked_bytes -= bytes(&chunk);
            self.ready.push_back(chunk);
        }
    }

    /// The chunk whose turn it is does not come: what was here first goes on.
    fn pass_gap(&mut self) {
        if let Some((&number, _)) = self.parked.first_key_value() {
            self.next = number;
            self.release();
        }
    }

    async fn tell_apart(&mut self, chunk: ChunkResult) -> Outcome<Vec<TaskAnswer>> {
        let ChunkResult { head, segments, pack } = chunk;
        let pack = pack.map(Pack::parse).transpose()?;
        let key = ChunkKey { job: self.job, number: head.number };
        let open = match head.ended {
            Some(EndReason::Expired) => Ended::Expired,
            Some(EndReason::Cancelled) | None => Ended::Cancelled,
        };
        let mut answers: Vec<_> = (0..head.tasks)
            .map(|index| TaskAnswer {
                task: TaskId { chunk: key, index },
                position: head.task_first + u64::from(index),
                key: pack.as_ref().map(|pack| pack.key(index).to_owned()).unwrap_or_default(),
                outcome: open,
                run_us: None,
                result: None,
                failure: None,
            })
            .collect();
        for segment in segments {
            let segment = Segment::parse(segment)?;
            for position in 0..segment.tasks() {
                let entry = segment.entry(position);
                let answer = answers.get_mut(entry.task as usize).ok_or_else(|| {
                    Problem::new(Code::Internal, format!("{key} has a result of a task that it does not hold"))
                })?;
                answer.run_us = Some(entry.run_us);
                answer.outcome = entry.mark.outcome().unwrap_or(open);
                if answer.outcome == Ended::Succeeded {
                    let function = pack.as_ref().map_or(0, |pack| pack.function(entry.task));
                    let form = self.form(function).await?;
                    answer.result = Some(Given { bytes: segment.answer_bytes(position), form });
                } else {
                    answer.failure = Some(entry.failure()?);
                }
            }
        }
        Ok(answers)
    }

    /// What the results of a function are. Asked once per function.
    async fn form(&mut self, function: u16) -> Outcome<ResultForm> {
        if let Some(form) = self.forms.get(&function) {
            return Ok(*form);
        }
        let functions = self.view.as_ref().map(|view| &view.job.options.functions);
        let name = functions.and_then(|functions| functions.get(usize::from(function)));
        let form = match name {
            Some(name) => self.api.function(&name.to_string()).await?.manifest.result,
            None => ResultForm::Bytes,
        };
        self.forms.insert(function, form);
        Ok(form)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::{convert::Infallible, time::Duration};

    use super::*;

    /// Looks that find nothing, as when the first task takes longer than a long poll, and chunks too large to wait here.
    #[tokio::test]
    async fn order_is_kept_however_long_the_first_task_takes() {
        let grid = sheaf::builder().memory(true).slots(2).connect().await.unwrap();
        let late = |ms: u64| {
            std::thread::sleep(Duration::from_millis(ms));
            Ok::<_, Infallible>(ms)
        };
        let late = grid.handler("late", late).await.unwrap();
        for parked_bytes in [0, PARKED_BYTES_MAX] {
            let results = grid.job("late").chunk_tasks(1).map(&late, [400, 0, 0, 0]).start().await.unwrap();
            results.submitted().await.unwrap();
            let mut answers = Answers::of(grid.api(), results.job_id(), true);
            answers.parked_bytes = parked_bytes;
            let mut positions = Vec::new();
            while let Some(chunk) = answers.next_chunk(20).await.unwrap() {
                positions.extend(chunk.iter().map(|answer| answer.position));
            }
            assert_eq!(positions, [0, 1, 2, 3]);
        }
        grid.close().await;
    }
}
