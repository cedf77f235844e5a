//! What can go wrong with a call, for programs and for people.

use serde::{Deserialize, Serialize};

use crate::FormatError;

/// The codes. Stable: programs match on them, and each has a section in `docs/errors.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// The request breaks a rule; sending it again cannot help.
    Invalid,
    /// It is beyond a limit.
    TooLarge,
    /// There is no such job, task or function.
    NotFound,
    /// The same id is in use for something else.
    Conflict,
    /// The job is over, or being cancelled.
    Over,
    /// The token is missing or wrong.
    Unauthorized,
    /// The caller may not do this: a foreign origin or host.
    Forbidden,
    /// The caller has more in flight than it may; try again after the time given.
    Throttled,
    /// The grid cannot do it now; try again after the time given.
    Unavailable,
    /// The answer was lost: it may or may not have happened. Sending the same again tells.
    Unknown,
    /// The grid has stopped accepting anything: its disk is full or failing, or it is shutting down. What was under way may
    /// have happened; sending the same again, to the grid once it runs again, tells.
    Stopped,
    /// A defect of the grid.
    Internal,
}

impl Code {
    /// All of them, in the order of their declaration.
    pub const ALL: [Self; 12] = [
        Self::Invalid,
        Self::TooLarge,
        Self::NotFound,
        Self::Conflict,
        Self::Over,
        Self::Unauthorized,
        Self::Forbidden,
        Self::Throttled,
        Self::Unavailable,
        Self::Unknown,
        Self::Stopped,
        Self::Internal,
    ];

    /// The word for it, as it appears in JSON and in messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::TooLarge => "too_large",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::Over => "over",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::Throttled => "throttled",
            Self::Unavailable => "unavailable",
            Self::Unknown => "unknown",
            Self::Stopped => "stopped",
            Self::Internal => "internal",
        }
    }

    /// Its HTTP status.
    pub const fn status(self) -> u16 {
        match self {
            Self::Invalid => 400,
            Self::Unauthorized => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::Conflict | Self::Over => 409,
            Self::TooLarge => 413,
            Self::Throttled => 429,
            Self::Internal => 500,
            Self::Unknown => 502,
            Self::Unavailable | Self::Stopped => 503,
        }
    }
}

/// Could it have happened? What a caller needs to know of a failed write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteOutcome {
    /// It did not happen. Sending it again may work.
    NotApplied,
    /// It may have happened. Sending the same again is safe and tells.
    Unknown,
    /// It did not happen, and sending it again cannot work.
    Final,
}

/// An error of a call: a code, what happened to which object, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// The code.
    pub code: Code,
    /// What happened, to which object.
    pub message: String,
    /// What to do next, where there is something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// When to try again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

impl ApiError {
    /// An error with a code and a message.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: None, retry_after_ms: None }
    }

    /// The request breaks a rule.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::Invalid, message)
    }

    /// There is no such object.
    pub fn not_found(object: impl std::fmt::Display) -> Self {
        Self::new(Code::NotFound, format!("no such thing here: {object}"))
    }

    /// The same, with what to do next.
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same, with when to try again.
    pub const fn with_retry_after_ms(mut self, retry_after_ms: u64) -> Self {
        self.retry_after_ms = Some(retry_after_ms);
        self
    }

    /// Could it have happened?
    pub const fn outcome(&self) -> WriteOutcome {
        match self.code {
            Code::Throttled | Code::Unavailable => WriteOutcome::NotApplied,
            Code::Unknown | Code::Internal | Code::Stopped => WriteOutcome::Unknown,
            Code::Invalid
            | Code::TooLarge
            | Code::NotFound
            | Code::Conflict
            | Code::Over
            | Code::Unauthorized
            | Code::Forbidden => WriteOutcome::Final,
        }
    }
}

impl ApiError {
    /// Whether the same call may succeed later, so that a client may make it again by itself. A defect stays one, and a grid
    /// that has stopped wants to be started again by somebody.
    pub const fn may_pass(&self) -> bool {
        match self.outcome() {
            WriteOutcome::NotApplied => true,
            WriteOutcome::Final => false,
            WriteOutcome::Unknown => !matches!(self.code, Code::Internal | Code::Stopped),
        }
    }
}

impl From<FormatError> for ApiError {
    fn from(error: FormatError) -> Self {
        let code = match error {
            FormatError::Limit { .. } => Code::TooLarge,
            FormatError::Magic { .. }
            | FormatError::Version { .. }
            | FormatError::Checksum { .. }
            | FormatError::Malformed { .. } => Code::Invalid,
        };
        Self::new(code, error.to_string())
    }
}
