//! What a job's results tell: how long tasks ran, and why they failed.

use std::collections::HashMap;

use hdrhistogram::Histogram;
use serde::Serialize;
use sheaf_core::TaskId;

use super::history::History;
use crate::answers::{TaskAnswer, kind};

/// Causes that are told apart; what comes later is counted together.
const CAUSES_MAX: usize = 1_000;
/// Characters of a message that tell causes apart.
const CAUSE_CHARS_MAX: usize = 160;
/// Tasks that are named for a cause.
const EXAMPLES_MAX: usize = 3;

/// Lengths of time, as few numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(super) struct Spread {
    /// How many there are.
    pub(super) count: u64,
    pub(super) mean: f64,
    pub(super) p50: u64,
    pub(super) p95: u64,
    pub(super) p99: u64,
    pub(super) max: u64,
}

/// Lengths of time, to three digits.
#[derive(Debug)]
pub(super) struct Lengths(Histogram<u64>);

impl Default for Lengths {
    fn default() -> Self {
        Self(Histogram::new(3).expect("three digits are within the range of 0 to 5"))
    }
}

impl Lengths {
    /// Adds one `count` times.
    pub(super) fn add(&mut self, length: u64, count: u64) {
        self.0.record_n(length, count).expect("it grows with what it is given");
    }

    /// Them as few numbers.
    pub(super) fn spread(&self) -> Spread {
        let of = &self.0;
        if of.is_empty() {
            return Spread::default();
        }
        Spread {
            count: of.len(),
            mean: of.mean(),
            p50: of.value_at_quantile(0.5),
            p95: of.value_at_quantile(0.95),
            p99: of.value_at_quantile(0.99),
            max: of.max(),
        }
    }
}

/// Failures that have the same cause, as far as kind and message tell.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Cause {
    /// What it is called, by its function or by us.
    pub(super) kind: String,
    /// The first line of its message, with `#` for numbers.
    pub(super) message: String,
    pub(super) tasks: u64,
    /// Some of them.
    pub(super) examples: Vec<TaskId>,
}

/// What a job's results tell, summed up.
#[derive(Debug, Default)]
pub(super) struct Tasks {
    pub(super) with_outcome: u64,
    pub(super) run_us: Lengths,
    pub(super) busy_us: u64,
    causes: HashMap<(String, String), Cause>,
    other_causes: u64,
}

impl Tasks {
    /// Takes in what a task ended as.
    pub(super) fn take(&mut self, answer: &TaskAnswer, history: &mut History) {
        self.with_outcome += 1;
        if let Some(run_us) = answer.run_us {
            let run_us = u64::from(run_us);
            self.run_us.add(run_us, 1);
            self.busy_us += run_us;
            history.ran(answer.task.chunk.number, run_us);
        }
        if let Some(failure) = &answer.failure {
            self.fail(kind(failure), &failure.message, answer.task);
        }
    }

    fn fail(&mut self, kind: &str, message: &str, task: TaskId) {
        let key = (kind.to_owned(), alike(message));
        if self.causes.len() >= CAUSES_MAX && !self.causes.contains_key(&key) {
            self.other_causes += 1;
            return;
        }
        let (kind, message) = key.clone();
        let cause = self.causes.entry(key).or_insert(Cause { kind, message, tasks: 0, examples: Vec::new() });
        cause.tasks += 1;
        if cause.examples.len() < EXAMPLES_MAX {
            cause.examples.push(task);
        }
    }

    /// The causes, the one with the most tasks first, and how many failures had others.
    pub(super) fn causes(&self) -> (Vec<Cause>, u64) {
        let mut causes: Vec<Cause> = self.causes.values().cloned().collect();
        causes.sort_by(|a, b| b.tasks.cmp(&a.tasks).then_with(|| (&a.kind, &a.message).cmp(&(&b.kind, &b.message))));
        (causes, self.other_causes)
    }
}

/// The first line of a message that says anything, with `#` for each number, so that `item 12 is bad` and `item 7 is bad`
/// are one cause.
fn alike(message: &str) -> String {
    let line = message.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    let mut text = String::new();
    let mut in_number = false;
    for c in line.chars().take(CAUSE_CHARS_MAX) {
        match (c.is_ascii_digit(), in_number) {
            (true, true) => {}
            (true, false) => text.push('#'),
            (false, _) => text.push(c),
        }
        in_number = c.is_ascii_digit();
    }
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn task(index: u32) -> TaskId {
        format!("job_01890a5dac96774bbcceb302099a8057/0/{index}").parse().unwrap()
    }

    #[test]
    fn messages_that_differ_in_numbers_are_one_cause() {
        assert_eq!(alike("\n  item 12 of 900 is bad\nat line 3"), "item # of # is bad");
        assert_eq!(alike(""), "");
        let mut tasks = Tasks::default();
        for index in 0..10 {
            tasks.fail("Bad", &format!("item {index} is bad"), task(index));
        }
        tasks.fail("Worse", "no", task(11));
        let (causes, other) = tasks.causes();
        let shown: Vec<_> = causes.iter().map(|c| (c.kind.as_str(), c.message.as_str(), c.tasks)).collect();
        assert_eq!(shown, [("Bad", "item # is bad", 10), ("Worse", "no", 1)]);
        assert_eq!((causes[0].examples.len(), other), (EXAMPLES_MAX, 0));
    }

    #[test]
    fn causes_without_end_take_no_memory_without_end() {
        let mut tasks = Tasks::default();
        let word = |n: u32| n.to_string().bytes().map(|digit| char::from(digit - b'0' + b'a')).collect::<String>();
        for n in 0..CAUSES_MAX as u32 + 50 {
            tasks.fail("Bad", &word(n), task(n));
        }
        let (causes, other) = tasks.causes();
        assert_eq!((causes.len(), other), (CAUSES_MAX, 50));
    }

    #[test]
    fn lengths_keep_three_digits() {
        let mut lengths = Lengths::default();
        (1..=1_000).for_each(|us| lengths.add(us * 1_000, 1));
        let spread = lengths.spread();
        assert!(spread.p50.abs_diff(500_000) <= 500 && spread.p95.abs_diff(950_000) <= 1_000, "{spread:?}");
        assert_eq!((spread.count, Lengths::default().spread()), (1_000, Spread::default()));
    }
}
