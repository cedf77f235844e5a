//! What a function may answer instead of a result.

use std::{error::Error, io};

use lambda_runtime::Diagnostic;

/// Why there is no answer. The caller sees [`Self::kind`] as the error's type, and the message with its sources.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// `_HANDLER` names nothing that is here.
    #[error("no function is called {name:?}")]
    UnknownFunction {
        /// What it names.
        name: String,
    },
    /// The payload is JSON, but not an object.
    #[error("{function}: the payload is not an object of arguments")]
    InvalidPayload {
        /// Who refused it.
        function: String,
    },
    /// An argument is missing, of another type, or out of bounds. Trying again does not help.
    #[error("{function}: argument {argument} {problem}")]
    InvalidArgument {
        /// Who refused it.
        function: String,
        /// Its name.
        argument: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The database could not be reached, or refused a statement.
    #[error("cannot {action}")]
    Database {
        /// What was tried.
        action: &'static str,
        /// What the driver says.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// A file or stream could not be used.
    #[error("cannot {action}")]
    Io {
        /// What was tried.
        action: String,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The answer cannot be written as JSON.
    #[error("the answer is not JSON")]
    Answer(#[source] serde_json::Error),
    /// What the caller asked to be told.
    #[error("{message}")]
    Asked {
        /// The error's type.
        kind: String,
        /// Its message.
        message: String,
    },
}

impl Failure {
    /// The error's type, as callers match on it.
    pub fn kind(&self) -> &str {
        match self {
            Self::UnknownFunction { .. } => "UnknownFunction",
            Self::InvalidPayload { .. } | Self::InvalidArgument { .. } => "InvalidArgument",
            Self::Database { .. } => "Database",
            Self::Io { .. } => "Io",
            Self::Answer(_) => "Answer",
            Self::Asked { kind, .. } => kind,
        }
    }
}

impl From<Failure> for Diagnostic {
    fn from(failure: Failure) -> Self {
        let mut error_message = failure.to_string();
        let mut source = failure.source();
        while let Some(cause) = source {
            let text = cause.to_string();
            // Some libraries already say their source's text.
            if !error_message.ends_with(&text) {
                error_message = format!("{error_message}: {text}");
            }
            source = cause.source();
        }
        Self { error_type: failure.kind().into(), error_message }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diagnostic_tells_every_source_once() {
        let failure = Failure::Io { action: "read notes".into(), source: io::Error::other("disk is gone") };
        let expected = Diagnostic { error_type: "Io".into(), error_message: "cannot read notes: disk is gone".into() };
        assert_eq!(Diagnostic::from(failure), expected);
    }
}
