//! Functions that run elsewhere, invoked by an ARN: the seam between the host, which knows of calls, and whatever speaks to
//! the service that runs them.

use std::pin::Pin;

use bytes::Bytes;

/// One invocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invocation {
    /// The function.
    pub arn: String,
    /// The event, a JSON text.
    pub event: Bytes,
    /// The client context, a JSON object: which task this is.
    pub context: String,
}

/// How an invocation was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invoked {
    /// What the function answered, or its error as runtimes report it.
    pub payload: Bytes,
    /// Whether that is an error.
    pub failed: bool,
    /// The end of what it logged; empty if nobody knows.
    pub log: Bytes,
}

/// Why an invocation has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotInvoked {
    /// Not now: too many run already, or the function is not ready. It did not run.
    #[error("throttled: {0}")]
    Throttled(String),
    /// Not at all: no such function, no right to invoke it, a malformed request. It did not run.
    #[error("{0}")]
    Refused(String),
    /// Nobody knows: the connection broke, or the service failed. It may have run.
    #[error("{0}")]
    Lost(String),
}

/// The answer to come.
pub type Invoking<'a> = Pin<Box<dyn Future<Output = Result<Invoked, NotInvoked>> + Send + 'a>>;

/// Who invokes functions by their ARN.
///
/// Each call is one request: it is never sent again by itself, as it would run the user's code twice. The future may be
/// dropped at any time; the function may run on.
pub trait Invoker: Send + Sync + 'static {
    /// Invokes a function and waits for its answer.
    fn invoke(&self, invocation: Invocation) -> Invoking<'_>;
}
