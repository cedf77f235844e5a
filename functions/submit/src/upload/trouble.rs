//! Why a message is to come again.

use sheaf_api::ApiError;
use sheaf_files::FileError;
use sheaf_protocol::StoreError;

/// Trouble that is no file's fault.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    /// Nobody here has sent such a message.
    #[error("the message makes no sense")]
    Message(#[source] serde_json::Error),
    /// The queue was told of another bucket.
    #[error("{url} is in another bucket than the grid's")]
    Bucket {
        /// The object.
        url: String,
    },
    /// S3 or SQS could not.
    #[error("an object or message was refused")]
    Store(#[from] StoreError),
    /// The grid could not.
    #[error("the grid refused a call")]
    Call(#[from] ApiError),
    /// Running the file failed, and may succeed the next time.
    #[error("the file was not run")]
    File(#[from] FileError),
    /// Somebody else wrote the results at the same time.
    #[error("{key} was written meanwhile")]
    Raced {
        /// The object.
        key: String,
    },
    /// Three others have all names that a file may have.
    #[error("all names for the results of {key} are taken")]
    NoName {
        /// The upload.
        key: String,
    },
}

impl Trouble {
    /// It, with what lies behind it.
    pub(super) fn with_sources(&self) -> String {
        let sources = std::iter::successors(std::error::Error::source(self), |source| source.source());
        sources.fold(self.to_string(), |text, source| format!("{text}: {source}"))
    }
}
