//! A task's checkpoint while the task runs: what the steps and the host tell each other of it.

use std::{
    mem,
    sync::atomic::{AtomicBool, Ordering},
};

use bytes::Bytes;
use parking_lot::Mutex;

/// What the worker's steps, which store checkpoints, and the host, which shows them to a function, share while one task runs.
#[derive(Debug, Default)]
pub struct Checkpoint {
    /// What an earlier attempt left; the function finds it when it starts.
    pub restored: Option<Bytes>,
    asked: AtomicBool,
    written: Mutex<Option<Written>>,
    notes: Mutex<String>,
}

/// A checkpoint that a function has written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Its bytes.
    pub bytes: Bytes,
    /// How long the task had been running, in this attempt, in ms.
    pub run_ms: u64,
}

impl Checkpoint {
    /// For a task that goes on from `restored`, or starts anew.
    pub fn new(restored: Option<Bytes>) -> Self {
        Self { restored, ..Self::default() }
    }

    /// Asks the function for a last checkpoint: the worker has to stop, and the task is to be ended once it is written.
    pub fn ask(&self) {
        self.asked.store(true, Ordering::Release);
    }

    /// Whether the function is to write a last checkpoint.
    pub fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Acquire)
    }

    /// Lays down what the function has written, in place of what nobody has taken yet.
    pub fn lay(&self, written: Written) {
        *self.written.lock() = Some(written);
    }

    /// Takes what was laid down last, once.
    pub fn take(&self) -> Option<Written> {
        self.written.lock().take()
    }

    /// Adds a line for whoever reads the task's log.
    pub fn note(&self, line: &str) {
        let mut notes = self.notes.lock();
        notes.push_str("sheaf: ");
        notes.push_str(line);
        notes.push('\n');
    }

    /// Takes the lines that were noted, once.
    pub fn take_notes(&self) -> String {
        mem::take(&mut self.notes.lock())
    }
}
