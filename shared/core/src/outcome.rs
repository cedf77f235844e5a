//! What a task ended as, and why.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::limits;

/// What a task ended as. Every accepted task ends in exactly one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The function answered; its result is stored.
    Succeeded,
    /// The function said that it failed, ran out of time, or answered something that cannot be kept; the reason is stored.
    Failed,
    /// The job was cancelled before this task was committed.
    Cancelled,
    /// The deadline passed before this task was committed.
    Expired,
    /// Running it killed its process or its worker [`limits::STRIKES_MAX`] times; it is not tried again.
    Quarantined,
}

impl Outcome {
    /// All of them, in the order that tables print them.
    pub const ALL: [Self; 5] = [Self::Succeeded, Self::Failed, Self::Cancelled, Self::Expired, Self::Quarantined];

    /// The word for it, in lower case.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
            Self::Quarantined => "quarantined",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Why a task failed or was quarantined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The function itself reported an error, or a command ended with a non-zero exit code.
    Error,
    /// It panicked (a linked-in handler).
    Panic,
    /// Its process ended by itself without an answer.
    Exited,
    /// Its process was ended by a signal that the grid did not send, such as a segmentation fault.
    Killed,
    /// It ran longer than its timeout, and was stopped.
    TimedOut,
    /// It used more memory than its limit, and was stopped.
    OutOfMemory,
    /// Its answer was larger than its output limit.
    OutputTooLarge,
    /// Its answer was not one: wrong protocol, missing tasks of a batch, not the form its manifest declares.
    BadAnswer,
    /// Its process could not be started or did not become ready.
    NotStarted,
    /// The job names a function that the grid does not know.
    UnknownFunction,
    /// The worker died under it (only for quarantine).
    WorkerDied,
}

impl FailureKind {
    /// The word for it, in lower case.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Panic => "panic",
            Self::Exited => "exited",
            Self::Killed => "killed",
            Self::TimedOut => "timed_out",
            Self::OutOfMemory => "out_of_memory",
            Self::OutputTooLarge => "output_too_large",
            Self::BadAnswer => "bad_answer",
            Self::NotStarted => "not_started",
            Self::UnknownFunction => "unknown_function",
            Self::WorkerDied => "worker_died",
        }
    }

    /// What a failed attempt of this kind means for the task.
    pub const fn consequence(self) -> Consequence {
        match self {
            Self::Error | Self::Panic | Self::TimedOut | Self::BadAnswer | Self::NotStarted => Consequence::Retry,
            Self::Exited | Self::Killed | Self::OutOfMemory | Self::WorkerDied => Consequence::Strike,
            Self::OutputTooLarge | Self::UnknownFunction => Consequence::Fail,
        }
    }
}

impl fmt::Display for FailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What follows from a failed attempt at a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consequence {
    /// Tried again while the job's `max_attempts` allows it, then failed.
    Retry,
    /// The task is given a strike; after [`limits::STRIKES_MAX`] it is quarantined.
    Strike,
    /// Failed at once: trying again cannot help.
    Fail,
}

/// The reason kept with a failed or quarantined task: what the user's code said, unchanged but for the caps of
/// [`limits`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{kind}: {message}")]
pub struct Failure {
    /// The kind.
    pub kind: FailureKind,
    /// The function's own name for the error, such as `ValueError`. Empty where there is none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub error_type: String,
    /// What happened, in the function's words or ours.
    pub message: String,
    /// The stack as the function reported it, outermost first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stack: Vec<String>,
    /// The end of what the process wrote to stderr under this task, at most [`limits::LOG_BYTES_MAX`].
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub stderr: String,
    /// How many times the task was tried.
    #[serde(default)]
    pub attempts: u32,
}

impl Failure {
    /// A failure with a kind and a message.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        let (error_type, stack, stderr) = Default::default();
        Self { kind, error_type, message: message.into(), stack, stderr, attempts: 0 }.capped()
    }

    /// The same, with the function's own name for the error.
    pub fn with_type(mut self, error_type: impl Into<String>) -> Self {
        self.error_type = error_type.into();
        self.capped()
    }

    /// The same, cut to the caps of [`limits`]: of stderr the end is kept, of everything else the beginning.
    pub fn capped(mut self) -> Self {
        truncate(&mut self.error_type, limits::ERROR_TYPE_BYTES_MAX);
        truncate(&mut self.message, limits::MESSAGE_BYTES_MAX);
        self.stack.truncate(limits::STACK_FRAMES_MAX);
        self.stack.iter_mut().for_each(|frame| truncate(frame, limits::STACK_FRAME_BYTES_MAX));
        if self.stderr.len() > limits::LOG_BYTES_MAX {
            let from = self.stderr.ceil_char_boundary(self.stderr.len() - limits::LOG_BYTES_MAX);
            self.stderr.drain(..from);
        }
        self
    }
}

fn truncate(text: &mut String, bytes_max: usize) {
    text.truncate(text.floor_char_boundary(bytes_max));
}

/// Two bits of a task within its chunk. Cancelled and expired have none: they are what an open task becomes when its
/// chunk ends as such.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u8)]
#[serde(rename_all = "snake_case")]
pub enum Mark {
    /// No outcome yet.
    Open = 0,
    /// Succeeded.
    Succeeded = 1,
    /// Failed.
    Failed = 2,
    /// Quarantined.
    Quarantined = 3,
}

impl Mark {
    const fn from_bits(bits: u8) -> Self {
        match bits & 3 {
            0 => Self::Open,
            1 => Self::Succeeded,
            2 => Self::Failed,
            _ => Self::Quarantined,
        }
    }

    /// The outcome it stands for, unless open.
    pub const fn outcome(self) -> Option<Outcome> {
        match self {
            Self::Open => None,
            Self::Succeeded => Some(Outcome::Succeeded),
            Self::Failed => Some(Outcome::Failed),
            Self::Quarantined => Some(Outcome::Quarantined),
        }
    }
}

/// The marks of a chunk's tasks, two bits each.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "StoredMarks")]
pub struct Marks {
    tasks: u32,
    bits: Vec<u8>,
}

/// Marks as they are read, before it is known that bits and tasks fit together.
#[derive(Deserialize)]
#[serde(rename = "Marks")]
struct StoredMarks {
    tasks: u32,
    bits: Vec<u8>,
}

impl TryFrom<StoredMarks> for Marks {
    type Error = String;

    fn try_from(StoredMarks { tasks, bits }: StoredMarks) -> Result<Self, String> {
        let bytes = bits.len();
        Self::from_bits(tasks, bits).ok_or_else(|| format!("{bytes} bytes are not the marks of {tasks} tasks"))
    }
}

impl Marks {
    /// `tasks` open marks.
    pub fn open(tasks: u32) -> Self {
        Self { tasks, bits: vec![0; (tasks as usize).div_ceil(4)] }
    }

    /// The marks in `bits`, four to a byte, lowest first; `None` if they are not exactly those of `tasks` tasks.
    pub fn from_bits(tasks: u32, bits: Vec<u8>) -> Option<Self> {
        let spare_bits = 8 * bits.len() as u64 - 2 * u64::from(tasks).min(4 * bits.len() as u64);
        let clean =
            spare_bits < 8 && (spare_bits == 0 || bits.last().is_some_and(|last| last >> (8 - spare_bits) == 0));
        (bits.len() == (tasks as usize).div_ceil(4) && clean).then_some(Self { tasks, bits })
    }

    /// The bits, four marks to a byte, lowest first.
    pub fn bits(&self) -> &[u8] {
        &self.bits
    }

    /// How many tasks.
    pub const fn tasks(&self) -> u32 {
        self.tasks
    }

    /// The mark of a task; open when there is no such task.
    pub fn get(&self, index: u32) -> Mark {
        self.bits.get(index as usize / 4).map_or(Mark::Open, |byte| Mark::from_bits(byte >> (2 * (index % 4))))
    }

    /// Sets the mark of a task.
    ///
    /// # Panics
    /// If there is no such task.
    pub fn set(&mut self, index: u32, mark: Mark) {
        assert!(index < self.tasks, "task {index} of {}", self.tasks);
        let byte = &mut self.bits[index as usize / 4];
        let shift = 2 * (index % 4);
        *byte = *byte & !(3 << shift) | (mark as u8) << shift;
    }

    /// Tasks that are still open, in order.
    pub fn open_tasks(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.tasks).filter(|&index| self.get(index) == Mark::Open)
    }

    /// How many tasks have this mark. Costs one pass over the bits.
    pub fn count(&self, mark: Mark) -> u32 {
        let pattern = mark as u8 * 0b0101_0101;
        let equal: u32 = self
            .bits
            .iter()
            .map(|byte| {
                let differs = byte ^ pattern;
                4 - ((differs | differs >> 1) & 0b0101_0101).count_ones()
            })
            .sum();
        // The unused marks at the end of the last byte read as open.
        let spare = self.bits.len() as u32 * 4 - self.tasks;
        if mark == Mark::Open { equal - spare } else { equal }
    }

    /// Whether every task has an outcome.
    pub fn is_closed(&self) -> bool {
        self.count(Mark::Open) == 0
    }

    /// The union with marks of other tasks of the same chunk; `None` if they disagree on the number of tasks or both
    /// mark the same task.
    pub fn merged(&self, other: &Self) -> Option<Self> {
        let apart = self.tasks == other.tasks
            && self.bits.iter().zip(&other.bits).all(|(a, b)| (a | a >> 1) & (b | b >> 1) & 0b0101_0101 == 0);
        apart.then(|| Self { tasks: self.tasks, bits: self.bits.iter().zip(&other.bits).map(|(a, b)| a | b).collect() })
    }
}

impl fmt::Debug for Marks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text: String = (0..self.tasks.min(64)).map(|i| ['.', 's', 'f', 'q'][self.get(i) as usize]).collect();
        write!(f, "{text}{}", if self.tasks > 64 { "…" } else { "" })
    }
}
