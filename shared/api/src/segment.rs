//! The segment: the results of some tasks of a chunk, committed together.
//!
//! The body of the [frame](crate::frame) is
//! ```text
//! 4·n       end offsets of the answers
//! …         the answers: a result's bytes, or a failure as JSON
//! n         outcome of each (1 succeeded, 2 failed, 3 quarantined)
//! 4·n       task of each: its index in the chunk, ascending
//! 4·n       run time of each in µs (0: not measured, or under one)
//! ```
//! The logs of tasks travel in the same format, with the log in place of the answer.

use std::fmt;

use bytes::Bytes;
use sheaf_core::{Failure, Mark, Marks, limits};

use crate::frame::{Ends, Format, FormatError, check_limit, u32_at};

const FORMAT: Format = Format { magic: *b"SHSG", name: "segment", flags_known: 0 };

/// Bytes of an entry besides its answer.
const ENTRY_BYTES: usize = 13;
const TASK_INDEX_MAX: usize = limits::ORDERED_TASKS_MAX as usize - 1;

/// What a reader accepts of a whole segment.
fn check_segment(entries: usize, answer_bytes: usize) -> Result<(), FormatError> {
    check_limit("tasks in a segment", entries, limits::ORDERED_TASKS_MAX as usize)?;
    check_limit("segment bytes", answer_bytes + ENTRY_BYTES * entries, limits::PACK_BYTES_MAX)
}

/// Collects answers and encodes them as a segment.
#[derive(Default, Clone)]
pub struct SegmentBuilder {
    entries: Vec<BuiltEntry>,
    answers: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
struct BuiltEntry {
    task: u32,
    mark: Mark,
    start: u32,
    end: u32,
    run_us: u32,
}

impl SegmentBuilder {
    /// An empty builder.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes room for so many more entries, so that adding them does not allocate for each doubling.
    pub fn reserve(&mut self, tasks: usize) {
        self.entries.reserve(tasks);
    }

    /// Adds a result. On an error (no chunk has such a task, the result is larger than [`limits::TASK_BYTES_MAX`], or the
    /// segment would be larger than [`limits::PACK_BYTES_MAX`] or hold more than [`limits::ORDERED_TASKS_MAX`] tasks)
    /// nothing was added.
    pub fn succeeded(&mut self, task: u32, result: &[u8], run_us: u32) -> Result<(), FormatError> {
        self.push(task, Mark::Succeeded, run_us, |answers| {
            answers.extend_from_slice(result);
            Ok(())
        })
    }

    /// Adds a result that `write` appends to the buffer it is given: the way without a copy. `write` must leave what is in
    /// the buffer already. When it fails or panics, or on an error as of [`SegmentBuilder::succeeded`], nothing was added.
    pub fn succeeded_with<E: From<FormatError>>(
        &mut self,
        task: u32,
        run_us: impl FnOnce() -> u32,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.drop_unfinished();
        write(&mut self.answers)?;
        self.close(task, Mark::Succeeded, run_us())?;
        Ok(())
    }

    /// Adds a task that failed or was quarantined, as `mark` says; another mark is an error.
    pub fn failed(&mut self, task: u32, mark: Mark, failure: &Failure, run_us: u32) -> Result<(), FormatError> {
        if !matches!(mark, Mark::Failed | Mark::Quarantined) {
            return Err(FORMAT.malformed("a failure is marked neither failed nor quarantined"));
        }
        self.push(task, mark, run_us, |answers| {
            serde_json::to_writer(answers, failure).map_err(|_| FORMAT.malformed("a failure that is not JSON"))
        })
    }

    fn push(
        &mut self,
        task: u32,
        mark: Mark,
        run_us: u32,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), FormatError>,
    ) -> Result<(), FormatError> {
        self.drop_unfinished();
        write(&mut self.answers)?;
        self.close(task, mark, run_us)
    }

    /// Where the last answer ends.
    fn answers_end(&self) -> usize {
        self.entries.last().map_or(0, |entry| entry.end as usize)
    }

    /// Drops what a writer has left that failed or panicked before its answer was whole.
    fn drop_unfinished(&mut self) {
        self.answers.truncate(self.answers_end());
    }

    fn close(&mut self, task: u32, mark: Mark, run_us: u32) -> Result<(), FormatError> {
        let start = self.answers_end();
        let answer_bytes = self.answers.len() - start;
        let added = check_limit("result bytes", answer_bytes, limits::TASK_BYTES_MAX)
            .and_then(|()| check_limit("task index", task as usize, TASK_INDEX_MAX))
            .and_then(|()| check_segment(self.entries.len() + 1, self.answers.len()));
        if added.is_ok() {
            let (start, end) = (start as u32, self.answers.len() as u32);
            self.entries.push(BuiltEntry { task, mark, start, end, run_us });
        } else {
            self.drop_unfinished();
        }
        added
    }

    /// Takes over the entries of another builder, leaving it empty. On an error (both do not fit into one segment) nothing
    /// was taken.
    pub fn append(&mut self, other: &mut Self) -> Result<(), FormatError> {
        self.drop_unfinished();
        other.drop_unfinished();
        check_segment(self.entries.len() + other.entries.len(), self.answers.len() + other.answers.len())?;
        if self.entries.is_empty() {
            std::mem::swap(self, other);
            return Ok(());
        }
        let base = self.answers.len() as u32;
        self.answers.append(&mut other.answers);
        self.entries.extend(other.entries.drain(..).map(|entry| BuiltEntry {
            start: entry.start + base,
            end: entry.end + base,
            ..entry
        }));
        Ok(())
    }

    /// Entries so far.
    pub fn tasks(&self) -> u32 {
        self.entries.len() as u32
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes of the body so far.
    pub fn bytes(&self) -> usize {
        self.answers_end() + ENTRY_BYTES * self.entries.len()
    }

    /// The marks of its tasks, for a chunk of `tasks` tasks; `None` when a task is out of range or stands twice. Costs one
    /// pass.
    pub fn marks(&self, tasks: u32) -> Option<Marks> {
        let mut marks = Marks::open(tasks);
        for entry in &self.entries {
            if entry.task >= tasks || marks.get(entry.task) != Mark::Open {
                return None;
            }
            marks.set(entry.task, entry.mark);
        }
        Some(marks)
    }

    /// Mean and largest run time of its tasks, in µs.
    pub fn run_us(&self) -> (f64, f64) {
        let times = self.entries.iter().map(|entry| f64::from(entry.run_us));
        (times.clone().sum::<f64>() / self.entries.len().max(1) as f64, times.fold(0.0, f64::max))
    }

    /// Encodes the segment and empties the builder. `compress` tries zstd and keeps it where it saves something.
    pub fn finish(&mut self, compress: bool) -> Bytes {
        self.drop_unfinished();
        let in_order = self.entries.windows(2).all(|pair| pair[0].task < pair[1].task);
        if !in_order {
            self.sort();
        }
        let entries = self.entries.len();
        let mut ends = Vec::with_capacity(4 * entries);
        let mut columns = Vec::with_capacity(9 * entries);
        self.entries.iter().for_each(|entry| ends.extend_from_slice(&entry.end.to_le_bytes()));
        columns.extend(self.entries.iter().map(|entry| entry.mark as u8));
        self.entries.iter().for_each(|entry| columns.extend_from_slice(&entry.task.to_le_bytes()));
        self.entries.iter().for_each(|entry| columns.extend_from_slice(&entry.run_us.to_le_bytes()));
        let bytes = FORMAT.encode(0, entries as u32, &[&ends, &self.answers, &columns], compress);
        self.entries.clear();
        self.answers.clear();
        bytes
    }

    /// Brings entries and answers into the order of their tasks; the last of a task that stands twice is kept.
    fn sort(&mut self) {
        self.entries.reverse();
        self.entries.sort_by_key(|entry| entry.task);
        self.entries.dedup_by_key(|entry| entry.task);
        let mut answers = Vec::with_capacity(self.answers.len());
        for entry in &mut self.entries {
            let answer = &self.answers[entry.start as usize..entry.end as usize];
            entry.start = answers.len() as u32;
            answers.extend_from_slice(answer);
            entry.end = answers.len() as u32;
        }
        self.answers = answers;
    }
}

/// Without the answers, which are the user's.
impl fmt::Debug for SegmentBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SegmentBuilder({} tasks, {} bytes)", self.tasks(), self.bytes())
    }
}

/// A checked segment. Cloning shares the bytes.
#[derive(Clone)]
pub struct Segment {
    body: Bytes,
    answers: Ends,
    columns: usize,
}

/// One task in a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The task's index in its chunk.
    pub task: u32,
    /// Never open.
    pub mark: Mark,
    /// Its run time in µs; 0 when not measured or under one.
    pub run_us: u32,
    /// The result's bytes, or the failure as JSON.
    pub answer: &'a [u8],
}

impl Entry<'_> {
    /// The failure of a task that did not succeed.
    pub fn failure(&self) -> Result<Failure, FormatError> {
        serde_json::from_slice(self.answer).map_err(|_| FORMAT.malformed("a failure that is not JSON"))
    }
}

impl Segment {
    /// Reads a segment, checking all of it but the JSON of failures.
    pub fn parse(bytes: Bytes) -> Result<Self, FormatError> {
        let (_, entries, body) = FORMAT.decode(&bytes)?;
        let entries = entries as usize;
        let (answers, columns) =
            Ends::read(&body, 0, entries).ok_or(FORMAT.malformed("the answer offsets lead outside of it"))?;
        if body.len() != columns + 9 * entries {
            return Err(FORMAT.malformed("the body does not end with its last part"));
        }
        if !body[columns..columns + entries].iter().all(|mark| (1..=3).contains(mark)) {
            return Err(FORMAT.malformed("an outcome is none"));
        }
        let segment = Self { body, answers, columns };
        if !(1..entries).all(|i| segment.task(i - 1) < segment.task(i)) {
            return Err(FORMAT.malformed("its tasks do not ascend"));
        }
        if let Some(last) = entries.checked_sub(1) {
            check_limit("task index", segment.task(last) as usize, TASK_INDEX_MAX)?;
        }
        for entry in 0..entries {
            check_limit("result bytes", segment.answers.range(&segment.body, entry).len(), limits::TASK_BYTES_MAX)?;
        }
        Ok(segment)
    }

    fn task(&self, entry: usize) -> u32 {
        u32_at(&self.body, self.columns + self.answers.count + 4 * entry)
    }

    /// How many tasks it holds.
    pub const fn tasks(&self) -> u32 {
        self.answers.count as u32
    }

    /// The entry at a position.
    ///
    /// # Panics
    /// If there is no such entry.
    pub fn entry(&self, position: u32) -> Entry<'_> {
        let position = position as usize;
        let count = self.answers.count;
        assert!(position < count, "entry {position} of {count}");
        Entry {
            task: self.task(position),
            mark: match self.body[self.columns + position] {
                1 => Mark::Succeeded,
                2 => Mark::Failed,
                _ => Mark::Quarantined,
            },
            run_us: u32_at(&self.body, self.columns + 5 * count + 4 * position),
            answer: &self.body[self.answers.range(&self.body, position)],
        }
    }

    /// The answer at a position, sharing the segment's memory.
    ///
    /// # Panics
    /// If there is no such entry.
    pub fn answer_bytes(&self, position: u32) -> Bytes {
        self.body.slice(self.answers.range(&self.body, position as usize))
    }

    /// All entries, in the order of their tasks.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = Entry<'_>> + '_ {
        (0..self.tasks()).map(|position| self.entry(position))
    }

    /// The entry of a task, if it is in this segment. Costs a binary search.
    pub fn find(&self, task: u32) -> Option<Entry<'_>> {
        let (mut low, mut high) = (0, self.answers.count);
        while low < high {
            let middle = usize::midpoint(low, high);
            match self.task(middle).cmp(&task) {
                std::cmp::Ordering::Equal => return Some(self.entry(middle as u32)),
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        None
    }
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Segment({} tasks, {} bytes)", self.tasks(), self.body.len())
    }
}
