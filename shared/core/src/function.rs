//! What the grid knows of a user's function: its manifest, and how long it takes.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use crate::{Digest, FunctionName, FunctionRef, limits};

/// How a function is declared. Immutable: a changed manifest is another version (see [`Manifest::reference`]), and a job
/// keeps the version it was created with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The name by which jobs and command files call it.
    pub name: FunctionName,
    /// What runs.
    #[serde(flatten)]
    pub kind: FunctionKind,
    /// How long it may run on one task (for a batch: per task in it). 1 ms to [`limits::FUNCTION_TIMEOUT_MS_MAX`].
    #[serde(default = "timeout_ms_default")]
    pub timeout_ms: u64,
    /// Resident memory of its process and that one's children. A linked-in handler shares the grid's process and has no
    /// limit of its own.
    #[serde(default = "memory_bytes_default")]
    pub memory_bytes_max: u64,
    /// Size of one result. At most [`limits::TASK_BYTES_MAX`].
    #[serde(default = "output_bytes_default")]
    pub output_bytes_max: u64,
    /// Whether tasks of one job must run one after the other, in their order.
    #[serde(default)]
    pub ordered: bool,
    /// Whether one invocation takes a whole chunk and answers per task.
    #[serde(default)]
    pub batch: bool,
    /// For a function that writes checkpoints: how often a new one is looked for, in ms.
    /// [`limits::CHECKPOINT_EVERY_MS_MIN`] to [`limits::FUNCTION_TIMEOUT_MS_MAX`]. `None`: it writes none, and is never told to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint_every_ms: Option<u64>,
    /// What its results are.
    #[serde(default)]
    pub result: ResultForm,
    /// Its whole environment besides what the Runtime API defines: nothing is inherited.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
}

const fn timeout_ms_default() -> u64 {
    limits::FUNCTION_TIMEOUT_MS_DEFAULT
}

const fn memory_bytes_default() -> u64 {
    limits::FUNCTION_MEMORY_BYTES_DEFAULT
}

const fn output_bytes_default() -> u64 {
    limits::TASK_BYTES_MAX as u64
}

/// What runs when a function is called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum FunctionKind {
    /// A zip with an executable `bootstrap` at its top that speaks the Lambda Runtime API; kept warm between tasks.
    Package {
        /// Digest of the zip, which is the blob `f/{digest}`.
        digest: Digest,
        /// What the process sees as `_HANDLER`.
        handler: String,
    },
    /// A process per task. `{name}` in an argument stands for the member `name` of a JSON object payload, `{}` for the
    /// whole payload as text, `{{` and `}}` for braces; a payload without a placeholder arrives on stdin. Its stdout is
    /// the result; a non-zero exit code is an error.
    Command {
        /// Program and arguments; not passed through a shell.
        argv: Vec<String>,
    },
    /// A Lambda function invoked by its ARN.
    Lambda {
        /// The ARN.
        arn: String,
    },
    /// A Rust function linked into the grid's process, found by name.
    Handler {
        /// What distinguishes it from an earlier one of the same name; empty if nothing does.
        #[serde(default)]
        revision: String,
    },
}

impl FunctionKind {
    /// The word for the kind.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Package { .. } => "package",
            Self::Command { .. } => "command",
            Self::Lambda { .. } => "lambda",
            Self::Handler { .. } => "handler",
        }
    }
}

/// What a function's result bytes are, for whoever prints them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResultForm {
    /// A JSON text, as Lambda functions answer.
    #[default]
    Json,
    /// Text that is printed as it is.
    Text,
    /// Any bytes.
    Bytes,
}

impl fmt::Display for ResultForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Json => "json",
            Self::Text => "text",
            Self::Bytes => "bytes",
        })
    }
}

/// A manifest that cannot be accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("function {name}: {reason}")]
pub struct ManifestError {
    name: FunctionName,
    reason: String,
}

impl Manifest {
    /// A manifest with defaults for all but its name and kind.
    pub fn new(name: FunctionName, kind: FunctionKind) -> Self {
        let result = match kind {
            FunctionKind::Command { .. } => ResultForm::Text,
            _ => ResultForm::Json,
        };
        Self {
            name,
            kind,
            timeout_ms: timeout_ms_default(),
            memory_bytes_max: memory_bytes_default(),
            output_bytes_max: output_bytes_default(),
            ordered: false,
            batch: false,
            checkpoint_every_ms: None,
            result,
            env: BTreeMap::new(),
        }
    }

    /// Checks every bound that a manifest can break.
    pub fn check(&self) -> Result<(), ManifestError> {
        let refuse = |reason: String| Err(ManifestError { name: self.name.clone(), reason });
        if !(1..=limits::FUNCTION_TIMEOUT_MS_MAX).contains(&self.timeout_ms) {
            return refuse(format!(
                "timeout_ms is {}, must be 1 to {}",
                self.timeout_ms,
                limits::FUNCTION_TIMEOUT_MS_MAX
            ));
        }
        if !(1..=limits::TASK_BYTES_MAX as u64).contains(&self.output_bytes_max) {
            return refuse(format!(
                "output_bytes_max is {}, must be 1 to {}",
                self.output_bytes_max,
                limits::TASK_BYTES_MAX
            ));
        }
        if self.memory_bytes_max == 0 {
            return refuse("memory_bytes_max is 0".into());
        }
        if self.batch && self.ordered {
            return refuse("batch and ordered exclude each other: a batch has no order".into());
        }
        if let Some(every_ms) = self.checkpoint_every_ms {
            let (least, most) = (limits::CHECKPOINT_EVERY_MS_MIN, limits::FUNCTION_TIMEOUT_MS_MAX);
            if !(least..=most).contains(&every_ms) {
                return refuse(format!("checkpoint_every_ms is {every_ms}, must be {least} to {most}"));
            }
            if self.batch {
                return refuse("batch and checkpoint exclude each other: a checkpoint is of one task".into());
            }
            if let FunctionKind::Lambda { .. } = self.kind {
                return refuse("a function invoked by its ARN writes no checkpoints: nobody sees its files".into());
            }
        }
        if self.env.iter().any(|(name, value)| name.is_empty() || name.contains(['=', '\0']) || value.contains('\0')) {
            return refuse("env holds a name or value that no process can have".into());
        }
        match &self.kind {
            FunctionKind::Command { argv } if argv.first().is_none_or(String::is_empty) => {
                refuse("argv is empty".into())
            }
            FunctionKind::Command { argv } if argv.iter().any(|arg| arg.contains('\0')) => {
                refuse("argv holds a NUL".into())
            }
            FunctionKind::Command { .. } if self.batch => {
                refuse("a command runs once per task; batch wants a package or a handler".into())
            }
            FunctionKind::Package { handler, .. } if handler.contains('\0') => refuse("handler holds a NUL".into()),
            FunctionKind::Lambda { arn } if !arn.starts_with("arn:") => refuse(format!("{arn:?} is not an ARN")),
            FunctionKind::Command { .. } | FunctionKind::Lambda { .. } => Ok(()),
            FunctionKind::Package { .. } | FunctionKind::Handler { .. } => Ok(()),
        }
    }

    /// Name and version, given the canonical bytes of this manifest (its JSON; the wire crate writes it).
    pub fn reference(&self, canonical: &[u8]) -> FunctionRef {
        let mut version = Digest::of(canonical).to_string();
        version.truncate(12);
        FunctionRef { name: self.name.clone(), version: version.into() }
    }
}

/// How long one task of a function takes, from what has been seen. Kept by the step that summarises results; given to the
/// SDK (chunk size), the scheduler (capacity) and people (time left).
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Estimate {
    /// Tasks seen, saturating.
    pub tasks: u64,
    /// Moving mean of a task's run time.
    pub mean_us: f64,
    /// Moving estimate of the 95th percentile.
    pub p95_us: f64,
}

impl Estimate {
    /// What has been seen; where nothing has, what a submitter expects, as if one task had been seen.
    #[must_use]
    pub fn or_expected(self, task_ms: Option<u64>) -> Self {
        match task_ms {
            Some(task_ms) if self.tasks == 0 => {
                let us = task_ms as f64 * 1e3;
                Self { tasks: 1, mean_us: us, p95_us: us }
            }
            _ => self,
        }
    }

    /// Takes in a chunk's tasks with their mean and largest run time. A weight of 0.2 per chunk, as is usual for moving
    /// means (and 1 for the first); p95 moves up fast and down slowly.
    pub fn observe(&mut self, tasks: u64, mean_us: f64, max_us: f64) {
        if tasks == 0 {
            return;
        }
        let weight = if self.tasks == 0 { 1.0 } else { 0.2 };
        self.mean_us += weight * (mean_us - self.mean_us);
        let step = if max_us > self.p95_us { 0.5 } else { 0.05 };
        self.p95_us += if self.tasks == 0 { max_us } else { step * (max_us - self.p95_us) };
        self.tasks = self.tasks.saturating_add(tasks);
    }
}
