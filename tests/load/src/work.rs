//! What tasks do: a payload that says so, the function that does it, and the result that shows it was done.
//!
//! A payload is a JSON string without escapes, so that every kind of function takes it as it is:
//!
//! ```text
//! "0000002a s 1500 r 64 . aaaaa…"      (without the blanks)
//!  │        │ │    │      └ filling, up to the payload's size
//!  │        │ │    └ the result's size; left out where it is the payload's
//!  │        │ └ for how long, in µs; left out for 0
//!  │        └ what: n nothing, s sleep, c compute; as a capital letter: and then fail
//!  └ the task's number, unique in a run, in eight hexadecimal digits
//! ```
//!
//! A result is the number again and a filling that follows from it, up to the size asked for: a result of another task, an
//! older one, or one that was cut is noticed.

use std::{
    io::Write,
    thread,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

/// Tasks of one run: what eight digits can tell apart.
pub const TASKS_MAX: u64 = 1 << 32;
/// The smallest result: the number in its quotes.
pub const RESULT_BYTES_MIN: u32 = 10;
const NUMBER_BYTES: usize = 8;
/// The longest part of a payload that is not filling.
const HEAD_BYTES_MAX: u32 = 32;

/// What a task does with its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Doing {
    /// It answers at once.
    #[default]
    Nothing,
    /// It waits.
    Sleep,
    /// It keeps a processor busy.
    Spin,
}

/// One task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Work {
    /// What it does.
    pub doing: Doing,
    /// For how long.
    pub run_us: u32,
    /// Whether it fails in the end.
    pub fails: bool,
    /// Size of its payload.
    pub payload_bytes: u32,
    /// Size of its result.
    pub result_bytes: u32,
}

impl Work {
    /// Its payload.
    pub fn payload(&self, number: u64) -> Vec<u8> {
        let bytes = self.payload_bytes as usize;
        let mut payload = Vec::with_capacity(bytes.max(HEAD_BYTES_MAX as usize));
        payload.push(b'"');
        payload.extend_from_slice(&digits(number));
        let what = match self.doing {
            Doing::Nothing => b'n',
            Doing::Sleep => b's',
            Doing::Spin => b'c',
        };
        payload.push(if self.fails { what.to_ascii_uppercase() } else { what });
        let wrote = |written: std::io::Result<()>| written.expect("writing to memory does not fail");
        if self.run_us > 0 {
            wrote(write!(payload, "{}", self.run_us));
        }
        if self.result_bytes != self.payload_bytes {
            wrote(write!(payload, "r{}", self.result_bytes));
        }
        payload.push(b'.');
        payload.resize(bytes.saturating_sub(1).max(payload.len()), filling(number));
        payload.push(b'"');
        payload
    }

    /// The smallest payload that says this.
    pub fn payload_bytes_min(&self) -> u32 {
        Self { payload_bytes: 0, ..*self }.payload(0).len() as u32
    }

    /// Whether these bytes are its result.
    pub fn is_result(&self, number: u64, result: &[u8]) -> bool {
        let [b'"', rest @ .., b'"'] = result else { return false };
        let filling = filling(number);
        result.len() == self.result_bytes as usize
            && rest.len() >= NUMBER_BYTES
            && rest[..NUMBER_BYTES] == digits(number)
            && rest[NUMBER_BYTES..].iter().all(|byte| *byte == filling)
    }
}

fn digits(number: u64) -> [u8; NUMBER_BYTES] {
    std::array::from_fn(|at| b"0123456789abcdef"[(number >> (4 * (NUMBER_BYTES - 1 - at)) & 15) as usize])
}

const fn filling(number: u64) -> u8 {
    b'a' + (number % 26) as u8
}

/// Why a task failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failed {
    /// Its payload said so.
    #[error("{AS_ASKED}")]
    AsAsked,
    /// Its payload is not one of ours.
    #[error("the payload is none of this harness's: {0}")]
    Foreign(String),
}

/// The message of a task that was to fail.
pub const AS_ASKED: &str = "failed as asked";

/// Does what a payload says, and appends the result.
pub fn perform(payload: &[u8], result: &mut Vec<u8>) -> Result<(), Failed> {
    let foreign = || Failed::Foreign(String::from_utf8_lossy(&payload[..payload.len().min(64)]).into_owned());
    let [b'"', rest @ ..] = payload else { return Err(foreign()) };
    let (number, rest) = rest.split_at_checked(NUMBER_BYTES).ok_or_else(foreign)?;
    let (what, rest) = rest.split_first().ok_or_else(foreign)?;
    let (run_us, rest) = decimal(rest);
    let (result_bytes, rest) = match rest {
        [b'r', rest @ ..] => decimal(rest),
        _ => (payload.len() as u64, rest),
    };
    let value = std::str::from_utf8(number).ok().and_then(|number| u64::from_str_radix(number, 16).ok());
    let (Some(value), [b'.', ..]) = (value, rest) else { return Err(foreign()) };
    let run = Duration::from_micros(run_us);
    match what.to_ascii_lowercase() {
        b'n' => {}
        b's' => thread::sleep(run),
        b'c' => spin(run),
        _ => return Err(foreign()),
    }
    if what.is_ascii_uppercase() {
        return Err(Failed::AsAsked);
    }
    let end = result.len() + (result_bytes as usize).max(RESULT_BYTES_MIN as usize);
    result.push(b'"');
    result.extend_from_slice(number);
    result.resize(end - 1, filling(value));
    result.push(b'"');
    Ok(())
}

/// The number at the start, and what follows it.
fn decimal(text: &[u8]) -> (u64, &[u8]) {
    let end = text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    let value =
        text[..end].iter().fold(0_u64, |value, digit| value.saturating_mul(10).saturating_add(u64::from(digit - b'0')));
    (value, &text[end..])
}

fn spin(run: Duration) {
    let started = Instant::now();
    while started.elapsed() < run {
        std::hint::spin_loop();
    }
}

/// How long tasks run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum RunTime {
    /// All the same.
    Fixed {
        /// That long.
        us: u32,
    },
    /// Mostly shorter than the mean, a few several times as long.
    Exponential {
        /// The mean.
        mean_us: u32,
    },
    /// Heavy-tailed: most are near the smallest, and a large part of all work is in a few.
    Pareto {
        /// The smallest.
        min_us: u32,
        /// How thin the tail is: 1.1 is very heavy, 3 hardly.
        alpha: f64,
        /// The longest; longer ones are cut to it.
        max_us: u32,
    },
}

/// What the tasks of a client are like. Which is which follows from the seed and the task's number, so that the results can
/// be checked without keeping what was asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Mix {
    /// What they do.
    pub doing: Doing,
    /// For how long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<RunTime>,
    /// Size of a payload.
    pub payload_bytes: u32,
    /// If given, sizes of payloads are spread up to it, evenly on a logarithmic scale.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload_bytes_max: Option<u32>,
    /// Size of a result; its payload's unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result_bytes: Option<u32>,
    /// How many of all tasks fail, 0 to 1.
    pub fail_share: f64,
}

impl Default for Mix {
    fn default() -> Self {
        let (doing, run, payload_bytes_max, result_bytes) = Default::default();
        Self { doing, run, payload_bytes: 64, payload_bytes_max, result_bytes, fail_share: 0.0 }
    }
}

/// The largest payload or result: the grid's own limit.
const BYTES_MAX: u32 = sheaf::core::limits::TASK_BYTES_MAX as u32;

impl Mix {
    /// What is wrong with it, if anything.
    pub fn check(&self) -> Result<(), String> {
        if !(0.0..=1.0).contains(&self.fail_share) {
            return Err(format!("fail_share is {}, must be 0 to 1", self.fail_share));
        }
        match (self.doing, self.run) {
            (Doing::Nothing, Some(_)) => {
                return Err("run is given, but doing is \"nothing\": give sleep or spin".into());
            }
            (Doing::Sleep | Doing::Spin, None) => return Err("doing is given without run: say for how long".into()),
            (_, Some(RunTime::Pareto { min_us, alpha, max_us }))
                if !(alpha.is_finite() && alpha > 0.0) || min_us == 0 || max_us < min_us =>
            {
                return Err("run needs alpha above 0, min_us above 0 and max_us of at least min_us".into());
            }
            _ => {}
        }
        let largest =
            Work { doing: self.doing, run_us: u32::MAX, fails: false, payload_bytes: 0, result_bytes: BYTES_MAX };
        let least = match self.doing {
            Doing::Nothing if self.result_bytes.is_none() => {
                Work { run_us: 0, result_bytes: 0, ..largest }.payload_bytes_min()
            }
            Doing::Nothing => Work { run_us: 0, ..largest }.payload_bytes_min(),
            _ => largest.payload_bytes_min(),
        };
        let sizes = [
            ("payload_bytes", Some(self.payload_bytes), least),
            ("payload_bytes_max", self.payload_bytes_max, self.payload_bytes),
            ("result_bytes", self.result_bytes, RESULT_BYTES_MIN),
        ];
        for (name, bytes, least) in sizes {
            if let Some(bytes) = bytes.filter(|bytes| !(least..=BYTES_MAX).contains(bytes)) {
                return Err(format!("{name} is {bytes}, must be {least} to {BYTES_MAX}"));
            }
        }
        Ok(())
    }

    /// What a task is like.
    pub fn task(&self, seed: u64, number: u64) -> Work {
        let plain = self.run.is_none() && self.payload_bytes_max.is_none() && self.fail_share == 0.0;
        if plain {
            let result_bytes = self.result_bytes.unwrap_or(self.payload_bytes);
            return Work {
                doing: self.doing,
                run_us: 0,
                fails: false,
                payload_bytes: self.payload_bytes,
                result_bytes,
            };
        }
        // Numbers follow each other; their generators' starts should not.
        // Rotated, so that seeds that follow each other do not give the same tasks in almost the same order.
        let mut random = fastrand::Rng::with_seed((seed.rotate_left(32) ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let payload_bytes = match self.payload_bytes_max {
            Some(most) => {
                let (least, most) = (f64::from(self.payload_bytes).ln(), f64::from(most).ln());
                (least + random.f64() * (most - least)).exp().round() as u32
            }
            None => self.payload_bytes,
        };
        // 1 − [0, 1) is never 0.
        let share = 1.0 - random.f64();
        let run_us = match self.run {
            None => 0,
            Some(RunTime::Fixed { us }) => us,
            Some(RunTime::Exponential { mean_us }) => (-share.ln() * f64::from(mean_us)) as u32,
            Some(RunTime::Pareto { min_us, alpha, max_us }) => {
                (f64::from(min_us) * share.powf(-1.0 / alpha)).min(f64::from(max_us)) as u32
            }
        };
        let fails = random.f64() < self.fail_share;
        let result_bytes = self.result_bytes.unwrap_or(payload_bytes);
        Work { doing: self.doing, run_us, fails, payload_bytes, result_bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mixed() -> Mix {
        let run = Some(RunTime::Pareto { min_us: 1, alpha: 1.2, max_us: 20 });
        Mix {
            doing: Doing::Spin,
            run,
            payload_bytes: 40,
            payload_bytes_max: Some(4_000),
            result_bytes: None,
            fail_share: 0.25,
        }
    }

    #[test]
    fn what_is_asked_is_done_and_known_again() {
        let fixed = Mix { result_bytes: Some(200), ..Mix::default() };
        for mix in [Mix::default(), fixed, mixed()] {
            mix.check().expect("sensible");
            for number in [0, 1, 25, 26, 0xffff_ffff] {
                let (work, mut result) = (mix.task(3, number), Vec::new());
                let payload = work.payload(number);
                assert_eq!(payload.len(), work.payload_bytes as usize);
                serde_json::from_slice::<String>(&payload).expect("a JSON string");
                match perform(&payload, &mut result) {
                    Ok(()) => assert!(!work.fails && work.is_result(number, &result), "{work:?}"),
                    Err(failed) => assert!(work.fails && failed == Failed::AsAsked, "{work:?}: {failed}"),
                }
            }
        }
    }

    #[test]
    fn other_results_are_not_taken_for_it() {
        let work = Mix::default().task(0, 7);
        let mut result = Vec::new();
        perform(&work.payload(7), &mut result).expect("done");
        assert!(work.is_result(7, &result));
        assert!(!work.is_result(8, &result), "of another task");
        assert!(!work.is_result(7, &result[..63]), "cut");
        for at in 0..result.len() {
            let mut changed = result.clone();
            changed[at] ^= 1;
            assert!(!work.is_result(7, &changed), "changed at {at}");
        }
    }

    #[test]
    fn shares_and_sizes_are_as_asked() {
        let (mix, tasks) = (mixed(), 20_000);
        let works: Vec<Work> = (0..tasks).map(|number| mix.task(9, number)).collect();
        let failing = works.iter().filter(|work| work.fails).count();
        assert!((4_700..5_300).contains(&failing), "{failing}");
        assert!(works.iter().all(|work| (40..=4_000).contains(&work.payload_bytes)));
        assert!(works.iter().all(|work| (1..=20).contains(&work.run_us)));
        let small = works.iter().filter(|work| work.payload_bytes < 400).count();
        assert!((9_500..10_500).contains(&small), "half of a range on a logarithmic scale: {small}");
    }

    #[test]
    fn foreign_payloads_fail() {
        for payload in [&b""[..], b"\"", b"{}", b"\"0000000", b"\"0000000gn.\"", b"\"00000000x.\"", b"\"00000000n12\""]
        {
            assert!(matches!(perform(payload, &mut Vec::new()), Err(Failed::Foreign(_))), "{payload:?}");
        }
    }

    #[test]
    fn senseless_mixes_are_refused() {
        let run = Some(RunTime::Fixed { us: 5 });
        for (mix, told) in [
            (Mix { fail_share: 1.5, ..Mix::default() }, "fail_share is 1.5, must be 0 to 1"),
            (Mix { payload_bytes: 4, ..Mix::default() }, "payload_bytes is 4, must be 12 to 6291456"),
            (Mix { result_bytes: Some(3), ..Mix::default() }, "result_bytes is 3, must be 10"),
            (Mix { payload_bytes_max: Some(8), ..Mix::default() }, "payload_bytes_max is 8, must be 64"),
            (Mix { run, ..Mix::default() }, "doing is \"nothing\""),
            (Mix { doing: Doing::Sleep, ..Mix::default() }, "say for how long"),
        ] {
            let refused = mix.check().expect_err("senseless");
            assert!(refused.contains(told), "{refused}");
        }
    }
}
