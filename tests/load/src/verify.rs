//! Whether each task came back once, with the result that it had to give.

use serde::{Deserialize, Serialize};

use crate::work::{AS_ASKED, Mix};

/// Examples kept of what was wrong.
const EXAMPLES_MAX: usize = 10;

/// What came back, as it is checked.
#[derive(Debug, Clone, Copy)]
pub enum Answer<'a> {
    /// A result.
    Result(&'a [u8]),
    /// The function's own failure, with its message.
    Failed(&'a str),
    /// Any other end: cancelled, expired, quarantined, unreadable.
    Other(&'a str),
}

/// How the results of a run were.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Tasks that were submitted.
    pub submitted: u64,
    /// Tasks that came back as they had to, those that had to fail included.
    pub right: u64,
    /// Of those: that failed as they had to.
    pub failed_as_asked: u64,
    /// Results that were not those of their tasks, and failures that nobody had asked for.
    pub wrong: u64,
    /// Results of tasks that had one already.
    pub doubled: u64,
    /// Results of tasks that were never submitted.
    pub unknown: u64,
    /// Tasks that never came back.
    pub missing: u64,
    /// Jobs whose counters disagree with what was submitted.
    pub miscounted: u64,
    /// The first few things that were wrong.
    pub examples: Vec<String>,
}

impl Verdict {
    /// Whether everything was as it had to be.
    pub const fn is_right(&self) -> bool {
        self.wrong == 0 && self.doubled == 0 && self.unknown == 0 && self.missing == 0 && self.miscounted == 0
    }

    /// Takes in another part of the same run.
    pub fn merge(&mut self, other: Self) {
        self.submitted += other.submitted;
        self.right += other.right;
        self.failed_as_asked += other.failed_as_asked;
        self.wrong += other.wrong;
        self.doubled += other.doubled;
        self.unknown += other.unknown;
        self.missing += other.missing;
        self.miscounted += other.miscounted;
        self.examples.extend(other.examples);
        self.examples.truncate(EXAMPLES_MAX);
    }

    /// Notes what was wrong.
    pub fn note(&mut self, example: impl FnOnce() -> String) {
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(example());
        }
    }
}

/// Checks the results of consecutive tasks, of which it keeps a bit each.
#[derive(Debug)]
pub struct Verifier {
    mix: Mix,
    seed: u64,
    first: u64,
    seen: Vec<u64>,
    verdict: Verdict,
}

impl Verifier {
    /// For tasks whose numbers start with `first`.
    pub fn new(mix: Mix, seed: u64, first: u64) -> Self {
        Self { mix, seed, first, seen: Vec::new(), verdict: Verdict::default() }
    }

    /// So many tasks were submitted so far.
    pub fn submitted(&mut self, tasks: u64) {
        self.verdict.submitted = tasks;
        self.seen.resize(tasks.div_ceil(64) as usize, 0);
    }

    /// Checks what came back as the outcome of a task, counted from the first; whether it was right.
    pub fn take(&mut self, index: u64, answer: Answer<'_>) -> bool {
        let number = self.first + index;
        let verdict = &mut self.verdict;
        if index >= verdict.submitted {
            verdict.unknown += 1;
            verdict.note(|| format!("task {number} came back, and was never submitted"));
            return false;
        }
        let (word, bit) = (&mut self.seen[index as usize / 64], 1 << (index % 64));
        if *word & bit != 0 {
            verdict.doubled += 1;
            verdict.note(|| format!("task {number} came back twice"));
            return false;
        }
        *word |= bit;
        let work = self.mix.task(self.seed, number);
        let right = match answer {
            Answer::Result(result) => !work.fails && work.is_result(number, result),
            Answer::Failed(message) => work.fails && message == AS_ASKED,
            Answer::Other(_) => false,
        };
        if right {
            verdict.right += 1;
            verdict.failed_as_asked += u64::from(work.fails);
        } else {
            verdict.wrong += 1;
            verdict.note(|| {
                let expected = if work.fails { "to fail".to_owned() } else { format!("{} bytes", work.result_bytes) };
                let found = match answer {
                    Answer::Result(result) => String::from_utf8_lossy(&result[..result.len().min(40)]).into_owned(),
                    Answer::Failed(message) | Answer::Other(message) => message.to_owned(),
                };
                format!("task {number} had {expected}, and came back with {found:?}")
            });
        }
        right
    }

    /// How many have come back, right or wrong.
    pub const fn taken(&self) -> u64 {
        self.verdict.right + self.verdict.wrong
    }

    /// What it comes to; whoever has not come back by now is missing.
    pub fn finish(mut self) -> Verdict {
        let Verdict { submitted, missing, .. } = &mut self.verdict;
        let seen: u64 = self.seen.iter().map(|word| u64::from(word.count_ones())).sum();
        *missing = *submitted - seen;
        if *missing > 0 {
            let index = (0..*submitted).find(|index| self.seen[*index as usize / 64] & 1 << (index % 64) == 0);
            let number = self.first + index.unwrap_or_default();
            self.verdict.note(|| format!("task {number} never came back"));
        }
        self.verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::work::perform;

    const FIRST: u64 = 1_000;
    const TASKS: u64 = 130;

    fn verifier(fail_share: f64) -> (Verifier, Mix) {
        let mix = Mix { fail_share, ..Mix::default() };
        let mut verifier = Verifier::new(mix.clone(), 5, FIRST);
        verifier.submitted(TASKS);
        (verifier, mix)
    }

    fn give(verifier: &mut Verifier, mix: &Mix, index: u64) -> bool {
        let (mut result, work) = (Vec::new(), mix.task(5, FIRST + index));
        match perform(&work.payload(FIRST + index), &mut result) {
            Ok(()) => verifier.take(index, Answer::Result(&result)),
            Err(failed) => verifier.take(index, Answer::Failed(&failed.to_string())),
        }
    }

    #[test]
    fn all_once_is_right() {
        let (mut verifier, mix) = verifier(0.3);
        for index in (0..TASKS).rev() {
            assert!(give(&mut verifier, &mix, index));
        }
        let verdict = verifier.finish();
        assert!(verdict.is_right() && verdict.right == TASKS && verdict.failed_as_asked > 20, "{verdict:?}");
    }

    #[test]
    fn a_lost_result_is_noticed() {
        let (mut verifier, mix) = verifier(0.0);
        (0..TASKS).filter(|index| *index != 77).for_each(|index| assert!(give(&mut verifier, &mix, index)));
        let verdict = verifier.finish();
        assert_eq!((verdict.missing, verdict.is_right()), (1, false));
        assert_eq!(verdict.examples, ["task 1077 never came back"]);
    }

    #[test]
    fn a_doubled_result_is_noticed() {
        let (mut verifier, mix) = verifier(0.0);
        (0..TASKS).for_each(|index| assert!(give(&mut verifier, &mix, index)));
        assert!(!give(&mut verifier, &mix, 3));
        let verdict = verifier.finish();
        assert_eq!((verdict.doubled, verdict.missing, verdict.is_right()), (1, 0, false));
        assert_eq!(verdict.examples, ["task 1003 came back twice"]);
    }

    #[test]
    fn a_wrong_result_is_noticed() {
        let (mut verifier, mix) = verifier(0.0);
        (1..TASKS).for_each(|index| assert!(give(&mut verifier, &mix, index)));
        let mut of_another = Vec::new();
        perform(&mix.task(5, FIRST + 1).payload(FIRST + 1), &mut of_another).expect("done");
        assert!(!verifier.take(0, Answer::Result(&of_another)));
        let verdict = verifier.finish();
        assert_eq!((verdict.wrong, verdict.missing, verdict.is_right()), (1, 0, false));
        assert!(
            verdict.examples[0].starts_with("task 1000 had 64 bytes, and came back with \"\\\"000003e9"),
            "{verdict:?}"
        );
    }

    #[test]
    fn a_failure_that_nobody_asked_for_is_noticed_and_so_is_one_that_did_not_happen() {
        let (mut none, _) = verifier(0.0);
        assert!(!none.take(0, Answer::Failed(AS_ASKED)));
        assert!(!none.take(1, Answer::Other("cancelled")));
        let (mut all, mix) = verifier(1.0);
        let mut result = Vec::new();
        perform(&Mix::default().task(5, FIRST).payload(FIRST), &mut result).expect("done");
        assert!(mix.task(5, FIRST).fails && !all.take(0, Answer::Result(&result)));
        assert!(!all.take(1, Answer::Failed("out of memory")));
        assert_eq!((none.finish().wrong, all.finish().wrong), (2, 2));
    }

    #[test]
    fn a_result_from_nowhere_is_noticed() {
        let (mut verifier, _) = verifier(0.0);
        assert!(!verifier.take(TASKS, Answer::Result(b"\"0\"")));
        assert_eq!(verifier.finish().unknown, 1);
    }
}
